//! The time of a turn: the clock is read once each time that a task is polled, not once for each question.

use std::cell::Cell;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tokio::time::Instant;

thread_local! {
    static BEGUN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// The time at which the turn of the task has begun that is being polled. A turn is short: what one task moves before
/// it lets the others have theirs is bounded. The time itself where no task has [turns](in_turns).
pub fn now() -> Instant {
    BEGUN.get().unwrap_or_else(Instant::now)
}

/// How long ago a time was when the turn began.
pub fn since(then: Instant) -> std::time::Duration {
    now().saturating_duration_since(then)
}

/// Lets a task have [one time](now) for each of its turns.
pub fn in_turns<F: Future>(task: F) -> InTurns<F> {
    InTurns { task }
}

pin_project! {
    /// A task that has turns: see [`in_turns`].
    #[derive(Debug)]
    pub struct InTurns<F> {
        #[pin]
        task: F,
    }
}

impl<F: Future> Future for InTurns<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let _turn = Turn::begin();
        self.project().task.poll(cx)
    }
}

/// Ends the turn, also if the task panics.
struct Turn;

impl Turn {
    fn begin() -> Self {
        BEGUN.set(Some(Instant::now()));
        Self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        BEGUN.set(None);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_turn_has_one_time_and_none_is_left_behind() {
        let start = Instant::now();
        let task = in_turns(async {
            let first = now();
            tokio::time::advance(Duration::from_secs(1)).await;
            (first, now(), since(first))
        });
        let (first, second, between) = task.await;
        assert_eq!(first, start);
        assert!(second > first && between == second - first);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(now(), Instant::now());
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_stands_still_within_a_turn() {
        in_turns(async {
            let before = now();
            // Not a turn of its own: whoever is polled here is polled by this task.
            assert_eq!(now(), before);
            assert_eq!(since(before), Duration::ZERO);
        })
        .await;
    }
}
