//! The byte streams to clients and upstreams, with what was read ahead of its use.

mod ahead;

pub use ahead::Ahead;

use std::fs::File;
use std::io::{self, IoSlice, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use rustix::net::SendFlags;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::http2::Http2Stream;
use crate::tls::stream::TlsStream;

/// Has the task polled again once all others that are ready have had their turn and the system was asked who else is.
/// A task that only wakes itself comes back at once while nobody else is known to be ready, and the runtime asks the
/// system after 61 turns: those who wait for a socket would wait for all of them.
pub fn yield_turn(cx: &mut Context<'_>) {
    // Its first poll leaves the waker with the runtime, and that is all.
    let _ = pin!(tokio::task::yield_now()).poll(cx);
}

/// A connection to a peer.
#[derive(Debug)]
pub enum Stream {
    /// Over TCP.
    Tcp {
        /// The connection.
        stream: TcpStream,
        /// Whether it was just made, and takes bytes, of which the runtime has not heard.
        is_new: bool,
    },
    /// Over a Unix-domain socket.
    Unix(UnixStream),
    /// TLS over one of these, behind its handshake.
    Tls(Box<TlsStream>),
    /// A stream of a connection of HTTP/2, which looks like a connection of its own.
    Http2(Box<Http2Stream>),
}

impl Stream {
    /// Over a connection that the runtime knows.
    pub fn tcp(stream: TcpStream) -> Self {
        Self::Tcp { stream, is_new: false }
    }

    /// Over a connection that was just made: the runtime will hear that it takes bytes when it looks again, so the first
    /// write asks the system.
    pub fn new_tcp(stream: TcpStream) -> Self {
        Self::Tcp { stream, is_new: true }
    }

    /// Reads once into `buffer`: 0 is the end of what the peer sends.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        ready!(match self {
            Self::Tcp { stream, .. } => Pin::new(stream).poll_read(cx, &mut buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, &mut buffer),
            Self::Tls(stream) => return stream.poll_read(cx, buffer.initialized_mut()),
            Self::Http2(stream) => return stream.poll_read(cx, buffer.initialize_unfilled()),
        })?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    /// As [`Stream::poll_read`], into a place that need not hold zeros before.
    pub fn poll_read_buf(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp { stream, .. } => Pin::new(stream).poll_read(cx, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => stream.poll_read_buf(cx, buffer),
            Self::Http2(stream) => {
                let count = ready!(stream.poll_read(cx, buffer.initialize_unfilled()))?;
                buffer.advance(count);
                Poll::Ready(Ok(()))
            }
        }
    }

    /// Writes once. After `Pending` it must be called again with the same bytes, to which further ones may have
    /// been added: TLS has encrypted them by then.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp { stream, is_new } => {
                if std::mem::take(is_new) {
                    match rustix::net::send(&*stream, bytes, SendFlags::NOSIGNAL) {
                        Err(Errno::AGAIN | Errno::INTR) => {}
                        sent => return Poll::Ready(Ok(sent?)),
                    }
                }
                Pin::new(stream).poll_write(cx, bytes)
            }
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => stream.poll_write(cx, bytes),
            Self::Http2(stream) => stream.poll_write(cx, bytes),
        }
    }

    /// Writes once, of two pieces that follow each other, as [`Stream::poll_write`]. What goes through this process on
    /// its way is better put together before: only [sockets](Self::is_socket) take them so.
    ///
    /// # Errors
    /// Those of the connection; `InvalidInput` unless this is a socket.
    pub fn poll_write_both(
        &mut self,
        cx: &mut Context<'_>,
        first: &[u8],
        second: &[u8],
    ) -> Poll<io::Result<usize>> {
        let both = [IoSlice::new(first), IoSlice::new(second)];
        match self {
            Self::Tcp { stream, .. } => Pin::new(stream).poll_write_vectored(cx, &both),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, &both),
            Self::Tls(_) | Self::Http2(_) => Poll::Ready(Err(io::ErrorKind::InvalidInput.into())),
        }
    }

    /// Has the system send at most `count` bytes of a file from `offset` on: they are not copied into this
    /// process. 0 is the end of the file.
    ///
    /// # Errors
    /// Those of the connection and of the file; `InvalidInput` if the system cannot do it with such a file.
    pub fn poll_send_file(
        &mut self,
        cx: &mut Context<'_>,
        file: &File,
        offset: u64,
        count: usize,
    ) -> Poll<io::Result<usize>> {
        self.poll_call(cx, Interest::WRITABLE, |socket| send_file(socket, file, offset, count))
    }

    /// Whether the system can move its bytes without this process: what is encrypted or framed goes through it.
    pub fn is_socket(&self) -> bool {
        matches!(self, Self::Tcp { .. } | Self::Unix(_))
    }

    /// Calls the system once the socket is ready for it, until that does not say that it would have to wait.
    ///
    /// # Errors
    /// Those of the call; `InvalidInput` unless this [is a socket](Self::is_socket).
    pub fn poll_call(
        &self,
        cx: &mut Context<'_>,
        interest: Interest,
        mut call: impl FnMut(BorrowedFd<'_>) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            let done = match self {
                Self::Tcp { stream, .. } => {
                    ready!(match interest.is_readable() {
                        true => stream.poll_read_ready(cx),
                        false => stream.poll_write_ready(cx),
                    })?;
                    stream.try_io(interest, || call(stream.as_fd()))
                }
                Self::Unix(stream) => {
                    ready!(match interest.is_readable() {
                        true => stream.poll_read_ready(cx),
                        false => stream.poll_write_ready(cx),
                    })?;
                    stream.try_io(interest, || call(stream.as_fd()))
                }
                Self::Tls(_) | Self::Http2(_) => return Poll::Ready(Err(io::ErrorKind::InvalidInput.into())),
            };
            match done {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return Poll::Ready(done),
            }
        }
    }

    /// Says that nothing more will be sent (FIN); reading goes on. What was taken by then is sent before it:
    /// to be called again until it is `Ready`.
    pub fn poll_shutdown_write(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let socket = match self {
            Self::Tcp { stream, .. } => socket2::SockRef::from(&*stream).shutdown(std::net::Shutdown::Write),
            Self::Unix(stream) => socket2::SockRef::from(&*stream).shutdown(std::net::Shutdown::Write),
            Self::Tls(stream) => return stream.poll_shutdown_write(cx),
            Self::Http2(stream) => {
                stream.finish(b"");
                return Poll::Ready(());
            }
        };
        // It fails when the connection is gone already, which is what was wanted.
        drop(socket);
        Poll::Ready(())
    }

    /// Whether the peer has neither closed the connection nor sent anything that was not read yet. Asks the
    /// system: what the runtime knows is as old as its last look.
    pub fn is_quiet(&mut self) -> bool {
        let mut byte = [MaybeUninit::uninit()];
        let peeked = match self {
            Self::Tcp { stream, .. } => socket2::SockRef::from(&*stream).peek(&mut byte),
            Self::Unix(stream) => socket2::SockRef::from(&*stream).peek(&mut byte),
            Self::Tls(stream) => return stream.is_quiet(),
            Self::Http2(_) => return false,
        };
        peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// As [`Stream::is_quiet`], as far as the runtime knows: it has asked the system when the worker last looked for
    /// work, and asks again only if there was something then.
    pub fn seems_quiet(&mut self) -> bool {
        let mut byte = [MaybeUninit::uninit()];
        let peeked = match self {
            Self::Tcp { stream, .. } => {
                stream.try_io(Interest::READABLE, || socket2::SockRef::from(&*stream).peek(&mut byte))
            }
            Self::Unix(stream) => {
                stream.try_io(Interest::READABLE, || socket2::SockRef::from(&*stream).peek(&mut byte))
            }
            Self::Tls(_) | Self::Http2(_) => return self.is_quiet(),
        };
        peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Reads what is there, asking the system and not the runtime.
    pub(crate) fn read_now(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp { stream, .. } => (&*socket2::SockRef::from(&*stream)).read(buffer),
            Self::Unix(stream) => (&*socket2::SockRef::from(&*stream)).read(buffer),
            Self::Tls(_) | Self::Http2(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Whether the connection is broken, which is seen without reading what is still unread. The task that asks
    /// is the one that reads and writes.
    pub fn is_broken(&mut self, cx: &mut Context<'_>) -> bool {
        let error = match self {
            Self::Tcp { stream, .. } => stream.take_error(),
            Self::Unix(stream) => stream.take_error(),
            Self::Tls(stream) => return stream.is_broken(cx),
            Self::Http2(stream) => return stream.poll_gone(cx).is_ready(),
        };
        !matches!(error, Ok(None))
    }

    /// Whether HTTP/2 may be spoken: in TLS it has to be agreed upon, RFC 9113 §3.2.
    pub fn has_agreed_on_http2(&self) -> bool {
        match self {
            Self::Tls(stream) => stream.agreed().alpn_protocol() == Some(b"h2"),
            Self::Tcp { .. } | Self::Unix(_) => true,
            Self::Http2(_) => false,
        }
    }

    /// Whether this is a stream of HTTP/2.
    pub fn is_http2(&self) -> bool {
        matches!(self, Self::Http2(_))
    }

    /// Whether the client waits for a tunnel and for nothing else: a 2xx would tell it that there is one
    /// (RFC 8441 §4).
    pub fn wants_tunnel(&self) -> bool {
        matches!(self, Self::Http2(stream) if stream.wants_tunnel())
    }

    /// Ends a stream of HTTP/2 with these trailers, lines as in HTTP/1.1. On any other connection it is the
    /// framing of the body that tells its end.
    pub fn finish(&mut self, trailers: &[u8]) {
        if let Self::Http2(stream) = self {
            stream.finish(trailers);
        }
    }

    /// The trailers that came behind a body on a stream of HTTP/2, lines as in HTTP/1.1. Known once the body was
    /// read to its end; empty on any other connection.
    pub fn trailers(&self) -> &[u8] {
        match self {
            Self::Http2(stream) => stream.trailers(),
            Self::Tcp { .. } | Self::Unix(_) | Self::Tls(_) => b"",
        }
    }

    /// Makes the end of the connection an abnormal one: RST instead of FIN, once it is dropped. The
    /// peer must not take what it got so far for the whole.
    pub fn reset(&mut self) {
        match self {
            Self::Tcp { stream, .. } => drop(stream.set_zero_linger()),
            Self::Unix(_) => {}
            Self::Tls(stream) => stream.reset(),
            Self::Http2(stream) => stream.reset(),
        }
    }
}

fn send_file(to: BorrowedFd<'_>, file: &File, mut offset: u64, count: usize) -> io::Result<usize> {
    Ok(rustix::fs::sendfile(to, file, Some(&mut offset), count)?)
}

/// A connection and the bytes that were read from it but not used yet.
#[derive(Debug)]
pub struct Peer {
    /// The connection.
    pub stream: Stream,
    /// What was read ahead; empty, and without memory of its own, most of the time.
    pub ahead: Ahead,
}

impl Peer {
    /// With nothing read yet.
    pub fn new(stream: Stream) -> Self {
        Self { stream, ahead: Ahead::default() }
    }

    /// The next bytes, put into `buffer`: first what was read ahead, then from the connection.
    pub fn poll_next(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.ahead.is_empty() {
            return self.stream.poll_read(cx, buffer);
        }
        let count = self.ahead.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.ahead[..count]);
        self.consume(count);
        Poll::Ready(Ok(count))
    }

    /// As [`Peer::poll_next`], into a place that need not hold zeros before.
    pub fn poll_next_buf(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return self.stream.poll_read_buf(cx, buffer);
        }
        let count = self.ahead.len().min(buffer.remaining());
        buffer.put_slice(&self.ahead[..count]);
        self.consume(count);
        Poll::Ready(Ok(()))
    }

    /// Takes the first bytes of what was read ahead off. With the last of them the memory is given back.
    pub fn consume(&mut self, count: usize) {
        self.ahead.consume(count);
    }

    /// Gives back bytes that were taken by [`Peer::poll_next`] but belong to what comes next.
    pub fn put_back(&mut self, bytes: &[u8]) {
        self.ahead.put_back(bytes);
    }
}

/// Fewer bytes than this are copied behind those that wait: that costs less than having the system gather them.
pub const WORTH_TWO: usize = 4 * 1024;

/// Bytes on their way out that the socket did not take at once.
#[derive(Debug, Default)]
pub struct Pending {
    bytes: Vec<u8>,
    sent: usize,
}

impl Pending {
    /// Whether everything is sent.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// How many bytes wait.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// Takes bytes over as the first that wait.
    pub fn of(bytes: Vec<u8>) -> Self {
        Self { bytes, sent: 0 }
    }

    /// Adds bytes behind those that wait.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Puts what waits behind `bytes`, and waits for nothing more. Only for who sends it again, from its beginning.
    pub fn put_into(&mut self, bytes: &mut Vec<u8>) {
        let waits = std::mem::take(self);
        bytes.extend_from_slice(&waits.bytes[waits.sent..]);
    }

    /// Sends what waits. Its memory is given back with the last byte.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>, to: &mut Stream) -> Poll<io::Result<()>> {
        while self.sent < self.bytes.len() {
            self.sent += non_zero(ready!(to.poll_write(cx, &self.bytes[self.sent..]))?)?;
        }
        if !self.bytes.is_empty() {
            *self = Self::default();
        }
        Poll::Ready(Ok(()))
    }

    /// Sends `bytes` behind what waits; what the socket does not take now is kept.
    /// `Ready` means that all of it is sent.
    pub fn poll_send(&mut self, cx: &mut Context<'_>, to: &mut Stream, bytes: &[u8]) -> Poll<io::Result<()>> {
        let mut rest = bytes;
        while !self.is_empty() && rest.len() >= WORTH_TWO && to.is_socket() {
            match to.poll_write_both(cx, &self.bytes[self.sent..], rest) {
                Poll::Ready(count) => {
                    let count = non_zero(count?)?;
                    let own = count.min(self.len());
                    self.sent += own;
                    rest = &rest[count - own..];
                    if self.sent == self.bytes.len() {
                        *self = Self::default();
                    }
                }
                Poll::Pending => break,
            }
        }
        if self.is_empty() {
            while !rest.is_empty() {
                match to.poll_write(cx, rest) {
                    Poll::Ready(count) => rest = &rest[non_zero(count?)?..],
                    Poll::Pending => break,
                }
            }
        }
        if rest.is_empty() && self.is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.push(rest);
        self.poll_flush(cx, to)
    }
}

fn non_zero(count: usize) -> io::Result<usize> {
    if count == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(count) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::future::poll_fn;
    use std::rc::Rc;
    use tokio::io::AsyncReadExt as _;
    use tokio::runtime::{Builder, LocalOptions};

    #[test]
    fn a_task_that_yields_its_turn_keeps_nobody_waiting_whose_socket_is_ready() {
        let runtime =
            Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
        runtime.block_on(async {
            let (mut waiting, client) = UnixStream::pair().unwrap();
            let (turns, answered_after) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(None)));
            let (counted, told) = (Rc::clone(&turns), Rc::clone(&answered_after));
            let reader = tokio::task::spawn_local(async move {
                waiting.read_u8().await.unwrap();
                told.set(Some(counted.get()));
            });
            // It waits for its socket by now.
            tokio::task::yield_now().await;
            let busy = tokio::task::spawn_local(poll_fn(move |cx| {
                if turns.get() == 0 {
                    client.try_write(b"x").unwrap();
                }
                turns.set(turns.get() + 1);
                if turns.get() == 1000 {
                    return Poll::Ready(());
                }
                yield_turn(cx);
                Poll::Pending
            }));
            busy.await.unwrap();
            reader.await.unwrap();
            assert!(answered_after.get() <= Some(2), "{answered_after:?}");
        });
    }
}
