//! Fields of the response.

use super::toml::{Item, Value};
use super::{Convert, Scope, bare, origin, text};
use crate::headers::FieldName;
use crate::nginx::parse::Directive;

/// `add_header NAME value [always]`: a name may stand several times.
pub fn add_header(convert: &mut Convert<'_>, scope: &mut Scope, directive: &Directive, key: &str) {
    // The list counts even if nothing of it is left: what is outside of it is not inherited.
    let entry = scope.table.entry(key, Value::Pairs(Vec::new()));
    let name = directive.arg(0);
    if FieldName::new(name).is_none() {
        return convert.report(directive, &format!("`{name}` cannot be the name of a field; write another"));
    }
    if matches!(&entry.item.value, Value::Text(_))
        || convert.mentions_unknown(directive, &[directive.arg(1)], "the field is not added")
    {
        return;
    }
    if name.eq_ignore_ascii_case("Alt-Svc") && is_of_http3(directive.arg(1)) {
        let text = format!(
            "{}, so that the field is left out: browsers would look there in vain",
            super::settings::NO_HTTP3
        );
        return convert.report(directive, &text);
    }
    let always = directive.arg(2) == "always";
    let value = convert.field_value(directive);
    let value = match always {
        false => text(directive, value),
        true => {
            let pairs = vec![
                ("value".to_owned(), Item::new(Value::text(value))),
                ("always".to_owned(), bare(directive, "true")),
            ];
            Item::from(Value::Pairs(pairs), origin(directive))
        }
    };
    let entry = scope.table.entry(key, Value::Pairs(Vec::new()));
    let Value::Pairs(pairs) = &mut entry.item.value else { return };
    let Some((_, known)) = pairs.iter_mut().find(|(known, _)| known.eq_ignore_ascii_case(name)) else {
        pairs.push((name.to_owned(), value));
        return;
    };
    match &mut known.value {
        Value::List(items) => items.push(value),
        _ => {
            let first = std::mem::replace(known, Item::new(Value::List(Vec::new())));
            known.value = Value::List(vec![first, value]);
        }
    }
}

/// Whether an `Alt-Svc` has nothing to offer but HTTP/3 (RFC 7838 §3).
fn is_of_http3(value: &str) -> bool {
    let is_of_it = |offer: &str| ["h3", "hq", "quic"].iter().any(|name| offer.trim_start().starts_with(name));
    let offers =
        || value.split(',').filter(|offer| !offer.trim().chars().all(|c| c.is_ascii_digit() || c == '"'));
    offers().next().is_some() && offers().all(is_of_it)
}

impl Convert<'_> {
    /// The value of a field. A line break at its end is nothing but its end.
    pub(super) fn field_value<'a>(&mut self, directive: &'a Directive) -> &'a str {
        let value = directive.arg(1);
        let clean = value.trim_end_matches(['\r', '\n']);
        if clean != value {
            self.needless(directive, "a line break at the end of a field", "the field ends there anyway");
        }
        clean
    }
}

/// `proxy_redirect off | default | FROM TO`, several lines of the last kind.
pub fn proxy_redirect(convert: &mut Convert<'_>, scope: &mut Scope, directive: &Directive, key: &str) {
    rules(convert, scope, directive, key, &["off", "default"]);
}

/// `proxy_cookie_path` and `proxy_cookie_domain`: `off | FROM TO`
pub fn cookie(convert: &mut Convert<'_>, scope: &mut Scope, directive: &Directive, key: &str) {
    rules(convert, scope, directive, key, &["off"]);
}

fn rules(convert: &mut Convert<'_>, scope: &mut Scope, directive: &Directive, key: &str, words: &[&str]) {
    let texts: Vec<&str> = directive.texts().collect();
    if convert.mentions_unknown(directive, &texts, "the line is left out") {
        return;
    }
    match texts.as_slice() {
        ["off"] => scope.set(key, text(directive, "off")),
        // `default` may stand among others.
        ["default"] if words.contains(&"default") && !scope.table.has(key) => {
            scope.set(key, text(directive, "default"))
        }
        _ => {
            let line = directive.texts().map(crate::config::words::quote).collect::<Vec<_>>().join(" ");
            if let Some(Value::Text(first)) = scope.table.find(key).map(|entry| entry.item.value.clone()) {
                let origin = scope.table.find(key).and_then(|entry| entry.item.origin.clone());
                scope.set(key, Item::new(Value::List(vec![Item { value: Value::Text(first), origin }])));
            }
            scope.table.push(key, text(directive, line));
        }
    }
}
