//! What was read from a connection but not used yet.

use std::ops::{Deref, Range};

/// Bytes that were read ahead. They stand somewhere in a buffer: in one of their own, or in that of a worker, which is
/// lent to them so that a large body is not copied only because its head came in the same piece.
///
/// Empty, and without memory, most of the time.
#[derive(Debug, Default)]
pub struct Ahead {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Ahead {
    /// The bytes at this place of a buffer.
    pub fn lent(buffer: Vec<u8>, place: Range<usize>) -> Self {
        debug_assert!(place.end <= buffer.len());
        Self { buffer, start: place.start, end: place.end }
    }

    /// The buffer in which the bytes stood.
    pub fn into_buffer(self) -> Vec<u8> {
        self.buffer
    }

    /// The bytes alone.
    pub fn into_bytes(mut self) -> Vec<u8> {
        self.buffer.truncate(self.end);
        self.buffer.drain(..self.start);
        self.buffer
    }

    /// Adds bytes behind those that there are.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.buffer.truncate(self.end);
        self.buffer.extend_from_slice(bytes);
        self.end = self.buffer.len();
    }

    /// Takes the first bytes off. With the last of them the memory is given back.
    pub fn consume(&mut self, count: usize) {
        self.start += count;
        debug_assert!(self.start <= self.end);
        if self.start >= self.end {
            *self = Self::default();
        }
    }

    /// Puts bytes in front of those that there are.
    pub fn put_back(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        match self.start.checked_sub(bytes.len()) {
            Some(start) => {
                self.buffer[start..self.start].copy_from_slice(bytes);
                self.start = start;
            }
            None => {
                self.buffer.truncate(self.end);
                self.buffer.splice(..self.start, bytes.iter().copied());
                (self.start, self.end) = (0, self.buffer.len());
            }
        }
    }
}

impl Deref for Ahead {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_and_put_back_is_what_was_there() {
        let mut ahead = Ahead::lent(b"head|body|rest".to_vec(), 5..9);
        assert_eq!(&*ahead, b"body");
        ahead.consume(2);
        ahead.put_back(b"bo");
        assert_eq!(&*ahead, b"body");
        // More than there is room for in front, and what stands behind in the buffer is no part of it.
        ahead.put_back(b"longer than a head|");
        assert_eq!(&*ahead, b"longer than a head|body");
        ahead.extend_from_slice(b"!");
        assert_eq!(&*ahead, b"longer than a head|body!");
        ahead.consume(ahead.len());
        assert!(ahead.is_empty());
        assert_eq!(ahead.into_buffer().capacity(), 0);
    }

    #[test]
    fn what_is_added_to_a_lent_buffer_takes_the_place_of_what_stood_there() {
        let mut ahead = Ahead::lent(vec![b'x'; 16], 0..0);
        ahead.extend_from_slice(b"abc");
        assert_eq!(&*ahead, b"abc");
        ahead.consume(3);
        ahead.put_back(b"abc");
        assert_eq!(&*ahead, b"abc");
    }
}
