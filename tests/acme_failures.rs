//! `tls = "acme"` where something is wrong: what is said, what is served meanwhile, and when it is tried again.

mod support;

use std::fs;
use std::net::TcpListener;
use std::process::{Command, Stdio};

use serde_json::json;
use support::{Authority, Front, Hopgate, Pebble, Site, answer_with, eventually, free_addr};

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
    hopgate.wait_for_log("the next attempt to get a certificate for a.test is in ");
    assert_eq!(ca.orders(), 2);
    // A reload does: the operator has changed something.
    hopgate.reload_with(&site.config(&ca.acme(&site.store()), "\"a.test\""));
    eventually("it is tried again", || ca.orders() == 3);
    eventually("that has failed, too", || hopgate.log().matches("no certificate for a.test").count() == 1);
    // So does one that changes how it is tried.
    let other = free_addr();
    let config = site.config(&ca.acme(&site.store()), "\"a.test\"");
    hopgate.reload_with(&config.replace(" ssl\"]", &format!(" ssl\", \"{other}\"]")));
    eventually("it is tried once more", || ca.orders() == 4);
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
fn a_store_that_cannot_be_written_is_told_at_start() {
    let site = Site::new();
    let file = site.store.join("a-file");
    fs::write(&file, "").expect("a file can be written");
    let ca = site.ca().start();
    let config = site.config(&ca.acme(&file.join("store").display().to_string()), "\"a.test\"");
    let mut hopgate = Hopgate::spawn(&config, Stdio::null());
    assert_eq!(hopgate.wait_exit().code(), Some(1));
    let said = "the `store` of `[acme]` cannot be written";
    assert!(hopgate.log().contains(said), "{}", hopgate.log());
    assert!(hopgate.log().contains("let the user that hopgate runs as write there"), "{}", hopgate.log());
    // A reload is refused, and what was there goes on.
    let hopgate = site.start(&ca, "\"a.test\"");
    let refused = hopgate.refuse_reload_with(&config);
    assert!(refused.contains(said), "{refused}");
    hopgate.wait_for_log("the certificate for a.test is in use");
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
    let line = hopgate.wait_for_log("the next attempt to get a certificate for a.test is in 2 h 4 min");
    assert!(line.ends_with("the CA does not want to be asked before"), "{line}");
    hopgate.reload_with(&config);
    hopgate.wait_for_log("the CA does not want to be asked before");
    assert_eq!(hopgate.get("/"), (200, "the app".to_owned()));
    assert_eq!(ca.orders(), 1);
}

#[test]
fn other_names_are_served_while_a_first_certificate_is_waited_for() {
    let site = Site::new();
    let authority = Authority::new("a CA");
    authority.issue(&["b.test"]).write(&site.store, "b");
    let root = site.store.join("root.pem");
    fs::write(&root, authority.pem()).expect("a file can be written");
    let ca = site.ca().start();
    let config = format!(
        "{}\n[[server]]\nlisten = \"{} ssl\"\nserver_name = \"b.test\"\nssl_certificate = \"{}\"\n\
         ssl_certificate_key = \"{}\"\nreturn = \"200 b\"\n",
        site.config(&ca.acme(&site.store()), "\"a.test\""),
        site.tls,
        site.store.path("b.pem"),
        site.store.path("b.key"),
    );
    let ca = ca.stop();
    let hopgate = Hopgate::start(&config);
    hopgate.wait_for_log("no certificate for a.test");
    assert_eq!(site.get("b.test", &root).as_deref(), Ok("b"));
    // Whoever looks sees what the other name waits for; who does not check is served.
    let output = Command::new("curl")
        .args(["-sSk", "--resolve", &format!("a.test:{}:127.0.0.1", site.tls.port()), "-w", "%{certs}"])
        .arg(format!("https://a.test:{}/", site.tls.port()))
        .output()
        .expect("curl can be run");
    let shown = String::from_utf8_lossy(&output.stdout);
    for words in ["the app", "Issuer:CN = hopgate waits for a certificate", "DNS:a.test"] {
        assert!(
            shown.replace(" = ", "=").contains(&words.replace(" = ", "=")),
            "{words} is missing in {shown}"
        );
    }
    let ca = ca.start(site.ca());
    hopgate.reload_with(&config);
    hopgate.wait_for_log("the certificate for a.test is in use");
    assert_eq!(site.get("a.test", &ca.root()).as_deref(), Ok("the app"));
    assert_eq!(site.get("b.test", &root).as_deref(), Ok("b"));
}

#[test]
fn a_renewal_that_fails_leaves_the_certificate_in_use() {
    let site = Site::new();
    let ca = Pebble { lifetime: 6, ..site.ca() }.start();
    let root = ca.root();
    let hopgate = site.start(&ca, "\"a.test\"");
    hopgate.wait_for_log("the certificate for a.test is in use");
    let _ca = ca.stop();
    let line = hopgate.wait_for_log("no certificate for a.test");
    assert!(
        line.contains("Connection refused") && line.contains("the certificate in use holds for"),
        "{line}"
    );
    assert_eq!(site.get("a.test", &root).as_deref(), Ok("the app"));
}

/// What the log says if the line of `[acme]` that begins with `key` is `line`.
fn complaint_about(key: &str, line: &str) -> String {
    let site = Site::new();
    let ca = site.ca().start();
    let line = line.replace("CA", &ca.addr().to_string());
    let acme: Vec<_> = ca.acme(&site.store()).lines().map(str::to_owned).collect();
    let acme = acme.iter().map(|old| if old.starts_with(&format!("{key} =")) { &line } else { old });
    let acme = acme.cloned().collect::<Vec<_>>().join("\n");
    let hopgate = Hopgate::start(&site.config(&acme, "\"a.test\""));
    let said = hopgate.wait_for_log("no certificate for a.test");
    assert_eq!(hopgate.get("/"), (200, "the app".to_owned()));
    said
}

#[test]
fn a_setting_that_the_ca_does_not_take_is_named() {
    for (key, line, expected) in [
        ("directory", "directory = \"https://CA/nothing\"", "what is at `directory` does not speak ACME"),
        ("directory", "directory = \"https://CA/nothing\"", "is that the whole URL in `directory`?"),
        ("directory_ca", "", "invalid peer certificate"),
        ("directory_ca", "", "a CA of your own needs `directory_ca`"),
        ("contact", "contact = \"j\u{fc}rgen@example.org\"", "change `contact` of `[acme]`"),
    ] {
        let said = complaint_about(key, line);
        assert!(said.contains(expected), "{expected} is missing in:\n{said}");
    }
}

#[test]
fn check_and_explain_ask_nobody_and_make_nothing() {
    let site = Site::new();
    let directory = TcpListener::bind("127.0.0.1:0").expect("a port to listen on");
    directory.set_nonblocking(true).expect("a socket");
    let at = directory.local_addr().expect("an address");
    let acme = format!(
        "[acme]\nagree_to_terms = true\ndirectory = \"https://{at}/\"\nstore = \"{}\"\n",
        site.store()
    );
    let file = site.store.join("hopgate.toml");
    fs::write(&file, site.config(&acme, "\"a.test\"")).expect("a file can be written");
    let url = format!("https://a.test:{}/", site.tls.port());
    for arguments in [&["check"][..], &["explain", &url]] {
        let ran =
            Command::new(env!("CARGO_BIN_EXE_hopgate")).args(arguments).arg("--config").arg(&file).output();
        let ran = ran.expect("hopgate can be run");
        assert!(ran.status.success(), "{ran:?}");
    }
    let nobody = directory.accept().map(|_| ()).map_err(|error| error.kind());
    assert_eq!(nobody, Err(std::io::ErrorKind::WouldBlock));
    assert!(!site.store.join("store").exists());
}
