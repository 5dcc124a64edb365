//! Mistakes that nginx itself would refuse, and that nobody could carry over by guessing.

use std::collections::HashSet;

use super::directives::{self, State};
use super::parse::{Directive, File};
use crate::config::error::Mistake;

/// Where a directive stands: the letter of the table of directives.
type Place = char;

/// Everything that is wrong, with the number of its file.
pub(super) fn mistakes(files: &[File], directives: &[Directive]) -> Vec<(usize, Mistake)> {
    let mut check = Check { files, groups: Groups::of(directives), found: Vec::new() };
    let has_http = directives.iter().any(|directive| directive.name() == "http");
    for directive in directives {
        // A fragment may begin at any level.
        let place = if has_http { 'M' } else { '*' };
        check.directive(directive, place, None);
    }
    check.with_minor_ones(directives)
}

/// The groups of a file, and which of them nothing uses.
#[derive(Default)]
struct Groups {
    names: Vec<String>,
    hosts: HashSet<String>,
    used: HashSet<String>,
}

struct Check<'a> {
    files: &'a [File],
    groups: Groups,
    found: Vec<(usize, Mistake)>,
}

impl Groups {
    fn of(directives: &[Directive]) -> Self {
        let mut groups = Self::default();
        groups.gather(directives);
        groups
    }

    fn gather(&mut self, directives: &[Directive]) {
        for directive in directives {
            match directive.name() {
                "upstream" => {
                    self.names.push(directive.arg(0).to_owned());
                    let hosts = directive.children().iter().map(|server| server.arg(0));
                    self.hosts.extend(hosts.map(|host| host.split(':').next().unwrap_or(host).to_owned()));
                }
                "proxy_pass" => drop(self.used.insert(host(directive.arg(0)).to_ascii_lowercase())),
                _ => {}
            }
            self.gather(directive.children());
        }
    }

    /// The group that a name was probably meant for, if it is none and nobody else uses it.
    fn meant(&self, name: &str) -> Option<&str> {
        let is_other =
            !self.names.iter().any(|group| group.eq_ignore_ascii_case(name)) && !self.hosts.contains(name);
        let unused: Vec<&String> =
            self.names.iter().filter(|group| !self.used.contains(&group.to_ascii_lowercase())).collect();
        let near = |group: &&&String| strsim::damerau_levenshtein(group, name) <= 1 + group.len() / 4;
        let meant = unused.iter().find(near).or(unused.first().filter(|_| name == "upstream"));
        meant.filter(|_| is_other).map(|group| group.as_str())
    }
}

impl Check<'_> {
    /// What would be put right and reported in another file stands beside what cannot be.
    fn with_minor_ones(mut self, directives: &[Directive]) -> Vec<(usize, Mistake)> {
        if self.found.is_empty() {
            return self.found;
        }
        self.minor(directives);
        self.found
    }

    fn minor(&mut self, directives: &[Directive]) {
        for directive in directives {
            for child in directive.children() {
                let line = child.line();
                let mistake = |message: &str| Mistake::new(child.name.place.span.clone(), message);
                if directive.name() == "upstream" && super::convert::upstream::is_address(child) {
                    let mistake = mistake("an address without `server` before it");
                    self.push(child, mistake.label("no directive").help(format!("write `server {line};`")));
                }
                if directive.name() == "map"
                    && child.args.is_empty()
                    && !matches!(child.name(), "hostnames" | "volatile")
                {
                    let mistake = mistake("a line of a map is a value and what becomes of it");
                    self.push(child, mistake.label("nothing behind it").help("delete it, or complete it"));
                }
            }
            self.minor(directive.children());
        }
    }

    fn directive(&mut self, directive: &Directive, place: Place, location: Option<&str>) {
        if !self.may_stand(directive, place) {
            return;
        }
        match (directive.name(), directive.block.is_some()) {
            ("proxy_pass", false) => self.proxy_pass(directive, location),
            ("listen", false) if directive.args.is_empty() => self.nothing_behind(directive, "listen 80;"),
            ("location", true) if directive.args.is_empty() => {
                self.nothing_behind(directive, "location / { … }")
            }
            ("upstream", true) if directive.args.is_empty() => {
                self.nothing_behind(directive, "upstream app { … }")
            }
            ("map", true) if directive.args.len() != 2 => {
                self.nothing_behind(directive, "map $source $variable { … }")
            }
            _ => {}
        }
        let inside = match directive.name() {
            "http" => 'H',
            "events" => 'E',
            "server" if place != 'U' => 'S',
            "location" => 'L',
            "upstream" => 'U',
            "limit_except" => 'X',
            "if" if place == 'S' => 'i',
            "if" => 'I',
            // Tables, blocks of modules and everything else have rules of their own.
            _ => return,
        };
        let path = directive.args.last().map(|word| word.text.as_str());
        let modifier = directive.arg(0);
        let location = match directive.name() {
            "location" if modifier.starts_with('~') || modifier.starts_with('@') => Some(modifier),
            "location" => path,
            "if" | "limit_except" => Some(directive.name()),
            _ => location,
        };
        for child in directive.children() {
            self.directive(child, inside, location);
        }
    }

    /// Whether nginx lets a directive stand here. What is needless in hopgate may stand anywhere.
    fn may_stand(&mut self, directive: &Directive, place: Place) -> bool {
        let (places, is_block) = match directives::find(directive.name()) {
            Some(State::Carried { places, .. }) => (*places, false),
            Some(State::Structure { places, .. }) => (*places, directive.name() != "include"),
            _ => return true,
        };
        let server_of_a_group =
            directive.name() == "server" && matches!(place, 'U' | '*') && directive.block.is_none();
        if is_block && directive.block.is_none() && !server_of_a_group {
            let mistake = Mistake::new(
                directive.name.place.span.clone(),
                format!("`{}` needs a block", directive.name()),
            );
            let line = directive.line();
            self.push(directive, mistake.label("no `{` behind it").help(format!("write `{line} {{ … }}`")));
            return false;
        }
        if !is_block && directive.block.is_some() {
            let mistake = Mistake::new(
                directive.name.place.span.clone(),
                format!("`{}` has no block", directive.name()),
            );
            let line = directive.line();
            self.push(directive, mistake.label("a `{` behind it").help(format!("write `{line};`")));
            return false;
        }
        let in_server_if = place == 'i' && super::convert::script::is_step(directive.name());
        if place == '*' || in_server_if || places.contains(place) {
            return true;
        }
        let mistake = Mistake::new(directive.name.place.span.clone(), not_here(directive.name(), place));
        self.push(directive, mistake.label("not here").help(format!("write it in {}", homes(places))));
        false
    }

    fn proxy_pass(&mut self, directive: &Directive, location: Option<&str>) {
        let url = directive.arg(0);
        let Some(word) = directive.args.first() else {
            return self.nothing_behind(directive, "proxy_pass http://127.0.0.1:3000;");
        };
        let span = word.place.span.clone();
        let wrong = |message: String| Mistake::new(span.clone(), message);
        let authority = host(url);
        if let Some(placeholder) = placeholder(url) {
            let mistake = wrong(format!("`{placeholder}` stands for something that is to be filled in"));
            return self.push(
                directive,
                mistake.label("a placeholder").help("write the address of the app: `http://127.0.0.1:3000`"),
            );
        }
        if url.contains('$') {
            return;
        }
        let Some((scheme, rest)) =
            url.split_once("://").filter(|(scheme, _)| matches!(*scheme, "http" | "https"))
        else {
            let help = match url.split_once("://") {
                Some(("ws" | "wss", rest)) => format!("WebSocket begins as HTTP: write `http://{rest}`"),
                Some((_, rest)) => format!("write `http://{rest}`"),
                None => format!("write `http://{url}`"),
            };
            let mistake = wrong(format!("`{url}` is no URL that nginx knows"));
            return self.push(directive, mistake.label("`http://` is needed").help(help));
        };
        let port =
            authority.rsplit_once(':').filter(|(_, port)| !rest.starts_with("unix:") && !port.contains(']'));
        if let Some((host, port)) = port.filter(|(_, port)| port.parse::<u16>().is_err()) {
            let what = match port {
                "" => "the port is missing".to_owned(),
                _ => format!("`{port}` is not a port"),
            };
            let uri = &rest[authority.len()..];
            let help = format!("write the port of the app: `{scheme}://{host}:3000{uri}`");
            return self.push(directive, wrong(what).label("a number is needed").help(help));
        }
        if let Some(meant) = self.groups.meant(authority).map(str::to_owned) {
            let mistake = wrong(format!("there is no upstream `{authority}`, did you mean `{meant}`?"));
            let help = format!("write `http://{meant}`, the name of the group; nothing else uses it");
            return self.push(directive, mistake.label("no group has this name").help(help));
        }
        let has_uri = rest[authority.len().min(rest.len())..].starts_with('/') && !rest.starts_with("unix:");
        if let Some(place) = location.and_then(without_path).filter(|_| has_uri) {
            let base = &url[..url.len() - (rest.len() - authority.len())];
            let message = format!(
                "`proxy_pass` cannot have a URI part {place}: there is no path that it could replace"
            );
            let help = format!("write `{base}`, and `rewrite` if the path is to change");
            self.push(directive, wrong(message).label("nginx refuses this").help(help));
        }
    }

    fn nothing_behind(&mut self, directive: &Directive, example: &str) {
        let message = format!("`{}` does not say enough", directive.name());
        let mistake = Mistake::new(directive.name.place.span.clone(), message);
        self.push(directive, mistake.help(format!("write `{example}`")));
    }

    fn push(&mut self, directive: &Directive, mistake: Mistake) {
        let file = directive.name.place.file.min(self.files.len().saturating_sub(1));
        self.found.push((file, mistake));
    }
}

/// The places that have no path of their own, by the words of their block.
fn without_path(location: &str) -> Option<&'static str> {
    match location {
        "if" => Some("in an `if`"),
        "limit_except" => Some("in a `limit_except`"),
        _ if location.starts_with('@') => Some("in a named location"),
        _ if location.starts_with('~') => Some("in a location with a regular expression"),
        _ => None,
    }
}

/// The host and port of a URL.
fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split(['/', '?', '#']).next().unwrap_or(rest)
}

/// `<…>`, `{{ … }}`, `[your-host]`: what articles have for the reader's own.
fn placeholder(url: &str) -> Option<&str> {
    let open = url.find('<')?;
    let close = url[open..].find('>').map_or(url.len(), |close| open + close + 1);
    Some(&url[open..close])
}

fn not_here(name: &str, place: Place) -> String {
    let here = match place {
        'M' => "outside of `http`",
        'H' => "directly in `http`",
        'S' => "directly in a `server`",
        'L' => "in a `location`",
        'U' => "in an `upstream`",
        'X' => "in a `limit_except`",
        'E' => "in `events`",
        _ => "in an `if`",
    };
    format!("`{name}` cannot stand {here}")
}

fn homes(places: &str) -> String {
    let name = |place: char| match place {
        'M' => "the file outside of `http`",
        'H' => "`http`",
        'S' => "a `server`",
        'L' => "a `location`",
        'U' => "an `upstream`",
        _ => "",
    };
    let names: Vec<&str> = places.chars().map(name).filter(|name| !name.is_empty()).collect();
    names.join(" or ")
}
