//! The client's half of HTTP/2 that WebSockets need (RFC 9113, RFC 8441): heads without a table, credit, and bytes.

use std::io;

/// How much a server may send unasked on a stream: what browsers grant.
const STREAM_CREDIT: u32 = 6 * 1024 * 1024;
/// The same for the connection.
const CREDIT: u32 = 15 * 1024 * 1024;
/// RFC 9113 §6.9.2: what both windows begin with.
const FIRST_WINDOW: u32 = 65_535;
/// RFC 9113 §4.2: the largest payload that every peer takes.
const FRAME: usize = 16 * 1024;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;
const PADDED: u8 = 8;
const END_HEADERS: u8 = 4;

/// RFC 8441 §3.
const ENABLE_CONNECT_PROTOCOL: u16 = 8;
const INITIAL_WINDOW_SIZE: u16 = 4;

/// What the server said.
pub enum Said {
    /// A tunnel is open.
    Opened(u32),
    /// So many bytes came through a tunnel.
    Bytes(u32, usize),
}

/// A connection's state.
#[derive(Default)]
pub struct Http2 {
    /// What is to be sent.
    pub out: Vec<u8>,
    /// The part of a frame that came.
    received: Vec<u8>,
    /// How much may be sent: on the connection, and on a stream at first.
    window: i64,
    first_window: i64,
    /// By half the number of the stream.
    streams: Vec<Stream>,
    unacknowledged: u32,
    knows_websocket: bool,
}

#[derive(Default)]
struct Stream {
    window: i64,
    unacknowledged: u32,
    waiting: Vec<u8>,
}

impl Http2 {
    /// With the preface and the settings in `out`.
    pub fn new() -> Self {
        let mut http2 =
            Self { window: FIRST_WINDOW.into(), first_window: FIRST_WINDOW.into(), ..Self::default() };
        http2.out.extend_from_slice(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        let settings = [&INITIAL_WINDOW_SIZE.to_be_bytes()[..], &STREAM_CREDIT.to_be_bytes()[..]].concat();
        http2.frame(SETTINGS, 0, 0, &settings);
        http2.frame(WINDOW_UPDATE, 0, 0, &(CREDIT - FIRST_WINDOW).to_be_bytes());
        http2
    }

    /// Asks for so many tunnels, once and as soon as the server has said that it knows of them.
    pub fn open_all(&mut self, count: usize, path: &str) {
        if self.knows_websocket && self.streams.is_empty() {
            (0..count).for_each(|_| self.open(path));
        }
    }

    fn open(&mut self, path: &str) {
        let stream = self.streams.len() as u32 * 2 + 1;
        self.streams.push(Stream { window: self.first_window, ..Stream::default() });
        // RFC 7541: names by their numbers in the static table or as literals, nothing is indexed, no Huffman code.
        let mut head = literal(&[0x02], "CONNECT");
        head.extend(literal(&named(":protocol"), "websocket"));
        head.push(0x87); // :scheme https
        head.extend(literal(&[0x04], path));
        head.extend(literal(&[0x01], "localhost"));
        head.extend(literal(&named("sec-websocket-version"), "13"));
        self.frame(HEADERS, END_HEADERS, stream, &head);
    }

    /// Sends bytes into a tunnel, as far as the server allows, and the rest later.
    pub fn send(&mut self, stream: u32, bytes: &[u8]) {
        self.streams[stream as usize / 2].waiting.extend_from_slice(bytes);
        self.send_waiting(stream);
    }

    fn send_waiting(&mut self, stream: u32) {
        loop {
            let this = &mut self.streams[stream as usize / 2];
            let allowed = self.window.min(this.window).clamp(0, FRAME as i64) as usize;
            let count = this.waiting.len().min(allowed);
            if count == 0 {
                return;
            }
            this.window -= count as i64;
            self.window -= count as i64;
            let bytes: Vec<u8> = this.waiting.drain(..count).collect();
            self.frame(DATA, 0, stream, &bytes);
        }
    }

    /// Takes what came; `said` gets what it means.
    pub fn receive(&mut self, bytes: &[u8], mut said: impl FnMut(Said)) -> io::Result<()> {
        let mut received = std::mem::take(&mut self.received);
        received.extend_from_slice(bytes);
        let mut rest = &received[..];
        while let Some(head) = rest.first_chunk::<9>() {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let Some(payload) = rest.get(9..9 + length) else { break };
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            if let Some(what) = self.take(head[3], head[4], stream, payload)? {
                said(what);
            }
            rest = &rest[9 + length..];
        }
        self.received = rest.to_vec();
        Ok(())
    }

    fn take(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> io::Result<Option<Said>> {
        match kind {
            DATA => {
                let padding = if flags & PADDED == 0 { 0 } else { 1 + usize::from(payload[0]) };
                self.credit(stream, payload.len() as u32);
                return Ok(Some(Said::Bytes(stream, payload.len() - padding)));
            }
            HEADERS => {
                // A change of the table's size may stand before the status; 0x88 is `:status: 200`.
                let status = payload.iter().find(|byte| **byte & 0xe0 != 0x20);
                return match status {
                    Some(0x88) => Ok(Some(Said::Opened(stream))),
                    _ => Err(io::Error::other("the proxy has refused a WebSocket")),
                };
            }
            SETTINGS if flags & ACK == 0 => self.settings(payload)?,
            PING if flags & ACK == 0 => self.frame(PING, ACK, 0, payload),
            WINDOW_UPDATE => self.widen(stream, payload),
            SETTINGS | PING => {}
            // Those that end a stream or the connection: 3 and 7.
            3 | 7 => return Err(io::Error::other(format!("frame {kind} on stream {stream}: {payload:?}"))),
            _ => {}
        }
        Ok(None)
    }

    fn settings(&mut self, payload: &[u8]) -> io::Result<()> {
        for setting in payload.chunks_exact(6) {
            let value = u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]);
            match u16::from_be_bytes([setting[0], setting[1]]) {
                ENABLE_CONNECT_PROTOCOL => self.knows_websocket = value == 1,
                INITIAL_WINDOW_SIZE => self.first_window = value.into(),
                _ => {}
            }
        }
        self.frame(SETTINGS, ACK, 0, &[]);
        if self.knows_websocket { Ok(()) } else { Err(io::Error::other("the proxy does not speak RFC 8441")) }
    }

    fn widen(&mut self, stream: u32, payload: &[u8]) {
        let by = payload.first_chunk().map_or(0, |bytes| i64::from(u32::from_be_bytes(*bytes)));
        if stream == 0 {
            self.window += by;
            (0..self.streams.len() as u32).for_each(|place| self.send_waiting(place * 2 + 1));
        } else if let Some(this) = self.streams.get_mut(stream as usize / 2) {
            this.window += by;
            self.send_waiting(stream);
        }
    }

    /// Gives back what was received, in large pieces.
    fn credit(&mut self, stream: u32, count: u32) {
        self.unacknowledged += count;
        if self.unacknowledged >= CREDIT / 2 {
            let credit = std::mem::take(&mut self.unacknowledged);
            self.frame(WINDOW_UPDATE, 0, 0, &credit.to_be_bytes());
        }
        let this = &mut self.streams[stream as usize / 2];
        this.unacknowledged += count;
        if this.unacknowledged >= STREAM_CREDIT / 2 {
            let credit = std::mem::take(&mut this.unacknowledged);
            self.frame(WINDOW_UPDATE, 0, stream, &credit.to_be_bytes());
        }
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = (payload.len() as u32).to_be_bytes();
        self.out.extend_from_slice(&[length[1], length[2], length[3], kind, flags]);
        self.out.extend_from_slice(&stream.to_be_bytes());
        self.out.extend_from_slice(payload);
    }
}

/// A name that the static table has not.
fn named(name: &str) -> Vec<u8> {
    [&[0, name.len() as u8], name.as_bytes()].concat()
}

fn literal(name: &[u8], value: &str) -> Vec<u8> {
    [name, &[value.len() as u8], value.as_bytes()].concat()
}
