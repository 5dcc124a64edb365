//! The units in `config/` and `examples/` as `systemd-analyze` sees them, and the sockets as the example wants them.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use hopgate::config::Config;
use support::Dir;

/// The first that knows `Type=notify-reload`.
const NOTIFY_RELOAD: u32 = 253;

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[track_caller]
fn read(path: &str) -> String {
    fs::read_to_string(root(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Whether it succeeds, and what it says.
#[track_caller]
fn systemd_analyze(args: &[&str]) -> (bool, String) {
    let output = Command::new("systemd-analyze").args(args).output().unwrap_or_else(|error| {
        panic!("this test needs systemd-analyze ({error}): run tests/run, which installs what is missing")
    });
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

fn version() -> u32 {
    let (_, text) = systemd_analyze(&["--version"]);
    let version = text.split_whitespace().nth(1).and_then(|version| version.parse().ok());
    version.unwrap_or_else(|| panic!("no version in {text}"))
}

/// A directory with these units: with programs that are there, and, where systemd is too old for the type of the
/// service, with what the unit itself says to write then.
fn units(paths: &[&str]) -> Dir {
    let dir = Dir::new();
    for path in paths {
        let mut unit = read(path)
            .replace("=hopgate ", concat!("=", env!("CARGO_BIN_EXE_hopgate"), " "))
            .replace("=node ", "=/bin/true ");
        if version() < NOTIFY_RELOAD {
            unit =
                unit.replace("\nType=notify-reload\n", "\nType=notify\nExecReload=/bin/kill -HUP $MAINPID\n");
        }
        let name = Path::new(path).file_name().expect("a file");
        fs::write(dir.join(&name.to_string_lossy()), unit).expect("the unit can be written");
    }
    dir
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    let dir =
        units(&["config/hopgate.service", "config/hopgate.socket", "examples/systemd-node/app.service"]);
    for unit in ["hopgate.service", "hopgate.socket", "app.service"] {
        let (is_right, said) = systemd_analyze(&["verify", "--man=no", &dir.path(unit)]);
        assert!(is_right && said.is_empty(), "{unit}: {said}");
    }
    // Were it not looked at, it would be right as well.
    let wrong = read("config/hopgate.service").replace("WatchdogSec=", "WatchdogSeconds=");
    fs::write(dir.join("wrong.service"), wrong).expect("the unit can be written");
    let (_, said) = systemd_analyze(&["verify", "--man=no", &dir.path("wrong.service")]);
    assert!(said.contains("WatchdogSeconds"), "{said}");
}

#[test]
fn the_sandbox_of_the_service_leaves_little_exposed() {
    let dir = units(&["config/hopgate.service"]);
    let (_, said) =
        systemd_analyze(&["security", "--offline=true", "--no-pager", &dir.path("hopgate.service")]);
    let level = said.split("Overall exposure level for hopgate.service: ").nth(1);
    let level: Option<f32> = level.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    assert!(level.is_some_and(|level| level < 1.5), "{said}");
}

#[test]
fn the_service_has_one_capability_and_says_when_it_is_ready() {
    let unit = read("config/hopgate.service");
    let values = |key: &str| -> Vec<&str> {
        unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
    };
    assert_eq!(values("Type"), ["notify-reload"]);
    assert_eq!(values("AmbientCapabilities"), ["CAP_NET_BIND_SERVICE"]);
    assert_eq!(values("CapabilityBoundingSet"), ["CAP_NET_BIND_SERVICE"]);
    // Where `store` of `[acme]` is by default.
    assert_eq!(values("StateDirectory"), ["hopgate"]);
}

#[test]
fn the_sockets_are_those_that_the_example_listens_on() {
    let unit = read("config/hopgate.socket");
    let opened: BTreeSet<String> =
        unit.lines().filter_map(|line| line.strip_prefix("ListenStream=")).map(str::to_owned).collect();
    let config = Config::load(&root("examples/systemd-node/hopgate.toml")).expect("the example is right");
    let listened: BTreeSet<String> =
        config.listeners.iter().map(|listener| listener.address.to_string()).collect();
    assert_eq!(opened, listened);
    assert!(
        unit.contains("\nBindIPv6Only=ipv6-only\n"),
        "a socket for both versions of IP is refused:\n{unit}"
    );
}
