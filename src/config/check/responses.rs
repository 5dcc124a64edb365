//! What becomes of answers on their way to the client, and of requests upstream.

use serde_spanned::Spanned;

use super::gzip::GzipSettings;
use super::{Check, plain};
use crate::config::error::Mistake;
use crate::config::file::{AddHeader, ForResponses, Named, OneOrMany, TextOr, Value};
use crate::config::words::words;
use crate::config::{
    AddedField, Charset, CookieFlags, CookieRules, Pattern, RequestRules, ResponseRules, Substitution,
};
use crate::headers::FieldName;
use crate::headers::is_token_byte;
use crate::headers::response::content_type::{CHARSET_TYPES, MediaTypes};
use crate::headers::response::cookie::{FLAGS, Flag};
use crate::headers::response::expires::{Expires, Expiry};
use crate::routing::variables::Template;

/// What a level says about answers; `None`: nothing.
#[derive(Clone, Default)]
pub(super) struct ResponseSettings {
    hidden: Option<Vec<FieldName>>,
    passed: Option<Vec<FieldName>>,
    ignores_accel_redirect: Option<bool>,
    added: Option<Vec<AddedField>>,
    expires: Option<Expires>,
    charset: Option<Option<Template>>,
    charset_types: Option<MediaTypes>,
    redirects: Option<Vec<Redirect>>,
    cookie_paths: Option<Vec<Substitution>>,
    cookie_domains: Option<Vec<Substitution>>,
    cookie_flags: Option<Vec<CookieFlags>>,
    gzip: GzipSettings,
    method: Option<Template>,
    pass_headers: Option<bool>,
    pass_body: Option<bool>,
}

/// An entry of `proxy_redirect`.
#[derive(Clone)]
enum Redirect {
    Default,
    Rule(Substitution),
}

/// Fields that hopgate makes itself.
const OWN: &[&str] = &[
    "Connection",
    "Content-Length",
    "HTTP2-Settings",
    "Keep-Alive",
    "Proxy-Connection",
    "Sec-WebSocket-Accept",
    "TE",
    "Trailer",
    "Transfer-Encoding",
    "Upgrade",
];

/// What nginx's `proxy_ignore_headers` takes.
const IGNORABLE: &[&str] = &[
    "Cache-Control",
    "Expires",
    "Set-Cookie",
    "Vary",
    "X-Accel-Buffering",
    "X-Accel-Charset",
    "X-Accel-Expires",
    "X-Accel-Limit-Rate",
    "X-Accel-Redirect",
];

impl ResponseSettings {
    /// What holds here: what is said here, else what is said outside.
    pub(super) fn inside(self, outer: &Self) -> Self {
        let outer = outer.clone();
        Self {
            hidden: self.hidden.or(outer.hidden),
            passed: self.passed.or(outer.passed),
            ignores_accel_redirect: self.ignores_accel_redirect.or(outer.ignores_accel_redirect),
            added: self.added.or(outer.added),
            expires: self.expires.or(outer.expires),
            charset: self.charset.or(outer.charset),
            charset_types: self.charset_types.or(outer.charset_types),
            redirects: self.redirects.or(outer.redirects),
            cookie_paths: self.cookie_paths.or(outer.cookie_paths),
            cookie_domains: self.cookie_domains.or(outer.cookie_domains),
            cookie_flags: self.cookie_flags.or(outer.cookie_flags),
            gzip: self.gzip.inside(outer.gzip),
            method: self.method.or(outer.method),
            pass_headers: self.pass_headers.or(outer.pass_headers),
            pass_body: self.pass_body.or(outer.pass_body),
        }
    }

    /// The rules of a location; `default` is what `proxy_redirect = "default"` stands for there.
    pub(super) fn rules(&self, default: Option<Substitution>) -> ResponseRules {
        let is_off = |expires: &Expires| matches!(expires, Expires::Fixed(Expiry::Off));
        let redirects = self.redirects.clone().unwrap_or_else(|| vec![Redirect::Default]);
        let types = self.charset_types.clone().unwrap_or_else(|| MediaTypes::these(CHARSET_TYPES));
        ResponseRules {
            hidden: self.hidden.clone().unwrap_or_default(),
            passed: self.passed.clone().unwrap_or_default(),
            ignores_accel_redirect: self.ignores_accel_redirect.unwrap_or(false),
            added: self.added.clone().unwrap_or_default(),
            expires: self.expires.clone().filter(|expires| !is_off(expires)),
            charset: self.charset.clone().flatten().map(|name| Charset { name, types }),
            redirects: redirects
                .into_iter()
                .filter_map(|redirect| match redirect {
                    Redirect::Default => default.clone(),
                    Redirect::Rule(rule) => Some(rule),
                })
                .collect(),
            cookies: CookieRules {
                paths: self.cookie_paths.clone().unwrap_or_default(),
                domains: self.cookie_domains.clone().unwrap_or_default(),
                flags: self.cookie_flags.clone().unwrap_or_default(),
            },
            gzip: self.gzip.rules(),
        }
    }

    /// The rules for requests of a location.
    pub(super) fn request_rules(&self) -> RequestRules {
        RequestRules {
            method: self.method.clone(),
            pass_headers: self.pass_headers.unwrap_or(true),
            pass_body: self.pass_body.unwrap_or(true),
        }
    }
}

/// What `proxy_redirect = "default"` stands for where `url` is the `proxy_pass` of a location whose path is
/// `path`. There is nothing to stand for if the URL has variables; and no app would name the path of a socket.
pub(super) fn default_redirect(url: &str, path: &str) -> Option<Substitution> {
    let (_, rest) = url.split_once("://")?;
    if url.contains('$') || rest.starts_with("unix:") {
        return None;
    }
    let (from, to) = if rest.contains('/') { (url.to_owned(), path) } else { (format!("{url}/"), "/") };
    Some(Substitution { from: Pattern::Text(Template::literal(&from)), to: Template::literal(to) })
}

impl Check<'_> {
    pub(super) fn response_settings(&mut self, written: &ForResponses) -> ResponseSettings {
        ResponseSettings {
            hidden: self.field_names(&written.proxy_hide_header, "proxy_hide_header"),
            passed: self.field_names(&written.proxy_pass_header, "proxy_pass_header"),
            ignores_accel_redirect: self.ignored(&written.proxy_ignore_headers),
            added: self.added(&written.add_header),
            expires: self.expires(&written.expires),
            charset: self.charset(&written.charset),
            charset_types: self.media_types(&written.charset_types, "charset_types"),
            redirects: self.redirects(&written.proxy_redirect),
            cookie_paths: self.cookie_rules(&written.proxy_cookie_path, "proxy_cookie_path"),
            cookie_domains: self.cookie_rules(&written.proxy_cookie_domain, "proxy_cookie_domain"),
            cookie_flags: self.cookie_flags(&written.proxy_cookie_flags),
            gzip: self.gzip(written),
            method: self.method(&written.proxy_method),
            pass_headers: plain(&written.proxy_pass_request_headers),
            pass_body: plain(&written.proxy_pass_request_body),
        }
    }

    fn field_names(&mut self, written: &Value<OneOrMany<String>>, key: &str) -> Option<Vec<FieldName>> {
        let entries = &written.given()?.get_ref().0;
        let mut names = Vec::with_capacity(entries.len());
        for entry in entries {
            let text = entry.get_ref();
            if let Some(own) = OWN.iter().find(|own| own.eq_ignore_ascii_case(text)) {
                let message = format!("`{own}` is hopgate's own: `{key}` says nothing about it");
                self.mistakes.push(Mistake::new(entry.span(), message).help("delete it"));
                continue;
            }
            names.extend(self.response_field(entry, text));
        }
        Some(names)
    }

    fn response_field(&mut self, entry: &Spanned<String>, text: &str) -> Option<FieldName> {
        let name = FieldName::new(text);
        if name.is_none() {
            let mistake = Mistake::new(entry.span(), format!("`{text}` cannot be the name of a field"));
            self.mistakes.push(mistake.help("a name has letters, digits and `-`: `X-Powered-By`"));
        }
        name
    }

    fn ignored(&mut self, written: &Value<OneOrMany<String>>) -> Option<bool> {
        let entries = &written.given()?.get_ref().0;
        for entry in entries {
            if !IGNORABLE.iter().any(|known| known.eq_ignore_ascii_case(entry.get_ref())) {
                let message = format!("`{}` cannot be ignored: nothing heeds it", entry.get_ref());
                let help = format!("what can be ignored is {}", IGNORABLE.join(", "));
                self.mistakes.push(Mistake::new(entry.span(), message).help(help));
            }
        }
        Some(entries.iter().any(|entry| entry.get_ref().eq_ignore_ascii_case("X-Accel-Redirect")))
    }

    fn added(&mut self, written: &Value<Named<OneOrMany<TextOr<AddHeader>>>>) -> Option<Vec<AddedField>> {
        let entries = &written.given()?.get_ref().0;
        let mut added = Vec::with_capacity(entries.len());
        for (name, values) in entries {
            let text = name.get_ref();
            if let Some(own) = OWN.iter().find(|own| own.eq_ignore_ascii_case(text)) {
                let message = format!("`{own}` cannot be added: it is hopgate's own");
                self.mistakes.push(Mistake::new(name.span(), message).help("delete it"));
                continue;
            }
            let Some(field) = self.response_field(name, text) else { continue };
            for value in &values.get_ref().0 {
                let Some((value, always)) = self.added_value(value) else { continue };
                added.push(AddedField { name: field.clone(), value, always });
            }
        }
        Some(added)
    }

    fn added_value(&mut self, written: &Spanned<TextOr<AddHeader>>) -> Option<(Template, bool)> {
        match written.get_ref() {
            TextOr::Text(text) => {
                if let Some(value) = text.trim_end_matches(';').strip_suffix(" always") {
                    let message = "`always` is not part of the value";
                    let help = format!("write `{{ value = \"{}\", always = true }}`", value.trim_end());
                    self.mistakes.push(Mistake::new(written.span(), message).help(help));
                    return None;
                }
                Some((self.one_line(&Spanned::new(written.span(), text.clone()))?, false))
            }
            TextOr::Table(table) => {
                if table.value.is_absent() {
                    self.missing(
                        written.span(),
                        "a `value` is missing",
                        "write `{ value = \"…\", always = true }`",
                    );
                }
                let value = self.one_line(table.value.given()?)?;
                Some((value, plain(&table.always).unwrap_or(false)))
            }
        }
    }

    fn expires(&mut self, written: &Value<String>) -> Option<Expires> {
        let value = written.given()?;
        let (is_modified, rest) = match value.get_ref().trim().strip_prefix("modified") {
            Some(rest) if rest.starts_with(' ') => (true, rest.trim()),
            _ => (false, value.get_ref().trim()),
        };
        if rest.contains('$') {
            let value = self.template(&Spanned::new(value.span(), rest.to_owned()))?;
            return Some(Expires::Variable { is_modified, value });
        }
        match Expiry::parse(rest, is_modified) {
            Ok(expiry) => Some(Expires::Fixed(expiry)),
            Err(message) => {
                let help = "write a time (`\"30d\"`, `\"-1\"`, `\"@15h30m\"`, `\"modified +24h\"`), `\"epoch\"`, \
                            `\"max\"` or `\"off\"`";
                let mistake = Mistake::new(value.span(), format!("`expires`: `{rest}`: {message}"));
                self.mistakes.push(mistake.help(help));
                None
            }
        }
    }

    fn charset(&mut self, written: &Value<String>) -> Option<Option<Template>> {
        let value = written.given()?;
        let text = value.get_ref();
        if text == "off" {
            return Some(None);
        }
        if !text.contains('$') && (text.is_empty() || !text.bytes().all(is_token_byte)) {
            let mistake = Mistake::new(value.span(), format!("`{text}` cannot be the name of a charset"));
            self.mistakes.push(mistake.help("write `charset = \"utf-8\"` or `charset = \"off\"`"));
            return None;
        }
        self.template(value).map(Some)
    }

    fn redirects(&mut self, written: &Value<OneOrMany<String>>) -> Option<Vec<Redirect>> {
        let entries = &written.given()?.get_ref().0;
        if let [only] = &entries[..]
            && only.get_ref() == "off"
        {
            return Some(Vec::new());
        }
        let mut redirects = Vec::with_capacity(entries.len());
        for entry in entries {
            match entry.get_ref().as_str() {
                "default" => redirects.push(Redirect::Default),
                _ => redirects.extend(self.substitution(entry, "proxy_redirect").map(Redirect::Rule)),
            }
        }
        Some(redirects)
    }

    fn cookie_rules(&mut self, written: &Value<OneOrMany<String>>, key: &str) -> Option<Vec<Substitution>> {
        let entries = &written.given()?.get_ref().0;
        if let [only] = &entries[..]
            && only.get_ref() == "off"
        {
            return Some(Vec::new());
        }
        Some(entries.iter().filter_map(|entry| self.substitution(entry, key)).collect())
    }

    /// `"FROM TO"` as nginx writes it in one line.
    fn substitution(&mut self, entry: &Spanned<String>, key: &str) -> Option<Substitution> {
        let is_domain = key == "proxy_cookie_domain";
        let words = self.words_of(entry)?;
        let [from, to] = &words[..] else {
            let (example, off) = match key {
                "proxy_redirect" => ("http://app:3000/ /app/", ", `\"default\"` or `\"off\"` alone"),
                "proxy_cookie_path" => ("/ /app/", " or `\"off\"` alone"),
                _ => ("app.internal example.com", " or `\"off\"` alone"),
            };
            let message =
                format!("`{key}`: `{}` is not two words, what is replaced and what by", entry.get_ref());
            let help = format!("write `{key} = [\"{example}\"]`{off}");
            self.mistakes.push(Mistake::new(entry.span(), message).help(help));
            return None;
        };
        // nginx: a dot before a domain counts for nothing.
        let undotted = |text: &str| match is_domain {
            true => text.strip_prefix('.').unwrap_or(text).to_owned(),
            false => text.to_owned(),
        };
        let is_regex = from.starts_with('~');
        let from = if is_regex {
            self.pattern(entry, from, is_domain)
        } else {
            self.pattern(entry, &undotted(from), is_domain)
        };
        let to = if is_regex { to.clone() } else { undotted(to) };
        let to = self.one_line(&Spanned::new(entry.span(), to));
        Some(Substitution { from: from?, to: to? })
    }

    /// The words of an entry as nginx would split it.
    fn words_of(&mut self, entry: &Spanned<String>) -> Option<Vec<String>> {
        let read = words(entry.get_ref().trim_end_matches(';'));
        read.map_err(|why| self.mistakes.push(Mistake::new(entry.span(), why))).ok()
    }

    /// `text`, `~regex` or `~*regex`.
    fn pattern(&mut self, entry: &Spanned<String>, text: &str, is_caseless: bool) -> Option<Pattern> {
        let Some(regex) = text.strip_prefix('~') else {
            return self.template(&Spanned::new(entry.span(), text.to_owned())).map(Pattern::Text);
        };
        let (regex, is_caseless) = match regex.strip_prefix('*') {
            Some(regex) => (regex, true),
            None => (regex, is_caseless),
        };
        self.regex(regex, is_caseless, entry.span()).map(Pattern::Regex)
    }

    fn cookie_flags(&mut self, written: &Value<OneOrMany<String>>) -> Option<Vec<CookieFlags>> {
        let entries = &written.given()?.get_ref().0;
        if let [only] = &entries[..]
            && only.get_ref() == "off"
        {
            return Some(Vec::new());
        }
        Some(entries.iter().filter_map(|entry| self.flags_of_a_cookie(entry)).collect())
    }

    fn flags_of_a_cookie(&mut self, entry: &Spanned<String>) -> Option<CookieFlags> {
        let words = self.words_of(entry)?;
        let (cookie, flags) = words.split_first().filter(|(_, flags)| !flags.is_empty()).or_else(|| {
            let message =
                format!("`proxy_cookie_flags`: `{}` is not a cookie and its flags", entry.get_ref());
            let help = "write `proxy_cookie_flags = [\"session secure samesite=lax\"]`, `~` for every cookie";
            self.mistakes.push(Mistake::new(entry.span(), message).help(help));
            None
        })?;
        let cookie = self.pattern(entry, cookie, true);
        let mut templates = Vec::with_capacity(flags.len());
        for flag in flags {
            if !flag.contains('$') && Flag::named(flag.as_bytes()).is_none() {
                let known: Vec<_> = FLAGS.iter().map(|(name, _)| format!("`{name}`")).collect();
                let mistake = Mistake::new(entry.span(), format!("`{flag}` is no flag of a cookie"));
                self.mistakes.push(mistake.help(format!("flags are {}", known.join(", "))));
                continue;
            }
            templates.extend(self.template(&Spanned::new(entry.span(), flag.clone())));
        }
        Some(CookieFlags { cookie: cookie?, flags: templates })
    }

    fn method(&mut self, written: &Value<String>) -> Option<Template> {
        let value = written.given()?;
        let text = value.get_ref();
        let is_token = !text.is_empty() && text.bytes().all(is_token_byte);
        if matches!(text.as_str(), "CONNECT" | "TRACE") || !(text.contains('$') || is_token) {
            let mistake = Mistake::new(value.span(), format!("`proxy_method` cannot be `{text}`"));
            self.mistakes.push(mistake.help("write a method: `proxy_method = \"GET\"`"));
            return None;
        }
        self.template(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_redirect_undoes_proxy_pass() {
        let told = |url| {
            let rule = default_redirect(url, "/app/")?;
            let Pattern::Text(from) = rule.from else { return None };
            Some(format!("{} {}", from.as_literal()?, rule.to.as_literal()?))
        };
        assert_eq!(told("http://a:3000").as_deref(), Some("http://a:3000/ /"));
        assert_eq!(told("http://a/x/").as_deref(), Some("http://a/x/ /app/"));
        assert_eq!((told("http://$host"), told("http://unix:/a:/b")), (None, None));
    }

    #[test]
    fn what_can_be_ignored_has_what_is_hidden() {
        for hidden in crate::headers::response::HIDDEN.iter().filter(|hidden| hidden.starts_with("X-Accel")) {
            assert!(IGNORABLE.contains(hidden), "{hidden}");
        }
    }
}
