//! One timer for everything that one task waits for.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use crate::turn;

/// Tells when a deadline has passed. The deadline may be another one at each call: as long as it
/// moves into the future, which is what deadlines do while bytes flow, moving it costs a comparison.
/// The system's timer is left where it is, and set anew when it fires too early.
#[derive(Debug)]
pub struct Timer {
    sleep: Pin<Box<Sleep>>,
    /// `None`: for nothing that matters.
    armed: Option<Instant>,
    /// Who is woken when the system's timer fires.
    waker: Option<Waker>,
}

impl Timer {
    /// Not armed yet.
    pub fn new() -> Self {
        // A time that no deadline is behind.
        let far = Instant::now() + Duration::from_secs(365 * 24 * 3600);
        Self { sleep: Box::pin(sleep_until(far)), armed: None, waker: None }
    }

    /// Begins anew with the next deadline, also if it is later than those before, of which the task shall not be woken any
    /// more.
    pub fn forget(&mut self) {
        self.armed = None;
    }

    /// `Ready` once `deadline` has passed; until then the task will be woken when it does.
    pub fn poll(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        if self.armed.is_none_or(|armed| deadline < armed) {
            self.arm(deadline);
        } else if self.is_waiting(cx) {
            return Poll::Pending;
        }
        loop {
            if self.sleep.as_mut().poll(cx).is_pending() {
                self.waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
            self.waker = None;
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            self.arm(deadline);
        }
    }

    /// Whether the system's timer is set for this task and cannot have fired yet.
    fn is_waiting(&self, cx: &Context<'_>) -> bool {
        self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()))
            && self.armed.is_some_and(|armed| turn::now() < armed)
    }

    /// Whether it was polled, and will wake the task that did.
    pub fn is_running(&self) -> bool {
        !self.sleep.is_elapsed()
    }

    fn arm(&mut self, deadline: Instant) {
        self.sleep.as_mut().reset(deadline);
        self.waker = None;
        self.armed = Some(deadline);
    }
}

impl Default for Timer {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_moves_is_kept_to() {
        let mut timer = Timer::new();
        let start = Instant::now();
        let (early, late) = (start + Duration::from_secs(1), start + Duration::from_secs(5));
        // Armed for the late one, then asked for an earlier one, then for the late one again.
        assert!(poll_fn(|cx| Poll::Ready(timer.poll(cx, late).is_pending())).await);
        assert!(poll_fn(|cx| Poll::Ready(timer.poll(cx, early).is_pending())).await);
        poll_fn(|cx| timer.poll(cx, late)).await;
        assert!(start.elapsed() >= Duration::from_secs(5));
        assert!(start.elapsed() < Duration::from_secs(6));
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_is_forgotten_wakes_nobody() {
        let mut timer = Timer::new();
        let start = Instant::now();
        let (early, late) = (start + Duration::from_secs(1), start + Duration::from_secs(5));
        assert!(poll_fn(|cx| Poll::Ready(timer.poll(cx, early).is_pending())).await);
        timer.forget();
        let mut polls = 0;
        poll_fn(|cx| {
            polls += 1;
            timer.poll(cx, late)
        })
        .await;
        assert_eq!(polls, 2);
        assert!(start.elapsed() >= Duration::from_secs(5));
    }
}
