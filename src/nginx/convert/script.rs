//! `set`, `rewrite`, `return`, `break` and `if`, in the order in which nginx runs them.

use super::toml::{Entry, Header, Item, Origin, Table, Value};
use super::{Convert, Scope, origin};
use crate::config::words::quote;
use crate::nginx::parse::Directive;

/// One step of what the rewrite module does in a server or location.
#[derive(Clone, Debug)]
pub enum Op {
    /// `set $name value`
    Set(String, Item),
    /// `rewrite regex replacement [flag]`
    Rewrite(Item),
    /// `break`
    Break(Origin),
    /// `return code [text]`
    Return(Item),
    /// `if (condition) { … }`
    If {
        /// The condition without its parentheses.
        condition: Item,
        /// What is done then.
        then: Vec<Op>,
        /// Directives in it that are no steps: the named location to go on in, once it is made.
        body: Vec<Directive>,
    },
    /// Goes on in a named location.
    Goto(String, Origin),
}

/// `set $name value`
pub fn set(convert: &mut Convert<'_>, scope: &mut Scope, directive: &Directive, _: &str) {
    let name = directive.arg(0).trim_start_matches('$').to_owned();
    if name == "limit_rate" {
        return convert
            .report(directive, "transfers have no speed limit; limit them with the kernel, or not at all");
    }
    if refuse_unknown(convert, scope, directive, &[directive.arg(1)]) {
        return;
    }
    scope.step(Op::Set(name, super::text(directive, directive.arg(1))));
}

/// `rewrite regex replacement [flag]`: nginx's line as a text.
pub fn rewrite(convert: &mut Convert<'_>, scope: &mut Scope, directive: &Directive, _: &str) {
    if refuse_unknown(convert, scope, directive, &[directive.arg(1)]) {
        return;
    }
    let line = directive.texts().map(quote).collect::<Vec<_>>().join(" ");
    scope.step(Op::Rewrite(super::text(directive, line)));
}

/// `return code`, `return code text`, `return URL`
pub fn r#return(convert: &mut Convert<'_>, scope: &mut Scope, directive: &Directive, _: &str) {
    let texts: Vec<&str> = directive.texts().collect();
    if !refuse_unknown(convert, scope, directive, &texts) {
        scope.step(Op::Return(returned(directive)));
    }
}

/// `break`
pub fn r#break(_: &mut Convert<'_>, scope: &mut Scope, directive: &Directive, _: &str) {
    scope.step(Op::Break(origin(directive)));
}

/// A step that cannot be taken could have been what keeps somebody out.
fn refuse_unknown(
    convert: &mut Convert<'_>,
    scope: &mut Scope,
    directive: &Directive,
    texts: &[&str],
) -> bool {
    let line = super::shortened(&directive.line());
    let is_unknown =
        convert.mentions_unknown(directive, texts, "everything here is answered 503; write it anew");
    if is_unknown {
        scope.refuse(
            503,
            format!("nginx has `{line}` here, which cannot be carried over: see what import said of it."),
        );
    }
    is_unknown
}

fn returned(directive: &Directive) -> Item {
    let (first, second) = (directive.arg(0), directive.arg(1));
    let is_code = !first.is_empty() && first.bytes().all(|byte| byte.is_ascii_digit());
    if !is_code || directive.args.len() < 2 {
        return super::text(directive, first);
    }
    let is_redirect = matches!(first, "301" | "302" | "303" | "307" | "308");
    let plain = !second.is_empty()
        && second.trim() == second
        && !second.ends_with(';')
        && !second.contains(|c: char| c.is_control() || matches!(c, '"' | '\''));
    if is_redirect || plain {
        return super::text(directive, format!("{first} {second}"));
    }
    let pairs = vec![
        ("status".to_owned(), Item::new(Value::Bare(first.to_owned()))),
        ("text".to_owned(), Item::new(Value::text(second))),
    ];
    Item::from(Value::Pairs(pairs), origin(directive))
}

/// Whether a directive is a step.
pub(crate) fn is_step(name: &str) -> bool {
    matches!(
        name,
        "set" | "rewrite" | "return" | "break" | "if" | "rewrite_log" | "uninitialized_variable_warn"
    )
}

impl Convert<'_> {
    /// `if (condition) { … }`
    pub(super) fn r#if(&mut self, scope: &mut Scope, directive: &Directive) {
        let Some(condition) = condition(directive) else {
            self.report(
                directive,
                "its condition cannot be read, so everything here is answered 503; write it anew",
            );
            let line = super::shortened(&directive.line());
            return scope.refuse(503, format!("nginx has `{line}` here, which cannot be read."));
        };
        if refuse_unknown(self, scope, directive, &[&condition]) {
            return;
        }
        let mut then = Scope::new(super::Level::If, Header::Top, scope.inner());
        let mut body = Vec::new();
        for child in directive.children() {
            match child.name() {
                "if" => self.r#if(&mut then, child),
                name if is_step(name) => self.directive(&mut then, child),
                _ if needless(child) => self.directive(&mut then, child),
                _ => body.push(child.clone()),
            }
        }
        if let Some(refusal) = then.refusal {
            scope.refuse(refusal.status, refusal.comment);
        }
        if directive.children().is_empty() {
            self.needless(directive, "an empty if", "there is nothing in it");
        }
        if !then.script.is_empty() || !body.is_empty() {
            scope.step(Op::If { condition: super::text(directive, condition), then: then.script, body });
        }
    }

    /// Writes the steps of a scope where the first of them stood.
    pub(super) fn write_script(&mut self, scope: &mut Scope) {
        let ops = std::mem::take(&mut scope.script);
        let mut table = Table::new(Header::Top);
        for entry in script_entries(ops) {
            table.entries.push(entry);
        }
        let at = scope.script_at.min(scope.table.entries.len());
        scope.table.entries.splice(at..at, table.entries);
    }
}

fn needless(directive: &Directive) -> bool {
    use crate::nginx::directives::{State, find};
    matches!(find(directive.name()), Some(State::Needless(_))) || super::facts::is_upgrade_line(directive)
}

/// `set`, `rewrite` and `return` run in this order; what has another one becomes steps of `rewrite`.
fn script_entries(mut ops: Vec<Op>) -> Vec<Entry> {
    // Nothing behind a `return` is ever reached.
    if let Some(end) = ops.iter().position(|op| matches!(op, Op::Return(_))) {
        ops.truncate(end + 1);
    }
    let mut entries = Vec::new();
    let last = match ops.pop() {
        Some(Op::Return(item)) => Some(item),
        Some(other) => {
            ops.push(other);
            None
        }
        None => None,
    };
    let first_step = ops.iter().position(|op| !matches!(op, Op::Set(..))).unwrap_or(ops.len());
    let unique = |count: usize| {
        let names: Vec<&String> = ops[..count].iter().filter_map(Op::set_name).collect();
        names.iter().enumerate().all(|(at, name)| !names[..at].contains(name))
    };
    let sets = (0..=first_step).rev().find(|count| unique(*count)).unwrap_or(0);
    let steps = ops.split_off(sets);
    let pairs: Vec<_> = ops.into_iter().filter_map(Op::into_set).collect();
    if !pairs.is_empty() {
        entries.push(Entry::new("set", Item::new(Value::Pairs(pairs))));
    }
    let steps: Vec<Item> = steps.into_iter().map(step).collect();
    if !steps.is_empty() {
        entries.push(Entry::new("rewrite", Item::new(Value::List(steps))));
    }
    entries.extend(last.map(|item| Entry::new("return", item)));
    entries
}

impl Op {
    fn set_name(&self) -> Option<&String> {
        match self {
            Self::Set(name, _) => Some(name),
            _ => None,
        }
    }

    fn into_set(self) -> Option<(String, Item)> {
        match self {
            Self::Set(name, item) => Some((name, item)),
            _ => None,
        }
    }
}

/// One value in the list of `rewrite`.
fn step(op: Op) -> Item {
    let pairs = |pairs: Vec<(&str, Item)>, origin: Option<Origin>| Item {
        value: Value::Pairs(pairs.into_iter().map(|(name, item)| (name.to_owned(), item)).collect()),
        origin,
    };
    match op {
        Op::Rewrite(item) => item,
        Op::Break(origin) => Item::from(Value::text("break"), origin),
        Op::Set(name, item) => {
            let origin = item.origin.clone();
            pairs(vec![("set", pairs(vec![(&name, item)], None))], origin)
        }
        Op::Return(item) => {
            let origin = item.origin.clone();
            pairs(vec![("return", item)], origin)
        }
        Op::Goto(name, origin) => pairs(vec![("goto", Item::new(Value::text(name)))], Some(origin)),
        Op::If { condition, then, .. } => {
            let origin = condition.origin.clone();
            let mut all = vec![("if".to_owned(), Item::new(condition.value))];
            // `break` alone and `goto` have keys of their own.
            let (mut goto, mut rest) = (None, Vec::new());
            for op in then {
                match op {
                    Op::Goto(name, _) => goto = Some(name),
                    op => rest.push(op),
                }
            }
            let ends_with_break = matches!(rest.last(), Some(Op::Break(_)));
            if ends_with_break {
                rest.pop();
            }
            all.extend(script_entries(rest).into_iter().map(|entry| (entry.key, entry.item)));
            if ends_with_break {
                all.push(("break".to_owned(), Item::new(Value::Bare("true".to_owned()))));
            }
            all.extend(goto.map(|name| ("goto".to_owned(), Item::new(Value::text(name)))));
            Item { value: Value::Pairs(all), origin }
        }
    }
}

/// The condition of an `if`, without its parentheses.
pub(super) fn condition(directive: &Directive) -> Option<String> {
    let mut words: Vec<(String, bool)> =
        directive.args.iter().map(|word| (word.text.clone(), word.quoted)).collect();
    let first = words.first_mut()?;
    first.0 = first.0.strip_prefix('(')?.to_owned();
    let last = words.last_mut()?;
    last.0 = last.0.strip_suffix(')')?.to_owned();
    words.retain(|(text, is_quoted)| !text.is_empty() || *is_quoted);
    let (subject, rest) = words.split_first()?;
    match rest {
        [] if subject.0.starts_with('$') => Some(subject.0.clone()),
        [(operand, _)] if subject.0.starts_with(['-', '!']) => {
            Some(format!("{} {}", subject.0, quote(operand)))
        }
        [(operator, _), (operand, _)] => {
            let known = matches!(operator.as_str(), "=" | "!=" | "~" | "~*" | "!~" | "!~*");
            (known && subject.0.starts_with('$'))
                .then(|| format!("{} {operator} {}", subject.0, quote(operand)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::nginx::parse;

    fn conditions(text: &str) -> Vec<Option<String>> {
        let parsed = parse::parse("test", text.to_owned(), Path::new("/")).unwrap();
        parsed.directives.iter().map(condition).collect()
    }

    #[test]
    fn conditions_are_read_as_nginx_reads_them() {
        for (text, expected) in [
            ("if ($x) { }", Some("$x")),
            ("if ( $x ) { }", Some("$x")),
            ("if ($x = a) { }", Some("$x = a")),
            ("if ($x != \"a b\") { }", Some("$x != 'a b'")),
            ("if ($x = '') { }", Some("$x = ''")),
            ("if ($x ~* \"^(a|b)$\") { }", Some("$x ~* ^(a|b)$")),
            ("if ($x !~ ^(GET|HEAD)$ ) { }", Some("$x !~ ^(GET|HEAD)$")),
            ("if (-f $request_filename) { }", Some("-f $request_filename")),
            ("if (!-e $document_root$uri) { }", Some("!-e $document_root$uri")),
            ("if ($x == a) { }", None),
            ("if (x = a) { }", None),
            ("if $x { }", None),
            ("if ($x = a b) { }", None),
        ] {
            assert_eq!(conditions(text), [expected.map(str::to_owned)], "{text}");
        }
    }

    #[test]
    fn what_runs_in_another_order_than_set_rewrite_and_return_becomes_steps() {
        let item = |text: &str| Item::new(Value::text(text));
        let set = |name: &str| Op::Set(name.to_owned(), item("v"));
        let keys = |ops: Vec<Op>| script_entries(ops).into_iter().map(|entry| entry.key).collect::<Vec<_>>();
        let rewrite = || Op::Rewrite(item("^ /x"));
        assert_eq!(keys(vec![set("a"), rewrite(), Op::Return(item("403"))]), ["set", "rewrite", "return"]);
        assert_eq!(keys(vec![rewrite(), set("a")]), ["rewrite"]);
        assert_eq!(keys(vec![set("a"), set("a")]), ["set", "rewrite"], "a table has a name once");
        assert_eq!(
            keys(vec![Op::Return(item("403")), rewrite()]),
            ["return"],
            "nothing behind it is reached"
        );
    }
}
