//! gRPC: `grpc_pass` is a `proxy_pass` in HTTP/2, and the other directives are those that begin with `proxy_`.

use super::toml::{Entry, Item, Value};
use super::{Convert, Scope, branch, text};
use crate::nginx::directives::{self, State};
use crate::nginx::parse::Directive;

/// What of `proxy_…` would hold here because of its place, and what nginx has for `grpc_pass` instead.
const DEFAULTS: &[(&str, &str)] =
    &[("proxy_connect_timeout", "60s"), ("proxy_read_timeout", "60s"), ("proxy_send_timeout", "60s")];

/// Keys that a location with `grpc_pass` has by itself.
const OWN: &[&str] = &["proxy_pass", "proxy_http_version"];

/// `grpc_pass ADDRESS | grpc://ADDRESS | grpcs://ADDRESS`
pub fn pass(convert: &mut Convert<'_>, scope: &mut Scope, directive: &Directive, _: &str) {
    let address = directive.arg(0);
    let url = match (address.strip_prefix("grpcs://"), address.strip_prefix("grpc://")) {
        (Some(rest), _) => format!("https://{rest}"),
        (_, Some(rest)) => format!("http://{rest}"),
        _ => format!("http://{address}"),
    };
    super::proxy::pass_to(convert, scope, directive, &url);
    scope.set("proxy_http_version", text(directive, "2"));
}

/// `grpc_…`: as `proxy_…`, for locations with `grpc_pass` alone.
pub fn carry(convert: &mut Convert<'_>, scope: &mut Scope, directive: &Directive, _: &str) {
    let name = directive.name().replacen("grpc_", "proxy_", 1);
    match directives::find(&name) {
        Some(State::Carried { key, by, .. }) => {
            let key = if key.is_empty() { &name } else { *key };
            std::mem::swap(&mut scope.table.entries, &mut scope.grpc);
            by(convert, scope, directive, key);
            std::mem::swap(&mut scope.table.entries, &mut scope.grpc);
        }
        Some(State::Needless(reason)) => convert.needless(directive, directive.name(), reason),
        Some(State::Reported(why, instead)) => convert.report(directive, &format!("{why}; {instead}")),
        _ => convert.report(directive, "it is no directive that is known here; see what it is for"),
    }
}

impl Convert<'_> {
    /// What holds for `grpc_pass` in a location, instead of what holds for `proxy_pass`.
    pub(super) fn settle_grpc(&mut self, scope: &mut Scope) {
        if !is_grpc(&scope.table.entries) {
            if scope.outer.is_grpc && scope.table.has("proxy_pass") && !scope.table.has("proxy_http_version")
            {
                scope.table.entries.push(Entry::new("proxy_http_version", Item::new(Value::text("1.1"))));
            }
            return;
        }
        let own = branch::merged(&scope.outer.grpc, &scope.grpc);
        let is_other = |key: &str| key.starts_with("proxy_") && !OWN.contains(&key);
        // nginx does not look at them here, either.
        scope.table.entries.retain(|entry| !is_other(&entry.key) || from_grpc(entry));
        scope.table.entries.retain(|entry| !own.iter().any(|own| own.key == entry.key));
        scope.table.entries.extend(own);
        for (key, default) in DEFAULTS {
            if scope.outer.proxy.iter().any(|known| known == key) && !scope.table.has(key) {
                let entry = Entry::new(key, Item::new(Value::text(*default)));
                scope.table.entries.push(entry.comment("nginx's default for grpc_pass."));
            }
        }
        if scope.outer.sets_headers && !scope.table.has("proxy_set_header") {
            let host = ("Host".to_owned(), Item::new(Value::text("$proxy_host")));
            scope.table.entries.push(Entry::new("proxy_set_header", Item::new(Value::Pairs(vec![host]))));
        }
    }
}

/// Whether a location answers with `grpc_pass`.
pub(super) fn is_grpc(entries: &[Entry]) -> bool {
    let is_pass = |entry: &&Entry| entry.key == "proxy_http_version" && !entry.is_off;
    let origin = entries.iter().find(is_pass).and_then(|entry| entry.item.origin.as_ref());
    origin.is_some_and(|origin| origin.directive == "grpc_pass")
}

/// Whether a directive for gRPC made it, or is in it.
fn from_grpc(entry: &Entry) -> bool {
    super::refine::first_origin(&entry.item).is_some_and(|origin| origin.directive.starts_with("grpc_"))
        || entry.item.origin.is_none()
}
