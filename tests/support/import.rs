//! `hopgate import` and `hopgate check`, as a user runs them.

use std::collections::VecDeque;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::{Authority, Dir};

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

    /// Imports a file, and expects a configuration that passes `hopgate check` where its certificates are.
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
        let toml = with_certificates(&self.toml, &dir);
        fs::write(dir.join("hopgate.toml"), toml).expect("a file can be written");
        let check = hopgate(&["check", "--config", &dir.path("hopgate.toml")]);
        let said = String::from_utf8_lossy(&check.stderr);
        assert!(check.status.success(), "check refuses what import printed:\n{said}\n{}", self.toml);
    }
}

fn hopgate(args: &[&str]) -> Output {
    let mut hopgate = Command::new(env!("CARGO_BIN_EXE_hopgate"));
    hopgate.args(args).stdin(Stdio::null()).output().expect("hopgate can be run")
}

/// Makes the certificates, keys and lists that a configuration names, in a directory, and returns the configuration with
/// these instead.
#[track_caller]
pub fn with_certificates(toml: &str, dir: &Dir) -> String {
    let authority = Authority::new("a CA");
    let (mut made, mut keys, mut key) = (0, VecDeque::new(), String::new());
    let mut out = String::new();
    for line in toml.lines() {
        if let Some((name, _)) = line.split_once(" = ") {
            name.clone_into(&mut key);
        }
        let mut line = line.to_owned();
        for path in line.clone().split('"').skip(1).step_by(2).filter(|path| path.starts_with('/')) {
            made += 1;
            let name = match key.as_str() {
                "ssl_certificate" | "proxy_ssl_certificate" => {
                    authority.issue(&["example.com"]).write(dir, &made.to_string());
                    keys.push_back(format!("{made}.key"));
                    format!("{made}.pem")
                }
                "ssl_certificate_key" | "proxy_ssl_certificate_key" => {
                    keys.pop_front().expect("a certificate before its key")
                }
                "ssl_client_certificate" | "proxy_ssl_trusted_certificate" => {
                    fs::write(dir.join(&format!("{made}.pem")), authority.pem())
                        .expect("a file can be written");
                    format!("{made}.pem")
                }
                "ssl_crl" | "proxy_ssl_crl" => {
                    let list = authority.revocations(&[]);
                    fs::write(dir.join(&format!("{made}.pem")), list).expect("a file can be written");
                    format!("{made}.pem")
                }
                _ => continue,
            };
            line = line.replacen(path, &dir.path(&name), 1);
        }
        out += &line;
        out.push('\n');
    }
    out
}
