//! `hopgate health`: asks a running hopgate whether it is well, for images that have no other program to do it.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use http::Uri;
use socket2::Socket;

use super::{EXIT_CONFIG, EXIT_DONE, HealthArgs, file_or_default, report};
use crate::config::units::{self, Wrong};
use crate::config::{Config, ListenAddress};
use crate::server::health::{ALIVE, READY};

/// The most bytes of an answer that are read.
const LARGEST_ANSWER: u64 = 16 << 10;

/// Whom to ask, and for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    place: Place,
    /// `None`: as `--ready` says.
    path: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// A host and its port, in a form that is asked for.
    Tcp(String),
    Unix(PathBuf),
}

impl Target {
    /// That of an address to listen on: every interface is this machine, too. `None`: systemd alone knows where it is.
    pub(super) fn of(address: ListenAddress) -> Option<Self> {
        let place = match address {
            ListenAddress::Named(_) => return None,
            ListenAddress::Unix(path) => Place::Unix(path),
            ListenAddress::Tcp(address) => {
                let ip = match address.ip() {
                    IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
                    IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
                    ip => ip,
                };
                Place::Tcp(SocketAddr::new(ip, address.port()).to_string())
            }
        };
        Some(Self { place, path: None })
    }

    fn of_text(address: &str) -> Result<Self, Wrong> {
        let listened = units::listen_address(address).map_err(Wrong::unquoted)?;
        Self::of(listened).ok_or_else(|| wrong(address))
    }

    /// Reads `http://HOST[:PORT][/PATH]`, `http://unix:/path`, or an address as in `listen`.
    pub(super) fn parse(text: &str) -> Result<Self, Wrong> {
        let Some(rest) = text.strip_prefix("http://") else {
            return match text.contains("://") {
                true => Err(wrong(text)),
                false if text.contains('/') && !text.starts_with("unix:") => {
                    let help = Some(format!("write `http://{text}`"));
                    Err(Wrong { message: format!("`{text}` is no URL of http"), help })
                }
                false => Self::of_text(text),
            };
        };
        if rest.starts_with("unix:") {
            return Self::of_text(rest);
        }
        let uri: Uri = text.parse().map_err(|_| wrong(text))?;
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| wrong(text))?;
        let path = uri.path_and_query().map(ToString::to_string).filter(|path| path != "/");
        Ok(Self { place: Place::Tcp(format!("{host}:{}", uri.port_u16().unwrap_or(80))), path })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host) => write!(f, "http://{host}"),
            // As nginx writes it.
            Self::Unix(path) => write!(f, "http://unix:{}:", path.display()),
        }
    }
}

fn wrong(text: &str) -> Wrong {
    Wrong {
        message: format!("`{text}` is no URL of http"),
        help: Some("write `http://127.0.0.1:9180`".into()),
    }
}

/// Asks, says what came out, and returns the exit code: whether all is well.
pub fn health(arguments: &HealthArgs) -> u8 {
    let target = match &arguments.url {
        Some(target) => target.clone(),
        None => match of_file(file_or_default(arguments.config.as_deref())) {
            Ok(target) => target,
            Err(code) => return code,
        },
    };
    let path = target.path.as_deref().unwrap_or(if arguments.ready { READY } else { ALIVE });
    let asked = format!("{}{path}", target.place);
    // Nobody may be listening: the exit code says it all.
    match ask(&target.place, path, arguments.timeout) {
        Ok((200, text)) => {
            let _ = writeln!(io::stdout(), "{asked}: 200 {text}");
            EXIT_DONE
        }
        Ok((status, text)) => {
            let _ = writeln!(io::stderr(), "{asked}: {status} {text}");
            EXIT_CONFIG
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "{asked}: {error}{}", hint(&error));
            EXIT_CONFIG
        }
    }
}

/// The first address of a file; what is wrong has been said if there is none.
fn of_file(file: &Path) -> Result<Target, u8> {
    let addresses = Config::load_health(file).map_err(|mistakes| {
        report(&mistakes.or("say whom to ask: `--url http://127.0.0.1:9180` (HOPGATE_HEALTH)"))
    })?;
    let say = |message: &str| {
        let _ = writeln!(io::stderr(), "{}: {message}", file.display());
        EXIT_CONFIG
    };
    match addresses.into_iter().next() {
        None => {
            Err(say("there is nobody to ask, as it has no health checks; write, and restart or reload,\n\n\
                         [health]\nlisten = \"127.0.0.1:9180\""))
        }
        Some(ListenAddress::Tcp(address)) if address.port() == 0 => Err(say(
            "port 0 of `[health]` is another one each time: say `--url http://ADDRESS`, as the log does",
        )),
        // What `[health]` has is no name.
        Some(address) => Target::of(address).ok_or(EXIT_CONFIG),
    }
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => {
            "; does hopgate run, and with this `[health]`?"
        }
        _ => "",
    }
}

/// The status and the first line of the answer.
fn ask(place: &Place, path: &str, patience: Duration) -> io::Result<(u16, String)> {
    let deadline = Instant::now() + patience;
    let mut stream = connect(place, deadline)?;
    let host = match place {
        Place::Tcp(host) => host,
        Place::Unix(_) => "localhost",
    };
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    while (answer.len() as u64) < LARGEST_ANSWER {
        stream.set_read_timeout(Some(left(deadline)?))?;
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(length) => answer.extend_from_slice(&piece[..length]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(late()),
            Err(error) => return Err(error),
        }
    }
    read(&answer).ok_or_else(|| io::Error::other("the answer is no HTTP: somebody else listens there"))
}

fn connect(place: &Place, deadline: Instant) -> io::Result<Socket> {
    match place {
        Place::Unix(path) => Ok(UnixStream::connect(path)?.into()),
        Place::Tcp(host) => {
            let mut last = io::Error::other("the name has no address");
            for address in host.to_socket_addrs()? {
                match TcpStream::connect_timeout(&address, left(deadline)?) {
                    Ok(stream) => return Ok(stream.into()),
                    Err(error) => last = error,
                }
            }
            Err(last)
        }
    }
}

/// What is left of the time.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(late()) } else { Ok(left) }
}

fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no answer in time, see --timeout")
}

fn read(answer: &[u8]) -> Option<(u16, String)> {
    let text = String::from_utf8_lossy(answer);
    let (head, content) = text.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    let line = content.lines().next().unwrap_or_default();
    // Not ours to show as it is, if somebody else answers.
    Some((status, line.chars().filter(|character| !character.is_control()).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_and_addresses_are_read() {
        let tcp = |host: &str, path: Option<&str>| {
            Some(Target { place: Place::Tcp(host.into()), path: path.map(str::to_owned) })
        };
        let rows = [
            ("http://127.0.0.1:9180", tcp("127.0.0.1:9180", None)),
            ("http://127.0.0.1:9180/", tcp("127.0.0.1:9180", None)),
            ("http://[::1]:9180/readyz?a", tcp("[::1]:9180", Some("/readyz?a"))),
            ("http://hopgate", tcp("hopgate:80", None)),
            ("9180", tcp("127.0.0.1:9180", None)),
            ("[::]:9180", tcp("[::1]:9180", None)),
            ("unix:/run/a", Some(Target { place: Place::Unix("/run/a".into()), path: None })),
            ("http://unix:/run/a", Some(Target { place: Place::Unix("/run/a".into()), path: None })),
            ("https://127.0.0.1", None),
            ("http://", None),
            ("hopgate:80", None),
            ("127.0.0.1:9180/readyz", None),
            ("", None),
        ];
        for (text, expected) in rows {
            assert_eq!(Target::parse(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn answers_are_read() {
        let read = |text: &str| read(text.as_bytes());
        assert_eq!(read("HTTP/1.1 200 OK\r\nA: b\r\n\r\nok\n"), Some((200, "ok".to_owned())));
        assert_eq!(read("HTTP/1.1 503 Service Unavailable\r\n\r\n"), Some((503, String::new())));
        for none in ["", "HTTP/1.1 200 OK\r\n", "SSH-2.0-x\r\n\r\n", "HTTP/1.1\r\n\r\n"] {
            assert_eq!(read(none), None, "{none}");
        }
    }
}
