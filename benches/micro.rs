//! What each step of an event's way costs by itself, single-threaded: `cargo bench --bench micro`. What they cost
//! together, with sockets and a disk, is measured by `cargo bench --bench load`.
#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue};
use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use finhook::config::Retry;
use finhook::dispatch::retry::{Situation, decide};
use finhook::event::Event;
use finhook::event::identity::event_id;
use finhook::event::parse::FinEvent;
use finhook::sink::{Failure, Fault, cloudevent};
use finhook::verify::{HEADER, Keyring, Signature, sign};
use secrecy::SecretString;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// A reply of exactly 1 KiB; `number` makes it an event of its own.
fn body(number: u64) -> Bytes {
    let mut json = format!(
        r#"{{"event_name":"fin_replied","conversation_id":"conv_{:06}","user_id":"7891","status":"awaiting_user_reply","created_at_ms":"2026-01-24T10:00:00.123Z","message":{{"id":"msg_{number:012}","timestamp_ms":"2026-01-24T10:00:00.123Z","author":"fin","format":"html","body":"<p>"#,
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
    Event::receive(verified, "fin".into(), 1_769_248_800_123, 90 * DAY_MS, Some("application/json".into()), sent)
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
            |verified| Event::receive(verified, endpoint.clone(), 1_769_248_800_123, 90 * DAY_MS, None, None),
            BatchSize::SmallInput,
        );
    });
    let event = event(&keyring, &secret, 1);
    group.bench_function("checksum", |b| b.iter(|| black_box(&event).checksum()));
    group.finish();
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
        now_ms: 1_769_248_800_123,
    };
    let mut rng = fastrand::Rng::with_seed(7);
    group.bench_function("retry decision", |b| b.iter(|| decide(&policy, black_box(&situation), &mut rng)));
    group.finish();
}

criterion_group!(benches, receiving, delivering);
criterion_main!(benches);
