//! Wiping what SQLite leaves behind in the unused middle of pages.
//!
//! `secure_delete` zeroes a cell that is deleted. But when SQLite spreads the rows of neighbouring pages anew, it lays a page's
//! cells out from its end, and leaves in the unused middle what was there before: copies of rows that live on elsewhere, and are
//! not found again when those are deleted. (Shown by the test below.) So a purge looks at every leaf page for bytes between the
//! cell pointers and the content area, and zeroes them. They mean nothing to SQLite: whatever happens half way, the file is sound.
//!
//! That is done in the file itself, under these conditions, in steps of a few pages between two transactions of the writer: the
//! write-ahead log is empty, so that no older version of a page is copied over the wiped one, and the writer's cache, from which it would
//! write the page again, has been dropped. Nobody else writes.
//!
//! The file stays open for as long as the journal: closing it would drop the locks that SQLite holds on it (POSIX).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// A leaf of a table: where rows are. No page of another kind begins with this byte in files of less than 3 TB.
const TABLE_LEAF: u8 = 0x0d;
/// Header of such a page.
const HEADER: usize = 8;
/// Pages read at once.
const READ: usize = 64;

/// The page size, from the file's header.
fn page_bytes(file: &File) -> io::Result<usize> {
    let mut bytes = [0; 2];
    file.read_exact_at(&mut bytes, 16)?;
    Ok(match u16::from_be_bytes(bytes) {
        1 => 65536,
        bytes => usize::from(bytes),
    })
}

/// The numbers (from 0) of the pages that hold anything where nothing should be.
pub(super) fn find(file: &File) -> io::Result<Vec<u64>> {
    let page_bytes = page_bytes(file)?;
    let pages = file.metadata()?.len() / page_bytes as u64;
    let mut found = Vec::new();
    let mut block = vec![0; page_bytes * READ];
    // The first page holds the schema only.
    let mut next = 1;
    while next < pages {
        let count = READ.min(usize::try_from(pages - next).unwrap_or(READ));
        let block = &mut block[..count * page_bytes];
        file.read_exact_at(block, next * page_bytes as u64)?;
        for (page, number) in block.chunks_exact(page_bytes).zip(next..) {
            if unused(page).is_some_and(|unused| page[unused].iter().any(|byte| *byte != 0)) {
                found.push(number);
            }
        }
        next += count as u64;
    }
    Ok(found)
}

/// Zeroes what is unused of these pages, durably. See the conditions above.
pub(super) fn wipe(file: &File, pages: &[u64]) -> io::Result<()> {
    let page_bytes = page_bytes(file)?;
    let length = file.metadata()?.len();
    let mut page = vec![0; page_bytes];
    for number in pages {
        let at = number * page_bytes as u64;
        if at + page_bytes as u64 > length {
            continue;
        }
        file.read_exact_at(&mut page, at)?;
        if let Some(unused) = unused(&page) {
            file.write_all_at(&vec![0; unused.len()], at + unused.start as u64)?;
        }
    }
    file.sync_data()
}

/// What lies between the cell pointers and the cells of a page, if it is a table's leaf.
fn unused(page: &[u8]) -> Option<std::ops::Range<usize>> {
    let number = |at: usize| usize::from(u16::from_be_bytes([page[at], page[at + 1]]));
    if page[0] != TABLE_LEAF {
        return None;
    }
    let start = HEADER + 2 * number(3);
    let end = match number(5) {
        0 => 65536,
        end => end,
    };
    (start <= end && end <= page.len()).then_some(start..end)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use rusqlite::{Connection, params};

    use super::*;

    fn marker(seq: i64) -> String {
        format!("<<{seq:08}>>")
    }

    /// Rows that are deleted and still there. The file is looked through once, whatever the number of rows.
    fn left_behind(path: &std::path::Path, live: &BTreeMap<i64, ()>) -> usize {
        let bytes = std::fs::read(path).unwrap();
        let seq_at = |at: usize| std::str::from_utf8(bytes.get(at + 2..at + 10)?).ok()?.parse::<i64>().ok();
        let found: BTreeSet<i64> = memchr::memmem::find_iter(&bytes, "<<").filter_map(seq_at).collect();
        found.into_iter().filter(|seq| !live.contains_key(seq)).count()
    }

    /// Appends, and deletes at the front and in the middle, as retention and purges do.
    fn churn(seed: u64, scrub: bool) -> usize {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let connection = Connection::open(&path).unwrap();
        connection
            .execute_batch(
                "PRAGMA page_size = 16384; PRAGMA journal_mode = WAL; PRAGMA secure_delete = ON; PRAGMA wal_autocheckpoint = 0;
                 CREATE TABLE events (seq INTEGER PRIMARY KEY, body BLOB NOT NULL)",
            )
            .unwrap();
        connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let mut rng = fastrand::Rng::with_seed(seed);
        let (mut live, mut newest, mut left) = (BTreeMap::new(), 0, 0);
        for round in 0..40 {
            connection.execute_batch("BEGIN").unwrap();
            for _ in 0..rng.usize(1..60) {
                newest += 1;
                let size = [50, 300, 1000, 1000, 5000, 12_000, 40_000][rng.usize(0..7)];
                let body = marker(newest).repeat(1 + rng.usize(0..size) / 12);
                connection.execute("INSERT INTO events VALUES (?1, ?2)", params![newest, body.as_bytes()]).unwrap();
                live.insert(newest, ());
            }
            let from = if rng.bool() { 0 } else { rng.usize(0..live.len()) };
            let gone: Vec<i64> =
                live.keys().copied().skip(from).take(rng.usize(0..60)).filter(|_| rng.u8(..) < 215).collect();
            for seq in gone {
                connection.execute("DELETE FROM events WHERE seq = ?1", [seq]).unwrap();
                live.remove(&seq);
            }
            connection.execute_batch("COMMIT; PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
            if round % 5 == 4 {
                if scrub {
                    connection.execute_batch("PRAGMA shrink_memory").unwrap();
                    wipe(&file, &find(&file).unwrap()).unwrap();
                    assert_eq!(find(&file).unwrap(), [0; 0]);
                }
                left += left_behind(&path, &live);
            }
        }
        let verdict: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(verdict, "ok");
        for seq in live.keys() {
            let body: Vec<u8> =
                connection.query_row("SELECT body FROM events WHERE seq = ?1", [seq], |row| row.get(0)).unwrap();
            assert!(body.starts_with(marker(*seq).as_bytes()));
        }
        left
    }

    #[test]
    fn secure_delete_alone_leaves_copies_and_wiping_leaves_none() {
        assert!((0..6).map(|seed| churn(seed, false)).sum::<usize>() > 0, "then this module is not needed any more");
        for seed in 0..6 {
            assert_eq!(churn(seed, true), 0, "seed {seed}");
        }
    }
}
