//! Who a client says it is: `Authorization: Basic`, RFC 7617.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::fields::Fields;

/// A name and a password, as `Authorization: Basic` carries them.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The name; not empty, without `:`.
    pub user: Vec<u8>,
    /// The password.
    pub password: Vec<u8>,
}

/// As lenient as nginx about the end of a text in base64.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

impl Credentials {
    /// Reads the first `Authorization` field; `None` if it has no name and password.
    pub fn of(fields: &Fields) -> Option<Self> {
        Self::parse(fields.named("authorization").next()?)
    }

    fn parse(value: &[u8]) -> Option<Self> {
        let (scheme, rest) = value.split_at_checked("basic ".len())?;
        if !scheme.eq_ignore_ascii_case(b"basic ") {
            return None;
        }
        let encoded = rest.trim_ascii_start().split(|byte| *byte == b'=').next()?;
        let decoded = BASE64.decode(encoded).ok()?;
        let colon = memchr::memchr(b':', &decoded).filter(|at| *at > 0)?;
        Some(Self { user: decoded[..colon].to_vec(), password: decoded[colon + 1..].to_vec() })
    }
}

/// A password is for nobody's log.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("user", &String::from_utf8_lossy(&self.user))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(value: &str) -> Option<(String, String)> {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Credentials::parse(value.as_bytes()).map(|c| (text(c.user), text(c.password)))
    }

    #[test]
    fn credentials_are_read_as_leniently_as_nginx_reads_them() {
        let user = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
        for (value, expected) in [
            ("Basic dXNlcjpzZWNyZXQ=", user("user", "secret")),
            ("BASIC   dXNlcjpzZWNyZXQ", user("user", "secret")),
            ("basic dXNlcjpzZWNyZXQ==", user("user", "secret")),
            ("Basic dXNlcjpzZWNyZXQ=junk", user("user", "secret")),
            ("Basic dXNlcjo=", user("user", "")),
            ("Basic dTphOmI=", user("u", "a:b")),
            // Without a name, without a colon, no base64, another scheme, nothing.
            ("Basic OnNlY3JldA==", None),
            ("Basic dXNlcg==", None),
            ("Basic dXNl!cjpz", None),
            ("Basic d", None),
            ("Basic ", None),
            ("Basic", None),
            ("Bearer dXNlcjpzZWNyZXQ=", None),
            ("", None),
        ] {
            assert_eq!(parsed(value), expected, "{value}");
        }
    }

    #[test]
    fn a_password_is_not_shown() {
        let shown = format!("{:?}", Credentials::parse(b"Basic dXNlcjpzZWNyZXQ="));
        assert!(shown.contains("user") && !shown.contains("secret"), "{shown}");
    }
}
