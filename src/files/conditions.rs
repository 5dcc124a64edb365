//! Whether a client needs a file at all: the preconditions of RFC 9110 §13, compared as nginx does.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::config::IfModifiedSince;
use crate::headers::fields::Fields;

/// What preconditions are compared with.
#[derive(Clone, Copy, Debug)]
pub struct Validators<'a> {
    /// When the file was changed last, in seconds since 1970.
    pub modified: i64,
    /// Its `ETag`, if it has one.
    pub etag: Option<&'a str>,
}

/// What comes of the preconditions of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The file is sent.
    Send,
    /// The client has it already: 304.
    NotModified,
    /// The client wants another one: 412.
    Failed,
}

impl Validators<'_> {
    /// Looks at the preconditions of a request.
    pub fn judge(self, fields: &Fields, rule: IfModifiedSince) -> Verdict {
        let unmodified_since = value(fields, "if-unmodified-since");
        if unmodified_since.is_some_and(|since| time(since).is_none_or(|since| since < self.modified)) {
            return Verdict::Failed;
        }
        if has(fields, "if-match") && !self.is_one_of(fields, "if-match", false) {
            return Verdict::Failed;
        }
        let modified_since = value(fields, "if-modified-since");
        let has_none_match = has(fields, "if-none-match");
        // RFC 9110 §13.1.3 would not look at the date beside an `If-None-Match`; nginx wants both to agree.
        let is_same = modified_since.is_none_or(|since| !self.is_modified_since(since, rule))
            && (!has_none_match || self.is_one_of(fields, "if-none-match", true));
        match is_same && (modified_since.is_some() || has_none_match) {
            true => Verdict::NotModified,
            false => Verdict::Send,
        }
    }

    /// Whether `Range` holds: only if what `If-Range` speaks of is the same as now (RFC 9110 §13.1.5).
    pub fn allow_ranges(self, fields: &Fields) -> bool {
        match value(fields, "if-range") {
            None => true,
            Some(value) if value.len() >= 2 && value.ends_with(b"\"") => {
                self.etag.is_some_and(|etag| etag.as_bytes() == value)
            }
            Some(value) => time(value) == Some(self.modified),
        }
    }

    fn is_modified_since(self, value: &[u8], rule: IfModifiedSince) -> bool {
        let since = time(value);
        match rule {
            IfModifiedSince::Off => true,
            IfModifiedSince::Exact => since != Some(self.modified),
            IfModifiedSince::Before => since.is_none_or(|since| since < self.modified),
        }
    }

    /// Whether the file's `ETag` is in a list of them; `*` is every file's.
    fn is_one_of(self, fields: &Fields, name: &str, is_weak: bool) -> bool {
        values(fields, name).any(|list| {
            list == b"*" || self.etag.is_some_and(|etag| is_in_list(list, etag.as_bytes(), is_weak))
        })
    }
}

/// Whether an entity tag is in a list. A weak comparison (RFC 9110 §8.8.3.2) does not look at the `W/`.
fn is_in_list(mut list: &[u8], etag: &[u8], is_weak: bool) -> bool {
    let plain = |tag: &[u8]| if is_weak && tag.starts_with(b"W/") { 2 } else { 0 };
    let etag = &etag[plain(etag)..];
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    while !list.is_empty() {
        list = &list[plain(list)..];
        if let Some(rest) = list.strip_prefix(etag) {
            let end = rest.iter().position(|byte| !is_blank(byte)).unwrap_or(rest.len());
            if rest.get(end).is_none_or(|byte| *byte == b',') {
                return true;
            }
        }
        let comma = memchr::memchr(b',', list).unwrap_or(list.len());
        let next = list[comma..].iter().position(|byte| !is_blank(byte) && *byte != b',');
        list = next.map_or(b"", |next| &list[comma + next..]);
    }
    false
}

/// Seconds since 1970 of a date in one of the three forms of RFC 9110 §5.6.7.
fn time(value: &[u8]) -> Option<i64> {
    let time = httpdate::parse_http_date(std::str::from_utf8(value).ok()?).ok()?;
    i64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_secs()).ok()
}

/// A time as `Last-Modified` says it. What lies before 1970 is told as that year's beginning, as in nginx.
pub fn date(seconds: i64) -> String {
    /// The last second of the year 9999, behind which the form has no more digits.
    const LAST: u64 = 253_402_300_799;
    let seconds = u64::try_from(seconds).unwrap_or(0).min(LAST);
    let time: SystemTime = UNIX_EPOCH + Duration::from_secs(seconds);
    httpdate::fmt_http_date(time)
}

/// nginx's `ETag` of a file.
pub fn etag(modified: i64, size: u64) -> String {
    let sign = if modified < 0 { "-" } else { "" };
    format!("\"{sign}{:x}-{size:x}\"", modified.unsigned_abs())
}

fn has(fields: &Fields, name: &str) -> bool {
    value(fields, name).is_some()
}

/// The value of the first field of this name.
pub fn value<'a>(fields: &'a Fields, name: &str) -> Option<&'a [u8]> {
    values(fields, name).next()
}

fn values<'a>(fields: &'a Fields, name: &str) -> impl Iterator<Item = &'a [u8]> {
    fields
        .iter()
        .filter(move |field| field.name.eq_ignore_ascii_case(name.as_bytes()))
        .map(|field| field.value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use IfModifiedSince::{Before, Exact, Off};
    use Verdict::{Failed, NotModified, Send};

    const NOW: i64 = 784_111_777;
    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const EARLIER: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const LATER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    fn fields(lines: &[(&str, &str)]) -> Fields {
        let mut bytes = Vec::new();
        let mut places = Vec::new();
        for (name, value) in lines {
            let start = bytes.len();
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(value.as_bytes());
            places.push((start..start + name.len(), start + name.len()..bytes.len()));
        }
        let mut fields = Fields::over(bytes, places.len());
        for (name, value) in places {
            fields.push(name, value);
        }
        fields
    }

    fn judge(lines: &[(&str, &str)], rule: IfModifiedSince) -> Verdict {
        Validators { modified: NOW, etag: Some("\"a-1\"") }.judge(&fields(lines), rule)
    }

    #[test]
    fn a_date_is_compared_by_the_rule() {
        for (since, exact, before) in [
            (DATE, NotModified, NotModified),
            ("Sunday, 06-Nov-94 08:49:37 GMT", NotModified, NotModified),
            ("Sun Nov  6 08:49:37 1994", NotModified, NotModified),
            (EARLIER, Send, Send),
            (LATER, Send, NotModified),
            ("yesterday", Send, Send),
        ] {
            assert_eq!(judge(&[("If-Modified-Since", since)], Exact), exact, "{since}");
            assert_eq!(judge(&[("if-modified-since", since)], Before), before, "{since}");
            assert_eq!(judge(&[("If-Modified-Since", since)], Off), Send, "{since}");
        }
    }

    #[test]
    fn a_list_of_tags_is_looked_through() {
        for (list, none_match, matches) in [
            ("\"a-1\"", NotModified, Send),
            ("*", NotModified, Send),
            ("W/\"a-1\"", NotModified, Failed),
            ("\"x\", \"y\", \t\"a-1\" , \"z\"", NotModified, Send),
            ("\"x\",W/\"a-1\"", NotModified, Failed),
            ("\"a-1", Send, Failed),
            ("\"a-1\"x", Send, Failed),
            ("\"x\"", Send, Failed),
            (",", Send, Failed),
            ("", Send, Failed),
        ] {
            assert_eq!(judge(&[("If-None-Match", list)], Exact), none_match, "{list}");
            assert_eq!(judge(&[("If-Match", list)], Exact), matches, "{list}");
        }
        assert_eq!(judge(&[("If-None-Match", "\"x\""), ("If-None-Match", "\"a-1\"")], Exact), NotModified);
        let none = Validators { modified: NOW, etag: None };
        assert_eq!(none.judge(&fields(&[("If-None-Match", "\"a-1\"")]), Exact), Send);
        assert_eq!(none.judge(&fields(&[("If-Match", "*")]), Exact), Send);
    }

    #[test]
    fn conditions_go_together_as_in_nginx() {
        let both = |since, tag| judge(&[("If-Modified-Since", since), ("If-None-Match", tag)], Exact);
        assert_eq!(both(DATE, "\"a-1\""), NotModified);
        assert_eq!(both(EARLIER, "\"a-1\""), Send);
        assert_eq!(both(DATE, "\"x\""), Send);
        for (since, expected) in [(DATE, Send), (LATER, Send), (EARLIER, Failed), ("never", Failed)] {
            assert_eq!(judge(&[("If-Unmodified-Since", since)], Exact), expected, "{since}");
        }
        assert_eq!(judge(&[("If-Unmodified-Since", LATER), ("If-Match", "\"x\"")], Exact), Failed);
        assert_eq!(judge(&[], Exact), Send);
    }

    #[test]
    fn ranges_hold_for_the_file_that_they_were_meant_for() {
        for (if_range, expected) in [
            ("\"a-1\"", true),
            ("W/\"a-1\"", false),
            ("\"x\"", false),
            (DATE, true),
            (LATER, false),
            ("?", false),
        ] {
            let validators = Validators { modified: NOW, etag: Some("\"a-1\"") };
            assert_eq!(validators.allow_ranges(&fields(&[("If-Range", if_range)])), expected, "{if_range}");
        }
        let none = Validators { modified: NOW, etag: None };
        assert!(!none.allow_ranges(&fields(&[("If-Range", "\"a-1\"")])));
        assert!(none.allow_ranges(&fields(&[])));
    }

    #[test]
    fn a_file_of_any_age_has_a_date_and_a_tag() {
        assert_eq!(date(NOW), DATE);
        assert_eq!(date(-1), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(date(i64::MAX), "Fri, 31 Dec 9999 23:59:59 GMT");
        assert_eq!(etag(NOW, 1000), "\"2ebc98a1-3e8\"");
        assert_eq!(etag(-10, 0), "\"-a-0\"");
    }
}
