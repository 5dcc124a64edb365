//! What a client may do over HTTP/2, and what becomes of one that does more: rules R34 and R35.

mod support;

use std::thread;
use std::time::{Duration, Instant};

use h2::Reason;
use support::{DEADLINE, Ending, Hopgate, Http2, Http2Stream, Noise, Upstream, run_python_script};

/// A server that answers by itself, with these lines in it.
fn answering(lines: &str) -> Hopgate {
    Hopgate::start(&format!(
        "workers = 1\n[[server]]\nlisten = \"127.0.0.1:0 http2\"\n{lines}\n\
         [[server.location]]\npath = \"/\"\nreturn = \"200 hello\""
    ))
}

#[test]
fn a_client_is_told_how_many_streams_it_may_open() {
    for (line, most) in [("", 128), ("http2_max_concurrent_streams = 3", 3)] {
        let hopgate = answering(line);
        let mut client = Http2::connect(&hopgate);
        client.get("/").expect_status(200);
        assert_eq!(client.most_streams(), most);
    }
}

#[test]
fn a_head_that_is_too_large_is_told_so_and_the_connection_goes_on() {
    let hopgate = answering("client_max_head_size = \"2k\"\nmax_headers = 10");
    let mut client = Http2::connect(&hopgate);
    let long = "x".repeat(2000);
    client.ask("GET", &format!("/{}", "x".repeat(2100)), &[]).expect_status(414);
    client.ask("GET", "/", &[("x-long", &long), ("x-more", "x")]).expect_status(431);
    hopgate.wait_for_log("larger than `client_max_head_size`");
    // RFC 9113 §6.5.2: each field counts 32 bytes more.
    let small: Vec<_> = (0..40).map(|_| ("a", "b")).collect();
    client.ask("GET", "/", &small).expect_status(431);
    // Crumbs of a cookie are one field; they only have to be small enough together.
    let crumbs: Vec<_> = (0..20).map(|_| ("cookie", "a=b")).collect();
    client.ask("GET", "/", &crumbs).expect_status(200);
    let few: Vec<_> = (0..11).map(|_| ("a", "b")).collect();
    client.ask("GET", "/", &few).expect_status(431);
    hopgate.wait_for_log("more fields than `max_headers`");
    // Beyond twice the size h2 itself says so.
    client
        .ask("GET", "/", &[("x-long", &long), ("x-longer", &long), ("x-longest", &long)])
        .expect_status(431);
    client.get("/").expect_status(200);
}

#[test]
fn a_connection_serves_as_many_requests_as_it_may_and_says_so() {
    let hopgate = answering("keepalive_requests = 3");
    let mut client = Http2::connect(&hopgate);
    for _ in 0..3 {
        client.get("/").expect_status(200);
    }
    assert_eq!(client.end(), None);
}

#[test]
fn an_idle_connection_ends_in_good_order() {
    let hopgate = answering("keepalive_timeout = \"200ms\"");
    let mut client = Http2::connect(&hopgate);
    client.get("/").expect_status(200);
    assert_eq!(client.end(), None);

    let hopgate = answering("client_header_timeout = \"200ms\"");
    assert_eq!(Http2::connect(&hopgate).end(), None);
}

#[test]
fn a_stream_that_is_open_keeps_its_connection() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::speaking_http2(upstream.addr(), "keepalive_timeout = \"100ms\"", "");
    let mut client = Http2::connect(&hopgate);
    let request = client.request("GET", "/", &[]);
    let stream = client.begin(request, true);
    let mut server = upstream.accept();
    server.head();
    assert!(!server.hears_within(Duration::from_millis(400)), "the request is still waited for");
    server.respond("late");
    assert_eq!(stream.response().expect_status(200).text(), "late");
}

#[test]
fn a_preface_that_does_not_come_is_not_waited_for() {
    let hopgate = answering("client_header_timeout = \"200ms\"");
    for beginning in ["", "PRI * HTTP/2.0\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut client = hopgate.connect();
        client.send(beginning);
        client.read_to_end();
    }
}

#[test]
fn a_stream_whose_window_stays_shut_is_reset_and_the_others_go_on() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::speaking_http2(upstream.addr(), "", "send_timeout = \"300ms\"");
    let mut client = Http2::connect_with_window(&hopgate, 65_535);
    let request = client.request("GET", "/", &[]);
    let mut stream = client.begin(request, true);
    let mut server = upstream.accept();
    server.head();
    server.send("HTTP/1.1 200 OK\r\n\r\n");
    stream.head();
    server.send(Noise::seeded(1).take(200_000));
    server.expect_closed();
    hopgate.wait_for_log("took nothing for longer than `send_timeout`");
    assert_eq!(stream.read_to_end(), Err(Reason::INTERNAL_ERROR));

    let request = client.request("GET", "/", &[]);
    let stream = client.begin(request, true);
    let mut server = upstream.accept();
    server.head();
    server.respond("fine");
    stream.response().expect_status(200);
}

#[test]
fn a_client_that_takes_nothing_at_all_is_let_go() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::speaking_http2(upstream.addr(), "send_timeout = \"500ms\"", "");
    // Everything is acknowledged by the windows and nothing read from the socket.
    let mut client = hopgate.connect().with_small_buffers();
    let settings = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0x7f, 0xff, 0xff, 0xff];
    let window = [0, 0, 4, 8, 0, 0, 0, 0, 0, 0x7f, 0, 0, 0];
    // GET / of http://a: indexed fields, and `:authority` as a literal.
    let get = [0, 0, 6, 1, 5, 0, 0, 0, 1, 0x82, 0x86, 0x84, 0x01, 0x01, b'a'];
    client.send([&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &settings, &window, &get].concat());
    let mut server = upstream.accept();
    server.head();
    server.send("HTTP/1.1 200 OK\r\n\r\n");
    server.send_until_refused();
    hopgate.wait_for_log("`send_timeout`");
    // Nothing is left of it.
    hopgate.wait_for_access("\"GET / HTTP/2.0\" 200 ");
    let (_, ending) = client.read_to_end();
    assert_eq!(ending, Ending::Reset);
}

#[test]
fn r35_a_client_that_opens_streams_to_reset_them_is_told_to_calm_down() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::speaking_http2(upstream.addr(), "", "");
    let mut client = Http2::connect(&hopgate);
    thread::scope(|scope| {
        // An app that never answers.
        let taken = scope.spawn(|| {
            let mut taken = Vec::new();
            while let Some(server) = upstream.accept_within(Duration::from_secs(1)) {
                taken.push(server);
            }
        });
        let mut opened = 0;
        // The thread that hears what the server says may be slower than this loop.
        let deadline = Instant::now() + DEADLINE;
        let end = loop {
            let request = client.request("GET", "/", &[]);
            match client.begin_if_taken(request, true) {
                Ok(stream) => stream.reset(),
                Err(error) => break error,
            }
            opened += 1;
            assert!(Instant::now() < deadline, "nobody minds");
        };
        assert_eq!(end.reason(), Some(Reason::ENHANCE_YOUR_CALM), "{end}\n{}", hopgate.log());
        assert!(opened >= 500, "a browser that leaves a page may do so: {opened}");
        taken.join().expect("an upstream");
    });
    hopgate.wait_for_log("a connection of HTTP/2 is ended: ");
    assert_eq!(client.end(), Some(Reason::ENHANCE_YOUR_CALM));
}

#[test]
fn a_page_full_of_requests_that_are_given_up_at_once_is_no_attack() {
    let hopgate = answering("");
    let mut client = Http2::connect(&hopgate);
    for _ in 0..3 {
        let streams: Vec<_> = (0..100)
            .map(|_| {
                let request = client.request("GET", "/", &[]);
                client.begin(request, true)
            })
            .collect();
        streams.into_iter().for_each(Http2Stream::reset);
        client.get("/").expect_status(200);
    }
}

#[test]
fn frames_that_no_client_would_send_are_dealt_with() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::speaking_http2(
        upstream.addr(),
        "[[server.location]]\npath = \"= /\"\nreturn = \"200 hello\"",
        "",
    );
    run_python_script("http2_frames.py", &hopgate.addr().to_string());
    hopgate.wait_for_log("is ended: the client resets too many streams");
    hopgate.wait_for_log("is ended: the client sends too many frames that get nothing done");
    hopgate.wait_for_log("is ended: its first frame is not SETTINGS");
}
