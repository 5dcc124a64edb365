//! From the path of a request to one of the file system, which never leads out of where the files are.

use crate::config::{FileRoot, Replaced};
use crate::routing::variables::Template;

/// Writes a value with its variables filled in.
pub type Fill<'a> = &'a dyn Fn(&Template, &mut Vec<u8>);

/// The path leads, or may lead, out of where the files are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Astray;

/// Where the path of a request is looked for.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// Where the files are.
    pub root: &'a FileRoot,
    /// Whether `$uri` comes from a `try_files` behind an `alias` that stands for whole paths: then it stands
    /// behind the alias nevertheless.
    pub is_behind_alias: bool,
    /// Fills variables in.
    pub fill: Fill<'a>,
}

impl Place<'_> {
    /// `$document_root`: what `root` or `alias` says.
    pub fn document_root(&self) -> Vec<u8> {
        self.start().path
    }

    /// The path of the file system for a `$uri`: `$request_filename`.
    ///
    /// # Errors
    /// It would lead out of where the files are.
    pub fn file(&self, uri: &[u8]) -> Result<Vec<u8>, Astray> {
        match self.root {
            FileRoot::Root(_) => self.start().below(uri),
            FileRoot::Alias { replaces: Replaced::Prefix(length), .. } => {
                self.start().itself_or_below(uri.get(*length..).ok_or(Astray)?)
            }
            FileRoot::Alias { replaces: Replaced::Whole, .. } if self.is_behind_alias => {
                self.start().below(uri)
            }
            FileRoot::Alias { replaces: Replaced::Whole, .. } => self.start().itself_or_below(b""),
        }
    }

    /// The path of the file system for an entry of `try_files` that came out as `name`, and the `$uri` that
    /// it stands for.
    ///
    /// # Errors
    /// It would lead out of where the files are.
    pub fn tried(&self, uri: &[u8], name: &[u8], has_variables: bool) -> Result<(Vec<u8>, Vec<u8>), Astray> {
        match self.root {
            FileRoot::Root(_) => Ok((self.start().below(name)?, name.to_vec())),
            FileRoot::Alias { replaces: Replaced::Whole, .. } => {
                Ok((self.start().itself_or_below(name)?, name.to_vec()))
            }
            FileRoot::Alias { replaces: Replaced::Prefix(length), .. } => {
                let prefix = uri.get(..*length).ok_or(Astray)?;
                // `$uri` begins with what the alias stands for, and that is not written twice.
                let rest = name.strip_prefix(prefix).filter(|_| has_variables).unwrap_or(name);
                Ok((self.start().itself_or_below(rest)?, [prefix, rest].concat()))
            }
        }
    }

    fn start(&self) -> Start {
        let (FileRoot::Root(template) | FileRoot::Alias { path: template, .. }) = self.root;
        let mut path = Vec::with_capacity(128);
        (self.fill)(template, &mut path);
        let trusted = if template.as_literal().is_some() { path.len() } else { 0 };
        Start { path, trusted }
    }
}

/// `$document_root`: what `root` or `alias` says; empty without them.
pub fn document_root(root: Option<&FileRoot>, fill: Fill<'_>) -> Vec<u8> {
    root.map(|root| Place { root, is_behind_alias: false, fill }.document_root()).unwrap_or_default()
}

/// `$realpath_root`: the same without symbolic links; empty if there is no such directory.
pub fn realpath_root(root: Option<&FileRoot>, fill: Fill<'_>) -> Vec<u8> {
    use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

    let root = document_root(root, fill);
    let real = std::fs::canonicalize(std::ffi::OsStr::from_bytes(&root));
    real.map(|path| path.into_os_string().into_vec()).unwrap_or_default()
}

/// What `root` or `alias` says, with its variables filled in.
struct Start {
    path: Vec<u8>,
    /// So many bytes are as the operator has written them.
    trusted: usize,
}

impl Start {
    /// Something below it.
    fn below(self, rest: &[u8]) -> Result<Vec<u8>, Astray> {
        // `/srv/www` and `x` would be its neighbour `/srv/wwwx`.
        if rest.starts_with(b"/") { self.joined(rest) } else { Err(Astray) }
    }

    /// The path itself, or something below it.
    fn itself_or_below(self, rest: &[u8]) -> Result<Vec<u8>, Astray> {
        // nginx would serve `/srv/images-old/x` for `/img-old/x` with `location /img { alias /srv/images; }`.
        let is_inside = rest.is_empty() || rest.starts_with(b"/") || self.path.ends_with(b"/");
        if is_inside { self.joined(rest) } else { Err(Astray) }
    }

    /// A path that nobody can read in more than one way. Dot segments that are not the operator's come from
    /// a request: from `/img../x` with `location /img { alias /srv/images/; }`, nginx's best known trap, or
    /// from a variable.
    fn joined(mut self, rest: &[u8]) -> Result<Vec<u8>, Astray> {
        self.path.extend_from_slice(rest);
        let is_odd = is_dotted(&self.path[self.trusted..])
            || self.path.first() != Some(&b'/')
            || self.path.contains(&0);
        if is_odd { Err(Astray) } else { Ok(self.path) }
    }
}

/// Whether a segment of a path is `.` or `..`.
pub(super) fn is_dotted(path: &[u8]) -> bool {
    path.split(|byte| *byte == b'/').any(|segment| matches!(segment, b"." | b".."))
}

/// Writes a path as it stands in a URL: what RFC 3986 does not allow there is escaped, as in nginx, and so
/// are `#`, `%` and `?`.
pub fn escape(out: &mut Vec<u8>, path: &[u8]) {
    for &byte in path {
        if byte.is_ascii_alphanumeric() || b"-._~:/[]@!$&'()*+,;=".contains(&byte) {
            out.push(byte);
        } else {
            out.extend_from_slice(&[b'%', hex(byte >> 4), hex(byte & 15)]);
        }
    }
}

fn hex(digit: u8) -> u8 {
    b"0123456789ABCDEF"[usize::from(digit)]
}

/// The extension of the last segment of a path, without its dot; empty if it has none. As in nginx a name
/// that begins with its only dot has none.
pub fn extension(uri: &[u8]) -> &[u8] {
    let name = memchr::memrchr(b'/', uri).map_or(uri, |slash| &uri[slash + 1..]);
    match memchr::memrchr(b'.', name) {
        Some(dot) if dot > 0 => &name[dot + 1..],
        _ => b"",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::variables::{Part, Variable};
    use proptest::prelude::*;

    fn template(text: &str) -> Template {
        Template::parse(text).unwrap()
    }

    /// Fills in `$host` for every variable.
    fn with_host(host: &str) -> impl Fn(&Template, &mut Vec<u8>) {
        move |template, out| {
            for part in template.parts() {
                match part {
                    Part::Literal(text) => out.extend_from_slice(text.as_bytes()),
                    Part::Variable(Variable::Host) => out.extend_from_slice(host.as_bytes()),
                    Part::Variable(other) => panic!("{other:?}"),
                }
            }
        }
    }

    fn file(root: &FileRoot, host: &str, uri: &str) -> Result<String, Astray> {
        let place = Place { root, is_behind_alias: false, fill: &with_host(host) };
        place.file(uri.as_bytes()).map(|path| String::from_utf8(path).unwrap())
    }

    fn tried(root: &FileRoot, uri: &str, name: &str) -> Result<(String, String), Astray> {
        let place = Place { root, is_behind_alias: false, fill: &with_host("") };
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        place.tried(uri.as_bytes(), name.as_bytes(), true).map(|(path, uri)| (text(path), text(uri)))
    }

    fn alias(path: &str, replaced: &str) -> FileRoot {
        FileRoot::Alias { path: template(path), replaces: Replaced::Prefix(replaced.len()) }
    }

    #[test]
    fn a_root_stands_before_the_whole_path() {
        let root = FileRoot::Root(template("/srv/$host"));
        assert_eq!(file(&root, "a.example", "/x/y.html").unwrap(), "/srv/a.example/x/y.html");
        assert_eq!(file(&root, "a.example", "/").unwrap(), "/srv/a.example/");
        assert_eq!(file(&FileRoot::Root(template("")), "", "/x").unwrap(), "/x");
        assert_eq!(file(&FileRoot::Root(template("/a/./b/..")), "", "/x").unwrap(), "/a/./b/../x");
    }

    #[test]
    fn an_alias_stands_for_the_path_of_its_location() {
        assert_eq!(file(&alias("/data/", "/i/"), "", "/i/top.gif").unwrap(), "/data/top.gif");
        assert_eq!(file(&alias("/data", "/i"), "", "/i/top.gif").unwrap(), "/data/top.gif");
        assert_eq!(file(&alias("/data", "/i"), "", "/i").unwrap(), "/data");
        assert_eq!(file(&alias("/data/", "/i"), "", "/i/x").unwrap(), "/data//x");
        let whole = FileRoot::Alias { path: template("/data/$host.png"), replaces: Replaced::Whole };
        assert_eq!(file(&whole, "x", "/any/thing").unwrap(), "/data/x.png");
    }

    #[test]
    fn nothing_leads_out_of_the_root() {
        for (root, host, uri) in [
            (FileRoot::Root(template("/srv/$host")), "..", "/etc/passwd"),
            (FileRoot::Root(template("/srv/$host")), ".", "/x"),
            (FileRoot::Root(template("/srv/$host")), "a/../..", "/x"),
            (FileRoot::Root(template("$host")), "srv", "/x"),
            (FileRoot::Root(template("/srv")), "", "/../x"),
            (FileRoot::Root(template("/srv")), "", "/a/.."),
            (FileRoot::Root(template("/srv")), "", "/a\0.html"),
            (FileRoot::Root(template("/srv")), "", "x"),
            (FileRoot::Root(template("/srv")), "", ""),
            (alias("/data/", "/i"), "", "/i../x"),
            (alias("/data", "/i"), "", "/i-old/x"),
            (alias("/data/", "/images/"), "", "/i"),
            (FileRoot::Alias { path: template("/d/$host"), replaces: Replaced::Whole }, "../x", "/"),
        ] {
            assert_eq!(file(&root, host, uri), Err(Astray), "{root:?} {host} {uri}");
        }
    }

    #[test]
    fn what_is_tried_stands_below_the_root_and_gets_its_own_uri() {
        let root = FileRoot::Root(template("/srv"));
        assert_eq!(tried(&root, "/a", "/a.html").unwrap(), ("/srv/a.html".into(), "/a.html".into()));
        assert_eq!(tried(&root, "/a", "a.html"), Err(Astray));
        assert_eq!(tried(&root, "/a", "/../x"), Err(Astray));
        let (path, uri) = tried(&alias("/data/", "/i/"), "/i/x", "/i/x.png").unwrap();
        assert_eq!((&*path, &*uri), ("/data/x.png", "/i/x.png"));
        let (path, uri) = tried(&alias("/data", "/i"), "/i/x", "/none.png").unwrap();
        assert_eq!((&*path, &*uri), ("/data/none.png", "/i/none.png"));
    }

    #[test]
    fn a_path_is_escaped_as_nginx_does() {
        let mut out = Vec::new();
        escape(&mut out, "/a b?c#d%e\"<>\\^`{|}[]@!$&'()*+,;=:~\u{e9}\n".as_bytes());
        let expected = "/a%20b%3Fc%23d%25e%22%3C%3E%5C%5E%60%7B%7C%7D[]@!$&'()*+,;=:~%C3%A9%0A";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn an_extension_is_what_stands_behind_the_last_dot_of_a_name() {
        for (uri, expected) in [
            ("/a.html", "html"),
            ("/a.tar.GZ", "GZ"),
            ("/a", ""),
            ("/.html", ""),
            ("/x/.html", ""),
            ("/x.d/a", ""),
            ("/a.", ""),
            ("/", ""),
        ] {
            assert_eq!(extension(uri.as_bytes()), expected.as_bytes(), "{uri}");
        }
    }

    proptest! {
        /// Whatever a request makes of a root, resolving it step by step never leaves the root.
        #[test]
        fn no_request_leaves_the_root(host in "[./a]{0,6}", uri in "[./a%]{0,12}", aliased in any::<bool>()) {
            let root = if aliased { alias("/srv/www/$host", "/a") } else { FileRoot::Root(template("/srv/www/$host")) };
            for path in [file(&root, &host, &uri).ok(), tried(&root, "/a/x", &uri).ok().map(|(path, _)| path)].into_iter().flatten() {
                let mut depth = 0_i32;
                prop_assert!(path.starts_with("/srv/www/"), "{path}");
                for segment in path["/srv/www/".len()..].split('/') {
                    depth += match segment { "" | "." => 0, ".." => -1, _ => 1 };
                    prop_assert!(depth >= 0, "{}", path);
                }
            }
        }
    }
}
