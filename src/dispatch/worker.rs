//! What every worker does, whatever its sink takes: it is told things, writes its progress down, and says what is wrong.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use super::{Phase, Status, matching};
use crate::config::Match;
use crate::event::{Kind, Stored};
use crate::journal::{Journal, OpenError, ReadError, Reader, Settlement, SinkState, WriteError};
use crate::metrics::SinkMetrics;

/// Commands that may wait for one worker.
const COMMANDS: usize = 16;
/// How long a worker waits before it tries again what the journal refused or could not read.
pub(super) const JOURNAL_RETRY: Duration = Duration::from_secs(1);
/// A busy worker writes down its progress no more often than this: bounds both the writes and what is delivered again
/// after a crash.
pub(super) const SETTLE_EVERY: Duration = Duration::from_millis(50);
/// Why an event whose bytes changed on disk is a dead letter.
pub(super) const DAMAGED: &str = "its bytes on disk are not those that were stored";

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

/// A command, and who waits until it is obeyed.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) command: Command,
    /// Dropped when the command was obeyed: that is the answer.
    pub(super) obeyed: oneshot::Sender<()>,
}

/// A running worker, as the rest of the process sees it.
#[derive(Debug)]
pub struct Handle {
    /// What it is doing.
    pub status: Arc<Status>,
    commands: mpsc::Sender<Told>,
}

impl Handle {
    /// Tells the worker something and waits until it has obeyed. A worker that has ended obeys nothing, at once.
    pub async fn tell(&self, command: Command) {
        let (obeyed, done) = oneshot::channel();
        if self.commands.send(Told { command, obeyed }).await.is_ok() {
            // An error is the answer.
            let _ = done.await;
        }
    }
}

/// What every worker has.
#[derive(Debug)]
pub struct Worker {
    pub(super) journal: Journal,
    pub(super) reader: Reader,
    pub(super) state: SinkState,
    pub(super) metrics: SinkMetrics,
    pub(super) status: Arc<Status>,
    pub(super) commands: mpsc::Receiver<Told>,
    pub(super) phase: watch::Receiver<Phase>,
    matching: Match,
}

impl Worker {
    /// A worker for a sink that the journal knows, and its handle.
    ///
    /// # Errors
    /// The journal could not be opened for reading.
    pub fn new(
        journal: &Journal,
        state: SinkState,
        matching: Match,
        metrics: SinkMetrics,
        phase: watch::Receiver<Phase>,
    ) -> Result<(Self, Handle), OpenError> {
        let (sender, commands) = mpsc::channel(COMMANDS);
        let status = Arc::new(Status::new(&state));
        metrics.paused.set(i64::from(state.paused));
        let handle = Handle { status: status.clone(), commands: sender };
        let (journal, reader) = (journal.clone(), journal.reader()?);
        Ok((Self { journal, reader, state, metrics, status, commands, phase, matching }, handle))
    }

    /// Whether the sink gets this event.
    pub(super) fn wants(&self, stored: &Stored) -> bool {
        stored.event.kind == Kind::Event && matching::matches(&self.matching, &stored.event)
    }

    /// An event is not delivered, as its bytes changed on disk.
    pub(super) fn report_damage(&self, seq: u64) {
        self.metrics.dead.inc();
        tracing::error!(
            sink = self.state.name,
            seq,
            "an event's bytes on disk are not those that were stored; it is not delivered and stands among the dead letters"
        );
    }

    /// The journal could not be read.
    pub(super) fn report_unreadable(&self, error: &ReadError) {
        let what = "the sink waits and tries again; see \"When the journal is damaged\" in docs/RECOVERY.md";
        tracing::error!(sink = self.state.name, %error, "{what}");
        self.status.set_error(error.to_string().into(), None);
    }

    /// The sink takes nothing at present, or takes everything again.
    pub(super) fn show_health(&self, unhealthy: bool) {
        self.status.set_unhealthy(unhealthy);
        self.metrics.paused.set(i64::from(unhealthy || self.status.is_paused()));
    }

    /// Writes progress down, and goes on trying as long as the journal does not end; false when it was not written.
    pub(super) fn settle(&self, settlement: Arc<Settlement>) -> impl Future<Output = bool> + Send + use<> {
        let (journal, sink, name) = (self.journal.clone(), self.state.number, self.state.name.clone());
        let mut phase = self.phase.clone();
        async move {
            loop {
                match journal.settle(sink, settlement.clone()).await {
                    Ok(()) => return true,
                    Err(error) => {
                        let ends = matches!(error, WriteError::Closed | WriteError::Failed);
                        if ends || *phase.borrow() == Phase::Stopping {
                            let what = "the last progress was not written down; some events are delivered again";
                            tracing::warn!(sink = name, %error, "{what}");
                            return false;
                        }
                        let what = "delivery state could not be written down; trying again";
                        tracing::warn!(sink = name, %error, "{what}");
                    }
                }
                // At the end there is one more try.
                let _ = tokio::time::timeout(JOURNAL_RETRY, phase.wait_for(|phase| *phase == Phase::Stopping)).await;
            }
        }
    }
}
