//! Moves one body from one peer to the other, with back-pressure and a bounded amount in hand.

use std::io;
use std::task::{Context, Poll, ready};

use crate::buffers::Buffers;
use crate::headers::fields::Known;
use crate::http1::body::{BodyError, BodyLength, BodyReader, trailer_lines};
use crate::http1::gzip::Gzip;
use crate::io::{Peer, Pending, Stream, WORTH_TWO, yield_turn};

/// How a body is framed on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// As it is: its end is known by `Content-Length` or by the end of the connection.
    Identity,
    /// In chunks.
    Chunked {
        /// Whether trailers are passed on (R27).
        trailers: bool,
    },
    /// As it is; a stream of HTTP/2 is told its end.
    Http2 {
        /// Whether trailers are passed on (R27).
        trailers: bool,
    },
    /// Not at all: the body is read, and that is all.
    Nothing,
}

/// Moves one body.
#[derive(Debug)]
pub struct Pump {
    reader: BodyReader,
    encoding: Encoding,
    gzip: Option<Box<Gzip>>,
    pending: Pending,
    /// The most bytes of content that may come.
    limit: Option<u64>,
    content: u64,
    written: u64,
    waits_for_sink: bool,
    has_sent: bool,
    ended: bool,
    /// Whether the sink has to be told of the end, which no byte does.
    owes_end: bool,
    /// The trailers that the source had beside the bytes.
    trailers: Vec<u8>,
    /// Whether anything was taken from the source.
    has_taken: bool,
    /// What it was, for [`Pump::give_back`]; `None` if it is not kept.
    taken: Option<Vec<u8>>,
}

/// The most bytes that a pump keeps to be able to give them back.
const MOST_KEPT: usize = 16 * 1024;

/// Why a body did not arrive whole.
#[derive(Debug)]
pub enum PumpError {
    /// Reading failed.
    Source(io::Error),
    /// The body breaks its framing.
    Body(BodyError),
    /// The body is larger than allowed.
    TooLarge,
    /// Writing failed.
    Sink(io::Error),
}

/// How often a pump reads before it lets the others have their turn.
const TURNS: usize = 8;

impl Pump {
    /// For a body that is framed as `length` says and is sent on as `encoding` says.
    pub fn new(length: BodyLength, encoding: Encoding, limit: Option<u64>) -> Self {
        Self {
            reader: BodyReader::new(length),
            encoding,
            gzip: None,
            pending: Pending::default(),
            limit,
            content: 0,
            written: 0,
            waits_for_sink: false,
            has_sent: false,
            ended: length.is_empty(),
            owes_end: matches!(encoding, Encoding::Http2 { .. }) && !length.is_empty(),
            trailers: Vec::new(),
            has_taken: false,
            taken: None,
        }
    }

    /// Keeps a copy of what it takes from the source, up to a bound, for [`Pump::give_back`].
    pub fn keep_what_is_taken(&mut self) {
        self.taken = Some(Vec::new());
    }

    /// Whether anything was taken from the source, and be it the mere framing of a body.
    pub fn has_taken(&self) -> bool {
        self.has_taken
    }

    /// Whether the source can be put back to where it was: not if more was taken than is kept.
    pub fn can_give_back(&self) -> bool {
        self.taken.is_some() || !self.has_taken
    }

    /// Puts the source back to where it was, so that another pump can begin anew; whether anything had been
    /// taken from it.
    pub fn give_back(self, from: &mut Peer) -> bool {
        from.put_back(&self.taken.unwrap_or_default());
        self.has_taken
    }

    /// Compresses the content on its way. To be said before anything has moved.
    pub fn compress(&mut self, gzip: Gzip) {
        self.gzip = Some(Box::new(gzip));
    }

    /// Whether the body was read and written to its end.
    pub fn is_done(&self) -> bool {
        self.ended && self.pending.is_empty() && !self.owes_end
    }

    /// Whether the body was read to its end.
    pub fn has_read_all(&self) -> bool {
        self.reader.is_done()
    }

    /// Whether it is the sink that is waited for.
    pub fn waits_for_sink(&self) -> bool {
        self.waits_for_sink
    }

    /// Whether anything was handed to the sink, so that it may have arrived.
    pub fn has_sent(&self) -> bool {
        self.has_sent
    }

    /// How many bytes of content were read so far.
    pub fn content(&self) -> u64 {
        self.content
    }

    /// How many bytes were handed to the sink, its framing included.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Puts a head in front of everything: it goes out with the first content.
    pub fn prepend(&mut self, head: Vec<u8>) {
        self.pending = Pending::of(head);
    }

    /// Sends a head in front of everything; what the sink does not take now goes out with the first content. To be
    /// said before anything has moved.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn begin(&mut self, cx: &mut Context<'_>, to: &mut Stream, head: &[u8]) -> io::Result<()> {
        if !self.ended {
            // Its content may be there already.
            self.pending.push(head);
            return Ok(());
        }
        self.has_sent = true;
        match self.pending.poll_send(cx, to, head) {
            Poll::Ready(sent) => sent,
            Poll::Pending => Ok(()),
        }
    }

    /// Moves what can be moved now. `Ready` means that the body is through; `progress` is set when any
    /// byte moved.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Peer,
        to: &mut Peer,
        buffers: &mut Buffers,
        progress: &mut bool,
    ) -> Poll<Result<(), PumpError>> {
        for _ in 0..TURNS {
            // A head that waits goes out together with what was read behind it.
            if !self.pending.is_empty() && (self.ended || from.ahead.is_empty()) {
                self.waits_for_sink = true;
                self.has_sent = true;
                ready!(self.pending.poll_flush(cx, &mut to.stream)).map_err(PumpError::Sink)?;
                self.waits_for_sink = false;
                *progress = true;
            }
            if self.ended {
                self.tell_end(&mut to.stream);
                return Poll::Ready(Ok(()));
            }
            let sent = if from.ahead.is_empty() {
                let Poll::Ready(read) = from.stream.poll_read(cx, &mut buffers.input) else {
                    // What has come is not held back until more comes.
                    ready!(self.flush(cx, to, buffers, progress))?;
                    return Poll::Pending;
                };
                let count = read.map_err(PumpError::Source)?;
                if count == 0 {
                    self.reader.end_of_connection().map_err(PumpError::Body)?;
                    self.trailers.extend_from_slice(from.stream.trailers());
                }
                let Buffers { input, output, .. } = buffers;
                self.forward(cx, &input[..count], from, to, output)
            } else {
                let ahead = std::mem::take(&mut from.ahead);
                let sent = self.forward(cx, &ahead, from, to, &mut buffers.output);
                buffers.take_back(ahead);
                sent
            };
            *progress = true;
            self.waits_for_sink = sent.as_ref().is_ok_and(Poll::is_pending);
            ready!(sent?);
        }
        yield_turn(cx);
        Poll::Pending
    }

    /// Sends the content of what was read on, as it is or compressed; what stands behind the body is given back
    /// to `from`.
    fn forward(
        &mut self,
        cx: &mut Context<'_>,
        input: &[u8],
        from: &mut Peer,
        to: &mut Peer,
        output: &mut Vec<u8>,
    ) -> Result<Poll<()>, PumpError> {
        match self.gzip {
            None => self.forward_plain(cx, input, from, to, output),
            Some(_) => self.forward_compressed(cx, input, from, to, output),
        }
    }

    fn forward_plain(
        &mut self,
        cx: &mut Context<'_>,
        input: &[u8],
        from: &mut Peer,
        to: &mut Peer,
        output: &mut Vec<u8>,
    ) -> Result<Poll<()>, PumpError> {
        output.clear();
        let mut at = 0;
        let mut direct = 0..0;
        while at < input.len() && !self.reader.is_done() {
            let step = self.reader.step(&input[at..]).map_err(PumpError::Body)?;
            let content = at + step.content.start..at + step.content.end;
            at += step.consumed;
            self.content += content.len() as u64;
            if self.limit.is_some_and(|limit| self.content > limit) {
                return Err(PumpError::TooLarge);
            }
            match self.encoding {
                // The usual case sends from the buffer that was read into, without a copy.
                Encoding::Identity | Encoding::Http2 { .. } if direct.is_empty() && output.is_empty() => {
                    direct = content;
                }
                Encoding::Identity | Encoding::Http2 { .. } => {
                    output.extend_from_slice(&input[std::mem::take(&mut direct)]);
                    output.extend_from_slice(&input[content]);
                }
                Encoding::Chunked { .. } => push_chunk(output, &input[content]),
                Encoding::Nothing => {}
            }
        }
        from.put_back(&input[at..]);
        self.keep(&input[..at]);
        if self.reader.is_done() {
            self.end(output);
        }
        let content = &input[direct];
        self.written += (output.len() + content.len()) as u64;
        if output.is_empty() && !self.pending.is_empty() && content.len() < WORTH_TWO {
            // A head and little behind it are put together where there is room already.
            self.pending.put_into(output);
            output.extend_from_slice(content);
        }
        let bytes = if output.is_empty() { content } else { output.as_slice() };
        self.send(cx, to, bytes)
    }

    fn forward_compressed(
        &mut self,
        cx: &mut Context<'_>,
        input: &[u8],
        from: &mut Peer,
        to: &mut Peer,
        output: &mut Vec<u8>,
    ) -> Result<Poll<()>, PumpError> {
        let Some(mut gzip) = self.gzip.take() else { return Ok(Poll::Ready(())) };
        let (mut compressed, mut at) = (Vec::new(), 0);
        while at < input.len() && !self.reader.is_done() {
            let step = self.reader.step(&input[at..]).map_err(PumpError::Body)?;
            let content = at + step.content.start..at + step.content.end;
            at += step.consumed;
            self.content += content.len() as u64;
            gzip.push(&input[content], &mut compressed).map_err(PumpError::Source)?;
        }
        from.put_back(&input[at..]);
        self.keep(&input[..at]);
        if self.reader.is_done() {
            gzip.finish(&mut compressed).map_err(PumpError::Source)?;
        }
        output.clear();
        self.encode(output, &compressed);
        if self.reader.is_done() {
            self.end(output);
        }
        self.gzip = Some(gzip);
        self.written += output.len() as u64;
        if output.is_empty() { Ok(Poll::Ready(())) } else { self.send(cx, to, output) }
    }

    /// Sends what the compression keeps back, if there is one.
    fn flush(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut Peer,
        buffers: &mut Buffers,
        progress: &mut bool,
    ) -> Poll<Result<(), PumpError>> {
        let Some(gzip) = self.gzip.as_mut().filter(|gzip| gzip.has_more()) else {
            return Poll::Ready(Ok(()));
        };
        let mut compressed = Vec::new();
        gzip.flush(&mut compressed).map_err(PumpError::Source)?;
        buffers.output.clear();
        self.encode(&mut buffers.output, &compressed);
        *progress = true;
        self.written += buffers.output.len() as u64;
        let sent = self.send(cx, to, &buffers.output)?;
        self.waits_for_sink = sent.is_pending();
        sent.map(Ok)
    }

    fn encode(&self, output: &mut Vec<u8>, content: &[u8]) {
        match self.encoding {
            Encoding::Identity | Encoding::Http2 { .. } => output.extend_from_slice(content),
            Encoding::Chunked { .. } => push_chunk(output, content),
            Encoding::Nothing => {}
        }
    }

    /// The body was read to its end; what tells so is added.
    fn end(&mut self, output: &mut Vec<u8>) {
        self.ended = true;
        if let Encoding::Chunked { trailers } = self.encoding {
            push_last_chunk(output, if trailers { self.trailers() } else { b"" });
        }
    }

    /// What came as trailers, in chunks or beside the bytes.
    fn trailers(&self) -> &[u8] {
        if self.trailers.is_empty() { self.reader.trailers() } else { &self.trailers }
    }

    /// Tells a stream of HTTP/2 that everything is written.
    fn tell_end(&mut self, to: &mut Stream) {
        if !std::mem::take(&mut self.owes_end) {
            return;
        }
        let mut passed = Vec::new();
        if let Encoding::Http2 { trailers: true } = self.encoding {
            push_trailers(&mut passed, self.trailers());
        }
        to.finish(&passed);
    }

    fn send(&mut self, cx: &mut Context<'_>, to: &mut Peer, bytes: &[u8]) -> Result<Poll<()>, PumpError> {
        self.has_sent = true;
        match self.pending.poll_send(cx, &mut to.stream, bytes) {
            Poll::Ready(sent) => sent.map(Poll::Ready).map_err(PumpError::Sink),
            Poll::Pending => Ok(Poll::Pending),
        }
    }
}

impl Pump {
    fn keep(&mut self, bytes: &[u8]) {
        self.has_taken |= !bytes.is_empty();
        match &mut self.taken {
            Some(taken) if taken.len() + bytes.len() <= MOST_KEPT => taken.extend_from_slice(bytes),
            taken => *taken = None,
        }
    }
}

/// Adds content as one chunk, RFC 9112 §7.1; nothing if there is none.
pub(crate) fn push_chunk(output: &mut Vec<u8>, content: &[u8]) {
    if content.is_empty() {
        return; // A chunk of size 0 would be the last one.
    }
    let mut size = [0; 16];
    let mut start = size.len();
    let mut rest = content.len();
    while rest > 0 {
        start -= 1;
        size[start] = b"0123456789abcdef"[rest % 16];
        rest /= 16;
    }
    output.extend_from_slice(&size[start..]);
    output.extend_from_slice(b"\r\n");
    output.extend_from_slice(content);
    output.extend_from_slice(b"\r\n");
}

/// Adds the last chunk with these trailers, as far as they may be passed on.
pub(crate) fn push_last_chunk(output: &mut Vec<u8>, trailers: &[u8]) {
    output.extend_from_slice(b"0\r\n");
    push_trailers(output, trailers);
    output.extend_from_slice(b"\r\n");
}

/// Adds the lines of trailers that may be passed on.
fn push_trailers(output: &mut Vec<u8>, trailers: &[u8]) {
    for line in trailer_lines(trailers) {
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        if may_be_trailer(name) {
            output.extend_from_slice(line);
            output.extend_from_slice(b"\r\n");
        }
    }
}

/// RFC 9110 §6.5.1: no framing, routing, authentication, request modifiers or content description in a
/// trailer, where nobody has checked them (R27).
fn may_be_trailer(name: &[u8]) -> bool {
    const REFUSED: &[&str] = &[
        "authorization",
        "cache-control",
        "content-encoding",
        "content-range",
        "content-type",
        "cookie",
        "date",
        "expires",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-range",
        "if-unmodified-since",
        "location",
        "max-forwards",
        "pragma",
        "proxy-authenticate",
        "proxy-authorization",
        "range",
        "retry-after",
        "set-cookie",
        "vary",
        "www-authenticate",
    ];
    // R15: for some apps `Content_Length` is `Content-Length`.
    let is_plain = name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-');
    let known = Known::of(name);
    is_plain
        && known == Known::Other
        && !REFUSED.iter().any(|refused| name.eq_ignore_ascii_case(refused.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_written_as_rfc_9112_says() {
        let mut output = Vec::new();
        push_chunk(&mut output, b"");
        push_chunk(&mut output, &[b'x'; 27]);
        push_last_chunk(
            &mut output,
            b"X-T: 1\r\nContent-Length: 3\r\nSet-Cookie: a\r\nContent_Length: 5\r\nGrpc-Status: 0\r\n",
        );
        let expected = format!("1b\r\n{}\r\n0\r\nX-T: 1\r\nGrpc-Status: 0\r\n\r\n", "x".repeat(27));
        assert_eq!(String::from_utf8_lossy(&output), expected);
    }
}
