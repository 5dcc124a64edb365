//! The opening handshake of RFC 6455 §4 as it passes through hopgate: rules R2 and R3.

mod support;

use support::{ACCEPT, Hopgate, KEY, Upstream, handshake, switching};

/// A handshake with these lines for `Connection` and `Upgrade`.
fn handshake_with(fields: &str) -> String {
    format!(
        "GET /ws HTTP/1.1\r\nHost: a\r\n{fields}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    )
}

#[test]
fn r2_a_101_that_does_not_answer_the_request_is_a_502_and_both_legs_end() {
    let accept = format!("Sec-WebSocket-Accept: {ACCEPT}");
    let rows = [
        ("no Connection", format!("Upgrade: websocket\r\n{accept}")),
        ("Connection without upgrade", format!("Connection: keep-alive\r\nUpgrade: websocket\r\n{accept}")),
        ("Connection with a longer word", format!("Connection: upgrades\r\nUpgrade: websocket\r\n{accept}")),
        ("no Upgrade", format!("Connection: Upgrade\r\n{accept}")),
        ("another protocol", format!("Connection: Upgrade\r\nUpgrade: chat\r\n{accept}")),
        ("h2c", format!("Connection: Upgrade\r\nUpgrade: h2c\r\n{accept}")),
        ("one protocol more", format!("Connection: Upgrade\r\nUpgrade: websocket, chat\r\n{accept}")),
        ("no accept", "Connection: Upgrade\r\nUpgrade: websocket".to_owned()),
        ("an empty accept", "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept:".to_owned()),
        (
            "a wrong accept",
            format!(
                "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {}",
                ACCEPT.replace('s', "t")
            ),
        ),
        (
            "an accept in another case",
            format!(
                "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {}",
                ACCEPT.to_lowercase()
            ),
        ),
        (
            "the key as accept",
            format!("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {KEY}"),
        ),
        (
            "two accepts",
            format!("Connection: Upgrade\r\nUpgrade: websocket\r\n{accept}\r\nSec-WebSocket-Accept: x"),
        ),
        (
            "a subprotocol that was not offered",
            format!("Connection: Upgrade\r\nUpgrade: websocket\r\n{accept}\r\nSec-WebSocket-Protocol: chat"),
        ),
    ];
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);
    for (name, fields) in rows {
        println!("row: {name}");
        let mut client = hopgate.connect();
        client.send(handshake("/ws"));
        let mut server = upstream.accept();
        server.head();
        server.send(format!("HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n\r\nframes"));
        client.expect_status(502);
        client.expect_closed();
        server.expect_closed();
    }
}

#[test]
fn r2_a_101_is_understood_in_every_spelling() {
    let rows = [
        "Connection: Upgrade\r\nUpgrade: websocket",
        "connection: upgrade\r\nupgrade: WebSocket",
        "CONNECTION: UPGRADE\r\nUPGRADE: WEBSOCKET",
        "Connection: keep-alive, Upgrade\r\nUpgrade: websocket",
        "Connection: keep-alive\r\nConnection: ,upgrade,\r\nUpgrade: websocket",
        "Upgrade:websocket\r\nConnection:Upgrade",
    ];
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);
    for fields in rows {
        println!("row: {fields:?}");
        let mut client = hopgate.connect();
        client.send(handshake("/ws"));
        let mut server = upstream.accept();
        server.head();
        server
            .send(format!("HTTP/1.1 101 Fine\r\n{fields}\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\nwelcome"));
        let head = client.expect_status(101).head;
        head.expect(&[&format!("Sec-WebSocket-Accept: {ACCEPT}")]);
        assert!(
            head.has_member("Connection", "upgrade") && head.has_member("Upgrade", "websocket"),
            "{head}"
        );
        client.expect("welcome");
    }
}

#[test]
fn r2_a_subprotocol_that_was_offered_may_be_chosen() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);
    // (offered, chosen, accepted)
    let rows = [
        ("Sec-WebSocket-Protocol: chat", "chat", true),
        ("Sec-WebSocket-Protocol: soap, chat", "chat", true),
        ("Sec-WebSocket-Protocol: soap\r\nSec-WebSocket-Protocol: wamp, chat", "chat", true),
        ("Sec-WebSocket-Protocol: superchat", "chat", false),
        ("Sec-WebSocket-Protocol: soap, chat", "soap, chat", false),
        // RFC 6455 §4.1: a subprotocol name is compared as it is written.
        ("Sec-WebSocket-Protocol: chat", "Chat", false),
    ];
    for (offered, chosen, accepted) in rows {
        println!("row: {offered:?} {chosen}");
        let mut client = hopgate.connect();
        client.send(handshake_with(&format!("Connection: Upgrade\r\nUpgrade: websocket\r\n{offered}")));
        let mut server = upstream.accept();
        server.head().expect(&offered.split("\r\n").collect::<Vec<_>>());
        server
            .send(switching().replace("\r\n\r\n", &format!("\r\nSec-WebSocket-Protocol: {chosen}\r\n\r\n")));
        if accepted {
            client.expect_status(101).head.expect(&[&format!("Sec-WebSocket-Protocol: {chosen}")]);
        } else {
            client.expect_status(502);
        }
    }
}

#[test]
fn r3_a_handshake_is_recognised_in_every_spelling() {
    let rows = [
        "Connection: Upgrade\r\nUpgrade: websocket",
        "connection: upgrade\r\nupgrade: WebSocket",
        "Connection: keep-alive, Upgrade\r\nUpgrade: websocket",
        "Connection: upgrade,keep-alive\r\nUpgrade: websocket",
        "Connection: keep-alive\r\nConnection: Upgrade\r\nUpgrade: websocket",
        "Upgrade: websocket\r\nConnection: , ,\tUPGRADE\t,",
        "Connection: Upgrade\r\nUpgrade: ,websocket,",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 0",
    ];
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);
    for fields in rows {
        println!("row: {fields:?}");
        let mut client = hopgate.connect();
        client.send(handshake_with(fields));
        let mut server = upstream.accept();
        let head = server.expect_head("GET /ws HTTP/1.1", &["Sec-WebSocket-Version: 13"]);
        assert_eq!(head.field("Upgrade").map(str::to_ascii_lowercase), Some("websocket".to_owned()));
        assert_eq!(head.field("Connection").map(str::to_ascii_lowercase), Some("upgrade".to_owned()));
        server.send(switching());
        client.expect_status(101);
        client.send("ping");
        server.expect("ping");
    }
}

#[test]
fn r3_a_malformed_handshake_is_refused() {
    let key = format!("Sec-WebSocket-Key: {KEY}");
    let rows = [
        ("no version", key.clone(), 400),
        ("no key", "Sec-WebSocket-Version: 13".to_owned(), 400),
        ("an empty key", "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key:".to_owned(), 400),
        ("15 bytes", "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAA".to_owned(), 400),
        (
            "17 bytes",
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAAA=".to_owned(),
            400,
        ),
        (
            "no padding",
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ".to_owned(),
            400,
        ),
        (
            "not base64",
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub2*jZQ==".to_owned(),
            400,
        ),
        ("two keys", format!("Sec-WebSocket-Version: 13\r\n{key}\r\n{key}"), 400),
        ("version 8", format!("Sec-WebSocket-Version: 8\r\n{key}"), 426),
        ("version 14", format!("Sec-WebSocket-Version: 14\r\n{key}"), 426),
        ("version 130", format!("Sec-WebSocket-Version: 130\r\n{key}"), 426),
    ];
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);
    for (name, fields, status) in rows {
        println!("row: {name}");
        let mut client = hopgate.connect();
        client.send(format!(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{fields}\r\n\r\n"
        ));
        let response = client.expect_status(status);
        if status == 426 {
            response.head.expect(&["Sec-WebSocket-Version: 13", "Upgrade: websocket"]);
            assert!(response.head.has_member("Connection", "upgrade"), "{}", response.head);
        }
    }
    upstream.expect_no_connection(&hopgate);
}

#[test]
fn heads_of_a_handshake_may_come_byte_by_byte() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);

    let mut client = hopgate.connect();
    for byte in handshake("/ws").bytes() {
        client.send([byte]);
    }
    let mut server = upstream.accept();
    server.head();
    for byte in (switching() + "x").bytes() {
        server.send([byte]);
    }
    client.expect_status(101);
    client.expect("x");
}

#[test]
fn websocket_fields_go_upstream_in_the_spelling_of_the_rfc() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);

    let mut client = hopgate.connect();
    client.send(format!(
        "GET /ws HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         SEC-WEBSOCKET-KEY: {KEY}\r\nsec-websocket-protocol: chat\r\nSec-Websocket-Extensions: permessage-deflate; x=1\r\n\r\n"
    ));
    let mut server = upstream.accept();
    let head = server.head().to_string();
    for line in [
        "\r\nSec-WebSocket-Version: 13\r\n",
        &format!("\r\nSec-WebSocket-Key: {KEY}\r\n"),
        "\r\nSec-WebSocket-Protocol: chat\r\n",
        "\r\nSec-WebSocket-Extensions: permessage-deflate; x=1\r\n",
        "\r\nUpgrade: websocket\r\n",
    ] {
        assert!(head.contains(line), "expected: {line:?}\n     got: {head}");
    }
}

#[test]
fn a_location_may_refuse_websockets_and_still_serve_http() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::with_location(&upstream, "websocket = false");

    let mut client = hopgate.connect();
    client.send(handshake("/ws"));
    client.expect_status(403);
    upstream.expect_no_connection(&hopgate);

    let mut client = hopgate.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut server = upstream.accept();
    server.head();
    server.respond("plain");
    assert_eq!(client.expect_status(200).text(), "plain");
}

#[test]
fn a_large_101_passes() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);
    let large = "x".repeat(20_000);

    let mut client = hopgate.connect();
    client.send(handshake("/ws").replace("Host: a", &format!("Host: a\r\nX-Large: {large}")));
    let mut server = upstream.accept();
    server.head().expect(&[&format!("X-Large: {large}")]);
    server.send(switching().replace("\r\n\r\n", &format!("\r\nX-Large: {large}\r\n\r\n")));
    client.expect_status(101).head.expect(&[&format!("X-Large: {large}")]);
}
