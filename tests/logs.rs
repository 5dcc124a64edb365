//! The access log and what it must never do to a request.

mod support;

use std::fs;
use std::io::Read as _;
use std::net::TcpStream;
use std::process::Stdio;

use serde_json::Value;
use support::{App, Dir, Hopgate, Upstream, eventually, free_addr, handshake, open_tunnel, switching};

/// A hopgate in front of `upstream` with these lines at the top, and these in its location.
fn logging(upstream: &str, top: &str, location: &str) -> String {
    format!(
        r#"
        workers = 1
        {top}
        [[server]]
        listen = "127.0.0.1:0"
        [[server.location]]
        path = "/"
        proxy_pass = "http://{upstream}"
        {location}
        "#
    )
}

#[test]
fn the_default_is_the_combined_format_on_stdout() {
    let app = App::named("hello");
    let hopgate = Hopgate::start(&logging(app.addr(), "", ""));
    let mut client = hopgate.connect();
    client.send("GET /x?y=z HTTP/1.1\r\nHost: a\r\nReferer: http://r/\r\nUser-Agent: test/1\r\n\r\n");
    client.expect_status(200);

    let line = hopgate.wait_for_access("GET /x");
    let (before, after) = line.split_once('[').expect("a time in brackets");
    let (time, after) = after.split_once("] ").expect("a time in brackets");
    assert_eq!(before, "127.0.0.1 - - ");
    assert_eq!(after, r#""GET /x?y=z HTTP/1.1" 200 5 "http://r/" "test/1""#);
    // 10/Oct/2000:13:55:36 -0700
    let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert!(shape.starts_with("00/") && shape[6..].starts_with("/0000:00:00:00 "), "{time}");
    assert!(shape.ends_with("+0000") || shape.ends_with("-0000"), "{time}");

    // What was not sent is a dash.
    hopgate.get("/bare");
    let line = hopgate.wait_for_access("GET /bare");
    assert!(line.ends_with(r#""GET /bare HTTP/1.1" 200 5 "-" "-""#), "{line}");
}

#[test]
fn a_request_has_one_id_wherever_it_is_asked_for() {
    let upstream = Upstream::listen();
    let top = "access_log = \"stdout id\"\nlog_format = { id = \"id $request_id\" }";
    let fields = "proxy_set_header = { X-Id = \"$request_id\" }\nadd_header = { X-Id = \"$request_id\" }";
    let hopgate = Hopgate::start(&logging(upstream.addr(), top, fields));
    let mut client = hopgate.connect();
    let mut ids = Vec::new();
    for number in 0..2 {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut server = upstream.accept();
        let id = server.head().field("X-Id").expect("an id").to_owned();
        server.respond_and_close("");
        assert_eq!(client.expect_status(200).head.field("X-Id"), Some(id.as_str()));
        hopgate.wait_for_access(&format!("id {id}"));
        assert!(id.len() == 32 && !ids.contains(&id), "request {number}: {id}");
        ids.push(id);
    }
}

#[test]
fn refusals_are_logged_too() {
    let upstream = Upstream::refusing();
    let hopgate = Hopgate::start(&logging(upstream.addr(), "", ""));
    assert_eq!(hopgate.get("/refused").0, 502);
    let line = hopgate.wait_for_access("GET /refused ");
    assert!(line.contains("\" 502 16 \""), "{line}");

    let mut client = hopgate.connect();
    client.send("GET /bad HTTP/1.1\nHost: a\n\n");
    client.expect_status(400);
    hopgate.wait_for_access("\" 400 ");
}

#[test]
fn nothing_that_a_client_sends_can_forge_a_line_or_a_field() {
    let app = App::named("hello");
    let rows = [
        ("combined", "\"] \\ \" 200 0 \"-\" \"forged"),
        ("combined", "tab\there and \u{e4}"),
        ("json", "\"] \\ \" 200 0 \"-\", \"status\": \"forged"),
        ("json", "tab\there and \u{e4}"),
    ];
    for (format, agent) in rows {
        println!("row: {format} {agent:?}");
        let hopgate = Hopgate::start(&logging(app.addr(), &format!("access_log = \"stdout {format}\""), ""));
        let mut client = hopgate.connect();
        client.send(format!("GET /forged HTTP/1.1\r\nHost: a\r\nUser-Agent: {agent}\r\n\r\n"));
        client.expect_status(200);
        let line = hopgate.wait_for_access("/forged");
        assert!(!line.chars().any(|c| c.is_control()), "{line:?}");
        if format == "json" {
            let object: Value = serde_json::from_str(&line).expect("a line of JSON");
            assert!(holds(&object, &|value| value.as_str() == Some(agent)), "{line}");
        } else {
            assert_eq!(line.matches('"').count(), 6, "{line}");
        }
    }
}

#[test]
fn json_lines_are_objects_with_the_facts_of_the_request() {
    let app = App::named("hello");
    let hopgate =
        Hopgate::start(&logging(app.addr(), r#"access_log = { path = "stdout", format = "json" }"#, ""));
    hopgate.get("/facts?q=1");
    let line = hopgate.wait_for_access("/facts");
    let object: Value = serde_json::from_str(&line).expect("a line of JSON");
    assert!(object.is_object(), "{line}");
    for (what, fact) in [("address", "127.0.0.1"), ("method", "GET"), ("upstream", app.addr())] {
        assert!(
            holds(&object, &|value| value.as_str().is_some_and(|text| text.contains(fact))),
            "no {what} in {line}"
        );
    }
    let is_200 = |value: &Value| value.as_u64() == Some(200) || value.as_str() == Some("200");
    assert!(holds(&object, &is_200), "no status in {line}");
}

#[test]
fn a_custom_format_takes_variables_and_escapes_as_asked() {
    let app = App::named("hello");
    let top = r#"
        access_log = "stdout mine"
        [log_format]
        mine = "<$request_method|$uri|$args|$status|$body_bytes_sent|$upstream_response_length|$http_x_in|$remote_addr|${host}>"
        plain = { format = "plain $uri $http_x_in", escape = "none" }
        quoted = { format = "{\"uri\":\"$uri\",\"in\":\"$http_x_in\"}", escape = "json" }
    "#;
    for (format, expected) in [
        ("mine", r"<GET|/x|a=b|200|5|5|q\x22q|127.0.0.1|h.example>"),
        ("plain", "plain /x q\"q"),
        ("quoted", r#"{"uri":"/x","in":"q\"q"}"#),
    ] {
        println!("row: {format}");
        let top = top.replace("stdout mine", &format!("stdout {format}"));
        let hopgate = Hopgate::start(&logging(app.addr(), &top, ""));
        let mut client = hopgate.connect();
        client.send("GET /x?a=b HTTP/1.1\r\nHost: h.example\r\nX-In: q\"q\r\n\r\n");
        client.expect_status(200);
        assert_eq!(hopgate.wait_for_access("/x"), expected);
    }
}

#[test]
fn a_location_may_log_elsewhere_or_not_at_all() {
    let (app, dir) = (App::named("hello"), Dir::new());
    let hopgate = Hopgate::start(&format!(
        r#"
        workers = 1
        [[server]]
        listen = "127.0.0.1:0"
        location = [
            {{ path = "/", proxy_pass = "http://{0}" }},
            {{ path = "/file", proxy_pass = "http://{0}", access_log = "{1} combined" }},
            {{ path = "/quiet", proxy_pass = "http://{0}", access_log = "off" }},
        ]
        "#,
        app.addr(),
        dir.path("file.log")
    ));
    for path in ["/quiet", "/file", "/last"] {
        hopgate.get(path);
    }
    hopgate.wait_for_access("GET /last ");
    eventually("the file has its line", || dir.read("file.log").contains("GET /file "));
    assert!(hopgate.access_lines("/quiet").is_empty() && hopgate.access_lines("/file").is_empty());
}

#[test]
fn a_tunnel_has_a_line_at_its_start_and_one_at_its_end_in_every_format() {
    let upstream = Upstream::listen();
    // (settings, what the start line holds, what the end line holds)
    let rows = [
        ("", vec![" tunnel=", " start"], vec![" tunnel=", " end cause=client_closed sent="]),
        (
            "access_log = \"stdout short\"\n[log_format]\nshort = \"$uri\"",
            vec!["/tunnel tunnel=", " start"],
            vec!["/tunnel tunnel=", " end cause=client_closed sent="],
        ),
        (
            "access_log = \"stdout own\"\n[log_format]\nown = \"$uri id=$tunnel_id event=$tunnel_event;\"",
            vec!["/tunnel id=", "event=start;"],
            vec!["/tunnel id=", "event=end;"],
        ),
    ];
    for (top, start, end) in rows {
        println!("row: {top}");
        let hopgate = Hopgate::start(&logging(upstream.addr(), top, ""));
        let (mut client, mut server) = open_tunnel(&hopgate, &upstream);
        let line = hopgate.wait_for_access(start[1]);
        assert!(line.contains(start[0]), "{line}");
        client.send("ping");
        server.expect("ping");
        server.send("ok");
        client.expect("ok");
        client.finish();
        server.expect_eof();
        server.finish();
        client.expect_eof();
        let line = hopgate.wait_for_access(end[1]);
        assert!(line.contains(end[0]), "{line}");
    }
}

#[test]
fn json_lines_of_a_tunnel_share_its_id() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::start(&logging(upstream.addr(), "access_log = \"stdout json\"", ""));
    let (client, mut server) = open_tunnel(&hopgate, &upstream);
    client.close();
    server.expect_eof();
    server.close();
    let [start, end] = ["\"start\"", "\"end\""].map(|event| {
        let line = hopgate.wait_for_access(event);
        serde_json::from_str::<Value>(&line).expect("a line of JSON")
    });
    assert_eq!(start["tunnel_event"], "start", "{start}");
    assert_eq!(end["tunnel_event"], "end", "{end}");
    assert!(!start["tunnel_id"].is_null(), "{start}");
    assert_eq!(start["tunnel_id"], end["tunnel_id"]);
    assert!(holds(&end, &|value| value.as_str() == Some("client_closed")), "{end}");
}

#[test]
fn a_handshake_that_fails_has_one_ordinary_line() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::start(&logging(upstream.addr(), "", ""));
    let mut client = hopgate.connect();
    client.send(handshake("/failing"));
    let mut server = upstream.accept();
    server.head();
    server.send(switching().replace("websocket", "chat"));
    client.expect_status(502);
    let line = hopgate.wait_for_access("GET /failing ");
    assert!(line.contains("\" 502 ") && !line.contains("tunnel="), "{line}");
    hopgate.settle();
    assert_eq!(hopgate.access_lines("GET /failing ").len(), 1);
}

#[test]
fn an_access_log_that_cannot_be_written_never_stops_a_request() {
    let app = App::named("hello");
    // A full disk.
    let hopgate = Hopgate::start(&logging(app.addr(), "access_log = \"/dev/full combined\"", ""));
    for _ in 0..50 {
        assert_eq!(hopgate.get("/"), (200, "hello".to_owned()));
    }

    // A pipe whose reader is gone.
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let hopgate = Hopgate::start_with_stdout(&logging(app.addr(), "", ""), writer.into());
    for _ in 0..50 {
        assert_eq!(hopgate.get("/"), (200, "hello".to_owned()));
    }
}

#[test]
fn an_access_log_that_nobody_reads_never_stops_a_request() {
    let app = App::named("hello");
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let hopgate = Hopgate::start_with_stdout(&logging(app.addr(), "", ""), Stdio::from(writer));
    let before = hopgate.resident_kib();
    let mut client = hopgate.connect();
    // Some 20 MB of lines; a pipe holds 64 KiB.
    let path = "x".repeat(20_000);
    for _ in 0..1000 {
        client.send(format!("GET /{path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        client.expect_status(200);
    }
    let grown = hopgate.resident_kib().saturating_sub(before);
    assert!(grown < 10_000, "{grown} KiB grown for lines that nobody reads");
    drop(reader);
    assert_eq!(hopgate.get("/"), (200, "hello".to_owned()));
}

#[test]
fn an_error_log_that_nobody_reads_stops_neither_requests_nor_signals() {
    let (app, addr) = (App::named("hello"), free_addr());
    let toml = logging(app.addr(), "", "").replace("127.0.0.1:0", &addr.to_string());
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let mut hopgate = Hopgate::spawn_with_stderr(&toml, writer.into());
    eventually("hopgate listens", || TcpStream::connect(addr).is_ok());
    // Each is told with its request line, some 3 MB in all; a pipe holds 64 KiB.
    let refused = format!("TRACE /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(30_000));
    for _ in 0..100 {
        let mut client = hopgate.connect_to(addr);
        client.send(&refused);
        client.expect_status(405);
    }
    let mut client = hopgate.connect_to(addr);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    client.expect_status(200);

    // What found no room is counted, and what found it comes in its order.
    let mut log = String::new();
    while !log.contains("lines were dropped here") {
        let mut bytes = [0; 65536];
        let count = reader.read(&mut bytes).expect("a pipe can be read");
        log.push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
    let places = ["listening on ", " started", "TRACE /xxx", "lines were dropped here: "];
    let places = places.map(|said| log.find(said).unwrap_or_else(|| panic!("not said: {said}")));
    assert!(places.is_sorted(), "{places:?}");
    let lines = log.lines().filter(|line| line.contains("TRACE /xxx")).count();
    let dropped = log.split_once("dropped here: the error log is written too slowly lines=");
    let dropped = dropped.and_then(|(_, rest)| rest.split_whitespace().next()?.parse::<usize>().ok());
    assert_eq!(dropped.map(|dropped| lines + dropped), Some(100), "{lines} lines and {dropped:?} dropped");

    for _ in 0..100 {
        let mut client = hopgate.connect_to(addr);
        client.send(&refused);
        client.expect_status(405);
    }
    hopgate.signal("TERM");
    eventually("hopgate has ended", || !hopgate.is_running());
}

#[test]
fn an_access_log_that_nobody_reads_stops_no_signal() {
    let app = App::named("hello");
    let (_reader, writer) = std::io::pipe().expect("a pipe");
    let mut hopgate = Hopgate::start_with_stdout(&logging(app.addr(), "", ""), writer.into());
    let mut client = hopgate.connect();
    // More batches than may wait: each line is one by itself.
    let path = "x".repeat(20_000);
    for _ in 0..300 {
        client.send(format!("GET /{path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        client.expect_status(200);
    }
    hopgate.signal("USR1");
    hopgate.wait_for_log("logs reopened");
    hopgate.signal("TERM");
    assert_eq!(hopgate.wait_exit().code(), Some(0));
}

#[test]
fn the_last_lines_are_written_however_hopgate_is_ended() {
    for signals in [&["INT"][..], &["TERM", "TERM"][..], &["TERM", "INT"][..]] {
        println!("row: {signals:?}");
        let (upstream, app) = (Upstream::listen(), App::named("hello"));
        let mut hopgate = Hopgate::start(&format!(
            r#"
            workers = 2
            shutdown_timeout = "1h"
            [[server]]
            listen = "127.0.0.1:0"
            location = [
                {{ path = "/", proxy_pass = "http://{}" }},
                {{ path = "/app", proxy_pass = "http://{}" }},
            ]
            "#,
            upstream.addr(),
            app.addr()
        ));
        let (mut client, mut server) = open_tunnel(&hopgate, &upstream);
        hopgate.get("/app");
        for (count, signal) in signals.iter().enumerate() {
            if count > 0 {
                hopgate.wait_for_log("draining");
            }
            hopgate.signal(signal);
        }
        hopgate.wait_exit();
        hopgate.wait_for_access("GET /app ");
        hopgate.wait_for_access(" end cause=killed ");
        client.expect_closed();
        server.expect_closed();
    }
}

/// Whether any value in this JSON passes the test.
fn holds(value: &Value, test: &dyn Fn(&Value) -> bool) -> bool {
    test(value)
        || match value {
            Value::Array(values) => values.iter().any(|value| holds(value, test)),
            Value::Object(fields) => fields.values().any(|value| holds(value, test)),
            _ => false,
        }
}

#[test]
fn a_request_has_its_line_only_if_the_condition_says_so() {
    let app = App::named("hello");
    for log in ["'stdout t if=$arg_log'", "{ path = 'stdout', format = 't', if = '$arg_log' }"] {
        let top = format!("log_format = {{ t = '$request_uri' }}\naccess_log = {log}");
        let hopgate = Hopgate::start(&logging(app.addr(), &top, ""));
        for target in ["/none", "/empty?log=", "/zero?log=0", "/yes?log=1", "/00?log=00", "/last?log=x"] {
            assert_eq!(hopgate.get(target).0, 200);
        }
        hopgate.wait_for_access("/last");
        assert_eq!(hopgate.access_lines("/"), ["/yes?log=1", "/00?log=00", "/last?log=x"]);
    }
}

#[test]
fn a_location_may_have_several_logs() {
    let app = App::named("hello");
    let dir = Dir::new();
    let top = format!(
        "log_format = {{ short = \"short $uri $tunnel_event\" }}\naccess_log = [\"stdout short\", {{ path = \"{}\", \
         format = \"short\" }}]",
        dir.path("second log")
    );
    let hopgate = Hopgate::start(&logging(app.addr(), &top, ""));
    let mut client = hopgate.connect();
    client.send("GET /both HTTP/1.1\r\nHost: a\r\n\r\n");
    client.expect_status(200);
    hopgate.wait_for_access("short /both");
    eventually("the second log has its line", || {
        fs::read_to_string(dir.join("second log")).is_ok_and(|log| log == "short /both -\n")
    });

    let upstream = Upstream::listen();
    let hopgate = Hopgate::start(&logging(upstream.addr(), &top, ""));
    let (client, server) = open_tunnel(&hopgate, &upstream);
    drop((client, server));
    hopgate.wait_for_access(" end");
    let has_both = |log: String| log.contains(" start") && log.contains(" end");
    eventually("the second log has both lines of the tunnel", || {
        fs::read_to_string(dir.join("second log")).is_ok_and(has_both)
    });
}

#[test]
fn a_tunnel_has_both_of_its_lines_or_none() {
    let upstream = Upstream::listen();
    let top =
        "log_format = { t = '$request_uri $tunnel_id $tunnel_event' }\naccess_log = 'stdout t if=$arg_log'";
    let hopgate = Hopgate::start(&logging(upstream.addr(), top, ""));
    for target in ["/no", "/yes?log=1"] {
        let mut client = hopgate.connect();
        client.send(handshake(target));
        let mut server = upstream.accept();
        server.head();
        server.send(switching());
        client.expect_status(101);
        client.close();
        server.expect_closed();
    }
    hopgate.wait_for_access(" end");
    let lines = hopgate.access_lines("/");
    assert!(lines.len() == 2 && lines.iter().all(|line| line.starts_with("/yes?log=1 ")), "{lines:?}");
}
