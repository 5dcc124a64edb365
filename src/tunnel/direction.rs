//! One direction of a tunnel: reads when the sink has taken everything, and not before.

use std::io;
use std::task::{Context, Poll};

use crate::io::{Pending, Stream};

/// How often a direction reads before it lets other tunnels have their turn.
const TURNS: usize = 4;

/// Moves bytes from one end of a tunnel to the other.
#[derive(Debug)]
pub(super) struct Direction {
    /// What the sink has not taken; without memory of its own while there is nothing.
    pending: Pending,
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
        Self { pending, bytes: counted, flow, sink_was_reset: false }
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
        self.bytes.saturating_sub(self.pending.len() as u64)
    }

    /// Moves what can be moved now, through a buffer that is borrowed for the time of the call; says
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
        buffer: &mut [u8],
        source_was_reset: bool,
    ) -> io::Result<bool> {
        let mut moved = false;
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
            match from.poll_read(cx, buffer) {
                Poll::Pending => return Ok(moved),
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Ready(Ok(0)) if source_was_reset => return Err(io::ErrorKind::ConnectionReset.into()),
                Poll::Ready(Ok(0)) => {
                    self.flow = if self.is_cut() { Flow::Ended } else { Flow::Ending };
                }
                Poll::Ready(Ok(_)) if self.is_cut() => {}
                Poll::Ready(Ok(count)) => match self.pending.poll_send(cx, to, &buffer[..count]) {
                    Poll::Ready(Ok(())) => self.bytes += count as u64,
                    Poll::Ready(Err(error)) => self.cut(&error),
                    Poll::Pending => {
                        self.bytes += count as u64;
                        return Ok(true);
                    }
                },
            }
            moved = true;
        }
        cx.waker().wake_by_ref();
        Ok(moved)
    }

    /// Sends what waits; says whether there was anything.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>, to: &mut Stream) -> Poll<bool> {
        if self.pending.is_empty() {
            return Poll::Ready(false);
        }
        self.pending.poll_flush(cx, to).map(|sent| {
            if let Err(error) = sent {
                self.cut(&error);
            }
            true
        })
    }

    /// A sink that was closed in good order before, and is written to, says EPIPE; one that was not, ECONNRESET.
    fn cut(&mut self, error: &io::Error) {
        self.sink_was_reset = error.kind() == io::ErrorKind::ConnectionReset;
        self.bytes = self.delivered();
        self.pending = Pending::default();
        self.flow = if self.source_has_ended() { Flow::Ended } else { Flow::Cut };
    }

    /// Whether bytes wait that the sink has not taken.
    pub(super) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
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
        let mut buffer = vec![0; 64];
        drop(upstream);

        client.write_all(b"lost").await.unwrap();
        poll_fn(|cx| match direction.poll(cx, &mut from, &mut to, &mut buffer, false) {
            Ok(_) if direction.is_cut() => Poll::Ready(()),
            Ok(_) => Poll::Pending,
            Err(error) => panic!("{error}"),
        })
        .await;
        assert!(!direction.has_ended());
        assert_eq!(direction.delivered(), 0);

        client.write_all(b"lost, too").await.unwrap();
        drop(client);
        poll_fn(|cx| match direction.poll(cx, &mut from, &mut to, &mut buffer, false) {
            Ok(_) if direction.has_ended() => Poll::Ready(()),
            Ok(_) => Poll::Pending,
            Err(error) => panic!("{error}"),
        })
        .await;
        assert_eq!(direction.delivered(), 0);
    }
}
