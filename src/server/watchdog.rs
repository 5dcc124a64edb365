//! Asks the workers whether they are alive, and tells systemd so.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;

use crate::server::worker::Order;
use crate::shared::Shared;
use crate::systemd::{Counts, Notifier};

/// How old the counts in `systemctl status` may be.
const COUNT_EVERY: Duration = Duration::from_secs(2);

/// Watches until dropped.
#[derive(Debug)]
pub struct Watchdog {
    _until: Option<Sender<()>>,
}

impl Watchdog {
    /// Starts the thread that asks the workers; none if nobody would hear of it.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn start(
        notifier: Notifier,
        shared: Arc<Shared>,
        workers: Vec<UnboundedSender<Order>>,
    ) -> io::Result<Self> {
        if !notifier.is_heard() {
            return Ok(Self { _until: None });
        }
        let (until, ended) = channel();
        std::thread::Builder::new()
            .name("watchdog".into())
            .spawn(move || watch(&notifier, &shared, &workers, &ended))?;
        Ok(Self { _until: Some(until) })
    }
}

/// What systemd is told about.
pub fn counts(shared: &Shared) -> Counts {
    Counts { connections: shared.connections.count(), tunnels: shared.tunnels.load(Ordering::Relaxed) }
}

fn watch(notifier: &Notifier, shared: &Shared, workers: &[UnboundedSender<Order>], ended: &Receiver<()>) {
    // sd_watchdog_enabled(3): twice as often as it has to be.
    let every = notifier.watchdog().map(|watchdog| watchdog / 2);
    let pause = every.map_or(COUNT_EVERY, |every| every.min(COUNT_EVERY));
    let mut told = Instant::now();
    let mut was_well = true;
    while ended.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
        notifier.counted(counts(shared));
        let Some(every) = every.filter(|every| pause == *every || told.elapsed() + pause > *every) else {
            continue;
        };
        told = Instant::now();
        let silent = silent(workers, every, notifier.is_stopping());
        if silent.is_empty() {
            notifier.alive();
        } else if was_well {
            tracing::error!(workers = ?silent, "workers do not answer: systemd is not told that all is well");
        }
        was_well = silent.is_empty();
    }
}

/// The workers that do not answer in time. Those that have ended are none of them if that is `allowed`.
pub(super) fn silent(workers: &[UnboundedSender<Order>], patience: Duration, allowed: bool) -> Vec<usize> {
    let (answer, answers) = channel();
    let mut silent: Vec<usize> = (0..workers.len()).collect();
    for (worker, orders) in workers.iter().enumerate() {
        let asked = orders.send(Order::Answer { worker, to: answer.clone() });
        if asked.is_err() && allowed {
            silent.retain(|waiting| *waiting != worker);
        }
    }
    // Those who hold the other copies are all that can answer.
    drop(answer);
    let deadline = Instant::now() + patience;
    while let Ok(worker) = answers.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        silent.retain(|waiting| *waiting != worker);
    }
    silent.retain(|&worker| !(allowed && workers[worker].is_closed()));
    silent
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    const PATIENCE: Duration = Duration::from_millis(50);

    fn answering(mut orders: UnboundedReceiver<Order>) {
        std::thread::spawn(move || {
            while let Some(Order::Answer { worker, to }) = orders.blocking_recv() {
                // Whoever has asked may have given up.
                let _ = to.send(worker);
            }
        });
    }

    #[test]
    fn a_worker_that_does_not_answer_is_named() {
        let (first, received) = unbounded_channel();
        answering(received);
        let (second, _stuck) = unbounded_channel();
        assert_eq!(silent(&[first.clone(), second], PATIENCE, false), [1]);
        assert_eq!(silent(&[first], Duration::from_secs(10), false), [0; 0]);
    }

    #[test]
    fn a_worker_that_has_ended_is_well_only_while_the_service_ends() {
        let (gone, received) = unbounded_channel();
        drop(received);
        assert_eq!(silent(std::slice::from_ref(&gone), PATIENCE, false), [0]);
        assert_eq!(silent(&[gone], PATIENCE, true), [0; 0]);
    }
}
