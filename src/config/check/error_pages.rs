//! `error_page`: what is answered instead of an error.

use serde_spanned::Spanned;

use super::Check;
use crate::config::error::Mistake;
use crate::config::file::{OneOrMany, Value};
use crate::config::words::words;
use crate::config::{ErrorPage, PageStatus};

impl Check<'_> {
    pub(super) fn error_pages(&mut self, written: &Value<OneOrMany<String>>) -> Option<Vec<ErrorPage>> {
        let entries = &written.given()?.get_ref().0;
        Some(entries.iter().filter_map(|entry| self.error_page(entry)).collect())
    }

    fn error_page(&mut self, written: &Spanned<String>) -> Option<ErrorPage> {
        let page = match parts(written.get_ref()) {
            Ok(parts) => parts,
            Err(message) => {
                let help = "write `\"404 /404.html\"`, `\"500 502 503 504 /50x.html\"`, `\"404 =200 /empty\"` or \
                            `\"502 = @fallback\"`";
                self.mistakes
                    .push(Mistake::new(written.span(), format!("`error_page`: {message}")).help(help));
                return None;
            }
        };
        let (statuses, answer, to) = page;
        if to.starts_with('@') && !to.contains('$') {
            self.gotos.push(Spanned::new(written.span(), to.clone()));
        }
        let to = self.template(&Spanned::new(written.span(), to))?;
        Some(ErrorPage { statuses, answer, to })
    }
}

/// The statuses, the status of the answer, and where it comes from.
fn parts(text: &str) -> Result<(Vec<u16>, PageStatus, String), String> {
    let mut words = words(text.trim_end_matches(';'))?;
    let to = words.pop().filter(|to| !to.is_empty()).ok_or("it says nothing")?;
    let mut answer = PageStatus::OfError;
    if let Some(status) = words.last().and_then(|word| word.strip_prefix('=')) {
        answer = match status {
            "" => PageStatus::OfPage,
            status => PageStatus::Fixed(number(status, 200..=999)?),
        };
        words.pop();
    }
    let statuses: Vec<u16> = words.iter().map(|word| number(word, 300..=599)).collect::<Result<_, _>>()?;
    if statuses.is_empty() {
        return Err(format!("no error stands before `{to}`"));
    }
    if statuses.contains(&499) {
        return Err("there is nobody left to read an answer to 499".to_owned());
    }
    Ok((statuses, answer, to))
}

fn number(word: &str, range: std::ops::RangeInclusive<u16>) -> Result<u16, String> {
    let status = word.parse().ok().filter(|status| range.contains(status));
    status.ok_or_else(|| format!("`{word}` is not a status from {} to {}", range.start(), range.end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_an_error_page_are_told_apart() {
        let page = |text| parts(text).unwrap();
        assert_eq!(page("404 /404.html"), (vec![404], PageStatus::OfError, "/404.html".into()));
        assert_eq!(page("500 502 =200 /x"), (vec![500, 502], PageStatus::Fixed(200), "/x".into()));
        assert_eq!(page("502 = @app;"), (vec![502], PageStatus::OfPage, "@app".into()));
        for text in ["", "404", "/404.html", "200 /x", "600 /x", "499 /x", "404 =x /x", "= /x"] {
            assert!(parts(text).is_err(), "{text}");
        }
    }
}
