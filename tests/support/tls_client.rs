//! A client that speaks TLS: what was agreed upon is known, and what goes over it is told as on any other connection.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::ops::{Deref, DerefMut};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion, RootCertStore, SupportedProtocolVersion,
};

use super::{Authority, DEADLINE, Issued, Peer, eventually};

/// What a client offers and believes. Connections of the same one resume each other's sessions.
pub struct TlsClient {
    config: ClientConfig,
    name: String,
}

/// A connection of it, behind its handshake.
pub struct TlsConnection {
    peer: Peer,
    /// What was agreed upon.
    pub agreed: Agreed,
    tcp: TcpStream,
    ending: Arc<Mutex<Option<TlsEnding>>>,
}

/// What a handshake came to.
#[derive(Clone, Debug)]
pub struct Agreed {
    pub version: ProtocolVersion,
    pub alpn: Option<String>,
    pub is_resumed: bool,
    pub certificate: CertificateDer<'static>,
}

/// How the server ended what it sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsEnding {
    /// It has said so.
    CloseNotify,
    /// Without a word of TLS.
    Cut,
    /// With an alert, or what is no TLS.
    Failed(String),
}

impl TlsClient {
    /// Believes this authority, and asks for the server of this name.
    pub fn of(authority: &Authority, name: &str) -> Self {
        Self::with(authority, name, rustls::ALL_VERSIONS, None)
    }

    /// Speaks this version alone.
    pub fn speaking(authority: &Authority, name: &str, version: &'static SupportedProtocolVersion) -> Self {
        Self::with(authority, name, &[version], None)
    }

    /// Shows a certificate.
    pub fn showing(authority: &Authority, name: &str, own: &Issued) -> Self {
        Self::with(authority, name, rustls::ALL_VERSIONS, Some(own))
    }

    pub fn with(
        authority: &Authority,
        name: &str,
        versions: &[&'static SupportedProtocolVersion],
        own: Option<&Issued>,
    ) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(authority.der().clone()).expect("a root");
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions);
        let builder = builder.expect("versions that there are").with_root_certificates(roots);
        let config = match own {
            None => builder.with_no_client_auth(),
            Some(own) => builder.with_client_cert_resolver(Arc::new(own.pair())),
        };
        Self { config, name: name.to_owned() }
    }

    /// Offers these protocols.
    pub fn offering(mut self, protocols: &[&str]) -> Self {
        self.config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        self
    }

    /// Believes this name, but does not tell it.
    pub fn silent(mut self) -> Self {
        self.config.enable_sni = false;
        self
    }

    /// The same client, that asks for the server of another name with the sessions that it has.
    pub fn asking_for(&self, name: &str) -> Self {
        Self { config: self.config.clone(), name: name.to_owned() }
    }

    /// Goes through the handshake.
    #[track_caller]
    pub fn open(&self, addr: SocketAddr) -> TlsConnection {
        self.try_open(addr).unwrap_or_else(|error| panic!("client: no handshake with {}: {error}", self.name))
    }

    /// Goes through the handshake; why it has failed, if it has.
    #[track_caller]
    pub fn try_open(&self, addr: SocketAddr) -> Result<TlsConnection, String> {
        let mut tcp = TcpStream::connect_timeout(&addr, DEADLINE).expect("hopgate listens");
        tcp.set_nodelay(true).expect("a TCP socket takes TCP_NODELAY");
        tcp.set_read_timeout(Some(DEADLINE)).expect("a socket takes a timeout");
        let name = ServerName::try_from(self.name.clone()).expect("a name");
        let mut tls =
            ClientConnection::new(Arc::new(self.config.clone()), name).expect("a usable configuration");
        while tls.is_handshaking() || tls.wants_write() {
            tls.complete_io(&mut tcp).map_err(|error| error.to_string())?;
        }
        tcp.set_read_timeout(None).expect("a socket takes no timeout");
        let agreed = Agreed {
            version: tls.protocol_version().expect("a version"),
            alpn: tls.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned()),
            is_resumed: tls.handshake_kind() == Some(HandshakeKind::Resumed),
            certificate: tls.peer_certificates().expect("a certificate")[0].clone(),
        };
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        let ending = Arc::default();
        carry(tls, &tcp, &theirs, Arc::clone(&ending));
        Ok(TlsConnection { peer: Peer::new("client", ours), agreed, tcp, ending })
    }
}

impl TlsConnection {
    /// Leaves without a word of TLS, in both directions.
    #[track_caller]
    pub fn cut(self) {
        self.tcp.shutdown(Shutdown::Both).expect("a connected socket can be shut down");
    }

    /// How the server has ended it; to be asked when it has.
    #[track_caller]
    pub fn ending(&self) -> TlsEnding {
        self.watch().wait()
    }

    /// Tells how the server has ended it, whoever has the connection by then.
    pub fn watch(&self) -> Watched {
        Watched(Arc::clone(&self.ending))
    }

    /// Expects the server's close_notify next.
    #[track_caller]
    pub fn expect_close_notify(&mut self) {
        self.peer.expect_eof();
        assert_eq!(self.ending(), TlsEnding::CloseNotify);
    }

    /// What goes over it, for those who take a socket. What they cannot hear of is how it ends.
    pub fn into_socket(self) -> UnixStream {
        self.peer.into_socket().into()
    }
}

/// A connection whose end is waited for.
pub struct Watched(Arc<Mutex<Option<TlsEnding>>>);

impl Watched {
    /// How the server has ended it, once it has.
    #[track_caller]
    pub fn wait(&self) -> TlsEnding {
        eventually("the server has ended the connection", || self.0.lock().unwrap().is_some());
        self.0.lock().unwrap().clone().expect("an end")
    }
}

impl Deref for TlsConnection {
    type Target = Peer;

    fn deref(&self) -> &Peer {
        &self.peer
    }
}

impl DerefMut for TlsConnection {
    fn deref_mut(&mut self) -> &mut Peer {
        &mut self.peer
    }
}

/// Both directions: what is encrypted goes out in the order in which it was, so the socket comes before the session.
type Session = Arc<(Mutex<TcpStream>, Mutex<ClientConnection>)>;

/// Carries both directions between the session and the pair, on two threads that end with the connection.
fn carry(tls: ClientConnection, tcp: &TcpStream, pair: &UnixStream, ending: Arc<Mutex<Option<TlsEnding>>>) {
    let tcp = || tcp.try_clone().expect("a socket can be cloned");
    let pair = || pair.try_clone().expect("a socket can be cloned");
    let session: Session = Arc::new((Mutex::new(tcp()), Mutex::new(tls)));
    let (theirs, (mut from_tcp, mut to_pair)) = (Arc::clone(&session), (tcp(), pair()));
    thread::spawn(move || {
        let end = receive(&theirs, &mut from_tcp, &mut to_pair);
        *ending.lock().unwrap() = Some(end);
        // The test may have let go of it.
        let _ = to_pair.shutdown(Shutdown::Write);
    });
    let mut from_pair = pair();
    thread::spawn(move || {
        let mut buffer = [0; 64 << 10];
        loop {
            let count = from_pair.read(&mut buffer).unwrap_or(0);
            let sent = send(&session, |tls| match count {
                0 => tls.send_close_notify(),
                _ => tls.writer().write_all(&buffer[..count]).expect("room in the session"),
            });
            if count == 0 || sent.is_err() {
                // It may be over.
                let _ = session.0.lock().unwrap().shutdown(Shutdown::Write);
                let _ = from_pair.shutdown(Shutdown::Read);
                return;
            }
        }
    });
}

fn send(session: &Session, encrypt: impl FnOnce(&mut ClientConnection)) -> io::Result<()> {
    let mut tcp = session.0.lock().unwrap();
    let mut out = Vec::new();
    {
        let mut tls = session.1.lock().unwrap();
        encrypt(&mut tls);
        while tls.wants_write() {
            tls.write_tls(&mut out)?;
        }
    }
    tcp.write_all(&out)
}

fn receive(session: &Session, tcp: &mut TcpStream, pair: &mut UnixStream) -> TlsEnding {
    let mut buffer = vec![0; 64 << 10];
    // What came with the handshake first.
    let mut count = 0;
    loop {
        let mut rest = &buffer[..count];
        let mut plain = Vec::new();
        let end = {
            let mut tls = session.1.lock().unwrap();
            loop {
                let taken = if rest.is_empty() { Ok(0) } else { tls.read_tls(&mut rest) };
                if let Err(error) = taken.and_then(|_| {
                    tls.process_new_packets().map_err(|error| io::Error::new(ErrorKind::InvalidData, error))
                }) {
                    break Some(TlsEnding::Failed(error.to_string()));
                }
                match tls.reader().read_to_end(&mut plain) {
                    Ok(_) => break Some(TlsEnding::CloseNotify),
                    Err(error) if error.kind() == ErrorKind::WouldBlock && rest.is_empty() => break None,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => break Some(TlsEnding::Failed(error.to_string())),
                }
            }
        };
        // The test may have let go of it; what the session answers goes out even so.
        let _ = pair.write_all(&plain);
        let _ = send(session, |_| {});
        if let Some(end) = end {
            return end;
        }
        count = match tcp.read(&mut buffer) {
            Ok(0) => return TlsEnding::Cut,
            Ok(count) => count,
            Err(error) => return TlsEnding::Failed(error.to_string()),
        };
    }
}

/// Runs a program that is a client, with this on its stdin; what it says, stdout and stderr, and whether it is content.
#[track_caller]
pub fn run_client(program: &str, args: &[&str], input: &str) -> (bool, String) {
    let mut child = Command::new("timeout")
        .args(["--kill-after=2", "20", program])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("timeout, of coreutils, can be run");
    // It may have ended without reading.
    let _ = child.stdin.take().expect("stdin is piped").write_all(input.as_bytes());
    let output = child.wait_with_output().expect("a child can be waited for");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}
