//! Webhooks to the callback URL: a `HEAD` first, then one signed POST an event, in turn, with retries.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, StatusCode, header};
use secrecy::SecretString;
use tokio::sync::mpsc;

use super::{Shared, Webhook};
use crate::{outbound, verify};

/// What Fin allows a receiver for an answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Tries of a webhook, and of the first `HEAD`.
const TRIES: u32 = 12;
/// First and longest wait between two tries, in unhurried time.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// The client that sends them.
pub(super) fn client() -> io::Result<Client> {
    let builder = outbound::client().map_err(io::Error::other)?;
    builder.timeout(TIMEOUT).user_agent("fake-fin (development tool)").build().map_err(io::Error::other)
}

/// Sends a conversation's webhooks, one after the other, until no more can come.
pub(super) async fn deliver(shared: Arc<Shared>, mut queue: mpsc::Receiver<Webhook>) {
    while let Some(webhook) = queue.recv().await {
        let Some(callback) = &shared.settings.callback else { continue };
        if !*shared.probed.get_or_init(|| probe(&shared, callback)).await {
            continue;
        }
        tokio::time::sleep(shared.scaled(Duration::from_millis(webhook.delay_ms))).await;
        send(&shared, callback, &webhook).await;
    }
}

/// Asks whether the callback URL is there; Fin sends nothing before.
async fn probe(shared: &Shared, callback: &url::Url) -> bool {
    for attempt in 1..=TRIES {
        let answer = shared.client.head(callback.clone()).send().await;
        if answer.is_ok_and(|answer| answer.status() == StatusCode::OK) {
            return true;
        }
        tokio::time::sleep(backoff(shared, attempt)).await;
    }
    tracing::error!("HEAD on the callback URL was never answered with 200: no webhooks are sent");
    false
}

async fn send(shared: &Shared, callback: &url::Url, webhook: &Webhook) {
    let secret = if webhook.forged { "someone else's secret" } else { &shared.settings.secret };
    let signature = verify::sign(&SecretString::from(secret), &webhook.body);
    let mut owed = 1 + webhook.repeats;
    for attempt in 1..=TRIES {
        let request = shared
            .client
            .post(callback.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header(verify::FIN_HEADER, &signature)
            .body(webhook.body.clone());
        let status = request.send().await.map(|answer| answer.status());
        if webhook.forged {
            tracing::info!(status = status.ok().map(|status| status.as_u16()), "sent a forged webhook");
            return;
        }
        if status.is_ok_and(|status| status == StatusCode::OK) {
            owed -= 1;
            if owed == 0 {
                return;
            }
        } else {
            tokio::time::sleep(backoff(shared, attempt)).await;
        }
    }
    tracing::error!("a webhook was not answered with 200 after {TRIES} tries: given up");
}

fn backoff(shared: &Shared, attempt: u32) -> Duration {
    let (base, cap) = BACKOFF;
    shared.scaled(base.saturating_mul(1 << (attempt - 1).min(10)).min(cap))
}
