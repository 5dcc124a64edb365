//! Sends an ordinary request upstream and streams the response back: `ask`, then `relay`.

mod ask;
mod attempt;
mod plan;
mod relay;

pub use ask::ask;
pub(crate) use ask::{Prepared, prepare};
pub use relay::relay;

use std::rc::Rc;
use std::sync::Arc;
use std::task::Context;

use tokio::time::Instant;

use crate::buffers::Buffers;
use crate::client::{Client, Watch};
use crate::error::ProxyError;
use crate::exchange::{Done, Exchange};
use crate::http1::body::{BodyError, BodyLength};
use crate::http1::head::ResponseHead;
use crate::http1::pump::{Pump, PumpError};
use crate::io::Peer;
use crate::routing::outcome::UpstreamOutcome;
use crate::shared::Local;
use crate::turn;
use crate::upstream::balance::Lease;
use crate::upstream::group::Group;
use crate::upstream::pool::{Uses, keep_alive_hint};

/// Sends the request of an exchange upstream and its answer to the client.
///
/// # Errors
/// Why there was no answer; or, once the head of an answer is out, why it was not whole.
pub async fn send(
    local: &Rc<Local>,
    client: &mut Client,
    exchange: &mut Exchange,
) -> Result<Done, ProxyError> {
    let answered = ask(local, client, exchange, None).await?;
    if answered.head.status == 101 {
        // R7: nobody asked for it.
        return Err(ProxyError::Switch("the request asked for no upgrade"));
    }
    relay(local, client, exchange, answered).await
}

/// An upstream that has answered: the head is read, the body is not.
#[derive(Debug)]
pub struct Answered {
    /// The head of the answer.
    pub head: ResponseHead,
    /// Whether it was asked for with HEAD, so that no body follows.
    pub is_head: bool,
    /// The connection; what came behind the head was read ahead.
    pub upstream: Peer,
    /// How much the connection was used.
    uses: Box<Uses>,
    group: Arc<Group>,
    /// The server, counted as having this request.
    pub lease: Lease,
    /// The request's body, which may still be on its way.
    request: Box<Pump>,
    started: Instant,
}

impl Answered {
    /// Takes down the head of an answer that goes to nobody. The connection is kept if nothing is left to read of
    /// it: an answer to a subrequest hardly ever has a body.
    pub fn discard(self, local: &Rc<Local>, exchange: &mut Exchange) {
        let Self { head, is_head, upstream, uses, group, lease, request, started } = self;
        note(exchange, |upstream| upstream.response = Some(turn::since(started)));
        let is_read = match head.body_length(is_head) {
            // R7: what comes behind a 101 that nobody asked for is no HTTP.
            Ok(BodyLength::Length(length)) => head.status != 101 && length == upstream.ahead.len() as u64,
            Ok(BodyLength::Chunked | BodyLength::UntilClose) | Err(_) => false,
        };
        if is_read && head.keeps_alive() && request.is_done() {
            let hint = keep_alive_hint(&head.fields);
            let rules = &group.upstream.keepalive;
            local.pool.borrow_mut().put(lease.address(), (upstream.stream, uses), rules, hint);
            local.sweep_pool();
        }
        exchange.outcome.response = Some(head);
    }
}

/// Takes down what is known of the server that was asked last.
fn note(exchange: &mut Exchange, what: impl FnOnce(&mut UpstreamOutcome)) {
    if let Some(upstream) = exchange.outcome.upstreams.last_mut() {
        what(upstream);
    }
}

fn watch(client: &mut Client, cx: &mut Context<'_>, buffers: &mut Buffers) -> Result<(), ProxyError> {
    match client.watch(cx, &mut buffers.input) {
        Watch::Present => Ok(()),
        Watch::Gone => Err(ProxyError::ClientGone(None)),
    }
}

/// Whether it can be seen that the client is gone while content of its request is still to be read.
fn can_watch(client: &Client) -> bool {
    client.peer.stream.is_http2()
}

fn request_error(error: PumpError) -> ProxyError {
    match error {
        PumpError::Source(error) => ProxyError::ClientGone(Some(error)),
        PumpError::Body(BodyError::Truncated) => ProxyError::ClientGone(None),
        PumpError::Body(error) => ProxyError::Body(error),
        PumpError::TooLarge => ProxyError::BodyTooLarge,
        PumpError::Sink(error) => ProxyError::Upstream(error),
    }
}
