//! The upstream of a request: how one of its servers would be chosen, and the head that it would get.

use rustls::pki_types::ServerName;

use super::setting::time;
use super::{Named, shown};
use crate::config::{self, Balance, Config, Location, NEXT_CASES, NextCases, Places, UpstreamVersion};
use crate::http2;
use crate::routing::script::{Assigned, Step};
use crate::routing::variables::{Part, Template, Variable};
use crate::upstream::tls::Secured;

/// An upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// The group, or the address; its line is that of the `[upstream]`.
    pub named: Named,
    /// The line of the `proxy_pass`.
    pub pass_line: Option<usize>,
    /// Whether it is asked in HTTP/2.
    pub is_http2: bool,
    /// The line that says so.
    pub version_line: Option<usize>,
    /// The header of the PROXY protocol that connections to it begin with.
    pub header: Option<String>,
    /// The line that says so.
    pub header_line: Option<usize>,
    /// How TLS is spoken with it.
    pub tls: Option<Tls>,
    /// How a server is chosen, if there are several.
    pub method: Option<String>,
    /// Its servers.
    pub servers: Vec<UpstreamServer>,
    /// After which failures another server is tried; nothing if there is only one.
    pub next: Vec<&'static str>,
    /// The line of the `proxy_next_upstream`.
    pub next_line: Option<usize>,
    /// What it would be sent.
    pub sent: Sent,
    /// The errors that are answered by an error page: statuses, and what is answered.
    pub error_pages: Vec<(Vec<u16>, String)>,
    /// The line of the `error_page`.
    pub error_page_line: Option<usize>,
}

/// How TLS is spoken with an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Whose certificates are believed.
    pub believed: Believed,
    /// The line that says so; `None`: it is the default.
    pub believed_line: Option<usize>,
    /// The name that the certificate must have.
    pub name: String,
    /// The line of `proxy_ssl_name`.
    pub name_line: Option<usize>,
    /// Whether the server is told the name (SNI).
    pub sends_name: bool,
}

/// Whose certificates are believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Believed {
    /// Those of the CAs that the system trusts.
    System,
    /// Those of the CAs in `proxy_ssl_trusted_certificate`.
    File,
    /// Anybody's: `proxy_ssl_verify = false`.
    Anybody,
}

impl Believed {
    /// The key that says so.
    pub fn key(self) -> &'static str {
        match self {
            Self::System | Self::Anybody => "proxy_ssl_verify",
            Self::File => "proxy_ssl_trusted_certificate",
        }
    }
}

/// Describes how TLS is spoken; `line_of` finds the line of a key.
pub(super) fn tls(secured: &Secured, line_of: impl Fn(&str) -> Option<usize>) -> Tls {
    let rules = secured.client.rules();
    let believed = match &rules.trust {
        None => Believed::Anybody,
        Some(trust) if trust.certificates.is_empty() => Believed::System,
        Some(_) => Believed::File,
    };
    let name = secured.name.to_str().into_owned();
    // An address is no name that could be told (RFC 6066 §3).
    let is_address = matches!(*secured.name, ServerName::IpAddress(_));
    Tls {
        believed,
        believed_line: line_of(believed.key()),
        name,
        name_line: line_of("proxy_ssl_name"),
        sends_name: rules.sends_name && !is_address,
    }
}

/// A server of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamServer {
    /// Where it is.
    pub address: String,
    /// What is said of it, in nginx's words; a weight of 1 and other defaults are left out.
    pub words: Vec<String>,
    /// Whether it is certain to be chosen for this request if it is well.
    pub is_chosen: bool,
}

/// A head for an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Its bytes.
    pub head: Vec<u8>,
    /// The names of the fields whose values are examples: another request has others.
    pub examples: Vec<String>,
}

/// Describes the group; `chosen` is the server that it has chosen for this request.
pub(super) fn group(
    upstream: &config::Upstream,
    key: &[u8],
    chosen: usize,
    places: &Places,
) -> (Named, Option<String>, Vec<UpstreamServer>) {
    let named = Named { name: upstream.name.clone(), line: places.upstream(&upstream.name) };
    let key = shown(key);
    let method = match &upstream.balance {
        Balance::RoundRobin => "one after the other, by weight".to_owned(),
        Balance::LeastConn => {
            "least_conn: the one with the fewest requests and tunnels for its weight".to_owned()
        }
        Balance::IpHash => "ip_hash: by the address of the client".to_owned(),
        Balance::Hash { .. } | Balance::Rendezvous { .. } if key.is_empty() => {
            "hash: the key is empty, which leaves it to the turns by weight".to_owned()
        }
        Balance::Hash { is_consistent: true, .. } => format!("hash, consistent: by the key `{key}`"),
        Balance::Hash { is_consistent: false, .. } => format!("hash: by the key `{key}`"),
        Balance::Rendezvous { .. } => format!("hash, rendezvous: by the key `{key}`"),
        Balance::Random => "random: any, by weight".to_owned(),
        Balance::RandomTwo => {
            "random two: of two by chance the one with the fewest requests and tunnels for its weight"
                .to_owned()
        }
    };
    let is_certain = match &upstream.balance {
        Balance::IpHash => true,
        // nginx: an empty key leaves it to the round robin.
        Balance::Hash { .. } | Balance::Rendezvous { .. } => !key.is_empty(),
        _ => false,
    };
    let several = upstream.servers.len() > 1;
    let servers = upstream.servers.iter().enumerate().map(|(index, server)| UpstreamServer {
        address: server.address.to_string(),
        words: words(server),
        is_chosen: several && is_certain && index == chosen,
    });
    (named, several.then_some(method), servers.collect())
}

/// A head as it would stand on the connection.
pub(super) fn as_sent(head: Vec<u8>, version: UpstreamVersion, is_tls: bool) -> Vec<u8> {
    match version {
        UpstreamVersion::Http11 => head,
        UpstreamVersion::Http2 => http2::shown(&head, is_tls).unwrap_or(head),
    }
}

/// What a server has besides its address, but for what every server has.
fn words(server: &config::UpstreamServer) -> Vec<String> {
    let default = config::UpstreamServer::new(String::new(), server.address.clone());
    let mut words = Vec::new();
    if server.weight != default.weight {
        words.push(format!("weight={}", server.weight));
    }
    if server.max_fails != default.max_fails {
        words.push(format!("max_fails={}", server.max_fails.map_or(0, std::num::NonZeroU32::get)));
    }
    if server.fail_timeout != default.fail_timeout {
        words.push(format!("fail_timeout={}", time(server.fail_timeout)));
    }
    words.extend(server.max_conns.map(|most| format!("max_conns={most}")));
    words.extend(server.is_backup.then(|| "backup".to_owned()));
    words.extend(server.is_down.then(|| "down".to_owned()));
    words
}

/// After which failures the next server is tried, in the words of `proxy_next_upstream`.
pub(super) fn next_cases(cases: NextCases) -> Vec<&'static str> {
    NEXT_CASES.iter().filter(|(_, case)| cases.contains(*case)).map(|(name, _)| *name).collect()
}

/// The fields of a head whose values are examples.
pub(super) fn examples(
    config: &Config,
    server: &config::Server,
    location: &Location,
    added: &[&'static str],
) -> Vec<String> {
    let scripts = [server.script.as_slice(), location.script.as_slice()];
    let own = location.set_headers.iter().filter(|(_, value)| is_example(config, &scripts, value, 0));
    let own = own.map(|(name, _)| name.as_str().to_owned());
    let key = added.iter().filter(|name| **name == "Sec-WebSocket-Key").map(|name| (*name).to_owned());
    own.chain(key).collect()
}

/// Whether a value depends on more than the request: on the time, the process or the connection.
fn is_example(config: &Config, scripts: &[&[Step]], value: &Template, depth: u8) -> bool {
    value.parts().iter().any(|part| match part {
        Part::Literal(_) => false,
        Part::Variable(Variable::User(_)) if depth > 8 => false,
        Part::Variable(Variable::User(slot)) => {
            let map = config.variables.get(*slot).and_then(|own| own.map.as_ref());
            let of_map = map.into_iter().flat_map(|map| {
                let exact = map.exact.values();
                let named = map.leading.iter().chain(&map.trailing).map(|(_, value)| value);
                let regexes = map.regexes.iter().map(|(_, value)| value);
                [&map.source, &map.default].into_iter().chain(exact).chain(named).chain(regexes)
            });
            let mut templates: Vec<&Template> = of_map.collect();
            scripts.iter().for_each(|script| assigned(script, *slot, &mut templates));
            templates.into_iter().any(|value| is_example(config, scripts, value, depth + 1))
        }
        Part::Variable(variable) => matches!(
            variable,
            Variable::RequestId
                | Variable::Connection
                | Variable::ConnectionRequests
                | Variable::RemotePort
                | Variable::RealipRemotePort
                | Variable::Pid
                | Variable::Msec
                | Variable::TimeIso8601
                | Variable::TimeLocal
                | Variable::RequestTime
        ),
    })
}

/// What `set` gives a variable.
fn assigned<'a>(script: &'a [Step], wanted: usize, out: &mut Vec<&'a Template>) {
    for step in script {
        match step {
            Step::Set(Assigned::User(slot), value) if *slot == wanted => out.push(value),
            Step::If(_, then) => assigned(then, wanted, out),
            _ => {}
        }
    }
}

impl Sent {
    /// The lines of the head without the empty one, each with whether its value is an example.
    pub fn lines(&self) -> Vec<(String, bool)> {
        let text = self.head.strip_suffix(b"\r\n\r\n").unwrap_or(&self.head);
        let is_example = |line: &[u8]| {
            let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
            self.examples.iter().any(|example| example.as_bytes().eq_ignore_ascii_case(name))
        };
        // A line feed cannot stand in a field, so that it ends one.
        let lines = text.split(|byte| *byte == b'\n');
        lines
            .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
            .map(|l| (shown(l), is_example(l)))
            .collect()
    }
}
