//! A request, checked once: what routing, header rules and logging work on.

use std::net::{IpAddr, SocketAddr};

use crate::client::ClientInfo;
use crate::config::{EncodedSlashes, RealIp, RealIpHeader, Server};
use crate::error::ProxyError;
use crate::headers::fields::Known;
use crate::headers::{forwarded, rfc7239};
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

    /// The head alone, for the log.
    pub fn into_head(self) -> RequestHead {
        self.head
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

/// The host and the authority of a request: see [`Request`].
pub(crate) fn host_of(head: &RequestHead) -> Result<(String, Option<String>), ProxyError> {
    let mut hosts = head.fields.values(Known::Host);
    let field = hosts.next();
    if hosts.next().is_some() {
        return Err(ProxyError::Host("more than one Host field"));
    }
    if field.is_none() && head.version != Version::Http10 {
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
    if let Some(name) = repeated(head) {
        return Err(ProxyError::Repeated(name));
    }
    let body = head.body_length().map_err(ProxyError::Head)?;
    let is_options = head.method() == b"OPTIONS";
    let target = Target::parse(head.target(), is_options, slashes).map_err(ProxyError::Target)?;
    // RFC 9110 §10.1.1: an expectation of an HTTP/1.0 client is ignored.
    let mut expectations =
        head.fields.values(Known::Expect).filter(|_| head.version != Version::Http10).peekable();
    let expects_continue = expectations.peek().is_some() && !body.is_empty();
    if expectations.all(|value| value.eq_ignore_ascii_case(b"100-continue")) {
        Ok((target, body, expects_continue))
    } else {
        Err(ProxyError::Expectation)
    }
}

/// A field that may stand once only (RFC 9110 §5.3) and stands twice. Which of two credentials counts would be
/// for each reader to say, and they would not agree; nginx refuses these, too.
fn repeated(head: &RequestHead) -> Option<&'static str> {
    const ONCE: [&str; 5] =
        ["Authorization", "Content-Range", "If-Modified-Since", "If-Range", "If-Unmodified-Since"];
    let mut seen = [false; ONCE.len()];
    for field in head.fields.iter() {
        let same = |name: &&str| field.name.eq_ignore_ascii_case(name.as_bytes());
        let Some(index) = ONCE.iter().position(same) else { continue };
        if std::mem::replace(&mut seen[index], true) {
            return Some(ONCE[index]);
        }
    }
    None
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
    /// The other end of the connection, or of the one that a balancer has passed on; `None` on a Unix-domain socket.
    pub peer: Option<IpAddr>,
    /// The client: the peer, or whom the trusted proxies name: `$remote_addr`. `None` if all that is known
    /// is a Unix-domain socket.
    pub client: Option<IpAddr>,
    /// The port of the client; `None` if a proxy named it without one, too: `$remote_port`.
    pub port: Option<u16>,
    /// Whether the peer is a trusted proxy.
    pub is_trusted: bool,
    /// Whether it has named the client.
    pub is_named: bool,
    /// How the client has sent the request, `http` or `https`, if the field that names it says so.
    pub scheme: Option<&'static str>,
}

impl Origin {
    /// Finds the client behind the other end of a connection.
    pub fn of(client: &ClientInfo, head: &RequestHead, rules: &RealIp) -> Self {
        let unnamed = Self::unknown(client.address);
        // A balancer that passes bytes on vouches for the address of its client, and for nothing that this one says.
        let is_hidden = client.proxied.as_ref().is_some_and(|proxied| proxied.addresses.is_none());
        let is_trusted = !is_hidden && rules.trusts(unnamed.peer);
        match is_trusted.then(|| named_by(head, rules)).flatten() {
            Some(((client, port), scheme)) => {
                Self { client: Some(client), port, is_trusted, is_named: true, scheme, ..unnamed }
            }
            None => Self { is_trusted, ..unnamed },
        }
    }

    /// When no head was read.
    pub fn unknown(peer: Option<SocketAddr>) -> Self {
        let ip = peer.map(|peer| peer.ip().to_canonical());
        let port = peer.map(|peer| peer.port());
        Self { peer: ip, client: ip, port, is_trusted: false, is_named: false, scheme: None }
    }
}

/// The client as the field says it in which the trusted proxies do.
fn named_by(head: &RequestHead, rules: &RealIp) -> Option<(forwarded::Named, Option<&'static str>)> {
    let lines = |name: &str| {
        let named = head.fields.iter().filter(move |field| field.name.eq_ignore_ascii_case(name.as_bytes()));
        named.map(|field| field.value).collect::<Vec<_>>().into_iter()
    };
    let (trusted, takes_last) = (&rules.trusted, rules.takes_last);
    match &rules.header {
        RealIpHeader::XForwardedFor => {
            let members = forwarded::listed(head.fields.values(Known::XForwardedFor));
            forwarded::last_untrusted(members, trusted, takes_last).map(|named| (named, None))
        }
        RealIpHeader::ProxyProtocol => None,
        RealIpHeader::Forwarded => rfc7239::last_untrusted(lines("Forwarded"), trusted, takes_last),
        RealIpHeader::Field(name) => {
            let members = forwarded::listed(lines(name.as_str()).take(1));
            forwarded::last_untrusted(members, trusted, takes_last).map(|named| (named, None))
        }
    }
}
