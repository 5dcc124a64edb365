//! The PROXY protocol towards upstreams: each is told first of all whose connection it is, and gets nobody else's
//! requests on it.

mod support;

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;

use support::{
    Asked, Authority, Dir, Haproxy, Hopgate, Http2, Http2Settings, Http2Upstream, Introduced, Nginx, Peer,
    TlsUpstream, Upstream, eventually, free_addr, handshake, proxy_v2, switching,
};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// A hopgate with one upstream, these lines in its location, and these in its server.
#[track_caller]
fn telling(upstream: &str, server: &str, location: &str) -> Hopgate {
    Hopgate::start(&format!(
        "workers = 1\n[[server]]\nlisten = '127.0.0.1:0 http2'\n{server}\n\
         [[server.location]]\npath = '/'\nproxy_pass = 'http://{upstream}'\n{location}\n"
    ))
}

/// A client, and where it comes from.
fn client(to: SocketAddr) -> (Peer, SocketAddr) {
    let stream = TcpStream::connect(to).unwrap();
    let from = stream.local_addr().unwrap();
    (Peer::new("client", stream), from)
}

/// The header of version 1 for this connection.
fn line(from: SocketAddr, to: SocketAddr) -> String {
    format!("PROXY TCP4 {} {} {} {}", from.ip(), to.ip(), from.port(), to.port())
}

/// The header of version 2 for this connection.
fn block(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let (SocketAddr::V4(from), SocketAddr::V4(to)) = (from, to) else { panic!("IPv4 only") };
    let ports = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    proxy_v2(0x21, 0x11, &[&from.ip().octets()[..], &to.ip().octets(), &ports].concat())
}

/// Has the client's request answered on this connection.
#[track_caller]
fn served(client: &mut Peer, server: &mut Peer) {
    server.expect_head("GET / HTTP/1.1", &[]);
    server.respond("ok");
    client.expect_status(200);
}

#[test]
fn an_upstream_is_told_first_of_all_whose_connection_it_is() {
    let upstream = Upstream::listen();
    for version in ["v1", "v2"] {
        let hopgate = telling(upstream.addr(), "", &format!("proxy_protocol = '{version}'"));
        let (mut client, from) = client(hopgate.addr());
        client.send(GET);
        let mut server = upstream.accept();
        match version {
            "v1" => server.expect(format!("{}\r\n", line(from, hopgate.addr()))),
            _ => server.expect(block(from, hopgate.addr())),
        }
        served(&mut client, &mut server);
    }
}

#[test]
fn a_connection_is_kept_for_its_client_and_for_nobody_else() {
    let upstream = Upstream::listen();
    let hopgate = telling(upstream.addr(), "", "proxy_protocol = 'v1'");
    let (mut one, one_from) = client(hopgate.addr());
    one.send(GET);
    let mut of_one = upstream.accept();
    of_one.expect(format!("{}\r\n", line(one_from, hopgate.addr())));
    served(&mut one, &mut of_one);
    // The connection of the first one lies idle, and is no good for the second one.
    let (mut other, other_from) = client(hopgate.addr());
    other.send(GET);
    let mut of_other = upstream.accept();
    of_other.expect(format!("{}\r\n", line(other_from, hopgate.addr())));
    served(&mut other, &mut of_other);
    // Each goes on with its own, without a further header.
    for _ in 0..2 {
        one.send(GET);
        served(&mut one, &mut of_one);
        other.send(GET);
        served(&mut other, &mut of_other);
    }
}

#[test]
fn a_location_without_a_header_takes_no_connection_that_has_one() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::start(&format!(
        "workers = 1\nproxy_protocol = 'v2'\n[[server]]\nlisten = '127.0.0.1:0'\n\
         [[server.location]]\npath = '/'\nproxy_pass = 'http://{0}'\n\
         [[server.location]]\npath = '/line'\nproxy_pass = 'http://{0}'\nproxy_protocol = 'v1'\n\
         [[server.location]]\npath = '/off'\nproxy_pass = 'http://{0}'\nproxy_protocol = 'off'\n",
        upstream.addr()
    ));
    let (mut client, from) = client(hopgate.addr());
    let mut kept = Vec::new();
    let headers = [
        ("/", block(from, hopgate.addr())),
        ("/line", line(from, hopgate.addr()).into_bytes()),
        ("/off", Vec::new()),
    ];
    for (path, header) in headers {
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let mut server = upstream.accept();
        server.expect(&header);
        if path == "/line" {
            server.expect("\r\n");
        }
        server.expect_head(&format!("GET {path} HTTP/1.1"), &[]);
        server.respond("ok");
        client.expect_status(200);
        kept.push(server);
    }
    for (path, server) in ["/", "/line", "/off"].into_iter().zip(&mut kept) {
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        server.expect_head(&format!("GET {path} HTTP/1.1"), &[]);
        server.respond("ok");
        client.expect_status(200);
    }
}

#[test]
fn the_client_is_whom_trusted_proxies_name_one_request_after_the_other() {
    let upstream = Upstream::listen();
    let hopgate = telling(upstream.addr(), "trusted_proxies = '127.0.0.1'", "proxy_protocol = 'v1'");
    let to = hopgate.addr();
    let (mut balancer, from) = client(to);
    let mut kept: Vec<(String, Peer)> = Vec::new();
    for (named, expected) in [
        ("192.0.2.1", format!("PROXY TCP4 192.0.2.1 127.0.0.1 0 {}", to.port())),
        ("192.0.2.1:4711", format!("PROXY TCP4 192.0.2.1 127.0.0.1 4711 {}", to.port())),
        ("6.6.6.6, 192.0.2.1", format!("PROXY TCP4 192.0.2.1 127.0.0.1 0 {}", to.port())),
        ("2001:db8::1", format!("PROXY TCP6 2001:db8::1 ::ffff:7f00:1 0 {}", to.port())),
        ("nonsense", line(from, to)),
        ("192.0.2.1", format!("PROXY TCP4 192.0.2.1 127.0.0.1 0 {}", to.port())),
    ] {
        println!("row: {named}");
        balancer.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {named}\r\n\r\n"));
        let place = kept.iter().position(|(header, _)| *header == expected).unwrap_or_else(|| {
            let mut server = upstream.accept();
            server.expect(format!("{expected}\r\n"));
            kept.push((expected, server));
            kept.len() - 1
        });
        served(&mut balancer, &mut kept[place].1);
    }
    assert_eq!(kept.len(), 4);
}

#[test]
fn what_a_balancer_has_said_is_passed_on_as_it_was() {
    let upstream = Upstream::listen();
    let server = "trusted_proxies = '127.0.0.1'";
    let hopgate = Hopgate::start(&format!(
        "workers = 1\n[[server]]\nlisten = '127.0.0.1:0 proxy_protocol'\n{server}\n\
         [[server.location]]\npath = '/'\nproxy_pass = 'http://{}'\nproxy_protocol = 'v1'\n",
        upstream.addr()
    ));
    for header in
        ["PROXY TCP4 192.0.2.7 198.51.100.1 4711 443", "PROXY TCP6 2001:db8::7 2001:db8::1 4711 443"]
    {
        let mut client = hopgate.connect();
        client.send(format!("{header}\r\n{GET}"));
        let mut server = upstream.accept();
        server.expect(format!("{header}\r\n"));
        served(&mut client, &mut server);
    }
    // Of those whom it does not know it is itself who is told.
    for header in [b"PROXY UNKNOWN\r\n".to_vec(), proxy_v2(0x20, 0, b"")] {
        let (mut client, from) = client(hopgate.addr());
        client.send([&header, GET.as_bytes()].concat());
        let mut server = upstream.accept();
        server.expect(format!("{}\r\n", line(from, hopgate.addr())));
        served(&mut client, &mut server);
    }
}

#[test]
fn a_client_on_a_unix_domain_socket_is_unknown_or_nobody() {
    let (upstream, dir) = (Upstream::listen(), Dir::new());
    for (version, header) in [("v1", b"PROXY UNKNOWN\r\n".to_vec()), ("v2", proxy_v2(0x20, 0, b""))] {
        let path = dir.path(version);
        let _hopgate = Hopgate::start(&format!(
            "[[server]]\nlisten = 'unix:{path}'\n[[server.location]]\npath = '/'\nproxy_pass = 'http://{}'\n\
             proxy_protocol = '{version}'\n",
            upstream.addr()
        ));
        let mut client = _hopgate.connect_unix(Path::new(&path));
        client.send(GET);
        let mut server = upstream.accept();
        server.expect(header);
        served(&mut client, &mut server);
    }
}

#[test]
fn an_upstream_on_a_unix_domain_socket_is_told_as_well() {
    let dir = Dir::new();
    let upstream = Upstream::listen_unix(&dir.join("app.sock"));
    let hopgate = telling(upstream.addr(), "", "proxy_protocol = 'v1'");
    let (mut client, from) = client(hopgate.addr());
    client.send(GET);
    let mut server = upstream.accept();
    server.expect(format!("{}\r\n", line(from, hopgate.addr())));
    served(&mut client, &mut server);
}

#[test]
fn the_header_stands_ahead_of_tls() {
    let (authority, dir) = (Authority::new("a CA"), Dir::new());
    std::fs::write(dir.join("ca.pem"), authority.pem()).unwrap();
    let upstream = TlsUpstream::with(&authority.issue(&["127.0.0.1"]));
    let introduced = Introduced::start(&upstream.addr());
    let hopgate = Hopgate::start(&format!(
        "workers = 1\n[[server]]\nlisten = '127.0.0.1:0'\n[[server.location]]\npath = '/'\n\
         proxy_pass = 'https://{}'\nproxy_ssl_trusted_certificate = '{}'\nproxy_protocol = 'v1'\n",
        introduced.addr(),
        dir.path("ca.pem")
    ));
    let mut lines = Vec::new();
    for _ in 0..2 {
        let (mut client, from) = client(hopgate.addr());
        client.send(GET);
        let mut server = upstream.accept().unwrap();
        lines.push(line(from, hopgate.addr()));
        for _ in 0..2 {
            server.head();
            server.respond("ok");
            client.expect_status(200);
            client.send(GET);
        }
        server.head();
        server.respond("ok");
        client.expect_status(200);
    }
    assert_eq!(introduced.lines(), lines);
}

#[test]
fn a_server_that_fails_gives_way_to_one_that_is_told_the_same() {
    let (first, second) = (Upstream::listen(), Upstream::listen());
    let hopgate = Hopgate::start(&format!(
        "workers = 1\n[upstream.app]\nserver = ['{}', '{} backup']\n[[server]]\nlisten = '127.0.0.1:0'\n\
         [[server.location]]\npath = '/'\nproxy_pass = 'http://app'\nproxy_protocol = 'v1'\n",
        first.addr(),
        second.addr()
    ));
    let (mut client, from) = client(hopgate.addr());
    let header = format!("{}\r\n", line(from, hopgate.addr()));
    client.send(GET);
    let mut server = first.accept();
    server.expect(&header);
    served(&mut client, &mut server);
    // What is closed while it is idle is opened anew, with its header.
    server.close();
    client.send(GET);
    let mut server = first.accept();
    server.expect(&header);
    server.expect_head("GET / HTTP/1.1", &[]);
    server.close();
    let mut server = second.accept();
    server.expect(&header);
    served(&mut client, &mut server);
}

#[test]
fn a_tunnel_begins_with_a_header_of_its_own() {
    let upstream = Upstream::listen();
    let hopgate = telling(upstream.addr(), "", "proxy_protocol = 'v1'");
    let (mut client, from) = client(hopgate.addr());
    let header = format!("{}\r\n", line(from, hopgate.addr()));
    client.send(GET);
    let mut server = upstream.accept();
    server.expect(&header);
    served(&mut client, &mut server);
    client.send(handshake("/chat"));
    let mut server = upstream.accept();
    server.expect(&header);
    server.expect_head("GET /chat HTTP/1.1", &["Upgrade: websocket"]);
    server.send(switching());
    client.expect_status(101);
    client.send("to the app");
    server.expect("to the app");
    server.send("to the client");
    client.expect("to the client");
}

/// Takes the next request on one of these connections.
#[track_caller]
fn ask(client: &mut Peer, upstream: &support::Http2Connection) -> Asked {
    client.send(GET);
    upstream.request().expect("GET", "/")
}

#[test]
fn a_connection_in_http2_is_shared_by_nobody() {
    let upstream = Http2Upstream::with(Http2Settings { connect: true, ..Http2Settings::default() });
    let introduced = Introduced::start(upstream.addr());
    let lines = "proxy_http_version = '2'\nproxy_protocol = 'v1'";
    let hopgate = telling(&introduced.addr().to_string(), "", lines);
    let (mut one, one_from) = client(hopgate.addr());
    one.send(GET);
    let of_one = upstream.accept();
    of_one.request().expect("GET", "/").respond("ok");
    one.expect_status(200);
    // There is room on that one, and it is another client's.
    let (mut other, other_from) = client(hopgate.addr());
    other.send(GET);
    let of_other = upstream.accept();
    of_other.request().expect("GET", "/").respond("ok");
    other.expect_status(200);
    for _ in 0..2 {
        ask(&mut one, &of_one).respond("ok");
        one.expect_status(200);
        ask(&mut other, &of_other).respond("ok");
        other.expect_status(200);
    }
    // A tunnel is a stream of its client's connection.
    other.send(handshake("/chat"));
    let mut tunnel = of_other.request().expect("CONNECT", "/chat").answer(200, &[]);
    other.expect_status(101);
    tunnel.send("to the client");
    other.expect("to the client");
    let expected = [line(one_from, hopgate.addr()), line(other_from, hopgate.addr())];
    assert_eq!(introduced.lines(), expected);
}

#[test]
fn idle_connections_in_http2_are_no_more_than_keepalive_says() {
    let upstream = Http2Upstream::listen();
    let introduced = Introduced::start(upstream.addr());
    let hopgate = Hopgate::start(&format!(
        "workers = 1\n[upstream.app]\nserver = '{}'\nkeepalive = 2\n[[server]]\nlisten = '127.0.0.1:0'\n\
         [[server.location]]\npath = '/'\nproxy_pass = 'http://app'\nproxy_http_version = '2'\n\
         proxy_protocol = 'v1'\n",
        introduced.addr()
    ));
    let begin = || {
        let mut client = hopgate.connect();
        client.send(GET);
        let connection = upstream.accept();
        let asked = connection.request().expect("GET", "/");
        (client, connection, asked)
    };
    let served = || {
        let (mut client, connection, asked) = begin();
        asked.respond("ok");
        client.expect_status(200);
        (client, connection)
    };
    // One that is in use is none of them.
    let (mut busy_client, busy, asked) = begin();
    let (_one, of_one) = served();
    let (mut two, of_two) = served();
    let (mut three, of_three) = served();
    of_one.expect_end();
    for (client, connection) in [(&mut two, &of_two), (&mut three, &of_three)] {
        ask(client, connection).respond("ok");
        client.expect_status(200);
    }
    asked.respond("ok");
    busy_client.expect_status(200);
    ask(&mut busy_client, &busy).respond("ok");
    busy_client.expect_status(200);
}

#[test]
fn the_streams_of_one_client_share_its_connection_also_while_it_is_opened() {
    let upstream = Http2Upstream::listen();
    let introduced = Introduced::start(upstream.addr());
    let lines = "proxy_http_version = '2'\nproxy_protocol = 'v1'";
    let hopgate = telling(&introduced.addr().to_string(), "", lines);
    let mut clients = [Http2::connect(&hopgate), Http2::connect(&hopgate)];
    let mut streams = Vec::new();
    for client in &mut clients {
        for path in ["/1", "/2", "/3"] {
            let request = client.request("GET", path, &[]);
            streams.push(client.begin(request, true));
        }
    }
    for _ in 0..2 {
        let connection = upstream.accept();
        for _ in 0..3 {
            connection.request().respond("ok");
        }
    }
    for stream in streams {
        assert_eq!(stream.response().text(), "ok");
    }
    let lines = introduced.lines();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_ne!(lines[0], lines[1]);
}

#[test]
fn nginx_takes_the_client_from_it() {
    if !Nginx::is_installed() {
        return;
    }
    let addr = free_addr();
    let nginx = Nginx::start_in(
        Dir::new(),
        &format!(
            "server {{ listen {addr} proxy_protocol; set_real_ip_from 127.0.0.1; real_ip_header proxy_protocol;\n\
             return 200 '$remote_addr:$remote_port $proxy_protocol_server_addr:$proxy_protocol_server_port'; }}\n"
        ),
    );
    for version in ["v1", "v2"] {
        let hopgate = telling(
            &addr.to_string(),
            "trusted_proxies = '127.0.0.1'",
            &format!("proxy_protocol = '{version}'"),
        );
        let (to, (mut client, from)) = (hopgate.addr(), client(hopgate.addr()));
        for (field, expected) in [
            ("X-A: b", from.to_string()),
            ("X-Forwarded-For: 192.0.2.1:4711", "192.0.2.1:4711".to_owned()),
            ("X-Forwarded-For: 192.0.2.2", "192.0.2.2:0".to_owned()),
            ("X-A: b", from.to_string()),
        ] {
            client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n"));
            let said = client.expect_status(200).text();
            // nginx tells a port of 0 as none.
            let said = said.replace("192.0.2.2: ", "192.0.2.2:0 ");
            assert_eq!(said, format!("{expected} {to}"), "{version} {field}");
        }
    }
    drop(nginx);
}

#[test]
fn haproxy_takes_the_client_from_it() {
    if !Haproxy::is_installed() {
        return;
    }
    for (version, extra) in [("v1", ""), ("v2", ""), ("v2", "proto h2"), ("v1", "proto h2")] {
        let answer = "  mode http\n  http-request return status 200 content-type text/plain lf-string \
                      \"%[src]:%[src_port] %[dst]:%[dst_port]\"";
        let haproxy = Haproxy::start(&format!("accept-proxy {extra}"), answer);
        let http2 = if extra.is_empty() { "" } else { "proxy_http_version = '2'" };
        let hopgate =
            telling(&haproxy.addr().to_string(), "", &format!("proxy_protocol = '{version}'\n{http2}"));
        for _ in 0..2 {
            let (mut client, from) = client(hopgate.addr());
            for _ in 0..2 {
                client.send(GET);
                let said = client.expect_status(200).text();
                assert_eq!(said, format!("{from} {}", hopgate.addr()), "{version} {extra}");
            }
        }
    }
}

#[test]
fn a_hopgate_behind_a_hopgate_knows_the_client() {
    let upstream = Upstream::listen();
    let inner = Hopgate::start(&format!(
        "workers = 1\n[[server]]\nlisten = '127.0.0.1:0 proxy_protocol'\ntrusted_proxies = '127.0.0.1'\n\
         [[server.location]]\npath = '/'\nproxy_pass = 'http://{}'\n\
         proxy_set_header = {{ X-Seen = '$remote_addr:$remote_port' }}\n",
        upstream.addr()
    ));
    let outer = telling(&inner.addr().to_string(), "trusted_proxies = '127.0.0.1'", "proxy_protocol = 'v2'");
    let mut client = outer.connect();
    for named in ["192.0.2.1:4711", "[2001:db8::1]:4712"] {
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {named}\r\n\r\n"));
        let mut server = upstream.accept();
        server.expect_head("GET / HTTP/1.1", &[&format!("X-Seen: {}", named.replace(['[', ']'], ""))]);
        server.respond("ok");
        client.expect_status(200);
    }
    eventually("the inner one has logged both", || inner.access_lines("2001:db8::1 - ").len() == 1);
}

#[test]
fn explain_says_what_the_upstream_is_told() {
    let dir = Dir::new();
    let file = "[[server]]\nlisten = '127.0.0.1:8080'\nproxy_protocol = 'v1'\n[[server.location]]\npath = '/'\n\
                proxy_pass = 'http://127.0.0.1:3000'\n";
    std::fs::write(dir.join("hopgate.toml"), file).unwrap();
    let explain = |more: &[&str]| {
        let mut hopgate = Command::new(env!("CARGO_BIN_EXE_hopgate"));
        let hopgate = hopgate.args(["explain", "--from", "192.0.2.7", "--config", &dir.path("hopgate.toml")]);
        let output = hopgate.args(more).arg("http://127.0.0.1:8080/").output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let header = "PROXY TCP4 192.0.2.7 127.0.0.1 49152 8080";
    let said = explain(&[]);
    assert!(said.contains("by the PROXY protocol") && said.contains(header), "{said}");
    let said: serde_json::Value = serde_json::from_str(&explain(&["--json"])).unwrap();
    assert!(said.to_string().contains(&format!("\"proxy_protocol\":\"{header}\"")), "{said}");
}
