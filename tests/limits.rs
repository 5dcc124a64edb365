//! Every limit has a clear answer: sizes, counts, timeouts of clients and upstreams, numbers of connections.

mod support;

use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant};

use support::{App, Hopgate, Noise, Peer, Upstream, assert_same_bytes, eventually, open_tunnel, silent_addr};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn a_head_that_is_too_large_is_a_431_and_a_target_that_is_too_long_a_414() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::with_server(&upstream, "client_max_head_size = \"1k\"\nmax_headers = 20");
    let many = |n: usize| (0..n).map(|i| format!("X-{i}: {i}\r\n")).collect::<String>();
    let rows = [
        ("one large field", format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(2000)), 431),
        ("a field without an end", format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(2000)), 431),
        ("a name without an end", format!("GET / HTTP/1.1\r\nHost: a\r\n{}", "x".repeat(2000)), 431),
        ("many fields", format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", many(20)), 431),
        ("a long target", format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(2000)), 414),
        ("a target without an end", format!("GET /{}", "x".repeat(2000)), 414),
    ];
    for (name, request, status) in rows {
        println!("row: {name}");
        let mut client = hopgate.connect();
        client.send(request);
        let response = client.expect_status(status);
        assert!(response.head.has_member("Connection", "close"), "{}", response.head);
        client.expect_closed();
    }
    upstream.expect_no_connection(&hopgate);

    // What just fits passes: 20 fields with Host, below a KiB.
    let mut client = hopgate.connect();
    client.send(format!("GET /{} HTTP/1.1\r\nHost: a\r\n{}\r\n", "x".repeat(500), many(19)));
    let mut server = upstream.accept();
    server.head();
    server.respond("");
    client.expect_status(200);
}

#[test]
fn the_defaults_leave_room_for_large_cookies() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);
    let cookie = "c".repeat(60_000);
    let mut client = hopgate.connect();
    client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\n\r\n"));
    let mut server = upstream.accept();
    server.head().expect(&[&format!("Cookie: {cookie}")]);
    server.respond("");
    client.expect_status(200);

    let mut client = hopgate.connect();
    client.send_if_open(format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {cookie}{cookie}\r\n\r\n"));
    client.expect_status(431);
}

#[test]
fn a_slow_head_is_a_408_however_steadily_it_drips() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::with_server(&upstream, r#"client_header_timeout = "300ms""#);

    let mut stuck = hopgate.connect();
    stuck.send("GET / HTTP/1.1\r\nHost: a\r\nX-Half: ");
    stuck.expect_status(408);
    stuck.expect_closed();

    let mut dripping = hopgate.connect();
    dripping.send("GET / HTTP/1.1\r\nHost: a\r\nX-Drip: ");
    let started = Instant::now();
    while !dripping.hears_within(Duration::from_millis(20)) {
        dripping.send_if_open("x");
        assert!(started.elapsed() < support::DEADLINE, "each byte seems to start the clock again");
    }
    dripping.expect_status(408);
    upstream.expect_no_connection(&hopgate);
}

#[test]
fn a_client_that_says_nothing_is_let_go() {
    let upstream = Upstream::listen();
    let hopgate =
        Hopgate::with_server(&upstream, "client_header_timeout = \"300ms\"\nkeepalive_timeout = \"300ms\"");
    let mut silent = hopgate.connect();
    silent.expect_closed();
}

#[test]
fn a_body_larger_than_allowed_is_a_413() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::with_location(&upstream, r#"client_max_body_size = "1k""#);

    let mut client = hopgate.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1025\r\n\r\n");
    let response = client.expect_status(413);
    assert!(response.head.has_member("Connection", "close"), "{}", response.head);
    client.expect_closed();
    upstream.expect_no_connection(&hopgate);
    hopgate.wait_for_log("client_max_body_size");

    // A chunked body shows its size only as it comes.
    let mut client = hopgate.connect();
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n400\r\n{}\r\n",
        "x".repeat(1024)
    ));
    let mut server = upstream.accept();
    server.head();
    server.expect_chunked("x".repeat(1024));
    client.send("1\r\nx\r\n");
    client.expect_status(413);
    client.expect_closed();
    let (rest, _) = server.read_to_end();
    assert!(!rest.ends_with(b"0\r\n\r\n"), "the upstream took it for a whole request");

    // The limit itself is allowed.
    for request in [
        format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1024\r\n\r\n{}", "x".repeat(1024)),
        format!(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n400\r\n{}\r\n0\r\n\r\n",
            "x".repeat(1024)
        ),
    ] {
        let mut client = hopgate.connect();
        client.send(&request);
        let mut server = upstream.accept();
        let head = server.head();
        let body =
            if head.field("Content-Length").is_some() { server.read(1024) } else { server.chunked_body().0 };
        assert_eq!(body.len(), 1024);
        server.respond_and_close("");
        client.expect_status(200);
    }
}

#[test]
fn a_body_that_stops_coming_is_a_408() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::with_location(&upstream, r#"client_body_timeout = "300ms""#);

    let mut client = hopgate.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf");
    let mut server = upstream.accept();
    server.head();
    server.expect("half");
    client.expect_status(408);
    client.expect_closed();
    server.expect_closed();
    hopgate.wait_for_log("client_body_timeout");
}

#[test]
fn a_client_that_does_not_read_its_answer_is_let_go() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::with_location(&upstream, r#"send_timeout = "300ms""#);

    let mut client = hopgate.connect().with_small_buffers();
    client.send(GET);
    let mut server = upstream.accept();
    server.head();
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
    // Until hopgate has given up on the client, and on the upstream with it.
    while server.send_if_open([b'x'; 65536]) {}
    let (seen, _) = client.read_to_end();
    assert!(seen.len() < 1_000_000_000);
    hopgate.wait_for_log("send_timeout");
}

#[test]
fn an_upstream_that_does_not_read_its_request_is_a_504() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::with_location(&upstream, r#"proxy_send_timeout = "300ms""#);

    let mut client = hopgate.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n");
    let server = upstream.accept().with_small_buffers();
    let mut writer = client.another();
    thread::scope(|scope| {
        scope.spawn(move || while writer.send_if_open([b'x'; 65536]) {});
        client.expect_status(504);
        client.expect_closed();
    });
    hopgate.wait_for_log("proxy_send_timeout");
    server.close();
}

#[test]
fn an_upstream_that_takes_too_long_to_be_reached_is_a_504() {
    let (addr, _full) = silent_addr();
    let hopgate = Hopgate::start(&format!(
        r#"
        workers = 1
        proxy_connect_timeout = "300ms"
        [[server]]
        listen = "127.0.0.1:0"
        location = [{{ path = "/", proxy_pass = "http://{addr}" }}]
        "#
    ));
    assert_eq!(hopgate.get("/").0, 504);
    hopgate.wait_for_log("proxy_connect_timeout");
}

#[test]
fn proxy_read_timeout_is_the_time_between_two_reads() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::with_location(&upstream, r#"proxy_read_timeout = "400ms""#);

    let mut client = hopgate.connect();
    client.send(GET);
    let mut server = upstream.accept();
    server.head();
    server.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.head();
    let started = Instant::now();
    while started.elapsed() < Duration::from_millis(1000) {
        server.send("1\r\nx\r\n");
        client.expect_chunked("x");
    }
    // From here the upstream is silent, and the answer is broken off, not ended.
    let (rest, _) = client.read_to_end();
    assert!(!rest.ends_with(b"0\r\n\r\n"));
    server.expect_closed();
}

#[test]
fn a_connection_serves_as_many_requests_as_configured() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::with_server(&upstream, "keepalive_requests = 3");
    let mut client = hopgate.connect();
    for number in 1..=3 {
        client.send(GET);
        let mut server = upstream.accept();
        server.head();
        server.respond_and_close("");
        let response = client.expect_status(200);
        assert_eq!(response.head.has_member("Connection", "close"), number == 3, "{}", response.head);
    }
    client.expect_eof();
}

#[test]
fn an_idle_connection_is_closed_after_keepalive_timeout_without_a_word() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::with_server(&upstream, r#"keepalive_timeout = "300ms""#);
    let mut client = hopgate.connect();
    client.send(GET);
    let mut server = upstream.accept();
    server.head();
    server.respond("");
    client.expect_status(200);
    let idle = Instant::now();
    client.expect_eof();
    assert!(idle.elapsed() > Duration::from_millis(250), "closed after {:?}", idle.elapsed());
}

#[test]
fn a_client_that_asks_to_close_is_closed() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);
    for connection in ["close", "Close", "keep-alive, close", "X-Other, CLOSE"] {
        println!("row: {connection}");
        let mut client = hopgate.connect();
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: {connection}\r\n\r\n"));
        let mut server = upstream.accept();
        server.head();
        server.respond_and_close("");
        let response = client.expect_status(200);
        assert!(response.head.has_member("Connection", "close"), "{}", response.head);
        client.expect_eof();
    }
}

/// A connection that has been served once, so that hopgate surely counts it.
#[track_caller]
fn served(mut client: Peer) -> Peer {
    client.send(GET);
    client.expect_status(200);
    client
}

#[track_caller]
fn expect_too_many(mut client: Peer) {
    // The answer may come before the request is read.
    client.send_if_open(GET);
    let response = client.expect_status(503);
    assert!(response.head.has_member("Connection", "close"), "{}", response.head);
    client.expect_closed();
}

/// A hopgate with these lines at the top in front of an app.
fn limited(app: &App, top: &str) -> Hopgate {
    Hopgate::start(&format!(
        r#"
        {top}
        [[server]]
        listen = "127.0.0.1:0"
        location = [{{ path = "/", proxy_pass = "http://{}" }}]
        "#,
        app.addr()
    ))
}

#[test]
fn connections_beyond_the_total_get_a_503_until_one_is_free_again() {
    let app = App::named("app");
    for workers in [1, 2] {
        println!("row: {workers} workers");
        let hopgate = limited(&app, &format!("workers = {workers}\nmax_connections = 3"));
        let mut taken: Vec<_> = (0..3).map(|_| served(hopgate.connect())).collect();
        expect_too_many(hopgate.connect());
        expect_too_many(hopgate.connect());
        taken.pop().expect("three").close();
        eventually("a place is free again", || {
            let mut client = hopgate.connect();
            client.send_if_open(GET);
            client.response().status == 200
        });
        // Those who were there all the time have noticed nothing.
        for client in taken {
            served(client);
        }
    }
}

#[test]
fn connections_of_one_address_are_limited_apart_from_others() {
    let app = App::named("app");
    let hopgate = limited(&app, "workers = 1\nmax_connections_per_ip = 2");
    let (one, other) = (Ipv4Addr::new(127, 0, 0, 1), Ipv4Addr::new(127, 0, 0, 2));
    let first = served(hopgate.connect_from(one));
    let _second = served(hopgate.connect_from(one));
    expect_too_many(hopgate.connect_from(one));
    let _third = served(hopgate.connect_from(other));
    let _fourth = served(hopgate.connect_from(other));
    expect_too_many(hopgate.connect_from(other));
    first.close();
    eventually("a place is free again", || {
        let mut client = hopgate.connect_from(one);
        client.send_if_open(GET);
        client.response().status == 200
    });
}

#[test]
fn connections_that_are_refused_take_no_place() {
    let app = App::named("app");
    for limit in ["max_connections", "max_connections_per_ip"] {
        println!("row: {limit}");
        let hopgate = limited(&app, &format!("workers = 1\n{limit} = 1"));
        let first = served(hopgate.connect());
        let mut refused = Vec::new();
        let mut is_served = || {
            let mut client = hopgate.connect();
            client.send_if_open(GET);
            let status = client.response().status;
            // Nobody who was refused hangs up.
            refused.push(client);
            status == 200
        };
        assert!(!is_served());
        first.close();
        eventually("the place is free again", is_served);
    }
}

#[test]
fn connections_that_are_refused_are_bounded_too() {
    let app = App::named("app");
    let hopgate = limited(&app, "workers = 1\nmax_connections = 1");
    let _first = served(hopgate.connect());
    let mut refused: Vec<_> = (0..400).map(|_| hopgate.connect()).collect();
    let told = refused.iter_mut().filter_map(|client| client.head_if_any()).count();
    // Told, and waited for; the others are closed at once.
    assert!((1..400).contains(&told), "{told} of 400 told");
    assert!(hopgate.sockets() < 200, "{} sockets", hopgate.sockets());
}

#[test]
fn a_tunnel_counts_as_a_connection_until_it_ends() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::with_top(&upstream, "max_connections = 1");
    let (client, mut server) = open_tunnel(&hopgate, &upstream);
    expect_too_many(hopgate.connect());
    client.close();
    server.expect_eof();
    server.close();
    eventually("the place is free again", || {
        let mut client = hopgate.connect();
        client.send_if_open("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n");
        client.response().status == 405
    });
}

#[test]
fn a_client_that_has_said_all_still_gets_its_answer() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);
    let mut client = hopgate.connect();
    client.send(GET);
    client.finish();
    let mut server = upstream.accept();
    server.head();
    server.respond("answer");
    assert_eq!(client.expect_status(200).text(), "answer");
    client.expect_eof();
}

#[test]
fn a_request_is_given_up_when_its_client_is_gone() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);
    for resets in [true, false] {
        println!("row: resets={resets}");
        let mut client = hopgate.connect();
        client.send(format!("GET /gone-{resets} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let mut server = upstream.accept();
        server.head();
        if resets {
            client.reset()
        } else {
            client.close()
        }
        server.expect_closed();
        let line = hopgate.wait_for_access(&format!("GET /gone-{resets} "));
        assert!(line.contains("\" 499 "), "{line}");
    }
}

/// Long enough for each timeout of 300 ms to have fired, had it been running.
const LONGER: Duration = Duration::from_millis(800);

#[test]
fn the_upstream_s_time_to_answer_does_not_run_while_the_body_is_still_coming() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::with_location(&upstream, r#"proxy_read_timeout = "300ms""#);
    let mut client = hopgate.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    let mut server = upstream.accept();
    server.head();
    let started = Instant::now();
    while started.elapsed() < LONGER {
        client.send("1\r\nx\r\n");
        server.expect_chunked("x");
        assert!(!client.hears_within(Duration::from_millis(20)), "{:?}", client.response());
    }
    client.send("0\r\n\r\n");
    assert_eq!(server.chunk(), None);
    server.respond("patient");
    assert_eq!(client.expect_status(200).text(), "patient");
}

#[test]
fn the_client_s_timeouts_do_not_run_while_the_upstream_is_waited_for() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::with_server(
        &upstream,
        "client_header_timeout = \"300ms\"\nkeepalive_timeout = \"300ms\"\nclient_body_timeout = \"300ms\"\n\
         send_timeout = \"300ms\"",
    );
    let mut client = hopgate.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok");
    let mut server = upstream.accept();
    server.head();
    assert!(!client.hears_within(LONGER), "{:?}", client.response());
    server.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n");
    client.head();
    client.expect_chunked("a");
    assert!(!client.hears_within(LONGER), "an event stream may be silent");
    server.send("1\r\nb\r\n0\r\n\r\n");
    client.expect_chunked("b");
    assert_eq!(client.chunk(), None);
}

#[test]
fn the_client_s_time_to_send_does_not_run_while_the_upstream_takes_nothing() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::with_location(&upstream, r#"client_body_timeout = "300ms""#);
    let mut client = hopgate.connect();
    let body = Noise::seeded(1).take(1 << 25);
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len()));
    let mut server = upstream.accept();
    server.head();
    let mut writer = client.another();
    thread::scope(|scope| {
        // It sends all the time, as fast as it is let.
        scope.spawn(|| writer.send(&body));
        assert!(!client.hears_within(LONGER), "{:?}", client.response());
        // It goes on where it stopped.
        assert_same_bytes("the body", &body, &server.read(body.len()));
    });
    server.respond("all of it");
    assert_eq!(client.expect_status(200).text(), "all of it");
}

#[test]
fn a_few_empty_lines_before_a_request_are_skipped_and_many_are_refused() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);
    let mut client = hopgate.connect();
    client.send("\r\n\r\n\r");
    client.send("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    upstream.accept().respond("");
    client.expect_status(200);

    let mut client = hopgate.connect();
    client.send("\r\n".repeat(20));
    client.expect_status(400);
    client.expect_closed();
}

#[test]
fn an_empty_line_behind_a_request_does_not_begin_the_next_one() {
    let upstream = Upstream::listen();
    let hopgate =
        Hopgate::with_server(&upstream, "keepalive_timeout = \"300ms\"\nclient_header_timeout = \"5m\"");
    let mut client = hopgate.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n\r\n");
    upstream.accept().respond("");
    client.expect_status(200);
    // Without a word: it is idle.
    client.expect_eof();
}

#[test]
fn a_client_that_waits_for_a_100_is_not_blamed_for_a_silent_upstream() {
    let upstream = Upstream::listen();
    let times = "client_body_timeout = \"200ms\"\nproxy_read_timeout = \"400ms\"";
    let hopgate = Hopgate::with_location(&upstream, times);
    let mut client = hopgate.connect();
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    let _server = upstream.accept();
    client.expect_status(504);
}
