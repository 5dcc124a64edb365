//! Keys below the line of a table of fields: TOML makes fields of them.

use serde_spanned::Spanned;

use crate::config::error::Mistake;
use crate::config::file::{ForLocations, Level, Named, Value};

/// Looks at the tables of fields at one level of the file.
pub(super) fn find(written: &ForLocations, found: &mut Vec<Mistake>) {
    table("proxy_set_header", &written.proxy_set_header, found);
    table("add_header", &written.for_responses.add_header, found);
}

fn table<T>(key: &str, written: &Value<Named<T>>, found: &mut Vec<Mistake>) {
    let names = written.given().into_iter().flat_map(|fields| &fields.get_ref().0).map(|(name, _)| name);
    for name in names.filter(|name| is_key(name)) {
        let message = format!("`{}` is no setting here, but a field: it belongs to `{key}`", name.get_ref());
        let help =
            format!("write the line above that of the table `[….{key}]`, which goes on until the next one");
        found.push(Mistake::warning(name.span(), message).label("the name of a field").help(help));
    }
}

/// Fields have names with `-`, and some are called like a key without one: `Expires`.
fn is_key(name: &Spanned<String>) -> bool {
    name.get_ref().contains('_')
        && Level::ALL.iter().any(|level| level.keys().contains(&name.get_ref().as_str()))
}
