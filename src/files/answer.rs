//! What is sent of a file, and what is said about it.

use std::collections::VecDeque;
use std::fs::File;
use std::ops::Range;

use super::conditions::{self, Validators, Verdict};
use super::ranges::{self, Boundary, Parts};
use super::{FileError, OpenFile};
use crate::config::FileRules;
use crate::headers::fields::Fields;

/// The answer that a file makes.
#[derive(Debug)]
pub struct FileAnswer {
    /// 206, 304, or what the whole file is sent with: 200, unless it is an error page.
    pub status: u16,
    /// `Content-Type`; a 304 has none.
    pub content_type: Option<String>,
    /// `Content-Length`, of which a 304 says nothing.
    pub length: u64,
    /// Further fields, in their order.
    pub fields: Vec<(&'static str, String)>,
    /// What is sent; empty in a 304.
    pub body: FileBody,
}

/// The body of an answer: parts of one file, and what stands between them.
#[derive(Debug)]
pub struct FileBody {
    /// The file, open for reading.
    pub(super) file: File,
    /// One after the other.
    pub(super) pieces: VecDeque<Piece>,
}

/// A piece of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Bytes(Vec<u8>),
    /// Of the file.
    Part(Range<u64>),
}

impl Piece {
    fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Part(part) => part.end - part.start,
        }
    }
}

impl OpenFile {
    /// Makes the answer to a request with these fields. With 200 for a `status` its preconditions and ranges
    /// are looked at, as nginx's filters do; with another one the file is a page for that.
    ///
    /// # Errors
    /// A precondition does not hold, or no part that is asked for is there.
    pub fn answer(self, fields: &Fields, rules: &FileRules, status: u16) -> Result<FileAnswer, FileError> {
        let etag = rules.etag.then(|| conditions::etag(self.modified, self.size));
        if status != 200 {
            return Ok(self.page(status, etag));
        }
        let validators = Validators { modified: self.modified, etag: etag.as_deref() };
        let verdict = validators.judge(fields, rules.if_modified_since);
        let parts = match conditions::value(fields, "range") {
            Some(value) if validators.allow_ranges(fields) => {
                ranges::parse(value, self.size, rules.max_ranges)
            }
            _ => Parts::Whole,
        };
        let mut said = vec![("Last-Modified", conditions::date(self.modified))];
        said.extend(etag.map(|etag| ("ETag", etag)));
        match (verdict, parts) {
            (Verdict::Failed, _) => Err(FileError::Precondition),
            (Verdict::NotModified, _) => Ok(self.not_modified(said)),
            (Verdict::Send, Parts::Unsatisfiable) => Err(FileError::Range { size: self.size }),
            (Verdict::Send, Parts::Whole) => {
                said.extend((rules.max_ranges != Some(0)).then(|| ("Accept-Ranges", "bytes".to_owned())));
                let whole = Piece::Part(0..self.size);
                Ok(self.of_pieces(200, said, vec![whole]))
            }
            (Verdict::Send, Parts::Some(parts)) => Ok(self.partial(said, &parts)),
        }
    }

    /// The whole file; a status of another kind than 200 says nothing of its time, as in nginx.
    fn page(self, status: u16, etag: Option<String>) -> FileAnswer {
        let whole = Piece::Part(0..self.size);
        self.of_pieces(status, etag.map(|etag| ("ETag", etag)).into_iter().collect(), vec![whole])
    }

    fn not_modified(self, said: Vec<(&'static str, String)>) -> FileAnswer {
        let body = FileBody { file: self.file, pieces: VecDeque::new() };
        FileAnswer { status: 304, content_type: None, length: 0, fields: said, body }
    }

    fn partial(mut self, mut said: Vec<(&'static str, String)>, parts: &[Range<u64>]) -> FileAnswer {
        if let [part] = parts {
            said.push(("Content-Range", ranges::content_range(part, self.size)));
            return self.of_pieces(206, said, vec![Piece::Part(part.clone())]);
        }
        let boundary = Boundary::random();
        let content_type = std::mem::replace(&mut self.content_type, boundary.content_type());
        let size = self.size;
        let part = |part: &Range<u64>| {
            [Piece::Bytes(boundary.before(&content_type, part, size)), Piece::Part(part.clone())]
        };
        let mut pieces: Vec<Piece> = parts.iter().flat_map(part).collect();
        pieces.push(Piece::Bytes(boundary.end()));
        self.of_pieces(206, said, pieces)
    }

    fn of_pieces(self, status: u16, said: Vec<(&'static str, String)>, pieces: Vec<Piece>) -> FileAnswer {
        FileAnswer {
            status,
            content_type: Some(self.content_type),
            length: pieces.iter().map(Piece::len).sum(),
            fields: said,
            body: FileBody { file: self.file, pieces: pieces.into() },
        }
    }
}
