//! Connections to upstreams: kept alive, used again or not, and shared out among the servers of a group.

mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use support::{App, Hopgate, Peer, Upstream, eventually, open_tunnel};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// A client's GET, taken by `server` on the connection it has, and answered.
#[track_caller]
fn exchange(client: &mut Peer, server: &mut Peer) {
    client.send(GET);
    server.expect_head("GET / HTTP/1.1", &[]);
    server.respond("ok");
    client.expect_status(200);
}

#[test]
fn an_upstream_connection_is_used_again_by_every_client() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);
    let mut first = hopgate.connect();
    first.send(GET);
    let mut server = upstream.accept();
    server.head();
    server.respond("ok");
    first.expect_status(200);

    exchange(&mut first, &mut server);
    exchange(&mut hopgate.connect(), &mut server);
    // After answers of every framing that ends by itself.
    for answer in [
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Trailer: 1\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ] {
        println!("row: {answer:?}");
        let mut client = hopgate.connect();
        client.send(GET);
        server.expect_head("GET / HTTP/1.1", &[]);
        server.send(answer);
        if client.response().status == 103 {
            client.expect_status(200);
        }
    }
    exchange(&mut first, &mut server);
    upstream.expect_no_connection(&hopgate);
}

#[test]
fn a_client_that_closes_does_not_close_the_upstream_connection() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);
    let mut client = hopgate.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let mut server = upstream.accept();
    assert!(!server.head().has_member("Connection", "close"));
    server.respond("ok");
    client.expect_status(200);
    client.expect_eof();
    exchange(&mut hopgate.connect(), &mut server);
}

#[test]
fn answers_that_end_a_connection_are_not_followed_by_another_request_on_it() {
    let rows = [
        ("Connection: close", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"),
        (
            "Connection: close among others",
            "HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 2\r\n\r\nok",
        ),
        ("HTTP/1.0", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        (
            "R26: bytes behind a length",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
        ),
        (
            "R26: bytes behind the last chunk",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\npoison",
        ),
        ("R26: a body behind 204", "HTTP/1.1 204 No Content\r\n\r\npoison"),
        ("R26: a body behind 304", "HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\npoison"),
    ];
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);
    let mut client = hopgate.connect();
    for (name, answer) in rows {
        println!("row: {name}");
        client.send(GET);
        let mut server = upstream.accept();
        server.head();
        server.send(answer);
        assert!(!client.response().text().contains("poison"));
        server.expect_closed();
        client.expect_nothing_yet(&hopgate);
    }
}

#[test]
fn r26_bytes_that_come_while_a_connection_is_idle_are_no_answer() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);
    let mut client = hopgate.connect();
    client.send(GET);
    let mut server = upstream.accept();
    server.head();
    server.respond("ok");
    client.expect_status(200);
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison");
    hopgate.settle();

    client.send(GET);
    let mut fresh = upstream.accept();
    fresh.head();
    fresh.respond("clean");
    assert_eq!(client.expect_status(200).text(), "clean");
    server.expect_closed();
}

#[test]
fn r26_a_head_request_answered_with_a_body_poisons_nobody() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);
    let mut client = hopgate.connect();
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut server = upstream.accept();
    server.head();
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison");
    client.expect_head("HTTP/1.1 200 OK", &["Content-Length: 6"]);
    server.expect_closed();

    client.send(GET);
    let mut fresh = upstream.accept();
    fresh.head();
    fresh.respond("clean");
    assert_eq!(client.expect_status(200).text(), "clean");
}

/// A hopgate with one pooled connection, whose upstream end dies as soon as the next request is on it.
#[track_caller]
fn with_a_dying_connection(request: &str, last: impl FnOnce(Peer)) -> (Hopgate, Upstream, Peer) {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);
    let mut client = hopgate.connect();
    client.send(GET);
    let mut server = upstream.accept();
    server.head();
    server.respond("ok");
    client.expect_status(200);
    client.send(request);
    server.head();
    last(server);
    (hopgate, upstream, client)
}

#[test]
fn a_request_that_can_be_sent_again_is_when_a_kept_connection_turns_out_dead() {
    for method in ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"] {
        for resets in [true, false] {
            println!("row: {method} resets={resets}");
            let request = format!("{method} /again HTTP/1.1\r\nHost: a\r\n\r\n");
            let end = |server: Peer| if resets { server.reset() } else { server.close() };
            let (hopgate, upstream, mut client) = with_a_dying_connection(&request, end);
            let mut fresh = upstream.accept();
            fresh.expect_head(
                &format!("{method} /again HTTP/1.1"),
                &["Host: a", "X-Forwarded-For: 127.0.0.1"],
            );
            fresh.respond("");
            client.expect_status(200);
            upstream.expect_no_connection(&hopgate);
        }
    }
}

#[test]
fn a_request_is_sent_again_once_only() {
    let (hopgate, upstream, mut client) = with_a_dying_connection(GET, Peer::close);
    let mut fresh = upstream.accept();
    fresh.head();
    fresh.close();
    client.expect_status(502);
    upstream.expect_no_connection(&hopgate);
}

#[test]
fn a_request_that_may_have_had_an_effect_is_not_sent_again() {
    let large = "x".repeat(20_000);
    let rows = [
        ("POST", "POST /once HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"),
        ("PATCH", "PATCH /once HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"),
        ("an unknown method", "FOO /once HTTP/1.1\r\nHost: a\r\n\r\n"),
        (
            "a body that is too large to be kept",
            &format!("PUT /once HTTP/1.1\r\nHost: a\r\nContent-Length: 20000\r\n\r\n{large}"),
        ),
    ];
    for (name, request) in rows {
        println!("row: {name}");
        let (hopgate, upstream, mut client) = with_a_dying_connection(request, Peer::close);
        client.expect_status(502);
        upstream.expect_no_connection(&hopgate);
    }
}

#[test]
fn a_small_body_is_sent_again_with_its_request() {
    for (framing, body) in
        [("Content-Length: 2", "ok"), ("Transfer-Encoding: chunked", "2\r\nok\r\n0\r\n\r\n")]
    {
        let request = format!("PUT /again HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n{body}");
        let (hopgate, upstream, mut client) = with_a_dying_connection(&request, Peer::close);
        let mut fresh = upstream.accept();
        fresh.expect_head("PUT /again HTTP/1.1", &[framing]);
        fresh.expect(body);
        fresh.respond("");
        client.expect_status(200);
        // The client's connection goes on behind the body.
        client.send(GET);
        fresh.expect_head("GET / HTTP/1.1", &[]);
        fresh.respond("");
        client.expect_status(200);
        upstream.expect_no_connection(&hopgate);
    }
}

#[test]
fn a_request_is_not_sent_again_after_the_first_byte_of_an_answer() {
    let (hopgate, upstream, mut client) =
        with_a_dying_connection(GET, |mut server| server.send("HTTP/1.1 2"));
    client.expect_status(502);
    upstream.expect_no_connection(&hopgate);
}

#[test]
fn a_post_finds_no_connection_that_the_upstream_has_closed_long_ago() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);
    let mut client = hopgate.connect();
    client.send(GET);
    let mut server = upstream.accept();
    server.head();
    server.respond("ok");
    client.expect_status(200);
    server.close();
    hopgate.settle();

    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok");
    let mut fresh = upstream.accept();
    fresh.expect_head("POST / HTTP/1.1", &[]);
    fresh.expect("ok");
    fresh.respond("");
    client.expect_status(200);
}

#[test]
fn an_idle_connection_is_closed_by_the_group_s_keepalive_timeout() {
    let upstream = Upstream::listen();
    let hopgate =
        Hopgate::with_group(&format!("server = \"{}\"\nkeepalive_timeout = \"300ms\"", upstream.addr()));
    let mut client = hopgate.connect();
    client.send(GET);
    let mut server = upstream.accept();
    server.head();
    server.respond("ok");
    client.expect_status(200);
    let idle = Instant::now();
    server.expect_closed();
    assert!(idle.elapsed() > Duration::from_millis(250), "closed after {:?}", idle.elapsed());
}

#[test]
fn an_idle_connection_is_closed_no_later_than_its_upstream_announced() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);
    let mut client = hopgate.connect();
    client.send(GET);
    let mut server = upstream.accept();
    server.head();
    server.send("HTTP/1.1 200 OK\r\nKeep-Alive: timeout=2, max=100\r\nContent-Length: 0\r\n\r\n");
    client.expect_status(200).head.expect_none_of(&["Keep-Alive"]);
    let idle = Instant::now();
    server.expect_closed();
    assert!(idle.elapsed() <= Duration::from_secs(2), "closed after {:?}", idle.elapsed());
}

#[test]
fn no_more_connections_are_kept_idle_than_configured() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::with_group(&format!("server = \"{}\"\nkeepalive = 2", upstream.addr()));
    let mut pairs: Vec<_> = (0..5)
        .map(|_| {
            let mut client = hopgate.connect();
            client.send(GET);
            let mut server = upstream.accept();
            server.head();
            (client, server)
        })
        .collect();
    for (client, server) in &mut pairs {
        server.respond("ok");
        client.expect_status(200);
    }
    hopgate.settle();
    let closed = pairs
        .iter_mut()
        .filter_map(|(_, server)| server.hears_within(Duration::from_millis(20)).then_some(()))
        .count();
    assert_eq!(closed, 3);
}

/// How many of `count` requests each app answered.
#[track_caller]
fn shares(hopgate: &Hopgate, count: usize) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for _ in 0..count {
        let (status, name) = hopgate.get("/");
        assert_eq!(status, 200);
        *shares.entry(name).or_default() += 1;
    }
    shares
}

fn counts<const N: usize>(counts: [(&str, usize); N]) -> BTreeMap<String, usize> {
    counts.map(|(name, count)| (name.to_owned(), count)).into()
}

#[test]
fn round_robin_follows_the_weights_exactly() {
    let [a, b, c] = ["a", "b", "c"].map(App::named);
    let hopgate = Hopgate::with_group(&format!(
        r#"server = ["{} weight=5", {{ address = "{}", weight = 2 }}, "{}"]"#,
        a.addr(),
        b.addr(),
        c.addr()
    ));
    for _ in 0..5 {
        assert_eq!(shares(&hopgate, 8), counts([("a", 5), ("b", 2), ("c", 1)]));
    }
}

#[test]
fn a_server_that_refuses_is_passed_over_and_nobody_notices() {
    let (alive, dead) = (App::named("alive"), Upstream::refusing());
    let hopgate = Hopgate::with_group(&format!(r#"server = ["{}", "{}"]"#, dead.addr(), alive.addr()));
    assert_eq!(shares(&hopgate, 20), counts([("alive", 20)]));
    // Nothing was sent to the dead one, so what may not be sent twice goes on as well.
    for _ in 0..4 {
        let mut client = hopgate.connect();
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok");
        assert_eq!(client.expect_status(200).text(), "alive");
    }
}

#[test]
fn a_server_that_was_passed_over_is_named_in_the_log() {
    let (alive, dead) = (App::named("alive"), Upstream::refusing());
    let hopgate = Hopgate::with_group(&format!(r#"server = ["{}", "{}"]"#, dead.addr(), alive.addr()));
    assert_eq!(shares(&hopgate, 4), counts([("alive", 4)]));
    hopgate.wait_for_log(dead.addr());
}

#[test]
fn a_handshake_passes_over_a_server_that_refuses() {
    let (upstream, dead) = (Upstream::listen(), Upstream::refusing());
    let hopgate = Hopgate::with_group(&format!(r#"server = ["{}", "{}"]"#, dead.addr(), upstream.addr()));
    for _ in 0..4 {
        let (mut client, mut server) = open_tunnel(&hopgate, &upstream);
        client.send("ping");
        server.expect("ping");
    }
}

#[test]
fn a_group_without_a_living_server_is_a_502() {
    let (one, other) = (Upstream::refusing(), Upstream::refusing());
    let hopgate = Hopgate::with_group(&format!(r#"server = ["{}", "{}"]"#, one.addr(), other.addr()));
    assert_eq!(hopgate.get("/").0, 502);
}

#[test]
fn least_conn_counts_tunnels_as_load() {
    let (busy, free) = (Upstream::listen(), Upstream::listen());
    let hopgate = Hopgate::with_group(&format!(
        "server = [\"{}\", \"{}\"]\nleast_conn = true",
        busy.addr(),
        free.addr()
    ));
    // Whichever gets the first tunnel has one more than the other, so the next goes to the other.
    let mut on_busy = Vec::new();
    let mut on_free = Vec::new();
    for _ in 0..3 {
        for _ in 0..2 {
            let mut client = hopgate.connect();
            client.send(support::handshake("/tunnel"));
            let (mut server, tunnels) =
                accept_from_either(&hopgate, (&busy, &mut on_busy), (&free, &mut on_free));
            server.head();
            server.send(support::switching());
            client.expect_status(101);
            tunnels.push((client, server));
        }
        assert_eq!(on_busy.len(), on_free.len());
    }

    // When the tunnels of one end, it gets all that is new until it has caught up.
    for (mut client, mut server) in on_free.drain(..) {
        client.finish();
        server.expect_eof();
        server.finish();
        client.expect_eof();
    }
    eventually("all three tunnels have ended", || hopgate.access_lines(" end cause=").len() == 3);
    for _ in 0..3 {
        let mut client = hopgate.connect();
        client.send(support::handshake("/tunnel"));
        let mut server = free.accept();
        server.head();
        server.send(support::switching());
        client.expect_status(101);
        on_free.push((client, server));
    }
    busy.expect_no_connection(&hopgate);

    // Plain requests see the tunnels too.
    let (mut client, mut server) = on_busy.pop().expect("three tunnels");
    client.finish();
    server.expect_eof();
    server.finish();
    client.expect_eof();
    eventually("one tunnel more has ended", || hopgate.access_lines(" end cause=").len() == 4);
    for _ in 0..4 {
        let mut client = hopgate.connect();
        client.send(GET);
        let mut server = busy.accept();
        server.head();
        server.respond_and_close("ok");
        client.expect_status(200);
    }
    free.expect_no_connection(&hopgate);
}

type Tunnels = Vec<(Peer, Peer)>;

/// Takes the connection that hopgate has made to one of two upstreams.
#[track_caller]
fn accept_from_either<'a>(
    hopgate: &Hopgate,
    first: (&Upstream, &'a mut Tunnels),
    second: (&Upstream, &'a mut Tunnels),
) -> (Peer, &'a mut Tunnels) {
    let mut accepted = None;
    eventually("a connection to either upstream", || {
        accepted = first.0.accept_if_any(hopgate).map(|peer| (peer, true));
        if accepted.is_none() {
            accepted = second.0.accept_if_any(hopgate).map(|peer| (peer, false));
        }
        accepted.is_some()
    });
    let (peer, is_first) = accepted.expect("eventually there was one");
    (peer, if is_first { first.1 } else { second.1 })
}

#[test]
fn an_upstream_that_comes_back_is_used_again() {
    let app = App::named("steady");
    let refusing = support::free_addr();
    let hopgate =
        Hopgate::with_group(&format!(r#"server = ["{}", "{refusing} fail_timeout=100ms"]"#, app.addr()));
    assert_eq!(shares(&hopgate, 4), counts([("steady", 4)]));

    let back = Upstream::listen_at(refusing);
    let mut came = None;
    eventually("the server is given a request again", || {
        let mut client = hopgate.connect();
        client.send(GET);
        came = back.accept_if_any(&hopgate).map(|server| (client, server));
        came.is_some()
    });
    let (mut client, mut server) = came.expect("eventually there was one");
    server.head();
    server.respond("back");
    assert_eq!(client.expect_status(200).text(), "back");
}

#[test]
fn a_connection_is_used_for_no_more_requests_than_configured() {
    let app = App::named("app");
    let hopgate = Hopgate::with_group(&format!("server = '{}'\nkeepalive_requests = 3", app.addr()));
    for _ in 0..7 {
        assert_eq!(hopgate.get("/").0, 200);
    }
    assert_eq!(app.connections(), 3);
}

#[test]
fn a_connection_is_used_for_no_longer_than_configured() {
    let app = App::named("app");
    let hopgate = Hopgate::with_group(&format!("server = '{}'\nkeepalive_time = '200ms'", app.addr()));
    let start = Instant::now();
    eventually("another connection is made", || {
        assert_eq!(hopgate.get("/").0, 200);
        app.connections() == 2
    });
    assert!(start.elapsed() > Duration::from_millis(200), "after {:?}", start.elapsed());
}
