//! Rules about header fields: pure, over the fields of one message.

pub mod credentials;
pub mod fields;
pub mod forwarded;
pub mod hop_by_hop;
pub mod list;
pub mod outgoing;
pub mod response;
pub mod rfc7239;

use std::fmt;

/// The name of a field, checked: a token (RFC 9110 §5.6.2) in the spelling it was written in.
#[derive(Clone, Debug)]
pub struct FieldName(String);

impl FieldName {
    /// `None` if the text is not a token.
    pub fn new(text: &str) -> Option<Self> {
        let token = !text.is_empty() && text.bytes().all(is_token_byte);
        token.then(|| Self(text.to_owned()))
    }

    /// The name as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Names of fields are compared without regard to case, RFC 9110 §5.1.
impl PartialEq for FieldName {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Eq for FieldName {}

impl fmt::Display for FieldName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a byte may stand in a token, RFC 9110 §5.6.2.
pub fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
