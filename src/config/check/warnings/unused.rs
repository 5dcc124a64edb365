//! Variables that are made and never asked for.

use std::collections::HashSet;

use serde_spanned::Spanned;

use super::{scripts, tables};
use crate::config::Config;
use crate::config::error::Mistake;
use crate::config::file::{Named, Top, Value};

/// Looks at those that `[[map]]` and `set` make; groups of expressions may well have a name for its own sake.
pub(super) fn find(file: &Top, config: &Config, unused: &HashSet<String>, found: &mut Vec<Mistake>) {
    zones(file, config, found);
    let is_unused = |name: &str| unused.contains(&name.trim_start_matches('$').to_ascii_lowercase());
    for map in tables(&file.map) {
        let Some(variable) = map.get_ref().variable.given().filter(|name| is_unused(name.get_ref())) else {
            continue;
        };
        let name = variable.get_ref().trim_start_matches('$');
        let message = format!("nothing asks for `${name}`, so this map is never looked up");
        found.push(
            Mistake::warning(variable.span(), message)
                .help(format!("write `${name}` where its value is wanted, or delete the map")),
        );
    }
    scripts(file, |script| {
        let set = script.set.given().map(|set| set.get_ref().0.as_slice()).unwrap_or_default();
        for (name, _) in set.iter().filter(|(name, _)| is_unused(name.get_ref())) {
            let plain = name.get_ref().trim_start_matches('$');
            let message = format!("nothing asks for `${plain}`");
            let help = format!("write `${plain}` where its value is wanted, or delete it here");
            found.push(Mistake::warning(name.span(), message).help(help));
        }
    });
}

/// Zones that no limit counts in.
fn zones(file: &Top, config: &Config, found: &mut Vec<Mistake>) {
    let access =
        || config.servers.iter().flat_map(|server| &server.locations).map(|location| &location.access);
    let req: HashSet<usize> =
        access().flat_map(|access| access.limit_req.list.iter().map(|limit| limit.zone)).collect();
    let conn: HashSet<usize> =
        access().flat_map(|access| access.limit_conn.list.iter().map(|limit| limit.zone)).collect();
    let mut say = |key: &str, name: &Spanned<String>, example: String| {
        let message = format!("no `{key}` counts in the zone `{}`", name.get_ref());
        let help = format!("write `{key} = \"{example}\"` where it is to hold, or delete the zone");
        found.push(Mistake::warning(name.span(), message).help(help));
    };
    for (_, (name, _)) in
        named(&file.limit_req_zone).iter().enumerate().filter(|(place, _)| !req.contains(place))
    {
        say("limit_req", name, format!("{} burst=5", name.get_ref()));
    }
    for (_, (name, _)) in
        named(&file.limit_conn_zone).iter().enumerate().filter(|(place, _)| !conn.contains(place))
    {
        say("limit_conn", name, format!("{} 10", name.get_ref()));
    }
}

fn named<T>(written: &Value<Named<T>>) -> &[(Spanned<String>, Spanned<T>)] {
    written.given().map(|named| named.get_ref().0.as_slice()).unwrap_or_default()
}
