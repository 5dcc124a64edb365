//! What an answer of the upstream sends on to another location, and what of a request goes upstream.

mod support;

use support::{Hopgate, Peer, Upstream};

#[test]
fn x_accel_redirect_sends_the_request_on_as_nginx_does() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::start(&accelerated(upstream.addr(), ""));
    let go = |method: &str, to: &str| {
        let (mut client, mut server) = asked(
            &hopgate,
            &upstream,
            &format!("{method} /app HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"),
        );
        server.send(format!(
            "HTTP/1.1 200 OK\r\nX-Accel-Redirect: {to}\r\nContent-Type: text/blah\r\nSet-Cookie: a=b; Path=/\r\n\
             Cache-Control: no-cache\r\nContent-Disposition: attachment\r\nSomething: else\r\nContent-Length: 0\r\n\r\n"
        ));
        (client.response(), client, server)
    };
    let (response, mut client, mut server) = go("GET", "/inside/a%20b?c=d");
    assert_eq!((response.status, &*response.text()), (200, "GET /inside/a b c=d /inside/a%20b?c=d"));
    response.head.expect(&[
        "Content-Type: text/blah",
        "Set-Cookie: a=b; Path=/app/",
        "Cache-Control: no-cache",
        "Content-Disposition: attachment",
    ]);
    response.head.expect_none_of(&["Something", "X-Accel-Redirect"]);
    // Both connections go on.
    client.send("GET /app HTTP/1.1\r\nHost: a\r\n\r\n");
    server.expect_head("GET /app HTTP/1.1", &[]);

    assert_eq!(go("POST", "/inside/x").0.text(), "GET /inside/x  /inside/x");
    assert_eq!(go("POST", "@named").0.text(), "named POST /app");
    for unsafe_path in ["..", "/inside/../x", "/inside/%2e%2e/x", "/inside/..", "inside", "", "http://a/"] {
        assert_eq!(go("GET", unsafe_path).0.status, 404, "{unsafe_path}");
    }
}

#[test]
fn x_accel_redirect_can_be_ignored_and_then_goes_nowhere() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::start(&accelerated(upstream.addr(), "proxy_ignore_headers = 'X-Accel-Redirect'"));
    let (mut client, mut server) = asked(&hopgate, &upstream, "GET /app HTTP/1.1\r\nHost: a\r\n\r\n");
    server.send("HTTP/1.1 200 OK\r\nX-Accel-Redirect: /inside/x\r\nContent-Length: 2\r\n\r\nme");
    let response = client.expect_status(200);
    assert_eq!(response.text(), "me");
    response.head.expect_none_of(&["X-Accel-Redirect"]);
}

fn accelerated(upstream: &str, lines: &str) -> String {
    format!(
        r#"
        workers = 1
        [[server]]
        listen = "127.0.0.1:0"
        [[server.location]]
        path = "/app"
        proxy_pass = "http://{upstream}"
        proxy_cookie_path = "/ /app/"
        {lines}
        [[server.location]]
        path = "/inside/"
        internal = true
        return = "200 '$request_method $uri $args $upstream_http_x_accel_redirect'"
        [[server.location]]
        path = "@named"
        return = "200 'named $request_method $uri'"
        "#
    )
}

#[test]
fn method_fields_and_body_are_sent_upstream_as_the_location_says() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::start(&format!(
        r#"
        workers = 1
        [[server]]
        listen = "127.0.0.1:0"
        [[server.location]]
        path = "/method"
        proxy_pass = "http://{0}"
        proxy_method = "$arg_m"
        [[server.location]]
        path = "/bare"
        proxy_pass = "http://{0}"
        proxy_pass_request_headers = false
        proxy_pass_request_body = false
        proxy_set_header = {{ X-Set = "1" }}
        "#,
        upstream.addr()
    ));
    let mut client = hopgate.connect();
    client.send("GET /method?m=PURGE HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut server = upstream.accept();
    server.expect_head("PURGE /method?m=PURGE HTTP/1.1", &[]);
    server.respond("x");
    client.expect_status(200);
    for (target, method) in [("/method", "GET"), ("/method?m=a(b", "GET"), ("/method?m=TRACE", "GET")] {
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        server.expect_head(&format!("{method} {target} HTTP/1.1"), &[]);
        server.respond("x");
        client.expect_status(200);
    }
    // Asked with HEAD for a GET: there is no body to come, and none is announced.
    client.send("GET /method?m=HEAD HTTP/1.1\r\nHost: a\r\n\r\n");
    server.expect_head("HEAD /method?m=HEAD HTTP/1.1", &[]);
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: 1\r\n\r\n");
    let response = client.expect_status(200);
    response.head.expect(&["Content-Length: 0", "X-A: 1"]);
    // The body goes nowhere, and both connections go on.
    client.send("POST /bare HTTP/1.1\r\nHost: a\r\nX-Own: 1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
    let head = server.expect_head("POST /bare HTTP/1.1", &["Host: a", "X-Set: 1", "X-Real-IP: 127.0.0.1"]);
    head.expect_none_of(&["X-Own", "Transfer-Encoding", "Content-Length", "Expect"]);
    server.respond("y");
    assert_eq!(client.expect_status(200).text(), "y");
    client.send("GET /method HTTP/1.1\r\nHost: a\r\n\r\n");
    server.expect_head("GET /method HTTP/1.1", &[]);
    server.respond("z");
    assert_eq!(client.expect_status(200).text(), "z");
    // Asked with GET for a HEAD: its body is not the client's.
    client.send("HEAD /method?m=GET HTTP/1.1\r\nHost: a\r\n\r\n");
    server.expect_head("GET /method?m=GET HTTP/1.1", &[]);
    server.respond("body");
    client.expect_head("HTTP/1.1 200 OK", &["Content-Length: 4"]);
    client.send("GET /method HTTP/1.1\r\nHost: a\r\n\r\n");
    upstream.accept().respond_and_close("next");
    assert_eq!(client.expect_status(200).text(), "next");
}

/// A client whose request has reached the upstream.
#[track_caller]
fn asked(hopgate: &Hopgate, upstream: &Upstream, request: &str) -> (Peer, Peer) {
    let mut client = hopgate.connect();
    client.send(request);
    let mut server = upstream.accept();
    server.head();
    (client, server)
}

#[test]
fn error_pages_that_fail_themselves_come_to_an_end() {
    let hopgate = Hopgate::start(
        "recursive_error_pages = true\n[[server]]\nlisten = '127.0.0.1:0'\nerror_page = '404 500 /page'\n\
         [[server.location]]\npath = '/page'\nreturn = '500'\n\
         [[server.location]]\npath = '/named'\nerror_page = '404 500 = @one'\nreturn = '404'\n\
         [[server.location]]\npath = '@one'\nerror_page = '404 500 = @other'\nreturn = '500'\n\
         [[server.location]]\npath = '@other'\nerror_page = '404 500 = @one'\nreturn = '404'\n\
         [[server.location]]\npath = '/well'\nreturn = \"200 'well'\"\n",
    );
    for path in ["/page", "/missing", "/named"] {
        assert_eq!(hopgate.get(path).0, 500, "{path}");
    }
    assert_eq!(hopgate.get("/well"), (200, "well".to_owned()));
}
