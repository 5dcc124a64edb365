//! Parts of a file: what `Range` asks for, and how several parts go into one answer.

use std::ops::Range;

/// What a `Range` comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parts {
    /// The whole file, as without a `Range`.
    Whole,
    /// These parts, at least one.
    Some(Vec<Range<u64>>),
    /// None of what is asked for is there, or it makes no sense: 416.
    Unsatisfiable,
}

/// What parts a `Range` (RFC 9110 §14.2) asks for of a file with `size` bytes, with at most `most` of them.
/// The answers are nginx's, for what breaks the grammar too; so no crate reads it.
pub fn parse(value: &[u8], size: u64, most: Option<u64>) -> Parts {
    let unit = b"bytes=";
    if value.len() <= unit.len() || !value[..unit.len()].eq_ignore_ascii_case(unit) || most == Some(0) {
        return Parts::Whole;
    }
    let mut parts: Vec<Range<u64>> = Vec::new();
    for member in value[unit.len()..].split(|byte| *byte == b',') {
        let Some(part) = member_of(member, size) else { return Parts::Unsatisfiable };
        if part.start < part.end {
            parts.push(part);
            if most.is_some_and(|most| parts.len() as u64 > most) {
                return Parts::Whole;
            }
        } else if part.start == 0 {
            // An empty file, or its last 0 bytes.
            return Parts::Whole;
        }
    }
    let total: u64 = parts.iter().map(|part| part.end - part.start).fold(0, u64::saturating_add);
    match parts.len() {
        0 => Parts::Unsatisfiable,
        1 => Parts::Some(parts),
        // RFC 9110 §14.2 about many small or overlapping ranges: they are a way to ask for more than there is.
        _ if total > size => Parts::Whole,
        count if most.is_none() && total + count as u64 * 256 > size + 4096 => Parts::Whole,
        _ => Parts::Some(parts),
    }
}

/// One part, which may be empty; `None` if it breaks the grammar.
fn member_of(member: &[u8], size: u64) -> Option<Range<u64>> {
    let blanks = |bytes: &[u8]| bytes.iter().take_while(|byte| **byte == b' ').count();
    let member = &member[blanks(member)..];
    let (first, rest) = number(member)?;
    let rest = rest[blanks(rest)..].strip_prefix(b"-")?;
    // nginx takes a blank before the last number, but none before that of a suffix.
    let rest = if first.is_some() { &rest[blanks(rest)..] } else { rest };
    let (last, rest) = number(rest)?;
    if blanks(rest) != rest.len() {
        return None;
    }
    match (first, last) {
        (Some(first), Some(last)) => Some(first..last.saturating_add(1).min(size)),
        (Some(first), None) => Some(first..size),
        (None, Some(length)) => Some(size.saturating_sub(length)..size),
        (None, None) => None,
    }
}

/// The number that the bytes begin with, if they do, and what stands behind it; `None` if it is greater than
/// a file can be.
fn number(bytes: &[u8]) -> Option<(Option<u64>, &[u8])> {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = bytes.split_at(digits);
    if digits.is_empty() {
        return Some((None, rest));
    }
    let number = std::str::from_utf8(digits).ok()?.parse::<i64>().ok()?;
    Some((Some(number.unsigned_abs()), rest))
}

/// `Content-Range` of a part.
pub fn content_range(part: &Range<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", part.start, part.end - 1)
}

/// What stands between the parts of a `multipart/byteranges`, RFC 9110 §14.6.
#[derive(Clone, Debug)]
pub struct Boundary(String);

impl Boundary {
    /// One that no file has in it by chance.
    pub fn random() -> Self {
        Self(format!("{:020}", fastrand::u64(..)))
    }

    /// The type of the whole answer.
    pub fn content_type(&self) -> String {
        format!("multipart/byteranges; boundary={}", self.0)
    }

    /// What stands before a part.
    pub fn before(&self, content_type: &str, part: &Range<u64>, size: u64) -> Vec<u8> {
        let range = content_range(part, size);
        format!("\r\n--{}\r\nContent-Type: {content_type}\r\nContent-Range: {range}\r\n\r\n", self.0)
            .into_bytes()
    }

    /// What stands behind the last part.
    pub fn end(&self) -> Vec<u8> {
        format!("\r\n--{}--\r\n", self.0).into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_as_nginx_reads_it() {
        let one = |part| Parts::Some(vec![part]);
        for (value, expected) in [
            ("bytes=0-8", one(0..9)),
            ("BYTES=0-8", one(0..9)),
            ("bytes= 0 - 8 ", one(0..9)),
            ("bytes=-10", one(990..1000)),
            ("bytes=-5000", one(0..1000)),
            ("bytes=990-", one(990..1000)),
            ("bytes=990-1990", one(990..1000)),
            ("bytes=990-9223372036854775807", one(990..1000)),
            ("bytes=0-9, -10, 100000-, 10-19", Parts::Some(vec![0..10, 990..1000, 10..20])),
            ("bytes=0-0,2-2", Parts::Some(vec![0..1, 2..3])),
            ("bytes=8-5, 1-1", one(1..2)),
            ("bytes=", Parts::Whole),
            ("lines=0-8", Parts::Whole),
            ("bytes 0-8", Parts::Whole),
            ("bytes=0-10001, 0-0", Parts::Whole),
            ("bytes=-0", Parts::Unsatisfiable),
            ("bytes=1000-", Parts::Unsatisfiable),
            ("bytes=8-5", Parts::Unsatisfiable),
            ("bytes=alpha", Parts::Unsatisfiable),
            ("bytes=10-alpha", Parts::Unsatisfiable),
            ("bytes=10", Parts::Unsatisfiable),
            ("bytes=-", Parts::Unsatisfiable),
            ("bytes=- 5", Parts::Unsatisfiable),
            ("bytes=0-1,", Parts::Unsatisfiable),
            ("bytes=10-11 12-", Parts::Unsatisfiable),
            ("bytes=9223372036854775808-", Parts::Unsatisfiable),
            ("bytes=\t0-8", Parts::Unsatisfiable),
        ] {
            assert_eq!(parse(value.as_bytes(), 1000, None), expected, "{value}");
        }
    }

    #[test]
    fn of_an_empty_file_there_are_no_parts() {
        assert_eq!(parse(b"bytes=0-", 0, None), Parts::Whole);
        assert_eq!(parse(b"bytes=-5", 0, None), Parts::Whole);
        assert_eq!(parse(b"bytes=1-", 0, None), Parts::Unsatisfiable);
    }

    #[test]
    fn more_ranges_than_allowed_are_answered_with_the_whole() {
        assert_eq!(parse(b"bytes=0-9,-10", 1000, Some(2)), Parts::Some(vec![0..10, 990..1000]));
        assert_eq!(parse(b"bytes=0-9,-10,5000-", 1000, Some(2)), Parts::Some(vec![0..10, 990..1000]));
        assert_eq!(parse(b"bytes=0-9,-10,10-19", 1000, Some(2)), Parts::Whole);
        assert_eq!(parse(b"bytes=0-9", 1000, Some(0)), Parts::Whole);
    }

    #[test]
    fn many_small_ranges_cost_no_more_than_the_whole() {
        let many = |count: usize| format!("bytes={}", vec!["0-0"; count].join(","));
        assert_eq!(parse(many(15).as_bytes(), 1000, None), Parts::Some(vec![0..1; 15]));
        assert_eq!(parse(many(20).as_bytes(), 1000, None), Parts::Whole);
        assert_eq!(parse(many(20).as_bytes(), 1000, Some(20)), Parts::Some(vec![0..1; 20]));
    }
}
