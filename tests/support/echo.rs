//! An upstream that tells what it was asked.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;

/// Answers every request with 200 and, as its body, the request's first line and its `X-` fields, sorted.
pub struct Echo {
    addr: String,
}

impl Echo {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port to listen on");
        let addr = listener.local_addr().expect("a listener has an address").to_string();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                thread::spawn(move || answer(&stream));
            }
        });
        Self { addr }
    }

    pub fn addr(&self) -> &str {
        &self.addr
    }
}

/// Serves one connection until it ends; its end is the proxy's business.
fn answer(stream: &TcpStream) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut body = Vec::new();
        let mut length = 0;
        if reader.read_until(b'\n', &mut body).ok()? == 0 {
            return None;
        }
        let mut fields = Vec::new();
        loop {
            let mut line = Vec::new();
            reader.read_until(b'\n', &mut line).ok()?;
            let lower = String::from_utf8_lossy(&line).to_ascii_lowercase();
            match lower.trim_end().split_once(": ") {
                None if lower.trim_end().is_empty() => break,
                Some(("content-length", value)) => length = value.parse().ok()?,
                Some((name, _)) if name.starts_with("x-") => fields.push(line),
                _ => {}
            }
        }
        fields.sort();
        body.extend(fields.concat());
        reader.read_exact(&mut vec![0; length]).ok()?;
        let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
        answer.extend(body);
        (&*stream).write_all(&answer).ok()?;
    }
}
