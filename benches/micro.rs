//! What each step of an event's way costs by itself: `cargo bench --bench micro`. What they cost
//! together, with sockets, is measured by `cargo bench --bench load`.
#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::http::{HeaderMap, HeaderValue};
use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use finhook::config::{self, Retry};
use finhook::dispatch::retry::{Situation, decide};
use finhook::event::Event;
use finhook::event::identity::event_id;
use finhook::event::parse::FinEvent;
use finhook::journal;
use finhook::metrics::Metrics;
use finhook::sink::{Failure, Fault, cloudevent};
use finhook::verify::{HEADER, Keyring, Signature, sign};
use secrecy::SecretString;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;
const RECEIVED_MS: i64 = 1_769_248_800_123;

/// A reply of exactly 1 KiB; `number` makes it an event of its own, sixteen to a millisecond.
fn body(number: u64) -> Bytes {
    let created = SystemTime::UNIX_EPOCH + Duration::from_millis(RECEIVED_MS.unsigned_abs() + number / 16);
    let created = humantime::format_rfc3339_millis(created);
    let mut json = format!(
        r#"{{"event_name":"fin_replied","conversation_id":"conv_{:06}","user_id":"7891","status":"awaiting_user_reply","created_at_ms":"{created}","message":{{"id":"msg_{number:012}","timestamp_ms":"{created}","author":"fin","format":"html","body":"<p>"#,
        number % 50_000
    );
    let end = r#"</p>"}}"#;
    let missing = 1024 - json.len() - end.len();
    json.extend("You can change your plan under Settings, Billing. ".chars().cycle().take(missing));
    json.push_str(end);
    Bytes::from(json)
}

fn event(keyring: &Keyring, secret: &SecretString, number: u64) -> Event {
    let body = body(number);
    let signature = Signature::parse(sign(secret, &body).as_bytes()).unwrap();
    let sent = Some(signature.as_sent().into());
    let verified = keyring.verify(&signature, body).unwrap();
    Event::receive(verified, "fin".into(), RECEIVED_MS, 90 * DAY_MS, Some("application/json".into()), sent)
}

fn receiving(c: &mut Criterion) {
    let secret = SecretString::from("bench-signing-secret-0123456789abcdef");
    let keyring = Keyring::new(std::slice::from_ref(&secret));
    let body = body(1);
    let mut headers = HeaderMap::new();
    headers.insert(HEADER, HeaderValue::from_str(&sign(&secret, &body)).unwrap());
    let signature = Signature::from_headers(&headers).unwrap();
    let endpoint: Arc<str> = "fin".into();

    let mut group = c.benchmark_group("receive 1 KiB");
    group.throughput(Throughput::Elements(1));
    group.bench_function("signature header", |b| b.iter(|| Signature::from_headers(black_box(&headers)).unwrap()));
    group.bench_function("signature check", |b| {
        b.iter(|| keyring.verify(black_box(&signature), body.clone()).unwrap());
    });
    group.bench_function("parse", |b| b.iter(|| FinEvent::parse(black_box(&body)).unwrap()));
    let parsed = FinEvent::parse(&body).unwrap();
    group.bench_function("identity", |b| b.iter(|| event_id("fin", black_box(&parsed), &body)));
    group.bench_function("event from verified bytes", |b| {
        b.iter_batched(
            || keyring.verify(&signature, body.clone()).unwrap(),
            |verified| Event::receive(verified, endpoint.clone(), RECEIVED_MS, 90 * DAY_MS, None, None),
            BatchSize::SmallInput,
        );
    });
    let event = event(&keyring, &secret, 1);
    group.bench_function("checksum", |b| b.iter(|| black_box(&event).checksum()));
    group.finish();
}

/// From an event to its answer, through the writer's thread and the disk.
fn appending(c: &mut Criterion) {
    const GROUP: u64 = 128;
    let secret = SecretString::from("bench-signing-secret-0123456789abcdef");
    let keyring = Keyring::new(std::slice::from_ref(&secret));
    // Below the target folder: a temporary folder may be in memory.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let day = Duration::from_secs(24 * 60 * 60);
    let settings = config::Journal {
        path: folder.path().join("finhook.db"),
        retention: 7 * day,
        dedupe_window: 90 * day,
        max_bytes: 0,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let opened = runtime.block_on(async { journal::open(&settings, Arc::new(Metrics::new())).unwrap() });
    let journal = &opened.journal;

    let mut group = c.benchmark_group("append 1 KiB");
    let mut number = 0;
    for size in [1, GROUP] {
        group.throughput(Throughput::Elements(size));
        let name = if size == 1 { "one event".to_owned() } else { format!("{size} events at once") };
        group.bench_function(name, |b| {
            let events = || {
                number += size;
                (number - size..number).map(|number| event(&keyring, &secret, number)).collect::<Vec<_>>()
            };
            let append = |events: Vec<Event>| {
                let appends: Vec<_> = events.into_iter().map(|event| journal.append(event)).collect();
                runtime.block_on(async {
                    for append in appends {
                        append.await.unwrap();
                    }
                });
            };
            b.iter_batched(events, append, BatchSize::PerIteration);
        });
    }
    group.finish();
    opened.journal.close();
    let mut running = opened.running;
    runtime.block_on(running.ended()).unwrap();
}

fn delivering(c: &mut Criterion) {
    let secret = SecretString::from("bench-signing-secret-0123456789abcdef");
    let keyring = Keyring::new(std::slice::from_ref(&secret));
    let event = event(&keyring, &secret, 1);

    let mut group = c.benchmark_group("deliver 1 KiB");
    group.throughput(Throughput::Elements(1));
    let mut line = Vec::with_capacity(4096);
    group.bench_function("CloudEvents line", |b| {
        b.iter(|| {
            line.clear();
            cloudevent::append_json(&mut line, black_box(&event));
            line.len()
        });
    });
    let policy = Retry {
        base: Duration::from_secs(1),
        cap: Duration::from_secs(3600),
        max_age: Duration::from_secs(7 * 24 * 3600),
    };
    let failure = Failure { fault: Fault::Transient, retry_after: None, error: "503".into() };
    let situation = Situation {
        failure: &failure,
        attempt: 4,
        tries: 4,
        age: Duration::from_secs(30),
        alone: true,
        now_ms: RECEIVED_MS,
    };
    let mut rng = fastrand::Rng::with_seed(7);
    group.bench_function("retry decision", |b| b.iter(|| decide(&policy, black_box(&situation), &mut rng)));
    group.finish();
}

criterion_group!(benches, receiving, appending, delivering);
criterion_main!(benches);
