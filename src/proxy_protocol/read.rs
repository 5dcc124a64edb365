//! Reads the header that stands in front of a connection.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::tlv::{self, Tlvs};
use super::{Addresses, FIXED, LOCAL, PROXY, SIGNATURE};

/// The most bytes of a header in version 1, with its CRLF (§2.1).
const LONGEST_LINE: usize = 107;
/// The most bytes of a header in version 2. Its addresses take 216 at most, the rest is for TLVs; as in nginx.
const LONGEST_BLOCK: usize = 4096;
/// What a header in version 1 begins with.
const WORD: &[u8] = b"PROXY ";
/// The bytes of a path in the block for Unix-domain sockets, of which there are two.
const UNIX_PATH: usize = 108;

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// The connection is the balancer's own, to see whether somebody is there (`LOCAL`).
    Own,
    /// It is that of a client without an address that could be told: `UNKNOWN`, or one of a Unix-domain socket.
    Unknown,
    /// It is that of this client.
    Client(Addresses),
}

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The beginning of a header.
    Partial,
    /// A header.
    Whole(Header),
}

/// A header as it stands at the beginning of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What it says.
    pub said: Said,
    /// Where its TLVs begin, which go up to its end; there, if it has none.
    tlvs: usize,
    /// How many bytes it takes.
    pub end: usize,
}

impl Header {
    fn line(said: Said, end: usize) -> Self {
        Self { said, tlvs: end, end }
    }

    /// What it adds; `bytes` are those that it was read from.
    pub fn tlvs(&self, bytes: &[u8]) -> Tlvs {
        Tlvs::of(bytes.get(self.tlvs..self.end).unwrap_or_default())
    }
}

/// Why they are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoHeader {
    /// They begin otherwise.
    Other,
    /// The line of version 1 is not one.
    Line,
    /// The line, or the block of version 2, has more bytes than any.
    Long,
    /// A version, command, family or transport of version 2 that there is not.
    Kind,
    /// The block of version 2 has no room for its addresses.
    Short,
    /// What stands behind the addresses is no row of TLVs.
    Tlv,
    /// It is not what its checksum was made of.
    Checksum,
}

/// Looks at the first bytes of a connection.
///
/// # Errors
/// They are no header, nor the beginning of one.
pub fn read(bytes: &[u8]) -> Result<Progress, NoHeader> {
    if begins(bytes, WORD) {
        return line(bytes);
    }
    if begins(bytes, SIGNATURE) {
        return block(bytes);
    }
    Err(NoHeader::Other)
}

/// Whether as much of `mark` is there as can be.
fn begins(bytes: &[u8], mark: &[u8]) -> bool {
    let count = bytes.len().min(mark.len());
    bytes[..count] == mark[..count]
}

/// §2.1
fn line(bytes: &[u8]) -> Result<Progress, NoHeader> {
    let seen = &bytes[..bytes.len().min(LONGEST_LINE)];
    let Some(end) = memchr::memchr(b'\n', seen) else {
        return if seen.len() < LONGEST_LINE { Ok(Progress::Partial) } else { Err(NoHeader::Long) };
    };
    let line = seen[..end].strip_suffix(b"\r").ok_or(NoHeader::Line)?;
    let mut words = line[WORD.len()..].split(|byte| *byte == b' ');
    let mut word = || words.next().and_then(|word| std::str::from_utf8(word).ok()).ok_or(NoHeader::Line);
    let ip: fn(&str) -> Option<IpAddr> = match word()? {
        // Whatever stands behind it is to be ignored.
        "UNKNOWN" => return Ok(Progress::Whole(Header::line(Said::Unknown, end + 1))),
        "TCP4" => |word| word.parse::<Ipv4Addr>().ok().map(IpAddr::from),
        "TCP6" => |word| word.parse::<Ipv6Addr>().ok().map(IpAddr::from),
        _ => return Err(NoHeader::Line),
    };
    let source = ip(word()?).ok_or(NoHeader::Line)?;
    let destination = ip(word()?).ok_or(NoHeader::Line)?;
    let source = SocketAddr::new(source, port(word()?)?);
    let destination = SocketAddr::new(destination, port(word()?)?);
    if words.next().is_some() {
        return Err(NoHeader::Line);
    }
    let said = Said::Client(Addresses { source, destination });
    Ok(Progress::Whole(Header::line(said, end + 1)))
}

/// A decimal number without zeros in front of it.
fn port(word: &str) -> Result<u16, NoHeader> {
    let port: u16 = word.parse().map_err(|_| NoHeader::Line)?;
    if word.len() == port.checked_ilog10().unwrap_or(0) as usize + 1 { Ok(port) } else { Err(NoHeader::Line) }
}

/// §2.2
fn block(bytes: &[u8]) -> Result<Progress, NoHeader> {
    let Some(fixed) = bytes.get(SIGNATURE.len()..FIXED) else { return Ok(Progress::Partial) };
    let (command, family, transport) = (fixed[0], fixed[1] >> 4, fixed[1] & 0xf);
    // What is not assigned "must be rejected as invalid by receivers".
    if !matches!(command, LOCAL | PROXY) || family > 3 || transport > 2 {
        return Err(NoHeader::Kind);
    }
    let end = FIXED + usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
    if end > LONGEST_BLOCK {
        return Err(NoHeader::Long);
    }
    let Some(rest) = bytes.get(FIXED..end) else { return Ok(Progress::Partial) };
    let (said, length) = match (command, family, transport) {
        // What else it says is to be ignored.
        (LOCAL, ..) => (Said::Own, rest.len()),
        (_, 1, 1) => (Said::Client(addresses::<4>(rest)?), 2 * 4 + 4),
        (_, 2, 1) => (Said::Client(addresses::<16>(rest)?), 2 * 16 + 4),
        (_, 3, _) if rest.len() < 2 * UNIX_PATH => return Err(NoHeader::Short),
        (_, 3, _) => (Said::Unknown, 2 * UNIX_PATH),
        // How long its addresses are is not known, nor so where TLVs begin.
        _ => (Said::Unknown, rest.len()),
    };
    let tlvs = FIXED + length;
    tlv::check(&bytes[..end], tlvs)?;
    Ok(Progress::Whole(Header { said, tlvs, end }))
}

/// Two addresses of so many bytes, and their ports; TLVs may follow.
fn addresses<const N: usize>(rest: &[u8]) -> Result<Addresses, NoHeader>
where
    IpAddr: From<[u8; N]>,
{
    let (source, rest) = rest.split_first_chunk::<N>().ok_or(NoHeader::Short)?;
    let (destination, rest) = rest.split_first_chunk::<N>().ok_or(NoHeader::Short)?;
    let (ports, _) = rest.split_first_chunk::<4>().ok_or(NoHeader::Short)?;
    let (source_port, destination_port) = ([ports[0], ports[1]], [ports[2], ports[3]]);
    Ok(Addresses {
        source: SocketAddr::new(IpAddr::from(*source), u16::from_be_bytes(source_port)),
        destination: SocketAddr::new(IpAddr::from(*destination), u16::from_be_bytes(destination_port)),
    })
}

impl fmt::Display for NoHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Other => "it begins otherwise",
            Self::Line => "the line that begins with `PROXY` is not as version 1 has it",
            Self::Long => "it is longer than 107 bytes (version 1) or 4096 bytes (version 2)",
            Self::Kind => "it has a version, a command, a family or a transport that there is not",
            Self::Short => "it has no room for the addresses that it speaks of",
            Self::Tlv => "what stands behind its addresses is no row of TLVs",
            Self::Checksum => "its checksum (CRC32c) is that of another one",
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{TCP4, TCP6};
    use super::*;

    fn client(source: &str, destination: &str) -> Said {
        let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
        Said::Client(Addresses { source, destination })
    }

    fn version_2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [SIGNATURE, &[command, family], &length, rest].concat()
    }

    /// A header of so many bytes.
    fn whole(said: Said, end: usize) -> Result<(Said, usize), NoHeader> {
        Ok((said, end))
    }

    /// As [`read`], of what must be a whole header.
    fn read_whole(bytes: &[u8]) -> Result<(Said, usize), NoHeader> {
        match read(bytes)? {
            Progress::Whole(header) => Ok((header.said, header.end)),
            Progress::Partial => panic!("only the beginning of a header: {}", bytes.escape_ascii()),
        }
    }

    #[test]
    fn the_lines_of_version_1_are_read() {
        for (text, said) in [
            ("PROXY TCP4 192.0.2.1 198.51.100.2 65535 0\r\n", client("192.0.2.1:65535", "198.51.100.2:0")),
            (
                "PROXY TCP6 2001:db8::1 ::ffff:10.0.0.1 1 443\r\n",
                client("[2001:db8::1]:1", "[::ffff:10.0.0.1]:443"),
            ),
            ("PROXY UNKNOWN\r\n", Said::Unknown),
            ("PROXY UNKNOWN ffff:f 192.0.2.1 \0 x\r\n", Said::Unknown),
        ] {
            let bytes = [text.as_bytes(), b"GET / HTTP/1.1\r\n\r\n"].concat();
            assert_eq!(read_whole(&bytes), whole(said, text.len()), "{text:?}");
            for count in 0..text.len() {
                assert_eq!(read(&bytes[..count]), Ok(Progress::Partial), "{:?}", &text[..count]);
            }
        }
    }

    #[test]
    fn what_is_nearly_a_line_of_version_1_is_none() {
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(LONGEST_LINE - 16));
        assert_eq!(long.len(), LONGEST_LINE);
        assert_eq!(read_whole(long.as_bytes()), whole(Said::Unknown, LONGEST_LINE));
        assert_eq!(read(format!("{}x\r\n", &long[..LONGEST_LINE - 2]).as_bytes()), Err(NoHeader::Long));
        for text in ["GET / HTTP/1.1\r\n", "proxy TCP4", "\r\n\r\nGET", "\u{16}\u{3}\u{1}", "PROXY\r\n"] {
            assert_eq!(read(text.as_bytes()), Err(NoHeader::Other), "{text:?}");
        }
        for text in [
            "PROXY TCP4 192.0.2.1 192.0.2.2 80 80\n",
            "PROXY  TCP4 192.0.2.1 192.0.2.2 80 80\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 80\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 80 80 \r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 080 80\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 +80 80\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 00 80\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 65536 80\r\n",
            "PROXY TCP4 192.0.02.1 192.0.2.2 80 80\r\n",
            "PROXY TCP4 2001:db8::1 2001:db8::2 80 80\r\n",
            "PROXY TCP6 192.0.2.1 192.0.2.2 80 80\r\n",
            "PROXY TCP6 2001:db8::1%1 2001:db8::2 80 80\r\n",
            "PROXY tcp4 192.0.2.1 192.0.2.2 80 80\r\n",
            "PROXY UDP4 192.0.2.1 192.0.2.2 80 80\r\n",
            "PROXY unknown\r\n",
            "PROXY \r\n",
        ] {
            assert_eq!(read(text.as_bytes()), Err(NoHeader::Line), "{text:?}");
        }
    }

    #[test]
    fn the_blocks_of_version_2_are_read_whatever_follows_the_addresses() {
        let v4 = [192, 0, 2, 1, 198, 51, 100, 2, 0x1f, 0x90, 1, 0xbb];
        let mut v6 = [0; 36];
        (v6[15], v6[31], v6[33], v6[35]) = (1, 2, 80, 81);
        let tlv = b"\x04\x00\x03abc";
        for (block, said) in [
            (version_2(PROXY, TCP4, &v4), client("192.0.2.1:8080", "198.51.100.2:443")),
            (version_2(PROXY, TCP4, &[&v4[..], tlv].concat()), client("192.0.2.1:8080", "198.51.100.2:443")),
            (version_2(PROXY, TCP6, &v6), client("[::1]:80", "[::2]:81")),
            (version_2(PROXY, 0x00, b""), Said::Unknown),
            (version_2(PROXY, 0x00, tlv), Said::Unknown),
            (version_2(PROXY, 0x12, &v4), Said::Unknown),
            (version_2(PROXY, 0x31, &[0; 216]), Said::Unknown),
            (version_2(LOCAL, 0x00, b""), Said::Own),
            (version_2(LOCAL, TCP4, &v4), Said::Own),
            (version_2(PROXY, 0x00, &[7; LONGEST_BLOCK - FIXED]), Said::Unknown),
        ] {
            let end = block.len();
            let bytes = [&block[..], b"PRI * HTTP/2.0"].concat();
            assert_eq!(read_whole(&bytes), whole(said, end));
            for count in 0..end {
                assert_eq!(read(&bytes[..count]), Ok(Progress::Partial), "{count}");
            }
        }
    }

    #[test]
    fn blocks_of_no_known_kind_are_refused_before_they_are_waited_for() {
        let long = [SIGNATURE, b"\x21\x00", &4081_u16.to_be_bytes()].concat();
        for (bytes, why) in [
            (version_2(0x11, 0x11, &[0; 12]), NoHeader::Kind),
            (version_2(0x22, 0x11, &[0; 12]), NoHeader::Kind),
            (version_2(PROXY, 0x41, &[0; 12]), NoHeader::Kind),
            (version_2(PROXY, 0x13, &[0; 12]), NoHeader::Kind),
            (version_2(PROXY, TCP4, &[0; 11]), NoHeader::Short),
            (version_2(PROXY, TCP6, &[0; 35]), NoHeader::Short),
            (version_2(PROXY, 0x31, &[0; 215]), NoHeader::Short),
            (long, NoHeader::Long),
            (version_2(PROXY, TCP4, &[0; 13]), NoHeader::Tlv),
            (version_2(PROXY, TCP4, b"aaaabbbbccdd\x01\x00\x03h2"), NoHeader::Tlv),
            (version_2(PROXY, TCP4, b"aaaabbbbccdd\x01\x00\x02h2\x04\x00"), NoHeader::Tlv),
            (version_2(PROXY, 0x31, &[0; 217]), NoHeader::Tlv),
            // A checksum has four bytes.
            (version_2(PROXY, TCP4, b"aaaabbbbccdd\x03\x00\x03abc"), NoHeader::Tlv),
            (version_2(PROXY, TCP4, b"aaaabbbbccdd\x03\x00\x04abcd"), NoHeader::Checksum),
        ] {
            assert_eq!(read(&bytes), Err(why), "{}", bytes.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn no_header_is_longer_than_its_version_allows_and_none_changes_with_what_follows(
            begin in prop_oneof![Just(&b""[..]), Just(WORD), Just(SIGNATURE), Just(&b"PROXY TCP4 1.2.3.4 "[..])],
            rest in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let bytes = [begin, &rest].concat();
            match read(&bytes) {
                Ok(Progress::Whole(header)) => {
                    let end = header.end;
                    prop_assert!(end <= bytes.len() && end <= LONGEST_BLOCK && header.tlvs <= end);
                    prop_assert_eq!(read(&bytes[..end]), Ok(Progress::Whole(header)));
                    for count in 0..end {
                        prop_assert_eq!(read(&bytes[..count]), Ok(Progress::Partial));
                    }
                }
                // However much comes behind it, it is decided already.
                Err(why) => prop_assert_eq!(read(&[&bytes[..], b"x"].concat()), Err(why)),
                Ok(Progress::Partial) => prop_assert!(bytes.len() < LONGEST_BLOCK),
            }
        }
    }
}
