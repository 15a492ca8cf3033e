//! A power cut at any moment. The writes and syncs of a run are recorded by `strace`, together with its answers; then states are
//! built as a power cut may leave them: what was synced is there, of what was not, any part may be. In each, every event that
//! was acknowledged before must be there.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::process::Command;

use super::{ARCHIVE, Sender};
use crate::support::events::{open, settings};
use crate::support::process::{Place, eventually};

/// Whether the last lines of the trace tell of the end of that process. Its calls are all there then.
fn ends_with_the_end_of(trace: &Path, process: &str) -> bool {
    let mut file = File::open(trace).unwrap();
    let len = file.metadata().unwrap().len();
    file.seek(SeekFrom::Start(len.saturating_sub(4096))).unwrap();
    let mut tail = String::new();
    file.read_to_string(&mut tail).unwrap();
    let end =
        |line: &str| line.split_whitespace().next() == Some(process) && line.ends_with("+++ killed by SIGKILL +++");
    tail.lines().any(end)
}

/// One step of the run, in the order in which they were done.
#[derive(Debug)]
enum Step {
    /// The file was created; its name is durable after a sync of its folder.
    Create(String),
    Write {
        file: String,
        at: usize,
        bytes: Vec<u8>,
    },
    Truncate {
        file: String,
        len: usize,
    },
    /// Of a file, covering what was done before the step of that number.
    Sync {
        file: String,
        began: usize,
    },
    /// An answer 200 was sent.
    Ack,
}

/// Part of what `strace -f -y -xx` prints for a call: its text up to the result, and that.
fn calls(trace: &str) -> Vec<(usize, String)> {
    let mut unfinished: HashMap<&str, (usize, String)> = HashMap::new();
    let mut calls: Vec<(usize, String)> = Vec::new();
    for line in trace.lines() {
        let Some((pid, rest)) = line.trim_start().split_once(' ') else { continue };
        let rest = rest.trim_start();
        if let Some(begun) = rest.strip_suffix(" <unfinished ...>") {
            unfinished.insert(pid, (calls.len(), begun.to_owned()));
        } else if let Some(resumed) = rest.strip_prefix("<... ") {
            let Some((began, begun)) = unfinished.remove(pid) else { continue };
            let (_, end) = resumed.split_once("resumed>").unwrap();
            calls.push((began, begun + end));
        } else if rest.starts_with("+++ ") {
            // Killed within a call that was done already, e.g. the answer to the last event.
            calls.extend(unfinished.remove(pid));
        } else if rest.contains('(') {
            calls.push((calls.len(), rest.to_owned()));
        }
    }
    calls
}

fn unhex(text: &str) -> Vec<u8> {
    text.split("\\x").skip(1).map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

/// A path as it stands in the trace.
fn plain(path: &str) -> String {
    if path.contains("\\x") { String::from_utf8(unhex(path)).unwrap() } else { path.to_owned() }
}

/// The steps in a trace of a finhook whose journal is in `folder`; file names are relative to it, "" is the folder itself.
fn steps(trace: &str, folder: &Path) -> Vec<Step> {
    let mut steps = Vec::new();
    // Steps before the call of each number.
    let mut steps_before = Vec::new();
    let mut positions: HashMap<String, usize> = HashMap::new();
    for (began, call) in calls(trace) {
        steps_before.push(steps.len());
        let Some((name, arguments)) = call.split_once('(') else { continue };
        if matches!(name, "sendto" | "writev" | "write")
            && arguments.contains("\\x48\\x54\\x54\\x50\\x2f\\x31\\x2e\\x31\\x20\\x32\\x30\\x30")
        {
            steps.push(Step::Ack);
            continue;
        }
        let Some((arguments, outcome)) = arguments.rsplit_once(" = ") else { continue };
        let result: i64 = outcome.split(['<', ' ']).next().unwrap().parse().unwrap_or(-1);
        if result < 0 {
            continue;
        }
        let quoted = |number: usize| arguments.split('"').nth(2 * number + 1).unwrap();
        let relative = |path: &str| {
            let path = plain(path);
            let file = Path::new(&path).strip_prefix(folder).ok()?.to_str()?.to_owned();
            ["", "finhook.db", "finhook.db-wal"].contains(&file.as_str()).then_some(file)
        };
        if name == "openat" {
            let Some((descriptor, path)) = outcome.split_once('<') else { continue };
            let Some(file) = relative(path.trim_end_matches('>')) else { continue };
            if arguments.contains("O_CREAT") && !file.is_empty() {
                steps.push(Step::Create(file));
            }
            positions.insert(descriptor.to_owned(), 0);
            continue;
        }
        let Some((descriptor, rest)) = arguments.split_once('<') else { continue };
        let Some(file) = rest.split_once('>').and_then(|(path, _)| relative(path)) else { continue };
        let number = |place: usize| {
            arguments.split(", ").nth(place).unwrap().trim_end_matches([')', ' ']).parse::<usize>().unwrap()
        };
        let done = usize::try_from(result).unwrap();
        match name {
            "lseek" => drop(positions.insert(descriptor.to_owned(), done)),
            "write" => {
                let position = positions.entry(descriptor.to_owned()).or_default();
                let bytes = unhex(quoted(0));
                assert_eq!(bytes.len(), done, "the trace must have all bytes");
                steps.push(Step::Write { file, at: *position, bytes });
                *position += done;
            }
            "pwrite64" => steps.push(Step::Write { file, at: number(3), bytes: unhex(quoted(0)) }),
            "ftruncate" => steps.push(Step::Truncate { file, len: number(1) }),
            "fdatasync" | "fsync" => steps.push(Step::Sync { file, began: steps_before[began] }),
            _ => {}
        }
    }
    steps
}

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

/// The files after a power cut behind the first `cut` steps.
fn after_a_cut(steps: &[Step], cut: usize, unsynced: Unsynced, rng: &mut fastrand::Rng) -> BTreeMap<String, Vec<u8>> {
    // Up to where the steps of a file, and of the folder, are durable.
    let mut durable: HashMap<&str, usize> = HashMap::new();
    for step in &steps[..cut] {
        if let Step::Sync { file, began } = step {
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
            Step::Truncate { .. } | Step::Sync { .. } | Step::Ack => {}
        }
    }
    files.retain(|file, _| !nameless.contains(file));
    files
}

/// Opens the journal of a state and returns the ids in it, once it was checked.
async fn recovered(files: &BTreeMap<String, Vec<u8>>) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    for (name, contents) in files {
        fs::write(folder.path().join(name), contents).unwrap();
    }
    let (journal, mut running) = open(&settings(folder.path()));
    let read = |connection: &rusqlite::Connection| {
        let sound: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
        assert_eq!(sound, "ok");
        let mut ids = connection.prepare("SELECT id FROM events")?;
        let ids = ids.query_map([], |row| Ok(uuid::Uuid::from_bytes(row.get(0)?).to_string()))?;
        ids.collect::<Result<Vec<_>, _>>()
    };
    let ids = journal.reader().unwrap().query(read).await.unwrap();
    journal.close();
    running.ended().await.unwrap();
    ids
}

#[tokio::test]
async fn after_a_power_cut_at_any_moment_every_acknowledged_event_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    let place = Place::new(folder.path(), ARCHIVE);
    let mut sender = Sender::default();
    let mut all = String::new();
    // Killed in between: the next life recovers the log and copies it back.
    for events in [12, 12, 6] {
        let mut strace = Command::new("strace");
        strace.args(["-D", "-f", "-q", "-y", "-xx", "-s", "200000", "-o"]).arg(&trace);
        strace.args(["-e", "trace=openat,lseek,write,pwrite64,ftruncate,fdatasync,fsync,sendto,writev"]);
        let finhook = place.start_under(strace).unwrap();
        for event in 0..events {
            sender.post(&finhook, event * 2_000);
        }
        let id = finhook.id().to_string();
        finhook.kill();
        eventually("the end of the trace", || ends_with_the_end_of(&trace, &id));
        all += &fs::read_to_string(&trace).unwrap();
    }
    let data = folder.path().canonicalize().unwrap().join("data");
    let steps = steps(&all, &data);
    let acks = steps.iter().filter(|step| matches!(step, Step::Ack)).count();
    assert_eq!(acks, sender.acked.len(), "an answer for each acknowledged event");
    let syncs: Vec<_> = (0..steps.len()).filter(|at| matches!(steps[*at], Step::Sync { .. })).collect();
    assert!(syncs.len() > acks, "no answer without a sync of its own");

    let mut rng = fastrand::Rng::with_seed(4);
    let mut states = 0;
    let modes = [Unsynced::Gone, Unsynced::There, Unsynced::Some, Unsynced::Torn(512), Unsynced::Torn(4096)];
    // Just before and just after each sync, and right after each answer; the rest at random.
    let mut cuts: Vec<usize> = syncs.iter().flat_map(|at| [*at, at + 1]).collect();
    cuts.extend((0..steps.len()).filter(|at| matches!(steps[*at], Step::Ack)).map(|at| at + 1));
    cuts.extend((0..60).map(|_| rng.usize(..=steps.len())));
    for (number, cut) in cuts.iter().enumerate() {
        let unsynced = modes[number % modes.len()];
        let before = steps[..*cut].iter().filter(|step| matches!(step, Step::Ack)).count();
        let found = recovered(&after_a_cut(&steps, *cut, unsynced, &mut rng)).await;
        for id in &sender.acked[..before] {
            assert!(found.contains(id), "cut after step {cut} of {}, {unsynced:?}: {id} is lost", steps.len());
        }
        states += 1;
    }
    println!("{states} states of {} steps, {} syncs, {acks} answers", steps.len(), syncs.len());
}
