//! TLS towards clients: which server answers the handshake, what is agreed upon, what goes over it, and how it ends.

mod support;

use std::io::{Read as _, Write as _};
use std::thread;

use rustls::ProtocolVersion;
use rustls::version::{TLS12, TLS13};
use support::{
    Authority, Dir, Ending, Hopgate, Http2, Noise, TlsClient, TlsEnding, Upstream, assert_same_bytes,
    free_addr, handshake, switching,
};

/// Lines that name the certificate `NAME.pem` of a directory, and its key.
fn files(dir: &Dir, name: &str) -> String {
    let (certificate, key) = (dir.path(&format!("{name}.pem")), dir.path(&format!("{name}.key")));
    format!("ssl_certificate = '{certificate}'\nssl_certificate_key = '{key}'\n")
}

/// One server with a certificate for `app.test`, these lines more, and these in its only location.
fn start(authority: &Authority, server: &str, location: &str) -> (Hopgate, Dir) {
    let dir = Dir::new();
    authority.issue(&["app.test"]).write(&dir, "app");
    let hopgate = Hopgate::start(&format!(
        "workers = 1\n[[server]]\nlisten = '127.0.0.1:0 ssl'\n{}\n{server}\n\
         [[server.location]]\npath = '/'\n{location}\n",
        files(&dir, "app")
    ));
    (hopgate, dir)
}

/// The same in front of an upstream.
fn in_front_of(authority: &Authority, addr: &str, server: &str) -> (Hopgate, Dir) {
    start(authority, server, &format!("proxy_pass = 'http://{addr}'"))
}

const GET: &str = "GET / HTTP/1.1\r\nHost: app.test\r\n\r\n";

#[test]
fn the_name_that_a_client_asks_for_chooses_the_server_and_its_certificate_by_the_rules_of_nginx() {
    let authority = Authority::new("hopgate test CA");
    let dir = Dir::new();
    let mut text = "workers = 1\n".to_owned();
    for (place, (names, more)) in [
        ("'first.test'", ""),
        ("'default.test'", " default_server"),
        ("'app.test'", ""),
        ("'*.app.test'", ""),
        ("'.dot.test'", ""),
        ("'www.*'", ""),
        ("'~^re[0-9]+\\.test$'", ""),
        ("['exact.app.test', 'second.test']", ""),
    ]
    .into_iter()
    .enumerate()
    {
        // Each can prove every name: what is told apart is who has issued what.
        let mut params = support::certificate(&format!("server {place}"), &[]);
        let every = [
            "first.test",
            "default.test",
            "app.test",
            "a.app.test",
            "a.b.app.test",
            "dot.test",
            "a.dot.test",
            "www.test",
            "re1.test",
            "re.test",
            "exact.app.test",
            "second.test",
            "other.test",
        ];
        params.subject_alt_names =
            every.iter().map(|name| rcgen::SanType::DnsName((*name).try_into().unwrap())).collect();
        authority.sign(params).write(&dir, &place.to_string());
        text.push_str(&format!(
            "[[server]]\nlisten = '127.0.0.1:0 ssl{more}'\nserver_name = {names}\n{}return = '200 \"{place} $ssl_server_name\"'\n",
            files(&dir, &place.to_string())
        ));
    }
    let hopgate = Hopgate::start(&text);
    for (name, place) in [
        ("first.test", 0),
        ("default.test", 1),
        ("other.test", 1),
        ("app.test", 2),
        ("a.app.test", 3),
        ("a.b.app.test", 3),
        ("dot.test", 4),
        ("a.dot.test", 4),
        ("www.test", 5),
        ("re1.test", 6),
        ("re.test", 1),
        ("exact.app.test", 7),
        ("second.test", 7),
    ] {
        let client = TlsClient::of(&authority, name);
        for (client, place, told) in [(client.asking_for(name), place, name), (client.silent(), 1, "")] {
            let mut client = client.open(hopgate.addr());
            let text = String::from_utf8_lossy(&client.agreed.certificate).into_owned();
            assert!(
                text.contains(&format!("server {place}")),
                "{name}: not the certificate of server {place}"
            );
            // The host of the request is what counts then, RFC 9110 §7.4.
            client.send(format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n"));
            let chosen = if told.is_empty() { None } else { Some(place) };
            let answer = client.expect_status(200).text();
            let (server, told_back) = answer.split_once(' ').unwrap();
            assert_eq!(told_back, told);
            assert!(chosen.is_none_or(|place| server == place.to_string()), "{name}: {answer}");
        }
    }
}

#[test]
fn the_protocol_is_agreed_upon() {
    let authority = Authority::new("hopgate test CA");
    let told = "return = '200 \"$ssl_alpn_protocol|$server_protocol\"'";
    for (lines, rows) in [
        (
            "",
            [
                (&["h2", "http/1.1"][..], Some("h2")),
                (&["http/1.1", "h2"], Some("h2")),
                (&["http/1.1"], Some("http/1.1")),
                (&["http/1.0"], Some("http/1.0")),
                (&[], None),
            ],
        ),
        (
            "http2 = false",
            [
                (&["h2", "http/1.1"], Some("http/1.1")),
                (&["http/1.1", "h2"], Some("http/1.1")),
                (&["http/1.1"], Some("http/1.1")),
                (&["http/1.0", "h2"], Some("http/1.0")),
                (&[], None),
            ],
        ),
    ] {
        let (hopgate, _dir) = start(&authority, lines, told);
        for (offered, wanted) in rows {
            let mut client = TlsClient::of(&authority, "app.test").offering(offered).open(hopgate.addr());
            assert_eq!(client.agreed.alpn.as_deref(), wanted, "{lines} {offered:?}");
            if wanted == Some("h2") {
                let answer = Http2::over_tls(client, "app.test").get("/").expect_status(200);
                assert_eq!(answer.text(), "h2|HTTP/2.0");
            } else {
                client.send(GET);
                let told = format!("{}|HTTP/1.1", wanted.unwrap_or_default());
                assert_eq!(client.expect_status(200).text(), told);
            }
        }
        // RFC 7301 §3.2; nginx does so as well.
        let error =
            TlsClient::of(&authority, "app.test").offering(&["spdy/3"]).try_open(hopgate.addr()).err();
        assert!(error.as_ref().is_some_and(|error| error.contains("NoApplicationProtocol")), "{error:?}");
        hopgate.wait_for_log("the handshake of TLS has failed");
    }
}

#[test]
fn the_versions_are_those_of_the_server() {
    let authority = Authority::new("hopgate test CA");
    let told = "return = '200 \"$ssl_protocol $ssl_cipher $ssl_curve\"'";
    for (lines, older, newer) in [
        ("", true, true),
        ("ssl_protocols = ['TLSv1.2', 'TLSv1.3']", true, true),
        ("ssl_protocols = 'TLSv1.2'", true, false),
        ("ssl_protocols = ['TLSv1.3']", false, true),
    ] {
        let (hopgate, _dir) = start(&authority, lines, told);
        for (version, known, works, wanted) in [
            (&TLS12, ProtocolVersion::TLSv1_2, older, "TLSv1.2 ECDHE-ECDSA-AES256-GCM-SHA384 X25519"),
            (&TLS13, ProtocolVersion::TLSv1_3, newer, "TLSv1.3 TLS_AES_256_GCM_SHA384 X25519"),
        ] {
            match TlsClient::speaking(&authority, "app.test", version).try_open(hopgate.addr()) {
                Ok(mut client) => {
                    assert!(works && client.agreed.version == known, "{lines}");
                    client.send(GET);
                    assert_eq!(client.expect_status(200).text(), wanted, "{lines}");
                }
                Err(error) => assert!(!works && error.contains("ProtocolVersion"), "{lines}: {error}"),
            }
        }
    }
}

#[test]
fn much_goes_both_ways_at_the_same_time() {
    let authority = Authority::new("hopgate test CA");
    for (version, seed) in [(&TLS12, 1), (&TLS13, 2)] {
        let upstream = Upstream::listen();
        let (hopgate, _dir) = in_front_of(&authority, upstream.addr(), "client_max_body_size = '64m'");
        let mut client = TlsClient::speaking(&authority, "app.test", version).open(hopgate.addr());
        client.send(handshake("/tunnel"));
        let mut server = upstream.accept();
        server.head();
        server.send(switching());
        client.expect_status(101);
        const LENGTH: usize = 24 << 20;
        let (up, down) = (Noise::seeded(seed).take(LENGTH), Noise::seeded(seed + 10).take(LENGTH));
        let (mut client_writes, mut server_writes) = (client.another(), server.another());
        thread::scope(|scope| {
            scope.spawn(|| client_writes.send(&up));
            scope.spawn(|| server_writes.send(&down));
            let got = scope.spawn(|| server.read(LENGTH));
            assert_same_bytes("down", &down, &client.read(LENGTH));
            assert_same_bytes("up", &up, &got.join().expect("no panic"));
        });
    }
}

#[test]
fn files_go_out_over_tls() {
    let authority = Authority::new("hopgate test CA");
    let dir = Dir::new();
    let content = Noise::seeded(3).take(3_000_000);
    std::fs::write(dir.join("file.bin"), &content).unwrap();
    std::fs::create_dir(dir.join("folder")).unwrap();
    let (hopgate, _dir) = start(&authority, "", &format!("root = '{}'", dir.path("")));
    let mut client = TlsClient::of(&authority, "app.test").open(hopgate.addr());
    client.send("GET /file.bin HTTP/1.1\r\nHost: app.test\r\n\r\n");
    assert_same_bytes("the file", &content, &client.expect_status(200).body);
    client.send("GET /file.bin HTTP/1.1\r\nHost: app.test\r\nRange: bytes=1000000-1999999\r\n\r\n");
    assert_same_bytes("a part", &content[1_000_000..2_000_000], &client.expect_status(206).body);
    // The slash that is missing: with the scheme and the port of the listener.
    client.send("GET /folder HTTP/1.1\r\nHost: app.test\r\n\r\n");
    let to = format!("https://app.test:{}/folder/", hopgate.addr().port());
    assert_eq!(client.expect_status(301).head.field("Location"), Some(to.as_str()));
}

#[test]
fn requests_are_told_to_be_https() {
    let authority = Authority::new("hopgate test CA");
    let upstream = Upstream::listen();
    let dir = Dir::new();
    authority.issue(&["app.test"]).write(&dir, "app");
    let (secure, plain, redirect) = (free_addr(), free_addr(), free_addr());
    let hopgate = Hopgate::start(&format!(
        "workers = 1\nlog_format = {{ t = '$scheme $https $ssl_protocol $ssl_server_name $ssl_session_reused \
         $ssl_client_verify $uri' }}\naccess_log = 'stdout t'\n\
         [[server]]\nlisten = ['{secure} ssl', '{plain}']\n{}\n\
         location = [{{ path = '/', proxy_pass = 'http://{}' }}, {{ path = '/to', return = '302 /there' }}]\n\
         [[server]]\nlisten = '{redirect}'\nreturn = '301 https://$host$request_uri'\n",
        files(&dir, "app"),
        upstream.addr()
    ));
    let mut client = TlsClient::of(&authority, "app.test").open(secure);
    client.send(GET);
    let mut server = upstream.accept();
    server.head().expect(&["X-Forwarded-Proto: https", "X-Forwarded-Host: app.test"]);
    server.respond("");
    client.expect_status(200);
    hopgate.wait_for_access("https on TLSv1.3 app.test . NONE /");
    client.send("GET /to HTTP/1.1\r\nHost: app.test\r\n\r\n");
    let to = format!("https://app.test:{}/there", secure.port());
    assert_eq!(client.expect_status(302).head.field("Location"), Some(to.as_str()));
    drop(server);
    let mut client = hopgate.connect_to(redirect);
    client.send("GET /a?b HTTP/1.1\r\nHost: app.test\r\n\r\n");
    assert_eq!(client.expect_status(301).head.field("Location"), Some("https://app.test/a?b"));
    let mut plain = hopgate.connect_to(plain);
    plain.send("GET /plain HTTP/1.1\r\nHost: app.test\r\n\r\n");
    let mut server = upstream.accept();
    server.head().expect(&["X-Forwarded-Proto: http"]);
    server.respond("");
    plain.expect_status(200);
    hopgate.wait_for_access("http - - - - - /plain");
}

#[test]
fn a_client_that_has_said_its_last_still_gets_its_answer() {
    let authority = Authority::new("hopgate test CA");
    for (version, name) in [(&TLS12, "older"), (&TLS13, "newer")] {
        let upstream = Upstream::listen();
        let (hopgate, _dir) = in_front_of(&authority, upstream.addr(), "");
        let mut client = TlsClient::speaking(&authority, "app.test", version).open(hopgate.addr());
        client.send(GET);
        client.finish();
        let mut server = upstream.accept();
        server.head();
        server.respond(name);
        assert_eq!(client.expect_status(200).text(), name);
        client.expect_close_notify();
    }
}

#[test]
fn the_ends_of_a_tunnel_are_told_apart() {
    let authority = Authority::new("hopgate test CA");
    let upstream = Upstream::listen();
    let (hopgate, _dir) = in_front_of(&authority, upstream.addr(), "");
    let open = || {
        let mut client = TlsClient::of(&authority, "app.test").open(hopgate.addr());
        client.send(handshake("/tunnel"));
        let mut server = upstream.accept();
        server.head();
        server.send(switching());
        client.expect_status(101);
        client.send("ping");
        server.expect("ping");
        server.send("pong");
        client.expect("pong");
        (client, server)
    };
    // The client's half comes first, and the other one goes on.
    let (mut client, mut server) = open();
    client.finish();
    server.expect_eof();
    server.send("the rest");
    client.expect("the rest");
    server.finish();
    client.expect_close_notify();
    // The server's half comes first.
    let (mut client, mut server) = open();
    server.finish();
    client.expect_close_notify();
    client.send("the rest");
    client.finish();
    server.expect("the rest");
    server.expect_eof();
    // A reset is no end that TLS knows of.
    let (client, server) = open();
    server.reset();
    let ending = client.ending();
    assert!(matches!(&ending, TlsEnding::Cut | TlsEnding::Failed(_)), "{ending:?}");
    // A client that is gone without a word is gone.
    let (client, mut server) = open();
    client.cut();
    let (rest, ending) = server.read_to_end();
    assert!(rest.is_empty() && ending == Ending::Fin || ending == Ending::Reset);
}

#[test]
fn who_does_not_come_to_the_end_of_the_handshake_is_not_waited_for() {
    let authority = Authority::new("hopgate test CA");
    let (hopgate, _dir) = start(&authority, "client_header_timeout = '300ms'", "return = '200 ok'");
    let hello = hello();
    // Nothing, a part of a record, a part of the handshake, one record in many pieces.
    for bytes in [&hello[..0], &hello[..3], &hello[..100], &hello[..hello.len() - 1], &hello[..]] {
        let mut client = hopgate.connect();
        client.send(bytes);
        let (_, ending) = client.read_to_end();
        assert_eq!(ending, Ending::Fin, "{}", bytes.len());
    }
    // Left in the midst of it.
    for length in [3, 100, hello.len()] {
        let mut client = hopgate.connect();
        client.send(&hello[..length]);
        client.reset();
    }
    let sockets = hopgate.sockets();
    support::eventually("no connection is left", || hopgate.sockets() <= sockets);
    TlsClient::of(&authority, "app.test").open(hopgate.addr());
}

/// What a client says first.
fn hello() -> Vec<u8> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let client = thread::spawn(move || {
        let _ = TlsClient::of(&Authority::new("any"), "app.test").try_open(addr);
    });
    let mut tcp = listener.accept().unwrap().0;
    let mut hello = vec![0; 5];
    tcp.read_exact(&mut hello).unwrap();
    let length = usize::from(u16::from_be_bytes([hello[3], hello[4]]));
    hello.resize(5 + length, 0);
    tcp.read_exact(&mut hello[5..]).unwrap();
    // It waits for an answer.
    let _ = tcp.write_all(&[21, 3, 3, 0, 2, 2, 40]);
    drop(tcp);
    client.join().unwrap();
    hello
}

#[test]
fn what_is_no_tls_ends_the_connection_with_an_alert_or_silence() {
    let authority = Authority::new("hopgate test CA");
    let (hopgate, _dir) = start(&authority, "", "return = '200 ok'");
    let hello = hello();
    let mut twisted = hello.clone();
    twisted[5] = 99; // no message of a handshake
    // A message of a mebibyte, in records of one byte.
    let length = [1, 0x10, 0, 0].into_iter().chain(std::iter::repeat_n(0, 6000));
    let endless: Vec<u8> = length.flat_map(|byte| [22, 3, 1, 0, 1, byte]).collect();
    let mut bad_length = hello.clone();
    bad_length[6] = 0xff;
    for (bytes, wanted) in [
        (&b"\x00\x01\x02\x03"[..], None),
        (&[0x80, 0x2e, 1, 0, 2][..], None), // SSL 2.0
        (&[22, 3, 1, 0, 4, 1, 0, 0, 0][..], Some(50)),
        (&twisted, Some(10)),
        (&bad_length, Some(50)),
        (&[21, 3, 1, 0, 2, 2, 40], None),
        (&[23, 3, 3, 0, 5, 1, 2, 3, 4, 5], None),
        (&endless, Some(50)),
    ] {
        let mut client = hopgate.connect();
        client.send(bytes);
        client.finish();
        let (said, _) = client.read_to_end();
        match (wanted, &said[..]) {
            (None, []) => {}
            // A fatal alert, RFC 8446 §6.
            (Some(_), [21, 3, _, 0, 2, 2, _]) => {}
            _ => panic!("{bytes:02x?}\nexpected: {wanted:?}\n     got: {said:02x?}"),
        }
    }
    TlsClient::of(&authority, "app.test").open(hopgate.addr());
}

#[test]
fn http_where_tls_is_spoken_is_a_clear_400() {
    let authority = Authority::new("hopgate test CA");
    let (hopgate, _dir) = start(&authority, "server_name = 'app.test'", "return = '200 ok'");
    for request in [GET, "\r\nPOST /x HTTP/1.1\r\nHost: other.test\r\nContent-Length: 3\r\n\r\nabc"] {
        let mut client = hopgate.connect();
        client.send(request);
        let answer = client.expect_status(400);
        assert!(answer.text().contains("write https://"), "{}", answer.text());
        answer.head.expect(&["Connection: close"]);
        client.expect_eof();
    }
    hopgate.wait_for_log("plain HTTP was sent to an address where TLS is spoken");
    hopgate.wait_for_access("\"GET / HTTP/1.1\" 400 ");
    // As everywhere with nginx: the page of 497 can send them on.
    let lines = "error_page = '497 =307 https://$host$request_uri'";
    let (hopgate, _dir) = start(&authority, lines, "return = '200 ok'");
    let mut client = hopgate.connect();
    client.send("GET /a?b HTTP/1.1\r\nHost: app.test\r\n\r\n");
    let answer = client.expect_status(307);
    assert_eq!(answer.head.field("Location"), Some("https://app.test/a?b"));
}

#[test]
fn a_drain_ends_connections_with_a_word_of_tls() {
    let authority = Authority::new("hopgate test CA");
    let upstream = Upstream::listen();
    let (mut hopgate, _dir) = in_front_of(&authority, upstream.addr(), "");
    let client = TlsClient::of(&authority, "app.test");
    let mut idle = client.open(hopgate.addr());
    let mut used = client.open(hopgate.addr());
    used.send(GET);
    let mut server = upstream.accept();
    server.head();
    server.respond("first");
    used.expect_status(200);
    let mut busy = client.open(hopgate.addr());
    busy.send(GET);
    // The connection to the upstream was kept.
    server.head();
    let connection = client.asking_for("app.test").offering(&["h2"]).open(hopgate.addr());
    let end_of_http2 = connection.watch();
    let mut http2 = Http2::over_tls(connection, "app.test");
    let stream = http2.begin(http2.request("GET", "/http2", &[]), true);
    let mut other = upstream.accept();
    other.head();
    let mut shaking = hopgate.connect();
    shaking.send(&hello()[..20]);
    hopgate.settle();
    hopgate.signal("TERM");
    hopgate.wait_for_log("draining");
    idle.expect_close_notify();
    used.expect_close_notify();
    shaking.expect_closed();
    http2.expect_no_more_streams();
    server.respond("last");
    let answer = busy.expect_status(200);
    answer.head.expect(&["Connection: close"]);
    assert_eq!(answer.text(), "last");
    busy.expect_close_notify();
    other.respond("last of HTTP/2");
    assert_eq!(stream.response().expect_status(200).text(), "last of HTTP/2");
    assert_eq!(http2.end(), None);
    assert_eq!(end_of_http2.wait(), TlsEnding::CloseNotify);
    drop((idle, used, busy));
    assert!(hopgate.wait_exit().success());
}
