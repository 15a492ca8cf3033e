//! Deletes what is past its time, in small steps, each in a group commit of its own size; the freed pages are used again.

use std::time::Duration;

use rusqlite::{Connection, params};

use super::{Reader, Store};
use crate::config;
use crate::journal::{Expired, RetentionError, WriteError};

/// Rows looked at, and deleted, in one step.
const STEP: usize = 256;
/// Passes after which events that had to be kept are looked at again.
const RESCAN: u32 = 60;
/// Marks kept for one retention time: how exactly its end is met.
const MARKS: u32 = 100;

/// Deletes what is due.
#[derive(Debug)]
pub struct Retention {
    store: Store,
    reader: Reader,
    retention_ms: i64,
    dedupe_window_ms: i64,
    /// Events up to here were deleted, or had to be kept when they were last looked at.
    looked_to: u64,
    passes: u32,
}

impl Retention {
    /// For a store that was opened with the same settings.
    pub(super) fn new(store: Store, reader: Reader, config: &config::Journal) -> Self {
        let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self {
            store,
            reader,
            retention_ms: millis(config.retention),
            dedupe_window_ms: millis(config.dedupe_window),
            looked_to: 0,
            passes: 0,
        }
    }

    /// Deletes all that is due at `now_ms` (unix milliseconds).
    pub(in crate::journal) async fn pass(&mut self, now_ms: i64) -> Result<Expired, RetentionError> {
        self.passes += 1;
        if self.passes.is_multiple_of(RESCAN) {
            self.looked_to = 0;
        }
        let settled = self.settled_long_enough(now_ms).await?;
        let mut removed = Expired::default();
        while self.looked_to < settled {
            removed.events += self.delete_events(settled).await?;
        }
        let mut after = Vec::new();
        while let Some(last) = self.forget_ids(&after, now_ms, &mut removed.ids).await? {
            after = last;
        }
        Ok(removed)
    }

    /// Notes how far every sink is, and returns how far every sink was a retention time ago.
    async fn settled_long_enough(&self, now_ms: i64) -> Result<u64, WriteError> {
        let retention_ms = self.retention_ms;
        self.store
            .write(move |connection| {
                let settled: i64 = connection.query_row(
                    "SELECT coalesce(min(cursor), (SELECT coalesce(max(seq), 0) FROM events)) FROM sinks",
                    [],
                    |row| row.get(0),
                )?;
                let newest: Option<i64> = connection.query_row("SELECT max(at_ms) FROM marks", [], |row| row.get(0))?;
                // A clock that jumped back leaves marks in the future: they would keep everything for as long.
                connection.execute("DELETE FROM marks WHERE at_ms > ?1", [now_ms])?;
                if newest.is_none_or(|newest| {
                    now_ms.saturating_sub(newest) >= retention_ms / i64::from(MARKS) || newest > now_ms
                }) {
                    connection.execute("INSERT OR REPLACE INTO marks VALUES (?1, ?2)", params![now_ms, settled])?;
                }
                let due = now_ms.saturating_sub(retention_ms);
                let long_enough: i64 = connection.query_row(
                    "SELECT coalesce(max(cursor), 0) FROM marks WHERE at_ms <= ?1",
                    [due],
                    |row| row.get(0),
                )?;
                connection.execute(
                    "DELETE FROM marks WHERE at_ms < (SELECT max(at_ms) FROM marks WHERE at_ms <= ?1)",
                    [due],
                )?;
                // A sink that was added meanwhile with from = "start" needs what others are done with.
                Ok(long_enough.min(settled).unsigned_abs())
            })
            .await
    }

    /// One step over the events; returns how many were deleted.
    async fn delete_events(&mut self, settled: u64) -> Result<u64, RetentionError> {
        let after = self.looked_to;
        let (seqs, last) = self
            .reader
            .query(move |connection| {
                let mut statement = connection.prepare_cached(
                    "SELECT seq, EXISTS (SELECT 1 FROM parked WHERE parked.seq = events.seq)
                              OR EXISTS (SELECT 1 FROM dead WHERE dead.seq = events.seq)
                     FROM events WHERE seq > ?1 AND seq <= ?2 ORDER BY seq LIMIT ?3",
                )?;
                let mut rows = statement.query(params![after.cast_signed(), settled.cast_signed(), STEP as i64])?;
                let (mut seqs, mut last) = (Vec::new(), settled);
                let mut seen = 0;
                while let Some(row) = rows.next()? {
                    seen += 1;
                    let seq: i64 = row.get(0)?;
                    if !row.get::<_, bool>(1)? {
                        seqs.push(seq);
                    }
                    if seen == STEP {
                        last = seq.unsigned_abs();
                    }
                }
                Ok((seqs, last))
            })
            .await?;
        let deleted = if seqs.is_empty() { 0 } else { self.store.write(move |c| delete(c, &seqs)).await? };
        self.looked_to = last;
        Ok(deleted)
    }

    /// One step over the ids; returns the last one looked at, `None` at the end.
    async fn forget_ids(
        &self,
        after: &[u8],
        now_ms: i64,
        forgotten: &mut u64,
    ) -> Result<Option<Vec<u8>>, RetentionError> {
        let cutoff_ms = now_ms.saturating_sub(self.dedupe_window_ms).max(0);
        // Ids begin with six bytes of time.
        let end = cutoff_ms.to_be_bytes()[2..].to_vec();
        let after = after.to_vec();
        let (ids, last) = self
            .reader
            .query(move |connection| {
                let mut statement = connection.prepare_cached(
                    "SELECT id, keep_from_ms, EXISTS (SELECT 1 FROM events WHERE events.seq = ids.seq)
                     FROM ids WHERE id > ?1 AND id < ?2 ORDER BY id LIMIT ?3",
                )?;
                let mut rows = statement.query(params![after, end, STEP as i64])?;
                let (mut ids, mut last, mut seen) = (Vec::new(), None, 0);
                while let Some(row) = rows.next()? {
                    seen += 1;
                    let id: Vec<u8> = row.get(0)?;
                    let (keep_from, stored): (i64, bool) = (row.get(1)?, row.get(2)?);
                    last = (seen == STEP).then(|| id.clone());
                    if keep_from < cutoff_ms && !stored {
                        ids.push(id);
                    }
                }
                Ok((ids, last))
            })
            .await?;
        if !ids.is_empty() {
            *forgotten += self
                .store
                .write(move |connection| {
                    let mut forget = connection.prepare_cached("DELETE FROM ids WHERE id = ?1")?;
                    ids.iter().try_fold(0, |sum, id| Ok(sum + forget.execute([id])? as u64))
                })
                .await?;
        }
        Ok(last)
    }
}

/// Deletes events that still nobody needs; a replay may have been asked for since they were chosen.
fn delete(connection: &Connection, seqs: &[i64]) -> rusqlite::Result<u64> {
    keep_numbers(connection, seqs.iter().copied().max().unwrap_or(0))?;
    let mut delete = connection.prepare_cached(
        "DELETE FROM events WHERE seq = ?1
         AND NOT EXISTS (SELECT 1 FROM parked WHERE parked.seq = ?1) AND NOT EXISTS (SELECT 1 FROM dead WHERE dead.seq = ?1)",
    )?;
    seqs.iter().try_fold(0, |sum, seq| Ok(sum + delete.execute([seq])? as u64))
}

/// To be called with every deletion of events, in its transaction: no number up to `seq` is given out again.
pub(super) fn keep_numbers(connection: &Connection, seq: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE meta SET value = max(value, ?1 + 1) WHERE key = 'next_seq'")?
        .execute([seq])
        .map(drop)
}
