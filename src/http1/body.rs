//! Reads the framing of a body, RFC 9112 §6 and §7: finds the content in the bytes of a connection.

use std::ops::Range;

use crate::headers::is_token_byte;

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// After this many bytes; 0 is no body.
    Length(u64),
    /// After the last chunk and its trailers.
    Chunked,
    /// When the connection ends; responses only (R22), and whatever comes in a stream of HTTP/2.
    UntilClose,
}

impl BodyLength {
    /// Whether there is nothing to come.
    pub fn is_empty(self) -> bool {
        self == Self::Length(0)
    }
}

/// A body that breaks its framing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// A chunk's size line, its end, or a trailer is not what RFC 9112 §7.1 says (R23).
    Chunk,
    /// Chunk extensions or trailers beyond what is taken.
    TooLarge,
    /// The connection ended first.
    Truncated,
}

/// Chunk extensions of one body, in bytes in all: nobody uses them, so the only ones seen are attacks.
const MAX_EXTENSIONS: usize = 4 * 1024;
/// The trailers of one body, in bytes.
const MAX_TRAILERS: usize = 16 * 1024;

/// Walks over the bytes of one body.
#[derive(Debug)]
pub struct BodyReader {
    state: State,
    extensions: usize,
    trailers: Vec<u8>,
}

/// ```text
/// Length ─────────────────────────────────► Done
/// UntilClose ─────────────────────────────► Done (at the end of the connection)
/// Size (→ Blank) → Extension → SizeLf → Data → DataCr → DataLf → Size
///                                    └► Trailers ───► Done
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Length(u64),
    UntilClose,
    Size { value: u64, digits: u8 },
    Blank { value: u64 },
    Extension { value: u64 },
    SizeLf { value: u64 },
    Data(u64),
    DataCr,
    DataLf,
    Trailers,
    Done,
}

/// What one look at the bytes found.
#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    /// How many bytes belong to the body and need not be looked at again.
    pub consumed: usize,
    /// The content among them.
    pub content: Range<usize>,
}

impl BodyReader {
    /// At the start of a body.
    pub fn new(length: BodyLength) -> Self {
        let state = match length {
            BodyLength::Length(0) => State::Done,
            BodyLength::Length(length) => State::Length(length),
            BodyLength::Chunked => State::Size { value: 0, digits: 0 },
            BodyLength::UntilClose => State::UntilClose,
        };
        Self { state, extensions: 0, trailers: Vec::new() }
    }

    /// Whether the body was read to its end.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// The trailer lines as they arrived, each with its CRLF; empty until the body is done.
    pub fn trailers(&self) -> &[u8] {
        &self.trailers
    }

    /// Looks at the next bytes: up to the end of the next piece of content, or as far as they go.
    ///
    /// # Errors
    /// The framing is broken; the body cannot be read further.
    pub fn step(&mut self, bytes: &[u8]) -> Result<Step, BodyError> {
        let mut at = 0;
        while at < bytes.len() {
            match self.state {
                State::Done => break,
                State::UntilClose => return Ok(Step { consumed: bytes.len(), content: at..bytes.len() }),
                State::Length(left) => {
                    let end = content_end(at, left, bytes.len());
                    let left = left - (end - at) as u64;
                    self.state = if left == 0 { State::Done } else { State::Length(left) };
                    return Ok(Step { consumed: end, content: at..end });
                }
                State::Data(left) => {
                    let end = content_end(at, left, bytes.len());
                    let left = left - (end - at) as u64;
                    self.state = if left == 0 { State::DataCr } else { State::Data(left) };
                    return Ok(Step { consumed: end, content: at..end });
                }
                State::Trailers => at += self.trailer_bytes(&bytes[at..])?,
                _ => {
                    self.state = self.framing_byte(bytes[at])?;
                    at += 1;
                }
            }
        }
        Ok(Step { consumed: at, content: at..at })
    }

    /// The connection has ended.
    ///
    /// # Errors
    /// [`BodyError::Truncated`] unless this is how the body ends.
    pub fn end_of_connection(&mut self) -> Result<(), BodyError> {
        match self.state {
            State::Done => Ok(()),
            State::UntilClose => {
                self.state = State::Done;
                Ok(())
            }
            _ => Err(BodyError::Truncated),
        }
    }

    /// One byte of a chunk's size line or end, RFC 9112 §7.1.
    fn framing_byte(&mut self, byte: u8) -> Result<State, BodyError> {
        match (self.state, byte) {
            (State::Size { digits, .. }, _) if digits > 16 => Err(BodyError::Chunk),
            (State::Size { value, digits }, _) if byte.is_ascii_hexdigit() => {
                // 15 digits are more than any body; a 16th would only be there to overflow somebody.
                let digit = (byte as char).to_digit(16).map_or(0, u64::from);
                let value = value.checked_mul(16).filter(|value| *value < 1 << 60).ok_or(BodyError::Chunk)?;
                Ok(State::Size { value: value + digit, digits: digits + 1 })
            }
            (State::Size { digits: 0, .. }, _) => Err(BodyError::Chunk),
            (State::Size { value, .. }, b'\r') => Ok(State::SizeLf { value }),
            (State::Size { value, .. } | State::Blank { value }, b';') => Ok(State::Extension { value }),
            // Blanks before an extension are in the grammar; old servers fill the line with them.
            (State::Size { value, .. } | State::Blank { value }, b' ' | b'\t') => self.blank(value),
            (State::Blank { value }, b'\r') => Ok(State::SizeLf { value }),
            (State::Extension { value }, b'\r') => Ok(State::SizeLf { value }),
            (State::Extension { value }, _) => {
                self.count_extension()?;
                match byte {
                    b'\t' | b' '..=b'~' | 0x80.. => Ok(State::Extension { value }),
                    _ => Err(BodyError::Chunk),
                }
            }
            (State::SizeLf { value: 0 }, b'\n') => Ok(State::Trailers),
            (State::SizeLf { value }, b'\n') => Ok(State::Data(value)),
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => Ok(State::Size { value: 0, digits: 0 }),
            _ => Err(BodyError::Chunk),
        }
    }

    fn blank(&mut self, value: u64) -> Result<State, BodyError> {
        self.count_extension()?;
        Ok(State::Blank { value })
    }

    fn count_extension(&mut self) -> Result<(), BodyError> {
        self.extensions += 1;
        if self.extensions > MAX_EXTENSIONS { Err(BodyError::TooLarge) } else { Ok(()) }
    }

    /// Takes trailer lines up to the empty one.
    fn trailer_bytes(&mut self, bytes: &[u8]) -> Result<usize, BodyError> {
        for (at, &byte) in bytes.iter().enumerate() {
            let is_line_start = self.trailers.is_empty() || self.trailers.ends_with(b"\n");
            let after_cr = self.trailers.last() == Some(&b'\r');
            let ends_line = after_cr && byte == b'\n';
            if ends_line && (self.trailers == b"\r" || self.trailers.ends_with(b"\n\r")) {
                self.trailers.pop();
                self.check_trailers()?;
                self.state = State::Done;
                return Ok(at + 1);
            }
            if !ends_line {
                let is_misplaced = after_cr || byte == b'\n';
                if is_misplaced || (is_line_start && !is_token_byte(byte) && byte != b'\r') {
                    return Err(BodyError::Chunk);
                }
            }
            if self.trailers.len() >= MAX_TRAILERS {
                return Err(BodyError::TooLarge);
            }
            self.trailers.push(byte);
        }
        Ok(bytes.len())
    }

    fn check_trailers(&self) -> Result<(), BodyError> {
        for line in trailer_lines(&self.trailers) {
            let colon = memchr::memchr(b':', line).ok_or(BodyError::Chunk)?;
            let is_value_byte = |byte: &u8| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f);
            if colon == 0
                || !line[..colon].iter().all(|b| is_token_byte(*b))
                || !line[colon..].iter().all(is_value_byte)
            {
                return Err(BodyError::Chunk);
            }
        }
        Ok(())
    }
}

/// The lines of [`BodyReader::trailers`] without their CRLF.
pub fn trailer_lines(trailers: &[u8]) -> impl Iterator<Item = &[u8]> {
    trailers
        .split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .filter(|l| !l.is_empty())
}

fn content_end(at: usize, left: u64, available: usize) -> usize {
    usize::try_from(left).map_or(available, |left| available.min(at.saturating_add(left)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The content, the trailers, and what is left behind the body, read in pieces of this size.
    fn read(length: BodyLength, bytes: &[u8], piece: usize) -> Result<(Vec<u8>, Vec<u8>, usize), BodyError> {
        let mut reader = BodyReader::new(length);
        let (mut content, mut at) = (Vec::new(), 0);
        while at < bytes.len() && !reader.is_done() {
            let piece = &bytes[at..bytes.len().min(at + piece)];
            let step = reader.step(piece)?;
            content.extend_from_slice(&piece[step.content]);
            at += step.consumed;
        }
        if !reader.is_done() {
            reader.end_of_connection()?;
        }
        Ok((content, reader.trailers().to_vec(), bytes.len() - at))
    }

    #[test]
    fn content_is_found_however_the_bytes_arrive() {
        let bytes = b"5 \r\nhello\r\n01 ;a=\"b\"\r\n \r\n0005\r\nworld\r\n0\r\nX-T: 1\r\nY:\r\n\r\nnext";
        for piece in [1, 2, 3, 7, 100] {
            assert_eq!(
                read(BodyLength::Chunked, bytes, piece),
                Ok((b"hello world".to_vec(), b"X-T: 1\r\nY:\r\n".to_vec(), 4)),
                "{piece}"
            );
            assert_eq!(read(BodyLength::Length(5), b"hellonext", piece), Ok((b"hello".to_vec(), vec![], 4)));
            assert_eq!(read(BodyLength::UntilClose, b"hello", piece), Ok((b"hello".to_vec(), vec![], 0)));
        }
    }

    #[test]
    fn r23_broken_chunks_are_refused() {
        for text in [
            "5\nhello\r\n0\r\n\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "5\r\nhello0\r\n\r\n",
            "5\r\nhellooo\r\n0\r\n\r\n",
            "\r\nhello",
            ";a\r\n",
            "-5\r\nhello",
            "+5\r\nhello",
            "0x5\r\nhello",
            " 5\r\nhello",
            "g\r\n",
            "5\rhello",
            "5;a\nhello",
            "5 a\r\nhello",
            "5 5\r\nhello",
            "5;a\rb\r\nhello",
            "5;\"a\nb\"\r\nhello",
            "fffffffffffffffff\r\n",
            "ffffffffffffffff\r\n",
            "0\r\n\n",
            "0\r\nX: a\n\r\n",
            "0\r\n X: a\r\n\r\n",
            "0\r\nX : a\r\n\r\n",
            "0\r\nX\r\n\r\n",
            "0\r\n: a\r\n\r\n",
            "0\r\nX: a\rb\r\n\r\n",
            "0\r\nX: \0\r\n\r\n",
        ] {
            assert_eq!(read(BodyLength::Chunked, text.as_bytes(), 100), Err(BodyError::Chunk), "{text:?}");
            assert_eq!(read(BodyLength::Chunked, text.as_bytes(), 1), Err(BodyError::Chunk), "{text:?}");
        }
    }

    #[test]
    fn extensions_and_trailers_are_bounded() {
        let extension = format!("1;{}\r\n", "a".repeat(MAX_EXTENSIONS + 1));
        assert_eq!(read(BodyLength::Chunked, extension.as_bytes(), 100), Err(BodyError::TooLarge));
        let trailers = format!("0\r\n{}", "a: b\r\n".repeat(MAX_TRAILERS / 6 + 2));
        assert_eq!(read(BodyLength::Chunked, trailers.as_bytes(), 100), Err(BodyError::TooLarge));
    }

    #[test]
    fn a_body_that_ends_early_is_truncated() {
        for text in ["", "5", "5\r\nhel", "5\r\nhello\r\n", "0\r\n", "0\r\nX: a\r\n"] {
            assert_eq!(read(BodyLength::Chunked, text.as_bytes(), 9), Err(BodyError::Truncated), "{text:?}");
        }
        assert_eq!(read(BodyLength::Length(5), b"hell", 9), Err(BodyError::Truncated));
    }

    proptest! {
        #[test]
        fn what_was_chunked_comes_back(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..50), 0..8), piece in 1usize..40) {
            let mut bytes = Vec::new();
            for chunk in &chunks {
                bytes.extend_from_slice(format!("{:X}\r\n", chunk.len()).as_bytes());
                bytes.extend_from_slice(chunk);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"0\r\n\r\n");
            prop_assert_eq!(read(BodyLength::Chunked, &bytes, piece), Ok((chunks.concat(), vec![], 0)));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..60), piece in 1usize..10) {
            let _ = read(BodyLength::Chunked, &bytes, piece);
        }
    }
}
