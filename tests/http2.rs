//! Requests over HTTP/2, and every kind of answer to them: what an HTTP/1.1 upstream gets and what a client sees.

mod support;

use std::io::Read as _;
use std::thread;

use flate2::read::GzDecoder;
use h2::Reason;
use support::{Dir, Hopgate, Http2, NodeApp, Noise, Upstream, assert_same_bytes};

fn speaking_http2(upstream: &Upstream) -> Hopgate {
    Hopgate::speaking_http2(upstream.addr(), "", "")
}

/// A server with these locations.
fn serving(locations: &str) -> Hopgate {
    Hopgate::start(&format!("workers = 1\n[[server]]\nlisten = \"127.0.0.1:0 http2\"\n{locations}"))
}

#[test]
fn a_request_goes_upstream_as_one_of_http_1_1() {
    let upstream = Upstream::listen();
    let hopgate = speaking_http2(&upstream);
    let mut client = Http2::connect(&hopgate);
    let fields = [
        ("x-twice", "1"),
        ("accept", "*/*"),
        ("x-twice", "2"),
        ("cookie", "a=1"),
        ("cookie", "b=2"),
        ("te", "trailers"),
        ("x-empty", ""),
    ];
    let request = client.request("GET", "/a%20b?q=1&r", &fields);
    let stream = client.begin(request, true);
    let mut server = upstream.accept();
    let head = server.expect_head(
        "GET /a%20b?q=1&r HTTP/1.1",
        &["accept: */*", "cookie: a=1; b=2", "x-empty:", "TE: trailers", "X-Forwarded-Proto: http"],
    );
    assert_eq!(head.all("x-twice"), ["1", "2"]);
    assert_eq!(head.field("Host"), Some(hopgate.addr().to_string().as_str()));
    head.expect_none_of(&["Transfer-Encoding", "Content-Length", "Upgrade"]);
    server.send(
        "HTTP/1.1 200 Fine\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nSet-Cookie: a=1\r\n\
         X-Mixed-Case: Yes\r\nSet-Cookie: b=2\r\nContent-Length: 5\r\n\r\nhello",
    );
    let response = stream.response().expect_status(200);
    assert_eq!(response.text(), "hello");
    assert_eq!(response.field("x-mixed-case"), Some("Yes"));
    assert_eq!(response.field("content-length"), Some("5"));
    let cookies: Vec<_> = response.fields.get_all("set-cookie").iter().collect();
    assert_eq!(cookies, ["a=1", "b=2"]);
    for gone in ["connection", "x-hop", "keep-alive", "transfer-encoding"] {
        assert_eq!(response.field(gone), None, "{gone}");
    }
    let line = hopgate.wait_for_access("q=1");
    assert!(line.contains("\"GET /a%20b?q=1&r HTTP/2.0\" 200 5 "), "{line}");
}

#[test]
fn answers_come_back_in_whatever_order_the_app_gives_them() {
    let upstream = Upstream::listen();
    let hopgate = speaking_http2(&upstream);
    let mut client = Http2::connect(&hopgate);
    let mut asked: Vec<_> = (0..10)
        .map(|number| {
            let request = client.request("GET", &format!("/{number}"), &[]);
            let stream = client.begin(request, true);
            let mut server = upstream.accept();
            server.expect_head(&format!("GET /{number} HTTP/1.1"), &[]);
            (number, stream, server)
        })
        .collect();
    asked.reverse();
    for (number, stream, mut server) in asked {
        server.respond(&format!("answer {number}"));
        assert_eq!(stream.response().expect_status(200).text(), format!("answer {number}"));
    }
}

#[test]
fn content_of_a_known_length_keeps_it_and_of_an_unknown_one_goes_in_chunks() {
    let upstream = Upstream::listen();
    let hopgate = speaking_http2(&upstream);
    let mut client = Http2::connect(&hopgate);

    let request = client.request("POST", "/known", &[("content-length", "5")]);
    let mut stream = client.begin(request, false);
    stream.send("hello");
    stream.finish();
    let mut server = upstream.accept();
    server.expect_head("POST /known HTTP/1.1", &["content-length: 5"]).expect_none_of(&["Transfer-Encoding"]);
    server.expect("hello");
    server.respond("ok");
    stream.response().expect_status(200);

    let request = client.request("POST", "/unknown", &[]);
    let mut stream = client.begin(request, false);
    stream.send("hel");
    let head = server.expect_head("POST /unknown HTTP/1.1", &["Transfer-Encoding: chunked"]);
    head.expect_none_of(&["Content-Length"]);
    server.expect_chunked("hel");
    stream.send("lo");
    server.expect_chunked("lo");
    stream.finish();
    server.expect("0\r\n\r\n");
    server.respond("ok");
    stream.response().expect_status(200);
}

#[test]
fn trailers_pass_both_ways_for_those_who_want_them() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::speaking_http2(upstream.addr(), "", "proxy_pass_trailers = true");
    let mut client = Http2::connect(&hopgate);
    let request = client.request("POST", "/", &[("te", "trailers")]);
    let mut stream = client.begin(request, false);
    stream.send("hello");
    stream.finish_with("x-checksum", "1");
    let mut server = upstream.accept();
    server.head();
    let (body, trailers) = server.chunked_body();
    assert_eq!((body, trailers), (b"hello".to_vec(), vec![("x-checksum".to_owned(), "1".to_owned())]));
    server.send(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Grpc-Status\r\n\r\n5\r\nworld\r\n0\r\n\
         Grpc-Status: 0\r\nSet-Cookie: no\r\n\r\n",
    );
    let response = stream.response().expect_status(200);
    assert_eq!(response.text(), "world");
    assert_eq!(response.trailers.get("grpc-status").expect("a trailer"), "0");
    assert_eq!(response.trailers.len(), 1);
}

#[test]
fn answers_without_content_end_with_their_head() {
    let upstream = Upstream::listen();
    let hopgate = speaking_http2(&upstream);
    let mut client = Http2::connect(&hopgate);
    let rows = [
        ("HEAD", "200 OK\r\nContent-Length: 500", 200, Some("500")),
        ("GET", "204 No Content", 204, None),
        ("GET", "304 Not Modified\r\nContent-Length: 70", 304, Some("70")),
        ("GET", "200 OK\r\nContent-Length: 0", 200, Some("0")),
    ];
    let mut server = None;
    for (method, answer, status, length) in rows {
        let request = client.request(method, "/", &[]);
        let stream = client.begin(request, true);
        let server = server.get_or_insert_with(|| upstream.accept());
        server.head();
        server.send(format!("HTTP/1.1 {answer}\r\n\r\n"));
        let response = stream.response().expect_status(status);
        assert_eq!((response.body.len(), response.field("content-length")), (0, length), "{answer}");
    }
}

#[test]
fn interim_answers_pass_and_a_client_is_told_to_continue_by_the_app() {
    let upstream = Upstream::listen();
    let hopgate = speaking_http2(&upstream);
    let mut client = Http2::connect(&hopgate);
    let fields = [("expect", "100-continue"), ("content-length", "5")];
    let request = client.request("POST", "/", &fields);
    let mut stream = client.begin(request, false);
    let mut server = upstream.accept();
    server.expect_head("POST / HTTP/1.1", &["expect: 100-continue"]);
    server.send("HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(stream.interim(), 100);
    stream.send("hello");
    stream.finish();
    server.expect("hello");
    server.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
    assert_eq!(stream.interim(), 103);
    server.respond("done");
    assert_eq!(stream.response().expect_status(200).text(), "done");
}

#[test]
fn large_bodies_pass_both_ways_unchanged() {
    let app = NodeApp::start();
    let hopgate = Hopgate::speaking_http2(app.addr(), "", "client_max_body_size = \"off\"");
    let mut client = Http2::connect(&hopgate);
    let noise = Noise::seeded(1).take(5_000_003);
    let request = client.request("POST", "/echo", &[]);
    let mut stream = client.begin(request, false);
    // The app sends it back as it comes: neither side waits for the other's end.
    let (first, rest) = noise.split_at(1);
    assert_eq!(stream.head_after(first).status, 200);
    stream.expect(first);
    for piece in rest.chunks(100_000) {
        stream.send(piece);
        assert_same_bytes("a piece", piece, &stream.read(piece.len()));
    }
    stream.finish();
    assert_eq!(stream.read_to_end(), Ok(Vec::new()));
    for path in ["/download/length/3000000", "/download/chunked/3000000"] {
        assert_eq!(client.get(path).expect_status(200).body.len(), 3_000_000, "{path}");
    }
}

#[test]
fn events_come_as_they_happen() {
    let upstream = Upstream::listen();
    let hopgate = speaking_http2(&upstream);
    let mut client = Http2::connect(&hopgate);
    let request = client.request("GET", "/events", &[]);
    let mut stream = client.begin(request, true);
    let mut server = upstream.accept();
    server.head();
    server.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n");
    assert_eq!(stream.head().status, 200);
    for event in ["data: 1\n\n", "data: 2\n\n"] {
        server.send(event);
        stream.expect(event);
    }
    server.close();
    assert_eq!(stream.read_to_end(), Ok(Vec::new()));
}

#[test]
fn an_answer_that_breaks_off_looks_broken() {
    let upstream = Upstream::listen();
    let hopgate = speaking_http2(&upstream);
    let mut client = Http2::connect(&hopgate);
    for framing in ["Content-Length: 100", "Transfer-Encoding: chunked"] {
        let request = client.request("GET", "/", &[]);
        let mut stream = client.begin(request, true);
        let mut server = upstream.accept();
        server.head();
        server.send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n5\r\nhello\r\n"));
        assert_eq!(stream.head().status, 200);
        server.close();
        assert_eq!(stream.read_to_end(), Err(Reason::INTERNAL_ERROR), "{framing}");
    }
    // The others know nothing of it.
    let request = client.request("GET", "/", &[]);
    let stream = client.begin(request, true);
    let mut server = upstream.accept();
    server.head();
    server.respond("whole");
    stream.response().expect_status(200);
}

#[test]
fn a_stream_that_is_given_up_ends_its_request_and_no_other() {
    let upstream = Upstream::listen();
    let hopgate = speaking_http2(&upstream);
    let mut client = Http2::connect(&hopgate);
    let begin = |client: &mut Http2, ends| {
        let request = client.request("POST", "/", &[]);
        let stream = client.begin(request, ends);
        let mut server = upstream.accept();
        server.head();
        (stream, server)
    };
    let (kept, mut kept_server) = begin(&mut client, true);
    // While an answer is waited for; while content is sent.
    for ends in [true, false] {
        let (stream, mut server) = begin(&mut client, ends);
        stream.reset();
        server.expect_closed();
    }
    // While the upstream takes nothing of what is sent.
    let (mut stream, mut server) = begin(&mut client, false);
    stream.send_until_stalled(&mut Noise::seeded(1));
    stream.reset();
    server.read_to_end();
    // While an answer is read.
    let (mut stream, mut server) = begin(&mut client, true);
    server.send("HTTP/1.1 200 OK\r\n\r\nhello");
    stream.head();
    stream.expect("hello");
    stream.reset();
    server.expect_closed();
    kept_server.respond("kept");
    assert_eq!(kept.response().expect_status(200).text(), "kept");
}

#[test]
fn an_answer_that_comes_early_is_heard_and_what_is_still_sent_is_stopped() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::speaking_http2(upstream.addr(), "", "client_max_body_size = \"100k\"");
    let mut client = Http2::connect(&hopgate);
    let request = client.request("POST", "/", &[("content-length", "200000")]);
    let stream = client.begin(request, false);
    stream.response().expect_status(413);

    let request = client.request("POST", "/", &[]);
    let mut stream = client.begin(request, false);
    stream.send("begun");
    let mut server = upstream.accept();
    server.head();
    server.expect_chunked("begun");
    server.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
    assert_eq!(stream.response().expect_status(403).text(), "no");
    server.expect_closed();
}

#[test]
fn a_slow_reader_stops_its_own_answer_and_no_other() {
    let upstream = Upstream::listen();
    let hopgate = speaking_http2(&upstream);
    let mut client = Http2::connect_with_window(&hopgate, 65_535);
    let request = client.request("GET", "/slow", &[]);
    let mut slow = client.begin(request, true);
    let mut server = upstream.accept().with_small_buffers();
    server.head();
    server.send("HTTP/1.1 200 OK\r\n\r\n");
    slow.head();
    let sent = server.send_until_stalled(&mut Noise::seeded(1));

    let noise = Noise::seeded(2).take(2_000_000);
    for _ in 0..3 {
        let request = client.request("GET", "/fast", &[]);
        let fast = client.begin(request, true);
        let mut server = upstream.accept();
        server.head();
        thread::scope(|scope| {
            scope.spawn(|| {
                server.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", noise.len()));
                server.send(&noise);
                server.close();
            });
            assert_same_bytes("beside it", &noise, &fast.response().body);
        });
    }
    assert_same_bytes("once it reads", &Noise::seeded(1).take(sent), &slow.read(sent));
}

#[test]
fn an_upstream_that_takes_nothing_stops_its_own_upload_and_no_other() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::speaking_http2(upstream.addr(), "", "client_max_body_size = \"off\"");
    let mut client = Http2::connect(&hopgate);
    let mut stalled = Vec::new();
    for _ in 0..4 {
        let request = client.request("POST", "/", &[]);
        let mut stream = client.begin(request, false);
        let server = upstream.accept();
        stream.send_until_stalled(&mut Noise::seeded(1));
        stalled.push((stream, server));
    }
    let request = client.request("POST", "/", &[("content-length", "1000000")]);
    let mut stream = client.begin(request, false);
    let mut server = upstream.accept();
    server.head();
    let noise = Noise::seeded(2).take(1_000_000);
    thread::scope(|scope| {
        let taken = scope.spawn(|| server.read(noise.len()));
        stream.send(&noise);
        assert_same_bytes("beside them", &noise, &taken.join().expect("it came"));
    });
}

#[test]
fn hopgates_own_answers_are_as_good_over_http2() {
    let dir = Dir::new();
    let page = "hello, world; ".repeat(10_000);
    std::fs::write(dir.join("page.html"), &page).expect("a file can be written");
    std::fs::write(dir.join("404.html"), "not here").expect("a file can be written");
    let hopgate = serving(&format!(
        r#"
        root = "{}"
        error_page = "404 /404.html"
        [[server.location]]
        path = "/"
        [[server.location]]
        path = "/gzip/"
        alias = "{}/"
        gzip = true
        [[server.location]]
        path = "/moved"
        return = "301 /page.html"
        [[server.location]]
        path = "/text"
        return = "200 $server_protocol/$http2"
        [[server.location]]
        path = "/silence"
        return = 444
        "#,
        dir.path(""),
        dir.path("")
    ));
    let mut client = Http2::connect(&hopgate);
    assert_same_bytes("a file", page.as_bytes(), &client.get("/page.html").expect_status(200).body);
    let part = client.ask("GET", "/page.html", &[("range", "bytes=7-11")]).expect_status(206);
    assert_eq!(part.text(), "world");
    let head = client.ask("HEAD", "/page.html", &[]).expect_status(200);
    assert_eq!((head.field("content-length"), head.body.len()), (Some("140000"), 0));
    let compressed = client.ask("GET", "/gzip/page.html", &[("accept-encoding", "gzip")]).expect_status(200);
    assert_eq!(
        (compressed.field("content-encoding"), compressed.field("content-length")),
        (Some("gzip"), None)
    );
    let mut text = String::new();
    GzDecoder::new(&*compressed.body).read_to_string(&mut text).expect("gzip, to its end");
    assert_same_bytes("a compressed file", page.as_bytes(), text.as_bytes());
    assert_eq!(client.get("/missing").expect_status(404).text(), "not here");
    assert_eq!(client.get("/text").expect_status(200).text(), "HTTP/2.0/h2c");
    let moved = client.get("/moved").expect_status(301);
    assert_eq!(moved.field("location"), Some(format!("http://{}/page.html", hopgate.addr()).as_str()));
    let request = client.request("GET", "/silence", &[]);
    assert_eq!(client.begin(request, true).head_if_any().unwrap_err(), Reason::CANCEL);
    client.get("/text").expect_status(200);
}

#[test]
fn answers_of_an_upstream_are_compressed_over_http2_too() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::speaking_http2(upstream.addr(), "", "gzip = true");
    let mut client = Http2::connect(&hopgate);
    let request = client.request("GET", "/", &[("accept-encoding", "gzip")]);
    let stream = client.begin(request, true);
    let mut server = upstream.accept();
    server.head();
    let page = "hello, world; ".repeat(1000);
    server.send(format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\r\n{page}",
        page.len()
    ));
    let response = stream.response().expect_status(200);
    let mut text = String::new();
    GzDecoder::new(&*response.body).read_to_string(&mut text).expect("gzip, to its end");
    assert_eq!(text, page);
}

#[test]
fn a_listener_that_does_not_ask_for_http2_speaks_http_1_1_alone() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);
    let mut client = hopgate.connect();
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    client.expect_status(505);
}

#[test]
fn a_reload_is_for_the_next_request_and_leaves_the_connection_as_it_is() {
    let toml = |text: &str| {
        format!(
            "workers = 1\n[[server]]\nlisten = \"127.0.0.1:0 http2\"\n[[server.location]]\npath = \"/\"\nreturn = \"200 {text}\""
        )
    };
    let hopgate = Hopgate::start(&toml("old"));
    let mut client = Http2::connect(&hopgate);
    assert_eq!(client.get("/").text(), "old");
    hopgate.reload_with(&toml("new"));
    assert_eq!(client.get("/").text(), "new");
}

#[test]
fn a_drain_lets_requests_finish_and_takes_no_new_ones() {
    let upstream = Upstream::listen();
    let mut hopgate = speaking_http2(&upstream);
    let mut client = Http2::connect(&hopgate);
    let request = client.request("GET", "/", &[]);
    let mut stream = client.begin(request, true);
    let mut server = upstream.accept();
    server.head();
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
    stream.head();
    stream.expect("hello");
    hopgate.signal("TERM");
    hopgate.wait_for_log("draining");
    client.expect_no_more_streams();
    server.send("world");
    assert_eq!(stream.read_to_end(), Ok(b"world".to_vec()));
    assert_eq!(client.end(), None);
    assert!(hopgate.wait_exit().success());
}
