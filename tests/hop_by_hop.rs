//! Fields that are meant for one hop only, and those that the proxy makes itself: rules R12 to R17.

mod support;

use support::{ACCEPT, Dir, Head, Hopgate, KEY, Upstream};

/// Sends a GET with these field lines and returns the head that the upstream got. The answer is an empty 200.
#[track_caller]
fn forwarded(hopgate: &Hopgate, upstream: &Upstream, fields: &str) -> Head {
    let mut client = hopgate.connect();
    client.send(format!("GET /x HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n"));
    let mut server = upstream.accept();
    let head = server.expect_head("GET /x HTTP/1.1", &["Host: a"]);
    server.respond_and_close("");
    client.expect_status(200);
    head
}

/// Lets the upstream answer a GET with these field lines and returns the head that the client got.
#[track_caller]
fn answered(hopgate: &Hopgate, upstream: &Upstream, fields: &str) -> Head {
    let mut client = hopgate.connect();
    client.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut server = upstream.accept();
    server.head();
    server.send(format!("HTTP/1.1 200 OK\r\n{fields}\r\nContent-Length: 2\r\n\r\nok"));
    let response = client.expect_status(200);
    assert_eq!(response.text(), "ok");
    response.head
}

/// Spellings of a `Connection` field (or several) that name `X-Hop`.
const NAMING_X_HOP: &[&str] = &[
    "Connection: X-Hop",
    "Connection: x-hop",
    "connection: X-HOP",
    "Connection: keep-alive, X-Hop",
    "Connection: X-Hop,keep-alive",
    "Connection:X-Hop",
    "Connection: ,, ,X-Hop,\t,",
    "Connection: keep-alive\t,\tX-Hop \t",
    "Connection: keep-alive\r\nConnection: X-Hop",
    "Connection: X-Hop\r\nConnection: keep-alive",
    "Connection:\r\nConnection: X-Hop\r\nConnection:",
    "CONNECTION: a\r\nConnection: b, X-Hop, c\r\nconnection: d",
];

const NOT_NAMING_X_HOP: &[&str] = &[
    "Connection: keep-alive",
    "Connection: X-Ho",
    "Connection: X-Hopp",
    "Connection: AX-Hop",
    "Connection: X-Hop-Not",
    "Proxy-Connection: X-Hop",
    "Connection: X Hop",
];

#[test]
fn r12_fields_named_in_any_connection_line_of_a_request_are_removed() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);
    for connection in NAMING_X_HOP {
        println!("row: {connection:?}");
        let head =
            forwarded(&hopgate, &upstream, &format!("X-Hop: 1\r\n{connection}\r\nx-hop: 2\r\nX-End: 3"));
        head.expect_none_of(&["X-Hop"]).expect(&["X-End: 3"]);
    }
    for connection in NOT_NAMING_X_HOP {
        println!("row: {connection:?}");
        let head = forwarded(&hopgate, &upstream, &format!("X-Hop: 1\r\n{connection}\r\nX-Hop: 2"));
        assert_eq!(head.all("X-Hop"), ["1", "2"]);
    }
}

#[test]
fn r12_fields_named_in_any_connection_line_of_an_answer_are_removed() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);
    for connection in NAMING_X_HOP {
        println!("row: {connection:?}");
        // One connection a row, so that each answer says `close` too.
        let head = answered(
            &hopgate,
            &upstream,
            &format!("X-Hop: 1\r\n{connection}\r\nx-hop: 2\r\nX-End: 3\r\nConnection: close"),
        );
        head.expect_none_of(&["X-Hop"]).expect(&["X-End: 3"]);
        assert!(!head.has_member("Connection", "close"), "{head}");
    }
}

#[test]
fn r12_the_fixed_list_never_passes_a_request() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);
    let head = forwarded(
        &hopgate,
        &upstream,
        "Proxy-Connection: keep-alive\r\nKeep-Alive: timeout=5\r\nTE: gzip\r\nTrailer: X\r\nUpgrade: foo\r\n\
         Connection: keep-alive, Upgrade, TE\r\nX-End: 1",
    );
    head.expect(&["X-End: 1"]);
    head.expect_none_of(&["Proxy-Connection", "Keep-Alive", "TE", "Trailer", "Upgrade", "Transfer-Encoding"]);
    for member in ["upgrade", "te", "close"] {
        assert!(!head.has_member("Connection", member), "{head}");
    }
}

#[test]
fn r12_the_fixed_list_never_passes_an_answer() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);
    let head = answered(
        &hopgate,
        &upstream,
        "Proxy-Connection: keep-alive\r\nKeep-Alive: timeout=5\r\nTE: gzip\r\nUpgrade: h2c\r\n\
         Connection: close, Upgrade\r\nX-End: 1",
    );
    head.expect(&["X-End: 1"]);
    head.expect_none_of(&["Proxy-Connection", "TE", "Upgrade", "Transfer-Encoding"]);
    assert!(!head.has_member("Keep-Alive", "timeout=5"), "{head}");
    assert!(!head.has_member("Connection", "close") && !head.has_member("Connection", "upgrade"), "{head}");
}

#[test]
fn r12_te_passes_only_as_trailers() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);
    let rows = [
        ("TE: trailers", true),
        ("TE: trailers\r\nConnection: TE", true),
        ("te: gzip, Trailers", true),
        ("TE: gzip\r\nTE: trailers", true),
        ("TE: gzip", false),
        ("TE:", false),
        ("TE: trailersx", false),
    ];
    for (fields, passes) in rows {
        println!("row: {fields:?}");
        let head = forwarded(&hopgate, &upstream, fields);
        assert_eq!(head.field("TE"), passes.then_some("trailers"));
    }
}

#[test]
fn r12_upgrade_requests_and_101_answers_are_stripped_alike() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);

    let mut client = hopgate.connect();
    client.send(format!(
        "GET /ws HTTP/1.1\r\nHost: a\r\nX-Hop: 1\r\nConnection: keep-alive, X-Hop\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nKeep-Alive: timeout=5\r\nProxy-Connection: x\r\nTE: gzip\r\nHTTP2-Settings: AAMA\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\nX-End: 2\r\n\r\n"
    ));
    let mut server = upstream.accept();
    let head = server.expect_head("GET /ws HTTP/1.1", &["X-End: 2", "X-Forwarded-For: 127.0.0.1"]);
    head.expect_none_of(&["X-Hop", "Keep-Alive", "Proxy-Connection", "TE", "HTTP2-Settings"]);
    assert_eq!(head.field("Connection").map(str::to_ascii_lowercase), Some("upgrade".to_owned()));
    assert_eq!(head.field("Upgrade"), Some("websocket"));

    server.send(format!(
        "HTTP/1.1 101 Switching Protocols\r\nX-Hop: 1\r\nConnection: Upgrade, X-Hop\r\nUpgrade: websocket\r\n\
         Keep-Alive: timeout=5\r\nSec-WebSocket-Accept: {ACCEPT}\r\nX-End: 2\r\n\r\n"
    ));
    let head = client.expect_status(101).head;
    head.expect_none_of(&["X-Hop", "Keep-Alive"]).expect(&["X-End: 2", "Upgrade: websocket"]);
    assert_eq!(head.field("Connection").map(str::to_ascii_lowercase), Some("upgrade".to_owned()));
}

#[test]
fn r13_connection_cannot_delete_what_the_proxy_adds() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::with_location(&upstream, r#"proxy_set_header = { X-Own = "kept" }"#);
    let rows = [
        "Connection: close, X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host, X-Real-IP, X-Own, Host",
        "Connection: close, x-forwarded-for\r\nConnection: X-FORWARDED-PROTO, x-forwarded-host, x-real-ip, x-own, host",
    ];
    for fields in rows {
        println!("row: {fields:?}");
        forwarded(&hopgate, &upstream, fields).expect(&[
            "Host: a",
            "X-Forwarded-For: 127.0.0.1",
            "X-Forwarded-Proto: http",
            "X-Forwarded-Host: a",
            "X-Real-IP: 127.0.0.1",
            "X-Own: kept",
        ]);
    }
}

#[test]
fn r13_connection_cannot_delete_the_framing() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);
    let rows = [
        ("Content-Length", "Content-Length: 5", "hello"),
        ("Transfer-Encoding", "Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n"),
    ];
    for (name, framing, body) in rows {
        println!("row: {framing}");
        let mut client = hopgate.connect();
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nConnection: {name}\r\n{framing}\r\n\r\n{body}"));
        let mut server = upstream.accept();
        let head = server.expect_head("POST / HTTP/1.1", &[]);
        let got =
            if head.field("Content-Length").is_some() { server.read(5) } else { server.chunked_body().0 };
        assert_eq!(got, b"hello");
        server.respond_and_close("");
        client.expect_status(200);
    }
}

#[test]
fn r14_forwarded_fields_of_an_untrusted_client_are_dropped_in_every_spelling() {
    let upstream = Upstream::listen();
    // Underscores are let through, so that it is R14 that drops the spellings with them.
    let hopgate = Hopgate::with_server(&upstream, "underscores_in_headers = true");
    let names = [
        "Forwarded",
        "forwarded",
        "X-Forwarded-For",
        "x-forwarded-for",
        "X_Forwarded_For",
        "X-Forwarded_For",
        "X-Forwarded-Proto",
        "x_forwarded_proto",
        "X-Forwarded-Host",
        "X_FORWARDED_HOST",
        "X-Forwarded-Port",
        "X-Forwarded-Server",
        "X_Forwarded-Port",
        "X-Forwarded-Prefix",
        "X-Real-IP",
        "x-real-ip",
        "X_Real_IP",
    ];
    let own = [
        "X-Forwarded-For: 127.0.0.1",
        "X-Forwarded-Proto: http",
        "X-Forwarded-Host: a",
        "X-Real-IP: 127.0.0.1",
    ];
    for name in names {
        println!("row: {name}");
        let head =
            forwarded(&hopgate, &upstream, &format!("{name}: evil.example\r\n{name}: 6.6.6.6\r\nX-End: 1"));
        for value in ["evil.example", "6.6.6.6"] {
            assert!(!head.to_string().contains(value), "{head}");
        }
        head.expect(&own).expect(&["X-End: 1"]);
        for name in ["X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Real-IP"] {
            assert_eq!(head.all(name).len(), 1, "{head}");
        }
    }
}

#[test]
fn r15_names_with_underscores_are_dropped_and_the_log_says_so() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);
    let head = forwarded(&hopgate, &upstream, "X_Under: 1\r\nX-Under: 2\r\nX-End: 3");
    head.expect_none_of(&["X_Under"]).expect(&["X-Under: 2", "X-End: 3"]);
    hopgate.wait_for_log("underscores_in_headers");
}

#[test]
fn r15_names_of_anything_but_letters_digits_and_dashes_are_dropped() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);
    for name in ["x.dot", "x!", "x~y", "$x", "x'y", "x|y", "`", "x+y", "*"] {
        println!("row: {name}");
        forwarded(&hopgate, &upstream, &format!("{name}: 1\r\nX-End: 2"))
            .expect_none_of(&[name])
            .expect(&["X-End: 2"]);
    }
}

#[test]
fn r15_names_with_underscores_pass_where_they_are_allowed() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::with_server(&upstream, "underscores_in_headers = true");
    forwarded(&hopgate, &upstream, "X_Under: 1\r\nX-Under: 2").expect(&["X_Under: 1", "X-Under: 2"]);
}

#[test]
fn r16_a_list_of_forwarded_addresses_is_walked_from_the_right_over_trusted_proxies_only() {
    let upstream = Upstream::listen();
    let hopgate =
        Hopgate::with_top(&upstream, r#"trusted_proxies = ["127.0.0.0/8", "10.0.0.0/8", "2001:db8::/32"]"#);
    // (the client's fields, X-Forwarded-For upstream, X-Real-IP upstream)
    let rows = [
        ("X-End: 1", "127.0.0.1", "127.0.0.1"),
        ("X-Forwarded-For: 203.0.113.9", "203.0.113.9, 127.0.0.1", "203.0.113.9"),
        ("X-Forwarded-For: 203.0.113.9, 10.1.1.1", "203.0.113.9, 10.1.1.1, 127.0.0.1", "203.0.113.9"),
        (
            "X-Forwarded-For: 6.6.6.6, 203.0.113.9, 10.1.1.1",
            "6.6.6.6, 203.0.113.9, 10.1.1.1, 127.0.0.1",
            "203.0.113.9",
        ),
        (
            "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 203.0.113.9",
            "6.6.6.6, 203.0.113.9, 127.0.0.1",
            "203.0.113.9",
        ),
        ("X-Forwarded-For: 10.6.6.6, 203.0.113.9", "10.6.6.6, 203.0.113.9, 127.0.0.1", "203.0.113.9"),
        ("X-Forwarded-For: 2001:db9::1, 2001:db8::1", "2001:db9::1, 2001:db8::1, 127.0.0.1", "2001:db9::1"),
    ];
    for (fields, list, real) in rows {
        println!("row: {fields:?}");
        let head = forwarded(&hopgate, &upstream, fields);
        assert_eq!(head.all("X-Forwarded-For").join(", "), list);
        assert_eq!(head.field("X-Real-IP"), Some(real));
    }
}

#[test]
fn a_trusted_proxy_is_believed_about_scheme_and_host() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::with_top(&upstream, r#"trusted_proxies = ["127.0.0.1"]"#);
    let rows = [
        ("X-Forwarded-Proto: https\r\nX-Forwarded-Host: front.example", "https", "front.example"),
        ("X-Forwarded-Proto: http", "http", "a"),
        // Only ever http or https.
        ("X-Forwarded-Proto: wss", "https", "a"),
        ("X-Forwarded-Proto: ws", "http", "a"),
        ("X-Forwarded-Proto: gopher", "http", "a"),
    ];
    for (fields, proto, host) in rows {
        println!("row: {fields:?}");
        let head = forwarded(&hopgate, &upstream, fields);
        assert_eq!(
            (head.field("X-Forwarded-Proto"), head.field("X-Forwarded-Host")),
            (Some(proto), Some(host))
        );
    }
}

#[test]
fn r17_nothing_that_a_client_sends_can_break_a_generated_field_in_two() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::with_location(
        &upstream,
        r#"proxy_set_header = { X-Uri = "$uri", X-Args = "$args", X-Arg = "$arg_a", X-Http = "$http_x_in", X-Cookie = "$cookie_c" }"#,
    );
    let rows =
        ["/x%0d%0aEvil:%201?a=1", "/x%0AEvil:%201?a=1", "/x%0DEvil:%201", "/x?a=%0d%0aEvil:%201&b=%00"];
    for target in rows {
        println!("row: {target}");
        let mut client = hopgate.connect();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-In: %0d%0aEvil: 1\r\nCookie: c=%0d%0aEvil: 1\r\n\r\n"));
        hopgate.settle();
        if let Some(mut server) = upstream.accept_if_any(&hopgate) {
            // Head::parse itself refuses bare CR and LF.
            server.head().expect_none_of(&["Evil"]);
            server.respond_and_close("");
            client.expect_status(200);
        } else {
            client.expect_status(400);
        }
    }
}

#[test]
fn proxy_set_header_replaces_adds_and_removes() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::with_location(
        &upstream,
        r#"
        proxy_set_header = { Host = "inner.example", X-Given = "$http_x_in from $remote_addr", X-Forwarded-For = "$proxy_add_x_forwarded_for", Cookie = "", X-Real-IP = "" }
        "#,
    );
    let mut client = hopgate.connect();
    client.send("GET /x HTTP/1.1\r\nHost: a\r\nX-In: 1\r\nCookie: secret\r\nx-given: theirs\r\n\r\n");
    let mut server = upstream.accept();
    let head = server.expect_head("GET /x HTTP/1.1", &["Host: inner.example", "X-Given: 1 from 127.0.0.1"]);
    head.expect_none_of(&["Cookie", "X-Real-IP"]);
    assert_eq!(head.all("X-Given").len(), 1);
    assert_eq!(head.all("Host").len(), 1);
    // The host that the client named is what the app needs to know.
    assert_eq!(head.field("X-Forwarded-Host"), Some("a"));
    assert!(head.field("X-Forwarded-For").is_some_and(|list| list.ends_with("127.0.0.1")), "{head}");
    server.respond("");
    client.expect_status(200);
}

#[test]
fn a_location_with_its_own_proxy_set_header_inherits_none() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::start(&format!(
        r#"
        workers = 1
        proxy_set_header = {{ X-Top = "1" }}
        [[server]]
        listen = "127.0.0.1:0"
        location = [
            {{ path = "/", proxy_pass = "http://{0}" }},
            {{ path = "/own", proxy_pass = "http://{0}", proxy_set_header = {{ X-Own = "2" }} }},
        ]
        "#,
        upstream.addr()
    ));
    for (path, expected, missing) in [("/", "X-Top: 1", "X-Own"), ("/own", "X-Own: 2", "X-Top")] {
        let mut client = hopgate.connect();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let mut server = upstream.accept();
        server.head().expect(&[expected]).expect_none_of(&[missing]);
        server.respond_and_close("");
        client.expect_status(200);
    }
}

#[test]
fn r14_a_unix_socket_is_believed_only_where_it_is_trusted() {
    let upstream = Upstream::listen();
    let dir = Dir::new();
    for (trusted, forwarded, real, proto) in [
        ("", None, None, "http"),
        (
            r#"trusted_proxies = ["unix:", "10.0.0.0/8"]"#,
            Some("6.6.6.6, 1.2.3.4, 10.0.0.1"),
            Some("1.2.3.4"),
            "https",
        ),
    ] {
        let socket = dir.join("in.sock");
        let hopgate = Hopgate::start(&format!(
            r#"
            workers = 1
            {trusted}
            [[server]]
            listen = "unix:{}"
            location = [{{ path = "/", proxy_pass = "http://{}" }}]
            "#,
            socket.display(),
            upstream.addr()
        ));
        let mut client = hopgate.connect_unix(&socket);
        client.send("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6, 1.2.3.4, 10.0.0.1\r\nX-Forwarded-Proto: https\r\n\r\n");
        let head = upstream.accept().head();
        assert_eq!(head.field("X-Forwarded-For"), forwarded, "{head}");
        assert_eq!(head.field("X-Real-IP"), real, "{head}");
        assert_eq!(head.field("X-Forwarded-Proto"), Some(proto), "{head}");
    }
}
