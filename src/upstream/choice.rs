//! Chooses the servers for one request, one after the other, exactly as nginx does.

use tokio::time::Instant;

use super::balance::{Lease, Turns};
use super::group::{Current, Group};
use super::hash::{self, Score};
use crate::config::{Balance, UpstreamServer};

/// After so many rounds in which a hash or chance has led to a server that cannot be used, it is left to
/// the round robin.
const ROUNDS: u32 = 20;

/// The servers for one request. Each is given out once.
#[derive(Debug)]
pub struct Choice<'a> {
    whole: &'a Group,
    /// Its servers when the choice was begun.
    group: Current<'a>,
    /// What is hashed: the value of a key, or the bytes of an address.
    key: Vec<u8>,
    /// Whether it has come to the backups.
    backups: bool,
    tried: Tried,
    tries: usize,
    /// The sum, the seed, or the point on the ring that a hash goes on from.
    hash: u32,
    /// How often a number was made of the key.
    rehashed: u32,
    rounds: u32,
}

impl<'a> Choice<'a> {
    /// For a request with this `key`: for `hash` its value, for `ip_hash` the bytes of the client's address
    /// (three for IPv4, sixteen for IPv6). At most so many `tries` will be told to be left.
    pub fn new(whole: &'a Group, key: Vec<u8>, tries: Option<usize>) -> Self {
        let group = whole.current();
        let hash = match (&group.upstream.balance, group.ring()) {
            (Balance::IpHash, _) => hash::IP_SEED,
            (_, Some(ring)) => ring.start(&key),
            _ => 0,
        };
        let tries = tries.map_or(group.tries(), |most| most.min(group.tries()));
        let tried = Tried::default();
        Self { whole, group, key, backups: false, tried, tries, hash, rehashed: 0, rounds: 0 }
    }

    /// Begins anew if the group has other servers by now; whether it has.
    pub fn begin_anew(&mut self, tries: Option<usize>) -> bool {
        let is_other = !self.whole.is_current(&self.group);
        if is_other {
            *self = Self::new(self.whole, std::mem::take(&mut self.key), tries);
        }
        is_other
    }

    /// What is configured for a server.
    pub fn server(&self, lease: &Lease) -> &UpstreamServer {
        &self.group.upstream.servers[lease.index()]
    }

    /// How many servers are left to be tried, with the one that is being tried.
    pub fn tries(&self) -> usize {
        self.tries
    }

    /// The next server; `None` if none can be used.
    pub fn choose(&mut self, now: Instant) -> Option<Lease> {
        if self.group.is_single() {
            return self.group.only();
        }
        let group = self.group.clone();
        let mut turns = group.turns();
        loop {
            if let Some(index) = self.by_method(&mut turns, now) {
                self.tried.add(index);
                return Some(self.group.lease(index, &mut turns, now));
            }
            if std::mem::replace(&mut self.backups, true) {
                return None;
            }
        }
    }

    /// The server has failed the request: that is one try less. `true` if it will be left alone for its
    /// `fail_timeout`.
    pub fn failed(&mut self, lease: &Lease, now: Instant) -> bool {
        self.spend();
        self.whole.failed(&self.group, lease, now)
    }

    /// The server has answered, but another one shall: that is one try less.
    pub fn passed_over(&mut self, lease: &Lease) {
        self.spend();
        self.whole.answered_by(&self.group, lease);
    }

    /// The server has answered. nginx takes note of it when the answer is through, which for tunnels would
    /// be hours later.
    pub fn answered(&self, lease: &Lease) {
        self.whole.answered_by(&self.group, lease);
    }

    fn spend(&mut self) {
        self.tries = if self.group.is_single() { 0 } else { self.tries.saturating_sub(1) };
    }

    fn by_method(&mut self, turns: &mut Turns, now: Instant) -> Option<usize> {
        let by_rounds = !self.backups && self.rounds <= ROUNDS && self.group.places(false).len() > 1;
        match &self.group.upstream.balance {
            Balance::LeastConn => self.least_loaded(turns, now),
            Balance::Rendezvous { .. } if !self.key.is_empty() => self.highest(turns, now),
            Balance::Hash { .. } if by_rounds && self.key.is_empty() => self.in_turn(turns, now),
            Balance::Hash { is_consistent: true, .. } if by_rounds => self.on_the_ring(turns, now),
            Balance::Hash { .. } | Balance::IpHash | Balance::Random if by_rounds => self.by_lot(turns, now),
            Balance::RandomTwo if by_rounds => self.of_two(turns, now),
            _ => self.in_turn(turns, now),
        }
    }

    /// Whether a server may still be given this request.
    fn is_open(&self, index: usize, turns: &Turns, now: Instant) -> bool {
        !self.tried.contains(index) && self.group.is_open(index, turns, now)
    }

    /// By nginx's smooth weighted round robin.
    fn in_turn(&self, turns: &mut Turns, now: Instant) -> Option<usize> {
        if !self.backups && self.tried.is_empty() {
            return self.group.next_in_turn(turns, now);
        }
        self.in_turn_of(self.group.places(self.backups), turns, now)
    }

    /// The same among these.
    fn in_turn_of(&self, places: &[usize], turns: &mut Turns, now: Instant) -> Option<usize> {
        turns.next_of(places, |index, turns| self.is_open(index, turns, now))
    }

    /// The least `active / weight`; among equals, in turn.
    fn least_loaded(&self, turns: &mut Turns, now: Instant) -> Option<usize> {
        let places = self.group.places(self.backups);
        self.group.next_of_least_loaded(places, turns, |index, turns| self.is_open(index, turns, now))
    }

    /// By one number after the other, each of which stands for a server by its weight.
    fn by_lot(&mut self, turns: &mut Turns, now: Instant) -> Option<usize> {
        loop {
            let lot = match self.group.upstream.balance {
                Balance::IpHash => hash::of_ip(&self.key, self.hash),
                Balance::Hash { .. } => hash::of_key(&self.key, self.hash, self.rehashed),
                _ => fastrand::u32(..),
            };
            self.hash = lot;
            self.rehashed = self.rehashed.saturating_add(1);
            let index = self.group.by_weight(lot);
            if self.is_open(index, turns, now) {
                return Some(index);
            }
            if self.is_last_round() {
                return self.in_turn(turns, now);
            }
        }
    }

    /// The less loaded one of two that chance has given.
    fn of_two(&mut self, turns: &mut Turns, now: Instant) -> Option<usize> {
        let mut first = None;
        loop {
            let index = self.group.by_weight(fastrand::u32(..));
            match first {
                Some(first) if first == index => {}
                _ if !self.is_open(index, turns, now) => {}
                // nginx: of two with the same load it is the second.
                Some(first) => return Some(self.group.less_loaded(turns, first, index)),
                None => {
                    first = Some(index);
                    continue;
                }
            }
            if self.is_last_round() {
                return self.in_turn(turns, now);
            }
        }
    }

    /// The first server on the ring from the key on that can be used.
    fn on_the_ring(&mut self, turns: &mut Turns, now: Instant) -> Option<usize> {
        let group = self.group.clone();
        while let Some(alike) = group.ring().and_then(|ring| ring.servers(self.hash)) {
            if let Some(index) = self.in_turn_of(alike, turns, now) {
                return Some(index);
            }
            self.hash = self.hash.wrapping_add(1);
            if self.is_last_round() {
                break;
            }
        }
        self.in_turn(turns, now)
    }

    /// Of the servers that can be used the one with the highest score for the key; so a key whose server cannot be
    /// used has its next one, and no other key is concerned.
    fn highest(&self, turns: &Turns, now: Instant) -> Option<usize> {
        let seeds = self.group.seeds()?;
        let key = hash::rendezvous(&self.key);
        let mut best: Option<(Score, usize)> = None;
        let places = self.group.places(self.backups).iter().copied();
        for index in places.filter(|index| self.is_open(*index, turns, now)) {
            let score = seeds.score(index, key);
            if best.is_none_or(|(highest, _)| score.is_above(highest)) {
                best = Some((score, index));
            }
        }
        best.map(|(_, index)| index)
    }

    fn is_last_round(&mut self) -> bool {
        self.rounds += 1;
        self.rounds > ROUNDS
    }
}

/// The places of the servers that were tried: a list needs no memory for the usual groups.
#[derive(Debug, Default)]
struct Tried {
    first: u64,
    others: Vec<usize>,
}

impl Tried {
    fn is_empty(&self) -> bool {
        self.first == 0 && self.others.is_empty()
    }

    fn add(&mut self, index: usize) {
        match 1_u64.checked_shl(index as u32) {
            Some(bit) if index < 64 => self.first |= bit,
            _ => self.others.push(index),
        }
    }

    fn contains(&self, index: usize) -> bool {
        match 1_u64.checked_shl(index as u32) {
            Some(bit) if index < 64 => self.first & bit != 0,
            _ => self.others.contains(&index),
        }
    }
}

#[cfg(test)]
mod tests;
