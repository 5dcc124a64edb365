//! Generated servers, in nginx's language and in hopgate's, and requests that put them to the test.

use std::collections::HashSet;
use std::fmt::Write as _;

use fastrand::Rng;

/// What listens on one socket.
pub struct World {
    pub servers: Vec<Server>,
}

pub struct Server {
    /// As in `server_name`.
    pub names: Vec<String>,
    pub is_default: bool,
    pub locations: Vec<Location>,
}

pub struct Location {
    /// As in `location`: modifier and path.
    pub matcher: Matcher,
    /// What makes its answers different from those of all others.
    pub name: String,
    pub content: Content,
    pub nested: Vec<Location>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Matcher {
    Exact(String),
    Prefix(String),
    PrefixBeforeRegex(String),
    Regex(&'static str),
    RegexAnyCase(&'static str),
}

pub enum Content {
    /// `return 200` with its own name.
    Text,
    /// `proxy_pass`, with this URI part.
    Proxy(&'static str),
}

// What worlds are made of: few enough words that they meet often.
const SEGMENTS: [&str; 16] =
    ["a", "b", "ab", "abc", "A", "B", "c.gif", "c.GIF", "x.php", "api", "ws", "v1", "a b", "é", "a+b", "~me"];
const REGEXES: [(&str, &str); 20] = [
    (r"\.gif$", "/a/c.gif"),
    (r"\.(gif|php)$", "/x.php"),
    (r"^/a", "/abc"),
    (r"^/ab?/", "/ab/x"),
    (r"/b$", "/a/b"),
    (r"^/(a|b)/(\w+)", "/b/abc"),
    (r"^/(?<seg>[^/]+)/c", "/api/c"),
    (r"^/(?<first>\w+)/(?<second>\w+)/?$", "/api/v1/"),
    (r"A", "/A"),
    (r"//", "//"),
    (r"\s", "/a%20b"),
    (r"^/api/v(\d+)", "/api/v12/x"),
    (r"é", "/%C3%A9"),
    (r"^/$", "/"),
    (r"[^a]$", "/ab"),
    (r"(?i)ABC", "/aBc"),
    (r"^/b/(.*)\.php$", "/b/x/y.php"),
    (r"^/a(?!b)", "/ac"),
    (r"(\w)\1", "/aab"),
    (r"^/ws(?:/|$)", "/ws/"),
];
const URIS: [&str; 6] = ["", "", "/", "/up", "/up/", "/deep/up/"];

// Making them.
impl World {
    /// Servers for which hosts are chosen: many names, one location each.
    pub fn of_names(rng: &mut Rng, name: &str) -> Self {
        let mut taken = HashSet::new();
        let count = rng.usize(2..8);
        let default = rng.usize(0..count);
        let explicit = rng.bool();
        let server = |index| Server {
            names: server_names(rng, &mut taken, index),
            is_default: explicit && index == default,
            locations: vec![Location {
                matcher: Matcher::Prefix("/".into()),
                name: format!("{name}s{index}"),
                content: Content::Text,
                nested: Vec::new(),
            }],
        };
        Self { servers: (0..count).map(server).collect() }
    }

    /// One server with a set of locations.
    pub fn of_locations(rng: &mut Rng, name: &str) -> Self {
        let count = rng.usize(1..9);
        let locations = locations(rng, name, "", count, 0);
        let server = Server { names: vec!["world.test".into()], is_default: false, locations };
        Self { servers: vec![server] }
    }
}

/// A server without a name has the empty one.
fn server_names(rng: &mut Rng, taken: &mut HashSet<String>, index: usize) -> Vec<String> {
    let mut names: Vec<String> = (0..rng.usize(0..4)).filter_map(|_| server_name(rng, taken)).collect();
    if names.is_empty() && !taken.insert(String::new()) {
        names.push(format!("other{index}.test"));
    }
    names
}

fn server_name(rng: &mut Rng, taken: &mut HashSet<String>) -> Option<String> {
    const LABELS: [&str; 7] = ["a", "b", "www", "example", "deep", "x-1", "a_b"];
    const REGEXES: [&str; 6] = [
        r"~^(?<user>\w+)\.example\.test$",
        r"~^a\.",
        r"~\.b\.",
        r"~^WWW\d*\.",
        r"~^(.+)\.x-1\.test$",
        r"~^[^.]+$",
    ];
    let some = |rng: &mut Rng, n| {
        let labels: Vec<&str> = (0..n).map(|_| LABELS[rng.usize(..LABELS.len())]).collect();
        labels.join(".")
    };
    let number = rng.usize(1..4);
    let name = match rng.usize(0..12) {
        0..5 => format!("{}.test", some(rng, number)),
        5..7 => format!("*.{}.test", some(rng, number)),
        7..9 => format!("{}.*", some(rng, number)),
        9 => format!(".{}.test", some(rng, number)),
        10 => REGEXES[rng.usize(..REGEXES.len())].into(),
        _ => String::new(),
    };
    // Two servers with the same name are a mistake to hopgate, and a warning to nginx.
    let claims = match name.strip_prefix('.') {
        Some(rest) => vec![rest.to_owned(), format!("*.{rest}")],
        None => vec![name.clone()],
    };
    let is_new = claims.iter().all(|claim| !taken.contains(claim));
    taken.extend(claims);
    is_new.then_some(name)
}

/// Locations whose paths all begin with `within`, as nginx demands of nested ones.
fn locations(rng: &mut Rng, name: &str, within: &str, count: usize, depth: usize) -> Vec<Location> {
    let mut taken = HashSet::new();
    let mut made = Vec::new();
    for index in 0..count {
        let matcher = matcher(rng, within);
        let key = match &matcher {
            Matcher::Exact(path) => format!("={path}"),
            // With and without `^~` it is the same prefix.
            Matcher::Prefix(path) | Matcher::PrefixBeforeRegex(path) => path.clone(),
            Matcher::Regex(regex) | Matcher::RegexAnyCase(regex) => format!("~{regex}"),
        };
        if !taken.insert(key) {
            continue;
        }
        let name = format!("{name}l{index}");
        let content = match (&matcher, rng.usize(0..3)) {
            (_, 0 | 1) => Content::Text,
            (Matcher::Regex(_) | Matcher::RegexAnyCase(_), _) => Content::Proxy(""),
            _ => Content::Proxy(URIS[rng.usize(..URIS.len())]),
        };
        let nested = match &matcher {
            Matcher::Prefix(path) | Matcher::PrefixBeforeRegex(path) if depth < 2 && rng.usize(0..4) == 0 => {
                let count = rng.usize(1..4);
                locations(rng, &name, path, count, depth + 1)
            }
            _ => Vec::new(),
        };
        made.push(Location { matcher, name, content, nested });
    }
    made
}

fn matcher(rng: &mut Rng, within: &str) -> Matcher {
    let regex = REGEXES[rng.usize(..REGEXES.len())].0;
    match rng.usize(0..10) {
        0..2 => Matcher::Exact(path(rng, within)),
        2..6 => Matcher::Prefix(path(rng, within)),
        6 => Matcher::PrefixBeforeRegex(path(rng, within)),
        7..9 => Matcher::Regex(regex),
        _ => Matcher::RegexAnyCase(regex),
    }
}

/// A decoded path, often with a slash at its end, at times in the middle of a segment.
fn path(rng: &mut Rng, within: &str) -> String {
    let mut path = within.to_owned();
    for _ in 0..rng.usize(0..4) {
        if !path.ends_with('/') {
            path.push('/');
        }
        path.push_str(SEGMENTS[rng.usize(..SEGMENTS.len())]);
    }
    if path.is_empty() || (!path.ends_with('/') && rng.bool()) {
        path.push('/');
    }
    path
}

// In nginx's language.
impl World {
    /// The `server` blocks, on this socket.
    pub fn nginx(&self, socket: &str) -> String {
        let mut text = String::new();
        for server in &self.servers {
            let default = if server.is_default { " default_server" } else { "" };
            let names: String = server.names.iter().map(|name| format!(" \"{name}\"")).collect();
            let _ = writeln!(text, "server {{\n    listen unix:{socket}{default};");
            if !names.is_empty() {
                let _ = writeln!(text, "    server_name{names};");
            }
            server.locations.iter().for_each(|location| location.nginx(&mut text, 1));
            text.push_str("}\n");
        }
        text
    }
}

impl Location {
    fn nginx(&self, text: &mut String, depth: usize) {
        let indent = "    ".repeat(depth);
        let matcher = match &self.matcher {
            Matcher::Exact(path) => format!("= \"{path}\""),
            Matcher::Prefix(path) => format!("\"{path}\""),
            Matcher::PrefixBeforeRegex(path) => format!("^~ \"{path}\""),
            Matcher::Regex(regex) => format!("~ \"{regex}\""),
            Matcher::RegexAnyCase(regex) => format!("~* \"{regex}\""),
        };
        let _ = writeln!(text, "{indent}location {matcher} {{");
        let says = self.says();
        let _ = match self.content {
            Content::Text => writeln!(text, "{indent}    return 200 \"{says}\";"),
            Content::Proxy(uri) => writeln!(
                text,
                "{indent}    proxy_pass http://app{uri};\n{indent}    proxy_set_header X-Location \"{says}\";\n\
                 {indent}    proxy_http_version 1.1;\n{indent}    proxy_set_header Connection \"\";"
            ),
        };
        self.nested.iter().for_each(|nested| nested.nginx(text, depth + 1));
        let _ = writeln!(text, "{indent}}}");
    }

    /// Its name, the path that it was chosen for, and what its regex has found.
    fn says(&self) -> String {
        let found = match &self.matcher {
            Matcher::Regex(regex) | Matcher::RegexAnyCase(regex) => captures(regex),
            _ => "",
        };
        format!("{} <$uri>{found}", self.name)
    }
}

fn captures(regex: &str) -> &'static str {
    match regex {
        r"^/(?<seg>[^/]+)/c" => " $seg",
        r"^/(?<first>\w+)/(?<second>\w+)/?$" => " $second $first $1",
        regex if regex.matches('(').count() == 2 => " $1 $2",
        regex if regex.contains('(') && !regex.contains("(?") => " $1",
        _ => "",
    }
}

// In hopgate's.
impl World {
    /// The `[[server]]` tables, on this socket.
    pub fn toml(&self, socket: &str) -> String {
        let mut text = String::new();
        for server in &self.servers {
            let default = if server.is_default { " default_server" } else { "" };
            let _ = writeln!(text, "[[server]]\nlisten = \"unix:{socket}{default}\"");
            if !server.names.is_empty() {
                let _ = writeln!(text, "server_name = {:?}", server.names);
            }
            server.locations.iter().for_each(|location| location.toml(&mut text, "server"));
        }
        text
    }
}

impl Location {
    fn toml(&self, text: &mut String, table: &str) {
        let matcher = match &self.matcher {
            Matcher::Exact(path) => format!("= {path}"),
            Matcher::Prefix(path) => path.clone(),
            Matcher::PrefixBeforeRegex(path) => format!("^~ {path}"),
            Matcher::Regex(regex) => format!("~ {regex}"),
            Matcher::RegexAnyCase(regex) => format!("~* {regex}"),
        };
        let table = format!("{table}.location");
        let says = self.says();
        let _ = writeln!(text, "[[{table}]]\npath = '{matcher}'");
        let _ = match self.content {
            Content::Text => writeln!(text, "return = {{ status = 200, text = \"{says}\" }}"),
            Content::Proxy(uri) => writeln!(
                text,
                "proxy_pass = \"http://app{uri}\"\nproxy_set_header = {{ X-Location = \"{says}\" }}"
            ),
        };
        self.nested.iter().for_each(|nested| nested.toml(text, &table));
    }
}

/// What one client asks.
pub struct Ask {
    pub host: Option<String>,
    pub target: String,
    /// Further field lines, each with its end.
    pub fields: String,
}

impl std::fmt::Display for Ask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let host = self.host.as_deref().unwrap_or("nobody");
        write!(f, "{} of {host} {}", self.target, self.fields.replace("\r\n", "; "))
    }
}

// Asking.
impl World {
    /// A request that comes close to one of the names or locations.
    pub fn ask(&self, rng: &mut Rng) -> Ask {
        let server = &self.servers[rng.usize(..self.servers.len())];
        if self.servers.len() > 1 {
            return Ask { host: host(rng, &server.names), target: "/".into(), fields: String::new() };
        }
        let mut paths = Vec::new();
        server.locations.iter().for_each(|location| location.paths(&mut paths));
        let mut target = match rng.usize(0..10) {
            0 => path(rng, ""),
            _ => paths[rng.usize(..paths.len())].clone(),
        };
        target = target.replace(' ', "%20");
        if rng.bool() {
            target.push_str(SEGMENTS[rng.usize(..SEGMENTS.len())].split(' ').next().unwrap_or_default());
        }
        for _ in 0..rng.usize(0..4) {
            mutate(rng, &mut target);
        }
        if rng.usize(0..6) == 0 {
            target.push_str(["?", "?a=b", "?a=/../b//c", "?x=%20y", "?a?b"][rng.usize(..5)]);
        }
        if rng.usize(0..40) == 0 {
            target = format!("http://world.test{target}");
        }
        Ask { host: Some("world.test".into()), target, fields: String::new() }
    }
}

impl Location {
    fn paths(&self, paths: &mut Vec<String>) {
        paths.push(match &self.matcher {
            Matcher::Exact(path) | Matcher::Prefix(path) | Matcher::PrefixBeforeRegex(path) => path.clone(),
            Matcher::Regex(regex) | Matcher::RegexAnyCase(regex) => {
                let example = REGEXES.iter().find(|(known, _)| known == regex);
                example.map_or_else(String::new, |(_, example)| (*example).to_owned())
            }
        });
        self.nested.iter().for_each(|nested| nested.paths(paths));
    }
}

fn host(rng: &mut Rng, names: &[String]) -> Option<String> {
    const OTHERS: [&str; 8] =
        ["localhost", "127.0.0.1", "[::1]", "test", "a.test", "www.example.test", "nobody.b.test", "www7.b"];
    let name = match names {
        [] => "",
        names => &names[rng.usize(..names.len())],
    };
    let mut host = match name.strip_prefix('~') {
        None if !name.is_empty() => {
            let part = ["a", "b.deep", "www", "A"][rng.usize(..4)];
            match name.strip_prefix('.') {
                Some(rest) if rng.bool() => rest.to_owned(),
                Some(rest) => format!("{part}.{rest}"),
                None => name.replace('*', part),
            }
        }
        _ => OTHERS[rng.usize(..OTHERS.len())].to_owned(),
    };
    match rng.usize(0..14) {
        0 => host = host.to_uppercase(),
        1 => host.push('.'),
        2 => host.push_str(":80"),
        3 => host.push_str(".:8080"),
        4 => host = format!("a.{host}"),
        5 => host.push_str(".test"),
        6 => host = host.split_once('.').map_or_else(|| host.clone(), |(_, rest)| rest.to_owned()),
        7 => return None,
        _ => {}
    }
    Some(host)
}

fn mutate(rng: &mut Rng, target: &mut String) {
    // Only between characters, and behind the first slash.
    let places: Vec<usize> = target.char_indices().map(|(at, _)| at).filter(|at| *at > 0).collect();
    let at = if places.is_empty() { target.len() } else { places[rng.usize(..places.len())] };
    let insert = |target: &mut String, text: &str| target.insert_str(at, text);
    match rng.usize(0..24) {
        0..3 => target.push('/'),
        3 => insert(target, "/"),
        4 => insert(target, "/./"),
        5 => insert(target, "/x/../"),
        6 => insert(target, "/../"),
        7 => target.push_str("/.."),
        8 => target.push_str("/."),
        9 => insert(target, "//"),
        10 => target.push_str(&format!("/{}", SEGMENTS[rng.usize(..12)])),
        11..14 => encode(rng, target, at),
        14 => insert(target, ["%2F", "%2f", "%5C", "%25", "%2525", "%3F", "%23", "%20"][rng.usize(..8)]),
        15 => insert(target, ["%2e%2e/", "/%2E/", "/..%2f", "%2f..", "/%2e%2e"][rng.usize(..5)]),
        16 => insert(target, ["%zz", "%", "%0", "%00", "%7F", "%0a"][rng.usize(..6)]),
        17 => insert(target, ["+", "~", ":", ";p=1", "@", "'", "é", "{", "^", "|"][rng.usize(..10)]),
        18 => target.truncate(at),
        19 => *target = swap_case(target),
        20 => insert(target, ".."),
        21 => insert(target, "..."),
        22 => insert(target, ["#", "\\", "\"", "<"][rng.usize(..4)]),
        _ => {}
    }
    if target.is_empty() {
        target.push('/');
    }
}

/// Writes one byte as its escape.
fn encode(rng: &mut Rng, target: &mut String, at: usize) {
    let Some(char) = target[at..].chars().next().filter(|char| *char != '%' && *char != '?') else { return };
    let upper = rng.bool();
    let escape = |byte: u8| if upper { format!("%{byte:02X}") } else { format!("%{byte:02x}") };
    let mut bytes = [0; 4];
    let escaped: String = char.encode_utf8(&mut bytes).bytes().map(escape).collect();
    target.replace_range(at..at + char.len_utf8(), &escaped);
}

fn swap_case(text: &str) -> String {
    let swap = |c: char| if c.is_ascii_lowercase() { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() };
    text.chars().map(swap).collect()
}
