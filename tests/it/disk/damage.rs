//! Bits that flip in the journal's files, and files that are cut short: nothing panics or runs for ever, and no altered
//! event is delivered as a true one.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use finhook::config::{FileSink, Match};
use finhook::dispatch::{self, Phase};
use finhook::journal::Row;
use finhook::journal::{self, Ended, OpenError};
use finhook::metrics::Metrics;
use finhook::sink::file::Archive;
use serde_json::Value;
use tempfile::tempdir;

use super::{ARCHIVE, Sender};
use crate::support::events::{body, event, open, settings};
use crate::support::process::{Place, wait_for_archive};
use crate::support::wait::eventually;

/// Events that are in the database, and as many that are in its log only.
const EVENTS: u64 = 40;

/// A journal's files.
#[derive(Debug, Clone)]
struct Files {
    database: Vec<u8>,
    log: Vec<u8>,
}

/// The files of a process that was killed.
async fn template() -> Files {
    let folder = tempdir().unwrap();
    let settings = settings(folder.path());
    let mut files = Vec::new();
    for life in 0..2 {
        let (journal, mut running) = open(&settings);
        journal.sink("archive", true).await.unwrap();
        for number in life * EVENTS + 1..=(life + 1) * EVENTS {
            journal.append(event(&conversation(number), number)).await.unwrap();
        }
        let log = fs::read(folder.path().join("finhook.db-wal")).unwrap();
        files.push(Files { database: fs::read(&settings.path).unwrap(), log });
        journal.close();
        running.ended().await.unwrap();
    }
    files.pop().unwrap()
}

fn damage(files: &mut Files, rng: &mut fastrand::Rng) -> String {
    let (name, bytes) = if rng.u8(..10) < 6 { ("database", &mut files.database) } else { ("log", &mut files.log) };
    let at = rng.usize(..bytes.len());
    let what = match rng.u8(..6) {
        0 | 1 => {
            bytes[at] ^= 1 << rng.u8(..8);
            "a bit flipped"
        }
        2 => {
            // In the first bytes of a page stands what makes it a tree.
            let page = at - at % 4096;
            let near = page + rng.usize(..64.min(bytes.len() - page));
            bytes[near] ^= 1 << rng.u8(..8);
            "a bit flipped near the beginning of a page"
        }
        3 => {
            for _ in 0..rng.usize(2..64) {
                let at = rng.usize(..bytes.len());
                bytes[at] ^= 1 << rng.u8(..8);
            }
            "bits flipped"
        }
        4 => {
            let sector = at - at % 512;
            let end = bytes.len().min(sector + 512);
            bytes[sector..end].fill(0);
            "a sector zeroed"
        }
        _ => {
            bytes.truncate(at);
            "cut short"
        }
    };
    format!("{what} in the {name} at {at}")
}

/// What came of a damaged journal.
#[derive(Debug, Default)]
struct Found {
    refused: bool,
    sound: usize,
    reported: usize,
    unreadable: bool,
}

async fn examine(files: &Files, originals: &HashMap<String, Value>, case: &str) -> Found {
    let folder = tempdir().unwrap();
    let settings = settings(folder.path());
    fs::write(&settings.path, &files.database).unwrap();
    fs::write(folder.path().join("finhook.db-wal"), &files.log).unwrap();
    let mut found = Found::default();
    let opened = match journal::open(&settings, Arc::new(Metrics::new())) {
        Ok(opened) => opened,
        Err(error) => {
            found.refused = true;
            assert!(error.to_string().contains("finhook.db"), "{case}: {error}");
            return found;
        }
    };
    let (journal, mut running) = (opened.journal, opened.running);

    let (mut after, reader) = (0, journal.reader().unwrap());
    loop {
        let Ok(page) = reader.after(after, 16, None).await else {
            found.unreadable = true;
            break;
        };
        let Some(last) = page.last() else { break };
        assert!(last.row.seq() > after, "{case}: it would never end");
        after = last.row.seq();
        for fresh in page {
            match fresh.row {
                Row::Sound(stored) => {
                    found.sound += 1;
                    assert_true(originals, &stored.event.id.to_string(), &stored.event.body, case);
                }
                Row::Damaged { .. } => found.reported += 1,
            }
        }
    }

    // And by way of a sink.
    let archive = folder.path().join("events.ndjson");
    if let Ok(state) = journal.sink("archive", true).await {
        let (phase, phases) = tokio::sync::watch::channel(Phase::Running);
        let made = dispatch::Worker::new(&journal, state, Match::default(), Metrics::new().sink("archive"), phases);
        if let Ok((worker, handle)) = made {
            let sink = FileSink { path: archive.clone(), rotate_bytes: u64::MAX, keep: 1 };
            let worker = worker.spawn_batch(Archive::open(&sink).unwrap());
            let newest = *journal.head().borrow();
            eventually("it has all, or says why not", async || {
                handle.status.cursor() >= newest || handle.status.last_error().is_some() || worker.is_finished()
            })
            .await;
            phase.send_replace(Phase::Stopping);
            worker.await.unwrap_or_else(|error| panic!("{case}: {error}"));
        }
    }
    for line in fs::read_to_string(&archive).unwrap_or_default().lines() {
        let json: Value = serde_json::from_str(line).unwrap();
        assert_true(originals, json["id"].as_str().unwrap(), json["data"].to_string().as_bytes(), case);
    }
    let appended = journal.append(event("new", 1)).await;
    journal.close();
    let ended = running.ended().await;
    assert!(!matches!(ended, Err(Ended::Panicked)), "{case}: after {appended:?}");
    found
}

/// The bodies that were put in, by id.
fn originals() -> HashMap<String, Value> {
    let original = |number| {
        let conversation = conversation(number);
        let id = event(&conversation, number).id.to_string();
        (id, serde_json::from_str(&body(&conversation, number)).unwrap())
    };
    (1..=2 * EVENTS).map(original).collect()
}

fn conversation(number: u64) -> String {
    format!("c{}", number % 5)
}

/// An event that is given out must be one that was put in.
fn assert_true(originals: &HashMap<String, Value>, id: &str, given: &[u8], case: &str) {
    let given: Value = serde_json::from_slice(given).unwrap_or_else(|error| panic!("{case}: {error}"));
    assert_eq!(originals.get(id), Some(&given), "{case}: an altered event");
}

#[tokio::test]
async fn of_a_damaged_journal_nothing_altered_is_delivered_and_nothing_hangs_or_panics() {
    let template = template().await;
    let (mut rng, originals) = (fastrand::Rng::with_seed(5), originals());
    let (mut refused, mut reported, mut unreadable, mut whole, mut cut, mut unnoticed) = (0, 0, 0, 0, 0, 0);
    for number in 0..300 {
        let mut files = template.clone();
        let case = format!("{number}: {}", damage(&mut files, &mut rng));
        let examined = tokio::time::timeout(Duration::from_secs(60), examine(&files, &originals, &case));
        let found = examined.await.unwrap_or_else(|_| panic!("{case}: it hangs"));
        match found {
            Found { refused: true, .. } => refused += 1,
            Found { unreadable: true, .. } => unreadable += 1,
            Found { reported: 1.., .. } => reported += 1,
            Found { sound, .. } if sound as u64 == 2 * EVENTS => whole += 1,
            // A log that ends early is what a crash leaves: nothing tells that there was more.
            Found { .. } if case.contains("cut short in the log") => cut += 1,
            Found { sound, .. } => {
                println!("{case}: {sound} of {} events", 2 * EVENTS);
                // The log's last transaction looks like one that was torn by a crash.
                assert!(sound as u64 + 1 == 2 * EVENTS && case.contains("in the log"), "{case}: lost without a word");
                unnoticed += 1;
            }
        }
    }
    println!(
        "refused at the start {refused}, unreadable {unreadable}, single events reported {reported}, all events there {whole}, \
         log cut short {cut}, last transaction torn {unnoticed}"
    );
    assert!(refused > 20 && unreadable + reported > 20, "the damage does not damage");
}

#[tokio::test]
async fn a_log_that_changed_before_its_end_is_refused_and_not_cut_there() {
    let template = template().await;
    for at in [0, 17, 100, template.log.len() / 3, template.log.len() / 2] {
        let mut files = template.clone();
        files.log[at] ^= 4;
        let folder = tempdir().unwrap();
        let settings = settings(folder.path());
        fs::write(&settings.path, &files.database).unwrap();
        fs::write(folder.path().join("finhook.db-wal"), &files.log).unwrap();
        let error = journal::open(&settings, Arc::new(Metrics::new())).unwrap_err();
        assert!(matches!(error, OpenError::Damaged { .. }), "{at}: {error}");
        assert!(
            error.to_string().contains("When the journal is damaged") && error.to_string().contains("lost"),
            "{error}"
        );
        assert_eq!(fs::read(folder.path().join("finhook.db-wal")).unwrap(), files.log, "left as it was");
    }
}

/// "When the journal is damaged" in docs/RECOVERY.md, step by step. Needs `sqlite3`.
#[test]
fn a_damaged_journal_comes_back_into_service_as_the_page_says() {
    let folder = tempdir().unwrap();
    let place = Place::new(folder.path(), ARCHIVE);
    let (finhook, mut sender) = (place.start(), Sender::default());
    for _ in 0..60 {
        sender.post(&finhook, 3_000);
    }
    let archive = place.path("archive/events.ndjson");
    wait_for_archive(&archive, &sender.acked);
    finhook.stop();
    let database = place.path("data/finhook.db");
    let mut bytes = fs::read(&database).unwrap();
    // A page of the table of events, as far as it can be told from outside: the first that holds a body.
    let text = b"<p>xxxx";
    let at = bytes.windows(text.len()).position(|window| window == text).unwrap();
    let page = at - at % (16 * 1024);
    bytes[page..page + 512].fill(0xff);
    fs::write(&database, bytes).unwrap();
    // "To have the whole file checked"
    fs::write(place.path("data/finhook.db.check"), "").unwrap();
    let refused = place.start_under(Command::new("env")).unwrap_err();
    assert_eq!(refused.status.code(), Some(1));
    let errors = refused.errors().join("\n");
    assert!(errors.contains("is damaged") && errors.contains("When the journal is damaged"), "{errors}");

    recover(&place.path("data"));
    let finhook = place.start();
    assert!(finhook.logged("the journal is sound").is_some());
    // What is known by its id is not stored twice, and new events get numbers of their own and are delivered.
    for _ in 0..5 {
        sender.post(&finhook, 0);
    }
    let archived = wait_for_archive(&archive, &sender.acked);
    assert_eq!(archived.len(), sender.acked.len(), "delivered again, though the cursor was kept");
}

/// What stands in the page's blocks is what is run.
fn recover(data: &Path) {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/RECOVERY.md")).unwrap();
    let steps = page.split_once("## When the journal is damaged").unwrap().1;
    let blocks: Vec<&str> = steps.split("```sh\n").skip(1).map(|rest| rest.split_once("```").unwrap().0).collect();
    assert_eq!(blocks.len(), 2, "{blocks:?}");
    let script = format!("set -e\n{}", blocks.concat());
    let done = Command::new("sh").args(["-c", &script]).current_dir(data.parent().unwrap()).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let kept = Command::new("sqlite3").args(["finhook.db", "SELECT count(*) FROM events"]).current_dir(data).output();
    let kept: usize = String::from_utf8(kept.unwrap().stdout).unwrap().trim().parse().unwrap();
    println!("{kept} of 60 events kept");
    assert!((40..60).contains(&kept), "only what stood on the damaged page is lost");
}
