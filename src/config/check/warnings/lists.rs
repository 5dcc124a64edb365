//! Lists of rules with entries that are never asked, or that refuse nobody, and lists of fields that replace others.

use crate::config::error::Mistake;
use crate::config::file::{ForLocations, Named};

/// Looks at what is said at one level of the file.
pub(super) fn find(written: &ForLocations, found: &mut Vec<Mistake>) {
    let Some(access) = written.for_access.access.given() else { return };
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let entries: Vec<_> = access.get_ref().0.iter().map(|entry| (entry, words(entry.get_ref()))).collect();
    let is_all = |words: &[String]| words.get(1).is_some_and(|who| who == "all");
    if let Some(all) = entries.iter().position(|(_, words)| is_all(words))
        && let Some((behind, _)) = entries.get(all + 1)
    {
        let (all, _) = &entries[all];
        let message =
            format!("`{}` is never asked: the first rule that fits is the one that counts", behind.get_ref());
        let mistake = Mistake::warning(behind.span(), message).label("never asked");
        let help = format!("write `{}` behind all others", all.get_ref());
        found.push(mistake.also(all.span(), "this fits everybody").help(help));
    }
    // `allow all` opens on purpose what is closed further out.
    let opens = |words: &Vec<String>| words.first().is_some_and(|verb| verb == "allow") && !is_all(words);
    if !entries.is_empty() && entries.iter().all(|(_, words)| opens(words)) {
        let message = "nobody is refused: whom no rule fits may come, too";
        found.push(Mistake::warning(access.span(), message).help("write `\"deny all\"` behind the others"));
    }
}

/// `add_header` at a level that leaves out what a level further out adds; those stand from the inside to the
/// outside. nginx: whoever writes one inside loses all of those outside.
pub(super) fn replaced<'a>(
    own: &ForLocations,
    outer: impl Iterator<Item = &'a ForLocations>,
    found: &mut Vec<Mistake>,
) {
    let fields = |level: &'a ForLocations| level.for_responses.add_header.given();
    let (Some(own), Some(outer)) = (own.for_responses.add_header.given(), outer.filter_map(fields).next())
    else {
        return;
    };
    let Named(inner) = own.get_ref();
    // An empty table is no oversight.
    let Some((first, _)) = inner.first() else { return };
    let is_inside = |name: &str| inner.iter().any(|(other, _)| other.get_ref().eq_ignore_ascii_case(name));
    let missing = outer.get_ref().0.iter().map(|(name, _)| name).filter(|name| !is_inside(name.get_ref()));
    let names: Vec<_> = missing.clone().map(|name| format!("`{}`", name.get_ref())).collect();
    let Some(lost) = missing.into_iter().next() else { return };
    let verb = if names.len() == 1 { "is" } else { "are" };
    let message = format!(
        "{} {verb} not added here: this `add_header` replaces the one further out, as in nginx",
        names.join(", ")
    );
    let mistake =
        Mistake::warning(first.span(), message).also(lost.span(), "added only where nothing replaces it");
    let help = format!("write it here, too, or `{} = \"\"` if it is left out on purpose", lost.get_ref());
    found.push(mistake.help(help));
}
