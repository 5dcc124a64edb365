//! A hopgate whose certificates are ordered.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::{App, Ca, Dir, Hopgate, Pebble, free_addr, run_client};

/// A server for these names, with and without TLS, in front of an app.
pub struct Site {
    pub plain: SocketAddr,
    pub tls: SocketAddr,
    pub store: Dir,
    pub app: App,
}

impl Site {
    pub fn new() -> Self {
        Self { plain: free_addr(), tls: free_addr(), store: Dir::new(), app: App::named("the app") }
    }

    pub fn store(&self) -> String {
        self.store.path("store")
    }

    /// A CA that looks for proofs at its addresses.
    pub fn ca(&self) -> Pebble {
        Pebble::that_looks_at(self.plain, self.tls)
    }

    /// With an `[acme]` table and names, as they are written.
    pub fn config(&self, acme: &str, names: &str) -> String {
        let Self { plain, tls, app, .. } = self;
        let app = app.addr();
        format!(
            r#"
            workers = 2
            [[server]]
            listen = ["{plain}", "{tls} ssl"]
            server_name = {names}
            tls = "acme"

            [[server.location]]
            path = "/"
            proxy_pass = "http://{app}"

            {acme}
            "#
        )
    }

    #[track_caller]
    pub fn start(&self, ca: &Ca, names: &str) -> Hopgate {
        Hopgate::start(&self.config(&ca.acme(&self.store()), names))
    }

    /// What a GET over TLS comes to for a client that trusts this root.
    pub fn get(&self, name: &str, root: &Path) -> Result<String, String> {
        get_over_tls(self.tls, name, root)
    }

    /// The only file in the store whose name ends so.
    #[track_caller]
    pub fn file(&self, end: &str) -> PathBuf {
        let folders = fs::read_dir(self.store()).expect("a store");
        let files =
            folders.flat_map(|folder| fs::read_dir(folder.expect("an entry").path()).expect("a folder"));
        let mut files = files.map(|file| file.expect("an entry").path());
        let has_end = |file: &PathBuf| file.to_string_lossy().ends_with(end);
        files.find(has_end).unwrap_or_else(|| panic!("no file *{end} in {}", self.store()))
    }
}

/// What a GET over TLS at an address comes to for a client that trusts this root.
pub fn get_over_tls(tls: SocketAddr, name: &str, root: &Path) -> Result<String, String> {
    let resolve = format!("{name}:{}:127.0.0.1", tls.port());
    let (root, url) = (root.display().to_string(), format!("https://{name}:{}/", tls.port()));
    let (is_content, said) = run_client("curl", &["-sS", "--resolve", &resolve, "--cacert", &root, &url], "");
    let said = said.trim().to_owned();
    if is_content { Ok(said) } else { Err(said) }
}
