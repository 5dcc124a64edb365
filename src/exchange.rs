//! One request on its way: what is known of it, for those who deal with it and for the log.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::time::Instant;

use crate::access::Counters;
use crate::access::limit_conn::Counted;
use crate::client::{Client, ClientInfo};
use crate::config::{AccessLog, Location, PageStatus, Server, To};
use crate::error::{Fault, ProxyError};
use crate::http1::body::BodyLength;
use crate::http1::head::{RequestHead, ResponseHead};
use crate::request::{self, Origin, Request};
use crate::routing::aim::Aim;
use crate::routing::course::Course;
use crate::routing::route::{Routed, Router, Verdict};
use crate::routing::script::{Assigned, is_redirect};
use crate::routing::values::{Outcome, Values, verbatim};
use crate::routing::variables::Variable;
use crate::server::tasks::Phase;
use crate::state::State;
use crate::upstream::balance::Group;

/// One request on its way, for those who deal with it and for the log.
#[derive(Debug)]
pub struct Exchange {
    state: Arc<State>,
    server: usize,
    location: usize,
    course: Course,
    /// The status that an error page says its answer has.
    page_status: Option<u16>,
    /// Whether it has come to an error page.
    is_error_page: bool,
    subject: Subject,
    origin: Origin,
    started: Instant,
    /// Where a redirect leads whose body an error page writes.
    pub(crate) redirect: Option<Vec<u8>>,
    /// Whether the client wanted the connection for another protocol.
    pub wants_upgrade: bool,
    /// Whether the body was read to its end; an exchange without a body begins so.
    pub has_read_body: bool,
    /// Whether a part of the body went to an upstream, so that no other one can get it.
    pub has_lost_body: bool,
    /// What became of it so far.
    pub outcome: Outcome,
    /// Where it is counted until it has ended.
    counted: Vec<Counted>,
    /// Fields of an answer that sent it on to another location.
    pub(crate) kept: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What is put aside of an exchange while a subrequest goes its way.
#[derive(Debug)]
pub(crate) struct Parked {
    location: usize,
    course: Course,
    page_status: Option<u16>,
    is_error_page: bool,
    has_read_body: bool,
    has_lost_body: bool,
    outcome: Outcome,
}

/// What an exchange is about: as much as could be read.
#[derive(Debug)]
pub(crate) enum Subject {
    Nothing,
    Head(Box<RequestHead>),
    Request(Box<Request>),
}

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

/// What dealing with an exchange came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Done {
    /// It is answered.
    Answered(After),
    /// It goes on from here.
    Elsewhere(Way),
}

/// What becomes of the client's connection after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// It goes on with the next request.
    Open,
    /// It ends, in good order.
    Close,
}

impl Exchange {
    pub(crate) fn new(
        state: Arc<State>,
        server: usize,
        subject: Subject,
        client: &impl AsRef<ClientInfo>,
        started: Instant,
    ) -> Self {
        let rules = &state.config.servers[server];
        let origin = match subject.head() {
            Some(head) => Origin::of(client.as_ref().address, head, &rules.real_ip),
            None => Origin::unknown(client.as_ref().address),
        };
        let location = rules.outer();
        let mut outcome = Outcome::default();
        outcome.late.head_received = subject.head().map_or(0, |head| head.fields.bytes().len() as u64);
        let has_read_body = subject.request().is_some_and(|request| request.body.is_empty());
        Self {
            state,
            server,
            location,
            course: Course::default(),
            page_status: None,
            is_error_page: false,
            redirect: None,
            subject,
            origin,
            started,
            wants_upgrade: false,
            has_read_body,
            has_lost_body: false,
            outcome,
            counted: Vec::new(),
            kept: Vec::new(),
        }
    }

    /// The request. To be asked only once there is one.
    pub fn request(&self) -> &Request {
        match &self.subject {
            Subject::Request(request) => request,
            Subject::Head(_) | Subject::Nothing => {
                unreachable!("an exchange is dealt with once it has a request")
            }
        }
    }

    /// The head of the upstream's answer. To be asked only once there is one.
    pub fn response(&self) -> &ResponseHead {
        match &self.outcome.response {
            Some(head) => head,
            None => unreachable!("an answer is dealt with once there is one"),
        }
    }

    /// The head, if one was read.
    pub fn head(&self) -> Option<&RequestHead> {
        self.subject.head()
    }

    /// The server that answers.
    pub fn server(&self) -> &Server {
        &self.state.config.servers[self.server]
    }

    /// The place of the server in [`Config::servers`](crate::config::Config::servers).
    pub(crate) fn server_place(&self) -> usize {
        self.server
    }

    /// The place of the location in [`Server::locations`].
    pub(crate) fn location_place(&self) -> usize {
        self.location
    }

    /// The host without its port, also if all the rest of the head is no request; empty if none is known.
    pub(crate) fn host(&self) -> String {
        let head = self.subject.head();
        head.and_then(|head| request::host_of(head).ok()).map(|(host, _)| host).unwrap_or_default()
    }

    /// The location that it has come to; the server's outer one before that, and if none has the path.
    pub fn location(&self) -> &Location {
        &self.server().locations[self.location]
    }

    /// Has every step of its way written down from now on, for [`Course::events`].
    pub(crate) fn trace(&mut self) {
        self.course = Course::traced();
    }

    /// Keeps what an expression in `server_name` has found in the host.
    pub(crate) fn capture_host(&self, client: &impl AsRef<ClientInfo>) {
        self.state.capture_host(&client.as_ref().listener, &self.request().host, &self.course.slots);
    }

    /// Where its way has led so far.
    pub fn course(&self) -> &Course {
        &self.course
    }

    /// The upstream of the location. A `proxy_pass` with variables is evaluated, once for each location that
    /// the request comes to.
    ///
    /// # Errors
    /// There is none, or what the variables make cannot be used.
    pub(crate) fn aim(&mut self, client: &impl AsRef<ClientInfo>) -> Result<Arc<Group>, ProxyError> {
        self.outcome.aim = None;
        let pass = self.location().proxy_pass().ok_or(ProxyError::NoLocation)?;
        let url = match &pass.to {
            To::Group(group) => return Ok(Arc::clone(&self.state.groups[*group])),
            To::Url(url) => url,
        };
        let mut text = Vec::new();
        url.write(&mut text, &self.values(client), verbatim);
        let aim = Aim::of(&text)
            .map_err(|why| ProxyError::BadProxyPass(format!("`{}`: {why}", printable(&text))))?;
        let group = self.state.group_of(&aim);
        self.outcome.aim = Some(Box::new(aim));
        Ok(group)
    }

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
        routed.verdict
    }

    /// What the configuration has in store for an error, if it has: a further way, or a redirect.
    pub(crate) fn error_page(
        &mut self,
        client: &impl AsRef<ClientInfo>,
        error: &ProxyError,
    ) -> Option<ErrorWay> {
        let status = error.status();
        // Nothing can be said behind a head that is out, or to a client that is gone.
        let is_lost = self.outcome.status != 0 || matches!(status, 444 | 499);
        if is_lost || self.is_error_page || !matches!(self.subject, Subject::Request(_)) {
            return None;
        }
        let location = self.location();
        let is_last = !location.recursive_error_pages;
        let page = location.error_page(status)?;
        let mut to = Vec::new();
        page.to.write(&mut to, &self.values(client), verbatim);
        let answer = page.answer;
        self.is_error_page = is_last;
        self.page_status = match answer {
            PageStatus::OfError => Some(status),
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
                let status = self.page_status.take().filter(|status| is_redirect(*status)).unwrap_or(302);
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
        self.page_status.unwrap_or(answer)
    }

    /// An error stands for itself, whatever error page it came from.
    pub(crate) fn forget_page_status(&mut self) {
        self.page_status = None;
        self.redirect = None;
    }

    /// An answer of the upstream has sent the request on: nginx makes a GET of it, unless it is a HEAD or goes
    /// to a named location.
    pub(crate) fn is_sent_on(&mut self, way: &Way) {
        if matches!(way, Way::Path(_)) {
            self.course.is_get = !self.is_head();
        }
    }

    /// How the body goes to an upstream.
    ///
    /// # Errors
    /// It went to another one already.
    pub fn body_to_send(&self) -> Result<BodyLength, ProxyError> {
        if self.course.is_get {
            return Ok(BodyLength::Length(0));
        }
        if self.has_lost_body { Err(ProxyError::BodyIsGone) } else { Ok(self.request().body) }
    }

    /// What requests are counted in.
    pub fn counters(&self) -> &Counters {
        &self.state.counters
    }

    /// Keeps the request counted for as long as it lives.
    pub fn hold(&mut self, counted: Vec<Counted>) {
        self.counted.extend(counted);
    }

    /// Where it is counted, for the tunnel that it becomes.
    pub fn take_counted(&mut self) -> Vec<Counted> {
        std::mem::take(&mut self.counted)
    }

    /// Who sent the request by the rules of its location, if those of the server do not say so (nginx has
    /// `real_ip_header` in locations).
    pub(crate) fn ask_again_who_sent_it(&mut self, client: &impl AsRef<ClientInfo>) {
        let rules = &self.location().access.real_ip;
        if self.origin.is_named || Arc::ptr_eq(rules, &self.server().real_ip) {
            return;
        }
        if let Some(head) = self.subject.head() {
            self.origin = Origin::of(client.as_ref().address, head, rules);
        }
    }

    /// The address that is held against `access`: the client's, in the form in which it came if it is the
    /// peer's own.
    pub(crate) fn client_ip(&self, client: &impl AsRef<ClientInfo>) -> Option<IpAddr> {
        if self.origin.is_named { self.origin.client } else { client.as_ref().ip() }
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
            page_status: self.page_status.take(),
            is_error_page: std::mem::take(&mut self.is_error_page),
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
        self.page_status = parked.page_status;
        self.is_error_page = parked.is_error_page;
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

    /// When its first byte arrived.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Where it is recorded.
    pub fn access_log(&self) -> Option<&Arc<AccessLog>> {
        self.location().access_log.as_ref()
    }

    /// What the variables can ask about.
    pub fn values<'a>(&'a self, client: &'a impl AsRef<ClientInfo>) -> Values<'a> {
        Values {
            client: client.as_ref(),
            origin: self.origin,
            head: self.subject.head(),
            request: self.subject.request(),
            config: &self.state.config,
            server: self.server(),
            location: self.location(),
            course: &self.course,
            outcome: &self.outcome,
            answer: None,
        }
    }

    /// Whether the client's connection goes on after this exchange, as far as the client and the limits
    /// are concerned.
    pub fn may_keep_alive(&self, client: &Client) -> bool {
        let limits = &self.server().limits;
        let has_more = !client.peer.ahead.is_empty();
        // R4: bytes behind a refused upgrade were meant for a tunnel, not for the next request.
        (!self.wants_upgrade || !has_more)
            // What was sent before the FIN is still answered.
            && (client.half_closed.is_none() || has_more)
            && self.subject.head().is_some_and(RequestHead::keeps_alive)
            && client.task.current_phase() == Phase::Serving
            && limits.keepalive_requests.is_none_or(|most| client.info.requests < most)
            && !limits.keepalive_timeout.is_zero()
            && self.state.config.listeners.iter().any(|known| known.address == client.info.listener)
    }

    pub(crate) fn after_error(&self, client: &Client, error: &ProxyError) -> After {
        // R25: a body that was not read would be taken for the next request.
        if error.keeps_connection() { self.after_reply(client) } else { After::Close }
    }

    /// What becomes of the connection behind an answer of hopgate's own.
    pub(crate) fn after_reply(&self, client: &Client) -> After {
        if self.is_body_settled() && self.may_keep_alive(client) { After::Open } else { After::Close }
    }

    /// Whether it is certain where the next request starts (R25).
    pub(crate) fn is_body_settled(&self) -> bool {
        self.has_read_body || self.unread_body().is_some()
    }

    /// How much of the body is still to come, if it is little and sure to come: then it is read and thrown
    /// away, as nginx does, instead of ending the connection. A client that waits for a 100 may never send
    /// it.
    pub(crate) fn unread_body(&self) -> Option<u64> {
        const MOST: u64 = 64 << 10;
        let request = self.subject.request().filter(|_| !self.has_read_body && !self.has_lost_body)?;
        match request.body {
            BodyLength::Length(length) if length <= MOST && !request.expects_continue => Some(length),
            _ => None,
        }
    }

    pub(crate) fn is_head(&self) -> bool {
        // Also if the rest of the head is no request: the client waits for no body.
        self.subject.head().is_some_and(|head| head.method() == b"HEAD")
    }

    /// Tells the log why a request failed: once, here.
    pub(crate) fn tell(&self, client: &Client, error: &ProxyError) {
        let why = error.in_full();
        let mut peer = Vec::new();
        let values = self.values(client);
        values.write(&Variable::RemoteAddr, &mut peer);
        let peer = String::from_utf8_lossy(&peer);
        let line = self.subject.head().map_or_else(String::new, |head| printable(head.line()));
        let upstream = self.outcome.upstreams.last().map_or_else(String::new, |last| last.asked.to_string());
        match (error, error.fault()) {
            (ProxyError::ClientGone(_), _) => tracing::debug!(client = %peer, request = line, "{why}"),
            (_, Fault::Upstream) => tracing::warn!(client = %peer, request = line, upstream, "{why}"),
            (_, Fault::Limit) => tracing::warn!(client = %peer, request = line, "{why}"),
            (_, Fault::Client) => tracing::info!(client = %peer, request = line, "{why}"),
        }
    }
}

/// A request line for a person's eyes: no control bytes.
fn printable(line: &[u8]) -> String {
    line.iter().flat_map(|byte| std::ascii::escape_default(*byte)).map(char::from).collect()
}

impl Subject {
    pub(crate) fn head(&self) -> Option<&RequestHead> {
        match self {
            Self::Nothing => None,
            Self::Head(head) => Some(head),
            Self::Request(request) => Some(&request.head),
        }
    }

    fn request(&self) -> Option<&Request> {
        match self {
            Self::Request(request) => Some(request),
            Self::Head(_) | Self::Nothing => None,
        }
    }
}
