//! `limit_req`: how many requests a key may send in a time, by nginx's leaky bucket.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lru::LruCache;

use crate::config::{LimitReq, ReqZone};

/// nginx's longest key; a longer one is not limited.
const LONGEST_KEY: usize = 65_535;

/// A clock that is further behind than this was set back (nginx has the same number, in milliseconds).
const SET_BACK: i64 = -60_000;

/// The buckets of a zone, one for each key; shared by all workers.
#[derive(Debug)]
pub struct ReqStates {
    /// As configured.
    pub zone: ReqZone,
    buckets: Arc<Mutex<Buckets>>,
}

#[derive(Debug)]
struct Buckets {
    by_key: LruCache<Box<[u8]>, Bucket>,
    /// What all of them are counted as.
    bytes: u64,
}

/// How full a bucket is.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// Thousandths of a request.
    excess: i64,
    /// When that was so, in milliseconds.
    last: u64,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// No zone has a key for it.
    Unlimited,
    /// It may go on at once.
    Pass,
    /// It may go on after a time, because of the zone at a place of the list with so many thousandths of a
    /// request too many.
    Delay(Duration, usize, i64),
    /// It is refused, because of the zone at a place of the list.
    Reject(usize, i64),
}

impl ReqStates {
    /// The buckets of a zone. Those of the zone of the same name and key are taken over from before.
    pub fn new(zone: ReqZone, before: &[ReqStates]) -> Self {
        let same =
            before.iter().find(|old| old.zone.name == zone.name && old.zone.written_key == zone.written_key);
        let empty = || Arc::new(Mutex::new(Buckets { by_key: LruCache::unbounded(), bytes: 0 }));
        Self { buckets: same.map_or_else(empty, |old| Arc::clone(&old.buckets)), zone }
    }

    fn buckets(&self) -> MutexGuard<'_, Buckets> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the bucket of a key holds with one request more.
    fn excess(&self, key: &[u8], now: u64) -> i64 {
        let mut buckets = self.buckets();
        buckets.by_key.get(key).map_or(0, |bucket| self.filled(*bucket, now).0)
    }

    /// As [`ReqStates::excess`], and the request is counted if there are no more than `burst`.
    fn account(&self, key: &[u8], now: u64, burst: i64) -> Result<i64, i64> {
        let mut buckets = self.buckets();
        if let Some(bucket) = buckets.by_key.get_mut(key) {
            let (excess, elapsed) = self.filled(*bucket, now);
            if excess > burst {
                return Err(excess);
            }
            bucket.excess = excess;
            if elapsed != 0 {
                bucket.last = now;
            }
            return Ok(excess);
        }
        buckets.make_room(cost(key), self.zone.size);
        buckets.by_key.put(key.into(), Bucket { excess: 0, last: now });
        Ok(0)
    }

    fn filled(&self, bucket: Bucket, now: u64) -> (i64, i64) {
        let elapsed = match now.wrapping_sub(bucket.last).cast_signed() {
            elapsed if elapsed < SET_BACK => 1,
            elapsed => elapsed.max(0),
        };
        let drained = self.zone.rate.cast_signed().saturating_mul(elapsed) / 1000;
        (bucket.excess.saturating_sub(drained).saturating_add(1000).max(0), elapsed)
    }

    fn delay(&self, excess: i64, delay: i64) -> u64 {
        excess.saturating_sub(delay).max(0).unsigned_abs().saturating_mul(1000) / self.zone.rate.max(1)
    }
}

impl Buckets {
    /// The buckets that were not asked for longest go, as in nginx when its shared memory is full.
    fn make_room(&mut self, cost_of_new: u64, size: u64) {
        self.bytes += cost_of_new;
        while self.bytes > size
            && let Some((key, _)) = self.by_key.pop_lru()
        {
            self.bytes -= cost(&key);
        }
    }
}

/// What a bucket is counted as: 128 bytes with a key that is no longer than an address, as in nginx.
fn cost(key: &[u8]) -> u64 {
    (64 + key.len() as u64).next_power_of_two().max(128)
}

/// Asks every zone of a list, which `states` are all zones for; `keys` are the keys of the request in the
/// order of the list. A request counts in all of them or, if one refuses it, in none.
///
/// nginx: `ngx_http_limit_req_handler`. The time is in milliseconds.
pub fn decide(limits: &[LimitReq], states: &[ReqStates], keys: &[Vec<u8>], now: u64) -> Decision {
    let listed = limits.iter().zip(keys).enumerate();
    let mut asked = listed.filter(|(_, (_, key))| (1..=LONGEST_KEY).contains(&key.len())).peekable();
    let (mut passed, mut longest) = (Vec::new(), None::<(u64, usize, i64)>);
    let mut note = |place: usize, limit: &LimitReq, excess: i64| {
        let delay = states[limit.zone].delay(excess, limit.delay);
        if delay > longest.map_or(0, |(delay, ..)| delay) {
            longest = Some((delay, place, excess));
        }
    };
    if asked.peek().is_none() {
        return Decision::Unlimited;
    }
    while let Some((place, (limit, key))) = asked.next() {
        let zone = &states[limit.zone];
        let is_last = asked.peek().is_none();
        let excess = match is_last {
            true => zone.account(key, now, limit.burst).unwrap_or_else(|excess| excess),
            false => zone.excess(key, now),
        };
        if excess > limit.burst {
            return Decision::Reject(place, excess);
        }
        if is_last {
            note(place, limit, excess);
        } else {
            passed.push((place, limit, key));
        }
    }
    for (place, limit, key) in passed.into_iter().rev() {
        if let Ok(excess) = states[limit.zone].account(key, now, i64::MAX) {
            note(place, limit, excess);
        }
    }
    match longest {
        Some((delay, place, excess)) => Decision::Delay(Duration::from_millis(delay), place, excess),
        None => Decision::Pass,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::variables::Template;

    fn zone(rate: u64, size: u64) -> ReqStates {
        let key = Template::parse("$remote_addr").unwrap();
        ReqStates::new(ReqZone { name: "z".into(), key, written_key: "a".into(), rate, size }, &[])
    }

    fn limit(zone: usize, burst: i64, delay: i64) -> LimitReq {
        LimitReq { zone, burst: burst * 1000, delay: delay.saturating_mul(1000) }
    }

    const NODELAY: i64 = i64::MAX;
    /// Long after the clock began.
    const START: u64 = 1 << 40;

    #[test]
    fn a_burst_passes_and_what_is_beyond_it_is_refused_and_not_counted() {
        let states = [zone(2_000, 1 << 20)];
        let limits = [limit(0, 1, NODELAY)];
        let ask = |ms| decide(&limits, &states, &[b"a".to_vec()], START + ms);
        assert_eq!([ask(0), ask(0), ask(0)], [Decision::Pass, Decision::Pass, Decision::Reject(0, 2000)]);
        assert_eq!(ask(499), Decision::Reject(0, 1002));
        assert_eq!(ask(500), Decision::Pass);
        assert_eq!(ask(500), Decision::Reject(0, 2000));
        assert_eq!(decide(&limits, &states, &[b"b".to_vec()], START), Decision::Pass);
        assert_eq!(decide(&limits, &states, &[Vec::new()], START), Decision::Unlimited);
    }

    #[test]
    fn requests_beyond_the_rate_wait_for_their_turn() {
        let states = [zone(500, 1 << 20)];
        let limits = [limit(0, 3, 1)];
        let ask = |ms| decide(&limits, &states, &[b"a".to_vec()], START + ms);
        let delay = |seconds, excess| Decision::Delay(Duration::from_secs(seconds), 0, excess);
        assert_eq!([ask(0), ask(0), ask(0)], [Decision::Pass, Decision::Pass, delay(2, 2000)]);
        assert_eq!([ask(0), ask(0)], [delay(4, 3000), Decision::Reject(0, 4000)]);
        // A clock that was set back a little stands still, as in nginx.
        let mut back = ask(0);
        assert_eq!(back, Decision::Reject(0, 4000));
        back = decide(&limits, &states, &[b"a".to_vec()], START - 10);
        assert_eq!(back, Decision::Reject(0, 4000));
    }

    #[test]
    fn a_request_counts_in_all_zones_or_in_none() {
        let states = [zone(1_000_000, 1 << 20), zone(16, 1 << 20)];
        let limits = [limit(0, 0, 0), limit(1, 0, 0)];
        let ask = |a: &str, b: &str, ms| decide(&limits, &states, &[a.into(), b.into()], START + ms);
        assert_eq!(ask("x", "y", 0), Decision::Pass);
        assert_eq!(ask("x", "y", 100), Decision::Reject(1, 1000 - 16 * 100 / 1000));
        assert_eq!(ask("x", "z", 100), Decision::Pass);
        assert_eq!(ask("x", "w", 100), Decision::Reject(0, 1000));
        assert_eq!(ask("", "w", 100), Decision::Pass);
        assert_eq!(ask("v", "", 100), Decision::Pass);
        assert_eq!(ask("v", "", 100), Decision::Reject(0, 1000));
        // The longest delay of all zones counts.
        let slow = [limit(0, 5, 0), limit(1, 5, 0)];
        let decision = decide(&slow, &states, &["x".into(), "y".into()], START + 200);
        assert_eq!(decision, Decision::Delay(Duration::from_millis(997_000 / 16), 1, 997));
    }

    #[test]
    fn a_zone_forgets_who_was_not_seen_longest_when_it_is_full() {
        let states = [zone(16, 256)];
        let limits = [limit(0, 0, NODELAY)];
        let ask = |key: &str| decide(&limits, &states, &[key.into()], START) == Decision::Pass;
        assert!(ask("a") && ask("b") && !ask("a"));
        assert!(ask("c"), "takes the place of b");
        assert!(!ask("a") && ask("b"));
    }

    #[test]
    fn a_reload_keeps_what_was_counted_under_the_same_name_and_key() {
        let states = [zone(16, 1 << 20)];
        let limits = [limit(0, 0, NODELAY)];
        let key = [b"a".to_vec()];
        assert_eq!(decide(&limits, &states, &key, START), Decision::Pass);
        let faster = ReqZone { rate: 32, ..states[0].zone.clone() };
        let other = ReqZone { written_key: "b".into(), ..faster.clone() };
        let kept = [ReqStates::new(faster, &states)];
        assert!(matches!(decide(&limits, &kept, &key, START), Decision::Reject(0, 1000)));
        let fresh = [ReqStates::new(other, &states)];
        assert_eq!(decide(&limits, &fresh, &key, START), Decision::Pass);
    }
}
