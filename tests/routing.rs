//! Which upstream a request goes to, and with which target: rules R29 and R30, server names, every kind of address.

mod support;

use support::{App, Dir, Hopgate, Upstream};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn r29_absolute_form_becomes_origin_form_and_its_authority_is_the_host() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);
    // (target, Host as sent, target upstream, Host upstream)
    let rows = [
        ("http://example.org/x?y", "example.org", "/x?y", "example.org"),
        ("http://example.org:81/x", "example.org:81", "/x", "example.org:81"),
        ("HTTP://example.org", "example.org", "/", "example.org"),
        ("http://example.org?q", "example.org", "/?q", "example.org"),
        ("http://example.org/x", "other.org", "/x", "example.org"),
    ];
    for (target, host, path, authority) in rows {
        println!("row: {target} {host}");
        let mut client = hopgate.connect();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        let mut server = upstream.accept();
        let head = server.expect_head(&format!("GET {path} HTTP/1.1"), &[&format!("Host: {authority}")]);
        assert_eq!(head.field("X-Forwarded-Host"), Some(authority));
        server.respond_and_close("");
        client.expect_status(200);
    }
}

#[test]
fn options_of_the_whole_server_is_passed_on() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);

    let mut client = hopgate.connect();
    client.send("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut server = upstream.accept();
    server.expect_head("OPTIONS * HTTP/1.1", &["Host: a"]);
    server.respond("");
    client.expect_status(200);
}

#[test]
fn r30_the_upstream_gets_the_path_that_was_matched() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::start(&format!(
        r#"
        workers = 1
        [[server]]
        listen = "127.0.0.1:0"

        [[server.location]]
        path = "/open/"
        proxy_pass = "http://{0}"

        [[server.location]]
        path = "/mapped/"
        proxy_pass = "http://{0}/v1/"

        [[server.location]]
        path = "= /exact"
        proxy_pass = "http://{0}/other"
        "#,
        upstream.addr()
    ));
    // (target, target upstream or the status of a refusal)
    let rows = [
        ("/open/", Ok("/open/")),
        ("/open/a%20b?c=%2F%00", Ok("/open/a%20b?c=%2F%00")),
        ("/open//x", Ok("/open//x")),
        ("/open/%61%7Eb", Ok("/open/a~b")),
        ("/open/a/../b/./c", Ok("/open/b/c")),
        ("/x/../open/b", Ok("/open/b")),
        ("/open/a/%2e%2E/b", Ok("/open/b")),
        ("/open/../secret", Err(404)),
        ("/open/%2e%2e/secret", Err(404)),
        ("/mapped/a?b", Ok("/v1/a?b")),
        ("/mapped/", Ok("/v1/")),
        ("/mapped/../exact", Ok("/other")),
        ("/exact?q", Ok("/other?q")),
        ("/exact/x", Err(404)),
        ("/opens", Err(404)),
        ("/open/a%2Fb", Err(400)),
        ("/open/a%2fb", Err(400)),
        ("/open/a%5Cb", Err(400)),
        ("/open/a%00b", Err(400)),
        ("/open/a%", Err(400)),
        ("/open/a%4", Err(400)),
        ("/open/a%zz", Err(400)),
        ("/open/a\\b", Err(400)),
        ("/open/a#b", Err(400)),
        ("/open/a\x01b", Err(400)),
        ("/open/a\x7fb", Err(400)),
        ("/../x", Err(400)),
        ("/open/../../x", Err(400)),
    ];
    for (target, expected) in rows {
        println!("row: {target:?}");
        let mut client = hopgate.connect();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
        match expected {
            Ok(path) => {
                let mut server = upstream.accept();
                server.expect_head(&format!("GET {path} HTTP/1.1"), &[]);
                server.respond_and_close("");
                client.expect_status(200);
            }
            Err(status) => {
                client.expect_status(status);
            }
        }
    }
    upstream.expect_no_connection(&hopgate);
}

#[test]
fn r30_encoded_slashes_pass_untouched_where_they_are_allowed() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::with_server(&upstream, r#"encoded_slashes = "pass""#);

    let mut client = hopgate.connect();
    client.send("GET /a%2Fb%5cc HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut server = upstream.accept();
    server.expect_head("GET /a%2Fb%5cc HTTP/1.1", &[]);
    server.respond("");
    client.expect_status(200);
}

#[test]
fn requests_are_routed_by_host_and_by_the_longest_prefix() {
    let apps = ["first", "second", "deep", "exact", "wild"].map(App::named);
    let [first, second, deep, exact, wild] = apps.each_ref().map(App::addr);
    // The address is named several times, so its port must be known.
    let addr = support::free_addr();
    let hopgate = Hopgate::start(&format!(
        r#"
        workers = 1
        [[server]]
        listen = ["{addr}"]
        server_name = "first.example"
        location = [{{ path = "/", proxy_pass = "http://{first}" }}]

        [[server]]
        listen = ["{addr}"]
        server_name = ["second.example"]
        location = [
            {{ path = "/", proxy_pass = "http://{second}" }},
            {{ path = "/deep/", proxy_pass = "http://{deep}" }},
            {{ path = "= /deep/", proxy_pass = "http://{exact}" }},
        ]

        [[server]]
        listen = ["{addr}"]
        server_name = ["*.example"]
        location = [{{ path = "/", proxy_pass = "http://{wild}" }}]
        "#
    ));
    let rows = [
        ("first.example", "/deep/", "first"),
        ("FIRST.EXAMPLE:80", "/", "first"),
        ("second.example", "/", "second"),
        ("second.example", "/deepest", "second"),
        ("second.example", "/deep/x", "deep"),
        ("second.example", "/deep/", "exact"),
        ("other.example", "/", "wild"),
        ("a.b.example", "/", "wild"),
        ("unknown", "/", "first"),
    ];
    for (host, path, name) in rows {
        let mut client = hopgate.connect_to(addr);
        client.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(client.expect_status(200).text(), name, "{host} {path}");
    }
}

#[test]
fn quick_mode_needs_no_file() {
    let app = App::named("quick");
    let url = format!("http://{}", app.addr());
    let hopgate = Hopgate::quick(&["run", "--listen", "127.0.0.1:0", "--upstream", &url, "--workers", "1"]);
    assert_eq!(hopgate.get("/anything"), (200, "quick".to_owned()));
}

#[test]
fn unix_sockets_are_listened_on_and_connected_to() {
    let dir = Dir::new();
    let upstream = Upstream::listen_unix(&dir.join("app.sock"));
    let hopgate = Hopgate::start(&format!(
        r#"
        workers = 1
        [[server]]
        listen = ["127.0.0.1:0", "unix:{front}"]
        [[server.location]]
        path = "/"
        proxy_pass = "http://{back}"
        [[server.location]]
        path = "/v/"
        proxy_pass = "http://{back}:/w/"
        "#,
        front = dir.path("front.sock"),
        back = upstream.addr(),
    ));
    assert!(hopgate.listening().contains(&format!("unix:{}", dir.path("front.sock"))));

    for (path, forwarded) in [("/x", "/x"), ("/v/x", "/w/x")] {
        let mut client = hopgate.connect_unix(&dir.join("front.sock"));
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let mut server = upstream.accept();
        server.expect_head(&format!("GET {forwarded} HTTP/1.1"), &["Host: a"]);
        server.respond_and_close("by path");
        assert_eq!(client.expect_status(200).text(), "by path");
    }
}

#[test]
fn every_listen_address_serves_ipv6_too() {
    let app = App::named("six");
    let hopgate = Hopgate::start(&format!(
        r#"
        workers = 2
        [[server]]
        listen = ["127.0.0.1:0", "[::1]:0"]
        location = [{{ path = "/", proxy_pass = "http://{}" }}]
        "#,
        app.addr()
    ));
    let addrs = hopgate.listening();
    assert_eq!(addrs.len(), 2, "{addrs:?}");
    for addr in addrs {
        let mut client = hopgate.connect_to(addr.parse().expect("an address"));
        client.send(GET);
        assert_eq!(client.expect_status(200).text(), "six");
    }
}

#[test]
fn r31_a_path_that_a_rewrite_leads_out_of_its_part_is_refused() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::start(&format!(
        r#"
        workers = 1
        [[server]]
        listen = "127.0.0.1:0"
        [[server.location]]
        path = "/api"
        proxy_pass = "http://{0}/public/"
        [[server.location]]
        path = "/one"
        proxy_pass = "http://{0}/two?x=1"
        "#,
        upstream.addr()
    ));
    for path in ["/api../admin", "/api%2e%2e/admin", "/api..", "/api./x", "/api%2E/x"] {
        println!("row: {path}");
        let mut client = hopgate.connect();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        client.expect_status(400);
    }
    upstream.expect_no_connection(&hopgate);
    for (path, sent) in [
        ("/api/x", "/public//x"),
        ("/apix", "/public/x"),
        ("/api.x", "/public/.x"),
        ("/one/b?c=2", "/two/b?x=1&c=2"),
        ("/one", "/two?x=1"),
    ] {
        println!("row: {path}");
        let mut client = hopgate.connect();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
        let mut server = upstream.accept();
        server.expect_head(&format!("GET {sent} HTTP/1.1"), &[]);
        server.respond_and_close("");
        client.expect_status(200);
    }
}

#[test]
fn options_of_an_absolute_target_without_a_path_is_about_the_whole_server() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);
    let mut client = hopgate.connect();
    client.send("OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n");
    upstream.accept().expect_head("OPTIONS * HTTP/1.1", &["Host: a"]);
}
