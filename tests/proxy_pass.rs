//! `proxy_pass` with variables: where it leads, and what is sent there, as with nginx.

mod support;

use support::{App, Echo, Hopgate, Nginx, Upstream, handshake, switching};

/// A location in nginx's words and in hopgate's.
struct Pass {
    nginx: String,
    hopgate: String,
}

impl Pass {
    /// Alike in both, with these variables made from the argument `to`.
    fn to(url: &str, set: &[(&str, &str)]) -> Self {
        let nginx: String = set.iter().map(|(name, value)| format!("set ${name} '{value}'; ")).collect();
        let hopgate: Vec<_> = set.iter().map(|(name, value)| format!("{name} = '{value}'")).collect();
        Self {
            nginx: format!("{nginx}proxy_pass {url};"),
            hopgate: format!("set = {{ {} }}\nproxy_pass = '{url}'", hopgate.join(", ")),
        }
    }
}

#[test]
fn what_variables_make_of_a_proxy_pass_is_sent_as_by_nginx() {
    if !Nginx::is_installed() {
        return;
    }
    let echo = Echo::start();
    let (host, port) = echo.addr().split_once(':').expect("a host and a port");
    let addr = echo.addr();
    let rows = [
        ("/", Pass::to(&format!("http://$app:{port}"), &[("app", host)])),
        ("/", Pass::to("http://$app", &[("app", addr)])),
        ("/", Pass::to("http://$app", &[("app", "group")])),
        ("/", Pass::to("http://$app", &[("app", "GROUP")])),
        ("/", Pass::to("$scheme://$app", &[("app", "group")])),
        ("/", Pass::to("$app", &[("app", "http://group/fixed?a=b")])),
        ("/", Pass::to("http://$app$request_uri", &[("app", "group")])),
        ("/", Pass::to("http://$app$uri$is_args$args", &[("app", "group")])),
        ("/", Pass::to("http://$app/", &[("app", "group")])),
        ("/", Pass::to("http://$app/in/$arg_a/", &[("app", "group")])),
        ("/", Pass::to("http://$app?$args", &[("app", "group")])),
        ("~ ^/x/(?<rest>.*)$", Pass::to("http://$app/$rest$is_args$args", &[("app", "group")])),
        ("~ ^/x/(.*)$", Pass::to("http://group/$1", &[])),
        ("~ ^/x/", Pass::to("http://$app", &[("app", "group")])),
    ];
    let targets = ["/x/y?a=1", "/x/", "/x/a%2Bb/c?a=1&b=%20", "/x/y%3fz", "/x/$&+,;=:@"];
    for (path, pass) in rows {
        let nginx = Nginx::start(&format!(
            "upstream group {{ server {addr}; }}\nserver {{ listen 80;\nlocation {path} {{ {} }} }}",
            pass.nginx
        ));
        let hopgate = Hopgate::start(&format!(
            "forwarded_headers = 'pass'\n[upstream.group]\nserver = '{addr}'\n[[server]]\nlisten = '127.0.0.1:0'\n\
             [[server.location]]\npath = '{path}'\n{}\n",
            pass.hopgate
        ));
        for target in targets {
            let line = |addr: String| {
                let mut client = hopgate.connect_to(addr.parse().expect("an address"));
                client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
                let answer = client.response();
                let body = answer.text();
                let asked = body.lines().next().unwrap_or_default().replace("HTTP/1.0", "HTTP/1.1");
                (answer.status, if answer.status == 200 { asked } else { String::new() })
            };
            let (expected, got) = (line(nginx.addr().to_owned()), line(hopgate.addr().to_string()));
            assert_eq!(expected, got, "{target} by {}", pass.hopgate);
            assert_eq!(expected.0, 200, "{target} by {}", pass.hopgate);
        }
    }
}

#[test]
fn what_cannot_be_used_is_a_500_and_the_log_says_what_it_is() {
    let location =
        |path: &str, url: &str| format!("[[server.location]]\npath = '{path}'\nproxy_pass = '{url}'\n");
    let hopgate = Hopgate::start(&format!(
        "workers = 1\n[[server]]\nlisten = '127.0.0.1:0'\n{}{}{}{}",
        location("/scheme", "$arg_to"),
        location("/host", "http://$arg_to:80/"),
        location("/port", "http://127.0.0.1:$arg_to"),
        location("/path", "http://127.0.0.1:1/in/$arg_to/"),
    ));
    for (target, why) in [
        (
            "/scheme?to=ftp://a",
            "`proxy_pass` leads to `ftp://a`: it does not start with `http://` or `https://`",
        ),
        ("/scheme", "`proxy_pass` leads to ``: it does not start with `http://`"),
        ("/host", "`proxy_pass` leads to `http://:80/`: the host is missing"),
        ("/host?to=a%20b", "`proxy_pass` leads to `http://a%20b:80/`"),
        ("/port?to=x", "`proxy_pass` leads to `http://127.0.0.1:x`: `x` is not a port"),
    ] {
        assert_eq!(hopgate.get(target).0, 500, "{target}");
        let line = hopgate.wait_for_log(why);
        assert!(line.contains("WARN"), "{line}");
    }
    // R31: a part of the path that leads out of the one before it.
    assert_eq!(hopgate.get("/path?to=../../admin").0, 400);
    // A name that is none is like a server that cannot be reached.
    assert_eq!(hopgate.get("/host?to=no-such-host.invalid").0, 502);
}

#[test]
fn a_map_chooses_the_upstream_and_connections_to_it_are_kept() {
    let (one, two) = (App::named("one"), App::named("two"));
    let hopgate = Hopgate::start(&format!(
        "workers = 1\nlog_format = {{ t = '$proxy_host $proxy_port $upstream_addr' }}\naccess_log = 'stdout t'\n\
         [upstream.one]\nserver = '{}'\n\
         [[map]]\nsource = '$arg_to'\nvariable = 'app'\nentries = {{ two = '{}', one = 'one' }}\n\
         [[server]]\nlisten = '127.0.0.1:0'\n[[server.location]]\npath = '/'\nproxy_pass = 'http://$app'\n",
        one.addr(),
        two.addr(),
    ));
    for _ in 0..3 {
        assert_eq!(hopgate.get("/?to=one"), (200, "one".to_owned()));
        assert_eq!(hopgate.get("/?to=two"), (200, "two".to_owned()));
    }
    assert_eq!((one.connections(), two.connections()), (1, 1));
    hopgate.wait_for_access(&format!("one 80 {}", one.addr()));
    let (_, port) = two.addr().split_once(':').expect("a port");
    hopgate.wait_for_access(&format!("{0} {port} {0}", two.addr()));
}

#[test]
fn a_blank_or_a_line_break_in_a_value_does_not_break_the_request_line() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::start(
        "[[server]]\nlisten = '127.0.0.1:0'\n[[server.location]]\npath = '/'\nproxy_pass = 'http://$arg_to$uri'\n",
    );
    let mut client = hopgate.connect();
    client.send(format!("GET /a%20b%0d%0aX:%20y%23?to={} HTTP/1.1\r\nHost: a\r\n\r\n", upstream.addr()));
    let mut server = upstream.accept();
    server.expect_head("GET /a%20b%0D%0AX:%20y%23 HTTP/1.1", &["Host: a"]);
    server.respond("");
    client.expect_status(200);
}

#[test]
fn an_upgrade_goes_where_the_variables_lead() {
    let upstream = Upstream::listen();
    let (host, port) = upstream.addr().split_once(':').expect("a host and a port");
    let hopgate = Hopgate::start(&format!(
        "[[server]]\nlisten = '127.0.0.1:0'\n[[server.location]]\npath = '/'\nset = {{ app = '{host}' }}\n\
         proxy_pass = 'http://$app:{port}'\n",
    ));
    let mut client = hopgate.connect();
    client.send(handshake("/ws?x"));
    let mut server = upstream.accept();
    server.expect_head("GET /ws?x HTTP/1.1", &["Upgrade: websocket"]);
    server.send(switching());
    client.expect_status(101);
    client.send("there");
    server.expect("there");
}
