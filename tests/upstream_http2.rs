//! Upstreams that are spoken to in HTTP/2: what they are asked, how their answers come through, and what becomes of
//! those that break off.

mod support;

use h2::Reason;
use support::{
    App, Ending, Hopgate, Http2Connection, Http2Settings, Http2Upstream, Noise, Upstream, eventually,
};

/// hopgate in front of an upstream in HTTP/2, with these lines more in the location.
#[track_caller]
fn in_front_of(addr: &str, lines: &str) -> Hopgate {
    Hopgate::start(&format!(
        r#"
        workers = 1
        [[server]]
        listen = "127.0.0.1:0 http2"
        [[server.location]]
        path = "/"
        proxy_pass = "http://{addr}"
        proxy_http_version = "2"
        {lines}
        "#
    ))
}

#[test]
fn a_request_of_http_1_becomes_one_of_http_2() {
    let upstream = Http2Upstream::listen();
    let hopgate = in_front_of(upstream.addr(), "");
    let mut client = hopgate.connect();
    client.send(
        "GET /a%20b/../c?d=e HTTP/1.1\r\nHost: app.test\r\nX-Two: 1\r\nx-two: 2\r\nCookie: a=b; c=d\r\n\
         Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nTE: trailers, gzip\r\nUpgrade: h2c\r\n\r\n",
    );
    let connection = upstream.accept();
    let mut asked = connection.request().expect("GET", "/c?d=e");
    assert_eq!(asked.head.uri().authority().unwrap(), "app.test");
    assert_eq!(asked.head.uri().scheme_str(), Some("http"));
    let fields = asked.head.headers();
    for gone in
        ["host", "connection", "x-hop", "keep-alive", "upgrade", "transfer-encoding", "content-length"]
    {
        assert!(!fields.contains_key(gone), "{gone}: {fields:?}");
    }
    assert_eq!(asked.field("te"), Some("trailers"));
    assert_eq!(asked.field("cookie"), Some("a=b; c=d"));
    assert_eq!(asked.field("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(fields.get_all("x-two").iter().collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!(asked.chunk(), None, "END_STREAM stands with the head");
    let mut answer = asked.answer(
        200,
        &[("content-length", "5"), ("x-answer", "yes"), ("set-cookie", "a=1"), ("set-cookie", "b=2")],
    );
    answer.send_last("hello");
    let response = client.expect_status(200);
    assert_eq!((response.head.start.as_str(), response.text().as_str()), ("HTTP/1.1 200 OK", "hello"));
    response.head.expect(&["Content-Length: 5", "x-answer: yes", "set-cookie: a=1", "set-cookie: b=2"]);
}

#[test]
fn content_goes_both_ways_whatever_its_framing() {
    let upstream = Http2Upstream::listen();
    let hopgate = in_front_of(upstream.addr(), "");
    let mut client = hopgate.connect();
    client.send("POST /length HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    let connection = upstream.accept();
    let mut asked = connection.request().expect("POST", "/length");
    assert_eq!(asked.field("content-length"), Some("5"));
    assert_eq!(asked.body(), b"hello");
    // Without a length of the answer there are chunks.
    let mut answer = asked.answer(200, &[]);
    answer.send("one");
    answer.send_last("two");
    assert_eq!(client.expect_status(200).text(), "onetwo");

    client.send("PUT /chunks HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n");
    let mut asked = connection.request().expect("PUT", "/chunks");
    assert_eq!(asked.field("content-length"), None);
    assert_eq!(asked.chunk().unwrap(), "one");
    client.send("3\r\ntwo\r\n0\r\n\r\n");
    assert_eq!(asked.body(), b"two");
    asked.respond("");
    client.expect_status(200);
    assert!(upstream.accept_if_any().is_none(), "both went over one connection");
}

#[test]
fn answers_without_content_are_whole() {
    let upstream = Http2Upstream::listen();
    let hopgate = in_front_of(upstream.addr(), "");
    let mut client = hopgate.connect();
    client.send("HEAD /head HTTP/1.1\r\nHost: a\r\n\r\n");
    let connection = upstream.accept();
    connection.request().expect("HEAD", "/head").answer_whole(200, &[("content-length", "99")]);
    client.head().expect(&["content-length: 99"]);
    for (status, fields) in
        [(204, &[][..]), (304, &[("etag", "\"a\"")]), (200, &[]), (500, &[("content-length", "0")])]
    {
        client.send("GET /get HTTP/1.1\r\nHost: a\r\n\r\n");
        connection.request().expect("GET", "/get").answer_whole(status, fields);
        let response = client.expect_status(status);
        assert!(response.body.is_empty());
        let length = if matches!(status, 204 | 304) { None } else { Some("0") };
        assert_eq!(response.head.field("content-length"), length, "{status}");
    }
}

#[test]
fn trailers_go_both_ways() {
    let upstream = Http2Upstream::listen();
    let hopgate = in_front_of(upstream.addr(), "proxy_pass_trailers = true");
    let mut client = hopgate.connect();
    client.send(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 1\r\n\r\n",
    );
    let mut asked = upstream.accept().request();
    assert_eq!(asked.body(), b"hi");
    assert_eq!(asked.trailers().unwrap()["x-sum"], "1");
    let mut answer = asked.answer(200, &[("content-type", "application/grpc")]);
    answer.send("content");
    answer.trailers(&[("grpc-status", "0"), ("grpc-message", "fine")]);
    let response = client.expect_status(200);
    assert_eq!(response.text(), "content");
    let fields: Vec<_> =
        response.trailers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(fields, [("grpc-status", "0"), ("grpc-message", "fine")]);
}

#[test]
fn interim_answers_come_through() {
    let upstream = Http2Upstream::listen();
    let hopgate = in_front_of(upstream.addr(), "");
    let mut client = hopgate.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    let mut asked = upstream.accept().request();
    assert_eq!(asked.field("expect"), Some("100-continue"));
    asked.inform(103, &[("link", "</a.css>")]);
    client.expect_head("HTTP/1.1 103 Early Hints", &["link: </a.css>"]);
    asked.inform(100, &[]);
    client.expect_head("HTTP/1.1 100 Continue", &[]);
    client.send("hi");
    assert_eq!(asked.body(), b"hi");
    asked.respond("after all");
    assert_eq!(client.expect_status(200).text(), "after all");
}

#[test]
fn an_answer_that_comes_before_the_request_has_ended_is_one() {
    let upstream = Http2Upstream::listen();
    let hopgate = in_front_of(upstream.addr(), "");
    let mut client = hopgate.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello");
    let mut asked = upstream.accept().request();
    assert_eq!(asked.chunk().unwrap(), "hello");
    asked.answer_whole(413, &[]);
    client.expect_status(413);
}

#[test]
fn a_stream_that_is_reset_before_its_answer_is_a_502_and_one_within_it_breaks_off() {
    let upstream = Http2Upstream::listen();
    let hopgate = in_front_of(upstream.addr(), "");
    let mut client = hopgate.connect();
    client.send("GET /before HTTP/1.1\r\nHost: a\r\n\r\n");
    let connection = upstream.accept();
    connection.request().expect("GET", "/before").reset(Reason::INTERNAL_ERROR);
    client.expect_status(502);
    hopgate.wait_for_log("unexpected internal error encountered");

    for fields in [&[][..], &[("content-length", "100")]] {
        let mut client = hopgate.connect();
        client.send("GET /within HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut answer = connection.request().expect("GET", "/within").answer(200, fields);
        answer.send("half");
        client.head();
        if fields.is_empty() {
            client.expect_chunked("half");
        } else {
            client.expect("half");
        }
        answer.reset(Reason::CANCEL);
        let (rest, ending) = client.read_to_end();
        assert_eq!((rest.len(), ending), (0, Ending::Reset));
    }
}

#[test]
fn a_connection_that_ends_within_an_answer_breaks_it_off() {
    let upstream = Http2Upstream::listen();
    let hopgate = in_front_of(upstream.addr(), "");
    let mut client = hopgate.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let connection = upstream.accept();
    let mut answer = connection.request().answer(200, &[]);
    answer.send("half");
    client.head();
    client.expect_chunked("half");
    connection.cut();
    let (rest, ending) = client.read_to_end();
    assert_eq!((rest.len(), ending), (0, Ending::Reset));
}

#[test]
fn a_client_that_goes_away_takes_its_stream_with_it_and_no_other() {
    let upstream = Http2Upstream::listen();
    let hopgate = in_front_of(upstream.addr(), "");
    let (mut gone, mut client) = (hopgate.connect(), hopgate.connect());
    gone.send("GET /gone HTTP/1.1\r\nHost: a\r\n\r\n");
    let connection = upstream.accept();
    let mut asked = connection.request().expect("GET", "/gone");
    client.send("GET /stays HTTP/1.1\r\nHost: a\r\n\r\n");
    let stays = connection.request().expect("GET", "/stays");
    gone.reset();
    asked.expect_reset(Reason::CANCEL);
    stays.respond("still there");
    assert_eq!(client.expect_status(200).text(), "still there");
}

#[test]
fn a_body_that_breaks_off_is_not_taken_for_a_whole_one() {
    let upstream = Http2Upstream::listen();
    let hopgate = in_front_of(upstream.addr(), "");
    let mut connection = None;
    for framing in ["Content-Length: 10", "Transfer-Encoding: chunked"] {
        let mut client = hopgate.connect();
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n5\r\nhello\r\n"));
        let mut asked = connection.get_or_insert_with(|| upstream.accept()).request();
        asked.chunk().unwrap();
        client.reset();
        asked.expect_reset(Reason::CANCEL);
    }
}

#[test]
fn requests_share_a_connection_up_to_what_the_upstream_allows_for() {
    let upstream = Http2Upstream::with(Http2Settings { max_streams: Some(2), ..Http2Settings::default() });
    let hopgate = in_front_of(upstream.addr(), "");
    let mut clients: Vec<_> = (0..5).map(|_| hopgate.connect()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    let connections: Vec<_> = (0..3).map(|_| upstream.accept()).collect();
    let mut asked = Vec::new();
    eventually("all have asked", || {
        asked.extend(connections.iter().filter_map(|connection| connection.request_if_any()));
        asked.len() == 5
    });
    for asked in asked {
        asked.respond("yes");
    }
    for client in &mut clients {
        client.expect_status(200);
    }
    assert!(upstream.accept_if_any().is_none());
}

#[test]
fn a_refused_stream_is_asked_for_again_on_a_new_connection_whatever_it_does() {
    let upstream = Http2Upstream::listen();
    let hopgate = in_front_of(upstream.addr(), "");
    let mut client = hopgate.connect();
    client.send("POST /once HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    let busy = upstream.accept();
    let mut refused = busy.request().expect("POST", "/once");
    assert_eq!(refused.body(), b"hello");
    refused.reset(Reason::REFUSED_STREAM);
    let mut asked = upstream.accept().request().expect("POST", "/once");
    assert_eq!(asked.body(), b"hello");
    asked.respond("done");
    assert_eq!(client.expect_status(200).text(), "done");
}

#[test]
fn a_stream_that_is_refused_twice_is_a_502() {
    let upstream = Http2Upstream::listen();
    let hopgate = in_front_of(upstream.addr(), "");
    let mut client = hopgate.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let connections = [(); 2].map(|()| {
        let connection = upstream.accept();
        connection.request().reset(Reason::REFUSED_STREAM);
        connection
    });
    client.expect_status(502);
    assert!(connections.iter().all(|connection| connection.request_if_any().is_none()));
    hopgate.wait_for_log("refused stream");
}

#[test]
fn a_stream_that_may_have_been_looked_at_is_not_asked_for_again() {
    let upstream = Http2Upstream::listen();
    let hopgate = in_front_of(upstream.addr(), "");
    let mut client = hopgate.connect();
    client.send("POST /once HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    let connection = upstream.accept();
    let mut asked = connection.request().expect("POST", "/once");
    assert_eq!(asked.body(), b"hello");
    connection.cut();
    client.expect_status(502);
    assert!(upstream.accept_if_any().is_none());
}

#[test]
fn a_goaway_lets_what_was_begun_end_and_sends_the_next_request_elsewhere() {
    let upstream = Http2Upstream::listen();
    let hopgate = in_front_of(upstream.addr(), "");
    let (mut first, mut second) = (hopgate.connect(), hopgate.connect());
    first.send("GET /first HTTP/1.1\r\nHost: a\r\n\r\n");
    let leaving = upstream.accept();
    let mut answer = leaving.request().expect("GET", "/first").answer(200, &[]);
    answer.send("half ");
    first.head();
    first.expect_chunked("half ");
    leaving.leave();
    // Once the upstream has heard that hopgate knows (RFC 9113 §6.8), it takes nothing more on this connection.
    let mut asked = None;
    second.send("GET /second HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the request has arrived somewhere", || {
        asked = leaving.request_if_any().or_else(|| upstream.accept_if_any().map(|c| c.request()));
        asked.is_some()
    });
    asked.unwrap().expect("GET", "/second").respond("two");
    assert_eq!(second.expect_status(200).text(), "two");
    answer.send_last("whole");
    first.expect_chunked("whole");
    assert_eq!(first.chunk(), None);
    leaving.expect_end();
}

#[test]
fn the_keepalive_of_the_group_is_kept_to() {
    let upstream = Http2Upstream::listen();
    let hopgate = Hopgate::start(&format!(
        r#"
        workers = 1
        [upstream.twice]
        server = "{0}"
        keepalive_requests = 2
        [upstream.none]
        server = "{0}"
        keepalive = 0
        [upstream.short]
        server = "{0}"
        keepalive_timeout = "1s"
        [[server]]
        listen = "127.0.0.1:0"
        proxy_http_version = "2"
        location = [
            {{ path = "/twice", proxy_pass = "http://twice" }},
            {{ path = "/none", proxy_pass = "http://none" }},
            {{ path = "/short", proxy_pass = "http://short" }},
        ]
        "#,
        upstream.addr()
    ));
    let mut client = hopgate.connect();
    let mut ask = |path: &str| client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
    let answer = |connection: &Http2Connection| connection.request().respond("yes");
    ask("/twice");
    let connection = upstream.accept();
    answer(&connection);
    ask("/twice");
    answer(&connection);
    connection.expect_end();
    for path in ["/twice", "/none", "/none", "/short"] {
        ask(path);
        let connection = upstream.accept();
        answer(&connection);
        // The first is open for another request.
        if path != "/twice" {
            connection.expect_end();
        }
    }
    for _ in 0..6 {
        client.expect_status(200);
    }
}

#[test]
fn a_client_that_takes_nothing_stalls_its_stream_and_no_other() {
    let upstream = Http2Upstream::listen();
    let hopgate = in_front_of(upstream.addr(), "");
    let mut slow = hopgate.connect().with_small_buffers();
    slow.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    let connection = upstream.accept();
    let mut answer = connection.request().expect("GET", "/slow").answer(200, &[]);
    let ahead = answer.send_until_stalled();
    assert!(ahead < 8 << 20, "{ahead} bytes of a body that nobody takes");

    let mut client = hopgate.connect();
    client.send("GET /quick HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut quick = connection.request().expect("GET", "/quick").answer(200, &[]);
    let large = "x".repeat(1 << 20);
    quick.send_last(&large);
    assert_eq!(client.expect_status(200).body.len(), large.len());

    // The rest comes as soon as the slow one takes it.
    answer.send_last("the end");
    let response = slow.expect_status(200);
    assert_eq!(response.body.len(), ahead + "the end".len());
    assert!(response.body.ends_with(b"the end"));
}

#[test]
fn an_upstream_that_takes_nothing_stalls_the_client() {
    let upstream = Http2Upstream::with(Http2Settings { window: Some(100_000), ..Http2Settings::default() });
    let hopgate = in_front_of(upstream.addr(), "");
    let mut client = hopgate.connect().with_small_buffers();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n");
    let connection = upstream.accept();
    let mut asked = connection.request();
    let mut noise = Noise::seeded(7);
    let ahead = client.send_until_stalled(&mut noise);
    assert!(ahead < 8 << 20, "{ahead} bytes of a body that nobody takes");
    let mut taken = 0;
    while taken < ahead {
        taken += asked.chunk().unwrap().len();
    }
    client.reset();
    asked.expect_reset(Reason::CANCEL);
}

#[test]
fn an_upstream_that_is_silent_is_a_504_and_its_stream_is_reset() {
    let upstream = Http2Upstream::listen();
    let hopgate = in_front_of(upstream.addr(), "proxy_read_timeout = \"2s\"");
    let mut client = hopgate.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let connection = upstream.accept();
    let mut asked = connection.request();
    client.expect_status(504);
    asked.expect_reset(Reason::CANCEL);
    hopgate.wait_for_log("`proxy_read_timeout`");
    // Nothing was heard of the connection for as long: the network may have lost it.
    client.send("GET /next HTTP/1.1\r\nHost: a\r\n\r\n");
    upstream.accept().request().expect("GET", "/next").respond("yes");
    client.expect_status(200);
}

#[test]
fn who_does_not_speak_http_2_is_a_502_that_says_so() {
    let upstream = Upstream::listen();
    let hopgate = in_front_of(upstream.addr(), "proxy_connect_timeout = \"1s\"");
    let wrong: [(&str, &str); 4] = [
        ("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", "it answers in HTTP/1"),
        ("SSH-2.0-OpenSSH_9.2\r\n", "no SETTINGS frame"),
        ("", "it closes the connection before it has said anything"),
        ("\0\0", "it closes the connection before it has said anything"),
    ];
    for (answer, what) in wrong {
        let mut client = hopgate.connect();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut server = upstream.accept();
        server.expect("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        server.send(answer);
        server.finish();
        client.expect_status(502);
        let log = hopgate.wait_for_log(what);
        assert!(log.contains("does not speak HTTP/2, as `proxy_http_version` says"), "{log}");
    }
    let mut client = hopgate.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let _silent = upstream.accept();
    client.expect_status(502);
    hopgate.wait_for_log("no SETTINGS within `proxy_connect_timeout`");
}

#[test]
fn another_server_of_the_group_is_tried_if_one_does_not_speak_http_2() {
    let (wrong, right) = (App::named("wrong"), Http2Upstream::listen());
    let hopgate = Hopgate::start(&format!(
        r#"
        workers = 1
        [upstream.app]
        server = ["{}", "{}"]
        [[server]]
        listen = "127.0.0.1:0"
        location = [{{ path = "/", proxy_pass = "http://app", proxy_http_version = "2" }}]
        "#,
        wrong.addr(),
        right.addr()
    ));
    let mut client = hopgate.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
    let mut asked = right.accept().request();
    assert_eq!(asked.body(), b"hi");
    asked.respond("right");
    assert_eq!(client.expect_status(200).text(), "right");
}

#[test]
fn a_drain_ends_what_is_idle_and_waits_for_what_is_not() {
    let upstream = Http2Upstream::listen();
    let mut hopgate = in_front_of(upstream.addr(), "");
    let mut client = hopgate.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let connection = upstream.accept();
    let mut answer = connection.request().answer(200, &[]);
    answer.send("half ");
    client.head();
    client.expect_chunked("half ");
    hopgate.signal("TERM");
    hopgate.wait_for_log("draining");
    answer.send_last("whole");
    client.expect_chunked("whole");
    assert_eq!(client.chunk(), None);
    connection.expect_end();
    assert!(hopgate.wait_exit().success());
}
