//! Pseudo-random bytes that both ends of a transfer can produce, and a comparison that explains itself.

use std::fmt::Write as _;

use sha1::{Digest as _, Sha1};

/// An endless stream of bytes, the same for the same seed, however it is cut into pieces.
pub struct Noise {
    source: fastrand::Rng,
    /// Made and not yet taken; always made in whole blocks.
    rest: Vec<u8>,
}

impl Noise {
    pub fn seeded(seed: u64) -> Self {
        Self { source: fastrand::Rng::with_seed(seed), rest: Vec::new() }
    }

    /// The next `n` bytes of the stream.
    pub fn take(&mut self, n: usize) -> Vec<u8> {
        const BLOCK: usize = 4096;
        let mut taken = std::mem::take(&mut self.rest);
        let made = taken.len();
        if made < n {
            taken.resize(made + (n - made).next_multiple_of(BLOCK), 0);
            taken[made..].chunks_mut(BLOCK).for_each(|block| self.source.fill(block));
        }
        self.rest = taken.split_off(n);
        taken
    }
}

/// Compares two long byte strings by hash and says where they part.
#[track_caller]
pub fn assert_same_bytes(what: &str, expected: &[u8], got: &[u8]) {
    if sha1_of(expected) == sha1_of(got) {
        return;
    }
    let common = expected.iter().zip(got).take_while(|(a, b)| a == b).count();
    panic!(
        "{what}: bytes differ from offset {common}\nexpected: {} bytes, sha1 {}\n     got: {} bytes, sha1 {}",
        expected.len(),
        sha1_of(expected),
        got.len(),
        sha1_of(got)
    );
}

fn sha1_of(bytes: &[u8]) -> String {
    Sha1::digest(bytes).iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("a String takes everything");
        hex
    })
}
