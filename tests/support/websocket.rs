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
