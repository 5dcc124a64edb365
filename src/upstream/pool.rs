//! Keeps idle connections to upstream servers for the next request of the same worker.

use std::net::SocketAddr;
use std::time::Duration;

use rustc_hash::FxHashMap;
use tokio::time::Instant;

use crate::config::{KeepAlive, UpstreamAddress};
use crate::headers::fields::{Fields, Known};
use crate::headers::list;
use crate::io::Stream;
use crate::proxy_protocol::Outgoing;
use crate::turn;
use crate::upstream::resolve::Resolver;
use crate::upstream::tls::Secured;

/// The idle connections of one worker. No connection is watched while it lies here: whether it is
/// still good is seen when it is taken out, and by [`Pool::sweep`].
#[derive(Debug, Default)]
pub struct Pool {
    idle: FxHashMap<UpstreamAddress, Vec<Idle>>,
}

#[derive(Debug)]
struct Idle {
    stream: Stream,
    uses: Box<Uses>,
    until: Instant,
}

/// What a connection is, and how much use was made of it.
#[derive(Clone, Debug)]
pub struct Uses {
    /// When it was opened.
    pub since: Instant,
    /// The requests so far, with the one at hand.
    pub requests: u64,
    /// Where it goes to, if the server is a name.
    pub address: Option<SocketAddr>,
    /// How it is secured.
    pub secured: Option<Secured>,
    /// Whose it is, as the server was told: no other client's request may be sent on it.
    pub header: Option<Outgoing>,
}

impl Pool {
    /// Of the connections that are secured so, and that began with this header of the PROXY protocol, the one that
    /// was put in last and is still good. Bytes that nobody asked for would be taken for the answer to the next
    /// request (R26).
    ///
    /// An upstream may close one at any time. For a request that can be sent again, should that come to light, it is
    /// enough what the worker saw when it last looked for work; for any other the system is asked once more.
    pub fn take(
        &mut self,
        address: &UpstreamAddress,
        secured: Option<&Secured>,
        header: Option<Outgoing>,
        can_be_repeated: bool,
        resolver: &Resolver,
    ) -> Option<(Stream, Box<Uses>)> {
        let idle = self.idle.get_mut(address)?;
        let now = turn::now();
        let is_such = |idle: &Idle| idle.uses.secured.as_ref() == secured && idle.uses.header == header;
        while let Some(place) = idle.iter().rposition(is_such) {
            let mut connection = idle.remove(place);
            // An address that its name no longer has is not asked for; a name does not tell.
            let has_left = connection
                .uses
                .address
                .is_some_and(|address| resolver.has_left(address, connection.uses.since));
            let is_quiet = |stream: &mut Stream| match can_be_repeated {
                true => stream.seems_quiet(),
                false => stream.is_quiet(),
            };
            if connection.until > now && !has_left && is_quiet(&mut connection.stream) {
                connection.uses.requests += 1;
                return Some((connection.stream, connection.uses));
            }
        }
        None
    }

    /// Keeps a connection (a stream of HTTP/2 is none) whose last response was read to its very end, unless it has been used enough. The
    /// oldest one makes room. `hint` is how long the upstream says that it will keep it.
    pub fn put(
        &mut self,
        address: &UpstreamAddress,
        (stream, uses): (Stream, Box<Uses>),
        rules: &KeepAlive,
        hint: Option<Duration>,
    ) {
        let timeout = hint.map_or(rules.timeout, |hint| hint.min(rules.timeout));
        let now = turn::now();
        let is_used_up = uses.requests >= rules.requests || now - uses.since > rules.time;
        if stream.is_http2() || rules.connections == 0 || timeout.is_zero() || is_used_up {
            return;
        }
        let idle = match self.idle.get_mut(address) {
            Some(idle) => idle,
            None => self.idle.entry(address.clone()).or_default(),
        };
        if idle.len() >= rules.connections {
            idle.remove(0);
        }
        idle.push(Idle { stream, uses, until: now + timeout });
    }

    /// Closes what is too old, was closed by the upstream, or goes to an address that its name no longer has; says
    /// whether anything is left.
    pub fn sweep(&mut self, resolver: &Resolver) -> bool {
        let now = turn::now();
        self.idle.retain(|address, idle| {
            idle.retain_mut(|connection| {
                connection.until > now
                    && !has_left(address, &connection.uses, resolver)
                    // Asking the system for each would cost an idle process more than all else that it does.
                    && connection.stream.seems_quiet()
            });
            !idle.is_empty()
        });
        !self.idle.is_empty()
    }

    /// Closes everything.
    pub fn clear(&mut self) {
        self.idle.clear();
    }
}

/// Whether a connection goes to where a name has led, and does no longer.
fn has_left(server: &UpstreamAddress, uses: &Uses, resolver: &Resolver) -> bool {
    let address = match server {
        UpstreamAddress::Ip(address) => Some(*address),
        _ => uses.address,
    };
    address.is_some_and(|address| resolver.has_left(address, uses.since))
}

/// How long the upstream says that it will keep the connection: `Keep-Alive: timeout=5`, as Node does.
/// A second less is used, so that a request is not sent into a connection that is being closed.
pub fn keep_alive_hint(fields: &Fields) -> Option<Duration> {
    let timeout =
        list::members(fields.values(Known::KeepAlive)).find_map(|member| member.strip_prefix(b"timeout="))?;
    let seconds: u64 = std::str::from_utf8(timeout).ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).saturating_sub(Duration::from_secs(1)))
}
