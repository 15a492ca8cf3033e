//! `/event-stream`: the events of one turn as Server-Sent Events, behind a token that lives for three minutes.
//!
//! The token is revoked, and the open streams end, when the turn is over; a turn with a request for a rating is over
//! only after that. `rewind` (only in URLs from start) begins with the turn's first event; without it a stream begins
//! with what comes next, or behind `Last-Event-ID` where ids are given at all.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use futures_util::stream;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::Instant;
use url::form_urlencoded;
use xxhash_rust::xxh3::xxh3_128_with_seed;

use super::{Settings, Shared, Step, api, lock};
use crate::clock;

/// Longest `rewind` that is understood: what Fin's own URLs ask for.
const REWIND: Duration = Duration::from_secs(120);

/// One turn, as its event stream sees it.
#[derive(Debug)]
pub(super) struct Cycle {
    conversation: String,
    token: String,
    expires: Instant,
    ids: bool,
    events: Mutex<Vec<Published>>,
    progress: watch::Sender<Progress>,
}

#[derive(Debug)]
struct Published {
    at: Instant,
    text: Bytes,
    /// Whether the stream that sends it breaks off; once only.
    cut: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    published: usize,
    listened: bool,
    revoked: bool,
}

impl Cycle {
    pub(super) fn new(settings: &Settings, conversation: &str, turn: u32) -> Self {
        Self {
            conversation: conversation.to_owned(),
            token: token(settings, conversation, turn),
            expires: Instant::now() + settings.token_life,
            ids: settings.stream_ids,
            events: Mutex::default(),
            progress: watch::Sender::default(),
        }
    }

    pub(super) fn token(&self) -> &str {
        &self.token
    }

    pub(super) fn url(&self, base: &str, app: &str, rewind: bool) -> String {
        let channel = format!("fin_agent_api:{app}:{}", self.conversation);
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("channels", &channel).append_pair("accessToken", &self.token);
        if rewind {
            query.append_pair("rewind", "2m");
        }
        format!("{base}/event-stream?{}", query.finish())
    }

    pub(super) fn publish(&self, step: Step) {
        let mut events = lock(&self.events);
        for copy in 0..step.sse_copies {
            let id = if self.ids { format!("id: {}\n", events.len() + 1) } else { String::new() };
            let mut text = format!("{id}data: ").into_bytes();
            text.extend_from_slice(&step.body);
            text.extend_from_slice(b"\n\n");
            let cut = step.cut && copy == 0;
            events.push(Published { at: Instant::now(), text: text.into(), cut });
        }
        let published = events.len();
        drop(events);
        self.progress.send_modify(|progress| progress.published = published);
    }

    pub(super) fn revoke(&self) {
        self.progress.send_modify(|progress| progress.revoked = true);
    }

    /// Waits until someone listens, but no longer than `most`.
    pub(super) async fn listened(&self, most: Duration) {
        let mut progress = self.progress.subscribe();
        let _ = tokio::time::timeout(most, progress.wait_for(|progress| progress.listened)).await;
    }

    fn is_open(&self) -> bool {
        !self.progress.borrow().revoked && Instant::now() < self.expires
    }

    /// Index of the first event that a new stream gets.
    fn first(&self, last_event_id: Option<usize>, rewind: bool) -> usize {
        let events = lock(&self.events);
        match last_event_id {
            Some(last) if self.ids => last.min(events.len()),
            _ if rewind => {
                let since = Instant::now().checked_sub(REWIND);
                events.iter().position(|event| since.is_none_or(|since| event.at >= since)).unwrap_or(events.len())
            }
            _ => events.len(),
        }
    }

    /// An event's text, and whether the stream breaks off behind it.
    fn take(&self, at: usize) -> Option<(Bytes, bool)> {
        let mut events = lock(&self.events);
        let event = events.get_mut(at)?;
        Some((event.text.clone(), std::mem::take(&mut event.cut)))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Wanted {
    #[serde(default)]
    channels: String,
    #[serde(default)]
    access_token: String,
    rewind: Option<String>,
}

/// `GET /event-stream`.
pub(super) async fn events(
    State(shared): State<Arc<Shared>>,
    Query(wanted): Query<Wanted>,
    headers: HeaderMap,
) -> Response {
    let cycle = shared.memory().cycles.get(&wanted.access_token).cloned();
    let Some(cycle) = cycle.filter(|cycle| cycle.is_open()) else {
        return api::error(&shared, StatusCode::UNAUTHORIZED, "token_expired", "Token expired, revoked or unknown");
    };
    if wanted.channels != format!("fin_agent_api:{}:{}", shared.settings.app_id, cycle.conversation) {
        return api::error(&shared, StatusCode::FORBIDDEN, "forbidden", "The token is for another channel");
    }
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    cycle.progress.send_modify(|progress| progress.listened = true);
    let reader = Reader {
        at: cycle.first(last, wanted.rewind.is_some()),
        progress: cycle.progress.subscribe(),
        cycle,
        closed: shared.closed.clone(),
        greeted: false,
        broken: false,
    };
    let body = Body::from_stream(stream::unfold(reader, Reader::next));
    ([(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")], body).into_response()
}

struct Reader {
    cycle: Arc<Cycle>,
    at: usize,
    progress: watch::Receiver<Progress>,
    closed: watch::Receiver<bool>,
    greeted: bool,
    broken: bool,
}

impl Reader {
    async fn next(mut self) -> Option<(std::io::Result<Bytes>, Self)> {
        if !self.greeted {
            // Sends the head at once, so that a client knows that it is connected.
            self.greeted = true;
            return Some((Ok(Bytes::from_static(b": welcome\n\n")), self));
        }
        if self.broken {
            self.at = usize::MAX;
            self.broken = false;
            return Some((Err(std::io::Error::other("cut by the scenario")), self));
        }
        loop {
            if let Some((text, cut)) = self.cycle.take(self.at) {
                self.at += 1;
                self.broken = cut;
                return Some((Ok(text), self));
            }
            if self.at == usize::MAX || self.progress.borrow_and_update().revoked {
                return None;
            }
            tokio::select! {
                changed = self.progress.changed() => changed.ok()?,
                _ = self.closed.wait_for(|closed| *closed) => return None,
            }
        }
    }
}

/// A token in the form of a JWT. Its signature is decoration: tokens are looked up.
fn token(settings: &Settings, conversation: &str, turn: u32) -> String {
    let exp = (clock::now_ms() / 1000).saturating_add_unsigned(settings.token_life.as_secs().max(1));
    let claims = format!(r#"{{"iat":{},"exp":{exp}}}"#, clock::now_ms() / 1000);
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
    let secret = xxh3_128_with_seed(format!("{conversation}\n{turn}").as_bytes(), settings.seed);
    let mark = URL_SAFE_NO_PAD.encode(secret.to_be_bytes());
    format!("{header}.{}.{mark}", URL_SAFE_NO_PAD.encode(claims))
}
