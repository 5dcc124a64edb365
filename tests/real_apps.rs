//! Real programs on both sides: Express, `ws` and Socket.IO behind hopgate, their own clients and curl before it.

mod support;

use std::fs;
use std::process::{Command, Output, Stdio};

use support::{Dir, Hopgate, KEY, NodeApp, Noise, assert_same_bytes, run_node_script};

#[test]
fn http_clients_of_node_find_an_express_app_as_if_hopgate_were_not_there() {
    let app = NodeApp::start();
    let hopgate = in_front_of(&app);
    run_node_script("http-client.js", &url(&hopgate, ""));
}

#[test]
fn an_express_app_on_a_unix_socket_is_as_good_as_one_on_a_port() {
    let dir = Dir::new();
    let app = NodeApp::start_with(&[&format!("unix:{}", dir.path("app.sock"))]);
    let hopgate = in_front_of(&app);
    run_node_script("http-client.js", &url(&hopgate, ""));
}

#[test]
fn websocket_clients_of_node_get_every_message_and_their_tunnels_are_logged_to_the_end() {
    let app = NodeApp::start();
    let hopgate = in_front_of(&app);

    run_node_script("ws-client.js", &url(&hopgate, ""));

    let started: Vec<String> =
        hopgate.access_lines(" start").iter().filter_map(|line| tunnel_id(line)).collect();
    assert!(started.len() > 200, "expected: more than 200 tunnels\n     got: {}", started.len());
    for id in started {
        hopgate.wait_for_access(&format!("tunnel={id} end cause="));
    }
}

#[test]
fn socket_io_clients_poll_upgrade_and_reconnect_through_the_quick_mode() {
    let app = NodeApp::start();
    let upstream = format!("http://{}", app.addr());
    let hopgate = Hopgate::quick(&["run", "--listen", "127.0.0.1:0", "--upstream", &upstream]);
    run_node_script("socketio-client.js", &url(&hopgate, ""));
}

#[test]
fn curl_of_http_1_0_gets_a_chunked_answer_without_chunks() {
    let app = NodeApp::start();
    let hopgate = in_front_of(&app);

    let through =
        curl(&["--http1.0", "--dump-header", "/dev/stderr", &url(&hopgate, "/download/chunked/500000")]);

    let direct = curl(&[&format!("http://{}/download/chunked/500000", app.addr())]);
    assert_same_bytes("the body", &direct.stdout, &through.stdout);
    let head = stderr(&through).to_lowercase();
    assert!(head.contains("connection: close") && !head.contains("transfer-encoding"), "{head}");
}

#[test]
fn curl_asks_with_head_and_goes_on_with_the_same_connection() {
    let app = NodeApp::start();
    let hopgate = in_front_of(&app);

    let page = url(&hopgate, "/download/length/777");
    let output = curl(&["--head", "--write-out", "connects %{num_connects}\n", &page, &page, &page]);

    let text = stdout(&output).to_lowercase();
    assert_eq!(text.matches("content-length: 777").count(), 3, "{text}");
    assert_eq!(text.matches("connects 1").count(), 1, "{text}");
    assert_eq!(text.matches("connects 0").count(), 2, "{text}");
}

#[test]
fn curl_uploads_when_it_is_told_to_continue() {
    let app = NodeApp::start();
    let hopgate = in_front_of(&app);
    let dir = Dir::new();
    fs::write(dir.join("upload"), Noise::seeded(1).take(3_000_000)).expect("a file can be written");

    // It would wait longer for the 100 than it may take.
    let expect = ["--verbose", "--header", "Expect: 100-continue", "--expect100-timeout", "100"];
    let file = dir.path("upload");
    let sent = curl(&[&expect[..], &["--upload-file", &file, &url(&hopgate, "/upload")]].concat());

    assert!(stderr(&sent).contains("HTTP/1.1 100 Continue"), "{}", stderr(&sent));
    assert_eq!(json(&sent)["length"], 3_000_000);
    assert_eq!(json(&sent)["sha256"], sha256sum(&file));
}

#[test]
fn curl_keeps_its_body_when_the_app_refuses_it_unread() {
    let app = NodeApp::start();
    let hopgate = in_front_of(&app);
    let dir = Dir::new();
    fs::write(dir.join("upload"), Noise::seeded(2).take(3_000_000)).expect("a file can be written");

    let data = format!("@{}", dir.path("upload"));
    let refused = curl(&["--write-out", " %{http_code}", "--data-binary", &data, &url(&hopgate, "/refuse")]);

    assert_eq!(stdout(&refused), "too large for me\n 413");
}

#[test]
fn curl_uploads_what_it_does_not_know_the_length_of() {
    let app = NodeApp::start();
    let hopgate = in_front_of(&app);
    let dir = Dir::new();
    let file = dir.path("upload");
    fs::write(&file, Noise::seeded(3).take(2_000_000)).expect("a file can be written");

    let stdin = fs::File::open(&file).expect("the file is there");
    let upload = url(&hopgate, "/upload");
    let sent = curl_with(Stdio::from(stdin), &["--upload-file", "-", "--header", "Expect:", &upload]);

    assert_eq!(json(&sent)["length"], 2_000_000);
    assert_eq!(json(&sent)["sha256"], sha256sum(&file));
    assert_eq!(field(&sent, "transfer-encoding"), ["chunked"]);
}

#[test]
fn curl_upgrades_and_hears_the_app() {
    let app = NodeApp::start();
    let hopgate = in_front_of(&app);

    let key = format!("Sec-WebSocket-Key: {KEY}");
    let fields = ["Connection: keep-alive, Upgrade", "Upgrade: WebSocket", "Sec-WebSocket-Version: 13", &key];
    let headers: Vec<&str> = fields.iter().flat_map(|field| ["--header", field]).collect();
    let path = url(&hopgate, "/plain?greet=hi");
    let output = curl(&[&["--http1.1", "--include"], &headers[..], &[&path]].concat());

    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.starts_with("HTTP/1.1 101 "), "{text}");
    assert!(output.stdout.ends_with(b"\r\n\r\n\x81\x02hi"), "{text}");
}

#[test]
fn curl_resumes_a_download() {
    let dir = Dir::new();
    let whole = Noise::seeded(4).take(1_000_000);
    fs::create_dir(dir.join("files")).expect("a directory can be made");
    fs::write(dir.join("files/whole"), &whole).expect("a file can be written");
    fs::write(dir.join("part"), &whole[..333_333]).expect("a file can be written");
    let app = NodeApp::start_with(&["0", "--files", &dir.path("files")]);
    let hopgate = in_front_of(&app);

    let part = dir.path("part");
    let output = curl(&[
        "--continue-at",
        "-",
        "--dump-header",
        "/dev/stderr",
        "-o",
        &part,
        &url(&hopgate, "/files/whole"),
    ]);

    let head = stderr(&output);
    assert!(head.starts_with("HTTP/1.1 206 "), "{head}");
    assert!(head.to_lowercase().contains("content-range: bytes 333333-999999/1000000"), "{head}");
    assert_same_bytes("the file", &whole, &fs::read(&part).expect("the file is there"));
}

#[test]
fn curl_is_told_that_its_copy_is_still_good() {
    let dir = Dir::new();
    fs::create_dir(dir.join("files")).expect("a directory can be made");
    fs::write(dir.join("files/page"), "a page").expect("a file can be written");
    let app = NodeApp::start_with(&["0", "--files", &dir.path("files")]);
    let hopgate = in_front_of(&app);
    let (page, etag, code) =
        (url(&hopgate, "/files/page"), dir.path("etag"), "%{http_code} %{num_connects}\n");

    let first = curl(&["--etag-save", &etag, "--write-out", code, &page]);
    assert_eq!(stdout(&first), "a page200 1\n");

    let again = curl(&["--etag-compare", &etag, "--write-out", code, &page, &page]);
    assert_eq!(stdout(&again), "304 1\n304 0\n");
}

#[test]
fn curl_downloads_forty_at_once() {
    let app = NodeApp::start();
    let hopgate = in_front_of(&app);
    let dir = Dir::new();

    let (range, out) = (url(&hopgate, "/download/chunked/[100000-100039]"), dir.path("#1"));
    curl(&["--parallel", "--parallel-max", "40", &range, "-o", &out]);

    let longest = curl(&[&format!("http://{}/download/chunked/100039", app.addr())]).stdout;
    for length in 100_000..100_040 {
        let got = fs::read(dir.join(&length.to_string())).expect("the file is there");
        assert_same_bytes(&format!("download of {length} bytes"), &longest[..length], &got);
    }
}

#[test]
fn curl_that_takes_hopgate_for_a_forward_proxy_is_served_by_the_app_and_never_tunnelled() {
    let app = NodeApp::start();
    let hopgate = in_front_of(&app);
    let proxy = url(&hopgate, "");

    let output = curl(&["--noproxy", "", "--proxy", &proxy, "http://app.example/json?a"]);
    assert_eq!(json(&output)["url"], "/json?a");
    assert_eq!(field(&output, "host"), ["app.example"]);
    assert_eq!(field(&output, "proxy-connection"), [""; 0]);

    let connect = ["--noproxy", "", "--proxytunnel", "--proxy", &proxy, "--write-out", "%{http_connect}"];
    let refused = curl_any(Stdio::null(), &[&connect[..], &["http://app.example/json"]].concat());
    assert_eq!(stdout(&refused), "405", "{}", stderr(&refused));
    assert!(!refused.status.success());
}

#[test]
fn curl_finds_hopgate_on_a_unix_socket() {
    let app = NodeApp::start();
    let dir = Dir::new();
    let socket = dir.path("hopgate.sock");
    let _hopgate = Hopgate::start(&config(&format!("unix:{socket}"), &app));

    let output = curl(&["--unix-socket", &socket, "http://somewhere/json"]);

    assert_eq!(field(&output, "host"), ["somewhere"]);
}

#[test]
fn curl_is_sent_through_a_redirect_with_its_cookies() {
    let app = NodeApp::start();
    let hopgate = in_front_of(&app);
    let dir = Dir::new();
    let jar = dir.path("cookies");

    curl(&["--cookie-jar", &jar, &url(&hopgate, "/cookies/set")]);
    let output = curl(&["--cookie", &jar, "--location", &url(&hopgate, "/redirect")]);

    assert_eq!(json(&output)["url"], "/json?from=redirect");
    let cookie = field(&output, "cookie").concat();
    assert!(cookie.contains("session=a%20b%3Bc") && cookie.contains("theme=dark"), "{cookie}");
}

/// Passes everything to the app, with two workers, so that a client meets either.
fn in_front_of(app: &NodeApp) -> Hopgate {
    Hopgate::start(&config("127.0.0.1:0", app))
}

fn config(listen: &str, app: &NodeApp) -> String {
    format!(
        r#"
        workers = 2

        [[server]]
        listen = "{listen}"

        [[server.location]]
        path = "/"
        proxy_pass = "http://{}"
        "#,
        app.addr()
    )
}

fn url(hopgate: &Hopgate, path: &str) -> String {
    format!("http://{}{path}", hopgate.addr())
}

/// The id in ` tunnel=ID start` at the end of a line of the access log.
fn tunnel_id(line: &str) -> Option<String> {
    Some(line.rsplit_once(" tunnel=")?.1.strip_suffix(" start")?.to_owned())
}

/// Runs curl, and expects it to be content.
#[track_caller]
fn curl(args: &[&str]) -> Output {
    curl_with(Stdio::null(), args)
}

#[track_caller]
fn curl_with(stdin: Stdio, args: &[&str]) -> Output {
    let output = curl_any(stdin, args);
    let (status, complaints) = (output.status, stderr(&output));
    assert!(status.success(), "curl {args:?}\nexpected: success\n     got: {status}\n{complaints}");
    output
}

/// Runs curl with no settings but these, and lets it end as it will.
#[track_caller]
fn curl_any(stdin: Stdio, args: &[&str]) -> Output {
    let mut curl = Command::new("curl");
    curl.args(["--disable", "--silent", "--show-error", "--max-time", "20"]).args(args).stdin(stdin);
    curl.output().unwrap_or_else(|error| {
        panic!("this test needs curl ({error}): run tests/run, which installs what is missing, or install it")
    })
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("not JSON ({error}): {}", stdout(output)))
}

/// The values of a request field, as the app got them.
#[track_caller]
fn field(output: &Output, name: &str) -> Vec<String> {
    let seen = json(output);
    let fields = seen["fields"].as_array().unwrap_or_else(|| panic!("no fields in {seen}")).iter();
    let same = fields.filter(|field| field[0].as_str().is_some_and(|seen| seen.eq_ignore_ascii_case(name)));
    same.map(|field| field[1].as_str().unwrap_or_default().to_owned()).collect()
}

/// The SHA-256 of a file, by coreutils.
#[track_caller]
fn sha256sum(file: &str) -> String {
    let output = Command::new("sha256sum").arg(file).output().expect("sha256sum, of coreutils, can be run");
    stdout(&output).split_whitespace().next().unwrap_or_default().to_owned()
}
