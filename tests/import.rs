//! `hopgate import`: what comes out of the files in `import/`, in the words that stand next to them.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use hopgate::config::Config;
use hopgate::config::file::Level;
use hopgate::nginx::{ImportError, Options, directives, import_text};
use proptest::prelude::*;
use support::{Dir, with_certificates};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

fn files(name: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder(name)).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|end| end == "conf")).collect();
    files.sort();
    assert!(!files.is_empty(), "there is nothing in {name}");
    files
}

/// As somebody in the folder of the file would do it.
fn import(path: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hopgate"));
    command.current_dir(path.parent().unwrap()).env("NO_COLOR", "1").env_remove("RUST_LOG");
    command.arg("import").arg(path.file_name().unwrap()).args(["-p", "/usr/share/nginx"]).args(more);
    command.output().unwrap()
}

/// With `HOPGATE_BLESS=1` a file is written instead of compared: read it before it is kept.
fn compare(path: &Path, got: &[u8]) {
    let got = String::from_utf8(got.to_vec()).unwrap();
    if std::env::var_os("HOPGATE_BLESS").is_some() {
        fs::write(path, &got).unwrap();
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    assert!(expected == got, "{}\n--- expected\n{expected}\n--- got\n{got}", path.display());
}

#[test]
fn every_file_comes_out_as_it_stands_next_to_it() {
    for path in files("import") {
        let output = import(&path, &[]);
        compare(&path.with_extension("stderr"), &output.stderr);
        compare(&path.with_extension("toml"), &output.stdout);
        assert_eq!(output.status.code(), Some(0), "{}", path.display());
        let (dir, toml) = (Dir::new(), String::from_utf8(output.stdout).unwrap());
        if let Err(errors) = Config::parse("here.toml", &with_certificates(&toml, &dir)) {
            panic!("{}\n{errors}", path.display());
        }
    }
}

#[test]
fn every_wrong_file_is_refused_in_the_words_next_to_it() {
    for path in files("import/wrong") {
        let output = import(&path, &[]);
        compare(&path.with_extension("stderr"), &output.stderr);
        assert_eq!(output.status.code(), Some(2), "{}", path.display());
        assert!(output.stdout.is_empty());
    }
}

/// The directives of a file that stand in none of its comments, with their lines.
fn lines_of(text: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap();
        let word: String = line.trim().chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
        if line.trim_end().ends_with(';') && directives::find(&word).is_some() {
            lines.push((number + 1, word));
        }
    }
    lines
}

#[test]
fn every_reported_directive_of_the_table_is_told_with_its_line() {
    for path in files("import") {
        let text = fs::read_to_string(&path).unwrap();
        let told = String::from_utf8(import(&path, &[]).stderr).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        for (line, word) in lines_of(&text) {
            let is_reported = !matches!(
                directives::find(&word),
                Some(
                    directives::State::Carried { .. }
                        | directives::State::Structure { .. }
                        | directives::State::Needless(_)
                )
            );
            let is_noted = told.lines().any(|line| {
                line.starts_with("note: ")
                    && [",", ":", " off", " 0"].iter().any(|end| line.contains(&format!(" {word}{end}")))
            });
            if is_reported && !is_noted && !text.contains("stream {") {
                assert!(told.contains(&format!("{name}:{line}: {word}: ")), "{name}:{line}: {word}\n{told}");
            }
        }
    }
}

#[test]
fn the_manual_has_the_table_of_all_directives() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/nginx.md");
    let manual = fs::read_to_string(&path).unwrap();
    let (before, rest) = manual.split_once("<!-- directives -->\n").unwrap();
    let (table, after) = rest.split_once("<!-- end of directives -->").unwrap();
    let right = format!("{}\n", directives::manual());
    if std::env::var_os("HOPGATE_BLESS").is_some() {
        let text = format!("{before}<!-- directives -->\n{right}<!-- end of directives -->{after}");
        return fs::write(&path, text).unwrap();
    }
    assert!(table == right, "docs/nginx.md is not what the code says: run this test with HOPGATE_BLESS=1");
}

#[test]
fn no_directive_stands_twice_in_the_table() {
    let names: Vec<&str> = directives::TABLE.iter().flat_map(|row| row.names.split_whitespace()).collect();
    for name in &names {
        assert_eq!(names.iter().filter(|other| *other == name).count(), 1, "{name}");
    }
    assert!(names.len() > 300);
}

#[test]
fn every_key_that_a_directive_is_carried_over_to_is_one() {
    let keys: Vec<&str> = Level::ALL.iter().flat_map(|level| level.keys()).collect();
    for row in directives::TABLE {
        if let directives::State::Carried { key, .. } = row.state {
            let names = if key.is_empty() { row.names } else { key };
            if !key.contains(' ') {
                names.split(' ').for_each(|name| assert!(keys.contains(&name), "{name}"));
            }
        }
    }
}

#[test]
fn the_result_goes_to_the_file_that_is_named() {
    let output = std::env::temp_dir().join(format!("hopgate-import-{}.toml", std::process::id()));
    let path = folder("import").join("websocket.conf");
    let done = import(&path, &["--output", output.to_str().unwrap()]);
    let written = fs::read(&output).unwrap();
    fs::remove_file(&output).unwrap();
    assert_eq!((done.status.code(), done.stdout.len()), (Some(0), 0));
    assert_eq!(written, import(&path, &[]).stdout);
    let nowhere = import(&path, &["--output", "/no/such/folder/hopgate.toml"]);
    assert_eq!(nowhere.status.code(), Some(1));
}

#[test]
fn a_file_that_is_not_there_is_wrong_usage() {
    let output = import(&folder("import").join("no-such-file.conf"), &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot read no-such-file.conf"));
}

/// What nginx files are made of, so that random texts get deeper than the first word.
const PIECES: &[&str] = &[
    "http {",
    "server {",
    "location / {",
    "location ~ ^/(?<a>.)$ {",
    "upstream app {",
    "map $http_upgrade $x {",
    "if ($x = 1) {",
    "limit_except GET {",
    "types {",
    "content_by_lua_block {",
    "}",
    "}",
    "{",
    ";",
    "\n",
    " ",
    "#",
    "\"",
    "'",
    "\\",
    "$",
    "${",
    "…",
    "...",
    "\u{feff}",
    "listen 80;",
    "listen [::]:80 ssl default_server;",
    "listen 443 ssl http2;",
    "ssl on;",
    "http2 on;",
    "ssl_certificate /no/such.pem;",
    "ssl_certificate_key /no/such.key;",
    "ssl_verify_client on;",
    "ssl_client_certificate /no/such.pem;",
    "ssl_trusted_certificate x.pem;",
    "ssl_reject_handshake on;",
    "proxy_pass https://app;",
    "proxy_ssl_name $x;",
    "grpc_pass grpcs://app;",
    "grpc_set_header Host $host;",
    "server_name _;",
    "server 10.0.0.1;",
    "default 1;",
    "proxy_pass http://app;",
    "proxy_pass http://$x/;",
    "proxy_set_header Host $host;",
    "proxy_set_header Connection $x;",
    "add_header A b always;",
    "deny all;",
    "return 301 /x;",
    "rewrite ^ /x last;",
    "set $x $unknown;",
    "break;",
    "error_page 404 =200 /x;",
    "try_files $uri =404;",
    "root html;",
    "include nothing/*.conf;",
    "access_log off;",
    "auth_jwt x;",
    "fastcgi_pass a:1;",
    "unknown;",
];

/// Whether it is a configuration, wherever the files are that it names.
fn is_sound(toml: &str) -> bool {
    Config::parse("random", toml).map_or_else(|errors| errors.are_of_files(), |_| true)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_comes_out_of_any_text_is_a_configuration_or_a_mistake(
        pieces in prop::collection::vec(prop::sample::select(PIECES), 0..40),
    ) {
        let text = pieces.concat();
        match import_text(Path::new("random.conf"), &text, &Options::default()) {
            Ok(imported) => prop_assert!(is_sound(&imported.toml), "{text}\n{}", imported.toml),
            Err(ImportError::Parse(_)) => {}
            Err(ImportError::Bug { toml, errors }) => prop_assert!(false, "{text}\n{toml}\n{errors}"),
        }
    }
}

#[test]
fn a_file_in_utf_16_is_called_one() {
    let path = std::env::temp_dir().join(format!("hopgate-utf-16-{}.conf", std::process::id()));
    let text: Vec<u8> = "\u{feff}server { listen 80; }".encode_utf16().flat_map(u16::to_le_bytes).collect();
    fs::write(&path, text).unwrap();
    let output = import(&path, &[]);
    fs::remove_file(&path).unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("it is no text in UTF-8, but UTF-16 or no text at all"), "{said}");
}
