//! The stored format, and how a database file is opened, checked and locked.
//!
//! | table | holds |
//! | --- | --- |
//! | `events` | one row an event that still has its bytes, keyed by `seq` |
//! | `ids` | every id that is still recognised, in the order of event time: the dedupe |
//! | `sinks` | a cursor a sink: everything up to it is settled or stands in one of the next three |
//! | `lanes` | a row for each conversation of a sink that has undelivered events behind its cursor, with its retry state |
//! | `parked` | those events |
//! | `dead` | events given up on |
//! | `marks` | how far every sink was, and when: tells what is past its retention |
//! | `meta` | `next_seq`: never smaller than any number given out before, so that none is reused |
//!
//! `events` and `ids` grow at their right edge only: nothing random is indexed on the way to a 200.
//! All integers of 64 bits that are unsigned in the code (sequence numbers aside) are stored bit for bit as signed.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _};

use super::files::{beside, explain, marker};
use super::wal;
use crate::journal::OpenError;

/// Format of the database; stored as `user_version`. A file with a larger one is refused.
pub(super) const VERSION: i64 = 1;
/// "finh": tells a finhook database from any other SQLite file.
const APPLICATION_ID: i64 = 0x6669_6e68;
/// Larger pages mean fewer of them for append-only tables: measured best for 1 KiB bodies.
const PAGE_BYTES: i64 = 16 * 1024;

/// How long a connection waits for another one's lock.
pub(super) const BUSY_PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

const TABLES: &str = "
CREATE TABLE events (
  seq INTEGER PRIMARY KEY,
  id BLOB NOT NULL,
  kind INTEGER NOT NULL,
  endpoint TEXT NOT NULL,
  received_ms INTEGER NOT NULL,
  created_ms INTEGER NOT NULL,
  event_name TEXT,
  conversation_id TEXT,
  user_id TEXT,
  created_at TEXT,
  status TEXT,
  reason TEXT,
  message_id TEXT,
  content_type TEXT,
  signature TEXT,
  lane INTEGER NOT NULL,
  checksum INTEGER NOT NULL,
  body BLOB NOT NULL
);
CREATE TABLE ids (
  id BLOB PRIMARY KEY,
  seq INTEGER NOT NULL,
  body_hash INTEGER,
  keep_from_ms INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE sinks (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL UNIQUE,
  start INTEGER NOT NULL,
  cursor INTEGER NOT NULL,
  paused INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE lanes (
  sink INTEGER NOT NULL,
  lane INTEGER NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0,
  rejections INTEGER NOT NULL DEFAULT 0,
  age_ms INTEGER NOT NULL DEFAULT 0,
  last_ms INTEGER NOT NULL DEFAULT 0,
  next_ms INTEGER NOT NULL,
  error TEXT,
  PRIMARY KEY (sink, lane)
) WITHOUT ROWID;
CREATE INDEX lanes_due ON lanes (sink, next_ms);
CREATE TABLE parked (
  sink INTEGER NOT NULL,
  lane INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  replay TEXT,
  PRIMARY KEY (sink, lane, seq)
) WITHOUT ROWID;
CREATE INDEX parked_by_seq ON parked (seq, sink);
CREATE TABLE dead (
  sink INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  attempts INTEGER NOT NULL,
  died_ms INTEGER NOT NULL,
  error TEXT NOT NULL,
  PRIMARY KEY (sink, seq)
) WITHOUT ROWID;
CREATE INDEX dead_by_seq ON dead (seq);
CREATE TABLE marks (at_ms INTEGER PRIMARY KEY, cursor INTEGER NOT NULL);
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO meta VALUES ('next_seq', 1);
";

/// Holds the journal's lock; dropped when the process lets go of the file.
#[derive(Debug)]
pub(super) struct Lock(#[expect(dead_code, reason = "the open file is the lock")] File);

/// Opens the file for writing: locked, of a known format, and with durability read back.
pub(super) fn open(path: &Path) -> Result<(Connection, Lock), OpenError> {
    let io_error = |error| OpenError::Io { path: path.to_owned(), error };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(io_error)?;
    }
    if path.is_dir() {
        return Err(io_error(io::Error::from(io::ErrorKind::IsADirectory)));
    }
    let lock = create_or_open(&beside(path, ".lock")).map_err(io_error)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(OpenError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(error)) => return Err(io_error(error)),
    }
    // Beside an empty database SQLite would delete the log, with all that stands in it.
    if std::fs::metadata(path).is_ok_and(|file| file.len() == 0) {
        if std::fs::metadata(beside(path, "-wal")).is_ok_and(|log| log.len() > 0) {
            return Err(OpenError::Damaged {
                path: path.to_owned(),
                why: "it is empty, but its log is not".to_owned(),
            });
        }
        tracing::warn!(
            path = %path.display(),
            "the journal's file was there, but empty: a new journal begins. If it held events, stop finhook and see \
             \"When the journal is damaged\" in docs/RECOVERY.md"
        );
    }
    // SQLite opens read-only what it may not write; say so now and not at the first event.
    create_or_open(path).map_err(io_error)?;
    sync_folders(path).map_err(io_error)?;

    let connection = connect(path, false)?;
    let sqlite = |error| explain(path, error);
    // A file that is refused is left as it is.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(sqlite)?;
    prepare(&connection, path)?;
    if marker(path).exists() {
        tracing::warn!(path = %path.display(), "the last run ended with an I/O error: checking the journal");
        check(&connection, path)?;
        std::fs::remove_file(marker(path)).map_err(io_error)?;
        tracing::info!("the journal is sound");
    }
    wal::fold(&connection, path)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false).map_err(sqlite)?;
    connection.pragma_update(None, "wal_autocheckpoint", 0).map_err(sqlite)?;
    // Deleted bodies are overwritten: a purge must leave nothing behind.
    connection.pragma_update(None, "secure_delete", "ON").map_err(sqlite)?;
    connection.pragma_update(None, "cache_size", -8 * 1024).map_err(sqlite)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok((connection, Lock(lock)))
}

/// Readable by finhook's user only: it holds customers' data. SQLite gives its log the same rights.
fn create_or_open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)
}

/// Makes the names of the file and of its folder outlast a power cut.
fn sync_folders(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    for folder in [folder, &folder.join("..")] {
        match File::open(folder).and_then(|folder| folder.sync_all()) {
            // The folder above may be one that finhook may not read; it was there before.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            result => result?,
        }
    }
    Ok(())
}

/// Opens one more connection to a file that [`open`] has prepared.
pub(super) fn connect(path: &Path, read_only: bool) -> Result<Connection, OpenError> {
    let access = if read_only { OpenFlags::SQLITE_OPEN_READ_ONLY } else { OpenFlags::SQLITE_OPEN_READ_WRITE };
    let connection = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .map_err(|error| explain(path, error))?;
    connection.pragma_update(None, "synchronous", "FULL").map_err(|error| explain(path, error))?;
    connection.pragma_update(None, "cache_size", -2 * 1024).map_err(|error| explain(path, error))?;
    // Readers meet a lock only while the log is being restarted: short.
    connection.busy_timeout(BUSY_PATIENCE).map_err(|error| explain(path, error))?;
    Ok(connection)
}

fn prepare(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let sqlite = |error| explain(path, error);
    let number = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(sqlite);
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(sqlite)?;
    let found = number("user_version")?;
    if tables > 0 && number("application_id")? != APPLICATION_ID {
        return Err(OpenError::Foreign { path: path.to_owned(), why: "it is another program's database".to_owned() });
    }
    if found > VERSION {
        return Err(OpenError::Newer { path: path.to_owned(), found, known: VERSION });
    }
    if tables == 0 {
        connection.pragma_update(None, "page_size", PAGE_BYTES).map_err(sqlite)?;
    }
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).map_err(sqlite)?;
    if mode != "wal" {
        return Err(OpenError::NotDurable {
            path: path.to_owned(),
            why: format!("journal_mode stays {mode}, not wal"),
        });
    }
    connection.pragma_update(None, "synchronous", "FULL").map_err(sqlite)?;
    let synchronous = number("synchronous")?;
    if synchronous != 2 {
        return Err(OpenError::NotDurable {
            path: path.to_owned(),
            why: format!("synchronous stays {synchronous}, not 2"),
        });
    }
    if tables == 0 {
        let script = format!(
            "BEGIN IMMEDIATE; {TABLES} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION}; COMMIT;"
        );
        connection.execute_batch(&script).map_err(sqlite)?;
    }
    Ok(())
}

/// Opens a journal that need not be this process's, and leaves it as it is.
pub(super) fn open_for_reading(path: &Path) -> Result<Connection, OpenError> {
    let connection = connect(path, true)?;
    let sqlite = |error| explain(path, error);
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(sqlite)?;
    let number = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(sqlite);
    if number("application_id")? != APPLICATION_ID {
        return Err(OpenError::Foreign { path: path.to_owned(), why: "it has not finhook's mark".to_owned() });
    }
    let found = number("user_version")?;
    if found > VERSION {
        return Err(OpenError::Newer { path: path.to_owned(), found, known: VERSION });
    }
    Ok(connection)
}

/// Reads the whole file and says whether it is sound. About half a second a million events.
pub(super) fn check(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let verdict: Option<String> = connection
        .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
        .optional()
        .map_err(|error| explain(path, error))?;
    match verdict.as_deref() {
        Some("ok") => Ok(()),
        other => Err(OpenError::Damaged {
            path: path.to_owned(),
            why: other.unwrap_or("the check said nothing").chars().take(200).collect(),
        }),
    }
}
