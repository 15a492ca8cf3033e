//! A disk that is too slow for what comes in, a database that another program holds, and a part of the process that ends.

use std::fs;
use std::process::{Child, Command};
use std::sync::Mutex;

use rusqlite::Connection;

use super::{ARCHIVE, Sender, ids};
use crate::support::process::{Answer, Finhook, Place, body, wait_for_archive};
use crate::support::wait::until;

/// `strace` on a finhook that runs already; it lets go when this is dropped.
struct Traced(Child);

impl Traced {
    fn new(finhook: &Finhook, inject: &str) -> Self {
        let calls = inject.split(':').next().unwrap();
        let mut strace = Command::new("strace");
        strace.args(["-f", "-q", "-o", "/dev/null", "-e", &format!("trace={calls}")]);
        strace.args(["-e", &format!("inject={inject}"), "-p", &finhook.id().to_string()]);
        let traced = Self(strace.spawn().unwrap());
        let untraced = |status: &String| status.contains("TracerPid:\t0\n");
        until("strace on every thread", || !threads(finhook).iter().any(untraced));
        traced
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        // It detaches, and the process goes on.
        let _ = rustix::process::kill_process(rustix::process::Pid::from_child(&self.0), rustix::process::Signal::TERM);
        let _ = self.0.wait();
    }
}

/// The status of each thread.
fn threads(finhook: &Finhook) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", finhook.id())).unwrap();
    tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("status")).ok()).collect()
}

#[test]
fn what_the_queue_has_no_room_for_is_refused_at_once_and_what_was_taken_in_is_unharmed() {
    // 64 MiB of bodies may wait.
    const SENDERS: u64 = 90;
    let folder = tempfile::tempdir().unwrap();
    let place = Place::new(folder.path(), "");
    let (finhook, mut sender) = (place.start(), Sender::default());
    sender.post(&finhook, 0);
    let hanging = Traced::new(&finhook, "fdatasync,fsync:delay_enter=50s");

    let answered: Mutex<Vec<(String, Answer)>> = Mutex::default();
    std::thread::scope(|scope| {
        for number in 0..SENDERS {
            let (answered, finhook) = (&answered, &finhook);
            scope.spawn(move || {
                let body = body(&format!("c{number}"), 0, 1_000_000);
                let answer = finhook.post(&body).unwrap();
                answered.lock().unwrap().push((body, answer));
            });
        }
        until("refusals", || answered.lock().unwrap().len() >= 5);
        for (_, answer) in answered.lock().unwrap().iter() {
            // The disk still hangs: they were not kept waiting for it.
            answer.assert_unavailable();
        }
        drop(hanging);
    });
    let mut refused = 0;
    for (body, answer) in answered.into_inner().unwrap() {
        if answer.status == 503 {
            answer.assert_unavailable();
            refused += 1;
            sender.acked.push(finhook.post(&body).unwrap().id());
        } else {
            sender.acked.push(answer.id());
        }
    }
    println!("{refused} of {SENDERS} refused");
    assert_eq!(finhook.stop().status.code(), Some(0));
    let journal = Connection::open(place.path("data/finhook.db")).unwrap();
    let mut stored = journal.prepare("SELECT id FROM events").unwrap();
    let stored = stored.query_map([], |row| Ok(uuid::Uuid::from_bytes(row.get(0)?).to_string())).unwrap();
    let mut stored: Vec<_> = stored.map(Result::unwrap).collect();
    stored.sort();
    sender.acked.sort();
    assert_eq!(stored, sender.acked, "those that were acknowledged, and none twice");
}

#[test]
fn while_another_program_holds_the_database_events_are_refused_and_then_taken_again() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::new(folder.path(), ARCHIVE);
    let (finhook, mut sender) = (place.start(), Sender::default());
    sender.post(&finhook, 0);
    let archive = place.path("archive/events.ndjson");
    wait_for_archive(&archive, &sender.acked);
    let other = Connection::open(place.path("data/finhook.db")).unwrap();
    other.busy_timeout(crate::support::wait::PATIENCE).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(sender.try_post(&finhook, 0), Some(503));
    assert_eq!(finhook.ready(), 503);
    until("word of it", || finhook.logged("another program holds the journal").is_some());
    drop(other);
    until("that it is ready again", || finhook.ready() == 200);
    sender.post(&finhook, 0);
    assert_eq!(ids(wait_for_archive(&archive, &sender.acked)), sender.acked);
}

/// A sink's worker panics when the system gives it no thread to write with.
#[test]
fn when_a_background_task_panics_the_process_ends_with_an_error_and_the_next_one_delivers() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::new(folder.path(), ARCHIVE);
    let (finhook, mut sender) = (place.start(), Sender::default());
    sender.post(&finhook, 0);
    // The main one, those of the two runtimes, and the journal's two: those for blocking work end when there is none for
    // a while.
    let cores = std::thread::available_parallelism().unwrap().get();
    let needed = 1 + cores + (cores - 1).max(1) + 2;
    until("the end of idle threads", || threads(&finhook).len() <= needed);
    let traced = Traced::new(&finhook, "clone,clone3:error=EAGAIN");
    sender.post(&finhook, 0);
    let ended = finhook.wait();
    drop(traced);
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    let errors = ended.errors().join("\n");
    assert!(errors.contains("a bug: panicked") && errors.contains("a sink's worker ended unexpectedly"), "{errors}");

    let _finhook = place.start();
    wait_for_archive(&place.path("archive/events.ndjson"), &sender.acked);
}
