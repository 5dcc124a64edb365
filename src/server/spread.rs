//! Keeps the connections of the process spread over its workers: one that has far more than another hands it the
//! connection that it has just accepted.
//!
//! With a socket for each worker (`SO_REUSEPORT`) the kernel spreads connections by chance, and knows nothing of those that
//! have ended since. One socket for all, as systemd passes it or in the file system, goes to whichever worker is
//! awake first. Tunnels live for hours, and so would what came of that.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::sync::mpsc::{UnboundedSender, WeakUnboundedSender};

use crate::io::Stream;
use crate::server::listener::Entrance;
use crate::server::worker::Order;
use crate::state::State;

/// So many connections more than another worker are none too many: chance alone makes as much of a difference among a few
/// short ones, and to hand one over wakes another thread.
const MORE: usize = 8;
/// Nor is so small a part of what the other worker has.
const PART: usize = 8;

/// How much a worker has to do: its connections, tunnels, and streams of HTTP/2.
pub type Load = Arc<AtomicUsize>;

/// The workers of a process, as one of them sees them.
#[derive(Debug, Default)]
pub struct Workers {
    own: Load,
    others: Box<[Worker]>,
}

#[derive(Clone, Debug)]
struct Worker {
    load: Load,
    /// Weak, because a worker ends when nobody is left who could order it anything.
    orders: WeakUnboundedSender<Order>,
}

/// A connection on its way to the worker that will serve it.
#[derive(Debug)]
pub struct HandedOver {
    /// Where it came in.
    pub entrance: Arc<Entrance>,
    /// What was accepted.
    pub socket: Socket,
    /// Who is at the other end.
    pub peer: Option<SocketAddr>,
    /// The configuration of the worker that has accepted it, which knows the listener.
    pub state: Arc<State>,
    /// Counts for the worker that it goes to from now on: else a hundred would go there before it has taken the first.
    _expected: Expected,
}

/// A socket that no runtime watches.
#[derive(Debug)]
pub enum Socket {
    /// Of TCP.
    Tcp(OwnedFd),
    /// Of the file system.
    Unix(OwnedFd),
}

#[derive(Debug)]
struct Expected(Load);

impl Workers {
    /// What each of the workers gets that take these orders.
    pub fn all(orders: &[UnboundedSender<Order>]) -> Vec<Self> {
        let worker =
            |orders: &UnboundedSender<Order>| Worker { load: Load::default(), orders: orders.downgrade() };
        let workers: Vec<_> = orders.iter().map(worker).collect();
        let but = |index: usize| {
            let others = workers.iter().enumerate().filter(|(other, _)| *other != index);
            others.map(|(_, worker)| worker.clone()).collect()
        };
        workers
            .iter()
            .enumerate()
            .map(|(index, own)| Self { own: Arc::clone(&own.load), others: but(index) })
            .collect()
    }

    /// That of this worker.
    pub fn load(&self) -> Load {
        Arc::clone(&self.own)
    }

    /// Hands a connection to a worker that has far less to do; gives it back if there is none. Of many workers one is
    /// looked at, by chance: that spreads as well, and costs the same however many there are.
    pub fn hand_over(
        &self,
        entrance: &Arc<Entrance>,
        stream: Stream,
        peer: Option<SocketAddr>,
        state: impl FnOnce() -> Arc<State>,
    ) -> Option<Stream> {
        let Some(other) = self.others.get(self.chance()) else { return Some(stream) };
        let load = other.load.load(Relaxed);
        if self.own.load(Relaxed) <= load + MORE + load / PART {
            return Some(stream);
        }
        let Some(orders) = other.orders.upgrade() else { return Some(stream) };
        let socket = Socket::of(stream)?;
        let _expected = Expected::at(&other.load);
        let handed = HandedOver { entrance: Arc::clone(entrance), socket, peer, state: state(), _expected };
        match orders.send(Order::Serve(Box::new(handed))) {
            Ok(()) => None,
            // It has ended meanwhile.
            Err(refused) => match refused.0 {
                Order::Serve(handed) => handed.socket.watched(),
                _ => None,
            },
        }
    }

    fn chance(&self) -> usize {
        match self.others.len() {
            0 | 1 => 0,
            many => fastrand::usize(..many),
        }
    }
}

impl Socket {
    /// Takes a stream from the runtime; `None` if that fails, which ends the connection.
    fn of(stream: Stream) -> Option<Self> {
        match stream {
            Stream::Tcp { stream: tcp, .. } => Some(Self::Tcp(tcp.into_std().ok()?.into())),
            Stream::Unix(unix) => Some(Self::Unix(unix.into_std().ok()?.into())),
            Stream::Tls(_) | Stream::Http2(_) => None,
        }
    }

    /// Gives it to the runtime of this thread; `None` as above.
    pub fn watched(self) -> Option<Stream> {
        let stream = match self {
            Self::Tcp(socket) => {
                let socket = std::net::TcpStream::from(socket);
                tokio::net::TcpStream::from_std(socket).map(Stream::tcp)
            }
            Self::Unix(socket) => {
                let socket = std::os::unix::net::UnixStream::from(socket);
                tokio::net::UnixStream::from_std(socket).map(Stream::Unix)
            }
        };
        stream
            .inspect_err(|error| tracing::error!(%error, "a connection cannot be served by another worker"))
            .ok()
    }
}

impl Expected {
    fn at(load: &Load) -> Self {
        load.fetch_add(1, Relaxed);
        Self(Arc::clone(load))
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
