//! The real programs of `tests/apps`: the Node app as an upstream, and the Node scripts that are its clients.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::Dir;
use super::lines::Lines;

/// How long a script of clients may take, in seconds. Each of its tests has a shorter limit of its own.
const SCRIPT_LIMIT: &str = "150";

/// The Express, `ws` and Socket.IO app, running until the test lets go of it.
pub struct NodeApp {
    child: Child,
    addrs: Vec<String>,
}

impl NodeApp {
    /// Starts it on a port of its own.
    #[track_caller]
    pub fn start() -> Self {
        Self::start_with(&["0"])
    }

    /// Starts it with these arguments; `server.js` tells which there are.
    #[track_caller]
    pub fn start_with(args: &[&str]) -> Self {
        Self::run("server.js", args)
    }

    /// Starts, instead of it, the app that tells what it was asked, on so many ports.
    #[track_caller]
    pub fn echoing_on(ports: usize) -> Self {
        Self::run("echo.js", &[&ports.to_string()])
    }

    /// Starts, instead of it, the gRPC server.
    #[track_caller]
    pub fn speaking_grpc() -> Self {
        Self::run("grpc-server.js", &[])
    }

    /// Starts the gRPC server behind TLS.
    #[track_caller]
    pub fn speaking_grpcs(certificate: &str, key: &str) -> Self {
        Self::run("grpc-server.js", &[certificate, key])
    }

    /// Starts, instead of it, the app that speaks nothing but HTTP/2; `http2.js` tells with which arguments.
    #[track_caller]
    pub fn speaking_http2(args: &[&str]) -> Self {
        Self::run("http2.js", args)
    }

    /// Starts, instead of it, the app behind TLS; `secure.js` tells with which arguments.
    #[track_caller]
    pub fn secure(args: &[&str]) -> Self {
        Self::run("secure.js", args)
    }

    #[track_caller]
    fn run(script: &str, args: &[&str]) -> Self {
        // Its stdin stays open as long as this process lives: the app ends when it does, however that comes about.
        let mut child = node()
            .arg(script)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the Node app can be run");
        let output = Lines::follow(child.stdout.take().expect("stdout is piped"));
        let line = output.expect("listening ", 0);
        let addr_of = |place: &str| {
            if place.starts_with("unix:") { place.into() } else { format!("127.0.0.1:{place}") }
        };
        let addrs = line.trim_start_matches("listening ").split(' ').map(addr_of).collect();
        Self { child, addrs }
    }

    /// `HOST:PORT` or `unix:PATH`, as `proxy_pass` wants it behind `http://`.
    pub fn addr(&self) -> &str {
        &self.addrs[0]
    }

    /// The addresses of all its ports.
    pub fn addrs(&self) -> &[String] {
        &self.addrs
    }
}

impl Drop for NodeApp {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a script of `tests/apps` whose tests talk to `url`, and expects all of them to pass.
#[track_caller]
pub fn run_node_script(script: &str, url: &str) {
    run_node_script_trusting(script, url, "");
}

/// The same for a `url` with `https://`, whose authority is in this file.
#[track_caller]
pub fn run_node_script_trusting(script: &str, url: &str, ca: &str) {
    node(); // tells kindly what is missing
    let temporary = Dir::new(); // Chromium leaves things behind
    let output = Command::new("timeout")
        .args([
            "--kill-after=5",
            SCRIPT_LIMIT,
            "node",
            "--test-force-exit",
            "--test-reporter=tap",
            script,
            url,
        ])
        .current_dir(apps())
        .env("TMPDIR", temporary.path(""))
        .env("HOME", temporary.path(""))
        .env("NODE_EXTRA_CA_CERTS", ca)
        .stdin(Stdio::null())
        .output()
        .expect("timeout, of coreutils, can be run");
    let report = String::from_utf8_lossy(&output.stdout);
    let complaints = String::from_utf8_lossy(&output.stderr);
    let count =
        |what: &str| report.lines().find_map(|line| line.strip_prefix(what)?.trim().parse::<u32>().ok());
    let (tests, passed) = (count("# tests "), count("# pass "));
    assert!(
        output.status.success() && tests == passed && tests > Some(0),
        "{script} {url}\nexpected: every test passes\n     got: {passed:?} of {tests:?}, {}\n{}{complaints}",
        output.status,
        failures(&report)
    );
}

/// Runs a script of `tests/apps` in Python, with its packages, and expects it to end well.
#[track_caller]
pub fn run_python_script(script: &str, addr: &str) {
    let python = apps().join("python/bin/python");
    assert!(
        python.exists(),
        "this test needs Python with the packages of tests/apps/requirements.txt: run tests/run, which installs them"
    );
    let output = Command::new("timeout")
        .args(["--kill-after=5", SCRIPT_LIMIT])
        .arg(python)
        .args([script, addr])
        .current_dir(apps())
        .stdin(Stdio::null())
        .output()
        .expect("timeout, of coreutils, can be run");
    let report = String::from_utf8_lossy(&output.stdout);
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && !report.is_empty(),
        "{script}: {}\n{report}{complaints}",
        output.status
    );
}

/// The parts of a TAP report that tell of tests that did not pass; all of it if there are none.
fn failures(report: &str) -> String {
    let parts: Vec<&str> = report.split("# Subtest: ").filter(|part| part.contains("\nnot ok ")).collect();
    if parts.is_empty() { report.to_owned() } else { parts.concat() }
}

/// Node in `tests/apps`, if everything that it needs is installed.
#[track_caller]
fn node() -> Command {
    let version = Command::new("node").arg("--version").output();
    let version =
        version.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let major = version.trim_start_matches('v').split('.').next().and_then(|major| major.parse::<u32>().ok());
    assert!(
        major >= Some(20),
        "this test needs Node.js 20 or newer, and `node --version` says {version:?}: run tests/run, which installs \
         what is missing, or install it and say `npm ci` in tests/apps"
    );
    assert!(
        apps().join("node_modules/ws").is_dir(),
        "this test needs the packages of tests/apps: say `npm ci` there, or run tests/run, which does"
    );
    let mut node = Command::new("node");
    node.current_dir(apps());
    node
}

fn apps() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/apps")
}
