//! Upstreams that refuse, break off, are silent or talk nonsense: the client gets the right status, or an answer that is
//! unmistakably broken.

mod support;

use support::{Ending, Hopgate, Upstream};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn r28_more_than_sixteen_interim_answers_are_a_502() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);

    let mut client = hopgate.connect();
    client.send(GET);
    let mut server = upstream.accept();
    server.head();
    server.send_if_open("HTTP/1.1 103 Early Hints\r\n\r\n".repeat(17));
    for _ in 0..16 {
        client.expect_status(103);
    }
    client.expect_status(502);
    server.read_to_end();
}

#[test]
fn a_cut_answer_never_looks_whole() {
    // (the head and a first part, what follows once the client has them, whether the upstream resets rather than closes)
    let rows = [
        ("Content-Length: 100\r\n\r\nhalf", "", false),
        ("Content-Length: 100\r\n\r\nhalf", "", true),
        ("Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", "", false),
        ("Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", "", true),
        ("Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", "5\r\nhe", false),
        ("Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", "Z\r\n", false),
        ("Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", "2\nok\r\n0\r\n\r\n", false),
        ("Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", "0\r\n", false),
        ("X-Close: delimited\r\n\r\nhalf", "", true),
    ];
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);

    for (start, rest, reset) in rows {
        println!("row: {start:?} {rest:?} reset={reset}");
        let mut client = hopgate.connect();
        client.send(GET);
        let mut server = upstream.accept();
        server.head();
        server.send(format!("HTTP/1.1 200 OK\r\n{start}"));
        let head = client.head();
        assert_eq!(head.status(), 200);
        let chunked = head.has_member("Transfer-Encoding", "chunked");
        if chunked {
            client.expect_chunked("half");
        } else {
            client.expect("half");
        }
        server.send(rest);
        if reset {
            server.reset()
        } else {
            server.close()
        }

        let (rest, ending) = client.read_to_end();
        assert!(!rest.ends_with(b"0\r\n\r\n"), "a cut body got a last chunk");
        let framed = chunked || head.field("Content-Length").is_some();
        assert!(framed || ending == Ending::Reset, "a cut close-delimited body ended with FIN");
    }
}

#[test]
fn a_body_that_is_nonsense_from_its_beginning_is_a_502_or_a_cut_answer_but_never_silence() {
    let rows = [
        "Transfer-Encoding: chunked\r\n\r\nZ\r\n",
        "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nZ\r\n",
        "Transfer-Encoding: chunked\r\n\r\n2\nok\r\n0\r\n\r\n",
    ];
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);

    for answer in rows {
        println!("row: {answer:?}");
        let mut client = hopgate.connect();
        client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let mut server = upstream.accept();
        server.head();
        server.send(format!("HTTP/1.1 200 OK\r\n{answer}"));
        let head = client.head();
        let (body, _) = client.read_to_end();
        assert!(head.status() == 502 || head.status() == 200 && !body.ends_with(b"0\r\n\r\n"), "{head}");
    }
}

#[test]
fn hopgate_speaks_for_itself_where_no_upstream_answers() {
    let upstream = Upstream::refusing();
    let hopgate = Hopgate::start(&format!(
        r#"
        workers = 1
        [[server]]
        listen = "127.0.0.1:0"
        location = [{{ path = "/app", proxy_pass = "http://{}" }}]
        "#,
        upstream.addr()
    ));
    for (path, status, body) in [("/", 404, "404 Not Found\n"), ("/app", 502, "502 Bad Gateway\n")] {
        let mut client = hopgate.connect();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let response = client.expect_status(status);
        assert_eq!(response.text(), body);
        response.head.expect(&["Server: hopgate", &format!("Content-Length: {}", body.len())]);
        assert!(response.head.field("Content-Type").is_some_and(|kind| kind.starts_with("text/plain")));
        assert!(response.head.field("Date").is_some_and(|date| date.ends_with(" GMT")));
        // A fault of the upstream's is no reason to close on the client.
        client.send(format!("HEAD {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(client.head().status(), status);
        client.expect_nothing_yet(&hopgate);
    }
    hopgate.wait_for_log(upstream.addr());
}

#[test]
fn an_upstream_that_talks_nonsense_is_a_502() {
    let rows: &[(&str, &[u8])] = &[
        ("garbage", b"\x16\x03\x01\x02\x00 not http\r\n\r\n"),
        ("another protocol", b"SSH-2.0-OpenSSH_9.2\r\n\r\n"),
        ("nothing at all", b""),
        ("half a head", b"HTTP/1.1 200 OK\r\nContent-Le"),
        ("bare LF", b"HTTP/1.1 200 OK\nContent-Length: 0\n\n"),
        ("bare LF in one line", b"HTTP/1.1 200 OK\r\nX: y\nContent-Length: 0\r\n\r\n"),
        ("bare CR", b"HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 0\r\n\r\n"),
        ("NUL", b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n"),
        ("space before the colon", b"HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n"),
        ("an empty name", b"HTTP/1.1 200 OK\r\n: x\r\nContent-Length: 0\r\n\r\n"),
        ("no code", b"HTTP/1.1 OK\r\nContent-Length: 0\r\n\r\n"),
        ("a code of two digits", b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n"),
        ("HTTP/2.0", b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n"),
        (
            "both framings",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "both framings, reversed",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        ),
        ("two lengths", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello"),
        ("a signed length", b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello"),
        ("a negative length", b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello"),
        ("an endless length", b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\nhello"),
        ("chunked twice", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
        ("gzip coding", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    ];
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);
    let mut client = hopgate.connect();

    for (name, answer) in rows {
        println!("row: {name}");
        client.send(GET);
        let mut server = upstream.accept();
        server.head();
        server.send(answer);
        server.close();
        client.expect_status(502);
    }
    client.send(GET);
    let mut server = upstream.accept();
    server.head();
    server.respond_and_close("fine again");
    assert_eq!(client.expect_status(200).text(), "fine again");
}

#[test]
fn an_upstream_head_of_more_than_64_kib_is_a_502() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);

    for (size, status) in [(60_000, 200), (70_000, 502)] {
        let mut client = hopgate.connect();
        client.send(GET);
        let mut server = upstream.accept();
        server.head();
        server.send_if_open(format!(
            "HTTP/1.1 200 OK\r\nConnection: close\r\nX-Big: {}\r\nContent-Length: 0\r\n\r\n",
            "x".repeat(size)
        ));
        let response = client.expect_status(status);
        assert_eq!(response.head.field("X-Big").map(str::len), (status == 200).then_some(size));
    }
}

#[test]
fn an_upstream_that_is_reset_or_silent_gets_its_own_status() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::with_location(&upstream, r#"proxy_read_timeout = "300ms""#);

    let mut client = hopgate.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx");
    let mut server = upstream.accept();
    server.head();
    server.expect("x");
    server.reset();
    client.expect_status(502);

    let mut client = hopgate.connect();
    client.send(GET);
    let mut server = upstream.accept();
    server.head();
    client.expect_status(504);
    server.expect_closed();
    hopgate.wait_for_log("proxy_read_timeout");
}
