//! `auth_basic_user_file`: what a file of users knows of them.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// What a file of users has stored for one of them: the first line of that name counts. A line is
/// `NAME:PASSWORD[:anything]`; one that begins with `#` is a comment.
pub fn stored<'a>(file: &'a [u8], user: &[u8]) -> Option<&'a [u8]> {
    file.split(|byte| *byte == b'\n').filter(|line| !line.starts_with(b"#")).find_map(|line| {
        let rest = line.strip_prefix(user)?.strip_prefix(b":")?;
        rest.split(|byte| matches!(byte, b':' | b'\r')).next()
    })
}

/// The files of users that were read, each for as long as it does not change.
#[derive(Debug, Default)]
pub struct UserFiles {
    known: Mutex<HashMap<PathBuf, Known>>,
}

/// What is in a file, and the stamp that it had when it was read.
#[derive(Debug)]
struct Known {
    stamp: Stamp,
    bytes: Arc<[u8]>,
}

/// The most files that are kept. Their names may depend on the request, so there is no telling how many.
const MOST_FILES: usize = 64;
/// The most bytes of a file: far more than anybody has users.
const LARGEST_FILE: u64 = 16 << 20;
/// Two changes of a file within this time may leave it with one and the same stamp.
const TICK: Duration = Duration::from_secs(2);

/// By which a change of a file is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl UserFiles {
    /// What is in a file if it was read before and has not changed since. Asks the file system, which
    /// answers from memory.
    ///
    /// # Errors
    /// There is no such file, or it cannot be asked about.
    pub fn unchanged(&self, path: &Path) -> io::Result<Option<Arc<[u8]>>> {
        let now = Stamp::of(&fs::metadata(path)?);
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(known.get(path).filter(|known| known.stamp == now).map(|known| Arc::clone(&known.bytes)))
    }

    /// Reads a file. Blocks.
    ///
    /// # Errors
    /// It cannot be read, or is larger than 16 MiB.
    pub fn read(&self, path: &Path) -> io::Result<Arc<[u8]>> {
        let file = File::open(path)?;
        let stamp = Stamp::of(&file.metadata()?);
        let mut bytes = Vec::new();
        file.take(LARGEST_FILE + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > LARGEST_FILE {
            return Err(io::Error::other("it has more than 16 MiB"));
        }
        let bytes: Arc<[u8]> = bytes.into();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST_FILES {
            known.clear();
        }
        // What has just been written may be written again without a difference in its stamp.
        if stamp.is_settled() {
            known.insert(path.to_owned(), Known { stamp, bytes: Arc::clone(&bytes) });
        }
        Ok(bytes)
    }
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            file: (metadata.dev(), metadata.ino()),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    fn is_settled(&self) -> bool {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let changed = Duration::from_secs(self.changed.0.max(0).unsigned_abs());
        since.saturating_sub(changed) >= TICK
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_of_a_user_counts() {
        let file = b"# comment:x\nann:one\r\nbob:two:Bob B.\nann:again\n\n:none\nzoe:last";
        for (user, expected) in [
            ("ann", Some("one")),
            ("bob", Some("two")),
            ("zoe", Some("last")),
            ("an", None),
            ("anna", None),
            ("# comment", None),
            ("Bob B.", None),
        ] {
            assert_eq!(stored(file, user.as_bytes()), expected.map(str::as_bytes), "{user}");
        }
    }
}
