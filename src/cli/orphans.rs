//! What process 1 of a container owes the others: to let go of those that have ended.
//!
//! A process whose parent is gone becomes a child of process 1 (wait(2)), as what `docker exec` or a probe has left
//! behind. When it ends, it stays as a zombie, and in the limit of processes, until its parent has asked how it ended.

use std::future::pending;
use std::io;

use rustix::process::{WaitOptions, waitpid};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The first process of a container, or of a machine.
const INIT: u32 = 1;

/// Those that process 1 has been left with. Any other process has none, and its children are left alone.
pub(super) struct Orphans {
    ended: Option<Signal>,
}

impl Orphans {
    /// Of this process; inside of a runtime.
    ///
    /// # Errors
    /// The signal cannot be received.
    pub(super) fn of_this_process() -> io::Result<Self> {
        let ended = (std::process::id() == INIT).then(|| signal(SignalKind::child())).transpose()?;
        Ok(Self { ended })
    }

    /// Lets go of each as it ends. It never returns; it can be dropped and asked for again at any time.
    pub(super) async fn release(&mut self) {
        let Some(ended) = &mut self.ended else { return pending().await };
        loop {
            // Before the first signal, too: whatever was there before `exec` may have ended by then. One signal may
            // stand for several of them.
            while let Ok(Some(_)) = waitpid(None, WaitOptions::NOHANG) {}
            if ended.recv().await.is_none() {
                return pending().await;
            }
        }
    }
}
