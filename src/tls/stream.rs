//! A TLS connection over another stream, in either role, that owns no buffer while it is idle.
//!
//! It drives the unbuffered interface of rustls itself. The usual wrapper (tokio-rustls) keeps buffers for as
//! long as a connection lives and reads 4 KiB at a time; here ciphertext is read into a buffer of the thread,
//! and a connection keeps no more than the part of a record that has not come whole.

mod session;

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::{ClientConfig, CommonState, ServerConfig};
use tokio::io::ReadBuf;

use crate::io::{Pending, Stream};
use session::{Plain, Session, Step, Write};

/// The most plaintext that is encrypted for one write, and the most ciphertext that is read at a time.
const AT_ONCE: usize = 64 * 1024;

/// The least that is read at a time: one record and what belongs to it (RFC 8446 §5.2, RFC 5246 §6.2.3).
const RECORD: usize = 5 + 16 * 1024 + 2048;

/// What the records of one write add to its plaintext, with room to spare.
const OVERHEAD: usize = 1024;

/// How many reads a look at an idle connection takes: more than a few tickets are no silence.
const LOOKS: usize = 4;

thread_local! {
    /// Ciphertext that was read, for as long as one poll takes.
    static INPUT: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    /// Ciphertext on its way out, likewise.
    static OUTPUT: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    /// Plaintext for a reader whose own place is not ready for it, likewise.
    static PLAIN: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A TLS connection over another stream.
#[derive(Debug)]
pub struct TlsStream {
    socket: Stream,
    session: Session,
    /// Ciphertext of a record, or of a message of the handshake, that has not come whole.
    incoming: Vec<u8>,
    /// What was decrypted but not taken yet, and how much of it was.
    plaintext: (Vec<u8>, usize),
    /// Ciphertext that the socket has not taken.
    outgoing: Pending,
    /// How many bytes of the last write are encrypted, though the write is still to be repeated.
    promised: usize,
    reading: Reading,
    writing: Writing,
}

/// What became of what the peer sends.
#[derive(Clone, Debug, PartialEq)]
enum Reading {
    Open,
    /// It has said that it sends nothing more.
    Closed,
    /// Its connection ended without a word.
    Truncated,
    Failed(rustls::Error),
}

/// What became of what the peer is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Writing {
    Open,
    /// The close_notify, or another alert, is encrypted.
    Closing,
    /// The FIN is out.
    Closed,
    /// The peer takes nothing more.
    Broken,
}

impl TlsStream {
    /// The server's side of a connection on which these bytes have come already.
    ///
    /// # Errors
    /// A configuration that cannot be used.
    pub fn accept(
        socket: Stream,
        config: Arc<ServerConfig>,
        already: Vec<u8>,
    ) -> Result<Self, rustls::Error> {
        Ok(Self::new(socket, Session::Server(UnbufferedServerConnection::new(config)?), already))
    }

    /// The client's side of a connection to the server of this name.
    ///
    /// # Errors
    /// A configuration that cannot be used.
    pub fn connect(
        socket: Stream,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<Self, rustls::Error> {
        let session = Session::Client(UnbufferedClientConnection::new(config, name)?);
        Ok(Self::new(socket, session, Vec::new()))
    }

    fn new(socket: Stream, session: Session, incoming: Vec<u8>) -> Self {
        Self {
            socket,
            session,
            incoming,
            plaintext: (Vec::new(), 0),
            outgoing: Pending::default(),
            promised: 0,
            reading: Reading::Open,
            writing: Writing::Open,
        }
    }

    /// What was agreed upon with the peer.
    pub fn agreed(&self) -> &CommonState {
        self.session.common()
    }

    /// What the connection runs over.
    pub fn socket(&self) -> &Stream {
        &self.socket
    }

    /// The handshake, up to its end. A failure has been told to the peer, as far as it listens.
    ///
    /// # Errors
    /// Those of the connection; `UnexpectedEof` if it ends meanwhile; `InvalidData` with the error of rustls.
    pub fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A server may have the ClientHello already, a client has its own to send.
        let mut already = std::mem::take(&mut self.incoming);
        let mut done = self.advance(cx, &mut already, &mut []).map(drop);
        loop {
            done?;
            ready!(self.outgoing.poll_flush(cx, &mut self.socket))?;
            if !self.agreed().is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            if self.reading != Reading::Open {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            done = ready!(self.poll_records(cx, &mut [])).map(drop);
        }
    }

    /// Reads once into `buffer`: 0 is the end of what the peer sends. Without its close_notify a client has
    /// ended as well, as most of them do; an answer of an upstream may have been cut there.
    ///
    /// # Errors
    /// Those of the connection; `UnexpectedEof` as a client, where the server's close_notify is missing.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        if !self.outgoing.is_empty() && self.writing != Writing::Broken {
            self.flush_beside(cx)?;
        }
        loop {
            let count = self.take_plaintext(buffer);
            if count > 0 || buffer.is_empty() {
                return Poll::Ready(Ok(count));
            }
            match &self.reading {
                Reading::Open => {}
                Reading::Closed => return Poll::Ready(Ok(0)),
                Reading::Truncated if self.session.is_client() => {
                    return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                }
                Reading::Truncated => return Poll::Ready(Ok(0)),
                Reading::Failed(error) => return Poll::Ready(Err(failure(error.clone()))),
            }
            let count = ready!(self.poll_records(cx, buffer))?;
            if count > 0 {
                return Poll::Ready(Ok(count));
            }
        }
    }

    /// The same, into a place that need not hold zeros before: to fill it with them would take longer than to
    /// copy the little that comes at a time, as a rule.
    ///
    /// # Errors
    /// As above.
    pub fn poll_read_buf(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut plain = PLAIN.take();
        plain.resize(AT_ONCE, 0);
        let most = buffer.remaining().min(AT_ONCE);
        let read = self.poll_read(cx, &mut plain[..most]).map_ok(|count| buffer.put_slice(&plain[..count]));
        PLAIN.set(plain);
        read
    }

    /// Writes once. As with `SSL_write`, after `Pending` the call is to be repeated with the same bytes (there
    /// may be more behind them): they are encrypted, and the peer counts its records.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.writing != Writing::Open {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        ready!(self.outgoing.poll_flush(cx, &mut self.socket))?;
        if self.promised > 0 {
            debug_assert!(bytes.len() >= self.promised, "a write is repeated with the same bytes");
            return Poll::Ready(Ok(std::mem::take(&mut self.promised)));
        }
        let bytes = &bytes[..bytes.len().min(AT_ONCE)];
        let mut output = OUTPUT.take();
        let sent = self.encrypt(Write::Data(bytes), &mut output).map_err(failure).map(|count| {
            // Behind what the records that were read meanwhile call for.
            self.outgoing.poll_send(cx, &mut self.socket, &output[..count])
        });
        OUTPUT.set(output);
        match sent? {
            Poll::Ready(sent) => Poll::Ready(sent.map(|()| bytes.len())),
            Poll::Pending => {
                self.promised = bytes.len();
                Poll::Pending
            }
        }
    }

    /// Sends what waits, the close_notify, and the FIN; `Ready` when this is done, or cannot be.
    pub fn poll_shutdown_write(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.writing == Writing::Open {
            let mut output = Vec::new();
            // Without keys, before the handshake is done, there is only the FIN.
            if let Ok(count) = self.encrypt(Write::CloseNotify, &mut output) {
                self.outgoing.push(&output[..count]);
            }
            self.writing = Writing::Closing;
        }
        if self.writing == Writing::Broken {
            self.outgoing = Pending::default();
            self.writing = Writing::Closing;
        }
        if self.writing == Writing::Closing {
            // If it fails, nobody is there who would miss it.
            let _ = ready!(self.outgoing.poll_flush(cx, &mut self.socket));
            self.writing = Writing::Closed;
            return self.socket.poll_shutdown_write(cx);
        }
        Poll::Ready(())
    }

    /// Whether the peer has neither closed the connection nor sent anything for us; its tickets are taken.
    pub fn is_quiet(&mut self) -> bool {
        let mut input = INPUT.take();
        let is_quiet = self.look(&mut input);
        INPUT.set(input);
        is_quiet
    }

    /// Whether the connection is broken, which is seen without reading.
    pub fn is_broken(&mut self, cx: &mut Context<'_>) -> bool {
        self.socket.is_broken(cx)
    }

    /// Makes the end an abnormal one, as that of the stream below.
    pub fn reset(&mut self) {
        self.socket.reset();
    }

    fn take_plaintext(&mut self, buffer: &mut [u8]) -> usize {
        let (plaintext, taken) = &mut self.plaintext;
        let rest = &plaintext[*taken..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        *taken += count;
        if *taken == plaintext.len() {
            self.plaintext = (Vec::new(), 0);
        }
        count
    }

    /// Reads ciphertext once, and decrypts it: first into `buffer`, from its beginning on, and what does not
    /// fit is kept. How much is in the buffer.
    fn poll_records(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut input = INPUT.take();
        let read = self.poll_ciphertext(cx, &mut input, buffer.len().clamp(RECORD, AT_ONCE));
        let decrypted = read.map(|read| match read? {
            0 => {
                self.reading = Reading::Truncated;
                Ok(0)
            }
            count => self.advance(cx, &mut input[..count], buffer),
        });
        INPUT.set(input);
        decrypted
    }

    /// Reads once, behind what has come of a record; how much there is of it then, 0 at the end.
    fn poll_ciphertext(
        &mut self,
        cx: &mut Context<'_>,
        input: &mut Vec<u8>,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        let start = self.incoming.len();
        if input.len() < start + most {
            input.resize(start + AT_ONCE, 0);
        }
        let count = ready!(self.socket.poll_read(cx, &mut input[start..start + most]))?;
        if count == 0 {
            return Poll::Ready(Ok(0));
        }
        input[..start].copy_from_slice(&self.incoming);
        self.incoming = Vec::new();
        Poll::Ready(Ok(start + count))
    }

    /// Lets the session take ciphertext; what is left of a record is kept. How much came into `buffer`.
    fn advance(
        &mut self,
        cx: &mut Context<'_>,
        ciphertext: &mut [u8],
        buffer: &mut [u8],
    ) -> io::Result<usize> {
        let mut plain = Plain { buffer, filled: 0, rest: &mut self.plaintext.0 };
        let mut at = 0;
        let failed = loop {
            let (discard, step) = self.session.step(&mut ciphertext[at..], &mut plain, &mut self.outgoing);
            at += discard;
            match step {
                // Nothing can follow where nothing is, and the next call asks anyway.
                Ok(Step::Read) if at == ciphertext.len() && !self.session.common().is_handshaking() => {
                    break None;
                }
                Ok(Step::Read | Step::Wrote) => {}
                Ok(Step::Closed) => self.reading = Reading::Closed,
                Ok(Step::Waits) => break None,
                Err(error) => break Some(error),
            }
        };
        let filled = plain.filled;
        if let Some(error) = failed {
            self.session.alert(&mut ciphertext[at..], &mut self.outgoing);
            self.reading = Reading::Failed(error.clone());
            // The alert is the last that the peer gets.
            self.writing = Writing::Closing;
            let _ = self.outgoing.poll_flush(cx, &mut self.socket);
            return Err(failure(error));
        }
        if self.reading == Reading::Open && at < ciphertext.len() {
            self.incoming = ciphertext[at..].to_vec();
        }
        Ok(filled)
    }

    /// Encrypts into `output`, which grows as needed; how much it is.
    fn encrypt(&mut self, write: Write<'_>, output: &mut Vec<u8>) -> Result<usize, rustls::Error> {
        if output.len() < write.len() + OVERHEAD {
            output.resize(write.len() + OVERHEAD, 0);
        }
        self.session.encrypt(&mut self.incoming, write, output, &mut self.outgoing)
    }

    /// Sends what waits while it is something else that is wanted.
    ///
    /// # Errors
    /// A reset: the system tells of it once, and of an end from then on.
    fn flush_beside(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.outgoing.poll_flush(cx, &mut self.socket) {
            Poll::Ready(Err(error)) => {
                self.writing = Writing::Broken;
                if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error) }
            }
            Poll::Ready(Ok(())) if self.writing == Writing::Closing => {
                self.writing = Writing::Closed;
                let _ = self.socket.poll_shutdown_write(cx);
                Ok(())
            }
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }

    fn look(&mut self, input: &mut Vec<u8>) -> bool {
        for _ in 0..LOOKS {
            if !self.plaintext.0.is_empty() || self.reading != Reading::Open {
                return false;
            }
            if self.socket.is_quiet() {
                return true;
            }
            let start = self.incoming.len();
            input.resize((start + RECORD).max(input.len()), 0);
            input[..start].copy_from_slice(&self.incoming);
            match self.socket.read_now(&mut input[start..start + RECORD]) {
                Ok(0) => self.reading = Reading::Truncated,
                Ok(count) => {
                    self.incoming = Vec::new();
                    let mut nobody = Context::from_waker(std::task::Waker::noop());
                    if self.advance(&mut nobody, &mut input[..start + count], &mut []).is_err() {
                        return false;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        false
    }
}

fn failure(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests;
