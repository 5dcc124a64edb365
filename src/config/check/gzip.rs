//! `gzip` and what goes with it: which bodies are compressed, and how.

use super::{Check, plain};
use crate::config::error::Mistake;
use crate::config::file::{ForResponses, OneOrMany, Size, Value};
use crate::config::{Gzip, GzipProxied};
use crate::headers::is_token_byte;
use crate::headers::response::content_type::MediaTypes;

/// What a level says about compression; `None`: nothing.
#[derive(Clone, Default)]
pub(super) struct GzipSettings {
    on: Option<bool>,
    types: Option<MediaTypes>,
    level: Option<usize>,
    min_length: Option<Size>,
    proxied: Option<Vec<GzipProxied>>,
    vary: Option<bool>,
    http10: Option<bool>,
}

/// What nginx's `gzip_proxied` takes.
const PROXIED: &[(&str, GzipProxied)] = &[
    ("off", GzipProxied::Off),
    ("expired", GzipProxied::Expired),
    ("no-cache", GzipProxied::NoCache),
    ("no-store", GzipProxied::NoStore),
    ("private", GzipProxied::Private),
    ("no_last_modified", GzipProxied::NoLastModified),
    ("no_etag", GzipProxied::NoEtag),
    ("auth", GzipProxied::Auth),
    ("any", GzipProxied::Any),
];

impl GzipSettings {
    /// What holds here: what is said here, else what is said outside.
    pub(super) fn inside(self, outer: Self) -> Self {
        Self {
            on: self.on.or(outer.on),
            types: self.types.or(outer.types),
            level: self.level.or(outer.level),
            min_length: self.min_length.or(outer.min_length),
            proxied: self.proxied.or(outer.proxied),
            vary: self.vary.or(outer.vary),
            http10: self.http10.or(outer.http10),
        }
    }

    /// `None`: nothing is compressed.
    pub(super) fn rules(&self) -> Option<Gzip> {
        self.on.unwrap_or(false).then(|| Gzip {
            level: self.level.map_or(1, |level| level as u32),
            types: self.types.clone().unwrap_or_else(|| MediaTypes::these(&["text/html"])),
            min_length: self.min_length.map_or(20, |Size(length)| length),
            proxied: self.proxied.clone().unwrap_or_else(|| vec![GzipProxied::Off]),
            vary: self.vary.unwrap_or(false),
            http10: self.http10.unwrap_or(false),
        })
    }
}

impl Check<'_> {
    pub(super) fn gzip(&mut self, written: &ForResponses) -> GzipSettings {
        GzipSettings {
            on: plain(&written.gzip),
            types: self.media_types(&written.gzip_types, "gzip_types"),
            level: self.count(&written.gzip_comp_level, "gzip_comp_level", 1..=9),
            min_length: plain(&written.gzip_min_length),
            proxied: self.gzip_proxied(&written.gzip_proxied),
            vary: plain(&written.gzip_vary),
            http10: self.gzip_http_version(&written.gzip_http_version),
        }
    }

    pub(super) fn media_types(
        &mut self,
        written: &Value<OneOrMany<String>>,
        key: &str,
    ) -> Option<MediaTypes> {
        let entries = &written.given()?.get_ref().0;
        if entries.iter().any(|entry| entry.get_ref() == "*") {
            return Some(MediaTypes::Any);
        }
        // nginx: this one is always among them.
        let mut types = vec!["text/html"];
        for entry in entries {
            let text = entry.get_ref().as_str();
            let is_type = text.split('/').count() == 2
                && text.split('/').all(|part| !part.is_empty() && part.bytes().all(is_token_byte));
            if is_type {
                types.push(text);
                continue;
            }
            let message = format!("`{key}`: `{text}` is not a media type");
            let help = match text.split_whitespace().count() {
                0 | 1 => format!("write `{key} = [\"text/css\", \"application/json\"]`, or `\"*\"` for all"),
                _ => {
                    let types: Vec<_> = text.split_whitespace().map(|one| format!("\"{one}\"")).collect();
                    format!("write `{key} = [{}]`", types.join(", "))
                }
            };
            self.mistakes.push(Mistake::new(entry.span(), message).help(help));
        }
        Some(MediaTypes::these(&types))
    }

    fn gzip_proxied(&mut self, written: &Value<OneOrMany<String>>) -> Option<Vec<GzipProxied>> {
        let entries = &written.given()?.get_ref().0;
        let mut allowed = Vec::with_capacity(entries.len());
        for entry in entries {
            match PROXIED.iter().find(|(name, _)| name == entry.get_ref()) {
                Some((_, proxied)) => allowed.push(*proxied),
                None => {
                    let known: Vec<_> = PROXIED.iter().map(|(name, _)| format!("`\"{name}\"`")).collect();
                    let message = format!("`gzip_proxied` cannot be `{}`", entry.get_ref());
                    let help = format!("write one or several of {}", known.join(", "));
                    self.mistakes.push(Mistake::new(entry.span(), message).help(help));
                }
            }
        }
        Some(allowed)
    }

    fn gzip_http_version(&mut self, written: &Value<String>) -> Option<bool> {
        let value = written.given()?;
        match value.get_ref().as_str() {
            "1.0" => Some(true),
            "1.1" => Some(false),
            other => {
                let mistake = Mistake::new(value.span(), format!("`gzip_http_version` cannot be `{other}`"));
                self.mistakes.push(mistake.help("write `\"1.1\"` or `\"1.0\"`"));
                None
            }
        }
    }
}
