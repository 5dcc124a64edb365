//! Says an nginx configuration in TOML: each directive where it stands, in the file's order.

pub mod access;
mod branch;
mod facts;
pub mod files;
pub mod grpc;
pub mod http;
mod location;
pub mod logs;
mod map;
mod off;
pub mod paths;
pub mod proxy;
pub mod refine;
pub mod responses;
pub mod script;
mod server;
pub mod settings;
pub mod tls;
pub mod toml;
pub mod upstream;
mod values;
pub mod write;

use std::path::{Path, PathBuf};

use super::directives::{self, State};
use super::parse::{Directive, Parsed, Place};
use super::report::{Note, Report};
use facts::Facts;
use script::Op;
use toml::{Entry, Header, Item, Origin, Table, Value};

pub use http::document;

/// Writes a directive into the table that it stands in; the text is the key.
pub type Carry = fn(&mut Convert<'_>, &mut Scope, &Directive, &str);

/// Which block of nginx a directive stands in, outside of `map` and the like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Outside of every block.
    Main,
    /// `http`
    Http,
    /// `server`
    Server,
    /// `location`
    Location,
    /// `if` in a location.
    If,
    /// `limit_except`
    LimitExcept,
    /// `upstream`
    Upstream,
}

/// What is made of a block.
#[derive(Clone, Debug)]
pub struct Scope {
    /// Which block.
    pub level: Level,
    /// What has been written so far.
    pub table: Table,
    /// What the rewrite module does here, in order, and where it goes in the table.
    pub script: Vec<Op>,
    script_at: usize,
    /// Why it refuses what it is asked for.
    refusal: Option<Refusal>,
    /// Whether nginx's own list of types was included here.
    standard_types: bool,
    /// What is written for locations with `grpc_pass`.
    grpc: Vec<Entry>,
    /// What holds here because of what stands further out.
    pub outer: Outer,
}

/// What an outer block says that an inner one inherits, as far as that changes what is written inside.
#[derive(Clone, Debug, Default)]
pub struct Outer {
    /// Whether `proxy_set_header` is written, so that nginx's own `Host` is, too.
    pub sets_headers: bool,
    /// Whether there is a `root`.
    pub root: bool,
    /// Whether there are `types`.
    pub types: bool,
    /// What the locations around this one write.
    pub entries: Vec<Entry>,
    /// The path of the innermost location.
    pub path: String,
    /// The keys for upstreams that are written further out.
    pub proxy: Vec<String>,
    /// What is written there for locations with `grpc_pass`.
    pub grpc: Vec<Entry>,
    /// Whether the location around this one has `grpc_pass`.
    pub is_grpc: bool,
    /// `ssl on`, as old files have it.
    pub ssl: bool,
    /// `http2 on`
    pub http2: bool,
    /// `ssl_trusted_certificate`, until the server is known.
    pub trusted: Option<Directive>,
    /// Whether there is an `ssl_client_certificate`.
    pub has_client_certificate: bool,
    /// Whether there is a `set_real_ip_from`.
    pub trusts: bool,
    /// Whether it is about `real_ip_header proxy_protocol`.
    pub asks_balancer: bool,
}

/// Why a location answers nothing but a status.
#[derive(Clone, Debug)]
struct Refusal {
    status: u16,
    comment: String,
}

/// A conversion on its way.
pub struct Convert<'a> {
    parsed: &'a Parsed,
    /// The folder of the file: where the paths of `auth_basic_user_file` begin.
    folder: PathBuf,
    /// Where all other relative paths begin.
    prefix: PathBuf,
    facts: Facts,
    reports: Vec<Report>,
    notes: Vec<Note>,
    /// Named locations that were made for the server at hand.
    made: Vec<Table>,
    /// How many of them have been made for it.
    made_so_far: usize,
    /// Whether a location proxies with nginx's own `Host`.
    default_host: bool,
    /// Whether anything is proxied.
    proxies: bool,
    /// Whether files are served.
    serves_files: bool,
    /// Whether a location has an upstream with TLS, and nothing is said about its certificate.
    unverified: bool,
    /// Whether one has, and nothing is said about the name that it is told.
    tells_names: bool,
}

/// What came out of a conversion.
#[derive(Debug)]
pub struct Converted {
    /// The document.
    pub top: Table,
    /// What it does not say.
    pub reports: Vec<Report>,
    /// What it need not say.
    pub notes: Vec<Note>,
}

impl Scope {
    fn new(level: Level, header: Header, outer: Outer) -> Self {
        Self {
            level,
            table: Table::new(header),
            script: Vec::new(),
            script_at: 0,
            refusal: None,
            standard_types: false,
            grpc: Vec::new(),
            outer,
        }
    }

    /// `key = value`; a second one of the same key replaces the first, as nginx would refuse it.
    pub fn set(&mut self, key: &str, item: Item) {
        self.table.entry(key, Value::text("")).item = item;
    }

    /// Adds a step of the script.
    fn step(&mut self, op: Op) {
        if self.script.is_empty() {
            self.script_at = self.table.entries.len();
        }
        self.script.push(op);
    }

    /// Everything here is to be answered with a status: 403 goes before all others.
    fn refuse(&mut self, status: u16, comment: String) {
        if self.refusal.as_ref().is_none_or(|refusal| status == 403 && refusal.status != 403) {
            self.refusal = Some(Refusal { status, comment });
        }
    }

    /// The same where nginx answers with a variable that is not there.
    fn refuse_for_unknown(&mut self, directive: &Directive) {
        let line = shortened(&directive.line());
        self.refuse(503, format!("nginx has `{line}` here, with a variable that hopgate does not have."));
    }

    /// What inner blocks inherit.
    fn inner(&self) -> Outer {
        let mut proxy = self.outer.proxy.clone();
        let own = self.table.entries.iter().filter(|entry| !entry.is_off && entry.key.starts_with("proxy_"));
        proxy.extend(own.map(|entry| entry.key.clone()));
        Outer {
            proxy,
            grpc: branch::merged(&self.outer.grpc, &self.grpc),
            is_grpc: grpc::is_grpc(&self.table.entries),
            ssl: self.outer.ssl,
            http2: self.outer.http2,
            trusted: self.outer.trusted.clone(),
            has_client_certificate: self.outer.has_client_certificate
                || self.table.has("ssl_client_certificate"),
            trusts: self.outer.trusts || self.table.has("trusted_proxies"),
            asks_balancer: match self.table.find("real_ip_header").map(|entry| &entry.item.value) {
                Some(Value::Text(field)) => field == "proxy_protocol",
                _ => self.outer.asks_balancer,
            },
            sets_headers: self.outer.sets_headers || self.table.has("proxy_set_header"),
            root: self.outer.root || self.table.has("root"),
            types: self.outer.types || self.table.has("types"),
            entries: self.outer.entries.clone(),
            path: self.outer.path.clone(),
        }
    }
}

impl Convert<'_> {
    /// One directive in a scope. Blocks of their own are the business of whoever walks the scope.
    fn directive(&mut self, scope: &mut Scope, directive: &Directive) {
        match directives::find(directive.name()) {
            Some(State::Carried { places, key, by }) => {
                if !places.contains(scope.level.letter()) {
                    return self
                        .report(directive, "it does not belong here, and nginx would refuse it: delete it");
                }
                let key = if key.is_empty() { directive.name() } else { key };
                by(self, scope, directive, key);
            }
            Some(State::Structure { .. }) if directive.name() == "include" => {
                scope.standard_types = true;
                self.needless(directive, "include mime.types", "hopgate knows the types of nginx's file");
            }
            Some(State::Structure { .. }) => self.report(directive, "it does not belong here: delete it"),
            Some(State::Needless(_))
                if scope.level == Level::Upstream
                    && !matches!(directive.name(), "zone" | "resolver_timeout") =>
            {
                let text =
                    "nginx knows no such line in an `upstream`, where hopgate needs none, either: delete it";
                self.report(directive, text);
            }
            Some(State::Needless(reason)) => self.needless(directive, directive.name(), reason),
            Some(State::Reported(..) | State::Guard(..)) if off::is_off(directive) => {
                let what = format!("{} {}", directive.name(), directive.arg(0));
                self.needless(directive, &what, "hopgate has nothing that this would switch off");
            }
            Some(State::Reported(..)) if self.is_of_nothing(directive) => {
                self.needless(directive, directive.name(), "what it belongs to is not in use in the file");
            }
            Some(State::Reported(why, instead)) => self.report(directive, &format!("{why}; {instead}")),
            Some(State::Guard(why, instead)) => self.guard(scope, directive, why, instead),
            Some(State::Handler(why, instead)) => {
                self.report(directive, &format!("{why}, so this is answered 501; {instead}"));
                scope.refuse(501, format!("nginx has `{}` here: {why}.", shortened(&directive.line())));
            }
            None => self.unknown(scope, directive),
        }
    }

    /// What guards access is not left out: it refuses.
    fn guard(&mut self, scope: &mut Scope, directive: &Directive, why: &str, instead: &str) {
        self.report(directive, &format!("{why}, so everything that it guards is answered 403; {instead}"));
        scope.refuse(
            403,
            format!("Refused: nginx guards this with `{}`: {why}.", shortened(&directive.line())),
        );
    }

    fn unknown(&mut self, scope: &mut Scope, directive: &Directive) {
        let meant = directives::nearest(directive.name());
        if directives::sounds_like_a_guard(meant.unwrap_or(directive.name())) && !off::is_off(directive) {
            let why = "it is not known here, and its name sounds as if it kept people out";
            let instead = match meant {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => "say it with allow, deny, auth_basic or auth_request".to_owned(),
            };
            return self.guard(scope, directive, why, &instead);
        }
        let text = match meant {
            Some(meant) => {
                format!("it is no directive of nginx, did you mean `{meant}`? Nothing of it is in the result")
            }
            None => "it is no directive that is known here; if a module of nginx has it, see what it is for"
                .to_owned(),
        };
        self.report(directive, &text);
    }

    /// Says on standard error what could not be carried over.
    fn report(&mut self, directive: &Directive, text: &str) {
        self.reports.push(Report::new(directive.name.place.clone(), directive.name(), text));
    }

    /// Says, once, that nothing needs to be carried over.
    fn needless(&mut self, directive: &Directive, what: &str, reason: &str) {
        self.note(directive.name.place.clone(), what, reason);
    }

    fn note(&mut self, place: Place, what: &str, reason: &str) {
        match self.notes.iter_mut().find(|note| note.reason == reason) {
            Some(note) => {
                note.count += 1;
                if !note.directives.iter().any(|known| known == what) {
                    note.directives.push(what.to_owned());
                }
            }
            None => self.notes.push(Note {
                directives: vec![what.to_owned()],
                reason: reason.to_owned(),
                place,
                count: 1,
            }),
        }
    }
}

impl Level {
    /// As in the table of directives.
    fn letter(self) -> char {
        match self {
            Self::Main => 'M',
            Self::Http => 'H',
            Self::Server => 'S',
            Self::Location => 'L',
            Self::If => 'I',
            Self::LimitExcept => 'X',
            Self::Upstream => 'U',
        }
    }
}

/// Where a value is from.
fn origin(directive: &Directive) -> Origin {
    Origin { place: directive.name.place.clone(), directive: directive.name().to_owned() }
}

/// A text with its directive.
fn text(directive: &Directive, text: impl Into<String>) -> Item {
    Item::from(Value::text(text), origin(directive))
}

/// A number, or `true` or `false`, with its directive.
fn bare(directive: &Directive, text: impl Into<String>) -> Item {
    Item::from(Value::Bare(text.into()), origin(directive))
}

/// A line that fits into a comment.
fn shortened(line: &str) -> String {
    match line.char_indices().nth(60) {
        Some((at, _)) => format!("{} …", line[..at].trim_end()),
        None => line.to_owned(),
    }
}

/// The folder that a file stands in.
fn folder_of(path: &Path) -> PathBuf {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new(".")).to_owned()
}
