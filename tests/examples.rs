//! The configurations in `examples/` do what their READMEs promise, beside a real nginx where they replace one.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use support::{Hopgate, Nginx, NodeApp, run_node_script};

#[test]
fn nginx_behaves_as_the_readme_of_its_example_says() {
    let app = NodeApp::start();
    let nginx = Nginx::start(&with_app(&example("nginx-location/nginx.conf"), &app));
    behaves_as_in_the_nginx_example(nginx.addr());
}

#[test]
fn hopgate_behaves_as_the_nginx_that_it_replaces() {
    let app = NodeApp::start();
    let hopgate = Hopgate::start(&on_any_port(&with_app(&example("nginx-location/hopgate.toml"), &app)));
    behaves_as_in_the_nginx_example(&hopgate.addr().to_string());
}

#[test]
fn the_service_and_the_sidecar_pass_on_what_their_app_is_for() {
    for name in ["systemd-node/hopgate.toml", "docker-sidecar/hopgate.toml"] {
        let app = NodeApp::start();
        let hopgate = Hopgate::start(&on_any_port(&with_app(&example(name), &app)));
        run_node_script("socketio-client.js", &format!("http://{}", hopgate.addr()));
    }
}

fn behaves_as_in_the_nginx_example(addr: &str) {
    let seen = json(&curl(&["--header", "Host: chat.example.com", &format!("http://{addr}/json?a=%20b")]));
    assert_eq!(seen["url"], "/json?a=%20b");
    assert_eq!(field(&seen, "host"), "chat.example.com");
    assert_eq!(field(&seen, "x-real-ip"), "127.0.0.1");
    assert_eq!(field(&seen, "x-forwarded-for"), "127.0.0.1");
    assert_eq!(field(&seen, "x-forwarded-proto"), "http");

    assert_eq!(json(&curl(&[&format!("http://{addr}/api/json?a=%20b")]))["url"], "/json?a=%20b");

    let upload = format!("http://{addr}/api/upload");
    assert_eq!(json(&curl(&["--data-binary", &"x".repeat(100_000), &upload]))["length"], 100_000);
    let too_much =
        ["--request", "POST", "--header", "Content-Length: 20971521", "--write-out", "%{http_code}"];
    let refused = curl(&[&too_much[..], &["--output", "/dev/null", &upload]].concat());
    assert_eq!(refused, "413");

    run_node_script("ws-client.js", &format!("http://{addr}"));
}

/// A file of `examples/`.
#[track_caller]
fn example(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The example with its apps where this one is.
#[track_caller]
fn with_app(example: &str, app: &NodeApp) -> String {
    assert!(example.contains("127.0.0.1:3000"), "no app on port 3000 in:\n{example}");
    example.replace("127.0.0.1:3000", app.addr()).replace("127.0.0.1:4000", app.addr())
}

/// The example listening on loopback, on a port that is free.
fn on_any_port(example: &str) -> String {
    let listen = |line: &str| {
        if line.starts_with("listen = ") { r#"listen = "127.0.0.1:0""#.into() } else { line.into() }
    };
    example.lines().map(listen).collect::<Vec<String>>().join("\n")
}

/// What curl gets, once it is content.
#[track_caller]
fn curl(args: &[&str]) -> String {
    let limits = ["--disable", "--silent", "--show-error", "--max-time", "20"];
    let output = Command::new("curl").args(limits).args(args).output().unwrap_or_else(|error| {
        panic!("this test needs curl ({error}): run tests/run, which installs what is missing, or install it")
    });
    assert!(output.status.success(), "curl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[track_caller]
fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("not JSON ({error}): {text}"))
}

/// The values of a request field, as the app got them.
fn field(seen: &serde_json::Value, name: &str) -> String {
    let fields = seen["fields"].as_array().into_iter().flatten();
    let same = fields.filter(|field| field[0].as_str().is_some_and(|seen| seen.eq_ignore_ascii_case(name)));
    same.filter_map(|field| field[1].as_str()).collect::<Vec<_>>().join(" and ")
}
