//! Finds a server that answers a request: one of its group after the other, as `proxy_next_upstream` says.

use std::cell::Cell;
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use super::attempt::{Attempt, max_body};
use super::{Answered, note, watch};
use crate::client::{Client, ClientInfo};
use crate::config::{Balance, NextCase, NextUpstream, Timeouts, UpstreamAddress, UpstreamVersion};
use crate::error::ProxyError;
use crate::exchange::Exchange;
use crate::headers::outgoing;
use crate::http1::body::BodyLength;
use crate::http1::head::ResponseHead;
use crate::http1::pump::Pump;
use crate::http2::is_unprocessed;
use crate::io::Stream;
use crate::proxy_protocol::Outgoing;
use crate::routing::outcome::{Asked, UpstreamOutcome};
use crate::routing::values::{Values, verbatim};
use crate::server::tasks::Phase;
use crate::shared::Local;
use crate::turn;
use crate::upstream::balance::Lease;
use crate::upstream::choice::Choice;
use crate::upstream::connect::{ConnectError, Connecting};
use crate::upstream::dns::Question;
use crate::upstream::group::Group;
use crate::upstream::http2::{self, OpenError, Wanted};
use crate::upstream::pool::Uses;
use crate::upstream::tls::{Secured, TlsError};

/// Sends a request to a server of its group and reads the head of the answer. With `protocol` the
/// request asks for an upgrade.
///
/// # Errors
/// No server could be reached, or none answered.
pub async fn ask(
    local: &Rc<Local>,
    client: &mut Client,
    exchange: &mut Exchange,
    protocol: Option<&[u8]>,
) -> Result<Answered, ProxyError> {
    let Prepared { group, secured, header, key, head, is_head, body } = prepare(client, exchange, protocol)?;
    let location = exchange.location();
    let (timeouts, next) = (location.timeouts.clone(), location.next_upstream);
    let version = location.http_version;
    if !group.is_settled() {
        let deadline = turn::now() + timeouts.proxy_connect;
        while_present(local, client, deadline, group.settled()).await?;
    }
    let choice = Choice::new(&group, key, next.tries);
    let is_upgrade = protocol.is_some();
    // nginx holds that these do more if they are sent twice, and no others.
    let method = exchange.course().method(exchange.request());
    let is_once_only = [&b"POST"[..], b"LOCK", b"PATCH"].contains(&method);
    let mut asking = Asking {
        local,
        group: &group,
        secured: secured.as_ref(),
        header,
        first: exchange.outcome.upstreams.len(),
        choice,
        next,
        timeouts: &timeouts,
        version,
        head: &head,
        body,
        is_head,
        is_upgrade,
        is_once_only,
        has_looked: false,
        started: turn::now(),
    };
    loop {
        let Some(lease) = asking.choice.choose(turn::now()) else {
            asking.note_asked(exchange, Asked::Group(group.upstream.name.clone()));
            note(exchange, |upstream| upstream.status = 502);
            return Err(ProxyError::NoLiveServer);
        };
        match asking.try_server(lease, client, exchange).await {
            Ok(answered) => {
                if !asking.passes_over(&answered, exchange) {
                    return Ok(answered);
                }
                repeat(*answered.request, client, exchange);
            }
            Err(failure) => {
                let doubted = asking.doubted(&failure);
                match asking.next_after(failure) {
                    Ok(Some(request)) => repeat(*request, client, exchange),
                    Ok(None) => {}
                    Err(error) if !asking.has_moved(doubted, client).await? => return Err(error),
                    Err(_) => {}
                }
            }
        }
    }
}

/// What is sent, and to whom: all that is known before a server is chosen.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// The group.
    pub(crate) group: Arc<Group>,
    /// How connections to its servers are secured.
    pub(crate) secured: Option<Secured>,
    /// What connections to them begin with.
    pub(crate) header: Option<Outgoing>,
    /// What the group chooses its server by.
    pub(crate) key: Vec<u8>,
    /// The head.
    pub(crate) head: Vec<u8>,
    is_head: bool,
    body: BodyLength,
}

/// Finds the group and writes the head. With `protocol` the request asks for an upgrade.
///
/// # Errors
/// What is wrong with the request or with the configuration.
pub(crate) fn prepare(
    client: &impl AsRef<ClientInfo>,
    exchange: &mut Exchange,
    protocol: Option<&[u8]>,
) -> Result<Prepared, ProxyError> {
    let group = exchange.aim(client)?;
    let secured = exchange.secured(client)?;
    let body = exchange.body_to_send()?;
    if let (Some(most), BodyLength::Length(length)) = (max_body(exchange), body)
        && length > most
    {
        return Err(ProxyError::BodyTooLarge);
    }
    let values = exchange.values(client);
    let (location, request) = (exchange.location(), exchange.request());
    let mut head = Vec::with_capacity(1024);
    let method = outgoing::method(location, request, &values, protocol.is_some());
    outgoing::request(&mut head, location, request, &values, &method, protocol)?;
    let key = key(&group, &values);
    let header = exchange.header(client);
    Ok(Prepared { group, secured, header, key, head, is_head: &*method == b"HEAD", body })
}

/// What the group chooses its server by.
fn key(group: &Group, values: &Values<'_>) -> Vec<u8> {
    let mut key = Vec::new();
    match &group.upstream.balance {
        Balance::Hash { key: template, .. } | Balance::Rendezvous { key: template } => {
            template.write(&mut key, values, verbatim);
        }
        Balance::IpHash => match values.origin.client {
            Some(IpAddr::V4(address)) => key.extend_from_slice(&address.octets()[..3]),
            Some(IpAddr::V6(address)) => key.extend_from_slice(&address.octets()),
            // nginx: all peers on Unix-domain sockets are one.
            None => key.extend_from_slice(&[0; 3]),
        },
        Balance::RoundRobin | Balance::LeastConn | Balance::Random | Balance::RandomTwo => {}
    }
    key
}

/// The opening of a connection in HTTP/2 ends in time by itself, and then says more than that it was late.
const PATIENCE: Duration = Duration::from_millis(250);

/// How long a request whose servers could not be reached waits to hear whether they have moved.
const LOOK: Duration = Duration::from_secs(1);

/// What stays the same over all servers that are tried.
pub(super) struct Asking<'a> {
    pub(super) local: &'a Rc<Local>,
    group: &'a Arc<Group>,
    secured: Option<&'a Secured>,
    header: Option<Outgoing>,
    /// How many servers had been asked before, for other locations.
    first: usize,
    choice: Choice<'a>,
    next: NextUpstream,
    pub(super) timeouts: &'a Timeouts,
    version: UpstreamVersion,
    pub(super) head: &'a [u8],
    body: BodyLength,
    is_head: bool,
    pub(super) is_upgrade: bool,
    /// Whether the request may do more if it is sent twice.
    is_once_only: bool,
    /// Whether names have been asked for again.
    has_looked: bool,
    started: Instant,
}

/// A server that has not answered.
struct Failure {
    lease: Lease,
    error: ProxyError,
    /// The request, if a part of it may have been sent.
    sent: Option<Box<Pump>>,
    /// Whether a part of a 1xx answer may be out: nothing can be said behind it.
    is_amid_interim: bool,
    /// Whether it is certain that the server has not looked at the request.
    is_unprocessed: bool,
}

impl Failure {
    /// Before anything was sent.
    fn unreached(lease: Lease, error: ProxyError) -> Self {
        Self { lease, error, sent: None, is_amid_interim: false, is_unprocessed: true }
    }

    /// In nginx's words; `None` if it is not the server's.
    fn case(&self) -> Option<NextCase> {
        match &self.error {
            ProxyError::Connect(_)
            | ProxyError::Tls(_)
            | ProxyError::NotHttp2(_)
            | ProxyError::Upstream(_) => Some(NextCase::Error),
            ProxyError::ConnectTimeout | ProxyError::TlsTimeout | ProxyError::UpstreamTimeout(_) => {
                Some(NextCase::Timeout)
            }
            ProxyError::UpstreamHead(_) | ProxyError::TooManyInterim => Some(NextCase::InvalidHeader),
            _ => None,
        }
    }
}

impl Asking<'_> {
    /// Sends the request to one server.
    async fn try_server(
        &self,
        lease: Lease,
        client: &mut Client,
        exchange: &mut Exchange,
    ) -> Result<Answered, Failure> {
        // An upgrade takes its connection with it, so it gets a new one; in HTTP/2 it is but a stream.
        let mut may_reuse = !self.is_upgrade || self.is_http2();
        loop {
            self.note_asked(exchange, Asked::Server(lease.address().clone()));
            let pooled = (may_reuse && !self.is_http2()).then(|| self.reuse(&lease, exchange)).flatten();
            let reached = match pooled {
                Some(pooled) => Ok(pooled),
                // Boxed: to wait for a connection takes more memory than all that comes after.
                None => Box::pin(self.reach(&lease, client, exchange, may_reuse)).await,
            };
            let (upstream, uses) = match reached {
                Ok(reached) => reached,
                Err(error) => return Err(Failure::unreached(lease, error)),
            };
            let is_reused = uses.requests > 1;
            let mut attempt = Attempt::new(upstream, exchange, self.body);
            let may_fail = is_reused || self.choice.tries() > 1;
            // In HTTP/2 a server can say that it has not looked at a request, whatever that does.
            if !self.body.is_empty() && (self.is_http2() || (self.may_be_repeated() && may_fail)) {
                attempt.request.keep_what_is_taken();
            }
            let started = attempt.last;
            let answer = attempt.answer(self, client, exchange).await;
            let answer = answer.and_then(|head| with_clear_framing(head, exchange));
            exchange.has_read_body |= !self.body.is_empty() && attempt.request.has_read_all();
            exchange.has_lost_body |= attempt.request.has_taken();
            if attempt.is_amid_interim() {
                // A part of a 1xx answer may be out: nothing can be said behind it.
                exchange.outcome.status = 103;
            }
            let error = match answer {
                Ok(head) => {
                    note(exchange, |upstream| {
                        upstream.status = head.status;
                        upstream.header = Some(turn::since(started));
                    });
                    exchange.outcome.late.received = attempt.request.content();
                    let Attempt { upstream, request, .. } = attempt;
                    let (group, is_head) = (Arc::clone(self.group), self.is_head);
                    return Ok(Answered { head, is_head, upstream, uses, group, lease, request, started });
                }
                Err(error) => self.named_by_tls(error),
            };
            note(exchange, |upstream| {
                if !matches!(error, ProxyError::ClientGone(_) | ProxyError::Stopping) {
                    upstream.status = error.status();
                }
                upstream.response = Some(turn::since(started));
            });
            let is_amid_interim = attempt.is_amid_interim();
            let Attempt { heard, request, .. } = attempt;
            // The upstream closed an idle connection while the request was on its way into it. Not a byte of
            // an answer came, so a request that may be sent twice is (RFC 9112 §9.3.1): it is no failure.
            let is_stale = is_reused && !heard && matches!(error, ProxyError::Upstream(_));
            let is_unprocessed = matches!(&error, ProxyError::Upstream(cause) if is_unprocessed(cause));
            let is_safe = is_stale && exchange.request().is_idempotent() || is_unprocessed && may_reuse;
            if !(is_safe && request.can_give_back()) {
                let sent = request.has_sent().then_some(request);
                return Err(Failure { lease, error, sent, is_amid_interim, is_unprocessed });
            }
            repeat(*request, client, exchange);
            may_reuse = false;
        }
    }

    /// Takes down that somebody is asked.
    fn note_asked(&self, exchange: &mut Exchange, asked: Asked) {
        let upstreams = &mut exchange.outcome.upstreams;
        let is_elsewhere = self.first > 0 && upstreams.len() == self.first;
        upstreams.push(UpstreamOutcome { is_elsewhere, ..UpstreamOutcome::of(asked) });
    }

    /// A connection to the server that has been used before.
    fn reuse(&self, lease: &Lease, exchange: &mut Exchange) -> Option<(Stream, Box<Uses>)> {
        let resolver = &self.local.shared.resolver;
        let can_be_repeated = self.body.is_empty() && exchange.request().is_idempotent();
        let mut pool = self.local.pool.borrow_mut();
        let reused = pool.take(lease.address(), self.secured, self.header, can_be_repeated, resolver)?;
        note_reached(exchange, Duration::ZERO, reused.1.address);
        Some(reused)
    }

    /// A new connection to the server, or a stream of one.
    async fn reach(
        &self,
        lease: &Lease,
        client: &mut Client,
        exchange: &mut Exchange,
        may_reuse: bool,
    ) -> Result<(Stream, Box<Uses>), ProxyError> {
        let started = turn::now();
        let resolver = &self.local.shared.resolver;
        let reached = match self.version {
            UpstreamVersion::Http11 => self.connect(lease, client).await,
            UpstreamVersion::Http2 => self.open_stream(lease, client, may_reuse).await,
        };
        match reached {
            Ok((stream, uses)) => {
                note_reached(exchange, turn::since(started), uses.address);
                Ok((stream, uses))
            }
            Err(error) => {
                let is_of_upstream = matches!(
                    error,
                    ProxyError::Connect(_)
                        | ProxyError::ConnectTimeout
                        | ProxyError::Tls(_)
                        | ProxyError::TlsTimeout
                        | ProxyError::NotHttp2(_)
                );
                if is_of_upstream {
                    resolver.doubt(&self.group.questions_of(lease.address()));
                    note(exchange, |upstream| {
                        upstream.status = error.status();
                        upstream.response = Some(turn::since(started));
                    });
                }
                Err(error)
            }
        }
    }

    fn is_http2(&self) -> bool {
        self.version == UpstreamVersion::Http2
    }

    /// Connects to a server in HTTP/1.1.
    async fn connect(&self, lease: &Lease, client: &mut Client) -> Result<(Stream, Box<Uses>), ProxyError> {
        let (since, timeout) = (turn::now(), self.timeouts.proxy_connect);
        let is_taken = Cell::new(false);
        let (secured, header) = (self.secured, self.header);
        let to = Connecting { address: lease.address(), secured, header, is_taken: &is_taken };
        let connecting = to.connect(&self.local.shared.resolver, timeout);
        let connected = while_present(self.local, client, since + timeout, connecting).await;
        let connected = connected.map_err(|error| match error {
            ProxyError::ConnectTimeout if is_taken.get() => ProxyError::TlsTimeout,
            error => error,
        });
        let (stream, address) = connected?.map_err(connect_error)?;
        let uses = Uses { since, requests: 1, address, secured: secured.cloned(), header };
        Ok((stream, Box::new(uses)))
    }

    /// Opens a stream to a server in HTTP/2.
    async fn open_stream(
        &self,
        lease: &Lease,
        client: &mut Client,
        may_reuse: bool,
    ) -> Result<(Stream, Box<Uses>), ProxyError> {
        let timeout = self.timeouts.proxy_connect;
        let wanted = Wanted {
            key: http2::Key {
                address: lease.address().clone(),
                secured: self.secured.cloned(),
                header: self.header,
            },
            rules: &self.group.upstream.keepalive,
            timeout,
            is_tunnel: self.is_upgrade,
            is_fresh: !may_reuse,
        };
        let deadline = turn::now() + timeout + PATIENCE;
        let opened = while_present(self.local, client, deadline, wanted.open(self.local)).await?;
        opened.map_err(|error| match error {
            OpenError::Connect(error) => connect_error(error),
            OpenError::Timeout => ProxyError::ConnectTimeout,
            OpenError::TlsTimeout => ProxyError::TlsTimeout,
            OpenError::NotHttp2(why) => ProxyError::NotHttp2(why),
            OpenError::NoTunnel => ProxyError::NoExtendedConnect,
        })
    }

    /// What TLS says of a connection that has failed is told by its name.
    fn named_by_tls(&self, error: ProxyError) -> ProxyError {
        match (&error, self.secured) {
            (ProxyError::Upstream(cause), Some(secured)) => {
                TlsError::within(cause, secured).map_or(error, |named| ProxyError::Tls(Box::new(named)))
            }
            _ => error,
        }
    }

    /// Takes a failure down. `Ok` if another server is to be tried (R32: always safe while nothing was sent),
    /// with what was sent already.
    fn next_after(&mut self, failure: Failure) -> Result<Option<Box<Pump>>, ProxyError> {
        let Some(case) = failure.case() else { return Err(failure.error) };
        self.note_failed(&failure.lease);
        // An upgrade that was sent may have opened something.
        let is_once_only =
            failure.sent.is_some() && !failure.is_unprocessed && (self.is_upgrade || self.is_once_only);
        let goes_on = self.choice.tries() > 0
            && !failure.is_amid_interim
            && failure.sent.as_ref().is_none_or(|sent| sent.can_give_back())
            && self.allows(case, is_once_only);
        if goes_on {
            let error = &failure.error;
            let why = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
            let server = failure.lease.address();
            tracing::warn!(upstream = %server, "passed over, another server is tried: {why}");
        }
        if goes_on { Ok(failure.sent) } else { Err(failure.error) }
    }

    /// The names of a server that took no connection, as it may have moved: none if they have others by now. `None`: it
    /// did not come to that, or no other one may be tried.
    fn doubted(&self, failure: &Failure) -> Option<Vec<Question>> {
        let is_unreached = matches!(failure.error, ProxyError::Connect(_) | ProxyError::ConnectTimeout);
        let may_go_on = failure.case().is_some_and(|case| self.allows(case, false));
        (is_unreached && may_go_on).then(|| self.group.questions_of(failure.lease.address()))
    }

    /// Whether the group has other servers than those that could not be reached, once its names have been asked
    /// for again. Not a byte of the request was sent.
    async fn has_moved(
        &mut self,
        doubted: Option<Vec<Question>>,
        client: &mut Client,
    ) -> Result<bool, ProxyError> {
        let Some(doubted) = doubted.filter(|_| !self.has_looked) else { return Ok(false) };
        self.has_looked = true;
        let answers = self.local.shared.resolver.answers(&doubted);
        match while_present(self.local, client, turn::now() + LOOK, answers).await {
            Ok(()) | Err(ProxyError::ConnectTimeout) => {}
            Err(error) => return Err(error),
        }
        Ok(self.choice.begin_anew(self.next.tries))
    }

    fn note_failed(&mut self, lease: &Lease) {
        if self.choice.failed(lease, turn::now()) {
            let (server, timeout) = (lease.address(), self.choice.server(lease).fail_timeout);
            tracing::warn!(upstream = %server, "has failed `max_fails` times, and is left alone for {timeout:?}");
        }
    }

    /// Whether an answer is dropped because another server may have a better one. The last one's is as good
    /// as any.
    fn passes_over(&mut self, answered: &Answered, exchange: &mut Exchange) -> bool {
        let status = answered.head.status;
        let goes_on = self.choice.tries() > 1
            && self.allows(NextCase::Status(status), self.is_once_only)
            && answered.request.can_give_back();
        if !goes_on {
            self.choice.answered(&answered.lease);
            return false;
        }
        note(exchange, |upstream| upstream.response = Some(turn::since(answered.started)));
        let lease = &answered.lease;
        // nginx: such an answer says nothing against the server.
        if matches!(status, 403 | 404) {
            self.choice.passed_over(lease);
            tracing::debug!(upstream = %lease.address(), "another server is tried: it answered {status}");
        } else {
            tracing::warn!(upstream = %lease.address(), "passed over, another server is tried: it answered {status}");
            self.note_failed(lease);
        }
        true
    }

    /// Whether `proxy_next_upstream` and its timeout allow for another server.
    fn allows(&self, case: NextCase, is_once_only: bool) -> bool {
        let cases = self.next.cases;
        cases.contains(case)
            && (!is_once_only || cases.contains(NextCase::NonIdempotent))
            && self.next.timeout.is_none_or(|timeout| turn::since(self.started) < timeout)
    }

    /// Whether the body of the request may have to be sent a second time.
    fn may_be_repeated(&self) -> bool {
        let is_allowed = !self.is_once_only || self.next.cases.contains(NextCase::NonIdempotent);
        is_allowed && !self.body.is_empty()
    }
}

/// Waits for a connection, or for what it needs, for as long as the client is there.
async fn while_present<T>(
    local: &Local,
    client: &mut Client,
    deadline: Instant,
    connecting: impl Future<Output = T>,
) -> Result<T, ProxyError> {
    let mut connecting = std::pin::pin!(connecting);
    poll_fn(|cx| {
        if let Poll::Ready(result) = connecting.as_mut().poll(cx) {
            return Poll::Ready(Ok(result));
        }
        if client.task.phase(cx) == Phase::Killed {
            return Poll::Ready(Err(ProxyError::Stopping));
        }
        watch(client, cx, &mut local.buffers.borrow_mut())?;
        client.timer.poll(cx, deadline).map(|()| Err(ProxyError::ConnectTimeout))
    })
    .await
}

/// An answer of which nobody could tell where it ends is none.
fn with_clear_framing(head: ResponseHead, exchange: &Exchange) -> Result<ResponseHead, ProxyError> {
    if head.status != 101 {
        head.body_length(exchange.request().is_head()).map_err(ProxyError::UpstreamHead)?;
    }
    Ok(head)
}

/// Takes down that there is a connection. As in nginx it is the address of a name that the log tells.
fn note_reached(exchange: &mut Exchange, time: Duration, address: Option<SocketAddr>) {
    note(exchange, |upstream| {
        upstream.connect = Some(time);
        if let Some(address) = address {
            upstream.asked = Asked::Server(UpstreamAddress::Ip(address));
        }
    });
}

/// Puts the client's connection back to where the body of the request began.
fn repeat(sent: Pump, client: &mut Client, exchange: &mut Exchange) {
    if sent.give_back(&mut client.peer) {
        exchange.has_lost_body = false;
        exchange.has_read_body = false;
    }
}

/// Without a descriptor left, nothing can be said of the upstream.
fn connect_error(error: ConnectError) -> ProxyError {
    let error = match error {
        ConnectError::Io(error) => error,
        ConnectError::Tls(error) => return ProxyError::Tls(Box::new(error)),
    };
    let (process, system) = (rustix::io::Errno::MFILE, rustix::io::Errno::NFILE);
    match rustix::io::Errno::from_io_error(&error) {
        Some(errno) if errno == process || errno == system => ProxyError::TooManyConnections("ulimit -n"),
        _ => ProxyError::Connect(error),
    }
}
