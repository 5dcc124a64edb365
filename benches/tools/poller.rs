//! Epoll, edge-triggered: a socket is added once, with a number, and told of from then on.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::net::SocketFlags;
use socket2::{Domain, Socket, Type};

/// An epoll instance and the events it told of last.
pub struct Poller {
    epoll: OwnedFd,
    events: Vec<Event>,
}

/// A socket where something has happened.
#[derive(Clone, Copy)]
pub struct Ready {
    /// The number that it was given.
    pub number: usize,
    /// Whether its end stands behind what can be read: a short read is then not the last one.
    pub is_ending: bool,
}

impl Poller {
    /// With nothing in it.
    pub fn new() -> io::Result<Self> {
        Ok(Self { epoll: epoll::create(CreateFlags::CLOEXEC)?, events: Vec::with_capacity(256) })
    }

    /// Watches a socket, under this number.
    pub fn add(&self, socket: impl AsFd, number: usize) -> io::Result<()> {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        Ok(epoll::add(&self.epoll, socket, EventData::new_u64(number as u64), flags)?)
    }

    /// The sockets where something has happened, within this time.
    pub fn wait(&mut self, at_most: Option<Duration>, ready: &mut Vec<Ready>) -> io::Result<()> {
        self.events.clear();
        ready.clear();
        let timeout = at_most.map(|time| time.try_into().expect("a time that is no age"));
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.events), timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ending = EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR;
        ready.extend(self.events.iter().map(|event| {
            // Copies: the fields of this struct are not aligned.
            let (data, flags) = (event.data, event.flags);
            Ready { number: data.u64() as usize, is_ending: flags.intersects(ending) }
        }));
        Ok(())
    }
}

/// Listens on a port of the system's choice, and prints which.
pub fn listen() -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None)?;
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    socket.listen(4096)?;
    let listener = TcpListener::from(socket);
    println!("{}", listener.local_addr()?);
    Ok(listener)
}

/// The next connection that waits.
pub fn accept(listener: &TcpListener) -> io::Result<Option<TcpStream>> {
    match rustix::net::accept_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
        Ok(socket) => {
            let socket = TcpStream::from(socket);
            socket.set_nodelay(true)?;
            Ok(Some(socket))
        }
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::CONNABORTED) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Begins to connect: what is written before it is done waits, as with a full socket.
pub fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM.nonblocking(), None)?;
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
            return Err(error);
        }
        _ => {}
    }
    socket.set_tcp_nodelay(true)?;
    Ok(socket.into())
}

/// `None` where the socket has to be waited for.
pub fn unless_blocked(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(count) => Ok(Some(count)),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Makes the end of a connection an abnormal one: no port waits for what might still come.
pub fn reset(socket: &TcpStream) {
    // It fails when the connection is gone already, which is what was wanted.
    let _ = socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO));
}
