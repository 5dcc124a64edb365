//! The steps of nginx's rewrite module: what `set`, `rewrite`, `if` and `return` do to a request, in their
//! order.

use super::regex::Regex;
use super::variables::{Template, Variable};

/// One step.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// `set`: gives a variable a value.
    Set(Assigned, Template),
    /// `rewrite`: changes the path, or sends the client elsewhere.
    Rewrite(Rewrite),
    /// `if`: further steps under a condition; without one they are a group.
    If(Option<Condition>, Vec<Step>),
    /// `return`: the answer.
    Return(Return),
    /// `break`: the steps end here, and the location stays.
    Break,
    /// On to a named location of the server.
    Goto(String),
}

/// What `set` may give a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assigned {
    /// `$args`: the query of the request.
    Args,
    /// A variable of the operator's.
    User(usize),
}

/// A `rewrite`.
#[derive(Debug, PartialEq, Eq)]
pub struct Rewrite {
    /// The line as the operator wrote it.
    pub written: String,
    /// What the path is held against.
    pub regex: Regex,
    /// What becomes of a path that matches.
    pub change: Change,
    /// Whether the query of the request is added behind that of the replacement; a `?` at the end of the
    /// replacement says no.
    pub adds_args: bool,
}

/// What a `rewrite` does.
#[derive(Debug, PartialEq, Eq)]
pub enum Change {
    /// Sends the client elsewhere: 302 or 301.
    Redirect {
        /// The status.
        status: u16,
        /// The value of `Location`.
        to: Template,
        /// Whether a `?` stands in it already.
        has_query: bool,
    },
    /// Gives the request another path.
    Path {
        /// The path.
        path: Template,
        /// The query, if the replacement has one.
        args: Option<Template>,
        /// What comes next.
        then: Then,
    },
}

/// How a `rewrite` that has changed the path goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// With the next step; a location is searched for the new path afterwards.
    Next,
    /// `last`: with the search of a location.
    Last,
    /// `break`: in this location.
    Break,
}

/// A `return`.
#[derive(Debug, PartialEq, Eq)]
pub struct Return {
    /// The status, from 200 to 999.
    pub status: u16,
    /// The body, or the `Location` of a redirect; `None`: nothing is written behind the status.
    pub text: Option<Template>,
}

/// The condition of an `if`.
#[derive(Debug, PartialEq, Eq)]
pub struct Condition {
    /// The text as the operator wrote it.
    pub written: String,
    /// What is asked.
    pub test: Test,
    /// Whether the answer is turned round: `!=`, `!~`, `!-f`.
    pub is_negated: bool,
}

/// What a condition asks.
#[derive(Debug, PartialEq, Eq)]
pub enum Test {
    /// Neither empty nor `0`.
    IsTrue(Variable),
    /// `=`
    Equals(Variable, Template),
    /// `~`, `~*`
    Matches(Variable, Regex),
    /// `-f`, `-d`, `-e`, `-x` of a path.
    File(FileTest, Template),
}

/// What is asked about a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileTest {
    /// `-f`: it is a regular file.
    File,
    /// `-d`: it is a directory.
    Directory,
    /// `-e`: it is there.
    Exists,
    /// `-x`: it can be executed.
    Executable,
}

/// An answer that a script gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A status; 400 and above are errors like any other.
    Status(u16),
    /// A text.
    Text(u16, Vec<u8>),
    /// The client is sent elsewhere.
    Redirect(u16, Vec<u8>),
}

/// The statuses that come with a `Location`.
pub fn is_redirect(status: u16) -> bool {
    matches!(status, 301 | 302 | 303 | 307 | 308)
}
