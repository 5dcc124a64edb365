//! `hopgate import` on whatever it is given: what it prints is a configuration, and what it does not carry over it names.

mod support;

#[path = "nginx/plausible.rs"]
mod plausible;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use fastrand::Rng;
use hopgate::config::Config;
use hopgate::nginx::{ImportError, Options, import_text};
use support::Import;

const SEED: u64 = 20_140_516;

#[test]
fn what_is_made_of_plausible_files_is_a_configuration() {
    every(500, plausible::plausible);
}

#[test]
fn what_is_made_of_damaged_files_is_a_configuration_or_a_message() {
    let files = fixtures();
    every(1000, move |rng| {
        let file = match rng.usize(0..files.len() + 10) {
            index if index < files.len() => files[index].clone(),
            _ => plausible::plausible(rng),
        };
        plausible::damaged(rng, &file)
    });
}

#[test]
fn noise_is_refused_or_empty_and_never_a_panic() {
    every(1500, plausible::noise);
}

/// Imports so many texts, each in bounded time.
#[track_caller]
fn every(count: usize, make: impl Fn(&mut Rng) -> String + Send + 'static) {
    let (said, hears) = mpsc::channel();
    thread::spawn(move || {
        let mut rng = Rng::with_seed(SEED);
        for _ in 0..count {
            let text = make(&mut rng);
            if said.send(text.clone()).is_err() {
                return;
            }
            let _ = said.send(imported(&text).err().unwrap_or_default());
        }
    });
    for _ in 0..count {
        let text = hears.recv().expect("a text");
        // Empty if all is well; nothing if the import panics, whose message stands above.
        let complaint = hears.recv_timeout(Duration::from_secs(10));
        let complaint = complaint.unwrap_or_else(|error| format!("no end of the import: {error}"));
        assert!(complaint.is_empty(), "{complaint}\nof\n{text}");
    }
}

/// Imports a text and reads what came out; a text that is no nginx file is refused with a place.
fn imported(text: &str) -> Result<(), String> {
    let path = Path::new("nginx.conf");
    match import_text(path, text, &Options::default()) {
        Ok(imported) => match Config::parse("hopgate.toml", &imported.toml) {
            Ok(_) => Ok(()),
            Err(errors) if errors.are_of_files() => Ok(()),
            Err(errors) => Err(format!("{}\n{errors}", imported.toml)),
        },
        Err(ImportError::Parse(_)) => Ok(()),
        Err(ImportError::Bug { toml, errors }) => Err(format!("a bug: {toml}\n{errors}")),
    }
}

#[test]
fn every_file_of_people_becomes_a_configuration_that_passes_check() {
    for path in conf_files("articles").into_iter().chain(conf_files("apps")) {
        Import::of_sound(&path);
    }
}

#[test]
fn what_is_broken_is_told_with_its_place_and_what_was_probably_meant() {
    for (file, said) in [
        ("bare-addresses.conf", &["bare-addresses.conf:2", "server 192.0.2.1:3000;"][..]),
        ("stray-brace.conf", &["stray-brace.conf:4", "close"]),
        ("unknown-group.conf", &["unknown-group.conf:9", "backend"]),
        ("no-semicolon.conf", &["no-semicolon.conf:10", "`;`"]),
        ("misplaced.conf", &["misplaced.conf:3", "proxy_http_version"]),
        ("comment-without-sign.conf", &["comment-without-sign.conf:5", "#"]),
    ] {
        let import = Import::of(&folder().join("broken").join(file));
        for said in said {
            assert!(import.report.contains(said), "{file}\nexpected: {said}\n     got: {}", import.report);
        }
        match import.code {
            Some(0) => import.expect_to_pass_check(),
            code => assert_eq!((code, import.toml.as_str()), (Some(2), ""), "{file}\n{}", import.report),
        }
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nginx")
}

/// All files of a folder of `tests/nginx`.
fn conf_files(name: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder().join(name)).expect("a folder of configurations");
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut files: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|end| end == "conf")).collect();
    files.sort();
    assert!(!files.is_empty(), "no configurations in {name}");
    files
}

fn fixtures() -> Vec<String> {
    let files = ["articles", "apps", "broken"].into_iter().flat_map(conf_files);
    files.map(|path| fs::read_to_string(path).expect("a file can be read")).collect()
}
