//! Collects the lines of a child's output in the background, and waits for one of them.

use std::io::{BufRead as _, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Instant;

use super::DEADLINE;

/// The lines read so far, shared with the thread that reads.
#[derive(Clone, Default)]
pub struct Lines(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    lines: Vec<String>,
    ended: bool,
}

impl Lines {
    /// Reads `source` to its end on a thread of its own.
    pub fn follow(source: impl Read + Send + 'static) -> Self {
        let lines = Self::default();
        let shared = lines.0.clone();
        thread::spawn(move || {
            for line in BufReader::new(source).split(b'\n').map_while(Result::ok) {
                shared.state.lock().unwrap().lines.push(String::from_utf8_lossy(&line).into_owned());
                shared.changed.notify_all();
            }
            shared.state.lock().unwrap().ended = true;
            shared.changed.notify_all();
        });
        lines
    }

    /// How many lines there are by now: a place to look on from.
    pub fn count(&self) -> usize {
        self.0.state.lock().unwrap().lines.len()
    }

    /// The first line at or after `from` that contains `pattern`; `None` if the output ended without one.
    pub fn find(&self, pattern: &str, from: usize) -> Option<String> {
        let deadline = Instant::now() + DEADLINE;
        let mut state = self.0.state.lock().unwrap();
        loop {
            if let Some(line) = state.lines.iter().skip(from).find(|line| line.contains(pattern)) {
                return Some(line.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if state.ended || left.is_zero() {
                return None;
            }
            state = self.0.changed.wait_timeout(state, left).unwrap().0;
        }
    }

    /// Like [`Lines::find`], and shows all lines if there was none.
    #[track_caller]
    pub fn expect(&self, pattern: &str, from: usize) -> String {
        self.find(pattern, from).unwrap_or_else(|| panic!("no line with {pattern:?} in:\n{}", self.all()))
    }

    /// Waits until the output has ended, that is, until the process is gone. Whether it did in time.
    pub fn wait_for_end(&self) -> bool {
        let deadline = Instant::now() + DEADLINE;
        let mut state = self.0.state.lock().unwrap();
        while !state.ended {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.0.changed.wait_timeout(state, left).unwrap().0;
        }
        true
    }

    pub fn all(&self) -> String {
        self.0.state.lock().unwrap().lines.join("\n")
    }

    /// Every line that contains `pattern` so far.
    pub fn matching(&self, pattern: &str) -> Vec<String> {
        let state = self.0.state.lock().unwrap();
        state.lines.iter().filter(|line| line.contains(pattern)).cloned().collect()
    }
}
