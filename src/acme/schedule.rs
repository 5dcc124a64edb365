//! Pure: when a certificate is renewed, and how long to wait after a failure.

use std::time::{Duration, SystemTime};

/// For how long a certificate holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// From when on.
    pub not_before: SystemTime,
    /// Until when.
    pub not_after: SystemTime,
}

impl Validity {
    /// How long that is.
    pub fn lifetime(&self) -> Duration {
        self.not_after.duration_since(self.not_before).unwrap_or_default()
    }

    /// When it is renewed if the CA does not say when: at two thirds of its life time, or a little before, so
    /// that those of many servers that were ordered together are not renewed together. `chance` is from 0 to 1.
    pub fn renewal(&self, chance: f64) -> SystemTime {
        let lifetime = self.lifetime();
        self.not_before + (lifetime * 2 / 3).saturating_sub(lifetime.mul_f64(chance / 30.0))
    }

    /// When it is renewed if the CA suggests a window (RFC 9773 §4.2): at a moment of the window by chance; never
    /// so late that nothing could go wrong any more.
    pub fn renewal_within(&self, window: &Window, chance: f64) -> SystemTime {
        let length = window.end.duration_since(window.start).unwrap_or_default();
        let latest = self.not_after - self.lifetime() / 10;
        (window.start + length.mul_f64(chance)).min(latest)
    }
}

/// When a CA wants a certificate to be renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// From when on.
    pub start: SystemTime,
    /// Until when.
    pub end: SystemTime,
}

/// When a CA is asked for its window again that has none, or has not answered (RFC 9773 §4.3.3).
pub const ASK_AGAIN: Duration = Duration::from_secs(6 * HOUR);

/// How long the CA's own word about it may be: no less and no more than this, as RFC 9773 §4.3.2 asks for.
pub fn until_asked_again(said: Duration) -> Duration {
    said.clamp(Duration::from_secs(60), Duration::from_secs(24 * HOUR))
}

/// What kind of failure is waited after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The CA cannot be reached, or the store cannot be written: nothing that anybody counts.
    Passing,
    /// The CA has looked and has refused. Let's Encrypt lets a name fail five times an hour, and then for as long as
    /// one failure in twelve minutes.
    Refused,
}

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;

const AFTER_REFUSAL: [u64; 8] =
    [2 * MINUTE, 15 * MINUTE, 30 * MINUTE, HOUR, 2 * HOUR, 4 * HOUR, 8 * HOUR, 12 * HOUR];

const LONGEST_PASSING: u64 = 15 * MINUTE;

/// How long to wait after so many failures in a row, the first of which is 1. `chance` is from 0 to 1.
pub fn wait(trouble: Trouble, failures: u32, chance: f64) -> Duration {
    let before = failures.saturating_sub(1);
    let seconds = match trouble {
        Trouble::Passing => (10_u64 << before.min(10)).min(LONGEST_PASSING),
        Trouble::Refused => AFTER_REFUSAL[(before as usize).min(AFTER_REFUSAL.len() - 1)],
    };
    Duration::from_secs(seconds).mul_f64(1.0 + chance / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * HOUR);

    fn ninety_days() -> Validity {
        Validity { not_before: SystemTime::UNIX_EPOCH, not_after: SystemTime::UNIX_EPOCH + 90 * DAY }
    }

    fn days(time: SystemTime) -> f64 {
        time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64() / DAY.as_secs_f64()
    }

    #[test]
    fn a_certificate_is_renewed_at_two_thirds_of_its_life_or_a_little_before() {
        assert_eq!(days(ninety_days().renewal(0.0)), 60.0);
        assert_eq!(days(ninety_days().renewal(1.0)), 57.0);
    }

    #[test]
    fn the_window_of_the_ca_counts_but_not_until_the_certificate_is_over() {
        let at = |day: u32| SystemTime::UNIX_EPOCH + day * DAY;
        for (start, end, chance, expected) in
            [(10, 20, 0.0, 10.0), (10, 20, 0.5, 15.0), (80, 120, 1.0, 81.0), (20, 10, 1.0, 20.0)]
        {
            let window = Window { start: at(start), end: at(end) };
            assert_eq!(days(ninety_days().renewal_within(&window, chance)), expected, "{start} {end}");
        }
    }

    #[test]
    fn waits_grow_up_to_a_bound() {
        let all = |trouble| (1..=10).map(|n| wait(trouble, n, 0.0).as_secs()).collect::<Vec<_>>();
        assert_eq!(all(Trouble::Passing), [10, 20, 40, 80, 160, 320, 640, 900, 900, 900]);
        let refused = all(Trouble::Refused);
        assert!(refused.is_sorted() && refused[0] == 120 && refused[9] == 12 * HOUR, "{refused:?}");
        assert_eq!(wait(Trouble::Passing, u32::MAX, 1.0).as_secs(), 990);
    }

    #[test]
    fn the_failures_of_an_hour_stay_within_what_lets_encrypt_allows() {
        // Both challenges at first, one each time later on.
        let mut at = Duration::ZERO;
        let mut failed = vec![at, at];
        for failures in 1..=20 {
            at += wait(Trouble::Refused, failures, 0.0);
            failed.push(at);
        }
        for (place, begin) in failed.iter().enumerate() {
            let hour = failed[place..].iter().filter(|at| **at < *begin + Duration::from_secs(HOUR)).count();
            assert!(hour <= 5, "{hour} failures in the hour from {begin:?}");
        }
    }

    #[test]
    fn what_the_ca_says_of_the_next_question_is_bounded() {
        for (said, expected) in [(0, 60), (3600, 3600), (1_000_000, 86_400)] {
            assert_eq!(until_asked_again(Duration::from_secs(said)).as_secs(), expected);
        }
    }
}
