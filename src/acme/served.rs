//! What servers with `tls = "acme"` show: the certificate of the store, a makeshift one until there is one, and
//! whatever is issued while they run.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::sign::CertifiedKey;

use super::store::Store;
use crate::config::{Acme, CertificateNames};
use crate::tls::identity::{Identity, self_signed};

/// The certificates of the process that are ordered, by their names. They outlive a reload.
#[derive(Debug, Default)]
pub struct Served {
    identities: Mutex<HashMap<CertificateNames, Arc<Identity>>>,
}

impl Served {
    /// Has something to show for every certificate of a configuration before anybody asks for it: what is in the
    /// store, else what is made here. What is shown already stays.
    ///
    /// # Errors
    /// The store cannot be written; the text names the folder. Or a certificate cannot be made.
    pub fn prepare(&self, acme: &Acme) -> io::Result<()> {
        let store = Store::open(acme).map_err(|error| {
            io::Error::other(format!(
                "the `store` of `[acme]` cannot be written: {error}; let the user that hopgate runs as write there, or name \
                 another folder: `store = \"/…\"`"
            ))
        })?;
        self.fill(acme, &store)
    }

    /// What would be shown, for those who only look: the store is read, if it is there, and not touched.
    ///
    /// # Errors
    /// A certificate cannot be made.
    pub fn supposed(acme: &Acme) -> io::Result<Self> {
        let served = Self::default();
        served.fill(acme, &Store::of(acme)).map(|()| served)
    }

    fn fill(&self, acme: &Acme, store: &Store) -> io::Result<()> {
        for names in &acme.certificates {
            if self.identity(names).is_some() {
                continue;
            }
            let stored = store.certificate(names).unwrap_or_else(|why| {
                tracing::warn!(
                    "acme: the certificate for {names} cannot be used, another one is ordered: {why}"
                );
                None
            });
            let first = match stored {
                Some(certificate) => certificate.key,
                None => Arc::new(makeshift(names).map_err(|why| {
                    io::Error::other(format!("no certificate for {names} can be made: {why}"))
                })?),
            };
            let identity = Arc::new(Identity::issued(names.clone(), first));
            self.identities.lock().unwrap_or_else(PoisonError::into_inner).insert(names.clone(), identity);
        }
        Ok(())
    }

    /// What is shown for these names; `None` if nothing was prepared for them.
    pub fn identity(&self, names: &CertificateNames) -> Option<Arc<Identity>> {
        self.identities.lock().unwrap_or_else(PoisonError::into_inner).get(names).map(Arc::clone)
    }
}

/// What is shown until the first certificate is there. It is kinder than to refuse the handshake: whoever sets a
/// server up sees that it is there, and what it waits for, and a load balancer that asks for TLS finds it alive.
fn makeshift(names: &CertificateNames) -> Result<CertifiedKey, String> {
    self_signed(names.all().to_vec(), "hopgate waits for a certificate")
}
