//! Client certificates, by nginx's rules: whoever has the key may finish the handshake, and what is thought of
//! the certificate is said in HTTP.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
};
use x509_parser::prelude::{FromDer as _, Validity, X509Certificate};

use super::{provider, version1};
use crate::error::ProxyError;

/// Whether clients are asked for a certificate. nginx: `ssl_verify_client`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// They are not.
    Off,
    /// They need one that was issued by one of the CAs.
    On,
    /// If they have one it must be such a one.
    Optional,
    /// It need not be: it is for the app to say. Out of date it must not be, nor revoked.
    OptionalNoCa,
}

/// The rules about client certificates of a server. Two servers with equal rules trust the same clients (R32).
#[derive(Debug)]
pub struct ClientRules {
    /// Whether one is asked for.
    pub ask: Ask,
    /// The CAs. nginx: `ssl_client_certificate`.
    cas: Vec<CertificateDer<'static>>,
    /// What they have revoked. nginx: `ssl_crl`.
    revoked: Vec<CertificateRevocationListDer<'static>>,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    hints: Vec<DistinguishedName>,
}

impl PartialEq for ClientRules {
    fn eq(&self, other: &Self) -> bool {
        self.ask == other.ask && self.cas == other.cas && self.revoked == other.revoked
    }
}

/// What is thought of the certificate of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is none.
    None,
    /// It was issued by one of the CAs, and holds.
    Success,
    /// It was not; the reason as OpenSSL words it, which is what apps behind nginx know.
    Failed(String, Failure),
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// None of the CAs has issued it.
    Unknown,
    /// It is worth nothing.
    Invalid,
}

impl ClientRules {
    /// Nobody is asked.
    pub fn none() -> Self {
        Self { ask: Ask::Off, cas: Vec::new(), revoked: Vec::new(), verifier: None, hints: Vec::new() }
    }

    /// Puts rules together.
    ///
    /// # Errors
    /// A CA or a list that cannot be used.
    pub fn new(
        ask: Ask,
        cas: Vec<CertificateDer<'static>>,
        revoked: Vec<CertificateRevocationListDer<'static>>,
    ) -> Result<Self, String> {
        if ask == Ask::Off {
            return Ok(Self::none());
        }
        let mut roots = RootCertStore::empty();
        for ca in &cas {
            roots.add(ca.clone()).map_err(|error| error.to_string())?;
        }
        let hints = roots.subjects();
        let verifier = match roots.is_empty() {
            true => None,
            false => {
                let builder =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider()));
                Some(builder.with_crls(revoked.clone()).build().map_err(|error| error.to_string())?)
            }
        };
        Ok(Self { ask, cas, revoked, verifier, hints })
    }

    /// What is thought of the certificates that a client has shown, its own first.
    pub fn judge(&self, shown: Option<&[CertificateDer<'static>]>) -> Verdict {
        let Some((own, issuers)) = shown.and_then(<[_]>::split_first) else { return Verdict::None };
        let verified = match &self.verifier {
            Some(verifier) => verifier.verify_client_cert(own, issuers, UnixTime::now()).map(drop),
            None => Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)),
        };
        let Err(error) = verified else { return Verdict::Success };
        // OpenSSL finds this out last, and so says nothing else; nginx therefore never lets it pass.
        if let Some(why) = out_of_date(own) {
            return Verdict::Failed(why.to_owned(), Failure::Invalid);
        }
        match error {
            // Those of `openssl req -x509` may issue others, and do not suit webpki by themselves: one that is
            // named as a CA is believed even so, any other is nobody's.
            Error::InvalidCertificate(CertificateError::Other(_)) if is_self_issued(own) => {
                if !self.revoked.is_empty() {
                    return failed(&CertificateError::UnknownRevocationStatus, own);
                }
                if self.cas.contains(own) { Verdict::Success } else { unknown(own) }
            }
            Error::InvalidCertificate(error @ CertificateError::Other(_)) => match version1::parse(own) {
                Some(parsed) => match version1::verify(&parsed, own, &self.cas, &self.revoked) {
                    Ok(()) => Verdict::Success,
                    Err(error) => failed(&error, own),
                },
                None => failed(&error, own),
            },
            Error::InvalidCertificate(error) => failed(&error, own),
            error => Verdict::Failed(error.to_string(), Failure::Invalid),
        }
    }

    /// Whether a request may come with such a certificate. nginx: 495 and 496, which clients get as 400.
    ///
    /// # Errors
    /// It may not.
    pub fn admit(&self, verdict: &Verdict) -> Result<(), ProxyError> {
        match (self.ask, verdict) {
            (Ask::Off, _) | (_, Verdict::Success) => Ok(()),
            (Ask::On, Verdict::None) => Err(ProxyError::NoClientCertificate),
            (Ask::Optional | Ask::OptionalNoCa, Verdict::None) => Ok(()),
            (Ask::OptionalNoCa, Verdict::Failed(_, Failure::Unknown)) => Ok(()),
            (_, Verdict::Failed(why, _)) => Err(ProxyError::ClientCertificate(why.clone().into())),
        }
    }
}

/// `$ssl_client_verify`.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("NONE"),
            Self::Success => f.write_str("SUCCESS"),
            Self::Failed(why, _) => write!(f, "FAILED:{why}"),
        }
    }
}

fn failed(error: &CertificateError, own: &CertificateDer<'_>) -> Verdict {
    let why = match error {
        CertificateError::UnknownIssuer => return unknown(own),
        // One of the issuers; its own was looked at before.
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => EXPIRED,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => NOT_YET_VALID,
        CertificateError::Revoked => "certificate revoked",
        CertificateError::UnknownRevocationStatus => "unable to get certificate CRL",
        CertificateError::BadSignature => "certificate signature failure",
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "unsuitable certificate purpose"
        }
        other => return Verdict::Failed(other.to_string(), Failure::Invalid),
    };
    Verdict::Failed(why.to_owned(), Failure::Invalid)
}

const EXPIRED: &str = "certificate has expired";
const NOT_YET_VALID: &str = "certificate is not yet valid";

fn out_of_date(own: &CertificateDer<'_>) -> Option<&'static str> {
    let (_, parsed) = X509Certificate::from_der(own).ok()?;
    let now = i64::try_from(UnixTime::now().as_secs()).unwrap_or(i64::MAX);
    match parsed.validity {
        Validity { not_after, .. } if now > not_after.timestamp() => Some(EXPIRED),
        Validity { not_before, .. } if now < not_before.timestamp() => Some(NOT_YET_VALID),
        _ => None,
    }
}

fn is_self_issued(own: &CertificateDer<'_>) -> bool {
    X509Certificate::from_der(own).is_ok_and(|(_, own)| own.issuer == own.subject)
}

fn unknown(own: &CertificateDer<'_>) -> Verdict {
    let why = if is_self_issued(own) {
        "self-signed certificate"
    } else {
        "unable to verify the first certificate"
    };
    Verdict::Failed(why.to_owned(), Failure::Unknown)
}

/// Asks for a certificate and for the proof that the client has its key, and takes every one.
#[derive(Debug)]
pub(super) struct Lenient(pub(super) Arc<ClientRules>);

fn algorithms() -> WebPkiSupportedAlgorithms {
    provider().signature_verification_algorithms
}

impl ClientCertVerifier for Lenient {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.0.hints
    }

    /// [`ClientRules::judge`] says what is thought of it, for resumed sessions, too.
    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if let Some(parsed) = version1::parse(certificate) {
            return version1::verify_tls12_signature(&parsed, message, signature)
                .map(|()| HandshakeSignatureValid::assertion());
        }
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &algorithms())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if let Some(parsed) = version1::parse(certificate) {
            let key = SubjectPublicKeyInfoDer::from(parsed.public_key().raw);
            return rustls::crypto::verify_tls13_signature_with_raw_key(
                message,
                &key,
                signature,
                &algorithms(),
            );
        }
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms().supported_schemes()
    }
}
