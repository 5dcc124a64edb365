//! SIGUSR2: a new process takes over the listening sockets, and the old one drains.

mod support;

use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use support::{
    App, DEADLINE, Dir, Lines, OnDrop, Peer, ServiceManager, Upstream, eventually, free_addr, handshake,
    switching,
};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// A hopgate that is started by a path of its own, and the processes that take over from it.
struct Service {
    dir: Dir,
    child: Child,
    /// The process that serves.
    pid: u32,
    log: Lines,
}

impl Service {
    fn start(toml: &str) -> Self {
        Self::start_with(toml, &[], Stdio::null(), "exec \"$0\" \"$@\"")
    }

    /// By a line of a shell that replaces itself with `$0`.
    fn start_with(toml: &str, env: &[(&str, &str)], stdin: impl Into<Stdio>, shell: &str) -> Self {
        let dir = Dir::new();
        fs::write(dir.join("hopgate.toml"), toml).expect("the configuration can be written");
        symlink(env!("CARGO_BIN_EXE_hopgate"), dir.join("hopgate"))
            .expect("a link in a directory of its own");
        let mut child = Command::new("sh")
            .args(["-c", shell, &dir.path("hopgate"), "run", "--config", &dir.path("hopgate.toml")])
            .env_remove("RUST_LOG")
            .envs(env.iter().copied())
            .stdin(stdin)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("hopgate can be run");
        let log = Lines::follow(child.stderr.take().expect("stderr is piped"));
        log.expect(" started", 0);
        Self { pid: child.id(), dir, child, log }
    }

    fn write_config(&self, toml: &str) {
        fs::write(self.dir.join("hopgate.toml"), toml).expect("the configuration can be written");
    }

    /// Puts a script where the program is.
    fn replace_program(&self, script: &str) {
        let path = self.dir.join("hopgate");
        fs::remove_file(&path).expect("it is there");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("a file in a directory of its own");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a file of ours");
    }

    /// Puts the program back to its place.
    fn restore_program(&self) {
        fs::remove_file(self.dir.join("hopgate")).expect("it is there");
        symlink(env!("CARGO_BIN_EXE_hopgate"), self.dir.join("hopgate")).expect("its place is free");
    }

    #[track_caller]
    fn signal(&self, name: &str) {
        signal(self.pid, name);
    }

    /// Has a new process take over; returns the one from before, which drains.
    #[track_caller]
    fn replace(&mut self) -> u32 {
        let before = self.log.count();
        self.signal("USR2");
        self.expect_replaced(before)
    }

    /// As [`Service::replace`], for a signal that was sent when the log had so many lines.
    #[track_caller]
    fn expect_replaced(&mut self, before: usize) -> u32 {
        let old = self.pid;
        let line = self.log.expect(&format!(" has taken over from process {old}"), before);
        let pid = line.split_whitespace().skip_while(|word| *word != "process").nth(1);
        self.pid = pid.and_then(|pid| pid.parse().ok()).unwrap_or_else(|| panic!("no process in {line}"));
        self.log.expect(&format!(" taken over from process {old}, which drains"), before);
        assert_ne!(self.pid, old);
        old
    }

    /// Tries the same where it cannot succeed; returns what the log says.
    #[track_caller]
    fn fail_to_replace(&self) -> String {
        let before = self.log.count();
        self.signal("USR2");
        self.log.expect("no other process takes over, this one goes on: ", before)
    }

    #[track_caller]
    fn reload_with(&self, toml: &str) {
        let before = self.log.count();
        self.write_config(toml);
        self.signal("HUP");
        self.log.expect("configuration reloaded", before);
    }

    /// Every process that was started with its configuration, also one that an expectation has missed.
    fn others(&self) -> Vec<u32> {
        let file = self.dir.path("hopgate.toml");
        let pids = fs::read_dir("/proc").expect("there is /proc").filter_map(|entry| {
            let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let arguments = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            arguments.split(|byte| *byte == 0).any(|argument| argument == file.as_bytes()).then_some(pid)
        });
        pids.collect()
    }

    /// Waits until all its processes are gone.
    #[track_caller]
    fn expect_end(&mut self) {
        assert!(self.log.wait_for_end(), "still running after {DEADLINE:?}; its log:\n{}", self.log.all());
        self.child.wait().expect("a child can be waited for");
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Each of them may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        for pid in self.others() {
            let _ = Command::new("sh").args(["-c", &format!("kill -s KILL {pid} 2>&-")]).status();
        }
        if !thread::panicking() {
            assert!(self.log.wait_for_end(), "a process is left behind:\n{}", self.log.all());
        }
    }
}

#[track_caller]
fn signal(pid: u32, name: &str) {
    let kill = format!("kill -s {name} {pid}");
    assert!(Command::new("sh").args(["-c", &kill]).status().expect("sh can be run").success(), "{kill}");
}

/// Whether there is such a process, and it is no zombie.
fn runs(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// How many descriptors and threads it has.
fn resources(pid: u32) -> (usize, usize) {
    let count = |what: &str| fs::read_dir(format!("/proc/{pid}/{what}")).expect("a running process").count();
    (count("fd"), count("task"))
}

/// Those of a process that has no more to do with its start.
#[track_caller]
fn settled(service: &Service) -> (usize, usize) {
    let (mut before, mut looks) = ((0, 0), 0);
    eventually("it has settled", || {
        let now = resources(service.pid);
        looks = if std::mem::replace(&mut before, now) == now { looks + 1 } else { 0 };
        looks == 20
    });
    before
}

/// A server on these addresses that answers with `answer`, and passes what is below `/app/` to `upstream`.
fn config(workers: usize, listen: &[String], answer: &str, upstream: &str) -> String {
    format!(
        r#"
        workers = {workers}
        shutdown_timeout = "3s"
        [[server]]
        listen = {listen:?}
        location = [
            {{ path = "/", return = "200 {answer}" }},
            {{ path = "/app/", proxy_pass = "http://{upstream}" }},
        ]
        "#
    )
}

#[track_caller]
fn connect(addr: SocketAddr) -> Peer {
    let stream = TcpStream::connect(addr).expect("the socket listens all the time");
    Peer::new("client", stream)
}

#[track_caller]
fn get(addr: SocketAddr) -> String {
    let mut client = connect(addr);
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    client.expect_status(200).text()
}

/// The old process goes on to accept until its workers have heard that it drains.
#[track_caller]
fn expect_answers(addr: SocketAddr, answer: &str) {
    eventually("only the new process accepts", || (0..20).all(|_| get(addr) == answer));
}

/// Both ends of a tunnel, the client's first.
#[track_caller]
fn open_tunnel(addr: SocketAddr, upstream: &Upstream) -> (Peer, Peer) {
    let mut client = connect(addr);
    client.send(handshake("/app/"));
    let mut server = upstream.accept();
    server.head();
    server.send(switching());
    client.expect_status(101);
    (client, server)
}

/// Asks without a pause, on a new connection each time, until told to stop. Nothing of it may fail.
fn ask_on_new_connections(addr: SocketAddr, is_over: &AtomicBool, answers: &AtomicUsize) {
    while !is_over.load(Ordering::Relaxed) {
        let mut client = connect(addr);
        client.send("GET /app/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        assert_eq!(client.expect_status(200).text(), "app");
        client.expect_eof();
        answers.fetch_add(1, Ordering::Relaxed);
    }
}

/// The same on a connection that is kept. It may be closed between two answers, as any kept connection, in the same
/// instant in which a request is sent: RFC 9112 §9.3.1 has it sent again on another one, as long as nothing of an answer
/// has come.
fn ask_on_kept_connections(addr: SocketAddr, is_over: &AtomicBool, answers: &AtomicUsize) {
    let mut client = None;
    while !is_over.load(Ordering::Relaxed) {
        let mut kept = client.take().unwrap_or_else(|| connect(addr));
        if !kept.send_if_open("GET /app/ HTTP/1.1\r\nHost: a\r\n\r\n") {
            continue;
        }
        let Some(response) = kept.response_if_any() else { continue };
        assert_eq!((response.status, response.text()), (200, "app".to_owned()));
        answers.fetch_add(1, Ordering::Relaxed);
        if !response.head.has_member("Connection", "close") {
            client = Some(kept);
        }
    }
}

#[test]
fn new_processes_take_over_one_after_the_other_under_load_and_nothing_fails() {
    let (app, upstream, addr) = (App::named("app"), Upstream::listen(), free_addr());
    let toml = |workers, answer| {
        config(workers, &[addr.to_string()], answer, app.addr()).replace(
            "location = [",
            &format!("location = [{{ path = \"/app/ws\", proxy_pass = \"http://{}\" }},", upstream.addr()),
        )
    };
    let mut service = Service::start(&toml(2, "first"));
    let (is_over, answers) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| ask_on_new_connections(addr, &is_over, &answers));
            scope.spawn(|| ask_on_kept_connections(addr, &is_over, &answers));
        }
        // Ends the load if an expectation fails.
        let _end = OnDrop(|| is_over.store(true, Ordering::Relaxed));
        // With more workers, with fewer, and with as many: every socket of the one before has to be accepted from.
        for (workers, answer) in [(4, "second"), (1, "third"), (2, "fourth"), (2, "fifth"), (2, "sixth")] {
            let goes_on = || {
                let before = answers.load(Ordering::Relaxed);
                eventually("requests are answered", || answers.load(Ordering::Relaxed) > before + 50);
            };
            goes_on();
            let mut client = connect(addr);
            client.send(handshake("/app/ws"));
            let mut server = upstream.accept();
            server.head();
            server.send(switching());
            client.expect_status(101);
            service.write_config(&toml(workers, answer));
            let old = service.replace();
            client.send("through the old process");
            server.expect("through the old process");
            expect_answers(addr, answer);
            goes_on();
            // The drain ends it as a drain does, within its first third.
            client.expect_eof();
            server.expect_eof();
            drop((client, server));
            eventually("the old process has ended", || !runs(old));
        }
    });
    // As any other process: it can be reloaded, and stopped.
    service.reload_with(&toml(2, "reloaded"));
    assert_eq!(get(addr), "reloaded");
    service.signal("TERM");
    service.expect_end();
    TcpStream::connect(addr).unwrap_err();
}

#[test]
fn a_process_that_has_taken_over_holds_what_the_first_one_held() {
    let (addr, dir) = (free_addr(), Dir::new());
    let path = dir.join("web.sock");
    let listen = [addr.to_string(), format!("unix:{}", path.display())];
    let mut service = Service::start(&config(2, &listen, "here", "127.0.0.1:1"));
    let first = settled(&service);
    for _ in 0..3 {
        let old = service.replace();
        eventually("the old process has ended", || !runs(old));
        assert_eq!(settled(&service), first, "descriptors and threads");
        let mut client =
            Peer::new("client", UnixStream::connect(&path).expect("its file is there all the time"));
        client.send(GET);
        assert_eq!(client.expect_status(200).text(), "here");
    }
    // It is the last one's to remove.
    service.signal("TERM");
    service.expect_end();
    assert!(!path.exists());
}

#[test]
fn probes_are_answered_all_the_time_and_by_the_process_that_serves() {
    let (addr, probes, dir, upstream) = (free_addr(), free_addr(), Dir::new(), Upstream::listen());
    let path = dir.join("health.sock");
    let toml = config(1, &[addr.to_string()], "here", upstream.addr());
    let health = format!("[health]\nlisten = ['{probes}', 'unix:{}']\n", path.display());
    let mut service = Service::start(&(toml + &health));
    let ready = || {
        let mut probe = connect(probes);
        probe.send("GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n");
        probe.response().status
    };
    assert_eq!(ready(), 200);
    // Keeps the old process in its drain.
    let (_client, _server) = open_tunnel(addr, &upstream);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let probing = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                assert_eq!(ready(), 200);
            }
        });
        let end = OnDrop(|| is_over.store(true, Ordering::Relaxed));
        let old = service.replace();
        expect_answers(addr, "here");
        assert!(runs(old) && path.exists());
        drop(end);
        probing.join().expect("every probe is answered well");
    });
    let mut probe = Peer::new("probe", UnixStream::connect(&path).expect("its file is there"));
    probe.send("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n");
    probe.expect_status(200);
    service.signal("TERM");
    eventually("its file is removed", || !path.exists());
}

#[test]
fn addresses_come_and_go_with_the_configuration_of_the_new_process() {
    let upstream = Upstream::listen();
    let (kept, gone, new, dir) = (free_addr(), free_addr(), free_addr(), Dir::new());
    let unix = |name: &str| format!("unix:{}", dir.path(name));
    let first = [kept.to_string(), gone.to_string(), unix("gone.sock")];
    let mut service = Service::start(&config(2, &first, "old", upstream.addr()));
    service.write_config(&config(
        2,
        &[kept.to_string(), new.to_string(), unix("new.sock")],
        "new",
        upstream.addr(),
    ));
    let (_client, _server) = open_tunnel(kept, &upstream);
    let old = service.replace();
    expect_answers(kept, "new");
    expect_answers(new, "new");
    eventually("nobody listens where the new configuration does not", || TcpStream::connect(gone).is_err());
    eventually("its file is removed", || !dir.join("gone.sock").exists());
    assert!(dir.join("new.sock").exists() && runs(old));
}

#[test]
fn without_a_new_process_that_serves_the_old_one_goes_on() {
    let (addr, taken) = (free_addr(), TcpListener::bind("127.0.0.1:0").expect("a port"));
    let taken = taken.local_addr().map(|addr| (addr.to_string(), taken)).expect("its address");
    let good = config(2, &[addr.to_string()], "first", "127.0.0.1:1");
    let mut service = Service::start(&good);
    let (pid, before) = (service.pid, settled(&service));
    let expect_refusal = |service: &Service, why: &str| {
        let line = service.fail_to_replace();
        assert!(line.contains("ERROR") && line.contains(why), "expected: {why}\n     got: {line}");
        assert_eq!(get(addr), "first");
    };
    service.write_config("[[server]]\nlistens = 1\n");
    expect_refusal(&service, "unknown key `listens`");
    // Further workers: what they listen on must not take connections before all is bound.
    service.write_config(&config(8, &[addr.to_string(), taken.0.clone()], "second", "127.0.0.1:1"));
    expect_refusal(&service, &format!("cannot listen on {}: ", taken.0));
    let any = format!("0.0.0.0:{}", addr.port());
    service.write_config(&config(2, std::slice::from_ref(&any), "second", "127.0.0.1:1"));
    expect_refusal(
        &service,
        &format!("cannot listen on {any} while hopgate itself listens on {addr}; to change"),
    );
    service.write_config(&good);
    service.replace_program("exit 3");
    expect_refusal(&service, "the new process has ended without a word, exit status: 3");
    service.replace_program("kill -s SEGV $$");
    expect_refusal(&service, "the new process has ended without a word, signal: 11");
    // It reads nothing, and goes on.
    service.replace_program("exec sleep 60 <&-");
    expect_refusal(&service, "the new process has ended without a word, signal: 9");
    fs::remove_file(service.dir.join("hopgate")).expect("it is there");
    expect_refusal(&service, &format!("{} cannot be started: No such file", service.dir.path("hopgate")));
    fs::write(service.dir.join("hopgate"), "not executable").expect("a file");
    expect_refusal(&service, "cannot be started: Permission denied");
    eventually("nothing stays of all that", || resources(pid) == before);

    service.restore_program();
    service.replace();
    assert_eq!(get(addr), "first");
}

#[test]
fn a_process_is_replaced_whose_working_directory_is_gone() {
    let addr = free_addr();
    let toml = config(1, &[addr.to_string()], "here", "127.0.0.1:1");
    let shell = "dir=$(mktemp -d) && cd \"$dir\" && rmdir \"$dir\" && exec \"$0\" \"$@\"";
    let mut service = Service::start_with(&toml, &[], Stdio::null(), shell);
    service.replace();
    assert_eq!(get(addr), "here");
}

/// Keeps a new process from starting until this file is there.
fn wait_for(file: &Path) -> String {
    format!(
        "while [ ! -e '{}' ]; do sleep 0.02; done; exec {} \"$@\"",
        file.display(),
        env!("CARGO_BIN_EXE_hopgate")
    )
}

#[test]
fn what_is_asked_while_a_new_process_starts_is_done_afterwards() {
    let (addr, dir) = (free_addr(), Dir::new());
    let toml = |answer| config(2, &[addr.to_string()], answer, "127.0.0.1:1");
    let mut service = Service::start(&toml("first"));
    let go = dir.join("go");
    // By the old process, if the new one fails …
    service.replace_program(&format!("while [ ! -e '{}' ]; do sleep 0.02; done; exit 1", go.display()));
    let before = service.log.count();
    service.signal("USR2");
    service.log.expect("is started to take over", before);
    service.signal("USR2");
    let line = service.log.expect("a signal was not obeyed", before);
    assert!(line.contains("is about to take over already"), "{line}");
    service.write_config(&toml("second"));
    service.signal("HUP");
    // A signal that is dealt with at once: the one before has been, too.
    service.signal("USR1");
    service.log.expect("logs reopened", before);
    assert_eq!(get(addr), "first");
    fs::write(&go, "").expect("a file in a directory of its own");
    service.log.expect("this one goes on", before);
    service.log.expect("configuration reloaded", before);
    assert_eq!(get(addr), "second");

    // … and by the new one otherwise.
    fs::remove_file(&go).expect("it is there");
    service.replace_program(&wait_for(&go));
    let before = service.log.count();
    service.signal("USR2");
    service.log.expect("is started to take over", before);
    service.signal("HUP");
    service.signal("USR1");
    service.log.expect("logs reopened", before);
    fs::write(&go, "").expect("a file in a directory of its own");
    service.expect_replaced(before);
    service.log.expect("configuration reloaded", before);
    let reopened = || service.log.all().matches("logs reopened").count();
    // By the old process twice, and by the new one.
    eventually("the new process opens its logs, too", || reopened() == 3);
}

#[test]
fn a_signal_that_comes_too_late_is_passed_on_to_the_process_that_has_taken_over() {
    let (addr, upstream, dir) = (free_addr(), Upstream::listen(), Dir::new());
    let toml = |answer| {
        let toml = config(1, &[addr.to_string()], answer, upstream.addr()).replace("\"3s\"", "\"1h\"");
        format!("access_log = \"{}\"\n{toml}", dir.path("access.log"))
    };
    let mut service = Service::start(&toml("first"));
    let (client, server) = open_tunnel(addr, &upstream);
    let first = service.replace();
    let second = service.replace();
    // The one in the middle has ended: there is nobody to pass on to.
    service.log.expect(&format!("process {second}, which has taken over, has ended"), 0);
    let before = service.log.count();
    signal(first, "HUP");
    service.log.expect("a signal was not obeyed: hopgate is stopping", before);
    signal(first, "INT");
    drop((client, server));

    let (client, server) = open_tunnel(addr, &upstream);
    let old = service.replace();
    service.write_config(&toml("second"));
    signal(old, "HUP");
    service.log.expect("configuration reloaded", before);
    assert_eq!(get(addr), "second");
    fs::rename(dir.join("access.log"), dir.join("access.log.1")).expect("it is there");
    signal(old, "USR1");
    eventually("both processes have opened it anew", || {
        service.log.all().matches("logs reopened").count() == 2
    });
    drop((client, server));
    eventually("the old process has ended", || !runs(old));
    let log = fs::read_to_string(dir.join("access.log")).expect("it was opened anew");
    assert!(log.contains("GET /app/ "), "{log}");
}

#[test]
fn what_a_process_that_has_failed_listens_on_is_free_for_the_reload_that_waits() {
    let (addr, new, dir) = (free_addr(), free_addr(), Dir::new());
    let service = Service::start(&config(1, &[addr.to_string()], "first", "127.0.0.1:1"));
    let go = dir.join("go");
    // It listens where the next configuration does, says that it has failed, and goes on.
    service.replace_program(&format!(
        "exec 3<&0
        {{ while [ ! -e '{}' ]; do sleep 0.02; done; printf '{{\"type\":\"failed\",\"reason\":\"no\"}}' >&3; }} &
        exec env -u HOPGATE_TAKEOVER {} run --upstream http://127.0.0.1:1 --listen {new} </dev/null",
        go.display(),
        env!("CARGO_BIN_EXE_hopgate"),
    ));
    let before = service.log.count();
    service.signal("USR2");
    service.log.expect(&format!("listening on {new}"), before);
    service.write_config(&config(1, &[addr.to_string(), new.to_string()], "second", "127.0.0.1:1"));
    service.signal("HUP");
    // A signal that is dealt with at once: the one before has been, too.
    service.signal("USR1");
    service.log.expect("logs reopened", before);
    fs::write(&go, "").expect("a file in a directory of its own");
    service.log.expect("this one goes on: no", before);
    service.log.expect("configuration reloaded", before);
    assert_eq!(get(new), "second");
}

/// Half of a probe, which is the old process's to answer.
#[track_caller]
fn begin_probe(service: &Service, health: SocketAddr) -> Peer {
    let before = settled(service).0;
    let mut probe = connect(health);
    probe.send("GET /readyz HTTP/1.1\r\nHost: a\r\n");
    eventually("it is accepted", || resources(service.pid).0 > before);
    probe
}

#[test]
fn a_probe_that_has_come_before_is_told_that_the_service_is_ready() {
    let (addr, health, upstream) = (free_addr(), free_addr(), Upstream::listen());
    let toml = |timeout| {
        let toml = config(2, &[addr.to_string()], "here", upstream.addr()).replace("3s", timeout);
        format!("{toml}[health]\nlisten = \"{health}\"\n")
    };
    let mut service = Service::start(&toml("1h"));
    let (_client, _server) = open_tunnel(addr, &upstream);
    let mut probe = begin_probe(&service, health);
    let threads = resources(service.pid).1;
    service.write_config(&toml("3s"));
    let old = service.replace();
    // One for the process that has taken over is new.
    eventually("the worker without a tunnel has ended", || resources(old).1 <= threads);
    probe.send("\r\n");
    assert_eq!(probe.expect_status(200).text(), "ok\n");
    assert!(!service.log.all().contains("health checks fail"), "{}", service.log.all());
    signal(old, "INT");

    // Also by a process with nothing else to do.
    let mut probe = begin_probe(&service, health);
    service.replace();
    probe.send("\r\n");
    assert_eq!(probe.expect_status(200).text(), "ok\n");
}

#[test]
fn a_process_that_is_to_end_takes_the_one_that_it_has_started_with_it() {
    for name in ["TERM", "INT"] {
        let addr = free_addr();
        let mut service = Service::start(&config(2, &[addr.to_string()], "here", "127.0.0.1:1"));
        service.replace_program("exec sleep 60");
        service.signal("USR2");
        service.log.expect("is started to take over", 0);
        service.signal(name);
        // The log ends with the last process that writes to it.
        service.expect_end();
    }
}

#[test]
fn sigterm_lets_a_process_drain_on_that_drains_for_another_one() {
    let (addr, upstream) = (free_addr(), Upstream::listen());
    let toml = config(1, &[addr.to_string()], "here", upstream.addr()).replace("\"3s\"", "\"1h\"");
    let mut service = Service::start(&toml);
    let (mut client, mut server) = open_tunnel(addr, &upstream);
    let old = service.replace();
    let before = service.log.count();
    signal(old, "USR2");
    service.log.expect("a signal was not obeyed: hopgate is stopping", before);
    signal(old, "TERM");
    service.log.expect("draining already", 0);
    client.send("still");
    server.expect("still");
    signal(old, "TERM");
    client.expect_closed();
    eventually("it has ended", || !runs(old));
    assert_eq!(get(addr), "here");
}

#[test]
fn systemd_is_told_which_process_the_service_is() {
    let (manager, addr) = (ServiceManager::listen(), free_addr());
    let env = [("NOTIFY_SOCKET", manager.name()), ("WATCHDOG_USEC", "200000")];
    let toml = config(2, &[addr.to_string()], "here", "127.0.0.1:1");
    // `exec` keeps the process, so that the watchdog is for hopgate, as it is with systemd.
    let mut service = Service::start_with(&toml, &env, Stdio::null(), "WATCHDOG_PID=$$ exec \"$0\" \"$@\"");
    manager.expect("READY=1");
    manager.expect("WATCHDOG=1");
    for _ in 0..2 {
        let old = service.replace();
        let main = format!("MAINPID={}", service.pid);
        let mut told = Vec::new();
        while !told.contains(&main) {
            told.extend(manager.next_within(DEADLINE).expect("a message"));
        }
        assert!(!told.iter().any(|line| line.starts_with("STOPPING") || line == "READY=1"), "{told:?}");
        eventually("the old process has ended", || !runs(old));
        // From here on it is the new one that speaks.
        assert_eq!(manager.expect("READY=1")[1], "STATUS=serving; connections: 0, tunnels: 0");
        manager.expect("WATCHDOG=1");
    }
    service.signal("TERM");
    manager.expect("STOPPING=1");
    service.expect_end();
}

#[test]
fn the_watchdog_hears_of_a_process_as_soon_as_that_is_the_service() {
    let (manager, addr) = (ServiceManager::listen(), free_addr());
    // By itself it would be told in half of this time, which is longer than anything is waited for here.
    let env = [("NOTIFY_SOCKET", manager.name()), ("WATCHDOG_USEC", "60000000")];
    let toml = config(2, &[addr.to_string()], "here", "127.0.0.1:1");
    let mut service = Service::start_with(&toml, &env, Stdio::null(), "exec \"$0\" \"$@\"");
    manager.expect("READY=1");
    for _ in 0..2 {
        service.replace();
        manager.expect(&format!("MAINPID={}", service.pid));
        manager.expect("WATCHDOG=1");
    }
    service.signal("TERM");
    service.expect_end();
}

#[test]
fn the_sockets_of_systemd_are_handed_over_and_stay_systemds() {
    let (held, other) = (TcpListener::bind("127.0.0.1:0").expect("a port"), free_addr());
    let addr = held.local_addr().expect("its address");
    let toml = |addr: SocketAddr| config(2, &[addr.to_string()], "here", "127.0.0.1:1");
    let socket: OwnedFd = held.try_clone().expect("a descriptor").into();
    let shell = "exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ LISTEN_FDNAMES=web exec \"$0\" \"$@\"";
    let mut service = Service::start_with(&toml(addr), &[], socket, shell);
    service.write_config(&toml(other));
    let line = service.fail_to_replace();
    let refusal = format!("systemd passes a socket on {addr} (`web`), and no `listen` names that address");
    assert!(line.contains(&refusal), "{line}");
    service.write_config(&toml(addr));
    for _ in 0..2 {
        let old = service.replace();
        assert_eq!(get(addr), "here");
        eventually("the old process has ended", || !runs(old));
    }
    let before = service.log.count();
    service.write_config(&toml(other));
    service.signal("HUP");
    let line = service.log.expect("reload refused", before);
    assert!(line.contains(&refusal), "{line}");
    service.signal("TERM");
    service.expect_end();
    // What comes now waits for the next start.
    connect(addr);
}

#[test]
fn the_variable_by_itself_is_an_error() {
    let dir = Dir::new();
    fs::write(dir.join("hopgate.toml"), config(1, &[free_addr().to_string()], "here", "127.0.0.1:1"))
        .expect("the configuration can be written");
    let hopgate = |stdin: Stdio| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_hopgate"))
            .args(["run", "--config", &dir.path("hopgate.toml")])
            .env("HOPGATE_TAKEOVER", "1")
            .stdin(stdin)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("hopgate can be run");
        // Of a pipe, which is no socket either.
        child.stdin.take().map(|mut stdin| stdin.write_all(b"hello"));
        child.wait_with_output().expect("it ends")
    };
    for stdin in [Stdio::null(), Stdio::piped()] {
        let output = hopgate(stdin);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(
            said.contains("HOPGATE_TAKEOVER is set") && said.contains("take it out of the environment"),
            "{said}"
        );
    }
}

#[test]
fn process_1_of_a_container_is_not_replaced() {
    let (addr, dir) = (free_addr(), Dir::new());
    fs::write(dir.join("hopgate.toml"), config(1, &[addr.to_string()], "here", "127.0.0.1:1"))
        .expect("the configuration can be written");
    // The shell tells its number outside of the namespace, in which it becomes hopgate.
    let shell = "read -r pid _ </proc/self/stat; echo \"pid $pid\" >&2; exec \"$0\" \"$@\"";
    let mut child = Command::new("unshare")
        .args(["--map-root-user", "--pid", "--fork", "--kill-child", "sh", "-c", shell])
        .args([env!("CARGO_BIN_EXE_hopgate"), "run", "--config", &dir.path("hopgate.toml")])
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("this test needs unshare, of util-linux");
    let log = Lines::follow(child.stderr.take().expect("stderr is piped"));
    log.expect(" started", 0);
    let line = log.expect("pid ", 0);
    let pid: u32 = line.trim_start_matches("pid ").parse().expect("a number");
    signal(pid, "USR2");
    let line = log.expect("no other process takes over", 0);
    assert!(line.contains("hopgate is process 1 here"), "{line}");
    assert_eq!(get(addr), "here");
    signal(pid, "TERM");
    assert!(child.wait().expect("a child can be waited for").success(), "{}", log.all());
}
