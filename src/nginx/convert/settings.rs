//! Directives whose value is the whole of it, and those of servers.

use super::values::{size as read_size, time as read_time};
use super::{Convert, Item, Level, Scope, Value, bare, origin, text as text_item};
use crate::nginx::parse::Directive;

/// A time.
pub fn time(convert: &mut Convert<'_>, scope: &mut Scope, directive: &Directive, key: &str) {
    match read_time(directive.arg(0)) {
        Some(time) => scope.set(key, text_item(directive, time)),
        None => {
            convert.report(directive, &format!("`{}` is not a time; write one as `60s`", directive.arg(0)))
        }
    }
}

/// A size.
pub fn size(convert: &mut Convert<'_>, scope: &mut Scope, directive: &Directive, key: &str) {
    match read_size(directive.arg(0)) {
        Some(size) => scope.set(key, number_or_text(directive, &size)),
        None => {
            convert.report(directive, &format!("`{}` is not a size; write one as `16m`", directive.arg(0)))
        }
    }
}

fn number_or_text(directive: &Directive, value: &str) -> Item {
    match value.parse::<u32>() {
        Ok(number) => bare(directive, number.to_string()),
        Err(_) => text_item(directive, value),
    }
}

/// `on` or `off`.
pub fn flag(convert: &mut Convert<'_>, scope: &mut Scope, directive: &Directive, key: &str) {
    match directive.arg(0) {
        "on" => scope.set(key, bare(directive, "true")),
        "off" => scope.set(key, bare(directive, "false")),
        other => {
            let text =
                format!("`{other}` is neither on nor off, and hopgate knows no more: write `{key} = true`");
            convert.report(directive, &text);
        }
    }
}

/// A number.
pub fn number(convert: &mut Convert<'_>, scope: &mut Scope, directive: &Directive, key: &str) {
    match directive.arg(0).parse::<u32>() {
        Ok(number) => scope.set(key, bare(directive, number.to_string())),
        Err(_) => convert.report(directive, &format!("`{}` is not a number", directive.arg(0))),
    }
}

/// One word, which may have variables.
pub fn text(convert: &mut Convert<'_>, scope: &mut Scope, directive: &Directive, key: &str) {
    if !convert.mentions_unknown(directive, &[directive.arg(0)], "the line is left out") {
        scope.set(key, text_item(directive, directive.arg(0)));
    }
}

/// All words as one text, which may have variables.
pub fn joined(convert: &mut Convert<'_>, scope: &mut Scope, directive: &Directive, key: &str) {
    let value = directive.texts().collect::<Vec<_>>().join(" ");
    if !convert.mentions_unknown(directive, &[&value], "the line is left out") {
        scope.set(key, text_item(directive, value));
    }
}

/// All words as a list, which replaces the one further out.
pub fn words(convert: &mut Convert<'_>, scope: &mut Scope, directive: &Directive, key: &str) {
    let texts: Vec<&str> = directive.texts().collect();
    if convert.mentions_unknown(directive, &texts, "the line is left out") {
        return;
    }
    let entry = scope.table.entry(key, Value::List(Vec::new()));
    if let Value::List(items) = &mut entry.item.value {
        items.extend(texts.into_iter().map(|word| text_item(directive, word)));
    }
}

/// A list with the words of several lines.
pub fn gathered(_: &mut Convert<'_>, scope: &mut Scope, directive: &Directive, key: &str) {
    for word in directive.texts() {
        scope.table.push(key, text_item(directive, word));
    }
}

/// Always on here: only `off` needs a word.
pub fn must_be_on(convert: &mut Convert<'_>, _: &mut Scope, directive: &Directive, _: &str) {
    match directive.arg(0) {
        "on" => convert.needless(directive, directive.name(), "it is always so in hopgate"),
        _ => convert.report(directive, "it is always on in hopgate; see whether the app needs it off"),
    }
}

/// Always off here: only `on` needs a word.
pub fn must_be_off(convert: &mut Convert<'_>, _: &mut Scope, directive: &Directive, _: &str) {
    match directive.arg(0) {
        "off" => convert.needless(directive, directive.name(), "it is always so in hopgate"),
        _ => convert.report(
            directive,
            "hopgate gives a request up when its client has gone; see whether the app minds",
        ),
    }
}

/// `worker_processes`: hopgate's workers are threads.
pub fn worker_processes(convert: &mut Convert<'_>, scope: &mut Scope, directive: &Directive, key: &str) {
    match directive.arg(0) {
        "auto" => {
            convert.needless(directive, "worker_processes", "one worker for each processor is the default")
        }
        _ => number(convert, scope, directive, key),
    }
}

/// `keepalive_timeout` of clients; its second argument is only a field of the response.
pub fn keepalive_timeout(convert: &mut Convert<'_>, scope: &mut Scope, directive: &Directive, key: &str) {
    if directive.args.len() > 1 {
        convert.needless(
            directive,
            "keepalive_timeout",
            "no browser reads the Keep-Alive field that its second value is for",
        );
    }
    if scope.level == Level::Location {
        let text =
            "a connection belongs to a server in hopgate, not to a location; write it in the [[server]]";
        return convert.report(directive, text);
    }
    time(convert, scope, directive, key);
}

/// `keepalive_time` of an upstream; client connections have none.
pub fn keepalive_time(convert: &mut Convert<'_>, scope: &mut Scope, directive: &Directive, key: &str) {
    if scope.level != Level::Upstream {
        let text = "client connections have no greatest age; leave it out, or set keepalive_requests";
        return convert.report(directive, text);
    }
    time(convert, scope, directive, key);
}

/// `keepalive_requests` of clients.
pub fn keepalive_requests(convert: &mut Convert<'_>, scope: &mut Scope, directive: &Directive, key: &str) {
    if scope.level == Level::Location {
        let text =
            "a connection belongs to a server in hopgate, not to a location; write it in the [[server]]";
        return convert.report(directive, text);
    }
    number(convert, scope, directive, key);
}

/// `large_client_header_buffers NUMBER SIZE`: what all of them hold is the most that a head may have.
pub fn header_buffers(convert: &mut Convert<'_>, scope: &mut Scope, directive: &Directive, key: &str) {
    let count = directive.arg(0).parse::<u64>().ok();
    let size = crate::config::units::size(directive.arg(1)).ok();
    match count.zip(size).and_then(|(count, size)| count.checked_mul(size)) {
        Some(bytes) => {
            let bytes = bytes.clamp(1 << 10, 16 << 20);
            let value = if bytes % 1024 == 0 { format!("{}k", bytes / 1024) } else { bytes.to_string() };
            scope.set(key, number_or_text(directive, &value));
        }
        None => convert.report(directive, "it is not a number and a size"),
    }
}

/// `internal`
pub fn internal(_: &mut Convert<'_>, scope: &mut Scope, directive: &Directive, key: &str) {
    scope.set(key, bare(directive, "true"));
}

/// `error_page`: a line for each.
pub fn error_page(convert: &mut Convert<'_>, scope: &mut Scope, directive: &Directive, key: &str) {
    let value = directive.texts().collect::<Vec<_>>().join(" ");
    if !convert.mentions_unknown(directive, &[&value], "errors have their own page here") {
        scope.table.push(key, text_item(directive, value));
    }
}

/// `server_name`
pub fn server_name(_: &mut Convert<'_>, scope: &mut Scope, directive: &Directive, key: &str) {
    for name in directive.texts() {
        // nginx's way to say "none of these": `server_name _;` and `server_name "";`. Beside others, the empty name is
        // that of requests without a host.
        let is_none = name == "_" || (name.is_empty() && directive.args.len() == 1);
        if !is_none {
            scope.table.push(key, text_item(directive, name));
        }
    }
}

/// Why HTTP/3 is not missed.
pub const NO_HTTP3: &str = "HTTP/3 is not served: browsers use HTTP/2 or HTTP/1.1 on the same port over TCP";

/// `listen`: an address and what is said about it.
pub fn listen(convert: &mut Convert<'_>, scope: &mut Scope, directive: &Directive, key: &str) {
    let (mut is_default, mut both, mut tls, mut http2) = (false, false, false, false);
    let mut proxy_protocol = false;
    for word in directive.texts().skip(1) {
        let name = word.split('=').next().unwrap_or(word);
        match name {
            "default_server" | "default" => is_default = true,
            "ipv6only" => both = word == "ipv6only=off",
            "ssl" => tls = true,
            "http2" => http2 = true,
            "spdy" => convert.needless(directive, "listen … spdy", "HTTP/2 has taken its place"),
            "quic" => {}
            "reuseport" | "deferred" | "backlog" | "rcvbuf" | "sndbuf" | "so_keepalive" | "bind"
            | "fastopen" | "accept_filter" | "multipath" => {
                let reason = "hopgate sets its sockets up by itself";
                convert.needless(directive, &format!("listen … {name}"), reason);
            }
            "proxy_protocol" => proxy_protocol = true,
            _ => convert.report(directive, &format!("`{word}` is not known behind an address")),
        }
    }
    if directive.texts().skip(1).any(|word| word == "quic") {
        return convert.needless(directive, "listen … quic", NO_HTTP3);
    }
    if tls && http2 {
        convert.needless(directive, "listen … http2", super::tls::HTTP2);
    }
    let mut words = String::new();
    let said = [
        ("ssl", tls),
        ("http2", http2 && !tls),
        ("proxy_protocol", proxy_protocol),
        ("default_server", is_default),
    ];
    for (word, is_said) in said {
        words.push_str(if is_said { " " } else { "" });
        words.push_str(if is_said { word } else { "" });
    }
    for address in addresses(directive.arg(0), both) {
        let socket = super::server::socket(&address);
        let is_known = match scope.table.find(key).map(|entry| &entry.item.value) {
            Some(Value::List(items)) => items.iter().any(
                |item| matches!(&item.value, Value::Text(text) if super::server::socket(text) == socket),
            ),
            _ => false,
        };
        if !is_known {
            scope.table.push(key, Item::from(Value::text(format!("{address}{words}")), origin(directive)));
        }
    }
}

/// The addresses that one `listen` stands for: a range of ports is several, `ipv6only=off` is both kinds.
fn addresses(address: &str, both: bool) -> Vec<String> {
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !address.starts_with("unix:") && !port.ends_with(']') => (Some(host), port),
        _ => (None, address),
    };
    let joined = |port: &str| host.map_or_else(|| port.to_owned(), |host| format!("{host}:{port}"));
    let range = port
        .split_once('-')
        .and_then(|(from, to)| Some((from.parse::<u16>().ok()?, to.parse::<u16>().ok()?)));
    let ports: Vec<String> = match range {
        Some((from, to)) if from <= to && to - from < 256 => {
            (from..=to).map(|port| joined(&port.to_string())).collect()
        }
        _ => vec![joined(port)],
    };
    let v4 = |address: &String| {
        both.then(|| address.strip_prefix("[::]").map(|rest| format!("0.0.0.0{rest}"))).flatten()
    };
    let more: Vec<String> = ports.iter().filter_map(v4).collect();
    ports.into_iter().chain(more).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listen_may_stand_for_several_addresses() {
        for (address, both, expected) in [
            ("80", false, &["80"][..]),
            ("*:8080", false, &["*:8080"]),
            ("[::]:80", false, &["[::]:80"]),
            ("[::]:80", true, &["[::]:80", "0.0.0.0:80"]),
            ("[::1]", false, &["[::1]"]),
            ("127.0.0.1:8000-8002", false, &["127.0.0.1:8000", "127.0.0.1:8001", "127.0.0.1:8002"]),
            ("8000-8001", false, &["8000", "8001"]),
            ("unix:/run/a-1.sock", false, &["unix:/run/a-1.sock"]),
        ] {
            assert_eq!(addresses(address, both), expected, "{address}");
        }
    }
}
