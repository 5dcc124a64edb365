//! What becomes of the answers of a location on their way to the client, and of its requests upstream.

use crate::headers::FieldName;
use crate::headers::response::content_type::MediaTypes;
use crate::headers::response::expires::Expires;
use crate::routing::regex::Regex;
use crate::routing::variables::Template;

/// What a location changes about answers.
#[derive(Clone, Debug, Default)]
pub struct ResponseRules {
    /// Fields of the upstream's answers that go no further. nginx: `proxy_hide_header`.
    pub hidden: Vec<FieldName>,
    /// Fields that do, although they are hidden by default. nginx: `proxy_pass_header`.
    pub passed: Vec<FieldName>,
    /// Whether an `X-Accel-Redirect` is not followed. nginx: `proxy_ignore_headers`.
    pub ignores_accel_redirect: bool,
    /// Fields that every answer gets. nginx: `add_header`.
    pub added: Vec<AddedField>,
    /// What `Expires` and `Cache-Control` say; `None`: what they said before. nginx: `expires`.
    pub expires: Option<Expires>,
    /// What a `Content-Type` without a charset is given. nginx: `charset`.
    pub charset: Option<Charset>,
    /// What becomes of `Location` and `Refresh`; the first that fits is used. nginx: `proxy_redirect`.
    pub redirects: Vec<Substitution>,
    /// What becomes of the attributes of `Set-Cookie`.
    pub cookies: CookieRules,
    /// How bodies are compressed; `None`: not at all. nginx: `gzip`.
    pub gzip: Option<Gzip>,
}

/// A field that answers get.
#[derive(Clone, Debug)]
pub struct AddedField {
    /// Its name.
    pub name: FieldName,
    /// Its value; an empty one is not sent.
    pub value: Template,
    /// Whether answers with any status get it, not only those of success and of redirects.
    pub always: bool,
}

/// The charset of texts. Nothing is converted.
#[derive(Clone, Debug)]
pub struct Charset {
    /// Its name.
    pub name: Template,
    /// The types that get it. nginx: `charset_types`.
    pub types: MediaTypes,
}

/// A text that is replaced, and what by.
#[derive(Clone, Debug)]
pub struct Substitution {
    /// What is replaced.
    pub from: Pattern,
    /// What by.
    pub to: Template,
}

/// What a value is compared with.
#[derive(Clone, Debug)]
pub enum Pattern {
    /// A text; how it is compared depends on the rule.
    Text(Template),
    /// A regular expression.
    Regex(Regex),
}

/// What becomes of the attributes of `Set-Cookie`; of each list the first entry that fits is used.
#[derive(Clone, Debug, Default)]
pub struct CookieRules {
    /// For `Path`, which begins with the text. nginx: `proxy_cookie_path`.
    pub paths: Vec<Substitution>,
    /// For `Domain`, which is the text. nginx: `proxy_cookie_domain`.
    pub domains: Vec<Substitution>,
    /// For cookies by their name. nginx: `proxy_cookie_flags`.
    pub flags: Vec<CookieFlags>,
}

/// Which flags a cookie gets or loses.
#[derive(Clone, Debug)]
pub struct CookieFlags {
    /// The name of the cookie, in any case.
    pub cookie: Pattern,
    /// `secure`, `nosecure`, `httponly` …; what is none of them at run time is ignored.
    pub flags: Vec<Template>,
}

/// How bodies are compressed.
#[derive(Clone, Debug)]
pub struct Gzip {
    /// From 1 to 9. nginx: `gzip_comp_level`.
    pub level: u32,
    /// The types that are. nginx: `gzip_types`.
    pub types: MediaTypes,
    /// Shorter bodies are not, in bytes; one of unknown length is. nginx: `gzip_min_length`.
    pub min_length: u64,
    /// What is compressed for another proxy. nginx: `gzip_proxied`.
    pub proxied: Vec<GzipProxied>,
    /// Whether `Vary: Accept-Encoding` is sent. nginx: `gzip_vary`.
    pub vary: bool,
    /// Whether clients of HTTP/1.0 get compressed bodies. nginx: `gzip_http_version`.
    pub http10: bool,
}

/// Answers to requests that came through a proxy, as nginx tells by `Via`, which are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GzipProxied {
    /// None of them.
    Off,
    /// With an `Expires` in the past.
    Expired,
    /// With `Cache-Control: no-cache`.
    NoCache,
    /// With `Cache-Control: no-store`.
    NoStore,
    /// With `Cache-Control: private`.
    Private,
    /// Without `Last-Modified`.
    NoLastModified,
    /// Without `ETag`.
    NoEtag,
    /// To requests with `Authorization`.
    Auth,
    /// All of them.
    Any,
}

/// What a location changes about requests for the upstream.
#[derive(Clone, Debug)]
pub struct RequestRules {
    /// The method; `None`: the client's. nginx: `proxy_method`.
    pub method: Option<Template>,
    /// Whether the client's fields are sent. nginx: `proxy_pass_request_headers`.
    pub pass_headers: bool,
    /// Whether the client's body is sent. nginx: `proxy_pass_request_body`.
    pub pass_body: bool,
}

impl Default for RequestRules {
    fn default() -> Self {
        Self { method: None, pass_headers: true, pass_body: true }
    }
}
