//! Which location answers for a path: nginx's rules, exact first, then the longest prefix.

use std::collections::HashMap;

/// How a location says which paths are its own. The kinds that come with the nginx drop-in
/// (`^~`, `~`, `~*`, `@name`) are further variants of this type.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PathMatcher {
    /// `= /path`: this path and no other.
    Exact(String),
    /// `/path`: every path that starts with it; the longest one wins.
    Prefix(String),
}

impl PathMatcher {
    /// The text of the path without its modifier.
    pub fn path(&self) -> &str {
        match self {
            Self::Exact(path) | Self::Prefix(path) => path,
        }
    }
}

/// The locations of one server, ready to be searched. Finding takes O(log n) comparisons in the
/// number of prefixes, however many there are.
#[derive(Debug, Default)]
pub struct Locations {
    exact: HashMap<Vec<u8>, usize>,
    /// Sorted by path.
    prefixes: Vec<Prefix>,
}

#[derive(Debug)]
struct Prefix {
    path: Vec<u8>,
    location: usize,
    /// The longest other prefix that this one starts with.
    parent: Option<usize>,
}

impl Locations {
    /// Takes the matchers in the order of the file; what is found later is the place in that order.
    /// Of two equal matchers the first one is kept: the configuration has refused the second.
    pub fn new<'a>(matchers: impl IntoIterator<Item = &'a PathMatcher>) -> Self {
        let mut locations = Self::default();
        for (location, matcher) in matchers.into_iter().enumerate() {
            let path = matcher.path().as_bytes().to_vec();
            match matcher {
                PathMatcher::Exact(_) => {
                    locations.exact.entry(path).or_insert(location);
                }
                PathMatcher::Prefix(_) => {
                    locations.prefixes.push(Prefix { path, location, parent: None });
                }
            }
        }
        locations.prefixes.sort_by(|a, b| a.path.cmp(&b.path));
        locations.prefixes.dedup_by(|later, first| later.path == first.path);
        // In sorted order the prefixes of a path stand before it, each within the one before.
        let mut open: Vec<usize> = Vec::new();
        for index in 0..locations.prefixes.len() {
            while let Some(&top) = open.last() {
                if locations.prefixes[index].path.starts_with(&locations.prefixes[top].path) {
                    break;
                }
                open.pop();
            }
            locations.prefixes[index].parent = open.last().copied();
            open.push(index);
        }
        locations
    }

    /// The location for a normalised path, as its place in the file, or `None`: then the answer is 404.
    pub fn find(&self, path: &[u8]) -> Option<usize> {
        if let Some(&location) = self.exact.get(path) {
            return Some(location);
        }
        // Whatever prefix of `path` is in the list, the greatest entry that is not greater than
        // `path` starts with it: so it is that entry or one of its parents.
        let after = self.prefixes.partition_point(|prefix| prefix.path.as_slice() <= path);
        let mut candidate = after.checked_sub(1);
        while let Some(index) = candidate {
            let prefix = &self.prefixes[index];
            if path.starts_with(&prefix.path) {
                return Some(prefix.location);
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

    fn prefix(path: &str) -> PathMatcher {
        PathMatcher::Prefix(path.into())
    }

    #[test]
    fn exact_wins_over_prefix_and_the_longest_prefix_over_the_others() {
        let matchers = [
            prefix("/"),
            prefix("/ws/"),
            PathMatcher::Exact("/ws/chat".into()),
            prefix("/ws/chat"),
            prefix("/w"),
        ];
        let locations = Locations::new(&matchers);
        for (path, expected) in [
            ("/", 0),
            ("/x", 0),
            ("/w", 4),
            ("/ws", 4),
            ("/ws/", 1),
            ("/ws/chat", 2),
            ("/ws/chat/1", 3),
            ("/ws/cha", 1),
            ("/wt", 4),
        ] {
            assert_eq!(locations.find(path.as_bytes()), Some(expected), "{path}");
        }
    }

    #[test]
    fn without_a_match_there_is_no_location() {
        assert_eq!(Locations::new(&[prefix("/a")]).find(b"/b"), None);
        assert_eq!(Locations::new(&[prefix("/a")]).find(b"/"), None);
        assert_eq!(Locations::new([]).find(b"/"), None);
    }

    proptest! {
        #[test]
        fn the_search_agrees_with_trying_them_all(
            paths in prop::collection::vec("/[ab/]{0,6}", 0..20),
            wanted in "/[ab/]{0,8}",
        ) {
            let matchers: Vec<_> = paths.iter().map(|path| prefix(path)).collect();
            let best = paths.iter().filter(|path| wanted.starts_with(path.as_str())).max_by_key(|path| path.len());
            let found = Locations::new(&matchers).find(wanted.as_bytes()).map(|index| &paths[index]);
            prop_assert_eq!(found, best);
        }
    }
}
