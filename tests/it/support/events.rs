//! Authentic events and a journal to put them in, without HTTP around them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use finhook::event::Event;
use finhook::journal::{self, Journal, OpenError, Running};
use finhook::metrics::Metrics;
use finhook::verify::{Keyring, Signature, sign};
use finhook::{clock, config};

use super::SECRET;
use super::wait::until;

/// Ninety days, in milliseconds.
pub const WINDOW_MS: i64 = 90 * 24 * 60 * 60 * 1000;

/// A body that parses as `fin_replied`; `number` makes it unique within its conversation.
pub fn body(conversation: &str, number: u64) -> String {
    format!(
        r#"{{"event_name":"fin_replied","conversation_id":"{conversation}","user_id":"u","status":"complete","created_at_ms":"2026-11-21T10:00:00.000Z","message":{{"id":"{conversation}-{number}","author":"fin","body":"<p>{number}</p>","timestamp_ms":"2026-11-21T10:00:00.000Z"}}}}"#
    )
}

/// An event that was really verified.
pub fn receive(body: &str, received_ms: i64, window_ms: i64) -> Event {
    let secret = SECRET.into();
    let signature = sign(&secret, body.as_bytes());
    let parsed = Signature::parse(signature.as_bytes()).unwrap();
    let verified = Keyring::new(&[secret]).verify(&parsed, Bytes::copy_from_slice(body.as_bytes())).unwrap();
    let json = Some("application/json".into());
    Event::receive(verified, "fin".into(), received_ms, window_ms, json, Some(signature.into()))
}

/// Event `number` of a conversation, received now.
pub fn event(conversation: &str, number: u64) -> Event {
    receive(&body(conversation, number), clock::now_ms(), WINDOW_MS)
}

/// Default settings for a journal in `folder`.
pub fn settings(folder: &Path) -> config::Journal {
    let day = Duration::from_secs(24 * 60 * 60);
    config::Journal { path: folder.join("finhook.db"), retention: 7 * day, dedupe_window: 90 * day, max_bytes: 0 }
}

/// Opens the journal of `settings`.
pub fn open(settings: &config::Journal) -> (Journal, Running) {
    let mut opened = None;
    until("the journal is free", || match journal::open(settings, Arc::new(Metrics::new())) {
        Ok(done) => {
            opened = Some((done.journal, done.running));
            true
        }
        // A process that another test is just starting holds the lock of a journal that was closed, until its `exec`.
        Err(OpenError::InUse { .. }) => false,
        Err(error) => panic!("{error}"),
    });
    opened.unwrap()
}

/// Closes it as a graceful end does.
pub async fn close(journal: Journal, mut running: Running) {
    journal.close();
    running.ended().await.unwrap();
}
