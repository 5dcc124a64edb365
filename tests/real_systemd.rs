//! The service under a real systemd, as config/hopgate.service has it: its sandbox, reload, restart and watchdog.

mod support;

use std::process::Stdio;

use support::{Machine, eventually};

const CONFIG: &str = "/etc/hopgate/hopgate.toml";

/// A configuration that answers with a word.
fn saying(word: &str, listen: &str) -> String {
    format!("[[server]]\nlisten = '{listen}'\nreturn = '200 {word}'\n")
}

/// A machine with hopgate and its units in it.
fn machine(config: &str) -> Machine {
    let machine = Machine::with_systemd();
    machine.put(env!("CARGO_BIN_EXE_hopgate"), "/usr/bin/hopgate");
    for unit in ["hopgate.service", "hopgate.socket"] {
        let file = format!("{}/config/{unit}", env!("CARGO_MANIFEST_DIR"));
        machine.put(&file, &format!("/etc/systemd/system/{unit}"));
    }
    machine.write(CONFIG, config);
    machine.expect(&["systemctl", "daemon-reload"]);
    machine
}

/// A property of the service.
fn property(machine: &Machine, name: &str) -> String {
    machine.expect(&["systemctl", "show", "--value", "--property", name, "hopgate"]).trim().to_owned()
}

#[test]
fn the_service_runs_in_its_sandbox_and_a_reload_ends_when_it_is_done() {
    let machine = machine(&saying("first", "127.0.0.1:80"));
    machine.expect(&["systemctl", "start", "hopgate"]);
    let answer = || machine.curl(&["http://127.0.0.1/"]).1;
    assert_eq!(answer(), "first");
    let process = property(&machine, "MainPID");
    let status = machine.expect(&["cat", &format!("/proc/{process}/status")]);
    let says = |line: &str| status.lines().any(|found| found.split_whitespace().eq(line.split(' ')));
    assert!(!says("Uid: 0 0 0 0") && says("NoNewPrivs: 1") && says("Seccomp: 2"), "{status}");
    // CAP_NET_BIND_SERVICE, and nothing else.
    assert!(says("CapEff: 0000000000000400") && says("CapBnd: 0000000000000400"), "{status}");

    for word in ["second", "third", "fourth"] {
        machine.write(CONFIG, &saying(word, "127.0.0.1:80"));
        machine.expect(&["systemctl", "reload", "hopgate"]);
        assert_eq!(answer(), word, "once `systemctl reload` is done");
    }
    machine.write(CONFIG, "listen = 80");
    assert!(!machine.run(&["systemctl", "reload", "hopgate"]).0, "the file is wrong");
    assert_eq!(answer(), "fourth");
    eventually("systemctl says what became of it", || {
        machine.run(&["systemctl", "status", "--no-pager", "hopgate"]).1.contains(
            "Status: \"serving the old configuration, the new one was refused; connections: 0, tunnels: 0\"",
        )
    });
    assert_eq!(property(&machine, "MainPID"), process);
    machine.expect(&["systemctl", "stop", "hopgate"]);
    assert_eq!(property(&machine, "Result"), "success");
}

#[test]
fn a_restart_behind_named_sockets_refuses_no_connection() {
    let machine = machine(&saying("here", "fd:web"));
    machine.expect(&["systemctl", "enable", "--now", "hopgate.socket"]);
    let requests = [
        "--header",
        "Connection: close",
        "--fail-early",
        "--output",
        "/dev/null",
        "--write-out",
        "%{http_code}\\n",
    ];
    let mut client = machine.curling(&requests);
    client.args(["http://127.0.0.1/[1-2000]"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    // The first one starts the service.
    let client = client.spawn().expect("curl can be run");
    eventually("the service runs", || property(&machine, "ActiveState") == "active");
    for _ in 0..3 {
        machine.expect(&["systemctl", "restart", "hopgate"]);
    }
    let output = client.wait_with_output().expect("curl ends");
    let codes = String::from_utf8_lossy(&output.stdout);
    let wrong = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && codes.lines().all(|code| code == "200"), "{wrong}\n{codes}");
    assert_eq!(codes.lines().count(), 2000);
    assert_eq!(machine.curl(&["--globoff", "http://[::1]/"]).1, "here");
}

#[test]
fn a_process_that_is_stuck_is_replaced() {
    let machine = machine(&saying("here", "127.0.0.1:80"));
    machine.write("/etc/systemd/system/hopgate.service.d/soon.conf", "[Service]\nWatchdogSec=1s\n");
    machine.expect(&["systemctl", "daemon-reload"]);
    machine.expect(&["systemctl", "start", "hopgate"]);
    let process = property(&machine, "MainPID");
    machine.expect(&["sh", "-c", &format!("kill -s STOP {process}")]);
    eventually("another one runs", || {
        property(&machine, "NRestarts") == "1" && property(&machine, "ActiveState") == "active"
    });
    assert_ne!(property(&machine, "MainPID"), process);
    assert_eq!(machine.curl(&["http://127.0.0.1/"]).1, "here");
    let log = machine.expect(&["journalctl", "--no-pager", "--unit=hopgate"]);
    assert!(log.contains("Watchdog timeout"), "{log}");
}
