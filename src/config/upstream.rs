//! Where requests are sent: groups of servers, and how one of them is chosen.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Where a location sends its requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyPass {
    /// A place in [`Config::upstreams`].
    pub upstream: usize,
    /// The URI part: it replaces what the location's path matched. `None`: the target is passed on, in
    /// its normal form.
    pub uri: Option<String>,
    /// The host as written in `proxy_pass`, with its port if one is written: `$proxy_host`.
    pub host: String,
    /// `$proxy_port`.
    pub port: u16,
}

/// A group of servers that can answer the same requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// The name of the group, or `host:port` of a single address.
    pub name: String,
    /// At least one.
    pub servers: Vec<UpstreamServer>,
    /// How one is chosen.
    pub balance: Balance,
    /// Idle connections kept for each worker and server; 0: none. nginx: `keepalive`.
    pub keepalive: usize,
    /// How long an idle connection is kept. nginx: `keepalive_timeout` of an `upstream`.
    pub keepalive_timeout: Duration,
}

/// One server of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamServer {
    /// Where it is.
    pub address: UpstreamAddress,
    /// Its share of the requests, at least 1.
    pub weight: u32,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// nginx's smooth weighted round robin.
    RoundRobin,
    /// The server with the least requests and tunnels for its weight.
    LeastConn,
}
