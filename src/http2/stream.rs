//! One stream of HTTP/2, as a connection of its own on which HTTP/1.1 is spoken.

use std::io;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};

use super::body::{Inflow, broken, poll_send};
use super::client_stream::ClientStream;
use super::connection::Counted;
use super::head::{self, Answer};
use crate::reply::has_no_body;

/// A stream, by the role that hopgate has on its connection.
#[derive(Debug)]
pub enum Http2Stream {
    /// A client has opened it.
    Server(ServerStream),
    /// hopgate has opened it, to an upstream.
    Client(ClientStream),
}

impl Http2Stream {
    /// As [`Stream::poll_read`](crate::io::Stream::poll_read).
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Server(stream) => stream.inflow.poll_read(cx, buffer),
            Self::Client(stream) => stream.poll_read(cx, buffer),
        }
    }

    /// As [`Stream::poll_write`](crate::io::Stream::poll_write).
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Server(stream) => stream.poll_write(cx, bytes),
            Self::Client(stream) => stream.poll_write(cx, bytes),
        }
    }

    /// As [`Stream::trailers`](crate::io::Stream::trailers).
    pub fn trailers(&self) -> &[u8] {
        match self {
            Self::Server(stream) => stream.inflow.trailers(),
            Self::Client(stream) => stream.trailers(),
        }
    }

    /// Ends what is sent, with these trailers.
    pub fn finish(&mut self, trailers: &[u8]) {
        match self {
            Self::Server(stream) => stream.finish(trailers),
            Self::Client(stream) => stream.finish(trailers),
        }
    }

    /// Ends the stream so that the peer does not take what it got for the whole.
    pub fn reset(&mut self) {
        match self {
            Self::Server(stream) => stream.reset(),
            Self::Client(stream) => stream.reset(),
        }
    }

    /// `Ready` once the peer has reset the stream, or the connection has broken.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Server(stream) => stream.poll_gone(cx),
            Self::Client(stream) => stream.poll_gone(cx),
        }
    }

    /// Whether the client waits for a tunnel and for nothing else: a 2xx would tell it that there is one.
    pub fn wants_tunnel(&self) -> bool {
        match self {
            Self::Server(stream) => {
                stream.kind == Kind::Connect && matches!(stream.outflow, Outflow::Head(_))
            }
            Self::Client(_) => false,
        }
    }
}

/// A stream that a client has opened: gives the content of the request, and takes the text of answers.
#[derive(Debug)]
pub struct ServerStream {
    inflow: Inflow,
    outflow: Outflow,
    kind: Kind,
    /// The beginning of a head whose end was not written yet.
    head: Vec<u8>,
    _counted: Counted,
}

/// What the client has asked for, as far as it says how an answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The usual.
    Request,
    /// HEAD: an answer has no content.
    Head,
    /// Extended CONNECT: an answer is a tunnel, or a refusal.
    Connect,
}

/// What the client is sent.
#[derive(Debug)]
enum Outflow {
    /// No final answer yet.
    Head(SendResponse<Bytes>),
    /// What stands behind its head.
    Content(SendStream<Bytes>, Left),
}

/// How much is still to come behind the head of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// So many bytes; the last of them has END_STREAM.
    Bytes(u64),
    /// What there is, up to [`Http2Stream::finish`].
    Unknown,
    /// As before, and the bytes are those of a tunnel.
    Tunnel,
    /// END_STREAM is sent.
    Nothing,
}

impl ServerStream {
    /// That a client has opened, counted among the `streams` of its connection.
    pub fn new(content: RecvStream, respond: SendResponse<Bytes>, kind: Kind, counted: Counted) -> Self {
        let (inflow, outflow) = (Inflow::new(content), Outflow::Head(respond));
        Self { inflow, outflow, kind, head: Vec::new(), _counted: counted }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Outflow::Content(stream, left) = &mut self.outflow else {
            return Poll::Ready(self.write_head(bytes));
        };
        match *left {
            Left::Unknown | Left::Tunnel => poll_send(cx, stream, bytes, |_| false),
            Left::Bytes(count) => {
                let own = usize::try_from(count).unwrap_or(usize::MAX).min(bytes.len());
                let sent = poll_send(cx, stream, &bytes[..own], |sent| sent as u64 == count);
                if let Poll::Ready(Ok(sent)) = &sent {
                    let rest = count - *sent as u64;
                    *left = if rest == 0 { Left::Nothing } else { Left::Bytes(rest) };
                }
                sent
            }
            // The content of an answer to HEAD, if somebody writes one all the same.
            Left::Nothing => Poll::Ready(Ok(bytes.len())),
        }
    }

    /// Takes the bytes of a head, up to its end; with the last of them it is sent.
    fn write_head(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let before = self.head.len();
        let Some(end) = self.gather(bytes) else { return Ok(bytes.len()) };
        let text = if before > 0 { &self.head[..end] } else { &bytes[..end] };
        let opens_tunnel = self.kind == Kind::Connect && text.get(9..12) == Some(b"101");
        let answer = Answer::read(text, opens_tunnel).ok_or(io::ErrorKind::InvalidData)?;
        self.head = Vec::new();
        self.send_head(answer, opens_tunnel)?;
        Ok(end - before)
    }

    /// Where the head ends, in what came before together with `bytes`, which are kept if that is not known
    /// yet. Heads are written in one piece, as a rule.
    fn gather(&mut self, bytes: &[u8]) -> Option<usize> {
        if self.head.is_empty()
            && let Some(at) = memchr::memmem::find(bytes, b"\r\n\r\n")
        {
            return Some(at + 4);
        }
        // The end may lie across the seam.
        let from = self.head.len().saturating_sub(3);
        self.head.extend_from_slice(bytes);
        memchr::memmem::find(&self.head[from..], b"\r\n\r\n").map(|at| from + at + 4)
    }

    fn send_head(&mut self, answer: Answer, opens_tunnel: bool) -> io::Result<()> {
        let Outflow::Head(respond) = &mut self.outflow else { return Ok(()) };
        let status = answer.response.status().as_u16();
        let left = match (status, answer.length) {
            _ if opens_tunnel => Left::Tunnel,
            // RFC 9113 §8.6: there is none in HTTP/2.
            (101, _) => return Err(io::ErrorKind::InvalidData.into()),
            (100..200, _) => return respond.send_informational(answer.response).map_err(broken),
            // RFC 8441 §4: the client would take it for a tunnel. Nobody should have written it.
            (200..300, _) if self.kind == Kind::Connect => return Err(io::ErrorKind::InvalidData.into()),
            (_, Some(0)) => Left::Nothing,
            _ if self.kind == Kind::Head || has_no_body(status) => Left::Nothing,
            (_, Some(length)) => Left::Bytes(length),
            (_, None) => Left::Unknown,
        };
        let stream = respond.send_response(answer.response, left == Left::Nothing).map_err(broken)?;
        self.outflow = Outflow::Content(stream, left);
        Ok(())
    }

    fn finish(&mut self, trailers: &[u8]) {
        // Content that is too short is no whole one: h2 resets the stream when it is dropped.
        let Outflow::Content(stream, left @ (Left::Unknown | Left::Tunnel)) = &mut self.outflow else {
            return;
        };
        *left = Left::Nothing;
        // It fails for a stream that was reset, and needs no end.
        let _ = match trailers {
            b"" => stream.send_data(Bytes::new(), true),
            _ => stream.send_trailers(head::trailers(trailers)),
        };
    }

    fn reset(&mut self) {
        match &mut self.outflow {
            Outflow::Head(respond) => respond.send_reset(Reason::INTERNAL_ERROR),
            // RFC 8441 §5: what a RST is on TCP.
            Outflow::Content(stream, _) if self.kind == Kind::Connect => stream.send_reset(Reason::CANCEL),
            Outflow::Content(stream, _) => stream.send_reset(Reason::INTERNAL_ERROR),
        }
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.outflow {
            Outflow::Head(respond) => respond.poll_reset(cx).map(drop),
            Outflow::Content(stream, _) => stream.poll_reset(cx).map(drop),
        }
    }
}
