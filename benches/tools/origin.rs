//! The origin behind the proxy: bodies of any length, a WebSocket echo, and a WebSocket that sends as fast as it can.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::rc::Rc;

use crate::poller::{Poller, Ready, accept, listen, reset, unless_blocked};
use crate::websocket;

/// The messages of `/bulk`.
const BULK_MESSAGE: usize = 64 * 1024;
const MIB: usize = 1024 * 1024;

/// Runs until it is killed, on so many ports. The listeners have the first numbers, the connections those that follow.
pub fn run(ports: usize) -> io::Result<()> {
    let mut origin = Origin {
        poller: Poller::new()?,
        listeners: (0..ports).map(|_| listen()).collect::<io::Result<_>>()?,
        connections: Vec::new(),
        free: Vec::new(),
        answers: HashMap::new(),
        mebibyte: websocket::unmasked(BULK_MESSAGE).repeat(MIB / BULK_MESSAGE).into(),
    };
    for (number, listener) in origin.listeners.iter().enumerate() {
        origin.poller.add(listener, number)?;
    }
    let (mut ready, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
    loop {
        origin.poller.wait(None, &mut ready)?;
        for event in &ready {
            match event.number < ports {
                true => origin.accept(event.number)?,
                false => origin.serve(*event, &mut buffer),
            }
        }
    }
}

struct Origin {
    poller: Poller,
    listeners: Vec<TcpListener>,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    /// Whole responses, by target.
    answers: HashMap<String, Rc<[u8]>>,
    mebibyte: Rc<[u8]>,
}

struct Connection {
    socket: TcpStream,
    /// What is not a whole request or message yet.
    received: Vec<u8>,
    speaks: Speaks,
    sending: VecDeque<Sending>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Speaks {
    Http,
    WebSocket,
}

/// The same bytes a number of times.
struct Sending {
    bytes: Rc<[u8]>,
    sent: usize,
    times: usize,
}

impl Origin {
    fn accept(&mut self, listener: usize) -> io::Result<()> {
        while let Some(socket) = accept(&self.listeners[listener])? {
            let place = self.free.pop().unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() - 1
            });
            self.poller.add(&socket, self.listeners.len() + place)?;
            self.connections[place] = Some(Connection {
                socket,
                received: Vec::new(),
                speaks: Speaks::Http,
                sending: VecDeque::new(),
            });
        }
        Ok(())
    }

    fn serve(&mut self, event: Ready, buffer: &mut [u8]) {
        let place = event.number - self.listeners.len();
        let Some(mut connection) = self.connections[place].take() else { return };
        match self.talk(&mut connection, event.is_ending, buffer) {
            Ok(Open::Yes) => self.connections[place] = Some(connection),
            // Who closes a connection to this origin is to keep no port that waits for last packets.
            Ok(Open::No) | Err(_) => {
                reset(&connection.socket);
                self.free.push(place);
            }
        }
    }

    fn talk(&mut self, connection: &mut Connection, is_ending: bool, buffer: &mut [u8]) -> io::Result<Open> {
        loop {
            connection.send()?;
            let Some(count) = unless_blocked(connection.socket.read(buffer))? else { return Ok(Open::Yes) };
            if count == 0 {
                return Ok(Open::No);
            }
            connection.received.extend_from_slice(&buffer[..count]);
            while let Some(length) = self.answer(connection)? {
                connection.received.drain(..length);
            }
            if count < buffer.len() && !is_ending {
                return connection.send().map(|()| Open::Yes);
            }
        }
    }

    /// Answers the first request or message; the length of that, `None`: it is not whole yet.
    fn answer(&mut self, connection: &mut Connection) -> io::Result<Option<usize>> {
        let Connection { received, speaks, sending, .. } = connection;
        if *speaks == Speaks::WebSocket {
            let Some((length, frame)) = websocket::answer(received) else { return Ok(None) };
            sending.push_back(Sending { bytes: frame.into(), sent: 0, times: 1 });
            return Ok(Some(length));
        }
        let Some(end) = memchr::memmem::find(received, b"\r\n\r\n") else { return Ok(None) };
        let head = str::from_utf8(&received[..end]).map_err(io::Error::other)?;
        let target = head.split(' ').nth(1).unwrap_or_default();
        let bytes = match field(head, "sec-websocket-key") {
            Some(key) => {
                *speaks = Speaks::WebSocket;
                switching(key)
            }
            None => self.response(target)?,
        };
        sending.push_back(Sending { bytes, sent: 0, times: 1 });
        if let Some(mib) = target.strip_prefix("/bulk/") {
            let times = mib.parse().map_err(io::Error::other)?;
            sending.push_back(Sending { bytes: Rc::clone(&self.mebibyte), sent: 0, times });
        }
        Ok(Some(end + 4))
    }

    fn response(&mut self, target: &str) -> io::Result<Rc<[u8]>> {
        if let Some(answer) = self.answers.get(target) {
            return Ok(Rc::clone(answer));
        }
        let size = target.rsplit('/').next().and_then(|last| last.parse().ok()).unwrap_or(0);
        let mut answer = format!(
            "HTTP/1.1 200 OK\r\nServer: origin\r\nDate: Sat, 21 Nov 2026 12:00:00 GMT\r\n\
             Content-Type: application/octet-stream\r\nContent-Length: {size}\r\n\r\n"
        )
        .into_bytes();
        answer.resize(answer.len() + size, b'x');
        let answer: Rc<[u8]> = answer.into();
        self.answers.insert(target.to_owned(), Rc::clone(&answer));
        Ok(answer)
    }
}

enum Open {
    Yes,
    No,
}

impl Connection {
    /// Sends what the socket takes.
    fn send(&mut self) -> io::Result<()> {
        while let Some(first) = self.sending.front_mut() {
            match unless_blocked(self.socket.write(&first.bytes[first.sent..]))? {
                Some(count) => first.sent += count,
                None => break,
            }
            if first.sent == first.bytes.len() {
                (first.sent, first.times) = (0, first.times - 1);
                if first.times == 0 {
                    self.sending.pop_front();
                }
            }
        }
        Ok(())
    }
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = head.split("\r\n").filter_map(|line| line.split_once(':'));
    fields.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

fn switching(key: &str) -> Rc<[u8]> {
    let accept = websocket::accept(key);
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    head.into_bytes().into()
}
