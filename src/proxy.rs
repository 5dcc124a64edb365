//! Decides what happens to one request; the only place where an error becomes a response.

use std::rc::Rc;
use std::sync::Arc;

use tokio::time::Instant;

use crate::access;
use crate::client::{Client, ClientInfo};
use crate::error::ProxyError;
use crate::exchange::{After, Done, ErrorWay, Exchange, Subject, Way};
use crate::files::{self, Served as Filed};
use crate::forward;
use crate::http1::head::{HeadError, RequestHead};
use crate::reply::{self, Reply};
use crate::request::{Addressed, Request};
use crate::shared::Local;
use crate::state::State;
use crate::tls::session::TlsSession;
use crate::tunnel::Tunnel;
use crate::turn;
use crate::upgrade::{self, Intent, Switched};

/// What a connection is behind a request.
#[derive(Debug)]
pub enum Next {
    /// One of HTTP, for further requests.
    Http(Box<Client>),
    /// One end of a tunnel.
    Tunnel(Box<Tunnel>),
    /// Over.
    Nothing,
}

impl From<Option<Box<Client>>> for Next {
    fn from(client: Option<Box<Client>>) -> Self {
        client.map_or(Self::Nothing, Self::Http)
    }
}

/// Answers one request.
pub async fn handle(local: &Rc<Local>, mut client: Box<Client>, head: RequestHead, started: Instant) -> Next {
    client.info.requests += 1;
    let (mut exchange, mut refused) = match exchange(local, &client, head, started) {
        Ok(exchange) => (exchange, None),
        Err((exchange, error)) => (exchange, Some(error)),
    };
    let mut way = Way::Start;
    loop {
        let settled = match refused.take() {
            Some(error) => Err(error),
            None => settled(local, &mut client, &mut exchange, way).await,
        };
        let result = match settled {
            Ok(Settled::Done(done)) => Ok(done),
            Ok(Settled::Proxied(Intent::Forward)) => forward::send(local, &mut client, &mut exchange).await,
            Ok(Settled::Proxied(Intent::Upgrade(upgrade))) => {
                match upgrade::switch(local, client, exchange, upgrade).await {
                    Switched::Tunnel(tunnel) => return Next::Tunnel(tunnel),
                    Switched::Answered(its_client, its_exchange, result) => {
                        (client, exchange) = (its_client, its_exchange);
                        result
                    }
                }
            }
            Err(error) => Err(error),
        };
        match result {
            Ok(Done::Answered(after)) => {
                record(local, &client, &mut exchange);
                return leave(local, client, &exchange, after).await.into();
            }
            Ok(Done::Elsewhere(next)) => way = next,
            Err(error) => match exchange.error_page(&*client, &error) {
                Some(ErrorWay::On(next)) => {
                    exchange.tell(&client, &error);
                    way = next;
                }
                Some(ErrorWay::Redirect(status, to)) => {
                    exchange.tell(&client, &error);
                    let after = exchange.after_error(&client, &error);
                    let reply = Reply::redirect(status, to);
                    return answer(local, client, exchange, reply, after).await.into();
                }
                None => return fail(local, client, exchange, error).await.into(),
            },
        }
    }
}

/// What one part of a request's way came to.
enum Settled {
    /// An answer, or a further part.
    Done(Done),
    /// It is for the upstream to answer.
    Proxied(Intent),
}

/// Takes one part of the way: finds the location, and does there what can be done without an upstream.
async fn settled(
    local: &Rc<Local>,
    client: &mut Client,
    exchange: &mut Exchange,
    way: Way,
) -> Result<Settled, ProxyError> {
    if way == Way::Start
        && let Some(proof) = local.shared.challenges.answer_to(exchange.request())
    {
        // Before every location and redirect: none of them may come between a CA and its proof.
        return reply_to(local, client, exchange, Reply::text(proof)).await.map(Settled::Done);
    }
    let verdict = exchange.take(client, way);
    if let Some(reply) = Reply::of_verdict(verdict, exchange, client)? {
        return reply_to(local, client, exchange, reply).await.map(Settled::Done);
    }
    access::limit(local, client, exchange).await?;
    access::check(local, client, exchange).await?;
    match files::answer(exchange, client)? {
        None => intent(exchange).map(Settled::Proxied),
        Some(Filed::Elsewhere(way)) => Ok(Settled::Done(Done::Elsewhere(way))),
        Some(Filed::Reply(reply)) => {
            if reply.status >= 300 {
                // The redirect of a directory stands for itself, on an error page, too.
                exchange.forget_page_status();
            }
            reply_to(local, client, exchange, reply).await.map(Settled::Done)
        }
    }
}

/// What the client wants of the upstream. What an error page has made a GET of is no handshake any more.
pub(crate) fn intent(exchange: &mut Exchange) -> Result<Intent, ProxyError> {
    if exchange.course().is_get {
        return Ok(Intent::Forward);
    }
    let intent = Intent::of(exchange.request(), &exchange.location().upgrade);
    exchange.wants_upgrade = !matches!(intent, Ok(Intent::Forward));
    intent
}

/// Sends an answer of hopgate's own.
async fn reply_to(
    local: &Rc<Local>,
    client: &mut Client,
    exchange: &mut Exchange,
    reply: Reply,
) -> Result<Done, ProxyError> {
    let after = exchange.after_reply(client);
    reply::send(local, client, exchange, reply, after).await?;
    Ok(Done::Answered(after))
}

/// The last answer to a request.
async fn answer(
    local: &Rc<Local>,
    mut client: Box<Client>,
    mut exchange: Box<Exchange>,
    reply: Reply,
    after: After,
) -> Option<Box<Client>> {
    let sent = reply::send(local, &mut client, &mut exchange, reply, after).await;
    record(local, &client, &mut exchange);
    if sent.is_ok() { leave(local, client, &exchange, after).await } else { None }
}

/// Answers what never became a request: a head that is none, or that did not come in time.
pub async fn refuse(local: &Rc<Local>, client: Box<Client>, error: ProxyError, started: Instant) {
    let state = local.state();
    let server = state.unnamed_server(&client.info.listener).unwrap_or(0);
    let exchange = Box::new(Exchange::new(state, server, Subject::Nothing, &client.info, started));
    fail(local, client, exchange, error).await;
}

/// Finds the server and the location for a head.
fn exchange(
    local: &Local,
    client: &Client,
    head: RequestHead,
    started: Instant,
) -> Result<Box<Exchange>, (Box<Exchange>, ProxyError)> {
    let mut state = local.state();
    if state.unnamed_server(&client.info.listener).is_none() {
        // A reload took the listener away; its connections are served as they were, to their end.
        state = Arc::clone(&client.accepted_under);
    }
    found(state, &client.info, head, started)
}

/// Finds the server for a head, and checks it by that server's rules.
pub(crate) fn found(
    state: Arc<State>,
    client: &ClientInfo,
    head: RequestHead,
    started: Instant,
) -> Result<Box<Exchange>, (Box<Exchange>, ProxyError)> {
    let failed = |state, server, (error, head): (ProxyError, RequestHead)| {
        let subject = Subject::Head(Box::new(head));
        (Box::new(Exchange::new(state, server, subject, client, started)), error)
    };
    let addressed = match Addressed::new(head) {
        Ok(addressed) => addressed,
        Err(error) => {
            let server = state.unnamed_server(&client.listener).unwrap_or(0);
            return Err(failed(state, server, error));
        }
    };
    let server = state.server_for(&client.listener, &addressed.host).unwrap_or(0);
    let is_elsewhere = |tls: &TlsSession| !tls.is_for(state.tls.get(server).map(|server| &server.clients));
    if client.tls.as_deref().is_some_and(is_elsewhere) {
        // Nothing of that server is for this client, its error pages neither.
        return Err(failed(state, server, (ProxyError::Misdirected, addressed.into_head())));
    }
    let mut request = match addressed.check(&state.config.servers[server]) {
        Ok(request) => request,
        Err(error) => return Err(failed(state, server, error)),
    };
    drop_odd_names(&mut request, state.config.servers[server].limits.underscores_in_headers);
    let admitted = admit(client);
    // Boxed, both: what an exchange is made of is not moved about with it.
    let subject = Subject::Request(Box::new(request));
    let exchange = Box::new(Exchange::new(state, server, subject, client, started));
    exchange.capture_host(client);
    match admitted {
        Ok(()) => Ok(exchange),
        // It is a request all the same, for which `error_page` may have something.
        Err(error) => Err((exchange, error)),
    }
}

/// Whether a client may send requests here, by what the handshake of its connection has shown.
fn admit(client: &ClientInfo) -> Result<(), ProxyError> {
    if client.lacks_tls {
        return Err(ProxyError::PlainHttp);
    }
    client.tls.as_ref().map_or(Ok(()), |tls| tls.admit())
}

/// Tells the client of an error, if it can still be told, and the log.
async fn fail(
    local: &Rc<Local>,
    mut client: Box<Client>,
    mut exchange: Box<Exchange>,
    error: ProxyError,
) -> Option<Box<Client>> {
    exchange.tell(&client, &error);
    let status = error.status();
    if status == 444 && exchange.outcome.status == 0 {
        // nginx's own: the connection ends without a word.
        exchange.outcome.status = status;
        record(local, &client, &mut exchange);
        return None;
    }
    if exchange.outcome.status != 0 || status == 499 {
        // The head is out already, or nobody listens: what is left is to make sure that the
        // client does not take what it got for the whole.
        if exchange.outcome.status == 0 {
            exchange.outcome.status = status;
        }
        record(local, &client, &mut exchange);
        client.peer.stream.reset();
        return None;
    }
    exchange.forget_page_status();
    let after = exchange.after_error(&client, &error);
    answer(local, client, exchange, Reply::of_error(&error), after).await
}

/// Writes the access lines.
fn record(local: &Rc<Local>, client: &Client, exchange: &mut Exchange) {
    exchange.outcome.late.duration = turn::since(exchange.started());
    for log in exchange.access_logs() {
        local.lines.request(log, &exchange.values(client));
    }
}

async fn leave(
    local: &Local,
    mut client: Box<Client>,
    exchange: &Exchange,
    after: After,
) -> Option<Box<Client>> {
    if client.peer.stream.is_http2() {
        // A stream is for one request. One that still sends is told to stop by RFC 9113 §8.1, which h2 does.
        return None;
    }
    if after == After::Open {
        let Some(left) = exchange.unread_body() else { return Some(client) };
        let timeout = exchange.location().timeouts.client_body;
        return client.discard(left, &local.buffers, timeout).await.then_some(client);
    }
    client.linger(&local.buffers).await;
    None
}

/// R15: to an app behind a CGI-like interface `X_Real_IP` is `X-Real-IP`, and so are other names with odd
/// characters to some; so they do not pass, as with nginx.
fn drop_odd_names(request: &mut Request, keep_underscores: bool) {
    let passes = |byte: &u8| matches!(PASSES[usize::from(*byte)], Some(sure) if sure || keep_underscores);
    let mut dropped: Option<(String, usize)> = None;
    request.head.fields.retain(|field| {
        let is_kept = field.name.iter().all(passes);
        if !is_kept {
            let first = || (String::from_utf8_lossy(field.name).into_owned(), 0);
            dropped.get_or_insert_with(first).1 += 1;
        }
        is_kept
    });
    // One line for a request, however many there are: a log is no place for a client to write to.
    if let Some((field, count)) = dropped {
        let hint = if field.contains('_') { "; `underscores_in_headers = true` keeps `_`" } else { "" };
        tracing::info!(
            field,
            count,
            "fields were dropped: their names are not of letters, digits and `-`{hint}"
        );
    }
}

/// Whether a byte of a name passes: always, with `underscores_in_headers` only, or never (`None`).
static PASSES: [Option<bool>; 256] = {
    let (mut passes, mut byte) = ([None; 256], 0);
    while byte < passes.len() {
        if (byte as u8).is_ascii_alphanumeric() || byte == b'-' as usize {
            passes[byte] = Some(true);
        }
        byte += 1;
    }
    passes[b'_' as usize] = Some(false);
    passes
};

impl From<HeadError> for ProxyError {
    fn from(error: HeadError) -> Self {
        Self::Head(error)
    }
}
