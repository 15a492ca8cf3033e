//! Backup and restore, by the command and by the page that says how.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::command::{Done, listing};
use crate::support::process::{Client, Place, archived, body, wait_for_archive};

const ARCHIVE: &str = "[sinks.archive]\ntype = \"file\"\npath = \"archive/events.ndjson\"\n";

fn backup(place: &Place, file: &str) -> Done {
    place.sandbox().run(&["journal", "backup", file])
}

/// The page's own commands for going back.
fn restore(folder: &Path) {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/OPERATING.md")).unwrap();
    let section = page.split_once("## Backup and restore").unwrap().1;
    let blocks: Vec<&str> = section.split("```sh\n").skip(1).map(|rest| rest.split_once("```").unwrap().0).collect();
    let script = format!("set -e\n{}", blocks[1]);
    let done = Command::new("sh").args(["-c", &script]).current_dir(folder).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// The name on the page.
const FILE: &str = "backups/finhook-2026-11-27.db";

#[test]
fn a_backup_made_under_load_holds_all_that_was_acknowledged_before_it_and_goes_into_service_as_the_page_says() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::new(folder.path(), ARCHIVE);
    fs::create_dir(folder.path().join("backups")).unwrap();
    let finhook = place.start();
    let mut client = Client::new(finhook.public);
    let before: Vec<String> = (0..300).map(|number| client.post(body("before", number, 2_000)).unwrap().id()).collect();
    wait_for_archive(&place.path("archive/events.ndjson"), &before);
    let over = AtomicBool::new(false);
    let public = finhook.public;
    let done = std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let (mut client, mut number) = (Client::new(public), 0);
            while !over.load(Ordering::SeqCst) {
                assert_eq!(client.post(body("meanwhile", number, 2_000)).unwrap().status, 200);
                number += 1;
            }
            number
        });
        let done = backup(&place, FILE);
        over.store(true, Ordering::SeqCst);
        assert!(load.join().unwrap() > 0, "commits don't wait for it");
        done
    });
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.stdout.contains("events, ") && done.stdout.contains(", checked"), "{done:?}");
    let file = folder.path().join(FILE);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(folder.path().join("backups")).unwrap().count(), 1, "one file, and nothing beside it");
    let (copy, again) = (fs::read(&file).unwrap(), backup(&place, FILE));
    assert!(again.code == 1 && again.stderr.contains("exists: it is left alone"), "{again:?}");
    assert_eq!(fs::read(&file).unwrap(), copy);
    let last = client.post(body("after", 0, 0)).unwrap().id();
    assert!(finhook.stop().status.success());

    restore(folder.path());
    let delivered = archived(&place.path("archive/events.ndjson")).len();
    let finhook = place.start();
    let mut client = Client::new(finhook.public);
    // What was stored before the backup is known: the same bytes are a duplicate, and not delivered again.
    let shown = place.run(&[
        "events",
        "list",
        "--conversation",
        "before",
        "--limit",
        "1000",
        "--json",
        "--admin",
        &finhook.admin.to_string(),
    ]);
    assert!(before.iter().all(|id| shown.contains(id)), "an acknowledged event is missing");
    assert!(
        !place
            .run(&["events", "list", "--conversation", "after", "--admin", &finhook.admin.to_string()])
            .contains(&last)
    );
    let new = client.post(body("new", 0, 0)).unwrap().id();
    let all = wait_for_archive(&place.path("archive/events.ndjson"), &[new]);
    let twice = all[delivered..].iter().filter(|(conversation, _)| conversation == "before").count();
    assert_eq!(twice, 0, "the cursor is in the copy");
}

#[test]
fn a_journal_that_was_killed_is_copied_with_what_stands_in_its_log_only() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::new(folder.path(), ARCHIVE);
    let finhook = place.start();
    for number in 0..20 {
        assert_eq!(finhook.post(&body("c", number, 0)).unwrap().status, 200);
    }
    finhook.kill();
    let log = fs::read(place.path("data/finhook.db-wal")).unwrap();
    assert!(!log.is_empty());
    let done = backup(&place, "copy.db");
    assert!(done.code == 0 && done.stdout.contains("20 events"), "{done:?}");
    assert_eq!(fs::read(place.path("data/finhook.db-wal")).unwrap(), log, "the journal is left as it is");
}

#[test]
fn what_can_go_wrong_leaves_nothing_behind_and_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::new(folder.path(), ARCHIVE);
    let missing = backup(&place, "copy.db");
    assert!(missing.code == 1 && missing.stderr.contains("data/finhook.db"), "{missing:?}");
    let finhook = place.start();
    assert_eq!(finhook.post(&body("c", 1, 500_000)).unwrap().status, 200);
    finhook.stop();
    let nowhere = backup(&place, "no/such/folder/copy.db");
    assert!(nowhere.code == 1 && nowhere.stderr.contains("name a file in a folder"), "{nowhere:?}");
    // A limit on the size of files, as a full disk is one.
    let line = format!("ulimit -f 200; exec {} journal backup copy.db", env!("CARGO_BIN_EXE_finhook"));
    let mut limited = Command::new("sh");
    place.sandbox().enter(limited.args(["-c", &format!("trap '' XFSZ; {line}")]));
    let limited = limited.output().unwrap();
    assert_eq!(limited.status.code(), Some(1), "{limited:?}");
    assert!(String::from_utf8_lossy(&limited.stderr).contains("is there room for it?"), "{limited:?}");

    fs::write(place.path("data/finhook.db"), "certainly not a database, but as long as the header of one".repeat(20))
        .unwrap();
    for log in ["data/finhook.db-wal", "data/finhook.db-shm"] {
        let _ = fs::remove_file(place.path(log));
    }
    let foreign = backup(&place, "copy.db");
    assert!(foreign.code == 1 && foreign.stderr.contains("is not a finhook journal"), "{foreign:?}");
    let left: Vec<_> =
        listing(folder.path()).into_iter().filter(|path| path.display().to_string().contains("backup-")).collect();
    assert!(left.is_empty() && !place.path("copy.db").exists(), "{left:?}");
}
