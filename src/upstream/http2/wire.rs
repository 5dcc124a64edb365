//! The connection under HTTP/2 towards an upstream: what h2 writes is gathered, and goes out once its turn is over.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::io::Stream;

/// So much may wait to be sent before h2 is asked to wait.
const MOST: usize = 64 * 1024;

/// The head of a frame: its length (3), type, flags, and stream (4).
const FRAME_HEAD: usize = 9;
/// The type of a SETTINGS frame, RFC 9113 §6.5.
const SETTINGS: u8 = 4;

/// A connection under HTTP/2. h2 writes each frame of content by itself; a call of the system for each of them, or a
/// record of TLS, would cost more than the frame. It writes into memory, and [`Wire::poll_drain`] sends it.
#[derive(Debug)]
pub(super) struct Wire {
    stream: Stream,
    out: Vec<u8>,
    sent: usize,
    /// When something was last read.
    heard: Instant,
    /// The first bytes, as long as they are looked at.
    first: Vec<u8>,
}

impl Wire {
    /// On which nothing was said yet.
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, out: Vec::new(), sent: 0, heard: Instant::now(), first: Vec::new() }
    }

    /// When something was last read.
    pub(super) fn heard(&self) -> Instant {
        self.heard
    }

    /// Lends a buffer for the next turn, unless something waits in the one that it has.
    pub(super) fn lend(&mut self, buffer: &mut Vec<u8>) {
        if self.out.is_empty() {
            buffer.clear();
            std::mem::swap(&mut self.out, buffer);
        }
    }

    /// Gives the buffer back, if nothing waits in it.
    pub(super) fn give_back(&mut self, buffer: &mut Vec<u8>) {
        if self.out.is_empty() {
            std::mem::swap(&mut self.out, buffer);
            self.out = Vec::new();
        }
    }

    /// Sends what waits. Bytes that come later are added behind it, which TLS relies on.
    pub(super) fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.out.len() {
            match ready!(self.stream.poll_write(cx, &self.out[self.sent..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.sent += count,
            }
        }
        self.out.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }

    /// RFC 9113 §3.4: the first thing that a server sends is a SETTINGS frame. What is no HTTP/2 would be told by h2
    /// in words that nobody understands.
    fn check(&mut self, bytes: &[u8]) -> io::Result<()> {
        let missing = FRAME_HEAD - self.first.len();
        self.first.extend_from_slice(&bytes[..bytes.len().min(missing)]);
        let wrong = |what: &str| Err(io::Error::new(io::ErrorKind::InvalidData, what));
        match &*self.first {
            _ if bytes.is_empty() => wrong("it closes the connection before it has said anything of it"),
            first if first.starts_with(b"HTTP/") => wrong("it answers in HTTP/1"),
            first if first.len() == FRAME_HEAD && first[3] != SETTINGS => {
                wrong("what it says first is no SETTINGS frame")
            }
            _ => Ok(()),
        }
    }
}

/// The end of a [`Wire`] that h2 has.
#[derive(Clone, Debug)]
pub(super) struct Handle(pub(super) Rc<RefCell<Wire>>);

impl AsyncRead for Handle {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let wire = &mut *self.0.borrow_mut();
        let before = buffer.filled().len();
        ready!(wire.stream.poll_read_buf(cx, buffer))?;
        if wire.first.len() < FRAME_HEAD {
            wire.check(&buffer.filled()[before..])?;
        }
        wire.heard = Instant::now();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Handle {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut wire = self.0.borrow_mut();
        if wire.out.len() - wire.sent >= MOST {
            ready!(wire.poll_drain(cx))?;
        }
        wire.out.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut wire = self.0.borrow_mut();
        ready!(wire.poll_drain(cx))?;
        wire.stream.poll_shutdown_write(cx).map(Ok)
    }
}
