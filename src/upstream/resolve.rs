//! What is known of names: asked for on a thread of its own, kept for as long as it is good, and asked for again in
//! time, so that requests wait for DNS only where nothing is known yet.

mod asking;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use asking::Order;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::dns::{Answer, LookupError, Question};
use super::group::Group;
use crate::config::{ResolverRules, UpstreamAddress};

/// The least time that an answer is taken to be good: a TTL of 0 would ask for each request.
pub const SHORTEST: Duration = Duration::from_secs(1);
/// The longest.
pub const LONGEST: Duration = Duration::from_secs(300);
/// How soon a name that could not be resolved is asked for again; each time later, up to the last.
const AGAIN: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(5)];
/// How long an answer that is no longer good is still used while a new one is asked for, where it is a request that
/// asks: names in groups are asked for in time, and used until the answer is there.
const STALE: Duration = Duration::from_secs(30);
/// After a failed connect a name is asked for again at most this often.
const DOUBT: Duration = Duration::from_secs(1);
/// How long an address that took no connection comes after the others of its name.
const LAST_FOR: Duration = Duration::from_secs(10);
/// The most names that are known: far more than a configuration has, but clients may name hosts, too, where a
/// `proxy_pass` has variables.
const MOST: usize = 1024;
/// The most addresses that are known to have gone from the answers of such names.
const MOST_LEFT: usize = 4096;

/// What is known of names, shared by all workers.
#[derive(Debug, Default)]
pub struct Resolver {
    known: Arc<Known>,
    thread: OnceLock<mpsc::UnboundedSender<Order>>,
}

#[derive(Debug, Default)]
struct Known {
    names: Mutex<HashMap<Question, Entry>>,
    /// Addresses that have gone from an answer, and when.
    left: Mutex<HashMap<Left, Instant>>,
}

/// An address, with its port if that was part of the answer.
type Left = (IpAddr, Option<u16>);

#[derive(Debug)]
struct Entry {
    good: Option<Arc<Answer>>,
    /// Why the last question has no answer; nothing if it has.
    error: Option<LookupError>,
    /// How often in a row it had none.
    failures: usize,
    /// When it is to be asked for again.
    again: Instant,
    /// When it was asked for last.
    asked: Option<Instant>,
    is_asking: bool,
    is_doubted: bool,
    /// Whether it stands in a group, and so is asked for in time.
    is_watched: bool,
    waiting: Vec<oneshot::Sender<()>>,
    /// When a request has used it last.
    used: Instant,
    /// How often its addresses were given to those who connect to a name.
    turns: usize,
    /// The addresses that took no connection, and when that was.
    failed: Vec<(IpAddr, Instant)>,
}

impl Resolver {
    /// Resolves the names in these groups, and in no others, by these rules from now on; every name is asked for
    /// once more.
    pub fn watch(&self, rules: &ResolverRules, groups: &[Arc<Group>]) {
        let watched: Vec<_> = groups.iter().filter(|group| !group.questions().is_empty()).collect();
        for group in &watched {
            for question in group.questions() {
                if let Some(answer) = self.known.names().get(&question).and_then(|entry| entry.good.clone()) {
                    group.answered(&question, Some(&answer));
                }
            }
        }
        self.send(Order::Watch(rules.clone(), watched.into_iter().map(Arc::downgrade).collect()));
    }

    /// What a name stands for. When it does not resolve any more, the last answer goes on being used.
    ///
    /// # Errors
    /// The name does not resolve and never did.
    pub async fn lookup(&self, question: &Question) -> io::Result<Arc<Answer>> {
        let asked = self.known.usable(question)?;
        let waits = match asked {
            Usable::Good(answer) => return Ok(answer),
            Usable::Stale(answer) => {
                self.send(Order::Ask(question.clone()));
                return Ok(answer);
            }
            Usable::Wait(waits) => waits,
        };
        self.send(Order::Ask(question.clone()));
        // Dropped without a word only if the thread is not there.
        let _ = waits.await;
        self.known.outcome(question)
    }

    /// The addresses of a server that is a name, at least one. Those of one name take turns, and one that took no
    /// connection comes last for a while.
    ///
    /// # Errors
    /// The name does not resolve and never did.
    pub async fn addresses(&self, server: &UpstreamAddress) -> io::Result<Vec<SocketAddr>> {
        let Some(question) = Question::of(server) else { return Err(io::ErrorKind::InvalidInput.into()) };
        let answer = self.lookup(&question).await?;
        let port = if let UpstreamAddress::Name { port, .. } = server { *port } else { 0 };
        let mut names = self.known.names();
        Ok(names.get_mut(&question).map_or_else(
            || answer.found.iter().map(|found| (found.ip, found.port.unwrap_or(port)).into()).collect(),
            |entry| entry.in_turn(&answer, port, Instant::now()),
        ))
    }

    /// Called when one of several addresses of a name took no connection.
    pub fn put_last(&self, server: &UpstreamAddress, address: SocketAddr) {
        let Some(question) = Question::of(server) else { return };
        if let Some(entry) = self.known.names().get_mut(&question) {
            let now = Instant::now();
            entry.failed.retain(|(other, at)| *other != address.ip() && *at + LAST_FOR > now);
            entry.failed.push((address.ip(), now));
        }
    }

    /// Called after a failed connect: the names that the server comes from are asked for again, at once unless that
    /// was done a moment ago. `true` if new answers are on their way.
    pub fn doubt(&self, questions: &[Question]) -> bool {
        let now = Instant::now();
        let mut is_asked = false;
        for question in questions {
            if let Some(entry) = self.known.names().get_mut(question) {
                let due = entry.asked.map_or(now, |asked| now.max(asked + DOUBT));
                entry.is_doubted = true;
                entry.again = entry.again.min(due);
                is_asked |= entry.is_asking || due <= now;
            }
            // Even if it is too early: the thread goes by when the next name is due.
            self.send(Order::Ask(question.clone()));
        }
        is_asked
    }

    /// Waits for the answers that are on their way.
    pub async fn answers(&self, questions: &[Question]) {
        for question in questions {
            let waits =
                self.known.names().get_mut(question).filter(|entry| entry.is_due(Instant::now())).map(
                    |entry| {
                        let (done, waits) = oneshot::channel();
                        entry.waiting.push(done);
                        waits
                    },
                );
            if let Some(waits) = waits {
                let _ = waits.await;
            }
        }
    }

    /// Whether an address has gone from the answer that it came with after `since`.
    pub fn has_left(&self, address: SocketAddr, since: Instant) -> bool {
        let left = self.known.left();
        let at = |port| left.get(&(address.ip(), port)).is_some_and(|at| *at > since);
        at(None) || at(Some(address.port()))
    }

    fn send(&self, order: Order) {
        let is_needless = matches!(&order, Order::Watch(rules, groups)
            if groups.is_empty() && *rules == ResolverRules::default() && self.thread.get().is_none());
        // A configuration without names needs no thread.
        if is_needless {
            return;
        }
        let thread = self.thread.get_or_init(|| asking::start(Arc::clone(&self.known)));
        if thread.send(order).is_err() {
            tracing::error!("names cannot be resolved: the thread for it has ended");
            self.known.names().clear();
        }
    }
}

/// What there is to be used.
enum Usable {
    Good(Arc<Answer>),
    /// No longer good, but there, while it is asked for again.
    Stale(Arc<Answer>),
    Wait(oneshot::Receiver<()>),
}

impl Known {
    fn names(&self) -> MutexGuard<'_, HashMap<Question, Entry>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn left(&self) -> MutexGuard<'_, HashMap<Left, Instant>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn usable(&self, question: &Question) -> io::Result<Usable> {
        let now = Instant::now();
        let mut names = self.names();
        if !names.contains_key(question) && names.len() >= MOST {
            let idle = names.iter().filter(|(_, entry)| !entry.is_asking && !entry.is_watched);
            let oldest = idle.min_by_key(|(_, entry)| entry.used).map(|(question, _)| question.clone());
            let oldest = oldest.ok_or_else(|| io::Error::other("too many names are being looked up"))?;
            names.remove(&oldest);
        }
        let entry = names.entry(question.clone()).or_insert_with(|| Entry::new(now));
        entry.used = now;
        match (&entry.good, &entry.error) {
            (Some(answer), _) if now < entry.again => return Ok(Usable::Good(Arc::clone(answer))),
            (None, Some(error)) if now < entry.again => return Err(unresolved(question, error)),
            (Some(answer), _) if !entry.is_doubted && now < entry.again + STALE => {
                return Ok(Usable::Stale(Arc::clone(answer)));
            }
            _ => {}
        }
        let (done, waits) = oneshot::channel();
        entry.waiting.push(done);
        Ok(Usable::Wait(waits))
    }

    fn outcome(&self, question: &Question) -> io::Result<Arc<Answer>> {
        let names = self.names();
        let entry = names.get(question);
        match entry.map(|entry| (&entry.good, &entry.error)) {
            Some((Some(answer), _)) => Ok(Arc::clone(answer)),
            Some((None, Some(error))) => Err(unresolved(question, error)),
            _ => Err(unresolved(question, &LookupError::Failed("it cannot be asked for".to_owned()))),
        }
    }

    /// Takes down what has become of a question; what its groups are told.
    fn finish(
        &self,
        question: &Question,
        asked: Result<Answer, LookupError>,
        valid: Option<Duration>,
    ) -> (Option<Arc<Answer>>, Vec<oneshot::Sender<()>>, Option<Told>) {
        let now = Instant::now();
        let mut names = self.names();
        let entry = names.entry(question.clone()).or_insert_with(|| Entry::new(now));
        (entry.is_asking, entry.is_doubted) = (false, false);
        let waiting = std::mem::take(&mut entry.waiting);
        match asked {
            Ok(answer) => {
                let answer = entry.completed(answer);
                entry.again =
                    now + valid.unwrap_or(answer.ttl).clamp(SHORTEST, LONGEST.max(valid.unwrap_or_default()));
                if answer.lacks.is_some() {
                    entry.again = entry.again.min(now + AGAIN[AGAIN.len() - 1]);
                }
                let before = entry.good.take();
                let is_back = entry.error.take().is_some();
                entry.failures = 0;
                let is_other = before.as_ref().is_none_or(|before| before.found != answer.found);
                let answer = Arc::new(answer);
                entry.good = Some(Arc::clone(&answer));
                self.note_left(before.as_deref(), &answer, now, entry.is_watched);
                let told = (is_other || is_back).then(|| Told::Now(Arc::clone(&answer)));
                (Some(answer), waiting, told)
            }
            Err(error) => {
                let is_new = entry.error.as_ref() != Some(&error);
                entry.again = now + AGAIN[entry.failures.min(AGAIN.len() - 1)];
                entry.failures += 1;
                entry.error = Some(error.clone());
                (entry.good.clone(), waiting, is_new.then(|| Told::Fails(error, entry.good.is_some())))
            }
        }
    }

    /// Those of names that clients have made up only while there are few: else their connections stay until they are idle.
    fn note_left(&self, before: Option<&Answer>, answer: &Answer, now: Instant, is_watched: bool) {
        let mut left = self.left();
        // By then idle connections are long closed.
        left.retain(|_, at| now.saturating_duration_since(*at) < Duration::from_secs(24 * 3600));
        for found in before.into_iter().flat_map(|before| &before.found) {
            let stays = answer.found.iter().any(|now| (now.ip, now.port) == (found.ip, found.port));
            if !stays && (is_watched || left.len() < MOST_LEFT) {
                left.insert((found.ip, found.port), now);
            }
        }
    }
}

/// What the log is told of a name.
enum Told {
    Now(Arc<Answer>),
    /// Whether an answer from before goes on being used.
    Fails(LookupError, bool),
}

impl Told {
    fn log(&self, question: &Question) {
        let name = question.name();
        match self {
            Self::Now(answer) => {
                let found = answer.found.iter().map(|found| match found.port {
                    Some(port) => SocketAddr::new(found.ip, port).to_string(),
                    None => found.ip.to_string(),
                });
                let found: Vec<_> = found.collect();
                tracing::info!("`{name}` is {}", found.join(", "));
            }
            Self::Fails(error, true) => {
                tracing::warn!("`{name}` does not resolve any more, its last addresses are used: {error}");
            }
            Self::Fails(error, false) => tracing::warn!("`{name}` does not resolve: {error}"),
        }
    }
}

fn unresolved(question: &Question, error: &LookupError) -> io::Error {
    io::Error::other(format!("`{}` does not resolve: {error}", question.name()))
}

impl Entry {
    fn new(now: Instant) -> Self {
        Self {
            good: None,
            error: None,
            failures: 0,
            again: now,
            asked: None,
            is_asking: false,
            is_doubted: false,
            is_watched: false,
            waiting: Vec::new(),
            used: now,
            turns: 0,
            failed: Vec::new(),
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        self.is_asking || self.again <= now
    }

    /// With the addresses from before of a family that could not be asked for.
    fn completed(&self, answer: Answer) -> Answer {
        let (Some(family), Some(good)) = (answer.lacks, &self.good) else { return answer };
        let kept = good.found.iter().filter(|found| family.has(found.ip)).cloned();
        let found = answer.found.iter().cloned().chain(kept).collect();
        Answer::of(found, answer.ttl, answer.lacks).unwrap_or(answer)
    }

    fn in_turn(&mut self, answer: &Answer, port: u16, now: Instant) -> Vec<SocketAddr> {
        let mut found: Vec<_> = answer.found.iter().collect();
        let turns = self.turns % found.len().max(1);
        found.rotate_left(turns);
        self.turns = self.turns.wrapping_add(1);
        let is_last =
            |ip: IpAddr| self.failed.iter().any(|(failed, at)| *failed == ip && *at + LAST_FOR > now);
        found.sort_by_key(|found| (found.is_backup, is_last(found.ip)));
        found.into_iter().map(|found| (found.ip, found.port.unwrap_or(port)).into()).collect()
    }
}

#[cfg(test)]
mod tests;
