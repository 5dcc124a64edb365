//! What is wrong with the syntax of a file, in words that say what was probably meant.

use std::ops::Range;

use super::Word;
use crate::config::error::{Mistake, MistakeKind};
use crate::nginx::directives;

/// Directives whose arguments may go over several lines, so that a known word may begin one.
const LISTS: &[&str] = &[
    "server_name",
    "index",
    "env",
    "gzip_types",
    "try_files",
    "log_format",
    "error_page",
    "proxy_next_upstream",
    "limit_except",
    "valid_referers",
    "return",
    "access_log",
    "add_header",
    "if",
];

/// Blocks whose lines are no directives.
const TABLES: &[&str] = &["map", "geo", "types", "split_clients", "charset_map"];

pub(super) fn never_closed(opened: &Word, end: usize) -> Mistake {
    let message = format!("the block of `{}` is never closed", opened.text);
    Mistake::new(opened.place.span.clone(), message)
        .label("opened here")
        .also(end..end, "the file ends here")
        .help("write a `}` where the block ends")
}

pub(super) fn stray_close(span: Range<usize>) -> Mistake {
    Mistake::new(span, "there is no block that this `}` could close")
        .label("one too many")
        .help("delete it, or write the `{` that is missing further up")
}

pub(super) fn stray_semicolon(span: Range<usize>) -> Mistake {
    Mistake::new(span, "a `;` without a directive before it").label("one too many").help("delete it")
}

pub(super) fn stray_open(span: Range<usize>, text: &str) -> Mistake {
    let template = text[..span.start].trim_end().ends_with('{') || text[span.end..].starts_with(['{', '%']);
    let mistake = Mistake::new(span, "a `{` without a directive before it");
    match template {
        // The rest of such a line is no more than a consequence.
        true => mistake
            .label("of a template?")
            .help("fill the template in first, and import the result")
            .kind(MistakeKind::Syntax),
        false => {
            mistake.label("what is it the block of?").help("write the directive before it, or delete it")
        }
    }
}

pub(super) fn too_deep(name: &Word) -> Mistake {
    Mistake::new(name.place.span.clone(), "the blocks are nested too deeply").help("close those further up")
}

pub(super) fn open_quote(quote: char, span: Range<usize>) -> Mistake {
    Mistake::new(span.start..span.start + 1, format!("the quote `{quote}` is never closed"))
        .label("opened here")
        .help(format!("write another `{quote}` where the text ends, or `\\{quote}` if it is part of a word"))
}

pub(super) fn behind_quote(next: char, span: Range<usize>) -> Mistake {
    let help = match next {
        '"' | '\'' => format!("write `\\{next}` for a quote inside of a text, as in `\"it\\{next}s\"`"),
        _ => "write a blank or `;` between them, or put all of it into the quotes".to_owned(),
    };
    Mistake::new(span, format!("`{next}` directly behind a closing quote")).label("not here").help(help)
}

/// `{2,4}` in a word without quotes.
pub(super) fn bare_braces(word: &str, span: Range<usize>) -> Mistake {
    let quote = if word.contains('"') { '\'' } else { '"' };
    Mistake::new(span, "an expression with a `{` in it needs quotes")
        .label("nginx takes the `{` for the start of a block")
        .help(format!("write `{quote}{word}{quote}`"))
}

/// A byte that is no UTF-8 has become U+FFFD.
pub(super) fn foreign_byte(at: usize) -> Mistake {
    let span = at..at + char::REPLACEMENT_CHARACTER.len_utf8();
    Mistake::new(span, "a byte that is no UTF-8, which a configuration of hopgate cannot have")
        .label("probably a letter in Latin-1")
        .help("save the file in UTF-8, as clients send paths; or leave the line out and write it anew in the result")
}

/// The words are followed by `}`, or by nothing.
pub(super) fn no_semicolon(words: &[Word], at: usize) -> Mistake {
    if reads_like_a_note(words) {
        return note(words);
    }
    let (Some(first), Some(last)) = (words.first(), words.last()) else {
        return Mistake::new(at..at, "a `;` is missing");
    };
    let end = last.place.span.end;
    let line = words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ");
    let mistake = Mistake::new(last.place.span.clone(), format!("`{}` does not end with `;`", first.text));
    let known = directives::find(&first.text).is_some();
    mistake.label("missing behind this").also(at.max(end)..at.max(end) + 1, "needed before this").help(
        match known {
            true => format!("write `{line};`"),
            false => format!("write `{line};`, or delete it if it is no directive"),
        },
    )
}

/// Text behind a directive that its author forgot the `#` of: `proxy_pass …; replace PORT with yours`.
pub(super) fn reads_like_a_note(words: &[Word]) -> bool {
    let Some(first) = words.first() else { return false };
    words.len() > 2 && !first.first_of_line && !first.quoted && {
        let word = first.text.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'\'');
        word && directives::find(&first.text).is_none()
    }
}

pub(super) fn note(words: &[Word]) -> Mistake {
    let own_line = words.iter().skip(1).take_while(|word| !word.first_of_line).count();
    let span = match (words.first(), words.get(own_line)) {
        (Some(first), Some(last)) => first.place.span.start..last.place.span.end,
        _ => 0..0,
    };
    Mistake::new(span, "this is no directive: it reads like a remark")
        .label("not known to nginx")
        .help("write a `#` before it, or delete it")
}

/// The place of a word that begins a line and a directive of its own: the `;` before it is missing.
pub(super) fn swallowed(words: &[Word], parent: Option<&str>) -> Option<usize> {
    let first = words.first()?;
    if LISTS.contains(&first.text.as_str()) || parent.is_some_and(|parent| TABLES.contains(&parent)) {
        return None;
    }
    let begins = |word: &Word| word.first_of_line && !word.quoted && directives::find(&word.text).is_some();
    words.iter().skip(1).position(begins).map(|place| place + 1)
}

pub(super) fn no_semicolon_before(words: &[Word], next: usize) -> Mistake {
    let line = words[..next].iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ");
    let (last, next) = (&words[next - 1], &words[next]);
    Mistake::new(last.place.span.clone(), format!("`{}` does not end with `;`", words[0].text))
        .label("missing behind this")
        .also(next.place.span.clone(), "the next directive begins here")
        .help(format!("write `{line};`"))
}
