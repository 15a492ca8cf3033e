//! No room: on the journal's disk, on a sink's, and under a limit on the size of files.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::{ARCHIVE, Sender, ids};
use crate::sinks::{in_child, in_own_mounts};
use crate::support::process::{Client, Place, archived, wait_for_archive};
use crate::support::wait::until;

/// A small disk of its own at `disk`.
const SMALL_DISK: &str =
    "mkdir \"$FINHOOK_TEST_CHILD/disk\" && mount -t tmpfs -o size=6m tmpfs \"$FINHOOK_TEST_CHILD/disk\"";

/// Writes until nothing more fits.
fn fill_up(filler: &Path) {
    let mut file = File::create(filler).unwrap();
    for size in [64 * 1024, 1024, 1] {
        let block = vec![0; size];
        while file.write_all(&block).is_ok() {}
    }
}

#[test]
fn on_a_full_disk_events_are_refused_until_there_is_room_and_nothing_acknowledged_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let name = "disk::full::on_a_full_disk_events_are_refused_until_there_is_room_and_nothing_acknowledged_is_lost";
    let Some(folder) = in_child(name, directory.path(), in_own_mounts(SMALL_DISK)) else { return };
    let place = Place::new(&folder, &format!("[journal]\npath = \"disk/finhook.db\"\n{ARCHIVE}"));
    let (finhook, mut sender) = (place.start(), Sender::default());
    for _ in 0..5 {
        sender.post(&finhook, 0);
    }
    let filler = folder.join("disk/filler");
    fill_up(&filler);
    // The log may have some room left in what it occupies already.
    until("a refusal", || sender.try_post(&finhook, 10_000) == Some(503));
    until("that it is not ready", || finhook.ready() == 503);
    assert_eq!(sender.try_post(&finhook, 10_000), Some(503));
    until("word of it", || finhook.logged("no space is left on the journal's disk: free some").is_some());

    // Nothing comes in that could wake it; it looks for itself.
    fs::remove_file(filler).unwrap();
    let freed = Instant::now();
    until("that it is ready again", || finhook.ready() == 200);
    assert!(freed.elapsed() < Duration::from_secs(10), "{:?}", freed.elapsed());
    for _ in 0..5 {
        sender.post(&finhook, 10_000);
    }
    let archive = wait_for_archive(&folder.join("archive/events.ndjson"), &sender.acked);
    assert_eq!(ids(archive), sender.acked, "each once, and none that was refused");
    assert_eq!(finhook.stop().status.code(), Some(0));
}

#[test]
fn a_start_on_a_full_disk_fails_and_says_where_to_look() {
    let directory = tempfile::tempdir().unwrap();
    let name = "disk::full::a_start_on_a_full_disk_fails_and_says_where_to_look";
    let Some(folder) = in_child(name, directory.path(), in_own_mounts(SMALL_DISK)) else { return };
    let place = Place::new(&folder, &format!("[journal]\npath = \"disk/finhook.db\"\n{ARCHIVE}"));
    let (finhook, mut sender) = (place.start(), Sender::default());
    sender.post(&finhook, 0);
    finhook.stop();
    // They are there or not, by how far the end had come; both are empty of events.
    for (file, at_most) in [("finhook.db-wal", 0), ("finhook.db-shm", 32 * 1024)] {
        if let Ok(left) = fs::metadata(folder.join("disk").join(file)) {
            assert!(left.len() <= at_most, "{file}");
            fs::remove_file(folder.join("disk").join(file)).unwrap();
        }
    }
    let filler = folder.join("disk/filler");
    fill_up(&filler);
    let ended = place.start_under(Command::new("env")).unwrap_err();
    assert_eq!(ended.status.code(), Some(1));
    let errors = ended.errors();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].contains("disk/finhook.db") && errors[0].contains("is its disk full"), "{errors:?}");

    fs::remove_file(filler).unwrap();
    let finhook = place.start();
    sender.post(&finhook, 0);
    assert_eq!(ids(wait_for_archive(&folder.join("archive/events.ndjson"), &sender.acked)), sender.acked);
}

#[test]
fn while_one_sinks_disk_is_full_that_sink_waits_and_the_others_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let name = "disk::full::while_one_sinks_disk_is_full_that_sink_waits_and_the_others_go_on";
    let Some(folder) = in_child(name, directory.path(), in_own_mounts(SMALL_DISK)) else { return };
    let narrow = "[sinks.narrow]\ntype = \"file\"\npath = \"disk/events.ndjson\"\n";
    let place = Place::new(&folder, &format!("{ARCHIVE}{narrow}"));
    let (finhook, mut sender) = (place.start(), Sender::default());
    for _ in 0..5 {
        sender.post(&finhook, 0);
    }
    let narrow = folder.join("disk/events.ndjson");
    let before = wait_for_archive(&narrow, &sender.acked);
    fill_up(&folder.join("disk/filler"));
    for _ in 0..30 {
        sender.post(&finhook, 20_000);
    }
    let archive = wait_for_archive(&folder.join("archive/events.ndjson"), &sender.acked);
    assert_eq!(ids(archive), sender.acked);
    until("word of the sink's failure", || finhook.logged("free space, it goes on by itself").is_some());
    assert_eq!(finhook.ready(), 200, "the journal takes events all the same");
    // What still fits into the file's last page may be there: whole lines only, and in order.
    until("only whole lines", || fs::read(&narrow).unwrap().ends_with(b"\n"));
    let waiting = archived(&narrow);
    assert!(waiting.len() >= before.len() && waiting.len() < sender.acked.len());

    fs::remove_file(folder.join("disk/filler")).unwrap();
    let caught_up = wait_for_archive(&narrow, &sender.acked);
    assert_eq!(ids(caught_up), sender.acked, "no torn line, and none twice");
    assert_eq!(finhook.stop().status.code(), Some(0));
}

#[test]
fn at_the_limit_on_the_size_of_files_events_are_refused_and_the_process_lives() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::new(folder.path(), &format!("{ARCHIVE}rotate_bytes = 500000\n"));
    let mut limited = Command::new("sh");
    // In blocks of 512 bytes.
    limited.args(["-c", "ulimit -S -f 4096; exec \"$0\" \"$@\""]);
    let (finhook, mut sender) = (place.start_under(limited).unwrap(), Sender::default());
    // The log reaches the limit first, is copied back, and goes on; in the end the database itself is that large.
    let database_is_full = || fs::metadata(place.path("data/finhook.db")).unwrap().len() >= 2 * 1024 * 1024 - 64 * 1024;
    until("the limit", || sender.try_post(&finhook, 100_000) == Some(503) && database_is_full());
    until("that it is not ready", || finhook.ready() == 503);
    until("word of it", || finhook.logged("limit on the size of files (ulimit -f): raise it").is_some());

    let raised = Command::new("prlimit").args(["--fsize=unlimited:", "--pid", &finhook.id().to_string()]).status();
    assert!(raised.unwrap().success());
    until("that it is ready again", || finhook.ready() == 200);
    sender.post(&finhook, 100_000);
    until("every event in the archive", || {
        let whole = fs::read(place.path("archive/events.ndjson")).is_ok_and(|text| text.ends_with(b"\n"));
        whole && archived(&place.path("archive/events.ndjson")).len() >= sender.acked.len()
    });
    assert_eq!(finhook.stop().status.code(), Some(0));
    assert_eq!(ids(archived(&place.path("archive/events.ndjson"))), sender.acked);
}

#[test]
fn at_max_bytes_events_are_refused_until_a_purge_or_the_retention_makes_room() {
    const MAX: u64 = 8_000_000;
    let folder = tempfile::tempdir().unwrap();
    let limits = format!("[journal]\npath = \"data/finhook.db\"\nmax_bytes = {MAX}\nretention = \"3s\"\n");
    let place = Place::new(folder.path(), &format!("{limits}{ARCHIVE}"));
    let (finhook, mut sender) = (place.start(), Sender::default());
    let admin = format!("http://{}", finhook.admin);
    let said = |text: &str| finhook.logged(text).is_some();
    let bytes = || {
        let metrics = finhook.admin_get("/metrics").body;
        let line = metrics.lines().find(|line| line.starts_with("finhook_journal_bytes ")).unwrap();
        line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    let reached =
        "journal.max_bytes is reached: raise it, shorten journal.retention, or look for a sink that is paused";

    // What this sink has not got keeps its bytes, however short the retention.
    place.run(&["sinks", "pause", "archive", "--admin", &admin]);
    for _ in 0..70 {
        sender.post(&finhook, 100_000);
    }
    until("the warning", || said("the journal has reached 80 % of journal.max_bytes"));
    assert!((MAX * 8 / 10..MAX).contains(&bytes()), "{}", bytes());
    assert!(finhook.ready() == 200 && !said(reached), "not before it is reached");
    until("a refusal", || sender.try_post(&finhook, 5_000) == Some(503));
    assert!(bytes() >= MAX && said(reached));
    assert_eq!(finhook.ready(), 503);
    let for_balancers = Client::new(finhook.public).request("GET /readyz HTTP/1.0\r\n\r\n", &[]).unwrap();
    assert_eq!((for_balancers.status, &*for_balancers.body), (503, ""), "strangers are not told why");
    assert_eq!(sender.try_post(&finhook, 0), Some(503), "a small one too");

    // It is looked at once a second: some more than that were taken in.
    let (most, purged) = (bytes(), sender.acked.len() - 5);
    let purged: Vec<_> = sender.acked.drain(..purged).collect();
    let ids = purged.iter().map(String::as_str);
    place.run(&["events", "purge", "--yes", "--admin", &admin].into_iter().chain(ids).collect::<Vec<_>>());
    until("that it is ready again", || finhook.ready() == 200);
    sender.post(&finhook, 0);

    // Nobody does anything now but let the sink go on, and its events grow old.
    for _ in 0..70 {
        sender.try_post(&finhook, 100_000).unwrap();
    }
    until("a refusal", || sender.try_post(&finhook, 5_000) == Some(503));
    place.run(&["sinks", "resume", "archive", "--admin", &admin]);
    let archive = place.path("archive/events.ndjson");
    assert_eq!(self::ids(wait_for_archive(&archive, &sender.acked)), sender.acked, "none lost, none that was refused");
    until("that it is ready again", || finhook.ready() == 200);
    sender.post(&finhook, 0);
    assert_eq!(self::ids(wait_for_archive(&archive, &sender.acked)), sender.acked);
    let refused = sender.posted as usize - sender.acked.len() - purged.len();
    println!("{} acknowledged, {refused} refused, at most {most} bytes", sender.acked.len() + purged.len());
    assert_eq!(finhook.stop().status.code(), Some(0));
}
