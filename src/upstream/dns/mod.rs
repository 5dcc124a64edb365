//! Asks name servers: for the addresses of a host, and for the SRV records of a service with the addresses of
//! their hosts. Whom it asks and what it does with the answers are others' to say (`system`, `resolve`).

mod client;
mod system;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::config::{ResolverRules, UpstreamAddress};
use client::{Client, Families};
use system::System;
pub(super) use system::is_localhost;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Question {
    /// The addresses of a host: A and AAAA.
    Host(String),
    /// Where a service is (RFC 2782): SRV, and A and AAAA of the hosts that it names.
    Service(String),
}

impl Question {
    /// What is to be asked to connect to a server; `None`: nothing.
    pub fn of(address: &UpstreamAddress) -> Option<Self> {
        match address {
            UpstreamAddress::Name { host, .. } => Some(Self::Host(host.clone())),
            UpstreamAddress::Service(name) => Some(Self::Service(name.clone())),
            UpstreamAddress::Ip(_) | UpstreamAddress::Unix(_) => None,
        }
    }

    /// The name.
    pub fn name(&self) -> &str {
        match self {
            Self::Host(name) | Self::Service(name) => name,
        }
    }
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// In the order of their addresses, so that all who ask have the same; each once, at least one.
    pub found: Vec<Found>,
    /// How long it is good.
    pub ttl: Duration,
    /// The family of addresses of which a part could not be asked for.
    pub(super) lacks: Option<Family>,
}

/// One of the servers that a name stands for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// Its address.
    pub ip: IpAddr,
    /// Its port, if it is an SRV record that tells it.
    pub port: Option<u16>,
    /// Whether others come first by the priority of their SRV record. Of records for one address the one with the best
    /// priority counts.
    pub is_backup: bool,
    /// Its weight in the SRV record, at least 1.
    pub weight: u32,
}

/// A kind of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    /// Whether an address is one of these.
    pub(super) fn has(self, ip: IpAddr) -> bool {
        ip.is_ipv4() == (self == Self::V4)
    }
}

/// Why a name has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LookupError {
    /// There is no such name (NXDOMAIN).
    NoName,
    /// The name is there, and has nothing of what was asked for.
    NoRecords,
    /// The servers cannot say: what they or the system say instead.
    Failed(String),
    /// No answer came within `resolver_timeout`.
    Timeout,
}

impl fmt::Display for LookupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoName => write!(f, "there is no such name (NXDOMAIN)"),
            Self::NoRecords => write!(f, "the name has no such records"),
            Self::Failed(why) => write!(f, "{why}"),
            Self::Timeout => write!(f, "no answer within `resolver_timeout`"),
        }
    }
}

impl Answer {
    /// Without the addresses that this machine has no way to, if there are others: most names have addresses of IPv6
    /// by now, and many machines and containers have none.
    fn with_routes(mut self) -> Self {
        let has = |is_ipv4: bool| self.found.iter().any(|found| found.ip.is_ipv4() == is_ipv4);
        if has(true) && has(false) {
            let with: Vec<_> = self.found.iter().filter(|found| has_route(found.ip)).cloned().collect();
            if !with.is_empty() {
                self.found = with;
            }
        }
        self
    }
}

/// Whether there is a way to an address; nothing is sent.
fn has_route(ip: IpAddr) -> bool {
    let any: IpAddr = if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    UdpSocket::bind((any, 0)).and_then(|socket| socket.connect((ip, 9))).is_ok()
}

/// Asks as the rules say.
#[derive(Debug)]
pub(super) struct Asker {
    rules: ResolverRules,
    system: System,
    /// That of `resolver`, made of addresses that may have been resolved themselves.
    own: Mutex<Option<Arc<Client>>>,
}

impl Asker {
    /// With the files of the system.
    pub(super) fn new(rules: ResolverRules) -> Self {
        Self::with(rules, Path::new("/etc/resolv.conf"), Path::new("/etc/hosts"))
    }

    fn with(rules: ResolverRules, resolv_conf: &Path, hosts: &Path) -> Self {
        let system = System::new(PathBuf::from(resolv_conf), PathBuf::from(hosts), rules.timeout);
        Self { rules, system, own: Mutex::default() }
    }

    /// Asks, for at most `resolver_timeout`.
    pub(super) async fn ask(&self, question: &Question) -> Result<Answer, LookupError> {
        let asked = tokio::time::timeout(self.rules.timeout, self.answer(question)).await;
        let answer = asked.unwrap_or(Err(LookupError::Timeout));
        if matches!(answer, Err(LookupError::Failed(_) | LookupError::Timeout)) {
            // The name servers may have moved, too, if `resolver` has names.
            *self.own.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        answer.map(Answer::with_routes)
    }

    async fn answer(&self, question: &Question) -> Result<Answer, LookupError> {
        let families = Families { v4: self.rules.ipv4, v6: self.rules.ipv6 };
        if let Question::Host(host) = question
            && let Some(answer) = self.system.of_hosts(host, families)
        {
            return Ok(answer);
        }
        let client = self.client().await?;
        match question {
            Question::Host(host) => client.host(host, families).await,
            Question::Service(name) => {
                client.service(name, families, |host| self.system.of_hosts(host, families)).await
            }
        }
    }

    /// Those of `resolver`, else those of the system.
    async fn client(&self) -> Result<Arc<Client>, LookupError> {
        if self.rules.servers.is_empty() {
            return self.system.client();
        }
        if let Some(client) = &*self.own.lock().unwrap_or_else(PoisonError::into_inner) {
            return Ok(Arc::clone(client));
        }
        let mut servers = Vec::new();
        for server in &self.rules.servers {
            match server {
                UpstreamAddress::Ip(address) => servers.push(*address),
                UpstreamAddress::Name { host, port } => {
                    let found = match self.system.of_hosts(host, Families::ALL) {
                        Some(found) => Ok(found),
                        None => self.system.client()?.host(host, Families::ALL).await,
                    };
                    let found = found.map_err(|why| {
                        LookupError::Failed(format!(
                            "the name server `{host}` does not resolve itself: {why}"
                        ))
                    })?;
                    servers.extend(found.found.into_iter().map(|found| SocketAddr::new(found.ip, *port)));
                }
                UpstreamAddress::Service(_) | UpstreamAddress::Unix(_) => {}
            }
        }
        let client = Arc::new(Client::of_addresses(&servers, self.rules.timeout)?);
        *self.own.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&client));
        Ok(client)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn hosts_go_first_and_both_files_are_read_again() {
        let dir = std::env::temp_dir().join(format!("hopgate-names-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let (conf, hosts) = (dir.join("resolv.conf"), dir.join("hosts"));
        std::fs::write(&hosts, "127.0.0.7 app app.example # a comment\n::1 app\n127.0.0.8 localhost\n")
            .unwrap();
        let rules = ResolverRules { ipv6: false, ..ResolverRules::default() };
        let asker = Asker::with(rules, &conf, &hosts);
        let ask = async |host: &str| {
            let answer = asker.ask(&Question::Host(host.to_owned())).await?;
            Ok::<_, LookupError>(answer.found.iter().map(|found| found.ip.to_string()).collect::<Vec<_>>())
        };
        assert_eq!(ask("APP").await.unwrap(), ["127.0.0.7"]);
        assert_eq!(ask("localhost").await.unwrap(), ["127.0.0.8"]);
        assert_eq!(ask("a.localhost").await.unwrap(), ["127.0.0.1"]);
        let error = ask("other").await.unwrap_err().to_string();
        assert!(error.contains("resolv.conf: ") && error.contains("set `resolver`"), "{error}");

        std::fs::write(&hosts, "127.0.0.9 app.example.and.longer app\n").unwrap();
        assert_eq!(ask("app").await.unwrap(), ["127.0.0.9"]);
        std::fs::write(&conf, "nameserver 192.0.2.1\nsearch a.example\noptions ndots:5\n").unwrap();
        assert!(asker.system.client().is_ok());
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn this_machine_has_many_names() {
        for name in ["localhost", "LocalHost.", "app.localhost"] {
            assert!(is_localhost(name), "{name}");
        }
        for name in ["notlocalhost", "localhost.example", "", "host"] {
            assert!(!is_localhost(name), "{name}");
        }
    }
}
