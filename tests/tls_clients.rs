//! Client certificates: who is let in, what the app is told of them, and what those get who are not, beside nginx.

mod support;

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use rcgen::{DnType, DnValue, ExtendedKeyUsagePurpose, SanType, date_time_ymd};
use rustls::version::{TLS12, TLS13};
use support::{
    Authority, Dir, Hopgate, Http2, Issued, Nginx, TlsClient, Upstream, certificate, eventually, for_clients,
    free_addr,
};

/// Authorities, and what they have issued.
struct World {
    servers: Authority,
    clients: Authority,
    dir: Dir,
}

impl World {
    fn new() -> Self {
        let (servers, clients) = (Authority::new("CA of servers"), Authority::new("CA of clients"));
        let dir = Dir::new();
        servers.issue(&["app.test", "other.test", "open.test", "same.test"]).write(&dir, "app");
        fs::write(dir.join("clients.pem"), clients.pem()).unwrap();
        fs::write(dir.join("others.pem"), Authority::new("CA of others").pem()).unwrap();
        Self { servers, clients, dir }
    }

    /// A configuration with these lines at the top of it.
    fn config(&self, addr: &str, top: &str, servers: &str) -> String {
        format!(
            "workers = 1\nssl_certificate = '{0}/app.pem'\nssl_certificate_key = '{0}/app.key'\n{top}\n{servers}\n",
            self.dir.path("").trim_end_matches('/')
        )
        .replace("LISTEN", &format!("{addr} ssl"))
        .replace("DIR", self.dir.path("").trim_end_matches('/'))
    }

    fn client(&self, name: &str, own: Option<&Issued>) -> TlsClient {
        TlsClient::with(&self.servers, name, rustls::ALL_VERSIONS, own)
    }
}

/// Asks for `/`, and takes the answer in one line.
#[track_caller]
fn ask(client: &TlsClient, addr: SocketAddr, host: &str) -> String {
    let mut client = client.open(addr);
    client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"));
    let answer = client.response();
    let text = answer.text();
    // Both have words of their own for errors.
    if answer.status == 400 { "400".to_owned() } else { format!("{} {}", answer.status, text.trim_end()) }
}

fn params(change: impl FnOnce(&mut rcgen::CertificateParams)) -> rcgen::CertificateParams {
    let mut params = for_clients("client");
    change(&mut params);
    params
}

/// Every certificate that a client may come with, and what it is.
fn certificates(world: &World) -> Vec<(&'static str, Option<Issued>)> {
    let clients = &world.clients;
    let revoked = clients.sign(for_clients("revoked"));
    let revoked_version_1 = clients.sign_version_1("revoked");
    let list = clients.revocations(&[&revoked, &revoked_version_1]);
    fs::write(world.dir.join("crl.pem"), list).unwrap();
    let mut expired = for_clients("expired");
    (expired.not_before, expired.not_after) = (date_time_ymd(2019, 1, 1), date_time_ymd(2020, 1, 1));
    let mut early = for_clients("early");
    (early.not_before, early.not_after) = (date_time_ymd(2058, 1, 1), date_time_ymd(2059, 1, 1));
    vec![
        ("none", None),
        ("good", Some(clients.sign(for_clients("good")))),
        ("any purpose", Some(clients.sign(certificate("any purpose", &[])))),
        ("revoked", Some(revoked)),
        ("version 1", Some(clients.sign_version_1("client"))),
        ("version 1, revoked", Some(revoked_version_1)),
        ("version 1, stranger", Some(Authority::new("nobody").sign_version_1("stranger"))),
        // Whoever calls itself as the CA does is not it.
        ("version 1, impostor", Some(Authority::new("CA of clients").sign_version_1("impostor"))),
        ("expired", Some(clients.sign(expired))),
        ("early", Some(clients.sign(early))),
        ("stranger", Some(Authority::new("nobody").sign(for_clients("stranger")))),
        ("by itself", Some(Issued::by_itself(&["self.test"]))),
        (
            "for servers",
            Some(clients.sign(params(|params| {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            }))),
        ),
    ]
}

/// nginx on configurations that say the same, listening on `addr`.
fn nginx(world: &World, addr: &str, servers: &str) -> Nginx {
    let dir = world.dir.path("");
    let servers = servers.replace("LISTEN", &format!("{addr} ssl")).replace("DIR", dir.trim_end_matches('/'));
    let nginx = Nginx::start_in(
        Dir::new(),
        &format!(
            "ssl_certificate {dir}app.pem; ssl_certificate_key {dir}app.key;\n\
             ssl_protocols TLSv1.2 TLSv1.3;\n{servers}"
        ),
    );
    eventually("nginx listens", || TcpStream::connect(addr).is_ok());
    nginx
}

#[test]
fn whoever_is_let_in_by_nginx_is_let_in() {
    if !Nginx::is_installed() {
        return;
    }
    let world = World::new();
    let all = certificates(&world);
    let itself = all.iter().find(|(what, _)| *what == "by itself").and_then(|(_, own)| own.as_ref());
    fs::write(world.dir.join("itself.pem"), itself.unwrap().pem()).unwrap();
    let rows = [
        ("off", ""),
        ("on", "clients.pem"),
        ("optional", "clients.pem"),
        ("optional_no_ca", "clients.pem"),
        ("optional_no_ca", ""),
        ("on", "clients.pem crl.pem"),
        ("optional", "clients.pem crl.pem"),
        ("optional_no_ca", "clients.pem crl.pem"),
        ("on", "others.pem"),
        ("on", "itself.pem"),
        ("optional", "itself.pem"),
    ];
    let (mut toml, mut conf, mut addrs) = (String::new(), String::new(), Vec::new());
    for (ask, files) in rows {
        let (ours, theirs) = (free_addr(), free_addr());
        let mut names = files.split_whitespace();
        let (ca, crl) = (names.next(), names.next());
        let line = |key: &str, file: Option<&str>, equals: &str, quote: &str, end: &str| {
            file.map_or_else(String::new, |file| format!("{key}{equals}{quote}DIR/{file}{quote}{end}\n"))
        };
        toml += &format!(
            "[[server]]\nlisten = '{ours} ssl'\nssl_verify_client = '{ask}'\n{}{}\
             return = '200 \"$ssl_client_verify\"'\n",
            line("ssl_client_certificate", ca, " = ", "'", ""),
            line("ssl_crl", crl, " = ", "'", "")
        );
        conf += &format!(
            "server {{ listen {theirs} ssl; ssl_verify_client {ask}; {}{}\n\
             location / {{ return 200 '$ssl_client_verify'; }} }}\n",
            line("ssl_client_certificate", ca, " ", "", ";"),
            line("ssl_crl", crl, " ", "", ";")
        );
        addrs.push((ours, theirs));
    }
    let _hopgate = Hopgate::start(&world.config("", "", &toml));
    let _nginx = nginx(&world, &addrs[0].1.to_string(), &conf);
    let mut wrong = String::new();
    for ((verify, files), (ours, theirs)) in rows.into_iter().zip(addrs) {
        for (what, own) in &all {
            for version in [&TLS12, &TLS13] {
                let client = TlsClient::with(&world.servers, "app.test", &[version], own.as_ref());
                let (got, expected) = (ask(&client, ours, "app.test"), ask(&client, theirs, "app.test"));
                if got != expected {
                    wrong +=
                        &format!("{verify} {files}, {what}\n    hopgate: {got}\n      nginx: {expected}\n");
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

const VARIABLES: [&str; 24] = [
    "https",
    "scheme",
    "ssl_protocol",
    "ssl_cipher",
    "ssl_curve",
    "ssl_server_name",
    "ssl_session_reused",
    "ssl_alpn_protocol",
    "ssl_client_verify",
    "ssl_client_s_dn",
    "ssl_client_i_dn",
    "ssl_client_serial",
    "ssl_client_fingerprint",
    "ssl_client_raw_cert",
    "ssl_client_escaped_cert",
    "ssl_client_v_start",
    "ssl_client_v_end",
    "ssl_client_v_remain",
    "ssl_early_data",
    "server_name",
    "server_port",
    "host",
    "request_id_",
    "ssl_client_cert_",
];

#[test]
fn the_variables_have_the_values_that_they_have_in_nginx() {
    if !Nginx::is_installed() {
        return;
    }
    let world = World::new();
    let mut long = certificate("Müller & Söhne, \"GmbH\" + <Co>; #1 \\ ", &["a.test"]);
    long.distinguished_name.push(DnType::CountryName, DnValue::PrintableString("DE".try_into().unwrap()));
    long.distinguished_name.push(DnType::OrganizationName, "Ünïcode, Inc.");
    long.distinguished_name.push(DnType::OrganizationalUnitName, " spaces ");
    long.distinguished_name.push(DnType::StateOrProvinceName, "#Berlin");
    long.distinguished_name.push(DnType::LocalityName, "東京");
    long.distinguished_name.push(DnType::CustomDnType(vec![1, 2, 840, 113549, 1, 9, 1]), "me@example.com");
    long.distinguished_name.push(DnType::CustomDnType(vec![0, 9, 2342, 19200300, 100, 1, 1]), "uid-7");
    long.distinguished_name.push(DnType::CustomDnType(vec![1, 2, 3, 4, 5]), "unknown");
    long.subject_alt_names.push(SanType::Rfc822Name("me@example.com".try_into().unwrap()));
    let mut serial = for_clients("leading zero");
    serial.serial_number = Some(vec![0x0a, 0x00, 0xff].into());
    let mut high = for_clients("high bit");
    high.serial_number = Some(vec![0xff; 16].into());
    (high.not_before, high.not_after) = (date_time_ymd(2001, 2, 3), date_time_ymd(2055, 12, 31));
    let shown = [
        None,
        Some(world.clients.sign(long)),
        Some(world.clients.sign(serial)),
        Some(world.clients.sign(high)),
        Some(Issued::by_itself(&["self.test"])),
    ];
    let (ours, theirs) = (free_addr(), free_addr());
    let names = VARIABLES.iter().filter(|name| !name.ends_with('_') && **name != "server_port");
    let told: Vec<_> = names.map(|name| format!("{name}=${name}")).collect();
    let told = told.join("|");
    let _hopgate = Hopgate::start(&world.config(
        &ours.to_string(),
        "ssl_verify_client = 'optional_no_ca'\nssl_client_certificate = 'DIR/clients.pem'",
        &format!("[[server]]\nlisten = 'LISTEN'\nserver_name = 'app.test'\nreturn = '200 \"{told}\"'"),
    ));
    let _nginx = nginx(
        &world,
        &theirs.to_string(),
        &format!(
            "server {{ listen LISTEN; server_name app.test; ssl_verify_client optional_no_ca;\n\
             ssl_client_certificate DIR/clients.pem; location / {{ return 200 '{told}'; }} }}"
        ),
    );
    for own in &shown {
        for version in [&TLS12, &TLS13] {
            for protocols in [&["http/1.1"][..], &[]] {
                let client = TlsClient::with(&world.servers, "app.test", &[version], own.as_ref());
                let client = client.offering(protocols);
                for _ in 0..2 {
                    let (got, expected) = (ask(&client, ours, "app.test"), ask(&client, theirs, "app.test"));
                    let differ: Vec<_> =
                        got.split('|').zip(expected.split('|')).filter(|(a, b)| a != b).collect();
                    assert!(got == expected, "hopgate and nginx: {differ:#?}\n{got}");
                }
            }
            let client = TlsClient::with(&world.servers, "app.test", &[version], own.as_ref()).silent();
            assert_eq!(ask(&client, ours, "app.test"), ask(&client, theirs, "app.test"));
        }
    }
}

#[test]
fn the_app_is_told_who_has_come() {
    let world = World::new();
    let upstream = Upstream::listen();
    let addr = free_addr().to_string();
    let hopgate = Hopgate::start(&world.config(
        &addr,
        "ssl_verify_client = 'optional'\nssl_client_certificate = 'DIR/clients.pem'\n\
         log_format = { t = '$ssl_client_s_dn $ssl_client_verify $ssl_client_serial' }\naccess_log = 'stdout t'",
        &format!(
            "[[server]]\nlisten = 'LISTEN'\n[[server.location]]\npath = '/'\nproxy_pass = 'http://{}'\n\
             proxy_set_header = {{ X-Client = '$ssl_client_s_dn', X-Verify = '$ssl_client_verify', \
             X-Cert = '$ssl_client_escaped_cert', X-Lines = '$ssl_client_cert' }}",
            upstream.addr()
        ),
    ));
    let own = world.clients.sign(for_clients("alice"));
    let escaped = own.pem().replace("\r\n", "\n").replace('\n', "%0A").replace(' ', "%20");
    let escaped = escaped.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    let client = world.client("app.test", Some(&own)).offering(&["h2", "http/1.1"]);
    let mut http2 = Http2::over_tls(client.open(hopgate.addr()), "app.test");
    let over_http2 = http2.begin(http2.request("GET", "/", &[]), true);
    let mut server = upstream.accept();
    server.head().expect(&["X-Client: CN=alice", "X-Verify: SUCCESS", &format!("X-Cert: {escaped}")]);
    server.respond("");
    over_http2.response().expect_status(200);
    hopgate.wait_for_access("CN=alice SUCCESS ");
    let mut nobody = world.client("app.test", None).open(hopgate.addr());
    nobody.send("GET / HTTP/1.1\r\nHost: app.test\r\nX-Client: CN=alice\r\nX-Verify: SUCCESS\r\n\r\n");
    // Fields without a value are not sent, as with nginx; those of the client do not pass.
    server.head().expect(&["X-Verify: NONE"]).expect_none_of(&["X-Client", "X-Cert", "X-Lines"]);
    server.respond("");
    nobody.expect_status(200);
    hopgate.wait_for_access("- NONE -");
}

#[test]
fn the_pages_of_495_496_and_497_are_those_of_nginx() {
    if !Nginx::is_installed() {
        return;
    }
    let world = World::new();
    let (ours, theirs) = (free_addr(), free_addr());
    let stranger = Authority::new("nobody").sign(for_clients("stranger"));
    for (toml, conf) in [
        ("", ""),
        ("error_page = ['495 496 /page', '497 /page']", "error_page 495 496 /page; error_page 497 /page;"),
        ("error_page = ['495 496 497 =200 /page']", "error_page 495 496 497 =200 /page;"),
        ("error_page = ['495 496 497 = /own']", "error_page 495 496 497 = /own;"),
        (
            "error_page = ['495 =403 /page', '496 =401 @named']",
            "error_page 495 =403 /page; error_page 496 =401 @named;",
        ),
        (
            "error_page = ['495 496 497 https://example.com$request_uri']",
            "error_page 495 496 497 https://example.com$request_uri;",
        ),
        (
            "error_page = ['497 =301 https://$host$request_uri']",
            "error_page 497 =301 https://$host$request_uri;",
        ),
        ("error_page = ['400 /page']", "error_page 400 /page;"),
    ] {
        let hopgate = Hopgate::start(&world.config(
            &ours.to_string(),
            "ssl_verify_client = 'on'\nssl_client_certificate = 'DIR/clients.pem'",
            &format!(
                "[[server]]\nlisten = 'LISTEN'\n{toml}\nlocation = [{{ path = '/', return = '200 never' }}, \
                 {{ path = '= /page', return = '200 \"page $status $ssl_client_verify $scheme\"' }}, \
                 {{ path = '= /own', return = '202 own' }}, {{ path = '@named', return = '200 \"named $status\"' }}]"
            ),
        ));
        let nginx = nginx(
            &world,
            &theirs.to_string(),
            &format!(
                "server {{ listen LISTEN; ssl_verify_client on; ssl_client_certificate DIR/clients.pem; {conf}\n\
                 location / {{ return 200 never; }}\n\
                 location = /page {{ return 200 'page $status $ssl_client_verify $scheme'; }}\n\
                 location = /own {{ return 202 own; }}\n\
                 location @named {{ return 200 'named $status'; }} }}"
            ),
        );
        let told = |addr: SocketAddr, who: &str| {
            let request = "GET /x HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n";
            let answer = if who == "plain" {
                let mut client = support::Peer::new("client", TcpStream::connect(addr).unwrap());
                client.send(request);
                client.response()
            } else {
                let mut client =
                    world.client("app.test", (who == "stranger").then_some(&stranger)).open(addr);
                client.send(request);
                client.response()
            };
            let text = answer.text();
            let is_own = text.starts_with("<html>") || text.starts_with(&answer.status.to_string());
            let text = if is_own { String::new() } else { text };
            format!("{} {} {}", answer.status, answer.head.field("Location").unwrap_or_default(), text)
        };
        for who in ["plain", "nobody", "stranger"] {
            assert_eq!(told(ours, who), told(theirs, who), "{toml}: {who}");
        }
        drop((hopgate, nginx));
    }
}

#[test]
fn a_host_behind_other_rules_takes_another_connection() {
    let world = World::new();
    let addr = free_addr().to_string();
    let asked = "ssl_verify_client = 'on'\nssl_client_certificate = 'DIR/clients.pem'";
    let hopgate = Hopgate::start(&world.config(
        &addr,
        "",
        &format!(
            "[[server]]\nlisten = 'LISTEN'\nserver_name = 'open.test'\nreturn = '200 open'\n\
             [[server]]\nlisten = 'LISTEN'\nserver_name = 'app.test'\n{asked}\nreturn = '200 app'\n\
             [[server]]\nlisten = 'LISTEN'\nserver_name = 'same.test'\n{asked}\nreturn = '200 same'\n\
             [[server]]\nlisten = 'LISTEN'\nserver_name = 'other.test'\nssl_verify_client = 'on'\n\
             ssl_client_certificate = 'DIR/others.pem'\nreturn = '200 other'\n"
        ),
    ));
    let own = world.clients.sign(for_clients("alice"));
    for (name, host, wanted) in [
        ("open.test", "open.test", 200),
        ("open.test", "app.test", 421),
        ("open.test", "other.test", 421),
        ("open.test", "unknown.test", 200),
        ("app.test", "app.test", 200),
        ("app.test", "same.test", 200),
        ("app.test", "APP.test:443", 200),
        ("app.test", "open.test", 421),
        ("app.test", "other.test", 421),
        ("same.test", "app.test", 200),
        ("other.test", "other.test", 400),
        ("unknown.test", "app.test", 421),
    ] {
        let client = world.client(name, Some(&own));
        // The certificate is for all names that there are.
        if name != "unknown.test" {
            let mut opened = client.open(hopgate.addr());
            opened.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
            assert_eq!(opened.response().status, wanted, "{name} {host}");
            let opened = client.asking_for(name).offering(&["h2"]).open(hopgate.addr());
            let answer = Http2::over_tls(opened, host).get("/");
            assert_eq!(answer.status, wanted, "{name} {host}");
        }
        let mut silent = client.asking_for("app.test").silent().open(hopgate.addr());
        silent.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        let wanted = if matches!(host, "open.test" | "unknown.test") { 200 } else { 421 };
        assert_eq!(silent.response().status, wanted, "without a name: {host}");
    }
    hopgate.wait_for_log("other rules about client certificates");
}

#[test]
fn sessions_are_not_resumed_behind_other_rules() {
    let world = World::new();
    let [first, same, open, other] = [free_addr(), free_addr(), free_addr(), free_addr()];
    // One name everywhere: with another one rustls resumes nothing anyway.
    let asked = |addr: SocketAddr, ca: &str| {
        format!(
            "[[server]]\nlisten = '{addr} ssl'\nssl_verify_client = 'optional'\n\
             ssl_client_certificate = 'DIR/{ca}'\nreturn = '200 \"$ssl_client_verify\"'\n"
        )
    };
    let servers = format!(
        "{}{}{}[[server]]\nlisten = '{open} ssl'\nreturn = '200 open'\n",
        asked(first, "clients.pem"),
        asked(same, "clients.pem"),
        asked(other, "others.pem"),
    );
    let _hopgate = Hopgate::start(&world.config("", "", &servers));
    let (dir, own) = (&world.dir, world.clients.sign(for_clients("alice")));
    own.write(dir, "alice");
    for version in ["-tls1_2", "-tls1_3"] {
        // OpenSSL is content to try a session with another server than the one that it is of.
        let connect = |addr: SocketAddr, more: &[&str]| {
            let request = "GET / HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n";
            let connect = addr.to_string();
            let (certificate, key) = (dir.path("alice.pem"), dir.path("alice.key"));
            let args = ["s_client", "-connect", &connect, "-servername", "app.test", "-ign_eof", version];
            let args = [&args[..], &["-cert", &certificate, "-key", &key], more].concat();
            let said = support::run_client("openssl", &args, request).1;
            let is_new = said.contains("\nNew, TLSv1");
            assert!(is_new != said.contains("\nReused, TLSv1"), "{said}");
            (is_new, said.lines().rev().find(|line| !line.is_empty()).unwrap_or_default().to_owned(), said)
        };
        let session = dir.path("session");
        let (is_new, _, said) = connect(first, &["-sess_out", &session]);
        assert!(is_new && said.contains("SUCCESS") && Path::new(&session).exists(), "{said}");
        for (addr, resumes, told) in [
            (first, true, "SUCCESS"),
            (same, true, "SUCCESS"),
            (open, false, "open"),
            (other, false, "your certificate is not accepted"),
            (first, true, "SUCCESS"),
        ] {
            let (is_new, _, said) = connect(addr, &["-sess_in", &session]);
            assert!(is_new != resumes && said.contains(told), "{version} {addr}: {said}");
        }
    }
}
