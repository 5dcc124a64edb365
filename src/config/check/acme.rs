//! `[acme]`, and the servers whose certificates it orders.

use std::fs;
use std::ops::Range;
use std::path::PathBuf;

use http::Uri;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_spanned::Spanned;

use super::Check;
use crate::config::error::{Mistake, MistakeKind};
use crate::config::file::{self, OneOrMany, Server, Top, Value};
use crate::config::{Acme, CertificateNames, Listener};
use crate::routing::host::ServerName;
use crate::tls::server::Shows;

/// In `tls`.
pub(super) const ACME: &str = "acme";

/// Let's Encrypt's.
const DIRECTORY: &str = "https://acme-v02.api.letsencrypt.org/directory";

const STORE: &str = "/var/lib/hopgate/acme";

/// The most names of a certificate, as with Let's Encrypt.
const MOST_NAMES: usize = 100;

const SMALLEST: &str = "[acme]\nagree_to_terms = true\ncontact = \"you@example.com\"";

impl Check<'_> {
    /// What `[acme]` says, if any server wants it, and the names of those that do.
    pub(super) fn acme(
        &mut self,
        file: &Top,
        written: &[Spanned<Server>],
        servers: &[crate::config::Server],
        listeners: &[Listener],
    ) -> Option<Acme> {
        let directory = self.directory(file);
        let mut certificates: Vec<CertificateNames> = Vec::new();
        let mut first_wish = None;
        for (place, (written, server)) in written.iter().zip(servers).enumerate() {
            if !listeners.iter().any(|listener| listener.tls && listener.has(place)) {
                self.refuse_without_tls(written.get_ref());
            }
            let Some(Shows::Acme(names)) = server.tls.as_ref().map(|rules| &rules.shows) else { continue };
            self.check_issuable(written.get_ref(), &directory);
            first_wish = first_wish.or_else(|| wish(written.get_ref(), file));
            if !certificates.contains(names) {
                certificates.push(names.clone());
            }
        }
        let Some(table) = file.acme.given() else {
            if let Some(wish) = first_wish.filter(|_| file.acme.is_absent()) {
                let mistake = Mistake::new(wish, "`tls = \"acme\"` needs an `[acme]` table");
                let help = format!("write above the first `[[server]]`\n{SMALLEST}");
                self.mistakes.push(mistake.help(help).kind(MistakeKind::Doubtful));
            }
            return None;
        };
        let acme = self.acme_table(table, directory, certificates);
        first_wish.map(|_| acme)
    }

    fn acme_table(
        &mut self,
        table: &Spanned<file::Only<file::Acme>>,
        directory: String,
        certificates: Vec<CertificateNames>,
    ) -> Acme {
        let file::Only(written) = table.get_ref();
        let agreed = written.agree_to_terms.given();
        if !agreed.is_some_and(|agreed| *agreed.get_ref()) && !matches!(written.agree_to_terms, Value::Wrong)
        {
            let at = agreed.map_or_else(|| table.span(), Spanned::span);
            let message = "a CA issues certificates only to those who agree to its terms of service";
            let help = "read them (those of Let's Encrypt: https://letsencrypt.org/repository/), then write \
                        `agree_to_terms = true`";
            self.mistakes.push(Mistake::new(at, message).help(help).kind(MistakeKind::Doubtful));
        }
        Acme {
            directory,
            directory_ca: self.directory_ca(&written.directory_ca),
            contact: self.contact(&written.contact),
            store: self.store(&written.store),
            certificates,
        }
    }

    fn directory(&mut self, file: &Top) -> String {
        let written = file.acme.given().and_then(|table| table.get_ref().0.directory.given());
        let Some(written) = written else { return DIRECTORY.to_owned() };
        let text = written.get_ref();
        let is_right = text.parse::<Uri>().is_ok_and(|uri| {
            uri.scheme_str() == Some("https") && uri.host().is_some_and(|host| !host.is_empty())
        });
        if !is_right {
            let message = format!(
                "`directory`: `{text}` is not the URL of an ACME directory, which begins with `https://`"
            );
            let help =
                format!("write `directory = \"{DIRECTORY}\"`, which is the default, or that of another CA");
            self.mistakes.push(Mistake::new(written.span(), message).help(help));
        }
        text.clone()
    }

    fn directory_ca(&mut self, written: &Value<String>) -> Option<PathBuf> {
        let written = written.given()?;
        let read = fs::read(written.get_ref()).map_err(|error| error.to_string()).and_then(|pem| {
            let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
            match certificates {
                Ok(certificates) if certificates.is_empty() => {
                    Err("there is no certificate in it".to_owned())
                }
                Ok(_) => Ok(()),
                Err(error) => Err(format!("it is not a PEM file: {error}")),
            }
        });
        if let Err(error) = read {
            let message = format!("`directory_ca` {}: {error}", written.get_ref());
            self.mistakes.push(Mistake::new(written.span(), message));
        }
        Some(PathBuf::from(written.get_ref()))
    }

    fn store(&mut self, written: &Value<String>) -> PathBuf {
        let Some(written) = written.given() else { return PathBuf::from(STORE) };
        let path = PathBuf::from(written.get_ref());
        if !path.is_absolute() {
            let message = format!("`store`: `{}` is not an absolute path", written.get_ref());
            let help = "where hopgate is started from must not decide where its keys are";
            self.mistakes.push(Mistake::new(written.span(), message).help(help));
        }
        path
    }

    /// RFC 8555 §7.3: URLs. That of an address is all that CAs take.
    fn contact(&mut self, written: &Value<OneOrMany<String>>) -> Vec<String> {
        let mut contact = Vec::new();
        for entry in written.given().map(|entries| entries.get_ref().0.as_slice()).unwrap_or_default() {
            let address = entry.get_ref().strip_prefix("mailto:").unwrap_or(entry.get_ref());
            let is_address = address.split_once('@').is_some_and(|(user, host)| {
                !user.is_empty() && host.contains('.') && !address.contains([' ', ',', ';', '?', '<', '>'])
            });
            if !is_address {
                let message = format!("`contact`: `{}` is not an e-mail address", entry.get_ref());
                let help = "write `contact = \"you@example.com\"`, several as an array, or leave it out";
                self.mistakes.push(Mistake::new(entry.span(), message).help(help));
            }
            contact.push(format!("mailto:{address}"));
        }
        contact
    }

    /// A certificate that no listener shows is never asked for by anybody.
    fn refuse_without_tls(&mut self, server: &Server) {
        if let Some(wish) = server.for_servers.tls.given().filter(|tls| tls.get_ref() == ACME) {
            let message = "this server wants a certificate, but none of its addresses is for TLS";
            self.mistakes.push(Mistake::new(wish.span(), message).help("write `listen = \"443 ssl\"`"));
        }
    }

    /// The names of a server that says `tls = "acme"` here.
    pub(super) fn certificate_names(
        &mut self,
        server: &Server,
        wish: Range<usize>,
    ) -> Option<CertificateNames> {
        let mut exact = Vec::new();
        for name in names_of(server) {
            // What is no name at all has been reported.
            match parsed(name) {
                Ok(Some(plain)) => exact.push(plain),
                Ok(None) => self.mistakes.push(not_exact(name)),
                Err(()) => {}
            }
        }
        if names_of(server).is_empty() {
            let message = "`tls = \"acme\"` needs a `server_name`: it is what the certificate is for";
            let help = "write `server_name = \"www.example.com\"`";
            self.mistakes.push(Mistake::new(wish.clone(), message).help(help).kind(MistakeKind::Doubtful));
        }
        if exact.len() > MOST_NAMES {
            let message =
                format!("a certificate has {MOST_NAMES} names at most, and this server has {}", exact.len());
            self.mistakes.push(Mistake::new(wish, message).help("make several servers of it"));
        }
        CertificateNames::new(exact)
    }

    /// Let's Encrypt issues for public names only; what another CA does is its own affair.
    fn check_issuable(&mut self, server: &Server, directory: &str) {
        const PRIVATE: [&str; 8] =
            [".local", ".localhost", ".internal", ".test", ".example", ".invalid", ".lan", ".home.arpa"];
        if !directory.contains(".letsencrypt.org/") {
            return;
        }
        for written in names_of(server) {
            let Ok(Some(name)) = parsed(written) else { continue };
            let is_address = name.parse::<std::net::IpAddr>().is_ok();
            let is_public =
                name.contains('.') && !is_address && !PRIVATE.iter().any(|end| name.ends_with(end));
            if !is_public {
                let message = format!(
                    "Let's Encrypt issues no certificate for `{name}`: it is no name of the public DNS"
                );
                let help =
                    "write `tls = \"self-signed\"`, or name the `directory` of a CA of your own in `[acme]`";
                self.mistakes.push(Mistake::new(written.span(), message).help(help));
            }
        }
    }
}

fn names_of(server: &Server) -> &[Spanned<String>] {
    server.server_name.given().map(|names| names.get_ref().0.as_slice()).unwrap_or_default()
}

/// A whole name; `None` if it is of another kind, an error if it is none at all.
fn parsed(name: &Spanned<String>) -> Result<Option<String>, ()> {
    match super::listen::server_name(name.get_ref()).as_deref() {
        Ok([ServerName::Exact(plain)]) if !plain.is_empty() => Ok(Some(plain.clone())),
        Err(_) if !name.get_ref().starts_with('~') => Err(()),
        _ => Ok(None),
    }
}

fn not_exact(name: &Spanned<String>) -> Mistake {
    let message = format!("`{}` cannot be in a certificate of `tls = \"acme\"`", name.get_ref());
    let help = "HTTP-01 and TLS-ALPN-01 prove whole names only: write each name that is meant, or give this server \
                `ssl_certificate` and `ssl_certificate_key`";
    Mistake::new(name.span(), message).help(help)
}

/// Where a server says that it wants a certificate, or the top of the file for it.
fn wish(server: &Server, top: &Top) -> Option<Range<usize>> {
    let own = &server.for_servers.tls;
    let tls = if own.is_absent() { &top.for_servers.tls } else { own };
    tls.given().filter(|tls| tls.get_ref() == ACME).map(Spanned::span)
}
