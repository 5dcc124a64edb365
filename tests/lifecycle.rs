//! Start, signals and the end of the process: drain, reload, reopened logs.

mod support;

use std::fmt::Display;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::thread;

use socket2::{Domain, SockAddr, Socket, Type};
use support::{App, Dir, Hopgate, Peer, Upstream, eventually, free_addr, handshake, open_tunnel, switching};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// A server on `addr` that passes everything to `upstream`.
fn config(addr: impl Display, upstream: &str) -> String {
    config_of_all(&[addr], upstream)
}

/// A server on all of these addresses that passes everything to `upstream`.
fn config_of_all(addrs: &[impl Display], upstream: &str) -> String {
    let addrs: Vec<_> = addrs.iter().map(ToString::to_string).collect();
    format!(
        r#"
        workers = 2
        [[server]]
        listen = {addrs:?}
        location = [{{ path = "/", proxy_pass = "http://{upstream}" }}]
        "#
    )
}

#[test]
fn an_address_in_use_is_an_error_that_names_it() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = taken.local_addr().expect("its address");
    let mut hopgate = Hopgate::spawn(&config(addr, "127.0.0.1:1"), Stdio::null());
    let status = hopgate.wait_exit();
    assert_eq!(status.code(), Some(1), "{}", hopgate.log());
    assert!(hopgate.log().contains(&addr.to_string()), "{}", hopgate.log());
}

#[test]
fn a_wrong_configuration_is_an_error_before_anything_listens() {
    let mut hopgate = Hopgate::spawn("[[server]]\nlisten = \"127.0.0.1:0\"\nlocations = []\n", Stdio::null());
    let status = hopgate.wait_exit();
    assert_eq!(status.code(), Some(1), "{}", hopgate.log());
    assert!(hopgate.log().contains("locations") && !hopgate.log().contains("listening"), "{}", hopgate.log());
}

#[test]
fn what_will_surprise_is_said_at_the_start_and_at_each_reload() {
    let addr = free_addr();
    let surprising = |path: &str| {
        format!(
            "[[server]]\nlisten = \"{addr}\"\nlocation = [{{ path = \"{path}\", proxy_pass = \"http://127.0.0.1:1/\" }}]\n"
        )
    };
    let hopgate = Hopgate::start(&surprising("/app"));
    let line = hopgate.wait_for_log("/app/y");
    assert!(line.contains("WARN") && line.contains("hopgate.toml:3:43: `/app/y` becomes `//y`"), "{line}");
    hopgate.reload_with(&surprising("/new"));
    hopgate.wait_for_log("hopgate.toml:3:43: `/new/y` becomes `//y`");
}

#[test]
fn sigterm_lets_requests_finish_and_closes_what_is_idle() {
    let upstream = Upstream::listen();
    let mut hopgate = Hopgate::in_front_of(&upstream);
    let addr = hopgate.addr();
    let mut idle = hopgate.connect();
    idle.send(GET);
    let mut server = upstream.accept();
    server.head();
    server.respond_and_close("");
    idle.expect_status(200);
    let mut busy = hopgate.connect();
    busy.send(GET);
    let mut server = upstream.accept();
    server.head();
    let mut streaming = hopgate.connect();
    streaming.send(GET);
    let mut stream = upstream.accept();
    stream.head();
    stream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n");
    streaming.head();
    streaming.expect_chunked("ab");

    hopgate.signal("TERM");
    idle.expect_eof();
    eventually("new connections are refused", || std::net::TcpStream::connect(addr).is_err());

    server.respond("finished");
    let response = busy.expect_status(200);
    assert_eq!(response.text(), "finished");
    assert!(response.head.has_member("Connection", "close"), "{}", response.head);
    busy.expect_eof();
    stream.send("2\r\ncd\r\n0\r\n\r\n");
    streaming.expect_chunked("cd");
    assert_eq!(streaming.chunk(), None);
    streaming.expect("\r\n");
    streaming.expect_eof();
    assert_eq!(hopgate.wait_exit().code(), Some(0));
}

#[test]
fn a_client_that_has_connected_right_before_sigterm_is_served() {
    let upstream = Upstream::listen();
    let mut hopgate = Hopgate::in_front_of(&upstream);
    let mut fresh = hopgate.connect();
    // Accepted, as the connection behind it is.
    hopgate.settle();
    hopgate.signal("TERM");
    hopgate.wait_for_log("draining");
    let addr = hopgate.addr();
    eventually("new connections are refused", || std::net::TcpStream::connect(addr).is_err());
    fresh.send(GET);
    let mut server = upstream.accept();
    server.head();
    server.respond("served");
    let response = fresh.expect_status(200);
    assert!(response.head.has_member("Connection", "close"), "{}", response.head);
    fresh.expect_eof();
    fresh.close();
    assert_eq!(hopgate.wait_exit().code(), Some(0));
}

#[test]
fn sigterm_closes_tunnels_within_the_grace_period() {
    let upstream = Upstream::listen();
    let mut hopgate = Hopgate::with_top(&upstream, r#"shutdown_timeout = "500ms""#);
    let (mut client, mut server) = open_tunnel(&hopgate, &upstream);
    client.send("before");
    server.expect("before");
    hopgate.signal("TERM");
    client.expect_eof();
    server.expect_eof();
    client.close();
    server.close();
    assert_eq!(hopgate.wait_exit().code(), Some(0));
    hopgate.wait_for_access(" end cause=drain ");
}

#[test]
fn sigterm_ends_what_does_not_end_by_itself_when_the_grace_period_is_over() {
    let upstream = Upstream::listen();
    let mut hopgate = Hopgate::with_top(&upstream, r#"shutdown_timeout = "300ms""#);
    let mut client = hopgate.connect();
    client.send(GET);
    let mut server = upstream.accept();
    server.head();
    let (_tunnel_client, _tunnel_server) = open_tunnel(&hopgate, &upstream);
    hopgate.signal("TERM");
    assert_eq!(hopgate.wait_exit().code(), Some(0));
    server.expect_closed();
}

#[test]
fn a_second_sigterm_or_a_sigint_ends_at_once() {
    for signals in [&["TERM", "TERM"][..], &["INT"][..], &["TERM", "INT"][..]] {
        println!("row: {signals:?}");
        let upstream = Upstream::listen();
        let mut hopgate = Hopgate::with_top(&upstream, r#"shutdown_timeout = "1h""#);
        let mut idle = hopgate.connect();
        idle.send(GET);
        let mut server = upstream.accept();
        server.head();
        server.respond_and_close("");
        idle.expect_status(200);
        let mut client = hopgate.connect();
        client.send(GET);
        let mut server = upstream.accept();
        server.head();
        for (count, signal) in signals.iter().enumerate() {
            if count > 0 {
                // The first one has been understood once the idle client is gone; the stuck request is still there.
                idle.expect_eof();
                assert!(hopgate.is_running());
            }
            hopgate.signal(signal);
        }
        hopgate.wait_exit();
        server.expect_closed();
    }
}

#[test]
fn sighup_with_a_right_file_takes_it_over() {
    let (old, new) = (App::named("old"), App::named("new"));
    let addr = free_addr();
    let hopgate = Hopgate::start(&config(addr, old.addr()));
    let mut kept = hopgate.connect();
    kept.send(GET);
    assert_eq!(kept.expect_status(200).text(), "old");

    hopgate.reload_with(&config(addr, new.addr()));
    // All workers know: each connection may land on any of them.
    for _ in 0..20 {
        assert_eq!(hopgate.get("/"), (200, "new".to_owned()));
    }
    kept.send(GET);
    assert_eq!(kept.expect_status(200).text(), "new", "a connection kept alive over the reload");
}

#[test]
fn sighup_with_a_wrong_file_keeps_the_old_configuration_and_says_what_is_wrong() {
    let app = App::named("old");
    let addr = free_addr();
    let mut hopgate = Hopgate::start(&config(addr, app.addr()));
    let rows = [
        ("no TOML", "[[server", "hopgate.toml"),
        ("an unknown key", "[[server]]\nlisten = \"127.0.0.1:0\"\nproxypass = 1\n", "proxypass"),
        ("nothing", "", "reload refused"),
    ];
    for (name, toml, said) in rows {
        println!("row: {name}");
        let line = hopgate.refuse_reload_with(toml);
        assert!(line.contains("the old configuration stays"), "{line}");
        hopgate.wait_for_log(said);
        assert_eq!(hopgate.get("/"), (200, "old".to_owned()));
    }
    assert!(hopgate.is_running());
}

#[test]
fn sighup_with_an_address_in_use_keeps_the_old_configuration() {
    let app = App::named("old");
    let addr = free_addr();
    let hopgate = Hopgate::start(&config(addr, app.addr()));
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken_addr = taken.local_addr().expect("its address");
    let line = hopgate.refuse_reload_with(&config(taken_addr, app.addr()));
    assert!(
        line.contains(&taken_addr.to_string()) || hopgate.log().contains(&taken_addr.to_string()),
        "{line}"
    );
    assert_eq!(hopgate.get("/"), (200, "old".to_owned()));
}

#[test]
fn a_reload_disturbs_neither_tunnels_nor_requests_under_way() {
    let (upstream, new) = (Upstream::listen(), App::named("new"));
    let addr = free_addr();
    let hopgate = Hopgate::start(&config(addr, upstream.addr()));
    let (mut client, mut server) = open_tunnel(&hopgate, &upstream);
    let mut waiting = hopgate.connect();
    waiting.send("POST /waiting HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nha");
    let mut slow = upstream.accept();
    slow.head();
    slow.expect("ha");
    let mut shaking = hopgate.connect();
    shaking.send(handshake("/shaking"));
    let mut half = upstream.accept();
    half.head();

    for _ in 0..5 {
        hopgate.reload_with(&config(addr, new.addr()));
    }
    assert_eq!(hopgate.get("/").1, "new");
    client.send("across");
    server.expect("across");
    server.send("and back");
    client.expect("and back");
    waiting.send("lf");
    slow.expect("lf");
    slow.respond("from the old one");
    assert_eq!(waiting.expect_status(200).text(), "from the old one");
    half.send(switching() + "open");
    shaking.expect_status(101);
    shaking.expect("open");
    server.finish();
    client.expect_eof();
    client.finish();
    server.expect_eof();
}

#[test]
fn listeners_that_stay_are_never_closed_even_for_a_moment() {
    let app = App::named("there");
    let addr = free_addr();
    let hopgate = Hopgate::start(&config(addr, app.addr()));
    thread::scope(|scope| {
        let clients = scope.spawn(|| {
            for _ in 0..300 {
                // connect() panics on a refusal, and response() on a connection that was dropped.
                assert_eq!(hopgate.get("/"), (200, "there".to_owned()));
            }
        });
        while !clients.is_finished() {
            hopgate.reload_with(&config(addr, app.addr()));
        }
    });
}

#[test]
fn a_reload_opens_new_listeners_and_closes_those_that_are_gone() {
    let app = App::named("there");
    let (first, second) = (free_addr(), free_addr());
    let hopgate = Hopgate::start(&config(first, app.addr()));
    let mut early = hopgate.connect_to(first);
    early.send(GET);
    early.expect_status(200);

    hopgate.reload_with(&config(second, app.addr()));
    hopgate.wait_for_log(&format!("listening on {second}"));
    let mut client = hopgate.connect_to(second);
    client.send(GET);
    assert_eq!(client.expect_status(200).text(), "there");
    eventually("the first address is closed", || std::net::TcpStream::connect(first).is_err());
}

#[test]
fn a_tunnel_outlives_the_listener_that_it_came_through() {
    let (upstream, app) = (Upstream::listen(), App::named("new"));
    let (first, second) = (free_addr(), free_addr());
    let hopgate = Hopgate::start(&config(first, upstream.addr()));
    let (mut client, mut server) = open_tunnel(&hopgate, &upstream);
    hopgate.reload_with(&config(second, app.addr()));
    eventually("the first address is closed", || std::net::TcpStream::connect(first).is_err());
    client.send("still");
    server.expect("still");
    server.send("here");
    client.expect("here");
}

#[test]
fn sigusr1_reopens_the_log_files() {
    let (dir, app, addr) = (Dir::new(), App::named("app"), free_addr());
    let hopgate = Hopgate::spawn(
        &format!(
            r#"
            workers = 1
            error_log = "{} info"
            access_log = "{}"
            {}
            "#,
            dir.path("error.log"),
            dir.path("access.log"),
            config(addr, app.addr()).replace("workers = 2", "")
        ),
        Stdio::null(),
    );
    eventually("hopgate has started", || dir.read("error.log").contains(" started"));
    let get = |path: &str| {
        let mut client = hopgate.connect_to(addr);
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        client.expect_status(200);
    };
    get("/before");
    eventually("the request is logged", || dir.read("access.log").contains("GET /before "));

    for log in ["access.log", "error.log"] {
        fs::rename(dir.join(log), dir.join(&format!("{log}.1"))).expect("a log can be renamed");
    }
    hopgate.signal("USR1");
    eventually("the error log is there again", || dir.join("error.log").exists());
    get("/after");
    eventually("the new file is written to", || dir.read("access.log").contains("GET /after "));
    assert!(!dir.read("access.log.1").contains("/after"));
    assert!(dir.read("access.log.1").contains("GET /before "));
}

/// Connects this often, and asks for something each time, while hopgate does not move.
fn ask_while_stopped(hopgate: &Hopgate, addr: SocketAddr, count: usize) -> Vec<Peer> {
    hopgate.signal("STOP");
    let ask = |_| {
        let mut client = hopgate.connect_to(addr);
        client.send(GET);
        client
    };
    (0..count).map(ask).collect()
}

#[test]
fn sigterm_lets_those_finish_who_wait_to_be_accepted() {
    let (app, addr) = (App::named("app"), free_addr());
    // All of them at one worker: a task of tokio's may do only so much at a time.
    let toml = config(addr, app.addr()).replace("workers = 2", "workers = 1");
    let mut hopgate = Hopgate::start(&toml);
    let waiting = ask_while_stopped(&hopgate, addr, 400);
    hopgate.signal("TERM");
    hopgate.signal("CONT");
    for mut client in waiting {
        assert_eq!(client.expect_status(200).text(), "app");
        client.expect_eof();
    }
    assert_eq!(hopgate.wait_exit().code(), Some(0));
}

#[test]
fn a_reload_lets_those_finish_who_wait_at_a_listener_that_it_removes() {
    let (old, new) = (App::named("old"), App::named("new"));
    let (kept, removed) = (free_addr(), free_addr());
    let hopgate = Hopgate::start(&config_of_all(&[kept, removed], old.addr()));
    let waiting = ask_while_stopped(&hopgate, removed, 400);
    hopgate.write_config(&config(kept, new.addr()));
    hopgate.signal("HUP");
    hopgate.signal("CONT");
    for mut client in waiting {
        assert_eq!(client.expect_status(200).text(), "old");
    }
    let mut client = hopgate.connect_to(kept);
    client.send(GET);
    assert_eq!(client.expect_status(200).text(), "new");
}

#[test]
fn a_listener_that_a_reload_removed_can_come_back_with_the_next_one() {
    let (app, kept, other) = (App::named("app"), free_addr(), free_addr());
    let hopgate = Hopgate::start(&config(kept, app.addr()));
    for _ in 0..20 {
        hopgate.reload_with(&config_of_all(&[kept, other], app.addr()));
        assert!(std::net::TcpStream::connect(other).is_ok());
        hopgate.reload_with(&config(kept, app.addr()));
        assert!(std::net::TcpStream::connect(other).is_err());
    }
}

#[test]
fn an_address_of_its_own_wins_over_the_one_for_every_interface() {
    let (any, own) = (App::named("any"), App::named("own"));
    let own_addr = free_addr();
    let any_addr = SocketAddr::from(([0, 0, 0, 0], own_addr.port()));
    let other_addr = SocketAddr::from(([127, 0, 0, 2], own_addr.port()));
    let both = config(any_addr, any.addr()) + &config(own_addr, own.addr()).replace("workers = 2", "");
    let hopgate = Hopgate::start(&both);
    let expect = |addr, name: &str| {
        let mut client = hopgate.connect_to(addr);
        client.send(GET);
        assert_eq!(client.expect_status(200).text(), name, "at {addr}");
    };
    expect(own_addr, "own");
    expect(other_addr, "any");
    hopgate.reload_with(&config(any_addr, any.addr()));
    expect(own_addr, "any");
    hopgate.reload_with(&both);
    expect(own_addr, "own");
    expect(other_addr, "any");
}

#[test]
fn a_reload_that_changes_an_address_for_every_interface_says_what_it_collides_with() {
    let (app, own) = (App::named("app"), free_addr());
    let any = SocketAddr::from(([0, 0, 0, 0], own.port()));
    for (before, after) in [(own, any), (any, own)] {
        println!("row: {before} to {after}");
        let hopgate = Hopgate::start(&config(before, app.addr()));
        let line = hopgate.refuse_reload_with(&config(after, app.addr()));
        let said = format!("cannot listen on {after} while hopgate itself listens on {before}");
        assert!(line.contains(&said), "{line}");
        let mut client = hopgate.connect_to(own);
        client.send(GET);
        client.expect_status(200);
    }
}

/// Sends a request to a hopgate at this path, which its upstream answers.
#[track_caller]
fn expect_served(hopgate: &Hopgate, path: &Path, upstream: &Upstream) {
    let mut client = hopgate.connect_unix(path);
    client.send(GET);
    let mut server = upstream.accept();
    server.head();
    server.respond_and_close("served");
    assert_eq!(client.expect_status(200).text(), "served");
}

#[test]
fn a_successor_takes_over_a_unix_socket_while_the_old_process_drains() {
    let (upstream, dir) = (Upstream::listen(), Dir::new());
    let path = dir.join("socket");
    let toml = config(format!("unix:{}", path.display()), upstream.addr());
    let mut old = Hopgate::start(&toml);
    let mut client = old.connect_unix(&path);
    client.send(GET);
    let mut server = upstream.accept();
    server.head();
    old.signal("TERM");
    old.wait_for_log("draining");
    assert!(!path.exists(), "a successor would be told that its address is in use");

    let new = Hopgate::start(&toml);
    expect_served(&new, &path, &upstream);
    server.respond("from the old one");
    assert_eq!(client.expect_status(200).text(), "from the old one");
    client.close();
    assert_eq!(old.wait_exit().code(), Some(0));
    expect_served(&new, &path, &upstream);
}

#[test]
fn the_file_of_a_unix_socket_is_removed_only_by_its_own_process() {
    let (upstream, dir) = (Upstream::listen(), Dir::new());
    let path = dir.join("socket");
    let toml = config(format!("unix:{}", path.display()), upstream.addr());
    for signal in ["TERM", "INT"] {
        println!("row: {signal}");
        let mut old = Hopgate::start(&toml);
        // Somebody clears the way by hand.
        fs::remove_file(&path).expect("the file can be removed");
        let mut new = Hopgate::start(&toml);
        old.signal(signal);
        old.wait_exit();
        expect_served(&new, &path, &upstream);
        new.signal(signal);
        new.wait_exit();
        assert!(!path.exists());
    }
}

#[test]
fn every_user_may_connect_to_a_unix_socket() {
    let dir = Dir::new();
    let path = dir.join("socket");
    let _hopgate = Hopgate::start(&config(format!("unix:{}", path.display()), "127.0.0.1:1"));
    let mode = fs::metadata(&path).expect("the file of the socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o666, "{mode:o}");
}

#[test]
fn a_unix_socket_that_was_left_behind_is_replaced_and_one_in_use_is_not() {
    let (upstream, dir) = (Upstream::listen(), Dir::new());
    let path = dir.join("socket");
    let toml = config(format!("unix:{}", path.display()), upstream.addr());
    let other = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
    let addr = SockAddr::unix(&path).expect("a short path");
    other.bind(&addr).expect("a path to listen on");
    other.listen(0).expect("a bound socket can listen");
    // Its queue is full: who connects to it waits.
    let mut queue = Vec::new();
    loop {
        let client = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
        client.set_nonblocking(true).expect("a socket can be made non-blocking");
        if client.connect(&addr).is_err() {
            break;
        }
        queue.push(client);
    }
    let mut hopgate = Hopgate::spawn(&toml, Stdio::null());
    assert_eq!(hopgate.wait_exit().code(), Some(1), "{}", hopgate.log());
    assert!(hopgate.log().contains(&path.display().to_string()), "{}", hopgate.log());

    drop(other);
    expect_served(&Hopgate::start(&toml), &path, &upstream);
}
