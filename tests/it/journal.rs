//! The journal in an SQLite file: what is not the interface's but the file's.

use finhook::journal::{OpenError, Row};
use tempfile::tempdir;

use crate::support::events::{body, close, event, open, settings};

#[tokio::test]
async fn a_second_opener_is_refused_and_told_why() {
    let folder = tempdir().unwrap();
    let settings = settings(folder.path());
    let (journal, running) = open(&settings);
    let refused = finhook::journal::open(&settings, Default::default()).unwrap_err();
    assert!(matches!(refused, OpenError::InUse { .. }), "{refused}");
    assert!(refused.to_string().contains("in use by another finhook"), "{refused}");
    close(journal, running).await;
    let (journal, running) = open(&settings);
    close(journal, running).await;
}

#[tokio::test]
async fn files_that_are_not_a_journal_of_this_version_are_refused_untouched() {
    let folder = tempdir().unwrap();
    let settings = settings(folder.path());
    let refused = || finhook::journal::open(&settings, Default::default()).unwrap_err();

    std::fs::write(
        &settings.path,
        "certainly not a database, but long enough to be read as the header of one".repeat(20),
    )
    .unwrap();
    let before = std::fs::read(&settings.path).unwrap();
    let error = refused();
    assert!(matches!(error, OpenError::Foreign { .. }) && error.to_string().contains("docs/RECOVERY.md"), "{error}");
    assert_eq!(std::fs::read(&settings.path).unwrap(), before);

    std::fs::remove_file(&settings.path).unwrap();
    rusqlite::Connection::open(&settings.path).unwrap().execute_batch("CREATE TABLE theirs (x)").unwrap();
    assert!(matches!(refused(), OpenError::Foreign { .. }));

    std::fs::remove_file(&settings.path).unwrap();
    let (journal, running) = open(&settings);
    close(journal, running).await;
    rusqlite::Connection::open(&settings.path).unwrap().pragma_update(None, "user_version", 999).unwrap();
    let error = refused();
    assert!(matches!(error, OpenError::Newer { found: 999, .. }), "{error}");

    std::fs::remove_file(&settings.path).unwrap();
    std::fs::create_dir(&settings.path).unwrap();
    assert!(matches!(refused(), OpenError::Io { .. }));
}

#[tokio::test]
async fn an_emptied_journal_beside_its_log_is_called_damaged_and_keeps_the_log() {
    let folder = tempdir().unwrap();
    let settings = settings(folder.path());
    let (journal, running) = open(&settings);
    journal.append(event("c", 1)).await.unwrap();
    let log = std::fs::read(folder.path().join("finhook.db-wal")).unwrap();
    assert!(!log.is_empty());
    close(journal, running).await;
    std::fs::write(folder.path().join("finhook.db-wal"), &log).unwrap();
    std::fs::write(&settings.path, "").unwrap();

    let error = finhook::journal::open(&settings, Default::default()).unwrap_err();

    assert!(matches!(error, OpenError::Damaged { .. }) && error.to_string().contains("docs/RECOVERY.md"), "{error}");
    assert_eq!(std::fs::read(folder.path().join("finhook.db-wal")).unwrap(), log, "SQLite would have deleted it");
}

#[tokio::test]
async fn a_journal_that_was_cut_short_is_called_damaged_and_names_the_way_back() {
    let folder = tempdir().unwrap();
    let settings = settings(folder.path());
    let (journal, running) = open(&settings);
    for number in 1..=3 {
        journal.append(event("c", number)).await.unwrap();
    }
    close(journal, running).await;
    let whole = std::fs::read(&settings.path).unwrap();
    let page = 16 * 1024;
    for length in [page - 1, page, 2 * page, whole.len() / 2, whole.len() - page] {
        std::fs::write(&settings.path, &whole[..length]).unwrap();
        let error = finhook::journal::open(&settings, Default::default()).unwrap_err();
        assert!(matches!(error, OpenError::Damaged { .. }), "{length} of {}: {error}", whole.len());
        assert!(error.to_string().contains("When the journal is damaged"), "{error}");
    }
}

#[tokio::test]
async fn a_body_that_changed_on_disk_is_reported_and_never_read_as_an_event() {
    let folder = tempdir().unwrap();
    let settings = settings(folder.path());
    let (journal, running) = open(&settings);
    for number in 1..=3 {
        journal.append(event("c", number)).await.unwrap();
    }
    close(journal, running).await;
    let tampered = body("c", 2).replace("<p>2</p>", "<p>X</p>");
    let file = rusqlite::Connection::open(&settings.path).unwrap();
    file.execute("UPDATE events SET body = ?1 WHERE seq = 2", [tampered.as_bytes()]).unwrap();
    file.execute("UPDATE events SET signature = 'x' WHERE seq = 3", []).unwrap();
    drop(file);

    let (journal, running) = open(&settings);
    let rows = journal.reader().unwrap().after(0, 10, None).await.unwrap();
    assert!(matches!(rows[0].row, Row::Sound(_)));
    assert!(matches!(rows[1].row, Row::Damaged { seq: 2, .. }));
    assert!(matches!(rows[2].row, Row::Damaged { seq: 3, .. }));
    close(journal, running).await;
}

#[tokio::test]
async fn the_files_are_private() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = tempdir().unwrap();
    let settings = settings(folder.path());
    let (journal, running) = open(&settings);
    for suffix in ["", "-wal", ".lock"] {
        let path = format!("{}{suffix}", settings.path.display());
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{path}");
    }
    close(journal, running).await;
}
