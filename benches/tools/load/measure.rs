//! What is told of a load: how much was done, in what time, and at what cost to the proxy.

use std::fs;
use std::io;
use std::thread::sleep;
use std::time::Duration;

/// What a load came to.
#[derive(Default)]
pub struct Figures {
    /// How often the work was done.
    pub operations: usize,
    /// In all.
    pub took: Duration,
    /// How long each operation took, in tenths of a microsecond.
    each: Vec<u32>,
}

impl Figures {
    /// One operation more.
    pub fn one(&mut self, took: Duration) {
        self.operations += 1;
        self.each.push((took.as_nanos() / 100) as u32);
    }
}

/// Measures what a load costs a process, from rest to rest, and prints it.
pub fn during(pid: u32, load: impl FnOnce(&mut Figures) -> io::Result<()>) -> io::Result<()> {
    let mut figures = Figures::default();
    settle();
    let before = cpu_time(pid)?;
    load(&mut figures)?;
    settle();
    let cpu = cpu_time(pid)? - before;
    figures.each.sort_unstable();
    let p99 = figures.each.get(figures.each.len() * 99 / 100).map(|tenths| f64::from(*tenths) / 10.0);
    let told = serde_json::json!({
        "operations": figures.operations,
        "seconds": figures.took.as_secs_f64(),
        "cpu_us": cpu.as_nanos() as f64 / 1000.0,
        "p99_us": p99,
    });
    println!("{told}");
    Ok(())
}

/// Lets the proxy finish what it has begun: the system counts its time up when it goes to sleep.
pub fn settle() {
    sleep(Duration::from_millis(20));
}

/// User and system time of all threads, in nanoseconds where /proc/PID/stat has hundredths of a second.
fn cpu_time(pid: u32) -> io::Result<Duration> {
    let mut nanoseconds = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let told = fs::read_to_string(task?.path().join("schedstat"))?;
        let first = told.split(' ').next().unwrap_or_default();
        nanoseconds += first.parse::<u64>().map_err(io::Error::other)?;
    }
    Ok(Duration::from_nanos(nanoseconds))
}
