//! Asks a CA: HTTP/1.1 over TLS, each request on a connection of its own and within a time.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONNECTION, HOST, HeaderValue, RETRY_AFTER, USER_AGENT};
use http::{Request, Response, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper::rt::ReadBufCursor;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::error::Failure;
use crate::config::units::named_or_ip;
use crate::config::{Acme, UpstreamAddress};
use crate::io::Stream;
use crate::tls::stream::TlsStream;
use crate::tls::{pem, provider, roots};
use crate::upstream::resolve::Resolver;

/// How long a request may take, from the look-up of the name to the last byte of the answer.
const WITHIN: Duration = Duration::from_secs(30);

/// The longest that a CA's word about when to come back is obeyed: a slip of its own would end renewals for good.
const LATEST: Duration = Duration::from_secs(24 * 3600);

/// The most bytes of an answer: a directory, an order or a chain has a few thousand.
const LARGEST: usize = 1 << 20;

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// A request to a CA that had no answer.
#[derive(Debug)]
pub struct Unanswered {
    /// Who was asked: host and port, as in the URL.
    whom: String,
    why: Failed,
}

impl Unanswered {
    /// Whether it is the certificate of the CA's own server that is not believed.
    pub fn is_about_certificate(&self) -> bool {
        let why = self.why.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let why = why.and_then(|why| why.downcast_ref::<rustls::Error>());
        matches!(why, Some(rustls::Error::InvalidCertificate(_)))
    }
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.whom, self.why)
    }
}

impl std::error::Error for Unanswered {}

/// Speaks with one CA.
#[derive(Clone, Debug)]
pub struct Http {
    tls: Arc<ClientConfig>,
    resolver: Arc<Resolver>,
    later: Later,
}

/// When the CA wants to be asked again, by its last refusal; instant-acme does not pass it on.
#[derive(Clone, Debug, Default)]
pub struct Later(Arc<Mutex<Option<SystemTime>>>);

impl Later {
    /// Takes the time, if one was said since the last time that it was taken.
    pub fn take(&self) -> Option<SystemTime> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn note(&self, answer: &Response<Bytes>) {
        if answer.status().is_client_error() || answer.status().is_server_error() {
            let said = answer.headers().get(RETRY_AFTER).and_then(retry_after);
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = said;
        }
    }
}

/// RFC 9110 §10.2.3: seconds, or a date; a day from now at the latest.
fn retry_after(value: &HeaderValue) -> Option<SystemTime> {
    let text = value.to_str().ok()?.trim();
    let now = SystemTime::now();
    let said = match text.parse::<u32>() {
        Ok(seconds) => now + Duration::from_secs(seconds.into()),
        Err(_) => httpdate::parse_http_date(text).ok()?,
    };
    Some(said.min(now + LATEST))
}

impl Http {
    /// For the CA of these settings; and what it says about when to come back.
    ///
    /// # Errors
    /// The certificates that its own servers are checked with cannot be read.
    pub fn new(acme: &Acme, resolver: Arc<Resolver>) -> Result<(Self, Later), Failure> {
        let failed = |error: Failed| Failure::Directory(Error::Other(error));
        let roots = roots(acme.directory_ca.as_deref()).map_err(failed)?;
        let tls = ClientConfig::builder_with_provider(Arc::clone(provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| failed(error.into()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let later = Later::default();
        Ok((Self { tls: Arc::new(tls), resolver, later: later.clone() }, later))
    }

    async fn ask(self, request: Request<BodyWrapper<Bytes>>) -> Result<Response<Bytes>, Failed> {
        let uri = request.uri().clone();
        let connection = connect(&uri, self.tls, &self.resolver).await?;
        let (mut sender, connection) = http1::handshake(Io(connection)).await?;
        let answer = async {
            let answer = sender.send_request(origin_form(request)?).await?;
            let (parts, body) = answer.into_parts();
            let body = Limited::new(body, LARGEST).collect().await?.to_bytes();
            Ok(Response::from_parts(parts, body))
        };
        tokio::pin!(answer);
        tokio::select! {
            answer = &mut answer => answer,
            // It may have ended behind an answer that is still to be taken.
            ended = connection => match ended {
                Ok(()) => answer.await,
                Err(error) => Err(error.into()),
            },
        }
    }
}

impl HttpClient for Http {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let http = self.clone();
        let later = self.later.clone();
        let whom = request.uri().authority().map(ToString::to_string).unwrap_or_default();
        // Streams stay on their thread, and what is returned here need not.
        let answered = tokio::task::spawn_local(timeout(WITHIN, http.ask(request)));
        Box::pin(async move {
            let failed = |why: Failed| Error::Other(Unanswered { whom, why }.into());
            match answered.await {
                Ok(Ok(Ok(answer))) => {
                    later.note(&answer);
                    Ok(BytesResponse::from(answer.map(Full::new)))
                }
                Ok(Ok(Err(error))) => Err(failed(error)),
                Ok(Err(_)) => Err(failed(format!("no answer within {WITHIN:?}").into())),
                Err(error) => Err(failed(error.into())),
            }
        })
    }
}

/// Those of the file, else those that the system trusts.
fn roots(file: Option<&Path>) -> Result<RootCertStore, Failed> {
    let Some(file) = file else {
        return roots::of_system().map_err(|why| {
            let why = if why.is_empty() { why } else { format!(" ({why})") };
            format!(
                "there are no CA certificates to check its own with{why}; install ca-certificates, or name a file in \
                 `directory_ca`"
            )
            .into()
        });
    };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(
        pem::certificates(file).map_err(|fault| format!("`directory_ca` {fault}"))?,
    );
    Ok(roots)
}

/// RFC 9112 §3.2.1, with a `Host`; the answer is the last on its connection.
fn origin_form(request: Request<BodyWrapper<Bytes>>) -> Result<Request<BodyWrapper<Bytes>>, Failed> {
    let (mut parts, body) = request.into_parts();
    let authority = parts.uri.authority().ok_or("a URL without a host")?;
    let host = HeaderValue::from_str(authority.as_str())?;
    parts.headers.insert(HOST, host);
    parts.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    // RFC 8555 §6.1: a client says what it is, and which library it uses.
    let agent = parts.headers.get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let agent = format!("hopgate/{} {agent}", env!("CARGO_PKG_VERSION"));
    parts.headers.insert(USER_AGENT, HeaderValue::from_str(&agent)?);
    parts.uri = parts.uri.path_and_query().map_or("/", |target| target.as_str()).parse()?;
    Ok(Request::from_parts(parts, body))
}

async fn connect(uri: &Uri, tls: Arc<ClientConfig>, resolver: &Resolver) -> Result<Stream, Failed> {
    // RFC 8555 §6.1.
    if uri.scheme_str() != Some("https") {
        return Err(format!("{uri} does not begin with `https://`").into());
    }
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let name = ServerName::try_from(host.to_owned())?;
    let addresses = match named_or_ip(uri.host().unwrap_or_default(), uri.port_u16().unwrap_or(443)) {
        Ok(UpstreamAddress::Ip(address)) => vec![address],
        Ok(address) => resolver.addresses(&address).await?,
        Err(wrong) => return Err(wrong.message.into()),
    };
    reach(&addresses, &tls, &name, WITHIN).await
}

/// The first address that takes the connection and speaks TLS. Each gets an equal part of the time, so that one that
/// is silent does not hide the next.
async fn reach(
    addresses: &[SocketAddr],
    tls: &Arc<ClientConfig>,
    name: &ServerName<'static>,
    within: Duration,
) -> Result<Stream, Failed> {
    let share = within / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
    let mut last = "the name has no address".into();
    for address in addresses {
        match timeout(share, connect_to(*address, Arc::clone(tls), name.clone())).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = format!("{address} is silent").into(),
        }
    }
    Err(last)
}

async fn connect_to(
    address: SocketAddr,
    tls: Arc<ClientConfig>,
    name: ServerName<'static>,
) -> Result<Stream, Failed> {
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    let mut stream = TlsStream::connect(Stream::tcp(socket), tls, name)?;
    poll_fn(|cx| stream.poll_handshake(cx)).await?;
    Ok(Stream::Tls(Box::new(stream)))
}

/// A stream as hyper wants it.
struct Io(Stream);

impl hyper::rt::Read for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let mut bytes = [0; 4096];
        let most = buffer.remaining().min(bytes.len());
        let count = ready!(self.0.poll_read(cx, &mut bytes[..most]))?;
        buffer.put_slice(&bytes[..count]);
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What was taken is on its way: nothing is kept back.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_shutdown_write(cx).map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, retry_after: &str) -> Response<Bytes> {
        Response::builder().status(status).header(RETRY_AFTER, retry_after).body(Bytes::new()).unwrap()
    }

    #[test]
    fn only_a_refusal_says_when_to_come_back() {
        let later = Later::default();
        later.note(&answer(200, "5"));
        assert_eq!(later.take(), None);
        later.note(&answer(429, "3600"));
        let until = later.take().unwrap().duration_since(SystemTime::now()).unwrap();
        assert!((3590..=3600).contains(&until.as_secs()), "{until:?}");
        assert_eq!(later.take(), None);
        later.note(&answer(503, "Fri, 31 Dec 1999 23:59:59 GMT"));
        assert_eq!(
            later.take().map(httpdate::fmt_http_date).as_deref(),
            Some("Fri, 31 Dec 1999 23:59:59 GMT")
        );
        later.note(&answer(503, "soon"));
        assert_eq!(later.take(), None);
        for far in ["4294967295", "Fri, 31 Dec 9999 23:59:59 GMT"] {
            later.note(&answer(429, far));
            assert!(later.take().unwrap() <= SystemTime::now() + LATEST, "{far}");
        }
    }

    #[tokio::test]
    async fn an_address_that_is_silent_does_not_hide_the_next() {
        let listen = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (silent, next) = (listen(), listen());
        let addresses = [&silent, &next].map(|listener| listener.local_addr().unwrap());
        next.set_nonblocking(true).unwrap();
        let tls = ClientConfig::builder_with_provider(Arc::clone(provider()));
        let tls = tls.with_safe_default_protocol_versions().unwrap();
        let tls = tls.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
        let name = ServerName::try_from("ca.example").unwrap();
        let tried = reach(&addresses, &Arc::new(tls), &name, Duration::from_millis(200)).await;
        assert_eq!(tried.err().map(|why| why.to_string()), Some(format!("{} is silent", addresses[1])));
        assert!(next.accept().is_ok());
    }
}
