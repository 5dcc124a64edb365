//! TLS towards upstream servers: what is spoken and whom is believed, and the handshake.

mod error;
mod verify;

use std::collections::HashMap;
use std::fmt;
use std::future::poll_fn;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::{ResolvesClientCert, Resumption};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName};
use rustls::sign::SingleCertAndKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};

use crate::config::UpstreamAddress;
use crate::io::Stream;
use crate::tls::pem;
use crate::tls::stream::TlsStream;

pub use error::TlsError;

/// The most servers whose sessions are kept apart. Clients may be able to name servers: those beyond share
/// their sessions, which costs no more than full handshakes.
const MOST_SERVERS: usize = 256;

/// How many names the sessions of one server are kept for.
const NAMES: usize = 32;

/// How TLS is spoken with upstream servers, as configured.
#[derive(Debug, PartialEq)]
pub struct TlsRules {
    /// Whose certificates are believed; `None`: anybody's. nginx: `proxy_ssl_verify`.
    pub trust: Option<Trust>,
    /// What the server is shown if it asks. nginx: `proxy_ssl_certificate`, `proxy_ssl_certificate_key`.
    pub identity: Option<Identity>,
    /// Whether the server is told which name is meant (SNI). nginx: `proxy_ssl_server_name`.
    pub sends_name: bool,
    /// Whether a session is resumed. nginx: `proxy_ssl_session_reuse`.
    pub resumes: bool,
    /// The versions. nginx: `proxy_ssl_protocols`.
    pub versions: Versions,
    /// Whether HTTP/2 is spoken inside, and nothing else. nginx: `proxy_http_version`.
    pub http2: bool,
}

/// Whose certificates are believed.
#[derive(Clone, Debug)]
pub struct Trust {
    /// Who may issue them.
    pub roots: Arc<RootCertStore>,
    /// Those that are believed whoever has issued them: the certificates of `proxy_ssl_trusted_certificate`.
    pub certificates: Arc<[CertificateDer<'static>]>,
    /// What was revoked; without any it is not asked. nginx: `proxy_ssl_crl`.
    pub revoked: Arc<[CertificateRevocationListDer<'static>]>,
}

impl PartialEq for Trust {
    fn eq(&self, other: &Self) -> bool {
        self.roots.roots == other.roots.roots
            && self.certificates == other.certificates
            && self.revoked == other.revoked
    }
}

/// A client certificate, with those that it was issued by, and its key.
#[derive(Debug, PartialEq)]
pub struct Identity {
    /// The certificate comes first.
    pub chain: Arc<[CertificateDer<'static>]>,
    /// The key.
    pub key: Arc<PrivateKeyDer<'static>>,
}

/// Versions of TLS, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// TLS 1.2.
    pub tls12: bool,
    /// TLS 1.3.
    pub tls13: bool,
}

impl Default for Versions {
    fn default() -> Self {
        Self { tls12: true, tls13: true }
    }
}

/// How TLS is spoken with upstream servers, ready for use. Equal rules are one value, in all locations and over
/// reloads: connections and sessions are not shared with others.
pub struct TlsClient {
    rules: TlsRules,
    config: Arc<ClientConfig>,
    /// rustls keeps its sessions by the name, and the servers of a group have the same: each gets its own.
    by_server: Mutex<HashMap<UpstreamAddress, Arc<ClientConfig>>>,
}

impl TlsClient {
    /// Puts rules to use.
    ///
    /// # Errors
    /// The key is not that of the certificate, or of a kind that is not known; a list of what was revoked
    /// cannot be used.
    pub fn new(rules: TlsRules) -> Result<Self, rustls::Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let known: [(bool, &SupportedProtocolVersion); 2] =
            [(rules.versions.tls12, &TLS12), (rules.versions.tls13, &TLS13)];
        let versions: Vec<_> =
            known.into_iter().filter_map(|(is_spoken, version)| is_spoken.then_some(version)).collect();
        let verifier = verify::verifier(rules.trust.as_ref(), &provider)?;
        let identity = rules.identity.as_ref().map(|identity| {
            let key = pem::certified(identity.chain.to_vec(), identity.key.clone_key())?;
            Ok::<_, rustls::Error>(Arc::new(SingleCertAndKey::from(key)) as Arc<dyn ResolvesClientCert>)
        });
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&versions)?;
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        let mut config = match identity.transpose()? {
            Some(identity) => builder.with_client_cert_resolver(identity),
            None => builder.with_no_client_auth(),
        };
        config.enable_sni = rules.sends_name;
        config.alpn_protocols = vec![if rules.http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
        config.resumption = sessions(&rules);
        Ok(Self { rules, config: Arc::new(config), by_server: Mutex::default() })
    }

    /// What it was made of.
    pub fn rules(&self) -> &TlsRules {
        &self.rules
    }

    /// For connections to this server.
    fn config_for(&self, server: &UpstreamAddress) -> Arc<ClientConfig> {
        if !self.rules.resumes {
            return Arc::clone(&self.config);
        }
        let mut by_server = self.by_server.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = by_server.get(server) {
            return Arc::clone(config);
        }
        if by_server.len() >= MOST_SERVERS {
            return Arc::clone(&self.config);
        }
        let mut config = (*self.config).clone();
        config.resumption = sessions(&self.rules);
        Arc::clone(by_server.entry(server.clone()).or_insert(Arc::new(config)))
    }
}

impl fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsClient").field("rules", &self.rules).finish_non_exhaustive()
    }
}

fn sessions(rules: &TlsRules) -> Resumption {
    if rules.resumes { Resumption::in_memory_sessions(NAMES) } else { Resumption::disabled() }
}

/// How a connection is secured: connections between which this differs are never taken for one another.
#[derive(Clone, Debug)]
pub struct Secured {
    /// How TLS is spoken.
    pub client: Arc<TlsClient>,
    /// The name that the certificate of the server must have.
    pub name: Arc<ServerName<'static>>,
}

impl PartialEq for Secured {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.client, &other.client) && self.name == other.name
    }
}

impl Eq for Secured {}

impl Hash for Secured {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.client).hash(state);
        self.name.hash(state);
    }
}

impl Secured {
    /// Speaks TLS on a connection to a server, and checks who that is.
    ///
    /// # Errors
    /// The handshake has failed. Nothing of a request was sent.
    pub async fn handshake(&self, stream: Stream, server: &UpstreamAddress) -> Result<Stream, TlsError> {
        let stream = TlsStream::connect(stream, self.client.config_for(server), (*self.name).clone());
        let mut stream = stream.map_err(|error| TlsError::of(error, self))?;
        match poll_fn(|cx| stream.poll_handshake(cx)).await {
            Ok(()) => Ok(Stream::Tls(Box::new(stream))),
            Err(error) => Err(TlsError::of_handshake(error, self)),
        }
    }
}

/// The name of a server for its certificate: of `host`, `host:port` or an address, in brackets or not.
pub fn server_name(text: &str) -> Option<ServerName<'static>> {
    if let Ok(name) = ServerName::try_from(text) {
        return Some(name.to_owned());
    }
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => text.split_at(text.find(':')?),
    };
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let is_right = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
    ServerName::try_from(host).ok().filter(|_| is_right).map(|name| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_server_is_that_without_its_port() {
        for (text, name) in [
            ("example.com", Some("example.com")),
            ("example.com:8443", Some("example.com")),
            ("my_app", Some("my_app")),
            ("127.0.0.1", Some("127.0.0.1")),
            ("127.0.0.1:443", Some("127.0.0.1")),
            ("::1", Some("::1")),
            ("[::1]", Some("::1")),
            ("[::1]:443", Some("::1")),
            ("", None),
            (":443", None),
            ("a b", None),
            ("-a", None),
            ("[::1", None),
            ("[::1]a", None),
            ("a:b", None),
            ("https://a", None),
        ] {
            let got = server_name(text);
            assert_eq!(got.as_ref().map(|name| name.to_str().into_owned()).as_deref(), name, "{text}");
        }
    }

    #[test]
    fn each_server_has_sessions_of_its_own_up_to_a_bound() {
        let rules = |resumes| TlsRules {
            trust: None,
            identity: None,
            sends_name: true,
            resumes,
            versions: Versions::default(),
            http2: false,
        };
        let server = |port: usize| UpstreamAddress::Name { host: "a".into(), port: port as u16 };
        let client = TlsClient::new(rules(true)).unwrap();
        assert!(Arc::ptr_eq(&client.config_for(&server(1)), &client.config_for(&server(1))));
        assert!(!Arc::ptr_eq(&client.config_for(&server(1)), &client.config_for(&server(2))));
        for port in 0..2 * MOST_SERVERS {
            client.config_for(&server(port));
        }
        assert_eq!(client.by_server.lock().unwrap().len(), MOST_SERVERS);
        let client = TlsClient::new(rules(false)).unwrap();
        assert!(Arc::ptr_eq(&client.config_for(&server(1)), &client.config_for(&server(2))));
    }
}
