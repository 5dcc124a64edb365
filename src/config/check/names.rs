//! The operator's own variables: which there are, and which are only asked for.

use std::collections::HashSet;
use std::ops::Range;

use serde_spanned::Spanned;

use super::Check;
use super::headers::bad_template;
use crate::config::OwnVariable;
use crate::config::error::Mistake;
use crate::config::read::nearest;
use crate::routing::map::Map;
use crate::routing::regex::Regex;
use crate::routing::variables::{Template, TemplateError, Variable};

/// Variables by name, in the order in which they were first met.
#[derive(Default)]
pub(super) struct Names {
    own: Vec<Own>,
}

struct Own {
    name: String,
    is_made: bool,
    /// The map that makes it, and where it is written.
    map: Option<(Map, Range<usize>)>,
    /// Where it is asked for.
    uses: Vec<Range<usize>>,
}

impl Names {
    /// The place of a variable that something makes.
    pub(super) fn made(&mut self, name: &str) -> usize {
        let slot = self.slot(name);
        self.own[slot].is_made = true;
        slot
    }

    /// Reads a value; a variable that nobody has made so far may still be made further down.
    pub(super) fn template(&mut self, value: &Spanned<String>) -> Result<Template, TemplateError> {
        Template::parse_with(value.get_ref(), |name| Some(self.asked(name, value.span())))
    }

    /// Compiles an expression; its named groups make variables.
    pub(super) fn regex(&mut self, text: &str, is_caseless: bool) -> Result<Regex, pcre2::Error> {
        Regex::new(text, is_caseless, |name| self.made(name))
    }

    fn asked(&mut self, name: &str, span: Range<usize>) -> usize {
        let slot = self.slot(name);
        self.own[slot].uses.push(span);
        slot
    }

    fn slot(&mut self, name: &str) -> usize {
        // nginx: the names of variables know no case.
        let name = name.to_ascii_lowercase();
        let known = self.own.iter().position(|own| own.name == name);
        known.unwrap_or_else(|| {
            self.own.push(Own { name, is_made: false, map: None, uses: Vec::new() });
            self.own.len() - 1
        })
    }

    /// The variables that nobody asks for.
    pub(super) fn unused(&self) -> HashSet<String> {
        self.own.iter().filter(|own| own.uses.is_empty()).map(|own| own.name.clone()).collect()
    }

    /// Gives a variable its map, or tells where the one stands that it has.
    pub(super) fn set_map(&mut self, name: &str, map: Map, span: Range<usize>) -> Result<(), Range<usize>> {
        let slot = self.made(name);
        match &self.own[slot].map {
            Some((_, first)) => Err(first.clone()),
            None => {
                self.own[slot].map = Some((map, span));
                Ok(())
            }
        }
    }
}

impl Check<'_> {
    /// A value with variables in it; a mistake in it has been reported.
    pub(super) fn template(&mut self, value: &Spanned<String>) -> Option<Template> {
        self.names.template(value).map_err(|error| self.mistakes.push(bad_template(value, &error))).ok()
    }

    /// A regular expression; a mistake in it has been reported.
    pub(super) fn regex(&mut self, text: &str, is_caseless: bool, span: Range<usize>) -> Option<Regex> {
        match self.names.regex(text, is_caseless) {
            Ok(regex) => Some(regex),
            Err(error) => {
                let message = format!("`{text}` is not a regular expression: {error}");
                let mut mistake = Mistake::new(span, message);
                if text.starts_with(['*', '?', '+']) {
                    mistake = mistake.help(format!("write `.{text}` for any text there"));
                }
                self.mistakes.push(mistake);
                None
            }
        }
    }

    /// A single variable, `$name`, as conditions ask for one.
    pub(super) fn variable(&mut self, text: &str, span: Range<usize>) -> Option<Variable> {
        let template = self.template(&Spanned::new(span, text.to_owned()))?;
        match template.parts() {
            [crate::routing::variables::Part::Variable(variable)] => Some(variable.clone()),
            _ => None,
        }
    }

    /// The name of a variable that the operator makes, if it can be one.
    pub(super) fn own_name<'a>(&mut self, name: &'a str, span: Range<usize>) -> Option<&'a str> {
        let plain = name.strip_prefix('$').unwrap_or(name);
        let is_word =
            !plain.is_empty() && plain.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !is_word {
            let message = format!("`{name}` cannot be the name of a variable");
            self.mistakes.push(Mistake::new(span, message).help("a name has letters, digits and `_`"));
            return None;
        }
        if Variable::is_built_in(plain) {
            let message = format!("`${plain}` is a variable of hopgate's");
            self.mistakes.push(Mistake::new(span, message).help("give yours another name"));
            return None;
        }
        Some(plain)
    }

    /// Reports every variable that nobody makes, and gives the list of those that somebody does.
    pub(super) fn own_variables(&mut self) -> Vec<OwnVariable> {
        let own = std::mem::take(&mut self.names.own);
        let made: Vec<&str> = own.iter().filter(|own| own.is_made).map(|own| own.name.as_str()).collect();
        for own in own.iter().filter(|own| !own.is_made) {
            let near = nearest(&own.name, &made).map(ToOwned::to_owned);
            let nearest = near.or_else(|| match Template::parse(&format!("${{{}}}", own.name)) {
                Err(TemplateError::Unknown { nearest, .. }) => nearest,
                _ => None,
            });
            let error = TemplateError::Unknown { name: own.name.clone(), nearest };
            for span in &own.uses {
                self.mistakes.push(bad_template(&Spanned::new(span.clone(), String::new()), &error));
            }
        }
        let variable = |own: Own| OwnVariable { name: own.name, map: own.map.map(|(map, _)| map) };
        own.into_iter().map(variable).collect()
    }
}
