//! Keeps the write-ahead log bounded without holding up commits.
//!
//! A thread with a connection of its own copies the log back into the database while the writer goes on (passive
//! checkpoints, which wait for nobody and hold up nobody). Under steady load it never catches up with the newest
//! frames, so the log would never start over; so once the log is large and its bulk is copied, the writer copies the
//! few remaining frames itself between two commits, and its next transaction starts the log over.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use rusqlite::Connection;

use super::schema::{self, OpenError};

/// Size of the log from which it is copied back, in bytes.
const COPY_BYTES: u64 = 8 * 1024 * 1024;
/// Size of the log from which the writer finishes the copy, in bytes. The log may grow past it while the bulk is copied.
const RESTART_BYTES: u64 = 32 * 1024 * 1024;

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
    pub(super) fn start(path: PathBuf, page_bytes: u64) -> Result<(Self, JoinHandle<()>), OpenError> {
        let connection = schema::connect(&path, false)?;
        let (requests, receiver) = sync_channel(1);
        let bulk_copied = Arc::new(AtomicBool::new(false));
        let done = bulk_copied.clone();
        let thread = std::thread::Builder::new()
            .name("finhook-checkpoint".to_owned())
            .spawn(move || copy(&connection, &receiver, &done, page_bytes))
            .map_err(|error| OpenError::Io { path, error })?;
        Ok((Self { requests, bulk_copied, page_bytes }, thread))
    }

    /// Called by the writer between two commits.
    pub(super) fn look(&self, connection: &Connection) -> rusqlite::Result<()> {
        let log = checkpoint(connection, "NOOP")?;
        if (log.frames - log.copied) * self.page_bytes >= COPY_BYTES {
            // Full: a copy is under way and another is asked for already.
            let _ = self.requests.try_send(());
        }
        if self.bulk_copied.swap(false, Ordering::Relaxed) {
            checkpoint(connection, "PASSIVE")?;
        }
        Ok(())
    }
}

fn copy(connection: &Connection, requests: &Receiver<()>, bulk_copied: &AtomicBool, page_bytes: u64) {
    while requests.recv().is_ok() {
        match checkpoint(connection, "PASSIVE") {
            Ok(log) => bulk_copied.store(log.frames * page_bytes >= RESTART_BYTES, Ordering::Relaxed),
            // The writer meets the same disk and decides what that means.
            Err(error) => tracing::warn!(%error, "the journal's log could not be copied back"),
        }
    }
}

fn checkpoint(connection: &Connection, mode: &str) -> rusqlite::Result<Log> {
    connection.prepare_cached(&format!("PRAGMA wal_checkpoint({mode})"))?.query_row([], |row| {
        let frames = |column| row.get::<_, i64>(column).map(|frames| u64::try_from(frames).unwrap_or(0));
        Ok(Log { frames: frames(1)?, copied: frames(2)? })
    })
}
