//! Connections to upstream servers in HTTP/2, each shared by many requests of the same worker.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{self, SendRequest};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::config::{KeepAlive, UpstreamAddress};
use crate::http2::{ClientStream, Http2Stream};
use crate::io::Stream;
use crate::shared::Local;
use crate::upstream::connect::connect;
use crate::upstream::pool::Uses;

/// The most streams on one connection, whatever the upstream allows for.
const MAX_STREAMS: usize = 256;
/// What an upstream may send ahead of a client that does not take it.
const STREAM_WINDOW: u32 = 256 * 1024;
/// For all streams of a connection: so large that no stream can take away another one's part (R36).
const CONNECTION_WINDOW: u32 = MAX_STREAMS as u32 * STREAM_WINDOW;
/// What may wait to be written of one stream.
const SEND_BUFFER: usize = 64 * 1024;
/// As `RESPONSE_HEAD` of HTTP/1.1.
const HEADER_LIST: u32 = 64 * 1024;
/// A number of streams that no SETTINGS can tell (RFC 9113 §6.5.1 has 32 bits for it).
const NOT_TOLD: usize = usize::MAX - 1;
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
    is_tls: bool,
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
    /// When something was last read from it.
    heard: Rc<Cell<Instant>>,
}

/// A connection that is being opened, for all who wait for it.
#[derive(Debug, Default)]
struct Opening {
    outcome: RefCell<Option<Result<Rc<Connection>, Failure>>>,
    done: Notify,
}

/// Why a connection could not be opened; each of those who wait is told.
#[derive(Clone, Debug)]
enum Failure {
    Connect(io::ErrorKind, Option<i32>, String),
    Timeout,
    NotHttp2(String),
}

/// A stream's part of a connection.
#[derive(Debug)]
pub struct Slot {
    connection: Rc<Connection>,
    timeout: Duration,
    /// When the request was sent; `None` before, and once the answer has begun.
    asked: Option<Instant>,
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

impl Wanted<'_> {
    /// Opens the stream: on a connection that is there, or on a new one.
    ///
    /// # Errors
    /// There is none, and none can be opened; or it takes no tunnels.
    pub async fn open(&self, local: &Rc<Local>) -> Result<(Stream, Uses), OpenError> {
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
        loop {
            let begin = || begin(local, &self.key, self.timeout);
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

/// Why there is no stream.
#[derive(Debug)]
pub enum OpenError {
    /// The server cannot be reached.
    Connect(io::Error),
    /// The server did not take the connection in time.
    Timeout,
    /// The server does not speak HTTP/2: what tells so.
    NotHttp2(String),
    /// The server takes no extended CONNECT.
    NoTunnel,
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

    /// Takes over what has become of an opening.
    fn opened(&mut self, key: &Key, connection: Option<&Rc<Connection>>) {
        let Some(server) = self.servers.get_mut(key) else { return };
        server.opening = None;
        server.connections.extend(connection.cloned());
    }

    /// Closes what has been idle for too long; says whether anything is left.
    pub fn sweep(&mut self) -> bool {
        let now = Instant::now();
        self.servers.retain(|_, server| {
            let is_kept = |connection: &Rc<Connection>| {
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
        let streams = self.streams.get();
        let most = self.requests.current_max_send_streams().clamp(1, MAX_STREAMS);
        streams < most && !self.is_over()
    }

    /// A stream on it, counted.
    fn stream(self: Rc<Self>, rules: &KeepAlive) -> (Stream, Uses) {
        self.streams.set(self.streams.get() + 1);
        let requests = self.uses.get() + 1;
        self.uses.set(requests);
        let is_used_up = requests >= rules.requests || self.since.elapsed() > rules.time;
        if is_used_up || rules.connections == 0 {
            // nginx: without `keepalive` each request has a connection of its own.
            self.is_retired.set(true);
        }
        let uses = Uses { since: self.since, requests, address: self.address };
        let requests = self.requests.clone();
        let slot = Slot { connection: self, timeout: rules.timeout, asked: None };
        (Stream::Http2(Box::new(Http2Stream::Client(ClientStream::new(requests, slot)))), uses)
    }
}

impl Slot {
    /// Whether the connection is one of TLS.
    pub fn is_tls(&self) -> bool {
        self.connection.is_tls
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
        let last = self.asked.map(|asked| asked.max(connection.heard.get()));
        let is_dead = last.is_some_and(|last| last.elapsed() >= SILENCE);
        if is_dead {
            connection.is_retired.set(true);
        }
    }
}

impl Opening {
    async fn done(&self) -> Result<Rc<Connection>, OpenError> {
        loop {
            if let Some(outcome) = &*self.outcome.borrow() {
                return outcome.clone().map_err(OpenError::from);
            }
            self.done.notified().await;
        }
    }
}

/// Begins to open a connection, in a task of its own: it is not only for the one that needs it first, who may go away.
fn begin(local: &Rc<Local>, key: &Key, timeout: Duration) -> Rc<Opening> {
    let opening = Rc::new(Opening::default());
    let (local, key, result) = (Rc::clone(local), key.clone(), Rc::clone(&opening));
    tokio::task::spawn_local(async move {
        let opened = handshake(&local, &key, timeout).await;
        let (outcome, driver) = match opened {
            Ok((connection, driver)) => (Ok(connection), Some(driver)),
            Err(failure) => (Err(failure), None),
        };
        local.http2.borrow_mut().opened(&key, outcome.as_ref().ok());
        local.sweep_pool();
        drop(local);
        let connection = outcome.as_ref().ok().map(Rc::downgrade);
        *result.outcome.borrow_mut() = Some(outcome);
        result.done.notify_waiters();
        drop(result);
        let Some(driver) = driver else { return };
        if let Err(error) = driver.await {
            tracing::debug!(upstream = %key.address, %error, "a connection in HTTP/2 has ended");
        }
        if let Some(connection) = connection.and_then(|connection| connection.upgrade()) {
            connection.is_retired.set(true);
        }
    });
    opening
}

type Driver = client::Connection<Wire, Bytes>;

/// Connects, and waits for the SETTINGS of the upstream: then it is certain that it speaks HTTP/2, and known what it
/// allows for. Nothing of a request was sent by then.
async fn handshake(
    local: &Rc<Local>,
    key: &Key,
    timeout: Duration,
) -> Result<(Rc<Connection>, Driver), Failure> {
    let deadline = Instant::now() + timeout;
    let connecting = connect(&key.address, &local.shared.resolver, timeout);
    let (stream, address) =
        tokio::time::timeout_at(deadline, connecting).await.map_err(|_| Failure::Timeout)??;
    let since = Instant::now();
    let heard = Rc::new(Cell::new(since));
    let wire = Wire { stream, heard: Rc::clone(&heard), first: Vec::new() };
    let settings = async {
        let (requests, mut driver) = builder().handshake::<_, Bytes>(wire).await?;
        poll_fn(|cx| match Pin::new(&mut driver).poll(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(Err(closed())),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
            Poll::Pending if requests.current_max_send_streams() == NOT_TOLD => Poll::Pending,
            Poll::Pending => Poll::Ready(Ok(())),
        })
        .await?;
        Ok((requests, driver))
    };
    let silent = || Failure::NotHttp2("it sends no SETTINGS within `proxy_connect_timeout`".to_owned());
    let settled: Result<_, NotHttp2> =
        tokio::time::timeout_at(deadline, settings).await.map_err(|_| silent())?;
    let (requests, driver) = settled.map_err(|NotHttp2(why)| Failure::NotHttp2(why))?;
    let connection = Connection {
        requests,
        is_tls: false,
        address,
        since,
        streams: Cell::new(0),
        uses: Cell::new(0),
        until: Cell::new(since + timeout),
        is_retired: Cell::new(false),
        heard,
    };
    Ok((Rc::new(connection), driver))
}

fn builder() -> client::Builder {
    let mut builder = client::Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .initial_max_send_streams(NOT_TOLD)
        .max_header_list_size(HEADER_LIST)
        .max_send_buffer_size(SEND_BUFFER);
    builder
}

/// What is wrong with the beginning of a connection.
struct NotHttp2(String);

impl From<h2::Error> for NotHttp2 {
    fn from(error: h2::Error) -> Self {
        Self(error.to_string())
    }
}

fn closed() -> NotHttp2 {
    NotHttp2("it closes the connection before it has said anything".to_owned())
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Connect(error.kind(), error.raw_os_error(), error.to_string())
    }
}

impl From<Failure> for OpenError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Connect(_, Some(code), _) => Self::Connect(io::Error::from_raw_os_error(code)),
            Failure::Connect(kind, None, text) => Self::Connect(io::Error::new(kind, text)),
            Failure::Timeout => Self::Timeout,
            Failure::NotHttp2(why) => Self::NotHttp2(why),
        }
    }
}

/// The connection as h2 reads and writes it. Looks at the first bytes, because what is no HTTP/2 is told by h2 in
/// words that nobody understands.
#[derive(Debug)]
struct Wire {
    stream: Stream,
    heard: Rc<Cell<Instant>>,
    /// The first bytes, as long as they are looked at.
    first: Vec<u8>,
}

/// The head of a frame: its length (3), type, flags, and stream (4).
const FRAME_HEAD: usize = 9;
/// The type of a SETTINGS frame, RFC 9113 §6.5.
const SETTINGS: u8 = 4;

impl Wire {
    /// RFC 9113 §3.4: the first thing that a server sends is a SETTINGS frame.
    fn check(&mut self, bytes: &[u8]) -> io::Result<()> {
        let missing = FRAME_HEAD - self.first.len();
        self.first.extend_from_slice(&bytes[..bytes.len().min(missing)]);
        let wrong = |what: &str| Err(io::Error::new(io::ErrorKind::InvalidData, what));
        match &*self.first {
            [] => wrong("it closes the connection before it has said anything"),
            first if first.starts_with(b"HTTP/") => wrong("it answers in HTTP/1"),
            first if first.len() == FRAME_HEAD && first[3] != SETTINGS => {
                wrong("what it says first is no SETTINGS frame")
            }
            _ => Ok(()),
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let wire = &mut *self;
        let count = ready!(wire.stream.poll_read(cx, buffer.initialize_unfilled()))?;
        if wire.first.len() < FRAME_HEAD {
            wire.check(&buffer.initialize_unfilled()[..count])?;
        }
        wire.heard.set(Instant::now());
        buffer.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.stream.poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_shutdown_write(cx).map(Ok)
    }
}
