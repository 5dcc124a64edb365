//! What happens to the bytes of a tunnel, and how it ends: rule R9, back-pressure, timers, causes.

mod support;

use std::thread;
use std::time::{Duration, Instant};

use support::{Ending, Hopgate, Noise, Peer, Upstream, assert_same_bytes, handshake, open_tunnel, switching};

/// Waits for the line that tells how a tunnel ended; returns it.
#[track_caller]
fn expect_end(hopgate: &Hopgate, cause: &str) -> String {
    let line = hopgate.wait_for_access(" end cause=");
    assert!(line.contains(&format!(" end cause={cause} ")), "expected: cause={cause}\n     got: {line}");
    line
}

#[test]
fn random_bytes_pass_unchanged_both_ways_at_once() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);
    let (mut client, mut server) = open_tunnel(&hopgate, &upstream);
    let up = Noise::seeded(1).take(20_000_003);
    let down = Noise::seeded(2).take(16_000_001);

    // Each end writes all it has while it reads all that comes.
    let (mut client_out, mut server_out) = (client.another(), server.another());
    let (at_upstream, at_client) = thread::scope(|scope| {
        scope.spawn(|| send_in_pieces(&mut client_out, &up));
        scope.spawn(|| send_in_pieces(&mut server_out, &down));
        let at_upstream = scope.spawn(|| server.read(up.len()));
        let at_client = client.read(down.len());
        (at_upstream.join().expect("the upstream had no complaint"), at_client)
    });
    assert_same_bytes("client to upstream", &up, &at_upstream);
    assert_same_bytes("upstream to client", &down, &at_client);

    client.finish();
    server.expect_eof();
    server.finish();
    client.expect_eof();
    let line = expect_end(&hopgate, "client_closed");
    assert!(line.contains(&format!(" sent={} received={} ", down.len(), up.len())), "{line}");
}

#[test]
fn bytes_pass_unchanged_while_bulk_and_small_messages_take_turns() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);
    let (client, server) = open_tunnel(&hopgate, &upstream);
    let mut noise = Noise::seeded(3);
    let (mut total, mut size) = ([0, 0], 17);
    let (mut from, mut to) = (client, server);
    for turn in 0..60 {
        size = size * 31 % 10_007;
        // Small messages are waited for one by one, so that nothing is behind them when they are moved.
        for length in [size % 300 + 1, size + 1, size * 300 + 100_000, 1, size * 7 + 1, size * 150 + 60_000] {
            let message = noise.take(length);
            let got = thread::scope(|scope| {
                let mut out = from.another();
                let sent = &message;
                scope.spawn(move || out.send(sent));
                to.read(length)
            });
            assert_same_bytes("a message", &message, &got);
            total[turn % 2] += length;
        }
        std::mem::swap(&mut from, &mut to);
    }
    let (mut client, mut server) = (from, to);
    client.finish();
    server.expect_eof();
    server.finish();
    client.expect_eof();
    let line = expect_end(&hopgate, "client_closed");
    assert!(line.contains(&format!(" sent={} received={} ", total[1], total[0])), "{total:?}: {line}");
}

#[test]
fn bulk_that_waits_for_its_reader_waits_in_the_kernel() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);
    let before = hopgate.pipes();
    let mut tunnels: Vec<_> = (0..3).map(|_| open_tunnel(&hopgate, &upstream)).collect();
    let mut sent = Vec::new();
    for (place, (client, _)) in tunnels.iter_mut().enumerate() {
        sent.push(client.send_until_stalled(&mut Noise::seeded(place as u64)));
    }
    // What a reader does not take waits in a pipe: two descriptors for each of them.
    assert_eq!(hopgate.pipes(), before + 2 * tunnels.len());
    for (place, (client, server)) in tunnels.iter_mut().enumerate() {
        assert_same_bytes(
            "everything",
            &Noise::seeded(place as u64).take(sent[place]),
            &server.read(sent[place]),
        );
        client.send("small again");
        server.expect("small again");
    }

    // What was on its way when a side is gone is neither counted as delivered nor given to another tunnel.
    let (mut client, server) = tunnels.pop().expect("three");
    client.send_until_stalled(&mut Noise::seeded(9));
    server.reset();
    expect_end(&hopgate, "upstream_reset");
    let (client, server) = &mut tunnels[0];
    let message = Noise::seeded(10).take(3_000_000);
    let got = thread::scope(|scope| {
        let mut out = client.another();
        let sent = &message;
        scope.spawn(move || out.send(sent));
        server.read(message.len())
    });
    assert_same_bytes("another tunnel", &message, &got);
}

/// In writes of many sizes, single bytes among them.
fn send_in_pieces(peer: &mut Peer, bytes: &[u8]) {
    let (mut rest, mut size) = (bytes, 1);
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(size.min(rest.len()));
        peer.send(piece);
        (rest, size) = (after, size * 7 % 200_003);
    }
}

#[test]
fn frames_are_echoed_small_large_and_interleaved() {
    // As nginx's proxy_websocket.t: one frame, 48 KiB frames, ten on their way at once.
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);
    let (mut client, mut server) = open_tunnel(&hopgate, &upstream);

    client.send("\u{1}frame");
    server.expect("\u{1}frame");
    server.send("\u{1}echo");
    client.expect("\u{1}echo");
    for round in 0..10 {
        let frame = Noise::seeded(round).take(48 << 10);
        client.send(&frame);
        assert_same_bytes("a large frame", &frame, &server.read(frame.len()));
        server.send(&frame);
        assert_same_bytes("its echo", &frame, &client.read(frame.len()));
    }
    for round in 0..10 {
        client.send(format!("to the upstream {round};"));
        server.send(format!("to the client {round};"));
    }
    for round in 0..10 {
        server.expect(format!("to the upstream {round};"));
        client.expect(format!("to the client {round};"));
    }
}

#[test]
fn many_tunnels_do_not_get_into_each_others_way() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);
    let mut tunnels: Vec<_> = (0..100).map(|_| open_tunnel(&hopgate, &upstream)).collect();
    for (number, (client, server)) in tunnels.iter_mut().enumerate() {
        client.send(format!("from client {number}"));
        server.send(format!("from upstream {number}"));
    }
    for (number, (client, server)) in tunnels.iter_mut().enumerate().rev() {
        server.expect(format!("from client {number}"));
        client.expect(format!("from upstream {number}"));
    }
}

#[test]
fn r9_a_half_close_of_the_client_is_passed_on_and_the_upstream_goes_on() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);
    let (mut client, mut server) = open_tunnel(&hopgate, &upstream);

    client.send("last words");
    client.finish();
    server.expect("last words");
    server.expect_eof();
    server.send("an answer");
    client.expect("an answer");
    server.send(" and more");
    server.finish();
    client.expect(" and more");
    client.expect_eof();
    expect_end(&hopgate, "client_closed");
}

#[test]
fn r9_a_half_close_of_the_upstream_is_passed_on_and_the_client_goes_on() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);
    let (mut client, mut server) = open_tunnel(&hopgate, &upstream);

    server.send("last words");
    server.finish();
    client.expect("last words");
    client.expect_eof();
    client.send("an answer");
    server.expect("an answer");
    client.finish();
    server.expect_eof();
    expect_end(&hopgate, "upstream_closed");
}

#[test]
fn r9_a_half_close_right_behind_the_handshake_is_passed_on() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);

    let mut client = hopgate.connect();
    client.send(handshake("/ws"));
    let mut server = upstream.accept();
    server.head();
    server.send(switching() + "hello and goodbye");
    server.finish();
    client.expect_status(101);
    client.expect("hello and goodbye");
    client.expect_eof();
    client.send("goodbye");
    server.expect("goodbye");
    client.finish();
    server.expect_eof();
    expect_end(&hopgate, "upstream_closed");
}

#[test]
fn r9_the_other_side_of_a_half_closed_tunnel_lingers_no_longer_than_configured() {
    for client_first in [true, false] {
        let upstream = Upstream::listen();
        let hopgate = Hopgate::with_location(&upstream, r#"tunnel_linger = "300ms""#);
        let (mut client, mut server) = open_tunnel(&hopgate, &upstream);
        let (first, second) =
            if client_first { (&mut client, &mut server) } else { (&mut server, &mut client) };
        first.finish();
        second.expect_eof();
        // The second one never closes.
        first.expect_closed();
        expect_end(&hopgate, "linger");
        hopgate.wait_for_log("tunnel_linger");
    }
}

#[test]
fn what_was_sent_before_a_half_close_arrives_even_if_the_reader_is_slow() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);
    let (mut client, mut server) = open_tunnel(&hopgate, &upstream);

    let sent = server.send_until_stalled(&mut Noise::seeded(5));
    server.finish();
    assert_same_bytes("everything", &Noise::seeded(5).take(sent), &client.read(sent));
    client.expect_eof();
}

#[test]
fn a_reset_of_either_side_is_passed_on_as_an_abnormal_end() {
    for (client_resets, cause) in [(true, "client_reset"), (false, "upstream_reset")] {
        let upstream = Upstream::listen();
        let hopgate = Hopgate::in_front_of(&upstream);
        let (mut client, mut server) = open_tunnel(&hopgate, &upstream);
        client.send("ping");
        server.expect("ping");
        server.send("pong");
        client.expect("pong");
        if client_resets {
            client.reset();
            server.expect_reset();
        } else {
            server.reset();
            client.expect_reset();
        }
        expect_end(&hopgate, cause);
    }
}

#[test]
fn a_reader_that_stops_stops_the_writer_and_costs_no_memory() {
    for client_reads in [true, false] {
        let upstream = Upstream::listen();
        let hopgate = Hopgate::in_front_of(&upstream);
        let (client, server) = open_tunnel(&hopgate, &upstream);
        let (mut reader, mut writer) = if client_reads { (client, server) } else { (server, client) };
        let before = hopgate.resident_kib();
        let sent = writer.send_until_stalled(&mut Noise::seeded(6));
        let grown = hopgate.resident_kib().saturating_sub(before);
        assert!(grown < 4096, "{grown} KiB grown while {sent} bytes went in");

        // The other direction is none the worse for it.
        reader.send("still here");
        writer.expect("still here");
        // And nothing is lost when the reader comes back.
        assert_same_bytes("everything", &Noise::seeded(6).take(sent), &reader.read(sent));
        writer.send("flowing again");
        reader.expect("flowing again");
    }
}

#[test]
fn an_idle_tunnel_is_ended_and_the_log_names_the_setting() {
    let rows = [
        (r#"tunnel_idle_timeout = "300ms""#, "tunnel_idle_timeout"),
        (r#"proxy_read_timeout = "300ms""#, "proxy_read_timeout"),
        // The longer of the two holds where both are written; the handshake has a timer of its own.
        ("proxy_read_timeout = \"1ms\"\nproxy_send_timeout = \"300ms\"", "proxy_send_timeout"),
    ];
    for (location, setting) in rows {
        println!("row: {location}");
        let upstream = Upstream::listen();
        let hopgate = Hopgate::with_location(&upstream, location);
        let (mut client, mut server) = open_tunnel(&hopgate, &upstream);
        client.send("the last for a while");
        server.expect("the last for a while");
        let silence = Instant::now();
        client.expect_closed();
        server.expect_closed();
        assert!(silence.elapsed() > Duration::from_millis(250), "ended after {:?}", silence.elapsed());
        expect_end(&hopgate, "idle");
        hopgate.wait_for_log(setting);
    }
}

#[test]
fn traffic_in_one_direction_keeps_a_tunnel_from_being_idle() {
    for client_talks in [true, false] {
        let upstream = Upstream::listen();
        let hopgate = Hopgate::with_location(&upstream, r#"tunnel_idle_timeout = "300ms""#);
        let (mut client, mut server) = open_tunnel(&hopgate, &upstream);
        let (talker, listener) =
            if client_talks { (&mut client, &mut server) } else { (&mut server, &mut client) };
        let started = Instant::now();
        while started.elapsed() < Duration::from_millis(900) {
            talker.send("word ");
            listener.expect("word ");
        }
        client.expect_closed();
        expect_end(&hopgate, "idle");
    }
}

#[test]
fn the_timeouts_of_plain_requests_do_not_end_a_tunnel() {
    // Here the location writes the tunnel's own setting, which wins over the older names.
    let upstream = Upstream::listen();
    let hopgate = Hopgate::start(&format!(
        r#"
        workers = 1
        proxy_read_timeout = "200ms"
        proxy_send_timeout = "200ms"
        client_body_timeout = "200ms"
        send_timeout = "200ms"
        [[server]]
        listen = "127.0.0.1:0"
        keepalive_timeout = "200ms"
        client_header_timeout = "200ms"
        [[server.location]]
        path = "/"
        proxy_pass = "http://{}"
        tunnel_idle_timeout = "700ms"
        "#,
        upstream.addr()
    ));
    let (mut client, mut server) = open_tunnel(&hopgate, &upstream);
    let silence = Instant::now();
    client.expect_closed();
    server.expect_closed();
    assert!(silence.elapsed() > Duration::from_millis(600), "ended after {:?}", silence.elapsed());
    expect_end(&hopgate, "idle");
}

#[test]
fn a_tunnel_grows_no_older_than_configured_however_busy_it_is() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::with_location(&upstream, r#"tunnel_max_age = "400ms""#);
    let (mut client, mut server) = open_tunnel(&hopgate, &upstream);
    let started = Instant::now();
    // Until it is ended, one word after the other comes through.
    while client.send_if_open("word ") && server.take_if_any("word ") {
        assert!(started.elapsed() < support::DEADLINE, "it seems to live for ever");
    }
    assert!(started.elapsed() > Duration::from_millis(300), "ended after {:?}", started.elapsed());
    client.expect_closed();
    expect_end(&hopgate, "age");
    hopgate.wait_for_log("tunnel_max_age");
}

#[test]
fn each_tunnel_has_two_lines_that_share_an_id() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);
    let (mut client, mut server) = open_tunnel(&hopgate, &upstream);
    let start = hopgate.wait_for_access(" start");
    let (_, id) = start.rsplit_once(" tunnel=").expect("an id");
    let id = id.strip_suffix(" start").expect("the event");
    assert!(start.contains("\"GET /tunnel HTTP/1.1\" 101 "), "{start}");

    client.send("12345");
    server.expect("12345");
    server.send("1234567");
    client.expect("1234567");
    server.finish();
    client.expect_eof();
    client.finish();
    server.expect_eof();
    let end = hopgate
        .wait_for_access(&format!(" tunnel={id} end cause=upstream_closed sent=7 received=5 duration="));
    let (_, duration) = end.rsplit_once(" duration=").expect("a duration");
    let seconds = duration.trim_end_matches('s').parse::<f64>().expect("a number of seconds");
    assert!(seconds < support::DEADLINE.as_secs_f64(), "{end}");

    open_tunnel(&hopgate, &upstream);
    hopgate.settle();
    assert_eq!(hopgate.access_lines(&format!(" tunnel={id} ")).len(), 2, "an id is used once");
}

#[test]
fn bytes_behind_the_heads_are_counted_too() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::in_front_of(&upstream);
    let mut client = hopgate.connect();
    client.send(handshake("/ws") + "12345");
    let mut server = upstream.accept();
    server.head();
    server.send(switching() + "1234567");
    client.expect_status(101);
    client.expect("1234567");
    server.expect("12345");
    client.finish();
    server.expect_eof();
    server.finish();
    client.expect_eof();
    let line = expect_end(&hopgate, "client_closed");
    assert!(line.contains(" sent=7 received=5 "), "{line}");
}

#[test]
fn a_drain_delivers_what_it_has_taken() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::with_top(&upstream, r#"shutdown_timeout = "1s""#);
    let (mut client, mut server) = open_tunnel(&hopgate, &upstream);
    let sent = server.send_until_stalled(&mut Noise::seeded(8));
    hopgate.signal("TERM");
    hopgate.wait_for_log("draining");
    let (received, _) = client.read_to_end();
    assert!(received.len() <= sent);
    assert_same_bytes("a beginning", &Noise::seeded(8).take(received.len()), &received);
    let line = expect_end(&hopgate, "drain");
    assert!(line.contains(&format!(" sent={} ", received.len())), "{} bytes came: {line}", received.len());
}

#[test]
fn a_reset_is_never_told_as_a_good_end_even_if_it_is_noticed_by_a_write() {
    for client_resets in [true, false] {
        let upstream = Upstream::listen();
        let hopgate = Hopgate::in_front_of(&upstream);
        let (client, server) = open_tunnel(&hopgate, &upstream);
        let (mut resetting, mut reading) = if client_resets { (client, server) } else { (server, client) };
        // Full in this direction, so that hopgate does not read the reset; then it writes into it.
        resetting.send_until_stalled(&mut Noise::seeded(9));
        resetting.reset();
        reading.send("are you there?");
        reading.send("and now?");
        let (_, ending) = reading.read_to_end();
        assert_eq!(ending, Ending::Reset);
    }
}
