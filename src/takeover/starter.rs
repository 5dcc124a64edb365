//! The process between a running one and the one that takes over from it.
//!
//! systemd waits for the end of its own children only (257): a main process that is the child of another one is killed at
//! `systemctl stop` before it has drained, and its failure is no reason for `Restart=`. Once this process is gone, the
//! one that it has started is a child of systemd.

use std::io::{self, Write as _};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use super::{Program, STARTER, VARIABLE};

/// Starts this program again and waits for it, if the environment says so: then this is the code to leave with.
pub fn start_if_told() -> Option<u8> {
    (std::env::var_os(VARIABLE)? == STARTER).then(|| {
        start().unwrap_or_else(|error| {
            // Nobody may be there to read it.
            let _ = writeln!(io::stderr(), "hopgate: it cannot be started again: {error}");
            1
        })
    })
}

/// As a shell says it: 128 more than the signal, if it was one that ended it.
fn start() -> io::Result<u8> {
    let program = Program::of_this_process()?;
    let status = Command::new(&program.path).args(&program.arguments).env(VARIABLE, "1").status()?;
    let code = status.code().or(status.signal().map(|signal| 128 + signal));
    Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}
