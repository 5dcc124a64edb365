//! Tickets by which clients resume their sessions.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::server::ProducesTickets;

/// The keys of tickets. There is one for each set of rules about client certificates: whoever was let in by one
/// must not come back by another (nginx CVE-2025-23419, R32). It outlives reloads, and changes every six hours.
pub type Keys = Arc<dyn ProducesTickets>;

/// Makes keys.
///
/// # Errors
/// The system gives no random numbers.
pub fn keys() -> Result<Keys, rustls::Error> {
    rustls::crypto::aws_lc_rs::Ticketer::new()
}

/// Tickets that are worth something for a time. nginx: `ssl_session_timeout`.
#[derive(Debug)]
pub struct Tickets {
    /// What they are encrypted with.
    pub keys: Keys,
    /// For how long they hold.
    pub timeout: Duration,
}

/// The time at which a ticket was made stands before what is in it.
const TIME: usize = 8;

impl Tickets {
    fn seal(&self, plain: &[u8], now: u64) -> Option<Vec<u8>> {
        self.keys.encrypt(&[&now.to_be_bytes(), plain].concat())
    }

    fn open(&self, ticket: &[u8], now: u64) -> Option<Vec<u8>> {
        let mut plain = self.keys.decrypt(ticket)?;
        let (time, _) = plain.split_first_chunk::<TIME>()?;
        let age = now.saturating_sub(u64::from_be_bytes(*time));
        (age < self.timeout.as_secs()).then(|| plain.split_off(TIME))
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        self.keys.enabled()
    }

    fn lifetime(&self) -> u32 {
        // RFC 8446 §4.6.1: seven days are the most.
        u32::try_from(self.timeout.as_secs()).unwrap_or(u32::MAX).min(7 * 24 * 3600)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.seal(plain, now())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.open(ticket, now())
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_worth_something_for_its_time_and_with_its_own_keys() {
        let tickets =
            |keys: &Keys, seconds| Tickets { keys: Arc::clone(keys), timeout: Duration::from_secs(seconds) };
        let (ours, others) = (keys().unwrap(), keys().unwrap());
        let made = tickets(&ours, 300).seal(b"who", 1000).unwrap();
        assert_eq!(tickets(&ours, 300).open(&made, 1299).as_deref(), Some(&b"who"[..]));
        assert_eq!(tickets(&ours, 300).open(&made, 1300), None);
        assert_eq!(tickets(&ours, 301).open(&made, 1300).as_deref(), Some(&b"who"[..]));
        assert_eq!(tickets(&others, 300).open(&made, 1000), None);
        for cut in 0..made.len() {
            assert_eq!(tickets(&ours, 300).open(&made[..cut], 1000), None);
        }
    }
}
