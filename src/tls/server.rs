//! How a server speaks TLS with its clients.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::server::NoServerSessionStorage;

use super::clients::{Ask, ClientRules, Lenient};
use super::identity::Identity;
use super::provider;
use super::tickets::{self, Keys, Tickets};
use super::versions::Versions;
use crate::acme::served::Served;
use crate::config::{CertificateNames, Config};

/// How a server speaks TLS, as configured.
#[derive(Clone, Debug)]
pub struct TlsRules {
    /// What it shows.
    pub shows: Shows,
    /// The versions.
    pub versions: Versions,
    /// What it wants of its clients.
    pub clients: Arc<ClientRules>,
    /// For how long sessions can be resumed; `None`: they cannot. nginx: `ssl_session_tickets`,
    /// `ssl_session_timeout`.
    pub tickets: Option<Duration>,
}

impl TlsRules {
    /// With a self-made certificate for these names, and for those by which a server is tried out.
    pub fn self_signed(names: Vec<String>) -> Self {
        let clients = Arc::new(ClientRules::none());
        let tickets = Some(DEFAULT_TIMEOUT);
        Self { shows: Shows::self_signed(names), versions: Versions::default(), clients, tickets }
    }
}

/// nginx: the default of `ssl_session_timeout`.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(300);

/// What a server shows to prove who it is.
#[derive(Clone, Debug)]
pub enum Shows {
    /// Certificates from files.
    Files(Arc<Identity>),
    /// A certificate that is made when it is needed, for these names: `tls = "self-signed"`.
    SelfSigned(Vec<String>),
    /// A certificate that is ordered for these names: `tls = "acme"`.
    Acme(CertificateNames),
    /// Nothing: every handshake is refused. nginx: `ssl_reject_handshake`.
    Nothing,
}

impl Shows {
    /// A self-made certificate for these names, and for those by which a server is tried out.
    pub fn self_signed(mut names: Vec<String>) -> Self {
        for usual in ["localhost", "127.0.0.1", "::1"] {
            if !names.iter().any(|name| name == usual) {
                names.push(usual.to_owned());
            }
        }
        Self::SelfSigned(names)
    }
}

/// A server that speaks TLS, ready for use.
#[derive(Debug)]
pub struct TlsServer {
    /// What it shows; `None`: every handshake is refused.
    pub identity: Option<Arc<Identity>>,
    /// What it wants of its clients.
    pub clients: Arc<ClientRules>,
    /// Without HTTP/2.
    http1: Arc<ServerConfig>,
    /// With it.
    http2: Arc<ServerConfig>,
}

impl TlsServer {
    /// For a connection on which HTTP/2 may be offered, or must not be.
    pub fn config(&self, offers_http2: bool) -> &Arc<ServerConfig> {
        if offers_http2 { &self.http2 } else { &self.http1 }
    }
}

/// The servers of a configuration that speak TLS, by their places, and what outlives them.
#[derive(Debug, Default)]
pub struct TlsServers {
    servers: Vec<Option<Arc<TlsServer>>>,
    keys: Vec<(Arc<ClientRules>, Keys)>,
    made: HashMap<Vec<String>, Arc<Identity>>,
}

impl TlsServers {
    /// Puts the rules of servers to use. Of `previous` ones the keys of tickets and what was made here are
    /// taken over: a reload ends no session. Those that are ordered are in `served` already.
    ///
    /// # Errors
    /// Something cannot be made: a self-signed certificate, or keys.
    pub fn new(config: &Config, served: &Served, previous: Option<&Self>) -> io::Result<Self> {
        let mut servers = Self::default();
        for server in &config.servers {
            let server = server.tls.as_ref().map(|rules| servers.server(rules, served, previous)).transpose();
            let server = server.map_err(|why| io::Error::other(format!("TLS cannot be prepared: {why}")))?;
            servers.servers.push(server);
        }
        Ok(servers)
    }

    /// The server at a place of the configuration; `None` if it speaks no TLS.
    pub fn get(&self, place: usize) -> Option<&Arc<TlsServer>> {
        self.servers.get(place)?.as_ref()
    }

    /// Everything that is shown, each once.
    pub fn identities(&self) -> Vec<Arc<Identity>> {
        let mut found: Vec<Arc<Identity>> = Vec::new();
        for identity in self.servers.iter().flatten().filter_map(|server| server.identity.as_ref()) {
            if !found.iter().any(|known| Arc::ptr_eq(known, identity)) {
                found.push(Arc::clone(identity));
            }
        }
        found
    }

    fn server(
        &mut self,
        rules: &TlsRules,
        served: &Served,
        previous: Option<&Self>,
    ) -> Result<Arc<TlsServer>, String> {
        let identity = match &rules.shows {
            Shows::Files(identity) => Some(Arc::clone(identity)),
            Shows::SelfSigned(names) => Some(self.made(names, previous)?),
            Shows::Acme(names) => {
                Some(served.identity(names).ok_or("there is no certificate to begin with")?)
            }
            Shows::Nothing => None,
        };
        let keys = match rules.tickets {
            Some(_) => Some(self.keys(&rules.clients, previous)?),
            None => None,
        };
        let http1 = config(rules, identity.as_ref(), keys).map_err(|error| error.to_string())?;
        let mut http2 = http1.clone();
        http2.alpn_protocols.insert(0, b"h2".to_vec());
        let clients = Arc::clone(&rules.clients);
        Ok(Arc::new(TlsServer { identity, clients, http1: Arc::new(http1), http2: Arc::new(http2) }))
    }

    fn made(&mut self, names: &[String], previous: Option<&Self>) -> Result<Arc<Identity>, String> {
        if let Some(known) = self.made.get(names) {
            return Ok(Arc::clone(known));
        }
        let identity = match previous.and_then(|previous| previous.made.get(names)) {
            Some(known) => Arc::clone(known),
            None => Arc::new(Identity::self_signed(names.to_vec())?),
        };
        self.made.insert(names.to_vec(), Arc::clone(&identity));
        Ok(identity)
    }

    fn keys(&mut self, rules: &Arc<ClientRules>, previous: Option<&Self>) -> Result<Keys, String> {
        let find = |all: &[(Arc<ClientRules>, Keys)]| {
            all.iter().find(|(known, _)| known == rules).map(|(_, keys)| Arc::clone(keys))
        };
        if let Some(known) = find(&self.keys) {
            return Ok(known);
        }
        let keys = match previous.and_then(|previous| find(&previous.keys)) {
            Some(known) => known,
            None => tickets::keys().map_err(|error| error.to_string())?,
        };
        self.keys.push((Arc::clone(rules), Arc::clone(&keys)));
        Ok(keys)
    }
}

/// nginx offers these, too, besides `h2`.
const HTTP1: [&[u8]; 2] = [b"http/1.1", b"http/1.0"];

fn config(
    rules: &TlsRules,
    identity: Option<&Arc<Identity>>,
    keys: Option<Keys>,
) -> Result<ServerConfig, rustls::Error> {
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider()))
        .with_protocol_versions(&rules.versions.supported())?;
    let builder = match rules.clients.ask {
        Ask::Off => builder.with_no_client_auth(),
        _ => builder.with_client_cert_verifier(Arc::new(Lenient(Arc::clone(&rules.clients)))),
    };
    let mut config = match identity {
        Some(identity) => builder.with_cert_resolver(Arc::clone(identity) as Arc<_>),
        None => builder.with_cert_resolver(Arc::new(rustls::server::ResolvesServerCertUsingSni::new())),
    };
    config.alpn_protocols = HTTP1.map(<[u8]>::to_vec).to_vec();
    // Sessions are in the hands of the clients alone: they cost no memory, and outlive a reload.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    match (keys, rules.tickets) {
        (Some(keys), Some(timeout)) => config.ticketer = Arc::new(Tickets { keys, timeout }),
        _ => config.send_tls13_tickets = 0,
    }
    Ok(config)
}
