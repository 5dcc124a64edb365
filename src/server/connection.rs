//! Speaks HTTP/1.1 with one client: one request after the other, within the limits and timeouts.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::time::Instant;

use crate::client::Client;
use crate::config::ClientLimits;
use crate::error::ProxyError;
use crate::http1::head::{self, HeadLimits, Progress, RequestHead};
use crate::proxy;
use crate::server::tasks::Phase;
use crate::shared::Local;

/// Serves a client until its connection ends, or has become a tunnel.
pub async fn serve(local: Rc<Local>, mut client: Client) {
    while let Some(arrival) = next(&local, &mut client).await {
        match arrival.head {
            Ok(head) => match proxy::handle(&local, client, head, arrival.started).await {
                Some(served) => client = served,
                None => return,
            },
            Err(error) => return proxy::refuse(&local, client, error, arrival.started).await,
        }
    }
}

/// A head, or what came instead of one.
struct Arrival {
    head: Result<RequestHead, ProxyError>,
    /// When its first byte came.
    started: Instant,
}

/// Waits for the next head; `None` when the connection is over.
async fn next(local: &Rc<Local>, client: &mut Client) -> Option<Arrival> {
    let state = local.state();
    let limits = state
        .default_server(&client.info.listener)
        .or_else(|| client.accepted_under.default_server(&client.info.listener))
        .map(|server| server.limits.clone())?;
    drop(state);
    let mut waiting = Waiting {
        since: Instant::now(),
        first_byte: (!client.peer.ahead.is_empty()).then(Instant::now),
        scanned: 0,
    };
    poll_fn(|cx| waiting.poll(cx, local, client, &limits)).await
}

/// What is known while a head is waited for.
struct Waiting {
    since: Instant,
    first_byte: Option<Instant>,
    /// How much of what was read ahead was looked at for the end of the head.
    scanned: usize,
}

impl Waiting {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        local: &Local,
        client: &mut Client,
        limits: &ClientLimits,
    ) -> Poll<Option<Arrival>> {
        let size = HeadLimits { size: limits.head_size, fields: limits.max_headers };
        let mut buffers = local.buffers.borrow_mut();
        loop {
            if self.scanned < client.peer.ahead.len() {
                match head::request(&client.peer.ahead, self.scanned, size) {
                    Ok(Progress::Partial(scanned)) => self.scanned = scanned,
                    Ok(Progress::Whole(head, end)) => {
                        client.peer.consume(end);
                        return self.arrived(Ok(head));
                    }
                    Err(error) => return self.arrived(Err(error.into())),
                }
            }
            match client.peer.stream.poll_read(cx, &mut buffers.input) {
                Poll::Pending => break,
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(None),
                Poll::Ready(Ok(count)) => {
                    self.first_byte.get_or_insert_with(Instant::now);
                    let bytes = &buffers.input[..count];
                    if client.peer.ahead.is_empty() {
                        // The usual case: a whole head in one piece, read without another copy.
                        match head::request(bytes, 0, size) {
                            Ok(Progress::Whole(head, end)) => {
                                client.peer.ahead.extend_from_slice(&bytes[end..]);
                                return self.arrived(Ok(head));
                            }
                            Ok(Progress::Partial(scanned)) => self.scanned = scanned,
                            Err(error) => return self.arrived(Err(error.into())),
                        }
                    }
                    client.peer.ahead.extend_from_slice(bytes);
                }
            }
        }
        self.poll_patience(cx, client, limits)
    }

    /// An idle connection is closed without a word; one that has begun a request is told.
    fn poll_patience(
        &self,
        cx: &mut Context<'_>,
        client: &mut Client,
        limits: &ClientLimits,
    ) -> Poll<Option<Arrival>> {
        let Some(first_byte) = self.first_byte else {
            if client.task.phase(cx) != Phase::Serving {
                return Poll::Ready(None);
            }
            let patience =
                if client.info.requests == 0 { limits.header_timeout } else { limits.keepalive_timeout };
            return client.timer.poll(cx, self.since + patience).map(|()| None);
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
        Poll::Ready(Some(Arrival { head, started: self.first_byte.unwrap_or(self.since) }))
    }
}
