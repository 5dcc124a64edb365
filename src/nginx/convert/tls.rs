//! TLS: of the addresses that clients come to, and of upstreams.

use std::collections::{HashMap, HashSet};

use super::server::{socket, texts};
use super::toml::{Entry, Item, Table, Value};
use super::{Convert, Scope, bare, origin, paths, text};
use crate::nginx::parse::Directive;
use crate::nginx::report::Report;

/// The versions that are spoken.
const SPOKEN: &[&str] = &["TLSv1.2", "TLSv1.3"];

/// Those that are known, and that nobody should speak any more.
const OLD: &[&str] = &["SSLv2", "SSLv3", "TLSv1", "TLSv1.1"];

/// Why `http2` needs no word where TLS is.
pub(super) const HTTP2: &str = "HTTP/2 is offered on every address with TLS";

/// `ssl on`: every address of the server has TLS, as nginx had it until 1.25.
pub fn ssl(convert: &mut Convert<'_>, scope: &mut Scope, directive: &Directive, _: &str) {
    scope.outer.ssl = directive.arg(0) == "on";
    let reason = match directive.arg(0) {
        "on" => "it stands behind the addresses of `listen`, as nginx itself has it since 1.25",
        _ => "an address has TLS if its `listen` says so",
    };
    convert.needless(directive, "ssl", reason);
}

/// `http2 on | off`: on an address without TLS it is for clients that speak it from the first byte on.
pub fn http2(convert: &mut Convert<'_>, scope: &mut Scope, directive: &Directive, key: &str) {
    scope.outer.http2 = directive.arg(0) == "on";
    match directive.arg(0) {
        "off" => scope.set(key, bare(directive, "false")),
        _ => convert.needless(directive, "http2 on", HTTP2),
    }
}

/// `ssl_certificate FILE` and `ssl_certificate_key FILE`; several pairs are several lines.
pub fn certificate(convert: &mut Convert<'_>, scope: &mut Scope, directive: &Directive, key: &str) {
    if let Some(path) = convert.pem(directive) {
        scope.table.push(key, text(directive, path));
    }
}

/// A file in PEM: relative paths begin where the file of nginx stands.
pub fn file(convert: &mut Convert<'_>, scope: &mut Scope, directive: &Directive, key: &str) {
    if let Some(path) = convert.pem(directive) {
        scope.set(key, text(directive, path));
    }
}

/// A file without which somebody would be let in who should not be.
pub fn guard_file(convert: &mut Convert<'_>, scope: &mut Scope, directive: &Directive, key: &str) {
    match convert.pem(directive) {
        Some(path) => scope.set(key, text(directive, path)),
        None => {
            let line = super::shortened(&directive.line());
            scope.refuse(403, format!("Refused: nginx has `{line}` here, which cannot be carried over."));
        }
    }
}

/// `ssl_protocols` and `proxy_ssl_protocols`
pub fn protocols(convert: &mut Convert<'_>, scope: &mut Scope, directive: &Directive, key: &str) {
    let (spoken, others): (Vec<&str>, Vec<&str>) =
        directive.texts().partition(|version| SPOKEN.contains(version));
    let (old, unknown): (Vec<&str>, Vec<&str>) =
        others.into_iter().partition(|version| OLD.contains(version));
    for version in unknown {
        convert.report(directive, &format!("`{version}` is no version of TLS; write TLSv1.2 and TLSv1.3"));
    }
    if !old.is_empty() {
        let whose = match key.starts_with("proxy_") {
            true => "an upstream that knows no newer one cannot be reached",
            false => "a client from before 2013 that knows no newer one cannot connect",
        };
        let (versions, verb) = (old.join(", "), if old.len() == 1 { "is" } else { "are" });
        let text = format!("{versions} {verb} broken (RFC 7568, RFC 8996) and not spoken: {whose}");
        convert.report(directive, &text);
    }
    if spoken.is_empty() {
        return;
    }
    let is_old = !spoken.contains(&"TLSv1.3");
    let versions = spoken.into_iter().map(|version| text(directive, version)).collect();
    scope.set(key, Item::from(Value::List(versions), origin(directive)));
    if is_old {
        let line = "The file does not name TLSv1.3: add it, unless something speaks against it.".to_owned();
        scope.table.entry(key, Value::List(Vec::new())).comments.push(line);
    }
}

/// `ssl_session_tickets on | off`: whoever switches them off beside a cache wants sessions to be resumed, but not by
/// tickets with nginx's keys, which never change.
pub fn tickets(convert: &mut Convert<'_>, scope: &mut Scope, directive: &Directive, key: &str) {
    let cached = convert.facts.in_use.contains("ssl_session_cache");
    if directive.arg(0) == "off" && cached {
        let reason = "nginx's own tickets have keys that do not change, and a cache in their place; here the keys change \
                      every six hours, and there is no cache";
        return convert.needless(directive, "ssl_session_tickets off", reason);
    }
    super::settings::flag(convert, scope, directive, key);
}

/// `ssl_trusted_certificate`: for the certificates of clients and for OCSP.
pub fn trusted(convert: &mut Convert<'_>, scope: &mut Scope, directive: &Directive, _: &str) {
    if convert.facts.in_use.contains("ssl_verify_client") {
        scope.outer.trusted = Some(directive.clone());
    } else {
        let reason = "nothing is to be verified with it: OCSP answers are not fetched, and clients are not \
                      asked for certificates";
        convert.needless(directive, "ssl_trusted_certificate", reason);
    }
}

impl Convert<'_> {
    /// The path of a file that is read at the start; `None` if it is none, which is reported.
    fn pem(&mut self, directive: &Directive) -> Option<String> {
        let path = directive.arg(0);
        let why = match path {
            _ if path.contains('$') => {
                "its name has a variable, and hopgate reads such files at its start; write a [[server]] for each name"
            }
            _ if path.starts_with("data:") => "the file itself stands in the line; write it into a file",
            _ if path.starts_with("engine:") || path.starts_with("store:") => {
                "hopgate reads keys from files, and knows nothing of OpenSSL's engines and stores"
            }
            "" => "it names no file",
            _ => return Some(paths::whole(path, &self.folder)),
        };
        self.report(directive, why);
        None
    }

    /// What the whole server says of its addresses and of the certificates of its clients.
    pub(super) fn settle_tls(&mut self, scope: &mut Scope) {
        let (ssl, http2) = (scope.outer.ssl, scope.outer.http2);
        for listen in listens(&mut scope.table) {
            if ssl {
                add_word(listen, "ssl");
            }
            if http2 && !has_word(listen, "ssl") {
                add_word(listen, "http2");
            }
        }
        if let Some(directive) = scope.outer.trusted.take() {
            self.trusted_of_clients(scope, &directive);
        }
    }

    /// nginx trusts both files for the certificates of clients, and names only the CAs of one to them.
    fn trusted_of_clients(&mut self, scope: &mut Scope, directive: &Directive) {
        if scope.table.has("ssl_client_certificate") || scope.outer.has_client_certificate {
            let text = "nginx trusts these CAs for client certificates, too, and hopgate those of \
                        ssl_client_certificate alone; write both into one file";
            return self.report(directive, text);
        }
        guard_file(self, scope, directive, "ssl_client_certificate");
    }

    /// What is to be known of a location with an upstream that speaks TLS.
    pub(super) fn proxied_with_tls(&mut self, scope: &mut Scope) {
        let Some(Value::Text(url)) = scope.table.find("proxy_pass").map(|entry| entry.item.value.clone())
        else {
            return;
        };
        let Some(rest) = self.with_tls(&url) else { return };
        let is_said = |key: &str| scope.table.has(key) || scope.outer.proxy.iter().any(|known| known == key);
        self.unverified |= !is_said("proxy_ssl_verify");
        if is_said("proxy_ssl_server_name") || is_said("proxy_ssl_name") {
            return;
        }
        let host = rest.split(['/', ':', '?']).next().unwrap_or(rest).to_ascii_lowercase();
        if self.facts.upstreams.contains(&host) {
            let entry = Entry::new("proxy_ssl_server_name", bare_of_nothing("false"));
            let line =
                format!("As in nginx, the upstream is told no name (SNI): `{host}` is that of a group.");
            scope.table.entries.push(entry.comment(line));
        } else {
            self.tells_names = true;
        }
    }

    /// What stands behind `https://`, if that is or may be the scheme.
    fn with_tls<'u>(&self, url: &'u str) -> Option<&'u str> {
        match url.strip_prefix("https://") {
            Some(rest) => Some(rest),
            None if url.starts_with('$') && self.facts.says_https => {
                Some(url.split_once("://").map_or(url, |(_, rest)| rest))
            }
            None => None,
        }
    }
}

fn bare_of_nothing(text: &str) -> Item {
    Item::new(Value::Bare(text.to_owned()))
}

/// nginx wants a certificate for the default server of an address with TLS, and for the others if that one
/// refuses handshakes. Where there is none, the result makes one itself.
pub(super) fn settle_certificates(servers: &mut [Table], top: &[Entry], reports: &mut Vec<Report>) {
    let top = |key: &str| top.iter().any(|entry| entry.key == key && !entry.is_off);
    let all = servers.iter().flat_map(|server| texts(server, "listen"));
    let sockets: HashSet<String> =
        all.filter(|listen| has_word(listen, "ssl")).map(|listen| socket(&listen)).collect();
    servers.iter_mut().for_each(|server| pair_up(server, reports));
    // The certificates of the default server of an address.
    let mut of_default: HashMap<String, (bool, Vec<Entry>)> = HashMap::new();
    for server in servers.iter() {
        let is_pair = |entry: &&Entry| PAIR.contains(&entry.key.as_str()) && !entry.is_off;
        let pair: Vec<Entry> = server.entries.iter().filter(is_pair).cloned().collect();
        for listen in texts(server, "listen") {
            let is_default = has_word(&listen, "default_server");
            let known = of_default.entry(socket(&listen)).or_insert((is_default, pair.clone()));
            if is_default && !known.0 {
                *known = (true, pair.clone());
            }
        }
    }
    for server in servers.iter_mut() {
        let listens = texts(server, "listen");
        let mut own =
            listens.iter().map(|listen| socket(listen)).filter(|own| sockets.contains(own)).peekable();
        let has = |key: &str| server.has(key) || top(key);
        let is_settled = PAIR.iter().all(|key| has(key)) || is_true(server, "ssl_reject_handshake");
        if own.peek().is_none() || is_settled {
            continue;
        }
        match own.find_map(|socket| of_default.get(&socket).filter(|(_, pair)| pair.len() == PAIR.len())) {
            Some((_, pair)) => of_the_default(server, pair),
            None => self_signed(server, reports),
        }
    }
}

/// A certificate and its key.
const PAIR: [&str; 2] = ["ssl_certificate", "ssl_certificate_key"];

/// As in nginx a server without a certificate shows that of the default server.
fn of_the_default(server: &mut Table, pair: &[Entry]) {
    switch_off(server);
    let at = behind_its_names(server);
    let mut pair = pair.to_vec();
    pair.iter_mut().for_each(|entry| entry.comments.clear());
    pair[0].comments.push("That of the default server, as the file has none for this one.".to_owned());
    server.entries.splice(at..at, pair);
}

/// Where the first lines of a server end.
fn behind_its_names(server: &Table) -> usize {
    let is_name = |entry: &Entry| matches!(entry.key.as_str(), "listen" | "server_name");
    server.entries.iter().rposition(is_name).map_or(0, |at| at + 1)
}

/// Every certificate needs its key.
fn pair_up(server: &mut Table, reports: &mut Vec<Report>) {
    let (certificates, keys) = (texts(server, "ssl_certificate"), texts(server, "ssl_certificate_key"));
    if certificates.len() == keys.len() || certificates.is_empty() || keys.is_empty() {
        return;
    }
    let origin = server.find("ssl_certificate").and_then(|entry| super::refine::first_origin(&entry.item));
    if let Some(origin) = origin.cloned() {
        let text = format!(
            "there are {} certificates and {} keys here, and nobody can tell which belong together; write a key \
             for each certificate",
            certificates.len(),
            keys.len()
        );
        reports.push(Report::new(origin.place, &origin.directive, &text));
    }
    switch_off(server);
}

fn switch_off(server: &mut Table) {
    for entry in &mut server.entries {
        entry.is_off |= PAIR.contains(&entry.key.as_str());
    }
}

fn self_signed(server: &mut Table, reports: &mut Vec<Report>) {
    switch_off(server);
    let listen = server.find("listen").map(|entry| entry.item.clone());
    let origin = listen.as_ref().and_then(|item| match &item.value {
        Value::List(items) => items.iter().find(|item| is_tls(item)).and_then(|item| item.origin.clone()),
        _ => item.origin.clone(),
    });
    if let Some(origin) = origin {
        let text = "there is TLS here and no certificate for it, with which nginx would not start: the result makes one \
                    itself, which no browser trusts; write ssl_certificate and ssl_certificate_key, or tls = \"acme\"";
        reports.push(Report::new(origin.place, &origin.directive, text));
    }
    let at = behind_its_names(server);
    let entry = Entry::new("tls", Item::new(Value::text("self-signed")))
        .comment(
            "The file has no certificate for this server: write ssl_certificate and ssl_certificate_key,",
        )
        .comment("or tls = \"acme\". Until then one is made at the start, which no browser trusts.");
    server.entries.insert(at, entry);
}

fn is_tls(item: &Item) -> bool {
    matches!(&item.value, Value::Text(text) if has_word(text, "ssl"))
}

fn is_true(table: &Table, key: &str) -> bool {
    table.find(key).is_some_and(|entry| entry.item.value == Value::Bare("true".to_owned()))
}

/// The addresses of a server as they are written.
fn listens(table: &mut Table) -> Vec<&mut String> {
    let entry = table.entries.iter_mut().find(|entry| entry.key == "listen" && !entry.is_off);
    match entry.map(|entry| &mut entry.item.value) {
        Some(Value::List(items)) => items
            .iter_mut()
            .filter_map(|item| match &mut item.value {
                Value::Text(text) => Some(text),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// Whether a word stands behind the address of a `listen`.
pub(super) fn has_word(listen: &str, word: &str) -> bool {
    listen.split(' ').skip(1).any(|own| own == word)
}

/// Writes a word behind the address of a `listen`, before the others.
fn add_word(listen: &mut String, word: &str) {
    if !has_word(listen, word) {
        let at = listen.find(' ').unwrap_or(listen.len());
        listen.insert_str(at, &format!(" {word}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stand_behind_the_address() {
        for (listen, expected) in [
            ("443", "443 ssl"),
            ("443 default_server", "443 ssl default_server"),
            ("443 ssl default_server", "443 ssl default_server"),
            ("unix:/run/ssl", "unix:/run/ssl ssl"),
        ] {
            let mut listen = listen.to_owned();
            add_word(&mut listen, "ssl");
            assert_eq!(listen, expected);
        }
    }
}
