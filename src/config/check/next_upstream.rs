//! When another server of a group is tried.

use std::time::Duration;

use serde_spanned::Spanned;

use super::{Check, MANY};
use crate::config::error::Mistake;
use crate::config::file::{ForUpstreams, OneOrMany, Value};
use crate::config::read::nearest;
use crate::config::{NEXT_CASES, NextCases, NextUpstream};

/// What is written at one level of the file; `None` is inherited.
#[derive(Clone, Copy, Default)]
pub(super) struct NextSettings {
    cases: Option<NextCases>,
    /// 0: no limit.
    tries: Option<usize>,
    /// 0: no limit.
    timeout: Option<Duration>,
}

impl NextSettings {
    /// What is not written here is as it is further out.
    pub(super) fn inside(self, outer: &Self) -> Self {
        Self {
            cases: self.cases.or(outer.cases),
            tries: self.tries.or(outer.tries),
            timeout: self.timeout.or(outer.timeout),
        }
    }

    /// With the defaults for what is written nowhere.
    pub(super) fn finish(self) -> NextUpstream {
        let default = NextUpstream::default();
        NextUpstream {
            cases: self.cases.unwrap_or(default.cases),
            tries: self.tries.filter(|most| *most > 0),
            timeout: self.timeout.filter(|time| !time.is_zero()),
        }
    }
}

impl Check<'_> {
    pub(super) fn next_upstream(&mut self, written: &ForUpstreams) -> NextSettings {
        NextSettings {
            cases: self.next_cases(&written.proxy_next_upstream),
            tries: self.count(&written.proxy_next_upstream_tries, "proxy_next_upstream_tries", 0..=MANY),
            timeout: written.proxy_next_upstream_timeout.given().map(|time| *time.get_ref()),
        }
    }

    fn next_cases(&mut self, written: &Value<OneOrMany<String>>) -> Option<NextCases> {
        let entries = &written.given()?.get_ref().0;
        if let [only] = entries.as_slice()
            && only.get_ref() == "off"
        {
            return Some(NextCases::default());
        }
        let mut cases = Vec::with_capacity(entries.len());
        for entry in entries {
            match NEXT_CASES.iter().find(|(name, _)| name == entry.get_ref()) {
                Some((_, case)) => cases.push(*case),
                None => self.mistakes.push(unknown_case(entry)),
            }
        }
        Some(cases.into_iter().collect())
    }
}

fn unknown_case(entry: &Spanned<String>) -> Mistake {
    let text = entry.get_ref();
    let names: Vec<&str> = NEXT_CASES.iter().map(|(name, _)| *name).collect();
    let words: Vec<&str> = text.trim_end_matches(';').split_whitespace().collect();
    let mistake = Mistake::new(entry.span(), format!("`proxy_next_upstream` does not know `{text}`"));
    if words.len() > 1 && words.iter().all(|word| names.contains(word)) {
        let entries: Vec<_> = words.iter().map(|word| format!("\"{word}\"")).collect();
        return mistake.help(format!("write `proxy_next_upstream = [{}]`", entries.join(", ")));
    }
    match text.as_str() {
        "off" => mistake.help("`\"off\"` stands alone: `proxy_next_upstream = \"off\"`"),
        "updating" => mistake.help("nothing is cached: leave it out"),
        _ => match nearest(text, &names) {
            Some(name) => mistake.help(format!("write `\"{name}\"`")),
            None => mistake.help(format!("known are `{}`, and `off` alone", names.join("`, `"))),
        },
    }
}
