//! What a client says first on an address where TLS is spoken.

use rustls::server::Acceptor;

use crate::acme::challenges;

/// What the first bytes of a connection are.
#[derive(Debug)]
pub enum First {
    /// There are not enough of them yet.
    Partial,
    /// A ClientHello.
    Hello(Hello),
    /// HTTP without TLS.
    Http,
    /// Neither; what to say to it.
    Other(Vec<u8>),
}

/// What a client asks for.
#[derive(Debug, PartialEq, Eq)]
pub struct Hello {
    /// The host that it wants, in lower case (SNI, RFC 6066 §3).
    pub server_name: Option<String>,
    /// Whether it comes for the answer to a challenge (RFC 8737 §3), and for nothing else.
    pub is_challenge: bool,
}

/// A record of the handshake, RFC 8446 §5.1.
const HANDSHAKE: u8 = 22;

/// Its type, its version and its length come first.
const RECORD_HEAD: usize = 5;

/// The most bytes of a ClientHello. It is read anew whenever more of it has come, and whoever sends it in records of
/// one byte should not have that often; those of browsers have two thousand.
const MOST: usize = 32 * 1024;

/// Looks at the first bytes of a connection.
pub fn look(bytes: &[u8]) -> First {
    let Some(first) = bytes.first() else { return First::Partial };
    if *first != HANDSHAKE {
        // A method, or the empty line that may stand before a request (RFC 9112 §2.2).
        let is_http = first.is_ascii_alphabetic() || matches!(first, b'\r' | b'\n');
        return if is_http { First::Http } else { First::Other(Vec::new()) };
    }
    let Some(length) = bytes.get(3..RECORD_HEAD) else { return First::Partial };
    if bytes.len() < RECORD_HEAD + usize::from(u16::from_be_bytes([length[0], length[1]])) {
        return First::Partial;
    }
    let mut acceptor = Acceptor::default();
    let mut rest = bytes;
    loop {
        // From memory; it fails only if rustls takes no more.
        let count = acceptor.read_tls(&mut rest).unwrap_or(0);
        match acceptor.accept() {
            Ok(Some(accepted)) => {
                let hello = accepted.client_hello();
                let server_name = hello.server_name().map(str::to_ascii_lowercase);
                let is_challenge = hello.alpn().is_some_and(|mut offered| {
                    offered.next() == Some(challenges::PROTOCOL) && offered.next().is_none()
                });
                return First::Hello(Hello { server_name, is_challenge });
            }
            Ok(None) if bytes.len() > MOST => return First::Other(DECODE_ERROR.to_vec()),
            Ok(None) if count == 0 || rest.is_empty() => return First::Partial,
            Ok(None) => {}
            Err((_, mut alert)) => {
                let mut answer = Vec::new();
                // Writing to a Vec cannot fail.
                let _ = alert.write_all(&mut answer);
                if answer.is_empty() {
                    answer.extend_from_slice(&UNEXPECTED_MESSAGE);
                }
                return First::Other(answer);
            }
        }
    }
}

/// The alert for a message that is too long, RFC 8446 §6.2.
const DECODE_ERROR: [u8; 7] = [21, 3, 3, 0, 2, 2, 50];

/// The alert for a message that does not come first in any handshake, which rustls does not make.
const UNEXPECTED_MESSAGE: [u8; 7] = [21, 3, 3, 0, 2, 2, 10];

/// The alert that says that nobody has this name here, RFC 8446 §6.2: what nginx answers where handshakes are
/// refused.
pub const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];
