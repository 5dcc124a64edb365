//! What connections share: with the whole process, and with their worker alone.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::Duration;

use crate::access::Passwords;
use crate::acme;
use crate::buffers::Buffers;
use crate::client::ClientInfo;
use crate::config::ClientLimits;
use crate::log::AccessLines;
use crate::server::limits::Connections;
use crate::server::spread::Workers;
use crate::server::tasks::Tasks;
use crate::state::State;
use crate::upstream::http2::Http2Pool;
use crate::upstream::pool::Pool;
use crate::upstream::resolve::Resolver;

/// What the workers of a process share.
#[derive(Debug, Default)]
pub struct Shared {
    /// The client connections.
    pub connections: Arc<Connections>,
    /// What is known of host names.
    pub resolver: Arc<Resolver>,
    /// What looks at passwords share.
    pub passwords: Passwords,
    /// The certificates that were ordered, for those who show them.
    pub certificates: Arc<acme::served::Served>,
    /// The challenges that wait for a CA to look.
    pub challenges: Arc<acme::challenges::Challenges>,
    /// How many tunnels there are; their connections are among those.
    pub tunnels: AtomicUsize,
    /// The number of the next client connection.
    pub next_connection: AtomicU64,
}

/// What the connections of one worker share.
#[derive(Debug)]
pub struct Local {
    state: RefCell<Arc<State>>,
    /// What the workers of the process share.
    pub shared: Arc<Shared>,
    /// Idle connections to upstreams.
    pub pool: RefCell<Pool>,
    /// Connections to upstreams in HTTP/2.
    pub http2: RefCell<Http2Pool>,
    is_sweeping: Cell<bool>,
    /// Borrowed while a task is being polled, never longer.
    pub buffers: RefCell<Buffers>,
    /// The access logs.
    pub lines: Rc<AccessLines>,
    /// The connections and tunnels.
    pub tasks: Rc<Tasks>,
    /// The worker that this is, and the others.
    pub workers: Workers,
}

impl Local {
    /// For one worker.
    pub fn new(state: Arc<State>, shared: Arc<Shared>, lines: Rc<AccessLines>, workers: Workers) -> Self {
        Self {
            state: RefCell::new(state),
            shared,
            pool: RefCell::default(),
            http2: RefCell::default(),
            is_sweeping: Cell::new(false),
            buffers: RefCell::default(),
            lines,
            tasks: Tasks::new(workers.load()),
            workers,
        }
    }

    /// The configuration in use.
    pub fn state(&self) -> Arc<State> {
        Arc::clone(&self.state.borrow())
    }

    /// The limits for what a client does between requests: those of the default server of its listener, also if
    /// a reload has taken that away.
    pub fn limits_of(&self, client: &ClientInfo, accepted_under: &State) -> Option<ClientLimits> {
        let state = self.state.borrow();
        let server = state.default_server(&client.listener);
        server.or_else(|| accepted_under.default_server(&client.listener)).map(|server| server.limits.clone())
    }

    /// Takes a new configuration into use, from the next request on.
    pub fn reload(&self, state: Arc<State>) {
        self.lines.flush();
        *self.state.borrow_mut() = state;
    }

    /// Closes idle upstream connections in time, for as long as there are any.
    pub fn sweep_pool(self: &Rc<Self>) {
        if self.is_sweeping.replace(true) {
            return;
        }
        let local = Rc::clone(self);
        tokio::task::spawn_local(async move {
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                let resolver = &local.shared.resolver;
                let is_empty = !local.pool.borrow_mut().sweep(resolver);
                if !local.http2.borrow_mut().sweep(resolver) && is_empty {
                    break;
                }
            }
            local.is_sweeping.set(false);
        });
    }
}
