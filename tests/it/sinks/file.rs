//! The file sink on a disk that is full, and the log sink into a pipe that nobody reads.

use std::fs;
use std::process::Command;

use finhook::config::{FileSink, LogSink};
use finhook::sink::Batch;
use finhook::sink::file::Archive;
use finhook::sink::log::Log;

use super::{in_child, numbered};

/// Needs `unshare` and `mount` (util-linux), and to be root or allowed to make user namespaces.
#[test]
fn on_a_full_disk_no_half_line_stays_and_the_batch_is_written_when_there_is_room() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new("unshare");
    if !is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    let mount = "mount -t tmpfs -o size=128k tmpfs \"$FINHOOK_TEST_CHILD\" && exec \"$@\"";
    command.args(["--mount", "--", "sh", "-c", mount, "sh"]);
    let name = "sinks::file::on_a_full_disk_no_half_line_stays_and_the_batch_is_written_when_there_is_room";
    let Some(disk) = in_child(name, directory.path(), command) else { return };

    let config = FileSink { path: disk.join("events.ndjson"), rotate_bytes: u64::MAX, keep: 3 };
    let filler = disk.join("filler");
    fs::write(&filler, vec![0; 64 * 1024]).unwrap();
    let batch: Vec<_> = (1..=10).map(|seq| numbered(seq, &body(seq))).collect();
    let mut archive = Archive::open(&config).unwrap();
    archive.write(&batch[..2]).unwrap();

    // Eight lines of 10 KiB do not fit into what is left.
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
fn a_pipe_that_nobody_reads_any_more_is_an_error_and_not_the_end() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut log = Log::new(&LogSink { include_body: false }, Box::new(writer));
    let error = log.write(&[numbered(1, &body(1))]).unwrap_err();
    assert!(error.starts_with("cannot write to stdout: Broken pipe"), "{error}");
}

fn body(seq: u64) -> String {
    format!("{{\"event_name\":\"x\",\"user_id\":\"{seq}\",\"text\":\"{}\"}}", "x".repeat(10 * 1024))
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

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().unwrap();
    id.stdout.starts_with(b"0\n")
}
