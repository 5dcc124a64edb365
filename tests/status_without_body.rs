//! Answers whose status has no body, wherever status and body come from: what stood behind the head would be taken for
//! the next answer.

mod support;

use support::{Hopgate, Upstream};

/// What stands behind such an answer on the same connection.
const NEXT: &str = "GET /next HTTP/1.1\r\nHost: a\r\n\r\n";

fn hopgate(upstream: &Upstream) -> Hopgate {
    let file = "root = 'tests/support'\n";
    let locations = [
        ("/return-204", "return = \"204 'text'\"\n"),
        ("/return-304", "return = { status = 304, text = 'text' }\n"),
        ("/page-204", "error_page = '404 =204 /text'\nreturn = '404'\n"),
        ("/page-304", "error_page = '404 =304 /text'\nreturn = '404'\n"),
        ("/file-204", "error_page = '404 =204 /mod.rs'\nreturn = '404'\n"),
        ("/app-204", "error_page = '404 =204 /app/'\nreturn = '404'\n"),
        ("/app-304", "error_page = '404 =304 /app/'\nreturn = '404'\n"),
        ("/app-404", "error_page = '404 /app/'\nreturn = '404'\n"),
        ("/text", "return = \"200 'text'\"\n"),
        ("/next", "return = \"200 'next'\"\n"),
    ];
    let mut toml = "access_log = 'off'\n[[server]]\nlisten = '127.0.0.1:0'\n".to_owned();
    for (path, lines) in locations {
        toml += &format!("[[server.location]]\npath = '= {path}'\n{lines}");
    }
    let root = env!("CARGO_MANIFEST_DIR");
    toml += &format!(
        "[[server.location]]\npath = '= /mod.rs'\n{}",
        file.replace("tests", &format!("{root}/tests"))
    );
    toml += &format!("[[server.location]]\npath = '/app/'\nproxy_pass = 'http://{}'\n", upstream.addr());
    Hopgate::start(&toml)
}

#[test]
fn answers_of_hopgates_own_end_with_their_head_where_the_status_says_so() {
    let upstream = Upstream::listen();
    let hopgate = hopgate(&upstream);
    for (path, status) in [
        ("/return-204", 204),
        ("/return-304", 304),
        ("/page-204", 204),
        ("/page-304", 304),
        ("/file-204", 204),
    ] {
        let mut client = hopgate.connect();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n{NEXT}"));
        let head = client.expect_status(status).head;
        head.expect_none_of(&["Content-Length", "Transfer-Encoding"]);
        assert_eq!(client.expect_status(200).text(), "next", "{path}");
    }
}

#[test]
fn the_body_of_an_upstream_does_not_go_out_behind_a_status_without_one() {
    let upstream = Upstream::listen();
    let hopgate = hopgate(&upstream);
    let bodies =
        ["Content-Length: 4\r\n\r\nbody", "Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"];
    for (path, status) in [("/app-204", 204), ("/app-304", 304)] {
        for body in bodies {
            let mut client = hopgate.connect();
            client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n{NEXT}"));
            let mut server = upstream.accept();
            server.head();
            server.send(format!("HTTP/1.1 200 OK\r\n{body}"));
            client.expect_status(status).head.expect_none_of(&["Transfer-Encoding"]);
            assert_eq!(client.expect_status(200).text(), "next", "{path} {body}");
            server.expect_closed();
        }
    }
}

#[test]
fn an_error_page_without_a_body_says_so_under_another_status() {
    let upstream = Upstream::listen();
    let hopgate = hopgate(&upstream);
    for answer in [
        "204 No Content\r\n\r\n",
        "304 Not Modified\r\nContent-Length: 7\r\n\r\n",
        "304 Not Modified\r\n\r\n",
    ] {
        let mut client = hopgate.connect();
        client.send(format!("GET /app-404 HTTP/1.1\r\nHost: a\r\n\r\n{NEXT}"));
        let mut server = upstream.accept();
        server.head();
        server.send(format!("HTTP/1.1 {answer}"));
        client.expect_status(404).head.expect(&["Content-Length: 0"]);
        assert_eq!(client.expect_status(200).text(), "next", "{answer}");
    }
}
