//! Writes the heads that go out: the end-to-end fields as they came, then what the proxy itself says.

use std::borrow::Cow;

use super::fields::{Field, Known, write_line};
use super::response::draft::{Draft, is_clean};
use super::{FieldName, forwarded, hop_by_hop, is_token_byte, rfc7239};
use crate::clock;
use crate::config::{ForwardedHeaders, Location};
use crate::error::{ProxyError, reason};
use crate::http1::body::BodyLength;
use crate::http1::head::{ResponseHead, Version};
use crate::request::Request;
use crate::routing::escape;
use crate::routing::path::{TargetError, leads_astray};
use crate::routing::values::{Values, verbatim};
use crate::routing::variables::Variable;

/// Writes the head of a request for the upstream. With `protocol` it asks for an upgrade to it, in the
/// client's spelling.
///
/// # Errors
/// The path leads out of the URI part of `proxy_pass`.
pub fn request(
    out: &mut Vec<u8>,
    location: &Location,
    request: &Request,
    values: &Values<'_>,
    method: &[u8],
    protocol: Option<&[u8]>,
) -> Result<(), ProxyError> {
    out.extend_from_slice(method);
    out.push(b' ');
    target(out, location, request, values)?;
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let has_body = !values.course.is_get && location.requests.pass_body;
    let rules = RequestRules { location, request, values, is_upgrade: protocol.is_some(), has_body };
    for end_to_end in hop_by_hop::strip(&request.head.fields).iter() {
        if location.requests.pass_headers || rules.needs(end_to_end.known) {
            rules.pass(out, end_to_end);
        }
    }
    rules.own(out);
    if matches!(request.body, BodyLength::Chunked | BodyLength::UntilClose) && has_body {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    match protocol {
        Some(protocol) => {
            out.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: ");
            out.extend_from_slice(protocol);
            out.extend_from_slice(b"\r\n");
        }
        // RFC 9110 §10.1.4: TE is for one hop, and says so.
        None if location.pass_trailers || hop_by_hop::accepts_trailers(&request.head.fields) => {
            out.extend_from_slice(b"TE: trailers\r\nConnection: TE\r\n");
        }
        None => {}
    }
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// The method for the upstream: the client's, or what `proxy_method` says if that is one. A handshake is a
/// GET, whatever else is.
pub fn method<'a>(
    location: &Location,
    request: &'a Request,
    values: &Values<'_>,
    is_upgrade: bool,
) -> Cow<'a, [u8]> {
    let own = values.course.method(request);
    let Some(template) = location.requests.method.as_ref().filter(|_| !is_upgrade) else {
        return Cow::Borrowed(own);
    };
    let mut method = Vec::new();
    template.write(&mut method, values, verbatim);
    let is_method = !method.is_empty()
        && method.iter().copied().all(is_token_byte)
        && !matches!(&*method, b"CONNECT" | b"TRACE");
    if is_method { Cow::Owned(method) } else { Cow::Borrowed(own) }
}

/// The target for the upstream: as it came, in its normal form; or with the part that the location's
/// path matched replaced by the URI part of `proxy_pass`; or as it was rewritten.
fn target(
    out: &mut Vec<u8>,
    location: &Location,
    request: &Request,
    values: &Values<'_>,
) -> Result<(), ProxyError> {
    let start = out.len();
    let course = values.course;
    if let Some(uri) = values.outcome.aim.as_ref().and_then(|aim| aim.uri.as_deref()) {
        return evaluated(out, uri, request);
    }
    let text = request.head.target();
    // nginx: behind a `rewrite … break` the URI part says nothing.
    let uri = location.proxy_pass().and_then(|pass| pass.uri.as_deref()).filter(|_| !course.is_broken);
    let uri = uri.filter(|_| course.path(request).starts_with(b"/"));
    let (replacement, own_query) = match uri.map(|uri| uri.split_once('?').ok_or(uri)) {
        Some(Ok((path, query))) => (Some(path), Some(query.as_bytes())),
        Some(Err(path)) => (Some(path), None),
        None => (None, None),
    };
    let matched = replacement.map_or(0, |_| location.matcher.path().len());
    out.extend_from_slice(replacement.unwrap_or_default().as_bytes());
    if course.is_rewritten() {
        escape::path(out, course.path(request).get(matched..).unwrap_or_default());
    } else if replacement.is_some() {
        out.extend_from_slice(request.target.encoded_rest(text, matched));
    } else {
        out.extend_from_slice(request.target.encoded_path(text));
    }
    // R31, and nginx's best known trap: `/api` replaced by `/public/` makes `/api../x` one of
    // `/public/../x`.
    if (replacement.is_some() || course.is_rewritten()) && leads_astray(&out[start..]) {
        return Err(ProxyError::Target(TargetError::AboveRoot));
    }
    let query = match course.is_rewritten() {
        true => Some(course.args(request)).filter(|args| !args.is_empty()),
        false => request.query(),
    };
    for (query, separator) in own_query.into_iter().chain(query).zip(*b"?&") {
        out.push(separator);
        match course.is_rewritten() {
            true => escape::query(out, query),
            // Both have been checked already.
            false => out.extend_from_slice(query),
        }
    }
    Ok(())
}

/// The URI part of a `proxy_pass` with variables, which is the whole target, as in nginx. `$request_uri` is
/// passed on as it is without a URI part: in its normal form.
fn evaluated(out: &mut Vec<u8>, uri: &[u8], request: &Request) -> Result<(), ProxyError> {
    let text = request.head.target();
    if uri == text {
        out.extend_from_slice(request.target.encoded_path(text));
        if let Some(query) = request.query() {
            out.push(b'?');
            out.extend_from_slice(query);
        }
        return Ok(());
    }
    let path = uri.split(|byte| *byte == b'?').next().unwrap_or_default();
    if leads_astray(path) {
        return Err(ProxyError::Target(TargetError::AboveRoot));
    }
    out.extend_from_slice(uri);
    Ok(())
}

/// What becomes of the fields of one request.
struct RequestRules<'a> {
    location: &'a Location,
    request: &'a Request,
    values: &'a Values<'a>,
    is_upgrade: bool,
    has_body: bool,
}

impl RequestRules<'_> {
    /// Whether a field is sent even if the client's fields are not: the request would be another one without.
    fn needs(&self, known: Known) -> bool {
        let is_handshake = self.is_upgrade && known.websocket_spelling().is_some();
        is_handshake || matches!(known, Known::Host | Known::ContentLength | Known::Expect)
    }

    /// Writes a field of the client's if it goes upstream.
    fn pass(&self, out: &mut Vec<u8>, field: Field<'_>) {
        if self.is_overridden(field.name) {
            return;
        }
        match field.known {
            Known::ContentLength if !self.has_body => {}
            // An authority in the target stands above it.
            Known::Host => {
                let authority = self.request.authority.as_deref().map_or(field.value, str::as_bytes);
                write_line(out, field.name, authority);
            }
            // These are written by `own`, from the client's where the client is believed.
            Known::XForwardedFor | Known::XForwardedProto | Known::XForwardedHost | Known::XRealIp
                if self.sets_forwarded() => {}
            Known::ForwardedOther if self.sets_forwarded() && !self.values.origin.is_trusted => {}
            Known::ForwardedOther if self.sets_rfc7239() && is_forwarded(field.name) => {}
            // An expectation without a body behind it would only make the upstream wait.
            Known::Expect if !self.request.expects_continue || !self.has_body => {}
            known if self.is_upgrade => match known.websocket_spelling() {
                Some(name) => write_line(out, name.as_bytes(), field.value),
                None => field.write(out),
            },
            _ => field.write(out),
        }
    }

    fn sets_forwarded(&self) -> bool {
        self.location.forwarded_headers != ForwardedHeaders::Pass
    }

    fn sets_rfc7239(&self) -> bool {
        self.location.forwarded_headers == ForwardedHeaders::SetRfc7239
    }

    /// `Forwarded`: what trusted proxies have said, then what is seen here.
    fn rfc7239(&self, out: &mut Vec<u8>) {
        let origin = &self.values.origin;
        let fields = self.request.head.fields.iter().filter(|field| is_forwarded(field.name));
        let lines: Vec<&[u8]> = fields.filter(|_| origin.is_trusted).map(|field| field.value).collect();
        for line in &lines {
            // Behind a quote that is open, ours would be a part of theirs. Left out, it would hide that somebody is
            // missing whose word the members before it rest on.
            match rfc7239::is_sound(line) {
                true => out.extend_from_slice(line),
                false => rfc7239::node(out, None, None),
            }
            out.extend_from_slice(b", ");
        }
        // As in `X-Forwarded-For`, a client whom another field names.
        let rules = &self.location.access.real_ip;
        if let Some(client) = origin.client.filter(|_| origin.is_named) {
            let found = rfc7239::last_untrusted(lines.into_iter(), &rules.trusted, rules.takes_last);
            if found.is_none_or(|((ip, _), _)| ip != client) {
                rfc7239::node(out, Some(client), origin.port);
                out.extend_from_slice(b", ");
            }
        }
        let scheme = self.values.client.client_scheme();
        rfc7239::element(out, origin.peer, self.request.authority.as_deref(), scheme);
    }

    fn is_overridden(&self, name: &[u8]) -> bool {
        self.location.set_headers.iter().any(|(set, _)| set.as_str().as_bytes().eq_ignore_ascii_case(name))
    }

    /// Writes what the proxy itself says: after the client's fields, so that nothing of the client's can
    /// take it away (R13).
    fn own(&self, out: &mut Vec<u8>) {
        for (name, template) in self.location.set_headers.iter().filter(|(_, template)| !template.is_empty())
        {
            let is_written = self.configured(out, name, template);
            // RFC 9112 §3.2: no request of HTTP/1.1 is without one; of `$http_host` nothing may have come.
            if !is_written && name.as_str().eq_ignore_ascii_case("host") {
                self.host(out);
            }
        }
        let fields = &self.request.head.fields;
        if self.request.head.fields.values(Known::Host).next().is_none() && !self.is_overridden(b"host") {
            self.host(out);
        }
        if !self.sets_forwarded() {
            return;
        }
        let trusted = |known| fields.values(known).next().filter(|_| self.values.origin.is_trusted);
        let origin = &self.values.origin;
        let is_known = origin.peer.is_some() || origin.is_named || trusted(Known::XForwardedFor).is_some();
        if is_known {
            self.default(out, "X-Forwarded-For", |out| {
                self.values.forwarded_for(out);
            });
        }
        self.default(out, "X-Forwarded-Proto", |out| {
            let claimed = origin.scheme.map(str::as_bytes).or_else(|| trusted(Known::XForwardedProto));
            out.extend_from_slice(forwarded::scheme(claimed, self.values.client.client_scheme()).as_bytes());
        });
        let host = trusted(Known::XForwardedHost).or(self.request.authority.as_deref().map(str::as_bytes));
        if let Some(host) = host {
            self.default(out, "X-Forwarded-Host", |out| out.extend_from_slice(host));
        }
        if self.sets_rfc7239() {
            self.default(out, "Forwarded", |out| self.rfc7239(out));
        }
        if self.values.origin.client.is_some() {
            self.default(out, "X-Real-IP", |out| self.values.write(&Variable::RemoteAddr, out));
        }
    }

    fn host(&self, out: &mut Vec<u8>) {
        let host = self.request.authority.as_deref().unwrap_or_else(|| self.values.proxy_host());
        out.extend_from_slice(b"Host: ");
        out.extend_from_slice(host.as_bytes());
        out.extend_from_slice(b"\r\n");
    }

    /// Writes what `proxy_set_header` says, and whether there was anything to be written. nginx: a field whose
    /// value is empty is not sent.
    fn configured(
        &self,
        out: &mut Vec<u8>,
        name: &FieldName,
        template: &crate::routing::variables::Template,
    ) -> bool {
        let start = out.len();
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        let value = out.len();
        template.write(out, self.values, verbatim);
        // R17: a decoded path can hold any byte; a field with one that may not stand in it is not sent.
        if out.len() == value || !is_clean(&out[value..]) {
            out.truncate(start);
            return false;
        }
        out.extend_from_slice(b"\r\n");
        true
    }

    fn default(&self, out: &mut Vec<u8>, name: &str, value: impl FnOnce(&mut Vec<u8>)) {
        if !self.is_overridden(name.as_bytes()) {
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b": ");
            value(out);
            out.extend_from_slice(b"\r\n");
        }
    }
}

fn is_forwarded(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"forwarded")
}

/// How the body of a response goes to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseFraming {
    /// There is none and no length is told: 1xx, 204.
    None,
    /// By the upstream's `Content-Length`; in answers to HEAD and in a 304 it says what would have come.
    AsTold,
    /// There is none, and that is told.
    Empty,
    /// In chunks.
    Chunked,
    /// Up to the end of the connection, for HTTP/1.0 clients, or of the stream, for those of HTTP/2.
    UntilClose,
}

/// Writes the head of an upstream's response for the client; `status` is its own, or that of the error that
/// it is the page for, and `draft` has its fields if they are not those that came.
pub fn response(
    out: &mut Vec<u8>,
    status: u16,
    head: &ResponseHead,
    draft: Option<&Draft<'_>>,
    framing: ResponseFraming,
    connection: Connection,
) {
    match status == head.status {
        true => status_line(out, status, head.reason()),
        false => status_line(out, status, reason(status).as_bytes()),
    }
    // A length that was told is told in its place, unless there are chunks instead.
    let tells_length = matches!(framing, ResponseFraming::AsTold);
    let has_date = match draft {
        None => {
            for field in hop_by_hop::strip(&head.fields).iter() {
                if tells_length || field.known != Known::ContentLength {
                    field.write(out);
                }
            }
            head.fields.values(Known::Date).next().is_some()
        }
        Some(draft) => {
            draft.write(out, tells_length);
            draft.get("Date").is_some()
        }
    };
    if !has_date {
        // RFC 9110 §6.6.1: who passes a response on that has no date gives it one.
        clock::with_http(|date| write_line(out, b"Date", date.as_bytes()));
    }
    match framing {
        ResponseFraming::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        ResponseFraming::Empty => out.extend_from_slice(b"Content-Length: 0\r\n"),
        ResponseFraming::None | ResponseFraming::AsTold | ResponseFraming::UntilClose => {}
    }
    // RFC 9110 §15.5.22: a 426 says what it wants the client to upgrade to; a field for this hop, too.
    let wanted = head.fields.values(Known::Upgrade).next().filter(|_| head.status == 426);
    if let Some(protocols) = wanted {
        write_line(out, b"Upgrade", protocols);
        write_line(out, b"Connection", b"Upgrade");
    }
    out.extend_from_slice(connection.line());
    out.extend_from_slice(b"\r\n");
}

/// Writes a 1xx answer, which has no framing.
pub fn interim(out: &mut Vec<u8>, head: &ResponseHead) {
    status_line(out, head.status, head.reason());
    without_length(out, head);
    out.extend_from_slice(b"\r\n");
}

/// Writes the 101 that opens a tunnel; `protocol` is what was asked for, and verified.
/// `draft` has its fields if they are not those that came.
pub fn switching(out: &mut Vec<u8>, head: &ResponseHead, draft: Option<&Draft<'_>>, protocol: &[u8]) {
    status_line(out, head.status, head.reason());
    out.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: ");
    out.extend_from_slice(protocol);
    out.extend_from_slice(b"\r\n");
    match draft {
        Some(draft) => draft.write(out, false),
        None => without_length(out, head),
    }
    out.extend_from_slice(b"\r\n");
}

/// RFC 9110 §8.6: a 1xx has no `Content-Length`.
fn without_length(out: &mut Vec<u8>, head: &ResponseHead) {
    for field in hop_by_hop::strip(&head.fields).iter().filter(|field| field.known != Known::ContentLength) {
        field.write(out);
    }
}

/// What the client is told about the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// It goes on, as HTTP/1.1 does by itself.
    Open,
    /// It goes on, which an HTTP/1.0 client must be told.
    KeepAlive,
    /// It ends with this answer.
    Close,
}

impl Connection {
    /// For a client of this version.
    pub fn of(version: Version, goes_on: bool) -> Self {
        match (goes_on, version) {
            (false, _) => Self::Close,
            (true, Version::Http10) => Self::KeepAlive,
            (true, Version::Http11 | Version::Http2) => Self::Open,
        }
    }

    /// The field that says so.
    pub fn line(self) -> &'static [u8] {
        match self {
            Self::Open => b"",
            Self::KeepAlive => b"Connection: keep-alive\r\n",
            Self::Close => b"Connection: close\r\n",
        }
    }
}

fn status_line(out: &mut Vec<u8>, status: u16, reason: &[u8]) {
    // Three digits: what is read and what can be configured is no other status.
    let digit = |place: u16| b'0' + (status / place % 10) as u8;
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(&[digit(100), digit(10), digit(1), b' ']);
    out.extend_from_slice(reason);
    out.extend_from_slice(b"\r\n");
}
