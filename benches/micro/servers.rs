//! The choice of a server in groups of 1, 10 and 500.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::hint::black_box;

use criterion::{BenchmarkId, Criterion};
use hopgate::upstream::choice::Choice;
use hopgate::upstream::group::Group;
use tokio::time::Instant;

use crate::site::Site;

/// As many values of a hash's key: enough that no server is everybody's.
const KEYS: usize = 64;

pub fn run(criterion: &mut Criterion) {
    let keys: Vec<Vec<u8>> = (0..KEYS).map(|number| format!("room-{number}").into_bytes()).collect();
    let mut group = criterion.benchmark_group("server");
    for (method, line) in [
        ("round robin", ""),
        ("least_conn", "least_conn = true"),
        ("hash consistent", "hash = \"$arg_room consistent\""),
    ] {
        for count in [1, 10, 500] {
            let servers = Group::new(Site::new(&configuration(line, count)).config.upstreams[0].clone(), &[]);
            let now = Instant::now();
            let choose =
                |key: &[u8]| Choice::new(&servers, key.to_vec(), None).choose(now).map(|lease| lease.index());
            let chosen: Vec<Option<usize>> = keys.iter().map(|key| choose(key)).collect();
            let is_sticky = chosen == keys.iter().map(|key| choose(key)).collect::<Vec<_>>();
            let different = chosen.iter().collect::<HashSet<_>>().len();
            match line.starts_with("hash") {
                true => assert!(is_sticky && !chosen.contains(&None) && (count == 1 || different > 1)),
                false => assert_eq!(different, count.min(KEYS), "{chosen:?}"),
            }
            let mut turns = keys.iter().cycle();
            group.bench_function(BenchmarkId::new(method, count), |bencher| {
                bencher.iter(|| turns.next().map(|key| choose(black_box(key))));
            });
        }
    }
    group.finish();
}

fn configuration(line: &str, count: usize) -> String {
    let mut servers = String::new();
    for number in 0..count {
        // Writing to a String cannot fail.
        let _ = write!(servers, "\"10.0.{}.{}:3000\", ", number / 250, number % 250 + 1);
    }
    format!(
        "[upstream.app]\nserver = [{servers}]\n{line}\n\n\
         [[server]]\n\n[[server.location]]\npath = \"/\"\nproxy_pass = \"http://app\"\n"
    )
}
