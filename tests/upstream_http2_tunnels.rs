//! Upgrades towards upstreams in HTTP/2: extended CONNECT (RFC 8441), and tunnels that are streams.

mod support;

use h2::Reason;
use support::{Asked, Ending, Hopgate, Http2Settings, Http2Upstream, Peer, handshake};

/// One that allows for extended CONNECT.
fn upstream() -> Http2Upstream {
    Http2Upstream::with(Http2Settings { connect: true, ..Http2Settings::default() })
}

/// hopgate in front of it, with these lines more in the location.
#[track_caller]
fn in_front_of(upstream: &Http2Upstream, lines: &str) -> Hopgate {
    Hopgate::start(&format!(
        r#"
        workers = 1
        [[server]]
        listen = "127.0.0.1:0 http2"
        [[server.location]]
        path = "/"
        proxy_pass = "http://{}"
        proxy_http_version = "2"
        {lines}
        "#,
        upstream.addr()
    ))
}

/// What `:protocol` says.
fn protocol(asked: &Asked) -> Option<&str> {
    asked.head.extensions().get::<h2::ext::Protocol>().map(h2::ext::Protocol::as_str)
}

/// A client that has sent a handshake, and what has arrived of it.
#[track_caller]
fn ask(hopgate: &Hopgate, upstream: &Http2Upstream) -> (Peer, Asked) {
    let mut client = hopgate.connect();
    client.send(handshake("/chat"));
    (client, upstream.accept().request().expect("CONNECT", "/chat"))
}

#[test]
fn a_handshake_becomes_an_extended_connect_and_its_answer_a_101() {
    let upstream = upstream();
    let hopgate = in_front_of(&upstream, "");
    let mut client = hopgate.connect();
    let extra = "Sec-WebSocket-Protocol: a, b\r\nSec-WebSocket-Extensions: permessage-deflate\r\nOrigin: http://a\r\n\r\n";
    client.send(handshake("/chat?x=1").replacen("\r\n\r\n", &format!("\r\n{extra}"), 1));
    let asked = upstream.accept().request().expect("CONNECT", "/chat?x=1");
    assert_eq!(protocol(&asked), Some("websocket"));
    assert_eq!(asked.head.uri().authority().unwrap(), "a");
    assert_eq!(asked.field("sec-websocket-version"), Some("13"));
    assert_eq!(asked.field("sec-websocket-protocol"), Some("a, b"));
    assert_eq!(asked.field("sec-websocket-extensions"), Some("permessage-deflate"));
    assert_eq!(asked.field("origin"), Some("http://a"));
    for gone in ["sec-websocket-key", "connection", "upgrade", "host", "te"] {
        assert_eq!(asked.field(gone), None, "{gone}");
    }
    let mut server = asked.answer(200, &[("sec-websocket-protocol", "b"), ("x-server", "yes")]);
    server.send("welcome");
    let head = client.expect_status(101).head;
    head.expect(&["Connection: Upgrade", "Upgrade: websocket", "sec-websocket-protocol: b", "x-server: yes"]);
    head.expect(&[&format!("Sec-WebSocket-Accept: {}", support::ACCEPT)]);
    client.expect("welcome");
    client.send("hello");
    server.expect("hello");
    // Half-close, one way and then the other.
    client.finish();
    assert_eq!(server.chunk(), None);
    server.send_last("goodbye");
    client.expect("goodbye");
    client.expect_eof();
    assert!(hopgate.wait_for_access("client_closed").contains("/chat"));
}

#[test]
fn a_tunnel_carries_much_both_ways_at_once() {
    let upstream = upstream();
    let hopgate = in_front_of(&upstream, "");
    let (mut client, asked) = ask(&hopgate, &upstream);
    let mut server = asked.answer(200, &[]);
    client.expect_status(101);
    let much = vec![b'm'; 4 << 20];
    let mut writer = client.another();
    let sent = much.clone();
    let writing = std::thread::spawn(move || writer.send(sent));
    server.send(&much);
    let mut taken = 0;
    while taken < much.len() {
        taken += server.chunk().unwrap().len();
    }
    writing.join().unwrap();
    client.expect(&much);
}

#[test]
fn an_end_without_order_stays_one_on_both_sides() {
    let upstream = upstream();
    let hopgate = in_front_of(&upstream, "");
    let (mut client, asked) = ask(&hopgate, &upstream);
    let server = asked.answer(200, &[]);
    client.expect_status(101);
    server.reset(Reason::CANCEL);
    client.expect_reset();
    hopgate.wait_for_access("upstream_reset");

    let (mut client, asked) = ask(&hopgate, &upstream);
    let mut server = asked.answer(200, &[]);
    client.expect_status(101);
    client.reset();
    server.expect_reset(Reason::CANCEL);
    hopgate.wait_for_access("client_reset");
}

#[test]
fn a_refusal_keeps_its_status_and_the_connection_goes_on() {
    let upstream = upstream();
    let hopgate = in_front_of(&upstream, "");
    let (mut client, asked) = ask(&hopgate, &upstream);
    let mut answer = asked.answer(403, &[("content-length", "2")]);
    answer.send_last("no");
    let refusal = client.expect_status(403);
    assert_eq!(refusal.text(), "no");
}

#[test]
fn a_stream_that_is_reset_instead_of_answered_is_a_502() {
    let upstream = upstream();
    let hopgate = in_front_of(&upstream, "");
    let (mut client, asked) = ask(&hopgate, &upstream);
    asked.reset(Reason::PROTOCOL_ERROR);
    client.expect_status(502);
}

#[test]
fn an_upstream_that_allows_for_no_upgrade_is_a_502_that_says_so() {
    let upstream = Http2Upstream::listen();
    let hopgate = in_front_of(&upstream, "");
    let mut client = hopgate.connect();
    client.send(handshake("/chat"));
    client.expect_status(502);
    let log = hopgate.wait_for_log("SETTINGS");
    assert!(log.contains("`proxy_http_version = \"1.1\"` would ask it in HTTP/1.1"), "{log}");
    assert!(upstream.accept().request_if_any().is_none());
}

#[test]
fn other_protocols_that_are_allowed_for_go_the_same_way() {
    let upstream = upstream();
    let hopgate = in_front_of(&upstream, "upgrade = [\"chat\"]");
    let mut client = hopgate.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n");
    let asked = upstream.accept().request().expect("CONNECT", "/");
    assert_eq!(protocol(&asked), Some("chat"));
    let mut server = asked.answer(200, &[]);
    client
        .expect_head("HTTP/1.1 101 Switching Protocols", &["Upgrade: chat"])
        .expect_none_of(&["Sec-WebSocket-Accept"]);
    server.send("hello");
    client.expect("hello");
}

#[test]
fn tunnels_and_requests_share_a_connection() {
    let upstream = upstream();
    let hopgate = in_front_of(&upstream, "");
    let mut tunnelled = hopgate.connect();
    tunnelled.send(handshake("/chat"));
    let connection = upstream.accept();
    let mut server = connection.request().expect("CONNECT", "/chat").answer(200, &[]);
    tunnelled.expect_status(101);
    let mut client = hopgate.connect();
    client.send("GET /beside HTTP/1.1\r\nHost: a\r\n\r\n");
    connection.request().expect("GET", "/beside").respond("yes");
    client.expect_status(200);
    server.send("still open");
    tunnelled.expect("still open");
    // The end of the connection is not the end of the tunnel in good order.
    connection.cut();
    let (rest, ending) = tunnelled.read_to_end();
    assert_eq!((rest.len(), ending), (0, Ending::Reset));
    hopgate.wait_for_access("upstream_reset");
}

#[test]
fn an_idle_tunnel_ends_in_good_order() {
    let upstream = upstream();
    let hopgate = in_front_of(&upstream, "tunnel_idle_timeout = \"1s\"");
    let (mut client, asked) = ask(&hopgate, &upstream);
    let mut server = asked.answer(200, &[]);
    client.expect_status(101);
    client.expect_eof();
    assert_eq!(server.chunk(), None);
    drop(client);
    hopgate.wait_for_access("idle");
}
