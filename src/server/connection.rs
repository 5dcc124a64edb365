//! Speaks HTTP/1.1 with one client: one request after the other, within the limits and timeouts.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::time::Instant;

use crate::client::Client;
use crate::config::ClientLimits;
use crate::error::ProxyError;
use crate::http1::head::{self, HeadError, HeadLimits, Progress, RequestHead};
use crate::proxy::{self, Next};
use crate::server::tasks::Phase;
use crate::shared::Local;
use crate::tunnel::Tunnel;
use crate::turn::{self, in_turns};

/// Gives a connection its task. What serves it may leave a tunnel, which the task runs then.
pub fn spawn(serving: impl Future<Output = Option<Box<Tunnel>>> + 'static) {
    // Boxed: a task copies its future when it is made, and twice when it is done. And a tunnel needs none of it.
    let serving = Box::pin(in_turns(serving));
    tokio::task::spawn_local(async move {
        if let Some(tunnel) = serving.await {
            tunnel.run().await;
        }
    });
}

/// Serves a client until its connection ends, or has become a tunnel.
pub async fn serve(local: Rc<Local>, mut client: Box<Client>) -> Option<Box<Tunnel>> {
    while let Some(arrival) = next(&local, &mut client).await {
        match arrival.head {
            Ok(head) => match proxy::handle(&local, client, head, arrival.started).await {
                Next::Http(served) => client = served,
                Next::Tunnel(tunnel) => return Some(tunnel),
                Next::Nothing => return None,
            },
            Err(error) => {
                proxy::refuse(&local, client, error, arrival.started).await;
                return None;
            }
        }
    }
    client.bid_farewell().await;
    None
}

/// Serves a client, unless `refused` was reached when it came: it is told so.
pub async fn serve_unless(
    local: Rc<Local>,
    client: Box<Client>,
    refused: Option<&'static str>,
) -> Option<Box<Tunnel>> {
    let Some(setting) = refused else { return serve(local, client).await };
    proxy::refuse(&local, client, ProxyError::TooManyConnections(setting), turn::now()).await;
    None
}

/// A head, or what came instead of one.
struct Arrival {
    head: Result<RequestHead, ProxyError>,
    /// When its first byte came.
    started: Instant,
}

/// Waits for the next head; `None` when the connection is over.
async fn next(local: &Rc<Local>, client: &mut Client) -> Option<Arrival> {
    let limits = local.limits_of(&client.info, &client.accepted_under)?;
    let mut waiting = Waiting::default();
    let since = turn::now();
    poll_fn(|cx| waiting.poll(cx, local, client, &limits, since)).await
}

/// Empty lines before a request are skipped, RFC 9112 §2.2; a client that sends more of them than this
/// means something else.
const MAX_EMPTY_LINES: usize = 8;

/// What is known while a head is waited for.
#[derive(Default)]
struct Waiting {
    /// When the first byte of the head came.
    first_byte: Option<Instant>,
    empty_lines: usize,
    /// How much of what was read ahead was looked at for the end of the head.
    scanned: usize,
}

/// What a look at the bytes of a connection found.
enum Found {
    /// A head, and how many bytes it took.
    Head(RequestHead, usize),
    /// Not yet; so many bytes need not be kept.
    Nothing(usize),
}

impl Waiting {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        local: &Local,
        client: &mut Client,
        limits: &ClientLimits,
        since: Instant,
    ) -> Poll<Option<Arrival>> {
        let mut buffers = local.buffers.borrow_mut();
        loop {
            if self.scanned < client.peer.ahead.len() {
                match self.look(&client.peer.ahead, limits) {
                    Ok(Found::Nothing(skipped)) => client.peer.consume(skipped),
                    Ok(Found::Head(head, end)) => {
                        client.peer.consume(end);
                        return self.arrived(Ok(head));
                    }
                    Err(error) => return self.arrived(Err(error)),
                }
            }
            match client.peer.stream.poll_read(cx, &mut buffers.input) {
                Poll::Pending => break,
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(None),
                Poll::Ready(Ok(count)) if client.peer.ahead.is_empty() => {
                    // The usual case: a whole head in one piece, read without another copy.
                    let bytes = &buffers.input[..count];
                    match self.look(bytes, limits) {
                        Ok(Found::Nothing(skipped)) => client.peer.ahead.extend_from_slice(&bytes[skipped..]),
                        Ok(Found::Head(head, end)) => {
                            client.peer.ahead.extend_from_slice(&bytes[end..]);
                            return self.arrived(Ok(head));
                        }
                        Err(error) => return self.arrived(Err(error)),
                    }
                }
                Poll::Ready(Ok(count)) => client.peer.ahead.extend_from_slice(&buffers.input[..count]),
            }
        }
        self.poll_patience(cx, client, limits, since)
    }

    /// Looks for a head in everything that is there of it.
    fn look(&mut self, bytes: &[u8], limits: &ClientLimits) -> Result<Found, ProxyError> {
        let skipped = match self.first_byte {
            Some(_) => 0,
            None => bytes.chunks(2).take_while(|pair| pair == b"\r\n").count() * 2,
        };
        self.empty_lines += skipped / 2;
        if self.empty_lines > MAX_EMPTY_LINES {
            return Err(ProxyError::Head(HeadError::Syntax));
        }
        let rest = &bytes[skipped..];
        if rest.is_empty() || (self.first_byte.is_none() && rest == b"\r") {
            return Ok(Found::Nothing(skipped));
        }
        self.first_byte.get_or_insert_with(turn::now);
        let size = HeadLimits { size: limits.head_size, fields: limits.max_headers };
        match head::request(rest, self.scanned, size)? {
            Progress::Whole(head, end) => Ok(Found::Head(head, skipped + end)),
            Progress::Partial(scanned) => {
                self.scanned = scanned;
                Ok(Found::Nothing(skipped))
            }
        }
    }

    /// An idle connection is closed without a word; one that has begun a request is told.
    fn poll_patience(
        &self,
        cx: &mut Context<'_>,
        client: &mut Client,
        limits: &ClientLimits,
        since: Instant,
    ) -> Poll<Option<Arrival>> {
        let Some(first_byte) = self.first_byte else {
            if client.info.requests == 0 {
                return client.poll_first(cx, since + limits.header_timeout).map(|()| None);
            }
            if client.task.phase(cx) != Phase::Serving {
                return Poll::Ready(None);
            }
            return client.timer.poll(cx, since + limits.keepalive_timeout).map(|()| None);
        };
        if client.task.phase(cx) == Phase::Killed {
            return Poll::Ready(None);
        }
        match client.timer.poll(cx, first_byte + limits.header_timeout) {
            Poll::Ready(()) => self.arrived(Err(ProxyError::HeadTimeout)),
            Poll::Pending => Poll::Pending,
        }
    }

    fn arrived(&self, head: Result<RequestHead, ProxyError>) -> Poll<Option<Arrival>> {
        Poll::Ready(Some(Arrival { head, started: self.first_byte.unwrap_or_else(turn::now) }))
    }
}
