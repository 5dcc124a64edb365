//! Counts the frames of a peer that cost it little and get nothing done.
//!
//! h2 bounds what it keeps of a peer: reset streams, small and empty DATA frames, CONTINUATION, answers to
//! PING and SETTINGS. It bounds no rates, and cannot count what happens to a stream once that was accepted.

use std::time::Duration;

use tokio::time::Instant;

/// The length of what a client sends before its first frame (RFC 9113 §3.4).
const PREFACE: usize = 24;

/// How many streams a client may reset at once: more than a browser has open when a page is left.
pub const RESETS: u32 = 500;
const RESETS_PER_SECOND: u32 = 50;

/// How many frames may come that are about the connection only, besides those that go with content.
const CHORES: u32 = 10_000;
const CHORES_PER_SECOND: u32 = 200;
/// How many of them go with each frame that is of use, and with each KiB that the peer is sent: window
/// updates, and the PINGs by which gRPC measures what a connection can carry.
const CHORES_PER_FRAME: u32 = 10;
const CHORES_PER_KIB: usize = 1;

/// What the frames of a client add up to.
#[derive(Debug)]
pub struct Flood {
    /// How many bytes are of no interest: the preface, the rest of a frame.
    skip: usize,
    /// The head of the next frame, as far as it has come.
    head: [u8; 9],
    known: usize,
    has_begun: bool,
    resets: Budget,
    chores: Budget,
    found: Option<Abuse>,
}

/// What a client is up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abuse {
    /// Its first frame is not SETTINGS (RFC 9113 §3.4).
    NoSettings,
    /// It opens streams to reset them (CVE-2023-44487).
    Resets,
    /// It sends frames for nothing: PING, SETTINGS, PRIORITY, window updates, and those that nobody knows.
    Chores,
}

/// Frames by their type, RFC 9113 §6.
mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
}

const END_STREAM: u8 = 1;

impl Flood {
    /// From the first byte of a client's preface on.
    pub fn new() -> Self {
        Self {
            skip: PREFACE,
            head: [0; 9],
            known: 0,
            has_begun: false,
            resets: Budget::new(RESETS, RESETS_PER_SECOND),
            chores: Budget::new(CHORES, CHORES_PER_SECOND),
            found: None,
        }
    }

    /// What it has come to, if it is too much.
    pub fn found(&self) -> Option<Abuse> {
        self.found
    }

    /// Looks at the next bytes that came.
    pub fn see(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.found.is_none() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let count = bytes.len().min(self.head.len() - self.known);
            self.head[self.known..self.known + count].copy_from_slice(&bytes[..count]);
            self.known += count;
            bytes = &bytes[count..];
            if self.known == self.head.len() {
                self.known = 0;
                let [high, middle, low, kind, flags, ..] = self.head;
                self.skip = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
                self.found = self.count(kind, flags);
            }
        }
    }

    /// So many bytes were sent.
    pub fn sent(&mut self, bytes: usize) {
        self.chores.earn(u32::try_from(bytes / 1024 * CHORES_PER_KIB).unwrap_or(u32::MAX));
    }

    fn count(&mut self, kind: u8, flags: u8) -> Option<Abuse> {
        if !std::mem::replace(&mut self.has_begun, true) && kind != kind::SETTINGS {
            return Some(Abuse::NoSettings);
        }
        match kind {
            kind::HEADERS => self.chores.earn(CHORES_PER_FRAME),
            kind::DATA if self.skip > 0 || flags & END_STREAM != 0 => self.chores.earn(CHORES_PER_FRAME),
            kind::RST_STREAM if !self.resets.spend() => return Some(Abuse::Resets),
            kind::RST_STREAM => {}
            _ if !self.chores.spend() => return Some(Abuse::Chores),
            _ => {}
        }
        None
    }
}

/// What may be spent at once, and comes back with time.
#[derive(Debug)]
struct Budget {
    left: u32,
    most: u32,
    per_second: u32,
    /// What came back with time was added then.
    added: Instant,
}

impl Budget {
    fn new(most: u32, per_second: u32) -> Self {
        Self { left: most, most, per_second, added: Instant::now() }
    }

    /// Takes one; `false` if there is none. The clock is asked only then.
    fn spend(&mut self) -> bool {
        if self.left == 0 {
            let now = Instant::now();
            let one = Duration::from_secs(1) / self.per_second;
            let earned = now.duration_since(self.added).as_nanos() / one.as_nanos();
            if earned == 0 {
                return false;
            }
            self.added = now;
            self.earn(u32::try_from(earned).unwrap_or(u32::MAX));
        }
        self.left -= 1;
        true
    }

    fn earn(&mut self, count: u32) {
        self.left = self.left.saturating_add(count).min(self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let mut frame = vec![0, (length >> 8) as u8, length as u8, kind, flags, 0, 0, 0, 1];
        frame.resize(9 + length, 0xff);
        frame
    }

    /// With the preface and SETTINGS behind it.
    fn begun() -> Flood {
        let mut flood = Flood::new();
        flood.see(&[0; PREFACE]);
        flood.see(&frame(kind::SETTINGS, 0, 6));
        flood
    }

    #[tokio::test(start_paused = true)]
    async fn frames_are_found_however_the_bytes_arrive() {
        let bytes =
            [frame(1, 4, 300), frame(0, 0, 5), frame(3, 0, 4), frame(0, 1, 0), frame(3, 0, 4)].concat();
        for piece in [1, 2, 8, 9, 10, 400] {
            let mut flood = begun();
            bytes.chunks(piece).for_each(|piece| flood.see(piece));
            assert_eq!(flood.resets.left, RESETS - 2, "{piece}");
            assert_eq!(flood.chores.left, CHORES, "what SETTINGS took came back, {piece}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_frame_is_settings() {
        let mut flood = Flood::new();
        flood.see(&[&[0; PREFACE][..], &frame(1, 5, 20)].concat());
        assert_eq!(flood.found(), Some(Abuse::NoSettings));
    }

    #[tokio::test(start_paused = true)]
    async fn resets_come_back_with_time() {
        let mut flood = begun();
        for _ in 0..RESETS {
            flood.see(&frame(3, 0, 4));
        }
        assert_eq!(flood.found(), None);
        tokio::time::advance(Duration::from_secs(2)).await;
        for _ in 0..2 * RESETS_PER_SECOND {
            flood.see(&frame(3, 0, 4));
        }
        assert_eq!(flood.found(), None);
        flood.see(&frame(3, 0, 4));
        assert_eq!(flood.found(), Some(Abuse::Resets));
    }

    #[tokio::test(start_paused = true)]
    async fn frames_for_nothing_are_a_flood_and_those_beside_content_are_none() {
        // PING, SETTINGS, PRIORITY, WINDOW_UPDATE, an unknown type, DATA without content or end.
        for kind in [6, 4, 2, 8, 99, 0] {
            let mut flood = begun();
            // One of them was the SETTINGS at the beginning.
            for _ in 1..CHORES {
                flood.see(&frame(kind, 0, 0));
            }
            assert_eq!(flood.found(), None, "{kind}");
            flood.see(&frame(kind, 0, 0));
            assert_eq!(flood.found(), Some(Abuse::Chores), "{kind}");
        }
        let mut flood = begun();
        for _ in 0..2 * CHORES {
            flood.see(&frame(6, 0, 8));
            flood.see(&frame(8, 0, 4));
            flood.see(&frame(0, 0, 4));
        }
        assert_eq!(flood.found(), None);
        for _ in 0..2 * CHORES {
            flood.see(&frame(8, 0, 4));
            flood.sent(16 * 1024);
        }
        assert_eq!(flood.found(), None);
    }
}
