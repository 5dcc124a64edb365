//! Sizes, times and addresses as nginx writes them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::{ListenAddress, UpstreamAddress};

/// The longest time that can be written, ten years: far enough from what a clock can add up.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// The units of time from the longest to the shortest, in milliseconds.
const TIME_UNITS: &[(&str, u64)] =
    &[("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// Why a text is not what it should be, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub help: Option<String>,
}

impl Wrong {
    pub(super) fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: Some(help.into()) }
    }

    /// In words for a command line, where nothing stands in TOML's quotes.
    pub fn unquoted(self) -> Self {
        Self { help: self.help.map(|help| unquoted(&help)), ..self }
    }
}

/// What is to be written, without the quotes around it.
pub(super) fn unquoted(help: &str) -> String {
    help.replace("`\"", "`").replace("\"`", "`")
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.help.as_ref().map_or(Ok(()), |help| write!(f, "; {help}"))
    }
}

impl std::error::Error for Wrong {}

/// Reads a time: `500ms`, `60s`, `1m30s`, `1h`, `1d`, `2w`; a plain number is seconds.
///
/// # Errors
/// Anything else, and what is longer than ten years.
pub fn time(text: &str) -> Result<Duration, Wrong> {
    match milliseconds(text) {
        Some(Some(time)) if Duration::from_millis(time) <= LONGEST => Ok(Duration::from_millis(time)),
        Some(_) => {
            Err(Wrong::new(format!("`{text}` is too long a time"), "the longest time is ten years, `3650d`"))
        }
        None => Err(bad_time(text)),
    }
}

/// `None` if it is no time, `Some(None)` if it does not fit.
fn milliseconds(text: &str) -> Option<Option<u64>> {
    let (number, unit) = split_number(text);
    if unit.is_empty() && !number.is_empty() {
        return Some(number.parse::<u64>().ok().and_then(|seconds| seconds.checked_mul(1000)));
    }
    let (mut rest, mut total, mut units) = (text, Some(0_u64), TIME_UNITS);
    while !rest.is_empty() {
        let (number, tail) = split_number(rest);
        let (unit, tail) = tail.split_at(tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len()));
        let place = units.iter().position(|(name, _)| *name == unit).filter(|_| !number.is_empty())?;
        let part = number.parse::<u64>().ok().and_then(|number| number.checked_mul(units[place].1));
        total = total.zip(part).and_then(|(total, part)| total.checked_add(part));
        units = &units[place + 1..];
        rest = tail;
    }
    (!text.is_empty()).then_some(total)
}

fn bad_time(text: &str) -> Wrong {
    let help = match tidied(text, &[("msec", "ms"), ("sec", "s"), ("min", "m"), ("hour", "h"), ("day", "d")])
    {
        Some(tidied) if milliseconds(&tidied).is_some() => format!("write `\"{tidied}\"`"),
        _ => "write a number with its unit, `ms`, `s`, `m`, `h`, `d` or `w`, longer units first: `\"1m30s\"`"
            .into(),
    };
    Wrong::new(format!("`{text}` is not a time"), help)
}

/// Reads a size in bytes: `512`, `16k`, `1m`, `1g`, in either case.
///
/// # Errors
/// Anything else, and what no number of 64 bits can hold.
pub fn size(text: &str) -> Result<u64, Wrong> {
    match bytes(text) {
        Some(Some(size)) => Ok(size),
        Some(None) => {
            Err(Wrong::new(format!("`{text}` is too large a size"), "write a smaller one: `\"16g\"`"))
        }
        None => Err(bad_size(text)),
    }
}

/// `None` if it is no size, `Some(None)` if it does not fit.
fn bytes(text: &str) -> Option<Option<u64>> {
    let (number, unit) = split_number(text);
    let factor = match unit {
        "" => 1,
        "k" | "K" => 1 << 10,
        "m" | "M" => 1 << 20,
        "g" | "G" => 1 << 30,
        _ => return None,
    };
    (!number.is_empty()).then(|| number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)))
}

fn bad_size(text: &str) -> Wrong {
    let help = match tidied(
        text,
        &[("kib", "k"), ("mib", "m"), ("gib", "g"), ("kb", "k"), ("mb", "m"), ("gb", "g")],
    ) {
        Some(tidied) if bytes(&tidied).is_some() => format!("write `\"{tidied}\"`"),
        _ => "write a number of bytes, or one with `k`, `m` or `g`: `\"16k\"`".into(),
    };
    Wrong::new(format!("`{text}` is not a size"), help)
}

/// The text without spaces and `;`, in lower case, with the units that people write made nginx's.
fn tidied(text: &str, units: &[(&str, &str)]) -> Option<String> {
    let squeezed: String = text.chars().filter(|c| !c.is_whitespace() && *c != ';').collect();
    let lower = squeezed.to_ascii_lowercase();
    let (number, unit) = split_number(&lower);
    let singular = unit.strip_suffix('s').unwrap_or(unit);
    let singular = singular.strip_suffix("ond").or(singular.strip_suffix("ute")).unwrap_or(singular);
    let known = units.iter().find(|(long, _)| *long == unit || *long == singular).map(|(_, short)| *short);
    (!number.is_empty()).then(|| format!("{number}{}", known.unwrap_or(unit)))
}

fn split_number(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// Reads an address to listen on: `127.0.0.1:8080`, `[::1]:8080`, `8080`, `:8080` and `*:8080` (on
/// every IPv4 address), `127.0.0.1` (port 80, as in nginx), `localhost:8080`, `unix:/path`, `fd:name`.
///
/// # Errors
/// Anything else, other host names among it: what they stand for can change.
pub fn listen_address(text: &str) -> Result<ListenAddress, Wrong> {
    if let Some(path) = text.strip_prefix("unix:") {
        return unix_path(path).map(ListenAddress::Unix);
    }
    if let Some(name) = text.strip_prefix("fd:") {
        return socket_name(name).map(|name| ListenAddress::Named(name.into()));
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        let rest = rest.trim_end_matches('/');
        return Err(Wrong::new(
            format!("`{text}` is a URL"),
            format!("leave `{scheme}://` out: `\"{rest}\"`"),
        ));
    }
    if text.starts_with('/') {
        return Err(Wrong::new(format!("`{text}` is a path"), format!("write `\"unix:{text}\"`")));
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(ListenAddress::Tcp((Ipv4Addr::UNSPECIFIED, port(text, true)?).into()));
    }
    let (host, port) = host_and_port(text, true)?;
    let ip = match host {
        "" | "*" => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
        _ => ip(host)?.ok_or_else(|| {
            let help = "write an address and a port (`\"127.0.0.1:8080\"`, `\"[::]:8080\"`), a port alone for every \
                        IPv4 address (`\"8080\"`), or `\"unix:/path\"`";
            Wrong::new(format!("`{host}` is not an address of this machine"), help)
        })?,
    };
    Ok(ListenAddress::Tcp((ip, port.unwrap_or(80)).into()))
}

/// Reads where an upstream server is: `10.0.0.1:3000`, `[::1]:3000`, `name:3000`, `unix:/path`;
/// without a port it is 80.
///
/// # Errors
/// Anything else.
pub fn upstream_address(text: &str) -> Result<UpstreamAddress, Wrong> {
    if let Some(path) = text.strip_prefix("unix:") {
        return unix_path(path).map(UpstreamAddress::Unix);
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        let rest = rest.split('/').next().unwrap_or_default();
        let help = match srv_name(rest) {
            Some((service, name)) => format!("write `\"{name} service={service}\"`"),
            None => format!("leave `{scheme}://` out: `\"{rest}\"`"),
        };
        return Err(Wrong::new(format!("`{text}` is a URL, here an address is needed"), help));
    }
    if text.starts_with('/') {
        return Err(Wrong::new(format!("`{text}` is a path"), format!("write `\"unix:{text}\"`")));
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
        let help = format!("write its host too: `\"127.0.0.1:{text}\"`");
        return Err(Wrong::new(format!("`{text}` is a port without a host"), help));
    }
    let (host, port) = host_and_port(text, false)?;
    named_or_ip(host, port.unwrap_or(80))
}

/// The upstream address for a host, which may be an IPv6 address in brackets, and a port.
///
/// # Errors
/// The host is neither an address nor a name.
pub fn named_or_ip(host: &str, port: u16) -> Result<UpstreamAddress, Wrong> {
    if let Some(ip) = ip(host)? {
        return Ok(UpstreamAddress::Ip(SocketAddr::new(ip, port)));
    }
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if host.is_empty() {
        return Err(Wrong::new(
            "the host is missing",
            format!("write it before the port: `127.0.0.1:{port}`"),
        ));
    }
    let numeric = host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if numeric
        || !host.chars().all(known)
        || host.starts_with(['-', '.'])
        || host.contains("..")
        || host.len() > 253
    {
        let help =
            "write a host name (`app.internal`), an IPv4 address or an IPv6 address in brackets (`[::1]`)";
        return Err(Wrong::new(format!("`{host}` is not a host"), help));
    }
    Ok(UpstreamAddress::Name { host: host.to_ascii_lowercase(), port })
}

/// The two halves of what can only be the name of SRV records (RFC 2782): `_http._tcp` and `app.example`. No host is
/// called so, and no address would be found.
pub fn srv_name(host: &str) -> Option<(&str, &str)> {
    let (service, rest) = host.split_once('.').filter(|(service, _)| service.starts_with('_'))?;
    let (protocol, name) = rest.split_once('.')?;
    let is_known = ["_tcp", "_udp"].iter().any(|known| protocol.eq_ignore_ascii_case(known));
    (is_known && !name.is_empty()).then(|| (&host[..service.len() + 1 + protocol.len()], name))
}

/// Splits `host:port` and `[v6]:port`; the port may be missing, the brackets stay.
///
/// # Errors
/// A port that is none, or an IPv6 address without brackets or without one of them.
pub fn host_and_port(text: &str, zero: bool) -> Result<(&str, Option<u16>), Wrong> {
    if let Some(inner) = text.strip_prefix('[').filter(|inner| !inner.contains(']')) {
        let split = inner.rsplit_once(':').filter(|(host, _)| host.parse::<Ipv6Addr>().is_ok());
        let (host, port) = split.unwrap_or((inner, "8080"));
        let right =
            if host.parse::<Ipv6Addr>().is_ok() { format!("[{host}]:{port}") } else { "[::1]:8080".into() };
        return Err(Wrong::new(format!("`{text}` has no closing bracket"), format!("write `\"{right}\"`")));
    }
    let (host, tail) = match text.find(']') {
        Some(end) if text.starts_with('[') => text.split_at(end + 1),
        _ => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    if text.parse::<Ipv6Addr>().is_ok() {
        // `::1:80` is an address, too, but hardly the one that is meant.
        let split = text.rsplit_once(':').filter(|(host, _)| host.parse::<Ipv6Addr>().is_ok());
        let (host, port) = split.unwrap_or((text, "8080"));
        let help = format!("write it in brackets: `[{host}]:{port}`");
        return Err(Wrong::new(format!("`{text}` is an IPv6 address without brackets"), help));
    }
    match tail.strip_prefix(':') {
        Some(digits) => Ok((host, Some(port(digits, zero)?))),
        None if tail.is_empty() => Ok((host, None)),
        None => Err(Wrong::new(format!("`{text}` is not an address"), "write `host:port`")),
    }
}

fn port(digits: &str, zero: bool) -> Result<u16, Wrong> {
    let number =
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<u16>().ok()).flatten();
    number.filter(|port| zero || *port > 0).ok_or_else(|| {
        let first = if zero { "0 (the system finds a free one)" } else { "1" };
        Wrong::new(format!("`{digits}` is not a port"), format!("a port is a number from {first} to 65535"))
    })
}

/// `Ok(None)` if it does not look like an address.
fn ip(host: &str) -> Result<Option<IpAddr>, Wrong> {
    let Some(inner) = host.strip_prefix('[') else {
        return Ok(host.parse::<Ipv4Addr>().ok().map(IpAddr::V4));
    };
    let inner = inner.strip_suffix(']').and_then(|inner| inner.parse::<Ipv6Addr>().ok());
    inner.map(|ip| Some(IpAddr::V6(ip))).ok_or_else(|| {
        Wrong::new(format!("`{host}` is not an IPv6 address"), "write one in brackets: `[::1]`")
    })
}

/// The kernel keeps the path in 108 bytes with a zero at its end (unix(7)).
/// What systemd takes as `FileDescriptorName=` (systemd.socket(5)), without blanks, which end an address.
fn socket_name(name: &str) -> Result<&str, Wrong> {
    let is_fit = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b':' | b';');
    if name.is_empty() || name.len() > 255 || !name.bytes().all(is_fit) {
        let help =
            "write the `FileDescriptorName=` of the .socket unit: `fd:web`; without `:`, `;` and blanks";
        return Err(Wrong::new(format!("`{name}` is not the name of a socket"), help));
    }
    Ok(name)
}

fn unix_path(path: &str) -> Result<PathBuf, Wrong> {
    if !path.starts_with('/') || path.contains('\0') {
        let help = "write its whole path: `unix:/run/app.sock`";
        return Err(Wrong::new(format!("`{path}` is not the path of a socket"), help));
    }
    if path.len() > 107 {
        return Err(Wrong::new(
            "the path of a Unix socket can have 107 bytes at most",
            "choose a shorter one",
        ));
    }
    Ok(PathBuf::from(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_are_read_as_nginx_reads_them() {
        for (text, milliseconds) in [
            ("0", 0),
            ("60", 60_000),
            ("500ms", 500),
            ("60s", 60_000),
            ("1m30s", 90_000),
            ("1h", 3_600_000),
            ("1d12h", 129_600_000),
            ("2w", 1_209_600_000),
            ("1s1ms", 1001),
        ] {
            assert_eq!(time(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused_with_what_would_be_right() {
        for (text, help) in [
            ("60 s", "write `\"60s\"`"),
            ("60s;", "write `\"60s\"`"),
            ("60sec", "write `\"60s\"`"),
            ("5 minutes", "write `\"5m\"`"),
            ("10S", "write `\"10s\"`"),
            ("", "write a number"),
            ("s", "write a number"),
            ("30s1m", "write a number"),
            ("1s1s", "write a number"),
            ("-1s", "write a number"),
            ("1.5s", "write a number"),
            ("1y", "write a number"),
            ("9999999999999999999999", "the longest time"),
            ("99999999999999999w", "the longest time"),
            ("3651d", "the longest time"),
        ] {
            let wrong = time(text).unwrap_err();
            assert!(wrong.help.as_ref().is_some_and(|got| got.starts_with(help)), "{text}: {wrong}");
        }
    }

    #[test]
    fn sizes_are_read_as_nginx_reads_them() {
        for (text, bytes) in
            [("0", 0), ("512", 512), ("16k", 16_384), ("16K", 16_384), ("1m", 1 << 20), ("2g", 2 << 30)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for (text, help) in [
            ("16 k", "write `\"16k\"`"),
            ("16kb", "write `\"16k\"`"),
            ("10MB", "write `\"10m\"`"),
            ("", "write a number"),
            ("k", "write a number"),
            ("-1", "write a number"),
            ("99999999999999999999", "write a smaller"),
            ("99999999999999g", "write a smaller"),
        ] {
            let wrong = size(text).unwrap_err();
            assert!(wrong.help.as_ref().is_some_and(|got| got.starts_with(help)), "{text}: {wrong}");
        }
    }

    #[test]
    fn listening_addresses_are_read_in_every_form() {
        for (text, address) in [
            ("127.0.0.1:8080", "127.0.0.1:8080"),
            ("8080", "0.0.0.0:8080"),
            (":8080", "0.0.0.0:8080"),
            ("*:8080", "0.0.0.0:8080"),
            ("[::]:8080", "[::]:8080"),
            ("[::1]", "[::1]:80"),
            ("localhost:0", "127.0.0.1:0"),
            ("10.0.0.1", "10.0.0.1:80"),
        ] {
            assert_eq!(listen_address(text), Ok(ListenAddress::Tcp(address.parse().unwrap())), "{text}");
        }
        assert_eq!(listen_address("unix:/run/a.sock"), Ok(ListenAddress::Unix("/run/a.sock".into())));
        assert_eq!(listen_address("fd:web"), Ok(ListenAddress::Named("web".into())));
        assert_eq!(listen_address("fd:hopgate.socket"), Ok(ListenAddress::Named("hopgate.socket".into())));
        for text in [
            "example.com:80",
            "http://127.0.0.1:80",
            "::1",
            "::1:80",
            "[::1",
            "[::1]80",
            "1.2.3:80",
            "a:b:c",
            "65536",
            "127.0.0.1:",
            "127.0.0.1:+80",
            "unix:",
            "unix:a.sock",
            "fd:",
            "fd:web:80",
            "fd:w\u{e9}b",
            "[x]:80",
            "8080;",
            "",
        ] {
            assert!(listen_address(text).is_err(), "{text}");
        }
        for (text, help) in [
            ("/tmp/x.sock", "write `\"unix:/tmp/x.sock\"`"),
            ("[::1:80", "write `\"[::1]:80\"`"),
            ("[::1", "write `\"[::1]:8080\"`"),
            ("[x:80", "write `\"[::1]:8080\"`"),
        ] {
            assert_eq!(listen_address(text).unwrap_err().help.as_deref(), Some(help), "{text}");
            assert_eq!(upstream_address(text).unwrap_err().help.as_deref(), Some(help), "{text}");
        }
        assert!(listen_address(&format!("unix:/{}", "a".repeat(107))).is_err());
    }

    #[test]
    fn upstream_addresses_are_read_in_every_form() {
        let name = |host: &str, port| UpstreamAddress::Name { host: host.into(), port };
        for (text, address) in [
            ("10.0.0.1:3000", UpstreamAddress::Ip("10.0.0.1:3000".parse().unwrap())),
            ("10.0.0.1", UpstreamAddress::Ip("10.0.0.1:80".parse().unwrap())),
            ("[::1]:3000", UpstreamAddress::Ip("[::1]:3000".parse().unwrap())),
            ("App_1:3000", name("app_1", 3000)),
            ("app.internal", name("app.internal", 80)),
            ("unix:/run/a.sock", UpstreamAddress::Unix("/run/a.sock".into())),
        ] {
            assert_eq!(upstream_address(text), Ok(address), "{text}");
        }
        for text in [
            "",
            "3000",
            ":3000",
            "app:0",
            "http://app:3000",
            "a b",
            "256.0.0.1",
            "a..b",
            "-a",
            "app:3000/x",
            "::1",
        ] {
            assert!(upstream_address(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_readers_panic(text in "\\PC{0,12}|[0-9a-z:.\\[\\] ;]{0,12}") {
            let _ = (time(&text), size(&text), listen_address(&text), upstream_address(&text));
        }
    }
}
