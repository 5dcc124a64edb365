//! Who the client is, and what upstreams are told of it: `X-Forwarded-*` and `X-Real-IP`.

use std::net::IpAddr;

use ipnet::IpNet;

use super::fields::{Fields, Known};
use super::list;

/// Whether a peer is one of the proxies whose word is taken. IPv4 addresses that arrive on an IPv6
/// socket (`::ffff:10.0.0.1`) count as IPv4.
pub fn is_trusted(peer: IpAddr, trusted: &[IpNet]) -> bool {
    let peer = peer.to_canonical();
    trusted.iter().any(|net| net.contains(&peer))
}

/// The client as trusted proxies name it: the last address of `X-Forwarded-For` that is not one of theirs.
/// Walked from the right (R16): what stands further left was written by somebody whom nobody vouches for.
/// `None` if they name nobody.
pub fn last_untrusted(fields: &Fields, trusted: &[IpNet]) -> Option<IpAddr> {
    let members: Vec<&[u8]> = list::members(fields.values(Known::XForwardedFor)).collect();
    let mut client = None;
    for member in members.iter().rev() {
        let Some(address) = address(member) else { break };
        client = Some(address);
        if !is_trusted(address, trusted) {
            break;
        }
    }
    client
}

/// An address as people write it into `X-Forwarded-For`: bare, in brackets, with or without a port.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    if let Ok(address) = text.parse::<std::net::SocketAddr>() {
        return Some(address.ip().to_canonical());
    }
    let inside = text.strip_prefix('[')?.strip_suffix(']')?;
    inside.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

/// `http` or `https`, whatever a proxy before us called it: an app behind it knows no `wss`.
pub fn scheme(claimed: Option<&[u8]>, own: &'static str) -> &'static str {
    match claimed {
        Some(value) if [&b"https"[..], b"wss"].iter().any(|s| value.eq_ignore_ascii_case(s)) => "https",
        Some(value) if [&b"http"[..], b"ws"].iter().any(|s| value.eq_ignore_ascii_case(s)) => "http",
        _ => own,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, forwarded: &[&str], trusted: &[&str]) -> String {
        let bytes = forwarded.join("\n").into_bytes();
        let name = bytes.len()..bytes.len() + 15;
        let mut fields = Fields::over([bytes, b"x-forwarded-for".to_vec()].concat(), 1);
        let mut start = 0;
        for line in forwarded {
            fields.push(name.clone(), start..start + line.len());
            start += line.len() + 1;
        }
        let trusted: Vec<IpNet> = trusted.iter().map(|net| net.parse().unwrap()).collect();
        let peer: IpAddr = peer.parse().unwrap();
        let named = is_trusted(peer, &trusted).then(|| last_untrusted(&fields, &trusted)).flatten();
        named.unwrap_or(peer.to_canonical()).to_string()
    }

    #[test]
    fn r16_the_list_is_walked_from_the_right_over_trusted_addresses_only() {
        for (peer, forwarded, trusted, expected) in [
            ("9.9.9.9", &["1.1.1.1"][..], &["10.0.0.0/8"][..], "9.9.9.9"),
            ("10.0.0.1", &["1.1.1.1"], &["10.0.0.0/8"], "1.1.1.1"),
            ("10.0.0.1", &["6.6.6.6, 1.1.1.1, 10.0.0.2"], &["10.0.0.0/8"], "1.1.1.1"),
            ("10.0.0.1", &["6.6.6.6", "1.1.1.1", "10.0.0.2"], &["10.0.0.0/8"], "1.1.1.1"),
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], &["10.0.0.0/8"], "10.0.0.3"),
            ("10.0.0.1", &["6.6.6.6, nonsense"], &["10.0.0.0/8"], "10.0.0.1"),
            ("10.0.0.1", &["[2001:db8::1]:443"], &["10.0.0.0/8"], "2001:db8::1"),
            ("::ffff:10.0.0.1", &["1.1.1.1:80"], &["10.0.0.0/8"], "1.1.1.1"),
            ("10.0.0.1", &[], &["10.0.0.0/8"], "10.0.0.1"),
            ("10.0.0.1", &["1.1.1.1"], &[], "10.0.0.1"),
        ] {
            assert_eq!(client(peer, forwarded, trusted), expected, "{peer} {forwarded:?}");
        }
    }

    #[test]
    fn the_scheme_is_only_ever_http_or_https() {
        assert_eq!(scheme(Some(b"WSS"), "http"), "https");
        assert_eq!(scheme(Some(b"ws"), "https"), "http");
        assert_eq!(scheme(Some(b"gopher"), "http"), "http");
        assert_eq!(scheme(None, "https"), "https");
    }
}
