//! Puts a request on its way to a server of its group, and reads the head of the answer.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::{Answered, note, request_error, watch};
use crate::client::Client;
use crate::config::Timeouts;
use crate::error::ProxyError;
use crate::exchange::Exchange;
use crate::headers::outgoing::{self};
use crate::http1::body::BodyLength;
use crate::http1::head::{self, HeadLimits, MAX_FIELDS, Progress, ResponseHead, Version};
use crate::http1::pump::{Buffers, Encoding, Pump, PumpError};
use crate::io::{Peer, Pending, Stream};
use crate::routing::values::UpstreamOutcome;
use crate::server::tasks::Phase;
use crate::shared::Local;
use crate::upstream::balance::{Group, Lease};
use crate::upstream::connect::connect;

/// The most bytes and fields of a response's head. Four times what a cookie-laden app sends, and enough
/// for a 101 that repeats a long `Sec-WebSocket-Protocol`.
const RESPONSE_HEAD: HeadLimits = HeadLimits { size: 64 * 1024, fields: MAX_FIELDS };
/// The most 1xx answers to one request (R28).
const MAX_INTERIM: usize = 16;

/// Sends a request to a server of its group and reads the head of the answer. With `protocol` the
/// request asks for an upgrade.
///
/// # Errors
/// No server could be reached, or none answered.
pub async fn ask(
    local: &Rc<Local>,
    client: &mut Client,
    exchange: &mut Exchange,
    protocol: Option<&[u8]>,
) -> Result<Answered, ProxyError> {
    let Some(group) = exchange.group() else { return Err(ProxyError::NoLocation) };
    let location = exchange.location();
    let body = exchange.body_to_send()?;
    let timeouts = location.timeouts.clone();
    let mut head = Vec::with_capacity(1024);
    outgoing::request(&mut head, location, exchange.request(), &exchange.values(client), protocol)?;
    let mut asking = Asking {
        local,
        group: &group,
        timeouts: &timeouts,
        is_upgrade: protocol.is_some(),
        tried: Vec::new(),
    };
    // An upgrade takes its connection with it, so it gets a new one.
    let mut may_reuse = protocol.is_none();
    loop {
        let (lease, upstream, is_reused) = asking.reach(client, exchange, may_reuse).await?;
        let mut attempt = Attempt::new(upstream, &head, exchange, body);
        let started = attempt.last;
        let answer = attempt.answer(&asking, client, exchange).await;
        if !attempt.interim.is_empty() {
            // A part of a 1xx answer may be out: nothing can be said behind it.
            exchange.outcome.status = 103;
        }
        exchange.has_read_body |= !body.is_empty() && attempt.request.has_read_all();
        exchange.has_lost_body |= attempt.request.content() > 0;
        match answer {
            Ok(head) => {
                note(exchange, |upstream| {
                    upstream.status = head.status;
                    upstream.header = Some(started.elapsed());
                });
                exchange.outcome.late.received = attempt.request.content();
                let Attempt { upstream, request, .. } = attempt;
                return Ok(Answered { head, upstream, lease, request, started });
            }
            // The upstream closed an idle connection while the request was on its way into it. Not a byte
            // of an answer came, so a request that may be sent twice is (RFC 9112 §9.3.1).
            Err(ProxyError::Upstream(_))
                if is_reused && !attempt.heard && exchange.request().can_be_sent_again() =>
            {
                may_reuse = false;
            }
            Err(error) => return Err(error),
        }
    }
}

fn request_encoding(body: BodyLength, exchange: &Exchange) -> Encoding {
    match body {
        BodyLength::Chunked => Encoding::Chunked { trailers: exchange.location().pass_trailers },
        BodyLength::Length(_) | BodyLength::UntilClose => Encoding::Identity,
    }
}

fn max_body(exchange: &Exchange) -> Option<u64> {
    exchange.location().max_body_size
}

/// What stays the same over all servers that are tried.
struct Asking<'a> {
    local: &'a Rc<Local>,
    group: &'a Group,
    timeouts: &'a Timeouts,
    is_upgrade: bool,
    tried: Vec<usize>,
}

impl Asking<'_> {
    /// A connection to the next server that takes one, and whether it has been used before.
    async fn reach(
        &mut self,
        client: &mut Client,
        exchange: &mut Exchange,
        may_reuse: bool,
    ) -> Result<(Lease, Stream, bool), ProxyError> {
        if let (Some(most), BodyLength::Length(length)) = (max_body(exchange), exchange.request().body)
            && length > most
        {
            return Err(ProxyError::BodyTooLarge);
        }
        let mut failed = ProxyError::Connect(io::ErrorKind::NotFound.into());
        while let Some(lease) = self.group.choose(&self.tried) {
            exchange.outcome.upstreams.push(UpstreamOutcome::of(lease.server().address.clone()));
            let started = Instant::now();
            if let Some(stream) = self.pooled(&lease, may_reuse) {
                note(exchange, |upstream| upstream.connect = Some(Duration::ZERO));
                return Ok((lease, stream, true));
            }
            match self.connect(&lease, client).await {
                Ok(stream) => {
                    note(exchange, |upstream| upstream.connect = Some(started.elapsed()));
                    return Ok((lease, stream, false));
                }
                // R32: nothing was sent, so it is always safe to try another one.
                Err(error @ (ProxyError::Connect(_) | ProxyError::ConnectTimeout)) => failed = error,
                Err(error) => return Err(error),
            }
            self.tried.push(lease.index());
            self.local.shared.resolver.doubt(&lease.server().address);
            if self.tried.len() < self.group.upstream.servers.len() {
                let why = std::error::Error::source(&failed)
                    .map_or_else(|| failed.to_string(), ToString::to_string);
                tracing::warn!(upstream = %lease.server().address, "passed over, another server is tried: {why}");
            }
        }
        Err(failed)
    }

    fn pooled(&self, lease: &Lease, may_reuse: bool) -> Option<Stream> {
        if !may_reuse {
            return None;
        }
        self.local.pool.borrow_mut().take(&lease.server().address)
    }

    /// Connects, for as long as the client is there.
    async fn connect(&self, lease: &Lease, client: &mut Client) -> Result<Stream, ProxyError> {
        let timeout = self.timeouts.proxy_connect;
        let connecting = connect(lease.server(), &self.local.shared.resolver, timeout);
        let deadline = Instant::now() + timeout;
        let mut connecting = std::pin::pin!(connecting);
        poll_fn(|cx| {
            if let Poll::Ready(result) = connecting.as_mut().poll(cx) {
                return Poll::Ready(result.map_err(connect_error));
            }
            if client.task.phase(cx) == Phase::Killed {
                return Poll::Ready(Err(ProxyError::Stopping));
            }
            watch(client, cx, &mut self.local.buffers.borrow_mut())?;
            client.timer.poll(cx, deadline).map(|()| Err(ProxyError::ConnectTimeout))
        })
        .await
    }
}

/// Without a descriptor left, nothing can be said of the upstream.
fn connect_error(error: io::Error) -> ProxyError {
    let (process, system) = (rustix::io::Errno::MFILE, rustix::io::Errno::NFILE);
    match rustix::io::Errno::from_io_error(&error) {
        Some(errno) if errno == process || errno == system => ProxyError::TooManyConnections("ulimit -n"),
        _ => ProxyError::Connect(error),
    }
}

/// A request that was put on its way to one server.
struct Attempt {
    upstream: Peer,
    request: Pump,
    /// 1xx answers on their way to the client.
    interim: Pending,
    interims: usize,
    /// How much of what was read ahead was looked at for the end of the head.
    scanned: usize,
    /// Whether the upstream has sent anything.
    heard: bool,
    /// Why the upstream takes no more of the request; it may have answered all the same.
    sink_error: Option<io::Error>,
    /// When something last moved.
    last: Instant,
}

impl Attempt {
    /// With the head in front of the body; nothing is sent yet.
    fn new(upstream: Stream, head: &[u8], exchange: &Exchange, body: BodyLength) -> Self {
        let mut request = Pump::new(body, request_encoding(body, exchange), max_body(exchange));
        request.prepend(head);
        Self {
            upstream: Peer::new(upstream),
            request,
            interim: Pending::default(),
            interims: 0,
            scanned: 0,
            heard: false,
            sink_error: None,
            last: Instant::now(),
        }
    }

    /// Sends the request and reads the head of the answer; 1xx answers are passed on.
    async fn answer(
        &mut self,
        asking: &Asking<'_>,
        client: &mut Client,
        exchange: &Exchange,
    ) -> Result<ResponseHead, ProxyError> {
        poll_fn(|cx| {
            let mut buffers = asking.local.buffers.borrow_mut();
            if client.task.phase(cx) == Phase::Killed {
                return Poll::Ready(Err(ProxyError::Stopping));
            }
            let mut progress = false;
            self.poll_request(cx, client, &mut buffers, &mut progress)?;
            if let Poll::Ready(head) = self.poll_head(cx, client, exchange, &mut buffers, &mut progress)? {
                return Poll::Ready(Ok(head));
            }
            if progress {
                self.last = Instant::now();
            }
            let (deadline, error) = self.waits_for(asking, client, exchange);
            client.timer.poll(cx, deadline).map(|()| Err(error))
        })
        .await
    }

    /// Moves the request along; once it is out, looks whether the client is still there.
    fn poll_request(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Client,
        buffers: &mut Buffers,
        progress: &mut bool,
    ) -> Result<(), ProxyError> {
        if self.request.is_done() || self.sink_error.is_some() {
            return watch(client, cx, buffers);
        }
        match self.request.poll(cx, &mut client.peer, &mut self.upstream, buffers, progress) {
            Poll::Pending if self.request.has_read_all() => watch(client, cx, buffers),
            Poll::Pending => Ok(()),
            Poll::Ready(Ok(())) => watch(client, cx, buffers),
            Poll::Ready(Err(PumpError::Sink(error))) => {
                self.sink_error = Some(error);
                Ok(())
            }
            Poll::Ready(Err(error)) => Err(request_error(error)),
        }
    }

    /// Reads until the head of a final answer is there.
    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Client,
        exchange: &Exchange,
        buffers: &mut Buffers,
        progress: &mut bool,
    ) -> Poll<Result<ResponseHead, ProxyError>> {
        loop {
            // A client that does not take its 1xx answers gets no further ones.
            match self.interim.poll_flush(cx, &mut client.peer.stream) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(ProxyError::ClientGone(Some(error)))),
                Poll::Pending => return Poll::Pending,
            }
            if !self.upstream.ahead.is_empty() && self.scanned < self.upstream.ahead.len() {
                match head::response(&self.upstream.ahead, self.scanned, RESPONSE_HEAD)
                    .map_err(ProxyError::UpstreamHead)?
                {
                    Progress::Partial(scanned) => self.scanned = scanned,
                    Progress::Whole(head, end) => {
                        self.scanned = 0;
                        self.upstream.consume(end);
                        if !(100..200).contains(&head.status) || head.status == 101 {
                            return Poll::Ready(Ok(head));
                        }
                        self.interim(&head, exchange)?;
                        continue;
                    }
                }
            }
            match self.upstream.stream.poll_read(cx, &mut buffers.input) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(count)) if count > 0 => {
                    self.heard = true;
                    *progress = true;
                    self.upstream.ahead.extend_from_slice(&buffers.input[..count]);
                }
                Poll::Ready(result) => {
                    let ended = || io::Error::from(io::ErrorKind::UnexpectedEof);
                    let error = result.err().or_else(|| self.sink_error.take()).unwrap_or_else(ended);
                    return Poll::Ready(Err(ProxyError::Upstream(error)));
                }
            }
        }
    }

    /// Puts a 1xx answer on its way to the client (RFC 9110 §15.2), unless it cannot understand it.
    fn interim(&mut self, head: &ResponseHead, exchange: &Exchange) -> Result<(), ProxyError> {
        self.interims += 1;
        if self.interims > MAX_INTERIM {
            return Err(ProxyError::TooManyInterim);
        }
        let request = exchange.request();
        let was_asked_for =
            (head.status != 100 || request.expects_continue) && !exchange.course().is_subrequest;
        if request.head.version == Version::Http11 && was_asked_for {
            let mut bytes = Vec::new();
            outgoing::interim(&mut bytes, head);
            self.interim.push(&bytes);
        }
        Ok(())
    }

    /// Until when something must have moved, and what it means if nothing has.
    fn waits_for(&self, asking: &Asking<'_>, client: &Client, exchange: &Exchange) -> (Instant, ProxyError) {
        let timeouts = asking.timeouts;
        if !self.interim.is_empty() {
            return (self.last + timeouts.send, ProxyError::ClientTimeout);
        }
        let (timeout, error) = if asking.is_upgrade {
            let spent = self.last.saturating_duration_since(exchange.started());
            let left = timeouts.tunnel_handshake.saturating_sub(spent);
            (left, ProxyError::UpstreamTimeout("tunnel_handshake_timeout"))
        } else if self.request.waits_for_sink() {
            (timeouts.proxy_send, ProxyError::UpstreamTimeout("proxy_send_timeout"))
        } else if self.waits_for_body(exchange) {
            (timeouts.client_body, ProxyError::BodyTimeout)
        } else {
            (timeouts.proxy_read, ProxyError::UpstreamTimeout("proxy_read_timeout"))
        };
        client.deadline(self.last, timeout, error)
    }

    /// A client that waits for a 100 is not late: it is the upstream's turn.
    fn waits_for_body(&self, exchange: &Exchange) -> bool {
        let waits_for_100 =
            exchange.request().expects_continue && self.interims == 0 && self.request.content() == 0;
        !self.request.has_read_all() && self.sink_error.is_none() && !waits_for_100
    }
}
