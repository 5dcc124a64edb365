//! `include`: other files, with globs.

use std::path::{Path, PathBuf};

use super::tree::Reader;
use super::{DEEPEST, Directive, LARGEST, MOST_FILES, read_text};
use crate::config::ConfigErrors;
use crate::config::error::Mistake;
use crate::nginx::report::Report;

/// Files of nginx that are there for `fastcgi_pass` and its like.
const GATEWAYS: &[&str] =
    &["fastcgi_params", "fastcgi.conf", "uwsgi_params", "scgi_params", "fastcgi-php.conf"];

impl Reader {
    /// The directives of the files that an `include` names. One that is not there is reported, and the
    /// rest is read all the same.
    pub(super) fn include(&mut self, directive: Directive, depth: usize) -> Vec<Directive> {
        let pattern = directive.arg(0).to_owned();
        let file_name = Path::new(&pattern).file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if file_name == "mime.types" {
            self.standard_types = true;
            return vec![directive];
        }
        if GATEWAYS.contains(&file_name) {
            let text = "its lines are for other gateways than HTTP, and none of them is in the result";
            self.reports.push(Report::new(directive.name.place.clone(), "include", text));
            return Vec::new();
        }
        let found = self.matching(&pattern);
        if found.is_empty() && !is_glob(&pattern) {
            self.report_missing(&directive, &pattern);
        }
        let mut directives = Vec::new();
        for path in found {
            if let Some(mistake) = self.too_much(&directive, &path) {
                self.mistake(directive.name.place.file, mistake);
                break;
            }
            match read_text(&path) {
                Ok(text) => {
                    self.bytes += text.len() as u64;
                    self.open.push(path.clone());
                    directives.extend(self.file(path.display().to_string(), text, depth + 1));
                    self.open.pop();
                }
                Err(error) => {
                    let text =
                        format!("{} cannot be read: {error}; import it again when it can", path.display());
                    self.reports.push(Report::new(directive.name.place.clone(), "include", &text));
                }
            }
        }
        directives
    }

    /// Files that match, in the order of their names as glob(3) has them.
    fn matching(&self, pattern: &str) -> Vec<PathBuf> {
        let path = Path::new(pattern);
        let candidates: Vec<PathBuf> = match path.is_absolute() {
            true => vec![path.to_owned()],
            false => self.folders.iter().map(|folder| folder.join(path)).collect(),
        };
        let found = candidates.iter().map(|candidate| globbed(candidate));
        found.into_iter().find(|found| !found.is_empty()).unwrap_or_default()
    }

    /// What speaks against reading another file.
    fn too_much(&self, directive: &Directive, path: &Path) -> Option<Mistake> {
        let wrong =
            |message: String| Mistake::new(directive.name.place.span.clone(), message).label("included here");
        if self.open.iter().any(|open| open == path) || self.open.len() >= DEEPEST {
            let message = format!("{} includes itself", path.display());
            return Some(wrong(message).help("delete one of the includes"));
        }
        let is_too_much = self.files.len() >= MOST_FILES || self.bytes > LARGEST;
        is_too_much.then(|| {
            wrong("there is more to include than any configuration has".to_owned())
                .help("import the files one by one")
        })
    }

    fn report_missing(&mut self, directive: &Directive, pattern: &str) {
        if !self.missing.insert(pattern.to_owned()) {
            return;
        }
        let text = match pattern.ends_with("/options-ssl-nginx.conf") {
            // All of it: versions, ciphers, and how sessions are resumed.
            true => format!(
                "{pattern} is not there, and needs not be: it is certbot's, for settings of TLS that hopgate has by itself"
            ),
            false => {
                format!("{pattern} is not there: what it says is not in the result; import it where it is")
            }
        };
        self.reports.push(Report::new(directive.name.place.clone(), "include", &text));
    }

    /// The mistakes of each file.
    pub(super) fn errors(&mut self) -> Vec<ConfigErrors> {
        super::by_file(&self.files, std::mem::take(&mut self.mistakes))
    }
}

fn is_glob(pattern: &str) -> bool {
    pattern.contains(['*', '?', '['])
}

fn globbed(path: &Path) -> Vec<PathBuf> {
    let options = glob::MatchOptions {
        case_sensitive: true,
        require_literal_separator: true,
        require_literal_leading_dot: true,
    };
    let Some(pattern) = path.to_str() else { return Vec::new() };
    if !is_glob(pattern) {
        return if path.is_file() { vec![path.to_owned()] } else { Vec::new() };
    }
    let found =
        glob::glob_with(pattern, options).map(|paths| paths.filter_map(Result::ok).collect::<Vec<_>>());
    let mut found = found.unwrap_or_default();
    found.retain(|path| path.is_file());
    found.sort();
    found
}
