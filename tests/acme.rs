//! `tls = "acme"`, with Debian's pebble as the CA.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::json;
use support::{Front, Hopgate, Pebble, Site, answer_with, eventually, free_addr, get_over_tls};

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
    let config = site.config(&ca.acme(&site.store()), r#"["www.a.test", "a.test"]"#);
    let hopgate = Hopgate::start(&config.replace(&format!("\"{}\", ", site.plain), ""));
    hopgate.wait_for_log("the certificate for a.test and www.a.test is in use");
    for name in ["a.test", "www.a.test"] {
        assert_eq!(site.get(name, &ca.root()).as_deref(), Ok("the app"));
    }
    assert!(!hopgate.log().contains("http-01"), "{}", hopgate.log());
}

#[test]
fn certificates_with_a_name_in_common_come_by_tls_alpn_01_one_after_the_other() {
    let site = Site::new();
    let other = free_addr();
    let ca = Pebble { http: free_addr(), ..site.ca() }.start();
    let (asked, told) = std::sync::mpsc::channel();
    let front = Front::start(&ca, move |line, pass| {
        let is_of_order =
            ["POST /order-plz", "POST /chalZ/"].into_iter().find(|begin| line.starts_with(begin));
        // The test may be over.
        let _ = is_of_order.map(|begin| asked.send(begin));
        pass()
    });
    let of = |names: &str| {
        let config = site.config(&front.acme(&site.store()), names);
        config.replace(&format!("\"{}\", ", site.plain), "")
    };
    // Who makes the account is ahead of the others.
    let hopgate = Hopgate::start(&of("\"c.test\""));
    hopgate.wait_for_log("the certificate for c.test is in use");
    let server = "tls = \"acme\"\nreturn = \"200 other\"\n";
    hopgate.reload_with(&format!(
        "{}\n[[server]]\nlisten = \"{other} ssl\"\nserver_name = [\"b.test\", \"www.a.test\"]\n{server}",
        of(r#"["a.test", "www.a.test"]"#),
    ));
    hopgate.wait_for_log("the certificate for a.test and www.a.test is in use");
    hopgate.wait_for_log("the certificate for b.test and www.a.test is in use");
    let (order, proof) = ("POST /order-plz", "POST /chalZ/");
    let seen: Vec<_> = told.try_iter().collect();
    assert_eq!(seen, [order, proof, order, proof, proof, order, proof, proof]);
    assert!(!hopgate.log().contains("no certificate for"), "{}", hopgate.log());
    assert_eq!(site.get("www.a.test", &ca.root()).as_deref(), Ok("the app"));
    assert_eq!(get_over_tls(other, "www.a.test", &ca.root()).as_deref(), Ok("other"));
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
    let is_first_proof = |line: &&str| line.contains("ordering") && line.ends_with("by http-01");
    assert_eq!(hopgate.log().lines().filter(is_first_proof).count(), 1, "{}", hopgate.log());
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
    // Without the CA, which has nothing to say in it.
    let (root, config) = (ca.root(), site.config(&ca.acme(&site.store()), "\"a.test\""));
    let _ca = ca.stop();
    let second = Hopgate::start(&config);
    assert_eq!(site.get("a.test", &root).as_deref(), Ok("the app"));
    assert!(!second.log().contains("WARN"), "{}", second.log());
}

#[test]
fn servers_with_the_same_names_share_a_certificate() {
    let site = Site::new();
    let other = free_addr();
    let ca = site.ca().start();
    let names = r#"["a.test", "www.a.test"]"#;
    let config = format!(
        "{}\n[[server]]\nlisten = \"{other} ssl\"\nserver_name = [\"www.a.test\", \"a.test\"]\ntls = \"acme\"\n\
         return = \"200 other\"\n",
        site.config(&ca.acme(&site.store()), names)
    );
    let hopgate = Hopgate::start(&config);
    hopgate.wait_for_log("is in use");
    assert_eq!(site.get("www.a.test", &ca.root()).as_deref(), Ok("the app"));
    assert_eq!(get_over_tls(other, "www.a.test", &ca.root()).as_deref(), Ok("other"));
    // A reload begins nothing of its own.
    hopgate.reload_with(&config);
    assert_eq!(get_over_tls(other, "a.test", &ca.root()).as_deref(), Ok("other"));
    assert_eq!(ca.orders(), 1);
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
    let said = "the certificate for a.test cannot be used, another one is ordered";
    hopgate.wait_for_log(said);
    hopgate.wait_for_log("account.json is not an account");
    hopgate.wait_for_log("others could use");
    hopgate.wait_for_log("the certificate for a.test is in use");
    assert_eq!(hopgate.log().matches(said).count(), 1, "{}", hopgate.log());
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
    // It may have been asked while it was not there; the next time would be in 10 seconds.
    hopgate.reload_with(&site.config(&ca.acme(&site.store()), "\"a.test\""));
    hopgate.wait_for_log("the CA does not know the account any more");
    eventually("there is one of the new CA", || site.get("a.test", &ca.root()).is_ok());
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
