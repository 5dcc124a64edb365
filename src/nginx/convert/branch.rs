//! `if` blocks that are more than steps, and `limit_except`: named locations that say the same.

use super::toml::{Entry, Header, Item, Table, Value};
use super::{Convert, Level, Scope, origin, script::Op};
use crate::nginx::parse::Directive;

/// Keys of a location that its named ones do not take over: nginx's `if` does not inherit them.
const OWN: &[&str] = &["path", "set", "rewrite", "return", "try_files", "internal"];

/// Keys by which a location answers.
const CONTENT: &[&str] = &["proxy_pass", "alias"];

impl Convert<'_> {
    /// Makes a named location for each `if` with more than steps in it, and a step that goes there.
    ///
    /// nginx goes on with the steps behind such a block, with the settings of the last block whose
    /// condition held. So the blocks are taken from the last to the first: what is behind one is ready then.
    pub(super) fn branches(&mut self, scope: &mut Scope) {
        let ops = std::mem::take(&mut scope.script);
        let needs_name = |op: &Op| matches!(op, Op::If { body, .. } if !body.is_empty());
        let mut names: Vec<String> =
            ops.iter().filter(|op| needs_name(op)).map(|_| self.name("if")).collect();
        let place = self.made.len();
        let mut behind: Vec<Op> = Vec::with_capacity(ops.len());
        for op in ops.into_iter().rev() {
            let ready = match op {
                Op::If { condition, then, body } if !body.is_empty() => {
                    let name = names.pop().unwrap_or_default();
                    let script = then.into_iter().chain(behind.iter().cloned()).collect();
                    let table = self.branch(scope, &name, &body, script, Level::If);
                    self.made.insert(place, table);
                    let goto = super::origin(&body[0]);
                    Op::If { condition, then: vec![Op::Goto(name, goto)], body: Vec::new() }
                }
                op => op,
            };
            behind.insert(0, ready);
        }
        scope.script = behind;
    }

    /// `limit_except METHOD … { … }`: the others go to a location with what stands in the block. nginx
    /// decides this before any step of the location.
    pub(super) fn limit_except(&mut self, scope: &mut Scope, directive: &Directive) {
        let mut methods: Vec<String> = directive.texts().map(str::to_ascii_uppercase).collect();
        if methods.iter().any(|method| method == "GET") && !methods.iter().any(|method| method == "HEAD") {
            methods.insert(1, "HEAD".to_owned());
        }
        let others = format!("$request_method !~ ^({})$", methods.join("|"));
        let condition = super::text(directive, others);
        let rules: Vec<String> = directive.children().iter().map(Directive::line).collect();
        let then = if rules == ["deny all"] {
            Op::Return(super::text(directive, "403"))
        } else {
            let name = self.name("limit_except");
            let table = self.branch(scope, &name, directive.children(), Vec::new(), Level::LimitExcept);
            self.made.push(table);
            Op::Goto(name, origin(directive))
        };
        if scope.script.is_empty() {
            // Before what answers, as a person would have it.
            scope.script_at = 1;
        }
        scope.script.insert(0, Op::If { condition, then: vec![then], body: Vec::new() });
    }

    fn name(&mut self, what: &str) -> String {
        loop {
            self.made_so_far += 1;
            let name = format!("@{what}_{}", self.made_so_far);
            if !self.facts.named_locations.contains(&name) {
                return name;
            }
        }
    }

    /// A named location with the settings of a scope, and of a block in it.
    fn branch(
        &mut self,
        outer: &Scope,
        name: &str,
        body: &[Directive],
        script: Vec<Op>,
        level: Level,
    ) -> Table {
        let mut scope =
            Scope::new(level, Header::Many(vec!["server".to_owned(), "location".to_owned()]), outer.inner());
        for directive in body.iter().filter(|directive| directive.block.is_none()) {
            self.directive(&mut scope, directive);
        }
        for directive in body.iter().filter(|directive| directive.block.is_some()) {
            self.report(directive, "a block cannot stand here; write it into the location");
        }
        let own = std::mem::take(&mut scope.table.entries);
        let returns = script.iter().find(|op| !matches!(op, Op::Set(..)));
        let answers = own.iter().any(|entry| CONTENT.contains(&entry.key.as_str()))
            || matches!(returns, Some(Op::Return(_)));
        let inherited = merged(&outer.outer.entries, &outer.table.entries).into_iter().filter(|entry| {
            let key = entry.key.as_str();
            let is_own = own.iter().any(|own| own.key == entry.key);
            !(is_own || OWN.contains(&key) || answers && CONTENT.contains(&key))
        });
        scope.table.entries = inherited.collect();
        scope.table.entries.extend(own);
        let path = Item::new(Value::text(name));
        scope.table.entries.insert(0, Entry::new("path", path));
        scope.script = script;
        scope.script_at = scope.table.entries.len();
        self.without_uri(outer, &mut scope);
        self.branches(&mut scope);
        self.finish(&mut scope);
        scope.table.comments.push(match level {
            Level::If => format!("nginx's `if` in location {}.", outer.outer.path),
            _ => format!("nginx's `limit_except` in location {}.", outer.outer.path),
        });
        scope.table
    }

    /// A named location has no path that a URI of `proxy_pass` could replace: a rewrite does it.
    fn without_uri(&mut self, outer: &Scope, scope: &mut Scope) {
        let Some(entry) = scope.table.entries.iter_mut().find(|entry| entry.key == "proxy_pass") else {
            return;
        };
        let Value::Text(url) = &entry.item.value else { return };
        let start = url.find("://").map_or(0, |at| at + 3);
        let Some(at) = url[start..].find('/').map(|at| start + at).filter(|_| !url.contains("unix:")) else {
            return;
        };
        if url.contains('$') {
            return;
        }
        let uri = url[at..].to_owned();
        let path = outer.outer.path.trim_start_matches("^~").trim().to_owned();
        entry.item.value = Value::text(&url[..at]);
        let origin = entry.item.origin.clone();
        let line = match path.strip_prefix('=') {
            Some(exact) => format!("^{}$ {uri} break", escaped(exact.trim())),
            None => format!("^{}(.*)$ {uri}$1 break", escaped(&path)),
        };
        scope.script.push(Op::Rewrite(Item { value: Value::text(line), origin }));
    }
}

/// Entries of an inner level over those of an outer one.
pub(super) fn merged(outer: &[Entry], inner: &[Entry]) -> Vec<Entry> {
    let kept = outer.iter().filter(|entry| !inner.iter().any(|own| own.key == entry.key));
    kept.chain(inner).filter(|entry| !entry.is_off).cloned().collect()
}

/// A text as a regular expression that matches it.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if "\\.+*?()[]{}|^$".contains(c) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

/// The location that nothing was made of.
pub(super) fn empty_location() -> Table {
    Table::new(Header::Many(vec!["server".to_owned(), "location".to_owned()]))
}
