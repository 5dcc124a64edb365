//! What a header of version 2 adds to its addresses: values with a type each (§2.2).

use super::NoHeader;

/// The checksum of the header.
const CRC32C: u8 = 0x03;
/// What the client and the balancer have agreed upon by TLS.
const SSL: u8 = 0x20;
/// The bit of the first byte of that which says that they have.
const CLIENT_SSL: u8 = 0x01;
/// Bytes of [`SSL`] ahead of the TLVs within: the bits, and whether the certificate was verified.
const SSL_FIXED: usize = 5;

/// The names that nginx has for types.
const NAMES: &[(&str, u8)] =
    &[("alpn", 0x01), ("authority", 0x02), ("unique_id", 0x05), ("ssl", SSL), ("netns", 0x30)];
/// And for those within [`SSL`].
const SSL_NAMES: &[(&str, u8)] =
    &[("version", 0x21), ("cn", 0x22), ("cipher", 0x23), ("sig_alg", 0x24), ("key_alg", 0x25)];

/// The TLVs of one header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tlvs(Box<[u8]>);

/// One that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tlv {
    /// One of this type.
    Type(u8),
    /// One of this type within that about TLS.
    Ssl(u8),
    /// Whether that says that the client's certificate was verified: 0 if so, another number if not.
    SslVerify,
}

impl Tlv {
    /// By its name in nginx's `$proxy_protocol_tlv_NAME`, or its number: `0xea`, `ssl_0x21`.
    pub fn named(name: &str) -> Option<Self> {
        let find = |names: &[(&str, u8)], name: &str| match name.strip_prefix("0x") {
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                u8::from_str_radix(digits, 16).ok()
            }
            Some(_) => None,
            None => names.iter().find(|(known, _)| *known == name).map(|(_, number)| *number),
        };
        match name.strip_prefix("ssl_") {
            Some("verify") => Some(Self::SslVerify),
            Some(name) => find(SSL_NAMES, name).map(Self::Ssl),
            None => find(NAMES, name).map(Self::Type),
        }
    }
}

impl Tlvs {
    /// Those of a header that was read.
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    /// Whether the client has spoken TLS with the balancer.
    pub fn is_tls(&self) -> bool {
        self.ssl().is_some_and(|(client, ..)| client & CLIENT_SSL != 0)
    }

    /// Adds the value of one to `out`; nothing if it is not there.
    pub fn write(&self, tlv: Tlv, out: &mut Vec<u8>) {
        let value = match tlv {
            Tlv::Type(wanted) => find(&self.0, wanted),
            Tlv::Ssl(wanted) => self.ssl().and_then(|(.., within)| find(within, wanted)),
            Tlv::SslVerify => {
                let verify = self.ssl().map(|(_, verify, _)| verify.to_string());
                return out.extend(verify.unwrap_or_default().into_bytes());
            }
        };
        out.extend_from_slice(value.unwrap_or_default());
    }

    /// What is said of TLS: the bits, the verification, and the TLVs within.
    fn ssl(&self) -> Option<(u8, u32, &[u8])> {
        let (fixed, within) = find(&self.0, SSL)?.split_first_chunk::<SSL_FIXED>()?;
        let [client, verify @ ..] = *fixed;
        Some((client, u32::from_be_bytes(verify), within))
    }
}

/// The value of the first TLV of a type.
fn find(tlvs: &[u8], wanted: u8) -> Option<&[u8]> {
    Rows(tlvs).map_while(Result::ok).find(|(kind, ..)| *kind == wanted).map(|(_, value)| value)
}

/// Walks over TLVs; what is none ends the walk.
struct Rows<'a>(&'a [u8]);

impl<'a> Iterator for Rows<'a> {
    type Item = Result<(u8, &'a [u8]), NoHeader>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let row = self.0.split_first_chunk::<3>().and_then(|(&[kind, high, low], rest)| {
            let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([high, low])))?;
            Some((kind, value, rest))
        });
        let Some((kind, value, rest)) = row else {
            self.0 = &[];
            return Some(Err(NoHeader::Tlv));
        };
        self.0 = rest;
        Some(Ok((kind, value)))
    }
}

/// Looks whether a header ends in whole TLVs from `start` on, and is what its checksum says, if it has one, as a
/// receiver must.
pub(super) fn check(header: &[u8], start: usize) -> Result<(), NoHeader> {
    let mut left = &header[start..];
    while !left.is_empty() {
        let mut rows = Rows(left);
        let (kind, value) = rows.next().unwrap_or(Err(NoHeader::Tlv))?;
        left = rows.0;
        if kind != CRC32C {
            continue;
        }
        let told = u32::from_be_bytes(value.try_into().map_err(|_| NoHeader::Tlv)?);
        let end = header.len() - left.len();
        // It is made with zeros in its own place.
        let parts = [&header[..end - value.len()], &[0; 4], left];
        if told != crc32c(parts.into_iter().flatten().copied()) {
            return Err(NoHeader::Checksum);
        }
    }
    Ok(())
}

/// RFC 3720 appendix B.4. A header is a few dozen bytes, and there is one for each connection: it needs no table.
fn crc32c(bytes: impl Iterator<Item = u8>) -> u32 {
    let of_bit = |sum: u32, _| if sum & 1 == 1 { (sum >> 1) ^ 0x82f6_3b78 } else { sum >> 1 };
    !bytes.fold(u32::MAX, |sum, byte| (0..8).fold(sum ^ u32::from(byte), of_bit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(kind: u8, value: &[u8]) -> Vec<u8> {
        [&[kind], &u16::try_from(value.len()).unwrap().to_be_bytes()[..], value].concat()
    }

    #[test]
    fn the_checksum_is_that_of_the_rfc() {
        assert_eq!(crc32c(b"123456789".iter().copied()), 0xe306_9283);
        assert_eq!(crc32c([0; 32].into_iter()), 0x8a91_36aa);
    }

    #[test]
    fn a_checksum_holds_for_the_whole_header() {
        let before = b"the header and its addresses";
        let header = [&before[..], &row(0x01, b"h2"), &row(CRC32C, &[0; 4]), &row(0x04, b"padding")].concat();
        let sum = crc32c(header.iter().copied());
        let at = header.len() - row(0x04, b"padding").len() - 4;
        let mut right = header.clone();
        right[at..at + 4].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(check(&right, before.len()), Ok(()));
        for place in (0..before.len()).chain(at..at + 4).chain(right.len() - 1..right.len()) {
            let mut wrong = right.clone();
            wrong[place] ^= 1;
            assert_eq!(check(&wrong, before.len()), Err(NoHeader::Checksum), "{place}");
        }
    }

    #[test]
    fn values_are_found_by_the_names_that_nginx_has() {
        let within = [row(0x21, b"TLSv1.3"), row(0x22, b"a client"), row(0x23, b"TLS_AES")].concat();
        let ssl = row(SSL, &[&[0x01, 0, 0, 0, 18], &within[..]].concat());
        let tlvs =
            Tlvs::of(&[row(0x01, b"h2"), row(0x02, b"a.example"), ssl, row(0xea, b"\x01vpce-1")].concat());
        for (name, expected) in [
            ("alpn", &b"h2"[..]),
            ("authority", b"a.example"),
            ("unique_id", b""),
            ("0x01", b"h2"),
            ("0xEA", b"\x01vpce-1"),
            ("0xea", b"\x01vpce-1"),
            ("ssl_version", b"TLSv1.3"),
            ("ssl_cn", b"a client"),
            ("ssl_cipher", b"TLS_AES"),
            ("ssl_0x22", b"a client"),
            ("ssl_key_alg", b""),
            ("ssl_verify", b"18"),
            ("netns", b""),
        ] {
            let mut value = Vec::new();
            tlvs.write(Tlv::named(name).unwrap(), &mut value);
            assert_eq!(value, expected, "{name}");
        }
        assert!(tlvs.is_tls());
        for name in ["", "x", "ssl_", "ssl_x", "0x", "0x100", "0x+1", "0x 1", "ssl_alpn"] {
            assert_eq!(Tlv::named(name), None, "{name}");
        }
    }

    #[test]
    fn only_a_bit_says_that_there_was_tls() {
        for (ssl, is_tls) in [
            (&[0x01, 0, 0, 0, 0][..], true),
            (&[0x07, 0, 0, 0, 0], true),
            (&[0x06, 0, 0, 0, 0], false),
            (&[0x00, 0, 0, 0, 1], false),
            (&[0x01, 0, 0, 0], false),
        ] {
            assert_eq!(Tlvs::of(&row(SSL, ssl)).is_tls(), is_tls, "{ssl:?}");
        }
        assert!(!Tlvs::default().is_tls());
    }
}
