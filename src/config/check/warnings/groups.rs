//! Groups of upstream servers with parameters that can do nothing, and groups that nobody asks.

use serde_spanned::Spanned;

use crate::config::error::Mistake;
use crate::config::file::{self, TextOr, Top};
use crate::config::{Config, To};

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
            alone(only, found);
        }
    }
}

/// What stands behind the address of the only server of a group.
fn alone(only: &Spanned<TextOr<file::UpstreamServer>>, found: &mut Vec<Mistake>) {
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
    if has_fails {
        say(
            "`max_fails` and `fail_timeout` of the only server: it is asked whatever has failed, as in nginx",
            "leave them out, or write a second server beside it",
        );
    }
}
