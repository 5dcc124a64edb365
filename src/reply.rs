//! The answers that hopgate makes itself: errors, redirects, texts. All of them go out here.

use std::io::Write as _;
use std::rc::Rc;

use crate::answer::Filling;
use crate::client::{Client, ClientInfo};
use crate::clock;
use crate::error::{Fault, ProxyError, reason};
use crate::exchange::{After, Exchange};
use crate::files::{self, FileBody};
use crate::headers::outgoing::Connection;
use crate::headers::response::draft::{Draft, fields_of, is_clean};
use crate::headers::response::gzip;
use crate::http1::gzip::Gzip;
use crate::http1::head::Version;
use crate::routing::escape;
use crate::routing::route::Verdict;
use crate::routing::script::Answer;
use crate::shared::Local;
use crate::websocket::{self, HandshakeError};

/// An answer of hopgate's own.
#[derive(Debug)]
pub struct Reply {
    /// Its status.
    pub status: u16,
    /// Its fields, without those that every answer has and those that frame it.
    pub fields: Vec<(&'static str, Vec<u8>)>,
    /// Its body.
    pub body: ReplyBody,
}

/// The body of a [`Reply`].
#[derive(Debug)]
pub enum ReplyBody {
    /// At hand.
    Bytes(Vec<u8>),
    /// In a file.
    File {
        /// Its parts.
        file: FileBody,
        /// How many bytes that is.
        length: u64,
    },
}

impl ReplyBody {
    fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File { length, .. } => *length,
        }
    }
}

impl Reply {
    /// A status with the few words that say what it means.
    pub fn of_status(status: u16) -> Self {
        let body = match status {
            204 | 304 => Vec::new(),
            _ => format!("{status} {}\n", reason(status)).into_bytes(),
        };
        let fields =
            if body.is_empty() { Vec::new() } else { vec![("Content-Type", b"text/plain".to_vec())] };
        Self { status, fields, body: ReplyBody::Bytes(body) }
    }

    /// A text.
    pub fn text(text: String) -> Self {
        let fields = vec![("Content-Type", b"text/plain".to_vec())];
        Self { status: 200, fields, body: ReplyBody::Bytes(text.into_bytes()) }
    }

    /// A redirect.
    pub fn redirect(status: u16, location: Vec<u8>) -> Self {
        let mut reply = Self::of_status(status);
        reply.fields.push(("Location", location));
        reply
    }

    /// The answer that the way to a location has come to; `None` if it is for the location to answer.
    ///
    /// # Errors
    /// It has come to nothing, or to a status that is 400 or more or has an error page.
    pub fn of_verdict(
        verdict: Verdict,
        exchange: &mut Exchange,
        client: &impl AsRef<ClientInfo>,
    ) -> Result<Option<Self>, ProxyError> {
        match verdict {
            Verdict::Content => Ok(None),
            Verdict::Answer(answer) => Self::of_script(answer, exchange, client).map(Some),
            Verdict::Internal => Err(ProxyError::Internal),
            Verdict::Cycle => Err(ProxyError::Cycle),
            Verdict::GaveUp => Err(ProxyError::Broken("a regular expression gave up")),
            Verdict::BadPath => Err(ProxyError::BadRewrite),
            Verdict::NoSuchName(name) => Err(ProxyError::NoSuchName(name)),
        }
    }

    fn of_script(
        answer: Answer,
        exchange: &mut Exchange,
        client: &impl AsRef<ClientInfo>,
    ) -> Result<Self, ProxyError> {
        match answer {
            Answer::Status(status) if status >= 400 || exchange.has_error_page(status) => {
                Err(ProxyError::Returned(status))
            }
            Answer::Status(status) => {
                if status >= 300 {
                    exchange.forget_page_status();
                }
                Ok(Self { status, fields: Vec::new(), body: ReplyBody::Bytes(Vec::new()) })
            }
            Answer::Text(status, text) => {
                let path = exchange.course().path(exchange.request());
                let media_type = exchange.location().files.media_type(path, "text/plain");
                let fields = vec![("Content-Type", media_type.as_bytes().to_vec())];
                Ok(Self { status, fields, body: ReplyBody::Bytes(text) })
            }
            Answer::Redirect(status, to) if exchange.has_error_page(status) => {
                exchange.redirect = Some(exchange.absolute(client, to));
                Err(ProxyError::Returned(status))
            }
            Answer::Redirect(status, to) => {
                // nginx: it stands for itself, on an error page, too.
                exchange.forget_page_status();
                Ok(Self::redirect(status, exchange.absolute(client, to)))
            }
        }
    }

    /// What a client is told of an error.
    pub fn of_error(error: &ProxyError) -> Self {
        let mut reply = Self::of_status(error.status());
        if let Some(why) = of_handshake(error) {
            // nginx: its own numbers are for `error_page`, and no client knows them.
            reply.status = 400;
            reply.body = ReplyBody::Bytes(format!("400 Bad Request: {why}\n").into_bytes());
        }
        match error {
            // RFC 9110 §15.5.6.
            ProxyError::Method => {
                reply.fields.push(("Allow", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS".to_vec()));
            }
            // RFC 6455 §4.4, RFC 9110 §15.5.22.
            ProxyError::Handshake(HandshakeError::Version) => {
                reply.fields.push(("Sec-WebSocket-Version", websocket::VERSION.to_string().into_bytes()));
                reply.fields.push(("Upgrade", b"websocket".to_vec()));
            }
            ProxyError::Unauthorized(asked) => {
                reply.fields.extend(asked.challenges.iter().map(|v| ("WWW-Authenticate", v.clone())));
            }
            ProxyError::File(error) => {
                reply.fields.extend(error.field().map(|(name, value)| (name, value.into_bytes())));
            }
            _ => {}
        }
        reply
    }

    /// The fields as they go out, by the rules of the location, and the level at which the body is compressed.
    pub(crate) fn completed(
        &self,
        exchange: &Exchange,
        client: &impl AsRef<ClientInfo>,
        status: u16,
    ) -> (Draft<'_>, Option<u32>) {
        let mut answer = Draft::new(status);
        for (name, value) in self.fields.iter().filter(|(_, value)| is_clean(value)) {
            answer.push(name.as_bytes(), &**value);
        }
        if let Some(to) =
            exchange.redirect.as_ref().filter(|to| is_clean(to) && answer.get("Location").is_none())
        {
            answer.push(&b"Location"[..], to.clone());
        }
        if exchange.has_kept_fields() {
            exchange.add_kept_fields(&mut answer, self.status < 400);
        }
        let rules = &exchange.location().responses;
        if !rules.touch_own() {
            return (answer, None);
        }
        rules.complete(&mut answer, &Filling { exchange, client: client.as_ref() });
        let (Some(rules), Some(request)) = (&rules.gzip, exchange.head()) else { return (answer, None) };
        // A file is sent as it is read, in chunks.
        let can_be = matches!(self.body, ReplyBody::Bytes(_)) || request.version != Version::Http10;
        let is_compressed = gzip::decide(rules, &mut answer, request, Some(self.body.len()), can_be);
        (answer, is_compressed.then_some(rules.level))
    }

    /// The head as it goes out, and how the body of a file is compressed.
    fn head(
        &mut self,
        exchange: &Exchange,
        client: &Client,
        status: u16,
        after: After,
    ) -> (Vec<u8>, Option<Gzip>) {
        let (answer, level) = self.completed(exchange, client, status);
        let mut out = Vec::with_capacity(512);
        // Writing to a Vec cannot fail.
        let _ = write!(out, "HTTP/1.1 {status} {}\r\nServer: hopgate\r\n", reason(status));
        clock::with_http(|date| line(&mut out, "Date", date.as_bytes()));
        answer.write(&mut out, false);
        let mut gzip = level.map(Gzip::new);
        if let ReplyBody::Bytes(body) = &mut self.body
            && let Some(mut gzip) = gzip.take()
        {
            let mut compressed = Vec::new();
            // It goes into memory, which does not fail.
            let _ = gzip.push(body, &mut compressed).and_then(|()| gzip.finish(&mut compressed));
            *body = compressed;
        }
        match (status, &gzip) {
            // RFC 9110 §8.6: a 204 has no length, and that of a 304 would be the whole file's.
            (status, _) if has_no_body(status) => {}
            (_, None) => line(&mut out, "Content-Length", self.body.len().to_string().as_bytes()),
            (_, Some(_)) if exchange.is_head() => {}
            (_, Some(_)) => line(&mut out, "Transfer-Encoding", b"chunked"),
        }
        let version = exchange.head().map_or(Version::Http11, |head| head.version);
        if self.fields.iter().any(|(name, _)| *name == "Upgrade") {
            // RFC 9110 §7.8: who sends `Upgrade` says so in `Connection`.
            out.extend_from_slice(b"Connection: Upgrade, close\r\n");
        } else {
            out.extend_from_slice(Connection::of(version, after == After::Open).line());
        }
        out.extend_from_slice(b"\r\n");
        (out, gzip)
    }
}

/// Sends an answer of hopgate's own.
///
/// # Errors
/// The client did not take it, or its file cannot be read. If a part of it is out by then, the outcome has
/// its status.
pub async fn send(
    local: &Rc<Local>,
    client: &mut Client,
    exchange: &mut Exchange,
    mut reply: Reply,
    after: After,
) -> Result<(), ProxyError> {
    let status = match reply.body {
        // What it is a page for was thought of when the file was looked at.
        ReplyBody::File { .. } => reply.status,
        ReplyBody::Bytes(_) => exchange.status_of(reply.status),
    };
    if (200..300).contains(&status) && client.peer.stream.wants_tunnel() {
        return Err(ProxyError::NoTunnel(Fault::Client));
    }
    exchange.outcome.status = status;
    exchange.outcome.late.duration = crate::turn::since(exchange.started());
    let (mut bytes, gzip) = reply.head(exchange, client, status, after);
    exchange.outcome.sent = Some(fields_of(&bytes));
    let head = bytes.len() as u64;
    let timeout = exchange.location().timeouts.send;
    let is_alone = exchange.is_head() || has_no_body(status);
    let body = if is_alone { ReplyBody::Bytes(Vec::new()) } else { reply.body };
    let late = &mut exchange.outcome.late;
    match body {
        ReplyBody::Bytes(body) => {
            bytes.extend_from_slice(&body);
            late.sent = bytes.len() as u64;
            late.body_sent = late.sent - head;
            if client.send(&bytes, timeout).await { Ok(()) } else { Err(ProxyError::ClientTimeout) }
        }
        ReplyBody::File { file, .. } => {
            let mut sent = 0;
            let result = files::send::send(local, client, &bytes, file, gzip, timeout, &mut sent).await;
            late.sent = sent;
            late.body_sent = sent.saturating_sub(head);
            if sent == 0 {
                // The client can still be told properly.
                exchange.outcome.status = 0;
            }
            result
        }
    }
}

/// What a client is told that has not come by TLS as it should.
fn of_handshake(error: &ProxyError) -> Option<&'static str> {
    match error {
        ProxyError::PlainHttp => Some("this port speaks TLS: write https:// or wss://"),
        ProxyError::ClientCertificate(_) => Some("your certificate is not accepted here"),
        ProxyError::NoClientCertificate => Some("you need a certificate to come here"),
        _ => None,
    }
}

impl Exchange {
    /// The value of a `Location` that begins with the path: as a whole URL, as nginx writes it, unless
    /// `absolute_redirect` is off.
    pub fn absolute(&self, client: &impl AsRef<ClientInfo>, to: Vec<u8>) -> Vec<u8> {
        let rules = self.location().redirects;
        if !rules.absolute || to.first() != Some(&b'/') {
            return to;
        }
        let asked = self.request().host.as_str();
        let own = self.server().name.as_str();
        let host = if asked.is_empty() || (rules.server_name && !own.is_empty()) { own } else { asked };
        let ClientInfo { local, .. } = *client.as_ref();
        let scheme = client.as_ref().scheme();
        let usual = if scheme == "https" { 443 } else { 80 };
        let mut url = format!("{scheme}://").into_bytes();
        match (host.is_empty(), local) {
            (false, _) => url.extend_from_slice(host.as_bytes()),
            (true, Some(local)) if local.is_ipv6() => {
                let _ = write!(url, "[{}]", local.ip());
            }
            (true, Some(local)) => {
                let _ = write!(url, "{}", local.ip());
            }
            // Nobody knows a name for it.
            (true, None) => return to,
        }
        if let Some(port) = local.map(|local| local.port()).filter(|port| rules.port && *port != usual) {
            let _ = write!(url, ":{port}");
        }
        url.extend_from_slice(&to);
        url
    }

    /// The path and the query of an internal redirect, taken apart.
    pub(crate) fn split_target(target: &[u8]) -> (Vec<u8>, Vec<u8>) {
        match memchr::memchr(b'?', target) {
            Some(at) => (target[..at].to_vec(), target[at + 1..].to_vec()),
            None => (target.to_vec(), Vec::new()),
        }
    }
}

/// RFC 9112 §6.3: an answer of this status ends with its head. What stood behind it would be taken for the next
/// answer.
pub fn has_no_body(status: u16) -> bool {
    matches!(status, 204 | 304)
}

fn line(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// A path that stands in a `Location`, percent-encoded.
pub fn encoded(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    escape::path(&mut out, path);
    out
}
