//! Binds listening addresses, and accepts connections on them.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::time::Instant;

use crate::client::{Client, ClientInfo};
use crate::config::{Config, ListenAddress, Listener};
use crate::http2;
use crate::io::{Peer, Stream};
use crate::server::{connection, handshake, proxied};
use crate::shared::Local;
use crate::state::State;
use crate::systemd::{Passed, PassedSocket};
use crate::takeover::Handed;
use crate::timer::Timer;
use crate::turn::in_turns;

/// How many connections may wait to be accepted; the kernel has a limit of its own.
const BACKLOG: i32 = 4096;

/// What anybody may do with a Unix-domain socket: connect.
const SOCKET_MODE: u32 = 0o666;

/// A listening socket, for one worker.
#[derive(Debug)]
pub struct ListenSocket {
    socket: Socket,
    /// Whether it stays open without us: systemd has it, too.
    is_passed: bool,
}

impl ListenSocket {
    /// The socket itself, which does not block.
    pub(super) fn into_socket(self) -> Socket {
        self.socket
    }
}

/// An address that is listened on, with a socket for each worker.
#[derive(Debug)]
pub struct Bound {
    /// As configured.
    pub address: ListenAddress,
    /// Where that is: the port is known even if port 0 was asked for.
    pub local: ListenAddress,
    /// Of a Unix-domain socket. Before the sockets, so that it goes before them.
    pub file: Option<SocketFile>,
    /// One for each worker, or more: every one of them has a queue that somebody has to accept from.
    pub sockets: Vec<ListenSocket>,
    /// Copies of those that are ours, each once, for a process that takes over.
    pub copies: Vec<Socket>,
}

impl Bound {
    /// With sockets of its own; workers for which there is none share them.
    fn of(
        address: &ListenAddress,
        local: ListenAddress,
        file: Option<SocketFile>,
        mut own: Vec<Socket>,
        workers: usize,
    ) -> io::Result<Self> {
        let copies: Vec<_> = own.iter().map(Socket::try_clone).collect::<io::Result<_>>()?;
        for shared in copies.iter().cycle().take(workers.saturating_sub(own.len())) {
            own.push(shared.try_clone()?);
        }
        let sockets = own.into_iter().map(|socket| ListenSocket { socket, is_passed: false }).collect();
        Ok(Self { address: address.clone(), local, file, sockets, copies })
    }

    /// Lets clients connect. Once all addresses are bound: who has connected by then waits in a queue that is gone
    /// if another address cannot be bound.
    ///
    /// # Errors
    /// The system refuses; the text names the address.
    pub fn listen(&self) -> io::Result<()> {
        self.copies
            .iter()
            .try_for_each(|socket| socket.listen(BACKLOG))
            .map_err(|error| told(&self.address, &error))
    }
}

/// The file of a Unix-domain socket that is listened on. Dropping it removes the file: to be done before
/// the sockets are closed, so that a successor can bind the path while this process still drains.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode. The inode is not given to another file while a socket of ours is open.
    identity: (u64, u64),
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), identity: identity(path)? })
    }

    /// Device and inode.
    pub fn identity(&self) -> (u64, u64) {
        self.identity
    }

    /// Lets the file be: another process has the socket, and removes it when that ends.
    pub fn leave(mut self) {
        self.path.clear();
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Somebody may have removed it and have bound the path since: that file is not ours.
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

/// The addresses of a configuration that need a socket of their own. Linux lets nobody listen on
/// `127.0.0.1:80` beside `0.0.0.0:80`; as in nginx, the socket of the wider address takes the connections
/// to both, and where a connection came to says which one it is for.
pub fn to_bind(listeners: &[Listener]) -> impl Iterator<Item = &ListenAddress> + Clone {
    let addresses = || listeners.iter().map(|listener| &listener.address);
    addresses().filter(move |address| !addresses().any(|wide| covers(wide, address)))
}

/// Whether a socket on `wide` takes the connections to `narrow`.
fn covers(wide: &ListenAddress, narrow: &ListenAddress) -> bool {
    let (ListenAddress::Tcp(wide), ListenAddress::Tcp(narrow)) = (wide, narrow) else { return false };
    // Port 0 is another one each time. IPv6 sockets take no IPv4 connections.
    let same_port = wide.port() == narrow.port() && wide.port() != 0;
    let same_family = wide.is_ipv4() == narrow.is_ipv4();
    same_port && same_family && wide.ip().is_unspecified() && !narrow.ip().is_unspecified()
}

/// Makes sure that no address collides with one that this process listens on already, which the system
/// would call somebody's.
///
/// # Errors
/// It does; the text names both.
pub fn check_apart(address: &ListenAddress, listening: &ListenAddress) -> io::Result<()> {
    if covers(address, listening) || covers(listening, address) {
        return Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            format!(
                "cannot listen on {address} while hopgate itself listens on {listening}; \
                 to change the one for the other takes a restart"
            ),
        ));
    }
    Ok(())
}

/// Binds an address, with a socket for each worker, so that a connection never changes its thread.
///
/// # Errors
/// The address is in use or may not be used; the text names it.
pub fn bind(address: &ListenAddress, workers: usize) -> io::Result<Bound> {
    let bound = match address {
        ListenAddress::Tcp(tcp) => bind_tcp(*tcp, workers),
        ListenAddress::Unix(path) => bind_unix(path, workers),
        // Passed or not there; see `open`.
        ListenAddress::Named(_) => Err(io::ErrorKind::AddrNotAvailable.into()),
    };
    bound.map_err(|error| told(address, &error))
}

fn told(address: &ListenAddress, error: &io::Error) -> io::Error {
    let hint = match (address, error.kind()) {
        (ListenAddress::Tcp(_), io::ErrorKind::AddrInUse) => {
            "; another program listens there, see `ss -ltnp`"
        }
        (ListenAddress::Tcp(_), io::ErrorKind::PermissionDenied) => {
            "; ports below 1024 need the capability CAP_NET_BIND_SERVICE"
        }
        (ListenAddress::Tcp(_), io::ErrorKind::AddrNotAvailable) => {
            "; no interface of this machine has the address"
        }
        (ListenAddress::Unix(_), io::ErrorKind::AddrInUse) => {
            "; another program listens there, see `ss -lxp`"
        }
        _ => "",
    };
    io::Error::new(error.kind(), format!("cannot listen on {address}: {error}{hint}"))
}

/// Takes the sockets on an address from the process that has bound it. Each of them goes on being accepted from, also
/// if there are more of them than workers; for further workers there are further ones.
///
/// # Errors
/// They are no such sockets, or the system has no descriptors to give.
pub fn take_over(address: &ListenAddress, handed: Vec<Handed>, workers: usize) -> io::Result<Bound> {
    let file = handed.iter().find_map(|handed| handed.name.file);
    let mut own: Vec<_> = handed.into_iter().map(|handed| Socket::from(handed.descriptor)).collect();
    match address {
        ListenAddress::Tcp(_) => {
            let local = own.first().ok_or(io::ErrorKind::InvalidInput)?.local_addr()?;
            let local = local.as_socket().ok_or(io::ErrorKind::InvalidInput)?;
            while own.len() < workers {
                match tcp_socket(local, true) {
                    Ok(socket) => own.push(socket),
                    // The new program may lack the right to a port below 1024: its workers share what there is.
                    Err(_) => break,
                }
            }
            Bound::of(address, ListenAddress::Tcp(local), None, own, workers)
        }
        ListenAddress::Unix(path) => {
            let file = file.map(|identity| SocketFile { path: path.clone(), identity });
            Bound::of(address, address.clone(), file, own, workers)
        }
        // Passed by systemd, never bound.
        ListenAddress::Named(_) => Err(io::ErrorKind::InvalidInput.into()),
    }
}

/// Listens on an address: on what systemd has opened for it, or on what `bind` gives.
///
/// # Errors
/// As of `bind`; and a name under which nothing was passed.
pub fn open<'a>(
    address: &'a ListenAddress,
    passed: &Passed,
    listeners: &[Listener],
    workers: usize,
    bind: impl FnOnce(&'a ListenAddress) -> io::Result<Bound>,
) -> io::Result<Vec<Bound>> {
    match passed.sockets_for(address, listeners)?.as_slice() {
        [] => Ok(vec![bind(address)?]),
        sockets => sockets.iter().map(|socket| adopt(socket, address, workers)).collect(),
    }
}

/// Takes a socket that was opened by systemd, with a copy for each worker. They share its queue; the file of a
/// Unix-domain socket is not ours to remove.
fn adopt(passed: &PassedSocket, address: &ListenAddress, workers: usize) -> io::Result<Bound> {
    let copy = |_| Ok(ListenSocket { socket: passed.socket.try_clone()?, is_passed: true });
    let sockets: io::Result<_> = (0..workers).map(copy).collect();
    let (address, local) = (address.clone(), passed.address.clone());
    Ok(Bound { address, local, file: None, sockets: sockets?, copies: Vec::new() })
}

fn bind_tcp(address: SocketAddr, workers: usize) -> io::Result<Bound> {
    // With SO_REUSEPORT a second process would get half of the connections instead of an error; so
    // the first socket is bound without it, to see whether the address is free. A single worker has it, too: a process
    // that takes over may have more of them.
    drop(tcp_socket(address, false)?);
    let first = tcp_socket(address, true)?;
    let local = first.local_addr()?.as_socket().ok_or(io::ErrorKind::InvalidInput)?;
    let mut sockets = vec![first];
    for _ in 1..workers {
        sockets.push(tcp_socket(local, true)?);
    }
    Bound::of(&ListenAddress::Tcp(address), ListenAddress::Tcp(local), None, sockets, workers)
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
    // Without it small answers would wait for the client's delayed ACK. Connections have it of the socket that they come
    // to.
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn bind_unix(path: &Path, workers: usize) -> io::Result<Bound> {
    let address = socket2::SockAddr::unix(path)?;
    let socket = || Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None);
    if std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
        // A socket that was left behind refuses. One that is in use takes the connection, or has no room
        // for it, which a socket that may block would wait for.
        match socket()?.connect(&address) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)?,
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            Ok(()) | Err(_) => return Err(io::ErrorKind::AddrInUse.into()),
        }
    }
    let listener = socket()?;
    listener.bind(&address)?;
    let file = SocketFile::of(path)?;
    // To connect takes the right to write, and clients are seldom of the same user. As in nginx, who may
    // connect is said by the permissions of the directory.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE))?;
    let address = ListenAddress::Unix(path.to_owned());
    Bound::of(&address, address.clone(), Some(file), vec![listener], workers)
}

/// Accepts connections on one socket, each served by a task of its own, until dropped.
pub struct Acceptor {
    socket: Listening,
    is_passed: bool,
    entrance: Arc<Entrance>,
    complained: Cell<Option<Instant>>,
}

/// Where connections come in; for whichever worker serves them.
#[derive(Debug)]
pub struct Entrance {
    address: ListenAddress,
    /// Where all its connections come to; `None`: each has to be asked.
    local: Option<SocketAddr>,
    /// Whether its connections have `TCP_NODELAY` from the beginning.
    has_nodelay: bool,
    /// Of a Unix-domain socket.
    path: Option<Arc<Path>>,
    turned_away: Mutex<Option<Instant>>,
}

/// How often the same is said of what may happen with every connection.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);

/// Whether it is time to say it again; then it counts as said.
fn is_due(last: &mut Option<Instant>) -> bool {
    let is_due = last.is_none_or(|last| last.elapsed() >= COMPLAIN_EVERY);
    if is_due {
        *last = Some(Instant::now());
    }
    is_due
}

/// What becomes of those who wait in a queue when nobody here will accept from it any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// They are accepted: closing the socket would reset their connections.
    Take,
    /// Another process has the socket, too, and accepts them.
    Leave,
}

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
        let ListenSocket { socket, is_passed } = socket;
        let local = socket.local_addr()?;
        let has_nodelay = !local.is_unix() && socket.tcp_nodelay()?;
        let socket = match local.is_unix() {
            false => Listening::Tcp(TcpListener::from_std(socket.into())?),
            true => Listening::Unix(UnixListener::from_std(socket.into())?),
        };
        let path = local.as_pathname().map(Arc::from);
        // A socket of systemd's may be one for connections to other addresses (`Transparent=`).
        let local =
            local.as_socket().filter(|local| !is_passed && !local.ip().is_unspecified()).map(canonical);
        let entrance = Entrance { address, local, has_nodelay, path, turned_away: Mutex::default() };
        Ok(Self { socket, is_passed, entrance: Arc::new(entrance), complained: Cell::new(None) })
    }

    /// Accepts until `stop` says so, and what is to become of those who wait in the queue. That of a socket that systemd
    /// has, too, is left to the next process.
    pub async fn run(self, local: Rc<Local>, stop: impl Future<Output = Rest>) {
        let mut stop = std::pin::pin!(stop);
        let rest = loop {
            tokio::select! {
                biased;
                rest = &mut stop => break rest,
                accepted = self.accept() => self.take(&local, accepted).await,
            }
        };
        if rest == Rest::Take
            && !self.is_passed
            && let Err(error) = self.accept_rest(&local)
        {
            self.complain(&error);
        }
    }

    /// Takes what waits in the queue, and not much more. The kernel is asked, not the runtime, which may not
    /// know yet of what came last, and lets a task do only so much at a time.
    fn accept_rest(&self, local: &Rc<Local>) -> io::Result<()> {
        let socket = match &self.socket {
            Listening::Tcp(listener) => SockRef::from(listener),
            Listening::Unix(listener) => SockRef::from(listener),
        };
        for _ in 0..BACKLOG {
            let (stream, peer) = match socket.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            stream.set_nonblocking(true)?;
            let stream = match &self.socket {
                Listening::Tcp(_) => Stream::tcp(TcpStream::from_std(stream.into())?),
                Listening::Unix(_) => Stream::Unix(UnixStream::from_std(stream.into())?),
            };
            begin(local, &self.entrance, &local.state(), stream, peer.as_socket());
        }
        Ok(())
    }

    fn complain(&self, error: &io::Error) {
        let mut last = self.complained.get();
        if is_due(&mut last) {
            self.complained.set(last);
            let listener = &self.entrance.address;
            tracing::error!(%listener, %error, "cannot accept; is the limit of open files (`ulimit -n`) too low?");
        }
    }

    async fn accept(&self) -> io::Result<(Stream, Option<SocketAddr>)> {
        match &self.socket {
            Listening::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Stream::tcp(stream), Some(peer)))
            }
            Listening::Unix(listener) => Ok((Stream::Unix(listener.accept().await?.0), None)),
        }
    }

    async fn take(&self, local: &Rc<Local>, accepted: io::Result<(Stream, Option<SocketAddr>)>) {
        match accepted {
            Ok((stream, peer)) => {
                if let Some(stream) = local.workers.hand_over(&self.entrance, stream, peer, || local.state())
                {
                    begin(local, &self.entrance, &local.state(), stream, peer);
                }
            }
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

/// Gives a connection its task. The configuration must know the listener.
pub(super) fn begin(
    local: &Rc<Local>,
    entrance: &Entrance,
    state: &Arc<State>,
    stream: Stream,
    peer: Option<SocketAddr>,
) {
    let local_address = match &stream {
        Stream::Tcp { stream, .. } => {
            if !entrance.has_nodelay {
                let _ = stream.set_nodelay(true);
            }
            entrance.local.or_else(|| stream.local_addr().ok().map(canonical))
        }
        Stream::Unix(_) | Stream::Tls(_) | Stream::Http2(_) => None,
    };
    let info = ClientInfo {
        id: local.shared.next_connection.fetch_add(1, Ordering::Relaxed) + 1,
        address: peer.map(canonical),
        proxied: None,
        local: local_address,
        path: entrance.path.clone(),
        listener: meant(&state.config, &entrance.address, local_address).clone(),
        requests: 0,
        tls: None,
        lacks_tls: false,
    };
    let has_header = state.takes_proxy_protocol(&info.listener);
    if has_header && !state.trusts_balancer(&info) {
        return entrance.turn_away(&info);
    }
    // Behind a balancer it is not known yet whose connection it is.
    let ip = if has_header { None } else { info.ip() };
    let (most, most_per_ip) = (state.config.max_connections, state.config.max_connections_per_ip);
    let (permit, refused) = match local.shared.connections.enter(ip, most, most_per_ip) {
        Ok(permit) => (permit, None),
        Err(setting) => match local.shared.connections.refuse() {
            Some(permit) => (permit, Some(setting)),
            // The log has the lines of all those that are being told: it need not hear of each of a flood.
            None => return,
        },
    };
    let client = Box::new(Client {
        peer: Peer::new(stream),
        info,
        timer: Timer::new(),
        task: local.tasks.enter(),
        permit,
        accepted: Instant::now(),
        half_closed: None,
        accepted_under: Arc::clone(state),
    });
    let local = Rc::clone(local);
    if has_header {
        tokio::task::spawn_local(in_turns(proxied::serve(local, client, refused)));
    } else {
        serve(local, client, refused);
    }
}

impl Entrance {
    /// R18: who a client is may be said by listed peers alone.
    fn turn_away(&self, info: &ClientInfo) {
        if is_due(&mut self.turned_away.lock().unwrap_or_else(PoisonError::into_inner)) {
            let client = info.address.map_or_else(|| "unix:".to_owned(), |address| address.ip().to_string());
            tracing::warn!(
                client,
                "turned away: {} takes connections by the PROXY protocol, from `trusted_proxies` alone; if it is a \
                 balancer of yours, list it there",
                info.listener
            );
        }
    }
}

/// Has a connection served in what is spoken on its listener, in a task of its own; one that came when `refused` was
/// reached is told so.
pub(super) fn serve(local: Rc<Local>, client: Box<Client>, refused: Option<&'static str>) {
    let state = Arc::clone(&client.accepted_under);
    match refused {
        refused if state.speaks_tls(&client.info.listener) => {
            connection::spawn(handshake::serve(local, client, refused));
        }
        refused if speaks_http2(&state, &client.info) => {
            connection::spawn(http2::serve_either(local, client, refused));
        }
        refused => connection::spawn(connection::serve_unless(local, client, refused)),
    }
}

/// Whether HTTP/2 is spoken without TLS, too, by whoever begins with its preface.
fn speaks_http2(state: &State, client: &ClientInfo) -> bool {
    state.config.listeners.iter().any(|known| known.address == client.listener && known.http2)
}

/// On a socket for both versions of IP, IPv4 comes in the clothes of IPv6.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Which address of the configuration a connection came to: on the socket of a wide one, that may be a
/// narrower one.
fn meant<'a>(
    config: &'a Config,
    listener: &'a ListenAddress,
    local: Option<SocketAddr>,
) -> &'a ListenAddress {
    let Some(local) = local.map(ListenAddress::Tcp).filter(|local| covers(listener, local)) else {
        return listener;
    };
    config.listeners.iter().map(|known| &known.address).find(|known| **known == local).unwrap_or(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_have_nodelay_of_the_socket_that_they_come_to() {
        let address = ListenAddress::Tcp("127.0.0.1:0".parse().unwrap());
        let mut bound = bind(&address, 1).unwrap();
        bound.listen().unwrap();
        let ListenAddress::Tcp(local) = bound.local else { panic!("{:?}", bound.local) };
        let _client = std::net::TcpStream::connect(local).unwrap();
        let socket = bound.sockets.remove(0).into_socket();
        socket.set_nonblocking(false).unwrap();
        assert!(socket.accept().unwrap().0.tcp_nodelay().unwrap());
    }
}
