//! nginx and hopgate choose alike: thousands of generated hosts and paths, put to generated servers and locations.
//!
//! The same seed makes the same worlds and requests; a failure tells the configuration and the request.

mod support;

#[path = "differential/world.rs"]
mod world;

use std::os::unix::net::UnixStream;
use std::thread;

use fastrand::Rng;
use support::{Dir, Echo, Hopgate, Nginx, Peer};
use world::{Ask, World};

const SEED: u64 = 20_140_516;

#[test]
fn nginx_and_hopgate_choose_the_same_location() {
    compare("l", 70, 100, World::of_locations);
}

#[test]
fn nginx_and_hopgate_choose_the_same_server() {
    compare("n", 40, 60, World::of_names);
}

/// Puts so many requests to each of so many worlds.
fn compare(name: &str, worlds: usize, asks: usize, make: fn(&mut Rng, &str) -> World) {
    if !Nginx::is_installed() {
        return;
    }
    let mut rng = Rng::with_seed(SEED);
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
        (answers("hopgate"), nginx.join().expect("nginx answers"))
    });
    drop((nginx, hopgate));

    let mut differences = Vec::new();
    for (index, world) in worlds.iter().enumerate() {
        let answers = by_nginx[index].iter().zip(&by_hopgate[index]);
        for (ask, (nginx, hopgate)) in asked[index].iter().zip(answers) {
            if nginx != hopgate && deliberate(ask, nginx, hopgate).is_none() {
                differences.push(format!(
                    "{}\n{} of {:?}\n  nginx: {nginx}\nhopgate: {hopgate}\n",
                    world.nginx("…"),
                    ask.target,
                    ask.host
                ));
            }
        }
    }
    let asked = asked.iter().map(Vec::len).sum::<usize>();
    let some = differences.iter().take(5).map(String::as_str).collect::<String>();
    assert!(differences.is_empty(), "{} of {asked} answers differ, among them\n{some}", differences.len());
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
         [upstream.app]\nserver = \"{}\"\n",
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
            Some(host) => format!("GET {} HTTP/1.1\r\nHost: {host}\r\n\r\n", ask.target),
            None => format!("GET {} HTTP/1.0\r\n\r\n", ask.target),
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
fn deliberate(ask: &Ask, _nginx: &Answer, hopgate: &Answer) -> Option<&'static str> {
    let path = ask.target.split('?').next().unwrap_or_default();
    if hopgate.status == 400 && path.contains(['#', '\\']) {
        return Some("no client sends a fragment, and `\\` is `/` to some servers");
    }
    None
}
