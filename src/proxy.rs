//! Decides what happens to one request; the only place where an error becomes a response.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::client::Client;
use crate::clock;
use crate::error::{ProxyError, reason};
use crate::exchange::{After, Exchange, Subject};
use crate::forward;
use crate::headers::outgoing::Connection;
use crate::http1::head::{HeadError, RequestHead, Version};
use crate::request::{Addressed, Request};
use crate::shared::Local;
use crate::upgrade::{self, Intent, Switched};
use crate::websocket::{self, HandshakeError};

/// Answers one request. What is returned is the client if its connection goes on as HTTP.
pub async fn handle(
    local: &Rc<Local>,
    mut client: Client,
    head: RequestHead,
    started: Instant,
) -> Option<Client> {
    client.info.requests += 1;
    let mut exchange = match exchange(local, &client, head, started) {
        Ok(exchange) => exchange,
        Err((exchange, error)) => return fail(local, client, *exchange, error).await,
    };
    let result = match exchange.location() {
        None => Err(ProxyError::NoLocation),
        Some(location) => match Intent::of(exchange.request(), &location.upgrade) {
            Ok(Intent::Forward) => forward::send(local, &mut client, &mut exchange).await,
            Err(error) => {
                exchange.wants_upgrade = true;
                Err(error)
            }
            Ok(Intent::Upgrade(upgrade)) => {
                exchange.wants_upgrade = true;
                match upgrade::switch(local, client, exchange, upgrade).await {
                    Switched::Tunnel => return None,
                    Switched::Answered(goes_on, result) => {
                        let (client, exchange) = *goes_on;
                        return finish(local, client, exchange, result).await;
                    }
                }
            }
        },
    };
    finish(local, client, exchange, result).await
}

/// Ends an exchange: an error becomes a response, the access line is written.
async fn finish(
    local: &Rc<Local>,
    client: Client,
    mut exchange: Exchange,
    result: Result<After, ProxyError>,
) -> Option<Client> {
    match result {
        Ok(after) => {
            record(local, &client, &mut exchange);
            leave(local, client, after).await
        }
        Err(error) => fail(local, client, exchange, error).await,
    }
}

/// Answers what never became a request: a head that is none, or that did not come in time.
pub async fn refuse(local: &Rc<Local>, client: Client, error: ProxyError, started: Instant) {
    let state = local.state();
    let server = state.server_for(&client.info.listener, "").unwrap_or(0);
    let exchange = Exchange::new(state, server, Subject::Nothing, &client, started);
    fail(local, client, exchange, error).await;
}

/// Finds the server and the location for a head.
fn exchange(
    local: &Local,
    client: &Client,
    head: RequestHead,
    started: Instant,
) -> Result<Exchange, (Box<Exchange>, ProxyError)> {
    let mut state = local.state();
    if state.server_for(&client.info.listener, "").is_none() {
        // A reload took the listener away; its connections are served as they were, to their end.
        state = Arc::clone(&client.accepted_under);
    }
    let failed = |state, server, (error, head): (ProxyError, RequestHead)| {
        let subject = Subject::Head(Box::new(head));
        (Box::new(Exchange::new(state, server, subject, client, started)), error)
    };
    let addressed = match Addressed::new(head) {
        Ok(addressed) => addressed,
        Err(error) => {
            let server = state.server_for(&client.info.listener, "").unwrap_or(0);
            return Err(failed(state, server, error));
        }
    };
    let server = state.server_for(&client.info.listener, &addressed.host).unwrap_or(0);
    let mut request = match addressed.check(&state.config.servers[server]) {
        Ok(request) => request,
        Err(error) => return Err(failed(state, server, error)),
    };
    drop_odd_names(&mut request, state.config.servers[server].limits.underscores_in_headers);
    Ok(Exchange::new(state, server, Subject::Request(Box::new(request)), client, started))
}

/// Tells the client of an error, if it can still be told, and the log.
async fn fail(
    local: &Rc<Local>,
    mut client: Client,
    mut exchange: Exchange,
    error: ProxyError,
) -> Option<Client> {
    exchange.tell(&client, &error);
    let status = error.status();
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
    exchange.outcome.status = status;
    let after = exchange.after_error(&client, &error);
    let response = error_response(&error, &exchange, after);
    exchange.outcome.late.sent = response.len() as u64;
    exchange.outcome.late.body_sent = if exchange.is_head() { 0 } else { body_of(status).len() as u64 };
    let timeout = exchange.location().map_or(Duration::from_secs(5), |location| location.timeouts.send);
    let sent = client.send(&response, timeout).await;
    record(local, &client, &mut exchange);
    if sent { leave(local, client, after).await } else { None }
}

/// Writes the access line.
fn record(local: &Rc<Local>, client: &Client, exchange: &mut Exchange) {
    exchange.outcome.late.duration = exchange.started().elapsed();
    if let Some(log) = exchange.access_log() {
        local.lines.request(log, &exchange.values(client));
    }
}

async fn leave(local: &Local, mut client: Client, after: After) -> Option<Client> {
    if after == After::Open {
        return Some(client);
    }
    client.linger(&local.buffers).await;
    None
}

/// R15: to an app behind a CGI-like interface `X_Real_IP` is `X-Real-IP`, and so are other names with odd
/// characters to some; so they do not pass, as with nginx.
fn drop_odd_names(request: &mut Request, keep_underscores: bool) {
    let passes =
        |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-' || (*byte == b'_' && keep_underscores);
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

fn body_of(status: u16) -> String {
    format!("{status} {}\n", reason(status))
}

/// The whole response that tells a client of an error.
fn error_response(error: &ProxyError, exchange: &Exchange, after: After) -> Vec<u8> {
    let status = error.status();
    let body = body_of(status);
    let version = exchange.head().map_or(Version::Http11, |head| head.version);
    let connection = Connection::of(version, after == After::Open).line();
    let date = clock::with_http(str::to_owned);
    let mut response = format!(
        "HTTP/1.1 {status} {}\r\nServer: hopgate\r\nDate: {date}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n",
        reason(status),
        body.len(),
    );
    match error {
        // RFC 9110 §15.5.6.
        ProxyError::Method => response.push_str("Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n"),
        // RFC 6455 §4.4, RFC 9110 §15.5.22.
        ProxyError::Handshake(HandshakeError::Version) => {
            response.push_str(&format!(
                "Sec-WebSocket-Version: {}\r\nUpgrade: websocket\r\n",
                websocket::VERSION
            ));
        }
        _ => {}
    }
    let mut response = response.into_bytes();
    match error {
        ProxyError::Handshake(HandshakeError::Version) => {
            response.extend_from_slice(b"Connection: Upgrade, close\r\n");
        }
        _ => response.extend_from_slice(connection),
    }
    response.extend_from_slice(b"\r\n");
    if !exchange.is_head() {
        response.extend_from_slice(body.as_bytes());
    }
    response
}

impl From<HeadError> for ProxyError {
    fn from(error: HeadError) -> Self {
        Self::Head(error)
    }
}
