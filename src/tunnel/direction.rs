//! One direction of a tunnel: reads when the sink has taken everything, and not before.

use std::io;
use std::task::{Context, Poll, ready};

use super::pipe::{MOST, Pipe};
use crate::buffers::Buffers;
use crate::io::{Pending, Stream, yield_turn};

/// How often a direction reads before it lets other tunnels have their turn.
const TURNS: usize = 4;

/// How much it moves at most before that.
const BYTES: usize = MOST;

/// A read of so many bytes is a sign of bulk, which the system moves more cheaply by itself.
const LARGE: usize = 32 * 1024;
/// Through a pipe, so few bytes are a sign that copying would be the cheaper way again.
const SMALL: usize = 16 * 1024;
/// After so many large reads in a row a pipe is used.
const BULK: u8 = 2;
/// How many signs are remembered.
const SURE: u8 = 4;

/// Moves bytes from one end of a tunnel to the other.
#[derive(Debug)]
pub(super) struct Direction {
    /// What the sink has not taken; without memory of its own while there is nothing.
    pending: Pending,
    /// What it has not taken of bulk; borrowed from the worker, and given back when it is empty.
    pipe: Option<Pipe>,
    /// How many signs of bulk there were.
    signs: u8,
    /// Bytes that were read to be passed on.
    bytes: u64,
    flow: Flow,
    sink_was_reset: bool,
}

/// ```text
/// Open ──► Ending ──► Ended
///   └────────┴─► Cut ──┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Open,
    /// The source has ended; what is pending goes out, then the FIN.
    Ending,
    /// The sink takes nothing more. What still comes is read and dropped, to see the source's end; the
    /// other direction may have much to deliver yet.
    Cut,
    /// The FIN is out, or there is nobody to send it to.
    Ended,
}

impl Direction {
    /// With bytes that wait to be sent already, of which `counted` are the tunnel's.
    pub(super) fn new(pending: Pending, counted: u64, source_has_ended: bool) -> Self {
        let flow = if source_has_ended { Flow::Ending } else { Flow::Open };
        Self { pending, pipe: None, signs: 0, bytes: counted, flow, sink_was_reset: false }
    }

    /// Whether nothing is left to do.
    pub(super) fn has_ended(&self) -> bool {
        self.flow == Flow::Ended
    }

    /// Whether the source has sent its FIN.
    pub(super) fn source_has_ended(&self) -> bool {
        matches!(self.flow, Flow::Ending | Flow::Ended)
    }

    /// Whether the sink has stopped taking bytes.
    pub(super) fn is_cut(&self) -> bool {
        self.flow == Flow::Cut
    }

    /// Whether the sink's connection was reset, rather than closed in good order before.
    pub(super) fn sink_was_reset(&self) -> bool {
        self.sink_was_reset
    }

    /// How many bytes the sink took.
    pub(super) fn delivered(&self) -> u64 {
        let waiting = self.pending.len() + self.pipe.as_ref().map_or(0, Pipe::holds);
        self.bytes.saturating_sub(waiting as u64)
    }

    /// Moves what can be moved now, through the buffers that are borrowed for the time of the call; says
    /// whether anything moved. `source_was_reset` is what the other direction knows of this one's source: the
    /// system tells of a reset once, and of an end from then on, which must not be taken for a FIN.
    ///
    /// # Errors
    /// The source's connection is broken.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Stream,
        to: &mut Stream,
        buffers: &mut Buffers,
        source_was_reset: bool,
    ) -> io::Result<bool> {
        let moved = self.go(cx, from, to, buffers, source_was_reset);
        if let Some(pipe) = self.pipe.take_if(|pipe| pipe.holds() == 0) {
            buffers.pipes.give_back(pipe);
        }
        moved
    }

    fn go(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Stream,
        to: &mut Stream,
        buffers: &mut Buffers,
        source_was_reset: bool,
    ) -> io::Result<bool> {
        let (mut moved, before) = (false, self.bytes);
        for _ in 0..TURNS {
            match self.poll_flush(cx, to) {
                Poll::Ready(flushed) => moved |= flushed,
                Poll::Pending => return Ok(moved),
            }
            match self.flow {
                Flow::Open | Flow::Cut => {}
                Flow::Ending => {
                    if to.poll_shutdown_write(cx).is_pending() {
                        return Ok(moved);
                    }
                    self.flow = Flow::Ended;
                    return Ok(true);
                }
                Flow::Ended => return Ok(moved),
            }
            if self.bytes.saturating_sub(before) >= BYTES as u64 {
                break;
            }
            let taken = match self.is_bulk(from, to, buffers) {
                true => self.poll_splice(cx, from),
                false => self.poll_copy(cx, from, to, &mut buffers.input),
            };
            match taken {
                Poll::Pending => return Ok(moved),
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Ready(Ok(0)) if source_was_reset => return Err(io::ErrorKind::ConnectionReset.into()),
                Poll::Ready(Ok(0)) => {
                    self.flow = if self.is_cut() { Flow::Ended } else { Flow::Ending };
                }
                Poll::Ready(Ok(_)) => {}
            }
            moved = true;
        }
        yield_turn(cx);
        Ok(moved)
    }

    /// Whether the next bytes go through a pipe, for which there is one then.
    fn is_bulk(&mut self, from: &Stream, to: &Stream, buffers: &mut Buffers) -> bool {
        if self.signs < BULK || self.is_cut() || !from.is_socket() || !to.is_socket() {
            return false;
        }
        if self.pipe.is_none() {
            self.pipe = buffers.pipes.take();
        }
        self.pipe.is_some()
    }

    /// Takes bytes into the pipe, which is empty: they are sent by the next flush.
    fn poll_splice(&mut self, cx: &mut Context<'_>, from: &Stream) -> Poll<io::Result<usize>> {
        let Some(pipe) = &mut self.pipe else { return Poll::Pending };
        let count = ready!(pipe.poll_fill(cx, from))?;
        self.bytes += count as u64;
        match count {
            LARGE.. => self.signs = SURE,
            ..SMALL => self.signs -= 1,
            _ => {}
        }
        Poll::Ready(Ok(count))
    }

    /// Reads into the buffer, and sends what was read.
    fn poll_copy(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Stream,
        to: &mut Stream,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(from.poll_read(cx, buffer))?;
        self.signs = if count >= LARGE { SURE.min(self.signs + 1) } else { 0 };
        if count > 0 && !self.is_cut() {
            match self.pending.poll_send(cx, to, &buffer[..count]) {
                Poll::Ready(Err(error)) => self.cut(&error),
                Poll::Ready(Ok(())) | Poll::Pending => self.bytes += count as u64,
            }
        }
        Poll::Ready(Ok(count))
    }

    /// Sends what waits; says whether there was anything.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>, to: &mut Stream) -> Poll<bool> {
        if !self.has_pending() {
            return Poll::Ready(false);
        }
        // There is never something in both: neither is filled before all is sent.
        let sent = match self.pipe.as_mut().filter(|pipe| pipe.holds() > 0) {
            Some(pipe) => ready!(pipe.poll_drain(cx, to)),
            None => ready!(self.pending.poll_flush(cx, to)),
        };
        if let Err(error) = sent {
            self.cut(&error);
        }
        Poll::Ready(true)
    }

    /// A sink that was closed in good order before, and is written to, says EPIPE; one that was not, ECONNRESET.
    fn cut(&mut self, error: &io::Error) {
        self.sink_was_reset = error.kind() == io::ErrorKind::ConnectionReset;
        self.bytes = self.delivered();
        self.pending = Pending::default();
        self.pipe = None;
        self.flow = if self.source_has_ended() { Flow::Ended } else { Flow::Cut };
    }

    /// Whether bytes wait that the sink has not taken.
    pub(super) fn has_pending(&self) -> bool {
        !self.pending.is_empty() || self.pipe.as_ref().is_some_and(|pipe| pipe.holds() > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::io::AsyncWriteExt;
    use tokio::net::UnixStream;

    #[tokio::test]
    async fn a_sink_that_takes_nothing_more_is_no_end_before_the_source_has_ended() {
        let (mut client, ours) = UnixStream::pair().unwrap();
        let (upstream, theirs) = UnixStream::pair().unwrap();
        let (mut from, mut to) = (Stream::Unix(ours), Stream::Unix(theirs));
        let mut direction = Direction::new(Pending::default(), 0, false);
        let mut buffers = Buffers::new();
        drop(upstream);

        client.write_all(b"lost").await.unwrap();
        poll_fn(|cx| match direction.poll(cx, &mut from, &mut to, &mut buffers, false) {
            Ok(_) if direction.is_cut() => Poll::Ready(()),
            Ok(_) => Poll::Pending,
            Err(error) => panic!("{error}"),
        })
        .await;
        assert!(!direction.has_ended());
        assert_eq!(direction.delivered(), 0);

        client.write_all(b"lost, too").await.unwrap();
        drop(client);
        poll_fn(|cx| match direction.poll(cx, &mut from, &mut to, &mut buffers, false) {
            Ok(_) if direction.has_ended() => Poll::Ready(()),
            Ok(_) => Poll::Pending,
            Err(error) => panic!("{error}"),
        })
        .await;
        assert_eq!(direction.delivered(), 0);
    }

    #[tokio::test]
    async fn a_pipe_is_held_for_bulk_that_waits_and_small_messages_are_copied_again() {
        let (client, ours) = UnixStream::pair().unwrap();
        let (upstream, theirs) = UnixStream::pair().unwrap();
        let (mut from, mut to) = (Stream::Unix(ours), Stream::Unix(theirs));
        let mut direction = Direction::new(Pending::default(), 0, false);
        let mut buffers = Buffers::new();
        let mut go = |direction: &mut Direction| {
            let mut cx = Context::from_waker(std::task::Waker::noop());
            direction.poll(&mut cx, &mut from, &mut to, &mut buffers, false).unwrap();
        };

        // The sink takes nothing: it is full at some time.
        let (mut written, mut signs) = (0, Vec::new());
        while !direction.has_pending() {
            written += client.try_write(&[7; 256 * 1024]).unwrap_or(0);
            tokio::task::yield_now().await;
            go(&mut direction);
            signs.push(direction.signs);
        }
        assert!(direction.pipe.is_some(), "{signs:?} after {written} bytes");
        assert!(direction.delivered() < written as u64);

        let mut buffer = vec![0; 64 * 1024];
        let mut read = 0;
        while read < written {
            read += upstream.try_read(&mut buffer).unwrap_or(0);
            tokio::task::yield_now().await;
            go(&mut direction);
        }
        assert!(direction.pipe.is_none());
        assert_eq!(direction.delivered(), written as u64);

        for _ in 0..=SURE {
            written += client.try_write(b"small").unwrap();
            while direction.delivered() < written as u64 {
                tokio::task::yield_now().await;
                go(&mut direction);
            }
        }
        assert_eq!(direction.signs, 0);
    }
}
