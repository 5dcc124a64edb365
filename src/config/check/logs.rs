//! Logs: where they go, and what their lines say.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use serde_spanned::Spanned;
use tracing::Level;

use super::Check;
use super::headers::bad_template;
use super::names::Names;
use crate::config::error::{Mistake, MistakeKind};
use crate::config::file::{self, Named, OneOrMany, TextOr, Value};
use crate::config::{AccessLog, ErrorLog, Escape, LogFormat, LogTarget};
use crate::routing::variables::Template;

/// nginx's format of the same name.
const COMBINED: &str = "$remote_addr - $remote_user [$time_local] \"$request\" $status $body_bytes_sent \
                        \"$http_referer\" \"$http_user_agent\"";

/// One object a line, every value a text but those that are always numbers.
const JSON: &str = "{\"time\":\"$time_iso8601\",\"remote_addr\":\"$remote_addr\",\"scheme\":\"$scheme\",\
                    \"host\":\"$host\",\"method\":\"$request_method\",\"uri\":\"$request_uri\",\
                    \"protocol\":\"$server_protocol\",\"status\":$status,\"bytes_sent\":$bytes_sent,\
                    \"body_bytes_sent\":$body_bytes_sent,\"request_length\":$request_length,\
                    \"bytes_received\":$bytes_received,\"request_time\":$request_time,\
                    \"referer\":\"$http_referer\",\"user_agent\":\"$http_user_agent\",\
                    \"request_id\":\"$request_id\",\"upstream_addr\":\"$upstream_addr\",\
                    \"upstream_status\":\"$upstream_status\",\
                    \"upstream_response_time\":\"$upstream_response_time\",\"tunnel_id\":\"$tunnel_id\",\
                    \"tunnel_event\":\"$tunnel_event\",\"tunnel_end\":\"$tunnel_end\"}";

/// A target, a format, and a condition.
type AccessWords = (Spanned<String>, Option<Spanned<String>>, Option<Spanned<String>>);

/// The formats with their names; `None` for one that has been reported.
pub(super) struct Formats(Vec<(String, Option<LogFormat>)>);

impl Formats {
    /// The built-in ones and those of the file.
    pub(super) fn of(
        written: &Value<Named<TextOr<file::LogFormat>>>,
        names: &mut Names,
        mistakes: &mut Vec<Mistake>,
    ) -> Self {
        let built_in =
            |text: &str, escape| Template::parse(text).ok().map(|template| LogFormat { template, escape });
        let mut formats = Self(vec![
            ("combined".to_owned(), built_in(COMBINED, Escape::Default)),
            ("json".to_owned(), built_in(JSON, Escape::Json)),
        ]);
        for (name, format) in
            written.given().map(|formats| formats.get_ref().0.as_slice()).unwrap_or_default()
        {
            if formats.find(name.get_ref()).is_some() {
                let message = format!("the log format `{}` is built in", name.get_ref());
                mistakes.push(Mistake::new(name.span(), message).help("give yours another name"));
                continue;
            }
            let read = log_format(format, names, mistakes);
            formats.0.push((name.get_ref().clone(), read));
        }
        formats
    }

    fn find(&self, name: &str) -> Option<&Option<LogFormat>> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, format)| format)
    }
}

fn log_format(
    written: &Spanned<TextOr<file::LogFormat>>,
    names: &mut Names,
    mistakes: &mut Vec<Mistake>,
) -> Option<LogFormat> {
    let (text, escape) = match written.get_ref() {
        TextOr::Text(text) => (Spanned::new(written.span(), text.clone()), Escape::Default),
        TextOr::Table(table) => {
            if table.format.is_absent() {
                let mistake = Mistake::new(written.span(), "a log format needs a `format`");
                mistakes.push(
                    mistake.help("write `{ format = \"$remote_addr $status\" }`").kind(MistakeKind::Doubtful),
                );
            }
            (table.format.given()?.clone(), escape(&table.escape, mistakes))
        }
    };
    if text.get_ref().contains(|c: char| c.is_control() && c != '\t') {
        let mistake = Mistake::new(text.span(), "a log line is one line, without control characters");
        mistakes.push(mistake.help("write a text without them"));
        return None;
    }
    match names.template(&text) {
        Ok(template) => Some(LogFormat { template, escape }),
        Err(error) => {
            mistakes.push(bad_template(&text, &error));
            None
        }
    }
}

fn escape(written: &Value<String>, mistakes: &mut Vec<Mistake>) -> Escape {
    let Some(value) = written.given() else { return Escape::Default };
    match value.get_ref().as_str() {
        "default" => Escape::Default,
        "json" => Escape::Json,
        "none" => Escape::None,
        other => {
            let mistake = Mistake::new(value.span(), format!("`escape` cannot be `{other}`"));
            mistakes.push(mistake.help("write `\"default\"`, `\"json\"` or `\"none\"`"));
            Escape::Default
        }
    }
}

impl Check<'_> {
    pub(super) fn error_log(&mut self, written: &Value<TextOr<file::ErrorLog>>) -> ErrorLog {
        let default = ErrorLog { target: LogTarget::Stderr, level: Level::INFO };
        let Some(log) = written.given() else { return default };
        let (target, level) = match log.get_ref() {
            TextOr::Text(text) => {
                let mut words = text.split_whitespace().map(|word| Spanned::new(log.span(), word.to_owned()));
                let parts = (words.next(), words.next());
                if words.next().is_some() {
                    let message = "`error_log` has a target and a level, no more";
                    self.mistakes
                        .push(Mistake::new(log.span(), message).help("write `error_log = \"stderr info\"`"));
                }
                parts
            }
            TextOr::Table(table) => (table.path.given().cloned(), table.level.given().cloned()),
        };
        if let Some(off) = target.as_ref().filter(|target| target.get_ref() == "off") {
            let mistake =
                Mistake::new(off.span(), "the error log cannot be off: it says why a request failed");
            self.mistakes.push(mistake.help("write `error_log = \"stderr error\"` for the least of it"));
            return default;
        }
        ErrorLog {
            target: target.and_then(|target| self.target("error_log", &target)).unwrap_or(default.target),
            level: level.and_then(|level| self.level(&level)).unwrap_or(default.level),
        }
    }

    /// nginx's levels are accepted for the nearest of ours.
    fn level(&mut self, level: &Spanned<String>) -> Option<Level> {
        match level.get_ref().as_str() {
            "error" | "crit" | "alert" | "emerg" => Some(Level::ERROR),
            "warn" => Some(Level::WARN),
            "info" | "notice" => Some(Level::INFO),
            "debug" => Some(Level::DEBUG),
            "trace" => Some(Level::TRACE),
            other => {
                let mistake = Mistake::new(level.span(), format!("`error_log`: `{other}` is not a level"));
                self.mistakes.push(mistake.help("write `error`, `warn`, `info`, `debug` or `trace`"));
                None
            }
        }
    }

    /// What `access_log` says at one level of the file. As in nginx `"off"` among them takes all of them away.
    pub(super) fn access(
        &mut self,
        written: &Value<OneOrMany<TextOr<file::AccessLog>>>,
    ) -> Option<Arc<[Arc<AccessLog>]>> {
        let entries = &written.given()?.get_ref().0;
        let is_off = |entry: &Spanned<TextOr<file::AccessLog>>| matches!(entry.get_ref(), TextOr::Text(text) if text == "off");
        let logs: Vec<_> =
            entries.iter().filter(|entry| !is_off(entry)).map(|entry| self.one_log(entry)).collect();
        if entries.iter().any(is_off) {
            return Some(Arc::default());
        }
        logs.into_iter().collect()
    }

    fn one_log(&mut self, log: &Spanned<TextOr<file::AccessLog>>) -> Option<Arc<AccessLog>> {
        let (target, format, condition) = match log.get_ref() {
            TextOr::Text(text) => self.access_words(text, log.span())?,
            TextOr::Table(table) => {
                if table.path.is_absent() {
                    self.missing(
                        log.span(),
                        "a `path` is missing",
                        "write `{ path = \"stdout\", format = \"json\" }`",
                    );
                }
                let given = |value: &Value<String>| value.given().cloned();
                (table.path.given()?.clone(), given(&table.format), given(&table.r#if))
            }
        };
        let condition = condition.and_then(|condition| self.log_condition(&condition));
        let format = match format {
            Some(name) => self.format(name.get_ref(), name.span()),
            None => self.formats.find("combined").cloned().flatten(),
        };
        let target = self.target("access_log", &target)?;
        let log = AccessLog { target, format: format?, condition };
        Some(self.shared(log))
    }

    /// The parts of `"TARGET [FORMAT] [if=$VARIABLE]"`.
    fn access_words(&mut self, text: &str, span: Range<usize>) -> Option<AccessWords> {
        let spanned = |word: &str| Spanned::new(span.clone(), word.to_owned());
        let mut words = text.split_whitespace();
        let target = spanned(words.next().unwrap_or_default());
        let (mut format, mut condition) = (None, None);
        for word in words {
            match word.strip_prefix("if=") {
                Some(value) if condition.is_none() => condition = Some(spanned(value)),
                None if word.contains('=') => {
                    let option = word.split('=').next().unwrap_or_default();
                    let message = format!("`{option}=` of nginx's `access_log` is not supported");
                    self.mistakes.push(Mistake::new(span.clone(), message).help("delete it"));
                }
                None if format.is_none() && condition.is_none() => format = Some(spanned(word)),
                _ => {
                    let message = "`access_log` has a target, a format and an `if=`, no more";
                    let help = "write `access_log = \"/var/log/hopgate/access.log combined if=$loggable\"`";
                    self.mistakes.push(Mistake::new(span, message).help(help));
                    return None;
                }
            }
        }
        Some((target, format, condition))
    }

    /// nginx: a line is written unless it is empty or `0`.
    fn log_condition(&mut self, condition: &Spanned<String>) -> Option<Template> {
        if !condition.get_ref().contains('$') {
            let mistake = Mistake::new(condition.span(), "the `if` of `access_log` has no variable in it");
            self.mistakes.push(
                mistake.help("write a variable that is empty or `0` where no line is wanted: `if=$loggable`"),
            );
            return None;
        }
        self.template(condition)
    }

    /// `combined` on standard output.
    pub(super) fn default_access_log(&mut self) -> Option<Arc<AccessLog>> {
        let format = self.formats.find("combined").cloned().flatten()?;
        Some(self.shared(AccessLog { target: LogTarget::Stdout, format, condition: None }))
    }

    fn shared(&mut self, log: AccessLog) -> Arc<AccessLog> {
        if let Some(same) = self.access_logs.iter().find(|other| ***other == log) {
            return Arc::clone(same);
        }
        let log = Arc::new(log);
        self.access_logs.push(Arc::clone(&log));
        log
    }

    fn format(&mut self, name: &str, span: Range<usize>) -> Option<LogFormat> {
        if let Some(format) = self.formats.find(name) {
            return format.clone();
        }
        let names: Vec<_> = self.formats.0.iter().map(|(name, _)| format!("`{name}`")).collect();
        let help = format!("known are {}; write others in `[log_format]`", names.join(", "));
        let mistake = Mistake::new(span, format!("there is no log format `{name}`")).help(help);
        self.mistakes.push(mistake.kind(MistakeKind::Doubtful));
        None
    }

    fn target(&mut self, key: &str, target: &Spanned<String>) -> Option<LogTarget> {
        let text = target.get_ref().as_str();
        match text {
            "stdout" | "/dev/stdout" => return Some(LogTarget::Stdout),
            "stderr" | "/dev/stderr" => return Some(LogTarget::Stderr),
            _ if text.starts_with('/') && !text.contains('\0') && !text.ends_with([';', '/']) => {
                return Some(LogTarget::File(PathBuf::from(text)));
            }
            _ => {}
        }
        let message = match text {
            "" => format!("`{key}` says no place for its lines"),
            _ if text.starts_with("syslog:") => format!("`{key}`: syslog is not supported yet"),
            _ => format!("`{key}`: `{text}` is not a place for a log"),
        };
        let mistake = Mistake::new(target.span(), message);
        self.mistakes.push(
            mistake.help("write `stdout`, `stderr` or the whole path of a file: `/var/log/hopgate.log`"),
        );
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_formats_are_right() {
        for text in [COMBINED, JSON] {
            assert!(Template::parse(text).is_ok(), "{text}");
        }
    }
}
