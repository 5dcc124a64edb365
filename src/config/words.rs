//! The words of a line as nginx would split it: by blanks, with quotes around what has blanks in it.

/// Splits a line into words. A word may stand in `"…"` or `'…'`, where a `\` before the quote takes its
/// meaning away; everywhere else every character stands for itself, as regular expressions need it.
///
/// # Errors
/// A quote that is not closed, or one with something right behind it.
pub fn words(line: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while let Some(first) = rest.chars().next() {
        if matches!(first, '"' | '\'') {
            let (word, behind) = quoted(&rest[1..], first).ok_or("a quote is not closed")?;
            if !behind.is_empty() && !behind.starts_with(char::is_whitespace) {
                return Err("a blank is missing behind a quote");
            }
            words.push(word);
            rest = behind.trim_start();
        } else {
            let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
            words.push(rest[..end].to_owned());
            rest = rest[end..].trim_start();
        }
    }
    Ok(words)
}

/// The text up to the closing quote, and what stands behind it.
fn quoted(text: &str, quote: char) -> Option<(String, &str)> {
    let mut word = String::new();
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' if chars.peek().is_some_and(|(_, next)| *next == quote) => {
                word.push(quote);
                chars.next();
            }
            c if c == quote => return Some((word, &text[at + c.len_utf8()..])),
            c => word.push(c),
        }
    }
    None
}

/// Writes a word so that [`words`] reads it back.
pub fn quote(word: &str) -> String {
    let is_plain = !word.is_empty() && !word.contains(char::is_whitespace) && !word.starts_with(['"', '\'']);
    if is_plain {
        return word.to_owned();
    }
    let mark = if word.contains('\'') && !word.contains('"') { '"' } else { '\'' };
    format!("{mark}{}{mark}", word.replace(mark, &format!("\\{mark}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_line_is_split_as_nginx_splits_it() {
        let split = |line| words(line).unwrap();
        assert_eq!(split(r"^/a\.b(.*)$ /c$1 last"), [r"^/a\.b(.*)$", "/c$1", "last"]);
        assert_eq!(split(r#"  "a b" 'c"d'  e"f "#), ["a b", "c\"d", "e\"f"]);
        assert_eq!(split(r#""a\"b\d""#), [r#"a"b\d"#]);
        assert_eq!(split("''"), [""]);
        assert!(words("'a").is_err() && words("'a'b").is_err());
    }

    proptest! {
        #[test]
        fn what_is_quoted_is_read_back(list in prop::collection::vec("[^\\\\]{0,8}", 0..5)) {
            let line: Vec<_> = list.iter().map(|word| quote(word)).collect();
            prop_assert_eq!(words(&line.join(" ")).unwrap(), list);
        }
    }
}
