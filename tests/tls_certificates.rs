//! The certificates that servers show: which one for whom, stapled answers of OCSP, what is wrong with files, and
//! how new ones are taken up without touching a connection.

mod support;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256, RsaKeySize, date_time_ymd};
use support::{
    Authority, Dir, Hopgate, Issued, TlsClient, TlsConnection, certificate, eventually, free_addr, run_client,
};

fn files(dir: &Dir, name: &str) -> String {
    let (certificate, key) = (dir.path(&format!("{name}.pem")), dir.path(&format!("{name}.key")));
    format!("ssl_certificate = '{certificate}'\nssl_certificate_key = '{key}'\n")
}

fn server(lines: &str) -> String {
    format!("workers = 1\n[[server]]\nlisten = '127.0.0.1:0 ssl'\nreturn = '200 ok'\n{lines}\n")
}

/// What `openssl s_client` says of a connection.
#[track_caller]
fn s_client(addr: SocketAddr, args: &[&str]) -> String {
    let connect = addr.to_string();
    let request = "GET / HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n";
    run_client("openssl", &[&["s_client", "-connect", &connect, "-ign_eof"], args].concat(), request).1
}

#[test]
fn each_client_is_shown_the_certificate_that_it_can_check() {
    let authority = Authority::new("hopgate test CA");
    let dir = Dir::new();
    authority.issue(&["app.test"]).write(&dir, "ecdsa");
    let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    authority.sign_with(certificate("a server", &["app.test"]), key).write(&dir, "rsa");
    let path = |name: &str| dir.path(name);
    let both = format!(
        "ssl_certificate = ['{}', '{}']\nssl_certificate_key = ['{}', '{}']",
        path("rsa.pem"),
        path("ecdsa.pem"),
        path("rsa.key"),
        path("ecdsa.key")
    );
    let hopgate = Hopgate::start(&server(&both));
    for (args, wanted) in [
        (&["-tls1_3"][..], "Peer signature type: ECDSA"),
        (&["-tls1_3", "-sigalgs", "RSA-PSS+SHA256"], "Peer signature type: RSA-PSS"),
        (&["-tls1_3", "-sigalgs", "RSA-PSS+SHA256:ECDSA+SHA256"], "Peer signature type: ECDSA"),
        (&["-tls1_2"], "Peer signature type: ECDSA"),
        (&["-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"], "Cipher is ECDHE-RSA-AES128-GCM-SHA256"),
        (&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"], "Cipher is ECDHE-ECDSA-AES128-GCM-SHA256"),
        (&["-tls1_2", "-sigalgs", "RSA+SHA256"], "Peer signature type: RSA"),
    ] {
        let said = s_client(hopgate.addr(), args);
        assert!(said.contains(wanted) && said.contains("HTTP/1.1 200 OK"), "{args:?}: {wanted}\n{said}");
    }
    // There is none for it.
    let said = s_client(hopgate.addr(), &["-tls1_3", "-sigalgs", "ed25519"]);
    assert!(said.contains("alert access denied") && !said.contains("200 OK"), "{said}");
}

#[test]
fn sessions_are_resumed_and_outlive_a_reload() {
    let authority = Authority::new("hopgate test CA");
    let dir = Dir::new();
    authority.issue(&["app.test"]).write(&dir, "app");
    let session = dir.path("session");
    for version in ["-tls1_2", "-tls1_3"] {
        let config = server(&files(&dir, "app"));
        let hopgate = Hopgate::start(&config);
        let resumes = |more: &[&str]| {
            let said = s_client(hopgate.addr(), &[&[version, "-servername", "app.test"], more].concat());
            let is_resumed = said.contains("\nReused, TLSv1");
            assert!(is_resumed != said.contains("\nNew, TLSv1"), "{said}");
            is_resumed
        };
        assert!(!resumes(&["-sess_out", &session]), "{version}");
        assert!(resumes(&["-sess_in", &session]), "{version}");
        // Another certificate, and another setting that is none of theirs.
        authority.issue(&["app.test"]).write(&dir, "app");
        hopgate.reload_with(&config.replace("200 ok", "200 new"));
        assert!(resumes(&["-sess_in", &session]), "{version}: behind a reload");
        // RFC 5077 §3.3, RFC 8446 §4.6.1: what was told of a ticket's time is what it holds for.
        let said = s_client(hopgate.addr(), &[version]);
        assert!(said.contains("ticket lifetime hint: 300 (seconds)"), "{said}");
        hopgate.reload_with(&format!("ssl_session_timeout = '1h'\n{config}"));
        let said = s_client(hopgate.addr(), &[version]);
        assert!(said.contains("ticket lifetime hint: 3600 (seconds)"), "{said}");
        assert!(resumes(&["-sess_in", &session]), "{version}: with another time");
        hopgate.reload_with(&format!("ssl_session_tickets = false\n{config}"));
        assert!(!resumes(&["-sess_in", &session]), "{version}: without tickets");
        assert!(!s_client(hopgate.addr(), &[version]).contains("ticket lifetime hint"));
        // Keys of a process before are gone.
        let hopgate = Hopgate::start(&config);
        let said = s_client(hopgate.addr(), &[version, "-sess_in", &session]);
        assert!(said.contains("\nNew, TLSv1"), "{said}");
    }
}

#[test]
fn a_ticket_holds_for_its_time() {
    let authority = Authority::new("hopgate test CA");
    let dir = Dir::new();
    authority.issue(&["app.test"]).write(&dir, "app");
    let hopgate = Hopgate::start(&server(&format!("ssl_session_timeout = '1s'\n{}", files(&dir, "app"))));
    let session = dir.path("session");
    let args = ["-tls1_2", "-servername", "app.test"];
    s_client(hopgate.addr(), &[&args[..], &["-sess_out", &session]].concat());
    eventually("the ticket is too old", || {
        // OpenSSL would not even offer one that is over by its own clock; that of a ticket counts whole seconds.
        s_client(hopgate.addr(), &[&args[..], &["-sess_in", &session]].concat()).contains("\nNew, TLSv1")
    });
}

#[test]
fn a_stapled_answer_goes_with_the_certificate() {
    let dir = Dir::new();
    let openssl = |args: &[&str]| {
        let (is_content, said) = run_client("openssl", args, "");
        assert!(is_content, "{args:?}\n{said}");
    };
    let (ca, ca_key, response) = (dir.path("ca.pem"), dir.path("ca.key"), dir.path("ocsp.der"));
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    openssl(
        &[&["req", "-x509", "-subj", "/CN=CA", "-days", "30", "-keyout", &ca_key, "-out", &ca][..], &key]
            .concat(),
    );
    let (csr, pem, app_key) = (dir.path("app.csr"), dir.path("app.pem"), dir.path("app.key"));
    openssl(&[&["req", "-subj", "/CN=app.test", "-keyout", &app_key, "-out", &csr][..], &key].concat());
    openssl(&[
        "x509",
        "-req",
        "-in",
        &csr,
        "-CA",
        &ca,
        "-CAkey",
        &ca_key,
        "-set_serial",
        "7",
        "-days",
        "30",
        "-out",
        &pem,
    ]);
    let index = dir.path("index.txt");
    fs::write(&index, "V\t351231235959Z\t\t07\tunknown\t/CN=app.test\n").unwrap();
    fs::write(dir.join("index.txt.attr"), "unique_subject = no\n").unwrap();
    openssl(&[
        "ocsp", "-index", &index, "-CA", &ca, "-rsigner", &ca, "-rkey", &ca_key, "-issuer", &ca, "-cert",
        &pem, "-ndays", "7", "-respout", &response,
    ]);
    let config = server(&format!("ssl_stapling_file = '{response}'\n{}", files(&dir, "app")));
    let hopgate = Hopgate::start(&config);
    for version in ["-tls1_2", "-tls1_3"] {
        let said = s_client(hopgate.addr(), &[version, "-status", "-CAfile", &ca]);
        assert!(
            said.contains("OCSP Response Status: successful") && said.contains("Cert Status: good"),
            "{said}"
        );
        assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
        let said = s_client(hopgate.addr(), &[version]);
        assert!(!said.contains("OCSP Response Status"), "{said}");
    }
    fs::write(&response, "no answer").unwrap();
    let refused = hopgate.refuse_reload_with(&config);
    assert!(refused.contains("ocsp.der is no successful answer of OCSP"), "{refused}");
}

#[test]
fn a_server_may_refuse_every_handshake() {
    let authority = Authority::new("hopgate test CA");
    let dir = Dir::new();
    authority.issue(&["app.test", "other.test"]).write(&dir, "app");
    let hopgate = Hopgate::start(&format!(
        "workers = 1\n[[server]]\nlisten = '127.0.0.1:0 ssl default_server'\nssl_reject_handshake = true\n\
         [[server]]\nlisten = '127.0.0.1:0 ssl'\nserver_name = 'app.test'\nreturn = '200 ok'\n{}",
        files(&dir, "app")
    ));
    for client in [TlsClient::of(&authority, "other.test"), TlsClient::of(&authority, "app.test").silent()] {
        let error = client.try_open(hopgate.addr()).err();
        assert!(error.as_ref().is_some_and(|error| error.contains("UnrecognisedName")), "{error:?}");
    }
    let mut client = TlsClient::of(&authority, "app.test").open(hopgate.addr());
    client.send("GET / HTTP/1.1\r\nHost: app.test\r\n\r\n");
    client.expect_status(200);
    // Nor is it reached behind the name of another one.
    client.send("GET / HTTP/1.1\r\nHost: other.test\r\n\r\n");
    assert_ne!(client.response().status, 200);
}

#[test]
fn a_certificate_is_made_for_trying_it_out() {
    let config = server("server_name = ['app.test', '*.app.test']\ntls = 'self-signed'");
    let hopgate = Hopgate::start(&config);
    let shown = |host: &str| s_client(hopgate.addr(), &["-servername", host]);
    let certificate = |said: &str| said.split("-----").nth(2).map(str::to_owned);
    let before = shown("app.test");
    assert!(before.contains("HTTP/1.1 200 OK"), "{before}");
    let dir = Dir::new();
    let (pem, addr) = (dir.path("shown.pem"), hopgate.addr());
    let body = certificate(&before).expect("a certificate");
    fs::write(&pem, format!("-----BEGIN CERTIFICATE-----{body}-----END CERTIFICATE-----\n")).unwrap();
    for host in ["app.test", "x.app.test", "localhost"] {
        let resolve = format!("{host}:{}:127.0.0.1", addr.port());
        let url = format!("https://{host}:{}/", addr.port());
        let (is_content, said) =
            run_client("curl", &["-sS", "--cacert", &pem, "--resolve", &resolve, &url], "");
        assert!(is_content && said == "ok", "{host}: {said}");
    }
    // It stays the same for as long as the process runs.
    hopgate.reload_with(&config.replace("200 ok", "200 new"));
    assert_eq!(certificate(&shown("app.test")), Some(body));
}

#[test]
fn files_that_cannot_be_used_are_told_with_their_names_and_reasons() {
    let authority = Authority::new("hopgate test CA");
    let dir = Dir::new();
    let sign = |name: &str, change: fn(&mut CertificateParams)| {
        let mut params = certificate("a server", &["app.test"]);
        change(&mut params);
        authority.sign(params).write(&dir, name);
    };
    sign("good", |_| {});
    sign("other", |_| {});
    sign("expired", |params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 3, 4);
    });
    sign("early", |params| params.not_before = date_time_ymd(2090, 1, 2));
    let write = |name: &str, bytes: &[u8]| fs::write(dir.join(name), bytes).unwrap();
    write("empty", b"");
    write("text", b"hello\n");
    write("der", authority.der());
    write("broken", authority.pem().replace("MII", "!!!").as_bytes());
    write("cut", &authority.pem().as_bytes()[..100]);
    write("locked", b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n");
    write(
        "older_locked",
        b"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nMAA=\n\
          -----END RSA PRIVATE KEY-----\n",
    );
    write("unusable", b"-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n");
    fs::create_dir(dir.join("folder")).unwrap();
    let rows = [
        ("none", "good.key", "none cannot be read: No such file or directory"),
        ("folder", "good.key", "folder cannot be read: it is no file"),
        ("empty", "good.key", "empty has no certificate in it"),
        ("text", "good.key", "text has no certificate in it"),
        ("der", "good.key", "der has no certificate in it"),
        ("broken", "good.key", "broken is no proper PEM"),
        ("cut", "good.key", "cut is no proper PEM: it ends before a line"),
        ("good.key", "good.key", "good.key has no certificate in it"),
        ("expired.pem", "expired.key", "expired.pem has a certificate that expired on Thu, 04 Mar 2021"),
        ("early.pem", "early.key", "early.pem has a certificate that is not valid before Mon, 02 Jan 2090"),
        ("good.pem", "other.key", "other.key is not the key of the certificate in"),
        ("good.pem", "none", "none cannot be read: No such file or directory"),
        ("good.pem", "empty", "empty has no private key in it"),
        ("good.pem", "good.pem", "good.pem has no private key in it"),
        ("good.pem", "locked", "locked has a key that is encrypted with a password"),
        ("good.pem", "older_locked", "older_locked has a key that is encrypted with a password"),
        ("good.pem", "unusable", "unusable has a key that cannot be used"),
    ];
    let config = |certificate: &str, key: &str| {
        let (certificate, key) = (dir.path(certificate), dir.path(key));
        server(&format!("ssl_certificate = '{certificate}'\nssl_certificate_key = '{key}'"))
    };
    let hopgate = Hopgate::start(&config("good.pem", "good.key"));
    for (certificate, key, why) in rows {
        let text = config(certificate, key);
        let mut refused = Hopgate::spawn(&text, Stdio::null());
        assert!(!refused.wait_exit().success(), "{certificate} {key}");
        let said = refused.log();
        let at = if why.starts_with(certificate) && certificate != key || key == "good.key" {
            "`ssl_certificate`:"
        } else {
            "`ssl_certificate_key`:"
        };
        assert!(
            said.contains(why) && said.contains(at),
            "{certificate} {key}\nexpected: {at} {why}\n     got: {said}"
        );
        // The place in the file, with the file that it names.
        assert!(said.contains("hopgate.toml:5:") || said.contains("hopgate.toml:6:"), "{said}");
        let said = hopgate.refuse_reload_with(&text);
        assert!(said.contains("the old"), "{said}");
        hopgate.wait_for_log(why);
        TlsClient::of(&authority, "app.test").open(hopgate.addr());
    }
}

#[test]
fn a_chain_that_clients_may_not_believe_is_warned_of() {
    let (authority, other) = (Authority::new("hopgate test CA"), Authority::new("another CA"));
    let dir = Dir::new();
    let own = authority.issue(&["app.test"]);
    own.write(&dir, "app");
    let mut expired = certificate("hopgate test CA", &[]);
    expired.not_before = date_time_ymd(2020, 1, 1);
    expired.not_after = date_time_ymd(2021, 3, 4);
    let expired = other.sign(expired);
    let pair = format!(
        "ssl_certificate = '{}'\nssl_certificate_key = '{}'",
        dir.path("app.pem"),
        dir.path("app.key")
    );
    fs::write(dir.join("hopgate.toml"), server(&pair)).unwrap();
    for (behind, expected) in [
        ("", None),
        (&authority.pem()[..], None),
        (
            &other.pem(),
            Some("has the certificate of `CN=another CA` where that of `CN=hopgate test CA` is expected"),
        ),
        (
            expired.pem(),
            Some("has the certificate of `CN=hopgate test CA`, which expired on Thu, 04 Mar 2021"),
        ),
    ] {
        fs::write(dir.join("app.pem"), format!("{}{behind}", own.pem())).unwrap();
        let mut check = Command::new(env!("CARGO_BIN_EXE_hopgate"));
        let check = check.args(["check", "--config", &dir.path("hopgate.toml")]).output().unwrap();
        let said = String::from_utf8_lossy(&check.stderr);
        assert!(check.status.success(), "{said}");
        match expected {
            Some(expected) => assert!(said.contains(expected), "{expected}\n{said}"),
            None => assert!(!said.contains("warning"), "{said}"),
        }
    }
}

#[test]
fn whoever_names_the_file_of_something_else_is_told_what_to_do() {
    let dir = Dir::new();
    Authority::new("hopgate test CA").issue(&["app.test"]).write(&dir, "app");
    let (chain, key) =
        (fs::read(dir.join("app.pem")).unwrap(), fs::read_to_string(dir.join("app.key")).unwrap());
    let check = |chain: &[u8], key: &[u8]| {
        fs::write(dir.join("app.pem"), chain).unwrap();
        fs::write(dir.join("app.key"), key).unwrap();
        fs::write(dir.join("hopgate.toml"), server(&files(&dir, "app"))).unwrap();
        let command = ["check", "--config", &dir.path("hopgate.toml")];
        let output = Command::new(env!("CARGO_BIN_EXE_hopgate")).args(command).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let block = |label: &str| format!("-----BEGIN {label}-----\nMAA=\n-----END {label}-----\n");
    let (request, pkcs7, unusable) = (block("CERTIFICATE REQUEST"), block("PKCS7"), block("PRIVATE KEY"));
    let rows: [(&[u8], &[u8], &str); 8] = [
        (key.as_bytes(), key.as_bytes(), "there is a key in it: is it the file of the key?"),
        (&chain, &chain, "there is a certificate in it: is it the file of the certificate?"),
        (request.as_bytes(), key.as_bytes(), "it needs what the CA has made of that"),
        (pkcs7.as_bytes(), key.as_bytes(), "`openssl pkcs7 -print_certs -in OLD -out NEW`"),
        (&[0x30, 0x82, 1, 0], key.as_bytes(), "`openssl x509 -inform DER -in OLD -out NEW`"),
        (&chain, &[0x30, 0x82, 1, 0], "`openssl pkey -inform DER -in OLD -out NEW`"),
        (&chain, &key.as_bytes()[..60], "it ends before a line `-----END PRIVATE KEY-----`"),
        (&chain, unusable.as_bytes(), "it must be one of ECDSA (P-256, P-384, P-521)"),
    ];
    for (chain, key, help) in rows {
        let (is_fine, said) = check(chain, key);
        assert!(!is_fine && said.contains(help), "expected: {help}\n     got: {said}");
    }
    // What editors on Windows make of a file is still one.
    let from_windows = |text: &[u8]| {
        let text = String::from_utf8_lossy(text).replace('\n', "\r\n");
        [b"\xef\xbb\xbf", text.as_bytes()].concat()
    };
    let (is_fine, said) = check(&from_windows(&chain), &from_windows(key.as_bytes()));
    assert!(is_fine, "{said}");
}

#[test]
fn names_that_a_certificate_is_not_for_are_warned_of() {
    let dir = Dir::new();
    let authority = Authority::new("hopgate test CA");
    authority.issue(&["app.test", "*.app.test", "x.other.test"]).write(&dir, "app");
    authority.issue(&[]).write(&dir, "nobody");
    let rows = [
        ("app", "['app.test', 'www.app.test', '*.app.test', '*.other.test']", None),
        // Whoever writes these does not mean a host that clients ask for.
        ("app", "['localhost', '~^x\\.y$', 'www.app.*']", None),
        ("app", "['app.test', 'app.example']", Some("`app.example`")),
        ("app", "'a.b.app.test'", Some("`a.b.app.test`")),
        ("app", "'*.app.example'", Some("`*.app.example`")),
        ("nobody", "'app.test'", Some("nobody.pem is for no name")),
    ];
    for (name, names, expected) in rows {
        let config = server(&format!("server_name = {names}\n{}", files(&dir, name)));
        fs::write(dir.join("hopgate.toml"), config).unwrap();
        let command = ["check", "--config", &dir.path("hopgate.toml")];
        let output = Command::new(env!("CARGO_BIN_EXE_hopgate")).args(command).output().unwrap();
        assert!(output.status.success(), "{names}");
        let said = String::from_utf8_lossy(&output.stderr);
        match expected {
            Some(expected) => assert!(
                said.contains("warning: ") && said.contains("is not for `") && said.contains(expected),
                "{names}: {said}"
            ),
            None => assert_eq!(said, "", "{names}"),
        }
    }
}

#[test]
fn a_client_that_knows_only_other_ciphers_is_told_in_words() {
    let dir = Dir::new();
    Authority::new("hopgate test CA").issue(&["app.test"]).write(&dir, "app");
    let hopgate = Hopgate::start(&server(&files(&dir, "app")));
    s_client(hopgate.addr(), &["-tls1_2", "-cipher", "AES128-SHA"]);
    hopgate.wait_for_log("has failed: the client can use none of the certificates and ciphers");
}

#[test]
fn a_file_that_may_not_be_read_is_told() {
    let dir = Dir::new();
    Authority::new("hopgate test CA").issue(&["app.test"]).write(&dir, "app");
    fs::write(dir.join("hopgate.toml"), server(&files(&dir, "app"))).unwrap();
    let sh = |command: &str| Command::new("sh").args(["-c", command]).status().expect("sh can be run");
    // As root everything can be read: so this is asked as nobody.
    let is_root = Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout == b"0\n");
    sh(&format!("chmod 755 {0}; chmod 644 {0}/*; chmod 000 {0}/app.key", dir.path("")));
    let mut command = Command::new(if is_root { "setpriv" } else { env!("CARGO_BIN_EXE_hopgate") });
    if is_root {
        // The binary may lie where nobody else may look.
        fs::copy(env!("CARGO_BIN_EXE_hopgate"), dir.join("hopgate")).unwrap();
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", &dir.path("hopgate")]);
    }
    let output =
        command.args(["check", "--config", &dir.path("hopgate.toml")]).output().expect("it can be run");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("app.key cannot be read: Permission denied"), "{said}");
    assert!(said.contains("let the user that hopgate runs as read it"), "{said}");
}

/// A running hopgate whose certificate is watched, and what it shows now.
struct Watched {
    hopgate: Hopgate,
    authority: Authority,
    dir: Dir,
}

impl Watched {
    fn issue(&self) -> Issued {
        self.authority.issue(&["app.test"])
    }

    #[track_caller]
    fn open(&self) -> TlsConnection {
        TlsClient::of(&self.authority, "app.test").open(self.hopgate.addr())
    }

    #[track_caller]
    fn expect_shown(&self, issued: &Issued) {
        eventually("the new certificate is shown", || self.open().agreed.certificate == issued.chain[0]);
    }
}

#[track_caller]
fn expect_alive(client: &mut TlsConnection) {
    client.send("GET / HTTP/1.1\r\nHost: app.test\r\n\r\n");
    client.expect_status(200);
}

#[test]
fn files_that_change_are_taken_up_and_no_connection_is_touched() {
    let (authority, dir) = (Authority::new("hopgate test CA"), Dir::new());
    let first = authority.issue(&["app.test"]);
    first.write(&dir, "app");
    let hopgate = Hopgate::start(&server(&files(&dir, "app")));
    let watched = Watched { hopgate, authority, dir };
    let mut old = watched.open();
    assert_eq!(old.agreed.certificate, first.chain[0]);
    expect_alive(&mut old);
    // Written over.
    let second = watched.issue();
    second.write(&watched.dir, "app");
    watched.expect_shown(&second);
    watched.hopgate.wait_for_log("a new certificate is in use");
    // Put in its place.
    let third = watched.issue();
    third.write(&watched.dir, "new");
    for end in ["pem", "key"] {
        fs::rename(watched.dir.join(&format!("new.{end}")), watched.dir.join(&format!("app.{end}"))).unwrap();
    }
    watched.expect_shown(&third);
    // What is broken is not taken, and told once.
    fs::write(watched.dir.join("app.pem"), "broken").unwrap();
    let line = watched.hopgate.wait_for_log("a new certificate is not taken, the old one stays in use");
    assert!(line.contains("app.pem has no certificate in it") && line.contains("ERROR"), "{line}");
    assert_eq!(watched.open().agreed.certificate, third.chain[0]);
    // A key that is not its own.
    fs::write(watched.dir.join("app.pem"), watched.issue().pem()).unwrap();
    let line = watched.hopgate.wait_for_log("app.key is not the key of the certificate in");
    assert!(line.contains("`ssl_certificate_key`"), "{line}");
    fs::remove_file(watched.dir.join("app.key")).unwrap();
    watched.hopgate.wait_for_log("app.key cannot be read: No such file or directory");
    assert_eq!(watched.open().agreed.certificate, third.chain[0]);
    // And in good order again.
    let fourth = watched.issue();
    fourth.write(&watched.dir, "app");
    watched.expect_shown(&fourth);
    let told = watched.hopgate.log().matches("a new certificate is not taken").count();
    assert_eq!(told, 3, "{}", watched.hopgate.log());
    expect_alive(&mut old);
}

#[test]
fn links_that_change_are_followed_as_certbot_leaves_them() {
    let (authority, dir) = (Authority::new("hopgate test CA"), Dir::new());
    let first = authority.issue(&["app.test"]);
    first.write(&dir, "app1");
    for end in ["pem", "key"] {
        symlink(dir.join(&format!("app1.{end}")), dir.join(&format!("live.{end}"))).unwrap();
    }
    let hopgate = Hopgate::start(&server(&files(&dir, "live")));
    let watched = Watched { hopgate, authority, dir };
    let mut old = watched.open();
    let second = watched.issue();
    second.write(&watched.dir, "app2");
    for end in ["pem", "key"] {
        let link = watched.dir.join(&format!("live.{end}"));
        fs::remove_file(&link).unwrap();
        symlink(format!("app2.{end}"), &link).unwrap();
    }
    watched.expect_shown(&second);
    expect_alive(&mut old);
    assert_eq!(watched.hopgate.log().matches("a new certificate is not taken").count(), 0);
}

#[test]
fn a_signal_takes_new_certificates_up_at_once_and_a_reload_that_fails_keeps_the_old_ones() {
    let (authority, dir) = (Authority::new("hopgate test CA"), Dir::new());
    authority.issue(&["app.test"]).write(&dir, "app");
    let config = server(&files(&dir, "app")).replace("127.0.0.1:0", &free_addr().to_string());
    let hopgate = Hopgate::start(&config);
    let watched = Watched { hopgate, authority, dir };
    let mut old = watched.open();
    let second = watched.issue();
    second.write(&watched.dir, "app");
    watched.hopgate.reload_with(&config);
    assert_eq!(watched.open().agreed.certificate, second.chain[0]);
    expect_alive(&mut old);
    // The files of a configuration that was taken back are watched on.
    fs::write(watched.dir.join("app.pem"), "broken").unwrap();
    watched.hopgate.refuse_reload_with(&config);
    assert_eq!(watched.open().agreed.certificate, second.chain[0]);
    let third = watched.issue();
    third.write(&watched.dir, "app");
    watched.expect_shown(&third);
    expect_alive(&mut old);
}
