//! Which server of a group gets a request, and what happens when it fails: answer by answer as nginx does it.

mod support;

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use socket2::{Domain, Socket, Type};
use support::{Dir, Hopgate, Nginx, eventually};

/// Servers that do as the request says: `?fail=0,2&how=500` has the first and the third of them answer 500. Without
/// a word about it a server answers 200, and always it closes the connection behind its answer.
struct Farm {
    addrs: Vec<String>,
    /// Each target that came, and the server that it came to.
    seen: Arc<Mutex<Vec<(String, usize)>>>,
}

impl Farm {
    fn of(size: usize) -> Self {
        let seen = Arc::<Mutex<Vec<(String, usize)>>>::default();
        let addrs = (0..size).map(|index| {
            let seen = seen.clone();
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port to listen on");
            let addr = listener.local_addr().expect("a listener has an address").to_string();
            thread::spawn(move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    let seen = seen.clone();
                    thread::spawn(move || serve(stream, index, &seen));
                }
            });
            addr
        });
        Self { addrs: addrs.collect(), seen }
    }

    /// The server that a target has come to, as soon as it has.
    #[track_caller]
    fn server_of(&self, target: &str) -> usize {
        let mut server = None;
        eventually("the request has come to a server", || {
            let seen = self.seen.lock().expect("no test has panicked");
            server = seen.iter().find(|(other, _)| other == target).map(|(_, index)| *index);
            server.is_some()
        });
        server.expect("eventually there was one")
    }

    /// The lines of a group, each with what stands behind its address.
    fn servers(&self, parameters: &[&str]) -> Vec<String> {
        let with = |(addr, parameters): (&String, &&str)| format!("{addr} {parameters}").trim().to_owned();
        self.addrs.iter().zip(parameters).map(with).collect()
    }
}

fn serve(mut stream: TcpStream, index: usize, seen: &Mutex<Vec<(String, usize)>>) -> Option<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        (stream.read(&mut byte).ok()? > 0).then(|| request.push(byte[0]))?;
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    let target = request.split(' ').nth(1).unwrap_or_default();
    seen.lock().expect("no test has panicked").push((target.to_owned(), index));
    let argument = |name: &str| {
        let query = target.split_once('?').map_or("", |(_, query)| query);
        query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')).unwrap_or_default()
    };
    let fails = argument("fail").split(',').any(|server| server == index.to_string());
    let status = match argument("how") {
        _ if !fails => "200",
        "" => return None,
        "garbage" => return stream.write_all(b"HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n").ok(),
        "late" => {
            // Until the proxy has given up.
            let _ = stream.read(&mut [0]);
            return None;
        }
        status => status,
    };
    let body = format!("{index}");
    let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes()).ok()
}

/// One group, in nginx's words and in hopgate's.
struct Case<'a> {
    servers: Vec<String>,
    /// nginx's directive, without its `;`, and the key.
    method: (&'a str, &'a str),
    /// The same two for the location.
    location: (&'a str, &'a str),
}

/// A request: its target, its method, and where it comes from.
struct Ask {
    method: &'static str,
    target: String,
    from: Ipv4Addr,
}

fn get(target: impl Into<String>) -> Ask {
    Ask { method: "GET", target: target.into(), from: Ipv4Addr::LOCALHOST }
}

/// What both have to say of each request: the servers that were asked, what they answered, and what the client got.
const FORMAT: &str = "$request_uri $upstream_addr $upstream_status $status";

/// Sends the same requests to nginx and to hopgate, and compares what they write of each.
#[track_caller]
fn same(case: &Case<'_>, asks: &[Ask]) -> Vec<String> {
    let (expected, got) = both(case, asks);
    assert!(expected == got, "nginx:\n{}\nhopgate:\n{}", expected.join("\n"), got.join("\n"));
    got
}

/// What nginx and hopgate write of the same requests; nothing if there is no nginx.
#[track_caller]
fn both(case: &Case<'_>, asks: &[Ask]) -> (Vec<String>, Vec<String>) {
    if !Nginx::is_installed() {
        return (Vec::new(), Vec::new());
    }
    let dir = Dir::new();
    let (nginx, hopgate) = running(case, &dir);
    for ask in asks {
        send(nginx.addr().parse().expect("an address"), ask);
        send(hopgate.addr(), ask);
    }
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    eventually("every request has its line", || {
        lines(&dir.read("access.log")).len() == asks.len() && hopgate.access_lines(" ").len() == asks.len()
    });
    (lines(&dir.read("access.log")), hopgate.access_lines(" "))
}

/// Both with the same group; nginx writes its access log into the directory.
#[track_caller]
fn running(case: &Case<'_>, dir: &Dir) -> (Nginx, Hopgate) {
    let server = |text: &String| format!("server {text};\n");
    let nginx = Nginx::start(
        &format!(
            "log_format t '{FORMAT}';\nupstream app {{\n{};\n{}}}\n\
         server {{ listen 80; access_log {} t;\nlocation / {{ proxy_pass http://app; {}; }} }}",
            case.method.0,
            case.servers.iter().map(server).collect::<String>(),
            dir.path("access.log"),
            case.location.0,
        )
        .replace("{\n;\n", "{\n")
        .replace("; ; }", "; }"),
    );
    let servers: Vec<String> = case.servers.iter().map(|server| format!("{server:?}")).collect();
    let hopgate = Hopgate::start(&format!(
        "workers = 1\nlog_format = {{ t = '{FORMAT}' }}\naccess_log = 'stdout t'\n\
         [upstream.app]\nserver = [{}]\nkeepalive = 0\n{}\n\
         [[server]]\nlisten = '127.0.0.1:0'\n[[server.location]]\npath = '/'\nproxy_pass = 'http://app'\n{}\n",
        servers.join(", "),
        case.method.1,
        case.location.1,
    ));
    (nginx, hopgate)
}

/// Sends a request on a connection of its own, and waits for the end of the answer.
#[track_caller]
fn send(addr: SocketAddr, request: &Ask) {
    let mut answer = Vec::new();
    ask(addr, request).read_to_end(&mut answer).expect("it answers and closes");
    assert!(answer.starts_with(b"HTTP/1.1 "), "{}", String::from_utf8_lossy(&answer));
}

/// Sends a request on a connection of its own.
#[track_caller]
fn ask(addr: SocketAddr, ask: &Ask) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::new(ask.from.into(), 0).into()).expect("a loopback address to come from");
    socket.connect(&addr.into()).expect("it listens");
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(support::DEADLINE)).expect("a socket takes a timeout");
    let body = if ask.method == "GET" { "" } else { "Content-Length: 0\r\n" };
    write!(stream, "{} {} HTTP/1.1\r\nHost: a\r\n{body}Connection: close\r\n\r\n", ask.method, ask.target)
        .expect("it takes a request");
    stream
}

/// A hundred requests of which some fail at some servers, always the same ones.
fn troubles(size: usize, how: &str) -> Vec<Ask> {
    let mut random = fastrand::Rng::with_seed(7);
    let fails = |random: &mut fastrand::Rng| {
        (0..size).filter(|_| random.u8(..10) < 3).map(|server| server.to_string()).collect::<Vec<_>>()
    };
    (0..100).map(|number| get(format!("/{number}?fail={}&how={how}", fails(&mut random).join(",")))).collect()
}

#[test]
fn turns_follow_the_weights_as_nginx_s_do() {
    for weights in [[5, 1, 1], [1, 1, 1], [7, 3, 2], [1, 2, 30]] {
        let weights = weights.map(|weight| format!("weight={weight}"));
        let servers = Farm::of(3).servers(&[&weights[0], &weights[1], &weights[2]]);
        let case = Case { servers, method: ("", ""), location: ("", "") };
        same(&case, &(0..40).map(|number| get(format!("/{number}"))).collect::<Vec<_>>());
    }
}

#[test]
fn servers_that_fail_lose_weight_and_are_left_alone_as_in_nginx() {
    let tolerant = ["weight=5 max_fails=9 fail_timeout=1h", "weight=3 max_fails=0", "weight=2 max_fails=20"];
    let strict =
        ["weight=4 max_fails=2 fail_timeout=1h", "max_fails=1 fail_timeout=1h", "weight=2 max_fails=5"];
    for parameters in [tolerant, strict] {
        for (how, next) in [("", "error"), ("garbage", "error invalid_header"), ("503", "error http_503")] {
            let words: Vec<String> = next.split(' ').map(|word| format!("'{word}'")).collect();
            let case = Case {
                servers: Farm::of(3).servers(&parameters),
                method: ("", ""),
                location: (
                    &format!("proxy_next_upstream {next}"),
                    &format!("proxy_next_upstream = [{}]", words.join(", ")),
                ),
            };
            same(&case, &troubles(3, how));
        }
    }
}

#[test]
fn backups_and_servers_that_are_down_are_used_as_in_nginx() {
    let four = ["fail_timeout=1h", "weight=3 down", "backup weight=2", "backup max_fails=3"];
    let two = ["max_fails=2", "backup max_fails=0"];
    for (parameters, size) in [(&four[..], 4), (&two[..], 2)] {
        for method in [("", ""), ("least_conn", "least_conn = true")] {
            let case = Case { servers: Farm::of(size).servers(parameters), method, location: ("", "") };
            same(&case, &troubles(size, ""));
        }
    }
}

#[test]
fn a_key_has_the_server_that_nginx_gives_it() {
    let parameters = ["weight=3 max_fails=0", "max_fails=0", "down", "weight=2 max_fails=0", "max_fails=0"];
    for method in [
        ("hash $uri", "hash = '$uri'"),
        ("hash $uri consistent", "hash = '$uri consistent'"),
        ("hash \"$arg_how-$uri\" consistent", "hash = '$arg_how-$uri consistent'"),
        ("hash $arg_none", "hash = '$arg_none'"),
        ("hash $arg_none consistent", "hash = '$arg_none consistent'"),
    ] {
        let case = Case { servers: Farm::of(5).servers(&parameters), method, location: ("", "") };
        let mut asks: Vec<_> = (0..200).map(|key| get(format!("/room/{key}"))).collect();
        asks.extend(troubles(5, ""));
        let lines = same(&case, &asks);
        let servers: std::collections::BTreeSet<_> =
            lines.iter().take(200).filter_map(|line| line.split(' ').nth(1)).collect();
        assert!(lines.is_empty() || servers.len() == 4, "{servers:?}");
    }
}

#[test]
fn a_group_that_is_written_in_other_ways_has_the_same_ring() {
    let mut servers = Farm::of(3).servers(&["", "weight=2", "max_fails=0"]);
    // Two that are written alike share their points.
    servers.push(format!("{} weight=2", servers[0]));
    servers[2] = servers[2].replace("127.0.0.1", "localhost");
    let case =
        Case { servers, method: ("hash $uri consistent", "hash = '$uri consistent'"), location: ("", "") };
    let asks: Vec<_> = (0..100).map(|key| get(format!("/{key}"))).collect();
    let (expected, got) = both(&case, &asks);
    // nginx tells the address of a name, and hopgate the name: the port says which server it was.
    let got: Vec<_> = got.iter().map(|line| line.replace("localhost", "127.0.0.1")).collect();
    assert_eq!(expected, got);
}

#[test]
fn a_client_has_the_server_that_nginx_gives_it() {
    let parameters = ["weight=3 max_fails=0", "max_fails=0", "down", "max_fails=0"];
    let method = ("ip_hash", "ip_hash = true");
    let case = Case { servers: Farm::of(4).servers(&parameters), method, location: ("", "") };
    let mut random = fastrand::Rng::with_seed(11);
    let asks: Vec<_> = (0..200)
        .map(|number| {
            let from = Ipv4Addr::new(127, random.u8(..), random.u8(..), random.u8(1..));
            let fail = if number % 3 == 0 { "?fail=0,3" } else { "" };
            Ask { method: "GET", target: format!("/{number}{fail}"), from }
        })
        .collect();
    same(&case, &asks);
}

#[test]
fn servers_that_have_enough_to_do_are_treated_as_by_nginx() {
    if !Nginx::is_installed() {
        return;
    }
    let weighted = ["weight=3", "", "weight=2"];
    let bounded = ["weight=3 max_conns=2", "max_conns=4", "backup"];
    for method in [("least_conn", "least_conn = true"), ("", "")] {
        for parameters in [&weighted, &bounded] {
            let farm = Farm::of(3);
            let case = Case { servers: farm.servers(parameters), method, location: ("", "") };
            let (nginx, hopgate) = running(&case, &Dir::new());
            let choices = |name: &str, addr: SocketAddr| {
                let mut held = Vec::new();
                let mut choice = |number: usize| {
                    let target = format!("/{name}/{number}?fail=0,1,2&how=late");
                    held.push(ask(addr, &get(target.as_str())));
                    farm.server_of(&target)
                };
                (0..14).map(&mut choice).collect::<Vec<_>>()
            };
            let expected = choices("nginx", nginx.addr().parse().expect("an address"));
            assert_eq!(expected, choices("hopgate", hopgate.addr()), "{method:?} {parameters:?}");
        }
    }
}

#[test]
fn another_server_is_tried_as_often_and_after_the_same_failures_as_by_nginx() {
    let parameters = ["max_fails=0"; 4];
    for location in [
        ("", ""),
        ("proxy_next_upstream off", "proxy_next_upstream = 'off'"),
        ("proxy_next_upstream http_404", "proxy_next_upstream = ['http_404']"),
        (
            "proxy_next_upstream error http_500 http_404 http_429",
            "proxy_next_upstream = ['error', 'http_500', 'http_404', 'http_429']",
        ),
        (
            "proxy_next_upstream error http_500 non_idempotent",
            "proxy_next_upstream = ['error', 'http_500', 'non_idempotent']",
        ),
        (
            "proxy_next_upstream error http_500; proxy_next_upstream_tries 2",
            "proxy_next_upstream = ['error', 'http_500']\nproxy_next_upstream_tries = 2",
        ),
    ] {
        let case = Case { servers: Farm::of(4).servers(&parameters), method: ("", ""), location };
        let mut asks = Vec::new();
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "LOCK"] {
            for how in ["", "500", "404", "429", "garbage"] {
                for fail in ["0,1,2,3", "0", "1,2", "0,1,2"] {
                    let target = format!("/{method}?fail={fail}&how={how}");
                    asks.push(Ask { method, target, from: Ipv4Addr::LOCALHOST });
                }
            }
        }
        same(&case, &asks);
    }
}

#[test]
fn a_403_or_a_404_is_no_failure_and_a_500_is_one_as_in_nginx() {
    for how in ["403", "404", "500", "429"] {
        let case = Case {
            servers: Farm::of(3).servers(&["fail_timeout=1h"; 3]),
            method: ("", ""),
            location: (
                &format!("proxy_next_upstream http_{how}"),
                &format!("proxy_next_upstream = ['http_{how}']"),
            ),
        };
        same(&case, &troubles(3, how));
    }
}

#[test]
fn a_server_that_takes_too_long_is_passed_over_as_in_nginx() {
    let case = Case {
        servers: Farm::of(3).servers(&["max_fails=2 fail_timeout=1h"; 3]),
        method: ("", ""),
        location: ("proxy_read_timeout 200ms", "proxy_read_timeout = '200ms'"),
    };
    let late = |fail: &str| get(format!("/?fail={fail}&how=late"));
    same(&case, &[late("0"), late("1"), late("0,1,2"), get("/"), get("/"), late("0,1,2"), get("/")]);
}

#[test]
fn a_time_for_all_tries_ends_them_as_in_nginx() {
    let case = Case {
        servers: Farm::of(4).servers(&["max_fails=0"; 4]),
        method: ("", ""),
        location: (
            "proxy_read_timeout 400ms; proxy_next_upstream_timeout 600ms",
            "proxy_read_timeout = '400ms'\nproxy_next_upstream_timeout = '600ms'",
        ),
    };
    let lines = same(&case, &[get("/?fail=0,1,2,3&how=late")]);
    assert!(lines.iter().all(|line| line.ends_with(" 504, 504 504")), "{lines:?}");
}

#[test]
fn chance_gives_every_server_its_share() {
    for random in ["true", "'two'", "'two least_conn'"] {
        let servers = Farm::of(2).servers(&["weight=3", ""]);
        let hopgate = Hopgate::with_group(&format!("server = {servers:?}\nrandom = {random}"));
        let first = (0..200).filter(|_| hopgate.get("/").1 == "0").count();
        // Of two servers `two` draws both, and with the same load takes the second that was drawn.
        assert!((20..190).contains(&first), "{first} of 200 for {random}");
    }
}

#[test]
fn a_server_that_is_left_alone_is_tried_again_after_its_time() {
    let servers = Farm::of(2).servers(&["fail_timeout=300ms", ""]);
    let hopgate = Hopgate::with_group(&format!("server = {servers:?}"));
    assert_eq!(hopgate.get("/?fail=0").1, "1");
    hopgate.wait_for_log("has failed `max_fails` times, and is left alone for 300ms");
    assert_eq!((hopgate.get("/").1, hopgate.get("/").1), ("1".to_owned(), "1".to_owned()));
    eventually("it is tried again", || hopgate.get("/").1 == "0");
}

#[test]
fn a_server_that_was_left_alone_stays_so_over_a_reload() {
    let servers = Farm::of(2).servers(&["fail_timeout=1h", ""]);
    let config = |lines: &str| {
        format!(
            "workers = 2\n[upstream.app]\nserver = {servers:?}\n[[server]]\nlisten = '127.0.0.1:0'\n{lines}\n\
             [[server.location]]\npath = '/'\nproxy_pass = 'http://app'\n"
        )
    };
    let hopgate = Hopgate::start(&config(""));
    while hopgate.get("/?fail=0").1 != "1" {}
    assert_eq!(hopgate.get("/").1, "1");
    hopgate.reload_with(&config("keepalive_timeout = 5"));
    for _ in 0..6 {
        assert_eq!(hopgate.get("/").1, "1");
    }
}
