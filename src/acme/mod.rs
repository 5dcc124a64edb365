//! ACME (RFC 8555): orders certificates for `tls = "acme"`, and renews them, on a thread of its own.

pub mod account;
pub mod certificate;
pub mod challenges;
pub mod error;
pub mod http;
pub mod order;
pub mod schedule;
pub mod served;
pub mod store;
mod tend;

use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::JoinHandle;

use crate::config::{Acme, CertificateNames, Config, ListenAddress};
use crate::shared::Shared;
use crate::upstream::resolve::Resolver;
use challenges::Challenges;
use served::Served;
use tend::Tender;

/// How many certificates are ordered at a time.
const AT_ONCE: usize = 4;

/// The thread that orders certificates. Dropping it ends the thread; an order at hand is given up.
#[derive(Debug)]
pub struct Orders {
    plans: mpsc::UnboundedSender<Plan>,
}

/// What is wanted from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Plan {
    acme: Option<Acme>,
    /// Every listener: whether it speaks TLS, and its port.
    listeners: Vec<(bool, u16)>,
}

impl Plan {
    fn of(config: &Config) -> Self {
        let port = |address: &ListenAddress| match address {
            ListenAddress::Tcp(address) => address.port(),
            // What stands in front of it may forward anything, and what systemd passes may be on any port.
            ListenAddress::Unix(_) | ListenAddress::Named(_) => 0,
        };
        let listeners = config.listeners.iter().map(|listener| (listener.tls, port(&listener.address)));
        Self { acme: config.acme.clone(), listeners: listeners.collect() }
    }
}

impl Orders {
    /// Starts the thread, if a certificate is wanted, and tends those of this configuration; what has failed
    /// before a restart waits for its time.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(config: &Config, shared: &Shared) -> io::Result<Option<Self>> {
        if config.acme.is_none() {
            return Ok(None);
        }
        let (served, challenges) = (Arc::clone(&shared.certificates), Arc::clone(&shared.challenges));
        let resolver = Arc::clone(&shared.resolver);
        let (plans, received) = mpsc::unbounded_channel();
        std::thread::Builder::new().name("acme".into()).spawn(move || match Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())
        {
            Ok(runtime) => {
                runtime.block_on(obey(received, served, challenges, resolver));
            }
            Err(error) => tracing::error!(%error, "certificates cannot be ordered"),
        })?;
        let orders = Self { plans };
        orders.tend(config);
        Ok(Some(orders))
    }

    /// After a reload: tends the certificates of this configuration from now on, and no others. What has failed
    /// before is tried again at once.
    pub fn tend(&self, config: &Config) {
        // Nobody is there any more if the thread has panicked, which has been told.
        let _ = self.plans.send(Plan::of(config));
    }
}

/// A certificate that is looked after. Dropping it ends that.
struct Tended {
    /// Notified when what has failed is to be tried again.
    again: Rc<Notify>,
    task: JoinHandle<()>,
}

impl Drop for Tended {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Does as it is told until nobody is left to tell it anything.
async fn obey(
    mut plans: mpsc::UnboundedReceiver<Plan>,
    served: Arc<Served>,
    challenges: Arc<Challenges>,
    resolver: Arc<Resolver>,
) {
    let turns = Rc::new(Semaphore::new(AT_ONCE));
    let mut tended: HashMap<CertificateNames, Tended> = HashMap::new();
    let mut settings = None;
    let mut has_begun = false;
    while let Some(Plan { acme, listeners }) = plans.recv().await {
        let is_reload = std::mem::replace(&mut has_begun, true);
        let wanted = acme.as_ref().map_or(&[][..], |acme| &acme.certificates);
        let now =
            acme.as_ref().map(|acme| (Acme { certificates: Vec::new(), ..acme.clone() }, listeners.clone()));
        if settings != now {
            tended.clear();
            settings = now;
        }
        tended.retain(|names, _| wanted.contains(names));
        for kept in tended.values() {
            kept.again.notify_one();
        }
        let Some(acme) = acme.clone().map(Arc::new) else { continue };
        for names in wanted {
            // Prepared before the plan was sent.
            let Some(identity) = served.identity(names) else { continue };
            tended.entry(names.clone()).or_insert_with(|| {
                let again = Rc::new(Notify::new());
                let acme = Arc::clone(&acme);
                let (challenges, resolver) = (Arc::clone(&challenges), Arc::clone(&resolver));
                let mut tender =
                    Tender::new(acme, names.clone(), listeners.clone(), identity, challenges, resolver);
                if is_reload {
                    tender.hurry();
                }
                let task = tokio::task::spawn_local(tender.tend(Rc::clone(&again), Rc::clone(&turns)));
                Tended { again, task }
            });
        }
    }
}
