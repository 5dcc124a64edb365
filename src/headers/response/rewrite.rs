//! `proxy_redirect` and its kin: a part of a value that is replaced, as nginx does.

use super::Fill;
use super::draft::Draft;
use crate::config::{Pattern, Substitution};

/// How the text of a rule is compared with a value. Regular expressions are always looked for anywhere in it,
/// and replace all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    /// The value begins with the text, which is replaced.
    Prefix,
    /// The value is the text, in any case, but for a dot before it, which stays.
    Domain,
}

/// The value as the first rule that fits leaves it; `None` if none does.
pub(super) fn rewritten(
    rules: &[Substitution],
    value: &[u8],
    comparison: Comparison,
    fill: &dyn Fill,
    answer: &Draft<'_>,
) -> Option<Vec<u8>> {
    rules.iter().find_map(|rule| {
        let text = match &rule.from {
            Pattern::Regex(regex) => {
                return fill.matches(regex, value).then(|| fill.text(&rule.to, answer));
            }
            Pattern::Text(text) => fill.text(text, answer),
        };
        let (kept, replaced) = match comparison {
            Comparison::Domain if value.first() == Some(&b'.') => value.split_at(1),
            _ => value.split_at(0),
        };
        let rest = match comparison {
            Comparison::Prefix => replaced.strip_prefix(&*text)?,
            Comparison::Domain => replaced.eq_ignore_ascii_case(&text).then_some(&b""[..])?,
        };
        Some([kept, &fill.text(&rule.to, answer), rest].concat())
    })
}

/// A `Location` as `proxy_redirect` leaves it.
pub(super) fn location(
    rules: &[Substitution],
    value: &[u8],
    fill: &dyn Fill,
    answer: &Draft<'_>,
) -> Option<Vec<u8>> {
    let rewritten = rewritten(rules, value, Comparison::Prefix, fill, answer)?;
    // nginx makes redirects of its own absolute, and takes this one for one of them.
    Some(if rewritten.first() == Some(&b'/') { fill.absolute(rewritten) } else { rewritten })
}

/// A `Refresh` as `proxy_redirect` leaves it: what stands behind its `url=`.
pub(super) fn refresh(
    rules: &[Substitution],
    value: &[u8],
    fill: &dyn Fill,
    answer: &Draft<'_>,
) -> Option<Vec<u8>> {
    let url = value.windows(4).position(|window| window.eq_ignore_ascii_case(b"url="))? + 4;
    let rewritten = rewritten(rules, &value[url..], Comparison::Prefix, fill, answer)?;
    Some([&value[..url], &rewritten].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::response::tests::{Filled, rule};

    fn with(
        rules: &[(&str, &str)],
        value: &str,
        then: impl Fn(&[Substitution], &[u8]) -> Option<Vec<u8>>,
    ) -> String {
        let rules: Vec<_> = rules.iter().map(|(from, to)| rule(from, to)).collect();
        let rewritten = then(&rules, value.as_bytes()).unwrap_or_else(|| b"-".to_vec());
        String::from_utf8(rewritten).unwrap()
    }

    #[test]
    fn a_location_is_rewritten_by_the_first_rule_that_fits() {
        let rules = [
            ("http://127.0.0.1:8081/one/", "/two/"),
            ("~^http://[^/]+/r/(.+)$", "http://x/$1"),
            ("~*CASE", "/caseless"),
            ("http://127.0.0.1:8081/", "/"),
        ];
        for (value, expected) in [
            ("http://127.0.0.1:8081/one/a?b", "absolute:/two/a?b"),
            ("http://127.0.0.1:8081/on", "absolute:/on"),
            ("http://elsewhere/r/a/b", "http://x/a/b"),
            ("http://elsewhere/Case", "absolute:/caseless"),
            ("http://elsewhere/", "-"),
            ("http://127.0.0.1:80811/", "-"),
            ("HTTP://127.0.0.1:8081/", "-"),
            ("/relative", "-"),
        ] {
            let got = with(&rules, value, |rules, value| {
                location(rules, value, &Filled::default(), &Draft::new(302))
            });
            assert_eq!(got, expected, "{value}");
        }
    }

    #[test]
    fn a_refresh_is_rewritten_behind_its_url() {
        let rules = [("http://a/", "/b/")];
        for (value, expected) in [
            ("7; url=http://a/x", "7; url=/b/x"),
            ("7;URL=http://a/x", "7;URL=/b/x"),
            ("7", "-"),
            ("url=", "-"),
        ] {
            let got = with(&rules, value, |rules, value| {
                refresh(rules, value, &Filled::default(), &Draft::new(200))
            });
            assert_eq!(got, expected, "{value}");
        }
    }
}
