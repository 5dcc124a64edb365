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
/// next. With the connection comes the address that a name stood for.
///
/// # Errors
/// No address takes it, or the name has none. Nothing was sent, so another server can be tried.
pub async fn connect(
    address: &UpstreamAddress,
    resolver: &Resolver,
    timeout: Duration,
) -> io::Result<(Stream, Option<SocketAddr>)> {
    match address {
        UpstreamAddress::Ip(address) => tcp(*address).await.map(|stream| (stream, None)),
        UpstreamAddress::Unix(path) => Ok((Stream::Unix(UnixStream::connect(path).await?), None)),
        UpstreamAddress::Name { host, port } => {
            let addresses = resolver.lookup(host, *port).await?;
            let share = timeout / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
            let is_one_of_several = addresses.len() > 1;
            let mut last = io::Error::from(io::ErrorKind::NotFound);
            // An app on `localhost` may listen on ::1 or on 127.0.0.1 alone: all addresses are tried.
            for address in addresses {
                match tokio::time::timeout(share, tcp(address)).await {
                    Ok(Ok(stream)) => return Ok((stream, Some(address))),
                    Ok(Err(error)) => last = error,
                    Err(_) => last = io::ErrorKind::TimedOut.into(),
                }
                if is_one_of_several {
                    resolver.put_last(host, *port, address);
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
