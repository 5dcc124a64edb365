//! The same file, first run by nginx and then imported and run by hopgate, and the same requests to both.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

use crate::support::{
    ACCEPT, Authority, Dir, Hopgate, Import, Nginx, NodeApp, OpenSslPeer, Peer, certificate, free_addr,
    handshake, read_text, text_frame,
};

/// A request, or a WebSocket with one message.
pub struct Ask {
    line: String,
    host: String,
    fields: Vec<String>,
    body: String,
    is_websocket: bool,
    /// Whether it goes to the second address of the file.
    is_to_second: bool,
    /// Whether it goes there over TLS.
    is_over_tls: bool,
    /// Whether it shows a certificate there, by its name.
    certificate: Option<&'static str>,
    /// Why hopgate may answer otherwise.
    better: Option<&'static str>,
}

pub fn get(target: &str) -> Ask {
    ask("GET", target)
}

pub fn post(target: &str, body: &str) -> Ask {
    Ask { body: body.into(), ..ask("POST", target) }
}

pub fn ask(method: &str, target: &str) -> Ask {
    let line = format!("{method} {target} HTTP/1.1");
    Ask {
        line,
        host: "localhost".into(),
        fields: Vec::new(),
        body: String::new(),
        is_websocket: false,
        is_to_second: false,
        is_over_tls: false,
        certificate: None,
        better: None,
    }
}

pub fn websocket(target: &str) -> Ask {
    Ask { is_websocket: true, ..ask("GET", target) }
}

impl Ask {
    pub fn host(mut self, host: &str) -> Self {
        self.host = host.into();
        self
    }

    pub fn field(mut self, line: &str) -> Self {
        self.fields.push(line.into());
        self
    }

    /// To `listen 443`, 8443 or 8020 instead of `listen 80`.
    pub fn at_second_address(mut self) -> Self {
        self.is_to_second = true;
        self
    }

    /// Over TLS, to `listen 443 ssl`; the name that is asked for is the host.
    pub fn over_tls(mut self) -> Self {
        self.is_over_tls = true;
        self.at_second_address()
    }

    /// With a certificate of the client: `member`, whom the CA of the site knows, or `stranger`.
    pub fn certificate(mut self, name: &'static str) -> Self {
        self.certificate = Some(name);
        self.over_tls()
    }

    /// hopgate opens this WebSocket, and nginx does not.
    pub fn only_here(self) -> Self {
        self.better("a WebSocket needs no configuration")
    }

    /// hopgate answers otherwise, for this reason. It has to: a difference that is gone is to be taken off the list.
    pub fn better(mut self, why: &'static str) -> Self {
        self.better = Some(why);
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut lines = vec![self.line.clone(), format!("Host: {}", self.host)];
        lines.extend(self.fields.iter().cloned());
        if self.is_websocket {
            // Everything behind the Host of a proper handshake.
            lines.extend(handshake("/").trim_end().split("\r\n").skip(2).map(str::to_owned));
        }
        if !self.body.is_empty() {
            lines.push(format!("Content-Length: {}", self.body.len()));
        }
        format!("{}\r\n\r\n{}", lines.join("\r\n"), self.body).into_bytes()
    }
}

/// What came of it, without what is each proxy's own.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    status: u16,
    /// The fields of the answer, names in lower case, sorted.
    fields: Vec<(String, String)>,
    /// A body that is not an error page of the proxy's own.
    body: Option<String>,
    /// What the app was asked.
    asked: Option<Asked>,
    /// Whether a tunnel was opened and a message came back through it.
    echoed: bool,
}

/// A request as the app got it.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    /// Which of its ports.
    port: u64,
    line: String,
    body: String,
    fields: BTreeMap<String, Vec<String>>,
}

/// Runs a file of `tests/nginx` with nginx, imports it, runs that, and compares the outcomes of all requests.
#[track_caller]
pub fn compare(file: &str, asks: &[Ask]) {
    compare_with(file, str::to_owned, asks);
}

/// As [`compare`], for a file that is not what stands in an `http` block: `http` makes that of it, for nginx
/// alone, with `ADDRESS` for where it listens.
#[track_caller]
pub fn compare_with(file: &str, http: fn(&str) -> String, asks: &[Ask]) {
    if !Nginx::is_installed() {
        return;
    }
    let place = Place::of(file);
    let addr = place.addrs[0].to_string();
    // As in the nginx.conf that every package brings along.
    let types = "include /etc/nginx/mime.types;";
    let nginx =
        Nginx::start_in(place.dir, &format!("{types}\n{}", http(&place.site).replace("ADDRESS", &addr)));
    let by_nginx: Vec<Outcome> = asks.iter().map(|ask| outcome(place.addrs, ask)).collect();
    let dir = nginx.stop();
    let import = Import::of_sound(&dir.join("site.conf"));
    // The test knows by the log that hopgate has started.
    let is_error_log = |line: &&str| line.starts_with("error_log = ");
    let toml: Vec<&str> = import.toml.lines().filter(|line| !is_error_log(line)).collect();
    // Where an import listens that has no server in it.
    let hopgate = Hopgate::start(&toml.join("\n").replace("127.0.0.1:8080", &addr));
    let mut differences = String::new();
    for (ask, nginx) in asks.iter().zip(by_nginx) {
        let here = outcome(place.addrs, ask);
        let is_same = alike(&nginx, &here);
        if is_same && let Some(why) = ask.better {
            differences += &format!("{}: no longer different: {why}\n", ask.line);
        }
        if !is_same && ask.better.is_none() {
            let what = if ask.is_websocket { "WebSocket, " } else { "" };
            differences += &format!("{what}{} of {}\n{}", ask.line, ask.host, both(&nginx, &here));
        }
    }
    drop(hopgate);
    assert!(differences.is_empty(), "{file}\n{differences}\n{}\n{}", import.toml, import.report);
}

/// The differing lines of two outcomes.
fn both(nginx: &Outcome, hopgate: &Outcome) -> String {
    let lines = |outcome: &Outcome| -> Vec<String> {
        format!("{outcome:#?}").lines().map(|line| line.trim().to_owned()).collect()
    };
    let (nginx, hopgate) = (lines(nginx), lines(hopgate));
    let only = |these: &[String], those: &[String], who: &str| -> String {
        these.iter().filter(|line| !those.contains(line)).map(|line| format!("{who}: {line}\n")).collect()
    };
    format!("{}{}", only(&nginx, &hopgate, "    nginx"), only(&hopgate, &nginx, "  hopgate"))
}

/// A file made runnable: with addresses and paths that are there.
struct Place {
    dir: Dir,
    site: String,
    addrs: [SocketAddr; 2],
}

impl Place {
    #[track_caller]
    fn of(file: &str) -> Self {
        let dir = Dir::new();
        let addrs = [free_addr(), free_addr()];
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nginx");
        let read = |path: &Path| {
            let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            runnable(&text, &dir, addrs)
        };
        let site = read(&folder.join(file));
        fs::write(dir.join("site.conf"), &site).expect("a file can be written");
        fs::create_dir_all(dir.join("log/demo.example.com")).expect("a directory can be made");
        fs::create_dir_all(dir.join("snippets")).expect("a directory can be made");
        certificates_of(&site);
        fs::write(dir.join("ca.pem"), authority().pem()).expect("a file can be written");
        let snippet = read(&folder.join("apps/snippets/proxy.conf"));
        fs::write(dir.join("snippets/proxy.conf"), snippet).expect("a file can be written");
        fs::copy(folder.join("htpasswd"), dir.join("htpasswd")).expect("a file can be copied");
        Self { dir, site, addrs }
    }
}

/// Makes the certificates that a site names, with their keys.
fn certificates_of(site: &str) {
    let named = |directive: &str| -> Vec<&str> {
        let lines = site.lines().filter_map(|line| line.trim().strip_prefix(directive)?.split(';').next());
        lines.map(str::trim).collect()
    };
    for (certificate, key) in named("ssl_certificate ").into_iter().zip(named("ssl_certificate_key ")) {
        let issued = authority().issue(&["safe.example.com", "members.example.com", "demo.example.com"]);
        for (path, pem) in [(certificate, issued.pem().to_owned()), (key, issued.key_pem())] {
            let path = Path::new(path);
            fs::create_dir_all(path.parent().expect("a file in a folder")).expect("a folder can be made");
            fs::write(path, pem).expect("a file can be written");
        }
    }
}

fn runnable(text: &str, dir: &Dir, [first, second]: [SocketAddr; 2]) -> String {
    let has_ipv6 = TcpListener::bind("[::1]:0").is_ok();
    let listens = |line: &str| {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some("listen"), Some("[::]:80" | "[::]:80;")) if !has_ipv6 => String::new(),
            (Some("listen"), Some("[::]:80" | "[::]:80;")) => {
                line.replace("[::]:80", &format!("[::1]:{}", first.port()))
            }
            (Some("listen"), Some("80" | "80;")) => line.replace("80", &first.to_string()),
            (Some("listen"), Some("[::]:443" | "[::]:443;")) if !has_ipv6 => String::new(),
            (Some("listen"), Some("[::]:443" | "[::]:443;")) => {
                line.replace("[::]:443", &format!("[::1]:{}", second.port()))
            }
            (Some("listen"), Some(port)) if ["443", "8443", "8020"].contains(&port.trim_end_matches(';')) => {
                line.replacen(port.trim_end_matches(';'), &second.to_string(), 1)
            }
            _ => line.to_owned(),
        }
    };
    let mut text = text.lines().map(listens).collect::<Vec<_>>().join("\n") + "\n";
    for (index, addr) in app().addrs().iter().enumerate() {
        let port = addr.rsplit(':').next().unwrap_or_default();
        text = text.replace(&format!("127.0.0.1:300{index}"), addr);
        text = text.replace(&format!("localhost:300{index}"), &format!("localhost:{port}"));
        text = text.replace(&format!("_port 300{index};"), &format!("_port {port};"));
    }
    let www = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nginx/www");
    text.replace("localhost:80/", &format!("{first}/"))
        .replace("localhost:443/", &format!("{second}/"))
        .replace("/usr/share/nginx/html", &www.display().to_string())
        .replace("/etc/nginx/", &dir.path(""))
        .replace("/root/ssl/", &dir.path("ssl/"))
        .replace("/etc/letsencrypt/", &dir.path("ssl/"))
        .replace("/var/log/nginx", &dir.path("log"))
}

/// Who has issued every certificate but that of the stranger.
fn authority() -> &'static Authority {
    static AUTHORITY: OnceLock<Authority> = OnceLock::new();
    AUTHORITY.get_or_init(|| Authority::new("The CA, of tests"))
}

/// The certificates of clients.
fn clients() -> &'static Dir {
    static CLIENTS: OnceLock<Dir> = OnceLock::new();
    CLIENTS.get_or_init(|| {
        let dir = Dir::new();
        authority().sign(certificate("member", &[])).write(&dir, "member");
        Authority::new("another").sign(certificate("stranger", &[])).write(&dir, "stranger");
        dir
    })
}

/// The app behind all of them, on three ports. It ends with this process.
fn app() -> &'static NodeApp {
    static APP: OnceLock<NodeApp> = OnceLock::new();
    APP.get_or_init(|| NodeApp::echoing_on(3))
}

#[track_caller]
fn outcome(addrs: [SocketAddr; 2], ask: &Ask) -> Outcome {
    let addr = addrs[usize::from(ask.is_to_second)];
    let stream = TcpStream::connect(addr).unwrap_or_else(|error| panic!("cannot connect to {addr}: {error}"));
    if ask.is_over_tls {
        let name = ask.host.split(':').next().unwrap_or_default();
        let own = ask.certificate.map(|name| clients().join(name));
        return outcome_of(&mut OpenSslPeer::connect(addr, name, own.as_deref()).peer, ask);
    }
    outcome_of(&mut Peer::new("client", stream), ask)
}

#[track_caller]
fn outcome_of(client: &mut Peer, ask: &Ask) -> Outcome {
    client.send(ask.bytes());
    if ask.line.starts_with("HEAD ") {
        let head = client.head();
        return Outcome {
            status: head.status(),
            fields: told(&head.fields),
            body: None,
            asked: None,
            echoed: false,
        };
    }
    let response = client.response();
    let (status, fields) = (response.status, told(&response.head.fields));
    if status == 101 {
        assert_eq!(response.head.field("Sec-WebSocket-Accept"), Some(ACCEPT), "in\n{}", response.head);
        let asked = Some(Asked::of(&read_text(client)));
        let echoed = ["hello", &"x".repeat(20_000)].iter().all(|text| {
            client.send(text_frame(text));
            read_text(client) == *text
        });
        return Outcome { status, fields, body: None, asked, echoed };
    }
    let is_the_apps = response.head.field("X-App").is_some();
    let body = match response.head.field("Content-Encoding") {
        Some("gzip") => gunzip(&response.body),
        _ => response.text(),
    };
    let asked = (is_the_apps && body.starts_with('{')).then(|| Asked::of(&body));
    let body = asked.is_none().then_some(body);
    Outcome { status, fields, body, asked, echoed: false }
}

/// The fields of an answer that say something of it, not of who says it. `Expires` is told from the answer's own
/// date on: the two proxies are not asked in the same second.
fn told(fields: &[(String, String)]) -> Vec<(String, String)> {
    let date_of = |wanted: &str| {
        let field = fields.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
        field.and_then(|(_, value)| httpdate::parse_http_date(value).ok())
    };
    let lives = date_of("expires").zip(date_of("date")).map(|(until, date)| until.duration_since(date));
    const OWN: [&str; 7] =
        ["server", "date", "connection", "keep-alive", "transfer-encoding", "content-length", "upgrade"];
    let fields = fields.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone()));
    let mut fields: Vec<_> = fields.filter(|(name, _)| !OWN.contains(&name.as_str())).collect();
    if let Some(Ok(lives)) = lives {
        let expires = fields.iter_mut().filter(|(name, _)| name == "expires");
        // `expires max` is always the same date.
        const LONG: u64 = 9 * 365 * 86_400;
        expires
            .filter(|_| lives.as_secs() < LONG)
            .for_each(|(_, value)| *value = format!("{} s from its date on", lives.as_secs()));
    }
    fields.sort();
    fields
}

impl Asked {
    #[track_caller]
    fn of(json: &str) -> Self {
        let json: Value = serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {json}"));
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut fields: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for field in json["fields"].as_array().into_iter().flatten() {
            fields.entry(text(&field[0]).to_ascii_lowercase()).or_default().push(text(&field[1]));
        }
        // hopgate speaks HTTP/1.1 with every app. What of these fields a connection has is the proxy's own; whether an
        // upgrade works is seen by what comes of it.
        for own in ["connection", "upgrade", "keep-alive"] {
            fields.remove(own);
        }
        let line = format!("{} {}", text(&json["method"]), text(&json["url"]));
        let port = json["port"].as_u64().unwrap_or_default();
        Self { port, line, body: text(&json["body"]), fields }
    }
}

/// Whether two outcomes are the same but for what is known to be different.
fn alike(nginx: &Outcome, hopgate: &Outcome) -> bool {
    let is_nginx_page = nginx.body.as_ref().is_some_and(|body| body.contains("<hr><center>nginx"));
    let fields = |outcome: &Outcome| -> Vec<(String, String)> {
        let fields = outcome.fields.iter().filter(|(name, _)| !is_nginx_page || name != "content-type");
        fields.cloned().collect()
    };
    let is_asked_alike = match (&nginx.asked, &hopgate.asked) {
        (Some(nginx), Some(hopgate)) => nginx == hopgate,
        (nginx, hopgate) => nginx.is_none() && hopgate.is_none(),
    };
    nginx.status == hopgate.status
        && nginx.echoed == hopgate.echoed
        && is_asked_alike
        && fields(nginx) == fields(hopgate)
        && (is_nginx_page || nginx.body == hopgate.body)
}

#[track_caller]
fn gunzip(bytes: &[u8]) -> String {
    let dir = Dir::new();
    fs::write(dir.join("body.gz"), bytes).expect("a file can be written");
    let output = Command::new("gzip").args(["-dc", &dir.path("body.gz")]).output().expect("gzip can be run");
    assert!(output.status.success(), "not gzip: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
