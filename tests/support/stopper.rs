//! A hopgate of which single threads can be stopped, as a bug in them would.

use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::Lines;

/// Stops single threads of a hopgate.
pub struct Stopper {
    child: Child,
    log: Lines,
}

impl Stopper {
    /// Runs hopgate with these arguments, and with these in its environment.
    pub fn start(args: &[&str], env: &[(&str, &str)]) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/apps/stop_thread.py");
        let mut child = Command::new("python3")
            .arg(script)
            .arg(env!("CARGO_BIN_EXE_hopgate"))
            .args(args)
            .env_remove("RUST_LOG")
            .envs(env.iter().copied())
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("this test needs python3: run tests/run, which installs what is missing");
        let log = Lines::follow(child.stderr.take().expect("stderr is piped"));
        Self { child, log }
    }

    /// `stop NAME` or `release NAME`, with the name of a thread.
    #[track_caller]
    pub fn tell(&mut self, order: &str) {
        let stdin = self.child.stdin.as_mut().expect("stdin is piped");
        writeln!(stdin, "{order}").expect("it reads its orders");
    }

    /// What hopgate logs.
    pub fn log(&self) -> &Lines {
        &self.log
    }
}

impl Drop for Stopper {
    fn drop(&mut self) {
        // The end of its input is the end of it and of what it has started.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
