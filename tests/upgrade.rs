//! Upgrades through hopgate, whatever comes of them: rules R1 and R3 to R8.

mod support;

use support::{Dir, Hopgate, KEY, Upstream, handshake, open_tunnel, switching};

/// A handshake with these lines for `Connection` and `Upgrade`.
fn handshake_with(fields: &str) -> String {
    format!(
        "GET /ws HTTP/1.1\r\nHost: a\r\n{fields}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    )
}

#[test]
fn r1_nothing_of_the_clients_goes_upstream_before_the_101() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);

    let mut client = hopgate.connect();
    client.send(handshake("/ws") + "early ");
    let mut server = upstream.accept();
    server.expect_head("GET /ws HTTP/1.1", &["Upgrade: websocket"]);
    client.send("birds ");
    server.expect_nothing_yet(&hopgate);
    server.send("HTTP/1.1 103 Early Hints\r\n\r\n");
    server.expect_nothing_yet(&hopgate);

    server.send(switching());
    server.expect("early birds ");
    client.send("sing");
    server.expect("sing");
}

#[test]
fn r1_early_bytes_of_a_refused_upgrade_never_go_upstream() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);

    let mut client = hopgate.connect();
    client.send(handshake("/ws") + "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut server = upstream.accept();
    server.expect_head("GET /ws HTTP/1.1", &[]);
    server.send("HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno");
    assert_eq!(client.expect_status(403).text(), "no");
    // R4: whether these bytes were a frame or a request nobody can know.
    client.expect_closed();
    server.expect_closed();
    upstream.expect_no_connection(&hopgate);
}

#[test]
fn r3_what_is_not_an_upgrade_is_served_as_plain_http_without_upgrade() {
    let websocket = format!("Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}");
    let rows = [
        ("no Connection", format!("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n{websocket}\r\n\r\n")),
        (
            "no upgrade option",
            format!(
                "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nUpgrade: websocket\r\n{websocket}\r\n\r\n"
            ),
        ),
        (
            "a longer option",
            format!(
                "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgraded\r\nUpgrade: websocket\r\n{websocket}\r\n\r\n"
            ),
        ),
        (
            "option in another word",
            format!(
                "GET / HTTP/1.1\r\nHost: a\r\nConnection: no-upgrade\r\nUpgrade: websocket\r\n{websocket}\r\n\r\n"
            ),
        ),
        ("no Upgrade", format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\n{websocket}\r\n\r\n")),
        (
            "a protocol nobody knows",
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: foo/2\r\n\r\n".to_owned(),
        ),
        (
            "TLS, as Apache HttpClient asks for",
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: TLS/1.2\r\n\r\n".to_owned(),
        ),
        (
            "a longer protocol",
            format!(
                "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websockets\r\n{websocket}\r\n\r\n"
            ),
        ),
        (
            "HTTP/1.0",
            format!(
                "GET / HTTP/1.0\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{websocket}\r\n\r\n"
            ),
        ),
        (
            "POST",
            format!(
                "POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{websocket}\r\n\r\n"
            ),
        ),
        (
            "POST with a body",
            format!(
                "POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n{websocket}\r\n\r\nok"
            ),
        ),
        (
            "GET with a body",
            format!(
                "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n{websocket}\r\n\r\nok"
            ),
        ),
        (
            "GET with a chunked body",
            format!(
                "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n{websocket}\r\n\r\n2\r\nok\r\n0\r\n\r\n"
            ),
        ),
    ];
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);
    for (name, request) in rows {
        println!("row: {name}");
        let mut client = hopgate.connect();
        client.send(&request);
        let mut server = upstream.accept();
        let head = server.head();
        head.expect_none_of(&["Upgrade"]);
        assert!(!head.has_member("Connection", "upgrade"), "{head}");
        if head.has_member("Transfer-Encoding", "chunked") {
            assert_eq!(server.chunked_body().0, b"ok");
        } else if head.field("Content-Length") == Some("2") {
            server.expect("ok");
        }
        server.respond_and_close("plain");
        assert_eq!(client.expect_status(200).text(), "plain");
    }
}

#[test]
fn r4_a_refused_upgrade_is_relayed_whole_and_the_connection_goes_on_as_http() {
    let rows = [
        (
            "with a length",
            "HTTP/1.1 403 Forbidden\r\nX-Why: login\r\nContent-Length: 5\r\n\r\nlogin",
            403,
            "login",
        ),
        (
            "chunked",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nlogin\r\n0\r\n\r\n",
            200,
            "login",
        ),
        ("empty", "HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n", 302, ""),
        ("no content", "HTTP/1.1 204 No Content\r\n\r\n", 204, ""),
        (
            "of the upstream's own",
            "HTTP/1.1 426 Upgrade Required\r\nContent-Length: 5\r\n\r\nother",
            426,
            "other",
        ),
    ];
    let upstream = Upstream::listen();
    let other = Upstream::listen();
    let hopgate = Hopgate::start(&format!(
        r#"
        workers = 1
        [[server]]
        listen = "127.0.0.1:0"
        location = [
            {{ path = "/ws", proxy_pass = "http://{}" }},
            {{ path = "/other", proxy_pass = "http://{}" }},
        ]
        "#,
        upstream.addr(),
        other.addr()
    ));
    for (name, answer, status, body) in rows {
        println!("row: {name}");
        let mut client = hopgate.connect();
        client.send(handshake("/ws"));
        let mut server = upstream.accept();
        server.head();
        server.send(answer.replacen("\r\n", "\r\nConnection: close\r\n", 1));
        server.close();
        assert_eq!(client.expect_status(status).text(), body);

        // The next request goes through the whole pipeline: routing, headers, the lot.
        client.send("GET /other HTTP/1.1\r\nHost: a\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\r\n");
        let mut server = other.accept();
        server.expect_head("GET /other HTTP/1.1", &["X-Forwarded-For: 127.0.0.1"]).expect_none_of(&["X-Hop"]);
        server.respond_and_close("routed");
        assert_eq!(client.expect_status(200).text(), "routed");

        client.send("GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n");
        client.expect_status(404);
    }
}

#[test]
fn r4_a_refused_upgrade_whose_body_ends_with_the_connection_is_relayed_whole() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);

    let mut client = hopgate.connect();
    client.send(handshake("/ws"));
    let mut server = upstream.accept();
    server.head();
    server.send("HTTP/1.1 500 Oops\r\n\r\nit ends when it ends");
    server.close();
    assert_eq!(client.expect_status(500).text(), "it ends when it ends");
}

#[test]
fn r5_an_upgraded_connection_is_never_used_again() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);

    let (client, mut server) = open_tunnel(&hopgate, &upstream);
    client.close();
    server.expect_eof();

    let mut client = hopgate.connect();
    client.send("GET /next HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut fresh = upstream.accept();
    fresh.expect_head("GET /next HTTP/1.1", &[]);
    fresh.respond("");
    client.expect_status(200);
    server.close();
}

#[test]
fn r6_h2c_never_reaches_the_upstream_however_its_tokens_are_spread() {
    let rows = [
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
        "Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk",
        "Connection: HTTP2-Settings\r\nConnection: Upgrade\r\nUpgrade: H2C\r\nHTTP2-Settings: AAMAAABk",
        "Connection: Upgrade\r\nUpgrade: foo, h2c",
        "Connection: Upgrade\r\nUpgrade: foo\r\nUpgrade: h2c",
        "Connection: Upgrade\r\nUpgrade: ,h2c,",
        "Connection: Upgrade\r\nUpgrade: h2",
        "Upgrade: h2c\r\nhttp2-settings: AAMAAABk",
        "Connection: Upgrade\r\nUpgrade: websocket, h2c",
        "Connection: Upgrade\r\nUpgrade: h2c, websocket",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c",
        "Connection: Upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket",
    ];
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);
    for fields in rows {
        println!("row: {fields:?}");
        let mut client = hopgate.connect();
        client.send(handshake_with(fields));
        let mut server = upstream.accept();
        let head = server.head();
        head.expect_none_of(&["HTTP2-Settings"]);
        for value in head.all("Upgrade") {
            assert!(!value.to_ascii_lowercase().contains("h2"), "{head}");
        }
        server.respond_and_close("plain");
        assert_eq!(client.expect_status(200).text(), "plain");
    }
}

#[test]
fn r7_a_101_that_nobody_asked_for_is_a_502() {
    let rows = [
        ("a plain GET", "GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        ("a POST", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok".to_owned()),
        (
            "Upgrade without Connection",
            format!(
                "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
            ),
        ),
        (
            "a stripped h2c",
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n".to_owned(),
        ),
    ];
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);
    for (name, request) in rows {
        println!("row: {name}");
        let mut client = hopgate.connect();
        client.send(request);
        let mut server = upstream.accept();
        let head = server.head();
        if head.field("Content-Length") == Some("2") {
            server.expect("ok");
        }
        server.send(switching() + "not for you");
        client.expect_status(502);
        server.expect_closed();
    }
}

#[test]
fn r8_bytes_right_behind_both_heads_are_delivered() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);

    let mut client = hopgate.connect();
    client.send(handshake("/ws") + "hello from the client");
    let mut server = upstream.accept();
    server.head();
    server.send(switching() + "welcome from the upstream");
    client.expect_status(101);
    client.expect("welcome from the upstream");
    server.expect("hello from the client");

    client.send(", more");
    server.expect(", more");
    server.send(", more");
    client.expect(", more");
}

#[test]
fn r8_many_bytes_right_behind_both_heads_are_delivered() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);
    let early = support::Noise::seeded(8).take(200_000);

    let mut client = hopgate.connect();
    client.send([handshake("/ws").as_bytes(), &early].concat());
    let mut server = upstream.accept();
    server.head();
    server.send([switching().as_bytes(), &early].concat());
    client.expect_status(101);
    support::assert_same_bytes("early bytes for the client", &early, &client.read(early.len()));
    support::assert_same_bytes("early bytes for the upstream", &early, &server.read(early.len()));
}

#[test]
fn other_protocols_are_tunnelled_where_they_are_allowed_by_name() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::with_location(&upstream, r#"upgrade = ["chat"]"#);

    let mut client = hopgate.connect();
    client.send("GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n");
    let mut server = upstream.accept();
    server.expect_head("GET /chat HTTP/1.1", &["Upgrade: chat"]);
    server.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\nwelcome");
    client.expect_status(101);
    client.expect("welcome");

    // The 101 must still name what was asked for.
    let mut client = hopgate.connect();
    client.send("GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n");
    let mut server = upstream.accept();
    server.head();
    server.send(switching());
    client.expect_status(502);
}

#[test]
fn upgrades_take_the_same_way_as_other_requests() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::start(&format!(
        r#"
        workers = 1
        [[server]]
        listen = "127.0.0.1:0"
        [[server.location]]
        path = "/in/"
        proxy_pass = "http://{}/out/"
        proxy_set_header = {{ X-Own = "$remote_addr", Host = "inner" }}
        "#,
        upstream.addr()
    ));
    let mut client = hopgate.connect();
    client.send(handshake("/in/./ws?token=1"));
    let mut server = upstream.accept();
    server.expect_head(
        "GET /out/ws?token=1 HTTP/1.1",
        &["Host: inner", "X-Own: 127.0.0.1", "X-Forwarded-Proto: http", "X-Forwarded-For: 127.0.0.1"],
    );
    server.send(switching());
    client.expect_status(101);

    let mut client = hopgate.connect();
    client.send(handshake("/elsewhere"));
    client.expect_status(404);
}

#[test]
fn a_handshake_that_is_not_answered_is_a_504() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::with_location(&upstream, r#"tunnel_handshake_timeout = "300ms""#);

    let mut client = hopgate.connect();
    client.send(handshake("/ws"));
    let mut server = upstream.accept();
    server.head();
    client.expect_status(504);
    server.expect_closed();
    hopgate.wait_for_log("tunnel_handshake_timeout");
}

#[test]
fn a_handshake_with_an_upstream_that_is_not_there_is_a_502() {
    let upstream = Upstream::refusing();
    let hopgate = Hopgate::in_front_of(&upstream);
    let mut client = hopgate.connect();
    client.send(handshake("/ws"));
    client.expect_status(502);
}

#[test]
fn a_client_that_leaves_during_the_handshake_takes_the_upstream_connection_along() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);

    let mut client = hopgate.connect();
    client.send(handshake("/ws"));
    let mut server = upstream.accept();
    server.head();
    client.reset();
    server.expect_closed();
}

#[test]
fn a_tunnel_runs_over_unix_sockets_too() {
    let dir = Dir::new();
    let upstream = Upstream::listen_unix(&dir.join("app.sock"));
    let hopgate = Hopgate::in_front_of(&upstream);
    let (mut client, mut server) = open_tunnel(&hopgate, &upstream);
    client.send("over the path");
    server.expect("over the path");
    server.finish();
    client.expect_eof();
}

#[test]
fn r4_bytes_behind_an_upgrade_that_hopgate_itself_refuses_are_no_request() {
    let upstream = Upstream::refusing();
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    for (location, status) in [("websocket = false", 403), ("", 502)] {
        println!("row: {location}");
        let hopgate = Hopgate::with_location(&upstream, location);
        let mut client = hopgate.connect();
        client.send(handshake("/ws") + smuggled);
        client.expect_status(status);
        client.expect_closed();
    }
}

#[test]
fn a_handshake_whose_fields_connection_takes_away_is_refused() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);
    let mut client = hopgate.connect();
    client.send(handshake_with("Connection: Upgrade, sec-websocket-KEY\r\nUpgrade: websocket"));
    client.expect_status(400);
    upstream.expect_no_connection(&hopgate);
}

#[test]
fn r2_a_101_of_http_1_0_or_with_a_body_is_a_502() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);
    let rows = [
        switching().replace("HTTP/1.1 101", "HTTP/1.0 101"),
        switching().replace("Upgrade: websocket", "Upgrade: websocket\r\nContent-Length: 5"),
        switching().replace("Upgrade: websocket", "Upgrade: websocket\r\nTransfer-Encoding: chunked"),
    ];
    for answer in rows {
        println!("row: {answer:?}");
        let mut client = hopgate.connect();
        client.send(handshake("/ws"));
        let mut server = upstream.accept();
        server.head();
        server.send(&answer);
        client.expect_status(502);
        server.expect_closed();
    }
}

#[test]
fn a_426_of_the_upstream_still_says_what_to_upgrade_to() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);
    let mut client = hopgate.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut server = upstream.accept();
    server.head();
    server.send("HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n");
    client.expect_head("HTTP/1.1 426 Upgrade Required", &["Upgrade: websocket", "Connection: Upgrade"]);
}
