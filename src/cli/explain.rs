//! `hopgate explain`: what would become of a request, and why.

use std::io::{IsTerminal, Write};

use super::{EXIT_CONFIG, EXIT_DONE, ExplainArgs, file_or_default, report, wants_color};
use crate::config::Config;
use crate::explain::{Explanation, Question};

/// Explains one request and returns the exit code: whether it would be served.
pub fn explain(arguments: &ExplainArgs) -> u8 {
    let path = file_or_default(arguments.config.as_deref());
    let (config, places) = match Config::load_with_places(path) {
        Ok(loaded) => loaded,
        Err(errors) => return report(&errors),
    };
    let question = Question {
        url: arguments.url.clone(),
        method: arguments.method.clone(),
        fields: arguments.header.clone(),
        from: arguments.from,
    };
    let explanation = Explanation::of(&question, config, &places);
    let mut stdout = std::io::stdout();
    let text = match arguments.json {
        true => explanation.json(),
        false => explanation.text(wants_color() && stdout.is_terminal()),
    };
    // Nobody may be listening: the exit code says whether the request would be served.
    let _ = stdout.write_all(text.as_bytes());
    if explanation.is_served() { EXIT_DONE } else { EXIT_CONFIG }
}
