//! The error log: where `tracing` writes to.

use std::fs::File;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::EnvFilter;

use super::open;
use crate::config::{ErrorLog, LogTarget};

/// The error log: where `tracing` writes to.
#[derive(Clone, Debug)]
pub struct ErrorLogWriter {
    target: LogTarget,
    file: Arc<Mutex<Option<File>>>,
}

impl ErrorLogWriter {
    /// Sends what `tracing` is told to the error log, from the level of the configuration on or as
    /// `RUST_LOG` says. Once in a process.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn install(config: &ErrorLog) -> io::Result<Self> {
        let writer = Self { target: config.target.clone(), file: Arc::default() };
        writer.reopen()?;
        let wanted = EnvFilter::try_from_default_env();
        let is_misunderstood = wanted.is_err() && std::env::var_os(EnvFilter::DEFAULT_ENV).is_some();
        let filter = wanted.unwrap_or_else(|_| EnvFilter::new(config.level.to_string()));
        let is_terminal =
            matches!(config.target, LogTarget::Stderr) && io::IsTerminal::is_terminal(&io::stderr());
        let make = writer.clone();
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(is_terminal && std::env::var_os("NO_COLOR").is_none())
            .with_target(false)
            .with_writer(move || make.clone())
            .try_init()
            .map_err(io::Error::other)?;
        if is_misunderstood {
            tracing::warn!(
                "RUST_LOG is not understood, the level of the configuration is used; `RUST_LOG=debug` would be right"
            );
        }
        Ok(writer)
    }

    /// Opens the file anew, after it was moved away.
    ///
    /// # Errors
    /// It cannot be opened; the old one goes on being written to.
    pub fn reopen(&self) -> io::Result<()> {
        if let LogTarget::File(path) = &self.target {
            let file = open(path).map_err(|error| {
                io::Error::new(error.kind(), format!("error_log {}: {error}", path.display()))
            })?;
            *self.file.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
        }
        Ok(())
    }
}

impl Write for ErrorLogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &self.target {
            LogTarget::Stdout => io::stdout().lock().write(bytes),
            LogTarget::Stderr => io::stderr().lock().write(bytes),
            LogTarget::File(_) => match &mut *self.file.lock().unwrap_or_else(PoisonError::into_inner) {
                Some(file) => file.write(bytes),
                None => Ok(bytes.len()),
            },
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
