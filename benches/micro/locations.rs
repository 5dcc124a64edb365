//! The search of a location among 1, 50 and 1,000 of them, as every request begins with.

use std::fmt::Write as _;
use std::hint::black_box;

use criterion::{BenchmarkId, Criterion};
use hopgate::routing::course::Course;
use hopgate::routing::route::Verdict;

use crate::site::Site;

/// Each costs a match for every request that no expression before it has taken.
const EXPRESSIONS: usize = 10;

pub fn run(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("location");
    for count in [1, 50, 1000] {
        let last = count - 1;
        for (kind, expressions, target, expected) in [
            ("exact", 0, format!("/exact{last}"), format!("= /exact{last}")),
            ("prefix", 0, format!("/prefix{last}/list?page=2"), format!("/prefix{last}/")),
            (
                "expression",
                EXPRESSIONS,
                format!("/prefix{last}/photo.kind{}", EXPRESSIONS - 1),
                format!(r"~ \.kind{}$", EXPRESSIONS - 1),
            ),
        ] {
            let site = Site::new(&configuration(kind, count, expressions));
            let text = format!("GET {target} HTTP/1.1\r\nHost: www.example.com\r\n\r\n");
            let request = site.request(&text);
            let found = request.route(&mut Course::default());
            assert_eq!(found.verdict, Verdict::Content);
            assert_eq!(site.server().locations[found.location].matcher.to_string(), expected);
            group.bench_function(BenchmarkId::new(kind, count), |bencher| {
                bencher.iter(|| black_box(&request).route(&mut Course::default()).location);
            });
        }
    }
    group.finish();
}

/// So many locations of a kind, beside the root.
fn configuration(kind: &str, count: usize, expressions: usize) -> String {
    let mut text = String::from("[[server]]\n");
    let mut add = |path: &str| {
        let location = "proxy_pass = \"http://127.0.0.1:3000\"";
        // Writing to a String cannot fail.
        let _ = write!(text, "\n[[server.location]]\npath = '{path}'\n{location}\n");
    };
    add("/");
    for number in 0..count {
        match kind {
            "exact" => add(&format!("= /exact{number}")),
            _ => add(&format!("/prefix{number}/")),
        }
    }
    for number in 0..expressions {
        add(&format!(r"~ \.kind{number}$"));
    }
    text
}
