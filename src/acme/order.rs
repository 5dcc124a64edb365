//! One order (RFC 8555 §7.4): from the names to a chain of certificates.

use std::sync::Arc;
use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeType, Identifier, NewOrder, Order,
    OrderStatus, Problem, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};

use super::challenges::{Challenges, Kind, Offered};
use super::error::{Failure, is_about_replacement};
use crate::config::CertificateNames;

/// How long the CA may take to look, and then to issue; how often it is asked meanwhile, unless it says.
const PATIENCE: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(250))
    .backoff(1.6)
    .timeout(Duration::from_secs(120));

/// A certificate that was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// Its names.
    pub names: &'a CertificateNames,
    /// The one that it takes the place of.
    pub replaces: Option<&'a CertificateIdentifier<'static>>,
}

/// Orders a certificate, and proves the names by one kind of challenge: the key and the chain, as PEM.
///
/// # Errors
/// What has gone wrong. The challenges are not answered any more.
pub async fn order(
    account: &Account,
    wish: Wish<'_>,
    kind: Kind,
    challenges: &Arc<Challenges>,
) -> Result<String, Failure> {
    let reserved = match kind {
        Kind::Http01 => None,
        Kind::TlsAlpn01 => Some(challenges.reserve(wish.names.all()).await),
    };
    let mut order = place(account, wish).await?;
    let offered = offer(&mut order, kind, challenges).await?;
    if !offered.is_empty() {
        await_proof(&mut order, kind).await?;
    }
    drop((offered, reserved));
    finish(&mut order, wish.names).await
}

async fn place(account: &Account, wish: Wish<'_>) -> Result<Order, Failure> {
    let identifiers: Vec<_> = wish.names.all().iter().cloned().map(Identifier::Dns).collect();
    let order = NewOrder::new(&identifiers);
    let Some(replaced) = wish.replaces else { return Ok(account.new_order(&order).await?) };
    match account.new_order(&order.replaces(replaced.clone())).await {
        // That is for the CA's convenience, and no reason to go without a certificate.
        Err(error) if is_about_replacement(&error) => {
            Ok(account.new_order(&NewOrder::new(&identifiers)).await?)
        }
        outcome => Ok(outcome?),
    }
}

/// Answers the challenge of every name that is not proven yet, and tells the CA to look.
async fn offer(order: &mut Order, kind: Kind, challenges: &Arc<Challenges>) -> Result<Vec<Offered>, Failure> {
    let mut offered = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        match authorization.status {
            AuthorizationStatus::Valid => continue,
            AuthorizationStatus::Pending => {}
            _ => return Err(Failure::Unproven(authorization.identifier().to_string(), kind, None)),
        }
        let name = authorization.identifier().to_string();
        let Some(mut challenge) = authorization.challenge(acme_type(kind)) else {
            return Err(Failure::NoChallenge(name, kind));
        };
        let proof = challenge.key_authorization();
        offered.push(match kind {
            Kind::Http01 => challenges.offer_token(&challenge.token, proof.as_str()),
            Kind::TlsAlpn01 => challenges
                .offer_certificate(&name, proof.digest().as_ref())
                .map_err(|error| Failure::Unmade(format!("no proof for {name} could be made: {error}")))?,
        });
        challenge.set_ready().await?;
    }
    Ok(offered)
}

fn acme_type(kind: Kind) -> ChallengeType {
    match kind {
        Kind::Http01 => ChallengeType::Http01,
        Kind::TlsAlpn01 => ChallengeType::TlsAlpn01,
    }
}

async fn await_proof(order: &mut Order, kind: Kind) -> Result<(), Failure> {
    match order.poll_ready(&PATIENCE).await {
        Ok(OrderStatus::Ready) => Ok(()),
        Err(error @ instant_acme::Error::Timeout(_)) => Err(error.into()),
        // Of the order it says only that it is over; what was wrong is said of the name.
        Ok(_) | Err(instant_acme::Error::Api(_)) => Err(what_is_unproven(order, kind).await?),
        Err(error) => Err(error.into()),
    }
}

async fn what_is_unproven(order: &mut Order, kind: Kind) -> Result<Failure, instant_acme::Error> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        let state = authorization.refresh().await?;
        let problem: Option<Problem> = state.challenges.iter().find_map(|challenge| challenge.error.clone());
        if problem.is_some() || state.status == AuthorizationStatus::Invalid {
            return Ok(Failure::Unproven(state.identifier().to_string(), kind, problem));
        }
    }
    Ok(Failure::Slow("the order is over, and it does not say why"))
}

/// Has the CA issue it (RFC 8555 §7.4), for a key of its own.
async fn finish(order: &mut Order, names: &CertificateNames) -> Result<String, Failure> {
    let unmade = |error: rcgen::Error| Failure::Unmade(format!("no request to sign could be made: {error}"));
    let key = KeyPair::generate().map_err(unmade)?;
    let mut parameters = CertificateParams::new(names.all()).map_err(unmade)?;
    // What counts are the names; a CN would be the library's own.
    parameters.distinguished_name = DistinguishedName::new();
    let request = parameters.serialize_request(&key).map_err(unmade)?;
    order.finalize_csr(request.der()).await?;
    let chain = order.poll_certificate(&PATIENCE).await?;
    Ok(format!("{}{chain}", key.serialize_pem()))
}
