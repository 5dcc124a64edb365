//! One request on its way: what is known of it, for those who deal with it and for the log.

use std::sync::Arc;

use tokio::time::Instant;

use crate::client::Client;
use crate::config::{AccessLog, Location, Server};
use crate::error::{Fault, ProxyError};
use crate::http1::head::RequestHead;
use crate::request::{Origin, Request};
use crate::routing::values::{Outcome, Values};
use crate::routing::variables::Variable;
use crate::server::tasks::Phase;
use crate::state::State;
use crate::upstream::balance::Group;

/// One request on its way, for those who deal with it and for the log.
#[derive(Debug)]
pub struct Exchange {
    state: Arc<State>,
    server: usize,
    location: Option<usize>,
    subject: Subject,
    origin: Origin,
    started: Instant,
    /// Whether the client wanted the connection for another protocol.
    pub wants_upgrade: bool,
    /// Whether the body was read to its end; an exchange without a body begins so.
    pub has_read_body: bool,
    /// What became of it so far.
    pub outcome: Outcome,
}

/// What an exchange is about: as much as could be read.
#[derive(Debug)]
pub(crate) enum Subject {
    Nothing,
    Head(Box<RequestHead>),
    Request(Box<Request>),
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
        client: &Client,
        started: Instant,
    ) -> Self {
        let rules = &state.config.servers[server];
        let (location, origin) = match &subject {
            Subject::Request(request) => {
                (rules.paths.find(request.path()), Origin::of(client.info.ip(), &request.head, rules))
            }
            Subject::Head(head) => (None, Origin::of(client.info.ip(), head, rules)),
            Subject::Nothing => (None, Origin::unknown(client.info.ip())),
        };
        let location = match &subject {
            // `OPTIONS *` is about the server as a whole: it goes where the server's root goes.
            Subject::Request(request) if request.path() == b"*" => rules.paths.find(b"/"),
            _ => location,
        };
        let mut outcome = Outcome::default();
        outcome.late.head_received = subject.head().map_or(0, |head| head.fields.bytes().len() as u64);
        let has_read_body = subject.request().is_some_and(|request| request.body.is_empty());
        Self {
            state,
            server,
            location,
            subject,
            origin,
            started,
            wants_upgrade: false,
            has_read_body,
            outcome,
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

    /// The head, if one was read.
    pub fn head(&self) -> Option<&RequestHead> {
        self.subject.head()
    }

    /// The server that answers.
    pub fn server(&self) -> &Server {
        &self.state.config.servers[self.server]
    }

    /// The location, if there is one for the path.
    pub fn location(&self) -> Option<&Location> {
        self.location.map(|location| &self.server().locations[location])
    }

    /// The upstream of the location.
    pub fn group(&self) -> Option<Arc<Group>> {
        self.location().map(|location| Arc::clone(&self.state.groups[location.proxy_pass.upstream]))
    }

    /// When its first byte arrived.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Where it is recorded.
    pub fn access_log(&self) -> Option<&Arc<AccessLog>> {
        self.location().map_or(&self.server().access_log, |location| &location.access_log).as_ref()
    }

    /// What the variables can ask about.
    pub fn values<'a>(&'a self, client: &'a Client) -> Values<'a> {
        Values {
            client: &client.info,
            origin: self.origin,
            head: self.subject.head(),
            request: self.subject.request(),
            server_name: &self.server().name,
            proxy_pass: self.location().map(|location| &location.proxy_pass),
            outcome: &self.outcome,
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
        let goes_on = error.keeps_connection() && self.has_read_body && self.may_keep_alive(client);
        if goes_on { After::Open } else { After::Close }
    }

    pub(crate) fn is_head(&self) -> bool {
        self.subject.request().is_some_and(Request::is_head)
    }

    /// Tells the log why a request failed: once, here.
    pub(crate) fn tell(&self, client: &Client, error: &ProxyError) {
        let mut why = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(source) = cause {
            why = format!("{why}: {source}");
            cause = source.source();
        }
        let mut peer = Vec::new();
        let values = self.values(client);
        values.write(&Variable::RemoteAddr, &mut peer);
        let peer = String::from_utf8_lossy(&peer);
        let line = self.subject.head().map_or_else(String::new, |head| printable(head.line()));
        let upstream =
            self.outcome.upstreams.last().map_or_else(String::new, |last| last.address.to_string());
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
