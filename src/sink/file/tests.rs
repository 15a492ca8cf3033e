#![allow(clippy::unwrap_used)]
use std::os::unix::fs::PermissionsExt;

use bytes::Bytes;
use tempfile::TempDir;
use uuid::Uuid;

use super::rotate::numbered;
use super::*;
use crate::event::{Event, Fields, Kind, Parts, Stored};

fn delivery(seq: u64) -> Delivery {
    delivery_of(seq, "{\"event_name\":\"x\"}")
}

fn delivery_of(seq: u64, body: &str) -> Delivery {
    let event = Event::from_journal(Parts {
        id: Uuid::from_u128(seq.into()),
        kind: Kind::Event,
        endpoint: Arc::from("fin"),
        received_ms: 0,
        created_ms: 0,
        fields: Fields { event_name: Some("x".into()), user_id: Some(seq.to_string().into()), ..Fields::default() },
        content_type: None,
        signature: None,
        body: Bytes::copy_from_slice(body.as_bytes()),
    });
    Delivery { stored: Arc::new(Stored { seq, event }), attempt: 1, replay: None }
}

fn line_len(delivery: &Delivery) -> u64 {
    let mut line = Vec::new();
    append_json(&mut line, &delivery.stored.event);
    line.len() as u64 + 1
}

struct Place {
    _dir: TempDir,
    config: FileSink,
}

impl Place {
    fn new(rotate_bytes: u64, keep: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.ndjson");
        Self { config: FileSink { path, rotate_bytes, keep }, _dir: dir }
    }

    fn path(&self) -> &Path {
        &self.config.path
    }

    fn open(&self) -> Archive {
        Archive::open(&self.config).unwrap()
    }

    fn archive(&self) -> impl Fn(u32) -> PathBuf {
        let path = self.path().to_owned();
        move |number| if number == 0 { path.clone() } else { numbered(&path, number) }
    }

    /// The sequence numbers in the rotated file of that number, 0 for the newest; none if there is no such file.
    fn seqs(&self, number: u32) -> Option<Vec<u64>> {
        let text = fs::read_to_string(self.archive()(number)).ok()?;
        assert!(text.is_empty() || text.ends_with('\n'), "a torn line: {text:?}");
        let seq = |line: &str| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            line["userid"].as_str().unwrap().parse().unwrap()
        };
        Some(text.lines().map(seq).collect())
    }
}

#[test]
fn lines_are_appended_in_order_over_batches_and_restarts() {
    let place = Place::new(u64::MAX, 10);
    place.open().write(&[delivery(1), delivery(2)]).unwrap();
    let mut archive = place.open();
    archive.write(&[delivery(3)]).unwrap();
    archive.write(&[]).unwrap();
    archive.write(&[delivery(4)]).unwrap();
    assert_eq!(place.seqs(0).unwrap(), [1, 2, 3, 4]);
}

#[test]
fn directories_are_created_and_the_file_is_for_its_owner_only() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b/events.ndjson");
    Archive::open(&FileSink { path: path.clone(), rotate_bytes: u64::MAX, keep: 1 }).unwrap();
    assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_file_is_rotated_before_it_grows_over_the_bound_and_the_newest_n_are_kept() {
    let bound = 2 * line_len(&delivery(1)) + 1;
    let place = Place::new(bound, 2);
    let mut archive = place.open();
    for seq in 1..=9 {
        archive.write(&[delivery(seq)]).unwrap();
    }
    assert_eq!(place.seqs(0).unwrap(), [9]);
    assert_eq!(place.seqs(1).unwrap(), [7, 8]);
    assert_eq!(place.seqs(2).unwrap(), [5, 6]);
    assert_eq!(place.seqs(3), None);
}

#[test]
fn a_batch_that_spans_files_is_rotated_within() {
    let bound = 2 * line_len(&delivery(1));
    let place = Place::new(bound, 9);
    place.open().write(&(1..=7).map(delivery).collect::<Vec<_>>()).unwrap();
    let files: Vec<_> = (0..4).map(|number| place.seqs(number).unwrap()).collect();
    assert_eq!(files, [vec![7], vec![5, 6], vec![3, 4], vec![1, 2]]);
    assert!((0..4).all(|number| fs::metadata(place.archive()(number)).unwrap().len() <= bound));
}

#[test]
fn a_line_over_the_bound_gets_a_file_of_its_own() {
    let place = Place::new(line_len(&delivery(1)), 9);
    let long = delivery_of(2, &format!("{{\"a\":\"{}\"}}", "x".repeat(1000)));
    place.open().write(&[delivery(1), long, delivery(3)]).unwrap();
    let files: Vec<_> = (0..3).map(|number| place.seqs(number).unwrap()).collect();
    assert_eq!(files, [[3], [2], [1]]);
}

#[test]
fn a_batch_longer_than_what_is_written_at_once_is_appended_whole() {
    let place = Place::new(u64::MAX, 1);
    let body = format!("{{\"a\":\"{}\"}}", "x".repeat(GATHER / 3));
    let mut archive = place.open();
    archive.write(&(1..=10).map(|seq| delivery_of(seq, &body)).collect::<Vec<_>>()).unwrap();
    archive.write(&[delivery_of(11, &body), delivery(12)]).unwrap();
    assert_eq!(place.seqs(0).unwrap(), (1..=12).collect::<Vec<_>>());
    assert!(archive.lines.capacity() <= 2 * GATHER);
}

#[test]
fn a_smaller_keep_takes_effect_at_the_next_rotation() {
    let mut place = Place::new(line_len(&delivery(1)), 5);
    place.open().write(&(1..=6).map(delivery).collect::<Vec<_>>()).unwrap();
    place.config.keep = 2;
    place.open().write(&[delivery(7)]).unwrap();
    assert_eq!([place.seqs(0), place.seqs(1), place.seqs(2)], [Some(vec![7]), Some(vec![6]), Some(vec![5])]);
    assert!((3..=6).all(|number| place.seqs(number).is_none()));
}

#[test]
fn a_gap_that_a_crash_left_in_the_numbers_is_filled_and_nothing_dropped_for_it() {
    let place = Place::new(line_len(&delivery(1)), 3);
    place.open().write(&(1..=4).map(delivery).collect::<Vec<_>>()).unwrap();
    // As if it had ended after .1 had become .2 (and .2 .3, which is dropped).
    fs::rename(place.archive()(2), place.archive()(3)).unwrap();
    fs::rename(place.archive()(1), place.archive()(2)).unwrap();
    place.open().write(&[delivery(5)]).unwrap();
    let files: Vec<_> = (0..4).map(|number| place.seqs(number).unwrap()).collect();
    assert_eq!(files, [[5], [4], [3], [2]]);
}

#[test]
fn a_torn_last_line_is_cut_off_at_start_and_the_events_written_again() {
    let place = Place::new(u64::MAX, 3);
    place.open().write(&[delivery(1), delivery(2)]).unwrap();
    let whole = fs::read(place.path()).unwrap();
    let first = usize::try_from(line_len(&delivery(1))).unwrap();
    for len in first..whole.len() {
        fs::write(place.path(), &whole[..len]).unwrap();
        place.open().write(&[delivery(2)]).unwrap();
        assert_eq!(place.seqs(0).unwrap(), [1, 2], "torn after {len} bytes");
    }
}

#[test]
fn a_file_taken_away_while_running_is_begun_anew() {
    let place = Place::new(u64::MAX, 3);
    let mut archive = place.open();
    archive.write(&[delivery(1)]).unwrap();
    fs::rename(place.path(), place.archive()(1)).unwrap();
    archive.write(&[delivery(2)]).unwrap();
    assert_eq!([place.seqs(0), place.seqs(1)], [Some(vec![2]), Some(vec![1])]);
    fs::remove_file(place.path()).unwrap();
    archive.write(&[delivery(3)]).unwrap();
    assert_eq!(place.seqs(0).unwrap(), [3]);
    fs::remove_dir_all(place.path().parent().unwrap()).unwrap();
    archive.write(&[delivery(4)]).unwrap();
    assert_eq!(place.seqs(0).unwrap(), [4]);
}

#[test]
fn a_file_replaced_or_truncated_by_others_is_continued_where_it_ends() {
    let place = Place::new(2 * line_len(&delivery(1)), 3);
    let mut archive = place.open();
    archive.write(&[delivery(1), delivery(2)]).unwrap();
    File::options().write(true).open(place.path()).unwrap().set_len(0).unwrap();
    archive.write(&[delivery(3)]).unwrap();
    assert_eq!(place.seqs(0).unwrap(), [3]);
    File::options().write(true).open(place.path()).unwrap().set_len(5).unwrap();
    archive.write(&[delivery(4)]).unwrap();
    assert_eq!(place.seqs(0).unwrap(), [4], "the half line is mended");
    assert_eq!(place.seqs(1), None, "and the bound counts from there");
}

#[test]
fn what_was_rotated_before_a_failure_is_not_written_again() {
    let place = Place::new(2 * line_len(&delivery(1)), 9);
    let mut archive = place.open();
    let batch: Vec<_> = (1..=5).map(delivery).collect();
    // The second rotation of the batch fails: a directory that is not empty stands in its way.
    archive.write(&batch[..1]).unwrap();
    fs::create_dir_all(place.archive()(9).join("x")).unwrap();
    for number in 2..=8 {
        fs::create_dir(place.archive()(number)).unwrap();
    }
    let error = archive.write(&batch[1..]).unwrap_err();
    assert!(error.contains("events.ndjson"), "{error}");
    assert_eq!([place.seqs(0), place.seqs(1)], [Some(vec![3, 4]), Some(vec![1, 2])]);

    (2..=9).for_each(|number| fs::remove_dir_all(place.archive()(number)).unwrap());
    archive.write(&batch[1..]).unwrap();
    let files: Vec<_> = (0..3).map(|number| place.seqs(number).unwrap()).collect();
    assert_eq!(files, [vec![5], vec![3, 4], vec![1, 2]]);
}

#[test]
fn a_path_that_cannot_be_used_is_refused_with_the_fix_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let refuse = |path: PathBuf| Archive::open(&FileSink { path, rotate_bytes: u64::MAX, keep: 1 }).unwrap_err();

    let error = refuse(dir.path().to_owned());
    assert!(error.contains("not a regular file") && error.contains("choose another path"), "{error}");

    let other = dir.path().join("notes.txt");
    fs::write(&other, "no line break at the end").unwrap();
    let error = refuse(other.clone());
    assert!(error.contains("notes.txt") && error.contains("choose another path"), "{error}");
    assert_eq!(fs::read_to_string(&other).unwrap(), "no line break at the end");

    let error = refuse(other.join("events.ndjson"));
    assert!(error.contains("choose another path"), "{error}");
}
