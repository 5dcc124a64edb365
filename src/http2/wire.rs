//! The connection under HTTP/2: what h2 writes is gathered, and goes out once its turn is over.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::flood::Flood;
use crate::io::Peer;

/// So much may wait to be sent before h2 is asked to wait: four frames of the usual size.
const MOST: usize = 64 * 1024;

/// A connection under HTTP/2.
///
/// h2 flushes whenever it has nothing more to do for the moment, and writes each frame of content by itself.
/// A call of the system for each of them, or a record of TLS, would be most of what an answer costs. So it
/// writes into memory here, and [`Wire::poll_drain`] sends what has come together.
#[derive(Debug)]
pub struct Wire {
    peer: Peer,
    out: Vec<u8>,
    sent: usize,
    /// Since when the peer has taken nothing of what waits.
    stalled: Option<Instant>,
    /// What the frames of the peer add up to.
    pub flood: Flood,
}

impl Wire {
    /// Over a connection, with what was read of it already.
    pub fn new(peer: Peer) -> Self {
        Self { peer, out: Vec::new(), sent: 0, stalled: None, flood: Flood::new() }
    }

    /// Since when the peer has taken nothing, if anything waits.
    pub fn stalled(&self) -> Option<Instant> {
        self.stalled
    }

    /// Lends a buffer for the next turn, unless something waits in the one that it has.
    pub fn lend(&mut self, buffer: &mut Vec<u8>) {
        if self.out.is_empty() {
            buffer.clear();
            std::mem::swap(&mut self.out, buffer);
        }
    }

    /// Gives the buffer back, if nothing waits in it.
    pub fn give_back(&mut self, buffer: &mut Vec<u8>) {
        if self.out.is_empty() {
            std::mem::swap(&mut self.out, buffer);
            self.out = Vec::new();
        }
    }

    /// Sends what waits. Bytes that come later are added behind it, which TLS relies on.
    pub fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.out.len() {
            match self.peer.stream.poll_write(cx, &self.out[self.sent..]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => {
                    self.sent += count;
                    self.stalled = None;
                    self.flood.sent(count);
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.stalled.get_or_insert_with(Instant::now);
                    return Poll::Pending;
                }
            }
        }
        self.out.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }

    /// Reads and throws away what still comes, up to the end of the connection or to this many bytes, which become
    /// less.
    pub fn poll_rest(&mut self, cx: &mut Context<'_>, buffer: &mut [u8], most: &mut usize) -> Poll<()> {
        while *most > 0
            && let Ok(count @ 1..) = ready!(self.peer.stream.poll_read(cx, buffer))
        {
            *most = most.saturating_sub(count);
        }
        Poll::Ready(())
    }

    /// Makes the end of the connection an abnormal one.
    pub fn reset(&mut self) {
        self.peer.stream.reset();
    }

    fn poll_take(&mut self, cx: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if self.out.len() - self.sent >= MOST {
            ready!(self.poll_drain(cx))?;
        }
        for slice in slices {
            self.out.extend_from_slice(slice);
        }
        Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()))
    }
}

/// The end of a [`Wire`] that h2 has.
#[derive(Clone, Debug)]
pub struct Handle(pub Rc<RefCell<Wire>>);

impl AsyncRead for Handle {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut wire = self.0.borrow_mut();
        // h2 reads for as long as there is something to read; whoever floods it is not read any more.
        if wire.flood.found().is_some() {
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        ready!(wire.peer.poll_next_buf(cx, buffer))?;
        wire.flood.see(&buffer.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Handle {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_take(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_take(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut wire = self.0.borrow_mut();
        ready!(wire.poll_drain(cx))?;
        wire.peer.stream.poll_shutdown_write(cx).map(Ok)
    }
}
