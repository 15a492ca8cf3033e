//! What the writer does when there is no room: on the disk, below `journal.max_bytes`, or within the process's limit on the
//! size of files.

use std::sync::atomic::Ordering;

use rusqlite::ErrorCode;

use super::files;
use super::writer::Writer;

/// What must fit before a full journal takes events again.
const FULL_PROBE_BYTES: i64 = 1024 * 1024;
/// `journal.max_bytes` is warned of from this share on.
const WARN_PERCENT: u64 = 80;

impl Writer {
    /// Once a second: is there room again, how large has the journal become?
    pub(super) fn look_at_space(&mut self) -> rusqlite::Result<()> {
        let number = |name: &str| {
            self.connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map(i64::unsigned_abs)
        };
        let used = (number("page_count")? - number("freelist_count")?) * number("page_size")?;
        self.shared.bytes.store(used, Ordering::Relaxed);
        self.metrics.journal_bytes.set(i64::try_from(used).unwrap_or(i64::MAX));
        let limited = self.max_bytes > 0;
        if limited && used >= self.max_bytes {
            self.set_full("journal.max_bytes is reached: raise it, shorten journal.retention, or look for a sink that is paused, failing or removed");
            return Ok(());
        }
        let high = limited && used >= self.max_bytes / 100 * WARN_PERCENT;
        if high && !self.warned {
            tracing::warn!(used, max_bytes = self.max_bytes, "the journal has reached 80 % of journal.max_bytes");
        }
        self.warned = high;
        if self.full && self.copied_back()? && self.has_room()? {
            self.full = false;
            self.shared.writable.store(true, Ordering::Relaxed);
            tracing::info!("the journal has room again");
        }
        Ok(())
    }

    pub(super) fn set_full(&mut self, what_to_do: &str) {
        if !self.full {
            tracing::error!("{what_to_do}");
        }
        self.full = true;
        self.shared.writable.store(false, Ordering::Relaxed);
    }

    /// Copies the log back, so that its space can be used again. False when there is no room even for that.
    fn copied_back(&self) -> rusqlite::Result<bool> {
        match self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())) {
            Err(error) if self.is_full(&error) => Ok(false),
            result => result.map(|()| true),
        }
    }

    /// It can't be written for now, though nothing is wrong with it: there is no room on the disk, or another program holds
    /// it, or a file has reached the process's limit on the size of files, which SQLite reports like a failing disk.
    pub(super) fn is_full(&self, error: &rusqlite::Error) -> bool {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull | ErrorCode::DatabaseBusy) => true,
            Some(ErrorCode::SystemIoFailure) => file_size_limit().is_some_and(|limit| {
                let files = [self.path.clone(), files::beside(&self.path, "-wal")];
                files.iter().any(|file| std::fs::metadata(file).is_ok_and(|found| found.len() >= limit))
            }),
            _ => false,
        }
    }

    /// Writes something of a size worth having room for, and takes it back.
    fn has_room(&self) -> rusqlite::Result<bool> {
        let probe = format!(
            "BEGIN IMMEDIATE; INSERT OR REPLACE INTO meta VALUES ('room', zeroblob({FULL_PROBE_BYTES})); COMMIT;
             DELETE FROM meta WHERE key = 'room';"
        );
        match self.connection.execute_batch(&probe) {
            Ok(()) => Ok(true),
            Err(error) if self.is_full(&error) => {
                if !self.connection.is_autocommit() {
                    self.connection.execute_batch("ROLLBACK")?;
                }
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

/// The largest size that a file may have, in bytes, if this process has such a limit.
fn file_size_limit() -> Option<u64> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    limits.lines().find_map(|line| line.strip_prefix("Max file size"))?.split_whitespace().next()?.parse().ok()
}
