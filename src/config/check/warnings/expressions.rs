//! Regular expressions that match something else than they seem to.

use std::ops::Range;

use super::{scripts, steps, tables};
use crate::config::error::Mistake;
use crate::config::file::{self, TextOr, Top};
use crate::config::words::words;

/// Looks at every expression of a file, and at the texts that were probably meant as one.
pub(super) fn find(file: &Top, found: &mut Vec<Mistake>) {
    for map in tables(&file.map) {
        if let Some(source) = map.get_ref().source.given().filter(|source| !source.get_ref().contains('$')) {
            let text = source.get_ref();
            let mistake =
                Mistake::warning(source.span(), format!("`{text}` is always the same: it is no variable"));
            found.push(mistake.help(format!("write `source = \"${text}\"`")));
        }
        let entries = map.get_ref().entries.given().map(|entries| entries.get_ref().0.as_slice());
        for (key, _) in entries.unwrap_or_default() {
            if let Some(text) = key.get_ref().strip_prefix('~') {
                dollars(text.trim_start_matches('*'), key.span(), found);
            }
        }
    }
    for server in tables(&file.server) {
        let names = server.get_ref().server_name.given().map(|names| names.get_ref().0.as_slice());
        for name in names.unwrap_or_default() {
            if let Some(text) = name.get_ref().strip_prefix('~') {
                dollars(text, name.span(), found);
            }
        }
        locations(tables(&server.get_ref().location), found);
    }
    scripts(file, |script| {
        for step in steps(script) {
            match step.get_ref() {
                TextOr::Text(text) => {
                    if let Some(regex) = words(text).ok().and_then(|words| words.into_iter().next()) {
                        dollars(&regex, step.span(), found);
                    }
                }
                TextOr::Table(table) => {
                    if let Some(condition) = table.r#if.given() {
                        compared(condition.get_ref(), condition.span(), found);
                    }
                }
            }
        }
    });
}

fn locations(written: &[serde_spanned::Spanned<file::Location>], found: &mut Vec<Mistake>) {
    for location in written {
        if let Some(path) = location.get_ref().path.given()
            && let Some(text) = path.get_ref().strip_prefix('~')
        {
            let text = text.trim_start_matches('*').trim_start();
            dollars(text, path.span(), found);
            dot(path.get_ref(), path.span(), found);
        }
        locations(tables(&location.get_ref().location), found);
    }
}

/// nginx fills in no variables in an expression, and neither does hopgate.
fn dollars(regex: &str, span: Range<usize>, found: &mut Vec<Mistake>) {
    let special = special(regex);
    let Some(at) = special.into_iter().find(|at| {
        regex[*at..]
            .strip_prefix('$')
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '_' | '{')))
    }) else {
        return;
    };
    let name: String = regex[at..]
        .chars()
        .skip(1)
        .take_while(|c| c.is_ascii_alphanumeric() || *c == '_' || *c == '{')
        .collect();
    let message = format!(
        "this can never match: in an expression `$` is the end of the text, and `${name}` no variable"
    );
    let help = "variables are filled in on the left side only; compare two of them with `=`, or put both into one text by `set`";
    found.push(Mistake::warning(span, message).help(help));
}

/// `~ .png$` matches `/xpng`, too.
fn dot(path: &str, span: Range<usize>, found: &mut Vec<Mistake>) {
    let regex = path.trim_start_matches(['~', '*']).trim_start();
    let modifier = &path[..path.len() - regex.len()];
    let Some(end) = regex.strip_suffix('$') else { return };
    let Some(at) = special(end).into_iter().rfind(|at| end[*at..].starts_with('.')) else { return };
    let extension = &end[at + 1..];
    let inner = extension
        .strip_prefix('(')
        .and_then(|rest| rest.strip_suffix(')'))
        .map(|rest| rest.trim_start_matches("?:"));
    let is_one = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '?')
    };
    let is_extension = match inner {
        Some(inner) => inner.split('|').all(is_one),
        None => is_one(extension),
    };
    if is_extension {
        let right = format!("{}\\.{}", &regex[..at], &regex[at + 1..]);
        let message = "`.` matches any character here, not only a dot";
        let help = format!("write `\\.`, in single quotes: `'{modifier}{right}'`");
        found.push(Mistake::warning(span, message).help(help));
    }
}

/// `=` compares texts, and an expression is none.
fn compared(condition: &str, span: Range<usize>, found: &mut Vec<Mistake>) {
    let bare =
        condition.trim().strip_prefix('(').and_then(|text| text.strip_suffix(')')).unwrap_or(condition);
    let Ok(words) = words(bare) else { return };
    let [variable, sign, value] = words.as_slice() else { return };
    if sign.trim_start_matches('!').starts_with('~') {
        return dollars(value, span, found);
    }
    let is_expression =
        value.starts_with('^') || [".*", ".+", "\\.", "(?", "[^"].iter().any(|sign| value.contains(sign));
    if is_expression {
        let right = if sign.starts_with('!') { "!~" } else { "~" };
        let message = format!("`{sign}` compares the text itself, and `{value}` looks like an expression");
        found.push(Mistake::warning(span, message).help(format!("write `{variable} {right} {value}`")));
    }
}

/// The places of the characters of an expression that are neither escaped nor within `[…]`.
fn special(regex: &str) -> Vec<usize> {
    let mut places = Vec::new();
    let mut class: Option<usize> = None;
    let mut chars = regex.char_indices();
    while let Some((at, c)) = chars.next() {
        match (c, class) {
            ('\\', _) => drop(chars.next()),
            // A `]` right behind the `[` or `[^` stands for itself.
            (']', Some(start))
                if at > start + 1 && !(at == start + 2 && regex[start..].starts_with("[^")) =>
            {
                class = None
            }
            (_, Some(_)) => {}
            ('[', None) => class = Some(at),
            _ => places.push(at),
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    fn say(check: fn(&str, Range<usize>, &mut Vec<Mistake>), text: &str) -> bool {
        let mut found = Vec::new();
        check(text, 0..0, &mut found);
        !found.is_empty()
    }

    #[test]
    fn an_extension_with_a_bare_dot_is_found() {
        for text in [".png$", "^/img/.png$", ".(js|css)$", "x.(?:jpe?g|png)$", "^/robots.txt$"] {
            assert!(say(dot, text), "{text}");
        }
        for text in [
            r"\.png$",
            r"\.(js|css)$",
            "^/a/.*$",
            "^/a/.+x$",
            "[.]png$",
            "^/a.*b$",
            ".png",
            "^/.$",
            "^/(.)x$",
        ] {
            assert!(!say(dot, text), "{text}");
        }
    }

    #[test]
    fn a_dollar_in_front_of_a_name_is_found() {
        for text in ["^/$host/", "a$b", "${x}", "[$]$x"] {
            assert!(say(dollars, text), "{text}");
        }
        for text in ["^/a$", "^/(a$|b$)", r"^/\$x", "[$a]", "[]$a]", "[^]$a]", "x$(?#y)"] {
            assert!(!say(dollars, text), "{text}");
        }
    }
}
