//! Moves bytes both ways until it ends and says why.
//!
//! A tunnel owns no buffer while it is idle: it waits for its sockets to become readable, borrows the
//! buffer of its worker for as long as one poll takes, and keeps only what a slow peer did not take. Bulk goes through a
//! pipe of its worker, and not through this process.

mod direction;
mod end;
pub mod pipe;

pub use end::TunnelEnd;

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Instant;

use crate::access::limit_conn::Counted;
use crate::io::{Pending, Stream};
use crate::log::Prepared;
use crate::routing::outcome::{Late, TunnelLine};
use crate::server::limits::Permit;
use crate::server::tasks::{Phase, TaskGuard};
use crate::shared::Local;
use crate::timer::Timer;
use crate::upstream::balance::Lease;
use direction::Direction;

/// The two ends of a tunnel, and what is on its way to each of them already.
#[derive(Debug)]
pub struct Ends {
    /// The client.
    pub client: Stream,
    /// Whether the client has sent its FIN already.
    pub client_has_ended: bool,
    /// The upstream.
    pub upstream: Stream,
    /// The 101, and what the upstream sent behind it.
    pub to_client: Pending,
    /// What the client sent behind its request.
    pub to_upstream: Pending,
    /// How many of these bytes are the tunnel's: the client's, the upstream's.
    pub read_ahead: (u64, u64),
}

/// How long a tunnel may be idle, linger and live; `None`: without limit.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Without a byte in either direction.
    pub idle: Option<Duration>,
    /// With one direction ended.
    pub linger: Duration,
    /// In all.
    pub age: Option<Duration>,
}

/// What is told of a tunnel at its end.
#[derive(Debug)]
pub struct Report {
    /// Its access lines, one for each log.
    pub lines: Box<[Prepared]>,
    /// Its number, that of the client's connection.
    pub id: u64,
    /// When its request began.
    pub started: Instant,
    /// The bytes of its request.
    pub head_received: u64,
    /// The bytes of its 101.
    pub head_sent: u64,
    /// The setting that the idle timeout came from.
    pub idle_setting: &'static str,
}

/// A direction that waits for its sink does not read, and so does not see a reset behind what is unread: when
/// nothing has moved for this long, the system is asked.
const LOOK_AFTER: Duration = Duration::from_secs(5);

/// What time will do to a tunnel.
enum Due {
    End(TunnelEnd),
    Look,
}

/// How long a tunnel that is ended by us may take to deliver what it holds and to see its peers close.
const CLOSING: Duration = Duration::from_secs(1);

/// A tunnel.
#[derive(Debug)]
pub struct Tunnel {
    client: Stream,
    upstream: Stream,
    to_upstream: Direction,
    to_client: Direction,
    limits: Limits,
    timer: Timer,
    /// Whether the timer was set for the limits.
    is_timed: bool,
    opened: Instant,
    /// When a byte last moved.
    last: Instant,
    /// When it was last asked whether the connections of a stalled tunnel are whole.
    looked: Instant,
    /// Which direction ended first, and when.
    first_end: Option<(TunnelEnd, Instant)>,
    /// When it is to end in a drain.
    drain_at: Option<Instant>,
    report: Box<Report>,
    local: Rc<Local>,
    task: TaskGuard,
    _counted: (Permit, Lease, Vec<Counted>),
}

impl Tunnel {
    /// Between two ends that have agreed to speak to each other.
    pub fn new(
        local: Rc<Local>,
        ends: Ends,
        limits: Limits,
        report: Report,
        held: (TaskGuard, (Permit, Lease, Vec<Counted>), Timer),
    ) -> Self {
        let now = Instant::now();
        local.shared.tunnels.fetch_add(1, Ordering::Relaxed);
        let (task, counted, timer) = held;
        Self {
            client: ends.client,
            upstream: ends.upstream,
            to_upstream: Direction::new(ends.to_upstream, ends.read_ahead.0, ends.client_has_ended),
            to_client: Direction::new(ends.to_client, ends.read_ahead.1, false),
            limits,
            timer,
            is_timed: false,
            opened: now,
            last: now,
            looked: now,
            first_end: None,
            drain_at: None,
            report: Box::new(report),
            local,
            task,
            _counted: counted,
        }
    }

    /// Runs to the end, closes both connections as the cause demands, and reports. Boxed, because a future
    /// keeps a place for what it was given beside the place where it uses it.
    pub async fn run(mut self: Box<Self>) {
        let end = poll_fn(|cx| self.poll(cx)).await;
        match end {
            TunnelEnd::ClientClosed | TunnelEnd::UpstreamClosed => {}
            TunnelEnd::Idle | TunnelEnd::Age | TunnelEnd::Drain => self.close().await,
            // An abnormal end stays one: neither peer may take what it got for the whole. A socket that was reset is
            // so already.
            TunnelEnd::ClientReset if self.client.is_socket() => self.upstream.reset(),
            TunnelEnd::UpstreamReset if self.upstream.is_socket() => self.client.reset(),
            TunnelEnd::ClientReset | TunnelEnd::UpstreamReset | TunnelEnd::Linger | TunnelEnd::Killed => {
                self.client.reset();
                self.upstream.reset();
            }
        }
        self.tell(end);
    }

    /// Ends both connections in good order as far as we are concerned: what was taken is delivered, then
    /// comes the FIN, and what the peers still send meanwhile is read, because a socket that is closed with
    /// unread bytes resets its connection. A peer that does not take what is pending in time is reset.
    async fn close(&mut self) {
        let deadline = Instant::now() + self.limits.linger.min(CLOSING);
        let mut told = (false, false);
        poll_fn(|cx| {
            let mut buffers = self.local.buffers.borrow_mut();
            let killed = self.task.phase(cx) == Phase::Killed;
            let (to_client, to_upstream) = (&mut self.to_client, &mut self.to_upstream);
            let client = say_goodbye(cx, to_client, &mut self.client, &mut told.0, &mut buffers.input);
            let upstream = say_goodbye(cx, to_upstream, &mut self.upstream, &mut told.1, &mut buffers.input);
            if killed || (client.is_ready() && upstream.is_ready()) {
                return Poll::Ready(());
            }
            self.timer.poll(cx, deadline)
        })
        .await;
        if self.to_client.has_pending() {
            self.client.reset();
        }
        if self.to_upstream.has_pending() {
            self.upstream.reset();
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<TunnelEnd> {
        match self.task.phase(cx) {
            Phase::Serving => {}
            Phase::Killed => return Poll::Ready(TunnelEnd::Killed),
            Phase::Draining(until) => self.plan_end(until),
        }
        let moved = {
            let buffers = &mut *self.local.buffers.borrow_mut();
            let client_was_reset = self.to_client.sink_was_reset();
            let up =
                self.to_upstream.poll(cx, &mut self.client, &mut self.upstream, buffers, client_was_reset);
            let upstream_was_reset = self.to_upstream.sink_was_reset();
            let down =
                self.to_client.poll(cx, &mut self.upstream, &mut self.client, buffers, upstream_was_reset);
            match (up, down) {
                (Err(_), _) => return Poll::Ready(TunnelEnd::ClientReset),
                (_, Err(_)) => return Poll::Ready(TunnelEnd::UpstreamReset),
                (Ok(up), Ok(down)) => up || down,
            }
        };
        if moved {
            self.last = Instant::now();
            self.note_first_end();
        }
        if let (true, true, Some((end, _))) =
            (self.to_upstream.has_ended(), self.to_client.has_ended(), self.first_end)
        {
            return Poll::Ready(end);
        }
        if self.is_timed && self.is_untroubled() && self.timer.is_running() {
            return Poll::Pending;
        }
        if !std::mem::replace(&mut self.is_timed, true) {
            // The handshake was waited for by it, and none of those limits is as far as the tunnel's.
            self.timer.forget();
        }
        loop {
            match self.deadline() {
                None => return Poll::Pending,
                Some((deadline, due)) => match (ready!(self.timer.poll(cx, deadline)), due) {
                    ((), Due::End(end)) => return Poll::Ready(end),
                    ((), Due::Look) if self.client.is_broken(cx) => {
                        return Poll::Ready(TunnelEnd::ClientReset);
                    }
                    ((), Due::Look) if self.upstream.is_broken(cx) => {
                        return Poll::Ready(TunnelEnd::UpstreamReset);
                    }
                    ((), Due::Look) => self.looked = Instant::now(),
                },
            }
        }
    }

    fn note_first_end(&mut self) {
        if self.first_end.is_none() {
            if self.to_upstream.source_has_ended() || self.to_client.is_cut() {
                self.first_end = Some((TunnelEnd::ClientClosed, self.last));
            } else if self.to_client.source_has_ended() || self.to_upstream.is_cut() {
                self.first_end = Some((TunnelEnd::UpstreamClosed, self.last));
            }
        }
    }

    /// The tunnels of a process do not all end in the same instant, or all their clients would come back
    /// in the same instant: each takes its own moment in the first third of the grace period.
    fn plan_end(&mut self, until: Instant) {
        if self.drain_at.is_none() {
            let now = Instant::now();
            let window = until.saturating_duration_since(now) / 3;
            self.drain_at = Some(now + window.mul_f64(fastrand::f64()));
        }
    }

    /// Whether none but its limits will end it, which as bytes move come later and never sooner: a timer that was set for
    /// them once tells of them.
    fn is_untroubled(&self) -> bool {
        self.first_end.is_none() && self.drain_at.is_none() && !self.is_stalled()
    }

    fn is_stalled(&self) -> bool {
        self.to_client.has_pending() || self.to_upstream.has_pending()
    }

    /// The next thing that time will do to the tunnel.
    fn deadline(&self) -> Option<(Instant, Due)> {
        let idle = self.limits.idle.map(|idle| (self.last + idle, Due::End(TunnelEnd::Idle)));
        let age = self.limits.age.map(|age| (self.opened + age, Due::End(TunnelEnd::Age)));
        let linger =
            self.first_end.map(|(_, since)| (since + self.limits.linger, Due::End(TunnelEnd::Linger)));
        let drain = self.drain_at.map(|at| (at, Due::End(TunnelEnd::Drain)));
        let look = self.is_stalled().then(|| (self.looked.max(self.last) + LOOK_AFTER, Due::Look));
        [idle, age, linger, drain, look].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    fn tell(&self, end: TunnelEnd) {
        let (report, cause) = (&self.report, end.as_str());
        if !report.lines.is_empty() {
            let late = Late {
                duration: report.started.elapsed(),
                head_received: report.head_received,
                received: self.to_upstream.delivered(),
                sent: report.head_sent + self.to_client.delivered(),
                body_sent: self.to_client.delivered(),
                tunnel: Some(TunnelLine { id: report.id.to_string(), end: Some(cause) }),
            };
            report.lines.iter().for_each(|line| self.local.lines.end(line, &late));
        }
        match end.setting(report.idle_setting) {
            Some(setting) => tracing::info!(tunnel = report.id, cause, "a tunnel was ended by `{setting}`"),
            None => tracing::debug!(tunnel = report.id, cause, "a tunnel ended"),
        }
    }
}

/// Delivers what is pending, sends the FIN, and reads on; `Ready` when the peer has closed, too.
fn say_goodbye(
    cx: &mut Context<'_>,
    direction: &mut Direction,
    stream: &mut Stream,
    told: &mut bool,
    buffer: &mut [u8],
) -> Poll<()> {
    ready!(direction.poll_flush(cx, stream));
    if !*told {
        ready!(stream.poll_shutdown_write(cx));
        *told = true;
    }
    while ready!(stream.poll_read(cx, buffer)).is_ok_and(|count| count > 0) {}
    Poll::Ready(())
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.local.shared.tunnels.fetch_sub(1, Ordering::Relaxed);
    }
}
