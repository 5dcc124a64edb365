//! Error pages: which answer comes instead of an error, beside nginx on a file that says the same.

mod support;

use support::{Hopgate, Pair, Teller, Upstream, ask};

#[test]
fn error_pages_answer_as_in_nginx() {
    Pair::start(
        "server { listen LISTEN;
            location = /page { return 200 'page $uri $args $request_uri $request_method'; }
            location = /page404 { return 404 'inner'; }
            location = /204 { return 204; }
            location = /405 { return 405; }
            location = /to { return 302 /elsewhere; }
            location /404 { error_page 404 /page; return 404; }
            location /query { error_page 404 /page?from=$uri; return 404; }
            location /200 { error_page 404 =200 /page; return 404; }
            location /own { error_page 404 = /page; return 404; }
            location /own404 { error_page 404 = /page404; return 404; }
            location /keep { error_page 404 =410 /page404; return 404; }
            location /405to204 { error_page 405 /204; return 405; }
            location /url { error_page 404 http://example.com/; return 404; }
            location /url301 { error_page 404 =301 http://example.com/$arg_x; return 404; }
            location /url200 { error_page 404 =200 http://example.com/; return 404; }
            location /named { error_page 404 @named; return 404; }
            location /named200 { error_page 404 = @named; return 404; }
            location /namedfixed { error_page 404 =201 @named; return 404; }
            location @named { return 200 'named $uri $args $request_method'; }
            location /proxied { error_page 404 = @proxied; return 404; }
            location @proxied { proxy_pass http://APP; }
            location /proxieduri { error_page 404 = /up/x; return 404; }
            location /up { proxy_pass http://APP; }
            location /302 { error_page 302 /page; return 302 first; }
            location /302url { error_page 302 http://example.com/; return 302 first; }
            location /to302 { error_page 404 /to; return 404; }
            location /to302own { error_page 404 = /to; return 404; }
            location /rewritten { error_page 404 /re; return 404; }
            location /re { rewrite ^ /page last; }
            location /many { error_page 403 404 =200 /page; error_page 500 502 /204; if ($arg_s = 403) { return 403; } if ($arg_s = 500) { return 500; } return 404; }
            location /missing { error_page 404 /not/there; return 404; }
            location /text { error_page 404 /page; return 404 'text'; }
            location /internal { internal; return 200 'internal $uri'; }
            location /tointernal { error_page 404 =200 /internal; return 404; }
            location /reinternal { rewrite ^ /internal last; }
            location /twice { error_page 404 /twice2; return 404; }
            location /twice2 { error_page 403 /page; return 403; }
            location /recursive { recursive_error_pages on; error_page 404 /recursive2; return 404; }
            location /recursive2 { error_page 403 /page; return 403; }
            location /endless { recursive_error_pages on; error_page 404 /endless; return 404; }
        }",
        r#"
        [[server]]
        listen = "LISTEN"
        location = [
            { path = "= /page", return = "200 'page $uri $args $request_uri $request_method'" },
            { path = "= /page404", return = "404 inner" },
            { path = "= /204", return = "204" },
            { path = "= /405", return = "405" },
            { path = "= /to", return = "302 /elsewhere" },
            { path = "/404", error_page = "404 /page", return = "404" },
            { path = "/query", error_page = "404 /page?from=$uri", return = "404" },
            { path = "/200", error_page = "404 =200 /page", return = "404" },
            { path = "/own", error_page = "404 = /page", return = "404" },
            { path = "/own404", error_page = "404 = /page404", return = "404" },
            { path = "/keep", error_page = "404 =410 /page404", return = "404" },
            { path = "/405to204", error_page = "405 /204", return = "405" },
            { path = "/url", error_page = "404 http://example.com/", return = "404" },
            { path = "/url301", error_page = "404 =301 http://example.com/$arg_x", return = "404" },
            { path = "/url200", error_page = "404 =200 http://example.com/", return = "404" },
            { path = "/named", error_page = "404 @named", return = "404" },
            { path = "/named200", error_page = "404 = @named", return = "404" },
            { path = "/namedfixed", error_page = "404 =201 @named", return = "404" },
            { path = "@named", return = "200 'named $uri $args $request_method'" },
            { path = "/proxied", error_page = "404 = @proxied", return = "404" },
            { path = "@proxied", proxy_pass = "http://APP" },
            { path = "/proxieduri", error_page = "404 = /up/x", return = "404" },
            { path = "/up", proxy_pass = "http://APP" },
            { path = "/302", error_page = "302 /page", return = "302 first" },
            { path = "/302url", error_page = "302 http://example.com/", return = "302 first" },
            { path = "/to302", error_page = "404 /to", return = "404" },
            { path = "/to302own", error_page = "404 = /to", return = "404" },
            { path = "/rewritten", error_page = "404 /re", return = "404" },
            { path = "/re", rewrite = "^ /page last" },
            { path = "/many", error_page = ["403 404 =200 /page", "500 502 /204"], rewrite = [{ if = "$arg_s = 403", return = "403" }, { if = "$arg_s = 500", return = "500" }], return = "404" },
            { path = "/missing", error_page = "404 /not/there", return = "404" },
            { path = "/text", error_page = "404 /page", return = "404 text" },
            { path = "/internal", internal = true, return = "200 'internal $uri'" },
            { path = "/tointernal", error_page = "404 =200 /internal", return = "404" },
            { path = "/reinternal", rewrite = "^ /internal last" },
            { path = "/twice", error_page = "404 /twice2", return = "404" },
            { path = "/twice2", error_page = "403 /page", return = "403" },
            { path = "/recursive", recursive_error_pages = true, error_page = "404 /recursive2", return = "404" },
            { path = "/recursive2", error_page = "403 /page", return = "403" },
            { path = "/endless", recursive_error_pages = true, error_page = "404 /endless", return = "404" },
        ]
        "#,
    )
    .expect(&[
        ("/404/x?q", "404 page /page  /404/x?q GET"),
        ("/query/x?q", "404 page /page from=/query/x /query/x?q GET"),
        ("/200", "200 page /page  /200 GET"),
        ("/own", "200 page /page  /own GET"),
        ("/own404", "404 inner"),
        ("/keep", "410 inner"),
        ("/405to204", "405"),
        ("/url", "302 -> http://example.com/"),
        ("/url301?x=y", "301 -> http://example.com/y"),
        ("/url200", "302 -> http://example.com/"),
        ("/named/x?q", "404 named /named/x q GET"),
        ("/named200/x?q", "200 named /named200/x q GET"),
        ("/namedfixed", "201 named /namedfixed  GET"),
        ("/proxied/x?q", "200 GET /proxied/x?q"),
        ("/proxieduri?q", "200 GET /up/x"),
        ("/302", "302 -> first page /page  /302 GET"),
        ("/302url", "302 -> http://example.com/"),
        ("/to302", "302 -> http://a:PORT/elsewhere"),
        ("/to302own", "302 -> http://a:PORT/elsewhere"),
        ("/rewritten", "404 page /page  /rewritten GET"),
        ("/many", "200 page /page  /many GET"),
        ("/many?s=403", "200 page /page  /many?s=403 GET"),
        ("/many?s=500", "500"),
        ("/missing", "404"),
        ("/text", "404 text"),
        ("/internal", "404"),
        ("/tointernal", "200 internal /internal"),
        ("/reinternal", "200 internal /internal"),
        ("/twice", "403"),
        ("/recursive", "403 page /page  /recursive GET"),
        ("/endless", "500"),
        ("POST /404 Content-Length: 5", "404 page /page  /404 GET"),
        ("POST /named Content-Length: 5", "404 named /named  POST"),
        ("POST /proxied Content-Length: 5", "200 POST /proxied hello"),
        ("HEAD /proxieduri", "200"),
    ]);
}

#[test]
fn answers_of_the_upstream_are_intercepted_only_if_asked_for() {
    Pair::start(
        "server { listen LISTEN;
            proxy_intercept_errors on;
            error_page 401 404 500 /page;
            error_page 502 =200 @down;
            error_page 302 /page;
            location / { proxy_pass http://APP; }
            location /off/ { proxy_intercept_errors off; proxy_pass http://APP/; }
            location /gone { error_page 502 =200 @down; proxy_pass http://127.0.0.1:1; }
            location /goneoff { proxy_intercept_errors off; error_page 502 =503 /page; proxy_pass http://127.0.0.1:1; }
            location /page { return 200 'page $upstream_status'; }
            location @down { return 200 'down $uri'; }
            location /chain/ { error_page 404 = @second; proxy_pass http://APP/; }
            location @second { error_page 404 /page; proxy_pass http://APP; }
            location /rec/ { recursive_error_pages on; error_page 404 = @third; proxy_pass http://APP/; }
            location @third { error_page 404 /page; proxy_pass http://APP; }
            location /status/404/rec/ { return 404; }
        }",
        r#"
        [[server]]
        listen = "LISTEN"
        proxy_intercept_errors = true
        error_page = ["401 404 500 /page", "502 =200 @down", "302 /page"]
        location = [
            { path = "/", proxy_pass = "http://APP" },
            { path = "/off/", proxy_intercept_errors = false, proxy_pass = "http://APP/" },
            { path = "/gone", error_page = "502 =200 @down", proxy_pass = "http://127.0.0.1:1" },
            { path = "/goneoff", proxy_intercept_errors = false, error_page = "502 =503 /page", proxy_pass = "http://127.0.0.1:1" },
            { path = "/page", return = "200 'page $upstream_status'" },
            { path = "@down", return = "200 'down $uri'" },
            { path = "/chain/", error_page = "404 = @second", proxy_pass = "http://APP/" },
            { path = "@second", error_page = "404 /page", proxy_pass = "http://APP" },
            { path = "/rec/", recursive_error_pages = true, error_page = "404 = @third", proxy_pass = "http://APP/" },
            { path = "@third", error_page = "404 /page", proxy_pass = "http://APP" },
            { path = "/status/404/rec/", return = "404" },
        ]
        "#,
    )
    .expect(&[
        ("/status/404", "404 page 404"),
        ("/status/500", "500 page 500"),
        ("/status/401", "401 page 401"),
        ("/status/302", "302 page 302"),
        ("/status/403", "403 GET /status/403"),
        ("/status/200", "200 GET /status/200"),
        ("/off/status/404", "404 GET /status/404"),
        ("/status/502/x", "200 down /status/502/x"),
        ("/gone/x", "200 down /gone/x"),
        ("/goneoff/x", "503 page 502"),
        ("/chain/status/404", "200 GET /chain/status/404"),
        ("/rec/status/404", "200 GET /rec/status/404"),
        ("/rec/x", "200 GET /x"),
    ]);
}

#[test]
fn what_an_error_page_has_made_a_get_of_has_no_body() {
    let app = Teller::start();
    let hopgate = Hopgate::start(&format!(
        r#"
        workers = 1
        forwarded_headers = "pass"
        [[server]]
        listen = "127.0.0.1:0"
        location = [
            {{ path = "/", error_page = "405 = /up", return = "405" }},
            {{ path = "/up", proxy_pass = "http://{}" }},
        ]
        "#,
        app.addr()
    ));
    // nginx would send the body along with the GET.
    assert_eq!(ask(&hopgate.addr().to_string(), "POST /x Content-Length: 5"), "200 GET /up");
}

#[test]
fn an_error_page_gets_the_body_that_the_first_upstream_did_not() {
    let (refusing, other) = (Upstream::refusing(), Upstream::listen());
    let hopgate = with_fallback(refusing.addr(), other.addr());
    let mut client = hopgate.connect();
    client.send("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    let mut server = other.accept();
    server.expect_head("POST /x HTTP/1.1", &["Content-Length: 5"]);
    server.expect("hello");
    server.respond("instead");
    assert_eq!(client.expect_status(200).text(), "instead");
    client.send("GET /y HTTP/1.1\r\nHost: a\r\n\r\n");
    server.expect_head("GET /y HTTP/1.1", &[]);
    server.respond("again");
    assert_eq!(client.expect_status(200).text(), "again");
}

#[test]
fn a_body_that_an_upstream_has_swallowed_is_gone() {
    let (first, other) = (Upstream::listen(), Upstream::listen());
    let hopgate = with_fallback(first.addr(), other.addr());
    let mut client = hopgate.connect();
    client.send("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    let mut server = first.accept();
    server.expect_head("POST /x HTTP/1.1", &[]);
    server.expect("hello");
    server.close();
    client.expect_status(502);
    other.expect_no_connection(&hopgate);
    hopgate.wait_for_log("it cannot be sent again");
}

#[track_caller]
fn with_fallback(first: &str, other: &str) -> Hopgate {
    Hopgate::start(&format!(
        r#"
        workers = 1
        [[server]]
        listen = "127.0.0.1:0"
        location = [
            {{ path = "/", proxy_pass = "http://{first}", error_page = "502 = @other" }},
            {{ path = "@other", proxy_pass = "http://{other}" }},
        ]
        "#
    ))
}

#[test]
fn a_page_for_a_401_of_the_upstream_still_says_how_to_log_in() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::start(&format!(
        r#"
        [[server]]
        listen = "127.0.0.1:0"
        proxy_intercept_errors = true
        error_page = "401 /login"
        location = [
            {{ path = "/", proxy_pass = "http://{}" }},
            {{ path = "= /login", return = "200 'log in, $upstream_cookie_try'" }},
        ]
        "#,
        upstream.addr()
    ));
    let mut client = hopgate.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut server = upstream.accept();
    server.expect_head("GET / HTTP/1.1", &[]);
    server.send(
        "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"x\"\r\nSet-Cookie: a=b; try=no\r\n\
         Set-Cookie: try=2; Path=/\r\nContent-Length: 0\r\n\r\n",
    );
    let answer = client.expect_status(401);
    assert_eq!(answer.text(), "log in, 2");
    assert_eq!(answer.head.field("WWW-Authenticate"), Some("Basic realm=\"x\""));
}
