//! The file: conversations, and which events are theirs. Rebuilt rather than repaired.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, OptionalExtension as _, Row, params};
use uuid::Uuid;

use super::{Conversation, Cursor, Failed, Filter, Page};
use crate::event::names::AWAITING;
use crate::event::{Kind, Stored};

/// A file with another one is begun anew.
const VERSION: i64 = 1;
/// Conversations that one call looks at, at most.
const SCAN: usize = 10_000;
/// Bytes of one page of a list: strangers choose how long ids are.
const PAGE_BYTES: usize = 4 * 1024 * 1024;

const SCHEMA: &str = "
PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; PRAGMA secure_delete = ON;
PRAGMA cache_size = -4096; PRAGMA wal_autocheckpoint = 4000;
BEGIN;
CREATE TABLE IF NOT EXISTS position (one INTEGER PRIMARY KEY, cursor INTEGER NOT NULL, id BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS conversations (
    number INTEGER PRIMARY KEY, endpoint TEXT NOT NULL, id TEXT NOT NULL, state TEXT, reason TEXT, last_event TEXT NOT NULL,
    first_ms INTEGER NOT NULL, last_ms INTEGER NOT NULL, events INTEGER NOT NULL, awaiting_ms INTEGER, UNIQUE (id, endpoint)
) STRICT;
CREATE INDEX IF NOT EXISTS by_time ON conversations (last_ms, number);
CREATE TABLE IF NOT EXISTS events (conversation INTEGER NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (conversation, seq))
    STRICT, WITHOUT ROWID;
COMMIT;";

const COLUMNS: &str = "number, endpoint, id, state, reason, last_event, first_ms, last_ms, events, awaiting_ms";

/// An event's place in the file.
pub(super) type Member = (i64, u64);

/// The file, opened when it is first asked something. Clones share a connection and wait for each other.
#[derive(Debug, Clone)]
pub(super) struct Store {
    path: Arc<PathBuf>,
    open: Arc<Mutex<Option<Open>>>,
}

/// An open file.
#[derive(Debug)]
pub(super) struct Open(Connection);

impl Store {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path: Arc::new(path), open: Arc::default() }
    }

    /// Asks the file something, away from the runtime's threads. After an error it is opened again, and begun anew if it is not
    /// sound: whoever follows finds its position gone.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Open) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Failed> {
        let store = self.clone();
        let asked = tokio::task::spawn_blocking(move || {
            let mut open = store.open.lock().unwrap_or_else(PoisonError::into_inner);
            let file = match open.take() {
                Some(file) => file,
                None => Open::at(&store.path)?,
            };
            let answer = question(&file)?;
            *open = Some(file);
            Ok(answer)
        });
        match asked.await {
            Ok(answer) => answer,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }

    /// Throws everything away.
    pub(super) async fn begin_anew(&self) -> Result<(), Failed> {
        let store = self.clone();
        let removed = tokio::task::spawn_blocking(move || {
            let mut open = store.open.lock().unwrap_or_else(PoisonError::into_inner);
            *open = None;
            remove(&store.path);
        });
        removed.await.map_err(|error| Failed(error.to_string()))
    }
}

fn remove(path: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        let mut file = path.as_os_str().to_owned();
        file.push(suffix);
        // What is not there is gone; what can't be removed shows when it is opened.
        let _ = std::fs::remove_file(file);
    }
}

impl Open {
    fn at(path: &Path) -> rusqlite::Result<Self> {
        Self::try_at(path).or_else(|_| {
            remove(path);
            Self::try_at(path)
        })
    }

    fn try_at(path: &Path) -> rusqlite::Result<Self> {
        // Ids of customers stand in it.
        drop(private(path));
        let connection = Connection::open(path)?;
        let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if version != VERSION && version != 0 {
            return Err(rusqlite::Error::InvalidQuery);
        }
        connection.execute_batch(SCHEMA)?;
        connection.pragma_update(None, "user_version", VERSION)?;
        connection.set_prepared_statement_cache_capacity(16);
        Ok(Self(connection))
    }

    /// How far the journal has been read: its event's number and id.
    pub(super) fn position(&self) -> rusqlite::Result<Option<(u64, Uuid)>> {
        let mut statement = self.0.prepare_cached("SELECT cursor, id FROM position")?;
        let read = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?.unsigned_abs(), Uuid::from_bytes(row.get(1)?)));
        statement.query_row([], read).optional()
    }

    /// Takes events in, which must be the next ones; `cursor` and `id` are those of the last one that was read.
    pub(super) fn take(&self, events: &[Stored], cursor: u64, id: Uuid) -> rusqlite::Result<()> {
        let changes = changes(events);
        let connection = &self.0;
        let transaction = connection.unchecked_transaction()?;
        {
            let mut upsert = connection.prepare_cached(
                "INSERT INTO conversations (endpoint, id, state, reason, last_event, first_ms, last_ms, events, awaiting_ms)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
                 ON CONFLICT (id, endpoint) DO UPDATE SET
                     awaiting_ms = CASE WHEN excluded.state IS NULL THEN awaiting_ms
                         WHEN ?10 AND state IS excluded.state THEN awaiting_ms ELSE excluded.awaiting_ms END,
                     reason = CASE WHEN excluded.state IS NULL THEN reason ELSE excluded.reason END,
                     state = coalesce(excluded.state, state), last_event = excluded.last_event,
                     first_ms = min(first_ms, excluded.first_ms), last_ms = max(last_ms, excluded.last_ms),
                     events = events + excluded.events
                 RETURNING number",
            )?;
            let mut member = connection.prepare_cached("INSERT OR IGNORE INTO events VALUES (?1, ?2)")?;
            for ((id, endpoint), change) in changes {
                let Change { state, reason, last_event, first_ms, last_ms, awaiting_ms, awaited, seqs } = change;
                let events = seqs.len() as i64;
                let values =
                    params![endpoint, id, state, reason, last_event, first_ms, last_ms, events, awaiting_ms, awaited];
                let number: i64 = upsert.query_row(values, |row| row.get(0))?;
                for seq in seqs {
                    member.execute(params![number, seq.cast_signed()])?;
                }
            }
            let mut position = connection.prepare_cached("INSERT OR REPLACE INTO position VALUES (1, ?1, ?2)")?;
            position.execute(params![cursor.cast_signed(), id.as_bytes()])?;
        }
        transaction.commit()
    }

    pub(super) fn list(&self, filter: &Filter, from: Option<Cursor>, limit: usize) -> rusqlite::Result<Page> {
        let (before_ms, before) = from.unwrap_or((i64::MAX, i64::MAX));
        let until_ms = filter.until_ms.unwrap_or(i64::MAX);
        let mut statement = self.0.prepare_cached(&format!(
            "SELECT {COLUMNS} FROM conversations WHERE (last_ms, number) < (?1, ?2) AND last_ms >= ?3 AND last_ms < ?4
             ORDER BY last_ms DESC, number DESC LIMIT {SCAN}"
        ))?;
        let since_ms = filter.since_ms.unwrap_or(i64::MIN);
        let mut rows = statement.query(params![before_ms, before, since_ms, until_ms])?;
        let (mut conversations, mut seen, mut bytes) = (Vec::new(), 0, 0);
        while let Some(row) = rows.next()? {
            seen += 1;
            let found = read(row)?;
            let next = Some((found.last_ms, found.number));
            if filter.means(&found) {
                bytes += found.bytes();
                conversations.push(found);
            }
            if conversations.len() == limit || seen == SCAN || bytes > PAGE_BYTES {
                return Ok(Page { conversations, next });
            }
        }
        Ok(Page { conversations, next: None })
    }

    pub(super) fn find(&self, id: &str, endpoint: Option<&str>) -> rusqlite::Result<Vec<Conversation>> {
        let mut statement = self.0.prepare_cached(&format!(
            "SELECT {COLUMNS} FROM conversations WHERE id = ?1 AND (?2 IS NULL OR endpoint = ?2) ORDER BY endpoint"
        ))?;
        statement.query_map(params![id, endpoint], read)?.collect()
    }

    pub(super) fn events(&self, number: i64, after: u64, limit: usize) -> rusqlite::Result<Vec<u64>> {
        let mut statement = self
            .0
            .prepare_cached("SELECT seq FROM events WHERE conversation = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3")?;
        let rows =
            statement.query_map(params![number, after.cast_signed(), limit as i64], |row| row.get::<_, i64>(0))?;
        rows.map(|seq| seq.map(i64::unsigned_abs)).collect()
    }

    /// The members behind `after`, `limit` at most.
    pub(super) fn members(&self, after: Member, limit: usize) -> rusqlite::Result<Vec<Member>> {
        let mut statement = self.0.prepare_cached(
            "SELECT conversation, seq FROM events WHERE (conversation, seq) > (?1, ?2) ORDER BY conversation, seq LIMIT ?3",
        )?;
        let read = |row: &Row<'_>| Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs()));
        statement.query_map(params![after.0, after.1.cast_signed(), limit as i64], read)?.collect()
    }

    /// Forgets members, and conversations that have none left.
    pub(super) fn forget(&self, members: &[Member]) -> rusqlite::Result<()> {
        let transaction = self.0.unchecked_transaction()?;
        for (conversation, seq) in members {
            self.0
                .prepare_cached("DELETE FROM events WHERE conversation = ?1 AND seq = ?2")?
                .execute(params![conversation, seq.cast_signed()])?;
            self.0
                .prepare_cached("UPDATE conversations SET events = events - 1 WHERE number = ?1")?
                .execute([conversation])?;
            self.0
                .prepare_cached("DELETE FROM conversations WHERE number = ?1 AND events <= 0")?
                .execute([conversation])?;
        }
        transaction.commit()
    }

    /// Leaves no copy of what was forgotten in the log.
    pub(super) fn fold(&self) -> rusqlite::Result<()> {
        self.0.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
    }
}

/// Makes the file, if it is new, so that only this user can read it.
fn private(path: &Path) -> std::io::Result<std::fs::File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn read(row: &Row<'_>) -> rusqlite::Result<Conversation> {
    Ok(Conversation {
        number: row.get(0)?,
        endpoint: row.get(1)?,
        id: row.get(2)?,
        state: row.get(3)?,
        reason: row.get(4)?,
        last_event: row.get(5)?,
        first_ms: row.get(6)?,
        last_ms: row.get(7)?,
        events: row.get::<_, i64>(8)?.unsigned_abs(),
        awaiting_ms: row.get(9)?,
    })
}

impl Conversation {
    /// What strangers chose the length of.
    fn bytes(&self) -> usize {
        let texts = [Some(&self.id), Some(&self.last_event), self.state.as_ref(), self.reason.as_ref()];
        texts.into_iter().flatten().map(String::len).sum()
    }
}

impl Filter {
    fn means(&self, it: &Conversation) -> bool {
        self.endpoint.as_ref().is_none_or(|endpoint| *endpoint == it.endpoint)
            && self.state.as_ref().is_none_or(|state| it.state.as_ref() == Some(state))
            && self.prefix.as_ref().is_none_or(|prefix| it.id.starts_with(prefix.as_str()))
    }
}

/// What a page of events changes of one conversation.
struct Change<'e> {
    state: Option<&'e str>,
    reason: Option<&'e str>,
    last_event: &'e str,
    first_ms: i64,
    last_ms: i64,
    /// Since when it has been the user's turn, if it is at the end of the page.
    awaiting_ms: Option<i64>,
    /// It has been so from the first state of the page on: then an earlier time counts.
    awaited: bool,
    seqs: Vec<u64>,
}

fn changes(events: &[Stored]) -> HashMap<(&str, &str), Change<'_>> {
    let mut changes: HashMap<(&str, &str), Change<'_>> = HashMap::new();
    for stored in events {
        let (event, fields) = (&stored.event, &stored.event.fields);
        let (Some(id), Kind::Event) = (fields.conversation_id.as_deref(), event.kind) else { continue };
        let at = if event.created_ms > 0 { event.created_ms } else { event.received_ms };
        let change = changes.entry((id, &event.endpoint)).or_insert_with(|| Change {
            state: None,
            reason: None,
            last_event: "",
            first_ms: at,
            last_ms: at,
            awaiting_ms: None,
            awaited: true,
            seqs: Vec::new(),
        });
        change.seqs.push(stored.seq);
        change.first_ms = change.first_ms.min(at);
        change.last_ms = change.last_ms.max(at);
        change.last_event = fields.event_name.as_deref().unwrap_or_default();
        if let Some(status) = fields.status.as_deref() {
            change.awaiting_ms = match change.awaiting_ms {
                Some(since) if status == AWAITING => Some(since),
                _ => (status == AWAITING).then_some(at),
            };
            change.awaited &= status == AWAITING;
            (change.state, change.reason) = (Some(status), fields.reason.as_deref());
        }
    }
    changes
}

#[cfg(test)]
mod tests;
