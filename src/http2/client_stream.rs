//! A stream to an upstream, as a connection of its own on which HTTP/1.1 is spoken.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, SendStream};

use super::body::{Inflow, broken, poll_send};
use super::client_head::{self, Content, Kind, Question};
use super::head;
use crate::upstream::http2::Slot;

/// A stream that hopgate opens: takes the text of a request, and gives that of its answer.
#[derive(Debug)]
pub struct ClientStream {
    outflow: Outflow,
    inflow: Arriving,
    kind: Kind,
    /// The text of heads that was not read yet.
    text: Vec<u8>,
    slot: Slot,
}

/// What the upstream is sent.
#[derive(Debug)]
enum Outflow {
    /// Nothing yet.
    Head(SendRequest<Bytes>),
    /// What stands behind the head.
    Content(SendStream<Bytes>, Left),
}

/// How much is still to be sent behind the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// So many bytes; the last of them has END_STREAM.
    Bytes(u64),
    /// What there is, up to [`ClientStream::finish`].
    Unknown,
    /// END_STREAM is sent.
    Nothing,
}

/// What the upstream sends.
#[derive(Debug)]
enum Arriving {
    /// It was not asked yet.
    Nothing,
    /// The head.
    Head(ResponseFuture),
    /// What stands behind the head.
    Content(Inflow),
}

impl ClientStream {
    /// On a connection where there is room for it.
    pub fn new(connection: SendRequest<Bytes>, slot: Slot) -> Self {
        Self {
            outflow: Outflow::Head(connection),
            inflow: Arriving::Nothing,
            kind: Kind::Request,
            text: Vec::new(),
            slot,
        }
    }

    /// As [`Stream::poll_write`](crate::io::Stream::poll_write). The head comes in one piece, as it is made.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.outflow {
            Outflow::Head(connection) => {
                ready!(connection.poll_ready(cx)).map_err(broken)?;
                Poll::Ready(self.write_head(bytes))
            }
            Outflow::Content(stream, Left::Unknown) => poll_send(cx, stream, bytes, |_| false),
            Outflow::Content(stream, left @ Left::Bytes(_)) => {
                let Left::Bytes(count) = *left else { return Poll::Pending };
                let own = usize::try_from(count).unwrap_or(usize::MAX).min(bytes.len());
                let sent = ready!(poll_send(cx, stream, &bytes[..own], |sent| sent as u64 == count))?;
                let rest = count - sent as u64;
                *left = if rest == 0 { Left::Nothing } else { Left::Bytes(rest) };
                Poll::Ready(Ok(sent))
            }
            // Nobody writes behind the end.
            Outflow::Content(_, Left::Nothing) => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn write_head(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Outflow::Head(connection) = &mut self.outflow else { return Ok(0) };
        let end = memchr::memmem::find(bytes, b"\r\n\r\n").map(|at| at + 4);
        let question = end.and_then(|end| client_head::question(&bytes[..end], self.slot.is_tls()));
        let (Some(end), Some(Question { request, content, kind })) = (end, question) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the request cannot be said in HTTP/2"));
        };
        let is_tunnel = matches!(kind, Kind::Connect { .. });
        let left = match content {
            _ if is_tunnel => Left::Unknown,
            Content::Length(0) => Left::Nothing,
            Content::Length(length) => Left::Bytes(length),
            Content::Unknown => Left::Unknown,
        };
        let (response, stream) = connection.send_request(request, left == Left::Nothing).map_err(broken)?;
        self.slot.asked();
        self.kind = kind;
        self.outflow = Outflow::Content(stream, left);
        self.inflow = Arriving::Head(response);
        Ok(end)
    }

    /// As [`Stream::poll_read`](crate::io::Stream::poll_read).
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            if !self.text.is_empty() {
                let count = self.text.len().min(buffer.len());
                buffer[..count].copy_from_slice(&self.text[..count]);
                self.text.drain(..count);
                return Poll::Ready(Ok(count));
            }
            match &mut self.inflow {
                // Whoever reads writes, too, and reads again then.
                Arriving::Nothing => return Poll::Pending,
                Arriving::Head(_) => ready!(self.poll_head(cx))?,
                Arriving::Content(content) => return content.poll_read(cx, buffer),
            }
        }
    }

    /// Reads the next head, an interim one or the final one.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Arriving::Head(response) = &mut self.inflow else { return Poll::Ready(Ok(())) };
        let text = match ready!(response.poll_informational(cx)) {
            Some(interim) => client_head::answer(&interim.map_err(broken)?, &self.kind, false),
            None => {
                let (parts, content) = ready!(Pin::new(response).poll(cx)).map_err(broken)?.into_parts();
                self.slot.answered();
                let head = http::Response::from_parts(parts, ());
                let text = client_head::answer(&head, &self.kind, content.is_end_stream());
                self.inflow = Arriving::Content(Inflow::new(content));
                text
            }
        };
        let no_101 = || io::Error::new(io::ErrorKind::InvalidData, "a 101, which HTTP/2 does not have");
        self.text = text.ok_or_else(no_101)?;
        Poll::Ready(Ok(()))
    }

    /// The trailers that came behind the answer.
    pub fn trailers(&self) -> &[u8] {
        match &self.inflow {
            Arriving::Content(content) => content.trailers(),
            Arriving::Nothing | Arriving::Head(_) => b"",
        }
    }

    /// Ends the content of the request, with these trailers.
    pub fn finish(&mut self, trailers: &[u8]) {
        // Content that is too short is no whole one: h2 resets the stream when it is dropped.
        let Outflow::Content(stream, left @ Left::Unknown) = &mut self.outflow else { return };
        *left = Left::Nothing;
        // It fails for a stream that was reset, and needs no end.
        let _ = match trailers {
            b"" => stream.send_data(Bytes::new(), true),
            _ => stream.send_trailers(head::trailers(trailers)),
        };
    }

    /// Ends the stream so that the upstream does not take what it got for the whole.
    pub fn reset(&mut self) {
        if let Outflow::Content(stream, _) = &mut self.outflow {
            stream.send_reset(Reason::CANCEL);
        }
    }

    /// `Ready` once the upstream has reset the stream, or the connection has broken.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.outflow {
            Outflow::Head(_) => Poll::Pending,
            Outflow::Content(stream, _) => stream.poll_reset(cx).map(drop),
        }
    }
}

/// Whether this is the end of a stream that the upstream is certain not to have looked at, so that the same request
/// may be sent again whatever it does (RFC 9113 §8.7).
pub fn is_unprocessed(error: &io::Error) -> bool {
    let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<h2::Error>()) else {
        return false;
    };
    // Of the streams that were there when a GOAWAY came, h2 ends those with this error that are above its last one.
    let is_refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
    error.is_remote() && (is_refused || error.is_go_away())
}
