//! One connection from a client, as everything behind the listener sees it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use crate::config::ListenAddress;
use crate::io::Peer;
use crate::proxy::State;
use crate::server::limits::Permit;
use crate::server::tasks::TaskGuard;
use crate::timer::Timer;

/// How long a client that has sent its FIN is still served without anything moving. It may have closed
/// only its own direction and wait for the answer; it may as well be gone, which looks the same.
pub const HALF_CLOSED_GRACE: Duration = Duration::from_secs(1);

/// The most bytes that are read ahead of their use: enough for pipelined requests, bounded for all.
const READ_AHEAD: usize = 16 * 1024;

/// A connection from a client.
#[derive(Debug)]
pub struct Client {
    /// The connection itself.
    pub peer: Peer,
    /// Who is at its other end.
    pub info: ClientInfo,
    /// For everything that the connection's task waits for.
    pub timer: Timer,
    /// By which the worker knows of the connection.
    pub task: TaskGuard,
    /// Its share of `max_connections`.
    pub permit: Permit,
    /// Whether the client has said that it will send nothing more.
    pub half_closed: bool,
    /// The configuration that its listener belonged to.
    pub accepted_under: Arc<State>,
}

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub struct ClientInfo {
    /// A number that no other connection of the process has: `$connection`.
    pub id: u64,
    /// Where the client connected from; `None` on a Unix-domain socket.
    pub address: Option<SocketAddr>,
    /// Where the client connected to; `None` on a Unix-domain socket.
    pub local: Option<SocketAddr>,
    /// The address of the listener, as configured.
    pub listener: ListenAddress,
    /// Requests so far, with the one at hand: `$connection_requests`.
    pub requests: u64,
}

impl ClientInfo {
    /// The address without its port.
    pub fn ip(&self) -> Option<IpAddr> {
        self.address.map(|address| address.ip())
    }
}

/// What a look at a client that is waiting for its answer found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// It is there.
    Present,
    /// It has reset the connection.
    Gone,
}

impl Client {
    /// Looks whether the client is still there, and reads ahead a bounded amount: the only way to see
    /// its FIN. To be called while nothing else reads from the client.
    pub fn watch(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Watch {
        while !self.half_closed && self.peer.ahead.len() < READ_AHEAD {
            let most = READ_AHEAD.min(buffer.len());
            match self.peer.stream.poll_read(cx, &mut buffer[..most]) {
                Poll::Ready(Ok(0)) => self.half_closed = true,
                Poll::Ready(Ok(count)) => self.peer.ahead.extend_from_slice(&buffer[..count]),
                Poll::Ready(Err(_)) => return Watch::Gone,
                Poll::Pending => break,
            }
        }
        Watch::Present
    }

    /// The time by which something must have moved: `timeout` after the last time that it did, or
    /// much sooner if the client may be gone.
    pub fn deadline(&self, last: Instant, timeout: Duration) -> Instant {
        last + if self.half_closed { timeout.min(HALF_CLOSED_GRACE) } else { timeout }
    }
}
