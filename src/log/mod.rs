//! Writes the one access line for each request, the two for each tunnel; the error log is beside it.

mod error_log;
mod journal;

pub use error_log::ErrorLogWriter;

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use crate::config::{AccessLog, Config, Escape, LogTarget};
use crate::routing::outcome::Late;
use crate::routing::values::{Values, verbatim};
use crate::routing::variables::{Part, Variable};

/// A worker hands its lines to the writer when it has this many bytes of them …
const FLUSH_AT: usize = 16 * 1024;
/// … or this long after the first of them.
const FLUSH_AFTER: Duration = Duration::from_millis(100);
/// Batches that may wait for a slow disk or a reader that has stopped; what comes then is dropped and
/// counted, because a line that cannot be written must not stop a request.
const WAITING_BATCHES: usize = 256;

/// The access logs of one worker.
#[derive(Debug)]
pub struct AccessLines {
    writer: LogWriter,
    /// Few: one for each `access_log` with another target or format.
    batches: RefCell<Vec<(LogTarget, Vec<u8>)>>,
}

/// Hands batches of lines to the thread that writes them.
#[derive(Clone, Debug)]
pub struct LogWriter {
    orders: SyncSender<Order>,
    shared: Arc<Shared>,
}

/// What the thread is told beside its orders, so that it can be told even while it is stuck.
#[derive(Debug, Default)]
struct Shared {
    /// Batches.
    dropped: AtomicU64,
    /// Whether the files are to be opened anew.
    is_reopening: AtomicBool,
}

#[derive(Debug)]
enum Order {
    Write(LogTarget, Vec<u8>),
    /// Look at what is shared.
    Wake,
    /// Answered when everything before it is written.
    Flush(SyncSender<()>),
}

impl LogWriter {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn start() -> io::Result<Self> {
        let (orders, received) = sync_channel(WAITING_BATCHES);
        let shared = Arc::<Shared>::default();
        let seen = Arc::clone(&shared);
        std::thread::Builder::new().name("access-log".into()).spawn(move || write_all(&received, &seen))?;
        Ok(Self { orders, shared })
    }

    /// Makes sure that every log file of a configuration can be written to.
    ///
    /// # Errors
    /// The first that cannot, with its path.
    pub fn check(config: &Config) -> io::Result<()> {
        let servers = config.servers.iter();
        let logs =
            servers.flat_map(|server| server.locations.iter().flat_map(|location| &*location.access_logs));
        for log in logs {
            if let LogTarget::File(path) = &log.target {
                open(path).map_err(|error| {
                    io::Error::new(error.kind(), format!("access_log {}: {error}", path.display()))
                })?;
            }
        }
        Ok(())
    }

    /// Opens the files anew, after they were moved away, before anything more is written. Does not wait
    /// for it.
    pub fn reopen(&self) {
        self.shared.is_reopening.store(true, Ordering::Relaxed);
        // If there is no room for it, there is an order at which the thread will look by itself.
        let _ = self.orders.try_send(Order::Wake);
    }

    /// Waits until everything handed over so far is written, for at most a second.
    pub fn flush(&self) {
        let (done, written) = sync_channel(1);
        if self.orders.try_send(Order::Flush(done)).is_ok() {
            let _ = written.recv_timeout(Duration::from_secs(1));
        }
    }

    fn write(&self, target: LogTarget, lines: Vec<u8>) {
        if let Err(TrySendError::Full(_)) = self.orders.try_send(Order::Write(target, lines)) {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn write_all(orders: &Receiver<Order>, shared: &Shared) {
    let mut files: HashMap<PathBuf, File> = HashMap::new();
    let mut warned = false;
    while let Ok(order) = orders.recv() {
        let reopened = match shared.is_reopening.swap(false, Ordering::Relaxed) {
            true => reopen_all(&mut files),
            false => Ok(()),
        };
        let written = match order {
            Order::Write(target, lines) => write_batch(&mut files, &target, &lines),
            Order::Wake => Ok(()),
            Order::Flush(done) => done.send(()).map_err(io::Error::other),
        };
        let lost = shared.dropped.swap(0, Ordering::Relaxed);
        match reopened.and(written) {
            Err(error) if !warned => {
                warned = true;
                tracing::error!(%error, "the access log cannot be written; requests go on without it");
            }
            Ok(()) if lost == 0 => warned = false,
            _ => {}
        }
        if lost > 0 {
            tracing::error!(batches = lost, "access lines were dropped: the log is written too slowly");
        }
    }
}

/// A file that cannot be opened anew is tried again with its next line.
fn reopen_all(files: &mut HashMap<PathBuf, File>) -> io::Result<()> {
    let paths: Vec<PathBuf> = files.drain().map(|(path, _)| path).collect();
    for path in paths {
        let file = open(&path)?;
        files.insert(path, file);
    }
    Ok(())
}

fn write_batch(files: &mut HashMap<PathBuf, File>, target: &LogTarget, lines: &[u8]) -> io::Result<()> {
    match target {
        LogTarget::Stdout => io::stdout().lock().write_all(lines).and_then(|()| io::stdout().flush()),
        LogTarget::Stderr => io::stderr().lock().write_all(lines),
        LogTarget::File(path) => {
            if !files.contains_key(path) {
                files.insert(path.clone(), open(path)?);
            }
            let result = files.get_mut(path).map_or(Ok(()), |file| file.write_all(lines));
            if result.is_err() {
                files.remove(path);
            }
            result
        }
    }
}

fn open(path: &PathBuf) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

impl AccessLines {
    /// For one worker.
    pub fn new(writer: LogWriter) -> Rc<Self> {
        Rc::new(Self { writer, batches: RefCell::default() })
    }

    /// Writes the line of a request, or the first one of a tunnel; `false` if it shall have none.
    pub fn request(self: &Rc<Self>, log: &AccessLog, values: &Values<'_>) -> bool {
        if let Some(condition) = &log.condition {
            let mut value = Vec::new();
            condition.write(&mut value, values, verbatim);
            if value.is_empty() || value == b"0" {
                return false;
            }
        }
        self.line(&log.target, |out| {
            log.format.template.write(out, values, escape(log.format.escape));
            suffix(out, log, &values.outcome.late);
        });
        true
    }

    /// Keeps of a tunnel's line what is known already; the rest is filled in at its end.
    pub fn prepare(log: &Arc<AccessLog>, values: &Values<'_>) -> Prepared {
        let escape = escape(log.format.escape);
        let mut parts: Vec<PreparedPart> = Vec::new();
        for part in log.format.template.parts() {
            match part {
                Part::Literal(text) => push_text(&mut parts, text.as_bytes()),
                Part::Variable(variable) if Late::default().write(variable, &mut Vec::new()) => {
                    parts.push(PreparedPart::Late(variable.clone()));
                }
                Part::Variable(variable) => {
                    let (mut value, mut text) = (Vec::new(), Vec::new());
                    values.write(variable, &mut value);
                    escape(&mut text, &value);
                    push_text(&mut parts, &text);
                }
            }
        }
        Prepared { log: Arc::clone(log), parts: parts.into_boxed_slice() }
    }

    /// Writes the second line of a tunnel.
    pub fn end(self: &Rc<Self>, prepared: &Prepared, late: &Late) {
        let log = &prepared.log;
        self.line(&log.target, |out| {
            for part in &prepared.parts {
                match part {
                    PreparedPart::Text(text) => out.extend_from_slice(text),
                    PreparedPart::Late(variable) => {
                        let mut value = Vec::new();
                        late.write(variable, &mut value);
                        escape(log.format.escape)(out, &value);
                    }
                }
            }
            suffix(out, log, late);
        });
    }

    /// Hands everything to the writer.
    pub fn flush(&self) {
        for (target, lines) in self.batches.borrow_mut().drain(..) {
            if !lines.is_empty() {
                self.writer.write(target, lines);
            }
        }
    }

    fn line(self: &Rc<Self>, target: &LogTarget, write: impl FnOnce(&mut Vec<u8>)) {
        let mut batches = self.batches.borrow_mut();
        let index = match batches.iter().position(|(known, _)| known == target) {
            Some(index) => index,
            None => {
                batches.push((target.clone(), Vec::new()));
                batches.len() - 1
            }
        };
        let batch = &mut batches[index].1;
        let is_first = batch.is_empty();
        write(batch);
        batch.push(b'\n');
        if batch.len() >= FLUSH_AT {
            self.writer.write(target.clone(), std::mem::take(batch));
        } else if is_first {
            let lines = Rc::clone(self);
            tokio::task::spawn_local(async move {
                tokio::time::sleep(FLUSH_AFTER).await;
                lines.flush();
            });
        }
    }
}

/// The second line of a tunnel, as far as it was known when the tunnel began.
#[derive(Debug)]
pub struct Prepared {
    log: Arc<AccessLog>,
    parts: Box<[PreparedPart]>,
}

#[derive(Debug)]
enum PreparedPart {
    Text(Box<[u8]>),
    Late(Variable),
}

fn push_text(parts: &mut Vec<PreparedPart>, text: &[u8]) {
    if let Some(PreparedPart::Text(last)) = parts.last_mut() {
        *last = [last, text].concat().into_boxed_slice();
    } else {
        parts.push(PreparedPart::Text(text.into()));
    }
}

/// A tunnel's lines say so in every format: where the format itself does not, it stands behind.
fn suffix(out: &mut Vec<u8>, log: &AccessLog, late: &Late) {
    let Some(tunnel) = &late.tunnel else { return };
    if log.format.escape == Escape::Json || log.format.template.mentions(|v| *v == Variable::TunnelId) {
        return;
    }
    // Writing to a Vec cannot fail.
    let _ = match tunnel.end {
        None => write!(out, " tunnel={} start", tunnel.id),
        Some(cause) => write!(
            out,
            " tunnel={} end cause={cause} sent={} received={} duration={}.{:03}",
            tunnel.id,
            late.body_sent,
            late.received,
            late.duration.as_secs(),
            late.duration.subsec_millis(),
        ),
    };
}

fn escape(kind: Escape) -> fn(&mut Vec<u8>, &[u8]) {
    match kind {
        Escape::Default => escape_default,
        Escape::Json => escape_json,
        Escape::None => escape_controls,
    }
}

/// nginx's default: nothing that a client sends can end a line or a quoted value.
fn escape_default(out: &mut Vec<u8>, value: &[u8]) {
    if value.is_empty() {
        out.push(b'-');
    }
    for &byte in value {
        match byte {
            b'"' | b'\\' | 0..=0x1f | 0x7f.. => hex(out, byte),
            _ => out.push(byte),
        }
    }
}

fn escape_controls(out: &mut Vec<u8>, value: &[u8]) {
    for &byte in value {
        if byte < b' ' || byte == 0x7f { hex(out, byte) } else { out.push(byte) }
    }
}

/// The inside of a JSON string, RFC 8259 §7; bytes that are not UTF-8 become U+FFFD.
fn escape_json(out: &mut Vec<u8>, value: &[u8]) {
    for character in String::from_utf8_lossy(value).chars() {
        match character {
            '"' | '\\' => out.extend_from_slice(&[b'\\', character as u8]),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            '\0'..='\u{1f}' => {
                let _ = write!(out, "\\u{:04x}", character as u32);
            }
            _ => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

fn hex(out: &mut Vec<u8>, byte: u8) {
    let _ = write!(out, "\\x{byte:02X}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_can_end_its_line_or_its_quotes() {
        for (kind, value, expected) in [
            (Escape::Default, "", "-"),
            (Escape::Default, "a\"b\\c\nd\u{e4}", "a\\x22b\\x5Cc\\x0Ad\\xC3\\xA4"),
            (Escape::None, "a\"\nb", "a\"\\x0Ab"),
            (Escape::Json, "a\"\\\n\u{1}\u{e4}", "a\\\"\\\\\\n\\u0001\u{e4}"),
        ] {
            let mut out = Vec::new();
            escape(kind)(&mut out, value.as_bytes());
            assert_eq!(String::from_utf8_lossy(&out), expected);
        }
    }
}
