//! The client's address is the same everywhere (logs, limits, access rules, the choice of a server, fields), whichever
//! way it is told and whichever way the request comes.

mod support;

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use support::{
    Authority, Balancer, DEADLINE, Dir, Head, Hopgate, Http2, Nginx, Peer, TlsClient, Upstream, eventually,
    free_addr, handshake, proxy_v2, switching,
};

/// What the fields of a request say, and what that makes of it if they come from a trusted proxy.
struct Claim {
    /// Lines of the server.
    setting: &'static str,
    fields: &'static [&'static str],
    /// Whom they name; nobody if it is empty.
    client: &'static str,
    /// With this port.
    port: &'static str,
    /// What `X-Forwarded-For` says ahead of the peer.
    chain: &'static str,
    /// What `Forwarded` says ahead of the peer.
    forwarded: &'static str,
}

const fn claim(
    setting: &'static str,
    fields: &'static [&'static str],
    (client, port): (&'static str, &'static str),
    chain: &'static str,
    forwarded: &'static str,
) -> Claim {
    Claim { setting, fields, client, port, chain, forwarded }
}

const BY_DEFAULT: &str = "";
const LAST: &str = "real_ip_recursive = false";
const RFC7239: &str = "real_ip_header = 'Forwarded'";
const X_REAL_IP: &str = "real_ip_header = 'X-Real-IP'";
const BALANCER: &str = "real_ip_header = 'proxy_protocol'";
const NOBODY: (&str, &str) = ("", "");
const CLIENT: (&str, &str) = ("192.0.2.99", "");

const CLAIMS: &[Claim] = &[
    claim(BY_DEFAULT, &[], NOBODY, "", ""),
    claim(BY_DEFAULT, &["X-Forwarded-For: 192.0.2.99"], CLIENT, "192.0.2.99", "for=192.0.2.99"),
    claim(
        BY_DEFAULT,
        &["X-Forwarded-For: 6.6.6.6, 192.0.2.99"],
        CLIENT,
        "6.6.6.6, 192.0.2.99",
        "for=192.0.2.99",
    ),
    claim(
        BY_DEFAULT,
        &["X-Forwarded-For: 6.6.6.6, 192.0.2.99, 10.2.2.2"],
        CLIENT,
        "6.6.6.6, 192.0.2.99, 10.2.2.2",
        "for=192.0.2.99",
    ),
    claim(
        BY_DEFAULT,
        &["X-Forwarded-For: 6.6.6.6, 2001:db8::9", "X-Forwarded-For: fd00::2"],
        ("2001:db8::9", ""),
        "6.6.6.6, 2001:db8::9, fd00::2",
        "for=\"[2001:db8::9]\"",
    ),
    claim(
        BY_DEFAULT,
        &["X-Forwarded-For: [2001:db8::9]:4712"],
        ("2001:db8::9", "4712"),
        "[2001:db8::9]:4712",
        "for=\"[2001:db8::9]:4712\"",
    ),
    claim(
        BY_DEFAULT,
        &["X-Forwarded-For: 6.6.6.6, nonsense, 10.2.2.2"],
        ("10.2.2.2", ""),
        "6.6.6.6, nonsense, 10.2.2.2",
        "for=10.2.2.2",
    ),
    claim(BY_DEFAULT, &["X-Forwarded-For: 6.6.6.6, nonsense"], NOBODY, "6.6.6.6, nonsense", ""),
    claim(BY_DEFAULT, &["Forwarded: for=6.6.6.6", "X-Real-IP: 6.6.6.6"], NOBODY, "", "for=6.6.6.6"),
    claim(
        LAST,
        &["X-Forwarded-For: 6.6.6.6, 192.0.2.99, 10.2.2.2"],
        ("10.2.2.2", ""),
        "6.6.6.6, 192.0.2.99, 10.2.2.2",
        "for=10.2.2.2",
    ),
    claim(RFC7239, &["Forwarded: for=192.0.2.99"], CLIENT, "192.0.2.99", "for=192.0.2.99"),
    claim(
        RFC7239,
        &["Forwarded: for=6.6.6.6, for=\"[2001:db8::9]:4711\";by=_b", "Forwarded: for=10.2.2.2"],
        ("2001:db8::9", "4711"),
        "2001:db8::9",
        "for=6.6.6.6, for=\"[2001:db8::9]:4711\";by=_b, for=10.2.2.2",
    ),
    // A balancer that writes the one lets the other pass as the client has sent it.
    claim(
        RFC7239,
        &["Forwarded: for=192.0.2.99", "X-Forwarded-For: 6.6.6.6"],
        CLIENT,
        "6.6.6.6, 192.0.2.99",
        "for=192.0.2.99",
    ),
    claim(
        RFC7239,
        &["Forwarded: for=192.0.2.99", "X-Forwarded-For: 6.6.6.6, 192.0.2.99"],
        CLIENT,
        "6.6.6.6, 192.0.2.99",
        "for=192.0.2.99",
    ),
    claim(RFC7239, &["Forwarded: for=6.6.6.6, for=_hidden"], NOBODY, "", "for=6.6.6.6, for=_hidden"),
    claim(
        RFC7239,
        &["Forwarded: for=6.6.6.6, for=unknown, for=10.2.2.2"],
        ("10.2.2.2", ""),
        "10.2.2.2",
        "for=6.6.6.6, for=unknown, for=10.2.2.2",
    ),
    claim(RFC7239, &["Forwarded: for=6.6.6.6;host=\", for=192.0.2.99"], NOBODY, "", "for=unknown"),
    claim(
        X_REAL_IP,
        &["X-Real-IP: 192.0.2.99", "X-Forwarded-For: 6.6.6.6"],
        CLIENT,
        "6.6.6.6, 192.0.2.99",
        "for=192.0.2.99",
    ),
    claim(BALANCER, &["X-Forwarded-For: 192.0.2.99", "X-Real-IP: 6.6.6.6"], NOBODY, "192.0.2.99", ""),
];

/// Whom hopgate has at the other end of a connection.
#[derive(Clone, Copy)]
struct Connected {
    header: Option<(u8, &'static str)>,
    ip: &'static str,
    is_trusted: bool,
}

const PORT: u16 = 4711;

const CONNECTED: &[Connected] = &[
    Connected { header: None, ip: "127.0.0.1", is_trusted: true },
    Connected { header: None, ip: "127.0.0.1", is_trusted: false },
    Connected { header: Some((1, "198.51.100.1")), ip: "10.1.1.1", is_trusted: true },
    Connected { header: Some((2, "198.51.100.1")), ip: "10.1.1.1", is_trusted: true },
    Connected { header: Some((1, "198.51.100.1")), ip: "192.0.2.7", is_trusted: false },
    Connected { header: Some((2, "198.51.100.1")), ip: "192.0.2.7", is_trusted: false },
    Connected { header: Some((2, "2001:db8::1")), ip: "fd00::1", is_trusted: true },
    Connected { header: Some((1, "2001:db8::1")), ip: "2001:db8::7", is_trusted: false },
];

impl Connected {
    /// What a balancer sends for it.
    fn header(&self) -> Option<Vec<u8>> {
        let (version, to) = self.header?;
        let (from, to): (IpAddr, IpAddr) = (self.ip.parse().unwrap(), to.parse().unwrap());
        let family = if from.is_ipv4() { 4 } else { 6 };
        if version == 1 {
            return Some(format!("PROXY TCP{family} {from} {to} {PORT} 443\r\n").into_bytes());
        }
        let octets = |ip| match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let ports = [PORT.to_be_bytes(), 443_u16.to_be_bytes()].concat();
        Some(proxy_v2(
            0x21,
            if family == 4 { 0x11 } else { 0x21 },
            &[octets(from), octets(to), ports].concat(),
        ))
    }
}

/// How a request comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Transport {
    Http1,
    Http2,
    Tls,
    Http2OverTls,
    WebSocket,
    WebSocketOverHttp2,
}

use Transport::{Http1, Http2 as H2, Http2OverTls, Tls, WebSocket, WebSocketOverHttp2};

const TRANSPORTS: &[Transport] = &[Http1, H2, Tls, Http2OverTls, WebSocket, WebSocketOverHttp2];

/// Two apps of one group, each request of which is told.
struct Apps {
    addrs: Vec<String>,
    asked: Receiver<(usize, Head)>,
}

impl Apps {
    fn start() -> Self {
        let (tell, asked) = channel();
        let addrs = (0..2).map(|index| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let (addr, tell) = (listener.local_addr().unwrap().to_string(), tell.clone());
            thread::spawn(move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    let tell = tell.clone();
                    thread::spawn(move || app(index, Peer::new("app", stream), &tell));
                }
            });
            addr
        });
        Self { addrs: addrs.collect(), asked }
    }
}

fn app(index: usize, mut peer: Peer, tell: &Sender<(usize, Head)>) {
    while let Some(head) = peer.head_if_any() {
        let key = head.field("Sec-WebSocket-Key").map(str::to_owned);
        if tell.send((index, head)).is_err() {
            return;
        }
        match key {
            None => peer.respond("ok"),
            Some(key) => {
                peer.send(switching_for(&key));
                return;
            }
        }
    }
}

fn switching_for(key: &str) -> String {
    use base64::Engine as _;
    use sha1::Digest as _;
    let digest = sha1::Sha1::digest(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11"));
    switching().replace(support::ACCEPT, &base64::engine::general_purpose::STANDARD.encode(digest))
}

/// A hopgate that asks them, and what is in front of it.
struct Setup {
    hopgate: Hopgate,
    apps: Apps,
    authority: Authority,
    balancers: HashMap<(usize, u16), Balancer>,
    /// Clients that the limit has seen.
    seen: HashSet<String>,
    /// Which app each client has.
    chosen: HashMap<String, usize>,
    /// What the log must say.
    logged: Vec<String>,
}

impl Setup {
    fn start(setting: &str, method: &str) -> Self {
        let (authority, dir, apps) = (Authority::new("a CA"), Dir::new(), Apps::start());
        authority.issue(&["example.com"]).write(&dir, "own");
        let server = |listen: &str, trusted: &str| {
            format!(
                "[[server]]\nlisten = [{listen}]\ntrusted_proxies = [{trusted}]\n{setting}\n\
                 ssl_certificate = '{}'\nssl_certificate_key = '{}'\n\
                 [[server.location]]\npath = '/'\nproxy_pass = 'http://apps'\nlimit_req = 'each'\n\
                 limit_req_dry_run = true\nforwarded_headers = 'set rfc7239'\n\
                 proxy_set_header = {{ X-Seen = '$remote_addr|$remote_port|$realip_remote_addr|$limit_req_status', \
                 X-Added = '$proxy_add_x_forwarded_for' }}\n\
                 [[server.location]]\npath = '/rules'\naccess = ['deny 192.0.2.0/24', 'deny 2001:db8::/32']\n\
                 proxy_pass = 'http://apps'\n",
                dir.path("own.pem"),
                dir.path("own.key")
            )
        };
        // Each has an address of its own, as one with any port may stand in a file once.
        let of = |net: u8, word: &str| {
            let kinds = ["", "http2", "ssl"].into_iter().zip(1..);
            kinds
                .map(|(kind, host)| format!("'127.0.{net}.{host}:0 {kind} {word}'"))
                .collect::<Vec<_>>()
                .join(", ")
        };
        let all = [of(1, ""), of(2, "proxy_protocol")].join(", ");
        let hopgate = Hopgate::start(&format!(
            "workers = 1\naccess_log = 'stdout seen'\n[log_format]\n\
             seen = 'row=$arg_row client=$remote_addr peer=$realip_remote_addr.'\n\
             [limit_req_zone.each]\nkey = '$binary_remote_addr'\nrate = '1r/m'\n\
             [upstream.apps]\nserver = ['{}', '{}']\n{method}\n{}{}",
            apps.addrs[0],
            apps.addrs[1],
            server(&all, "'127.0.0.1', '10.0.0.0/8', 'fd00::/8'"),
            server(&of(3, ""), "'10.0.0.0/8', 'fd00::/8'"),
        ));
        let (seen, chosen, logged) = (HashSet::new(), HashMap::new(), Vec::new());
        Self { hopgate, apps, authority, balancers: HashMap::new(), seen, chosen, logged }
    }

    /// Where such a request goes to.
    fn addr(&mut self, connected: usize, transport: Transport) -> SocketAddr {
        let first = match CONNECTED[connected] {
            Connected { header: Some(_), .. } => 3,
            Connected { is_trusted: true, .. } => 0,
            Connected { is_trusted: false, .. } => 6,
        };
        let kind = match transport {
            Http1 | WebSocket => 0,
            H2 | WebSocketOverHttp2 => 1,
            Tls | Http2OverTls => 2,
        };
        let addr: SocketAddr = self.hopgate.listening()[first + kind].parse().unwrap();
        let Some(header) = CONNECTED[connected].header() else { return addr };
        self.balancers
            .entry((connected, addr.port()))
            .or_insert_with(|| Balancer::start(addr, &header))
            .addr()
    }

    /// Sends a request and returns what has become of it.
    fn ask(&mut self, connected: usize, transport: Transport, path: &str, fields: &[&str]) -> u16 {
        let addr = self.addr(connected, transport);
        let lines: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
        let pairs: Vec<(String, &str)> = fields
            .iter()
            .map(|field| field.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_lowercase(), value))
            .collect();
        let pairs: Vec<(&str, &str)> = pairs.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        let get = format!("GET {path} HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n{lines}\r\n");
        match transport {
            Http1 | WebSocket => {
                let mut client = self.hopgate.connect_to(addr);
                client.send(match transport {
                    Http1 => get,
                    _ => handshake(path).replacen("\r\n\r\n", &format!("\r\n{lines}\r\n"), 1),
                });
                client.response().status
            }
            H2 => Http2::connect_to(addr, 1 << 20).ask("GET", path, &pairs).status,
            WebSocketOverHttp2 => Http2::connect_to(addr, 1 << 20).open_websocket(path, &pairs).head().status,
            Tls => {
                let mut client = TlsClient::of(&self.authority, "example.com").open(addr);
                client.send(get);
                client.response().status
            }
            Http2OverTls => {
                let client = TlsClient::of(&self.authority, "example.com").offering(&["h2"]).open(addr);
                Http2::over_tls(client, "example.com").ask("GET", path, &pairs).status
            }
        }
    }

    /// Sends one row of the table and looks at everything that it says of its client.
    fn row(&mut self, connected: usize, transport: Transport, claim: &Claim) {
        let Connected { ip, is_trusted, header } = CONNECTED[connected];
        let row = self.logged.len();
        let what = format!(
            "{transport:?} from {ip} ({header:?}), trusted: {is_trusted}, {} {:?}",
            claim.setting, claim.fields
        );
        let is_named = is_trusted && !claim.client.is_empty();
        let client = if is_named { claim.client } else { ip };

        let status = self.ask(connected, transport, &format!("/?row={row}"), claim.fields);
        assert_eq!(status, if transport == WebSocket { 101 } else { 200 }, "{what}");
        let (app, head) = self.apps.asked.recv_timeout(DEADLINE).expect("an app is asked");

        let seen: Vec<&str> = head.field("X-Seen").unwrap().split('|').collect();
        let limit = if self.seen.insert(client.to_owned()) { "PASSED" } else { "REJECTED_DRY_RUN" };
        assert_eq!([seen[0], seen[2], seen[3]], [client, "127.0.0.1", limit], "{what}");
        match (is_named, header) {
            (true, _) => assert_eq!(seen[1], claim.port, "{what}"),
            (false, Some(_)) => assert_eq!(seen[1], PORT.to_string(), "{what}"),
            (false, None) => assert!(seen[1].parse::<u16>().is_ok(), "{what}: {}", seen[1]),
        }
        assert_eq!(head.all("X-Real-IP"), [client], "{what}");

        let ahead =
            |chain: &str| if is_trusted && !chain.is_empty() { format!("{chain}, ") } else { String::new() };
        let chain = format!("{}{ip}", ahead(claim.chain));
        assert_eq!(head.all("X-Forwarded-For"), [&chain], "{what}");
        assert_eq!(head.all("X-Added"), [&chain], "{what}");
        let node = if ip.contains(':') { format!("\"[{ip}]\"") } else { ip.to_owned() };
        let proto = if matches!(transport, Tls | Http2OverTls) { "https" } else { "http" };
        assert_eq!(head.all("X-Forwarded-Proto"), [proto], "{what}");
        let forwarded = format!("{}for={node};host=", ahead(claim.forwarded));
        let told = head.all("Forwarded");
        assert!(told.len() == 1 && told[0].starts_with(&forwarded), "{what}: {told:?}, not {forwarded}");

        assert_eq!(
            *self.chosen.entry(client.to_owned()).or_insert(app),
            app,
            "{what}: another server for {client}"
        );
        self.logged.push(format!("row={row} client={client} peer=127.0.0.1."));
        if matches!(transport, Http1 | H2) {
            let is_denied = client.starts_with("192.0.2.") || client.starts_with("2001:db8:");
            let status = self.ask(connected, transport, "/rules", claim.fields);
            assert_eq!(status, if is_denied { 403 } else { 200 }, "{what}: the rules");
            assert_eq!(self.apps.asked.try_recv().is_err(), is_denied, "{what}: the rules");
        }
    }
}

/// Every row with this setting, over each of these, which the group's servers are chosen by.
fn all_rows(setting: &'static str, method: &str) {
    let mut setup = Setup::start(setting, method);
    for claim in CLAIMS.iter().filter(|claim| claim.setting == setting) {
        for connected in 0..CONNECTED.len() {
            for transport in TRANSPORTS {
                setup.row(connected, *transport, claim);
            }
        }
    }
    for line in &setup.logged {
        eventually(&format!("the log has {line}"), || !setup.hopgate.access_lines(line).is_empty());
    }
}

#[test]
fn the_client_is_the_one_that_x_forwarded_for_names() {
    all_rows(BY_DEFAULT, "ip_hash = true");
}

#[test]
fn the_client_is_the_last_one_without_real_ip_recursive() {
    all_rows(LAST, "hash = '$remote_addr'");
}

#[test]
fn the_client_is_the_one_that_forwarded_names() {
    all_rows(RFC7239, "hash = '$binary_remote_addr consistent'");
}

#[test]
fn the_client_is_the_one_that_a_field_of_ones_own_names() {
    all_rows(X_REAL_IP, "hash = '$remote_addr'");
}

#[test]
fn the_client_is_the_one_that_only_the_balancer_names() {
    all_rows(BALANCER, "ip_hash = true");
}

#[test]
fn tunnels_are_counted_for_the_client_of_the_balancer_whichever_way_they_come() {
    let upstream = Upstream::listen();
    let hopgate = Hopgate::start(&format!(
        "workers = 1\n[limit_conn_zone.each]\nkey = '$binary_remote_addr'\n\
         [[server]]\nlisten = '127.0.0.1:0 http2 proxy_protocol'\ntrusted_proxies = ['127.0.0.1', '10.0.0.0/8']\n\
         [[server.location]]\npath = '/'\nlimit_conn = 'each 1'\nproxy_pass = 'http://{}'\n",
        upstream.addr()
    ));
    let open = |header: &str, named: &str| {
        let mut client = hopgate.connect();
        let fields = format!("\r\nX-Forwarded-For: {named}\r\n\r\n");
        client.send([header.as_bytes(), handshake("/").replacen("\r\n\r\n", &fields, 1).as_bytes()].concat());
        client
    };
    let taken = || {
        let mut server = upstream.accept();
        let key = server.head().field("Sec-WebSocket-Key").unwrap().to_owned();
        server.send(switching_for(&key));
        server
    };
    let direct = "PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n";
    let by_proxy = "PROXY TCP4 10.1.1.1 198.51.100.1 4711 443\r\n";
    // The claim of a stranger counts for nothing; a CDN's does.
    let mut first = open(direct, "192.0.2.8");
    let _first = taken();
    first.expect_status(101);
    open(by_proxy, "192.0.2.7").expect_status(503);
    open(by_proxy, "6.6.6.6, 192.0.2.7, 10.2.2.2").expect_status(503);
    let balancer = Balancer::start(hopgate.addr(), direct.as_bytes());
    assert_eq!(Http2::connect_to(balancer.addr(), 1 << 20).open_websocket("/", &[]).head().status, 503);
    let mut second = open(by_proxy, "192.0.2.8");
    let _second = taken();
    second.expect_status(101);
}

#[test]
fn nginx_says_the_same_of_what_it_can_be_told() {
    if !Nginx::is_installed() {
        return;
    }
    // Not `::ffff:192.0.2.99`, which is another client to nginx's rules and limits than 192.0.2.99; and not an empty
    // line, to which nginx adds a comma and the peer.
    const ROWS: &[&[&str]] = &[
        &[],
        &["X-Forwarded-For: 192.0.2.99"],
        &["X-Forwarded-For: 192.0.2.99:4711"],
        &["X-Forwarded-For: [2001:db8::9]:4711"],
        &["X-Forwarded-For: 2001:db8::9"],
        &["X-Forwarded-For: 6.6.6.6, 192.0.2.99"],
        &["X-Forwarded-For: 6.6.6.6, 192.0.2.99, 10.2.2.2"],
        &["X-Forwarded-For: 6.6.6.6", "X-Forwarded-For: 192.0.2.99, 10.2.2.2"],
        &["X-Forwarded-For: 10.2.2.2"],
        &["X-Forwarded-For: 6.6.6.6, nonsense, 10.2.2.2"],
        &["X-Forwarded-For: nonsense"],
        &["X-Forwarded-For: unknown, 10.2.2.2"],
        &["X-Forwarded-For: 192.0.2.99:0"],
        &["X-Real-IP: 192.0.2.98"],
        &["X-Real-IP: 192.0.2.98", "X-Forwarded-For: 192.0.2.99"],
        &["X-Real-IP: 6.6.6.6, 10.2.2.2"],
    ];
    const SAYS: &str = "$remote_addr $realip_remote_addr [$proxy_protocol_addr $proxy_protocol_port \
                        $proxy_protocol_server_addr $proxy_protocol_server_port] $proxy_add_x_forwarded_for";
    for (header, recursive) in
        [("X-Forwarded-For", true), ("X-Forwarded-For", false), ("X-Real-IP", true), ("proxy_protocol", true)]
    {
        let is_proxied = header == "proxy_protocol";
        for trusted in [&["127.0.0.1", "10.0.0.0/8"][..], &["10.0.0.0/8"]] {
            // hopgate turns such balancers away.
            if is_proxied && trusted.len() == 1 {
                continue;
            }
            let word = if is_proxied { "proxy_protocol" } else { "" };
            let from: String = trusted.iter().map(|whom| format!("set_real_ip_from {whom}; ")).collect();
            let flag = if recursive { "on" } else { "off" };
            let nginx = free_addr();
            let _nginx = Nginx::start_in(
                Dir::new(),
                &format!(
                    "server {{ listen {nginx} {word}; {from} real_ip_header {header}; real_ip_recursive {flag};\n\
                     return 200 '{SAYS}'; }}\n"
                ),
            );
            let hopgate = Hopgate::start(&format!(
                "[[server]]\nlisten = '127.0.0.1:0 {word}'\ntrusted_proxies = {trusted:?}\n\
                 real_ip_header = '{header}'\nreal_ip_recursive = {recursive}\nforwarded_headers = 'pass'\n\
                 return = \"200 '{SAYS}'\"\n"
            ));
            let headers: &[&str] = match is_proxied {
                true => &[
                    "PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n",
                    "PROXY TCP4 10.1.1.1 198.51.100.1 4711 443\r\n",
                    "PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n",
                    "PROXY UNKNOWN\r\n",
                ],
                false => &[""],
            };
            for proxied in headers {
                for fields in ROWS {
                    let lines: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
                    let request =
                        format!("{proxied}GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{lines}\r\n");
                    let [by_nginx, by_hopgate] = [nginx, hopgate.addr()].map(|addr| {
                        let mut client = hopgate.connect_to(addr);
                        client.send(&request);
                        client.expect_status(200).text()
                    });
                    assert_eq!(
                        by_hopgate, by_nginx,
                        "{header} {recursive} {trusted:?} {proxied:?} {fields:?}"
                    );
                }
            }
        }
    }
}
