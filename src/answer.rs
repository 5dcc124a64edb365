//! What the rules about answers need of an exchange.

use crate::client::ClientInfo;
use crate::exchange::Exchange;
use crate::headers::response::Fill;
use crate::headers::response::draft::Draft;
use crate::routing::regex::Regex;
use crate::routing::values::{Values, verbatim};
use crate::routing::variables::Template;

/// What the rules about answers are filled in with.
#[derive(Debug)]
pub struct Filling<'a> {
    /// The exchange.
    pub exchange: &'a Exchange,
    /// Its client.
    pub client: &'a ClientInfo,
}

impl Fill for Filling<'_> {
    fn text(&self, template: &Template, answer: &Draft<'_>) -> Vec<u8> {
        let values = Values { answer: Some(answer), ..self.exchange.values(self.client) };
        let mut text = Vec::new();
        template.write(&mut text, &values, verbatim);
        text
    }

    fn matches(&self, regex: &Regex, subject: &[u8]) -> bool {
        self.exchange.course().slots.matches(regex, subject)
    }

    fn absolute(&self, path: Vec<u8>) -> Vec<u8> {
        self.exchange.absolute(self.client, path)
    }
}

impl Exchange {
    /// Keeps of an answer that sends the request on what nginx keeps of it.
    pub(crate) fn keep_fields(&mut self, answer: &Draft<'_>) {
        const KEPT: &[&str] = &[
            "Content-Type",
            "Set-Cookie",
            "Content-Disposition",
            "Cache-Control",
            "Expires",
            "Accept-Ranges",
        ];
        let kept = answer.lines().iter().filter(|line| KEPT.iter().any(|name| line.is(name)));
        self.kept.extend(kept.map(|line| (line.name.to_vec(), line.value.to_vec())));
    }

    /// Whether there are such fields.
    pub(crate) fn has_kept_fields(&self) -> bool {
        !self.kept.is_empty()
    }

    /// Adds such fields to an answer. There is one type: the kept one if `replaces_type`.
    pub(crate) fn add_kept_fields(&self, answer: &mut Draft<'_>, replaces_type: bool) {
        for (name, value) in &self.kept {
            if !name.eq_ignore_ascii_case(b"content-type") {
                answer.push(name.clone(), value.clone());
            } else if replaces_type || answer.get("Content-Type").is_none() {
                answer.set("Content-Type", value.clone());
            }
        }
    }
}
