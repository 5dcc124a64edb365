//! Balancers of bytes in front of hopgate, which say by the PROXY protocol who their client is.

use std::fs;
use std::io::{Read as _, Write as _, copy};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use super::{Dir, eventually, free_addr};

/// A header of version 2 with these bytes behind its first sixteen.
pub fn proxy_v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).expect("a length of 16 bits").to_be_bytes();
    [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[command, family], &length, rest].concat()
}

/// One that sends a header and the first bytes of its client in one piece.
pub struct Balancer {
    addr: SocketAddr,
}

impl Balancer {
    /// In front of `to`.
    pub fn start(to: SocketAddr, header: &[u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port to listen on");
        let addr = listener.local_addr().expect("a listener has an address");
        let header = header.to_vec();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let header = header.clone();
                thread::spawn(move || pass_on(client, to, header));
            }
        });
        Self { addr }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

fn pass_on(mut client: TcpStream, to: SocketAddr, mut bytes: Vec<u8>) -> Option<()> {
    let mut first = [0; 16384];
    let count = client.read(&mut first).ok()?;
    bytes.extend_from_slice(&first[..count]);
    let mut server = TcpStream::connect(to).ok()?;
    server.write_all(&bytes).ok()?;
    relay(client, server)
}

fn relay(mut client: TcpStream, mut server: TcpStream) -> Option<()> {
    let (mut from, mut back) = (server.try_clone().ok()?, client.try_clone().ok()?);
    thread::spawn(move || {
        // Either end may break off.
        let _ = copy(&mut from, &mut back);
        let _ = back.shutdown(Shutdown::Write);
    });
    let _ = copy(&mut client, &mut server);
    server.shutdown(Shutdown::Write).ok()
}

/// In front of an upstream: takes a header of version 1 off every connection, and passes on what comes behind it.
pub struct Introduced {
    addr: SocketAddr,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Introduced {
    /// In front of `to`.
    pub fn start(to: &str) -> Self {
        let to: SocketAddr = to.parse().expect("the address of an upstream");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port to listen on");
        let addr = listener.local_addr().expect("a listener has an address");
        let lines = Arc::new(Mutex::new(Vec::new()));
        let known = Arc::clone(&lines);
        thread::spawn(move || {
            for mut client in listener.incoming().map_while(Result::ok) {
                let mut line = Vec::new();
                let mut byte = [0];
                while !line.ends_with(b"\r\n") && line.len() < 107 && client.read_exact(&mut byte).is_ok() {
                    line.push(byte[0]);
                }
                known.lock().expect("a lock").push(String::from_utf8_lossy(&line).trim_end().to_owned());
                if let Ok(server) = TcpStream::connect(to) {
                    thread::spawn(move || relay(client, server));
                }
            }
        });
        Self { addr, lines }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The headers so far, in the order of the connections.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().expect("a lock").clone()
    }
}

/// Debian's HAProxy, until the test lets go of it.
pub struct Haproxy {
    process: Child,
    addr: SocketAddr,
    _dir: Dir,
}

impl Haproxy {
    /// Whether there is one. A test that is skipped without it says so here, loudly.
    pub fn is_installed() -> bool {
        let found = command().arg("-v").stdout(Stdio::null()).status().is_ok_and(|status| status.success());
        if !found {
            eprintln!("\n*** SKIPPED: haproxy is not installed; tests/run installs what is missing ***\n");
        }
        found
    }

    /// Starts it with one `listen` section: these lines, behind its `bind` with these parameters.
    #[track_caller]
    pub fn start(bind: &str, lines: &str) -> Self {
        let (dir, addr) = (Dir::new(), free_addr());
        let file = format!(
            "global\n  nbthread 1\ndefaults\n  timeout connect 10s\n  timeout client 10s\n  timeout server 10s\n\
             listen it\n  bind {addr} {bind}\n{lines}\n"
        );
        fs::write(dir.join("haproxy.cfg"), file).expect("a file can be written");
        let process =
            command().args(["-db", "-q", "-f", &dir.path("haproxy.cfg")]).stdin(Stdio::null()).spawn();
        let haproxy = Self { process: process.expect("haproxy can be run"), addr, _dir: dir };
        eventually("haproxy listens", || TcpStream::connect(addr).is_ok());
        haproxy
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn command() -> Command {
    let mut haproxy = Command::new("haproxy");
    haproxy.env("PATH", format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default()));
    haproxy
}
