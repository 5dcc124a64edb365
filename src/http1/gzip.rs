//! Compresses a body piece by piece, RFC 1952.

use std::fmt;
use std::io::{self, Write as _};

use flate2::Compression;
use flate2::write::GzEncoder;

/// The least that comes out before it is asked for, in bytes.
const PIECE: usize = 4 * 1024;

/// A body that is being compressed. Its memory, a quarter of a megabyte, is there for as long as the body is.
pub struct Gzip {
    encoder: GzEncoder<Vec<u8>>,
    /// Whether something was taken in that did not come out yet.
    has_more: bool,
}

impl Gzip {
    /// With a level from 1, fast, to 9, small.
    pub fn new(level: u32) -> Self {
        Self { encoder: GzEncoder::new(Vec::new(), Compression::new(level)), has_more: false }
    }

    /// Takes a piece in; what comes out of it by now is added to `out`.
    ///
    /// # Errors
    /// The encoder broke, as it never should.
    pub fn push(&mut self, content: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        self.has_more |= !content.is_empty();
        self.encoder.write_all(content)?;
        // Less than this waits for a flush: a write of ten bytes is none that anybody wants.
        if self.encoder.get_ref().len() >= PIECE {
            out.append(self.encoder.get_mut());
        }
        Ok(())
    }

    /// Whether [`Gzip::flush`] would bring anything out.
    pub fn has_more(&self) -> bool {
        self.has_more
    }

    /// Brings out all that was taken in, so that it can be read at the other end.
    ///
    /// # Errors
    /// The encoder broke, as it never should.
    pub fn flush(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        if std::mem::take(&mut self.has_more) {
            self.encoder.flush()?;
            out.append(self.encoder.get_mut());
        }
        Ok(())
    }

    /// Brings out the rest, with the checksum.
    ///
    /// # Errors
    /// The encoder broke, as it never should.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        self.has_more = false;
        self.encoder.try_finish()?;
        out.append(self.encoder.get_mut());
        Ok(())
    }
}

impl fmt::Debug for Gzip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gzip").field("has_more", &self.has_more).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::GzDecoder;

    use super::*;

    #[test]
    fn what_was_flushed_can_be_read_before_the_end() {
        let mut gzip = Gzip::new(1);
        let mut out = Vec::new();
        gzip.push(b"hello", &mut out).unwrap();
        gzip.flush(&mut out).unwrap();
        let flushed = out.len();
        let mut text = [0; 5];
        GzDecoder::new(&*out).read_exact(&mut text).unwrap();
        assert_eq!(&text, b"hello");
        assert!(!gzip.has_more());
        gzip.flush(&mut out).unwrap();
        assert_eq!(out.len(), flushed, "nothing more to bring out");
        gzip.push(b" world", &mut out).unwrap();
        gzip.finish(&mut out).unwrap();
        let mut whole = String::new();
        GzDecoder::new(&*out).read_to_string(&mut whole).unwrap();
        assert_eq!(whole, "hello world");
    }

    #[test]
    fn a_body_without_a_byte_is_a_whole_one_too() {
        let (mut gzip, mut out, mut whole) = (Gzip::new(9), Vec::new(), Vec::new());
        gzip.finish(&mut out).unwrap();
        GzDecoder::new(&*out).read_to_end(&mut whole).unwrap();
        assert!(whole.is_empty());
    }
}
