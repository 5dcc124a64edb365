//! `tls = "acme"`, with Debian's pebble as the CA.

mod support;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use serde_json::json;
use support::{App, Ca, Dir, Front, Hopgate, Pebble, answer_with, eventually, free_addr};

/// A server for these names, with and without TLS, in front of an app.
struct Site {
    plain: SocketAddr,
    tls: SocketAddr,
    store: Dir,
    app: App,
}

impl Site {
    fn new() -> Self {
        Self { plain: free_addr(), tls: free_addr(), store: Dir::new(), app: App::named("the app") }
    }

    fn store(&self) -> String {
        self.store.path("store")
    }

    /// A CA that looks for proofs at its addresses.
    fn ca(&self) -> Pebble {
        Pebble::that_looks_at(self.plain, self.tls)
    }

    /// With an `[acme]` table and names, as they are written.
    fn config(&self, acme: &str, names: &str) -> String {
        let Self { plain, tls, app, .. } = self;
        let app = app.addr();
        format!(
            r#"
            workers = 2
            [[server]]
            listen = ["{plain}", "{tls} ssl"]
            server_name = {names}
            tls = "acme"

            [[server.location]]
            path = "/"
            proxy_pass = "http://{app}"

            {acme}
            "#
        )
    }

    fn start(&self, ca: &Ca, names: &str) -> Hopgate {
        Hopgate::start(&self.config(&ca.acme(&self.store()), names))
    }

    /// What a GET over TLS comes to for a client that trusts this root.
    fn get(&self, name: &str, root: &Path) -> Result<String, String> {
        let Self { tls, .. } = self;
        let output = Command::new("curl")
            .args(["-sS", "--max-time", "10", "--resolve", &format!("{name}:{}:127.0.0.1", tls.port())])
            .arg("--cacert")
            .arg(root)
            .arg(format!("https://{name}:{}/", tls.port()))
            .output()
            .expect("curl can be run");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// The only file in the store whose name ends so.
    #[track_caller]
    fn file(&self, end: &str) -> std::path::PathBuf {
        let folders = fs::read_dir(self.store()).expect("a store");
        let files =
            folders.flat_map(|folder| fs::read_dir(folder.expect("an entry").path()).expect("a folder"));
        let mut files = files.map(|file| file.expect("an entry").path());
        let has_end = |file: &std::path::PathBuf| file.to_string_lossy().ends_with(end);
        files.find(has_end).unwrap_or_else(|| panic!("no file *{end} in {}", self.store()))
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("a file").permissions().mode() & 0o777
}

#[test]
fn a_first_certificate_comes_by_http_01() {
    let site = Site::new();
    // Nothing is where it would look for the other proof.
    let ca = Pebble { tls: free_addr(), ..site.ca() }.start();
    let hopgate = site.start(&ca, r#"["a.test", "www.a.test"]"#);
    hopgate.wait_for_log("the certificate for a.test and www.a.test is in use");
    for name in ["a.test", "www.a.test"] {
        assert_eq!(site.get(name, &ca.root()).as_deref(), Ok("the app"));
    }
    assert!(site.get("b.test", &ca.root()).is_err());
    assert!(hopgate.access_lines("acme-challenge").iter().all(|line| line.contains("\" 200 ")));
    assert_eq!(ca.orders(), 1, "{}", ca.log());
}

#[test]
fn a_first_certificate_comes_by_tls_alpn_01() {
    let site = Site::new();
    let ca = Pebble { http: free_addr(), ..site.ca() }.start();
    let config = site.config(&ca.acme(&site.store()), "\"a.test\"");
    let hopgate = Hopgate::start(&config.replace(&format!("\"{}\", ", site.plain), ""));
    hopgate.wait_for_log("the certificate for a.test is in use");
    assert_eq!(site.get("a.test", &ca.root()).as_deref(), Ok("the app"));
    assert!(!hopgate.log().contains("http-01"), "{}", hopgate.log());
}

#[test]
fn where_one_proof_fails_the_other_is_tried_and_is_the_first_one_from_then_on() {
    let site = Site::new();
    let ca = Pebble { http: free_addr(), lifetime: 3, ..site.ca() }.start();
    let hopgate = site.start(&ca, "\"a.test\"");
    let failed = hopgate.wait_for_log("trying tls-alpn-01");
    assert!(failed.contains("a.test by http-01 (port 80)"), "{failed}");
    hopgate.wait_for_log("the certificate for a.test is in use");
    // The renewal knows.
    eventually("it is renewed", || hopgate.log().matches("is in use").count() == 2);
    assert_eq!(hopgate.log().matches("by http-01;").count(), 1, "{}", hopgate.log());
}

#[test]
fn an_app_answers_challenges_of_its_own() {
    let site = Site::new();
    let ca = site.ca().start();
    let hopgate = site.start(&ca, "\"a.test\"");
    hopgate.wait_for_log("is in use");
    assert_eq!(hopgate.get("/.well-known/acme-challenge/of-the-app"), (200, "the app".to_owned()));
    // That which was pending is the app's, too, now.
    let line = hopgate.wait_for_access("acme-challenge");
    let path = line.split_whitespace().find(|word| word.starts_with("/.well-known")).expect("a path");
    assert_eq!(hopgate.get(path), (200, "the app".to_owned()));
}

#[test]
fn a_redirect_of_everything_does_not_come_between_a_ca_and_its_proof() {
    let site = Site::new();
    let ca = Pebble { tls: free_addr(), ..site.ca() }.start();
    let config = site.config(&ca.acme(&site.store()), "\"a.test\"");
    let redirect = "tls = \"acme\"\nreturn = \"301 https://a.test$request_uri\"\n";
    let hopgate = Hopgate::start(&config.replace("tls = \"acme\"\n", redirect));
    hopgate.wait_for_log("the certificate for a.test is in use");
    assert_eq!(hopgate.get("/.well-known/acme-challenge/x").0, 301);
}

#[test]
fn a_restart_uses_what_is_stored_and_nobody_else_can_read_it() {
    let site = Site::new();
    let ca = site.ca().start();
    let first = site.start(&ca, "\"a.test\"");
    first.wait_for_log("the certificate for a.test is in use");
    drop(first);
    for end in ["account.json", "a.test.pem", "a.test.json"] {
        assert_eq!(mode(&site.file(end)), 0o600, "{end}");
    }
    let folder = site.file("a.test.pem").parent().expect("a folder").to_owned();
    assert_eq!((mode(&folder), mode(Path::new(&site.store()))), (0o700, 0o700));
    let second = site.start(&ca, "\"a.test\"");
    assert_eq!(site.get("a.test", &ca.root()).as_deref(), Ok("the app"));
    assert_eq!(ca.orders(), 1);
    assert!(!second.log().contains("ordering"), "{}", second.log());
}

#[test]
fn a_certificate_is_renewed_in_time_and_connections_go_on() {
    let site = Site::new();
    let ca = Pebble { lifetime: 4, ..site.ca() }.start();
    let hopgate = site.start(&ca, "\"a.test\"");
    hopgate.wait_for_log("the certificate for a.test is in use");
    let first = fs::read(site.file("a.test.pem")).expect("a certificate");
    let mut client = hopgate.connect();
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!(client.response().text(), "the app");
    eventually("another one is stored", || fs::read(site.file("a.test.pem")).is_ok_and(|now| now != first));
    assert_eq!(site.get("a.test", &ca.root()).as_deref(), Ok("the app"));
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!(client.response().text(), "the app");
}

#[test]
fn a_name_that_cannot_be_proven_is_said_kindly_and_not_tried_again_soon() {
    let site = Site::new();
    let ca = Pebble { http: free_addr(), tls: free_addr(), ..site.ca() }.start();
    let hopgate = site.start(&ca, "\"a.test\"");
    let line = hopgate.wait_for_log("no certificate for a.test");
    for words in [
        "port 443",
        "does the DNS lead a.test to this machine",
        "the next attempt is in 2 min",
        "self-signed",
    ] {
        assert!(line.contains(words), "{words} is missing in:\n{line}");
    }
    assert_eq!(ca.orders(), 2, "one for each kind of proof");
    // Plain clients are served as ever, and those with TLS see what there is.
    assert_eq!(hopgate.get("/"), (200, "the app".to_owned()));
    let refused = site.get("a.test", &ca.root()).unwrap_err();
    assert!(refused.contains("certificate"), "{refused}");
    // A restart does not begin anew.
    drop(hopgate);
    let hopgate = site.start(&ca, "\"a.test\"");
    hopgate.wait_for_log("is in 1 min");
    assert_eq!(ca.orders(), 2);
    // A reload does: the operator has changed something.
    hopgate.reload_with(&site.config(&ca.acme(&site.store()), "\"a.test\""));
    eventually("it is tried again", || ca.orders() == 3);
}

#[test]
fn a_name_without_an_address_is_said_to_have_none() {
    let site = Site::new();
    let ca = site.ca().start();
    let hopgate = site.start(&ca, "\"nowhere.test\"");
    let line = hopgate.wait_for_log("no certificate for nowhere.test");
    assert!(line.contains("nowhere.test"), "{line}");
}

#[test]
fn a_reload_orders_what_is_new_and_keeps_the_rest() {
    let site = Site::new();
    let ca = site.ca().start();
    let hopgate = site.start(&ca, "\"a.test\"");
    hopgate.wait_for_log("the certificate for a.test is in use");
    let second = format!(
        "{}\n[[server]]\nlisten = \"{} ssl\"\nserver_name = \"b.test\"\ntls = \"acme\"\nreturn = \"200 b\"\n",
        site.config(&ca.acme(&site.store()), "\"a.test\""),
        site.tls
    );
    hopgate.reload_with(&second);
    hopgate.wait_for_log("the certificate for b.test is in use");
    assert_eq!(site.get("a.test", &ca.root()).as_deref(), Ok("the app"));
    assert_eq!(site.get("b.test", &ca.root()).as_deref(), Ok("b"));
    assert_eq!(ca.orders(), 2);
}

#[test]
fn a_broken_store_is_told_and_mended() {
    let site = Site::new();
    let ca = site.ca().start();
    drop({
        let first = site.start(&ca, "\"a.test\"");
        first.wait_for_log("the certificate for a.test is in use");
        first
    });
    fs::write(site.file("a.test.pem"), "no certificate").expect("a file can be written");
    fs::write(site.file("account.json"), "{").expect("a file can be written");
    fs::set_permissions(site.file("account.json"), fs::Permissions::from_mode(0o644))
        .expect("a mode can be set");
    let hopgate = site.start(&ca, "\"a.test\"");
    hopgate.wait_for_log("the certificate for a.test cannot be used, another one is ordered");
    hopgate.wait_for_log("account.json is not an account");
    hopgate.wait_for_log("others could use");
    hopgate.wait_for_log("the certificate for a.test is in use");
    assert_eq!(mode(&site.file("account.json")), 0o600);
    assert_eq!(site.get("a.test", &ca.root()).as_deref(), Ok("the app"));
}

#[test]
fn a_ca_that_has_forgotten_the_account_gets_another_one() {
    let site = Site::new();
    let ca = Pebble { lifetime: 4, ..site.ca() }.start();
    let hopgate = site.start(&ca, "\"a.test\"");
    hopgate.wait_for_log("the certificate for a.test is in use");
    let ca = ca.stop().start(site.ca());
    hopgate.wait_for_log("the CA does not know the account any more");
    eventually("there is one of the new CA", || site.get("a.test", &ca.root()).is_ok());
}

#[test]
fn a_store_that_cannot_be_written_is_told_at_start() {
    let site = Site::new();
    let file = site.store.join("a-file");
    fs::write(&file, "").expect("a file can be written");
    let ca = site.ca().start();
    let config = site.config(&ca.acme(&file.join("store").display().to_string()), "\"a.test\"");
    let mut hopgate = Hopgate::spawn(&config, std::process::Stdio::null());
    assert_eq!(hopgate.wait_exit().code(), Some(1));
    assert!(hopgate.log().contains("the `store` of `[acme]` cannot be written"), "{}", hopgate.log());
}

#[test]
fn a_ca_that_is_not_there_is_asked_again() {
    let site = Site::new();
    let ca = site.ca().start();
    let config = site.config(&ca.acme(&site.store()), "\"a.test\"");
    let ca = ca.stop();
    let hopgate = Hopgate::start(&config);
    let line = hopgate.wait_for_log("no certificate for a.test");
    for words in
        ["the directory of the CA cannot be used", "the next attempt is in 1", "is `directory` right"]
    {
        assert!(line.contains(words), "{words} is missing in:\n{line}");
    }
    assert_eq!(hopgate.get("/"), (200, "the app".to_owned()));
    let ca = ca.start(site.ca());
    hopgate.reload_with(&config);
    hopgate.wait_for_log("the certificate for a.test is in use");
    assert_eq!(site.get("a.test", &ca.root()).as_deref(), Ok("the app"));
}

/// RFC 9773, which pebble does not know: the window is given by what stands in front of it.
#[test]
fn a_certificate_is_renewed_when_the_ca_wants_it() {
    let site = Site::new();
    let ca = site.ca().start();
    let front = Front::start(&ca, |line, pass| {
        let target = line.split(' ').nth(1).unwrap_or_default();
        if target == "/dir" {
            let answer = pass();
            let body = answer.split_once("\r\n\r\n").expect("a body").1;
            let mut directory: serde_json::Value = serde_json::from_str(body).expect("a directory");
            let nonce = directory["newNonce"].as_str().expect("a URL").to_owned();
            directory["renewalInfo"] = nonce.replace("/nonce-plz", "/ari").into();
            return answer_with("200 OK", "", &directory);
        }
        match target.strip_prefix("/ari/") {
            Some(id) => {
                assert_eq!(id.split('.').count(), 2, "RFC 9773 section 4.1: {id}");
                let window = json!({ "suggestedWindow": { "start": "2020-01-01T00:00:00Z", "end": "2020-01-02T00:00:00Z" } });
                answer_with("200 OK", "Retry-After: 3600\r\n", &window)
            }
            None => pass(),
        }
    });
    let config = site.config(&front.acme(&site.store()), "\"a.test\"");
    let hopgate = Hopgate::start(&config);
    // A window that is over means now; but what was just issued is not renewed again.
    hopgate.wait_for_log("the CA wants the certificate for a.test renewed in 21 h");
    drop(hopgate);
    let hopgate = Hopgate::start(&config);
    hopgate.wait_for_log("the certificate for a.test is in use");
    hopgate.wait_for_log("the CA wants the certificate for a.test renewed in 21 h");
    assert_eq!(site.get("a.test", &ca.root()).as_deref(), Ok("the app"));
    // pebble leaves out what it is said to replace, so that the order is made once more without.
    assert_eq!(ca.orders(), 3);
}

#[test]
fn a_ca_that_has_enough_is_left_alone_for_as_long_as_it_says() {
    let site = Site::new();
    let ca = site.ca().start();
    let front = Front::start(&ca, |line, pass| {
        if !line.starts_with("POST /order-plz ") {
            return pass();
        }
        let answer = pass();
        let lines: Vec<_> = answer.lines().take_while(|line| !line.is_empty()).collect();
        let nonce =
            lines.iter().find(|line| line.to_ascii_lowercase().starts_with("replay-nonce")).expect("a nonce");
        let problem = json!({
            "type": "urn:ietf:params:acme:error:rateLimited",
            "detail": "too many certificates already issued",
        });
        answer_with("429 Too Many Requests", &format!("{nonce}\r\nRetry-After: 7500\r\n"), &problem)
    });
    let config = site.config(&front.acme(&site.store()), "\"a.test\"");
    let hopgate = Hopgate::start(&config);
    let line = hopgate.wait_for_log("no certificate for a.test");
    assert!(line.contains("the CA refuses: too many certificates already issued"), "{line}");
    assert!(line.contains("the next attempt is in 2 h 4 min"), "{line}");
    // Neither a reload nor a restart asks before that.
    hopgate.reload_with(&config);
    hopgate.wait_for_log("the CA does not want to be asked before");
    drop(hopgate);
    let hopgate = Hopgate::start(&config);
    hopgate.wait_for_log("the next attempt to get a certificate for a.test is in 2 h 4 min");
    hopgate.reload_with(&config);
    hopgate.wait_for_log("the CA does not want to be asked before");
    assert_eq!(hopgate.get("/"), (200, "the app".to_owned()));
    assert_eq!(ca.orders(), 1);
}
