//! `auth_request`: a subrequest decides whether a request may come.

mod support;

use support::{Echo, Hopgate, Nginx, Peer, Upstream, handshake, switching};

/// Everything is asked at `auth`, and goes to `app` with what the answer says of the user.
fn with_auth(app: &Upstream, auth: &Upstream) -> Hopgate {
    Hopgate::start(&format!(
        "workers = 1\n[[server]]\nlisten = '127.0.0.1:0'\n[[server.location]]\npath = '/'\n\
         auth_request = '/auth'\nauth_request_set = {{ user = '$upstream_http_x_user' }}\n\
         proxy_set_header = {{ X-User = '$user' }}\nproxy_pass = 'http://{}'\n\
         [[server.location]]\npath = '= /auth'\nclient_max_body_size = 1\n\
         proxy_set_header = {{ X-Original = '$request_method $request_uri $uri $args' }}\n\
         proxy_pass = 'http://{}'\n",
        app.addr(),
        auth.addr()
    ))
}

#[test]
fn the_subrequest_is_a_get_without_the_body_and_its_answer_can_be_told_the_upstream() {
    let (app, auth) = (Upstream::listen(), Upstream::listen());
    let hopgate = with_auth(&app, &auth);
    let mut client = hopgate.connect();
    client.send(
        "POST /a%20b?c=d HTTP/1.1\r\nHost: a\r\nCookie: e=f\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
    );
    let mut asked = auth.accept();
    let head =
        asked.expect_head("GET /auth HTTP/1.1", &["Cookie: e=f", "X-Original: POST /a%20b?c=d /auth "]);
    head.expect_none_of(&["Content-Length", "Transfer-Encoding", "Expect", "Connection"]);
    asked.send("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n");
    asked.send("HTTP/1.1 200 OK\r\nX-User: ann\r\nContent-Length: 0\r\n\r\n");
    let mut server = app.accept();
    server.expect_head(
        "POST /a%20b?c=d HTTP/1.1",
        &["X-User: ann", "Content-Length: 5", "Expect: 100-continue"],
    );
    server.send("HTTP/1.1 100 Continue\r\n\r\n");
    client.expect("HTTP/1.1 100 Continue\r\n\r\n");
    client.send("hello");
    server.expect("hello");
    server.respond("done");
    assert_eq!(client.expect_status(200).text(), "done");

    // The connection of the subrequest is used again, and a HEAD asks by a GET, too.
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    asked.expect_head("GET /auth HTTP/1.1", &["X-Original: HEAD / /auth "]);
    asked.send("HTTP/1.1 204 No Content\r\n\r\n");
    server.expect_head("HEAD / HTTP/1.1", &[]).expect_none_of(&["X-User"]);
}

#[test]
fn the_subrequest_refuses_with_its_own_challenge_or_breaks() {
    let (app, auth) = (Upstream::listen(), Upstream::listen());
    let hopgate = with_auth(&app, &auth);
    for (answer, status, asks) in [
        (
            "401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"x\"\r\nWWW-Authenticate: Bearer",
            401,
            &["Basic realm=\"x\"", "Bearer"][..],
        ),
        ("403 Forbidden", 403, &[]),
        ("302 Found\r\nLocation: /login", 500, &[]),
        ("404 Not Found", 500, &[]),
        ("503 Busy", 500, &[]),
        ("101 Switching Protocols", 500, &[]),
    ] {
        let mut client = hopgate.connect();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut asked = auth.accept();
        asked.head();
        // A body is of no interest.
        asked.send(format!("HTTP/1.1 {answer}\r\nContent-Length: 5\r\n\r\n"));
        let response = client.expect_status(status);
        assert_eq!(response.head.all("WWW-Authenticate"), asks, "{answer}");
        asked.expect_closed();
    }
    app.expect_no_connection(&hopgate);
    hopgate.wait_for_log("answered 503, neither 2xx nor 401 or 403");

    // Nobody there to be asked.
    drop(auth);
    assert_eq!(hopgate.get("/").0, 500);
    hopgate.wait_for_log("no server of the upstream can be reached");
    hopgate.wait_for_access("\"GET / HTTP/1.1\" 500");
    assert!(hopgate.access_lines("/auth").is_empty(), "a subrequest has no line of its own");
}

#[test]
fn an_upgrade_is_asked_for_like_any_request() {
    let (app, auth) = (Upstream::listen(), Upstream::listen());
    let hopgate = with_auth(&app, &auth);
    let mut refused = hopgate.connect();
    refused.send(handshake("/chat"));
    let mut asked = auth.accept();
    asked
        .expect_head("GET /auth HTTP/1.1", &["X-Original: GET /chat /auth "])
        .expect_none_of(&["Upgrade", "Connection"]);
    asked.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
    refused.expect_status(403);
    app.expect_no_connection(&hopgate);

    let mut client = hopgate.connect();
    client.send(handshake("/chat"));
    asked.head();
    asked.send("HTTP/1.1 200 OK\r\nX-User: ann\r\nContent-Length: 0\r\n\r\n");
    let mut server = app.accept();
    server.expect_head("GET /chat HTTP/1.1", &["Upgrade: websocket", "X-User: ann"]);
    server.send(switching());
    client.expect_status(101);
    server.send("hello");
    client.expect("hello");
}

#[test]
fn a_client_that_leaves_while_the_subrequest_is_answered_is_noticed() {
    let (app, auth) = (Upstream::listen(), Upstream::listen());
    let hopgate = with_auth(&app, &auth);
    let mut client = hopgate.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut asked = auth.accept();
    asked.head();
    client.reset();
    asked.expect_closed();
    hopgate.wait_for_access("\"GET / HTTP/1.1\" 499");
    app.expect_no_connection(&hopgate);
}

#[test]
fn a_refused_client_can_be_sent_to_the_login_and_variables_are_shared_as_in_nginx() {
    if !Nginx::is_installed() {
        return;
    }
    let echo = Echo::start();
    let auth = Nginx::start(
        "server { listen 80; location / { add_header X-User $http_x_name always; add_header X-Login $http_x_a always;\n\
         if ($http_x_name = ann) { return 204; } return 401; } }",
    );
    let nginx = Nginx::start(&format!(
        "server {{ listen 80; absolute_redirect off;\n\
         location / {{ set $a 1; set $b 0; auth_request /auth; auth_request_set $user $upstream_http_x_user;\n\
         auth_request_set $login $upstream_http_x_login; auth_request_set $args user=$upstream_status;\n\
         error_page 401 = @login; proxy_set_header X-User \"$user $b\"; proxy_pass http://{echo}; }}\n\
         location = /auth {{ internal; set $b 2; proxy_set_header X-A $a; proxy_pass http://{auth}; }}\n\
         location @login {{ return 302 /login?to=$uri&a=$login&user=$user; }} }}",
        echo = echo.addr(),
        auth = auth.addr()
    ));
    let hopgate = Hopgate::start(&format!(
        "[[server]]\nlisten = '127.0.0.1:0'\nabsolute_redirect = false\n[[server.location]]\npath = '/'\n\
         set = {{ a = '1', b = '0' }}\nauth_request = '/auth'\nerror_page = '401 = @login'\n\
         auth_request_set = {{ user = '$upstream_http_x_user', login = '$upstream_http_x_login', \
         args = 'user=$upstream_status' }}\n\
         forwarded_headers = 'pass'\nproxy_set_header = {{ X-User = '$user $b' }}\nproxy_pass = 'http://{}'\n\
         [[server.location]]\npath = '= /auth'\ninternal = true\nset = {{ b = '2' }}\nforwarded_headers = 'pass'\n\
         proxy_set_header = {{ X-A = '$a' }}\nproxy_pass = 'http://{}'\n\
         [[server.location]]\npath = '@login'\nreturn = '302 /login?to=$uri&a=$login&user=$user'\n",
        echo.addr(),
        auth.addr()
    ));
    for name in ["ann", "bob"] {
        let ask = |addr: &str| {
            let mut client = Peer::new("client", std::net::TcpStream::connect(addr).unwrap());
            client.send(format!("GET /x HTTP/1.1\r\nHost: a\r\nX-Name: {name}\r\nConnection: close\r\n\r\n"));
            let response = client.response();
            let location = response.head.field("Location").unwrap_or_default().to_owned();
            // The order of the fields upstream is not the same.
            let user = response.text().lines().find(|line| line.starts_with("X-User")).map(str::to_owned);
            let line = response.text().lines().next().unwrap_or_default().replace("HTTP/1.0", "HTTP/1.1");
            (response.status, location, user, if response.status == 200 { line } else { String::new() })
        };
        let expected = ask(nginx.addr());
        assert_eq!(ask(&hopgate.addr().to_string()), expected);
        assert!(name == "ann" && expected.0 == 200 || name == "bob" && expected.0 == 302, "{expected:?}");
    }
}

#[test]
fn where_the_subrequest_would_be_sent_is_not_told_to_the_client() {
    let app = Upstream::listen();
    let hopgate = Hopgate::start(&format!(
        "[[server]]\nlisten = '127.0.0.1:0'\n\
         [[server.location]]\npath = '/'\nauth_request = '/auth'\nerror_page = '500 /failed'\nproxy_pass = 'http://{}'\n\
         [[server.location]]\npath = '= /auth'\nerror_page = '302 /other'\nreturn = '302 http://secret/'\n\
         [[server.location]]\npath = '/other'\nreturn = '204'\n\
         [[server.location]]\npath = '/failed'\nreturn = \"200 'failed'\"\n",
        app.addr()
    ));
    let mut client = hopgate.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    client.response().head.expect_none_of(&["Location"]);
}
