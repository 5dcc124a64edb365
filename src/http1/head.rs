//! Reads the head of a request or a response, strictly.

use std::mem::MaybeUninit;
use std::ops::Range;

use crate::headers::fields::{Fields, Known};
use crate::headers::list;
use crate::http1::body::BodyLength;

/// The most fields that are read, whatever the configuration says.
pub const MAX_FIELDS: usize = 1024;

/// The versions that are spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0: no chunks, no 1xx, closed after the answer unless asked otherwise.
    Http10,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2. Its heads are translated at the border (`http2/head.rs`) into what is read here.
    Http2,
}

/// The head of a request as it arrived.
#[derive(Debug)]
pub struct RequestHead {
    /// The version.
    pub version: Version,
    /// The fields.
    pub fields: Fields,
    method: Range<usize>,
    target: Range<usize>,
    /// Whether content follows behind the head, as HTTP/2 alone can tell without a field for it.
    has_content: bool,
}

/// The head of a response as it arrived.
#[derive(Debug)]
pub struct ResponseHead {
    /// The version.
    pub version: Version,
    /// The status, 100 to 999.
    pub status: u16,
    /// The fields.
    pub fields: Fields,
    reason: Range<usize>,
}

/// How large a head may be.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    /// In bytes.
    pub size: usize,
    /// In fields; at most [`MAX_FIELDS`].
    pub fields: usize,
}

/// Why a head is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadError {
    /// Not the grammar of RFC 9112: bare CR or LF, folded lines, a blank before the colon, an empty
    /// name, a control byte, or no HTTP at all (R23, R24).
    Syntax,
    /// Another version of HTTP.
    Version,
    /// The first line alone is larger than the limit.
    LineTooLong,
    /// The head is larger than the limit.
    TooLarge,
    /// More fields than the limit.
    TooManyFields,
    /// `Content-Length` with `Transfer-Encoding` (R19), a `Transfer-Encoding` that is not one
    /// `chunked` (R20), or a `Content-Length` that is not one number (R21).
    Framing,
}

/// What is known of a head that may not be whole yet.
#[derive(Debug)]
pub enum Progress<T> {
    /// The head, and how many bytes it took.
    Whole(T, usize),
    /// More bytes are needed; this many were looked at.
    Partial(usize),
}

/// Reads a request's head from the start of `bytes`, of which the first `scanned` were looked at
/// before.
///
/// # Errors
/// The head breaks the grammar or a limit; the framing is judged by [`RequestHead::body_length`].
pub fn request(bytes: &[u8], scanned: usize, limits: HeadLimits) -> Result<Progress<RequestHead>, HeadError> {
    let Some(end) = head_end(bytes, scanned, limits)? else {
        if scanned == 0 {
            // What can never become a request is refused at once, not when the time is up.
            refuse_garbage(bytes)?;
        }
        return Ok(Progress::Partial(bytes.len()));
    };
    let head = &bytes[..end];
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Request::new(&mut []);
    let known = &mut fields[..limits.fields.min(MAX_FIELDS)];
    let status = parsed.parse_with_uninit_headers(head, known).map_err(|error| request_error(error, head))?;
    let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(HeadError::Syntax);
    };
    if status.is_partial() {
        return Err(HeadError::Syntax);
    }
    Ok(Progress::Whole(
        RequestHead {
            version: Version::of(version),
            method: place(head, method.as_bytes()),
            target: place(head, target.as_bytes()),
            has_content: false,
            fields: collect(head, parsed.headers),
        },
        end,
    ))
}

/// Reads a response's head from the start of `bytes`, as [`request`] does.
///
/// # Errors
/// The head breaks the grammar or a limit.
pub fn response(
    bytes: &[u8],
    scanned: usize,
    limits: HeadLimits,
) -> Result<Progress<ResponseHead>, HeadError> {
    let Some(end) = head_end(bytes, scanned, limits)? else {
        if scanned == 0 && !b"HTTP/1.".starts_with(&bytes[..bytes.len().min(7)]) {
            return Err(HeadError::Syntax);
        }
        return Ok(Progress::Partial(bytes.len()));
    };
    let head = &bytes[..end];
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let known = &mut fields[..limits.fields.min(MAX_FIELDS)];
    let status = httparse::ParserConfig::default()
        .parse_response_with_uninit_headers(&mut parsed, head, known)
        .map_err(HeadError::from)?;
    let (Some(code), Some(reason), Some(version)) = (parsed.code, parsed.reason, parsed.version) else {
        return Err(HeadError::Syntax);
    };
    if status.is_partial() || code < 100 {
        return Err(HeadError::Syntax);
    }
    let reason = if reason.is_empty() { 0..0 } else { place(head, reason.as_bytes()) };
    Ok(Progress::Whole(
        ResponseHead {
            version: Version::of(version),
            status: code,
            reason,
            fields: collect(head, parsed.headers),
        },
        end,
    ))
}

/// Where the head ends, behind its empty line. Every line must end in CRLF (R23).
fn head_end(bytes: &[u8], scanned: usize, limits: HeadLimits) -> Result<Option<usize>, HeadError> {
    for newline in memchr::memchr_iter(b'\n', &bytes[scanned..]).map(|at| scanned + at) {
        if newline == 0 || bytes[newline - 1] != b'\r' {
            return Err(HeadError::Syntax);
        }
        if newline >= 3 && bytes[newline - 2] == b'\n' {
            let end = newline + 1;
            return if end > limits.size { Err(too_large(bytes, limits)) } else { Ok(Some(end)) };
        }
    }
    if bytes.len() > limits.size { Err(too_large(bytes, limits)) } else { Ok(None) }
}

fn too_large(head: &[u8], limits: HeadLimits) -> HeadError {
    let line = memchr::memchr(b'\n', head).unwrap_or(head.len());
    if line >= limits.size { HeadError::LineTooLong } else { HeadError::TooLarge }
}

fn refuse_garbage(bytes: &[u8]) -> Result<(), HeadError> {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    match httparse::Request::new(&mut []).parse_with_uninit_headers(bytes, &mut fields) {
        Ok(_) => Ok(()),
        Err(error) => Err(request_error(error, bytes)),
    }
}

/// For httparse anything behind the second blank is a version; here it must look like one.
fn request_error(error: httparse::Error, head: &[u8]) -> HeadError {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let version = line.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
    let has_three_parts = line.iter().filter(|byte| **byte == b' ').count() == 2;
    match (HeadError::from(error), version) {
        (HeadError::Version, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor])
            if has_three_parts && major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            HeadError::Version
        }
        (HeadError::Version, _) => HeadError::Syntax,
        (error, _) => error,
    }
}

fn collect(head: &[u8], parsed: &[httparse::Header<'_>]) -> Fields {
    let mut fields = Fields::over(head.to_vec(), parsed.len());
    for header in parsed {
        let value = header.value.trim_ascii();
        let value = if value.is_empty() { 0..0 } else { place(head, value) };
        fields.push(place(head, header.name.as_bytes()), value);
    }
    fields
}

/// Where a part of `whole` stands in it.
fn place(whole: &[u8], part: &[u8]) -> Range<usize> {
    let start = part.as_ptr() as usize - whole.as_ptr() as usize;
    start..start + part.len()
}

impl Version {
    fn of(minor: u8) -> Self {
        if minor == 0 { Self::Http10 } else { Self::Http11 }
    }

    /// As in a start line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
            Self::Http2 => "HTTP/2.0",
        }
    }
}

impl From<httparse::Error> for HeadError {
    fn from(error: httparse::Error) -> Self {
        match error {
            httparse::Error::Version => Self::Version,
            httparse::Error::TooManyHeaders => Self::TooManyFields,
            _ => Self::Syntax,
        }
    }
}

impl RequestHead {
    /// A head that came in HTTP/2: `fields` are over its text, which begins with these. `has_content` says
    /// whether anything follows behind it.
    pub(crate) fn of_http2(
        fields: Fields,
        method: Range<usize>,
        target: Range<usize>,
        has_content: bool,
    ) -> Self {
        Self { version: Version::Http2, fields, method, target, has_content }
    }

    /// The method, a token.
    pub fn method(&self) -> &[u8] {
        &self.fields.bytes()[self.method.clone()]
    }

    /// The target as it came.
    pub fn target(&self) -> &[u8] {
        &self.fields.bytes()[self.target.clone()]
    }

    /// The request line without its CRLF: `$request`.
    pub fn line(&self) -> &[u8] {
        let bytes = self.fields.bytes();
        &bytes[..memchr::memchr(b'\r', bytes).unwrap_or(bytes.len())]
    }

    /// How the body is framed, RFC 9112 §6.3; a request's body never ends with the connection (R22), unless
    /// that is a stream of HTTP/2, which tells its end from a break.
    ///
    /// # Errors
    /// [`HeadError::Framing`] for what two readers could read differently.
    pub fn body_length(&self) -> Result<BodyLength, HeadError> {
        let coding = transfer_coding(&self.fields)?;
        match (coding, content_length(&self.fields)?) {
            // RFC 9113 §8.2.2: there is no such field.
            (true, _) if self.version == Version::Http2 => Err(HeadError::Framing),
            // RFC 9113 §8.1.1: the length is that of the content, which h2 has checked.
            (false, None) if self.has_content => Ok(BodyLength::UntilClose),
            // R20: an HTTP/1.0 sender does not know chunks; somebody between us may not see them.
            (true, _) if self.version == Version::Http10 => Err(HeadError::Framing),
            (true, Some(_)) => Err(HeadError::Framing),
            (true, None) => Ok(BodyLength::Chunked),
            (false, Some(length)) => Ok(BodyLength::Length(length)),
            (false, None) => Ok(BodyLength::Length(0)),
        }
    }

    /// Whether the client will send further requests on the connection, RFC 9112 §9.3.
    pub fn keeps_alive(&self) -> bool {
        keeps_alive(self.version, &self.fields)
    }
}

impl ResponseHead {
    /// The reason phrase as it came; often empty.
    pub fn reason(&self) -> &[u8] {
        &self.fields.bytes()[self.reason.clone()]
    }

    /// How the body is framed, RFC 9112 §6.3: steps 1 to 8, of which 2 (CONNECT) is not for us.
    ///
    /// # Errors
    /// [`HeadError::Framing`] for what two readers could read differently.
    pub fn body_length(&self, request_was_head: bool) -> Result<BodyLength, HeadError> {
        let coding = transfer_coding(&self.fields)?;
        let length = content_length(&self.fields)?;
        if request_was_head || matches!(self.status, 100..=199 | 204 | 304) {
            return Ok(BodyLength::Length(0));
        }
        match (coding, length) {
            (true, Some(_)) => Err(HeadError::Framing),
            (true, None) if self.version == Version::Http10 => Err(HeadError::Framing),
            (true, None) => Ok(BodyLength::Chunked),
            (false, Some(length)) => Ok(BodyLength::Length(length)),
            (false, None) => Ok(BodyLength::UntilClose),
        }
    }

    /// Whether the upstream will take further requests on the connection.
    pub fn keeps_alive(&self) -> bool {
        keeps_alive(self.version, &self.fields)
    }
}

fn keeps_alive(version: Version, fields: &Fields) -> bool {
    let options = fields.values(Known::Connection);
    match version {
        _ if list::contains(options.clone(), "close") => false,
        Version::Http11 | Version::Http2 => true,
        Version::Http10 => list::contains(options, "keep-alive"),
    }
}

/// Whether the body is chunked: R20, exactly one `chunked` and no other coding.
fn transfer_coding(fields: &Fields) -> Result<bool, HeadError> {
    match fields.single(Known::TransferEncoding) {
        Ok(None) => Ok(false),
        Ok(Some(coding)) if coding.eq_ignore_ascii_case(b"chunked") => Ok(true),
        _ => Err(HeadError::Framing),
    }
}

/// R21: one field, digits and nothing else, at most 18 of them so that no sum overflows.
fn content_length(fields: &Fields) -> Result<Option<u64>, HeadError> {
    let Some(digits) = fields.single(Known::ContentLength).map_err(|_| HeadError::Framing)? else {
        return Ok(None);
    };
    if digits.is_empty() || digits.len() > 18 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(HeadError::Framing);
    }
    Ok(Some(digits.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: HeadLimits = HeadLimits { size: 200, fields: 5 };

    fn read(text: &str) -> Result<RequestHead, HeadError> {
        match request(text.as_bytes(), 0, LIMITS)? {
            Progress::Whole(head, _) => Ok(head),
            Progress::Partial(_) => panic!("partial: {text:?}"),
        }
    }

    #[test]
    fn a_head_is_split_into_its_parts() {
        let text = b"POST /a?b HTTP/1.1\r\nHost:  a \r\nX-Empty:\r\ncontent-length: 5\r\n\r\nhello";
        let Ok(Progress::Whole(head, end)) = request(text, 0, LIMITS) else { panic!() };
        assert_eq!(&text[end..], b"hello");
        assert_eq!(
            (head.method(), head.target(), head.line()),
            (&b"POST"[..], &b"/a?b"[..], &b"POST /a?b HTTP/1.1"[..])
        );
        let fields: Vec<_> = head.fields.iter().map(|field| (field.name, field.value)).collect();
        assert_eq!(fields, [(&b"Host"[..], &b"a"[..]), (b"X-Empty", b""), (b"content-length", b"5")]);
        assert_eq!(head.body_length(), Ok(BodyLength::Length(5)));
    }

    #[test]
    fn r23_r24_what_breaks_the_grammar_is_refused() {
        for text in [
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\n",
            "GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n",
            "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
            "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
            "GET / HTTP/1.1\r\n: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost\r\n\r\n",
            "GET  / HTTP/1.1\r\n\r\n",
            "GET /\r\n\r\n",
            "\nGET / HTTP/1.1\r\n\r\n",
            "G(T / HTTP/1.1\r\n\r\n",
            "GET /a b HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1 \r\n\r\n",
            "GET / http/1.1\r\n\r\n",
            "GET / HTTP/11.1\r\n\r\n",
        ] {
            assert_eq!(read(text).map(|_| ()), Err(HeadError::Syntax), "{text:?}");
        }
        assert_eq!(read("GET / HTTP/2.0\r\n\r\n").map(|_| ()), Err(HeadError::Version));
    }

    #[test]
    fn r19_r20_r21_framing_that_can_be_read_in_two_ways_is_refused() {
        for fields in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: -5\r\n",
            "Content-Length: 5 5\r\n",
            "Content-Length: 0x5\r\n",
            "Content-Length:\r\n",
            "Content-Length: 1000000000000000000\r\n",
            "Transfer-Encoding: gzip\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked, chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "Transfer-Encoding:\r\n",
            "Transfer-Encoding: \"chunked\"\r\n",
        ] {
            let head = read(&format!("POST / HTTP/1.1\r\n{fields}\r\n")).unwrap();
            assert_eq!(head.body_length(), Err(HeadError::Framing), "{fields}");
        }
        let old = read("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
        assert_eq!(old.body_length(), Err(HeadError::Framing));
    }

    #[test]
    fn limits_tell_a_long_line_from_a_large_head() {
        let long = "x".repeat(300);
        assert_eq!(read(&format!("GET /{long} HTTP/1.1\r\n\r\n")).map(|_| ()), Err(HeadError::LineTooLong));
        assert_eq!(
            request(format!("GET /{long}").as_bytes(), 0, LIMITS).map(|_| ()),
            Err(HeadError::LineTooLong)
        );
        assert_eq!(
            read(&format!("GET / HTTP/1.1\r\nA: {long}\r\n\r\n")).map(|_| ()),
            Err(HeadError::TooLarge)
        );
        let many = "A: b\r\n".repeat(6);
        assert_eq!(read(&format!("GET / HTTP/1.1\r\n{many}\r\n")).map(|_| ()), Err(HeadError::TooManyFields));
    }

    #[test]
    fn garbage_is_refused_before_a_line_has_ended() {
        for text in [&b"\x16\x03\x01\x02"[..], b"\0", b"GET\x01", b"{}"] {
            assert_eq!(request(text, 0, LIMITS).map(|_| ()), Err(HeadError::Syntax), "{text:?}");
        }
        assert!(response(b"SSH-2.0", 0, LIMITS).is_err());
    }

    #[test]
    fn a_response_says_how_its_body_ends() {
        for (text, head, expected) in [
            ("HTTP/1.1 200 OK\r\n\r\n", false, Ok(BodyLength::UntilClose)),
            ("HTTP/1.1 200\r\nContent-Length: 3\r\n\r\n", false, Ok(BodyLength::Length(3))),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", true, Ok(BodyLength::Length(0))),
            ("HTTP/1.1 304 x\r\nContent-Length: 3\r\n\r\n", false, Ok(BodyLength::Length(0))),
            ("HTTP/1.1 204 x\r\n\r\n", false, Ok(BodyLength::Length(0))),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n", false, Ok(BodyLength::Chunked)),
            ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", false, Err(HeadError::Framing)),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
                false,
                Err(HeadError::Framing),
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
                true,
                Err(HeadError::Framing),
            ),
        ] {
            let Ok(Progress::Whole(parsed, _)) = response(text.as_bytes(), 0, LIMITS) else {
                panic!("{text}")
            };
            assert_eq!(parsed.body_length(head), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn in_pieces_a_head_reads_as_in_one(cut in 0usize..60, bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let text = [&b"GET / HTTP/1.1\r\nHost: a\r\nB:"[..], &bytes, b"\r\n\r\nrest"].concat();
            let cut = cut.min(text.len());
            let whole = request(&text, 0, LIMITS).map(|progress| match progress { Progress::Whole(_, end) => Some(end), Progress::Partial(_) => None });
            let pieces = match request(&text[..cut], 0, LIMITS) {
                Ok(Progress::Partial(scanned)) => request(&text, scanned, LIMITS),
                other => other,
            };
            let pieces = pieces.map(|progress| match progress { Progress::Whole(_, end) => Some(end), Progress::Partial(_) => None });
            prop_assert_eq!(whole.is_ok(), pieces.is_ok());
            if let (Ok(whole), Ok(pieces)) = (whole, pieces) { prop_assert_eq!(whole, pieces); }
        }
    }
}
