//! What each sink has done: cursors, parked events, lanes, dead letters.
//!
//! A sink's cursor says that everything up to it is settled (delivered, skipped), parked, or dead. A healthy sink
//! therefore costs one small update a batch. Events that wait behind a failed one of their conversation are *parked*: a
//! row each, grouped in *lanes*; the lane's row holds the retry state of its oldest event.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::{Journal, WriteError};

/// A sink's number in the journal; a name keeps its number until it is forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SinkNumber(pub i64);

/// A sink as the journal knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkState {
    /// Its number.
    pub number: SinkNumber,
    /// Its name in the configuration.
    pub name: String,
    /// Events up to this one were there before the sink was, and are not its own.
    pub start: u64,
    /// Everything up to this one is settled, parked or dead.
    pub cursor: u64,
    /// Paused by an operator.
    pub paused: bool,
}

/// Retry state of the oldest parked event of a lane.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LaneState {
    /// Attempts made at its oldest event.
    pub attempts: u32,
    /// Those of them that the sink rejected while it was otherwise healthy.
    pub rejections: u32,
    /// Time spent failing while the sink was otherwise healthy, in milliseconds.
    pub age_ms: i64,
    /// The last attempt, unix milliseconds; 0 before the first.
    pub last_ms: i64,
    /// The next attempt, unix milliseconds.
    pub next_ms: i64,
    /// Why the last attempt failed.
    pub error: Option<Arc<str>>,
}

/// An event that leaves memory for the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Park {
    /// Its lane.
    pub lane: u64,
    /// Its place in the journal.
    pub seq: u64,
}

/// An event that is given up on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dead {
    /// Its place in the journal.
    pub seq: u64,
    /// Attempts made.
    pub attempts: u32,
    /// When, unix milliseconds.
    pub died_ms: i64,
    /// Why.
    pub error: Arc<str>,
}

/// What happened at one sink since the last settlement; applied in one transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settlement {
    /// The new cursor, if it moved.
    pub cursor: Option<u64>,
    /// Events to park. A lane that has no row yet gets one that is due at once.
    pub park: Vec<Park>,
    /// Parked events that are settled: (lane, seq).
    pub done: Vec<(u64, u64)>,
    /// Events to give up on; remove them from their lanes by `done` as well.
    pub dead: Vec<Dead>,
    /// New states of lanes. A lane that has no parked event left loses its row instead.
    pub lanes: Vec<(u64, LaneState)>,
}

impl Settlement {
    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cursor.is_none()
            && self.park.is_empty()
            && self.done.is_empty()
            && self.dead.is_empty()
            && self.lanes.is_empty()
    }

    fn apply(&self, connection: &Connection, sink: SinkNumber) -> rusqlite::Result<()> {
        let sink = sink.0;
        if !self.park.is_empty() {
            // An event that was purged meanwhile does not come back: its row would be in front of its lane for ever.
            let mut park = connection.prepare_cached(
                "INSERT OR IGNORE INTO parked SELECT ?1, ?2, ?3, NULL WHERE EXISTS (SELECT 1 FROM events WHERE seq = ?3)",
            )?;
            let mut lane =
                connection.prepare_cached("INSERT OR IGNORE INTO lanes (sink, lane, next_ms) VALUES (?1, ?2, 0)")?;
            let mut before = None;
            for Park { lane: number, seq } in &self.park {
                park.execute(params![sink, number.cast_signed(), seq.cast_signed()])?;
                // Many in a row are of one lane when that lane is the one that is blocked.
                if before.replace(number) != Some(number) {
                    lane.execute(params![sink, number.cast_signed()])?;
                }
            }
        }
        if !self.done.is_empty() {
            let mut done =
                connection.prepare_cached("DELETE FROM parked WHERE sink = ?1 AND lane = ?2 AND seq = ?3")?;
            for (lane, seq) in &self.done {
                done.execute(params![sink, lane.cast_signed(), seq.cast_signed()])?;
            }
        }
        if !self.dead.is_empty() {
            // An event that was purged or forgotten meanwhile leaves no dead letter behind.
            let mut dead = connection.prepare_cached(
                "INSERT OR REPLACE INTO dead SELECT ?1, ?2, ?3, ?4, ?5 WHERE EXISTS (SELECT 1 FROM events WHERE seq = ?2)",
            )?;
            for letter in &self.dead {
                dead.execute(params![sink, letter.seq.cast_signed(), letter.attempts, letter.died_ms, letter.error])?;
            }
        }
        if !self.lanes.is_empty() {
            let mut update = connection.prepare_cached(
                "UPDATE lanes SET attempts = ?3, rejections = ?4, age_ms = ?5, last_ms = ?6, next_ms = ?7, error = ?8
                 WHERE sink = ?1 AND lane = ?2 AND EXISTS (SELECT 1 FROM parked WHERE sink = ?1 AND lane = ?2)",
            )?;
            let mut drop = connection.prepare_cached(
                "DELETE FROM lanes WHERE sink = ?1 AND lane = ?2
                 AND NOT EXISTS (SELECT 1 FROM parked WHERE sink = ?1 AND lane = ?2)",
            )?;
            for (lane, state) in &self.lanes {
                let LaneState { attempts, rejections, age_ms, last_ms, next_ms, error } = state;
                let lane = lane.cast_signed();
                if update.execute(params![sink, lane, attempts, rejections, age_ms, last_ms, next_ms, error])? == 0 {
                    drop.execute(params![sink, lane])?;
                }
            }
        }
        if let Some(cursor) = self.cursor {
            connection
                .prepare_cached("UPDATE sinks SET cursor = ?2 WHERE number = ?1 AND cursor < ?2")?
                .execute(params![sink, cursor.cast_signed()])?;
        }
        Ok(())
    }
}

impl Journal {
    /// The state of a sink, made now if the journal has never seen its name: it then begins after the newest event, or with
    /// the oldest when `from_start`.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub async fn sink(&self, name: &str, from_start: bool) -> Result<SinkState, WriteError> {
        let name = name.to_owned();
        self.write(move |connection| {
            // Nothing is written for a sink that is known: finhook starts on a full disk too.
            if let Some(known) = sink_state(connection, &name)? {
                return Ok(known);
            }
            let start: i64 = if from_start {
                0
            } else {
                connection.query_row("SELECT coalesce(max(seq), 0) FROM events", [], |row| row.get(0))?
            };
            connection.execute("INSERT INTO sinks (name, start, cursor) VALUES (?1, ?2, ?2)", params![name, start])?;
            sink_state(connection, &name).map(|state| state.ok_or(rusqlite::Error::QueryReturnedNoRows))?
        })
        .await
    }

    /// Records what happened at a sink.
    ///
    /// # Errors
    /// See [`WriteError`]; nothing of it is recorded then, and it may be tried again as it is.
    pub async fn settle(&self, sink: SinkNumber, settlement: Arc<Settlement>) -> Result<(), WriteError> {
        self.write(move |connection| settlement.apply(connection, sink)).await
    }

    /// Remembers that an operator paused a sink, or ended the pause. False when there is no such sink.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub async fn set_paused(&self, name: &str, paused: bool) -> Result<bool, WriteError> {
        let name = name.to_owned();
        self.write(move |connection| {
            Ok(connection.execute("UPDATE sinks SET paused = ?2 WHERE name = ?1", params![name, paused])? > 0)
        })
        .await
    }
}

fn sink_state(connection: &Connection, name: &str) -> rusqlite::Result<Option<SinkState>> {
    connection
        .query_row("SELECT number, name, start, cursor, paused FROM sinks WHERE name = ?1", [name], read_sink)
        .optional()
}

pub(super) fn read_sink(row: &rusqlite::Row<'_>) -> rusqlite::Result<SinkState> {
    Ok(SinkState {
        number: SinkNumber(row.get(0)?),
        name: row.get(1)?,
        start: row.get::<_, i64>(2)?.unsigned_abs(),
        cursor: row.get::<_, i64>(3)?.unsigned_abs(),
        paused: row.get(4)?,
    })
}
