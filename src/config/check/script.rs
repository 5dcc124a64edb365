//! `set`, `rewrite`, `if` and `return`: the steps of a server or of a location.

use std::ops::Range;

use serde_spanned::Spanned;

use super::Check;
use crate::config::error::Mistake;
use crate::config::file::{self, RewriteStep, TextOr, Value};
use crate::config::words::words;
use crate::routing::script::{Assigned, Change, Condition, FileTest, Return, Rewrite, Step, Test, Then};
use crate::routing::variables::Template;

impl Check<'_> {
    /// The steps in the order in which they are taken: `set`, those of `rewrite`, `return`.
    pub(super) fn script(&mut self, written: &file::Script) -> Vec<Step> {
        let mut steps = Vec::new();
        for (name, value) in written.set.given().map(|set| set.get_ref().0.as_slice()).unwrap_or_default() {
            steps.extend(self.set(name, value));
        }
        for step in written.rewrite.given().map(|steps| steps.get_ref().0.as_slice()).unwrap_or_default() {
            match step.get_ref() {
                TextOr::Text(text) => steps.extend(self.line(text, step.span())),
                TextOr::Table(table) => steps.extend(self.step(table, step.span())),
            }
        }
        steps.extend(self.answer(&written.r#return).map(Step::Return));
        steps
    }

    fn set(&mut self, name: &Spanned<String>, value: &Spanned<String>) -> Option<Step> {
        let template = self.template(value);
        let variable = self.assigned(name)?;
        Some(Step::Set(variable, template?))
    }

    /// A variable that is given a value.
    pub(super) fn assigned(&mut self, name: &Spanned<String>) -> Option<Assigned> {
        if matches!(name.get_ref().as_str(), "args" | "$args") {
            return Some(Assigned::Args);
        }
        let name = self.own_name(name.get_ref(), name.span())?;
        Some(Assigned::User(self.names.made(name)))
    }

    /// A step as a text: nginx's `rewrite`, or `break`.
    fn line(&mut self, line: &str, span: Range<usize>) -> Option<Step> {
        let wrong = |check: &mut Self, message: String, help: &str| {
            check.mistakes.push(Mistake::new(span.clone(), message).help(help));
            None
        };
        let example = "write `\"^/old/(.*)$ /new/$1 permanent\"`: an expression, what becomes of the path, \
                       then `last`, `break`, `redirect`, `permanent` or nothing";
        let words = match words(line.trim_end_matches(';')) {
            Ok(words) => words,
            Err(why) => return wrong(self, format!("`rewrite`: {why}"), example),
        };
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let (regex, replacement, flag) = match *words {
            ["break"] => return Some(Step::Break),
            [regex, replacement] => (regex, replacement, None),
            [regex, replacement, flag] => (regex, replacement, Some(flag)),
            _ => return wrong(self, format!("`rewrite`: `{line}` is no rewrite"), example),
        };
        if !matches!(flag, None | Some("last" | "break" | "redirect" | "permanent")) {
            return wrong(self, format!("`rewrite`: `{}` is not a flag", words[2]), example);
        }
        let regex = self.regex(regex, false, span.clone());
        let (text, adds_args) = match replacement.strip_suffix('?') {
            Some(text) => (text, false),
            None => (replacement, true),
        };
        let template = self.template(&Spanned::new(span.clone(), text.to_owned()))?;
        let written = line.trim().to_owned();
        Some(Step::Rewrite(Rewrite {
            written,
            regex: regex?,
            change: change(text, template, flag),
            adds_args,
        }))
    }

    /// A step as a table.
    fn step(&mut self, written: &RewriteStep, span: Range<usize>) -> Option<Step> {
        let condition = written.r#if.given().map(|text| self.condition(text));
        let mut steps = self.script(&written.script);
        if let Some(name) = written.goto.given() {
            self.gotos.push(name.clone());
            steps.push(Step::Goto(name.get_ref().clone()));
        }
        if written.r#break.given().is_some_and(|value| *value.get_ref()) {
            steps.push(Step::Break);
        }
        if steps.is_empty() {
            let mistake = Mistake::new(span, "a step that does nothing");
            let help = "write what is to be done: `set`, `rewrite`, `return`, `goto` or `break = true`";
            self.mistakes.push(mistake.help(help).kind(crate::config::error::MistakeKind::Doubtful));
        }
        match condition {
            None => Some(Step::If(None, steps)),
            Some(condition) => Some(Step::If(Some(condition?), steps)),
        }
    }

    fn condition(&mut self, written: &Spanned<String>) -> Option<Condition> {
        let span = written.span();
        let text = written.get_ref().trim();
        let bare = text.strip_prefix('(').and_then(|text| text.strip_suffix(')')).unwrap_or(text);
        let wrong = |check: &mut Self, message: String| {
            let help = "write `$variable`, `$variable = text`, `$variable ~ expression` (`~*` without regard to \
                        case), or `-f path` (`-d`, `-e`, `-x`); `!` before the sign turns it round";
            check.mistakes.push(Mistake::new(span.clone(), message).help(help));
            None
        };
        let words = match words(bare) {
            Ok(words) => words,
            Err(why) => return wrong(self, format!("`if`: {why}")),
        };
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let (test, is_negated) = match *words {
            [variable] if variable.starts_with('$') => (Test::IsTrue(self.variable(variable, span)?), false),
            [test, path] if test.trim_start_matches('!').starts_with('-') => {
                let kind = match test.trim_start_matches('!') {
                    "-f" => FileTest::File,
                    "-d" => FileTest::Directory,
                    "-e" => FileTest::Exists,
                    "-x" => FileTest::Executable,
                    _ => return wrong(self, format!("`if`: `{test}` is not a test")),
                };
                let path = self.template(&Spanned::new(span, path.to_owned()))?;
                (Test::File(kind, path), test.starts_with('!'))
            }
            [variable, sign, value] if variable.starts_with('$') => {
                let Some(test) = self.comparison(variable, sign, value, span.clone()) else {
                    return match sign.trim_start_matches('!') {
                        "=" | "~" | "~*" => None,
                        _ => wrong(self, format!("`if`: `{sign}` is not a comparison")),
                    };
                };
                (test, sign.starts_with('!'))
            }
            _ => return wrong(self, format!("`if`: `{text}` is no condition")),
        };
        Some(Condition { written: bare.to_owned(), test, is_negated })
    }

    fn comparison(&mut self, variable: &str, sign: &str, value: &str, span: Range<usize>) -> Option<Test> {
        let variable = self.variable(variable, span.clone());
        match sign.trim_start_matches('!') {
            "=" => {
                let value = self.template(&Spanned::new(span, value.to_owned()));
                Some(Test::Equals(variable?, value?))
            }
            "~" | "~*" => {
                let regex = self.regex(value, sign.ends_with('*'), span);
                Some(Test::Matches(variable?, regex?))
            }
            _ => None,
        }
    }

    fn answer(&mut self, written: &Value<TextOr<file::Return>>) -> Option<Return> {
        let written = written.given()?;
        let span = written.span();
        match written.get_ref() {
            TextOr::Text(text) => self.answer_line(text, span),
            TextOr::Table(table) => {
                if table.status.is_absent() {
                    let help = "write `{ status = 200, text = \"ok\" }`";
                    self.missing(span.clone(), "a `return` needs a `status`", help);
                }
                let status = table.status.given()?;
                let text = table.text.given().map(|text| self.template(text));
                let status = self.in_range(*status.get_ref(), status, "status", 200..=999)? as u16;
                Some(Return { status, text: text.flatten() })
            }
        }
    }

    /// nginx's line: a status, with a text or a URL behind it; or a URL alone, which is a 302.
    fn answer_line(&mut self, text: &str, span: Range<usize>) -> Option<Return> {
        let text = text.trim().trim_end_matches(';');
        let (first, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let template =
            |check: &mut Self, text: &str| check.template(&Spanned::new(span.clone(), text.to_owned()));
        if is_url(text) {
            return Some(Return { status: 302, text: Some(template(self, text)?) });
        }
        let status = first.parse::<u16>().ok().filter(|status| (200..=999).contains(status));
        let Some(status) = status else {
            let mistake = Mistake::new(span, format!("`return`: `{first}` is neither a status nor a URL"));
            let help = "write `\"404\"`, `\"200 'a text'\"`, `\"301 https://$host$request_uri\"` or a URL";
            self.mistakes.push(mistake.help(help));
            return None;
        };
        let rest = rest.trim();
        if rest.is_empty() {
            return Some(Return { status, text: None });
        }
        // A text may stand in quotes, and need not: it goes on to the end.
        let unquoted = match words(rest).as_deref() {
            Ok([only]) => only.clone(),
            _ => rest.to_owned(),
        };
        Some(Return { status, text: Some(template(self, &unquoted)?) })
    }
}

fn is_url(text: &str) -> bool {
    ["http://", "https://", "$scheme"].iter().any(|start| text.starts_with(start))
}

/// What a `rewrite` does, by its replacement and its flag.
fn change(text: &str, template: Template, flag: Option<&str>) -> Change {
    let status = match flag {
        Some("permanent") => Some(301),
        Some("redirect") => Some(302),
        _ if is_url(text) => Some(302),
        _ => None,
    };
    if let Some(status) = status {
        let has_query = template.split_at_byte(b'?').is_some();
        return Change::Redirect { status, to: template, has_query };
    }
    let then = match flag {
        Some("last") => Then::Last,
        Some("break") => Then::Break,
        _ => Then::Next,
    };
    match template.split_at_byte(b'?') {
        Some((path, args)) => Change::Path { path, args: Some(args), then },
        None => Change::Path { path: template, args: None, then },
    }
}
