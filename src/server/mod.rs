//! Binds every listener, runs until told to stop, reloads, waits for what is in flight.

pub mod connection;
pub mod handshake;
pub mod health;
pub mod inherited;
pub mod limits;
pub mod listener;
mod proxied;
mod replace;
pub mod spread;
pub mod tasks;
pub mod watchdog;
pub mod worker;

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rustix::process::Signal;
use socket2::Socket;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::acme::Orders;
use crate::config::{Config, ListenAddress};
use crate::log::LogWriter;
use crate::shared::Shared;
use crate::state::State;
use crate::systemd::{Counts, Notifier, Passed};
use crate::takeover::{Outcome, Predecessor, Program, SocketName, Successor};
use crate::tls::server::TlsServers;
use crate::tls::watch::Watch;
use health::Health;
use inherited::{HEALTH, Inherited, LISTEN};
use listener::{Bound, ListenSocket, SocketFile, bind, check_apart, open, take_over, to_bind};
use replace::Heir;
use spread::Workers;
use watchdog::{Watchdog, counts};
use worker::Order;

/// How long the workers may take to obey an order that is waited for: none of them should need it.
const OBEYED_WITHIN: Duration = Duration::from_millis(500);

/// How long the workers may take to begin, before a predecessor is let go.
const STARTED_WITHIN: Duration = Duration::from_secs(10);

/// What the server is told: by signals, later by the admin socket.
#[derive(Debug)]
pub enum Control {
    /// Take this configuration, which has been checked, into use.
    Reload(Box<Config>),
    /// The reload that was begun is over: its configuration is wrong.
    ReloadRefused,
    /// Open the access logs anew.
    ReopenLogs,
    /// Start the program anew, hand the sockets over, then drain.
    Replace,
    /// What has become of the process that was started for that.
    Replaced(Outcome),
    /// Finish what was begun, then stop; before that, clients are served for `shutdown_delay`.
    Drain,
    /// That time is over.
    DelayEnded,
    /// Stop.
    Kill,
    /// A worker has drained, or could not run.
    WorkerEnded,
}

/// A server whose addresses are bound.
#[derive(Debug)]
pub struct Server {
    state: Arc<State>,
    shared: Arc<Shared>,
    writer: LogWriter,
    workers: usize,
    bound: Vec<Bound>,
    health: Vec<Bound>,
    passed: Passed,
    predecessor: Option<Predecessor>,
    /// How this process was started.
    program: io::Result<Program>,
    /// The sockets of the predecessor that are in use here.
    taken: Vec<SocketName>,
    notifier: Notifier,
    control: (mpsc::UnboundedSender<Control>, mpsc::UnboundedReceiver<Control>),
}

impl Server {
    /// Binds every address of a configuration, unless a socket on it was inherited. Nothing is accepted yet. `notifier`
    /// is told what becomes of the server, and so is a predecessor.
    ///
    /// # Errors
    /// An address that cannot be listened on, a passed socket that is not listened on, or an access log that cannot be
    /// written.
    pub fn bind(config: Config, mut inherited: Inherited, notifier: Notifier) -> io::Result<Self> {
        let server = Self::prepare(config, &mut inherited, notifier);
        match (server, inherited.predecessor) {
            (Ok(server), predecessor) => Ok(Self { predecessor, ..server }),
            (Err(error), None) => Err(error),
            (Err(error), Some(predecessor)) => Err(predecessor.failed(error)),
        }
    }

    fn prepare(config: Config, inherited: &mut Inherited, notifier: Notifier) -> io::Result<Self> {
        let available = || std::thread::available_parallelism().map_or(1, usize::from);
        let workers = config.workers.unwrap_or_else(available);
        LogWriter::check(&config)?;
        let shared = Arc::<Shared>::default();
        let tls = prepare_tls(&config, &shared, None)?;
        let passed = std::mem::take(&mut inherited.passed);
        passed.check_all_in(to_bind(&config.listeners))?;
        let mut taken: Vec<SocketName> = Vec::new();
        let mut take_or_bind = |purpose, address, workers| {
            let handed = inherited.take(purpose, address);
            let Some(first) = handed.first() else {
                return inherited.check_apart(address).and_then(|()| bind(address, workers));
            };
            taken.push(first.name.clone());
            take_over(address, handed, workers)
        };
        let listen = |address| {
            let bind = |address| take_or_bind(LISTEN, address, workers);
            open(address, &passed, &config.listeners, workers, bind)
        };
        let bound: Vec<_> = to_bind(&config.listeners).map(listen).collect::<io::Result<_>>()?;
        let bound: Vec<_> = bound.into_iter().flatten().collect();
        let health = config.health.iter().map(|address| take_or_bind(HEALTH, address, 1));
        let health: Vec<_> = health.collect::<io::Result<_>>()?;
        bound.iter().chain(&health).try_for_each(Bound::listen)?;
        // Of no use here: when the predecessor drains, nobody has them any more.
        inherited.bound.clear();
        let state = Arc::new(State::new(config, tls, None));
        shared.resolver.watch(&state.config.resolver, &state.groups);
        Ok(Self {
            bound,
            health,
            state,
            shared,
            writer: LogWriter::start()?,
            workers,
            passed,
            predecessor: None,
            program: Program::of_this_process(),
            taken,
            notifier,
            control: mpsc::unbounded_channel(),
        })
    }

    /// By which the server is told what to do while it runs.
    pub fn control(&self) -> mpsc::UnboundedSender<Control> {
        self.control.0.clone()
    }

    /// The addresses that are listened on, with the ports that the system gave.
    pub fn addresses(&self) -> impl Iterator<Item = &ListenAddress> {
        self.bound.iter().map(|bound| &bound.local)
    }

    /// The same of those where health checks are answered.
    pub fn health_addresses(&self) -> impl Iterator<Item = &ListenAddress> {
        self.health.iter().map(|bound| &bound.local)
    }

    /// How many workers there will be.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// Accepts and serves until told to stop. Blocks the thread.
    ///
    /// # Errors
    /// A worker cannot be started.
    pub fn run(mut self) -> io::Result<()> {
        let (predecessor, taken) = (self.predecessor.take(), std::mem::take(&mut self.taken));
        let (mut running, mut control) = match (Running::start(self), &predecessor) {
            (Err(error), Some(predecessor)) => return Err(predecessor.failed(error)),
            (started, _) => started?,
        };
        running.begin(predecessor, taken)?;
        while let Some(order) = control.blocking_recv() {
            match order {
                Control::Replace if running.is_stopping => warn_of_draining(),
                Control::Reload(_) | Control::ReloadRefused if running.heir.is_some() => {
                    running.pass_on(Signal::HUP)
                }
                Control::Reload(config) if running.successor.is_some() => running.waiting = Some(config),
                Control::Reload(config) => running.reload(*config),
                Control::ReloadRefused => running.notifier.reload_refused(counts(&running.shared)),
                Control::ReopenLogs => running.reopen_logs(),
                Control::Replace => running.replace(),
                Control::Replaced(outcome) => running.replaced(outcome),
                Control::Drain if running.is_replaced => {
                    if running.stops_too() {
                        break;
                    }
                }
                Control::Drain if running.is_stopping => break,
                Control::Drain => running.stop(),
                Control::DelayEnded => running.drain(Vec::new()),
                Control::Kill => break,
                Control::WorkerEnded if running.workers.iter().all(|worker| worker.has_ended()) => {
                    running.finish_probes();
                    break;
                }
                Control::WorkerEnded => {}
            }
        }
        running.end();
        Ok(())
    }
}

struct Running {
    state: Arc<State>,
    shared: Arc<Shared>,
    writer: LogWriter,
    workers: Vec<Worker>,
    /// Each worker holds the other end for as long as it runs.
    running: Receiver<Infallible>,
    listening: Vec<Listening>,
    health: Health,
    /// A signal has ended it: from then on it may wait for `shutdown_delay`.
    is_stopping: bool,
    is_draining: bool,
    /// It drains, and was not told to: another process has taken over.
    is_replaced: bool,
    /// How this process was started.
    program: io::Result<Program>,
    /// A process that is to take over, and is not ready yet.
    successor: Option<Successor>,
    /// A reload that waits for what becomes of that.
    waiting: Option<Box<Config>>,
    /// Whether logs were reopened meanwhile.
    has_reopened: bool,
    /// The process that has taken over.
    heir: Option<Heir>,
    /// Over the files of certificates.
    watch: Watch,
    /// Once a certificate is to be ordered.
    orders: Option<Orders>,
    passed: Passed,
    notifier: Notifier,
    control: mpsc::UnboundedSender<Control>,
    _watchdog: Watchdog,
}

/// An address that is listened on.
struct Listening {
    /// As configured.
    address: ListenAddress,
    /// Where it really is.
    local: ListenAddress,
    /// Before the copies, as before all sockets.
    file: Option<SocketFile>,
    /// Of its sockets, for a process that takes over.
    copies: Vec<Socket>,
}

struct Worker {
    orders: mpsc::UnboundedSender<Order>,
}

impl Worker {
    /// Its end of the orders is gone with it.
    fn has_ended(&self) -> bool {
        self.orders.is_closed()
    }
}

impl Running {
    fn start(server: Server) -> io::Result<(Self, mpsc::UnboundedReceiver<Control>)> {
        let Server {
            state,
            shared,
            writer,
            workers: count,
            bound,
            health,
            passed,
            program,
            notifier,
            control,
            ..
        } = server;
        let (ended, control) = control;
        let mut listening = Vec::new();
        let sockets = hand_out(bound, count, &mut listening);
        let (runs, running) = channel();
        let (workers, received): (Vec<_>, Vec<_>) = (0..count).map(|_| mpsc::unbounded_channel()).unzip();
        let spread = Workers::all(&workers).into_iter().zip(received);
        for (index, (sockets, one)) in sockets.into_iter().zip(spread).enumerate() {
            let (state, shared, writer) = (Arc::clone(&state), Arc::clone(&shared), writer.clone());
            let (runs, ended) = (runs.clone(), ended.clone());
            std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
                if let Err(error) = worker::run(state, shared, writer, sockets, one) {
                    tracing::error!(worker = index, %error, "a worker cannot run");
                }
                drop(runs);
                // Nobody is left to tell once the server has stopped.
                let _ = ended.send(Control::WorkerEnded);
            })?;
        }
        let workers: Vec<_> = workers.into_iter().map(|orders| Worker { orders }).collect();
        let watch = Watch::start(state.tls.identities())?;
        let told: Vec<_> = workers.iter().map(|worker: &Worker| worker.orders.clone()).collect();
        let health = Health::start(health, told.clone())?;
        let watchdog = Watchdog::start(notifier.clone(), Arc::clone(&shared), told)?;
        let running = Self {
            state,
            shared,
            writer,
            workers,
            running,
            listening,
            health,
            is_stopping: false,
            is_draining: false,
            is_replaced: false,
            program,
            successor: None,
            waiting: None,
            has_reopened: false,
            heir: None,
            watch,
            orders: None,
            passed,
            notifier,
            control: ended,
            _watchdog: watchdog,
        };
        Ok((running, control))
    }

    /// Is the service from here on.
    ///
    /// # Errors
    /// The workers do not accept, and there is a predecessor that does.
    fn begin(&mut self, predecessor: Option<Predecessor>, taken: Vec<SocketName>) -> io::Result<()> {
        if let Some(predecessor) = predecessor {
            let workers: Vec<_> = self.workers.iter().map(|worker| worker.orders.clone()).collect();
            let silent = watchdog::silent(&workers, STARTED_WITHIN, false);
            if !silent.is_empty() {
                let why = format!("the workers {silent:?} of the new process cannot run");
                return Err(predecessor.failed(io::Error::other(why)));
            }
            let pid = predecessor.pid;
            match predecessor.ready(taken) {
                Ok(()) => tracing::info!("taken over from process {pid}, which drains"),
                // Killed, perhaps. Its sockets are here.
                Err(error) => tracing::warn!("serving without a word from process {pid}: {error}"),
            }
            // The predecessor's last word may be old, and the watchdog of this process has said nothing that counts yet.
            self.notifier.alive();
        }
        // Only now: what a CA asks comes to the process that has ordered.
        self.start_orders();
        self.notifier.ready(counts(&self.shared));
        Ok(())
    }

    fn reload(&mut self, config: Config) {
        if self.is_stopping {
            warn_of_draining();
            return self.notifier.reload_refused(counts(&self.shared));
        }
        match self.take_over(config) {
            Ok(()) => {
                tracing::info!("configuration reloaded");
                self.notifier.reloaded(counts(&self.shared));
            }
            Err(error) => {
                tracing::error!("reload refused, the old configuration stays: {error}");
                self.notifier.reload_refused(counts(&self.shared));
            }
        }
    }

    /// Binds what is new first: if that fails nothing has changed.
    fn take_over(&mut self, config: Config) -> io::Result<()> {
        LogWriter::check(&config)?;
        let tls = prepare_tls(&config, &self.shared, Some(&self.state.tls))?;
        let (added, probed) = (self.bind_new(&config)?, self.health.bind_new(&config)?);
        for bound in &probed {
            tracing::info!("health checks are answered on {}", bound.local);
        }
        self.health.reload(&config, probed)?;
        if config.workers.is_some_and(|wanted| wanted != self.workers.len()) {
            tracing::warn!("`workers` has changed: that takes a restart");
        }
        if config.error_log != self.state.config.error_log {
            tracing::warn!("`error_log` has changed: that takes a restart");
        }
        let (kept, removed): (Vec<_>, Vec<_>) = self
            .listening
            .drain(..)
            .partition(|known| to_bind(&config.listeners).any(|address| *address == known.address));
        self.listening = kept;
        // The files of those that went are removed here, before their sockets are closed.
        let removed: Vec<_> = removed.into_iter().map(|gone| gone.address).collect();
        self.state = Arc::new(State::new(config, tls, Some(&self.state)));
        self.shared.resolver.watch(&self.state.config.resolver, &self.state.groups);
        self.watch.over(self.state.tls.identities());
        self.order_anew();
        for bound in &added {
            tracing::info!("listening on {}", bound.local);
        }
        let sockets = hand_out(added, self.workers.len(), &mut self.listening);
        let (holds, held) = channel::<Infallible>();
        for (worker, added) in self.workers.iter().zip(sockets) {
            let (state, removed, until_obeyed) = (Arc::clone(&self.state), removed.clone(), holds.clone());
            // A worker that is gone has said why.
            let _ = worker.orders.send(Order::Reload { state, added, removed, until_obeyed });
        }
        drop(holds);
        // Until the sockets that went are closed, the next reload could not bind their addresses again.
        let _ = held.recv_timeout(OBEYED_WITHIN);
        Ok(())
    }

    fn bind_new(&self, config: &Config) -> io::Result<Vec<Bound>> {
        self.passed.check_all_in(to_bind(&config.listeners))?;
        let is_new = |address: &&ListenAddress| self.listening.iter().all(|known| known.address != **address);
        let bind_apart = |address| {
            self.listening.iter().try_for_each(|known| check_apart(address, &known.local))?;
            let workers = self.workers.len();
            open(address, &self.passed, &config.listeners, workers, |address| bind(address, workers))
        };
        let new = to_bind(&config.listeners).filter(is_new);
        let bound: Vec<_> = new.map(bind_apart).collect::<io::Result<_>>()?;
        let bound: Vec<_> = bound.into_iter().flatten().collect();
        bound.iter().try_for_each(Bound::listen)?;
        Ok(bound)
    }

    /// What has failed before the start waits for its time.
    fn start_orders(&mut self) {
        match Orders::start(&self.state.config, &self.shared) {
            Ok(orders) => self.orders = orders,
            Err(error) => tracing::error!(%error, "certificates cannot be ordered"),
        }
    }

    /// What has failed before a reload is tried again at once.
    fn order_anew(&mut self) {
        if self.orders.is_none() {
            self.start_orders();
        }
        if let Some(orders) = &self.orders {
            orders.tend(&self.state.config);
        }
    }

    fn reopen_logs(&mut self) {
        for worker in &self.workers {
            let _ = worker.orders.send(Order::FlushLogs);
        }
        self.writer.reopen();
        tracing::info!("logs reopened");
        self.has_reopened = self.successor.is_some();
        if self.heir.is_some() {
            self.pass_on(Signal::USR1);
        }
    }

    /// Begins with what makes others send no more clients, and gives them the time to notice.
    fn stop(&mut self) {
        self.is_stopping = true;
        // One that is not ready by now is not to be.
        self.successor = None;
        self.health.stopping();
        self.notifier.stopping(counts(&self.shared));
        let delay = self.state.config.shutdown_delay;
        if delay.is_zero() {
            return self.drain(Vec::new());
        }
        tracing::info!("stopping: clients are served for another {delay:?}, then it drains");
        let control = self.control.clone();
        let waiting = std::thread::Builder::new().name("shutdown-delay".into()).spawn(move || {
            std::thread::sleep(delay);
            // The server may have been told to end at once meanwhile.
            let _ = control.send(Control::DelayEnded);
        });
        if waiting.is_err() {
            self.drain(Vec::new());
        }
    }

    /// What waits on the addresses that are `left` is another process's to accept.
    fn drain(&mut self, left: Vec<ListenAddress>) {
        self.is_draining = true;
        // A successor orders by itself.
        self.orders = None;
        // Removes the files of Unix-domain sockets: from now on they are a successor's to bind.
        for Listening { address, file, .. } in self.listening.drain(..) {
            if left.contains(&address)
                && let Some(file) = file
            {
                file.leave();
            }
        }
        let until = Instant::now() + self.state.config.shutdown_timeout;
        let Counts { connections, tunnels } = counts(&self.shared);
        let timeout = self.state.config.shutdown_timeout;
        tracing::info!(connections, tunnels, "draining, for at most {timeout:?}");
        for worker in &self.workers {
            let _ = worker.orders.send(Order::Drain { until, left: left.clone() });
        }
    }

    /// Answers whoever has asked here whether the service is well, which it is. Without a successor nobody is told so.
    fn finish_probes(&mut self) {
        if self.is_replaced {
            self.health.finish();
        }
    }

    fn end(mut self) {
        if !self.is_stopping {
            self.notifier.stopping(counts(&self.shared));
        }
        self.listening.clear();
        for worker in &self.workers {
            // A worker that has drained is gone.
            let _ = worker.orders.send(Order::Kill);
        }
        // The last lines of the access log are theirs to hand over.
        let _ = self.running.recv_timeout(OBEYED_WITHIN);
        self.writer.flush();
    }
}

fn warn_of_draining() {
    tracing::warn!("a signal was not obeyed: hopgate is stopping");
}

/// Has something to show for every certificate that is ordered, and puts the rules of servers to use.
///
/// # Errors
/// The store of those that are ordered cannot be written, or something cannot be made.
fn prepare_tls(config: &Config, shared: &Shared, previous: Option<&TlsServers>) -> io::Result<TlsServers> {
    if let Some(acme) = &config.acme {
        shared.certificates.prepare(acme)?;
    }
    TlsServers::new(config, &shared.certificates, previous)
}

/// Deals the sockets of addresses out to workers, at least one of each address to each worker.
fn hand_out(
    bound: Vec<Bound>,
    workers: usize,
    listening: &mut Vec<Listening>,
) -> Vec<Vec<(ListenAddress, ListenSocket)>> {
    let mut hands: Vec<Vec<_>> = (0..workers).map(|_| Vec::new()).collect();
    for Bound { address, local, file, sockets, copies } in bound {
        for (place, socket) in sockets.into_iter().enumerate() {
            hands[place % workers].push((address.clone(), socket));
        }
        listening.push(Listening { address, local, file, copies });
    }
    hands
}
