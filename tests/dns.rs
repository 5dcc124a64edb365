//! Names of upstreams: resolved again by their TTL and after a failed connect, with a DNS server whose answers move.

mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use support::{Dir, Dns, Hopgate, Peer, Upstream, eventually, handshake, silent_addr, switching};

/// The same port on several addresses of loopback, as containers have it that take each other's place.
fn upstreams<const N: usize>(ips: [&str; N]) -> (u16, [Upstream; N]) {
    // Another test may have the port on one of them.
    for _ in 0..100 {
        let first = Upstream::listen_at(format!("{}:0", ips[0]).parse().expect("an address"));
        let port: u16 = first.addr().rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
        let is_free = |ip: &&str| std::net::TcpListener::bind(format!("{ip}:{port}")).is_ok();
        if !ips[1..].iter().all(is_free) {
            continue;
        }
        let mut first = Some(first);
        let listen = |ip: &str| {
            first
                .take()
                .unwrap_or_else(|| Upstream::listen_at(format!("{ip}:{port}").parse().expect("an address")))
        };
        return (port, ips.map(listen));
    }
    panic!("no port is free on all of {ips:?}");
}

/// One location that passes everything to a URL; the line of `resolver` and others stand at the top.
fn config(top: &str, url: &str, location: &str) -> String {
    format!(
        r#"
        workers = 2
        {top}

        [[server]]
        listen = "127.0.0.1:0"

        [[server.location]]
        path = "/"
        proxy_pass = "{url}"
        {location}
        "#
    )
}

/// Sends a request on a connection of its own and says which of the upstreams it has come to.
#[track_caller]
fn goes_to(hopgate: &Hopgate, upstreams: &[Upstream]) -> usize {
    let mut client = hopgate.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let mut found = None;
    eventually("the request has come to an upstream", || {
        found = upstreams
            .iter()
            .enumerate()
            .find_map(|(index, upstream)| Some((index, upstream.accept_within(Duration::from_millis(5))?)));
        found.is_some()
    });
    let (index, mut peer) = found.expect("eventually there was one");
    peer.head();
    peer.respond_and_close("ok");
    client.expect_status(200);
    index
}

/// A tunnel through hopgate to whichever upstream is asked; it must be `upstream`.
#[track_caller]
fn tunnel(hopgate: &Hopgate, upstream: &Upstream) -> (Peer, Peer) {
    let mut client = hopgate.connect();
    client.send(handshake("/"));
    let mut peer = upstream.accept();
    peer.head();
    peer.send(switching());
    client.head();
    (client, peer)
}

#[track_caller]
fn carries_data((client, peer): &mut (Peer, Peer)) {
    client.send("there");
    peer.expect("there");
    peer.send("and back");
    client.expect("and back");
}

#[test]
fn when_a_name_moves_new_tunnels_follow_within_the_ttl_and_live_ones_stay() {
    let (port, [old, new]) = upstreams(["127.0.0.2", "127.0.0.3"]);
    let dns = Dns::start();
    dns.set("app.example", 1, &["127.0.0.2"]);
    let hopgate = Hopgate::start(&config(&dns.resolver(""), &format!("http://app.example:{port}"), ""));
    let mut before = tunnel(&hopgate, &old);
    carries_data(&mut before);

    dns.set("app.example", 1, &["127.0.0.3"]);
    let moved = Instant::now();
    hopgate.wait_for_log("`app.example` is 127.0.0.3");
    // The TTL, and what a busy machine adds to it.
    assert!(moved.elapsed() < Duration::from_secs(4), "{:?}", moved.elapsed());
    let mut after = tunnel(&hopgate, &new);
    carries_data(&mut after);
    carries_data(&mut before);
    old.expect_no_connection(&hopgate);
}

#[test]
fn after_a_failed_connect_a_name_is_asked_for_at_once_and_the_request_goes_on() {
    let (port, [old, new]) = upstreams(["127.0.0.2", "127.0.0.3"]);
    let dns = Dns::start();
    dns.set("app.example", 3600, &["127.0.0.2"]);
    let upstreams = [old, new];
    // Its TTL is hopgate's clock.
    dns.set("clock.example", 1, &["127.0.0.2"]);
    let clock = "[[server.location]]\npath = \"/clock\"\nproxy_pass = \"http://clock.example\"";
    let hopgate = Hopgate::start(&config(&dns.resolver(""), &format!("http://app.example:{port}"), clock));
    assert_eq!(goes_to(&hopgate, &upstreams), 0);

    dns.set("app.example", 3600, &["127.0.0.3"]);
    let [old, new] = upstreams;
    drop(old);
    // Names are asked for at most once a second after failures, so one that moves in its first second waits.
    let asked = dns.asked("clock.example A");
    eventually("a second has gone by", || dns.asked("clock.example A") >= asked + 2);
    let upstreams = [new];
    // Not even this one fails.
    assert_eq!(goes_to(&hopgate, &upstreams), 0);
    assert_eq!(dns.asked("app.example A"), 2);
}

#[test]
fn all_addresses_of_both_families_are_servers_and_take_turns() {
    let (port, upstreams) = upstreams(["127.0.0.2", "127.0.0.3", "[::1]"]);
    let dns = Dns::start();
    dns.set("app.example", 60, &["127.0.0.3", "::1", "127.0.0.2"]);
    let hopgate = Hopgate::start(&config(&dns.resolver(""), &format!("http://app.example:{port}"), ""));
    let turns: Vec<usize> = (0..6).map(|_| goes_to(&hopgate, &upstreams)).collect();
    let mut first = turns[..3].to_vec();
    assert_eq!(turns[..3], turns[3..]);
    first.sort_unstable();
    assert_eq!(first, [0, 1, 2]);

    // The kind that is switched off is not even asked for.
    let asked = dns.asked("app.example AAAA");
    let only = Hopgate::start(&config(&dns.resolver("ipv6=off"), &format!("http://app.example:{port}"), ""));
    let turns: Vec<usize> = (0..4).map(|_| goes_to(&only, &upstreams)).collect();
    assert!(!turns.contains(&2), "{turns:?}");
    assert_eq!(dns.asked("app.example AAAA"), asked);
}

#[test]
fn what_is_written_of_a_name_holds_for_each_of_its_addresses() {
    let (port, upstreams) = upstreams(["127.0.0.2", "127.0.0.3", "127.0.0.4"]);
    let dns = Dns::start();
    dns.set("two.example", 60, &["127.0.0.2", "127.0.0.3"]);
    let top = format!(
        "{}\n[upstream.app]\nserver = [\"two.example:{port} weight=2\", \"127.0.0.4:{port}\", \
         \"127.0.0.5:{port} backup\"]",
        dns.resolver("")
    );
    let hopgate = Hopgate::start(&config(&top, "http://app", ""));
    let mut counts = [0; 3];
    for _ in 0..10 {
        counts[goes_to(&hopgate, &upstreams)] += 1;
    }
    assert_eq!(counts, [4, 4, 2]);
}

/// Three upstreams behind SRV records: two by weight, and one that stands in for them.
fn service(dns: &Dns) -> [Upstream; 3] {
    let upstreams = [Upstream::listen(), Upstream::listen(), Upstream::listen()];
    let port = |index: usize| upstreams[index].addr().rsplit(':').next().unwrap_or_default();
    let records = [
        format!("10 3 {} one.example", port(0)),
        format!("10 1 {} two.example", port(1)),
        format!("20 9 {} two.example", port(2)),
    ];
    dns.set("_http._tcp.app.example", 60, &records.each_ref().map(String::as_str));
    dns.set("one.example", 60, &["127.0.0.1"]);
    dns.set("two.example", 60, &["127.0.0.1"]);
    upstreams
}

#[test]
fn srv_records_tell_ports_and_weights() {
    let dns = Dns::start();
    let upstreams = service(&dns);
    let hopgate = Hopgate::start(&config(&dns.resolver(""), "srv+http://_http._tcp.app.example/", ""));
    let mut counts = [0; 3];
    for _ in 0..8 {
        counts[goes_to(&hopgate, &upstreams)] += 1;
    }
    assert_eq!(counts, [6, 2, 0]);
}

#[test]
fn srv_records_with_a_higher_number_stand_in_for_the_others() {
    let dns = Dns::start();
    let [first, second, backup] = service(&dns);
    let top = format!("{}\n[upstream.app]\nserver = \"app.example service=http\"", dns.resolver(""));
    let hopgate = Hopgate::start(&config(&top, "http://app", ""));
    let upstreams = [first, second, backup];
    assert_ne!(goes_to(&hopgate, &upstreams), 2);
    let [first, second, backup] = upstreams;
    drop((first, second));
    assert_eq!(goes_to(&hopgate, &[backup]), 0);
}

#[test]
fn a_name_that_does_not_resolve_is_a_502_until_it_does() {
    let (port, upstreams) = upstreams(["127.0.0.2"]);
    let dns = Dns::start();
    let hopgate = Hopgate::start(&config(&dns.resolver(""), &format!("http://app.example:{port}"), ""));
    hopgate.wait_for_log("WARN `app.example` does not resolve: there is no such name (NXDOMAIN)");
    assert_eq!(hopgate.get("/").0, 502);
    hopgate.wait_for_log("no server of the upstream can be reached");

    dns.set("app.example", 60, &["127.0.0.2"]);
    hopgate.wait_for_log("`app.example` is 127.0.0.2");
    assert_eq!(goes_to(&hopgate, &upstreams), 0);
}

#[test]
fn a_server_that_says_nothing_is_a_502_after_resolver_timeout() {
    let dns = Dns::start();
    dns.silence("app.example");
    let top = format!("{}\nresolver_timeout = \"300ms\"", dns.resolver(""));
    let hopgate = Hopgate::start(&config(&top, "http://app.example:80", ""));
    let asked = Instant::now();
    assert_eq!(hopgate.get("/").0, 502);
    assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
    hopgate.wait_for_log("WARN `app.example` does not resolve: no answer within `resolver_timeout`");
}

#[test]
fn a_name_server_that_says_nothing_leaves_time_for_the_next_one() {
    let (port, upstreams) = upstreams(["127.0.0.2"]);
    let (silent, dns) = (Dns::start(), Dns::start());
    silent.silence("app.example");
    dns.set("app.example", 60, &["127.0.0.2"]);
    let top = format!("resolver = \"{} {}\"\nresolver_timeout = \"2s\"", silent.addr(), dns.addr());
    let hopgate = Hopgate::start(&config(&top, &format!("http://app.example:{port}"), ""));
    assert_eq!(goes_to(&hopgate, &upstreams), 0);
}

#[test]
fn a_host_of_srv_records_that_nobody_tells_does_not_keep_the_others_out() {
    let dns = Dns::start();
    let upstreams = service(&dns);
    dns.silence("one.example");
    let top = format!("{}\nresolver_timeout = \"2s\"", dns.resolver(""));
    let hopgate = Hopgate::start(&config(&top, "srv+http://_http._tcp.app.example/", ""));
    assert_eq!(goes_to(&hopgate, &upstreams), 1);
    dns.set("one.example", 60, &["127.0.0.1"]);
    // That is before the TTL of the records is over.
    eventually("the other host is there, too", || goes_to(&hopgate, &upstreams) == 0);
}

#[test]
fn a_request_that_waits_for_a_server_that_has_gone_meanwhile_goes_on_elsewhere() {
    let (silent, _full) = silent_addr();
    let new = Upstream::listen_at(format!("127.0.0.3:{}", silent.port()).parse().expect("an address"));
    let dns = Dns::start();
    dns.set("app.example", 1, &[&silent.ip().to_string()]);
    let url = format!("http://app.example:{}", silent.port());
    let hopgate = Hopgate::start(&config(&dns.resolver(""), &url, "proxy_connect_timeout = \"4s\""));
    hopgate.wait_for_log(&format!("`app.example` is {}", silent.ip()));
    let mut client = hopgate.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    dns.set("app.example", 1, &["127.0.0.3"]);
    hopgate.wait_for_log("`app.example` is 127.0.0.3");
    let mut peer = new.accept();
    peer.head();
    peer.respond_and_close("ok");
    client.expect_status(200);
}

#[test]
fn the_last_good_answer_goes_on_being_used() {
    let (port, upstreams) = upstreams(["127.0.0.2"]);
    let dns = Dns::start();
    dns.set("app.example", 1, &["127.0.0.2"]);
    let top = format!("{}\nresolver_timeout = \"300ms\"", dns.resolver(""));
    let hopgate = Hopgate::start(&config(&top, &format!("http://app.example:{port}"), ""));
    assert_eq!(goes_to(&hopgate, &upstreams), 0);
    for (fails, says) in [
        (Dns::fail as fn(&Dns, &str), "the name server answers: "),
        (Dns::remove, "there is no such name (NXDOMAIN)"),
        (Dns::silence, "no answer within `resolver_timeout`"),
    ] {
        fails(&dns, "app.example");
        hopgate.wait_for_log(&format!("does not resolve any more, its last addresses are used: {says}"));
        assert_eq!(goes_to(&hopgate, &upstreams), 0);
    }
}

#[test]
fn an_answer_that_was_cut_off_is_asked_for_over_tcp() {
    let (port, upstreams) = upstreams(["127.0.0.2", "127.0.0.3"]);
    let dns = Dns::start();
    dns.truncate();
    dns.set("app.example", 60, &["127.0.0.2", "127.0.0.3"]);
    let hopgate =
        Hopgate::start(&config(&dns.resolver("ipv6=off"), &format!("http://app.example:{port}"), ""));
    let turns = [goes_to(&hopgate, &upstreams), goes_to(&hopgate, &upstreams)];
    assert_eq!((turns[0] + turns[1], dns.asked_over_tcp()), (1, 1));
}

#[test]
fn a_reload_keeps_addresses_and_the_load_of_each() {
    let (port, [first, second]) = upstreams(["127.0.0.2", "127.0.0.3"]);
    let dns = Dns::start();
    dns.set("app.example", 3600, &["127.0.0.2", "127.0.0.3"]);
    let top = |more: &str| {
        format!("{}\n[upstream.app]\nserver = \"app.example:{port} max_conns=1\"\n{more}", dns.resolver(""))
    };
    let hopgate = Hopgate::start(&config(&top(""), "http://app", ""));
    let mut open = tunnel(&hopgate, &first);
    // Nothing is known of it any more but what was known before.
    dns.silence("app.example");
    hopgate.reload_with(&config(&top("keepalive = 1"), "http://app", ""));
    let upstreams = [first, second];
    // It would be the turn of the first address, but that is full: with the tunnel that began before the reload.
    assert_eq!(goes_to(&hopgate, &upstreams), 1);
    carries_data(&mut open);
}

#[test]
fn a_reload_with_another_resolver_asks_that_one_at_once_which_may_be_a_name() {
    let (port, upstreams) = upstreams(["127.0.0.2"]);
    let (wrong, right) = (Dns::start(), Dns::start());
    wrong.silence("app.example");
    right.set("app.example", 60, &["127.0.0.2"]);
    let url = format!("http://app.example:{port}");
    let hopgate = Hopgate::start(&config(&wrong.resolver(""), &url, ""));
    eventually("the wrong one is asked", || wrong.asked("app.example A") > 0);
    let resolver = format!("resolver = \"localhost:{}\"", right.addr().port());
    hopgate.reload_with(&config(&resolver, &url, ""));
    assert_eq!(goes_to(&hopgate, &upstreams), 0);
}

#[test]
fn idle_connections_to_an_address_that_has_gone_are_closed() {
    let (port, [old, new]) = upstreams(["127.0.0.2", "127.0.0.3"]);
    let dns = Dns::start();
    dns.set("app.example", 1, &["127.0.0.2"]);
    let hopgate = Hopgate::start(&config(&dns.resolver(""), &format!("http://app.example:{port}"), ""));
    let mut client = hopgate.connect();
    client.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut kept = old.accept();
    kept.head();
    kept.respond("ok");
    client.expect_status(200);
    dns.set("app.example", 1, &["127.0.0.3"]);
    hopgate.wait_for_log("`app.example` is 127.0.0.3");
    kept.expect_eof();
    client.send("GET /2 HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut other = new.accept();
    other.head();
    other.respond("ok");
    client.expect_status(200);
}

#[test]
fn hopgates_agree_on_the_server_of_a_client_whatever_order_they_were_told() {
    let (port, upstreams) = upstreams(["127.0.0.2", "127.0.0.3", "127.0.0.4"]);
    let mut chosen = Vec::new();
    for records in [["127.0.0.2", "127.0.0.3", "127.0.0.4"], ["127.0.0.4", "127.0.0.2", "127.0.0.3"]] {
        let dns = Dns::start();
        dns.set("app.example", 60, &records);
        let top = |method: &str| {
            format!("{}\n[upstream.app]\nserver = \"app.example:{port}\"\n{method}", dns.resolver(""))
        };
        for method in
            ["ip_hash = true", "hash = \"$uri\"", "hash = \"$uri consistent\"", "hash = \"$uri rendezvous\""]
        {
            let hopgate = Hopgate::start(&config(&top(method), "http://app", ""));
            chosen.push(goes_to(&hopgate, &upstreams));
        }
    }
    assert_eq!(chosen[..4], chosen[4..]);
}

#[test]
fn names_that_variables_make_are_resolved_by_the_same_rules_and_asked_for_once() {
    let (port, [old, new]) = upstreams(["127.0.0.2", "127.0.0.3"]);
    let dns = Dns::start();
    dns.set("app.example", 1, &["127.0.0.2"]);
    let url = format!("http://$arg_app.example:{port}");
    let hopgate = Hopgate::start(&config(&dns.resolver("ipv6=off"), &url, ""));
    let mut clients: Vec<Peer> = (0..6).map(|_| hopgate.connect()).collect();
    for client in &mut clients {
        client.send("GET /?app=app HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    for _ in 0..6 {
        let mut peer = old.accept();
        peer.head();
        peer.respond_and_close("ok");
    }
    clients.iter_mut().for_each(|client| drop(client.expect_status(200)));
    assert_eq!(dns.asked("app.example A"), 1);

    dns.set("app.example", 1, &["127.0.0.3"]);
    eventually("a request goes to the new address", || {
        let mut client = hopgate.connect();
        client.send("GET /?app=app HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let at = [&old, &new].map(|upstream| upstream.accept_within(Duration::from_millis(100)));
        let is_new = at[1].is_some();
        for mut peer in at.into_iter().flatten() {
            peer.head();
            peer.respond_and_close("ok");
        }
        client.expect_status(200);
        is_new
    });
}

#[test]
fn a_url_of_srv_records_needs_no_file_and_explaining_it_asks_nobody() {
    let dns = Dns::start();
    let upstreams = service(&dns);
    let dir = Dir::new();
    let file = dir.join("hopgate.toml");
    let text = config(&dns.resolver(""), "srv+http://_http._tcp.app.example", "");
    std::fs::write(&file, &text).expect("the configuration can be written");
    let explain = |arguments: &[&str]| {
        let output =
            Command::new(env!("CARGO_BIN_EXE_hopgate")).args(arguments).output().expect("hopgate runs");
        String::from_utf8(output.stdout).expect("text")
    };
    let file = file.display().to_string();
    let told = explain(&["explain", "--config", &file, "http://a/"]);
    assert!(told.contains("_http._tcp.app.example"), "{told}");
    assert_eq!(dns.asked("_http._tcp.app.example SRV"), 0);

    // RFC 6761 §6.4: there never is such a name, and a whole one with its dot is asked of nobody.
    let url = "srv+http://_http._tcp.app.invalid.";
    let quick = Hopgate::quick(&["run", "--listen", "127.0.0.1:0", "--upstream", url]);
    assert_eq!(quick.get("/").0, 502);
    drop(upstreams);
}

#[test]
fn localhost_is_one_server_and_needs_no_dns() {
    let upstream = Upstream::listen();
    let port = upstream.addr().rsplit(':').next().expect("a port").to_owned();
    let dns = Dns::start();
    let hopgate = Hopgate::start(&config(&dns.resolver(""), &format!("http://localhost:{port}"), ""));
    let upstreams = [upstream];
    assert_eq!([goes_to(&hopgate, &upstreams), goes_to(&hopgate, &upstreams)], [0, 0]);
    assert!(!hopgate.log().contains("another server is tried"), "{}", hopgate.log());
    assert_eq!(dns.asked("localhost A"), 0);
}
