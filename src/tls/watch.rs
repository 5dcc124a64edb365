//! Takes up certificates whose files have changed, without a signal: whoever renews them need not know of us.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use super::identity::{Identity, Source, SourceFault, Stamp, stamp};

/// How often the files are looked at. What has changed is taken up once it has stayed the same for one look: a
/// certificate and its key are two files.
const EVERY: Duration = Duration::from_secs(1);

/// The end of a watch. It ends when this is dropped.
#[derive(Debug)]
pub struct Watch(Sender<Vec<Arc<Identity>>>);

impl Watch {
    /// Begins to watch over these, on a thread of its own that sleeps for good where there is nothing to watch.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(identities: Vec<Arc<Identity>>) -> std::io::Result<Self> {
        let (sender, receiver) = channel();
        let watch = Self(sender);
        std::thread::Builder::new().name("certificates".to_owned()).spawn(move || run(&receiver))?;
        watch.over(identities);
        Ok(watch)
    }

    /// Watches over these instead.
    pub fn over(&self, identities: Vec<Arc<Identity>>) {
        // The thread ends no sooner than this does.
        let _ = self.0.send(identities);
    }
}

fn run(orders: &Receiver<Vec<Arc<Identity>>>) {
    let mut watched: Vec<Watched> = Vec::new();
    loop {
        let order = match watched.is_empty() {
            true => orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
            false => orders.recv_timeout(EVERY),
        };
        match order {
            Ok(identities) => watched = identities.into_iter().filter_map(Watched::new).collect(),
            Err(RecvTimeoutError::Timeout) => watched.iter_mut().for_each(Watched::look),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

struct Watched {
    identity: Arc<Identity>,
    /// What is shown is from here, or was found to be at fault.
    taken: Vec<Stamp>,
    /// As it was at the last look.
    seen: Vec<Stamp>,
}

impl Watched {
    fn new(identity: Arc<Identity>) -> Option<Self> {
        // Not as they are now: they may have changed since they were read.
        let stamps = identity.stamps().to_vec();
        (!stamps.is_empty()).then(|| Self { identity, taken: stamps.clone(), seen: stamps })
    }

    fn look(&mut self) {
        let now: Vec<_> = self.identity.files().map(stamp).collect();
        let is_settled = now == self.seen;
        self.seen = now;
        if !is_settled || self.seen == self.taken {
            return;
        }
        // Whatever comes of it: the same fault is told once.
        self.taken.clone_from(&self.seen);
        match self.identity.renew() {
            Ok(()) => {
                let file = self.identity.files().next().unwrap_or(Path::new(""));
                tracing::info!("a new certificate is in use: {}", file.display());
            }
            Err(faults) => {
                for fault in faults {
                    let fault = told(&self.identity, &fault);
                    tracing::error!("a new certificate is not taken, the old one stays in use: {fault}");
                }
            }
        }
    }
}

/// A fault with the setting that names the file.
fn told(identity: &Identity, fault: &SourceFault) -> String {
    use super::pem::PairFault;
    debug_assert!(matches!(identity.source, Source::Files(..)));
    match fault {
        SourceFault::Pair(_, PairFault::Certificate(fault)) => format!("`ssl_certificate`: {fault}"),
        SourceFault::Pair(_, PairFault::Key(fault)) => format!("`ssl_certificate_key`: {fault}"),
        SourceFault::Staple(fault) => format!("`ssl_stapling_file`: {fault}"),
    }
}
