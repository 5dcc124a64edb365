//! The challenges that wait for a CA to look, and what it is answered: HTTP-01 (RFC 8555 §8.3) and TLS-ALPN-01
//! (RFC 8737).

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio::sync::Notify;

use crate::request::Request;
use crate::tls::provider;

/// How a CA sees that a name is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It asks for a file at port 80 (RFC 8555 §8.3).
    Http01,
    /// It asks for a certificate at port 443 (RFC 8737).
    TlsAlpn01,
}

impl Kind {
    /// As ACME calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http01 => "http-01",
            Self::TlsAlpn01 => "tls-alpn-01",
        }
    }

    /// The one that ACME calls so.
    pub fn of_name(name: &str) -> Option<Self> {
        [Self::Http01, Self::TlsAlpn01].into_iter().find(|kind| kind.name() == name)
    }

    /// The port that the CA connects to: whoever forwards to another one knows it.
    pub fn port(self) -> u16 {
        match self {
            Self::Http01 => 80,
            Self::TlsAlpn01 => 443,
        }
    }
}

/// The challenges in the order in which they are tried, for these listeners (with or without TLS): that which
/// worked last; those whose port is listened on; those which another port may be forwarded to.
pub fn kinds(listeners: &[(bool, u16)], last: Option<Kind>) -> Vec<Kind> {
    let mut kinds: Vec<_> = [Kind::Http01, Kind::TlsAlpn01]
        .into_iter()
        .filter(|kind| listeners.iter().any(|(tls, _)| *tls == (*kind == Kind::TlsAlpn01)))
        .collect();
    // A stable sort: of two that are alike, HTTP-01 comes first. It is looked at more leniently.
    kinds.sort_by_key(|kind| {
        let is_listened_on = listeners.contains(&(*kind == Kind::TlsAlpn01, kind.port()));
        (Some(*kind) != last, !is_listened_on)
    });
    kinds
}

/// Where a CA looks for the answer to HTTP-01.
pub const HTTP_PATH: &[u8] = b"/.well-known/acme-challenge/";

/// The protocol that a CA offers alone when it looks for TLS-ALPN-01 (RFC 8737 §6.2).
pub const PROTOCOL: &[u8] = b"acme-tls/1";

/// The pending challenges of the process. Almost always there are none.
#[derive(Debug, Default)]
pub struct Challenges {
    pending: RwLock<Pending>,
    /// How many there are: all that a request looks at otherwise.
    count: AtomicUsize,
    /// The names that orders have for themselves.
    reserved: Mutex<HashSet<String>>,
    /// Notified when there are fewer of them.
    freed: Notify,
}

#[derive(Debug, Default)]
struct Pending {
    /// Tokens with their key authorizations.
    http: HashMap<String, String>,
    /// Names with how TLS is spoken to prove them.
    tls: HashMap<String, Arc<ServerConfig>>,
}

impl Challenges {
    /// The body to answer a request with; `None` if it does not ask for a pending challenge, so that an app may
    /// answer challenges of its own.
    pub fn answer_to(&self, request: &Request) -> Option<String> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        matches!(request.head.method(), b"GET" | b"HEAD").then(|| self.answer(request.path())).flatten()
    }

    fn answer(&self, path: &[u8]) -> Option<String> {
        let token = std::str::from_utf8(path.strip_prefix(HTTP_PATH)?).ok()?;
        self.look(|pending| pending.http.get(token).cloned())
    }

    /// How TLS is spoken with a client that asks for this name and for the protocol `acme-tls/1` alone; `None` if
    /// no proof for the name is pending.
    pub fn proof_for(&self, name: Option<&str>) -> Option<Arc<ServerConfig>> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.look(|pending| pending.tls.get(&name?.to_ascii_lowercase()).cloned())
    }

    /// Answers HTTP-01 for a token until what is returned is dropped.
    pub fn offer_token(self: &Arc<Self>, token: &str, key_authorization: &str) -> Offered {
        self.change(|pending| pending.http.insert(token.to_owned(), key_authorization.to_owned()));
        Offered { challenges: Arc::clone(self), kind: Kind::Http01, key: token.to_owned() }
    }

    /// Answers TLS-ALPN-01 for a name until what is returned is dropped; `digest` is that of the key authorization.
    ///
    /// # Errors
    /// The certificate cannot be made.
    pub fn offer_certificate(self: &Arc<Self>, name: &str, digest: &[u8]) -> Result<Offered, String> {
        let proof = Arc::new(proof(name, digest)?);
        let name = name.to_ascii_lowercase();
        self.change(|pending| pending.tls.insert(name.clone(), proof));
        Ok(Offered { challenges: Arc::clone(self), kind: Kind::TlsAlpn01, key: name })
    }

    /// Waits until no other order has one of these names for itself. A CA that looks for TLS-ALPN-01 tells no more
    /// than the name, so that there can be one proof of it at a time; two certificates may have it.
    pub async fn reserve(self: &Arc<Self>, names: &[String]) -> Reserved {
        loop {
            // Before the look, so that nothing is missed behind it.
            let freed = self.freed.notified();
            if self.reserve_now(names) {
                return Reserved { challenges: Arc::clone(self), names: names.to_vec() };
            }
            freed.await;
        }
    }

    fn reserve_now(&self, names: &[String]) -> bool {
        let mut reserved = self.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        let are_free = !names.iter().any(|name| reserved.contains(name));
        if are_free {
            reserved.extend(names.iter().cloned());
        }
        are_free
    }

    fn look<T>(&self, look: impl FnOnce(&Pending) -> T) -> T {
        look(&self.pending.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change<T>(&self, change: impl FnOnce(&mut Pending) -> T) {
        let mut pending = self.pending.write().unwrap_or_else(PoisonError::into_inner);
        change(&mut pending);
        self.count.store(pending.http.len() + pending.tls.len(), Ordering::Release);
    }
}

/// RFC 8737 §3: the protocol `acme-tls/1`, and a certificate that proves the name.
fn proof(name: &str, digest: &[u8]) -> Result<ServerConfig, String> {
    let (certificate, key) = certificate(name, digest).map_err(|error| error.to_string())?;
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let made = || -> Result<_, rustls::Error> {
        // Not `CertifiedKey::from_der`, which would look into the certificate and not know the extension.
        let key = CertifiedKey::new(vec![certificate], provider().key_provider.load_private_key(key)?);
        let config = ServerConfig::builder_with_provider(Arc::clone(provider()));
        let config = config.with_safe_default_protocol_versions()?.with_no_client_auth();
        Ok(config.with_cert_resolver(Arc::new(SingleCertAndKey::from(key))))
    };
    let mut config = made().map_err(|error| error.to_string())?;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    Ok(config)
}

/// A self-signed certificate for the name, with the digest in an extension of its own.
fn certificate(name: &str, digest: &[u8]) -> Result<(CertificateDer<'static>, KeyPair), rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut parameters = CertificateParams::new([name.to_owned()])?;
    parameters.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    Ok((parameters.self_signed(&key)?.der().clone(), key))
}

/// A challenge that is answered for as long as this lives.
#[derive(Debug)]
pub struct Offered {
    challenges: Arc<Challenges>,
    kind: Kind,
    /// The token, or the name.
    key: String,
}

impl Drop for Offered {
    fn drop(&mut self) {
        let key = std::mem::take(&mut self.key);
        self.challenges.change(|pending| match self.kind {
            Kind::Http01 => drop(pending.http.remove(&key)),
            Kind::TlsAlpn01 => drop(pending.tls.remove(&key)),
        });
    }
}

/// Names that an order has for itself for as long as this lives.
#[derive(Debug)]
pub struct Reserved {
    challenges: Arc<Challenges>,
    names: Vec<String>,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let mut reserved = self.challenges.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        for name in &self.names {
            reserved.remove(name);
        }
        self.challenges.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_challenge_that_is_most_likely_to_work_is_tried_first() {
        use Kind::{Http01, TlsAlpn01};
        let (plain, tls) = (|port| (false, port), |port| (true, port));
        for (listeners, last, expected) in [
            (vec![plain(80), tls(443)], None, vec![Http01, TlsAlpn01]),
            (vec![plain(80), tls(443)], Some(TlsAlpn01), vec![TlsAlpn01, Http01]),
            (vec![tls(443)], None, vec![TlsAlpn01]),
            (vec![tls(443)], Some(Http01), vec![TlsAlpn01]),
            (vec![plain(8080), tls(443)], None, vec![TlsAlpn01, Http01]),
            (vec![plain(8080), tls(8443)], None, vec![Http01, TlsAlpn01]),
        ] {
            assert_eq!(kinds(&listeners, last), expected, "{listeners:?} {last:?}");
        }
    }

    #[test]
    fn a_token_is_answered_only_while_it_is_pending() {
        let challenges = Arc::new(Challenges::default());
        let path = |token: &str| [HTTP_PATH, token.as_bytes()].concat();
        assert_eq!(challenges.answer(&path("a")), None);
        let a = challenges.offer_token("a", "a.thumb");
        let b = challenges.offer_token("b", "b.thumb");
        assert_eq!(challenges.answer(&path("a")).as_deref(), Some("a.thumb"));
        for other in
            [&path("c")[..], &path(""), &path("a/"), &path("A"), b"/a", b"/.well-known/acme-challenge"]
        {
            assert_eq!(challenges.answer(other), None, "{}", String::from_utf8_lossy(other));
        }
        drop(a);
        assert_eq!(challenges.answer(&path("a")), None);
        assert_eq!(challenges.answer(&path("b")).as_deref(), Some("b.thumb"));
        drop(b);
        assert_eq!(challenges.answer(&path("b")), None);
    }

    #[tokio::test]
    async fn of_two_orders_with_a_name_in_common_one_waits() {
        use futures_util::FutureExt as _;
        let challenges = Arc::new(Challenges::default());
        let [a, b, www_a] = ["a.example", "b.example", "www.a.example"].map(str::to_owned);
        let first = challenges.reserve(&[a.clone(), www_a.clone()]).await;
        let (one, other) = ([b.clone(), www_a], [b]);
        let mut second = std::pin::pin!(challenges.reserve(&one));
        assert!(second.as_mut().now_or_never().is_none());
        // It has none of its names while it waits for one.
        drop(challenges.reserve(&other).now_or_never().expect("nobody has it"));
        drop(first);
        let _second = second.now_or_never().expect("nobody has one of them any more");
        assert!(challenges.reserve(&[a]).now_or_never().is_some());
        assert!(challenges.reserve(&other).now_or_never().is_none());
    }

    #[test]
    fn a_proof_is_a_certificate_for_the_name_with_the_digest_in_it() {
        use x509_parser::prelude::{FromDer as _, X509Certificate};
        let challenges = Arc::new(Challenges::default());
        assert!(challenges.proof_for(Some("a.example")).is_none());
        let offered = challenges.offer_certificate("A.example", &[7; 32]).unwrap();
        assert!(challenges.proof_for(Some("a.Example")).is_some());
        assert!(challenges.proof_for(Some("b.example")).is_none() && challenges.proof_for(None).is_none());
        let (made, _) = certificate("A.example", &[7; 32]).unwrap();
        let (_, parsed) = X509Certificate::from_der(&made).unwrap();
        let names = parsed.subject_alternative_name().unwrap().unwrap().value;
        assert_eq!(names.general_names.len(), 1);
        // RFC 8737 §3: critical, and an OCTET STRING of 32 bytes.
        let extension =
            parsed.extensions().iter().find(|e| e.oid.to_id_string() == "1.3.6.1.5.5.7.1.31").unwrap();
        assert!(extension.critical);
        assert_eq!(extension.value, [&[4, 32][..], &[7; 32]].concat());
        drop(offered);
        assert!(challenges.proof_for(Some("a.example")).is_none());
    }
}
