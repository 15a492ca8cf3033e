#![allow(clippy::unwrap_used)]
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;
use hyper::StatusCode;

use super::*;
use crate::dispatch::health::PAUSE_AFTER;
use crate::event::{Event, Fields, Kind, Parts, Stored};
use crate::sink::http::status_fault;

const HOUR_MS: i64 = 3_600_000;
/// Tries after which an event is taken never to die.
const NEVER: u32 = 2000;

fn state(last_ms: i64, next_ms: i64) -> LaneState {
    LaneState { last_ms, next_ms, ..LaneState::default() }
}

#[test]
fn only_finhooks_own_waiting_makes_an_event_older() {
    assert_eq!(waited_ms(&state(0, 0), HOUR_MS), 0, "never tried before");
    assert_eq!(waited_ms(&state(1000, 3000), 3100), 2100);
    assert_eq!(waited_ms(&state(1000, 3000), 500), 0, "the clock jumped back");
    let most = 2000 + 30_000;
    assert_eq!(waited_ms(&state(1000, 3000), 1000 * HOUR_MS), most, "no finhook ran, or the clock jumped ahead");
}

/// One event and its sink, tried again and again in simulated time.
struct Trial {
    judge: Judge,
    start: Instant,
    now_ms: i64,
}

impl Trial {
    fn new() -> Self {
        let retry = Retry {
            base: Duration::from_secs(1),
            cap: Duration::from_secs(3600),
            max_age: Duration::from_secs(7 * 24 * 3600),
        };
        Self { judge: Judge::new(retry, fastrand::Rng::with_seed(1)), start: Instant::now(), now_ms: 0 }
    }

    fn fail(&mut self, seq: u64, state: LaneState, fault: Fault) -> Verdict {
        let attempt = Attempt { lane: seq, stored: stored(seq), replay: None, state };
        let failure = Failure { fault, retry_after: None, error: "it failed".to_owned() };
        let now = self.start + Duration::from_millis(self.now_ms.unsigned_abs());
        self.judge.failed(&attempt, &failure, now, 1 + self.now_ms)
    }

    /// What becomes of event 1 if it fails at every try; `others` happens before each.
    fn fate(mut self, fault: Fault, others: impl Fn(&mut Self)) -> (String, Option<NotDead>) {
        let (mut state, mut why) = (LaneState::default(), None);
        for attempt in 1..=NEVER {
            others(&mut self);
            match self.fail(1, state, fault) {
                Verdict::Retry(next) => {
                    self.now_ms = next.next_ms - 1;
                    why = self.judge.not_dead();
                    state = next;
                }
                Verdict::Dead { error, .. } if error.starts_with("not delivered within 7d") => {
                    return ("dead when `retry.max_age` is over".to_owned(), why);
                }
                Verdict::Dead { .. } => return (format!("dead at try {attempt}"), why),
                Verdict::Delivered => unreachable!("it failed"),
            }
        }
        ("never dead".to_owned(), why)
    }
}

fn stored(seq: u64) -> Arc<Stored> {
    let event = Event::from_journal(Parts {
        id: uuid::Uuid::from_u128(seq.into()),
        kind: Kind::Event,
        endpoint: "fin".into(),
        received_ms: 0,
        created_ms: 0,
        fields: Fields::default(),
        content_type: None,
        signature: None,
        body: Bytes::from_static(b"{}"),
    });
    Arc::new(Stored { seq, event })
}

/// "408, 425, 500–599" for each fault.
fn statuses() -> BTreeMap<String, (Fault, String)> {
    let mut runs: Vec<(Fault, RangeInclusive<u16>)> = Vec::new();
    for code in 300..=599 {
        let fault = status_fault(StatusCode::from_u16(code).unwrap()).unwrap();
        match runs.last_mut() {
            Some((last, run)) if *last == fault => *run = *run.start()..=code,
            _ => runs.push((fault, code..=code)),
        }
    }
    let mut texts = BTreeMap::new();
    for (fault, run) in runs {
        let (first, last) = run.into_inner();
        let text = if first == last { first.to_string() } else { format!("{first}–{last}") };
        let (_, all) = texts.entry(format!("{fault:?}")).or_insert((fault, String::new()));
        let _ = write!(all, "{}{text}", if all.is_empty() { "" } else { ", " });
    }
    texts
}

/// The table of docs/RETRIES.md, from what the code does.
fn table() -> String {
    let mut cases: Vec<(String, Fault)> =
        statuses().into_values().map(|(fault, statuses)| (format!("status {statuses}"), fault)).collect();
    cases.push(("no answer in time, or a connection that breaks".to_owned(), Fault::Transient));
    cases.push(("no connection: no name, refused, no TLS".to_owned(), Fault::Unreachable));
    let word = |why: Option<NotDead>| {
        serde_json::to_value(why).unwrap().as_str().map_or("-".to_owned(), |why| format!("`{why}`"))
    };
    let mut text = "| the sink's answer | this event fails, others are delivered | until then | others fail too, none is delivered | until then | pauses the sink |\n| --- | --- | --- | --- | --- | --- |\n".to_owned();
    for (answer, fault) in cases {
        let (alone, why_alone) = Trial::new().fate(fault, |trial| {
            trial.judge.health.succeeded();
        });
        let (among, why_among) = Trial::new().fate(fault, |trial| {
            trial.fail(2, LaneState::default(), fault);
        });
        let mut trial = Trial::new();
        let failures = (1..).find(|seq| {
            trial.fail(*seq, LaneState::default(), fault);
            trial.judge.health.is_paused()
        });
        let pause = match failures.unwrap() {
            1 => "at once, for as long as `Retry-After` says".to_owned(),
            failures => format!("after {failures} events"),
        };
        let (why_alone, why_among) = (word(why_alone), word(why_among));
        let _ = writeln!(text, "| {answer} | {alone} | {why_alone} | {among} | {why_among} | {pause} |");
    }
    text
}

#[test]
fn the_table_in_the_documents_is_what_the_code_does() {
    let document = include_str!("../../docs/RETRIES.md");
    let table = table();
    assert!(document.contains(&table), "docs/RETRIES.md must hold this table:\n{table}");
    assert!(document.contains(&format!("{PAUSE_AFTER} different events")));
}
