//! The files of a journal: their names, and what their errors tell an operator.

use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use crate::journal::OpenError;

/// `journal.db` → `journal.db.SUFFIX`.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Left behind when the outcome of a commit is unknown: the next open checks the whole file first.
pub(super) fn marker(path: &Path) -> PathBuf {
    beside(path, ".check")
}

/// What an error of SQLite says of the file.
pub(super) fn explain(path: &Path, error: rusqlite::Error) -> OpenError {
    let path = path.to_owned();
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => OpenError::Foreign { path, why: "it is not an SQLite file".to_owned() },
        Some(ErrorCode::DatabaseCorrupt) => OpenError::Damaged { path, why: error.to_string() },
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => OpenError::InUse { path },
        _ => OpenError::Sqlite { path, error: error.to_string() },
    }
}

/// What to do when there is no room.
pub(super) fn why_full(error: &rusqlite::Error) -> &'static str {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => {
            "no space is left on the journal's disk: free some; finhook tries again every second"
        }
        Some(ErrorCode::DatabaseBusy) => {
            "another program holds the journal's lock: end its transaction; finhook tries again every second"
        }
        _ => {
            "the journal has reached the limit on the size of files (ulimit -f): raise it, or shorten journal.retention; \
             finhook tries again every second"
        }
    }
}
