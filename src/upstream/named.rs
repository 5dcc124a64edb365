//! Groups for the addresses that only requests name: those of a `proxy_pass` with variables.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::group::Group;
use crate::config::{Balance, KeepAlive, Upstream, UpstreamAddress, UpstreamServer};

/// The most groups that are kept. Clients may be able to name addresses, and each has its idle connections:
/// beyond this, connections are not kept.
const MOST: usize = 256;

/// How long a group that nobody asks for keeps its place from others: as long as idle connections live.
const UNUSED_FOR: Duration = Duration::from_secs(60);

/// The groups for the addresses that requests name, shared by all workers.
#[derive(Debug, Default)]
pub struct NamedByRequests {
    groups: Mutex<HashMap<UpstreamAddress, (Arc<Group>, Instant)>>,
}

impl NamedByRequests {
    /// The group of a single address.
    pub fn group(&self, address: &UpstreamAddress) -> Arc<Group> {
        let now = Instant::now();
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((group, used)) = groups.get_mut(address) {
            *used = now;
            return Arc::clone(group);
        }
        if groups.len() >= MOST {
            groups.retain(|_, (_, used)| now.saturating_duration_since(*used) < UNUSED_FOR);
        }
        if groups.len() >= MOST {
            return single(address, KeepAlive { connections: 0, ..KeepAlive::default() });
        }
        let group = single(address, KeepAlive::default());
        groups.insert(address.clone(), (Arc::clone(&group), now));
        group
    }
}

fn single(address: &UpstreamAddress, keepalive: KeepAlive) -> Arc<Group> {
    let name = address.to_string();
    let servers = vec![UpstreamServer::new(name.clone(), address.clone())];
    Arc::new(Group::of_names(Upstream { name, servers, balance: Balance::RoundRobin, keepalive }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_bounded_number_of_groups_is_kept() {
        let named = NamedByRequests::default();
        let group = |number: usize| {
            named
                .group(&UpstreamAddress::Name { host: number.to_string(), port: 80 })
                .upstream
                .keepalive
                .connections
        };
        for number in 0..MOST {
            assert_eq!((group(number), group(number)), (32, 32));
        }
        assert_eq!(group(MOST), 0);
        tokio::time::advance(UNUSED_FOR).await;
        assert_eq!(group(MOST), 32);
        assert_eq!(named.groups.lock().unwrap().len(), 1);
    }
}
