//! In a container: the image of the example and its manifests, and what process 1 owes the others.

mod support;

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use support::{Dir, Image, Lines, NodeApp, Peer, eventually, free_addr, run_node_script};

/// A process that is started here, and killed when the test lets go of it.
struct Running {
    child: Child,
    log: Lines,
    access: Lines,
}

impl Running {
    fn new(mut child: Child) -> Self {
        let log = Lines::follow(child.stderr.take().expect("stderr is piped"));
        let access = Lines::follow(child.stdout.take().expect("stdout is piped"));
        Self { child, log, access }
    }

    /// The process of hopgate below it, as the test sees it.
    #[track_caller]
    fn hopgate(&self) -> u32 {
        let mut found = None;
        eventually("hopgate runs below it", || {
            let below = processes().into_iter().filter(|process| descends(process.pid, self.child.id()));
            found = below.into_iter().find(|process| process.name == "hopgate").map(|process| process.pid);
            found.is_some()
        });
        found.expect("it was found")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let own = self.child.id();
        for process in processes().into_iter().filter(|process| descends(process.pid, own)) {
            signal(process.pid, "KILL");
        }
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What `/proc/PID/stat` says.
struct Process {
    pid: u32,
    name: String,
    state: char,
    parent: u32,
}

fn process(pid: u32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (name, rest) = (stat.split_once('(')?.1, stat.rsplit_once(") ")?.1);
    let mut fields = rest.split(' ');
    Some(Process {
        pid,
        name: name.rsplit_once(')')?.0.to_owned(),
        state: fields.next()?.chars().next()?,
        parent: fields.next()?.parse().ok()?,
    })
}

fn processes() -> Vec<Process> {
    let entries = fs::read_dir("/proc").expect("/proc").filter_map(Result::ok);
    entries.filter_map(|entry| process(entry.file_name().to_str()?.parse().ok()?)).collect()
}

/// Whether a process was started by this one, or by one that was.
fn descends(pid: u32, from: u32) -> bool {
    let parents = std::iter::successors(process(pid), |child| process(child.parent));
    parents.skip(1).any(|parent| parent.pid == from)
}

#[track_caller]
fn signal(pid: u32, name: &str) {
    let kill = Command::new("sh").args(["-c", &format!("kill -s {name} {pid}")]).output();
    kill.expect("sh can be run");
}

/// Sends `GET path` on a connection of its own and returns the answer's status.
#[track_caller]
fn status_of(addr: SocketAddr, path: &str) -> u16 {
    let mut client = Peer::new("client", TcpStream::connect(addr).expect("hopgate listens"));
    client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
    client.response().status
}

#[test]
fn the_image_of_the_example_is_hopgate_alone_and_does_what_an_image_has_to() {
    let image = Image::build();
    let config = image.config();
    assert_eq!(config["User"], "65532:65532");
    assert_eq!(config["Entrypoint"], serde_json::json!(["/hopgate"]));
    assert_eq!(config["Cmd"], serde_json::json!(["run"]));
    assert_eq!(config["Healthcheck"]["Test"], serde_json::json!(["CMD", "/hopgate", "health"]));
    assert_eq!(config["StopSignal"], "SIGTERM");
    assert!(config["ExposedPorts"]["8080/tcp"].is_object(), "{config}");

    let (addr, health, app) = (free_addr(), free_addr(), free_addr());
    image.set("HOPGATE_LISTEN", &addr.to_string());
    image.set("HOPGATE_HEALTH", &health.to_string());
    image.set("HOPGATE_UPSTREAM", &format!("http://{app}"));
    let health = || image.run(&["/hopgate", "health"]).wait_with_output().expect("it has ended");
    let ill = health();
    assert_eq!(ill.status.code(), Some(1), "{}", String::from_utf8_lossy(&ill.stderr));

    let mut running = Running::new(image.run(&["/hopgate", "run"]));
    running.log.expect(" started, ", 0);
    let pid = running.hopgate();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    assert!(status.contains("\nUid:\t65532\t65532\t65532\t65532\n"), "{status}");
    let well = health();
    assert!(well.status.success(), "{}", String::from_utf8_lossy(&well.stderr));
    assert!(String::from_utf8_lossy(&well.stdout).ends_with("/healthz: 200 ok\n"), "{well:?}");

    // The app may come later.
    assert_eq!(status_of(addr, "/json"), 502);
    let app = NodeApp::start_with(&[&app.port().to_string()]);
    eventually("the app is there", || status_of(addr, "/json") == 200);
    run_node_script("ws-client.js", &format!("http://{addr}"));

    let mut open = Peer::new("client", TcpStream::connect(addr).expect("hopgate listens"));
    open.send("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab");
    signal(pid, "TERM");
    running.log.expect("draining, for at most 30s", 0);
    open.send("cd");
    open.expect_status(200);
    open.expect_eof();
    assert_eq!(running.child.wait().expect("a child can be waited for").code(), Some(0));
    drop(app);
    running.access.expect("\"GET /json HTTP/1.1\" 502 ", 0);
    running.access.expect("\"POST /upload HTTP/1.1\" 200 ", 0);
    let lines = running.access.all();
    assert!(!lines.contains(" INFO "), "{lines}");
}

/// hopgate as process 1 of a namespace of its own.
fn as_process_1(args: &[&str]) -> Running {
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    let child = command
        .args(["--pid", "--fork", "--kill-child", "--mount-proc", env!("CARGO_BIN_EXE_hopgate")])
        .args(args)
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("this test needs unshare: run tests/run, which installs what is missing");
    let running = Running::new(child);
    running.log.expect(" started, ", 0);
    running
}

#[test]
fn as_process_1_it_lets_go_of_what_is_left_to_it_and_obeys_its_signals() {
    let dir = Dir::new();
    let toml = dir.path("hopgate.toml");
    fs::write(&toml, "[[server]]\nlisten = \"127.0.0.1:0\"\nreturn = \"204\"\n").expect("a file");
    let mut running = as_process_1(&["run", "--config", &toml]);
    let hopgate = running.hopgate();
    // What `docker exec` does: a process in the namespace, whose child is left to process 1 when it ends.
    let output = Command::new("nsenter")
        .args(["--target", &hopgate.to_string(), "--pid", "sh", "-c", "sleep 1000 >/dev/null 2>&1 &"])
        .output()
        .expect("this test needs nsenter: run tests/run, which installs what is missing");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let orphans = || processes().into_iter().filter(|process| process.parent == hopgate);
    let mut orphan = 0;
    eventually("process 1 has a child", || {
        orphan = orphans().next().map_or(0, |process| process.pid);
        orphan != 0
    });
    signal(orphan, "KILL");
    eventually("nothing is left of it", || orphans().next().is_none());
    assert!(process(orphan).is_none_or(|process| process.state != 'Z'), "a zombie");

    signal(hopgate, "HUP");
    running.log.expect("configuration reloaded", 0);
    signal(hopgate, "TERM");
    running.log.expect("stopped", 0);
    assert_eq!(running.child.wait().expect("a child can be waited for").code(), Some(0));
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/docker-sidecar").join(name)
}

#[test]
fn the_manifest_is_one_of_kubernetes_and_gives_the_pod_the_time_that_it_needs() {
    let apps = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/apps");
    let output = Command::new(apps.join("python/bin/python"))
        .arg(apps.join("kubernetes.py"))
        .arg(example("kubernetes.yaml"))
        .output()
        .expect(
            "this test needs the packages of tests/apps/requirements.txt: run tests/run, which installs them",
        );
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let dir = Dir::new();
    fs::write(dir.join("hopgate.toml"), &output.stdout).expect("a file");
    let args = ["check", "--strict", "--config", &dir.path("hopgate.toml")];
    let checked =
        Command::new(env!("CARGO_BIN_EXE_hopgate")).args(args).output().expect("hopgate can be run");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

#[test]
fn the_context_of_the_image_has_all_that_cargo_asks_for() {
    let dir = Dir::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let ignore = fs::read_to_string(example("Dockerfile.dockerignore")).expect("a file");
    let names: Vec<_> = ignore.lines().filter_map(|line| line.strip_prefix('!')).collect();
    // PCRE2 would be looked for on the system without it.
    assert!(names.contains(&".cargo") && names.contains(&"src"), "{ignore}");
    for name in names {
        let to = dir.join(name);
        fs::create_dir_all(to.parent().expect("a file in a directory")).expect("a directory");
        let copied = Command::new("cp").args(["-r"]).arg(root.join(name)).arg(&to).status();
        assert!(copied.expect("cp can be run").success(), "{name}");
    }
    // Not a build, but all files of the targets are looked for.
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--locked", "--offline", "--format-version=1", "--no-deps"])
        .current_dir(&dir)
        .output()
        .expect("cargo can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
