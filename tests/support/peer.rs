//! One end of a connection with hopgate, as client or as upstream, that says and expects exactly what a test writes.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use socket2::Socket;

use super::head::field_of;
use super::{DEADLINE, Head, Hopgate, Noise, Response};

/// One end of a connection.
pub struct Peer {
    /// Who this is, for the messages.
    name: &'static str,
    socket: Socket,
    /// Read and not yet taken.
    pending: Vec<u8>,
}

/// How the other side ended its direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Fin,
    Reset,
}

enum Input {
    Bytes,
    End(Ending),
    Deadline,
}

// Saying.
impl Peer {
    pub fn new(name: &'static str, socket: impl Into<Socket>) -> Self {
        let socket = socket.into();
        socket.set_nonblocking(false).expect("a socket can be made blocking");
        socket.set_write_timeout(Some(DEADLINE)).expect("a socket takes a timeout");
        Self { name, socket, pending: Vec::new() }
    }

    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let sent = (&self.socket).write_all(bytes.as_ref());
        sent.unwrap_or_else(|error| panic!("{} could not send: {error}", self.name));
    }

    /// Sends what the other side may have stopped listening to already.
    pub fn send_if_open(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        (&self.socket).write_all(bytes.as_ref()).is_ok()
    }

    /// Answers a request with 200 and this body.
    #[track_caller]
    pub fn respond(&mut self, body: &str) {
        self.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    }

    /// Answers a request with 200 and this body, and promises to close.
    #[track_caller]
    pub fn respond_and_close(mut self, body: &str) {
        let length = body.len();
        self.send(format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"));
    }

    /// Sends noise until the other side has taken nothing more of it for a while. Returns how many bytes went out.
    #[track_caller]
    pub fn send_until_stalled(&mut self, noise: &mut Noise) -> usize {
        const LIMIT: usize = 256 << 20;
        // Longer than TCP needs to open a small window again.
        self.socket.set_write_timeout(Some(Duration::from_millis(400))).expect("a socket takes a timeout");
        let mut sent = 0;
        let mut piece = Vec::new();
        loop {
            if piece.is_empty() {
                piece = noise.take(64 << 10);
            }
            match (&self.socket).write(&piece) {
                Ok(n) => {
                    sent += n;
                    piece.drain(..n);
                }
                Err(error) if is_timeout(&error) => break,
                Err(error) => panic!("{} could not send: {error}", self.name),
            }
            assert!(sent < LIMIT, "{}: no back-pressure after {sent} bytes", self.name);
        }
        self.socket.set_write_timeout(Some(DEADLINE)).expect("a socket takes a timeout");
        sent
    }

    /// Sends noise until the other side has closed the connection.
    #[track_caller]
    pub fn send_until_refused(&mut self) {
        let mut noise = Noise::seeded(1);
        for _ in 0..10_000 {
            if !self.send_if_open(noise.take(64 << 10)) {
                return;
            }
        }
        panic!("{}: everything was taken", self.name);
    }

    /// A second handle on the same connection, so that one thread can write while another reads.
    pub fn another(&self) -> Self {
        let socket = self.socket.try_clone().expect("a socket can be cloned");
        Self { name: self.name, socket, pending: Vec::new() }
    }

    /// The socket itself.
    pub fn into_socket(self) -> Socket {
        self.socket
    }

    /// Sends FIN and goes on reading.
    pub fn finish(&mut self) {
        self.socket.shutdown(Shutdown::Write).expect("a connected socket can be shut down");
    }

    /// Ends the connection with RST.
    pub fn reset(self) {
        self.socket.set_linger(Some(Duration::ZERO)).expect("a socket takes SO_LINGER");
    }

    /// Ends the connection; with FIN, as long as everything received was also read.
    pub fn close(self) {}

    /// Makes the kernel hold little for this end, so that back-pressure is felt soon.
    pub fn with_small_buffers(self) -> Self {
        self.socket.set_recv_buffer_size(16 << 10).expect("a socket takes SO_RCVBUF");
        self.socket.set_send_buffer_size(16 << 10).expect("a socket takes SO_SNDBUF");
        self
    }
}

// Expecting.
impl Peer {
    /// Takes the next `n` bytes.
    #[track_caller]
    pub fn read(&mut self, n: usize) -> Vec<u8> {
        let deadline = Instant::now() + DEADLINE;
        while self.pending.len() < n {
            self.must_read(deadline, &format!("{n} bytes"));
        }
        self.pending.drain(..n).collect()
    }

    /// Expects exactly these bytes next.
    #[track_caller]
    pub fn expect(&mut self, bytes: impl AsRef<[u8]>) {
        let expected = bytes.as_ref();
        let got = self.read(expected.len());
        assert!(got == expected, "{}:\nexpected: {}\n     got: {}", self.name, show(expected), show(&got));
    }

    /// Takes the next message head.
    #[track_caller]
    pub fn head(&mut self) -> Head {
        let raw = self.read_until(b"\r\n\r\n", "a message head");
        Head::parse(raw)
    }

    /// Takes the next message head; `None` if the connection ends before there is a whole one.
    #[track_caller]
    pub fn head_if_any(&mut self) -> Option<Head> {
        let deadline = Instant::now() + DEADLINE;
        while !self.pending.windows(4).any(|window| window == b"\r\n\r\n") {
            match self.fill(deadline) {
                Input::Bytes => {}
                Input::End(_) => return None,
                Input::Deadline => panic!("{}:\nexpected: a head or the end\n     got: silence", self.name),
            }
        }
        Some(self.head())
    }

    /// Expects a head with this first line and, among others, these fields.
    #[track_caller]
    pub fn expect_head(&mut self, start: &str, fields: &[&str]) -> Head {
        let head = self.head();
        assert!(head.start == start, "{}:\nexpected: {start}\n     got: {}", self.name, head.start);
        head.expect(fields);
        head
    }

    /// Takes exactly these bytes if the connection brings them; `false` if it ends instead.
    #[track_caller]
    pub fn take_if_any(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        let expected = bytes.as_ref();
        let deadline = Instant::now() + DEADLINE;
        while self.pending.len() < expected.len() {
            if !matches!(self.fill(deadline), Input::Bytes) {
                return false;
            }
        }
        self.expect(expected);
        true
    }

    /// Takes a whole response to any request but HEAD.
    #[track_caller]
    pub fn response(&mut self) -> Response {
        let head = self.head();
        self.response_behind(head)
    }

    /// Takes a whole response; `None` if the connection ends before there is a head.
    #[track_caller]
    pub fn response_if_any(&mut self) -> Option<Response> {
        let head = self.head_if_any()?;
        Some(self.response_behind(head))
    }

    #[track_caller]
    fn response_behind(&mut self, head: Head) -> Response {
        let status = head.status();
        let mut trailers = Vec::new();
        let body = match (status, head.field("Transfer-Encoding"), head.field("Content-Length")) {
            (100..=199 | 204 | 304, ..) => Vec::new(),
            (_, Some(coding), length) => {
                assert_eq!((coding, length), ("chunked", None), "framing of\n{head}");
                let (body, fields) = self.chunked_body();
                trailers = fields;
                body
            }
            (_, None, Some(length)) => self.read(length.parse().expect("a Content-Length is a number")),
            (_, None, None) => {
                let (body, ending) = self.read_to_end();
                assert_eq!(ending, Ending::Fin, "end of a body of\n{head}");
                body
            }
        };
        Response { status, head, body, trailers }
    }

    /// Takes a whole response and expects this status.
    #[track_caller]
    pub fn expect_status(&mut self, status: u16) -> Response {
        let response = self.response();
        assert!(
            response.status == status,
            "{}:\nexpected: {status}\n     got: {}{}",
            self.name,
            response.head,
            response.text()
        );
        response
    }

    /// Takes a chunked body and its trailers.
    #[track_caller]
    pub fn chunked_body(&mut self) -> (Vec<u8>, Vec<(String, String)>) {
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk() {
            body.extend(chunk);
        }
        let mut trailers = Vec::new();
        loop {
            let line = self.line();
            if line.is_empty() {
                return (body, trailers);
            }
            trailers.push(field_of(&line));
        }
    }

    /// Takes the next chunk; `None` for the last one.
    #[track_caller]
    pub fn chunk(&mut self) -> Option<Vec<u8>> {
        let line = self.line();
        let size = usize::from_str_radix(&line, 16).unwrap_or_else(|_| panic!("not a chunk size: {line:?}"));
        if size == 0 {
            return None;
        }
        let data = self.read(size);
        self.expect("\r\n");
        Some(data)
    }

    /// Expects these bytes as content of one or more chunks.
    #[track_caller]
    pub fn expect_chunked(&mut self, bytes: impl AsRef<[u8]>) {
        let expected = bytes.as_ref();
        let mut got = Vec::new();
        while got.len() < expected.len() {
            got.extend(self.chunk().expect("a chunk before the last one"));
        }
        assert!(got == expected, "{}:\nexpected: {}\n     got: {}", self.name, show(expected), show(&got));
    }

    /// Expects FIN and no byte before it.
    #[track_caller]
    pub fn expect_eof(&mut self) {
        self.expect_ending(&[Ending::Fin]);
    }

    /// Expects RST and no byte before it.
    #[track_caller]
    pub fn expect_reset(&mut self) {
        self.expect_ending(&[Ending::Reset]);
    }

    /// Expects the end of the connection, by FIN or RST, and no byte before it.
    #[track_caller]
    pub fn expect_closed(&mut self) {
        self.expect_ending(&[Ending::Fin, Ending::Reset]);
    }

    #[track_caller]
    fn expect_ending(&mut self, endings: &[Ending]) {
        let (rest, ending) = self.read_to_end();
        assert!(rest.is_empty(), "{}:\nexpected: {endings:?}\n     got: {}", self.name, show(&rest));
        assert!(endings.contains(&ending), "{}:\nexpected: {endings:?}\n     got: {ending:?}", self.name);
    }

    /// Takes everything up to the end of the connection.
    #[track_caller]
    pub fn read_to_end(&mut self) -> (Vec<u8>, Ending) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            match self.fill(deadline) {
                Input::Bytes => {}
                Input::End(ending) => return (std::mem::take(&mut self.pending), ending),
                Input::Deadline => {
                    panic!("{}:\nexpected: the end\n     got: {} and silence", self.name, show(&self.pending))
                }
            }
        }
    }

    /// Asserts that nothing has come by now. `hopgate` first goes round its loop, so that whatever it meant to pass on,
    /// it has passed on.
    #[track_caller]
    pub fn expect_nothing_yet(&mut self, hopgate: &Hopgate) {
        hopgate.settle();
        self.socket.set_nonblocking(true).expect("a socket can be made non-blocking");
        let mut buffer = [0; 4096];
        let read = (&self.socket).read(&mut buffer);
        self.socket.set_nonblocking(false).expect("a socket can be made blocking");
        match read {
            Err(error) if error.kind() == ErrorKind::WouldBlock && self.pending.is_empty() => {}
            Ok(n) if n > 0 => panic!("{}:\nexpected: nothing\n     got: {}", self.name, show(&buffer[..n])),
            other => panic!("{}:\nexpected: nothing\n     got: {other:?} {}", self.name, show(&self.pending)),
        }
    }

    /// Whether a byte or the end comes within this time; for clients that are slow on purpose.
    pub fn hears_within(&mut self, time: Duration) -> bool {
        !self.pending.is_empty() || !matches!(self.fill(Instant::now() + time), Input::Deadline)
    }

    #[track_caller]
    fn line(&mut self) -> String {
        let mut line = self.read_until(b"\r\n", "a line");
        line.truncate(line.len() - 2);
        String::from_utf8(line).expect("a line of ASCII")
    }

    #[track_caller]
    fn read_until(&mut self, mark: &[u8], what: &str) -> Vec<u8> {
        let deadline = Instant::now() + DEADLINE;
        let mut searched = 0;
        loop {
            if let Some(at) = self.pending[searched..].windows(mark.len()).position(|window| window == mark) {
                return self.pending.drain(..searched + at + mark.len()).collect();
            }
            searched = self.pending.len().saturating_sub(mark.len());
            self.must_read(deadline, what);
        }
    }

    #[track_caller]
    fn must_read(&mut self, deadline: Instant, what: &str) {
        let end = match self.fill(deadline) {
            Input::Bytes => return,
            Input::End(ending) => format!("{ending:?}"),
            Input::Deadline => "silence".to_owned(),
        };
        panic!("{}:\nexpected: {what}\n     got: {} and {end}", self.name, show(&self.pending));
    }

    fn fill(&mut self, deadline: Instant) -> Input {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        self.socket.set_read_timeout(Some(left)).expect("a socket takes a timeout");
        let mut buffer = [0; 65536];
        match (&self.socket).read(&mut buffer) {
            Ok(0) => Input::End(Ending::Fin),
            Ok(n) => {
                self.pending.extend_from_slice(&buffer[..n]);
                Input::Bytes
            }
            Err(error) if is_timeout(&error) => Input::Deadline,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Input::End(Ending::Reset),
            Err(error) => panic!("{} could not read: {error}", self.name),
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

fn show(bytes: &[u8]) -> String {
    const MOST: usize = 2000;
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(MOST)]);
    let more = if bytes.len() > MOST { format!(" … ({} bytes)", bytes.len()) } else { String::new() };
    format!("{shown:?}{more}")
}
