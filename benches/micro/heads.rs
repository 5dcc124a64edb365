//! Heads: read, checked, freed of what is for one hop only, and written.

use std::hint::black_box;

use criterion::{BatchSize, Criterion};
use hopgate::headers::hop_by_hop;
use hopgate::headers::outgoing::{self, Connection, ResponseFraming};
use hopgate::http1::head::{self, Progress, ResponseHead, Version};
use hopgate::request::Addressed;
use hopgate::routing::course::Course;
use hopgate::websocket;

use crate::site::{BROWSER, SMALL, Site};

const REQUESTS: [(&str, &str); 2] = [("small", SMALL), ("browser", BROWSER)];

const RESPONSE: &str = "HTTP/1.1 200 OK\r\n\
    Server: gunicorn\r\n\
    Date: Sat, 21 Nov 2026 06:35:51 GMT\r\n\
    Connection: keep-alive\r\n\
    Content-Type: text/html; charset=utf-8\r\n\
    Content-Length: 1024\r\n\
    Vary: Accept-Encoding, Cookie\r\n\
    ETag: \"33a64df551425fcc55e4d42a148795d9f25f89d4\"\r\n\
    Cache-Control: private, max-age=0, must-revalidate\r\n\
    X-Frame-Options: DENY\r\n\
    X-Content-Type-Options: nosniff\r\n\
    Set-Cookie: session=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9; Path=/; HttpOnly; SameSite=Lax\r\n\
    Strict-Transport-Security: max-age=31536000\r\n\r\n";

const PLAIN: &str = r#"
[[server]]

[[server.location]]
path = "/"
proxy_pass = "http://127.0.0.1:3000"
"#;

/// With the lines that most configurations for nginx have.
const WITH_FIELDS: &str = r#"
[[server]]

[[server.location]]
path = "/"
proxy_pass = "http://127.0.0.1:3000"
proxy_set_header = { Host = "$host", X-Real-IP = "$remote_addr", X-Forwarded-For = "$proxy_add_x_forwarded_for", X-Forwarded-Proto = "$scheme", X-Request-ID = "$request_id" }
"#;

pub fn run(criterion: &mut Criterion) {
    read(criterion);
    strip(criterion);
    write(criterion);
    accept(criterion);
}

fn read(criterion: &mut Criterion) {
    let site = Site::new(PLAIN);
    let limits = site.limits();
    let mut group = criterion.benchmark_group("read");
    for (name, text) in REQUESTS {
        // Every line but the first and the empty one.
        assert_eq!(site.head(text).fields.len(), text.matches("\r\n").count() - 2);
        group.bench_function(format!("request/{name}"), |bencher| {
            bencher.iter(|| head::request(black_box(text).as_bytes(), 0, limits));
        });
        group.bench_function(format!("check/{name}"), |bencher| {
            let check = |head| Addressed::new(head).ok()?.check(site.server()).ok();
            assert!(check(site.head(text)).is_some());
            bencher.iter_batched(|| site.head(text), check, BatchSize::SmallInput);
        });
    }
    response();
    group.bench_function("response", |bencher| {
        bencher.iter(|| head::response(black_box(RESPONSE).as_bytes(), 0, limits));
    });
    group.finish();
}

fn strip(criterion: &mut Criterion) {
    let site = Site::new(PLAIN);
    let mut group = criterion.benchmark_group("strip");
    // `Connection` and `TE` go.
    for ((name, text), gone) in REQUESTS.into_iter().zip([0, 2]) {
        let fields = site.head(text).fields;
        assert_eq!(hop_by_hop::strip(&fields).iter().count(), fields.len() - gone);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                hop_by_hop::strip(black_box(&fields)).iter().map(|field| field.name.len()).sum::<usize>()
            });
        });
    }
    group.finish();
}

fn write(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("write");
    for (rules, configuration) in [("", PLAIN), ("/proxy_set_header", WITH_FIELDS)] {
        let site = Site::new(configuration);
        for (name, text) in REQUESTS {
            let request = site.request(text);
            let mut course = Course::default();
            let place = request.route(&mut course).location;
            let location = &site.server().locations[place];
            let router = request.router();
            let write = |out: &mut Vec<u8>| {
                let values = router.values(&course, place);
                outgoing::request(out, location, &request.request, &values, b"GET", None)
            };
            let mut out = Vec::new();
            write(&mut out).unwrap_or_else(|error| panic!("{error}"));
            let written = String::from_utf8_lossy(&out);
            assert!(written.starts_with("GET /app/list?page=2"), "{written}");
            assert!(written.contains("\r\nX-Forwarded-For: 192.0.2.60\r\n"), "{written}");
            assert_eq!(written.contains("\r\nX-Request-ID: "), configuration == WITH_FIELDS, "{written}");
            group.bench_function(format!("request/{name}{rules}"), |bencher| {
                bencher.iter(|| {
                    out.clear();
                    let _ = write(black_box(&mut out));
                });
            });
        }
    }
    let response = response();
    let mut out = Vec::new();
    group.bench_function("response", |bencher| {
        bencher.iter(|| {
            out.clear();
            let connection = Connection::of(Version::Http11, true);
            outgoing::response(&mut out, 200, &response, None, ResponseFraming::AsTold, connection);
        });
    });
    assert!(out.is_empty() || out.starts_with(b"HTTP/1.1 200 OK\r\n"));
    group.finish();
}

fn accept(criterion: &mut Criterion) {
    // The example of RFC 6455 §1.3.
    let key = b"dGhlIHNhbXBsZSBub25jZQ==";
    assert_eq!(websocket::accept(key), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    criterion
        .bench_function("websocket/accept", |bencher| bencher.iter(|| websocket::accept(black_box(key))));
}

fn response() -> ResponseHead {
    let limits = Site::new(PLAIN).limits();
    match head::response(RESPONSE.as_bytes(), 0, limits) {
        Ok(Progress::Whole(head, taken)) if taken == RESPONSE.len() => head,
        other => panic!("{other:?}"),
    }
}
