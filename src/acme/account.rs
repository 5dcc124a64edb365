//! The account at the CA (RFC 8555 §7.1.2): made once, kept in the store.

use instant_acme::{Account, NewAccount};

use super::error::Failure;
use super::http::Http;
use super::store::{Lock, Store};
use crate::config::Acme;

/// The account, with a fresh look at the CA's directory. It is made if there is none.
///
/// # Errors
/// The CA cannot be reached or refuses, or the store cannot be used.
pub async fn account(acme: &Acme, store: &Store, http: &Http) -> Result<Account, Failure> {
    if let Some(account) = known(acme, store, http).await? {
        return Ok(account);
    }
    let _lock = store.locked(&Lock::Account).await?;
    // Somebody may have made it while we waited.
    if let Some(account) = known(acme, store, http).await? {
        return Ok(account);
    }
    let contact: Vec<&str> = acme.contact.iter().map(String::as_str).collect();
    let new = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
    let builder = Account::builder_with_http(Box::new(http.clone()));
    let (account, credentials) = builder.create(&new, acme.directory.clone(), None).await?;
    store.set_account(&credentials, &acme.contact)?;
    tracing::info!("acme: made an account at {}", acme.directory);
    Ok(account)
}

/// The account of the store; the CA hears of it if its contacts are others now.
async fn known(acme: &Acme, store: &Store, http: &Http) -> Result<Option<Account>, Failure> {
    let Some((credentials, contact)) = store.account()? else { return Ok(None) };
    let account = Account::builder_with_http(Box::new(http.clone())).from_credentials(credentials).await?;
    if contact != acme.contact {
        let contact: Vec<&str> = acme.contact.iter().map(String::as_str).collect();
        account.update_contacts(&contact).await?;
        if let Some((credentials, _)) = store.account()? {
            store.set_account(&credentials, &acme.contact)?;
        }
    }
    Ok(Some(account))
}
