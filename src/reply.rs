//! The answers that hopgate makes itself: errors, redirects, texts. All of them go out here.

use std::io::Write as _;

use crate::client::Client;
use crate::clock;
use crate::error::{ProxyError, reason};
use crate::exchange::{After, Exchange};
use crate::headers::outgoing::Connection;
use crate::http1::head::Version;
use crate::routing::escape;
use crate::routing::script::Answer;
use crate::websocket::{self, HandshakeError};

/// An answer of hopgate's own.
#[derive(Debug, PartialEq, Eq)]
pub struct Reply {
    /// Its status.
    pub status: u16,
    /// Its fields, without those that every answer has and those that frame it.
    pub fields: Vec<(&'static str, Vec<u8>)>,
    /// Its body.
    pub body: Vec<u8>,
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
        Self { status, fields, body }
    }

    /// A redirect.
    pub fn redirect(status: u16, location: Vec<u8>) -> Self {
        let mut reply = Self::of_status(status);
        reply.fields.push(("Location", location));
        reply
    }

    /// What a script has answered; `Err` for a status that is an error like any other.
    ///
    /// # Errors
    /// The status is 400 or more, or has an error page.
    pub fn of_script(answer: Answer, exchange: &mut Exchange, client: &Client) -> Result<Self, ProxyError> {
        match answer {
            Answer::Status(status) if status >= 400 || exchange.has_error_page(status) => {
                Err(ProxyError::Returned(status))
            }
            Answer::Status(status) => {
                if status >= 300 {
                    exchange.forget_page_status();
                }
                Ok(Self { status, fields: Vec::new(), body: Vec::new() })
            }
            Answer::Text(status, text) => {
                let fields = vec![("Content-Type", b"text/plain".to_vec())];
                Ok(Self { status, fields, body: text })
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
            ProxyError::Intercepted(answer) => {
                reply.fields.extend(answer.www_authenticate.iter().map(|v| ("WWW-Authenticate", v.clone())));
            }
            _ => {}
        }
        reply
    }

    /// The head and the body as they go out.
    fn bytes(&self, exchange: &Exchange, status: u16, after: After) -> (Vec<u8>, usize) {
        let mut out = Vec::with_capacity(256 + self.body.len());
        // Writing to a Vec cannot fail.
        let _ = write!(out, "HTTP/1.1 {status} {}\r\nServer: hopgate\r\n", reason(status));
        clock::with_http(|date| line(&mut out, "Date", date.as_bytes()));
        for (name, value) in self.fields.iter().filter(|(_, value)| is_clean(value)) {
            line(&mut out, name, value);
        }
        let has_location = self.fields.iter().any(|(name, _)| *name == "Location");
        if let Some(to) = exchange.redirect.as_ref().filter(|to| !has_location && is_clean(to)) {
            line(&mut out, "Location", to);
        }
        // RFC 9110 §8.6: a 204 has no length.
        if status != 204 {
            line(&mut out, "Content-Length", self.body.len().to_string().as_bytes());
        }
        let version = exchange.head().map_or(Version::Http11, |head| head.version);
        if self.fields.iter().any(|(name, _)| *name == "Upgrade") {
            // RFC 9110 §7.8: who sends `Upgrade` says so in `Connection`.
            out.extend_from_slice(b"Connection: Upgrade, close\r\n");
        } else {
            out.extend_from_slice(Connection::of(version, after == After::Open).line());
        }
        out.extend_from_slice(b"\r\n");
        let head = out.len();
        if !exchange.is_head() {
            out.extend_from_slice(&self.body);
        }
        (out, head)
    }
}

/// Sends an answer of hopgate's own. `false` if the client did not take it.
pub async fn send(client: &mut Client, exchange: &mut Exchange, reply: &Reply, after: After) -> bool {
    let status = exchange.status_of(reply.status);
    exchange.outcome.status = status;
    let (bytes, head) = reply.bytes(exchange, status, after);
    exchange.outcome.late.sent = bytes.len() as u64;
    exchange.outcome.late.body_sent = (bytes.len() - head) as u64;
    client.send(&bytes, exchange.location().timeouts.send).await
}

impl Exchange {
    /// The value of a `Location` that begins with the path: as a whole URL, as nginx writes it, unless
    /// `absolute_redirect` is off.
    pub fn absolute(&self, client: &Client, to: Vec<u8>) -> Vec<u8> {
        let rules = self.location().redirects;
        if !rules.absolute || to.first() != Some(&b'/') {
            return to;
        }
        let asked = self.request().host.as_str();
        let own = self.server().name.as_str();
        let host = if asked.is_empty() || (rules.server_name && !own.is_empty()) { own } else { asked };
        let local = client.info.local;
        let mut url = b"http://".to_vec();
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
        if let Some(port) = local.map(|local| local.port()).filter(|port| rules.port && *port != 80) {
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

/// R17: a value with a byte that may not stand in a field is not sent.
fn is_clean(value: &[u8]) -> bool {
    value.iter().all(|byte| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f))
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
