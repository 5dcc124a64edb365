//! The real `hopgate` binary, running on a configuration of its own.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use socket2::{Domain, Socket, Type};

use super::lines::Lines;
use super::{DEADLINE, Dir, Peer, Upstream};

/// A running hopgate; it is killed, and its directory removed, when the test lets go of it.
pub struct Hopgate {
    child: Child,
    dir: Dir,
    log: Lines,
    access: Lines,
    addrs: Vec<String>,
}

// Starting.
impl Hopgate {
    /// Runs hopgate on this configuration and waits until it listens.
    #[track_caller]
    pub fn start(toml: &str) -> Self {
        let mut hopgate = Self::spawn(toml, Stdio::piped());
        hopgate.access = Lines::follow(hopgate.child.stdout.take().expect("stdout is piped"));
        hopgate.wait_until_started()
    }

    /// As [`Hopgate::start`], with an access log (stdout) that goes to `stdout` and is not collected.
    #[track_caller]
    pub fn start_with_stdout(toml: &str, stdout: Stdio) -> Self {
        Self::spawn(toml, stdout).wait_until_started()
    }

    /// As [`Hopgate::start`], with these in its environment.
    #[track_caller]
    pub fn start_with_env(toml: &str, env: &[(&str, &str)]) -> Self {
        Self::spawn_with_env(toml, env).wait_until_started()
    }

    /// Runs hopgate with these in its environment, without waiting for anything.
    pub fn spawn_with_env(toml: &str, env: &[(&str, &str)]) -> Self {
        let dir = Dir::new();
        let file = dir.join("hopgate.toml");
        fs::write(&file, toml).expect("the configuration can be written");
        let args = ["run", "--config", &file.display().to_string()];
        let mut child = Self::run(&dir, &args, env, Stdio::piped(), Stdio::piped());
        let log = Lines::follow(child.stderr.take().expect("stderr is piped"));
        let access = Lines::follow(child.stdout.take().expect("stdout is piped"));
        Self { child, dir, log, access, addrs: Vec::new() }
    }

    /// Runs hopgate without waiting for anything.
    pub fn spawn(toml: &str, stdout: Stdio) -> Self {
        let dir = Dir::new();
        let file = dir.join("hopgate.toml");
        fs::write(&file, toml).expect("the configuration can be written");
        Self::spawn_with_args(dir, &["run", "--config", &file.display().to_string()], stdout)
    }

    /// Runs `hopgate run` with these arguments and no file.
    #[track_caller]
    pub fn quick(args: &[&str]) -> Self {
        Self::quick_with_env(args, &[])
    }

    /// As [`Hopgate::quick`], with these in its environment.
    #[track_caller]
    pub fn quick_with_env(args: &[&str], env: &[(&str, &str)]) -> Self {
        let dir = Dir::new();
        let mut child = Self::run(&dir, args, env, Stdio::piped(), Stdio::piped());
        let log = Lines::follow(child.stderr.take().expect("stderr is piped"));
        let access = Lines::follow(child.stdout.take().expect("stdout is piped"));
        Self { child, dir, log, access, addrs: Vec::new() }.wait_until_started()
    }

    /// As [`Hopgate::spawn`], with an error log that goes to `stderr` and is not collected; so its addresses are not
    /// known either.
    pub fn spawn_with_stderr(toml: &str, stderr: Stdio) -> Self {
        let dir = Dir::new();
        let file = dir.join("hopgate.toml");
        fs::write(&file, toml).expect("the configuration can be written");
        let args = ["run", "--config", &file.display().to_string()];
        let child = Self::run(&dir, &args, &[], Stdio::null(), stderr);
        Self { child, dir, log: Lines::default(), access: Lines::default(), addrs: Vec::new() }
    }

    fn spawn_with_args(dir: Dir, args: &[&str], stdout: Stdio) -> Self {
        let mut child = Self::run(&dir, args, &[], stdout, Stdio::piped());
        let log = Lines::follow(child.stderr.take().expect("stderr is piped"));
        Self { child, dir, log, access: Lines::default(), addrs: Vec::new() }
    }

    fn run(dir: &Dir, args: &[&str], env: &[(&str, &str)], stdout: Stdio, stderr: Stdio) -> Child {
        Command::new(env!("CARGO_BIN_EXE_hopgate"))
            .args(args)
            .current_dir(dir)
            .env_remove("RUST_LOG")
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .expect("hopgate can be run")
    }

    #[track_caller]
    fn wait_until_started(mut self) -> Self {
        self.log.expect(" started", 0);
        self.addrs = self.listening();
        self
    }

    /// One location that passes everything to `upstream`.
    #[track_caller]
    pub fn in_front_of(upstream: &Upstream) -> Self {
        Self::start(&config("", "", upstream.addr(), ""))
    }

    /// As [`Hopgate::in_front_of`], with these lines more at the top of the file.
    #[track_caller]
    pub fn with_top(upstream: &Upstream, lines: &str) -> Self {
        Self::start(&config(lines, "", upstream.addr(), ""))
    }

    /// As [`Hopgate::in_front_of`], with these lines more in the server.
    #[track_caller]
    pub fn with_server(upstream: &Upstream, lines: &str) -> Self {
        Self::start(&config("", lines, upstream.addr(), ""))
    }

    /// As [`Hopgate::in_front_of`], with these lines more in the location.
    #[track_caller]
    pub fn with_location(upstream: &Upstream, lines: &str) -> Self {
        Self::start(&config("", "", upstream.addr(), lines))
    }

    /// One location that passes everything to the upstream at `addr`, on a listener that speaks HTTP/2, too, with
    /// these lines more in the server and in the location.
    #[track_caller]
    pub fn speaking_http2(addr: &str, server: &str, location: &str) -> Self {
        let file = config("", server, addr, location);
        Self::start(&file.replace("\"127.0.0.1:0\"", "\"127.0.0.1:0 http2\""))
    }

    /// One location that passes everything to a group with these lines in it.
    #[track_caller]
    pub fn with_group(lines: &str) -> Self {
        Self::start(&config(&format!("[upstream.app]\n{lines}"), "", "app", ""))
    }
}

/// One server with one location, `/`; each of the lines may be empty.
fn config(top: &str, server: &str, upstream: &str, location: &str) -> String {
    format!(
        r#"
        workers = 1
        {top}

        [[server]]
        listen = "127.0.0.1:0"
        {server}

        [[server.location]]
        path = "/"
        proxy_pass = "http://{upstream}"
        {location}
        "#
    )
}

// Talking to it.
impl Hopgate {
    /// The first address it listens on.
    #[track_caller]
    pub fn addr(&self) -> SocketAddr {
        self.addrs[0].parse().expect("the first listener is a TCP one")
    }

    /// All addresses named in `listening on` lines so far.
    pub fn listening(&self) -> Vec<String> {
        let addr_of = |line: &String| {
            let after = line.split_once("listening on ")?.1;
            after.split_whitespace().next().map(str::to_owned)
        };
        self.log.matching("listening on ").iter().filter_map(addr_of).collect()
    }

    /// A new client connected to the first address.
    #[track_caller]
    pub fn connect(&self) -> Peer {
        self.connect_to(self.addr())
    }

    #[track_caller]
    pub fn connect_to(&self, addr: SocketAddr) -> Peer {
        let from = if addr.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { addr.ip() };
        connect(from, addr)
    }

    /// A new client that comes from this loopback address.
    #[track_caller]
    pub fn connect_from(&self, from: Ipv4Addr) -> Peer {
        connect(from.into(), self.addr())
    }

    #[track_caller]
    pub fn connect_unix(&self, path: &Path) -> Peer {
        Peer::new("client", UnixStream::connect(path).expect("hopgate listens on its path"))
    }

    /// Lets the only worker go round its loop: whatever it had been given before, it has dealt with afterwards.
    #[track_caller]
    pub fn settle(&self) {
        for _ in 0..2 {
            let mut client = self.connect();
            // Answered by hopgate itself, so that no upstream takes part.
            client.send("TRACE /settle HTTP/1.1\r\nHost: settle\r\n\r\n");
            client.head();
        }
    }

    /// Sends `GET path` on a connection of its own and returns the answer's status and body.
    #[track_caller]
    pub fn get(&self, path: &str) -> (u16, String) {
        let mut client = self.connect();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
        let response = client.response();
        (response.status, response.text())
    }
}

// Signals, files and logs.
impl Hopgate {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal by name: `TERM`, `HUP`, …
    #[track_caller]
    pub fn signal(&self, name: &str) {
        let kill = format!("kill -s {name} {}", self.pid());
        assert!(Command::new("sh").args(["-c", &kill]).status().expect("sh can be run").success(), "{kill}");
    }

    /// Replaces the file, and says nothing of it.
    #[track_caller]
    pub fn write_config(&self, toml: &str) {
        fs::write(self.dir.join("hopgate.toml"), toml).expect("the configuration can be written");
    }

    /// Replaces the file and waits until it is taken over.
    #[track_caller]
    pub fn reload_with(&self, toml: &str) {
        let before = self.log.count();
        self.write_config(toml);
        self.signal("HUP");
        self.log.expect("configuration reloaded", before);
    }

    /// Replaces the file by one that is wrong; returns what the log says.
    #[track_caller]
    pub fn refuse_reload_with(&self, toml: &str) -> String {
        let before = self.log.count();
        self.write_config(toml);
        self.signal("HUP");
        self.log.expect("reload refused", before)
    }

    /// The first line of the log that contains `pattern`, as soon as there is one.
    #[track_caller]
    pub fn wait_for_log(&self, pattern: &str) -> String {
        self.log.expect(pattern, 0)
    }

    /// The first line of the access log that contains `pattern`, as soon as there is one.
    #[track_caller]
    pub fn wait_for_access(&self, pattern: &str) -> String {
        self.access.expect(pattern, 0)
    }

    /// The lines of the access log that contain `pattern` so far.
    pub fn access_lines(&self, pattern: &str) -> Vec<String> {
        self.access.matching(pattern)
    }

    /// Everything logged so far.
    pub fn log(&self) -> String {
        self.log.all()
    }

    /// How it ended, once it has.
    #[track_caller]
    pub fn wait_exit(&mut self) -> ExitStatus {
        assert!(self.log.wait_for_end(), "still running after {DEADLINE:?}; its log:\n{}", self.log.all());
        self.child.wait().expect("a child can be waited for")
    }

    /// Whether the process has not ended yet.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child can be asked").is_none()
    }

    /// How many sockets the process holds.
    pub fn sockets(&self) -> usize {
        self.descriptors("socket:")
    }

    /// How many ends of pipes it holds.
    pub fn pipes(&self) -> usize {
        self.descriptors("pipe:")
    }

    fn descriptors(&self, kind: &str) -> usize {
        let entries = fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("a running process");
        let links = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        links.filter(|link| link.to_string_lossy().starts_with(kind)).count()
    }

    /// How many descriptors and how many threads it has.
    pub fn resources(&self) -> (usize, usize) {
        let count = |what: &str| {
            fs::read_dir(format!("/proc/{}/{what}", self.pid())).expect("a running process").count()
        };
        (count("fd"), count("task"))
    }

    /// The memory that it has resident, in KiB.
    pub fn resident_kib(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("a running process");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a VmRSS line");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number of KiB")
    }
}

impl Drop for Hopgate {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
fn connect(from: IpAddr, to: SocketAddr) -> Peer {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::new(from, 0).into()).expect("a loopback address to come from");
    socket
        .connect_timeout(&to.into(), DEADLINE)
        .unwrap_or_else(|error| panic!("client: cannot connect to {to}: {error}"));
    socket.set_tcp_nodelay(true).expect("a TCP socket takes TCP_NODELAY");
    Peer::new("client", socket)
}
