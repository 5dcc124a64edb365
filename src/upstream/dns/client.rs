//! A set of name servers, asked one after the other as the resolver of the C library does it.

use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::{Either, join_all, select};
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{Resolver, TokioResolver};
use tokio::time::{Instant, timeout_at};

use super::{Answer, Family, Found, LookupError};

/// How long the second family of addresses is waited for once the first is there: some servers never answer
/// questions for AAAA.
const SECOND_FAMILY: Duration = Duration::from_secs(1);
/// How long a server is waited for before the next one is asked, if nobody says; as in nginx and resolv.conf.
const PER_SERVER: Duration = Duration::from_secs(5);
/// The most servers of a name: more would only make each choice slower.
const MOST_FOUND: usize = 256;
/// The most hosts of SRV records that are looked up at a time.
const AT_A_TIME: usize = 64;
/// How soon a service is asked for again of whose hosts one could not be asked for.
const INCOMPLETE: Duration = Duration::from_secs(5);

/// Which kinds of addresses are asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Families {
    pub(super) v4: bool,
    pub(super) v6: bool,
}

impl Families {
    pub(super) const ALL: Self = Self { v4: true, v6: true };
}

/// Name servers, and what stands behind a name that is not whole.
pub(super) struct Client {
    /// One for each server: who is asked when is decided here.
    servers: Vec<TokioResolver>,
    /// The one that has answered last.
    preferred: AtomicUsize,
    attempts: usize,
    search: Vec<Name>,
    ndots: usize,
    /// How long a name may take, whatever that needs.
    timeout: Duration,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("servers", &self.servers.len()).finish_non_exhaustive()
    }
}

impl Client {
    /// The servers of `resolver`: as in nginx names are whole, and nothing stands behind them.
    pub(super) fn of_addresses(servers: &[SocketAddr], timeout: Duration) -> Result<Self, LookupError> {
        let mut options = ResolverOpts::default();
        options.timeout = PER_SERVER;
        options.attempts = 2;
        let config = |address: &SocketAddr| {
            let mut server = NameServerConfig::udp_and_tcp(address.ip());
            let with_port = |mut connection: ConnectionConfig| {
                connection.port = address.port();
                connection
            };
            server.connections = server.connections.into_iter().map(with_port).collect();
            server
        };
        Self::new(servers.iter().map(config).collect(), &options, Vec::new(), timeout)
    }

    /// What `resolv.conf` says.
    pub(super) fn of_system(
        config: &ResolverConfig,
        options: &ResolverOpts,
        timeout: Duration,
    ) -> Result<Self, LookupError> {
        let search = match config.search() {
            [] => config.domain().into_iter().cloned().collect(),
            search => search.to_vec(),
        };
        Self::new(config.name_servers().to_vec(), options, search, timeout)
    }

    fn new(
        servers: Vec<NameServerConfig>,
        base: &ResolverOpts,
        search: Vec<Name>,
        timeout: Duration,
    ) -> Result<Self, LookupError> {
        let mut options = base.clone();
        // A silent server must leave time for the others, and a lost packet for the same one.
        let shares = u32::try_from(2 * servers.len() + 1).unwrap_or(u32::MAX);
        options.timeout = options.timeout.min(timeout * 2 / shares);
        // Each question goes to one server once; the rest is `records`'.
        options.attempts = 0;
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        options.preserve_intermediates = false;
        let build = |server| {
            let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
            let builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
            builder
                .with_options(options.clone())
                .build()
                .map_err(|error| LookupError::Failed(error.to_string()))
        };
        let servers = servers.into_iter().map(build).collect::<Result<_, _>>()?;
        let attempts = base.attempts.max(1);
        Ok(Self { servers, preferred: AtomicUsize::new(0), attempts, search, ndots: base.ndots, timeout })
    }

    /// The addresses of a host.
    pub(super) async fn host(&self, host: &str, families: Families) -> Result<Answer, LookupError> {
        let mut first = None;
        for name in self.candidates(host)? {
            match self.addresses(&name, families).await {
                // A, AAAA and the domain are of one name: else an AAAA of another domain would come along.
                Err(error @ (LookupError::NoName | LookupError::NoRecords)) => {
                    first = match (first, error) {
                        (Some(LookupError::NoRecords), _) => Some(LookupError::NoRecords),
                        (_, error) => Some(error),
                    }
                }
                answer => return answer,
            }
        }
        Err(first.unwrap_or(LookupError::NoName))
    }

    /// Where a service is. `known` are hosts that need not be asked for.
    pub(super) async fn service(
        &self,
        service: &str,
        families: Families,
        known: impl Fn(&str) -> Option<Answer>,
    ) -> Result<Answer, LookupError> {
        // A host that nobody tells must not keep the others out.
        let until = Instant::now() + self.timeout * 3 / 4;
        let mut records = Err(LookupError::NoName);
        for name in self.candidates(service)? {
            records = self.records(&name, RecordType::SRV).await;
            if !matches!(records, Err(LookupError::NoName | LookupError::NoRecords)) {
                break;
            }
        }
        let (records, ttl) = records?;
        let is_srv = |data: RData| match data {
            // RFC 2782: the root as target says that the service is not there.
            RData::SRV(srv) if !srv.target.is_root() => Some(srv),
            _ => None,
        };
        let mut records: Vec<SRV> = records.into_iter().filter_map(is_srv).collect();
        records.sort_by(|one, other| {
            (one.priority, &one.target, one.port).cmp(&(other.priority, &other.target, other.port))
        });
        records.truncate(MOST_FOUND);
        let mut addresses = Vec::with_capacity(records.len());
        for some in records.chunks(AT_A_TIME) {
            let asked = some.iter().map(async |srv| {
                let host = srv.target.to_ascii();
                match known(host.trim_end_matches('.')) {
                    Some(answer) => Ok(answer),
                    None => timeout_at(until, self.addresses(&srv.target, families))
                        .await
                        .unwrap_or(Err(LookupError::Timeout)),
                }
            });
            addresses.extend(join_all(asked).await);
        }
        of_records(&records, addresses, ttl)
    }

    /// The whole names that a name can mean, in the order in which they are tried: resolv.conf(5), `ndots`.
    fn candidates(&self, name: &str) -> Result<Vec<Name>, LookupError> {
        let bad = |_| LookupError::Failed(format!("`{name}` is no name that DNS can have"));
        let mut whole = Name::from_str_relaxed(name).map_err(bad)?;
        if whole.is_fqdn() {
            return Ok(vec![whole]);
        }
        let is_first = name.matches('.').count() >= self.ndots;
        // One that gets too long for DNS is none.
        let searched = self.search.iter().filter_map(|domain| {
            let mut name = whole.clone().append_domain(domain).ok()?;
            name.set_fqdn(true);
            Some(name)
        });
        let mut names: Vec<Name> = searched.collect();
        whole.set_fqdn(true);
        names.insert(if is_first { 0 } else { names.len() }, whole);
        Ok(names)
    }

    /// A and AAAA at once.
    async fn addresses(&self, name: &Name, families: Families) -> Result<Answer, LookupError> {
        let v4 = pin!(async {
            if families.v4 { self.records(name, RecordType::A).await } else { Err(LookupError::NoRecords) }
        });
        let v6 = pin!(async {
            if families.v6 { self.records(name, RecordType::AAAA).await } else { Err(LookupError::NoRecords) }
        });
        let late = |_| Err(LookupError::Failed("no answer for one of A and AAAA".to_owned()));
        let (v4, v6) = match select(v4, v6).await {
            Either::Left((v4, v6)) if v4.is_ok() => {
                let v6 = tokio::time::timeout(SECOND_FAMILY, v6).await;
                (v4, v6.unwrap_or_else(late))
            }
            Either::Right((v6, v4)) if v6.is_ok() => {
                let v4 = tokio::time::timeout(SECOND_FAMILY, v4).await;
                (v4.unwrap_or_else(late), v6)
            }
            Either::Left((v4, v6)) => (v4, v6.await),
            Either::Right((v6, v4)) => (v4.await, v6),
        };
        merged(v4, v6)
    }

    /// The records of one kind, from the first server that can say.
    async fn records(&self, name: &Name, kind: RecordType) -> Result<(Vec<RData>, Duration), LookupError> {
        let mut last = LookupError::Failed("there is no name server to ask".to_owned());
        let preferred = self.preferred.load(Ordering::Relaxed);
        for turn in 0..self.attempts * self.servers.len() {
            let place = (preferred + turn) % self.servers.len();
            let server = &self.servers[place];
            // It keeps answers for a moment even if it is told to keep none.
            server.clear_cache();
            match server.lookup(name.clone(), kind).await {
                Ok(lookup) => {
                    self.preferred.store(place, Ordering::Relaxed);
                    let records: Vec<_> =
                        lookup.answers().iter().filter(|record| record.record_type() == kind).collect();
                    let ttl = records.iter().map(|record| record.ttl).min().unwrap_or_default();
                    let data: Vec<RData> = records.into_iter().map(|record| record.data.clone()).collect();
                    if data.is_empty() {
                        return Err(LookupError::NoRecords);
                    }
                    return Ok((data, Duration::from_secs(ttl.into())));
                }
                Err(NetError::Dns(DnsError::NoRecordsFound(none)))
                    if matches!(none.response_code, ResponseCode::NXDomain | ResponseCode::NoError) =>
                {
                    self.preferred.store(place, Ordering::Relaxed);
                    let is_name = none.response_code == ResponseCode::NoError;
                    return Err(if is_name { LookupError::NoRecords } else { LookupError::NoName });
                }
                Err(NetError::Dns(DnsError::ResponseCode(code))) => {
                    last = LookupError::Failed(format!("the name server answers: {code}"));
                }
                Err(NetError::Timeout) => {
                    last = LookupError::Failed("the name server does not answer".to_owned());
                }
                Err(error) => last = LookupError::Failed(format!("the name server cannot be asked: {error}")),
            }
        }
        Err(last)
    }
}

type Records = Result<(Vec<RData>, Duration), LookupError>;

/// What both families say together. One that cannot be asked for is none, for now.
fn merged(v4: Records, v6: Records) -> Result<Answer, LookupError> {
    let is_failed = |records: &Records| matches!(records, Err(LookupError::Failed(_)));
    let lacks = match (is_failed(&v4), is_failed(&v6)) {
        (true, false) => Some(Family::V4),
        (false, true) => Some(Family::V6),
        _ => None,
    };
    match (v4, v6) {
        (Err(one @ LookupError::Failed(_)), Err(_)) | (Err(_), Err(one)) => Err(one),
        (v4, v6) => {
            let ttl = [&v4, &v6].into_iter().flatten().map(|(_, ttl)| *ttl).min().unwrap_or_default();
            let data = [v4, v6].into_iter().flatten().flat_map(|(data, _)| data);
            let found = data.filter_map(|data| data.ip_addr()).map(Found::at);
            Answer::of(found.collect(), ttl, lacks)
        }
    }
}

/// The records of a service with the addresses of their hosts. RFC 2782: those with the lowest number come first.
/// A host that does not resolve is left out as long as another one does.
fn of_records(
    records: &[SRV],
    addresses: Vec<Result<Answer, LookupError>>,
    ttl: Duration,
) -> Result<Answer, LookupError> {
    let best = records.iter().map(|srv| srv.priority).min();
    let (mut found, mut ttl, mut error, mut lacks) = (Vec::new(), ttl, None, None);
    for (srv, addresses) in records.iter().zip(addresses) {
        match addresses {
            Ok(answer) => {
                ttl = ttl.min(answer.ttl);
                lacks = lacks.or(answer.lacks);
                found.extend(answer.found.into_iter().map(|host| Found {
                    port: Some(srv.port),
                    // RFC 2782: 0 is "hardly any"; the least that there is here is 1, as in nginx.
                    weight: u32::from(srv.weight).max(1),
                    is_backup: Some(srv.priority) != best,
                    ..host
                }));
            }
            Err(why) => {
                if matches!(why, LookupError::Failed(_) | LookupError::Timeout) {
                    ttl = ttl.min(INCOMPLETE);
                }
                error = Some(why);
            }
        }
    }
    if found.is_empty() {
        return Err(error.unwrap_or(LookupError::NoRecords));
    }
    Answer::of(found, ttl, lacks)
}

impl Found {
    /// A host, of which only the address is known.
    pub(in crate::upstream) fn at(ip: IpAddr) -> Self {
        Self { ip, port: None, weight: 1, is_backup: false }
    }
}

impl Answer {
    /// In order, and each once.
    pub(in crate::upstream) fn of(
        mut found: Vec<Found>,
        ttl: Duration,
        lacks: Option<Family>,
    ) -> Result<Self, LookupError> {
        found.sort();
        found.dedup_by(|one, other| (one.ip, one.port) == (other.ip, other.port));
        if found.len() > MOST_FOUND {
            found.sort_by_key(|found| found.is_backup);
            found.truncate(MOST_FOUND);
            found.sort();
        }
        match found.is_empty() {
            true => Err(LookupError::NoRecords),
            false => Ok(Self { found, ttl, lacks }),
        }
    }
}

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::rr::rdata::{A, AAAA};
    use hickory_resolver::system_conf::parse_resolv_conf;

    use super::*;

    #[test]
    fn names_are_tried_as_resolv_conf_says() {
        let of = |options: &str, name: &str| {
            let file = format!("nameserver 127.0.0.11\nsearch ns.svc.cluster.local cluster.local\n{options}");
            let (config, options) = parse_resolv_conf(file).unwrap();
            let client = Client::of_system(&config, &options, Duration::from_secs(30)).unwrap();
            let names = client.candidates(name).unwrap();
            names.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        let searched = "app.ns.svc.cluster.local. app.cluster.local.";
        assert_eq!(of("", "app"), format!("{searched} app."));
        assert_eq!(of("", "app."), "app.");
        let whole = "app.example.";
        let behind = "app.example.ns.svc.cluster.local. app.example.cluster.local.";
        assert_eq!(of("", "app.example"), format!("{whole} {behind}"));
        // As in Kubernetes.
        assert_eq!(of("options ndots:5", "app.example"), format!("{behind} {whole}"));
        assert_eq!(
            of("options ndots:5", "_http._tcp.a.b.c.d").split(' ').next(),
            Some("_http._tcp.a.b.c.d.")
        );
    }

    fn address(text: &str) -> RData {
        match text.parse().unwrap() {
            IpAddr::V4(ip) => RData::A(A(ip)),
            IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
        }
    }

    #[test]
    fn a_family_that_cannot_be_asked_for_does_not_hide_the_other() {
        let v4 = || {
            Ok((vec![address("10.0.0.2"), address("10.0.0.1"), address("10.0.0.2")], Duration::from_secs(9)))
        };
        let v6 = || Ok((vec![address("::1")], Duration::from_secs(7)));
        let failed = || Err(LookupError::Failed("late".into()));
        let shown = |answer: Answer| {
            let ips: Vec<_> = answer.found.iter().map(|found| found.ip.to_string()).collect();
            (ips.join(" "), answer.ttl.as_secs(), answer.lacks)
        };
        assert_eq!(shown(merged(v4(), v6()).unwrap()), ("10.0.0.1 10.0.0.2 ::1".into(), 7, None));
        assert_eq!(shown(merged(failed(), v6()).unwrap()), ("::1".into(), 7, Some(Family::V4)));
        let none = || Err(LookupError::NoRecords);
        assert_eq!(shown(merged(v4(), none()).unwrap()), ("10.0.0.1 10.0.0.2".into(), 9, None));
        assert_eq!(merged(none(), none()).unwrap_err(), LookupError::NoRecords);
        // Perhaps it has the other kind.
        assert_eq!(merged(failed(), none()).unwrap_err(), LookupError::Failed("late".into()));
        assert_eq!(merged(none(), failed()).unwrap_err(), LookupError::Failed("late".into()));
    }

    #[test]
    fn a_service_has_the_hosts_that_resolve() {
        let srv = |priority, weight, port| SRV::new(priority, weight, port, Name::root());
        let host = |ip: &str| Answer::of(vec![Found::at(ip.parse().unwrap())], Duration::from_secs(5), None);
        let records = [srv(1, 0, 80), srv(1, 7, 81), srv(9, 1, 82)];
        let addresses = vec![host("10.0.0.1"), Err(LookupError::NoName), host("10.0.0.3")];
        let answer = of_records(&records, addresses, Duration::from_secs(60)).unwrap();
        let found: Vec<_> =
            answer.found.iter().map(|found| (found.port, found.weight, found.is_backup)).collect();
        assert_eq!(found, [(Some(80), 1, false), (Some(82), 1, true)]);
        assert_eq!(answer.ttl, Duration::from_secs(5));
        let none = of_records(&records[..1], vec![Err(LookupError::NoName)], Duration::ZERO);
        assert_eq!(none.unwrap_err(), LookupError::NoName);
    }

    #[test]
    fn of_records_for_one_address_the_best_counts_and_backups_are_left_out_first() {
        let found = |last: u8, is_backup: bool, weight| Found {
            ip: [10, 0, u8::from(!is_backup), last].into(),
            port: Some(80),
            is_backup,
            weight,
        };
        let one = Found { ip: [10, 0, 1, 1].into(), ..found(1, true, 1) };
        let answer = Answer::of(vec![one, found(1, false, 9)], Duration::ZERO, None).unwrap();
        assert_eq!(answer.found, [found(1, false, 9)]);
        let many = (0..=255).flat_map(|last| [found(last, false, 1), found(last, true, 1)]);
        let answer = Answer::of(many.collect(), Duration::ZERO, None).unwrap();
        assert!(answer.found.len() == MOST_FOUND && answer.found.iter().all(|found| !found.is_backup));
    }
}
