//! Knows every connection and tunnel of a worker, tells them to stop, and knows when all have.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::task::{Context, Waker};

use tokio::sync::Notify;
use tokio::time::Instant;

/// What the tasks of a worker are to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Go on.
    Serving,
    /// Finish what was begun, take nothing new, end tunnels in good order; until this time.
    Draining(Instant),
    /// End now.
    Killed,
}

/// The connections and tunnels of a worker.
#[derive(Debug)]
pub struct Tasks {
    phase: Cell<Phase>,
    wakers: RefCell<HashMap<u64, Option<Waker>>>,
    next: Cell<u64>,
    all_ended: Notify,
}

/// A task's entry among the tasks of its worker; dropping it takes the entry out.
#[derive(Debug)]
pub struct TaskGuard {
    tasks: Rc<Tasks>,
    id: u64,
}

impl Tasks {
    /// None yet.
    pub fn new() -> Rc<Self> {
        Rc::new(Self {
            phase: Cell::new(Phase::Serving),
            wakers: RefCell::default(),
            next: Cell::new(0),
            all_ended: Notify::new(),
        })
    }

    /// Adds a task.
    pub fn enter(self: &Rc<Self>) -> TaskGuard {
        let id = self.next.get();
        self.next.set(id + 1);
        self.wakers.borrow_mut().insert(id, None);
        TaskGuard { tasks: Rc::clone(self), id }
    }

    /// What the tasks are to do.
    pub fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// Tells every task of a new phase.
    pub fn set_phase(&self, phase: Phase) {
        self.phase.set(phase);
        for waker in self.wakers.borrow().values().flatten() {
            waker.wake_by_ref();
        }
    }

    /// Waits until no task is left.
    pub async fn ended(&self) {
        while !self.wakers.borrow().is_empty() {
            self.all_ended.notified().await;
        }
    }
}

impl TaskGuard {
    /// What the task is to do; it is woken when that changes. To be asked whenever the task is about to
    /// wait.
    pub fn phase(&self, cx: &mut Context<'_>) -> Phase {
        let mut wakers = self.tasks.wakers.borrow_mut();
        let waker = wakers.entry(self.id).or_default();
        if !waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        self.tasks.phase()
    }

    /// What the task is to do, without being told of a change.
    pub fn current_phase(&self) -> Phase {
        self.tasks.phase()
    }
}

impl Drop for TaskGuard {
    fn drop(&mut self) {
        let mut wakers = self.tasks.wakers.borrow_mut();
        wakers.remove(&self.id);
        if wakers.is_empty() {
            self.tasks.all_ended.notify_one();
        }
    }
}
