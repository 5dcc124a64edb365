//! `auth_request`: another location says whether a request may come.

use std::rc::Rc;

use super::limit;
use crate::client::Client;
use crate::config::AccessRules;
use crate::error::{ProxyError, Unauthorized};
use crate::exchange::{ErrorWay, Exchange, Way};
use crate::files::{self, Served as Filed};
use crate::forward;
use crate::reply::Reply;
use crate::routing::values::verbatim;
use crate::shared::Local;

/// What the other location has answered.
struct Answer {
    status: u16,
    /// The values of `WWW-Authenticate`.
    challenges: Vec<Vec<u8>>,
}

/// What one part of the way of the subrequest has come to.
enum Part {
    Answer(Answer),
    Elsewhere(Way),
}

/// Asks a path, as a GET without a body and with the fields of the request. Its answer goes to nobody; variables
/// are set from it, whatever it is.
///
/// # Errors
/// The answer is 401 or 403, or something else than yes and no. The client went away.
pub(super) async fn ask(
    local: &Rc<Local>,
    client: &mut Client,
    exchange: &mut Exchange,
    access: &AccessRules,
    path: &str,
) -> Result<(), ProxyError> {
    let parked = exchange.begin_subrequest();
    let answer = answer(local, client, exchange, path).await;
    let values = access.auth_request_set.iter().map(|(variable, template)| {
        let mut value = Vec::new();
        template.write(&mut value, &exchange.values(client), verbatim);
        (*variable, value)
    });
    let values: Vec<_> = values.collect();
    exchange.end_subrequest(parked);
    let Answer { status, challenges } = answer?;
    for (variable, value) in values {
        exchange.assign(variable, value);
    }
    match status {
        200..=299 => Ok(()),
        401 => {
            let why = "the subrequest of `auth_request` was answered 401";
            Err(ProxyError::Unauthorized(Box::new(Unauthorized { why, challenges })))
        }
        403 => Err(ProxyError::Forbidden("the subrequest of `auth_request` was answered 403")),
        other => Err(ProxyError::AuthRequest(other)),
    }
}

/// Follows the way of the subrequest to its end, over error pages, too.
async fn answer(
    local: &Rc<Local>,
    client: &mut Client,
    exchange: &mut Exchange,
    path: &str,
) -> Result<Answer, ProxyError> {
    let mut way = Way::Path(path.as_bytes().to_vec());
    loop {
        let error = match served(local, client, exchange, way).await {
            Ok(Part::Answer(answer)) => {
                return Ok(Answer { status: exchange.status_of(answer.status), ..answer });
            }
            Ok(Part::Elsewhere(next)) => {
                way = next;
                continue;
            }
            Err(error) if matches!(error.status(), 499) || matches!(error, ProxyError::Stopping) => {
                return Err(error);
            }
            Err(error) => error,
        };
        if !matches!(error, ProxyError::Returned(_)) {
            exchange.tell(client, &error);
        }
        way = match exchange.error_page(client, &error) {
            Some(ErrorWay::On(next)) => next,
            Some(ErrorWay::Redirect(status, _)) => return Ok(Answer { status, challenges: Vec::new() }),
            None => return Ok(Answer { status: error.status(), challenges: Vec::new() }),
        };
    }
}

/// Takes one part of the way. As in nginx the limits of the location hold, but nobody is asked whether the
/// subrequest may come.
async fn served(
    local: &Rc<Local>,
    client: &mut Client,
    exchange: &mut Exchange,
    way: Way,
) -> Result<Part, ProxyError> {
    let plain = |status| Part::Answer(Answer { status, challenges: Vec::new() });
    let verdict = exchange.take(client, way);
    if let Some(reply) = Reply::of_verdict(verdict, exchange, client)? {
        return Ok(plain(reply.status));
    }
    limit(local, client, exchange).await?;
    match files::answer(exchange, client)? {
        None => upstream(local, client, exchange).await.map(Part::Answer),
        Some(Filed::Elsewhere(way)) => Ok(Part::Elsewhere(way)),
        Some(Filed::Reply(reply)) => Ok(plain(reply.status)),
    }
}

/// What the upstream of the location says.
async fn upstream(
    local: &Rc<Local>,
    client: &mut Client,
    exchange: &mut Exchange,
) -> Result<Answer, ProxyError> {
    let answered = forward::ask(local, client, exchange, None).await?;
    let status = answered.head.status;
    let challenges = answered.head.fields.named("www-authenticate").map(<[u8]>::to_vec).collect();
    answered.discard(local, exchange);
    Ok(Answer { status, challenges })
}
