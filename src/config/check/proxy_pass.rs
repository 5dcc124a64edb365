//! `proxy_pass`: the URL that says where the requests of a location go.

use std::net::Ipv4Addr;

use serde_spanned::Spanned;

use super::Check;
use super::upstream_tls::{Called, TlsSettings};
use crate::config::error::{Mistake, MistakeKind};
use crate::config::units::{self, Wrong};
use crate::config::{ProxyPass, To, UpstreamAddress};
use crate::routing::aim::{Scheme, proxy_host};

/// What is wrong with a URL, and what would be right.
type Refusal = (String, Option<String>);

/// A `proxy_pass` taken apart.
struct Url<'a> {
    scheme: Scheme,
    authority: Authority<'a>,
    uri: Option<&'a str>,
}

enum Authority<'a> {
    /// Host and port; an IPv6 address stands in brackets.
    Host(&'a str, Option<u16>),
    /// The name of SRV records.
    Service(&'a str),
    Unix(UpstreamAddress),
}

impl Check<'_> {
    /// `None` if it cannot be used: that has been reported.
    pub(super) fn proxy_pass(&mut self, written: &Spanned<String>, tls: &TlsSettings) -> Option<ProxyPass> {
        if written.get_ref().contains('$') {
            return self.url_with_variables(written, tls);
        }
        let url = parse(written.get_ref())
            .and_then(|url| checked_uri(url.uri).map(|uri| (url.scheme, url.authority, uri)));
        let (scheme, authority, uri) = match url {
            Ok(url) => url,
            Err((message, help)) => {
                let help = self.lone_name(written.get_ref()).or(help);
                self.mistakes
                    .push(Mistake::new(written.span(), format!("`proxy_pass`: {message}")).maybe_help(help));
                return None;
            }
        };
        let (host, port) = match authority {
            Authority::Unix(address) => {
                // nginx calls such an upstream so, too.
                let to = To::Group(self.upstreams.single(address, written.span()));
                let host = "localhost".to_owned();
                let tls = match scheme {
                    Scheme::Http => None,
                    Scheme::Https => Some(self.upstream_tls(tls, Called::Host(&host), written.span())?),
                };
                return Some(ProxyPass { to, uri, host, port: scheme.port(), tls });
            }
            Authority::Service(name) => {
                let address = UpstreamAddress::Service(name.to_ascii_lowercase());
                let to = To::Group(self.upstreams.single(address, written.span()));
                let host = of_service(name).to_owned();
                let tls = match scheme {
                    Scheme::Http => None,
                    Scheme::Https => Some(self.upstream_tls(tls, Called::Host(&host), written.span())?),
                };
                return Some(ProxyPass { to, uri, host, port: scheme.port(), tls });
            }
            Authority::Host(host, port) => (host, port),
        };
        let upstream = self.upstream(written, scheme, host, port)?;
        let tls = match scheme {
            Scheme::Http => None,
            Scheme::Https => {
                let is_group = self.upstreams.group(host).is_some();
                let called = if is_group { Called::Group(host, upstream) } else { Called::Host(host) };
                Some(self.upstream_tls(tls, called, written.span())?)
            }
        };
        let (host, port) = (proxy_host(scheme, host, port), port.unwrap_or(scheme.port()));
        Some(ProxyPass { to: To::Group(upstream), uri, host, port, tls })
    }

    /// A URL with variables says where it leads once a request is there. What is written before the first
    /// variable can be wrong already.
    fn url_with_variables(&mut self, written: &Spanned<String>, tls: &TlsSettings) -> Option<ProxyPass> {
        let text = written.get_ref();
        let before = &text[..text.find('$').unwrap_or(text.len())];
        // With a host and a port in the place of what is not known yet the beginning is a whole URL.
        let refusal = match before.split_once("://") {
            Some((scheme, _)) if scheme.starts_with("srv+") => Some((
                "the name of SRV records cannot have variables".to_owned(),
                Some("write the whole name, or one location for each".to_owned()),
            )),
            _ if text.ends_with(';') => parse(text).err(),
            Some((scheme, _)) => parse(&format!("{scheme}://host:80")).err(),
            // `http:/$uri` is one, too, with the path's slash.
            None if "http://".starts_with(before) || "https://".starts_with(before) => None,
            None => {
                let help = Some(format!("write `\"http://{text}\"`"));
                Some((format!("`{text}` is not a URL"), help))
            }
        };
        if let Some((message, help)) = refusal {
            let help =
                help.map(|help| help.replace("host:80", text.split_once("://").map_or("", |(_, rest)| rest)));
            self.mistakes
                .push(Mistake::new(written.span(), format!("`proxy_pass`: {message}")).maybe_help(help));
            return None;
        }
        let url = self.template(written)?;
        let is_plain = before.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("http:"));
        let tls = match is_plain {
            true => None,
            false => Some(self.upstream_tls(tls, Called::ByVariables, written.span())?),
        };
        Some(ProxyPass { to: To::Url(url), uri: None, host: String::new(), port: 80, tls })
    }

    /// The help for a name alone, which is a URL only for a group: else it would be the next mistake.
    fn lone_name(&self, text: &str) -> Option<String> {
        let word = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        let name = word && !text.bytes().all(|byte| byte.is_ascii_digit()) && text != "localhost";
        (name && self.upstreams.group(text).is_none() && !self.upstreams.lone_names_are_hosts())
            .then(|| format!("write `\"http://{text}:80\"`, with the port of the app"))
    }

    /// The group that a host names, or the one of its own.
    fn upstream(
        &mut self,
        written: &Spanned<String>,
        scheme: Scheme,
        host: &str,
        port: Option<u16>,
    ) -> Option<usize> {
        if let Some(group) = self.upstreams.group(host) {
            if let Some(port) = port {
                let message = format!("`{host}` is an upstream: its servers have ports of their own");
                let help = format!("leave `:{port}` out, or give `[upstream.{host}]` another name");
                self.mistakes.push(Mistake::new(written.span(), message).help(help));
            }
            return Some(group);
        }
        let lone = !host.contains(['.', '[']) && !host.eq_ignore_ascii_case("localhost");
        if lone && port.is_none() && !self.upstreams.lone_names_are_hosts() {
            self.no_such_upstream(written, scheme, host);
            return None;
        }
        if units::srv_name(host).is_some() {
            let message = format!("`proxy_pass`: `{host}` is the name of SRV records, not of a host");
            let help = format!("write `\"srv+{}://{host}\"`", scheme.name());
            self.mistakes.push(Mistake::new(written.span(), message).help(help));
            return None;
        }
        match units::named_or_ip(host, port.unwrap_or(scheme.port())) {
            Ok(address) => Some(self.upstreams.single(address, written.span())),
            Err(Wrong { message, help }) => {
                self.mistakes
                    .push(Mistake::new(written.span(), format!("`proxy_pass`: {message}")).maybe_help(help));
                None
            }
        }
    }

    fn no_such_upstream(&mut self, written: &Spanned<String>, scheme: Scheme, host: &str) {
        let nearest = self
            .upstreams
            .names()
            .into_iter()
            .map(|name| {
                (strsim::damerau_levenshtein(&name.to_ascii_lowercase(), &host.to_ascii_lowercase()), name)
            })
            .min()
            .filter(|(distance, name)| *distance <= 1 + name.len() / 4);
        let message = match nearest {
            Some((_, name)) => format!("there is no upstream `{host}`, did you mean `{name}`?"),
            None => format!("there is no upstream `{host}`"),
        };
        let help = format!(
            "write `[upstream.{host}]` with its servers, or, if `{host}` is a host name, its port: `{}://{host}:{}`",
            scheme.name(),
            scheme.port()
        );
        let mistake = Mistake::new(written.span(), message).help(help);
        self.mistakes.push(mistake.kind(MistakeKind::Doubtful));
    }
}

fn parse(text: &str) -> Result<Url<'_>, Refusal> {
    let refused = |message: &str, help: String| Err((message.to_owned(), Some(help)));
    if let Some(clean) = text.strip_suffix(';') {
        return refused("there is no `;` at the end of a value", format!("write `\"{}\"`", clean.trim_end()));
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return refused(&format!("`{text}` is not a URL"), without_scheme(text));
    };
    let lower = scheme.to_ascii_lowercase();
    let (srv, scheme) = lower.split_at(if lower.starts_with("srv+") { 4 } else { 0 });
    let is_srv = !srv.is_empty();
    let scheme = match scheme {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        "ws" => {
            return refused("the scheme is `http` for WebSocket, too", format!("write `\"http://{rest}\"`"));
        }
        "wss" => {
            return refused(
                "the scheme is `https` for WebSocket, too",
                format!("write `\"https://{rest}\"`"),
            );
        }
        other if strsim::damerau_levenshtein(other, "https") <= 1 => {
            return refused(
                &format!("`{other}` is not a scheme that is known"),
                format!("write `\"{srv}https://{rest}\"`"),
            );
        }
        other if strsim::damerau_levenshtein(other, "http") <= 1 => {
            return refused(
                &format!("`{other}` is not a scheme that is known"),
                format!("write `\"{srv}http://{rest}\"`"),
            );
        }
        "srv" | "http+srv" => {
            let message = format!("`{scheme}` is not a scheme that is known");
            return refused(&message, format!("write `\"srv+http://{rest}\"`"));
        }
        other => {
            let message = format!("upstreams are spoken to in HTTP, not in `{other}`");
            let help = "write the address of an HTTP server: `\"http://127.0.0.1:3000\"`";
            return refused(&message, help.to_owned());
        }
    };
    if let Some(socket) = rest.strip_prefix("unix:").filter(|_| !is_srv) {
        // nginx: the URI stands behind a second colon.
        let (path, uri) = socket.split_once(':').map_or((socket, None), |(path, uri)| (path, Some(uri)));
        let address = units::upstream_address(&format!("unix:{path}")).map_err(spoken)?;
        return Ok(Url {
            scheme,
            authority: Authority::Unix(address),
            uri: uri.filter(|uri| !uri.is_empty()),
        });
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, uri) = rest.split_at(end);
    if authority.contains('@') {
        return refused(
            "a URL with a user name is not supported",
            "leave out what stands before the `@`".to_owned(),
        );
    }
    let (host, port) = units::host_and_port(authority, false).map_err(spoken)?;
    if host.is_empty() {
        return refused("the host is missing", "write `\"http://127.0.0.1:3000\"`".to_owned());
    }
    let uri = (!uri.is_empty()).then_some(uri);
    if is_srv {
        let name = service(scheme, host, port)?;
        return Ok(Url { scheme, authority: Authority::Service(name), uri });
    }
    Ok(Url { scheme, authority: Authority::Host(host, port), uri })
}

/// The name in `srv+http://_http._tcp.app.example`.
fn service(scheme: Scheme, host: &str, port: Option<u16>) -> Result<&str, Refusal> {
    let right = format!("`\"srv+{}://_http._tcp.app.example\"`", scheme.name());
    if port.is_some() {
        let help = format!("write `\"srv+{}://{host}\"`", scheme.name());
        return Err(("with `srv+` there is no port: the SRV records tell it".to_owned(), Some(help)));
    }
    match units::named_or_ip(host, 80).map_err(spoken)? {
        UpstreamAddress::Name { .. } => Ok(host),
        _ => {
            let message = format!("`{host}` is an address, and there are no SRV records of it");
            Err((message, Some(format!("write the name of the records, as in {right}"))))
        }
    }
}

/// What a service is of: `app.example` in `_http._tcp.app.example`. A certificate has that name, since DNS, which
/// names the hosts behind it, could name anybody's (RFC 6125 §6.2.1).
fn of_service(name: &str) -> &str {
    let mut rest = name;
    while let Some((label, behind)) = rest.split_once('.').filter(|(label, _)| label.starts_with('_')) {
        debug_assert!(!label.is_empty());
        rest = behind;
    }
    rest
}

fn without_scheme(text: &str) -> String {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if text.trim().is_empty() {
        "write `\"http://127.0.0.1:3000\"`".to_owned()
    } else if digits {
        format!("write `\"http://{}:{text}\"`", Ipv4Addr::LOCALHOST)
    } else if text.starts_with('/') {
        format!("write `\"http://unix:{text}\"`")
    } else if let Some(rest) = text.strip_prefix("https:") {
        format!("write `\"https://{}\"`", rest.trim_start_matches('/'))
    } else if let Some(rest) = text.strip_prefix("http:") {
        format!("write `\"http://{}\"`", rest.trim_start_matches('/'))
    } else {
        format!("write `\"http://{text}\"`")
    }
}

fn spoken(Wrong { message, help }: Wrong) -> Refusal {
    (message, help)
}

/// The URI part is put in place of what the location's path matched, so it must be a path; it may
/// have a query, as in nginx, which the client's is added to.
fn checked_uri(uri: Option<&str>) -> Result<Option<String>, Refusal> {
    let Some(uri) = uri else { return Ok(None) };
    let refused = |message: &str, help: String| Err((message.to_owned(), Some(help)));
    if let Some(at) = uri.find('#') {
        return refused("a fragment (`#…`) is never sent", format!("leave `{}` out", &uri[at..]));
    }
    if !uri.starts_with('/') {
        return refused(&format!("the URI part `{uri}` does not start with `/`"), format!("write `/{uri}`"));
    }
    let bytes = uri.as_bytes();
    let escaped =
        |at: usize| bytes.get(at + 1..at + 3).is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit));
    let fits = |(at, byte): (usize, &u8)| {
        let plain = byte.is_ascii_alphanumeric() || b"/?-._~!$&'()*+,;=:@".contains(byte);
        plain || *byte == b'%' && escaped(at)
    };
    if !bytes.iter().enumerate().all(fits) {
        let help = "percent-encode what is not a letter, a digit or one of `-._~!$&'()*+,;=:@`".to_owned();
        return refused(&format!("the URI part `{uri}` cannot stand in a request"), help);
    }
    Ok(Some(uri.to_owned()))
}
