//! Streams an answer to the client, and what is left of the request to the upstream meanwhile.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::time::Instant;

use super::plan::{self, Plan};
use super::{Answered, can_watch, note, request_error, watch};
use crate::answer::Filling;
use crate::buffers::Buffers;
use crate::client::Client;
use crate::error::{Fault, Intercepted, ProxyError};
use crate::exchange::{After, Done, Exchange, Way};
use crate::http1::body::{BodyError, BodyLength};
use crate::http1::gzip::Gzip;
use crate::http1::head::ResponseHead;
use crate::http1::pump::{Pump, PumpError};
use crate::io::Peer;
use crate::server::tasks::Phase;
use crate::shared::Local;
use crate::turn;
use crate::upstream::pool::keep_alive_hint;

/// Streams an answer to the client, and what is left of the request to the upstream meanwhile.
///
/// # Errors
/// Before the head is out: the answer is no HTTP. After it: why the answer is not whole.
pub async fn relay(
    local: &Rc<Local>,
    client: &mut Client,
    exchange: &mut Exchange,
    answered: Answered,
) -> Result<Done, ProxyError> {
    let location = exchange.location();
    let status = answered.head.status;
    if location.intercept_errors && status >= 300 && exchange.has_error_page(status) {
        let error = intercepted(&answered.head);
        exchange.outcome.response = Some(answered.head);
        return Err(error);
    }
    if let Some(way) = plan::accel_redirect(&answered.head, exchange) {
        let way = way.map_err(|()| ProxyError::AccelRedirect)?;
        return Ok(sent_on(local, client, exchange, answered, way));
    }
    if (200..300).contains(&exchange.status_of(status)) && client.peer.stream.wants_tunnel() {
        return Err(ProxyError::NoTunnel(Fault::Upstream));
    }
    let Answered { head, is_head, upstream, uses, group, lease, request, started } = answered;
    let body = head.body_length(is_head).map_err(ProxyError::UpstreamHead)?;
    let can_be_reused = head.keeps_alive() && body != BodyLength::UntilClose;
    let hint = keep_alive_hint(&head.fields);
    exchange.outcome.status = exchange.status_of(status);
    // R25: while a part of the request is still to come, nobody knows where the next one starts.
    let may_go_on = request.has_read_all() && exchange.is_body_settled() && exchange.may_keep_alive(client);
    // The variables of the rules may ask for these.
    exchange.outcome.response = Some(head);
    exchange.outcome.late.duration = turn::since(exchange.started());
    let plan = Plan::of(exchange, client, body, is_head, may_go_on);
    let can_be_reused = can_be_reused && plan.is_read_whole;
    let mut response = Pump::new(length_on(&upstream, plan.body), plan.encoding, None);
    if let Some(level) = plan.gzip {
        response.compress(Gzip::new(level));
    }
    exchange.outcome.sent = plan.sent;
    let (head_sent, goes_on) = (plan.head.len() as u64, plan.goes_on);
    let mut relaying = Relaying { upstream, request, response, is_request_cut: false, last: turn::now() };
    relaying.response.prepend(plan.head);
    let result = relaying.run(local, client, exchange).await;
    let late = &mut exchange.outcome.late;
    late.received = relaying.request.content();
    late.body_sent = relaying.response.written();
    late.sent = late.body_sent + head_sent;
    let length = relaying.response.content();
    note(exchange, |upstream| {
        upstream.response = Some(turn::since(started));
        upstream.length = length;
    });
    if result.is_err() && !relaying.response.has_sent() {
        // The answer broke before a byte of it was out: the client can still be told properly.
        exchange.outcome.status = 0;
    }
    result?;
    let Relaying { upstream, request, is_request_cut, .. } = relaying;
    // R26: bytes behind the answer would be taken for the next one.
    if can_be_reused && request.is_done() && !is_request_cut && upstream.ahead.is_empty() {
        let rules = &group.upstream.keepalive;
        local.pool.borrow_mut().put(lease.address(), (upstream.stream, uses), rules, hint);
        local.sweep_pool();
    }
    let goes_on = goes_on && exchange.may_keep_alive(client);
    Ok(Done::Answered(if goes_on { After::Open } else { After::Close }))
}

/// In HTTP/2 an answer ends with its stream, whatever length it has told: there may be trailers, and a stream that is
/// dropped before is one that was reset. h2 has seen to the length.
fn length_on(upstream: &Peer, told: BodyLength) -> BodyLength {
    if upstream.stream.is_http2() && !told.is_empty() { BodyLength::UntilClose } else { told }
}

/// An answer that an error page stands for; what it asks the client for is kept.
fn intercepted(head: &ResponseHead) -> ProxyError {
    let asks = head.fields.named("www-authenticate").map(<[u8]>::to_vec);
    let www_authenticate = if head.status == 401 { asks.collect() } else { Vec::new() };
    ProxyError::Intercepted(Box::new(Intercepted { status: head.status, www_authenticate }))
}

/// Sends the request on as the answer says, which itself goes nowhere.
fn sent_on(
    local: &Rc<Local>,
    client: &Client,
    exchange: &mut Exchange,
    answered: Answered,
    way: Way,
) -> Done {
    let fields = exchange
        .location()
        .responses
        .of_upstream(&answered.head, &Filling { exchange, client: &client.info });
    exchange.keep_fields(&fields);
    exchange.is_sent_on(&way);
    answered.discard(local, exchange);
    Done::Elsewhere(way)
}

/// An answer on its way.
struct Relaying {
    upstream: Peer,
    request: Box<Pump>,
    response: Pump,
    /// Whether the upstream did not take the whole request.
    is_request_cut: bool,
    last: Instant,
}

impl Relaying {
    async fn run(
        &mut self,
        local: &Rc<Local>,
        client: &mut Client,
        exchange: &Exchange,
    ) -> Result<(), ProxyError> {
        let timeouts = &exchange.location().timeouts;
        poll_fn(|cx| {
            let mut buffers = local.buffers.borrow_mut();
            if client.task.phase(cx) == Phase::Killed {
                return Poll::Ready(Err(ProxyError::Stopping));
            }
            let mut progress = false;
            let response =
                self.response.poll(cx, &mut self.upstream, &mut client.peer, &mut buffers, &mut progress);
            if let Poll::Ready(result) = response {
                return Poll::Ready(result.map_err(response_error));
            }
            self.poll_request(cx, client, &mut buffers, &mut progress)?;
            if progress {
                self.last = turn::now();
            }
            let (deadline, error) = if self.response.waits_for_sink() {
                (self.last + timeouts.send, ProxyError::ClientTimeout)
            } else {
                let silent = ProxyError::UpstreamTimeout("proxy_read_timeout");
                client.deadline(self.last, timeouts.proxy_read, silent)
            };
            client.timer.poll(cx, deadline).map(|()| Err(error))
        })
        .await
    }

    /// What is left of the request goes on its way; an upstream that has answered need not take it.
    fn poll_request(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Client,
        buffers: &mut Buffers,
        progress: &mut bool,
    ) -> Result<(), ProxyError> {
        if self.request.is_done() || self.is_request_cut {
            return watch(client, cx, buffers);
        }
        match self.request.poll(cx, &mut client.peer, &mut self.upstream, buffers, progress) {
            Poll::Pending if can_watch(client) => watch(client, cx, buffers),
            Poll::Pending => Ok(()),
            Poll::Ready(Ok(())) => watch(client, cx, buffers),
            Poll::Ready(Err(PumpError::Sink(_))) => {
                self.is_request_cut = true;
                watch(client, cx, buffers)
            }
            Poll::Ready(Err(error)) => Err(request_error(error)),
        }
    }
}

fn response_error(error: PumpError) -> ProxyError {
    match error {
        // TLS: without a close_notify nobody knows whether this was the end.
        PumpError::Source(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            ProxyError::UpstreamBody(BodyError::Truncated)
        }
        PumpError::Source(error) => ProxyError::Upstream(error),
        PumpError::Body(error) => ProxyError::UpstreamBody(error),
        PumpError::Sink(error) => ProxyError::ClientGone(Some(error)),
        // Responses have no limit.
        PumpError::TooLarge => ProxyError::UpstreamBody(BodyError::TooLarge),
    }
}
