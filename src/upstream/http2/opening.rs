//! Opens a connection in HTTP/2 for all who wait for one, and drives it to its end.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::client;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::wire::{Handle, Wire};
use super::{Connection, Key, MAX_STREAMS, OpenError};
use crate::shared::Local;
use crate::upstream::connect::{ConnectError, Connecting};
use crate::upstream::tls::TlsError;

/// What an upstream may send ahead of a client that does not take it.
const STREAM_WINDOW: u32 = 256 * 1024;
/// For all streams of a connection: so large that no stream can take away another one's part (R36).
const CONNECTION_WINDOW: u32 = MAX_STREAMS as u32 * STREAM_WINDOW;
/// What may wait to be written of one stream.
const SEND_BUFFER: usize = 64 * 1024;
/// As `RESPONSE_HEAD` of HTTP/1.1.
const HEADER_LIST: u32 = 64 * 1024;
/// A number of streams that no SETTINGS can tell: RFC 9113 §6.5.1 has 32 bits for it.
const NOT_TOLD: usize = usize::MAX - 1;

/// A connection that is being opened, for all who wait for it.
#[derive(Debug, Default)]
pub(super) struct Opening {
    outcome: RefCell<Option<Result<Rc<Connection>, Failure>>>,
    done: Notify,
}

/// Why a connection could not be opened; each of those who wait is told.
#[derive(Clone, Debug)]
enum Failure {
    /// An error of the system, by its number if it has one.
    Connect(io::ErrorKind, Option<i32>, String),
    Timeout,
    Tls(TlsError),
    TlsTimeout,
    NotHttp2(String),
}

impl Opening {
    /// Waits for the connection.
    pub(super) async fn done(&self) -> Result<Rc<Connection>, OpenError> {
        loop {
            if let Some(outcome) = &*self.outcome.borrow() {
                return outcome.clone().map_err(OpenError::from);
            }
            self.done.notified().await;
        }
    }
}

/// Begins to open a connection, in a task of its own: it is not only for the one that needs it first, who may go away.
pub(super) fn begin(local: &Rc<Local>, key: &Key, timeout: Duration) -> Rc<Opening> {
    let opening = Rc::new(Opening::default());
    let (local, key, result) = (Rc::clone(local), key.clone(), Rc::clone(&opening));
    tokio::task::spawn_local(async move {
        let (outcome, driver) = match open(&local, &key, timeout).await {
            Ok((connection, driver)) => (Ok(connection), Some(driver)),
            Err(failure) => (Err(failure), None),
        };
        local.http2.borrow_mut().opened(&key, outcome.as_ref().ok());
        local.sweep_pool();
        // Who waits keeps the connection from now on, and the pool, and its streams; this task does not.
        let connection = outcome.as_ref().map_or_else(|_| Weak::new(), Rc::downgrade);
        *result.outcome.borrow_mut() = Some(outcome);
        result.done.notify_waiters();
        drop(result);
        if let Some(mut driver) = driver {
            if let Err(error) = poll_fn(|cx| driver.poll(cx)).await {
                tracing::debug!(upstream = %key.address, "a connection of HTTP/2 has broken: {error}");
            }
            if let Some(connection) = connection.upgrade() {
                connection.is_retired.set(true);
            }
        }
    });
    opening
}

/// Moves the frames of a connection.
struct Driver {
    local: Rc<Local>,
    connection: client::Connection<Handle, Bytes>,
    wire: Rc<RefCell<Wire>>,
}

impl Driver {
    /// Reads what there is, and sends what has come together. `Ready` when the connection is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        self.wire.borrow_mut().lend(&mut self.local.buffers.borrow_mut().output);
        let over = Pin::new(&mut self.connection).poll(cx);
        let mut wire = self.wire.borrow_mut();
        let drained = wire.poll_drain(cx);
        wire.give_back(&mut self.local.buffers.borrow_mut().output);
        drop(wire);
        match (over, drained) {
            // Reading tells what has become of it, and what had come before.
            (Poll::Pending, Poll::Ready(Err(_))) => Pin::new(&mut self.connection).poll(cx),
            (over, _) => over,
        }
    }
}

/// Connects, and waits for the SETTINGS of the upstream: then it is certain that it speaks HTTP/2, and known what it
/// allows for. Nothing of a request is sent before.
async fn open(local: &Rc<Local>, key: &Key, timeout: Duration) -> Result<(Rc<Connection>, Driver), Failure> {
    let deadline = Instant::now() + timeout;
    let is_taken = Cell::new(false);
    let (secured, header) = (key.secured.as_ref(), key.header);
    let to = Connecting { address: &key.address, secured, header, is_taken: &is_taken };
    let connected = timeout_at(deadline, to.connect(&local.shared.resolver, timeout)).await;
    let late = |_| if is_taken.get() { Failure::TlsTimeout } else { Failure::Timeout };
    let (stream, address) = connected.map_err(late)??;
    if !stream.has_agreed_on_http2() {
        return Err(Failure::NotHttp2("it takes no `h2` in the handshake of TLS (ALPN)".to_owned()));
    }
    let since = Instant::now();
    let wire = Rc::new(RefCell::new(Wire::new(stream)));
    // It writes the preface, into memory, and waits for nothing.
    let handshake = builder().handshake(Handle(Rc::clone(&wire))).await;
    let (requests, connection) = handshake.map_err(not_http2)?;
    let mut driver = Driver { local: Rc::clone(local), connection, wire: Rc::clone(&wire) };
    let settled = poll_fn(|cx| match driver.poll(cx) {
        Poll::Ready(Ok(())) => Poll::Ready(Err(Failure::NotHttp2("it closes the connection".to_owned()))),
        Poll::Ready(Err(error)) => Poll::Ready(Err(not_http2(error))),
        Poll::Pending if requests.current_max_send_streams() == NOT_TOLD => Poll::Pending,
        Poll::Pending => Poll::Ready(Ok(())),
    });
    let silent = |_| Failure::NotHttp2("it sends no SETTINGS within `proxy_connect_timeout`".to_owned());
    timeout_at(deadline, settled).await.map_err(silent)??;
    let connection = Connection {
        requests,
        secured: key.secured.clone(),
        header: key.header,
        address,
        since,
        streams: Cell::new(0),
        uses: Cell::new(0),
        until: Cell::new(since + timeout),
        is_retired: Cell::new(false),
        wire,
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

fn not_http2(error: h2::Error) -> Failure {
    Failure::NotHttp2(error.to_string())
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Io(error) => Self::Connect(error.kind(), error.raw_os_error(), error.to_string()),
            ConnectError::Tls(error) => Self::Tls(error),
        }
    }
}

impl From<Failure> for OpenError {
    fn from(failure: Failure) -> Self {
        let of_system = |error| Self::Connect(ConnectError::Io(error));
        match failure {
            Failure::Connect(_, Some(code), _) => of_system(io::Error::from_raw_os_error(code)),
            Failure::Connect(kind, None, text) => of_system(io::Error::new(kind, text)),
            Failure::Timeout => Self::Timeout,
            Failure::Tls(error) => Self::Connect(ConnectError::Tls(error)),
            Failure::TlsTimeout => Self::TlsTimeout,
            Failure::NotHttp2(why) => Self::NotHttp2(why),
        }
    }
}
