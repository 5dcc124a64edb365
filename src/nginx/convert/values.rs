//! Values: their variables, times and sizes.

use super::Convert;
use crate::config::units;
use crate::nginx::parse::Directive;

/// The names of the variables in a text, `$name` or `${name}`, in their order.
pub(super) fn variables(text: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        let after = &rest[dollar + 1..];
        let (name, tail) = match after.strip_prefix('{').and_then(|braced| braced.split_once('}')) {
            Some(split) => split,
            None => after.split_at(
                after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len()),
            ),
        };
        if !name.is_empty() {
            names.push(name);
        }
        rest = tail;
    }
    names
}

impl Convert<'_> {
    /// The first variable of a text that there is nothing for in hopgate.
    pub(super) fn unknown_variable(&self, text: &str) -> Option<String> {
        let unknown = |name: &&str| !self.facts.has(name);
        variables(text).into_iter().find(unknown).map(str::to_owned)
    }

    /// Whether a directive has a variable that is not known; it is reported then, with what follows.
    pub(super) fn mentions_unknown(&mut self, directive: &Directive, texts: &[&str], follows: &str) -> bool {
        let Some(name) = texts.iter().find_map(|text| self.unknown_variable(text)) else { return false };
        let why = self.why_unknown(&name);
        self.report(directive, &format!("{why}, so {follows}"));
        true
    }

    /// Why a variable is not there.
    pub(super) fn why_unknown(&self, name: &str) -> String {
        match self.facts.lost.get(name) {
            Some(by) => format!("`${name}` is set by `{by}`, which is not carried over"),
            None => format!("there is no variable `${name}` in hopgate"),
        }
    }
}

/// A time as hopgate reads it. nginx knows months and years, too, and blanks in between.
pub(super) fn time(text: &str) -> Option<String> {
    let squeezed: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    if units::time(&squeezed).is_ok() {
        return Some(squeezed);
    }
    // nginx, ngx_parse_time: a year has 365 days, a month has 30.
    let days = |unit: char, days: u64| {
        let number = squeezed.strip_suffix(unit)?.parse::<u64>().ok()?;
        Some(format!("{}d", number.checked_mul(days)?))
    };
    days('y', 365).or_else(|| days('M', 30)).filter(|time| units::time(time).is_ok())
}

/// A size as hopgate reads it.
pub(super) fn size(text: &str) -> Option<String> {
    units::size(text).is_ok().then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_found_as_nginx_finds_them() {
        assert_eq!(variables("a$b/${c}d$1-$e_f$"), ["b", "c", "1", "e_f"]);
        assert!(variables("no $ and ${").is_empty());
    }

    #[test]
    fn times_of_nginx_are_times_of_hopgate() {
        for (text, time_of) in
            [("60", "60"), ("1h 30m", "1h30m"), ("1y", "365d"), ("2M", "60d"), ("5ms", "5ms")]
        {
            assert_eq!(time(text).as_deref(), Some(time_of), "{text}");
        }
        assert_eq!(time("soon"), None);
    }
}
