//! `access`: which clients may come, by their address (nginx: `allow`, `deny`).

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The rules of a location in their order: the first one that knows a client decides.
///
/// As in nginx there is a list for each family of addresses, and `all` stands in each of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    v4: Vec<(Ipv4Net, Verdict)>,
    v6: Vec<(Ipv6Net, Verdict)>,
    unix: Vec<Verdict>,
}

/// Whom a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Everybody: `all`.
    All,
    /// Everybody on a Unix-domain socket: `unix:`.
    Unix,
    /// The addresses of a range.
    Net(IpNet),
}

/// What a rule says of those whom it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They may come.
    Allow,
    /// They may not.
    Deny,
}

impl Rules {
    /// Adds a rule behind the others.
    pub fn push(&mut self, who: Who, verdict: Verdict) {
        match who {
            Who::All => {
                self.v4.push((Ipv4Net::default(), verdict));
                self.v6.push((Ipv6Net::default(), verdict));
                self.unix.push(verdict);
            }
            Who::Unix => self.unix.push(verdict),
            Who::Net(IpNet::V4(net)) => self.v4.push((net, verdict)),
            Who::Net(IpNet::V6(net)) => self.v6.push((net, verdict)),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty() && self.unix.is_empty()
    }

    /// What the rules say of a client; `None` if none of them knows it, which lets it come. No address is
    /// a client on a Unix-domain socket.
    ///
    /// An IPv4 address in IPv6 form (`::ffff:10.0.0.1`) is one of IPv4, unless there is no rule for those.
    pub fn decide(&self, client: Option<IpAddr>) -> Option<Verdict> {
        let Some(client) = client else { return self.unix.first().copied() };
        match client {
            IpAddr::V4(ip) => find(&self.v4, |net| net.contains(&ip)),
            IpAddr::V6(ip) => match ip.to_ipv4_mapped().filter(|_| !self.v4.is_empty()) {
                Some(ip) => find(&self.v4, |net| net.contains(&ip)),
                None => find(&self.v6, |net| net.contains(&ip)),
            },
        }
    }
}

fn find<Net>(rules: &[(Net, Verdict)], is_about: impl Fn(&Net) -> bool) -> Option<Verdict> {
    rules.iter().find(|(net, _)| is_about(net)).map(|(_, verdict)| *verdict)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(lines: &[&str]) -> Rules {
        let mut rules = Rules::default();
        for line in lines {
            let (verdict, who) = line.split_once(' ').unwrap();
            let who = match who {
                "all" => Who::All,
                "unix:" => Who::Unix,
                net => Who::Net(net.parse().unwrap()),
            };
            rules.push(who, if verdict == "allow" { Verdict::Allow } else { Verdict::Deny });
        }
        rules
    }

    #[test]
    fn the_first_rule_that_knows_a_client_decides() {
        use Verdict::{Allow, Deny};
        let private = ["allow 10.0.0.0/8", "deny 10.1.0.0/16", "allow fd00::/8", "deny all"];
        let hole = ["deny 192.168.1.1/32", "allow 192.168.1.0/24", "deny all", "allow all"];
        for (lines, client, expected) in [
            (&private[..], "10.1.2.3", Some(Allow)),
            (&private, "11.0.0.1", Some(Deny)),
            (&private, "fd12::1", Some(Allow)),
            (&private, "::1", Some(Deny)),
            (&private, "::ffff:10.0.0.1", Some(Allow)),
            (&private, "::ffff:11.0.0.1", Some(Deny)),
            (&private, "unix:", Some(Deny)),
            (&hole, "192.168.1.1", Some(Deny)),
            (&hole, "192.168.1.2", Some(Allow)),
            (&hole, "192.168.2.1", Some(Deny)),
            (&["deny 10.0.0.0/8"], "127.0.0.1", None),
            (&["deny 10.0.0.0/8"], "::1", None),
            (&["deny 10.0.0.0/8"], "unix:", None),
            (&["deny unix:"], "127.0.0.1", None),
            (&["allow unix:", "deny all"], "unix:", Some(Allow)),
            (&["deny ::/0"], "127.0.0.1", None),
            (&["deny ::/0"], "::ffff:127.0.0.1", Some(Deny)),
            (&["deny ::/0", "allow 9.9.9.9/32"], "::ffff:127.0.0.1", None),
            (&["deny 0.0.0.0/0"], "127.0.0.1", Some(Deny)),
            (&[], "127.0.0.1", None),
        ] {
            assert_eq!(rules(lines).decide(client.parse().ok()), expected, "{lines:?} {client}");
        }
    }
}
