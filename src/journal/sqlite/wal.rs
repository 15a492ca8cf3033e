//! What an earlier process left in the write-ahead log.
//!
//! SQLite takes a log up to the first frame that is not sound: behind a crash that is right, as only the transaction that was
//! being written, which nobody was told of, can be torn. But when a bit flips on the disk, everything behind it would vanish
//! without a word. So before the log is taken, finhook looks at what stands behind the part that SQLite recovered: each transaction is
//! synced before the next one begins, so a crash leaves at most one of them there.
//!
//! Then the log is copied back, synced and emptied. A process that was killed between a write and its sync left frames
//! that are in the system's memory only: from now on they count as stored, and must be on disk.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _, SeekFrom};
use std::path::Path;

use rusqlite::{Connection, ErrorCode};

use super::files;
use crate::journal::OpenError;

/// Of the log's own header, in bytes. Its format: <https://www.sqlite.org/fileformat2.html#the_write_ahead_log>.
const HEADER: usize = 32;
/// Of the header of each frame, which a page follows.
const FRAME_HEADER: usize = 24;

/// Checks the log that an earlier process left, copies it back and empties it.
///
/// # Errors
/// It is damaged, or the disk fails. On a full disk it stays as it is, synced.
pub(super) fn fold(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let sqlite = |error| files::explain(path, error);
    // The first look at the database is what makes SQLite recover the log.
    let tables = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0));
    tables.map_err(sqlite)?;
    let recovered: i64 = connection.query_row("PRAGMA wal_checkpoint(NOOP)", [], |row| row.get(1)).map_err(sqlite)?;
    let log = files::beside(path, "-wal");
    match lost(&log, u64::try_from(recovered).unwrap_or(0)) {
        Ok(None) => {}
        Ok(Some(why)) => return Err(OpenError::Damaged { path: path.to_owned(), why }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(OpenError::Io { path: log, error }),
    }
    match connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())) {
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::DiskFull) => {
            tracing::warn!("no space is left on the journal's disk: its write-ahead log could not be copied back yet");
            Ok(())
        }
        result => result.map_err(sqlite),
    }
}

/// What is wrong with a log of which SQLite took the first `recovered` frames, if anything is.
fn lost(log: &Path, recovered: u64) -> io::Result<Option<String>> {
    let mut file = BufReader::new(File::open(log)?);
    let mut header = [0; HEADER];
    if !fill(&mut file, &mut header)? {
        return Ok(None);
    }
    let salt = &header[16..24];
    let page = u64::from(number(&header, 8));
    let mut frame = [0; FRAME_HEADER];
    if !is_header_sound(&header) {
        // It is synced before the first frame is written.
        let frames = fill(&mut file, &mut frame)?;
        return Ok(
            frames.then(|| "the header of its write-ahead log has changed; all that the log held is lost".to_owned())
        );
    }
    file.seek(SeekFrom::Start(HEADER as u64 + recovered * (FRAME_HEADER as u64 + page)))?;
    let mut commits = 0;
    while fill(&mut file, &mut frame)? {
        let ends_a_transaction = number(&frame, 4) > 0;
        commits += u64::from(ends_a_transaction && frame[8..16] == *salt);
        file.seek_relative(i64::try_from(page).unwrap_or(i64::MAX))?;
    }
    Ok((commits > 1).then(|| {
        format!("its write-ahead log has changed behind frame {recovered}; about {commits} commits behind it are lost")
    }))
}

fn number(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

fn is_header_sound(header: &[u8; HEADER]) -> bool {
    let magic = number(header, 0);
    let word = |at| if magic & 1 == 1 { number(header, at) } else { number(header, at).swap_bytes() };
    let (mut first, mut second) = (0_u32, 0_u32);
    for at in (0..24).step_by(8) {
        first = first.wrapping_add(word(at)).wrapping_add(second);
        second = second.wrapping_add(word(at + 4)).wrapping_add(first);
    }
    magic & !1 == 0x377f_0682 && (first, second) == (number(header, 24), number(header, 28))
}

/// False at the end of the file.
fn fill(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}
