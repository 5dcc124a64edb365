//! An upstream that answers by itself, for tests where its answers are not the subject.

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};

/// Answers every request with 200 and its own name, over connections kept alive.
pub struct App {
    addr: String,
    connections: Arc<AtomicUsize>,
}

impl App {
    pub fn named(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port to listen on");
        let addr = listener.local_addr().expect("a listener has an address").to_string();
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = connections.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                counter.fetch_add(1, Ordering::SeqCst);
                thread::spawn(move || answer(&stream, name));
            }
        });
        Self { addr, connections }
    }

    pub fn addr(&self) -> &str {
        &self.addr
    }

    /// How many connections it was ever given.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// Serves one connection until it ends; its end is the client's business.
fn answer(stream: &TcpStream, name: &str) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if line == "\r\n" {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
        }
        reader.read_exact(&mut vec![0; length]).ok()?;
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len());
        (&*stream).write_all(head.as_bytes()).ok()?;
    }
}
