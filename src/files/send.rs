//! Sends a head and the parts of a file behind it to a client, with back-pressure.

use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Instant;

use super::FileError;
use super::answer::{FileBody, Piece};
use crate::client::Client;
use crate::error::ProxyError;
use crate::http1::gzip::Gzip;
use crate::http1::pump::{push_chunk, push_last_chunk};
use crate::io::{Pending, Stream, yield_turn};
use crate::server::tasks::Phase;
use crate::shared::Local;

/// Sends a head and what stands behind it; with `gzip` compressed, and in chunks unless the stream tells the end. `sent` is how many bytes went out, also if not all did.
///
/// # Errors
/// The client is gone or took nothing for `timeout`, the file got shorter, or hopgate is ending. Unless
/// `sent` is 0, a part of the answer is out: the client must be shown that it is not the whole.
pub async fn send(
    local: &Rc<Local>,
    client: &mut Client,
    head: &[u8],
    body: FileBody,
    gzip: Option<Gzip>,
    timeout: Duration,
    sent: &mut u64,
) -> Result<(), ProxyError> {
    let mut sending = Sending::new(head, body, gzip, client.peer.stream.is_http2());
    let mut last = Instant::now();
    let result = poll_fn(|cx| {
        if client.task.phase(cx) == Phase::Killed {
            return Poll::Ready(Err(ProxyError::Stopping));
        }
        let before = sending.sent;
        let mut buffers = local.buffers.borrow_mut();
        match sending.poll(cx, &mut client.peer.stream, &mut buffers.input) {
            Poll::Ready(result) => return Poll::Ready(result),
            Poll::Pending if sending.sent > before => last = Instant::now(),
            Poll::Pending => {}
        }
        client.timer.poll(cx, last + timeout).map(|()| Err(ProxyError::ClientTimeout))
    })
    .await;
    *sent = sending.sent;
    result
}

/// How much is put together for one write: parts up to this size take no call of their own.
const TOGETHER: usize = 32 * 1024;

/// How much the system is asked to send at a time: what is not in its cache yet takes the worker's time.
const AT_ONCE: u64 = 256 * 1024;

/// How often there is a write before the others have their turn.
const TURNS: usize = 8;

/// An answer on its way.
struct Sending {
    /// The head, and whatever else has been read already.
    pending: Pending,
    body: FileBody,
    /// Whether the system cannot send from such a file by itself.
    is_copied: bool,
    gzip: Option<Gzip>,
    /// Whether the end of a body is told by its stream, instead of by chunks.
    is_http2: bool,
    sent: u64,
}

impl Sending {
    fn new(head: &[u8], body: FileBody, gzip: Option<Gzip>, is_http2: bool) -> Self {
        let mut pending = Pending::default();
        pending.push(head);
        Self { pending, body, is_copied: gzip.is_some(), gzip, is_http2, sent: 0 }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut Stream,
        buffer: &mut [u8],
    ) -> Poll<Result<(), ProxyError>> {
        for _ in 0..TURNS {
            self.gather(buffer)?;
            if !self.pending.is_empty() {
                ready!(self.flush(cx, to))?;
            }
            match self.body.pieces.pop_front() {
                None => {
                    to.finish(b"");
                    return Poll::Ready(Ok(()));
                }
                Some(Piece::Part(part)) if !self.is_copied && is_large(&part) => {
                    let sent = self.send_part(cx, to, &part);
                    let left = part.start + if let Poll::Ready(Ok(count)) = sent { count } else { 0 };
                    if left < part.end {
                        self.body.pieces.push_front(Piece::Part(left..part.end));
                    }
                    ready!(sent)?;
                }
                Some(piece) => self.body.pieces.push_front(piece),
            }
        }
        yield_turn(cx);
        Poll::Pending
    }

    fn flush(&mut self, cx: &mut Context<'_>, to: &mut Stream) -> Poll<Result<(), ProxyError>> {
        let before = self.pending.len();
        let flushed = self.pending.poll_flush(cx, to);
        self.sent += (before - self.pending.len()) as u64;
        flushed.map_err(|error| ProxyError::ClientGone(Some(error)))
    }

    /// Reads what is small, so that it goes out in one piece with what stands before it.
    fn gather(&mut self, buffer: &mut [u8]) -> Result<(), ProxyError> {
        while self.pending.len() < TOGETHER
            && let Some(piece) = self.body.pieces.pop_front()
        {
            match piece {
                Piece::Bytes(bytes) => self.add(&bytes)?,
                Piece::Part(part) if is_large(&part) && !self.is_copied => {
                    self.body.pieces.push_front(Piece::Part(part));
                    break;
                }
                Piece::Part(part) => {
                    let count = buffer.len().min((part.end - part.start) as usize);
                    self.body.file.read_exact_at(&mut buffer[..count], part.start).map_err(cut)?;
                    self.add(&buffer[..count])?;
                    let left = part.start + count as u64..part.end;
                    if !left.is_empty() {
                        self.body.pieces.push_front(Piece::Part(left));
                    }
                }
            }
            if self.gzip.is_some() {
                // What is read takes time, however little comes of it.
                break;
            }
        }
        self.end()
    }

    /// Puts content behind what waits.
    fn add(&mut self, content: &[u8]) -> Result<(), ProxyError> {
        let Some(gzip) = &mut self.gzip else {
            self.pending.push(content);
            return Ok(());
        };
        let (mut compressed, mut chunk) = (Vec::new(), Vec::new());
        gzip.push(content, &mut compressed).map_err(cut)?;
        match self.is_http2 {
            true => chunk = compressed,
            false => push_chunk(&mut chunk, &compressed),
        }
        self.pending.push(&chunk);
        Ok(())
    }

    /// Behind the last piece a compressed body is brought to its end.
    fn end(&mut self) -> Result<(), ProxyError> {
        if self.body.pieces.is_empty()
            && let Some(mut gzip) = self.gzip.take()
        {
            let (mut compressed, mut chunks) = (Vec::new(), Vec::new());
            gzip.finish(&mut compressed).map_err(cut)?;
            match self.is_http2 {
                true => chunks = compressed,
                false => {
                    push_chunk(&mut chunks, &compressed);
                    push_last_chunk(&mut chunks, b"");
                }
            }
            self.pending.push(&chunks);
        }
        Ok(())
    }

    /// Has the system send a part; how much of it went out.
    fn send_part(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut Stream,
        part: &Range<u64>,
    ) -> Poll<Result<u64, ProxyError>> {
        let most = (part.end - part.start).min(AT_ONCE) as usize;
        match ready!(to.poll_send_file(cx, &self.body.file, part.start, most)) {
            Ok(0) => Poll::Ready(Err(cut(io::ErrorKind::UnexpectedEof.into()))),
            Ok(count) => {
                self.sent += count as u64;
                Poll::Ready(Ok(count as u64))
            }
            // A file system that cannot do it: EINVAL.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                self.is_copied = true;
                Poll::Ready(Ok(0))
            }
            Err(error) => Poll::Ready(Err(ProxyError::ClientGone(Some(error)))),
        }
    }
}

fn is_large(part: &Range<u64>) -> bool {
    part.end - part.start > TOGETHER as u64
}

/// A client that was told a length must be shown that it did not get so much.
fn cut(error: io::Error) -> ProxyError {
    ProxyError::File(FileError::Cut(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use tokio::io::AsyncReadExt as _;
    use tokio::net::{TcpListener, TcpStream, UnixStream};

    /// A file with these bytes that has no name any more.
    fn file(bytes: &[u8]) -> File {
        let path =
            std::env::temp_dir().join(format!("hopgate-send-{}-{}", std::process::id(), fastrand::u64(..)));
        std::fs::write(&path, bytes).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        file
    }

    fn noise(count: usize) -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(7);
        (0..count).map(|_| random.u8(..)).collect()
    }

    async fn tcp() -> (Stream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (Stream::tcp(listener.accept().await.unwrap().0), client)
    }

    async fn run(mut sending: Sending, mut stream: Stream) -> (Result<(), ProxyError>, u64) {
        let mut buffer = vec![0; 64 * 1024];
        let result = poll_fn(|cx| sending.poll(cx, &mut stream, &mut buffer)).await;
        (result, sending.sent)
    }

    fn sending(file: File, pieces: Vec<Piece>) -> Sending {
        Sending::new(b"head;", FileBody { file, pieces: pieces.into() }, None, false)
    }

    #[tokio::test]
    async fn pieces_of_all_sizes_arrive_in_their_order() {
        let bytes = noise(3_000_000);
        let parts = [0..10, 5..40_000, 2_999_990..3_000_000, 0..3_000_000];
        let mut expected = b"head;".to_vec();
        let mut pieces = Vec::new();
        for part in parts {
            expected.extend_from_slice(b"-");
            expected.extend_from_slice(&bytes[part.clone()]);
            pieces.extend([Piece::Bytes(b"-".to_vec()), Piece::Part(part.start as u64..part.end as u64)]);
        }
        for is_copied in [false, true] {
            let (stream, mut client) = tcp().await;
            let sending = Sending { is_copied, ..sending(file(&bytes), pieces.clone()) };
            let mut got = Vec::new();
            let ((result, sent), read) = tokio::join!(run(sending, stream), client.read_to_end(&mut got));
            read.unwrap();
            result.unwrap();
            assert!(got == expected, "{} bytes for {}", got.len(), expected.len());
            assert_eq!(sent, expected.len() as u64);
        }
    }

    #[tokio::test]
    async fn a_unix_socket_gets_a_file_too() {
        let bytes = noise(1_000_000);
        let (stream, mut client) = UnixStream::pair().unwrap();
        let sending = sending(file(&bytes), vec![Piece::Part(0..1_000_000)]);
        let mut got = Vec::new();
        let ((result, _), read) =
            tokio::join!(run(sending, Stream::Unix(stream)), client.read_to_end(&mut got));
        read.unwrap();
        result.unwrap();
        assert!(got[..5] == *b"head;" && got[5..] == bytes);
    }

    #[tokio::test]
    async fn a_file_that_got_shorter_is_an_error_and_not_a_short_answer() {
        for (told, is_copied) in [(100, false), (1_000_000, false), (1_000_000, true)] {
            let (stream, mut client) = tcp().await;
            let file = file(&noise(told));
            file.set_len(told as u64 - 1).unwrap();
            let sending = Sending { is_copied, ..sending(file, vec![Piece::Part(0..told as u64)]) };
            let mut got = Vec::new();
            let ((result, sent), read) = tokio::join!(run(sending, stream), client.read_to_end(&mut got));
            read.unwrap();
            assert!(matches!(result, Err(ProxyError::File(FileError::Cut(_)))), "{result:?}");
            assert!(got.len() < told + 5);
            assert_eq!(sent, got.len() as u64);
        }
    }

    #[tokio::test]
    async fn what_is_small_goes_out_in_one_write() {
        let pieces = vec![Piece::Part(0..1000), Piece::Bytes(b"-".to_vec()), Piece::Part(0..1000)];
        let mut sending = sending(file(&noise(1000)), pieces);
        sending.gather(&mut [0; 64 * 1024]).unwrap();
        assert_eq!(sending.pending.len(), 5 + 1000 + 1 + 1000);
        assert!(sending.body.pieces.is_empty());
    }
}
