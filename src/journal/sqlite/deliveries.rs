//! What each sink has done: cursors, parked events, lanes, dead letters.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::Store;
use crate::journal::{LaneState, Park, Settlement, SinkNumber, SinkState, WriteError};

impl Store {
    pub(in crate::journal) async fn sink(&self, name: &str, from_start: bool) -> Result<SinkState, WriteError> {
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

    pub(in crate::journal) async fn settle(
        &self,
        sink: SinkNumber,
        settlement: Arc<Settlement>,
    ) -> Result<(), WriteError> {
        self.write(move |connection| apply(&settlement, connection, sink)).await
    }

    pub(in crate::journal) async fn set_paused(&self, name: &str, paused: bool) -> Result<bool, WriteError> {
        let name = name.to_owned();
        self.write(move |connection| {
            Ok(connection.execute("UPDATE sinks SET paused = ?2 WHERE name = ?1", params![name, paused])? > 0)
        })
        .await
    }
}

/// Writes down what happened at a sink.
fn apply(settlement: &Settlement, connection: &Connection, sink: SinkNumber) -> rusqlite::Result<()> {
    let sink = sink.0;
    if !settlement.park.is_empty() {
        // An event that was purged meanwhile does not come back: its row would be in front of its lane for ever.
        let mut park = connection.prepare_cached(
            "INSERT OR IGNORE INTO parked SELECT ?1, ?2, ?3, NULL WHERE EXISTS (SELECT 1 FROM events WHERE seq = ?3)",
        )?;
        let mut lane =
            connection.prepare_cached("INSERT OR IGNORE INTO lanes (sink, lane, next_ms) VALUES (?1, ?2, 0)")?;
        let mut before = None;
        for Park { lane: number, seq } in &settlement.park {
            park.execute(params![sink, number.cast_signed(), seq.cast_signed()])?;
            // Many in a row are of one lane when that lane is the one that is blocked.
            if before.replace(number) != Some(number) {
                lane.execute(params![sink, number.cast_signed()])?;
            }
        }
    }
    if !settlement.done.is_empty() {
        let mut done = connection.prepare_cached("DELETE FROM parked WHERE sink = ?1 AND lane = ?2 AND seq = ?3")?;
        for (lane, seq) in &settlement.done {
            done.execute(params![sink, lane.cast_signed(), seq.cast_signed()])?;
        }
    }
    if !settlement.dead.is_empty() {
        // An event that was purged or forgotten meanwhile leaves no dead letter behind.
        let mut dead = connection.prepare_cached(
            "INSERT OR REPLACE INTO dead SELECT ?1, ?2, ?3, ?4, ?5 WHERE EXISTS (SELECT 1 FROM events WHERE seq = ?2)",
        )?;
        for letter in &settlement.dead {
            dead.execute(params![sink, letter.seq.cast_signed(), letter.attempts, letter.died_ms, letter.error])?;
        }
    }
    if !settlement.lanes.is_empty() {
        let mut update = connection.prepare_cached(
            "UPDATE lanes SET attempts = ?3, rejections = ?4, age_ms = ?5, last_ms = ?6, next_ms = ?7, error = ?8
             WHERE sink = ?1 AND lane = ?2 AND EXISTS (SELECT 1 FROM parked WHERE sink = ?1 AND lane = ?2)",
        )?;
        let mut drop = connection.prepare_cached(
            "DELETE FROM lanes WHERE sink = ?1 AND lane = ?2
             AND NOT EXISTS (SELECT 1 FROM parked WHERE sink = ?1 AND lane = ?2)",
        )?;
        for (lane, state) in &settlement.lanes {
            let LaneState { attempts, rejections, age_ms, last_ms, next_ms, error } = state;
            let lane = lane.cast_signed();
            if update.execute(params![sink, lane, attempts, rejections, age_ms, last_ms, next_ms, error])? == 0 {
                drop.execute(params![sink, lane])?;
            }
        }
    }
    if let Some(cursor) = settlement.cursor {
        connection
            .prepare_cached("UPDATE sinks SET cursor = ?2 WHERE number = ?1 AND cursor < ?2")?
            .execute(params![sink, cursor.cast_signed()])?;
    }
    Ok(())
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
