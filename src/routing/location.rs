//! Which location answers for a path: nginx's rules, exact first, then the longest prefix, then the regular
//! expressions in their order.

use std::collections::HashMap;

use super::regex::{Regex, Slots};

/// How a location says which paths are its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathMatcher {
    /// `= /path`: this path and no other.
    Exact(String),
    /// `/path`: every path that starts with it; the longest one wins.
    Prefix(String),
    /// `^~ /path`: the same, and regular expressions are not asked.
    FinalPrefix(String),
    /// `~ regex`, or `~* regex` without regard to case.
    Regex(Regex),
    /// `@name`: no path; only other locations lead here.
    Named(String),
}

impl PathMatcher {
    /// The text of the path without its modifier; that of the expression, or the name with its `@`.
    pub fn path(&self) -> &str {
        match self {
            Self::Exact(path) | Self::Prefix(path) | Self::FinalPrefix(path) | Self::Named(path) => path,
            Self::Regex(regex) => regex.as_str(),
        }
    }

    /// The path that every path of the location starts with; `None` if it is found by other means.
    pub fn prefix(&self) -> Option<&str> {
        match self {
            Self::Exact(path) | Self::Prefix(path) | Self::FinalPrefix(path) => Some(path),
            Self::Regex(_) | Self::Named(_) => None,
        }
    }

    /// Whether two locations could not stand beside each other, as nginx sees it.
    pub fn collides(&self, other: &Self) -> bool {
        use PathMatcher::{Exact, FinalPrefix, Named, Prefix};
        match (self, other) {
            (Exact(a), Exact(b)) | (Named(a), Named(b)) => a == b,
            (Prefix(a) | FinalPrefix(a), Prefix(b) | FinalPrefix(b)) => a == b,
            // The same expression twice is allowed: the first one wins.
            _ => false,
        }
    }
}

impl std::fmt::Display for PathMatcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let modifier = match self {
            Self::Exact(_) => "= ",
            Self::FinalPrefix(_) => "^~ ",
            Self::Regex(regex) if regex.is_caseless() => "~* ",
            Self::Regex(_) => "~ ",
            Self::Prefix(_) | Self::Named(_) => "",
        };
        write!(f, "{modifier}{}", self.path())
    }
}

/// A location as the search sees it.
#[derive(Debug)]
pub struct Candidate<'a> {
    /// Its place in the server's list of locations.
    pub location: usize,
    /// Which paths are its own.
    pub matcher: &'a PathMatcher,
    /// The location that it is nested in, by its place in that list.
    pub parent: Option<usize>,
    /// Whether a path that only lacks the slash at the end of the matcher is sent there by a 301, as nginx
    /// does for locations with `proxy_pass`.
    pub adds_slash: bool,
}

/// The locations of one server, or those nested in one location, ready to be searched. Finding takes
/// O(log n) comparisons in the number of prefixes, however many there are, and one match for each regular
/// expression before the one that matches.
#[derive(Debug, Default)]
pub struct Locations {
    exact: HashMap<Vec<u8>, usize>,
    /// Sorted by path.
    prefixes: Vec<Prefix>,
    /// In the order of the file.
    regexes: Vec<(Regex, usize)>,
    /// Paths with a slash at their end that are given one.
    slashes: HashMap<Vec<u8>, usize>,
    /// Those nested in a location.
    nested: HashMap<usize, Locations>,
}

#[derive(Debug)]
struct Prefix {
    path: Vec<u8>,
    location: usize,
    /// `^~`
    is_final: bool,
    /// The longest other prefix that this one starts with.
    parent: Option<usize>,
}

/// What the search came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// This location answers.
    Location(usize),
    /// The client is sent to the path of this location, which has a slash at its end.
    AddSlash(usize),
    /// No location has the path.
    Nothing,
}

/// What one level of the search came to.
enum Level {
    /// It is settled.
    Settled(Found),
    /// A prefix was found, and regular expressions further out may still win.
    Prefix(usize),
    Nothing,
}

/// What the search did, for those who want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Considered {
    /// `=` matched: nothing else is looked at.
    Exact(usize),
    /// The path only lacks the slash.
    Slash(usize),
    /// The longest prefix; regular expressions may still win.
    LongestPrefix(usize),
    /// A prefix that a longer one has beaten.
    ShorterPrefix(usize),
    /// `^~`: regular expressions are not asked.
    FinalPrefix(usize),
    /// An expression that did not match.
    NoMatch(usize),
    /// An expression that matched.
    Matched(usize),
}

impl Locations {
    /// Takes the locations in the order of the file. Of two equal matchers the first one is kept: the
    /// configuration has refused the second. Named locations are not searched.
    pub fn new(candidates: &[Candidate<'_>]) -> Self {
        Self::level(candidates, None)
    }

    fn level(candidates: &[Candidate<'_>], parent: Option<usize>) -> Self {
        let mut level = Self::default();
        for candidate in candidates.iter().filter(|candidate| candidate.parent == parent) {
            level.add(candidate);
            if candidates.iter().any(|inner| inner.parent == Some(candidate.location)) {
                level.nested.insert(candidate.location, Self::level(candidates, Some(candidate.location)));
            }
        }
        level.link();
        level
    }

    fn add(&mut self, candidate: &Candidate<'_>) {
        let location = candidate.location;
        let path = candidate.matcher.path().as_bytes().to_vec();
        if candidate.adds_slash
            && candidate.matcher.prefix().is_some()
            && path.len() > 1
            && path.ends_with(b"/")
        {
            self.slashes.entry(path[..path.len() - 1].to_vec()).or_insert(location);
        }
        match candidate.matcher {
            PathMatcher::Exact(_) => {
                self.exact.entry(path).or_insert(location);
            }
            PathMatcher::Prefix(_) | PathMatcher::FinalPrefix(_) => {
                let is_final = matches!(candidate.matcher, PathMatcher::FinalPrefix(_));
                self.prefixes.push(Prefix { path, location, is_final, parent: None });
            }
            PathMatcher::Regex(regex) => self.regexes.push((regex.clone(), location)),
            PathMatcher::Named(_) => {}
        }
    }

    fn link(&mut self) {
        self.prefixes.sort_by(|a, b| a.path.cmp(&b.path));
        self.prefixes.dedup_by(|later, first| later.path == first.path);
        // In sorted order the prefixes of a path stand before it, each within the one before.
        let mut open: Vec<usize> = Vec::new();
        for index in 0..self.prefixes.len() {
            while let Some(&top) = open.last() {
                if self.prefixes[index].path.starts_with(&self.prefixes[top].path) {
                    break;
                }
                open.pop();
            }
            self.prefixes[index].parent = open.last().copied();
            open.push(index);
        }
    }

    /// The location for a normalised path. The groups of a regular expression that matched are left in
    /// `slots`; `tell` hears of every step.
    pub fn find(&self, path: &[u8], slots: &Slots, tell: &mut dyn FnMut(Considered)) -> Found {
        match self.search(path, slots, tell) {
            Level::Settled(found) => found,
            Level::Prefix(location) => Found::Location(location),
            Level::Nothing => Found::Nothing,
        }
    }

    fn search(&self, path: &[u8], slots: &Slots, tell: &mut dyn FnMut(Considered)) -> Level {
        if let Some(&location) = self.exact.get(path) {
            tell(Considered::Exact(location));
            return Level::Settled(Found::Location(location));
        }
        let prefix = self.longest_prefix(path);
        let is_whole = prefix.is_some_and(|index| self.prefixes[index].path.len() == path.len());
        if let Some(&location) = self.slashes.get(path).filter(|_| !is_whole) {
            tell(Considered::Slash(location));
            return Level::Settled(Found::AddSlash(location));
        }
        let mut best = None;
        let mut is_final = false;
        if let Some(index) = prefix {
            let location = self.tell_prefixes(index, tell);
            is_final = self.prefixes[index].is_final;
            best = Some(location);
            match self.inside(location, path, slots, tell) {
                Level::Settled(found) => return Level::Settled(found),
                Level::Prefix(inner) => best = Some(inner),
                Level::Nothing => {}
            }
        }
        if !is_final {
            for (regex, location) in &self.regexes {
                if !slots.matches(regex, path) {
                    tell(Considered::NoMatch(*location));
                    continue;
                }
                tell(Considered::Matched(*location));
                return Level::Settled(match self.inside(*location, path, slots, tell) {
                    Level::Settled(found) => found,
                    Level::Prefix(inner) => Found::Location(inner),
                    Level::Nothing => Found::Location(*location),
                });
            }
        }
        best.map_or(Level::Nothing, Level::Prefix)
    }

    fn inside(&self, location: usize, path: &[u8], slots: &Slots, tell: &mut dyn FnMut(Considered)) -> Level {
        self.nested.get(&location).map_or(Level::Nothing, |nested| nested.search(path, slots, tell))
    }

    fn tell_prefixes(&self, index: usize, tell: &mut dyn FnMut(Considered)) -> usize {
        let best = &self.prefixes[index];
        let mut shorter = best.parent;
        while let Some(index) = shorter {
            tell(Considered::ShorterPrefix(self.prefixes[index].location));
            shorter = self.prefixes[index].parent;
        }
        tell(match best.is_final {
            true => Considered::FinalPrefix(best.location),
            false => Considered::LongestPrefix(best.location),
        });
        best.location
    }

    /// The place in `prefixes`.
    fn longest_prefix(&self, path: &[u8]) -> Option<usize> {
        // Whatever prefix of `path` is in the list, the greatest entry that is not greater than
        // `path` starts with it: so it is that entry or one of its parents.
        let after = self.prefixes.partition_point(|prefix| prefix.path.as_slice() <= path);
        let mut candidate = after.checked_sub(1);
        while let Some(index) = candidate {
            let prefix = &self.prefixes[index];
            if path.starts_with(&prefix.path) {
                return Some(index);
            }
            candidate = prefix.parent;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matcher(text: &str) -> PathMatcher {
        match text.split_once(' ') {
            Some(("=", path)) => PathMatcher::Exact(path.into()),
            Some(("^~", path)) => PathMatcher::FinalPrefix(path.into()),
            Some(("~", regex)) => PathMatcher::Regex(Regex::new(regex, false, |_| 0).unwrap()),
            _ => PathMatcher::Prefix(text.into()),
        }
    }

    /// Locations with the place of the one that each is nested in.
    fn nested(texts: &[(&str, Option<usize>)]) -> impl Fn(&str) -> Found + use<> {
        let matchers: Vec<_> = texts.iter().map(|(text, _)| matcher(text)).collect();
        let candidates = matchers.iter().enumerate().map(|(location, matcher)| Candidate {
            location,
            matcher,
            parent: texts[location].1,
            adds_slash: true,
        });
        let locations = Locations::new(&candidates.collect::<Vec<_>>());
        move |path| locations.find(path.as_bytes(), &Slots::default(), &mut |_| {})
    }

    fn flat(texts: &[&str]) -> impl Fn(&str) -> Found + use<> {
        nested(&texts.iter().map(|text| (*text, None)).collect::<Vec<_>>())
    }

    #[test]
    fn exact_wins_over_prefix_and_the_longest_prefix_over_the_others() {
        let find = flat(&["/", "/ws/", "= /ws/chat", "/ws/chat", "/w"]);
        for (path, expected) in [
            ("/", 0),
            ("/x", 0),
            ("/w", 4),
            ("/ws/", 1),
            ("/ws/chat", 2),
            ("/ws/chat/1", 3),
            ("/ws/cha", 1),
            ("/wt", 4),
        ] {
            assert_eq!(find(path), Found::Location(expected), "{path}");
        }
    }

    #[test]
    fn a_regex_wins_over_a_prefix_unless_that_is_final() {
        let find = flat(&["/", "^~ /static/", r"~ \.png$", "~ ^/a", r"~ \.p", "= /x.png"]);
        for (path, expected) in
            [("/i.png", 2), ("/static/i.png", 1), ("/a.png", 2), ("/a.ps", 3), ("/b.ps", 4), ("/x.png", 5)]
        {
            assert_eq!(find(path), Found::Location(expected), "{path}");
        }
    }

    #[test]
    fn nested_locations_are_searched_within_theirs() {
        let find = nested(&[
            ("/", None),
            ("/a/", None),
            ("/a/b/", Some(1)),
            (r"~ \.js$", Some(1)),
            (r"~ \.(js|css)$", None),
            ("~ ^/a/r", Some(4)),
        ]);
        for (path, expected) in
            [("/a/x", 1), ("/a/b/x", 2), ("/a/b/x.js", 3), ("/a/b/x.css", 4), ("/a/r.css", 5), ("/x.js", 4)]
        {
            assert_eq!(find(path), Found::Location(expected), "{path}");
        }
    }

    #[test]
    fn a_path_that_lacks_the_slash_is_sent_there_unless_it_has_a_location() {
        let find = flat(&["/", "/a/", "/b/", "= /b", "/c/", "/c", "~ ^/a"]);
        assert_eq!(find("/a"), Found::AddSlash(1));
        assert_eq!(find("/b"), Found::Location(3));
        assert_eq!(find("/c"), Found::Location(5));
        assert_eq!(find("/d"), Found::Location(0));
    }

    #[test]
    fn without_a_match_there_is_no_location() {
        assert_eq!(flat(&["/a"])("/b"), Found::Nothing);
        assert_eq!(flat(&["/a"])("/"), Found::Nothing);
        assert_eq!(flat(&[])("/"), Found::Nothing);
    }

    proptest! {
        #[test]
        fn the_search_agrees_with_trying_them_all(
            paths in prop::collection::vec("/[ab/]{0,6}", 0..20),
            wanted in "/[ab/]{0,8}",
        ) {
            let matchers: Vec<_> = paths.iter().map(|path| matcher(path)).collect();
            let candidates: Vec<_> = matchers.iter().enumerate().map(|(location, matcher)| {
                Candidate { location, matcher, parent: None, adds_slash: false }
            }).collect();
            let best = paths.iter().filter(|path| wanted.starts_with(path.as_str())).max_by_key(|path| path.len());
            let found = Locations::new(&candidates).find(wanted.as_bytes(), &Slots::default(), &mut |_| {});
            let found = match found {
                Found::Location(index) => Some(&paths[index]),
                _ => None,
            };
            prop_assert_eq!(found, best);
        }
    }
}
