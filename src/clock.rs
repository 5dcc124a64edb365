//! The time of day as log lines and `Date` say it, put into words once a second for each worker.

use std::cell::RefCell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::tz::TimeZone;

thread_local! {
    static CLOCK: RefCell<Clock> = RefCell::new(Clock::new());
}

struct Clock {
    zone: TimeZone,
    second: u64,
    local: String,
    iso8601: String,
    http: String,
}

impl Clock {
    fn new() -> Self {
        let none = String::new;
        Self { zone: TimeZone::system(), second: u64::MAX, local: none(), iso8601: none(), http: none() }
    }

    fn set(&mut self, second: u64) {
        let timestamp = Timestamp::from_second(second.cast_signed()).unwrap_or_default();
        let time = timestamp.to_zoned(self.zone.clone());
        self.local = time.strftime("%d/%b/%Y:%H:%M:%S %z").to_string();
        self.iso8601 = time.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
        self.http = timestamp.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        self.second = second;
    }
}

/// Since 1970.
pub fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// `21/Nov/2026:06:35:51 +0000`: `$time_local`.
pub fn with_local<T>(then: impl FnOnce(&str) -> T) -> T {
    with(|clock| then(&clock.local))
}

/// `2026-11-21T06:35:51+00:00`: `$time_iso8601`.
pub fn with_iso8601<T>(then: impl FnOnce(&str) -> T) -> T {
    with(|clock| then(&clock.iso8601))
}

/// `Sat, 21 Nov 2026 06:35:51 GMT`: `Date`, RFC 9110 §5.6.7.
pub fn with_http<T>(then: impl FnOnce(&str) -> T) -> T {
    with(|clock| then(&clock.http))
}

fn with<T>(then: impl FnOnce(&Clock) -> T) -> T {
    CLOCK.with_borrow_mut(|clock| {
        let second = now().as_secs();
        if clock.second != second {
            clock.set(second);
        }
        then(clock)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_is_put_into_words_as_nginx_does() {
        let mut clock = Clock { zone: TimeZone::fixed(jiff::tz::offset(5)), ..Clock::new() };
        clock.set(1_795_242_951);
        assert_eq!(clock.local, "21/Nov/2026:11:35:51 +0500");
        assert_eq!(clock.iso8601, "2026-11-21T11:35:51+05:00");
        assert_eq!(clock.http, "Sat, 21 Nov 2026 06:35:51 GMT");
    }
}
