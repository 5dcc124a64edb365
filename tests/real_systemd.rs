//! The service under a real systemd, as config/hopgate.service has it: its sandbox, reload, restart and watchdog.

mod support;

use std::fs;
use std::process::{Child, Stdio};

use support::{Dir, Machine, eventually};

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

/// A child that does not outlive the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_restart_behind_named_sockets_refuses_no_connection() {
    let machine = machine(&saying("here", "fd:web"));
    machine.expect(&["systemctl", "enable", "--now", "hopgate.socket"]);
    let dir = Dir::new();
    let codes = || fs::read_to_string(dir.join("codes")).unwrap_or_default();
    let file = fs::File::create(dir.join("codes")).expect("a file can be made");
    let one_by_one = ["--header", "Connection: close", "--fail-early", "--output", "/dev/null"];
    let mut client = machine.curling(&one_by_one);
    // The first one starts the service.
    client
        .args(["--max-time", "60", "--write-out", "%{http_code}\n", "http://127.0.0.1/[1-1000000]"])
        .stdout(file);
    let mut client = Running(client.stderr(Stdio::piped()).spawn().expect("curl can be run"));
    let mut go_on = || {
        let before = codes().lines().count();
        eventually("requests are answered", || {
            let is_running = client.0.try_wait().expect("a child of ours").is_none();
            assert!(is_running, "curl has stopped at a failure:\n{}", codes());
            codes().lines().count() > before + 100
        });
    };
    go_on();
    for _ in 0..3 {
        machine.expect(&["systemctl", "restart", "hopgate"]);
        go_on();
    }
    assert!(codes().lines().all(|code| code == "200"), "{}", codes());
    assert_eq!(machine.curl(&["--globoff", "http://[::1]/"]).1, "here");
}

#[test]
fn the_service_starts_anew_when_a_process_that_has_taken_over_fails_beside_the_old_one() {
    let machine = machine(
        "[[server]]\nlisten = '127.0.0.1:80'\n\
         location = [{ path = '/', return = '200 here' }, { path = '/slow', proxy_pass = 'http://127.0.0.1:81' }]\n",
    );
    // Takes connections, and never answers.
    machine.write("/etc/systemd/system/slow.socket", "[Socket]\nListenStream=127.0.0.1:81\n");
    machine.write("/etc/systemd/system/slow.service", "[Service]\nExecStart=/bin/sleep infinity\n");
    machine.expect(&["systemctl", "daemon-reload"]);
    machine.expect(&["systemctl", "start", "slow.socket", "hopgate"]);
    let old = property(&machine, "MainPID");
    let mut client = machine.curling(&["http://127.0.0.1/slow"]);
    let _client =
        Running(client.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("curl can be run"));
    eventually("a request keeps the process busy", || {
        machine.run(&["systemctl", "is-active", "slow.service"]).0
    });
    machine.expect(&["systemctl", "kill", "--kill-whom=main", "--signal=USR2", "hopgate"]);
    eventually("another process is the service", || property(&machine, "MainPID") != old);
    let new = property(&machine, "MainPID");
    assert!(machine.run(&["test", "-e", &format!("/proc/{old}")]).0, "the old one drains");
    machine.expect(&["sh", "-c", &format!("kill -s KILL {new}")]);
    eventually("the service has started anew", || {
        property(&machine, "NRestarts") == "1" && property(&machine, "SubState") == "running"
    });
    assert_eq!(machine.curl(&["http://127.0.0.1/"]).1, "here");
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

#[test]
fn a_new_process_takes_over_in_the_sandbox_and_is_the_service_from_then_on() {
    // An expression, which may not be compiled to machine code there; and the folders that the unit has.
    let config = |word: &str| {
        format!(
            "access_log = '/var/log/hopgate/access.log'\n\
             [[server]]\nlisten = ['127.0.0.1:80', 'fd:web', 'unix:/run/hopgate/web.sock']\n\
             [[server.location]]\npath = '~ ^/([a-z]+)$'\nreturn = '200 \"$1 {word}\"'\n"
        )
    };
    let machine = machine(&config("first"));
    let socket = "[Socket]\nFileDescriptorName=web\nListenStream=127.0.0.1:81\n";
    machine.write("/etc/systemd/system/hopgate.socket", socket);
    machine.write("/etc/systemd/system/hopgate.service.d/soon.conf", "[Service]\nWatchdogSec=2s\n");
    machine.expect(&["systemctl", "daemon-reload"]);
    machine.expect(&["systemctl", "start", "hopgate.socket", "hopgate"]);
    let expect_answers = |word: &str| {
        for port in [80, 81] {
            let url = format!("http://127.0.0.1:{port}/here");
            assert_eq!(machine.curl(&[&url]).1, format!("here {word}"), "{url}");
        }
        machine.expect(&["test", "-S", "/run/hopgate/web.sock"]);
    };
    expect_answers("first");
    for word in ["second", "third"] {
        let before = property(&machine, "MainPID");
        machine.write(CONFIG, &config(word));
        machine.expect(&["systemctl", "kill", "--kill-whom=main", "--signal=USR2", "hopgate"]);
        eventually("another process is the service", || property(&machine, "MainPID") != before);
        let old = format!("/proc/{before}");
        eventually("the old one has ended", || !machine.run(&["test", "-e", &old]).0);
        expect_answers(word);
    }

    let process = property(&machine, "MainPID");
    let fed = || property(&machine, "WatchdogTimestampMonotonic");
    for _ in 0..2 {
        let before = fed();
        eventually("systemd hears that all is well", || fed() != before);
    }
    machine.write(CONFIG, &config("fourth"));
    machine.expect(&["systemctl", "reload", "hopgate"]);
    expect_answers("fourth");
    let journal = machine.expect(&["journalctl", "--no-pager", "--unit=hopgate"]);
    assert_eq!(property(&machine, "MainPID"), process, "{journal}");
    let log = || machine.run(&["cat", "/var/log/hopgate/access.log"]).1;
    let is_answer = |line: &&str| line.contains("\"GET /here HTTP/1.1\" 200 ");
    eventually("every request has its line", || log().lines().filter(is_answer).count() == 8);

    // It is a child of systemd, which waits for its end: it drains, and says its last words.
    machine.expect(&["systemctl", "stop", "hopgate"]);
    let journal = machine.expect(&["journalctl", "--no-pager", "--unit=hopgate"]);
    assert!(!journal.contains("SIGKILL") && !journal.contains("not our child"), "{journal}");
    assert_eq!(property(&machine, "Result"), "success", "{journal}");
    assert!(journal.contains(&format!("[{process}]: stopped")), "{journal}");
}
