//! Where static files are, and what is told of them.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, LazyLock};

use crate::files::path;
use crate::routing::variables::Template;

/// The static files of a location.
#[derive(Clone, Debug)]
pub struct FileRules {
    /// Where they are; `None`: there are none.
    pub root: Option<FileRoot>,
    /// Names that stand for their directory, in the order in which they are looked for. nginx: `index`.
    pub index: Vec<Template>,
    /// What is looked for instead of the path itself. nginx: `try_files`.
    pub try_files: Option<TryFiles>,
    /// The type where an extension has none; `None`: what is usual for a file or for a text. nginx:
    /// `default_type`.
    pub default_type: Option<String>,
    /// The types of extensions. nginx: `types`.
    pub types: Arc<Types>,
    /// What symbolic links are worth. nginx: `disable_symlinks`.
    pub symlinks: Symlinks,
    /// Whether answers have an `ETag`. nginx: `etag`.
    pub etag: bool,
    /// How `If-Modified-Since` is compared. nginx: `if_modified_since`.
    pub if_modified_since: IfModifiedSince,
    /// The most ranges of one answer: with more it is the whole file, and 0 knows no ranges. `None`: no
    /// limit. nginx: `max_ranges`.
    pub max_ranges: Option<u64>,
}

impl FileRules {
    /// The media type of what is sent for a path: that of its extension, else the default one, else
    /// `otherwise`. With nginx the text of a `return` has one in the same way.
    pub fn media_type<'a>(&'a self, uri: &[u8], otherwise: &'a str) -> &'a str {
        let known = self.types.of(path::extension(uri));
        known.or(self.default_type.as_deref()).unwrap_or(otherwise)
    }
}

/// Where the files of a location are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileRoot {
    /// A directory that paths stand below; without a slash at its end. nginx: `root`.
    Root(Template),
    /// What stands for a part of the path. nginx: `alias`.
    Alias {
        /// A path of the file system.
        path: Template,
        /// For which part it stands.
        replaces: Replaced,
    },
}

/// The part of a path that an `alias` stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replaced {
    /// So many bytes: the path of the location that the `alias` is written in.
    Prefix(usize),
    /// All of it, as in a location with a regular expression.
    Whole,
}

/// What is looked for instead of the path itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TryFiles {
    /// One after the other, at least one.
    pub entries: Vec<TryEntry>,
    /// What happens if nothing was there.
    pub fallback: Fallback,
}

/// One of several paths to look for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TryEntry {
    /// The path, below the root.
    pub path: Template,
    /// Whether it is to be a directory; else it must be none.
    pub is_directory: bool,
}

/// What happens if none of the `try_files` is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// `=404`
    Status(u16),
    /// `@name`, with its `@`.
    Named(String),
    /// `/path?query`: the request goes on as one for this.
    Uri(Template),
}

/// What symbolic links are worth.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Symlinks {
    /// Which of them are refused.
    pub refused: RefusedLinks,
    /// A path at whose links nobody looks, if what is asked for stands below it.
    pub from: Option<Template>,
}

/// Which symbolic links are refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RefusedLinks {
    /// None.
    #[default]
    None,
    /// All.
    All,
    /// Those that belong to another user than what they point to.
    NotOwner,
}

/// How `If-Modified-Since` is compared with the time of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IfModifiedSince {
    /// A file with another time has changed.
    #[default]
    Exact,
    /// A file with a later time has changed.
    Before,
    /// Not at all: every file has changed.
    Off,
}

/// The media types of file name extensions.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Types(HashMap<String, Arc<str>>);

/// Nobody wants to read all of them.
impl fmt::Debug for Types {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Types({})", self.0.len())
    }
}

impl Types {
    /// Those that hopgate knows: nginx's `mime.types`, and the few that browsers insist on beside them.
    pub fn built_in() -> Arc<Self> {
        static BUILT_IN: LazyLock<Arc<Types>> = LazyLock::new(|| {
            let mut types = Types::default();
            for (media_type, extensions) in KNOWN {
                let media_type: Arc<str> = (*media_type).into();
                for extension in extensions.split(' ') {
                    types.add(extension, Arc::clone(&media_type));
                }
            }
            Arc::new(types)
        });
        Arc::clone(&BUILT_IN)
    }

    /// The same as a table: a type, and the extensions that have it with blanks between them.
    pub fn known() -> &'static [(&'static str, &'static str)] {
        KNOWN
    }

    /// Gives an extension, without its dot and in any case, a type; what it had before, if anything.
    pub fn add(&mut self, extension: &str, media_type: Arc<str>) -> Option<Arc<str>> {
        self.0.insert(extension.to_ascii_lowercase(), media_type)
    }

    /// The type of an extension, without its dot and in any case.
    pub fn of(&self, extension: &[u8]) -> Option<&str> {
        let extension = std::str::from_utf8(extension).ok()?;
        let found = match extension.bytes().any(|byte| byte.is_ascii_uppercase()) {
            true => self.0.get(&extension.to_ascii_lowercase()),
            false => self.0.get(extension),
        };
        found.map(|media_type| &**media_type)
    }
}

/// A type, and the extensions that have it. All but the last group are nginx's `mime.types`, to the letter:
/// what moves over from nginx is answered as before. A table with more in it, as some crates have one, would
/// have browsers show what an nginx gave them to download.
const KNOWN: &[(&str, &str)] = &[
    ("text/html", "html htm shtml"),
    ("text/css", "css"),
    ("text/xml", "xml"),
    ("image/gif", "gif"),
    ("image/jpeg", "jpeg jpg"),
    ("application/javascript", "js"),
    ("application/atom+xml", "atom"),
    ("application/rss+xml", "rss"),
    ("text/mathml", "mml"),
    ("text/plain", "txt"),
    ("text/vnd.sun.j2me.app-descriptor", "jad"),
    ("text/vnd.wap.wml", "wml"),
    ("text/x-component", "htc"),
    ("image/avif", "avif"),
    ("image/png", "png"),
    ("image/svg+xml", "svg svgz"),
    ("image/tiff", "tif tiff"),
    ("image/vnd.wap.wbmp", "wbmp"),
    ("image/webp", "webp"),
    ("image/x-icon", "ico"),
    ("image/x-jng", "jng"),
    ("image/x-ms-bmp", "bmp"),
    ("font/woff", "woff"),
    ("font/woff2", "woff2"),
    ("application/java-archive", "jar war ear"),
    ("application/json", "json"),
    ("application/mac-binhex40", "hqx"),
    ("application/msword", "doc"),
    ("application/pdf", "pdf"),
    ("application/postscript", "ps eps ai"),
    ("application/rtf", "rtf"),
    ("application/vnd.apple.mpegurl", "m3u8"),
    ("application/vnd.google-earth.kml+xml", "kml"),
    ("application/vnd.google-earth.kmz", "kmz"),
    ("application/vnd.ms-excel", "xls"),
    ("application/vnd.ms-fontobject", "eot"),
    ("application/vnd.ms-powerpoint", "ppt"),
    ("application/vnd.oasis.opendocument.graphics", "odg"),
    ("application/vnd.oasis.opendocument.presentation", "odp"),
    ("application/vnd.oasis.opendocument.spreadsheet", "ods"),
    ("application/vnd.oasis.opendocument.text", "odt"),
    ("application/vnd.openxmlformats-officedocument.presentationml.presentation", "pptx"),
    ("application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", "xlsx"),
    ("application/vnd.openxmlformats-officedocument.wordprocessingml.document", "docx"),
    ("application/vnd.wap.wmlc", "wmlc"),
    ("application/wasm", "wasm"),
    ("application/x-7z-compressed", "7z"),
    ("application/x-cocoa", "cco"),
    ("application/x-java-archive-diff", "jardiff"),
    ("application/x-java-jnlp-file", "jnlp"),
    ("application/x-makeself", "run"),
    ("application/x-perl", "pl pm"),
    ("application/x-pilot", "prc pdb"),
    ("application/x-rar-compressed", "rar"),
    ("application/x-redhat-package-manager", "rpm"),
    ("application/x-sea", "sea"),
    ("application/x-shockwave-flash", "swf"),
    ("application/x-stuffit", "sit"),
    ("application/x-tcl", "tcl tk"),
    ("application/x-x509-ca-cert", "der pem crt"),
    ("application/x-xpinstall", "xpi"),
    ("application/xhtml+xml", "xhtml"),
    ("application/xspf+xml", "xspf"),
    ("application/zip", "zip"),
    ("application/octet-stream", "bin exe dll deb dmg iso img msi msp msm"),
    ("audio/midi", "mid midi kar"),
    ("audio/mpeg", "mp3"),
    ("audio/ogg", "ogg"),
    ("audio/x-m4a", "m4a"),
    ("audio/x-realaudio", "ra"),
    ("video/3gpp", "3gpp 3gp"),
    ("video/mp2t", "ts"),
    ("video/mp4", "mp4"),
    ("video/mpeg", "mpeg mpg"),
    ("video/quicktime", "mov"),
    ("video/webm", "webm"),
    ("video/x-flv", "flv"),
    ("video/x-m4v", "m4v"),
    ("video/x-mng", "mng"),
    ("video/x-ms-asf", "asx asf"),
    ("video/x-ms-wmv", "wmv"),
    ("video/x-msvideo", "avi"),
    // Not nginx's: browsers run no module and take no manifest of another type.
    ("application/javascript", "mjs"),
    ("application/manifest+json", "webmanifest"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extension_has_its_type_in_any_case() {
        let types = Types::built_in();
        for (extension, expected) in [
            ("html", Some("text/html")),
            ("HTML", Some("text/html")),
            ("Js", Some("application/javascript")),
            ("mjs", Some("application/javascript")),
            ("webmanifest", Some("application/manifest+json")),
            ("iso", Some("application/octet-stream")),
            ("", None),
            ("htmlx", None),
            ("\u{e9}", None),
        ] {
            assert_eq!(types.of(extension.as_bytes()), expected, "{extension}");
        }
        assert_eq!(types.of(b"\xff"), None);
    }

    #[test]
    fn every_built_in_extension_stands_once() {
        let mut types = Types::default();
        for (media_type, extensions) in KNOWN {
            for extension in extensions.split(' ') {
                assert_eq!(types.add(extension, (*media_type).into()), None, "{extension}");
            }
        }
    }
}
