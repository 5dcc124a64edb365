//! Who the client is, and what upstreams are told of it: `X-Forwarded-*` and `X-Real-IP`.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

/// Whether a peer is one of the proxies whose word is taken. IPv4 addresses that arrive on an IPv6
/// socket (`::ffff:10.0.0.1`) count as IPv4.
pub fn is_trusted(peer: IpAddr, trusted: &[IpNet]) -> bool {
    let peer = peer.to_canonical();
    trusted.iter().any(|net| net.contains(&peer))
}

/// An address as a proxy names it, with a port if it names one.
pub type Named = (IpAddr, Option<u16>);

/// The client as trusted proxies name it: the last address that is not one of theirs. Walked from the right
/// (R16): what stands further left was written by somebody whom nobody vouches for. With `takes_last` the walk
/// ends with its first step. `None` if they name nobody.
///
/// nginx: `ngx_http_get_forwarded_addr`.
pub fn last_untrusted<'a>(
    from_the_right: impl Iterator<Item = &'a [u8]>,
    trusted: &[IpNet],
    takes_last: bool,
) -> Option<Named> {
    let mut client = None;
    for member in from_the_right {
        let Some(named) = address(member) else { break };
        client = Some(named);
        if takes_last || !is_trusted(named.0, trusted) {
            break;
        }
    }
    client
}

/// The members of lines like those of `X-Forwarded-For`, the last one first. As in nginx a blank parts members
/// as well as a comma, and a line with nothing in it is a member that is no address.
pub fn listed<'a>(lines: impl DoubleEndedIterator<Item = &'a [u8]>) -> impl Iterator<Item = &'a [u8]> {
    lines.rev().flat_map(|line| {
        let mut members = line.rsplit(|byte| matches!(byte, b',' | b' ')).filter(|member| !member.is_empty());
        let last = members.next().unwrap_or_default();
        std::iter::once(last).chain(members)
    })
}

/// The `for` of each member of `Forwarded` (RFC 7239 §4), the last one first; empty where there is none.
pub fn forwarded_for<'a>(lines: impl DoubleEndedIterator<Item = &'a [u8]>) -> impl Iterator<Item = &'a [u8]> {
    lines.rev().flat_map(|line| {
        let members: Vec<&[u8]> = unquoted_split(line, b',').map(node).collect();
        members.into_iter().rev()
    })
}

/// The node of one member: `for=192.0.2.1`, `For="[2001:db8::1]:4711"`.
fn node(member: &[u8]) -> &[u8] {
    let pairs = unquoted_split(member, b';').filter_map(|pair| {
        let equals = memchr::memchr(b'=', pair)?;
        Some((pair[..equals].trim_ascii(), pair[equals + 1..].trim_ascii()))
    });
    let found = pairs.filter(|(name, _)| name.eq_ignore_ascii_case(b"for")).map(|(_, value)| value).next();
    let value = found.unwrap_or_default();
    value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value)
}

/// Splits at a byte that does not stand between quotes.
fn unquoted_split(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    text.split(move |byte| {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_quoted => is_escaped = true,
            b'"' => is_quoted = !is_quoted,
            _ => return *byte == separator && !is_quoted,
        }
        false
    })
}

/// Whether every quote in a line is closed, so that a further member can stand behind it.
pub fn is_whole(line: &[u8]) -> bool {
    let (mut is_quoted, mut is_escaped) = (false, false);
    for byte in line {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_quoted => is_escaped = true,
            b'"' => is_quoted = !is_quoted,
            _ => {}
        }
    }
    !is_quoted
}

/// Adds a member of `Forwarded`, RFC 7239 §4: `for`, `host` and `proto`. A peer without an address is `unknown` (§6.2).
pub fn element(out: &mut Vec<u8>, peer: Option<IpAddr>, host: Option<&str>, scheme: &str) {
    let node = match peer {
        Some(IpAddr::V4(ip)) => ip.to_string(),
        // §6: a colon or a bracket is no part of a token.
        Some(IpAddr::V6(ip)) => format!("\"[{ip}]\""),
        None => "unknown".to_owned(),
    };
    out.extend_from_slice(format!("for={node}").as_bytes());
    if let Some(host) = host {
        out.extend_from_slice(b";host=\"");
        for byte in host.bytes() {
            if matches!(byte, b'"' | b'\\') {
                out.push(b'\\');
            }
            out.push(byte);
        }
        out.push(b'"');
    }
    out.extend_from_slice(format!(";proto={scheme}").as_bytes());
}

/// An address as people write it into `X-Forwarded-For`: bare, in brackets, with or without a port.
fn address(text: &[u8]) -> Option<Named> {
    let text = std::str::from_utf8(text).ok()?;
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some((address.to_canonical(), None));
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        // As in nginx, no address has the port 0.
        return (address.port() > 0).then(|| (address.ip().to_canonical(), Some(address.port())));
    }
    let inside = text.strip_prefix('[')?.strip_suffix(']')?;
    inside.parse::<IpAddr>().ok().map(|address| (address.to_canonical(), None))
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

    fn lines<'a>(lines: &'a [&str]) -> impl DoubleEndedIterator<Item = &'a [u8]> {
        lines.iter().map(|line| line.as_bytes())
    }

    fn client(lines: &[&str], takes_last: bool) -> String {
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap()];
        let found = last_untrusted(listed(self::lines(lines)), &trusted, takes_last);
        found.map_or_else(String::new, |(ip, port)| match port {
            Some(port) => SocketAddr::new(ip, port).to_string(),
            None => ip.to_string(),
        })
    }

    #[test]
    fn r16_the_list_is_walked_from_the_right_over_trusted_addresses_only() {
        for (lines, expected, last) in [
            (&["1.1.1.1"][..], "1.1.1.1", "1.1.1.1"),
            (&["6.6.6.6, 1.1.1.1, 10.0.0.2"], "1.1.1.1", "10.0.0.2"),
            (&["6.6.6.6", "1.1.1.1", "10.0.0.2"], "1.1.1.1", "10.0.0.2"),
            (&["10.0.0.3, 10.0.0.2"], "10.0.0.3", "10.0.0.2"),
            (&["6.6.6.6, nonsense, 10.0.0.2"], "10.0.0.2", "10.0.0.2"),
            (&["6.6.6.6, nonsense"], "", ""),
            (&["6.6.6.6 1.1.1.1 ,, "], "1.1.1.1", "1.1.1.1"),
            (&["6.6.6.6", ""], "", ""),
            (&["6.6.6.6", "", "10.0.0.2"], "10.0.0.2", "10.0.0.2"),
            (&["[2001:db8::1]:443"], "[2001:db8::1]:443", "[2001:db8::1]:443"),
            (&["[2001:db8::1]"], "2001:db8::1", "2001:db8::1"),
            (&["1.1.1.1:80, ::ffff:10.0.0.2"], "1.1.1.1:80", "10.0.0.2"),
            (&["1.1.1.1:0"], "", ""),
            (&[], "", ""),
        ] {
            assert_eq!(client(lines, false), expected, "{lines:?}");
            assert_eq!(client(lines, true), last, "{lines:?}");
        }
    }

    #[test]
    fn forwarded_is_read_member_by_member() {
        for (field, expected) in [
            (&["for=192.0.2.60;proto=http;by=203.0.113.43"][..], &["192.0.2.60"][..]),
            (
                &["for=192.0.2.43, For=\"[2001:db8:cafe::17]:4711\""],
                &["[2001:db8:cafe::17]:4711", "192.0.2.43"],
            ),
            (&["for=a", "host=\"x, for=b\"; FOR = c"], &["c", "a"]),
            (&["host=\"\\\", for=b\", proto=http"], &["", ""]),
            (&["for=unknown, for=_hidden"], &["_hidden", "unknown"]),
            (&[""], &[""]),
        ] {
            let found: Vec<_> = forwarded_for(lines(field)).map(String::from_utf8_lossy).collect();
            assert_eq!(found, expected, "{field:?}");
        }
    }

    #[test]
    fn a_member_can_be_read_again_whatever_stands_before_it() {
        for (ip, node) in [("192.0.2.1", "192.0.2.1"), ("2001:db8::1", "[2001:db8::1]"), ("", "unknown")] {
            let mut out = b"for=\"a\\\"\", ".to_vec();
            assert!(is_whole(&out));
            element(&mut out, ip.parse().ok(), Some("a\"b"), "https");
            let found: Vec<_> = forwarded_for([&out[..]].into_iter()).map(String::from_utf8_lossy).collect();
            assert_eq!(found[0], node);
            assert!(out.ends_with(b";host=\"a\\\"b\";proto=https"));
        }
        for open in [&b"for=\""[..], b"host=\"a\\\"", b"a\"b\"c\""] {
            assert!(!is_whole(open), "{}", open.escape_ascii());
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
