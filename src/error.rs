//! Every way a request can fail, whose fault it is, and the status that tells the client.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::files::FileError;
use crate::http1::body::BodyError;
use crate::http1::head::HeadError;
use crate::routing::path::TargetError;
use crate::upstream::tls::TlsError;
use crate::websocket::HandshakeError;

/// Why a request was not answered by an upstream. The client learns the status and no more; the log
/// learns everything.
#[derive(Debug)]
pub enum ProxyError {
    /// The head is not one.
    Head(HeadError),
    /// The head did not come in time.
    HeadTimeout,
    /// The target is refused.
    Target(TargetError),
    /// `Host` is missing, repeated or not valid.
    Host(&'static str),
    /// CONNECT and TRACE are not for a reverse proxy (R33).
    Method,
    /// An extended CONNECT (RFC 8441) to something else than a WebSocket.
    Protocol,
    /// An extended CONNECT (RFC 8441) was answered with a 2xx that opens no tunnel, as the client would have to
    /// believe: by the upstream or, without one, by hopgate.
    NoTunnel(Fault),
    /// HTTP was sent where TLS is spoken. nginx: 497.
    PlainHttp,
    /// The client's certificate is not what `ssl_verify_client` wants; the reason. nginx: 495.
    ClientCertificate(Box<str>),
    /// The client has no certificate. nginx: 496.
    NoClientCertificate,
    /// The host belongs to a server that asks its clients for certificates by other rules than the one that the
    /// connection was made to (R32).
    Misdirected,
    /// A field that is no list stands twice; names it.
    Repeated(&'static str),
    /// An `Expect` other than `100-continue`.
    Expectation,
    /// No location of the server is for this path.
    NoLocation,
    /// The upstream sends the request on to where no request may go.
    AccelRedirect,
    /// The body is larger than `client_max_body_size`.
    BodyTooLarge,
    /// The body breaks its framing.
    Body(BodyError),
    /// The body did not come in time.
    BodyTimeout,
    /// A WebSocket handshake that is not one.
    Handshake(HandshakeError),
    /// The client may not come; says by which rule.
    Forbidden(&'static str),
    /// The client has to say who it is first (RFC 9110 §15.5.2).
    Unauthorized(Box<Unauthorized>),
    /// The file of `auth_basic_user_file` cannot be read.
    UserFile(Box<(PathBuf, io::Error)>),
    /// The subrequest of `auth_request` was answered by neither yes nor no, but by this status.
    AuthRequest(u16),
    /// A limit of `limit_req` or `limit_conn` is reached: the status for it, and which one by how much.
    Limited(u16, Box<str>),
    /// Something of ours broke.
    Broken(&'static str),
    /// A WebSocket handshake in a location with `websocket = false`.
    WebSocketRefused,
    /// Too many connections; names the setting.
    TooManyConnections(&'static str),
    /// The client went away.
    ClientGone(Option<io::Error>),
    /// The client took nothing for `send_timeout`.
    ClientTimeout,
    /// What the variables of a `proxy_pass` make cannot be used: what it is, and why.
    BadProxyPass(String),
    /// What `proxy_ssl_name`, or the host of a `proxy_pass`, is for this request cannot be in a certificate.
    BadTlsName(String),
    /// No server of the group may be given the request: they are down, have failed too often, or have
    /// enough to do.
    NoLiveServer,
    /// No server of the group can be reached.
    Connect(io::Error),
    /// No server of the group answered within `proxy_connect_timeout`.
    ConnectTimeout,
    /// TLS with the server has failed.
    Tls(Box<TlsError>),
    /// The handshake of TLS was not done within `proxy_connect_timeout`.
    TlsTimeout,
    /// `proxy_http_version = "2"`, and the upstream speaks something else: what tells so.
    NotHttp2(String),
    /// An upgrade in HTTP/2, which the upstream does not allow for (RFC 8441 §3).
    NoExtendedConnect,
    /// The upstream closed or reset the connection before its answer was there.
    Upstream(io::Error),
    /// The upstream did not answer or take anything in time; names the setting.
    UpstreamTimeout(&'static str),
    /// The upstream's answer is no HTTP.
    UpstreamHead(HeadError),
    /// The body of the upstream's answer breaks its framing.
    UpstreamBody(BodyError),
    /// The upstream sent one interim answer after the other (R28).
    TooManyInterim,
    /// The upstream switched protocols, but not as it was asked to (R2, R7).
    Switch(&'static str),
    /// No file answers the request.
    File(FileError),
    /// The grace period of a drain is over.
    Stopping,
    /// A `return` of the configuration says so.
    Returned(u16),
    /// The upstream's answer has a status that `error_page` is for, and `proxy_intercept_errors` is on.
    Intercepted(Box<Intercepted>),
    /// The location is `internal`.
    Internal,
    /// The configuration sends the request round in a circle.
    Cycle,
    /// A rewrite has left no path.
    BadRewrite,
    /// The configuration sends the request to a named location that is not there.
    NoSuchName(String),
    /// The body went to an upstream that failed; there is none left for another one.
    BodyIsGone,
}

/// Why a client is asked who it is, and how.
#[derive(Debug)]
pub struct Unauthorized {
    /// What is wrong with what it has said.
    pub why: &'static str,
    /// The values of `WWW-Authenticate`.
    pub challenges: Vec<Vec<u8>>,
}

/// An answer of an upstream that is not passed on.
#[derive(Debug)]
pub struct Intercepted {
    /// Its status.
    pub status: u16,
    /// What it asks the client for: a 401 without it would be none (RFC 9110 §15.5.2).
    pub www_authenticate: Vec<Vec<u8>>,
}

/// Who is to blame, and with it how loud the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The client.
    Client,
    /// An upstream.
    Upstream,
    /// A limit of ours.
    Limit,
}

impl ProxyError {
    /// The status for the client. 499, nginx's, is never sent: there is nobody left to read it.
    pub fn status(&self) -> u16 {
        match self {
            Self::Head(HeadError::LineTooLong) => 414,
            Self::Head(HeadError::TooLarge | HeadError::TooManyFields) => 431,
            Self::Head(HeadError::Version) => 505,
            Self::Head(HeadError::Syntax | HeadError::Framing) => 400,
            Self::HeadTimeout | Self::BodyTimeout => 408,
            Self::Target(_) | Self::Host(_) | Self::Body(_) | Self::Repeated(_) => 400,
            Self::ClientCertificate(_) => 495,
            Self::NoClientCertificate => 496,
            Self::PlainHttp => 497,
            Self::Misdirected => 421,
            Self::Method => 405,
            Self::Protocol => 501,
            Self::NoTunnel(Fault::Upstream) => 502,
            Self::NoTunnel(Fault::Client | Fault::Limit) => 400,
            Self::Expectation => 417,
            Self::NoLocation | Self::Internal | Self::AccelRedirect => 404,
            Self::Returned(status) => *status,
            Self::Intercepted(answer) => answer.status,
            Self::BadProxyPass(_)
            | Self::BadTlsName(_)
            | Self::Cycle
            | Self::BadRewrite
            | Self::NoSuchName(_) => 500,
            Self::BodyTooLarge => 413,
            Self::Handshake(HandshakeError::Version) => 426,
            Self::Handshake(HandshakeError::NoVersion | HandshakeError::Key) => 400,
            Self::WebSocketRefused | Self::Forbidden(_) => 403,
            Self::Unauthorized(_) => 401,
            // nginx, too, tells a file that is not there from one that cannot be read.
            Self::UserFile(file) if file.1.kind() == io::ErrorKind::NotFound => 403,
            Self::UserFile(_) | Self::AuthRequest(_) | Self::Broken(_) => 500,
            Self::Limited(status, _) => *status,
            Self::TooManyConnections(_) | Self::Stopping => 503,
            Self::File(error) => error.status(),
            Self::ClientGone(_) | Self::ClientTimeout => 499,
            Self::NoLiveServer
            | Self::Connect(_)
            | Self::Tls(_)
            | Self::NotHttp2(_)
            | Self::NoExtendedConnect
            | Self::Upstream(_)
            | Self::UpstreamHead(_)
            | Self::UpstreamBody(_)
            | Self::TooManyInterim
            | Self::BodyIsGone
            | Self::Switch(_) => 502,
            Self::ConnectTimeout | Self::TlsTimeout | Self::UpstreamTimeout(_) => 504,
        }
    }

    /// Who is to blame.
    pub fn fault(&self) -> Fault {
        match self.status() {
            // An operator's `return 502` is no fault of an upstream's.
            _ if matches!(self, Self::Returned(_)) => Fault::Client,
            _ if matches!(self, Self::AuthRequest(_)) => Fault::Upstream,
            _ if matches!(self, Self::UserFile(_) | Self::Limited(..) | Self::Broken(_)) => Fault::Limit,
            _ if matches!(self, Self::AccelRedirect) => Fault::Upstream,
            502 | 504 => Fault::Upstream,
            503 => Fault::Limit,
            // Nothing is wrong with the request.
            _ if matches!(self, Self::BadProxyPass(_) | Self::BadTlsName(_)) => Fault::Limit,
            _ => Fault::Client,
        }
    }

    /// What went wrong, with what that came from: the words of the log.
    pub fn in_full(&self) -> String {
        let mut why = self.to_string();
        let mut cause = self.source();
        while let Some(source) = cause {
            why = format!("{why}: {source}");
            cause = source.source();
        }
        why
    }

    /// Whether the connection to the client can go on after the answer: only if it is certain where
    /// the next request starts.
    pub fn keeps_connection(&self) -> bool {
        match self {
            Self::Head(_)
            | Self::HeadTimeout
            | Self::Host(_)
            | Self::Repeated(_)
            | Self::Method
            | Self::PlainHttp
            | Self::ClientCertificate(_)
            | Self::NoClientCertificate
            | Self::Protocol
            | Self::NoTunnel(_)
            | Self::Body(_)
            | Self::BodyTimeout
            | Self::BodyTooLarge
            | Self::TooManyConnections(_)
            | Self::ClientGone(_)
            | Self::ClientTimeout
            | Self::BodyIsGone
            | Self::Stopping => false,
            // A client that believes to be in a WebSocket may have sent frames already.
            Self::Handshake(_) | Self::Switch(_) => false,
            Self::Target(_)
            | Self::Misdirected
            | Self::Expectation
            | Self::NoLocation
            | Self::AccelRedirect
            | Self::WebSocketRefused
            | Self::Forbidden(_)
            | Self::Unauthorized(_)
            | Self::UserFile(_)
            | Self::AuthRequest(_)
            | Self::Limited(..)
            | Self::Broken(_)
            | Self::Returned(_)
            | Self::Intercepted(_)
            | Self::Internal
            | Self::Cycle
            | Self::BadRewrite
            | Self::NoSuchName(_)
            | Self::BadProxyPass(_)
            | Self::BadTlsName(_)
            | Self::NoLiveServer
            | Self::File(_)
            | Self::Connect(_)
            | Self::ConnectTimeout
            | Self::Tls(_)
            | Self::TlsTimeout
            | Self::NotHttp2(_)
            | Self::NoExtendedConnect
            | Self::Upstream(_)
            | Self::UpstreamTimeout(_)
            | Self::UpstreamHead(_)
            | Self::UpstreamBody(_)
            | Self::TooManyInterim => true,
        }
    }
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Head(HeadError::Syntax) => "the request head breaks the grammar of HTTP",
            Self::Head(HeadError::Version) => "the client speaks another version of HTTP",
            Self::Head(HeadError::LineTooLong) => "the request line is larger than `client_max_head_size`",
            Self::Head(HeadError::TooLarge) => "the request head is larger than `client_max_head_size`",
            Self::Head(HeadError::TooManyFields) => "the request head has more fields than `max_headers`",
            Self::Head(HeadError::Framing) => "the framing of the request can be read in more than one way",
            Self::HeadTimeout => "the request head took longer than `client_header_timeout`",
            Self::Target(TargetError::Form) => "the request target is of no form that a reverse proxy takes",
            Self::Target(TargetError::Authority) => "the request target has no valid authority",
            Self::Target(TargetError::Byte) => "the request target has a byte that may not stand in it",
            Self::Target(TargetError::Escape) => "the path has a `%` that is no valid escape",
            Self::Target(TargetError::EncodedSlash) => {
                "the path has an encoded slash or backslash; `encoded_slashes = \"pass\"` would let it through"
            }
            Self::Target(TargetError::AboveRoot) => "the path leads out of the root",
            Self::Host(what) => what,
            Self::Repeated(name) => return write!(f, "the field `{name}` stands twice: nobody knows which one counts"),
            Self::Method => "CONNECT and TRACE are not served",
            Self::Protocol => "an extended CONNECT asks for a protocol other than `websocket`",
            Self::NoTunnel(Fault::Upstream) => {
                "the upstream answered a WebSocket handshake with a 2xx, which over HTTP/2 would mean that it is one"
            }
            Self::NoTunnel(_) => "an extended CONNECT asks for a WebSocket where no upstream is",
            Self::PlainHttp => "plain HTTP was sent to an address where TLS is spoken",
            Self::ClientCertificate(why) => return write!(f, "the client's certificate does not pass: {why}"),
            Self::NoClientCertificate => "the client has no certificate, and `ssl_verify_client` is \"on\"",
            Self::Misdirected => {
                "the host belongs to a server with other rules about client certificates than the one that the \
                 connection was made to"
            }
            Self::Expectation => "the request expects something other than 100-continue",
            Self::AccelRedirect => "the upstream's `X-Accel-Redirect` is no path, or leads out of the root",
            Self::NoLocation => "no location is for this path; a location with `path = \"/\"` takes all others",
            Self::BodyTooLarge => "the request body is larger than `client_max_body_size`",
            Self::Body(_) => "the request body breaks its framing",
            Self::BodyTimeout => "the request body stalled for longer than `client_body_timeout`",
            Self::Handshake(error) => return error.fmt(f),
            Self::WebSocketRefused => "the location has `websocket = false`",
            Self::Forbidden(why) | Self::Broken(why) => why,
            Self::Unauthorized(asked) => asked.why,
            Self::UserFile(file) => {
                return write!(f, "`auth_basic_user_file`: {} cannot be read", file.0.display());
            }
            Self::AuthRequest(status) => {
                return write!(f, "the subrequest of `auth_request` was answered {status}, neither 2xx nor 401 or 403");
            }
            Self::Limited(_, what) => what,
            Self::TooManyConnections(setting) => return write!(f, "`{setting}` is reached"),
            Self::ClientGone(_) => "the client went away",
            Self::ClientTimeout => "the client took nothing for longer than `send_timeout`",
            Self::BadProxyPass(what) => return write!(f, "`proxy_pass` leads to {what}"),
            Self::BadTlsName(what) => {
                return write!(
                    f,
                    "the name of the upstream's certificate would be {what}, and that is none: set `proxy_ssl_name`"
                );
            }
            Self::NoLiveServer => {
                "no server of the upstream is left: each one is `down`, or has had `max_fails` failures within \
                 its `fail_timeout`, or has `max_conns` requests"
            }
            Self::Connect(_) => "no server of the upstream can be reached",
            Self::ConnectTimeout => "the upstream did not accept a connection within `proxy_connect_timeout`",
            Self::Tls(_) => "TLS with the upstream has failed",
            Self::TlsTimeout => {
                "the upstream did not finish the handshake of TLS within `proxy_connect_timeout`; perhaps it does \
                 not speak TLS there"
            }
            Self::NotHttp2(why) => {
                return write!(f, "the upstream does not speak HTTP/2, as `proxy_http_version` says: {why}");
            }
            Self::NoExtendedConnect => {
                "the upstream's SETTINGS allow for no upgrade in HTTP/2; a location of its own with \
                 `proxy_http_version = \"1.1\"` would ask it in HTTP/1.1"
            }
            Self::Upstream(_) => "the upstream closed the connection before it had answered",
            Self::UpstreamTimeout(setting) => {
                return write!(f, "the upstream was silent for longer than `{setting}`");
            }
            Self::UpstreamHead(error) => {
                return write!(f, "the upstream's answer is not valid HTTP/1.1 ({error})");
            }
            Self::UpstreamBody(_) => "the body of the upstream's answer breaks its framing",
            Self::TooManyInterim => "the upstream sent too many 1xx answers",
            Self::Switch(what) => {
                return write!(f, "the upstream's 101 does not answer the request: {what}");
            }
            Self::Returned(_) => "the configuration says so by a `return`",
            Self::Intercepted(_) => "the upstream answered so, and `proxy_intercept_errors` is on",
            Self::Internal => "the location is `internal`, and the client has asked for it",
            Self::Cycle => "the configuration rewrites or redirects the request more than ten times",
            Self::BadRewrite => "a `rewrite` has left no path, or one that leads out of the root",
            Self::NoSuchName(name) => return write!(f, "there is no location `{name}` in this server"),
            Self::BodyIsGone => "the request body was sent to an upstream that failed: it cannot be sent again",
            Self::File(error) => return error.fmt(f),
            Self::Stopping => "hopgate ended before the answer was through: told to, or `shutdown_timeout` was over",
        })
    }
}

impl Error for ProxyError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Connect(error) | Self::Upstream(error) | Self::ClientGone(Some(error)) => Some(error),
            Self::UserFile(file) => Some(&file.1),
            Self::Tls(error) => Some(&**error),
            Self::Body(error) | Self::UpstreamBody(error) => Some(error),
            Self::File(error) => error.source(),
            _ => None,
        }
    }
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Syntax => "its head breaks the grammar",
            Self::Version => "its version is another one",
            Self::LineTooLong | Self::TooLarge => "its head is too large",
            Self::TooManyFields => "its head has too many fields",
            Self::Framing => "its framing can be read in more than one way",
        })
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Chunk => "a chunk or a trailer is malformed",
            Self::TooLarge => "too many bytes of chunk extensions or trailers",
            Self::Truncated => "the connection ended in its middle",
        })
    }
}

impl Error for BodyError {}

/// The reason phrases of the statuses that hopgate itself may send, RFC 9110 §15.
pub fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        _ => "Error",
    }
}
