//! Answers the probes of whoever runs the process: is it alive, and is it to be sent clients?
//!
//! On a thread of its own, because what it has to tell is whether the workers still do their work.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use socket2::Socket;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::{Builder, Handle};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{Mutex, oneshot};
use tokio::task::AbortHandle;

use crate::config::{Config, ListenAddress};
use crate::server::listener::{Bound, ListenSocket, SocketFile, bind};
use crate::server::watchdog::silent;
use crate::server::worker::Order;

/// Whether the process is alive: all of its workers answer.
pub const ALIVE: &str = "/healthz";
/// Whether it is to be sent clients: it is alive, and does not stop.
pub const READY: &str = "/readyz";

/// How long a worker may take to answer: the probes of Kubernetes wait for a second unless they are told otherwise,
/// and are to hear who it is that does not.
const ANSWERED_WITHIN: Duration = Duration::from_millis(800);

/// For so long an answer of the workers is good for others who ask, so that many do not wait in turn for a worker
/// that is stuck.
const GOOD_FOR: Duration = Duration::from_millis(100);

/// For a whole connection: one request, and its answer.
const DONE_WITHIN: Duration = Duration::from_secs(5);

/// The most connections at a time. With one more the oldest is closed: whoever says nothing keeps nobody out.
const MOST_CONNECTIONS: usize = 64;

/// Of a request: the smallest that hyper takes.
const LARGEST_HEAD: usize = 8 << 10;

/// For those who have asked before another process took over; nobody there has to wait for long.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// So that a socket that cannot be accepted on makes no busy loop.
const PAUSE: Duration = Duration::from_millis(100);

/// The addresses on which probes are answered; they stay open until this is dropped, in a drain, too.
#[derive(Debug)]
pub struct Health {
    process: Arc<Process>,
    /// Of the thread, as soon as there is an address.
    runtime: Option<Runtime>,
    doors: Vec<Door>,
    /// Whoever accepts or answers holds the other end.
    answering: (Sender<Infallible>, Receiver<Infallible>),
}

/// What is known of the process.
#[derive(Debug)]
struct Process {
    workers: Arc<[UnboundedSender<Order>]>,
    is_stopping: AtomicBool,
    /// Another process is the service: this one's workers end one by one, and that says nothing of it.
    is_replaced: AtomicBool,
    /// The workers that were silent when they were last asked, and when that was.
    silent: Mutex<Option<(Instant, Vec<usize>)>>,
}

#[derive(Debug)]
struct Runtime {
    handle: Handle,
    /// The thread ends with it.
    _until: oneshot::Sender<Infallible>,
}

/// An address that is listened on.
#[derive(Debug)]
struct Door {
    address: ListenAddress,
    accepting: AbortHandle,
    file: Option<SocketFile>,
    /// Of its socket, for a process that takes over.
    copies: Vec<Socket>,
}

impl Drop for Door {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Health {
    /// Answers for these workers on what is bound.
    ///
    /// # Errors
    /// The system has no thread to give, or cannot watch a socket.
    pub fn start(bound: Vec<Bound>, workers: Vec<UnboundedSender<Order>>) -> io::Result<Self> {
        let process = Process {
            workers: workers.into(),
            is_stopping: AtomicBool::new(false),
            is_replaced: AtomicBool::new(false),
            silent: Mutex::default(),
        };
        let mut health =
            Self { process: Arc::new(process), runtime: None, doors: Vec::new(), answering: channel() };
        health.open(bound)?;
        Ok(health)
    }

    /// Binds what a configuration has, and is not listened on yet.
    ///
    /// # Errors
    /// An address is in use or may not be used; the text names it.
    pub fn bind_new(&self, config: &Config) -> io::Result<Vec<Bound>> {
        let is_new = |address: &&ListenAddress| self.doors.iter().all(|door| door.address != **address);
        let new = config.health.iter().filter(is_new);
        let bound: Vec<_> = new.map(|address| bind(address, 1)).collect::<io::Result<_>>()?;
        bound.iter().try_for_each(Bound::listen)?;
        Ok(bound)
    }

    /// Listens on what was bound for a configuration, and no longer on what it does not have.
    ///
    /// # Errors
    /// The system has no thread to give, or cannot watch a socket.
    pub fn reload(&mut self, config: &Config, bound: Vec<Bound>) -> io::Result<()> {
        self.doors.retain(|door| config.health.contains(&door.address));
        self.open(bound)
    }

    /// From now on no more clients are to be sent.
    pub fn stopping(&self) {
        self.process.is_stopping.store(true, Ordering::Relaxed);
    }

    /// The sockets, for a process that takes over, each with its address and the file that is to be removed.
    pub fn sockets(&self) -> impl Iterator<Item = (&ListenAddress, Option<&SocketFile>, &Socket)> {
        self.doors
            .iter()
            .flat_map(|door| door.copies.iter().map(move |copy| (&door.address, door.file.as_ref(), copy)))
    }

    /// Leaves the probes to a process that has taken over: what this one would answer is not true of the service. The
    /// files of what `is_taken` are that one's. Those who have asked here are answered, by the service's word.
    pub fn leave(&mut self, is_taken: impl Fn(&ListenAddress) -> bool) {
        self.process.is_replaced.store(true, Ordering::Relaxed);
        for mut door in self.doors.drain(..) {
            if is_taken(&door.address)
                && let Some(file) = door.file.take()
            {
                file.leave();
            }
        }
    }

    /// Waits until those who have asked before [`Health::leave`] are answered, for a moment at most.
    pub fn finish(&mut self) {
        // In place of this one's own end.
        self.answering.0 = channel().0;
        // Nobody sends: it ends with the last one of them.
        let _ = self.answering.1.recv_timeout(LAST_ANSWERS);
    }

    fn open(&mut self, bound: Vec<Bound>) -> io::Result<()> {
        for Bound { address, file, sockets, copies, .. } in bound {
            let runtime = match &mut self.runtime {
                Some(runtime) => runtime,
                none => none.insert(Runtime::start()?),
            };
            // One for each of the workers, of which there is one here.
            for socket in sockets {
                let _inside = runtime.handle.enter();
                let accepting = Listening::new(socket, &address)?
                    .accept(Arc::clone(&self.process), self.answering.0.clone());
                let accepting = runtime.handle.spawn(accepting).abort_handle();
                self.doors.push(Door { address: address.clone(), accepting, file: None, copies: Vec::new() });
            }
            if let Some(door) = self.doors.last_mut() {
                (door.file, door.copies) = (file, copies);
            }
        }
        Ok(())
    }
}

impl Runtime {
    fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(1).build()?;
        let handle = runtime.handle().clone();
        let (until, ended) = oneshot::channel::<Infallible>();
        std::thread::Builder::new().name("health".into()).spawn(move || {
            // It is never told anything: the other end is dropped.
            let _ = runtime.block_on(ended);
            runtime.shutdown_background();
        })?;
        Ok(Self { handle, _until: until })
    }
}

enum Listening {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listening {
    fn new(socket: ListenSocket, address: &ListenAddress) -> io::Result<Self> {
        let socket = socket.into_socket();
        Ok(match address {
            ListenAddress::Unix(_) => Self::Unix(UnixListener::from_std(socket.into())?),
            // Names are refused by the check.
            ListenAddress::Tcp(_) | ListenAddress::Named(_) => {
                Self::Tcp(TcpListener::from_std(socket.into())?)
            }
        })
    }

    async fn accept(self, process: Arc<Process>, answering: Sender<Infallible>) {
        let mut open = VecDeque::new();
        loop {
            let (process, answering) = (Arc::clone(&process), answering.clone());
            let accepted = match &self {
                Self::Tcp(listener) => {
                    listener.accept().await.map(|(stream, _)| tokio::spawn(serve(stream, process, answering)))
                }
                Self::Unix(listener) => {
                    listener.accept().await.map(|(stream, _)| tokio::spawn(serve(stream, process, answering)))
                }
            };
            let Ok(task) = accepted else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            open.retain(|task: &AbortHandle| !task.is_finished());
            open.push_back(task.abort_handle());
            if open.len() > MOST_CONNECTIONS
                && let Some(oldest) = open.pop_front()
            {
                oldest.abort();
            }
        }
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    process: Arc<Process>,
    _answering: Sender<Infallible>,
) {
    let answering = service_fn(|request| {
        let process = Arc::clone(&process);
        async move { Ok::<_, Infallible>(process.answer(&request).await) }
    });
    let connection = http1::Builder::new()
        .keep_alive(false)
        // The time of the whole connection is shorter.
        .header_read_timeout(None)
        .max_buf_size(LARGEST_HEAD)
        .serve_connection(TokioIo::new(stream), answering);
    // Whoever is too slow, or does not speak HTTP, has no answer to wait for; neither has the log.
    let _ = tokio::time::timeout(DONE_WITHIN, connection).await;
}

impl Process {
    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        let (status, text) = match (request.method(), path) {
            (&Method::GET | &Method::HEAD, READY) if self.is_stopping() => {
                (StatusCode::SERVICE_UNAVAILABLE, "stopping".to_owned())
            }
            (&Method::GET | &Method::HEAD, ALIVE | READY) => match &*self.silent().await {
                [] => (StatusCode::OK, "ok".to_owned()),
                [one] => (StatusCode::SERVICE_UNAVAILABLE, format!("worker {one} does not answer")),
                several => (StatusCode::SERVICE_UNAVAILABLE, format!("workers {several:?} do not answer")),
            },
            (_, ALIVE | READY) => (StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD".to_owned()),
            _ => (StatusCode::NOT_FOUND, format!("only {ALIVE} and {READY}")),
        };
        let mut response = Response::new(Full::from(format!("{text}\n")));
        *response.status_mut() = status;
        let fields = response.headers_mut();
        fields.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if status == StatusCode::METHOD_NOT_ALLOWED {
            fields.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        response
    }

    fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Relaxed)
    }

    fn is_replaced(&self) -> bool {
        self.is_replaced.load(Ordering::Relaxed)
    }

    /// The workers that do not answer.
    async fn silent(&self) -> Vec<usize> {
        let mut last = self.silent.lock().await;
        if let Some((when, workers)) = &*last
            && when.elapsed() < GOOD_FOR
        {
            return workers.clone();
        }
        let workers = Arc::clone(&self.workers);
        let asking = tokio::task::spawn_blocking(move || silent(&workers, ANSWERED_WITHIN, false));
        // It has been told by then why nobody could be asked.
        let mut silent = asking.await.unwrap_or_else(|_| (0..self.workers.len()).collect());
        // Asked now: they may have been told to end meanwhile.
        if self.is_stopping() || self.is_replaced() {
            silent.retain(|&worker| !self.workers[worker].is_closed());
        }
        let was_well = last.as_ref().is_none_or(|(_, workers)| workers.is_empty());
        if was_well && !silent.is_empty() {
            tracing::error!(workers = ?silent, "workers do not answer: health checks fail");
        }
        *last = Some((Instant::now(), silent.clone()));
        silent
    }
}
