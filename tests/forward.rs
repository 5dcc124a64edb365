//! Ordinary HTTP/1.1: what reaches the upstream, what comes back, and when.

mod support;

use std::thread;

use support::{Hopgate, Noise, Upstream, assert_same_bytes};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn a_request_reaches_the_upstream_and_its_answer_comes_back() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);

    let mut client = hopgate.connect();
    client.send("GET /a?b=c HTTP/1.1\r\nHost: example.org:81\r\nAccept: */*\r\n\r\n");

    let mut server = upstream.accept();
    server.expect_head(
        "GET /a?b=c HTTP/1.1",
        &[
            "Host: example.org:81",
            "Accept: */*",
            "X-Forwarded-For: 127.0.0.1",
            "X-Forwarded-Proto: http",
            "X-Forwarded-Host: example.org:81",
            "X-Real-IP: 127.0.0.1",
        ],
    );
    server.send("HTTP/1.1 201 Made\r\nContent-Length: 5\r\nX-App: yes\r\n\r\nhello");

    let response = client.expect_status(201);
    response.head.expect(&["X-App: yes"]);
    assert_eq!(response.text(), "hello");
}

#[test]
fn end_to_end_fields_keep_order_duplicates_spelling_and_bytes() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);
    // Two duplicates apart from each other, odd spelling, an empty value, tabs inside, bytes above 0x7f.
    let fields: &[u8] =
        b"x-oNe: 1\r\nCookie: a=b\r\nACCEPT: x,y\r\nX-Empty: \r\nx-one: 2\r\nCookie: c=d\r\nX-Tab: a\tb\r\nX-Obs: \xff\x80\xe4\r\n";

    let mut client = hopgate.connect();
    client.send([b"GET / HTTP/1.1\r\nHost: a\r\n", fields, b"\r\n"].concat());
    let mut server = upstream.accept();
    let head = server.head();
    assert_contains(&head.raw, fields);

    server.send(
        [
            b"HTTP/1.1 200 Fine, thanks\r\nContent-Length: 0\r\n",
            fields,
            b"Set-Cookie: a\r\nset-cookie: b\r\n\r\n",
        ]
        .concat(),
    );
    let response = client.expect_status(200);
    assert_contains(&response.head.raw, &[fields, b"Set-Cookie: a\r\nset-cookie: b\r\n"].concat());
}

#[test]
fn the_first_event_of_a_stream_reaches_the_client_at_once() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);

    let mut client = hopgate.connect();
    client.send(GET);
    let mut server = upstream.accept();
    server.head();
    server.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.expect_head("HTTP/1.1 200 OK", &["Content-Type: text/event-stream", "Transfer-Encoding: chunked"]);

    server.send("9\r\ndata: 1\n\n\r\n");
    client.expect_chunked("data: 1\n\n");
    server.send("9\r\ndata: 2\n\n\r\n");
    client.expect_chunked("data: 2\n\n");
    server.send("0\r\n\r\n");
    assert_eq!(client.chunk(), None);
}

#[test]
fn the_first_part_of_a_request_body_reaches_the_upstream_at_once() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);

    let mut client = hopgate.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello");
    let mut server = upstream.accept();
    server.expect_head("POST / HTTP/1.1", &["Content-Length: 10"]).expect_none_of(&["Transfer-Encoding"]);
    server.expect("hello");
    client.send("world");
    server.expect("world");
    server.respond("thanks");
    assert_eq!(client.expect_status(200).text(), "thanks");
}

#[test]
fn a_chunked_request_stays_chunked_and_loses_its_extensions() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);

    let mut client = hopgate.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n");
    let mut server = upstream.accept();
    server
        .expect_head("POST / HTTP/1.1", &["Transfer-Encoding: chunked"])
        .expect_none_of(&["Content-Length"]);
    server.expect_chunked("hello");
    client.send("A;x=\"y;z\"\r\n0123456789\r\n000\r\n\r\n");
    server.expect_chunked("0123456789");
    assert_eq!(server.chunk(), None);
    server.expect("\r\n");
    server.respond("");
    client.expect_status(200);
}

#[test]
fn megabytes_arrive_unchanged_both_ways_at_once_in_either_framing() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);
    let up = Noise::seeded(1).take(5_000_000);
    let down = Noise::seeded(2).take(7_000_000);

    for chunked in [false, true] {
        let mut client = hopgate.connect();
        let mut request = client_body_head(chunked, up.len());
        request.extend(framed(&up, chunked));
        let mut answer = if chunked {
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec()
        } else {
            format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", down.len())
                .into_bytes()
        };
        answer.extend(framed(&down, chunked));

        let uploaded = thread::scope(|scope| {
            let upstream = scope.spawn(|| {
                let mut server = upstream.accept();
                server.head();
                let body = if chunked { server.chunked_body().0 } else { server.read(up.len()) };
                server.send(answer);
                body
            });
            client.send(request);
            assert_same_bytes("the download", &down, &client.expect_status(200).body);
            upstream.join().expect("the upstream had no complaint")
        });
        assert_same_bytes("the upload", &up, &uploaded);
    }
}

#[test]
fn a_client_that_does_not_read_is_not_buffered_for() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);

    let mut client = hopgate.connect();
    client.send(GET);
    let mut server = upstream.accept();
    server.head();
    server.send("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
    let before = hopgate.resident_kib();
    let sent = server.send_until_stalled(&mut Noise::seeded(3));
    let grown = hopgate.resident_kib().saturating_sub(before);
    assert!(grown < 4096, "{grown} KiB grown while {sent} bytes went out");

    server.close();
    let response = client.expect_status(200);
    assert_same_bytes("the body", &Noise::seeded(3).take(sent), &response.body);
}

#[test]
fn an_upstream_that_does_not_read_is_not_buffered_for() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);

    let mut client = hopgate.connect();
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", 1_u64 << 33));
    let mut server = upstream.accept();
    server.head();
    let before = hopgate.resident_kib();
    let sent = client.send_until_stalled(&mut Noise::seeded(4));
    let grown = hopgate.resident_kib().saturating_sub(before);
    assert!(grown < 4096, "{grown} KiB grown while {sent} bytes went out");

    assert_same_bytes("the body", &Noise::seeded(4).take(sent), &server.read(sent));
}

#[test]
fn r28_interim_answers_are_passed_on_in_order() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);

    let mut client = hopgate.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    let mut server = upstream.accept();
    server.expect_head("POST / HTTP/1.1", &["Expect: 100-continue"]);
    server.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n");
    client.expect_status(103).head.expect(&["Link: </a.css>"]);
    server.send("HTTP/1.1 100 Continue\r\n\r\n");
    client.expect_status(100);
    client.send("hello");
    server.expect("hello");
    server.respond("done");
    assert_eq!(client.expect_status(200).text(), "done");
}

#[test]
fn r28_an_http_1_0_client_gets_no_interim_answers() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);

    let mut client = hopgate.connect();
    client.send("GET / HTTP/1.0\r\n\r\n");
    let mut server = upstream.accept();
    server.head();
    server.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n");
    server.respond("done");
    assert_eq!(client.expect_status(200).text(), "done");
}

#[test]
fn r25_a_refused_expectation_closes_the_connection_whose_body_never_came() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);

    let mut client = hopgate.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    let mut server = upstream.accept();
    server.head();
    server.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno");
    let response = client.expect_status(401);
    assert_eq!(response.text(), "no");
    assert!(response.head.has_member("Connection", "close"), "{}", response.head);
    client.expect_eof();
}

#[test]
fn answers_without_a_body_keep_their_length_and_the_connection() {
    // (request, the upstream's head, what the client sees of it)
    let rows = [
        ("HEAD", "200 OK\r\nContent-Length: 1000", "Content-Length: 1000"),
        ("HEAD", "200 OK\r\nTransfer-Encoding: chunked", "X-Row: yes"),
        ("GET", "204 No Content", "X-Row: yes"),
        ("GET", "304 Not Modified\r\nContent-Length: 77\r\nETag: \"x\"", "ETag: \"x\""),
        ("GET", "304 Not Modified\r\nETag: \"y\"", "ETag: \"y\""),
    ];
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);
    let mut client = hopgate.connect();

    for (method, head, field) in rows {
        println!("row: {method} {head:?}");
        client.send(format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n"));
        let mut server = upstream.accept();
        server.expect_head(&format!("{method} / HTTP/1.1"), &[]);
        server.send(format!("HTTP/1.1 {head}\r\nConnection: close\r\nX-Row: yes\r\n\r\n"));
        let head = client.head();
        head.expect(&[field]).expect(&["X-Row: yes"]);
        assert!(!head.has_member("Connection", "close"), "{head}");
    }
    client.send(GET);
    let mut server = upstream.accept();
    server.head();
    server.respond_and_close("still in step");
    assert_eq!(client.expect_status(200).text(), "still in step");
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);

    let mut client = hopgate.connect();
    client.send(
        "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\
         GET /3 HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    let mut server = upstream.accept();
    server.expect_head("GET /1 HTTP/1.1", &[]);
    server.respond_and_close("one");
    let mut server = upstream.accept();
    server.expect_head("POST /2 HTTP/1.1", &[]);
    server.expect("abc");
    server.respond_and_close("two");
    let mut server = upstream.accept();
    server.expect_head("GET /3 HTTP/1.1", &[]);
    server.respond_and_close("three");

    for body in ["one", "two", "three"] {
        assert_eq!(client.expect_status(200).text(), body);
    }
}

#[test]
fn an_http_1_0_client_gets_a_body_without_chunks_and_the_end_of_the_connection() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);

    let mut client = hopgate.connect();
    client.send("GET /old HTTP/1.0\r\nHost: a\r\n\r\n");
    let mut server = upstream.accept();
    server.expect_head("GET /old HTTP/1.1", &["Host: a"]);
    server
        .send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n");
    let response = client.expect_status(200);
    response.head.expect_none_of(&["Transfer-Encoding"]);
    assert_eq!(response.text(), "hello world");
    client.expect_eof();
}

#[test]
fn a_body_that_ends_with_the_upstream_connection_reaches_the_client_whole() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);

    for version in ["1.0", "1.1"] {
        let mut client = hopgate.connect();
        client.send(GET);
        let mut server = upstream.accept();
        server.head();
        server.send(format!("HTTP/{version} 200 OK\r\n\r\nhello"));
        server.close();
        assert_eq!(client.expect_status(200).text(), "hello", "HTTP/{version}");
    }
}

#[test]
fn r27_trailers_pass_to_a_client_that_asked_for_them_and_never_become_fields() {
    let upstream = Upstream::listen();
    let answer = "HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
                  2\r\nok\r\n0\r\nX-Sum: 42\r\n\r\n";
    // (location, field of the request, trailers seen)
    let rows = [
        ("", "X-None: 1", 0),
        ("", "TE: trailers", 1),
        ("", "TE: gzip, Trailers;q=0.5", 1),
        ("proxy_pass_trailers = true", "X-None: 1", 1),
    ];

    for (location, field, trailers) in rows {
        println!("row: {location:?} {field:?}");
        let hopgate = Hopgate::with_location(&upstream, location);
        let mut client = hopgate.connect();
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n"));
        let mut server = upstream.accept();
        server.head();
        server.send(answer);
        let response = client.expect_status(200);
        assert_eq!(response.text(), "ok");
        assert_eq!(response.trailers.len(), trailers);
        response.head.expect_none_of(&["X-Sum"]);
    }
}

#[test]
fn r27_trailers_of_a_request_are_dropped() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);

    let mut client = hopgate.connect();
    client.send(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
         2\r\nok\r\n0\r\nX-Sum: 1\r\nHost: evil\r\n\r\n",
    );
    let mut server = upstream.accept();
    server.head().expect_none_of(&["X-Sum"]);
    let (body, trailers) = server.chunked_body();
    assert_eq!((body, trailers), (b"ok".to_vec(), vec![]));
    server.respond("");
    client.expect_status(200);
}

#[test]
fn an_answer_may_come_before_the_request_is_complete() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);

    let mut client = hopgate.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nfirst bytes");
    let mut server = upstream.accept();
    server.head();
    server.expect("first bytes");
    server.send("HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno");
    server.close();
    assert_eq!(client.expect_status(403).text(), "no");
    client.read_to_end();
}

#[test]
fn a_request_body_goes_on_while_the_answer_streams() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);

    let mut client = hopgate.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    let mut server = upstream.accept();
    server.head();
    server.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.head();
    for word in ["ping", "pong", "ping again"] {
        let chunk = format!("{:x}\r\n{word}\r\n", word.len());
        client.send(&chunk);
        server.expect_chunked(word);
        server.send(&chunk);
        client.expect_chunked(word);
    }
    client.send("0\r\n\r\n");
    assert_eq!(server.chunk(), None);
    server.expect("\r\n");
    server.send("0\r\n\r\n");
    assert_eq!(client.chunk(), None);
}

fn client_body_head(chunked: bool, length: usize) -> Vec<u8> {
    let framing =
        if chunked { "Transfer-Encoding: chunked".to_owned() } else { format!("Content-Length: {length}") };
    format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n").into_bytes()
}

/// The body as it goes over the wire, in chunks of odd sizes.
fn framed(body: &[u8], chunked: bool) -> Vec<u8> {
    if !chunked {
        return body.to_vec();
    }
    let mut wire = Vec::with_capacity(body.len() + body.len() / 100);
    let (mut rest, mut size) = (body, 1);
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(size.min(rest.len()));
        wire.extend(format!("{:X}\r\n", chunk.len()).bytes());
        wire.extend(chunk);
        wire.extend(b"\r\n");
        (rest, size) = (after, size * 7 % 40_009);
    }
    wire.extend(b"0\r\n\r\n");
    wire
}

#[track_caller]
fn assert_contains(raw: &[u8], part: &[u8]) {
    assert!(
        raw.windows(part.len()).any(|window| window == part),
        "expected: {:?}\n  within: {:?}",
        String::from_utf8_lossy(part),
        String::from_utf8_lossy(raw)
    );
}

#[test]
fn a_response_without_a_date_gets_one_and_with_one_keeps_it() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);
    for (date, expected) in
        [("", None), ("Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n", Some("Sun, 06 Nov 1994 08:49:37 GMT"))]
    {
        let mut client = hopgate.connect();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut server = upstream.accept();
        server.head();
        server.send(format!("HTTP/1.1 200 OK\r\n{date}Content-Length: 0\r\n\r\n"));
        let head = client.head();
        let dates = head.all("Date");
        assert_eq!(dates.len(), 1, "{head}");
        assert!(dates[0].ends_with(" GMT") && expected.is_none_or(|expected| dates[0] == expected), "{head}");
    }
}

#[test]
fn what_a_client_sent_before_its_fin_is_answered() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);
    let mut client = hopgate.connect();
    client.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n");
    client.finish();
    let mut server = upstream.accept();
    server.expect_head("GET /1 HTTP/1.1", &[]);
    server.respond("one");
    assert_eq!(client.expect_status(200).text(), "one");
    server.expect_head("GET /2 HTTP/1.1", &[]);
    server.respond("two");
    assert_eq!(client.expect_status(200).text(), "two");
    client.expect_eof();
}

#[test]
fn a_host_that_would_be_empty_is_the_upstreams_since_no_request_may_be_without_one() {
    let upstream = Upstream::listen();
    let url = format!("http://{}", upstream.addr());
    let hopgate = Hopgate::start(&format!(
        r#"
        [[server]]
        listen = "127.0.0.1:0"
        [[server.location]]
        path = "/"
        proxy_pass = "{url}"
        proxy_set_header = {{ Host = "$http_host" }}
        "#
    ));
    let mut client = hopgate.connect();
    client.send("GET / HTTP/1.0\r\n\r\n");
    let mut server = upstream.accept();
    server.expect_head("GET / HTTP/1.1", &[&format!("Host: {}", upstream.addr())]);
}
