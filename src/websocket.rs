//! The opening handshake of RFC 6455 §4, as checks on fields.

use std::error::Error;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

use crate::headers::fields::{Fields, Known};
use crate::headers::list;

/// The version of RFC 6455, the only one there is.
pub const VERSION: &str = "13";

/// What a client asked for in its handshake, and what the upstream's answer is held against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// What `Sec-WebSocket-Accept` must be.
    accept: String,
    /// The subprotocols that the client offered.
    protocols: Vec<Vec<u8>>,
}

/// A handshake that is not one (R3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeError {
    /// `Sec-WebSocket-Version` is not 13.
    Version,
    /// `Sec-WebSocket-Version` is missing or repeated.
    NoVersion,
    /// `Sec-WebSocket-Key` is missing, repeated, or not 16 bytes in base64.
    Key,
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Version => "the WebSocket handshake asks for a version other than 13",
            Self::NoVersion => "the WebSocket handshake has no single Sec-WebSocket-Version",
            Self::Key => "the WebSocket handshake has no valid Sec-WebSocket-Key",
        })
    }
}

impl Error for HandshakeError {}

impl Handshake {
    /// Checks the fields of a client's handshake, RFC 6455 §4.2.1.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn of(fields: &Fields) -> Result<Self, HandshakeError> {
        match fields.single(Known::SecWebSocketVersion) {
            Ok(Some(version)) if version == VERSION.as_bytes() => {}
            Ok(Some(_)) => return Err(HandshakeError::Version),
            Ok(None) | Err(_) => return Err(HandshakeError::NoVersion),
        }
        let key = fields.single(Known::SecWebSocketKey).ok().flatten().ok_or(HandshakeError::Key)?;
        if !is_key(key) {
            return Err(HandshakeError::Key);
        }
        let protocols = list::members(fields.values(Known::SecWebSocketProtocol));
        Ok(Self { accept: accept(key), protocols: protocols.map(<[u8]>::to_vec).collect() })
    }

    /// Checks the fields of the upstream's 101, RFC 6455 §4.1 (R2).
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn verify(&self, fields: &Fields) -> Result<(), &'static str> {
        match fields.single(Known::SecWebSocketAccept) {
            Ok(Some(value)) if value == self.accept.as_bytes() => {}
            Ok(Some(_)) => return Err("its Sec-WebSocket-Accept belongs to another key"),
            Ok(None) => return Err("it has no Sec-WebSocket-Accept"),
            Err(_) => return Err("it has more than one Sec-WebSocket-Accept"),
        }
        match fields.single(Known::SecWebSocketProtocol) {
            Ok(None) => Ok(()),
            Ok(Some(chosen)) if self.protocols.iter().any(|offered| offered == chosen) => Ok(()),
            Ok(Some(_)) => Err("its subprotocol was not offered"),
            Err(_) => Err("it has more than one subprotocol"),
        }
    }
}

/// 16 bytes in base64: 22 characters and two signs of padding.
fn is_key(key: &[u8]) -> bool {
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    key.len() == 24 && key.ends_with(b"==") && key[..22].iter().all(is_base64)
}

/// What `Sec-WebSocket-Accept` is for a key, RFC 6455 §4.2.2 step 5.4.
pub fn accept(key: &[u8]) -> String {
    let mut hash = Sha1::new();
    hash.update(key);
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(lines: &[(&str, &str)]) -> Fields {
        let mut bytes = Vec::new();
        let mut places = Vec::new();
        for (name, value) in lines {
            let start = bytes.len();
            bytes.extend_from_slice(name.as_bytes());
            let middle = bytes.len();
            bytes.extend_from_slice(value.as_bytes());
            places.push((start..middle, middle..bytes.len()));
        }
        let mut fields = Fields::over(bytes, places.len());
        for (name, value) in places {
            fields.push(name, value);
        }
        fields
    }

    const KEY: (&str, &str) = ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
    const V13: (&str, &str) = ("Sec-WebSocket-Version", "13");
    const ACCEPT: (&str, &str) = ("Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");

    #[test]
    fn the_example_of_rfc_6455_is_right() {
        let handshake = Handshake::of(&fields(&[KEY, V13])).unwrap();
        assert_eq!(handshake.verify(&fields(&[ACCEPT])), Ok(()));
    }

    #[test]
    fn r3_a_malformed_handshake_is_told_from_a_wrong_version() {
        for (lines, error) in [
            (&[KEY][..], HandshakeError::NoVersion),
            (&[KEY, V13, V13], HandshakeError::NoVersion),
            (&[KEY, ("Sec-WebSocket-Version", "8")], HandshakeError::Version),
            (&[KEY, ("Sec-WebSocket-Version", "13, 8")], HandshakeError::Version),
            (&[V13], HandshakeError::Key),
            (&[V13, KEY, KEY], HandshakeError::Key),
            (&[V13, ("Sec-WebSocket-Key", "")], HandshakeError::Key),
            (&[V13, ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ")], HandshakeError::Key),
            (&[V13, ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQAA")], HandshakeError::Key),
            (&[V13, ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25j!Q==")], HandshakeError::Key),
            (&[V13, ("Sec-WebSocket-Key", "c2hvcnQ=")], HandshakeError::Key),
        ] {
            assert_eq!(Handshake::of(&fields(lines)), Err(error), "{lines:?}");
        }
    }

    #[test]
    fn r2_an_answer_to_another_handshake_is_refused() {
        let handshake = Handshake::of(&fields(&[
            KEY,
            V13,
            ("Sec-WebSocket-Protocol", "a, b"),
            ("Sec-WebSocket-Protocol", "c"),
        ]))
        .unwrap();
        for protocol in ["a", "b", "c"] {
            assert_eq!(
                handshake.verify(&fields(&[ACCEPT, ("Sec-WebSocket-Protocol", protocol)])),
                Ok(()),
                "{protocol}"
            );
        }
        for lines in [
            &[][..],
            &[("Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOO=")],
            &[ACCEPT, ACCEPT],
            &[ACCEPT, ("Sec-WebSocket-Protocol", "d")],
            &[ACCEPT, ("Sec-WebSocket-Protocol", "a, b")],
            &[ACCEPT, ("Sec-WebSocket-Protocol", "a"), ("Sec-WebSocket-Protocol", "b")],
        ] {
            assert!(handshake.verify(&fields(lines)).is_err(), "{lines:?}");
        }
    }
}
