//! `Set-Cookie`: its attributes as `proxy_cookie_path`, `proxy_cookie_domain` and `proxy_cookie_flags` leave
//! them.

use std::borrow::Cow;

use super::Fill;
use super::draft::Draft;
use super::rewrite::{Comparison, rewritten};
use crate::config::{CookieFlags, CookieRules, Pattern};

/// `name`, or `name=value`.
type Attribute<'a> = (&'a [u8], Option<Cow<'a, [u8]>>);

/// The value of a `Set-Cookie` with its attributes rewritten; `None` if nothing is changed about it.
pub(super) fn rewrite(
    rules: &CookieRules,
    value: &[u8],
    fill: &dyn Fill,
    answer: &Draft<'_>,
) -> Option<Vec<u8>> {
    let mut attributes: Vec<_> = value.split(|byte| *byte == b';').map(attribute).collect();
    let (name, Some(_)) = attributes.first()? else { return None };
    let name = *name;
    let mut is_changed = false;
    for (key, value) in &mut attributes[1..] {
        let Some(old) = value else { continue };
        let new = if key.eq_ignore_ascii_case(b"domain") {
            rewritten(&rules.domains, old, Comparison::Domain, fill, answer)
        } else if key.eq_ignore_ascii_case(b"path") {
            rewritten(&rules.paths, old, Comparison::Prefix, fill, answer)
        } else {
            None
        };
        if let Some(new) = new {
            *value = Some(Cow::Owned(new));
            is_changed = true;
        }
    }
    let flags = flags_for(&rules.flags, name, fill, answer);
    if !flags.is_empty() {
        set_flags(&mut attributes, &flags);
        is_changed = true;
    }
    is_changed.then(|| written(&attributes))
}

fn attribute(text: &[u8]) -> Attribute<'_> {
    match memchr::memchr(b'=', text) {
        Some(at) => (text[..at].trim_ascii(), Some(Cow::Borrowed(text[at + 1..].trim_ascii()))),
        None => (text.trim_ascii(), None),
    }
}

fn written(attributes: &[Attribute<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for (index, (key, value)) in attributes.iter().enumerate() {
        if index > 0 {
            out.extend_from_slice(b"; ");
        }
        out.extend_from_slice(key);
        if let Some(value) = value {
            out.push(b'=');
            out.extend_from_slice(value);
        }
    }
    out
}

/// A change to the flags of a cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flag {
    /// With or without `Secure`.
    Secure(bool),
    /// With or without `HttpOnly`.
    HttpOnly(bool),
    /// With this `SameSite`, or without any.
    SameSite(Option<&'static str>),
}

/// The words of nginx's `proxy_cookie_flags`.
pub const FLAGS: &[(&str, Flag)] = &[
    ("secure", Flag::Secure(true)),
    ("nosecure", Flag::Secure(false)),
    ("httponly", Flag::HttpOnly(true)),
    ("nohttponly", Flag::HttpOnly(false)),
    ("samesite=strict", Flag::SameSite(Some("Strict"))),
    ("samesite=lax", Flag::SameSite(Some("Lax"))),
    ("samesite=none", Flag::SameSite(Some("None"))),
    ("nosamesite", Flag::SameSite(None)),
];

impl Flag {
    /// Finds a flag by its word, in any case.
    pub fn named(word: &[u8]) -> Option<Self> {
        FLAGS.iter().find(|(name, _)| name.as_bytes().eq_ignore_ascii_case(word)).map(|(_, flag)| *flag)
    }

    fn key(self) -> &'static str {
        match self {
            Self::Secure(_) => "Secure",
            Self::HttpOnly(_) => "HttpOnly",
            Self::SameSite(_) => "SameSite",
        }
    }
}

fn flags_for(rules: &[CookieFlags], cookie: &[u8], fill: &dyn Fill, answer: &Draft<'_>) -> Vec<Flag> {
    let rule = rules.iter().find(|rule| match &rule.cookie {
        Pattern::Regex(regex) => fill.matches(regex, cookie),
        Pattern::Text(text) => fill.text(text, answer).eq_ignore_ascii_case(cookie),
    });
    let flags = rule.into_iter().flat_map(|rule| &rule.flags);
    flags.filter_map(|flag| Flag::named(&fill.text(flag, answer))).collect()
}

/// A flag that is there stays where it is; one that is new stands at the end.
fn set_flags(attributes: &mut Vec<Attribute<'_>>, flags: &[Flag]) {
    for flag in flags {
        let key = flag.key().as_bytes();
        let is_key =
            |(index, attribute): (usize, &Attribute<'_>)| index > 0 && attribute.0.eq_ignore_ascii_case(key);
        let place = attributes.iter().enumerate().position(is_key);
        let value = match flag {
            Flag::SameSite(value) => value.map(|value| Cow::Borrowed(value.as_bytes())),
            Flag::Secure(_) | Flag::HttpOnly(_) => None,
        };
        match (flag, place) {
            (Flag::Secure(false) | Flag::HttpOnly(false) | Flag::SameSite(None), None) => {}
            (Flag::Secure(false) | Flag::HttpOnly(false) | Flag::SameSite(None), Some(place)) => {
                attributes.remove(place);
            }
            (Flag::SameSite(_), Some(place)) => attributes[place] = (key, value),
            (Flag::Secure(true) | Flag::HttpOnly(true), Some(_)) => {}
            (_, None) => attributes.push((key, value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::response::tests::{Filled, pattern, rule};
    use crate::routing::variables::Template;

    fn rewritten_by(rules: &CookieRules, value: &str) -> String {
        let fill = Filled::default();
        let answer = Draft::new(200);
        let rewritten = rewrite(rules, value.as_bytes(), &fill, &answer);
        String::from_utf8(rewritten.unwrap_or_else(|| b"-".to_vec())).unwrap()
    }

    #[test]
    fn path_and_domain_are_rewritten_as_by_nginx() {
        let rules = CookieRules {
            domains: vec![rule("www.example.org", "example.com"), rule("~*^(.+)\\.com$", "$1.org")],
            paths: vec![rule("/path/", "/new/"), rule("~^/regex/(.+)$", "/$1")],
            flags: Vec::new(),
        };
        for (value, expected) in [
            ("v=path=domain=; Domain=www.Example.org", "v=path=domain=; Domain=example.com"),
            ("v=1; domain=.www.example.org", "v=1; domain=.example.com"),
            ("v=1; Domain=www.example.COM", "v=1; Domain=www.example.org"),
            ("v=1;Path = /path/x ;Secure", "v=1; Path=/new/x; Secure"),
            ("v=1; Path=/regex/x", "v=1; Path=/x"),
            ("v=1; Path=/PATH/x", "-"),
            ("v=1; Domain=sub.www.example.org", "-"),
            ("v=1;Secure", "-"),
            ("v; Path=/path/", "-"),
            ("v=; Path", "-"),
            ("", "-"),
        ] {
            assert_eq!(rewritten_by(&rules, value), expected, "{value}");
        }
    }

    #[test]
    fn flags_are_set_and_taken_away_by_the_name_of_the_cookie() {
        let flags = |cookie: &str, flags: &[&str]| CookieFlags {
            cookie: pattern(cookie),
            flags: flags.iter().map(|flag| Template::parse(flag).unwrap()).collect(),
        };
        let rules = CookieRules {
            flags: vec![
                flags("one", &["httponly", "secure"]),
                flags("two", &["nosecure", "nohttponly", "nosamesite"]),
                flags("~*^s", &["SameSite=Strict", "junk"]),
            ],
            ..CookieRules::default()
        };
        for (value, expected) in [
            ("one=1", "one=1; HttpOnly; Secure"),
            ("ONE=1; secure", "ONE=1; secure; HttpOnly"),
            ("two=1; Secure; Path=/; httponly; SameSite=lax", "two=1; Path=/"),
            ("sid=1; samesite=none; Secure", "sid=1; SameSite=Strict; Secure"),
            ("other=1", "-"),
        ] {
            assert_eq!(rewritten_by(&rules, value), expected, "{value}");
        }
    }
}
