//! Keys that are unknown, or stand in the wrong table.

use serde_spanned::Spanned;
use toml::de::{DeString, DeValue};

use super::{Reader, nginx};
use crate::config::error::{Mistake, MistakeKind};
use crate::config::file::Level;

impl Reader {
    /// Reports a key that does not belong where it stands, and returns the one that was meant if it
    /// does.
    pub(super) fn unknown_key(
        &mut self,
        level: Level,
        key: &Spanned<DeString<'_>>,
        value: &Spanned<DeValue<'_>>,
    ) -> Option<&'static str> {
        let name = key.get_ref().as_ref();
        let mistake = |message: String| Mistake::new(key.span(), message).label("unknown here");
        let homes: Vec<_> = Level::ALL.into_iter().filter(|other| other.keys().contains(&name)).collect();
        if !homes.is_empty() {
            let help = misplaced(level, name, value.get_ref()).unwrap_or_else(|| {
                let homes: Vec<_> = homes.iter().map(|home| home.place()).collect();
                format!("it belongs {}", homes.join(", or "))
            });
            let mistake = Mistake::new(key.span(), format!("`{name}` does not belong {}", here(level)));
            self.mistakes.push(mistake.label("not here").help(help).kind(MistakeKind::Doubtful));
            return None;
        }
        if let Some(known) = nginx::word(name) {
            self.mistakes.push(known.mistake(key.span(), name, value.get_ref()));
            return None;
        }
        if let Some(meant) = nearest(name, &level.keys()) {
            self.mistakes.push(mistake(format!("unknown key `{name}`, did you mean `{meant}`?")));
            return Some(meant);
        }
        let elsewhere = Level::ALL.iter().find_map(|other| Some((other, nearest(name, &other.keys())?)));
        self.mistakes.push(match elsewhere {
            Some((other, meant)) => mistake(format!("unknown key `{name}`, did you mean `{meant}`?"))
                .help(format!("`{meant}` belongs {}", other.place())),
            None => mistake(format!("unknown key `{name}`")).help(known(level, name)),
        });
        None
    }
}

/// More keys than these are a wall that nobody reads.
const MOST_LISTED: usize = 20;

/// The keys that there are; of many, those that have a word in common with the unknown one.
fn known(level: Level, unknown: &str) -> String {
    let quoted = |keys: &[&str]| keys.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
    let keys = level.keys();
    if keys.len() <= MOST_LISTED {
        return format!("known {} are {}", here(level), quoted(&keys));
    }
    let unknown = unknown.to_ascii_lowercase();
    let is_alike = |key: &&str| {
        unknown.contains(*key) || unknown.split('_').any(|word| word.len() > 3 && key.contains(word))
    };
    let alike: Vec<_> = keys.into_iter().filter(is_alike).collect();
    match alike.is_empty() || alike.len() > MOST_LISTED {
        true => format!("docs/configuration.md lists the keys, also those {}", here(level)),
        false => format!(
            "docs/configuration.md lists the keys; those most like it {} are {}",
            here(level),
            quoted(&alike)
        ),
    }
}

/// Where a key stands, as "does not belong …".
fn here(level: Level) -> &'static str {
    match level {
        Level::Top => "at the top of the file",
        Level::Server => "directly in a `[[server]]`",
        Level::Location => "in a `[[server.location]]`",
        Level::RewriteStep => "in a step of `rewrite`",
        Level::Return => "in `return`",
        Level::Map => "in a `[[map]]`",
        Level::Upstream => "in an `[upstream.NAME]`",
        Level::Acme => "in `[acme]`",
        Level::Health => "in `[health]`",
        Level::Listen => "in an entry of `listen`",
        Level::UpstreamServer => "in a server of an upstream",
        Level::ErrorLog => "in `error_log`",
        Level::AccessLog => "in `access_log`",
        Level::LogFormat => "in an entry of `[log_format]`",
        Level::LimitReqZone => "in a `[limit_req_zone.NAME]`",
        Level::LimitConnZone => "in a `[limit_conn_zone.NAME]`",
        Level::LimitReq => "in an entry of `limit_req`",
        Level::AddHeader => "in an entry of `add_header`",
    }
}

/// What would be right for the keys that are most often put into the wrong table.
fn misplaced(level: Level, name: &str, value: &DeValue<'_>) -> Option<String> {
    let table = matches!(value, DeValue::Table(_) | DeValue::Array(_));
    match (level, name) {
        (Level::Top, "location") => {
            Some("a location belongs to a server: write `[[server.location]]` below its `[[server]]`".into())
        }
        (Level::Server | Level::Location, "upstream") if table => {
            Some("write `[upstream.NAME]`, with no `server.` before it".into())
        }
        (Level::Server, "server") => Some("write another `[[server]]`".into()),
        (Level::Server, "path" | "proxy_pass") => {
            Some("write `[[server.location]]` in a line before it, with `path = \"/\"`".into())
        }
        (Level::Location, "keepalive_timeout") => Some(
            "it belongs in a `[[server]]` (for clients) or in an `[upstream.NAME]` (for upstream servers)"
                .into(),
        ),
        _ => None,
    }
}

/// The known word that was probably meant.
pub(in crate::config) fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let plain = |text: &str| text.to_ascii_lowercase().replace(['-', '_', ' '], "");
    let wanted = plain(name);
    if name.len() > 64 {
        return None;
    }
    known
        .iter()
        .map(|known| (strsim::damerau_levenshtein(&plain(known), &wanted), *known))
        .min()
        .filter(|(distance, known)| *distance <= known.len().min(wanted.len()) / 4)
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_key_is_found_and_a_far_one_is_not() {
        let keys = Level::Location.keys();
        for (name, meant) in [
            ("proxypass", Some("proxy_pass")),
            ("proxy-pass", Some("proxy_pass")),
            ("ProxyPass", Some("proxy_pass")),
            ("proxy_pas", Some("proxy_pass")),
            ("websockets", Some("websocket")),
            ("proxy_set_headers", Some("proxy_set_header")),
            ("port", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(name, &keys), meant, "{name}");
        }
        assert_eq!(nearest("servers", &Level::Upstream.keys()), Some("server"));
    }

    #[test]
    fn no_key_stands_in_a_table_twice() {
        for level in Level::ALL {
            let keys = level.keys();
            assert!(!keys.is_empty());
            for key in &keys {
                assert_eq!(keys.iter().filter(|other| *other == key).count(), 1, "{key}");
            }
        }
    }
}
