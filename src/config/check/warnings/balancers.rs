//! The PROXY protocol where nobody sends it, where nobody gets it, and where it costs more than it seems to.

use std::collections::HashSet;

use serde_spanned::Spanned;

use super::{Place, Site};
use crate::config::error::Mistake;
use crate::config::file::{FlagOr, ForLocations, Top};
use crate::config::{Config, ProxyVersion, UpstreamVersion};

/// Looks at the top of the file, which holds for all servers.
pub(super) fn at_the_top(file: &Top, config: &Config, found: &mut Vec<Mistake>) {
    if !config.listeners.iter().any(|listener| listener.proxy_protocol) {
        named_by_nobody(&file.for_locations, "nothing that is listened on takes", found);
    }
}

/// Looks at the server at this place in [`Config::servers`], inside of `top`.
pub(super) fn find(
    site: &Site<'_>,
    server: usize,
    top: &ForLocations,
    config: &Config,
    found: &mut Vec<Mistake>,
) {
    let own = &site.written.get_ref().for_locations;
    let inner = || site.places.iter().map(|place| &place.written.get_ref().for_locations);
    if !config.listeners.iter().any(|listener| listener.proxy_protocol && listener.has(server)) {
        for level in inner().chain([own]) {
            named_by_nobody(level, "no address of this server takes", found);
        }
    }
    let mut told = HashSet::new();
    for (index, place) in site.places.iter().enumerate() {
        if place.location.proxy_pass().is_none() {
            told_nobody(place, site.has_nested(index), found);
            continue;
        }
        let is_shared = place.location.http_version == UpstreamVersion::Http2;
        let Some(version) = place.location.proxy_protocol.filter(|_| is_shared) else { continue };
        let mut levels = [&place.written.get_ref().for_locations]
            .into_iter()
            .chain(site.outside_of(place))
            .chain([own, top]);
        let Some(written) = levels.find_map(|level| level.proxy_protocol.given()) else { continue };
        if told.insert(written.span().start) {
            found.push(alone(written, version));
        }
    }
}

/// `real_ip_header = "proxy_protocol"` where no such header comes.
fn named_by_nobody(level: &ForLocations, why: &str, found: &mut Vec<Mistake>) {
    let written =
        level.for_access.real_ip_header.given().filter(|header| header.get_ref() == "proxy_protocol");
    let Some(written) = written else { return };
    let message =
        format!("{why} the PROXY protocol, so the client is whoever connects, whatever stands in fields");
    let help = "if a balancer sends its header, write `proxy_protocol` behind the address in `listen`; else name the field \
                in which your proxies name the client, or leave the line out";
    found.push(Mistake::warning(written.span(), message).help(help));
}

/// A location of its own without an upstream.
fn told_nobody(place: &Place<'_>, has_nested: bool, found: &mut Vec<Mistake>) {
    let written = place.written.get_ref().for_locations.proxy_protocol.given();
    let Some(written) = written.filter(|_| place.location.proxy_protocol.is_some() && !has_nested) else {
        return;
    };
    let message = "no upstream is asked here that could be told by the PROXY protocol whose connection it is";
    let help =
        "leave the line out; to take the protocol from a balancer, write `listen = \"8080 proxy_protocol\"`";
    found.push(Mistake::warning(written.span(), message).help(help));
}

/// Connections in HTTP/2 that could be shared.
fn alone(written: &Spanned<FlagOr>, version: ProxyVersion) -> Mistake {
    let text = match version {
        ProxyVersion::V1 => "v1",
        ProxyVersion::V2 => "v2",
    };
    let message = format!(
        "with `proxy_protocol = \"{text}\"` every client has a connection of its own to an upstream that speaks HTTP/2, \
         where one could be shared by all"
    );
    let help = "leave it out if the upstream can take the client from `X-Forwarded-For` or `Forwarded`; such fields are \
                right with no configuration";
    Mistake::warning(written.span(), message).help(help)
}
