//! Translates the heads of requests to upstreams, and of their answers, between the text of HTTP/1.1 and HTTP/2.

use h2::ext::Protocol;
use http::header::{CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{Method, Request, Response, Version};

use super::head::{split_field, split_line};
use crate::headers::fields::Known;
use crate::headers::list;
use crate::reply::has_no_body;
use crate::websocket;

/// The head of a request to an upstream.
#[derive(Debug)]
pub struct Question {
    /// As h2 sends it.
    pub request: Request<()>,
    /// What it says about its content.
    pub content: Content,
    /// What is to be known to read the answer.
    pub kind: Kind,
}

/// The content behind the head of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// So many bytes; 0: none.
    Length(u64),
    /// Some, and how much is not known.
    Unknown,
}

/// What a request asks for, as far as it says how an answer is to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The usual.
    Request,
    /// HEAD: an answer has no content.
    Head,
    /// An upgrade, which is an extended CONNECT in HTTP/2.
    Connect {
        /// To which protocol.
        protocol: Vec<u8>,
        /// For WebSocket: what `Sec-WebSocket-Accept` has to be, which HTTP/2 does not know.
        accept: Option<String>,
    },
}

/// Reads the text of a head, as `headers/outgoing.rs` makes it. What HTTP/2 has no place for is left out (RFC 9113
/// §8.2.2). `None` if it is no head, or says what no request of HTTP/2 can say.
pub fn question(text: &[u8], is_tls: bool) -> Option<Question> {
    let (line, mut rest) = split_line(text)?;
    let mut words = line.split(|byte| *byte == b' ');
    let (method, target) = (Method::from_bytes(words.next()?).ok()?, words.next()?);
    let mut request = Request::new(());
    let mut kind = if method == Method::HEAD { Kind::Head } else { Kind::Request };
    let mut content = Content::Length(0);
    let (mut host, mut key) = (None, None);
    let fields = request.headers_mut();
    fields.try_reserve(24).ok()?;
    loop {
        let (line, next) = split_line(rest)?;
        if line.is_empty() {
            break;
        }
        rest = next;
        let (name, value) = split_field(line)?;
        match Known::of(name) {
            Known::Connection | Known::KeepAlive | Known::ProxyConnection => continue,
            Known::TransferEncoding => {
                content = Content::Unknown;
                continue;
            }
            Known::Upgrade => {
                kind = Kind::Connect { protocol: value.to_vec(), accept: None };
                continue;
            }
            // RFC 8441 §5: it has no meaning there; who asks for it in HTTP/1.1 is answered all the same.
            Known::SecWebSocketKey => {
                key = Some(value);
                continue;
            }
            Known::Host => {
                host = Some(value);
                continue;
            }
            Known::Te if !list::contains([value].into_iter(), "trailers") => continue,
            Known::ContentLength => content = Content::Length(std::str::from_utf8(value).ok()?.parse().ok()?),
            _ => {}
        }
        fields.try_append(HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?).ok()?;
    }
    *request.method_mut() = method;
    if let Kind::Connect { protocol, accept } = &mut kind {
        *accept = key.map(websocket::accept);
        let protocol = Protocol::from(std::str::from_utf8(protocol).ok()?);
        request.extensions_mut().insert(protocol);
        *request.method_mut() = Method::CONNECT;
    }
    address(&mut request, target, host, is_tls)?;
    Some(Question { request, content, kind })
}

/// The head of a request as it stands in a stream, a line for each field: what an upstream would be sent. `None` as for
/// `question`.
pub fn shown(text: &[u8], is_tls: bool) -> Option<Vec<u8>> {
    let Question { request, .. } = question(text, is_tls)?;
    let (uri, mut shown) = (request.uri(), Vec::with_capacity(text.len() + 64));
    let mut line = |name: &str, value: &[u8]| push(&mut shown, &[name.as_bytes(), b": ", value, b"\r\n"]);
    line(":method", request.method().as_str().as_bytes());
    if let Some(protocol) = request.extensions().get::<Protocol>() {
        line(":protocol", protocol.as_str().as_bytes());
    }
    line(":scheme", uri.scheme_str().unwrap_or("http").as_bytes());
    if let Some(authority) = uri.authority() {
        line(":authority", authority.as_str().as_bytes());
    }
    line(":path", uri.path_and_query().map_or("/", PathAndQuery::as_str).as_bytes());
    for (name, value) in request.headers() {
        line(name.as_str(), value.as_bytes());
    }
    push(&mut shown, &[b"\r\n"]);
    Some(shown)
}

/// Sets `:scheme`, `:authority` and `:path`. RFC 9113 §8.3.1: the host goes into `:authority`; one that cannot stand
/// there stays a field.
fn address(request: &mut Request<()>, target: &[u8], host: Option<&[u8]>, is_tls: bool) -> Option<()> {
    let path = PathAndQuery::try_from(target).or_else(|_| PathAndQuery::try_from(escaped(target))).ok()?;
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = Some(path);
    match host.and_then(|host| Authority::try_from(host).ok()) {
        Some(authority) => {
            parts.authority = Some(authority);
            parts.scheme = Some(if is_tls { Scheme::HTTPS } else { Scheme::HTTP });
            *request.version_mut() = Version::HTTP_2;
        }
        // h2 takes a request without an authority for a translated one, if it has this version.
        None => *request.version_mut() = Version::HTTP_11,
    }
    if parts.authority.is_none()
        && let Some(host) = host
    {
        request.headers_mut().insert(HOST, HeaderValue::from_bytes(host).ok()?);
    }
    *request.uri_mut() = Uri::from_parts(parts).ok()?;
    Some(())
}

/// A target without the bytes that may not stand in one, and yet do in requests of HTTP/1.1.
fn escaped(target: &[u8]) -> Vec<u8> {
    let mut escaped = Vec::with_capacity(target.len() + 16);
    for byte in target {
        match byte {
            b'!' | b'$'..=b';' | b'=' | b'?'..=b'Z' | b'_' | b'a'..=b'z' | b'~' => escaped.push(*byte),
            _ => escaped.extend_from_slice(format!("%{byte:02X}").as_bytes()),
        }
    }
    escaped
}

/// Writes the head of an answer as the text of HTTP/1.1 that it would have been; `is_whole` says that nothing follows
/// behind it. `None` for a 101, which HTTP/2 does not have (RFC 9113 §8.6).
pub fn answer(response: &Response<()>, kind: &Kind, is_whole: bool) -> Option<Vec<u8>> {
    let (status, fields) = (response.status(), response.headers());
    if status.as_u16() == 101 {
        return None;
    }
    let mut text = Vec::with_capacity(512);
    if let Kind::Connect { protocol, accept } = kind
        && status.is_success()
    {
        switching(&mut text, protocol, accept.as_deref(), fields);
        return Some(text);
    }
    let reason = status.canonical_reason().unwrap_or_default();
    push(&mut text, &[b"HTTP/1.1 ", status.as_str().as_bytes(), b" ", reason.as_bytes(), b"\r\n"]);
    for (name, value) in fields {
        push(&mut text, &[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
    }
    // That nothing follows is known, and is told: a gRPC client finds the status in the head only then.
    let has_content = *kind != Kind::Head && !status.is_informational() && !has_no_body(status.as_u16());
    if is_whole && has_content && !fields.contains_key(CONTENT_LENGTH) {
        push(&mut text, &[b"Content-Length: 0\r\n"]);
    }
    push(&mut text, &[b"\r\n"]);
    Some(text)
}

/// RFC 8441 §5: what is a 2xx in HTTP/2 is a 101 in HTTP/1.1.
fn switching(text: &mut Vec<u8>, protocol: &[u8], accept: Option<&str>, fields: &HeaderMap) {
    push(text, &[b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ", protocol, b"\r\n"]);
    if let Some(accept) = accept {
        push(text, &[b"Sec-WebSocket-Accept: ", accept.as_bytes(), b"\r\n"]);
    }
    for (name, value) in fields {
        let name = name.as_str().as_bytes();
        if !matches!(Known::of(name), Known::SecWebSocketAccept | Known::ContentLength) {
            push(text, &[name, b": ", value.as_bytes(), b"\r\n"]);
        }
    }
    push(text, &[b"\r\n"]);
}

fn push(text: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        text.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::StatusCode;

    fn head(line: &str, fields: &[&str]) -> Vec<u8> {
        let lines = [line].into_iter().chain(fields.iter().copied());
        format!("{}\r\n\r\n", lines.collect::<Vec<_>>().join("\r\n")).into_bytes()
    }

    #[test]
    fn a_request_keeps_what_http_2_has_a_place_for() {
        let text = head(
            "POST /a%20b?c=d HTTP/1.1",
            &[
                "Host: app.test:81",
                "X-Case: 1",
                "X-Two: a",
                "X-Two: b",
                "TE: trailers",
                "Connection: TE",
                "Content-Length: 5",
            ],
        );
        let question = question(&text, false).unwrap();
        assert_eq!(question.content, Content::Length(5));
        assert_eq!(question.kind, Kind::Request);
        let request = question.request;
        assert_eq!((request.method(), request.version()), (&Method::POST, Version::HTTP_2));
        assert_eq!(request.uri(), "http://app.test:81/a%20b?c=d");
        let fields: Vec<_> = request
            .headers()
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        assert_eq!(fields, ["x-case: 1", "x-two: a", "x-two: b", "te: trailers", "content-length: 5"]);
    }

    #[test]
    fn content_of_unknown_length_is_told_by_a_field_that_goes_no_further() {
        let question =
            question(&head("POST / HTTP/1.1", &["Host: a", "Transfer-Encoding: chunked"]), true).unwrap();
        assert_eq!(question.content, Content::Unknown);
        assert_eq!(question.request.uri(), "https://a/");
        assert!(question.request.headers().is_empty());
    }

    #[test]
    fn targets_and_hosts_that_http_2_cannot_have_are_still_sent() {
        for (target, uri) in [
            ("/a|b\\c^`{}\"<>", "/a%7Cb%5Cc%5E%60%7B%7D%22%3C%3E"),
            ("/\u{fc}", "/\u{fc}"),
            ("/?a=[b]", "/?a=[b]"),
        ] {
            let question = question(&head(&format!("GET {target} HTTP/1.1"), &["Host: a"]), false).unwrap();
            let sent = question.request.uri().path_and_query().unwrap().as_str().to_owned();
            assert!(sent == uri || sent == target, "{target} became {sent}");
        }
        let strange = question(&head("GET / HTTP/1.1", &["Host: a b"]), false).unwrap();
        assert_eq!(strange.request.headers()["host"], "a b");
        assert_eq!(strange.request.uri(), "/");
        let all = question(&head("OPTIONS * HTTP/1.1", &["Host: a"]), false).unwrap();
        assert_eq!(all.request.uri().path_and_query().unwrap(), "*");
    }

    #[test]
    fn an_upgrade_is_an_extended_connect_and_its_2xx_a_101() {
        let text = head(
            "GET /chat HTTP/1.1",
            &[
                "Host: a",
                "Sec-WebSocket-Version: 13",
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
                "Connection: Upgrade",
                "Upgrade: websocket",
            ],
        );
        let question = question(&text, false).unwrap();
        assert_eq!(question.request.method(), Method::CONNECT);
        assert_eq!(question.request.uri(), "http://a/chat");
        assert_eq!(question.request.extensions().get::<Protocol>().unwrap().as_str(), "websocket");
        assert_eq!(question.request.headers().len(), 1, "only the version: {:?}", question.request.headers());
        let mut response = Response::builder().header("sec-websocket-protocol", "chat").body(()).unwrap();
        let text = answer(&response, &question.kind, false).unwrap();
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nsec-websocket-protocol: chat\r\n\r\n"
        );
        *response.status_mut() = StatusCode::FORBIDDEN;
        assert!(answer(&response, &question.kind, false).unwrap().starts_with(b"HTTP/1.1 403 Forbidden\r\n"));
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        assert_eq!(answer(&response, &question.kind, false), None);
    }

    #[test]
    fn a_request_is_shown_as_it_stands_in_a_stream() {
        let text =
            head("GET /a HTTP/1.1", &["Host: a", "X-A: 1", "Connection: Upgrade", "Upgrade: websocket"]);
        let expected = ":method: CONNECT\r\n:protocol: websocket\r\n:scheme: https\r\n:authority: a\r\n\
                        :path: /a\r\nx-a: 1\r\n\r\n";
        assert_eq!(String::from_utf8(shown(&text, true).unwrap()).unwrap(), expected);
    }

    #[test]
    fn an_answer_without_content_says_so_where_its_status_does_not() {
        let text = |status: u16, kind: &Kind, is_whole| {
            let response = Response::builder().status(status).header("grpc-status", "5").body(()).unwrap();
            String::from_utf8(answer(&response, kind, is_whole).unwrap()).unwrap()
        };
        let told = "HTTP/1.1 200 OK\r\ngrpc-status: 5\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(text(200, &Kind::Request, true), told);
        assert_eq!(text(200, &Kind::Request, false), told.replace("Content-Length: 0\r\n", ""));
        for (status, kind) in
            [(200, Kind::Head), (204, Kind::Request), (304, Kind::Request), (103, Kind::Request)]
        {
            assert!(!text(status, &kind, true).contains("Content-Length"), "{status}");
        }
        assert_eq!(text(299, &Kind::Request, false), "HTTP/1.1 299 \r\ngrpc-status: 5\r\n\r\n");
    }
}
