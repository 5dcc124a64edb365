//! The opening handshake of RFC 6455 §1.3, with its own example key.

use super::{Hopgate, Peer, Upstream};

pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A proper handshake for `path`.
pub fn handshake(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    )
}

/// The right answer to it.
pub fn switching() -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
    )
}

/// Opens a tunnel through hopgate and returns both of its ends, client first.
#[track_caller]
pub fn open_tunnel(hopgate: &Hopgate, upstream: &Upstream) -> (Peer, Peer) {
    let mut client = hopgate.connect();
    client.send(handshake("/tunnel"));
    let mut server = upstream.accept();
    server.expect_head("GET /tunnel HTTP/1.1", &["Upgrade: websocket"]);
    server.send(switching());
    client.expect_status(101);
    (client, server)
}

/// A text message as a client sends it, RFC 6455 §5.2: in one frame, masked with zeros.
pub fn text_frame(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81];
    match text.len() {
        length @ 0..=125 => frame.push(0x80 | length as u8),
        length => {
            frame.push(0x80 | 126);
            frame.extend(u16::try_from(length).expect("a short text").to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(text.as_bytes());
    frame
}

/// Takes the next message of a server, which must be text in one frame.
#[track_caller]
pub fn read_text(peer: &mut Peer) -> String {
    let head = peer.read(2);
    assert_eq!(head[0], 0x81, "a whole text message");
    let length = match head[1] {
        126 => peer.read(2).into_iter().fold(0, |length, byte| length << 8 | usize::from(byte)),
        127 => peer.read(8).into_iter().fold(0, |length, byte| length << 8 | usize::from(byte)),
        length => usize::from(length),
    };
    String::from_utf8(peer.read(length)).expect("text is UTF-8")
}
