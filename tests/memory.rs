//! After a peak of tunnels the process is as large as before.

mod support;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{self, Command};
use std::thread;
use std::time::Duration;

use socket2::SockRef;
use support::{Hopgate, eventually, handshake, switching};

/// As many as fit into 20,000 open files of hopgate and of this test, which has both ends of each.
const TUNNELS: usize = 8000;
/// Begun before the first one of them is open.
const AT_ONCE: usize = 100;

#[test]
fn eight_thousand_tunnels_that_have_ended_leave_no_memory_behind() {
    allow_open_files(2 * TUNNELS as u32 + 1000);
    let upstream = switching_upstream();
    let hopgate = Hopgate::start(&format!(
        r#"
        workers = 1
        access_log = "off"
        [[server]]
        listen = "127.0.0.1:0"
        location = [{{ path = "/", proxy_pass = "http://{upstream}" }}]
        "#
    ));
    reset(open(hopgate.addr(), AT_ONCE));
    eventually("the first tunnels have ended", || hopgate.sockets() < AT_ONCE);
    let before = hopgate.resident_kib();

    let tunnels = open(hopgate.addr(), TUNNELS);
    let held = hopgate.resident_kib();
    reset(tunnels);

    eventually("the tunnels have ended", || hopgate.sockets() < AT_ONCE);
    let mut after = 0;
    eventually(&format!("not much more than {before} KiB, after {held}"), || {
        after = hopgate.resident_kib();
        after * 10 <= before * 12
    });
    assert!(
        held > before + TUNNELS,
        "{TUNNELS} tunnels took less than a KiB each: {before}, {held}, {after}"
    );
}

/// Where less is allowed, root allows more.
fn allow_open_files(n: u32) {
    let raised = |limit: String| {
        let args = ["--pid", &process::id().to_string(), &limit];
        Command::new("prlimit").args(args).status().expect("prlimit, of util-linux, can be run").success()
    };
    let is_allowed = raised(format!("--nofile={n}:")) || raised(format!("--nofile={n}:{n}"));
    assert!(is_allowed, "{n} open files are not allowed here: see `ulimit -Hn`");
}

/// Opens tunnels, a number of them at a time.
fn open(to: SocketAddr, count: usize) -> Vec<TcpStream> {
    let mut tunnels = Vec::with_capacity(count);
    while tunnels.len() < count {
        let begun = tunnels.len();
        for _ in begun..count.min(begun + AT_ONCE) {
            let mut tunnel = TcpStream::connect(to).unwrap();
            tunnel.write_all(handshake("/").as_bytes()).unwrap();
            tunnels.push(tunnel);
        }
        for tunnel in &mut tunnels[begun..] {
            expect_head(tunnel, b"HTTP/1.1 101 ");
        }
    }
    tunnels
}

/// Ends them in the way that leaves nothing to wait for.
fn reset(tunnels: Vec<TcpStream>) {
    for tunnel in tunnels {
        SockRef::from(&tunnel).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

/// Accepts every handshake.
fn switching_upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        let mut held = Vec::new();
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            expect_head(&mut connection, b"GET / ");
            connection.write_all(switching().as_bytes()).unwrap();
            held.push(connection);
        }
    });
    addr
}

/// Reads a head, which comes by itself, and makes sure how it begins.
fn expect_head(stream: &mut TcpStream, start: &[u8]) {
    let (mut head, mut buffer) = (Vec::new(), [0; 1024]);
    while !head.ends_with(b"\r\n\r\n") {
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "the connection has ended after {}", String::from_utf8_lossy(&head));
        head.extend_from_slice(&buffer[..count]);
    }
    assert!(head.starts_with(start), "{}", String::from_utf8_lossy(&head));
}
