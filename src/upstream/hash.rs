//! Pure: the hashes by which nginx chooses servers, so that a key keeps its server when hopgate takes over; and the one
//! by which many hopgates choose alike.

use std::collections::HashMap;

use twox_hash::XxHash64;

use crate::config::UpstreamServer;

/// Points of each unit of weight on the ring, as nginx has.
const POINTS: u32 = 160;

/// The ring of a consistent hash: `hash KEY consistent`.
#[derive(Debug)]
pub struct Ring {
    /// In their order, each value once, with the place of its servers in `alike`.
    points: Vec<(u32, u32)>,
    /// The places of the servers that are written alike, but for backups.
    alike: Vec<Vec<usize>>,
}

impl Ring {
    /// For the servers of a group. Servers that are written alike have the points of the first one of
    /// them, and more of them.
    pub fn new(servers: &[UpstreamServer]) -> Self {
        let (mut points, mut alike, mut names) = (Vec::new(), Vec::new(), HashMap::new());
        for (index, server) in servers.iter().enumerate() {
            let place = *names.entry(server.name.as_str()).or_insert_with(|| {
                alike.push(Vec::new());
                alike.len() - 1
            });
            if !server.is_backup {
                alike[place].push(index);
            }
            let (host, port) = parts(&server.name);
            let mut base = crc32fast::Hasher::new();
            base.update(host);
            base.update(b"\0");
            base.update(port);
            // As in Cache::Memcached::Fast: each point is the hash of host, port and the point before.
            let mut previous = 0_u32;
            for _ in 0..server.weight.saturating_mul(POINTS) {
                let mut hasher = base.clone();
                hasher.update(&previous.to_le_bytes());
                previous = hasher.finalize();
                points.push((previous, place as u32));
            }
        }
        points.sort_by_key(|(point, _)| *point);
        points.dedup_by_key(|(point, _)| *point);
        Self { points, alike }
    }

    /// Where a key has its place on the ring: a number for [`Ring::servers`].
    pub fn start(&self, key: &[u8]) -> u32 {
        let hash = crc32fast::hash(key);
        // There are far fewer points than fit: `check` limits the weights.
        self.points.partition_point(|(point, _)| *point < hash) as u32
    }

    /// The places of the servers at a point, counted round and round: one, unless several are written alike or it is
    /// a backup's. `None` on an empty ring.
    pub fn servers(&self, point: u32) -> Option<&[usize]> {
        let at = (point as usize).checked_rem(self.points.len())?;
        self.alike.get(self.points[at].1 as usize).map(Vec::as_slice)
    }
}

/// Host and port of a server as it is written. Of a Unix-domain socket it is the path, and no port.
fn parts(name: &str) -> (&[u8], &[u8]) {
    if let (Some(scheme), Some(path)) = (name.get(..5), name.get(5..))
        && scheme.eq_ignore_ascii_case("unix:")
    {
        return (path.as_bytes(), b"");
    }
    match name.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            (host.as_bytes(), port.as_bytes())
        }
        _ => (name.as_bytes(), b""),
    }
}

/// The next number for a key after `rounds` others, of which `sum` is the sum: `hash KEY`, which is
/// compatible with Cache::Memcached.
pub fn of_key(key: &[u8], sum: u32, rounds: u32) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    if rounds > 0 {
        hasher.update(rounds.to_string().as_bytes());
    }
    hasher.update(key);
    sum.wrapping_add((hasher.finalize() >> 16) & 0x7fff)
}

/// The first number for a client, to be given to [`of_ip`].
pub const IP_SEED: u32 = 89;

/// The next number for a client: `ip_hash`. `address` has three bytes for IPv4, all sixteen for IPv6.
pub fn of_ip(address: &[u8], before: u32) -> u32 {
    address.iter().fold(before, |hash, byte| (hash * 113 + u32::from(*byte)) % 6271)
}

/// What a key is for [`Seeds::score`]: its XXH64, with the seed 0.
pub fn rendezvous(key: &[u8]) -> u64 {
    XxHash64::oneshot(0, key)
}

/// The servers of a rendezvous hash (highest random weight; Thaler and Ravishankar 1998): `hash KEY rendezvous`.
///
/// Each server has a score for each key, made of the two and of the server's weight; nothing else goes into it, neither
/// the other servers nor their order. So all who know a server agree on its score.
#[derive(Debug)]
pub struct Seeds {
    servers: Vec<Seed>,
}

#[derive(Debug)]
struct Seed {
    /// The XXH64 of the address, with the seed 0.
    address: u64,
    weight: u32,
}

/// How well a server fits a key.
#[derive(Clone, Copy, Debug)]
pub struct Score {
    hash: u64,
    weight: u32,
    address: u64,
}

impl Seeds {
    /// For the servers of a group. A server is who it is by its address with its port, however that was written.
    pub fn new(servers: &[UpstreamServer]) -> Self {
        let seed = |server: &UpstreamServer| Seed {
            address: XxHash64::oneshot(0, server.address.to_string().as_bytes()),
            weight: server.weight,
        };
        Self { servers: servers.iter().map(seed).collect() }
    }

    /// The score of the server at a place for a key of [`rendezvous`].
    pub fn score(&self, place: usize, key: u64) -> Score {
        let Seed { address, weight } = self.servers[place];
        Score { hash: XxHash64::oneshot(address, &key.to_le_bytes()) >> 12, weight, address }
    }
}

impl Score {
    /// Whether it is the higher one. Two that are equal by chance are told apart by their addresses, everywhere alike.
    pub fn is_above(self, other: Self) -> bool {
        if self.weight == other.weight {
            // What `value` says, without its logarithms: they would be most of the work.
            return (self.hash, self.address) > (other.hash, other.address);
        }
        (self.value(), self.address) > (other.value(), other.address)
    }

    /// -weight / ln(x), with x evenly between 0 and 1 and neither of them, gives each server its share by weight.
    fn value(self) -> f64 {
        // 52 bits and the half behind them are what an f64 holds exactly.
        let x = (self.hash as f64 + 0.5) / (1_u64 << 52) as f64;
        -f64::from(self.weight) / x.ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::UpstreamAddress;

    fn server(name: &str, weight: u32) -> UpstreamServer {
        let address = UpstreamAddress::Name { host: name.to_owned(), port: 80 };
        UpstreamServer { weight, ..UpstreamServer::new(name.to_owned(), address) }
    }

    #[test]
    fn a_server_is_split_into_host_and_port_as_it_is_written() {
        for (name, host, port) in [
            ("127.0.0.1:8081", "127.0.0.1", "8081"),
            ("127.0.0.1", "127.0.0.1", ""),
            ("app", "app", ""),
            ("[::1]:80", "[::1]", "80"),
            ("[::1]", "[::1]", ""),
            ("unix:/run/a.sock", "/run/a.sock", ""),
            ("UNIX:/a", "/a", ""),
        ] {
            assert_eq!(parts(name), (host.as_bytes(), port.as_bytes()), "{name}");
        }
    }

    #[test]
    fn most_keys_keep_their_server_when_another_one_goes() {
        let all = [server("a:1", 1), server("b:1", 2), server("c:1", 1)];
        let (whole, less) = (Ring::new(&all), Ring::new(&all[..2]));
        let of = |ring: &Ring, key: &str| ring.servers(ring.start(key.as_bytes())).unwrap()[0];
        let mut moved = 0;
        for key in (0..1000).map(|key| key.to_string()) {
            let (before, after) = (of(&whole, &key), of(&less, &key));
            assert!(before == after || before == 2, "{key}");
            moved += u32::from(before != after);
        }
        assert!((150..350).contains(&moved), "{moved} of 1000 moved from a fourth of the weight");
        assert_eq!(Ring::new(&[]).servers(7), None);
    }

    #[test]
    fn the_rounds_of_a_key_differ_and_are_nginxs() {
        let first = of_key(b"/x", 0, 0);
        let second = of_key(b"/x", first, 1);
        assert_eq!(first, (crc32fast::hash(b"/x") >> 16) & 0x7fff);
        assert_eq!(second, first + ((crc32fast::hash(b"1/x") >> 16) & 0x7fff));
    }

    /// The server that a rendezvous hash chooses, by the host of its name.
    fn chosen(servers: &[UpstreamServer], key: &str) -> String {
        let (seeds, key) = (Seeds::new(servers), rendezvous(key.as_bytes()));
        let score = |place: usize| seeds.score(place, key);
        let higher = |a: usize, b: usize| if score(b).is_above(score(a)) { b } else { a };
        servers[(0..servers.len()).reduce(higher).unwrap()].name.clone()
    }

    #[test]
    fn a_rendezvous_is_the_one_that_is_published() {
        // By the lines of Python in docs/scaling.md.
        let address = |text: &str| crate::config::units::upstream_address(text).unwrap();
        let texts = [
            ("10.0.0.1:3000", 1),
            ("10.0.0.2:3000", 2),
            ("[2001:db8::1]:3000", 1),
            ("unix:/run/app.sock", 3),
        ];
        let servers = texts.map(|(text, weight)| UpstreamServer {
            weight,
            ..UpstreamServer::new(text.to_owned(), address(text))
        });
        let long = "x".repeat(100);
        let keys = ["a", "b", "c", "session-1", "session-2", "session-3", &long, "é"];
        let places =
            keys.map(|key| texts.iter().position(|(text, _)| *text == chosen(&servers, key)).unwrap());
        assert_eq!(places, [3, 1, 3, 1, 3, 3, 3, 2]);
        let score = Seeds::new(&servers).score(1, rendezvous(b"a")).value();
        assert!((score - 1.562_607_146_398_307_6).abs() < 1e-12, "{score}");
    }

    #[test]
    fn a_server_has_its_share_of_the_keys_by_its_weight() {
        let servers = [server("a", 1), server("b", 2), server("c", 5)];
        let mut shares = [0; 3];
        for key in 0..8000 {
            let name = chosen(&servers, &key.to_string());
            shares[servers.iter().position(|server| server.name == name).unwrap()] += 1;
        }
        for (share, expected) in shares.into_iter().zip([1000_i32, 2000, 5000]) {
            assert!((share - expected).abs() < 150, "{shares:?}");
        }
    }

    #[test]
    fn servers_that_are_alike_have_like_shares() {
        let servers: Vec<_> = (0..10).map(|index| server(&format!("10.0.0.{index}"), 1)).collect();
        let mut shares = std::collections::BTreeMap::new();
        for key in 0..10_000 {
            *shares.entry(chosen(&servers, &format!("session-{key}"))).or_insert(0) += 1;
        }
        assert!(shares.len() == 10 && shares.values().all(|share| (880..1120).contains(share)), "{shares:?}");
    }

    proptest::proptest! {
        #[test]
        fn the_order_of_servers_changes_nothing(
            weights in proptest::collection::vec(1_u32..50, 2..20), turn in 0_usize..20, key: String,
        ) {
            let mut servers: Vec<_> =
                weights.iter().enumerate().map(|(index, weight)| server(&format!("s{index}"), *weight)).collect();
            let before = chosen(&servers, &key);
            servers.rotate_left(turn % weights.len());
            proptest::prop_assert_eq!(&before, &chosen(&servers, &key));
            servers.reverse();
            proptest::prop_assert_eq!(before, chosen(&servers, &key));
        }

        #[test]
        fn only_the_keys_of_a_server_move_when_it_goes_and_come_back_with_it(
            weights in proptest::collection::vec(1_u32..50, 2..20), gone in 0_usize..20, key: String,
        ) {
            let all: Vec<_> =
                weights.iter().enumerate().map(|(index, weight)| server(&format!("s{index}"), *weight)).collect();
            let (gone, before) = (gone % all.len(), chosen(&all, &key));
            let mut less = all.clone();
            less.remove(gone);
            let after = chosen(&less, &key);
            proptest::prop_assert!(before == after || before == all[gone].name, "{} to {}", before, after);
        }

        #[test]
        fn more_weight_takes_keys_from_others_and_moves_none_between_them(
            weights in proptest::collection::vec(1_u32..50, 2..20), heavier in 0_usize..20, key: String,
        ) {
            let mut all: Vec<_> =
                weights.iter().enumerate().map(|(index, weight)| server(&format!("s{index}"), *weight)).collect();
            let (heavier, before) = (heavier % all.len(), chosen(&all, &key));
            all[heavier].weight += 7;
            let after = chosen(&all, &key);
            proptest::prop_assert!(before == after || after == all[heavier].name, "{} to {}", before, after);
        }
    }

    #[test]
    fn clients_of_one_network_have_one_number() {
        assert_eq!(of_ip(&[127, 0, 0], IP_SEED), of_ip(&[127, 0, 0], 89));
        assert_ne!(of_ip(&[127, 0, 0], IP_SEED), of_ip(&[127, 0, 1], IP_SEED));
    }
}
