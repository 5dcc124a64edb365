//! Regular expressions as nginx has them: PCRE, over bytes, with captures that variables can ask for.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::ops::Range;

use pcre2::bytes::{CaptureLocations, Regex as Pcre, RegexBuilder};

/// A compiled expression. nginx's semantics are PCRE's, look-around and back-references included, so it is
/// PCRE2 that runs here; its own limit on backtracking bounds what a hostile path can cost.
#[derive(Clone)]
pub struct Regex {
    /// Compiled to machine code, whose stack is small: a few kilobytes of `/a/a/a…` are enough for `(/[^/]+)*`
    /// to run out of it.
    pcre: Pcre,
    /// The same for such subjects: slower, with its stack on the heap. Only for [`Regex::captures`], which gives
    /// its memory back.
    patient: Pcre,
    is_caseless: bool,
    /// Groups with a name, and the slot of the variable that each one sets.
    named: Vec<(usize, usize)>,
}

/// PCRE2's `PCRE2_ERROR_JIT_STACKLIMIT`.
const JIT_STACK_LIMIT: i32 = -46;

/// 32 MiB: enough for 64 KiB of path in any expression that is not hostile itself.
const HEAP_LIMIT: &str = "(*LIMIT_HEAP=32768)";

/// An expression has run into PCRE's limits: whether it matches is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GaveUp;

/// The groups of the last expression that matched: `$1` to `$9`.
#[derive(Debug, Default)]
pub struct Captures {
    subject: Vec<u8>,
    groups: Vec<Option<Range<usize>>>,
}

impl Regex {
    /// Compiles an expression; `slot` gives each named group the variable that it sets.
    ///
    /// # Errors
    /// What PCRE has against the expression.
    pub fn new(
        text: &str,
        is_caseless: bool,
        mut slot: impl FnMut(&str) -> usize,
    ) -> Result<Self, pcre2::Error> {
        let pcre = RegexBuilder::new().caseless(is_caseless).jit_if_available(true).build(text)?;
        let patient = RegexBuilder::new().caseless(is_caseless).build(&format!("{HEAP_LIMIT}{text}"))?;
        let names = pcre.capture_names().iter().enumerate();
        let named =
            names.filter_map(|(group, name)| name.as_deref().map(|name| (group, slot(name)))).collect();
        Ok(Self { pcre, patient, is_caseless, named })
    }

    /// The text of the expression.
    pub fn as_str(&self) -> &str {
        self.pcre.as_str()
    }

    /// Whether upper and lower case are alike.
    pub fn is_caseless(&self) -> bool {
        self.is_caseless
    }

    /// Whether a part of the subject matches. An expression that runs into PCRE's limits does not.
    pub fn is_match(&self, subject: &[u8]) -> bool {
        self.pcre.is_match(subject).unwrap_or_else(|_| matches!(self.captures(subject), Ok(Some(_))))
    }

    /// The groups, if a part of the subject matches.
    ///
    /// # Errors
    /// It ran into PCRE's limits, so that nobody knows.
    pub fn captures(&self, subject: &[u8]) -> Result<Option<Captures>, GaveUp> {
        let run = |pcre: &Pcre| {
            let mut locations = pcre.capture_locations();
            let found = pcre.captures_read(&mut locations, subject)?;
            Ok(found.map(|_| Captures::of(subject, &locations)))
        };
        let found = run(&self.pcre).or_else(|error: pcre2::Error| match error.code() {
            JIT_STACK_LIMIT => run(&self.patient),
            _ => Err(error),
        });
        found.map_err(|error| {
            tracing::warn!(regex = self.as_str(), "a regular expression gave up: {error}");
            GaveUp
        })
    }

    /// The variables that the named groups set: slot and value.
    pub fn named<'a>(&'a self, captures: &'a Captures) -> impl Iterator<Item = (usize, &'a [u8])> {
        self.named.iter().map(|(group, slot)| (*slot, captures.get(*group)))
    }

    /// Whether a match sets anything that a variable can ask for.
    pub fn has_named_groups(&self) -> bool {
        !self.named.is_empty()
    }
}

impl Captures {
    fn of(subject: &[u8], locations: &CaptureLocations) -> Self {
        let group = |index| locations.get(index).map(|(start, end)| start..end);
        Self { subject: subject.to_vec(), groups: (0..locations.len()).map(group).collect() }
    }

    /// A group; empty if it took no part in the match. Group 0 is the whole match.
    pub fn get(&self, group: usize) -> &[u8] {
        let range = self.groups.get(group).cloned().flatten();
        range.and_then(|range| self.subject.get(range)).unwrap_or_default()
    }
}

impl fmt::Debug for Regex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/", if self.is_caseless { "(?i)" } else { "" }, self.as_str())
    }
}

/// Two expressions are alike if they are written alike.
impl PartialEq for Regex {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str() && self.is_caseless == other.is_caseless
    }
}

impl Eq for Regex {}

/// What expressions leave behind for variables, for one request.
#[derive(Debug, Default)]
pub struct Slots {
    /// `$1` to `$9`.
    captures: RefCell<Captures>,
    /// The values of the operator's own variables; empty until the first one is set.
    values: RefCell<Vec<Option<Vec<u8>>>>,
    /// Whether an expression gave up.
    gave_up: Cell<bool>,
}

impl Slots {
    /// Whether the subject matches; if so its groups can be asked for from now on. An expression that gives up
    /// does not, and [`Slots::take_gave_up`] tells.
    pub fn matches(&self, regex: &Regex, subject: &[u8]) -> bool {
        let captures = match regex.captures(subject) {
            Ok(Some(captures)) => captures,
            Ok(None) => return false,
            Err(GaveUp) => {
                self.gave_up.set(true);
                return false;
            }
        };
        for (slot, value) in regex.named(&captures) {
            self.set(slot, value.to_vec());
        }
        self.captures.replace(captures);
        true
    }

    /// Whether an expression gave up since this was asked last.
    pub fn take_gave_up(&self) -> bool {
        self.gave_up.take()
    }

    /// Nothing is left of the groups, as after an expression of a `rewrite` that did not match.
    pub fn forget_captures(&self) {
        self.captures.borrow_mut().groups.clear();
    }

    /// Writes a group.
    pub fn capture(&self, group: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(self.captures.borrow().get(group));
    }

    /// Gives a variable a value.
    pub fn set(&self, slot: usize, value: Vec<u8>) {
        let mut values = self.values.borrow_mut();
        if values.len() <= slot {
            values.resize(slot + 1, None);
        }
        values[slot] = Some(value);
    }

    /// Takes over the values of the operator's variables.
    pub fn take_values(&self, from: &Self) {
        self.values.replace(from.values.take());
    }

    /// Writes the value of a variable; `false` if it has none yet.
    pub fn write(&self, slot: usize, out: &mut Vec<u8>) -> bool {
        let values = self.values.borrow();
        let Some(Some(value)) = values.get(slot) else { return false };
        out.extend_from_slice(value);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn regex(text: &str) -> Regex {
        Regex::new(text, false, |name| name.len()).unwrap()
    }

    #[test]
    fn groups_are_kept_until_the_next_match() {
        let slots = Slots::default();
        assert!(slots.matches(&regex("^/(a+)/(?<abc>.*)$"), b"/aa/x"));
        let group = |index| {
            let mut out = Vec::new();
            slots.capture(index, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!((group(1), group(2), group(3)), ("aa".into(), "x".into(), String::new()));
        assert!(!slots.matches(&regex("^/b"), b"/aa/x"));
        assert_eq!(group(1), "aa");
        let mut named = Vec::new();
        assert!(slots.write(3, &mut named) && !slots.write(2, &mut named));
        assert_eq!(named, b"x");
        slots.forget_captures();
        assert_eq!(group(1), "");
    }

    #[test]
    fn expressions_are_those_of_pcre() {
        assert!(regex("^/(?!api)").is_match(b"/web"));
        assert!(!regex("^/(?!api)").is_match(b"/api/x"));
        assert!(regex(r"^(.)\1$").is_match(b"aa"));
        assert!(regex("^.$").is_match(b"\xff"), "bytes, not characters");
        assert!(Regex::new("A", true, |_| 0).unwrap().is_match(b"a"));
        assert!(Regex::new("(", true, |_| 0).is_err());
    }

    #[test]
    fn an_expression_that_explodes_ends_and_says_so() {
        let subject = [b"a".repeat(40), b"!".to_vec()].concat();
        let regex = regex("^(a|a|aa)+$");
        assert!(!regex.is_match(&subject));
        assert_eq!(regex.captures(&subject).err(), Some(GaveUp));
        let slots = Slots::default();
        assert!(!slots.matches(&regex, &subject));
        assert!(slots.take_gave_up(), "it is not just no match");
        assert!(!slots.take_gave_up(), "that is told once");
    }

    #[test]
    fn the_longest_path_matches_what_needs_more_stack_than_the_compiled_code_has() {
        let slots = Slots::default();
        let subject = [b"/a".repeat(32_000), b"/x".to_vec()].concat();
        assert!(slots.matches(&regex("^(/[^/]+)*/x$"), &subject));
        assert!(regex("^(/[^/]+)*/x$").is_match(&subject));
        assert!(!slots.matches(&regex("^(/[^/]+)*/y$"), &subject));
        assert!(slots.matches(&regex("^/(a|b|/)*x$"), &subject));
        assert!(!slots.take_gave_up());
    }
}
