//! Whether the certificate of an upstream server is believed.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::{ParsedCertificate, VerifierBuilderError};
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Trust;

/// What a certificate is held against.
///
/// # Errors
/// A list of what was revoked cannot be used.
pub(super) fn verifier(
    trust: Option<&Trust>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, Error> {
    let Some(trust) = trust else { return Ok(Arc::new(Anybody(Arc::clone(provider)))) };
    let builder = WebPkiServerVerifier::builder_with_provider(Arc::clone(&trust.roots), Arc::clone(provider));
    // As OpenSSL does it for nginx: a list that is too old says nothing any more.
    let builder = builder.with_crls(trust.revoked.iter().cloned()).enforce_revocation_expiration();
    let by_issuer = builder.build().map_err(|error| match error {
        VerifierBuilderError::InvalidCrl(error) => Error::InvalidCertRevocationList(error),
        error => Error::General(error.to_string()),
    })?;
    // Who lists what was revoked wants every certificate to be held against it.
    let known = if trust.revoked.is_empty() { Arc::clone(&trust.certificates) } else { Arc::from([]) };
    Ok(Arc::new(Somebody { by_issuer, known }))
}

/// A certificate that is issued by somebody who is trusted, or one that is trusted itself.
#[derive(Debug)]
struct Somebody {
    by_issuer: Arc<WebPkiServerVerifier>,
    /// Those that are trusted themselves. The usual self-signed certificate says of itself that it may issue
    /// others, and webpki takes none such for a server's.
    known: Arc<[CertificateDer<'static>]>,
}

impl ServerCertVerifier for Somebody {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.known.iter().any(|known| known == certificate) {
            in_time(certificate, now)?;
            verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
            return Ok(ServerCertVerified::assertion());
        }
        let verified = self.by_issuer.verify_server_cert(certificate, intermediates, name, ocsp, now);
        verified.map_err(|error| match error {
            Error::InvalidCertificate(error @ CertificateError::UnknownIssuer) => {
                untrusted(certificate, error)
            }
            // The self-signed one that says that it may issue others, if it is not known.
            Error::InvalidCertificate(error @ CertificateError::Other(_)) => untrusted(certificate, error),
            error => error,
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.by_issuer.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.by_issuer.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.by_issuer.supported_verify_schemes()
    }
}

fn in_time(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
        return Err(CertificateError::BadEncoding.into());
    };
    let seconds = |time: x509_parser::time::ASN1Time| {
        UnixTime::since_unix_epoch(Duration::from_secs(time.timestamp().max(0).unsigned_abs()))
    };
    let validity = parsed.validity();
    let (not_before, not_after) = (seconds(validity.not_before), seconds(validity.not_after));
    if now.as_secs() < not_before.as_secs() {
        return Err(CertificateError::NotValidYetContext { time: now, not_before }.into());
    }
    if now.as_secs() > not_after.as_secs() {
        return Err(CertificateError::ExpiredContext { time: now, not_after }.into());
    }
    Ok(())
}

/// No issuer that is trusted here: with the words of the certificate about who that is.
fn untrusted(certificate: &CertificateDer<'_>, error: CertificateError) -> Error {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return error.into() };
    let is_self_signed = parsed.issuer() == parsed.subject();
    if !is_self_signed && error != CertificateError::UnknownIssuer {
        return error.into();
    }
    let untrusted = Untrusted { issuer: parsed.issuer().to_string(), is_self_signed };
    CertificateError::Other(OtherError(Arc::new(untrusted))).into()
}

/// A certificate of an issuer that is not trusted.
#[derive(Clone, Debug)]
pub(super) struct Untrusted {
    pub(super) issuer: String,
    pub(super) is_self_signed: bool,
}

impl fmt::Display for Untrusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "issued by {}", self.issuer)
    }
}

impl std::error::Error for Untrusted {}

/// `proxy_ssl_verify = false`.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    /// Who has no name needs no signature: anybody could make one. To check it would only keep certificates
    /// of version 1 out, which webpki does not read.
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// A time for a person.
pub(super) fn date(time: UnixTime) -> String {
    // The last second that such a date can be of.
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(time.as_secs().min(253_402_300_799)))
}
