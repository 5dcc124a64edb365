//! Upstream servers that are hopgate itself: a request to one would go round until something runs out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;

use super::Check;
use super::upstream::Place;
use crate::config::error::Mistake;
use crate::config::{ListenAddress, Listener, Location, ProxyPass, Server, To, UpstreamAddress};

impl Check<'_> {
    /// Reports every upstream server that stands where the only server of the configuration listens and
    /// that a location sends its requests to as they are: they come back to that very location. One with
    /// another path may lead to another location, as people chain them in nginx. `places` is where the
    /// listeners stand.
    pub(super) fn refuse_loops(&mut self, server: &Server, listeners: &[Listener], places: &[Range<usize>]) {
        let from_flags = self.upstreams.lone_names_are_hosts();
        let passes = |location: &Location| match location.proxy_pass()? {
            ProxyPass { to: To::Group(group), uri: None, .. } if location.script.is_empty() => Some(*group),
            _ => None,
        };
        let reached: Vec<usize> = server.locations.iter().filter_map(passes).collect();
        for Place { group, address, span } in self.upstreams.places() {
            let own = listeners.iter().position(|listener| reaches(address, &listener.address));
            let own = own.filter(|_| server.script.is_empty() && reached.contains(group));
            let Some(own) = own else { continue };
            let message = format!(
                "hopgate itself listens on {}: every request would come back to it",
                listeners[own].address
            );
            let mistake = Mistake::new(span.clone(), message).label("sent here");
            self.mistakes.push(if from_flags {
                mistake.help(
                    "write the address of the app, or have hopgate listen elsewhere, as with `--listen 127.0.0.1:8081`",
                )
            } else {
                mistake
                    .also(places[own].clone(), "and listened to here")
                    .help("write the address of the app, or give `listen` another one")
            });
        }
    }
}

/// Whether who connects to the one gets to the other. Only addresses of loopback are known to be this
/// machine's; a listener on `[::]` takes no IPv4.
fn reaches(upstream: &UpstreamAddress, listen: &ListenAddress) -> bool {
    match (upstream, listen) {
        (UpstreamAddress::Ip(to), ListenAddress::Tcp(at)) => reaches_ip(*to, *at),
        (UpstreamAddress::Name { host, port }, ListenAddress::Tcp(at)) if host == "localhost" => {
            [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]
                .into_iter()
                .any(|ip| reaches_ip((ip, *port).into(), *at))
        }
        (UpstreamAddress::Unix(to), ListenAddress::Unix(at)) => to == at,
        _ => false,
    }
}

fn reaches_ip(to: SocketAddr, at: SocketAddr) -> bool {
    let ip = match to.ip().to_canonical() {
        // Who connects to "any address" gets to loopback.
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    let everywhere = at.ip().is_unspecified() && ip.is_loopback() && ip.is_ipv4() == at.is_ipv4();
    to.port() == at.port() && (ip == at.ip() || everywhere)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::units::{listen_address, upstream_address};

    #[test]
    fn an_upstream_where_hopgate_listens_is_found() {
        for (upstream, listen, found) in [
            ("127.0.0.1:8080", "127.0.0.1:8080", true),
            ("127.0.0.1:8080", "8080", true),
            ("127.0.0.7:8080", "8080", true),
            ("127.0.0.7:8080", "127.0.0.1:8080", false),
            ("0.0.0.0:8080", "127.0.0.1:8080", true),
            ("0.0.0.0:8080", "8080", true),
            ("10.0.0.1:8080", "10.0.0.1:8080", true),
            ("10.0.0.1:8080", "8080", false),
            ("127.0.0.1:8080", "8081", false),
            ("127.0.0.1:8080", "127.0.0.1:0", false),
            ("127.0.0.1:8080", "[::]:8080", false),
            ("[::1]:8080", "[::]:8080", true),
            ("[::1]:8080", "8080", false),
            ("[::ffff:127.0.0.1]:8080", "127.0.0.1:8080", true),
            ("localhost:8080", "127.0.0.1:8080", true),
            ("LOCALHOST:8080", "[::1]:8080", true),
            ("localhost", "80", true),
            ("app:8080", "8080", false),
            ("unix:/run/a.sock", "unix:/run/a.sock", true),
            ("unix:/run/a.sock", "unix:/run/b.sock", false),
            ("127.0.0.1:80", "unix:/run/b.sock", false),
        ] {
            let addresses = (upstream_address(upstream).unwrap(), listen_address(listen).unwrap());
            assert_eq!(reaches(&addresses.0, &addresses.1), found, "{upstream} to {listen}");
        }
    }
}
