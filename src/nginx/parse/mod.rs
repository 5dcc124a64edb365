//! Reads nginx's language: files with everything that they include, as a tree of directives with their places.

mod include;
mod lexer;
mod tree;
mod wrong;

use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::config::ConfigErrors;
use crate::config::error::Mistake;

use super::check;
use super::report::Report;

/// A file that was read.
#[derive(Debug)]
pub struct File {
    /// Its name for messages: as it was written on the command line, or the path of an include.
    pub name: String,
    /// Its text; bytes that are no UTF-8 have become U+FFFD.
    pub text: String,
}

/// A place in one of the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which file, as a place in [`Parsed::files`].
    pub file: usize,
    /// The bytes of its text.
    pub span: Range<usize>,
}

/// One word of a directive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// What it says, without its quotes and with the escapes taken away that nginx takes away.
    pub text: String,
    /// Whether it stood in quotes.
    pub quoted: bool,
    /// Where it stands, quotes included.
    pub place: Place,
    /// Whether it is the first word of its line.
    pub first_of_line: bool,
}

/// A directive with its words and, if it is a block, what is in it.
#[derive(Clone, Debug)]
pub struct Directive {
    /// The first word.
    pub name: Word,
    /// The others.
    pub args: Vec<Word>,
    /// What stands in its braces; `None` if it ends with `;`.
    pub block: Option<Vec<Directive>>,
    /// The comment lines directly above it, without their `#`.
    pub comments: Vec<String>,
}

impl Directive {
    /// The first word.
    pub fn name(&self) -> &str {
        &self.name.text
    }

    /// The argument at a place, `""` if there is none.
    pub fn arg(&self, place: usize) -> &str {
        self.args.get(place).map_or("", |word| word.text.as_str())
    }

    /// The arguments as texts.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.args.iter().map(|word| word.text.as_str())
    }

    /// What stands in its braces; nothing if it has none.
    pub fn children(&self) -> &[Directive] {
        self.block.as_deref().unwrap_or_default()
    }

    /// The whole line, as it could be written.
    pub fn line(&self) -> String {
        let words = std::iter::once(&self.name).chain(&self.args);
        let quoted = |word: &Word| if word.quoted { format!("\"{}\"", word.text) } else { word.text.clone() };
        words.map(quoted).collect::<Vec<_>>().join(" ")
    }
}

/// A configuration with everything that it includes.
#[derive(Debug)]
pub struct Parsed {
    /// The files, the one that was asked for first.
    pub files: Vec<File>,
    /// The directives, those of included files where they are included.
    pub directives: Vec<Directive>,
    /// What was put right or left out on the way.
    pub reports: Vec<Report>,
    /// Whether nginx's own list of types was included.
    pub standard_types: bool,
}

/// Why a configuration cannot be read.
#[derive(Debug)]
pub enum ParseError {
    /// The file itself cannot be read.
    Unreadable(PathBuf, io::Error),
    /// Every mistake, by file.
    Mistakes(Vec<ConfigErrors>),
}

/// The most bytes of all files together.
const LARGEST: u64 = 16 << 20;

/// The most files.
const MOST_FILES: usize = 2000;

/// The deepest nesting of blocks and of includes.
const DEEPEST: usize = 64;

/// Reads a file and what it includes. Relative paths of includes are looked for beside the file, one
/// folder above it, and in `/etc/nginx`.
///
/// # Errors
/// The file cannot be read, or is not nginx's language.
pub fn read(path: &Path) -> Result<Parsed, ParseError> {
    let text = read_text(path).map_err(|error| ParseError::Unreadable(path.to_owned(), error))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    parse(&path.display().to_string(), text, folder)
}

/// Reads a text under a name; `folder` is where relative includes begin.
///
/// # Errors
/// It is not nginx's language.
pub fn parse(name: &str, text: String, folder: &Path) -> Result<Parsed, ParseError> {
    let mut reader = tree::Reader::new(folder);
    let directives = reader.file(name.to_owned(), text, 0);
    reader.mistakes.extend(check::mistakes(&reader.files, &directives));
    let errors = reader.errors();
    if !errors.is_empty() {
        return Err(ParseError::Mistakes(errors));
    }
    let tree::Reader { files, reports, standard_types, .. } = reader;
    Ok(Parsed { files, directives, reports, standard_types })
}

/// The mistakes of each file, in the order of the files.
pub(super) fn by_file(files: &[File], mistakes: Vec<(usize, Mistake)>) -> Vec<ConfigErrors> {
    let mut errors = Vec::new();
    for (number, file) in files.iter().enumerate() {
        let own = mistakes.iter().filter(|(of, _)| *of == number).map(|(_, mistake)| mistake.clone());
        errors.extend(ConfigErrors::unless_empty(&file.name, &file.text, own.collect()));
    }
    errors
}

/// Comments are often in another encoding; anywhere else U+FFFD is a mistake.
fn read_text(path: &Path) -> io::Result<String> {
    use std::io::Read;
    let kind = fs::metadata(path)?.file_type();
    if !kind.is_file() && !path.starts_with("/dev") {
        return Err(io::Error::other("it is not a file"));
    }
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(io::Error::other("it has more than 16 MiB, as no configuration has"));
    }
    if bytes.contains(&0) {
        return Err(io::Error::other("it is no text in UTF-8, but UTF-16 or no text at all"));
    }
    Ok(String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

/// The line and the column of a place, both from 1.
pub fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(at)];
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[start..].chars().count() + 1)
}

/// The escapes that nginx takes away: `\"`, `\'`, `\\`, `\t`, `\r` and `\n`; all others stay.
fn unescaped(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let escaped = match chars.peek().filter(|_| c == '\\') {
            Some(quote @ ('"' | '\'' | '\\')) => Some(*quote),
            Some('t') => Some('\t'),
            Some('r') => Some('\r'),
            Some('n') => Some('\n'),
            _ => None,
        };
        plain.push(escaped.unwrap_or(c));
        if escaped.is_some() {
            chars.next();
        }
    }
    plain
}
