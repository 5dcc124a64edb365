//! The way of one request through the locations of its server: what it has been rewritten to, and what
//! expressions and scripts have left behind.

use std::cell::{Cell, RefCell};

use super::location::{Considered, Found};
use super::regex::Slots;
use super::script::Answer;
use crate::request::Request;

/// How often a request may be given another path or another location; nginx's limit.
const MOST_CHANGES: u8 = 10;

/// The way of one request so far.
#[derive(Debug, Default)]
pub struct Course {
    /// What regular expressions and scripts have left for variables.
    pub slots: Slots,
    /// Whether it has been sent here by hopgate itself, so that `internal` locations are open to it.
    pub is_internal: bool,
    /// Whether a `rewrite … break` has changed the path, here or in the server: the URI part of
    /// `proxy_pass` then says nothing, also in a location that is come to later, until the way begins anew.
    pub is_broken: bool,
    /// Whether `try_files` has found its path behind an `alias` that stands for whole paths.
    pub is_behind_alias: bool,
    /// Whether an error page made a GET of it, or it is a subrequest.
    pub is_get: bool,
    /// Whether it is that of a subrequest, whose answer is not for the client.
    pub is_subrequest: bool,
    rewritten: Option<Box<Rewritten>>,
    changes: u8,
    /// Made when somebody asks for it.
    id: Cell<Option<[u64; 2]>>,
    /// The variables that are being worked out.
    open: RefCell<Vec<usize>>,
    trace: Option<RefCell<Vec<Event>>>,
}

#[derive(Debug)]
struct Rewritten {
    path: Vec<u8>,
    args: Vec<u8>,
}

/// A step that somebody may want to hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The steps of the server, or those of a location.
    Script(Option<usize>),
    /// The search of a location has begun, for this path.
    Search(Vec<u8>),
    /// It looked at a location.
    Considered(Considered),
    /// What the search came to.
    Found(Found),
    /// A `rewrite`, as it is written, did not match.
    RewriteMissed(String),
    /// A `rewrite` matched: what became of path and query, or where the client is sent.
    Rewritten(String, Vec<u8>),
    /// A condition, as it is written, and how it turned out.
    Condition(String, bool),
    /// A variable was given a value.
    Set(String, Vec<u8>),
    /// `break`.
    Break,
    /// A file or a directory was looked for, and whether it is there.
    Looked(Vec<u8>, bool),
    /// An answer.
    Answered(Answer),
    /// On to another location, by name.
    Goto(String),
}

impl Course {
    /// One that keeps what happens, for [`Course::events`].
    pub fn traced() -> Self {
        Self { trace: Some(RefCell::default()), ..Self::default() }
    }

    /// That of a subrequest. It has the variables that were set so far; they are gone here until they come
    /// back with [`Course::join`].
    pub fn split(&self) -> Self {
        let id = self.id.clone();
        let course = Self { is_internal: true, is_get: true, is_subrequest: true, id, ..Self::default() };
        course.slots.take_values(&self.slots);
        course
    }

    /// The end of a subrequest. As in nginx, the variables that it has set stay set.
    pub fn join(&self, subrequest: &Self) {
        self.id.set(subrequest.id.get());
        self.slots.take_values(&subrequest.slots);
    }

    /// The path as it is now, decoded: `$uri`.
    pub fn path<'a>(&'a self, request: &'a Request) -> &'a [u8] {
        self.rewritten.as_ref().map_or_else(|| request.path(), |rewritten| &rewritten.path)
    }

    /// The query as it is now: `$args`.
    pub fn args<'a>(&'a self, request: &'a Request) -> &'a [u8] {
        self.rewritten
            .as_ref()
            .map_or_else(|| request.query().unwrap_or_default(), |rewritten| &rewritten.args)
    }

    /// The method as it is now.
    pub fn method<'a>(&self, request: &'a Request) -> &'a [u8] {
        if self.is_get { b"GET" } else { request.head.method() }
    }

    /// Thirty-two hexadecimal digits that no other request has, the same for as long as this one lasts: `$request_id`.
    pub fn request_id(&self) -> String {
        let [high, low] = self.id.get().unwrap_or_else(|| [fastrand::u64(..), fastrand::u64(..)]);
        self.id.set(Some([high, low]));
        format!("{high:016x}{low:016x}")
    }

    /// Whether path and query are no longer what the client sent.
    pub fn is_rewritten(&self) -> bool {
        self.rewritten.is_some()
    }

    /// Gives the request another path and query.
    pub fn rewrite(&mut self, path: Vec<u8>, args: Vec<u8>) {
        self.rewritten = Some(Box::new(Rewritten { path, args }));
    }

    /// Counts one more change of path or location; `false` if it is one too many.
    pub fn may_change(&mut self) -> bool {
        self.changes = self.changes.saturating_add(1);
        !self.goes_round()
    }

    /// Whether path or location were changed too often: then nothing leads further, as in nginx.
    pub fn goes_round(&self) -> bool {
        self.changes > MOST_CHANGES
    }

    /// Runs `work` for a variable unless it is at work for it already: maps can ask each other in a circle.
    /// nginx calls that a cycle, too; here the inner value is empty.
    pub fn nested(&self, slot: usize, work: impl FnOnce()) {
        let is_open = self.open.borrow().contains(&slot);
        if !is_open {
            self.open.borrow_mut().push(slot);
            work();
            self.open.borrow_mut().pop();
        }
    }

    /// Notes what happens, if anybody wants to know.
    pub fn tell(&self, event: impl FnOnce() -> Event) {
        if let Some(trace) = &self.trace {
            trace.borrow_mut().push(event());
        }
    }

    /// What happened; nothing unless it was made by [`Course::traced`].
    pub fn events(&self) -> Vec<Event> {
        self.trace.as_ref().map(|trace| trace.borrow().clone()).unwrap_or_default()
    }
}
