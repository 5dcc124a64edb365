//! A connection of rustls in either role, and the steps that it takes.

use std::fmt;

use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic,
};
use rustls::{CommonState, Error};

use crate::io::Pending;

/// A connection in one of the two roles.
pub(super) enum Session {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

/// What a step came to.
pub(super) enum Step {
    /// Plaintext.
    Read,
    /// Something to send, or nothing at all.
    Wrote,
    /// The peer's close_notify.
    Closed,
    /// More ciphertext is needed.
    Waits,
}

/// Where plaintext goes: into a buffer, and what does not fit behind it into a place of its own.
pub(super) struct Plain<'a> {
    pub(super) buffer: &'a mut [u8],
    pub(super) filled: usize,
    pub(super) rest: &'a mut Vec<u8>,
}

/// What is to be encrypted.
#[derive(Clone, Copy)]
pub(super) enum Write<'a> {
    Data(&'a [u8]),
    CloseNotify,
}

impl Session {
    pub(super) fn common(&self) -> &CommonState {
        match self {
            Self::Server(connection) => connection,
            Self::Client(connection) => connection,
        }
    }

    pub(super) fn is_client(&self) -> bool {
        matches!(self, Self::Client(_))
    }

    /// Takes ciphertext up to the next thing that happens; how much of it is done with, and what happened.
    pub(super) fn step(
        &mut self,
        ciphertext: &mut [u8],
        plain: &mut Plain<'_>,
        outgoing: &mut Pending,
    ) -> (usize, Result<Step, Error>) {
        match self {
            Self::Server(connection) => step(connection.process_tls_records(ciphertext), plain, outgoing),
            Self::Client(connection) => step(connection.process_tls_records(ciphertext), plain, outgoing),
        }
    }

    /// After an error: what is to be told to the peer about it.
    pub(super) fn alert(&mut self, ciphertext: &mut [u8], outgoing: &mut Pending) {
        // Only what is queued: to go on reading would break the promise that there is one fatal alert.
        while self.common().wants_write() {
            let mut unread = Plain { buffer: &mut [], filled: 0, rest: &mut Vec::new() };
            let _ = self.step(ciphertext, &mut unread, outgoing);
        }
    }

    /// Encrypts into `output`, which grows as needed. What else is to be sent before it goes to `outgoing`.
    /// `incoming` is the part of a record that has come: rustls may know of messages in it.
    pub(super) fn encrypt(
        &mut self,
        incoming: &mut [u8],
        write: Write<'_>,
        output: &mut Vec<u8>,
        outgoing: &mut Pending,
    ) -> Result<usize, Error> {
        match self {
            Self::Server(connection) => loop {
                if let Some(done) =
                    encrypt(connection.process_tls_records(incoming).state?, write, output, outgoing)
                {
                    break done;
                }
            },
            Self::Client(connection) => loop {
                if let Some(done) =
                    encrypt(connection.process_tls_records(incoming).state?, write, output, outgoing)
                {
                    break done;
                }
            },
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_client() { "Client" } else { "Server" })
    }
}

impl Plain<'_> {
    fn push(&mut self, bytes: &[u8]) {
        let fits = (self.buffer.len() - self.filled).min(bytes.len());
        self.buffer[self.filled..self.filled + fits].copy_from_slice(&bytes[..fits]);
        self.filled += fits;
        self.rest.extend_from_slice(&bytes[fits..]);
    }
}

impl Write<'_> {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Data(bytes) => bytes.len(),
            Self::CloseNotify => 0,
        }
    }
}

fn step<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    plain: &mut Plain<'_>,
    outgoing: &mut Pending,
) -> (usize, Result<Step, Error>) {
    let UnbufferedStatus { mut discard, state, .. } = status;
    let step = match state {
        Err(error) => Err(error),
        Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
            match traffic.next_record() {
                None => break Ok(Step::Read),
                Some(Err(error)) => break Err(error),
                Some(Ok(record)) => {
                    plain.push(record.payload);
                    discard += record.discard;
                }
            }
        },
        Ok(ConnectionState::EncodeTlsData(data)) => {
            encode(data, outgoing);
            Ok(Step::Wrote)
        }
        Ok(ConnectionState::TransmitTlsData(transmit)) => {
            // What was encoded is kept until the socket has taken it.
            transmit.done();
            Ok(Step::Wrote)
        }
        Ok(ConnectionState::PeerClosed) => Ok(Step::Closed),
        Ok(
            ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_) | ConnectionState::Closed,
        ) => Ok(Step::Waits),
        // Early data is not taken, and there is nothing else.
        Ok(_) => Err(Error::General("a state of TLS that is not known".into())),
    };
    (discard, step)
}

/// One step on the way to encrypting; `None` if it was another one.
fn encrypt<Data>(
    state: ConnectionState<'_, '_, Data>,
    write: Write<'_>,
    output: &mut Vec<u8>,
    outgoing: &mut Pending,
) -> Option<Result<usize, Error>> {
    match state {
        ConnectionState::EncodeTlsData(data) => encode(data, outgoing),
        ConnectionState::TransmitTlsData(transmit) => transmit.done(),
        ConnectionState::PeerClosed => {}
        ConnectionState::WriteTraffic(mut traffic) => return Some(put(&mut traffic, write, output)),
        _ => return Some(Err(Error::HandshakeNotComplete)),
    }
    None
}

fn put<Data>(
    traffic: &mut WriteTraffic<'_, Data>,
    write: Write<'_>,
    output: &mut Vec<u8>,
) -> Result<usize, Error> {
    loop {
        let written = match write {
            Write::Data(bytes) => traffic.encrypt(bytes, output),
            Write::CloseNotify => traffic.queue_close_notify(output),
        };
        match written {
            Ok(count) => return Ok(count),
            Err(EncryptError::InsufficientSize(size)) => output.resize(size.required_size, 0),
            Err(EncryptError::EncryptExhausted) => return Err(Error::EncryptError),
        }
    }
}

fn encode<Data>(mut data: EncodeTlsData<'_, Data>, outgoing: &mut Pending) {
    let mut bytes = Vec::new();
    while let Err(EncodeError::InsufficientSize(size)) = data.encode(&mut bytes) {
        bytes.resize(size.required_size, 0);
    }
    outgoing.push(&bytes);
}
