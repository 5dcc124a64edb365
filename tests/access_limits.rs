//! How often clients may come, and how many at a time: by counts, as nginx counts.

mod support;

use std::time::{Duration, Instant};

use support::{App, Hopgate, Nginx, Peer, Upstream, eventually, handshake, open_tunnel, switching};

/// The statuses of requests that are sent one after the other on connections of their own.
fn statuses(addr: &str, paths: &[&str]) -> Vec<u16> {
    let ask = |path: &&str| {
        let socket = std::net::TcpStream::connect(addr).unwrap();
        let mut client = Peer::new("client", socket);
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
        client.response().status
    };
    paths.iter().map(ask).collect()
}

const ZONES: &str = "[limit_req_zone.one]\nkey = '$arg_a'\nrate = '1r/m'\n\
                     [limit_req_zone.two]\nkey = '$binary_remote_addr$arg_b'\nrate = '2r/m'\n\
                     [limit_req_zone.fast]\nkey = '$arg_a'\nrate = '1000r/s'\n";

#[test]
fn bursts_pass_and_more_is_refused_as_in_nginx() {
    if !Nginx::is_installed() {
        return;
    }
    let app = App::named("app");
    let locations = [
        ("/a/", vec!["one burst=3 nodelay"], ""),
        ("/b/", vec!["one burst=3 delay=3"], ""),
        ("/c/", vec!["one burst=2 nodelay", "two burst=1 nodelay"], ""),
        ("/d/", vec!["two burst=1 nodelay", "one burst=2 nodelay"], ""),
        ("/e/", vec!["one"], "429"),
        ("/f/", vec!["fast burst=2 nodelay", "one"], ""),
    ];
    let (mut conf, mut toml) = (String::new(), String::new());
    for (path, limits, status) in &locations {
        conf += &format!("location {path} {{ proxy_pass http://{};", app.addr());
        toml += &format!(
            "[[server.location]]\npath = '{path}'\nproxy_pass = 'http://{}'\nlimit_req = {limits:?}\n",
            app.addr()
        );
        conf += &limits.iter().map(|limit| format!("limit_req zone={limit};")).collect::<String>();
        if !status.is_empty() {
            conf += &format!("limit_req_status {status};");
            toml += &format!("limit_req_status = {status}\n");
        }
        conf += "}\n";
    }
    let nginx = Nginx::start(&format!(
        "limit_req_zone $arg_a zone=one:1m rate=1r/m; limit_req_zone $binary_remote_addr$arg_b zone=two:1m rate=2r/m;\n\
         limit_req_zone $arg_a zone=fast:1m rate=1000r/s; server {{ listen 80; {conf} }}"
    ));
    let hopgate =
        Hopgate::start(&format!("workers = 3\n{ZONES}\n[[server]]\nlisten = '127.0.0.1:0'\n{toml}"));
    let mut paths = Vec::new();
    for (number, (path, ..)) in locations.iter().enumerate() {
        for query in ["", "?a=1", "?b=1", "?a=2&b=2", "?b=1&a=3"] {
            let query = query.replace('=', &format!("={number}"));
            paths.extend(std::iter::repeat_n(format!("{path}{query}"), 6));
        }
    }
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let expected = statuses(nginx.addr(), &paths);
    let got = statuses(&hopgate.addr().to_string(), &paths);
    let rows = |statuses: &[u16]| {
        paths.iter().zip(statuses).map(|(path, status)| format!("{path} {status}")).collect::<Vec<_>>()
    };
    assert_eq!(rows(&got), rows(&expected));
    assert!([200, 429, 503].iter().all(|status| got.contains(status)), "{got:?}");
    hopgate.wait_for_log("limiting request, excess: ");
}

#[test]
fn a_request_that_is_early_waits_for_its_turn() {
    let app = App::named("app");
    let hopgate = Hopgate::start(&format!(
        "log_format.brief = '$uri:$limit_req_status'\naccess_log = 'stdout brief'\n\
         [limit_req_zone.one]\nkey = '$binary_remote_addr'\nrate = '4r/s'\n[[server]]\nlisten = '127.0.0.1:0'\n\
         [[server.location]]\npath = '/'\nlimit_req = 'one burst=2'\nproxy_pass = 'http://{}'\n",
        app.addr()
    ));
    let started = Instant::now();
    assert_eq!(hopgate.get("/first").0, 200);
    assert_eq!(hopgate.get("/second").0, 200);
    assert!(started.elapsed() >= Duration::from_millis(200), "{:?}", started.elapsed());
    hopgate.wait_for_access("/first:PASSED");
    hopgate.wait_for_access("/second:DELAYED");
}

#[test]
fn a_client_that_leaves_while_it_waits_is_noticed() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::start(&format!(
        "workers = 1\n[limit_req_zone.one]\nkey = '$binary_remote_addr'\nrate = '1r/m'\n\
         [[server]]\nlisten = '127.0.0.1:0'\nlimit_req = 'one burst=5'\n\
         [[server.location]]\npath = '/'\nproxy_pass = 'http://{}'\n",
        upstream.addr()
    ));
    let mut client = hopgate.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    upstream.accept().respond_and_close("first");
    client.expect_status(200);
    client.send("GET /waits HTTP/1.1\r\nHost: a\r\n\r\n");
    hopgate.wait_for_log("delaying request, excess: ");
    client.reset();
    hopgate.wait_for_access("\"GET /waits HTTP/1.1\" 499");
    // One that has only said that it will send nothing more is gone for us after a moment, as elsewhere.
    let mut client = hopgate.connect();
    client.send("GET /ends HTTP/1.1\r\nHost: a\r\n\r\n");
    client.finish();
    client.expect_closed();
    hopgate.wait_for_access("\"GET /ends HTTP/1.1\" 499");
    upstream.expect_no_connection(&hopgate);
}

#[test]
fn a_dry_run_only_tells_the_log() {
    let app = App::named("app");
    let hopgate = Hopgate::start(&format!(
        "log_format.brief = '$uri:$limit_req_status:$limit_conn_status.'\naccess_log = 'stdout brief'\n\
         limit_req_dry_run = true\n[limit_req_zone.one]\nkey = '$binary_remote_addr'\nrate = '1r/m'\n\
         [[server]]\nlisten = '127.0.0.1:0'\n\
         [[server.location]]\npath = '/delay'\nlimit_req = 'one burst=2'\nproxy_pass = 'http://{0}'\n\
         [[server.location]]\npath = '/reject'\nlimit_req = 'one'\nproxy_pass = 'http://{0}'\n\
         [[server.location]]\npath = '/off'\nlimit_req = 'one'\nlimit_req_dry_run = false\nproxy_pass = 'http://{0}'\n\
         [[server.location]]\npath = '/'\nproxy_pass = 'http://{0}'\n",
        app.addr()
    ));
    for (path, status, line) in [
        ("/delay", 200, "/delay:PASSED:-."),
        ("/delay", 200, "/delay:DELAYED_DRY_RUN:-."),
        ("/reject", 200, "/reject:REJECTED_DRY_RUN:-."),
        ("/off", 503, "/off:REJECTED:-."),
        ("/", 200, "/:-:-."),
    ] {
        assert_eq!(hopgate.get(path).0, status, "{path}");
        hopgate.wait_for_access(line);
    }
    hopgate.wait_for_log("delaying request, dry run, excess: ");
    hopgate.wait_for_log("limiting request, dry run, excess: ");
}

#[test]
fn requests_and_tunnels_count_at_a_time_for_as_long_as_they_live() {
    let upstream = Upstream::listen();
    let toml = |addr: &str| {
        format!(
            "workers = 1\n[limit_conn_zone.one]\nkey = '$binary_remote_addr'\n\
             [limit_conn_zone.all]\nkey = '$server_port'\n[[server]]\nlisten = '127.0.0.1:0'\n\
             [[server.location]]\npath = '/'\nlimit_conn = ['one 2', 'all 3']\nproxy_pass = 'http://{addr}'\n\
             [[server.location]]\npath = '/dry'\nlimit_conn = 'one 1'\nlimit_conn_dry_run = true\nreturn = 204\n\
             [[server.location]]\npath = '/one'\nlimit_conn = 'one 1'\nlimit_conn_status = 429\n\
             proxy_pass = 'http://{addr}'\n"
        )
    };
    let hopgate = Hopgate::start(&toml(upstream.addr()));
    let mut first = hopgate.connect();
    first.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut server = upstream.accept();
    server.head();
    let (tunnel, end) = open_tunnel(&hopgate, &upstream);
    assert_eq!((hopgate.get("/").0, hopgate.get("/one").0), (503, 429));
    hopgate.wait_for_log("limiting connections by zone `one`");
    let mut refused = hopgate.connect();
    refused.send(handshake("/"));
    refused.expect_status(503);

    // Another client has a place of its own, until all places are taken.
    let mut other = hopgate.connect_from([127, 0, 0, 2].into());
    other.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut third = upstream.accept();
    third.head();
    let mut refused = hopgate.connect_from([127, 0, 0, 3].into());
    refused.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    refused.expect_status(503);
    third.respond_and_close("third");
    other.expect_status(200);

    // What is over is not counted, a connection that is only kept alive neither.
    server.respond_and_close("first");
    first.expect_status(200);
    first.send(handshake("/"));
    let mut server = upstream.accept();
    server.head();
    server.send(switching());
    first.expect_status(101);
    assert_eq!(hopgate.get("/").0, 503);

    // A reload keeps the count of the tunnels, and their ends are counted out.
    hopgate.reload_with(&toml(upstream.addr()));
    assert_eq!(hopgate.get("/").0, 503);
    for peer in [tunnel, end, first, server] {
        peer.close();
    }
    eventually("the tunnels have ended", || hopgate.access_lines("tunnel=").len() == 4);
    let mut last = hopgate.connect();
    last.send("GET /one HTTP/1.1\r\nHost: a\r\n\r\n");
    upstream.accept().respond("last");
    last.expect_status(200);
}

#[test]
fn a_reload_keeps_what_was_counted_and_takes_the_new_rate() {
    let app = App::named("app");
    let toml = |rate: &str, key: &str| {
        format!(
            "[limit_req_zone.one]\nkey = '{key}'\nrate = '{rate}'\n[[server]]\nlisten = '127.0.0.1:0'\n\
             [[server.location]]\npath = '/'\nlimit_req = 'one'\nproxy_pass = 'http://{}'\n",
            app.addr()
        )
    };
    let hopgate = Hopgate::start(&toml("1r/m", "$host"));
    assert_eq!((hopgate.get("/").0, hopgate.get("/").0), (200, 503));
    hopgate.reload_with(&toml("2r/m", "$host"));
    assert_eq!(hopgate.get("/").0, 503);
    hopgate.reload_with(&toml("2r/m", "$host$uri"));
    assert_eq!((hopgate.get("/").0, hopgate.get("/").0), (200, 503));
}

#[test]
fn a_handshake_counts_like_any_request() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::start(&format!(
        "[limit_req_zone.one]\nkey = '$binary_remote_addr'\nrate = '1r/m'\n[[server]]\nlisten = '127.0.0.1:0'\n\
         limit_req = 'one'\nlimit_req_status = 429\n[[server.location]]\npath = '/'\nproxy_pass = 'http://{}'\n",
        upstream.addr()
    ));
    let _tunnel = open_tunnel(&hopgate, &upstream);
    let mut refused = hopgate.connect();
    refused.send(handshake("/"));
    refused.expect_status(429);
    upstream.expect_no_connection(&hopgate);
}

#[test]
fn limits_are_asked_once_for_a_request_wherever_it_is_redirected_as_in_nginx() {
    if !Nginx::is_installed() {
        return;
    }
    let app = App::named("app");
    let nginx = Nginx::start(&format!(
        "limit_req_zone $host zone=req:1m rate=1r/m; server {{ listen 80; error_page 418 /page; error_page 429 = @x;\n\
         location / {{ limit_req zone=req burst=1 nodelay; limit_req_status 429; return 418; }}\n\
         location /p {{ limit_req zone=req burst=1 nodelay; limit_req_status 429; proxy_pass http://{0}; }}\n\
         location /page {{ limit_req zone=req burst=1 nodelay; proxy_pass http://{0}; }}\n\
         location @x {{ limit_req zone=req; return 420; }} }}",
        app.addr()
    ));
    let hopgate = Hopgate::start(&format!(
        "[limit_req_zone.req]\nkey = '$host'\nrate = '1r/m'\n[[server]]\nlisten = '127.0.0.1:0'\n\
         error_page = ['418 /page', '429 = @x']\n\
         [[server.location]]\npath = '/'\nlimit_req = 'req burst=1 nodelay'\nlimit_req_status = 429\nreturn = 418\n\
         [[server.location]]\npath = '/p'\nlimit_req = 'req burst=1 nodelay'\nlimit_req_status = 429\n\
         proxy_pass = 'http://{0}'\n\
         [[server.location]]\npath = '/page'\nlimit_req = 'req burst=1 nodelay'\nproxy_pass = 'http://{0}'\n\
         [[server.location]]\npath = '@x'\nlimit_req = 'req'\nreturn = 420\n",
        app.addr()
    ));
    let paths = ["/", "/p", "/p", "/", "/page"];
    assert_eq!(statuses(&hopgate.addr().to_string(), &paths), statuses(nginx.addr(), &paths));
}

#[test]
fn limit_req_is_asked_before_limit_conn_as_in_nginx() {
    if !Nginx::is_installed() {
        return;
    }
    let (app, slow) = (App::named("app"), Upstream::listen());
    let nginx = Nginx::start(&format!(
        "limit_req_zone $host zone=req:1m rate=1r/m; limit_conn_zone $host zone=conn:1m;\n\
         server {{ listen 80; limit_conn conn 1; limit_conn_status 430;\n\
         location /slow {{ proxy_pass http://{}; }}\n\
         location / {{ limit_req zone=req; limit_req_status 429; proxy_pass http://{}; }} }}",
        slow.addr(),
        app.addr()
    ));
    let hopgate = Hopgate::start(&format!(
        "[limit_req_zone.req]\nkey = '$host'\nrate = '1r/m'\n[limit_conn_zone.conn]\nkey = '$host'\n\
         [[server]]\nlisten = '127.0.0.1:0'\nlimit_conn = 'conn 1'\nlimit_conn_status = 430\n\
         [[server.location]]\npath = '/slow'\nproxy_pass = 'http://{}'\n\
         [[server.location]]\npath = '/'\nlimit_req = 'req'\nlimit_req_status = 429\nproxy_pass = 'http://{}'\n",
        slow.addr(),
        app.addr()
    ));
    for addr in [nginx.addr(), &hopgate.addr().to_string()] {
        let mut held = Peer::new("client", std::net::TcpStream::connect(addr).unwrap());
        held.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut server = slow.accept();
        server.head();
        // The first is refused by limit_conn, but it has counted for limit_req, which refuses the second.
        assert_eq!(statuses(addr, &["/", "/", "/slow"]), [430, 429, 430], "{addr}");
    }
}
