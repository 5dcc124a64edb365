//! `proxy_set_header`: which fields a location may set, and to what.

use serde_spanned::Spanned;

use super::Check;
use crate::config::error::Mistake;
use crate::config::file::{Named, Value};
use crate::headers::FieldName;
use crate::routing::variables::{Template, TemplateError, Variable};

/// Fields that hopgate makes itself, and why nobody needs to.
const OWN: &[(&str, &str)] = &[
    ("connection", UPGRADES),
    ("upgrade", UPGRADES),
    ("transfer-encoding", FRAMING),
    ("content-length", FRAMING),
    ("te", "hopgate sends `TE: trailers` if the client did"),
    ("trailer", "hopgate passes it on with the trailers"),
    ("keep-alive", "hopgate keeps connections to upstreams by itself: see `keepalive` in `[upstream.NAME]`"),
    ("proxy-connection", "no upstream needs it"),
    ("expect", "hopgate passes `Expect: 100-continue` on by itself"),
    ("http2-settings", "upstreams are spoken to in HTTP/1.1"),
    ("sec-websocket-key", HANDSHAKE),
    ("sec-websocket-version", HANDSHAKE),
    ("sec-websocket-accept", HANDSHAKE),
];
const UPGRADES: &str = "hopgate does WebSocket upgrades by itself";
const FRAMING: &str = "hopgate says by itself how long a body is";
const HANDSHAKE: &str = "hopgate passes the client's handshake on, and checks its answer";

impl Check<'_> {
    pub(super) fn set_headers(
        &mut self,
        written: &Value<Named<String>>,
    ) -> Option<Vec<(FieldName, Template)>> {
        let entries = &written.given()?.get_ref().0;
        let mut fields: Vec<(FieldName, Template)> = Vec::with_capacity(entries.len());
        let mut places: Vec<&Spanned<String>> = Vec::new();
        for (name, value) in entries {
            let Some(field) = self.field_name(name) else { continue };
            let Some(template) = self.field_value(value) else { continue };
            if let Some(first) = fields.iter().position(|(other, _)| *other == field) {
                let mistake = Mistake::new(name.span(), format!("`{field}` is set twice"))
                    .label("again")
                    .also(places[first].span(), "first here");
                self.mistakes.push(mistake.help("delete one of them"));
                continue;
            }
            fields.push((field, template));
            places.push(name);
        }
        Some(fields)
    }

    fn field_name(&mut self, name: &Spanned<String>) -> Option<FieldName> {
        let text = name.get_ref();
        let own = OWN.iter().find(|(own, _)| text.eq_ignore_ascii_case(own));
        if let Some((_, why)) = own {
            let upgrade = *why == UPGRADES;
            let message = if upgrade {
                format!("setting `{text}` is needless: {why}")
            } else {
                format!("`{text}` cannot be set: {why}")
            };
            self.mistakes.push(Mistake::new(name.span(), message).label("the proxy's own").help("delete it"));
            return None;
        }
        let field = FieldName::new(text);
        if field.is_none() {
            let mistake = Mistake::new(name.span(), format!("`{text}` cannot be the name of a field"));
            self.mistakes.push(mistake.help("a name has letters, digits and `-`: `X-Forwarded-For`"));
        }
        field
    }

    fn field_value(&mut self, value: &Spanned<String>) -> Option<Template> {
        let template = self.one_line(value)?;
        if template.mentions(is_of_the_answer) {
            let mistake =
                Mistake::new(value.span(), "a variable in it is not known before the upstream has answered");
            self.mistakes.push(mistake.help("it can be used in a log format, not in `proxy_set_header`"));
        }
        Some(template)
    }

    /// A value with variables that can stand in a field.
    pub(super) fn one_line(&mut self, value: &Spanned<String>) -> Option<Template> {
        let text = value.get_ref();
        if text.contains(|c: char| c.is_control() && c != '\t') {
            let mistake = Mistake::new(value.span(), "a field has one line, without control characters");
            self.mistakes.push(mistake.help("write a text without them"));
            return None;
        }
        if let Some(clean) = text.strip_suffix(';').filter(|clean| clean.starts_with('$')) {
            let mistake = Mistake::new(value.span(), "there is no `;` at the end of a value");
            self.mistakes.push(mistake.help(format!("write `\"{clean}\"`")));
            return None;
        }
        self.template(value)
    }
}

/// The mistake of a value whose variables are not right.
pub(super) fn bad_template(value: &Spanned<String>, error: &TemplateError) -> Mistake {
    let mistake = Mistake::new(value.span(), error.to_string());
    match error {
        TemplateError::Unknown { name, .. } if name == "connection_upgrade" => {
            mistake.help("hopgate does WebSocket upgrades by itself: delete the line")
        }
        TemplateError::Unknown { nearest: Some(nearest), .. } => mistake.help(format!("write `${nearest}`")),
        TemplateError::Unknown { nearest: None, .. } => {
            mistake.help("docs/configuration.md lists the variables; `set` and `[[map]]` make others")
        }
        TemplateError::NoName => mistake.help("a `$` itself cannot be written, as in nginx"),
    }
}

fn is_of_the_answer(variable: &Variable) -> bool {
    matches!(
        variable,
        Variable::BodyBytesSent
            | Variable::BytesReceived
            | Variable::BytesSent
            | Variable::RequestTime
            | Variable::SentHttp(_)
            | Variable::Status
            | Variable::TunnelEnd
            | Variable::TunnelEvent
            | Variable::TunnelId
            | Variable::UpstreamAddr
            | Variable::UpstreamConnectTime
            | Variable::UpstreamHeaderTime
            | Variable::UpstreamCookie(_)
            | Variable::UpstreamHttp(_)
            | Variable::UpstreamResponseLength
            | Variable::UpstreamResponseTime
            | Variable::UpstreamStatus
    )
}
