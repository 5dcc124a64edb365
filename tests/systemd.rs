//! What hopgate tells the service manager: ready, reloading, stopping, how much it has to do, that it is alive; and
//! the journal.

mod support;

use std::fs::{File, Metadata};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use support::{Dir, Hopgate, ServiceManager, Stopper, Upstream, eventually, free_addr, open_tunnel};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// A server on `addr` that passes everything to `upstream`.
fn config(addr: SocketAddr, upstream: &str) -> String {
    format!(
        r#"
        workers = 2
        [[server]]
        listen = "{addr}"
        location = [{{ path = "/", proxy_pass = "http://{upstream}" }}]
        "#
    )
}

/// A hopgate on this configuration, of this service manager.
fn service(manager: &ServiceManager, toml: &str) -> Hopgate {
    Hopgate::start_with_env(toml, &[("NOTIFY_SOCKET", manager.name())])
}

fn monotonic_usec() -> i64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec * 1_000_000 + now.tv_nsec / 1000
}

#[test]
fn it_is_ready_once_clients_can_connect() {
    for manager in [ServiceManager::listen(), ServiceManager::listen_abstract()] {
        let (upstream, addr) = (Upstream::listen(), free_addr());
        let hopgate =
            Hopgate::spawn_with_env(&config(addr, upstream.addr()), &[("NOTIFY_SOCKET", manager.name())]);
        let message = manager.expect("READY=1");
        hopgate.connect_to(addr);
        assert_eq!(message, ["READY=1", "STATUS=serving; connections: 0, tunnels: 0"]);
    }
}

#[test]
fn a_reload_is_told_with_its_time_and_ends_with_ready() {
    let (manager, addr) = (ServiceManager::listen(), free_addr());
    let hopgate = service(&manager, &config(addr, "127.0.0.1:1"));
    manager.expect("READY=1");
    let before = monotonic_usec();
    hopgate.reload_with(&config(addr, "127.0.0.1:2"));
    let message = manager.expect("RELOADING=1");
    let usec = message.iter().find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
    let usec: i64 = usec.and_then(|usec| usec.parse().ok()).expect("a number of microseconds");
    assert!((before..=monotonic_usec()).contains(&usec), "{before} {message:?}");
    assert_eq!(manager.expect("READY=1"), ["READY=1", "STATUS=serving; connections: 0, tunnels: 0"]);
}

#[test]
fn a_refused_reload_ends_too_and_the_status_says_what_is_served() {
    const OLD: &str =
        "STATUS=serving the old configuration, the new one was refused; connections: 0, tunnels: 0";
    let (manager, addr, taken) = (ServiceManager::listen(), free_addr(), Upstream::listen());
    let taken_addr = taken.addr().parse().expect("an address");
    let hopgate = service(&manager, &config(addr, "127.0.0.1:1"));
    // A mistake in the file, and an address that cannot be bound.
    for wrong in ["nonsense".to_owned(), config(taken_addr, "127.0.0.1:1")] {
        hopgate.refuse_reload_with(&wrong);
        manager.expect("RELOADING=1");
        assert_eq!(manager.expect("READY=1"), ["READY=1", OLD]);
    }
    hopgate.reload_with(&config(addr, "127.0.0.1:1"));
    manager.expect("RELOADING=1");
    assert_eq!(manager.expect("READY=1"), ["READY=1", "STATUS=serving; connections: 0, tunnels: 0"]);
}

#[test]
fn the_status_counts_connections_and_tunnels_also_while_it_drains() {
    let (manager, upstream) = (ServiceManager::listen(), Upstream::listen());
    let mut hopgate = service(&manager, &config(free_addr(), upstream.addr()));
    let (tunnel, far_end) = open_tunnel(&hopgate, &upstream);
    let mut busy = hopgate.connect();
    busy.send(GET);
    let mut server = upstream.accept();
    server.head();
    manager.expect("STATUS=serving; connections: 2, tunnels: 1");
    hopgate.signal("TERM");
    let message = manager.expect("STOPPING=1");
    assert_eq!(message, ["STOPPING=1", "STATUS=draining; connections: 2, tunnels: 1"]);
    tunnel.close();
    far_end.close();
    manager.expect("STATUS=draining; connections: 1, tunnels: 0");
    server.respond_and_close("done");
    busy.expect_status(200);
    assert_eq!(hopgate.wait_exit().code(), Some(0), "{}", hopgate.log());
}

#[test]
fn it_says_that_it_stops_when_it_is_to_end_at_once() {
    let manager = ServiceManager::listen();
    let mut hopgate = service(&manager, &config(free_addr(), "127.0.0.1:1"));
    hopgate.signal("INT");
    manager.expect("STOPPING=1");
    assert_eq!(hopgate.wait_exit().code(), Some(0), "{}", hopgate.log());
}

#[test]
fn a_socket_that_cannot_be_written_to_is_a_warning() {
    let hopgate =
        Hopgate::start_with_env(&config(free_addr(), "127.0.0.1:1"), &[("NOTIFY_SOCKET", "vsock:2:1")]);
    let line = hopgate.wait_for_log("NOTIFY_SOCKET=vsock:2:1");
    assert!(line.contains("WARN") && line.contains("it has to begin with `/` or `@`"), "{line}");
}

#[test]
fn the_watchdog_of_another_process_is_not_fed() {
    let manager = ServiceManager::listen();
    let env = [
        ("NOTIFY_SOCKET", manager.name()),
        ("WATCHDOG_USEC", "100000"),
        // Of some other process.
        ("WATCHDOG_PID", "1"),
    ];
    let hopgate = Hopgate::start_with_env(&config(free_addr(), "127.0.0.1:1"), &env);
    manager.expect("READY=1");
    assert_eq!(manager.next_within(Duration::from_millis(500)), None);
    assert!(!hopgate.log().contains("do not answer"), "{}", hopgate.log());
}

/// The log of a hopgate with a file for standard error, and with the stream that `stream_of` says in `JOURNAL_STREAM`.
fn log_with_stream(stream_of: impl Fn(&Metadata) -> String) -> String {
    let dir = Dir::new();
    let log = File::create(dir.join("log")).expect("a file of its own");
    let stream = stream_of(&log.metadata().expect("an open file"));
    let mut child = Command::new(env!("CARGO_BIN_EXE_hopgate"))
        .args(["run", "--listen", "127.0.0.1:0", "--upstream", "http://127.0.0.1:1"])
        .env_remove("RUST_LOG")
        .env("JOURNAL_STREAM", stream)
        // A warning.
        .env("NOTIFY_SOCKET", "vsock:2:1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("hopgate can be run");
    eventually("it has started", || dir.read("log").contains(" started, "));
    child.kill().expect("a running child");
    child.wait().expect("a child can be waited for");
    dir.read("log")
}

#[test]
fn lines_for_the_journal_begin_with_their_priorities() {
    let log = log_with_stream(|file| format!("{}:{}", file.dev(), file.ino()));
    let lines: Vec<&str> = log.lines().collect();
    assert!(lines[0].starts_with("<4>NOTIFY_SOCKET=vsock:2:1: "), "{log}");
    assert!(lines[1].starts_with("<6>listening on 127.0.0.1:"), "{log}");
    assert!(lines[2].starts_with("<6>hopgate ") && lines.len() == 3, "{log}");
}

#[test]
fn standard_error_that_was_redirected_is_not_the_journal() {
    let log = log_with_stream(|file| format!("{}:{}", file.dev(), file.ino() + 1));
    assert!(log.lines().all(|line| line.contains("  WARN ") || line.contains("  INFO ")), "{log}");
}

#[test]
fn the_watchdog_is_fed_only_while_every_worker_is_alive() {
    let manager = ServiceManager::listen();
    let env = [("NOTIFY_SOCKET", manager.name()), ("WATCHDOG_USEC", "400000")];
    let addr = free_addr().to_string();
    let args = ["run", "--workers", "2", "--listen", &addr, "--upstream", "http://127.0.0.1:1"];
    let mut stopper = Stopper::start(&args, &env);
    manager.expect("READY=1");
    manager.expect("WATCHDOG=1");
    stopper.tell("stop worker-1");
    let line = stopper.log().expect("do not answer", 0);
    assert!(line.contains("ERROR") && line.contains("workers=[1]"), "{line}");
    // What was said before the worker stopped.
    while manager.next_within(Duration::from_millis(1)).is_some() {}
    assert_eq!(manager.next_within(Duration::from_millis(800)), None, "twice the time of the watchdog");
    stopper.tell("release worker-1");
    manager.expect("WATCHDOG=1");
}
