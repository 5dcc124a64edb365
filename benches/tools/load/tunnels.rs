//! Tunnels by number, over HTTP/1.1 with a connection each or over HTTP/2 with some on each connection.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use rustls::ClientConfig;

use crate::http2::{Http2, Said};
use crate::link::{self, Link};
use crate::poller::{Poller, Ready, reset};
use crate::websocket;

/// What has happened to a tunnel.
#[derive(Clone, Copy)]
pub enum Happened {
    /// It is open.
    Opened,
    /// So many bytes have come.
    Bytes(usize),
}

/// All tunnels.
pub struct Tunnels {
    to: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
    /// How many connections that have ended had begun with a full handshake.
    new_sessions: usize,
    /// Tunnels on a connection of HTTP/2; 0: HTTP/1.1.
    streams: usize,
    path: String,
    poller: Poller,
    ready: Vec<Ready>,
    connections: Vec<Connection>,
    buffer: Vec<u8>,
}

struct Connection {
    link: Link,
    speaks: Speaks,
}

enum Speaks {
    /// The head of the answer, as far as it came.
    Handshake(Vec<u8>),
    WebSocket,
    Http2(Box<Http2>),
}

impl Tunnels {
    /// None yet.
    pub fn new(
        to: SocketAddr,
        ca: Option<&Path>,
        resumes: bool,
        streams: usize,
        path: String,
    ) -> io::Result<Self> {
        let protocol = if streams == 0 { "http/1.1" } else { "h2" };
        Ok(Self {
            to,
            tls: ca.map(|ca| link::tls(ca, protocol, resumes)).transpose()?,
            new_sessions: 0,
            streams,
            path,
            poller: Poller::new()?,
            ready: Vec::new(),
            connections: Vec::new(),
            buffer: vec![0; 256 * 1024],
        })
    }

    /// Begins a further connection; how many tunnels it will have, of those that are wanted.
    pub fn connect(&mut self, wanted: usize) -> io::Result<usize> {
        let connection = self.connection()?;
        self.poller.add(&connection.link.socket, self.connections.len())?;
        self.connections.push(connection);
        let has = self.streams.max(1);
        if wanted < has { Err(io::Error::other("not a whole number of connections")) } else { Ok(has) }
    }

    /// Ends the only tunnel of a connection abnormally and begins another in its place.
    pub fn reconnect(&mut self, tunnel: usize) -> io::Result<()> {
        self.reset(tunnel);
        let connection = self.connection()?;
        self.poller.add(&connection.link.socket, tunnel)?;
        self.connections[tunnel] = connection;
        Ok(())
    }

    /// Ends the only tunnel of a connection abnormally, once it is dropped or replaced.
    pub fn reset(&mut self, tunnel: usize) {
        let link = &self.connections[tunnel].link;
        self.new_sessions += usize::from(link.is_new_session());
        reset(&link.socket);
    }

    /// How many connections that were reset had begun with a full handshake of TLS.
    pub fn new_sessions(&self) -> usize {
        self.new_sessions
    }

    fn connection(&self) -> io::Result<Connection> {
        let mut link = Link::open(self.to, self.tls.as_ref())?;
        let speaks = if self.streams > 0 {
            let mut http2 = Box::new(Http2::new());
            link.send(&http2.out)?;
            http2.out.clear();
            Speaks::Http2(http2)
        } else {
            link.send(handshake(&self.path).as_bytes())?;
            Speaks::Handshake(Vec::new())
        };
        Ok(Connection { link, speaks })
    }

    /// Sends; over HTTP/2 with the next [`Tunnels::flush`].
    pub fn send(&mut self, tunnel: usize, bytes: &[u8]) -> io::Result<()> {
        let has = self.streams.max(1);
        let connection = &mut self.connections[tunnel / has];
        match &mut connection.speaks {
            Speaks::Http2(http2) => http2.send((tunnel % has) as u32 * 2 + 1, bytes),
            _ => connection.link.send(bytes)?,
        }
        Ok(())
    }

    /// Sends what was collected for each connection of HTTP/2.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.streams == 0 {
            return Ok(());
        }
        for Connection { link, speaks } in &mut self.connections {
            if let Speaks::Http2(http2) = speaks
                && !http2.out.is_empty()
            {
                link.send(&http2.out)?;
                http2.out.clear();
            }
        }
        Ok(())
    }

    /// Waits until something has happened, and says what.
    pub fn wait(&mut self, until: Instant, happened: &mut Vec<(usize, Happened)>) -> io::Result<()> {
        if Instant::now() >= until {
            return Err(io::Error::other("the proxy does not get on"));
        }
        self.look(until, happened)
    }

    /// The same; by this time nothing may have happened.
    pub fn look(&mut self, until: Instant, happened: &mut Vec<(usize, Happened)>) -> io::Result<()> {
        happened.clear();
        self.poller.wait(Some(until.saturating_duration_since(Instant::now())), &mut self.ready)?;
        for ready in &self.ready {
            let Connection { link, speaks } = &mut self.connections[ready.number];
            link.flush()?;
            let first = ready.number * self.streams.max(1);
            let mut take = |bytes: &[u8]| speaks.receive(bytes, first, happened);
            while link.receive(&mut self.buffer, &mut take)? {}
            if let Speaks::Http2(http2) = speaks {
                http2.open_all(self.streams, &self.path);
                link.send(&http2.out)?;
                http2.out.clear();
            }
        }
        Ok(())
    }
}

impl Speaks {
    fn receive(
        &mut self,
        bytes: &[u8],
        first: usize,
        happened: &mut Vec<(usize, Happened)>,
    ) -> io::Result<()> {
        match self {
            Self::WebSocket => happened.push((first, Happened::Bytes(bytes.len()))),
            Self::Handshake(head) => {
                head.extend_from_slice(bytes);
                let Some(end) = memchr::memmem::find(head, b"\r\n\r\n") else { return Ok(()) };
                if !head.starts_with(b"HTTP/1.1 101 ") {
                    let head = String::from_utf8_lossy(head);
                    return Err(io::Error::other(format!("the proxy has refused a WebSocket: {head}")));
                }
                happened.push((first, Happened::Opened));
                if head.len() > end + 4 {
                    happened.push((first, Happened::Bytes(head.len() - end - 4)));
                }
                *self = Self::WebSocket;
            }
            Self::Http2(http2) => {
                http2.receive(bytes, |said| match said {
                    Said::Opened(stream) => happened.push((first + stream as usize / 2, Happened::Opened)),
                    Said::Bytes(stream, count) => {
                        happened.push((first + stream as usize / 2, Happened::Bytes(count)));
                    }
                })?;
            }
        }
        Ok(())
    }
}

fn handshake(path: &str) -> String {
    let key = websocket::KEY;
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
    )
}
