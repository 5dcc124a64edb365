//! Groups of upstream servers with parameters that can do nothing, and groups that nobody asks.

use serde_spanned::Spanned;

use crate::config::error::Mistake;
use crate::config::file::{self, TextOr, Top};
use crate::config::{Balance, Config, To, UpstreamAddress};

/// Looks at the groups one by one.
pub(super) fn find(file: &Top, config: &Config, found: &mut Vec<Mistake>) {
    let groups = file.upstream.given().map(|groups| groups.get_ref().0.as_slice()).unwrap_or_default();
    let locations = config.servers.iter().flat_map(|server| &server.locations);
    let passes: Vec<&To> = locations.filter_map(|location| Some(&location.proxy_pass()?.to)).collect();
    // A URL with variables may lead to any group.
    let may_be_any = passes.iter().any(|to| matches!(to, To::Url(_)));
    for (place, ((name, group), upstream)) in groups.iter().zip(&config.upstreams).enumerate() {
        let text = name.get_ref();
        if !may_be_any && !passes.contains(&&To::Group(place)) {
            let message = format!("no `proxy_pass` leads to the upstream `{text}`");
            let help = format!("write `proxy_pass = \"http://{text}\"` in a location, or delete the group");
            found.push(Mistake::warning(name.span(), message).help(help));
        }
        let Some(servers) = group.get_ref().server.given() else { continue };
        if upstream.servers.iter().all(|server| server.is_down) {
            let message = "every server of this group is `down`: all requests are answered 502";
            found.push(
                Mistake::warning(servers.span(), message).help("take `down` away from at least one of them"),
            );
        }
        if let [only] = servers.get_ref().0.as_slice() {
            alone(only, upstream.servers.first().map(|server| &server.address), found);
        }
        if let Some(hash) = group.get_ref().hash.given() {
            one_key(hash, &upstream.balance, found);
        }
    }
}

/// A key that is the same for every request.
fn one_key(written: &Spanned<String>, balance: &Balance, found: &mut Vec<Mistake>) {
    let (Balance::Hash { key, .. } | Balance::Rendezvous { key }) = balance else { return };
    let Some(text) = key.as_literal() else { return };
    let message = format!("`{text}` is the key of every request, so that all of them go to one server");
    let help = "write what tells clients apart, with a variable: `$remote_addr`, `$cookie_NAME`";
    found.push(Mistake::warning(written.span(), message).help(help));
}

/// What stands behind the address of the only server of a group. A name stands for any number of servers, and SRV
/// records have weights of their own, which a written one takes the place of.
fn alone(
    only: &Spanned<TextOr<file::UpstreamServer>>,
    address: Option<&UpstreamAddress>,
    found: &mut Vec<Mistake>,
) {
    let is_many = match address {
        Some(UpstreamAddress::Service(_)) => return,
        Some(UpstreamAddress::Name { host, .. }) => host != "localhost",
        _ => false,
    };
    let (has_weight, has_fails) = match only.get_ref() {
        TextOr::Text(text) => {
            let words =
                || text.split_whitespace().skip(1).map(|word| word.split('=').next().unwrap_or_default());
            (
                words().any(|key| key == "weight"),
                words().any(|key| matches!(key, "max_fails" | "fail_timeout")),
            )
        }
        TextOr::Table(table) => {
            let has_fails = table.max_fails.given().is_some() || table.fail_timeout.given().is_some();
            (table.weight.given().is_some(), has_fails)
        }
    };
    let mut say = |message: &str, help: &str| {
        found.push(Mistake::warning(only.span(), message).label("the only one").help(help));
    };
    if has_weight {
        say("`weight` of the only server: there is none to share the requests with", "leave `weight` out");
    }
    if has_fails && !is_many {
        say(
            "`max_fails` and `fail_timeout` of the only server: it is asked whatever has failed, as in nginx",
            "leave them out, or write a second server beside it",
        );
    }
}
