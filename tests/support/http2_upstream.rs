//! An upstream in HTTP/2 that a test plays by hand, stream by stream; the `h2` crate does the frames.

use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use h2::server::{self, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, WeakUnboundedSender, unbounded_channel};

use super::DEADLINE;

/// What its connections are like.
#[derive(Clone, Copy, Default)]
pub struct Http2Settings {
    /// `SETTINGS_MAX_CONCURRENT_STREAMS`.
    pub max_streams: Option<u32>,
    /// `SETTINGS_ENABLE_CONNECT_PROTOCOL`.
    pub connect: bool,
    /// `SETTINGS_INITIAL_WINDOW_SIZE`.
    pub window: Option<u32>,
}

/// A listening upstream; what comes in is taken with [`Http2Upstream::accept`].
pub struct Http2Upstream {
    addr: String,
    connections: Receiver<Http2Connection>,
}

/// A connection of hopgate's.
pub struct Http2Connection {
    requests: Receiver<Asked>,
    orders: UnboundedSender<Order>,
    ended: Receiver<()>,
}

enum Order {
    /// GOAWAY: no further streams.
    Leave,
    /// GOAWAY with this reason, and the end.
    Break(Reason),
    /// The end, without a word.
    Cut,
}

/// A request, and the place for its answer.
pub struct Asked {
    pub head: Request<()>,
    body: RecvStream,
    respond: SendResponse<Bytes>,
    runtime: Runtime,
    connection: UnboundedSender<Order>,
}

/// An answer that has begun.
pub struct Answering {
    body: RecvStream,
    stream: SendStream<Bytes>,
    runtime: Runtime,
    /// Which goes on for as long as there is one of these.
    _connection: UnboundedSender<Order>,
}

impl Http2Upstream {
    pub fn listen() -> Self {
        Self::with(Http2Settings::default())
    }

    pub fn with(settings: Http2Settings) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port to listen on");
        let addr = listener.local_addr().expect("a listener has an address").to_string();
        let (sender, connections) = mpsc::channel();
        thread::spawn(move || {
            runtime().block_on(async move {
                listener.set_nonblocking(true).expect("a socket can be made non-blocking");
                let listener =
                    tokio::net::TcpListener::from_std(listener).expect("a listener can be watched");
                while let Ok((stream, _)) = listener.accept().await {
                    let (requests, orders, ended) = (mpsc::channel(), unbounded_channel(), mpsc::channel());
                    tokio::spawn(serve(
                        stream,
                        settings,
                        requests.0,
                        (orders.0.downgrade(), orders.1),
                        ended.0,
                    ));
                    let connection =
                        Http2Connection { requests: requests.1, orders: orders.0, ended: ended.1 };
                    if sender.send(connection).is_err() {
                        return;
                    }
                }
            });
        });
        Self { addr, connections }
    }

    /// `HOST:PORT`, as `proxy_pass` wants it behind `http://`.
    pub fn addr(&self) -> &str {
        &self.addr
    }

    pub fn socket_addr(&self) -> SocketAddr {
        self.addr.parse().expect("an address")
    }

    /// Takes the next connection of hopgate's.
    #[track_caller]
    pub fn accept(&self) -> Http2Connection {
        self.connections.recv_timeout(DEADLINE).expect("upstream: no connection")
    }

    /// Takes the next connection if there is one.
    pub fn accept_if_any(&self) -> Option<Http2Connection> {
        self.connections.try_recv().ok()
    }
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

async fn serve(
    stream: tokio::net::TcpStream,
    settings: Http2Settings,
    requests: Sender<Asked>,
    (handle, mut orders): (WeakUnboundedSender<Order>, UnboundedReceiver<Order>),
    ended: Sender<()>,
) {
    let mut builder = server::Builder::new();
    if let Some(most) = settings.max_streams {
        builder.max_concurrent_streams(most);
    }
    if let Some(window) = settings.window {
        builder.initial_window_size(window);
    }
    if settings.connect {
        builder.enable_connect_protocol();
    }
    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else { return };
    let mut is_held = true;
    loop {
        tokio::select! {
            accepted = connection.accept() => {
                let Some(Ok((request, respond))) = accepted else { break };
                let Some(connection) = handle.upgrade() else { continue };
                let (parts, body) = request.into_parts();
                let head = Request::from_parts(parts, ());
                if requests.send(Asked { head, body, respond, runtime: runtime(), connection }).is_err() {
                    // The test has no use for the connection any more.
                    break;
                }
            }
            order = orders.recv(), if is_held => match order {
                Some(Order::Leave) => connection.graceful_shutdown(),
                Some(Order::Break(reason)) => connection.abrupt_shutdown(reason),
                Some(Order::Cut) => break,
                // The test has let go of it; what it has said still goes out.
                None => {
                    is_held = false;
                    connection.graceful_shutdown();
                }
            }
        }
    }
    // The test waits for this one, if it waits.
    let _ = ended.send(());
}

impl Http2Connection {
    /// Takes the next request.
    #[track_caller]
    pub fn request(&self) -> Asked {
        self.requests.recv_timeout(DEADLINE).expect("upstream: no request on this connection")
    }

    /// Takes the next request if there is one by now.
    pub fn request_if_any(&self) -> Option<Asked> {
        self.requests.try_recv().ok()
    }

    /// Says with a GOAWAY that it takes no further streams.
    pub fn leave(&self) {
        self.orders.send(Order::Leave).expect("the connection is there");
    }

    /// Ends the connection with a GOAWAY.
    pub fn break_off(&self, reason: Reason) {
        self.orders.send(Order::Break(reason)).expect("the connection is there");
    }

    /// Ends the connection without a word.
    pub fn cut(&self) {
        self.orders.send(Order::Cut).expect("the connection is there");
    }

    /// Waits until hopgate has ended the connection.
    #[track_caller]
    pub fn expect_end(&self) {
        match self.ended.recv_timeout(DEADLINE) {
            Ok(()) | Err(RecvTimeoutError::Disconnected) => {}
            Err(RecvTimeoutError::Timeout) => {
                panic!("upstream:\nexpected: the end of the connection\n     got: silence")
            }
        }
    }
}

impl Asked {
    /// Asserts what is asked for.
    #[track_caller]
    pub fn expect(self, method: &str, path: &str) -> Self {
        let got = (self.head.method().as_str(), self.head.uri().path_and_query().map(|path| path.as_str()));
        assert_eq!(got, (method, Some(path)));
        self
    }

    /// The value of a field.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.headers().get(name).map(|value| value.to_str().expect("a value of ASCII"))
    }

    /// Takes the next bytes of the content; `None` at its end.
    #[track_caller]
    pub fn chunk(&mut self) -> Option<Bytes> {
        chunk(&self.runtime, &mut self.body).expect("the request goes on")
    }

    /// Takes all of the content.
    #[track_caller]
    pub fn body(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(chunk) = self.chunk() {
            all.extend(chunk);
        }
        all
    }

    /// Takes the trailers, behind the content.
    #[track_caller]
    pub fn trailers(&mut self) -> Option<HeaderMap> {
        self.runtime.block_on(soon(self.body.trailers())).expect("the request ends well")
    }

    /// Waits for hopgate to reset the stream.
    #[track_caller]
    pub fn expect_reset(&mut self, reason: Reason) {
        let reset = self.runtime.block_on(soon(std::future::poll_fn(|cx| self.respond.poll_reset(cx))));
        assert_eq!(reset.expect("the connection goes on"), reason);
    }

    /// Sends a 1xx.
    #[track_caller]
    pub fn inform(&mut self, status: u16, fields: &[(&str, &str)]) {
        self.respond.send_informational(response(status, fields)).expect("the stream is open");
    }

    /// Sends a head, behind which more comes.
    #[track_caller]
    pub fn answer(mut self, status: u16, fields: &[(&str, &str)]) -> Answering {
        let sent = self.respond.send_response(response(status, fields), false);
        let stream = sent.expect("the stream is open");
        Answering { stream, body: self.body, runtime: self.runtime, _connection: self.connection }
    }

    /// Sends a head that is the whole answer.
    #[track_caller]
    pub fn answer_whole(&mut self, status: u16, fields: &[(&str, &str)]) {
        self.respond.send_response(response(status, fields), true).expect("the stream is open");
    }

    /// Answers with 200 and this content.
    #[track_caller]
    pub fn respond(self, content: &str) {
        let length = content.len().to_string();
        let mut answering = self.answer(200, &[("content-length", &length)]);
        answering.send_last(content);
    }

    /// Resets the stream instead of answering.
    pub fn reset(mut self, reason: Reason) {
        self.respond.send_reset(reason);
    }
}

impl Answering {
    #[track_caller]
    pub fn send(&mut self, content: impl AsRef<[u8]>) {
        self.stream.send_data(Bytes::copy_from_slice(content.as_ref()), false).expect("the stream is open");
    }

    #[track_caller]
    pub fn send_last(&mut self, content: impl AsRef<[u8]>) {
        self.stream.send_data(Bytes::copy_from_slice(content.as_ref()), true).expect("the stream is open");
    }

    #[track_caller]
    pub fn trailers(&mut self, fields: &[(&str, &str)]) {
        let trailers = response(200, fields).headers().clone();
        self.stream.send_trailers(trailers).expect("the stream is open");
    }

    pub fn reset(mut self, reason: Reason) {
        self.stream.send_reset(reason);
    }

    /// How many bytes hopgate takes before it must have passed some of them on: sends so many, and waits for no more
    /// room for a while.
    #[track_caller]
    pub fn send_until_stalled(&mut self) -> usize {
        let Self { stream, runtime, .. } = self;
        let mut sent = 0;
        runtime.block_on(async {
            loop {
                stream.reserve_capacity(64 << 10);
                if stream.capacity() == 0 {
                    let room = std::future::poll_fn(|cx| stream.poll_capacity(cx));
                    // Longer than hopgate needs to give room, if it does.
                    let Ok(room) = tokio::time::timeout(Duration::from_millis(400), room).await else {
                        return sent;
                    };
                    room.expect("the stream is open").expect("the stream goes on");
                }
                let room = stream.capacity();
                stream.send_data(Bytes::from(vec![b'x'; room]), false).expect("the stream is open");
                sent += room;
                assert!(sent < 256 << 20, "no back-pressure after {sent} bytes");
            }
        })
    }

    /// Takes the next bytes of the request's content; `None` at its end.
    #[track_caller]
    pub fn chunk(&mut self) -> Option<Bytes> {
        chunk(&self.runtime, &mut self.body).expect("the request goes on")
    }

    /// Takes this much of the request's content.
    #[track_caller]
    pub fn expect(&mut self, content: impl AsRef<[u8]>) {
        let mut got = Vec::new();
        while got.len() < content.as_ref().len() {
            got.extend(self.chunk().unwrap_or_else(|| panic!("the end of the content behind {got:?}")));
        }
        assert_eq!(String::from_utf8_lossy(&got), String::from_utf8_lossy(content.as_ref()));
    }

    /// Waits for hopgate to reset the stream.
    #[track_caller]
    pub fn expect_reset(&mut self, reason: Reason) {
        let reset = self.runtime.block_on(soon(std::future::poll_fn(|cx| self.stream.poll_reset(cx))));
        assert_eq!(reset.expect("the connection goes on"), reason);
    }
}

fn response(status: u16, fields: &[(&str, &str)]) -> Response<()> {
    let response = fields
        .iter()
        .fold(Response::builder().status(status), |response, (name, value)| response.header(*name, *value));
    response.body(()).expect("a head")
}

/// The next bytes that are any: END_STREAM often has a frame without one.
fn chunk(runtime: &Runtime, body: &mut RecvStream) -> Result<Option<Bytes>, h2::Error> {
    loop {
        let chunk = runtime.block_on(soon(body.data())).transpose()?;
        if let Some(chunk) = &chunk {
            // It fails for a stream that is gone.
            let _ = body.flow_control().release_capacity(chunk.len());
        }
        if chunk.as_ref().is_none_or(|chunk| !chunk.is_empty()) {
            return Ok(chunk);
        }
    }
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, what).await.expect("it never came")
}
