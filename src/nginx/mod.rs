//! Reads an nginx configuration and says it in TOML; nothing else knows nginx's syntax.

mod check;
pub mod convert;
pub mod directives;
pub mod parse;
pub mod report;

use std::path::{Path, PathBuf};

use crate::config::{Config, ConfigErrors};

pub use parse::ParseError;

/// What an import is told besides the file.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Where relative paths begin that are no includes, as `nginx -p` has it; `None`: where a packaged
    /// nginx has it for a file in `/etc/nginx`, and beside the file for any other.
    pub prefix: Option<PathBuf>,
}

/// A configuration in hopgate's language, and what there is to say about it.
#[derive(Debug)]
pub struct Imported {
    /// The file: it passes `hopgate check`.
    pub toml: String,
    /// What could not be carried over, in the order of the files, as `file:line: directive: …`.
    pub reports: Vec<String>,
    /// What is needless, once for each directive.
    pub notes: Vec<String>,
}

/// Why there is no result.
#[derive(Debug)]
pub enum ImportError {
    /// The nginx file is not right.
    Parse(ParseError),
    /// What was made of it is no configuration: our mistake.
    Bug {
        /// What was made.
        toml: String,
        /// What is wrong with it.
        errors: ConfigErrors,
    },
}

/// Imports a file with everything that it includes.
///
/// # Errors
/// The file cannot be read or is not nginx's language; or what came out is no configuration.
pub fn import(path: &Path, options: &Options) -> Result<Imported, ImportError> {
    let parsed = parse::read(path).map_err(ImportError::Parse)?;
    finish(parsed, path, options)
}

/// Imports a text; `path` is where it would stand.
///
/// # Errors
/// As of [`import`].
pub fn import_text(path: &Path, text: &str, options: &Options) -> Result<Imported, ImportError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let parsed =
        parse::parse(&path.display().to_string(), text.to_owned(), folder).map_err(ImportError::Parse)?;
    finish(parsed, path, options)
}

fn finish(parsed: parse::Parsed, path: &Path, options: &Options) -> Result<Imported, ImportError> {
    let prefix = options.prefix.clone().unwrap_or_else(|| convert::paths::usual_prefix(path));
    let converted = convert::document(&parsed, path, &prefix);
    convert::refine::until_it_is_right(converted, &parsed.files, |text| Config::parse("hopgate.toml", text))
}
