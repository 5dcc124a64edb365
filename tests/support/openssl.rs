//! A client that speaks TLS as OpenSSL does.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::Peer;

/// A client whose bytes go through `openssl s_client`.
pub struct OpenSslPeer {
    pub peer: Peer,
    openssl: Child,
}

impl OpenSslPeer {
    /// Connects, asks for a name, and speaks HTTP/1.1. Whose certificate it is shown is none of its business; its own
    /// is in the files `PATH.pem` and `PATH.key`, if it has one.
    #[track_caller]
    pub fn connect(addr: SocketAddr, name: &str, own: Option<&Path>) -> Self {
        let (near, far) = UnixStream::pair().expect("a pair of sockets");
        let out = far.try_clone().expect("a socket can be cloned");
        let addr = addr.to_string();
        let mut openssl = Command::new("openssl");
        openssl.args(["s_client", "-quiet", "-alpn", "http/1.1", "-connect", &addr, "-servername", name]);
        if let Some(path) = own {
            openssl.arg("-cert").arg(path.with_extension("pem"));
            openssl.arg("-key").arg(path.with_extension("key"));
        }
        openssl.stdin(OwnedFd::from(far)).stdout(OwnedFd::from(out)).stderr(Stdio::null());
        let openssl = openssl.spawn().expect("openssl can be run, as it can wherever nginx is installed");
        Self { peer: Peer::new("client", near), openssl }
    }
}

impl Drop for OpenSslPeer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.openssl.kill();
        let _ = self.openssl.wait();
    }
}
