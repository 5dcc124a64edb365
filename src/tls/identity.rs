//! The certificates that a server shows, replaced while it runs.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustls::SignatureAlgorithm;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::pem::{self, FileFault, PairFault};
use crate::config::CertificateNames;

/// The files of a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pair {
    /// The certificate, with those that it was issued by. nginx: `ssl_certificate`.
    pub certificate: PathBuf,
    /// Its key. nginx: `ssl_certificate_key`.
    pub key: PathBuf,
}

/// Where the certificates of an [`Identity`] come from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// Files, and an answer of OCSP that goes with the first of them (nginx: `ssl_stapling_file`).
    Files(Vec<Pair>, Option<PathBuf>),
    /// They are made here, for these names.
    SelfSigned(Vec<String>),
    /// A CA issues them for these names, again and again.
    Acme(CertificateNames),
}

impl Source {
    /// Every file.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let (pairs, staple) = match self {
            Self::Files(pairs, staple) => (pairs.as_slice(), staple.as_deref()),
            Self::SelfSigned(_) | Self::Acme(_) => (&[][..], None),
        };
        pairs.iter().flat_map(|pair| [&*pair.certificate, &*pair.key]).chain(staple)
    }
}

/// What is wrong with one of the files of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceFault {
    /// With one of the pairs; its place.
    Pair(usize, PairFault),
    /// With the answer of OCSP.
    Staple(FileFault),
}

/// The certificates that a server shows: the best one that the client can check.
#[derive(Debug)]
pub struct Identity {
    /// Where they come from.
    pub source: Source,
    current: RwLock<Arc<[Arc<CertifiedKey>]>>,
    /// The files as they were before they were read for the first time.
    stamps: Vec<Stamp>,
}

/// What tells one state of a file from another; `None`: it cannot be looked at.
pub type Stamp = Option<(u64, u64, i64, i64, u64)>;

/// The state of a file, behind every link.
pub fn stamp(path: &Path) -> Stamp {
    let known = fs::metadata(path).ok()?;
    Some((known.dev(), known.ino(), known.mtime(), known.mtime_nsec(), known.size()))
}

impl Identity {
    /// Reads files.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn read(pairs: Vec<Pair>, staple: Option<PathBuf>) -> Result<Self, Vec<SourceFault>> {
        // Before they are read: whatever changes from now on is a change.
        let source = Source::Files(pairs.clone(), staple.clone());
        let stamps = source.files().map(stamp).collect();
        let current = RwLock::new(load(&pairs, staple.as_deref())?);
        Ok(Self { source, current, stamps })
    }

    /// Makes a certificate for these names, at least one, that nobody has signed but itself.
    ///
    /// # Errors
    /// One of them cannot stand in a certificate.
    pub fn self_signed(names: Vec<String>) -> Result<Self, String> {
        let pair = self_signed(names.clone(), "hopgate, self-signed")?;
        Ok(Self {
            source: Source::SelfSigned(names),
            current: RwLock::new(Arc::from([Arc::new(pair)])),
            stamps: Vec::new(),
        })
    }

    /// Shows a certificate for these names until the CA has issued a newer one.
    pub fn issued(names: CertificateNames, first: Arc<CertifiedKey>) -> Self {
        Self { source: Source::Acme(names), current: RwLock::new(Arc::from([first])), stamps: Vec::new() }
    }

    /// Shows this certificate from the next handshake on.
    pub fn show(&self, certificate: Arc<CertifiedKey>) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::from([certificate]);
    }

    /// Reads the files anew, and shows what is in them from the next handshake on. What was shown before stays
    /// if any of them is at fault.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn renew(&self) -> Result<(), Vec<SourceFault>> {
        if let Source::Files(pairs, staple) = &self.source {
            let renewed = load(pairs, staple.as_deref())?;
            *self.current.write().unwrap_or_else(PoisonError::into_inner) = renewed;
        }
        Ok(())
    }

    /// Every file that it was read from.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.source.files()
    }

    /// The files as they were before they were read for the first time.
    pub fn stamps(&self) -> &[Stamp] {
        &self.stamps
    }

    /// What is shown now, the cheapest to sign with first.
    pub fn current(&self) -> Arc<[Arc<CertifiedKey>]> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ResolvesServerCert for Identity {
    /// rustls has left those schemes only that go with a cipher suite of the client's.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let schemes = hello.signature_schemes();
        self.current().iter().find(|pair| pair.key.choose_scheme(schemes).is_some()).cloned()
    }
}

/// A certificate for these names that nobody has signed but itself, good for a year, with its key.
///
/// # Errors
/// One of the names cannot stand in a certificate.
pub fn self_signed(names: Vec<String>, common_name: &str) -> Result<CertifiedKey, String> {
    let made = || -> Result<_, rcgen::Error> {
        let mut params = rcgen::CertificateParams::new(names)?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, common_name);
        // A clock may be a little slow.
        params.not_before = (SystemTime::now() - Duration::from_secs(3600)).into();
        params.not_after = (SystemTime::now() + Duration::from_secs(365 * 24 * 3600)).into();
        let key = rcgen::KeyPair::generate()?;
        Ok((params.self_signed(&key)?, key))
    };
    let (certificate, key) = made().map_err(|error| error.to_string())?;
    let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    pem::certified(vec![certificate.der().clone()], key).map_err(|error| error.to_string())
}

fn load(pairs: &[Pair], staple: Option<&Path>) -> Result<Arc<[Arc<CertifiedKey>]>, Vec<SourceFault>> {
    let (mut found, mut faults) = (Vec::new(), Vec::new());
    for (place, pair) in pairs.iter().enumerate() {
        match pem::pair(&pair.certificate, &pair.key) {
            Ok(pair) => found.push(pair),
            Err(fault) => faults.push(SourceFault::Pair(place, fault)),
        }
    }
    match staple.map(pem::staple) {
        Some(Ok(answer)) => {
            if let Some(first) = found.first_mut() {
                first.ocsp = Some(answer);
            }
        }
        Some(Err(fault)) => faults.push(SourceFault::Staple(fault)),
        None => {}
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    // A signature of ECDSA costs a fraction of one of RSA, and every client of today can check it.
    found.sort_by_key(|pair| pair.key.algorithm() == SignatureAlgorithm::RSA);
    Ok(found.into_iter().map(Arc::new).collect())
}
