//! `hopgate import`: says an nginx configuration in TOML, and what of it could not be said.

use std::fs;
use std::io::Write;
use std::path::Path;

use super::{EXIT_BUG, EXIT_CONFIG, EXIT_DONE, EXIT_USAGE, ImportArgs, colored};
use crate::nginx::{self, ImportError, Options, ParseError};

/// Imports the file, prints the result or writes it to a file, and returns the exit code.
pub fn import(arguments: &ImportArgs) -> u8 {
    let options = Options { prefix: arguments.prefix.clone() };
    let imported = match nginx::import(&arguments.nginx_conf, &options) {
        Ok(imported) => imported,
        Err(error) => return refuse(&error),
    };
    // Nobody may be listening: the exit code says it all.
    let mut stderr = std::io::stderr();
    for line in imported.reports.iter().chain(&imported.notes) {
        let _ = writeln!(stderr, "{line}");
    }
    match &arguments.output {
        Some(path) => write(path, &imported.toml),
        None => {
            let _ = write!(std::io::stdout(), "{}", imported.toml);
            EXIT_DONE
        }
    }
}

fn write(path: &Path, toml: &str) -> u8 {
    match fs::write(path, toml) {
        Ok(()) => EXIT_DONE,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: cannot write {}: {error}", path.display());
            EXIT_CONFIG
        }
    }
}

fn refuse(error: &ImportError) -> u8 {
    let mut stderr = std::io::stderr();
    match error {
        ImportError::Parse(ParseError::Unreadable(path, error)) => {
            let _ = writeln!(stderr, "error: cannot read {}: {error}", path.display());
            EXIT_USAGE
        }
        ImportError::Parse(ParseError::Mistakes(files)) => {
            for file in files {
                let _ = write!(stderr, "{}", file.render(colored()));
            }
            EXIT_USAGE
        }
        ImportError::Bug { toml, errors } => {
            let _ = writeln!(
                stderr,
                "error: what hopgate made of this file is no configuration: that is a bug of hopgate, please report it\n\n\
                 {toml}\n{errors}"
            );
            EXIT_BUG
        }
    }
}
