//! nginx and hopgate choose alike: thousands of generated hosts and paths, put to generated servers and locations.
//!
//! The same seed makes the same worlds and requests; a failure tells the configuration and the request. For others than
//! the usual ones there is `HOPGATE_SEED`.

mod support;

#[path = "differential/world.rs"]
mod world;

use std::net::Ipv6Addr;
use std::os::unix::net::UnixStream;
use std::thread;

use fastrand::Rng;
use support::{Dir, Echo, Hopgate, Nginx, Peer};
use world::{Ask, World};

fn seed() -> u64 {
    std::env::var("HOPGATE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_140_516)
}

#[test]
fn nginx_and_hopgate_choose_the_same_location() {
    compare("l", 120, 120, World::of_locations);
}

#[test]
fn nginx_and_hopgate_choose_the_same_server() {
    compare("n", 80, 60, World::of_names);
}

/// Puts so many requests to each of so many worlds.
fn compare(name: &str, worlds: usize, asks: usize, make: fn(&mut Rng, &str) -> World) {
    if !Nginx::is_installed() {
        return;
    }
    let mut rng = Rng::with_seed(seed());
    let echo = Echo::start();
    let dir = Dir::new();
    let worlds: Vec<World> = (0..worlds).map(|index| make(&mut rng, &format!("{name}{index}"))).collect();
    let socket = |side: &str, index: usize| dir.path(&format!("{side}{index}"));

    let blocks: String =
        worlds.iter().enumerate().map(|(index, world)| world.nginx(&socket("nginx", index))).collect();
    let nginx = Nginx::start_in(Dir::new(), &format!("{}{blocks}", nginx_top(&echo)));
    let tables: String =
        worlds.iter().enumerate().map(|(index, world)| world.toml(&socket("hopgate", index))).collect();
    let hopgate = Hopgate::start(&format!("{}{tables}", toml_top(&echo)));

    let asked: Vec<Vec<Ask>> =
        worlds.iter().map(|world| (0..asks).map(|_| world.ask(&mut rng)).collect()).collect();
    let answers = |side: &'static str| -> Vec<Vec<Answer>> {
        asked.iter().enumerate().map(|(index, asked)| ask_all(&socket(side, index), asked)).collect()
    };
    let (by_nginx, by_hopgate) = thread::scope(|scope| {
        let nginx = scope.spawn(|| answers("nginx"));
        let hopgate = answers("hopgate");
        (nginx.join().expect("nginx answers"), hopgate)
    });
    drop((nginx, hopgate));

    let mut differences = String::new();
    let mut count = 0;
    for (index, world) in worlds.iter().enumerate() {
        let mut in_this_world = String::new();
        let answers = by_nginx[index].iter().zip(&by_hopgate[index]);
        for (ask, (nginx, hopgate)) in asked[index].iter().zip(answers) {
            if nginx != hopgate && deliberate(ask, nginx, hopgate).is_none() {
                count += 1;
                in_this_world +=
                    &format!("{} of {:?}\n    nginx: {nginx}\n  hopgate: {hopgate}\n", ask.target, ask.host);
            }
        }
        if !in_this_world.is_empty() {
            differences += &format!("{}{in_this_world}\n", world.nginx("…"));
        }
    }
    let asked = asked.iter().map(Vec::len).sum::<usize>();
    assert!(count == 0, "{count} of {asked} answers differ\n{differences}");
}

fn nginx_top(echo: &Echo) -> String {
    format!(
        "keepalive_requests 100000; variables_hash_max_size 4096; server_names_hash_bucket_size 128;\n\
         upstream app {{ server {}; keepalive 8; }}\n",
        echo.addr()
    )
}

fn toml_top(echo: &Echo) -> String {
    format!(
        "workers = 1\nkeepalive_requests = \"off\"\nencoded_slashes = \"pass\"\naccess_log = \"off\"\n\
         forwarded_headers = \"pass\"\n         [upstream.app]\nserver = \"{}\"\n",
        echo.addr()
    )
}

/// What can be told of an answer in both languages: the pages of errors are each one's own.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    location: Option<String>,
    text: String,
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?} {:?}", self.status, self.location, self.text)
    }
}

fn ask_all(socket: &str, asked: &[Ask]) -> Vec<Answer> {
    let mut connection = None;
    let ask = |ask: &Ask| {
        let mut client = connection.take().unwrap_or_else(|| connect(socket));
        client.send(match &ask.host {
            Some(host) => format!("GET {} HTTP/1.1\r\nHost: {host}\r\n{}\r\n", ask.target, ask.fields),
            None => format!("GET {} HTTP/1.0\r\n{}\r\n", ask.target, ask.fields),
        });
        let response = client.response();
        if !response.head.has_member("Connection", "close") {
            connection = Some(client);
        }
        let text = if response.status == 200 { response.text() } else { String::new() };
        Answer { status: response.status, location: response.head.field("Location").map(str::to_owned), text }
    };
    asked.iter().map(ask).collect()
}

fn connect(socket: &str) -> Peer {
    Peer::new("client", UnixStream::connect(socket).expect("the socket is listened on"))
}

/// Why it is right that hopgate answers otherwise.
fn deliberate(ask: &Ask, nginx: &Answer, hopgate: &Answer) -> Option<&'static str> {
    let path = ask.target.split('?').next().unwrap_or_default();
    let decoded = decode(path);
    let is_refused = hopgate.status == 400;
    if is_refused && path.contains(['#', '\\']) {
        return Some("no client sends a fragment, and `\\` is `/` to some servers");
    }
    if is_refused && ask.host.as_ref().is_some_and(|host| host.contains('[') && !is_ipv6(host)) {
        return Some("a host with brackets is an IPv6 address");
    }
    let hides_slash = ["%2f", "%2F", "%5c", "%5C"].iter().any(|slash| path.contains(slash));
    if hides_slash && has_dot_segment(&decoded) {
        return Some("an escaped slash hides a dot segment");
    }
    if hides_slash && path.contains("/..") {
        return Some("a `..` takes away a segment with an escaped slash in it; nginx has decoded it before");
    }
    if decoded.windows(2).any(|two| two == b"//") && has_dot_segment(&decoded) {
        return Some(
            "a `..` takes away an empty segment, as it does for the app; nginx has merged it before",
        );
    }
    if decoded.iter().any(u8::is_ascii_control) && nginx.status == hopgate.status {
        return Some("a field with a control byte is not sent on");
    }
    if is_refused && has_dot_segment(&decode(nginx.text.split(' ').nth(1)?)) {
        return Some("what follows the location's path leads out of the URI of proxy_pass");
    }
    let (nginx_line, nginx_rest) = nginx.text.split_once("\r\n")?;
    let (hopgate_line, hopgate_rest) = hopgate.text.split_once("\r\n")?;
    let is_same_to_an_app = sent(nginx_line) == sent(hopgate_line) && nginx_rest == hopgate_rest;
    is_same_to_an_app.then_some("what is sent on is what was matched")
}

fn is_ipv6(host: &str) -> bool {
    let address = host.split_once(']').and_then(|(address, _)| address.strip_prefix('['));
    let end = host.split_once(']').map_or("", |(_, end)| end);
    address.is_some_and(|address| address.parse::<Ipv6Addr>().is_ok())
        && (end.is_empty() || end.starts_with(':'))
}

/// The path that a request line stands for, and its query.
fn sent(line: &str) -> (Vec<u8>, &str) {
    let target = line.split(' ').nth(1).unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let decoded = decode(path);
    let mut segments: Vec<&[u8]> = Vec::new();
    for segment in decoded.split(|byte| *byte == b'/') {
        match segment {
            b".." => drop(segments.pop()),
            b"." | b"" => {}
            segment => segments.push(segment),
        }
    }
    (segments.join(&b'/'), query)
}

fn has_dot_segment(path: &[u8]) -> bool {
    path.split(|byte| matches!(byte, b'/' | b'\\')).any(|segment| matches!(segment, b"." | b".."))
}

fn decode(path: &str) -> Vec<u8> {
    let mut decoded = Vec::new();
    let mut rest = path.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        let escape = behind.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match escape.and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(|_| byte == b'%') {
            Some(escaped) => {
                decoded.push(escaped);
                rest = &behind[2..];
            }
            None => {
                decoded.push(byte);
                rest = behind;
            }
        }
    }
    decoded
}
