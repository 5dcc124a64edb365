//! The one door from a file to runtime values: [`Config::load`].

mod access;
mod acme;
mod check;
pub mod error;
pub mod file;
mod files;
pub mod places;
mod read;
mod responses;
pub mod units;
mod upstream;
pub mod words;

use std::collections::HashMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::headers::FieldName;
pub use crate::proxy_protocol::Version as ProxyVersion;
use crate::routing::host::ServerNames;
use crate::routing::location::{Locations, PathMatcher};
use crate::routing::map::Map;
use crate::routing::script::Step;
use crate::routing::variables::Template;
use crate::tls::server::TlsRules;
use crate::upstream::tls::TlsClient;

pub use access::{
    AccessRules, AuthBasic, ConnZone, LimitConn, LimitReq, Limits, RealIp, RealIpHeader, ReqZone, Zones,
};
pub use acme::{Acme, CertificateNames};
pub use error::{ConfigErrors, Warnings};
pub use files::{
    Fallback, FileRoot, FileRules, IfModifiedSince, RefusedLinks, Replaced, Symlinks, TryEntry, TryFiles,
    Types,
};
pub use places::Places;
pub use responses::{
    AddedField, Charset, CookieFlags, CookieRules, Gzip, GzipProxied, Pattern, RequestRules, ResponseRules,
    Substitution,
};
pub use upstream::{
    Balance, KeepAlive, NEXT_CASES, NextCase, NextCases, NextUpstream, ProxyPass, ResolverRules, TlsName, To,
    Upstream, UpstreamAddress, UpstreamServer, UpstreamTls, UpstreamVersion,
};

/// Everything that a process needs to know to run, checked: nothing in it can be wrong by itself.
#[derive(Debug)]
pub struct Config {
    /// How many workers, each with its own thread; `None` is one for each processor that the
    /// process may use.
    pub workers: Option<usize>,
    /// How long requests may take to finish in a drain; tunnels are ended within the first third of it.
    /// nginx: `worker_shutdown_timeout`.
    pub shutdown_timeout: Duration,
    /// How long clients are served after SIGTERM before the drain begins, while health checks say that hopgate is
    /// not ready.
    pub shutdown_delay: Duration,
    /// The most client connections at a time, tunnels included, over all workers; `None`: no limit.
    pub max_connections: Option<usize>,
    /// The same for one client address; `None`: no limit.
    pub max_connections_per_ip: Option<usize>,
    /// Where what happens is told, and how much of it. nginx: `error_log`.
    pub error_log: ErrorLog,
    /// Each address to listen on, once, however many servers share it.
    pub listeners: Vec<Listener>,
    /// Where health checks are answered, each address once.
    pub health: Vec<ListenAddress>,
    /// The servers in the order of the file.
    pub servers: Vec<Server>,
    /// The groups of upstream servers: those with a name, then one for each other address of a
    /// `proxy_pass`, which all locations with that address share.
    pub upstreams: Vec<Upstream>,
    /// How their names are resolved.
    pub resolver: ResolverRules,
    /// How TLS is spoken with them, each way once.
    pub tls_clients: Vec<Arc<TlsClient>>,
    /// What requests are counted in for `limit_req` and `limit_conn`.
    pub zones: Zones,
    /// The operator's own variables: [`Variable::User`](crate::routing::variables::Variable::User) is a
    /// place in this list.
    pub variables: Vec<OwnVariable>,
    /// How certificates are ordered, if any server has `tls = "acme"`.
    pub acme: Option<Acme>,
    /// What in its file will surprise.
    pub warnings: Warnings,
}

/// A variable that `map`, `set` or a named group of a regular expression makes.
#[derive(Debug)]
pub struct OwnVariable {
    /// Its name without the `$`.
    pub name: String,
    /// The map that it gets its value from, unless it was given one.
    pub map: Option<Map>,
}

/// An address that clients connect to, and who answers there.
#[derive(Debug)]
pub struct Listener {
    /// Where to listen.
    pub address: ListenAddress,
    /// Whether clients speak TLS there. nginx: `ssl` in `listen`.
    pub tls: bool,
    /// Whether a client without TLS may speak HTTP/2 from its first byte on (`h2c`, RFC 9113 §3.3). nginx:
    /// `http2` in `listen`.
    pub http2: bool,
    /// Whether every connection begins with a header of the PROXY protocol, from a peer that the default server
    /// trusts (R18). nginx: `proxy_protocol` in `listen`.
    pub proxy_protocol: bool,
    /// Which server answers for which host; the numbers are places in [`Config::servers`].
    pub servers: ServerNames,
    /// All of these servers.
    pub places: Vec<usize>,
}

impl Listener {
    /// Whether the server at this place listens there, too.
    pub fn has(&self, server: usize) -> bool {
        self.places.contains(&server)
    }
}

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ListenAddress {
    /// IPv4 or IPv6 with its port. Port 0 asks the system for a free one.
    Tcp(SocketAddr),
    /// The path of a Unix-domain socket.
    Unix(PathBuf),
    /// The sockets that systemd passes under this name (`FileDescriptorName=`), wherever they are.
    Named(Arc<str>),
}

/// The locations that share a host name.
#[derive(Debug)]
pub struct Server {
    /// The first name: `$server_name`; empty without a `server_name`.
    pub name: String,
    /// Finds a location for a path, as a place in `locations`.
    pub paths: Locations,
    /// Named locations, with the `@`, as places in `locations`.
    pub named: HashMap<String, usize>,
    /// Those of the file, nested ones behind the one that they are nested in; the last one is
    /// [`Server::outer`].
    pub locations: Vec<Location>,
    /// Its steps of `set`, `rewrite` and `return`.
    pub script: Vec<Step>,
    /// What a client may do on a connection. Until the host of a request is known, the limits of
    /// the default server of the listening address are in force, as in nginx.
    pub limits: ClientLimits,
    /// Whose `X-Forwarded-*` fields are believed, and who the client is by them.
    pub real_ip: Arc<RealIp>,
    /// What is done with `%2F` and `%5C` in a path (R30).
    pub encoded_slashes: EncodedSlashes,
    /// How it speaks TLS; `None`: none of its addresses has TLS.
    pub tls: Option<TlsRules>,
}

impl Server {
    /// The place of what the server itself says outside of every location: it answers where no location
    /// has the path.
    pub fn outer(&self) -> usize {
        self.locations.len() - 1
    }
}

/// How `%2F` and `%5C` in the path of a request are treated (R30): proxies and apps disagree about
/// what they mean, so they are a way around access rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncodedSlashes {
    /// The request is refused with 400. The default.
    Reject,
    /// Matched as a slash, sent to the upstream as it came.
    Pass,
}

/// What a client may do on a connection.
#[derive(Clone, Debug)]
pub struct ClientLimits {
    /// The most bytes of a request head; beyond it 414 (request line) or 431.
    pub head_size: usize,
    /// The most fields of a request head; beyond it 431. nginx: `max_headers`.
    pub max_headers: usize,
    /// For the whole head of a request, from its first byte. nginx: `client_header_timeout`.
    pub header_timeout: Duration,
    /// How long an idle connection is kept for a next request. nginx: `keepalive_timeout`.
    pub keepalive_timeout: Duration,
    /// The most requests on one connection; `None`: no limit. nginx: `keepalive_requests`.
    pub keepalive_requests: Option<u64>,
    /// Whether fields with `_` in their name are kept (R15). nginx: `underscores_in_headers`.
    pub underscores_in_headers: bool,
    /// How long a client may take nothing. nginx: `send_timeout`.
    pub send_timeout: Duration,
    /// Whether HTTP/2 is offered in the handshake of TLS. nginx: `http2`.
    pub http2: bool,
    /// The most requests at a time on one connection of HTTP/2. nginx: `http2_max_concurrent_streams`.
    pub http2_streams: u32,
}

/// What is done with the requests for some paths.
#[derive(Debug)]
pub struct Location {
    /// Which paths.
    pub matcher: PathMatcher,
    /// Whether only hopgate itself may send requests here, by a rewrite or an error page.
    pub internal: bool,
    /// Its steps of `set`, `rewrite` and `return`.
    pub script: Vec<Step>,
    /// Where its answers come from.
    pub content: Content,
    /// Its static files; also where the answers come from elsewhere, for variables and `try_files`.
    pub files: FileRules,
    /// What is answered instead of an error.
    pub error_pages: Vec<ErrorPage>,
    /// Whether errors of the upstream are answered so, too. nginx: `proxy_intercept_errors`.
    pub intercept_errors: bool,
    /// Whether an error page may have an error page. nginx: `recursive_error_pages`.
    pub recursive_error_pages: bool,
    /// How the `Location` of hopgate's own redirects is written.
    pub redirects: Redirects,
    /// Whether hopgate says by itself who the client is.
    pub forwarded_headers: ForwardedHeaders,
    /// When another server of its upstream is tried.
    pub next_upstream: NextUpstream,
    /// What `proxy_set_header` says, in the order of the file; a name stands once.
    pub set_headers: Vec<(FieldName, Template)>,
    /// What happens to upgrade requests.
    pub upgrade: UpgradeRules,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// The most bytes of a request body, beyond it 413; `None`: no limit. nginx: `client_max_body_size`.
    pub max_body_size: Option<u64>,
    /// How upstreams are spoken to. nginx: `proxy_http_version`.
    pub http_version: UpstreamVersion,
    /// The header of the PROXY protocol that connections to upstreams begin with; `None`: they have none. nginx:
    /// `proxy_protocol` of its `stream` module.
    pub proxy_protocol: Option<ProxyVersion>,
    /// Whether trailers are passed in both directions, asked for or not (R27). nginx: `proxy_pass_trailers`.
    pub pass_trailers: bool,
    /// Who may come, and how often.
    pub access: AccessRules,
    /// Where requests are recorded.
    pub access_logs: Arc<[Arc<AccessLog>]>,
    /// What becomes of answers.
    pub responses: ResponseRules,
    /// What becomes of requests for the upstream.
    pub requests: RequestRules,
}

impl Location {
    /// Where its requests go, if they go upstream.
    pub fn proxy_pass(&self) -> Option<&ProxyPass> {
        match &self.content {
            Content::Proxy(pass) => Some(pass),
            Content::Files | Content::Nothing => None,
        }
    }

    /// What is answered instead of an error of this status.
    pub fn error_page(&self, status: u16) -> Option<&ErrorPage> {
        self.error_pages.iter().find(|page| page.statuses.contains(&status))
    }
}

/// Where the answers of a location come from.
#[derive(Debug)]
pub enum Content {
    /// From an upstream: `proxy_pass`.
    Proxy(ProxyPass),
    /// From the file system: `root` or `alias`.
    Files,
    /// There are none but those of its steps: all others are 404.
    Nothing,
}

/// An `error_page`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorPage {
    /// The errors that it is for.
    pub statuses: Vec<u16>,
    /// The status that the client gets.
    pub answer: PageStatus,
    /// A path, a URL, or the name of a location with its `@`.
    pub to: Template,
}

/// The status of an error page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageStatus {
    /// That of the error.
    OfError,
    /// `=`: that of the page.
    OfPage,
    /// `=200`: this one.
    Fixed(u16),
}

/// How the `Location` of hopgate's own redirects is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redirects {
    /// Whether it has a scheme and a host. nginx: `absolute_redirect`.
    pub absolute: bool,
    /// Whether it has the port, where that is not the scheme's own. nginx: `port_in_redirect`.
    pub port: bool,
    /// Whether the host is the first `server_name` instead of that of the request. nginx:
    /// `server_name_in_redirect`.
    pub server_name: bool,
}

/// Who tells upstreams where a request came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardedHeaders {
    /// hopgate sets `X-Forwarded-For`, `-Proto`, `-Host` and `X-Real-IP`, and believes those of
    /// `trusted_proxies` only (R14). The default.
    Set,
    /// The same, and `Forwarded` (RFC 7239).
    SetRfc7239,
    /// As with nginx: what the client sent is passed on, and nothing is added but by `proxy_set_header`.
    Pass,
}

/// Which upgrades a location lets pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpgradeRules {
    /// Whether WebSocket handshakes are tunnelled; if not, they are refused with 403.
    pub websocket: bool,
    /// Other protocols that are tunnelled, in lower case; never `h2c`. All others are ordinary HTTP.
    pub protocols: Vec<String>,
}

/// How long things may take in a location.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// To connect to an upstream server.
    pub proxy_connect: Duration,
    /// Between two reads from the upstream.
    pub proxy_read: Duration,
    /// Between two writes to the upstream.
    pub proxy_send: Duration,
    /// Between two reads of a request's body. nginx: `client_body_timeout`.
    pub client_body: Duration,
    /// Between two writes to the client. nginx: `send_timeout`.
    pub send: Duration,
    /// From an upgrade request to its answer.
    pub tunnel_handshake: Duration,
    /// Without a byte in either direction; `None`: no limit.
    pub tunnel_idle: Option<Duration>,
    /// Which setting [`Timeouts::tunnel_idle`] came from: named in the log when it ends a tunnel.
    pub tunnel_idle_key: &'static str,
    /// How long the second direction may go on after the first has ended.
    pub tunnel_linger: Duration,
    /// In all; `None`: no limit.
    pub tunnel_age: Option<Duration>,
}

/// Where what happens is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorLog {
    /// The place.
    pub target: LogTarget,
    /// From this level on; `RUST_LOG` overrides it.
    pub level: tracing::Level,
}

/// Where requests are recorded, and how.
#[derive(Debug, PartialEq, Eq)]
pub struct AccessLog {
    /// The place.
    pub target: LogTarget,
    /// What a line says.
    pub format: LogFormat,
    /// What must not be empty or `0` for a line to be written; `None`: every request has its line.
    pub condition: Option<Template>,
}

/// A place for log lines.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LogTarget {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file that lines are appended to; SIGUSR1 opens it anew.
    File(PathBuf),
}

/// What a line of an access log says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFormat {
    /// The text with its variables.
    pub template: Template,
    /// How values are written.
    pub escape: Escape,
}

/// How the value of a variable is written in a log line, as nginx's `escape` of `log_format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escape {
    /// `"`, `\`, control and non-ASCII bytes become `\xHH`; an empty value becomes `-`.
    Default,
    /// As inside a JSON string.
    Json,
    /// As it is, except that control bytes become `\xHH`: one line stays one line.
    None,
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// The file cannot be read, or every mistake that is in it.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        Self::load_with_places(path).map(|(config, _)| config)
    }

    /// As [`Config::load`], with the places of what is written.
    ///
    /// # Errors
    /// The file cannot be read, or every mistake that is in it.
    pub fn load_with_places(path: &Path) -> Result<(Self, Places), ConfigErrors> {
        let (name, text) = read_text(path)?;
        Self::parse_with_places(&name, &text)
    }

    /// Checks the text of a file; `name` is what mistakes are reported under.
    ///
    /// # Errors
    /// Every mistake that is in it.
    pub fn parse(name: &str, text: &str) -> Result<Self, ConfigErrors> {
        Self::parse_with_places(name, text).map(|(config, _)| config)
    }

    /// As [`Config::parse`], with the places of what is written.
    ///
    /// # Errors
    /// Every mistake that is in it.
    pub fn parse_with_places(name: &str, text: &str) -> Result<(Self, Places), ConfigErrors> {
        let (file, mut mistakes) = read::document(text);
        let mut config = check::config(&file, text, &mut mistakes);
        config.warnings = Warnings::of(name, text, &mistakes);
        ConfigErrors::unless_empty(name, text, mistakes)
            .map_or_else(|| Ok((config, Places::new(name, text, file))), Err)
    }

    /// Where health checks are answered by the configuration in a file, however wrong the rest of it may be: it may
    /// have been changed since it was taken into use.
    ///
    /// # Errors
    /// The file cannot be read, or every mistake in it where the addresses cannot be known for one of them.
    pub fn load_health(path: &Path) -> Result<Vec<ListenAddress>, ConfigErrors> {
        let (name, text) = read_text(path)?;
        let (file, mut mistakes) = read::document(&text);
        let health = check::health(&file, &mut mistakes);
        match health.is_empty() {
            true => ConfigErrors::unless_empty(&name, &text, mistakes).map_or(Ok(health), Err),
            false => Ok(health),
        }
    }

    /// The same with other addresses for health checks.
    ///
    /// # Errors
    /// A server listens on one of them; the words name the flag `--health`.
    pub fn with_health(mut self, health: &[ListenAddress]) -> Result<Self, ConfigErrors> {
        let mut mistakes = Vec::new();
        self.health = check::health_of_flags(health, &self.listeners, &mut mistakes);
        ConfigErrors::of_flags(mistakes).map_or(Ok(self), Err)
    }

    /// A configuration without a file: everything that comes to one of the addresses goes to the
    /// upstream, with the default of every setting.
    ///
    /// # Errors
    /// What is wrong with the addresses or the URL, in words that name the flags `--listen` and
    /// `--upstream`.
    pub fn quick(listen: &[ListenAddress], upstream_url: &str) -> Result<Self, ConfigErrors> {
        let mut mistakes = Vec::new();
        let config = check::quick(listen, upstream_url, &mut mistakes);
        ConfigErrors::of_flags(mistakes).map_or(Ok(config), Err)
    }

    /// The same over TLS alone, with a certificate that is made at the start, for names of this machine.
    pub fn with_self_signed(mut self) -> Self {
        for listener in &mut self.listeners {
            listener.tls = true;
        }
        for server in &mut self.servers {
            server.tls = Some(TlsRules::self_signed(Vec::new()));
        }
        self
    }
}

/// The most bytes of a file: far more than anybody writes, and little enough to be held.
const LARGEST_FILE: u64 = 16 << 20;

/// What mistakes in a file are reported under, and its text.
fn read_text(path: &Path) -> Result<(String, String), ConfigErrors> {
    let name = path.display().to_string();
    let bytes = read_bounded(path).map_err(|error| ConfigErrors::unreadable(path, &error))?;
    let text = String::from_utf8(bytes).map_err(|error| ConfigErrors::not_utf8(&name, &error))?;
    Ok((name, text))
}

/// Reads a file or a pipe, such as `/dev/stdin`; a device might never end.
fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let kind = fs::metadata(path)?.file_type();
    if kind.is_char_device() || kind.is_block_device() {
        return Err(io::Error::other("it is a device, neither a file nor a pipe"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(LARGEST_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(io::Error::other("it has more than 16 MiB, as no configuration has"));
    }
    Ok(bytes)
}

/// As it is written in `listen`.
impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Named(name) => write!(f, "fd:{name}"),
        }
    }
}
