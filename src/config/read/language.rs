//! Whole files in another language: nginx's, YAML or JSON.

use crate::config::error::{Mistake, MistakeKind};

/// The one mistake of a file without a line of TOML, if its language is known. In a file that is TOML
/// and has some lines of another language, each of them is a mistake of its own.
pub(super) fn mistake(text: &str) -> Option<Mistake> {
    let mut lines = Vec::new();
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let written = line.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
        if !written.is_empty() && !written.starts_with('#') {
            let start = at + line.find(written)?;
            lines.push((start..start + written.len(), written));
        }
        at += line.len();
    }
    let first = lines.first()?;
    let is_json = first.1.starts_with('{');
    if !is_json && lines.iter().any(|(_, line)| is_toml(line)) {
        return None;
    }
    let place = |known: fn(&str) -> bool| lines.iter().find(|(_, line)| known(line)).map(|(span, _)| span);
    let (span, language) = match (place(is_nginx), place(is_yaml)) {
        _ if is_json => (&first.0, "JSON"),
        (Some(span), _) => (span, NGINX),
        (None, Some(span)) => (span, "YAML"),
        (None, None) => return None,
    };
    let example = "the words are nginx's, the form is TOML, as docs/configuration.md shows:\n\
                   [[server]]\nlisten = \"127.0.0.1:8080\"\n\n\
                   [[server.location]]\npath = \"/\"\nproxy_pass = \"http://127.0.0.1:3000\"";
    let import = "`hopgate import FILE --output hopgate.toml` says it in TOML, and what of it cannot be said";
    let help = if language == NGINX { import } else { example };
    let mistake = Mistake::new(span.clone(), format!("this is {language}, not TOML"));
    Some(mistake.help(help).kind(MistakeKind::Syntax))
}

const NGINX: &str = "nginx's language";

/// `[table]`, or `key = value` that is not nginx's `location = /path {`.
fn is_toml(line: &str) -> bool {
    let key = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '"' | '\'' | ' ');
    let pair = line.split_once('=').is_some_and(|(left, _)| {
        let left = left.trim_end();
        !left.is_empty() && left.chars().all(key) && (!left.contains(' ') || left.starts_with(['"', '\'']))
    });
    line.starts_with('[') && !line.starts_with("[{") || pair && !line.ends_with('{')
}

/// `word {`, `word value {` or `word value;`
fn is_nginx(line: &str) -> bool {
    let line = line.split(" #").next().unwrap_or_default().trim_end();
    let word = line.split([' ', '\t', '{', ';']).next().unwrap_or_default();
    !word.is_empty()
        && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        && line.ends_with(['{', ';', '}'])
}

/// `key:`, `key: value` or `- value`
fn is_yaml(line: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let key = line.split_once(':').filter(|(_, value)| value.is_empty() || value.starts_with(' '));
    key.is_some_and(|(key, _)| !key.is_empty() && key.trim_start_matches("- ").chars().all(word))
        || line == "---"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn language(text: &str) -> Option<String> {
        mistake(text).map(|mistake| format!("{} {}", mistake.span.start, mistake.message))
    }

    #[test]
    fn a_file_in_another_language_is_known_by_its_lines() {
        for (text, known) in [
            ("server {\n  listen 80;\n}\n", Some("0 this is nginx's language, not TOML")),
            ("# mine\nlocation = /x {\n}\n", Some("7 this is nginx's language, not TOML")),
            ("worker_processes auto; # all\n", Some("0 this is nginx's language, not TOML")),
            ("server:\n  - listen: 80\n", Some("0 this is YAML, not TOML")),
            ("---\nserver: {}\n", Some("0 this is YAML, not TOML")),
            ("\u{feff}{ \"server\": [] }", Some("3 this is JSON, not TOML")),
            ("{\"a=b\": 1,\n[1]}", Some("0 this is JSON, not TOML")),
            ("workers = 1\nserver {\n", None),
            ("[[server]]\nlisten 80;\n", None),
            ("\"a b\" = 1\nx: y\n", None),
            ("listen 80\n", None),
            ("", None),
        ] {
            assert_eq!(language(text).as_deref(), known, "{text}");
        }
    }
}
