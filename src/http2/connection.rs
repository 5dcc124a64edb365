//! Serves one client over HTTP/2: accepts its streams, each of which gets a task of its own, and ends the
//! connection when its time has come.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{self, Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::{Method, Request};
use tokio::time::Instant;

use super::flood::{Abuse, RESETS};
use super::head::{self, Asked};
use super::stream::{Http2Stream, Kind, ServerStream};
use super::wire::{Handle, Wire};
use crate::client::{Client, ClientInfo};
use crate::config::ClientLimits;
use crate::error::ProxyError;
use crate::http1::head::HeadLimits;
use crate::io::{Peer, Stream};
use crate::proxy::{self, Next};
use crate::server::connection;
use crate::server::limits::Permit;
use crate::server::tasks::{Phase, TaskGuard};
use crate::shared::Local;
use crate::state::State;
use crate::timer::Timer;

/// How much of a stream's content a client may send ahead of whoever takes it.
const STREAM_WINDOW: u32 = 256 * 1024;

/// How much h2 holds of what a stream is sent, until it is its turn: what one read of the upstream brings.
const SEND_BUFFER: usize = 64 * 1024;

/// How long a connection that has said that it ends is left to the client.
const LINGER: Duration = Duration::from_secs(2);

/// And how much of it is read.
const LINGER_BYTES: usize = 4 << 20;

/// Serves a client until its connection ends. What has become a tunnel by then ends with it. One that came when
/// `refused` was reached is told so in its first stream.
pub async fn serve(local: Rc<Local>, client: Box<Client>, refused: Option<&'static str>) {
    let Some(limits) = local.limits_of(&client.info, &client.accepted_under) else { return };
    let Client { peer, info, mut timer, task, permit, accepted_under, .. } = *client;
    let wire = Rc::new(RefCell::new(Wire::new(peer)));
    let since = Instant::now();
    let connection = {
        let mut handshake = std::pin::pin!(builder(&limits).handshake(Handle(Rc::clone(&wire))));
        poll_fn(|cx| {
            let connection = handshake.as_mut().poll(cx).map(Result::ok);
            if connection.is_ready() || task.phase(cx) != Phase::Serving {
                return connection;
            }
            if wire.borrow_mut().poll_drain(cx).map(|sent| sent.is_err()) == Poll::Ready(true) {
                return Poll::Ready(None);
            }
            timer.poll(cx, since + limits.header_timeout).map(|()| None)
        })
        .await
    };
    let Some(connection) = connection else { return };
    let mut serving = Serving {
        state: local.state(),
        streams: Rc::new(Streams::new(since)),
        connection,
        wire,
        info,
        timer,
        task,
        limits,
        refused,
        leaving: None,
        is_told_off: false,
        accepted_under,
        _permit: permit,
        local,
    };
    poll_fn(|cx| serving.poll(cx)).await;
    let Serving { connection, wire, mut timer, task, local, leaving, .. } = serving;
    // Whatever streams there are know from now on.
    drop(connection);
    // Who has been told before has had its time.
    if leaving.is_some_and(|since| since.elapsed() >= LINGER) {
        return;
    }
    // Closing a socket with unread bytes in it would take away what was said last. Bytes are thrown away cheaply, but
    // a flood has an end.
    let deadline = Instant::now() + LINGER;
    let mut most = LINGER_BYTES;
    poll_fn(|cx| {
        let read = wire.borrow_mut().poll_rest(cx, &mut local.buffers.borrow_mut().input, &mut most);
        if read.is_ready() || task.phase(cx) == Phase::Killed {
            return Poll::Ready(());
        }
        timer.poll(cx, deadline)
    })
    .await;
}

fn builder(limits: &ClientLimits) -> server::Builder {
    let streams = limits.http2_streams;
    let mut builder = server::Builder::new();
    builder
        .max_concurrent_streams(streams)
        .initial_window_size(STREAM_WINDOW)
        // R36: streams that nobody takes anything of must leave something for the others.
        .initial_connection_window_size(STREAM_WINDOW.saturating_mul(streams).min(MAX_WINDOW))
        .max_send_buffer_size(SEND_BUFFER)
        // h2 answers what is larger by itself, without a line in a log; so it gets some room.
        .max_header_list_size(u32::try_from(limits.head_size.saturating_mul(2)).unwrap_or(u32::MAX))
        // Those that come while the worker has other things to do: what is too many, the flood says.
        .max_pending_accept_reset_streams(RESETS as usize)
        .enable_connect_protocol();
    builder
}

/// RFC 9113 §6.9.1.
const MAX_WINDOW: u32 = (1 << 31) - 1;

/// The streams of a connection that are not over yet, tunnels among them.
#[derive(Debug)]
pub struct Streams {
    open: Cell<usize>,
    /// When the last of them ended.
    ended: Cell<Instant>,
    /// The task of the connection.
    waker: RefCell<Option<Waker>>,
}

impl Streams {
    fn new(since: Instant) -> Self {
        Self { open: Cell::new(0), ended: Cell::new(since), waker: RefCell::default() }
    }
}

/// A stream that is counted until dropped.
#[derive(Debug)]
pub struct Counted(Rc<Streams>);

impl Counted {
    fn new(streams: &Rc<Streams>) -> Self {
        streams.open.set(streams.open.get() + 1);
        Self(Rc::clone(streams))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let open = self.0.open.get() - 1;
        self.0.open.set(open);
        if open == 0 {
            self.0.ended.set(Instant::now());
            if let Some(waker) = self.0.waker.borrow().as_ref() {
                waker.wake_by_ref();
            }
        }
    }
}

/// A connection at work.
struct Serving {
    local: Rc<Local>,
    /// What the limits are from.
    state: Arc<State>,
    connection: Connection<Handle, Bytes>,
    wire: Rc<RefCell<Wire>>,
    streams: Rc<Streams>,
    info: ClientInfo,
    timer: Timer,
    task: TaskGuard,
    limits: ClientLimits,
    /// The setting by which there are too many connections, if this is one of those.
    refused: Option<&'static str>,
    /// Since when the client knows that the connection ends.
    leaving: Option<Instant>,
    /// Whether the client knows that it has done too much of something.
    is_told_off: bool,
    accepted_under: Arc<State>,
    _permit: Permit,
}

impl Serving {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.task.phase(cx) {
            Phase::Serving => {}
            Phase::Draining(_) => self.leave(),
            Phase::Killed => {
                self.wire.borrow_mut().reset();
                return Poll::Ready(());
            }
        }
        self.watch_streams(cx);
        loop {
            self.wire.borrow_mut().lend(&mut self.local.buffers.borrow_mut().output);
            let over = self.poll_streams(cx);
            let mut wire = self.wire.borrow_mut();
            let drained = wire.poll_drain(cx);
            wire.give_back(&mut self.local.buffers.borrow_mut().output);
            drop(wire);
            if over.is_ready() || matches!(drained, Poll::Ready(Err(_))) {
                return Poll::Ready(());
            }
            match self.poll_patience(cx) {
                Patience::Waits => return Poll::Pending,
                Patience::Over => return Poll::Ready(()),
                // There is something to be told.
                Patience::Leaves => self.leave(),
            }
        }
    }

    /// Has the task woken by the last stream that ends.
    fn watch_streams(&self, cx: &Context<'_>) {
        let mut waker = self.streams.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    }

    /// Reads what there is, and gives each new stream its task. `Ready` when the connection is over.
    fn poll_streams(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let accepted = self.connection.poll_accept(cx);
            let is_pending = accepted.is_pending();
            match accepted {
                Poll::Ready(Some(Ok((_, mut respond)))) if self.has_left() => {
                    respond.send_reset(Reason::REFUSED_STREAM);
                }
                Poll::Ready(Some(Ok((request, respond)))) => self.open(request, respond),
                Poll::Ready(Some(Err(error))) => {
                    self.tell(&error);
                    return Poll::Ready(());
                }
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => {}
            }
            match self.wire.borrow().flood.found() {
                Some(abuse) if !std::mem::replace(&mut self.is_told_off, true) => {
                    tracing::info!(connection = self.info.id, "a connection of HTTP/2 is ended: {abuse}");
                    self.connection.abrupt_shutdown(abuse.reason());
                }
                _ if is_pending => return Poll::Pending,
                _ => {}
            }
        }
    }

    /// Tells the log why the connection is over: of what the client has done wrong, aloud.
    fn tell(&self, error: &h2::Error) {
        let connection = self.info.id;
        if self.is_told_off {
            // It was said when it was seen.
        } else if error.is_library() {
            tracing::info!(connection, "a connection of HTTP/2 is ended: {error}");
        } else {
            tracing::debug!(connection, "a connection of HTTP/2 has broken: {error}");
        }
    }

    /// Gives a stream its task.
    fn open(&mut self, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
        self.renew_state();
        let started = Instant::now();
        let (parts, content) = request.into_parts();
        let limits = HeadLimits { size: self.limits.head_size, fields: self.limits.max_headers };
        let asked = match self.refused {
            None => head::request(&parts, !content.is_end_stream(), limits),
            Some(setting) => Err(ProxyError::TooManyConnections(setting)),
        };
        let mut info = self.info.clone();
        let connections = &self.local.shared.connections;
        let (kind, permit, head) = match asked {
            Ok(Asked::Answer(head)) => {
                let kind = if head.method() == b"HEAD" { Kind::Head } else { Kind::Request };
                (kind, connections.stream(), Ok(head))
            }
            Ok(Asked::WebSocket(head)) => {
                // It may last for days, beside others on the same connection: it has a number of its own, and
                // counts as one.
                info.id = self.local.shared.next_connection.fetch_add(1, Ordering::Relaxed) + 1;
                let config = &self.state.config;
                match connections.enter(info.ip(), config.max_connections, config.max_connections_per_ip) {
                    Ok(permit) => (Kind::Connect, permit, Ok(head)),
                    Err(setting) => {
                        (Kind::Connect, connections.stream(), Err(ProxyError::TooManyConnections(setting)))
                    }
                }
            }
            Err(error) => {
                let kind = match parts.method {
                    Method::HEAD => Kind::Head,
                    Method::CONNECT => Kind::Connect,
                    _ => Kind::Request,
                };
                (kind, connections.stream(), Err(error))
            }
        };
        self.info.requests += 1;
        let stream = ServerStream::new(content, respond, kind, Counted::new(&self.streams));
        let client = Box::new(Client {
            peer: Peer::new(Stream::Http2(Box::new(Http2Stream::Server(stream)))),
            info,
            timer: Timer::new(),
            task: self.local.tasks.enter(),
            permit,
            accepted: started,
            half_closed: None,
            accepted_under: Arc::clone(&self.accepted_under),
        });
        let local = Rc::clone(&self.local);
        connection::spawn(async move {
            match head {
                Ok(head) => match proxy::handle(&local, client, head, started).await {
                    Next::Tunnel(tunnel) => return Some(tunnel),
                    Next::Http(_) | Next::Nothing => {}
                },
                Err(error) => proxy::refuse(&local, client, error, started).await,
            }
            None
        });
        if self.has_served_enough() {
            self.leave();
        }
    }

    /// A reload changes the limits from the next request on.
    fn renew_state(&mut self) {
        let state = self.local.state();
        if !Arc::ptr_eq(&state, &self.state) {
            self.state = state;
            self.limits =
                self.local.limits_of(&self.info, &self.accepted_under).unwrap_or(self.limits.clone());
        }
    }

    fn has_served_enough(&self) -> bool {
        let is_known = self.state.config.listeners.iter().any(|known| known.address == self.info.listener);
        !is_known
            || self.refused.is_some()
            || self.limits.keepalive_requests.is_some_and(|most| self.info.requests >= most)
    }

    /// Tells the client that the connection takes no further streams; what it has sent by the time that it
    /// knows is still served (RFC 9113 §6.8).
    fn leave(&mut self) {
        if self.leaving.is_none() {
            self.leaving = Some(Instant::now());
            self.connection.graceful_shutdown();
        }
    }

    /// Whether the client has had its time to take notice: h2 goes on to take streams for as long as it does not
    /// answer the PING behind the GOAWAY.
    fn has_left(&self) -> bool {
        self.leaving.is_some_and(|since| since.elapsed() >= LINGER)
    }

    /// What has taken too long by now.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Patience {
        let stalled = self.wire.borrow().stalled().map(|since| since + self.limits.send_timeout);
        let is_idle = self.streams.open.get() == 0;
        let idle = is_idle.then(|| {
            let ended = self.streams.ended.get();
            match self.leaving {
                Some(since) => since.max(ended) + LINGER,
                None if self.refused.is_some() => ended + LINGER,
                None if self.info.requests == 0 => ended + self.limits.header_timeout,
                None => ended + self.limits.keepalive_timeout,
            }
        });
        let Some(deadline) = stalled.into_iter().chain(idle).min() else { return Patience::Waits };
        if self.timer.poll(cx, deadline).is_pending() {
            return Patience::Waits;
        }
        let is_stalled = stalled.is_some_and(|stalled| stalled <= deadline);
        if is_stalled {
            let why = ProxyError::ClientTimeout;
            tracing::info!(connection = self.info.id, "a connection of HTTP/2 is ended: {why}");
            self.wire.borrow_mut().reset();
        }
        if is_stalled || self.leaving.is_some() { Patience::Over } else { Patience::Leaves }
    }
}

/// What the clock says.
enum Patience {
    /// It is waited for something that may still come.
    Waits,
    /// The client is told that the connection ends.
    Leaves,
    /// The connection ends.
    Over,
}

impl Abuse {
    /// What the client is told.
    fn reason(self) -> Reason {
        match self {
            Self::NoSettings => Reason::PROTOCOL_ERROR,
            Self::Resets | Self::Chores => Reason::ENHANCE_YOUR_CALM,
        }
    }
}

impl fmt::Display for Abuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoSettings => "its first frame is not SETTINGS",
            Self::Resets => "the client resets too many streams",
            Self::Chores => "the client sends too many frames that get nothing done",
        })
    }
}
