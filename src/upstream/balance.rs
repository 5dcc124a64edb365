//! The servers of a group: what each has to do, how it has done so far, and what that means for its turns.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::time::Instant;

use super::hash::{Ring, Seeds};
use crate::config::{Balance, Upstream, UpstreamAddress, UpstreamServer};

/// The servers that a group has at one moment: names are resolved.
#[derive(Debug)]
pub struct Members {
    /// The group, with these servers.
    pub upstream: Upstream,
    members: Vec<Arc<Member>>,
    /// Those that have gone, of which some have requests and tunnels yet: an address may come back.
    gone: Vec<Weak<Member>>,
    /// One for each server.
    turns: Mutex<Vec<Turn>>,
    /// For a consistent hash.
    ring: Option<Ring>,
    /// For a rendezvous hash.
    seeds: Option<Seeds>,
}

/// A server and its load.
#[derive(Debug)]
pub struct Member {
    /// Where it is.
    pub address: UpstreamAddress,
    /// Requests and tunnels at this moment. Lives on over a reload, and while a name is without the address, so that
    /// neither `least_conn` nor `max_conns` forgets the tunnels.
    active: AtomicUsize,
}

/// What decides about a server's next turn. The words are those of
/// nginx's `ngx_http_upstream_rr_peer_t`, and so is what happens to them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    /// Of the smooth weighted round robin: grows by the effective weight in each round that it takes part
    /// in, and falls by all of them when it is chosen.
    pub current: i64,
    /// The weight as configured, or less after failures; then it grows by 1 each round.
    pub effective: i64,
    /// Failures since it was last known to be well.
    fails: u32,
    /// When it failed last.
    failed: Option<Instant>,
    /// Since when it is being watched: a server that fails often enough within its `fail_timeout` from then
    /// on is left alone for as long, and then tried by one request.
    checked: Option<Instant>,
}

/// A server that has been chosen: counted as its load until dropped.
#[derive(Debug)]
pub struct Lease {
    member: Arc<Member>,
    index: usize,
}

impl Members {
    /// Those of a group; `before` are those that it had until now, from which the load and the failures of servers
    /// that stay are taken over.
    pub(super) fn new(upstream: Upstream, before: Option<&Members>) -> Self {
        let (mut members, mut turns) = (Vec::new(), Vec::new());
        let mut gone = before.map_or_else(Vec::new, Members::gone);
        for (index, server) in upstream.servers.iter().enumerate() {
            // Of servers with one address the first stays the first.
            let nth =
                upstream.servers[..index].iter().filter(|other| other.address == server.address).count();
            let kept = before.and_then(|members| members.kept(&server.address, nth));
            let (member, turn) = kept.unwrap_or_else(|| {
                let place = gone.iter().position(|member| member.address == server.address);
                let new = || Arc::new(Member::new(server.address.clone()));
                (place.map_or_else(new, |place| gone.remove(place)), Turn::of(server))
            });
            members.push(member);
            turns.push(turn.under(server));
        }
        let is_consistent = matches!(upstream.balance, Balance::Hash { is_consistent: true, .. });
        let ring = is_consistent.then(|| Ring::new(&upstream.servers));
        let is_rendezvous = matches!(upstream.balance, Balance::Rendezvous { .. });
        let seeds = is_rendezvous.then(|| Seeds::new(&upstream.servers));
        let leaving = before.into_iter().flat_map(|before| &before.members);
        let leaving = leaving.filter(|member| !members.iter().any(|stays| Arc::ptr_eq(stays, member)));
        let gone = gone.iter().chain(leaving).map(Arc::downgrade).collect();
        Self { upstream, members, gone, turns: Mutex::new(turns), ring, seeds }
    }

    /// Those that are no longer here, and still have something to do.
    fn gone(&self) -> Vec<Arc<Member>> {
        self.gone.iter().filter_map(Weak::upgrade).collect()
    }

    fn kept(&self, address: &UpstreamAddress, nth: usize) -> Option<(Arc<Member>, Turn)> {
        let same = |member: &&Arc<Member>| member.address == *address;
        let member = self.members.iter().filter(same).nth(nth)?;
        let index = self.members.iter().position(|other| Arc::ptr_eq(other, member))?;
        let mut turn = self.turns()[index];
        if turn.effective == i64::from(self.upstream.servers[index].weight) {
            // All of the weight, whatever that will be.
            turn.effective = i64::MAX;
        }
        Some((Arc::clone(member), turn))
    }

    /// The place of the server that was chosen once; `None`: it is not among these.
    pub(super) fn index_of(&self, lease: &Lease) -> Option<usize> {
        self.members.iter().position(|member| Arc::ptr_eq(member, &lease.member))
    }

    /// Whether there is nothing to choose: then failures are not counted, because there is no other
    /// server that could be better.
    pub(super) fn is_single(&self) -> bool {
        self.members.len() == 1
    }

    /// How many servers may be tried for one request.
    pub fn tries(&self) -> usize {
        self.upstream.servers.iter().filter(|server| !server.is_down).count()
    }

    /// The places of the servers that are backups, or of those that are not.
    pub(super) fn places(&self, backups: bool) -> impl Iterator<Item = usize> {
        let servers = self.upstream.servers.iter().enumerate();
        servers.filter(move |(_, server)| server.is_backup == backups).map(|(index, _)| index)
    }

    pub(super) fn turns(&self) -> MutexGuard<'_, Vec<Turn>> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn ring(&self) -> Option<&Ring> {
        self.ring.as_ref()
    }

    pub(super) fn seeds(&self) -> Option<&Seeds> {
        self.seeds.as_ref()
    }

    /// Requests and tunnels that the server has at this moment.
    pub(super) fn active(&self, index: usize) -> usize {
        self.members[index].active.load(Ordering::Relaxed)
    }

    /// Whether a server may be given a request.
    pub(super) fn is_open(&self, index: usize, turn: &Turn, now: Instant) -> bool {
        let server = &self.upstream.servers[index];
        !server.is_down
            && !turn.is_left_alone(server, now)
            && server.max_conns.is_none_or(|most| self.active(index) < most)
    }

    /// The only server, if it may be given a request; nothing has to be locked for it.
    pub(super) fn only(&self) -> Option<Lease> {
        let (member, server) = (&self.members[0], &self.upstream.servers[0]);
        if server.is_down {
            return None;
        }
        match server.max_conns {
            None => drop(member.active.fetch_add(1, Ordering::Relaxed)),
            Some(most) => {
                let add = |active: usize| (active < most).then_some(active + 1);
                member.active.try_update(Ordering::Relaxed, Ordering::Relaxed, add).ok()?;
            }
        }
        Some(Lease { member: Arc::clone(member), index: 0 })
    }

    /// Gives a server a request. The turns are still locked, so that `max_conns` is exact.
    pub(super) fn lease(&self, index: usize, turns: &mut [Turn], now: Instant) -> Lease {
        turns[index].watch(&self.upstream.servers[index], now);
        let member = Arc::clone(&self.members[index]);
        member.active.fetch_add(1, Ordering::Relaxed);
        Lease { member, index }
    }

    /// Takes down that a server has failed a request; whether it will now be left alone.
    pub(super) fn failed(&self, index: usize, now: Instant) -> bool {
        !self.is_single() && self.turns()[index].fail(&self.upstream.servers[index], now)
    }

    /// Takes down that a server has answered.
    pub(super) fn answered(&self, index: usize) {
        if !self.is_single() {
            self.turns()[index].succeed();
        }
    }
}

impl Member {
    fn new(address: UpstreamAddress) -> Self {
        Self { address, active: AtomicUsize::new(0) }
    }
}

impl Turn {
    fn of(server: &UpstreamServer) -> Self {
        Self { current: 0, effective: i64::from(server.weight), fails: 0, failed: None, checked: None }
    }

    /// As it goes on for the server in another configuration.
    fn under(self, server: &UpstreamServer) -> Self {
        Self { current: 0, effective: self.effective.min(i64::from(server.weight)), ..self }
    }

    fn is_left_alone(&self, server: &UpstreamServer, now: Instant) -> bool {
        server.max_fails.is_some_and(|most| self.fails >= most.get()) && !self.is_due(server, now)
    }

    fn is_due(&self, server: &UpstreamServer, now: Instant) -> bool {
        self.checked.is_none_or(|checked| now.saturating_duration_since(checked) > server.fail_timeout)
    }

    fn watch(&mut self, server: &UpstreamServer, now: Instant) {
        if self.is_due(server, now) {
            self.checked = Some(now);
        }
    }

    fn fail(&mut self, server: &UpstreamServer, now: Instant) -> bool {
        self.fails += 1;
        self.failed = Some(now);
        self.checked = Some(now);
        let Some(most) = server.max_fails else { return false };
        self.effective = (self.effective - i64::from(server.weight / most.get())).max(0);
        self.fails >= most.get()
    }

    /// A server is well again when it has answered a request that was given to it after it was left alone.
    fn succeed(&mut self) {
        if self.failed < self.checked {
            self.fails = 0;
        }
    }
}

impl Lease {
    /// Where the server is.
    pub fn address(&self) -> &UpstreamAddress {
        &self.member.address
    }

    /// Its place in the group.
    pub fn index(&self) -> usize {
        self.index
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.member.active.fetch_sub(1, Ordering::Relaxed);
    }
}
