//! Pure: the hashes by which nginx chooses servers, so that a key keeps its server when hopgate takes over.

use crate::config::UpstreamServer;

/// Points of each unit of weight on the ring, as nginx has.
const POINTS: u32 = 160;

/// The ring of a consistent hash: `hash KEY consistent`.
#[derive(Debug)]
pub struct Ring {
    /// In their order, each value once, with the place of a server.
    points: Vec<(u32, usize)>,
}

impl Ring {
    /// For the servers of a group. Servers that are written alike have the points of the first one of
    /// them, and more of them.
    pub fn new(servers: &[UpstreamServer]) -> Self {
        let mut points = Vec::new();
        for server in servers {
            let place = servers.iter().position(|other| other.name == server.name).unwrap_or_default();
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
                points.push((previous, place));
            }
        }
        points.sort_by_key(|(point, _)| *point);
        points.dedup_by_key(|(point, _)| *point);
        Self { points }
    }

    /// Where a key has its place on the ring: a number for [`Ring::server`].
    pub fn start(&self, key: &[u8]) -> u32 {
        let hash = crc32fast::hash(key);
        // There are far fewer points than fit: `check` limits the weights.
        self.points.partition_point(|(point, _)| *point < hash) as u32
    }

    /// The place of the server at a point, counted round and round; `None` on an empty ring.
    pub fn server(&self, point: u32) -> Option<usize> {
        let at = (point as usize).checked_rem(self.points.len())?;
        Some(self.points[at].1)
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
        let of = |ring: &Ring, key: &str| ring.server(ring.start(key.as_bytes())).unwrap();
        let mut moved = 0;
        for key in (0..1000).map(|key| key.to_string()) {
            let (before, after) = (of(&whole, &key), of(&less, &key));
            assert!(before == after || before == 2, "{key}");
            moved += u32::from(before != after);
        }
        assert!((150..350).contains(&moved), "{moved} of 1000 moved from a fourth of the weight");
        assert_eq!(Ring::new(&[]).server(7), None);
    }

    #[test]
    fn the_rounds_of_a_key_differ_and_are_nginxs() {
        let first = of_key(b"/x", 0, 0);
        let second = of_key(b"/x", first, 1);
        assert_eq!(first, (crc32fast::hash(b"/x") >> 16) & 0x7fff);
        assert_eq!(second, first + ((crc32fast::hash(b"1/x") >> 16) & 0x7fff));
    }

    #[test]
    fn clients_of_one_network_have_one_number() {
        assert_eq!(of_ip(&[127, 0, 0], IP_SEED), of_ip(&[127, 0, 0], 89));
        assert_ne!(of_ip(&[127, 0, 0], IP_SEED), of_ip(&[127, 0, 1], IP_SEED));
    }
}
