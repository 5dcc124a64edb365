//! `try_files`: the first of several paths that is there, or what happens if none is.

use super::find::{Asked, Look};
use super::open::Kind;
use super::path::Place;
use super::{FileError, path};
use crate::config::{Fallback, FileRoot, Replaced, TryFiles};

/// What came of trying.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tried {
    /// Something is there: the request goes on in its location with this `$uri`.
    Found {
        /// The new `$uri`.
        uri: Vec<u8>,
        /// As in [`super::path::Place::is_behind_alias`].
        is_behind_alias: bool,
    },
    /// Nothing is: the request goes on as one for this path and query, in whatever location is theirs.
    Elsewhere(Vec<u8>),
    /// Nothing is: the request goes on in the location of this name, with its `@`.
    Named(String),
}

/// Looks for what `try_files` says.
///
/// # Errors
/// Nothing is there, and `try_files` ends with a status.
pub fn try_files(asked: &Asked<'_>, rules: &TryFiles) -> Result<Tried, FileError> {
    if let Some(place) = place_of(asked)? {
        for entry in &rules.entries {
            let mut name = Vec::new();
            (asked.fill)(&entry.path, &mut name);
            let has_variables = entry.path.as_literal().is_none();
            let Ok((path, uri)) = place.tried(asked.uri, &name, has_variables) else { continue };
            let is_wanted = |kind: Kind| (kind == Kind::Directory) == entry.is_directory;
            let is_there = asked.links(&path).look(&path).is_ok_and(|found| is_wanted(found.kind));
            (asked.tell)(Look { path: &path, is_directory: entry.is_directory, is_there });
            if is_there {
                return Ok(found_at(asked, place.root, uri, entry.is_directory));
            }
        }
    }
    match &rules.fallback {
        Fallback::Status(status) => Err(FileError::Tried(*status)),
        Fallback::Named(name) => Ok(Tried::Named(name.clone())),
        Fallback::Uri(template) => {
            let mut uri = Vec::new();
            (asked.fill)(template, &mut uri);
            let path = uri.split(|byte| *byte == b'?').next().unwrap_or_default();
            let is_whole = path.starts_with(b"/") && !path::is_dotted(path);
            if is_whole { Ok(Tried::Elsewhere(uri)) } else { Err(FileError::astray(&uri)) }
        }
    }
}

/// Without a root there is nothing to be found, and it goes on with what happens then.
fn place_of<'a>(asked: &'a Asked<'_>) -> Result<Option<Place<'a>>, FileError> {
    match asked.place() {
        Ok(place) => Ok(Some(place)),
        Err(FileError::NoRoot) => Ok(None),
        Err(error) => Err(error),
    }
}

fn found_at(asked: &Asked<'_>, root: &FileRoot, uri: Vec<u8>, is_directory: bool) -> Tried {
    match root {
        FileRoot::Alias { replaces: Replaced::Whole, .. } if is_directory => {
            Tried::Found { uri: asked.uri.to_vec(), is_behind_alias: asked.is_behind_alias }
        }
        FileRoot::Alias { replaces: Replaced::Whole, .. } => Tried::Found { uri, is_behind_alias: true },
        FileRoot::Alias { .. } | FileRoot::Root(_) => Tried::Found { uri, is_behind_alias: false },
    }
}
