//! Sending events again: replays, and dead letters that are retried.
//!
//! Both become parked events in lanes of their own: a replay's lane is made from the replay's id and the event's lane. So
//! the events of a conversation keep their order within one replay, and what comes newly waits for none of them.
//! Everything here is one bounded step; callers repeat it, so that commits of events go on between.

use std::sync::Arc;

use rusqlite::{Connection, params};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::Store;
use crate::journal::{REPLAY_STEP, Retried, SinkNumber, WriteError};

impl Store {
    pub(in crate::journal) async fn replay(
        &self,
        sink: SinkNumber,
        replay: Arc<str>,
        seqs: Vec<u64>,
    ) -> Result<u64, WriteError> {
        self.write(move |connection| {
            let mut lanes = Lanes::prepare(connection, sink, &replay)?;
            seqs.iter().try_fold(0, |sum, seq| Ok(sum + u64::from(lanes.add(*seq, Some(&replay))?)))
        })
        .await
    }

    pub(in crate::journal) async fn retry_dead(
        &self,
        sink: SinkNumber,
        retry: Arc<str>,
        after: u64,
    ) -> Result<Retried, WriteError> {
        self.write(move |connection| {
            let seqs: Vec<u64> = connection
                .prepare_cached("SELECT seq FROM dead WHERE sink = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3")?
                .query_map(params![sink.0, after.cast_signed(), REPLAY_STEP as i64], |row| row.get::<_, i64>(0))?
                .map(|seq| seq.map(i64::unsigned_abs))
                .collect::<rusqlite::Result<_>>()?;
            let mut lanes = Lanes::prepare(connection, sink, &retry)?;
            let mut bury = connection.prepare_cached("DELETE FROM dead WHERE sink = ?1 AND seq = ?2")?;
            let mut events = 0;
            for seq in &seqs {
                events += u64::from(lanes.add(*seq, None)?);
                bury.execute(params![sink.0, seq.cast_signed()])?;
            }
            Ok(Retried { events, next: seqs.last().copied().filter(|_| seqs.len() == REPLAY_STEP) })
        })
        .await
    }
}

/// Parks events of a sink in lanes that belong to one replay or retry.
struct Lanes<'c> {
    sink: i64,
    seed: u64,
    lane_of: rusqlite::CachedStatement<'c>,
    park: rusqlite::CachedStatement<'c>,
    lane: rusqlite::CachedStatement<'c>,
}

impl<'c> Lanes<'c> {
    fn prepare(connection: &'c Connection, sink: SinkNumber, id: &str) -> rusqlite::Result<Self> {
        Ok(Self {
            sink: sink.0,
            seed: xxh3_64(id.as_bytes()),
            lane_of: connection.prepare_cached("SELECT lane FROM events WHERE seq = ?1")?,
            park: connection.prepare_cached("INSERT OR IGNORE INTO parked VALUES (?1, ?2, ?3, ?4)")?,
            lane: connection.prepare_cached("INSERT OR IGNORE INTO lanes (sink, lane, next_ms) VALUES (?1, ?2, 0)")?,
        })
    }

    /// False when the event is gone.
    fn add(&mut self, seq: u64, replay: Option<&str>) -> rusqlite::Result<bool> {
        let mut rows = self.lane_of.query([seq.cast_signed()])?;
        let Some(row) = rows.next()? else { return Ok(false) };
        let lane = xxh3_64_with_seed(&row.get::<_, i64>(0)?.to_le_bytes(), self.seed).cast_signed();
        let added = self.park.execute(params![self.sink, lane, seq.cast_signed(), replay])? > 0;
        self.lane.execute(params![self.sink, lane])?;
        Ok(added)
    }
}
