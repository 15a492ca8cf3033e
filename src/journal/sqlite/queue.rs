//! What waits for the writer: a bounded queue of events, and of other changes.
//!
//! The writer takes everything at once, so the lock is held for the length of a swap, and a producer wakes the writer
//! only when it sleeps.
//!
//! A commit costs hardly more for a hundred events than for one. So after a large group the writer waits a moment for
//! half as many to come before it takes the next one: while one half of the senders waits for the disk, the other half's
//! events gather. One event among few is taken at once.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::event::Event;
use crate::journal::{AppendError, Appended, WriteError};

/// Events that may wait for the writer at once.
pub(super) const MAX_EVENTS: usize = 16 * 1024;
/// Bytes of bodies that may wait for the writer at once.
pub(super) const MAX_BYTES: usize = 64 * 1024 * 1024;
/// How long the writer waits for a group to gather, after a large one.
const GATHER: Duration = Duration::from_millis(1);
/// Other changes that may wait: a few for each sink, and what operators ask for.
const MAX_CHANGES: usize = 1024;

/// Where the answer to an append goes.
pub(super) type Reply = oneshot::Sender<Result<Appended, AppendError>>;

/// An event that waits to be stored, and who waits for the answer. What is hashed of it is hashed before it waits: the
/// writer is one thread, those who append are many.
pub(super) struct Append {
    pub(super) event: Event,
    pub(super) body_hash: u64,
    pub(super) checksum: u64,
    pub(super) reply: Reply,
}

/// A change that runs inside the writer's transaction and is answered after its commit.
pub(super) trait Change: Send {
    /// Runs in a savepoint of its own.
    fn run(&mut self, connection: &Connection) -> rusqlite::Result<()>;
    /// Called once, after the commit or with the reason why there was none.
    fn answer(self: Box<Self>, committed: Result<(), WriteError>);
}

/// Work on the writer's connection that can't be part of a transaction. Dropped when it can't be done.
pub(super) type Between = Box<dyn FnOnce(&Connection) + Send>;

/// All that the writer takes at once.
#[derive(Default)]
pub(super) struct Work {
    pub(super) appends: Vec<Append>,
    pub(super) changes: Vec<Box<dyn Change>>,
    pub(super) between: Vec<Between>,
    bytes: usize,
}

impl Work {
    fn is_empty(&self) -> bool {
        self.appends.is_empty() && self.changes.is_empty() && self.between.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.appends.clear();
        self.changes.clear();
        self.between.clear();
        self.bytes = 0;
    }
}

#[derive(Default)]
struct State {
    work: Work,
    /// Set while the writer sleeps: only then is waking it worth a system call.
    asleep: bool,
    /// Events that are worth a wake: half as many as the last group had.
    wanted: usize,
    closed: bool,
}

#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    wake: Condvar,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that runs under the lock can panic half way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn append(&self, append: Append) -> Result<(), AppendError> {
        let mut state = self.lock();
        if state.closed {
            return Err(AppendError::Closed);
        }
        let bytes = state.work.bytes + append.event.body.len();
        if state.work.appends.len() >= MAX_EVENTS || (bytes > MAX_BYTES && !state.work.appends.is_empty()) {
            return Err(AppendError::Busy);
        }
        state.work.bytes = bytes;
        state.work.appends.push(append);
        if state.work.appends.len() >= state.wanted {
            self.notify(state);
        }
        Ok(())
    }

    /// Gives the change back when it can't be taken.
    pub(super) fn change(&self, change: Box<dyn Change>) -> Result<(), (Box<dyn Change>, WriteError)> {
        let mut state = self.lock();
        if state.closed {
            return Err((change, WriteError::Closed));
        }
        if state.work.changes.len() >= MAX_CHANGES {
            return Err((change, WriteError::Busy));
        }
        state.work.changes.push(change);
        self.notify(state);
        Ok(())
    }

    pub(super) fn between(&self, between: Between) -> Result<(), WriteError> {
        let mut state = self.lock();
        if state.closed {
            return Err(WriteError::Closed);
        }
        if state.work.between.len() >= MAX_CHANGES {
            return Err(WriteError::Busy);
        }
        state.work.between.push(between);
        self.notify(state);
        Ok(())
    }

    fn notify(&self, state: MutexGuard<'_, State>) {
        let asleep = state.asleep;
        drop(state);
        if asleep {
            self.wake.notify_one();
        }
    }

    /// Nothing more is taken in; what waits is still handed out.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_one();
    }

    /// Swaps what waits into `work`, which must be empty. Sleeps until there is something, or for `patience` at most.
    /// False once the queue is closed and empty.
    pub(super) fn take(&self, work: &mut Work, patience: Duration) -> bool {
        let mut state = self.lock();
        if state.wanted > 1 {
            state = self.sleep(state, GATHER.min(patience), |work, wanted| work.appends.len() < wanted);
            state.wanted = 1;
        }
        state = self.sleep(state, patience, |work, _| work.is_empty());
        std::mem::swap(&mut state.work, work);
        state.wanted = work.appends.len().div_ceil(2);
        !(state.closed && work.is_empty())
    }

    /// Waits while there is too little to do.
    fn sleep<'s>(
        &'s self,
        mut state: MutexGuard<'s, State>,
        patience: Duration,
        too_little: impl Fn(&Work, usize) -> bool,
    ) -> MutexGuard<'s, State> {
        if !state.closed && too_little(&state.work, state.wanted) {
            state.asleep = true;
            let waits = |state: &mut State| !state.closed && too_little(&state.work, state.wanted);
            state = self.wake.wait_timeout_while(state, patience, waits).unwrap_or_else(PoisonError::into_inner).0;
            state.asleep = false;
        }
        state
    }
}
