//! Mistakes against TOML itself, in words for people who come from nginx.

use std::ops::Range;

use toml::de::{DeTable, DeValue, Error};

use super::nginx;
use crate::config::error::{Mistake, MistakeKind};

/// What the parser of TOML found, one mistake a line: the first one, or else the one that says most.
pub(super) fn mistakes(text: &str, document: &DeTable<'_>, errors: &[Error]) -> Vec<Mistake> {
    let mut mistakes: Vec<Mistake> = errors.iter().map(|error| mistake(text, document, error)).collect();
    mistakes.sort_by_key(|mistake| {
        (line_of(text, mistake.span.start).start, mistake.help.is_none(), mistake.span.start)
    });
    mistakes.dedup_by_key(|mistake| line_of(text, mistake.span.start).start);
    mistakes
}

fn mistake(text: &str, document: &DeTable<'_>, error: &Error) -> Mistake {
    let start = text.floor_char_boundary(error.span().map_or(0, |span| span.start).min(text.len()));
    let end = text.ceil_char_boundary(error.span().map_or(start, |span| span.end).clamp(start, text.len()));
    let span = start..end;
    let line = line_of(text, start);
    let written = text[line.clone()].trim();
    let plain = |message: &str| Mistake::new(span.clone(), message).kind(MistakeKind::Syntax);
    match error.message() {
        message if message.starts_with("string values must be quoted") => unquoted(text, span.clone()),
        message if message.starts_with("invalid float") || message.starts_with("invalid integer") => {
            not_a_number(text, span.clone()).unwrap_or_else(|| plain(message))
        }
        message if message.starts_with("missing escaped value") || message.starts_with("too few unicode") => {
            no_escape(text, line, start).unwrap_or_else(|| plain(message))
        }
        "duplicate key" => duplicate(document, span.clone(), &text[span]),
        message if message.starts_with("key with no value") => no_value(text, line, span),
        message if message.starts_with("unexpected key or value") && text[start..].starts_with(';') => {
            plain("there is no `;` at the end of a line in TOML").help("delete it")
        }
        _ if written == "}" => plain(NO_BRACE).help("delete it"),
        message if written.ends_with('{') => {
            plain(message).help("tables are written `[[server]]` here, not `server { … }`")
        }
        message => plain(message),
    }
}

const NO_BRACE: &str = "a table does not end with `}` in TOML: the next one ends it";

fn unquoted(text: &str, span: Range<usize>) -> Mistake {
    let span = with_brackets(text, span);
    let value = text[span.clone()].trim().trim_end_matches(';').trim_end();
    if value.is_empty() {
        return Mistake::new(span, "there is no value behind the `=`").kind(MistakeKind::Syntax);
    }
    let help = match value {
        "on" | "yes" => "write `true`, or `\"on\"` in quotes if it is a text".to_owned(),
        "True" | "TRUE" | "False" | "FALSE" => format!("write `{}`", value.to_ascii_lowercase()),
        _ if value.bytes().all(|byte| byte.is_ascii_digit()) => format!("write `{value}`"),
        _ => format!("write `\"{}\"`", value.replace(['"', '\''], "")),
    };
    let message = format!("a text must stand in quotes: {}", text[span.clone()].trim());
    Mistake::new(span, message).label("not in quotes").help(help).kind(MistakeKind::Syntax)
}

/// The brackets of an IPv6 address are its own and not those of an array.
fn with_brackets(text: &str, span: Range<usize>) -> Range<usize> {
    let is_ipv6 = text[span.clone()].trim().parse::<std::net::Ipv6Addr>().is_ok();
    let (Some(before), Some(behind)) =
        (text[..span.start].strip_suffix('['), text[span.end..].strip_prefix(']'))
    else {
        return span;
    };
    let port =
        behind.strip_prefix(':').map_or(0, |port| 1 + port.bytes().take_while(u8::is_ascii_digit).count());
    if is_ipv6 && port > 1 { before.len()..span.end + 1 + port } else { span }
}

/// What begins like a number and is none: an address, mostly.
fn not_a_number(text: &str, span: Range<usize>) -> Option<Mistake> {
    let ends = |c: char| c.is_whitespace() || matches!(c, '=' | '[' | ']' | '{' | '}' | ',' | '#');
    let start = text[..span.start].rfind(ends).map_or(0, |end| end + 1);
    let end = text[span.start..].find(ends).map_or(text.len(), |length| span.start + length);
    text[start..end].starts_with(|c: char| c.is_ascii_digit()).then(|| unquoted(text, start..end))
}

/// A regular expression in `"…"`, where TOML has a meaning of its own for `\`.
fn no_escape(text: &str, line: Range<usize>, at: usize) -> Option<Mistake> {
    let opening = opening_quote(&text[line.start..at])? + line.start;
    let closing = opening + 1 + closing_quote(&text[opening + 1..line.end])?;
    let escape = text[..at].rfind('\\')?..text.ceil_char_boundary((at + 1).min(line.end));
    let meant = text[opening + 1..closing].replace("\\\\", "\\").replace("\\\"", "\"");
    let help = match meant.contains('\'') {
        false => format!("write `'{meant}'`: between `'` a `\\` stands for itself"),
        true => format!("write `\"{}\"`", meant.replace('\\', "\\\\").replace('"', "\\\"")),
    };
    let message = format!("`{}` means nothing in a text between `\"`", &text[escape.clone()]);
    Some(Mistake::new(escape, message).help(help).kind(MistakeKind::Syntax))
}

/// Where the text between `"` begins that goes on at the end of this part of a line.
fn opening_quote(part: &str) -> Option<usize> {
    let mut opening = None;
    let mut is_literal = false;
    let mut bytes = part.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match (byte, opening) {
            (b'\\', Some(_)) => drop(bytes.next()),
            (b'"', Some(_)) => opening = None,
            (b'"', None) if !is_literal => opening = Some(at),
            (b'\'', None) => is_literal = !is_literal,
            _ => {}
        }
    }
    opening
}

/// Where a text between `"` ends.
fn closing_quote(rest: &str) -> Option<usize> {
    let mut bytes = rest.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'\\' => drop(bytes.next()),
            b'"' => return Some(at),
            _ => {}
        }
    }
    None
}

/// The keys of which nginx has a line for each entry.
const TABLES: &[&str] = &["proxy_set_header", "add_header", "auth_request_set", "set", "types"];

fn duplicate(document: &DeTable<'_>, span: Range<usize>, key: &str) -> Mistake {
    let help = match TABLES.contains(&key) {
        true => format!("write one table for all of them: `{key} = {{ NAME = \"value\", OTHER = \"value\" }}`"),
        false => "delete one of them; several tables of one kind are written `[[server]]`, several values as an array"
            .to_owned(),
    };
    let mistake = Mistake::new(span.clone(), format!("`{key}` stands here for the second time"))
        .label("again")
        .help(help)
        .kind(MistakeKind::Syntax);
    match nearest_before(document, key.trim_matches(['"', '\'']), span.start) {
        Some(first) => mistake.also(first, "first here"),
        None => mistake,
    }
}

/// The last place before `at` where the key was read.
fn nearest_before(table: &DeTable<'_>, wanted: &str, at: usize) -> Option<Range<usize>> {
    let inner = |value: &DeValue<'_>| match value {
        DeValue::Table(table) => nearest_before(table, wanted, at),
        DeValue::Array(array) => array
            .iter()
            .filter_map(|entry| nearest_before(entry.get_ref().as_table()?, wanted, at))
            .max_by_key(|span| span.start),
        _ => None,
    };
    table
        .iter()
        .flat_map(|(key, value)| {
            let own = (key.get_ref() == wanted && key.span().start < at).then(|| key.span());
            [own, inner(value.get_ref())]
        })
        .flatten()
        .max_by_key(|span| span.start)
}

/// `listen 80;` and `server {`, as nginx would have it.
fn no_value(text: &str, line: Range<usize>, span: Range<usize>) -> Mistake {
    let written = text[line].trim();
    let mistake = |message: &str| Mistake::new(span.clone(), message).kind(MistakeKind::Syntax);
    let Some((key, rest)) = written.split_once(char::is_whitespace) else {
        return mistake("a `=` and a value are missing").help(format!("write `{written} = …`"));
    };
    let rest = rest.trim().trim_end_matches(';').trim_end();
    let help = match (key, rest) {
        ("location", rest) if rest.ends_with('{') => {
            format!(
                "write `[[server.location]]`, and in the next line `path = \"{}\"`",
                rest.trim_end_matches('{').trim()
            )
        }
        ("upstream", rest) if rest.ends_with('{') => {
            format!("write `[upstream.{}]`", rest.trim_end_matches('{').trim())
        }
        ("server", rest) if rest.starts_with('{') => "write `[[server]]`".to_owned(),
        ("proxy_set_header", rest) => set_header(rest),
        (key, rest) if !rest.is_empty() && !rest.contains('=') => {
            format!("write `{key} = \"{}\"`", rest.trim_matches(['"', '\'']))
        }
        _ => "write `key = value`".to_owned(),
    };
    mistake("a key and its value have a `=` between them in TOML").help(nginx::needless(key).unwrap_or(help))
}

fn set_header(rest: &str) -> String {
    let (name, value) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    if name.eq_ignore_ascii_case("upgrade") || name.eq_ignore_ascii_case("connection") {
        return "delete the line: hopgate does WebSocket upgrades by itself".to_owned();
    }
    format!("write `proxy_set_header = {{ {name} = \"{}\" }}`", value.trim().trim_matches(['"', '\'']))
}

fn line_of(text: &str, at: usize) -> Range<usize> {
    let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    start..text[at..].find('\n').map_or(text.len(), |length| at + length)
}
