//! The journal, on real files.

use std::time::Duration;

use finhook::dispatch::now_ms;
use finhook::journal::deliveries::{Dead, Park, Settlement};
use finhook::journal::read::Row;
use finhook::journal::retention::Retention;
use finhook::journal::{AppendError, Appended, Journal, OpenError};
use tempfile::tempdir;

use crate::support::events::{body, close, event, open, receive, settings};

const SECOND: i64 = 1000;

/// What is on disk, whatever memory holds.
async fn stored_seqs(journal: &Journal) -> Vec<u64> {
    let select = |connection: &rusqlite::Connection| {
        connection.prepare("SELECT seq FROM events ORDER BY seq")?.query_map([], |row| row.get(0))?.collect()
    };
    let seqs: Vec<i64> = journal.reader().unwrap().query(select).await.unwrap();
    seqs.into_iter().map(i64::unsigned_abs).collect()
}

#[tokio::test]
async fn an_event_is_stored_once_however_often_it_comes_also_after_a_restart() {
    let folder = tempdir().unwrap();
    let settings = settings(folder.path());
    let (journal, running) = open(&settings);
    assert_eq!(journal.append(event("c", 1)).await, Ok(Appended::Stored { seq: 1 }));
    assert_eq!(journal.append(event("c", 1)).await, Ok(Appended::Duplicate { same_body: true }));
    close(journal, running).await;

    let (journal, running) = open(&settings);
    assert_eq!(journal.append(event("c", 1)).await, Ok(Appended::Duplicate { same_body: true }));
    assert_eq!(journal.append(event("c", 2)).await, Ok(Appended::Stored { seq: 2 }));
    let other_body = body("c", 2).replace("<p>2</p>", "<p>other</p>");
    let conflicting = receive(&other_body, now_ms(), i64::MAX);
    assert_eq!(journal.append(conflicting).await, Ok(Appended::Duplicate { same_body: false }));
    assert_eq!(stored_seqs(&journal).await, [1, 2]);
    close(journal, running).await;
}

#[tokio::test]
async fn what_is_read_back_is_what_was_stored() {
    let folder = tempdir().unwrap();
    let settings = settings(folder.path());
    let (journal, running) = open(&settings);
    let sent = event("c", 1);
    journal.append(sent.clone()).await.unwrap();
    close(journal, running).await;

    let (journal, running) = open(&settings);
    let rows = journal.reader().unwrap().after(0, 10, None).await.unwrap();
    let Row::Sound(stored) = &rows[0].row else { panic!("damaged: {rows:?}") };
    assert_eq!((stored.seq, &stored.event), (1, &sent));
    close(journal, running).await;
}

#[tokio::test]
async fn an_append_lives_on_when_its_sender_hangs_up() {
    let folder = tempdir().unwrap();
    let (journal, running) = open(&settings(folder.path()));
    {
        let mut append = std::pin::pin!(journal.append(event("c", 1)));
        // Polled once, so that it is queued, then dropped.
        assert!(futures_util::poll!(&mut append).is_pending());
    }
    assert_eq!(journal.append(event("c", 2)).await, Ok(Appended::Stored { seq: 2 }));
    assert_eq!(stored_seqs(&journal).await, [1, 2]);
    close(journal, running).await;
}

#[tokio::test]
async fn cursors_and_parked_events_survive_a_restart() {
    let folder = tempdir().unwrap();
    let settings = settings(folder.path());
    let (journal, running) = open(&settings);
    let sink = journal.sink("backend", true).await.unwrap();
    for number in 1..=3 {
        journal.append(event("c", number)).await.unwrap();
    }
    let lane = event("c", 1).lane();
    let settlement = Settlement { cursor: Some(3), park: vec![Park { lane, seq: 2 }], ..Settlement::default() };
    journal.settle(sink.number, settlement.into()).await.unwrap();
    close(journal, running).await;

    let (journal, running) = open(&settings);
    let again = journal.sink("backend", true).await.unwrap();
    assert_eq!((again.number, again.cursor), (sink.number, 3));
    let reader = journal.reader().unwrap();
    let (due, _) = reader.due(sink.number, now_ms(), i64::MAX, 10).await.unwrap();
    assert_eq!(due.iter().map(|due| due.lane).collect::<Vec<_>>(), [lane]);
    let (parked, more) = reader.parked(sink.number, lane, 0, 10).await.unwrap();
    assert_eq!((parked.len(), parked[0].row.seq(), more), (1, 2, false));
    close(journal, running).await;
}

#[tokio::test]
async fn a_new_sink_begins_now_or_with_everything_stored() {
    let folder = tempdir().unwrap();
    let (journal, running) = open(&settings(folder.path()));
    journal.append(event("c", 1)).await.unwrap();
    assert_eq!(journal.sink("late", false).await.unwrap().cursor, 1);
    assert_eq!(journal.sink("all", true).await.unwrap().cursor, 0);
    close(journal, running).await;
}

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
    assert!(matches!(refused(), OpenError::Foreign { .. }));
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
async fn a_closed_journal_takes_no_more_events() {
    let folder = tempdir().unwrap();
    let (journal, running) = open(&settings(folder.path()));
    let kept = journal.clone();
    close(journal, running).await;
    assert_eq!(kept.append(event("c", 1)).await, Err(AppendError::Closed));
}

#[tokio::test]
async fn retention_waits_for_every_sink_and_for_its_time() {
    let folder = tempdir().unwrap();
    let mut settings = settings(folder.path());
    settings.retention = Duration::from_secs(100);
    settings.dedupe_window = Duration::from_secs(1000);
    let (journal, running) = open(&settings);
    let (fast, slow) = (journal.sink("fast", true).await.unwrap(), journal.sink("slow", true).await.unwrap());
    for number in 1..=4 {
        journal.append(event("c", number)).await.unwrap();
    }
    let mut retention = Retention::new(journal.clone(), journal.reader().unwrap(), &settings);
    let settle = |sink, settlement: Settlement| journal.settle(sink, settlement.into());
    let to = |cursor| Settlement { cursor: Some(cursor), ..Settlement::default() };
    let start = now_ms();

    settle(fast.number, to(4)).await.unwrap();
    assert_eq!(retention.pass(start).await.unwrap().events, 0);
    assert_eq!(retention.pass(start + 500 * SECOND).await.unwrap().events, 0, "one sink has nothing yet");

    // One event waits, one is dead: both stay.
    let dead = Dead { seq: 3, attempts: 3, died_ms: start, error: "no".into() };
    let lane = event("c", 2).lane();
    let settlement = Settlement { park: vec![Park { lane, seq: 2 }], dead: vec![dead], ..to(4) };
    settle(slow.number, settlement).await.unwrap();
    assert_eq!(retention.pass(start + 600 * SECOND).await.unwrap().events, 0, "not long enough");
    assert_eq!(retention.pass(start + 701 * SECOND).await.unwrap().events, 2);
    assert_eq!(stored_seqs(&journal).await, [2, 3]);

    assert_eq!(journal.append(event("c", 1)).await, Ok(Appended::Duplicate { same_body: true }), "the id stays");
    close(journal, running).await;
}

#[tokio::test]
async fn ids_are_forgotten_after_the_dedupe_window_and_numbers_never_come_again() {
    let folder = tempdir().unwrap();
    let mut settings = settings(folder.path());
    settings.retention = Duration::from_secs(10);
    settings.dedupe_window = Duration::from_secs(1000);
    let (journal, running) = open(&settings);
    let now = now_ms();
    journal.append(receive(&body("c", 1), now, i64::MAX)).await.unwrap();
    let mut retention = Retention::new(journal.clone(), journal.reader().unwrap(), &settings);
    assert_eq!(retention.pass(now).await.unwrap().events, 0);
    let removed = retention.pass(now + 20 * SECOND).await.unwrap();
    assert_eq!((removed.events, removed.ids), (1, 0));
    assert_eq!(retention.pass(now + 999 * SECOND).await.unwrap().ids, 0);
    assert_eq!(journal.append(event("c", 1)).await, Ok(Appended::Duplicate { same_body: true }));
    assert_eq!(retention.pass(now + 1001 * SECOND).await.unwrap().ids, 1);
    close(journal, running).await;

    // The newest event is gone and the journal was opened anew: its number is not given out again.
    let (journal, running) = open(&settings);
    assert_eq!(journal.append(event("c", 1)).await, Ok(Appended::Stored { seq: 2 }));
    close(journal, running).await;
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
async fn the_file_is_durable_and_private() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = tempdir().unwrap();
    let settings = settings(folder.path());
    let (journal, running) = open(&settings);
    let mode = |c: &rusqlite::Connection| c.pragma_query_value(None, "journal_mode", |row| row.get::<_, String>(0));
    assert_eq!(journal.write(mode).await.unwrap(), "wal");
    let synchronous = |c: &rusqlite::Connection| c.pragma_query_value(None, "synchronous", |row| row.get::<_, i64>(0));
    assert_eq!(journal.write(synchronous).await.unwrap(), 2, "2 is FULL");
    for suffix in ["", "-wal", ".lock"] {
        let path = format!("{}{suffix}", settings.path.display());
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{path}");
    }
    close(journal, running).await;
}
