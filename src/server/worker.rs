//! One core's runtime, with its own listeners, pools and tunnels: a request never changes its thread.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::config::ListenAddress;
use crate::log::{AccessLines, LogWriter};
use crate::server::listener::{Acceptor, ListenSocket, Rest, begin};
use crate::server::spread::{HandedOver, Workers};
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
        /// Dropped with the order, once all this is done.
        until_obeyed: Sender<Infallible>,
    },
    /// Stop accepting, finish what was begun.
    Drain {
        /// Be done by this time.
        until: Instant,
        /// Where another process accepts from the same sockets: what waits in their queues is for that one.
        left: Vec<ListenAddress>,
    },
    /// End at once, with what is to be said about it; also while draining.
    Kill,
    /// Serve a connection that another worker has accepted; also while draining.
    Serve(Box<HandedOver>),
    /// Hand the access lines to the writer.
    FlushLogs,
    /// Say that you are alive; also while draining.
    Answer {
        /// Which worker that is.
        worker: usize,
        /// Who wants to know.
        to: Sender<usize>,
    },
}

/// How long tasks that were told to end now may take for it.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// Runs a worker on the current thread until it has drained.
///
/// # Errors
/// The system gives no event queue, or cannot watch a listener.
pub fn run(
    state: Arc<State>,
    shared: Arc<Shared>,
    writer: LogWriter,
    sockets: Vec<(ListenAddress, ListenSocket)>,
    (workers, orders): (Workers, mpsc::UnboundedReceiver<Order>),
) -> io::Result<()> {
    block_on(async move {
        let local = Rc::new(Local::new(state, shared, AccessLines::new(writer), workers));
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
    // Dropping it would wait for what has begun outside of it, as the look at a password.
    runtime.shutdown_background();
    Ok(output)
}

struct Worker {
    local: Rc<Local>,
    /// Several for an address that is a name of systemd's, and after another process with more workers.
    acceptors: HashMap<ListenAddress, Vec<Accepting>>,
}

/// An acceptor at work.
struct Accepting {
    /// Stops the acceptor.
    stop: oneshot::Sender<Rest>,
    task: JoinHandle<()>,
}

impl Worker {
    fn listen(&mut self, address: ListenAddress, socket: ListenSocket) -> io::Result<()> {
        let acceptor = Acceptor::new(socket, address.clone())?;
        let (stop, stopped) = oneshot::channel();
        let local = Rc::clone(&self.local);
        let task =
            tokio::task::spawn_local(acceptor.run(local, async move { stopped.await.unwrap_or(Rest::Take) }));
        self.acceptors.entry(address).or_default().push(Accepting { stop, task });
        Ok(())
    }

    async fn obey(&mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        loop {
            match orders.recv().await {
                Some(Order::Reload { state, added, removed, until_obeyed }) => {
                    self.reload(state, added, removed).await;
                    drop(until_obeyed);
                }
                Some(Order::Serve(handed)) => self.serve(*handed),
                Some(Order::FlushLogs) => self.local.lines.flush(),
                Some(Order::Answer { worker, to }) => answer(worker, &to),
                Some(Order::Drain { until, left }) => break self.drain(until, &left, orders).await,
                Some(Order::Kill) | None => break self.kill().await,
            }
        }
        self.local.lines.flush();
    }

    async fn reload(
        &mut self,
        state: Arc<State>,
        added: Vec<(ListenAddress, ListenSocket)>,
        removed: Vec<ListenAddress>,
    ) {
        // Before the configuration that does not know them: their last connections are served under the one
        // that does.
        let removed = removed.iter().filter_map(|address| self.acceptors.remove(address));
        stop(removed.flatten().map(|accepting| (accepting, Rest::Take))).await;
        self.local.reload(state);
        for (address, socket) in added {
            if let Err(error) = self.listen(address, socket) {
                tracing::error!(%error, "a worker cannot listen on an address that the reload added");
            }
        }
    }

    async fn drain(
        &mut self,
        until: Instant,
        left: &[ListenAddress],
        mut orders: mpsc::UnboundedReceiver<Order>,
    ) {
        let acceptors = self.acceptors.drain().flat_map(|(address, acceptors)| {
            let rest = if left.contains(&address) { Rest::Leave } else { Rest::Take };
            acceptors.into_iter().map(move |accepting| (accepting, rest))
        });
        stop(acceptors).await;
        self.local.tasks.set_phase(Phase::Draining(until));
        self.local.pool.borrow_mut().clear();
        self.local.http2.borrow_mut().clear();
        let killed = async {
            loop {
                match orders.recv().await {
                    Some(Order::Kill) | None => break,
                    Some(Order::Answer { worker, to }) => answer(worker, &to),
                    Some(Order::Serve(handed)) => self.serve(*handed),
                    Some(Order::FlushLogs) => self.local.lines.flush(),
                    Some(Order::Reload { .. } | Order::Drain { .. }) => {}
                }
            }
        };
        tokio::select! {
            () = self.local.tasks.ended() => {}
            () = tokio::time::sleep_until(until) => return self.kill().await,
            () = killed => return self.kill().await,
        }
        self.serve_last(until, orders).await;
    }

    /// What another worker has handed over while this one had nothing left to wait for.
    async fn serve_last(&self, until: Instant, mut orders: mpsc::UnboundedReceiver<Order>) {
        orders.close();
        while let Some(order) = orders.recv().await {
            if let Order::Serve(handed) = order {
                self.serve(*handed);
            }
        }
        if tokio::time::timeout_at(until, self.local.tasks.ended()).await.is_err() {
            self.kill().await;
        }
    }

    fn serve(&self, handed: HandedOver) {
        if let Some(stream) = handed.socket.watched() {
            begin(&self.local, &handed.entrance, &handed.state, stream, handed.peer);
        }
    }

    /// Ends what there is, so that tunnels and requests can say how they ended.
    async fn kill(&self) {
        for accepting in self.acceptors.values().flatten() {
            accepting.task.abort();
        }
        self.local.tasks.set_phase(Phase::Killed);
        // What has not ended by then goes with the runtime.
        let _ = tokio::time::timeout(LAST_WORDS, self.local.tasks.ended()).await;
    }
}

fn answer(worker: usize, to: &Sender<usize>) {
    // Whoever has asked may have given up.
    let _ = to.send(worker);
}

/// Stops acceptors, and waits until they have taken what they are to take out of their queues.
async fn stop(acceptors: impl Iterator<Item = (Accepting, Rest)>) {
    let stopping: Vec<_> = acceptors
        .map(|(Accepting { stop, task }, rest)| {
            // One that has panicked does not hear it.
            let _ = stop.send(rest);
            task
        })
        .collect();
    for task in stopping {
        // It has ended, or has panicked, which has been told by then.
        let _ = task.await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_end_outside_of_it_keeps_no_worker() {
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
