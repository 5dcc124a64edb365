//! Moves bytes both ways until it ends and says why.
//!
//! A tunnel owns no buffer while it is idle: it waits for its sockets to become readable, borrows the
//! buffer of its worker for as long as one poll takes, and keeps only what a slow peer did not take.

mod direction;
mod end;

pub use end::TunnelEnd;

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use crate::io::{Pending, Stream};
use crate::log::Prepared;
use crate::routing::values::{Late, TunnelLine};
use crate::server::limits::Permit;
use crate::server::tasks::{Phase, TaskGuard};
use crate::shared::Local;
use crate::timer::Timer;
use crate::upstream::balance::Lease;
use direction::{Broken, Direction};

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
    /// Its access line, if there is a log.
    pub line: Option<Prepared>,
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

/// A tunnel.
#[derive(Debug)]
pub struct Tunnel {
    client: Stream,
    upstream: Stream,
    to_upstream: Direction,
    to_client: Direction,
    limits: Limits,
    timer: Timer,
    opened: Instant,
    /// When a byte last moved.
    last: Instant,
    /// Which direction ended first, and when.
    first_end: Option<(TunnelEnd, Instant)>,
    /// When it is to end in a drain.
    drain_at: Option<Instant>,
    report: Box<Report>,
    local: Rc<Local>,
    task: TaskGuard,
    _counted: (Permit, Lease),
}

impl Tunnel {
    /// Between two ends that have agreed to speak to each other.
    pub fn new(
        local: Rc<Local>,
        ends: Ends,
        limits: Limits,
        report: Report,
        held: (TaskGuard, Permit, Lease, Timer),
    ) -> Self {
        let now = Instant::now();
        local.shared.tunnels.fetch_add(1, Ordering::Relaxed);
        let (task, permit, lease, timer) = held;
        Self {
            client: ends.client,
            upstream: ends.upstream,
            to_upstream: Direction::new(ends.to_upstream, ends.read_ahead.0, ends.client_has_ended),
            to_client: Direction::new(ends.to_client, ends.read_ahead.1, false),
            limits,
            timer,
            opened: now,
            last: now,
            first_end: None,
            drain_at: None,
            report: Box::new(report),
            local,
            task,
            _counted: (permit, lease),
        }
    }

    /// Runs to the end, closes both connections as the cause demands, and reports.
    pub async fn run(mut self) {
        let end = poll_fn(|cx| self.poll(cx)).await;
        match end {
            TunnelEnd::ClientClosed | TunnelEnd::UpstreamClosed => {}
            // In good order as far as we are concerned: what was taken is delivered, then FIN.
            TunnelEnd::Idle | TunnelEnd::Age | TunnelEnd::Drain | TunnelEnd::Linger | TunnelEnd::Killed => {
                self.client.shutdown_write();
                self.upstream.shutdown_write();
            }
            // An abnormal end stays one: neither peer may take what it got for the whole.
            TunnelEnd::ClientReset | TunnelEnd::UpstreamReset => {
                self.client.reset();
                self.upstream.reset();
            }
        }
        self.tell(end);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<TunnelEnd> {
        match self.task.phase(cx) {
            Phase::Serving => {}
            Phase::Killed => return Poll::Ready(TunnelEnd::Killed),
            Phase::Draining(until) => self.plan_end(until),
        }
        let moved = {
            let buffer = &mut self.local.buffers.borrow_mut().input;
            let up = self.to_upstream.poll(cx, &mut self.client, &mut self.upstream, buffer);
            let up = up.map_err(|broken| self.broken(broken == Broken::Source));
            let down = self.to_client.poll(cx, &mut self.upstream, &mut self.client, buffer);
            let down = down.map_err(|broken| self.broken(broken == Broken::Sink));
            match (up, down) {
                (Err(end), _) | (_, Err(end)) => return Poll::Ready(end),
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
        match self.deadline() {
            Some((deadline, end)) => self.timer.poll(cx, deadline).map(|()| end),
            None => Poll::Pending,
        }
    }

    fn note_first_end(&mut self) {
        if self.first_end.is_none() {
            if self.to_upstream.source_has_ended() {
                self.first_end = Some((TunnelEnd::ClientClosed, self.last));
            } else if self.to_client.source_has_ended() {
                self.first_end = Some((TunnelEnd::UpstreamClosed, self.last));
            }
        }
    }

    /// A side whose FIN was seen has closed; that it takes nothing more is no new event.
    fn broken(&self, at_client: bool) -> TunnelEnd {
        match (at_client, self.to_upstream.source_has_ended(), self.to_client.source_has_ended()) {
            (true, true, _) => TunnelEnd::ClientClosed,
            (true, false, _) => TunnelEnd::ClientReset,
            (false, _, true) => TunnelEnd::UpstreamClosed,
            (false, _, false) => TunnelEnd::UpstreamReset,
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

    /// The next thing that time will do to the tunnel.
    fn deadline(&self) -> Option<(Instant, TunnelEnd)> {
        let idle = self.limits.idle.map(|idle| (self.last + idle, TunnelEnd::Idle));
        let age = self.limits.age.map(|age| (self.opened + age, TunnelEnd::Age));
        let linger = self.first_end.map(|(_, since)| (since + self.limits.linger, TunnelEnd::Linger));
        let drain = self.drain_at.map(|at| (at, TunnelEnd::Drain));
        [idle, age, linger, drain].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    fn tell(&self, end: TunnelEnd) {
        let (report, cause) = (&self.report, end.as_str());
        let late = Late {
            duration: report.started.elapsed(),
            head_received: report.head_received,
            received: self.to_upstream.bytes,
            sent: report.head_sent + self.to_client.bytes,
            body_sent: self.to_client.bytes,
            tunnel: Some(TunnelLine { id: report.id.to_string(), end: Some(cause) }),
        };
        if let Some(line) = &report.line {
            self.local.lines.end(line, &late);
        }
        match end.setting(report.idle_setting) {
            Some(setting) => tracing::info!(tunnel = report.id, cause, "a tunnel was ended by `{setting}`"),
            None => tracing::debug!(tunnel = report.id, cause, "a tunnel ended"),
        }
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.local.shared.tunnels.fetch_sub(1, Ordering::Relaxed);
    }
}
