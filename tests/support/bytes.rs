//! Pseudo-random bytes that both ends of a transfer can produce, and a comparison that explains itself.

use std::fmt::Write as _;

use sha1::{Digest as _, Sha1};

/// An endless stream of bytes, the same for the same seed.
pub struct Noise(fastrand::Rng);

impl Noise {
    pub fn seeded(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// The next `n` bytes of the stream.
    pub fn take(&mut self, n: usize) -> Vec<u8> {
        // Byte by byte: the stream must not depend on how it is cut into pieces.
        (0..n).map(|_| self.0.u8(..)).collect()
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
