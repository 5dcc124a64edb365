//! One direction of a tunnel: reads when the sink has taken everything, and not before.

use std::task::{Context, Poll};

use crate::io::{Pending, Stream};

/// How often a direction reads before it lets other tunnels have their turn.
const TURNS: usize = 4;

/// Moves bytes from one end of a tunnel to the other.
#[derive(Debug)]
pub(super) struct Direction {
    /// What the sink has not taken; without memory of its own while there is nothing.
    pending: Pending,
    /// Bytes so far.
    pub(super) bytes: u64,
    flow: Flow,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Open,
    /// The source has ended; what is pending goes out, then the FIN.
    Ending,
    /// The FIN is out.
    Ended,
}

/// The end at which something went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    Source,
    Sink,
}

impl Direction {
    /// With bytes that wait to be sent already, of which `counted` are the tunnel's.
    pub(super) fn new(pending: Pending, counted: u64, has_ended: bool) -> Self {
        Self { pending, bytes: counted, flow: if has_ended { Flow::Ending } else { Flow::Open } }
    }

    /// Whether the FIN has been passed on.
    pub(super) fn has_ended(&self) -> bool {
        self.flow == Flow::Ended
    }

    /// Whether the source has sent its FIN.
    pub(super) fn source_has_ended(&self) -> bool {
        self.flow != Flow::Open
    }

    /// Moves what can be moved now, through a buffer that is borrowed for the time of the call; says
    /// whether anything moved.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Stream,
        to: &mut Stream,
        buffer: &mut [u8],
    ) -> Result<bool, Broken> {
        let mut moved = false;
        for _ in 0..TURNS {
            if !self.pending.is_empty() {
                match self.pending.poll_flush(cx, to) {
                    Poll::Ready(result) => result.map_err(|_| Broken::Sink)?,
                    Poll::Pending => return Ok(moved),
                }
                moved = true;
            }
            match self.flow {
                Flow::Open => {}
                Flow::Ending => {
                    to.shutdown_write();
                    self.flow = Flow::Ended;
                    return Ok(true);
                }
                Flow::Ended => return Ok(moved),
            }
            match from.poll_read(cx, buffer) {
                Poll::Pending => return Ok(moved),
                Poll::Ready(Err(_)) => return Err(Broken::Source),
                Poll::Ready(Ok(0)) => self.flow = Flow::Ending,
                Poll::Ready(Ok(count)) => {
                    self.bytes += count as u64;
                    match self.pending.poll_send(cx, to, &buffer[..count]) {
                        Poll::Ready(result) => result.map_err(|_| Broken::Sink)?,
                        Poll::Pending => return Ok(true),
                    }
                }
            }
            moved = true;
        }
        cx.waker().wake_by_ref();
        Ok(moved)
    }
}
