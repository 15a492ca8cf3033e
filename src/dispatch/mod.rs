//! One worker a sink: it reads the journal from its cursor and delivers, so that a slow sink delays no other.
//!
//! Sinks that take one event at a time ([`sink::Relay`]) get a [`relay`] worker with lanes; sinks that take batches
//! ([`sink::Batch`]) a [`batch`] worker. Both keep their state in the journal ([`crate::journal::deliveries`]).

pub mod batch;
pub mod health;
pub mod judge;
pub mod lanes;
pub mod matching;
pub mod relay;
pub mod retry;
pub mod status;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::config::Match;
use crate::event::{Kind, Stored};
use crate::journal::deliveries::SinkState;
use crate::journal::{Journal, OpenError, Reader};
use crate::metrics::SinkMetrics;
use crate::sink;
pub use status::Status;

/// Commands that may wait for one worker.
const COMMANDS: usize = 16;
/// How long a worker waits before it tries again what the journal refused or could not read.
const JOURNAL_RETRY: Duration = Duration::from_secs(1);
/// A busy worker writes down its progress no more often than this: bounds both the writes and what is delivered again
/// after a crash.
const SETTLE_EVERY: Duration = Duration::from_millis(50);

/// Said when the journal could not be read.
const UNREADABLE: &str = "the sink waits and tries again; see \"When the journal is damaged\" in the README";

/// How far the process has come on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Not on its way.
    Running,
    /// Deliver what can be delivered now, then end.
    Draining,
    /// End now; what is under way is delivered again by the next process.
    Stopping,
}

/// What an operator tells a worker.
#[derive(Debug, Clone)]
pub enum Command {
    /// Start nothing new.
    Pause,
    /// Go on, at once.
    Resume,
    /// Rows of this sink were changed in the journal: look again.
    Wake,
    /// These events are gone: deliver none of them.
    Purged(Arc<HashSet<u64>>),
}

/// What every worker has.
#[derive(Debug)]
pub struct Worker {
    journal: Journal,
    reader: Reader,
    state: SinkState,
    matching: Match,
    metrics: SinkMetrics,
    status: Arc<Status>,
    commands: mpsc::Receiver<Command>,
    phase: watch::Receiver<Phase>,
}

/// A running worker, as the rest of the process sees it.
#[derive(Debug)]
pub struct Handle {
    /// What it is doing.
    pub status: Arc<Status>,
    /// How to tell it something.
    pub commands: mpsc::Sender<Command>,
}

/// Makes a worker for a sink that the journal knows.
///
/// # Errors
/// The journal could not be opened for reading.
pub fn worker(
    journal: &Journal,
    state: SinkState,
    matching: Match,
    metrics: SinkMetrics,
    phase: watch::Receiver<Phase>,
) -> Result<(Worker, Handle), OpenError> {
    let (sender, commands) = mpsc::channel(COMMANDS);
    let status = Arc::new(Status::new(&state));
    metrics.paused.set(i64::from(state.paused));
    let handle = Handle { status: status.clone(), commands: sender };
    let worker = Worker {
        journal: journal.clone(),
        reader: journal.reader()?,
        state,
        matching,
        metrics,
        status,
        commands,
        phase,
    };
    Ok((worker, handle))
}

impl Worker {
    /// Runs a sink that takes one event at a time until the process ends.
    pub fn spawn_relay(self, relay: impl sink::Relay, settings: relay::Settings) -> JoinHandle<()> {
        tokio::spawn(relay::run(self, Arc::new(relay), settings))
    }

    /// Runs a sink that takes batches until the process ends.
    pub fn spawn_batch(self, batch: impl sink::Batch) -> JoinHandle<()> {
        tokio::spawn(batch::run(self, Box::new(batch)))
    }

    fn wants(&self, stored: &Stored) -> bool {
        stored.event.kind == Kind::Event && matching::matches(&self.matching, &stored.event)
    }
}

/// Now, in unix milliseconds.
#[must_use]
pub fn now_ms() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
