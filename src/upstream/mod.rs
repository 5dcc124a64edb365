//! Where upstream servers are, how one is chosen, and how it is reached.

pub mod balance;
pub mod choice;
pub mod connect;
pub mod dns;
pub mod group;
pub mod hash;
pub mod http2;
pub mod named;
pub mod pool;
pub mod resolve;
mod rota;
pub mod tls;

use std::fmt;

use crate::config::UpstreamAddress;

impl fmt::Display for UpstreamAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => write!(f, "{address}"),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
            Self::Service(name) => write!(f, "{name}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
