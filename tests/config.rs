//! The configuration: what is in `config/` loads, what is in `config/invalid/` is refused in the words
//! that stand next to it, and nothing makes the check panic.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use hopgate::config::file::Level;
use hopgate::config::{Balance, Config, ConfigErrors, EncodedSlashes, Escape, ListenAddress, LogTarget, To};
use hopgate::headers::fields::Known;
use hopgate::routing::variables::Template;
use proptest::prelude::*;

const REFERENCE: &str = include_str!("../config/hopgate.toml");
const MANUAL: &str = include_str!("../docs/configuration.md");

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn files(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root(folder)).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|end| end == "toml")).collect();
    files.sort();
    assert!(!files.is_empty(), "there is nothing in {folder}");
    files
}

fn hopgate(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hopgate"));
    command.args(arguments).env_remove("RUST_LOG").output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn refused(file: &str) -> ConfigErrors {
    Config::parse("hopgate.toml", file).unwrap_err()
}

/// A file with one location, and lines for each level of it.
fn nested(top: &str, server: &str, location: &str) -> Config {
    let text = format!(
        "{top}\n[[server]]\nlisten = 80\n{server}\n[[server.location]]\npath = '/'\nproxy_pass = 'http://a.b'\n{location}\n"
    );
    Config::parse("hopgate.toml", &text).unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn every_file_in_config_loads() {
    for path in files("config") {
        match Config::load(&path) {
            Ok(config) => assert_eq!(config.warnings.render(false), "", "{}", path.display()),
            Err(errors) => panic!("{errors}"),
        }
    }
}

/// With `HOPGATE_BLESS=1` the messages are written instead of compared: read them before they are kept.
#[test]
fn every_invalid_file_is_refused_in_the_words_next_to_it() {
    for path in files("tests/config/invalid") {
        let name = path.file_name().unwrap().to_str().unwrap();
        let file = fs::read_to_string(&path).unwrap();
        let got = Config::parse(name, &file).expect_err(name).render(false);
        expect_words(&path, &got);
    }
}

/// Likewise. What the files call fine is not warned of.
#[test]
fn every_surprising_file_is_warned_of_in_the_words_next_to_it() {
    for path in files("tests/config/warnings") {
        let name = path.file_name().unwrap().to_str().unwrap();
        let file = fs::read_to_string(&path).unwrap();
        let config = Config::parse(name, &file).unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(
            config.warnings.render(false).matches("warning: ").count(),
            config.warnings.len(),
            "{name}"
        );
        expect_words(&path, &config.warnings.render(false));
    }
}

#[track_caller]
fn expect_words(file: &Path, got: &str) {
    let expected = file.with_extension("expected");
    if std::env::var_os("HOPGATE_BLESS").is_some() {
        fs::write(&expected, got).unwrap();
    }
    let expected = fs::read_to_string(&expected).unwrap_or_default();
    assert!(expected == got, "{}\n--- expected\n{expected}\n--- got\n{got}", file.display());
}

#[test]
fn warnings_are_shown_and_are_mistakes_only_for_those_who_want_none() {
    let file = root("tests/config/warnings/timeouts.toml").display().to_string();
    let shown = hopgate(&["check", "--config", &file]);
    assert_eq!(shown.status.code(), Some(0));
    assert!(text(&shown.stderr).starts_with(&format!("warning: {file}:1:22: `proxy_read_timeout`")));
    let summary = text(&shown.stdout);
    assert!(summary.ends_with(": 1 server, 3 locations, 1 upstream: fine, 5 warnings\n"), "{summary}");
    let strict = hopgate(&["check", "--strict", "--config", &file]);
    assert_eq!((strict.status.code(), text(&strict.stdout).as_str()), (Some(1), ""));
    let shown = text(&strict.stderr);
    assert!(
        shown.starts_with(&format!("error: {file}:1:22: ")) && shown.ends_with("\n5 mistakes\n"),
        "{shown}"
    );
}

#[test]
fn every_mistake_begins_with_its_file_line_and_column() {
    for path in files("tests/config/invalid") {
        let errors = Config::load(&path).unwrap_err();
        let shown = errors.render(false);
        let titles: Vec<_> = shown.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(titles.len(), errors.mistakes().len());
        for title in titles {
            let place = title
                .strip_prefix(&format!("error: {}:", path.display()))
                .unwrap_or_else(|| panic!("{title}"));
            let mut numbers = place.splitn(3, ':').map(str::parse::<usize>);
            assert!(matches!((numbers.next(), numbers.next()), (Some(Ok(1..)), Some(Ok(1..)))), "{title}");
        }
    }
}

#[test]
fn every_key_stands_in_the_manual_and_in_the_reference() {
    for level in Level::ALL {
        for key in level.keys() {
            assert!(MANUAL.contains(&format!("| `{key}` |")), "`{key}` is missing in docs/configuration.md");
            let in_reference =
                REFERENCE.lines().any(|line| line.contains(&format!("{key} = ")) || names_table(line, key));
            assert!(in_reference, "`{key}` is missing in config/hopgate.toml");
        }
    }
}

fn names_table(line: &str, key: &str) -> bool {
    line.starts_with('[') && line.trim_matches(['[', ']']).split('.').any(|part| part == key)
}

#[test]
fn every_key_in_a_table_of_the_manual_is_one() {
    let known: BTreeSet<&str> = Level::ALL.iter().flat_map(|level| level.keys()).collect();
    let rows = MANUAL.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    for (key, _) in rows {
        assert!(known.contains(key), "`{key}` in docs/configuration.md is no key");
    }
}

#[test]
fn the_files_in_the_manual_and_in_the_readme_are_right() {
    let readme = include_str!("../README.md").split("\n\n    hopgate check").next().unwrap();
    let first = readme.split("    # hopgate.toml\n").nth(1).unwrap().replace("\n    ", "\n");
    let smallest = MANUAL.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    for file in [first.trim_start(), smallest] {
        assert!(file.contains("[[server.location]]"), "{file}");
        let config = Config::parse("docs", file).unwrap_or_else(|errors| panic!("{errors}"));
        // The next line of the readme is `hopgate check --strict`.
        assert!(config.warnings.is_empty(), "{}", config.warnings.render(false));
    }
}

#[test]
fn the_files_for_balancers_load_without_a_warning() {
    let page = include_str!("../docs/balancers.md");
    let files: Vec<_> =
        page.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(files.len(), 3);
    for file in files {
        // There are no such certificates here.
        let file: String =
            file.lines().filter(|line| !line.starts_with("ssl_")).map(|line| format!("{line}\n")).collect();
        let config = Config::parse("docs", &file.replace("443 ssl ", "8080 "))
            .unwrap_or_else(|errors| panic!("{errors}"));
        assert!(config.warnings.is_empty(), "{}", config.warnings.render(false));
    }
}

#[test]
fn every_field_that_the_manual_says_to_be_dropped_is_one_of_a_proxy_about_its_client() {
    let list = MANUAL.split("\nFrom peers that are not in").nth(1).unwrap().split("\n\n").next().unwrap();
    let names: Vec<_> = list.split('`').skip(7).step_by(2).collect();
    assert_eq!((names.len(), names[0], *names.last().unwrap()), (17, "X-Forwarded-For", "True-Client-IP"));
    for name in names {
        assert!(Known::of(name.as_bytes()).speaks_of_the_client(), "{name}");
    }
}

#[test]
fn every_variable_in_the_manual_is_one() {
    let chapter = MANUAL.split("\n## Variables\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let names: Vec<_> = chapter.split("`$").skip(1).filter_map(|rest| rest.split('`').next()).collect();
    assert!(names.len() > 40);
    for name in names.into_iter().filter(|name| !name.ends_with("name}") && *name != "name") {
        assert!(Template::parse(&format!("${name}")).is_ok(), "${name}");
    }
}

/// What a running proxy sees of the settings that have defaults.
fn settings(config: &Config) -> String {
    let mut settings = format!(
        "{:?} {:?} {:?} {:?}\n{:#?}\n",
        config.workers,
        (config.shutdown_timeout, config.shutdown_delay),
        config.max_connections,
        config.error_log,
        config.upstreams
    );
    for server in &config.servers {
        settings += &format!(
            "{:#?} {:?} {:?} {:?}\n",
            server.limits, server.real_ip, config.zones, server.encoded_slashes
        );
        for location in &server.locations {
            settings += &format!("{location:#?}\n");
        }
    }
    settings
}

#[test]
fn the_defaults_that_the_reference_tells_are_those_that_hold() {
    let lines = REFERENCE.lines().map(|line| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase()) => rest,
        _ => line,
    });
    let spelt_out = lines.collect::<Vec<_>>().join("\n");
    assert!(spelt_out.contains("\ntunnel_linger = \"10s\"\n"));
    let spelt_out = Config::parse("spelt out", &spelt_out).unwrap_or_else(|errors| panic!("{errors}"));
    let silent = Config::parse("silent", REFERENCE).unwrap();
    assert_eq!(settings(&silent), settings(&spelt_out));
}

#[test]
fn the_examples_of_the_reference_are_right() {
    let examples: Vec<_> = REFERENCE.lines().filter(|line| line.starts_with("# Example: ")).collect();
    assert!(examples.len() > 5);
    for example in examples {
        let line = example.trim_start_matches("# Example: ");
        let key = line.split(' ').next().unwrap();
        let file = match line.starts_with("listen") {
            true => REFERENCE.replace("listen = [\"127.0.0.1:8080\"]\n", "").replace(example, line),
            false => REFERENCE.replace(example, line),
        };
        assert!(file.lines().any(|line| line.starts_with(key)), "{key}");
        if let Err(errors) = Config::parse("example", &file) {
            panic!("{errors}");
        }
    }
}

#[test]
fn the_innermost_value_wins() {
    let config = nested(
        "client_max_body_size = '1m'\nsend_timeout = 1\nclient_body_timeout = 1\nmax_headers = 7\nwebsocket = false\n\
         proxy_set_header = { X-Top = '1' }\naccess_log = 'off'",
        "client_max_body_size = '2m'\nsend_timeout = 2\nencoded_slashes = 'pass'\naccess_log = '/var/log/a json'",
        "client_max_body_size = 'off'\nwebsocket = true\nproxy_set_header = { X-In = '$host' }",
    );
    let server = &config.servers[0];
    let location = &server.locations[0];
    assert_eq!(location.max_body_size, None);
    assert_eq!(location.timeouts.send, Duration::from_secs(2));
    assert_eq!(location.timeouts.client_body, Duration::from_secs(1));
    assert_eq!(server.limits.max_headers, 7);
    assert_eq!(server.encoded_slashes, EncodedSlashes::Pass);
    assert!(location.upgrade.websocket);
    let names: Vec<_> = location.set_headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["X-In"], "a table replaces the one of the level outside");
    let log = &location.access_logs[0];
    assert_eq!((&log.target, log.format.escape), (&LogTarget::File("/var/log/a".into()), Escape::Json));
}

#[test]
fn the_idle_time_of_tunnels_follows_the_http_timeouts_only_where_they_are_written() {
    for (top, server, location, seconds, key) in [
        ("", "", "", Some(3600), "tunnel_idle_timeout"),
        ("proxy_read_timeout = 90", "", "", Some(90), "proxy_read_timeout"),
        ("proxy_send_timeout = 90", "", "", Some(90), "proxy_send_timeout"),
        ("proxy_send_timeout = 90", "proxy_read_timeout = 80", "", Some(90), "proxy_send_timeout"),
        ("proxy_send_timeout = 90", "", "proxy_read_timeout = '1d'", Some(86_400), "proxy_read_timeout"),
        ("proxy_read_timeout = 90", "", "tunnel_idle_timeout = 5", Some(5), "tunnel_idle_timeout"),
        ("proxy_read_timeout = 90\ntunnel_idle_timeout = 5", "", "", Some(5), "tunnel_idle_timeout"),
        ("tunnel_idle_timeout = 5", "", "proxy_read_timeout = 90", Some(90), "proxy_read_timeout"),
        (
            "proxy_read_timeout = 99",
            "tunnel_idle_timeout = 5",
            "proxy_send_timeout = 7",
            Some(7),
            "proxy_send_timeout",
        ),
        ("proxy_read_timeout = 90", "tunnel_idle_timeout = 'off'", "", None, "tunnel_idle_timeout"),
    ] {
        let timeouts = nested(top, server, location).servers[0].locations[0].timeouts.clone();
        let got = (timeouts.tunnel_idle, timeouts.tunnel_idle_key);
        assert_eq!(got, (seconds.map(Duration::from_secs), key), "{top} / {server} / {location}");
    }
}

#[test]
fn an_upstream_is_found_by_its_name_and_addresses_are_shared() {
    let config = Config::parse(
        "hopgate.toml",
        "[upstream.App]\nserver = ['a:1', 'unix:/run/a.sock', 'b weight=3']\nleast_conn = true\nkeepalive = 0\n\
         [[server]]\nlisten = [80, 'unix:/run/h.sock']\nlocation = [\n\
         { path = '/a', proxy_pass = 'http://app' },\n\
         { path = '/b', proxy_pass = 'http://127.0.0.1:3000/x/' },\n\
         { path = '/c', proxy_pass = 'http://127.0.0.1:3000' },\n\
         { path = '/d', proxy_pass = 'http://unix:/run/app.sock:/d' },\n\
         { path = '/e', proxy_pass = 'http://docker:80' },\n\
         { path = '/f', proxy_pass = 'HTTP://[::1]:3000' },\n]\n",
    )
    .unwrap_or_else(|errors| panic!("{errors}"));
    let group = &config.upstreams[0];
    assert_eq!((group.servers.len(), &group.balance), (3, &Balance::LeastConn));
    assert_eq!(group.keepalive.connections, 0);
    let passes: Vec<_> =
        config.servers[0].locations.iter().filter_map(|location| location.proxy_pass()).collect();
    assert_eq!(
        passes.iter().map(|pass| pass.to.clone()).collect::<Vec<_>>(),
        [0, 1, 1, 2, 3, 4].map(To::Group)
    );
    assert_eq!(passes[1].uri.as_deref(), Some("/x/"));
    assert_eq!((passes[1].host.as_str(), passes[1].port), ("127.0.0.1:3000", 3000));
    assert_eq!((passes[0].host.as_str(), passes[0].port, &passes[0].uri), ("app", 80, &None));
    assert_eq!(passes[3].uri.as_deref(), Some("/d"));
    let names: Vec<_> = config.upstreams.iter().map(|upstream| upstream.name.as_str()).collect();
    assert_eq!(names, ["App", "127.0.0.1:3000", "unix:/run/app.sock", "docker:80", "[::1]:3000"]);
    assert_eq!(config.listeners[1].address, ListenAddress::Unix("/run/h.sock".into()));
}

#[test]
fn servers_on_one_address_share_a_listener() {
    let config = Config::parse(
        "hopgate.toml",
        "[[server]]\nlisten = [80, 81]\nserver_name = 'a'\n[[server]]\nlisten = '80 default_server'\nserver_name = ['b', '*.b']\n",
    )
    .unwrap();
    assert_eq!(config.listeners.len(), 2);
    let find = |listener: usize, host: &str| config.listeners[listener].servers.find(host);
    assert_eq!((find(0, "a"), find(0, "b"), find(0, "x.b"), find(0, "z")), (0, 1, 1, 1));
    assert_eq!((find(1, "b"), find(1, "z")), (0, 0));
}

#[test]
fn check_tells_what_there_is_on_stdout_and_leaves_with_0() {
    let path = root("config/hopgate.toml");
    let output = hopgate(&["check", "--config", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        text(&output.stdout),
        format!("{}: 1 server, 7 locations, 2 upstreams: fine\n", path.display())
    );
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn check_tells_every_mistake_on_stderr_and_leaves_with_1() {
    let path = root("tests/config/invalid/duplicate_locations.toml");
    let output = hopgate(&["check", "--config", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stdout), "");
    let stderr = text(&output.stderr);
    assert!(
        stderr.starts_with(&format!("error: {}:13:8: there are two locations", path.display())),
        "{stderr}"
    );
    assert!(stderr.ends_with("\n1 mistake\n"), "{stderr}");
    assert!(!stderr.contains('\u{1b}'), "colours are for terminals");
}

#[test]
fn exit_codes_do_not_depend_on_who_listens() {
    let wrong = root("tests/config/invalid/duplicate_locations.toml");
    for (arguments, code) in [
        (&["check", "--config", wrong.to_str().unwrap()][..], 1),
        (&["check", "--config", root("config/hopgate.toml").to_str().unwrap()], 0),
        (&["run", "--config", wrong.to_str().unwrap()], 1),
        (&["help"], 0),
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_hopgate"));
        let status =
            command.args(arguments).stdout(writer.try_clone().unwrap()).stderr(writer).status().unwrap();
        assert_eq!(status.code(), Some(code), "{arguments:?}");
    }
}

#[test]
fn the_demo_runs_though_nobody_reads_what_it_prints() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_hopgate"));
    command.args(["demo", "--listen", "127.0.0.1:0", "--workers", "1"]).env_remove("RUST_LOG");
    let mut demo = command.stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(demo.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(log.any(|line| line.contains(" started, ")));
    let kill = format!("kill -s INT {}", demo.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    let rest: Vec<_> = log.collect();
    assert_eq!(demo.wait().unwrap().code(), Some(0), "{rest:#?}");
}

#[test]
fn help_is_a_command_too() {
    let help = hopgate(&["help"]);
    assert_eq!((help.status.code(), text(&help.stdout)), (Some(0), text(&hopgate(&["--help"]).stdout)));
    let run = text(&hopgate(&["help", "run"]).stdout);
    assert!(run.contains("hopgate run --upstream"), "{run}");
}

#[test]
fn only_files_and_pipes_of_up_to_16_mib_are_read() {
    let refused = |path: &str| Config::load(Path::new(path)).unwrap_err().to_string();
    assert!(
        refused("/dev/zero").contains("cannot read /dev/zero: it is a device"),
        "{}",
        refused("/dev/zero")
    );
    assert!(refused(env!("CARGO_MANIFEST_DIR")).contains("name the file in it"));
    let path = std::env::temp_dir().join(format!("hopgate-large-{}.toml", std::process::id()));
    let large = fs::File::create(&path).unwrap();
    large.set_len((16 << 20) + 1).unwrap();
    let shown = refused(path.to_str().unwrap());
    fs::remove_file(&path).unwrap();
    assert!(shown.contains("it has more than 16 MiB"), "{shown}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_hopgate"));
    command.args(["check", "--config", "/dev/stdin"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut check = command.spawn().unwrap();
    check.stdin.take().unwrap().write_all(REFERENCE.as_bytes()).unwrap();
    let output = check.wait_with_output().unwrap();
    assert_eq!(text(&output.stdout), "/dev/stdin: 1 server, 7 locations, 2 upstreams: fine\n");
}

#[test]
fn peers_on_unix_sockets_are_trusted_only_if_they_are_named() {
    let trusts = |top: &str, server: &str| {
        let server = &nested(top, server, "").servers[0];
        (server.real_ip.trusts_unix_peers, server.real_ip.trusted.len())
    };
    assert_eq!(trusts("", ""), (false, 0));
    assert_eq!(trusts("trusted_proxies = 'unix:'", ""), (true, 0));
    assert_eq!(trusts("trusted_proxies = ['::1', 'unix:']", ""), (true, 1));
    assert_eq!(trusts("trusted_proxies = 'unix:'", "trusted_proxies = ['10.0.0.0/8']"), (false, 1));
}

#[test]
fn a_missing_file_is_said_kindly_and_leaves_with_1() {
    for command in ["check", "run"] {
        let output = hopgate(&[command, "--config", "/no/such/hopgate.toml"]);
        assert_eq!(output.status.code(), Some(1));
        let stderr = text(&output.stderr);
        assert!(stderr.contains("cannot read /no/such/hopgate.toml"), "{stderr}");
        assert!(stderr.contains("help: "), "{stderr}");
    }
}

#[test]
fn wrong_usage_leaves_with_2() {
    for arguments in [
        &["run", "--listen", "127.0.0.1:0"][..],
        &["run", "--config", "a.toml", "--upstream", "http://127.0.0.1:1"],
        &["run", "--listen", "nonsense:", "--upstream", "http://127.0.0.1:1"],
        &["check", "a.toml"],
        &["nonsense"],
        &[],
    ] {
        assert_eq!(hopgate(arguments).status.code(), Some(2), "{arguments:?}");
    }
    let said = hopgate(&["check", "--strict", "a.toml"]).stderr;
    assert!(
        text(&said).contains("tip: a configuration is named with `--config a.toml`\n"),
        "{}",
        text(&said)
    );
}

#[test]
fn a_wrong_upstream_on_the_command_line_names_the_flag_and_leaves_with_2() {
    let output = hopgate(&["run", "--upstream", "127.0.0.1:3000"]);
    assert_eq!(output.status.code(), Some(2));
    let stderr = text(&output.stderr);
    assert!(
        stderr.contains("'--upstream <URL>': `127.0.0.1:3000` is not a URL; write `http://127.0.0.1:3000`\n"),
        "{stderr}"
    );
}

#[test]
fn tls_on_the_command_line_is_answered_with_where_it_is_written() {
    let output = hopgate(&["run", "--listen", "8443 ssl", "--upstream", "http://127.0.0.1:3000"]);
    assert_eq!(output.status.code(), Some(2));
    let stderr = text(&output.stderr);
    assert!(
        stderr.contains("TLS needs a certificate, and that needs a file; write a configuration"),
        "{stderr}"
    );
    let output = hopgate(&["run", "--listen", "8080 http2", "--upstream", "http://127.0.0.1:3000"]);
    let stderr = text(&output.stderr);
    let said =
        "`http2` behind an address needs a file; write a configuration with `listen = \"8080 http2\"`\n";
    assert!(output.status.code() == Some(2) && stderr.contains(said), "{stderr}");
}

#[test]
fn a_file_that_is_no_text_is_refused_at_the_byte_that_is_none() {
    let path = std::env::temp_dir().join(format!("hopgate-latin1-{}.toml", std::process::id()));
    fs::write(&path, b"# caf\xe9\nworkers = 1\n").unwrap();
    let errors = Config::load(&path).unwrap_err();
    fs::remove_file(&path).unwrap();
    assert!(errors.summary().ends_with(":1:6: the file is not UTF-8 text"), "{}", errors.summary());
}

#[test]
fn deep_nesting_is_refused_not_followed() {
    for file in [
        format!("a = {}", "[".repeat(20_000)),
        format!("a = {}1{}", "[".repeat(20_000), "]".repeat(20_000)),
        format!("{}a = 1", "a.".repeat(20_000)),
        format!("a = {}", "{a=".repeat(20_000)),
        format!("[{}a]", "a.".repeat(20_000)),
        format!("{}a = 1", "\"a\".".repeat(20_000)),
        format!("{}a = 1\na = 2", "a.".repeat(20_000)),
    ] {
        assert!(!refused(&file).mistakes().is_empty());
    }
}

/// What a file is made of, so that random texts get deeper than the first character.
const PIECES: &[&str] = &[
    "[[server]]\n",
    "[[server.location]]\n",
    "[upstream.a]\n",
    "[log_format]\n",
    "[limit_req_zone.a]\n",
    "[limit_conn_zone.a]\n",
    "access",
    "limit_req",
    "limit_conn",
    "auth_basic",
    "auth_request_set",
    "\"deny all\"",
    "\"a burst=5 delay=2\"",
    "\"10r/s\"",
    "[server]",
    "[[",
    "]]",
    "[",
    "]",
    "{",
    "}",
    "\n",
    " = ",
    "=",
    ",",
    ".",
    "\"",
    "'",
    "#",
    ";",
    " ",
    "\t",
    "\r\n",
    "\\",
    "$",
    "${",
    "é",
    "\u{0}",
    "\u{feff}",
    "0",
    "-1",
    "1.5",
    "true",
    "off",
    "\"off\"",
    "\"60 s\"",
    "\"~ x\"",
    "\"http://a\"",
    "\"http://unix:/a:/b\"",
    "\"/\"",
    "\"= /\"",
    "1979-05-27",
    "\"\"\"",
    "server",
    "listen",
    "path",
    "proxy_pass",
    "proxy_set_header",
    "upgrade",
    "access_log",
    "error_log",
    "workers",
    "\"80 ssl\"",
    "\"[::1]:80\"",
    "server {",
    "listen 80;",
    "location / {",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_text_makes_the_check_panic(pieces in prop::collection::vec(prop::sample::select(PIECES), 0..60)) {
        if let Err(errors) = Config::parse("random", &pieces.concat()) {
            prop_assert!(!errors.mistakes().is_empty());
            prop_assert!(!errors.render(false).is_empty() && !errors.render(true).is_empty());
        }
    }

    #[test]
    fn no_change_to_the_reference_makes_the_check_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..40, prop::sample::select(PIECES)), 1..6),
    ) {
        let lines = REFERENCE.lines().filter(|line| !line.starts_with("# ")).map(|line| line.trim_start_matches('#'));
        let mut file: Vec<char> = lines.collect::<Vec<_>>().join("\n").chars().collect();
        for (place, removed, piece) in changes {
            let start = place.index(file.len());
            let end = (start + removed).min(file.len());
            file.splice(start..end, piece.chars());
        }
        let file: String = file.into_iter().collect();
        if let Err(errors) = Config::parse("changed", &file) {
            prop_assert!(!errors.render(true).is_empty());
        }
    }
}
