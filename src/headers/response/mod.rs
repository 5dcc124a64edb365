//! What a location changes about the fields of an answer, in nginx's order: what the upstream said is hidden
//! and rewritten, then `expires` and `add_header`, then the charset, then gzip.

pub mod content_type;
pub mod cookie;
pub mod draft;
pub mod expires;
pub mod gzip;
mod rewrite;

use std::time::SystemTime;

use crate::config::ResponseRules;
use crate::http1::head::ResponseHead;
use crate::routing::regex::Regex;
use crate::routing::variables::Template;
use draft::{Draft, is_clean};
use expires::{Expires, Expiry};

/// What rules are filled in with, for one request.
pub trait Fill {
    /// The text of a template; `$sent_http_NAME` are the fields of `answer`.
    fn text(&self, template: &Template, answer: &Draft<'_>) -> Vec<u8>;

    /// Whether an expression matches; if so, templates can ask for its groups from now on.
    fn matches(&self, regex: &Regex, subject: &[u8]) -> bool;

    /// The absolute form of a path that a client is sent to. nginx: `absolute_redirect`.
    fn absolute(&self, path: Vec<u8>) -> Vec<u8>;
}

/// Fields by which an app speaks to the proxy in front of it, and one that only old servers send. They go no
/// further, as with nginx; unlike with nginx, the upstream's `Date` and `Server` do.
pub const HIDDEN: &[&str] = &[
    "X-Accel-Buffering",
    "X-Accel-Charset",
    "X-Accel-Expires",
    "X-Accel-Limit-Rate",
    "X-Accel-Redirect",
    "X-Pad",
];

/// What a name means to the rules that every location has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Ordinary,
    Hidden,
    /// `Location` and `Refresh`.
    Redirect,
}

impl Role {
    fn of(name: &[u8]) -> Self {
        // The lengths of those that are looked for tell most names apart.
        let is = |known: &&&str| known.as_bytes().eq_ignore_ascii_case(name);
        match name.len() {
            7 if is(&&"Refresh") => Self::Redirect,
            8 if is(&&"Location") => Self::Redirect,
            5 | 15..=18 if HIDDEN.iter().any(|known| is(&known)) => Self::Hidden,
            _ => Self::Ordinary,
        }
    }
}

impl ResponseRules {
    /// Whether the fields of an upstream's answer have to be looked at one by one. If not, they are passed on
    /// as they came: the usual case costs no more than this question.
    pub fn touch(&self, head: &ResponseHead) -> bool {
        self.touch_all()
            || head.fields.iter().any(|field| match Role::of(field.name) {
                Role::Ordinary => false,
                Role::Hidden => true,
                Role::Redirect => !self.redirects.is_empty(),
            })
    }

    fn touch_all(&self) -> bool {
        let has_cookie_rules = !self.cookies.paths.is_empty()
            || !self.cookies.domains.is_empty()
            || !self.cookies.flags.is_empty();
        self.touch_own() || !self.hidden.is_empty() || has_cookie_rules
    }

    /// Whether there are rules for every answer, hopgate's own among them.
    pub fn touch_own(&self) -> bool {
        !self.added.is_empty() || self.expires.is_some() || self.charset.is_some() || self.gzip.is_some()
    }

    /// Whether a field of the upstream's goes no further.
    fn hide(&self, name: &[u8]) -> bool {
        let is = |field: &crate::headers::FieldName| field.as_str().as_bytes().eq_ignore_ascii_case(name);
        let is_hidden = Role::of(name) == Role::Hidden || self.hidden.iter().any(is);
        is_hidden && !self.passed.iter().any(is)
    }

    /// The fields of an upstream's answer, with those left out that are hidden, and with the redirects and
    /// cookies rewritten.
    pub fn of_upstream<'a>(&self, head: &'a ResponseHead, fill: &dyn Fill) -> Draft<'a> {
        let mut answer = Draft::of(head, |name| !self.hide(name));
        let mut changed = Vec::new();
        for (index, line) in answer.lines().iter().enumerate() {
            let value = &*line.value;
            let new = if line.is("Location") {
                rewrite::location(&self.redirects, value, fill, &answer)
            } else if line.is("Refresh") {
                rewrite::refresh(&self.redirects, value, fill, &answer)
            } else if line.is("Set-Cookie") {
                cookie::rewrite(&self.cookies, value, fill, &answer)
            } else {
                None
            };
            // A variable can hold any byte (R17): a value that would break the head is left as it came.
            changed.extend(new.filter(|new| is_clean(new)).map(|new| (index, new)));
        }
        for (index, value) in changed {
            answer.replace(index, value);
        }
        answer
    }

    /// Gives an answer what every answer gets: `expires`, `add_header`, the charset.
    pub fn complete(&self, answer: &mut Draft<'_>, fill: &dyn Fill) {
        let is_safe = matches!(answer.status, 200 | 201 | 204 | 206 | 301 | 302 | 303 | 304 | 307 | 308);
        let expiry = self.expires.as_ref().filter(|_| is_safe).map(|expires| match expires {
            Expires::Fixed(expiry) => *expiry,
            Expires::Variable { is_modified, value } => {
                let text = fill.text(value, answer);
                let expiry = std::str::from_utf8(&text).ok().map(|text| Expiry::parse(text, *is_modified));
                expiry.and_then(Result::ok).unwrap_or(Expiry::Off)
            }
        });
        if let Some(expiry) = expiry {
            expiry.apply(answer, SystemTime::now());
        }
        for field in self.added.iter().filter(|field| is_safe || field.always) {
            let value = fill.text(&field.value, answer);
            match field.name.as_str() {
                // nginx: of these there is one; an empty value takes it away.
                name if name.eq_ignore_ascii_case("Last-Modified") => set(answer, "Last-Modified", value),
                name if name.eq_ignore_ascii_case("ETag") => set(answer, "ETag", value),
                _ => answer.add(&field.name, value),
            }
        }
        if let Some(charset) = &self.charset {
            let name = fill.text(&charset.name, answer);
            if is_clean(&name) {
                content_type::add_charset(answer, &charset.types, &name);
            }
        }
    }
}

fn set(answer: &mut Draft<'_>, name: &'static str, value: Vec<u8>) {
    if value.is_empty() {
        answer.remove(name);
    } else if is_clean(&value) {
        answer.set(name, value);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::{AddedField, Charset, Pattern, Substitution};
    use crate::headers::FieldName;
    use crate::http1::head::{self, HeadLimits, Progress};
    use crate::routing::regex::Slots;
    use crate::routing::variables::{Part, Variable};
    use content_type::{CHARSET_TYPES, MediaTypes};

    /// Fills in groups and `$sent_http_NAME`; any other variable is an `&`.
    #[derive(Default)]
    pub(super) struct Filled {
        slots: Slots,
    }

    impl Fill for Filled {
        fn text(&self, template: &Template, answer: &Draft<'_>) -> Vec<u8> {
            let mut out = Vec::new();
            for part in template.parts() {
                match part {
                    Part::Literal(text) => out.extend_from_slice(text.as_bytes()),
                    Part::Variable(Variable::Capture(group)) => self.slots.capture(*group, &mut out),
                    Part::Variable(Variable::SentHttp(name)) => {
                        out.extend_from_slice(answer.get(name).unwrap_or_default());
                    }
                    Part::Variable(_) => out.push(b'&'),
                }
            }
            out
        }

        fn matches(&self, regex: &Regex, subject: &[u8]) -> bool {
            self.slots.matches(regex, subject)
        }

        fn absolute(&self, path: Vec<u8>) -> Vec<u8> {
            [b"absolute:", &*path].concat()
        }
    }

    pub(super) fn pattern(text: &str) -> Pattern {
        let regex = |text, is_caseless| Pattern::Regex(Regex::new(text, is_caseless, |_| 0).unwrap());
        match text.strip_prefix('~').map(|text| (text, text.strip_prefix('*'))) {
            Some((_, Some(text))) => regex(text, true),
            Some((text, None)) => regex(text, false),
            None => Pattern::Text(Template::parse(text).unwrap()),
        }
    }

    pub(super) fn rule(from: &str, to: &str) -> Substitution {
        Substitution { from: pattern(from), to: Template::parse(to).unwrap() }
    }

    fn head(fields: &str) -> ResponseHead {
        let text = format!("HTTP/1.1 302 Found\r\n{fields}\r\n");
        match head::response(text.as_bytes(), 0, HeadLimits { size: 4096, fields: 32 }) {
            Ok(Progress::Whole(head, _)) => head,
            other => panic!("{other:?}"),
        }
    }

    fn added(name: &str, value: &str, always: bool) -> AddedField {
        AddedField { name: FieldName::new(name).unwrap(), value: Template::parse(value).unwrap(), always }
    }

    fn shown(answer: &Draft<'_>) -> Vec<String> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        answer.lines().iter().map(|line| format!("{}: {}", text(&line.name), text(&line.value))).collect()
    }

    #[test]
    fn a_location_without_rules_looks_at_nothing_but_redirects_and_what_is_hidden() {
        let mut rules = ResponseRules { redirects: vec![rule("http://a/", "/")], ..ResponseRules::default() };
        assert!(!rules.touch(&head("Content-Type: text/html\r\nServer: x\r\nSet-Cookie: a=b\r\n")));
        assert!(rules.touch(&head("x-accel-buffering: no\r\n")) && rules.touch(&head("X-Pad: x\r\n")));
        assert!(rules.touch(&head("location: /\r\n")) && rules.touch(&head("Refresh: 1\r\n")));
        rules.redirects.clear();
        assert!(!rules.touch(&head("location: /\r\n")));
    }

    #[test]
    fn fields_are_hidden_and_passed_as_by_nginx() {
        let names = |names: &[&str]| names.iter().filter_map(|name| FieldName::new(name)).collect();
        let rules = ResponseRules {
            hidden: names(&["Server", "x-powered-by", "X-Kept"]),
            passed: names(&["X-Accel-Expires", "x-kept"]),
            ..ResponseRules::default()
        };
        let head = head(
            "Server: a\r\nDate: b\r\nX-Accel-Expires: 1\r\nX-Accel-Redirect: /x\r\nX-Powered-By: c\r\nX-Kept: d\r\nX-Pad: e\r\n",
        );
        let answer = rules.of_upstream(&head, &Filled::default());
        assert_eq!(shown(&answer), ["Date: b", "X-Accel-Expires: 1", "X-Kept: d"]);
    }

    #[test]
    fn redirects_and_cookies_are_rewritten_in_their_place() {
        let mut rules = ResponseRules { redirects: vec![rule("http://a/", "/")], ..ResponseRules::default() };
        rules.cookies.paths = vec![rule("/", "/app/")];
        let head = head(
            "A: 1\r\nLocation: http://a/x\r\nSet-Cookie: s=1; path=/\r\nSet-Cookie: t=2\r\nRefresh: 0;url=http://a/\r\n",
        );
        let answer = rules.of_upstream(&head, &Filled::default());
        assert_eq!(
            shown(&answer),
            [
                "A: 1",
                "Location: absolute:/x",
                "Set-Cookie: s=1; path=/app/",
                "Set-Cookie: t=2",
                "Refresh: 0;url=/"
            ]
        );
    }

    #[test]
    fn fields_are_added_to_good_answers_and_with_always_to_all() {
        let rules = ResponseRules {
            added: vec![
                added("X-A", "1", false),
                added("X-B", "$sent_http_x_a", true),
                added("X-C", "", true),
                added("etag", "", true),
                added("last-modified", "now", false),
            ],
            expires: Some(Expires::Fixed(Expiry::Epoch)),
            charset: Some(Charset {
                name: Template::parse("utf-8").unwrap(),
                types: MediaTypes::these(CHARSET_TYPES),
            }),
            ..ResponseRules::default()
        };
        let answer = |status| {
            let mut answer = Draft::new(status);
            answer.push(&b"ETag"[..], &b"x"[..]);
            answer.push(&b"Content-Type"[..], &b"text/plain"[..]);
            answer.push(&b"Last-Modified"[..], &b"then"[..]);
            rules.complete(&mut answer, &Filled::default());
            shown(&answer)
        };
        assert_eq!(
            answer(308),
            [
                "Content-Type: text/plain; charset=utf-8",
                "Last-Modified: now",
                "Expires: Thu, 01 Jan 1970 00:00:01 GMT",
                "Cache-Control: no-cache",
                "X-A: 1",
                "X-B: 1",
            ]
        );
        assert_eq!(answer(404), ["Content-Type: text/plain; charset=utf-8", "Last-Modified: then"]);
    }

    #[test]
    fn expires_with_a_variable_is_read_for_each_answer() {
        let mut rules = ResponseRules::default();
        for (sent, told) in [("max", true), ("off", false), ("", false), ("bad", false), ("1h", true)] {
            let value = Template::parse("$sent_http_x_expires").unwrap();
            rules.expires = Some(Expires::Variable { is_modified: false, value });
            let mut answer = Draft::new(200);
            answer.push(&b"X-Expires"[..], sent.as_bytes());
            rules.complete(&mut answer, &Filled::default());
            assert_eq!(answer.get("Expires").is_some(), told, "{sent}");
        }
    }

    proptest! {
        #[test]
        fn no_answer_makes_the_rules_panic_or_write_what_breaks_a_head(
            lines in prop::collection::vec(("[A-Za-z-]{1,12}|Location|Refresh|Set-Cookie|Content-Type|ETag|\
                Last-Modified|Expires|Cache-Control|Vary", prop::collection::vec(any::<u8>(), 0..40)), 0..8),
            status in 100..600_u16,
        ) {
            let clean = |byte: &u8| *byte == b'\t' || *byte >= b' ' && *byte != 0x7f;
            let mut text = format!("HTTP/1.1 {status} x\r\n").into_bytes();
            for (name, value) in &lines {
                text.extend_from_slice(name.as_bytes());
                text.extend_from_slice(b": ");
                text.extend(value.iter().copied().filter(clean));
                text.extend_from_slice(b"\r\n");
            }
            text.extend_from_slice(b"\r\n");
            let Ok(Progress::Whole(head, _)) = head::response(&text, 0, HeadLimits { size: 4096, fields: 32 }) else {
                return Ok(());
            };
            let mut rules = ResponseRules {
                redirects: vec![rule("~^(.*)$", "/$1"), rule("", "$host")],
                added: vec![added("X-A", "$sent_http_location$sent_http_etag", true)],
                expires: Some(Expires::Variable {
                    is_modified: true,
                    value: Template::parse("$sent_http_x").unwrap(),
                }),
                charset: Some(Charset { name: Template::parse("$sent_http_vary").unwrap(), types: MediaTypes::Any }),
                ..ResponseRules::default()
            };
            rules.cookies.paths = vec![rule("", "/"), rule("~.", "$1")];
            rules.cookies.domains = vec![rule("~.", "$1")];
            let fill = Filled::default();
            let mut answer = rules.of_upstream(&head, &fill);
            rules.complete(&mut answer, &fill);
            let mut out = b"HTTP/1.1 200 x\r\n".to_vec();
            answer.write(&mut out, true);
            out.extend_from_slice(b"\r\n");
            let fields = draft::fields_of(&out);
            prop_assert_eq!(fields.iter().count(), answer.lines().len());
            prop_assert!(answer.lines().iter().all(|line| is_clean(&line.value)));
        }
    }
}
