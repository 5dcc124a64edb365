//! Where a request arrives: the listener that its URL leads to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use super::Question;
use super::handshake::{self, Handshake};
use crate::client::{ClientInfo, Proxied};
use crate::config::{ListenAddress, Listener, Places};
use crate::proxy_protocol::{Addresses, Tlvs};
use crate::routing::host::Claim;
use crate::state::State;

/// A port for `$remote_port`: the first of those that systems give to clients.
const CLIENT_PORT: u16 = 49152;

/// A connection that is not there.
pub(super) struct Arrival {
    /// Who would be at its other end.
    pub(super) client: ClientInfo,
    /// The handshake before it.
    pub(super) tls: Option<Handshake>,
    /// What had to be assumed.
    pub(super) notes: Vec<String>,
}

/// The connection on which a request would come.
pub(super) fn arrival(state: &State, places: &Places, question: &Question) -> Arrival {
    let mut notes = Vec::new();
    let listener = chosen(&state.config.listeners, question, &mut notes);
    let is_secure = question.url.scheme.is_secure();
    if is_secure && !listener.tls {
        notes.push(format!("{}{TLS_IN_FRONT}", listener.address));
    }
    let shaken =
        (is_secure && listener.tls).then(|| handshake::of(state, places, listener, question)).flatten();
    let (tls, session) = shaken.unzip();
    let from = question.from;
    let (local, path) = match &listener.address {
        ListenAddress::Tcp(address) => (Some(local(*address, question)), None),
        ListenAddress::Unix(path) => (None, Some(Arc::from(path.as_path()))),
        ListenAddress::Named(_) => (Some(passed(question)), None),
    };
    let proxied = listener.proxy_protocol.then(|| {
        notes.push(format!(
            "{} takes the PROXY protocol: the balancer's header is taken to name {from} as the client, and another \
             one with `--from`",
            listener.address
        ));
        balanced(state, listener, SocketAddr::new(from, CLIENT_PORT), local)
    });
    let is_named = local.is_some() || proxied.is_some();
    let client = ClientInfo {
        id: 1,
        address: is_named.then(|| SocketAddr::new(from, CLIENT_PORT)),
        proxied: proxied.map(Arc::new),
        local,
        path,
        listener: listener.address.clone(),
        requests: 1,
        tls: session,
        lacks_tls: listener.tls && !is_secure,
    };
    Arrival { client, tls, notes }
}

/// What a balancer would say of a client: the first one that may.
fn balanced(state: &State, listener: &Listener, source: SocketAddr, local: Option<SocketAddr>) -> Proxied {
    let trusted = state.default_server(&listener.address).and_then(|server| server.real_ip.trusted.first());
    let balancer = trusted.map(|net| SocketAddr::new(net.addr(), CLIENT_PORT)).filter(|_| local.is_some());
    let addresses = local.map(|destination| Addresses { source, destination });
    Proxied { balancer, addresses, tlvs: Tlvs::default() }
}

const TLS_IN_FRONT: &str = " speaks no TLS: this is the request as it comes from what ends TLS in front of hopgate, which \
                            adds fields of its own; `--from` its address and `-H 'X-Forwarded-Proto: https'` show them";

/// The listener on the port of the URL: the one whose address goes best with the host, then one with TLS if the URL
/// has it. Without one, one of which systemd alone knows where it is, or else any port: with TLS or without as the URL
/// has it, then where a server has the host's name, then over TCP. Of equals the first one of the file.
fn chosen<'a>(listeners: &'a [Listener], question: &Question, notes: &mut Vec<String>) -> &'a Listener {
    let port = question.url.port();
    let is_right = |listener: &Listener| listener.tls == question.url.scheme.is_secure();
    let on_port =
        |listener: &&Listener| matches!(listener.address, ListenAddress::Tcp(a) if a.port() == port);
    // `max_by_key` takes the last one of equals.
    let from_behind = || listeners.iter().rev();
    let fitness = |listener: &&Listener| (likeness(&listener.address, question), is_right(listener));
    if let Some(best) = from_behind().filter(on_port).max_by_key(fitness) {
        return best;
    }
    let host = question.url.host.to_ascii_lowercase();
    let claims = |listener: &Listener| !matches!(listener.servers.claim(&host).1, Claim::Default);
    let is_tcp = |listener: &Listener| matches!(listener.address, ListenAddress::Tcp(_));
    let merit = |listener: &&Listener| (is_right(listener), claims(listener), is_tcp(listener));
    let is_named = |listener: &&Listener| matches!(listener.address, ListenAddress::Named(_));
    if let Some(named) = from_behind().filter(is_named).max_by_key(merit) {
        let address = &named.address;
        notes.push(format!("systemd alone knows where {address} is: it is taken to be on port {port}"));
        return named;
    }
    let listener = from_behind().max_by_key(merit).unwrap_or(&listeners[0]);
    let all: Vec<String> = listeners.iter().map(|listener| listener.address.to_string()).collect();
    notes.push(match all.as_slice() {
        [only] => format!("nothing listens on port {port}, only on {only}: that is taken"),
        all => {
            format!("nothing listens on port {port}: {} is taken, of {}", listener.address, all.join(", "))
        }
    });
    listener
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

/// The address that the client has connected to, on a socket that systemd passes: that of the URL.
fn passed(question: &Question) -> SocketAddr {
    let loopback = match question.from.is_ipv4() {
        true => IpAddr::from(Ipv4Addr::LOCALHOST),
        false => IpAddr::from(Ipv6Addr::LOCALHOST),
    };
    SocketAddr::new(question.url.ip().unwrap_or(loopback), question.url.port())
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
