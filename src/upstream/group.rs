//! A group of servers as it is written, and the servers that it has at this moment: a name in it stands for all of
//! its addresses, which may change at any time.

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::balance::{Lease, Members};
use super::dns::{Answer, Found, Question, is_localhost};
use crate::config::{Balance, Upstream, UpstreamAddress, UpstreamServer};

/// The most units of weight on the ring of a consistent hash, which has 160 points for each. Addresses and SRV records
/// can make them more than `check` allows: then all are made less in proportion.
const MOST_WEIGHT: u64 = 10_000;

/// How long the servers of a new group that need no look-up wait for those that do.
const OTHERS_WAIT: Duration = Duration::from_secs(1);

/// A group of servers, shared by all workers, so that shares are exact over the whole process.
#[derive(Debug)]
pub struct Group {
    /// As configured.
    pub upstream: Upstream,
    set: Set,
}

#[derive(Debug)]
enum Set {
    /// Servers that are what they are.
    Fixed(Box<Members>),
    /// Some of them are names.
    Resolved(Box<Resolved>),
}

#[derive(Debug)]
struct Resolved {
    current: ArcSwap<Members>,
    /// What is known of each name; nothing: it has not resolved.
    outcomes: Mutex<Vec<(Question, Outcome)>>,
    /// Whether every name has been asked for once.
    is_settled: AtomicBool,
    settled: Notify,
    since: Instant,
}

/// What has become of a question.
type Outcome = Option<Option<Arc<Answer>>>;

/// The servers of a group at one moment.
#[derive(Clone, Debug)]
pub enum Current<'a> {
    /// For good.
    Fixed(&'a Members),
    /// Until they change.
    Now(Arc<Members>),
}

impl Deref for Current<'_> {
    type Target = Members;

    fn deref(&self) -> &Members {
        match self {
            Self::Fixed(members) => members,
            Self::Now(members) => members,
        }
    }
}

impl Group {
    /// A group; `previous` are the groups of the configuration before, from which the load, the failures and the
    /// addresses of servers that stay are taken over.
    pub fn new(upstream: Upstream, previous: &[Arc<Group>]) -> Self {
        let before = previous.iter().find(|group| group.upstream.name == upstream.name);
        let mut questions: Vec<Question> = Vec::new();
        for question in upstream.servers.iter().filter_map(|server| expanded(&server.address)) {
            if !questions.contains(&question) {
                questions.push(question);
            }
        }
        let members = before.map(|group| group.current());
        if questions.is_empty() {
            return Self {
                set: Set::Fixed(Box::new(Members::new(upstream.clone(), members.as_deref()))),
                upstream,
            };
        }
        let outcomes: Vec<(Question, Outcome)> = questions
            .into_iter()
            .map(|question| {
                let known = before.and_then(|group| group.outcome(&question));
                (question, known)
            })
            .collect();
        let members = Members::new(resolved(&upstream, &outcomes), members.as_deref());
        let is_settled = outcomes.iter().all(|(_, outcome)| outcome.is_some());
        let set = Resolved {
            current: ArcSwap::from_pointee(members),
            outcomes: Mutex::new(outcomes),
            is_settled: AtomicBool::new(is_settled),
            settled: Notify::new(),
            since: Instant::now(),
        };
        Self { upstream, set: Set::Resolved(Box::new(set)) }
    }

    /// A group in which names stay names: each is one server, and looked up for each connection.
    pub fn of_names(upstream: Upstream) -> Self {
        Self { set: Set::Fixed(Box::new(Members::new(upstream.clone(), None))), upstream }
    }

    /// Its servers at this moment. Takes no lock.
    pub fn current(&self) -> Current<'_> {
        match &self.set {
            Set::Fixed(members) => Current::Fixed(members),
            Set::Resolved(set) => Current::Now(set.current.load_full()),
        }
    }

    /// Whether these are still its servers.
    pub fn is_current(&self, members: &Current<'_>) -> bool {
        match (&self.set, members) {
            (Set::Resolved(set), Current::Now(members)) => Arc::ptr_eq(&set.current.load(), members),
            _ => true,
        }
    }

    /// The names in it that are to be resolved.
    pub fn questions(&self) -> Vec<Question> {
        match &self.set {
            Set::Fixed(_) => Vec::new(),
            Set::Resolved(set) => set.outcomes().iter().map(|(question, _)| question.clone()).collect(),
        }
    }

    /// The names by which a server is in it, or that it is.
    pub fn questions_of(&self, server: &UpstreamAddress) -> Vec<Question> {
        let (Set::Resolved(set), UpstreamAddress::Ip(address)) = (&self.set, server) else {
            return Question::of(server).into_iter().collect();
        };
        let has =
            |found: &Found| found.ip == address.ip() && found.port.is_none_or(|port| port == address.port());
        let outcomes = set.outcomes();
        let by = outcomes.iter().filter(|(_, outcome)| {
            outcome.as_ref().and_then(Option::as_ref).is_some_and(|answer| answer.found.iter().any(has))
        });
        by.map(|(question, _)| question.clone()).collect()
    }

    /// Whether there is something to choose from: every name in it has been asked for. One that takes its time does
    /// not keep requests from the other servers for long.
    pub fn is_settled(&self) -> bool {
        match &self.set {
            Set::Fixed(_) => true,
            Set::Resolved(set) => {
                set.is_settled.load(Ordering::Acquire)
                    || set.has_others() && set.since.elapsed() >= OTHERS_WAIT
            }
        }
    }

    /// Waits until it is settled: for `resolver_timeout` at most, when somebody resolves its names.
    pub async fn settled(&self) {
        let Set::Resolved(set) = &self.set else { return };
        let settled = set.settled.notified();
        if self.is_settled() {
            return;
        }
        match set.has_others() {
            true => drop(timeout_at(set.since + OTHERS_WAIT, settled).await),
            false => settled.await,
        }
    }

    /// Takes over what a name stands for; `None`: it does not resolve, and what was known before stays.
    pub fn answered(&self, question: &Question, answer: Option<&Arc<Answer>>) {
        let Set::Resolved(set) = &self.set else { return };
        let mut outcomes = set.outcomes();
        let Some((_, outcome)) = outcomes.iter_mut().find(|(known, _)| known == question) else { return };
        let known = outcome.as_ref().and_then(Option::as_ref).map(|answer| &answer.found);
        let is_new = answer.is_some_and(|answer| known != Some(&answer.found));
        match answer {
            Some(answer) => *outcome = Some(Some(Arc::clone(answer))),
            None => drop(outcome.get_or_insert(None)),
        }
        if is_new {
            let before = set.current.load();
            let members = Members::new(resolved(&self.upstream, &outcomes), Some(&before));
            set.current.store(Arc::new(members));
        }
        if outcomes.iter().all(|(_, outcome)| outcome.is_some()) {
            set.is_settled.store(true, Ordering::Release);
            set.settled.notify_waiters();
        }
    }

    /// Takes down that a server has failed a request; whether it will now be left alone. `members` are those that it
    /// was chosen from: the group may have others by now.
    pub(super) fn failed(&self, members: &Current<'_>, lease: &Lease, now: Instant) -> bool {
        match self.place(members, lease) {
            Some((members, index)) => members.failed(index, now),
            None => false,
        }
    }

    /// Takes down that a server has answered.
    pub(super) fn answered_by(&self, members: &Current<'_>, lease: &Lease) {
        if let Some((members, index)) = self.place(members, lease) {
            members.answered(index);
        }
    }

    /// Where a server is among those of this moment; `None`: it is no longer there.
    fn place<'a>(&'a self, members: &Current<'_>, lease: &Lease) -> Option<(Current<'a>, usize)> {
        let current = self.current();
        let index = match self.is_current(members) {
            true => Some(lease.index()),
            false => current.index_of(lease),
        };
        index.map(|index| (current, index))
    }

    fn outcome(&self, question: &Question) -> Outcome {
        let Set::Resolved(set) = &self.set else { return None };
        set.outcomes().iter().find(|(known, _)| known == question).and_then(|(_, outcome)| outcome.clone())
    }
}

impl Resolved {
    /// Whether there is a server that needs no look-up.
    fn has_others(&self) -> bool {
        let servers = &self.current.load().upstream.servers;
        servers.iter().any(|server| !server.is_down && Question::of(&server.address).is_none())
    }

    fn outcomes(&self) -> MutexGuard<'_, Vec<(Question, Outcome)>> {
        self.outcomes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is asked so that a name becomes its addresses. `localhost` is one server, on whichever of the addresses of
/// loopback it listens.
fn expanded(address: &UpstreamAddress) -> Option<Question> {
    Question::of(address).filter(|question| match question {
        Question::Host(host) => !is_localhost(host),
        Question::Service(_) => true,
    })
}

/// The group with the addresses of its names in their place, each with what is written of the name. A name that has
/// none is left out, unless there would be no server.
fn resolved(written: &Upstream, outcomes: &[(Question, Outcome)]) -> Upstream {
    let answer = |question: &Question| {
        let outcome = outcomes.iter().find(|(known, _)| known == question)?;
        outcome.1.as_ref().and_then(Option::as_ref)
    };
    let (mut servers, mut nameless) = (Vec::new(), Vec::new());
    for server in &written.servers {
        match expanded(&server.address) {
            None => servers.push(server.clone()),
            Some(question) => match answer(&question) {
                Some(answer) => servers.extend(answer.found.iter().filter_map(|found| at(server, found))),
                None => nameless.push(server.clone()),
            },
        }
    }
    if servers.iter().all(|server| server.is_down) {
        servers.append(&mut nameless);
    }
    if matches!(written.balance, Balance::Hash { is_consistent: true, .. }) {
        limit_weight(&mut servers);
    }
    Upstream { servers, ..written.clone() }
}

/// A server at one of its addresses, as nginx has it with `resolve` and `service`: a written weight goes before that
/// of the record; of a backup only the records with the best priority are used.
fn at(server: &UpstreamServer, found: &Found) -> Option<UpstreamServer> {
    if server.is_backup && found.is_backup {
        return None;
    }
    let port = match &server.address {
        UpstreamAddress::Name { port, .. } => *port,
        _ => found.port?,
    };
    let address = UpstreamAddress::Ip((found.ip, port).into());
    let weight = if server.weight == 1 { found.weight } else { server.weight };
    let is_backup = server.is_backup || found.is_backup;
    Some(UpstreamServer { name: address.to_string(), address, weight, is_backup, ..server.clone() })
}

fn limit_weight(servers: &mut [UpstreamServer]) {
    let total: u64 = servers.iter().map(|server| u64::from(server.weight)).sum();
    if total > MOST_WEIGHT {
        for server in servers {
            let share = u64::from(server.weight) * MOST_WEIGHT / total;
            server.weight = u32::try_from(share).unwrap_or(1).max(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::choice::Choice;
    use super::*;
    use crate::config::KeepAlive;
    use crate::routing::variables::Template;

    fn upstream(servers: Vec<UpstreamServer>) -> Upstream {
        Upstream {
            name: "app".into(),
            servers,
            balance: Balance::RoundRobin,
            keepalive: KeepAlive::default(),
        }
    }

    fn named(host: &str) -> UpstreamServer {
        let address = UpstreamAddress::Name { host: host.into(), port: 80 };
        UpstreamServer::new(format!("{host}:80"), address)
    }

    fn answer(ips: &[&str]) -> Arc<Answer> {
        let found = ips.iter().map(|ip| Found::at(ip.parse().unwrap())).collect();
        Arc::new(Answer::of(found, Duration::from_secs(60), None).unwrap())
    }

    fn shown(group: &Group) -> String {
        let current = group.current();
        current.upstream.servers.iter().map(|server| server.name.as_str()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_name_is_left_out_until_it_resolves_unless_there_is_nothing_else() {
        let group = Group::new(upstream(vec![named("a"), named("b")]), &[]);
        let ask = |name: &str| Question::Host(name.into());
        assert_eq!((shown(&group).as_str(), group.is_settled()), ("a:80 b:80", false));
        group.answered(&ask("a"), Some(&answer(&["10.0.0.2", "10.0.0.1"])));
        assert_eq!((shown(&group).as_str(), group.is_settled()), ("10.0.0.1:80 10.0.0.2:80", false));
        group.answered(&ask("b"), None);
        assert_eq!((shown(&group).as_str(), group.is_settled()), ("10.0.0.1:80 10.0.0.2:80", true));
        group.answered(&ask("b"), Some(&answer(&["::1"])));
        assert_eq!(shown(&group), "10.0.0.1:80 10.0.0.2:80 [::1]:80");
        group.answered(&ask("a"), None);
        assert_eq!(shown(&group), "10.0.0.1:80 10.0.0.2:80 [::1]:80");
    }

    #[test]
    fn load_and_failures_stay_with_an_address() {
        let group = Group::new(upstream(vec![named("a")]), &[]);
        let question = Question::Host("a".into());
        group.answered(&question, Some(&answer(&["10.0.0.1", "10.0.0.2"])));
        let now = Instant::now();
        let mut choice = Choice::new(&group, Vec::new(), None);
        let lease = choice.choose(now).unwrap();
        assert_eq!(lease.address().to_string(), "10.0.0.1:80");
        // Failures that come when the group has other servers are found, too.
        group.answered(&question, Some(&answer(&["10.0.0.0", "10.0.0.1"])));
        assert!(choice.failed(&lease, now));
        for _ in 0..3 {
            let other = Choice::new(&group, Vec::new(), None).choose(now).unwrap();
            assert_eq!(other.address().to_string(), "10.0.0.0:80");
        }
        assert_eq!(group.current().active(1), 1);
        let kept = Group::new(upstream(vec![named("a")]), &[Arc::new(group)]);
        assert_eq!((shown(&kept).as_str(), kept.current().active(1)), ("10.0.0.0:80 10.0.0.1:80", 1));
    }

    #[test]
    fn load_comes_back_with_an_address() {
        let group = Group::new(upstream(vec![named("a")]), &[]);
        let question = Question::Host("a".into());
        let both = answer(&["10.0.0.1", "10.0.0.2"]);
        group.answered(&question, Some(&both));
        let lease = Choice::new(&group, Vec::new(), None).choose(Instant::now()).unwrap();
        assert_eq!(lease.address().to_string(), "10.0.0.1:80");
        let others = ["10.0.0.2", "10.0.0.3"].map(|ip| answer(&[ip]));
        others.iter().for_each(|other| group.answered(&question, Some(other)));
        // Over a reload, too.
        let group = Group::new(upstream(vec![named("a")]), &[Arc::new(group)]);
        group.answered(&question, Some(&both));
        assert_eq!((group.current().active(0), group.current().active(1)), (1, 0));
        drop(lease);
        assert_eq!(group.current().active(0), 0);
    }

    #[test]
    fn records_have_weights_and_backups_unless_others_are_written() {
        let service = |weight, is_backup| {
            let address = UpstreamAddress::Service("_http._tcp.a".into());
            UpstreamServer { weight, is_backup, ..UpstreamServer::new("a".into(), address) }
        };
        let found = |ip: &str, weight, is_backup| Found {
            ip: ip.parse().unwrap(),
            port: Some(81),
            weight,
            is_backup,
        };
        let both = vec![found("10.0.0.1", 60_000, false), found("10.0.0.2", 30_000, true)];
        let answer = Arc::new(Answer::of(both, Duration::from_secs(60), None).unwrap());
        let of = |server| {
            let key = Template::parse("$uri").unwrap();
            let balance = Balance::Hash { key, is_consistent: true };
            let group = Group::new(Upstream { balance, ..upstream(vec![server]) }, &[]);
            group.answered(&Question::Service("_http._tcp.a".into()), Some(&answer));
            let current = group.current();
            let servers = current.upstream.servers.iter();
            servers.map(|server| (server.name.clone(), server.weight, server.is_backup)).collect::<Vec<_>>()
        };
        let (first, second) = ("10.0.0.1:81".to_owned(), "10.0.0.2:81".to_owned());
        assert_eq!(of(service(1, false)), [(first.clone(), 6666, false), (second.clone(), 3333, true)]);
        assert_eq!(of(service(7, false)), [(first.clone(), 7, false), (second, 7, true)]);
        assert_eq!(of(service(1, true)), [(first, 10_000, true)]);
    }
}
