//! TLS towards upstreams: whom hopgate believes, what it tells them, and what the log says where that fails.

mod support;

use std::fs;
use std::process::Command;

use rcgen::{CertificateParams, date_time_ymd};
use support::{
    App, Authority, Dir, Hopgate, Issued, Nginx, NodeApp, TlsUpstream, Upstream, certificate, for_clients,
    free_addr,
};

/// A configuration with one location for each of the paths.
fn configuration(top: &str, locations: &[(&str, &str)]) -> String {
    let mut text = format!("workers = 1\n{top}\n[[server]]\nlisten = '127.0.0.1:0'\n");
    for (path, lines) in locations {
        text.push_str(&format!("[[server.location]]\npath = '{path}'\n{lines}\n"));
    }
    text
}

const BOTH: &str = "TLSv1.2 TLSv1.3";

/// An nginx with a certificate for `app.test` and the address, which tells what it knows of the connection.
fn nginx(authority: &Authority, versions: &str, more: &str) -> (Nginx, String) {
    let dir = Dir::new();
    authority.issue(&["app.test", "127.0.0.1"]).write(&dir, "server");
    fs::write(dir.join("ca.pem"), authority.pem()).expect("a file can be written");
    let addr = free_addr().to_string();
    let told = "$ssl_server_name|$ssl_protocol|$ssl_client_verify|$ssl_client_s_dn|$ssl_alpn_protocol";
    let nginx = Nginx::start_in(
        dir,
        &format!(
            "server {{ listen {addr} ssl; ssl_certificate server.pem; ssl_certificate_key server.key; {more}\n\
             ssl_protocols {versions}; location / {{ return 200 '{told}'; }} }}"
        ),
    );
    (nginx, addr)
}

#[test]
fn an_upstream_is_told_what_the_location_says() {
    let (authority, clients) = (Authority::new("hopgate test CA"), Authority::new("CA of clients"));
    let dir = Dir::new();
    fs::write(dir.join("ca.pem"), authority.pem()).unwrap();
    clients.sign(for_clients("hopgate")).write(&dir, "client");
    clients.sign_version_1("hopgate").write(&dir, "version-1");
    let ca_of_clients = Dir::new();
    fs::write(ca_of_clients.join("ca.pem"), clients.pem()).unwrap();
    let more =
        format!("ssl_verify_client optional; ssl_client_certificate {};", ca_of_clients.path("ca.pem"));
    let (_nginx, addr) = nginx(&authority, BOTH, &more);
    let pass = format!("proxy_pass = 'https://{addr}'");
    let client = format!(
        "proxy_ssl_certificate = '{}'\nproxy_ssl_certificate_key = '{}'",
        dir.path("client.pem"),
        dir.path("client.key")
    );
    let hopgate = Hopgate::start(&configuration(
        &format!("proxy_ssl_trusted_certificate = '{}'", dir.path("ca.pem")),
        &[
            ("/address", &pass),
            ("/name", &format!("{pass}\nproxy_ssl_name = 'app.test'")),
            ("/variable", &format!("{pass}\nproxy_ssl_name = '$arg_name'")),
            ("/silent", &format!("{pass}\nproxy_ssl_name = 'app.test'\nproxy_ssl_server_name = false")),
            ("/old", &format!("{pass}\nproxy_ssl_protocols = 'TLSv1.2'")),
            ("/new", &format!("{pass}\nproxy_ssl_protocols = ['TLSv1.3']")),
            ("/client", &format!("{pass}\n{client}")),
            ("/client-old", &format!("{pass}\n{client}\nproxy_ssl_protocols = 'TLSv1.2'")),
            ("/client-version-1", &format!("{pass}\n{}", client.replace("client.", "version-1."))),
            ("/any", &format!("{pass}\nproxy_ssl_verify = false\nproxy_ssl_name = 'other.test'")),
            ("/any-old", &format!("{pass}\nproxy_ssl_verify = false\nproxy_ssl_protocols = 'TLSv1.2'")),
        ],
    ));
    for (target, told) in [
        // RFC 6066 §3: an address is no name to be told.
        ("/address", "|TLSv1.3|NONE||http/1.1"),
        ("/name", "app.test|TLSv1.3|NONE||http/1.1"),
        ("/variable?name=app.test", "app.test|TLSv1.3|NONE||http/1.1"),
        ("/variable?name=app.test:8443", "app.test|TLSv1.3|NONE||http/1.1"),
        ("/silent", "|TLSv1.3|NONE||http/1.1"),
        ("/old", "|TLSv1.2|NONE||http/1.1"),
        ("/new", "|TLSv1.3|NONE||http/1.1"),
        ("/client", "|TLSv1.3|SUCCESS|CN=hopgate|http/1.1"),
        ("/client-version-1", "|TLSv1.3|SUCCESS|CN=hopgate|http/1.1"),
        ("/client-old", "|TLSv1.2|SUCCESS|CN=hopgate|http/1.1"),
        ("/any", "other.test|TLSv1.3|NONE||http/1.1"),
        ("/any-old", "|TLSv1.2|NONE||http/1.1"),
    ] {
        assert_eq!(hopgate.get(target), (200, told.to_owned()), "{target}\n{}", hopgate.log());
    }
    assert_eq!(hopgate.get("/variable").0, 500);
    hopgate.wait_for_log(
        "the name of the upstream's certificate would be ``, and that is none: set `proxy_ssl_name`",
    );
    let warning = hopgate.wait_for_log("`proxy_ssl_verify = false`: whoever is on the way");
    assert!(warning.contains("WARN"), "{warning}");
}

/// A server with this certificate that answers every handshake that succeeds.
fn answering(issued: &Issued) -> String {
    let upstream = TlsUpstream::with(issued);
    let addr = upstream.addr();
    std::thread::spawn(move || {
        loop {
            if let Ok(mut peer) = upstream.accept_for_ever() {
                peer.head();
                peer.respond("ok");
            }
        }
    });
    addr
}

#[test]
fn a_certificate_that_is_not_believed_is_a_502_and_the_log_says_why() {
    let (authority, other) = (Authority::new("hopgate test CA"), Authority::new("another CA"));
    let dir = Dir::new();
    fs::write(dir.join("ca.pem"), authority.pem()).unwrap();
    let sign = |change: fn(&mut CertificateParams)| {
        let mut params = certificate("a server", &["127.0.0.1"]);
        change(&mut params);
        answering(&authority.sign(params))
    };
    let good = authority.issue(&["127.0.0.1"]);
    let revoked = authority.issue(&["127.0.0.1"]);
    fs::write(dir.join("crl.pem"), authority.revocations(&[&revoked])).unwrap();
    fs::write(dir.join("other-crl.pem"), other.revocations(&[])).unwrap();
    let plain = Nginx::start("server { listen 80; return 200; }");
    let (good, revoked) = (answering(&good), answering(&revoked));
    let crl = format!("proxy_ssl_crl = '{}'", dir.path("crl.pem"));
    let rows = [
        (
            answering(&other.issue(&["127.0.0.1"])),
            "",
            "the issuer of its certificate is not trusted (CN=another CA): name a file with that CA in \
             `proxy_ssl_trusted_certificate`",
        ),
        (
            answering(&Issued::by_itself(&["127.0.0.1"])),
            "",
            "its certificate is self-signed (CN=by itself), and not trusted",
        ),
        (
            sign(|params| params.not_after = date_time_ymd(2021, 3, 4)),
            "",
            "its certificate, or one that it was issued by, has expired on Thu, 04 Mar 2021 00:00:00 GMT",
        ),
        (
            sign(|params| params.not_before = date_time_ymd(2077, 3, 4)),
            "",
            "its certificate, or one that it was issued by, is not valid before Thu, 04 Mar 2077 00:00:00 GMT",
        ),
        (
            answering(&authority.issue(&["www.app.test", "*.app.test"])),
            "proxy_ssl_name = 'app.test'",
            "its certificate is not for `app.test`, but for `www.app.test`, `*.app.test`: set `proxy_ssl_name`",
        ),
        (
            answering(&authority.issue(&["app.test"])),
            "",
            "its certificate is not for `127.0.0.1`, but for `app.test`: set `proxy_ssl_name` to a name that it has",
        ),
        (answering(&authority.issue(&[])), "", "its certificate is for no name (it has no subjectAltName"),
        (
            answering(&authority.sign_version_1("127.0.0.1")),
            "",
            "its certificate is of X.509 version 1, which has no names in it",
        ),
        (
            answering(&authority.sign(for_clients("127.0.0.1"))),
            "",
            "its certificate is not for servers (extended key usage)",
        ),
        (revoked.clone(), &crl, "its certificate, or one that it was issued by, is revoked"),
        (
            good.clone(),
            &format!("proxy_ssl_crl = '{}'", dir.path("other-crl.pem")),
            "`proxy_ssl_crl` has no list of the issuer of its certificate",
        ),
        (plain.addr().to_owned(), "", "it does not speak TLS there: write `http://` in `proxy_pass`"),
    ];
    let locations: Vec<(String, String)> = rows
        .iter()
        .enumerate()
        .map(|(row, (addr, lines, _))| {
            (format!("/{row}/"), format!("proxy_pass = 'https://{addr}'\n{lines}"))
        })
        .chain([
            ("/good/".to_owned(), format!("proxy_pass = 'https://{good}'\n{crl}")),
            ("/not-asked/".to_owned(), format!("proxy_pass = 'https://{revoked}'")),
        ])
        .collect();
    let locations: Vec<(&str, &str)> =
        locations.iter().map(|(path, lines)| (path.as_str(), lines.as_str())).collect();
    let top = format!("proxy_ssl_trusted_certificate = '{}'", dir.path("ca.pem"));
    let hopgate = Hopgate::start(&configuration(&top, &locations));
    for (row, (_, _, why)) in rows.iter().enumerate() {
        assert_eq!(hopgate.get(&format!("/{row}/")).0, 502, "{why}");
        let line = hopgate.wait_for_log(&format!("TLS with the upstream has failed: {why}"));
        assert!(line.contains("WARN") && line.contains(&format!("GET /{row}/")), "{line}");
    }
    for target in ["/good/", "/not-asked/"] {
        assert_eq!(hopgate.get(target), (200, "ok".to_owned()), "{target}\n{}", hopgate.log());
    }
}

#[test]
fn a_self_signed_certificate_can_be_trusted_by_itself() {
    let issued = Issued::by_itself(&["app.test"]);
    let dir = Dir::new();
    issued.write(&dir, "server");
    let addr = answering(&issued);
    let another = answering(&Issued::by_itself(&["app.test"]));
    let lines = |addr: &str, name: &str| format!("proxy_pass = 'https://{addr}'\nproxy_ssl_name = '{name}'");
    let hopgate = Hopgate::start(&configuration(
        &format!("proxy_ssl_trusted_certificate = '{}'", dir.path("server.pem")),
        &[
            ("/", &lines(&addr, "app.test")),
            ("/name", &lines(&addr, "other.test")),
            ("/another", &lines(&another, "app.test")),
        ],
    ));
    assert_eq!(hopgate.get("/"), (200, "ok".to_owned()), "{}", hopgate.log());
    assert_eq!(hopgate.get("/name").0, 502);
    hopgate.wait_for_log("its certificate is not for `other.test`, but for `app.test`");
    assert_eq!(hopgate.get("/another").0, 502);
    hopgate.wait_for_log("its certificate is self-signed (CN=by itself), and not trusted");
}

#[test]
fn an_upstream_that_refuses_the_handshake_is_a_502_and_the_log_says_what_it_wants() {
    let (authority, clients) = (Authority::new("hopgate test CA"), Authority::new("CA of clients"));
    let dir = Dir::new();
    fs::write(dir.join("ca.pem"), authority.pem()).unwrap();
    clients.sign(for_clients("hopgate")).write(&dir, "client");
    Authority::new("nobody").sign(for_clients("stranger")).write(&dir, "stranger");
    let upstream = TlsUpstream::for_clients_of(&authority.issue(&["127.0.0.1"]), &clients);
    let pass = format!("proxy_pass = 'https://{}'", upstream.addr());
    let shows = |name: &str| {
        let (certificate, key) = (dir.path(&format!("{name}.pem")), dir.path(&format!("{name}.key")));
        format!("{pass}\nproxy_ssl_certificate = '{certificate}'\nproxy_ssl_certificate_key = '{key}'")
    };
    let old = "proxy_ssl_protocols = 'TLSv1.2'";
    let (nginx, nginx_addr) = nginx(&authority, "TLSv1.2", "");
    let hopgate = Hopgate::start(&configuration(
        &format!("proxy_ssl_trusted_certificate = '{}'", dir.path("ca.pem")),
        &[
            ("/none", &pass),
            ("/none-old", &format!("{pass}\n{old}")),
            ("/stranger", &shows("stranger")),
            ("/stranger-old", &format!("{}\n{old}", shows("stranger"))),
            ("/client", &shows("client")),
            ("/version", &format!("proxy_pass = 'https://{nginx_addr}'\nproxy_ssl_protocols = 'TLSv1.3'")),
            ("/version-old", &format!("proxy_pass = 'https://{nginx_addr}'")),
        ],
    ));
    let wants = "it wants a client certificate (CertificateRequired): write `proxy_ssl_certificate` and \
                 `proxy_ssl_certificate_key`";
    let refused = "it does not take the certificate of `proxy_ssl_certificate` (UnknownCA)";
    for (target, why) in
        [("/none", wants), ("/stranger", refused), ("/none-old", wants), ("/stranger-old", refused)]
    {
        let asked = std::thread::scope(|scope| {
            let accepted = scope.spawn(|| upstream.accept().err());
            let answer = hopgate.get(target).0;
            assert!(accepted.join().expect("no panic").is_some(), "{target}");
            answer
        });
        assert_eq!(asked, 502, "{target}");
        let line = hopgate.wait_for_log(&format!("GET {target} "));
        assert!(line.contains(&format!("TLS with the upstream has failed: {why}")), "{target}: {line}");
    }
    let answer = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut peer = upstream.accept().expect("a handshake");
            peer.head();
            peer.respond("welcome");
        });
        hopgate.get("/client")
    });
    assert_eq!(answer, (200, "welcome".to_owned()));
    assert_eq!(hopgate.get("/version").0, 502);
    hopgate.wait_for_log("it speaks none of the versions of `proxy_ssl_protocols`");
    assert_eq!(hopgate.get("/version-old"), (200, "|TLSv1.2|NONE||http/1.1".to_owned()));
    drop(nginx);
}

#[test]
fn node_behind_tls_is_served_with_and_without_a_client_certificate() {
    let (authority, clients) = (Authority::new("hopgate test CA"), Authority::new("CA of clients"));
    let dir = Dir::new();
    fs::write(dir.join("ca.pem"), authority.pem()).unwrap();
    fs::write(dir.join("clients.pem"), clients.pem()).unwrap();
    authority.issue(&["app.test"]).write(&dir, "server");
    clients.sign(for_clients("hopgate")).write(&dir, "client");
    let (certificate, key) = (dir.path("server.pem"), dir.path("server.key"));
    let open = NodeApp::secure(&[&certificate, &key]);
    let closed = NodeApp::secure(&[&certificate, &key, &dir.path("clients.pem")]);
    let client = format!(
        "proxy_ssl_certificate = '{}'\nproxy_ssl_certificate_key = '{}'",
        dir.path("client.pem"),
        dir.path("client.key")
    );
    let hopgate = Hopgate::start(&configuration(
        &format!("proxy_ssl_trusted_certificate = '{}'\nproxy_ssl_name = 'app.test'", dir.path("ca.pem")),
        &[
            ("/open", &format!("proxy_pass = 'https://{}'", open.addr())),
            ("/closed", &format!("proxy_pass = 'https://{}'", closed.addr())),
            ("/client", &format!("proxy_pass = 'https://{}'\n{client}", closed.addr())),
        ],
    ));
    let told = |client: &str| {
        format!(r#"{{"host":"a","version":"1.1","name":"app.test","protocol":"TLSv1.3","client":{client}}}"#)
    };
    assert_eq!(hopgate.get("/open"), (200, told("null")), "{}", hopgate.log());
    assert_eq!(hopgate.get("/client"), (200, told("\"hopgate\"")), "{}", hopgate.log());
    assert_eq!(hopgate.get("/closed").0, 502);
    hopgate.wait_for_log(
        "TLS with the upstream has failed: it wants a client certificate (CertificateRequired)",
    );
}

#[test]
fn what_variables_make_may_be_https() {
    let authority = Authority::new("hopgate test CA");
    let dir = Dir::new();
    fs::write(dir.join("ca.pem"), authority.pem()).unwrap();
    let (_nginx, addr) = nginx(&authority, BOTH, "");
    let port = addr.rsplit_once(':').unwrap().1;
    let plain = App::named("plain");
    let hopgate = Hopgate::start(&configuration(
        &format!(
            "proxy_ssl_trusted_certificate = '{}'\nlog_format = {{ t = '$uri $proxy_host $proxy_port' }}\n\
             access_log = 'stdout t'\n[upstream.\"app.test\"]\nserver = '{addr}'",
            dir.path("ca.pem")
        ),
        &[
            ("/host", "proxy_pass = 'https://$arg_to/'"),
            ("/all", "proxy_pass = '$arg_to'"),
            ("/group", "proxy_pass = 'https://app.test'"),
        ],
    ));
    let told = |name: &str| (200, format!("{name}|TLSv1.3|NONE||http/1.1"));
    assert_eq!(hopgate.get(&format!("/host?to={addr}")), told(""), "{}", hopgate.log());
    assert_eq!(hopgate.get("/host?to=app.test"), told("app.test"));
    hopgate.wait_for_access("/host app.test 443");
    assert_eq!(hopgate.get("/group"), told("app.test"));
    assert_eq!(hopgate.get(&format!("/all?to=https://{addr}/x")), told(""));
    assert_eq!(hopgate.get(&format!("/all?to=http://{}/x", plain.addr())), (200, "plain".to_owned()));
    // The name of the host is looked for in the certificate, not that of the location.
    assert_eq!(hopgate.get(&format!("/host?to=localhost:{port}")).0, 502);
    hopgate.wait_for_log("its certificate is not for `localhost`, but for `app.test`");
}

#[test]
fn one_upstream_behind_tls_needs_no_file() {
    let authority = Authority::new("hopgate test CA");
    let dir = Dir::new();
    fs::write(dir.join("ca.pem"), authority.pem()).unwrap();
    let (_nginx, addr) = nginx(&authority, BOTH, "");
    let args = ["run", "--listen", "127.0.0.1:0", "--upstream", &format!("https://{addr}")];
    let hopgate = Hopgate::quick_with_env(&args, &[("SSL_CERT_FILE", &dir.path("ca.pem"))]);
    assert_eq!(hopgate.get("/"), (200, "|TLSv1.3|NONE||http/1.1".to_owned()), "{}", hopgate.log());
    // The CAs of this machine do not know that of the test.
    fs::write(dir.join("other.pem"), Authority::new("another CA").pem()).unwrap();
    let hopgate = Hopgate::quick_with_env(&args, &[("SSL_CERT_FILE", &dir.path("other.pem"))]);
    assert_eq!(hopgate.get("/").0, 502);
    hopgate.wait_for_log("the issuer of its certificate is not trusted (CN=hopgate test CA)");
}

/// What `hopgate check` says of a configuration, and its exit code.
fn check(toml: &str, env: &[(&str, &str)], args: &[&str]) -> (i32, String) {
    let dir = Dir::new();
    fs::write(dir.join("hopgate.toml"), toml).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_hopgate"))
        .args(["check", "--config", &dir.path("hopgate.toml")])
        .args(args)
        .envs(env.iter().copied())
        .output()
        .expect("hopgate can be run");
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_system_without_cas_is_a_mistake_that_says_what_helps_and_only_where_they_are_needed() {
    let nowhere = [("SSL_CERT_FILE", "/no/such/file"), ("SSL_CERT_DIR", "/no/such/dir")];
    let needed = configuration("", &[("/", "proxy_pass = 'https://app.example.com'")]);
    let (code, said) = check(&needed, &nowhere, &[]);
    assert_eq!(code, 1);
    for words in
        ["this system has no certificates of CAs", "ca-certificates", "proxy_ssl_trusted_certificate"]
    {
        assert!(said.contains(words), "{said}");
    }
    let dir = Dir::new();
    fs::write(dir.join("ca.pem"), Authority::new("a CA").pem()).unwrap();
    let trusted = format!("proxy_ssl_trusted_certificate = '{}'", dir.path("ca.pem"));
    for config in [
        configuration("", &[("/", "proxy_pass = 'http://app.example.com'")]),
        configuration("", &[("/", "proxy_pass = 'http://$host:80'")]),
        configuration(&trusted, &[("/", "proxy_pass = 'https://app.example.com'")]),
        configuration("proxy_ssl_verify = false", &[("/", "proxy_pass = 'https://app.example.com'")]),
    ] {
        let (code, said) = check(&config, &nowhere, &[]);
        assert_eq!(code, 0, "{config}\n{said}");
    }
}

#[test]
fn verification_that_is_off_is_a_warning_and_with_strict_a_mistake() {
    let config =
        configuration("", &[("/", "proxy_pass = 'https://app.example.com'\nproxy_ssl_verify = false")]);
    let (code, said) = check(&config, &[], &[]);
    assert!(code == 0 && said.contains("warning: ") && said.contains("`proxy_ssl_verify = false`"), "{said}");
    assert_eq!(check(&config, &[], &["--strict"]).0, 1);
}

#[test]
fn files_that_cannot_be_used_are_mistakes_that_name_file_and_reason() {
    let authority = Authority::new("a CA");
    let dir = Dir::new();
    let write = |name: &str, bytes: &[u8]| fs::write(dir.join(name), bytes).unwrap();
    authority.sign(for_clients("one")).write(&dir, "one");
    authority.sign(for_clients("two")).write(&dir, "two");
    authority.sign_version_1("three").write(&dir, "three");
    let mut old = for_clients("old");
    old.not_after = date_time_ymd(2021, 3, 4);
    authority.sign(old).write(&dir, "old");
    write("ca.pem", authority.pem().as_bytes());
    write("ca.der", authority.der());
    write("empty.pem", b"");
    write("cut.pem", &authority.pem().as_bytes()[..100]);
    write("broken.pem", authority.pem().replace("MII", "!!!").as_bytes());
    write(
        "locked.key",
        b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    let pair = |certificate: &str, key: &str| {
        let (certificate, key) = (dir.path(certificate), dir.path(key));
        format!("proxy_ssl_certificate = '{certificate}'\nproxy_ssl_certificate_key = '{key}'")
    };
    let trusted = |name: &str| format!("proxy_ssl_trusted_certificate = '{}'", dir.path(name));
    for (lines, code, wanted) in [
        (trusted("none.pem"), 1, "none.pem cannot be read: No such file or directory"),
        (trusted("empty.pem"), 1, "has no certificate in it"),
        (trusted("ca.der"), 1, "it is DER"),
        (trusted("broken.pem"), 1, "broken.pem is no proper PEM"),
        (
            trusted("cut.pem"),
            1,
            "cut.pem is no proper PEM: it ends before a line `-----END CERTIFICATE-----`",
        ),
        (trusted("one.key"), 1, "has no certificate in it"),
        (format!("proxy_ssl_crl = '{}'", dir.path("ca.pem")), 1, "has no list of revoked certificates in it"),
        (pair("one.pem", "two.key"), 1, "two.key is not that of the certificate in "),
        (pair("one.pem", "one.pem"), 1, "has no private key in it"),
        (pair("one.pem", "locked.key"), 1, "locked.key has a key that is encrypted"),
        (
            pair("old.pem", "old.key"),
            0,
            "old.pem has a certificate that expired on Thu, 04 Mar 2021 00:00:00 GMT",
        ),
        (pair("one.pem", "one.key"), 0, ""),
        // As `openssl x509 -req` makes them without further words.
        (pair("three.pem", "three.key"), 0, ""),
        (pair("three.pem", "one.key"), 1, "one.key is not that of the certificate in "),
        (trusted("ca.pem"), 0, ""),
    ] {
        let config = configuration(&lines, &[("/", "proxy_pass = 'https://app.example.com'")]);
        let (got, said) = check(&config, &[], &[]);
        assert!(got == code && said.contains(wanted), "{lines}\nexpected: {wanted}\n     got: {said}");
    }
}

#[test]
fn a_server_that_does_not_finish_the_handshake_is_a_504_or_passed_over() {
    let authority = Authority::new("hopgate test CA");
    let dir = Dir::new();
    fs::write(dir.join("ca.pem"), authority.pem()).unwrap();
    let good = answering(&authority.issue(&["app.test"]));
    let (silent, plain) = (Upstream::listen(), Nginx::start("server { listen 80; return 200; }"));
    let hopgate = Hopgate::start(&configuration(
        &format!(
            "proxy_connect_timeout = '300ms'\nproxy_ssl_trusted_certificate = '{}'\nproxy_ssl_name = 'app.test'\n\
             [upstream.slow]\nserver = ['{silent}', '{good}']\n[upstream.wrong]\nserver = ['{}', '{good}']",
            dir.path("ca.pem"),
            plain.addr(),
            silent = silent.addr(),
        ),
        &[
            ("/silent", &format!("proxy_pass = 'https://{}'", silent.addr())),
            ("/slow", "proxy_pass = 'https://slow'"),
            ("/wrong", "proxy_pass = 'https://wrong'"),
        ],
    ));
    assert_eq!(hopgate.get("/silent").0, 504);
    hopgate.wait_for_log("did not finish the handshake of TLS within `proxy_connect_timeout`");
    assert_eq!(hopgate.get("/slow"), (200, "ok".to_owned()), "{}", hopgate.log());
    // `error` of `proxy_next_upstream`, of which nothing is sent before the handshake is through.
    assert_eq!(hopgate.get("/wrong"), (200, "ok".to_owned()), "{}", hopgate.log());
    hopgate.wait_for_log("passed over, another server is tried: it does not speak TLS there");
}
