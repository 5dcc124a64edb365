//! Real servers that speak HTTP/2 behind hopgate: Node's and nginx's, with TLS and without.

mod support;

use std::fs;

use support::{
    Authority, Dir, Ending, Hopgate, Http2, Nginx, NodeApp, Noise, assert_same_bytes, free_addr, handshake,
};

/// hopgate with these lines for where requests go.
#[track_caller]
fn hopgate(lines: &str) -> Hopgate {
    Hopgate::start(&format!(
        r#"
        workers = 1
        [[server]]
        listen = "127.0.0.1:0 http2"
        proxy_http_version = "2"
        proxy_connect_timeout = "2s"
        [[server.location]]
        path = "/"
        {lines}
        "#
    ))
}

/// A certificate for `app.test`, and the lines with which it is believed.
fn trusted() -> (Dir, String) {
    let (authority, dir) = (Authority::new("hopgate test CA"), Dir::new());
    authority.issue(&["app.test"]).write(&dir, "server");
    fs::write(dir.join("ca.pem"), authority.pem()).expect("a file can be written");
    let lines =
        format!("proxy_ssl_name = 'app.test'\nproxy_ssl_trusted_certificate = '{}'\n", dir.path("ca.pem"));
    (dir, lines)
}

/// What an app of Node has to do, whichever way it is reached.
fn expect_app(hopgate: &Hopgate, scheme: &str) {
    let (status, json) = hopgate.get("/json");
    assert_eq!(status, 200, "{}", hopgate.log());
    for part in [
        r#"":method":"GET""#,
        &format!(r#"":scheme":"{scheme}""#),
        r#"":authority":"a""#,
        r#"":path":"/json""#,
    ] {
        assert!(json.contains(part), "{part} in {json}");
    }
    // Large bodies, both ways at once.
    let mut noise = Noise::seeded(3);
    let large = noise.take(4 << 20);
    let mut client = hopgate.connect();
    let mut writer = client.another();
    let sent = large.clone();
    let writing = std::thread::spawn(move || {
        writer.send(format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", sent.len()));
        writer.send(sent);
    });
    assert_same_bytes("what comes back", &large, &client.expect_status(200).body);
    writing.join().unwrap();
    // An answer that began before the request had ended is the last one of its connection.
    let mut client = hopgate.connect();
    client.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.expect_status(200).body.len(), 8 << 20);
    // The parts of HTTP that are seldom thought of.
    client.send("GET /trailers HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n\r\n");
    assert_eq!(client.expect_status(200).trailers, [("x-checksum".to_owned(), "abc".to_owned())]);
    client.send("GET /hints HTTP/1.1\r\nHost: a\r\n\r\n");
    client.expect_head("HTTP/1.1 103 Early Hints", &["link: </style.css>; rel=preload"]);
    assert_eq!(client.expect_status(200).text(), "after the hints");
    client.send("HEAD /json HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.head().status(), 200);
    client.send("GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n");
    client.expect_status(404);
    // Events come as they happen.
    client.send("GET /events HTTP/1.1\r\nHost: a\r\n\r\n");
    client.head();
    client.expect_chunked("data: 0\n\n");
    for number in 1..=3 {
        assert_eq!(hopgate.get("/tell"), (200, "true".to_owned()));
        client.expect_chunked(format!("data: {number}\n\n"));
    }
    // What breaks off is not whole.
    let mut client = hopgate.connect();
    client.send("GET /broken HTTP/1.1\r\nHost: a\r\n\r\n");
    client.expect_head("HTTP/1.1 200 OK", &["content-length: 1000"]);
    assert_eq!(client.read_to_end().1, Ending::Reset);
    // WebSocket, from HTTP/1.1 and from HTTP/2.
    let mut client = hopgate.connect();
    client.send(handshake("/"));
    client.expect_status(101).head.expect(&["x-version: 13"]);
    client.send("hello");
    client.expect("hello");
    client.finish();
    client.expect_eof();
    let mut connection = Http2::connect(hopgate);
    let mut client = connection.open_websocket("/", &[]);
    assert_eq!(client.head().status, 200);
    client.send("hello");
    client.expect("hello");
    client.finish();
    assert_eq!(client.read_to_end(), Ok(Vec::new()));
}

#[test]
fn an_app_of_node_without_tls() {
    let app = NodeApp::speaking_http2(&[]);
    expect_app(&hopgate(&format!("proxy_pass = 'http://{}'", app.addr())), "http");
}

#[test]
fn an_app_of_node_behind_tls() {
    let (dir, trust) = trusted();
    let app = NodeApp::speaking_http2(&[&dir.path("server.pem"), &dir.path("server.key")]);
    expect_app(&hopgate(&format!("proxy_pass = 'https://{}'\n{trust}", app.addr())), "https");
}

/// What nginx has to serve, whichever way it is reached.
fn expect_files(hopgate: &Hopgate, large: &[u8]) {
    let mut client = hopgate.connect();
    for _ in 0..3 {
        client.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_same_bytes("the file", large, &client.expect_status(200).body);
    }
    client.send("HEAD /large HTTP/1.1\r\nHost: a\r\n\r\n");
    client.head().expect(&[&format!("Content-Length: {}", large.len())]);
    client.send("GET /large HTTP/1.1\r\nHost: a\r\nRange: bytes=10-19\r\n\r\n");
    assert_eq!(client.expect_status(206).body, &large[10..20]);
    client.send("GET /version HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.expect_status(200).text(), "HTTP/2.0 a");
    client.send("GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n");
    client.expect_status(404);
    // nginx knows no extended CONNECT.
    client.send(handshake("/"));
    client.expect_status(502);
    hopgate.wait_for_log("SETTINGS allow for no upgrade");
}

/// nginx that speaks HTTP/2, at the address that is returned.
fn nginx(dir: Dir, listen: &str, large: &[u8]) -> (Nginx, String) {
    fs::write(dir.join("large"), large).expect("a file can be written");
    let addr = free_addr().to_string();
    let nginx = Nginx::start_in(
        dir,
        &format!(
            "server {{ listen {addr} {listen}; root .; location /version {{ return 200 \"$server_protocol $host\"; }} }}"
        ),
    );
    (nginx, addr)
}

#[test]
fn files_of_nginx_without_tls() {
    if !Nginx::is_installed() {
        return;
    }
    let large = Noise::seeded(5).take(8 << 20);
    let (_nginx, addr) = nginx(Dir::new(), "http2", &large);
    expect_files(&hopgate(&format!("proxy_pass = 'http://{addr}'")), &large);
}

#[test]
fn files_of_nginx_behind_tls() {
    if !Nginx::is_installed() {
        return;
    }
    let (dir, trust) = trusted();
    let large = Noise::seeded(6).take(8 << 20);
    let ssl = "ssl http2; ssl_certificate server.pem; ssl_certificate_key server.key";
    let (_nginx, addr) = nginx(dir, ssl, &large);
    // The certificate of the authority is where the server's is.
    let hopgate = hopgate(&format!("proxy_pass = 'https://{addr}'\n{trust}"));
    expect_files(&hopgate, &large);
}

#[test]
fn a_server_behind_tls_that_does_not_take_h2_is_a_502_that_says_so() {
    if !Nginx::is_installed() {
        return;
    }
    let (dir, trust) = trusted();
    let ssl = "ssl; ssl_certificate server.pem; ssl_certificate_key server.key";
    let (_nginx, addr) = nginx(dir, ssl, b"");
    let hopgate = hopgate(&format!("proxy_pass = 'https://{addr}'\n{trust}"));
    assert_eq!(hopgate.get("/").0, 502);
    let log = hopgate.wait_for_log("does not speak HTTP/2, as `proxy_http_version` says");
    assert!(log.contains("ALPN") || log.contains("NoApplicationProtocol"), "{log}");
}
