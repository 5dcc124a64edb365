//! By which path and with which arguments this process was started, for the one that is to take over from it.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What was started, to be started again: whatever is at its path by then.
#[derive(Debug)]
pub struct Program {
    /// Not what the kernel has found there: a symbolic link may point to another version since.
    pub path: PathBuf,
    /// Without the first one.
    pub arguments: Vec<OsString>,
}

impl Program {
    /// Of this process. To be called soon after its start: later its file may have been replaced.
    ///
    /// # Errors
    /// The system does not say.
    pub fn of_this_process() -> io::Result<Self> {
        let mut arguments = std::env::args_os();
        let name = arguments.next().unwrap_or_default();
        let running = std::env::current_exe()?;
        let path = named(Path::new(&name), &running).unwrap_or(running);
        Ok(Self { path, arguments: arguments.collect() })
    }
}

/// The path that a name means, as a shell understands it, if that is where `running` is.
fn named(name: &Path, running: &Path) -> Option<PathBuf> {
    let mut candidates = Vec::new();
    if name.is_absolute() {
        candidates.push(name.to_owned());
    } else if name.as_os_str().as_bytes().contains(&b'/') {
        // The working directory may have been removed.
        candidates.extend(std::env::current_dir().ok().map(|folder| folder.join(name)));
    } else if let Some(folders) = std::env::var_os("PATH") {
        candidates.extend(std::env::split_paths(&folders).map(|folder| folder.join(name)));
    }
    candidates.into_iter().find(|path| path.canonicalize().is_ok_and(|found| found == running))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_started_by_the_name_that_leads_to_it() {
        let sh = Path::new("/bin/sh").canonicalize().unwrap();
        assert_eq!(named(Path::new("/bin/sh"), &sh).unwrap(), Path::new("/bin/sh"));
        assert!(named(Path::new("sh"), &sh).unwrap().ends_with("sh"));
        assert_eq!(named(Path::new("/bin/sh"), Path::new("/other")), None);
        assert_eq!(named(Path::new("no such name"), &sh), None);
    }
}
