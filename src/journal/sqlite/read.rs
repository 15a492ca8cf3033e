//! Reading back: by cursor for the sinks, by lane for what is parked.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, params};

use super::rows::{self, NEXT, WHOLE};
use super::tail::Tail;
use crate::event::Stored;
use crate::journal::{DueLane, Fresh, LaneState, Parked, ReadError, Row, SinkNumber};

/// Bytes of bodies in one page of fresh events at most; the event that crosses it is the page's last.
const PAGE_BYTES: usize = 4 * 1024 * 1024;
/// The same for one page of parked events.
const CHUNK_BYTES: usize = 256 * 1024;
/// Parked lanes of a sink up to which they are read with each page, in place of a look-up for each event: one or two bad
/// conversations should cost the others nothing. Fewer than the conversations of the model test, which so goes both ways.
const FEW_LANES: usize = 2;

/// A connection that only reads. Clones share it and wait for each other.
#[derive(Debug, Clone)]
pub struct Reader {
    connection: Arc<Mutex<Connection>>,
    tail: Arc<Tail>,
    /// Up to where it has asked for fresh events.
    passed: Arc<AtomicU64>,
}

impl Reader {
    pub(super) fn new(connection: Connection, tail: Arc<Tail>) -> Self {
        connection.set_prepared_statement_cache_capacity(32);
        Self { connection: Arc::new(Mutex::new(connection)), passed: tail.follow(), tail }
    }

    /// Runs a query away from the runtime's threads.
    pub(super) async fn query<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, ReadError> {
        let connection = self.connection.clone();
        let run = move || {
            let connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            query(&connection).map_err(|error| ReadError(error.to_string()))
        };
        match tokio::task::spawn_blocking(run).await {
            Ok(result) => result,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }

    pub(in crate::journal) async fn after(
        &self,
        seq: u64,
        limit: usize,
        blocked_at: Option<SinkNumber>,
    ) -> Result<Vec<Fresh>, ReadError> {
        self.passed.store(seq, Ordering::Relaxed);
        if let Some(events) = self.tail.after(seq, limit) {
            return self.with_lanes(events, blocked_at).await;
        }
        self.query(move |connection| {
            let few = blocked_at.map_or(Ok(Some(Vec::new())), |sink| few_lanes(connection, sink))?;
            let blocked = match few {
                Some(_) => "?3",
                None => "EXISTS (SELECT 1 FROM lanes WHERE sink = ?3 AND lanes.lane = events.lane)",
            };
            let mut statement = connection.prepare_cached(&format!(
                "SELECT {}, {blocked} FROM events WHERE seq > ?1 ORDER BY seq LIMIT ?2",
                *WHOLE
            ))?;
            let sink = blocked_at.map_or(0, |sink| sink.0);
            let mut rows = statement.query(params![seq.cast_signed(), limit as i64, sink])?;
            let mut page = Vec::new();
            let (mut bytes, mut last) = (0, seq);
            while let Some(row) = rows.next()? {
                let read = rows::row(row)?;
                if read.seq() <= last {
                    return Err(out_of_order(last));
                }
                last = read.seq();
                bytes += body_bytes(&read);
                let blocked = match &few {
                    // A damaged row may hold anything for its lane.
                    Some(few) => rows::lane(row).is_ok_and(|lane| few.contains(&lane)),
                    None => row.get(NEXT)?,
                };
                page.push(Fresh { row: read, blocked });
                if bytes >= PAGE_BYTES {
                    break;
                }
            }
            Ok(page)
        })
        .await
    }

    /// Events that need not be read, but whose lanes may have to be looked up.
    async fn with_lanes(
        &self,
        events: Vec<Arc<Stored>>,
        blocked_at: Option<SinkNumber>,
    ) -> Result<Vec<Fresh>, ReadError> {
        let Some(sink) = blocked_at else {
            let fresh = |stored| Fresh { row: Row::Sound(stored), blocked: false };
            return Ok(events.into_iter().map(fresh).collect());
        };
        self.query(move |connection| {
            let few = few_lanes(connection, sink)?;
            let mut statement = connection.prepare_cached("SELECT 1 FROM lanes WHERE sink = ?1 AND lane = ?2")?;
            events
                .into_iter()
                .map(|stored| {
                    let lane = stored.event.lane().cast_signed();
                    let blocked = match &few {
                        Some(few) => few.contains(&lane),
                        None => statement.exists(params![sink.0, lane])?,
                    };
                    Ok(Fresh { row: Row::Sound(stored), blocked })
                })
                .collect()
        })
        .await
    }

    pub(in crate::journal) async fn due(
        &self,
        sink: SinkNumber,
        now_ms: i64,
        horizon_ms: i64,
        limit: usize,
    ) -> Result<(Vec<DueLane>, Option<i64>), ReadError> {
        self.query(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT lane, attempts, rejections, age_ms, last_ms, next_ms, error FROM lanes
                 WHERE sink = ?1 AND (next_ms <= ?2 OR next_ms > ?4) ORDER BY next_ms LIMIT ?3",
            )?;
            let due = statement
                .query_map(params![sink.0, now_ms, limit as i64, horizon_ms], |row| {
                    Ok(DueLane {
                        lane: row.get::<_, i64>(0)?.cast_unsigned(),
                        state: LaneState {
                            attempts: row.get(1)?,
                            rejections: row.get(2)?,
                            age_ms: row.get(3)?,
                            last_ms: row.get(4)?,
                            next_ms: row.get(5)?,
                            error: row.get(6)?,
                        },
                    })
                })?
                .collect::<rusqlite::Result<_>>()?;
            let next = connection
                .prepare_cached("SELECT min(next_ms) FROM lanes WHERE sink = ?1 AND next_ms > ?2")?
                .query_row(params![sink.0, now_ms], |row| row.get(0))?;
            Ok((due, next))
        })
        .await
    }

    pub(in crate::journal) async fn parked(
        &self,
        sink: SinkNumber,
        lane: u64,
        after: u64,
        limit: usize,
    ) -> Result<(Vec<Parked>, bool), ReadError> {
        self.query(move |connection| {
            let mut statement = connection.prepare_cached(&format!(
                "SELECT {}, parked.replay FROM parked JOIN events USING (seq)
                 WHERE parked.sink = ?1 AND parked.lane = ?2 AND parked.seq > ?3 ORDER BY parked.seq LIMIT ?4",
                *WHOLE
            ))?;
            let mut rows =
                statement.query(params![sink.0, lane.cast_signed(), after.cast_signed(), limit as i64 + 1])?;
            let mut page = Vec::new();
            let mut bytes = 0;
            while let Some(row) = rows.next()? {
                if page.len() == limit || bytes >= CHUNK_BYTES {
                    return Ok((page, true));
                }
                let read = rows::row(row)?;
                bytes += body_bytes(&read);
                page.push(Parked { row: read, replay: row.get(NEXT)? });
            }
            Ok((page, false))
        })
        .await
    }

    pub(in crate::journal) async fn beyond(&self, sink: SinkNumber, cursor: u64) -> Result<HashSet<u64>, ReadError> {
        self.query(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT seq FROM parked WHERE seq > ?2 AND sink = ?1 AND replay IS NULL
                 UNION SELECT seq FROM dead WHERE seq > ?2 AND sink = ?1",
            )?;
            let seqs = statement.query_map(params![sink.0, cursor.cast_signed()], |row| row.get::<_, i64>(0))?;
            seqs.map(|seq| seq.map(i64::unsigned_abs)).collect()
        })
        .await
    }

    pub(in crate::journal) async fn count_parked(&self, sink: SinkNumber) -> Result<i64, ReadError> {
        self.query(move |connection| {
            connection
                .prepare_cached("SELECT count(*) FROM parked WHERE sink = ?1")?
                .query_row([sink.0], |row| row.get(0))
        })
        .await
    }
}

/// A table whose keys do not ascend is damaged; a cursor must never move back.
fn out_of_order(seq: u64) -> rusqlite::Error {
    let corrupt = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
    rusqlite::Error::SqliteFailure(corrupt, Some(format!("the events behind number {seq} are out of order")))
}

fn body_bytes(row: &Row) -> usize {
    match row {
        Row::Sound(stored) => stored.event.body.len(),
        Row::Damaged { .. } => 0,
    }
}

/// A sink's parked lanes, if they are so few that it is cheaper to look through all of them for each event than to ask the
/// database.
fn few_lanes(connection: &Connection, sink: SinkNumber) -> rusqlite::Result<Option<Vec<i64>>> {
    let mut statement = connection.prepare_cached("SELECT lane FROM lanes WHERE sink = ?1 LIMIT ?2")?;
    let lanes: Vec<i64> = statement
        .query_map(params![sink.0, FEW_LANES as i64 + 1], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    Ok((lanes.len() <= FEW_LANES).then_some(lanes))
}
