//! Connections to upstream servers in HTTP/2, each shared by many requests of the same worker.

mod opening;
mod wire;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::time::Instant;

use crate::config::{KeepAlive, UpstreamAddress};
use crate::http2::{ClientStream, Http2Stream};
use crate::io::Stream;
use crate::proxy_protocol::Outgoing;
use crate::shared::Local;
use crate::upstream::connect::ConnectError;
use crate::upstream::pool::Uses;
use crate::upstream::resolve::Resolver;
use crate::upstream::tls::Secured;
use opening::Opening;
use wire::Wire;

/// The most streams on one connection, whatever the upstream allows for.
const MAX_STREAMS: usize = 256;
/// A stream that ends unanswered, on a connection where nothing was heard for so long, tells that it may be dead.
const SILENCE: Duration = Duration::from_secs(1);

/// The connections of one worker. Those that may have no further stream are not among them: they end with their
/// last one.
#[derive(Debug, Default)]
pub struct Http2Pool {
    servers: HashMap<Key, Server>,
}

/// Requests with the same key can share a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Where the server is.
    pub address: UpstreamAddress,
    /// How connections to it are secured.
    pub secured: Option<Secured>,
    /// Whose connections they are, as the server is told.
    pub header: Option<Outgoing>,
}

#[derive(Debug, Default)]
struct Server {
    connections: Vec<Rc<Connection>>,
    /// One at a time: what waits for it may find room on it.
    opening: Option<Rc<Opening>>,
}

/// A connection that was opened.
#[derive(Debug)]
struct Connection {
    requests: SendRequest<Bytes>,
    secured: Option<Secured>,
    header: Option<Outgoing>,
    /// Where it goes to, if the server is a name.
    address: Option<SocketAddr>,
    since: Instant,
    /// The streams at this moment.
    streams: Cell<usize>,
    /// The requests so far.
    uses: Cell<u64>,
    /// Until when it is kept without a stream.
    until: Cell<Instant>,
    /// Whether it may have no further stream.
    is_retired: Cell<bool>,
    wire: Rc<RefCell<Wire>>,
}

/// A stream that is wanted.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// To which server, and how.
    pub key: Key,
    /// Those of its group.
    pub rules: &'a KeepAlive,
    /// For a connection to be opened.
    pub timeout: Duration,
    /// Whether it is to become a tunnel.
    pub is_tunnel: bool,
    /// Whether a new connection is wanted.
    pub is_fresh: bool,
}

/// Why there is no stream.
#[derive(Debug)]
pub enum OpenError {
    /// There is no connection.
    Connect(ConnectError),
    /// The server did not take the connection in time.
    Timeout,
    /// TLS was not agreed upon in time.
    TlsTimeout,
    /// The server does not speak HTTP/2: what tells so.
    NotHttp2(String),
    /// The server takes no extended CONNECT (RFC 8441 §3).
    NoTunnel,
}

/// A stream's part of a connection.
#[derive(Debug)]
pub struct Slot {
    connection: Rc<Connection>,
    /// How long the connection is kept without streams.
    timeout: Duration,
    /// When the request was sent; `None` before, and once the answer has begun.
    asked: Option<Instant>,
}

impl Wanted<'_> {
    /// Opens the stream: on a connection that is there, or on a new one.
    ///
    /// # Errors
    /// There is none, and none can be opened; or it takes no tunnels. Nothing of a request was sent.
    pub async fn open(&self, local: &Rc<Local>) -> Result<(Stream, Box<Uses>), OpenError> {
        let known = if self.is_fresh { None } else { local.http2.borrow_mut().take(&self.key) };
        let connection = match known {
            Some(connection) => connection,
            None => self.wait(local).await?,
        };
        if self.is_tunnel && !connection.requests.is_extended_connect_protocol_enabled() {
            return Err(OpenError::NoTunnel);
        }
        Ok(connection.stream(self.rules))
    }

    /// Waits for a new connection with room.
    async fn wait(&self, local: &Rc<Local>) -> Result<Rc<Connection>, OpenError> {
        local.http2.borrow_mut().make_room(&self.key, self.rules.connections);
        loop {
            let begin = || opening::begin(local, &self.key, self.timeout);
            let opening = local.http2.borrow_mut().opening(&self.key, begin);
            let connection = opening.done().await?;
            // Of those who have waited for it, the last ones may not find room on it.
            if connection.has_room() {
                return Ok(connection);
            }
            if let Some(connection) = local.http2.borrow_mut().take(&self.key) {
                return Ok(connection);
            }
        }
    }
}

impl Http2Pool {
    /// The first connection with room for a stream: so the others become idle, and end.
    fn take(&mut self, key: &Key) -> Option<Rc<Connection>> {
        let server = self.servers.get_mut(key)?;
        server.connections.retain(|connection| !connection.is_over());
        server.connections.iter().find(|connection| connection.has_room()).cloned()
    }

    fn opening(&mut self, key: &Key, begin: impl FnOnce() -> Rc<Opening>) -> Rc<Opening> {
        let server = self.servers.entry(key.clone()).or_default();
        Rc::clone(server.opening.get_or_insert_with(begin))
    }

    /// Of a server that is told whose connection it is, every client leaves one behind, which nobody else can use: the
    /// oldest idle ones end, as in HTTP/1.1, so that there are no more than `most` with the one to be opened.
    fn make_room(&mut self, key: &Key, most: usize) {
        if key.header.is_none() {
            return;
        }
        let is_idle = |connection: &Rc<Connection>| connection.streams.get() == 0 && !connection.is_over();
        let of_clients = |known: &Key| known.address == key.address && known.header.is_some();
        let servers = self.servers.iter().filter(|(known, _)| of_clients(known));
        let idle =
            servers.flat_map(|(_, server)| &server.connections).filter(|connection| is_idle(connection));
        let mut until: Vec<Instant> = idle.map(|connection| connection.until.get()).collect();
        until.sort_unstable();
        let excess = (until.len() + 1).saturating_sub(most).min(until.len());
        let Some(last) = excess.checked_sub(1).map(|place| until[place]) else { return };
        for (_, server) in self.servers.iter_mut().filter(|(known, _)| of_clients(known)) {
            server.connections.retain(|connection| !is_idle(connection) || connection.until.get() > last);
        }
        self.servers.retain(|_, server| !server.connections.is_empty() || server.opening.is_some());
    }

    /// Takes over what has become of an opening.
    fn opened(&mut self, key: &Key, connection: Option<&Rc<Connection>>) {
        // In a drain nothing is kept.
        let Some(server) = self.servers.get_mut(key) else { return };
        server.opening = None;
        server.connections.extend(connection.cloned());
    }

    /// Closes what has been idle for too long, and lets what goes to an address that its name no longer has end with
    /// its last stream; says whether anything is left.
    pub fn sweep(&mut self, resolver: &Resolver) -> bool {
        let now = Instant::now();
        self.servers.retain(|key, server| {
            let is_kept = |connection: &Rc<Connection>| {
                let address = match &key.address {
                    UpstreamAddress::Ip(address) => Some(*address),
                    _ => connection.address,
                };
                if address.is_some_and(|address| resolver.has_left(address, connection.since)) {
                    connection.is_retired.set(true);
                }
                !connection.is_over() && (connection.streams.get() > 0 || connection.until.get() > now)
            };
            server.connections.retain(is_kept);
            !server.connections.is_empty() || server.opening.is_some()
        });
        !self.servers.is_empty()
    }

    /// Lets every connection end with its last stream.
    pub fn clear(&mut self) {
        self.servers.clear();
    }
}

impl Connection {
    /// Whether it may have no further stream: retired, closed, or told so by a GOAWAY.
    fn is_over(&self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        self.is_retired.get() || matches!(self.requests.clone().poll_ready(&mut context), Poll::Ready(Err(_)))
    }

    /// Whether the upstream allows for another stream. The first one may always wait for it.
    fn has_room(&self) -> bool {
        let most = self.requests.current_max_send_streams().clamp(1, MAX_STREAMS);
        self.streams.get() < most && !self.is_over()
    }

    /// A stream on it, counted.
    fn stream(self: Rc<Self>, rules: &KeepAlive) -> (Stream, Box<Uses>) {
        self.streams.set(self.streams.get() + 1);
        let requests = self.uses.get() + 1;
        self.uses.set(requests);
        let is_used_up = requests >= rules.requests || self.since.elapsed() > rules.time;
        // nginx: without `keepalive` each request has a connection of its own.
        if is_used_up || rules.connections == 0 {
            self.is_retired.set(true);
        }
        let (secured, header) = (self.secured.clone(), self.header);
        let uses = Box::new(Uses { since: self.since, requests, address: self.address, secured, header });
        let requests = self.requests.clone();
        let slot = Slot { connection: self, timeout: rules.timeout, asked: None };
        (Stream::Http2(Box::new(Http2Stream::Client(ClientStream::new(requests, slot)))), uses)
    }
}

impl Slot {
    /// Whether the connection is one of TLS.
    pub fn is_tls(&self) -> bool {
        self.connection.secured.is_some()
    }

    /// The request was sent.
    pub fn asked(&mut self) {
        self.asked = Some(Instant::now());
    }

    /// The answer has begun.
    pub fn answered(&mut self) {
        self.asked = None;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let connection = &self.connection;
        connection.streams.set(connection.streams.get() - 1);
        connection.until.set(Instant::now() + self.timeout);
        // The network may have lost the upstream without a word: the next request is not to wait for it, too.
        let last = self.asked.map(|asked| asked.max(connection.wire.borrow().heard()));
        if last.is_some_and(|last| last.elapsed() >= SILENCE) {
            connection.is_retired.set(true);
        }
    }
}
