//! What is put in place of the matched part of a path, and the slash that is then there twice or not at all.

use serde_spanned::Spanned;

use super::{Place, Site};
use crate::config::error::Mistake;
use crate::routing::location::PathMatcher;
use crate::routing::script::{Change, Step, Then};

/// Looks at what `proxy_pass` and `alias` put in place of what a location matched.
pub(super) fn find(site: &Site<'_>, found: &mut Vec<Mistake>) {
    for place in &site.places {
        if let PathMatcher::Prefix(path) | PathMatcher::FinalPrefix(path) = &place.location.matcher {
            proxy_pass(place, path, found);
            alias(place, path, found);
        }
    }
}

fn proxy_pass(place: &Place<'_>, path: &str, found: &mut Vec<Mistake>) -> Option<()> {
    let written = place.written.get_ref().proxy_pass.given()?;
    // Behind a `rewrite … break` the URI part says nothing.
    let uri = place.location.proxy_pass()?.uri.as_deref().filter(|_| !breaks(&place.location.script))?;
    let base = uri.split('?').next().unwrap_or_default();
    let example = example(path, base)?;
    let url = written.get_ref().strip_suffix(uri).unwrap_or_default();
    let right = format!("proxy_pass = \"{url}{base}/{}\"", &uri[base.len()..]);
    found.push(mistake(place, written, &example, base, &right));
    None
}

fn alias(place: &Place<'_>, path: &str, found: &mut Vec<Mistake>) -> Option<()> {
    let written = place.written.get_ref().alias.given()?;
    let base = written.get_ref().as_str();
    let example = example(path, base)?;
    found.push(mistake(place, written, &example, base, &format!("alias = \"{base}/\"")));
    None
}

fn mistake(
    place: &Place<'_>,
    written: &Spanned<String>,
    example: &Example,
    base: &str,
    right: &str,
) -> Mistake {
    let (message, right) = match base.ends_with('/') {
        true => ("with a slash too many", format!("path = \"{}/\"", place.location.matcher)),
        false => ("without a slash between them", right.to_owned()),
    };
    let message = format!("`{}` becomes `{}`, {message}", example.asked, example.sent);
    let help = format!("write `{right}`: a path and what replaces it both end with `/`, or neither");
    let mistake = Mistake::warning(written.span(), message).label("put in place of the path");
    mistake.also(place.path(), "of which this is cut off").help(help)
}

/// A path, and what becomes of it.
struct Example {
    asked: String,
    sent: String,
}

/// `None` if nothing is odd. A path need not end where a part of it does: `/img-` may well be replaced by `/`.
fn example(path: &str, base: &str) -> Option<Example> {
    let ends_in_a_word = path.ends_with(|c: char| c.is_alphanumeric());
    match (path.ends_with('/'), base.ends_with('/')) {
        (false, true) if ends_in_a_word => {
            Some(Example { asked: format!("{path}/y"), sent: format!("{base}/y") })
        }
        (true, false) => Some(Example { asked: format!("{path}y"), sent: format!("{base}y") }),
        _ => None,
    }
}

/// Whether a step may change the path for good, in this very location.
pub(super) fn breaks(steps: &[Step]) -> bool {
    steps.iter().any(|step| match step {
        Step::Break => true,
        Step::Rewrite(rewrite) => matches!(rewrite.change, Change::Path { then: Then::Break, .. }),
        Step::If(_, steps) => breaks(steps),
        Step::Set(..) | Step::Return(_) | Step::Goto(_) => false,
    })
}
