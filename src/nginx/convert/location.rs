//! Locations.

use super::toml::{Entry, Header, Item, Value};
use super::{Convert, Level, Outer, Scope, branch};
use crate::nginx::parse::Directive;

/// Keys of which a location needs one, or a `root` from outside.
const ANSWERS: &[&str] = &["proxy_pass", "return", "root", "alias", "rewrite", "try_files"];

impl Convert<'_> {
    /// A location and those in it; `depth` counts the tables around it.
    pub(super) fn location(
        &mut self,
        directive: &Directive,
        outer: &Outer,
        depth: usize,
    ) -> super::toml::Table {
        let mut header = vec!["server".to_owned()];
        header.extend(std::iter::repeat_n("location".to_owned(), depth));
        let mut scope = Scope::new(Level::Location, Header::Many(header), outer.clone());
        scope.table.comments = self.kept_comments(directive);
        scope.table.origin = Some(super::origin(directive));
        let path = path(directive);
        scope.outer.path = path.clone();
        scope.table.entries.push(Entry::new("path", super::text(directive, path)));
        self.location_body(&mut scope, directive.children(), depth);
        scope.table
    }

    /// What stands in a location.
    pub(super) fn location_body(&mut self, scope: &mut Scope, children: &[Directive], depth: usize) {
        let mut nested = Vec::new();
        let mut limits = Vec::new();
        for child in children {
            match child.name() {
                "location" => nested.push(child),
                "limit_except" => limits.push(child),
                "if" => self.r#if(scope, child),
                "types" => self.types(scope, child),
                _ => self.commented(scope, child),
            }
        }
        self.complete_types(scope);
        let all_steps = scope.clone();
        self.branches(scope);
        for limit in limits {
            let steps = std::mem::take(&mut scope.script);
            self.limit_except(scope, limit);
            scope.script.extend(steps);
        }
        self.finish(scope);
        let mut inner = all_steps.inner();
        inner.entries = branch::merged(&all_steps.outer.entries, &all_steps.table.entries);
        inner.entries.retain(|entry| {
            !matches!(entry.key.as_str(), "path" | "proxy_pass" | "alias" | "internal" | "try_files")
        });
        for child in nested {
            let table = self.location(child, &inner, depth + 1);
            scope.table.tables.push(table);
        }
    }

    /// A directive with the remarks of its author above it.
    pub(super) fn commented(&mut self, scope: &mut Scope, directive: &Directive) {
        let before = scope.table.entries.len();
        self.directive(scope, directive);
        let comments = self.kept_comments(directive);
        // A remark on what is needless would stand above something else.
        let is_of = |entry: &Entry| match super::refine::first_origin(&entry.item) {
            Some(origin) => origin.place == directive.name.place,
            None => !matches!(&entry.item.value, Value::Pairs(_)),
        };
        if let Some(entry) = scope.table.entries.get_mut(before).filter(|entry| is_of(entry)) {
            entry.comments.splice(0..0, comments);
        }
    }

    /// Comment lines above a directive, without lines of nginx that were switched off.
    pub(super) fn kept_comments(&self, directive: &Directive) -> Vec<String> {
        let is_text = |line: &&String| {
            let line = line.trim_end();
            !line.ends_with([';', '{', '}']) && line.chars().any(char::is_alphanumeric)
        };
        directive
            .comments
            .iter()
            .filter(is_text)
            .map(|line| line.trim_start_matches('#').to_owned())
            .collect()
    }

    /// The end of a location: its steps, and what it answers with.
    pub(super) fn finish(&mut self, scope: &mut Scope) {
        self.write_script(scope);
        self.settle_grpc(scope);
        self.proxied_with_tls(scope);
        if scope.table.has("proxy_pass") {
            self.proxies = true;
            self.default_host |= !scope.inner().sets_headers;
        }
        let is_named = scope.outer.path.starts_with('@');
        let answers = ANSWERS.iter().any(|key| scope.table.has(key));
        let has_folder = scope.table.has("root") || scope.table.has("alias");
        let asks_for_files =
            scope.table.entries.iter().any(|entry| entry.key == "try_files" || mentions_files(&entry.item));
        let looks_for_files = asks_for_files && !has_folder;
        if scope.refusal.is_none() && (!answers || looks_for_files) {
            self.serves_files |= !is_named;
            if !scope.outer.root {
                let root = super::paths::whole("html", &self.prefix);
                let entry = Entry::new("root", Item::new(Value::text(root)));
                scope
                    .table
                    .entries
                    .push(entry.comment("nginx's default: files from `html` below its prefix."));
            }
        }
        self.serves_files |= scope.table.has("root") || scope.table.has("alias");
        self.refuse_if_asked(scope);
    }

    /// What cannot be answered as nginx does is answered with a status alone; what would have answered
    /// stays as a comment.
    pub(super) fn refuse_if_asked(&mut self, scope: &mut Scope) {
        let Some(refusal) = scope.refusal.take() else { return };
        refuse(&mut scope.table, refusal.status, &refusal.comment);
    }
}

/// Whether a value needs to know where the files are.
fn mentions_files(item: &Item) -> bool {
    match &item.value {
        Value::Text(text) => {
            ["$document_root", "$request_filename", "$realpath_root"].iter().any(|name| text.contains(name))
        }
        Value::Bare(_) => false,
        Value::List(items) => items.iter().any(mentions_files),
        Value::Pairs(pairs) => pairs.iter().any(|(_, item)| mentions_files(item)),
    }
}

/// Makes a table answer with a status alone.
pub(super) fn refuse(table: &mut super::toml::Table, status: u16, comment: &str) {
    if table.find("return").is_some_and(|entry| entry.item.origin.is_none()) {
        return;
    }
    let keys = ["proxy_pass", "alias", "try_files", "set", "rewrite", "return"];
    for entry in &mut table.entries {
        entry.is_off |= keys.contains(&entry.key.as_str());
    }
    let first = |entry: &Entry| matches!(entry.key.as_str(), "path" | "listen" | "server_name");
    let at = table.entries.iter().rposition(first).map_or(0, |at| at + 1);
    let entry = Entry::new("return", Item::new(Value::text(status.to_string()))).comment(comment);
    table.entries.insert(at, entry);
}

/// `MODIFIER path`, with a blank between them as hopgate writes it.
fn path(directive: &Directive) -> String {
    let (first, second) = (directive.arg(0), directive.arg(1));
    if directive.args.len() > 1 {
        return format!("{first} {second}");
    }
    // nginx reads the modifier off a single word, too.
    for modifier in ["=", "^~", "~*", "~"] {
        if let Some(rest) = first.strip_prefix(modifier) {
            return format!("{modifier} {rest}");
        }
    }
    first.to_owned()
}
