//! The target of a request: its form, and its path in the one form that is matched and sent on.

use std::ops::Range;

use crate::config::EncodedSlashes;

/// A request target, RFC 9112 §3.2, checked and normalised. It holds places in the text of the
/// target rather than copies of it; in the usual case, a path that is normal already, nothing is copied.
#[derive(Debug, PartialEq, Eq)]
pub struct Target {
    /// The path as it came; `*` for the asterisk-form.
    path: Range<usize>,
    /// What stands behind the `?`.
    query: Option<Range<usize>>,
    /// Only if the path was not normal.
    normal: Option<Box<Normal>>,
}

/// A path in its two forms.
#[derive(Debug, PartialEq, Eq)]
struct Normal {
    /// Percent-decoded, dot segments resolved, slashes merged: what locations are matched with.
    decoded: Vec<u8>,
    /// Dot segments resolved and unreserved characters decoded: what is sent on.
    encoded: Vec<u8>,
}

/// Why a target is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetError {
    /// Neither origin-form, absolute-form of `http` or `https`, nor `*`.
    Form,
    /// The authority of an absolute-form target is not `host` or `host:port`.
    Authority,
    /// A blank, a control byte, `#` or `\`.
    Byte,
    /// A `%` without two hexadecimal digits, or `%00`.
    Escape,
    /// `%2F` or `%5C`, and the server does not let them pass.
    EncodedSlash,
    /// `..` leads out of the root.
    AboveRoot,
}

impl Target {
    /// Reads a target. `asterisk` says whether the method is one that may have `*`: `OPTIONS`.
    ///
    /// # Errors
    /// What is wrong with it (R29, R30).
    pub fn parse(text: &[u8], asterisk: bool, slashes: EncodedSlashes) -> Result<Self, TargetError> {
        if text == b"*" {
            let whole = Self { path: 0..1, query: None, normal: None };
            return if asterisk { Ok(whole) } else { Err(TargetError::Form) };
        }
        if !text.iter().all(|byte| is_target_byte(*byte)) {
            return Err(TargetError::Byte);
        }
        let start = if text.first() == Some(&b'/') { 0 } else { absolute_form(text)?.end };
        let end = memchr::memchr(b'?', &text[start..]).map_or(text.len(), |question| start + question);
        let query = (end < text.len()).then(|| end + 1..text.len());
        let normal = match (start < end, asterisk && query.is_none()) {
            (true, _) => normalise(&text[start..end], slashes)?,
            // RFC 9112 §3.2.4: OPTIONS of an absolute-form target without a path means `*`.
            (false, true) => Some(Normal::of(b"*")),
            (false, false) => Some(Normal::of(b"/")),
        };
        Ok(Self { path: start..end, query, normal: normal.map(Box::new) })
    }

    /// The host and port that an absolute-form target names: they stand above the `Host` field (R29).
    ///
    /// # Errors
    /// The target is in no form that a proxy takes.
    pub fn authority(text: &[u8]) -> Result<Option<Host<'_>>, TargetError> {
        if text.first() == Some(&b'/') || text == b"*" {
            return Ok(None);
        }
        let authority = absolute_form(text)?;
        Host::parse(&text[authority]).ok_or(TargetError::Authority).map(Some)
    }

    /// The path to match with, decoded: `$uri`.
    pub fn path<'a>(&'a self, text: &'a [u8]) -> &'a [u8] {
        self.normal.as_ref().map_or(&text[self.path.clone()], |normal| &normal.decoded)
    }

    /// Whether anything in the path was percent-encoded, or could be read so: nginx then encodes what it
    /// takes out of it.
    pub fn is_encoded(&self, text: &[u8]) -> bool {
        memchr::memchr2(b'%', b'+', &text[self.path.clone()]).is_some()
    }

    /// The path to send on.
    pub fn encoded_path<'a>(&'a self, text: &'a [u8]) -> &'a [u8] {
        self.normal.as_ref().map_or(&text[self.path.clone()], |normal| &normal.encoded)
    }

    /// The query without its `?`: `$args`.
    pub fn query<'a>(&self, text: &'a [u8]) -> Option<&'a [u8]> {
        self.query.clone().map(|range| &text[range])
    }

    /// What is sent on behind the first `matched` bytes of the decoded path, for a `proxy_pass` with a
    /// URI part. Taken from the path that is sent on, so that `%2B` or `%3F` stay what they were.
    pub fn encoded_rest<'a>(&'a self, text: &'a [u8], matched: usize) -> &'a [u8] {
        let mut rest = self.encoded_path(text);
        for _ in 0..matched {
            let Some((byte, behind)) = decode_first(rest) else { break };
            rest = behind;
            // Slashes were merged in what was matched.
            while let (b'/', Some((b'/', behind))) = (byte, decode_first(rest)) {
                rest = behind;
            }
        }
        rest
    }
}

impl Normal {
    fn of(path: &[u8]) -> Self {
        Self { decoded: path.to_vec(), encoded: path.to_vec() }
    }
}

/// Visible ASCII and everything above it, as apps with UTF-8 in their paths send it; no `#`, which
/// has no place in a target, and no `\`, which some servers take for `/` (R30).
fn is_target_byte(byte: u8) -> bool {
    byte > b' ' && byte != 0x7f && byte != b'#' && byte != b'\\'
}

/// Where the authority of `http://authority/path` stands; the path follows it.
fn absolute_form(text: &[u8]) -> Result<Range<usize>, TargetError> {
    let scheme = memchr::memmem::find(text, b"://").ok_or(TargetError::Form)?;
    if ![&b"http"[..], b"https"].iter().any(|known| text[..scheme].eq_ignore_ascii_case(known)) {
        return Err(TargetError::Form);
    }
    let start = scheme + 3;
    let rest = &text[start..];
    let length = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    Host::parse(&rest[..length]).ok_or(TargetError::Authority)?;
    Ok(start..start + length)
}

/// `None` if the path is in its normal form already and needs no decoding.
fn normalise(path: &[u8], slashes: EncodedSlashes) -> Result<Option<Normal>, TargetError> {
    let is_plain = memchr::memchr(b'%', path).is_none()
        && memchr::memmem::find(path, b"//").is_none()
        && memchr::memmem::find(path, b"/.").is_none();
    if is_plain {
        return Ok(None);
    }
    let encoded = resolve_dots(&decode_unreserved(path, slashes)?)?;
    let decoded = decode(&encoded);
    if has_dot_segment(&decoded) {
        // Only `%2F` can have hidden one from the step before.
        return Err(TargetError::EncodedSlash);
    }
    let decoded = merge_slashes(&decoded);
    Ok(Some(Normal { decoded, encoded }))
}

/// Decodes `%XX` where it stands for a character that needs no escape (RFC 3986 §2.3, §6.2.2.2): then
/// `%2e%2e` is seen as the `..` that it is.
fn decode_unreserved(path: &[u8], slashes: EncodedSlashes) -> Result<Vec<u8>, TargetError> {
    let mut plain = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&byte, tail)) = rest.split_first() {
        if byte != b'%' {
            plain.push(byte);
            rest = tail;
            continue;
        }
        let escape = tail.get(..2).ok_or(TargetError::Escape)?;
        match unhex(escape).ok_or(TargetError::Escape)? {
            0 => return Err(TargetError::Escape),
            b'/' | b'\\' if slashes == EncodedSlashes::Reject => return Err(TargetError::EncodedSlash),
            byte if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => plain.push(byte),
            _ => plain.extend_from_slice(&rest[..3]),
        }
        rest = &tail[2..];
    }
    Ok(plain)
}

fn unhex(digits: &[u8]) -> Option<u8> {
    let digit = |byte: u8| (byte as char).to_digit(16);
    Some((digit(digits[0])? * 16 + digit(digits[1])?) as u8)
}

fn decode(path: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((byte, behind)) = decode_first(rest) {
        decoded.push(byte);
        rest = behind;
    }
    decoded
}

/// The first character of a path, decoded, and what stands behind it.
fn decode_first(path: &[u8]) -> Option<(u8, &[u8])> {
    let (&byte, tail) = path.split_first()?;
    Some(match tail.get(..2).filter(|_| byte == b'%').and_then(unhex) {
        Some(byte) => (byte, &tail[2..]),
        None => (byte, tail),
    })
}

/// Whether a path that was put together from parts leads anywhere else than it seems to (R31).
pub fn leads_astray(path: &[u8]) -> bool {
    has_dot_segment(&decode(path))
}

/// RFC 3986 §5.2.4, and like nginx a `..` that leads out of the root is refused, not ignored. As there `//`
/// counts as one slash for it: `/a//../b` is `/b`.
fn resolve_dots(path: &[u8]) -> Result<Vec<u8>, TargetError> {
    let mut resolved: Vec<u8> = Vec::with_capacity(path.len());
    let mut segments = path[1..].split(|byte| *byte == b'/').peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            b"." if is_last => resolved.push(b'/'),
            b"." => {}
            b".." => {
                while resolved.last() == Some(&b'/') {
                    resolved.pop();
                }
                let parent = memchr::memrchr(b'/', &resolved).ok_or(TargetError::AboveRoot)?;
                resolved.truncate(parent);
                if is_last {
                    resolved.push(b'/');
                }
            }
            _ => {
                resolved.push(b'/');
                resolved.extend_from_slice(segment);
            }
        }
    }
    Ok(resolved)
}

fn has_dot_segment(path: &[u8]) -> bool {
    path.split(|byte| *byte == b'/' || *byte == b'\\').any(|segment| matches!(segment, b"." | b".."))
}

fn merge_slashes(path: &[u8]) -> Vec<u8> {
    let mut merged: Vec<u8> = Vec::with_capacity(path.len());
    for &byte in path {
        if byte != b'/' || merged.last() != Some(&b'/') {
            merged.push(byte);
        }
    }
    merged
}

/// A `Host`, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host<'a> {
    /// The whole as it came: `$http_host`.
    pub text: &'a str,
    /// A name or an IPv4 address, or an IPv6 address in its brackets; never empty.
    pub name: &'a str,
    /// The port, if one is written.
    pub port: Option<u16>,
}

impl<'a> Host<'a> {
    /// Reads `uri-host [ ":" port ]`, RFC 9110 §7.2. Of RFC 3986's reg-name the characters that occur
    /// in names are taken; escapes and sub-delims (a `,` is what merged `Host` lines look like) are not.
    pub fn parse(text: &'a [u8]) -> Option<Self> {
        // Each request has one: a name is looked at once, byte by byte.
        let end = name_end(text)?;
        let text = std::str::from_utf8(text).ok()?;
        let (name, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, port) = rest.split_once(']')?;
                address.parse::<std::net::Ipv6Addr>().ok()?;
                (&text[..address.len() + 2], port)
            }
            None => text.split_at(end),
        };
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => None,
            None => return None,
            // RFC 3986 §3.2.3 allows a port that is empty.
            Some("") => None,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(digits.parse().ok()?),
            Some(_) => return None,
        };
        Some(Self { text, name, port })
    }

    /// The name to look a server up with and `$host`: in lower case, without a dot at its end.
    pub fn folded(&self) -> String {
        let name = self.name.to_ascii_lowercase();
        match name.strip_suffix('.') {
            Some(rest) => rest.to_owned(),
            None => name,
        }
    }
}

/// Where the name ends that `text` begins with; `None` if it begins with none. What begins with a bracket is an
/// address, which is read otherwise.
fn name_end(text: &[u8]) -> Option<usize> {
    if text.first() == Some(&b'[') {
        return Some(0);
    }
    let mut before = 0;
    for (at, &byte) in text.iter().enumerate() {
        match byte {
            b':' if at > 0 && text[..at] != *b"." => return Some(at),
            // An empty label is nobody's, as in nginx: `.`, `a..b`.
            b'.' if before == b'.' => return None,
            b'.' | b'-' | b'_' | b'~' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => before = byte,
            _ => return None,
        }
    }
    if text.is_empty() || text == b"." { None } else { Some(text.len()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn forms(text: &str, slashes: EncodedSlashes) -> Result<(String, String), TargetError> {
        let target = Target::parse(text.as_bytes(), false, slashes)?;
        let owned = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((owned(target.path(text.as_bytes())), owned(target.encoded_path(text.as_bytes()))))
    }

    #[test]
    fn r30_what_is_matched_and_what_is_sent_are_the_same_path() {
        for (text, decoded, encoded) in [
            ("/", "/", "/"),
            ("/a/b", "/a/b", "/a/b"),
            ("/a/../b", "/b", "/b"),
            ("/a/%2e%2E/b", "/b", "/b"),
            ("/a/./b/.", "/a/b/", "/a/b/"),
            ("/a/b/..", "/a/", "/a/"),
            ("/%61%7E", "/a~", "/a~"),
            ("/a%20b", "/a b", "/a%20b"),
            ("/a%2Bb%3F", "/a+b?", "/a%2Bb%3F"),
            ("/%25%32%65", "/%2e", "/%252e"),
            ("//a///b", "/a/b", "//a///b"),
            ("/a//../b", "/b", "/b"),
            ("/a/b//./../c", "/a/c", "/a/c"),
            ("/.well-known/x", "/.well-known/x", "/.well-known/x"),
            ("/a/...", "/a/...", "/a/..."),
        ] {
            assert_eq!(forms(text, EncodedSlashes::Reject), Ok((decoded.into(), encoded.into())), "{text}");
        }
    }

    #[test]
    fn r30_what_proxies_and_apps_disagree_about_is_refused() {
        for (text, error) in [
            ("/a%2Fb", TargetError::EncodedSlash),
            ("/a%5cb", TargetError::EncodedSlash),
            ("/a%00", TargetError::Escape),
            ("/a%", TargetError::Escape),
            ("/a%2", TargetError::Escape),
            ("/a%zz", TargetError::Escape),
            ("/a#b", TargetError::Byte),
            ("/a\\b", TargetError::Byte),
            ("/a\x01", TargetError::Byte),
            ("/../a", TargetError::AboveRoot),
            ("/a/../../b", TargetError::AboveRoot),
            ("/%2e%2e", TargetError::AboveRoot),
            ("a", TargetError::Form),
            ("", TargetError::Form),
            ("*", TargetError::Form),
            ("ftp://a/", TargetError::Form),
            ("http:///a", TargetError::Authority),
            ("http://u@a/", TargetError::Authority),
        ] {
            assert_eq!(forms(text, EncodedSlashes::Reject), Err(error), "{text}");
        }
    }

    #[test]
    fn encoded_slashes_pass_where_asked_for_but_not_with_dots_behind_them() {
        assert_eq!(
            forms("/p/group%2Fname", EncodedSlashes::Pass),
            Ok(("/p/group/name".into(), "/p/group%2Fname".into()))
        );
        for text in ["/a%2F..%2Fb", "/a%2f../b", "/a/..%2Fb", "/a%5C..%5Cb"] {
            assert_eq!(forms(text, EncodedSlashes::Pass), Err(TargetError::EncodedSlash), "{text}");
        }
    }

    #[test]
    fn an_absolute_target_gives_its_authority_and_path() {
        let text = b"HTTP://Example.com:81?x=1";
        let target = Target::parse(text, false, EncodedSlashes::Reject).unwrap();
        let authority = Target::authority(text).unwrap();
        assert_eq!(authority, Some(Host { name: "Example.com", port: Some(81), text: "Example.com:81" }));
        assert_eq!(target.path(text), b"/");
        assert_eq!(target.query(text), Some(&b"x=1"[..]));
    }

    #[test]
    fn the_rest_behind_a_matched_prefix_keeps_its_escapes() {
        for (text, matched, rest) in [
            ("/api/x%2By", 5, "x%2By"),
            ("/a%20b/c%3Fd", 5, "c%3Fd"),
            ("//api///x//y", 5, "x//y"),
            ("/api", 4, ""),
            ("/%C3%A4/z", 4, "z"),
            ("/a%2F%2F/%2fb/secret", 5, "secret"),
        ] {
            let target = Target::parse(text.as_bytes(), false, EncodedSlashes::Pass).unwrap();
            assert_eq!(target.encoded_rest(text.as_bytes(), matched), rest.as_bytes(), "{text}");
        }
    }

    #[test]
    fn a_host_is_a_name_or_an_address_and_maybe_a_port() {
        for (text, name, port) in [
            ("a", "a", None),
            ("My_Host.example:8080", "My_Host.example", Some(8080)),
            ("127.0.0.1:", "127.0.0.1", None),
            ("[::1]", "[::1]", None),
            ("[::1]:80", "[::1]", Some(80)),
        ] {
            assert_eq!(Host::parse(text.as_bytes()), Some(Host { text, name, port }), "{text}");
        }
        for text in [
            "", ".", "..", "a..b", ".:80", ":80", "a b", "a,b", "a/b", "a:b", "a:99999", "u@a", "[::1",
            "[a]", "[::1]x", "a:+1", "a%2e",
        ] {
            assert_eq!(Host::parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(Host::parse(b"EXAMPLE.com.").map(|host| host.folded()).as_deref(), Some("example.com"));
    }

    proptest! {
        #[test]
        fn normalising_twice_is_normalising_once(text in "/([a-c./%]|%2e|%41|%2F|%20){0,12}") {
            let Ok((decoded, encoded)) = forms(&text, EncodedSlashes::Pass) else { return Ok(()) };
            prop_assert!(!has_dot_segment(decoded.as_bytes()) , "{decoded}");
            prop_assert!(!decoded.contains("//"));
            prop_assert_eq!(forms(&encoded, EncodedSlashes::Pass), Ok((decoded, encoded)));
        }

        #[test]
        fn no_target_makes_it_panic(text in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = Target::parse(&text, true, EncodedSlashes::Pass);
            let _ = Host::parse(&text);
        }
    }
}
