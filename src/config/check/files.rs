//! Static files: where they are, what is tried, and what is told of them.

use std::collections::HashMap;
use std::sync::Arc;

use serde_spanned::Spanned;

use super::{Check, plain};
use crate::config::error::{Mistake, MistakeKind};
use crate::config::file::{ForFiles, Location, Named, OneOrMany, Value};
use crate::config::{
    Fallback, FileRoot, FileRules, IfModifiedSince, RefusedLinks, Replaced, Symlinks, TryEntry, TryFiles,
    Types,
};
use crate::routing::location::PathMatcher;
use crate::routing::variables::Template;

/// What is written at one level of the file; `None` is inherited.
#[derive(Clone, Default)]
pub(super) struct FileSettings {
    root: Option<FileRoot>,
    /// Whether there is meant to be one, right or not.
    is_rooted: bool,
    index: Option<Vec<Template>>,
    default_type: Option<String>,
    types: Option<Arc<Types>>,
    symlinks: Option<Symlinks>,
    etag: Option<bool>,
    if_modified_since: Option<IfModifiedSince>,
    max_ranges: Option<u64>,
}

impl FileSettings {
    /// What is not written here is as it is further out.
    pub(super) fn inside(self, outer: &Self) -> Self {
        Self {
            root: self.root.or_else(|| outer.root.clone()),
            is_rooted: self.is_rooted || outer.is_rooted,
            index: self.index.or_else(|| outer.index.clone()),
            default_type: self.default_type.or_else(|| outer.default_type.clone()),
            types: self.types.or_else(|| outer.types.clone()),
            symlinks: self.symlinks.or_else(|| outer.symlinks.clone()),
            etag: self.etag.or(outer.etag),
            if_modified_since: self.if_modified_since.or(outer.if_modified_since),
            max_ranges: self.max_ranges.or(outer.max_ranges),
        }
    }

    /// Whether there are any files, of this level or of one further out.
    pub(super) fn has_root(&self) -> bool {
        self.root.is_some()
    }

    /// Whether there are meant to be any.
    pub(super) fn is_rooted(&self) -> bool {
        self.is_rooted
    }

    /// With the defaults for what is written nowhere.
    pub(super) fn rules(self) -> FileRules {
        FileRules {
            root: self.root,
            index: self.index.unwrap_or_else(|| vec![Template::literal("index.html")]),
            try_files: None,
            default_type: self.default_type,
            types: self.types.unwrap_or_else(Types::built_in),
            symlinks: self.symlinks.unwrap_or_default(),
            etag: self.etag.unwrap_or(true),
            if_modified_since: self.if_modified_since.unwrap_or_default(),
            max_ranges: self.max_ranges,
        }
    }
}

impl Check<'_> {
    pub(super) fn file_settings(&mut self, written: &ForFiles) -> FileSettings {
        FileSettings {
            root: written.root.given().and_then(|root| self.root(root)),
            is_rooted: !written.root.is_absent(),
            index: self.index(&written.index),
            default_type: written
                .default_type
                .given()
                .and_then(|value| self.media_type(value, "default_type")),
            types: self.types(&written.types),
            symlinks: written.disable_symlinks.given().and_then(|value| self.symlinks(value)),
            etag: plain(&written.etag),
            if_modified_since: written
                .if_modified_since
                .given()
                .and_then(|value| self.if_modified_since(value)),
            max_ranges: plain(&written.max_ranges),
        }
    }

    /// What `alias` says in place of a `root`; locations nested in this one inherit it.
    pub(super) fn location_alias(
        &mut self,
        written: &Location,
        matcher: Option<&PathMatcher>,
        settings: &mut FileSettings,
    ) {
        let Some(alias) = written.alias.given() else { return };
        self.refuse_root(&written.for_locations.for_files.root, alias);
        settings.root = self.alias(alias, matcher);
        settings.is_rooted = true;
    }

    fn alias(&mut self, written: &Spanned<String>, matcher: Option<&PathMatcher>) -> Option<FileRoot> {
        let replaces = match matcher? {
            PathMatcher::Regex(_) => Replaced::Whole,
            PathMatcher::Named(_) => {
                let mistake =
                    Mistake::new(written.span(), "a named location has no path for `alias` to stand for");
                self.mistakes.push(mistake.help("write `root` instead: it goes before the whole path"));
                return None;
            }
            matcher => Replaced::Prefix(matcher.path().len()),
        };
        self.file_path(written, "alias").map(|path| FileRoot::Alias { path, replaces })
    }

    fn refuse_root(&mut self, root: &Value<String>, alias: &Spanned<String>) {
        let Some(root) = root.given() else { return };
        let mistake =
            Mistake::new(alias.span(), "a location has either `root` or `alias`").label("and `alias`");
        let help =
            "leave one of them out: `alias` stands for the path of the location, `root` goes before it";
        self.mistakes.push(mistake.also(root.span(), "`root`").help(help));
    }

    fn root(&mut self, written: &Spanned<String>) -> Option<FileRoot> {
        let text = written.get_ref().strip_suffix('/').filter(|text| !text.is_empty());
        let plain = text.map(|text| Spanned::new(written.span(), text.to_owned()));
        let template = self.file_path(plain.as_ref().unwrap_or(written), "root")?;
        // With `/` for a root the path of a request is that of the file.
        let template = if written.get_ref() == "/" { Template::literal("") } else { template };
        Some(FileRoot::Root(template))
    }

    /// A path of the file system, which may have variables in it.
    fn file_path(&mut self, written: &Spanned<String>, key: &str) -> Option<Template> {
        let text = written.get_ref().as_str();
        let wrong = |message: String, help: String| Mistake::new(written.span(), message).help(help);
        let mistake = if let Some(plain) = text.strip_suffix(';') {
            wrong(
                format!("`{key}`: there is no `;` at the end of a value"),
                format!("write `{key} = \"{plain}\"`"),
            )
        } else if ["document_root", "realpath_root", "request_filename"]
            .iter()
            .any(|own| text.contains(&format!("${own}")) || text.contains(&format!("${{{own}}}")))
        {
            let help = "write the path itself, or use another variable";
            wrong(format!("`{key}` cannot be made from itself"), help.to_owned())
        } else if !text.starts_with(['/', '$']) {
            let path = text.strip_prefix("~/").unwrap_or(text).trim_start_matches("./");
            let example = if path.is_empty() { "srv/www" } else { path };
            let help = format!("write the whole path, from `/` on, as in `{key} = \"/srv/{}\"`", example);
            wrong(format!("`{key}`: `{text}` is not a whole path"), help)
        } else if text.contains(char::is_control) {
            let help = format!("write a path as `{key} = \"/srv/www\"`");
            wrong(format!("`{key}`: no path has control characters"), help)
        } else {
            return self.template(written);
        };
        self.mistakes.push(mistake);
        None
    }

    fn index(&mut self, written: &Value<OneOrMany<String>>) -> Option<Vec<Template>> {
        let names = &written.given()?.get_ref().0;
        let mut index = Vec::with_capacity(names.len());
        for name in names {
            let text = name.get_ref();
            let words: Vec<&str> = text.trim_end_matches(';').split_whitespace().collect();
            let is_line = words.len() > 1 && words.iter().all(|word| word.contains('.'));
            if is_line || text.ends_with(';') || text.is_empty() {
                let words = if words.is_empty() { vec!["index.html"] } else { words };
                let mistake =
                    Mistake::new(name.span(), format!("`index`: `{text}` is not the name of a file"));
                self.mistakes.push(mistake.help(format!("write `index = {}`", listed(&words))));
            } else if text.split('/').any(|segment| segment == "..") {
                let mistake =
                    Mistake::new(name.span(), format!("`index`: `{text}` leads out of its directory"));
                self.mistakes
                    .push(mistake.help("write a path from `/` on, which is looked for as any other"));
            } else {
                index.extend(self.template(name));
            }
        }
        Some(index)
    }

    fn media_type(&mut self, written: &Spanned<String>, key: &str) -> Option<String> {
        let text = written.get_ref();
        let is_type = text.split_once('/').is_some_and(|(kind, rest)| {
            !kind.is_empty() && !rest.is_empty() && !text.contains(|c: char| c.is_control() || c == '$')
        });
        if is_type && !text.ends_with(';') {
            return Some(text.clone());
        }
        let mistake = Mistake::new(written.span(), format!("`{key}`: `{text}` is not a media type"));
        self.mistakes.push(mistake.help("write one as `\"text/plain\"` or `\"application/octet-stream\"`"));
        None
    }

    fn types(&mut self, written: &Value<Named<OneOrMany<String>>>) -> Option<Arc<Types>> {
        let mut types = Types::default();
        let mut places: HashMap<String, &Spanned<String>> = HashMap::new();
        for (name, extensions) in &written.given()?.get_ref().0 {
            let Some(media_type) = self.media_type(name, "types") else { continue };
            let media_type: Arc<str> = media_type.into();
            for extension in &extensions.get_ref().0 {
                let text = extension.get_ref();
                if text.is_empty()
                    || text.contains(|c: char| matches!(c, '.' | '/' | ';') || c.is_whitespace())
                {
                    let message = format!("`types`: `{text}` is not an extension");
                    let words: Vec<&str> =
                        text.split([' ', ';', '.']).filter(|word| !word.is_empty()).collect();
                    let words = if words.is_empty() { vec!["html"] } else { words };
                    let help = format!("write it without a dot: `\"{media_type}\" = {}`", listed(&words));
                    self.mistakes.push(Mistake::new(extension.span(), message).help(help));
                } else if let Some(first) = places.insert(text.to_ascii_lowercase(), extension) {
                    let mistake = Mistake::new(extension.span(), format!("`types`: `{text}` has two types"));
                    let mistake = mistake.label("again").also(first.span(), "first here");
                    self.mistakes.push(mistake.help("delete one of them"));
                } else {
                    types.add(text, Arc::clone(&media_type));
                }
            }
        }
        Some(Arc::new(types))
    }

    /// nginx: `disable_symlinks off;` or `on | if_not_owner [from=PART]`.
    fn symlinks(&mut self, written: &Spanned<String>) -> Option<Symlinks> {
        let (word, rest) = written.get_ref().split_once(' ').unwrap_or((written.get_ref(), ""));
        let refused = match word {
            "off" if rest.is_empty() => Some(RefusedLinks::None),
            "on" => Some(RefusedLinks::All),
            "if_not_owner" => Some(RefusedLinks::NotOwner),
            _ => None,
        };
        let from = rest.trim().strip_prefix("from=").filter(|from| !from.is_empty());
        let Some(refused) = refused.filter(|_| rest.is_empty() || from.is_some()) else {
            let message = format!("`disable_symlinks`: `{}` is not known", written.get_ref());
            let help = "write `\"off\"`, `\"on\"` or `\"if_not_owner\"`; behind the last two \
                        ` from=$document_root` may stand";
            self.mistakes.push(Mistake::new(written.span(), message).help(help));
            return None;
        };
        let from = match from {
            Some(from) => Some(self.template(&Spanned::new(written.span(), from.to_owned()))?),
            None => None,
        };
        Some(Symlinks { refused, from })
    }

    fn if_modified_since(&mut self, written: &Spanned<String>) -> Option<IfModifiedSince> {
        match written.get_ref().as_str() {
            "exact" => Some(IfModifiedSince::Exact),
            "before" => Some(IfModifiedSince::Before),
            "off" => Some(IfModifiedSince::Off),
            other => {
                let message = format!("`if_modified_since`: `{other}` is not known");
                let help = "write `\"exact\"`, `\"before\"` or `\"off\"`";
                self.mistakes.push(Mistake::new(written.span(), message).help(help));
                None
            }
        }
    }

    /// nginx: `try_files FILE ... URI | @NAME | =CODE;`.
    pub(super) fn try_files(
        &mut self,
        written: &Value<OneOrMany<String>>,
        settings: &FileSettings,
    ) -> Option<TryFiles> {
        let written = written.given()?;
        let entries = &written.get_ref().0;
        let [tried @ .., last] = entries.as_slice() else { return self.nothing_tried(written, "") };
        if tried.is_empty() {
            return self.nothing_tried(written, last.get_ref());
        }
        if !settings.is_rooted {
            let mistake =
                Mistake::new(written.span(), "`try_files` has no place to look in: there is no `root`");
            let help =
                "write `root = \"/srv/www\"` in the location, in its server, or at the top of the file";
            self.mistakes.push(mistake.help(help).kind(MistakeKind::Doubtful));
        }
        let entries = tried.iter().map(|entry| self.try_entry(entry)).collect::<Vec<_>>();
        let fallback = self.fallback(last)?;
        Some(TryFiles { entries: entries.into_iter().collect::<Option<_>>()?, fallback })
    }

    fn nothing_tried(&mut self, written: &Spanned<OneOrMany<String>>, only: &str) -> Option<TryFiles> {
        let mut words: Vec<&str> = only.trim_end_matches(';').split_whitespace().collect();
        match words.len() {
            0 => words = vec!["$uri", "=404"],
            1 if words[0].starts_with(['=', '@']) => words.insert(0, "$uri"),
            1 => words.push("=404"),
            _ => {}
        }
        let message = "`try_files` needs a path to try, and behind it what happens if nothing is there";
        let help = format!("write `try_files = {}`", listed(&words));
        self.mistakes.push(Mistake::new(written.span(), message).help(help));
        None
    }

    fn try_entry(&mut self, entry: &Spanned<String>) -> Option<TryEntry> {
        let text = entry.get_ref().as_str();
        let is_directory = text.ends_with('/');
        let path = text.strip_suffix('/').unwrap_or(text);
        let wrong = |message: String, help: String| Some(Mistake::new(entry.span(), message).help(help));
        let mistake = match text.chars().next() {
            Some('=' | '@') => {
                let help = "write it last, or leave out what stands behind it";
                wrong(
                    format!("`{text}` is not tried: it is what happens if nothing is there"),
                    help.to_owned(),
                )
            }
            Some('/' | '$') => None,
            _ => wrong(
                format!("`try_files`: `{text}` would never be found: paths below the root begin with `/`"),
                format!("write `\"/{text}\"`"),
            ),
        };
        if let Some(mistake) = mistake {
            self.mistakes.push(mistake);
            return None;
        }
        let path = self.template(&Spanned::new(entry.span(), path.to_owned()))?;
        Some(TryEntry { path, is_directory })
    }

    fn fallback(&mut self, last: &Spanned<String>) -> Option<Fallback> {
        let text = last.get_ref().as_str();
        let wrong = |message: String, help: &str| Mistake::new(last.span(), message).help(help.to_owned());
        let mistake = match text.chars().next() {
            Some('=') => match text[1..].parse::<u16>() {
                Ok(status @ (204 | 400..=599)) => return Some(Fallback::Status(status)),
                _ => wrong(format!("`try_files`: `{text}` is no status to end with"), "write `\"=404\"`"),
            },
            Some('@') if text.len() > 1 => {
                self.gotos.push(last.clone());
                return Some(Fallback::Named(text.to_owned()));
            }
            Some('/' | '$') => return self.template(last).map(Fallback::Uri),
            _ if text.contains("://") => wrong(
                format!("`try_files` cannot end with `{text}`: the request goes on inside of hopgate"),
                "write `\"@name\"`, and a location with `path = \"@name\"` and a `return` in it",
            ),
            _ => {
                let help = format!(
                    "write a path (`\"/{text}\"`), a named location (`\"@name\"`) or a status (`\"=404\"`)"
                );
                wrong(format!("`try_files` cannot end with `{text}`"), &help)
            }
        };
        self.mistakes.push(mistake);
        None
    }
}

/// Words as an array of texts; one stands alone.
fn listed(words: &[&str]) -> String {
    match words {
        [only] => format!("\"{only}\""),
        _ => format!("[{}]", words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ")),
    }
}
