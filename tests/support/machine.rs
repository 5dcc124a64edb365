//! A Debian in namespaces of its own: processes, mounts, network and control groups. What happens in it stays in memory,
//! and is gone with it. It is made of `tests/apps/debian`, which tests/run puts there.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::eventually;

/// Puts the root of the machine together, and becomes its first process. `$1`: what it is made of, `$2`: its control
/// group, the rest: the first process.
const BOOT: &str = r#"
    base=$1 group=$2
    shift 2
    echo $$ >"$group/cgroup.procs"
    exec unshare --mount --uts --ipc --net --pid --cgroup --fork --propagation private sh -euc '
        base=$1
        shift
        mount -t tmpfs -o mode=755 tmpfs /mnt
        mkdir /mnt/upper /mnt/work /mnt/root
        mount -t overlay -o "lowerdir=$base,upperdir=/mnt/upper,workdir=/mnt/work" overlay /mnt/root
        cd /mnt/root
        mount -t proc proc proc
        mount -t sysfs sysfs sys
        mount -t cgroup2 cgroup2 sys/fs/cgroup
        mount -t tmpfs -o mode=755 tmpfs dev
        for device in null zero full random urandom tty; do
            : >dev/$device
            mount --bind /dev/$device dev/$device
        done
        mkdir dev/pts dev/shm
        mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
        ln -s pts/ptmx dev/ptmx
        mount -t tmpfs tmpfs run
        mount -t tmpfs tmpfs tmp
        ip link set lo up
        mkdir run/outside
        pivot_root . run/outside
        cd /
        umount -l /run/outside
        rmdir /run/outside
        exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin container=test "$@"
    ' boot "$base" "$@"
"#;

/// The machine, until it is dropped.
pub struct Machine {
    outside: Child,
    /// The number of its first process, seen from outside.
    init: u32,
    group: PathBuf,
}

impl Machine {
    /// One that systemd runs, booted.
    #[track_caller]
    pub fn with_systemd() -> Self {
        let machine = Self::start(&["/sbin/init", "--unit=basic.target"]);
        // `degraded`: something of Debian's finds no hardware.
        let is_up =
            || ["running", "degraded"].contains(&machine.run(&["systemctl", "is-system-running"]).1.trim());
        eventually("the machine has booted", is_up);
        machine
    }

    /// One in which nothing runs.
    #[track_caller]
    pub fn without_systemd() -> Self {
        Self::start(&["/bin/sleep", "infinity"])
    }

    #[track_caller]
    fn start(init: &[&str]) -> Self {
        static MACHINES: AtomicUsize = AtomicUsize::new(0);
        let base = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/apps/debian"));
        assert!(base.join("sbin/init").exists(), "{} is missing: tests/run makes it", base.display());
        let number = MACHINES.fetch_add(1, Ordering::Relaxed);
        let group = cgroups().join(format!("hopgate-test-{}-{number}", std::process::id()));
        let made = as_root("mkdir").arg(&group).status().expect("mkdir can be run");
        assert!(made.success(), "no control group can be made: {}", group.display());
        let outside = as_root("sh")
            .args(["-euc", BOOT, "boot"])
            .args([&base, &group])
            .args(init)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("sh can be run");
        let mut machine = Self { outside, init: 0, group };
        eventually("the machine has a first process", || {
            machine.init = first_inside(machine.outside.id()).unwrap_or(0);
            machine.init != 0
        });
        // Before it is what it is to become, its root is that of the machine outside.
        let environment = format!("/proc/{}/environ", machine.init);
        eventually("the machine has a root of its own", || {
            said(as_root("cat").arg(&environment).output()).1.contains("container=test")
        });
        machine
    }

    /// Runs a program in it: whether it succeeds, and what it says.
    #[track_caller]
    pub fn run<S: AsRef<OsStr>>(&self, command: &[S]) -> (bool, String) {
        said(self.enter("--all").args(command).output())
    }

    /// What a program says that has to succeed.
    #[track_caller]
    pub fn expect(&self, command: &[&str]) -> String {
        let (is_done, said) = self.run(command);
        assert!(is_done, "{command:?}: {said}");
        said
    }

    /// What curl says, on its network.
    #[track_caller]
    pub fn curl(&self, args: &[&str]) -> (bool, String) {
        said(self.curling(args).output())
    }

    /// curl on its network, to be run.
    pub fn curling(&self, args: &[&str]) -> Command {
        let mut command = self.enter("--net");
        command.args(["curl", "--silent", "--show-error", "--max-time", "10"]).args(args);
        command
    }

    /// Puts a file into it.
    #[track_caller]
    pub fn put(&self, file: &str, path: &str) {
        let target = format!("/proc/{}/root{path}", self.init);
        let (is_done, said) = said(as_root("install").args(["-D", "-m", "755", file, &target]).output());
        assert!(is_done, "{path}: {said}");
    }

    /// Writes a file in it.
    #[track_caller]
    pub fn write(&self, path: &str, text: &str) {
        self.expect(&["sh", "-c", "mkdir -p \"${0%/*}\" && printf %s \"$1\" >\"$0\"", path, text]);
    }

    fn enter(&self, namespaces: &str) -> Command {
        let mut command = as_root("nsenter");
        command.args(["--target", &self.init.to_string(), namespaces, "--"]).stdin(Stdio::null());
        command
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // With the first process of a namespace goes every other one.
        let init = self.init.to_string();
        let _ = as_root("kill").args(["-s", "KILL", &init]).status();
        let _ = self.outside.wait();
        let remove = "find \"$0\" -depth -type d -exec rmdir {} +";
        eventually("its control group is empty", || {
            as_root("sh")
                .args(["-c", remove])
                .arg(&self.group)
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|s| s.success())
        });
    }
}

/// To be run as root, which making namespaces takes here.
fn as_root(program: &str) -> Command {
    if rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.args(["-n", program]);
    command
}

/// Where control groups of version 2 are mounted: beside those of version 1 on some machines.
#[track_caller]
fn cgroups() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("a running process has mounts");
    let mut fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let found = fields.find(|fields| fields.get(2) == Some(&"cgroup2"));
    found.unwrap_or_else(|| panic!("this test needs control groups of version 2; mounted are\n{mounts}"))[1]
        .into()
}

/// The first process below this one that is the first of a namespace.
fn first_inside(process: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    if numbers.split_whitespace().count() > 1 {
        return Some(process);
    }
    let children = fs::read_to_string(format!("/proc/{process}/task/{process}/children")).ok()?;
    children.split_whitespace().find_map(|child| first_inside(child.parse().ok()?))
}

fn said(output: std::io::Result<Output>) -> (bool, String) {
    let output =
        output.expect("this test needs nsenter and curl: run tests/run, which installs what is missing");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}
