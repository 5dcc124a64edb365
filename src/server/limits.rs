//! Counts the client connections of the process, in all and for each address, and those that are refused.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::memory;

/// How many refused connections may be told so at a time. Each stays for as long as its client takes to hear
/// it, up to the two seconds of the lingering close: without a bound, they would be the way around the limit.
const MOST_REFUSALS: usize = 128;

/// So many connections at a time leave memory behind that is worth being given back.
const PEAK: usize = 512;

/// The connections of all workers. Always counted, so that a limit that a reload brings knows of the
/// connections from before.
#[derive(Debug, Default)]
pub struct Connections {
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    /// The most that there have been since memory was given back.
    peak: usize,
    by_ip: HashMap<IpAddr, usize>,
    refused: usize,
}

/// A connection that is counted until dropped.
#[derive(Debug)]
pub struct Permit {
    connections: Arc<Connections>,
    counted: Counted,
}

#[derive(Clone, Copy, Debug)]
enum Counted {
    Served(Option<IpAddr>),
    Refused,
    /// With the connection that it is a stream of.
    Stream,
}

impl Connections {
    /// Counts a connection in.
    ///
    /// # Errors
    /// The name of the setting that does not allow it.
    pub fn enter(
        self: &Arc<Self>,
        ip: Option<IpAddr>,
        max: Option<usize>,
        max_per_ip: Option<usize>,
    ) -> Result<Permit, &'static str> {
        let ip = ip.map(|ip| ip.to_canonical());
        let mut counts = self.counts();
        if max.is_some_and(|max| counts.all >= max) {
            return Err("max_connections");
        }
        if let Some(ip) = ip {
            counts.add(ip, max_per_ip)?;
        }
        counts.all += 1;
        counts.peak = counts.peak.max(counts.all);
        Ok(Permit { connections: Arc::clone(self), counted: Counted::Served(ip) })
    }

    /// For a connection that is only told that it is one too many: it takes no place from one that is
    /// served. `None` if so many are being told already that it has to go without a word.
    pub fn refuse(self: &Arc<Self>) -> Option<Permit> {
        let mut counts = self.counts();
        if counts.refused >= MOST_REFUSALS {
            return None;
        }
        counts.refused += 1;
        Some(Permit { connections: Arc::clone(self), counted: Counted::Refused })
    }

    /// For a stream of HTTP/2, whose connection is counted already.
    pub fn stream(self: &Arc<Self>) -> Permit {
        Permit { connections: Arc::clone(self), counted: Counted::Stream }
    }

    /// How many are served.
    pub fn count(&self) -> usize {
        self.counts().all
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// Counts the connection for an address, too, which was not known when it came.
    ///
    /// # Errors
    /// The name of the setting that does not allow it: it counts for no address.
    pub fn count_for(&mut self, ip: Option<IpAddr>, max_per_ip: Option<usize>) -> Result<(), &'static str> {
        let (Counted::Served(None), Some(ip)) = (self.counted, ip.map(|ip| ip.to_canonical())) else {
            return Ok(());
        };
        self.connections.counts().add(ip, max_per_ip)?;
        self.counted = Counted::Served(Some(ip));
        Ok(())
    }
}

impl Counts {
    fn add(&mut self, ip: IpAddr, max: Option<usize>) -> Result<(), &'static str> {
        let of_ip = self.by_ip.entry(ip).or_default();
        if max.is_some_and(|max| *of_ip >= max) {
            return Err("max_connections_per_ip");
        }
        *of_ip += 1;
        Ok(())
    }

    /// Counts a connection out; whether a peak is over, of which half have left by now.
    fn remove(&mut self, ip: Option<IpAddr>) -> bool {
        self.all -= 1;
        if let Some(ip) = ip
            && let Entry::Occupied(mut of_ip) = self.by_ip.entry(ip)
        {
            *of_ip.get_mut() -= 1;
            if *of_ip.get() == 0 {
                of_ip.remove();
            }
        }
        let is_over = self.peak >= PEAK && self.all * 2 <= self.peak;
        if is_over {
            self.peak = self.all;
        }
        is_over
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        match self.counted {
            Counted::Served(ip) => {
                let is_over = self.connections.counts().remove(ip);
                if is_over {
                    memory::give_back_soon();
                }
            }
            Counted::Refused => self.connections.counts().refused -= 1,
            Counted::Stream => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permit_counts_until_it_is_dropped() {
        let connections = Arc::new(Connections::default());
        let one: IpAddr = "127.0.0.1".parse().unwrap();
        let mapped: IpAddr = "::ffff:127.0.0.1".parse().unwrap();
        let first = connections.enter(Some(one), Some(3), Some(2)).unwrap();
        let _second = connections.enter(Some(mapped), Some(3), Some(2)).unwrap();
        assert_eq!(connections.enter(Some(one), Some(3), Some(2)).unwrap_err(), "max_connections_per_ip");
        let _third = connections.enter(None, Some(3), Some(2)).unwrap();
        assert_eq!(connections.enter(None, Some(3), Some(2)).unwrap_err(), "max_connections");
        drop(first);
        assert!(connections.enter(Some(one), Some(3), Some(2)).is_ok());
    }

    #[test]
    fn a_peak_is_over_each_time_that_half_of_it_have_left() {
        let mut counts = Counts { all: 4 * PEAK, peak: 4 * PEAK, ..Counts::default() };
        let ends: Vec<_> = (0..4 * PEAK).filter_map(|_| counts.remove(None).then_some(counts.all)).collect();
        assert_eq!(ends, [2 * PEAK, PEAK, PEAK / 2]);
        let mut few = Counts { all: PEAK - 1, peak: PEAK - 1, ..Counts::default() };
        assert!((1..PEAK).all(|_| !few.remove(None)));
    }

    #[test]
    fn an_address_that_is_known_later_counts_from_then_on() {
        let connections = Arc::new(Connections::default());
        let one: IpAddr = "192.0.2.1".parse().unwrap();
        let mut first = connections.enter(None, None, None).unwrap();
        let mut second = connections.enter(None, None, None).unwrap();
        assert_eq!(first.count_for(Some(one), Some(1)), Ok(()));
        assert_eq!(second.count_for(Some(one), Some(1)), Err("max_connections_per_ip"));
        assert_eq!(connections.enter(Some(one), None, Some(1)).unwrap_err(), "max_connections_per_ip");
        drop(first);
        assert_eq!(second.count_for(Some(one), Some(1)), Ok(()));
        assert_eq!(connections.count(), 1);
    }

    #[test]
    fn refused_connections_take_no_place_and_are_bounded_themselves() {
        let connections = Arc::new(Connections::default());
        let refused: Vec<_> = (0..MOST_REFUSALS).map(|_| connections.refuse().unwrap()).collect();
        assert!(connections.refuse().is_none());
        assert!(connections.enter(None, Some(1), None).is_ok());
        drop(refused);
        assert!(connections.refuse().is_some());
    }
}
