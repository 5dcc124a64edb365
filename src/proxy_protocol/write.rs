//! Writes the header with which an upstream is told whose connection it is.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::{Addresses, LOCAL, PROXY, SIGNATURE, TCP4, TCP6, Version};

/// A header to be sent. Requests for which it is the same can share a connection, and no others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Outgoing {
    version: Version,
    /// Of one family; `None` if the client has no address.
    addresses: Option<Addresses>,
}

impl Outgoing {
    /// For a client that has connected from `source` to `destination`; `None` is an end without an address.
    pub fn new(version: Version, source: Option<SocketAddr>, destination: Option<SocketAddr>) -> Self {
        let addresses = source.map(|source| {
            let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
            let (source, destination) = (canonical(source), canonical(destination.unwrap_or(nowhere)));
            // A header knows one family: an IPv4 address has a form in IPv6, which other senders use, too.
            match source.is_ipv4() == destination.is_ipv4() {
                true => Addresses { source, destination },
                false => Addresses { source: mapped(source), destination: mapped(destination) },
            }
        });
        Self { version, addresses }
    }

    /// The header as it is sent.
    pub fn bytes(&self) -> Vec<u8> {
        match self.version {
            Version::V1 => format!("{}\r\n", self.line()).into_bytes(),
            Version::V2 => self.block(),
        }
    }

    /// §2.1
    fn line(&self) -> String {
        let Some(Addresses { source, destination }) = self.addresses else {
            return "PROXY UNKNOWN".to_owned();
        };
        let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
        let (from, to) = (hexadecimal(source.ip()), hexadecimal(destination.ip()));
        format!("PROXY {family} {from} {to} {} {}", source.port(), destination.port())
    }

    /// §2.2
    fn block(&self) -> Vec<u8> {
        let mut rest = Vec::new();
        let (command, family) = match self.addresses {
            // What every receiver must take.
            None => (LOCAL, 0),
            Some(Addresses { source, destination }) => {
                for ip in [source.ip(), destination.ip()] {
                    match ip {
                        IpAddr::V4(ip) => rest.extend_from_slice(&ip.octets()),
                        IpAddr::V6(ip) => rest.extend_from_slice(&ip.octets()),
                    }
                }
                rest.extend_from_slice(&source.port().to_be_bytes());
                rest.extend_from_slice(&destination.port().to_be_bytes());
                (PROXY, if source.is_ipv4() { TCP4 } else { TCP6 })
            }
        };
        // 36 at most.
        [SIGNATURE, &[command, family, 0, rest.len() as u8], &rest].concat()
    }
}

/// For a person: the line of version 1, and what it would be for version 2.
impl fmt::Display for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.version, self.addresses) {
            (Version::V2, None) => f.write_str("LOCAL"),
            _ => f.write_str(&self.line()),
        }
    }
}

/// Without the zone of an address, which means nothing elsewhere.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn mapped(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) => IpAddr::from(ip.to_ipv6_mapped()),
        ip @ IpAddr::V6(_) => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// §2.1 has no mixed form of IPv6 (`::ffff:192.0.2.1`).
fn hexadecimal(ip: IpAddr) -> String {
    match ip {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            let [.., high, low] = v6.segments();
            format!("::ffff:{high:x}:{low:x}")
        }
        ip => ip.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Progress, Said, read};
    use super::*;

    #[test]
    fn what_is_written_is_what_is_read() {
        for (source, destination, line) in [
            ("192.0.2.1:65535", "198.51.100.2:443", "PROXY TCP4 192.0.2.1 198.51.100.2 65535 443"),
            ("[2001:db8::1]:1", "[2001:db8::2]:443", "PROXY TCP6 2001:db8::1 2001:db8::2 1 443"),
            ("[::ffff:192.0.2.1]:80", "198.51.100.2:443", "PROXY TCP4 192.0.2.1 198.51.100.2 80 443"),
            ("[fe80::1%3]:80", "[::1]:443", "PROXY TCP6 fe80::1 ::1 80 443"),
            ("[2001:db8::1]:1", "198.51.100.2:443", "PROXY TCP6 2001:db8::1 ::ffff:c633:6402 1 443"),
            ("192.0.2.1:0", "[::1]:443", "PROXY TCP6 ::ffff:c000:201 ::1 0 443"),
            ("192.0.2.1:80", "", "PROXY TCP4 192.0.2.1 0.0.0.0 80 0"),
        ] {
            let (source, destination) = (source.parse().ok(), destination.parse().ok());
            let v1 = Outgoing::new(Version::V1, source, destination);
            let v2 = Outgoing::new(Version::V2, source, destination);
            assert_eq!(v1.bytes(), format!("{line}\r\n").as_bytes());
            assert_eq!(v2.to_string(), line);
            for outgoing in [v1, v2] {
                let bytes = outgoing.bytes();
                let Ok(Progress::Whole(header)) = read(&bytes) else {
                    panic!("{line}: {}", bytes.escape_ascii())
                };
                assert_eq!(header.said, Said::Client(outgoing.addresses.unwrap()), "{line}");
                assert_eq!(header.end, bytes.len(), "{line}");
            }
        }
    }

    #[test]
    fn a_client_without_an_address_is_unknown_or_nobody() {
        let to = "198.51.100.2:443".parse().ok();
        let [v1, v2] = [Version::V1, Version::V2].map(|version| Outgoing::new(version, None, to));
        assert_eq!(v1.bytes(), b"PROXY UNKNOWN\r\n");
        assert_eq!(v2.bytes(), b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0");
        assert_eq!(v2.to_string(), "LOCAL");
        assert_eq!(Outgoing::new(Version::V1, None, None), v1);
    }
}
