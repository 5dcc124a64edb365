//! A configuration in use, with the load of its upstreams.

use std::sync::Arc;

use crate::access::Counters;
use crate::client::ClientInfo;
use crate::config::{Config, Content, ListenAddress, Server};
use crate::routing::aim::Aim;
use crate::routing::regex::Slots;
use crate::tls::server::{TlsServer, TlsServers};
use crate::upstream::group::Group;
use crate::upstream::named::NamedByRequests;

/// A configuration in use, with the load of its upstreams. Replaced as a whole by a reload.
#[derive(Debug)]
pub struct State {
    /// The configuration.
    pub config: Config,
    /// Its upstreams, in the same order.
    pub groups: Vec<Arc<Group>>,
    /// Those that only requests name.
    named: NamedByRequests,
    /// What requests are counted in.
    pub counters: Counters,
    /// How its servers speak TLS.
    pub tls: TlsServers,
}

impl State {
    /// Puts a configuration to use, with what it needs for TLS; `previous` is what was in use before.
    pub fn new(mut config: Config, tls: TlsServers, previous: Option<&State>) -> Self {
        if let Some(previous) = previous {
            keep_tls_clients(&mut config, &previous.config);
        }
        let before = previous.map_or(&[][..], |state| &state.groups);
        let groups = config.upstreams.iter().map(|upstream| Arc::new(Group::new(upstream.clone(), before)));
        let counters = Counters::new(&config.zones, previous.map(|state| &state.counters));
        Self { groups: groups.collect(), named: NamedByRequests::default(), counters, tls, config }
    }

    /// The group that a `proxy_pass` with variables leads to.
    pub fn group_of(&self, aim: &Aim) -> Arc<Group> {
        // The name of a single address has a port or a `:` in it, and so is none of these.
        let is_named = |group: &&Arc<Group>| {
            aim.group.as_ref().is_some_and(|name| group.upstream.name.eq_ignore_ascii_case(name))
        };
        self.groups.iter().find(is_named).map_or_else(|| self.named.group(&aim.address), Arc::clone)
    }

    /// The place of the server that answers for a host on a listening address; `None` if the address is
    /// not listened on (any more).
    pub fn server_for(&self, listener: &ListenAddress, host: &str) -> Option<usize> {
        let listener = self.config.listeners.iter().find(|known| known.address == *listener)?;
        Some(listener.servers.find(host))
    }

    /// The server for requests without a host; `None` if the address is not listened on (any more).
    pub fn unnamed_server(&self, listener: &ListenAddress) -> Option<usize> {
        let listener = self.config.listeners.iter().find(|known| known.address == *listener)?;
        Some(listener.servers.unnamed_server())
    }

    /// The server for the name that a client asks for in the handshake of TLS, or for none; `None` if the address
    /// is not listened on (any more), or the server speaks no TLS.
    pub fn tls_server_for(
        &self,
        listener: &ListenAddress,
        name: Option<&str>,
    ) -> Option<(usize, &Arc<TlsServer>)> {
        let listener = self.config.listeners.iter().find(|known| known.address == *listener)?;
        let place = name.map_or(listener.servers.default_server(), |name| listener.servers.find(name));
        Some((place, self.tls.get(place)?))
    }

    /// Whether TLS is spoken on a listening address.
    pub fn speaks_tls(&self, listener: &ListenAddress) -> bool {
        self.config.listeners.iter().any(|known| known.address == *listener && known.tls)
    }

    /// Whether the PROXY protocol is spoken on a listening address.
    pub fn takes_proxy_protocol(&self, listener: &ListenAddress) -> bool {
        self.config.listeners.iter().any(|known| known.address == *listener && known.proxy_protocol)
    }

    /// Whether a peer may say by the PROXY protocol who its client is.
    pub fn trusts_balancer(&self, peer: &ClientInfo) -> bool {
        self.default_server(&peer.listener).is_some_and(|server| server.real_ip.trusts(peer.ip()))
    }

    /// Leaves the groups of the expression that the server for a host was found by in `slots`.
    pub fn capture_host(&self, listener: &ListenAddress, host: &str, slots: &Slots) {
        if let Some(listener) = self.config.listeners.iter().find(|known| known.address == *listener) {
            listener.servers.capture(host, slots);
        }
    }

    /// The default server of a listening address.
    pub fn default_server(&self, listener: &ListenAddress) -> Option<&Server> {
        // No host is empty by then: an empty name is looked up for clients that named none.
        self.unnamed_server(listener).map(|server| &self.config.servers[server])
    }
}

/// What stays as it was goes on being used, with its sessions and its connections.
fn keep_tls_clients(config: &mut Config, before: &Config) {
    for client in &mut config.tls_clients {
        let Some(kept) = before.tls_clients.iter().find(|kept| kept.rules() == client.rules()) else {
            continue;
        };
        let replaced = std::mem::replace(client, Arc::clone(kept));
        let locations = config.servers.iter_mut().flat_map(|server| &mut server.locations);
        for location in locations {
            if let Content::Proxy(pass) = &mut location.content
                && let Some(tls) = &mut pass.tls
                && Arc::ptr_eq(&tls.client, &replaced)
            {
                tls.client = Arc::clone(kept);
            }
        }
    }
}
