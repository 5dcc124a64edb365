//! The whole document: the process, nginx's defaults, groups, maps and servers.

use std::path::Path;

use super::facts::Facts;
use super::server::{is_of_servers, settle_names, texts};
use super::tls::has_word;
use super::toml::{BLANK, Entry, Header, Item, Table, Value};
use super::{Convert, Converted, Level, Outer, Scope, folder_of, text, tls};
use crate::nginx::directives::{self, State};
use crate::nginx::parse::{Directive, Parsed, Place};
use crate::nginx::report::Report;

/// Makes a document of a configuration; `path` is where its file stands, `prefix` where most relative
/// paths begin.
pub fn document(parsed: &Parsed, path: &Path, prefix: &Path) -> Converted {
    let mut convert = Convert {
        parsed,
        folder: folder_of(path),
        prefix: prefix.to_owned(),
        facts: Facts::of(&parsed.directives),
        reports: parsed.reports.clone(),
        notes: Vec::new(),
        made: Vec::new(),
        made_so_far: 0,
        default_host: false,
        proxies: false,
        serves_files: false,
        unverified: false,
        tells_names: false,
    };
    if parsed.directives.is_empty() && parsed.reports.is_empty() {
        let is_empty = parsed.files.first().is_none_or(|file| file.text.trim().is_empty());
        let what = if is_empty { "the file is empty" } else { "the file has nothing but comments" };
        let text = "nothing in it is to be served, so the result answers 503; is it the right file?";
        convert.reports.push(Report::new(Place { file: 0, span: 0..0 }, what, text));
    }
    let top = convert.top(path);
    let Convert { mut reports, notes, .. } = convert;
    reports.sort_by_key(|report| (report.place.file, report.place.span.start));
    reports.dedup();
    Converted { top, reports, notes }
}

/// `resolver`, `resolver_timeout`: there is one for the whole process, see `Convert::lift_resolver`.
pub fn resolver(_: &mut Convert<'_>, _: &mut Scope, _: &Directive, _: &str) {}

impl Convert<'_> {
    fn top(&mut self, path: &Path) -> Table {
        let parsed = self.parsed;
        let mut main = Scope::new(Level::Main, Header::Top, Outer::default());
        let mut http = Scope::new(Level::Http, Header::Top, Outer::default());
        let has_http = parsed.directives.iter().any(|directive| directive.name() == "http");
        let in_http: Vec<&Directive> = if has_http {
            for directive in parsed.directives.iter().filter(|directive| directive.name() != "http") {
                self.main_directive(&mut main, directive);
            }
            let blocks = parsed.directives.iter().filter(|directive| directive.name() == "http");
            blocks.flat_map(|block| block.children()).collect()
        } else {
            let (of_main, rest): (Vec<_>, Vec<_>) =
                parsed.directives.iter().partition(|directive| is_of_main(directive));
            for directive in of_main {
                self.main_directive(&mut main, directive);
            }
            rest
        };
        let children = self.http_body(&mut http, &in_http, has_http);
        self.lift_error_log(&mut main, &in_http);
        self.lift_resolver(&mut main, &in_http);
        let mut top = Table::new(Header::Top);
        top.entries = main.table.entries;
        let own = std::mem::take(&mut http.table.entries);
        let defaults = self.defaults(&own, &children, has_http);
        for mut part in [defaults, own] {
            if let Some(first) = part.first_mut().filter(|_| !top.entries.is_empty()) {
                first.comments.insert(0, BLANK.to_owned());
            }
            top.entries.extend(part);
        }
        top.tables = http.table.tables;
        top.tables.extend(children);
        top.comments = self.head(path, &top);
        top.shorten();
        top
    }

    fn main_directive(&mut self, main: &mut Scope, directive: &Directive) {
        match directive.name() {
            "events" => {
                self.directive(main, directive);
                for child in directive.children() {
                    match directives::find(child.name()) {
                        Some(State::Carried { .. } | State::Structure { .. }) | None => {
                            self.report(child, "it does not belong here")
                        }
                        Some(_) => self.directive(main, child),
                    }
                }
            }
            "stream" | "mail" => self.directive(main, directive),
            _ => self.commented(main, directive),
        }
    }

    /// What stands in `http`, and the tables behind it: groups, maps and servers in the file's order.
    fn http_body(&mut self, http: &mut Scope, directives: &[&Directive], has_http: bool) -> Vec<Table> {
        let has_server = directives.iter().any(|directive| directive.name() == "server");
        let is_bare = |directive: &&&Directive| is_of_servers(directive.name());
        let mut bare: Vec<Directive> = Vec::new();
        if !has_http && directives.iter().any(|directive| is_bare(&directive)) {
            // Beside a `server` only what cannot stand in `http` is taken for a part of one.
            let of_http = |name: &str| {
                matches!(name, "server" | "upstream" | "map" | "log_format" | "types")
                    || matches!(directives::find(name), Some(State::Carried { places: "H", .. }))
            };
            let own =
                |directive: &&&Directive| is_bare(directive) || !has_server && !of_http(directive.name());
            bare = directives.iter().filter(own).map(|directive| (**directive).clone()).collect();
        }
        let is_bare = |directive: &Directive| bare.iter().any(|own| own.name.place == directive.name.place);
        for directive in directives.iter().filter(|directive| !is_bare(directive)) {
            match directive.name() {
                "server" | "upstream" | "map" => {}
                "types" => self.types(http, directive),
                _ => self.commented(http, directive),
            }
        }
        self.complete_types(http);
        let outer = http.inner();
        let mut tables = Vec::new();
        let mut servers = Vec::new();
        for directive in directives.iter().filter(|directive| !is_bare(directive)) {
            match directive.name() {
                "upstream" => tables.extend(self.upstream(directive)),
                "map" => tables.extend(self.map(directive)),
                "server" if directive.block.is_some() => servers.extend(self.server(directive, &outer)),
                _ => {}
            }
        }
        if !bare.is_empty() || servers.is_empty() && !has_http {
            servers.push(self.implied_server(&bare, &outer));
        }
        settle_names(&mut servers, &mut self.reports);
        tls::settle_certificates(&mut servers, &http.table.entries, &mut self.reports);
        if let Some(refusal) = http.refusal.take() {
            for server in &mut servers {
                super::location::refuse(server, refusal.status, &refusal.comment);
            }
        }
        tables.extend(servers);
        tables
    }

    /// hopgate has one resolver, for all names. nginx asks its own only for names with `resolve` and for those that
    /// variables make: if there are none it was for something else, as the OCSP of certificates.
    fn lift_resolver(&mut self, main: &mut Scope, directives: &[&Directive]) {
        for name in ["resolver", "resolver_timeout"] {
            let mut found: Vec<Directive> = Vec::new();
            gather(directives.iter().copied(), name, &mut found);
            let Some(first) = found.first().cloned() else { continue };
            if !resolves(directives.iter().copied()) {
                let reason = "nginx asks it for no name in this file; those of upstreams are asked for as the \
                              system does it (/etc/resolv.conf)";
                found.iter().for_each(|other| self.needless(other, name, reason));
                continue;
            }
            for other in found.iter().filter(|other| other.line() != first.line()) {
                let text = format!(
                    "hopgate has one `{name}` for the whole process, and `{}` is in the result; if that one does \
                     not know the names here, run two hopgates",
                    first.line()
                );
                self.report(other, &text);
            }
            let (unknown, words): (Vec<&str>, Vec<&str>) =
                first.texts().partition(|word| word.starts_with("status_zone="));
            for word in unknown {
                self.report(
                    &first,
                    &format!("`{word}`: hopgate has nothing like it; the rest is carried over"),
                );
            }
            main.set(name, text(&first, words.join(" ")));
        }
    }

    /// hopgate has one error log. That of a server is lifted, if there is no other.
    fn lift_error_log(&mut self, main: &mut Scope, directives: &[&Directive]) {
        let mut logs: Vec<Directive> = Vec::new();
        gather(directives.iter().copied(), "error_log", &mut logs);
        let Some(first) = logs.first().cloned() else { return };
        let lines: Vec<String> = logs.iter().map(Directive::line).collect();
        if !main.table.has("error_log") && lines.iter().all(|line| *line == lines[0]) {
            return self.directive(main, &first);
        }
        for log in logs {
            let text =
                "hopgate has one error log for the whole process: see error_log at the top of the result";
            self.report(&log, text);
        }
    }

    /// nginx's defaults, where hopgate has others.
    fn defaults(&self, own: &[Entry], servers: &[Table], has_http: bool) -> Vec<Entry> {
        let servers: Vec<&Table> = servers.iter().filter(|table| is_server(table)).collect();
        let is_set = |key: &str| {
            own.iter().any(|entry| entry.key == key)
                || !servers.is_empty() && servers.iter().all(|server| server.has(key))
        };
        let mut defaults = Vec::new();
        let mut default = |key: &str, value: Value| {
            if !is_set(key) {
                defaults.push(Entry::new(key, Item::new(value)));
            }
        };
        default("client_max_body_size", Value::text("1m"));
        default("encoded_slashes", Value::text("pass"));
        if self.proxies {
            default("proxy_connect_timeout", Value::text("60s"));
            default("forwarded_headers", Value::text("pass"));
        }
        if self.default_host {
            let host = ("Host".to_owned(), Item::new(Value::text("$proxy_host")));
            default("proxy_set_header", Value::Pairs(vec![host]));
        }
        if self.unverified {
            default("proxy_ssl_verify", Value::Bare("false".to_owned()));
        }
        if self.facts.names.contains("set_real_ip_from") {
            default("real_ip_header", Value::text("X-Real-IP"));
            default("real_ip_recursive", Value::Bare("false".to_owned()));
        }
        if self.serves_files {
            default("default_type", Value::text("text/plain"));
        }
        // A part of a file is included by one that has `mime.types`.
        if self.serves_files && has_http && !self.parsed.standard_types {
            default("types", Value::Pairs(nginx_types()));
        }
        if let Some(verify) = defaults.iter_mut().find(|entry| entry.key == "proxy_ssl_verify") {
            let lines = [
                "nginx takes any certificate of an upstream, so that anybody between could be it. Delete the line,",
                "or name the CA in proxy_ssl_trusted_certificate, and it is verified:",
            ];
            verify.comments.extend(lines.map(str::to_owned));
        }
        if let Some(first) = defaults.first_mut() {
            first.comments.push("nginx's defaults, where hopgate has others:".to_owned());
        }
        defaults
    }

    /// The first lines of the file.
    fn head(&self, path: &Path, top: &Table) -> Vec<String> {
        let mut lines = vec![format!("Imported from {} by `hopgate import`.", path.display())];
        let files = self.parsed.files.len();
        if files > 1 {
            lines[0] = format!(
                "Imported from {} and {} it includes by `hopgate import`.",
                path.display(),
                count(files - 1)
            );
        }
        if self.proxies {
            lines.push(
                "WebSocket needs no line: a handshake in any location with proxy_pass is tunnelled."
                    .to_owned(),
            );
            let idle =
                "Idle tunnels end after an hour (tunnel_idle_timeout), where nginx ends them after 60s,";
            lines.push(idle.to_owned());
            lines.push("unless proxy_read_timeout or proxy_send_timeout says otherwise.".to_owned());
        }
        if top.tables.iter().any(|table| texts(table, "listen").iter().any(|listen| has_word(listen, "ssl")))
        {
            lines.push(
                "HTTP/2 is offered wherever TLS is, WebSocket included; http2 = false switches it off."
                    .to_owned(),
            );
        }
        if self.tells_names {
            lines.push(
                "Upstreams with TLS are told the name in proxy_pass (SNI), where nginx tells them none, unless".to_owned(),
            );
            lines.push("proxy_ssl_server_name = false says otherwise.".to_owned());
        }
        if !top.has("access_log") {
            lines.push(
                "What no access_log says goes to standard output, errors to standard error.".to_owned(),
            );
        }
        lines
    }
}

/// The types that nginx knows without its file `mime.types`.
fn nginx_types() -> Vec<(String, Item)> {
    let list = |end: &str| Item::new(Value::List(vec![Item::new(Value::text(end))]));
    let types = [("text/html", "html"), ("image/gif", "gif"), ("image/jpeg", "jpg")];
    types.map(|(kind, end)| (kind.to_owned(), list(end))).to_vec()
}

fn count(files: usize) -> String {
    if files == 1 { "a file".to_owned() } else { format!("{files} files") }
}

fn is_server(table: &Table) -> bool {
    matches!(&table.header, Header::Many(path) if path.len() == 1 && path[0] == "server")
}

/// Whether a directive can only stand outside of `http`.
fn is_of_main(directive: &Directive) -> bool {
    match directives::find(directive.name()) {
        Some(State::Carried { places, .. }) => *places == "M",
        Some(State::Needless(_)) => matches!(
            directive.name(),
            "events"
                | "user"
                | "pid"
                | "daemon"
                | "master_process"
                | "load_module"
                | "worker_rlimit_nofile"
                | "pcre_jit"
        ),
        _ => matches!(directive.name(), "stream" | "mail"),
    }
}

fn gather<'a>(directives: impl Iterator<Item = &'a Directive>, name: &str, found: &mut Vec<Directive>) {
    for directive in directives {
        if directive.name() == name {
            found.push(directive.clone());
        }
        gather(directive.children().iter(), name, found);
    }
}

/// Whether nginx would ask its `resolver` for anything.
fn resolves<'a>(directives: impl Iterator<Item = &'a Directive>) -> bool {
    let mut directives = directives;
    directives.any(|directive| {
        let is_named = match directive.name() {
            "proxy_pass" | "grpc_pass" => directive.arg(0).contains('$'),
            "server" => directive.block.is_none() && directive.texts().any(|word| word == "resolve"),
            _ => false,
        };
        is_named || resolves(directive.children().iter())
    })
}
