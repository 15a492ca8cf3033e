//! The writer: the one thread that changes the database, in groups.
//!
//! Each turn takes all that waits (up to a bound), runs it in one transaction, commits, and only then answers. Answers go
//! to a task inside the runtime in one message, so that a whole group costs one wake across threads.
//!
//! - A full disk (or `journal.max_bytes`, or a limit on the size of files): nothing of the group is stored, all of it is refused, and the writer itself
//!   tries every second whether there is room again.
//! - An I/O error: whether the group is on disk is unknown. Nothing is acknowledged, a marker is left for the next open, and
//!   the writer ends with an error, which ends the process.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rusqlite::{CachedStatement, Connection, ErrorCode, OptionalExtension as _, params};
use tokio::sync::mpsc;

use super::Shared;
use super::checkpoint::Checkpointer;
use super::files;
use super::queue::{Append, Change, Queue, Reply, Work};
use super::schema::Lock;
use super::tail::Tail;
use crate::event::Stored;
use crate::journal::{AppendError, Appended, Ended, WriteError};
use crate::metrics::Metrics;

/// Events in one transaction at most: bounds the time of a commit and the growth of the log in one step.
const MAX_GROUP: usize = 4096;
/// How often a full journal is tried again.
const FULL_RETRY: Duration = Duration::from_secs(1);
/// How much is committed between two looks at the size of the write-ahead log.
const LOOK_COMMITS: usize = 32;
const LOOK_EVENTS: usize = 2 * MAX_GROUP;

/// Answers of one group, on their way to the task that hands them out.
#[derive(Default)]
pub(super) struct Answers {
    pub(super) appends: Vec<(Reply, Appended)>,
    /// The newest committed sequence number.
    pub(super) head: u64,
    /// Events that are no longer kept in memory. Freed where they were allocated, which costs the writer nothing.
    pub(super) evicted: Vec<Arc<Stored>>,
}

pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) lock: Lock,
    pub(super) path: PathBuf,
    pub(super) max_bytes: u64,
    pub(super) queue: Arc<Queue>,
    pub(super) shared: Arc<Shared>,
    pub(super) tail: Arc<Tail>,
    pub(super) answers: mpsc::Sender<Answers>,
    pub(super) checkpointer: Checkpointer,
    pub(super) metrics: Arc<Metrics>,
    pub(super) next_seq: u64,
    pub(super) full: bool,
    pub(super) warned: bool,
    /// Commits and events since the last look at the log.
    pub(super) since_look: (usize, usize),
}

impl Writer {
    /// Runs until the queue is closed and empty, or until an I/O error.
    pub(super) fn run(mut self) -> Result<(), Ended> {
        let outcome = self.turns();
        if let Err(error) = outcome {
            self.shared.writable.store(false, Ordering::Relaxed);
            if let Err(error) = std::fs::write(files::marker(&self.path), b"") {
                tracing::error!(%error, "could not leave the marker for a check at the next start");
            }
            self.queue.close();
            let mut rest = Work::default();
            while self.queue.take(&mut rest, Duration::ZERO) {
                refuse(&mut rest, AppendError::Failed);
            }
            return Err(Ended::Failed { path: self.path, why: error.to_string() });
        }
        // The last one out copies the log back, so that a stopped finhook leaves one file.
        if let Err(error) = self.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)") {
            tracing::warn!(%error, "the write-ahead log could not be copied back at the end; the next start does it");
        }
        drop(self.lock);
        Ok(())
    }

    fn turns(&mut self) -> rusqlite::Result<()> {
        let mut work = Work::default();
        let mut looked = Instant::now();
        while self.queue.take(&mut work, FULL_RETRY) {
            if self.full {
                for append in work.appends.drain(..) {
                    let _ = append.reply.send(Err(AppendError::Full));
                }
            }
            while !work.appends.is_empty() || !work.changes.is_empty() {
                self.group(&mut work)?;
            }
            for between in work.between.drain(..) {
                between(&self.connection);
            }
            work.clear();
            if looked.elapsed() >= FULL_RETRY {
                looked = Instant::now();
                self.look_at_space()?;
            }
        }
        Ok(())
    }

    /// One transaction: the front of the appends and all changes.
    fn group(&mut self, work: &mut Work) -> rusqlite::Result<()> {
        let rest = work.appends.split_off(work.appends.len().min(MAX_GROUP));
        let appends = std::mem::replace(&mut work.appends, rest);
        let mut changes = std::mem::take(&mut work.changes);
        let started = Instant::now();
        let first_seq = self.next_seq;

        let result = self.transaction(&appends, &mut changes);
        match result {
            Ok((outcomes, refused)) => {
                self.metrics.commit_seconds.observe(started.elapsed().as_secs_f64());
                self.metrics.commit_events.observe(appends.len() as f64);
                let stored = appends.len();
                self.publish(appends, outcomes);
                for (change, refused) in changes.into_iter().zip(refused) {
                    change.answer(refused.map_or(Ok(()), |error| Err(WriteError::Refused(error.to_string()))));
                }
                self.checkpoint(stored)
            }
            Err(error) => {
                self.next_seq = first_seq;
                let full = self.is_full(&error);
                let (append_error, write_error): (_, fn() -> WriteError) = if full {
                    (AppendError::Full, || WriteError::Full)
                } else {
                    (AppendError::Failed, || WriteError::Failed)
                };
                // First not ready, then refused.
                if full {
                    self.set_full(files::why_full(&error));
                } else {
                    self.shared.writable.store(false, Ordering::Relaxed);
                }
                for append in appends {
                    let _ = append.reply.send(Err(append_error));
                }
                for change in changes {
                    change.answer(Err(write_error()));
                }
                if !full {
                    return Err(error);
                }
                if self.connection.is_autocommit() { Ok(()) } else { self.connection.execute_batch("ROLLBACK") }
            }
        }
    }

    fn transaction(
        &mut self,
        appends: &[Append],
        changes: &mut [Box<dyn Change>],
    ) -> rusqlite::Result<(Vec<Appended>, Vec<Option<rusqlite::Error>>)> {
        let connection = &self.connection;
        connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let mut outcomes = Vec::with_capacity(appends.len());
        if !appends.is_empty() {
            let mut insert = Insert::prepare(connection)?;
            for append in appends {
                let outcome = insert.event(self.next_seq, append)?;
                if matches!(outcome, Appended::Stored { .. }) {
                    self.next_seq += 1;
                }
                outcomes.push(outcome);
            }
        }
        let mut refused = Vec::with_capacity(changes.len());
        for change in changes {
            connection.prepare_cached("SAVEPOINT change")?.execute([])?;
            let error = change.run(connection).err();
            if let Some(error) = error {
                if is_fatal(&error) || self.is_full(&error) {
                    return Err(error);
                }
                connection.prepare_cached("ROLLBACK TO change")?.execute([])?;
                refused.push(Some(error));
            } else {
                refused.push(None);
            }
            connection.prepare_cached("RELEASE change")?.execute([])?;
        }
        connection.prepare_cached("COMMIT")?.execute([])?;
        Ok((outcomes, refused))
    }

    /// After the commit: the events may be read, and their senders may know.
    fn publish(&self, appends: Vec<Append>, outcomes: Vec<Appended>) {
        if appends.is_empty() {
            return;
        }
        let mut answers =
            Answers { appends: Vec::with_capacity(appends.len()), head: self.next_seq - 1, evicted: Vec::new() };
        let committed = appends.into_iter().zip(outcomes).filter_map(|(append, outcome)| {
            answers.appends.push((append.reply, outcome));
            match outcome {
                Appended::Stored { seq } => Some(Arc::new(Stored { seq, event: append.event })),
                Appended::Duplicate { .. } => None,
            }
        });
        self.tail.push(committed, &mut answers.evicted);
        // Gone only when the runtime is shutting down.
        let _ = self.answers.blocking_send(answers);
    }

    /// Keeps the write-ahead log bounded: see [`checkpoint`](super::checkpoint).
    fn checkpoint(&mut self, events: usize) -> rusqlite::Result<()> {
        let (commits, before) = self.since_look;
        self.since_look = (commits + 1, before + events);
        let mut result = self.checkpointer.finish(&self.connection);
        if result.is_ok() && (self.since_look.0 >= LOOK_COMMITS || self.since_look.1 >= LOOK_EVENTS) {
            self.since_look = (0, 0);
            result = self.checkpointer.look(&self.connection);
        }
        match result {
            // What was committed is safe in the log.
            Err(error) if self.is_full(&error) => {
                self.set_full(files::why_full(&error));
                Ok(())
            }
            result => result,
        }
    }
}

/// The statements of an append, prepared once a group.
struct Insert<'c> {
    id: CachedStatement<'c>,
    first: CachedStatement<'c>,
    event: CachedStatement<'c>,
}

impl<'c> Insert<'c> {
    fn prepare(connection: &'c Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            id: connection.prepare_cached("INSERT OR IGNORE INTO ids VALUES (?1, ?2, ?3, ?4)")?,
            first: connection.prepare_cached("SELECT body_hash FROM ids WHERE id = ?1")?,
            event: connection.prepare_cached(
                "INSERT INTO events VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)",
            )?,
        })
    }

    fn event(&mut self, seq: u64, append: &Append) -> rusqlite::Result<Appended> {
        let event = &append.event;
        let id = event.id.as_bytes();
        let hash = append.body_hash.cast_signed();
        let keep_from = event.received_ms.max(event.created_ms);
        if self.id.execute(params![id, seq.cast_signed(), hash, keep_from])? == 0 {
            let first: Option<i64> = self.first.query_row([id], |row| row.get(0)).optional()?.flatten();
            return Ok(Appended::Duplicate { same_body: first.is_none_or(|first| first == hash) });
        }
        let fields = &event.fields;
        self.event.execute(params![
            seq.cast_signed(),
            id,
            event.kind.number(),
            &*event.endpoint,
            event.received_ms,
            event.created_ms,
            fields.event_name,
            fields.conversation_id,
            fields.user_id,
            fields.created_at,
            fields.status,
            fields.reason,
            fields.message_id,
            event.content_type,
            event.signature,
            event.lane().cast_signed(),
            append.checksum.cast_signed(),
            &*event.body,
        ])?;
        Ok(Appended::Stored { seq })
    }
}

fn refuse(work: &mut Work, error: AppendError) {
    for append in work.appends.drain(..) {
        let _ = append.reply.send(Err(error));
    }
    for change in work.changes.drain(..) {
        change.answer(Err(if error == AppendError::Full { WriteError::Full } else { WriteError::Failed }));
    }
    work.clear();
}

/// Errors after which the state of the file is not known.
fn is_fatal(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::SystemIoFailure
                | ErrorCode::DatabaseCorrupt
                | ErrorCode::NotADatabase
                | ErrorCode::CannotOpen
                | ErrorCode::ReadOnly
                | ErrorCode::FileLockingProtocolFailed
        )
    )
}
