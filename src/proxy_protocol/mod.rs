//! The PROXY protocol, versions 1 and 2: what a balancer says of its client, ahead of everything else. `read` is for
//! what balancers in front of hopgate say, `write` for what upstreams are told; `tlv` is what version 2 can add.
//!
//! <https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>, whose sections are meant here.

mod read;
mod tlv;
mod write;

use std::net::SocketAddr;

pub use read::{Header, NoHeader, Progress, Said, read};
pub use tlv::{Tlv, Tlvs};
pub use write::Outgoing;

/// What a header in version 2 begins with (§2.2).
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The signature, the version with the command, the family with the transport, and the length of the rest.
const FIXED: usize = SIGNATURE.len() + 4;
/// `LOCAL`: the connection is that of whoever says so.
const LOCAL: u8 = 0x20;
/// `PROXY`: it is made for somebody else.
const PROXY: u8 = 0x21;
/// TCP over IPv4.
const TCP4: u8 = 0x11;
/// TCP over IPv6.
const TCP6: u8 = 0x21;

/// How a header is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// A line of text.
    V1,
    /// A block of bytes.
    V2,
}

/// The ends of the connection that the balancer has accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Addresses {
    /// Where its client connected from.
    pub source: SocketAddr,
    /// Where its client connected to.
    pub destination: SocketAddr,
}
