//! Groups of upstream servers: those with a name, and one for each other address.

use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use serde_spanned::Spanned;

use super::MANY;
use super::headers::bad_template;
use super::names::Names;
use super::upstream_server::servers;
use crate::config::error::{Mistake, MistakeKind};
use crate::config::file::{self, FlagOr, Named, Value};
use crate::config::read::nearest;
use crate::config::units::host_and_port;
use crate::config::{Balance, KeepAlive, Upstream, UpstreamAddress, UpstreamServer};

/// The groups found so far.
pub(super) struct Upstreams {
    /// Those with a name come first.
    all: Vec<Upstream>,
    named: usize,
    lone_names: bool,
    /// Every address of a server, as often as it is written, and where.
    places: Vec<Place>,
}

/// An address of a server, and where it is written.
pub(super) struct Place {
    /// The place of its group.
    pub(super) group: usize,
    /// The address.
    pub(super) address: UpstreamAddress,
    /// Where it is written.
    pub(super) span: Range<usize>,
}

impl Upstreams {
    /// Every `[upstream.NAME]`, with mistakes or without: its name is known either way.
    pub(super) fn of(
        written: &Value<Named<file::Upstream>>,
        names: &mut Names,
        mistakes: &mut Vec<Mistake>,
    ) -> Self {
        let groups = written.given().map(|groups| groups.get_ref().0.as_slice()).unwrap_or_default();
        let mut all: Vec<Upstream> = Vec::with_capacity(groups.len());
        let mut places = Vec::new();
        for (name, group) in groups {
            if let Some(first) = all.iter().position(|other| other.name.eq_ignore_ascii_case(name.get_ref()))
            {
                let message =
                    format!("there are two upstreams `{}`: upper and lower case are one", name.get_ref());
                let mistake = Mistake::new(name.span(), message).also(groups[first].0.span(), "first here");
                mistakes.push(mistake.label("again").help("give one of them another name"));
            }
            let (upstream, used) = upstream(name, group, names, mistakes);
            let group = all.len();
            places.extend(used.into_iter().map(|(address, span)| Place { group, address, span }));
            all.push(upstream);
        }
        Self { named: all.len(), all, lone_names: false, places }
    }

    /// From here on a host name without a dot and a port needs no explanation: there is no file, so
    /// there are no groups that it could have been meant for.
    pub(super) fn accept_lone_names(&mut self) {
        self.lone_names = true;
    }

    /// Whether `http://name` may be a host.
    pub(super) fn lone_names_are_hosts(&self) -> bool {
        self.lone_names
    }

    /// The place of a named group; names are compared without regard to case, as hosts are.
    pub(super) fn group(&self, name: &str) -> Option<usize> {
        self.all[..self.named].iter().position(|group| group.name.eq_ignore_ascii_case(name))
    }

    /// The names of the groups.
    pub(super) fn names(&self) -> Vec<&str> {
        self.all[..self.named].iter().map(|group| group.name.as_str()).collect()
    }

    /// The group of a single address: locations with the same address share it, and so its
    /// connections.
    pub(super) fn single(&mut self, address: UpstreamAddress, span: Range<usize>) -> usize {
        let alone = |group: &Upstream| group.servers.len() == 1 && group.servers[0].address == address;
        let known = self.all[self.named..].iter().position(alone).map(|known| self.named + known);
        let group = known.unwrap_or(self.all.len());
        self.places.push(Place { group, address: address.clone(), span });
        if known.is_some() {
            return group;
        }
        self.all.push(Upstream {
            name: address.to_string(),
            servers: vec![UpstreamServer::new(address.to_string(), address)],
            balance: Balance::RoundRobin,
            keepalive: KeepAlive::default(),
        });
        group
    }

    /// Every address of a server, as often as it is written, and where.
    pub(super) fn places(&self) -> &[Place] {
        &self.places
    }

    /// The servers of a group of which no port is written, each with its place.
    pub(super) fn without_port(&self, group: usize) -> Vec<(String, Range<usize>)> {
        let servers = &self.all[group].servers;
        let found = self.places.iter().filter(|place| place.group == group).filter_map(|place| {
            let server = servers.iter().find(|server| server.address == place.address)?;
            let has_none = match &server.address {
                UpstreamAddress::Unix(_) | UpstreamAddress::Service(_) => false,
                UpstreamAddress::Ip(_) | UpstreamAddress::Name { .. } => {
                    host_and_port(&server.name, false).is_ok_and(|(_, port)| port.is_none())
                }
            };
            has_none.then(|| (server.name.clone(), place.span.clone()))
        });
        found.collect()
    }

    /// All of them.
    pub(super) fn finish(self) -> Vec<Upstream> {
        self.all
    }
}

fn upstream(
    name: &Spanned<String>,
    group: &Spanned<file::Upstream>,
    names: &mut Names,
    mistakes: &mut Vec<Mistake>,
) -> (Upstream, Vec<(UpstreamAddress, Range<usize>)>) {
    let file = group.get_ref();
    let text = name.get_ref();
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.is_empty() || !text.chars().all(known) {
        let mistake = Mistake::new(name.span(), format!("`{text}` cannot be the name of an upstream"));
        mistakes.push(mistake.help("a name has letters, digits, `-`, `_` and `.`"));
    }
    let entries = file.server.given().map(|servers| servers.get_ref().0.as_slice()).unwrap_or_default();
    if file.server.is_absent() || file.server.given().is_some() && entries.is_empty() {
        let mistake =
            Mistake::new(group.span(), format!("the upstream `{text}` has no `server`")).label("in this one");
        mistakes.push(
            mistake
                .help("write `server = [\"10.0.0.1:3000\", \"10.0.0.2:3000\"]`")
                .kind(MistakeKind::Doubtful),
        );
    }
    let servers = servers(entries, mistakes);
    let used = servers.iter().filter(|(server, _)| !server.is_down);
    let used: Vec<_> = used.map(|(server, span)| (server.address.clone(), span.clone())).collect();
    let balance = balance(file, &servers, names, mistakes);
    let mut servers: Vec<_> = servers.into_iter().map(|(server, _)| server).collect();
    if !servers.is_empty() && servers.iter().all(|server| server.is_backup) {
        let message = match servers.len() {
            1 => "`backup` of the only server: there is none that it could stand in for".to_owned(),
            _ => format!("every server of the upstream `{text}` is a `backup`: there is nothing to back up"),
        };
        let span = file.server.given().map_or(group.span(), Spanned::span);
        let help = "write the server that it is a backup for, or leave `backup` out of at least one of them; \
                    as it is all of them are asked like any other";
        mistakes.push(Mistake::warning(span, message).help(help));
        servers.iter_mut().for_each(|server| server.is_backup = false);
    }
    (Upstream { name: text.clone(), servers, balance, keepalive: kept(file, mistakes) }, used)
}

/// The method, and what does not go together with it.
fn balance(
    file: &file::Upstream,
    servers: &[(UpstreamServer, Range<usize>)],
    names: &mut Names,
    mistakes: &mut Vec<Mistake>,
) -> Balance {
    let on = |flag: &Value<bool>| flag.given().filter(|flag| *flag.get_ref()).map(Spanned::span);
    let random = file.random.given().filter(|random| *random.get_ref() != FlagOr::Flag(false));
    let mut methods = vec![
        ("least_conn", on(&file.least_conn), Balance::LeastConn),
        ("ip_hash", on(&file.ip_hash), Balance::IpHash),
    ];
    if let Some(hash) = file.hash.given() {
        methods.extend(hash_by(hash, names, mistakes).map(|balance| ("hash", Some(hash.span()), balance)));
    }
    if let Some(random) = random {
        methods.extend(random_by(random, mistakes).map(|balance| ("random", Some(random.span()), balance)));
    }
    let mut chosen = methods.into_iter().filter_map(|(name, span, balance)| Some((name, span?, balance)));
    let Some((name, span, balance)) = chosen.next() else { return Balance::RoundRobin };
    for (other, place, _) in chosen {
        let message = format!("an upstream has one way to choose its servers, not `{name}` and `{other}`");
        let mistake = Mistake::new(place, message).label("one way").also(span.clone(), "another way");
        mistakes.push(mistake.help("delete one of them"));
    }
    if let Some((_, place)) = servers.iter().find(|(server, _)| server.is_backup && !balance.knows_backups())
    {
        let message = format!("with `{name}` there are no `backup` servers, as in nginx");
        let mistake =
            Mistake::new(place.clone(), message).label("a backup").also(span.clone(), "chosen by this");
        mistakes.push(mistake.help("leave `backup` out: a server that fails is passed over anyway"));
    }
    let total: u64 = servers.iter().map(|(server, _)| u64::from(server.weight)).sum();
    if matches!(balance, Balance::Hash { is_consistent: true, .. }) && total > MOST_ON_A_RING {
        let message =
            format!("the weights of a consistent hash are at most {MOST_ON_A_RING} in all, not {total}");
        mistakes.push(Mistake::new(span, message).help("divide all of them by the same number"));
    }
    balance
}

/// Each unit of weight is 160 points on the ring.
const MOST_ON_A_RING: u64 = 10_000;

/// What may stand behind the key of `hash`.
const METHODS: [&str; 2] = ["consistent", "rendezvous"];

/// `"KEY"`, `"KEY consistent"` or `"KEY rendezvous"`.
fn hash_by(written: &Spanned<String>, names: &mut Names, mistakes: &mut Vec<Mistake>) -> Option<Balance> {
    let text = written.get_ref().trim();
    let (before, last) = text.rsplit_once(char::is_whitespace).unwrap_or(("", text));
    let (key, method) = if METHODS.contains(&last) { (before.trim_end(), last) } else { (text, "") };
    if key.is_empty() {
        let mistake = Mistake::new(written.span(), "`hash` has no key to choose a server by");
        let right = if method.is_empty() { "consistent" } else { method };
        mistakes.push(mistake.help(format!("write `hash = \"$request_uri {right}\"`")));
        return None;
    }
    if let Some((key, other)) =
        key.rsplit_once(char::is_whitespace).filter(|(_, word)| METHODS.contains(word))
    {
        let message = format!("`hash` has one method behind its key, not `{other}` and `{method}`");
        let help = format!("write `hash = \"{} {method}\"`", key.trim_end());
        mistakes.push(Mistake::new(written.span(), message).help(help));
        return None;
    }
    if method.is_empty() && !before.is_empty() && last.chars().all(|c| c.is_ascii_alphabetic()) {
        let key = before.trim_end();
        let mistake = Mistake::new(written.span(), format!("`hash` does not know `{last}` behind its key"));
        mistakes.push(mistake.help(match nearest(last, &METHODS) {
            Some(method) => format!("write `hash = \"{key} {method}\"`"),
            None => format!("write `hash = \"{key}\"`, or with `consistent` or `rendezvous` behind the key"),
        }));
        return None;
    }
    match names.template(&Spanned::new(written.span(), key.to_owned())) {
        Ok(key) if method == "rendezvous" => Some(Balance::Rendezvous { key }),
        Ok(key) => Some(Balance::Hash { key, is_consistent: method == "consistent" }),
        Err(error) => {
            mistakes.push(bad_template(written, &error));
            None
        }
    }
}

/// `true`, `"two"` or `"two least_conn"`.
fn random_by(written: &Spanned<FlagOr>, mistakes: &mut Vec<Mistake>) -> Option<Balance> {
    match written.get_ref() {
        FlagOr::Flag(_) => Some(Balance::Random),
        FlagOr::Text(text) if matches!(text.as_str(), "two" | "two least_conn") => Some(Balance::RandomTwo),
        FlagOr::Text(text) => {
            let mistake = Mistake::new(written.span(), format!("`random` cannot be `{text}`"));
            mistakes.push(mistake.help("write `random = true` or `random = \"two least_conn\"`"));
            None
        }
    }
}

const NO_CONNECTIONS: &str = "write `keepalive = 0` to keep no connections";

/// Which connections are kept.
fn kept(file: &file::Upstream, mistakes: &mut Vec<Mistake>) -> KeepAlive {
    let default = KeepAlive::default();
    let time = |key: &str, written: &Value<Duration>, mistakes: &mut Vec<Mistake>| {
        let time = written.given()?;
        if time.get_ref().is_zero() {
            let mistake = Mistake::new(time.span(), format!("`{key}` of an upstream cannot be 0"));
            mistakes.push(mistake.help(NO_CONNECTIONS));
        }
        Some(*time.get_ref())
    };
    let mut count = |key: &str, written: &Value<u64>, range: RangeInclusive<u64>| {
        let count = written.given()?;
        if !range.contains(count.get_ref()) {
            let (first, last) = (range.start(), range.end());
            let message = format!("`{key}` must be from {first} to {last}, not {}", count.get_ref());
            let none = (*count.get_ref() == 0).then_some(NO_CONNECTIONS);
            mistakes.push(Mistake::new(count.span(), message).maybe_help(none));
            return None;
        }
        Some(*count.get_ref())
    };
    KeepAlive {
        connections: count("keepalive", &file.keepalive, 0..=10_000)
            .map_or(default.connections, |count| count as usize),
        requests: count("keepalive_requests", &file.keepalive_requests, 1..=MANY).unwrap_or(default.requests),
        timeout: time("keepalive_timeout", &file.keepalive_timeout, mistakes).unwrap_or(default.timeout),
        time: time("keepalive_time", &file.keepalive_time, mistakes).unwrap_or(default.time),
    }
}
