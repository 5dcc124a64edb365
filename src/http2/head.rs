//! Translates heads between HTTP/2 and the text of HTTP/1.1 that everything behind works on.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use h2::ext::Protocol;
use http::header::{CONTENT_LENGTH, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode};

use crate::error::ProxyError;
use crate::headers::fields::{Fields, Known};
use crate::http1::body::trailer_lines;
use crate::http1::head::{HeadError, HeadLimits, RequestHead};

/// What RFC 9113 §6.5.2 adds to each field of a header list.
const FIELD_OVERHEAD: usize = 32;

/// What a client asks for in a stream.
#[derive(Debug)]
pub enum Asked {
    /// An answer.
    Answer(RequestHead),
    /// A WebSocket (RFC 8441); the head is the handshake of HTTP/1.1 that stands for it.
    WebSocket(RequestHead),
}

/// Reads the head of a request. h2 has refused what breaks RFC 9113 by itself: fields of the connection,
/// names in upper case, pseudo-header fields that are repeated or out of place. `has_content` says whether
/// anything follows behind the head.
///
/// # Errors
/// The head is too large, breaks the rules for its parts, or asks for what is not served.
pub fn request(parts: &Parts, has_content: bool, limits: HeadLimits) -> Result<Asked, ProxyError> {
    let authority = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
    let protocol = parts.extensions.get::<Protocol>();
    check_size(parts, limits)?;
    check_host(&parts.headers, authority)?;
    let is_connect = parts.method == Method::CONNECT;
    let (method, target) = match (is_connect, protocol) {
        (false, _) => (parts.method.as_str(), path(parts)?),
        // RFC 9113 §8.5: the target of a plain CONNECT is the authority.
        (true, None) => ("CONNECT", authority.ok_or(ProxyError::Head(HeadError::Syntax))?),
        (true, Some(protocol)) if protocol.as_str() != "websocket" => return Err(ProxyError::Protocol),
        // RFC 8441 §5.1: the handshake is that of a GET. `:authority` cannot be left to `Host` here (R11).
        (true, Some(_)) if authority.is_none() => {
            return Err(ProxyError::Host("an extended CONNECT without :authority"));
        }
        // What follows is the tunnel's: a length would make bytes of the client the body of another request.
        (true, Some(_)) if parts.headers.contains_key(CONTENT_LENGTH) => {
            return Err(ProxyError::Head(HeadError::Syntax));
        }
        (true, Some(_)) => ("GET", path(parts)?),
    };
    let is_websocket = protocol.is_some();
    let mut fields =
        Fields::begin(&[method.as_bytes(), b" ", target, b" HTTP/2.0\r\n"], parts.headers.len() + 4);
    if let Some(authority) = authority {
        fields.append(b"host", authority);
    }
    copy(&parts.headers, authority.is_some(), is_websocket, &mut fields)?;
    if is_websocket {
        fields.append(b"connection", b"Upgrade");
        fields.append(b"upgrade", b"websocket");
        fields.append(b"sec-websocket-key", websocket_key().as_bytes());
    }
    fields.finish();
    if fields.len() > limits.fields {
        return Err(ProxyError::Head(HeadError::TooManyFields));
    }
    let (method, target) = (0..method.len(), method.len() + 1..method.len() + 1 + target.len());
    // What follows behind an extended CONNECT is the tunnel's.
    let head = RequestHead::of_http2(fields, method, target, has_content && !is_websocket);
    Ok(if is_websocket { Asked::WebSocket(head) } else { Asked::Answer(head) })
}

/// `:path`, in origin-form or as the `*` of OPTIONS (RFC 9113 §8.3.1). Whether it may be what it is, is for
/// the checks that all targets meet.
fn path(parts: &Parts) -> Result<&[u8], ProxyError> {
    let path = parts.uri.path_and_query().map(|path| path.as_str().as_bytes());
    path.filter(|path| path.starts_with(b"/") || *path == b"*").ok_or(ProxyError::Head(HeadError::Syntax))
}

/// The size of a header list as RFC 9113 §6.5.2 counts it, against the limit for heads.
fn check_size(parts: &Parts, limits: HeadLimits) -> Result<(), ProxyError> {
    let path = parts.uri.path_and_query().map_or(0, |path| path.as_str().len());
    if path >= limits.size {
        return Err(ProxyError::Head(HeadError::LineTooLong));
    }
    let authority = parts.uri.authority().map_or(0, |authority| authority.as_str().len() + FIELD_OVERHEAD);
    let fields = parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD_OVERHEAD);
    let size = path + FIELD_OVERHEAD + authority + fields.sum::<usize>();
    if size > limits.size { Err(ProxyError::Head(HeadError::TooLarge)) } else { Ok(()) }
}

/// RFC 9113 §8.3.1: a `Host` that differs from `:authority` is for two readers to disagree about (R29).
fn check_host(fields: &HeaderMap, authority: Option<&[u8]>) -> Result<(), ProxyError> {
    let mut hosts = fields.get_all(HOST).iter();
    match (hosts.next(), hosts.next(), authority) {
        (_, Some(_), _) => Err(ProxyError::Host("more than one Host field")),
        (Some(host), None, Some(authority)) if !host.as_bytes().eq_ignore_ascii_case(authority) => {
            Err(ProxyError::Host("the Host field and :authority name different hosts"))
        }
        _ => Ok(()),
    }
}

/// Copies the fields in their order. h2 keeps those of one name together, where the first of them stood.
fn copy(
    from: &HeaderMap,
    has_authority: bool,
    is_websocket: bool,
    to: &mut Fields,
) -> Result<(), ProxyError> {
    let mut has_cookie = false;
    for (name, value) in from {
        let value = value.as_bytes();
        // RFC 9113 §8.2.1: no blanks around a value; §8.2.2: h2 has seen to these fields, and this is the
        // last place to see to them.
        let is_padded = matches!(value, [b' ' | b'\t', ..] | [.., b' ' | b'\t']);
        let known = Known::of(name.as_str().as_bytes());
        let is_of_connection = matches!(
            known,
            Known::Connection
                | Known::KeepAlive
                | Known::ProxyConnection
                | Known::TransferEncoding
                | Known::Upgrade
        );
        if is_padded || is_of_connection {
            return Err(ProxyError::Head(HeadError::Syntax));
        }
        match known {
            Known::Host if has_authority => {}
            // RFC 8441 §5: these have no meaning here; the handshake that goes upstream has its own.
            Known::SecWebSocketKey | Known::SecWebSocketAccept if is_websocket => {}
            _ if name == COOKIE => {
                // RFC 9113 §8.2.3: the crumbs are one field to everybody else. An empty one would leave a blank at an end.
                if !std::mem::replace(&mut has_cookie, true) {
                    let crumbs = from.get_all(COOKIE).iter().map(HeaderValue::as_bytes);
                    let crumbs: Vec<_> = crumbs.filter(|crumb| !crumb.is_empty()).collect();
                    to.append(b"cookie", &crumbs.join(&b"; "[..]));
                }
            }
            _ => to.append(name.as_str().as_bytes(), value),
        }
    }
    Ok(())
}

/// A `Sec-WebSocket-Key` of our own (RFC 6455 §4.1): it proves that the upstream has read the handshake, and
/// keeps no secret.
fn websocket_key() -> String {
    STANDARD.encode(fastrand::u128(..).to_be_bytes())
}

/// The head of an answer.
#[derive(Debug)]
pub struct Answer {
    /// As h2 sends it.
    pub response: Response<()>,
    /// The length that it tells.
    pub length: Option<u64>,
}

impl Answer {
    /// Reads the text of a head, as the writers of `headers/outgoing.rs` and `reply.rs` make it. What HTTP/2
    /// has no place for is left out: the reason, and the fields of a connection (RFC 9113 §8.2.2).
    /// `opens_tunnel` makes the 101 of a WebSocket the 200 that it is in HTTP/2 (RFC 8441 §5).
    pub fn read(text: &[u8], opens_tunnel: bool) -> Option<Self> {
        let (line, mut rest) = split_line(text)?;
        let status = StatusCode::from_bytes(line.get(9..12)?).ok()?;
        let mut response = Response::new(());
        *response.status_mut() = if opens_tunnel { StatusCode::OK } else { status };
        let (fields, mut length) = (response.headers_mut(), None);
        fields.try_reserve(16).ok()?;
        loop {
            let (line, next) = split_line(rest)?;
            if line.is_empty() {
                return Some(Self { response, length });
            }
            rest = next;
            let (name, value) = split_field(line)?;
            match Known::of(name) {
                Known::Connection
                | Known::KeepAlive
                | Known::ProxyConnection
                | Known::TransferEncoding
                | Known::Upgrade => continue,
                Known::SecWebSocketAccept if opens_tunnel => continue,
                Known::ContentLength => length = std::str::from_utf8(value).ok()?.parse().ok(),
                _ => {}
            }
            let name = HeaderName::from_bytes(name).ok()?;
            fields.try_append(name, HeaderValue::from_bytes(value).ok()?).ok()?;
        }
    }
}

pub(super) fn split_line(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let newline = memchr::memchr(b'\n', text)?;
    let line = &text[..newline];
    Some((line.strip_suffix(b"\r").unwrap_or(line), &text[newline + 1..]))
}

pub(super) fn split_field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = memchr::memchr(b':', line)?;
    Some((&line[..colon], line[colon + 1..].trim_ascii()))
}

/// Trailers as lines of HTTP/1.1.
pub fn trailer_text(trailers: &HeaderMap) -> Vec<u8> {
    let mut text = Vec::new();
    for (name, value) in trailers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            text.extend_from_slice(part);
        }
    }
    text
}

/// Trailers from lines of HTTP/1.1.
pub fn trailers(text: &[u8]) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    for (name, value) in trailer_lines(text).filter_map(split_field) {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            trailers.append(name, value);
        }
    }
    trailers
}

#[cfg(test)]
mod tests {
    use http::Request;
    use proptest::prelude::*;

    use super::*;
    use crate::http1::body::BodyLength;
    use crate::http1::head::{self, Progress, Version};

    const LIMITS: HeadLimits = HeadLimits { size: 4096, fields: 20 };

    fn parts(method: &str, uri: &str, fields: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in fields {
            request = request.header(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        request.body(()).unwrap().into_parts().0
    }

    fn extended(protocol: &'static str, uri: &str, fields: &[(&str, &str)]) -> Parts {
        let mut parts = parts("CONNECT", uri, fields);
        parts.extensions.insert(Protocol::from_static(protocol));
        parts
    }

    /// The text of the head that stands for a request, without a key that is another one each time.
    fn text(parts: &Parts) -> Result<String, u16> {
        match request(parts, false, LIMITS) {
            Ok(Asked::Answer(head)) => Ok(String::from_utf8_lossy(head.fields.bytes()).into_owned()),
            Ok(Asked::WebSocket(head)) => {
                let key = head.fields.single(Known::SecWebSocketKey).unwrap().unwrap();
                let text = String::from_utf8_lossy(head.fields.bytes()).into_owned();
                Ok(text.replace(std::str::from_utf8(key).unwrap(), "KEY"))
            }
            Err(error) => Err(error.status()),
        }
    }

    #[test]
    fn a_request_is_written_as_one_of_http_1_1() {
        let fields = [
            ("b", "1"),
            ("a", "x"),
            ("b", "2"),
            ("cookie", "a=1"),
            ("te", "trailers"),
            ("cookie", "b=2"),
            ("cookie", ""),
        ];
        assert_eq!(
            text(&parts("GET", "http://a.example:81/x?y", &fields)).unwrap(),
            "GET /x?y HTTP/2.0\r\nhost: a.example:81\r\nb: 1\r\nb: 2\r\na: x\r\ncookie: a=1; b=2\r\nte: trailers\r\n\r\n"
        );
        assert_eq!(
            text(&parts("OPTIONS", "*", &[("host", "a")])).unwrap(),
            "OPTIONS * HTTP/2.0\r\nhost: a\r\n\r\n"
        );
        assert_eq!(
            text(&parts("CONNECT", "a:443", &[])).unwrap(),
            "CONNECT a:443 HTTP/2.0\r\nhost: a:443\r\n\r\n"
        );
    }

    #[test]
    fn the_length_of_content_is_told_or_left_open() {
        for (fields, has_content, expected) in [
            (&[][..], false, BodyLength::Length(0)),
            (&[], true, BodyLength::UntilClose),
            (&[("content-length", "5")], true, BodyLength::Length(5)),
        ] {
            let Ok(Asked::Answer(head)) = request(&parts("POST", "http://a/", fields), has_content, LIMITS)
            else {
                panic!("{fields:?}");
            };
            assert_eq!((head.version, head.body_length()), (Version::Http2, Ok(expected)), "{fields:?}");
        }
    }

    #[test]
    fn an_extended_connect_is_written_as_a_handshake() {
        let fields = [
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "mine"),
            ("sec-websocket-accept", "x"),
            ("sec-websocket-protocol", "chat"),
        ];
        assert_eq!(
            text(&extended("websocket", "https://a/chat", &fields)).unwrap(),
            "GET /chat HTTP/2.0\r\nhost: a\r\nsec-websocket-version: 13\r\nsec-websocket-protocol: chat\r\n\
             connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-key: KEY\r\n\r\n"
        );
        let Ok(Asked::WebSocket(head)) = request(&extended("websocket", "https://a/", &[]), true, LIMITS)
        else {
            panic!("a WebSocket");
        };
        assert_eq!(head.body_length(), Ok(BodyLength::Length(0)), "what follows is the tunnel's");
        let key = head.fields.single(Known::SecWebSocketKey).unwrap().unwrap();
        assert_eq!((key.len(), STANDARD.decode(key).unwrap().len()), (24, 16));
    }

    #[test]
    fn r34_what_cannot_be_passed_on_is_refused() {
        let mut long = Vec::new();
        long.resize(21, ("a", "b"));
        let rows: [(Parts, u16); 15] = [
            (parts("GET", "http://a/", &[("connection", "close")]), 400),
            (parts("GET", "http://a/", &[("keep-alive", "5")]), 400),
            (parts("GET", "http://a/", &[("transfer-encoding", "chunked")]), 400),
            (parts("GET", "http://a/", &[("upgrade", "websocket")]), 400),
            (parts("GET", "http://a/", &[("x", " a")]), 400),
            (parts("GET", "http://a/", &[("x", "a\t")]), 400),
            (parts("GET", "http://a/", &[("host", "b")]), 400),
            (parts("GET", "http://a/", &[("host", "a:80")]), 400),
            (parts("GET", "http://a/", &[("host", "a"), ("host", "a")]), 400),
            (parts("GET", "http://a/", &long), 431),
            (parts("GET", "http://a/", &[("x", &"y".repeat(4096))]), 431),
            (parts("GET", &format!("http://a/{}", "y".repeat(4096)), &[]), 414),
            (extended("connect-udp", "https://a/", &[]), 501),
            (extended("websocket", "/", &[("host", "a")]), 400),
            (extended("websocket", "https://a/", &[("content-length", "5")]), 400),
        ];
        for (parts, status) in rows {
            assert_eq!(text(&parts), Err(status), "{parts:?}");
        }
    }

    #[test]
    fn an_answer_loses_what_is_of_its_connection() {
        let text = b"HTTP/1.1 203 Whatever it is\r\nX-Mixed-Case: Yes \r\nSet-Cookie: a\r\nConnection: close\r\n\
            Keep-Alive: 5\r\nTransfer-Encoding: chunked\r\nSet-Cookie: b\r\nUpgrade: h2\r\nContent-Length: 12\r\n\r\n";
        let Answer { response, length } = Answer::read(text, false).unwrap();
        assert_eq!((response.status().as_u16(), length), (203, Some(12)));
        assert_eq!(
            trailer_text(response.headers()),
            b"x-mixed-case: Yes\r\nset-cookie: a\r\nset-cookie: b\r\ncontent-length: 12\r\n"
        );
    }

    #[test]
    fn the_101_of_a_websocket_is_a_200_without_its_proof() {
        let text = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
            Sec-WebSocket-Accept: x\r\nSec-WebSocket-Protocol: chat\r\n\r\n";
        let Answer { response, .. } = Answer::read(text, true).unwrap();
        assert_eq!(response.status().as_u16(), 200);
        assert_eq!(trailer_text(response.headers()), b"sec-websocket-protocol: chat\r\n");
    }

    #[test]
    fn trailers_come_back_as_they_went() {
        let text = b"grpc-status: 0\r\ngrpc-message: all's well\r\nx: 1\r\nx: 2\r\n";
        assert_eq!(trailer_text(&trailers(text)), text);
    }

    fn field() -> impl Strategy<Value = (String, Vec<u8>)> {
        let name = "[a-z][a-z0-9-]{0,11}|cookie|host|te|expect|content-length";
        (name, prop::collection::vec(any::<u8>(), 0..20))
    }

    proptest! {
        /// However odd a head is, what is written of it reads as one head with one reading.
        #[test]
        fn what_is_written_can_be_read_as_http_1_1(
            fields in prop::collection::vec(field(), 0..12),
            path in "/[!-~&&[^#]]{0,30}",
            is_websocket in any::<bool>(),
        ) {
            let uri = format!("http://a.example{path}");
            let mut builder = Request::builder().uri(uri);
            let mut expected = 1;
            for (name, value) in &fields {
                let Ok(value) = HeaderValue::from_bytes(value) else { continue };
                builder = builder.header(name, value);
                expected += 1;
            }
            let Ok(built) = builder.body(()) else { return Ok(()) };
            let mut parts = built.into_parts().0;
            if is_websocket {
                parts.method = Method::CONNECT;
                parts.extensions.insert(Protocol::from_static("websocket"));
            }
            let Ok(Asked::Answer(ours) | Asked::WebSocket(ours)) = request(&parts, false, LIMITS) else {
                return Ok(());
            };
            let text = String::from_utf8_lossy(ours.fields.bytes()).replacen(" HTTP/2.0\r\n", " HTTP/1.1\r\n", 1);
            let limits = HeadLimits { size: 1 << 16, fields: 100 };
            // Bytes beyond ASCII are kept, and would be lost in a string.
            if text.contains(char::REPLACEMENT_CHARACTER) {
                return Ok(());
            }
            let Ok(Progress::Whole(read, end)) = head::request(text.as_bytes(), 0, limits) else {
                return Err(TestCaseError::fail(text));
            };
            prop_assert_eq!(end, text.len());
            prop_assert_eq!(read.method(), ours.method());
            prop_assert_eq!(read.target(), ours.target());
            let both: Vec<_> = read.fields.iter().zip(ours.fields.iter()).collect();
            prop_assert!(both.iter().all(|(one, other)| one == other));
            prop_assert_eq!(read.fields.len(), ours.fields.len());
            prop_assert!(ours.fields.len() <= expected + 3 * usize::from(is_websocket));
        }

        #[test]
        fn no_text_makes_an_answer_panic(text in prop::collection::vec(any::<u8>(), 0..80), opens in any::<bool>()) {
            let _ = Answer::read(&[b"HTTP/1.1 200 OK\r\n", &*text].concat(), opens);
            let _ = Answer::read(&text, opens);
            let _ = trailers(&text);
        }
    }
}
