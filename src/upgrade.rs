//! Asks the upstream to switch protocols, checks its 101, hands both ends to a tunnel.

use std::fmt;
use std::rc::Rc;

use crate::answer::Filling;
use crate::client::Client;
use crate::config::UpgradeRules;
use crate::error::ProxyError;
use crate::exchange::{Done, Exchange};
use crate::forward::{self, Answered};
use crate::headers::fields::Known;
use crate::headers::response::draft::fields_of;
use crate::headers::{list, outgoing};
use crate::http1::head::{ResponseHead, Version};
use crate::io::Pending;
use crate::log::AccessLines;
use crate::request::Request;
use crate::routing::outcome::TunnelLine;
use crate::shared::Local;
use crate::tunnel::{Ends, Limits, Report, Tunnel};
use crate::websocket::{Handshake, HandshakeError};

/// What a request wants.
#[derive(Debug, PartialEq, Eq)]
pub enum Intent {
    /// An answer. An upgrade that nobody here knows is not taken notice of (RFC 9110 §7.8).
    Forward,
    /// Another protocol on this connection.
    Upgrade(Upgrade),
}

/// The protocol that a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub struct Upgrade {
    /// Its name as the client wrote it.
    protocol: Vec<u8>,
    /// For `websocket`: what the answer is held against.
    handshake: Option<Handshake>,
}

/// Why a request is answered as the ordinary one that it also is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoUpgrade {
    /// It is one of HTTP/1.0.
    Version,
    /// It has a body.
    Body,
    /// `Connection` does not have the option.
    Connection,
    /// No protocol in `Upgrade` is known here.
    Unknown,
    /// More than one is.
    Several,
    /// A handshake of WebSocket is a GET.
    Method,
}

impl Intent {
    /// Finds out what a request wants (R3): an upgrade is one only on HTTP/1.1, or in the
    /// extended CONNECT of HTTP/2 that has become one (RFC 8441), with the `upgrade` option
    /// in any line of `Connection`, with exactly one protocol that is known here, and without a body.
    ///
    /// # Errors
    /// A WebSocket handshake that is malformed, or that the location refuses.
    pub fn of(request: &Request, rules: &UpgradeRules) -> Result<Self, ProxyError> {
        let Ok(protocol) = asked_for(request, rules) else { return Ok(Self::Forward) };
        if !is_websocket(protocol) {
            return Ok(Self::Upgrade(Upgrade { protocol: protocol.to_vec(), handshake: None }));
        }
        if !rules.websocket {
            return Err(ProxyError::WebSocketRefused);
        }
        let fields = &request.head.fields;
        // A field that Connection names goes no further (R12), and without these there is no handshake.
        let takes_away = |option: &[u8]| Known::of(option).websocket_spelling().is_some();
        if list::members(fields.values(Known::Connection)).any(takes_away) {
            return Err(ProxyError::Handshake(HandshakeError::Key));
        }
        let handshake = Handshake::of(fields).map_err(ProxyError::Handshake)?;
        Ok(Self::Upgrade(Upgrade { protocol: protocol.to_vec(), handshake: Some(handshake) }))
    }
}

/// The protocol that a request is to be switched to.
///
/// # Errors
/// Why it is an ordinary request.
pub fn asked_for<'a>(request: &'a Request, rules: &UpgradeRules) -> Result<&'a [u8], NoUpgrade> {
    let fields = &request.head.fields;
    if request.head.version == Version::Http10 {
        return Err(NoUpgrade::Version);
    }
    if !request.body.is_empty() {
        return Err(NoUpgrade::Body);
    }
    if !list::contains(fields.values(Known::Connection), "upgrade") {
        return Err(NoUpgrade::Connection);
    }
    let is_allowed =
        |member: &[u8]| rules.protocols.iter().any(|p| member.eq_ignore_ascii_case(p.as_bytes()));
    // R6: whatever else is in the list, `h2c` above all, goes no further.
    let mut known = list::members(fields.values(Known::Upgrade)).filter(|m| is_websocket(m) || is_allowed(m));
    match (known.next(), known.next()) {
        (None, _) => Err(NoUpgrade::Unknown),
        (Some(_), Some(_)) => Err(NoUpgrade::Several),
        // RFC 6455 §4.1: the method is GET.
        (Some(protocol), None) if is_websocket(protocol) && request.head.method() != b"GET" => {
            Err(NoUpgrade::Method)
        }
        (Some(protocol), None) => Ok(protocol),
    }
}

fn is_websocket(protocol: &[u8]) -> bool {
    protocol.eq_ignore_ascii_case(b"websocket")
}

impl fmt::Display for NoUpgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Version => "only a request in HTTP/1.1 can ask for an upgrade",
            Self::Body => "a request with a body asks for no upgrade",
            Self::Connection => "there is no `Connection: upgrade`",
            Self::Unknown => "`Upgrade` names no protocol that is tunnelled here",
            Self::Several => "`Upgrade` names several protocols that are tunnelled here",
            Self::Method => "a WebSocket handshake is a GET",
        })
    }
}

impl Upgrade {
    /// The protocol, as the client wrote it.
    pub fn protocol(&self) -> &[u8] {
        &self.protocol
    }

    /// Whether a 101 answers this very request (R2).
    fn verify(&self, head: &ResponseHead) -> Result<(), ProxyError> {
        let announces_body = head.fields.values(Known::TransferEncoding).next().is_some()
            || head.fields.values(Known::ContentLength).any(|length| length != b"0");
        if head.version != Version::Http11 || announces_body {
            return Err(ProxyError::Switch("it is not one of HTTP/1.1, or announces a body"));
        }
        if !list::contains(head.fields.values(Known::Connection), "upgrade") {
            return Err(ProxyError::Switch("it has no `Connection: upgrade`"));
        }
        let mut protocols = list::members(head.fields.values(Known::Upgrade));
        match (protocols.next(), protocols.next()) {
            (Some(protocol), None) if protocol.eq_ignore_ascii_case(&self.protocol) => {}
            _ => return Err(ProxyError::Switch("its protocol is not the one that was asked for")),
        }
        match &self.handshake {
            Some(handshake) => handshake.verify(&head.fields).map_err(ProxyError::Switch),
            None => Ok(()),
        }
    }
}

/// What became of an upgrade.
#[derive(Debug)]
pub enum Switched {
    /// Both connections are a tunnel now.
    Tunnel(Box<Tunnel>),
    /// The connection is still one of HTTP: the upstream gave another answer, or failed.
    Answered(Box<Client>, Box<Exchange>, Result<Done, ProxyError>),
}

/// Asks the upstream for the upgrade. If it agrees the connection becomes a tunnel; whatever else it says
/// is an ordinary answer.
pub async fn switch(
    local: &Rc<Local>,
    mut client: Box<Client>,
    mut exchange: Box<Exchange>,
    upgrade: Upgrade,
) -> Switched {
    // R1: not a byte behind the head is sent before the 101; what comes is read ahead, and bounded.
    let answered = match forward::ask(local, &mut client, &mut exchange, Some(&upgrade.protocol)).await {
        Ok(answered) => answered,
        Err(error) => return Switched::Answered(client, exchange, Err(error)),
    };
    if answered.head.status != 101 {
        let result = forward::relay(local, &mut client, &mut exchange, answered).await;
        return Switched::Answered(client, exchange, result);
    }
    if let Err(error) = upgrade.verify(&answered.head) {
        // The upstream believes to be in a tunnel: its leg ends first.
        drop(answered);
        return Switched::Answered(client, exchange, Err(error));
    }
    Switched::Tunnel(open(local, client, exchange, answered, &upgrade))
}

/// The head of the 101 as it goes out, by the rules of the location.
fn switching(exchange: &mut Exchange, client: &Client, upgrade: &Upgrade) -> Vec<u8> {
    let (head, rules) = (exchange.response(), &exchange.location().responses);
    let draft = rules.touch(head).then(|| {
        let fill = Filling { exchange, client: &client.info };
        let mut draft = rules.of_upstream(head, &fill);
        rules.complete(&mut draft, &fill);
        draft
    });
    let mut bytes = Vec::with_capacity(512);
    outgoing::switching(&mut bytes, head, draft.as_ref(), &upgrade.protocol);
    exchange.outcome.sent = draft.map(|_| fields_of(&bytes));
    bytes
}

/// Turns both connections into a tunnel, which holds nothing of the request.
fn open(
    local: &Rc<Local>,
    client: Box<Client>,
    mut exchange: Box<Exchange>,
    answered: Answered,
    upgrade: &Upgrade,
) -> Box<Tunnel> {
    let client = *client;
    exchange.outcome.status = 101;
    exchange.outcome.response = Some(answered.head);
    let head = switching(&mut exchange, &client, upgrade);
    exchange.outcome.late.sent = head.len() as u64;
    exchange.outcome.late.duration = crate::turn::since(exchange.started());
    exchange.outcome.late.tunnel = Some(TunnelLine { id: client.info.id.to_string(), end: None });
    let values = exchange.values(&client);
    let logs = exchange.access_logs().iter().filter(|log| local.lines.request(log, &values));
    let lines = logs.map(|log| AccessLines::prepare(log, &values)).collect();
    let location = exchange.location();
    let report = Report {
        lines,
        id: client.info.id,
        started: exchange.started(),
        head_received: exchange.outcome.late.head_received,
        head_sent: head.len() as u64,
        idle_setting: location.timeouts.tunnel_idle_key,
    };
    // R8: what was read ahead on either side is part of the tunnel; the head goes before it.
    let (mut to_client, mut to_upstream) = (Pending::of(head), Pending::default());
    to_client.push(&answered.upstream.ahead);
    to_upstream.push(&client.peer.ahead);
    let read_ahead = (client.peer.ahead.len() as u64, answered.upstream.ahead.len() as u64);
    let ends = Ends {
        client: client.peer.stream,
        client_has_ended: client.half_closed.is_some(),
        upstream: answered.upstream.stream,
        to_client,
        to_upstream,
        read_ahead,
    };
    let limits = Limits {
        idle: location.timeouts.tunnel_idle,
        linger: location.timeouts.tunnel_linger,
        age: location.timeouts.tunnel_age,
    };
    let counted = (client.permit, answered.lease, exchange.take_counted());
    let held = (client.task, counted, client.timer);
    Box::new(Tunnel::new(Rc::clone(local), ends, limits, report, held))
}
