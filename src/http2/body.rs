//! Moves the content of one stream, within its windows and not ahead of whoever takes it.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use h2::{RecvStream, SendStream};

use super::head;

/// What a peer sends in a stream.
#[derive(Debug)]
pub struct Inflow {
    stream: RecvStream,
    /// What was taken out of h2 and not read yet; its part of the windows is given back as it is read.
    rest: Bytes,
    trailers: Vec<u8>,
    has_ended: bool,
}

impl Inflow {
    /// From the start of the content.
    pub fn new(stream: RecvStream) -> Self {
        Self { stream, rest: Bytes::new(), trailers: Vec::new(), has_ended: false }
    }

    /// Reads into `buffer`; 0 is END_STREAM.
    ///
    /// # Errors
    /// The stream was reset, or its connection has broken.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut filled = 0;
        // Several frames go into one buffer: whoever reads will hardly want to write frame by frame.
        while filled < buffer.len() && !self.has_ended {
            if self.rest.is_empty() {
                match self.stream.poll_data(cx) {
                    Poll::Ready(Some(Ok(data))) => self.rest = data,
                    Poll::Ready(None) if filled == 0 => {
                        let trailers = ready!(self.stream.poll_trailers(cx)).map_err(broken)?;
                        self.trailers = trailers.as_ref().map(head::trailer_text).unwrap_or_default();
                        self.has_ended = true;
                    }
                    // What is read comes first; h2 says this again.
                    Poll::Pending | Poll::Ready(Some(Err(_)) | None) if filled > 0 => break,
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(broken(error))),
                    Poll::Ready(None) | Poll::Pending => return Poll::Pending,
                }
            }
            let count = self.rest.len().min(buffer.len() - filled);
            self.rest.copy_to_slice(&mut buffer[filled..filled + count]);
            filled += count;
            // It fails for a stream that is gone, whose windows are nobody's.
            let _ = self.stream.flow_control().release_capacity(count);
        }
        Poll::Ready(Ok(filled))
    }

    /// What came as trailers, as lines of HTTP/1.1; known once the content has ended.
    pub fn trailers(&self) -> &[u8] {
        &self.trailers
    }
}

/// Sends as much as the windows allow for; `is_last` says whether the first so many bytes are the end of it.
///
/// # Errors
/// The stream was reset, or its connection has broken.
pub fn poll_send(
    cx: &mut Context<'_>,
    stream: &mut SendStream<Bytes>,
    bytes: &[u8],
    is_last: impl FnOnce(usize) -> bool,
) -> Poll<io::Result<usize>> {
    stream.reserve_capacity(bytes.len());
    let mut capacity = stream.capacity();
    while capacity == 0 {
        capacity = match ready!(stream.poll_capacity(cx)) {
            Some(capacity) => capacity.map_err(broken)?,
            // Nobody has closed it on this side.
            None => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        };
    }
    let count = capacity.min(bytes.len());
    stream.send_data(Bytes::copy_from_slice(&bytes[..count]), is_last(count)).map_err(broken)?;
    Poll::Ready(Ok(count))
}

/// What has become of a stream that cannot go on. All that h2 says of it is that it ended before its time.
pub fn broken(error: h2::Error) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, error)
}
