//! Words, `;`, `{` and `}`, exactly as nginx splits a file into them.

use std::ops::Range;

use super::unescaped;

/// What a file is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// A word with what it says.
    Word { text: String, quoted: bool, first_of_line: bool },
    /// `;`
    End,
    /// `{`
    Open,
    /// `}`
    Close,
    /// A comment from its `#` to the end of the line; whether it has the line to itself.
    Comment { text: String, own_line: bool },
}

/// What is wrong with a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// A quote that is never closed.
    Quote(char),
    /// Something directly behind a closing quote.
    BehindQuote(char),
}

/// A token, or what is in its place, with its bytes.
pub(super) type Item = (Result<Token, Broken>, Range<usize>);

/// Splits a text.
pub(super) struct Lexer<'a> {
    text: &'a str,
    at: usize,
    /// Whether nothing but blanks stands before `at` in its line.
    fresh_line: bool,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let at = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        Self { text, at, fresh_line: true }
    }

    /// From a place in the middle of a text.
    pub(super) fn at(text: &'a str, at: usize) -> Self {
        Self { text, at, fresh_line: false }
    }

    fn byte(&self, at: usize) -> Option<u8> {
        self.text.as_bytes().get(at).copied()
    }

    fn skip_blanks(&mut self) {
        while let Some(byte) = self.byte(self.at).filter(|byte| is_blank(*byte)) {
            self.fresh_line |= byte == b'\n';
            self.at += 1;
        }
    }

    /// The bytes up to the brace that closes a block in another language, such as Lua: its strings and
    /// comments may have braces in them. The opening brace has been read.
    pub(super) fn skip_foreign_block(&mut self) {
        let bytes = self.text.as_bytes();
        let mut depth = 1_usize;
        while let Some(byte) = self.byte(self.at) {
            match byte {
                b'{' => depth += 1,
                b'}' => depth -= 1,
                b'-' if bytes[self.at..].starts_with(b"--") => self.at = self.line_end().max(self.at + 1) - 1,
                b'"' | b'\'' => self.at = self.foreign_string_end(byte),
                _ => {}
            }
            self.at = (self.at + 1).min(bytes.len());
            if depth == 0 {
                break;
            }
        }
        self.fresh_line = false;
    }

    fn line_end(&self) -> usize {
        self.text.as_bytes()[self.at..]
            .iter()
            .position(|byte| *byte == b'\n')
            .map_or(self.text.len(), |n| self.at + n)
    }

    /// The place of the closing quote, or of the end of the line if there is none.
    fn foreign_string_end(&self, quote: u8) -> usize {
        let (mut at, end) = (self.at + 1, self.line_end());
        while at < end {
            match self.byte(at) {
                Some(b'\\') => at += 2,
                Some(byte) if byte == quote => return at,
                _ => at += 1,
            }
        }
        end.min(self.text.len())
    }

    fn comment(&mut self) -> Item {
        let start = self.at;
        let own_line = self.fresh_line;
        self.at = self.line_end();
        let text = self.text[start + 1..self.at].trim_end().to_owned();
        (Ok(Token::Comment { text, own_line }), start..self.at)
    }

    /// A word in quotes ends at the quote, and a blank, `;`, `{` or `)` must follow.
    fn quoted(&mut self, quote: u8, first_of_line: bool) -> Item {
        let start = self.at;
        self.at += 1;
        while let Some(byte) = self.byte(self.at) {
            match byte {
                b'\\' => self.at += 2,
                _ if byte == quote => break,
                _ => self.at += 1,
            }
        }
        if self.at >= self.text.len() {
            self.at = self.text.len();
            return (Err(Broken::Quote(char::from(quote))), start..self.at);
        }
        let text = unescaped(&self.text[start + 1..self.at]);
        self.at += 1;
        match self.text[self.at..].chars().next() {
            Some(next) if !next.is_ascii_whitespace() && !matches!(next, ';' | '{' | ')') => {
                let from = self.at;
                self.at += next.len_utf8();
                (Err(Broken::BehindQuote(next)), from..self.at)
            }
            _ => (Ok(Token::Word { text, quoted: true, first_of_line }), start..self.at),
        }
    }

    /// Any other word ends at a blank, `;` or `{`, but for the `{` of `${name}`.
    fn bare(&mut self, first_of_line: bool) -> Item {
        let start = self.at;
        let mut variable = false;
        while let Some(byte) = self.byte(self.at) {
            if byte == b'{' && variable {
                variable = false;
                self.at += 1;
                continue;
            }
            variable = byte == b'$';
            match byte {
                b'\\' => self.at += 2,
                // nginx ends the word here, and reads nonsense behind it: the reader says so.
                b'{' if self.at > start && repetition(&self.text[self.at..]).is_some() => self.at += 1,
                b';' | b'{' => break,
                _ if is_blank(byte) => break,
                _ => self.at += 1,
            }
        }
        self.at = self.text.ceil_char_boundary(self.at.min(self.text.len()));
        let text = unescaped(&self.text[start..self.at]);
        (Ok(Token::Word { text, quoted: false, first_of_line }), start..self.at)
    }
}

impl Iterator for Lexer<'_> {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        self.skip_blanks();
        let start = self.at;
        let byte = self.byte(start)?;
        if byte == b'#' {
            return Some(self.comment());
        }
        let first_of_line = std::mem::replace(&mut self.fresh_line, false);
        let token = match byte {
            b';' => Token::End,
            b'{' => Token::Open,
            b'}' => Token::Close,
            b'"' | b'\'' => return Some(self.quoted(byte, first_of_line)),
            _ => return Some(self.bare(first_of_line)),
        };
        self.at += 1;
        Some((Ok(token), start..self.at))
    }
}

/// `{2}`, `{2,}` or `{2,4}` of a regular expression at the start of a text; nothing else in nginx's language
/// looks like it.
pub(super) fn repetition(text: &str) -> Option<&str> {
    let end = text.find('}')?;
    let inner = text[..end].strip_prefix('{')?;
    let counts = inner.bytes().all(|byte| byte.is_ascii_digit() || byte == b',');
    (counts && inner.starts_with(|first: char| first.is_ascii_digit())).then(|| &text[..=end])
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(text: &str) -> Vec<String> {
        let shown = |(token, _): Item| match token {
            Ok(Token::Word { text, .. }) => text,
            Ok(Token::End) => "END".to_owned(),
            Ok(Token::Open) => "OPEN".to_owned(),
            Ok(Token::Close) => "CLOSE".to_owned(),
            Ok(Token::Comment { text, .. }) => format!("#{text}"),
            Err(broken) => format!("{broken:?}"),
        };
        Lexer::new(text).map(shown).collect()
    }

    #[test]
    fn words_end_where_nginx_ends_them() {
        for (text, expected) in [
            ("listen 80;", &["listen", "80", "END"][..]),
            ("a b{c d;}", &["a", "b", "OPEN", "c", "d", "END", "CLOSE"]),
            ("a b}c;", &["a", "b}c", "END"]),
            ("a b#c; # d", &["a", "b#c", "END", "# d"]),
            ("a ${x}y$z;", &["a", "${x}y$z", "END"]),
            ("a $x{", &["a", "$x", "OPEN"]),
            ("a \"b ; {\" 'c\"d';", &["a", "b ; {", "c\"d", "END"]),
            ("a \"b\\\"c\" d\\;e;", &["a", "b\"c", "d\\;e", "END"]),
            ("a 'x\\ty\\\\z\\.';", &["a", "x\ty\\z\\.", "END"]),
            ("if ($a = \"b c\") {", &["if", "($a", "=", "b c", ")", "OPEN"]),
            ("a \"b\"c;", &["a", "BehindQuote('c')", "END"]),
            ("a \"b;", &["a", "Quote('\"')"]),
            ("a b\"c;", &["a", "b\"c", "END"]),
            ("\u{feff}a;", &["a", "END"]),
            ("a ''", &["a", ""]),
            ("~^/a\\d{2}$ b;", &["~^/a\\d{2}$", "b", "END"]),
        ] {
            assert_eq!(words(text), expected, "{text}");
        }
    }

    #[test]
    fn a_block_of_lua_ends_at_its_own_brace() {
        let mut lexer = Lexer::new(" if a then x = \"}\" -- }\n t = {1} end } b;");
        lexer.skip_foreign_block();
        assert!(
            lexer
                .next()
                .is_some_and(|(token, _)| matches!(token, Ok(Token::Word { text, .. }) if text == "b"))
        );
    }

    proptest! {
        #[test]
        fn every_text_is_split_to_its_end(text in "[a-z $\\\\\"';{}#\n\u{e9}\u{feff}-]{0,40}") {
            let mut last = 0;
            for (_, span) in Lexer::new(&text) {
                prop_assert!(span.start >= last && span.end > span.start && text.get(span.clone()).is_some());
                last = span.end;
            }
            let mut lexer = Lexer::new(&text);
            lexer.skip_foreign_block();
            prop_assert!(lexer.at <= text.len());
        }
    }
}
