//! What requests ask for: filters in a query or a body, from text to what the journal takes.

use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Query};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};
use uuid::Uuid;

use super::rules::{Cursor, DEFAULT_LIMIT, Ids, MAX_IDS, MAX_LIMIT, Moment, PageLimit};
use crate::clock;
use crate::journal::{DeliveryState, EventState, Filter};
use crate::serve::Problem;

/// Largest body that the API takes.
const MAX_BODY_BYTES: usize = 128 * 1024;
/// For a whole body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// A state to filter by: the event's own, or that at a sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Stored and delivered.
    Stored,
    /// Authentic, but not an event.
    Quarantined,
    /// Authentic, but older than the dedupe window.
    Stale,
    /// Its bytes are gone.
    Purged,
    /// To be delivered.
    Pending,
    /// Failed, to be tried again.
    Retrying,
    /// Behind one that is retried.
    Waiting,
    /// Delivered.
    Delivered,
    /// Given up on.
    Dead,
    /// Not for this sink.
    Skipped,
}

/// Filters of a list; all that are given must hold.
#[derive(Debug, Clone, Default, Serialize, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// The event's `conversation_id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(nullable = false)]
    pub conversation: Option<String>,
    /// The event's `user_id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(nullable = false)]
    pub user: Option<String>,
    /// The event's name, e.g. `fin_replied`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(nullable = false)]
    pub event: Option<String>,
    /// The event's `status`, e.g. `escalated`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(nullable = false)]
    pub status: Option<String>,
    /// Events that this sink gets; with `state`: its state there.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(nullable = false)]
    pub sink: Option<String>,
    /// The event's own state, or its state at `sink` (without `sink`: at any).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(nullable = false)]
    pub state: Option<State>,
    /// Received then or later: RFC 3339, or how long ago, e.g. `2h`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<Moment>, nullable = false)]
    pub since: Option<String>,
    /// Received before then: RFC 3339, or how long ago.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<Moment>, nullable = false)]
    pub until: Option<String>,
    /// Events in one page: 1 to 1000, 100 if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<PageLimit>, nullable = false)]
    pub limit: Option<usize>,
    /// `next` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<Cursor>, nullable = false)]
    pub cursor: Option<String>,
}

/// Which events to replay or to purge: ids, or filters (at least one of them).
#[derive(Debug, Clone, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Selection {
    /// Event ids, 1000 at most; excludes the filters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Ids)]
    pub ids: Vec<String>,
    /// The event's `conversation_id`.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub conversation: Option<String>,
    /// The event's `user_id`.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub user: Option<String>,
    /// The event's name.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub event: Option<String>,
    /// The event's `status`.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub status: Option<String>,
    /// Replay: the sink to send to (required). Purge: events that this sink gets. With `state`: its state there.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub sink: Option<String>,
    /// The event's own state, or its state at `sink` (without `sink`: at any).
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub state: Option<State>,
    /// Received then or later: RFC 3339, or how long ago, e.g. `2h`.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Moment>, nullable = false)]
    pub since: Option<String>,
    /// Received before then: RFC 3339, or how long ago.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Moment>, nullable = false)]
    pub until: Option<String>,
    /// At most so many, the oldest first.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(default, deserialize_with = "whole")]
    #[schema(nullable = false, maximum = 9007199254740991_u64)]
    pub limit: Option<u64>,
    /// Only count.
    #[serde(default)]
    pub dry_run: bool,
}

/// What is there is a value: `null` may be a program's mistake, and to take it for "not given" would widen a purge.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

/// A count as JSON has it, where `5.0` is the same as `5`, up to the largest that every reader of JSON has exactly.
fn whole<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    const LARGEST: f64 = 9_007_199_254_740_991.0;
    let number = f64::deserialize(from)?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole, and within bounds")]
    match (0.0..=LARGEST).contains(&number) && number.fract() == 0.0 {
        true => Ok(Some(number as u64)),
        false => Err(D::Error::custom("a count is a whole number, 0 or more")),
    }
}

/// Ids or filters, checked.
#[derive(Clone)]
pub(super) enum Chosen {
    Ids(Vec<Uuid>),
    Filter(Filter),
}

impl ListQuery {
    /// What is wrong with it by itself, whatever the journal holds: the handler and the command line ask it alike.
    ///
    /// # Errors
    /// 400, saying what is right.
    pub fn check(&self) -> Result<(), Problem> {
        if !(1..=MAX_LIMIT).contains(&self.limit()) {
            return Err(Problem::bad(format!("limit is 1 to {MAX_LIMIT}")));
        }
        self.filter().map(drop)
    }

    pub(super) fn limit(&self) -> usize {
        self.limit.unwrap_or(DEFAULT_LIMIT)
    }

    pub(super) fn filter(&self) -> Result<Filter, Problem> {
        let (state, delivery) = split(self.state);
        Ok(Filter {
            conversation: self.conversation.clone(),
            user: self.user.clone(),
            event: self.event.clone(),
            status: self.status.clone(),
            state,
            delivery,
            sink: self.sink.clone(),
            since_ms: time("since", self.since.as_deref())?,
            until_ms: time("until", self.until.as_deref())?,
        })
    }
}

impl Selection {
    /// What is wrong with it by itself: see [`ListQuery::check`]. `to_purge`: `sink` is a filter too.
    ///
    /// # Errors
    /// 400, saying what is right.
    pub fn check(&self, to_purge: bool) -> Result<(), Problem> {
        self.chosen(to_purge).map(drop)
    }

    /// Ids or a filter; a filter's `sink` is there only when it was given.
    pub(super) fn chosen(&self, sink_is_filter: bool) -> Result<Chosen, Problem> {
        let (state, delivery) = split(self.state);
        let filter = Filter {
            conversation: self.conversation.clone(),
            user: self.user.clone(),
            event: self.event.clone(),
            status: self.status.clone(),
            state,
            delivery,
            sink: self.sink.clone().filter(|_| sink_is_filter || delivery.is_some()),
            since_ms: time("since", self.since.as_deref())?,
            until_ms: time("until", self.until.as_deref())?,
        };
        let Self { conversation, user, event, status, state, since, until, .. } = self;
        let filters = conversation.is_some()
            || user.is_some()
            || event.is_some()
            || status.is_some()
            || state.is_some()
            || since.is_some()
            || until.is_some()
            || (sink_is_filter && self.sink.is_some());
        match (self.ids.is_empty(), filters) {
            (true, false) => Err(Problem::bad("name ids, or at least one filter")),
            (false, true) => Err(Problem::bad("name ids or filters, not both")),
            (true, true) => Ok(Chosen::Filter(filter)),
            (false, false) if self.limit.is_some() => Err(Problem::bad("limit goes with filters, not with ids")),
            (false, false) if self.ids.len() > MAX_IDS => {
                Err(Problem::bad(format!("no more than {MAX_IDS} ids in one request")))
            }
            (false, false) => {
                let mut ids = self.ids.iter().map(|text| id(text)).collect::<Result<Vec<_>, _>>()?;
                ids.sort_unstable();
                ids.dedup();
                Ok(Chosen::Ids(ids))
            }
        }
    }
}

/// The event's own state, or the one at a sink.
fn split(state: Option<State>) -> (Option<EventState>, Option<DeliveryState>) {
    let own = |state| (Some(state), None);
    let at_sink = |state| (None, Some(state));
    match state {
        None => (None, None),
        Some(State::Stored) => own(EventState::Stored),
        Some(State::Quarantined) => own(EventState::Quarantined),
        Some(State::Stale) => own(EventState::Stale),
        Some(State::Purged) => own(EventState::Purged),
        Some(State::Pending) => at_sink(DeliveryState::Pending),
        Some(State::Retrying) => at_sink(DeliveryState::Retrying),
        Some(State::Waiting) => at_sink(DeliveryState::Waiting),
        Some(State::Delivered) => at_sink(DeliveryState::Delivered),
        Some(State::Dead) => at_sink(DeliveryState::Dead),
        Some(State::Skipped) => at_sink(DeliveryState::Skipped),
    }
}

/// An event's id.
pub(super) fn id(text: &str) -> Result<Uuid, Problem> {
    Uuid::try_parse(text).map_err(|_| Problem::bad("an event's id is a UUID, as in the answer to its webhook"))
}

/// RFC 3339, or how long ago; in unix milliseconds.
pub(super) fn time(name: &str, text: Option<&str>) -> Result<Option<i64>, Problem> {
    let Some(text) = text else { return Ok(None) };
    match clock::parse_or_ago(text, clock::now_ms()) {
        Some(ms) => Ok(Some(ms)),
        None => {
            Err(Problem::bad(format!("{name} is a time such as 2026-01-31T12:00:00Z, or how long ago, such as 2h")))
        }
    }
}

/// A query of known keys.
pub(super) struct Asked<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(asked)) => Ok(Self(asked)),
            Err(QueryRejection::FailedToDeserializeQueryString(error)) => Err(Problem::bad(error.body_text())),
            Err(_) => Err(Problem::bad("the query can't be read")),
        }
    }
}

/// A JSON body, bounded in size and time. Its media type must say that it is JSON, which no form of a web page can.
pub(super) async fn body<T: DeserializeOwned>(headers: &HeaderMap, body: Body) -> Result<T, Problem> {
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !media_type.split(';').next().is_some_and(|media| media.trim().eq_ignore_ascii_case("application/json")) {
        let detail = "send JSON with Content-Type: application/json";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
    }
    let read = tokio::time::timeout(BODY_TIMEOUT, axum::body::to_bytes(body, MAX_BODY_BYTES)).await;
    let bytes = read
        .map_err(|_| Problem::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time"))?
        .map_err(|_| Problem::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is over {MAX_BODY_BYTES} bytes")))?;
    serde_json::from_slice(&bytes).map_err(|error| Problem::bad(format!("the body is not what is expected: {error}")))
}
