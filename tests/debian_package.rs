//! The Debian package in a Debian: it installs, starts, is upgraded, and leaves nothing behind.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::{Dir, Machine, eventually};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const CONFIG: &str = "/etc/hopgate/hopgate.toml";

/// A configuration in place of the package's.
const OWN: &str = "[[server]]\nlisten = '127.0.0.1:8080'\nreturn = '200 own'\n";

#[track_caller]
fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; run tests/run first"));
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{command:?}: {said}");
    said
}

/// The package, of the hopgate that is tested.
fn package(dir: &Dir) -> PathBuf {
    let path = format!("{ROOT}/tests/apps/tools/bin:{}", std::env::var("PATH").unwrap_or_default());
    let build = format!("{ROOT}/config/debian/build");
    succeed(Command::new(build).args([env!("CARGO_BIN_EXE_hopgate"), &dir.path("build")]).env("PATH", path));
    let made = fs::read_dir(dir.join("build/debian")).expect("cargo-deb makes it").flatten();
    made.map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|e| e == "deb"))
        .expect("a package")
}

/// The same as a later version, in which the default configuration has changed.
fn later(package: &Path, dir: &Dir) -> String {
    let (tree, later) = (dir.path("later"), dir.path("later.deb"));
    succeed(Command::new("dpkg-deb").arg("-R").arg(package).arg(&tree));
    let edit = |file: &str, from: &str, to: &str| {
        let path = format!("{tree}/{file}");
        let text = fs::read_to_string(&path).expect("it is in the package");
        assert!(text.contains(from), "{file}: no {from}");
        fs::write(&path, text.replace(from, to)).expect("it can be written");
    };
    edit("DEBIAN/control", "\nVersion: ", "\nVersion: 9.");
    edit("etc/hopgate/hopgate.toml", "hopgate works.", "hopgate still works.");
    succeed(Command::new("dpkg-deb").args(["-b", "-Zgzip", "-z1", "--root-owner-group", &tree, &later]));
    later
}

/// What of hopgate is in a machine, apart from what the tests have put there.
fn traces(machine: &Machine) -> String {
    machine.expect(&["find", "/", "-xdev", "-name", "*hopgate*", "-not", "-path", "/root/*"])
}

#[test]
fn the_package_installs_starts_and_is_purged() {
    let dir = Dir::new();
    let package = package(&dir);
    let later = later(&package, &dir);
    let package = package.to_string_lossy();
    in_a_chroot(&package);
    under_systemd(&package, &later);
}

/// As in a container, or while an image is made: nothing is started, and what the unit says can be.
fn in_a_chroot(package: &str) {
    let machine = Machine::without_systemd();
    machine.put(package, "/root/a.deb");
    machine.expect(&["dpkg", "--install", "/root/a.deb"]);
    let unit = machine.expect(&["cat", "/usr/lib/systemd/system/hopgate.service"]);
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("what to start");
    machine.expect(&["sh", "-c", &format!("{start} >/root/log 2>&1 & echo $! >/root/pid")]);
    let url = "http://127.0.0.1:8080/";
    eventually("it answers", || machine.curl(&[url]).0);
    let (_, said) = machine.curl(&[url]);
    assert!(said.contains(&format!("written in {CONFIG}")), "{said}");
    machine.expect(&["sh", "-c", "kill $(cat /root/pid)"]);

    for page in ["hopgate", "hopgate-run", "hopgate-explain"] {
        let text = machine.expect(&["zcat", &format!("/usr/share/man/man1/{page}.1.gz")]);
        assert!(text.contains(&format!(".TH {page} 1 ")) && text.contains("\n.SH EXAMPLES\n"), "{text}");
    }
    let completes = "source /usr/share/bash-completion/completions/hopgate && COMP_WORDS=(hopgate ex) COMP_CWORD=1 && \
                     _hopgate hopgate ex hopgate && echo \"${COMPREPLY[@]}\"";
    assert_eq!(machine.expect(&["bash", "-c", completes]), "explain\n");

    machine.expect(&["dpkg", "--purge", "hopgate"]);
    assert_eq!(traces(&machine), "", "this is left of hopgate");
}

fn under_systemd(package: &str, later: &str) {
    let machine = Machine::with_systemd();
    let users = machine.expect(&["cat", "/etc/passwd", "/etc/group"]);
    machine.put(package, "/root/a.deb");
    machine.put(later, "/root/later.deb");
    machine.expect(&["dpkg", "--install", "/root/a.deb"]);
    let answer = || machine.curl(&["http://127.0.0.1:8080/"]).1;
    assert!(answer().starts_with("hopgate works."), "{}", answer());
    assert_eq!(
        machine.run(&["systemctl", "is-enabled", "hopgate.service", "hopgate.socket"]).1,
        "enabled\ndisabled\n"
    );
    machine.expect(&["systemctl", "enable", "hopgate.socket"]);

    // What somebody has written stays, with the new default beside it; and the new version is the one that runs.
    machine.write(CONFIG, OWN);
    let process = || machine.expect(&["systemctl", "show", "--property=MainPID", "hopgate"]);
    let before = process();
    machine.expect(&["dpkg", "--force-confdef", "--install", "/root/later.deb"]);
    assert_eq!((machine.expect(&["cat", CONFIG]), answer().as_str()), (OWN.to_owned(), "own"));
    assert!(machine.expect(&["cat", &format!("{CONFIG}.dpkg-dist")]).contains("hopgate still works."));
    assert_ne!(process(), before);

    machine.expect(&["dpkg", "--remove", "hopgate"]);
    assert!(!machine.curl(&["http://127.0.0.1:8080/"]).0, "it has been stopped");
    assert_eq!(machine.expect(&["cat", CONFIG]), OWN, "it may come back");
    machine.write("/var/lib/hopgate/acme/account", "kept until the package is purged");
    machine.expect(&["dpkg", "--purge", "hopgate"]);
    assert_eq!(traces(&machine), "", "this is left of hopgate");
    assert_eq!(machine.expect(&["cat", "/etc/passwd", "/etc/group"]), users);
}
