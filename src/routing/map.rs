//! `map`: a variable whose value is looked up by the value of another.

use std::collections::HashMap;

use super::regex::{Regex, Slots};
use super::variables::Template;

/// A `[[map]]`.
#[derive(Debug)]
pub struct Map {
    /// What is looked up, without regard to case.
    pub source: Template,
    /// What the variable is if nothing fits; nothing at all if it is not written.
    pub default: Template,
    /// What the variable is for a whole value, in lower case.
    pub exact: HashMap<Vec<u8>, Template>,
    /// With `hostnames`: `.example.com` for what ends so, the longest first.
    pub leading: Vec<(String, Template)>,
    /// With `hostnames`: `www.example.` for what begins so, the longest first.
    pub trailing: Vec<(String, Template)>,
    /// In the order of the file.
    pub regexes: Vec<(Regex, Template)>,
    /// With `hostnames` a dot at the end of the value does not count.
    pub is_of_hosts: bool,
    /// Whether the value is looked up each time, not once for a request.
    pub is_volatile: bool,
}

impl Map {
    /// The result for a value, in nginx's order: the whole value, the longest `*.name`, the longest
    /// `name.*`, the first expression that matches, the default. The groups of that expression are left in
    /// `slots`.
    pub fn result(&self, value: &[u8], slots: &Slots) -> &Template {
        let value = value.strip_suffix(b".").filter(|_| self.is_of_hosts).unwrap_or(value);
        let key = value.to_ascii_lowercase();
        if let Some(template) = self.exact.get(&key) {
            return template;
        }
        let leading =
            || self.leading.iter().find(|(name, _)| key.len() > name.len() && key.ends_with(name.as_bytes()));
        let trailing = || {
            self.trailing.iter().find(|(name, _)| key.len() > name.len() && key.starts_with(name.as_bytes()))
        };
        if let Some((_, template)) = leading().or_else(trailing) {
            return template;
        }
        // nginx does not ask expressions about nothing.
        let mut regexes = self.regexes.iter().filter(|_| !value.is_empty());
        let matched = regexes.find(|(regex, _)| slots.matches(regex, value));
        matched.map_or(&self.default, |(_, template)| template)
    }
}
