//! The error log: where `tracing` writes to.

use std::fs::File;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use super::{journal, open};
use crate::config::{ErrorLog, LogTarget};

/// The bytes of lines that may wait for a slow disk or a reader that has stopped; what comes then is
/// dropped and counted, because a line that cannot be written must stop neither a request nor a signal.
const MOST_WAITING: usize = 1 << 20;

/// How long the last lines may take at the end of the process.
const FLUSH_WITHIN: Duration = Duration::from_secs(1);

/// The error log of the process. Its lines are written by a thread of their own, in their order.
#[derive(Clone, Debug)]
pub struct ErrorLogWriter {
    target: LogTarget,
    queue: Arc<Queue>,
}

/// The lines between those who say them and the thread that writes them.
#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: Vec<u8>,
    /// How many did not find room.
    lost: u64,
    /// Opened anew: what is written from now on goes there.
    file: Option<File>,
    /// Whether the thread has lines in hand that are not written yet.
    is_writing: bool,
}

/// What h2 has to say of a flood is said here already, once and with the number of the connection; and whoever sends
/// packets that no name server was asked for must not fill the log.
const QUIET: &str = "h2=error,hickory_net=error,hickory_proto=error,hickory_resolver=error";

impl ErrorLogWriter {
    /// Sends what `tracing` is told to the error log, from the level of the configuration on or as
    /// `RUST_LOG` says. Once in a process.
    ///
    /// # Errors
    /// The file cannot be opened, or the system has no thread to give.
    pub fn install(config: &ErrorLog) -> io::Result<Self> {
        let writer = Self { target: config.target.clone(), queue: Arc::default() };
        writer.reopen()?;
        let said = std::env::var_os(EnvFilter::DEFAULT_ENV);
        let is_known = said.as_ref().and_then(|said| said.to_str()).is_some_and(names_levels);
        let wanted = EnvFilter::try_from_default_env().ok().filter(|_| is_known);
        let is_misunderstood = wanted.is_none() && said.is_some_and(|said| !said.is_empty());
        let filter = wanted.unwrap_or_else(|| EnvFilter::new(format!("{},{QUIET}", config.level)));
        let is_terminal =
            matches!(config.target, LogTarget::Stderr) && io::IsTerminal::is_terminal(&io::stderr());
        let lines = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(is_terminal && std::env::var_os("NO_COLOR").is_none())
            .with_target(false)
            .with_writer(Arc::clone(&writer.queue));
        let installed = match matches!(config.target, LogTarget::Stderr) && journal::is_stderr() {
            true => lines.event_format(journal::JournalFormat::new()).try_init(),
            false => lines.try_init(),
        };
        installed.map_err(io::Error::other)?;
        let (queue, target) = (Arc::clone(&writer.queue), config.target.clone());
        std::thread::Builder::new().name("error-log".into()).spawn(move || queue.write_all(&target))?;
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
            self.queue.waiting().file = Some(file);
        }
        Ok(())
    }

    /// Waits until everything said so far is written, for at most a second: nobody may be reading.
    pub fn flush(&self) {
        let is_busy = |waiting: &mut Waiting| waiting.is_writing || !waiting.lines.is_empty();
        // Written or not, there is nothing more to wait for.
        let _ = self.queue.changed.wait_timeout_while(self.queue.waiting(), FLUSH_WITHIN, is_busy);
    }
}

/// Whether every word of `RUST_LOG` that stands alone is a level. `tracing` takes any other for the name of a part of
/// a program, and `wran` for the wish to hear of nothing else: no error would ever be told.
fn names_levels(said: &str) -> bool {
    // An empty word is a level to `tracing`, `error`.
    let is_level = |word: &str| !word.is_empty() && word.parse::<LevelFilter>().is_ok();
    said.split(',')
        .map(str::trim)
        .all(|word| word.contains(['=', '[']) || word == "hopgate" || is_level(word))
}

impl Queue {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what comes, for as long as the process lives.
    fn write_all(&self, target: &LogTarget) {
        let mut file = None;
        loop {
            let mut waiting = self.waiting();
            waiting.is_writing = false;
            self.changed.notify_all();
            let is_idle = |waiting: &mut Waiting| waiting.lines.is_empty();
            let mut waiting =
                self.changed.wait_while(waiting, is_idle).unwrap_or_else(PoisonError::into_inner);
            waiting.is_writing = true;
            let (lines, lost) = (std::mem::take(&mut waiting.lines), std::mem::take(&mut waiting.lost));
            file = waiting.file.take().or(file);
            // Whoever has something to say while this batch is written does not wait for it.
            drop(waiting);
            // When the error log fails there is nowhere left to tell it.
            let _ = match (target, &mut file) {
                (LogTarget::Stdout, _) => io::stdout().lock().write_all(&lines),
                (LogTarget::Stderr, _) => io::stderr().lock().write_all(&lines),
                (LogTarget::File(_), Some(file)) => file.write_all(&lines),
                (LogTarget::File(_), None) => Ok(()),
            };
            if lost > 0 {
                tracing::error!(lines = lost, "lines were dropped here: the error log is written too slowly");
            }
        }
    }
}

/// Takes a line, or drops it; never waits for the log itself.
impl Write for &Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut waiting = self.waiting();
        if waiting.lines.len() + line.len() > MOST_WAITING {
            waiting.lost += 1;
        } else {
            waiting.lines.extend_from_slice(line);
            self.changed.notify_all();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_level_is_no_filter() {
        for right in ["debug", "WARN", "off", "hopgate", "info,h2=debug", "hopgate[x]=trace, error"] {
            assert!(names_levels(right), "{right}");
        }
        for wrong in ["wran", "", "info,blah", "warning"] {
            assert!(!names_levels(wrong), "{wrong}");
        }
    }
}
