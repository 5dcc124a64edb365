//! Values with nginx's variables in them (`$host`, `$http_NAME` …): read once, filled in for each request.

use std::fmt;

use crate::proxy_protocol::Tlv;
use crate::tls::variables::{NAMES as TLS_NAMES, TlsVariable};

/// A value of the configuration that may contain variables, for example
/// `$proxy_add_x_forwarded_for` or `https://$host$request_uri`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

/// A piece of a [`Template`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Text that stands as it was written.
    Literal(String),
    /// A value of the request at hand.
    Variable(Variable),
}

/// What a variable stands for. The names and meanings are nginx's, apart from the `tunnel_` ones
/// and `bytes_received`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // `NAMES` below says it all: each variant is the variable of that name
pub enum Variable {
    Arg(String),
    Args,
    BinaryRemoteAddr,
    BodyBytesSent,
    BytesReceived,
    BytesSent,
    /// A group of the last regular expression that matched: `$1` to `$9`.
    Capture(usize),
    Connection,
    ConnectionRequests,
    ContentLength,
    ContentType,
    Cookie(String),
    DocumentRoot,
    Host,
    Hostname,
    /// A field of the request; `-` and `_` in its name are alike, as in nginx.
    Http(String),
    /// `h2` over TLS, `h2c` without it, nothing in HTTP/1.1.
    Http2,
    Https,
    IsArgs,
    LimitConnStatus,
    LimitReqStatus,
    Msec,
    Pid,
    ProxyAddXForwardedFor,
    ProxyHost,
    ProxyPort,
    ProxyProtocolAddr,
    ProxyProtocolPort,
    ProxyProtocolServerAddr,
    ProxyProtocolServerPort,
    /// What a balancer adds to the addresses of its client.
    ProxyProtocolTlv(Tlv),
    RealpathRoot,
    RealipRemoteAddr,
    RealipRemotePort,
    RemoteAddr,
    RemotePort,
    RemoteUser,
    Request,
    RequestFilename,
    RequestId,
    RequestLength,
    RequestMethod,
    RequestTime,
    RequestUri,
    Scheme,
    /// A field of the response as the client gets it.
    SentHttp(String),
    ServerAddr,
    ServerName,
    ServerPort,
    ServerProtocol,
    Status,
    TimeIso8601,
    TimeLocal,
    /// What a client's handshake of TLS came to, and its certificate.
    Tls(TlsVariable),
    TunnelEnd,
    TunnelEvent,
    TunnelId,
    UpstreamAddr,
    UpstreamConnectTime,
    UpstreamHeaderTime,
    /// A field of the upstream's response, before hopgate changed anything.
    UpstreamHttp(String),
    /// A cookie that the upstream's response sets.
    UpstreamCookie(String),
    UpstreamResponseLength,
    UpstreamResponseTime,
    UpstreamStatus,
    Uri,
    /// A variable of the operator's: made by `map`, by `set` or by a named group. The number is its place
    /// in the configuration's list of variables.
    User(usize),
}

/// The variables with a fixed name.
const NAMES: &[(&str, Variable)] = &[
    ("args", Variable::Args),
    ("binary_remote_addr", Variable::BinaryRemoteAddr),
    ("body_bytes_sent", Variable::BodyBytesSent),
    ("bytes_received", Variable::BytesReceived),
    ("bytes_sent", Variable::BytesSent),
    ("connection", Variable::Connection),
    ("connection_requests", Variable::ConnectionRequests),
    ("content_length", Variable::ContentLength),
    ("content_type", Variable::ContentType),
    ("document_root", Variable::DocumentRoot),
    ("document_uri", Variable::Uri),
    ("host", Variable::Host),
    ("hostname", Variable::Hostname),
    ("http2", Variable::Http2),
    ("https", Variable::Https),
    ("is_args", Variable::IsArgs),
    ("limit_conn_status", Variable::LimitConnStatus),
    ("limit_req_status", Variable::LimitReqStatus),
    ("msec", Variable::Msec),
    ("pid", Variable::Pid),
    ("proxy_add_x_forwarded_for", Variable::ProxyAddXForwardedFor),
    ("proxy_host", Variable::ProxyHost),
    ("proxy_port", Variable::ProxyPort),
    ("proxy_protocol_addr", Variable::ProxyProtocolAddr),
    ("proxy_protocol_port", Variable::ProxyProtocolPort),
    ("proxy_protocol_server_addr", Variable::ProxyProtocolServerAddr),
    ("proxy_protocol_server_port", Variable::ProxyProtocolServerPort),
    ("query_string", Variable::Args),
    ("realip_remote_addr", Variable::RealipRemoteAddr),
    ("realip_remote_port", Variable::RealipRemotePort),
    ("realpath_root", Variable::RealpathRoot),
    ("remote_addr", Variable::RemoteAddr),
    ("remote_port", Variable::RemotePort),
    ("remote_user", Variable::RemoteUser),
    ("request", Variable::Request),
    ("request_filename", Variable::RequestFilename),
    ("request_id", Variable::RequestId),
    ("request_length", Variable::RequestLength),
    ("request_method", Variable::RequestMethod),
    ("request_time", Variable::RequestTime),
    ("request_uri", Variable::RequestUri),
    ("scheme", Variable::Scheme),
    ("server_addr", Variable::ServerAddr),
    ("server_name", Variable::ServerName),
    ("server_port", Variable::ServerPort),
    ("server_protocol", Variable::ServerProtocol),
    ("status", Variable::Status),
    ("time_iso8601", Variable::TimeIso8601),
    ("time_local", Variable::TimeLocal),
    ("tunnel_end", Variable::TunnelEnd),
    ("tunnel_event", Variable::TunnelEvent),
    ("tunnel_id", Variable::TunnelId),
    ("upstream_addr", Variable::UpstreamAddr),
    ("upstream_connect_time", Variable::UpstreamConnectTime),
    ("upstream_header_time", Variable::UpstreamHeaderTime),
    ("upstream_response_length", Variable::UpstreamResponseLength),
    ("upstream_response_time", Variable::UpstreamResponseTime),
    ("upstream_status", Variable::UpstreamStatus),
    ("uri", Variable::Uri),
];

/// Why a text is not a [`Template`].
#[derive(Debug, PartialEq, Eq)]
pub enum TemplateError {
    /// There is no variable of this name.
    Unknown {
        /// The name as written, without the `$`.
        name: String,
        /// The variable that was probably meant, without the `$`.
        nearest: Option<String>,
    },
    /// A `$` with no name behind it, or a `${` without its `}`.
    NoName,
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { name, nearest: Some(nearest) } => {
                write!(f, "unknown variable `${name}`, did you mean `${nearest}`?")
            }
            Self::Unknown { name, nearest: None } => write!(f, "unknown variable `${name}`"),
            Self::NoName => f.write_str("a `$` must be followed by the name of a variable"),
        }
    }
}

impl std::error::Error for TemplateError {}

impl Template {
    /// Reads a value as nginx does: `$name` or `${name}`; there is no way to write a `$` itself, as
    /// in nginx. Only the built-in variables are known.
    ///
    /// # Errors
    /// A variable that does not exist, or a `$` without a name.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        Self::parse_with(text, |_| None)
    }

    /// As [`Template::parse`]; `own` finds the variables that the operator has made, by their name.
    ///
    /// # Errors
    /// A variable that does not exist, or a `$` without a name.
    pub fn parse_with(text: &str, mut own: impl FnMut(&str) -> Option<usize>) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(dollar) = rest.find('$') {
            if dollar > 0 {
                parts.push(Part::Literal(rest[..dollar].to_owned()));
            }
            let after = &rest[dollar + 1..];
            let (name, tail) = match after.strip_prefix('{') {
                Some(braced) => braced.split_once('}').ok_or(TemplateError::NoName)?,
                // nginx: a digit is a group by itself, whatever stands behind it.
                None if after.starts_with(|c: char| matches!(c, '1'..='9')) => after.split_at(1),
                None => {
                    let end =
                        after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
                    after.split_at(end)
                }
            };
            if name.is_empty() {
                return Err(TemplateError::NoName);
            }
            let variable = match Variable::named(name) {
                Ok(variable) => variable,
                Err(error) => Variable::User(own(name).ok_or(error)?),
            };
            parts.push(Part::Variable(variable));
            rest = tail;
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(rest.to_owned()));
        }
        Ok(Self { parts })
    }

    /// A value without variables.
    pub fn literal(text: &str) -> Self {
        let parts = if text.is_empty() { Vec::new() } else { vec![Part::Literal(text.to_owned())] };
        Self { parts }
    }

    /// The text, if there are no variables in it.
    pub fn as_literal(&self) -> Option<&str> {
        match &*self.parts {
            [] => Some(""),
            [Part::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// The parts before and behind the first `wanted` that stands in the text itself, not in a variable.
    pub fn split_at_byte(&self, wanted: u8) -> Option<(Self, Self)> {
        let place = self.parts.iter().enumerate().find_map(|(index, part)| match part {
            Part::Literal(text) => text.bytes().position(|byte| byte == wanted).map(|at| (index, at)),
            Part::Variable(_) => None,
        });
        let (index, at) = place?;
        let Part::Literal(text) = &self.parts[index] else { return None };
        let mut before = self.parts[..index].to_vec();
        before.extend((at > 0).then(|| Part::Literal(text[..at].to_owned())));
        let mut after = Vec::new();
        after.extend((at + 1 < text.len()).then(|| Part::Literal(text[at + 1..].to_owned())));
        after.extend_from_slice(&self.parts[index + 1..]);
        Some((Self { parts: before }, Self { parts: after }))
    }

    /// The pieces in their order.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Whether the value is the empty text, which in `proxy_set_header` means "do not send".
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Whether one of the pieces is a variable for which `wanted` says yes.
    pub fn mentions(&self, wanted: impl Fn(&Variable) -> bool) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Variable(v) if wanted(v)))
    }
}

impl Variable {
    /// Whether there is a built-in variable of this name, which nobody else may make.
    pub fn is_built_in(name: &str) -> bool {
        Self::named(name).is_ok()
    }

    fn named(name: &str) -> Result<Self, TemplateError> {
        if let [digit @ b'1'..=b'9'] = name.as_bytes() {
            return Ok(Self::Capture(usize::from(digit - b'0')));
        }
        type Family = (&'static str, fn(String) -> Variable);
        let families: [Family; 6] = [
            ("arg_", Variable::Arg),
            ("cookie_", Variable::Cookie),
            ("sent_http_", |name| Variable::SentHttp(field_name(&name))),
            ("upstream_cookie_", Variable::UpstreamCookie),
            ("upstream_http_", |name| Variable::UpstreamHttp(field_name(&name))),
            ("http_", |name| Variable::Http(field_name(&name))),
        ];
        if let Some((_, variable)) = NAMES.iter().find(|(known, _)| *known == name) {
            return Ok(variable.clone());
        }
        if let Some((_, variable)) = TLS_NAMES.iter().find(|(known, _)| *known == name) {
            return Ok(Self::Tls(*variable));
        }
        if let Some(tlv) = name.strip_prefix("proxy_protocol_tlv_").and_then(Tlv::named) {
            return Ok(Self::ProxyProtocolTlv(tlv));
        }
        for (prefix, make) in families {
            if let Some(rest) = name.strip_prefix(prefix).filter(|rest| !rest.is_empty()) {
                return Ok(make(rest.to_owned()));
            }
        }
        let names = NAMES.iter().map(|(known, _)| *known).chain(TLS_NAMES.iter().map(|(known, _)| *known));
        let nearest = names
            .map(|known| (strsim::damerau_levenshtein(known, name), known))
            .min()
            .filter(|(distance, known)| *distance <= 1 + known.len() / 4)
            .map(|(_, known)| known.to_owned());
        Err(TemplateError::Unknown { name: name.to_owned(), nearest })
    }
}

/// `$http_x_forwarded_for` names the field `x-forwarded-for`.
fn field_name(variable: &str) -> String {
    variable.to_ascii_lowercase().replace('_', "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_split_at_its_variables() {
        let template = Template::parse("a $host:${server_port}/$http_x_real_ip").unwrap();
        assert_eq!(
            template.parts(),
            [
                Part::Literal("a ".into()),
                Part::Variable(Variable::Host),
                Part::Literal(":".into()),
                Part::Variable(Variable::ServerPort),
                Part::Literal("/".into()),
                Part::Variable(Variable::Http("x-real-ip".into())),
            ]
        );
    }

    #[test]
    fn an_unknown_variable_is_refused_with_the_nearest_name() {
        assert_eq!(
            Template::parse("$remote_adr").unwrap_err().to_string(),
            "unknown variable `$remote_adr`, did you mean `$remote_addr`?"
        );
        assert_eq!(
            Template::parse("$connection_upgrade").unwrap_err().to_string(),
            "unknown variable `$connection_upgrade`"
        );
        for text in ["$", "${", "a $ b", "${host", "${}", "$-"] {
            assert_eq!(Template::parse(text), Err(TemplateError::NoName), "{text}");
        }
    }

    #[test]
    fn every_name_in_the_table_is_read_and_stands_once() {
        for (name, variable) in NAMES {
            assert_eq!(Variable::named(name).as_ref(), Ok(variable));
            assert_eq!(NAMES.iter().filter(|(other, _)| other == name).count(), 1, "{name}");
        }
    }
}
