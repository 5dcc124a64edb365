//! Chooses a server of a group, and counts what each one has to do.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::config::{Balance, Upstream, UpstreamServer};

/// A group of servers, shared by all workers, so that shares are exact over the whole process.
#[derive(Debug)]
pub struct Group {
    /// As configured.
    pub upstream: Upstream,
    members: Vec<Arc<Member>>,
    /// The current weights of nginx's smooth weighted round robin, which spreads a heavy server's
    /// turns between those of the others.
    turns: Mutex<Vec<i64>>,
}

/// A server and its load.
#[derive(Debug)]
pub struct Member {
    /// As configured.
    pub server: UpstreamServer,
    /// Requests and tunnels at this moment. Lives on over a reload, so that `least_conn` does not
    /// forget the tunnels.
    active: AtomicUsize,
}

/// A server that has been chosen: counted as its load until dropped.
#[derive(Debug)]
pub struct Lease {
    member: Arc<Member>,
    index: usize,
}

impl Group {
    /// A group; `previous` are the groups of the configuration before, from which the load of servers
    /// that stay is taken over.
    pub fn new(upstream: Upstream, previous: &[Arc<Group>]) -> Self {
        let before = previous.iter().find(|group| group.upstream.name == upstream.name);
        let members = upstream.servers.iter().map(|server| {
            let kept = before.and_then(|group| group.member_at(server));
            kept.unwrap_or_else(|| Arc::new(Member { server: server.clone(), active: AtomicUsize::new(0) }))
        });
        let members: Vec<_> = members.collect();
        let turns = Mutex::new(vec![0; members.len()]);
        Self { upstream, members, turns }
    }

    fn member_at(&self, server: &UpstreamServer) -> Option<Arc<Member>> {
        self.members.iter().find(|member| member.server == *server).cloned()
    }

    /// The next server that is not among `tried` (places in the group); `None` when all were.
    pub fn choose(&self, tried: &[usize]) -> Option<Lease> {
        let index = match (&*self.members, self.upstream.balance) {
            ([_], _) => Some(0).filter(|only| !tried.contains(only)),
            (_, Balance::RoundRobin) => self.in_turn(|index| !tried.contains(&index)),
            (_, Balance::LeastConn) => self.least_loaded(tried),
        }?;
        let member = Arc::clone(&self.members[index]);
        member.active.fetch_add(1, Ordering::Relaxed);
        Some(Lease { member, index })
    }

    /// nginx's smooth weighted round robin over the servers that `may` take part.
    fn in_turn(&self, may: impl Fn(usize) -> bool) -> Option<usize> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let mut total = 0;
        let mut best: Option<usize> = None;
        for (index, member) in self.members.iter().enumerate().filter(|(index, _)| may(*index)) {
            let weight = i64::from(member.server.weight);
            turns[index] += weight;
            total += weight;
            if best.is_none_or(|best| turns[index] > turns[best]) {
                best = Some(index);
            }
        }
        if let Some(best) = best {
            turns[best] -= total;
        }
        best
    }

    /// The least `active / weight`; among equals, in turn, as nginx does.
    fn least_loaded(&self, tried: &[usize]) -> Option<usize> {
        let load = |index: usize| {
            let member = &self.members[index];
            let active = member.active.load(Ordering::Relaxed) as u128;
            // Compared as fractions with a common denominator, so that no share is rounded away.
            (active << 32) / u128::from(member.server.weight)
        };
        let open = || (0..self.members.len()).filter(|index| !tried.contains(index));
        let least = open().map(load).min()?;
        self.in_turn(|index| !tried.contains(&index) && load(index) == least)
    }
}

impl Lease {
    /// The server.
    pub fn server(&self) -> &UpstreamServer {
        &self.member.server
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::UpstreamAddress;
    use std::time::Duration;

    fn upstream(weights: &[u32], balance: Balance) -> Upstream {
        let server = |(index, weight): (usize, &u32)| UpstreamServer {
            address: UpstreamAddress::Name { host: index.to_string(), port: 1 },
            weight: *weight,
        };
        Upstream {
            name: "a".into(),
            servers: weights.iter().enumerate().map(server).collect(),
            balance,
            keepalive: 0,
            keepalive_timeout: Duration::ZERO,
        }
    }

    #[test]
    fn round_robin_spreads_the_turns_of_a_heavy_server() {
        let group = Group::new(upstream(&[5, 1, 1], Balance::RoundRobin), &[]);
        let turns: Vec<_> = (0..7).map(|_| group.choose(&[]).unwrap().index()).collect();
        assert_eq!(turns, [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn every_server_is_tried_once_and_then_none_is_left() {
        for balance in [Balance::RoundRobin, Balance::LeastConn] {
            let group = Group::new(upstream(&[1, 1, 1], balance), &[]);
            let mut tried = Vec::new();
            while let Some(lease) = group.choose(&tried) {
                tried.push(lease.index());
            }
            tried.sort_unstable();
            assert_eq!(tried, [0, 1, 2]);
        }
        let single = Group::new(upstream(&[1], Balance::RoundRobin), &[]);
        assert!(single.choose(&[0]).is_none());
    }

    #[test]
    fn least_conn_counts_what_is_held_for_each_weight_and_over_a_reload() {
        let group = Arc::new(Group::new(upstream(&[2, 1], Balance::LeastConn), &[]));
        let held: Vec<_> = (0..6).map(|_| group.choose(&[]).unwrap()).collect();
        assert_eq!(held.iter().filter(|lease| lease.index() == 0).count(), 4);
        let reloaded = Group::new(upstream(&[2, 1], Balance::LeastConn), &[Arc::clone(&group)]);
        let (_still_held, given_back): (Vec<_>, Vec<_>) =
            held.into_iter().partition(|lease| lease.index() == 0);
        drop(given_back);
        assert_eq!(reloaded.choose(&[]).unwrap().index(), 1);
    }
}
