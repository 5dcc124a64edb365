//! The thread that asks for names: those of groups in time, others when they are wanted.

use std::sync::{Arc, Weak};

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::{Entry, Known};
use crate::config::ResolverRules;
use crate::upstream::dns::{Answer, Asker, LookupError, Question};
use crate::upstream::group::Group;

/// What the thread is told.
#[derive(Debug)]
pub(super) enum Order {
    /// Resolve these groups from now on, by these rules.
    Watch(ResolverRules, Vec<Weak<Group>>),
    /// Ask for a name.
    Ask(Question),
}

/// Starts the thread that asks. It ends with the process, or when nobody can order anything any more.
pub(super) fn start(known: Arc<Known>) -> mpsc::UnboundedSender<Order> {
    let (orders, received) = mpsc::unbounded_channel();
    let run = move || match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(Asking::new(known).obey(received)),
        Err(error) => tracing::error!(%error, "names cannot be resolved"),
    };
    if let Err(error) = std::thread::Builder::new().name("names".into()).spawn(run) {
        tracing::error!(%error, "names cannot be resolved");
    }
    orders
}

/// The work of the thread.
struct Asking {
    known: Arc<Known>,
    asker: Arc<Asker>,
    rules: ResolverRules,
    groups: Vec<Weak<Group>>,
    /// The names in them.
    watched: Vec<Question>,
    running: JoinSet<(Question, Result<Answer, LookupError>)>,
}

impl Asking {
    fn new(known: Arc<Known>) -> Self {
        let rules = ResolverRules::default();
        let asker = Arc::new(Asker::new(rules.clone()));
        Self { known, asker, rules, groups: Vec::new(), watched: Vec::new(), running: JoinSet::new() }
    }

    async fn obey(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        loop {
            let next = self.next_due();
            let due = async {
                match next {
                    Some(next) => sleep_until(next).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                order = orders.recv() => match order {
                    Some(Order::Ask(question)) => self.ask_if_due(&question),
                    Some(Order::Watch(rules, groups)) => self.watch(rules, groups),
                    None => return,
                },
                Some(done) = self.running.join_next() => match done {
                    Ok((question, asked)) => self.finish(&question, asked),
                    Err(error) if error.is_cancelled() => {}
                    Err(error) => tracing::error!(%error, "the look-up of a name has failed"),
                },
                () = due => {
                    for question in self.watched.clone() {
                        self.ask_if_due(&question);
                    }
                }
            }
        }
    }

    fn watch(&mut self, rules: ResolverRules, groups: Vec<Weak<Group>>) {
        if self.rules != rules {
            self.asker = Arc::new(Asker::new(rules.clone()));
            self.rules = rules;
            self.begin_anew();
        }
        self.groups = groups;
        let live: Vec<_> = self.groups.iter().filter_map(Weak::upgrade).collect();
        self.watched.clear();
        for question in live.iter().flat_map(|group| group.questions()) {
            if !self.watched.contains(&question) {
                self.watched.push(question);
            }
        }
        self.known.names().values_mut().for_each(|entry| entry.is_watched = false);
        for question in self.watched.clone() {
            self.begin(&question);
            if let Some(entry) = self.known.names().get_mut(&question) {
                entry.is_watched = true;
            }
        }
    }

    /// Gives up what is being asked, and asks for it by the new rules.
    fn begin_anew(&mut self) {
        self.running.abort_all();
        let asking: Vec<_> = {
            let mut names = self.known.names();
            let asking = names.iter_mut().filter(|(_, entry)| entry.is_asking);
            asking.map(|(question, entry)| (entry.is_asking = false, question.clone()).1).collect()
        };
        asking.iter().for_each(|question| self.begin(question));
    }

    /// When the first of the names in groups is to be asked for again.
    fn next_due(&self) -> Option<Instant> {
        let names = self.known.names();
        let due = |question| names.get(question).filter(|entry| !entry.is_asking).map(|entry| entry.again);
        self.watched.iter().filter_map(due).min()
    }

    fn ask_if_due(&mut self, question: &Question) {
        let now = Instant::now();
        let is_due = self.known.names().get(question).is_some_and(|entry| entry.again <= now);
        if is_due {
            self.begin(question);
        }
    }

    fn begin(&mut self, question: &Question) {
        let now = Instant::now();
        {
            let mut names = self.known.names();
            let entry = names.entry(question.clone()).or_insert_with(|| Entry::new(now));
            if entry.is_asking {
                return;
            }
            (entry.is_asking, entry.asked) = (true, Some(now));
        }
        let (asker, question) = (Arc::clone(&self.asker), question.clone());
        self.running.spawn(async move {
            let asked = asker.ask(&question).await;
            (question, asked)
        });
    }

    fn finish(&self, question: &Question, asked: Result<Answer, LookupError>) {
        let (answer, waiting, told) = self.known.finish(question, asked, self.rules.valid);
        for group in self.groups.iter().filter_map(Weak::upgrade) {
            group.answered(question, answer.as_ref());
        }
        // What the log says holds from the next request on.
        let is_watched = self.watched.contains(question);
        // Of names that clients make up, each request's own line tells.
        if let Some(told) = told.filter(|_| is_watched) {
            told.log(question);
        }
        // When the groups know: those who wait go on with their new servers.
        for done in waiting {
            let _ = done.send(());
        }
    }
}
