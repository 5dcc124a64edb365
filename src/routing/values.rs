//! What the variables are worth: for a request on its way, and for the log afterwards.

use std::net::IpAddr;
use std::sync::OnceLock;

use crate::client::ClientInfo;
use crate::config::{Config, ForwardedHeaders, Location, RealIpHeader, Server};
use crate::files::path::{self, Place};
use crate::headers::credentials::Credentials;
use crate::headers::fields::{Fields, Known};
use crate::headers::forwarded;
use crate::headers::response::draft::Draft;
use crate::http1::head::{RequestHead, Version};
use crate::request::{Origin, Request};
use crate::routing::course::Course;
use crate::routing::escape as percent;
use crate::routing::outcome::{Outcome, display, write_ip};
use crate::routing::variables::{Part, Template, Variable};

/// Everything that a variable can ask about.
#[derive(Debug)]
pub struct Values<'a> {
    /// The connection.
    pub client: &'a ClientInfo,
    /// Who sent the request.
    pub origin: Origin,
    /// The head, if one was read.
    pub head: Option<&'a RequestHead>,
    /// The request, if the head was that of one.
    pub request: Option<&'a Request>,
    /// The configuration.
    pub config: &'a Config,
    /// The server that answers.
    pub server: &'a Server,
    /// The location; the server's outer one if none has the path.
    pub location: &'a Location,
    /// What the request has been rewritten to, and what that has left behind.
    pub course: &'a Course,
    /// What became of the request so far.
    pub outcome: &'a Outcome,
    /// The answer while it is put together.
    pub answer: Option<&'a Draft<'a>>,
    /// The status of a `return` while its text is put together.
    pub returned: Option<u16>,
}

/// How a variable's value is put into a text.
pub type Escape = fn(&mut Vec<u8>, &[u8]);

/// As it is.
pub fn verbatim(out: &mut Vec<u8>, value: &[u8]) {
    out.extend_from_slice(value);
}

impl Template {
    /// Writes the text; the groups of an expression in it (`$1`) are percent-encoded, as they were before
    /// the path was decoded.
    pub fn write_encoding_groups(&self, out: &mut Vec<u8>, values: &Values<'_>) {
        let mut value = Vec::new();
        for part in self.parts() {
            match part {
                Part::Literal(text) => out.extend_from_slice(text.as_bytes()),
                Part::Variable(variable @ Variable::Capture(_)) => {
                    value.clear();
                    values.write(variable, &mut value);
                    percent::argument(out, &value);
                }
                Part::Variable(variable) => values.write(variable, out),
            }
        }
    }

    /// Writes the text with its variables filled in.
    pub fn write(&self, out: &mut Vec<u8>, values: &Values<'_>, escape: Escape) {
        let mut value = Vec::new();
        for part in self.parts() {
            match part {
                Part::Literal(text) => out.extend_from_slice(text.as_bytes()),
                Part::Variable(variable) => {
                    value.clear();
                    values.write(variable, &mut value);
                    escape(out, &value);
                }
            }
        }
    }
}

impl Values<'_> {
    /// Adds the value of a variable to `out`; nothing if it has none.
    pub fn write(&self, variable: &Variable, out: &mut Vec<u8>) {
        if self.outcome.late.write(variable, out) {
            return;
        }
        match variable {
            Variable::DocumentRoot | Variable::RealpathRoot | Variable::RequestFilename => {
                self.of_files(variable, out);
            }
            Variable::Capture(group) => self.course.slots.capture(*group, out),
            Variable::User(slot) => self.of_operator(*slot, out),
            Variable::Arg(_) | Variable::Args | Variable::Cookie(_) | Variable::Http(_) => {
                self.of_head(variable, out)
            }
            Variable::ContentLength | Variable::ContentType | Variable::RemoteUser => {
                self.of_head(variable, out)
            }
            Variable::IsArgs | Variable::Request | Variable::RequestMethod | Variable::RequestUri => {
                self.of_head(variable, out);
            }
            Variable::ServerProtocol | Variable::Http2 | Variable::Uri | Variable::Host => {
                self.of_head(variable, out);
            }
            Variable::UpstreamAddr
            | Variable::UpstreamConnectTime
            | Variable::UpstreamHeaderTime
            | Variable::UpstreamResponseLength
            | Variable::UpstreamResponseTime
            | Variable::UpstreamStatus => self.outcome.write_upstreams(variable, out),
            Variable::SentHttp(name) => self.sent(name, out),
            Variable::UpstreamHttp(name) => {
                joined(out, self.outcome.response.as_ref().map(|head| &head.fields), name);
            }
            Variable::UpstreamCookie(name) => {
                let fields = self.outcome.response.as_ref().map(|head| &head.fields);
                out.extend_from_slice(fields.map_or(&b""[..], |fields| set_cookie(fields, name)));
            }
            Variable::Status => {
                let status = match self.outcome.status {
                    0 => self.outcome.page_status.or(self.returned).unwrap_or(0),
                    sent => sent,
                };
                display(out, format_args!("{status:03}"));
            }
            _ => self.of_connection(variable, out),
        }
    }

    /// A variable of the operator's: what `set` or a named group gave it, or what its map says. As in nginx
    /// a map is asked once for a request, unless it is volatile.
    fn of_operator(&self, slot: usize, out: &mut Vec<u8>) {
        if self.course.slots.write(slot, out) {
            return;
        }
        let Some(map) = self.config.variables.get(slot).and_then(|own| own.map.as_ref()) else { return };
        let mut value = Vec::new();
        self.course.nested(slot, || {
            let mut source = Vec::new();
            map.source.write(&mut source, self, verbatim);
            map.result(&source, &self.course.slots).write(&mut value, self, verbatim);
        });
        out.extend_from_slice(&value);
        if !map.is_volatile {
            self.course.slots.set(slot, value);
        }
    }

    /// `$proxy_host`.
    pub fn proxy_host(&self) -> &str {
        let written = || self.location.proxy_pass().map_or("", |pass| pass.host.as_str());
        self.outcome.aim.as_ref().map_or_else(written, |aim| aim.host.as_str())
    }

    /// Where the files of the location are. A root can be made of the operator's variables, and these of it.
    fn of_files(&self, variable: &Variable, out: &mut Vec<u8>) {
        let root = self.location.files.root.as_ref();
        let fill = |template: &Template, out: &mut Vec<u8>| template.write(out, self, verbatim);
        // A place of its own in the list of what is being worked out.
        const FILES: usize = usize::MAX;
        self.course.nested(FILES, || match variable {
            Variable::DocumentRoot => out.extend(path::document_root(root, &fill)),
            Variable::RealpathRoot => out.extend(path::realpath_root(root, &fill)),
            _ => {
                let uri = self.request.map_or(&b"/"[..], |request| self.course.path(request));
                let is_behind_alias = self.course.is_behind_alias;
                let place = root.map(|root| Place { root, is_behind_alias, fill: &fill });
                out.extend(place.and_then(|place| place.file(uri).ok()).unwrap_or_default());
            }
        });
    }

    fn sent(&self, name: &str, out: &mut Vec<u8>) {
        let Some(answer) = self.answer else {
            let came = || self.outcome.response.as_ref().map(|head| &head.fields);
            return joined(out, self.outcome.sent.as_ref().or_else(came), name);
        };
        for (index, value) in answer.values(name).enumerate() {
            if index > 0 {
                out.extend_from_slice(b", ");
            }
            out.extend_from_slice(value);
        }
    }

    fn of_connection(&self, variable: &Variable, out: &mut Vec<u8>) {
        match variable {
            Variable::BinaryRemoteAddr => match self.origin.client {
                Some(IpAddr::V4(ip)) => out.extend_from_slice(&ip.octets()),
                Some(IpAddr::V6(ip)) => out.extend_from_slice(&ip.octets()),
                None => out.extend_from_slice(b"unix:"),
            },
            Variable::LimitReqStatus => {
                out.extend_from_slice(self.outcome.limit_req.unwrap_or_default().as_bytes());
            }
            Variable::LimitConnStatus => {
                out.extend_from_slice(self.outcome.limit_conn.unwrap_or_default().as_bytes());
            }
            Variable::Connection => display(out, self.client.id),
            Variable::ConnectionRequests => display(out, self.client.requests),
            Variable::Hostname => out.extend_from_slice(hostname().as_bytes()),
            Variable::Pid => display(out, std::process::id()),
            Variable::ProxyAddXForwardedFor => self.add_x_forwarded_for(out),
            Variable::ProxyHost => out.extend_from_slice(self.proxy_host().as_bytes()),
            Variable::ProxyPort => match (&self.outcome.aim, self.location.proxy_pass()) {
                (Some(aim), _) => display(out, aim.port),
                (None, Some(pass)) => display(out, pass.port),
                (None, None) => {}
            },
            Variable::ProxyProtocolAddr
            | Variable::ProxyProtocolPort
            | Variable::ProxyProtocolServerAddr
            | Variable::ProxyProtocolServerPort => self.of_balancer(variable, out),
            Variable::ProxyProtocolTlv(tlv) => {
                if let Some(proxied) = &self.client.proxied {
                    proxied.tlvs.write(*tlv, out);
                }
            }
            Variable::RealipRemoteAddr => self.ip(self.client.connected_from().map(|peer| peer.ip()), out),
            Variable::RealipRemotePort => {
                if let Some(address) = self.client.connected_from() {
                    display(out, address.port());
                }
            }
            Variable::RemotePort => {
                if let Some(port) = self.origin.port {
                    display(out, port);
                }
            }
            Variable::RemoteAddr => self.ip(self.origin.client, out),
            Variable::RequestId => out.extend_from_slice(self.course.request_id().as_bytes()),
            Variable::Scheme => out.extend_from_slice(self.client.scheme().as_bytes()),
            Variable::Https if self.client.tls.is_some() => out.extend_from_slice(b"on"),
            Variable::Tls(variable) => {
                if let Some(tls) = &self.client.tls {
                    tls.write(*variable, out);
                }
            }
            Variable::ServerAddr => match (self.client.local, &self.client.path) {
                (Some(local), _) => display(out, local.ip().to_canonical()),
                (None, Some(path)) => display(out, format_args!("unix:{}", path.display())),
                (None, None) => {}
            },
            Variable::ServerName => out.extend_from_slice(self.server.name.as_bytes()),
            Variable::ServerPort => {
                if let Some(local) = self.client.local {
                    display(out, local.port());
                }
            }
            // `https` is empty without TLS; the others have been dealt with.
            _ => {}
        }
    }

    /// What the PROXY protocol says; nothing if it says none of it.
    fn of_balancer(&self, variable: &Variable, out: &mut Vec<u8>) {
        let Some(said) = self.client.proxied.as_ref().and_then(|proxied| proxied.addresses) else { return };
        match variable {
            Variable::ProxyProtocolAddr => display(out, said.source.ip()),
            Variable::ProxyProtocolPort => display(out, said.source.port()),
            Variable::ProxyProtocolServerAddr => display(out, said.destination.ip()),
            _ => display(out, said.destination.port()),
        }
    }

    fn ip(&self, ip: Option<IpAddr>, out: &mut Vec<u8>) {
        match ip {
            Some(ip) => write_ip(out, ip),
            None => out.extend_from_slice(b"unix:"),
        }
    }

    /// With `forwarded_headers = "pass"` nginx's meaning: whatever the client sent, with `$remote_addr` added.
    /// Else only trusted proxies are believed, as for the field that hopgate itself sets.
    fn add_x_forwarded_for(&self, out: &mut Vec<u8>) {
        if self.location.forwarded_headers != ForwardedHeaders::Pass {
            return self.forwarded_for(out);
        }
        let start = out.len();
        let lines = self.head.map(|head| head.fields.values(Known::XForwardedFor));
        for value in lines.into_iter().flatten().filter(|value| !value.is_empty()) {
            separate(out, start);
            out.extend_from_slice(value);
        }
        separate(out, start);
        self.ip(self.origin.client, out);
    }

    /// The client's `X-Forwarded-For`, if a trusted proxy sent it (R14), with the peer added. A peer on a
    /// Unix-domain socket has no address to add. A client whom the proxy names in another field stands between the two,
    /// unless it is found there as well: the proxy may have passed on what the client itself has written.
    pub fn forwarded_for(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let lines =
            self.head.filter(|_| self.origin.is_trusted).map(|head| head.fields.values(Known::XForwardedFor));
        for value in lines.into_iter().flatten().filter(|value| !value.is_empty()) {
            separate(out, start);
            out.extend_from_slice(value);
        }
        for ip in [self.named_elsewhere(), self.origin.peer].into_iter().flatten() {
            separate(out, start);
            write_ip(out, ip);
        }
    }

    /// The client, if a field names it that is not `X-Forwarded-For`, and that does not.
    fn named_elsewhere(&self) -> Option<IpAddr> {
        let rules = &self.location.access.real_ip;
        let client = self.origin.client.filter(|_| self.origin.is_named)?;
        if rules.header == RealIpHeader::XForwardedFor {
            return None;
        }
        let members = forwarded::listed(self.head?.fields.values(Known::XForwardedFor));
        let found = forwarded::last_untrusted(members, &rules.trusted, rules.takes_last);
        found.is_none_or(|(ip, _)| ip != client).then_some(client)
    }

    fn of_head(&self, variable: &Variable, out: &mut Vec<u8>) {
        let Some(head) = self.head else { return };
        let query = || self.request.map_or(&b""[..], |request| self.course.args(request));
        match variable {
            Variable::Arg(name) => out.extend_from_slice(argument(query(), name)),
            Variable::Args => out.extend_from_slice(query()),
            Variable::IsArgs if !query().is_empty() => out.push(b'?'),
            Variable::ContentLength => joined(out, Some(&head.fields), "content-length"),
            Variable::ContentType => joined(out, Some(&head.fields), "content-type"),
            Variable::Cookie(name) => out.extend_from_slice(cookie(&head.fields, name)),
            // nginx: the host of the request, else the name of the server.
            Variable::Host => match self.request.map(|request| request.host.as_str()) {
                Some(host) if !host.is_empty() => out.extend_from_slice(host.as_bytes()),
                _ => out.extend_from_slice(self.server.name.as_bytes()),
            },
            Variable::Http(name) => joined(out, Some(&head.fields), name),
            Variable::Http2 if head.version == Version::Http2 => out.extend_from_slice(b"h2c"),
            Variable::RemoteUser => {
                out.extend(Credentials::of(&head.fields).map(|known| known.user).unwrap_or_default());
            }
            Variable::Request => out.extend_from_slice(head.line()),
            Variable::RequestMethod => {
                // As in nginx a subrequest speaks of the request that it was made for.
                let request = self.request.filter(|_| !self.course.is_subrequest);
                let method = request.map_or(head.method(), |request| self.course.method(request));
                out.extend_from_slice(method);
            }
            Variable::RequestUri => out.extend_from_slice(head.target()),
            Variable::ServerProtocol => out.extend_from_slice(head.version.as_str().as_bytes()),
            Variable::Uri => {
                out.extend_from_slice(self.request.map_or(head.target(), |request| self.course.path(request)))
            }
            _ => {}
        }
    }
}

/// Between the members of a list that starts at `start`.
fn separate(out: &mut Vec<u8>, start: usize) {
    if out.len() > start {
        out.extend_from_slice(b", ");
    }
}

/// The values of all fields of a name. nginx joins with `, `, and cookies with `; `.
fn joined(out: &mut Vec<u8>, fields: Option<&Fields>, name: &str) {
    let separator: &[u8] = if name == "cookie" { b"; " } else { b", " };
    for (index, value) in fields.into_iter().flat_map(|fields| fields.named(name)).enumerate() {
        if index > 0 {
            out.extend_from_slice(separator);
        }
        out.extend_from_slice(value);
    }
}

/// `$arg_NAME`: the first argument of that name, in any case, as it is written.
fn argument<'a>(query: &'a [u8], name: &str) -> &'a [u8] {
    query
        .split(|byte| *byte == b'&')
        .find_map(|pair| {
            let (key, value) = split_once(pair, b'=')?;
            key.eq_ignore_ascii_case(name.as_bytes()).then_some(value)
        })
        .unwrap_or_default()
}

/// `$upstream_cookie_NAME`: the value that a response gives the cookie of that name.
fn set_cookie<'a>(fields: &'a Fields, name: &str) -> &'a [u8] {
    let value = fields.named("set-cookie").find_map(|line| {
        let pair = line.split(|byte| *byte == b';').next()?;
        let (key, value) = split_once(pair, b'=')?;
        key.trim_ascii().eq_ignore_ascii_case(name.as_bytes()).then_some(value.trim_ascii())
    });
    value.unwrap_or_default()
}

/// `$cookie_NAME`: the first cookie of that name.
fn cookie<'a>(fields: &'a Fields, name: &'a str) -> &'a [u8] {
    fields
        .named("cookie")
        .flat_map(|line| line.split(|byte| *byte == b';'))
        .find_map(|pair| {
            let (key, value) = split_once(pair.trim_ascii_start(), b'=')?;
            key.eq_ignore_ascii_case(name.as_bytes()).then_some(value)
        })
        .unwrap_or_default()
}

fn split_once(bytes: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(separator, bytes)?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

/// The name of the machine, which does not change while the process runs: `$hostname`.
pub fn hostname() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    let read = || std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
    NAME.get_or_init(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_found_by_name_in_any_case() {
        for (query, name, value) in [
            ("a=1&b=2", "b", "2"),
            ("a=1&A=2", "A", "1"),
            ("ab=1", "a", ""),
            ("a", "a", ""),
            ("a=b=c", "a", "b=c"),
        ] {
            assert_eq!(argument(query.as_bytes(), name), value.as_bytes(), "{query} {name}");
        }
    }
}
