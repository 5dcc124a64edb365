//! After every kind of bad behaviour hopgate holds no more sockets than before, and serves on.

mod support;

use std::io::Write as _;
use std::net::TcpStream;
use std::thread;

use support::{Hopgate, Noise, Peer, Upstream, eventually, handshake, open_tunnel, switching};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const ROUNDS: usize = 20;

/// Does the bad thing many times over and asserts that nothing of it stays.
#[track_caller]
fn expect_no_leak(location: &str, mut bad: impl FnMut(&Hopgate, &Upstream)) {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::with_location(&upstream, location);
    expect_service(&hopgate, &upstream);
    let mut before = 0;
    // The first rounds may still grow what every process grows once.
    eventually("the warm-up is over", || {
        let now = hopgate.sockets();
        std::mem::replace(&mut before, now) == now
    });
    for _ in 0..ROUNDS {
        bad(&hopgate, &upstream);
    }
    let mut now = 0;
    eventually(&format!("{before} sockets again"), || {
        now = hopgate.sockets();
        now <= before
    });
    expect_service(&hopgate, &upstream);
    expect_tunnel(&hopgate, &upstream);
    eventually("nothing stays of the last check either", || hopgate.sockets() <= before);
    assert!(!hopgate.log().contains("panicked"), "{}", hopgate.log());
    // A drain waits for every task that serves a connection or a tunnel, for 30 s: none is there to wait for.
    hopgate.signal("TERM");
    hopgate.wait_for_log("connections=0 tunnels=0");
    hopgate.wait_for_log("stopped");
}

#[track_caller]
fn expect_service(hopgate: &Hopgate, upstream: &Upstream) {
    let mut client = hopgate.connect();
    client.send("GET /fine HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    // Whatever the bad ones left in the queue is passed over.
    loop {
        let mut server = upstream.accept();
        if let Some(head) = server.head_if_any()
            && head.start == "GET /fine HTTP/1.1"
        {
            head.expect(&["X-Forwarded-For: 127.0.0.1"]);
            server.respond_and_close("fine");
            break;
        }
    }
    assert_eq!(client.expect_status(200).text(), "fine");
    hopgate.wait_for_access("GET /fine ");
}

#[track_caller]
fn expect_tunnel(hopgate: &Hopgate, upstream: &Upstream) {
    let (mut client, mut server) = open_tunnel(hopgate, upstream);
    client.send("ping");
    server.expect("ping");
    client.finish();
    server.expect_eof();
    server.finish();
    client.expect_eof();
}

#[test]
fn nothing_stays_of_garbage() {
    let mut noise = Noise::seeded(1);
    expect_no_leak("", |hopgate, _| {
        let mut client = hopgate.connect();
        client.send_if_open(noise.take(3000));
        client.send_if_open("\r\n\r\n");
        client.read_to_end();
    });
}

#[test]
fn nothing_stays_of_clients_that_vanish_before_or_within_a_head() {
    expect_no_leak("", |hopgate, _| {
        hopgate.connect().close();
        hopgate.connect().reset();
        for part in ["G", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nHost: a\r\n"] {
            let mut client = hopgate.connect();
            client.send(part);
            client.close();
            let mut client = hopgate.connect();
            client.send(part);
            client.reset();
        }
    });
}

#[test]
fn nothing_stays_of_clients_that_vanish_while_they_wait() {
    let mut servers = Vec::new();
    expect_no_leak("", |hopgate, upstream| {
        for resets in [true, false] {
            let mut client = hopgate.connect();
            client.send(GET);
            let mut server = upstream.accept();
            server.head();
            if resets {
                client.reset()
            } else {
                client.close()
            }
            servers.push(server);
        }
    });
    servers.iter_mut().for_each(Peer::expect_closed);
}

#[test]
fn nothing_stays_of_clients_that_vanish_within_a_body() {
    expect_no_leak("", |hopgate, upstream| {
        for framing in ["Content-Length: 100\r\n\r\nhalf", "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"]
        {
            for resets in [true, false] {
                let mut client = hopgate.connect();
                client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}"));
                let mut server = upstream.accept();
                server.head();
                server.read(4);
                if resets {
                    client.reset()
                } else {
                    client.close()
                }
                let (rest, _) = server.read_to_end();
                assert!(!rest.ends_with(b"0\r\n\r\n"), "the upstream took half a body for a whole one");
            }
        }
    });
}

#[test]
fn nothing_stays_of_clients_that_vanish_within_an_answer() {
    expect_no_leak("", |hopgate, upstream| {
        for resets in [true, false] {
            let mut client = hopgate.connect();
            client.send(GET);
            let mut server = upstream.accept();
            server.head();
            server.send("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\nhalf");
            client.head();
            client.expect("half");
            if resets {
                client.reset()
            } else {
                client.close()
            }
            while server.send_if_open([b'x'; 65536]) {}
        }
    });
}

#[test]
fn nothing_stays_of_clients_that_vanish_within_a_silent_answer() {
    let mut servers = Vec::new();
    expect_no_leak("", |hopgate, upstream| {
        for resets in [true, false] {
            let mut client = hopgate.connect();
            client.send(GET);
            let mut server = upstream.accept();
            server.head();
            server.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n");
            client.head();
            if resets {
                client.reset()
            } else {
                client.close()
            }
            servers.push(server);
        }
    });
    servers.iter_mut().for_each(Peer::expect_closed);
}

#[test]
fn nothing_stays_of_clients_that_vanish_within_a_handshake() {
    let mut servers = Vec::new();
    expect_no_leak("", |hopgate, upstream| {
        for resets in [true, false] {
            let mut client = hopgate.connect();
            client.send(handshake("/ws"));
            let mut server = upstream.accept();
            server.head();
            if resets {
                client.reset()
            } else {
                client.close()
            }
            servers.push(server);
        }
    });
    servers.iter_mut().for_each(Peer::expect_closed);
}

#[test]
fn nothing_stays_of_tunnels_that_are_cut_on_either_side() {
    expect_no_leak("", |hopgate, upstream| {
        let (client, mut server) = open_tunnel(hopgate, upstream);
        client.reset();
        server.expect_closed();
        let (mut client, server) = open_tunnel(hopgate, upstream);
        server.reset();
        client.expect_closed();
        let (client, mut server) = open_tunnel(hopgate, upstream);
        client.close();
        server.expect_eof();
        server.close();
        let (mut client, server) = open_tunnel(hopgate, upstream);
        server.close();
        client.expect_eof();
        client.close();
    });
}

#[test]
fn nothing_stays_of_tunnels_that_are_cut_with_bytes_on_their_way() {
    expect_no_leak("tunnel_linger = \"300ms\"", |hopgate, upstream| {
        for client_cuts in [true, false] {
            let (client, server) = open_tunnel(hopgate, upstream);
            let (mut writer, cutter) = if client_cuts { (server, client) } else { (client, server) };
            let mut noise = Noise::seeded(2);
            writer.send(noise.take(300_000));
            cutter.reset();
            while writer.send_if_open([b'x'; 65536]) {}
        }
    });
}

#[test]
fn nothing_stays_of_tunnels_whose_other_side_never_closes() {
    let mut kept = Vec::new();
    expect_no_leak("tunnel_linger = \"100ms\"", |hopgate, upstream| {
        let (client, mut server) = open_tunnel(hopgate, upstream);
        client.close();
        server.expect_eof();
        // It is hopgate that must let go.
        kept.push(server);
    });
}

#[test]
fn nothing_stays_of_upstreams_that_break_off() {
    let answers = [
        "",
        "HTTP/1.1 2",
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "nonsense\r\n\r\n",
    ];
    expect_no_leak("", |hopgate, upstream| {
        for answer in answers {
            for resets in [true, false] {
                let mut client = hopgate.connect();
                client.send("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
                let mut server = upstream.accept();
                server.head();
                server.expect("ok");
                server.send(answer);
                if resets {
                    server.reset()
                } else {
                    server.close()
                }
                let (seen, _) = client.read_to_end();
                assert!(!seen.ends_with(b"0\r\n\r\n"), "{:?}", String::from_utf8_lossy(&seen));
            }
        }
    });
}

#[test]
fn nothing_stays_of_upstreams_that_are_silent() {
    let mut kept = Vec::new();
    expect_no_leak(
        "proxy_read_timeout = \"50ms\"\ntunnel_handshake_timeout = \"50ms\"",
        |hopgate, upstream| {
            for request in [GET.to_owned(), handshake("/ws")] {
                let mut client = hopgate.connect();
                client.send(request);
                let mut server = upstream.accept();
                server.head();
                client.expect_status(504);
                // It is hopgate that must let go.
                kept.push(server);
            }
        },
    );
}

#[test]
fn nothing_stays_of_upstreams_that_are_refused() {
    let refusing = Upstream::refusing();
    let hopgate = Hopgate::in_front_of(&refusing);
    assert_eq!(hopgate.get("/").0, 502);
    let mut before = 0;
    eventually("the warm-up is over", || {
        let now = hopgate.sockets();
        std::mem::replace(&mut before, now) == now
    });
    for _ in 0..ROUNDS {
        assert_eq!(hopgate.get("/").0, 502);
        let mut client = hopgate.connect();
        client.send(handshake("/ws"));
        client.expect_status(502);
    }
    eventually("as many sockets again", || hopgate.sockets() <= before);
}

#[test]
fn nothing_stays_of_handshakes_that_are_answered_wrongly() {
    expect_no_leak("", |hopgate, upstream| {
        for answer in [
            switching().replace("Upgrade: websocket", "Upgrade: chat") + "bytes",
            switching().replace("s3pP", "S3pP"),
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".to_owned(),
        ] {
            let mut client = hopgate.connect();
            client.send(handshake("/ws"));
            let mut server = upstream.accept();
            server.head();
            server.send(answer);
            client.response();
            client.close();
            server.expect_closed();
        }
    });
}

#[test]
fn nothing_stays_of_a_crowd_that_does_all_of_it_at_once() {
    let upstream = Upstream::listen();
    let hopgate =
        Hopgate::with_location(&upstream, "proxy_read_timeout = \"300ms\"\ntunnel_idle_timeout = \"300ms\"");
    expect_service(&hopgate, &upstream);
    let before = hopgate.sockets();
    thread::scope(|scope| {
        // An upstream that does something else with each connection, until it is told to stop.
        scope.spawn(|| {
            for number in 0.. {
                let mut server = upstream.accept();
                match server.head_if_any() {
                    None => continue,
                    Some(head) if head.start == "STOP" => break,
                    Some(_) => {}
                }
                match number % 5 {
                    0 => server.reset(),
                    1 => drop(server.send_if_open("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")),
                    2 => drop(server.send_if_open(switching() + "hello")),
                    3 => drop(server.send_if_open("\0\0\0\0\r\n\r\n")),
                    _ => server.close(),
                }
            }
        });
        let crowd = [0, 1, 2, 3].map(|seed| {
            let hopgate = &hopgate;
            scope.spawn(move || (0..50).for_each(|number| misbehave(hopgate.connect(), seed + number)))
        });
        for clients in crowd {
            clients.join().expect("nobody could not connect");
        }
        let mut stop = TcpStream::connect(upstream.addr()).expect("the upstream still listens");
        stop.write_all(b"STOP\r\n\r\n").expect("the upstream still reads");
    });
    eventually("as many sockets again", || hopgate.sockets() <= before);
    expect_service(&hopgate, &upstream);
}

fn misbehave(mut client: Peer, number: usize) {
    client.send_if_open(if number.is_multiple_of(2) {
        handshake("/ws")
    } else {
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok".to_owned()
    });
    match number % 3 {
        0 => client.reset(),
        1 => client.close(),
        _ => {
            client.hears_within(support::DEADLINE);
        }
    }
}
