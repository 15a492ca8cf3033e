//! The journal in an SQLite file, on one machine.
//!
//! One thread owns the connection that writes ([`writer`]); everything that changes the file goes through its queue and is
//! committed in groups. An append is answered after the commit that holds it. Readers ([`Reader`]) have connections of
//! their own and never wait for the writer.
//!
//! - [`open`], [`schema`], [`wal`]: how a file is opened, checked and locked, and the stored format.
//! - [`queue`], [`writer`], [`room`], [`checkpoint`], [`tail`]: the way of an event to the disk.
//! - [`read`], [`deliveries`], [`rows`]: for the workers. [`query`], [`replay`], [`purge`], [`scrub`], [`retention`],
//!   [`mod@backup`]: for operators, and in time.
//!
//! Invariants:
//! - Every row of `parked` has its lane's row in `lanes`.
//! - After an I/O error nothing more is written: the process ends, and the next open checks the file.

mod backup;
mod checkpoint;
mod deliveries;
mod files;
mod open;
mod purge;
mod query;
mod queue;
mod read;
mod replay;
mod retention;
mod room;
mod rows;
mod schema;
mod scrub;
mod tail;
mod wal;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rusqlite::Connection;
use tokio::sync::{oneshot, watch};

use super::{AppendError, Appended, OpenError, WriteError};
use crate::config;
use crate::event::Event;
use crate::metrics::Metrics;
use queue::{Append, Change, Queue};
use tail::Tail;

pub(super) use backup::backup;
pub use open::Running;
pub use read::Reader;
pub use retention::Retention;

/// State that every part of the process may look at without asking the writer.
#[derive(Debug, Default)]
struct Shared {
    /// Cleared while the disk is full or after an I/O error.
    writable: AtomicBool,
    /// Used pages, in bytes.
    bytes: AtomicU64,
}

/// Handle of a journal in a file; cheap to clone.
#[derive(Clone)]
pub struct Store {
    queue: Arc<Queue>,
    shared: Arc<Shared>,
    tail: Arc<Tail>,
    head: watch::Receiver<u64>,
    path: Arc<PathBuf>,
    /// The database file, open for as long as the journal: see [`scrub`].
    file: Arc<std::fs::File>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the file and starts the writer.
    pub(super) fn open(config: &config::Journal, metrics: Arc<Metrics>) -> Result<(Self, Running), OpenError> {
        open::open(config, metrics)
    }

    /// Queues an event; the future waits for its answer.
    pub(super) fn append(&self, event: Event) -> impl Future<Output = Result<Appended, AppendError>> + Send + use<> {
        let (reply, answer) = oneshot::channel();
        let body_hash = event.body_hash();
        let checksum = event.checksum_with(body_hash);
        let queued = self.queue.append(Append { event, body_hash, checksum, reply });
        // Not the event waits but its answer: each open connection has one of these futures.
        async move {
            queued?;
            answer.await.unwrap_or(Err(AppendError::Failed))
        }
    }

    /// Runs a change inside the writer's next transaction and returns its result once that is committed.
    async fn write<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, WriteError> {
        let (reply, answer) = oneshot::channel();
        let job = Job { change: Some(change), result: None, reply };
        if let Err((job, error)) = self.queue.change(Box::new(job)) {
            job.answer(Err(error));
        }
        answer.await.unwrap_or(Err(WriteError::Failed))
    }

    /// Runs something on the writer's connection between two transactions.
    async fn between<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> T + Send + 'static,
    ) -> Result<T, WriteError> {
        let (reply, answer) = oneshot::channel();
        // Whoever asked may have gone.
        self.queue.between(Box::new(move |connection| drop(reply.send(work(connection)))))?;
        answer.await.map_err(|_| WriteError::Failed)
    }

    pub(super) fn is_writable(&self) -> bool {
        self.shared.writable.load(Ordering::Relaxed)
    }

    pub(super) fn head(&self) -> watch::Receiver<u64> {
        self.head.clone()
    }

    /// Free pages don't count.
    pub(super) fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn reader(&self) -> Result<Reader, OpenError> {
        Ok(Reader::new(schema::connect(&self.path, true)?, self.tail.clone()))
    }

    pub(super) fn retention(&self, config: &config::Journal) -> Result<Retention, OpenError> {
        Ok(Retention::new(self.clone(), self.reader()?, config))
    }

    /// Lets the writer finish what waits and end.
    pub(super) fn close(&self) {
        self.queue.close();
    }
}

/// A change and whoever waits for its result.
struct Job<F, T> {
    change: Option<F>,
    result: Option<rusqlite::Result<T>>,
    reply: oneshot::Sender<Result<T, WriteError>>,
}

impl<F, T> Change for Job<F, T>
where
    F: FnOnce(&Connection) -> rusqlite::Result<T> + Send,
    T: Send,
{
    fn run(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let Some(change) = self.change.take() else { return Ok(()) };
        match change(connection) {
            Ok(value) => {
                self.result = Some(Ok(value));
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn answer(self: Box<Self>, committed: Result<(), WriteError>) {
        let result = match (committed, self.result) {
            (Ok(()), Some(Ok(value))) => Ok(value),
            (Err(error), _) => Err(error),
            (Ok(()), Some(Err(error))) => Err(WriteError::Refused(error.to_string())),
            (Ok(()), None) => Err(WriteError::Failed),
        };
        // Whoever asked may have gone.
        let _ = self.reply.send(result);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn the_writer_syncs_each_commit_of_its_log() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("db");
        let hour = Duration::from_secs(3600);
        let config = config::Journal { path, retention: hour, dedupe_window: hour, max_bytes: 0 };
        let (store, mut running) = Store::open(&config, Arc::new(Metrics::new())).unwrap();
        let mode = |c: &Connection| c.pragma_query_value(None, "journal_mode", |row| row.get::<_, String>(0));
        assert_eq!(store.write(mode).await.unwrap(), "wal");
        let synchronous = |c: &Connection| c.pragma_query_value(None, "synchronous", |row| row.get::<_, i64>(0));
        assert_eq!(store.write(synchronous).await.unwrap(), 2, "2 is FULL");
        store.close();
        running.ended().await.unwrap();
    }
}
