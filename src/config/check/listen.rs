//! Which servers answer on which address, and for which hosts.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use serde_spanned::Spanned;

use super::Check;
use crate::config::error::Mistake;
use crate::config::file::{Listen, Server, TextOr, Value};
use crate::config::read::nearest;
use crate::config::units::{self, Wrong};
use crate::config::{self, ListenAddress, Listener};
use crate::routing::host::{ServerName, ServerNames};
use crate::routing::values::hostname;

/// An address while its servers are collected.
struct Shared {
    address: ListenAddress,
    /// What any of the servers says of it holds for all of them, as in nginx.
    tls: bool,
    http2: bool,
    proxy_protocol: bool,
    servers: Vec<usize>,
    /// Where it stands first.
    span: Range<usize>,
    /// Where the default server says that it is one.
    default: Option<(usize, Range<usize>)>,
}

/// An entry of `listen`.
struct Entry {
    address: ListenAddress,
    /// Whether this server is the default one there.
    is_default: bool,
    tls: bool,
    http2: bool,
    proxy_protocol: bool,
}

/// A name of a server and where it is written; the empty one stands for none.
type Name = (ServerName, Range<usize>);

impl Check<'_> {
    /// Every address once, with the servers on it; and where each one stands.
    pub(super) fn listeners(&mut self, servers: &[Spanned<Server>]) -> (Vec<Listener>, Vec<Range<usize>>) {
        let mut shared = Vec::new();
        for (number, server) in servers.iter().enumerate() {
            self.addresses(number, server, &mut shared);
        }
        let names: Vec<Vec<Name>> = servers.iter().map(|server| self.names(server)).collect();
        let mut reported = HashSet::new();
        let places = shared.iter().map(|address| address.span.clone()).collect();
        let listeners =
            shared.into_iter().map(|address| self.listener(address, &names, &mut reported)).collect();
        (listeners, places)
    }

    fn addresses(&mut self, number: usize, server: &Spanned<Server>, shared: &mut Vec<Shared>) {
        let listen = &server.get_ref().listen;
        let entries = listen.given().map(|entries| entries.get_ref().0.as_slice()).unwrap_or_default();
        if listen.is_absent() || listen.given().is_some() && entries.is_empty() {
            let help = "write `listen = \"127.0.0.1:8080\"` below `[[server]]`";
            self.missing(server.span(), "a server needs an address to `listen` on", help);
        }
        let mut own: HashMap<ListenAddress, Range<usize>> = HashMap::new();
        for entry in entries {
            let Some(Entry { address, is_default, tls, http2, proxy_protocol }) = self.entry(entry) else {
                continue;
            };
            if let Some(first) = own.insert(address.clone(), entry.span()) {
                let mistake = Mistake::new(entry.span(), format!("this server listens on {address} twice"));
                self.mistakes
                    .push(mistake.label("again").also(first, "first here").help("delete one of them"));
                continue;
            }
            let place = shared.iter().position(|other| other.address == address).unwrap_or_else(|| {
                shared.push(Shared {
                    address: address.clone(),
                    tls: false,
                    http2: false,
                    proxy_protocol: false,
                    servers: Vec::new(),
                    span: entry.span(),
                    default: None,
                });
                shared.len() - 1
            });
            shared[place].servers.push(number);
            shared[place].tls |= tls;
            shared[place].http2 |= http2;
            shared[place].proxy_protocol |= proxy_protocol;
            if is_default {
                self.claim_default(&mut shared[place], number, entry.span());
            }
        }
    }

    fn claim_default(&mut self, address: &mut Shared, number: usize, span: Range<usize>) {
        let Some((_, first)) = &address.default else {
            address.default = Some((number, span));
            return;
        };
        let message = format!("there are two default servers on {}", address.address);
        let mistake = Mistake::new(span, message).label("again").also(first.clone(), "first here");
        self.mistakes.push(mistake.help("take `default_server` away from one of them"));
    }

    fn entry(&mut self, entry: &Spanned<TextOr<Listen>>) -> Option<Entry> {
        let (text, span, parameters) = match entry.get_ref() {
            TextOr::Text(text) => {
                let mut words = text.split_whitespace();
                (words.next().unwrap_or_default(), entry.span(), words.collect())
            }
            TextOr::Table(table) => {
                if table.address.is_absent() {
                    self.missing(
                        entry.span(),
                        "an `address` is missing",
                        "write `{ address = \"127.0.0.1:8080\" }`",
                    );
                }
                let address = table.address.given()?;
                let flags = [
                    ("default_server", &table.default_server),
                    ("ssl", &table.tls),
                    ("http2", &table.http2),
                    ("proxy_protocol", &table.proxy_protocol),
                ];
                let is_set = |flag: &Value<bool>| flag.given().is_some_and(|value| *value.get_ref());
                let set = flags.into_iter().filter(|(_, flag)| is_set(flag)).map(|(name, _)| name);
                (address.get_ref().as_str(), address.span(), set.collect::<Vec<_>>())
            }
        };
        let mut wrong = false;
        for parameter in &parameters {
            if let Err((message, help)) = known_parameter(parameter, text, &parameters) {
                self.mistakes.push(Mistake::new(entry.span(), message).help(help));
                wrong = true;
            }
        }
        match units::listen_address(text) {
            Ok(address) => {
                let says = |parameter| parameters.contains(&parameter);
                let (is_default, tls, http2) = (says("default_server"), says("ssl"), says("http2"));
                let proxy_protocol = says("proxy_protocol");
                (!wrong).then_some(Entry { address, is_default, tls, http2, proxy_protocol })
            }
            Err(Wrong { message, help }) => {
                let help = match text.strip_suffix(';') {
                    Some(clean) if units::listen_address(clean).is_ok() => {
                        Some(format!("write `\"{clean}\"`"))
                    }
                    _ => help,
                };
                self.mistakes.push(Mistake::new(span, format!("`listen`: {message}")).maybe_help(help));
                None
            }
        }
    }

    fn names(&mut self, server: &Spanned<Server>) -> Vec<Name> {
        let written = &server.get_ref().server_name;
        if written.is_absent() {
            return vec![(ServerName::Exact(String::new()), server.span())];
        }
        let mut names = Vec::new();
        for name in written.given().map(|names| names.get_ref().0.as_slice()).unwrap_or_default() {
            if let Some(text) = name.get_ref().strip_prefix('~') {
                // nginx: an expression with a capital is meant for all; hosts are matched in lower case.
                let regex = self.regex(text, true, name.span());
                names.extend(regex.map(|regex| (ServerName::Regex(regex), name.span())));
                continue;
            }
            match server_name(name.get_ref()) {
                Ok(read) => names.extend(read.into_iter().map(|read| (read, name.span()))),
                Err((message, help)) => {
                    self.mistakes.push(
                        Mistake::new(name.span(), format!("`server_name`: {message}")).maybe_help(help),
                    );
                }
            }
        }
        names
    }

    /// R18: a header of the PROXY protocol is taken from listed peers alone, so somebody has to be listed.
    pub(super) fn balancers(
        &mut self,
        servers: &[config::Server],
        listeners: &[Listener],
        places: &[Range<usize>],
    ) {
        for (listener, place) in listeners.iter().zip(places).filter(|(listener, _)| listener.proxy_protocol)
        {
            let server = servers.get(listener.servers.default_server());
            if server.is_some_and(|server| !server.real_ip.trusts_anybody()) {
                let message = format!(
                    "nobody could connect to {}: the PROXY protocol is taken from `trusted_proxies` alone, and \
                     its default server has none",
                    listener.address
                );
                let help = "write the addresses of your balancers in the server, `trusted_proxies = \
                            [\"10.0.0.0/8\"]`, or take `proxy_protocol` away";
                self.mistakes.push(Mistake::new(place.clone(), message).help(help));
            }
        }
    }

    fn listener(&mut self, shared: Shared, names: &[Vec<Name>], reported: &mut HashSet<usize>) -> Listener {
        let mut owners: HashMap<String, Range<usize>> = HashMap::new();
        for (name, span) in shared.servers.iter().flat_map(|server| &names[*server]) {
            let Some(first) = owners.insert(format!("{name:?}"), span.clone()) else { continue };
            if reported.insert(span.start) {
                self.mistakes.push(taken(name, span.clone(), first, &shared.address));
            }
        }
        let default =
            shared.default.map(|(server, _)| server).or(shared.servers.first().copied()).unwrap_or(0);
        let own = |server: usize| names[server].iter().map(move |(name, _)| (name.clone(), server));
        let servers = ServerNames::new(default, shared.servers.iter().flat_map(|server| own(*server)));
        let Shared { address, tls, http2, proxy_protocol, servers: places, .. } = shared;
        Listener { address, tls, http2, proxy_protocol, servers, places }
    }
}

fn taken(name: &ServerName, span: Range<usize>, first: Range<usize>, address: &ListenAddress) -> Mistake {
    let unnamed = *name == ServerName::Exact(String::new());
    let message = match name {
        _ if unnamed => {
            format!(
                "a second server without a `server_name` on {address}: nothing tells which of the two is meant"
            )
        }
        ServerName::Regex(regex) => {
            format!("the server name `~{}` is taken on {address}", regex.as_str())
        }
        ServerName::Exact(name) => format!("the server name `{name}` is taken on {address}"),
        ServerName::LeadingWildcard(name) => format!("the server name `*{name}` is taken on {address}"),
        ServerName::TrailingWildcard(name) => format!("the server name `{name}*` is taken on {address}"),
    };
    let help = match unnamed {
        true => "give it a `server_name`, or another address",
        false => "delete one of them: as in nginx the first one has the name",
    };
    Mistake::warning(span, message).label("again").also(first, "first here").help(help)
}

/// The parameters of nginx's `listen` that say something here.
const PARAMETERS: [&str; 4] = ["ssl", "http2", "proxy_protocol", "default_server"];

/// Whether a parameter is one of them, and what there is to say of the others; `all` are those of the address.
fn known_parameter(parameter: &str, address: &str, all: &[&str]) -> Result<(), (String, String)> {
    fn clean(parameter: &str) -> &str {
        match parameter.trim_end_matches(';').split('=').next().unwrap_or_default() {
            "default" => "default_server",
            name => name,
        }
    }
    let name = clean(parameter);
    let say = |message: String, help: &str| Err((message, help.to_owned()));
    // As it is written, without what is wrong with it.
    let right = || {
        let known =
            PARAMETERS.into_iter().filter(|known| all.iter().any(|parameter| clean(parameter) == *known));
        let words: Vec<_> = [address].into_iter().chain(known).collect();
        format!("write `\"{}\"`", words.join(" "))
    };
    match name {
        known if PARAMETERS.contains(&known) => match name == parameter {
            true => Ok(()),
            false => say(format!("`{parameter}` is not known in `listen`"), &right()),
        },
        "quic" => say(format!("`{name}` is not supported yet"), &right()),
        "reuseport" | "deferred" | "backlog" | "rcvbuf" | "sndbuf" | "so_keepalive" | "ipv6only" | "bind"
        | "fastopen" => say(format!("`{name}` is needless in hopgate"), &right()),
        _ => match nearest(name, &PARAMETERS) {
            Some(meant) => {
                say(format!("`{parameter}` is not known in `listen`"), &format!("did you mean `{meant}`?"))
            }
            None => say(
                format!("`{parameter}` is not known in `listen`"),
                "an address may be followed by `ssl` (TLS), `http2`, `proxy_protocol` and `default_server`; several addresses \
             are written as an array",
            ),
        },
    }
}

pub(super) fn server_name(text: &str) -> Result<Vec<ServerName>, (String, Option<String>)> {
    if text == "$hostname" {
        return Ok(vec![ServerName::Exact(hostname().to_ascii_lowercase())]);
    }
    if text.trim_end_matches(';').contains(char::is_whitespace) {
        let names: Vec<_> =
            text.trim_end_matches(';').split_whitespace().map(|name| format!("\"{name}\"")).collect();
        let help = format!("write `server_name = [{}]`", names.join(", "));
        return Err((format!("`{text}` is more than one name"), Some(help)));
    }
    if text.bytes().all(|byte| matches!(byte, b'*' | b'.' | b';')) && !text.is_empty() {
        let help = "leave `server_name` out, and this server answers for every host that no other one has";
        return Err((format!("`{text}` is not a host name"), Some(help.to_owned())));
    }
    let clean = text.trim_end_matches([';', '.']);
    if clean != text && ServerName::parse(clean).is_ok() {
        return Err((format!("`{text}` is not a host name"), Some(format!("write `\"{clean}\"`"))));
    }
    if !text.is_ascii() {
        let help = "write it as browsers send it: `xn--…` (Punycode)";
        return Err((format!("`{text}` is not a host name"), Some(help.to_owned())));
    }
    ServerName::parse(text).map_err(|message| (format!("`{text}`: {message}"), None))
}
