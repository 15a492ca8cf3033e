//! A power cut at any moment. The writes and syncs of a run are recorded by `strace`, together with its answers; then states are
//! built as a power cut may leave them: what was synced is there, of what was not, any part may be. In each, every event that
//! was acknowledged before must be there.

mod trace;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use finhook::journal;
use finhook::metrics::Metrics;

use super::{ARCHIVE, Sender};
use crate::support::events::settings;
use crate::support::process::{Place, body};
use crate::support::wait::until;
use trace::Step;

/// What becomes of a step that was not synced.
#[derive(Debug, Clone, Copy)]
enum Unsynced {
    Gone,
    There,
    /// Each write is there or not.
    Some,
    /// Each sector of so many bytes of each write is there or not.
    Torn(usize),
}

/// The files after a power cut behind the first `cut` steps, on a disk that does not do what it is told for `unsafe_file`.
fn after_a_cut(
    steps: &[Step],
    cut: usize,
    unsynced: Unsynced,
    unsafe_file: Option<&str>,
    rng: &mut fastrand::Rng,
) -> BTreeMap<String, Vec<u8>> {
    // Up to where the steps of a file, and of the folder, are durable.
    let mut durable: HashMap<&str, usize> = HashMap::new();
    for step in &steps[..cut] {
        if let Step::Sync { file, began } = step
            && unsafe_file != Some(file)
        {
            durable.insert(file, *began);
        }
    }
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut nameless = Vec::new();
    for (number, step) in steps[..cut].iter().enumerate() {
        let synced = |file: &str| durable.get(file).is_some_and(|to| number < *to);
        let mut happens = || match unsynced {
            Unsynced::Gone => false,
            Unsynced::There => true,
            Unsynced::Some | Unsynced::Torn(_) => rng.bool(),
        };
        match step {
            Step::Create(file) => {
                let named = synced("") || happens();
                if !files.contains_key(file) && !named {
                    nameless.push(file.clone());
                }
                if named {
                    nameless.retain(|other| other != file);
                }
                files.entry(file.clone()).or_default();
            }
            Step::Write { file, at, bytes } => {
                let sector = match unsynced {
                    Unsynced::Torn(sector) if !synced(file) => sector,
                    _ => bytes.len().max(1),
                };
                for (index, part) in bytes.chunks(sector).enumerate() {
                    if synced(file) || happens() {
                        let at = at + index * sector;
                        let contents = files.entry(file.clone()).or_default();
                        contents.resize(contents.len().max(at + part.len()), 0);
                        contents[at..at + part.len()].copy_from_slice(part);
                    }
                }
            }
            Step::Truncate { file, len } if synced(file) || happens() => {
                files.entry(file.clone()).or_default().resize(*len, 0);
            }
            Step::Truncate { .. } | Step::Sync { .. } | Step::Ack(_) => {}
        }
    }
    files.retain(|file, _| !nameless.contains(file));
    files
}

/// Opens the journal of a state and returns the ids in it, once it was checked.
async fn recovered(files: &BTreeMap<String, Vec<u8>>) -> Result<HashSet<String>, String> {
    let folder = tempfile::tempdir().unwrap();
    for (name, contents) in files {
        fs::write(folder.path().join(name), contents).unwrap();
    }
    let opened = journal::open(&settings(folder.path()), Arc::new(Metrics::new())).map_err(|e| e.to_string())?;
    let (journal, mut running) = (opened.journal, opened.running);
    // A connection of the test's own, beside the one that the journal has.
    let read = || -> rusqlite::Result<(String, HashSet<String>)> {
        let connection = rusqlite::Connection::open(folder.path().join("finhook.db"))?;
        let sound: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
        let mut ids = connection.prepare("SELECT id FROM events")?;
        let ids = ids.query_map([], |row| Ok(uuid::Uuid::from_bytes(row.get(0)?).to_string()))?;
        Ok((sound, ids.collect::<Result<HashSet<_>, _>>()?))
    };
    let read = read();
    journal.close();
    running.ended().await.map_err(|e| e.to_string())?;
    match read {
        Ok((sound, ids)) if sound == "ok" => Ok(ids),
        other => Err(format!("{other:?}")),
    }
}

/// Whether all that was acknowledged before a cut is there after it.
async fn survives(
    steps: &[Step],
    cut: usize,
    unsynced: Unsynced,
    unsafe_file: Option<&str>,
    rng: &mut fastrand::Rng,
) -> Result<(), String> {
    let found = recovered(&after_a_cut(steps, cut, unsynced, unsafe_file, rng)).await;
    let case = format!("cut after step {cut} of {}, {unsynced:?}", steps.len());
    let found = found.map_err(|error| format!("{case}: {error}"))?;
    let lost = acks(&steps[..cut]).filter(|id| !found.contains(*id)).count();
    if lost == 0 { Ok(()) } else { Err(format!("{case}: {lost} acknowledged events are lost")) }
}

/// The ids that were acknowledged, in order.
fn acks(steps: &[Step]) -> impl Iterator<Item = &str> {
    steps.iter().filter_map(|step| if let Step::Ack(id) = step { Some(id.as_str()) } else { None })
}

/// Where the steps are for which this holds.
fn places(steps: &[Step], holds: impl Fn(&Step) -> bool) -> Vec<usize> {
    (0..steps.len()).filter(|at| holds(&steps[*at])).collect()
}

/// Bytes of a log that is to be started over.
const LARGE: u64 = 32 << 20;

/// A number in the log's header that changes whenever it starts over.
fn times_begun(log: &Path) -> [u8; 4] {
    let mut header = [0; 16];
    File::open(log).unwrap().read_exact(&mut header).unwrap();
    header[12..].try_into().unwrap()
}

/// Where a large log starts over, and how large it was.
fn starts_over(steps: &[Step]) -> Option<(usize, usize)> {
    let mut len = 0;
    for (number, step) in steps.iter().enumerate() {
        if let Step::Write { file, at, bytes } = step
            && file == "finhook.db-wal"
        {
            if *at == 0 && len as u64 >= LARGE {
                return Some((number, len));
            }
            len = if *at == 0 { bytes.len() } else { len.max(at + bytes.len()) };
        }
    }
    None
}

const MODES: [Unsynced; 5] =
    [Unsynced::Gone, Unsynced::There, Unsynced::Some, Unsynced::Torn(512), Unsynced::Torn(4096)];

#[tokio::test]
async fn after_a_power_cut_at_any_moment_every_acknowledged_event_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    let place = Place::new(folder.path(), ARCHIVE);
    let mut sender = Sender::default();
    let mut all = Vec::new();
    // Killed in between: the next life recovers the log and copies it back.
    for events in [12, 12, 6] {
        let finhook = trace::start(&place, &trace);
        for event in 0..events {
            sender.post(&finhook, event * 2_000);
        }
        all.extend(trace::kill(finhook, &trace));
    }
    let data = folder.path().canonicalize().unwrap().join("data");
    let steps = trace::steps(&all, &data);
    assert_eq!(acks(&steps).collect::<Vec<_>>(), sender.acked, "an answer for each acknowledged event");
    let syncs = places(&steps, |step| matches!(step, Step::Sync { .. }));

    let mut rng = fastrand::Rng::with_seed(4);
    // Just before and just after each sync, and right after each answer; the rest at random.
    let mut cuts: Vec<usize> = syncs.iter().flat_map(|at| [*at, at + 1]).collect();
    cuts.extend(places(&steps, |step| matches!(step, Step::Ack(_))).iter().map(|at| at + 1));
    cuts.extend((0..60).map(|_| rng.usize(..=steps.len())));
    for (number, cut) in cuts.iter().enumerate() {
        survives(&steps, *cut, MODES[number % MODES.len()], None, &mut rng).await.unwrap();
    }
    println!("{} states of {} steps, {} syncs, {} answers", cuts.len(), steps.len(), syncs.len(), sender.acked.len());
}

/// Under load the log grows until its bulk is copied into the database and it starts over.
#[tokio::test]
async fn after_a_power_cut_while_a_large_log_is_copied_and_started_over_every_acknowledged_event_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    let place = Place::new(folder.path(), "");
    let finhook = trace::start(&place, &trace);
    let log = place.path("data/finhook.db-wal");
    let enough = AtomicBool::new(false);
    let acked: u64 = std::thread::scope(|scope| {
        let send = |sender: u64| {
            let (mut acked, mut rest) = (0, 10);
            while rest > 0 {
                rest -= u64::from(enough.load(Ordering::Relaxed));
                assert_eq!(finhook.post(&body(&format!("c{sender}"), acked, 200_000)).unwrap().status, 200);
                acked += 1;
            }
            acked
        };
        let senders: Vec<_> = (0..3).map(|sender| scope.spawn(move || send(sender))).collect();
        until("a large log", || fs::metadata(&log).is_ok_and(|found| found.len() >= LARGE));
        let large = times_begun(&log);
        until("that it starts over", || times_begun(&log) != large);
        enough.store(true, Ordering::Relaxed);
        senders.into_iter().map(|sender| sender.join().unwrap()).sum()
    });
    let all = trace::kill(finhook, &trace);
    let data = folder.path().canonicalize().unwrap().join("data");
    let steps = trace::steps(&all, &data);
    drop(all);
    assert_eq!(acks(&steps).count() as u64, acked);
    let writes = |name: &'static str| move |step: &Step| matches!(step, Step::Write { file, .. } if file == name);
    let syncs = |name: &'static str| move |step: &Step| matches!(step, Step::Sync { file, .. } if file == name);
    let (restart, largest) = starts_over(&steps).expect("a large log that starts over");
    let copied = places(&steps, writes("finhook.db"));
    let beside = places(&steps[copied[0]..restart], writes("finhook.db-wal")).len();
    assert!(beside > 0, "nothing was committed while the log was copied");

    let mut rng = fastrand::Rng::with_seed(6);
    // Around each sync of the database, within each copy, and around each of the first steps of the log that started over.
    let mut cuts: Vec<usize> = places(&steps, syncs("finhook.db")).iter().flat_map(|at| [*at, at + 1]).collect();
    cuts.extend((0..15).map(|_| copied[rng.usize(..copied.len())] + 1));
    cuts.extend(restart - 2..restart + 8);
    cuts.extend((0..10).map(|_| rng.usize(restart..=steps.len())));
    cuts.push(steps.len());
    for (number, cut) in cuts.iter().enumerate() {
        survives(&steps, *cut, MODES[number % MODES.len()], None, &mut rng).await.unwrap();
    }
    // What holds this up is the syncs, and this would notice if one of them was missing.
    for file in ["finhook.db", "finhook.db-wal"] {
        let kept = survives(&steps, steps.len(), Unsynced::Gone, Some(file), &mut rng).await;
        println!("without syncs of {file}: {}", kept.expect_err("lost in no power cut"));
    }
    println!(
        "{} states of {} steps; the log grew to {} MiB; {} writes and {} syncs of the database, {beside} writes \
         of the log meanwhile; {} answers",
        cuts.len(),
        steps.len(),
        largest >> 20,
        copied.len(),
        places(&steps, syncs("finhook.db")).len(),
        acks(&steps).count(),
    );
}
