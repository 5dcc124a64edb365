//! Programs that speak HTTP/2 by prior knowledge, before a real app that knows only HTTP/1.1.

mod support;

use std::fs;
use std::process::{Command, Output, Stdio};

use support::{Dir, Hopgate, NodeApp, Noise, assert_same_bytes};

fn in_front_of(app: &NodeApp) -> Hopgate {
    Hopgate::speaking_http2(app.addr(), "", "client_max_body_size = \"off\"")
}

/// Runs curl, which must succeed.
#[track_caller]
fn curl(args: &[&str]) -> Output {
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "20", "--http2-prior-knowledge"])
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("this test needs curl");
    assert!(output.status.success(), "curl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn curl_downloads_what_the_app_has() {
    let app = NodeApp::start();
    let hopgate = in_front_of(&app);
    for path in ["/download/length/3000001", "/download/chunked/3000001"] {
        let direct = Command::new("curl").args(["-s", &format!("http://{}{path}", app.addr())]).output();
        let version =
            ["--write-out", "%{stderr}HTTP/%{http_version}", &format!("http://{}{path}", hopgate.addr())];
        let through = curl(&version);
        assert_eq!(text(&through.stderr), "HTTP/2");
        assert_same_bytes(path, &direct.expect("curl").stdout, &through.stdout);
    }
}

#[test]
fn curl_uploads_with_and_without_a_length() {
    let app = NodeApp::start();
    let hopgate = in_front_of(&app);
    let dir = Dir::new();
    let noise = Noise::seeded(1).take(3_000_001);
    fs::write(dir.join("noise"), &noise).expect("a file can be written");
    let (file, url) = (dir.path("noise"), format!("http://{}/upload", hopgate.addr()));
    for (way, framing) in [
        (&["--upload-file", &*file][..], "\"content-length\",\"3000001\""),
        (
            &["--header", "Transfer-Encoding: chunked", "--upload-file", &*file],
            "\"Transfer-Encoding\",\"chunked\"",
        ),
    ] {
        let answer = text(&curl(&[way, &[&*url]].concat()).stdout);
        assert!(answer.contains("\"length\":3000001,") && answer.contains(framing), "{answer}");
    }
    // It asks whether it may, and waits to be told.
    let asked = curl(&["--verbose", "--header", "Expect: 100-continue", "--upload-file", &*file, &*url]);
    assert!(text(&asked.stderr).contains("< HTTP/2 100"), "{}", text(&asked.stderr));
    assert!(text(&asked.stdout).contains("\"length\":3000001,"), "{}", text(&asked.stdout));
}

#[test]
fn curl_sees_heads_trailers_and_statuses() {
    let app = NodeApp::start();
    let hopgate = in_front_of(&app);
    let url = |path: &str| format!("http://{}{path}", hopgate.addr());
    let head = text(&curl(&["--head", &url("/download/length/777")]).stdout);
    assert!(head.starts_with("HTTP/2 200") && head.contains("content-length: 777"), "{head}");
    let hints = text(&curl(&["--include", &url("/hints")]).stdout);
    assert!(hints.starts_with("HTTP/2 103") && hints.ends_with("after the hints"), "{hints}");
    let trailers = curl(&["--verbose", "--header", "TE: trailers", &url("/trailers")]);
    assert!(text(&trailers.stderr).contains("< x-checksum: abc"), "{}", text(&trailers.stderr));
    for status in [201, 404, 418, 500, 503] {
        let path = url(&format!("/status/{status}"));
        let told = curl(&["--write-out", "%{http_code}", "--output", "/dev/null", &path]);
        assert_eq!(text(&told.stdout), status.to_string());
    }
    let empty = curl(&["--write-out", "%{http_code}", "--request", "DELETE", &url("/empty")]);
    assert_eq!(text(&empty.stdout), "204");
}

#[test]
fn h2load_gets_an_answer_to_each_of_its_requests() {
    let app = NodeApp::start();
    let hopgate = in_front_of(&app);
    let url = format!("http://{}", hopgate.addr());
    for path in ["/download/length/1000", "/download/chunked/100000"] {
        let output = Command::new("h2load")
            .args(["--requests=2000", "--clients=4", "--max-concurrent-streams=32", &format!("{url}{path}")])
            .stdin(Stdio::null())
            .output()
            .expect(
                "this test needs h2load, of nghttp2-client: run tests/run, which installs what is missing",
            );
        let report = text(&output.stdout);
        assert!(output.status.success(), "{report}");
        let line = report.lines().find(|line| line.starts_with("requests:")).expect("a line about requests");
        assert!(line.contains(" 2000 succeeded, 0 failed, 0 errored, 0 timeout"), "{line}");
        let line =
            report.lines().find(|line| line.starts_with("status codes:")).expect("a line about statuses");
        assert!(line.contains(" 2000 2xx, "), "{line}");
    }
}

#[test]
fn one_connection_too_many_is_told_so_in_the_version_that_it_speaks() {
    let with_tls = ("ssl\"\ntls = \"self-signed", "https", "--http2");
    for (word, scheme, http2) in [with_tls, ("http2", "http", "--http2-prior-knowledge")] {
        let hopgate = Hopgate::start(&format!(
            "workers = 1\nmax_connections = 1\n[[server]]\nlisten = \"127.0.0.1:0 {word}\"\n\
             [[server.location]]\npath = \"/\"\nreturn = \"200 hello\"",
        ));
        let _first = hopgate.connect();
        let url = format!("{scheme}://{}/", hopgate.addr());
        for (option, version) in [("--http1.1", "1.1"), (http2, "2")] {
            let written =
                ["--insecure", "--write-out", "HTTP/%{http_version} %{http_code}", "--output", "/dev/null"];
            let asked = [&[option][..], &written, &[&url]].concat();
            assert_eq!(text(&curl(&asked).stdout), format!("HTTP/{version} 503"));
        }
    }
}
