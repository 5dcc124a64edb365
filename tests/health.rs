//! Health checks: what probes are answered, also while a worker is stuck and while hopgate stops; and who asks.

mod support;

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use support::{App, Dir, Hopgate, Peer, Response, ServiceManager, Stopper, Upstream, eventually, free_addr};

/// A server in front of `upstream`, with health checks on `health`, and with these lines more at the top.
fn config(health: &[String], upstream: &str, top: &str) -> String {
    format!(
        r#"
        workers = 2
        {top}
        [health]
        listen = {health:?}
        [[server]]
        listen = "127.0.0.1:0"
        location = [{{ path = "/", proxy_pass = "http://{upstream}" }}]
        "#
    )
}

#[track_caller]
fn ask(peer: impl Into<socket2::Socket>, method: &str, path: &str) -> Response {
    let mut probe = Peer::new("probe", peer);
    probe.send(format!("{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
    let response = probe.response();
    probe.expect_eof();
    response
}

/// What a GET is answered.
#[track_caller]
fn get(addr: SocketAddr, path: &str) -> (u16, String) {
    let response = ask(TcpStream::connect(addr).expect("health checks are listened for"), "GET", path);
    (response.status, response.text())
}

fn ok() -> (u16, String) {
    (200, "ok\n".to_owned())
}

fn stopping() -> (u16, String) {
    (503, "stopping\n".to_owned())
}

#[test]
fn probes_are_answered_on_every_address_and_nothing_else_is() {
    let (dir, addr) = (Dir::new(), free_addr());
    let path = dir.path("health");
    let upstream = Upstream::listen();
    let hopgate = Hopgate::start(&config(&[addr.to_string(), format!("unix:{path}")], upstream.addr(), ""));
    hopgate.wait_for_log(&format!("health checks are answered on unix:{path}"));
    for asked in ["/healthz", "/readyz", "/healthz?from=here"] {
        assert_eq!(get(addr, asked), ok(), "{asked}");
        let socket = || UnixStream::connect(&path).expect("health checks are listened for");
        assert_eq!(ask(socket(), "GET", asked).text(), "ok\n");
        let mut probe = Peer::new("probe", socket());
        probe.send(format!("HEAD {asked} HTTP/1.1\r\nHost: a\r\n\r\n"));
        probe.expect_head("HTTP/1.1 200 OK", &["Cache-Control: no-store", "Content-Length: 3"]);
        probe.expect_eof();
    }
    for (method, asked, expected) in
        [("GET", "/", 404), ("GET", "/healthz/", 404), ("POST", "/healthz", 405), ("DELETE", "/readyz", 405)]
    {
        let response = ask(TcpStream::connect(addr).expect("a connection"), method, asked);
        assert_eq!(response.status, expected, "{method} {asked}");
    }
    assert!(hopgate.access_lines("").is_empty(), "{:?}", hopgate.access_lines(""));
}

#[test]
fn a_worker_that_is_stuck_is_named() {
    let (addr, health) = (free_addr().to_string(), free_addr());
    let args = ["run", "--workers", "2", "--listen", &addr, "--upstream", "http://127.0.0.1:1"];
    let mut stopper = Stopper::start(&[&args[..], &["--health", &health.to_string()]].concat(), &[]);
    stopper.log().expect(" started", 0);
    assert_eq!(get(health, "/healthz"), ok());
    stopper.tell("stop worker-1");
    let stuck = (503, "worker 1 does not answer\n".to_owned());
    eventually("the stuck worker is told", || get(health, "/healthz") == stuck);
    assert_eq!(get(health, "/readyz"), stuck);
    let line = stopper.log().expect("health checks fail", 0);
    assert!(line.contains("ERROR") && line.contains("workers=[1]"), "{line}");
    stopper.tell("release worker-1");
    eventually("it is well again", || get(health, "/healthz") == ok());
}

#[test]
fn whoever_says_nothing_or_nonsense_keeps_no_probe_out() {
    let (health, upstream) = (free_addr(), Upstream::listen());
    let hopgate = Hopgate::start(&config(&[health.to_string()], upstream.addr(), ""));
    let connect = || Peer::new("client", TcpStream::connect(health).expect("a connection"));
    let before = hopgate.sockets();
    let started = Instant::now();
    let mut first = connect();
    let silent: Vec<_> = (0..100).map(|_| connect()).collect();
    first.expect_closed();
    assert!(
        started.elapsed() < Duration::from_secs(4),
        "the oldest had to go, and not because its 5 s were over"
    );
    assert_eq!(get(health, "/healthz"), ok());
    eventually("not more than 64 are held", || hopgate.sockets() <= before + 64);
    drop(silent);
    for nonsense in ["\x16\x03\x01\x02\x01\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/1.1\r\nA\0: b\r\n\r\n"] {
        let mut client = connect();
        client.send(nonsense);
        client.expect_status(400);
        client.expect_closed();
    }
    // More than a head may have.
    let mut client = connect();
    client.send("GET /healthz HTTP/1.1\r\nA: ");
    client.send_if_open("x".repeat(64 << 10));
    // An answer that is on its way may get lost.
    client.read_to_end();
    assert_eq!(get(health, "/healthz"), ok());
}

#[test]
fn clients_are_served_while_probes_hear_that_it_stops() {
    let (health, app, manager) = (free_addr(), App::named("app"), ServiceManager::listen());
    let toml = config(&[health.to_string()], app.addr(), "shutdown_delay = \"1h\"");
    let mut hopgate = Hopgate::start_with_env(&toml, &[("NOTIFY_SOCKET", manager.name())]);
    assert_eq!(get(health, "/readyz"), ok());
    hopgate.signal("TERM");
    hopgate.wait_for_log("stopping: clients are served for another 3600s");
    assert_eq!((get(health, "/readyz"), get(health, "/healthz")), (stopping(), ok()));
    manager.expect("STOPPING=1");
    for _ in 0..3 {
        assert_eq!(hopgate.get("/").0, 200);
    }
    // There is nothing to be taken over any more.
    hopgate.signal("HUP");
    hopgate.wait_for_log("a signal was not obeyed: hopgate is stopping");
    assert_eq!(hopgate.get("/").0, 200);
    hopgate.signal("TERM");
    assert_eq!(hopgate.wait_exit().code(), Some(0), "{}", hopgate.log());
    assert!(!hopgate.log().contains("draining"), "{}", hopgate.log());
}

#[test]
fn after_the_delay_it_drains_and_goes_on_answering_probes() {
    let (health, upstream) = (free_addr(), Upstream::listen());
    let mut hopgate =
        Hopgate::start(&config(&[health.to_string()], upstream.addr(), "shutdown_delay = \"200ms\""));
    let addr = hopgate.addr();
    let mut busy = hopgate.connect();
    busy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut server = upstream.accept();
    server.head();
    hopgate.signal("TERM");
    hopgate.wait_for_log("draining, for at most 30s");
    eventually("new connections are refused", || TcpStream::connect(addr).is_err());
    // One of the two workers has ended by now.
    assert_eq!((get(health, "/readyz"), get(health, "/healthz")), (stopping(), ok()));
    server.respond_and_close("done");
    assert_eq!(busy.expect_status(200).text(), "done");
    assert_eq!(hopgate.wait_exit().code(), Some(0), "{}", hopgate.log());
    TcpStream::connect(health).expect_err("the process is gone");
}

#[test]
fn a_reload_changes_where_probes_are_answered() {
    let (first, second, kept) = (free_addr(), free_addr(), free_addr());
    let dir = Dir::new();
    let toml = |health: &[String]| config(health, "127.0.0.1:1", "");
    let hopgate = Hopgate::start("[[server]]\nlisten = \"127.0.0.1:0\"\nreturn = \"204\"");
    hopgate.reload_with(&toml(&[first.to_string(), kept.to_string()]));
    assert_eq!((get(first, "/readyz"), get(kept, "/readyz")), (ok(), ok()));
    let path = dir.join("health");
    hopgate.reload_with(&toml(&[kept.to_string(), second.to_string(), format!("unix:{}", path.display())]));
    assert_eq!((get(second, "/readyz"), get(kept, "/readyz")), (ok(), ok()));
    eventually("the first is gone", || TcpStream::connect(first).is_err());
    // What cannot be bound changes nothing.
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().expect("its address");
    let line = hopgate.refuse_reload_with(&toml(&[taken.to_string()]));
    assert!(line.contains(&format!("cannot listen on {taken}")), "{line}");
    assert_eq!((get(second, "/readyz"), path.exists()), (ok(), true));
    hopgate.reload_with(&toml(&[kept.to_string()]));
    assert!(!path.exists(), "the file goes with its address");
}

/// `hopgate health` with these arguments, and with nothing but these in its environment.
fn health(args: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hopgate"));
    command.arg("health").args(args).env_clear().envs(env.iter().copied()).stdin(Stdio::null());
    command.output().expect("hopgate can be run")
}

/// Expects this exit code, and this in what is said: on standard output if all is well, else on standard error.
#[track_caller]
fn expect(code: i32, said: &str, output: &Output) {
    let (right, other) = match code {
        0 => (&output.stdout, &output.stderr),
        _ => (&output.stderr, &output.stdout),
    };
    let text = String::from_utf8_lossy(right);
    assert!(text.contains(said) && other.is_empty(), "expected: {said}\ngot: {text}\n{output:?}");
    assert_eq!(output.status.code(), Some(code), "{text}");
}

#[test]
fn the_command_asks_whom_the_configuration_or_the_environment_names() {
    let (addr, upstream, dir) = (free_addr(), Upstream::listen(), Dir::new());
    let unix = format!("unix:{}", dir.path("health"));
    let toml = config(&[addr.to_string(), unix.clone()], upstream.addr(), "shutdown_delay = \"1h\"");
    let file = dir.path("hopgate.toml");
    fs::write(&file, &toml).expect("a file");
    expect(1, &format!("http://{addr}/healthz: Connection refused"), &health(&["--config", &file], &[]));
    let hopgate = Hopgate::start(&toml);
    let alive = format!("http://{addr}/healthz: 200 ok\n");
    let named = format!("http://{addr}");
    expect(0, &alive, &health(&["--config", &file], &[]));
    expect(0, &alive, &health(&[], &[("HOPGATE_CONFIG", &file)]));
    expect(0, &alive, &health(&["--url", &named], &[("HOPGATE_CONFIG", "/no/such/file")]));
    for several in [addr.to_string(), format!("{addr}, 127.0.0.1:1")] {
        let env = [("HOPGATE_UPSTREAM", "http://a"), ("HOPGATE_CONFIG", ""), ("HOPGATE_HEALTH", &several)];
        expect(0, &alive, &health(&[], &env));
    }
    expect(0, ":/healthz: 200 ok\n", &health(&["--url", &unix], &[]));
    expect(0, "/readyz: 200 ok\n", &health(&["--ready", "--config", &file], &[]));
    // What is changed and not taken over yet is no reason to say that the process is ill.
    fs::write(&file, toml.replace("proxy_pass", "proxypass")).expect("a file");
    expect(0, &alive, &health(&["--config", &file], &[]));
    hopgate.signal("TERM");
    hopgate.wait_for_log("stopping");
    expect(1, "/readyz: 503 stopping\n", &health(&["--ready", "--config", &file], &[]));
    expect(0, &alive, &health(&["--config", &file], &[]));
}

#[test]
fn the_command_says_why_it_has_no_answer() {
    let dir = Dir::new();
    let file = |text: &str| {
        fs::write(dir.join("hopgate.toml"), text).expect("a file");
        dir.path("hopgate.toml")
    };
    let server = "[[server]]\nlisten = \"127.0.0.1:0\"\nreturn = \"204\"\n";
    expect(
        1,
        "write, and restart or reload,\n\n[health]\nlisten = ",
        &health(&["--config", &file(server)], &[]),
    );
    let wrong = format!("[health]\nlisten = \"9180 ssl\"\n{server}");
    expect(
        1,
        "hopgate.toml:2:10: `listen`: `9180 ssl` is more than an address",
        &health(&["--config", &file(&wrong)], &[]),
    );
    let zero = format!("[health]\nlisten = \"127.0.0.1:0\"\n{server}");
    expect(1, "port 0 of `[health]` is another one each time", &health(&["--config", &file(&zero)], &[]));
    expect(1, "cannot read /no/such/file", &health(&[], &[("HOPGATE_CONFIG", "/no/such/file")]));
    expect(
        2,
        "HOPGATE_HEALTH: ",
        &health(&[], &[("HOPGATE_UPSTREAM", "http://a"), ("HOPGATE_HEALTH", "x:y")]),
    );
    expect(2, "is no URL of http; write `http://127.0.0.1:9180`", &health(&["--url", "https://a"], &[]));
    // Somebody who listens and says nothing, and somebody who speaks something else.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", silent.local_addr().expect("its address"));
    expect(1, "no answer in time", &health(&["--url", &url, "--timeout", "100ms"], &[]));
    let other = Upstream::listen();
    let url = format!("http://{}", other.addr());
    let child = std::thread::spawn(move || health(&["--url", &url], &[]));
    let mut peer = other.accept();
    peer.head();
    peer.send("SSH-2.0-x\r\n\r\n");
    peer.close();
    expect(1, "the answer is no HTTP", &child.join().expect("it has ended"));
}
