//! Looks at files and opens them, with as many symbolic links on the way as are allowed, and without ever
//! waiting for a FIFO or a device.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::{Errno, Result};

use crate::config::RefusedLinks;

/// What stands at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// What it is.
    pub kind: Kind,
    /// In bytes.
    pub size: u64,
    /// When it was changed last, in seconds since 1970.
    pub modified: i64,
}

/// What kind of file something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A FIFO, a socket or a device.
    Other,
}

/// Which symbolic links in a path are followed.
#[derive(Clone, Copy, Debug)]
pub struct Links {
    refused: RefusedLinks,
    /// So many bytes of the path may have any.
    free: usize,
}

impl Links {
    /// The links that may be in `path`; those in `from` are free if the path stands below it.
    pub fn allowed(path: &[u8], refused: RefusedLinks, from: &[u8]) -> Self {
        let mut links = Self { refused, free: 0 };
        match path.strip_prefix(from) {
            None => {}
            Some(_) if from.is_empty() => {}
            Some(b"") => links.refused = RefusedLinks::None,
            Some([b'/', ..]) => links.free = from.len(),
            Some(_) if from.ends_with(b"/") => links.free = from.len() - 1,
            Some(_) => {}
        }
        links
    }

    /// What stands at a path, without opening it where that can be helped.
    ///
    /// # Errors
    /// The system's; `LOOP` is a link that is refused, too.
    pub fn look(self, path: &[u8]) -> Result<Found> {
        match self.refused {
            RefusedLinks::None => rustix::fs::stat(path),
            _ => rustix::fs::fstat(self.walk(path, OFlags::PATH)?),
        }
        .map(Found::from)
    }

    /// Opens a regular file; of anything else only what it is.
    ///
    /// # Errors
    /// The system's; `LOOP` is a link that is refused, too.
    pub fn open(self, path: &[u8]) -> Result<(Option<File>, Found)> {
        // Opening a FIFO wakes its writer, opening a device can do anything: so there is a look before it.
        let found = self.look(path)?;
        if found.kind != Kind::File {
            return Ok((None, found));
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = match self.refused {
            RefusedLinks::None => rustix::fs::open(path, flags, Mode::empty()),
            _ => self.walk(path, flags),
        }?;
        let found = Found::from(rustix::fs::fstat(&file)?);
        Ok((Some(File::from(file)).filter(|_| found.kind == Kind::File), found))
    }

    /// Opens a path segment by segment, each link of it seen.
    fn walk(self, path: &[u8], flags: OFlags) -> Result<OwnedFd> {
        const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
        let (free, rest) = path.split_at(self.free);
        let start = if free.is_empty() { b"/" } else { free };
        let mut at = rustix::fs::open(start, DIRECTORY, Mode::empty())?;
        let mut segments = rest.split(|byte| *byte == b'/').filter(|segment| !segment.is_empty()).peekable();
        while let Some(segment) = segments.next() {
            let is_last = segments.peek().is_none() && !path.ends_with(b"/");
            at = self.step(&at, segment, if is_last { flags | OFlags::CLOEXEC } else { DIRECTORY })?;
        }
        // `/` at the end, or nothing but what is free of links.
        if path.ends_with(b"/") {
            rustix::fs::openat(&at, ".", flags | OFlags::CLOEXEC, Mode::empty())
        } else {
            Ok(at)
        }
    }

    fn step(self, at: &OwnedFd, segment: &[u8], flags: OFlags) -> Result<OwnedFd> {
        if self.refused == RefusedLinks::All {
            let opened = rustix::fs::openat(at, segment, flags | OFlags::NOFOLLOW, Mode::empty())?;
            // With O_PATH a link is opened as what it is.
            let is_link = is_link(&rustix::fs::fstat(&opened)?);
            return if is_link { Err(Errno::LOOP) } else { Ok(opened) };
        }
        // The owners are compared whether or not it is a link now: it may have been one when it was opened.
        let opened = rustix::fs::openat(at, segment, flags, Mode::empty())?;
        let itself = rustix::fs::statat(at.as_fd(), segment, AtFlags::SYMLINK_NOFOLLOW)?;
        let behind = rustix::fs::fstat(&opened)?;
        if itself.st_uid == behind.st_uid { Ok(opened) } else { Err(Errno::LOOP) }
    }
}

fn is_link(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Symlink
}

impl From<Stat> for Found {
    fn from(stat: Stat) -> Self {
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Directory,
            _ => Kind::Other,
        };
        Self { kind, size: u64::try_from(stat.st_size).unwrap_or(0), modified: stat.st_mtime }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;
    use std::path::{Path, PathBuf};
    use std::sync::atomic::{AtomicU32, Ordering};

    /// A directory with a file `f`, a directory `d` with a file `g`, links `lf` and `ld` to both, and a FIFO `p`.
    struct Tree(PathBuf);

    impl Tree {
        fn new() -> Self {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let name =
                format!("hopgate-open-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
            let root = std::env::temp_dir().canonicalize().unwrap().join(name);
            fs::create_dir_all(root.join("d")).unwrap();
            fs::write(root.join("f"), "file").unwrap();
            fs::write(root.join("d/g"), "inner").unwrap();
            symlink("f", root.join("lf")).unwrap();
            symlink("d", root.join("ld")).unwrap();
            rustix::fs::mkfifoat(rustix::fs::CWD, root.join("p"), Mode::from_raw_mode(0o600)).unwrap();
            Self(root)
        }

        fn path(&self, name: &str) -> Vec<u8> {
            Path::new(&format!("{}/{name}", self.0.display())).as_os_str().as_bytes().to_vec()
        }

        fn kind(&self, name: &str, refused: RefusedLinks, from: &str) -> Result<Kind> {
            let path = self.path(name);
            let links = Links::allowed(&path, refused, from.as_bytes());
            let looked = links.look(&path).map(|found| found.kind);
            assert_eq!(links.open(&path).map(|(_, found)| found.kind), looked, "{name}");
            looked
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_path_is_what_stands_there() {
        let tree = Tree::new();
        for refused in [RefusedLinks::None, RefusedLinks::All, RefusedLinks::NotOwner] {
            for (name, expected) in [
                ("f", Ok(Kind::File)),
                ("d", Ok(Kind::Directory)),
                ("d/", Ok(Kind::Directory)),
                ("d//g", Ok(Kind::File)),
                ("p", Ok(Kind::Other)),
                ("", Ok(Kind::Directory)),
                ("f/", Err(Errno::NOTDIR)),
                ("f/g", Err(Errno::NOTDIR)),
                ("none", Err(Errno::NOENT)),
                ("none/f", Err(Errno::NOENT)),
            ] {
                assert_eq!(tree.kind(name, refused, ""), expected, "{name} {refused:?}");
            }
        }
    }

    #[test]
    fn links_are_followed_or_refused() {
        let tree = Tree::new();
        for name in ["lf", "ld/g", "ld/", "ld"] {
            assert!(tree.kind(name, RefusedLinks::None, "").is_ok(), "{name}");
            // They belong to the same user.
            assert!(tree.kind(name, RefusedLinks::NotOwner, "").is_ok(), "{name}");
            assert!(
                matches!(tree.kind(name, RefusedLinks::All, ""), Err(Errno::LOOP | Errno::NOTDIR)),
                "{name}"
            );
        }
        assert_eq!(tree.kind("lf", RefusedLinks::All, ""), Err(Errno::LOOP));
    }

    #[test]
    fn links_in_the_part_that_is_free_are_followed() {
        let tree = Tree::new();
        let free = format!("{}/ld", tree.0.display());
        assert_eq!(tree.kind("ld/g", RefusedLinks::All, &free), Ok(Kind::File));
        assert_eq!(tree.kind("ld/g", RefusedLinks::All, &format!("{free}/")), Ok(Kind::File));
        assert_eq!(tree.kind("ld", RefusedLinks::All, &free), Ok(Kind::Directory));
        assert!(tree.kind("ld/g", RefusedLinks::All, &free[..free.len() - 1]).is_err());
        symlink("g", tree.0.join("d/lg")).unwrap();
        assert_eq!(tree.kind("ld/lg", RefusedLinks::All, &free), Err(Errno::LOOP));
    }

    #[test]
    fn a_regular_file_is_opened_and_nothing_else_is() {
        let tree = Tree::new();
        for (name, is_opened) in [("f", true), ("lf", true), ("d", false), ("p", false)] {
            let path = tree.path(name);
            let (file, found) = Links::allowed(&path, RefusedLinks::None, b"").open(&path).unwrap();
            assert_eq!(file.is_some(), is_opened, "{name}");
            assert_eq!(found.size == 4, is_opened, "{name}");
        }
    }
}
