//! `hopgate import` and `hopgate check`, as a user runs them.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::Dir;

/// What an import printed.
pub struct Import {
    pub toml: String,
    /// Standard error: what was not carried over, and what is needless.
    pub report: String,
    /// The exit code; `None` if a signal ended it.
    pub code: Option<i32>,
}

impl Import {
    /// Imports a file.
    pub fn of(file: &Path) -> Self {
        let output = hopgate(&["import", &file.display().to_string()]);
        Self {
            toml: String::from_utf8_lossy(&output.stdout).into_owned(),
            report: String::from_utf8_lossy(&output.stderr).into_owned(),
            code: output.status.code(),
        }
    }

    /// Imports a file, and expects a configuration that passes `hopgate check`.
    #[track_caller]
    pub fn of_sound(file: &Path) -> Self {
        let import = Self::of(file);
        assert_eq!(import.code, Some(0), "import of {}\n{}", file.display(), import.report);
        import.expect_to_pass_check();
        import
    }

    #[track_caller]
    pub fn expect_to_pass_check(&self) {
        let dir = Dir::new();
        fs::write(dir.join("hopgate.toml"), &self.toml).expect("a file can be written");
        let check = hopgate(&["check", "--config", &dir.path("hopgate.toml")]);
        let said = String::from_utf8_lossy(&check.stderr);
        assert!(check.status.success(), "check refuses what import printed:\n{said}\n{}", self.toml);
    }
}

fn hopgate(args: &[&str]) -> Output {
    let mut hopgate = Command::new(env!("CARGO_BIN_EXE_hopgate"));
    hopgate.args(args).stdin(Stdio::null()).output().expect("hopgate can be run")
}
