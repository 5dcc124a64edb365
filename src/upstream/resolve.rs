//! Looks host names up when they are needed, and remembers the answers for a while.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::config::UpstreamAddress;

/// How long an answer of the system's resolver, which tells no TTL, is taken to be good: a container
/// that comes back under another address is found within this time.
const GOOD_FOR: Duration = Duration::from_secs(10);

/// How long an address that took no connection comes after the others of its name.
const LAST_FOR: Duration = Duration::from_secs(10);

/// The most answers that are kept: far more than a configuration has names, but clients may name hosts,
/// too, where a `proxy_pass` has variables.
const MOST: usize = 1024;

/// The answers for the names in use, shared by all workers.
#[derive(Debug, Default)]
pub struct Resolver {
    answers: Mutex<HashMap<(String, u16), Answer>>,
}

#[derive(Debug, Clone)]
struct Answer {
    addresses: Vec<SocketAddr>,
    until: Instant,
    /// How often it was given.
    turns: usize,
    /// The addresses that took no connection, and when that was.
    failed: Vec<(SocketAddr, Instant)>,
}

impl Resolver {
    /// The addresses of a host, at least one. As nginx does it, those of one name take turns, and one that
    /// took no connection comes last for a while. When the name does not resolve any more, the last answer
    /// goes on being used.
    ///
    /// # Errors
    /// The name does not resolve and never did.
    pub async fn lookup(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let now = Instant::now();
        let key = (host.to_owned(), port);
        if let Some(answer) = self.answers().get_mut(&key).filter(|answer| answer.until > now) {
            return Ok(answer.in_turn(now));
        }
        let found = tokio::net::lookup_host((host, port)).await.map(Iterator::collect::<Vec<_>>);
        let mut answers = self.answers();
        match found {
            Ok(addresses) if !addresses.is_empty() => {
                if answers.len() >= MOST {
                    answers.retain(|_, answer| answer.until > now);
                }
                let old = answers.remove(&key);
                let (turns, failed) = old.map_or_else(Default::default, |old| (old.turns, old.failed));
                let mut answer = Answer { addresses, until: now + GOOD_FOR, turns, failed };
                let addresses = answer.in_turn(now);
                if answers.len() < MOST {
                    answers.insert(key, answer);
                }
                Ok(addresses)
            }
            failed => match answers.get_mut(&key) {
                Some(answer) => Ok(answer.in_turn(now)),
                None => Err(failed.err().unwrap_or_else(|| io::ErrorKind::NotFound.into())),
            },
        }
    }

    /// Called when one of several addresses of a name took no connection.
    pub fn put_last(&self, host: &str, port: u16, address: SocketAddr) {
        if let Some(answer) = self.answers().get_mut(&(host.to_owned(), port)) {
            answer.failed.retain(|(other, _)| *other != address && answer.addresses.contains(other));
            answer.failed.push((address, Instant::now()));
        }
    }

    /// Called after a failed connect: the next lookup of the name, if it is one, asks the system again.
    pub fn doubt(&self, address: &UpstreamAddress) {
        if let UpstreamAddress::Name { host, port } = address
            && let Some(answer) = self.answers().get_mut(&(host.clone(), *port))
        {
            answer.until = Instant::now();
        }
    }

    fn answers(&self) -> std::sync::MutexGuard<'_, HashMap<(String, u16), Answer>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Answer {
    fn in_turn(&mut self, now: Instant) -> Vec<SocketAddr> {
        let mut addresses = self.addresses.clone();
        addresses.rotate_left(self.turns % self.addresses.len().max(1));
        self.turns = self.turns.wrapping_add(1);
        let is_last = |address: &SocketAddr| {
            self.failed.iter().any(|(failed, at)| failed == address && *at + LAST_FOR > now)
        };
        addresses.sort_by_key(is_last);
        addresses
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_addresses_of_a_name_take_turns_and_one_that_failed_comes_last() {
        let addresses: Vec<SocketAddr> =
            (1..4).map(|last| SocketAddr::from(([127, 0, 0, last], 80))).collect();
        let far = Instant::now() + Duration::from_secs(3600);
        let answer = Answer { addresses: addresses.clone(), until: far, turns: 0, failed: Vec::new() };
        let resolver = Resolver::default();
        resolver.answers().insert(("app".to_owned(), 80), answer);
        let mut firsts = Vec::new();
        for _ in 0..4 {
            firsts.push(resolver.lookup("app", 80).await.unwrap()[0]);
        }
        assert_eq!(firsts, [addresses[0], addresses[1], addresses[2], addresses[0]]);
        resolver.put_last("app", 80, addresses[1]);
        for _ in 0..3 {
            let order = resolver.lookup("app", 80).await.unwrap();
            assert_eq!((order.len(), order[2]), (3, addresses[1]));
        }
        tokio::time::advance(LAST_FOR).await;
        let mut firsts = Vec::new();
        for _ in 0..3 {
            firsts.push(resolver.lookup("app", 80).await.unwrap()[0]);
        }
        assert!(firsts.contains(&addresses[1]), "{firsts:?}");
    }
}
