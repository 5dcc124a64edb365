//! Bad input, rules R19 to R29: it is refused with the right status, the connection is closed, and the upstream never
//! sees a byte of it.

mod support;

use support::{Hopgate, Upstream};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// Sends each row's bytes on a connection of its own; each must get its status and then the end.
#[track_caller]
fn expect_refusals(rows: &[(&str, &[u8], u16)]) {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);
    assert!(!rows.is_empty());
    let mut failed = Vec::new();
    for (name, bytes, status) in rows {
        let mut client = hopgate.connect();
        client.send(bytes);
        let (answer, _) = client.read_to_end();
        let answer = String::from_utf8_lossy(&answer);
        let closes = answer.to_ascii_lowercase().contains("\r\nconnection: close\r\n");
        if !answer.starts_with(&format!("HTTP/1.1 {status} ")) || !closes {
            failed.push(format!("row: {name}\nexpected: {status} and close\n     got: {answer}"));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    upstream.expect_no_connection(&hopgate);
    expect_service(&hopgate, &upstream);
}

/// Whatever was thrown at it, the next client is served.
#[track_caller]
fn expect_service(hopgate: &Hopgate, upstream: &Upstream) {
    let mut client = hopgate.connect();
    client.send(GET);
    let mut server = upstream.accept();
    server.head();
    server.respond("fine");
    assert_eq!(client.expect_status(200).text(), "fine");
}

macro_rules! post {
    ($fields:literal, $body:literal) => {
        concat!("POST / HTTP/1.1\r\nHost: a\r\n", $fields, "\r\n\r\n", $body).as_bytes()
    };
}

#[test]
fn r19_content_length_with_transfer_encoding_is_refused() {
    expect_refusals(&[
        ("CL first", post!("Content-Length: 5\r\nTransfer-Encoding: chunked", "0\r\n\r\n"), 400),
        ("TE first", post!("Transfer-Encoding: chunked\r\nContent-Length: 5", "0\r\n\r\n"), 400),
        ("CL 0", post!("Content-Length: 0\r\nTransfer-Encoding: chunked", "0\r\n\r\n"), 400),
        ("odd case", post!("CONTENT-LENGTH: 5\r\ntransfer-encoding: Chunked", "0\r\n\r\n"), 400),
        (
            "others between",
            post!("Content-Length: 5\r\nX: y\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
            400,
        ),
        ("TE that is not chunked", post!("Content-Length: 5\r\nTransfer-Encoding: identity", "hello"), 400),
        (
            "CL named in Connection",
            post!(
                "Connection: Content-Length\r\nContent-Length: 5\r\nTransfer-Encoding: chunked",
                "0\r\n\r\n"
            ),
            400,
        ),
        (
            "TE named in Connection",
            post!(
                "Connection: Transfer-Encoding\r\nContent-Length: 5\r\nTransfer-Encoding: chunked",
                "0\r\n\r\n"
            ),
            400,
        ),
    ]);
}

#[test]
fn r20_transfer_encoding_is_exactly_one_chunked() {
    expect_refusals(&[
        ("gzip", post!("Transfer-Encoding: gzip", "0\r\n\r\n"), 400),
        ("identity", post!("Transfer-Encoding: identity", "0\r\n\r\n"), 400),
        ("empty", post!("Transfer-Encoding:", "0\r\n\r\n"), 400),
        ("gzip, chunked", post!("Transfer-Encoding: gzip, chunked", "0\r\n\r\n"), 400),
        ("chunked, gzip", post!("Transfer-Encoding: chunked, gzip", "0\r\n\r\n"), 400),
        ("chunked, chunked", post!("Transfer-Encoding: chunked, chunked", "0\r\n\r\n"), 400),
        (
            "chunked on two lines",
            post!("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
            400,
        ),
        (
            "identity and chunked on two lines",
            post!("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
            400,
        ),
        ("a word that begins so", post!("Transfer-Encoding: chunkedx", "0\r\n\r\n"), 400),
        ("a word that ends so", post!("Transfer-Encoding: xchunked", "0\r\n\r\n"), 400),
        ("a parameter", post!("Transfer-Encoding: chunked;q=1", "0\r\n\r\n"), 400),
        ("quoted", post!("Transfer-Encoding: \"chunked\"", "0\r\n\r\n"), 400),
        ("vertical tab", post!("Transfer-Encoding: \x0bchunked", "0\r\n\r\n"), 400),
        ("form feed behind", post!("Transfer-Encoding: chunked\x0c", "0\r\n\r\n"), 400),
        ("high byte", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \xa0chunked\r\n\r\n0\r\n\r\n", 400),
        ("HTTP/1.0", b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ]);
}

#[test]
fn r20_chunked_in_any_case_and_with_space_around_is_understood() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);
    for coding in ["chunked", "Chunked", "CHUNKED", " \t chunked \t "] {
        println!("row: {coding:?}");
        let mut client = hopgate.connect();
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:{coding}\r\n\r\n2\r\nok\r\n0\r\n\r\n"
        ));
        let mut server = upstream.accept();
        server.expect_head("POST / HTTP/1.1", &["Transfer-Encoding: chunked"]);
        assert_eq!(server.chunked_body().0, b"ok");
        server.respond_and_close("");
        client.expect_status(200);
    }
}

#[test]
fn r21_content_length_is_one_plain_number() {
    expect_refusals(&[
        ("repeated, equal", post!("Content-Length: 5\r\nContent-Length: 5", "hello"), 400),
        ("repeated, different", post!("Content-Length: 5\r\nContent-Length: 6", "hello"), 400),
        ("a list, equal", post!("Content-Length: 5, 5", "hello"), 400),
        ("a list, different", post!("Content-Length: 5,6", "hello"), 400),
        ("a list with an empty member", post!("Content-Length: 5,", "hello"), 400),
        ("plus", post!("Content-Length: +5", "hello"), 400),
        ("minus", post!("Content-Length: -5", "hello"), 400),
        ("minus zero", post!("Content-Length: -0", ""), 400),
        ("a space inside", post!("Content-Length: 5 5", "hello"), 400),
        ("empty", post!("Content-Length:", ""), 400),
        ("hexadecimal", post!("Content-Length: 0x5", "hello"), 400),
        ("exponent", post!("Content-Length: 5e0", "hello"), 400),
        ("a fraction", post!("Content-Length: 5.0", "hello"), 400),
        ("letters", post!("Content-Length: five", "hello"), 400),
        ("more than 64 bits", post!("Content-Length: 18446744073709551616", "hello"), 400),
        ("wraps round to 5", post!("Content-Length: 18446744073709551621", "hello"), 400),
        (
            "very long",
            post!(
                "Content-Length: 00000000000000000000000000000000000000000000000000000000000000005",
                "hello"
            ),
            400,
        ),
        ("quoted", post!("Content-Length: \"5\"", "hello"), 400),
    ]);
}

#[test]
fn r22_a_request_without_framing_has_no_body() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);

    let mut client = hopgate.connect();
    client.send("POST /first HTTP/1.1\r\nHost: a\r\n\r\nGET /second HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut server = upstream.accept();
    let head = server.expect_head("POST /first HTTP/1.1", &[]);
    head.expect_none_of(&["Transfer-Encoding"]);
    assert!(matches!(head.field("Content-Length"), None | Some("0")), "{head}");
    server.expect_nothing_yet(&hopgate);
    server.respond_and_close("1");
    let mut server = upstream.accept();
    server.expect_head("GET /second HTTP/1.1", &[]);
    server.respond_and_close("2");
    assert_eq!(client.expect_status(200).text(), "1");
    assert_eq!(client.expect_status(200).text(), "2");
}

#[test]
fn r23_lines_of_a_head_end_with_crlf() {
    expect_refusals(&[
        ("bare LF everywhere", b"GET / HTTP/1.1\nHost: a\n\n", 400),
        ("bare LF behind the request line", b"GET / HTTP/1.1\nHost: a\r\n\r\n", 400),
        ("bare LF behind a field", b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", 400),
        ("a smuggled field", b"GET / HTTP/1.1\r\nHost: a\r\nX: y\nContent-Length: 5\r\n\r\nhello", 400),
        ("bare LF as the empty line", b"GET / HTTP/1.1\r\nHost: a\r\n\n", 400),
        ("LF, CRLF at the end", b"GET / HTTP/1.1\r\nHost: a\n\r\n\r\n", 400),
        ("bare CR in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", 400),
        ("bare CR in a name", b"GET / HTTP/1.1\r\nHost: a\r\nX\rY: b\r\n\r\n", 400),
        ("bare CR in the request line", b"GET /\r HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("CR CR LF", b"GET / HTTP/1.1\r\r\nHost: a\r\r\n\r\n", 400),
    ]);
}

#[test]
fn r23_bad_chunks_are_refused_and_the_upstream_never_gets_a_last_chunk() {
    let long_extension = format!("2;{}\r\nok\r\n0\r\n\r\n", "x".repeat(100_000));
    let rows: &[(&str, &[u8])] = &[
        ("bare LF behind the size", b"2\nok\r\n0\r\n\r\n"),
        ("bare LF behind the data", b"2\r\nok\n0\r\n\r\n"),
        ("bare LF behind an extension", b"2;x\nok\r\n0\r\n\r\n"),
        ("bare CR in an extension", b"2;x\rxx\r\nok\r\n0\r\n\r\n"),
        ("LF in a quoted extension", b"2;x=\"\n\"\r\nok\r\n0\r\n\r\n"),
        ("CR in a quoted extension", b"2;x=\"\r\"\r\nok\r\n0\r\n\r\n"),
        ("NUL in an extension", b"2;x=\0\r\nok\r\n0\r\n\r\n"),
        ("an endless extension", long_extension.as_bytes()),
        ("bare CR behind the size", b"2\rok\r\n0\r\n\r\n"),
        ("no size", b"\r\nok\r\n0\r\n\r\n"),
        ("an extension without a size", b";x\r\nok\r\n0\r\n\r\n"),
        ("not a number", b"z\r\nok\r\n0\r\n\r\n"),
        ("plus", b"+2\r\nok\r\n0\r\n\r\n"),
        ("minus", b"-2\r\nok\r\n0\r\n\r\n"),
        ("0x", b"0x2\r\nok\r\n0\r\n\r\n"),
        ("a space in front", b" 2\r\nok\r\n0\r\n\r\n"),
        ("an underscore", b"0_2\r\nok\r\n0\r\n\r\n"),
        ("more than 64 bits", b"10000000000000002\r\nok\r\n0\r\n\r\n"),
        ("too little data", b"5\r\nok\r\n0\r\n\r\n"),
        ("too much data", b"2\r\nokay\r\n0\r\n\r\n"),
        ("bare LF behind the last chunk", b"2\r\nok\r\n0\n\r\n"),
        ("bare LF as the end", b"2\r\nok\r\n0\r\n\n"),
        ("a trailer without a colon", b"2\r\nok\r\n0\r\ntrailer\r\n\r\n"),
        ("bare LF in a trailer", b"2\r\nok\r\n0\r\na: b\n\r\n"),
        ("a space before the colon of a trailer", b"2\r\nok\r\n0\r\na : b\r\n\r\n"),
    ];
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);
    for (name, body) in rows {
        println!("row: {name}");
        let mut client = hopgate.connect();
        client.send_if_open(
            [b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", *body].concat(),
        );
        client.expect_status(400);
        client.expect_closed();
        // Hopgate may have begun to pass the request on; then it must have broken it off.
        while let Some(mut server) = upstream.accept_if_any(&hopgate) {
            let (seen, _) = server.read_to_end();
            assert!(!seen.ends_with(b"0\r\n\r\n"), "the upstream got {:?}", String::from_utf8_lossy(&seen));
        }
    }
    expect_service(&hopgate, &upstream);
}

#[test]
fn r24_malformed_fields_are_refused() {
    expect_refusals(&[
        ("obs-fold", b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n", 400),
        ("obs-fold with a tab", b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\tz\r\n\r\n", 400),
        ("a fold in front of the first field", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
        ("a folded length", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n 5\r\n\r\nhello", 400),
        ("a space before the colon", b"GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n", 400),
        (
            "a space before the colon of a length",
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\nhello",
            400,
        ),
        ("a tab before the colon", b"GET / HTTP/1.1\r\nHost: a\r\nX\t: y\r\n\r\n", 400),
        ("an empty name", b"GET / HTTP/1.1\r\nHost: a\r\n: y\r\n\r\n", 400),
        ("an empty name first", b"GET / HTTP/1.1\r\n: y\r\nHost: a\r\n\r\n", 400),
        ("no colon", b"GET / HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n", 400),
        ("a space in a name", b"GET / HTTP/1.1\r\nHost: a\r\nX Y: z\r\n\r\n", 400),
        ("NUL in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n", 400),
        ("NUL in a name", b"GET / HTTP/1.1\r\nHost: a\r\nX\0: y\r\n\r\n", 400),
        ("a control byte in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: \x01\r\n\r\n", 400),
        ("DEL in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: \x7f\r\n\r\n", 400),
        ("a bracket in a name", b"GET / HTTP/1.1\r\nHost: a\r\nX[]: y\r\n\r\n", 400),
        ("a high byte in a name", b"GET / HTTP/1.1\r\nHost: a\r\nX\xe4: y\r\n\r\n", 400),
        ("NUL in the request line", b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ]);
}

#[test]
fn malformed_request_lines_are_refused() {
    expect_refusals(&[
        ("HTTP/0.9", b"GET /\r\n\r\n", 400),
        ("no target", b"GET HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("two spaces", b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("a space in the target", b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("a space behind", b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
        ("a space in front", b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("a tab", b"GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("no method", b"/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("a method that is no token", b"G(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("http in small letters", b"GET / http/1.1\r\nHost: a\r\n\r\n", 400),
        ("no minor version", b"GET / HTTP/1\r\nHost: a\r\n\r\n", 400),
        ("another protocol", b"GET / ICAP/1.0\r\nHost: a\r\n\r\n", 400),
        ("garbage", b"\x00\xff\xfe garbage\r\n\r\n", 400),
        ("HTTP/2.0", b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        ("HTTP/1.2", b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505),
        ("HTTP/0.9 written out", b"GET / HTTP/0.9\r\nHost: a\r\n\r\n", 505),
        ("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ]);
}

#[test]
fn methods_and_expectations_that_are_not_for_a_gateway_are_refused() {
    // The connection may go on after these: they were understood.
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);
    let rows = [
        ("R33: CONNECT with authority-form", "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 405),
        (
            "R33: CONNECT with bytes behind",
            "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            405,
        ),
        ("TRACE", "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        ("an unknown expectation", "GET / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\n\r\n", 417),
        (
            "an unknown expectation behind a known one",
            "GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nExpect: 200-ok\r\n\r\n",
            417,
        ),
    ];
    for (name, request, status) in rows {
        println!("row: {name}");
        let mut client = hopgate.connect();
        client.send(request);
        client.expect_status(status);
    }
    // What stands behind a refused CONNECT may be meant for the tunnel, so it is no request of ours.
    upstream.expect_no_connection(&hopgate);
}

#[test]
fn r25_a_body_that_was_not_read_to_its_end_closes_the_connection() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::start(&format!(
        r#"
        workers = 1
        [[server]]
        listen = "127.0.0.1:0"
        location = [{{ path = "/app", proxy_pass = "http://{}" }}]
        "#,
        upstream.addr()
    ));
    for framing in [
        "Content-Length: 100000",
        "Transfer-Encoding: chunked",
        "Content-Length: 100\r\nExpect: 100-continue",
    ] {
        println!("row: {framing}");
        let mut client = hopgate.connect();
        client.send(format!("POST /nowhere HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n"));
        let response = client.expect_status(404);
        assert!(response.head.has_member("Connection", "close"), "{}", response.head);
        // These would be a request on a connection that had gone on.
        client.send_if_open("GET /app HTTP/1.1\r\nHost: a\r\n\r\n");
        client.expect_closed();
    }
    upstream.expect_no_connection(&hopgate);
}

#[test]
fn r25_a_small_body_that_nobody_wants_is_no_part_of_the_next_request() {
    let hopgate = Hopgate::start(
        r#"
        [[server]]
        listen = "127.0.0.1:0"
        location = [{ path = "= /a", return = "200 '$request_method $uri'" }]
        "#,
    );
    let mut client = hopgate.connect();
    let body = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let head = format!("POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
    client.send(format!("{head}{body}GET /a HTTP/1.1\r\nHost: a\r\n\r\n"));
    client.expect_status(404);
    assert_eq!(client.expect_status(200).text(), "GET /a");
    // It may as well come late, and in pieces.
    client.send(format!("{head}{}", &body[..7]));
    client.expect_status(404);
    client.send(format!("{}GET /a HTTP/1.1\r\nHost: a\r\n\r\n", &body[7..]));
    assert_eq!(client.expect_status(200).text(), "GET /a");
}

#[test]
fn a_field_that_may_stand_once_and_stands_twice_is_refused() {
    expect_refusals(&[
        ("credentials", b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: a\r\nauthorization: b\r\n\r\n", 400),
        ("dates", b"GET / HTTP/1.1\r\nHost: a\r\nIf-Modified-Since: a\r\nIf-Modified-Since: a\r\n\r\n", 400),
        ("a range", b"GET / HTTP/1.1\r\nHost: a\r\nIf-Range: a\r\nX: y\r\nIf-Range: b\r\n\r\n", 400),
    ]);
}

#[test]
fn r29_there_is_exactly_one_valid_host() {
    expect_refusals(&[
        ("none", b"GET / HTTP/1.1\r\n\r\n", 400),
        ("two, different", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("two, equal", b"GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", 400),
        ("two on HTTP/1.0", b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("two beside absolute-form", b"GET http://a/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("none beside absolute-form", b"GET http://a/ HTTP/1.1\r\n\r\n", 400),
        ("a list", b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
        ("a space", b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        ("a path", b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
        ("a query", b"GET / HTTP/1.1\r\nHost: a?b\r\n\r\n", 400),
        ("a fragment", b"GET / HTTP/1.1\r\nHost: a#b\r\n\r\n", 400),
        ("user information", b"GET / HTTP/1.1\r\nHost: me@a\r\n\r\n", 400),
        ("a scheme", b"GET / HTTP/1.1\r\nHost: http://a\r\n\r\n", 400),
        ("a port that is a word", b"GET / HTTP/1.1\r\nHost: a:http\r\n\r\n", 400),
        ("a port that is too big", b"GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n", 400),
        ("two ports", b"GET / HTTP/1.1\r\nHost: a:1:2\r\n\r\n", 400),
        ("an open bracket", b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400),
        ("a bracket with nonsense", b"GET / HTTP/1.1\r\nHost: [zz]\r\n\r\n", 400),
        ("a backslash", b"GET / HTTP/1.1\r\nHost: a\\b\r\n\r\n", 400),
        ("a quote", b"GET / HTTP/1.1\r\nHost: a\"b\r\n\r\n", 400),
        ("a high byte", b"GET / HTTP/1.1\r\nHost: \xe4\r\n\r\n", 400),
    ]);
}

#[test]
fn r29_each_form_of_a_target_belongs_to_its_method() {
    expect_refusals(&[
        ("authority-form without CONNECT", b"GET a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 400),
        ("* without OPTIONS", b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("a relative path", b"GET a/b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("a query alone", b"GET ?a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("another scheme", b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("absolute-form without an authority", b"GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("absolute-form with user information", b"GET http://me@a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("a fragment", b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ]);
}

#[test]
fn r29_valid_hosts_are_passed_on_as_they_came() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);
    for host in
        ["a", "A.Example", "a.example:8080", "127.0.0.1", "[::1]", "[::1]:80", "a-b_c.example", "a.example."]
    {
        println!("row: {host}");
        let mut client = hopgate.connect();
        client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        let mut server = upstream.accept();
        server
            .expect_head("GET / HTTP/1.1", &[&format!("Host: {host}"), &format!("X-Forwarded-Host: {host}")]);
        server.respond_and_close("");
        client.expect_status(200);
    }
}

#[test]
fn an_empty_line_before_a_request_is_forgiven() {
    // RFC 9112 §2.2: a server SHOULD ignore at least one empty line (CRLF) received prior to the request-line.
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);

    let mut client = hopgate.connect();
    client.send("\r\nGET /first HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut server = upstream.accept();
    server.expect_head("GET /first HTTP/1.1", &[]);
    server.respond("");
    client.expect_status(200);
}

#[test]
fn a_head_may_come_byte_by_byte() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);

    let mut client = hopgate.connect();
    for byte in
        "POST /slow HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2;x\r\nok\r\n0\r\n\r\n".bytes()
    {
        client.send([byte]);
    }
    let mut server = upstream.accept();
    server.expect_head("POST /slow HTTP/1.1", &["Host: a"]);
    assert_eq!(server.chunked_body().0, b"ok");
    for byte in "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n".bytes() {
        server.send([byte]);
    }
    assert_eq!(client.expect_status(200).text(), "ok");
}

#[test]
fn random_bytes_never_reach_the_upstream_and_never_stop_the_service() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);
    for seed in 0..50 {
        println!("row: seed {seed}");
        let mut client = hopgate.connect();
        let mut bytes = support::Noise::seeded(seed).take(500);
        // Ends like a head, so that there is something to judge.
        bytes.extend(b"\r\n\r\n");
        client.send(&bytes);
        client.expect_status(400);
        client.expect_closed();
    }
    upstream.expect_no_connection(&hopgate);
    expect_service(&hopgate, &upstream);
}

#[test]
fn r18_a_proxy_protocol_header_that_nobody_asked_for_is_no_http() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);
    let signature = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x01\x02\x03\x04\x7f\0\0\x01\0\x50\0\x50";
    for header in [&b"PROXY TCP4 1.2.3.4 127.0.0.1 80 80\r\n"[..], signature] {
        println!("row: {}", header.escape_ascii());
        let mut client = hopgate.connect();
        client.send([header, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"].concat());
        client.expect_status(400);
        client.expect_eof();
    }
    upstream.expect_no_connection(&hopgate);
}

#[test]
fn a_head_that_is_refused_is_answered_without_a_body_too() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);
    let mut client = hopgate.connect();
    client.send("HEAD /../x HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.head().status(), 400);
    client.expect_eof();
}

#[test]
fn a_body_is_read_once_however_little_is_in_it() {
    let (upstream, fallback) = (Upstream::listen(), Upstream::listen());
    let hopgate = Hopgate::start(&format!(
        "[[server]]\nlisten = '127.0.0.1:0'\n\
         [[server.location]]\npath = '/'\nproxy_pass = 'http://{}'\nerror_page = '502 = @fallback'\n\
         proxy_intercept_errors = true\n\
         [[server.location]]\npath = '@fallback'\nproxy_pass = 'http://{}'\n",
        upstream.addr(),
        fallback.addr()
    ));
    let mut client = hopgate.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    let mut server = upstream.accept();
    server.head();
    server.expect("0\r\n\r\n");
    // What stands behind the body is the next request, not a body for somebody else.
    client.send(GET);
    server.send("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n");
    client.expect_status(502);
    client.expect_eof();
    fallback.expect_no_connection(&hopgate);
}
