//! hopgate as an image holds it: one file that needs no library, and the image that the example's Dockerfile makes.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::SystemTime;

use super::Dir;

/// Links the code at hand once more, without a library of the system: a matter of a second, where another build of all
/// that it is made of would take minutes.
#[track_caller]
pub fn link_statically(to: &Path) {
    let debug = Path::new(env!("CARGO_BIN_EXE_hopgate")).parent().expect("a file in a directory");
    let rlib = newest_library(&debug.join("deps"));
    let output = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args(["--edition=2024", "--crate-name=hopgate", "--crate-type=bin", "-Cstrip=symbols"])
        .args(["-Ctarget-feature=+crt-static", "--extern"])
        .arg(format!("hopgate={}", rlib.display()))
        .arg(format!("-Ldependency={}", debug.join("deps").display()))
        .arg("-o")
        .arg(to)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/main.rs"))
        .output()
        .expect("rustc can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// `libhopgate-….rlib`, as the last build has left it; builds with other features have others.
#[track_caller]
fn newest_library(deps: &Path) -> PathBuf {
    let entries = fs::read_dir(deps).expect("what cargo has built").filter_map(Result::ok);
    let is_library = |name: &str| name.starts_with("libhopgate-") && name.ends_with(".rlib");
    let libraries = entries.filter(|entry| entry.file_name().to_str().is_some_and(is_library));
    let age =
        |path: &PathBuf| path.metadata().and_then(|found| found.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    libraries.map(|entry| entry.path()).max_by_key(age).expect("the library is built before its tests")
}

/// The last stage of the example's Dockerfile, built around a binary of the code at hand.
pub struct Image {
    dir: Dir,
}

impl Image {
    #[track_caller]
    pub fn build() -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "this test needs root: buildah makes a root directory and changes into it"
        );
        let image = Self { dir: Dir::new() };
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/docker-sidecar");
        let certificates = image.dir.join("build/etc/ssl/certs");
        fs::create_dir_all(&certificates).expect("a directory");
        fs::write(certificates.join("ca-certificates.crt"), "").expect("a file");
        link_statically(&image.dir.join("build/hopgate"));
        // What the first stage would build is taken from here; docker's own format has the HEALTHCHECK.
        let build = format!("--build-context=build={}", image.dir.path("build"));
        let dockerfile = format!("--file={}", example.join("Dockerfile").display());
        let made = image
            .buildah()
            .args(["build", "--quiet", "--isolation=chroot", "--format=docker", "--tag=hopgate"])
            .args([&build, &dockerfile, &image.dir.path("build")])
            .output();
        expect_success(&made.expect("a program that was there before"));
        let from = image.buildah().args(["from", "--name=hopgate", "localhost/hopgate"]).output();
        expect_success(&from.expect("a program that was there before"));
        image
    }

    /// What docker would do with it, as JSON.
    #[track_caller]
    pub fn config(&self) -> serde_json::Value {
        let output = self.buildah().args(["inspect", "--type=image", "localhost/hopgate"]).output();
        let output = output.expect("a program that was there before");
        expect_success(&output);
        let told: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        told["Docker"]["config"].clone()
    }

    /// Sets a variable for all that is run from now on.
    #[track_caller]
    pub fn set(&self, name: &str, value: &str) {
        let variable = format!("--env={name}={value}");
        let output = self.buildah().args(["config", &variable, "hopgate"]).output();
        expect_success(&output.expect("a program that was there before"));
    }

    /// Runs a command of it, with its own variables and user, in the network of the test.
    #[track_caller]
    pub fn run(&self, command: &[&str]) -> Child {
        self.buildah()
            .args(["run", "--isolation=chroot", "hopgate", "--"])
            .args(command)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("a program that was there before")
    }

    fn buildah(&self) -> Command {
        let mut command = Command::new("buildah");
        assert!(
            Command::new("buildah").arg("--version").output().is_ok(),
            "this test needs buildah: run tests/run, which installs what is missing"
        );
        command.args([
            "--storage-driver=vfs",
            "--root",
            &self.dir.path("root"),
            "--runroot",
            &self.dir.path("run"),
        ]);
        command.env("TMPDIR", self.dir.path("")).stdin(Stdio::null());
        command
    }
}

#[track_caller]
fn expect_success(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
