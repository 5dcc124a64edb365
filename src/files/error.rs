//! Why no file answers a request, and the status that tells.

use std::error::Error;
use std::fmt;
use std::io;

use rustix::io::Errno;

/// Why no file answers a request.
#[derive(Debug)]
pub enum FileError {
    /// The location has neither `root` nor `alias`.
    NoRoot,
    /// A `rewrite` has changed the path in a location with an `alias`.
    RewrittenAlias,
    /// The path of the request leads out of where the files are.
    Astray(String),
    /// The system has something against the path.
    Unusable(String, io::Error),
    /// A FIFO, a socket or a device.
    Irregular(String),
    /// A directory without any of the names in `index`.
    NoIndex(String),
    /// Neither GET nor HEAD.
    Method,
    /// `If-Match` or `If-Unmodified-Since` does not hold.
    Precondition,
    /// None of the parts that `Range` asks for is there.
    Range {
        /// Of the whole file, in bytes.
        size: u64,
    },
    /// `try_files` ends with this status.
    Tried(u16),
    /// The file got shorter while it was being sent, or could not be read.
    Cut(io::Error),
}

impl FileError {
    pub(super) fn astray(uri: &[u8]) -> Self {
        Self::Astray(text(uri))
    }

    pub(super) fn unusable(path: &[u8], error: Errno) -> Self {
        Self::Unusable(text(path), error.into())
    }

    pub(super) fn irregular(path: &[u8]) -> Self {
        Self::Irregular(text(path))
    }

    pub(super) fn no_index(path: &[u8]) -> Self {
        Self::NoIndex(text(path))
    }

    /// The status for the client.
    pub fn status(&self) -> u16 {
        match self {
            Self::NoRoot | Self::Astray(_) | Self::Irregular(_) => 404,
            Self::NoIndex(_) => 403,
            Self::Unusable(_, error) => match error.raw_os_error().map(Errno::from_raw_os_error) {
                Some(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG) => 404,
                Some(Errno::ACCESS | Errno::LOOP | Errno::MLINK) => 403,
                _ => 500,
            },
            Self::Method => 405,
            Self::Precondition => 412,
            Self::Range { .. } => 416,
            Self::Tried(status) => *status,
            Self::RewrittenAlias | Self::Cut(_) => 500,
        }
    }

    /// A field that the answer has because of it: name and value.
    pub fn field(&self) -> Option<(&'static str, String)> {
        match self {
            // RFC 9110 §15.5.6, §15.5.17.
            Self::Method => Some(("Allow", "GET, HEAD".to_owned())),
            Self::Range { size } => Some(("Content-Range", format!("bytes */{size}"))),
            _ => None,
        }
    }
}

/// A path for a person's eyes: no control bytes.
fn text(path: &[u8]) -> String {
    let shown = String::from_utf8_lossy(path);
    shown.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRoot => f.write_str("the location has neither `root` nor `alias`"),
            Self::RewrittenAlias => f.write_str(
                "a `rewrite` has changed the path, so that `alias` does not know what to stand for",
            ),
            Self::Astray(uri) => write!(f, "{uri} leads out of the `root` or `alias`"),
            Self::Unusable(path, _) => write!(f, "{path} cannot be opened"),
            Self::Irregular(path) => write!(f, "{path} is not a regular file"),
            Self::NoIndex(path) => write!(f, "{path} has none of the files in `index`"),
            Self::Method => f.write_str("files are there for GET and HEAD alone"),
            Self::Precondition => {
                f.write_str("the file is not the one that the client's precondition asks for")
            }
            Self::Range { size } => {
                write!(f, "the range that the client asks for is not in the {size} bytes of the file")
            }
            Self::Tried(status) => write!(f, "none of the `try_files` is there, which ends with `={status}`"),
            Self::Cut(_) => f.write_str("the file could not be read to its end"),
        }
    }
}

impl Error for FileError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Unusable(_, error) | Self::Cut(error) => Some(error),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_has_its_status() {
        for (errno, status) in [
            (Errno::NOENT, 404),
            (Errno::NOTDIR, 404),
            (Errno::NAMETOOLONG, 404),
            (Errno::ACCESS, 403),
            (Errno::LOOP, 403),
            (Errno::MFILE, 500),
            (Errno::IO, 500),
        ] {
            assert_eq!(FileError::unusable(b"/x", errno).status(), status, "{errno:?}");
        }
    }

    #[test]
    fn a_path_in_a_message_has_no_control_bytes() {
        let error = FileError::irregular(b"/a\x1b[31m\n\xff");
        assert_eq!(error.to_string(), "/a\\u{1b}[31m\\n\u{fffd} is not a regular file");
    }
}
