//! Keeps the write-ahead log bounded without holding up commits.
//!
//! A thread with a connection of its own copies the log back into the database while the writer goes on (passive
//! checkpoints, which wait for nobody and hold up nobody). Under steady load it never catches up with the newest
//! frames, so the log would never start over; so once the log is large and all but little of it is copied, the writer
//! copies the few remaining frames itself between two commits, and its next transaction starts the log over.
//!
//! SQLite syncs the database only at the end of a copy that has caught up, which under load is the writer's. So the
//! thread syncs what it copied before it calls the writer: otherwise that one would wait for the bulk of it (at full
//! load the 99.9th percentile of answers went from 25 to 18 ms).

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use rusqlite::Connection;

use super::schema;
use crate::journal::OpenError;

/// Size of the log from which it is copied back, in bytes.
const COPY_BYTES: u64 = 8 * 1024 * 1024;
/// Size of the log from which the writer finishes the copy, in bytes. The log may grow past it while the bulk is copied.
const RESTART_BYTES: u64 = 32 * 1024 * 1024;

/// What may be left for the writer to copy, in bytes.
const LEFT_BYTES: u64 = 1024 * 1024;
/// How often the thread follows the writer before it leaves the rest to it.
const ROUNDS: usize = 4;

/// The log, in frames of one page each.
struct Log {
    frames: u64,
    copied: u64,
}

/// The writer's side of the copying thread. Dropping it ends the thread.
pub(super) struct Checkpointer {
    /// Capacity 1: a request that finds one waiting has nothing to add.
    requests: SyncSender<()>,
    /// Set by the thread once the bulk of a large log is copied.
    bulk_copied: Arc<AtomicBool>,
    page_bytes: u64,
}

impl Checkpointer {
    /// `file` is the database's: it is open for as long as the journal, since closing it would drop SQLite's locks.
    pub(super) fn start(path: PathBuf, file: Arc<File>, page_bytes: u64) -> Result<(Self, JoinHandle<()>), OpenError> {
        let connection = schema::connect(&path, false)?;
        let (requests, receiver) = sync_channel(1);
        let bulk_copied = Arc::new(AtomicBool::new(false));
        let done = bulk_copied.clone();
        let thread = std::thread::Builder::new()
            .name("finhook-checkpoint".to_owned())
            .spawn(move || {
                while receiver.recv().is_ok() {
                    match copy_bulk(&connection, &file, page_bytes) {
                        Ok(large) => done.store(large, Ordering::Relaxed),
                        // The writer meets the same disk and decides what that means.
                        Err(error) => tracing::warn!(%error, "the journal's log could not be copied back"),
                    }
                }
            })
            .map_err(|error| OpenError::Io { path, error })?;
        Ok((Self { requests, bulk_copied, page_bytes }, thread))
    }

    /// Called by the writer now and then between two commits: has the log grown?
    pub(super) fn look(&self, connection: &Connection) -> rusqlite::Result<()> {
        let log = checkpoint(connection, "NOOP")?;
        if (log.frames - log.copied) * self.page_bytes >= COPY_BYTES {
            // Full: a copy is under way and another is asked for already.
            let _ = self.requests.try_send(());
        }
        Ok(())
    }

    /// Called by the writer after each commit: finishes the copy of a large log, so that it starts over.
    pub(super) fn finish(&self, connection: &Connection) -> rusqlite::Result<()> {
        if self.bulk_copied.swap(false, Ordering::Relaxed) {
            checkpoint(connection, "PASSIVE")?;
        }
        Ok(())
    }
}

/// Copies back what is in the log; true if it is large, and what is left of it is little or the writer too fast.
fn copy_bulk(connection: &Connection, file: &File, page_bytes: u64) -> Result<bool, CopyError> {
    let mut copied = 0;
    for _ in 0..ROUNDS {
        let log = checkpoint(connection, "PASSIVE")?;
        if log.frames * page_bytes < RESTART_BYTES {
            return Ok(false);
        }
        // Pages reach the disk here at the latest. The writer's connection has a file of its own, which is told of the
        // same error when SQLite syncs it.
        file.sync_data()?;
        if log.copied.saturating_sub(copied) * page_bytes <= LEFT_BYTES {
            break;
        }
        copied = log.copied;
    }
    Ok(true)
}

/// Why the log could not be copied.
#[derive(Debug, thiserror::Error)]
enum CopyError {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error(transparent)]
    Io(#[from] io::Error),
}

fn checkpoint(connection: &Connection, mode: &str) -> rusqlite::Result<Log> {
    connection.prepare_cached(&format!("PRAGMA wal_checkpoint({mode})"))?.query_row([], |row| {
        let frames = |column| row.get::<_, i64>(column).map(|frames| u64::try_from(frames).unwrap_or(0));
        Ok(Log { frames: frames(1)?, copied: frames(2)? })
    })
}
