//! Paths of locations that no request has, or that are not what they look like.

use super::Site;
use crate::config::error::Mistake;
use crate::routing::location::PathMatcher;

/// Looks at the paths of locations one by one.
pub(super) fn find(site: &Site<'_>, found: &mut Vec<Mistake>) {
    for place in &site.places {
        let (modifier, path) = match &place.location.matcher {
            PathMatcher::Exact(path) => ("= ", path),
            PathMatcher::Prefix(path) => ("", path),
            PathMatcher::FinalPrefix(path) => ("^~ ", path),
            PathMatcher::Regex(_) | PathMatcher::Named(_) => continue,
        };
        let Some((message, right)) = odd(path) else { continue };
        let right = settled(right);
        let help = match pattern_free(path).filter(|prefix| *prefix == right) {
            Some(prefix) if path.strip_prefix(prefix) == Some("*") => {
                format!("write `\"{prefix}\"`, which matches everything below it")
            }
            Some(prefix) => format!(
                "write `\"{prefix}\"`, which matches everything below it, or an expression: `\"~ {}\"`",
                as_expression(path)
            ),
            None => format!("write `\"{modifier}{right}\"`"),
        };
        found.push(Mistake::warning(place.path(), message).help(help));
    }
}

/// What is odd about a path, and what is probably meant.
pub(in crate::config::check) fn odd(path: &str) -> Option<(String, String)> {
    if let Some(prefix) = pattern_free(path) {
        let message = "there are no patterns in `path`: this stands for itself, character by character";
        return Some((message.to_owned(), prefix.to_owned()));
    }
    if let Some(decoded) = percent_decoded(path) {
        let message = "this path can never match: paths are compared when they have been percent-decoded";
        return Some((message.to_owned(), decoded));
    }
    let normal = normal(path);
    (normal != path).then(|| {
        let message = "this path can never match: paths are compared without `//`, `/./` and `/../`";
        (message.to_owned(), normal)
    })
}

/// A path in which nothing is odd any more.
fn settled(mut path: String) -> String {
    // Each round takes at least one thing away.
    for _ in 0..=path.len() {
        match odd(&path) {
            None => break,
            Some((_, right)) => path = right,
        }
    }
    path
}

/// The part of a path before the pattern that other proxies would read in it: `/*`, `/{id}`, `/:id`.
fn pattern_free(path: &str) -> Option<&str> {
    let named = path
        .match_indices("/:")
        .find(|(at, _)| path[at + 2..].starts_with(|c: char| c.is_ascii_alphabetic() || c == '_'));
    let at = path.find(['*', '{']).into_iter().chain(named.map(|(at, _)| at + 1)).min()?;
    let prefix = path[..at].rfind('/').map_or("/", |slash| &path[..=slash]);
    (path.starts_with('/') && percent_decoded(prefix).is_none() && normal(prefix) == prefix).then_some(prefix)
}

/// The expression for what other proxies would read in a path.
fn as_expression(path: &str) -> String {
    let segment = |segment: &str| match segment {
        "*" | "**" => ".*".to_owned(),
        _ if segment.starts_with([':', '{']) => "[^/]+".to_owned(),
        _ => segment.replace('.', "[.]").replace('*', "[^/]*"),
    };
    let segments: Vec<_> = path.split('/').map(segment).collect();
    format!("^{}$", segments.join("/"))
}

/// `None` if there is no escape in it.
fn percent_decoded(path: &str) -> Option<String> {
    let bytes = path.as_bytes();
    let escape = |at: usize| {
        let digits = path.get(at + 1..at + 3).filter(|_| bytes[at] == b'%')?;
        digits
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit())
            .then(|| u8::from_str_radix(digits, 16).ok())
            .flatten()
    };
    let (mut decoded, mut at, mut found) = (Vec::new(), 0, false);
    while at < bytes.len() {
        let byte = escape(at);
        decoded.push(byte.unwrap_or(bytes[at]));
        at += if byte.is_some() { 3 } else { 1 };
        found |= byte.is_some();
    }
    found.then(|| String::from_utf8_lossy(&decoded).into_owned())
}

fn normal(path: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/').skip(1) {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            _ => segments.push(segment),
        }
    }
    let open = ["/", "/.", "/.."].iter().any(|end| path.ends_with(end)) && !segments.is_empty();
    format!("/{}{}", segments.join("/"), if open { "/" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_paths_are_found_with_what_is_meant() {
        for (text, right) in [
            ("/a%20b", "/a b"),
            ("/a//b", "/a/b"),
            ("/a/./b/../c/", "/a/c/"),
            ("/a/..", "/"),
            ("/%2f", "/"),
            ("/%2e%2e/%2541", "/A"),
            ("/*", "/"),
            ("/a/*", "/a/"),
            ("/a/*.js", "/a/"),
            ("/{id}", "/"),
            ("/a/{id}/b", "/a/"),
            ("/:id", "/"),
            ("/a/:id/b", "/a/"),
        ] {
            let found = odd(text).map(|(_, right)| settled(right));
            assert_eq!(found.as_deref(), Some(right), "{text}");
        }
    }

    #[test]
    fn paths_that_requests_have_are_not_odd() {
        for text in ["/", "/a b/ü", "/a:b/:1", "/100%", "/.well-known/..a/", "/a.b/", "/x+y"] {
            assert_eq!(odd(text), None, "{text}");
        }
    }

    #[test]
    fn a_pattern_is_said_as_an_expression() {
        assert_eq!(as_expression("/users/{id}/:what/*"), "^/users/[^/]+/[^/]+/.*$");
        assert_eq!(as_expression("/js/*.js"), "^/js/[^/]*[.]js$");
    }
}
