//! Where a request arrives: the listener that its URL leads to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Question;
use crate::client::ClientInfo;
use crate::config::{Config, ListenAddress, Listener};
use crate::routing::host::Claim;

/// A port for `$remote_port`: the first of those that systems give to clients.
const CLIENT_PORT: u16 = 49152;

/// A connection that is not there.
pub(super) struct Arrival {
    /// Who would be at its other end.
    pub(super) client: ClientInfo,
    /// What had to be assumed.
    pub(super) notes: Vec<String>,
}

/// The connection on which a request would come.
pub(super) fn arrival(config: &Config, question: &Question) -> Arrival {
    let mut notes = Vec::new();
    let listener = chosen(&config.listeners, question, &mut notes);
    let from = question.from;
    let local = match listener {
        ListenAddress::Tcp(address) => Some(local(*address, question)),
        ListenAddress::Unix(_) => None,
    };
    let client = ClientInfo {
        id: 1,
        address: local.map(|_| SocketAddr::new(from, CLIENT_PORT)),
        local,
        listener: listener.clone(),
        requests: 1,
        tls: None,
        lacks_tls: false,
    };
    Arrival { client, notes }
}

/// The listener on the port of the URL; without one, the first that has a server of that name.
fn chosen<'a>(listeners: &'a [Listener], question: &Question, notes: &mut Vec<String>) -> &'a ListenAddress {
    let port = question.url.port();
    let on_port =
        |listener: &&Listener| matches!(listener.address, ListenAddress::Tcp(a) if a.port() == port);
    let best = listeners.iter().filter(on_port).max_by_key(|listener| {
        // Of equals the first one of the file, where `max_by_key` takes the last.
        let place = listeners.iter().position(|other| std::ptr::eq(other, *listener)).unwrap_or(0);
        (likeness(&listener.address, question), std::cmp::Reverse(place))
    });
    if let Some(best) = best {
        return &best.address;
    }
    let host = question.url.host.to_ascii_lowercase();
    let claims = |listener: &&Listener| !matches!(listener.servers.claim(&host).1, Claim::Default);
    let is_tcp = |listener: &&Listener| matches!(listener.address, ListenAddress::Tcp(_));
    let listener =
        listeners.iter().find(claims).or_else(|| listeners.iter().find(is_tcp)).unwrap_or(&listeners[0]);
    let all: Vec<String> = listeners.iter().map(|listener| listener.address.to_string()).collect();
    notes.push(match all.as_slice() {
        [only] => format!("nothing listens on port {port}, only on {only}: that is taken"),
        all => {
            format!("nothing listens on port {port}: {} is taken, of {}", listener.address, all.join(", "))
        }
    });
    &listener.address
}

/// How well an address goes with the host of the URL. A name is not resolved: `localhost` is this machine,
/// and of any other nothing is known.
fn likeness(address: &ListenAddress, question: &Question) -> u8 {
    let ListenAddress::Tcp(address) = address else { return 0 };
    let is_local = question.url.host.eq_ignore_ascii_case("localhost");
    let same_family = question.from.is_ipv4() == address.is_ipv4();
    match question.url.ip() {
        Some(ip) if ip == address.ip() => 4,
        Some(ip) if address.ip().is_unspecified() && ip.is_ipv4() == address.is_ipv4() => 3,
        Some(_) => 0,
        None if is_local && address.ip().is_loopback() => 3 + u8::from(same_family),
        None if address.ip().is_unspecified() => 1 + u8::from(same_family),
        None => u8::from(!is_local && same_family),
    }
}

/// The address that the client has connected to.
fn local(address: SocketAddr, question: &Question) -> SocketAddr {
    let port = if address.port() == 0 { question.url.port() } else { address.port() };
    let loopback = || match address.is_ipv4() {
        true => IpAddr::from(Ipv4Addr::LOCALHOST),
        false => IpAddr::from(Ipv6Addr::LOCALHOST),
    };
    let ip = match address.ip().is_unspecified() {
        true => question.url.ip().filter(|ip| ip.is_ipv4() == address.is_ipv4()).unwrap_or_else(loopback),
        false => address.ip(),
    };
    SocketAddr::new(ip, port)
}
