//! `Content-Type`: its media type, which types a rule is for, and the charset that texts get.

use super::draft::Draft;

/// The types that a rule is for, as `gzip_types` and `charset_types` say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MediaTypes {
    /// All of them, even an answer without a type: `*`.
    Any,
    /// These, in lower case.
    These(Vec<String>),
}

/// nginx's `charset_types` without a line.
pub const CHARSET_TYPES: &[&str] = &[
    "text/html",
    "text/xml",
    "text/plain",
    "text/vnd.wap.wml",
    "application/javascript",
    "application/rss+xml",
];

impl MediaTypes {
    /// The types by their names.
    pub fn these(names: &[&str]) -> Self {
        Self::These(names.iter().map(|name| name.to_ascii_lowercase()).collect())
    }

    /// Whether the type of an answer is one of them.
    pub fn contain(&self, answer: &Draft<'_>) -> bool {
        match self {
            Self::Any => true,
            Self::These(types) => answer.get("Content-Type").is_some_and(|value| {
                let (media_type, _) = split(value);
                types.iter().any(|known| known.as_bytes().eq_ignore_ascii_case(media_type))
            }),
        }
    }
}

/// The type and the charset that a `Content-Type` tells. As in nginx other parameters belong to the type.
fn split(value: &[u8]) -> (&[u8], Option<&[u8]>) {
    for at in memchr::memchr_iter(b';', value) {
        let rest = value[at + 1..].trim_ascii_start();
        if rest.len() >= 8 && rest[..8].eq_ignore_ascii_case(b"charset=") {
            return (&value[..at], Some(&rest[8..]));
        }
    }
    (value, None)
}

/// Adds the charset to a type that tells none and that is one of `types`.
pub fn add_charset(answer: &mut Draft<'_>, types: &MediaTypes, charset: &[u8]) {
    // nginx leaves redirects alone: there were browsers that took it for that of the next page.
    if matches!(answer.status, 301 | 302) || charset.is_empty() || !types.contain(answer) {
        return;
    }
    let Some(value) = answer.get("Content-Type") else { return };
    if value.is_empty() || split(value).1.is_some() {
        return;
    }
    let told = [value, b"; charset=", charset].concat();
    answer.set("Content-Type", told);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_charset(status: u16, content_type: &'static str, types: &MediaTypes) -> String {
        let mut answer = Draft::new(status);
        answer.push(&b"content-type"[..], content_type.as_bytes());
        add_charset(&mut answer, types, b"utf-8");
        String::from_utf8(answer.get("Content-Type").unwrap().to_vec()).unwrap()
    }

    #[test]
    fn texts_without_a_charset_get_one_as_from_nginx() {
        let types = MediaTypes::these(CHARSET_TYPES);
        for (content_type, expected) in [
            ("text/html", "text/html; charset=utf-8"),
            ("Text/HTML", "Text/HTML; charset=utf-8"),
            ("text/html; charset=koi8-r", "text/html; charset=koi8-r"),
            ("text/html;  CHARSET=\"x\"", "text/html;  CHARSET=\"x\""),
            ("text/html; level=1", "text/html; level=1"),
            ("image/png", "image/png"),
            ("", ""),
        ] {
            assert_eq!(with_charset(200, content_type, &types), expected, "{content_type}");
        }
        assert_eq!(with_charset(302, "text/html", &types), "text/html");
        assert_eq!(with_charset(404, "image/png", &MediaTypes::Any), "image/png; charset=utf-8");
    }

    #[test]
    fn a_type_is_compared_without_its_charset() {
        let types = MediaTypes::these(&["text/html"]);
        for (content_type, expected) in [
            ("text/html;charset=x", true),
            ("TEXT/html", true),
            ("text/htm", false),
            ("text/html;a=b", false),
        ] {
            let mut answer = Draft::new(200);
            answer.push(&b"Content-Type"[..], content_type.as_bytes());
            assert_eq!(types.contain(&answer), expected, "{content_type}");
        }
        assert!(!types.contain(&Draft::new(200)) && MediaTypes::Any.contain(&Draft::new(200)));
    }
}
