//! When another server of a group is tried, and when none is: `proxy_next_upstream` for requests, bodies and upgrades.

mod support;

use support::{Hopgate, Upstream, eventually, handshake, open_tunnel, switching};

/// A group of these two, in turn.
fn of_two(first: &Upstream, second: &Upstream, lines: &str) -> Hopgate {
    Hopgate::start(&format!(
        "workers = 1\nlog_format = {{ t = '$upstream_addr $upstream_status $status' }}\naccess_log = 'stdout t'\n\
         [upstream.app]\nserver = ['{}', '{}']\n\
         [[server]]\nlisten = '127.0.0.1:0'\n{lines}\n[[server.location]]\npath = '/'\nproxy_pass = 'http://app'\n",
        first.addr(),
        second.addr(),
    ))
}

#[test]
fn an_upgrade_goes_to_the_next_server_if_one_cannot_be_connected_to() {
    let (refusing, upstream) = (Upstream::refusing(), Upstream::listen());
    let hopgate = of_two(&refusing, &upstream, "");
    let (mut client, mut server) = open_tunnel(&hopgate, &upstream);
    client.send("through");
    server.expect("through");
    hopgate.wait_for_access(&format!("{}, {} 502, 101 101", refusing.addr(), upstream.addr()));
}

#[test]
fn an_upgrade_that_was_sent_goes_to_no_other_server_unless_that_is_allowed() {
    for (lines, is_allowed) in [("", false), ("proxy_next_upstream = ['error', 'non_idempotent']", true)] {
        let (first, second) = (Upstream::listen(), Upstream::listen());
        let hopgate = of_two(&first, &second, lines);
        let mut client = hopgate.connect();
        client.send(handshake("/ws"));
        let mut server = first.accept();
        server.head();
        server.close();
        if is_allowed {
            let mut server = second.accept();
            server.expect_head("GET /ws HTTP/1.1", &["Upgrade: websocket"]);
            server.send(switching());
            client.expect_status(101);
        } else {
            client.expect_status(502);
            second.expect_no_connection(&hopgate);
        }
    }
}

#[test]
fn an_upgrade_that_was_refused_with_a_listed_status_goes_to_the_next_server() {
    let (first, second) = (Upstream::listen(), Upstream::listen());
    let hopgate = of_two(&first, &second, "proxy_next_upstream = ['http_503']");
    let mut client = hopgate.connect();
    client.send(handshake("/ws") + "early ");
    let mut server = first.accept();
    server.head();
    server.send("HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy");
    let mut server = second.accept();
    server.expect_head("GET /ws HTTP/1.1", &["Upgrade: websocket"]);
    server.send(switching());
    client.expect_status(101);
    client.send("bird");
    server.expect("early bird");
    hopgate.wait_for_access(&format!("{}, {} 503, 101 101", first.addr(), second.addr()));
}

#[test]
fn the_answer_of_the_last_server_is_passed_on_whatever_its_status() {
    let (first, second) = (Upstream::listen(), Upstream::listen());
    let hopgate = of_two(&first, &second, "proxy_next_upstream = ['http_503']");
    let mut client = hopgate.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    for (upstream, body) in [(&first, "first"), (&second, "other")] {
        let mut server = upstream.accept();
        server.head();
        server.send(format!("HTTP/1.1 503 Busy\r\nContent-Length: 5\r\n\r\n{body}"));
    }
    assert_eq!(client.expect_status(503).text(), "other");
}

#[test]
fn a_small_body_goes_to_the_next_server_too_and_a_large_one_does_not() {
    let (small, large) = ("x".repeat(5_000), "x".repeat(50_000));
    for (body, is_kept) in [(small, true), (large, false)] {
        let (first, second) = (Upstream::listen(), Upstream::listen());
        let hopgate = of_two(&first, &second, "proxy_next_upstream = ['http_500', 'non_idempotent']");
        let mut client = hopgate.connect();
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
        let mut server = first.accept();
        server.expect_head("POST / HTTP/1.1", &[]);
        server.expect(&body);
        server.send("HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno");
        if is_kept {
            let mut server = second.accept();
            server.expect_head("POST / HTTP/1.1", &[&format!("Content-Length: {}", body.len())]);
            server.expect(&body);
            server.respond("yes");
            assert_eq!(client.expect_status(200).text(), "yes");
        } else {
            assert_eq!(client.expect_status(500).text(), "no");
            second.expect_no_connection(&hopgate);
        }
        // What comes behind the body is the next request.
        client.send("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n");
        client.expect_status(405);
    }
}

#[test]
fn a_body_that_has_not_come_yet_is_no_hindrance() {
    let (first, second) = (Upstream::listen(), Upstream::listen());
    let hopgate = of_two(&first, &second, "proxy_next_upstream = ['http_503']");
    let mut client = hopgate.connect();
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 50000\r\n\r\n");
    let mut server = first.accept();
    server.expect_head("PUT / HTTP/1.1", &["Expect: 100-continue"]);
    server.send("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n");
    let mut server = second.accept();
    server.expect_head("PUT / HTTP/1.1", &["Expect: 100-continue"]);
    server.send("HTTP/1.1 100 Continue\r\n\r\n");
    client.expect_status(100);
    client.send("x".repeat(50_000));
    server.read(50_000);
    server.respond("");
    client.expect_status(200);
}

#[test]
fn a_server_has_no_more_requests_and_tunnels_than_max_conns() {
    let (small, large) = (Upstream::listen(), Upstream::listen());
    let hopgate = Hopgate::with_group(&format!(
        "server = ['{} max_conns=1', '{} max_conns=2']",
        small.addr(),
        large.addr()
    ));
    let first = open_tunnel(&hopgate, &small);
    let others = (open_tunnel(&hopgate, &large), open_tunnel(&hopgate, &large));
    assert_eq!(hopgate.get("/").0, 502);
    hopgate.wait_for_log("no server of the upstream is left");
    drop(first);
    eventually("there is room again", || {
        let mut client = hopgate.connect();
        client.send(handshake("/tunnel"));
        small.accept_if_any(&hopgate).is_some()
    });
    drop(others);
}

#[test]
fn the_log_parts_the_servers_of_one_location_from_those_of_the_next() {
    let (first, second) = (Upstream::refusing(), Upstream::refusing());
    let page = Upstream::listen();
    let hopgate = Hopgate::start(&format!(
        "workers = 1\nlog_format = {{ t = '$upstream_addr|$upstream_status|$status' }}\naccess_log = 'stdout t'\n\
         [upstream.app]\nserver = ['{}', '{}']\n\
         [[server]]\nlisten = '127.0.0.1:0'\nerror_page = '502 /page'\n\
         [[server.location]]\npath = '/'\nproxy_pass = 'http://app'\n\
         [[server.location]]\npath = '/page'\nproxy_pass = 'http://{}'\n",
        first.addr(),
        second.addr(),
        page.addr(),
    ));
    let mut client = hopgate.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut server = page.accept();
    server.expect_head("GET /page HTTP/1.1", &[]);
    server.respond("sorry");
    assert_eq!(client.expect_status(502).text(), "sorry");
    let (first, second, page) = (first.addr(), second.addr(), page.addr());
    hopgate.wait_for_access(&format!("{first}, {second} : {page}|502, 502 : 200|502"));
    // Both are left alone now: the group itself is named.
    let mut client = hopgate.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    server.expect_head("GET /page HTTP/1.1", &[]);
    server.respond("sorry");
    client.expect_status(502);
    hopgate.wait_for_access(&format!("app : {page}|502 : 200|502"));
}
