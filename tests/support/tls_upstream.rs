//! An upstream that speaks TLS and is played by hand, connection by connection.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;

use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use super::{Authority, DEADLINE, Head, Issued};

/// A listening upstream; what comes in is taken with [`TlsUpstream::accept`].
pub struct TlsUpstream {
    listener: TcpListener,
    config: Arc<ServerConfig>,
}

/// A connection of hopgate's.
pub struct TlsPeer {
    stream: StreamOwned<ServerConnection, TcpStream>,
    pending: Vec<u8>,
}

impl TlsUpstream {
    /// With this certificate.
    pub fn with(issued: &Issued) -> Self {
        Self::listen(server_config(issued, None))
    }

    /// With this certificate, for clients with one of that authority alone.
    pub fn for_clients_of(issued: &Issued, authority: &Authority) -> Self {
        Self::listen(server_config(issued, Some(authority)))
    }

    pub fn listen(config: ServerConfig) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port to listen on");
        Self { listener, config: Arc::new(config) }
    }

    /// `HOST:PORT`
    pub fn addr(&self) -> String {
        self.listener.local_addr().expect("a listener has an address").to_string()
    }

    /// Takes the next connection, up to the end of its handshake; why that has failed, if it has.
    #[track_caller]
    pub fn accept(&self) -> Result<TlsPeer, String> {
        socket2::SockRef::from(&self.listener)
            .set_read_timeout(Some(DEADLINE))
            .expect("a socket takes a timeout");
        self.accept_for_ever()
    }

    /// The same without an end to the waiting, for threads that nobody waits for.
    pub fn accept_for_ever(&self) -> Result<TlsPeer, String> {
        let (mut tcp, _) = self.listener.accept().expect("a connection of hopgate's");
        tcp.set_read_timeout(Some(DEADLINE)).expect("a socket takes a timeout");
        tcp.set_write_timeout(Some(DEADLINE)).expect("a socket takes a timeout");
        let mut tls = ServerConnection::new(Arc::clone(&self.config)).expect("a usable configuration");
        while tls.is_handshaking() {
            tls.complete_io(&mut tcp).map_err(|error| error.to_string())?;
        }
        Ok(TlsPeer { stream: StreamOwned::new(tls, tcp), pending: Vec::new() })
    }
}

fn server_config(issued: &Issued, clients: Option<&Authority>) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_safe_default_protocol_versions().expect("versions that there are");
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(authority.der().clone()).expect("a root");
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.expect("a root to verify with"))
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(issued.pair()));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}

impl TlsPeer {
    /// The name that was told, and the protocol that was agreed upon.
    pub fn told(&self) -> (Option<&str>, Option<&[u8]>) {
        (self.stream.conn.server_name(), self.stream.conn.alpn_protocol())
    }

    /// Takes the head of the next request.
    #[track_caller]
    pub fn head(&mut self) -> Head {
        loop {
            if let Some(at) = self.pending.windows(4).position(|end| end == b"\r\n\r\n") {
                return Head::parse(self.pending.drain(..at + 4).collect());
            }
            let count = self.fill();
            assert!(count > 0, "upstream:\nexpected: a head\n     got: {:?} and the end", self.pending);
        }
    }

    /// Takes the next bytes.
    #[track_caller]
    pub fn read(&mut self, count: usize) -> Vec<u8> {
        while self.pending.len() < count {
            assert!(self.fill() > 0, "upstream: the end instead of {count} bytes");
        }
        self.pending.drain(..count).collect()
    }

    #[track_caller]
    fn fill(&mut self) -> usize {
        let mut buffer = [0; 16 << 10];
        let count = match self.stream.read(&mut buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => 0,
            Err(error) => panic!("upstream could not read: {error}"),
        };
        self.pending.extend_from_slice(&buffer[..count]);
        count
    }

    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("upstream could not send");
        self.stream.flush().expect("upstream could not send");
    }

    /// Answers a request with 200 and this body.
    #[track_caller]
    pub fn respond(&mut self, body: &str) {
        self.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    }

    /// Expects that hopgate has said that nothing more comes, and nothing before it.
    #[track_caller]
    pub fn expect_end(&mut self) {
        let mut buffer = [0; 1024];
        let read = self.stream.read(&mut buffer).expect("a close_notify");
        assert_eq!((read, self.pending.len()), (0, 0), "something before the end");
    }

    /// Says that nothing more comes, and closes.
    #[track_caller]
    pub fn close(mut self) {
        self.stream.conn.send_close_notify();
        self.stream.flush().expect("upstream could not send");
    }

    /// Closes without a word of TLS, as nothing but an attacker or a broken server does.
    pub fn cut(self) {
        self.stream.sock.shutdown(Shutdown::Write).expect("a connected socket can be shut down");
    }
}
