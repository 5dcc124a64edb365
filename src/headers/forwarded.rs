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
    walk(from_the_right.map(|member| (address(member), ())), trusted, takes_last).map(|(named, ())| named)
}

/// The walk itself, over members of which something else is known, too; one that is no address ends it.
pub(super) fn walk<T>(
    from_the_right: impl Iterator<Item = (Option<Named>, T)>,
    trusted: &[IpNet],
    takes_last: bool,
) -> Option<(Named, T)> {
    let mut client = None;
    for (named, more) in from_the_right {
        let Some(named) = named else { break };
        client = Some((named, more));
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

/// An address as people write it into `X-Forwarded-For`: bare, in brackets, with or without a port.
pub(super) fn address(text: &[u8]) -> Option<Named> {
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
    fn the_scheme_is_only_ever_http_or_https() {
        assert_eq!(scheme(Some(b"WSS"), "http"), "https");
        assert_eq!(scheme(Some(b"ws"), "https"), "http");
        assert_eq!(scheme(Some(b"gopher"), "http"), "http");
        assert_eq!(scheme(None, "https"), "https");
    }
}
