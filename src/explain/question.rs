//! The request that is asked about, as a client would send it.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::headers::is_token_byte;
use crate::websocket;

/// The key of RFC 6455 §1.3: a client makes one anew for each handshake.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// What is asked about.
#[derive(Clone, Debug)]
pub struct Question {
    /// Where the request goes.
    pub url: Url,
    /// Its method.
    pub method: String,
    /// The fields that were given, in their order.
    pub fields: Vec<GivenField>,
    /// Where it comes from.
    pub from: IpAddr,
}

/// A URL as a client takes it apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// `http`, `https`, `ws` or `wss`.
    pub scheme: Scheme,
    /// The name and the password before an `@`.
    user: Option<String>,
    /// The host as written; an IPv6 address in its brackets.
    pub host: String,
    /// The port, if it is written.
    port: Option<u16>,
    /// The path and the query, as they are sent.
    pub target: String,
}

/// The schemes of RFC 9110 §4.2 and of RFC 6455 §3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Scheme {
    Http,
    Https,
    Ws,
    Wss,
}

/// A field as `-H` gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenField {
    /// Its name.
    pub name: String,
    /// Its value; `None`: it is not sent, even where a client would.
    pub value: Option<String>,
}

/// The head of a request, and what of it the client would have added by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The bytes of the head.
    pub head: Vec<u8>,
    /// The names of the fields that make a WebSocket handshake of it and were not given.
    pub added: Vec<&'static str>,
}

impl Question {
    /// The head that a client would send.
    pub fn head(&self) -> Asked {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.url.target);
        let mut line = |name: &str, value: &str| {
            head.push_str(name);
            head.push_str(if value.is_empty() { ":" } else { ": " });
            head.push_str(value);
            head.push_str("\r\n");
        };
        if !self.gives("Host") {
            line("Host", &self.url.authority());
        }
        if let Some(user) = self.url.user.as_ref().filter(|_| !self.gives("Authorization")) {
            line("Authorization", &format!("Basic {}", STANDARD.encode(user)));
        }
        for field in &self.fields {
            if let Some(value) = &field.value {
                line(&field.name, value);
            }
        }
        let mut added = Vec::new();
        if self.is_handshake() {
            for (name, value) in [
                ("Connection", "Upgrade"),
                ("Upgrade", "websocket"),
                ("Sec-WebSocket-Version", websocket::VERSION),
                ("Sec-WebSocket-Key", KEY),
            ] {
                if !self.gives(name) {
                    line(name, value);
                    added.push(name);
                }
            }
        }
        head.push_str("\r\n");
        Asked { head: head.into_bytes(), added }
    }

    /// Whether it is a WebSocket handshake that the client completes: the scheme says so, or there is an
    /// `Upgrade: websocket` with nothing else said about the connection.
    fn is_handshake(&self) -> bool {
        let asks = self.fields.iter().any(|field| {
            let is_websocket = |value: &String| value.eq_ignore_ascii_case("websocket");
            field.name.eq_ignore_ascii_case("Upgrade") && field.value.as_ref().is_some_and(is_websocket)
        });
        matches!(self.url.scheme, Scheme::Ws | Scheme::Wss) || (asks && !self.gives("Connection"))
    }

    fn gives(&self, name: &str) -> bool {
        self.fields.iter().any(|field| field.name.eq_ignore_ascii_case(name))
    }
}

impl Url {
    /// Reads a URL. Its path and query are sent as they are written, only that blanks, control characters
    /// and everything outside of ASCII are percent-encoded, as clients do; a fragment is never sent.
    ///
    /// # Errors
    /// What is wrong with it, and what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some((scheme, rest)) = text.split_once("://") else {
            let rest = match text {
                "" => "HOST/".to_owned(),
                path if path.starts_with('/') && !path.starts_with("//") => format!("HOST{path}"),
                rest => rest.trim_start_matches('/').to_owned(),
            };
            return Err(format!("`{text}` has no scheme; write `http://{rest}`"));
        };
        let scheme = Scheme::parse(scheme)?;
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(decoded(user)), host),
            None => (None, authority),
        };
        let (host, port) = host_and_port(host)?;
        let rest = rest.split('#').next().unwrap_or_default();
        let slash = if rest.starts_with('/') { "" } else { "/" };
        let target = format!("{slash}{}", encoded(rest));
        Ok(Self { scheme, user, host: host.to_owned(), port, target })
    }

    /// The port that the client connects to.
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(self.scheme.port())
    }

    /// The value of `Host`: the port is in it only if it is not the scheme's own (RFC 9110 §7.2).
    fn authority(&self) -> String {
        match self.port.filter(|port| *port != self.scheme.port()) {
            Some(port) => format!("{}:{port}", self.host),
            None => self.host.clone(),
        }
    }

    /// The host, if it is an address.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.trim_matches(['[', ']']).parse().ok()
    }
}

impl Scheme {
    fn parse(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "http" => Ok(Self::Http),
            "https" => Ok(Self::Https),
            "ws" => Ok(Self::Ws),
            "wss" => Ok(Self::Wss),
            other => Err(format!("`{other}` is not `http`, `https`, `ws` or `wss`")),
        }
    }

    /// Whether the client would speak TLS.
    pub fn is_secure(self) -> bool {
        matches!(self, Self::Https | Self::Wss)
    }

    fn port(self) -> u16 {
        if self.is_secure() { 443 } else { 80 }
    }
}

impl GivenField {
    /// Reads a line as `curl -H` does: `Name: value`; `Name;` for an empty value; `Name:` for a field that is
    /// not sent.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no field; write `Name: value`");
        if text.contains(['\r', '\n', '\0']) {
            return Err("a field is one line".to_owned());
        }
        let (name, value) = match text.split_once(':') {
            Some((name, value)) => (name, Some(value.trim_matches([' ', '\t'])).filter(|v| !v.is_empty())),
            None => (text.strip_suffix(';').ok_or_else(wrong)?, Some("")),
        };
        if name.is_empty() || !name.bytes().all(is_token_byte) {
            return Err(wrong());
        }
        Ok(Self { name: name.to_owned(), value: value.map(str::to_owned) })
    }
}

fn host_and_port(text: &str) -> Result<(&str, Option<u16>), String> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let is_bracketed = host.starts_with('[') && host.ends_with(']');
    if host.is_empty() || (host.contains(':') && !is_bracketed) {
        return Err(match host.is_empty() {
            true => "the URL has no host".to_owned(),
            false => format!("an IPv6 address stands in brackets: `[{}]`", text.trim_matches(['[', ']'])),
        });
    }
    if host.contains(|c: char| c.is_whitespace() || c.is_control() || !c.is_ascii()) {
        return Err(format!("`{host}` is no host as clients send it (names outside of ASCII as `xn--…`)"));
    }
    match port {
        None | Some("") => Ok((host, None)),
        Some(port) => match port.parse() {
            Ok(port @ 1..) => Ok((host, Some(port))),
            _ => Err(format!("`{port}` is no port")),
        },
    }
}

/// What may not stand in a request line, percent-encoded.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'!'..=b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// The user of a URL, percent-decoded.
fn decoded(text: &str) -> String {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let [byte, behind @ ..] = rest {
        let escape = behind.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let escape = escape.filter(|_| *byte == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok());
        out.push(escape.unwrap_or(*byte));
        rest = &behind[if escape.is_some() { 2 } else { 0 }..];
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(method: &str, url: &str, fields: &[&str]) -> String {
        let question = Question {
            url: Url::parse(url).unwrap(),
            method: method.to_owned(),
            fields: fields.iter().map(|field| GivenField::parse(field).unwrap()).collect(),
            from: IpAddr::from([127, 0, 0, 1]),
        };
        String::from_utf8(question.head().head).unwrap()
    }

    #[test]
    fn a_url_becomes_the_head_that_a_client_would_send() {
        for (url, line, host) in [
            ("http://a.b", "/", "a.b"),
            ("http://a.b:80/x", "/x", "a.b"),
            ("https://a.b:443/x", "/x", "a.b"),
            ("http://a.b:443/x", "/x", "a.b:443"),
            ("HTTP://A.b:/x", "/x", "A.b"),
            ("http://a.b?q=1#f", "/?q=1", "a.b"),
            ("http://a.b/x y/ü?a b#f", "/x%20y/%C3%BC?a%20b", "a.b"),
            ("http://a.b//x/../%2e", "//x/../%2e", "a.b"),
            ("http://[::1]:8080/", "/", "[::1]:8080"),
            ("http://[::1]", "/", "[::1]"),
        ] {
            assert_eq!(
                head("GET", url, &[]),
                format!("GET {line} HTTP/1.1\r\nHost: {host}\r\n\r\n"),
                "{url}"
            );
        }
        assert!(head("GET", "http://me:a%40b@a.b/", &[]).contains("Authorization: Basic bWU6YUBi\r\n"));
    }

    #[test]
    fn given_fields_stand_above_those_of_the_url_as_with_curl() {
        assert_eq!(
            head("POST", "http://a.b/", &["X-One:  1 ", "host: c", "X-Empty;", "X-None:"]),
            "POST / HTTP/1.1\r\nX-One: 1\r\nhost: c\r\nX-Empty:\r\n\r\n"
        );
        assert_eq!(head("GET", "http://a.b/", &["Host:"]), "GET / HTTP/1.1\r\n\r\n");
    }

    #[test]
    fn a_handshake_is_completed_and_one_that_is_written_out_is_not() {
        let whole = head("GET", "ws://a.b/", &[]);
        assert_eq!(
            whole,
            "GET / HTTP/1.1\r\nHost: a.b\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        let short = head("GET", "http://a.b/", &["Upgrade: WebSocket"]);
        assert!(short.contains("Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"), "{short}");
        let literal = head("GET", "http://a.b/", &["Upgrade: websocket", "Connection: keep-alive"]);
        assert!(!literal.contains("Sec-WebSocket"), "{literal}");
        let other = head("GET", "wss://a.b/", &["Sec-WebSocket-Version: 8"]);
        assert!(other.contains("Version: 8\r\n") && !other.contains("Version: 13"), "{other}");
    }

    #[test]
    fn what_was_probably_meant_is_said_of_what_is_no_url() {
        for (url, meant) in [
            ("a.b/x", "write `http://a.b/x`"),
            ("//a.b/x", "write `http://a.b/x`"),
            ("/x", "write `http://HOST/x`"),
            ("", "write `http://HOST/`"),
            ("http://::1/", "in brackets: `[::1]`"),
            ("http://[::1/", "in brackets: `[::1]`"),
        ] {
            let error = Url::parse(url).unwrap_err();
            assert!(error.contains(meant), "{url}: {error}");
        }
    }

    #[test]
    fn what_is_no_url_and_no_field_is_refused() {
        for url in [
            "a.b/x",
            "/x",
            "ftp://a",
            "http://",
            "http:///x",
            "http://a:x",
            "http://a:0",
            "http://a:99999",
            "http://::1/",
            "http://ü/",
            "http://a b/",
        ] {
            assert!(Url::parse(url).is_err(), "{url}");
        }
        assert!(Url::parse("a.b/x").unwrap_err().ends_with("write `http://a.b/x`"));
        for field in ["", "x", ": x", "a b: c", "a: b\r\nc: d"] {
            assert!(GivenField::parse(field).is_err(), "{field}");
        }
    }
}
