//! Opens a connection to an upstream server.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpStream, UnixStream};

use crate::config::{UpstreamAddress, UpstreamServer};
use crate::io::Stream;
use crate::upstream::resolve::Resolver;

/// Connects to the first address of the server that takes the connection. It takes as long as it takes:
/// `proxy_connect_timeout` is the caller's.
///
/// # Errors
/// No address takes it, or the name has none. Nothing was sent, so another server can be tried.
pub async fn connect(server: &UpstreamServer, resolver: &Resolver) -> io::Result<Stream> {
    match &server.address {
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
