//! One core's runtime, with its own listeners, pools and tunnels: a request never changes its thread.

use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::config::ListenAddress;
use crate::log::{AccessLines, LogWriter};
use crate::server::listener::{Acceptor, ListenSocket};
use crate::server::tasks::Phase;
use crate::shared::{Local, Shared};
use crate::state::State;

/// What a worker is told.
#[derive(Debug)]
pub enum Order {
    /// Take a configuration into use: listen on these further sockets, and no longer on those addresses.
    Reload {
        /// The configuration.
        state: Arc<State>,
        /// The listeners that came.
        added: Vec<(ListenAddress, ListenSocket)>,
        /// The listeners that went.
        removed: Vec<ListenAddress>,
    },
    /// Stop accepting, finish what was begun, and be done by this time.
    Drain(Instant),
    /// Hand the access lines to the writer.
    FlushLogs,
}

/// How long tasks that were told to end now may take for it.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Runs a worker on the current thread until it has drained.
///
/// # Errors
/// The system gives no event queue, or cannot watch a listener.
pub fn run(
    state: Arc<State>,
    shared: Arc<Shared>,
    writer: LogWriter,
    sockets: Vec<(ListenAddress, ListenSocket)>,
    orders: mpsc::UnboundedReceiver<Order>,
) -> io::Result<()> {
    block_on(async move {
        let local = Rc::new(Local::new(state, shared, AccessLines::new(writer)));
        let mut worker = Worker { local, acceptors: HashMap::new() };
        for (address, socket) in sockets {
            worker.listen(address, socket)?;
        }
        worker.obey(orders).await;
        Ok(())
    })?
}

/// Runs a future on a runtime of its own.
fn block_on<T>(future: impl Future<Output = T>) -> io::Result<T> {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    let output = runtime.block_on(future);
    // Dropping it would wait for the lookup of a name that has begun, however long the system's resolver
    // takes.
    runtime.shutdown_background();
    Ok(output)
}

struct Worker {
    local: Rc<Local>,
    /// Dropping the sender stops the acceptor.
    acceptors: HashMap<ListenAddress, (oneshot::Sender<()>, tokio::task::JoinHandle<()>)>,
}

impl Worker {
    fn listen(&mut self, address: ListenAddress, socket: ListenSocket) -> io::Result<()> {
        let acceptor = Acceptor::new(socket, address.clone())?;
        let (stop, stopped) = oneshot::channel();
        let local = Rc::clone(&self.local);
        let task = tokio::task::spawn_local(acceptor.run(local, async move {
            // Told or dropped, either means the same.
            let _ = stopped.await;
        }));
        self.acceptors.insert(address, (stop, task));
        Ok(())
    }

    async fn obey(&mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        while let Some(order) = orders.recv().await {
            match order {
                Order::Reload { state, added, removed } => self.reload(state, added, removed),
                Order::FlushLogs => self.local.lines.flush(),
                Order::Drain(until) => {
                    self.drain(until).await;
                    break;
                }
            }
        }
        self.local.lines.flush();
    }

    fn reload(
        &mut self,
        state: Arc<State>,
        added: Vec<(ListenAddress, ListenSocket)>,
        removed: Vec<ListenAddress>,
    ) {
        self.local.reload(state);
        for (address, socket) in added {
            if let Err(error) = self.listen(address, socket) {
                tracing::error!(%error, "a worker cannot listen on an address that the reload added");
            }
        }
        for address in removed {
            self.acceptors.remove(&address);
        }
    }

    async fn drain(&mut self, until: Instant) {
        let stopped: Vec<_> = self.acceptors.drain().map(|(_, (_stop, task))| task).collect();
        for task in stopped {
            // It has ended, or has panicked, which has been told by then.
            let _ = task.await;
        }
        self.local.tasks.set_phase(Phase::Draining(until));
        self.local.pool.borrow_mut().clear();
        if tokio::time::timeout_at(until, self.local.tasks.ended()).await.is_err() {
            self.local.tasks.set_phase(Phase::Killed);
            let _ = tokio::time::timeout(LAST_WORDS, self.local.tasks.ended()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lookup_that_does_not_end_keeps_no_worker() {
        let (release, released) = std::sync::mpsc::channel::<()>();
        block_on(async move {
            let (begun, begins) = oneshot::channel();
            tokio::task::spawn_blocking(move || {
                begun.send(()).unwrap();
                // Until the other end is gone, which outlives the runtime.
                released.recv().unwrap_err();
            });
            begins.await.unwrap();
        })
        .unwrap();
        drop(release);
    }
}
