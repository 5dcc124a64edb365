//! What a location has, or inherits from its server, or that from the top of the file.

use std::sync::Arc;
use std::time::Duration;

use super::access::AccessSettings;
use super::files::FileSettings;
use super::next_upstream::NextSettings;
use super::responses::ResponseSettings;
use super::upstream_tls::TlsSettings;
use super::{Check, plain};
use crate::config::error::Mistake;
use crate::config::file::{FlagOr, ForLocations, OffOr, OneOrMany, Size, Value};
use crate::config::{
    AccessLog, ErrorPage, ForwardedHeaders, ProxyVersion, Redirects, Timeouts, UpstreamVersion,
};
use crate::headers::{FieldName, is_token_byte};
use crate::routing::variables::Template;

/// What is written at one level of the file; `None` is inherited.
#[derive(Clone, Default)]
pub(super) struct Settings {
    proxy_connect: Option<Duration>,
    proxy_read: Option<Duration>,
    proxy_send: Option<Duration>,
    client_body: Option<Duration>,
    send: Option<Duration>,
    max_body_size: Option<OffOr<Size>>,
    pub(super) set_headers: Option<Vec<(FieldName, Template)>>,
    pub(super) http_version: Option<UpstreamVersion>,
    proxy_protocol: Option<OffOr<ProxyVersion>>,
    pub(super) pass_trailers: Option<bool>,
    pub(super) websocket: Option<bool>,
    pub(super) protocols: Option<Vec<String>>,
    tunnel_handshake: Option<Duration>,
    tunnel_idle: Option<Idle>,
    tunnel_linger: Option<Duration>,
    tunnel_age: Option<OffOr<Duration>>,
    access_log: Option<Arc<[Arc<AccessLog>]>>,
    pub(super) next: NextSettings,
    pub(super) upstream_tls: TlsSettings,
    pub(super) access: AccessSettings,
    pub(super) error_pages: Option<Vec<ErrorPage>>,
    pub(super) intercept_errors: Option<bool>,
    pub(super) recursive_error_pages: Option<bool>,
    absolute_redirect: Option<bool>,
    port_in_redirect: Option<bool>,
    server_name_in_redirect: Option<bool>,
    pub(super) forwarded_headers: Option<ForwardedHeaders>,
    pub(super) files: FileSettings,
    pub(super) responses: ResponseSettings,
}

/// How the idle time of tunnels is written: under its own name, or as people know it from nginx.
#[derive(Clone, Copy)]
enum Idle {
    Own(OffOr<Duration>),
    Http { read: Option<Duration>, send: Option<Duration> },
}

impl Idle {
    fn inside(self, outer: Option<Self>) -> Self {
        match (self, outer) {
            (Self::Http { read, send }, Some(Self::Http { read: outer_read, send: outer_send })) => {
                Self::Http { read: read.or(outer_read), send: send.or(outer_send) }
            }
            _ => self,
        }
    }

    /// The time with the key that it came from.
    fn limit(self) -> (Option<Duration>, &'static str) {
        match self {
            Self::Own(OffOr::Off) => (None, "tunnel_idle_timeout"),
            Self::Own(OffOr::Value(time)) => (Some(time), "tunnel_idle_timeout"),
            Self::Http { read, send } if send > read => (send, "proxy_send_timeout"),
            Self::Http { read, .. } => (read, "proxy_read_timeout"),
        }
    }
}

impl Settings {
    /// What is not written here is as it is further out.
    pub(super) fn inside(self, outer: &Self) -> Self {
        Self {
            proxy_connect: self.proxy_connect.or(outer.proxy_connect),
            proxy_read: self.proxy_read.or(outer.proxy_read),
            proxy_send: self.proxy_send.or(outer.proxy_send),
            client_body: self.client_body.or(outer.client_body),
            send: self.send.or(outer.send),
            max_body_size: self.max_body_size.or(outer.max_body_size),
            set_headers: self.set_headers.or_else(|| outer.set_headers.clone()),
            http_version: self.http_version.or(outer.http_version),
            proxy_protocol: self.proxy_protocol.or(outer.proxy_protocol),
            pass_trailers: self.pass_trailers.or(outer.pass_trailers),
            websocket: self.websocket.or(outer.websocket),
            protocols: self.protocols.or_else(|| outer.protocols.clone()),
            tunnel_handshake: self.tunnel_handshake.or(outer.tunnel_handshake),
            tunnel_idle: self.tunnel_idle.map(|idle| idle.inside(outer.tunnel_idle)).or(outer.tunnel_idle),
            tunnel_linger: self.tunnel_linger.or(outer.tunnel_linger),
            tunnel_age: self.tunnel_age.or(outer.tunnel_age),
            access_log: self.access_log.or_else(|| outer.access_log.clone()),
            next: self.next.inside(&outer.next),
            upstream_tls: self.upstream_tls.inside(&outer.upstream_tls),
            access: self.access.inside(&outer.access),
            error_pages: self.error_pages.or_else(|| outer.error_pages.clone()),
            intercept_errors: self.intercept_errors.or(outer.intercept_errors),
            recursive_error_pages: self.recursive_error_pages.or(outer.recursive_error_pages),
            absolute_redirect: self.absolute_redirect.or(outer.absolute_redirect),
            port_in_redirect: self.port_in_redirect.or(outer.port_in_redirect),
            server_name_in_redirect: self.server_name_in_redirect.or(outer.server_name_in_redirect),
            forwarded_headers: self.forwarded_headers.or(outer.forwarded_headers),
            files: self.files.inside(&outer.files),
            responses: self.responses.inside(&outer.responses),
        }
    }

    /// With nginx's defaults.
    pub(super) fn redirects(&self) -> Redirects {
        Redirects {
            absolute: self.absolute_redirect.unwrap_or(true),
            port: self.port_in_redirect.unwrap_or(true),
            server_name: self.server_name_in_redirect.unwrap_or(false),
        }
    }

    /// With the defaults for what is written nowhere.
    pub(super) fn timeouts(&self) -> Timeouts {
        let seconds = |written: Option<Duration>, default| written.unwrap_or(Duration::from_secs(default));
        let hour = Idle::Own(OffOr::Value(Duration::from_secs(3600)));
        let (tunnel_idle, tunnel_idle_key) = self.tunnel_idle.unwrap_or(hour).limit();
        Timeouts {
            proxy_connect: seconds(self.proxy_connect, 5),
            proxy_read: seconds(self.proxy_read, 60),
            proxy_send: seconds(self.proxy_send, 60),
            client_body: seconds(self.client_body, 60),
            send: seconds(self.send, 60),
            tunnel_handshake: seconds(self.tunnel_handshake, 30),
            tunnel_idle,
            tunnel_idle_key,
            tunnel_linger: seconds(self.tunnel_linger, 10),
            tunnel_age: match self.tunnel_age {
                Some(OffOr::Value(age)) => Some(age),
                Some(OffOr::Off) | None => None,
            },
        }
    }

    /// `None`: no header.
    pub(super) fn proxy_protocol(&self) -> Option<ProxyVersion> {
        match self.proxy_protocol {
            Some(OffOr::Value(version)) => Some(version),
            Some(OffOr::Off) | None => None,
        }
    }

    /// `None`: no limit.
    pub(super) fn max_body_size(&self) -> Option<u64> {
        match self.max_body_size {
            Some(OffOr::Value(Size(size))) => Some(size),
            Some(OffOr::Off) | None => None,
        }
    }
}

impl Check<'_> {
    pub(super) fn settings(&mut self, written: &ForLocations) -> Settings {
        let proxy_read = self.time(&written.proxy_read_timeout, "proxy_read_timeout");
        let proxy_send = self.time(&written.proxy_send_timeout, "proxy_send_timeout");
        let own_idle = self.time_or_off(&written.tunnel_idle_timeout, "tunnel_idle_timeout").map(Idle::Own);
        let http_idle = (proxy_read.is_some() || proxy_send.is_some())
            .then_some(Idle::Http { read: proxy_read, send: proxy_send });
        Settings {
            proxy_connect: self.time(&written.proxy_connect_timeout, "proxy_connect_timeout"),
            proxy_read,
            proxy_send,
            client_body: self.time(&written.client_body_timeout, "client_body_timeout"),
            send: self.time(&written.send_timeout, "send_timeout"),
            max_body_size: plain(&written.client_max_body_size),
            set_headers: self.set_headers(&written.proxy_set_header),
            http_version: self.http_version(&written.proxy_http_version),
            proxy_protocol: self.proxy_protocol(&written.proxy_protocol),
            pass_trailers: plain(&written.proxy_pass_trailers),
            websocket: plain(&written.websocket),
            protocols: self.protocols(&written.upgrade),
            tunnel_handshake: self.time(&written.tunnel_handshake_timeout, "tunnel_handshake_timeout"),
            tunnel_idle: own_idle.or(http_idle),
            tunnel_linger: plain(&written.tunnel_linger),
            tunnel_age: self.time_or_off(&written.tunnel_max_age, "tunnel_max_age"),
            access_log: self.access(&written.access_log),
            next: self.next_upstream(&written.for_upstreams),
            upstream_tls: self.tls_settings(&written.for_upstream_tls),
            access: self.access_settings(&written.for_access),
            error_pages: self.error_pages(&written.error_page),
            intercept_errors: plain(&written.proxy_intercept_errors),
            recursive_error_pages: plain(&written.recursive_error_pages),
            absolute_redirect: plain(&written.absolute_redirect),
            port_in_redirect: plain(&written.port_in_redirect),
            server_name_in_redirect: plain(&written.server_name_in_redirect),
            forwarded_headers: self.forwarded_headers(&written.forwarded_headers),
            files: self.file_settings(&written.for_files),
            responses: self.response_settings(&written.for_responses),
        }
    }

    fn forwarded_headers(&mut self, written: &Value<String>) -> Option<ForwardedHeaders> {
        let value = written.given()?;
        match value.get_ref().as_str() {
            "set" => Some(ForwardedHeaders::Set),
            "set rfc7239" => Some(ForwardedHeaders::SetRfc7239),
            "pass" => Some(ForwardedHeaders::Pass),
            other => {
                let message = format!("`forwarded_headers` cannot be `{other}`");
                let help = "write `\"set\"` (hopgate says who the client is, the default), `\"set rfc7239\"` (with \
                            `Forwarded`, too) or `\"pass\"` (what the client sent is passed on, as with nginx)";
                self.mistakes.push(Mistake::new(value.span(), message).help(help));
                None
            }
        }
    }

    fn http_version(&mut self, written: &Value<String>) -> Option<UpstreamVersion> {
        let value = written.given()?;
        let text = value.get_ref().as_str();
        let help = match text.trim_start_matches("HTTP/").trim_end_matches(';') {
            "1.1" if text == "1.1" => return Some(UpstreamVersion::Http11),
            "2" if text == "2" => return Some(UpstreamVersion::Http2),
            "1.0" | "1" => {
                "HTTP/1.0 has neither chunks nor connections that are kept nor upgrades; every server that speaks it \
                 answers requests of HTTP/1.1, too: leave the line out"
            }
            "2" | "2.0" | "h2" | "h2c" => "write `proxy_http_version = \"2\"`",
            _ => "write `\"1.1\"`, the default, or `\"2\"`, for gRPC and others that speak HTTP/2",
        };
        let message = format!("`proxy_http_version` cannot be `{text}`");
        self.mistakes.push(Mistake::new(value.span(), message).help(help));
        None
    }

    /// Whether upstreams are told whose connection it is. People look for what nginx has in `stream`, and some mean
    /// that of `listen`.
    fn proxy_protocol(&mut self, written: &Value<FlagOr>) -> Option<OffOr<ProxyVersion>> {
        let value = written.given()?;
        let text = match value.get_ref() {
            FlagOr::Flag(false) => return Some(OffOr::Off),
            FlagOr::Flag(true) => "true",
            FlagOr::Text(text) => text.as_str(),
        };
        match text {
            "off" => return Some(OffOr::Off),
            "v1" => return Some(OffOr::Value(ProxyVersion::V1)),
            "v2" => return Some(OffOr::Value(ProxyVersion::V2)),
            _ => {}
        }
        let help = "write `\"v1\"` (a line, what nginx's `stream` and HAProxy's `send-proxy` send) or `\"v2\"` \
                    (HAProxy's `send-proxy-v2`) for a header ahead of each connection to the upstream; to take one from \
                    a balancer, write `listen = \"8080 proxy_protocol\"`";
        let message = format!("`proxy_protocol` cannot be `{text}`");
        self.mistakes.push(Mistake::new(value.span(), message).help(help));
        None
    }

    /// The access logs that a level has in the end.
    pub(super) fn access_logs(&mut self, settings: &Settings) -> Arc<[Arc<AccessLog>]> {
        match &settings.access_log {
            Some(logs) => Arc::clone(logs),
            None => self.default_access_log().into_iter().collect(),
        }
    }

    fn time_or_off(&mut self, written: &Value<OffOr<Duration>>, key: &str) -> Option<OffOr<Duration>> {
        let time = written.given()?;
        if *time.get_ref() == OffOr::Value(Duration::ZERO) {
            let mistake =
                Mistake::new(time.span(), format!("`{key}` cannot be 0: tunnels would end at once"));
            self.mistakes.push(mistake.help(format!("write `{key} = \"off\"` for no limit")));
            return None;
        }
        Some(*time.get_ref())
    }

    /// The protocols besides WebSocket that may be upgraded to, RFC 9110 §7.8.
    fn protocols(&mut self, written: &Value<OneOrMany<String>>) -> Option<Vec<String>> {
        let entries = &written.given()?.get_ref().0;
        let mut protocols = Vec::new();
        for entry in entries {
            let name = entry.get_ref().to_ascii_lowercase();
            match allowed_protocol(&name) {
                Ok(()) if protocols.contains(&name) => {}
                Ok(()) => protocols.push(name),
                Err((message, help)) => self.mistakes.push(Mistake::new(entry.span(), message).help(help)),
            }
        }
        Some(protocols)
    }
}

fn allowed_protocol(name: &str) -> Result<(), (String, &'static str)> {
    let family = name.split('/').next().unwrap_or_default();
    let token = |part: &str| !part.is_empty() && part.bytes().all(is_token_byte);
    match family {
        "websocket" => Err((
            "`websocket` needs no line in `upgrade`: WebSocket handshakes are always recognised".into(),
            "delete it; `websocket = false` refuses them",
        )),
        "h2c" | "h2" | "http" => Err((
            format!("an upgrade to `{name}` never passes: requests in it could not be checked"),
            "delete it; such requests are served as HTTP/1.1",
        )),
        "tls" => Err((
            format!("an upgrade to `{name}` never passes: what is in it could not be checked"),
            "delete it; such requests are served as HTTP/1.1",
        )),
        _ if name.split('/').count() <= 2 && name.split('/').all(token) => Ok(()),
        _ => Err((
            format!("`{name}` is not the name of a protocol"),
            "write one for each entry: `upgrade = [\"chat\"]`",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_that_never_pass_are_refused() {
        for name in ["chat", "chat/1.0", "xmpp-bosh"] {
            assert_eq!(allowed_protocol(name), Ok(()), "{name}");
        }
        for name in ["websocket", "h2c", "h2", "http/2.0", "tls/1.0", "", "a b", "a/b/c", "/", "a,b"] {
            assert!(allowed_protocol(name).is_err(), "{name}");
        }
    }
}
