//! Debian's pebble, a CA that speaks ACME, and the DNS that it asks: everything is on loopback.

use std::fs;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;

use super::lines::Lines;
use super::{Authority, Dir, Issued, eventually, free_addr};

/// What a pebble is started with.
pub struct Pebble {
    /// Where it looks for HTTP-01.
    pub http: SocketAddr,
    /// Where it looks for TLS-ALPN-01.
    pub tls: SocketAddr,
    /// How long its certificates hold, in seconds.
    pub lifetime: u64,
    /// Where it listens.
    pub addr: SocketAddr,
}

impl Pebble {
    /// Looks for proofs at these addresses.
    pub fn that_looks_at(http: SocketAddr, tls: SocketAddr) -> Self {
        Self { http, tls, lifetime: 90 * 24 * 3600, addr: free_addr() }
    }

    /// Starts it.
    #[track_caller]
    pub fn start(self) -> Ca {
        Ca::run(self, Own::new())
    }
}

/// A running pebble, until the test lets go of it.
pub struct Ca {
    process: Child,
    addr: SocketAddr,
    management: SocketAddr,
    log: Lines,
    own: Own,
}

/// What it shows itself, and the folder with its files.
pub(super) struct Own {
    pub(super) authority: Authority,
    pub(super) issued: Issued,
    dir: Dir,
}

impl Own {
    fn new() -> Self {
        let (dir, authority) = (Dir::new(), Authority::new("the CA of pebble's own certificate"));
        let issued = authority.issue(&["127.0.0.1"]);
        issued.write(&dir, "pebble");
        fs::write(dir.join("ca.pem"), authority.pem()).expect("a file can be written");
        Self { authority, issued, dir }
    }
}

impl Ca {
    #[track_caller]
    fn run(options: Pebble, own: Own) -> Self {
        let dir = &own.dir;
        let Pebble { http, tls, lifetime, addr } = options;
        let management = free_addr();
        let file = serde_json::json!({ "pebble": {
            "listenAddress": addr.to_string(),
            "managementListenAddress": management.to_string(),
            "certificate": dir.path("pebble.pem"),
            "privateKey": dir.path("pebble.key"),
            "httpPort": http.port(),
            "tlsPort": tls.port(),
            "ocspResponderURL": "",
            "externalAccountBindingRequired": false,
            "certificateValidityPeriod": lifetime,
        }});
        fs::write(dir.join("pebble.json"), file.to_string()).expect("a file can be written");
        let process = Command::new("pebble")
            .args(["-config", &dir.path("pebble.json"), "-dnsserver", &dns().to_string()])
            // Proofs are looked for without waits, and every name is looked at anew.
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_AUTHZREUSE", "0")
            // Else it refuses a good nonce now and then, and what it is asked cannot be counted.
            .env("PEBBLE_WFE_NONCEREJECT", "0")
            .env_remove("PEBBLE_VA_ALWAYS_VALID")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn();
        let mut process = process.unwrap_or_else(|error| {
            panic!("this test needs pebble ({error}): run tests/run, which installs what is missing, or install it")
        });
        let log = Lines::follow(process.stdout.take().expect("stdout is piped"));
        let ca = Self { process, addr, management, log, own };
        eventually("pebble listens", || {
            TcpStream::connect(addr).is_ok() && TcpStream::connect(management).is_ok()
        });
        ca
    }

    /// The URL of its directory.
    pub fn directory(&self) -> String {
        format!("https://{}/dir", self.addr)
    }

    /// `[acme]` for it, with this folder as the store.
    pub fn acme(&self, store: &str) -> String {
        acme(&self.directory(), &self.own_ca(), store)
    }

    /// The file with the CA of its own certificate.
    pub fn own_ca(&self) -> String {
        self.own.dir.path("ca.pem")
    }

    pub(super) fn own(&self) -> &Own {
        &self.own
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// How many orders it has seen.
    pub fn orders(&self) -> usize {
        self.log.matching("POST /order-plz").len()
    }

    /// Everything that it has said.
    pub fn log(&self) -> String {
        self.log.all()
    }

    /// The file with the root of the certificates that it issues.
    #[track_caller]
    pub fn root(&self) -> PathBuf {
        let file = self.own.dir.join("root.pem");
        let url = format!("https://{}/roots/0", self.management);
        let ca = self.own_ca();
        let curl = Command::new("curl").args(["-sSf", "--cacert", &ca, &url, "-o"]).arg(&file).status();
        assert!(curl.is_ok_and(|status| status.success()), "pebble gives its root");
        file
    }

    /// Ends it; what is returned can start another one in its place, which knows nothing of what was before.
    pub fn stop(mut self) -> Stopped {
        self.end();
        Stopped { addr: self.addr, own: std::mem::replace(&mut self.own, Own::new()) }
    }

    fn end(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Ca {
    fn drop(&mut self) {
        self.end();
    }
}

/// The place of a pebble that does not run.
pub struct Stopped {
    addr: SocketAddr,
    own: Own,
}

impl Stopped {
    #[track_caller]
    pub fn start(self, options: Pebble) -> Ca {
        Ca::run(Pebble { addr: self.addr, ..options }, self.own)
    }
}

/// `[acme]` for a CA.
pub(super) fn acme(directory: &str, ca: &str, store: &str) -> String {
    format!(
        "[acme]\nagree_to_terms = true\ncontact = \"admin@example.org\"\ndirectory = \"{directory}\"\n\
         directory_ca = \"{ca}\"\nstore = \"{store}\"\n"
    )
}

/// A DNS in which every name is 127.0.0.1, except those that begin with `nowhere`, of which there are none. It runs
/// as long as the process.
fn dns() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port to listen on");
    let addr = socket.local_addr().expect("a socket has an address");
    thread::spawn(move || {
        let mut query = [0; 1500];
        while let Ok((count, from)) = socket.recv_from(&mut query) {
            if let Some(answer) = answer(&query[..count]) {
                // The one who asked may have gone.
                let _ = socket.send_to(&answer, from);
            }
        }
    });
    addr
}

/// The answer to a query (RFC 1035 §4.1) with one question.
fn answer(query: &[u8]) -> Option<Vec<u8>> {
    const HEAD: usize = 12;
    let name = query.get(HEAD..)?.iter().position(|byte| *byte == 0)? + 1;
    let question = query.get(HEAD..HEAD + name + 4)?;
    let is_nowhere = question[1..].starts_with(b"nowhere");
    let is_address = question[name..name + 2] == [0, 1] && !is_nowhere;
    let mut answer = query[..2].to_vec();
    // A response, recursive, without error or NXDOMAIN; one question, so many answers.
    answer.extend([0x81, if is_nowhere { 0x83 } else { 0x80 }, 0, 1, 0, u8::from(is_address), 0, 0, 0, 0]);
    answer.extend(question);
    if is_address {
        // The name of the question, A, IN, for a second, four bytes.
        answer.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 127, 0, 0, 1]);
    }
    Some(answer)
}
