//! The file sink on a disk that is full, and the log sink into a pipe that nobody reads.

use std::fs;
use std::process::Command;

use finhook::config::{FileSink, LogSink};
use finhook::sink::Batch;
use finhook::sink::file::Archive;
use finhook::sink::log::Log;

use super::{in_child, in_own_mounts, numbered};

/// Needs `unshare` and `mount` (util-linux), and to be root or allowed to make user namespaces.
#[test]
fn on_a_full_disk_no_half_line_stays_and_the_batch_is_written_when_there_is_room() {
    let directory = tempfile::tempdir().unwrap();
    let command = in_own_mounts("mount -t tmpfs -o size=8m tmpfs \"$FINHOOK_TEST_CHILD\"");
    let name = "sinks::file::on_a_full_disk_no_half_line_stays_and_the_batch_is_written_when_there_is_room";
    let Some(disk) = in_child(name, directory.path(), command) else { return };

    let config = FileSink { path: disk.join("events.ndjson"), rotate_bytes: u64::MAX, keep: 3 };
    let filler = disk.join("filler");
    fs::write(&filler, vec![0; 2 << 20]).unwrap();
    let batch: Vec<_> = (1..=10).map(|seq| numbered(seq, &body(seq, 700 << 10))).collect();
    let mut archive = Archive::open(&config).unwrap();
    archive.write(&batch[..2]).unwrap();

    // Of eight lines of 700 KiB, more than is written at once fits into what is left, but not all.
    for _ in 0..3 {
        let error = archive.write(&batch[2..]).unwrap_err();
        assert!(error.contains("events.ndjson: No space left") && error.contains("free space"), "{error}");
        assert_eq!(seqs(&config), [1, 2]);
    }
    fs::remove_file(filler).unwrap();
    archive.write(&batch[2..]).unwrap();
    assert_eq!(seqs(&config), (1..=10).collect::<Vec<_>>());
}

#[test]
fn at_a_limit_on_file_sizes_no_half_line_stays_and_the_error_names_the_limit() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new("bash");
    // As in the program, the signal that comes with the error is not the end.
    command.args(["-c", "trap '' XFSZ; ulimit -f 100; exec \"$@\"", "bash"]);
    let name = "sinks::file::at_a_limit_on_file_sizes_no_half_line_stays_and_the_error_names_the_limit";
    let Some(directory) = in_child(name, directory.path(), command) else { return };

    let path = directory.join("events.ndjson");
    let mut config = FileSink { path, rotate_bytes: u64::MAX, keep: 3 };
    let batch: Vec<_> = (1..=3).map(|seq| numbered(seq, &body(seq, 40 << 10))).collect();
    let mut archive = Archive::open(&config).unwrap();
    archive.write(&batch[..1]).unwrap();
    let error = archive.write(&batch[1..]).unwrap_err();
    assert!(error.contains("File too large") && error.contains("ulimit -f"), "{error}");
    assert_eq!(seqs(&config), [1]);

    config.rotate_bytes = 90 << 10;
    Archive::open(&config).unwrap().write(&batch[1..]).unwrap();
    assert_eq!(seqs(&config), [3]);
}

/// Needs `strace`.
#[test]
fn when_a_batch_is_reported_written_its_lines_and_the_names_of_its_files_are_synced() {
    let directory = tempfile::tempdir().unwrap();
    let trace = directory.path().join("trace");
    let mut command = Command::new("strace");
    command
        .args(["-f", "-y", "-s", "0", "-e", "trace=/^(write|fdatasync|fsync|openat|rename.*|mkdir.*)$", "-o"])
        .arg(&trace);
    let name = "sinks::file::when_a_batch_is_reported_written_its_lines_and_the_names_of_its_files_are_synced";
    if let Some(directory) = in_child(name, directory.path(), command) {
        // The third batch, of two lines, is split by a rotation.
        let path = directory.join("new/events.ndjson");
        let mut archive = Archive::open(&FileSink { path, rotate_bytes: 35 * 1024, keep: 3 }).unwrap();
        for batch in [1..=1, 2..=2, 3..=4] {
            archive.write(&batch.map(|seq| numbered(seq, &body(seq, 10 << 10))).collect::<Vec<_>>()).unwrap();
            fs::write(directory.join("reported"), "").unwrap();
        }
        return;
    }

    let trace = fs::read_to_string(trace).unwrap();
    let (mut unsynced, mut writes, mut renames, mut creations, mut reports) = (Vec::new(), 0, 0, 0, 0);
    for call in trace.lines().filter(|line| !line.contains("ENOENT")) {
        if call.contains("write(") && call.contains("/new/events.ndjson>") {
            writes += 1;
            unsynced.push("data");
        } else if call.contains("fdatasync(") && call.contains("/new/events.ndjson>") {
            unsynced.retain(|what| *what != "data");
        } else if call.contains("rename") && call.contains("events.ndjson.1\"") {
            assert!(!unsynced.contains(&"data"), "rotated before it was synced");
            renames += 1;
            unsynced.push("name");
        } else if call.contains("openat(") && call.contains("O_CREAT") && call.contains("/new/events.ndjson\"") {
            creations += 1;
            unsynced.push("name");
        } else if call.contains("fsync(") && call.contains("/new>") {
            unsynced.retain(|what| *what != "name");
        } else if call.contains("mkdir") && call.contains("/new\"") {
            unsynced.push("directory");
        } else if call.contains("fsync(") && call.contains(&format!("{}>", directory.path().display())) {
            unsynced.retain(|what| *what != "directory");
        } else if call.contains("openat(") && call.contains("/reported\"") {
            assert!(unsynced.is_empty(), "reported before it was synced: {unsynced:?}\n{trace}");
            reports += 1;
        }
    }
    assert_eq!((writes, renames, creations, reports), (4, 1, 2, 3), "{trace}");
}

#[test]
fn a_pipe_that_nobody_reads_any_more_is_an_error_and_not_the_end() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut log = Log::new(&LogSink { include_body: false }, Box::new(writer));
    let error = log.write(&[numbered(1, &body(1, 10))]).unwrap_err();
    assert!(error.starts_with("cannot write to stdout: Broken pipe"), "{error}");
}

fn body(seq: u64, text_bytes: usize) -> String {
    format!("{{\"event_name\":\"x\",\"user_id\":\"{seq}\",\"text\":\"{}\"}}", "x".repeat(text_bytes))
}

fn seqs(config: &FileSink) -> Vec<u64> {
    let text = fs::read_to_string(&config.path).unwrap();
    assert!(text.ends_with('\n'));
    let seq = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        line["userid"].as_str().unwrap().parse().unwrap()
    };
    text.lines().map(seq).collect()
}
