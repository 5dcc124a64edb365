//! A certificate with its key, as it was read or ordered.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use instant_acme::CertificateIdentifier;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;
use x509_parser::time::ASN1Time;

use super::schedule::Validity;
use crate::config::CertificateNames;
use crate::tls::{certificate, pem};

/// A certificate that servers can show.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The chain and the key.
    pub key: Arc<CertifiedKey>,
    /// For how long it holds.
    pub validity: Validity,
    /// By which the CA knows it (RFC 9773 §4.1), if it can be told.
    pub id: Option<CertificateIdentifier<'static>>,
}

impl Certificate {
    /// Reads a key and a chain, for these names.
    ///
    /// # Errors
    /// Why it cannot be used for them.
    pub fn from_pem(bytes: &[u8], names: &CertificateNames) -> Result<Self, String> {
        let key = PrivateKeyDer::from_pem_slice(bytes).map_err(|error| format!("no private key: {error}"))?;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
        let chain = chain.map_err(|error| format!("not a chain of certificates: {error}"))?;
        let first = chain.first().ok_or("there is no certificate in it")?.clone();
        let (_, parsed) =
            X509Certificate::from_der(&first).map_err(|error| format!("not a certificate: {error}"))?;
        let own = certificate::names(&parsed);
        let is_own = |wanted: &&String| own.iter().any(|name| name.eq_ignore_ascii_case(wanted));
        if let Some(name) = names.all().iter().find(|name| !is_own(name)) {
            return Err(format!("it is not for {name}"));
        }
        let validity = parsed.validity();
        let validity =
            Validity { not_before: time(validity.not_before), not_after: time(validity.not_after) };
        let key = pem::certified(chain, key)
            .map_err(|error| format!("the key cannot be used with the certificate: {error}"))?;
        let id = CertificateIdentifier::try_from(&first).ok().map(CertificateIdentifier::into_owned);
        Ok(Self { key: Arc::new(key), validity, id })
    }
}

fn time(time: ASN1Time) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(time.timestamp().try_into().unwrap_or(0))
}
