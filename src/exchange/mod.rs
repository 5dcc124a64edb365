//! One request on its way: what is known of it, for those who deal with it and for the log.

mod way;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::time::Instant;

use crate::access::Counters;
use crate::access::limit_conn::Counted;
use crate::client::{Client, ClientInfo};
use crate::config::{AccessLog, Location, Server, TlsName, To};
use crate::error::{Fault, ProxyError};
use crate::http1::body::BodyLength;
use crate::http1::head::{RequestHead, ResponseHead};
use crate::proxy_protocol::Outgoing;
use crate::request::{self, Origin, Request};
use crate::routing::aim::{Aim, Scheme};
use crate::routing::course::Course;
use crate::routing::outcome::Outcome;
use crate::routing::values::{Values, verbatim};
use crate::routing::variables::Variable;
use crate::server::tasks::Phase;
use crate::state::State;
use crate::upstream::balance::Group;
use crate::upstream::tls::{Secured, server_name};

pub(crate) use way::ErrorWay;
pub use way::Way;

/// One request on its way, for those who deal with it and for the log.
#[derive(Debug)]
pub struct Exchange {
    state: Arc<State>,
    server: usize,
    location: usize,
    course: Course,
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

/// What an exchange is about: as much as could be read.
#[derive(Debug)]
pub(crate) enum Subject {
    Nothing,
    Head(Box<RequestHead>),
    Request(Box<Request>),
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
            Some(head) => Origin::of(client.as_ref(), head, &rules.real_ip),
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

    /// The request, if it is one.
    pub(crate) fn checked(&self) -> Option<&Request> {
        self.subject.request()
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

    /// How connections to the upstream are secured. To be asked behind [`Exchange::aim`].
    ///
    /// # Errors
    /// What the variables make is no name for a certificate.
    pub(crate) fn secured(&self, client: &impl AsRef<ClientInfo>) -> Result<Option<Secured>, ProxyError> {
        let tls = self.location().proxy_pass().and_then(|pass| pass.tls.as_ref());
        let aim = self.outcome.aim.as_deref();
        let tls = match (tls, aim.map(|aim| aim.scheme)) {
            (Some(tls), Some(Scheme::Https) | None) => tls,
            (_, Some(Scheme::Http)) | (None, None) => return Ok(None),
            (None, Some(Scheme::Https)) => {
                return Err(ProxyError::Broken("a `proxy_pass` that cannot lead to `https` does"));
            }
        };
        let text = match (&tls.name, aim) {
            (TlsName::Fixed(name), _) => {
                return Ok(Some(Secured { client: Arc::clone(&tls.client), name: Arc::clone(name) }));
            }
            (TlsName::Template(template), _) => {
                let mut text = Vec::new();
                template.write(&mut text, &self.values(client), verbatim);
                text
            }
            (TlsName::OfUrl, aim) => aim.map_or_else(Vec::new, |aim| aim.host.clone().into_bytes()),
        };
        let name = str::from_utf8(&text).ok().and_then(server_name);
        let name = name.ok_or_else(|| ProxyError::BadTlsName(format!("`{}`", printable(&text))))?;
        Ok(Some(Secured { client: Arc::clone(&tls.client), name: Arc::new(name) }))
    }

    /// What connections to the upstream begin with, if they do: the client, whoever has named it, and where it has
    /// connected to.
    pub(crate) fn header(&self, client: &impl AsRef<ClientInfo>) -> Option<Outgoing> {
        let version = self.location().proxy_protocol?;
        // A proxy may name a client without its port.
        let source = self.origin.client.map(|ip| SocketAddr::new(ip, self.origin.port.unwrap_or(0)));
        Some(Outgoing::new(version, source, client.as_ref().connected_to()))
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
            self.origin = Origin::of(client.as_ref(), head, rules);
        }
    }

    /// The address that is held against `access`: the client's, in the form in which it came if it is the
    /// peer's own.
    pub(crate) fn client_ip(&self, client: &impl AsRef<ClientInfo>) -> Option<IpAddr> {
        if self.origin.is_named { self.origin.client } else { client.as_ref().ip() }
    }

    /// When its first byte arrived.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Where it is recorded.
    pub fn access_logs(&self) -> &[Arc<AccessLog>] {
        &self.location().access_logs
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
            returned: None,
        }
    }

    /// Whether the client's connection goes on after this exchange, as far as the client and the limits
    /// are concerned.
    pub fn may_keep_alive(&self, client: &Client) -> bool {
        let limits = &self.server().limits;
        let has_more = !client.peer.ahead.is_empty();
        // R4: bytes behind a refused upgrade were meant for a tunnel, not for the next request.
        (!self.wants_upgrade || !has_more)
            && !client.info.lacks_tls
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
