//! Finds out what becomes of a request: runs the scripts, searches the location, follows rewrites. Pure, so
//! that `explain` can do what the proxy does.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::course::{Course, Event};
use super::escape;
use super::location::Found;
use super::outcome::Outcome;
use super::script::{
    Answer, Assigned, Change, Condition, FileTest, Return, Rewrite, Step, Test, Then, is_redirect,
};
use super::values::{Values, verbatim};
use super::variables::Template;
use crate::client::ClientInfo;
use crate::config::{Config, Server};
use crate::request::{Origin, Request};

/// Everything that the way of a request depends on.
#[derive(Clone, Copy, Debug)]
pub struct Router<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// The server that answers.
    pub server: &'a Server,
    /// The connection.
    pub client: &'a ClientInfo,
    /// Who sent the request.
    pub origin: Origin,
    /// The request.
    pub request: &'a Request,
    /// What became of it so far.
    pub outcome: &'a Outcome,
}

/// Where a request has come to.
#[derive(Debug, PartialEq, Eq)]
pub struct Routed {
    /// The location, as a place in [`Server::locations`].
    pub location: usize,
    /// What is to be done there.
    pub verdict: Verdict,
}

/// What is to be done with a request in its location.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// What the location is for.
    Content,
    /// A script has given the answer.
    Answer(Answer),
    /// The location is `internal` and the client has asked for it.
    Internal,
    /// Paths or locations were changed more than ten times.
    Cycle,
    /// A rewrite has left no path, or one that leads out of the root (R31).
    BadPath,
    /// There is no named location of this name.
    NoSuchName(String),
    /// An expression gave up. What it guards must not be open because of that: as in nginx it is an error.
    GaveUp,
}

/// How a script ended.
enum Ended {
    Through,
    Answer(Answer),
    Goto(String),
    BadPath,
}

impl<'a> Router<'a> {
    /// Where a request goes from the beginning: the steps of the server, then the search.
    pub fn start(self, course: &mut Course) -> Routed {
        let outer = self.server.outer();
        course.is_broken = false;
        if !self.server.script.is_empty() {
            course.tell(|| Event::Script(None));
            let mut run = Run::new(self, course, outer);
            match run.take(&self.server.script) {
                Ended::Through => {}
                ended => return self.ended(course, outer, ended),
            }
        }
        self.search(course)
    }

    /// Where a request goes that is sent on to a named location.
    pub fn named(self, course: &mut Course, name: &str) -> Routed {
        course.tell(|| Event::Goto(name.to_owned()));
        let routed = |location, verdict| Routed { location, verdict };
        let Some(&location) = self.server.named.get(name) else {
            return routed(self.server.outer(), Verdict::NoSuchName(name.to_owned()));
        };
        if !course.may_change() {
            return routed(location, Verdict::Cycle);
        }
        course.is_internal = true;
        self.enter(course, location)
    }

    /// The search of a location for the path as it is, and what its steps say.
    fn search(self, course: &mut Course) -> Routed {
        let path = course.path(self.request);
        course.tell(|| Event::Search(path.to_vec()));
        // `OPTIONS *` is about the server as a whole: it goes where the server's root goes.
        let path = if path == b"*" { b"/" } else { path };
        let tell = &mut |considered| course.tell(|| Event::Considered(considered));
        let found = self.server.paths.find(path, &course.slots, tell);
        course.tell(|| Event::Found(found));
        let location = match found {
            Found::Location(location) | Found::AddSlash(location) => location,
            Found::Nothing => self.server.outer(),
        };
        if self.server.locations[location].internal && !course.is_internal {
            return Routed { location, verdict: Verdict::Internal };
        }
        match found {
            Found::AddSlash(_) => {
                Routed { location, verdict: Verdict::Answer(self.add_slash(course, location)) }
            }
            // The steps of the server are those of this location: they have been taken.
            Found::Nothing => Routed { location, verdict: Verdict::Content },
            Found::Location(_) => self.enter(course, location),
        }
    }

    fn enter(self, course: &mut Course, location: usize) -> Routed {
        course.is_behind_alias = false;
        let script = &self.server.locations[location].script;
        if script.is_empty() {
            return Routed { location, verdict: Verdict::Content };
        }
        course.tell(|| Event::Script(Some(location)));
        let mut run = Run::new(self, course, location);
        let ended = run.take(script);
        if run.is_changed && matches!(ended, Ended::Through) {
            return match course.may_change() {
                true => self.search(course),
                false => Routed { location, verdict: Verdict::Cycle },
            };
        }
        self.ended(course, location, ended)
    }

    fn ended(self, course: &mut Course, location: usize, ended: Ended) -> Routed {
        let verdict = match ended {
            Ended::Through => Verdict::Content,
            Ended::Answer(answer) => {
                course.tell(|| Event::Answered(answer.clone()));
                Verdict::Answer(answer)
            }
            Ended::Goto(name) => return self.named(course, &name),
            Ended::BadPath => Verdict::BadPath,
        };
        Routed { location, verdict }
    }

    /// nginx's 301 for `/app` where there is a `location /app/` with a `proxy_pass`.
    fn add_slash(self, course: &Course, location: usize) -> Answer {
        let mut to = Vec::new();
        escape::path(&mut to, self.server.locations[location].matcher.path().as_bytes());
        let args = course.args(self.request);
        if !args.is_empty() {
            to.push(b'?');
            to.extend_from_slice(args);
        }
        Answer::Redirect(301, to)
    }

    /// What variables are worth at this moment.
    pub fn values<'b>(&'b self, course: &'b Course, location: usize) -> Values<'b> {
        Values {
            client: self.client,
            origin: self.origin,
            head: Some(&self.request.head),
            request: Some(self.request),
            config: self.config,
            server: self.server,
            location: &self.server.locations[location],
            course,
            outcome: self.outcome,
            answer: None,
            returned: None,
        }
    }
}

/// One run of a script.
struct Run<'a, 'c> {
    router: Router<'a>,
    course: &'c mut Course,
    location: usize,
    /// Whether the path was changed, so that a location is searched for it.
    is_changed: bool,
    /// Whether nothing comes behind this step.
    is_over: bool,
    /// Whether groups are percent-encoded in what is written now: the path that they were taken from was
    /// decoded.
    encodes_groups: bool,
}

impl<'a, 'c> Run<'a, 'c> {
    fn new(router: Router<'a>, course: &'c mut Course, location: usize) -> Self {
        Self { router, course, location, is_changed: false, is_over: false, encodes_groups: true }
    }

    /// All steps of a server or of a location. What they leave must be a path: nginx would send `GET x`, or
    /// open a file beside the root.
    fn take(&mut self, steps: &[Step]) -> Ended {
        let path = |run: &Self| run.course.path(run.router.request).first().copied();
        match self.steps(steps) {
            Ended::Through if self.course.is_rewritten() && path(self) != Some(b'/') => Ended::BadPath,
            ended => ended,
        }
    }

    fn steps(&mut self, steps: &[Step]) -> Ended {
        for step in steps {
            let ended = self.step(step);
            if self.is_over || !matches!(ended, Ended::Through) {
                return ended;
            }
        }
        Ended::Through
    }

    fn step(&mut self, step: &Step) -> Ended {
        match step {
            Step::Set(variable, value) => {
                let value = self.text(value, self.encodes_groups);
                self.set(*variable, value);
            }
            Step::Rewrite(rewrite) => return self.rewrite(rewrite),
            Step::If(condition, then) => {
                if condition.as_ref().is_none_or(|condition| self.holds(condition)) {
                    return self.steps(then);
                }
            }
            Step::Return(answer) => return Ended::Answer(self.answer(answer)),
            Step::Break => {
                self.course.tell(|| Event::Break);
                self.course.is_broken |= self.is_changed;
                self.is_changed = false;
                self.is_over = true;
            }
            Step::Goto(name) => return Ended::Goto(name.clone()),
        }
        Ended::Through
    }

    fn set(&mut self, variable: Assigned, value: Vec<u8>) {
        let name = match variable {
            Assigned::Args => "args",
            Assigned::User(slot) => &self.router.config.variables[slot].name,
        };
        self.course.tell(|| Event::Set(name.to_owned(), value.clone()));
        match variable {
            Assigned::Args => {
                let path = self.course.path(self.router.request).to_vec();
                self.course.rewrite(path, value);
            }
            Assigned::User(slot) => self.course.slots.set(slot, value),
        }
    }

    fn answer(&self, answer: &Return) -> Answer {
        let status = answer.status;
        let Some(template) = &answer.text else { return Answer::Status(status) };
        // As in nginx, `$status` is that of the answer already.
        let values = Values { returned: Some(status), ..self.router.values(self.course, self.location) };
        let mut text = Vec::new();
        template.write(&mut text, &values, verbatim);
        if is_redirect(status) { Answer::Redirect(status, text) } else { Answer::Text(status, text) }
    }

    fn rewrite(&mut self, rewrite: &Rewrite) -> Ended {
        let shown = || rewrite.written.clone();
        let path = self.course.path(self.router.request);
        if !self.course.slots.matches(&rewrite.regex, path) {
            self.course.slots.forget_captures();
            self.course.tell(|| Event::RewriteMissed(shown()));
            return Ended::Through;
        }
        self.encodes_groups = false;
        match &rewrite.change {
            Change::Redirect { status, to, has_query } => {
                let mut to = escape::tidy_redirect(&self.text(to, true));
                let args = self.course.args(self.router.request);
                if rewrite.adds_args && !args.is_empty() {
                    to.push(if *has_query { b'&' } else { b'?' });
                    to.extend_from_slice(args);
                }
                self.course.tell(|| Event::Rewritten(shown(), to.clone()));
                Ended::Answer(Answer::Redirect(*status, to))
            }
            Change::Path { path, args, then } => {
                let path = self.text(path, false);
                if path.is_empty() || super::path::leads_astray(&path) {
                    return Ended::BadPath;
                }
                let args = self.args(args.as_ref(), rewrite.adds_args);
                self.course.tell(|| Event::Rewritten(shown(), [&path[..], b"?", &args].concat()));
                self.course.rewrite(path, args);
                self.course.is_internal = true;
                self.is_changed = *then != Then::Break;
                self.course.is_broken |= *then == Then::Break;
                self.is_over = *then != Then::Next;
                Ended::Through
            }
        }
    }

    /// The query behind a rewritten path.
    fn args(&self, own: Option<&Template>, adds: bool) -> Vec<u8> {
        let before = self.course.args(self.router.request);
        let Some(own) = own else { return if adds { before.to_vec() } else { Vec::new() } };
        let mut args = self.text(own, true);
        if adds && !before.is_empty() {
            args.push(b'&');
            args.extend_from_slice(before);
        }
        args
    }

    fn holds(&mut self, condition: &Condition) -> bool {
        let holds = self.test(&condition.test) != condition.is_negated;
        self.course.tell(|| Event::Condition(condition.written.clone(), holds));
        holds
    }

    fn test(&self, test: &Test) -> bool {
        let value = |variable| {
            let mut value = Vec::new();
            self.router.values(self.course, self.location).write(variable, &mut value);
            value
        };
        match test {
            Test::IsTrue(variable) => !matches!(value(variable).as_slice(), b"" | b"0"),
            Test::Equals(variable, text) => value(variable) == self.text(text, false),
            Test::Matches(variable, regex) => {
                let matches = self.course.slots.matches(regex, &value(variable));
                if !matches {
                    self.course.slots.forget_captures();
                }
                matches
            }
            Test::File(kind, path) => is_file(*kind, &self.text(path, false)),
        }
    }

    fn text(&self, template: &Template, encodes_groups: bool) -> Vec<u8> {
        let mut text = Vec::new();
        let values = self.router.values(self.course, self.location);
        let encodes =
            encodes_groups && self.router.request.target.is_encoded(self.router.request.head.target());
        if encodes {
            template.write_encoding_groups(&mut text, &values);
        } else {
            template.write(&mut text, &values, verbatim);
        }
        text
    }
}

fn is_file(kind: FileTest, path: &[u8]) -> bool {
    use std::os::unix::ffi::OsStrExt as _;
    let path = std::path::Path::new(std::ffi::OsStr::from_bytes(path));
    let Ok(found) = fs::metadata(path) else { return false };
    match kind {
        FileTest::File => found.is_file(),
        FileTest::Directory => found.is_dir(),
        FileTest::Exists => true,
        FileTest::Executable => found.permissions().mode() & 0o111 != 0,
    }
}
