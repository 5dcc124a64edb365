//! TLS that is not where it seems to be: a port of it without a word of it, settings of it without an address, and
//! certificates for other names.

use std::path::Path;

use serde_spanned::Spanned;

use super::tables;
use crate::config::error::Mistake;
use crate::config::file::{self, ForServers, Listen, TextOr, Top};
use crate::config::{Config, ListenAddress, units};
use crate::tls::certificate;
use crate::tls::identity::Identity;
use crate::tls::server::Shows;

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
    for (written, server) in tables(&file.server).iter().zip(&config.servers) {
        if let Some(Shows::Files(identity)) = server.tls.as_ref().map(|tls| &tls.shows) {
            strangers(written.get_ref(), identity, found);
        }
    }
}

/// Names of a server that its certificates are not for. What has no dot, or is no name by itself, is left alone:
/// nobody asks for `_`.
fn strangers(server: &file::Server, identity: &Identity, found: &mut Vec<Mistake>) {
    let mut names = Vec::new();
    for shown in identity.current().iter().filter_map(|pair| pair.cert.first()) {
        certificate::of(shown, |parsed| names.extend(certificate::names(parsed)));
    }
    let is_stranger = |name: &&Spanned<String>| {
        let name = name.get_ref().to_ascii_lowercase();
        match name.strip_prefix("*.").or_else(|| name.strip_prefix('.')) {
            // Some of those below it are enough.
            Some(domain) => !names.iter().any(|own| {
                own.to_ascii_lowercase()
                    .strip_suffix(domain)
                    .is_some_and(|own| own.is_empty() || own.ends_with('.'))
            }),
            None => {
                name.contains('.')
                    && !name.starts_with('~')
                    && !name.ends_with(".*")
                    && !certificate::is_for(&names, &name)
            }
        }
    };
    let written = server.server_name.given().map(|names| names.get_ref().0.as_slice()).unwrap_or_default();
    let Some(name) = written.iter().find(is_stranger) else { return };
    let file = identity.files().next().unwrap_or(Path::new("")).display();
    let own = if names.is_empty() { "no name".to_owned() } else { names.join(", ") };
    let message = format!("the certificate is not for `{}`: clients will not trust it", name.get_ref());
    let help = format!("{file} is for {own}: have one issued with this name, too, or name the right file");
    found.push(Mistake::warning(name.span(), message).label("not in the certificate").help(help));
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
