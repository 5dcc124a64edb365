//! Finds the file for a request, as nginx's static and index modules do.

use std::fs::File;

use rustix::io::Errno;

use super::FileError;
use super::open::{Kind, Links};
use super::path::{self, Astray, Fill, Place};
use crate::config::{FileRoot, FileRules};

/// A request, as far as files are concerned.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// The files of its location.
    pub rules: &'a FileRules,
    /// Its method.
    pub method: &'a [u8],
    /// `$uri`: its path, decoded, as it is by now.
    pub uri: &'a [u8],
    /// `$args`.
    pub args: &'a [u8],
    /// Whether a `rewrite` has changed the path in this very location.
    pub is_rewritten: bool,
    /// As in [`Place::is_behind_alias`].
    pub is_behind_alias: bool,
    /// Hears of what was looked for.
    pub tell: &'a dyn Fn(Look<'_>),
    /// Fills variables in.
    pub fill: Fill<'a>,
}

/// A look for a file or a directory.
#[derive(Clone, Copy, Debug)]
pub struct Look<'a> {
    /// Its path.
    pub path: &'a [u8],
    /// Whether a directory is wanted.
    pub is_directory: bool,
    /// Whether it is there.
    pub is_there: bool,
}

/// What answers a request.
#[derive(Debug)]
pub enum Found {
    /// A file.
    File(OpenFile),
    /// A directory, whose path lacks its slash: 301 to this path and query.
    Directory(Vec<u8>),
    /// The index of a directory: the request goes on as one for this path, with its query.
    Index(Vec<u8>),
}

/// A file that can be sent.
#[derive(Debug)]
pub struct OpenFile {
    /// The file itself.
    pub file: File,
    /// In bytes.
    pub size: u64,
    /// When it was changed last, in seconds since 1970.
    pub modified: i64,
    /// Its type by its extension, or the default one.
    pub content_type: String,
}

/// Finds the file for a request, as nginx's static and index modules do.
///
/// # Errors
/// Why there is none.
pub fn find(asked: &Asked<'_>) -> Result<Found, FileError> {
    if !matches!(asked.method, b"GET" | b"HEAD" | b"POST") {
        return Err(FileError::Method);
    }
    let place = asked.place()?;
    let path = place.file(asked.uri).map_err(|Astray| FileError::astray(asked.uri))?;
    if asked.uri.ends_with(b"/") { asked.index(&place, path) } else { asked.file(path) }
}

/// The type of a file of which nothing is known: browsers offer it for download, and guess nothing.
const UNKNOWN: &str = "application/octet-stream";

impl Asked<'_> {
    /// Where the files are.
    ///
    /// # Errors
    /// There are none.
    pub fn place(&self) -> Result<Place<'_>, FileError> {
        let root = self.rules.root.as_ref().ok_or(FileError::NoRoot)?;
        if self.is_rewritten && matches!(root, FileRoot::Alias { .. }) {
            // As in nginx: nobody knows which part of the new path the alias stands for.
            return Err(FileError::RewrittenAlias);
        }
        Ok(Place { root, is_behind_alias: self.is_behind_alias, fill: self.fill })
    }

    fn file(&self, path: Vec<u8>) -> Result<Found, FileError> {
        let opened = self.links(&path).open(&path);
        (self.tell)(Look { path: &path, is_directory: false, is_there: opened.is_ok() });
        let (file, found) = opened.map_err(|error| FileError::unusable(&path, error))?;
        let Some(file) = file else {
            return match found.kind {
                Kind::Directory => Ok(Found::Directory(self.with_slash())),
                Kind::File | Kind::Other => Err(FileError::irregular(&path)),
            };
        };
        if self.method == b"POST" {
            return Err(FileError::Method);
        }
        let content_type = self.rules.media_type(self.uri, UNKNOWN).to_owned();
        Ok(Found::File(OpenFile { file, size: found.size, modified: found.modified, content_type }))
    }

    /// The first name in `index` that is there.
    fn index(&self, place: &Place<'_>, directory: Vec<u8>) -> Result<Found, FileError> {
        let mut is_checked = false;
        for template in &self.rules.index {
            let mut name = Vec::new();
            (place.fill)(template, &mut name);
            if name.starts_with(b"/") {
                return Ok(Found::Index(name));
            }
            let path = [&*directory, &*name].concat();
            let looked = match directory.ends_with(b"/") && !path::is_dotted(&name) {
                true => self.links(&path).look(&path),
                false => Err(Errno::NOENT),
            };
            (self.tell)(Look { path: &path, is_directory: false, is_there: looked.is_ok() });
            match looked {
                Ok(_) => return Ok(Found::Index([self.uri, &name].concat())),
                Err(Errno::NOENT) if is_checked => {}
                Err(Errno::NOENT) => {
                    self.check_directory(&directory)?;
                    is_checked = true;
                }
                Err(error) => return Err(FileError::unusable(&path, error)),
            }
        }
        Err(FileError::no_index(&directory))
    }

    /// A directory without any of the indexes is another thing than no directory at all.
    fn check_directory(&self, directory: &[u8]) -> Result<(), FileError> {
        let plain = directory.strip_suffix(b"/").filter(|plain| !plain.is_empty()).unwrap_or(directory);
        match self.links(plain).look(plain) {
            Ok(found) if found.kind == Kind::Directory => Ok(()),
            Ok(_) => Err(FileError::unusable(directory, Errno::NOTDIR)),
            // It may be searched, as is known from the look at the index, if not looked at.
            Err(Errno::ACCESS) => Ok(()),
            Err(error) => Err(FileError::unusable(directory, error)),
        }
    }

    pub(super) fn links(&self, path: &[u8]) -> Links {
        let mut from = Vec::new();
        if let Some(template) = &self.rules.symlinks.from {
            (self.fill)(template, &mut from);
        }
        Links::allowed(path, self.rules.symlinks.refused, &from)
    }

    /// The path of the request with a slash behind it, fit for a `Location`.
    fn with_slash(&self) -> Vec<u8> {
        let mut location = Vec::with_capacity(self.uri.len() + self.args.len() + 2);
        path::escape(&mut location, self.uri);
        location.push(b'/');
        if !self.args.is_empty() {
            location.push(b'?');
            location.extend_from_slice(self.args);
        }
        location
    }
}
