//! Where requests are sent: groups of servers, how one of them is chosen, and when another one is tried.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;

use crate::routing::variables::Template;
use crate::upstream::tls::TlsClient;

/// Where a location sends its requests.
#[derive(Clone, Debug)]
pub struct ProxyPass {
    /// The servers.
    pub to: To,
    /// The URI part: it replaces what the location's path matched. `None`: the target is passed on, in
    /// its normal form.
    pub uri: Option<String>,
    /// The host as written in `proxy_pass`, with its port unless that is the scheme's own: `$proxy_host`.
    pub host: String,
    /// `$proxy_port`.
    pub port: u16,
    /// How TLS is spoken; `None`: it is not. Where the URL has variables it is there unless the URL begins with
    /// `http:`, and holds for those that turn out to be `https`.
    pub tls: Option<UpstreamTls>,
}

/// How TLS is spoken with the servers of a [`ProxyPass`].
#[derive(Clone, Debug)]
pub struct UpstreamTls {
    /// All but the name; shared by all locations with the same settings.
    pub client: Arc<TlsClient>,
    /// What the server is called.
    pub name: TlsName,
}

/// The name that a server of an upstream must have in its certificate, and that it is told (SNI). nginx:
/// `proxy_ssl_name`.
#[derive(Clone, Debug)]
pub enum TlsName {
    /// This one.
    Fixed(Arc<ServerName<'static>>),
    /// What the variables make.
    Template(Template),
    /// The host of the URL that the variables of `proxy_pass` make.
    OfUrl,
}

/// The servers of a [`ProxyPass`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum To {
    /// A group: a place in [`Config::upstreams`](super::Config::upstreams).
    Group(usize),
    /// A URL with variables: it names a group, or a single server, for each request, and gives all the
    /// rest of the [`ProxyPass`] too.
    Url(Template),
}

/// A group of servers that can answer the same requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// The name of the group, or `host:port` of a single address.
    pub name: String,
    /// At least one that is no backup.
    pub servers: Vec<UpstreamServer>,
    /// How one is chosen.
    pub balance: Balance,
    /// Which idle connections are kept.
    pub keepalive: KeepAlive,
}

/// Which connections to the servers of a group are kept for further requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    /// Idle connections for each worker and server; 0: none. nginx: `keepalive`.
    pub connections: usize,
    /// How long one may be idle. nginx: `keepalive_timeout` of an `upstream`.
    pub timeout: Duration,
    /// The most requests on one. nginx: `keepalive_requests` of an `upstream`.
    pub requests: u64,
    /// How old one may become. nginx: `keepalive_time` of an `upstream`.
    pub time: Duration,
}

impl Default for KeepAlive {
    /// nginx's values, but that it keeps no connections unless it is told to.
    fn default() -> Self {
        Self {
            connections: 32,
            timeout: Duration::from_secs(60),
            requests: 1000,
            time: Duration::from_secs(3600),
        }
    }
}

/// The version of HTTP that upstreams are spoken to in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamVersion {
    /// HTTP/1.1, the default.
    Http11,
    /// HTTP/2: by prior knowledge to `http://`, by ALPN to `https://`.
    Http2,
}

/// One server of a group. nginx: `server` of an `upstream`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamServer {
    /// The address as it is written: a consistent hash is one of this text.
    pub name: String,
    /// Where it is.
    pub address: UpstreamAddress,
    /// Its share of the requests, at least 1.
    pub weight: u32,
    /// After how many failures it is left alone for a while; `None`: after none.
    pub max_fails: Option<NonZeroU32>,
    /// For how long; and within which time the failures must come.
    pub fail_timeout: Duration,
    /// The most requests and tunnels at a time, over all workers; `None`: no limit.
    pub max_conns: Option<usize>,
    /// Whether it is used only while none of the others can be.
    pub is_backup: bool,
    /// Whether it is never used. It goes on having its part in a hash.
    pub is_down: bool,
}

impl UpstreamServer {
    /// A server with the default of everything.
    pub fn new(name: String, address: UpstreamAddress) -> Self {
        Self {
            name,
            address,
            weight: 1,
            max_fails: Some(NonZeroU32::MIN),
            fail_timeout: Duration::from_secs(10),
            max_conns: None,
            is_backup: false,
            is_down: false,
        }
    }
}

/// Where an upstream server is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum UpstreamAddress {
    /// An address.
    Ip(SocketAddr),
    /// A name that is looked up when it is needed.
    Name {
        /// The host name.
        host: String,
        /// The port.
        port: u16,
    },
    /// A Unix-domain socket.
    Unix(PathBuf),
}

/// How a server of a group is chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Balance {
    /// nginx's smooth weighted round robin.
    RoundRobin,
    /// The server with the least requests and tunnels for its weight.
    LeastConn,
    /// By the client's address: an IPv4 one without its last byte.
    IpHash,
    /// By the value of a key.
    Hash {
        /// The key.
        key: Template,
        /// Whether most keys keep their server when another one comes or goes (ketama).
        is_consistent: bool,
    },
    /// By the value of a key, alike on every machine, however the servers are ordered: of all servers it is the one
    /// with the highest score for the key.
    Rendezvous {
        /// The key.
        key: Template,
    },
    /// Any, by weight.
    Random,
    /// The one of two such with the least requests and tunnels for its weight.
    RandomTwo,
}

impl Balance {
    /// Whether servers may be `backup`, as in nginx; in which there is no `rendezvous`.
    pub fn knows_backups(&self) -> bool {
        matches!(self, Self::RoundRobin | Self::LeastConn | Self::Rendezvous { .. })
    }
}

/// When a request that one server of a group has failed is given to another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextUpstream {
    /// After which failures. nginx: `proxy_next_upstream`.
    pub cases: NextCases,
    /// The most servers that are tried; `None`: all. nginx: `proxy_next_upstream_tries`.
    pub tries: Option<usize>,
    /// How long after the first was chosen another one may be; `None`: at any time.
    /// nginx: `proxy_next_upstream_timeout`.
    pub timeout: Option<Duration>,
}

/// A way for a server to fail, or what else `proxy_next_upstream` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextCase {
    /// It cannot be connected to, or closes the connection before it has answered.
    Error,
    /// It takes too long for the connection, to take the request, or to answer.
    Timeout,
    /// What it answers is no HTTP.
    InvalidHeader,
    /// It answers with this status.
    Status(u16),
    /// Not a failure: requests that do more if they are sent twice are sent again, too.
    NonIdempotent,
}

/// The cases by their names.
pub const NEXT_CASES: [(&str, NextCase); 11] = [
    ("error", NextCase::Error),
    ("timeout", NextCase::Timeout),
    ("invalid_header", NextCase::InvalidHeader),
    ("http_500", NextCase::Status(500)),
    ("http_502", NextCase::Status(502)),
    ("http_503", NextCase::Status(503)),
    ("http_504", NextCase::Status(504)),
    ("http_403", NextCase::Status(403)),
    ("http_404", NextCase::Status(404)),
    ("http_429", NextCase::Status(429)),
    ("non_idempotent", NextCase::NonIdempotent),
];

/// A set of [`NextCase`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NextCases(u16);

impl NextCases {
    /// Whether the case is among them. A status without a name never is.
    pub fn contains(self, case: NextCase) -> bool {
        self.0 & bit(case) != 0
    }
}

impl FromIterator<NextCase> for NextCases {
    fn from_iter<T: IntoIterator<Item = NextCase>>(cases: T) -> Self {
        Self(cases.into_iter().map(bit).fold(0, |all, bit| all | bit))
    }
}

fn bit(case: NextCase) -> u16 {
    NEXT_CASES.iter().position(|(_, known)| *known == case).map_or(0, |place| 1 << place)
}

impl Default for NextUpstream {
    fn default() -> Self {
        Self { cases: [NextCase::Error, NextCase::Timeout].into_iter().collect(), tries: None, timeout: None }
    }
}
