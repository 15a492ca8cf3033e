//! The systemd unit: systemd's own checks, the program's configuration, and the system calls that it makes.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::process::Command;
use std::time::Duration;

use finhook::config::{Inputs, Loaded};

use super::{deploy, run};
use crate::support::process::{Place, body, wait_for_archive};
use crate::support::wait::until;

fn unit() -> String {
    fs::read_to_string(deploy("systemd/finhook.service")).unwrap()
}

/// All values of a setting, in order.
fn settings<'a>(unit: &'a str, name: &str) -> Vec<&'a str> {
    unit.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('=')).collect()
}

#[test]
fn systemd_finds_nothing_wrong_with_the_unit_and_little_that_it_could_still_forbid() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("finhook.service");
    // The program must be there for `verify`.
    let installed = unit().replace("/usr/local/bin/finhook serve", concat!(env!("CARGO_BIN_EXE_finhook"), " serve"));
    fs::write(&file, installed).unwrap();

    let said = run(Command::new("systemd-analyze").arg("verify").arg(&file));
    assert_eq!(said, "");
    // Tenths: 0 is a service that may do nothing, 96 is one that nothing is forbidden. The network alone makes 8.
    run(Command::new("systemd-analyze").args(["security", "--offline=true", "--threshold=12"]).arg(&file));
}

fn load(vars: Vec<(OsString, OsString)>) -> Loaded {
    Inputs { vars, ..Inputs::default() }.load().unwrap()
}

#[test]
fn the_units_environment_is_a_configuration_with_the_secret_from_a_credential() {
    let folder = tempfile::tempdir().unwrap();
    let unit = unit();
    for credential in settings(&unit, "LoadCredential") {
        let (name, _) = credential.split_once(':').unwrap();
        fs::write(folder.path().join(name), "a secret of a test, long enough\n").unwrap();
    }
    let place = folder.path().to_str().unwrap();
    let variable = |setting: &str| {
        let (name, value) = setting.split_once('=').unwrap();
        (OsString::from(name), OsString::from(value.replace("%d", place).replace("%S", place)))
    };

    let loaded = load(settings(&unit, "Environment").into_iter().map(variable).collect());

    assert_eq!(loaded.warnings, Vec::<String>::new());
    assert_eq!(loaded.config.endpoints["fin"].secrets.len(), 1);
    let state = folder.path().join(settings(&unit, "StateDirectory")[0]);
    assert!(loaded.config.journal.path.starts_with(state), "{}", loaded.config.journal.path.display());
}

#[test]
fn the_unit_waits_longer_for_the_end_than_the_program_drains_and_allows_all_its_connections() {
    let (unit, config) = (unit(), load(Vec::new()).config);

    let patience: u64 = settings(&unit, "TimeoutStopSec")[0].parse().unwrap();
    assert!(Duration::from_secs(patience) > config.server.drain_timeout);
    let files: usize = settings(&unit, "LimitNOFILE")[0].parse().unwrap();
    assert!(files > config.server.max_connections * 2, "{files}");
}

/// The system calls in a filter of systemd's, those of the sets in it included.
fn calls(set: &str) -> BTreeSet<String> {
    let listed = run(Command::new("systemd-analyze").args(["syscall-filter", set]));
    let mut calls = BTreeSet::new();
    for name in listed.lines().skip(1).map(str::trim).filter(|name| !name.is_empty() && !name.starts_with('#')) {
        if name.starts_with('@') {
            calls.extend(self::calls(name));
        } else {
            calls.insert(name.to_owned());
        }
    }
    calls
}

#[test]
fn a_finhook_that_starts_receives_delivers_and_ends_makes_no_system_call_that_the_unit_forbids() {
    let mut allowed = BTreeSet::new();
    for filter in settings(&unit(), "SystemCallFilter") {
        let (forbids, sets) = filter.strip_prefix('~').map_or((false, filter), |sets| (true, sets));
        for call in sets.split_whitespace().flat_map(calls) {
            if forbids {
                allowed.remove(&call)
            } else {
                allowed.insert(call)
            };
        }
    }
    assert!(allowed.contains("fsync") && !allowed.contains("mount"));
    let folder = tempfile::tempdir().unwrap();
    let sinks = "[sinks.archive]\ntype = \"file\"\npath = \"data/events.ndjson\"\n\
                 [sinks.backend]\ntype = \"http\"\nurl = \"http://localhost:9/fin\"\n";
    let place = Place::new(folder.path(), sinks);
    let trace = folder.path().join("trace");

    let mut strace = Command::new("strace");
    strace.args(["-D", "-f", "-q", "-o"]).arg(&trace);
    let finhook = place.start_under(strace).unwrap();
    let ids: Vec<_> = (0..3).map(|number| finhook.post(&body("a conversation", number, 0)).unwrap().id()).collect();
    wait_for_archive(&place.path("data/events.ndjson"), &ids);
    until("an attempt over HTTP", || fs::read_to_string(&trace).unwrap().contains("htons(9)"));
    let id = finhook.id().to_string();
    assert!(finhook.stop().status.success());
    let end = |line: &str| line.split_whitespace().next() == Some(&id) && line.ends_with("+++ exited with 0 +++");
    until("the end of the trace", || fs::read_to_string(&trace).unwrap().lines().any(end));

    let trace = fs::read_to_string(&trace).unwrap();
    // `PROCESS CALL(…`; what is interrupted comes once more as `<... CALL resumed>`.
    let call = |line: &str| line.split_whitespace().nth(1)?.split_once('(').map(|(call, _)| call.to_owned());
    let made: BTreeSet<String> = trace.lines().filter_map(call).collect();
    assert!(made.len() > 20 && made.contains("execve"), "{made:?}");
    // SQLite asks for it as root only, which the unit's user isn't.
    let forbidden: Vec<_> = made.iter().filter(|call| !allowed.contains(*call) && *call != "fchown").collect();
    assert!(forbidden.is_empty(), "{forbidden:?}");
}
