//! What is kept between two runs: accounts, certificates with their keys, and what went wrong.
//!
//! ```text
//! STORE/                                          0700
//!   acme-v02.api.letsencrypt.org-directory/       0700  one folder for each directory
//!     account.json                                0600  the account and its key
//!     account.json.broken                         0600  one that could not be read, put aside
//!     www.example.com.pem                         0600  the key, then the chain: one file, so that they fit
//!     www.example.com.json                        0600  which challenge works; how often none did, until when none is tried
//!     *.lock                                      0600  held while one is ordered
//! ```

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use instant_acme::AccountCredentials;
use serde_json::{Value, json};
use sha1::{Digest as _, Sha1};

use super::certificate::Certificate;
use super::challenges::Kind;
use crate::config::{Acme, CertificateNames};

const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// How often a lock is looked at that somebody else holds.
const LOCK_EVERY: Duration = Duration::from_secs(1);

/// The folder of one directory.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
}

/// What is known of a certificate beside itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// The challenge that worked last.
    pub challenge: Option<Kind>,
    /// How often in a row the CA has refused one.
    pub failures: u32,
    /// Before when the next one is not tried.
    pub not_before: Option<SystemTime>,
    /// Before when the CA does not want to be asked.
    pub retry_after: Option<SystemTime>,
}

/// What the store failed at.
#[derive(Debug)]
pub struct StoreError {
    path: PathBuf,
    source: io::Error,
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.source)
    }
}

impl std::error::Error for StoreError {}

fn at(path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    move |source| StoreError { path: path.to_owned(), source }
}

impl Store {
    /// Makes the folders that are missing, and sees whether they can be written.
    ///
    /// # Errors
    /// They cannot.
    pub fn open(acme: &Acme) -> Result<Self, StoreError> {
        let store = Self::of(acme);
        make_folder(&acme.store).map_err(at(&acme.store))?;
        make_folder(&store.folder).map_err(at(&store.folder))?;
        let probe = store.folder.join(format!(".probe.{}", std::process::id()));
        write(&probe, b"").map_err(at(&store.folder))?;
        fs::remove_file(&probe).map_err(at(&probe))?;
        store.close_to_others()?;
        Ok(store)
    }

    /// Files with keys are for hopgate alone, whoever has copied them here.
    fn close_to_others(&self) -> Result<(), StoreError> {
        for entry in fs::read_dir(&self.folder).map_err(at(&self.folder))? {
            let entry = entry.map_err(at(&self.folder))?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with("account.json") || name.ends_with(".pem") {
                close_to_others(&entry.path())?;
            }
        }
        Ok(())
    }

    /// The store as it is, whether its folders are there or not.
    pub fn of(acme: &Acme) -> Self {
        let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') { c } else { '-' };
        let name: String = acme.directory.trim_start_matches("https://").chars().map(plain).collect();
        Self { folder: acme.store.join(name) }
    }

    /// The account and its contacts, if there is one. One that cannot be read is put aside, so that another one
    /// is made.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn account(&self) -> Result<Option<(AccountCredentials, Vec<String>)>, StoreError> {
        let path = self.folder.join("account.json");
        let Some(bytes) = read(&path)? else { return Ok(None) };
        match serde_json::from_slice::<Value>(&bytes).and_then(|value| {
            let contact = serde_json::from_value(value["contact"].clone())?;
            Ok((serde_json::from_value(value)?, contact))
        }) {
            Ok(account) => Ok(Some(account)),
            Err(error) => {
                let aside = self.folder.join("account.json.broken");
                let (from, to) = (path.display(), aside.display());
                tracing::warn!(
                    "acme: {from} is not an account ({error}); it is {to} now, and a new account is made"
                );
                fs::rename(&path, &aside).map_err(at(&path))?;
                Ok(None)
            }
        }
    }

    /// Keeps the account.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn set_account(
        &self,
        credentials: &AccountCredentials,
        contact: &[String],
    ) -> Result<(), StoreError> {
        let path = self.folder.join("account.json");
        let mut value = serde_json::to_value(credentials).map_err(io::Error::other).map_err(at(&path))?;
        value["contact"] = contact.into();
        replace(&path, format!("{value:#}\n").as_bytes())
    }

    /// Forgets the account: the CA does not know it any more.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn forget_account(&self) -> Result<(), StoreError> {
        let path = self.folder.join("account.json");
        fs::remove_file(&path).map_err(at(&path))
    }

    /// The certificate for these names, if there is one; also if it has expired.
    ///
    /// # Errors
    /// Why there is one that cannot be used.
    pub fn certificate(&self, names: &CertificateNames) -> Result<Option<Certificate>, String> {
        let path = self.file(names, "pem");
        let pem = read(&path).map_err(|error| error.to_string())?;
        let read = |pem: Vec<u8>| Certificate::from_pem(&pem, names);
        pem.map(read).transpose().map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Keeps a certificate: its key, then its chain.
    ///
    /// # Errors
    /// The file cannot be written; the one before is still there.
    pub fn set_certificate(&self, names: &CertificateNames, pem: &str) -> Result<(), StoreError> {
        replace(&self.file(names, "pem"), pem.as_bytes())
    }

    /// What is known of the certificate for these names.
    pub fn notes(&self, names: &CertificateNames) -> Notes {
        let bytes = fs::read(self.file(names, "json")).unwrap_or_default();
        let value: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let time = |key: &str| UNIX_EPOCH.checked_add(Duration::from_secs(value[key].as_u64()?));
        Notes {
            challenge: value["challenge"].as_str().and_then(Kind::of_name),
            failures: value["failures"].as_u64().and_then(|count| count.try_into().ok()).unwrap_or(0),
            not_before: time("not_before"),
            retry_after: time("retry_after"),
        }
    }

    /// Keeps what is known of the certificate for these names.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn set_notes(&self, names: &CertificateNames, notes: &Notes) -> Result<(), StoreError> {
        let since = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let value = json!({
            "challenge": notes.challenge.map(Kind::name),
            "failures": notes.failures,
            "not_before": notes.not_before.map(since),
            "retry_after": notes.retry_after.map(since),
        });
        replace(&self.file(names, "json"), format!("{value:#}\n").as_bytes())
    }

    /// The lock that is held while something is ordered; `None` while somebody else holds it. It ends with the
    /// file that is returned.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn lock(&self, what: &Lock<'_>) -> Result<Option<File>, StoreError> {
        let path = match what {
            Lock::Account => self.folder.join("account.lock"),
            Lock::Certificate(names) => self.file(names, "lock"),
        };
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).mode(FILE_MODE).open(&path);
        let file = file.map_err(at(&path))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(at(&path)(error)),
        }
    }

    /// Waits for a lock, which ends with the file that is returned.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub async fn locked(&self, what: &Lock<'_>) -> Result<File, StoreError> {
        let mut has_told = false;
        loop {
            if let Some(file) = self.lock(what)? {
                return Ok(file);
            }
            if !std::mem::replace(&mut has_told, true) {
                tracing::info!("acme: waiting for {what}, which somebody else does in the same store");
            }
            tokio::time::sleep(LOCK_EVERY).await;
        }
    }

    /// Names that are the same but for their order have the same file, others have another one.
    fn file(&self, names: &CertificateNames, extension: &str) -> PathBuf {
        let first = names.first();
        self.folder.join(match names.all() {
            [_] => format!("{first}.{extension}"),
            all => {
                let digest = Sha1::digest(all.join("\n"));
                let short: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
                format!("{first}-{short}.{extension}")
            }
        })
    }
}

/// What is done by one at a time, of all orders and processes that share a store.
#[derive(Clone, Copy, Debug)]
pub enum Lock<'a> {
    /// Making an account.
    Account,
    /// Ordering a certificate.
    Certificate(&'a CertificateNames),
}

impl fmt::Display for Lock<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Account => f.write_str("the making of an account"),
            Self::Certificate(names) => write!(f, "the order of a certificate for {names}"),
        }
    }
}

/// Folders that were there keep their rights: who made them may have had a reason. The files have their own.
fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(path)
}

/// The bytes of a file, if it is there.
fn read(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        bytes => Ok(Some(bytes.map_err(at(path))?)),
    }
}

/// Takes the rights of others at a file with a key in it, and says so.
fn close_to_others(path: &Path) -> Result<(), StoreError> {
    let mode = fs::metadata(path).map_err(at(path))?.permissions().mode();
    if mode & 0o077 != 0 {
        let shown = path.display();
        let outcome = match fs::set_permissions(path, Permissions::from_mode(FILE_MODE)) {
            Ok(()) => "that has been taken back".to_owned(),
            Err(error) => format!("and that cannot be taken back: {error}"),
        };
        tracing::warn!(
            "acme: others could use {shown}, in which there is a key (mode {:o}); {outcome}",
            mode & 0o777
        );
    }
    Ok(())
}

/// Writes a file as a whole or not at all.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let draft = path.with_file_name(format!(".{name}.{}", std::process::id()));
    write(&draft, bytes).and_then(|()| fs::rename(&draft, path)).map_err(at(path))?;
    // The new name is in the folder, which is a file, too.
    path.parent()
        .map_or(Ok(()), |folder| File::open(folder).and_then(|folder| folder.sync_all()))
        .map_err(at(path))
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // One that a crash left behind might have other rights.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests;
