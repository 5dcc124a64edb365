//! The handshake of TLS before a request: which server its name chooses, and what that one shows and wants.

use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{Named, Question};
use crate::config::{ListenAddress, Listener, Places};
use crate::routing::host::Claim;
use crate::state::State;
use crate::tls::certificate;
use crate::tls::clients::{Ask, Verdict};
use crate::tls::identity::{Identity, Pair, Source};
use crate::tls::pem;
use crate::tls::session::TlsSession;

/// The handshake of TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// The name that the client asks for (SNI); `None`: the URL has an address, and that is no name.
    pub sni: Option<String>,
    /// The server that it chooses.
    pub server: Named,
    /// Why it is this one.
    pub why: String,
    /// What the client is shown: the first that it can use. None: the handshake is refused.
    pub certificates: Vec<Certificate>,
    /// The protocols that are offered (ALPN), the best first.
    pub protocols: Vec<&'static str>,
    /// What becomes of client certificates: `ssl_verify_client`.
    pub verify_client: Named,
}

/// A certificate that is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Its file, or who makes it; with the line.
    pub from: Named,
    /// The names that it is for.
    pub names: Vec<String>,
    /// Until when, as `2026-12-31 23:59:59 UTC`; `None`: hopgate makes it itself, and its end is of no interest.
    pub until: Option<String>,
}

/// What a client would be shown on an address with TLS, and what would come of it. `None` if the server has no TLS,
/// or none is offered.
pub(super) fn of(
    state: &State,
    places: &Places,
    listener: &Listener,
    question: &Question,
) -> Option<(Handshake, Arc<TlsSession>)> {
    let address = &listener.address;
    let sni =
        question.url.ip().is_none().then(|| question.url.host.trim_end_matches('.').to_ascii_lowercase());
    let (place, tls) = state.tls_server_for(address, sni.as_deref())?;
    let server = &state.config.servers[place];
    let claim = sni.as_deref().map_or(Claim::Default, |name| listener.servers.claim(name).1);
    let why = match &sni {
        Some(name) => why(claim, name, address),
        None => format!("an address is no name, and it is the default server of {address}"),
    };
    let protocols = if server.limits.http2 { vec!["h2", "http/1.1"] } else { vec!["http/1.1"] };
    let verify_client = match tls.clients.ask {
        Ask::Off => "off",
        Ask::On => "on",
        Ask::Optional => "optional",
        Ask::OptionalNoCa => "optional_no_ca",
    };
    let handshake = Handshake {
        server: Named { name: server.name.clone(), line: places.server(place) },
        why,
        certificates: tls.identity.as_ref().map_or_else(Vec::new, |identity| shown(identity, places, place)),
        protocols,
        verify_client: Named {
            name: verify_client.to_owned(),
            line: places.for_server(place, "ssl_verify_client"),
        },
        sni: sni.clone(),
    };
    let verdict = if tls.clients.ask == Ask::On { Verdict::Success } else { Verdict::None };
    let alpn = handshake.protocols.last().copied();
    Some((handshake, Arc::new(TlsSession::supposed(sni, alpn, &tls.clients, verdict))))
}

fn shown(identity: &Identity, places: &Places, server: usize) -> Vec<Certificate> {
    let all = identity.current();
    let certificates = all.iter().filter_map(|pair| pair.cert.first());
    let one = |certificate: &CertificateDer<'_>| {
        let parsed = X509Certificate::from_der(certificate).ok().map(|(_, parsed)| parsed);
        let is_self_issued = parsed.as_ref().is_some_and(|own| own.issuer == own.subject);
        let (name, key) = match &identity.source {
            Source::Files(pairs, _) => (file_of(certificate, pairs), "ssl_certificate"),
            Source::Acme(_) if is_self_issued => {
                ("made by hopgate, until the first one is issued by the CA".to_owned(), "tls")
            }
            Source::Acme(_) => ("ordered by hopgate, from the `store` of `[acme]`".to_owned(), "tls"),
            Source::SelfSigned(_) => ("made by hopgate, and signed by nobody else".to_owned(), "tls"),
        };
        let is_made = is_self_issued && !matches!(identity.source, Source::Files(..));
        Certificate {
            from: Named { name, line: places.for_server(server, key) },
            names: parsed.as_ref().map(certificate::names).unwrap_or_default(),
            until: parsed.as_ref().filter(|_| !is_made).and_then(until),
        }
    };
    certificates.map(one).collect()
}

/// The file that has a certificate.
fn file_of(certificate: &CertificateDer<'_>, pairs: &[Pair]) -> String {
    let has_it = |pair: &&Pair| {
        pem::certificates(&pair.certificate).is_ok_and(|found| found.first() == Some(certificate))
    };
    pairs.iter().find(has_it).map(|pair| pair.certificate.display().to_string()).unwrap_or_default()
}

/// The last moment of a certificate.
fn until(certificate: &X509Certificate<'_>) -> Option<String> {
    let until = Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()?;
    Some(until.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
}

/// Why a server has a host, or a name that a client asks for.
pub(super) fn why(claim: Claim<'_>, host: &str, address: &ListenAddress) -> String {
    match claim {
        Claim::Exact if host.is_empty() => "it is for requests without a host".to_owned(),
        Claim::Exact => format!("`{host}` is one of its names"),
        Claim::LeadingWildcard(name) => format!("its name `*{name}` has the host `{host}`"),
        Claim::TrailingWildcard(name) => format!("its name `{name}*` has the host `{host}`"),
        Claim::Regex(regex) => format!("its name `~{}` matches the host `{host}`", regex.as_str()),
        Claim::Default if host.is_empty() => format!("it is the default server of {address}"),
        Claim::Default => {
            format!("no server on {address} has the name `{host}`, and it is the default server there")
        }
    }
}
