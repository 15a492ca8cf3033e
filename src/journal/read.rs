//! Reading back: by cursor for the sinks, by lane for what is parked.
//!
//! Each stored event carries a checksum over everything that is delivered of it. A row whose bytes changed on disk is
//! reported as [`Row::Damaged`], never as an event.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, params};
use uuid::Uuid;

use super::deliveries::{LaneState, SinkNumber};
use super::tail::Tail;
use crate::event::{Event, Fields, Kind, Parts, Stored};

/// What [`read_row`] reads, in its order.
pub(super) const COLUMNS: &str = "seq, id, kind, endpoint, received_ms, created_ms, event_name, conversation_id, user_id, created_at, \
                       status, reason, message_id, content_type, signature, lane, checksum, body";

/// Bytes of bodies in one page of fresh events at most; the event that crosses it is the page's last.
const PAGE_BYTES: usize = 4 * 1024 * 1024;
/// The same for one page of parked events.
const CHUNK_BYTES: usize = 256 * 1024;
/// Parked lanes of a sink up to which they are read with each page, in place of a look-up for each event: one or two bad
/// conversations should cost the others nothing. Fewer than the conversations of the model test, which so goes both ways.
const FEW_LANES: usize = 2;

/// The file could not be read.
#[derive(Debug, thiserror::Error)]
#[error("the journal could not be read: {0}")]
pub struct ReadError(#[from] rusqlite::Error);

/// One row of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Row {
    /// As it was stored.
    Sound(Arc<Stored>),
    /// What is on disk is not what was stored.
    Damaged {
        /// Its place in the journal.
        seq: u64,
        /// Its lane, as far as that can be read.
        lane: u64,
    },
}

impl Row {
    /// Its place in the journal.
    #[must_use]
    pub fn seq(&self) -> u64 {
        match self {
            Self::Sound(stored) => stored.seq,
            Self::Damaged { seq, .. } => *seq,
        }
    }

    /// Its lane.
    #[must_use]
    pub fn lane(&self) -> u64 {
        match self {
            Self::Sound(stored) => stored.event.lane(),
            Self::Damaged { lane, .. } => *lane,
        }
    }
}

/// An event after a sink's cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fresh {
    /// The event.
    pub row: Row,
    /// Whether its lane has parked events.
    pub blocked: bool,
}

/// A lane whose oldest parked event is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueLane {
    /// The lane.
    pub lane: u64,
    /// Its retry state.
    pub state: LaneState,
}

/// A parked event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parked {
    /// The event.
    pub row: Row,
    /// The replay that asked for it, if one did.
    pub replay: Option<Arc<str>>,
}

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
    ///
    /// # Errors
    /// The file could not be read.
    pub async fn query<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, ReadError> {
        let connection = self.connection.clone();
        let run = move || query(&connection.lock().unwrap_or_else(PoisonError::into_inner)).map_err(ReadError);
        match tokio::task::spawn_blocking(run).await {
            Ok(result) => result,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }

    /// The events after `seq` in order, `limit` at most. `blocked_at` names a sink that has parked events, whose
    /// lanes must then be looked up.
    ///
    /// # Errors
    /// The file could not be read.
    pub async fn after(&self, seq: u64, limit: usize, blocked_at: Option<SinkNumber>) -> Result<Vec<Fresh>, ReadError> {
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
                "SELECT {COLUMNS}, {blocked} FROM events WHERE seq > ?1 ORDER BY seq LIMIT ?2"
            ))?;
            let sink = blocked_at.map_or(0, |sink| sink.0);
            let mut rows = statement.query(params![seq.cast_signed(), limit as i64, sink])?;
            let mut page = Vec::new();
            let (mut bytes, mut last) = (0, seq);
            while let Some(row) = rows.next()? {
                let read = read_row(row)?;
                if read.seq() <= last {
                    return Err(out_of_order(last));
                }
                last = read.seq();
                bytes += body_bytes(&read);
                let blocked = match &few {
                    // A damaged row may hold anything for its lane.
                    Some(few) => row.get(15).is_ok_and(|lane| few.contains(&lane)),
                    None => row.get(18)?,
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

    /// The lanes of a sink that are due at `now_ms`, longest due first, and when the next one will be. A lane that is due
    /// after `horizon_ms` is due now: no lane waits that long, so the clock has jumped.
    ///
    /// # Errors
    /// The file could not be read.
    pub async fn due(
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

    /// The oldest parked events of a lane after `after`, in order, `limit` at most, and whether there are more behind them.
    ///
    /// # Errors
    /// The file could not be read.
    pub async fn parked(
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
                COLUMNS.replace("lane", "events.lane")
            ))?;
            let mut rows =
                statement.query(params![sink.0, lane.cast_signed(), after.cast_signed(), limit as i64 + 1])?;
            let mut page = Vec::new();
            let mut bytes = 0;
            while let Some(row) = rows.next()? {
                if page.len() == limit || bytes >= CHUNK_BYTES {
                    return Ok((page, true));
                }
                let read = read_row(row)?;
                bytes += body_bytes(&read);
                page.push(Parked { row: read, replay: row.get(18)? });
            }
            Ok((page, false))
        })
        .await
    }
}

impl Reader {
    /// Events beyond a sink's cursor that are parked for it or dead: a crash came before the cursor could move past them.
    ///
    /// # Errors
    /// The file could not be read.
    pub async fn beyond(&self, sink: SinkNumber, cursor: u64) -> Result<HashSet<u64>, ReadError> {
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

    /// Parked events of a sink.
    ///
    /// # Errors
    /// The file could not be read.
    pub async fn count_parked(&self, sink: SinkNumber) -> Result<i64, ReadError> {
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

/// Reads the columns of [`COLUMNS`] and verifies the checksum.
pub(super) fn read_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    let seq = row.get::<_, i64>(0)?.unsigned_abs();
    let lane = row.get::<_, i64>(15).map(i64::cast_unsigned);
    match read_event(row) {
        Ok(event) if event.checksum().cast_signed() == row.get::<_, i64>(16).unwrap_or_default() => {
            Ok(Row::Sound(Arc::new(Stored { seq, event })))
        }
        // A damaged row may hold values of any type in any column: not an error of the query.
        _ => Ok(Row::Damaged { seq, lane: lane.unwrap_or(seq) }),
    }
}

/// A kind as it is stored.
pub(super) fn kind(number: i64) -> Kind {
    match number {
        0 => Kind::Event,
        1 => Kind::Stale,
        _ => Kind::Quarantined,
    }
}

/// Reads the columns of [`COLUMNS`] without verifying anything.
pub(super) fn read_event(row: &rusqlite::Row<'_>) -> rusqlite::Result<Event> {
    Ok(Event::from_journal(Parts {
        id: Uuid::from_bytes(row.get(1)?),
        kind: kind(row.get(2)?),
        endpoint: row.get(3)?,
        received_ms: row.get(4)?,
        created_ms: row.get(5)?,
        fields: Fields {
            event_name: row.get(6)?,
            conversation_id: row.get(7)?,
            user_id: row.get(8)?,
            created_at: row.get(9)?,
            status: row.get(10)?,
            reason: row.get(11)?,
            message_id: row.get(12)?,
        },
        content_type: row.get(13)?,
        signature: row.get(14)?,
        body: row.get_ref(17)?.as_blob()?.to_vec().into(),
    }))
}
