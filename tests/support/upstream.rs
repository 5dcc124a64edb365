//! An upstream that a test plays by hand, connection by connection.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

use super::{DEADLINE, Hopgate, Peer};

/// A listening upstream; what comes in is taken with [`Upstream::accept`].
pub struct Upstream {
    listener: Socket,
    addr: String,
}

impl Upstream {
    pub fn listen() -> Self {
        Self::listen_at("127.0.0.1:0".parse().expect("an address"))
    }

    pub fn listen_at(addr: SocketAddr) -> Self {
        let listener = TcpListener::bind(addr).expect("a port to listen on");
        let addr = listener.local_addr().expect("a listener has an address").to_string();
        Self { listener: listener.into(), addr }
    }

    pub fn listen_unix(path: &Path) -> Self {
        let listener = UnixListener::bind(path).expect("a path to listen on");
        Self { listener: listener.into(), addr: format!("unix:{}", path.display()) }
    }

    /// A port that is taken, but where every connection is refused.
    pub fn refusing() -> Self {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port");
        let addr = listener.local_addr().expect("a bound socket has an address").as_socket();
        Self { listener, addr: addr.expect("an IP address").to_string() }
    }

    /// `HOST:PORT` or `unix:PATH`, as `proxy_pass` wants it behind `http://`.
    pub fn addr(&self) -> &str {
        &self.addr
    }

    /// Takes the next connection of hopgate's.
    #[track_caller]
    pub fn accept(&self) -> Peer {
        // On Linux, SO_RCVTIMEO bounds accept() too.
        self.listener.set_read_timeout(Some(DEADLINE)).expect("a socket takes a timeout");
        let (socket, _) =
            self.listener.accept().unwrap_or_else(|error| panic!("upstream: no connection: {error}"));
        Peer::new("upstream", socket)
    }

    /// Takes the next connection, if hopgate makes one in this time.
    pub fn accept_within(&self, time: Duration) -> Option<Peer> {
        self.listener.set_read_timeout(Some(time)).expect("a socket takes a timeout");
        self.listener.accept().ok().map(|(socket, _)| Peer::new("upstream", socket))
    }

    /// Takes the next connection if hopgate has made one by now.
    pub fn accept_if_any(&self, hopgate: &Hopgate) -> Option<Peer> {
        hopgate.settle();
        self.listener.set_nonblocking(true).expect("a socket can be made non-blocking");
        let accepted = self.listener.accept().ok();
        self.listener.set_nonblocking(false).expect("a socket can be made blocking");
        accepted.map(|(socket, _)| Peer::new("upstream", socket))
    }

    /// Asserts that hopgate has made no further connection.
    #[track_caller]
    pub fn expect_no_connection(&self, hopgate: &Hopgate) {
        if let Some(mut peer) = self.accept_if_any(hopgate) {
            panic!("upstream:\nexpected: no connection\n     got: {}", peer.head());
        }
    }
}

/// An address where connections are neither accepted nor refused, for as long as the result is kept.
pub fn silent_addr() -> (SocketAddr, impl Drop) {
    struct Full {
        _listener: Socket,
        waiting: Vec<TcpStream>,
    }
    impl Drop for Full {
        fn drop(&mut self) {
            self.waiting.clear();
        }
    }

    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port");
    listener.listen(0).expect("a bound socket can listen");
    let addr = listener.local_addr().expect("a listener has an address").as_socket().expect("an IP address");
    let mut full = Full { _listener: listener, waiting: Vec::new() };
    // The kernel drops every SYN once the queue of a listener that never accepts is full.
    while let Ok(stream) = TcpStream::connect_timeout(&addr, Duration::from_millis(200)) {
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("a socket takes SO_LINGER");
        full.waiting.push(stream);
    }
    (addr, full)
}
