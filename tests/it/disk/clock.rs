//! The wall clock jumps by ten years while an event waits for its retry.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::Sender;
use crate::support::process::{Finhook, Place};
use crate::support::receiver::{Answer, Receiver};
use crate::support::wait::until;

/// `faketime`'s library: `date` shows the time it is told to show.
fn library() -> PathBuf {
    let folders = fs::read_dir("/usr/lib").unwrap().map(|folder| folder.unwrap().path());
    let mut found = folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).filter(|library| library.exists());
    found.next().expect("this test needs faketime: `tests/run` installs it")
}

/// How often an event was tried, by what is written down, and how long it is until it is tried again.
fn next_try(finhook: &Finhook, id: &str) -> Option<(usize, Duration)> {
    let shown: Value = serde_json::from_str(&finhook.admin_get(&format!("/api/v1/events/{id}")).body).unwrap();
    let sink = &shown["sinks"][0];
    let at = humantime::parse_rfc3339(sink["next_attempt_at"].as_str()?).unwrap();
    Some((usize::try_from(sink["attempts"].as_u64()?).ok()?, at.duration_since(SystemTime::now()).ok()?))
}

/// Whether, after a jump by `offset`, the retries go on: soon, no faster than their backoff allows, and to the end.
async fn survives_a_jump(offset: &'static str) {
    let backend = Receiver::start().await;
    let folder = tempfile::tempdir().unwrap();
    let place = Place::new(
        folder.path(),
        &format!(
            "[sinks.backend]\ntype = \"http\"\nurl = \"{}\"\nretry = {{ base = \"400ms\", cap = \"1s\", max_age = \"1h\" }}\n",
            backend.url()
        ),
    );
    backend.answer_all(Answer::status(500));
    tokio::task::spawn_blocking(move || {
        let clock = place.path("clock");
        fs::write(&clock, "+0").unwrap();
        let mut command = Command::new("env");
        command.arg(format!("LD_PRELOAD={}", library().display()));
        command.arg(format!("FAKETIME_TIMESTAMP_FILE={}", clock.display()));
        command.args(["FAKETIME_NO_CACHE=1", "FAKETIME_DONT_FAKE_MONOTONIC=1", "FAKETIME_DONT_RESET=1"]);
        let (finhook, mut sender) = (place.start_under(command).unwrap(), Sender::default());
        sender.post(&finhook, 0);
        let tries = || backend.received().len();
        // The worker sleeps until the next try, which it has written down, and has some time to go.
        fs::write(place.path("clock.new"), offset).unwrap();
        until("three tries, and the next one not yet due", || {
            let written = next_try(&finhook, &sender.acked[0]);
            written.is_some_and(|(tried, wait)| tried >= 3 && tried == tries() && wait > Duration::from_millis(300))
        });

        // By rename: it is read again and again.
        fs::rename(place.path("clock.new"), &clock).unwrap();
        let jumped = (std::time::Instant::now(), tries());
        until("six tries after the jump", || tries() >= jumped.1 + 6);
        // Full jitter up to a second: six tries within a tenth of one would be a storm.
        assert!(jumped.0.elapsed().as_millis() > 100, "a storm of retries");
        backend.answer_all(Answer::status(200));
        let before = tries();
        until("the delivery", || tries() > before);
        let ended = finhook.stop();
        assert_eq!(ended.status.code(), Some(0));
        assert!(ended.errors().is_empty(), "a dead letter: {:?}", ended.errors());
        let year = |line: &String| line.split("\"timestamp\":\"").nth(1).unwrap()[..4].parse::<i32>().unwrap();
        let jumped = year(ended.log.last().unwrap()) - year(&ended.log[0]);
        assert!(jumped.abs() >= 9, "the clock did not jump: {:?}", ended.log);
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_ahead_makes_no_storm_of_retries_and_no_dead_letter() {
    survives_a_jump("+10y").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_back_makes_no_retry_wait_for_years() {
    survives_a_jump("-10y").await;
}
