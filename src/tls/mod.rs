//! TLS, towards clients and upstreams: connections, certificates, and what a handshake came to.

pub mod certificate;
pub mod clients;
pub mod hello;
pub mod identity;
pub mod pem;
pub mod server;
pub mod session;
pub mod stream;
pub mod tickets;
pub mod variables;
pub mod version1;
pub mod watch;

use std::sync::{Arc, LazyLock};

use rustls::crypto::CryptoProvider;

/// What encrypts and signs; docs/performance.md says why this one.
pub fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    &PROVIDER
}
