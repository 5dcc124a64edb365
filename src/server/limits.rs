//! Counts the client connections of the process, in all and for each address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The connections of all workers. Always counted, so that a limit that a reload brings knows of the
/// connections from before.
#[derive(Debug, Default)]
pub struct Connections {
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    by_ip: HashMap<IpAddr, usize>,
}

/// A connection that is counted until dropped.
#[derive(Debug)]
pub struct Permit {
    connections: Arc<Connections>,
    ip: Option<IpAddr>,
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
        let of_ip = ip.and_then(|ip| counts.by_ip.get(&ip)).copied().unwrap_or(0);
        if max_per_ip.is_some_and(|max| of_ip >= max) {
            return Err("max_connections_per_ip");
        }
        counts.add(ip);
        Ok(Permit { connections: Arc::clone(self), ip })
    }

    /// Counts a connection in that is only told that it is one too many.
    pub fn enter_anyway(self: &Arc<Self>, ip: Option<IpAddr>) -> Permit {
        let ip = ip.map(|ip| ip.to_canonical());
        self.counts().add(ip);
        Permit { connections: Arc::clone(self), ip }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.counts().all
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn add(&mut self, ip: Option<IpAddr>) {
        self.all += 1;
        if let Some(ip) = ip {
            *self.by_ip.entry(ip).or_default() += 1;
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self.connections.counts();
        counts.all -= 1;
        if let Some(ip) = self.ip
            && let Some(of_ip) = counts.by_ip.get_mut(&ip)
        {
            *of_ip -= 1;
            if *of_ip == 0 {
                counts.by_ip.remove(&ip);
            }
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
}
