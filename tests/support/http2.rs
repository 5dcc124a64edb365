//! A client that speaks HTTP/2 by prior knowledge: what it sends is always right, and says so if the answer is not.

use std::convert::Infallible;
use std::future::Future;
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::ext::Protocol;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Method, Request, StatusCode};
use socket2::Socket;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use super::{DEADLINE, Hopgate, TlsConnection};

/// A connection, run by a thread of its own.
pub struct Http2 {
    runtime: Running,
    requests: SendRequest<Bytes>,
    over: Option<oneshot::Receiver<Result<(), h2::Error>>>,
    /// A handle on the socket that the thread has.
    socket: Socket,
    /// What its requests begin with: scheme, host and port.
    origin: String,
}

/// The runtime of the thread: it stays for as long as somebody may wait for something on it, as a timeout on a
/// runtime that has ended is a panic.
#[derive(Clone)]
struct Running {
    handle: Handle,
    _stay: mpsc::Sender<Infallible>,
}

/// One request on it.
pub struct Http2Stream {
    runtime: Running,
    response: Option<ResponseFuture>,
    sending: SendStream<Bytes>,
    receiving: Option<RecvStream>,
    read: Vec<u8>,
}

/// The head of an answer.
#[derive(Debug)]
pub struct Http2Head {
    pub status: u16,
    pub fields: HeaderMap,
}

/// A whole answer.
#[derive(Debug)]
pub struct Http2Response {
    pub status: u16,
    pub fields: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: HeaderMap,
}

/// Windows so large that they are never the subject.
const AMPLE: u32 = 1 << 30;

impl Http2 {
    #[track_caller]
    pub fn connect(hopgate: &Hopgate) -> Self {
        Self::connect_to(hopgate.addr(), AMPLE)
    }

    /// A connection on which no stream may be sent more than `window` bytes that it has not read.
    #[track_caller]
    pub fn connect_with_window(hopgate: &Hopgate, window: u32) -> Self {
        Self::connect_to(hopgate.addr(), window)
    }

    #[track_caller]
    pub fn connect_to(addr: SocketAddr, window: u32) -> Self {
        let socket = TcpStream::connect_timeout(&addr, DEADLINE).expect("hopgate listens");
        socket.set_nodelay(true).expect("a TCP socket takes TCP_NODELAY");
        socket.set_nonblocking(true).expect("a socket can be made non-blocking");
        let handle = socket.try_clone().expect("a socket can be cloned").into();
        Self::run(move || tokio::net::TcpStream::from_std(socket), handle, window, format!("http://{addr}"))
    }

    /// Over TLS, with requests for the host of this name.
    #[track_caller]
    pub fn over_tls(connection: TlsConnection, host: &str) -> Self {
        assert_eq!(connection.agreed.alpn.as_deref(), Some("h2"));
        let socket = connection.into_socket();
        socket.set_nonblocking(true).expect("a socket can be made non-blocking");
        let handle = socket.try_clone().expect("a socket can be cloned").into();
        Self::run(move || tokio::net::UnixStream::from_std(socket), handle, AMPLE, format!("https://{host}"))
    }

    #[track_caller]
    fn run<T: AsyncRead + AsyncWrite + Unpin + 'static>(
        socket: impl FnOnce() -> std::io::Result<T> + Send + 'static,
        other: Socket,
        window: u32,
        origin: String,
    ) -> Self {
        let (hand_over, handed_over) = std::sync::mpsc::channel();
        let (end, over) = oneshot::channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.expect("a runtime");
            let (stay, mut left) = mpsc::channel(1);
            let running = Running { handle: runtime.handle().clone(), _stay: stay };
            runtime.block_on(async move {
                let socket = socket().expect("a socket for the runtime");
                let mut builder = Builder::new();
                builder.initial_window_size(window).initial_connection_window_size(AMPLE);
                let (requests, connection) = builder.handshake(socket).await.expect("a handshake");
                hand_over.send((running, requests)).expect("the test waits");
                // A test may have let go of it.
                let _ = end.send(connection.await);
                let None = left.recv().await;
            });
        });
        let (runtime, requests) = handed_over.recv_timeout(DEADLINE).expect("a connection of HTTP/2");
        Self { runtime, requests, over: Some(over), socket: other, origin }
    }

    /// Begins a request; its content follows unless `ends`.
    #[track_caller]
    pub fn begin(&mut self, request: Request<()>, ends: bool) -> Http2Stream {
        self.begin_if_taken(request, ends).expect("a new stream")
    }

    /// Begins a request, if the server takes any.
    #[track_caller]
    pub fn begin_if_taken(&mut self, request: Request<()>, ends: bool) -> Result<Http2Stream, h2::Error> {
        wait(&self.runtime, "room for a stream", std::future::poll_fn(|cx| self.requests.poll_ready(cx)))?;
        let (response, sending) = self.requests.send_request(request, ends)?;
        let (response, read) = (Some(response), Vec::new());
        Ok(Http2Stream { runtime: self.runtime.clone(), response, sending, receiving: None, read })
    }

    /// A request with these fields.
    pub fn request(&self, method: &str, path: &str, fields: &[(&str, &str)]) -> Request<()> {
        let uri = format!("{}{path}", self.origin);
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request")
    }

    /// Asks for `path`, and takes the whole answer.
    #[track_caller]
    pub fn get(&mut self, path: &str) -> Http2Response {
        self.ask("GET", path, &[])
    }

    /// Sends a request without content, and takes the whole answer.
    #[track_caller]
    pub fn ask(&mut self, method: &str, path: &str, fields: &[(&str, &str)]) -> Http2Response {
        let request = self.request(method, path, fields);
        self.begin(request, true).response()
    }

    /// Sends a request with content, and takes the whole answer.
    #[track_caller]
    pub fn post(&mut self, path: &str, body: &[u8]) -> Http2Response {
        let request = self.request("POST", path, &[]);
        let mut stream = self.begin(request, false);
        stream.send(body);
        stream.finish();
        stream.response()
    }

    /// Asks for a WebSocket, as RFC 8441 §5.1 shows it.
    #[track_caller]
    pub fn open_websocket(&mut self, path: &str, fields: &[(&str, &str)]) -> Http2Stream {
        self.extended_connect("websocket", path, fields)
    }

    /// Asks for a tunnel of any protocol.
    #[track_caller]
    pub fn extended_connect(&mut self, protocol: &str, path: &str, fields: &[(&str, &str)]) -> Http2Stream {
        let mut request = self.request("GET", path, fields);
        *request.method_mut() = Method::CONNECT;
        request.headers_mut().insert("sec-websocket-version", "13".parse().expect("a value"));
        request.extensions_mut().insert(Protocol::from(protocol));
        self.begin(request, false)
    }

    /// Whether the server has said that it knows extended CONNECT (RFC 8441 §3).
    #[track_caller]
    pub fn knows_extended_connect(&mut self) -> bool {
        // SETTINGS come before any answer.
        self.ask("TRACE", "/", &[]);
        self.requests.is_extended_connect_protocol_enabled()
    }

    /// Waits until the server has said that it takes no new streams.
    #[track_caller]
    pub fn expect_no_more_streams(&mut self) {
        super::eventually("no stream is taken", || {
            let request = self.request("TRACE", "/", &[]);
            self.begin_if_taken(request, true).is_err_and(|error| error.is_go_away())
        });
    }

    /// How many streams the server allows for.
    pub fn most_streams(&self) -> usize {
        self.requests.current_max_send_streams()
    }

    /// Breaks the connection off, whatever goes on in it.
    #[track_caller]
    pub fn break_off(self) {
        self.socket.shutdown(std::net::Shutdown::Both).expect("a connected socket can be shut down");
    }

    /// Waits for the end of the connection: `None` if it was a good one, else the reason that it gave.
    #[track_caller]
    pub fn end(mut self) -> Option<Reason> {
        let over = self.over.take().expect("it ends once");
        let end = wait(&self.runtime, "the end of the connection", over).expect("a thread runs it");
        end.err().map(|error| error.reason().unwrap_or(Reason::INTERNAL_ERROR))
    }
}

impl Http2Stream {
    /// Sends these bytes, as far as the windows allow for and no faster.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let mut rest = bytes.as_ref();
        while !rest.is_empty() {
            let count = self.send_some(rest, DEADLINE).expect("an open window");
            rest = &rest[count..];
        }
    }

    /// Sends noise until no window opens any more; how many bytes went out.
    #[track_caller]
    pub fn send_until_stalled(&mut self, noise: &mut super::Noise) -> usize {
        let mut sent = 0;
        loop {
            let piece = noise.take(16 << 10);
            let mut rest = &piece[..];
            while !rest.is_empty() {
                let Some(count) = self.send_some(rest, Duration::from_millis(400)) else { return sent };
                sent += count;
                rest = &rest[count..];
            }
            assert!(sent < 256 << 20, "no back-pressure after {sent} bytes");
        }
    }

    #[track_caller]
    fn send_some(&mut self, bytes: &[u8], patience: Duration) -> Option<usize> {
        self.sending.reserve_capacity(bytes.len());
        if self.sending.capacity() == 0 {
            let sending = &mut self.sending;
            let opens = std::future::poll_fn(|cx| sending.poll_capacity(cx));
            let opened = self.runtime.handle.block_on(async { tokio::time::timeout(patience, opens).await });
            opened.ok()?.expect("an open stream").expect("a stream that is whole");
        }
        let count = self.sending.capacity().min(bytes.len());
        self.sending.send_data(Bytes::copy_from_slice(&bytes[..count]), false).expect("it can be sent");
        Some(count)
    }

    /// Ends what is sent.
    #[track_caller]
    pub fn finish(&mut self) {
        self.sending.send_data(Bytes::new(), true).expect("it can be ended");
    }

    /// Ends what is sent, with this trailer.
    #[track_caller]
    pub fn finish_with(&mut self, name: &'static str, value: &str) {
        let mut trailers = HeaderMap::new();
        trailers.insert(name, value.parse().expect("a value"));
        self.sending.send_trailers(trailers).expect("it can be ended");
    }

    /// Gives the stream up.
    pub fn reset(mut self) {
        self.sending.send_reset(Reason::CANCEL);
    }

    /// Waits for a 1xx answer.
    #[track_caller]
    pub fn interim(&mut self) -> u16 {
        let response = self.response.as_mut().expect("no final answer yet");
        let interim = std::future::poll_fn(|cx| response.poll_informational(cx));
        let interim = wait(&self.runtime, "a 1xx answer", interim).expect("an answer").expect("a stream");
        interim.status().as_u16()
    }

    /// Sends these bytes, and waits for the head of the answer that begins with them.
    #[track_caller]
    pub fn head_after(&mut self, bytes: &[u8]) -> Http2Head {
        self.send(bytes);
        self.head()
    }

    /// Waits for the head of the answer.
    #[track_caller]
    pub fn head(&mut self) -> Http2Head {
        self.head_if_any().expect("an answer")
    }

    /// Waits for the head of the answer, or the reason why there is none.
    #[track_caller]
    pub fn head_if_any(&mut self) -> Result<Http2Head, Reason> {
        let response = self.response.take().expect("the head is taken once");
        let response = wait(&self.runtime, "an answer", response);
        let response = response.map_err(|error| error.reason().unwrap_or(Reason::INTERNAL_ERROR))?;
        let (parts, receiving) = response.into_parts();
        self.receiving = Some(receiving);
        Ok(Http2Head { status: parts.status.as_u16(), fields: parts.headers })
    }

    /// Takes the next `count` bytes.
    #[track_caller]
    pub fn read(&mut self, count: usize) -> Vec<u8> {
        while self.read.len() < count {
            assert!(
                self.fill().expect("a whole stream"),
                "expected: {count} bytes\n     got: {:?}",
                self.read
            );
        }
        self.read.drain(..count).collect()
    }

    /// Expects exactly these bytes next.
    #[track_caller]
    pub fn expect(&mut self, bytes: impl AsRef<[u8]>) {
        let (expected, got) = (bytes.as_ref(), self.read(bytes.as_ref().len()));
        assert!(got == expected, "expected: {expected:?}\n     got: {got:?}");
    }

    /// Takes what comes up to the end of the stream: `Err` if that is a reset.
    #[track_caller]
    pub fn read_to_end(&mut self) -> Result<Vec<u8>, Reason> {
        while self.fill()? {}
        Ok(std::mem::take(&mut self.read))
    }

    #[track_caller]
    fn fill(&mut self) -> Result<bool, Reason> {
        let receiving = self.receiving.as_mut().expect("the head came first");
        match wait(&self.runtime, "content", receiving.data()) {
            Some(Ok(data)) => {
                self.read.extend_from_slice(&data);
                receiving.flow_control().release_capacity(data.len()).expect("it was used");
                Ok(true)
            }
            Some(Err(error)) => Err(error.reason().unwrap_or(Reason::INTERNAL_ERROR)),
            None => Ok(false),
        }
    }

    /// Takes the whole answer.
    #[track_caller]
    pub fn response(mut self) -> Http2Response {
        let Http2Head { status, fields } = self.head();
        let body = self.read_to_end().unwrap_or_else(|reason| panic!("{status} was cut off: {reason}"));
        let receiving = self.receiving.as_mut().expect("the head was taken");
        let trailers = wait(&self.runtime, "trailers", receiving.trailers()).expect("a whole stream");
        Http2Response { status, fields, body, trailers: trailers.unwrap_or_default() }
    }
}

impl Http2Head {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(|value| value.to_str().expect("text"))
    }
}

impl Http2Response {
    #[track_caller]
    pub fn expect_status(self, status: u16) -> Self {
        assert_eq!(StatusCode::from_u16(self.status).ok(), StatusCode::from_u16(status).ok(), "{self:?}");
        self
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(|value| value.to_str().expect("text"))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

#[track_caller]
fn wait<T>(runtime: &Running, what: &str, future: impl Future<Output = T>) -> T {
    let waited = runtime.handle.block_on(async { tokio::time::timeout(DEADLINE, future).await });
    waited.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}
