//! Opens a connection to an upstream server.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};

use crate::config::{UpstreamAddress, UpstreamServer};
use crate::error::ProxyError;
use crate::io::Stream;
use crate::upstream::resolve::Resolver;

/// Connects within `timeout`, to the first address of the server that takes the connection.
///
/// # Errors
/// [`ProxyError::Connect`] or [`ProxyError::ConnectTimeout`]. Nothing was sent, so another server
/// can be tried.
pub async fn connect(
    server: &UpstreamServer,
    resolver: &Resolver,
    timeout: Duration,
) -> Result<Stream, ProxyError> {
    match tokio::time::timeout(timeout, open(&server.address, resolver)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(ProxyError::Connect(error)),
        Err(_) => Err(ProxyError::ConnectTimeout),
    }
}

async fn open(address: &UpstreamAddress, resolver: &Resolver) -> io::Result<Stream> {
    match address {
        UpstreamAddress::Ip(address) => tcp(*address).await,
        UpstreamAddress::Unix(path) => UnixStream::connect(path).await.map(Stream::Unix),
        UpstreamAddress::Name { host, port } => {
            let mut last = io::Error::from(io::ErrorKind::NotFound);
            // An app on `localhost` may listen on ::1 or on 127.0.0.1 alone: all addresses are tried.
            for address in resolver.lookup(host, *port).await? {
                match tcp(address).await {
                    Ok(stream) => return Ok(stream),
                    Err(error) => last = error,
                }
            }
            resolver.doubt(host, *port);
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
