//! How TLS is spoken with upstream servers, and the files that say whom to believe.

use std::fmt::Display;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use serde_spanned::Spanned;
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};
use x509_parser::time::ASN1Time;

use super::{Check, plain};
use crate::config::error::{Mistake, MistakeKind};
use crate::config::file::{ForUpstreamTls, OneOrMany, Value};
use crate::config::{TlsName, UpstreamTls, UpstreamVersion, read_bounded};
use crate::routing::variables::Template;
use crate::tls::pem;
use crate::upstream::tls::{Identity, TlsClient, TlsRules, Trust, Versions, server_name};

/// What is written at one level of the file; `None` is inherited. `Some(None)` cannot be used, and has been
/// reported.
#[derive(Clone, Default)]
pub(super) struct TlsSettings {
    verify: Option<bool>,
    trusted: Option<Option<Arc<[CertificateDer<'static>]>>>,
    revoked: Option<Option<Spanned<Arc<[CertificateRevocationListDer<'static>]>>>>,
    sends_name: Option<bool>,
    name: Option<Option<Spanned<Template>>>,
    certificate: Option<Option<FromFile<Arc<[CertificateDer<'static>]>>>>,
    key: Option<Option<FromFile<Arc<PrivateKeyDer<'static>>>>>,
    resumes: Option<bool>,
    versions: Option<Option<Versions>>,
    /// What `proxy_http_version` says, which is no setting of TLS.
    http2: bool,
}

/// What a file holds, with the place where it is named.
#[derive(Clone)]
struct FromFile<T> {
    path: String,
    span: Range<usize>,
    what: T,
}

impl TlsSettings {
    /// With this version of HTTP inside.
    pub(super) fn speaking(self, version: UpstreamVersion) -> Self {
        Self { http2: version == UpstreamVersion::Http2, ..self }
    }

    /// What is not written here is as it is further out.
    pub(super) fn inside(self, outer: &Self) -> Self {
        Self {
            verify: self.verify.or(outer.verify),
            trusted: self.trusted.or_else(|| outer.trusted.clone()),
            revoked: self.revoked.or_else(|| outer.revoked.clone()),
            sends_name: self.sends_name.or(outer.sends_name),
            name: self.name.or_else(|| outer.name.clone()),
            certificate: self.certificate.or_else(|| outer.certificate.clone()),
            key: self.key.or_else(|| outer.key.clone()),
            resumes: self.resumes.or(outer.resumes),
            versions: self.versions.or(outer.versions),
            http2: false,
        }
    }
}

/// What the server of a `proxy_pass` is called in it.
pub(super) enum Called<'a> {
    /// A host.
    Host(&'a str),
    /// A group, and its place.
    Group(&'a str, usize),
    /// What variables make.
    ByVariables,
}

/// The ways to speak TLS found so far, each once.
#[derive(Default)]
pub(super) struct TlsClients {
    all: Vec<Arc<TlsClient>>,
    /// Those that the system trusts, once they were needed: a configuration without TLS costs nothing.
    system: Option<Result<Trust, String>>,
}

impl TlsClients {
    /// All of them.
    pub(super) fn finish(self) -> Vec<Arc<TlsClient>> {
        self.all
    }

    fn with(&mut self, rules: TlsRules) -> Result<Arc<TlsClient>, rustls::Error> {
        if let Some(known) = self.all.iter().find(|known| *known.rules() == rules) {
            return Ok(Arc::clone(known));
        }
        let client = Arc::new(TlsClient::new(rules)?);
        self.all.push(Arc::clone(&client));
        Ok(client)
    }

    /// Those that the system trusts; `Err` says where they were looked for in vain.
    fn system(&mut self) -> Result<Trust, String> {
        self.system.get_or_insert_with(system_roots).clone()
    }
}

/// The roots of the system, as OpenSSL finds them: `SSL_CERT_FILE`, `SSL_CERT_DIR`, or where the distribution
/// has them. What the operator has added there counts, and what was withdrawn is gone with the next update
/// of the system; roots that are built into the binary would be as old as that. (rustls-platform-verifier does
/// the same on Linux, in more steps.)
fn system_roots() -> Result<Trust, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        return Err(if why.is_empty() { String::new() } else { format!(" ({})", why.join("; ")) });
    }
    Ok(Trust { roots: Arc::new(roots), certificates: Arc::from([]), revoked: Arc::from([]) })
}

impl Check<'_> {
    pub(super) fn tls_settings(&mut self, written: &ForUpstreamTls) -> TlsSettings {
        TlsSettings {
            verify: plain(&written.proxy_ssl_verify),
            trusted: self.trusted(&written.proxy_ssl_trusted_certificate),
            revoked: self.revoked(&written.proxy_ssl_crl),
            sends_name: plain(&written.proxy_ssl_server_name),
            name: self.tls_name(&written.proxy_ssl_name),
            certificate: self.certificate(&written.proxy_ssl_certificate),
            key: self.key(&written.proxy_ssl_certificate_key),
            resumes: plain(&written.proxy_ssl_session_reuse),
            versions: self.versions(&written.proxy_ssl_protocols),
            http2: false,
        }
    }

    /// How TLS is spoken with the server of a `proxy_pass`, which is written at `span`. `None` if it cannot be:
    /// that has been reported.
    pub(super) fn upstream_tls(
        &mut self,
        settings: &TlsSettings,
        called: Called<'_>,
        span: Range<usize>,
    ) -> Option<UpstreamTls> {
        if let Called::Group(_, group) = called {
            self.ports_of_tls(group);
        }
        let name = self.name_of(settings, called, span.clone());
        let identity = self.identity(settings);
        let trust = self.trust(settings, span.clone());
        let rules = TlsRules {
            trust: trust?,
            identity: identity?,
            sends_name: settings.sends_name.unwrap_or(true),
            resumes: settings.resumes.unwrap_or(true),
            versions: settings.versions.unwrap_or(Some(Versions::default()))?,
            http2: settings.http2,
        };
        match self.tls_clients.with(rules) {
            Ok(client) => Some(UpstreamTls { client, name: name? }),
            Err(error) => {
                let list = settings.revoked.as_ref().and_then(Option::as_ref).map(Spanned::span);
                let message = format!("TLS with this upstream cannot be used: {error}");
                let mistake = Mistake::new(list.unwrap_or(span), message);
                self.mistakes.push(mistake.kind(MistakeKind::OfFile));
                None
            }
        }
    }

    /// `Some(None)`: anybody is trusted.
    fn trust(&mut self, settings: &TlsSettings, span: Range<usize>) -> Option<Option<Trust>> {
        if settings.verify == Some(false) {
            return Some(None);
        }
        let revoked = match &settings.revoked {
            Some(lists) => Arc::clone(lists.as_ref()?.get_ref()),
            None => Arc::from([]),
        };
        if let Some(trusted) = &settings.trusted {
            let certificates = Arc::clone(trusted.as_ref()?);
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(certificates.iter().cloned());
            return Some(Some(Trust { roots: Arc::new(roots), certificates, revoked }));
        }
        match self.tls_clients.system() {
            Ok(trust) => Some(Some(Trust { revoked, ..trust })),
            Err(why) => {
                let message =
                    format!("this system has no certificates of CAs to hold the upstream's against{why}");
                let help = "install the package `ca-certificates` (in a container it is often missing), name \
                            such a file in the environment variable SSL_CERT_FILE, or name the CA of this \
                            upstream: `proxy_ssl_trusted_certificate = \"/etc/hopgate/ca.pem\"`";
                self.mistakes.push(Mistake::new(span, message).help(help).kind(MistakeKind::OfFile));
                None
            }
        }
    }

    /// `Some(None)`: there is none.
    fn identity(&mut self, settings: &TlsSettings) -> Option<Option<Identity>> {
        let (certificate, key) = match (&settings.certificate, &settings.key) {
            (None, None) => return Some(None),
            (Some(certificate), Some(key)) => (certificate.as_ref()?, key.as_ref()?),
            (Some(alone), None) => {
                self.half("proxy_ssl_certificate", "proxy_ssl_certificate_key", alone.as_ref()?.span.clone());
                return None;
            }
            (None, Some(alone)) => {
                self.half("proxy_ssl_certificate_key", "proxy_ssl_certificate", alone.as_ref()?.span.clone());
                return None;
            }
        };
        if let Err(error) = pem::certified(certificate.what.to_vec(), key.what.clone_key()) {
            let (of, with) = (&key.path, &certificate.path);
            let message = match error {
                rustls::Error::InconsistentKeys(_) => {
                    format!(
                        "`proxy_ssl_certificate_key`: the key in {of} is not that of the certificate in {with}"
                    )
                }
                error => format!("`proxy_ssl_certificate_key`: the key in {of} cannot be used: {error}"),
            };
            let mistake = Mistake::new(key.span.clone(), message);
            let mistake = mistake.also(certificate.span.clone(), "the certificate");
            self.mistakes.push(mistake.kind(MistakeKind::OfFile));
            return None;
        }
        Some(Some(Identity { chain: Arc::clone(&certificate.what), key: Arc::clone(&key.what) }))
    }

    /// A certificate without its key, or the other way round.
    pub(super) fn half(&mut self, there: &str, missing: &str, span: Range<usize>) {
        let message = format!("`{there}` needs `{missing}` beside it");
        self.mistakes.push(Mistake::new(span, message));
    }

    fn name_of(&mut self, settings: &TlsSettings, called: Called<'_>, span: Range<usize>) -> Option<TlsName> {
        if let Some(written) = &settings.name {
            let template = written.as_ref()?.get_ref();
            let fixed = template.as_literal().and_then(server_name).map(Arc::new);
            return Some(fixed.map_or_else(|| TlsName::Template(template.clone()), TlsName::Fixed));
        }
        let host = match called {
            Called::Host(host) => host,
            Called::Group(name, _) => {
                self.name_of_group(settings, name, span.clone());
                name
            }
            Called::ByVariables => return Some(TlsName::OfUrl),
        };
        let name = server_name(host).map(|name| TlsName::Fixed(Arc::new(name)));
        if name.is_none() {
            let message = format!("`{host}` cannot be the name in a certificate");
            let help = "write the name that the server has: `proxy_ssl_name = \"app.example.com\"`";
            self.mistakes.push(Mistake::new(span, message).help(help));
        }
        name
    }

    /// nginx, too, holds the certificates of a group's servers against the name of the group.
    fn name_of_group(&mut self, settings: &TlsSettings, name: &str, span: Range<usize>) {
        if name.contains('.') || settings.verify == Some(false) {
            return;
        }
        let message = format!(
            "the certificates of this upstream's servers must be for `{name}`, the name of the group"
        );
        let help = format!(
            "write the name that they have, `proxy_ssl_name = \"app.example.com\"`, or `proxy_ssl_name = \"{name}\"` \
             if this is it"
        );
        self.mistakes.push(Mistake::warning(span, message).help(help));
    }

    /// As in nginx the port of a group's server is 80, however it is spoken to.
    fn ports_of_tls(&mut self, group: usize) {
        for (name, span) in self.upstreams.without_port(group) {
            let message = format!(
                "TLS is spoken with `{name}` on port 80: the server of a group has no other by itself"
            );
            let help = format!("write `{name}:443`, or `{name}:80` if it is meant so");
            self.mistakes.push(Mistake::warning(span, message).help(help));
        }
    }

    fn tls_name(&mut self, written: &Value<String>) -> Option<Option<Spanned<Template>>> {
        let text = written.given()?;
        let Some(template) = self.template(text) else { return Some(None) };
        if template.as_literal().is_some_and(|name| server_name(name).is_none()) {
            let message =
                format!("`proxy_ssl_name`: `{}` cannot be the name in a certificate", text.get_ref());
            let help = "write a host name or an IP address: `proxy_ssl_name = \"app.example.com\"`";
            self.mistakes.push(Mistake::new(text.span(), message).help(help));
            return Some(None);
        }
        Some(Some(Spanned::new(text.span(), template)))
    }

    fn versions(&mut self, written: &Value<OneOrMany<String>>) -> Option<Option<Versions>> {
        let list = written.given()?;
        let mut versions = Versions { tls12: false, tls13: false };
        let mut is_right = true;
        for entry in &list.get_ref().0 {
            let (message, help) = match entry.get_ref().as_str() {
                "TLSv1.2" => {
                    versions.tls12 = true;
                    continue;
                }
                "TLSv1.3" => {
                    versions.tls13 = true;
                    continue;
                }
                old @ ("SSLv2" | "SSLv3" | "TLSv1" | "TLSv1.0" | "TLSv1.1") => {
                    (format!("{old} can be broken, and is not spoken (RFC 8996)"), "leave it out")
                }
                other => {
                    (format!("`proxy_ssl_protocols`: `{other}` is not known"), "write `TLSv1.2` or `TLSv1.3`")
                }
            };
            is_right = false;
            self.mistakes.push(Mistake::new(entry.span(), message).help(help));
        }
        if list.get_ref().0.is_empty() {
            is_right = false;
            let mistake = Mistake::new(list.span(), "`proxy_ssl_protocols` has no version");
            self.mistakes.push(mistake.help("write `proxy_ssl_protocols = [\"TLSv1.2\", \"TLSv1.3\"]`"));
        }
        Some(is_right.then_some(versions))
    }
}

// Files.
impl Check<'_> {
    fn trusted(&mut self, written: &Value<String>) -> Option<Option<Arc<[CertificateDer<'static>]>>> {
        let at = written.given()?;
        Some(self.certificates(at, "proxy_ssl_trusted_certificate"))
    }

    fn certificate(
        &mut self,
        written: &Value<String>,
    ) -> Option<Option<FromFile<Arc<[CertificateDer<'static>]>>>> {
        let at = written.given()?;
        let Some(what) = self.certificates(at, "proxy_ssl_certificate") else { return Some(None) };
        if let Ok((_, parsed)) = X509Certificate::from_der(&what[0])
            && !parsed.validity().is_valid()
        {
            let until = parsed.validity().not_after;
            let when = match until < ASN1Time::now() {
                true => format!("has expired on {}", date(until)),
                false => format!("is not valid before {}", date(parsed.validity().not_before)),
            };
            let message = format!("`proxy_ssl_certificate`: the certificate in {} {when}", at.get_ref());
            // Not refused: what else there is in the file can be served, and its upstream may not mind.
            self.mistakes.push(Mistake::warning(at.span(), message).help("put a new one there"));
        }
        Some(Some(FromFile { path: at.get_ref().clone(), span: at.span(), what }))
    }

    fn certificates(&mut self, at: &Spanned<String>, key: &str) -> Option<Arc<[CertificateDer<'static>]>> {
        let bytes = self.file(at, key)?;
        let path = at.get_ref();
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
        match found {
            Ok(found) if found.is_empty() => self.wrong_file(at, key, without("certificate", path, &bytes)),
            Ok(found) => {
                match found.iter().position(|one| RootCertStore::empty().add(one.clone()).is_err()) {
                    Some(place) => {
                        let message = format!("certificate {} of {path} cannot be read", place + 1);
                        self.wrong_file(at, key, (message, None))
                    }
                    None => Some(found.into()),
                }
            }
            Err(error) => {
                self.wrong_file(at, key, (format!("{path} is no proper PEM: {}", pem::flaw(&error)), None))
            }
        }
    }

    fn revoked(
        &mut self,
        written: &Value<String>,
    ) -> Option<Option<Spanned<Arc<[CertificateRevocationListDer<'static>]>>>> {
        let at = written.given()?;
        Some(self.lists(at).map(|lists| Spanned::new(at.span(), lists)))
    }

    fn lists(&mut self, at: &Spanned<String>) -> Option<Arc<[CertificateRevocationListDer<'static>]>> {
        let (key, path) = ("proxy_ssl_crl", at.get_ref());
        let bytes = self.file(at, key)?;
        let found: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&bytes).collect();
        let found = match found {
            Ok(found) if found.is_empty() => {
                return self.wrong_file(at, key, without("revocation list", path, &bytes));
            }
            Ok(found) => found,
            Err(error) => {
                return self.wrong_file(
                    at,
                    key,
                    (format!("{path} is no proper PEM: {}", pem::flaw(&error)), None),
                );
            }
        };
        for list in &found {
            let Ok((_, list)) = CertificateRevocationList::from_der(list) else {
                return self.wrong_file(at, key, (format!("a list in {path} cannot be read"), None));
            };
            if let Some(until) = list.next_update().filter(|until| *until < ASN1Time::now()) {
                let message = format!("`{key}`: a list in {path} has expired on {}", date(until));
                let help = "put a new one there: what an old one does not name is not taken to be good";
                self.mistakes.push(Mistake::warning(at.span(), message).help(help));
            }
        }
        Some(found.into())
    }

    fn key(&mut self, written: &Value<String>) -> Option<Option<FromFile<Arc<PrivateKeyDer<'static>>>>> {
        let at = written.given()?;
        let (key, path) = ("proxy_ssl_certificate_key", at.get_ref());
        let Some(bytes) = self.file(at, key) else { return Some(None) };
        let is_encrypted = [&b"BEGIN ENCRYPTED PRIVATE KEY"[..], b"Proc-Type: 4,ENCRYPTED"]
            .iter()
            .any(|mark| memchr::memmem::find(&bytes, mark).is_some());
        Some(match PrivateKeyDer::from_pem_slice(&bytes) {
            Ok(what) => Some(FromFile { path: path.clone(), span: at.span(), what: Arc::new(what) }),
            Err(_) if is_encrypted => {
                let help = format!("write it without its password: `openssl pkey -in {path} -out NEW`");
                self.wrong_file(at, key, (format!("the key in {path} is encrypted"), Some(help)))
            }
            Err(_) => self.wrong_file(at, key, without("private key", path, &bytes)),
        })
    }

    /// The bytes of a file that is named by its whole path.
    fn file(&mut self, at: &Spanned<String>, key: &str) -> Option<Vec<u8>> {
        let path = at.get_ref();
        if !path.starts_with('/') {
            let message = format!("`{path}` is no whole path");
            let help = format!("write where it begins: `{key} = \"/etc/hopgate/{path}\"`");
            return self.wrong_file(at, key, (message, Some(help)));
        }
        match read_bounded(Path::new(path)) {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                let help = (error.kind() == io::ErrorKind::PermissionDenied)
                    .then(|| "let the user that hopgate runs as read it".to_owned());
                self.wrong_file(at, key, (format!("cannot read {path}: {error}"), help))
            }
        }
    }

    fn wrong_file<T>(
        &mut self,
        at: &Spanned<String>,
        key: &str,
        (message, help): (impl Display, Option<String>),
    ) -> Option<T> {
        let mistake = Mistake::new(at.span(), format!("`{key}`: {message}")).maybe_help(help);
        self.mistakes.push(mistake.kind(MistakeKind::OfFile));
        None
    }
}

/// There is no such thing in a file.
fn without(what: &str, path: &str, bytes: &[u8]) -> (String, Option<String>) {
    // DER begins with a SEQUENCE of a length that takes more bytes than one.
    let is_der = bytes.starts_with(&[0x30, 0x82]) || bytes.starts_with(&[0x30, 0x81]);
    let help = match is_der {
        true => format!(
            "it is DER: make PEM of it with `openssl`, which begins with `-----BEGIN {}`",
            label(what)
        ),
        false => format!("it must be PEM, which begins with `-----BEGIN {}`", label(what)),
    };
    (format!("there is no {what} in {path}"), Some(help))
}

fn label(what: &str) -> &'static str {
    match what {
        "certificate" => "CERTIFICATE-----",
        "private key" => "PRIVATE KEY-----",
        _ => "X509 CRL-----",
    }
}

fn date(time: ASN1Time) -> String {
    let seconds = u64::try_from(time.timestamp()).unwrap_or(0);
    // The last second that such a date can be of.
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds.min(253_402_300_799)))
}
