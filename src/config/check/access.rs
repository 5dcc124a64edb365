//! Who may come: addresses, passwords, the subrequest, and whose word is taken for who a client is.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde_spanned::Spanned;

use super::limits::LimitSettings;
use super::{Check, plain};
use crate::access::rules::{Rules, Verdict, Who};
use crate::config::error::Mistake;
use crate::config::file::{ForAccess, Named, OneOrMany, Value};
use crate::config::{AccessRules, AuthBasic, RealIp, RealIpHeader};
use crate::headers::FieldName;
use crate::routing::script::Assigned;
use crate::routing::variables::Template;

/// What is written at one level of the file; `None` is inherited.
#[derive(Clone, Default)]
pub(super) struct AccessSettings {
    trusted: Option<Trusted>,
    header: Option<RealIpHeader>,
    recursive: Option<bool>,
    addresses: Option<Arc<Rules>>,
    any_is_enough: Option<bool>,
    /// With its place, for what is wrong with it in a location further in.
    realm: Option<Spanned<Template>>,
    user_file: Option<Template>,
    auth_request: Option<Option<Arc<str>>>,
    auth_request_set: Option<Arc<[(Assigned, Template)]>>,
    limits: LimitSettings,
}

/// Peers whose forwarded fields are believed.
#[derive(Clone, Default)]
struct Trusted {
    nets: Vec<IpNet>,
    unix: bool,
}

impl AccessSettings {
    /// What is not written here is as it is further out.
    pub(super) fn inside(self, outer: &Self) -> Self {
        Self {
            trusted: self.trusted.or_else(|| outer.trusted.clone()),
            header: self.header.or_else(|| outer.header.clone()),
            recursive: self.recursive.or(outer.recursive),
            addresses: self.addresses.or_else(|| outer.addresses.clone()),
            any_is_enough: self.any_is_enough.or(outer.any_is_enough),
            realm: self.realm.or_else(|| outer.realm.clone()),
            user_file: self.user_file.or_else(|| outer.user_file.clone()),
            auth_request: self.auth_request.or_else(|| outer.auth_request.clone()),
            auth_request_set: self.auth_request_set.or_else(|| outer.auth_request_set.clone()),
            limits: self.limits.inside(&outer.limits),
        }
    }

    /// With the defaults for what is written nowhere.
    pub(super) fn real_ip(&self) -> RealIp {
        let trusted = self.trusted.clone().unwrap_or_default();
        RealIp {
            trusted: trusted.nets,
            trusts_unix_peers: trusted.unix,
            header: self.header.clone().unwrap_or_default(),
            takes_last: !self.recursive.unwrap_or(true),
        }
    }
}

impl Check<'_> {
    pub(super) fn access_settings(&mut self, written: &ForAccess) -> AccessSettings {
        AccessSettings {
            trusted: self.trusted_proxies(&written.trusted_proxies),
            header: self.real_ip_header(&written.real_ip_header),
            recursive: plain(&written.real_ip_recursive),
            addresses: self.client_addresses(&written.access),
            any_is_enough: self.satisfy(&written.satisfy),
            realm: self.realm(&written.auth_basic),
            user_file: self.user_file(&written.auth_basic_user_file),
            auth_request: self.auth_request(&written.auth_request),
            auth_request_set: self.auth_request_set(&written.auth_request_set),
            limits: self.limit_settings(written),
        }
    }

    /// What a location has in the end.
    pub(super) fn access_rules(&mut self, settings: AccessSettings) -> AccessRules {
        let real_ip = Arc::new(settings.real_ip());
        let (limit_req, limit_conn) = settings.limits.finish();
        AccessRules {
            real_ip,
            basic: self.auth_basic(settings.realm, settings.user_file),
            addresses: settings.addresses.unwrap_or_default(),
            any_is_enough: settings.any_is_enough.unwrap_or(false),
            auth_request: settings.auth_request.flatten(),
            auth_request_set: settings.auth_request_set.unwrap_or_else(|| Arc::from([])),
            limit_req,
            limit_conn,
        }
    }

    /// nginx asks nobody for a password if it has no file to look it up in.
    fn auth_basic(
        &mut self,
        realm: Option<Spanned<Template>>,
        user_file: Option<Template>,
    ) -> Option<Arc<AuthBasic>> {
        let realm = realm.filter(|realm| realm.get_ref().as_literal() != Some("off"))?;
        if user_file.is_none() {
            let message = "`auth_basic` needs a file with the users: without one nobody would be asked";
            let help = "write `auth_basic_user_file = \"/etc/hopgate/htpasswd\"` beside it";
            self.mistakes.push(Mistake::new(realm.span(), message).help(help));
        }
        Some(Arc::new(AuthBasic { realm: realm.into_inner(), user_file: user_file? }))
    }

    fn client_addresses(&mut self, written: &Value<OneOrMany<String>>) -> Option<Arc<Rules>> {
        let mut rules = Rules::default();
        for line in &written.given()?.get_ref().0 {
            match rule(line.get_ref()) {
                Ok((who, verdict)) => rules.push(who, verdict),
                Err((message, help)) => self.mistakes.push(Mistake::new(line.span(), message).help(help)),
            }
        }
        Some(Arc::new(rules))
    }

    fn satisfy(&mut self, written: &Value<String>) -> Option<bool> {
        let value = written.given()?;
        match value.get_ref().as_str() {
            "all" => Some(false),
            "any" => Some(true),
            other => {
                let mistake = Mistake::new(value.span(), format!("`satisfy` cannot be `{other}`"));
                let help = "write `\"all\"` (the address, the password and the subrequest, the default) or \
                            `\"any\"` (one of them)";
                self.mistakes.push(mistake.help(help));
                None
            }
        }
    }

    fn realm(&mut self, written: &Value<String>) -> Option<Spanned<Template>> {
        let value = written.given()?;
        let text = value.get_ref();
        if text.is_empty() || text.contains(|c: char| c == '"' || c == '\\' || c.is_control()) {
            let message = "a realm is a text without `\"`, `\\` and control characters";
            let help = "write what the password is for, `auth_basic = \"members only\"`, or `\"off\"`";
            self.mistakes.push(Mistake::new(value.span(), message).help(help));
            return None;
        }
        self.template(value).map(|template| Spanned::new(value.span(), template))
    }

    /// Empty if it is wrong: the next mistake is not that it is missing.
    fn user_file(&mut self, written: &Value<String>) -> Option<Template> {
        if written.is_absent() {
            return None;
        }
        let Some(value) = written.given() else { return Some(Template::default()) };
        let text = value.get_ref();
        if !text.starts_with(['/', '$']) || text.ends_with([';', '/']) || text.contains('\0') {
            let message = format!("`{text}` is not the whole path of a file");
            let help = "write `auth_basic_user_file = \"/etc/hopgate/htpasswd\"`";
            self.mistakes.push(Mistake::new(value.span(), message).help(help));
            return Some(Template::default());
        }
        Some(self.template(value).unwrap_or_default())
    }

    /// `Some(None)`: none, whatever is written further out.
    fn auth_request(&mut self, written: &Value<String>) -> Option<Option<Arc<str>>> {
        let value = written.given()?;
        let text = value.get_ref().as_str();
        let (message, help) = match text {
            "off" => return Some(None),
            _ if text.contains("://") => (
                "`auth_request` asks a location of this server, not a URL",
                "write `auth_request = \"/auth\"`, and a location `\"= /auth\"` with the URL in its `proxy_pass`",
            ),
            _ if text.contains(['?', '#', '$']) => (
                "`auth_request` is a path alone: no query, no variables",
                "write `auth_request = \"/auth\"`; the location `\"= /auth\"` can add to its `proxy_pass`",
            ),
            _ if !text.starts_with('/') || text.ends_with(';') => {
                ("`auth_request` is the path of a location", "write `auth_request = \"/auth\"`, or `\"off\"`")
            }
            _ => return Some(Some(Arc::from(text))),
        };
        self.mistakes.push(Mistake::new(value.span(), message).help(help));
        None
    }

    fn auth_request_set(&mut self, written: &Value<Named<String>>) -> Option<Arc<[(Assigned, Template)]>> {
        let entries = &written.given()?.get_ref().0;
        let mut set = Vec::with_capacity(entries.len());
        for (name, value) in entries {
            let template = self.template(value);
            let variable = self.assigned(name);
            set.extend(variable.zip(template));
        }
        Some(set.into())
    }

    fn trusted_proxies(&mut self, written: &Value<OneOrMany<String>>) -> Option<Trusted> {
        let mut trusted = Trusted::default();
        for entry in &written.given()?.get_ref().0 {
            let text = entry.get_ref();
            if text == "unix:" {
                trusted.unix = true;
                continue;
            }
            match net(text) {
                Some(net) => trusted.nets.push(net),
                None => self.mistakes.push(
                    Mistake::new(
                        entry.span(),
                        format!("`{text}` is neither an address nor a range of addresses"),
                    )
                    .help(trusted_help(text)),
                ),
            }
        }
        Some(trusted)
    }

    fn real_ip_header(&mut self, written: &Value<String>) -> Option<RealIpHeader> {
        let value = written.given()?;
        let text = value.get_ref();
        match FieldName::new(text) {
            Some(_) if text == "proxy_protocol" => Some(RealIpHeader::ProxyProtocol),
            Some(_) if text.eq_ignore_ascii_case("x-forwarded-for") => Some(RealIpHeader::XForwardedFor),
            Some(_) if text.eq_ignore_ascii_case("forwarded") => Some(RealIpHeader::Forwarded),
            Some(name) => Some(RealIpHeader::Field(name)),
            None => {
                let mistake = Mistake::new(value.span(), format!("`{text}` cannot be the name of a field"));
                self.mistakes.push(mistake.help("write `\"X-Forwarded-For\"` or `\"X-Real-IP\"`"));
                None
            }
        }
    }
}

/// An address, or a range of them; what stands beyond the range's prefix has no meaning.
fn net(text: &str) -> Option<IpNet> {
    text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).ok().map(|net| net.trunc())
}

fn trusted_help(text: &str) -> &'static str {
    match text.starts_with("unix") {
        true => "write `\"unix:\"`, which stands for all peers on Unix-domain sockets",
        false => "write `\"10.0.0.1\"`, `\"10.0.0.0/8\"`, `\"::1\"`, `\"fd00::/8\"` or `\"unix:\"`",
    }
}

/// A line of `access`.
fn rule(line: &str) -> Result<(Who, Verdict), (String, String)> {
    let text = line.trim_end_matches(';');
    let mut words = text.split_whitespace();
    let (verb, who) = (words.next().unwrap_or_default(), words.next());
    let verdict = match verb {
        "allow" => Verdict::Allow,
        "deny" => Verdict::Deny,
        _ => {
            let message = format!("`{line}` says neither `allow` nor `deny`");
            let help = match who.is_none() && (verb == "all" || verb == "unix:" || net(verb).is_some()) {
                true => format!("write `\"allow {verb}\"` or `\"deny {verb}\"`"),
                false => "write `\"allow 10.0.0.0/8\"` or `\"deny all\"`".to_owned(),
            };
            return Err((message, help));
        }
    };
    let Some(who) = who else {
        return Err((
            format!("`{verb}` whom?"),
            format!("write `\"{verb} 10.0.0.0/8\"` or `\"{verb} all\"`"),
        ));
    };
    if let Some(second) = words.next() {
        let help = format!("write two rules: `\"{verb} {who}\", \"{verb} {second}\"`");
        return Err(("a rule is about one address or range".to_owned(), help));
    }
    if text != line {
        return Err((
            "there is no `;` at the end of a value".to_owned(),
            format!("write `\"{verb} {who}\"`"),
        ));
    }
    let who = match who {
        "all" => Who::All,
        "unix:" => Who::Unix,
        _ => Who::Net(net(who).ok_or_else(|| bad_who(verb, who))?),
    };
    Ok((who, verdict))
}

fn bad_who(verb: &str, who: &str) -> (String, String) {
    let help = match who {
        _ if who.starts_with("unix") => {
            format!("write `\"{verb} unix:\"`, for all clients on Unix-domain sockets")
        }
        "*" | "any" | "everyone" | "0/0" => format!("write `\"{verb} all\"`"),
        "localhost" => format!("write `\"{verb} 127.0.0.1\", \"{verb} ::1\"`"),
        _ => format!(
            "write `\"{verb} 10.0.0.1\"`, `\"{verb} 10.0.0.0/8\"`, `\"{verb} fd00::/8\"` or `\"{verb} all\"`"
        ),
    };
    (format!("`{who}` is neither an address nor a range of addresses"), help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_as_nginx_reads_them() {
        let range = |text: &str| Who::Net(text.parse().unwrap());
        for (line, expected) in [
            ("allow 10.0.0.0/8", (range("10.0.0.0/8"), Verdict::Allow)),
            ("allow 10.1.2.3/8", (range("10.0.0.0/8"), Verdict::Allow)),
            ("deny  192.0.2.1", (range("192.0.2.1/32"), Verdict::Deny)),
            ("deny 2001:db8::/32", (range("2001:db8::/32"), Verdict::Deny)),
            ("deny ::1", (range("::1/128"), Verdict::Deny)),
            ("allow unix:", (Who::Unix, Verdict::Allow)),
            ("deny all", (Who::All, Verdict::Deny)),
        ] {
            assert_eq!(rule(line), Ok(expected), "{line}");
        }
        for line in [
            "",
            "allow",
            "10.0.0.0/8",
            "permit all",
            "allow 10.0.0.0/33",
            "allow 10.0.0.0/255.0.0.0",
            "deny all;",
            "deny example.com",
            "allow 10.0.0.1 10.0.0.2",
            "allow unix:/run/x",
            "Deny all",
        ] {
            assert!(rule(line).is_err(), "{line}");
        }
    }
}
