//! One certificate over the years: when it is ordered, renewed, and ordered again after a failure.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, Semaphore};

use super::account::account;
use super::certificate::Certificate;
use super::challenges::{Challenges, Kind, kinds};
use super::error::Failure;
use super::http::Http;
use super::order::{self, Wish};
use super::schedule::{self, Trouble, Window};
use super::store::{Lock, Notes, Store};
use crate::config::{Acme, CertificateNames};
use crate::tls::identity::Identity;

/// The longest sleep: whoever sets the clock, or lets the machine sleep, is noticed by then.
const NAP: Duration = Duration::from_secs(600);

/// Looks after one certificate.
pub(super) struct Tender {
    acme: Arc<Acme>,
    names: CertificateNames,
    listeners: Vec<(bool, u16)>,
    identity: Arc<Identity>,
    challenges: Arc<Challenges>,
    store: Store,
    notes: Notes,
    /// The one in use that the CA has issued.
    current: Option<Certificate>,
    /// When it is to be renewed.
    renewal: SystemTime,
    /// When the CA is asked about that.
    ask: SystemTime,
    /// What it has said.
    window: Option<Window>,
    /// How often in a row the CA could not even be asked.
    missed: u32,
    /// Whether the certificate in use was issued to this process, and when.
    issued: Option<SystemTime>,
}

impl Tender {
    pub(super) fn new(
        acme: Arc<Acme>,
        names: CertificateNames,
        listeners: Vec<(bool, u16)>,
        identity: Arc<Identity>,
        challenges: Arc<Challenges>,
    ) -> Self {
        let store = Store::of(&acme);
        let now = SystemTime::now();
        Self {
            notes: store.notes(&names),
            acme,
            names,
            listeners,
            identity,
            challenges,
            store,
            current: None,
            renewal: now,
            ask: now,
            window: None,
            missed: 0,
            issued: None,
        }
    }

    /// Never ends. `again` says that the operator has changed something; `turns` are for orders at a time.
    pub(super) async fn tend(mut self, again: Rc<Notify>, turns: Rc<Semaphore>) {
        if let Some(certificate) = self.stored() {
            self.take(certificate);
        }
        self.tell_of_wait();
        loop {
            let now = SystemTime::now();
            if self.start() <= now {
                // It is never closed.
                let _turn = turns.acquire().await;
                self.attempt().await;
            } else if self.current.is_some() && self.ask <= now {
                self.ask_about_renewal().await;
            } else {
                let next = if self.current.is_some() { self.start().min(self.ask) } else { self.start() };
                let nap = next.duration_since(now).unwrap_or_default().min(NAP);
                tokio::select! {
                    () = tokio::time::sleep(nap) => {}
                    () = again.notified() => {
                        self.hurry();
                        self.tell_of_wait();
                    }
                }
            }
        }
    }

    /// The operator may have changed something: the next attempt waits for nothing but the CA's own word.
    pub(super) fn hurry(&mut self) {
        self.notes.not_before = self.notes.retry_after;
    }

    /// When the next attempt is.
    fn start(&self) -> SystemTime {
        self.renewal.max(self.notes.not_before.unwrap_or(self.renewal))
    }

    fn tell_of_wait(&self) {
        let why = match self.notes.retry_after == self.notes.not_before {
            true => ": the CA does not want to be asked before",
            false => "; a reload tries it now",
        };
        let now = SystemTime::now();
        if let Ok(wait) = self.start().duration_since(now)
            && self.renewal <= now
        {
            let wait = in_words(wait);
            tracing::info!(
                "acme: the next attempt to get a certificate for {} is in {wait}{why}",
                self.names
            );
        }
    }

    /// What is in the store, if it can be used; `Served` has told if it cannot.
    fn stored(&self) -> Option<Certificate> {
        self.store.certificate(&self.names).ok().flatten()
    }

    /// Takes a certificate into use.
    fn take(&mut self, certificate: Certificate) {
        self.identity.show(Arc::clone(&certificate.key));
        self.renewal = certificate.validity.renewal(fastrand::f64());
        self.ask = SystemTime::now();
        self.window = None;
        self.current = Some(certificate);
    }

    /// Asks for a certificate once, and says how it went.
    async fn attempt(&mut self) {
        let later = match self.try_once().await {
            Ok(()) => {
                self.missed = 0;
                return;
            }
            Err((failure, later)) => {
                let count = match failure.trouble() {
                    Trouble::Passing => &mut self.missed,
                    Trouble::Refused => &mut self.notes.failures,
                };
                *count = count.saturating_add(1);
                let wait = schedule::wait(failure.trouble(), *count, fastrand::f64());
                self.notes.retry_after = later;
                let own = SystemTime::now() + wait;
                let until = later.map_or(own, |later| later.max(own));
                self.complain(&failure, until);
                until
            }
        };
        self.notes.not_before = Some(later);
        if let Err(error) = self.store.set_notes(&self.names, &self.notes) {
            tracing::warn!("acme: the store cannot be used: {error}");
        }
    }

    fn complain(&self, failure: &Failure, until: SystemTime) {
        let now = SystemTime::now();
        let wait = in_words(until.duration_since(now).unwrap_or_default());
        // Nor does a reload come before what the CA has said.
        let or_sooner = if self.notes.retry_after.is_none() { ", or at a reload" } else { "" };
        let meanwhile = match &self.current {
            Some(current) => match current.validity.not_after.duration_since(now) {
                Ok(left) => format!("the certificate in use holds for another {}", in_words(left)),
                Err(_) => "the certificate in use has expired".to_owned(),
            },
            None => "clients are shown a self-signed one meanwhile".to_owned(),
        };
        let advice = failure.advice();
        let advice = if advice.is_empty() { advice } else { format!(" ({advice})") };
        tracing::warn!(
            "acme: no certificate for {}: {failure}{advice}; the next attempt is in {wait}{or_sooner}; {meanwhile}",
            self.names
        );
    }

    /// # Errors
    /// What went wrong, and when the CA wants to be asked again.
    async fn try_once(&mut self) -> Result<(), (Failure, Option<SystemTime>)> {
        let lock = Lock::Certificate(&self.names);
        let _lock = self.store.locked(&lock).await.map_err(|error| (error.into(), None))?;
        if self.take_from_elsewhere() {
            return Ok(());
        }
        let (http, later) = Http::new(&self.acme).map_err(|failure| (failure, None))?;
        let outcome = self.order(&http).await;
        outcome.map_err(|failure| {
            let later = later.take();
            (failure, later)
        })
    }

    /// Whether another process has got one meanwhile, which shares the store.
    fn take_from_elsewhere(&mut self) -> bool {
        let Some(stored) = self.stored() else { return false };
        let known = self.current.as_ref().map(|current| current.validity.not_after);
        if known.is_some_and(|known| stored.validity.not_after <= known)
            || stored.validity.renewal(1.0) <= SystemTime::now()
        {
            return false;
        }
        tracing::info!("acme: another process has got the certificate for {}", self.names);
        self.notes = self.store.notes(&self.names);
        self.take(stored);
        true
    }

    async fn order(&mut self, http: &Http) -> Result<(), Failure> {
        match self.order_with_account(http).await {
            Err(failure) if failure.is_unknown_account() => {
                tracing::warn!("acme: the CA does not know the account any more; a new one is made");
                self.store.forget_account()?;
                self.order_with_account(http).await
            }
            outcome => outcome,
        }
    }

    async fn order_with_account(&mut self, http: &Http) -> Result<(), Failure> {
        let account = account(&self.acme, &self.store, http).await?;
        let mut tried = None;
        for kind in self.kinds() {
            if let Some(failure) = tried.take() {
                tracing::info!("acme: {failure}; trying {}", kind.name());
            }
            tracing::info!("acme: ordering a certificate for {} by {}", self.names, kind.name());
            let replaces = self.current.as_ref().and_then(|current| current.id.as_ref());
            let wish = Wish { names: &self.names, replaces };
            match order::order(&account, wish, kind, &self.challenges).await {
                Ok(pem) => return self.use_issued(&pem, kind),
                Err(failure) if failure.is_about_challenge() => tried = Some(failure),
                Err(failure) => return Err(failure),
            }
        }
        // Wherever there is a listener, there is a challenge that can be tried.
        Err(tried.unwrap_or_else(|| Failure::NoChallenge(self.names.first().to_owned(), Kind::Http01)))
    }

    /// All of them at first; after a failure one at a time in turn, since the CA counts what fails.
    fn kinds(&self) -> Vec<Kind> {
        let all = kinds(&self.listeners, self.notes.challenge);
        match self.notes.failures as usize {
            failures if failures > 0 && !all.is_empty() => vec![all[failures % all.len()]],
            _ => all,
        }
    }

    fn use_issued(&mut self, pem: &str, kind: Kind) -> Result<(), Failure> {
        let certificate = Certificate::from_pem(pem.as_bytes(), &self.names).map_err(Failure::Unusable)?;
        self.store.set_certificate(&self.names, pem)?;
        self.notes = Notes { challenge: Some(kind), ..Notes::default() };
        self.store.set_notes(&self.names, &self.notes)?;
        let holds = certificate.validity.not_after.duration_since(SystemTime::now()).unwrap_or_default();
        tracing::info!(
            "acme: the certificate for {} is in use; it holds for {}",
            self.names,
            in_words(holds)
        );
        self.take(certificate);
        self.issued = Some(SystemTime::now());
        Ok(())
    }

    /// RFC 9773 §4: the CA may know of a better time for the renewal.
    async fn ask_about_renewal(&mut self) {
        let now = SystemTime::now();
        match self.renewal_info().await {
            Ok(Some((window, again))) => {
                self.ask = now + schedule::until_asked_again(again);
                let Some(current) = &self.current else { return };
                if self.window != Some(window) {
                    self.renewal = current.validity.renewal_within(&window, fastrand::f64());
                    if let Some(issued) = self.issued {
                        // A CA that is always in a hurry gets no order each second.
                        self.renewal = self.renewal.max(issued + current.validity.lifetime() / 100);
                    }
                    self.window = Some(window);
                    let wait = in_words(self.renewal.duration_since(now).unwrap_or_default());
                    tracing::info!("acme: the CA wants the certificate for {} renewed in {wait}", self.names);
                }
            }
            Ok(None) => self.ask = now + schedule::ASK_AGAIN,
            Err(failure) => {
                self.ask = now + schedule::ASK_AGAIN;
                tracing::debug!("acme: when to renew {} cannot be asked: {failure}", self.names);
            }
        }
    }

    /// `None` if the CA has no such thing, or the certificate no name that it could be asked by.
    async fn renewal_info(&self) -> Result<Option<(Window, Duration)>, Failure> {
        let Some(id) = self.current.as_ref().and_then(|current| current.id.as_ref()) else { return Ok(None) };
        let (http, _) = Http::new(&self.acme)?;
        match account(&self.acme, &self.store, &http).await?.renewal_info(id).await {
            Ok((info, again)) => {
                let window = info.suggested_window;
                Ok(Some((Window { start: window.start.into(), end: window.end.into() }, again)))
            }
            Err(instant_acme::Error::Unsupported(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// As people say it: the two largest units.
fn in_words(time: Duration) -> String {
    let seconds = time.as_secs();
    let units = [
        (seconds / 86_400, "d"),
        (seconds / 3600 % 24, "h"),
        (seconds / 60 % 60, "min"),
        (seconds % 60, "s"),
    ];
    let first = units.iter().position(|(count, _)| *count > 0).unwrap_or(units.len() - 1);
    let shown = units[first..].iter().take(2).filter(|(count, _)| *count > 0 || first == units.len() - 1);
    shown.map(|(count, unit)| format!("{count} {unit}")).collect::<Vec<_>>().join(" ")
}
