//! Knows every connection and tunnel of a worker, tells them to stop, and knows when all have.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Waker};

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::server::spread::Load;

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
    places: RefCell<Places>,
    all_ended: Notify,
    /// How many there are, for the other workers.
    load: Load,
}

/// A place for each task; looked at whenever one is polled.
#[derive(Debug, Default)]
struct Places {
    /// Empty for a task that has not waited yet, and where there is none.
    wakers: Vec<Option<Waker>>,
    /// Where there is no task.
    free: Vec<usize>,
}

impl Places {
    fn is_empty(&self) -> bool {
        self.free.len() == self.wakers.len()
    }
}

/// A task's entry among the tasks of its worker; dropping it takes the entry out.
#[derive(Debug)]
pub struct TaskGuard {
    tasks: Rc<Tasks>,
    place: usize,
}

impl Tasks {
    /// None yet; `load` is where they are counted.
    pub fn new(load: Load) -> Rc<Self> {
        Rc::new(Self {
            phase: Cell::new(Phase::Serving),
            places: RefCell::default(),
            all_ended: Notify::new(),
            load,
        })
    }

    /// Adds a task.
    pub fn enter(self: &Rc<Self>) -> TaskGuard {
        self.load.fetch_add(1, Relaxed);
        let Places { wakers, free } = &mut *self.places.borrow_mut();
        let place = free.pop().unwrap_or_else(|| {
            wakers.push(None);
            wakers.len() - 1
        });
        TaskGuard { tasks: Rc::clone(self), place }
    }

    /// What the tasks are to do.
    pub fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// Tells every task of a new phase.
    pub fn set_phase(&self, phase: Phase) {
        self.phase.set(phase);
        for waker in self.places.borrow().wakers.iter().flatten() {
            waker.wake_by_ref();
        }
    }

    /// Waits until no task is left.
    pub async fn ended(&self) {
        while !self.places.borrow().is_empty() {
            self.all_ended.notified().await;
        }
    }
}

impl TaskGuard {
    /// What the task is to do; it is woken when that changes. To be asked whenever the task is about to
    /// wait.
    pub fn phase(&self, cx: &mut Context<'_>) -> Phase {
        let waker = &mut self.tasks.places.borrow_mut().wakers[self.place];
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
        self.tasks.load.fetch_sub(1, Relaxed);
        let mut places = self.tasks.places.borrow_mut();
        places.wakers[self.place] = None;
        places.free.push(self.place);
        if places.is_empty() {
            self.tasks.all_ended.notify_one();
        }
    }
}
