//! The little of RFC 6455 that an origin and a client need here: the handshake, and frames of binary messages.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

/// The key of every handshake here.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// With which clients mask: RFC 6455 §5.3.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
/// FIN, opcode 2.
const BINARY: u8 = 0x82;

/// What answers a key: RFC 6455 §4.2.2.
pub fn accept(key: &str) -> String {
    let digest =
        Sha1::new().chain_update(key).chain_update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11").finalize();
    STANDARD.encode(digest)
}

/// A server's message of so many zeros.
pub fn unmasked(size: usize) -> Vec<u8> {
    let mut frame = head(size, 0);
    frame.resize(frame.len() + size, 0);
    frame
}

/// A client's message of so many zeros.
pub fn masked(size: usize) -> Vec<u8> {
    let mut frame = head(size, 0x80);
    frame.extend(MASK);
    frame.extend(MASK.iter().cycle().take(size));
    frame
}

fn head(size: usize, mask_bit: u8) -> Vec<u8> {
    match size {
        0..126 => vec![BINARY, mask_bit | size as u8],
        126..65536 => [&[BINARY, mask_bit | 126], &(size as u16).to_be_bytes()[..]].concat(),
        _ => [&[BINARY, mask_bit | 127], &(size as u64).to_be_bytes()[..]].concat(),
    }
}

/// Takes the client's first message off what was received: its length there, and its payload unmasked behind the head
/// that a server gives it. `None`: not whole yet.
pub fn answer(received: &[u8]) -> Option<(usize, Vec<u8>)> {
    let short = *received.get(1)? & 0x7f;
    let (size, start) = match short {
        126 => (u16::from_be_bytes(received.get(2..4)?.try_into().ok()?) as usize, 4),
        127 => (u64::from_be_bytes(received.get(2..10)?.try_into().ok()?) as usize, 10),
        short => (short as usize, 2),
    };
    let mask = received.get(start..start + 4)?;
    let payload = received.get(start + 4..start + 4 + size)?;
    let mut frame = head(size, 0);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    Some((start + 4 + size, frame))
}
