//! Directives and their blocks, from the words of a file.

use std::collections::HashSet;
use std::iter::Peekable;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::lexer::{self, Broken, Item, Lexer, Token};
use super::{DEEPEST, Directive, File, Place, Word, wrong};
use crate::config::error::Mistake;
use crate::nginx::report::Report;

/// Reads files, and collects what is wrong with them.
pub(super) struct Reader {
    pub(super) files: Vec<File>,
    pub(super) mistakes: Vec<(usize, Mistake)>,
    pub(super) reports: Vec<Report>,
    pub(super) standard_types: bool,
    /// Where relative includes begin.
    pub(super) folders: Vec<PathBuf>,
    /// Included files that are being read, outermost first.
    pub(super) open: Vec<PathBuf>,
    /// Bytes of all files so far.
    pub(super) bytes: u64,
    /// Includes without a file that have been reported.
    pub(super) missing: HashSet<String>,
    /// Files whose end a quote has swallowed: nothing can be said of what is missing there.
    swallowed: HashSet<usize>,
}

/// How the words of a directive ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ended {
    Semicolon,
    Brace,
    /// With the `}` of the block around it, or with the file.
    Not,
}

/// The words of one file, and where the reader is in it.
struct Source<'a> {
    file: usize,
    text: &'a str,
    items: Peekable<Lexer<'a>>,
    /// The end of the last token.
    last: usize,
}

impl Reader {
    pub(super) fn new(folder: &Path) -> Self {
        let above = folder.join("..");
        Self {
            files: Vec::new(),
            mistakes: Vec::new(),
            reports: Vec::new(),
            standard_types: false,
            folders: vec![folder.to_owned(), above, PathBuf::from("/etc/nginx")],
            open: Vec::new(),
            bytes: 0,
            missing: HashSet::new(),
            swallowed: HashSet::new(),
        }
    }

    /// The directives of a text, and of what it includes.
    pub(super) fn file(&mut self, name: String, text: String, depth: usize) -> Vec<Directive> {
        let file = self.files.len();
        self.files.push(File { name, text: text.clone() });
        let mut source = Source { file, text: &text, items: Lexer::new(&text).peekable(), last: 0 };
        self.block(&mut source, None, depth)
    }

    /// The directives up to the end of a block, or of the file.
    fn block(&mut self, source: &mut Source<'_>, opened: Option<&Word>, depth: usize) -> Vec<Directive> {
        let mut directives = Vec::new();
        let mut comments: Vec<String> = Vec::new();
        loop {
            let Some((token, span)) = source.items.next() else {
                if let Some(opened) = opened.filter(|_| !self.swallowed.contains(&source.file)) {
                    self.mistake(source.file, wrong::never_closed(opened, source.text.len()));
                }
                return directives;
            };
            if source.gap(&span) > 1 {
                comments.clear();
            }
            source.last = span.end;
            match token {
                Ok(Token::Comment { text, own_line }) if own_line => comments.push(text),
                Ok(Token::Comment { .. }) => {}
                Ok(Token::Close) if opened.is_some() => return directives,
                Ok(Token::Close) => self.mistake(source.file, wrong::stray_close(span)),
                Ok(Token::End) => self.mistake(source.file, wrong::stray_semicolon(span)),
                Ok(Token::Open) => {
                    self.mistake(source.file, wrong::stray_open(span, source.text));
                    // What is in it may have mistakes of its own, but nobody could tell what it means.
                    self.skip_block(source);
                }
                Err(broken) => self.broken(source, broken, span),
                Ok(Token::Word { text, quoted, first_of_line }) => {
                    self.look_into(source, &span, quoted);
                    let place = Place { file: source.file, span };
                    let first = Word { text, quoted, place, first_of_line };
                    let comments = std::mem::take(&mut comments);
                    let ended = self.directive(source, first, comments, opened, depth, &mut directives);
                    if ended == Ended::Not {
                        return directives;
                    }
                }
            }
        }
    }

    /// The rest of a directive whose first word has been read.
    fn directive(
        &mut self,
        source: &mut Source<'_>,
        first: Word,
        comments: Vec<String>,
        parent: Option<&Word>,
        depth: usize,
        directives: &mut Vec<Directive>,
    ) -> Ended {
        let mut words = vec![first];
        let (ended, at) = self.words(source, &mut words, parent.is_some());
        self.without_elisions(&mut words);
        if words.is_empty() {
            return ended;
        }
        if ended == Ended::Not && self.swallowed.contains(&source.file) {
            // The quote has been reported.
        } else if ended == Ended::Not {
            self.mistake(source.file, wrong::no_semicolon(&words, at));
        } else if wrong::reads_like_a_note(&words) {
            self.mistake(source.file, wrong::note(&words));
        } else if let Some(next) = wrong::swallowed(&words, parent.map(|word| word.text.as_str())) {
            self.mistake(source.file, wrong::no_semicolon_before(&words, next));
            words.drain(..next);
        }
        let name = words.remove(0);
        let args = words;
        let block = (ended == Ended::Brace).then(|| self.body(source, &name, depth));
        let directive = Directive { name, args, block, comments };
        if directive.name() == "include" && directive.block.is_none() {
            directives.extend(self.include(directive, depth));
        } else {
            directives.push(directive);
        }
        ended
    }

    /// What stands in the braces of a directive.
    fn body(&mut self, source: &mut Source<'_>, name: &Word, depth: usize) -> Vec<Directive> {
        if name.text.ends_with("_by_lua_block") {
            source.skip_foreign();
            return Vec::new();
        }
        if depth >= DEEPEST {
            self.mistake(source.file, wrong::too_deep(name));
            self.skip_block(source);
            return Vec::new();
        }
        self.block(source, Some(name), depth + 1)
    }

    /// Words up to what ends them, and the place of that.
    fn words(&mut self, source: &mut Source<'_>, words: &mut Vec<Word>, in_block: bool) -> (Ended, usize) {
        loop {
            match source.items.peek() {
                None => return (Ended::Not, source.text.len()),
                Some((Ok(Token::Close), span)) => {
                    let at = span.start;
                    // Without a block around it the brace is reported by itself.
                    if in_block {
                        source.take();
                    }
                    return (Ended::Not, at);
                }
                Some(_) => {}
            }
            let Some((token, span)) = source.take() else { continue };
            match token {
                Ok(Token::End) => return (Ended::Semicolon, span.start),
                Ok(Token::Open) => return (Ended::Brace, span.start),
                Ok(Token::Word { text, quoted, first_of_line }) => {
                    self.look_into(source, &span, quoted);
                    words.push(Word {
                        text,
                        quoted,
                        place: Place { file: source.file, span },
                        first_of_line,
                    });
                }
                Ok(Token::Comment { .. } | Token::Close) => {}
                Err(broken) => self.broken(source, broken, span),
            }
        }
    }

    /// `...` stands in articles for lines that are left out.
    fn without_elisions(&mut self, words: &mut Vec<Word>) {
        while let Some(first) = words.first().filter(|word| matches!(word.text.as_str(), "..." | "…")) {
            let text = "it stands for lines that are not in the file: add what they say to the result";
            self.reports.push(Report::new(first.place.clone(), &first.text, text));
            words.remove(0);
        }
    }

    /// Words that nginx reads otherwise than their author, or that the result cannot have: paths, fields and
    /// texts are UTF-8 there.
    fn look_into(&mut self, source: &Source<'_>, span: &Range<usize>, quoted: bool) {
        let word = &source.text[span.clone()];
        let braces = || word.match_indices('{').any(|(at, _)| lexer::repetition(&word[at..]).is_some());
        if !quoted && braces() {
            self.mistake(source.file, wrong::bare_braces(word, span.clone()));
        }
        let at = word.find(char::REPLACEMENT_CHARACTER);
        if let Some(at) = at.map(|at| span.start + at) {
            self.mistake(source.file, wrong::foreign_byte(at));
        }
    }

    fn broken(&mut self, source: &Source<'_>, broken: Broken, span: Range<usize>) {
        if matches!(broken, Broken::Quote(_)) {
            self.swallowed.insert(source.file);
        }
        self.mistake(
            source.file,
            match broken {
                Broken::Quote(quote) => wrong::open_quote(quote, span),
                Broken::BehindQuote(next) => wrong::behind_quote(next, span),
            },
        );
    }

    /// To the `}` that belongs to a `{`.
    fn skip_block(&mut self, source: &mut Source<'_>) {
        let mut depth = 1_usize;
        while depth > 0 {
            match source.take() {
                None => return,
                Some((Ok(Token::Open), _)) => depth += 1,
                Some((Ok(Token::Close), _)) => depth -= 1,
                Some(_) => {}
            }
        }
    }

    pub(super) fn mistake(&mut self, file: usize, mistake: Mistake) {
        self.mistakes.push((file, mistake));
    }
}

impl Source<'_> {
    fn take(&mut self) -> Option<Item> {
        let item = self.items.next()?;
        self.last = item.1.end;
        Some(item)
    }

    /// How many line ends are between the last token and this one.
    fn gap(&self, span: &Range<usize>) -> usize {
        self.text.get(self.last..span.start).map_or(0, |gap| gap.matches('\n').count())
    }

    fn skip_foreign(&mut self) {
        // The opening brace is the last token taken, and nothing has been peeked behind it.
        let mut lexer = Lexer::at(self.text, self.last);
        lexer.skip_foreign_block();
        self.items = lexer.peekable();
    }
}
