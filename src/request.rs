//! A request, checked once: what routing, header rules and logging work on.

use std::net::IpAddr;

use crate::config::{EncodedSlashes, Server};
use crate::error::ProxyError;
use crate::headers::fields::Known;
use crate::headers::forwarded;
use crate::http1::body::BodyLength;
use crate::http1::head::{RequestHead, Version};
use crate::routing::path::{Host, Target};

/// A request whose head has passed every check that does not depend on its location.
#[derive(Debug)]
pub struct Request {
    /// The head as it arrived.
    pub head: RequestHead,
    /// Where it goes.
    pub target: Target,
    /// The host without its port, in lower case; empty if an HTTP/1.0 client named none: `$host`.
    pub host: String,
    /// The host and port that upstreams are told: `Host`, or the authority of an absolute-form target,
    /// which stands above it (RFC 9112 §3.2.2). `None` if the client named none.
    pub authority: Option<String>,
    /// How the body is framed.
    pub body: BodyLength,
    /// Whether the client waits for a 100 before it sends the body.
    pub expects_continue: bool,
}

/// The host of a request, before it is known which server answers.
#[derive(Debug)]
pub struct Addressed {
    head: RequestHead,
    authority: Option<String>,
    /// As in [`Request::host`].
    pub host: String,
}

impl Addressed {
    /// Finds out which host a request is for (R29).
    ///
    /// # Errors
    /// The target or the `Host` is not right; the head is given back for the log.
    pub fn new(head: RequestHead) -> Result<Self, (ProxyError, RequestHead)> {
        match host_of(&head) {
            Ok((host, authority)) => Ok(Self { head, authority, host }),
            Err(error) => Err((error, head)),
        }
    }

    /// Checks everything else, by the rules of the server that answers.
    ///
    /// # Errors
    /// What is wrong with the request; the head is given back for the log.
    pub fn check(self, server: &Server) -> Result<Request, (ProxyError, RequestHead)> {
        match checked(&self.head, server.encoded_slashes) {
            Ok((target, body, expects_continue)) => Ok(Request {
                target,
                body,
                expects_continue,
                host: self.host,
                authority: self.authority,
                head: self.head,
            }),
            Err(error) => Err((error, self.head)),
        }
    }
}

fn host_of(head: &RequestHead) -> Result<(String, Option<String>), ProxyError> {
    let mut hosts = head.fields.values(Known::Host);
    let field = hosts.next();
    if hosts.next().is_some() {
        return Err(ProxyError::Host("more than one Host field"));
    }
    if field.is_none() && head.version == Version::Http11 {
        return Err(ProxyError::Host("no Host field"));
    }
    let field = match field {
        Some(text) => Some(Host::parse(text).ok_or(ProxyError::Host("not a valid Host field"))?),
        None => None,
    };
    if head.method() == b"CONNECT" {
        return Err(ProxyError::Method);
    }
    let authority = Target::authority(head.target()).map_err(ProxyError::Target)?.or(field);
    Ok(match authority {
        Some(host) => (host.folded(), Some(host.text.to_owned())),
        None => (String::new(), None),
    })
}

fn checked(head: &RequestHead, slashes: EncodedSlashes) -> Result<(Target, BodyLength, bool), ProxyError> {
    // TRACE would show a client what the proxy added for the app's eyes only; nginx refuses it too.
    if head.method() == b"TRACE" {
        return Err(ProxyError::Method);
    }
    let body = head.body_length().map_err(ProxyError::Head)?;
    let is_options = head.method() == b"OPTIONS";
    let target = Target::parse(head.target(), is_options, slashes).map_err(ProxyError::Target)?;
    // RFC 9110 §10.1.1: an expectation of an HTTP/1.0 client is ignored.
    let mut expectations =
        head.fields.values(Known::Expect).filter(|_| head.version == Version::Http11).peekable();
    let expects_continue = expectations.peek().is_some() && !body.is_empty();
    if expectations.all(|value| value.eq_ignore_ascii_case(b"100-continue")) {
        Ok((target, body, expects_continue))
    } else {
        Err(ProxyError::Expectation)
    }
}

impl Request {
    /// The path to match with: `$uri`.
    pub fn path(&self) -> &[u8] {
        self.target.path(self.head.target())
    }

    /// The query without its `?`: `$args`.
    pub fn query(&self) -> Option<&[u8]> {
        self.target.query(self.head.target())
    }

    /// Whether the method is HEAD, whose answers have no body.
    pub fn is_head(&self) -> bool {
        self.head.method() == b"HEAD"
    }

    /// Whether sending the request twice does what sending it once does (RFC 9110 §9.2.2).
    pub fn is_idempotent(&self) -> bool {
        [&b"GET"[..], b"HEAD", b"OPTIONS", b"PUT", b"DELETE"].contains(&self.head.method())
    }
}

/// Who sent a request, as far as is known.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    /// The other end of the connection; `None` on a Unix-domain socket.
    pub peer: Option<IpAddr>,
    /// The client: the peer, or whom the trusted proxies name: `$remote_addr`. `None` if all that is known
    /// is a Unix-domain socket.
    pub client: Option<IpAddr>,
    /// Whether the peer is a trusted proxy.
    pub is_trusted: bool,
}

impl Origin {
    /// Finds the client behind the peer of a connection.
    pub fn of(peer: Option<IpAddr>, head: &RequestHead, server: &Server) -> Self {
        let trusted = &server.trusted_proxies;
        let Some(peer) = peer.map(|peer| peer.to_canonical()) else {
            let is_trusted = server.trusts_unix_peers;
            let client = is_trusted.then(|| forwarded::last_untrusted(&head.fields, trusted)).flatten();
            return Self { peer: None, client, is_trusted };
        };
        let is_trusted = forwarded::is_trusted(peer, trusted);
        let named = is_trusted.then(|| forwarded::last_untrusted(&head.fields, trusted)).flatten();
        Self { peer: Some(peer), client: Some(named.unwrap_or(peer)), is_trusted }
    }

    /// When no head was read.
    pub fn unknown(peer: Option<IpAddr>) -> Self {
        let peer = peer.map(|peer| peer.to_canonical());
        Self { peer, client: peer, is_trusted: false }
    }
}
