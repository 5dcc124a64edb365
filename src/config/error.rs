//! What is wrong in a configuration, where it stands, and what would be right.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::string::FromUtf8Error;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

/// The most mistakes that are shown; of more only the number is told.
const SHOWN: usize = 50;

/// One mistake in a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The bytes of the text that are at fault.
    pub span: Range<usize>,
    /// What is wrong.
    pub message: String,
    /// What stands under the marked bytes; may be empty.
    pub label: String,
    /// What would be right.
    pub help: Option<String>,
    /// A second place that has to do with it, and what it has to do with it.
    pub also: Option<(Range<usize>, String)>,
    /// How sure it is.
    pub kind: MistakeKind,
}

/// How a [`Mistake`] goes together with the others of the same file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MistakeKind {
    /// The text is not TOML here.
    Syntax,
    /// Wrong whatever else is, unless the syntax of its line is.
    Plain,
    /// Something is missing or stands in the wrong table: told only if the syntax of the whole file
    /// is right, because it may be no more than a consequence of what is not.
    Doubtful,
    /// A file that is named is not there, or is not what it has to be: on the machine where the
    /// configuration belongs it may be.
    OfFile,
    /// Not wrong, but most likely not what is meant: a warning.
    Surprising,
}

impl Mistake {
    /// A mistake with the place and what is wrong there.
    pub fn new(span: Range<usize>, message: impl Into<String>) -> Self {
        let message = visible(&message.into());
        Self { span, message, label: String::new(), help: None, also: None, kind: MistakeKind::Plain }
    }

    /// Adds what stands under the marked bytes.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = visible(&label.into());
        self
    }

    /// Adds what would be right.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(visible(&help.into()));
        self
    }

    /// Adds what would be right, if it is known.
    pub fn maybe_help(mut self, help: Option<impl Into<String>>) -> Self {
        self.help = help.map(|help| visible(&help.into()));
        self
    }

    /// Adds a second place.
    pub fn also(mut self, span: Range<usize>, label: impl Into<String>) -> Self {
        self.also = Some((span, visible(&label.into())));
        self
    }

    /// Something that can be, but will surprise.
    pub fn warning(span: Range<usize>, message: impl Into<String>) -> Self {
        Self::new(span, message).kind(MistakeKind::Surprising)
    }

    /// Says how sure it is.
    pub fn kind(mut self, kind: MistakeKind) -> Self {
        self.kind = kind;
        self
    }
}

/// Why there is no configuration: every mistake at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    source: Source,
    mistakes: Vec<Mistake>,
}

/// Where a configuration came from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    /// The file with its name and its text.
    File { name: String, text: String },
    /// A file that cannot be read: there is no text that a place could be shown in.
    Unreadable,
    /// The command line: messages name the flag themselves.
    Flags,
}

impl ConfigErrors {
    /// `None` if there are no mistakes, whatever warnings there are; else they are put in the order of the file, and those that
    /// are no more than a consequence of another one are left out.
    pub fn unless_empty(name: &str, text: &str, mistakes: Vec<Mistake>) -> Option<Self> {
        let source = Source::File { name: name.to_owned(), text: text.to_owned() };
        let mut errors = Self { source, mistakes }.placed();
        let start = |mistake: &Mistake| line_start(text, mistake.span.start);
        let syntax = errors.mistakes.iter().filter(|mistake| mistake.kind == MistakeKind::Syntax);
        let broken: HashSet<usize> = syntax.map(start).collect();
        errors.mistakes.retain(|mistake| match mistake.kind {
            MistakeKind::Syntax => true,
            MistakeKind::Plain | MistakeKind::OfFile => !broken.contains(&start(mistake)),
            MistakeKind::Doubtful => broken.is_empty(),
            MistakeKind::Surprising => false,
        });
        errors.sorted()
    }

    /// Each once, in the order of the file; `None` if there are none.
    fn sorted(mut self) -> Option<Self> {
        self.mistakes.sort_by_key(|mistake| (mistake.span.start, mistake.span.end));
        self.mistakes.dedup();
        (!self.mistakes.is_empty()).then_some(self)
    }

    /// With spans that the text has.
    fn placed(mut self) -> Self {
        let Source::File { text, .. } = &self.source else { return self };
        for mistake in &mut self.mistakes {
            mistake.span = within(text, &mistake.span);
            if let Some((span, _)) = &mut mistake.also {
                *span = within(text, span);
            }
        }
        self
    }

    /// The file cannot be read.
    pub fn unreadable(path: &Path, error: &io::Error) -> Self {
        let message = format!("cannot read {}: {error}", path.display());
        let help = match error.kind() {
            io::ErrorKind::NotFound => Some("name another file with `--config FILE` (HOPGATE_CONFIG)"),
            io::ErrorKind::PermissionDenied => Some("let the user that hopgate runs as read it"),
            io::ErrorKind::IsADirectory => Some("name the file in it"),
            _ => None,
        };
        Self { source: Source::Unreadable, mistakes: vec![Mistake::new(0..0, message).maybe_help(help)] }
    }

    /// Says what else there is to do if there is no such file.
    #[must_use]
    pub fn or(mut self, instead: &str) -> Self {
        if let (Source::Unreadable, [Mistake { help: Some(help), .. }]) =
            (&self.source, self.mistakes.as_mut_slice())
            && help.contains("--config")
        {
            *help = format!("{help}, or {instead}");
        }
        self
    }

    /// The file is not a text.
    pub fn not_utf8(name: &str, error: &FromUtf8Error) -> Self {
        let at = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
        let mistake = Mistake::new(at..at + 1, "the file is not UTF-8 text").label("no character");
        let source = Source::File { name: name.to_owned(), text };
        Self { source, mistakes: vec![mistake.help("save it as UTF-8")] }.placed()
    }

    /// The mistakes of a configuration that was made from the command line; `None` if there are none.
    pub(super) fn of_flags(mut mistakes: Vec<Mistake>) -> Option<Self> {
        mistakes.retain(|mistake| mistake.kind != MistakeKind::Surprising);
        (!mistakes.is_empty()).then_some(Self { source: Source::Flags, mistakes })
    }

    /// Calls the flags by the names that they were given by, as those of variables of the environment.
    pub fn naming(mut self, names: &[(&str, &str)]) -> Self {
        for mistake in self.mistakes.iter_mut().filter(|_| self.source == Source::Flags) {
            let named =
                names.iter().find_map(|(flag, name)| Some((name, mistake.message.strip_prefix(flag)?)));
            if let Some((name, rest)) = named {
                mistake.message = format!("{name}{rest}");
            }
        }
        self
    }

    /// Whether they are mistakes of the command line, not of a file.
    pub fn are_of_flags(&self) -> bool {
        self.source == Source::Flags
    }

    /// Whether all of them are of files that are named, and none of the text itself.
    pub fn are_of_files(&self) -> bool {
        self.mistakes.iter().all(|mistake| mistake.kind == MistakeKind::OfFile)
    }

    /// The mistakes in the order of the file; at least one.
    pub fn mistakes(&self) -> &[Mistake] {
        &self.mistakes
    }

    /// Every mistake with its line marked, then how many they are; for a terminal with `color`.
    pub fn render(&self, color: bool) -> String {
        let mut text = self.render_all(Level::ERROR, color);
        match self.mistakes.len() {
            _ if !matches!(self.source, Source::File { .. }) => text.truncate(text.trim_end().len()),
            1 => text.push_str("1 mistake"),
            count @ ..=SHOWN => text.push_str(&format!("{count} mistakes")),
            count => text.push_str(&format!("… and {} more: {count} mistakes", count - SHOWN)),
        }
        text.push('\n');
        text
    }

    /// As many as are shown, with an empty line behind each.
    fn render_all(&self, level: Level<'static>, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let mut text = String::new();
        for mistake in self.mistakes.iter().take(SHOWN) {
            text.push_str(&self.render_one(mistake, level.clone(), &renderer));
            text.push_str("\n\n");
        }
        text
    }

    /// The first mistake as `path:line:col: message`, and how many there are besides: for a log.
    pub fn summary(&self) -> String {
        let first = self.mistakes.first().map(|mistake| self.title(mistake)).unwrap_or_default();
        match self.mistakes.len() {
            0 | 1 => first,
            2 => format!("{first} (and 1 more mistake)"),
            count => format!("{first} (and {} more mistakes)", count - 1),
        }
    }

    fn title(&self, mistake: &Mistake) -> String {
        match &self.source {
            Source::File { name, text } => {
                let (line, column) = line_and_column(text, mistake.span.start);
                format!("{name}:{line}:{column}: {}", mistake.message)
            }
            Source::Unreadable | Source::Flags => mistake.message.clone(),
        }
    }

    fn render_one(&self, mistake: &Mistake, level: Level<'static>, renderer: &Renderer) -> String {
        if !matches!(self.source, Source::File { .. }) {
            return self.render_bare(mistake, renderer);
        }
        let mut group = level.primary_title(self.title(mistake)).elements(self.snippet(mistake));
        if let Some(help) = &mistake.help {
            group = group.element(Level::HELP.message(help));
        }
        renderer.render(&[group])
    }

    /// Where there is no line to be shown.
    fn render_bare(&self, mistake: &Mistake, renderer: &Renderer) -> String {
        let mut text = renderer.render(&[Group::with_title(Level::ERROR.primary_title(&mistake.message))]);
        if let Some(help) = &mistake.help {
            text.push('\n');
            text.push_str(&renderer.render(&[Group::with_title(Level::HELP.secondary_title(help))]));
        }
        text
    }

    /// The lines from the first to the last place of a mistake.
    fn snippet<'a>(&'a self, mistake: &'a Mistake) -> Option<Snippet<'a, annotate_snippets::Annotation<'a>>> {
        let Source::File { text, .. } = &self.source else { return None };
        let places = || std::iter::once(&mistake.span).chain(mistake.also.as_ref().map(|(span, _)| span));
        let start = line_start(text, places().map(|span| span.start).min()?);
        let last = places().map(|span| span.end).max()?;
        let end = text[last..].find('\n').map_or(text.len(), |length| last + length);
        let shift = |span: &Range<usize>| span.start - start..span.end - start;
        let label = |text: &'a str| (!text.is_empty()).then_some(text);
        let also = mistake
            .also
            .as_ref()
            .map(|(span, text)| AnnotationKind::Context.span(shift(span)).label(label(text)));
        let primary = AnnotationKind::Primary.span(shift(&mistake.span)).label(label(&mistake.label));
        let line = line_and_column(text, start).0;
        Some(Snippet::source(&text[start..end]).line_start(line).annotation(primary).annotations(also))
    }
}

/// What will surprise in a configuration that can be used all the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Warnings(Option<Box<ConfigErrors>>);

impl Warnings {
    /// The warnings among these, in the order of the file.
    pub(super) fn of(name: &str, text: &str, mistakes: &[Mistake]) -> Self {
        let surprising = |mistake: &&Mistake| mistake.kind == MistakeKind::Surprising;
        let mistakes: Vec<_> = mistakes.iter().filter(surprising).cloned().collect();
        if mistakes.is_empty() {
            return Self::default();
        }
        let source = Source::File { name: name.to_owned(), text: text.to_owned() };
        Self(ConfigErrors { source, mistakes }.placed().sorted().map(Box::new))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |all| all.mistakes.len())
    }

    /// Every warning with its line marked, and an empty line behind it; for a terminal with `color`.
    pub fn render(&self, color: bool) -> String {
        let Some(all) = &self.0 else { return String::new() };
        let mut text = all.render_all(Level::WARNING, color);
        if all.mistakes.len() > SHOWN {
            text.push_str(&format!("… and {} more warnings\n", all.mistakes.len() - SHOWN));
        }
        text
    }

    /// Each as `path:line:col: message`: for a log.
    pub fn summaries(&self) -> impl Iterator<Item = String> {
        self.0.iter().flat_map(|all| all.mistakes.iter().map(|mistake| all.title(mistake)))
    }

    /// The same as mistakes, for those who want none of it; `None` if there are none.
    pub fn into_errors(self) -> Option<ConfigErrors> {
        self.0.map(|all| *all)
    }
}

/// Plain text, as [`ConfigErrors::render`] without colour.
impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.render(false).trim_end())
    }
}

impl std::error::Error for ConfigErrors {}

/// Control characters would move the cursor of the terminal that they are printed on.
fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() && c != '\n' {
            true => shown.extend(c.escape_default()),
            false => shown.push(c),
        }
    }
    shown
}

/// A span that the text has, of whole characters, on one line.
fn within(text: &str, span: &Range<usize>) -> Range<usize> {
    let start = text.floor_char_boundary(span.start.min(text.len()));
    let end = text.ceil_char_boundary(span.end.clamp(start, text.len()));
    let line = text[start..end].find(['\n', '\r']).map_or(end, |length| start + length);
    start..line
}

fn line_start(text: &str, at: usize) -> usize {
    text[..at].rfind('\n').map_or(0, |newline| newline + 1)
}

/// Both count from 1; a column is a character, and no editor counts a byte order mark.
fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = &text[..at];
    let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
    let in_line = before[line_start(text, at)..].trim_start_matches('\u{feff}');
    (line, in_line.chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(text: &str, mistakes: Vec<Mistake>) -> ConfigErrors {
        ConfigErrors::unless_empty("a.toml", text, mistakes).unwrap()
    }

    #[test]
    fn a_mistake_is_shown_in_its_line_with_what_would_be_right() {
        let text = "[[server]]\nlistne = 80\n";
        let mistake =
            Mistake::new(11..17, "unknown key `listne`").label("not known here").help("write `listen`");
        assert_eq!(
            errors(text, vec![mistake]).render(false),
            "error: a.toml:2:1: unknown key `listne`\n  |\n2 | listne = 80\n  | ^^^^^^ not known here\n  |\n  = help: write `listen`\n\n1 mistake\n"
        );
    }

    #[test]
    fn a_second_place_is_shown_too() {
        let mistake = Mistake::new(6..7, "twice").label("again").also(0..1, "first here");
        let shown = errors("a = 1\na = 2\n", vec![mistake]).render(false);
        assert!(shown.contains("1 | a = 1\n  | - first here\n2 | a = 2\n  | ^ again"), "{shown}");
    }

    #[test]
    fn mistakes_are_sorted_and_said_once() {
        let twice = Mistake::new(3..4, "second");
        let all = errors("abcdef", vec![twice.clone(), Mistake::new(0..1, "first"), twice]);
        assert_eq!(all.mistakes().len(), 2);
        assert_eq!(all.summary(), "a.toml:1:1: first (and 1 more mistake)");
        assert!(all.to_string().ends_with("2 mistakes"));
    }

    #[test]
    fn a_byte_order_mark_is_no_column() {
        let all = errors("\u{feff}a = 1\n", vec![Mistake::new(3..4, "here")]);
        assert_eq!(all.summary(), "a.toml:1:1: here");
    }

    #[test]
    fn of_very_many_mistakes_the_first_ones_are_shown() {
        let text = "x\n".repeat(60_000);
        let mistakes = (0..60_000).map(|line| Mistake::new(2 * line..2 * line + 1, "wrong")).collect();
        let shown = errors(&text, mistakes).render(false);
        assert_eq!(shown.matches("error: ").count(), 50);
        assert!(shown.ends_with("\n\n… and 59950 more: 60000 mistakes\n"));
    }

    #[test]
    fn what_may_only_follow_from_a_syntax_error_is_left_out() {
        let mistakes = vec![
            Mistake::new(0..1, "syntax").kind(MistakeKind::Syntax),
            Mistake::new(1..2, "same line"),
            Mistake::new(4..5, "other line"),
            Mistake::new(4..5, "missing").kind(MistakeKind::Doubtful),
        ];
        let all = errors("ab\ncd", mistakes);
        let left: Vec<_> = all.mistakes().iter().map(|mistake| mistake.message.as_str()).collect();
        assert_eq!(left, ["syntax", "other line"]);
    }

    #[test]
    fn places_outside_of_the_text_and_inside_of_a_character_are_put_right() {
        for (text, span) in
            [("", 0..0), ("é", 1..1), ("é", 7..9), ("a\r\nb", 1..3), ("\u{1b}[31m", 0..3), ("a\n", 2..2)]
        {
            let shown = errors(text, vec![Mistake::new(span, "here\u{1b}[0m")]).render(false);
            assert!(shown.contains("a.toml:"), "{shown}");
            assert!(!shown.contains('\u{1b}'), "{shown:?}");
        }
    }
}
