//! Reads a text into the structs of `file`, and says everything in it that is not of their form.

mod keys;
mod language;
mod nginx;
mod section;
mod syntax;
mod values;

use toml::de::DeTable;

use super::error::Mistake;
use super::file::Top;

pub(super) use keys::nearest;
pub(super) use section::section;
pub use section::{Section, Table, word};

/// Reads the text of a file. What can be read is returned even if other things cannot.
pub fn document(text: &str) -> (Top, Vec<Mistake>) {
    let (document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty()
        && let Some(mistake) = language::mistake(text)
    {
        return (Top::default(), vec![mistake]);
    }
    let mut reader = Reader { mistakes: syntax::mistakes(text, document.get_ref(), &errors) };
    let top = reader.section(document.get_ref());
    (top, reader.mistakes)
}

/// The mistakes found so far.
pub struct Reader {
    mistakes: Vec<Mistake>,
}
