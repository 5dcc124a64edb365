//! Logs.

use super::toml::{Item, Value};
use super::{Convert, Level, Scope, origin, paths, text};
use crate::nginx::parse::Directive;

/// `access_log PATH [FORMAT] [if=…]`, `access_log off`
pub fn access_log(convert: &mut Convert<'_>, scope: &mut Scope, directive: &Directive, key: &str) {
    let target = directive.arg(0);
    // nginx: `off` takes away the others of its block, too.
    if target == "off"
        || scope
            .table
            .find(key)
            .is_some_and(|entry| matches!(&entry.item.value, Value::Text(text) if text == "off"))
    {
        scope.table.without(&[key]);
        return scope.set(key, text(directive, "off"));
    }
    let target = if target.starts_with("syslog:") {
        convert
            .report(directive, "syslog is not there yet: lines go to standard output, which systemd takes");
        "/dev/stdout"
    } else if target.contains('$') {
        convert
            .report(directive, "a path cannot have variables: lines go to standard output; write one path");
        "/dev/stdout"
    } else {
        target
    };
    let (mut format, mut condition) = ("combined".to_owned(), None);
    for word in directive.texts().skip(1) {
        match word.split_once('=').map_or((word, ""), |(name, value)| (name, value)) {
            ("if", value) => condition = Some(value.to_owned()),
            ("buffer" | "flush", _) => {
                convert.needless(directive, "access_log … buffer", "lines are written in good time")
            }
            ("gzip", _) => convert.report(directive, "`gzip`: logs are not compressed; let logrotate do it"),
            _ => format = word.to_owned(),
        }
    }
    if format != "combined" && !convert.facts.formats.contains(&format) {
        let text = format!(
            "there is no log_format `{format}` in what was imported: lines have the format `combined`"
        );
        convert.report(directive, &text);
        format = "combined".to_owned();
    }
    let unknown = condition.as_deref().and_then(|condition| convert.unknown_variable(condition));
    if let Some(name) = unknown {
        let why = convert.why_unknown(&name);
        convert.report(directive, &format!("{why}, so every request is logged"));
        condition = None;
    }
    let target = place(convert, target);
    let item = Item::from(written(&target, &own_name(&format), condition), origin(directive));
    if !scope.table.has(key) {
        return scope.set(key, item);
    }
    let entry = scope.table.entry(key, Value::List(Vec::new()));
    match &mut entry.item.value {
        Value::List(items) => items.push(item),
        _ => {
            let first = Item {
                value: std::mem::replace(&mut entry.item.value, Value::List(Vec::new())),
                ..entry.item.clone()
            };
            entry.item.value = Value::List(vec![first, item]);
        }
    }
}

/// A target, its format and its condition: as a text, or as a table if a blank would be taken for an end.
fn written(target: &str, format: &str, condition: Option<String>) -> Value {
    if target.contains(char::is_whitespace) {
        let mut pairs = vec![
            ("path".to_owned(), Item::new(Value::text(target))),
            ("format".to_owned(), Item::new(Value::text(format))),
        ];
        pairs.extend(condition.map(|condition| ("if".to_owned(), Item::new(Value::text(condition)))));
        return Value::Pairs(pairs);
    }
    let mut words = target.to_owned();
    if format != "combined" || condition.is_some() {
        words.push_str(&format!(" {format}"));
    }
    words.extend(condition.map(|condition| format!(" if={condition}")));
    Value::text(words)
}

/// hopgate has a format `json` of its own.
fn own_name(format: &str) -> String {
    if format == "json" { "nginx_json".to_owned() } else { format.to_owned() }
}

/// Where a log goes.
fn place(convert: &Convert<'_>, target: &str) -> String {
    match target {
        "/dev/stdout" => "stdout".to_owned(),
        "/dev/stderr" | "stderr" => "stderr".to_owned(),
        _ => paths::whole(target, &convert.prefix),
    }
}

/// `log_format NAME [escape=…] TEXT …`
pub fn log_format(convert: &mut Convert<'_>, scope: &mut Scope, directive: &Directive, key: &str) {
    let name = directive.arg(0).to_owned();
    if name == "combined" {
        return convert.report(directive, "the format `combined` is nginx's own, in hopgate too; delete it");
    }
    let mut words = directive.texts().skip(1).peekable();
    let escape = words.peek().and_then(|word| word.strip_prefix("escape=")).map(str::to_owned);
    if escape.is_some() {
        words.next();
    }
    let mut format: String = words.collect();
    while let Some(unknown) = convert.unknown_variable(&format) {
        let why = convert.why_unknown(&unknown);
        convert.report(directive, &format!("{why}: `-` stands for it"));
        format = without(&format, &unknown);
    }
    let value = match escape.as_deref() {
        None | Some("default") => text(directive, format),
        Some(escape) => {
            let pairs = vec![
                ("format".to_owned(), Item::new(Value::text(format))),
                ("escape".to_owned(), Item::new(Value::text(escape))),
            ];
            Item::from(Value::Pairs(pairs), origin(directive))
        }
    };
    if !scope.table.pair(key, &own_name(&name), value) {
        convert.report(directive, &format!("there are two formats `{name}`; the first one is carried over"));
    }
}

/// A text with `-` for a variable, which is what nginx writes for an empty value.
fn without(text: &str, variable: &str) -> String {
    let mut rest = text;
    let mut kept = String::with_capacity(text.len());
    while let Some(dollar) = rest.find('$') {
        let after = &rest[dollar + 1..];
        let braced = after
            .strip_prefix('{')
            .and_then(|after| after.strip_prefix(variable))
            .and_then(|after| after.strip_prefix('}'));
        let word = |tail: &&str| !tail.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        let bare = after.strip_prefix(variable).filter(word);
        kept.push_str(&rest[..dollar]);
        match braced.or(bare) {
            Some(tail) => {
                kept.push('-');
                rest = tail;
            }
            None => {
                kept.push('$');
                rest = after;
            }
        }
    }
    kept + rest
}

/// `error_log PATH [LEVEL]`: one for the process. What nginx calls errors of an upstream are warnings here.
pub fn error_log(convert: &mut Convert<'_>, scope: &mut Scope, directive: &Directive, key: &str) {
    if scope.level != Level::Main {
        // Lifted to the top, or reported, when all of them are known.
        return;
    }
    if scope.table.has(key) {
        return convert
            .report(directive, "hopgate writes one error log: the first one is carried over; delete one");
    }
    let target = directive.arg(0);
    if target.starts_with("syslog:") || target.starts_with("memory:") {
        return convert
            .report(directive, "there is no such error log: it goes to standard error, which systemd takes");
    }
    let level = match directive.arg(1) {
        "debug" => "debug",
        "info" | "notice" => "info",
        "crit" | "alert" | "emerg" => "error",
        _ => "warn",
    };
    let target = place(convert, target);
    let value = match target.contains(char::is_whitespace) {
        true => Value::Pairs(vec![
            ("path".to_owned(), Item::new(Value::text(target))),
            ("level".to_owned(), Item::new(Value::text(level))),
        ]),
        false => Value::text(format!("{target} {level}")),
    };
    scope.set(key, Item::from(value, origin(directive)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_that_is_not_known_becomes_what_nginx_writes_for_nothing() {
        assert_eq!(without("a $x ${x} $xy $x", "x"), "a - - $xy -");
    }
}
