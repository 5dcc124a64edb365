//! Several hopgates that share nothing give a key to the same server, by `hash = "KEY rendezvous"`.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use support::{Dir, Dns, Hopgate, NodeApp, eventually, free_addr, run_node_script};

const KEYS: usize = 300;

/// A server that answers each request with its own address, over one connection each; until it is dropped.
struct Server {
    addr: SocketAddr,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start() -> Self {
        // Not among the ports of which the system gives one away: it stays closed once it is.
        Self::start_at(free_addr())
    }

    fn start_at(addr: SocketAddr) -> Self {
        let listener = TcpListener::bind(addr).expect("a port to listen on");
        let is_over = Arc::<AtomicBool>::default();
        let over = is_over.clone();
        let thread = thread::spawn(move || {
            for stream in
                listener.incoming().map_while(Result::ok).take_while(|_| !over.load(Ordering::SeqCst))
            {
                thread::spawn(move || answer(&stream, &addr.to_string()));
            }
        });
        Self { addr, is_over, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        // Wakes it; it may have ended by itself.
        let _ = TcpStream::connect(self.addr);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn answer(mut stream: &TcpStream, name: &str) -> Option<()> {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    lines.find(String::is_empty)?;
    let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", name.len());
    stream.write_all(format!("{head}{name}").as_bytes()).ok()
}

fn config(servers: &[String]) -> String {
    format!(
        r#"
        workers = 2
        access_log = "off"

        [upstream.app]
        server = {servers:?}
        hash = "$cookie_sid rendezvous"

        [[server]]
        listen = "127.0.0.1:0"

        [[server.location]]
        path = "/"
        proxy_pass = "http://app"
        "#
    )
}

/// Which server each key has.
#[track_caller]
fn places(hopgate: &Hopgate) -> BTreeMap<String, String> {
    let mut client = hopgate.connect();
    let place = |key: usize| {
        let key = format!("session-{key}");
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: lang=en; sid={key}\r\n\r\n"));
        let response = client.response();
        assert_eq!(response.status, 200, "{}", hopgate.log());
        (key, response.text())
    };
    (0..KEYS).map(place).collect()
}

/// The same from all of them.
#[track_caller]
fn agreed(hopgates: &[Hopgate]) -> BTreeMap<String, String> {
    let first = places(&hopgates[0]);
    for other in &hopgates[1..] {
        assert_eq!(first, places(other));
    }
    first
}

/// The keys that have another server than before.
fn moved(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Vec<String> {
    before.iter().filter(|(key, place)| after[*key] != **place).map(|(key, _)| key.clone()).collect()
}

#[test]
fn hopgates_that_share_nothing_agree_on_the_server_of_a_key() {
    let mut farm: Vec<_> = (0..5).map(|_| Server::start()).collect();
    let mut lines: Vec<_> = farm.iter().map(|server| server.addr.to_string()).collect();
    lines[2] += " weight=2";
    let orders: Vec<Vec<String>> = vec![
        lines.clone(),
        lines.iter().rev().cloned().collect(),
        [3, 1, 4, 0, 2].map(|place: usize| lines[place].clone()).into(),
    ];
    let hopgates: Vec<_> = orders.iter().map(|servers| Hopgate::start(&config(servers))).collect();
    let before = agreed(&hopgates);
    let of = |server: &str| -> Vec<String> {
        before.iter().filter(|(_, place)| *place == server).map(|(key, _)| key.clone()).collect()
    };
    let shares: Vec<_> = farm.iter().map(|server| of(&server.addr.to_string()).len()).collect();
    assert!(shares.iter().all(|share| *share >= 15) && shares.iter().sum::<usize>() == KEYS, "{shares:?}");

    // One server is gone: its keys move, to the same others everywhere, and no other key does.
    let gone = farm.remove(1);
    let (name, line) = (gone.addr.to_string(), lines[1].clone());
    drop(gone);
    let without = agreed(&hopgates);
    assert_eq!(moved(&before, &without), of(&name));

    // It is taken out of the files, of one after the other: nothing moves any more.
    for (hopgate, servers) in hopgates.iter().zip(&orders) {
        let left: Vec<_> = servers.iter().filter(|server| **server != line).cloned().collect();
        hopgate.reload_with(&config(&left));
        assert_eq!(places(hopgate), without);
    }

    // Another one comes: it takes its share of all the others, who give each other nothing.
    farm.push(Server::start());
    let new = farm[4].addr.to_string();
    for (hopgate, servers) in hopgates.iter().zip(&orders) {
        let with: Vec<_> =
            servers.iter().map(|server| if *server == line { &new } else { server }).cloned().collect();
        hopgate.reload_with(&config(&with));
    }
    let after = agreed(&hopgates);
    let came = moved(&without, &after);
    assert!(came.len() >= 15 && came.iter().all(|key| after[key] == new), "{came:?}");
}

#[test]
fn the_addresses_of_a_name_are_servers_as_if_they_were_written() {
    let port = free_addr().port();
    let ips = ["127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4"];
    let _farm = ips.map(|ip| Server::start_at(SocketAddr::new(ip.parse().expect("an address"), port)));
    let dns = Dns::start();
    dns.set("app.example", 1, &ips);
    let named = format!("{}\n{}", dns.resolver(""), config(&[format!("app.example:{port}")]));
    let of = |ips: &[&str]| config(&ips.iter().map(|ip| format!("{ip}:{port}")).collect::<Vec<_>>());
    let hopgates = [Hopgate::start(&named), Hopgate::start(&named), Hopgate::start(&of(&ips))];
    let before = agreed(&hopgates);

    // A pod goes.
    dns.set("app.example", 1, &ips[..3]);
    hopgates[2].reload_with(&of(&ips[..3]));
    let expected = places(&hopgates[2]);
    eventually("the name has been asked for again", || {
        hopgates.iter().all(|hopgate| places(hopgate) == expected)
    });
    let gone = format!("{}:{port}", ips[3]);
    assert!(moved(&before, &expected).iter().all(|key| before[key] == gone));
}

#[test]
fn a_key_without_a_value_goes_to_the_servers_in_turn() {
    let farm = [Server::start(), Server::start()];
    let servers = farm.iter().map(|server| server.addr.to_string()).collect::<Vec<_>>();
    let hopgate = Hopgate::start(&config(&servers));
    let answers: Vec<_> = (0..4).map(|_| hopgate.get("/").1).collect();
    assert_eq!(answers, [&servers[..], &servers[..]].concat());
}

#[test]
fn explain_tells_the_server_that_a_key_has() {
    let farm: Vec<_> = (0..4).map(|_| Server::start()).collect();
    let servers: Vec<_> = farm.iter().map(|server| server.addr.to_string()).collect();
    let toml = config(&servers);
    let dir = Dir::new();
    fs::write(dir.join("hopgate.toml"), toml.replace(":0\"", ":80\"")).expect("a file can be written");
    let hopgate = Hopgate::start(&toml);
    for (key, place) in places(&hopgate).into_iter().take(8) {
        let output = Command::new(env!("CARGO_BIN_EXE_hopgate"))
            .args([
                "explain",
                "--config",
                "hopgate.toml",
                "-H",
                &format!("Cookie: sid={key}"),
                "http://127.0.0.1/",
            ])
            .current_dir(&dir)
            .output()
            .expect("hopgate can be run");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains(&format!("hash, rendezvous: by the key `{key}`")), "{text}");
        assert!(text.contains(&format!("→ {place}")), "{place}:\n{text}");
    }
}

/// A block of docs/scaling.md.
#[track_caller]
fn block(kind: &str, with: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/scaling.md");
    let manual = fs::read_to_string(path).expect("the manual can be read");
    let mut blocks = manual.split("```").skip(1).step_by(2).filter_map(|block| block.strip_prefix(kind));
    blocks.find(|block| block.contains(with)).unwrap_or_else(|| panic!("no {kind} with {with}")).to_owned()
}

#[test]
fn the_python_of_the_manual_chooses_as_hopgate_does() {
    let farm: Vec<_> = (0..5).map(|_| Server::start()).collect();
    let addrs: Vec<_> = farm.iter().map(|server| server.addr.to_string()).collect();
    let weights = [1, 2, 1, 3, 1];
    let with = |join: fn((&String, u32)) -> String| addrs.iter().zip(weights).map(join).collect::<Vec<_>>();
    let hopgate = Hopgate::start(&config(&with(|(addr, weight)| format!("{addr} weight={weight}"))));
    let servers = with(|(addr, weight)| format!("{addr:?}: {weight}")).join(", ");
    let ask = format!(
        "for key in range({KEYS}): print(server({{{servers}}}, f'session-{{key}}'.encode()), f'session-{{key}}')"
    );
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/apps/python/bin/python");
    let output = Command::new(python)
        .args(["-c", &format!("{}\n{ask}", block("python\n", "xxh64"))])
        .output()
        .expect("tests/run makes this Python");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let expected: BTreeMap<_, _> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(place, key)| (key.to_owned(), place.to_owned()))
        .collect();
    assert_eq!(places(&hopgate), expected);
}

#[test]
fn sessions_of_socket_io_stay_with_their_app_whichever_hopgate_they_come_through() {
    let apps = [NodeApp::start(), NodeApp::start(), NodeApp::start()];
    let servers: Vec<_> = apps.iter().map(NodeApp::addr).collect();
    let manual = block("toml\n", "$request_id");
    assert!(manual.contains("\"app:3000\""), "{manual}");
    let config = |servers: &[&str]| {
        let servers = format!("{servers:?}");
        format!(
            "workers = 1\n{}",
            manual.replace("\"app:3000\"", &servers).replace("\"8080\"", "\"127.0.0.1:0\"")
        )
    };
    let reversed: Vec<_> = servers.iter().rev().copied().collect();
    let hopgates = [Hopgate::start(&config(&servers)), Hopgate::start(&config(&reversed))];
    run_node_script(
        "socketio-sticky.js",
        &hopgates.each_ref().map(|gate| format!("http://{}", gate.addr())).join(","),
    );
}
