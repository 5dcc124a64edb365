//! How the connections of the process lie on its workers, and that they lie evenly again when chance has spread them badly.

mod support;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::net::TcpStream;

use support::{Hopgate, Peer, Upstream, eventually, handshake, switching};

/// Of the worker that goes on with them.
const KEPT: usize = 50;
const NEW: usize = 60;
/// What one worker may have more than the other: `MORE` and `PART` of `server/spread.rs`, and two that were on their way.
const MOST_APART: usize = 8 + (KEPT + NEW) / 2 / 8 + 2;

/// A tunnel: both its ends, and the client's port.
struct Tunnel {
    client: Peer,
    server: Peer,
    port: u16,
}

fn open(hopgate: &Hopgate, upstream: &Upstream) -> Tunnel {
    let socket = TcpStream::connect(hopgate.addr()).unwrap();
    let port = socket.local_addr().unwrap().port();
    let mut client = Peer::new("the client", socket);
    client.send(handshake("/tunnel"));
    let mut server = upstream.accept();
    server.expect_head("GET /tunnel HTTP/1.1", &["Upgrade: websocket"]);
    server.send(switching());
    client.expect_status(101);
    Tunnel { client, server, port }
}

/// The clients' ports that each worker of the process has connections from: what its epoll instance watches.
fn workers(hopgate: &Hopgate) -> Vec<HashSet<u16>> {
    let process = format!("/proc/{}", hopgate.pid());
    let ports = clients_by_inode(hopgate);
    let (mut by_descriptor, mut watches) = (HashMap::new(), Vec::new());
    for entry in fs::read_dir(format!("{process}/fd")).unwrap().flatten() {
        let Ok(link) = fs::read_link(entry.path()) else { continue };
        let (number, link) = (entry.file_name().into_string().unwrap(), link.to_string_lossy().into_owned());
        if let Some(port) = ports.get(&link) {
            by_descriptor.insert(number, *port);
        } else if link == "anon_inode:[eventpoll]" {
            watches.push(fs::read_to_string(format!("{process}/fdinfo/{number}")).unwrap_or_default());
        }
    }
    let watched = |line: &str| line.strip_prefix("tfd:")?.split_whitespace().next().map(str::to_owned);
    let mut workers: Vec<HashSet<u16>> = Vec::new();
    for told in watches {
        let ports: HashSet<_> = told
            .lines()
            .filter_map(watched)
            .filter_map(|number| by_descriptor.get(&number).copied())
            .collect();
        // The runtime has its instance twice.
        if !ports.is_empty() && !workers.contains(&ports) {
            workers.push(ports);
        }
    }
    workers
}

/// The ports of those who are connected to hopgate, by the socket that hopgate has for them.
fn clients_by_inode(hopgate: &Hopgate) -> HashMap<String, u16> {
    let ours = format!(":{:04X}", hopgate.addr().port());
    let connections = fs::read_to_string("/proc/net/tcp").unwrap();
    let mut clients = HashMap::new();
    for line in connections.lines() {
        let columns: Vec<_> = line.split_whitespace().collect();
        if let [_, local, remote, ..] = columns[..]
            && local.ends_with(&ours)
            && let Some((_, port)) = remote.split_once(':')
            && let Ok(port @ 1..) = u16::from_str_radix(port, 16)
        {
            clients.insert(format!("socket:[{}]", columns[9]), port);
        }
    }
    clients
}

#[test]
fn new_tunnels_go_to_the_worker_whose_old_ones_have_ended() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::start(&format!(
        r#"
        workers = 2
        [[server]]
        listen = "127.0.0.1:0"
        location = [{{ path = "/", proxy_pass = "http://{}" }}]
        "#,
        upstream.addr()
    ));
    let mut tunnels: Vec<Tunnel> = Vec::new();
    while workers(&hopgate).iter().map(HashSet::len).min().filter(|_| workers(&hopgate).len() == 2)
        < Some(KEPT)
    {
        assert!(tunnels.len() < 8 * KEPT, "all tunnels are on one worker");
        tunnels.extend((0..10).map(|_| open(&hopgate, &upstream)));
    }
    let busy = workers(&hopgate).remove(0);
    let mut left = KEPT;
    tunnels.retain(|tunnel| {
        let stays = busy.contains(&tunnel.port) && left > 0;
        left -= usize::from(stays);
        stays
    });
    eventually("the others have ended", || workers(&hopgate).iter().map(HashSet::len).eq([KEPT]));

    tunnels.extend((0..NEW).map(|_| open(&hopgate, &upstream)));

    let spread: Vec<_> = workers(&hopgate).iter().map(HashSet::len).collect();
    assert_eq!(spread.iter().sum::<usize>(), KEPT + NEW, "{spread:?}");
    let (most, least) = (spread.iter().max().unwrap(), spread.iter().min().unwrap());
    assert!(spread.len() == 2 && most - least <= MOST_APART, "{spread:?}");
    for Tunnel { client, server, .. } in &mut tunnels {
        client.send("ping");
        server.expect("ping");
        server.send("pong");
        client.expect("pong");
    }
}
