//! `/api/v1/events`: list, show, replay, purge.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Api;
use super::filters::{self, Asked, Chosen, ListQuery, Selection};
use super::rules::{PurgeSelection, ReplaySelection};
use crate::clock;
use crate::dispatch::Command;
use crate::journal::{self, DeliveryState, EventState, Filter, Found, Listed, Order, Resolved};
use crate::serve::Problem;

const NOT_COVERED: &str = "files of file sinks, and what was delivered elsewhere, are not covered";

/// An event, without its body. Fields that its bytes don't have are null; of a purged one only the first three are known.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct EventItem {
    /// Content-derived id, the idempotency key.
    pub id: Uuid,
    /// Its place in the journal.
    pub seq: u64,
    /// The event's own state.
    pub state: EventState,
    /// Its state at the sink that was filtered by; without one the state that was filtered by, which it has at some sink.
    pub sink_state: Option<DeliveryState>,
    /// Name of the endpoint it came in by.
    pub endpoint: Option<String>,
    /// `event_name`.
    pub event: Option<String>,
    /// `conversation_id`.
    pub conversation_id: Option<String>,
    /// `user_id`.
    pub user_id: Option<String>,
    /// `status`.
    pub status: Option<String>,
    /// `reason`.
    pub reason: Option<String>,
    /// `message.id`.
    pub message_id: Option<String>,
    /// `created_at_ms`, as it was sent.
    pub created_at: Option<String>,
    /// When it was received, RFC 3339.
    pub received_at: Option<String>,
    /// Size of its body.
    pub body_bytes: Option<u64>,
}

/// One page of events, newest first.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct EventPage {
    /// What was found; a page can be empty and not the last, as each looks at a bounded part of the journal.
    pub events: Vec<EventItem>,
    /// `cursor` of the next page; null on the last.
    pub next: Option<String>,
}

/// How far an event has come at one sink.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DeliveryItem {
    /// The sink's name.
    pub sink: String,
    /// How far.
    pub state: DeliveryState,
    /// Attempts that failed; null once it is delivered, as they are not kept.
    pub attempts: Option<u32>,
    /// The next attempt, RFC 3339.
    pub next_attempt_at: Option<String>,
    /// When it was given up on, RFC 3339.
    pub died_at: Option<String>,
    /// Why the last attempt failed.
    pub error: Option<String>,
    /// Id of the replay that is still to be delivered.
    pub replay: Option<String>,
}

/// An event with its state at every sink, and its body if that was asked for.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct EventDetail {
    /// The event.
    #[serde(flatten)]
    pub event: EventItem,
    /// One for each sink that the journal knows.
    pub sinks: Vec<DeliveryItem>,
    /// The body, where it is UTF-8. Only with `body=true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The body in Base64, where it is not UTF-8. Only with `body=true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_base64: Option<String>,
}

/// What to show of one event.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ShowQuery {
    /// Whether to show the body, which holds customers' data.
    #[serde(default)]
    body: bool,
}

/// What a replay came to.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Replayed {
    /// In `finhook-replay` of each delivery; null when only counted.
    pub replay: Option<String>,
    /// Where the events go.
    pub sink: String,
    /// How many.
    pub events: u64,
    /// Whether they were only counted.
    pub dry_run: bool,
}

/// What a purge removed.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Purged {
    /// Events.
    pub events: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// Whether they were only counted.
    pub dry_run: bool,
    /// What a purge does not reach.
    pub note: String,
}

/// List events, newest first.
#[utoipa::path(get, path = "/api/v1/events", operation_id = "list_events", tag = "events", params(ListQuery), responses(
    (status = 200, description = "One page", body = EventPage),
    (status = 400, description = "A filter is wrong", body = Problem, content_type = "application/problem+json"),
    (status = 404, description = "No such sink", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Asked(asked): Asked<ListQuery>,
) -> Result<Json<EventPage>, Problem> {
    asked.check()?;
    let (limit, filter) = (asked.limit(), asked.filter()?);
    known(&api, filter.sink.as_deref()).await?;
    let bad_cursor = || Problem::bad("cursor is the next of an earlier page with the same filters");
    if filter.state == Some(EventState::Purged) {
        let Filter {
            conversation: None,
            user: None,
            event: None,
            status: None,
            sink: None,
            since_ms: None,
            until_ms: None,
            ..
        } = filter
        else {
            return Err(Problem::bad("of purged events only the id is known: no other filter goes with state=purged"));
        };
        let from = asked.cursor.map(|cursor| Uuid::try_parse(&cursor).map_err(|_| bad_cursor())).transpose()?;
        let (found, next) = api.reader.purged(from, limit).await?;
        let events = found.into_iter().map(|(id, seq)| EventItem::purged(id, seq)).collect();
        return Ok(Json(EventPage { events, next: next.map(|id| id.to_string()) }));
    }
    let from = asked.cursor.map(|cursor| cursor.parse().map_err(|_| bad_cursor())).transpose()?;
    let page = api.reader.list(filter, Order::Newest, from, limit, api.wants.clone()).await?;
    let events = page.events.iter().map(EventItem::from).collect();
    Ok(Json(EventPage { events, next: page.next.map(|next| next.to_string()) }))
}

/// Show one event and how far it has come at each sink.
#[utoipa::path(get, path = "/api/v1/events/{id}", operation_id = "show_event", tag = "events", params(("id" = Uuid, Path, description = "The event's id"), ShowQuery), responses(
    (status = 200, description = "The event", body = EventDetail),
    (status = 400, description = "Not an id", body = Problem, content_type = "application/problem+json"),
    (status = 404, description = "Never seen, or forgotten", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn show(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    Asked(asked): Asked<ShowQuery>,
) -> Result<Json<EventDetail>, Problem> {
    let id = filters::id(&id)?;
    match api.reader.find(id, asked.body, api.wants.clone()).await? {
        None => Err(Problem::not_found("no event of that id is known")),
        Some(Found::Damaged { seq }) => {
            tracing::error!(%id, seq, "an event's bytes on disk are not those that were stored");
            Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "its bytes on disk are not those that were stored"))
        }
        Some(Found::Purged { seq }) => Ok(Json(EventDetail {
            event: EventItem::purged(id, seq),
            sinks: Vec::new(),
            body: None,
            body_base64: None,
        })),
        Some(Found::Stored(listed, deliveries)) => {
            let bytes = asked.body.then(|| listed.event.body.to_vec());
            let (body, body_base64) = match bytes.map(String::from_utf8) {
                None => (None, None),
                Some(Ok(text)) => (Some(text), None),
                Some(Err(error)) => (None, Some(STANDARD.encode(error.as_bytes()))),
            };
            let sinks = deliveries.into_iter().map(DeliveryItem::from).collect();
            Ok(Json(EventDetail { event: EventItem::from(&*listed), sinks, body, body_base64 }))
        }
    }
}

/// Send events to a sink again.
///
/// They keep their ids, and are marked with the replay's id. Order within each conversation holds within a replay; what comes newly does
/// not wait for it. The sink's `match` is not asked.
#[utoipa::path(post, path = "/api/v1/events/replay", operation_id = "replay_events", tag = "events", request_body = ReplaySelection, responses(
    (status = 200, description = "How many will be sent", body = Replayed),
    (status = 400, description = "The selection is wrong", body = Problem, content_type = "application/problem+json"),
    (status = 404, description = "An id or the sink is not known", body = Problem, content_type = "application/problem+json"),
    (status = 409, description = "The sink is not running", body = Problem, content_type = "application/problem+json"),
    (status = 422, description = "Quarantined or purged events can't be sent", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn replay(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Replayed>, Problem> {
    let selection: Selection = filters::body(&headers, body).await?;
    let Some(sink) = selection.sink.clone() else { return Err(Problem::bad("sink says where to send them")) };
    let mut chosen = selection.chosen(false)?;
    if let Chosen::Filter(filter) = &mut chosen {
        match filter.state {
            Some(EventState::Quarantined | EventState::Purged) => return Err(not_events()),
            Some(EventState::Stale) => {}
            // Stale ones only when they are asked for.
            Some(EventState::Stored) | None => filter.state = Some(EventState::Stored),
        }
    }
    let number = api.running(&sink).await?.status.number();
    let dry_run = selection.dry_run;
    let id = Uuid::new_v4().to_string();
    let marker: Arc<str> = id.as_str().into();
    let run = Arc::clone(&api);
    let name = sink.clone();
    let events = api
        .to_its_end(async move {
            let mut chunks = Chunks::new(&run, chosen, selection.limit, true).await?;
            let mut events = 0;
            while let Some(chunk) = chunks.next(&run, journal::REPLAY_STEP).await? {
                if dry_run {
                    events += chunk.len() as u64;
                } else {
                    let seqs = chunk.into_iter().map(|(seq, _)| seq).collect();
                    events += run.journal.replay(number, marker.clone(), seqs).await?;
                    run.tell(&name, Command::Wake).await;
                }
            }
            Ok(events)
        })
        .await?;
    if !dry_run {
        tracing::info!(sink, replay = id, events, "replay");
    }
    Ok(Json(Replayed { replay: (!dry_run).then_some(id), sink, events, dry_run }))
}

/// Remove events for good.
///
/// Deletes their bytes from the journal's files and cancels what was still to be delivered of them. Their ids are kept, so
/// that a resend does not bring them back. Answers once no copy is left in the journal.
#[utoipa::path(post, path = "/api/v1/events/purge", operation_id = "purge_events", tag = "events", request_body = PurgeSelection, responses(
    (status = 200, description = "What was removed", body = Purged),
    (status = 400, description = "The selection is wrong", body = Problem, content_type = "application/problem+json"),
    (status = 404, description = "An id or the sink is not known", body = Problem, content_type = "application/problem+json"),
    (status = 503, description = "Copies may be left in the journal's log: purge again", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn purge(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Purged>, Problem> {
    let selection: Selection = filters::body(&headers, body).await?;
    let chosen = selection.chosen(true)?;
    known(&api, selection.sink.as_deref()).await?;
    let dry_run = selection.dry_run;
    let run = Arc::clone(&api);
    let removed = api
        .to_its_end(async move {
            let mut chunks = Chunks::new(&run, chosen, selection.limit, false).await?;
            let mut removed = journal::Removed::default();
            while let Some(chunk) = chunks.next(&run, journal::PURGE_STEP).await? {
                let step = if dry_run {
                    journal::Removed { events: chunk.len() as u64, bytes: chunk.iter().map(|(_, bytes)| bytes).sum() }
                } else {
                    let seqs: Vec<u64> = chunk.into_iter().map(|(seq, _)| seq).collect();
                    let gone = Arc::new(seqs.iter().copied().collect());
                    let step = run.journal.purge(seqs).await?;
                    run.tell_all(&Command::Purged(gone)).await;
                    step
                };
                removed.events += step.events;
                removed.bytes += step.bytes;
            }
            if !dry_run {
                // Also when nothing was found: an earlier purge may not have got this far.
                run.journal.erase().await?;
            }
            Ok(removed)
        })
        .await?;
    let journal::Removed { events, bytes } = removed;
    if !dry_run {
        tracing::info!(events, bytes, "purged");
    }
    Ok(Json(Purged { events, bytes, dry_run, note: NOT_COVERED.to_owned() }))
}

/// Whether a filter names a sink that there is.
async fn known(api: &Api, sink: Option<&str>) -> Result<(), Problem> {
    match sink {
        Some(name) => api.report(name).await.map(drop),
        None => Ok(()),
    }
}

fn not_events() -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "quarantined and purged events can't be sent to a sink")
}

/// The chosen events, (sequence number, bytes) each, oldest first, some at a time.
struct Chunks {
    /// Of ids; emptied as it goes.
    seqs: Vec<(u64, u64)>,
    filter: Option<Filter>,
    from: Option<u64>,
    /// What is stored after the start does not belong to it.
    end: u64,
    left: u64,
}

impl Chunks {
    async fn new(api: &Api, chosen: Chosen, limit: Option<u64>, to_send: bool) -> Result<Self, Problem> {
        let end = *api.journal.head().borrow();
        let left = limit.unwrap_or(u64::MAX);
        let ids = match chosen {
            Chosen::Filter(filter) => {
                return Ok(Self { seqs: Vec::new(), filter: Some(filter), from: None, end, left });
            }
            Chosen::Ids(ids) => ids,
        };
        let resolved = api.reader.resolve(ids.clone()).await?;
        let unknown: Vec<String> = ids
            .iter()
            .zip(&resolved)
            .filter(|(_, is)| **is == Resolved::Unknown)
            .map(|(id, _)| id.to_string())
            .collect();
        if !unknown.is_empty() {
            return Err(Problem::not_found(format!("not known, so nothing was done: {}", unknown.join(", "))));
        }
        let mut seqs = Vec::new();
        for is in resolved {
            match is {
                Resolved::Stored { seq, state, body_bytes } if !to_send || state != EventState::Quarantined => {
                    seqs.push((seq, body_bytes));
                }
                // What is gone already is purged.
                Resolved::Purged if !to_send => {}
                _ => return Err(not_events()),
            }
        }
        seqs.sort_unstable_by_key(|(seq, _)| std::cmp::Reverse(*seq));
        Ok(Self { seqs, filter: None, from: None, end, left })
    }

    /// The next ones, `limit` at most; they may be none of a part of the journal. `None` at the end.
    async fn next(&mut self, api: &Api, limit: usize) -> Result<Option<Vec<(u64, u64)>>, Problem> {
        if let Some(filter) = &self.filter {
            let limit = limit.min(usize::try_from(self.left).unwrap_or(usize::MAX));
            if limit == 0 {
                return Ok(None);
            }
            let page = api.reader.list(filter.clone(), Order::Oldest, self.from, limit, api.wants.clone()).await?;
            let end = self.end;
            let found: Vec<_> =
                page.events.iter().map(|event| (event.seq, event.body_bytes)).filter(|(seq, _)| *seq <= end).collect();
            self.left -= found.len() as u64;
            match page.next.filter(|next| *next < end) {
                Some(next) => self.from = Some(next),
                None => self.filter = None,
            }
            return Ok(Some(found));
        }
        if self.seqs.is_empty() {
            return Ok(None);
        }
        let mut chunk = self.seqs.split_off(self.seqs.len().saturating_sub(limit));
        chunk.reverse();
        Ok(Some(chunk))
    }
}

impl EventItem {
    fn purged(id: Uuid, seq: u64) -> Self {
        Self {
            id,
            seq,
            state: EventState::Purged,
            sink_state: None,
            endpoint: None,
            event: None,
            conversation_id: None,
            user_id: None,
            status: None,
            reason: None,
            message_id: None,
            created_at: None,
            received_at: None,
            body_bytes: None,
        }
    }
}

impl From<&Listed> for EventItem {
    fn from(listed: &Listed) -> Self {
        let event = &listed.event;
        let fields = &event.fields;
        let text = |text: &Option<Box<str>>| text.as_deref().map(str::to_owned);
        Self {
            id: event.id,
            seq: listed.seq,
            state: event.kind.into(),
            sink_state: listed.delivery,
            endpoint: Some(event.endpoint.to_string()),
            event: text(&fields.event_name),
            conversation_id: text(&fields.conversation_id),
            user_id: text(&fields.user_id),
            status: text(&fields.status),
            reason: text(&fields.reason),
            message_id: text(&fields.message_id),
            created_at: text(&fields.created_at),
            received_at: clock::rfc3339(event.received_ms),
            body_bytes: Some(listed.body_bytes),
        }
    }
}

impl From<journal::Delivery> for DeliveryItem {
    fn from(delivery: journal::Delivery) -> Self {
        let journal::Delivery { sink, state, attempts, next_ms, died_ms, error, replay } = delivery;
        let next_attempt_at = next_ms.and_then(clock::rfc3339);
        Self { sink, state, attempts, next_attempt_at, died_at: died_ms.and_then(clock::rfc3339), error, replay }
    }
}
