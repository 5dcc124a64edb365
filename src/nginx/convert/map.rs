//! `map` and `types`: tables.

use super::toml::{Entry, Header, Item, Table, Value};
use super::{Convert, Scope, bare, origin, text};
use crate::nginx::parse::Directive;

/// Why a map of upgrades is not needed.
const UPGRADES: &str = "upgrades are recognised and tunnelled by themselves: no `Upgrade` line, no `Connection` line, \
                        no `map` for them";

impl Convert<'_> {
    /// `map SOURCE $variable { … }`
    pub(super) fn map(&mut self, directive: &Directive) -> Option<Table> {
        let variable = directive.arg(1).trim_start_matches('$').to_owned();
        if self.facts.upgrade_maps.contains(&variable) {
            self.needless(directive, &format!("map {} ${variable}", directive.arg(0)), UPGRADES);
            return None;
        }
        if self.mentions_unknown(directive, &[directive.arg(0)], "the map is empty but for its default") {
            return self.only_default(directive, &variable);
        }
        let mut table = self.map_head(directive, &variable, directive.arg(0));
        for child in directive.children() {
            match child.name() {
                "default" if !child.args.is_empty() => table.entries.push(Entry::new("default", text(child, child.arg(0)))),
                "hostnames" | "volatile" if child.args.is_empty() => {
                    table.entries.push(Entry::new(child.name(), bare(child, "true")));
                }
                "include" => self.report(child, "this table is not in the result: write its lines into entries"),
                _ => self.map_entry(&mut table, child),
            }
        }
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

    fn only_default(&mut self, directive: &Directive, variable: &str) -> Option<Table> {
        let mut table = self.map_head(directive, variable, "");
        let default = directive.children().iter().find(|child| child.name() == "default");
        let entry = default.map(|child| Entry::new("default", text(child, child.arg(0))));
        table.entries.extend(entry);
        Some(table)
    }

    fn map_entry(&mut self, table: &mut Table, child: &Directive) {
        let [value] = child.args.as_slice() else {
            let what = if child.args.is_empty() { "it has no value" } else { "it has more than one value" };
            return self.report(child, &format!("{what}, so it is left out of the map; delete it or complete it"));
        };
        if self.mentions_unknown(child, &[&value.text], "the line is left out of the map") {
            return;
        }
        if !table.pair("entries", child.name(), text(child, &value.text)) {
            self.report(child, "the map has this line already; delete one of them");
        }
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

/// The reason of [`Convert::map`], for the lines that go with such a map.
pub(super) const UPGRADE_LINES: &str = UPGRADES;
