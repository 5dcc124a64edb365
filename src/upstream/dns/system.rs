//! What the system knows of names: /etc/resolv.conf and /etc/hosts, read again when they have changed. Containers
//! get theirs rewritten while they run.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_resolver::Hosts;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::system_conf::parse_resolv_conf;

use super::client::{Client, Families};
use super::{Answer, Found, LookupError};

/// How long what /etc/hosts says is taken to be good.
const HOSTS_TTL: Duration = Duration::from_secs(10);

/// The files, with what was last read in them.
#[derive(Debug)]
pub(super) struct System {
    resolv_conf: Watched<Result<Arc<Client>, LookupError>>,
    hosts: Watched<Arc<Hosts>>,
    /// How long a name may take.
    timeout: Duration,
}

#[derive(Debug)]
struct Watched<T> {
    path: PathBuf,
    last: Mutex<Option<(Stamp, T)>>,
}

/// By what it is seen that a file has changed: when, how long it is, and which one it is. `None`: there is none.
type Stamp = Option<(i64, i64, u64, u64)>;

impl System {
    pub(super) fn new(resolv_conf: PathBuf, hosts: PathBuf, timeout: Duration) -> Self {
        Self { resolv_conf: Watched::new(resolv_conf), hosts: Watched::new(hosts), timeout }
    }

    /// The name servers.
    pub(super) fn client(&self) -> Result<Arc<Client>, LookupError> {
        self.resolv_conf.get(|bytes| {
            let path = self.resolv_conf.path.display();
            let why = |why: String| LookupError::Failed(format!("{path}: {why}; or set `resolver`"));
            let bytes = bytes.map_err(|error| why(error.to_string()))?;
            let (config, options) = parse_resolv_conf(bytes).map_err(|error| why(error.to_string()))?;
            Ok(Arc::new(Client::of_system(&config, &options, self.timeout)?))
        })
    }

    /// What /etc/hosts says of a host. `localhost` needs no file (RFC 6761 §6.3).
    pub(super) fn of_hosts(&self, host: &str, families: Families) -> Option<Answer> {
        let hosts = self.hosts.get(|bytes| {
            let mut hosts = Hosts::default();
            // Lines that cannot be read are passed over, as others do it.
            let _ = hosts.read_hosts_conf(&*bytes.unwrap_or_default());
            Arc::new(hosts)
        });
        let name = Name::from_str_relaxed(host).ok()?;
        let of_kind = |kind| hosts.lookup_static_host(&Query::query(name.clone(), kind));
        let v4 = families.v4.then(|| of_kind(RecordType::A)).flatten();
        let v6 = families.v6.then(|| of_kind(RecordType::AAAA)).flatten();
        let records = [v4, v6].into_iter().flatten().flat_map(|lookup| {
            lookup.answers().iter().filter_map(|record| record.data.ip_addr()).collect::<Vec<_>>()
        });
        let mut found: Vec<_> = records.map(Found::at).collect();
        if found.is_empty() && is_localhost(host) {
            let v4 = families.v4.then(|| Found::at(std::net::Ipv4Addr::LOCALHOST.into()));
            let v6 = families.v6.then(|| Found::at(std::net::Ipv6Addr::LOCALHOST.into()));
            found.extend(v4.into_iter().chain(v6));
        }
        Answer::of(found, HOSTS_TTL, None).ok()
    }
}

/// Whether a name is that of this machine, whoever is asked.
pub(in crate::upstream) fn is_localhost(host: &str) -> bool {
    let host = host.trim_end_matches('.');
    let end = host.len().saturating_sub("localhost".len());
    host.get(end..).is_some_and(|last| last.eq_ignore_ascii_case("localhost"))
        && (end == 0 || host.as_bytes()[end - 1] == b'.')
}

impl<T: Clone> Watched<T> {
    fn new(path: PathBuf) -> Self {
        Self { path, last: Mutex::default() }
    }

    /// What `read` makes of the file, as it is now.
    fn get(&self, read: impl FnOnce(std::io::Result<Vec<u8>>) -> T) -> T {
        let stamp = fs::metadata(&self.path)
            .ok()
            .map(|file| (file.mtime(), file.mtime_nsec(), file.len(), file.ino()));
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some((known, value)) if *known == stamp => value.clone(),
            _ => {
                let value = read(fs::read(&self.path));
                *last = Some((stamp, value.clone()));
                value
            }
        }
    }
}
