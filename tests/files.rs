//! Static files: what goes out, to whom it does not, and what stays inside of the root. `files_nginx.rs` compares the
//! answers with nginx's.

mod support;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use support::{Dir, Ending, Hopgate, Noise, Peer, Response, Upstream, assert_same_bytes};

/// A directory with these files, and hopgate on it with these lines in its only location.
fn serving(files: &[(&str, &[u8])], lines: &str) -> (Dir, Hopgate) {
    let dir = Dir::new();
    fs::create_dir_all(dir.join("www")).expect("a directory can be made");
    for (name, content) in files {
        fs::write(dir.join(&format!("www/{name}")), content).expect("a file can be written");
    }
    let root = dir.path("www");
    let toml = format!(
        "workers = 1\n[[server]]\nlisten = '127.0.0.1:0'\n[[server.location]]\npath = '/'\nroot = '{root}'\n{lines}\n"
    );
    let hopgate = Hopgate::start(&toml);
    (dir, hopgate)
}

fn get(peer: &mut Peer, target: &str, fields: &str) -> Response {
    peer.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
    peer.response()
}

#[test]
fn a_large_file_arrives_whole_and_the_connection_goes_on() {
    let content = Noise::seeded(1).take(20 << 20);
    let (_dir, hopgate) = serving(&[("big", &content)], "");
    let mut client = hopgate.connect();
    for (fields, part) in [("", 0..content.len()), ("Range: bytes=5-10000004\r\n", 5..10_000_005)] {
        let response = get(&mut client, "/big", fields);
        assert_same_bytes("the file", &response.body, &content[part]);
    }
    client.send("GET /none HTTP/1.1\r\nHost: a\r\n\r\n");
    client.expect_status(404);
}

#[test]
fn requests_one_behind_the_other_are_answered_in_their_order() {
    let content = Noise::seeded(2).take(100_000);
    let (_dir, hopgate) = serving(&[("a", &content), ("b", b"small")], "");
    let mut client = hopgate.connect();
    let request = |method: &str, name: &str| format!("{method} /{name} HTTP/1.1\r\nHost: a\r\n\r\n");
    client
        .send([request("GET", "a"), request("HEAD", "a"), request("GET", "b"), request("GET", "a")].concat());
    assert_same_bytes("the file", &client.expect_status(200).body, &content);
    assert_eq!(client.head().field("Content-Length"), Some("100000"));
    assert_eq!(client.expect_status(200).text(), "small");
    assert_same_bytes("the file", &client.expect_status(200).body, &content);
}

#[test]
fn a_file_that_gets_shorter_while_it_is_sent_ends_in_a_reset() {
    let size = 64 << 20;
    let (dir, hopgate) = serving(&[("big", &vec![7; size])], "");
    let mut client = hopgate.connect().with_small_buffers();
    client.send("GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.head().field("Content-Length"), Some("67108864"));
    // More than the system holds between the two of them is still to come.
    File::options()
        .write(true)
        .open(dir.join("www/big"))
        .expect("it is there")
        .set_len(1000)
        .expect("it is cut");
    let (body, ending) = client.read_to_end();
    assert_eq!(ending, Ending::Reset);
    assert!(body.len() < size, "{}", body.len());
    hopgate.wait_for_log("could not be read to its end");
}

#[test]
fn a_client_that_takes_nothing_is_given_up() {
    let (_dir, hopgate) = serving(&[("big", &vec![7; 64 << 20])], "send_timeout = '300ms'");
    let mut client = hopgate.connect().with_small_buffers();
    client.send("GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
    client.head();
    hopgate.wait_for_log("`send_timeout`");
    assert_eq!(client.read_to_end().1, Ending::Reset);
}

#[test]
fn a_client_that_takes_its_time_gets_the_whole() {
    let content = Noise::seeded(3).take(4 << 20);
    let (_dir, hopgate) = serving(&[("big", &content)], "");
    let mut slow = hopgate.connect().with_small_buffers();
    slow.send("GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
    slow.head();
    // Meanwhile the only worker serves others.
    assert_eq!(hopgate.get("/none").0, 404);
    let mut got = Vec::new();
    while got.len() < content.len() {
        got.extend(slow.read(4096));
    }
    assert_same_bytes("the file", &got, &content);
}

#[test]
fn a_client_that_goes_on_taking_is_never_given_up() {
    let (dir, hopgate) = serving(&[("endless", b"")], "send_timeout = '1s'");
    File::options()
        .write(true)
        .open(dir.join("www/endless"))
        .and_then(|file| file.set_len(1 << 40))
        .expect("holes take no space");
    let mut client = hopgate.connect().with_small_buffers();
    client.send("GET /endless HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.head().field("Content-Length"), Some("1099511627776"));
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(2500) {
        client.read(64 << 10);
    }
}

#[test]
fn what_is_tried_last_leads_nobody_astray() {
    let upstream = Upstream::listen();
    let dir = Dir::new();
    let hopgate = Hopgate::start(&format!(
        "workers = 1\n[[server]]\nlisten = '127.0.0.1:0'\nroot = '{}'\n\
         [[server.location]]\npath = '/'\ntry_files = ['$uri', '$arg_last']\n\
         [[server.location]]\npath = '/app/'\nproxy_pass = 'http://{}'\n",
        dir.path("www"),
        upstream.addr()
    ));
    for last in ["/app/../secret", "/app/./x", "app/x", ""] {
        assert_eq!(hopgate.get(&format!("/x?last={last}")).0, 404, "{last}");
    }
    upstream.expect_no_connection(&hopgate);
    let mut client = hopgate.connect();
    client.send("GET /x?last=/app/x HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut server = upstream.accept();
    server.expect_head("GET /app/x HTTP/1.1", &[]);
    server.respond("fine");
    assert_eq!(client.expect_status(200).text(), "fine");
}

#[test]
fn the_access_line_says_what_went_out() {
    let format = "access_log = 'stdout short'";
    let dir = Dir::new();
    fs::write(dir.join("a.txt"), "0123456789").expect("a file can be written");
    let hopgate = Hopgate::start(&format!(
        "workers = 1\nlog_format = {{ short = '$request_method $status $body_bytes_sent $bytes_sent $request_filename' }}\n\
         [[server]]\nlisten = '127.0.0.1:0'\n{format}\n[[server.location]]\npath = '/'\nroot = '{}'\n",
        dir.path("")
    ));
    let mut client = hopgate.connect();
    for (request, status, body) in [
        ("GET /a.txt", 200, 10),
        ("HEAD /a.txt", 200, 0),
        ("GET /a.txt\r\nRange: bytes=2-4", 206, 3),
        ("GET /a.txt\r\nIf-None-Match: *", 304, 0),
    ] {
        let (line, fields) = request
            .split_once("\r\n")
            .map_or((request, String::new()), |(line, field)| (line, format!("{field}\r\n")));
        client.send(format!("{line} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
        let head = client.head();
        client.read(body);
        let method = line.split(' ').next().unwrap_or_default();
        let file = dir.path("a.txt");
        let expected = format!("{method} {status} {body} {} {file}", head.raw.len() + body);
        hopgate.wait_for_access(&expected);
    }
}

#[test]
fn nothing_beside_the_alias_is_served() {
    let dir = Dir::new();
    for name in ["img", "img-old", "secret"] {
        fs::create_dir_all(dir.join(name)).expect("a directory can be made");
        fs::write(dir.join(&format!("{name}/x")), name).expect("a file can be written");
    }
    let hopgate = Hopgate::start(&format!(
        "[[server]]\nlisten = '127.0.0.1:0'\n\
         [[server.location]]\npath = '/slash'\nalias = '{}'\n\
         [[server.location]]\npath = '/plain'\nalias = '{}'\n\
         [[server.location]]\npath = '/host'\nroot = '{}/$host'\n\
         [[server.location]]\npath = '/arg'\nroot = '{}/$arg_d'\n",
        dir.path("img/"),
        dir.path("img"),
        dir.path("img"),
        dir.path("img"),
    ));
    assert_eq!(hopgate.get("/slash/x"), (200, "img".into()));
    assert_eq!(hopgate.get("/plain/x"), (200, "img".into()));
    // nginx serves each of these.
    assert_eq!(hopgate.get("/slash../secret/x").0, 404);
    assert_eq!(hopgate.get("/plain-old/x").0, 404);
    fs::create_dir_all(dir.join("secret/arg")).expect("a directory can be made");
    fs::write(dir.join("secret/arg/x"), "secret").expect("a file can be written");
    assert_eq!(hopgate.get("/arg/x?d=../secret").0, 404);
    fs::create_dir_all(dir.join("host")).expect("a directory can be made");
    fs::write(dir.join("host/x"), "secret").expect("a file can be written");
    for host in ["..", "...", ".", "a.."] {
        let mut client = hopgate.connect();
        client.send(format!("GET /host/x HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"));
        let status = client.response().status;
        assert!(matches!(status, 400 | 404), "{host}: {status}");
    }
}

#[test]
fn a_file_is_sent_as_it_is_now() {
    let (dir, hopgate) = serving(&[("a", b"one")], "");
    assert_eq!(hopgate.get("/a"), (200, "one".into()));
    let file = File::options().write(true).open(dir.join("www/a")).expect("it is there");
    file.write_all_at(b"two and more", 0).expect("a file can be written");
    assert_eq!(hopgate.get("/a"), (200, "two and more".into()));
}
