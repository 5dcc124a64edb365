//! `proxy_pass` and what is said to the upstream.

use super::toml::{Item, Value};
use super::{Convert, Scope, facts, map, text};
use crate::headers::FieldName;
use crate::nginx::parse::Directive;

/// Fields that hopgate makes by itself.
const OWN: &[&str] = &[
    "transfer-encoding",
    "content-length",
    "te",
    "trailer",
    "keep-alive",
    "proxy-connection",
    "expect",
    "http2-settings",
    "sec-websocket-key",
    "sec-websocket-version",
    "sec-websocket-accept",
];

/// `proxy_pass URL`
pub fn pass(convert: &mut Convert<'_>, scope: &mut Scope, directive: &Directive, _: &str) {
    pass_to(convert, scope, directive, directive.arg(0));
}

/// What is answered by the server at a URL.
pub(super) fn pass_to(convert: &mut Convert<'_>, scope: &mut Scope, directive: &Directive, url: &str) {
    let key = "proxy_pass";
    if convert.mentions_unknown(directive, &[url], "this is answered 503; write where requests go") {
        scope.refuse_for_unknown(directive);
        scope.set(key, text(directive, url));
        return;
    }
    let url = convert.with_port(directive, url);
    scope.set(key, text(directive, url));
}

/// `proxy_set_header NAME value`: a level's own list replaces the one outside of it, apart from nginx's
/// own fields, of which `Host` is another in hopgate.
pub fn set_header(convert: &mut Convert<'_>, scope: &mut Scope, directive: &Directive, key: &str) {
    if !scope.table.has(key) {
        // The list counts even if nothing of it is left: what is outside of it is not inherited.
        let host = ("Host".to_owned(), Item::new(Value::text("$proxy_host")));
        scope.set(key, Item::new(Value::Pairs(vec![host])));
    }
    let (name, value) = (directive.arg(0), convert.field_value(directive));
    if facts::is_upgrade_line(directive) {
        return convert.needless(directive, &format!("proxy_set_header {name}"), map::UPGRADE_LINES);
    }
    if OWN.iter().any(|own| name.eq_ignore_ascii_case(own)) {
        let reason = "framing, connections and handshakes are hopgate's own, and right by themselves";
        return convert.needless(directive, &format!("proxy_set_header {name}"), reason);
    }
    if FieldName::new(name).is_none() {
        return convert.report(directive, &format!("`{name}` cannot be the name of a field; write another"));
    }
    let follows = format!("the upstream gets no `{name}`, not even the client's; write another value");
    let is_unknown = convert.mentions_unknown(directive, &[value], &follows);
    let value = if is_unknown { "" } else { value };
    let item = text(directive, value);
    let entry = scope.table.entry(key, Value::Pairs(Vec::new()));
    let Value::Pairs(pairs) = &mut entry.item.value else { return };
    match pairs.iter_mut().find(|(known, _)| known.eq_ignore_ascii_case(name)) {
        // nginx's default, which the file says otherwise.
        Some((known, old)) if old.origin.is_none() => {
            *known = name.to_owned();
            *old = item;
        }
        Some(_) => convert
            .report(directive, &format!("`{name}` is set twice; hopgate sends the first one: delete one")),
        None => pairs.push((name.to_owned(), item)),
    }
}

/// `proxy_http_version 1.0 | 1.1 | 2`
pub fn http_version(convert: &mut Convert<'_>, scope: &mut Scope, directive: &Directive, _: &str) {
    match directive.arg(0) {
        "2" | "2.0" => scope.set("proxy_http_version", text(directive, "2")),
        _ => {
            let reason = "upstreams are spoken to in HTTP/1.1, upgrades included";
            convert.needless(directive, "proxy_http_version", reason);
        }
    }
}

/// `proxy_next_upstream WHEN …`
pub fn next_upstream(convert: &mut Convert<'_>, scope: &mut Scope, directive: &Directive, key: &str) {
    let words: Vec<&str> = directive.texts().collect();
    if words == ["off"] {
        return scope.set(key, text(directive, "off"));
    }
    for word in words {
        if word == "updating" {
            convert.report(directive, "`updating` is of nginx's cache; it is left out");
            continue;
        }
        scope.table.push(key, text(directive, word));
    }
}

impl Convert<'_> {
    /// A host without a dot and a port is taken for a group in hopgate: a real host gets its port.
    fn with_port(&mut self, directive: &Directive, url: &str) -> String {
        let (scheme, port) = if url.starts_with("https://") { ("https", 443) } else { ("http", 80) };
        let rest = url.strip_prefix(scheme).and_then(|rest| rest.strip_prefix("://"));
        let Some(rest) = rest.filter(|rest| !rest.starts_with("unix:")) else {
            return url.to_owned();
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, uri) = rest.split_at(end);
        let is_group = self.facts.upstreams.contains(&authority.to_ascii_lowercase());
        let needs_port = !authority.contains(['.', ':', '[', '$']) && authority != "localhost" && !is_group;
        if !needs_port || authority.is_empty() {
            return url.to_owned();
        }
        let text = format!(
            "there is no upstream `{authority}` in what was imported, so it is taken for the host `{authority}`, port {port}, \
             as nginx does; write [upstream.{authority}] if it is a group"
        );
        self.report(directive, &text);
        format!("{scheme}://{authority}:{port}{uri}")
    }
}
