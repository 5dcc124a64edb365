//! One attempt: a request on its way to one server, up to the head of the answer.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};

use tokio::time::Instant;

use super::ask::Asking;
use super::{can_watch, request_error, watch};
use crate::buffers::Buffers;
use crate::client::Client;
use crate::error::ProxyError;
use crate::exchange::Exchange;
use crate::headers::outgoing;
use crate::http1::body::BodyLength;
use crate::http1::head::{self, HeadLimits, MAX_FIELDS, Progress, ResponseHead, Version};
use crate::http1::pump::{Encoding, Pump, PumpError};
use crate::io::{Peer, Pending, Stream};
use crate::server::tasks::Phase;
use crate::turn;

/// The most bytes and fields of a response's head. Four times what a cookie-laden app sends, and enough
/// for a 101 that repeats a long `Sec-WebSocket-Protocol`.
const RESPONSE_HEAD: HeadLimits = HeadLimits { size: 64 * 1024, fields: MAX_FIELDS };
/// The most 1xx answers to one request (R28).
const MAX_INTERIM: usize = 16;

/// A request that was put on its way to one server.
pub(super) struct Attempt {
    pub(super) upstream: Peer,
    /// Boxed, as what the connection was used for is: both go on with the answer.
    pub(super) request: Box<Pump>,
    has_begun: bool,
    /// 1xx answers on their way to the client.
    interim: Pending,
    interims: usize,
    /// How much of what was read ahead was looked at for the end of the head.
    scanned: usize,
    /// Whether the upstream has sent anything.
    pub(super) heard: bool,
    /// Why the upstream takes no more of the request; it may have answered all the same.
    sink_error: Option<io::Error>,
    /// When something last moved; at first, when it began.
    pub(super) last: Instant,
}

impl Attempt {
    /// Nothing is sent yet.
    pub(super) fn new(upstream: Stream, exchange: &Exchange, body: BodyLength) -> Self {
        let encoding = request_encoding(body, exchange, upstream.is_http2());
        Self {
            upstream: Peer::new(upstream),
            request: Box::new(Pump::new(body, encoding, max_body(exchange))),
            has_begun: false,
            interim: Pending::default(),
            interims: 0,
            scanned: 0,
            heard: false,
            sink_error: None,
            last: turn::now(),
        }
    }

    /// Whether a part of a 1xx answer may be out, behind which nothing can be said.
    pub(super) fn is_amid_interim(&self) -> bool {
        !self.interim.is_empty()
    }

    /// Sends the request and reads the head of the answer; 1xx answers are passed on.
    pub(super) async fn answer(
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
            if !std::mem::replace(&mut self.has_begun, true) {
                self.sink_error = self.request.begin(cx, &mut self.upstream.stream, asking.head).err();
            }
            self.poll_request(cx, client, &mut buffers, &mut progress)?;
            if let Poll::Ready(head) = self.poll_head(cx, client, exchange, &mut buffers, &mut progress)? {
                return Poll::Ready(Ok(head));
            }
            if progress {
                self.last = turn::now();
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
            Poll::Pending if self.request.has_read_all() || can_watch(client) => watch(client, cx, buffers),
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
            if self.scanned < self.upstream.ahead.len() {
                match head::response(&self.upstream.ahead, self.scanned, RESPONSE_HEAD)
                    .map_err(ProxyError::UpstreamHead)?
                {
                    Progress::Partial(scanned) => {
                        self.scanned = scanned;
                        buffers.copy_out(&mut self.upstream.ahead);
                    }
                    Progress::Whole(head, end) => {
                        self.scanned = 0;
                        buffers.consume(&mut self.upstream.ahead, end);
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
                    match self.upstream.ahead.is_empty() {
                        // The usual case: nothing is copied, however much of the body came with the head.
                        true => self.upstream.ahead = buffers.lend(0..count),
                        false => self.upstream.ahead.extend_from_slice(&buffers.input[..count]),
                    }
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
        if request.head.version != Version::Http10 && was_asked_for {
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

fn request_encoding(body: BodyLength, exchange: &Exchange, is_http2: bool) -> Encoding {
    let trailers = exchange.location().pass_trailers;
    match body {
        _ if !exchange.location().requests.pass_body => Encoding::Nothing,
        BodyLength::Length(_) => Encoding::Identity,
        BodyLength::Chunked | BodyLength::UntilClose if is_http2 => Encoding::Http2 { trailers },
        BodyLength::Chunked | BodyLength::UntilClose => Encoding::Chunked { trailers },
    }
}

pub(super) fn max_body(exchange: &Exchange) -> Option<u64> {
    exchange.location().max_body_size
}
