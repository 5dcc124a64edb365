//! Micro-benchmarks of what every request passes through: the real functions, with configurations that the real reader
//! has read. `cargo bench --bench micro`, and behind ` -- ` a part of a name; docs/performance.md says what came out.

mod heads;
mod lines;
mod locations;
mod servers;
mod site;

use std::time::Duration;

use criterion::Criterion;

fn main() {
    // These are short and steady: criterion's usual eight seconds for each would make minutes of it.
    let (warm_up, measured) = (Duration::from_millis(300), Duration::from_secs(2));
    let criterion = Criterion::default().warm_up_time(warm_up).measurement_time(measured);
    let mut criterion = criterion.configure_from_args();
    locations::run(&mut criterion);
    heads::run(&mut criterion);
    lines::run(&mut criterion);
    servers::run(&mut criterion);
    criterion.final_summary();
}
