//! TLS, towards clients and upstreams: connections, certificates, and what a handshake came to.

pub mod stream;
