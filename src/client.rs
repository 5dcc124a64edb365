//! One connection from a client, as everything behind the listener sees it.

use std::cell::RefCell;
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use crate::buffers::Buffers;
use crate::config::ListenAddress;
use crate::error::ProxyError;
use crate::io::{Peer, Pending, Stream};
use crate::proxy_protocol::{Addresses, Tlvs};
use crate::server::limits::Permit;
use crate::server::tasks::{Phase, TaskGuard};
use crate::state::State;
use crate::timer::Timer;
use crate::tls::session::TlsSession;
use crate::turn;

/// How long a client that has sent its FIN is still served without anything moving. It may have closed
/// only its own direction and wait for the answer; it may as well be gone, which looks the same.
const HALF_CLOSED_GRACE: Duration = Duration::from_secs(1);

/// How long after it was accepted a connection is kept in a drain for what its client has to say first: as long as
/// a handshake and a head may take over a long line. A browser that has connected ahead of need holds up no drain.
const FIRST_WITHIN: Duration = Duration::from_secs(2);

/// How long a connection that was ended is still read from.
const LINGER: Duration = Duration::from_secs(2);

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
    /// When it was accepted.
    pub accepted: Instant,
    /// When the client said that it will send nothing more.
    pub half_closed: Option<Instant>,
    /// The configuration that its listener belonged to.
    pub accepted_under: Arc<State>,
}

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub struct ClientInfo {
    /// A number that no other connection of the process has: `$connection`.
    pub id: u64,
    /// Where the client connected from; `None` on a Unix-domain socket. Behind a balancer that speaks the PROXY
    /// protocol it is what that says.
    pub address: Option<SocketAddr>,
    /// What the balancer has said of its client; `None`: none was asked, or the connection is its own.
    pub proxied: Option<Arc<Proxied>>,
    /// Where the client connected to; `None` on a Unix-domain socket.
    pub local: Option<SocketAddr>,
    /// The Unix-domain socket that it connected to.
    pub path: Option<Arc<Path>>,
    /// The address of the listener, as configured.
    pub listener: ListenAddress,
    /// Requests so far, with the one at hand: `$connection_requests`.
    pub requests: u64,
    /// What the handshake of TLS came to; `None`: there was none.
    pub tls: Option<Arc<TlsSession>>,
    /// Whether it speaks HTTP where TLS is spoken.
    pub lacks_tls: bool,
}

impl ClientInfo {
    /// How requests on the connection are sent: `http` or `https`.
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// How the client itself sends them, as far as is known: with a balancer in between that ends TLS it is that
    /// one's word.
    pub fn client_scheme(&self) -> &'static str {
        let is_tls = self.proxied.as_ref().is_some_and(|proxied| proxied.tlvs.is_tls());
        if is_tls { "https" } else { self.scheme() }
    }

    /// Where the client connected to, or a balancer for it if that does not say where; `None` on a Unix-domain
    /// socket.
    pub fn connected_to(&self) -> Option<SocketAddr> {
        let said = self.proxied.as_ref().and_then(|proxied| proxied.addresses);
        said.map(|addresses| addresses.destination).or(self.local)
    }

    /// Where the connection itself comes from: from a balancer, if there is one.
    pub fn connected_from(&self) -> Option<SocketAddr> {
        self.proxied.as_ref().map_or(self.address, |proxied| proxied.balancer)
    }

    /// The address without its port.
    pub fn ip(&self) -> Option<IpAddr> {
        self.address.map(|address| address.ip())
    }
}

/// What a balancer has said of its client by the PROXY protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxied {
    /// Where the balancer connected from; `None` on a Unix-domain socket.
    pub balancer: Option<SocketAddr>,
    /// The client, and where it connected to; `None` if that cannot be told.
    pub addresses: Option<Addresses>,
    /// What else it has said.
    pub tlvs: Tlvs,
}

/// What a look at a client that is waiting for its answer found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// It is there.
    Present,
    /// It has reset the connection.
    Gone,
}

impl AsRef<ClientInfo> for Client {
    fn as_ref(&self) -> &ClientInfo {
        &self.info
    }
}

/// For those who ask what would become of a request of a client that is not there.
impl AsRef<ClientInfo> for ClientInfo {
    fn as_ref(&self) -> &ClientInfo {
        self
    }
}

impl Client {
    /// Looks whether the client is still there, and reads ahead a bounded amount: the only way to see
    /// its FIN. To be called while nothing else reads from the client.
    pub fn watch(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Watch {
        if let Stream::Http2(stream) = &mut self.peer.stream {
            // The end of what it sends is that of the request, and nothing can come behind it.
            return if stream.poll_gone(cx).is_ready() { Watch::Gone } else { Watch::Present };
        }
        while self.half_closed.is_none() && self.peer.ahead.len() < READ_AHEAD {
            let most = READ_AHEAD.min(buffer.len());
            match self.peer.stream.poll_read(cx, &mut buffer[..most]) {
                Poll::Ready(Ok(0)) => self.half_closed = Some(turn::now()),
                Poll::Ready(Ok(count)) => self.peer.ahead.extend_from_slice(&buffer[..count]),
                Poll::Ready(Err(_)) => return Watch::Gone,
                Poll::Pending => break,
            }
        }
        Watch::Present
    }

    /// Waits for the first that a client has to say, until `deadline`. In a drain only for a moment after it has connected:
    /// a client that came right before is about to ask, and would take a close for a failure.
    pub fn poll_first(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        match self.task.phase(cx) {
            Phase::Serving => self.timer.poll(cx, deadline),
            Phase::Draining(_) => self.timer.poll(cx, deadline.min(self.accepted + FIRST_WITHIN)),
            Phase::Killed => Poll::Ready(()),
        }
    }

    /// The time by which something must have moved, and what it means if nothing has: `timeout` after the
    /// last time that it did, or much sooner if the client may be gone.
    pub fn deadline(&self, last: Instant, timeout: Duration, error: ProxyError) -> (Instant, ProxyError) {
        let deadline = last + timeout;
        match self.half_closed.map(|since| since.max(last) + HALF_CLOSED_GRACE) {
            Some(sooner) if sooner < deadline => (sooner, ProxyError::ClientGone(None)),
            _ => (deadline, error),
        }
    }

    /// Sends bytes that are in hand; `false` if the client did not take them within `timeout`.
    pub async fn send(&mut self, bytes: &[u8], timeout: Duration) -> bool {
        let mut pending = Pending::default();
        pending.push(bytes);
        let deadline = turn::now() + timeout;
        poll_fn(|cx| match pending.poll_flush(cx, &mut self.peer.stream) {
            Poll::Ready(sent) => Poll::Ready(sent.is_ok()),
            Poll::Pending => self.timer.poll(cx, deadline).map(|()| false),
        })
        .await
    }

    /// Reads a body of `left` bytes that nobody wants, so that the next request can be read; `false` if it
    /// did not come within `timeout`.
    pub async fn discard(&mut self, mut left: u64, buffers: &RefCell<Buffers>, timeout: Duration) -> bool {
        let deadline = turn::now() + timeout;
        poll_fn(|cx| {
            if self.task.phase(cx) == Phase::Killed {
                return Poll::Ready(false);
            }
            let mut buffers = buffers.borrow_mut();
            while left > 0 {
                match self.peer.poll_next(cx, &mut buffers.input) {
                    Poll::Ready(Ok(count)) if count > 0 => {
                        let own = usize::try_from(left).unwrap_or(usize::MAX).min(count);
                        self.peer.put_back(&buffers.input[own..count]);
                        left -= own as u64;
                    }
                    Poll::Ready(_) => return Poll::Ready(false),
                    Poll::Pending => return self.timer.poll(cx, deadline).map(|()| false),
                }
            }
            Poll::Ready(true)
        })
        .await
    }

    /// Before the end of a connection on which nothing is under way: with TLS, an end that is not announced could
    /// be anybody's doing (RFC 8446 §6.1). Nothing is waited for.
    pub async fn bid_farewell(&mut self) {
        if let Stream::Tls(tls) = &mut self.peer.stream {
            poll_fn(|cx| {
                let _ = tls.poll_shutdown_write(cx);
                Poll::Ready(())
            })
            .await;
        }
    }

    /// Ends the connection so that the answer arrives: closing a socket with unread bytes in it resets the
    /// connection, which takes the answer away from a client that is still sending (nginx:
    /// `lingering_close`).
    pub async fn linger(&mut self, buffers: &RefCell<Buffers>) {
        let deadline = turn::now() + LINGER;
        let mut told = false;
        poll_fn(|cx| {
            if self.task.phase(cx) == Phase::Killed {
                return Poll::Ready(());
            }
            if !told && self.peer.stream.poll_shutdown_write(cx).is_pending() {
                return self.timer.poll(cx, deadline);
            }
            told = true;
            if self.half_closed.is_some() {
                return Poll::Ready(());
            }
            let mut buffers = buffers.borrow_mut();
            loop {
                match self.peer.stream.poll_read(cx, &mut buffers.input) {
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                    Poll::Ready(Ok(_)) => {}
                    Poll::Pending => return self.timer.poll(cx, deadline),
                }
            }
        })
        .await;
    }
}
