//! The servers of a group: what each has to do, how it has done so far, and what that means for its turns.

use std::cmp::Ordering;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::time::Instant;

use super::hash::{Ring, Seeds};
use super::rota::Rota;
use crate::config::{Balance, Upstream, UpstreamAddress, UpstreamServer};

/// A rota for more different weights than these costs no less than to go through the servers.
const MOST_WEIGHTS: usize = 8;

/// The servers that a group has at one moment: names are resolved.
#[derive(Debug)]
pub struct Members {
    /// The group, with these servers.
    pub upstream: Upstream,
    members: Vec<Arc<Member>>,
    /// Those that have gone, of which some have requests and tunnels yet: an address may come back.
    gone: Vec<Weak<Member>>,
    turns: Mutex<Turns>,
    /// The places of the servers that are no backups, and of those that are.
    places: [Vec<usize>; 2],
    /// How far the weights of the first so many of those that are no backups add up.
    weights: Vec<u64>,
    /// Whether any server has a limit of what it may have to do.
    has_limits: bool,
    /// How many servers may be tried for one request.
    tries: usize,
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

/// The turns of all servers.
#[derive(Debug)]
pub(super) struct Turns {
    /// One for each server.
    each: Vec<Turn>,
    /// Whose turn it is while nothing is the matter with those that take part: it knows their `current` then.
    rota: Option<Rota>,
    /// When a server that is left alone, and takes no part in the rota, is to be tried again.
    until: Option<Instant>,
    /// Those that are equally good, while one of them is being chosen.
    equals: Vec<usize>,
}

/// What decides about a server's next turn. The words are those of
/// nginx's `ngx_http_upstream_rr_peer_t`, and so is what happens to them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    /// As configured.
    weight: i64,
    is_down: bool,
    /// Of the smooth weighted round robin: grows by the effective weight in each round that it takes part
    /// in, and falls by all of them when it is chosen.
    current: i64,
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
        let place = |(index, server): (usize, &UpstreamServer)| (index, server.is_backup);
        let (backups, primaries): (Vec<_>, Vec<_>) =
            upstream.servers.iter().enumerate().map(place).partition(|(_, is_backup)| *is_backup);
        let places = [primaries, backups].map(|some| some.into_iter().map(|(index, _)| index).collect());
        let sum = |sum: &mut u64, index: &usize| {
            *sum += u64::from(upstream.servers[*index].weight);
            Some(*sum)
        };
        let [primaries, _]: &[Vec<usize>; 2] = &places;
        let weights = primaries.iter().scan(0, sum).collect();
        let has_limits = upstream.servers.iter().any(|server| server.max_conns.is_some());
        let tries = upstream.servers.iter().filter(|server| !server.is_down).count();
        let turns = Mutex::new(Turns { each: turns, rota: None, until: None, equals: Vec::new() });
        Self { upstream, members, gone, turns, places, weights, has_limits, tries, ring, seeds }
    }

    /// Those that are no longer here, and still have something to do.
    fn gone(&self) -> Vec<Arc<Member>> {
        self.gone.iter().filter_map(Weak::upgrade).collect()
    }

    fn kept(&self, address: &UpstreamAddress, nth: usize) -> Option<(Arc<Member>, Turn)> {
        let same = |member: &&Arc<Member>| member.address == *address;
        let member = self.members.iter().filter(same).nth(nth)?;
        let index = self.members.iter().position(|other| Arc::ptr_eq(other, member))?;
        let mut turn = self.turns().each[index];
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
        self.tries
    }

    /// The places of the servers that are backups, or of those that are not.
    pub(super) fn places(&self, backups: bool) -> &[usize] {
        &self.places[usize::from(backups)]
    }

    /// The place of the server that a number stands for if each that is no backup has as many numbers as its weight
    /// says.
    pub(super) fn by_weight(&self, number: u32) -> usize {
        let total = self.weights.last().copied().unwrap_or_default();
        let rest = u64::from(number) % total.max(1);
        let nth = self.weights.partition_point(|sum| *sum <= rest);
        self.places(false).get(nth).copied().unwrap_or_default()
    }

    pub(super) fn turns(&self) -> MutexGuard<'_, Turns> {
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
        self.members[index].active.load(Relaxed)
    }

    /// Whether a server may be given a request.
    pub(super) fn is_open(&self, index: usize, turns: &Turns, now: Instant) -> bool {
        let (turn, server) = (&turns.each[index], &self.upstream.servers[index]);
        // What is in the turn comes first: of many servers it is what the cache has.
        if turn.is_down || turn.is_left_alone(server, now) {
            return false;
        }
        !self.has_limits || server.max_conns.is_none_or(|most| self.active(index) < most)
    }

    /// Gives the next turn among those of the servers that `may` take part which have the least `active / weight`.
    pub(super) fn next_of_least_loaded(
        &self,
        places: &[usize],
        turns: &mut Turns,
        may: impl Fn(usize, &Turns) -> bool,
    ) -> Option<usize> {
        let mut equals = std::mem::take(&mut turns.equals);
        let mut least: Option<Load> = None;
        equals.clear();
        for index in places.iter().copied() {
            // Loads fall at any moment: each is looked at once. First, because of most servers that is all.
            let load = Load { active: self.active(index), weight: turns.each[index].weight };
            let beside = least.map_or(Ordering::Less, |least| load.beside(least));
            if beside.is_gt() || !may(index, turns) {
                continue;
            }
            match beside {
                Ordering::Less => {
                    equals.clear();
                    least = Some(load);
                    equals.push(index);
                }
                Ordering::Equal => equals.push(index),
                Ordering::Greater => {}
            }
        }
        let chosen = turns.next_of(&equals, |_, _| true);
        turns.equals = equals;
        chosen
    }

    /// The first of two servers if it has less to do for its weight, else the second.
    pub(super) fn less_loaded(&self, turns: &Turns, first: usize, second: usize) -> usize {
        let load = |index: usize| Load { active: self.active(index), weight: turns.each[index].weight };
        if load(first).beside(load(second)).is_lt() { first } else { second }
    }

    /// Gives the next turn among all servers that are no backups.
    pub(super) fn next_in_turn(&self, turns: &mut Turns, now: Instant) -> Option<usize> {
        if turns.until.is_some_and(|until| now > until) {
            turns.leave_rota();
        }
        if turns.rota.is_none() {
            self.enter_rota(turns, now);
        }
        match &mut turns.rota {
            Some(rota) => rota.next(),
            None => turns.next_of(self.places(false), |index, turns| self.is_open(index, turns, now)),
        }
    }

    /// Has a rota give the turns from now on, unless a server is special: then each turn goes through all of them.
    fn enter_rota(&self, turns: &mut Turns, now: Instant) {
        if self.has_limits {
            return;
        }
        let (mut rota, mut until) = (Rota::default(), None::<Instant>);
        for index in self.places(false) {
            let (turn, server) = (&turns.each[*index], &self.upstream.servers[*index]);
            if server.is_down {
                continue;
            }
            match turn.left_alone_until(server) {
                None if turn.effective == turn.weight => rota.add(*index, turn.weight, turn.current),
                Some(due) if now <= due => until = Some(until.map_or(due, |until| until.min(due))),
                // Its weight grows with each turn, or it is due and takes part once.
                None | Some(_) => return,
            }
            if rota.weights() > MOST_WEIGHTS {
                return;
            }
        }
        (turns.rota, turns.until) = (Some(rota), until);
    }

    /// The only server, if it may be given a request; nothing has to be locked for it.
    pub(super) fn only(&self) -> Option<Lease> {
        let (member, server) = (&self.members[0], &self.upstream.servers[0]);
        if server.is_down {
            return None;
        }
        match server.max_conns {
            None => drop(member.active.fetch_add(1, Relaxed)),
            Some(most) => {
                let add = |active: usize| (active < most).then_some(active + 1);
                member.active.try_update(Relaxed, Relaxed, add).ok()?;
            }
        }
        Some(Lease { member: Arc::clone(member), index: 0 })
    }

    /// Gives a server a request. The turns are still locked, so that `max_conns` is exact.
    pub(super) fn lease(&self, index: usize, turns: &mut Turns, now: Instant) -> Lease {
        turns.each[index].watch(&self.upstream.servers[index], now);
        let member = Arc::clone(&self.members[index]);
        member.active.fetch_add(1, Relaxed);
        Lease { member, index }
    }

    /// Takes down that a server has failed a request; whether it will now be left alone.
    pub(super) fn failed(&self, index: usize, now: Instant) -> bool {
        !self.is_single() && self.turns().changing(index).fail(&self.upstream.servers[index], now)
    }

    /// Takes down that a server has answered.
    pub(super) fn answered(&self, index: usize) {
        if self.is_single() {
            return;
        }
        let mut turns = self.turns();
        if turns.each[index].fails > 0 {
            turns.changing(index).succeed();
        }
    }
}

impl Member {
    fn new(address: UpstreamAddress) -> Self {
        Self { address, active: AtomicUsize::new(0) }
    }
}

/// What a server has to do, for its weight.
#[derive(Clone, Copy)]
struct Load {
    active: usize,
    weight: i64,
}

impl Load {
    fn beside(self, other: Self) -> Ordering {
        if self.weight == other.weight {
            return self.active.cmp(&other.active);
        }
        let times = |load: Self, weight: i64| load.active as u128 * weight as u128;
        times(self, other.weight).cmp(&times(other, self.weight))
    }
}

impl Turns {
    /// Gives the next turn among servers: nginx's smooth weighted round robin over those that `may` take part.
    pub(super) fn next_of(&mut self, places: &[usize], may: impl Fn(usize, &Self) -> bool) -> Option<usize> {
        if let [only] = places {
            return may(*only, self).then(|| self.next_alone(*only));
        }
        self.leave_rota();
        let mut total = 0;
        let mut best: Option<usize> = None;
        for index in places.iter().copied() {
            if !may(index, self) {
                continue;
            }
            let turn = &mut self.each[index];
            turn.current += turn.effective;
            total += turn.effective;
            if turn.effective < turn.weight {
                turn.effective += 1;
            }
            if best.is_none_or(|best| self.each[index].current > self.each[best].current) {
                best = Some(index);
            }
        }
        self.each[best?].current -= total;
        best
    }

    /// The only server that takes part loses what it gains.
    fn next_alone(&mut self, index: usize) -> usize {
        let turn = &mut self.each[index];
        if turn.effective < turn.weight {
            turn.effective += 1;
        }
        index
    }

    /// A turn that is to become another one.
    fn changing(&mut self, index: usize) -> &mut Turn {
        self.leave_rota();
        &mut self.each[index]
    }

    fn leave_rota(&mut self) {
        self.until = None;
        for (index, current) in self.rota.take().iter().flat_map(Rota::currents) {
            self.each[index].current = current;
        }
    }

    #[cfg(test)]
    pub(super) fn effective(&self, index: usize) -> i64 {
        self.each[index].effective
    }
}

impl Turn {
    fn of(server: &UpstreamServer) -> Self {
        let weight = i64::from(server.weight);
        let is_down = server.is_down;
        Self { weight, is_down, current: 0, effective: weight, fails: 0, failed: None, checked: None }
    }

    /// As it goes on for the server in another configuration.
    fn under(self, server: &UpstreamServer) -> Self {
        let weight = i64::from(server.weight);
        Self { weight, is_down: server.is_down, current: 0, effective: self.effective.min(weight), ..self }
    }

    fn is_left_alone(&self, server: &UpstreamServer, now: Instant) -> bool {
        self.fails > 0 && self.left_alone_until(server).is_some_and(|due| now <= due)
    }

    /// When it is due, if it has failed as often as it may.
    fn left_alone_until(&self, server: &UpstreamServer) -> Option<Instant> {
        let has_failed = server.max_fails.is_some_and(|most| self.fails >= most.get());
        self.checked.filter(|_| has_failed).map(|checked| checked + server.fail_timeout)
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
        self.member.active.fetch_sub(1, Relaxed);
    }
}
