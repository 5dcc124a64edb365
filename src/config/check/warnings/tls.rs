//! TLS that is not where it seems to be: a port of it without a word of it, and settings of it without an address.

use serde_spanned::Spanned;

use super::tables;
use crate::config::error::Mistake;
use crate::config::file::{self, ForServers, Listen, TextOr, Top};
use crate::config::{Config, ListenAddress, units};

/// Looks at the addresses of each server.
pub(super) fn find(file: &Top, config: &Config, found: &mut Vec<Mistake>) {
    for server in tables(&file.server) {
        let listens =
            server.get_ref().listen.given().map(|list| list.get_ref().0.as_slice()).unwrap_or_default();
        let has_tls = |listen: &Spanned<TextOr<Listen>>| {
            let Some(address) = address(listen.get_ref()) else { return false };
            config.listeners.iter().any(|listener| listener.address == address && listener.tls)
        };
        for listen in listens.iter().filter(|listen| !has_tls(listen)) {
            if matches!(address(listen.get_ref()), Some(ListenAddress::Tcp(address)) if address.port() == 443)
            {
                let message = "clients speak TLS on port 443, and here is none: they will not be understood";
                let mistake = Mistake::warning(listen.span(), message).label("no `ssl` behind it");
                found.push(mistake.help("write `listen = \"443 ssl\"`, or give it another port"));
            }
        }
        if !listens.iter().any(has_tls) {
            strays(server.get_ref(), found);
        }
    }
}

/// Settings of TLS in a server that has none.
fn strays(server: &file::Server, found: &mut Vec<Mistake>) {
    let ForServers { ssl_certificate, ssl_certificate_key, tls, ssl_verify_client, .. } = &server.for_servers;
    let spans = [
        ("ssl_certificate", ssl_certificate.given().map(Spanned::span)),
        ("ssl_certificate_key", ssl_certificate_key.given().map(Spanned::span)),
        ("tls", tls.given().map(Spanned::span)),
        ("ssl_verify_client", ssl_verify_client.given().map(Spanned::span)),
    ];
    let Some((key, span)) = spans.into_iter().find_map(|(key, span)| Some((key, span?))) else { return };
    let message = format!("`{key}` is for nothing: no address of this server has TLS");
    let help = "write `ssl` behind an address, as in `listen = \"443 ssl\"`";
    found.push(Mistake::warning(span, message).label("never used").help(help));
}

fn address(listen: &TextOr<Listen>) -> Option<ListenAddress> {
    let text = match listen {
        TextOr::Text(text) => text.split_whitespace().next()?,
        TextOr::Table(table) => table.address.given()?.get_ref().as_str(),
    };
    units::listen_address(text).ok()
}
