//! What an import has to say besides its result: what could not be carried over, and what is needless.

use super::parse::{File, Place, line_and_column};

/// Something that the result does not say, or says differently: one line on standard error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Where it stands.
    pub place: Place,
    /// The directive.
    pub directive: String,
    /// Why it is not in the result, and what is to be done.
    pub text: String,
}

impl Report {
    /// A report on a directive.
    pub fn new(place: Place, directive: &str, text: &str) -> Self {
        Self { place, directive: visible(directive), text: visible(text) }
    }

    /// `file:line: directive: why not, and what to do`
    pub fn line(&self, files: &[File]) -> String {
        format!("{}: {}: {}", at(&self.place, files), self.directive, self.text)
    }
}

/// Directives that hopgate makes needless, all for one reason: said once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The directives.
    pub directives: Vec<String>,
    /// Why nothing needs them.
    pub reason: String,
    /// Where the first of them stands.
    pub place: Place,
    /// How many lines have one of them.
    pub count: usize,
}

impl Note {
    /// `note: file:line: directives: needless: reason`
    pub fn line(&self, files: &[File]) -> String {
        let place = at(&self.place, files);
        let lines = if self.count == 1 { String::new() } else { format!(" ({} lines)", self.count) };
        format!("note: {place}: {}: needless: {}{lines}", self.directives.join(", "), self.reason)
    }
}

fn at(place: &Place, files: &[File]) -> String {
    let Some(file) = files.get(place.file) else { return "?".to_owned() };
    format!("{}:{}", file.name, line_and_column(&file.text, place.span.start).0)
}

/// One line, without what would move the cursor of a terminal.
fn visible(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}
