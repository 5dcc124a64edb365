//! Who may come in: addresses, passwords, subrequests, limits, and what proxies say of the client.

use super::toml::{Header, Table};
use super::{Convert, Scope, bare, origin, paths, text};
use crate::nginx::parse::Directive;

/// `allow` and `deny`: a list, whose order counts.
pub fn rule(_: &mut Convert<'_>, scope: &mut Scope, directive: &Directive, key: &str) {
    scope.table.push(key, text(directive, directive.line()));
}

/// `satisfy all | any`
pub fn satisfy(_: &mut Convert<'_>, scope: &mut Scope, directive: &Directive, key: &str) {
    scope.set(key, text(directive, directive.arg(0)));
}

/// `auth_basic "realm" | off`
pub fn auth_basic(convert: &mut Convert<'_>, scope: &mut Scope, directive: &Directive, key: &str) {
    guarded(convert, scope, directive, key, directive.arg(0).to_owned());
}

/// `auth_basic_user_file`: relative paths begin where the file stands.
pub fn user_file(convert: &mut Convert<'_>, scope: &mut Scope, directive: &Directive, key: &str) {
    let path = paths::whole(directive.arg(0), &convert.folder);
    guarded(convert, scope, directive, key, path);
}

/// `auth_request URI | off`
pub fn auth_request(convert: &mut Convert<'_>, scope: &mut Scope, directive: &Directive, key: &str) {
    guarded(convert, scope, directive, key, directive.arg(0).to_owned());
}

fn guarded(convert: &mut Convert<'_>, scope: &mut Scope, directive: &Directive, key: &str, value: String) {
    if convert.mentions_unknown(directive, &[&value], "everything here is answered 403; write it anew") {
        let line = super::shortened(&directive.line());
        return scope
            .refuse(403, format!("Refused: nginx guards this with `{line}`, which cannot be carried over."));
    }
    scope.set(key, text(directive, value));
}

/// `auth_request_set $variable value`
pub fn auth_request_set(convert: &mut Convert<'_>, scope: &mut Scope, directive: &Directive, key: &str) {
    let name = directive.arg(0).trim_start_matches('$');
    if convert.mentions_unknown(directive, &[directive.arg(1)], "the variable is empty") {
        return;
    }
    if !scope.table.pair(key, name, text(directive, directive.arg(1))) {
        convert.report(directive, &format!("`${name}` is set twice here; the first one is carried over"));
    }
}

/// `limit_req_zone KEY zone=NAME:SIZE rate=RATE` and `limit_conn_zone KEY zone=NAME:SIZE`
pub fn zone(convert: &mut Convert<'_>, scope: &mut Scope, directive: &Directive, key: &str) {
    let value = |name: &str| directive.texts().find_map(|word| word.strip_prefix(name));
    let (name, _) = value("zone=").map_or(("", ""), |zone| zone.split_once(':').unwrap_or((zone, "")));
    if name.is_empty() {
        return convert.report(directive, "it has no `zone=NAME:SIZE`; write one");
    }
    if convert.mentions_unknown(directive, &[directive.arg(0)], "there is no such limit; write another key") {
        convert.facts.zones.remove(name);
        return;
    }
    let mut table = Table::new(Header::One(vec![key.to_owned(), name.to_owned()]));
    table.comments = convert.kept_comments(directive);
    table.origin = Some(origin(directive));
    table.entries.push(super::Entry::new("key", text(directive, directive.arg(0))));
    table.entries.extend(value("rate=").map(|rate| super::Entry::new("rate", text(directive, rate))));
    if value("sync").is_some() {
        convert.report(directive, "`sync`: limits are counted for each process");
    }
    scope.table.tables.push(table);
}

/// `limit_req zone=NAME [burst=N] [nodelay | delay=N]` and `limit_conn NAME N`
pub fn limit(convert: &mut Convert<'_>, scope: &mut Scope, directive: &Directive, key: &str) {
    let is_zone = |word: &&str| word.starts_with("zone=");
    let zone =
        directive.texts().find(is_zone).map_or(directive.arg(0), |word| &word["zone=".len()..]).to_owned();
    if !convert.facts.zones.contains(&zone) {
        let table = if directive.name() == "limit_req" { "limit_req_zone" } else { "limit_conn_zone" };
        let text = format!(
            "there is no zone `{zone}` in what was imported, so there is no limit here; write [{table}.{zone}]"
        );
        return convert.report(directive, &text);
    }
    let mut words = vec![zone.clone()];
    words.extend(directive.texts().filter(|word| !is_zone(word) && *word != zone).map(str::to_owned));
    scope.table.push(key, text(directive, words.join(" ")));
}

/// `set_real_ip_from`
pub fn real_ip_from(_: &mut Convert<'_>, scope: &mut Scope, directive: &Directive, key: &str) {
    scope.table.push(key, text(directive, directive.arg(0)));
}

/// `real_ip_header` and `real_ip_recursive`
pub fn real_ip(convert: &mut Convert<'_>, scope: &mut Scope, directive: &Directive, key: &str) {
    match (directive.name(), directive.arg(0)) {
        ("real_ip_header", "proxy_protocol") if !convert.facts.takes_proxy_protocol => {
            let why = "no `listen` of the file has `proxy_protocol`, so nobody names a client: add it where balancers \
                        connect that send its header, or delete this line";
            convert.report(directive, why);
            scope.set(key, text(directive, "proxy_protocol"));
        }
        ("real_ip_header", field) => scope.set(key, text(directive, field)),
        (_, flag) => scope.set(key, bare(directive, (flag == "on").to_string())),
    }
}

impl Convert<'_> {
    /// Who may connect by the PROXY protocol: those of `set_real_ip_from`, and in nginx everybody else, too.
    pub(super) fn settle_balancers(&mut self, scope: &mut Scope, children: &[Directive]) {
        let is_one = |child: &&Directive| {
            child.name() == "listen" && child.texts().skip(1).any(|word| word == "proxy_protocol")
        };
        let Some(listen) = children.iter().find(is_one) else { return };
        let inner = scope.inner();
        if !inner.trusts {
            let why = "nginx takes the PROXY protocol from anybody here, and so does the result: name your balancers \
                        in its trusted_proxies, and others are turned away";
            self.report(listen, why);
            let everybody = ["0.0.0.0/0", "::/0", "unix:"];
            scope.table.without(&["real_ip_header"]);
            scope.set("real_ip_header", text(listen, "proxy_protocol"));
            for whom in everybody {
                scope.table.push("trusted_proxies", text(listen, whom));
            }
        }
        if !(inner.trusts && inner.asks_balancer) {
            let why = "the client that the balancer names is $remote_addr here, for access rules, limits and logs, \
                        too; nginx has the balancer there without `real_ip_header proxy_protocol` and \
                        `set_real_ip_from`";
            self.report(listen, why);
        }
    }
}
