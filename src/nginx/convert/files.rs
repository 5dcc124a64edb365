//! Files: where they are, and in which order they are tried.

use super::toml::Value;
use super::{Convert, Scope, paths, text};
use crate::nginx::parse::Directive;

/// `root`: relative paths begin at nginx's prefix.
pub fn root(convert: &mut Convert<'_>, scope: &mut Scope, directive: &Directive, key: &str) {
    folder(convert, scope, directive, key);
}

/// `alias`
pub fn alias(convert: &mut Convert<'_>, scope: &mut Scope, directive: &Directive, key: &str) {
    folder(convert, scope, directive, key);
}

fn folder(convert: &mut Convert<'_>, scope: &mut Scope, directive: &Directive, key: &str) {
    let path = paths::whole(directive.arg(0), &convert.prefix);
    if convert.mentions_unknown(directive, &[&path], "everything here is answered 503; write the folder anew")
    {
        return scope.refuse_for_unknown(directive);
    }
    scope.set(key, text(directive, path));
}

/// `try_files FILE … URI | =CODE | @name`
pub fn try_files(convert: &mut Convert<'_>, scope: &mut Scope, directive: &Directive, key: &str) {
    let texts: Vec<&str> = directive.texts().collect();
    if convert.mentions_unknown(directive, &texts, "everything here is answered 503; write it anew") {
        return scope.refuse_for_unknown(directive);
    }
    scope.set(
        key,
        super::Item::from(
            Value::List(texts.iter().map(|file| text(directive, *file)).collect()),
            super::origin(directive),
        ),
    );
}

/// `disable_symlinks off | on | if_not_owner [from=PART]`
pub fn disable_symlinks(convert: &mut Convert<'_>, scope: &mut Scope, directive: &Directive, key: &str) {
    super::settings::joined(convert, scope, directive, key);
}

/// `gzip_static`: there are no files that are compressed beforehand.
pub fn gzip_static(convert: &mut Convert<'_>, _: &mut Scope, directive: &Directive, _: &str) {
    match directive.arg(0) {
        "off" => convert.needless(
            directive,
            "gzip_static off",
            "compressed files beside the others are never looked for",
        ),
        _ => convert
            .report(directive, "files are compressed on their way, not beforehand; write `gzip = true`"),
    }
}

/// `autoindex`: a folder without an index file is answered 403.
pub fn autoindex(convert: &mut Convert<'_>, _: &mut Scope, directive: &Directive, _: &str) {
    match directive.arg(0) {
        "off" => convert.needless(directive, "autoindex off", "folders are never listed"),
        _ => convert.report(directive, "folders are not listed but answered 403; write an index file"),
    }
}
