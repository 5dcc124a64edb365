//! Texts with variables in them, and the access line.

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::Duration;

use criterion::Criterion;
use hopgate::config::UpstreamAddress;
use hopgate::log::{AccessLines, LogWriter};
use hopgate::routing::course::Course;
use hopgate::routing::outcome::{Asked, Outcome, UpstreamOutcome};
use hopgate::routing::values::verbatim;
use tokio::runtime::{Builder, LocalOptions};

use crate::site::{BROWSER, OnItsWay, Site};

const CONFIGURATION: &str = r#"
access_log = ["/dev/null combined", "/dev/null json"]

[[server]]

[[server.location]]
path = "/"
proxy_pass = "http://127.0.0.1:3000"

[server.location.proxy_set_header]
X-Short = "$host$request_uri"
X-Long = "$scheme://$host$uri$is_args$args client=$remote_addr:$remote_port session=$cookie_session page=$arg_page agent=\"$http_user_agent\" server=$server_addr:$server_port connection=$connection/$connection_requests at=$time_iso8601"
"#;

pub fn run(criterion: &mut Criterion) {
    let site = Site::new(CONFIGURATION);
    let request = OnItsWay { outcome: answered(), ..site.request(BROWSER) };
    let mut course = Course::default();
    let place = request.route(&mut course).location;
    let router = request.router();
    let values = router.values(&course, place);
    let location = &site.server().locations[place];

    let mut group = criterion.benchmark_group("variables");
    for ((name, template), written) in location
        .set_headers
        .iter()
        .zip(["www.example.com/app/list?", "http://www.example.com/app/list?page=2&"])
    {
        let mut out = Vec::new();
        template.write(&mut out, &values, verbatim);
        assert!(out.starts_with(written.as_bytes()), "{}", String::from_utf8_lossy(&out));
        let name = name.as_str().trim_start_matches("X-").to_lowercase();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                out.clear();
                template.write(&mut out, black_box(&values), verbatim);
            });
        });
    }
    group.finish();

    let runtime = Builder::new_current_thread().enable_time().build_local(LocalOptions::default());
    let runtime = runtime.expect("a runtime");
    let mut group = criterion.benchmark_group("access line");
    for (log, name) in location.access_logs.iter().zip(["combined", "json"]) {
        let mut line = Vec::new();
        log.format.template.write(&mut line, &values, verbatim);
        assert!(String::from_utf8_lossy(&line).contains("Mozilla/5.0"));
        let lines = AccessLines::new(LogWriter::start().expect("a thread"));
        group.bench_function(name, |bencher| {
            // In a worker, as its lines are: the first of a batch starts a task that hands it over.
            runtime.block_on(async { bencher.iter(|| lines.request(log, black_box(&values))) });
        });
    }
    group.finish();
}

/// What became of a request that was answered by an upstream.
fn answered() -> Outcome {
    let server = UpstreamAddress::Ip(SocketAddr::from(([127, 0, 0, 1], 3000)));
    let upstream = UpstreamOutcome {
        status: 200,
        connect: Some(Duration::ZERO),
        header: Some(Duration::from_millis(12)),
        response: Some(Duration::from_millis(13)),
        length: 5120,
        ..UpstreamOutcome::of(Asked::Server(server))
    };
    let mut outcome = Outcome { status: 200, upstreams: vec![upstream], ..Outcome::default() };
    outcome.late.duration = Duration::from_millis(13);
    outcome.late.head_received = BROWSER.len() as u64;
    outcome.late.sent = 5420;
    outcome.late.body_sent = 5120;
    outcome
}
