//! One event stream, from the first connection to its end.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use reqwest::{Client, Response, StatusCode, header};
use sse_stream::SseByteStream;
use tokio::time::{Instant, sleep, timeout_at};

use super::{Feed, Foreign, Subscription};
use crate::fin;

/// For making a connection.
pub(super) const CONNECT: Duration = Duration::from_secs(5);
/// Between probes of a silent connection.
pub(super) const KEEPALIVE: Duration = Duration::from_secs(30);
/// From the request to the head of the answer.
const HEAD: Duration = Duration::from_secs(10);
/// Longest time that a stream is listened to: the token's life, and as long as a request for a rating may take.
const LONGEST: Duration = Duration::from_secs(15 * 60);
/// Most bytes from the end of one event to the end of the next.
const MAX_EVENT_BYTES: usize = 1024 * 1024;
/// Connections made for one stream: a server that ends each at once is not asked for ever.
const MAX_CONNECTIONS: u32 = 100;
/// Longest first and longest wait between two connections, or two tries to store an event.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Fin ended it after the end of the turn.
    Closed,
    /// Before the end of the turn was seen, it broke off and could not be opened again, or what it held could not be
    /// read or stored.
    Lost,
    /// Fin did not let it be opened even once.
    Refused,
}

impl End {
    /// The value of the metric's label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Lost => "lost",
            Self::Refused => "refused",
        }
    }
}

/// What is known of a stream across its connections.
#[derive(Debug, Default)]
struct Progress {
    opened: bool,
    /// The end of the turn was seen.
    over: bool,
    last_event_id: Option<String>,
    retry: Option<Duration>,
    failures: u32,
}

/// Why a connection is over.
enum Broke {
    /// Ended by the other side in good order.
    Ended,
    /// Broke off.
    Reset,
    /// There is no use in another connection.
    Hopeless,
}

/// Listens until the stream ends for good.
pub(super) async fn follow<F: Feed>(client: &Client, subscription: &Subscription, feed: &F, foreign: &Foreign) -> End {
    let began = Instant::now();
    let (token_end, end) = (began + subscription.life, began + subscription.life + LONGEST);
    let mut progress = Progress::default();
    for _ in 0..MAX_CONNECTIONS {
        match connect(client, subscription, &progress, token_end).await {
            Connected::Open(response) => {
                progress.opened = true;
                match read(response, subscription, feed, foreign, &mut progress, end).await {
                    Broke::Ended if progress.over => return End::Closed,
                    // Nor is there one past the time in which a rating might have been asked for.
                    Broke::Hopeless => return progress.end(),
                    Broke::Ended | Broke::Reset => {}
                }
            }
            // Revoked: in good order if the turn is over.
            Connected::Refused => return if progress.opened { progress.end() } else { End::Refused },
            Connected::Failed => {}
        }
        let wait = progress.retry.unwrap_or_default().max(backoff(progress.failures));
        progress.failures += 1;
        if Instant::now() + wait >= token_end {
            break;
        }
        sleep(wait).await;
    }
    progress.end()
}

impl Progress {
    fn end(&self) -> End {
        if self.over { End::Closed } else { End::Lost }
    }
}

enum Connected {
    Open(Response),
    /// It makes no sense to ask again.
    Refused,
    /// It may go better the next time.
    Failed,
}

async fn connect(client: &Client, subscription: &Subscription, progress: &Progress, token_end: Instant) -> Connected {
    let mut request = client.get(subscription.url.clone()).header(header::ACCEPT, "text/event-stream");
    if let Some(id) = &progress.last_event_id {
        request = request.header("last-event-id", id);
    }
    let deadline = token_end.min(Instant::now() + HEAD);
    let Ok(Ok(response)) = timeout_at(deadline, request.send()).await else { return Connected::Failed };
    let status = response.status();
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    if status == StatusCode::OK && kind.to_ascii_lowercase().starts_with("text/event-stream") {
        Connected::Open(response)
    } else if status.is_server_error() || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
    {
        Connected::Failed
    } else {
        // 401, 403, 404, 410: revoked. A redirect is not followed, whatever it says.
        Connected::Refused
    }
}

async fn read<F: Feed>(
    response: Response,
    subscription: &Subscription,
    feed: &F,
    foreign: &Foreign,
    progress: &mut Progress,
    end: Instant,
) -> Broke {
    let unfinished = Arc::new(AtomicUsize::new(0));
    let mut events = pin!(SseByteStream::new(bounded(response.bytes_stream(), Arc::clone(&unfinished))));
    loop {
        let Ok(event) = timeout_at(end, events.next()).await else { return Broke::Hopeless };
        let event = match event {
            Some(Ok(event)) => event,
            Some(Err(_)) if unfinished.load(Ordering::Relaxed) > MAX_EVENT_BYTES => return Broke::Hopeless,
            Some(Err(sse_stream::Error::Body(_))) => return Broke::Reset,
            // Not UTF-8: it would be the same the next time.
            Some(Err(_)) => return Broke::Hopeless,
            None => return Broke::Ended,
        };
        unfinished.store(0, Ordering::Relaxed);
        if let Some(ms) = event.retry {
            progress.retry = Some(Duration::from_millis(ms).min(BACKOFF.1));
        }
        if let Some(body) = event.data.filter(|data| !data.is_empty()) {
            let event = serde_json::from_str::<fin::Event>(&body).ok();
            // It is the app's own stream all the same: stored, but not without a word.
            if let Some(event) = event.as_ref().filter(|event| *event.conversation_id != *subscription.conversation) {
                foreign.came(&subscription.conversation, &event.conversation_id);
            }
            let over = event.is_some_and(|event| event.ends_turn());
            if !store(feed, body.into(), end).await {
                return Broke::Hopeless;
            }
            progress.over |= over;
            progress.failures = 0;
        }
        // Only now: what was not stored must come again.
        if let Some(id) = event.id {
            progress.last_event_id = (!id.is_empty()).then_some(id);
        }
    }
}

/// Has an event stored, however long the journal needs. `false`: in vain.
async fn store<F: Feed>(feed: &F, body: Bytes, end: Instant) -> bool {
    let mut attempt = 0;
    while !feed.take(body.clone()).await {
        sleep(backoff(attempt)).await;
        attempt += 1;
        if Instant::now() >= end {
            return false;
        }
    }
    true
}

/// Ends with an error when too much comes without completing an event.
fn bounded(
    chunks: impl Stream<Item = reqwest::Result<Bytes>>,
    unfinished: Arc<AtomicUsize>,
) -> impl Stream<Item = io::Result<Bytes>> {
    chunks.map(move |chunk| {
        let chunk = chunk.map_err(|_| io::Error::from(io::ErrorKind::ConnectionReset))?;
        let length = unfinished.fetch_add(chunk.len(), Ordering::Relaxed) + chunk.len();
        if length > MAX_EVENT_BYTES {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        Ok(chunk)
    })
}

/// Full jitter: anything up to a bound that doubles with each failure.
fn backoff(failures: u32) -> Duration {
    let (base, cap) = BACKOFF;
    base.saturating_mul(1 << failures.min(16)).min(cap).mul_f64(fastrand::f64())
}

#[cfg(test)]
mod tests;
