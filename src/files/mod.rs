//! Static files: which one answers a request, and what is told of it.

pub mod answer;
pub mod conditions;
mod error;
pub mod find;
pub mod open;
pub mod path;
pub mod ranges;
pub mod send;
pub mod try_files;

use crate::client::ClientInfo;
use crate::config::Content;
use crate::error::ProxyError;
use crate::exchange::{Exchange, Way};
use crate::reply::{Reply, ReplyBody};
use crate::routing::course::Event;
use crate::routing::values::verbatim;
use crate::routing::variables::Template;

pub use answer::{FileAnswer, FileBody};
pub use error::FileError;
pub use find::{Asked, Found, Look, OpenFile};
use try_files::Tried;

/// What a request comes to where there are files.
#[derive(Debug)]
pub enum Served {
    /// An answer.
    Reply(Reply),
    /// A way to go on.
    Elsewhere(Way),
}

/// What answers in a location without its upstream. `None`: it is for the upstream to answer.
///
/// # Errors
/// Why nothing does.
pub fn answer(
    exchange: &mut Exchange,
    client: &impl AsRef<ClientInfo>,
) -> Result<Option<Served>, ProxyError> {
    if let Some(tried) = tried(exchange, client)? {
        return Ok(Some(tried));
    }
    match exchange.location().content {
        Content::Proxy(_) => Ok(None),
        Content::Files => serve(exchange, client).map(Some),
        Content::Nothing => Err(ProxyError::NoLocation),
    }
}

/// Looks for what the `try_files` of the location say, if it has any. `None`: the request goes on in its
/// location, maybe with another path.
///
/// # Errors
/// Nothing is there, and they end with a status that is an error.
pub fn tried(exchange: &mut Exchange, client: &impl AsRef<ClientInfo>) -> Result<Option<Served>, ProxyError> {
    let Some(rules) = &exchange.location().files.try_files else { return Ok(None) };
    match ask(exchange, client, |asked| try_files::try_files(asked, rules)) {
        Ok(Tried::Found { uri, is_behind_alias }) => {
            exchange.go_on_with(uri, is_behind_alias);
            Ok(None)
        }
        Ok(Tried::Elsewhere(target)) => Ok(Some(Served::Elsewhere(Way::Path(target)))),
        Ok(Tried::Named(name)) => Ok(Some(Served::Elsewhere(Way::Named(name)))),
        Err(FileError::Tried(status)) if status < 400 => Ok(Some(Served::Reply(Reply::of_status(status)))),
        Err(error) => Err(ProxyError::File(error)),
    }
}

/// Finds what answers a request in a location with files.
///
/// # Errors
/// Why nothing does.
pub fn serve(exchange: &Exchange, client: &impl AsRef<ClientInfo>) -> Result<Served, ProxyError> {
    let rules = &exchange.location().files;
    Ok(match ask(exchange, client, find::find).map_err(ProxyError::File)? {
        // Nobody gets the answer to a subrequest; as in nginx the client's conditions are not for it.
        Found::File(_) if exchange.course().is_subrequest => Served::Reply(Reply::of_status(200)),
        Found::File(file) => {
            let fields = &exchange.request().head.fields;
            let answer = file.answer(fields, rules, exchange.status_of(200)).map_err(ProxyError::File)?;
            Served::Reply(Reply::from(answer))
        }
        Found::Directory(to) => Served::Reply(Reply::redirect(301, exchange.absolute(client, to))),
        Found::Index(path) => Served::Elsewhere(Way::Index(path)),
    })
}

fn ask<T>(exchange: &Exchange, client: &impl AsRef<ClientInfo>, answer: impl FnOnce(&Asked<'_>) -> T) -> T {
    let (course, request, values) = (exchange.course(), exchange.request(), exchange.values(client));
    answer(&Asked {
        rules: &exchange.location().files,
        method: course.method(request),
        uri: course.path(request),
        args: course.args(request),
        is_rewritten: course.is_broken,
        is_behind_alias: course.is_behind_alias,
        tell: &|look: Look<'_>| {
            let slash = if look.is_directory { &b"/"[..] } else { b"" };
            course.tell(|| Event::Looked([look.path, slash].concat(), look.is_there));
        },
        fill: &|template: &Template, out: &mut Vec<u8>| template.write(out, &values, verbatim),
    })
}

impl From<FileAnswer> for Reply {
    fn from(answer: FileAnswer) -> Self {
        let content_type = answer.content_type.map(|media_type| ("Content-Type", media_type.into_bytes()));
        let said = answer.fields.into_iter().map(|(name, value)| (name, value.into_bytes()));
        let fields = content_type.into_iter().chain(said).collect();
        Self {
            status: answer.status,
            fields,
            body: ReplyBody::File { file: answer.body, length: answer.length },
        }
    }
}
