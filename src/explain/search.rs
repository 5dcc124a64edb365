//! The search of a location, told in the order of nginx's rules.

use super::{Named, shown};
use crate::config::{self, Places};
use crate::routing::location::{Considered, Found, PathMatcher};

/// One search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Search {
    /// The path that a location was searched for.
    pub path: String,
    /// The locations that were asked, and the expressions that were not, in the order of the rules; nested
    /// ones behind the one that they are nested in.
    pub candidates: Vec<Candidate>,
    /// What came out, if nothing of that won.
    pub lost: bool,
}

/// A location in a search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The location.
    pub location: Named,
    /// In how many others it is nested.
    pub depth: usize,
    /// How it did.
    pub outcome: Outcome,
    /// Whether it has won.
    pub won: bool,
}

/// How a location did in a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// It is for this path alone.
    Exact,
    /// The path lacks the slash at its end.
    Slash,
    /// The longest prefix.
    Longest,
    /// The longest prefix, with `^~`.
    Final,
    /// A prefix that is not the longest.
    Shorter,
    /// An expression that matches.
    Matched,
    /// An expression that does not match.
    NoMatch,
    /// An expression that was not asked.
    NotAsked,
}

impl Outcome {
    /// What that means.
    pub fn text(self) -> &'static str {
        match self {
            Self::Exact => "is this very path, which wins over all others",
            Self::Slash => "is this path with a slash behind it: a 301 adds it",
            Self::Longest => "the longest prefix",
            Self::Final => "the longest prefix, and `^~`: no expression is asked",
            Self::Shorter => "a shorter prefix",
            Self::Matched => "the first expression that matches",
            Self::NoMatch => "does not match",
            Self::NotAsked => "is not asked any more",
        }
    }

    /// One word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Slash => "slash",
            Self::Longest => "longest_prefix",
            Self::Final => "final_prefix",
            Self::Shorter => "shorter_prefix",
            Self::Matched => "matched",
            Self::NoMatch => "no_match",
            Self::NotAsked => "not_asked",
        }
    }
}

/// A search while its events come in.
#[derive(Debug)]
pub(super) struct Searching {
    path: String,
    considered: Vec<(usize, Outcome)>,
}

impl Searching {
    pub(super) fn of(path: &[u8]) -> Self {
        Self { path: shown(path), considered: Vec::new() }
    }

    pub(super) fn add(&mut self, considered: &Considered) {
        self.considered.push(match *considered {
            Considered::Exact(location) => (location, Outcome::Exact),
            Considered::Slash(location) => (location, Outcome::Slash),
            Considered::LongestPrefix(location) => (location, Outcome::Longest),
            Considered::ShorterPrefix(location) => (location, Outcome::Shorter),
            Considered::FinalPrefix(location) => (location, Outcome::Final),
            Considered::NoMatch(location) => (location, Outcome::NoMatch),
            Considered::Matched(location) => (location, Outcome::Matched),
        });
    }

    pub(super) fn found(
        mut self,
        found: Found,
        server: &config::Server,
        place: usize,
        places: &Places,
    ) -> Search {
        let parents = places.parents(place);
        self.add_unasked(server, &parents);
        let winner = match found {
            Found::Location(location) | Found::AddSlash(location) => Some(location),
            Found::Nothing => None,
        };
        let mut candidates = Vec::new();
        let mut level = |parent, depth| self.level(&parents, parent, depth, &mut candidates);
        level(None, 0);
        let candidates = candidates.into_iter().map(|(location, depth, outcome)| Candidate {
            location: Named {
                name: server.locations[location].matcher.to_string(),
                line: places.location(place, location),
            },
            depth,
            outcome,
            won: winner == Some(location),
        });
        Search { path: self.path, candidates: candidates.collect(), lost: winner.is_none() }
    }

    /// The expressions of the levels that were searched, as far as it was settled before their turn.
    fn add_unasked(&mut self, server: &config::Server, parents: &[Option<usize>]) {
        let asked: Vec<usize> = self.considered.iter().map(|(location, _)| *location).collect();
        let level_of = |location: usize| parents.get(location).copied().flatten();
        let levels: Vec<Option<usize>> = asked.iter().map(|location| level_of(*location)).collect();
        for (location, written) in server.locations.iter().enumerate().take(parents.len()) {
            let is_regex = matches!(written.matcher, PathMatcher::Regex(_));
            if is_regex && !asked.contains(&location) && levels.contains(&level_of(location)) {
                self.considered.push((location, Outcome::NotAsked));
            }
        }
    }

    /// Those of one level: the exact one, prefixes from the longest, expressions in the order of the file.
    fn level(
        &self,
        parents: &[Option<usize>],
        parent: Option<usize>,
        depth: usize,
        out: &mut Vec<(usize, usize, Outcome)>,
    ) {
        let own = |(location, _): &&(usize, Outcome)| parents.get(*location).copied().flatten() == parent;
        let mut level: Vec<(usize, Outcome)> = self.considered.iter().filter(own).copied().collect();
        // Stable: shorter prefixes come with the longest of them first.
        level.sort_by_key(|(location, outcome)| match outcome {
            Outcome::Exact | Outcome::Slash => (0, 0),
            Outcome::Longest | Outcome::Final => (1, 0),
            Outcome::Shorter => (2, 0),
            Outcome::Matched | Outcome::NoMatch | Outcome::NotAsked => (3, *location),
        });
        for (location, outcome) in level {
            out.push((location, depth, outcome));
            self.level(parents, Some(location), depth + 1, out);
        }
    }
}
