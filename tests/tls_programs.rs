//! Programs that speak TLS with hopgate, before a real app that knows neither TLS nor HTTP/2.

mod support;

use std::fs;
use std::net::SocketAddr;

use support::{
    Authority, Dir, Hopgate, Http2, Nginx, NodeApp, Noise, TlsClient, assert_same_bytes, free_addr,
    handshake, read_text, run_client, run_node_script_trusting, text_frame,
};

/// One server with a certificate for `app.test` and `localhost`, in front of an app; its directory has `ca.pem`.
fn in_front_of(authority: &Authority, addr: &str, top: &str) -> (Hopgate, Dir) {
    let dir = Dir::new();
    authority.issue(&["app.test", "localhost"]).write(&dir, "app");
    fs::write(dir.join("ca.pem"), authority.pem()).unwrap();
    let hopgate = Hopgate::start(&format!(
        "workers = 1\n{top}\n[[server]]\nlisten = '127.0.0.1:0 ssl'\nssl_certificate = '{}'\nssl_certificate_key = '{}'\n\
         [[server.location]]\npath = '/'\nproxy_pass = 'http://{addr}'\n",
        dir.path("app.pem"),
        dir.path("app.key")
    ));
    (hopgate, dir)
}

#[test]
fn websockets_of_a_real_app_go_over_tls() {
    let authority = Authority::new("hopgate test CA");
    let app = NodeApp::start();
    let (hopgate, _dir) = in_front_of(&authority, app.addr(), "");
    let mut client = TlsClient::of(&authority, "app.test").open(hopgate.addr());
    client.send(handshake("/plain"));
    client.expect_status(101);
    for text in ["hello".to_owned(), "x".repeat(60_000)] {
        client.send(text_frame(&text));
        assert_eq!(read_text(&mut client), text);
    }
    // And the same over HTTP/2, RFC 8441.
    let client = TlsClient::of(&authority, "app.test").offering(&["h2"]).open(hopgate.addr());
    let mut client = Http2::over_tls(client, "app.test");
    assert!(client.knows_extended_connect());
    let mut stream = client.open_websocket("/plain", &[("origin", "https://app.test")]);
    assert_eq!(stream.head().status, 200);
    stream.send(text_frame("over HTTP/2"));
    stream.expect([&[0x81, 11][..], b"over HTTP/2"].concat());
}

#[test]
fn downloads_and_uploads_of_any_framing_arrive_whole() {
    let authority = Authority::new("hopgate test CA");
    let app = NodeApp::start();
    let (hopgate, _dir) = in_front_of(&authority, app.addr(), "client_max_body_size = '64m'");
    let plain = Hopgate::start(&format!(
        "[[server]]\nlisten = '127.0.0.1:0'\n[[server.location]]\npath = '/'\nproxy_pass = 'http://{}'",
        app.addr()
    ));
    let client = TlsClient::of(&authority, "app.test").offering(&["h2", "http/1.1"]);
    let mut http2 = Http2::over_tls(client.open(hopgate.addr()), "app.test");
    let mut http1 = TlsClient::of(&authority, "app.test").open(hopgate.addr());
    for path in ["/download/length/9000001", "/download/chunked/3000001", "/download/length/0"] {
        let mut beside = plain.connect();
        beside.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let expected = beside.expect_status(200).body;
        http1.send(format!("GET {path} HTTP/1.1\r\nHost: app.test\r\n\r\n"));
        assert_same_bytes(path, &expected, &http1.expect_status(200).body);
        assert_same_bytes(path, &expected, &http2.get(path).expect_status(200).body);
    }
    let body = Noise::seeded(5).take(9_000_001);
    let answer = http2.post("/upload", &body).expect_status(200).text();
    http1.send(format!("POST /upload HTTP/1.1\r\nHost: app.test\r\nContent-Length: {}\r\n\r\n", body.len()));
    http1.send(&body);
    let over_http1 = http1.expect_status(200).text();
    for answer in [answer, over_http1] {
        assert!(answer.contains("9000001"), "{answer}");
    }
}

#[test]
fn curl_goes_both_ways_in_every_version() {
    let authority = Authority::new("hopgate test CA");
    let app = NodeApp::start();
    let (hopgate, dir) = in_front_of(&authority, app.addr(), "client_max_body_size = '64m'");
    let body = Noise::seeded(8).take(3_000_001);
    fs::write(dir.join("body"), &body).unwrap();
    let curl = |args: &[&str]| {
        let port = hopgate.addr().port();
        let (ca, resolve) = (dir.path("ca.pem"), format!("app.test:{port}:127.0.0.1"));
        let args: Vec<_> =
            args.iter().map(|arg| arg.replace("ORIGIN", &format!("https://app.test:{port}"))).collect();
        let args = args.iter().map(String::as_str);
        let fixed = ["-sS", "--max-time", "20", "--cacert", &ca, "--resolve", &resolve];
        let (is_content, said) = run_client("curl", &fixed.into_iter().chain(args).collect::<Vec<_>>(), "");
        assert!(is_content, "{said}");
        said
    };
    let (out, file) = (dir.path("out"), dir.path("body"));
    for http in ["--http2", "--http1.1"] {
        for tls in [&["--tlsv1.3"][..], &["--tls-max", "1.2"]] {
            for path in ["/download/length/3000001", "/download/chunked/3000001"] {
                let url = format!("ORIGIN{path}");
                let version =
                    curl(&[&[http, "-o", &out, "-w", "%{http_version} %{http_code}", &url], tls].concat());
                assert_eq!(version, if http == "--http2" { "2 200" } else { "1.1 200" });
                assert_eq!(fs::read(&out).unwrap().len(), 3_000_001);
            }
            curl(&[&[http, "-o", &out, "--data-binary", &format!("@{file}"), "ORIGIN/echo"], tls].concat());
            assert_same_bytes(http, &body, &fs::read(&out).unwrap());
            curl(
                &[&[http, "-o", &out, "-X", "POST", "-T", &file, "-H", "Expect:", "ORIGIN/echo"], tls]
                    .concat(),
            );
            assert_same_bytes(http, &body, &fs::read(&out).unwrap());
        }
    }
}

#[test]
fn h2load_asks_much_at_once() {
    let authority = Authority::new("hopgate test CA");
    let app = NodeApp::start();
    let (hopgate, _dir) = in_front_of(&authority, app.addr(), "");
    let url = format!("https://{}/download/length/1000", hopgate.addr());
    for more in [&["-m20"][..], &["--h1"]] {
        let args = [&["-n500", "-c5"], more, &[&url]].concat();
        let (is_content, said) = run_client("h2load", &args, "");
        assert!(is_content && said.contains("500 succeeded, 0 failed, 0 errored"), "{said}");
    }
}

#[test]
fn the_websockets_of_node_go_over_tls() {
    let authority = Authority::new("hopgate test CA");
    let app = NodeApp::start();
    let (hopgate, dir) = in_front_of(&authority, app.addr(), "");
    let url = format!("https://localhost:{}", hopgate.addr().port());
    run_node_script_trusting("ws-client.js", &url, &dir.path("ca.pem"));
}

#[test]
fn nginx_in_front_resumes_its_session() {
    if !Nginx::is_installed() {
        return;
    }
    let authority = Authority::new("hopgate test CA");
    let app = NodeApp::start();
    let log =
        "log_format = { t = '$ssl_server_name $ssl_session_reused $status $arg_n' }\naccess_log = 'stdout t'";
    let (hopgate, dir) = in_front_of(&authority, app.addr(), log);
    let addr: SocketAddr = free_addr();
    let _nginx = Nginx::start_in(
        Dir::new(),
        &format!(
            "server {{ listen {addr}; location / {{ proxy_pass https://{}; proxy_ssl_verify on; proxy_ssl_name app.test;\n\
             proxy_ssl_server_name on; proxy_ssl_trusted_certificate {}; }} }}",
            hopgate.addr(),
            dir.path("ca.pem")
        ),
    );
    for (number, reused) in [".", "r"].into_iter().enumerate() {
        let url = format!("http://{addr}/json?n={number}");
        let (is_content, said) =
            run_client("curl", &["-sS", "-o", "/dev/null", "-w", "%{http_code}", &url], "");
        assert!(is_content && said == "200", "{said}");
        hopgate.wait_for_access(&format!("app.test {reused} 200 {number}"));
    }
}
