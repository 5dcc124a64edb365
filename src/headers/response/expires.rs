//! `expires`: what `Expires` and `Cache-Control` say, as nginx's directive does.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;

use super::draft::Draft;
use crate::routing::variables::Template;

/// What `expires` says in a configuration.
#[derive(Clone, Debug)]
pub enum Expires {
    /// Known from the start.
    Fixed(Expiry),
    /// With variables: known when an answer is there.
    Variable {
        /// Whether `modified` stands before it.
        is_modified: bool,
        /// The rest.
        value: Template,
    },
}

/// When an answer expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// Nothing is said: `off`.
    Off,
    /// In 1970, and `no-cache`.
    Epoch,
    /// In 2037, and ten years.
    Max,
    /// So many seconds from now; before now, it is `no-cache`.
    Access(i64),
    /// So many seconds after `Last-Modified`, or from now if there is none.
    Modified(i64),
    /// At this second of the day, local time.
    Daily(u32),
}

const DAY: i64 = 24 * 3600;

impl Expiry {
    /// Reads a value; with `is_modified` it stood behind `modified`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str, is_modified: bool) -> Result<Self, &'static str> {
        match text {
            "epoch" if !is_modified => return Ok(Self::Epoch),
            "max" if !is_modified => return Ok(Self::Max),
            "off" if !is_modified => return Ok(Self::Off),
            _ => {}
        }
        if let Some(time) = text.strip_prefix('@') {
            return match seconds(time) {
                _ if is_modified => Err("a time of day cannot stand behind `modified`"),
                Some(second @ 0..=DAY) => Ok(Self::Daily(second as u32)),
                Some(_) => Err("a time of day is at most 24 hours"),
                None => Err("it is not a time of day"),
            };
        }
        let (sign, time) = match text.as_bytes().first() {
            Some(b'-') => (-1, &text[1..]),
            Some(b'+') => (1, &text[1..]),
            _ => (1, text),
        };
        let time = sign * seconds(time).ok_or("it is not a time")?;
        Ok(if is_modified { Self::Modified(time) } else { Self::Access(time) })
    }

    /// Says it in the fields of an answer.
    pub fn apply(self, answer: &mut Draft<'_>, now: SystemTime) {
        let (expires, control) = match self {
            Self::Off => return,
            Self::Epoch => ("Thu, 01 Jan 1970 00:00:01 GMT".to_owned(), "no-cache".to_owned()),
            Self::Max => ("Thu, 31 Dec 2037 23:55:55 GMT".to_owned(), "max-age=315360000".to_owned()),
            Self::Access(age) => (http_date(now, age), max_age(age)),
            Self::Modified(0) => (http_date(now, 0), max_age(0)),
            Self::Modified(age) => match last_modified(answer) {
                Some(modified) => {
                    let age = age + seconds_between(now, modified);
                    (http_date(now, age), max_age(age))
                }
                None => (http_date(now, age), max_age(age)),
            },
            Self::Daily(second) => {
                let age = until(now, second);
                (http_date(now, age), max_age(age))
            }
        };
        answer.set("Expires", expires.into_bytes());
        answer.set("Cache-Control", control.into_bytes());
    }
}

fn max_age(age: i64) -> String {
    if age < 0 { "no-cache".to_owned() } else { format!("max-age={age}") }
}

/// RFC 9110 §5.6.7; a time that cannot be said is the nearest one that can.
fn http_date(now: SystemTime, offset: i64) -> String {
    let earliest = UNIX_EPOCH;
    // httpdate writes years of four digits.
    let latest = UNIX_EPOCH + Duration::from_secs(253_402_300_799);
    let offset_by = Duration::from_secs(offset.unsigned_abs());
    let time = if offset < 0 { now.checked_sub(offset_by) } else { now.checked_add(offset_by) };
    let bound = if offset < 0 { earliest } else { latest };
    httpdate::fmt_http_date(time.unwrap_or(bound).clamp(earliest, latest))
}

fn last_modified(answer: &Draft<'_>) -> Option<SystemTime> {
    let value = answer.get("Last-Modified")?;
    httpdate::parse_http_date(std::str::from_utf8(value).ok()?).ok()
}

fn seconds_between(from: SystemTime, to: SystemTime) -> i64 {
    let seconds =
        |time: SystemTime| time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed());
    seconds(to) - seconds(from)
}

/// The seconds until the next time that the clock on the wall shows this second of the day.
fn until(now: SystemTime, second: u32) -> i64 {
    until_in(&TimeZone::system(), now, second)
}

fn until_in(zone: &TimeZone, now: SystemTime, second: u32) -> i64 {
    let Ok(now) = Timestamp::try_from(now) else { return 0 };
    let today = now.to_zoned(zone.clone()).date();
    let at = |date: Date| {
        let day_later = i64::from(second) == DAY;
        let date = if day_later { date.tomorrow().ok()? } else { date };
        let second = if day_later { 0 } else { second };
        let parts = ((second / 3600) as i8, (second / 60 % 60) as i8, (second % 60) as i8);
        let time = Time::new(parts.0, parts.1, parts.2, 0).ok()?;
        Some(date.to_datetime(time).to_zoned(zone.clone()).ok()?.timestamp().as_second())
    };
    let next = [Some(today), today.tomorrow().ok()].into_iter().flatten().filter_map(at);
    next.map(|time| time - now.as_second()).find(|left| *left > 0).unwrap_or(0)
}

/// A time as nginx's `ngx_parse_time` reads it, in seconds: units from the longest to the shortest, blanks
/// between them, a number without a unit at the end.
fn seconds(text: &str) -> Option<i64> {
    const UNITS: &[(char, i64)] =
        &[('y', 365 * DAY), ('M', 30 * DAY), ('w', 7 * DAY), ('d', DAY), ('h', 3600), ('m', 60), ('s', 1)];
    let (mut rest, mut total, mut units) = (text.trim_end_matches(' '), 0_i64, UNITS);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let number = rest[..digits].parse::<i64>().ok()?;
        let unit = rest[digits..].chars().next();
        let (factor, left) = match unit {
            None | Some(' ') => (1, &units[units.len()..]),
            Some(unit) => {
                let place = units.iter().position(|(name, _)| *name == unit)?;
                (units[place].1, &units[place + 1..])
            }
        };
        total = number.checked_mul(factor).and_then(|part| total.checked_add(part))?;
        rest = rest[digits + unit.map_or(0, char::len_utf8)..].trim_start_matches(' ');
        units = left;
        if unit.is_none_or(|unit| unit == ' ') && !rest.is_empty() {
            return None;
        }
    }
    // Far enough from what a clock can add up.
    (total <= 10_000 * 365 * DAY).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sat, 21 Nov 2026 06:35:51 GMT
    const NOW: u64 = 1_795_242_951;

    fn told(expires: &str, is_modified: bool, fields: &[(&'static str, &'static str)]) -> [String; 2] {
        let mut answer = Draft::new(200);
        for (name, value) in fields {
            answer.push(name.as_bytes(), value.as_bytes());
        }
        let expiry = Expiry::parse(expires, is_modified).unwrap();
        expiry.apply(&mut answer, UNIX_EPOCH + Duration::from_secs(NOW));
        let text = |name| String::from_utf8_lossy(answer.get(name).unwrap_or_default()).into_owned();
        [text("Expires"), text("Cache-Control")]
    }

    #[test]
    fn expires_says_what_nginx_says() {
        for (expires, date, control) in [
            ("epoch", "Thu, 01 Jan 1970 00:00:01 GMT", "no-cache"),
            ("max", "Thu, 31 Dec 2037 23:55:55 GMT", "max-age=315360000"),
            ("0", "Sat, 21 Nov 2026 06:35:51 GMT", "max-age=0"),
            ("1h", "Sat, 21 Nov 2026 07:35:51 GMT", "max-age=3600"),
            ("+1h", "Sat, 21 Nov 2026 07:35:51 GMT", "max-age=3600"),
            ("-1", "Sat, 21 Nov 2026 06:35:50 GMT", "no-cache"),
            ("off", "", ""),
        ] {
            assert_eq!(told(expires, false, &[]), [date, control], "{expires}");
        }
    }

    #[test]
    fn modified_counts_from_last_modified() {
        let modified = [("last-modified", "Sat, 21 Nov 2026 06:00:00 GMT")];
        assert_eq!(told("1h", true, &modified), ["Sat, 21 Nov 2026 07:00:00 GMT", "max-age=1449"]);
        assert_eq!(told("1m", true, &modified), ["Sat, 21 Nov 2026 06:01:00 GMT", "no-cache"]);
        assert_eq!(told("1m", true, &[]), ["Sat, 21 Nov 2026 06:36:51 GMT", "max-age=60"]);
        assert_eq!(told("0", true, &modified), ["Sat, 21 Nov 2026 06:35:51 GMT", "max-age=0"]);
    }

    #[test]
    fn what_was_said_before_is_replaced_in_its_place() {
        let fields = [("Cache-Control", "private"), ("expires", "x"), ("Cache-Control", "no-store")];
        assert_eq!(told("60", false, &fields)[1], "max-age=60");
    }

    #[test]
    fn a_time_of_day_is_the_next_one() {
        let now = UNIX_EPOCH + Duration::from_secs(NOW);
        let zone = TimeZone::fixed(jiff::tz::offset(5)); // 11:35:51
        for (second, left) in [
            (11 * 3600 + 35 * 60 + 52, 1),
            (11 * 3600 + 35 * 60 + 51, DAY),
            (0, 44_649),
            (DAY as u32, 44_649),
        ] {
            assert_eq!(until_in(&zone, now, second), left, "{second}");
        }
    }

    #[test]
    fn times_are_read_as_nginx_does() {
        for (text, time) in [
            ("2048", Some(2048)),
            ("1y", Some(365 * DAY)),
            ("1M", Some(30 * DAY)),
            ("1d 12h", Some(DAY + 43_200)),
            ("15h30m33s", Some(55_833)),
            ("1h 5", Some(3605)),
            ("1h1d", None),
            ("5 1h", None),
            ("1ms", None),
            ("1x", None),
            ("h", None),
            ("", None),
            ("99999999999999999999", None),
            ("9223372036854775807y", None),
        ] {
            assert_eq!(seconds(text), time, "{text}");
        }
    }

    #[test]
    fn values_that_nginx_refuses_are_refused() {
        for (text, is_modified) in
            [("@25h", false), ("@1h", true), ("epoch", true), ("bad", false), ("", false)]
        {
            assert!(Expiry::parse(text, is_modified).is_err(), "{text}");
        }
        assert_eq!(Expiry::parse("@15h30m", false), Ok(Expiry::Daily(55_800)));
    }
}
