//! Binds listening addresses, and accepts connections on them.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UnixListener};
use tokio::time::Instant;

use crate::client::{Client, ClientInfo};
use crate::config::ListenAddress;
use crate::error::ProxyError;
use crate::io::{Peer, Stream};
use crate::proxy;
use crate::server::connection;
use crate::shared::Local;
use crate::timer::Timer;

/// How many connections may wait to be accepted; the kernel has a limit of its own.
const BACKLOG: i32 = 4096;

/// A listening socket, for one worker.
#[derive(Debug)]
pub enum ListenSocket {
    /// Over TCP.
    Tcp(std::net::TcpListener),
    /// A Unix-domain socket.
    Unix(std::os::unix::net::UnixListener),
}

/// An address that is listened on, with a socket for each worker.
#[derive(Debug)]
pub struct Bound {
    /// As configured.
    pub address: ListenAddress,
    /// Where that is: the port is known even if port 0 was asked for.
    pub local: ListenAddress,
    /// One for each worker.
    pub sockets: Vec<ListenSocket>,
}

/// Binds an address, with a socket for each worker, so that a connection never changes its thread.
///
/// # Errors
/// The address is in use or may not be used; the text names it.
pub fn bind(address: &ListenAddress, workers: usize) -> io::Result<Bound> {
    let bound = match address {
        ListenAddress::Tcp(tcp) => bind_tcp(*tcp, workers),
        ListenAddress::Unix(path) => bind_unix(path, workers),
    };
    let (local, sockets) = bound.map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => "; another program listens there, see `ss -ltnp`",
            io::ErrorKind::PermissionDenied => "; ports below 1024 need the capability CAP_NET_BIND_SERVICE",
            io::ErrorKind::AddrNotAvailable => "; no interface of this machine has the address",
            _ => "",
        };
        io::Error::new(error.kind(), format!("cannot listen on {address}: {error}{hint}"))
    })?;
    Ok(Bound { address: address.clone(), local, sockets })
}

fn bind_tcp(address: SocketAddr, workers: usize) -> io::Result<(ListenAddress, Vec<ListenSocket>)> {
    // With SO_REUSEPORT a second process would get half of the connections instead of an error; so
    // the first socket is bound without it, to see whether the address is free.
    drop(tcp_socket(address, false)?);
    let first = tcp_socket(address, workers > 1)?;
    let local = first.local_addr()?.as_socket().ok_or(io::ErrorKind::InvalidInput)?;
    let mut sockets = vec![first];
    for _ in 1..workers {
        sockets.push(tcp_socket(local, true)?);
    }
    for socket in &sockets {
        socket.listen(BACKLOG)?;
    }
    let sockets = sockets.into_iter().map(|socket| ListenSocket::Tcp(socket.into())).collect();
    Ok((ListenAddress::Tcp(local), sockets))
}

fn tcp_socket(address: SocketAddr, reuse_port: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart does not wait for the connections of the process before to leave TIME_WAIT.
    socket.set_reuse_address(true)?;
    if reuse_port {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        // nginx: `[::]:80` does not take the IPv4 connections of `0.0.0.0:80`.
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn bind_unix(path: &Path, workers: usize) -> io::Result<(ListenAddress, Vec<ListenSocket>)> {
    if std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
        // A socket that somebody answers on is in use; one that nobody does was left behind.
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        std::fs::remove_file(path)?;
    }
    let listener = std::os::unix::net::UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    let copies: io::Result<Vec<_>> =
        (1..workers).map(|_| listener.try_clone().map(ListenSocket::Unix)).collect();
    let mut sockets = copies?;
    sockets.push(ListenSocket::Unix(listener));
    Ok((ListenAddress::Unix(path.to_owned()), sockets))
}

/// Accepts connections on one socket, each served by a task of its own, until dropped.
pub struct Acceptor {
    socket: Listening,
    address: ListenAddress,
    complained: Cell<Option<Instant>>,
}

/// How often it is said that nothing can be accepted.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);

enum Listening {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Acceptor {
    /// Of a worker's runtime.
    ///
    /// # Errors
    /// The runtime cannot watch the socket.
    pub fn new(socket: ListenSocket, address: ListenAddress) -> io::Result<Self> {
        let socket = match socket {
            ListenSocket::Tcp(listener) => Listening::Tcp(TcpListener::from_std(listener)?),
            ListenSocket::Unix(listener) => Listening::Unix(UnixListener::from_std(listener)?),
        };
        Ok(Self { socket, address, complained: Cell::new(None) })
    }

    /// Accepts until `stop` says so; then what waits in the queue is still taken, because closing the
    /// socket would reset it.
    pub async fn run(self, local: Rc<Local>, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        loop {
            tokio::select! {
                biased;
                () = &mut stop => break,
                accepted = self.accept() => self.take(&local, accepted).await,
            }
        }
        while let Some(accepted) = poll_once(self.accept()).await {
            if accepted.is_err() {
                break;
            }
            self.take(&local, accepted).await;
        }
    }

    fn complain(&self, error: &io::Error) {
        if self.complained.get().is_none_or(|last| last.elapsed() >= COMPLAIN_EVERY) {
            self.complained.set(Some(Instant::now()));
            let listener = &self.address;
            tracing::error!(%listener, %error, "cannot accept; is the limit of open files (`ulimit -n`) too low?");
        }
    }

    async fn accept(&self) -> io::Result<(Stream, Option<SocketAddr>)> {
        match &self.socket {
            Listening::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Stream::Tcp(stream), Some(peer)))
            }
            Listening::Unix(listener) => Ok((Stream::Unix(listener.accept().await?.0), None)),
        }
    }

    async fn take(&self, local: &Rc<Local>, accepted: io::Result<(Stream, Option<SocketAddr>)>) {
        match accepted {
            Ok((stream, peer)) => begin(local, stream, peer, &self.address),
            // The client was gone before it was accepted.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                self.complain(&error);
                // The connection is still in the queue: without a pause this would be a busy loop.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// The result of a future if it is there already.
async fn poll_once<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|cx| {
        std::task::Poll::Ready(match future.as_mut().poll(cx) {
            std::task::Poll::Ready(value) => Some(value),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

fn begin(local: &Rc<Local>, stream: Stream, peer: Option<SocketAddr>, listener: &ListenAddress) {
    let local_address = match &stream {
        Stream::Tcp(tcp) => {
            // Without it small answers would wait for the client's delayed ACK.
            let _ = tcp.set_nodelay(true);
            tcp.local_addr().ok()
        }
        Stream::Unix(_) => None,
    };
    let state = local.state();
    let info = ClientInfo {
        id: local.shared.next_connection.fetch_add(1, Ordering::Relaxed) + 1,
        address: peer.map(|peer| SocketAddr::new(peer.ip().to_canonical(), peer.port())),
        local: local_address,
        listener: listener.clone(),
        requests: 0,
    };
    let (most, most_per_ip) = (state.config.max_connections, state.config.max_connections_per_ip);
    let (permit, refused) = match local.shared.connections.enter(info.ip(), most, most_per_ip) {
        Ok(permit) => (permit, None),
        Err(setting) => match local.shared.connections.refuse() {
            Some(permit) => (permit, Some(setting)),
            // The log has the lines of all those that are being told: it need not hear of each of a flood.
            None => return,
        },
    };
    let client = Client {
        peer: Peer::new(stream),
        info,
        timer: Timer::new(),
        task: local.tasks.enter(),
        permit,
        half_closed: false,
        accepted_under: Arc::clone(&state),
    };
    let local = Rc::clone(local);
    match refused {
        None => tokio::task::spawn_local(connection::serve(local, client)),
        Some(setting) => tokio::task::spawn_local(async move {
            let started = Instant::now();
            proxy::refuse(&local, client, ProxyError::TooManyConnections(setting), started).await;
        }),
    };
}
