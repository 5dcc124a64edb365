//! Opens a connection to an upstream server.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UnixStream};

use crate::config::UpstreamAddress;
use crate::io::Stream;
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
                let mut stream = UnixStream::connect(path).await?;
                self.introduce(&mut stream).await?;
                Ok((self.secure(Stream::Unix(stream)).await?, None))
            }
            UpstreamAddress::Name { host, port } => {
                let addresses = resolver.lookup(host, *port).await?;
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
                        resolver.put_last(host, *port, address);
                    }
                }
                Err(last)
            }
        }
    }

    async fn tcp(&self, address: SocketAddr) -> Result<Stream, ConnectError> {
        self.is_taken.set(false);
        let mut stream = TcpStream::connect(address).await?;
        // WebSocket messages are small and wait for their answer: Nagle's algorithm would hold them back.
        stream.set_nodelay(true)?;
        self.introduce(&mut stream).await?;
        self.secure(Stream::Tcp(stream)).await
    }

    /// The header of the PROXY protocol stands ahead of everything, TLS included, and goes out in one piece.
    async fn introduce(&self, stream: &mut (impl AsyncWriteExt + Unpin)) -> io::Result<()> {
        match &self.header {
            Some(header) => stream.write_all(&header.bytes()).await,
            None => Ok(()),
        }
    }

    async fn secure(&self, stream: Stream) -> Result<Stream, ConnectError> {
        let Some(secured) = self.secured else { return Ok(stream) };
        self.is_taken.set(true);
        secured.handshake(stream, self.address).await.map_err(ConnectError::Tls)
    }
}
