//! The durable store: append, read from a cursor, settle, query.
//!
//! One thread owns the connection that writes ([`writer`]); everything that changes the file goes through its queue and is
//! committed in groups. An append is answered after the commit that holds it, so a 200 means "on disk". Readers
//! ([`Reader`]) have connections of their own and never wait for the writer.
//!
//! Invariants:
//! - Sequence numbers ascend in the order of storing and are never reused.
//! - An id is stored once for as long as it is recognised; dedupe and storing are one transaction.
//! - Every row of `parked` has its lane's row in `lanes`.
//! - After an I/O error nothing more is written: the process ends, and the next open checks the file.

mod checkpoint;
pub mod deliveries;
mod open;
pub mod purge;
pub mod query;
mod queue;
pub mod read;
pub mod replay;
pub mod retention;
pub mod schema;
mod scrub;
mod tail;
mod wal;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rusqlite::Connection;
use tokio::sync::{oneshot, watch};

use crate::event::Event;

pub use open::{Ended, Opened, Running, open};
pub use read::Reader;
pub use schema::OpenError;

use queue::{Append, Change, Queue};
use tail::Tail;

/// What an append came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// Stored now, under this sequence number.
    Stored {
        /// The event's place in the journal.
        seq: u64,
    },
    /// Its id was stored before. `same_body` is false when the bytes differ from the first one's.
    Duplicate {
        /// Whether the bytes are those of the first one (true when they are no longer known).
        same_body: bool,
    },
}

/// Why an event could not be stored. The sender must try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// More is waiting for the disk than the queue may hold.
    #[error("the journal's queue is full")]
    Busy,
    /// No room on the disk, or `journal.max_bytes` is reached.
    #[error("the journal is full")]
    Full,
    /// An I/O error: whether the event is on disk is unknown, and the process is about to end.
    #[error("the journal failed")]
    Failed,
    /// The journal is shutting down.
    #[error("the journal is closed")]
    Closed,
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Too many changes are waiting.
    #[error("too many changes are waiting for the journal")]
    Busy,
    /// No room on the disk.
    #[error("the journal's disk is full")]
    Full,
    /// An I/O error; the process is about to end.
    #[error("the journal failed")]
    Failed,
    /// The journal is shutting down.
    #[error("the journal is closed")]
    Closed,
    /// The change itself was refused by the database.
    #[error("{0}")]
    Refused(rusqlite::Error),
}

/// State that every part of the process may look at without asking the writer.
#[derive(Debug, Default)]
struct Shared {
    /// Cleared while the disk is full or after an I/O error.
    writable: AtomicBool,
    /// Used pages, in bytes.
    bytes: AtomicU64,
}

/// Handle of the journal; cheap to clone.
#[derive(Clone)]
pub struct Journal {
    queue: Arc<Queue>,
    shared: Arc<Shared>,
    tail: Arc<Tail>,
    head: watch::Receiver<u64>,
    path: Arc<PathBuf>,
    /// The database file, open for as long as the journal: see [`scrub`].
    file: Arc<std::fs::File>,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Journal {
    /// Stores an event: it is queued at once, and stored even when the returned future is dropped, which is done once the
    /// event is on disk.
    ///
    /// # Errors
    /// The event is not, or not surely, on disk: see [`AppendError`].
    pub fn append(&self, event: Event) -> impl Future<Output = Result<Appended, AppendError>> + Send + use<> {
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
    ///
    /// # Errors
    /// Nothing of the change is in the database: see [`WriteError`]. After [`WriteError::Failed`] that is unknown.
    pub async fn write<T: Send + 'static>(
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

    /// Whether events can be stored at present.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.shared.writable.load(Ordering::Relaxed)
    }

    /// The newest committed sequence number, 0 in an empty journal; wakes on every commit that stores events.
    #[must_use]
    pub fn head(&self) -> watch::Receiver<u64> {
        self.head.clone()
    }

    /// The database file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes that events and delivery state occupy in the database file; free pages don't count.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }

    /// A reader with a connection of its own.
    ///
    /// # Errors
    /// The file can't be opened.
    pub fn reader(&self) -> Result<Reader, OpenError> {
        Ok(Reader::new(schema::connect(&self.path, true)?, self.tail.clone()))
    }

    /// Lets the writer finish what waits and end; appends from now on are refused.
    pub fn close(&self) {
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
            (Ok(()), Some(Err(error))) => Err(WriteError::Refused(error)),
            (Ok(()), None) => Err(WriteError::Failed),
        };
        // Whoever asked may have gone.
        let _ = self.reply.send(result);
    }
}
