//! `hopgate explain` with TLS: which server the name in the handshake chooses, which certificate is shown, and that the
//! head that is told is the one that an upstream gets.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::date_time_ymd;
use serde_json::Value;
use support::{
    Authority, Dir, Hopgate, OpenSslPeer, Upstream, certificate, expect_as_written_down, explain_in,
    free_addr,
};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/explain/tls")
}

/// The configuration of the tests, beside certificates that it names.
fn place() -> Dir {
    let dir = Dir::new();
    let authority = Authority::new("a CA");
    for (name, names) in
        [("example", &["example.com", "*.example.com"][..]), ("members", &["members.example.com"])]
    {
        let mut params = certificate(name, names);
        params.not_after = date_time_ymd(2099, 12, 31);
        authority.sign(params).write(&dir, name);
    }
    fs::write(dir.join("ca.pem"), authority.pem()).unwrap();
    let config = fs::read_to_string(folder().join("hopgate.toml")).unwrap();
    fs::write(dir.join("hopgate.toml"), config.replace("DIR/", &dir.path(""))).unwrap();
    dir
}

#[test]
fn every_question_about_tls_is_answered_as_written_down() {
    expect_as_written_down(&folder(), place().as_ref());
}

#[test]
fn the_head_that_is_shown_is_the_head_that_an_upstream_gets_over_tls() {
    let upstream = Upstream::listen();
    let addr = free_addr();
    let config = format!(
        "workers = 1\n[[server]]\nlisten = '{addr} ssl'\nserver_name = 'localhost'\ntls = 'self-signed'\n\
         [[server.location]]\npath = '/'\nproxy_pass = 'http://{}'\n\
         proxy_set_header = {{ X-TLS = '$https $scheme $ssl_server_name $ssl_client_verify' }}\n",
        upstream.addr()
    );
    let dir = Dir::new();
    fs::write(dir.join("hopgate.toml"), &config).unwrap();
    let url = format!("https://localhost:{}/a?b", addr.port());
    let told: Value = serde_json::from_slice(&explain_in(&dir, &[&url, "--json"]).stdout).unwrap();
    let _hopgate = Hopgate::start(&config);
    let mut client = OpenSslPeer::connect(addr, "localhost", None);
    client.peer.send(told["request"].as_str().unwrap());
    let mut server = upstream.accept();
    let got = String::from_utf8_lossy(&server.head().raw).into_owned();
    assert_eq!(told["upstream"]["head"].as_str().unwrap(), got);
    assert!(got.contains("X-Forwarded-Proto: https\r\n"), "{got}");
    server.respond_and_close("");
    client.peer.expect_status(200);
}
