//! `map` and `types`: tables.

use super::toml::{Entry, Header, Item, Table, Value};
use super::{Convert, Scope, bare, origin, text};
use crate::config::Types;
use crate::nginx::parse::Directive;

/// Why a map of upgrades is not needed.
const UPGRADES: &str = "upgrades are recognised and tunnelled by themselves: no `Upgrade` line, no `Connection` line, \
                        no `map` for them";

/// The keys of a map, in the order of a person.
const ORDER: &[&str] = &["source", "variable", "default", "hostnames", "volatile", "entries"];

fn is_flag(name: &str) -> bool {
    matches!(name, "hostnames" | "volatile")
}

/// The values of a map.
pub(super) fn values(directive: &Directive) -> impl Iterator<Item = &str> {
    directive.children().iter().filter(|child| child.name() != "include").flat_map(Directive::texts)
}

impl Convert<'_> {
    /// `map SOURCE $variable { … }`
    pub(super) fn map(&mut self, directive: &Directive) -> Option<Table> {
        let variable = directive.arg(1).trim_start_matches('$').to_owned();
        if self.facts.upgrade_maps.contains(&variable) {
            self.needless(directive, &format!("map {} ${variable}", directive.arg(0)), UPGRADES);
            let stray = |child: &&Directive| child.args.is_empty() && !is_flag(child.name());
            directive.children().iter().filter(stray).for_each(|child| self.stray(child));
            return None;
        }
        if self.facts.lost.contains_key(&variable) {
            let texts: Vec<&str> = std::iter::once(directive.arg(0)).chain(values(directive)).collect();
            let follows = format!("there is no `${variable}`, either; write a map that can be had");
            self.mentions_unknown(directive, &texts, &follows);
            return None;
        }
        let mut table = self.map_head(directive, &variable, directive.arg(0));
        for child in directive.children() {
            match child.name() {
                "default" if !child.args.is_empty() => {
                    table.entries.push(Entry::new("default", text(child, child.arg(0))))
                }
                name if is_flag(name) && child.args.is_empty() => {
                    table.entries.push(Entry::new(child.name(), bare(child, "true")));
                }
                "include" => {
                    self.report(child, "this table is not in the result: write its lines into entries")
                }
                _ => self.map_entry(&mut table, child),
            }
        }
        let order = |entry: &Entry| ORDER.iter().position(|key| *key == entry.key);
        table.entries.sort_by_key(order);
        Some(table)
    }

    fn map_head(&self, directive: &Directive, variable: &str, source: &str) -> Table {
        let mut table = Table::new(Header::Many(vec!["map".to_owned()]));
        table.comments = self.kept_comments(directive);
        table.origin = Some(origin(directive));
        table.entries.push(Entry::new("source", text(directive, source)));
        table.entries.push(Entry::new("variable", text(directive, variable)));
        table
    }

    fn map_entry(&mut self, table: &mut Table, child: &Directive) {
        let [value] = child.args.as_slice() else {
            return self.stray(child);
        };
        if !table.pair("entries", child.name(), text(child, &value.text)) {
            self.report(child, "the map has this line already; delete one of them");
        }
    }

    /// A line of a map that is not a key and its value.
    fn stray(&mut self, child: &Directive) {
        let what = if child.args.is_empty() { "it has no value" } else { "it has more than one value" };
        self.report(
            child,
            &format!("{what}, as a line of a map has, so it is left out; delete it or complete it"),
        );
    }

    /// `types { … }`: it replaces the one further out.
    pub(super) fn types(&mut self, scope: &mut Scope, directive: &Directive) {
        scope.table.entry("types", Value::Pairs(Vec::new()));
        for child in directive.children() {
            if child.name() == "include" {
                self.report(child, "this table is not in the result: write its lines into types");
                continue;
            }
            let ends: Vec<Item> = child.texts().map(|end| text(child, end)).collect();
            let list = Item::from(Value::List(ends), origin(child));
            if !scope.table.pair("types", child.name(), list.clone()) {
                let entry = scope.table.entry("types", Value::Pairs(Vec::new()));
                let same = |(name, _): &&mut (String, Item)| name == child.name();
                if let Value::Pairs(pairs) = &mut entry.item.value
                    && let Some((_, Item { value: Value::List(items), .. })) = pairs.iter_mut().find(same)
                    && let Value::List(more) = list.value
                {
                    items.extend(more);
                }
            }
        }
    }
}

impl Convert<'_> {
    /// In nginx `types` beside `include mime.types` adds to them; in hopgate it stands alone.
    pub(super) fn complete_types(&mut self, scope: &mut Scope) {
        if scope.standard_types && scope.outer.types {
            // Those further out hold no longer.
            scope.table.entry("types", Value::Pairs(Vec::new()));
        }
        let written = scope.table.entries.iter_mut().find(|entry| entry.key == "types");
        let Some(entry) = written.filter(|_| scope.standard_types) else { return };
        let Value::Pairs(own) = &mut entry.item.value else { return };
        let is_new = |(kind, list): &(String, Item)| {
            ends(list).any(|end| Types::built_in().of(end.as_bytes()) != Some(kind))
        };
        if !own.iter().any(is_new) && !scope.outer.types {
            if let Some(origin) = own.first().and_then(|(_, list)| list.origin.clone()) {
                self.note(origin.place, "types", "hopgate knows the types of nginx's file");
            }
            return scope.table.without(&["types"]);
        }
        let new = std::mem::take(own);
        *own = known_types(&new);
        for (kind, list) in new {
            let Value::List(more) = list.value else { continue };
            match own.iter_mut().find(|(other, _)| *other == kind) {
                Some((_, Item { value: Value::List(items), .. })) => items.extend(more),
                _ => own.push((kind, Item { value: Value::List(more), origin: list.origin })),
            }
        }
        entry.comments.push("nginx's mime.types, and the types that the file adds to them.".to_owned());
    }
}

/// hopgate's own types, without the extensions that have another one.
fn known_types(others: &[(String, Item)]) -> Vec<(String, Item)> {
    let taken: Vec<String> =
        others.iter().flat_map(|(_, list)| ends(list).map(str::to_ascii_lowercase)).collect();
    let mut all: Vec<(String, Item)> = Vec::new();
    for (kind, known) in Types::known() {
        let left = known.split(' ').filter(|end| !taken.iter().any(|own| own == end));
        let left: Vec<Item> = left.map(|end| Item::new(Value::text(end))).collect();
        match all.iter_mut().find(|(other, _)| other == kind) {
            Some((_, Item { value: Value::List(items), .. })) => items.extend(left),
            _ if left.is_empty() => {}
            _ => all.push(((*kind).to_owned(), Item::new(Value::List(left)))),
        }
    }
    all
}

/// The extensions of a type.
fn ends(list: &Item) -> impl Iterator<Item = &str> {
    let items = if let Value::List(items) = &list.value { items.as_slice() } else { &[] };
    items
        .iter()
        .filter_map(|item| if let Value::Text(text) = &item.value { Some(text.as_str()) } else { None })
}

/// The reason of [`Convert::map`], for the lines that go with such a map.
pub(super) const UPGRADE_LINES: &str = UPGRADES;
