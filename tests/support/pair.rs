//! Hopgate beside nginx, on configurations that say the same, in front of an app that tells what it was asked.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;

use super::{Dir, Hopgate, Nginx, Peer, free_addr};

/// Hopgate and, where it is installed, nginx, on configurations that say the same.
pub struct Pair {
    _hopgate: Hopgate,
    addr: String,
    nginx: Option<Nginx>,
}

impl Pair {
    #[track_caller]
    pub fn start(nginx: &str, toml: &str) -> Self {
        Self::start_with(&Teller::start(), &Dir::new(), nginx, toml)
    }

    /// Starts both. In the texts `LISTEN` is the address to listen on, `APP` that of an app, `DIR` a directory.
    #[track_caller]
    pub fn start_with(app: &Teller, dir: &Dir, nginx: &str, toml: &str) -> Self {
        let dir = dir.path("");
        let filled = |text: &str| text.replace("APP", &app.addr).replace("DIR", dir.trim_end_matches('/'));
        let nginx = Nginx::is_installed().then(|| {
            let keeps_alive = "proxy_http_version 1.1; proxy_set_header Connection '';\n";
            Nginx::start(&format!("{keeps_alive}{}", filled(nginx).replace("LISTEN", "80")))
        });
        let addr = free_addr().to_string();
        let top = "workers = 1\nforwarded_headers = \"pass\"\nencoded_slashes = \"pass\"\n";
        let hopgate = Hopgate::start(&format!("{top}{}", filled(toml).replace("LISTEN", &addr)));
        Self { _hopgate: hopgate, addr, nginx }
    }

    /// Asks both, and compares each answer with the one that is expected.
    #[track_caller]
    pub fn expect(&self, rows: &[(&str, &str)]) {
        let nginx = self.nginx.as_ref().map(Nginx::addr);
        let mut wrong = String::new();
        for (request, expected) in rows {
            for (who, addr) in [("hopgate", Some(self.addr.as_str())), ("nginx", nginx)] {
                let Some(got) = addr.map(|addr| ask(addr, request)) else { continue };
                if got != *expected {
                    wrong += &format!("{request}\n    expected: {expected}\n    {who:>8}: {got}\n");
                }
            }
        }
        assert!(wrong.is_empty(), "\n{wrong}");
    }
}

/// Sends `[METHOD ]TARGET[ Field: value]`, and says the answer in one line: its status, its `Location`, and its body
/// unless that is no more than the proxy's own few words about the status.
#[track_caller]
pub fn ask(addr: &str, request: &str) -> String {
    let (method, rest) =
        if request.starts_with('/') { ("GET", request) } else { request.split_once(' ').expect("a target") };
    let (target, field) = rest.split_once(' ').unwrap_or((rest, ""));
    let host = if field.starts_with("Host:") { "" } else { "Host: a\r\n" };
    let end = if field.is_empty() { "" } else { "\r\n" };
    let body = if field == "Content-Length: 5" { "hello" } else { "" };
    let mut client = Peer::new("client", TcpStream::connect(addr).expect("it listens"));
    client.send(format!("{method} {target} HTTP/1.1\r\n{host}Connection: close\r\n{field}{end}\r\n{body}"));
    if method == "HEAD" {
        return client.head().status().to_string();
    }
    let Some(answer) = client.response_if_any() else { return "closed".to_owned() };
    let location = answer.head.field("Location").map_or_else(String::new, |to| format!(" -> {to}"));
    let text = answer.text();
    let status = answer.status.to_string();
    let is_own = text.is_empty() || text.starts_with("<html>") || text.starts_with(&format!("{status} "));
    let body = if is_own { String::new() } else { format!(" {text}") };
    let port = addr.rsplit(':').next().expect("a port");
    format!("{status}{location}{body}").replace(&format!(":{port}"), ":PORT")
}

/// Answers with the method, the target and the body of a request, and with its `X-` fields; the status of `/status/404`
/// is 404.
pub struct Teller {
    addr: String,
}

impl Teller {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port to listen on");
        let addr = listener.local_addr().expect("a listener has an address").to_string();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                thread::spawn(move || answer(&stream));
            }
        });
        Self { addr }
    }

    pub fn addr(&self) -> &str {
        &self.addr
    }
}

/// Serves one connection until it ends; its end is the proxy's business.
fn answer(stream: &TcpStream) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut first = String::new();
        reader.read_line(&mut first).ok()?;
        let mut words = first.split(' ');
        let (method, target) = (words.next()?, words.next()?);
        let mut seen = format!("{method} {target}");
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            match line.trim_end().split_once(": ") {
                None => break,
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = value.parse().ok()?
                }
                Some((name, value)) if name.starts_with("X-") => seen += &format!(" {name}:{value}"),
                Some(_) => {}
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        if length > 0 {
            seen += &format!(" {}", String::from_utf8_lossy(&body));
        }
        let status = target.strip_prefix("/status/").and_then(|rest| rest.get(..3)).unwrap_or("200");
        let content = if method == "HEAD" { "" } else { &seen };
        let answer = format!("HTTP/1.1 {status} S\r\nContent-Length: {}\r\n\r\n{content}", seen.len());
        (&*stream).write_all(answer.as_bytes()).ok()?;
    }
}
