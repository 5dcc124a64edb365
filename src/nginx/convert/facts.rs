//! What must be known of the whole file before its first line is written.

use std::collections::{HashMap, HashSet};

use super::map;
use super::values::variables;
use crate::nginx::directives::{self, State};
use crate::nginx::parse::Directive;
use crate::routing::variables::Variable;

/// What a file says anywhere.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// The names of the groups, in lower case.
    pub(super) upstreams: HashSet<String>,
    /// Variables that the file makes and that are carried over.
    pub(super) variables: HashSet<String>,
    /// Variables that the file makes in a way that is not carried over, and by which directive.
    pub(super) lost: HashMap<String, String>,
    /// Maps that are there for nothing but the `Connection` field of upgrades.
    pub(super) upgrade_maps: HashSet<String>,
    /// Names of formats.
    pub(super) formats: HashSet<String>,
    /// Names of zones.
    pub(super) zones: HashSet<String>,
    /// Names of locations.
    pub(super) named_locations: HashSet<String>,
    /// Directives that stand anywhere.
    pub(super) names: HashSet<String>,
    /// Those of them that are not only switched off.
    pub(super) in_use: HashSet<String>,
    /// Groups that other gateways than HTTP have, and nothing else.
    pub(super) of_gateways: HashSet<String>,
    /// Whether an address takes the PROXY protocol.
    pub(super) takes_proxy_protocol: bool,
    /// Whether a variable may say `https`, as it then may before `://` in a `proxy_pass`.
    pub(super) says_https: bool,
}

impl Facts {
    pub(super) fn of(directives: &[Directive]) -> Self {
        let mut facts = Self::default();
        facts.gather(directives);
        facts.find_upgrade_maps(directives);
        for name in &facts.upgrade_maps {
            facts.variables.remove(name);
        }
        facts.find_lost_maps(directives);
        facts.find_groups_of_gateways(directives);
        facts
    }

    fn gather(&mut self, directives: &[Directive]) {
        for directive in directives {
            self.names.insert(directive.name().to_owned());
            if !super::off::is_off(directive) {
                self.in_use.insert(directive.name().to_owned());
            }
            self.takes_proxy_protocol |= directive.name() == "listen"
                && directive.texts().skip(1).any(|word| word == "proxy_protocol");
            self.says_https |= says_https(directive);
            let variable = |place: usize| directive.arg(place).trim_start_matches('$').to_owned();
            match directive.name() {
                "upstream" => drop(self.upstreams.insert(directive.arg(0).to_ascii_lowercase())),
                "set" | "auth_request_set" => drop(self.variables.insert(variable(0))),
                "map" => drop(self.variables.insert(variable(1))),
                "geo" | "split_clients" | "perl_set" | "js_set" | "js_var" | "set_by_lua_block"
                | "set_by_lua" | "set_by_lua_file" => {
                    let place = directive.args.len().saturating_sub(1).min(1);
                    let place = if directive.name() == "geo" || directive.name() == "split_clients" {
                        place
                    } else {
                        0
                    };
                    self.lost.insert(variable(place), directive.name().to_owned());
                }
                "log_format" => drop(self.formats.insert(directive.arg(0).to_owned())),
                "limit_req_zone" | "limit_conn_zone" => {
                    let zone = directive.texts().find_map(|word| word.strip_prefix("zone="));
                    self.zones.extend(zone.map(|zone| zone.split(':').next().unwrap_or(zone).to_owned()));
                }
                "location" if directive.arg(0).starts_with('@') => {
                    self.named_locations.insert(directive.arg(0).to_owned());
                }
                _ => {}
            }
            for word in std::iter::once(&directive.name).chain(&directive.args) {
                self.variables.extend(captures(&word.text).map(str::to_owned));
            }
            self.gather(directive.children());
        }
    }

    /// Maps of `$http_upgrade`, and of such maps, that nothing uses but the lines which hopgate makes
    /// needless.
    fn find_upgrade_maps(&mut self, directives: &[Directive]) {
        let mut maps: Vec<(String, Vec<String>)> = Vec::new();
        all(directives, &mut |directive| {
            if directive.name() == "map" && directive.args.len() == 2 {
                let sources = variables(directive.arg(0)).into_iter().map(str::to_owned).collect();
                maps.push((directive.arg(1).trim_start_matches('$').to_owned(), sources));
            }
        });
        let is_of_them = |known: &HashSet<String>, (name, sources): &(String, Vec<String>)| {
            let known = |source: &String| is_of_upgrades(source) || known.contains(source);
            !sources.is_empty() && sources.iter().all(known) && !is_of_upgrades(name)
        };
        while let Some(place) = maps.iter().position(|map| is_of_them(&self.upgrade_maps, map)) {
            self.upgrade_maps.insert(maps.remove(place).0);
        }
        loop {
            let used = self.upgrade_maps.iter().find(|name| self.is_used(directives, name)).cloned();
            let Some(used) = used else { return };
            self.upgrade_maps.remove(&used);
        }
    }

    /// Groups for `fastcgi_pass` and its like, which nothing else names.
    fn find_groups_of_gateways(&mut self, directives: &[Directive]) {
        let (mut of_gateways, mut others) = (HashSet::new(), String::new());
        all(directives, &mut |directive| match directive.name() {
            "upstream" => {}
            "fastcgi_pass" | "uwsgi_pass" | "scgi_pass" | "memcached_pass" => {
                of_gateways.insert(directive.arg(0).to_ascii_lowercase());
            }
            _ => others.extend(directive.texts().flat_map(|word| [" ", word])),
        });
        let others = others.to_ascii_lowercase();
        of_gateways.retain(|name| self.upstreams.contains(name) && !others.contains(name.as_str()));
        self.of_gateways = of_gateways;
    }

    /// Maps that need a variable which is not there: with half of its lines a map could open what it
    /// closes, so that nothing is left of it.
    fn find_lost_maps(&mut self, directives: &[Directive]) {
        let mut maps: Vec<(String, Vec<String>)> = Vec::new();
        all(directives, &mut |directive| {
            if directive.name() == "map" && directive.args.len() == 2 {
                let words = std::iter::once(directive.arg(0)).chain(map::values(directive));
                let needs = words.flat_map(variables).map(str::to_owned).collect();
                maps.push((directive.arg(1).trim_start_matches('$').to_owned(), needs));
            }
        });
        maps.retain(|(name, _)| !self.upgrade_maps.contains(name));
        while let Some(place) = maps.iter().position(|(_, needs)| needs.iter().any(|name| !self.has(name))) {
            let (name, _) = maps.remove(place);
            self.variables.remove(&name);
            self.lost.insert(name, "map".to_owned());
        }
    }

    /// Whether there is a variable.
    pub(super) fn has(&self, name: &str) -> bool {
        self.variables.contains(name) || name == "0" || Variable::is_built_in(name)
    }

    /// Whether something that is carried over needs a variable.
    fn is_used(&self, directives: &[Directive], name: &str) -> bool {
        let mut is_used = false;
        all(directives, &mut |directive| {
            let needless = matches!(directives::find(directive.name()), Some(State::Needless(_)))
                || is_upgrade_line(directive)
                || directive.name() == "map"
                    && self.upgrade_maps.contains(directive.arg(1).trim_start_matches('$'));
            let own = directive.name() == "map" && directive.arg(1).trim_start_matches('$') == name;
            let words = || std::iter::once(directive.name.text.as_str()).chain(directive.texts());
            // `map SOURCE $variable`: the second word is where it is made.
            let words =
                words().skip(usize::from(directive.name() == "map")).take(if own { 1 } else { usize::MAX });
            is_used |= !needless && words.into_iter().any(|word| variables(word).contains(&name));
        });
        is_used
    }
}

/// Whether a line gives a variable a value that is or begins with `https`, or sends requests where they came by.
fn says_https(directive: &Directive) -> bool {
    let is_https =
        |value: &str| value == "https" || value.starts_with("https://") || value.starts_with("$scheme");
    match directive.name() {
        "set" => is_https(directive.arg(1)),
        "map" => directive.children().iter().filter_map(|line| line.texts().last()).any(is_https),
        "proxy_pass" => directive.arg(0).starts_with("$scheme"),
        _ => false,
    }
}

/// Whether a line sets `Upgrade` or `Connection`, which hopgate does by itself.
pub(super) fn is_upgrade_line(directive: &Directive) -> bool {
    directive.name() == "proxy_set_header"
        && ["upgrade", "connection"].iter().any(|name| directive.arg(0).eq_ignore_ascii_case(name))
}

fn is_of_upgrades(name: &str) -> bool {
    matches!(name, "http_upgrade" | "http_connection")
}

/// Every directive at any depth.
fn all(directives: &[Directive], visit: &mut impl FnMut(&Directive)) {
    for directive in directives {
        visit(directive);
        all(directive.children(), visit);
    }
}

/// The names of the groups in a regular expression: `(?<name>…)`, `(?P<name>…)` and `(?'name'…)`.
fn captures(text: &str) -> impl Iterator<Item = &str> {
    text.split("(?").skip(1).filter_map(|group| {
        let rest = group.strip_prefix('P').unwrap_or(group);
        let rest = rest.strip_prefix(['<', '\''])?;
        let end = rest.find(['>', '\''])?;
        let name = &rest[..end];
        let word = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        (word && !name.is_empty()).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::nginx::parse;

    fn facts(text: &str) -> Facts {
        Facts::of(&parse::parse("test", text.to_owned(), Path::new("/")).unwrap().directives)
    }

    #[test]
    fn a_map_of_upgrades_is_needless_if_nothing_else_needs_it() {
        const MAP: &str = "map $http_upgrade $c { default upgrade; '' close; }";
        for (text, needless) in [
            ("", true),
            ("proxy_set_header Connection $c;", true),
            ("proxy_set_header connection ${c};", true),
            ("proxy_cache_bypass $c;", true),
            ("map $c $d { default 1; } proxy_set_header Connection $d;", true),
            ("proxy_set_header X-Mode $c;", false),
            ("location / { if ($c = upgrade) { return 403; } }", false),
            ("map $host $d { default $c; } add_header X $d;", false),
            ("map $c $d { default 1; } add_header X $d;", false),
        ] {
            let facts = facts(&format!("{MAP} {text}"));
            assert_eq!(facts.upgrade_maps.contains("c"), needless, "{text}");
        }
        assert!(facts("map $host $c { default 1; }").upgrade_maps.is_empty());
    }

    #[test]
    fn what_needs_a_variable_that_is_not_there_is_not_there_either() {
        let facts = facts(
            "geo $g { default 0; } map $g $a { default 0; } map $host $b { x $a; } map $host $c { default 1; }",
        );
        assert!(["g", "a", "b"].iter().all(|name| facts.lost.contains_key(*name) && !facts.has(name)));
        assert!(facts.has("c") && facts.has("host") && !facts.has("nobody_makes_it"));
    }

    #[test]
    fn a_variable_may_say_https() {
        for (text, expected) in [
            ("set $to https;", true),
            ("set $to https://a.example;", true),
            ("set $to $scheme;", true),
            ("set $https http;", false),
            ("map $host $to { default https; }", true),
            ("map $host $to { default http; ~^secure https; }", true),
            ("map $host $to { default http; https http; }", false),
            ("location / { proxy_pass $scheme://a.example; }", true),
            ("location / { proxy_pass https://a.example; }", false),
        ] {
            assert_eq!(facts(text).says_https, expected, "{text}");
        }
    }

    #[test]
    fn groups_of_expressions_make_variables() {
        let names: Vec<&str> = captures("^(?<a>x)(?P<b_1>y)(?'c'z)(?:d)(?i)(?<=e)(?<!f)").collect();
        assert_eq!(names, ["a", "b_1", "c"]);
    }
}
