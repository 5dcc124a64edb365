//! What a worker reads into and writes from: few buffers, for all of its connections.

use std::ops::Range;

use crate::io::Ahead;
use crate::tunnel::pipe::Pipes;

/// The buffers of a worker that every pump and every tunnel borrows while it is being polled.
#[derive(Debug)]
pub struct Buffers {
    /// What was read.
    pub input: Vec<u8>,
    /// What is put together for writing.
    pub output: Vec<u8>,
    /// For the bulk of tunnels.
    pub pipes: Pipes,
    /// Further ones for input, in place of those that are lent.
    spare: Vec<Vec<u8>>,
}

impl Buffers {
    /// Large enough that a 1 MiB body takes few system calls, small enough for the cache.
    pub const SIZE: usize = 64 * 1024;

    /// Once for each worker.
    pub fn new() -> Self {
        let output = Vec::with_capacity(Self::SIZE + 1024);
        Self { input: vec![0; Self::SIZE], output, pipes: Pipes::default(), spare: Vec::new() }
    }

    /// So many are kept: who borrows one gives it back within the same turn, unless he has to wait.
    const SPARE: usize = 2;

    /// Lends the input to the bytes that stand at this place of it, so that they need not be copied.
    pub fn lend(&mut self, place: Range<usize>) -> Ahead {
        if place.is_empty() {
            return Ahead::default();
        }
        let other = self.spare.pop().unwrap_or_else(|| vec![0; Self::SIZE]);
        Ahead::lent(std::mem::replace(&mut self.input, other), place)
    }

    /// Takes the first bytes off, and the buffer back with the last of them.
    pub fn consume(&mut self, ahead: &mut Ahead, count: usize) {
        match count == ahead.len() {
            true => self.take_back(std::mem::take(ahead)),
            false => ahead.consume(count),
        }
    }

    /// Takes the buffer back from those who have to wait, who get one of their own size.
    pub fn copy_out(&mut self, ahead: &mut Ahead) {
        let mut own = Ahead::default();
        own.extend_from_slice(ahead);
        self.take_back(std::mem::replace(ahead, own));
    }

    /// Takes a buffer back that was lent.
    pub fn take_back(&mut self, ahead: Ahead) {
        let buffer = ahead.into_buffer();
        if buffer.len() == Self::SIZE && self.spare.len() < Self::SPARE {
            self.spare.push(buffer);
        }
    }
}

impl Default for Buffers {
    fn default() -> Self {
        Self::new()
    }
}
