//! `/api/v1/events`: list and show.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::filters::{self, Asked, ListQuery};
use super::{Api, Way};
use crate::clock;
use crate::journal::{self, DeliveryState, EventState, Filter, Found, Listed, Order};
use crate::serve::Problem;
use crate::serve::guard::Caller;

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
    /// The way in; null of a purged one.
    #[serde(default)]
    pub way: Option<Way>,
    /// The `Content-Type` that it came with.
    #[serde(default)]
    pub content_type: Option<String>,
    /// One for each sink that the journal knows.
    pub sinks: Vec<DeliveryItem>,
    /// The body was asked for, but is kept from this caller: `admin.reader_token`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub masked: bool,
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
    Ok(Json(api.events(asked).await?))
}

/// Show one event and how far it has come at each sink.
#[utoipa::path(get, path = "/api/v1/events/{id}", operation_id = "show_event", tag = "events", params(("id" = Uuid, Path, description = "The event's id"), ShowQuery), responses(
    (status = 200, description = "The event", body = EventDetail),
    (status = 400, description = "Not an id", body = Problem, content_type = "application/problem+json"),
    (status = 404, description = "Never seen, or forgotten", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn show(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Asked(asked): Asked<ShowQuery>,
) -> Result<Json<EventDetail>, Problem> {
    Ok(Json(api.event(&caller, &id, asked.body).await?))
}

impl Api {
    /// One page of events, newest first.
    ///
    /// # Errors
    /// The query is wrong, or the journal can't be read.
    pub async fn events(&self, asked: ListQuery) -> Result<EventPage, Problem> {
        asked.check()?;
        let (limit, filter) = (asked.limit(), asked.filter()?);
        self.known(filter.sink.as_deref()).await?;
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
                return Err(Problem::bad(
                    "of purged events only the id is known: no other filter goes with state=purged",
                ));
            };
            let from = asked.cursor.map(|cursor| Uuid::try_parse(&cursor).map_err(|_| bad_cursor())).transpose()?;
            let (found, next) = self.reader.purged(from, limit).await?;
            let events = found.into_iter().map(|(id, seq)| EventItem::purged(id, seq)).collect();
            return Ok(EventPage { events, next: next.map(|id| id.to_string()) });
        }
        let from = asked.cursor.map(|cursor| cursor.parse().map_err(|_| bad_cursor())).transpose()?;
        let page = self.reader.list(filter, Order::Newest, from, limit, self.wants.clone()).await?;
        let events = page.events.iter().map(EventItem::from).collect();
        Ok(EventPage { events, next: page.next.map(|next| next.to_string()) })
    }

    /// One event and how far it has come at each sink; with its body only where that is asked for, and not kept from the caller.
    ///
    /// # Errors
    /// There is no such event, or the journal can't be read.
    pub async fn event(&self, caller: &Caller, id: &str, with_body: bool) -> Result<EventDetail, Problem> {
        let id = filters::id(id)?;
        let masked = with_body && caller.is_reader();
        let with_body = with_body && !masked;
        match self.reader.find(id, with_body, self.wants.clone()).await? {
            None => Err(Problem::not_found("no event of that id is known")),
            Some(Found::Damaged { seq }) => {
                tracing::error!(%id, seq, "an event's bytes on disk are not those that were stored");
                Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "its bytes on disk are not those that were stored"))
            }
            Some(Found::Purged { seq }) => Ok(EventDetail {
                event: EventItem::purged(id, seq),
                way: None,
                content_type: None,
                sinks: Vec::new(),
                masked: false,
                body: None,
                body_base64: None,
            }),
            Some(Found::Stored(listed, deliveries)) => {
                let bytes = with_body.then(|| listed.event.body.to_vec());
                let (body, body_base64) = match bytes.map(String::from_utf8) {
                    None => (None, None),
                    Some(Ok(text)) => (Some(text), None),
                    Some(Err(error)) => (None, Some(STANDARD.encode(error.as_bytes()))),
                };
                let sinks = deliveries.into_iter().map(DeliveryItem::from).collect();
                let event = &listed.event;
                Ok(EventDetail {
                    way: Some(Way::of(event)),
                    content_type: event.content_type.as_deref().map(str::to_owned),
                    event: EventItem::from(&*listed),
                    sinks,
                    masked,
                    body,
                    body_base64,
                })
            }
        }
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
