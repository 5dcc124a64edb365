//! Debian's nginx, the reference that hopgate is compared with.

use std::fs;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use super::{Dir, eventually, free_addr};

/// An nginx in one process, without root's rights, until the test lets go of it.
pub struct Nginx {
    process: Child,
    addr: String,
    dir: Dir,
}

impl Nginx {
    /// Whether there is one to compare with. A test that is skipped without it says so here, loudly.
    pub fn is_installed() -> bool {
        let found = command().arg("-v").stderr(Stdio::null()).status().is_ok_and(|status| status.success());
        if !found {
            eprintln!("\n*** SKIPPED: nginx is not installed; tests/run installs what is missing ***\n");
        }
        found
    }

    /// Starts it with these lines for its `http` block, which have it listen on port 80: here on another.
    #[track_caller]
    pub fn start(http: &str) -> Self {
        let addr = free_addr().to_string();
        let http = http.replace("listen 80;", &format!("listen {addr};"));
        let http = http.replace("listen 80 http2;", &format!("listen {addr} http2;"));
        let file = whole_file(&http);
        let nginx = Self::run(&file, Dir::new(), addr);
        eventually("nginx listens", || TcpStream::connect(&nginx.addr).is_ok());
        nginx
    }

    /// Starts it with these lines for its `http` block, in a directory where the test may have put files that they
    /// name.
    #[track_caller]
    pub fn start_in(dir: Dir, http: &str) -> Self {
        let mut nginx = Self::run(&whole_file(http), dir, String::new());
        // It is written once every address is listened on.
        eventually("nginx has started", || {
            let ended = nginx.process.try_wait().expect("a child can be asked");
            assert!(ended.is_none(), "nginx does not take its configuration: {ended:?}\n{http}");
            !nginx.dir.read("nginx.pid").is_empty()
        });
        nginx
    }

    #[track_caller]
    fn run(file: &str, dir: Dir, addr: String) -> Self {
        fs::write(dir.join("nginx.conf"), file).expect("a file can be written");
        let args = ["-e", "stderr", "-p", &dir.path(""), "-c", &dir.path("nginx.conf")];
        let process = command().args(args).stdin(Stdio::null()).spawn();
        let process = process.unwrap_or_else(|error| {
            panic!("this test needs nginx ({error}): run tests/run, which installs what is missing, or install it")
        });
        Self { process, addr, dir }
    }

    /// Ends it, so that its addresses are free for another; its directory goes on.
    pub fn stop(mut self) -> Dir {
        self.end();
        // Killed, it could not remove it itself.
        let _ = fs::remove_file(self.dir.join("nginx.pid"));
        std::mem::replace(&mut self.dir, Dir::new())
    }

    fn end(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// Where it listens, if it was started by [`Nginx::start`].
    pub fn addr(&self) -> &str {
        &self.addr
    }

    /// Its prefix: relative paths of its configuration begin there.
    pub fn dir(&self) -> &Dir {
        &self.dir
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.end();
    }
}

/// A configuration with these lines in its `http` block; everything that nginx writes goes into its prefix.
fn whole_file(http: &str) -> String {
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temporary = temporary.map(|what| format!("{what}_temp_path {what}_temp;\n")).concat();
    format!(
        "daemon off; master_process off; pid nginx.pid; error_log stderr crit; events {{ worker_connections 1000; }}\n\
         http {{\naccess_log off;\n{temporary}{http}}}\n"
    )
}

fn command() -> Command {
    let mut nginx = Command::new("nginx");
    nginx.env("PATH", format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default()));
    nginx
}
