//! The versions of TLS that are spoken, towards clients and upstreams.

use rustls::SupportedProtocolVersion;
use rustls::version::{TLS12, TLS13};

/// Versions of TLS, at least one. nginx: `ssl_protocols`, `proxy_ssl_protocols`.
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

impl Versions {
    /// As rustls wants them.
    pub fn supported(self) -> Vec<&'static SupportedProtocolVersion> {
        let known = [(self.tls12, &TLS12), (self.tls13, &TLS13)];
        known.into_iter().filter_map(|(is_spoken, version)| is_spoken.then_some(version)).collect()
    }
}
