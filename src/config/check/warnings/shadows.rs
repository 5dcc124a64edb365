//! Locations that never get a request because an expression, or a sibling, takes all of theirs.

use super::Site;
use crate::config::error::Mistake;
use crate::routing::location::PathMatcher;
use crate::routing::regex::Regex;

/// Looks for locations that others stand in front of.
pub(super) fn find(site: &Site<'_>, found: &mut Vec<Mistake>) {
    for place in 0..site.places.len() {
        match &site.places[place].location.matcher {
            PathMatcher::Prefix(path) => prefix(site, place, path, found),
            PathMatcher::Regex(regex) => expression(site, place, regex, found),
            _ => {}
        }
        nested(site, place, found);
    }
}

/// A prefix all of whose paths an expression takes.
fn prefix(site: &Site<'_>, place: usize, path: &str, found: &mut Vec<Mistake>) {
    if site.has_nested(place) {
        return;
    }
    // Expressions are asked level by level, from the inside; `^~` keeps those further out away.
    let mut level = place;
    loop {
        let parent = site.places[level].parent;
        let expressions = site.places.iter().filter(|other| other.parent == parent);
        let taking = expressions
            .filter_map(|other| match &other.location.matcher {
                PathMatcher::Regex(regex) => Some((other, regex)),
                _ => None,
            })
            .find(|(_, regex)| takes_all(regex, path));
        if let Some((other, _)) = taking {
            let taker = &other.location.matcher;
            let message =
                format!("no request gets here: the expression `{taker}` is asked first, and takes them");
            let mistake = Mistake::warning(site.places[place].path(), message).label("never asked");
            let help =
                format!("write `\"^~ {path}\"`, which keeps expressions away, or narrow the expression");
            found.push(mistake.also(other.path(), "all of its paths match here").help(help));
            return;
        }
        match parent.map(|parent| (parent, &site.places[parent].location.matcher)) {
            Some((parent, PathMatcher::Prefix(_))) => level = parent,
            _ => return,
        }
    }
}

/// An expression behind one that takes everything, or the same.
fn expression(site: &Site<'_>, place: usize, regex: &Regex, found: &mut Vec<Mistake>) {
    let own = &site.places[place];
    let before = site.places[..place].iter().filter(|other| other.parent == own.parent);
    let first = before
        .filter_map(|other| match &other.location.matcher {
            PathMatcher::Regex(first) => Some((other, first)),
            _ => None,
        })
        .find(|(_, first)| *first == regex || takes_all(first, "/"));
    let Some((other, first)) = first else { return };
    let (message, help) = match first == regex {
        true => (
            "no request gets here: the same expression stands further up, and the first one that matches wins",
            "delete one of the two locations",
        ),
        false => (
            "no request gets here: an expression further up matches every path, and the first one that matches wins",
            "write this location above the other one, or that as `path = \"/\"`",
        ),
    };
    let mistake = Mistake::warning(own.path(), message).label("never asked");
    found.push(mistake.also(other.path(), "this one takes its requests").help(help));
}

/// A nested location that requests never come to.
fn nested(site: &Site<'_>, place: usize, found: &mut Vec<Mistake>) {
    let own = &site.places[place];
    let Some(parent) = own.parent else { return };
    let outer = &site.places[parent];
    let mut say = |message: String, also: &super::Place<'_>, label: &str, help: String| {
        let mistake = Mistake::warning(own.path(), message).label("never asked");
        found.push(mistake.also(also.path(), label).help(help));
    };
    if let PathMatcher::Exact(path) = &outer.location.matcher {
        let message =
            format!("no request gets here: `= {path}` is this path alone, and nothing is searched in it");
        return say(
            message,
            outer,
            "nested in this one",
            "write it beside the other one, not inside of it".into(),
        );
    }
    let (Some(path), Some(outer_path)) = (own.location.matcher.prefix(), outer.location.matcher.prefix())
    else {
        return;
    };
    if !path.starts_with(outer_path) {
        let message =
            format!("no request gets here: only paths that start with `{outer_path}` are searched in it");
        let help = format!(
            "write the whole path, `{outer_path}{}`, or write the location beside the other one",
            path.trim_start_matches('/')
        );
        return say(message, outer, "nested in this one", help);
    }
    let siblings = site.places.iter().filter(|other| other.parent == outer.parent);
    let longer = siblings.filter(|other| match &other.location.matcher {
        PathMatcher::Prefix(longer) | PathMatcher::FinalPrefix(longer) => {
            longer.len() > outer_path.len() && path.starts_with(longer.as_str())
        }
        _ => false,
    });
    if let Some(longer) = longer.max_by_key(|other| other.location.matcher.path().len()) {
        let taker = longer.location.matcher.path();
        let message =
            format!("no request gets here: `{taker}` is found before what is nested in `{outer_path}`");
        say(message, longer, "the longer prefix wins", format!("write it inside of `{taker}`"));
    }
}

/// Whether an expression takes whatever a client may well ask for below a path. That is tried, not proven: with
/// paths of all kinds, and with the words of the expression itself, in case that it is about them that it says no.
fn takes_all(regex: &Regex, path: &str) -> bool {
    const PATHS: [&str; 8] =
        ["x", "x/y", "index.html", "app.js", "a/b.c/d", "v1/42", "Zq-7_~.9", "images/logo@2x.png"];
    let matches = |rest: &str| regex.is_match(format!("{}/{rest}", path.trim_end_matches('/')).as_bytes());
    if !PATHS.iter().all(|rest| matches(rest)) {
        return false;
    }
    let words = regex.as_str().split(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '_' | '-'));
    let mut words = words.filter(|word| !word.is_empty());
    words.all(|word| {
        [format!("{word}/x"), word.to_owned(), format!("x/{word}"), format!("x.{word}")]
            .iter()
            .all(|rest| matches(rest))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_takes_all_paths_or_leaves_some() {
        for (regex, path, expected) in [
            ("^/api", "/api/", true),
            ("^/api/", "/api/", true),
            ("^/api(/|$)", "/api", true),
            ("^/(api|app)/.+", "/api/", true),
            ("/", "/", true),
            ("", "/", true),
            (r"\.php$", "/", false),
            (r"\.(js|css|png)$", "/static/", false),
            ("^/api/v1", "/api/", false),
            ("^/(?!api)", "/", false),
            (r"^/user/\d+$", "/user/", false),
            (r"/\.", "/", false),
        ] {
            let compiled = Regex::new(regex, false, |_| 0).unwrap();
            assert_eq!(takes_all(&compiled, path), expected, "{regex} {path}");
        }
    }
}
