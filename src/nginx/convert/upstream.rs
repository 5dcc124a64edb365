//! Groups of upstream servers.

use super::toml::{Entry, Header, Item, Table, Value};
use super::{Convert, Level, Outer, Scope, bare, origin, text};
use crate::config::units;
use crate::nginx::parse::Directive;

impl Convert<'_> {
    /// `upstream NAME { … }`
    pub(super) fn upstream(&mut self, directive: &Directive) -> Option<Table> {
        if self.facts.of_gateways.contains(&directive.arg(0).to_ascii_lowercase()) {
            let text = "nothing speaks HTTP with it, so it is left out with what is not carried over";
            self.report(directive, text);
            return None;
        }
        let header = Header::One(vec!["upstream".to_owned(), directive.arg(0).to_owned()]);
        let mut scope = Scope::new(Level::Upstream, header, Outer::default());
        scope.table.comments = self.kept_comments(directive);
        scope.table.origin = Some(origin(directive));
        for child in directive.children() {
            if child.name() == "server" && child.block.is_none() {
                self.upstream_server(&mut scope, child);
            } else if is_address(child) {
                let text =
                    format!("an address without `server` before it: taken for `server {};`", child.line());
                self.report(child, &text);
                let words = [&child.name].into_iter().chain(&child.args).cloned().collect();
                let meant = Directive { args: words, ..child.clone() };
                self.upstream_server(&mut scope, &meant);
            } else {
                self.commented(&mut scope, child);
            }
        }
        if !scope.table.has("server") {
            self.report(
                directive,
                "no server of it could be carried over: what is sent there is answered 502",
            );
            let entry = Entry::new("server", text(directive, "127.0.0.1:9 down"));
            scope.table.entries.push(entry.comment("None of nginx's servers could be carried over."));
        }
        Some(scope.table)
    }

    fn upstream_server(&mut self, scope: &mut Scope, directive: &Directive) {
        let mut words = vec![directive.arg(0).to_owned()];
        for word in directive.texts().skip(1) {
            match word.split('=').next().unwrap_or(word) {
                "weight" | "max_fails" | "fail_timeout" | "max_conns" | "service" | "backup" | "down" => {
                    words.push(word.to_owned())
                }
                "resolve" => {
                    let reason = "names are always resolved again, as their TTL says";
                    self.needless(directive, "server … resolve", reason);
                }
                "slow_start" => self
                    .report(directive, "`slow_start`: a server that comes back gets its whole share at once"),
                _ => self.report(
                    directive,
                    &format!("`{word}`: hopgate has nothing like it; the server is carried over without"),
                ),
            }
        }
        if directive.arg(0).is_empty() {
            return self.report(directive, "it has no address; write `server 127.0.0.1:3000;`");
        }
        scope.table.push("server", text(directive, words.join(" ")));
        for comment in self.kept_comments(directive) {
            scope.table.entry("server", Value::List(Vec::new())).comments.push(comment);
        }
    }
}

/// `ip_hash`, `least_conn`, `hash KEY [consistent]`, `random [two [METHOD]]`
pub fn choice(convert: &mut Convert<'_>, scope: &mut Scope, directive: &Directive, key: &str) {
    let words = directive.texts().collect::<Vec<_>>().join(" ");
    if words.is_empty() {
        return scope.set(key, bare(directive, "true"));
    }
    if convert.mentions_unknown(directive, &[&words], "the servers are chosen in turn") {
        return;
    }
    let words = words.replace("two least_time=header", "two").replace("two least_time=last_byte", "two");
    scope.set(key, Item::from(Value::text(words), origin(directive)));
}

/// Whether a line that is no directive reads like the address of a server: `192.168.3.1:3000;`
pub(crate) fn is_address(directive: &Directive) -> bool {
    let name = directive.name();
    let looks = name.contains(['.', ':']) || name == "localhost";
    directive.block.is_none() && looks && units::upstream_address(name).is_ok()
}
