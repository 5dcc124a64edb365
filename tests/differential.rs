//! nginx and hopgate choose alike: thousands of generated hosts and paths, put to generated servers and locations.
//!
//! The same seed makes the same worlds and requests; a failure tells the configuration and the request. For others than
//! the usual ones there is `HOPGATE_SEED`.

mod support;

#[path = "differential/scripts.rs"]
mod scripts;
#[path = "differential/world.rs"]
mod world;

use std::fs;
use std::net::Ipv6Addr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;

use fastrand::Rng;
use support::{Dir, Echo, Hopgate, Import, Nginx, Peer};
use world::{Ask, World};

fn seed() -> u64 {
    std::env::var("HOPGATE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_140_516)
}

#[test]
fn nginx_and_hopgate_choose_the_same_location() {
    compare("l", 120, 120, World::of_locations);
}

#[test]
fn what_is_imported_chooses_as_the_original_does() {
    for (name, worlds, make) in
        [("l", 60, World::of_locations as fn(&mut Rng, &str) -> World), ("n", 40, World::of_names)]
    {
        compare_imported(name, worlds, 60, make);
    }
}

#[test]
fn what_is_imported_rewrites_compares_and_maps_as_the_original_does() {
    if !Nginx::is_installed() {
        return;
    }
    let www = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nginx/www").display().to_string();
    let mut rng = Rng::with_seed(seed());
    let echo = Echo::start();
    let dir = Dir::new();
    let seeds: Vec<u64> = (0..60).map(|_| rng.u64(..)).collect();
    let file = |side: &str| {
        let server = |(index, seed): (usize, &u64)| {
            let socket = dir.path(&format!("{side}{index}"));
            scripts::server(&mut Rng::with_seed(*seed), &format!("s{index}"), &socket, &www)
        };
        let servers: String = seeds.iter().enumerate().map(server).collect();
        format!("{}{}{servers}", nginx_top(&echo), scripts::top())
    };
    let _sides = start_both(&dir, file);
    let asked = seeds.iter().map(|_| (0..60).map(|_| scripts::ask(&mut rng)).collect()).collect();
    Answers::of(&dir, asked)
        .compare(|index| scripts::server(&mut Rng::with_seed(seeds[index]), &format!("s{index}"), "…", &www));
}

#[test]
fn nginx_and_hopgate_choose_the_same_server() {
    compare("n", 80, 60, World::of_names);
}

/// Puts so many requests to each of so many worlds.
#[track_caller]
fn compare(name: &str, worlds: usize, asks: usize, make: fn(&mut Rng, &str) -> World) {
    if !Nginx::is_installed() {
        return;
    }
    let mut rng = Rng::with_seed(seed());
    let (worlds, asked) = made(&mut rng, name, worlds, asks, make);
    let echo = Echo::start();
    let dir = Dir::new();
    let tables: String = worlds
        .iter()
        .enumerate()
        .map(|(index, world)| world.toml(&dir.path(&format!("hopgate{index}"))))
        .collect();
    let _nginx = Nginx::start_in(Dir::new(), &blocks(&worlds, &dir, "nginx", &echo));
    let _hopgate = Hopgate::start(&format!("{}{tables}", toml_top(&echo)));
    Answers::of(&dir, asked).compare(|index| worlds[index].nginx("…"));
}

/// As [`compare`], with what `hopgate import` makes of nginx's file.
#[track_caller]
fn compare_imported(name: &str, worlds: usize, asks: usize, make: fn(&mut Rng, &str) -> World) {
    if !Nginx::is_installed() {
        return;
    }
    let mut rng = Rng::with_seed(seed());
    let (worlds, asked) = made(&mut rng, name, worlds, asks, make);
    let echo = Echo::start();
    let dir = Dir::new();
    let _sides = start_both(&dir, |side| blocks(&worlds, &dir, side, &echo));
    Answers::of(&dir, asked).compare(|index| worlds[index].nginx("…"));
}

fn made(
    rng: &mut Rng,
    name: &str,
    worlds: usize,
    asks: usize,
    make: fn(&mut Rng, &str) -> World,
) -> (Vec<World>, Vec<Vec<Ask>>) {
    let worlds: Vec<World> = (0..worlds).map(|index| make(rng, &format!("{name}{index}"))).collect();
    let asked = worlds.iter().map(|world| (0..asks).map(|_| world.ask(rng)).collect()).collect();
    (worlds, asked)
}

/// nginx's file for all of them.
fn blocks(worlds: &[World], dir: &Dir, side: &str, echo: &Echo) -> String {
    let server = |(index, world): (usize, &World)| world.nginx(&dir.path(&format!("{side}{index}")));
    let servers: String = worlds.iter().enumerate().map(server).collect();
    format!("{}{servers}", nginx_top(echo))
}

/// nginx on a file, and hopgate on what it imports from one that differs only in its sockets.
#[track_caller]
fn start_both(dir: &Dir, file: impl Fn(&str) -> String) -> (Nginx, Hopgate) {
    let path = dir.join("imported.conf");
    fs::write(&path, file("hopgate")).expect("a file can be written");
    let import = Import::of_sound(&path);
    let said: Vec<&str> = import.report.lines().filter(|line| !line.starts_with("note: ")).collect();
    assert!(said.is_empty(), "not carried over:\n{}", said.join("\n"));
    (Nginx::start_in(Dir::new(), &file("nginx")), Hopgate::start(&import.toml))
}

/// What both sides said to the same requests, by socket.
struct Answers {
    asked: Vec<Vec<Ask>>,
    by_nginx: Vec<Vec<Answer>>,
    by_hopgate: Vec<Vec<Answer>>,
}

impl Answers {
    #[track_caller]
    fn of(dir: &Dir, asked: Vec<Vec<Ask>>) -> Self {
        let answers = |side: &str| -> Vec<Vec<Answer>> {
            let ask =
                |(index, asked): (usize, &Vec<Ask>)| ask_all(&dir.path(&format!("{side}{index}")), asked);
            asked.iter().enumerate().map(ask).collect()
        };
        let (by_nginx, by_hopgate) = thread::scope(|scope| {
            let nginx = scope.spawn(|| answers("nginx"));
            let hopgate = answers("hopgate");
            (nginx.join().expect("nginx answers"), hopgate)
        });
        Self { asked, by_nginx, by_hopgate }
    }

    /// Expects the same answers but for what is known to differ; `server` is the configuration of a socket.
    #[track_caller]
    fn compare(&self, server: impl Fn(usize) -> String) {
        let mut differences = String::new();
        let mut count = 0;
        for (index, asked) in self.asked.iter().enumerate() {
            let answers = self.by_nginx[index].iter().zip(&self.by_hopgate[index]);
            let mut here = String::new();
            for (ask, (nginx, hopgate)) in asked.iter().zip(answers) {
                if nginx != hopgate && deliberate(ask, nginx, hopgate).is_none() {
                    count += 1;
                    here += &format!("{ask}\n    nginx: {nginx}\n  hopgate: {hopgate}\n");
                }
            }
            if !here.is_empty() {
                differences += &format!("{}{here}\n", server(index));
            }
        }
        let asked = self.asked.iter().map(Vec::len).sum::<usize>();
        assert!(count == 0, "{count} of {asked} answers differ\n{differences}");
    }
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

/// The path that a request line stands for, and its query. (With variables in `proxy_pass` nginx sends blanks as they
/// are.)
fn sent(line: &str) -> (Vec<u8>, &str) {
    let target =
        line.split_once(' ').and_then(|(_, rest)| rest.rsplit_once(' ')).map_or("", |(target, _)| target);
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
