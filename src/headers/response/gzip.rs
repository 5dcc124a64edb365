//! Whether an answer is compressed, by nginx's rules and two of hopgate's own.

use std::time::SystemTime;

use super::draft::Draft;
use crate::config::{Gzip, GzipProxied};
use crate::headers::list;
use crate::http1::head::{RequestHead, Version};

/// Decides whether an answer is compressed; if so its fields say it from now on. `length` is that of its body,
/// if it is known; `can_be` says whether it could be sent so.
pub fn decide(
    rules: &Gzip,
    answer: &mut Draft<'_>,
    request: &RequestHead,
    length: Option<u64>,
    can_be: bool,
) -> bool {
    let is_encoded = answer.get("Content-Encoding").is_some_and(|value| !value.is_empty());
    if !matches!(answer.status, 200 | 403 | 404)
        || is_encoded
        || length.is_some_and(|length| length < rules.min_length.max(1))
        || !rules.types.contain(answer)
        || must_stay_as_it_is(answer)
    {
        return false;
    }
    // Another request could have been answered otherwise: caches are told, whatever this one gets.
    if rules.vary && !list::contains(answer.values("Vary"), "Accept-Encoding") {
        answer.push(&b"Vary"[..], &b"Accept-Encoding"[..]);
    }
    let is_spoken = request.version != Version::Http10 || rules.http10;
    if !can_be || !is_spoken || !accepts_gzip(request) || !passes_proxies(&rules.proxied, answer, request) {
        return false;
    }
    answer.set("Content-Encoding", b"gzip".to_vec());
    answer.remove("Content-Length");
    // They would be ranges of another body.
    answer.remove("Accept-Ranges");
    weaken_etag(answer);
    true
}

/// Not nginx's: an event must not wait for the next one, and RFC 9111 §5.2.2.6 forbids the change.
fn must_stay_as_it_is(answer: &Draft<'_>) -> bool {
    let event_stream = |value: &[u8]| {
        let media_type = value.split(|byte| *byte == b';').next().unwrap_or_default();
        media_type.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
    };
    answer.get("Content-Type").is_some_and(event_stream)
        || list::contains(answer.values("Cache-Control"), "no-transform")
}

/// RFC 9110 §8.8.1: bodies that are not the same byte for byte share no strong validator.
fn weaken_etag(answer: &mut Draft<'_>) {
    match answer.get("ETag") {
        None => {}
        Some(tag) if tag.starts_with(b"W/") => {}
        Some(tag) if tag.starts_with(b"\"") => {
            let weak = [b"W/", tag].concat();
            answer.set("ETag", weak);
        }
        Some(_) => answer.remove("ETag"),
    }
}

/// Whether `gzip` is among the codings, RFC 9110 §12.5.3, with a weight that is one and not 0.
fn accepts_gzip(request: &RequestHead) -> bool {
    let wanted = list::members(request.fields.named("accept-encoding")).find_map(|member| {
        let (coding, weight) = match memchr::memchr(b';', member) {
            Some(at) => (&member[..at], Some(member[at + 1..].trim_ascii())),
            None => (member, None),
        };
        coding.trim_ascii().eq_ignore_ascii_case(b"gzip").then_some(weight)
    });
    match wanted {
        None => false,
        Some(None | Some(b"")) => true,
        Some(Some([b'q' | b'Q', b'=', weight @ ..])) => is_positive(weight),
        Some(Some(_)) => false,
    }
}

/// A weight from 0.001 to 1.000; a malformed one counts as 0.
fn is_positive(weight: &[u8]) -> bool {
    match weight {
        b"1" => true,
        [b'0', b'.', digits @ ..] if digits.len() <= 3 => {
            digits.iter().all(u8::is_ascii_digit) && digits.iter().any(|digit| *digit != b'0')
        }
        [b'1', b'.', digits @ ..] => digits.len() <= 3 && digits.iter().all(|digit| *digit == b'0'),
        _ => false,
    }
}

/// Whether an answer for another proxy, which `Via` tells of, may be compressed.
fn passes_proxies(allowed: &[GzipProxied], answer: &Draft<'_>, request: &RequestHead) -> bool {
    let allows = |what| allowed.contains(&what);
    if request.fields.named("via").next().is_none() {
        return true;
    }
    if allows(GzipProxied::Off) || allowed.is_empty() {
        return false;
    }
    let has_credentials = request.fields.named("authorization").next().is_some();
    if allows(GzipProxied::Any) || (allows(GzipProxied::Auth) && has_credentials) {
        return true;
    }
    if let Some(expires) = answer.get("Expires") {
        return allows(GzipProxied::Expired) && is_past(expires, answer.get("Date"));
    }
    if answer.get("Cache-Control").is_some() {
        let says = |directive| list::contains(answer.values("Cache-Control"), directive);
        return (allows(GzipProxied::NoCache) && says("no-cache"))
            || (allows(GzipProxied::NoStore) && says("no-store"))
            || (allows(GzipProxied::Private) && says("private"));
    }
    !(allows(GzipProxied::NoLastModified) && answer.get("Last-Modified").is_some()
        || allows(GzipProxied::NoEtag) && answer.get("ETag").is_some())
}

fn is_past(expires: &[u8], date: Option<&[u8]>) -> bool {
    let time = |value: &[u8]| httpdate::parse_http_date(std::str::from_utf8(value).ok()?).ok();
    let now = date.map_or_else(|| Some(SystemTime::now()), time);
    time(expires).zip(now).is_some_and(|(expires, now)| expires < now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::response::content_type::MediaTypes;
    use crate::http1::head::{self, HeadLimits, Progress};

    fn request(fields: &str) -> RequestHead {
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let limits = HeadLimits { size: 4096, fields: 32 };
        match head::request(text.as_bytes(), 0, limits) {
            Ok(Progress::Whole(head, _)) => head,
            other => panic!("{other:?}"),
        }
    }

    fn answer(fields: &[(&'static str, &'static str)]) -> Draft<'static> {
        let mut answer = Draft::new(200);
        answer.push(&b"Content-Type"[..], &b"text/html"[..]);
        for (name, value) in fields {
            answer.push(name.as_bytes(), value.as_bytes());
        }
        answer
    }

    fn rules() -> Gzip {
        Gzip {
            level: 1,
            types: MediaTypes::these(&["text/html", "text/event-stream"]),
            min_length: 20,
            proxied: vec![GzipProxied::Off],
            vary: false,
            http10: false,
        }
    }

    #[test]
    fn gzip_is_used_if_the_client_accepts_it() {
        for (value, accepted) in [
            ("gzip", true),
            ("gzip, deflate, br", true),
            ("deflate, GZIP;q=0.5", true),
            ("br;q=1.0, gzip; q=0.001", true),
            ("gzip;q=1.000", true),
            ("gzip;", true),
            ("gzip;q=0", false),
            ("gzip;q=0.000", false),
            ("gzip;q=1.001", false),
            ("gzip;q=2", false),
            ("gzip;q=0.0001", false),
            ("gzip;x=1", false),
            ("x-gzip", false),
            ("gzipped", false),
            ("*", false),
            ("", false),
        ] {
            assert_eq!(accepts_gzip(&request(&format!("Accept-Encoding: {value}\r\n"))), accepted, "{value}");
        }
        assert!(!accepts_gzip(&request("")));
    }

    #[test]
    fn answers_that_gain_nothing_or_must_stay_as_they_are_stay() {
        let asked = request("Accept-Encoding: gzip\r\n");
        let decided = |mut answer: Draft<'_>, length| decide(&rules(), &mut answer, &asked, length, true);
        assert!(decided(answer(&[]), None) && decided(answer(&[]), Some(20)));
        assert!(!decided(answer(&[]), Some(19)));
        let least = Gzip { min_length: 0, ..rules() };
        assert!(!decide(&least, &mut answer(&[]), &asked, Some(0), true), "nothing gains nothing");
        for fields in [("Content-Encoding", "br"), ("Cache-Control", "max-age=1, no-transform")] {
            assert!(!decided(answer(&[fields]), None), "{fields:?}");
        }
        for content_type in ["text/event-stream", "text/event-stream; charset=utf-8", "image/png"] {
            let mut other = answer(&[]);
            other.set("Content-Type", content_type.into());
            assert!(!decided(other, None), "{content_type}");
        }
        for (status, compressed) in [(404, true), (403, true), (206, false), (204, false), (500, false)] {
            let mut other = answer(&[]);
            other.status = status;
            assert_eq!(decided(other, None), compressed, "{status}");
        }
    }

    #[test]
    fn what_was_true_of_the_body_alone_is_said_no_longer() {
        let asked = request("Accept-Encoding: gzip\r\n");
        for (tag, expected) in [("\"a\"", Some("W/\"a\"")), ("W/\"a\"", Some("W/\"a\"")), ("a", None)] {
            let mut answer = answer(&[
                ("ETag", tag),
                ("Content-Length", "99"),
                ("Accept-Ranges", "bytes"),
                ("vary", "Cookie"),
            ]);
            assert!(decide(&Gzip { vary: true, ..rules() }, &mut answer, &asked, Some(99), true));
            assert_eq!(answer.get("ETag"), expected.map(str::as_bytes), "{tag}");
            assert_eq!((answer.get("Content-Length"), answer.get("Accept-Ranges")), (None, None));
            assert_eq!(answer.get("Content-Encoding"), Some(&b"gzip"[..]));
            assert_eq!(answer.values("Vary").collect::<Vec<_>>(), [&b"Cookie"[..], b"Accept-Encoding"]);
        }
    }

    #[test]
    fn vary_is_told_to_those_who_do_not_accept_gzip_too_and_once() {
        let mut plain = answer(&[("Vary", "accept-encoding")]);
        assert!(!decide(&Gzip { vary: true, ..rules() }, &mut plain, &request(""), None, true));
        assert_eq!(plain.values("Vary").count(), 1);
        let mut plain = answer(&[]);
        assert!(!decide(&Gzip { vary: true, ..rules() }, &mut plain, &request(""), None, true));
        assert_eq!(plain.get("Vary"), Some(&b"Accept-Encoding"[..]));
    }

    #[test]
    fn answers_for_other_proxies_are_compressed_as_gzip_proxied_says() {
        use GzipProxied::{Any, Auth, Expired, NoCache, NoEtag, NoLastModified, NoStore, Off, Private};
        let past = ("Expires", "Thu, 01 Jan 1970 00:00:01 GMT");
        let future = ("Expires", "Thu, 31 Dec 2099 23:55:55 GMT");
        for (allowed, fields, compressed) in [
            (&[Off][..], &[][..], false),
            (&[Any], &[future][..], true),
            (&[Expired], &[past], true),
            (&[Expired], &[future], false),
            (&[NoCache], &[past], false),
            (&[NoCache], &[("Cache-Control", "a, no-cache")], true),
            (&[NoStore, Private], &[("Cache-Control", "private")], true),
            (&[NoStore], &[("Cache-Control", "private")], false),
            (&[NoLastModified], &[], true),
            (&[NoLastModified], &[("Last-Modified", "x")], false),
            (&[NoEtag], &[("ETag", "\"x\"")], false),
            (&[Auth], &[("Cache-Control", "max-age=1")], false),
        ] {
            let got = passes_proxies(allowed, &answer(fields), &request("Via: 1.1 a\r\n"));
            assert_eq!(got, compressed, "{allowed:?} {fields:?}");
        }
        let with_credentials = request("Via: 1.1 a\r\nAuthorization: x\r\n");
        assert!(passes_proxies(&[Auth], &answer(&[future]), &with_credentials));
        assert!(passes_proxies(&[Off], &answer(&[]), &request("")));
    }
}
