//! Bodies that are compressed on their way: which, for whom, and never later than they came.

mod support;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;

use flate2::read::GzDecoder;
use support::{Dir, Hopgate, Nginx, Noise, Peer, Response, Upstream, assert_same_bytes};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n";
const HTML: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n";

#[test]
fn a_body_is_compressed_and_what_was_true_of_it_alone_is_said_no_longer() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::with_location(&upstream, "gzip = true\ngzip_vary = true");
    let text = "hello, world; ".repeat(1000);
    let (mut client, mut server) = asked(&hopgate, &upstream, GET);
    server.send(format!(
        "{HTML}ETag: \"x\"\r\nAccept-Ranges: bytes\r\nContent-Length: {}\r\n\r\n{text}",
        text.len()
    ));
    let response = client.expect_status(200);
    response.head.expect(&["Content-Encoding: gzip", "ETag: W/\"x\"", "Vary: Accept-Encoding"]);
    response
        .head
        .expect(&["Transfer-Encoding: chunked"])
        .expect_none_of(&["Content-Length", "Accept-Ranges"]);
    assert!(response.body.len() < text.len() / 20, "{} bytes", response.body.len());
    assert_same_bytes("the body", text.as_bytes(), &decoded(&response.body));
    // Both connections go on.
    client.send(GET);
    server.head();
    server.send(format!("{HTML}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"));
    assert_eq!(decoded(&client.expect_status(200).body), b"hello");
    let lines = format!("\"GET / HTTP/1.1\" 200 {} ", chunked_length(&response.body));
    hopgate.wait_for_access(&lines);
}

/// What `$body_bytes_sent` counts, if a body came in one chunk.
fn chunked_length(body: &[u8]) -> usize {
    body.len() + format!("{:x}\r\n\r\n0\r\n\r\n", body.len()).len()
}

#[test]
fn what_has_come_is_sent_before_more_comes() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::with_location(&upstream, "gzip = true");
    let (mut client, mut server) = asked(&hopgate, &upstream, GET);
    server.send(format!("{HTML}Transfer-Encoding: chunked\r\n\r\n"));
    client.expect_head("HTTP/1.1 200 OK", &["Content-Encoding: gzip"]);
    let mut compressed = Vec::new();
    let mut expected = Vec::new();
    for line in ["first\n", "second\n", "third\n"] {
        server.send(format!("{:x}\r\n{line}\r\n", line.len()));
        expected.extend_from_slice(line.as_bytes());
        while decoded_so_far(&compressed) != expected {
            compressed.extend(client.chunk().expect("more to come"));
        }
    }
    server.send("0\r\n\r\n");
    while let Some(chunk) = client.chunk() {
        compressed.extend(chunk);
    }
    assert_eq!(decoded(&compressed), expected);
}

#[test]
fn a_large_body_is_compressed_with_back_pressure_and_arrives_whole() {
    const SIZE: usize = 8 << 20;
    let upstream = Upstream::listen();
    let hopgate = Hopgate::with_location(&upstream, "gzip = true\ngzip_types = '*'\ngzip_comp_level = 6");
    let (mut client, mut server) = asked(&hopgate, &upstream, GET);
    let body = Noise::seeded(1).take(SIZE);
    let sent = body.clone();
    let sender = thread::spawn(move || {
        server.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n"));
        server.send(&sent);
        server
    });
    let head = client.head();
    head.expect(&["Content-Encoding: gzip"]);
    assert!(hopgate.resident_kib() < 40_000, "{} KiB", hopgate.resident_kib());
    let (compressed, _) = client.chunked_body();
    assert_same_bytes("the body", &body, &decoded(&compressed));
    sender.join().expect("the upstream has sent all");
}

#[test]
fn a_body_that_breaks_off_does_not_look_whole() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::with_location(&upstream, "gzip = true");
    let (mut client, mut server) = asked(&hopgate, &upstream, GET);
    server.send(format!("{HTML}Content-Length: 100\r\n\r\nhalf of it"));
    client.expect_head("HTTP/1.1 200 OK", &["Content-Encoding: gzip"]);
    let first = client.chunk().expect("what has come");
    assert_eq!(decoded_so_far(&first), b"half of it");
    server.close();
    client.expect_reset();
}

#[test]
fn event_streams_and_answers_that_forbid_it_are_passed_on_as_they_come() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::with_location(&upstream, "gzip = true\ngzip_types = '*'\ngzip_min_length = 0");
    for fields in [
        "Content-Type: text/event-stream; charset=utf-8",
        "Content-Type: text/html\r\nCache-Control: no-transform",
        "Content-Type: text/html\r\nContent-Encoding: br",
        "Content-Type: text/html\r\nETag: \"x\"\r\nContent-Range: bytes 0-1/2",
    ] {
        let (mut client, mut server) = asked(&hopgate, &upstream, GET);
        let status = if fields.contains("Range") { "206 Partial Content" } else { "200 OK" };
        server.send(format!(
            "HTTP/1.1 {status}\r\n{fields}\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n"
        ));
        let head = client.head();
        assert_ne!(head.field("Content-Encoding"), Some("gzip"), "{fields}");
        client.expect_chunked("data: 1\n\n");
        server.send("0\r\n\r\n");
    }
}

#[test]
fn what_hopgate_answers_by_itself_is_compressed_too() {
    let text = "hello ".repeat(100);
    let hopgate = Hopgate::start(&format!(
        "workers = 1\n[[server]]\nlisten = '127.0.0.1:0'\ngzip = true\ngzip_types = 'text/plain'\n\
         [[server.location]]\npath = '/'\nreturn = {{ status = 200, text = '{text}' }}\n"
    ));
    let mut client = hopgate.connect();
    client.send(GET);
    let response = client.expect_status(200);
    response.head.expect(&["Content-Encoding: gzip", &format!("Content-Length: {}", response.body.len())]);
    assert_eq!(decoded(&response.body), text.as_bytes());
    client.send(GET.replace("GET", "HEAD"));
    client.expect_head("HTTP/1.1 200 OK", &["Content-Encoding: gzip"]);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.expect_status(200).text(), text);
}

#[test]
fn files_are_compressed_as_they_are_read_and_otherwise_as_by_nginx() {
    if !Nginx::is_installed() {
        return;
    }
    let dir = Dir::new();
    let large = "all work and no play; ".repeat(100_000);
    for (name, text) in
        [("large.html", &*large), ("small.html", "0123456789012345678"), ("plain.txt", &large)]
    {
        std::fs::write(dir.join(name), text).expect("a file can be written");
    }
    let root = dir.path("");
    let nginx = Nginx::start(&format!(
        "types {{ text/html html; text/plain txt; }} server {{ listen 80; root {root}; gzip on; gzip_vary on; \
         expires modified 1h; add_header X-A $sent_http_etag; charset utf-8; }}"
    ));
    let hopgate = Hopgate::start(&format!(
        "workers = 1\n[[server]]\nlisten = '127.0.0.1:0'\nroot = '{root}'\ngzip = true\ngzip_vary = true\n\
         expires = 'modified 1h'\nadd_header = {{ X-A = '$sent_http_etag' }}\ncharset = 'utf-8'\n"
    ));
    let nginx_addr: SocketAddr = nginx.addr().parse().expect("an address");
    for target in ["/large.html", "/small.html", "/plain.txt"] {
        for asked in &ASKED[..9] {
            let expected = answer_of(nginx_addr, asked, target);
            assert!(
                answer_of(hopgate.addr(), asked, target) == expected,
                "{asked} {target}\nnginx: {:?}",
                expected.0
            );
        }
    }
    // A range is one of the file as it is.
    let (told, body) =
        answer_of(hopgate.addr(), "GET HTTP/1.1|Accept-Encoding: gzip\r\nRange: bytes=0-2", "/large.html");
    assert_eq!((&*told[0], &*body), ("206", &b"all"[..]));
}

#[test]
fn curl_and_node_read_what_they_get() {
    let upstream = serving(&[&format!("200 OK|Content-Type: text/html|{}", "text ".repeat(20_000))]);
    let hopgate = Hopgate::start(&config(&upstream.to_string(), "gzip = true"));
    let url = format!("http://{}/0", hopgate.addr());
    let body = "text ".repeat(20_000);
    let curl = output("curl", &["-sS", "--compressed", "-D", "-", &url]);
    assert!(curl.contains("Content-Encoding: gzip\r\n") && curl.ends_with(&body), "{}", &curl[..300]);
    let script = "fetch(process.argv[1]).then(async a => \
                  process.stdout.write(a.headers.get('content-encoding') + (await a.text())))";
    assert_eq!(output("node", &["-e", script, &url]), format!("gzip{body}"));
}

/// The answers that are put through both proxies: status, fields, body.
const ANSWERS: &[&str] = &[
    "200 OK|Content-Type: text/html|0123456789012345678901234567890123456789",
    "200 OK|Content-Type: text/html; charset=utf-8|0123456789012345678",
    "200 OK|Content-Type: TEXT/CSS\r\nETag: \"a\"\r\nAccept-Ranges: bytes|01234567890123456789",
    "200 OK|Content-Type: text/css;a=b\r\nETag: W/\"a\"|01234567890123456789",
    "200 OK|X-A: 1|01234567890123456789",
    "200 OK|Content-Type: image/png\r\nVary: Cookie|01234567890123456789",
    "404 Not Found|Content-Type: text/html\r\nETag: odd|01234567890123456789",
    "403 Forbidden|Content-Type: text/html|01234567890123456789",
    "500 Oops|Content-Type: text/html|01234567890123456789",
    "201 Made|Content-Type: text/html|01234567890123456789",
    "200 OK|Content-Type: text/html\r\nContent-Encoding: br|01234567890123456789",
    "200 OK|Content-Type: text/html\r\nContent-Encoding: |01234567890123456789",
    "200 OK|Content-Type: text/html\r\nExpires: Thu, 01 Jan 1970 00:00:01 GMT|01234567890123456789",
    "200 OK|Content-Type: text/html\r\nExpires: Thu, 31 Dec 2037 23:55:55 GMT|01234567890123456789",
    "200 OK|Content-Type: text/html\r\nCache-Control: max-age=1, No-Cache|01234567890123456789",
    "200 OK|Content-Type: text/html\r\nCache-Control: private\r\nCache-Control: no-store|01234567890123456789",
    "200 OK|Content-Type: text/html\r\nLast-Modified: Thu, 01 Jan 1970 00:00:01 GMT|01234567890123456789",
];

const ASKED: &[&str] = &[
    "GET HTTP/1.1|Accept-Encoding: gzip",
    "GET HTTP/1.1|Accept-Encoding: br;q=1.0, GZIP;q=0.8, *;q=0.1",
    "GET HTTP/1.1|Accept-Encoding: gzip;q=0",
    "GET HTTP/1.1|Accept-Encoding: deflate, gzip ; q=0.001",
    "GET HTTP/1.1|Accept-Encoding: gzip;q=1.5",
    "GET HTTP/1.1|Accept-Encoding: x-gzip, *",
    "GET HTTP/1.1|",
    "GET HTTP/1.0|Accept-Encoding: gzip",
    "HEAD HTTP/1.1|Accept-Encoding: gzip",
    "GET HTTP/1.1|Accept-Encoding: gzip\r\nVia: 1.1 proxy",
    "GET HTTP/1.1|Accept-Encoding: gzip\r\nVia: 1.1 proxy\r\nAuthorization: Basic YTpi",
];

const PLACES: &[(&str, &str, &str)] = &[
    ("on", "gzip on;", "gzip = true"),
    (
        "types",
        "gzip on; gzip_types text/css; gzip_vary on;",
        "gzip = true\ngzip_types = 'text/css'\ngzip_vary = true",
    ),
    (
        "all",
        "gzip on; gzip_types *; gzip_min_length 0; gzip_http_version 1.0; gzip_proxied any;",
        "gzip = true\ngzip_types = '*'\ngzip_min_length = 0\ngzip_http_version = '1.0'\ngzip_proxied = 'any'",
    ),
    (
        "some",
        "gzip on; gzip_proxied expired no-cache no_last_modified auth; gzip_comp_level 9;",
        "gzip = true\ngzip_proxied = ['expired', 'no-cache', 'no_last_modified', 'auth']\ngzip_comp_level = 9",
    ),
    (
        "others",
        "gzip on; gzip_proxied no-store private no_etag; expires -1;",
        "gzip = true\ngzip_proxied = ['no-store', 'private', 'no_etag']\nexpires = '-1'",
    ),
    ("off", "gzip off; gzip_vary on;", "gzip = false\ngzip_vary = true"),
];

#[test]
fn the_same_answers_are_compressed_for_the_same_clients_as_by_nginx() {
    if !Nginx::is_installed() {
        return;
    }
    let upstream = serving(ANSWERS);
    let locations = |line: fn(&str, &str, SocketAddr) -> String,
                     of: fn(&(&str, &'static str, &'static str)) -> &'static str| {
        PLACES.iter().map(|place| line(place.0, of(place), upstream)).collect::<String>()
    };
    let nginx = Nginx::start(&format!(
        "server {{ listen 80; proxy_http_version 1.1; proxy_set_header Connection ''; {} }}",
        locations(
            |name, lines, to| format!("location /{name}/ {{ proxy_pass http://{to}/; {lines} }}\n"),
            |place| place.1
        )
    ));
    let hopgate = Hopgate::start(&format!(
        "workers = 1\n[[server]]\nlisten = '127.0.0.1:0'\n{}",
        locations(
            |name, lines, to| format!(
                "[[server.location]]\npath = '/{name}/'\nproxy_pass = 'http://{to}/'\n{lines}\n"
            ),
            |place| place.2
        )
    ));
    let nginx_addr = nginx.addr().parse().expect("an address");
    let mut wrong = Vec::new();
    for (name, ..) in PLACES {
        for (number, answer) in ANSWERS.iter().enumerate() {
            for asked in ASKED {
                let target = format!("/{name}/{number}");
                let expected = answer_of(nginx_addr, asked, &target);
                let got = answer_of(hopgate.addr(), asked, &target);
                if expected != got {
                    wrong.push(format!(
                        "{asked:?} {target} {answer:?}\nnginx:   {expected:?}\nhopgate: {got:?}"
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}\n{} differ", wrong.join("\n"), wrong.len());
}

/// What a proxy answers, as far as it is about the body: its fields in a fixed order, and itself, decoded.
fn answer_of(addr: SocketAddr, asked: &str, target: &str) -> (Vec<String>, Vec<u8>) {
    let (line, fields) = asked.split_once('|').expect("a line and fields");
    let (method, version) = line.split_once(' ').expect("a method and a version");
    let mut client = Peer::new("client", TcpStream::connect(addr).expect("a proxy that listens"));
    client.send(
        format!("{method} {target} {version}\r\nHost: a\r\nConnection: close\r\n{fields}\r\n\r\n")
            .replace("\r\n\r\n\r\n", "\r\n\r\n"),
    );
    let response = match method {
        "HEAD" => {
            let head = client.head();
            Response { status: head.status(), head, body: Vec::new(), trailers: Vec::new() }
        }
        _ => client.response(),
    };
    let told = ["content-encoding", "vary", "etag", "accept-ranges", "content-type", "x-a"];
    let mut told: Vec<_> = told
        .iter()
        .flat_map(|name| response.head.all(name).into_iter().map(move |value| format!("{name}: {value}")))
        .collect();
    told.sort();
    told.insert(0, response.status.to_string());
    // nginx leaves an empty field of the upstream's beside its own.
    told.retain(|field| field != "content-encoding: ");
    let is_compressed = response.head.has_member("Content-Encoding", "gzip") && method != "HEAD";
    (told, if is_compressed { decoded(&response.body) } else { response.body })
}

/// An upstream that answers `/N` with the Nth of these over connections that it closes.
fn serving(answers: &[&str]) -> SocketAddr {
    let answers: Vec<String> = answers.iter().map(|answer| (*answer).to_owned()).collect();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port to listen on");
    let addr = listener.local_addr().expect("a listener has an address");
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count > 0) {
                request.push(byte[0]);
            }
            let request = String::from_utf8_lossy(&request).into_owned();
            let target = request.split(' ').nth(1).unwrap_or_default();
            let number: usize = target.trim_start_matches('/').parse().unwrap_or_default();
            let mut parts = answers[number].split('|');
            let (status, fields) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            let body = parts.next().unwrap_or_default();
            let length = body.len();
            let body = if request.starts_with("HEAD") { "" } else { body };
            // A proxy that has gone is the test's end.
            let _ = write!(
                stream,
                "HTTP/1.1 {status}\r\n{fields}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
            );
        }
    });
    addr
}

fn config(upstream: &str, location: &str) -> String {
    format!(
        "workers = 1\n[[server]]\nlisten = '127.0.0.1:0'\n[[server.location]]\npath = '/'\n\
         proxy_pass = 'http://{upstream}'\n{location}\n"
    )
}

#[track_caller]
fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("this test needs {program}: {error}"));
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// A client whose request has reached the upstream.
#[track_caller]
fn asked(hopgate: &Hopgate, upstream: &Upstream, request: &str) -> (Peer, Peer) {
    let mut client = hopgate.connect();
    client.send(request);
    let mut server = upstream.accept();
    server.head();
    (client, server)
}

/// A whole body; panics if it is not.
#[track_caller]
fn decoded(compressed: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    GzDecoder::new(compressed).read_to_end(&mut body).expect("a whole gzip body");
    body
}

/// What can be read by now of a body that goes on.
fn decoded_so_far(compressed: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    let mut decoder = GzDecoder::new(compressed);
    let mut byte = [0];
    while decoder.read(&mut byte).is_ok_and(|count| count > 0) {
        body.push(byte[0]);
    }
    body
}
