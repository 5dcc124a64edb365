//! WebSocket over HTTP/2 (RFC 8441) to an app that knows only HTTP/1.1: rule R11.

mod support;

use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use h2::Reason;
use sha1::{Digest as _, Sha1};
use support::{
    Ending, Head, Hopgate, Http2, Http2Stream, NodeApp, Noise, Peer, Upstream, assert_same_bytes, eventually,
    handshake, switching, text_frame,
};

fn speaking_http2(upstream: &Upstream) -> Hopgate {
    Hopgate::speaking_http2(upstream.addr(), "", "")
}

/// The right answer to the handshake that the upstream got.
fn switching_for(head: &Head) -> String {
    let key = head.field("Sec-WebSocket-Key").expect("a key");
    let accept = STANDARD.encode(Sha1::digest(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11")));
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    )
}

/// Opens a tunnel and returns both of its ends, client first.
#[track_caller]
fn open_tunnel(client: &mut Http2, upstream: &Upstream) -> (Http2Stream, Peer) {
    let mut stream = client.open_websocket("/tunnel", &[]);
    let mut server = upstream.accept();
    let head = server.expect_head("GET /tunnel HTTP/1.1", &["Upgrade: websocket"]);
    server.send(switching_for(&head));
    assert_eq!(stream.head().status, 200);
    (stream, server)
}

/// Waits for the line that tells how a tunnel ended; returns it.
#[track_caller]
fn expect_end(hopgate: &Hopgate, cause: &str) -> String {
    let line = hopgate.wait_for_access(" end cause=");
    assert!(line.contains(&format!(" end cause={cause} ")), "expected: cause={cause}\n     got: {line}");
    line
}

#[test]
fn a_websocket_over_http2_is_an_ordinary_handshake_to_the_app() {
    let upstream = Upstream::listen();
    let hopgate = speaking_http2(&upstream);
    let mut client = Http2::connect(&hopgate);
    assert!(client.knows_extended_connect());

    let fields = [
        ("origin", "http://a"),
        ("sec-websocket-protocol", "chat, superchat"),
        ("sec-websocket-extensions", "permessage-deflate"),
        // Without a meaning over HTTP/2: nobody may choose the key for us.
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("cookie", "a=1"),
        ("cookie", "b=2"),
    ];
    let mut stream = client.open_websocket("/chat?room=1", &fields);
    let mut server = upstream.accept();
    let head = server.expect_head(
        "GET /chat?room=1 HTTP/1.1",
        &[
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Protocol: chat, superchat",
            "Sec-WebSocket-Extensions: permessage-deflate",
            "Origin: http://a",
            "Cookie: a=1; b=2",
            "X-Forwarded-Proto: http",
        ],
    );
    assert_eq!(head.field("Host"), Some(hopgate.addr().to_string().as_str()));
    assert_ne!(head.field("Sec-WebSocket-Key"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
    head.expect_none_of(&["Transfer-Encoding", "Content-Length"]);
    let answer = switching_for(&head).replace(
        "\r\n\r\n",
        "\r\nSec-WebSocket-Protocol: chat\r\nSec-WebSocket-Extensions: permessage-deflate\r\nX-App: 1\r\n\r\nearly",
    );
    server.send(answer);

    let head = stream.head();
    assert_eq!(head.status, 200);
    assert_eq!(head.field("sec-websocket-protocol"), Some("chat"));
    assert_eq!(head.field("sec-websocket-extensions"), Some("permessage-deflate"));
    assert_eq!(head.field("x-app"), Some("1"));
    for gone in ["sec-websocket-accept", "connection", "upgrade"] {
        assert_eq!(head.field(gone), None, "{gone}");
    }
    stream.expect("early");
    stream.send("ping");
    server.expect("ping");
    server.send("pong");
    stream.expect("pong");
    let line = hopgate.wait_for_access(" start");
    assert!(line.contains("\"GET /chat?room=1 HTTP/2.0\" 101 "), "{line}");
}

#[test]
fn the_frames_of_a_real_app_come_back_and_other_streams_go_on_beside() {
    let app = NodeApp::start();
    let hopgate = Hopgate::speaking_http2(app.addr(), "", "");
    let mut client = Http2::connect(&hopgate);
    let mut stream = client.open_websocket("/ws", &[]);
    assert_eq!(stream.head().status, 200);
    for length in [0, 5, 126, 60_000] {
        let text = "x".repeat(length);
        stream.send(text_frame(&text));
        // As the server sends it: without a mask.
        let head = stream.read(2);
        assert_eq!(head[0], 0x81);
        let told = match head[1] {
            126 => u16::from_be_bytes(stream.read(2).try_into().expect("two bytes")).into(),
            length => usize::from(length),
        };
        assert_eq!(told, length);
        assert_eq!(stream.read(length), text.as_bytes());
        assert_eq!(client.get("/json").status, 200);
    }
}

#[test]
fn random_bytes_pass_unchanged_both_ways_at_once() {
    let upstream = Upstream::listen();
    let hopgate = speaking_http2(&upstream);
    let mut client = Http2::connect(&hopgate);
    let (mut stream, mut server) = open_tunnel(&mut client, &upstream);
    let up = Noise::seeded(1).take(5_000_003);
    let down = Noise::seeded(2).take(4_000_001);
    let mut server_out = server.another();
    let (at_upstream, at_client) = thread::scope(|scope| {
        scope.spawn(|| server_out.send(&down));
        let at_upstream = scope.spawn(|| server.read(up.len()));
        stream.send(&up);
        let at_client = stream.read(down.len());
        (at_upstream.join().expect("the upstream had no complaint"), at_client)
    });
    assert_same_bytes("client to upstream", &up, &at_upstream);
    assert_same_bytes("upstream to client", &down, &at_client);

    stream.finish();
    server.expect_eof();
    server.finish();
    assert_eq!(stream.read_to_end(), Ok(Vec::new()));
    let line = expect_end(&hopgate, "client_closed");
    assert!(line.contains(&format!(" sent={} received={} ", down.len(), up.len())), "{line}");
}

#[test]
fn end_stream_is_a_half_close_either_way() {
    let upstream = Upstream::listen();
    let hopgate = speaking_http2(&upstream);
    let mut client = Http2::connect(&hopgate);

    let (mut stream, mut server) = open_tunnel(&mut client, &upstream);
    stream.send("last");
    stream.finish();
    server.expect("last");
    server.expect_eof();
    server.send("still here");
    stream.expect("still here");
    server.close();
    assert_eq!(stream.read_to_end(), Ok(Vec::new()));
    expect_end(&hopgate, "client_closed");

    let (mut stream, mut server) = open_tunnel(&mut client, &upstream);
    server.send("bye");
    server.finish();
    assert_eq!(stream.read_to_end(), Ok(b"bye".to_vec()));
    stream.send("still here");
    server.expect("still here");
    stream.finish();
    server.expect_eof();
    hopgate.wait_for_access(" end cause=upstream_closed ");
}

#[test]
fn a_reset_is_an_abnormal_end_either_way_and_of_that_stream_alone() {
    let upstream = Upstream::listen();
    let hopgate = speaking_http2(&upstream);
    let mut client = Http2::connect(&hopgate);
    let (mut other, mut other_server) = open_tunnel(&mut client, &upstream);

    let (stream, mut server) = open_tunnel(&mut client, &upstream);
    stream.reset();
    assert_eq!(server.read_to_end(), (Vec::new(), Ending::Reset));
    hopgate.wait_for_access(" end cause=client_reset ");

    let (mut stream, server) = open_tunnel(&mut client, &upstream);
    server.reset();
    // RFC 8441 §5.
    assert_eq!(stream.read_to_end(), Err(Reason::CANCEL));
    hopgate.wait_for_access(" end cause=upstream_reset ");

    other.send("ping");
    other_server.expect("ping");
}

#[test]
fn a_tunnel_that_ends_with_its_connection_was_reset() {
    let upstream = Upstream::listen();
    let hopgate = speaking_http2(&upstream);
    let mut client = Http2::connect(&hopgate);
    let (stream, mut server) = open_tunnel(&mut client, &upstream);
    client.break_off();
    assert_eq!(server.read_to_end(), (Vec::new(), Ending::Reset));
    expect_end(&hopgate, "client_reset");
    drop(stream);
}

#[test]
fn a_client_that_reads_nothing_stops_the_app_and_no_other_stream() {
    let upstream = Upstream::listen();
    let hopgate = speaking_http2(&upstream);
    let mut client = Http2::connect_with_window(&hopgate, 100_000);
    let (mut slow, server) = open_tunnel(&mut client, &upstream);
    let (mut fast, mut fast_server) = open_tunnel(&mut client, &upstream);
    let mut server = server.with_small_buffers();
    let sent = server.send_until_stalled(&mut Noise::seeded(3));

    let noise = Noise::seeded(4).take(1_000_000);
    thread::scope(|scope| {
        scope.spawn(|| fast_server.send(&noise));
        assert_same_bytes("beside it", &noise, &fast.read(noise.len()));
    });

    assert_same_bytes("once it reads", &Noise::seeded(3).take(sent), &slow.read(sent));
}

#[test]
fn an_app_that_reads_nothing_stops_the_client_and_no_other_stream() {
    let upstream = Upstream::listen();
    let hopgate = speaking_http2(&upstream);
    let mut client = Http2::connect(&hopgate);
    // More of them than one connection window of the usual size would bear.
    let mut tunnels: Vec<_> = (0..4).map(|_| open_tunnel(&mut client, &upstream)).collect();
    let sent: Vec<_> =
        tunnels.iter_mut().map(|(stream, _)| stream.send_until_stalled(&mut Noise::seeded(5))).collect();
    let (mut fast, mut fast_server) = open_tunnel(&mut client, &upstream);
    let noise = Noise::seeded(6).take(1_000_000);
    thread::scope(|scope| {
        scope.spawn(|| fast.send(&noise));
        assert_same_bytes("beside them", &noise, &fast_server.read(noise.len()));
    });
    for ((_, server), sent) in tunnels.iter_mut().zip(sent) {
        assert_same_bytes("once it reads", &Noise::seeded(5).take(sent), &server.read(sent));
    }
}

#[test]
fn a_refusal_keeps_its_status_and_its_words() {
    let upstream = Upstream::listen();
    let hopgate = speaking_http2(&upstream);
    let mut client = Http2::connect(&hopgate);
    for status in [302, 400, 401, 403, 404, 426, 503] {
        let stream = client.open_websocket("/", &[]);
        let mut server = upstream.accept();
        server.head();
        server.send(format!("HTTP/1.1 {status} No\r\nX-Why: because\r\nContent-Length: 2\r\n\r\nno"));
        let answer = stream.response();
        assert_eq!(
            (answer.status, answer.field("x-why"), answer.text().as_str()),
            (status, Some("because"), "no")
        );
    }
}

#[test]
fn r2_no_answer_but_the_right_101_is_ever_a_200() {
    let upstream = Upstream::listen();
    let hopgate = speaking_http2(&upstream);
    let mut client = Http2::connect(&hopgate);
    let answers = [
        // The answer to another key.
        switching(),
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_owned(),
        "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
    ];
    for answer in answers {
        let stream = client.open_websocket("/", &[]);
        let mut server = upstream.accept();
        server.head();
        server.send(&answer);
        stream.response().expect_status(502);
    }
    hopgate.wait_for_log("over HTTP/2 would mean that it is one");
}

#[test]
fn where_there_is_no_upstream_there_is_no_websocket() {
    let toml = r#"
        workers = 1
        [[server]]
        listen = "127.0.0.1:0 http2"
        [[server.location]]
        path = "/text"
        return = "200 hello"
        [[server.location]]
        path = "/moved"
        return = "301 /elsewhere"
        [[server.location]]
        path = "/refused"
        websocket = false
        proxy_pass = "http://127.0.0.1:1"
    "#;
    let hopgate = Hopgate::start(toml);
    let mut client = Http2::connect(&hopgate);
    for (path, status) in [("/text", 400), ("/moved", 301), ("/refused", 403), ("/nowhere", 404)] {
        client.open_websocket(path, &[]).response().expect_status(status);
    }
    client.get("/text").expect_status(200);
}

#[test]
fn other_protocols_are_not_implemented_and_a_handshake_is_checked_as_ever() {
    let upstream = Upstream::listen();
    let hopgate = speaking_http2(&upstream);
    let mut client = Http2::connect(&hopgate);
    for protocol in ["connect-udp", "webtransport", "WebSocket", "h2c"] {
        client.extended_connect(protocol, "/", &[]).response().expect_status(501);
    }
    let mut request = client.request("GET", "/", &[]);
    *request.method_mut() = http::Method::CONNECT;
    request.extensions_mut().insert(h2::ext::Protocol::from("websocket"));
    client.begin(request, false).response().expect_status(400);
    // Its content would be that of a GET, and the first bytes of a tunnel a request of their own making.
    client.open_websocket("/", &[("content-length", "5")]).response().expect_status(400);
    upstream.expect_no_connection(&hopgate);
}

#[test]
fn a_tunnel_counts_as_a_connection() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::start(&format!(
        r#"
        workers = 1
        max_connections = 3
        [[server]]
        listen = "127.0.0.1:0 http2"
        [[server.location]]
        path = "/"
        proxy_pass = "http://{}"
        "#,
        upstream.addr()
    ));
    let mut client = Http2::connect(&hopgate);
    let (first, _one) = open_tunnel(&mut client, &upstream);
    let (_second, _two) = open_tunnel(&mut client, &upstream);
    client.open_websocket("/", &[]).response().expect_status(503);
    hopgate.wait_for_log("`max_connections` is reached");
    first.reset();
    hopgate.wait_for_access(" end cause=client_reset ");
    let (_third, _three) = open_tunnel(&mut client, &upstream);
}

#[test]
fn a_tunnel_over_http2_knows_the_timers_of_tunnels() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::speaking_http2(upstream.addr(), "", "tunnel_idle_timeout = \"300ms\"");
    let mut client = Http2::connect(&hopgate);
    let (mut stream, mut server) = open_tunnel(&mut client, &upstream);
    server.expect_eof();
    assert_eq!(stream.read_to_end(), Ok(Vec::new()));
    stream.finish();
    expect_end(&hopgate, "idle");
}

#[test]
fn every_tunnel_has_a_number_of_its_own() {
    let upstream = Upstream::listen();
    let hopgate = speaking_http2(&upstream);
    let mut client = Http2::connect(&hopgate);
    let tunnels: Vec<_> = (0..3).map(|_| open_tunnel(&mut client, &upstream)).collect();
    eventually("three lines", || hopgate.access_lines(" start").len() == 3);
    let number = |line: &String| line.split("tunnel=").nth(1).expect("a number").to_owned();
    let mut numbers: Vec<_> = hopgate.access_lines(" start").iter().map(number).collect();
    numbers.sort();
    numbers.dedup();
    assert_eq!(numbers.len(), 3, "{numbers:?}");
    drop(tunnels);
}

#[test]
fn a_drain_ends_tunnels_in_good_order_and_then_the_connection() {
    let upstream = Upstream::listen();
    let mut hopgate = Hopgate::start(&format!(
        r#"
        workers = 1
        shutdown_timeout = "900ms"
        [[server]]
        listen = "127.0.0.1:0 http2"
        [[server.location]]
        path = "/"
        proxy_pass = "http://{}"
        "#,
        upstream.addr()
    ));
    let mut client = Http2::connect(&hopgate);
    let (mut stream, mut server) = open_tunnel(&mut client, &upstream);
    hopgate.signal("TERM");
    server.expect_eof();
    assert_eq!(stream.read_to_end(), Ok(Vec::new()));
    stream.finish();
    server.close();
    expect_end(&hopgate, "drain");
    assert_eq!(client.end(), None);
    assert!(hopgate.wait_exit().success());
}

#[test]
fn a_client_of_http_1_1_opens_its_websocket_on_the_same_listener() {
    let upstream = Upstream::listen();
    let hopgate = speaking_http2(&upstream);
    let mut client = hopgate.connect();
    client.send(handshake("/"));
    let mut server = upstream.accept();
    server.head();
    server.send(switching());
    client.expect_status(101);
}
