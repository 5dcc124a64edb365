//! `Forwarded` (RFC 7239): who the client is as proxies name it there, and what upstreams are told in it.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::forwarded::{Named, address, scheme, walk};
use super::is_token_byte;

/// The client as trusted proxies name it, found as in `X-Forwarded-For`: [`forwarded::last_untrusted`]. With it comes
/// how it has sent the request, `http` or `https`, if that is told.
///
/// [`forwarded::last_untrusted`]: super::forwarded::last_untrusted
pub fn last_untrusted<'a>(
    lines: impl DoubleEndedIterator<Item = &'a [u8]>,
    trusted: &[IpNet],
    takes_last: bool,
) -> Option<(Named, Option<&'static str>)> {
    let nobody = || vec![Element::default()];
    let from_the_right = lines.rev().flat_map(|line| elements(line).unwrap_or_else(nobody).into_iter().rev());
    walk(from_the_right.map(|element| (element.named(), element.scheme())), trusted, takes_last)
}

/// Whether the field's grammar has such a line. In one that it does not have, what a proxy has added may be a part
/// of what a client has begun: `for=6.6.6.6;host="` and then `, for=192.0.2.1`.
pub fn is_sound(line: &[u8]) -> bool {
    elements(line).is_some()
}

/// Adds a member, §4: `for`, `host` and `proto`. A peer without an address is `unknown` (§6.2).
pub fn element(out: &mut Vec<u8>, peer: Option<IpAddr>, host: Option<&str>, scheme: &str) {
    node(out, peer, None);
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

/// Adds the `for` of a member, §6.
pub fn node(out: &mut Vec<u8>, ip: Option<IpAddr>, port: Option<u16>) {
    let node = match (ip, port) {
        (None, _) => "for=unknown".to_owned(),
        (Some(ip @ IpAddr::V4(_)), None) => format!("for={ip}"),
        // A colon or a bracket is no part of a token.
        (Some(ip @ IpAddr::V6(_)), None) => format!("for=\"[{ip}]\""),
        (Some(ip), Some(port)) => format!("for=\"{}\"", SocketAddr::new(ip, port)),
    };
    out.extend_from_slice(node.as_bytes());
}

/// A member.
#[derive(Default)]
struct Element {
    node: Option<Vec<u8>>,
    proto: Option<Vec<u8>>,
}

impl Element {
    /// `192.0.2.1`, `"[2001:db8::1]:4711"`. `unknown` and what is obfuscated, `_hidden`, are no addresses (§6.2, §6.3),
    /// but a port may be obfuscated alone.
    fn named(&self) -> Option<Named> {
        let node = self.node.as_deref()?;
        let colon = memchr::memrchr(b':', node).filter(|colon| is_obfuscated(&node[colon + 1..]));
        let Some(colon) = colon else { return address(node) };
        address(&node[..colon])
            .filter(|(ip, port)| port.is_none() && (ip.is_ipv4() || node[colon - 1] == b']'))
    }

    fn scheme(&self) -> Option<&'static str> {
        let proto = self.proto.as_deref()?;
        // Whatever else it is, it is told nobody.
        match (scheme(Some(proto), "http"), scheme(Some(proto), "https")) {
            (one, other) if one == other => Some(one),
            _ => None,
        }
    }
}

/// `_hidden` (§6.3).
fn is_obfuscated(text: &[u8]) -> bool {
    let is_one = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    text.strip_prefix(b"_").is_some_and(|rest| !rest.is_empty() && rest.iter().all(is_one))
}

/// The members of a line. `None` if the grammar does not have it; but people write addresses with colons and brackets
/// without quotes, and blanks, where nothing else can be meant.
fn elements(line: &[u8]) -> Option<Vec<Element>> {
    let mut elements = Vec::new();
    let mut rest = line.trim_ascii();
    loop {
        let (element, is_empty, behind) = one_element(rest)?;
        // Empty members of a list count for nothing (RFC 9110 §5.6.1.2).
        elements.extend((!is_empty).then_some(element));
        let Some(behind) = behind else { break };
        rest = behind.trim_ascii_start();
    }
    Some(elements).filter(|elements| !elements.is_empty())
}

/// The first member of a line, whether nothing is in it, and what stands behind its comma.
fn one_element(mut rest: &[u8]) -> Option<(Element, bool, Option<&[u8]>)> {
    let (mut element, mut is_empty) = (Element::default(), true);
    loop {
        if !matches!(rest.first(), None | Some(b',' | b';')) {
            let name = rest.iter().take_while(|byte| is_token_byte(**byte)).count();
            let value = rest[name..].trim_ascii_start().strip_prefix(b"=")?.trim_ascii_start();
            let (value, behind) =
                if value.first() == Some(&b'"') { quoted(value)? } else { unquoted(value)? };
            let slot = match &rest[..name] {
                b"" => return None,
                name if name.eq_ignore_ascii_case(b"for") => Some(&mut element.node),
                name if name.eq_ignore_ascii_case(b"proto") => Some(&mut element.proto),
                _ => None,
            };
            // §4: each parameter stands once in a member.
            if slot.is_some_and(|slot| slot.replace(value).is_some()) {
                return None;
            }
            is_empty = false;
            rest = behind.trim_ascii_start();
        }
        match rest.split_first() {
            None => return Some((element, is_empty, None)),
            Some((b',', behind)) => return Some((element, is_empty, Some(behind))),
            Some((b';', behind)) => rest = behind.trim_ascii_start(),
            Some(_) => return None,
        }
    }
}

/// A value without quotes, and what stands behind it.
fn unquoted(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let end =
        text.iter().position(|byte| matches!(byte, b',' | b';' | b'"' | b' ' | b'\t')).unwrap_or(text.len());
    (end > 0).then(|| (text[..end].to_vec(), &text[end..]))
}

/// A value between quotes, without what stands for quotes in it (RFC 9110 §5.6.4), and what stands behind it.
fn quoted(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut value = Vec::new();
    let mut bytes = text.iter().enumerate().skip(1);
    loop {
        match bytes.next()? {
            (end, b'"') => return Some((value, &text[end + 1..])),
            (_, b'\\') => value.push(*bytes.next()?.1),
            (_, byte) => value.push(*byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(lines: &[&str]) -> String {
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        match last_untrusted(lines.iter().map(|line| line.as_bytes()), &trusted, false) {
            Some(((ip, port), scheme)) => {
                let port = port.map_or_else(String::new, |port| format!(" {port}"));
                format!("{ip}{port}{}", scheme.map_or_else(String::new, |scheme| format!(" {scheme}")))
            }
            None => String::new(),
        }
    }

    #[test]
    fn the_members_are_walked_from_the_right_over_trusted_addresses_only() {
        for (lines, expected) in [
            (&["for=192.0.2.60;proto=http;by=203.0.113.43"][..], "192.0.2.60 http"),
            (&["for=192.0.2.43, For=\"[2001:db8:cafe::17]:4711\""], "2001:db8:cafe::17 4711"),
            (&["for=192.0.2.43, for=10.0.0.1"], "192.0.2.43"),
            (&["for=6.6.6.6", "for=192.0.2.43;proto=HTTPS", "for=10.0.0.1;proto=http"], "192.0.2.43 https"),
            (&["for=192.0.2.43;proto=ftp"], "192.0.2.43"),
            (&["for=\"[2001:db8::1]\", for=\"[fd00::1]:80\""], "2001:db8::1"),
            (&["for=192.0.2.43 ;; proto = https , , for = 10.0.0.1 ,"], "192.0.2.43 https"),
            (&["for=\"192.0.2\\.43:80\""], "192.0.2.43 80"),
            (&["for=\"::ffff:10.0.0.9\", for=\"[::ffff:10.0.0.1]\""], "10.0.0.9"),
            // People leave the quotes out.
            (&["for=2001:db8::1"], "2001:db8::1"),
            (&["for=[2001:db8::1]:80"], "2001:db8::1 80"),
            (&["for=192.0.2.43:80"], "192.0.2.43 80"),
            // Ports can be hidden alone.
            (&["for=\"192.0.2.43:_p-1\""], "192.0.2.43"),
            (&["for=\"[2001:db8::1]:_p\""], "2001:db8::1"),
            (&["for=\"2001:db8::1:_p\""], ""),
            (&["for=\"192.0.2.43:80:_p\""], ""),
            (&["for=\"192.0.2.43:_\""], ""),
            (&["for=\":_p\""], ""),
            // Behind those who are not told, nobody is looked for.
            (&["for=6.6.6.6, for=unknown"], ""),
            (&["for=6.6.6.6, for=_hidden, for=10.0.0.1"], "10.0.0.1"),
            (&["for=6.6.6.6, proto=http"], ""),
            (&["for=6.6.6.6", ""], ""),
            (&[], ""),
        ] {
            assert_eq!(client(lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn a_line_that_the_grammar_does_not_have_names_nobody() {
        for line in [
            // What a client sends for a proxy to add its own to.
            "for=6.6.6.6;host=\", for=192.0.2.1",
            "for=6.6.6.6;host=\"a, for=192.0.2.1;host=\"x\"",
            "for=6.6.6.6;host=\"\\\", for=192.0.2.1;host=\"x\"",
            "for=6.6.6.6;host=\", for=\"[2001:db8::1]\"",
            "for=6.6.6.6;for=192.0.2.1",
            "for=6.6.6.6 for=192.0.2.1",
            "for",
            "for=",
            "for=;proto=http",
            "=6.6.6.6",
            "for=6.6.6.6\"",
            "for=\"6.6.6.6",
            "for=\"6.6.6.6\\",
            "for=\"6.6.6.6\"x",
            "f or=6.6.6.6",
            ",",
            "",
        ] {
            assert!(!is_sound(line.as_bytes()), "{line}");
            assert_eq!(client(&["for=6.6.6.6", line, "for=10.0.0.1"]), "10.0.0.1", "{line}");
        }
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        for (ip, port, expected) in [
            ("192.0.2.1", None, "192.0.2.1"),
            ("192.0.2.1", Some(80), "192.0.2.1 80"),
            ("2001:db8::1", None, "2001:db8::1"),
            ("2001:db8::1", Some(80), "2001:db8::1 80"),
            ("", None, ""),
        ] {
            let mut out = b"for=\"a\\\"\", ".to_vec();
            node(&mut out, ip.parse().ok(), port);
            assert_eq!(client(&[str::from_utf8(&out).unwrap()]), expected);
        }
        let mut out = Vec::new();
        element(&mut out, "192.0.2.1".parse().ok(), Some("a\"b"), "https");
        assert_eq!(out, b"for=192.0.2.1;host=\"a\\\"b\";proto=https");
        assert_eq!(client(&[str::from_utf8(&out).unwrap()]), "192.0.2.1 https");
    }
}
