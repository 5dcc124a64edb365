//! Connections to upstreams over TLS: kept, resumed, never mixed, tunnelled, cut, and what a reload does to them.

mod support;

use std::fs;

use support::{
    Authority, Dir, Ending, Hopgate, Nginx, NodeApp, Noise, TlsUpstream, assert_same_bytes, free_addr,
    handshake, read_text, switching, text_frame,
};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// An authority whose certificate stands in a file, and the line that trusts it.
fn trusted() -> (Authority, Dir, String) {
    let authority = Authority::new("hopgate test CA");
    let dir = Dir::new();
    fs::write(dir.join("ca.pem"), authority.pem()).expect("a file can be written");
    let line = format!("proxy_ssl_trusted_certificate = '{}'", dir.path("ca.pem"));
    (authority, dir, line)
}

/// An nginx for `app.test` and `other.test` that tells which connection it was asked on, and how that began.
fn nginx(authority: &Authority) -> (Nginx, String) {
    let dir = Dir::new();
    authority.issue(&["app.test", "other.test"]).write(&dir, "server");
    let addr = free_addr().to_string();
    let nginx = Nginx::start_in(
        dir,
        &format!(
            "server {{ listen {addr} ssl; ssl_certificate server.pem; ssl_certificate_key server.key;\n\
             ssl_session_cache builtin; ssl_protocols TLSv1.2 TLSv1.3;\n\
             location / {{ return 200 '$connection $ssl_session_reused $ssl_server_name'; }} }}"
        ),
    );
    (nginx, addr)
}

/// The number of the connection, and whether its session was resumed.
#[track_caller]
fn asked(hopgate: &Hopgate, path: &str) -> (String, bool) {
    let (status, text) = hopgate.get(path);
    assert_eq!(status, 200, "{path}: {text}\n{}", hopgate.log());
    let mut words = text.split(' ');
    let connection = words.next().unwrap_or_default().to_owned();
    (connection, words.next() == Some("r"))
}

/// One location for each of the paths.
fn configuration(top: &str, locations: &[(&str, &str)]) -> String {
    let mut text = format!("workers = 1\n{top}\n[[server]]\nlisten = '127.0.0.1:0'\n");
    for (path, lines) in locations {
        text.push_str(&format!("[[server.location]]\npath = '{path}'\n{lines}\n"));
    }
    text
}

#[test]
fn connections_are_kept_and_those_of_other_settings_or_names_are_never_taken() {
    let (authority, dir, trust) = trusted();
    fs::copy(dir.join("ca.pem"), dir.join("copy.pem")).unwrap();
    let (_nginx, addr) = nginx(&authority);
    let pass = format!("proxy_pass = 'https://{addr}'");
    let named = |name: &str, more: &str| format!("{pass}\nproxy_ssl_name = '{name}'\n{more}");
    let hopgate = Hopgate::start(&configuration(
        &trust,
        &[
            ("/one", &named("app.test", "")),
            (
                "/same",
                &named("app.test", &format!("proxy_ssl_trusted_certificate = '{}'", dir.path("copy.pem"))),
            ),
            ("/name", &named("other.test", "")),
            ("/variable", &named("$arg_name", "")),
            ("/any", &named("app.test", "proxy_ssl_verify = false")),
            ("/silent", &named("app.test", "proxy_ssl_server_name = false")),
            ("/old", &named("app.test", "proxy_ssl_protocols = 'TLSv1.2'")),
            ("/full", &named("app.test", "proxy_ssl_session_reuse = false")),
        ],
    ));
    let connection = |path: &str| asked(&hopgate, path).0;
    let one = connection("/one");
    assert_eq!(connection("/one"), one);
    // The same is believed, whatever the file is called.
    assert_eq!(connection("/same"), one);
    assert_eq!(connection("/variable?name=app.test"), one);
    let mut others = vec![one.clone()];
    for path in ["/name", "/any", "/silent", "/old", "/full"] {
        let other = connection(path);
        assert!(!others.contains(&other), "{path} was sent on the connection of another location");
        assert_eq!(connection(path), other, "{path}");
        others.push(other);
    }
    assert_eq!(connection("/variable?name=other.test"), others[1]);
    assert_eq!(connection("/one"), one);
}

#[test]
fn an_upstream_without_tls_is_not_sent_on_a_connection_with_it() {
    let (authority, _dir, trust) = trusted();
    let (_nginx, addr) = nginx(&authority);
    let hopgate = Hopgate::start(&configuration(
        &trust,
        &[
            ("/tls", &format!("proxy_pass = 'https://{addr}'\nproxy_ssl_name = 'app.test'")),
            ("/plain", &format!("proxy_pass = 'http://{addr}'")),
        ],
    ));
    asked(&hopgate, "/tls");
    // nginx: plain HTTP was sent to its TLS port.
    assert_eq!(hopgate.get("/plain").0, 400);
    asked(&hopgate, "/tls");
}

#[test]
fn sessions_are_resumed_unless_they_shall_not_be_and_over_a_reload() {
    for version in ["TLSv1.2", "TLSv1.3"] {
        let (authority, _dir, trust) = trusted();
        let (_nginx, addr) = nginx(&authority);
        let (_second, second) = nginx(&authority);
        let location =
            |more: &str| format!("proxy_pass = 'https://app'\nproxy_ssl_name = 'app.test'\n{more}");
        let config = |more: &str| {
            configuration(
                &format!(
                    "{trust}\nproxy_ssl_protocols = '{version}'\n[upstream.app]\nserver = ['{addr}', '{second}']\n\
                     keepalive = 0"
                ),
                &[
                    ("/", &location("")),
                    ("/full", &location("proxy_ssl_session_reuse = false")),
                    (
                        "/name",
                        &location("proxy_ssl_name = 'other.test'").replacen(
                            "proxy_ssl_name = 'app.test'",
                            "",
                            1,
                        ),
                    ),
                    ("/more", more),
                ],
            )
        };
        let hopgate = Hopgate::start(&config("return = '404'"));
        let resumed = |path: &str| asked(&hopgate, path).1;
        // The servers of a group do not know the sessions of each other.
        assert_eq!((resumed("/"), resumed("/")), (false, false), "{version}");
        assert_eq!((resumed("/"), resumed("/")), (true, true), "{version}");
        assert_eq!((resumed("/name"), resumed("/name")), (false, false), "{version}");
        for _ in 0..3 {
            assert!(!resumed("/full"), "{version}");
        }
        hopgate.reload_with(&config("return = '403'"));
        assert!(resumed("/") && resumed("/"), "{version}");
    }
}

#[test]
fn a_reload_keeps_connections_whose_settings_stay_and_no_others() {
    let (authority, dir, trust) = trusted();
    let (_nginx, addr) = nginx(&authority);
    let config = |top: &str| {
        let lines = format!("proxy_pass = 'https://{addr}'\nproxy_ssl_name = 'app.test'");
        configuration(top, &[("/", &lines)])
    };
    let hopgate = Hopgate::start(&config(&trust));
    let first = asked(&hopgate, "/").0;
    hopgate.reload_with(&config(&format!("proxy_read_timeout = '7s'\n{trust}")));
    assert_eq!(asked(&hopgate, "/").0, first);
    // What was believed is not any more.
    fs::write(dir.join("other.pem"), Authority::new("another CA").pem()).unwrap();
    hopgate.reload_with(&config(&trust.replace("ca.pem", "other.pem")));
    assert_eq!(hopgate.get("/").0, 502);
    hopgate.wait_for_log("the issuer of its certificate is not trusted (CN=hopgate test CA)");
    // A file that became wrong is a mistake, and what was in use goes on.
    fs::write(dir.join("other.pem"), "nothing").unwrap();
    let said = hopgate.refuse_reload_with(&config(&trust.replace("ca.pem", "other.pem")));
    assert!(said.contains("other.pem"), "{said}");
    // The name of the file stays, and what is in it is another.
    fs::copy(dir.join("ca.pem"), dir.join("other.pem")).unwrap();
    hopgate.reload_with(&config(&trust.replace("ca.pem", "other.pem")));
    assert_ne!(asked(&hopgate, "/").0, first);
}

#[test]
fn an_answer_that_ends_with_its_connection_is_whole_only_with_a_close_notify() {
    let (authority, _dir, trust) = trusted();
    let upstream = TlsUpstream::with(&authority.issue(&["127.0.0.1"]));
    let lines = format!("proxy_pass = 'https://{}'", upstream.addr());
    let hopgate = Hopgate::start(&configuration(&trust, &[("/", &lines)]));
    for is_cut in [false, true] {
        let mut client = hopgate.connect();
        client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
        let mut server = upstream.accept().expect("a handshake");
        assert_eq!(server.told(), (None, Some(&b"http/1.1"[..])));
        server.head();
        server.send("HTTP/1.1 200 OK\r\n\r\nthe answer");
        client.head();
        client.expect("the answer");
        if is_cut {
            server.cut();
            assert_eq!(client.read_to_end().1, Ending::Reset);
            hopgate.wait_for_log("the body of the upstream's answer breaks its framing");
        } else {
            server.close();
            client.expect_eof();
        }
    }
    // To a client of HTTP/1.1 it goes in chunks, of which the last one is missing.
    let mut client = hopgate.connect();
    client.send(GET);
    let mut server = upstream.accept().expect("a handshake");
    server.head();
    server.send("HTTP/1.1 200 OK\r\n\r\nthe answer");
    client.head();
    client.expect_chunked("the answer");
    server.cut();
    client.expect_reset();
}

#[test]
fn a_server_that_closes_before_it_answers_is_asked_again_on_another_connection_if_that_was_kept() {
    let (authority, _dir, trust) = trusted();
    let upstream = TlsUpstream::with(&authority.issue(&["127.0.0.1"]));
    let lines = format!("proxy_pass = 'https://{}'", upstream.addr());
    let hopgate = Hopgate::start(&configuration(&trust, &[("/", &lines)]));
    let mut client = hopgate.connect();
    client.send(GET);
    let mut server = upstream.accept().expect("a handshake");
    server.head();
    server.respond("one");
    client.expect_status(200);
    // The request is on its way into a connection that the server has given up.
    client.send(GET);
    server.head();
    server.cut();
    let mut server = upstream.accept().expect("a handshake");
    server.head();
    server.respond("two");
    assert_eq!(client.expect_status(200).text(), "two");
    // On a new one it is a failure.
    server.cut();
    client.send(GET);
    let mut server = upstream.accept().expect("a handshake");
    server.head();
    server.cut();
    client.expect_status(502);
    hopgate.wait_for_log("the upstream closed the connection before it had answered");
}

#[test]
fn a_tunnel_goes_over_tls_byte_for_byte_and_ends_as_any_other() {
    let (authority, _dir, trust) = trusted();
    let upstream = TlsUpstream::with(&authority.issue(&["app.test"]));
    let lines = format!("proxy_pass = 'https://{}'\nproxy_ssl_name = 'app.test'", upstream.addr());
    let hopgate = Hopgate::start(&configuration(&trust, &[("/", &lines)]));
    let mut client = hopgate.connect();
    client.send(handshake("/chat"));
    client.send("early");
    let mut server = upstream.accept().expect("a handshake");
    assert_eq!(server.told(), (Some("app.test"), Some(&b"http/1.1"[..])));
    server.head().expect(&["Upgrade: websocket", "Connection: Upgrade"]);
    server.send(format!("{}welcome", switching()));
    client.expect_status(101);
    client.expect("welcome");
    assert_eq!(server.read(5), b"early");
    let (up, down) = (Noise::seeded(1).take(300_000), Noise::seeded(2).take(300_000));
    let mut sender = client.another();
    let got = std::thread::scope(|scope| {
        scope.spawn(|| sender.send(&up));
        server.read(up.len())
    });
    assert_same_bytes("up", &up, &got);
    let got = std::thread::scope(|scope| {
        scope.spawn(|| server.send(&down));
        client.read(down.len())
    });
    assert_same_bytes("down", &down, &got);
    client.finish();
    server.expect_end();
    server.send("last words");
    client.expect("last words");
    server.close();
    client.expect_eof();
    hopgate.wait_for_access("cause=client_closed");
}

#[test]
fn a_websocket_of_a_real_app_behind_tls_is_tunnelled_and_bodies_arrive_whole() {
    let (authority, dir, trust) = trusted();
    authority.issue(&["app.test"]).write(&dir, "server");
    let app = NodeApp::secure(&[&dir.path("server.pem"), &dir.path("server.key")]);
    let lines = format!("proxy_pass = 'https://{}'\nproxy_ssl_name = 'app.test'", app.addr());
    let hopgate = Hopgate::start(&configuration(&trust, &[("/", &lines)]));
    let mut client = hopgate.connect();
    client.send(handshake("/"));
    client.expect_status(101);
    for text in ["hello", &"long ".repeat(2000)] {
        client.send(text_frame(text));
        assert_eq!(read_text(&mut client), text);
    }
    let body = Noise::seeded(3).take(1 << 20);
    let mut client = hopgate.connect();
    let mut sender = client.another();
    let answer = std::thread::scope(|scope| {
        scope.spawn(|| {
            sender.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len()));
            sender.send(&body);
        });
        client.expect_status(200)
    });
    assert_same_bytes("body", &body, &answer.body);
}

#[test]
fn explain_tells_the_tls_side_of_an_upstream() {
    let (_authority, dir, trust) = trusted();
    let config = configuration(
        &trust,
        &[
            ("/file", "proxy_pass = 'https://app.example.com'"),
            ("/any", "proxy_pass = 'https://10.0.0.1'\nproxy_ssl_verify = false"),
            (
                "/name",
                "proxy_pass = 'https://10.0.0.1'\nproxy_ssl_name = '$host'\nproxy_ssl_server_name = false",
            ),
            ("/plain", "proxy_pass = 'http://10.0.0.1'"),
        ],
    );
    fs::write(dir.join("hopgate.toml"), config).unwrap();
    let explain = |path: &str, args: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_hopgate"))
            .args(["explain", "--config", "hopgate.toml"])
            .args(args)
            .arg(format!("http://a.test{path}"))
            .current_dir(&dir)
            .output()
            .expect("hopgate can be run");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    for (path, lines) in [
        (
            "/file",
            &[
                "TLS: its certificate must be for app.example.com",
                "by a CA of `proxy_ssl_trusted_certificate`  hopgate.toml:2",
                "it is told the name app.example.com (SNI)",
            ][..],
        ),
        (
            "/any",
            &[
                "TLS: any certificate is taken, `proxy_ssl_verify` is off  hopgate.toml:11",
                "it is told no name",
            ],
        ),
        ("/name", &["TLS: its certificate must be for a.test  hopgate.toml:15", "it is told no name (SNI)"]),
    ] {
        let text = explain(path, &[]);
        for line in lines {
            assert!(text.contains(line), "{path}\nexpected: {line}\n     got: {text}");
        }
    }
    assert!(!explain("/plain", &[]).contains("TLS"));
    let json = explain("/name", &["--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let tls = &json["upstream"]["tls"];
    assert_eq!(
        (&tls["verify"], &tls["name"], &tls["server_name"]),
        (&true.into(), &"a.test".into(), &false.into())
    );
    let json: serde_json::Value = serde_json::from_str(&explain("/plain", &["--json"])).expect("JSON");
    assert!(json["upstream"]["tls"].is_null());
}
