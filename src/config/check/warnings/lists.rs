//! Lists of rules with entries that are never asked, or that refuse nobody.

use crate::config::error::Mistake;
use crate::config::file::ForLocations;

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
