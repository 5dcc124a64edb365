//! `hopgate explain`, as a user runs it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// Runs it in a folder, with the `hopgate.toml` there.
#[track_caller]
pub fn explain_in(folder: impl AsRef<Path>, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hopgate"));
    command.args(["explain", "--config", "hopgate.toml"]).args(arguments);
    command.current_dir(folder).env_remove("RUST_LOG").output().expect("hopgate can be run")
}

/// Every file `NAME.expected` in `folder` begins with the arguments, then an empty line, then what is printed where the
/// configuration is, with `DIR/` for its path, and the exit code. With `HOPGATE_BLESS=1` they are written instead of
/// compared: read them before they are kept.
#[track_caller]
pub fn expect_as_written_down(folder: &Path, config: &Path) {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|end| end == "expected")).collect();
    files.sort();
    assert!(files.len() > 10, "{files:?}");
    for file in files {
        let written = fs::read_to_string(&file).expect("a text");
        let line = written.lines().next().expect("arguments");
        let arguments: Vec<String> = hopgate::config::words::words(line).expect("words");
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let output = explain_in(config, &arguments);
        let printed =
            String::from_utf8_lossy(&output.stdout).replace(&format!("{}/", config.display()), "DIR/");
        let (said, code) = (String::from_utf8_lossy(&output.stderr), output.status.code().expect("a code"));
        let got = format!("{line}\n\n{printed}{said}\nexit {code}\n");
        if std::env::var_os("HOPGATE_BLESS").is_some() {
            fs::write(&file, &got).expect("a file can be written");
            continue;
        }
        assert!(written == got, "{}\n--- expected\n{written}\n--- got\n{got}", file.display());
    }
}
