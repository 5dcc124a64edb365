//! Who may come: addresses, passwords, and who the client is; as nginx decides.

mod support;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use support::{App, DEADLINE, Dir, Echo, Hopgate, Nginx, Peer, Response, Upstream, eventually};
use support::{handshake, switching};

/// What a client on this socket is answered.
fn answer(mut client: Peer, path: &str, fields: &str) -> Response {
    client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{fields}\r\n"));
    client.response()
}

/// As [`answer`], for a client from a loopback address.
fn from(ip: [u8; 4], to: &str, path: &str, fields: &str) -> Response {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::from(ip), 0)).into()).unwrap();
    socket.connect_timeout(&to.parse::<SocketAddr>().unwrap().into(), DEADLINE).unwrap();
    answer(Peer::new("client", socket), path, fields)
}

fn basic(user: &str, password: &str) -> String {
    let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    format!("Authorization: Basic {encoded}\r\n")
}

#[test]
fn addresses_are_let_in_as_nginx_lets_them_in() {
    if !Nginx::is_installed() {
        return;
    }
    let lists = [
        &["allow all"][..],
        &["deny all"],
        &["allow unix:"],
        &["deny unix:"],
        &["allow 127.0.0.1", "deny all"],
        &["deny 127.0.0.2", "allow 127.0.0.0/8", "deny all"],
        &["allow 127.0.0.0/30", "deny 127.0.0.0/24"],
        &["deny 127.0.0.1/24"],
        &["allow ::1", "deny all"],
        &["deny ::/0"],
        &["allow unix:", "deny all"],
        &["deny 0.0.0.0/0", "allow unix:"],
    ];
    let app = App::named("app");
    let dir = Dir::new();
    let (mut locations, mut toml) = (String::new(), String::new());
    for (number, list) in lists.iter().enumerate() {
        let pass = format!("proxy_pass http://{};", app.addr());
        locations += &format!("location /{number}/ {{ {}; {pass} }}\n", list.join("; "));
        toml += &format!(
            "[[server.location]]\npath = '/{number}/'\naccess = {list:?}\nproxy_pass = 'http://{}'\n",
            app.addr()
        );
    }
    let (theirs, ours) = (dir.path("nginx.sock"), dir.path("hopgate.sock"));
    let nginx = Nginx::start(&format!("server {{ listen 80; listen unix:{theirs}; {locations} }}"));
    let hopgate = Hopgate::start(&format!("[[server]]\nlisten = ['127.0.0.1:0', 'unix:{ours}']\n{toml}"));
    let unix = |path: &str| Peer::new("client", UnixStream::connect(path).unwrap());
    for (number, list) in lists.iter().enumerate() {
        let path = format!("/{number}/");
        for last in [1, 2, 5] {
            let expected = from([127, 0, 0, last], nginx.addr(), &path, "").status;
            let got = from([127, 0, 0, last], &hopgate.addr().to_string(), &path, "").status;
            assert_eq!(got, expected, "{list:?} 127.0.0.{last}");
        }
        let expected = answer(unix(&theirs), &path, "").status;
        assert_eq!(answer(unix(&ours), &path, "").status, expected, "{list:?} unix:");
    }
}

#[test]
fn inner_rules_replace_the_outer_ones_as_a_whole() {
    let app = App::named("app");
    let hopgate = Hopgate::start(&format!(
        "access = 'deny all'\n[[server]]\nlisten = '127.0.0.1:0'\n\
         [[server.location]]\npath = '/'\nproxy_pass = 'http://{0}'\n\
         [[server.location]]\npath = '/open/'\naccess = []\nproxy_pass = 'http://{0}'\n\
         [[server.location]]\npath = '/told/'\nreturn = 204\n\
         [[server.location]]\npath = '/some/'\naccess = ['deny 127.0.0.2']\nproxy_pass = 'http://{0}'\n",
        app.addr()
    ));
    assert_eq!(hopgate.get("/").0, 403);
    hopgate.wait_for_log("denied by `access`");
    assert_eq!(hopgate.get("/open/").0, 200);
    assert_eq!(hopgate.get("/some/").0, 200);
    assert_eq!(from([127, 0, 0, 2], &hopgate.addr().to_string(), "/some/", "").status, 403);
    // As in nginx, a `return` answers before anybody is asked.
    assert_eq!(hopgate.get("/told/").0, 204);
}

#[test]
fn a_refused_request_leaves_its_connection_open() {
    let app = App::named("app");
    let hopgate = Hopgate::start(&format!(
        "[[server]]\nlisten = '127.0.0.1:0'\n[[server.location]]\npath = '/'\naccess = 'deny all'\n\
         proxy_pass = 'http://{0}'\n[[server.location]]\npath = '/open'\nproxy_pass = 'http://{0}'\n",
        app.addr()
    ));
    let mut client = hopgate.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    client.expect_status(403);
    client.send("GET /open HTTP/1.1\r\nHost: a\r\n\r\n");
    client.expect_status(200);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    client.expect_status(403);
    client.send("GET /open HTTP/1.1\r\nHost: a\r\n\r\n");
    client.expect_status(200);
}

/// `openssl passwd`, which knows what most files of users are made of.
fn openssl(form: &str, password: &str) -> String {
    let made = Command::new("openssl").args(["passwd", form, "-salt", "saltsalt", password]).output();
    let made = made.expect("openssl can be run, as it can wherever nginx is installed");
    String::from_utf8(made.stdout).unwrap().trim().to_owned()
}

fn users() -> String {
    [
        ("apr1", openssl("-apr1", "password")),
        ("md5", openssl("-1", "password")),
        ("sha256", openssl("-5", "password")),
        ("sha512", openssl("-6", "password")),
        ("des", "sa3tHJ3/KuYvI".to_owned()),
        ("bcrypt", "$2y$05$abcdefghijklmnopqrstuuWG29KuyeAicPCJODk1zjyGvyQUU2awu".to_owned()),
        ("yescrypt", "$y$j9T$abcdefgh$79JhsKZwfY/UU2qrk3QcffpHl7EyEEJK0pA5pD1wu73".to_owned()),
        ("plain", "{PLAIN}password".to_owned()),
        ("sha", "{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=".to_owned()),
        ("ssha", "{SSHA}yI6cZwQadOA1e+/f+T+H3eCQQhRzYWx0:Sasha S.".to_owned()),
        ("bare", "password".to_owned()),
        ("broken1", "$1$".to_owned()),
        ("broken2", "$apr1$".to_owned()),
        ("broken3", "{SSHA}_____wQadOA1e+/f+T+H3eCQQhRzYWx0".to_owned()),
        ("broken4", "{SHA}Zm9vCg==".to_owned()),
        ("#comment", "{PLAIN}password".to_owned()),
        ("empty", String::new()),
        ("twice", "{PLAIN}password".to_owned()),
        ("twice", "{PLAIN}second".to_owned()),
        ("last", "{PLAIN}password".to_owned()),
    ]
    .map(|(user, stored)| format!("{user}:{stored}"))
    .join("\n")
}

#[test]
fn passwords_are_right_where_they_are_for_nginx() {
    if !Nginx::is_installed() {
        return;
    }
    let (app, dir) = (App::named("app"), Dir::new());
    fs::write(dir.join("users"), users()).unwrap();
    let (file, missing) = (dir.path("users"), dir.path("missing"));
    let pass = format!("proxy_pass http://{};", app.addr());
    let nginx = Nginx::start(&format!(
        "server {{ listen 80; auth_basic \"$host only\"; auth_basic_user_file {file}; location / {{ {pass} }}\n\
         location /off/ {{ auth_basic off; {pass} }} location /missing/ {{ auth_basic_user_file {missing}; {pass} }}\n\
         location /dir/ {{ auth_basic_user_file {0}; {pass} }}\n\
         location /var/ {{ auth_basic_user_file $http_x_file; {pass} }} }}",
        dir.path("")
    ));
    let hopgate = Hopgate::start(&format!(
        "[[server]]\nlisten = '127.0.0.1:0'\nauth_basic = '$host only'\nauth_basic_user_file = '{file}'\n\
         [[server.location]]\npath = '/'\nproxy_pass = 'http://{0}'\n\
         [[server.location]]\npath = '/off/'\nauth_basic = 'off'\nproxy_pass = 'http://{0}'\n\
         [[server.location]]\npath = '/missing/'\nauth_basic_user_file = '{missing}'\nproxy_pass = 'http://{0}'\n\
         [[server.location]]\npath = '/dir/'\nauth_basic_user_file = '{1}'\nproxy_pass = 'http://{0}'\n\
         [[server.location]]\npath = '/var/'\nauth_basic_user_file = '$http_x_file'\nproxy_pass = 'http://{0}'\n",
        app.addr(),
        dir.path("").trim_end_matches('/'),
    ));
    let same = |path: &str, fields: &str| {
        let expected = from([127, 0, 0, 1], nginx.addr(), path, fields);
        let got = from([127, 0, 0, 1], &hopgate.addr().to_string(), path, fields);
        assert_eq!(got.status, expected.status, "{path} {fields}");
        assert_eq!(
            got.head.all("WWW-Authenticate"),
            expected.head.all("WWW-Authenticate"),
            "{path} {fields}"
        );
        got.status
    };
    let users = users();
    let names = users.lines().map(|line| line.split(':').next().unwrap());
    let mut let_in = 0;
    for user in names.chain(["nobody", "apr", "Sasha S.", ""]) {
        for password in ["password", "Password", "wrong", "", "second"] {
            let_in += usize::from(same("/", &basic(user, password)) == 200);
        }
    }
    assert_eq!(let_in, 13, "each form of a password lets in who knows it");
    for fields in [
        "",
        "Authorization: Bearer x\r\n",
        "Authorization: Basic !\r\n",
        "Authorization: basic  cGxhaW46cGFzc3dvcmQ\r\n",
    ] {
        same("/", fields);
    }
    assert_eq!(same("/off/", ""), 200);
    assert_eq!(same("/missing/", ""), 401);
    assert_eq!(same("/missing/", &basic("plain", "password")), 403);
    assert_eq!(same("/dir/", &basic("plain", "password")), 500);
    assert_eq!(same("/var/", &format!("X-File: {file}\r\n{}", basic("sha512", "password"))), 200);
    assert_eq!(same("/var/", &format!("X-File: {file}x\r\n{}", basic("sha512", "password"))), 403);
    hopgate.wait_for_log("missing cannot be read");
}

#[test]
fn a_change_of_the_file_of_users_holds_at_once() {
    let (app, dir) = (App::named("app"), Dir::new());
    let file = dir.join("users");
    fs::write(&file, "ann:{PLAIN}one\n").unwrap();
    let hopgate = Hopgate::start(&format!(
        "[[server]]\nlisten = '127.0.0.1:0'\n[[server.location]]\npath = '/'\nauth_basic = 'a'\n\
         auth_basic_user_file = '{}'\nproxy_pass = 'http://{}'\n",
        dir.path("users"),
        app.addr()
    ));
    let status = |password: &str| answer(hopgate.connect(), "/", &basic("ann", password)).status;
    assert_eq!((status("one"), status("two")), (200, 401));
    fs::write(&file, "ann:{PLAIN}two\n").unwrap();
    assert_eq!((status("one"), status("two")), (401, 200));
    fs::remove_file(&file).unwrap();
    assert_eq!(status("two"), 403);
    fs::write(dir.join("new"), "ann:{PLAIN}six\n").unwrap();
    fs::rename(dir.join("new"), &file).unwrap();
    assert_eq!((status("two"), status("six")), (401, 200));
}

#[test]
fn one_guard_or_all_of_them_have_to_be_passed_as_in_nginx() {
    if !Nginx::is_installed() {
        return;
    }
    let (app, dir) = (App::named("app"), Dir::new());
    fs::write(dir.join("users"), "user:{PLAIN}secret").unwrap();
    let (mut locations, mut toml) = (String::new(), String::new());
    let mut paths = Vec::new();
    for satisfy in ["all", "any"] {
        for access in ["", "allow all", "deny all"] {
            for has_password in [false, true] {
                for has_request in [false, true] {
                    let path = format!("/{}/", paths.len());
                    locations +=
                        &format!("location {path} {{ satisfy {satisfy}; proxy_pass http://{};", app.addr());
                    toml += &format!(
                        "[[server.location]]\npath = '{path}'\nsatisfy = '{satisfy}'\nproxy_pass = 'http://{}'\n",
                        app.addr()
                    );
                    if !access.is_empty() {
                        locations += &format!("{access};");
                        toml += &format!("access = '{access}'\n");
                    }
                    if has_password {
                        locations += "auth_basic closed;";
                        toml += "auth_basic = 'closed'\n";
                    }
                    if has_request {
                        locations += "auth_request /auth;";
                        toml += "auth_request = '/auth'\n";
                    }
                    locations += "}\n";
                    paths.push(path);
                }
            }
        }
    }
    let users = dir.path("users");
    let nginx = Nginx::start(&format!(
        "server {{ listen 80; auth_basic_user_file {users}; {locations}\n\
         location = /auth {{ internal; if ($arg_x) {{ return 500; }} if ($http_x_auth) {{ set $y $http_x_auth; }}\n\
         if ($y = 204) {{ return 204; }} if ($y = 401) {{ return 401; }} if ($y = 403) {{ return 403; }} return 404; }} }}"
    ));
    let returns = [204, 401, 403]
        .map(|status| format!("{{ if = '$http_x_auth = {status}', return = {status} }}"))
        .join(", ");
    let hopgate = Hopgate::start(&format!(
        "[[server]]\nlisten = '127.0.0.1:0'\nauth_basic_user_file = '{users}'\n{toml}\n\
         [[server.location]]\npath = '= /auth'\ninternal = true\nrewrite = [{returns}]\nreturn = 404\n"
    ));
    for path in &paths {
        for auth in [204, 401, 403, 404] {
            for password in ["secret", "wrong"] {
                let fields = format!("X-Auth: {auth}\r\n{}", basic("user", password));
                let path = format!("{path}?x=1");
                let expected = from([127, 0, 0, 1], nginx.addr(), &path, &fields);
                let got = from([127, 0, 0, 1], &hopgate.addr().to_string(), &path, &fields);
                assert_eq!(got.status, expected.status, "{path} {auth} {password}\n{locations}");
                // nginx forgets to take the challenge back when an error comes behind it.
                if got.status != 500 {
                    let asks =
                        |response: &Response| response.head.field("WWW-Authenticate").map(str::to_owned);
                    assert_eq!(asks(&got), asks(&expected), "{path} {auth} {password}\n{locations}");
                }
            }
        }
    }
    assert_eq!(answer(hopgate.connect(), "/auth", "").status, 404, "it is internal");
}

#[test]
fn an_upgrade_needs_the_address_and_the_password_that_any_request_needs() {
    let (upstream, dir) = (Upstream::listen(), Dir::new());
    fs::write(dir.join("users"), format!("ann:{}\n", openssl("-6", "one"))).unwrap();
    let hopgate = Hopgate::with_location(
        &upstream,
        &format!(
            "access = ['allow 127.0.0.1', 'deny all']\nauth_basic = 'a'\nauth_basic_user_file = '{}'",
            dir.path("users")
        ),
    );
    let with = |fields: &str| handshake("/").replace("\r\n\r\n", &format!("\r\n{fields}\r\n"));
    let mut client = hopgate.connect_from(Ipv4Addr::new(127, 0, 0, 2));
    client.send(with(&basic("ann", "one")));
    client.expect_status(403);
    let mut client = hopgate.connect();
    client.send(with(&basic("ann", "two")));
    let refused = client.expect_status(401);
    assert_eq!(refused.head.field("WWW-Authenticate"), Some("Basic realm=\"a\""));
    upstream.expect_no_connection(&hopgate);
    let mut client = hopgate.connect();
    client.send(with(&basic("ann", "one")));
    let mut server = upstream.accept();
    server.head();
    server.send(switching());
    client.expect_status(101);
}

#[test]
fn the_client_is_whom_trusted_proxies_name_as_in_nginx() {
    if !Nginx::is_installed() {
        return;
    }
    let echo = Echo::start();
    let variables = "$remote_addr|$remote_port|$realip_remote_addr";
    let trusted = ["127.0.0.1", "10.0.0.0/8", "unix:"];
    let headers = ["X-Forwarded-For", "X-Real-IP", "X-Client"];
    let (mut locations, mut toml) = (String::new(), String::new());
    for (number, header) in headers.iter().enumerate() {
        for (is_on, word) in [(true, "on"), (false, "off")] {
            let set = format!("proxy_pass http://{}; proxy_set_header X-Seen \"{variables}\";", echo.addr());
            locations += &format!(
                "location /{number}{word}/ {{ real_ip_header {header}; real_ip_recursive {word}; {set} }}\n"
            );
            toml += &format!(
                "[[server.location]]\npath = '/{number}{word}/'\nreal_ip_header = '{header}'\n\
                 real_ip_recursive = {is_on}\nproxy_set_header = {{ X-Seen = '{variables}' }}\n\
                 proxy_pass = 'http://{}'\n",
                echo.addr()
            );
        }
    }
    let from_nets: String = trusted.iter().map(|net| format!("set_real_ip_from {net};")).collect();
    let nginx =
        Nginx::start(&format!("{from_nets} real_ip_header X-None; server {{ listen 80; {locations} }}"));
    let hopgate = Hopgate::start(&format!(
        "trusted_proxies = {trusted:?}\nreal_ip_header = 'X-None'\n[[server]]\nlisten = '127.0.0.1:0'\n{toml}"
    ));
    let seen = |response: &Response| {
        let text = response.text();
        text.lines()
            .find_map(|line| line.strip_prefix("X-Seen: ").map(|seen| seen.trim().to_owned()))
            .unwrap()
    };
    let values = [
        &["192.0.2.1"][..],
        &["192.0.2.1:567"],
        &["[2001:db8::1]:80"],
        &["2001:db8::1"],
        &["192.0.2.7, 192.0.2.1, 10.1.1.1"],
        &["192.0.2.7 192.0.2.1,,10.1.1.1 , 127.0.0.1"],
        &["10.0.0.1, 10.0.0.2"],
        &["192.0.2.7", "192.0.2.1, 10.1.1.1"],
        &["192.0.2.1", ","],
        &["192.0.2.1, unknown"],
        &["192.0.2.1, unknown, 10.0.0.1"],
        &["192.0.2.1:0"],
        &["192.0.2.1:99999, 10.0.0.1"],
        &["unknown"],
        &[","],
    ];
    for (number, header) in headers.iter().enumerate() {
        for word in ["on", "off"] {
            for value in values {
                let fields: String = value.iter().map(|value| format!("{header}: {value}\r\n")).collect();
                for peer in [1, 2] {
                    let path = format!("/{number}{word}/");
                    let expected = seen(&from([127, 0, 0, peer], nginx.addr(), &path, &fields));
                    let got = seen(&from([127, 0, 0, peer], &hopgate.addr().to_string(), &path, &fields));
                    // The ports of the two connections are not the same.
                    let plain = |seen: &str| {
                        let parts: Vec<_> = seen.split('|').map(str::to_owned).collect();
                        let is_peer = parts[0] == parts[2];
                        (parts[0].clone(), (!is_peer).then(|| parts[1].clone()), parts[2].clone())
                    };
                    assert_eq!(plain(&got), plain(&expected), "{path} 127.0.0.{peer} {fields}");
                }
            }
        }
    }
}

#[test]
fn rules_and_limits_are_about_the_client_behind_the_proxy() {
    let (app, dir) = (App::named("app"), Dir::new());
    let hopgate = Hopgate::start(&format!(
        "trusted_proxies = 'unix:'\nreal_ip_header = 'Forwarded'\n[[server]]\nlisten = ['unix:{}']\n\
         [[server.location]]\npath = '/'\naccess = ['allow 192.0.2.0/24', 'allow unix:', 'deny all']\n\
         proxy_pass = 'http://{}'\n",
        dir.path("hopgate.sock"),
        app.addr()
    ));
    let status =
        |fields: &str| answer(hopgate.connect_unix(Path::new(&dir.path("hopgate.sock"))), "/", fields).status;
    eventually("the socket is there", || dir.join("hopgate.sock").exists());
    assert_eq!(status(""), 200);
    assert_eq!(status("Forwarded: for=192.0.2.7;proto=https\r\n"), 200);
    assert_eq!(status("Forwarded: for=192.0.2.7, for=\"[2001:db8::1]:4711\"\r\n"), 403);
    assert_eq!(status("X-Forwarded-For: 198.51.100.1\r\n"), 200);
}
