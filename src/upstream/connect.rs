//! Opens a connection to an upstream server.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};

use crate::config::UpstreamAddress;
use crate::io::Stream;
use crate::upstream::resolve::Resolver;

/// Connects to the first address of a server that takes the connection. The caller stops waiting after
/// `timeout`; of several addresses each gets an equal part of it, so that a silent one does not hide the
/// next.
///
/// # Errors
/// No address takes it, or the name has none. Nothing was sent, so another server can be tried.
pub async fn connect(
    address: &UpstreamAddress,
    resolver: &Resolver,
    timeout: Duration,
) -> io::Result<Stream> {
    match address {
        UpstreamAddress::Ip(address) => tcp(*address).await,
        UpstreamAddress::Unix(path) => UnixStream::connect(path).await.map(Stream::Unix),
        UpstreamAddress::Name { host, port } => {
            let addresses = resolver.lookup(host, *port).await?;
            let share = timeout / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
            let mut last = io::Error::from(io::ErrorKind::NotFound);
            // An app on `localhost` may listen on ::1 or on 127.0.0.1 alone: all addresses are tried.
            for address in addresses {
                match tokio::time::timeout(share, tcp(address)).await {
                    Ok(Ok(stream)) => return Ok(stream),
                    Ok(Err(error)) => last = error,
                    Err(_) => last = io::ErrorKind::TimedOut.into(),
                }
            }
            Err(last)
        }
    }
}

async fn tcp(address: SocketAddr) -> io::Result<Stream> {
    let stream = TcpStream::connect(address).await?;
    // WebSocket messages are small and wait for their answer: Nagle's algorithm would hold them back.
    stream.set_nodelay(true)?;
    Ok(Stream::Tcp(stream))
}
