//! `hopgate explain`: what it prints, and that it tells the truth: the head that it shows is the one that an
//! upstream gets.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use hopgate::config::Config;
use hopgate::explain::{Explanation, GivenField, Question, Url};
use proptest::prelude::*;
use serde_json::Value;
use support::{Dir, Hopgate, Upstream, expect_as_written_down, explain_in};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/explain")
}

/// Runs `hopgate explain` beside the configuration of the tests.
fn explain(arguments: &[&str]) -> Output {
    explain_in(folder(), arguments)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[track_caller]
fn object(arguments: &[&str]) -> Value {
    let output = explain(&[arguments, &["--json"]].concat());
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stderr)))
}

#[test]
fn every_question_is_answered_as_written_down() {
    expect_as_written_down(&folder(), &folder());
}

#[test]
fn the_example_in_the_manual_is_what_is_printed() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/explain.md");
    let manual = fs::read_to_string(&path).unwrap();
    let block = |kind: &str| {
        let start = manual.find(&format!("```{kind}\n")).unwrap() + kind.len() + 4;
        (start, start + manual[start..].find("```").unwrap())
    };
    let (toml, expected) = (block("toml"), block("text"));
    let dir = Dir::new();
    fs::write(dir.join("hopgate.toml"), &manual[toml.0..toml.1]).unwrap();
    let printed = text(&explain_in(&dir, &["ws://example.com/ws/old/room"]).stdout);
    if std::env::var_os("HOPGATE_BLESS").is_some() {
        let blessed = [&manual[..expected.0], &printed, &manual[expected.1..]].concat();
        fs::write(&path, blessed).unwrap();
        return;
    }
    let expected = &manual[expected.0..expected.1];
    assert!(expected == printed, "--- expected\n{expected}\n--- got\n{printed}");
}

#[test]
fn every_key_for_programs_is_in_the_manual() {
    let manual = include_str!("../docs/explain.md");
    let mut found = 0;
    let mut unseen = vec![object(&["ws://example.com/ws/chat"]), object(&["http://example.com/old/x"])];
    unseen.push(object(&["http://example.com/admin/"]));
    unseen.push(object(&["http://example.com/files/a"]));
    while let Some(value) = unseen.pop() {
        match value {
            Value::Object(entries) => {
                for (key, value) in entries {
                    assert!(manual.contains(&format!("`{key}`")), "`{key}` is missing in docs/explain.md");
                    if matches!(&*key, "step" | "outcome") {
                        let word = value.as_str().unwrap();
                        assert!(
                            manual.contains(&format!("`{word}`")),
                            "`{word}` is missing in docs/explain.md"
                        );
                    }
                    found += 1;
                    unseen.push(value);
                }
            }
            Value::Array(values) => unseen.extend(values),
            _ => {}
        }
    }
    assert!(found > 100, "{found}");
}

#[test]
fn what_is_printed_has_no_colours_where_nobody_sees_them() {
    let output = explain(&["ws://example.com/ws/chat"]);
    assert!(!output.stdout.contains(&0x1b));
}

#[test]
fn mistakes_are_told_by_the_exit_code() {
    for (arguments, code) in [
        (&["http://example.com/"][..], 0),
        (&["http://example.com/../"], 1),
        (&["http://example.com/", "--config", "no_such_file.toml"], 1),
        (&["example.com/"], 2),
        (&["http://example.com/", "-H", "no field"], 2),
        (&["http://example.com/", "-X", "NO METHOD"], 2),
        (&["http://example.com/", "--from", "nowhere"], 2),
        (&[], 2),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hopgate"));
        let config = ["--config", "hopgate.toml"];
        let config = if arguments.contains(&"--config") { &[][..] } else { &config };
        let output =
            command.arg("explain").args(config).args(arguments).current_dir(folder()).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", text(&output.stderr));
        assert_eq!(output.stdout.is_empty(), code == 2 || arguments.contains(&"--config"));
    }
}

#[test]
fn a_program_gets_one_object_with_everything_in_it() {
    let object = object(&["ws://example.com/ws/chat"]);
    let keys: Vec<&String> = object.as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        [
            "file", "request", "added", "notes", "listener", "tls", "server", "steps", "location", "upgrade",
            "timeouts", "answer", "upstream"
        ]
    );
    assert_eq!(object["file"], "hopgate.toml");
    assert_eq!(object["server"]["name"], "example.com");
    assert_eq!(object["location"]["path"], "/ws/");
    assert_eq!(object["upgrade"]["passed"], true);
    assert_eq!(object["answer"]["from"], "upstream");
    assert_eq!(object["upstream"]["name"], "app");
    assert_eq!(object["upstream"]["examples"], serde_json::json!(["X-Request-ID", "Sec-WebSocket-Key"]));
    let idle = object["timeouts"].as_array().unwrap().iter().find(|t| t["key"] == "tunnel_idle_timeout");
    assert_eq!(
        (&idle.unwrap()["seconds"], &idle.unwrap()["set_by"]),
        (&86400.0.into(), &"proxy_read_timeout".into())
    );
    let won = object["steps"][0]["candidates"].as_array().unwrap().iter().filter(|c| c["won"] == true);
    assert_eq!(won.map(|c| c["outcome"].as_str().unwrap()).collect::<Vec<_>>(), ["longest_prefix"]);
}

#[test]
fn every_line_that_is_named_has_what_is_said_of_it() {
    let file = fs::read_to_string(folder().join("hopgate.toml")).unwrap();
    let lines: Vec<&str> = file.lines().collect();
    for url in ["ws://example.com/ws/chat", "http://example.com/old/x", "http://example.com/a.php"] {
        let object = object(&[url]);
        let line = |of: &Value| of.as_u64().map(|line| lines[line as usize - 1]);
        for setting in object["timeouts"].as_array().unwrap() {
            if let Some(line) = line(&setting["line"]) {
                assert!(line.starts_with(setting["set_by"].as_str().unwrap()), "{setting}: {line}");
            }
        }
        for candidate in object["steps"][0]["candidates"].as_array().unwrap() {
            let path = candidate["path"].as_str().unwrap().replace('\\', "\\\\");
            assert_eq!(line(&candidate["line"]), Some(&*format!("path = \"{path}\"")));
        }
        assert_eq!(line(&object["server"]["line"]), Some("[[server]]"));
    }
}

/// What is said to be an example and is sent all the same.
const KEY: &str = "Sec-WebSocket-Key";

/// (server lines, location lines, arguments behind the URL's host, how the client says it over the wire)
const TOLD: &[(&str, &str, &[&str])] = &[
    ("", "", &["http://{}/"]),
    ("", "", &["http://{}/a%20b//c/../d?x=%2F&y"]),
    ("", "", &["http://{}/x", "-X", "POST", "-H", "Content-Length: 0", "-H", "Content-Type: a/b"]),
    ("", "", &["http://{}/x", "-X", "HEAD", "-H", "X-Forwarded-For: 1.2.3.4", "-H", "X_Odd: 1"]),
    (
        "trusted_proxies = '127.0.0.1'",
        "",
        &["http://{}/", "-H", "X-Forwarded-For: 1.2.3.4", "-H", "X-Forwarded-Proto: https"],
    ),
    (
        "",
        "proxy_set_header = { Host = '$proxy_host', X-Id = '$request_method $uri $args', X-None = '' }",
        &["http://{}/p?q", "-H", "X-None: 1"],
    ),
    ("rewrite = '^/old/(.*)$ /new/$1?v=1'", "", &["http://{}/old/x y?z"]),
    ("", "rewrite = '^/(.*)$ /in/$1 break'", &["http://{}/x%2Cy"]),
    ("", "forwarded_headers = 'pass'", &["http://{}/", "-H", "X-Forwarded-For: 1.2.3.4"]),
    (
        "",
        "proxy_pass_trailers = true",
        &["http://{}/", "-H", "Connection: X-Gone", "-H", "X-Gone: 1", "-H", "X-Kept: 1"],
    ),
    (
        "",
        "",
        &[
            "http://{}/",
            "-H",
            "Upgrade: h2c",
            "-H",
            "Connection: Upgrade, HTTP2-Settings",
            "-H",
            "HTTP2-Settings: x",
        ],
    ),
    ("", "", &["http://{}/", "-H", "Host: other.example:81"]),
    ("", "", &["http://{}/", "-X", "POST", "-H", "Transfer-Encoding: chunked", "-H", "Expect: 100-continue"]),
    (
        "",
        "proxy_set_header = { X-Id = \"$request_id\" }",
        &["http://{}/", "-X", "PUT", "-H", "Content-Length: 3"],
    ),
    ("", "proxy_method = 'PUT'\nproxy_pass_request_headers = false", &["http://{}/", "-H", "X-One: 1"]),
    ("set = { path = '$uri' }", "proxy_pass = 'http://UPSTREAM$path/x'", &["http://{}/a/b"]),
    ("", "", &["ws://{}/chat?room=1"]),
    ("", "", &["http://{}/chat", "-H", "Upgrade: websocket", "-H", "Sec-WebSocket-Protocol: a, b"]),
    (
        "",
        "",
        &["ws://{}/chat", "-H", "sec-websocket-extensions: permessage-deflate", "-H", "Origin: http://a.b"],
    ),
    (
        "",
        "upgrade = 'chat/1.0'",
        &["http://{}/", "-H", "Connection: keep-alive, upgrade", "-H", "Upgrade: chat/1.0"],
    ),
    (
        "error_page = '403 =200 /page'\n",
        "rewrite = { if = '$uri = /secret', return = '403' }",
        &["http://{}/secret", "-X", "PUT"],
    ),
];

/// Where the sockets of systemd are stands in its units.
#[test]
fn a_listener_that_systemd_knows_alone_is_taken_to_be_where_the_url_says() {
    let dir = Dir::new();
    let server =
        |listen: &str, says: &str| format!("[[server]]\nlisten = '{listen}'\nreturn = '200 {says}'\n");
    let config = [
        server("fd:web", "$server_addr:$server_port"),
        server("fd:secure ssl", "secure") + "tls = 'self-signed'\n",
        server("127.0.0.1:8080", "bound"),
    ];
    fs::write(dir.join("hopgate.toml"), config.concat()).unwrap();
    let told = |url: &str| text(&explain_in(dir.as_ref(), &[url]).stdout);
    for (url, listener, port, rest) in [
        ("http://example.com/", "fd:web", "80", "127.0.0.1:80"),
        ("http://192.0.2.7:81/", "fd:web", "81", "192.0.2.7:81"),
        ("https://example.com/", "fd:secure", "443", "secure"),
    ] {
        let told = told(url);
        assert!(told.contains(&format!("listener   {listener}\n")) && told.contains(rest), "{told}");
        let note = format!("systemd alone knows where {listener} is: it is taken to be on port {port}");
        assert!(told.contains(&note), "{told}");
    }
    assert!(told("http://127.0.0.1:8080/").contains("bound"), "an address that is known comes first");
}

/// Explains a request to a hopgate of its own, and starts that. `upstream` answers what is not told otherwise.
fn told(server: &str, location: &str, arguments: &[&str], upstream: &str) -> (Value, Hopgate) {
    let addr = support::free_addr();
    let config = format!(
        "workers = 1\n[[server]]\nlisten = '{addr}'\n{server}\n[[server.location]]\npath = '/'\n{location}\n"
    )
    .replace("UPSTREAM", upstream);
    println!("row: {config}{arguments:?}");
    let arguments: Vec<String> =
        arguments.iter().map(|argument| argument.replace("{}", &addr.to_string())).collect();
    let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    arguments.push("--json");
    let dir = Dir::new();
    fs::write(dir.join("hopgate.toml"), &config).unwrap();
    let output = explain_in(&dir, &arguments);
    let told = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stderr)));
    (told, Hopgate::start(&config))
}

#[test]
fn the_head_that_is_shown_is_the_head_that_an_upstream_gets() {
    let upstream = Upstream::listen();
    for (server, location, arguments) in TOLD {
        let pass = if location.contains("proxy_pass =") { "" } else { "proxy_pass = 'http://UPSTREAM'\n" };
        let (told, hopgate) = told(server, &format!("{pass}{location}"), arguments, upstream.addr());
        let mut client = hopgate.connect();
        client.send(told["request"].as_str().unwrap());
        let mut server = upstream.accept();
        let head = server.head();
        let told_head = told["upstream"]["head"].as_str().unwrap();
        let examples = told["upstream"]["examples"].as_array().unwrap();
        for ((told, got), line) in told_head.split("\r\n").zip(text(&head.raw).split("\r\n")).zip(1..) {
            let name = |line: &str| line.split(':').next().unwrap().to_owned();
            let is_example = examples.iter().any(|example| *example == name(told)) && name(told) != KEY;
            let pair = if is_example { (name(told), name(got)) } else { (told.to_owned(), got.to_owned()) };
            assert_eq!(pair.0, pair.1, "line {line} for {arguments:?}");
        }
        assert_eq!(told_head.split("\r\n").count(), text(&head.raw).split("\r\n").count(), "{arguments:?}");
        server.respond_and_close("");
        client.expect_status(200);
    }
}

/// As [`TOLD`], for answers of hopgate's own.
const ANSWERED: &[(&str, &str, &[&str])] = &[
    ("", "return = '200 hello'", &["http://{}/"]),
    ("", "return = '301 /there?a=$arg_a'", &["http://{}/x?a=b"]),
    ("add_header = { X-One = '$uri' }", "return = '200 hello'", &["http://{}/x"]),
    ("add_header = { X-One = { value = '1', always = true } }", "return = '404'", &["http://{}/x"]),
    (
        "error_page = '403 /page'",
        "rewrite = { if = '$uri = /page', return = '200 page' }\nreturn = '403'",
        &["http://{}/x"],
    ),
    ("error_page = '404 =302 https://a.b/'", "return = '404'", &["http://{}/x"]),
    ("", "access = 'deny all'\nproxy_pass = 'http://UPSTREAM'", &["http://{}/"]),
    ("", "websocket = false\nproxy_pass = 'http://UPSTREAM'", &["ws://{}/"]),
    ("", "proxy_pass = 'http://UPSTREAM'", &["ws://{}/", "-H", "Sec-WebSocket-Version: 7"]),
    ("", "proxy_pass = 'http://UPSTREAM'", &["ws://{}/", "-H", "Sec-WebSocket-Key: short"]),
    ("", "proxy_pass = 'http://UPSTREAM'", &["http://{}/%2e%2e/x"]),
    ("", "proxy_pass = 'http://UPSTREAM'", &["http://{}/", "-X", "TRACE"]),
    ("", "proxy_pass = 'http://UPSTREAM'", &["http://{}/", "-H", "Expect: a-miracle"]),
    ("", "proxy_pass = 'http://UPSTREAM'", &["http://{}/", "-H", "Host: a b"]),
    ("max_headers = 2", "return = '200 hello'", &["http://{}/", "-H", "X-A: 1", "-H", "X-B: 2"]),
    (
        "",
        "auth_basic = 'staff'\nauth_basic_user_file = '/no/such/file'\nproxy_pass = 'http://UPSTREAM'",
        &["http://{}/"],
    ),
    ("", "root = '/no/such/place'", &["http://{}/x"]),
    ("", "root = '/no/such/place'\ntry_files = ['$uri', '=418']", &["http://{}/x"]),
    ("", "rewrite = '^ /'", &["http://{}/x"]),
];

#[test]
fn the_answer_that_is_shown_is_the_answer_that_a_client_gets() {
    let upstream = Upstream::listen();
    for (server, location, arguments) in ANSWERED {
        let (told, hopgate) = told(server, location, arguments, upstream.addr());
        let mut client = hopgate.connect();
        client.send(told["request"].as_str().unwrap());
        let response = client.response();
        assert_eq!(told["answer"]["status"], response.status, "{told}");
        let own = ["Server", "Date", "Content-Length", "Connection"];
        let fields = response.head.fields.iter().filter(|(name, _)| !own.contains(&name.as_str()));
        let fields: Vec<Value> = fields.map(|(name, value)| serde_json::json!([name, value])).collect();
        assert_eq!(told["answer"]["fields"], Value::from(fields), "{told}");
        if told["answer"]["from"] == "hopgate" {
            assert_eq!(told["answer"]["body"], response.text());
        } else {
            let why = told["answer"]["why"].as_str().unwrap();
            assert!(hopgate.wait_for_log(why).contains(why));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn whatever_is_asked_there_is_an_answer(
        host in "(example\\.com|a\\.apps\\.test|[a-z.:@]{0,6})",
        target in "(/(ws|old|v1|v2|files|admin|user/1|%2e\\.|loop|x\\.php)){0,3}[ -~é]{0,6}",
        method in "(GET|POST|HEAD|OPTIONS|TRACE|CONNECT|X)",
        fields in prop::collection::vec(
            "(Upgrade: websocket|Connection: upgrade|Host: x|Content-Length: [0-9]{1,5}|Expect: x|Transfer-Encoding: chunked|[A-Z_]{1,3}: [ -~]{0,5})",
            0..4,
        ),
    ) {
        let Ok(url) = Url::parse(&format!("http://{host}{target}")) else { return Ok(()) };
        let file = include_str!("explain/hopgate.toml");
        let (config, places) = Config::parse_with_places("hopgate.toml", file).unwrap();
        let fields = fields.iter().map(|field| GivenField::parse(field).unwrap()).collect();
        let question = Question { url, method, fields, from: [192, 0, 2, 1].into() };
        let explanation = Explanation::of(&question, config, &places);
        prop_assert!(explanation.text(false).starts_with("request"));
        prop_assert!(!explanation.text(false).contains(char::from(0x1b)));
        let object: Value = serde_json::from_str(&explanation.json()).unwrap();
        prop_assert_eq!(object["upstream"].is_null(), object["answer"]["from"] != "upstream");
    }
}
