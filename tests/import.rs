//! `hopgate import`: what comes out of the files in `import/`, in the words that stand next to them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use hopgate::config::Config;
use hopgate::nginx::{ImportError, Options, directives, import_text};
use proptest::prelude::*;

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
    }
}

#[test]
fn every_result_is_a_configuration() {
    for path in files("import") {
        if let Err(errors) = Config::load(&path.with_extension("toml")) {
            panic!("{errors}");
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
