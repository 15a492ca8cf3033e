//! A consistent copy of a journal, while finhook runs on it or not.
//!
//! It is made in one read transaction: what is committed later is not in it. For that time the write-ahead log can't begin anew, so
//! it grows by what is stored meanwhile; commits don't wait.

use std::path::Path;

use rusqlite::Connection;
use tempfile::NamedTempFile;

use super::rows::{self, WHOLE};
use super::schema;
use crate::journal::{Backup, BackupError, Row};

/// Copies the journal in `from` to `to`, which must not exist, and checks the copy.
pub(in crate::journal) fn backup(from: &Path, to: &Path) -> Result<Backup, BackupError> {
    let target = |error| BackupError::Target { path: to.to_owned(), error };
    if to.try_exists().map_err(target)? {
        return Err(BackupError::Exists { path: to.to_owned() });
    }
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Removed unless it is kept; readable by its owner alone.
    let copy = NamedTempFile::with_prefix_in(".finhook-backup-", folder).map_err(target)?;

    let source = schema::open_for_reading(from)?;
    let name = copy.path().to_str().ok_or_else(|| target(std::io::ErrorKind::InvalidFilename.into()))?;
    // Without the holes that retention has left, so it is no larger than what is in it.
    source.execute("VACUUM INTO ?1", [name]).map_err(|error| failed(from, to, &error))?;
    drop(source);

    let made = schema::open_for_reading(copy.path())?;
    schema::check(&made, copy.path())?;
    let (events, damaged) = read_all(&made).map_err(|error| failed(from, to, &error))?;
    drop(made);
    copy.as_file().sync_all().map_err(target)?;
    let bytes = copy.as_file().metadata().map_err(target)?.len();
    copy.persist_noclobber(to).map_err(|error| target(error.error))?;
    std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(target)?;
    Ok(Backup { events, damaged, bytes })
}

/// How many events are sound, and how many are not.
fn read_all(copy: &Connection) -> rusqlite::Result<(u64, u64)> {
    let mut statement = copy.prepare(&format!("SELECT {} FROM events ORDER BY seq", *WHOLE))?;
    let mut all = statement.query([])?;
    let (mut sound, mut damaged) = (0, 0);
    while let Some(row) = all.next()? {
        match rows::row(row)? {
            Row::Sound(_) => sound += 1,
            Row::Damaged { .. } => damaged += 1,
        }
    }
    Ok((sound, damaged))
}

fn failed(from: &Path, to: &Path, error: &rusqlite::Error) -> BackupError {
    BackupError::Copy { from: from.to_owned(), to: to.to_owned(), error: error.to_string() }
}
