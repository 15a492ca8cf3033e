//! Taking data back out: events whose bytes must go, and sinks that are to be forgotten.
//!
//! Deleting a row is not enough for its bytes to be gone: SQLite leaves old content in pages unless `secure_delete` is on (it is,
//! see [`schema`]), and the write-ahead log holds earlier versions of pages. So a purge is done only when the log was
//! copied back and cut to nothing ([`Store::erase`]), which is refused while a reader is busy, and therefore repeated.
//!
//! The id's row stays, so that a resend is a duplicate and brings nothing back. Sequence numbers are kept from being given
//! out again in the transaction that deletes.

use std::collections::BTreeSet;
use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension as _, params};

use super::retention::keep_numbers;
use super::{Store, schema, scrub};
use crate::journal::{EraseError, Removed, SinkNumber, WriteError};

/// Rows of a sink in one step of forgetting it.
const FORGET_STEP: i64 = 1000;
/// How long one try to cut the log waits for readers. Commits wait as long.
const CUT_PATIENCE: Duration = Duration::from_millis(20);
/// Pages wiped in one step; commits wait for it.
const WIPE_STEP: usize = 64;
/// Between two tries.
const CUT_PAUSE: Duration = Duration::from_millis(50);
/// How long to try at all.
const ERASE_PATIENCE: Duration = Duration::from_secs(60);

impl Store {
    pub(in crate::journal) async fn purge(&self, seqs: Vec<u64>) -> Result<Removed, WriteError> {
        let removed = self.write(move |connection| purge(connection, &seqs)).await?;
        // After the commit, and so after anything that was committed with it came into memory.
        self.tail.clear();
        Ok(removed)
    }

    pub(in crate::journal) async fn erase(&self) -> Result<(), EraseError> {
        let path = self.path.clone();
        let deadline = Instant::now() + ERASE_PATIENCE;
        let cut = move || {
            let connection = schema::connect(&path, false)?;
            connection.busy_timeout(CUT_PATIENCE).map_err(store)?;
            // The bulk is copied without holding up anybody; the rest with the writer waiting.
            while !(checkpoint(&connection, "PASSIVE").map_err(store)?
                && checkpoint(&connection, "TRUNCATE").map_err(store)?)
            {
                if Instant::now() >= deadline {
                    return Err(EraseError::Busy);
                }
                std::thread::sleep(CUT_PAUSE);
            }
            Ok(())
        };
        off_the_runtime(cut).await?;
        let file = self.file.clone();
        // What is left of deleted rows is in the file now, wherever it may be written again meanwhile.
        let pages = off_the_runtime(move || scrub::find(&file)).await.map_err(store)?;
        for step in pages.chunks(WIPE_STEP) {
            let step: Arc<[u64]> = step.into();
            loop {
                let (file, pages) = (self.file.clone(), step.clone());
                if self.between(move |connection| wipe(connection, &file, &pages)).await?? {
                    break;
                }
                if Instant::now() >= deadline {
                    return Err(EraseError::Busy);
                }
                tokio::time::sleep(CUT_PAUSE).await;
            }
        }
        Ok(())
    }

    pub(in crate::journal) async fn forget_sink(&self, sink: SinkNumber) -> Result<bool, WriteError> {
        self.write(move |connection| {
            let sink = sink.0;
            for sql in [
                "DELETE FROM parked WHERE sink = ?1
                 AND (lane, seq) IN (SELECT lane, seq FROM parked WHERE sink = ?1 LIMIT ?2)",
                "DELETE FROM lanes WHERE sink = ?1 AND lane IN (SELECT lane FROM lanes WHERE sink = ?1 LIMIT ?2)",
                "DELETE FROM dead WHERE sink = ?1 AND seq IN (SELECT seq FROM dead WHERE sink = ?1 LIMIT ?2)",
            ] {
                if connection.execute(sql, params![sink, FORGET_STEP])? > 0 {
                    return Ok(false);
                }
            }
            connection.execute("DELETE FROM sinks WHERE number = ?1", [sink])?;
            Ok(true)
        })
        .await
    }
}

/// Wipes these pages on the writer's thread. False when a reader was in the way.
fn wipe(connection: &Connection, file: &File, pages: &[u64]) -> Result<bool, EraseError> {
    connection.busy_timeout(CUT_PATIENCE).map_err(store)?;
    let cut = checkpoint(connection, "TRUNCATE");
    connection.busy_timeout(schema::BUSY_PATIENCE).map_err(store)?;
    if !cut.map_err(store)? {
        return Ok(false);
    }
    // The cache may hold the pages as they were.
    connection.execute_batch("PRAGMA shrink_memory").map_err(store)?;
    scrub::wipe(file, pages).map_err(store)?;
    Ok(true)
}

fn store(error: impl ToString) -> EraseError {
    EraseError::Store(error.to_string())
}

async fn off_the_runtime<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

/// True when nobody was in the way.
fn checkpoint(connection: &Connection, mode: &str) -> rusqlite::Result<bool> {
    let busy: rusqlite::Result<bool> =
        connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| row.get(0));
    match busy {
        Ok(busy) => Ok(!busy),
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) => Ok(false),
        Err(error) => Err(error),
    }
}

fn purge(connection: &Connection, seqs: &[u64]) -> rusqlite::Result<Removed> {
    let mut parked = connection.prepare_cached("SELECT sink, lane FROM parked WHERE seq = ?1")?;
    // The retry state is that of the oldest event: the next one begins anew.
    let mut reset = connection.prepare_cached(
        "DELETE FROM lanes WHERE sink = ?1 AND lane = ?2
         AND ?3 = (SELECT min(seq) FROM parked WHERE sink = ?1 AND lane = ?2)",
    )?;
    let mut lane_of_rest = connection.prepare_cached(
        "INSERT OR IGNORE INTO lanes (sink, lane, next_ms)
         SELECT ?1, ?2, 0 WHERE EXISTS (SELECT 1 FROM parked WHERE sink = ?1 AND lane = ?2)",
    )?;
    let mut unpark = connection.prepare_cached("DELETE FROM parked WHERE seq = ?1")?;
    let mut bury = connection.prepare_cached("DELETE FROM dead WHERE seq = ?1")?;
    let mut event = connection.prepare_cached("DELETE FROM events WHERE seq = ?1 RETURNING id, length(body)")?;
    let mut id = connection.prepare_cached("UPDATE ids SET body_hash = NULL WHERE id = ?1")?;

    keep_numbers(connection, seqs.iter().max().map_or(0, |seq| seq.cast_signed()))?;
    let mut removed = Removed::default();
    let mut lanes = BTreeSet::new();
    for seq in seqs.iter().map(|seq| seq.cast_signed()) {
        let of_it: Vec<(i64, i64)> =
            parked.query_map([seq], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<rusqlite::Result<_>>()?;
        for (sink, lane) in of_it {
            reset.execute(params![sink, lane, seq])?;
            lanes.insert((sink, lane));
        }
        unpark.execute([seq])?;
        bury.execute([seq])?;
        let gone: Option<(Vec<u8>, i64)> = event.query_row([seq], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        if let Some((event_id, bytes)) = gone {
            id.execute([event_id])?;
            removed.events += 1;
            removed.bytes += bytes.unsigned_abs();
        }
    }
    for (sink, lane) in lanes {
        lane_of_rest.execute(params![sink, lane])?;
    }
    Ok(removed)
}
