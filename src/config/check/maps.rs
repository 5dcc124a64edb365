//! `[[map]]`: variables that are looked up.

use std::collections::HashMap;

use serde_spanned::Spanned;

use super::{Check, plain};
use crate::config::error::Mistake;
use crate::config::file::{self, Tables, Value};
use crate::routing::map::Map;
use crate::routing::variables::Template;

impl Check<'_> {
    pub(super) fn maps(&mut self, written: &Value<Tables<file::Map>>) {
        for map in written.given().map(|maps| maps.get_ref().0.as_slice()).unwrap_or_default() {
            self.map(map);
        }
    }

    fn map(&mut self, written: &Spanned<file::Map>) {
        let file = written.get_ref();
        for (is_absent, key, example) in [
            (file.source.is_absent(), "source", "source = \"$host\""),
            (file.variable.is_absent(), "variable", "variable = \"backend\""),
        ] {
            if is_absent {
                self.missing(written.span(), format!("a map needs a `{key}`"), format!("write `{example}`"));
            }
        }
        let source = file.source.given().and_then(|source| self.template(source));
        let default = file.default.given().map(|default| self.template(default));
        let mut map = Map {
            source: source.unwrap_or_else(|| Template::literal("")),
            default: default.flatten().unwrap_or_else(|| Template::literal("")),
            exact: HashMap::new(),
            leading: Vec::new(),
            trailing: Vec::new(),
            regexes: Vec::new(),
            is_of_hosts: plain(&file.hostnames).unwrap_or(false),
            is_volatile: plain(&file.volatile).unwrap_or(false),
        };
        for (key, value) in
            file.entries.given().map(|entries| entries.get_ref().0.as_slice()).unwrap_or_default()
        {
            self.map_entry(&mut map, key, value);
        }
        map.leading.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        map.trailing.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        let Some(variable) = file.variable.given() else { return };
        let Some(name) = self.own_name(variable.get_ref(), variable.span()) else { return };
        if let Err(first) = self.names.set_map(name, map, variable.span()) {
            let message = format!("there are two maps for `${name}`");
            let mistake = Mistake::new(variable.span(), message).label("again").also(first, "first here");
            self.mistakes.push(mistake.help("delete one of them, or put the entries of both into one"));
        }
    }

    fn map_entry(&mut self, map: &mut Map, key: &Spanned<String>, value: &Spanned<String>) {
        let Some(template) = self.template(value) else { return };
        let text = key.get_ref();
        if let Some(regex) = text.strip_prefix('~') {
            let (regex, is_caseless) = regex.strip_prefix('*').map_or((regex, false), |regex| (regex, true));
            let compiled = self.regex(regex, is_caseless, key.span());
            map.regexes.extend(compiled.map(|regex| (regex, template)));
            return;
        }
        // nginx: a `\` before the first character takes a special meaning away.
        let plain = text.strip_prefix('\\').unwrap_or(text).to_ascii_lowercase();
        if map.is_of_hosts && !text.starts_with('\\') {
            if let Some(rest) = plain.strip_prefix("*.") {
                map.leading.push((format!(".{rest}"), template));
                return;
            }
            if let Some(rest) = plain.strip_prefix('.') {
                map.leading.push((plain.clone(), template.clone()));
                map.exact.insert(rest.as_bytes().to_vec(), template);
                return;
            }
            if let Some(rest) = plain.strip_suffix(".*") {
                map.trailing.push((format!("{rest}."), template));
                return;
            }
        }
        if text == "default" && map.default.is_empty() {
            let mistake = Mistake::new(key.span(), "`default` in `entries` is the value `default` itself");
            self.mistakes.push(
                mistake.help("write `default = \"…\"` beside `source`, or `\"\\\\default\"` if it is meant"),
            );
        }
        if map.exact.insert(plain.into_bytes(), template).is_some() {
            let mistake = Mistake::new(key.span(), format!("`{text}` stands twice in this map"));
            self.mistakes.push(mistake.help("delete one of them: upper and lower case are alike"));
        }
    }
}
