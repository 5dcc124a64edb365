//! Whatever hopgate's own check does not take is reported in its words, and taken out, until all is right.

use std::collections::HashSet;

use super::Converted;
use super::location::refuse;
use super::toml::{Address, Entry, Header, Item, Origin, Table, Value};
use super::write::Written;
use crate::config::error::{Mistake, MistakeKind};
use crate::config::{Config, ConfigErrors};
use crate::nginx::directives;
use crate::nginx::parse::File;
use crate::nginx::report::Report;
use crate::nginx::{ImportError, Imported};

/// What a location or server answers with.
const CONTENT: &[&str] = &["proxy_pass", "root", "alias", "return", "rewrite", "set", "try_files"];

/// Stands above the status of what is not carried over.
const LOST: &str = "A line of nginx could not be carried over: see what import said of it.";

/// More rounds than any file needs: each takes something out.
const MOST_ROUNDS: usize = 500;

/// Checks what was written, and takes out what is refused.
///
/// # Errors
/// There is nothing left to take out, and it is still no configuration: that is a bug.
pub fn until_it_is_right(
    mut converted: Converted,
    files: &[File],
    check: impl Fn(&str) -> Result<Config, ConfigErrors>,
) -> Result<Imported, ImportError> {
    let mut rounds = 0..MOST_ROUNDS;
    loop {
        let written = converted.top.write();
        let errors = match check(&written.text) {
            Ok(_) => return Ok(imported(converted, written, files)),
            Err(errors) if errors.are_of_files() => {
                tell_files(&mut converted, &written, errors.mistakes());
                return Ok(imported(converted, written, files));
            }
            Err(errors) => errors,
        };
        let of_text = |mistake: &&Mistake| mistake.kind != MistakeKind::OfFile;
        let mistakes: Vec<&Mistake> = errors.mistakes().iter().filter(of_text).collect();
        if rounds.next().is_none() || !take_out(&mut converted, &written, &mistakes) {
            return Err(ImportError::Bug { toml: written.text, errors });
        }
    }
}

fn imported(mut converted: Converted, written: Written, files: &[File]) -> Imported {
    converted.reports.sort_by_key(|report| (report.place.file, report.place.span.start));
    converted.reports.dedup();
    Imported {
        toml: written.text,
        reports: converted.reports.iter().map(|report| report.line(files)).collect(),
        notes: converted.notes.iter().map(|note| note.line(files)).collect(),
    }
}

/// Files that are named and not here are no mistakes of the text: the import may run on another machine
/// than the configuration is for.
fn tell_files(converted: &mut Converted, written: &Written, mistakes: &[Mistake]) {
    for mistake in mistakes {
        let Some(address) = written.around(mistake.span.start).next() else { continue };
        let Some((entry, inner)) = address.inner.split_first() else { continue };
        let Some(table) = converted.top.at_mut(&address.tables) else { continue };
        let Some(entry) = table.entries.get(*entry) else { continue };
        let Some(origin) = nearest_origin(&entry.item, inner) else { continue };
        // The report begins with the directive, which mostly has the same name.
        let told = mistake.message.strip_prefix(&format!("`{}`: ", origin.directive));
        let text = format!(
            "{}; the line is in the result all the same, and `hopgate check` says this until the file is there",
            told.unwrap_or(&mistake.message)
        );
        converted.reports.push(Report::new(origin.place, &origin.directive, &text));
    }
}

/// Whether anything was taken out. Places are told before anything moves, so the last ones go first, and
/// of a table that begins to refuse only one.
fn take_out(converted: &mut Converted, written: &Written, mistakes: &[&Mistake]) -> bool {
    let mut found: Vec<(Address, &Mistake)> = Vec::new();
    for &mistake in mistakes {
        let Some(address) = written.around(mistake.span.start).next() else { continue };
        found.push((address.clone(), mistake));
    }
    // What a table lacks may be a consequence of what is wrong in it.
    if found.iter().any(|(address, _)| !address.inner.is_empty()) {
        found.retain(|(address, _)| !address.inner.is_empty());
    }
    found.sort_by(|(a, _), (b, _)| (&b.tables, &b.inner).cmp(&(&a.tables, &a.inner)));
    let mut seen: HashSet<(Vec<usize>, Option<usize>, Option<usize>)> = HashSet::new();
    let mut changed: HashSet<Vec<usize>> = HashSet::new();
    let mut is_done = false;
    for (address, mistake) in found {
        let part = (address.inner.first().copied(), address.inner.get(1).copied());
        // A whole entry goes, or some of its values; never both in one round.
        let whole = (address.tables.clone(), part.0, None);
        if changed.contains(&address.tables) || seen.contains(&whole) {
            continue;
        }
        if part.1.is_none()
            && seen.iter().any(|(tables, entry, _)| *tables == address.tables && *entry == part.0)
        {
            continue;
        }
        if !seen.insert((address.tables.clone(), part.0, part.1)) {
            continue;
        }
        if is_essential(&mut converted.top, &address) {
            changed.insert(address.tables.clone());
        }
        is_done |= take_one(converted, &address, mistake);
    }
    is_done
}

/// Whether the whole table changes with the entry.
fn is_essential(top: &mut Table, address: &Address) -> bool {
    let entry = address.inner.first().copied();
    let key = top.at_mut(&address.tables).and_then(|table| Some(table.entries.get(entry?)?.key.clone()));
    key.is_none_or(|key| key == "path" || refuses_without(&key))
}

fn take_one(converted: &mut Converted, address: &Address, mistake: &Mistake) -> bool {
    let Some((entry, inner)) = address.inner.split_first() else {
        return take_table(converted, address, mistake);
    };
    let Some(table) = converted.top.at_mut(&address.tables) else { return false };
    let Some(key) = table.entries.get(*entry).map(|entry| entry.key.clone()) else { return false };
    let origin = nearest_origin(&table.entries[*entry].item, inner).or_else(|| table.origin.clone());
    let is_location =
        matches!(&table.header, Header::Many(path) if path.last().is_some_and(|last| last == "location"));
    if key == "path" && is_location {
        say(&mut converted.reports, origin, mistake, "the location is left out");
        return remove_table(&mut converted.top, &address.tables);
    }
    if refuses_without(&key) && (is_location || is_server(table)) {
        say(&mut converted.reports, origin, mistake, "everything here is answered 503 instead");
        table.entries.remove(*entry);
        refuse(table, 503, LOST);
        return true;
    }
    if refuses_without(&key) && address.tables.is_empty() {
        say(&mut converted.reports, origin, mistake, "everything is answered 503 instead");
        table.entries.remove(*entry);
        let servers = table.tables.iter_mut().filter(|table| is_server(table));
        servers.for_each(|server| refuse(server, 503, LOST));
        return true;
    }
    say(&mut converted.reports, origin, mistake, "the line is left out");
    remove_value(table, *entry, inner);
    true
}

/// Whether a location or server must not be without a key that cannot be used: it refuses then.
fn refuses_without(key: &str) -> bool {
    CONTENT.contains(&key) || directives::GUARD_KEYS.contains(&key)
}

fn is_server(table: &Table) -> bool {
    matches!(&table.header, Header::Many(path) if path.len() == 1 && path[0] == "server")
}

/// Takes the innermost value out that has a directive of its own, or the whole entry.
fn remove_value(table: &mut Table, entry: usize, inner: &[usize]) {
    let item = &mut table.entries[entry].item;
    let depth = (1..=inner.len()).rev().find(|depth| origin_at(item, &inner[..*depth]).is_some());
    if let Some(depth) = depth {
        let (last, way) = (inner[depth - 1], &inner[..depth - 1]);
        let outer = way.iter().try_fold(&mut *item, |item, place| item.value.inner_mut(*place));
        if let Some(outer) = outer {
            outer.value.remove(last);
        }
        // An empty table of fields still replaces the one outside of it; an empty list says nothing.
        if !matches!(&item.value, Value::List(items) if items.is_empty()) {
            return;
        }
    }
    table.entries.remove(entry);
}

fn take_table(converted: &mut Converted, address: &Address, mistake: &Mistake) -> bool {
    if address.tables.is_empty() {
        return add_server(&mut converted.top);
    }
    let Some(table) = converted.top.at_mut(&address.tables) else { return false };
    let origin = table.origin.clone();
    let is_location =
        matches!(&table.header, Header::Many(path) if path.last().is_some_and(|last| last == "location"));
    if is_location && !table.has("return") {
        say(&mut converted.reports, origin, mistake, "everything here is answered 503 instead");
        refuse(table, 503, "This location could not be carried over: see what import said of it.");
        return true;
    }
    say(&mut converted.reports, origin, mistake, "it is left out");
    remove_table(&mut converted.top, &address.tables)
}

/// Nothing is left that could be served: a server that says so keeps the rest of the file.
fn add_server(top: &mut Table) -> bool {
    if top.tables.iter().any(is_server) {
        return false;
    }
    let mut server = Table::new(Header::Many(vec!["server".to_owned()]));
    server
        .comments
        .push("No server of the file is left: write the address and the locations that you mean.".to_owned());
    server.entries.push(Entry::new("listen", Item::new(Value::text("127.0.0.1:8080"))));
    server.entries.push(Entry::new("return", Item::new(Value::text("503"))));
    top.tables.push(server);
    true
}

fn remove_table(top: &mut Table, way: &[usize]) -> bool {
    let Some((last, way)) = way.split_last() else { return false };
    let Some(outer) = top.at_mut(way).filter(|outer| *last < outer.tables.len()) else { return false };
    outer.tables.remove(*last);
    true
}

fn origin_at<'a>(item: &'a Item, way: &[usize]) -> Option<&'a Origin> {
    let inner = way.iter().try_fold(item, |item, place| match &item.value {
        Value::List(items) => items.get(*place),
        Value::Pairs(pairs) => pairs.get(*place).map(|(_, item)| item),
        Value::Text(_) | Value::Bare(_) => None,
    });
    inner.and_then(|inner| inner.origin.as_ref())
}

/// Of the innermost value that has one.
fn nearest_origin(item: &Item, way: &[usize]) -> Option<Origin> {
    let around = (0..=way.len()).rev().find_map(|depth| origin_at(item, &way[..depth]));
    around.or_else(|| first_origin(item)).cloned()
}

/// Of the first value in it that has one.
pub(super) fn first_origin(item: &Item) -> Option<&Origin> {
    let inner = || match &item.value {
        Value::List(items) => items.iter().find_map(first_origin),
        Value::Pairs(pairs) => pairs.iter().find_map(|(_, item)| first_origin(item)),
        Value::Text(_) | Value::Bare(_) => None,
    };
    item.origin.as_ref().or_else(inner)
}

fn say(reports: &mut Vec<Report>, origin: Option<Origin>, mistake: &Mistake, follows: &str) {
    let Some(origin) = origin else { return };
    let help =
        mistake.help.as_ref().map_or_else(String::new, |help| format!("; {}", help.replace('\n', " ")));
    let text = format!("{}, so {follows}{help}", mistake.message);
    reports.push(Report::new(origin.place, &origin.directive, &text));
}
