//! Translates heads between HTTP/2 and the text of HTTP/1.1 that everything behind works on.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use h2::ext::Protocol;
use http::header::{COOKIE, HOST, HeaderMap, HeaderName, HeaderValue};
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
                // RFC 9113 §8.2.3: the crumbs are one field to everybody else.
                if !std::mem::replace(&mut has_cookie, true) {
                    let crumbs: Vec<_> = from.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
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

fn split_line(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let newline = memchr::memchr(b'\n', text)?;
    let line = &text[..newline];
    Some((line.strip_suffix(b"\r").unwrap_or(line), &text[newline + 1..]))
}

fn split_field(line: &[u8]) -> Option<(&[u8], &[u8])> {
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
