//! Locations: which paths are theirs, and what happens there.

use std::ops::Range;
use std::sync::Arc;

use serde_spanned::Spanned;

use super::responses::default_redirect;
use super::settings::Settings;
use super::warnings::paths::odd;
use super::{Check, plain};
use crate::config::error::Mistake;
use crate::config::file;
use crate::config::{AccessLog, Content, ForwardedHeaders, Location, UpgradeRules, UpstreamVersion};
use crate::routing::location::PathMatcher;
use crate::routing::script::Step;

/// Reads the path of a location with its modifier; not that of a regular expression.
///
/// # Errors
/// What is wrong, and what would be right.
pub(super) fn matcher(text: &str) -> Result<PathMatcher, (String, String)> {
    if let Some(name) = text.strip_prefix('@') {
        return match name.is_empty() || name.contains(char::is_whitespace) {
            true => Err(("a named location needs a name".to_owned(), "write `\"@fallback\"`".to_owned())),
            false => Ok(PathMatcher::Named(text.to_owned())),
        };
    }
    if let Some(path) = text.strip_prefix("^~").map(str::trim_start) {
        let right =
            |(message, right): (String, String)| (message, format!("write `\"^~ {}\"`", settled(&right)));
        return plain_path(path).map_err(right).map(|()| PathMatcher::FinalPrefix(path.to_owned()));
    }
    let path = text.strip_prefix('=').map(str::trim_start);
    plain_path(path.unwrap_or(text)).map_err(|(message, right)| {
        let equals = if path.is_some() { "= " } else { "" };
        (message, format!("write `\"{equals}{}\"`", settled(&right)))
    })?;
    Ok(path.map_or_else(|| PathMatcher::Prefix(text.to_owned()), |path| PathMatcher::Exact(path.to_owned())))
}

/// What can be written, so that nobody is led from one mistake to the next.
fn settled(path: &str) -> String {
    let mut path = path.to_owned();
    // Each round takes at least one thing away, but for the `/` at the start.
    for _ in 0..=path.len() + 1 {
        match plain_path(&path).err().or_else(|| odd(&path)) {
            None => break,
            Some((_, right)) => path = right,
        }
    }
    path
}

/// What begins or ends so is no path; what only is none that a request has is warned of.
fn plain_path(path: &str) -> Result<(), (String, String)> {
    let wrong = |message: String, right: String| Err((message, right));
    if let Some(clean) = path.strip_suffix([';', '{', ' ']) {
        let clean = clean.trim_end_matches([';', '{', ' ']);
        return wrong(format!("the path ends with `{}`", &path[clean.len()..]), clean.to_owned());
    }
    if path.starts_with(char::is_whitespace) {
        return wrong("the path begins with a blank".to_owned(), path.trim_start().to_owned());
    }
    if !path.starts_with('/') {
        return wrong(
            format!("`{path}` does not start with `/`, as every path of a request does"),
            format!("/{path}"),
        );
    }
    if let Some(at) = path.find(['?', '#']) {
        let message = "a location is found by the path, without the query (`?…`) or a fragment (`#…`)";
        return wrong(message.to_owned(), path[..at].to_owned());
    }
    if path.contains(|c: char| c.is_control() || c == '\\') {
        let right = path.replace('\\', "/").replace(char::is_control, "");
        return wrong("no request has such a character in its path".to_owned(), right);
    }
    Ok(())
}

impl Check<'_> {
    /// `None` if its path or its `proxy_pass` cannot be used; the rest of it is checked all the same.
    /// `settings` are its own and what it inherits.
    pub(super) fn location(
        &mut self,
        written: &Spanned<file::Location>,
        matcher: Option<PathMatcher>,
        settings: &Settings,
    ) -> Option<Location> {
        let file = written.get_ref();
        let script = self.script(&file.script);
        let try_files = self.try_files(&file.try_files, &settings.files);
        let has_files = settings.files.is_rooted() || !file.try_files.is_absent();
        if file.proxy_pass.is_absent() && script.is_empty() && file.location.is_absent() && !has_files {
            let help = "write where its answers come from: `proxy_pass = \"http://127.0.0.1:3000\"`, \
                        `root = \"/srv/www\"`, or `return`";
            self.missing(written.span(), "a location needs a `proxy_pass`, a `root` or a `return`", help);
        }
        let version = settings.http_version.unwrap_or(UpstreamVersion::Http11);
        let tls = settings.upstream_tls.clone().speaking(version);
        let pass = file.proxy_pass.given().map(|pass| (pass, self.proxy_pass(pass, &tls)));
        if let Some((written, Some(pass))) = &pass
            && pass.uri.is_some()
            && matcher.as_ref().is_some_and(|matcher| matcher.prefix().is_none())
        {
            self.mistakes.push(no_uri(written.span()));
        }
        let content = match pass {
            None if settings.files.has_root() => Content::Files,
            None => Content::Nothing,
            Some((_, pass)) => Content::Proxy(pass?),
        };
        let internal = plain(&file.internal).unwrap_or(false);
        let access_logs = self.access_logs(settings);
        let matcher = matcher?;
        let url = file.proxy_pass.given().map(|url| url.get_ref().as_str());
        let redirect = url.and_then(|url| default_redirect(url, matcher.path()));
        let mut location =
            self.with_settings(matcher, content, script, internal, settings.clone(), access_logs);
        location.responses = settings.responses.rules(redirect);
        location.files.try_files = try_files;
        Some(location)
    }

    /// What a server says outside of its locations, as a location of its own.
    pub(super) fn outer_location(&mut self, written: &file::Server, settings: &Settings) -> Location {
        let access_logs = self.access_logs(settings);
        let nowhere = PathMatcher::Named(String::new());
        let content = if settings.files.has_root() { Content::Files } else { Content::Nothing };
        let try_files = self.try_files(&written.try_files, &settings.files);
        let mut location =
            self.with_settings(nowhere, content, Vec::new(), false, settings.clone(), access_logs);
        location.files.try_files = try_files;
        location
    }

    fn with_settings(
        &mut self,
        matcher: PathMatcher,
        content: Content,
        script: Vec<Step>,
        internal: bool,
        settings: Settings,
        access_logs: Arc<[Arc<AccessLog>]>,
    ) -> Location {
        Location {
            access: self.access_rules(settings.access.clone()),
            matcher,
            content,
            script,
            internal,
            redirects: settings.redirects(),
            responses: settings.responses.rules(None),
            requests: settings.responses.request_rules(),
            intercept_errors: settings.intercept_errors.unwrap_or(false),
            recursive_error_pages: settings.recursive_error_pages.unwrap_or(false),
            forwarded_headers: settings.forwarded_headers.unwrap_or(ForwardedHeaders::Set),
            next_upstream: settings.next.finish(),
            timeouts: settings.timeouts(),
            max_body_size: settings.max_body_size(),
            proxy_protocol: settings.proxy_protocol(),
            upgrade: UpgradeRules {
                websocket: settings.websocket.unwrap_or(true),
                protocols: settings.protocols.unwrap_or_default(),
            },
            set_headers: settings.set_headers.unwrap_or_default(),
            http_version: settings.http_version.unwrap_or(UpstreamVersion::Http11),
            pass_trailers: settings.pass_trailers.unwrap_or(false),
            files: settings.files.rules(),
            error_pages: settings.error_pages.unwrap_or_default(),
            access_logs,
        }
    }
}

fn no_uri(span: Range<usize>) -> Mistake {
    let message = "a `proxy_pass` with a path replaces what the location's path matched, and a location that is \
                   found by an expression or by its name has no such path";
    Mistake::new(span, message)
        .help("leave the path out of the URL; a `rewrite` with `break` changes the path")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_with_their_modifier() {
        assert_eq!(matcher("/"), Ok(PathMatcher::Prefix("/".into())));
        assert_eq!(matcher("/a b/ü"), Ok(PathMatcher::Prefix("/a b/ü".into())));
        assert_eq!(matcher("= /x"), Ok(PathMatcher::Exact("/x".into())));
        assert_eq!(matcher("^~ /x"), Ok(PathMatcher::FinalPrefix("/x".into())));
        assert_eq!(matcher("@app"), Ok(PathMatcher::Named("@app".into())));
        assert_eq!(matcher("=/x"), Ok(PathMatcher::Exact("/x".into())));
        assert_eq!(matcher("/a:b/:1"), Ok(PathMatcher::Prefix("/a:b/:1".into())));
        assert_eq!(matcher("/100%"), Ok(PathMatcher::Prefix("/100%".into())));
        assert_eq!(matcher("/.well-known/..a/"), Ok(PathMatcher::Prefix("/.well-known/..a/".into())));
    }

    #[test]
    fn paths_that_would_never_be_found_are_refused_with_the_right_form() {
        for (text, help) in [
            ("x", "write `\"/x\"`"),
            ("", "write `\"/\"`"),
            ("=", "write `\"= /\"`"),
            ("/x;", "write `\"/x\"`"),
            ("= /x {", "write `\"= /x\"`"),
            ("/x?a=b", "write `\"/x\"`"),
            (" /a", "write `\"/a\"`"),
            ("/%2e%2e/%2541;", "write `\"/A\"`"),
            ("/a\\b", "write `\"/a/b\"`"),
            ("a//b?c;", "write `\"/a/b\"`"),
            ("^~ a/", "write `\"^~ /a/\"`"),
            ("@", "write `\"@fallback\"`"),
        ] {
            assert_eq!(matcher(text).unwrap_err().1, help, "{text}");
        }
    }
}
