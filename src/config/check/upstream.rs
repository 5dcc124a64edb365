//! Groups of upstream servers: those with a name, and one for each other address.

use std::ops::Range;
use std::time::Duration;

use serde_spanned::Spanned;

use super::MANY;
use crate::config::error::{Mistake, MistakeKind};
use crate::config::file::{self, Named, TextOr, Value};
use crate::config::units::{self, Wrong};
use crate::config::{Balance, Upstream, UpstreamAddress, UpstreamServer};

/// The groups found so far.
pub(super) struct Upstreams {
    /// Those with a name come first.
    all: Vec<Upstream>,
    named: usize,
    lone_names: bool,
    /// Every address of a server, as often as it is written, and where.
    places: Vec<(UpstreamAddress, Range<usize>)>,
}

impl Upstreams {
    /// Every `[upstream.NAME]`, with mistakes or without: its name is known either way.
    pub(super) fn of(written: &Value<Named<file::Upstream>>, mistakes: &mut Vec<Mistake>) -> Self {
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
            all.push(upstream(name, group, mistakes, &mut places));
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
        self.places.push((address.clone(), span));
        let alone = |group: &Upstream| group.servers.len() == 1 && group.servers[0].address == address;
        if let Some(known) = self.all[self.named..].iter().position(alone) {
            return self.named + known;
        }
        self.all.push(Upstream {
            name: address.to_string(),
            servers: vec![UpstreamServer { address, weight: 1 }],
            balance: Balance::RoundRobin,
            keepalive: KEEPALIVE,
            keepalive_timeout: KEEPALIVE_TIMEOUT,
        });
        self.all.len() - 1
    }

    /// Every address of a server, as often as it is written, and where.
    pub(super) fn places(&self) -> &[(UpstreamAddress, Range<usize>)] {
        &self.places
    }

    /// All of them.
    pub(super) fn finish(self) -> Vec<Upstream> {
        self.all
    }
}

const KEEPALIVE: usize = 32;
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(60);

fn upstream(
    name: &Spanned<String>,
    group: &Spanned<file::Upstream>,
    mistakes: &mut Vec<Mistake>,
    places: &mut Vec<(UpstreamAddress, Range<usize>)>,
) -> Upstream {
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
    let least_conn = file.least_conn.given().is_some_and(|value| *value.get_ref());
    let mut servers = Vec::with_capacity(entries.len());
    for entry in entries {
        let Some(server) = server(entry, mistakes) else { continue };
        places.push((server.address.clone(), entry.span()));
        servers.push(server);
    }
    Upstream {
        name: text.clone(),
        servers,
        balance: if least_conn { Balance::LeastConn } else { Balance::RoundRobin },
        keepalive: keepalive(&file.keepalive, mistakes),
        keepalive_timeout: keepalive_timeout(&file.keepalive_timeout, mistakes),
    }
}

fn keepalive(written: &Value<u64>, mistakes: &mut Vec<Mistake>) -> usize {
    let Some(count) = written.given() else { return KEEPALIVE };
    if *count.get_ref() > 10_000 {
        let message = format!("`keepalive` must be from 0 to 10000, not {}", count.get_ref());
        mistakes.push(Mistake::new(count.span(), message));
        return KEEPALIVE;
    }
    *count.get_ref() as usize
}

fn keepalive_timeout(written: &Value<Duration>, mistakes: &mut Vec<Mistake>) -> Duration {
    let Some(time) = written.given() else { return KEEPALIVE_TIMEOUT };
    if time.get_ref().is_zero() {
        let mistake = Mistake::new(time.span(), "`keepalive_timeout` of an upstream cannot be 0");
        mistakes.push(mistake.help("write `keepalive = 0` to keep no connections"));
    }
    *time.get_ref()
}

fn server(
    entry: &Spanned<TextOr<file::UpstreamServer>>,
    mistakes: &mut Vec<Mistake>,
) -> Option<UpstreamServer> {
    let (text, span, weight) = match entry.get_ref() {
        TextOr::Text(text) => {
            let mut words = text.split_whitespace();
            let address = words.next().unwrap_or_default();
            let mut weight = Some(1);
            for word in words {
                weight = parameter(word, address)
                    .map_err(|(message, help)| {
                        mistakes.push(Mistake::new(entry.span(), message).help(help));
                    })
                    .ok();
            }
            (address, entry.span(), weight?)
        }
        TextOr::Table(table) => {
            if table.address.is_absent() {
                let mistake = Mistake::new(entry.span(), "an `address` is missing");
                let help = "write `{ address = \"10.0.0.1:3000\", weight = 2 }`";
                mistakes.push(mistake.help(help).kind(MistakeKind::Doubtful));
            }
            let address = table.address.given()?;
            let weight = table.weight.given().map_or(1, |weight| *weight.get_ref());
            if let (Some(written), true) = (table.weight.given(), weight == 0 || weight > MOST_WEIGHT) {
                mistakes.push(Mistake::new(written.span(), bad_weight(weight)));
            }
            (address.get_ref().as_str(), address.span(), weight)
        }
    };
    match units::upstream_address(text) {
        Ok(address) => Some(UpstreamServer { address, weight: weight.min(MANY) as u32 }),
        Err(Wrong { message, help }) => {
            let clean = text.trim_end_matches(';');
            let right = clean != text && units::upstream_address(clean).is_ok();
            let help = if right { Some(format!("write `\"{clean}\"`")) } else { help };
            mistakes.push(Mistake::new(span, format!("`server`: {message}")).maybe_help(help));
            None
        }
    }
}

const MOST_WEIGHT: u64 = 65_535;

fn bad_weight(weight: impl std::fmt::Display) -> String {
    format!("`weight` must be from 1 to {MOST_WEIGHT}, not {weight}")
}

/// A parameter of nginx's `server` in an upstream; the result is a weight.
fn parameter(word: &str, address: &str) -> Result<u64, (String, String)> {
    let word = word.trim_end_matches(';');
    let (name, value) = word.split_once('=').unwrap_or((word, ""));
    match name {
        "weight" => {
            let weight = value.parse().ok().filter(|weight| (1..=MOST_WEIGHT).contains(weight));
            weight
                .ok_or_else(|| (bad_weight(format!("`{value}`")), format!("write `\"{address} weight=2\"`")))
        }
        "down" => Err(("`down` is not supported yet".into(), "leave the server out".into())),
        "max_fails" | "fail_timeout" | "backup" | "max_conns" | "slow_start" | "resolve" | "route"
        | "service" => Err((
            format!("`{name}` is not supported yet"),
            "leave it out; a server that cannot be connected to is passed over".into(),
        )),
        _ => Err((
            format!("`{word}` is not known behind the address of a server"),
            format!("several servers are written as an array; a share is written `\"{address} weight=2\"`"),
        )),
    }
}
