//! How servers speak TLS: the settings, and the files of certificates.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use serde_spanned::Spanned;

use super::acme::ACME;
use super::{Check, plain};
use crate::config::Listener;
use crate::config::error::{Mistake, MistakeKind};
use crate::config::file::{ForServers, OneOrMany, Server, Value};
use crate::tls::clients::{Ask, ClientRules};
use crate::tls::identity::{Identity, Pair, Source, SourceFault};
use crate::tls::pem::{self, FileFault, PairFault};
use crate::tls::server::{DEFAULT_TIMEOUT, Shows, TlsRules};
use crate::tls::versions::Versions;

/// What is written at one level of the file; `None` is inherited.
#[derive(Clone, Default)]
pub(super) struct TlsSettings {
    word: Option<Spanned<String>>,
    certificates: Option<Vec<Spanned<String>>>,
    keys: Option<Vec<Spanned<String>>>,
    versions: Option<Versions>,
    ask: Option<Spanned<Ask>>,
    cas: Option<Spanned<String>>,
    revoked: Option<Spanned<String>>,
    staple: Option<Spanned<String>>,
    has_tickets: Option<bool>,
    timeout: Option<Duration>,
    rejects: Option<bool>,
    /// Whether something that was reported stands where certificates are said to come from.
    is_wrong: bool,
}

/// What servers share, each once.
#[derive(Default)]
pub(super) struct TlsFound {
    /// Of each server, in the order of the file.
    pub(super) servers: Vec<TlsSettings>,
    identities: Vec<Arc<Identity>>,
    clients: Vec<Arc<ClientRules>>,
}

impl TlsSettings {
    /// What is not written here is as it is further out. Where certificates come from is one thing: files, or a
    /// word instead of them.
    pub(super) fn inside(self, outer: &Self) -> Self {
        let has_own_word = self.word.is_some();
        let has_own_files = self.certificates.is_some() || self.keys.is_some();
        Self {
            word: self.word.or_else(|| outer.word.clone().filter(|_| !has_own_files)),
            certificates: self.certificates.or_else(|| outer.certificates.clone().filter(|_| !has_own_word)),
            keys: self.keys.or_else(|| outer.keys.clone().filter(|_| !has_own_word)),
            versions: self.versions.or(outer.versions),
            ask: self.ask.or_else(|| outer.ask.clone()),
            cas: self.cas.or_else(|| outer.cas.clone()),
            revoked: self.revoked.or_else(|| outer.revoked.clone()),
            staple: self.staple.or_else(|| outer.staple.clone()),
            has_tickets: self.has_tickets.or(outer.has_tickets),
            timeout: self.timeout.or(outer.timeout),
            rejects: self.rejects.or(outer.rejects),
            is_wrong: self.is_wrong || outer.is_wrong && !has_own_word && !has_own_files,
        }
    }
}

impl Check<'_> {
    pub(super) fn tls_settings_of_server(&mut self, written: &ForServers) -> TlsSettings {
        let mut settings = TlsSettings {
            word: self.tls_word(&written.tls),
            certificates: self.file_list(&written.ssl_certificate, "ssl_certificate"),
            keys: self.file_list(&written.ssl_certificate_key, "ssl_certificate_key"),
            versions: self.tls_versions(&written.ssl_protocols, "ssl_protocols").flatten(),
            ask: self.verify_client(&written.ssl_verify_client),
            cas: self.file_name(written.ssl_client_certificate.given(), "ssl_client_certificate"),
            revoked: self.file_name(written.ssl_crl.given(), "ssl_crl"),
            staple: self.file_name(written.ssl_stapling_file.given(), "ssl_stapling_file"),
            has_tickets: plain(&written.ssl_session_tickets),
            timeout: self.time(&written.ssl_session_timeout, "ssl_session_timeout"),
            rejects: plain(&written.ssl_reject_handshake),
            is_wrong: false,
        };
        settings.is_wrong = settings.word.is_none() && !written.tls.is_absent()
            || settings.certificates.is_none() && !written.ssl_certificate.is_absent()
            || settings.keys.is_none() && !written.ssl_certificate_key.is_absent();
        if let (Some(word), Some(files)) =
            (&settings.word, settings.certificates.as_ref().and_then(|f| f.first()))
        {
            let message = "there is a certificate, and `tls` says where else one comes from";
            let mistake = Mistake::new(word.span(), message).also(files.span(), "the certificate");
            self.mistakes.push(mistake.help("delete one of the two"));
        }
        if let (Some(word), Some(staple)) = (&settings.word, &settings.staple) {
            let message =
                "`ssl_stapling_file` is about a certificate of `ssl_certificate`, and there is none";
            let mistake = Mistake::new(staple.span(), message).also(word.span(), "where this one comes from");
            self.mistakes.push(mistake.help("delete it"));
        }
        settings
    }

    /// How the servers behind addresses with TLS speak it.
    pub(super) fn tls_of_servers(
        &mut self,
        servers: &mut [crate::config::Server],
        written: &[Spanned<Server>],
        listeners: &[Listener],
    ) {
        let settings = std::mem::take(&mut self.tls.servers);
        for (place, settings) in settings.iter().enumerate() {
            let (Some(server), Some(written)) = (servers.get_mut(place), written.get(place)) else {
                continue;
            };
            if listeners.iter().any(|listener| listener.tls && listener.has(place)) {
                server.tls = self.tls_rules(settings, written);
            }
        }
    }

    fn tls_rules(&mut self, settings: &TlsSettings, written: &Spanned<Server>) -> Option<TlsRules> {
        // All of them, so that every mistake is told.
        let shows = self.shows(settings, written);
        let clients = self.client_rules(settings);
        let timeout = settings.timeout.unwrap_or(DEFAULT_TIMEOUT);
        Some(TlsRules {
            shows: shows?,
            versions: settings.versions.unwrap_or_default(),
            clients: clients?,
            tickets: settings.has_tickets.unwrap_or(true).then_some(timeout),
        })
    }

    fn shows(&mut self, settings: &TlsSettings, written: &Spanned<Server>) -> Option<Shows> {
        if settings.rejects == Some(true) {
            return Some(Shows::Nothing);
        }
        if let Some(word) = settings.word.as_ref().filter(|word| word.get_ref() == ACME) {
            return self.certificate_names(written.get_ref(), word.span()).map(Shows::Acme);
        }
        if settings.word.is_some() {
            return Some(Shows::self_signed(names_of(written.get_ref())));
        }
        match (&settings.certificates, &settings.keys) {
            (Some(certificates), Some(keys)) => {
                self.shows_files(certificates, keys, settings.staple.as_ref())
            }
            _ if settings.is_wrong => None,
            (Some(alone), None) => {
                self.half("ssl_certificate", "ssl_certificate_key", alone.first()?.span());
                None
            }
            (None, Some(alone)) => {
                self.half("ssl_certificate_key", "ssl_certificate", alone.first()?.span());
                None
            }
            (None, None) => {
                let help = "write `ssl_certificate = \"/etc/hopgate/cert.pem\"` and `ssl_certificate_key = \
                            \"/etc/hopgate/key.pem\"`, or `tls = \"self-signed\"` to try it without";
                let what =
                    "this server speaks TLS (`ssl` in a `listen` of its address), and has no certificate";
                self.missing(written.span(), what, help);
                None
            }
        }
    }

    fn shows_files(
        &mut self,
        certificates: &[Spanned<String>],
        keys: &[Spanned<String>],
        staple: Option<&Spanned<String>>,
    ) -> Option<Shows> {
        let (first, _) = (certificates.first()?, keys.first()?);
        if certificates.len() != keys.len() {
            let (certificates, keys) = (certificates.len(), keys.len());
            let message =
                format!("there are {certificates} of `ssl_certificate` and {keys} of `ssl_certificate_key`");
            let help = "the first key is that of the first certificate, and so on";
            self.mistakes.push(Mistake::new(first.span(), message).help(help));
            return None;
        }
        let pair = |(certificate, key): (&Spanned<String>, &Spanned<String>)| Pair {
            certificate: PathBuf::from(certificate.get_ref()),
            key: PathBuf::from(key.get_ref()),
        };
        let pairs: Vec<_> = certificates.iter().zip(keys).map(pair).collect();
        let path = staple.map(|staple| PathBuf::from(staple.get_ref()));
        let source = Source::Files(pairs.clone(), path.clone());
        if let Some(known) = self.tls.identities.iter().find(|known| known.source == source) {
            return Some(Shows::Files(Arc::clone(known)));
        }
        match Identity::read(pairs, path) {
            Ok(identity) => {
                let identity = Arc::new(identity);
                for (path, shown) in certificates.iter().zip(identity.current().iter()) {
                    self.doubtful_chain(path, &shown.cert);
                }
                self.tls.identities.push(Arc::clone(&identity));
                Some(Shows::Files(identity))
            }
            Err(faults) => {
                for fault in faults {
                    let (key, span, fault) = match fault {
                        SourceFault::Pair(place, PairFault::Certificate(fault)) => {
                            ("ssl_certificate", certificates[place].span(), fault)
                        }
                        SourceFault::Pair(place, PairFault::Key(fault)) => {
                            ("ssl_certificate_key", keys[place].span(), fault)
                        }
                        SourceFault::Staple(fault) => {
                            ("ssl_stapling_file", staple.map(Spanned::span).unwrap_or_default(), fault)
                        }
                    };
                    self.faulty_file(key, span, &fault);
                }
                None
            }
        }
    }

    fn doubtful_chain(&mut self, path: &Spanned<String>, chain: &[CertificateDer<'_>]) {
        if let Some(fault) = pem::doubt(path.get_ref().as_ref(), chain) {
            let warning = Mistake::new(path.span(), format!("`ssl_certificate`: {fault}"));
            let warning = warning.maybe_help(fault.help.as_deref()).kind(MistakeKind::Surprising);
            self.mistakes.push(warning);
        }
    }

    fn client_rules(&mut self, settings: &TlsSettings) -> Option<Arc<ClientRules>> {
        let ask = settings.ask.as_ref().map_or(Ask::Off, |ask| *ask.get_ref());
        if ask != Ask::Off && ask != Ask::OptionalNoCa && settings.cas.is_none() {
            let span = settings.ask.as_ref().map(Spanned::span).unwrap_or_default();
            let message = "`ssl_verify_client` needs to know whose certificates are believed";
            let help = "write `ssl_client_certificate = \"/etc/hopgate/clients-ca.pem\"` beside it";
            self.mistakes.push(Mistake::new(span, message).help(help));
            return None;
        }
        let cas = match settings.cas.as_ref().filter(|_| ask != Ask::Off) {
            Some(path) => self.content_of(path, "ssl_client_certificate", pem::certificates),
            None => Some(Vec::new()),
        };
        let revoked = match settings.revoked.as_ref().filter(|_| ask != Ask::Off) {
            Some(path) => self.content_of(path, "ssl_crl", pem::revoked),
            None => Some(Vec::new()),
        };
        match ClientRules::new(ask, cas?, revoked?) {
            Ok(rules) => {
                if let Some(known) = self.tls.clients.iter().find(|known| ***known == rules) {
                    return Some(Arc::clone(known));
                }
                let rules = Arc::new(rules);
                self.tls.clients.push(Arc::clone(&rules));
                Some(rules)
            }
            Err(error) => {
                let place = settings.cas.as_ref().or(settings.revoked.as_ref());
                let span = place.map(Spanned::span).unwrap_or_default();
                let message = format!("client certificates cannot be held against this: {error}");
                self.mistakes.push(Mistake::new(span, message).kind(MistakeKind::OfFile));
                None
            }
        }
    }

    pub(super) fn content_of<T>(
        &mut self,
        path: &Spanned<String>,
        key: &str,
        read: impl FnOnce(&std::path::Path) -> Result<T, FileFault>,
    ) -> Option<T> {
        match read(path.get_ref().as_ref()) {
            Ok(read) => Some(read),
            Err(fault) => {
                self.faulty_file(key, path.span(), &fault);
                None
            }
        }
    }

    fn faulty_file(&mut self, key: &str, span: Range<usize>, fault: &FileFault) {
        let mistake = Mistake::new(span, format!("`{key}`: {fault}")).maybe_help(fault.help.as_deref());
        self.mistakes.push(mistake.kind(MistakeKind::OfFile));
    }

    fn tls_word(&mut self, written: &Value<String>) -> Option<Spanned<String>> {
        let word = written.given()?;
        if matches!(word.get_ref().as_str(), "self-signed" | ACME) {
            return Some(word.clone());
        }
        let message = format!("`tls` cannot be `{}`", word.get_ref());
        let help = "write `tls = \"acme\"` for certificates of Let's Encrypt, `tls = \"self-signed\"` for one to try it with, or name files: \
                    `ssl_certificate`, `ssl_certificate_key`; that an address has TLS is said by `ssl` in `listen`";
        self.mistakes.push(Mistake::new(word.span(), message).help(help));
        None
    }

    fn verify_client(&mut self, written: &Value<String>) -> Option<Spanned<Ask>> {
        let word = written.given()?;
        let ask = match word.get_ref().as_str() {
            "off" => Ask::Off,
            "on" => Ask::On,
            "optional" => Ask::Optional,
            "optional_no_ca" => Ask::OptionalNoCa,
            other => {
                let message = format!("`ssl_verify_client` cannot be `{other}`");
                let help = "write `\"on\"`, `\"off\"`, `\"optional\"` or `\"optional_no_ca\"`";
                self.mistakes.push(Mistake::new(word.span(), message).help(help));
                return None;
            }
        };
        Some(Spanned::new(word.span(), ask))
    }

    /// Versions of TLS; `Some(None)`: there is something wrong with them, which has been reported.
    pub(super) fn tls_versions(
        &mut self,
        written: &Value<OneOrMany<String>>,
        key: &str,
    ) -> Option<Option<Versions>> {
        let list = written.given()?;
        let help = format!("write `{key} = [\"TLSv1.2\", \"TLSv1.3\"]`, or leave the line out");
        let mut versions = Versions { tls12: false, tls13: false };
        let mut is_right = true;
        for entry in &list.get_ref().0 {
            let message = match entry.get_ref().as_str() {
                "TLSv1.2" => {
                    versions.tls12 = true;
                    continue;
                }
                "TLSv1.3" => {
                    versions.tls13 = true;
                    continue;
                }
                old @ ("SSLv2" | "SSLv3" | "TLSv1" | "TLSv1.0" | "TLSv1.1") => {
                    format!("{old} can be broken, and is not spoken (RFC 8996)")
                }
                other => format!("`{key}`: `{other}` is not known"),
            };
            is_right = false;
            self.mistakes.push(Mistake::new(entry.span(), message).help(help.clone()));
        }
        if list.get_ref().0.is_empty() {
            is_right = false;
            self.mistakes.push(Mistake::new(list.span(), format!("`{key}` has no version")).help(help));
        }
        Some(is_right.then_some(versions))
    }

    fn file_list(&mut self, written: &Value<OneOrMany<String>>, key: &str) -> Option<Vec<Spanned<String>>> {
        let list = written.given()?;
        if list.get_ref().0.is_empty() {
            let mistake = Mistake::new(list.span(), format!("`{key}` has no file"));
            self.mistakes.push(mistake.help(format!("write `{key} = \"/etc/hopgate/file.pem\"`")));
        }
        Some(list.get_ref().0.iter().filter_map(|path| self.file_name(Some(path), key)).collect())
    }

    /// A file that is named by its whole path.
    pub(super) fn file_name(&mut self, path: Option<&Spanned<String>>, key: &str) -> Option<Spanned<String>> {
        let path = path?;
        let text = path.get_ref();
        if text.starts_with('/') && !text.ends_with([';', '/']) && !text.contains('\0') {
            return Some(path.clone());
        }
        let message = format!("`{key}`: `{text}` is not the whole path of a file");
        let name = text.trim_end_matches([';', '/']).rsplit('/').next().unwrap_or_default();
        let name = if matches!(name, "" | "." | "..") { "file.pem" } else { name };
        let help = format!("write where it is from the root on, as in `{key} = \"/etc/hopgate/{name}\"`");
        self.mistakes.push(Mistake::new(path.span(), message).help(help));
        None
    }
}

/// The names that a certificate for a server needs.
fn names_of(server: &Server) -> Vec<String> {
    let written = server.server_name.given().map(|names| names.get_ref().0.as_slice()).unwrap_or_default();
    let mut names = Vec::new();
    for name in written.iter().map(|name| name.get_ref().to_ascii_lowercase()) {
        match name.strip_prefix('.') {
            _ if name.is_empty() || name.starts_with('~') || name.ends_with(".*") || name.contains('$') => {}
            Some(rest) => names.extend([rest.to_owned(), format!("*.{rest}")]),
            None => names.push(name),
        }
    }
    names
}
