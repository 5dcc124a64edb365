//! What a request has to pass before its location deals with it: `limit`, then `check`.

pub mod limit_conn;
pub mod limit_req;
pub mod password;
pub mod rules;
mod subrequest;
pub mod user_file;

use std::future::poll_fn;
use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};
use std::task::Poll;
use std::thread::available_parallelism;
use std::time;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::client::{Client, ClientInfo, Watch};
use crate::config::{AuthBasic, Zones};
use crate::error::{ProxyError, Unauthorized};
use crate::exchange::Exchange;
use crate::headers::credentials::Credentials;
use crate::routing::values::verbatim;
use crate::routing::variables::Template;
use crate::server::tasks::Phase;
use crate::shared::Local;
use limit_conn::ConnCounts;
use limit_req::{Decision, ReqStates};
use rules::Verdict;
use user_file::UserFiles;

/// What the requests of the process are counted in.
#[derive(Debug, Default)]
pub struct Counters {
    req: Vec<ReqStates>,
    conn: Vec<ConnCounts>,
}

impl Counters {
    /// For the zones of a configuration; what the one before has counted is taken over.
    pub fn new(zones: &Zones, before: Option<&Counters>) -> Self {
        let (req, conn) = before.map_or((&[][..], &[][..]), |before| (&before.req, &before.conn));
        Self {
            req: zones.req.iter().map(|zone| ReqStates::new(zone.clone(), req)).collect(),
            conn: zones.conn.iter().map(|zone| ConnCounts::new(zone.clone(), conn)).collect(),
        }
    }
}

/// What looks at passwords share over all workers.
#[derive(Debug)]
pub struct Passwords {
    files: UserFiles,
    /// Hashes that are costly to compute take no more than half of the processors; others wait for their turn.
    turns: Arc<Semaphore>,
}

impl Default for Passwords {
    fn default() -> Self {
        let processors = available_parallelism().map_or(1, NonZeroUsize::get);
        Self { files: UserFiles::default(), turns: Arc::new(Semaphore::new(processors.div_ceil(2))) }
    }
}

/// Counts a request in its zones: `limit_req`, then `limit_conn`, in nginx's order. Only the first location
/// of a request with limits does so, however often the request is redirected within.
///
/// # Errors
/// One limit is reached, or the client went away while its request waited.
pub async fn limit(
    local: &Rc<Local>,
    client: &mut Client,
    exchange: &mut Exchange,
) -> Result<(), ProxyError> {
    exchange.ask_again_who_sent_it(client);
    limit_requests(local, client, exchange).await?;
    limit_concurrency(client, exchange)
}

async fn limit_requests(
    local: &Rc<Local>,
    client: &mut Client,
    exchange: &mut Exchange,
) -> Result<(), ProxyError> {
    let limits = &exchange.location().access.limit_req;
    if limits.list.is_empty() || exchange.outcome.limit_req.is_some() {
        return Ok(());
    }
    let (limits, zones) = (limits.clone(), &exchange.counters().req);
    let keys = keys(exchange, client, limits.list.iter().map(|limit| &zones[limit.zone].zone.key));
    let decision = limit_req::decide(&limits.list, zones, &keys, now());
    let dry = if limits.dry_run { ", dry run" } else { "" };
    let told = |place: usize, excess: i64| {
        let zone = &zones[limits.list[place].zone].zone.name;
        format!("request{dry}, excess: {}.{:03} by zone `{zone}`", excess / 1000, excess % 1000)
    };
    let (status, result) = match decision {
        Decision::Unlimited => return Ok(()),
        Decision::Pass => ("PASSED", Ok(None)),
        Decision::Delay(_, place, excess) if limits.dry_run => {
            tracing::info!("delaying {}", told(place, excess));
            ("DELAYED_DRY_RUN", Ok(None))
        }
        Decision::Delay(delay, place, excess) => {
            tracing::info!("delaying {}", told(place, excess));
            ("DELAYED", Ok(Some(delay)))
        }
        Decision::Reject(place, excess) if limits.dry_run => {
            tracing::warn!("limiting {}", told(place, excess));
            ("REJECTED_DRY_RUN", Ok(None))
        }
        Decision::Reject(place, excess) => {
            let what = format!("limiting {}", told(place, excess));
            ("REJECTED", Err(ProxyError::Limited(limits.status, what.into())))
        }
    };
    exchange.outcome.limit_req = Some(status);
    match result? {
        Some(delay) => wait(local, client, Some(delay), std::future::pending::<()>()).await.map(drop),
        None => Ok(()),
    }
}

fn limit_concurrency(client: &Client, exchange: &mut Exchange) -> Result<(), ProxyError> {
    let limits = &exchange.location().access.limit_conn;
    if limits.list.is_empty() || exchange.outcome.limit_conn.is_some() {
        return Ok(());
    }
    let (limits, zones) = (limits.clone(), &exchange.counters().conn);
    let keys = keys(exchange, client, limits.list.iter().map(|limit| &zones[limit.zone].zone.key));
    match limit_conn::enter(&limits.list, zones, &keys) {
        Ok(counted) if counted.is_empty() => {}
        Ok(counted) => {
            exchange.outcome.limit_conn = Some("PASSED");
            exchange.hold(counted);
        }
        Err(place) => {
            let zone = &zones[limits.list[place].zone].zone.name;
            let dry = if limits.dry_run { ", dry run," } else { "" };
            let what = format!("limiting connections{dry} by zone `{zone}`");
            exchange.outcome.limit_conn = Some(if limits.dry_run { "REJECTED_DRY_RUN" } else { "REJECTED" });
            if !limits.dry_run {
                return Err(ProxyError::Limited(limits.status, what.into()));
            }
            tracing::warn!("{what}");
        }
    }
    Ok(())
}

/// The values of the keys of a list of limits.
fn keys<'a>(
    exchange: &Exchange,
    client: &impl AsRef<ClientInfo>,
    templates: impl Iterator<Item = &'a Template>,
) -> Vec<Vec<u8>> {
    templates.map(|template| filled(template, exchange, client)).collect()
}

fn filled(template: &Template, exchange: &Exchange, client: &impl AsRef<ClientInfo>) -> Vec<u8> {
    let mut value = Vec::new();
    template.write(&mut value, &exchange.values(client), verbatim);
    value
}

/// Milliseconds of a clock that nobody sets.
fn now() -> u64 {
    static START: LazyLock<time::Instant> = LazyLock::new(time::Instant::now);
    u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Whether a request may come: by its address, its password and the subrequest, one of them or all
/// (`satisfy`), in nginx's order.
///
/// # Errors
/// Why it may not, or why that cannot be said.
pub async fn check(
    local: &Rc<Local>,
    client: &mut Client,
    exchange: &mut Exchange,
) -> Result<(), ProxyError> {
    let access = &exchange.location().access;
    if access.is_open() {
        return Ok(());
    }
    let access = access.clone();
    let mut all = Guards::new(access.any_is_enough);
    for guard in [Guard::Addresses, Guard::Password, Guard::Subrequest] {
        let answer = match guard {
            Guard::Addresses => by_address(exchange, client),
            Guard::Password => match &access.basic {
                Some(basic) => password(local, client, exchange, basic).await,
                None => None,
            },
            Guard::Subrequest => match &access.auth_request {
                Some(path) => Some(subrequest::ask(local, client, exchange, &access, path).await),
                None => None,
            },
        };
        if let Some(settled) = all.add(answer) {
            return settled;
        }
    }
    all.end()
}

/// What the guards of a location have said so far, put together as `satisfy` says.
#[derive(Debug)]
pub(crate) struct Guards {
    any_is_enough: bool,
    refused: Option<ProxyError>,
}

impl Guards {
    /// With `any_is_enough` one guard that lets a request pass is enough.
    pub(crate) fn new(any_is_enough: bool) -> Self {
        Self { any_is_enough, refused: None }
    }

    /// Adds the answer of a guard, `None` if it has nothing to say. What is returned settles it.
    pub(crate) fn add(&mut self, answer: Option<Result<(), ProxyError>>) -> Option<Result<(), ProxyError>> {
        match answer? {
            Ok(()) => self.any_is_enough.then_some(Ok(())),
            Err(error) if self.any_is_enough && matches!(error.status(), 401 | 403) => {
                self.refused = Some(louder(self.refused.take(), error));
                None
            }
            Err(error) => Some(Err(error)),
        }
    }

    /// All have been asked.
    pub(crate) fn end(self) -> Result<(), ProxyError> {
        self.refused.map_or(Ok(()), Err)
    }
}

/// What `access` says of the client.
pub(crate) fn by_address(
    exchange: &Exchange,
    client: &impl AsRef<ClientInfo>,
) -> Option<Result<(), ProxyError>> {
    let verdict = exchange.location().access.addresses.decide(exchange.client_ip(client))?;
    Some(match verdict {
        Verdict::Allow => Ok(()),
        Verdict::Deny => Err(ProxyError::Forbidden("the client's address is denied by `access`")),
    })
}

enum Guard {
    Addresses,
    Password,
    Subrequest,
}

/// As long as a password would help, the client is asked for one.
fn louder(before: Option<ProxyError>, now: ProxyError) -> ProxyError {
    match (before, now) {
        (Some(ProxyError::Unauthorized(mut asked)), ProxyError::Unauthorized(more)) => {
            asked.challenges.extend(more.challenges);
            ProxyError::Unauthorized(asked)
        }
        (Some(before @ ProxyError::Unauthorized(_)), _) => before,
        (_, now) => now,
    }
}

/// `None` if the value of the realm turns it off.
async fn password(
    local: &Rc<Local>,
    client: &mut Client,
    exchange: &Exchange,
    basic: &AuthBasic,
) -> Option<Result<(), ProxyError>> {
    Some(match challenge(exchange, client, basic)? {
        Err(error) => Err(error),
        Ok(Challenge { credentials, realm, file }) => match known(local, client, file, credentials).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(why)) => Err(unauthorized(why, &realm)),
            Err(error) => Err(error),
        },
    })
}

/// A password that is to be looked at.
pub(crate) struct Challenge {
    /// What was sent.
    pub(crate) credentials: Credentials,
    realm: Vec<u8>,
    /// The file of the users.
    pub(crate) file: Vec<u8>,
}

/// What is to be looked at; `Err` if nothing was sent. `None` if the value of the realm turns it off.
pub(crate) fn challenge(
    exchange: &Exchange,
    client: &impl AsRef<ClientInfo>,
    basic: &AuthBasic,
) -> Option<Result<Challenge, ProxyError>> {
    let realm = filled(&basic.realm, exchange, client);
    if realm == b"off" {
        return None;
    }
    Some(match Credentials::of(&exchange.request().head.fields) {
        None => Err(unauthorized("no user and password were sent", &realm)),
        Some(credentials) => {
            let file = filled(&basic.user_file, exchange, client);
            Ok(Challenge { credentials, realm, file })
        }
    })
}

/// Whether a file has this user with this password; if not, why.
async fn known(
    local: &Rc<Local>,
    client: &mut Client,
    file: Vec<u8>,
    credentials: Credentials,
) -> Result<Result<(), &'static str>, ProxyError> {
    let path = PathBuf::from(std::ffi::OsString::from_vec(file));
    let unreadable = |error| ProxyError::UserFile(Box::new((path.clone(), error)));
    let bytes = match local.shared.passwords.files.unchanged(&path).map_err(unreadable)? {
        Some(bytes) => bytes,
        None => {
            let (shared, path) = (Arc::clone(&local.shared), path.clone());
            let read = move || shared.passwords.files.read(&path);
            blocking(local, client, read).await?.map_err(unreadable)?
        }
    };
    let Some(stored) = user_file::stored(&bytes, &credentials.user) else {
        return Ok(Err("no such user is in the file of `auth_basic_user_file`"));
    };
    let is_right = if password::is_costly(stored) {
        let stored = stored.to_vec();
        blocking(local, client, move || password::is_right(&credentials.password, &stored)).await?
    } else {
        password::is_right(&credentials.password, stored)
    };
    Ok(if is_right { Ok(()) } else { Err("the password is wrong") })
}

fn unauthorized(why: &'static str, realm: &[u8]) -> ProxyError {
    // The realm may come from variables, and so from the client.
    let is_safe = |byte: &u8| !byte.is_ascii_control() && !matches!(byte, b'"' | b'\\');
    let realm: Vec<u8> = realm.iter().copied().filter(is_safe).collect();
    let challenge = [&b"Basic realm=\""[..], &realm, b"\""].concat();
    ProxyError::Unauthorized(Box::new(Unauthorized { why, challenges: vec![challenge] }))
}

/// Does something that takes long where it holds nobody up. If the client goes away meanwhile, it is done all
/// the same.
async fn blocking<T: Send + 'static>(
    local: &Rc<Local>,
    client: &mut Client,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ProxyError> {
    let turns = Arc::clone(&local.shared.passwords.turns);
    let done = async move {
        // The semaphore is never closed.
        let turn = turns.acquire_owned().await;
        let work = move || {
            let _turn = turn;
            work()
        };
        tokio::task::spawn_blocking(work).await
    };
    match wait(local, client, None, done).await? {
        Some(Ok(result)) => Ok(result),
        Some(Err(_)) | None => Err(ProxyError::Broken("a password could not be looked at")),
    }
}

/// Waits for something as long as the client is there, and no longer than a time: `None`.
async fn wait<T>(
    local: &Rc<Local>,
    client: &mut Client,
    most: Option<time::Duration>,
    event: impl Future<Output = T>,
) -> Result<Option<T>, ProxyError> {
    let started = Instant::now();
    let mut event = std::pin::pin!(event);
    poll_fn(|cx| {
        if let Poll::Ready(result) = event.as_mut().poll(cx) {
            return Poll::Ready(Ok(Some(result)));
        }
        if client.task.phase(cx) == Phase::Killed {
            return Poll::Ready(Err(ProxyError::Stopping));
        }
        if client.watch(cx, &mut local.buffers.borrow_mut().input) == Watch::Gone {
            return Poll::Ready(Err(ProxyError::ClientGone(None)));
        }
        let Some(most) = most else { return Poll::Pending };
        // A client that has sent its FIN is served for a moment more, as it is everywhere.
        match client.deadline(started, most, ProxyError::Stopping) {
            (deadline, ProxyError::Stopping) => client.timer.poll(cx, deadline).map(|()| Ok(None)),
            (deadline, gone) => client.timer.poll(cx, deadline).map(|()| Err(gone)),
        }
    })
    .await
}
