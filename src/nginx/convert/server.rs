//! Servers, and the one that a bare `location` stands in.

use std::collections::{HashMap, HashSet};

use super::toml::{Entry, Header, Item, Table, Value};
use super::{Convert, Level, Outer, Scope, branch, origin};
use crate::nginx::parse::Directive;
use crate::nginx::report::Report;

impl Convert<'_> {
    /// `server { … }`
    pub(super) fn server(&mut self, directive: &Directive, outer: &Outer) -> Option<Table> {
        let mut scope = self.server_scope(outer);
        scope.table.comments = self.kept_comments(directive);
        scope.table.origin = Some(origin(directive));
        self.server_body(&mut scope, directive.children());
        if !directive.children().iter().any(|child| child.name() == "listen") {
            let text = "no `listen` in this server, and nginx's default is every IPv4 address on port 80 \
                        (8000 if it does not run as root): that is what the result has; write the address you mean";
            self.report(directive, text);
            let entry = Entry::new("listen", super::text(directive, "*:80"));
            scope.table.entries.insert(0, entry.comment("nginx's default, as its file has no `listen`."));
        } else if !scope.table.has("listen") {
            self.report(directive, "no address of it can be carried over, so it is left out; give it one");
            return None;
        }
        Some(scope.table)
    }

    pub(super) fn server_scope(&mut self, outer: &Outer) -> Scope {
        self.made.clear();
        self.made_so_far = 0;
        Scope::new(Level::Server, Header::Many(vec!["server".to_owned()]), outer.clone())
    }

    /// What stands in a server.
    pub(super) fn server_body(&mut self, scope: &mut Scope, children: &[Directive]) {
        for child in children {
            match child.name() {
                "location" => {}
                "if" => self.r#if(scope, child),
                "types" => self.types(scope, child),
                _ => self.commented(scope, child),
            }
        }
        self.complete_types(scope);
        self.settle_tls(scope);
        self.settle_balancers(scope, children);
        let try_files = self.take(scope, "try_files");
        self.write_script(scope);
        let inner = scope.inner();
        let mut has_root_location = false;
        for child in children.iter().filter(|child| child.name() == "location") {
            let table = self.location(child, &inner, 1);
            let path = table.find("path").map(|entry| entry.item.value.clone());
            has_root_location |= matches!(path, Some(Value::Text(path)) if path == "/" || path == "^~ /");
            scope.table.tables.push(table);
        }
        if !has_root_location {
            self.rest_of_the_paths(scope, children, try_files);
        } else if let Some(entry) = try_files {
            self.drop_try_files(&entry);
        }
        scope.table.tables.append(&mut self.made);
        self.refuse_if_asked(scope);
        // Certbot writes `listen` last.
        scope.table.entries.sort_by_key(|entry| match entry.key.as_str() {
            "listen" => 0,
            "server_name" => 1,
            _ => 2,
        });
    }

    fn take(&mut self, scope: &mut Scope, key: &str) -> Option<Entry> {
        let place = scope.table.entries.iter().position(|entry| entry.key == key)?;
        Some(scope.table.entries.remove(place))
    }

    /// `try_files` of a server is for paths without a location, and every path has one.
    fn drop_try_files(&mut self, entry: &Entry) {
        if let Some(origin) = &entry.item.origin {
            let text = "every path of this server has a location, so it is never reached: delete it";
            self.reports.push(Report::new(origin.place.clone(), &origin.directive, text));
        }
    }

    /// A path without a location is answered by the server itself in nginx, from its files.
    fn rest_of_the_paths(&mut self, scope: &mut Scope, children: &[Directive], try_files: Option<Entry>) {
        let always_returns = scope.table.has("return");
        if always_returns || !scope.outer.root && !scope.table.has("root") && try_files.is_none() {
            return;
        }
        let mut table = branch::empty_location();
        table.entries.push(Entry::new("path", Item::new(Value::text("/"))));
        let has_locations = children.iter().any(|child| child.name() == "location");
        if has_locations {
            table.comments.push("All other paths: nginx serves the files of the server.".to_owned());
        }
        table.entries.extend(try_files);
        self.serves_files = true;
        scope.table.tables.push(table);
    }

    /// A server for what people paste without one.
    pub(super) fn implied_server(&mut self, children: &[Directive], outer: &Outer) -> Table {
        let mut scope = self.server_scope(outer);
        let in_location = children.iter().any(|child| is_of_locations(child.name()));
        if in_location {
            let (of_server, of_location): (Vec<_>, Vec<_>) = children
                .iter()
                .cloned()
                .partition(|child| matches!(child.name(), "location" | "listen" | "server_name"));
            self.server_body(&mut scope, &of_server);
            let mut location = Scope::new(Level::Location, branch::empty_location().header, scope.inner());
            location.outer.path = "/".to_owned();
            location.table.entries.push(Entry::new("path", Item::new(Value::text("/"))));
            self.location_body(&mut location, &of_location, 1);
            location
                .table
                .comments
                .push("The lines stood in no location: they hold for every path now.".to_owned());
            scope.table.tables.push(location.table);
            scope.table.tables.append(&mut self.made);
        } else {
            self.server_body(&mut scope, children);
        }
        if scope.table.tables.is_empty() && !scope.table.has("return") {
            let mut location = branch::empty_location();
            location.entries.push(Entry::new("path", Item::new(Value::text("/"))));
            let entry = Entry::new("return", Item::new(Value::text("503")));
            location
                .entries
                .push(entry.comment("Write where requests go: proxy_pass = \"http://127.0.0.1:3000\""));
            scope.table.tables.push(location);
        }
        if !scope.table.has("listen") {
            let entry = Entry::new("listen", Item::new(Value::text("127.0.0.1:8080")));
            scope.table.entries.insert(0, entry);
            scope.table.comments.push(
                "The file has no `server` around this: write the address and the name you mean.".to_owned(),
            );
        }
        scope.table
    }
}

/// Whether a directive can stand in a location and nowhere outside.
pub(super) fn is_of_locations(name: &str) -> bool {
    matches!(name, "proxy_pass" | "grpc_pass" | "alias" | "internal" | "limit_except")
        || matches!(crate::nginx::directives::find(name), Some(crate::nginx::directives::State::Handler(..)))
}

/// Whether a directive belongs into a server, or further inside.
pub(super) fn is_of_servers(name: &str) -> bool {
    is_of_locations(name)
        || matches!(
            name,
            "location"
                | "listen"
                | "server_name"
                | "try_files"
                | "return"
                | "rewrite"
                | "set"
                | "if"
                | "break"
        )
}

/// nginx gives a name that several servers on an address have to the first of them, with a warning.
/// hopgate takes no such file, so the later ones lose it here.
pub(super) fn settle_names(servers: &mut Vec<Table>, reports: &mut Vec<Report>) {
    let mut taken: HashMap<String, HashSet<String>> = HashMap::new();
    let mut unreachable = Vec::new();
    for (number, server) in servers.iter_mut().enumerate() {
        let listens = texts(server, "listen");
        let names = texts(server, "server_name");
        let keys: Vec<String> = if names.is_empty() { vec![String::new()] } else { names };
        let keys: Vec<String> = keys.iter().map(|name| name.to_ascii_lowercase()).collect();
        let free = |listen: &String, name: &String| {
            !taken.get(&socket(listen)).is_some_and(|names| names.contains(name))
        };
        let is_default = |listen: &String| listen.ends_with(" default_server");
        let lost: Vec<usize> = (0..listens.len())
            .filter(|place| {
                !is_default(&listens[*place]) && !keys.iter().any(|name| free(&listens[*place], name))
            })
            .collect();
        let left: Vec<&String> = listens
            .iter()
            .enumerate()
            .filter(|(place, _)| !lost.contains(place))
            .map(|(_, listen)| listen)
            .collect();
        let twice: Vec<usize> = (0..keys.len())
            .filter(|place| {
                !keys[*place].is_empty() && left.iter().any(|listen| !free(listen, &keys[*place]))
            })
            .collect();
        if left.is_empty() {
            unreachable.push(number);
        }
        for listen in left {
            taken.entry(socket(listen)).or_default().extend(keys.iter().cloned());
        }
        remove(
            server,
            "listen",
            &lost,
            reports,
            "an earlier server has the same names there, so nginx never gets here",
        );
        remove(
            server,
            "server_name",
            &twice,
            reports,
            "an earlier server has the name on this address, as nginx warns",
        );
    }
    for number in unreachable.into_iter().rev() {
        servers.remove(number);
    }
}

/// The same socket is written in several ways.
pub(super) fn socket(listen: &str) -> String {
    let address = listen.split(' ').next().unwrap_or(listen);
    crate::config::units::listen_address(address)
        .map_or_else(|_| address.to_owned(), |address| address.to_string())
}

pub(super) fn texts(table: &Table, key: &str) -> Vec<String> {
    let Some(entry) = table.find(key) else { return Vec::new() };
    let text = |item: &Item| if let Value::Text(text) = &item.value { text.clone() } else { String::new() };
    match &entry.item.value {
        Value::List(items) => items.iter().map(text).collect(),
        _ => vec![text(&entry.item)],
    }
}

fn remove(table: &mut Table, key: &str, places: &[usize], reports: &mut Vec<Report>, why: &str) {
    let Some(entry) = table.entries.iter_mut().find(|entry| entry.key == key && !entry.is_off) else {
        return;
    };
    for place in places.iter().rev() {
        let item = match &mut entry.item.value {
            Value::List(items) if *place < items.len() => items.remove(*place),
            _ => entry.item.clone(),
        };
        if let (Some(origin), Value::Text(text)) = (item.origin, item.value) {
            reports.push(Report::new(
                origin.place,
                &origin.directive,
                &format!("`{text}`: {why}: delete it"),
            ));
        }
    }
    if entry.item.value.is_empty() || !places.is_empty() && matches!(entry.item.value, Value::Text(_)) {
        table.without(&[key]);
    }
}
