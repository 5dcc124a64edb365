//! Certificates of X.509 version 1, as `openssl x509 -req` makes them where nobody asks for more: most of those
//! that people make for their own clients. webpki does not look at them, OpenSSL takes them.

use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use rustls::{CertificateError, DigitallySignedStruct, Error};
use x509_parser::asn1_rs::{Any, FromDer as _};
use x509_parser::prelude::{X509Certificate, X509Version};
use x509_parser::revocation_list::CertificateRevocationList;

use super::provider;

/// It, if it is one.
pub fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    (parsed.version() == X509Version::V1).then_some(parsed)
}

/// Whether one of these CAs has issued it, and has not revoked it; `revoked` are their lists, if there are any. Its
/// time is not looked at.
///
/// # Errors
/// What is wrong with it.
pub fn verify(
    own: &X509Certificate<'_>,
    der: &[u8],
    cas: &[CertificateDer<'_>],
    revoked: &[CertificateRevocationListDer<'_>],
) -> Result<(), CertificateError> {
    let cas = cas.iter().filter_map(|ca| Some(X509Certificate::from_der(ca).ok()?.1));
    let mut named = cas.filter(|ca| ca.subject().as_raw() == own.issuer().as_raw()).peekable();
    named.peek().ok_or(CertificateError::UnknownIssuer)?;
    let issuer = named.find(|ca| is_signed_by(der, ca.public_key().raw));
    let issuer = issuer.ok_or(CertificateError::BadSignature)?;
    if revoked.is_empty() {
        return Ok(());
    }
    let mut is_listed = None;
    for list in revoked.iter().filter(|list| is_signed_by(list, issuer.public_key().raw)) {
        let Ok((_, parsed)) = CertificateRevocationList::from_der(list) else { continue };
        if parsed.issuer().as_raw() == own.issuer().as_raw() {
            let mut serials = parsed.iter_revoked_certificates().map(|revoked| revoked.raw_serial());
            *is_listed.get_or_insert(false) |= serials.any(|serial| serial == own.raw_serial());
        }
    }
    match is_listed {
        Some(false) => Ok(()),
        Some(true) => Err(CertificateError::Revoked),
        None => Err(CertificateError::UnknownRevocationStatus),
    }
}

/// Whether a client that has shown it has its key, in TLS 1.2.
///
/// # Errors
/// It has not.
pub fn verify_tls12_signature(
    own: &X509Certificate<'_>,
    message: &[u8],
    signature: &DigitallySignedStruct,
) -> Result<(), Error> {
    let (algorithm, key) = key_of(own.public_key().raw).ok_or(CertificateError::BadEncoding)?;
    let known = provider().signature_verification_algorithms.mapping;
    let mut fitting = known
        .iter()
        .filter(|(scheme, _)| *scheme == signature.scheme)
        .flat_map(|(_, all)| *all)
        .filter(|known| *known.public_key_alg_id() == *algorithm);
    match fitting.any(|known| known.verify_signature(key, message, signature.signature()).is_ok()) {
        true => Ok(()),
        false => Err(CertificateError::BadSignature.into()),
    }
}

/// Whether a certificate or a list of revoked ones is signed with a key: its `SubjectPublicKeyInfo`.
fn is_signed_by(der: &[u8], key: &[u8]) -> bool {
    let (Some((content, by, signature)), Some((algorithm, key))) = (signed(der), key_of(key)) else {
        return false;
    };
    provider().signature_verification_algorithms.all.iter().any(|known| {
        *known.signature_alg_id() == *by
            && *known.public_key_alg_id() == *algorithm
            && known.verify_signature(key, content, signature).is_ok()
    })
}

/// RFC 5280 §4.1.1: what is signed, by which algorithm, and the signature.
fn signed(der: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (_, whole) = Any::from_der(der).ok()?;
    let (rest, _) = Any::from_der(whole.data).ok()?;
    let content = &whole.data[..whole.data.len() - rest.len()];
    let (rest, algorithm) = Any::from_der(rest).ok()?;
    Some((content, algorithm.data, bits(rest)?))
}

/// RFC 5280 §4.1.2.7: of which algorithm a key is, and the key.
fn key_of(key: &[u8]) -> Option<(&[u8], &[u8])> {
    let (_, whole) = Any::from_der(key).ok()?;
    let (rest, algorithm) = Any::from_der(whole.data).ok()?;
    Some((algorithm.data, bits(rest)?))
}

/// The bytes of a BIT STRING; before them it says how many bits of the last one do not count: none.
fn bits(der: &[u8]) -> Option<&[u8]> {
    let (_, bits) = Any::from_der(der).ok()?;
    bits.data.strip_prefix(&[0])
}
