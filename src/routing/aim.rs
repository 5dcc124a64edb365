//! Pure: where a `proxy_pass` with variables leads, once they have their values.

use crate::config::UpstreamAddress;
use crate::config::units::{host_and_port, named_or_ip, upstream_address};

/// The scheme of a `proxy_pass`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Without TLS.
    Http,
    /// With TLS.
    Https,
}

impl Scheme {
    /// The port of a URL without one.
    pub fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// Where a `proxy_pass` leads for one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aim {
    /// Whether TLS is spoken there.
    pub scheme: Scheme,
    /// A single server, unless there is a group of the name of its host and no port is written.
    pub address: UpstreamAddress,
    /// The host, if no port is written: it may be the name of a group.
    pub group: Option<String>,
    /// `$proxy_host`: the host, with its port unless that is the scheme's own.
    pub host: String,
    /// `$proxy_port`.
    pub port: u16,
    /// The URI part: as in nginx it is all of the target. It starts with `/`, and has no byte that may not
    /// stand there.
    pub uri: Option<Vec<u8>>,
}

impl Aim {
    /// Reads an evaluated `proxy_pass`.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn of(text: &[u8]) -> Result<Self, String> {
        let behind = |start: &[u8]| {
            let (scheme, rest) = text.split_at_checked(start.len())?;
            scheme.eq_ignore_ascii_case(start).then_some(rest)
        };
        let (scheme, rest) = match (behind(b"http://"), behind(b"https://")) {
            (Some(rest), _) => (Scheme::Http, rest),
            (_, Some(rest)) => (Scheme::Https, rest),
            (None, None) => return Err("it does not start with `http://` or `https://`".to_owned()),
        };
        let is_unix = rest.starts_with(b"unix:");
        let end = match is_unix {
            // nginx: the URI stands behind a second colon.
            true => memchr::memchr(b':', &rest[5..]).map(|colon| colon + 5),
            false => memchr::memchr3(b'/', b'?', b'#', rest),
        };
        let (authority, uri) = rest.split_at(end.unwrap_or(rest.len()));
        let authority = str::from_utf8(authority).map_err(|_| "its host is no text".to_owned())?;
        let uri = target(if is_unix { uri.strip_prefix(b":").unwrap_or(uri) } else { uri });
        if is_unix {
            let address = upstream_address(authority).map_err(|wrong| wrong.message)?;
            let host = "localhost".to_owned();
            return Ok(Self { scheme, address, group: None, host, port: scheme.port(), uri });
        }
        let (host, port) = host_and_port(authority, false).map_err(|wrong| wrong.message)?;
        let address = named_or_ip(host, port.unwrap_or(scheme.port())).map_err(|wrong| wrong.message)?;
        Ok(Self {
            scheme,
            address,
            group: port.is_none().then(|| host.to_owned()),
            host: proxy_host(scheme, host, port),
            port: port.unwrap_or(scheme.port()),
            uri,
        })
    }
}

/// `$proxy_host` for a host with the port that is written behind it.
pub fn proxy_host(scheme: Scheme, host: &str, port: Option<u16>) -> String {
    match port.filter(|port| *port != scheme.port()) {
        None => host.to_owned(),
        Some(port) => format!("{host}:{port}"),
    }
}

/// A URI part as a target. A decoded path can hold any byte: with a blank or a line break in it the request
/// line would be another one (R17), so such bytes are encoded again.
fn target(uri: &[u8]) -> Option<Vec<u8>> {
    if uri.is_empty() {
        return None;
    }
    let mut target = Vec::with_capacity(uri.len() + 1);
    if uri[0] != b'/' {
        target.push(b'/');
    }
    for byte in uri {
        match byte {
            b'#' | ..=b' ' | 0x7f.. => target.extend_from_slice(format!("%{byte:02X}").as_bytes()),
            _ => target.push(*byte),
        }
    }
    Some(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_evaluated_url_is_taken_apart() {
        for (text, address, group, host, uri) in [
            ("http://app:3000", "app:3000", None, "app:3000", None),
            ("http://app", "app:80", Some("app"), "app", None),
            ("HTTP://App:80/", "app:80", None, "App", Some("/")),
            ("http://127.0.0.1:81?a", "127.0.0.1:81", None, "127.0.0.1:81", Some("/?a")),
            ("http://[::1]/x y\r\nz", "[::1]:80", Some("[::1]"), "[::1]", Some("/x%20y%0D%0Az")),
            ("http://a/\u{fc}#f", "a:80", Some("a"), "a", Some("/%C3%BC%23f")),
            ("http://unix:/run/a.sock", "unix:/run/a.sock", None, "localhost", None),
            ("https://app", "app:443", Some("app"), "app", None),
            ("Https://app:443/", "app:443", None, "app", Some("/")),
            ("https://app:80", "app:80", None, "app:80", None),
            ("https://unix:/run/a.sock", "unix:/run/a.sock", None, "localhost", None),
            ("http://unix:/run/a.sock:/b", "unix:/run/a.sock", None, "localhost", Some("/b")),
        ] {
            let aim = Aim::of(text.as_bytes()).unwrap_or_else(|why| panic!("{text}: {why}"));
            assert_eq!(aim.address.to_string(), address, "{text}");
            assert_eq!(aim.scheme == Scheme::Https, text.contains("ttps"), "{text}");
            assert_eq!(aim.group.as_deref(), group, "{text}");
            assert_eq!(aim.host, host, "{text}");
            assert_eq!(aim.uri.as_deref(), uri.map(str::as_bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_url_is_refused() {
        for text in [
            "",
            "http://",
            "app:80",
            "https:/app",
            "wss://app",
            "http://:80",
            "http://a:b",
            "http://a:0",
            "http://a b/",
            "http://a@b/",
        ] {
            assert!(Aim::of(text.as_bytes()).is_err(), "{text}");
        }
        assert!(Aim::of(b"http://\xff/").is_err());
    }
}
