//! Locations that nothing leads to, and content that is never come to.

use std::ops::Range;

use serde_spanned::Spanned;

use super::{Place, Site, steps, tables};
use crate::config::Content;
use crate::config::error::Mistake;
use crate::config::file::{Script, TextOr};
use crate::routing::location::PathMatcher;
use crate::routing::script::{Change, Step, Then};

/// Looks for what no request can come to.
pub(super) fn find(site: &Site<'_>, text: &str, found: &mut Vec<Mistake>) {
    for place in &site.places {
        named(place, text, found);
        internal(site, place, text, found);
        answered(place, found);
    }
    server(site, found);
}

/// A named location whose name stands nowhere else.
fn named(place: &Place<'_>, text: &str, found: &mut Vec<Mistake>) {
    let PathMatcher::Named(name) = &place.location.matcher else { return };
    if is_said(text, name, place) {
        return;
    }
    let message = format!("nothing leads to `{name}`");
    let help = format!(
        "write `error_page = \"502 = {name}\"` or `{{ if = \"…\", goto = \"{name}\" }}` where it is wanted, or delete it"
    );
    found.push(Mistake::warning(place.path(), message).help(help));
}

/// An internal location that nothing speaks of. An upstream can lead there, too, by `X-Accel-Redirect`.
fn internal(site: &Site<'_>, place: &Place<'_>, text: &str, found: &mut Vec<Mistake>) {
    let Some(written) = place.written.get_ref().internal.given().filter(|_| place.location.internal) else {
        return;
    };
    let is_proxying = site.places.iter().any(|other| matches!(other.location.content, Content::Proxy(_)));
    let Some(path) = place.location.matcher.prefix().filter(|_| !is_proxying) else { return };
    let path = if path.len() > 1 { path.trim_end_matches('/') } else { path };
    if is_said(text, path, place) {
        return;
    }
    let message =
        "nothing leads here: clients are answered 404, and no `rewrite` or `error_page` names the path";
    let help = format!("write `error_page = \"404 {path}\"` or a `rewrite` to it, or take `internal` away");
    found.push(Mistake::warning(written.span(), message).also(place.path(), "of this location").help(help));
}

/// Whether a word stands anywhere but in the path of the location itself, and in comments. What keys may name a
/// location is not asked: they all do it by its text.
fn is_said(text: &str, word: &str, place: &Place<'_>) -> bool {
    let own = place.path();
    let is_end = |c: char| !c.is_alphanumeric() && !matches!(c, '_' | '-');
    text.match_indices(word).any(|(at, _)| {
        let line = &text[text[..at].rfind('\n').map_or(0, |newline| newline + 1)..at];
        !own.contains(&at)
            && !line.trim_start().starts_with('#')
            && (word.len() == 1 || text[at + word.len()..].starts_with(is_end))
    })
}

/// A `return` in front of something that would answer, too.
fn answered(place: &Place<'_>, found: &mut Vec<Mistake>) {
    let file = place.written.get_ref();
    let content = [file.proxy_pass.given().map(Spanned::span), file.alias.given().map(Spanned::span)];
    let content = content.into_iter().flatten().next();
    let Some(content) = content.or_else(|| file.try_files.given().map(Spanned::span)) else { return };
    if super::slashes::breaks(&place.location.script) {
        return;
    }
    if let Some(span) = always_answers(&file.script) {
        let message = "no request gets here: the location has answered by its `return` before";
        let mistake = Mistake::warning(content, message).also(span, "this answers every request");
        found.push(mistake.help("delete one of them, or write the `return` in a step with an `if`"));
    }
}

/// Where a script answers every request that comes to its end.
fn always_answers(script: &Script) -> Option<Range<usize>> {
    script.r#return.given().map(Spanned::span).or_else(|| {
        steps(script).iter().find_map(|step| match step.get_ref() {
            TextOr::Table(table) if table.r#if.is_absent() => always_answers(&table.script),
            _ => None,
        })
    })
}

/// Whether a step may end the steps of a server without an answer.
fn leaves(steps: &[Step]) -> bool {
    steps.iter().any(|step| match step {
        Step::Break => true,
        Step::Rewrite(rewrite) => {
            matches!(rewrite.change, Change::Path { then: Then::Last | Then::Break, .. })
        }
        Step::If(_, steps) => leaves(steps),
        Step::Set(..) | Step::Return(_) | Step::Goto(_) => false,
    })
}

/// A server that answers by itself, or that has nothing to answer with.
fn server(site: &Site<'_>, found: &mut Vec<Mistake>) {
    let file = site.written.get_ref();
    let locations = tables(&file.location);
    let is_named = |place: &Place<'_>| matches!(place.location.matcher, PathMatcher::Named(_));
    let span = always_answers(&file.script).filter(|_| !leaves(&site.server.script));
    let first = site.places.iter().find(|place| !is_named(place));
    if let (Some(span), Some(first)) = (span, first) {
        let message = "no request comes to a location: the server answers all of them by itself";
        let mistake =
            Mistake::warning(span, message).also(first.path(), "the first of those that are never asked");
        found.push(
            mistake.help("write the `return` in a location with `path = \"/\"`, or delete the locations"),
        );
    }
    let outer = &site.server.locations[site.server.outer()];
    let has_own = !site.server.script.is_empty() || !matches!(outer.content, Content::Nothing);
    if !has_own && !locations.is_empty() && site.places.iter().all(is_named) {
        let message = "every request is answered 404: named locations are not found by a path";
        let help = "write a location with `path = \"/\"`";
        found.push(Mistake::warning(site.written.span(), message).label("in this one").help(help));
    }
}
