//! `/api/v1/events/replay` and `/purge`: what is done to many events, in bounded steps.
//!
//! Nothing of a selection is held but ids that were asked for by name: a filter is followed through the journal a page at a time, up to
//! the newest event that there was at the start.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Api;
use super::filters::{self, Chosen, Selection};
use super::rules::{PurgeSelection, ReplaySelection};
use crate::dispatch::Command;
use crate::journal::{self, EventState, Filter, Order, Resolved};
use crate::serve::Problem;
use crate::serve::guard::Caller;

const NOT_COVERED: &str = "files of file sinks, and what was delivered elsewhere, are not covered";

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
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Replayed>, Problem> {
    Ok(Json(api.replay(&caller, filters::body(&headers, body).await?).await?))
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
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Purged>, Problem> {
    Ok(Json(api.purge(&caller, filters::body(&headers, body).await?).await?))
}

impl Api {
    /// Sends events to a sink again, or counts them.
    ///
    /// # Errors
    /// The selection is wrong, the sink does not run, or the journal does not take it.
    pub async fn replay(self: &Arc<Self>, caller: &Caller, selection: Selection) -> Result<Replayed, Problem> {
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
        let number = self.running(&sink).await?.status.number();
        let dry_run = selection.dry_run;
        let id = Uuid::new_v4().to_string();
        let marker: Arc<str> = id.as_str().into();
        let run = Arc::clone(self);
        let name = sink.clone();
        let events = self
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
            tracing::info!(sink, replay = id, events, by = %caller, "replay");
        }
        Ok(Replayed { replay: (!dry_run).then_some(id), sink, events, dry_run })
    }

    /// Removes events for good, or counts them.
    ///
    /// # Errors
    /// The selection is wrong, or the journal does not take it.
    pub async fn purge(self: &Arc<Self>, caller: &Caller, selection: Selection) -> Result<Purged, Problem> {
        let chosen = selection.chosen(true)?;
        self.known(selection.sink.as_deref()).await?;
        let dry_run = selection.dry_run;
        let run = Arc::clone(self);
        let removed = self
            .to_its_end(async move {
                let mut chunks = Chunks::new(&run, chosen, selection.limit, false).await?;
                let mut removed = journal::Removed::default();
                while let Some(chunk) = chunks.next(&run, journal::PURGE_STEP).await? {
                    let step = if dry_run {
                        journal::Removed {
                            events: chunk.len() as u64,
                            bytes: chunk.iter().map(|(_, bytes)| bytes).sum(),
                        }
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
                    run.conversations.sweep().await;
                }
                Ok(removed)
            })
            .await?;
        let journal::Removed { events, bytes } = removed;
        if !dry_run {
            tracing::info!(events, bytes, by = %caller, "purged");
        }
        Ok(Purged { events, bytes, dry_run, note: NOT_COVERED.to_owned() })
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
