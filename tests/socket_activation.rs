//! Sockets that systemd has opened: served, kept over reloads and restarts, and refused where they do not fit.

mod support;

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use socket2::{Domain, Socket, Type};
use support::{DEADLINE, Dir, Lines, OnDrop, Peer, Upstream, eventually, free_addr};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

/// Answers everything on these addresses with 204, and passes what is below `/app/` to `upstream`.
fn config(addrs: &[String], upstream: &str) -> String {
    format!(
        r#"
        workers = 2
        [[server]]
        listen = {addrs:?}
        location = [
            {{ path = "/", return = "204" }},
            {{ path = "/app/", proxy_pass = "http://{upstream}" }},
        ]
        "#
    )
}

/// A hopgate that was started as systemd starts it.
struct Activated {
    child: Child,
    log: Lines,
}

impl Activated {
    /// Passes one socket on, as the descriptor 3.
    fn with_socket(toml: &Dir, socket: impl Into<OwnedFd>) -> Self {
        // `exec` keeps the process, so that its number is the one in LISTEN_PID.
        let shell = "exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" \"$@\"";
        let mut command = Command::new("sh");
        command.args(["-c", shell, env!("CARGO_BIN_EXE_hopgate")]).stdin(Stdio::from(socket.into()));
        Self::run(command, toml)
    }

    /// Has the program of systemd open these sockets, which starts hopgate with the first connection.
    fn with_sockets_on(toml: &Dir, addrs: &[&str], args: &[&str]) -> Self {
        let mut command = Command::new("systemd-socket-activate");
        for addr in addrs {
            command.args(["--listen", addr]);
        }
        command.args(args).arg(env!("CARGO_BIN_EXE_hopgate")).stdin(Stdio::null());
        Self::run(command, toml)
    }

    fn run(mut command: Command, toml: &Dir) -> Self {
        let mut child = command
            .args(["run", "--config", &toml.path("hopgate.toml")])
            .env_remove("RUST_LOG")
            .env("LISTEN_FDNAMES", "web")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("this test needs systemd-socket-activate: run tests/run, which installs what is missing");
        let log = Lines::follow(child.stderr.take().expect("stderr is piped"));
        Self { child, log }
    }

    fn signal(&self, name: &str) {
        let kill = format!("kill -s {name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().expect("sh can be run").success(), "{kill}");
    }

    /// How many descriptors of this socket it has.
    fn copies_of(&self, socket: &TcpListener) -> usize {
        let link = format!("socket:[{}]", rustix::fs::fstat(socket).expect("an open socket").st_ino);
        let entries = fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("a running process");
        let links = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        links.filter(|found| found.as_os_str() == &*link).count()
    }

    #[track_caller]
    fn wait_exit(&mut self) -> ExitStatus {
        assert!(self.log.wait_for_end(), "still running after {DEADLINE:?}; its log:\n{}", self.log.all());
        self.child.wait().expect("a child can be waited for")
    }
}

impl Drop for Activated {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A directory with this configuration in it.
fn dir_with(toml: &str) -> Dir {
    let dir = Dir::new();
    fs::write(dir.join("hopgate.toml"), toml).expect("the configuration can be written");
    dir
}

#[track_caller]
fn connect(addr: SocketAddr) -> Peer {
    Peer::new("client", TcpStream::connect(addr).expect("the socket listens all the time"))
}

#[track_caller]
fn expect_an_answer(mut client: Peer) {
    client.send(GET);
    client.expect_status(204);
}

#[test]
fn the_sockets_of_systemd_are_those_of_listen_by_their_addresses() {
    let dir = Dir::new();
    let (addr, path) = (free_addr(), dir.path("web.sock"));
    let toml = config(&[format!("unix:{path}"), addr.to_string()], "127.0.0.1:1");
    fs::write(dir.join("hopgate.toml"), toml).expect("the configuration can be written");
    let mut hopgate = Activated::with_sockets_on(&dir, &[&addr.to_string(), &path], &["--fdname=web:local"]);
    hopgate.log.expect(&format!("Listening on {path}"), 0);
    expect_an_answer(connect(addr));
    expect_an_answer(Peer::new("client", UnixStream::connect(&path).expect("systemd listens there")));
    hopgate.signal("TERM");
    assert_eq!(hopgate.wait_exit().code(), Some(0), "{}", hopgate.log.all());
    assert!(dir.join("web.sock").exists(), "the file is systemd's");
}

#[test]
fn a_restart_refuses_no_connection() {
    let upstream = Upstream::listen();
    let held = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = held.local_addr().expect("its address");
    let dir = dir_with(&config(&[addr.to_string()], upstream.addr()));
    let socket = || held.try_clone().expect("a descriptor");
    let mut first = Activated::with_socket(&dir, socket());
    let mut busy = connect(addr);
    busy.send("GET /app/ HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut server = upstream.accept();
    server.head();
    first.signal("TERM");
    // The workers give their copies back when they accept nothing more.
    eventually("only one descriptor of the socket is left", || first.copies_of(&held) == 1);
    let mut early = connect(addr);
    early.send(GET);
    server.respond_and_close("done");
    busy.expect_status(200);
    assert_eq!(first.wait_exit().code(), Some(0), "{}", first.log.all());
    // While nobody is there.
    let between = connect(addr);
    let _second = Activated::with_socket(&dir, socket());
    early.expect_status(204);
    expect_an_answer(between);
}

#[test]
fn clients_that_come_all_the_time_see_nothing_of_restarts() {
    let held = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = held.local_addr().expect("its address");
    let dir = dir_with(&config(&[addr.to_string()], "127.0.0.1:1"));
    let socket = || held.try_clone().expect("a descriptor");
    let mut hopgate = Activated::with_socket(&dir, socket());
    let (is_over, answers) = (AtomicBool::new(false), AtomicUsize::new(0));
    let answered = |more: usize| {
        let before = answers.load(Ordering::Relaxed);
        eventually("clients are answered", || answers.load(Ordering::Relaxed) >= before + more);
    };
    thread::scope(|scope| {
        let clients = [(); 3].map(|()| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    // Neither refused nor reset, nor closed without an answer.
                    expect_an_answer(connect(addr));
                    answers.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        let end = OnDrop(|| is_over.store(true, Ordering::Relaxed));
        for _ in 0..5 {
            answered(50);
            hopgate.signal("TERM");
            assert_eq!(hopgate.wait_exit().code(), Some(0), "{}", hopgate.log.all());
            hopgate = Activated::with_socket(&dir, socket());
        }
        answered(50);
        drop(end);
        for client in clients {
            client.join().expect("no client has failed");
        }
    });
}

#[test]
fn a_reload_keeps_the_socket() {
    let held = TcpListener::bind("127.0.0.1:0").expect("a port");
    let (addr, other) = (held.local_addr().expect("its address"), free_addr());
    let dir = dir_with(&config(&[addr.to_string()], "127.0.0.1:1"));
    let hopgate = Activated::with_socket(&dir, held);
    expect_an_answer(connect(addr));
    let reload = |toml: String, told: &str| {
        let before = hopgate.log.count();
        fs::write(dir.join("hopgate.toml"), toml).expect("the configuration can be written");
        hopgate.signal("HUP");
        hopgate.log.expect(told, before)
    };
    reload(config(&[addr.to_string(), other.to_string()], "127.0.0.1:1"), "configuration reloaded");
    expect_an_answer(connect(other));
    expect_an_answer(connect(addr));
    // Without it, its connections would wait for nobody.
    let line = reload(config(&[other.to_string()], "127.0.0.1:1"), "reload refused");
    assert!(line.contains(&format!("write `listen = \"{addr}\"`")), "{line}");
    expect_an_answer(connect(addr));
}

/// A socket on `[::]` that takes IPv4 connections, too: `BindIPv6Only=both`.
fn for_both_versions() -> Socket {
    let both = Socket::new(Domain::IPV6, Type::STREAM, None).expect("a socket");
    both.set_only_v6(false).expect("a socket for both");
    both.bind(&"[::]:0".parse::<SocketAddr>().expect("an address").into()).expect("a port");
    both.listen(1).expect("it can listen");
    both
}

/// What a server with this `listen` says of where a connection came to.
fn where_at(listen: &str) -> String {
    format!(
        "[[server]]\nlisten = {listen}\nreturn = '200 \"at $server_addr:$server_port, from $remote_addr\"'\n"
    )
}

#[track_caller]
fn expect_at(mut client: Peer, expected: &str) {
    client.send(GET);
    let body = client.expect_status(200).text();
    assert_eq!(body, expected);
}

#[test]
fn sockets_of_one_name_are_one_listener_wherever_they_are() {
    let dir = Dir::new();
    let (addr, path) = (free_addr(), dir.path("web.sock"));
    fs::write(dir.join("hopgate.toml"), where_at("'fd:web'")).expect("the configuration can be written");
    let named = &["--fdname=web:web"];
    let mut hopgate = Activated::with_sockets_on(&dir, &[&addr.to_string(), &path], named);
    hopgate.log.expect(&format!("Listening on {path}"), 0);
    expect_at(connect(addr), &format!("at 127.0.0.1:{}, from 127.0.0.1", addr.port()));
    let local = Peer::new("client", UnixStream::connect(&path).expect("systemd listens there"));
    expect_at(local, &format!("at unix:{path}:, from unix:"));
    hopgate.signal("TERM");
    assert_eq!(hopgate.wait_exit().code(), Some(0), "{}", hopgate.log.all());
}

#[test]
fn names_tell_sockets_apart_and_take_the_parameters_of_an_address() {
    let dir = Dir::new();
    let [plain, balanced] = [free_addr(), free_addr()];
    let toml = format!(
        "{}{}{}trusted_proxies = [\"127.0.0.1\"]\n",
        where_at("'fd:plain'"),
        "[[server]]\nlisten = 'fd:plain'\nserver_name = 'other'\nreturn = '200 other'\n",
        where_at("'fd:balanced proxy_protocol'"),
    );
    fs::write(dir.join("hopgate.toml"), toml).expect("the configuration can be written");
    let addrs = [plain.to_string(), balanced.to_string()];
    let hopgate = Activated::with_sockets_on(&dir, &[&addrs[0], &addrs[1]], &["--fdname=plain:balanced"]);
    hopgate.log.expect(&format!("Listening on {balanced}"), 0);
    expect_at(connect(plain), &format!("at 127.0.0.1:{}, from 127.0.0.1", plain.port()));
    let mut other = connect(plain);
    other.send("GET / HTTP/1.1\r\nHost: other\r\nConnection: close\r\n\r\n");
    assert_eq!(other.expect_status(200).text(), "other");
    let mut client = connect(balanced);
    client.send("PROXY TCP4 192.0.2.7 192.0.2.8 50000 80\r\n");
    expect_at(client, &format!("at 127.0.0.1:{}, from 192.0.2.7", balanced.port()));
}

#[test]
fn a_socket_for_both_versions_of_ip_can_be_named() {
    let both = for_both_versions();
    let port = both.local_addr().expect("its address").as_socket().expect("of IP").port();
    let dir = dir_with(&where_at("'fd:web'"));
    let _hopgate = Activated::with_socket(&dir, both);
    for (host, ip) in [("127.0.0.1", "127.0.0.1"), ("[::1]", "::1")] {
        let addr = format!("{host}:{port}").parse().expect("an address");
        expect_at(connect(addr), &format!("at {ip}:{port}, from {ip}"));
    }
}

#[test]
fn a_reload_calls_a_socket_by_its_name_or_by_its_address() {
    let held = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = held.local_addr().expect("its address");
    let dir = dir_with(&where_at(&format!("'{addr}'")));
    let hopgate = Activated::with_socket(&dir, held);
    let here = format!("at 127.0.0.1:{}, from 127.0.0.1", addr.port());
    expect_at(connect(addr), &here);
    let reload = |listen: &str, told: &str| {
        let before = hopgate.log.count();
        fs::write(dir.join("hopgate.toml"), where_at(listen)).expect("the configuration can be written");
        hopgate.signal("HUP");
        let line = hopgate.log.expect(told, before);
        expect_at(connect(addr), &here);
        line
    };
    reload("'fd:web'", "configuration reloaded");
    let line = reload("['fd:web', 'fd:other']", "reload refused");
    assert!(line.contains("no socket of that name, only `web`: write `FileDescriptorName=other`"), "{line}");
    let line = reload(&format!("['fd:web', '{addr}']"), "reload refused");
    assert!(line.contains(&format!("take `{addr}` out of `listen`")), "{line}");
    reload(&format!("'{addr}'"), "configuration reloaded");
}

#[test]
fn a_name_without_a_socket_is_told_with_what_to_write() {
    let dir = dir_with(&where_at("'fd:web'"));
    let mut hopgate = Activated::run(Command::new(env!("CARGO_BIN_EXE_hopgate")), &dir);
    assert_eq!(hopgate.wait_exit().code(), Some(1));
    let said = hopgate.log.all();
    assert!(said.contains("nor any other: write `FileDescriptorName=web` below `[Socket]`"), "{said}");
}

#[test]
fn a_socket_that_does_not_fit_is_told_with_what_to_change() {
    let dir = dir_with(&config(&["127.0.0.1:0".to_owned()], "127.0.0.1:1"));
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = tcp.local_addr().expect("its address");
    let unix = UnixListener::bind(dir.join("a.sock")).expect("a path");
    let path = dir.path("a.sock");
    let both = for_both_versions();
    let udp = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let connection = TcpStream::connect(addr).expect("it listens");
    let rows: [(OwnedFd, String); 5] = [
        (
            tcp.into(),
            format!("on {addr} (`web`), and no `listen` names that address: write `listen = \"{addr}\"`"),
        ),
        (
            unix.into(),
            format!("write `listen = \"unix:{path}\"` or `\"fd:web\"`, or take its ListenStream= out"),
        ),
        (
            both.into(),
            "write `listen = \"fd:web\"`; or `BindIPv6Only=ipv6-only` in the .socket unit, and \
             `ListenStream=0.0.0.0:"
                .to_owned(),
        ),
        (udp.into(), "there may only be ListenStream=".to_owned()),
        (connection.into(), "does not listen (`web`): write `Accept=no` in its .socket unit".to_owned()),
    ];
    for (socket, expected) in rows {
        let mut hopgate = Activated::with_socket(&dir, socket);
        let status = hopgate.wait_exit();
        assert_eq!(status.code(), Some(1), "{expected}");
        assert!(hopgate.log.all().contains(&expected), "expected {expected}\ngot {}", hopgate.log.all());
    }
}

#[test]
fn the_sockets_of_another_process_are_left_alone() {
    let addr = free_addr();
    let dir = dir_with(&config(&[addr.to_string()], "127.0.0.1:1"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_hopgate"));
    command.env("LISTEN_FDS", "1").env("LISTEN_PID", "1").stdin(Stdio::null());
    let hopgate = Activated::run(command, &dir);
    hopgate.log.expect(" started", 0);
    expect_an_answer(connect(addr));
}
