//! A disk that fails: EIO from the write or the sync of that index, injected by `strace`.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{ARCHIVE, Sender};
use crate::support::process::{Place, wait_for_archive};

/// Events that a run posts at most until it fails.
const EVENTS: u64 = 60;

/// Fails the call of that index (of each thread: the one that opens, the one that commits) on the journal's files.
fn failing(folder: &Path, calls: &str, index: u32) -> Command {
    let mut strace = Command::new("strace");
    strace.args(["-D", "-f", "-q", "-o", "/dev/null"]);
    strace.args(["-e", &format!("trace={calls}"), "-e", &format!("inject={calls}:error=EIO:when={index}")]);
    for file in ["finhook.db", "finhook.db-wal"] {
        strace.arg("-P").arg(folder.canonicalize().unwrap().join("data").join(file));
    }
    strace
}

/// A journal whose process was killed: some events in it, and a log to recover.
fn template(folder: &Path) -> Sender {
    let place = Place::new(folder, ARCHIVE);
    let (finhook, mut sender) = (place.start(), Sender::default());
    for _ in 0..5 {
        sender.post(&finhook, 20_000);
    }
    finhook.kill();
    sender
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() { copy(&from, &to) } else { fs::copy(from, to).map(drop).unwrap() }
    }
}

/// One run that fails, and the start after it. True when it failed while running, not at its start.
fn fails_once(template: &Path, mut sender: Sender, calls: &str, index: u32) -> bool {
    let folder = tempfile::tempdir().unwrap();
    copy(template, folder.path());
    let place = Place::new(folder.path(), ARCHIVE);
    let case = format!("{calls} {index}");
    let (ended, started) = match place.start_under(failing(folder.path(), calls, index)) {
        Err(ended) => (ended, false),
        Ok(finhook) => {
            let before = sender.posted;
            while sender.try_post(&finhook, 20_000) == Some(200) {
                assert!(sender.posted - before < EVENTS, "{case}: the run has no such call");
            }
            (finhook.wait(), true)
        }
    };
    assert_eq!(ended.status.code(), Some(1), "{case}: {ended:?}");
    let errors = ended.errors().join("\n");
    assert!(errors.contains("disk I/O error") && errors.contains("finhook.db"), "{case}: {errors}");
    let marker = place.path("data/finhook.db.check");
    if started {
        assert!(errors.contains("The next start checks it; look at the disk first"), "{case}: {errors}");
        assert!(marker.exists(), "{case}: no marker for the next start");
    }

    let marked = marker.exists();
    let finhook = place.start();
    assert_eq!(finhook.logged("checking the journal").is_some(), marked, "{case}");
    assert!(!marker.exists(), "{case}: checked, and the marker stays");
    sender.post(&finhook, 0);
    wait_for_archive(&place.path("archive/events.ndjson"), &sender.acked);
    started
}

fn at_each(calls: &'static str, indices: &[u32]) {
    let folder = tempfile::tempdir().unwrap();
    let sender = template(folder.path());
    let running = indices.iter().filter(|index| fails_once(folder.path(), sender.clone(), calls, **index)).count();
    println!("{calls}: {} runs failed at their start, {running} while serving", indices.len() - running);
    assert!(running > 0 && running < indices.len(), "both the start and the serving must be met");
}

#[test]
fn after_a_failed_sync_nothing_acknowledged_is_lost() {
    at_each("fdatasync,fsync", &[1, 2, 3, 4, 5, 9]);
}

#[test]
fn after_a_failed_write_nothing_acknowledged_is_lost() {
    at_each("write,pwrite64", &[1, 2, 4, 7, 11, 16, 25, 40]);
}

#[test]
#[ignore = "takes minutes: every index"]
fn after_a_failure_at_every_index_nothing_acknowledged_is_lost() {
    at_each("fdatasync,fsync", &(1..=40).collect::<Vec<_>>());
    at_each("write,pwrite64", &(1..=80).collect::<Vec<_>>());
}
