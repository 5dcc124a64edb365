//! What the environment says in place of flags, as containers are configured.
//!
//! Not clap's own `env`: it takes an empty value for a value, calls it a conflict when an image has `HOPGATE_CONFIG`
//! and its user says `--upstream`, and names the flag where a variable is wrong.

use std::ffi::OsString;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use clap::error::ErrorKind;

use super::{Cli, Command, DEFAULT_FILE, HealthArgs, RunArgs, listen, upstream, workers};
use crate::config::ListenAddress;
use crate::config::units::Wrong;

/// In place of `--config`.
pub const CONFIG: &str = "HOPGATE_CONFIG";
/// In place of `--listen`; several addresses are separated by commas or spaces.
pub const LISTEN: &str = "HOPGATE_LISTEN";
/// In place of `--upstream`.
pub const UPSTREAM: &str = "HOPGATE_UPSTREAM";
/// In place of `--workers`.
pub const WORKERS: &str = "HOPGATE_WORKERS";
/// In place of `--health`, and written as [`LISTEN`].
pub const HEALTH: &str = "HOPGATE_HEALTH";

/// Fills in what the flags do not say; `get` gives the value of a variable.
///
/// # Errors
/// A variable is wrong, or two of them exclude each other; the words name them.
pub fn fill(command: &mut Command, get: impl Fn(&str) -> Option<OsString>) -> Result<(), clap::Error> {
    let variables = Variables { get: &get };
    let config = match command {
        Command::Run(run) => return variables.fill_run(run),
        Command::Health(health) => return variables.fill_health(health),
        Command::Check(check) => &mut check.config,
        Command::Explain(explain) => &mut explain.config,
        Command::Import(_) | Command::Demo(_) | Command::Completions(_) | Command::Man(_) => return Ok(()),
    };
    if config.is_none() {
        *config = variables.path(CONFIG);
    }
    Ok(())
}

/// Those that were set for nothing: a file says where to listen. `None` if there are none.
pub fn unused_with_file(get: impl Fn(&str) -> Option<OsString>) -> Option<String> {
    let set = |name: &&str| get(name).is_some_and(|value| !is_empty(&value));
    let unused: Vec<&str> = [LISTEN, HEALTH].into_iter().filter(|name| set(name)).collect();
    (!unused.is_empty()).then(|| unused.join(" and "))
}

struct Variables<'a> {
    get: &'a dyn Fn(&str) -> Option<OsString>,
}

impl Variables<'_> {
    /// Whether there is a file is decided by the flags, and by the environment only if they leave it open.
    fn fill_run(&self, run: &mut RunArgs) -> Result<(), clap::Error> {
        let wants_no_file = !run.listen.is_empty() || !run.health.is_empty();
        if run.config.is_none() && run.upstream.is_none() {
            run.upstream = self.value(UPSTREAM, upstream)?;
            run.named.upstream = UPSTREAM;
            if !wants_no_file {
                run.config = self.path(CONFIG);
            }
        }
        match (&run.config, &run.upstream) {
            (Some(_), Some(_)) => {
                let message = format!(
                    "{CONFIG} and {UPSTREAM} are both set: with a file, the file says where requests go; unset one of them"
                );
                return Err(wrong("run", ErrorKind::ArgumentConflict, message));
            }
            (None, None) if wants_no_file => {
                let message = format!(
                    "--listen and --health are for running without a file: say `--upstream <URL>`, or set {UPSTREAM}"
                );
                return Err(wrong("run", ErrorKind::MissingRequiredArgument, message));
            }
            (_, None) => {}
            (None, Some(_)) => self.fill_addresses(run)?,
        }
        if run.workers.is_none() {
            run.workers = self.value(WORKERS, workers)?;
        }
        Ok(())
    }

    fn fill_addresses(&self, run: &mut RunArgs) -> Result<(), clap::Error> {
        if run.listen.is_empty() {
            run.listen = self.addresses("run", LISTEN)?;
            run.named.listen = LISTEN;
        }
        if run.health.is_empty() {
            run.health = self.addresses("run", HEALTH)?;
            run.named.health = HEALTH;
        }
        Ok(())
    }

    /// Whom a `hopgate run` in the same environment answers, and on which address.
    fn fill_health(&self, health: &mut HealthArgs) -> Result<(), clap::Error> {
        if health.url.is_some() || health.config.is_some() {
            return Ok(());
        }
        let has_file = self.get(UPSTREAM).is_none();
        health.config = self.path(CONFIG).filter(|_| has_file);
        let has_file = health.config.is_some() || has_file && Path::new(DEFAULT_FILE).exists();
        if !has_file {
            let first = self.addresses("health", HEALTH)?.into_iter().next();
            health.url = first.and_then(super::health::Target::of);
        }
        Ok(())
    }

    /// `None` if it is not set, or empty: with that, an image or a manifest takes back what it said before.
    fn get(&self, name: &str) -> Option<OsString> {
        (self.get)(name).filter(|value| !is_empty(value))
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.get(name).map(PathBuf::from)
    }

    fn text(&self, command: &str, name: &str) -> Result<Option<String>, clap::Error> {
        let text = self.get(name).map(OsString::into_string).transpose();
        text.map_err(|bytes| wrong(command, ErrorKind::InvalidUtf8, format!("{name}: {bytes:?} is no text")))
    }

    fn value<T>(&self, name: &str, read: fn(&str) -> Result<T, Wrong>) -> Result<Option<T>, clap::Error> {
        let text = self.text("run", name)?;
        text.map(|text| read(text.trim()).map_err(|error| invalid("run", name, error))).transpose()
    }

    fn addresses(&self, command: &str, name: &str) -> Result<Vec<ListenAddress>, clap::Error> {
        let text = self.text(command, name)?.unwrap_or_default();
        let entries = text.split([',', ' ', '\t', '\n']).filter(|entry| !entry.is_empty());
        entries.map(|entry| listen(entry).map_err(|error| invalid(command, name, error))).collect()
    }
}

fn is_empty(value: &OsString) -> bool {
    value.to_str().is_some_and(|value| value.trim().is_empty())
}

fn invalid(command: &str, name: &str, error: Wrong) -> clap::Error {
    wrong(command, ErrorKind::ValueValidation, format!("{name}: {error}"))
}

fn wrong(command: &str, kind: ErrorKind, message: impl Display) -> clap::Error {
    let mut whole = Cli::command();
    whole.build();
    match whole.find_subcommand_mut(command) {
        Some(command) => command.error(kind, message),
        None => whole.error(kind, message),
    }
}
