//! `limit_conn`: how many requests and tunnels a key may have at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config::{ConnZone, LimitConn};

/// nginx's longest key; a longer one is not limited.
const LONGEST_KEY: usize = 255;

/// The counts of a zone, one for each key; shared by all workers.
#[derive(Debug)]
pub struct ConnCounts {
    /// As configured.
    pub zone: ConnZone,
    counts: Counts,
}

/// Only keys that have something to count are in it, so that it is bounded by what there is.
type Counts = Arc<Mutex<HashMap<Arc<[u8]>, u32>>>;

/// A request or tunnel that is counted in a zone until dropped.
#[derive(Debug)]
pub struct Counted {
    counts: Counts,
    key: Arc<[u8]>,
}

impl ConnCounts {
    /// The counts of a zone. Those of the zone of the same name and key are taken over from before.
    pub fn new(zone: ConnZone, before: &[ConnCounts]) -> Self {
        let same =
            before.iter().find(|old| old.zone.name == zone.name && old.zone.written_key == zone.written_key);
        Self { counts: same.map_or_else(Counts::default, |old| Arc::clone(&old.counts)), zone }
    }

    /// `None` if there are `most` already.
    fn enter(&self, key: &[u8], most: u32) -> Option<Counted> {
        let mut counts = lock(&self.counts);
        let key = match counts.get_key_value(key) {
            // As in nginx, the first one always passes.
            Some((_, count)) if *count >= most => return None,
            Some((known, _)) => Arc::clone(known),
            None => Arc::from(key),
        };
        *counts.entry(Arc::clone(&key)).or_default() += 1;
        Some(Counted { counts: Arc::clone(&self.counts), key })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = lock(&self.counts);
        if let Some(count) = counts.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

fn lock(counts: &Counts) -> MutexGuard<'_, HashMap<Arc<[u8]>, u32>> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts a request in every zone of a list, which `counts` are all zones for; `keys` are the keys of the
/// request in the order of the list. No key, no limit.
///
/// nginx: `ngx_http_limit_conn_handler`.
///
/// # Errors
/// The place in the list of the zone that refuses it; it is counted in none then.
pub fn enter(limits: &[LimitConn], counts: &[ConnCounts], keys: &[Vec<u8>]) -> Result<Vec<Counted>, usize> {
    let mut counted = Vec::new();
    for (place, (limit, key)) in limits.iter().zip(keys).enumerate() {
        if (1..=LONGEST_KEY).contains(&key.len()) {
            counted.push(counts[limit.zone].enter(key, limit.most).ok_or(place)?);
        }
    }
    Ok(counted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::variables::Template;

    fn zone(key: &str) -> ConnZone {
        ConnZone { name: "z".into(), key: Template::parse(key).unwrap(), written_key: key.into() }
    }

    #[test]
    fn a_key_is_counted_for_as_long_as_its_requests_live() {
        let counts = [ConnCounts::new(zone("$host"), &[]), ConnCounts::new(zone("$host"), &[])];
        let limits = [LimitConn { zone: 0, most: 2 }, LimitConn { zone: 1, most: 1 }];
        let keys = |a: &str, b: &str| [a.into(), b.into()];
        let first = enter(&limits, &counts, &keys("a", "b")).unwrap();
        assert_eq!(first.len(), 2);
        assert_eq!(enter(&limits, &counts, &keys("a", "b")).unwrap_err(), 1);
        // The refused one left nothing behind in the first zone.
        let second = enter(&limits, &counts, &keys("a", "")).unwrap();
        assert_eq!(enter(&limits, &counts, &keys("a", "")).unwrap_err(), 0);
        drop(second);
        drop(first);
        assert!(enter(&limits, &counts, &keys("a", "b")).is_ok());
        assert!(lock(&counts[0].counts).is_empty());
        assert!(enter(&limits, &counts, &keys("", &"x".repeat(256))).unwrap().is_empty());
    }

    #[test]
    fn a_reload_keeps_what_is_counted_under_the_same_name_and_key() {
        let before = [ConnCounts::new(zone("$host"), &[])];
        let limits = [LimitConn { zone: 0, most: 1 }];
        let held = enter(&limits, &before, &[b"a".to_vec()]).unwrap();
        let after = [ConnCounts::new(zone("$host"), &before)];
        assert_eq!(enter(&limits, &after, &[b"a".to_vec()]).unwrap_err(), 0);
        let other = [ConnCounts::new(zone("$uri"), &before)];
        assert!(enter(&limits, &other, &[b"a".to_vec()]).is_ok());
        drop(held);
        assert!(enter(&limits, &after, &[b"a".to_vec()]).is_ok());
    }
}
