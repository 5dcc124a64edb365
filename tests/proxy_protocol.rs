//! The PROXY protocol from balancers: who the client is, everywhere, and who may say so.

mod support;

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use support::{
    Authority, Balancer, Dir, Echo, Haproxy, Hopgate, Http2, Peer, TlsClient, Upstream, eventually, proxy_v2,
};

const V1: &str = "PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n";
const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n";
/// What an upstream is told of who is there.
const SEEN: &str = "proxy_set_header = { X-Seen = '$remote_addr:$remote_port $realip_remote_addr \
                    [$proxy_protocol_addr:$proxy_protocol_port $proxy_protocol_server_addr:$proxy_protocol_server_port]' }";

/// V1 in the bytes of version 2, with a TLV.
fn v2() -> Vec<u8> {
    let addresses = [192, 0, 2, 7, 198, 51, 100, 1, 0x12, 0x67, 1, 0xbb];
    proxy_v2(0x21, 0x11, &[&addresses[..], b"\x01\x00\x02h2"].concat())
}

/// A hopgate behind balancers on 127.0.0.1, with these parameters behind its address and these lines.
fn behind_balancers(upstream: &str, listen: &str, server: &str, location: &str) -> Hopgate {
    Hopgate::start(&format!(
        "workers = 1\n[[server]]\nlisten = '127.0.0.1:0 proxy_protocol {listen}'\n\
         trusted_proxies = ['127.0.0.1', '10.0.0.0/8']\n{server}\n\
         [[server.location]]\npath = '/'\nproxy_pass = 'http://{upstream}'\n{location}\n"
    ))
}

/// What `X-` fields an echo has seen behind this header, in a request with these fields.
#[track_caller]
fn asked(mut client: Peer, header: impl AsRef<[u8]>, fields: &str) -> String {
    client.send([header.as_ref(), GET.as_bytes(), fields.as_bytes(), b"\r\n"].concat());
    client.expect_status(200).text()
}

#[track_caller]
fn field(seen: &str, name: &str) -> String {
    let value = seen.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
    value.unwrap_or_else(|| panic!("no {name} in {seen}")).trim().to_owned()
}

#[test]
fn the_client_is_who_the_header_says_in_fields_variables_and_logs() {
    let echo = Echo::start();
    let hopgate = behind_balancers(echo.addr(), "", "", SEEN);
    for header in [V1.as_bytes(), &v2()] {
        let seen = asked(hopgate.connect(), header, "X-Forwarded-For: 6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\n");
        assert_eq!(
            field(&seen, "X-Seen"),
            "192.0.2.7:4711 127.0.0.1 [192.0.2.7:4711 198.51.100.1:443]",
            "{}",
            header.escape_ascii()
        );
        assert_eq!(field(&seen, "X-Forwarded-For"), "192.0.2.7");
        assert_eq!(field(&seen, "X-Real-IP"), "192.0.2.7");
    }
    eventually("both requests are in the log", || hopgate.access_lines("192.0.2.7 - ").len() == 2);
    let v6 = "PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n";
    assert_eq!(field(&asked(hopgate.connect(), v6, ""), "X-Forwarded-For"), "2001:db8::7");
    let mapped = "PROXY TCP6 ::ffff:192.0.2.8 ::1 4711 443\r\n";
    assert_eq!(field(&asked(hopgate.connect(), mapped, ""), "X-Forwarded-For"), "192.0.2.8");
}

#[test]
fn a_header_may_come_byte_by_byte() {
    let echo = Echo::start();
    let hopgate = behind_balancers(echo.addr(), "", "", SEEN);
    for header in [V1.as_bytes(), &v2()] {
        let mut client = hopgate.connect();
        for byte in header {
            client.send([*byte]);
        }
        client.send(format!("{GET}\r\n"));
        assert!(field(&client.expect_status(200).text(), "X-Seen").starts_with("192.0.2.7:4711 "));
    }
}

#[test]
fn r18_peers_that_are_not_listed_are_turned_away() {
    let upstream = Upstream::listen();
    let hopgate = behind_balancers(upstream.addr(), "", "", "");
    let mut stranger = hopgate.connect_from(Ipv4Addr::new(127, 0, 0, 2));
    // It may be closed by now.
    stranger.send_if_open(format!("{V1}{GET}\r\n"));
    stranger.expect_closed();
    let line = hopgate.wait_for_log("turned away");
    assert!(line.contains("127.0.0.2") && line.contains("`trusted_proxies`"), "{line}");
    assert!(upstream.accept_within(Duration::from_millis(1)).is_none());
}

#[test]
fn r18_without_a_header_there_is_no_service_and_the_log_says_why() {
    let upstream = Upstream::listen();
    let hopgate = behind_balancers(upstream.addr(), "", "client_header_timeout = '300ms'", "");
    let long = format!("PROXY UNKNOWN {}", "x".repeat(200));
    for (bytes, why) in [
        (format!("{GET}\r\n").as_bytes(), "it begins otherwise"),
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 4711\r\n", "not as version 1 has it"),
        (long.as_bytes(), "it is longer than"),
        (&proxy_v2(0x2f, 0x11, &[0; 12]), "that there is not"),
        (&proxy_v2(0x21, 0x11, &[0; 3]), "no room for the addresses"),
        (&proxy_v2(0x21, 0x11, &[0; 14]), "no row of TLVs"),
        (&proxy_v2(0x21, 0x11, b"aaaabbbbccdd\x03\0\x04abcd"), "its checksum (CRC32c)"),
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\n", "not as version 1 has it"),
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\rGET", "within `client_header_timeout`"),
        (b"PROXY TCP4 192.0", "within `client_header_timeout`"),
        (b"", "within `client_header_timeout`"),
    ] {
        println!("row: {}", bytes.escape_ascii());
        let before = hopgate.log().lines().count();
        let mut client = hopgate.connect();
        client.send(bytes);
        client.expect_closed();
        eventually("the log says why", || hopgate.log().lines().skip(before).any(|line| line.contains(why)));
    }
    assert!(upstream.accept_within(Duration::from_millis(1)).is_none());
}

#[test]
fn what_the_balancer_does_not_know_is_not_believed_of_anybody() {
    let echo = Echo::start();
    let hopgate = behind_balancers(echo.addr(), "", "", SEEN);
    let claim = "X-Forwarded-For: 6.6.6.6\r\n";
    let own = proxy_v2(0x20, 0x11, &[1; 12]);
    let unknown = [
        b"PROXY UNKNOWN whatever 1.2.3.4\r\n".to_vec(),
        proxy_v2(0x21, 0x00, b""),
        proxy_v2(0x21, 0x31, &[b'/'; 216]),
    ];
    for header in unknown {
        println!("row: {}", header.escape_ascii());
        let seen = asked(hopgate.connect(), header, claim);
        let found = field(&seen, "X-Seen");
        assert!(found.starts_with("127.0.0.1:") && found.ends_with(" 127.0.0.1 [: :]"), "{found}");
        assert_eq!(field(&seen, "X-Forwarded-For"), "127.0.0.1");
    }
    // A connection of the balancer's own is one of a trusted proxy.
    let seen = asked(hopgate.connect(), own, claim);
    assert_eq!(field(&seen, "X-Forwarded-For"), "6.6.6.6, 127.0.0.1");
    assert!(field(&seen, "X-Seen").starts_with("6.6.6.6:"));
}

#[test]
fn fields_are_believed_of_the_client_that_the_header_names_and_not_of_the_balancer() {
    let echo = Echo::start();
    let from_proxy = "PROXY TCP4 10.1.1.1 198.51.100.1 4711 443\r\n";
    let claims =
        "X-Forwarded-For: 6.6.6.6, 192.0.2.99\r\nForwarded: for=192.0.2.98\r\nX-Client: 192.0.2.97\r\n";
    let chain = "6.6.6.6, 192.0.2.99, 10.1.1.1";
    for (setting, expected, chain) in [
        ("", "192.0.2.99", chain),
        ("real_ip_header = 'X-Forwarded-For'", "192.0.2.99", chain),
        // Who reads this field alone, from the right, finds the same client.
        ("real_ip_header = 'Forwarded'", "192.0.2.98", "6.6.6.6, 192.0.2.99, 192.0.2.98, 10.1.1.1"),
        ("real_ip_header = 'X-Client'", "192.0.2.97", "6.6.6.6, 192.0.2.99, 192.0.2.97, 10.1.1.1"),
        ("real_ip_header = 'proxy_protocol'", "10.1.1.1", chain),
    ] {
        let hopgate = behind_balancers(echo.addr(), "", setting, SEEN);
        let seen = asked(hopgate.connect(), from_proxy, claims);
        assert_eq!(field(&seen, "X-Real-IP"), expected, "{setting}");
        assert!(field(&seen, "X-Seen").ends_with("127.0.0.1 [10.1.1.1:4711 198.51.100.1:443]"), "{seen}");
        assert_eq!(field(&seen, "X-Forwarded-For"), chain, "{setting}");
        let seen = asked(hopgate.connect(), V1, claims);
        assert_eq!(field(&seen, "X-Real-IP"), "192.0.2.7", "{setting}");
        assert_eq!(field(&seen, "X-Forwarded-For"), "192.0.2.7", "{setting}");
    }
}

#[test]
fn without_a_header_there_is_nobody_but_the_peer_for_real_ip_header_proxy_protocol() {
    let echo = Echo::start();
    let hopgate = Hopgate::start(&format!(
        "[[server]]\nlisten = '127.0.0.1:0'\ntrusted_proxies = '127.0.0.1'\nreal_ip_header = 'proxy_protocol'\n\
         [[server.location]]\npath = '/'\nproxy_pass = 'http://{}'\n{SEEN}\n",
        echo.addr()
    ));
    let seen = asked(hopgate.connect(), "", "X-Forwarded-For: 6.6.6.6\r\n");
    assert_eq!(field(&seen, "X-Real-IP"), "127.0.0.1");
    assert!(field(&seen, "X-Seen").ends_with(" 127.0.0.1 [: :]"), "{seen}");
}

#[test]
fn rules_and_limits_are_about_the_client_of_the_balancer() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::start(&format!(
        "workers = 1\n[limit_req_zone.each]\nkey = '$binary_remote_addr'\nrate = '1r/m'\n\
         [limit_conn_zone.each]\nkey = '$binary_remote_addr'\n\
         [[server]]\nlisten = '127.0.0.1:0 proxy_protocol'\ntrusted_proxies = '127.0.0.1'\n\
         [[server.location]]\npath = '/rules'\naccess = ['deny 127.0.0.1', 'deny 192.0.2.8']\n\
         proxy_pass = 'http://{0}'\n\
         [[server.location]]\npath = '/often'\nlimit_req = 'each'\nproxy_pass = 'http://{0}'\n\
         [[server.location]]\npath = '/many'\nlimit_conn = 'each 1'\nproxy_pass = 'http://{0}'\n",
        upstream.addr()
    ));
    let of = |last: u8, path: &str| {
        let mut client = hopgate.connect();
        client.send(format!(
            "PROXY TCP4 192.0.2.{last} 198.51.100.1 4711 443\r\nGET {path} HTTP/1.1\r\nHost: a\r\n\
             Connection: close\r\n\r\n"
        ));
        client
    };
    let served = |mut client: Peer| {
        let mut server = upstream.accept();
        server.head();
        server.respond_and_close("ok");
        client.expect_status(200);
    };
    of(8, "/rules").expect_status(403);
    served(of(7, "/rules"));
    served(of(7, "/often"));
    of(7, "/often").expect_status(503);
    served(of(6, "/often"));
    let mut first = of(7, "/many");
    let mut server = upstream.accept();
    server.head();
    of(7, "/many").expect_status(503);
    served(of(6, "/many"));
    server.respond_and_close("ok");
    first.expect_status(200);
}

#[test]
fn connections_are_counted_for_the_client_of_the_balancer() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::start(&format!(
        "workers = 1\nmax_connections_per_ip = 1\n[[server]]\nlisten = '127.0.0.1:0 proxy_protocol'\n\
         trusted_proxies = '127.0.0.1'\n[[server.location]]\npath = '/'\nproxy_pass = 'http://{}'\n",
        upstream.addr()
    ));
    let of = |last: u8| {
        let mut client = hopgate.connect();
        client.send(format!(
            "PROXY TCP4 192.0.2.{last} 198.51.100.1 4711 443\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"
        ));
        client
    };
    let mut first = of(7);
    let mut server = upstream.accept();
    server.head();
    of(7).expect_status(503);
    assert!(hopgate.wait_for_log("max_connections_per_ip").contains("192.0.2.7"));
    let _other = of(8);
    upstream.accept().head();
    server.respond("ok");
    first.expect_status(200);
    // With its end the place is free again.
    first.finish();
    first.expect_eof();
    let _third = of(7);
    // On the connection that the first one has left behind.
    server.head();
}

#[test]
fn tls_and_http2_come_behind_the_header_in_the_same_piece() {
    let (authority, dir, echo) = (Authority::new("a CA"), Dir::new(), Echo::start());
    authority.issue(&["example.com"]).write(&dir, "own");
    let server = format!(
        "ssl_certificate = '{}'\nssl_certificate_key = '{}'",
        dir.path("own.pem"),
        dir.path("own.key")
    );
    let secure = behind_balancers(echo.addr(), "ssl", &server, SEEN);
    for header in [V1.as_bytes(), &v2()] {
        let balancer = Balancer::start(secure.addr(), header);
        let mut client = TlsClient::of(&authority, "example.com").open(balancer.addr());
        client.send(format!("{GET}\r\n"));
        assert!(field(&client.expect_status(200).text(), "X-Seen").starts_with("192.0.2.7:4711 127.0.0.1 "));
        let client = TlsClient::of(&authority, "example.com").offering(&["h2"]).open(balancer.addr());
        let seen = Http2::over_tls(client, "example.com").get("/").text();
        assert!(field(&seen, "X-Seen").starts_with("192.0.2.7:4711 127.0.0.1 "), "{seen}");
    }
    let plain = behind_balancers(echo.addr(), "http2", "", SEEN);
    let balancer = Balancer::start(plain.addr(), &v2());
    let mut client = Http2::connect_to(balancer.addr(), 1 << 20);
    for _ in 0..2 {
        assert!(field(&client.get("/").text(), "X-Seen").starts_with("192.0.2.7:4711 "));
    }
}

#[test]
fn a_unix_domain_socket_takes_it_from_unix_peers() {
    let (echo, dir) = (Echo::start(), Dir::new());
    let path = dir.path("hopgate.sock");
    let hopgate = Hopgate::start(&format!(
        "[[server]]\nlisten = 'unix:{path} proxy_protocol'\ntrusted_proxies = 'unix:'\n\
         [[server.location]]\npath = '/'\nproxy_pass = 'http://{}'\n{SEEN}\n",
        echo.addr()
    ));
    let seen = asked(hopgate.connect_unix(Path::new(&path)), V1, "X-Forwarded-For: 6.6.6.6\r\n");
    assert_eq!(field(&seen, "X-Seen"), "192.0.2.7:4711 unix: [192.0.2.7:4711 198.51.100.1:443]");
    let seen =
        asked(hopgate.connect_unix(Path::new(&path)), "PROXY UNKNOWN\r\n", "X-Forwarded-For: 6.6.6.6\r\n");
    assert!(field(&seen, "X-Seen").starts_with("unix:: unix: "), "{seen}");
    assert!(!seen.contains("6.6.6.6"), "{seen}");
}

#[test]
fn forwarded_is_made_where_it_is_asked_for_and_goes_on_from_trusted_peers_alone() {
    let upstream = Upstream::listen();
    let hopgate = behind_balancers(upstream.addr(), "", "", "forwarded_headers = 'set rfc7239'");
    let told = |header: &str, fields: &str| {
        let mut client = hopgate.connect();
        client.send(format!("{header}{GET}{fields}\r\n"));
        let mut server = upstream.accept();
        let head = server.head();
        server.respond_and_close("ok");
        client.expect_status(200);
        head.all("Forwarded").join("|")
    };
    let claim = "Forwarded: for=6.6.6.6\r\nforwarded: for=\"open\r\nForwarded: for=192.0.2.9;by=_x\r\n";
    assert_eq!(told(V1, ""), "for=192.0.2.7;host=\"a\";proto=http");
    assert_eq!(told(V1, claim), "for=192.0.2.7;host=\"a\";proto=http");
    assert_eq!(told("PROXY TCP6 2001:db8::7 ::1 1 1\r\n", ""), "for=\"[2001:db8::7]\";host=\"a\";proto=http");
    assert_eq!(
        told("PROXY TCP4 10.0.0.1 10.0.0.2 1 1\r\n", claim),
        "for=6.6.6.6, for=unknown, for=192.0.2.9;by=_x, for=10.0.0.1;host=\"a\";proto=http"
    );
}

#[test]
fn what_the_balancer_knows_of_the_clients_tls_is_told() {
    let echo = Echo::start();
    let hopgate = behind_balancers(
        echo.addr(),
        "",
        "",
        "proxy_set_header = { X-Tls = '$proxy_protocol_tlv_ssl_version $proxy_protocol_tlv_ssl_verify \
         $proxy_protocol_tlv_alpn $proxy_protocol_tlv_0xEA $scheme' }",
    );
    let addresses = [10, 0, 0, 1, 198, 51, 100, 1, 0x12, 0x67, 1, 0xbb];
    let ssl = |bits: u8| [&[0x20, 0, 15, bits, 0, 0, 0, 0, 0x21, 0, 7][..], b"TLSv1.3"].concat();
    let more = b"\x01\0\x02h2\xea\0\x03vpc";
    for (tlvs, fields, proto, tls) in [
        ([&ssl(1)[..], more].concat(), "", "https", "TLSv1.3 0 h2 vpc http"),
        ([&ssl(0)[..], more].concat(), "", "http", "TLSv1.3 0 h2 vpc http"),
        (more.to_vec(), "", "http", "  h2 vpc http"),
        // What a trusted client of the balancer says of the request counts for more.
        (ssl(1), "X-Forwarded-Proto: http\r\n", "http", "TLSv1.3 0   http"),
    ] {
        let header = proxy_v2(0x21, 0x11, &[&addresses[..], &tlvs].concat());
        let seen = asked(hopgate.connect(), header, fields);
        assert_eq!(field(&seen, "X-Forwarded-Proto"), proto, "{tls}");
        assert_eq!(field(&seen, "X-Tls"), tls.trim(), "{proto}");
    }
}

#[test]
fn explain_takes_its_client_for_the_one_that_the_header_names() {
    let (dir, explain) = (Dir::new(), ["explain", "--from", "192.0.2.7", "--config"]);
    let file = format!(
        "[[server]]\nlisten = '127.0.0.1:8080 proxy_protocol'\ntrusted_proxies = '10.0.0.1'\n\
         [[server.location]]\npath = '/'\nproxy_pass = 'http://127.0.0.1:3000'\n{SEEN}\n"
    );
    std::fs::write(dir.join("hopgate.toml"), file).unwrap();
    let mut hopgate = std::process::Command::new(env!("CARGO_BIN_EXE_hopgate"));
    let hopgate = hopgate.args(explain).args([&dir.path("hopgate.toml"), "http://127.0.0.1:8080/"]);
    let said = String::from_utf8(hopgate.output().unwrap().stdout).unwrap();
    for line in [
        "header is taken to name 192.0.2.7 as the client",
        "X-Seen: 192.0.2.7:49152 10.0.0.1 [192.0.2.7:49152 127.0.0.1:8080]",
        "X-Forwarded-For: 192.0.2.7\n",
    ] {
        assert!(said.contains(line), "{line}\n{said}");
    }
}

#[test]
fn haproxy_says_who_its_client_is() {
    if !Haproxy::is_installed() {
        return;
    }
    let echo = Echo::start();
    let hopgate = behind_balancers(echo.addr(), "", "", SEEN);
    for how in ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options unique-id,crc32c"] {
        let lines = format!("  mode tcp\n  unique-id-format %Ts\n  server it {} {how}", hopgate.addr());
        let haproxy = Haproxy::start("", &lines);
        let mut client = hopgate_client([127, 0, 0, 9], haproxy.addr());
        client.send(format!("{GET}\r\n"));
        let seen = field(&client.expect_status(200).text(), "X-Seen");
        assert!(seen.starts_with("127.0.0.9:"), "{how}: {seen}");
        assert!(seen.ends_with(&format!(" {}]", haproxy.addr())), "{how}: {seen}");
    }
}

/// A client that comes from this address.
fn hopgate_client(from: [u8; 4], to: std::net::SocketAddr) -> Peer {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::from((from, 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    Peer::new("client", socket)
}
