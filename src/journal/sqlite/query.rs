//! Questions of people: which events are there, what became of one, how do the sinks stand?
//!
//! Nothing but the sequence number and the id is indexed, so a list is a scan. One call looks at a bounded number of rows
//! and says where to go on; no call holds a snapshot for long.

use std::collections::HashSet;

use rusqlite::{Connection, OptionalExtension as _, params};
use uuid::Uuid;

use super::Reader;
use super::deliveries::read_sink;
use super::rows::{self, NEXT, WHOLE, WITHOUT_BODY};
use crate::event::{Event, Fields, Kind, Stored};
use crate::journal::{
    CLOCK_SLACK_MS, Delivery, DeliveryState, EventState, Filter, Found, Listed, Order, Page, ReadError, Resolved, Row,
    SinkReport, SinkState, Wants,
};

/// Rows that one call looks at, at most.
const SCAN: usize = 10_000;
/// Bytes of one page of a list: strangers choose how long the fields are.
const PAGE_BYTES: usize = 4 * 1024 * 1024;
/// The same when each row's state at the sinks must be looked up.
const SCAN_STATES: usize = 2_000;

impl Reader {
    pub(in crate::journal) async fn list(
        &self,
        filter: Filter,
        order: Order,
        from: Option<u64>,
        limit: usize,
        wants: Wants,
    ) -> Result<Page, ReadError> {
        self.query(move |connection| list(connection, &filter, order, from, limit, &wants)).await
    }

    pub(in crate::journal) async fn purged(
        &self,
        from: Option<Uuid>,
        limit: usize,
    ) -> Result<(Vec<(Uuid, u64)>, Option<Uuid>), ReadError> {
        self.query(move |connection| {
            let from = from.unwrap_or(Uuid::max());
            let mut statement = connection.prepare_cached(
                "SELECT id, seq, EXISTS (SELECT 1 FROM events WHERE events.seq = ids.seq)
                 FROM ids WHERE id < ?1 ORDER BY id DESC LIMIT ?2",
            )?;
            let mut rows = statement.query(params![from.as_bytes(), SCAN as i64])?;
            let (mut found, mut seen) = (Vec::new(), 0);
            while let Some(row) = rows.next()? {
                seen += 1;
                let id = Uuid::from_bytes(row.get(0)?);
                if !row.get::<_, bool>(2)? {
                    found.push((id, row.get::<_, i64>(1)?.unsigned_abs()));
                }
                if found.len() == limit || seen == SCAN {
                    return Ok((found, Some(id)));
                }
            }
            Ok((found, None))
        })
        .await
    }

    pub(in crate::journal) async fn find(
        &self,
        id: Uuid,
        with_body: bool,
        wants: Wants,
    ) -> Result<Option<Found>, ReadError> {
        self.query(move |connection| {
            let Some(seq) = seq_of(connection, &id)? else { return Ok(None) };
            let columns: &str = if with_body { &WHOLE } else { &WITHOUT_BODY };
            let mut statement =
                connection.prepare_cached(&format!("SELECT {columns}, length(body) FROM events WHERE seq = ?1"))?;
            let mut rows = statement.query([seq])?;
            let seq = seq.unsigned_abs();
            let Some(row) = rows.next()? else { return Ok(Some(Found::Purged { seq })) };
            let event = if with_body {
                match rows::row(row)? {
                    Row::Sound(stored) => stored.event.clone(),
                    Row::Damaged { .. } => return Ok(Some(Found::Damaged { seq })),
                }
            } else {
                match rows::event(row) {
                    Ok(event) => event,
                    Err(_) => return Ok(Some(Found::Damaged { seq })),
                }
            };
            let body_bytes = row.get::<_, i64>(NEXT)?.unsigned_abs();
            let mut deliveries = Vec::new();
            for sink in sinks(connection)? {
                deliveries.push(delivery(connection, &sink, seq, &event, &wants)?);
            }
            Ok(Some(Found::Stored(Box::new(Listed { seq, event, body_bytes, delivery: None }), deliveries)))
        })
        .await
    }

    pub(in crate::journal) async fn skim(
        &self,
        seq: u64,
        limit: usize,
    ) -> Result<(Vec<Stored>, Option<u64>), ReadError> {
        self.query(move |connection| {
            let sql = format!("SELECT {} FROM events WHERE seq > ?1 ORDER BY seq LIMIT ?2", *WITHOUT_BODY);
            let mut statement = connection.prepare_cached(&sql)?;
            let mut rows = statement.query(params![seq.cast_signed(), limit as i64])?;
            let (mut events, mut last, mut bytes) = (Vec::new(), None, 0);
            while bytes <= PAGE_BYTES
                && let Some(row) = rows.next()?
            {
                let seq = row.get::<_, i64>(0)?.unsigned_abs();
                last = Some(seq);
                if let Ok(event) = rows::event(row) {
                    bytes += fields_bytes(&event);
                    events.push(Stored { seq, event });
                }
            }
            Ok((events, last))
        })
        .await
    }

    pub(in crate::journal) async fn show(
        &self,
        seqs: Vec<u64>,
        wants: Wants,
    ) -> Result<Vec<(Listed, Vec<Delivery>)>, ReadError> {
        self.query(move |connection| {
            let sinks = sinks(connection)?;
            let mut statement = connection.prepare_cached(&format!("SELECT {} FROM events WHERE seq = ?1", *WHOLE))?;
            let (mut shown, mut bytes) = (Vec::new(), 0);
            for seq in seqs {
                let mut rows = statement.query([seq.cast_signed()])?;
                let Some(Row::Sound(stored)) = rows.next()?.map(rows::row).transpose()? else { continue };
                bytes += stored.event.body.len();
                if bytes > PAGE_BYTES && !shown.is_empty() {
                    break;
                }
                let event = stored.event.clone();
                let deliveries = sinks.iter().map(|sink| delivery(connection, sink, seq, &event, &wants));
                let deliveries = deliveries.collect::<rusqlite::Result<_>>()?;
                let body_bytes = event.body.len() as u64;
                shown.push((Listed { seq, event, body_bytes, delivery: None }, deliveries));
            }
            Ok(shown)
        })
        .await
    }

    pub(in crate::journal) async fn stored(&self, seqs: Vec<u64>) -> Result<HashSet<u64>, ReadError> {
        self.query(move |connection| {
            let mut statement = connection.prepare_cached("SELECT EXISTS (SELECT 1 FROM events WHERE seq = ?1)")?;
            let mut stored = HashSet::new();
            for seq in seqs {
                if statement.query_row([seq.cast_signed()], |row| row.get::<_, bool>(0))? {
                    stored.insert(seq);
                }
            }
            Ok(stored)
        })
        .await
    }

    pub(in crate::journal) async fn resolve(&self, ids: Vec<Uuid>) -> Result<Vec<Resolved>, ReadError> {
        self.query(move |connection| {
            let mut event = connection.prepare_cached("SELECT kind, length(body) FROM events WHERE seq = ?1")?;
            ids.iter()
                .map(|id| {
                    let Some(seq) = seq_of(connection, id)? else { return Ok(Resolved::Unknown) };
                    let stored = event
                        .query_row([seq], |row| {
                            Ok(Resolved::Stored {
                                seq: seq.unsigned_abs(),
                                state: Kind::from_number(row.get(0)?).into(),
                                body_bytes: row.get::<_, i64>(1)?.unsigned_abs(),
                            })
                        })
                        .optional()?;
                    Ok(stored.unwrap_or(Resolved::Purged))
                })
                .collect()
        })
        .await
    }

    pub(in crate::journal) async fn sinks(&self) -> Result<Vec<SinkReport>, ReadError> {
        self.query(|connection| sinks(connection)?.into_iter().map(|sink| report(connection, sink)).collect()).await
    }
}

fn seq_of(connection: &Connection, id: &Uuid) -> rusqlite::Result<Option<i64>> {
    let mut statement = connection.prepare_cached("SELECT seq FROM ids WHERE id = ?1")?;
    statement.query_row([id.as_bytes()], |row| row.get(0)).optional()
}

fn sinks(connection: &Connection) -> rusqlite::Result<Vec<SinkState>> {
    let mut statement =
        connection.prepare_cached("SELECT number, name, start, cursor, paused FROM sinks ORDER BY name")?;
    statement.query_map([], read_sink)?.collect()
}

fn report(connection: &Connection, state: SinkState) -> rusqlite::Result<SinkReport> {
    let number = state.number.0;
    let count = |sql: &str| -> rusqlite::Result<u64> {
        connection.prepare_cached(sql)?.query_row([number], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs)
    };
    let parked = count("SELECT count(*) FROM parked WHERE sink = ?1")?;
    let dead = count("SELECT count(*) FROM dead WHERE sink = ?1")?;
    // A replay is of an event that was delivered once, or may be: it does not make the sink late.
    let waiting: Option<i64> = if parked == 0 {
        None
    } else {
        connection
            .prepare_cached(
                "SELECT seq FROM parked INDEXED BY parked_by_seq WHERE sink = ?1 AND replay IS NULL ORDER BY seq LIMIT 1",
            )?
            .query_row([number], |row| row.get(0))
            .optional()?
    };
    let oldest_ms = connection
        .prepare_cached(
            "SELECT received_ms FROM events WHERE seq = coalesce(?2, (SELECT min(seq) FROM events WHERE seq > ?1))",
        )?
        .query_row(params![state.cursor.cast_signed(), waiting], |row| row.get(0))
        .optional()?;
    Ok(SinkReport { state, parked, dead, oldest_ms })
}

fn list(
    connection: &Connection,
    filter: &Filter,
    order: Order,
    from: Option<u64>,
    limit: usize,
    wants: &Wants,
) -> rusqlite::Result<Page> {
    let end = Page { events: Vec::new(), next: None };
    let kind = match filter.state {
        None => None,
        Some(EventState::Stored) => Some(Kind::Event.number()),
        Some(EventState::Stale) => Some(Kind::Stale.number()),
        Some(EventState::Quarantined) => Some(Kind::Quarantined.number()),
        Some(EventState::Purged) => return Ok(end),
    };
    let mut sinks = sinks(connection)?;
    if let Some(name) = &filter.sink {
        sinks.retain(|sink| sink.name == *name);
    }
    let looks_at_sinks = filter.sink.is_some() || filter.delivery.is_some();
    // Where the rows are found, and before which none of the kind can be.
    let (source, floor) = match filter.delivery {
        Some(DeliveryState::Dead) => ("dead", 0),
        Some(DeliveryState::Retrying | DeliveryState::Waiting) => ("parked", 0),
        Some(DeliveryState::Pending) => ("events", sinks.iter().map(|sink| sink.cursor).min().unwrap_or(0)),
        _ => ("events", 0),
    };
    let budget = if looks_at_sinks { SCAN_STATES } else { SCAN };
    let (above, below, end_of_scan, sorted) = match order {
        Order::Newest => (floor, from.unwrap_or(i64::MAX as u64), "min", "DESC"),
        Order::Oldest => (floor.max(from.unwrap_or(0)), i64::MAX as u64, "max", "ASC"),
    };
    let (bound, seen): (Option<i64>, i64) = connection
        .prepare_cached(&format!(
            "SELECT {end_of_scan}(seq), count(*) FROM
             (SELECT seq FROM {source} WHERE seq > ?1 AND seq < ?2 ORDER BY seq {sorted} LIMIT ?3)"
        ))?
        .query_row(params![above.cast_signed(), below.cast_signed(), budget as i64], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    let Some(bound) = bound else { return Ok(end) };
    let (first, last) = match order {
        Order::Newest => (bound, below.cast_signed().saturating_sub(1)),
        Order::Oldest => (above.cast_signed().saturating_add(1), bound),
    };
    let of_source = if source == "events" {
        String::new()
    } else {
        format!("AND seq IN (SELECT seq FROM {source} WHERE seq BETWEEN ?1 AND ?2)")
    };
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {}, length(body) FROM events WHERE seq BETWEEN ?1 AND ?2 {of_source}
         AND (?3 IS NULL OR conversation_id = ?3) AND (?4 IS NULL OR user_id = ?4) AND (?5 IS NULL OR event_name = ?5)
         AND (?6 IS NULL OR received_ms >= ?6) AND (?7 IS NULL OR received_ms < ?7) AND (?8 IS NULL OR kind = ?8)
         AND (?9 IS NULL OR status = ?9)
         ORDER BY seq {sorted}",
        *WITHOUT_BODY
    ))?;
    let Filter { conversation, user, event, status, since_ms, until_ms, .. } = filter;
    let mut rows =
        statement.query(params![first, last, conversation, user, event, since_ms, until_ms, kind, status])?;
    let (mut events, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let seq = row.get::<_, i64>(0)?.unsigned_abs();
        let Ok(event) = rows::event(row) else {
            tracing::warn!(seq, "an event's bytes on disk are damaged; it is left out of the list");
            continue;
        };
        let delivery = if looks_at_sinks {
            let Some(state) = wanted_state(connection, filter, &sinks, seq, &event, wants)? else { continue };
            Some(state)
        } else {
            None
        };
        bytes += fields_bytes(&event);
        events.push(Listed { seq, event, body_bytes: row.get::<_, i64>(NEXT)?.unsigned_abs(), delivery });
        if events.len() == limit || bytes >= PAGE_BYTES {
            return Ok(Page { events, next: Some(seq) });
        }
    }
    let is_last = seen < budget as i64 || is_past(connection, bound, order, filter)?;
    Ok(Page { events, next: (!is_last).then_some(bound.unsigned_abs()) })
}

fn fields_bytes(event: &Event) -> usize {
    let Fields { event_name, conversation_id, user_id, created_at, status, reason, message_id } = &event.fields;
    let all = [event_name, conversation_id, user_id, created_at, status, reason, message_id];
    all.into_iter().flatten().map(|text| text.len()).sum()
}

/// Whether nothing beyond `seq` can have been received in the time that is asked for.
fn is_past(connection: &Connection, seq: i64, order: Order, filter: &Filter) -> rusqlite::Result<bool> {
    let received_ms: Option<i64> = connection
        .prepare_cached("SELECT received_ms FROM events WHERE seq = ?1")?
        .query_row([seq], |row| row.get(0))
        .optional()?;
    Ok(received_ms.is_some_and(|received_ms| match order {
        Order::Newest => filter.since_ms.is_some_and(|since| received_ms < since.saturating_sub(CLOCK_SLACK_MS)),
        Order::Oldest => filter.until_ms.is_some_and(|until| received_ms > until.saturating_add(CLOCK_SLACK_MS)),
    }))
}

/// The state that makes an event one of those that the filter means, if it is.
fn wanted_state(
    connection: &Connection,
    filter: &Filter,
    sinks: &[SinkState],
    seq: u64,
    event: &Event,
    wants: &Wants,
) -> rusqlite::Result<Option<DeliveryState>> {
    for sink in sinks {
        let state = delivery(connection, sink, seq, event, wants)?.state;
        if filter.delivery.map_or(state != DeliveryState::Skipped, |wanted| state == wanted) {
            return Ok(Some(state));
        }
    }
    Ok(None)
}

fn delivery(
    connection: &Connection,
    sink: &SinkState,
    seq: u64,
    event: &Event,
    wants: &Wants,
) -> rusqlite::Result<Delivery> {
    let blank = |state| Delivery {
        sink: sink.name.clone(),
        state,
        attempts: (state != DeliveryState::Delivered).then_some(0),
        next_ms: None,
        died_ms: None,
        error: None,
        replay: None,
    };
    let key = params![sink.number.0, seq.cast_signed()];
    let dead = connection
        .prepare_cached("SELECT attempts, died_ms, error FROM dead WHERE sink = ?1 AND seq = ?2")?
        .query_row(key, |row| {
            Ok(Delivery {
                attempts: row.get(0)?,
                died_ms: row.get(1)?,
                error: row.get(2)?,
                ..blank(DeliveryState::Dead)
            })
        })
        .optional()?;
    if let Some(dead) = dead {
        return Ok(dead);
    }
    let parked = connection
        .prepare_cached(
            "SELECT parked.replay, lanes.attempts, lanes.next_ms, lanes.error,
                    (SELECT min(seq) FROM parked AS all_of_it WHERE all_of_it.sink = parked.sink AND all_of_it.lane = parked.lane)
             FROM parked LEFT JOIN lanes USING (sink, lane)
             WHERE parked.sink = ?1 AND parked.seq = ?2 ORDER BY parked.replay IS NOT NULL LIMIT 1",
        )?
        .query_row(key, |row| {
            let replay = row.get(0)?;
            let attempts = row.get::<_, Option<u32>>(1)?.unwrap_or(0);
            let is_oldest = row.get::<_, i64>(4)?.unsigned_abs() == seq;
            Ok(if is_oldest && attempts > 0 {
                Delivery { replay, attempts: Some(attempts), next_ms: row.get(2)?, error: row.get(3)?, ..blank(DeliveryState::Retrying) }
            } else {
                Delivery { replay, ..blank(DeliveryState::Waiting) }
            })
        })
        .optional()?;
    if let Some(parked) = parked {
        return Ok(parked);
    }
    Ok(blank(if event.kind != Kind::Event || seq <= sink.start || !wants(&sink.name, event) {
        DeliveryState::Skipped
    } else if seq > sink.cursor {
        DeliveryState::Pending
    } else {
        DeliveryState::Delivered
    }))
}
