//! Reads certificates, keys and lists of revoked certificates from PEM files, and says what is wrong with them.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{CertificateError, InconsistentKeys};
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::revocation_list::CertificateRevocationList;
use x509_parser::time::ASN1Time;

use super::{certificate, provider};

/// The most bytes of such a file. The certificates of all public CAs are a fifth of it; lists of what was
/// revoked are longer.
const LARGEST: u64 = 64 << 20;

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileFault {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub why: String,
    /// What would be right, if that is known.
    pub help: Option<String>,
}

impl FileFault {
    fn new(path: &Path, why: impl Into<String>) -> Self {
        Self { path: path.to_owned(), why: why.into(), help: None }
    }

    fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl fmt::Display for FileFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.path.display(), self.why)
    }
}

/// Which of the two files of a certificate is at fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PairFault {
    /// That with the certificate.
    Certificate(FileFault),
    /// That with the key.
    Key(FileFault),
}

impl fmt::Display for PairFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Certificate(fault) | Self::Key(fault)) = self;
        fault.fmt(f)
    }
}

/// A certificate with those that it was issued by, and its key. It is valid now.
///
/// # Errors
/// Which file is at fault, and why.
pub fn pair(certificate: &Path, key: &Path) -> Result<CertifiedKey, PairFault> {
    let chain = certificates(certificate).map_err(PairFault::Certificate)?;
    is_valid(certificate, &chain[0]).map_err(PairFault::Certificate)?;
    let signer = self::key(key).map_err(PairFault::Key)?;
    let signer = provider().key_provider.load_private_key(signer).map_err(|_| {
        let help =
            "it must be one of ECDSA (P-256, P-384, P-521), of RSA with 2048 bits or more, or of Ed25519";
        PairFault::Key(FileFault::new(key, "has a key that cannot be used").help(help))
    })?;
    if !is_key_of(&*signer, &chain[0]) {
        let why = format!("is not the key of the certificate in {}", certificate.display());
        let help = "the certificate comes first in its file, those that it was issued by behind it";
        return Err(PairFault::Key(FileFault::new(key, why).help(help)));
    }
    Ok(CertifiedKey::new(chain, signer))
}

/// A certificate, with those that it was issued by, and its key. Not `CertifiedKey::from_der`, which refuses
/// certificates of X.509 version 1.
///
/// # Errors
/// There is no certificate, the key is of a kind that is not known, or that of another one.
pub fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<CertifiedKey, rustls::Error> {
    let signer = provider().key_provider.load_private_key(key)?;
    let own = chain.first().filter(|own| X509Certificate::from_der(own).is_ok());
    match is_key_of(&*signer, own.ok_or(CertificateError::BadEncoding)?) {
        true => Ok(CertifiedKey::new(chain, signer)),
        false => Err(InconsistentKeys::KeyMismatch.into()),
    }
}

/// By itself, because rustls has no opinion of certificates of X.509 version 1, which `openssl x509 -req` makes.
fn is_key_of(key: &dyn SigningKey, certificate: &CertificateDer<'_>) -> bool {
    let (Some(known), Ok((_, parsed))) = (key.public_key(), X509Certificate::from_der(certificate)) else {
        return true;
    };
    known.as_ref() == parsed.public_key().raw
}

/// All certificates of a file, at least one.
///
/// # Errors
/// It cannot be read, or is something else.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, FileFault> {
    let found: Vec<CertificateDer<'static>> = all(path, "certificate", "CERTIFICATE")?;
    for certificate in &found {
        X509Certificate::from_der(certificate).map_err(|error| {
            FileFault::new(path, format!("has a certificate that cannot be read: {error}"))
        })?;
    }
    Ok(found)
}

/// The first private key of a file.
///
/// # Errors
/// It cannot be read, or has none.
pub fn key(path: &Path) -> Result<PrivateKeyDer<'static>, FileFault> {
    let bytes = read(path)?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| match error {
        // PKCS #8 says it in the label, the older forms of OpenSSL in a field below it.
        _ if has(&bytes, "ENCRYPTED PRIVATE KEY") || has(&bytes, "Proc-Type: 4,ENCRYPTED") => {
            let help = "take the password away: `openssl pkey -in OLD -out NEW`";
            FileFault::new(path, "has a key that is encrypted with a password").help(help)
        }
        PemError::NoItemsFound => nothing(path, &bytes, "private key", "PRIVATE KEY"),
        error => improper(path, &error),
    })
}

/// All lists of revoked certificates of a file, at least one.
///
/// # Errors
/// It cannot be read, or is something else.
pub fn revoked(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, FileFault> {
    let found: Vec<CertificateRevocationListDer<'static>> =
        all(path, "list of revoked certificates", "X509 CRL")?;
    for list in &found {
        CertificateRevocationList::from_der(list)
            .map_err(|error| FileFault::new(path, format!("has a list that cannot be read: {error}")))?;
    }
    Ok(found)
}

/// An answer of OCSP (RFC 6960), as `openssl ocsp -respout` leaves it: DER.
///
/// # Errors
/// It cannot be read, or is something else.
pub fn staple(path: &Path) -> Result<Vec<u8>, FileFault> {
    let bytes = read(path)?;
    // RFC 6960 §4.2.1: a SEQUENCE, and in it the status `successful`, an ENUMERATED of 0.
    let is_successful = bytes.first() == Some(&0x30)
        && memchr::memmem::find(&bytes[..bytes.len().min(8)], &[0x0a, 0x01, 0x00]).is_some();
    if is_successful {
        return Ok(bytes);
    }
    let help = "fetch it with `openssl ocsp … -respout FILE`: it is DER, as nginx has it";
    Err(FileFault::new(path, "is no successful answer of OCSP").help(help))
}

fn all<T: PemObject>(path: &Path, what: &str, label: &str) -> Result<Vec<T>, FileFault> {
    let bytes = read(path)?;
    let found: Result<Vec<T>, _> = T::pem_slice_iter(&bytes).collect();
    match found {
        Ok(found) if found.is_empty() => Err(nothing(path, &bytes, what, label)),
        Ok(found) => Ok(found),
        Err(error) => Err(improper(path, &error)),
    }
}

fn improper(path: &Path, error: &PemError) -> FileFault {
    FileFault::new(path, format!("is no proper PEM: {}", flaw(error)))
}

/// What is wrong with the form of a file.
fn flaw(error: &PemError) -> String {
    match error {
        PemError::MissingSectionEnd { end_marker } => {
            format!("it ends before a line `-----END {}-----`", String::from_utf8_lossy(end_marker))
        }
        error => error.to_string(),
    }
}

fn has(bytes: &[u8], text: &str) -> bool {
    memchr::memmem::find(bytes, text.as_bytes()).is_some()
}

/// What is there instead is often the file of something else.
fn nothing(path: &Path, bytes: &[u8], what: &str, label: &str) -> FileFault {
    let fault = FileFault::new(path, format!("has no {what} in it"));
    let pem = |label: &str| has(bytes, &format!("{label}-----"));
    // DER begins with a SEQUENCE whose length takes more bytes than one.
    if bytes.starts_with(&[0x30, 0x82]) || bytes.starts_with(&[0x30, 0x81]) {
        let command = if label == "PRIVATE KEY" { "pkey" } else { "x509" };
        return fault.help(format!(
            "it is DER: make PEM of it with `openssl {command} -inform DER -in OLD -out NEW`, or, if it is PKCS #12 \
             (.p12, .pfx), with `openssl pkcs12 -nodes -in OLD -out NEW`"
        ));
    }
    if label == "PRIVATE KEY" && pem("BEGIN CERTIFICATE") {
        return fault.help("there is a certificate in it: is it the file of the certificate?");
    }
    if label == "CERTIFICATE" && pem("PRIVATE KEY") {
        return fault.help("there is a key in it: is it the file of the key?");
    }
    if pem("CERTIFICATE REQUEST") {
        return fault
            .help("there is a request for a certificate in it: it needs what the CA has made of that");
    }
    if pem("BEGIN PKCS7") {
        return fault.help("it is PKCS #7: take it apart with `openssl pkcs7 -print_certs -in OLD -out NEW`");
    }
    fault.help(format!("it must be PEM: `-----BEGIN {label}-----` at the beginning of a line, and so on"))
}

/// Whether a certificate of a file is valid now.
///
/// # Errors
/// It is not any more, or not yet.
pub fn is_valid(path: &Path, certificate: &CertificateDer<'_>) -> Result<(), FileFault> {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return Ok(()) };
    let (from, until, now) = (parsed.validity.not_before, parsed.validity.not_after, ASN1Time::now());
    if now > until {
        let why = format!("has a certificate that expired on {}", date(until.timestamp()));
        return Err(FileFault::new(path, why).help("renew it"));
    }
    if now < from {
        let why = format!("has a certificate that is not valid before {}", date(from.timestamp()));
        return Err(FileFault::new(path, why).help("is the clock of this machine right?"));
    }
    Ok(())
}

/// Why clients may not believe what a file has behind its first certificate; `None`: nothing that can be seen here.
pub fn doubt(path: &Path, chain: &[CertificateDer<'_>]) -> Option<FileFault> {
    let parsed: Vec<_> = chain.iter().filter_map(|one| X509Certificate::from_der(one).ok()).collect();
    parsed.windows(2).find_map(|two| {
        let [(_, own), (_, next)] = two else { return None };
        let (issuer, subject) = (certificate::name(own.issuer()), certificate::name(next.subject()));
        let until = next.validity.not_after;
        if own.issuer() != next.subject() {
            let why = format!("has the certificate of `{subject}` where that of `{issuer}` is expected");
            let help = "behind each certificate stands that of its issuer, and the server's own comes first";
            return Some(FileFault::new(path, why).help(help));
        }
        (ASN1Time::now() > until).then(|| {
            let why =
                format!("has the certificate of `{subject}`, which expired on {}", date(until.timestamp()));
            FileFault::new(path, why).help("get the chain anew from the CA")
        })
    })
}

/// A time of X.509 as HTTP writes it; `seconds` since 1970.
pub fn date(seconds: i64) -> String {
    let seconds = u64::try_from(seconds).unwrap_or(0);
    // The last second that such a date can be of.
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds.min(253_402_300_799)))
}

fn read(path: &Path) -> Result<Vec<u8>, FileFault> {
    let open = || -> io::Result<Vec<u8>> {
        let file = File::open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is no file"));
        }
        let mut bytes = Vec::new();
        file.take(LARGEST + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > LARGEST {
            return Err(io::Error::other("it has more than 64 MiB"));
        }
        Ok(bytes)
    };
    let bytes = open().map(|mut bytes| {
        // Editors on Windows put it before a text.
        if bytes.starts_with(b"\xef\xbb\xbf") {
            bytes.drain(..3);
        }
        bytes
    });
    bytes.map_err(|error| {
        let fault = FileFault::new(path, format!("cannot be read: {error}"));
        match error.kind() {
            io::ErrorKind::PermissionDenied => fault.help("let the user that hopgate runs as read it"),
            _ => fault,
        }
    })
}
