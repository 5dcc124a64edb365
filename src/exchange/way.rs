//! Where an exchange goes: from its beginning to a location, to error pages, and through subrequests.

use super::{Exchange, Subject};
use crate::client::ClientInfo;
use crate::config::PageStatus;
use crate::error::ProxyError;
use crate::routing::course::Course;
use crate::routing::outcome::Outcome;
use crate::routing::route::{Routed, Router, Verdict};
use crate::routing::script::{Assigned, is_redirect};
use crate::routing::values::verbatim;

/// Where an exchange goes next.
#[derive(Debug, PartialEq, Eq)]
pub enum Way {
    /// The beginning.
    Start,
    /// Another path, decoded, with its query.
    Path(Vec<u8>),
    /// Another path, decoded, with the query that it has by now.
    Index(Vec<u8>),
    /// A named location.
    Named(String),
}

/// What an error page is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ErrorWay {
    /// A further part of the way.
    On(Way),
    /// The client is sent elsewhere.
    Redirect(u16, Vec<u8>),
}

/// What is put aside of an exchange while a subrequest goes its way.
#[derive(Debug)]
pub(crate) struct Parked {
    location: usize,
    course: Course,
    is_error_page: bool,
    redirect: Option<Vec<u8>>,
    has_read_body: bool,
    has_lost_body: bool,
    outcome: Outcome,
}

impl Exchange {
    /// Goes on in its location with another path, as `try_files` has found it.
    pub(crate) fn go_on_with(&mut self, path: Vec<u8>, is_behind_alias: bool) {
        let args = self.course.args(self.request()).to_vec();
        self.course.rewrite(path, args);
        self.course.is_behind_alias = is_behind_alias;
    }

    /// Takes the next part of the way: finds the location and runs the scripts. What is to be done there
    /// is returned.
    pub(crate) fn take(&mut self, client: &impl AsRef<ClientInfo>, way: Way) -> Verdict {
        let mut course = std::mem::take(&mut self.course);
        // What came before decided nothing.
        course.slots.take_gave_up();
        let router = Router {
            config: &self.state.config,
            server: self.server(),
            client: client.as_ref(),
            origin: self.origin,
            request: self.request(),
            outcome: &self.outcome,
        };
        let routed = match way {
            Way::Start => router.start(&mut course),
            Way::Path(target) if course.may_change() => {
                let (path, args) = Self::split_target(&target);
                course.rewrite(path, args);
                course.is_internal = true;
                router.start(&mut course)
            }
            Way::Index(path) if course.may_change() => {
                let args = course.args(router.request).to_vec();
                course.rewrite(path, args);
                course.is_internal = true;
                router.start(&mut course)
            }
            Way::Path(_) | Way::Index(_) => Routed { location: self.location, verdict: Verdict::Cycle },
            Way::Named(name) => router.named(&mut course, &name),
        };
        self.course = course;
        self.location = routed.location;
        if self.course.slots.take_gave_up() { Verdict::GaveUp } else { routed.verdict }
    }

    /// What the configuration has in store for an error, if it has: a further way, or a redirect.
    pub(crate) fn error_page(
        &mut self,
        client: &impl AsRef<ClientInfo>,
        error: &ProxyError,
    ) -> Option<ErrorWay> {
        let status = error.status();
        // Nothing can be said behind a head that is out, or to a client that is gone.
        let is_lost = self.outcome.status != 0 || matches!(status, 444 | 499) || self.course.goes_round();
        if is_lost || self.is_error_page || !matches!(self.subject, Subject::Request(_)) {
            return None;
        }
        let location = self.location();
        let is_last = !location.recursive_error_pages;
        let page = location.error_page(status)?;
        let mut to = Vec::new();
        page.to.write(&mut to, &self.values(client), verbatim);
        let answer = page.answer;
        if let ProxyError::Intercepted(answer) = error {
            // A 401 without it would be none (RFC 9110 §15.5.2), whatever its page is.
            let asked =
                answer.www_authenticate.iter().map(|value| (b"WWW-Authenticate".to_vec(), value.clone()));
            self.kept.extend(asked);
        }
        self.is_error_page = is_last;
        self.outcome.page_status = match answer {
            // nginx: its own numbers are for `error_page`, and no client knows them.
            PageStatus::OfError => Some(if matches!(status, 495..=497) { 400 } else { status }),
            PageStatus::OfPage => None,
            PageStatus::Fixed(status) => Some(status),
        };
        match to.first() {
            Some(b'/') => {
                self.course.is_get = !self.is_head() || self.course.is_subrequest;
                Some(ErrorWay::On(Way::Path(to)))
            }
            Some(b'@') => Some(ErrorWay::On(Way::Named(String::from_utf8_lossy(&to).into_owned()))),
            _ => {
                let status =
                    self.outcome.page_status.take().filter(|status| is_redirect(*status)).unwrap_or(302);
                Some(ErrorWay::Redirect(status, to))
            }
        }
    }

    /// Whether an error of this status would be answered by an error page.
    pub fn has_error_page(&self, status: u16) -> bool {
        !self.is_error_page && self.location().error_page(status).is_some()
    }

    /// The status that an answer goes out with: an error page has that of the error, unless it is written
    /// otherwise.
    pub fn status_of(&self, answer: u16) -> u16 {
        self.outcome.page_status.unwrap_or(answer)
    }

    /// An error stands for itself, whatever error page it came from.
    pub(crate) fn forget_page_status(&mut self) {
        self.outcome.page_status = None;
        self.redirect = None;
    }

    /// An answer of the upstream has sent the request on: nginx makes a GET of it, unless it is a HEAD or goes
    /// to a named location.
    pub(crate) fn is_sent_on(&mut self, way: &Way) {
        if matches!(way, Way::Path(_)) {
            self.course.is_get = !self.is_head();
        }
    }

    /// Makes a subrequest of the exchange: a way of its own with an outcome of its own, for the same client and
    /// with the same head, until [`Exchange::end_subrequest`].
    pub(crate) fn begin_subrequest(&mut self) -> Parked {
        let course = self.course.split();
        let Outcome { limit_req, limit_conn, .. } = self.outcome;
        let outcome = Outcome { limit_req, limit_conn, ..Outcome::default() };
        Parked {
            location: self.location,
            course: std::mem::replace(&mut self.course, course),
            is_error_page: std::mem::take(&mut self.is_error_page),
            redirect: self.redirect.take(),
            has_read_body: self.has_read_body,
            has_lost_body: self.has_lost_body,
            outcome: std::mem::replace(&mut self.outcome, outcome),
        }
    }

    /// Goes on where [`Exchange::begin_subrequest`] has left off. What the subrequest was counted in stays so.
    pub(crate) fn end_subrequest(&mut self, parked: Parked) {
        parked.course.join(&self.course);
        let Outcome { limit_req, limit_conn, .. } = self.outcome;
        self.location = parked.location;
        self.course = parked.course;
        self.is_error_page = parked.is_error_page;
        self.redirect = parked.redirect;
        self.has_read_body = parked.has_read_body;
        self.has_lost_body = parked.has_lost_body;
        self.outcome = Outcome { limit_req, limit_conn, ..parked.outcome };
    }

    /// Gives a variable a value, from now on.
    pub(crate) fn assign(&mut self, variable: Assigned, value: Vec<u8>) {
        match variable {
            Assigned::User(slot) => self.course.slots.set(slot, value),
            Assigned::Args => {
                let path = self.course.path(self.request()).to_vec();
                self.course.rewrite(path, value);
            }
        }
    }
}
