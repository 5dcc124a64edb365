//! An explanation for a person: short sections, one below the other in the order of the request's way.

use super::handshake::Handshake;
use super::setting::{Setting, time};
use super::upstream::{Believed, Tls};
use super::{Candidate, End, Explanation, Failure, Named, Outcome, Search, Step, Upgrade, Upstream, shown};
use crate::tls::certificate::is_for;

/// How wide the column with the names of the sections is.
const MARGIN: usize = 11;
/// Of a row of expressions that do not match, so many are shown.
const MOST_ALIKE: usize = 4;

/// What a piece of text is, for its colour.
#[derive(Clone, Copy)]
enum Ink {
    Label,
    Strong,
    Faint,
    Good,
    Bad,
}

/// Writes an explanation.
pub(super) fn text(explanation: &Explanation, is_colored: bool) -> String {
    let mut page = Page { out: String::new(), label: None, is_colored, file: &explanation.file };
    page.asked(explanation);
    page.label("listener");
    page.line(&explanation.listener);
    if let Some(tls) = &explanation.tls {
        page.handshake(tls);
    }
    if explanation.end == End::Refused {
        return page.out;
    }
    page.server(explanation);
    page.steps(&explanation.steps);
    match &explanation.end {
        End::Refused => {}
        End::Upstream(upstream) => page.upstream(upstream),
        End::Reply { status, fields, body, length } => {
            page.reply(*status, fields, body.as_deref(), *length);
        }
        End::Failure { failure, fields } => page.failure(failure, fields),
    }
    page.settings(&explanation.timeouts);
    if let End::Upstream(upstream) = &explanation.end {
        page.sent(upstream);
    }
    page.out
}

struct Page<'a> {
    out: String,
    /// The name of a section that has no line yet.
    label: Option<&'static str>,
    is_colored: bool,
    file: &'a str,
}

impl Page<'_> {
    fn paint(&self, ink: Ink, text: &str) -> String {
        if !self.is_colored || text.is_empty() {
            return text.to_owned();
        }
        let code = match ink {
            Ink::Label => "36",
            Ink::Strong => "1",
            Ink::Faint => "2",
            Ink::Good => "1;32",
            Ink::Bad => "1;31",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }

    /// Begins a section, with an empty line before it.
    fn label(&mut self, label: &'static str) {
        self.out.push('\n');
        self.label = Some(label);
    }

    fn line(&mut self, text: &str) {
        let label = self.label.take().unwrap_or_default();
        let margin = " ".repeat(MARGIN - label.len());
        let line = format!("{}{margin}{text}", self.paint(Ink::Label, label));
        self.out.push_str(line.trim_end());
        self.out.push('\n');
    }

    /// `hopgate.toml:12`
    fn place(&self, line: Option<usize>) -> String {
        line.map_or_else(String::new, |line| format!("{}:{line}", self.file))
    }

    /// The place of a setting that may be a default.
    fn origin(&self, line: Option<usize>) -> String {
        if line.is_none() { "default".to_owned() } else { self.place(line) }
    }

    /// A name with its place behind it.
    fn named(&self, named: &Named) -> String {
        let name = self.paint(Ink::Strong, &named.name);
        format!("{name}  {}", self.paint(Ink::Faint, &self.place(named.line)))
    }

    fn asked(&mut self, explanation: &Explanation) {
        let text = explanation.asked.head.strip_suffix(b"\r\n\r\n").unwrap_or(&explanation.asked.head);
        self.label = Some("request");
        let added = &explanation.asked.added;
        for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let line = shown(line.strip_suffix(b"\r").unwrap_or(line));
            let name = line.split(':').next().unwrap_or_default();
            match index {
                0 => self.line(&self.paint(Ink::Strong, &line)),
                _ if added.contains(&name) => {
                    let note = self.paint(Ink::Faint, "   (added: a handshake has it)");
                    self.line(&format!("{line}{note}"));
                }
                _ => self.line(&line),
            }
        }
        for note in &explanation.notes {
            self.label("note");
            self.line(note);
        }
    }

    fn server(&mut self, explanation: &Explanation) {
        let server = &explanation.server;
        self.label("server");
        self.line(&self.server_name(&server.named));
        self.line(&server.why);
    }

    fn server_name(&self, server: &Named) -> String {
        let name = if server.name.is_empty() { "(without a name)" } else { &server.name };
        self.named(&Named { name: name.to_owned(), line: server.line })
    }

    fn handshake(&mut self, tls: &Handshake) {
        self.label("tls");
        let asked =
            tls.sni.as_ref().map_or_else(|| "no name (SNI)".to_owned(), |name| format!("{name} (SNI)"));
        self.line(&format!("asked for {asked}: {}", self.server_name(&tls.server)));
        self.line(&tls.why);
        if tls.certificates.is_empty() {
            self.line(&self.paint(Ink::Bad, "the handshake is refused, with the alert unrecognized_name"));
        }
        for (number, certificate) in tls.certificates.iter().enumerate() {
            let word = if number == 0 { "certificate" } else { "or" };
            self.line(&format!("{word} {}", self.named(&certificate.from)));
            let until =
                certificate.until.as_ref().map_or_else(String::new, |until| format!(", until {until}"));
            let names = match certificate.names.as_slice() {
                [] => "no name".to_owned(),
                names => names.join(", "),
            };
            self.line(&format!("  for {names}{until}"));
            if let Some(name) = tls.sni.as_ref().filter(|name| !is_for(&certificate.names, name)) {
                self.line(&self.paint(Ink::Bad, &format!("  not for {name}: clients will not trust it")));
            }
        }
        match tls.protocols.as_slice() {
            ["h2", ..] => self.line("spoken is HTTP/2, or HTTP/1.1 with clients that know no other (ALPN)"),
            _ => self.line("spoken is HTTP/1.1"),
        }
        if tls.verify_client.name != "off" {
            let place = self.paint(Ink::Faint, &self.place(tls.verify_client.line));
            let wanted = match tls.verify_client.name.as_str() {
                "on" => "has to be there and to be right, or the answer is 400; here it is taken to be",
                _ => "may be there; here it is taken not to be",
            };
            self.line(&format!("a client certificate {wanted}  {place}"));
        }
    }

    fn steps(&mut self, steps: &[Step]) {
        let mut was_guard = false;
        let mut rest = steps;
        while !rest.is_empty() {
            let (length, times) = repeated(rest);
            for step in &rest[..length] {
                let is_guard = matches!(step, Step::Guard { .. });
                if is_guard && !was_guard {
                    self.label("access");
                }
                was_guard = is_guard;
                self.step(step);
            }
            if times > 1 {
                self.label("again");
                self.line(&format!("the same, {} more times", times - 1));
            }
            rest = &rest[length * times..];
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Script(of) => {
                self.label("steps");
                let of =
                    of.as_ref().map_or_else(|| "of the server".to_owned(), |of| format!("of {}", of.name));
                self.line(&of);
            }
            Step::Set { name, value } => self.line(&format!("  set ${name} = {value:?}")),
            Step::If { text, holds } => {
                let outcome = if *holds { "yes" } else { "no" };
                self.line(&format!("  if ({text})  {}", self.paint(Ink::Strong, outcome)));
            }
            Step::Rewrite { text, from, to: Some(to) } => {
                self.line(&format!("  rewrite {text}"));
                self.line(&format!("    {from} → {}", self.paint(Ink::Strong, to)));
            }
            Step::Rewrite { text, from, to: None } => {
                self.line(&format!("  rewrite {text}"));
                self.line(&self.paint(Ink::Faint, &format!("    {from} does not match")));
            }
            Step::Break => self.line("  break"),
            Step::Return(answer) => self.line(&format!("  → {}", self.paint(Ink::Strong, answer))),
            Step::Goto(to) => {
                self.label("goto");
                self.line(&self.named(to));
            }
            Step::Search(search) => self.search(search),
            Step::Files(by) => {
                self.label("files");
                let place = self.paint(Ink::Faint, &self.place(by.line));
                self.line(&format!("by {}  {place}", by.name));
            }
            Step::Looked { path, is_there: true } => {
                self.line(&format!("→ {}", self.paint(Ink::Good, path)));
            }
            Step::Looked { path, is_there: false } => {
                self.line(&self.paint(Ink::Faint, &format!("  {path}  is not there")));
            }
            Step::Upgrade(upgrade) => self.upgrade(upgrade),
            Step::Guard { key, text, passes, line } => self.guard(key, text, *passes, *line),
            Step::ErrorPage { error, to, line } => {
                self.label("error");
                self.line(&format!("{}: {}", self.paint(Ink::Bad, &Failure::title(error.status)), error.why));
                let place = self.paint(Ink::Faint, &self.place(*line));
                self.line(&format!("error_page → {}  {place}", self.paint(Ink::Strong, to)));
            }
        }
    }

    fn guard(&mut self, key: &str, text: &str, passes: Option<bool>, line: Option<usize>) {
        let outcome = match passes {
            Some(true) => self.paint(Ink::Good, "yes, "),
            Some(false) => self.paint(Ink::Bad, "no, "),
            None => String::new(),
        };
        let place = self.paint(Ink::Faint, &self.place(line));
        self.line(&format!("{key}: {outcome}{text}  {place}"));
    }

    fn search(&mut self, search: &Search) {
        self.label("location");
        self.line(&format!("for {}", self.paint(Ink::Strong, &search.path)));
        let name =
            |candidate: &Candidate| format!("{}{}", "  ".repeat(candidate.depth), candidate.location.name);
        let rows = folded(&search.candidates);
        let shown = || rows.iter().filter_map(|row| row.as_ref().ok());
        let names = shown().map(|candidate| name(candidate).chars().count()).max().unwrap_or(0);
        let places = shown().map(|candidate| self.place(candidate.location.line).len()).max().unwrap_or(0);
        for row in &rows {
            let candidate = match row {
                Ok(candidate) => candidate,
                Err(count) => {
                    self.line(&self.paint(Ink::Faint, &format!("  … and {count} more")));
                    continue;
                }
            };
            let name = pad(&name(candidate), names);
            let place = pad(&self.place(candidate.location.line), places);
            let outcome = candidate.outcome.text();
            let line = match candidate.won {
                true => format!(
                    "→ {}  {}  {outcome}",
                    self.paint(Ink::Good, &name),
                    self.paint(Ink::Faint, &place)
                ),
                false => self.paint(Ink::Faint, &format!("  {name}  {place}  {outcome}")),
            };
            self.line(&line);
        }
        if search.lost {
            self.line(&self.paint(Ink::Bad, "no location has this path"));
        }
    }

    fn upgrade(&mut self, upgrade: &Upgrade) {
        self.label("upgrade");
        let word = match upgrade.is_passed {
            true => self.paint(Ink::Good, "yes"),
            false => self.paint(Ink::Bad, "no"),
        };
        self.line(&format!("to {}: {word}, {}", upgrade.protocol, upgrade.why));
    }

    fn upstream(&mut self, upstream: &Upstream) {
        self.label("upstream");
        let pass = format!("by proxy_pass, {}", self.place(upstream.pass_line));
        let named = self.named(&upstream.named);
        match upstream.named.line {
            Some(_) => self.line(&format!("{named}   {}", self.paint(Ink::Faint, &pass))),
            None => self.line(&format!("{named}{}", self.paint(Ink::Faint, &pass))),
        }
        if upstream.is_http2 {
            let place = self.paint(Ink::Faint, &self.place(upstream.version_line));
            self.line(&format!("in HTTP/2  {place}"));
        }
        if let Some(header) = &upstream.header {
            let place = self.paint(Ink::Faint, &self.place(upstream.header_line));
            self.line("by the PROXY protocol: a connection for this client alone, which begins with");
            self.line(&format!("  {header}  {place}"));
        }
        if let Some(tls) = &upstream.tls {
            self.tls(tls);
        }
        if let Some(method) = &upstream.method {
            self.line(method);
            let width = upstream.servers.iter().map(|server| server.address.len()).max().unwrap_or(0);
            for server in &upstream.servers {
                let arrow = if server.is_chosen { "→" } else { " " };
                let ink = if server.is_chosen { Ink::Good } else { Ink::Strong };
                let address = self.paint(ink, &pad(&server.address, width));
                self.line(&format!("{arrow} {address}  {}", server.words.join(" ")));
            }
            if !upstream.next.is_empty() {
                let place = self.paint(Ink::Faint, &self.origin(upstream.next_line));
                self.line(&format!("another one is tried after: {}  {place}", upstream.next.join(" ")));
            }
        }
        if !upstream.error_pages.is_empty() {
            let place = self.paint(Ink::Faint, &self.place(upstream.error_page_line));
            for (statuses, to) in &upstream.error_pages {
                let statuses: Vec<String> = statuses.iter().map(u16::to_string).collect();
                self.line(&format!("if it fails: {} → {to}  {place}", statuses.join(" ")));
            }
        }
    }

    fn tls(&mut self, tls: &Tls) {
        let by = match tls.believed {
            Believed::Anybody => {
                let warning =
                    self.paint(Ink::Bad, "TLS: any certificate is taken, `proxy_ssl_verify` is off");
                let place = self.paint(Ink::Faint, &self.place(tls.believed_line));
                self.line(&format!("{warning}  {place}"));
                None
            }
            Believed::System => Some(("the system", "default".to_owned())),
            Believed::File => Some(("`proxy_ssl_trusted_certificate`", self.place(tls.believed_line))),
        };
        if let Some((by, place)) = by {
            let name = self.paint(Ink::Strong, &tls.name);
            let (of_name, place) =
                (self.paint(Ink::Faint, &self.place(tls.name_line)), self.paint(Ink::Faint, &place));
            self.line(&format!("TLS: its certificate must be for {name}  {of_name}"));
            self.line(&format!("     and by a CA of {by}  {place}"));
        }
        match tls.sends_name {
            true => self.line(&format!("     it is told the name {} (SNI)", tls.name)),
            false => self.line("     it is told no name (SNI)"),
        }
    }

    fn reply(&mut self, status: u16, fields: &[(String, String)], body: Option<&str>, length: u64) {
        self.label("answer");
        let ink = if status < 400 { Ink::Good } else { Ink::Bad };
        self.line(&format!("{}, by hopgate itself", self.paint(ink, &Failure::title(status))));
        for (name, value) in fields {
            self.line(&format!("{name}: {value}"));
        }
        let Some(body) = body else {
            return self.line(&self.paint(Ink::Faint, &format!("({length} bytes of the file)")));
        };
        if !body.is_empty() {
            self.line("");
            body.lines().for_each(|line| self.line(&shown(line.as_bytes())));
        }
    }

    fn failure(&mut self, failure: &Failure, fields: &[(String, String)]) {
        self.label("answer");
        self.line(&format!("{}: {}", self.paint(Ink::Bad, &Failure::title(failure.status)), failure.why));
        for (name, value) in fields.iter().filter(|(name, _)| name != "Content-Type") {
            self.line(&format!("{name}: {value}"));
        }
    }

    fn settings(&mut self, settings: &[Setting]) {
        self.label("timeouts");
        let value = |setting: &Setting| setting.value.map_or_else(|| "off".to_owned(), time);
        let keys = settings.iter().map(|setting| setting.key.len()).max().unwrap_or(0);
        let values = settings.iter().map(|setting| value(setting).len()).max().unwrap_or(0);
        for setting in settings {
            let mut origin = self.origin(setting.line);
            if setting.line.is_some() && setting.set_by != setting.key {
                origin.push_str(&format!("  by {}", setting.set_by));
            }
            let ink = if setting.line.is_some() { Ink::Strong } else { Ink::Faint };
            let key = pad(setting.key, keys);
            let value = format!("{:>values$}", value(setting));
            self.line(&format!("{key}  {}  {}", self.paint(ink, &value), self.paint(Ink::Faint, &origin)));
        }
    }

    fn sent(&mut self, upstream: &Upstream) {
        self.label("sent");
        for (index, (line, is_example)) in upstream.sent.lines().into_iter().enumerate() {
            let note = self.paint(Ink::Faint, "   (an example: another one each time)");
            match (index, is_example) {
                (0, _) => self.line(&self.paint(Ink::Strong, &line)),
                (_, true) => self.line(&format!("{line}{note}")),
                (_, false) => self.line(&line),
            }
        }
    }
}

/// How many steps there are before they come again, and how often they come, one behind the other.
fn repeated(steps: &[Step]) -> (usize, usize) {
    const LONGEST: usize = 16;
    let times = |length: usize| {
        let first = &steps[..length];
        steps.chunks(length).take_while(|chunk| *chunk == first).count()
    };
    let most = LONGEST.min(steps.len() / 2);
    (1..=most).map(|length| (length, times(length))).find(|(_, times)| *times > 2).unwrap_or((1, 1))
}

/// The rows of a search; of many expressions in a row that came to nothing, only how many they are.
fn folded(candidates: &[Candidate]) -> Vec<Result<&Candidate, usize>> {
    let is_nothing = |candidate: &Candidate| {
        matches!(candidate.outcome, Outcome::NoMatch | Outcome::NotAsked) && !candidate.won
    };
    let mut rows = Vec::new();
    for group in candidates.chunk_by(|a, b| a.outcome == b.outcome && is_nothing(a) && is_nothing(b)) {
        let most = if group.len() > MOST_ALIKE + 1 { MOST_ALIKE } else { group.len() };
        rows.extend(group[..most].iter().map(Ok));
        rows.extend((most < group.len()).then(|| Err(group.len() - most)));
    }
    rows
}

fn pad(text: &str, width: usize) -> String {
    let missing = width.saturating_sub(text.chars().count());
    format!("{text}{}", " ".repeat(missing))
}
