//! Opens a connection to an upstream server.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpStream, UnixStream};

use crate::config::UpstreamAddress;
use crate::io::{Pending, Stream};
use crate::proxy_protocol::Outgoing;
use crate::upstream::resolve::Resolver;
use crate::upstream::tls::{Secured, TlsError};

/// Why there is no connection.
#[derive(Debug)]
pub enum ConnectError {
    /// Nobody takes it.
    Io(io::Error),
    /// TLS has failed on it.
    Tls(TlsError),
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// To which server, and how.
#[derive(Debug)]
pub struct Connecting<'a> {
    /// Where it is.
    pub address: &'a UpstreamAddress,
    /// How the connection is secured.
    pub secured: Option<&'a Secured>,
    /// What it is told first of all, in clear: whose connection it is.
    pub header: Option<Outgoing>,
    /// Whether the server has taken the connection, and TLS is what is waited for.
    pub is_taken: &'a Cell<bool>,
}

impl Connecting<'_> {
    /// Connects to the first address of a server that takes the connection. The caller stops waiting after
    /// `timeout`; of several addresses each gets an equal part of it, so that a silent one does not hide the
    /// next. With the connection comes the address that a name stood for.
    ///
    /// # Errors
    /// No address takes it, or the name has none. Nothing was sent, so another server can be tried.
    pub async fn connect(
        &self,
        resolver: &Resolver,
        timeout: Duration,
    ) -> Result<(Stream, Option<SocketAddr>), ConnectError> {
        match self.address {
            UpstreamAddress::Ip(address) => Ok((self.tcp(*address).await?, None)),
            UpstreamAddress::Unix(path) => {
                let mut stream = Stream::Unix(UnixStream::connect(path).await?);
                self.introduce(&mut stream).await?;
                Ok((self.secure(stream).await?, None))
            }
            UpstreamAddress::Name { .. } | UpstreamAddress::Service(_) => {
                let addresses = resolver.addresses(self.address).await?;
                let share = timeout / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
                let is_one_of_several = addresses.len() > 1;
                let mut last = io::Error::from(io::ErrorKind::NotFound).into();
                // An app on `localhost` may listen on ::1 or on 127.0.0.1 alone: all addresses are tried.
                for address in addresses {
                    match tokio::time::timeout(share, self.tcp(address)).await {
                        Ok(Ok(stream)) => return Ok((stream, Some(address))),
                        Ok(Err(error)) => last = error,
                        Err(_) => last = io::Error::from(io::ErrorKind::TimedOut).into(),
                    }
                    if is_one_of_several {
                        resolver.put_last(self.address, address);
                    }
                }
                Err(last)
            }
        }
    }

    async fn tcp(&self, address: SocketAddr) -> Result<Stream, ConnectError> {
        self.is_taken.set(false);
        let mut stream = connect(address).await?;
        self.introduce(&mut stream).await?;
        self.secure(stream).await
    }

    /// The header of the PROXY protocol stands ahead of everything, TLS included, and goes out in one piece.
    async fn introduce(&self, stream: &mut Stream) -> io::Result<()> {
        let Some(header) = &self.header else { return Ok(()) };
        let mut pending = Pending::default();
        pending.push(&header.bytes());
        poll_fn(|cx| pending.poll_flush(cx, stream)).await
    }

    async fn secure(&self, stream: Stream) -> Result<Stream, ConnectError> {
        let Some(secured) = self.secured else { return Ok(stream) };
        self.is_taken.set(true);
        secured.handshake(stream, self.address).await.map_err(ConnectError::Tls)
    }
}

/// Connects over TCP, and waits for it only where it takes time.
async fn connect(address: SocketAddr) -> io::Result<Stream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    // WebSocket messages are small and wait for their answer: Nagle's algorithm would hold them back.
    socket.set_tcp_nodelay(true)?;
    match socket.connect(&address.into()) {
        Err(error) if Errno::from_io_error(&error) != Some(Errno::INPROGRESS) => return Err(error),
        // Within a machine the peer has answered by now, of which the call says nothing.
        _ if socket.peer_addr().is_ok() => return Ok(Stream::new_tcp(TcpStream::from_std(socket.into())?)),
        _ => {}
    }
    let stream = TcpStream::from_std(socket.into())?;
    // connect(2): it becomes writable, and so does one that has failed.
    poll_fn(|cx| stream.poll_write_ready(cx)).await?;
    match stream.take_error()? {
        None => Ok(Stream::tcp(stream)),
        Some(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::{Context, Poll, Waker};
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn a_connection_within_the_machine_takes_bytes_before_the_runtime_looks_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut cx = Context::from_waker(Waker::noop());
        let Poll::Ready(stream) = std::pin::pin!(connect(address)).poll(&mut cx) else {
            panic!("it waits for the runtime");
        };
        let mut stream = stream.unwrap();
        assert!(matches!(stream.poll_write(&mut cx, b"at once"), Poll::Ready(Ok(7))));
        // What comes next waits for the runtime, as with any other.
        assert!(stream.poll_write(&mut cx, b", later").is_pending());
        poll_fn(|cx| stream.poll_write(cx, b", later")).await.unwrap();
        drop(stream);
        let mut received = String::new();
        listener.accept().await.unwrap().0.read_to_string(&mut received).await.unwrap();
        assert_eq!(received, "at once, later");
    }
}
