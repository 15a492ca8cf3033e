//! Failing disks and what else goes wrong around a process: the real program, real files. What each case comes to stands in
//! `docs/FAULTS.md`.
//!
//! Needs Linux, `strace`, `faketime`, and util-linux (`unshare`, `mount`, `prlimit`, `setpriv`); to be root, or allowed to make user
//! namespaces. `tests/run` installs what is missing. Without them these tests fail; none is skipped.

// The counts are part of what is shown.
#![allow(clippy::print_stdout)]

mod clock;
mod damage;
mod errors;
mod full;
mod overload;
mod power;
mod start;

use crate::support::process::{Finhook, body};

/// A sink that the tests read.
const ARCHIVE: &str = "[sinks.archive]\ntype = \"file\"\npath = \"archive/events.ndjson\"\n";

/// Posts the events of one conversation and remembers what was acknowledged.
#[derive(Debug, Default, Clone)]
struct Sender {
    /// Ids, in order.
    acked: Vec<String>,
    posted: u64,
}

impl Sender {
    /// Posts the next event, `padding` bytes longer than need be; returns the status, or `None` without an answer.
    fn try_post(&mut self, finhook: &Finhook, padding: usize) -> Option<u16> {
        self.posted += 1;
        let answer = finhook.post(&body("c", self.posted, padding)).ok()?;
        if answer.status == 200 {
            self.acked.push(answer.id());
        } else {
            answer.assert_unavailable();
        }
        Some(answer.status)
    }

    /// The same when it must be acknowledged.
    fn post(&mut self, finhook: &Finhook, padding: usize) {
        assert_eq!(self.try_post(finhook, padding), Some(200));
    }
}

/// The ids in an archive.
fn ids(archived: Vec<(String, String)>) -> Vec<String> {
    archived.into_iter().map(|(_, id)| id).collect()
}
