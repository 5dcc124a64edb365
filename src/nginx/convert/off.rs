//! Lines that change nothing in nginx, either: something is switched off, or belongs to what is not in use.

use super::Convert;
use crate::nginx::parse::Directive;

/// Names that begin with the first belong to the directive that is the second.
const PARTS: &[(&str, &str)] = &[
    ("sub_filter_", "sub_filter"),
    ("ssi_", "ssi"),
    ("autoindex_", "autoindex"),
    ("userid_", "userid"),
    ("image_filter_", "image_filter"),
    ("brotli_", "brotli"),
    ("proxy_store_access", "proxy_store"),
    ("mirror_request_body", "mirror"),
    ("limit_rate_after", "limit_rate"),
    ("proxy_cache_", "proxy_cache"),
    ("fastcgi_cache_", "fastcgi_cache"),
    ("uwsgi_cache_", "uwsgi_cache"),
    ("scgi_cache_", "scgi_cache"),
];

/// Whether a directive only switches something off.
pub(super) fn is_off(directive: &Directive) -> bool {
    let is_rate = matches!(directive.name(), "limit_rate" | "proxy_limit_rate" | "auth_delay");
    directive.block.is_none()
        && directive.args.len() == 1
        && (directive.arg(0) == "off" || is_rate && matches!(directive.arg(0), "0" | "0s"))
}

impl Convert<'_> {
    /// Whether a directive says more of another one that is nowhere in use.
    pub(super) fn is_of_nothing(&self, directive: &Directive) -> bool {
        let name = directive.name();
        let whole = PARTS.iter().find(|(start, _)| name.starts_with(start)).map(|(_, whole)| *whole);
        whole.is_some_and(|whole| name != "brotli_static" && !self.facts.in_use.contains(whole))
    }
}
