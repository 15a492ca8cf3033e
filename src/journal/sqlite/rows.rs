//! The columns of `events`, by name and place, and how a row becomes an event again.
//!
//! Each stored event carries a checksum over everything that is delivered of it. A row whose bytes changed on disk is
//! reported as [`Row::Damaged`], never as an event.

use std::sync::{Arc, LazyLock};

use uuid::Uuid;

use crate::event::{Event, Fields, Kind, Parts, Stored};
use crate::journal::Row;

/// The columns of `events` in the table's order.
const NAMES: [&str; 18] = [
    "seq",
    "id",
    "kind",
    "endpoint",
    "received_ms",
    "created_ms",
    "event_name",
    "conversation_id",
    "user_id",
    "created_at",
    "status",
    "reason",
    "message_id",
    "content_type",
    "signature",
    "lane",
    "checksum",
    "body",
];
const LANE: usize = 15;
const CHECKSUM: usize = 16;
const BODY: usize = 17;
/// Where the first column behind those of the event stands.
pub(super) const NEXT: usize = 18;

/// All of them, for a `SELECT`.
pub(super) static WHOLE: LazyLock<String> = LazyLock::new(|| NAMES.map(|name| format!("events.{name}")).join(", "));
/// The same with nothing in the place of the body, so that it need not be read.
pub(super) static WITHOUT_BODY: LazyLock<String> = LazyLock::new(|| {
    let names = NAMES.map(|name| if name == NAMES[BODY] { "x''".to_owned() } else { format!("events.{name}") });
    names.join(", ")
});

/// Reads a row of [`WHOLE`] and verifies the checksum.
pub(super) fn row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    let seq = row.get::<_, i64>(0)?.unsigned_abs();
    match event(row) {
        Ok(event) if event.checksum().cast_signed() == row.get::<_, i64>(CHECKSUM).unwrap_or_default() => {
            Ok(Row::Sound(Arc::new(Stored { seq, event })))
        }
        // A damaged row may hold values of any type in any column: not an error of the query.
        _ => Ok(Row::Damaged { seq, lane: lane(row).map_or(seq, i64::cast_unsigned) }),
    }
}

/// A row's lane as it is stored. A damaged row may hold anything.
pub(super) fn lane(row: &rusqlite::Row<'_>) -> rusqlite::Result<i64> {
    row.get(LANE)
}

/// Reads a row of [`WHOLE`] or [`WITHOUT_BODY`] without verifying anything.
pub(super) fn event(row: &rusqlite::Row<'_>) -> rusqlite::Result<Event> {
    Ok(Event::from_journal(Parts {
        id: Uuid::from_bytes(row.get(1)?),
        kind: Kind::from_number(row.get(2)?),
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
        body: row.get_ref(BODY)?.as_blob()?.to_vec().into(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::sqlite::schema;

    #[test]
    fn the_columns_are_those_of_the_table_in_its_order() {
        let directory = tempfile::tempdir().unwrap();
        let (connection, _lock) = schema::open(&directory.path().join("db")).unwrap();
        let table = connection.prepare("SELECT * FROM events").unwrap();
        assert!(table.column_names().eq(NAMES));
        assert_eq!((NAMES[LANE], NAMES[CHECKSUM], NAMES[BODY], NAMES.len()), ("lane", "checksum", "body", NEXT));
    }
}
