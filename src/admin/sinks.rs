//! `/api/v1/sinks`: how they stand, and what an operator can do about it. The gauges of `/metrics` come from here, too.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, Path, State};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Api;
use crate::clock::{now_ms, rfc3339};
use crate::dispatch::Command;
use crate::dispatch::retry::NotDead;
use crate::journal::SinkReport;
use crate::serve::Problem;
use crate::serve::guard::Caller;

/// What a sink is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Delivering, or ready to.
    Running,
    /// Paused by an operator.
    Paused,
    /// Paused by its own failures, or because it asked for it; tried again by itself.
    Failing,
    /// `enabled = false`; its state is kept until it is forgotten.
    Disabled,
    /// Not in the configuration any more; its state is kept until it is forgotten.
    Removed,
}

/// How a sink stands.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SinkItem {
    /// Its name.
    pub name: String,
    /// What it is doing.
    pub state: Mode,
    /// Stored events that it is not done with, parked ones included; dead letters are not.
    pub lag: u64,
    /// Attempts under way.
    pub in_flight: u64,
    /// Events that are retried, or wait behind one that is.
    pub waiting: u64,
    /// Dead letters.
    pub dead: u64,
    /// Everything up to this sequence number is settled, waiting or dead.
    pub cursor: u64,
    /// Age of the oldest event that it still has to deliver, in seconds; 0 when there is none.
    pub oldest_undelivered_seconds: f64,
    /// What went wrong last in this run of finhook; null once the sink has recovered: something was delivered since, and
    /// nothing waits.
    pub last_error: Option<String>,
    /// When that was, RFC 3339.
    pub last_error_at: Option<String>,
    /// Why the event that failed last is tried again and isn't a dead letter; null when it is one.
    pub not_dead_because: Option<NotDead>,
}

/// All sinks.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SinkList {
    /// By name; those that were removed from the configuration, too.
    pub sinks: Vec<SinkItem>,
}

/// What retrying dead letters came to.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Retried {
    /// The sink.
    pub sink: String,
    /// Dead letters that are tried again.
    pub events: u64,
}

/// A sink that is no longer known.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Forgotten {
    /// Its name.
    pub sink: String,
    /// Events that it would still have got.
    pub lag: u64,
    /// Dead letters dropped.
    pub dead: u64,
}

/// List the sinks.
#[utoipa::path(get, path = "/api/v1/sinks", operation_id = "list_sinks", tag = "sinks", responses((status = 200, description = "All sinks", body = SinkList)))]
pub(super) async fn list(State(api): State<Arc<Api>>) -> Result<Json<SinkList>, Problem> {
    Ok(Json(api.sinks().await?))
}

/// Stop delivering to a sink, across restarts; what is under way is finished.
#[utoipa::path(post, path = "/api/v1/sinks/{name}/pause", operation_id = "pause_sink", tag = "sinks", params(("name" = String, Path, description = "The sink's name")), responses(
    (status = 200, description = "Paused", body = SinkItem),
    (status = 404, description = "No such sink", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn pause(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Json<SinkItem>, Problem> {
    Ok(Json(api.set_paused(&caller, &name, true).await?))
}

/// Deliver to a sink again; one that fails is tried at once.
#[utoipa::path(post, path = "/api/v1/sinks/{name}/resume", operation_id = "resume_sink", tag = "sinks", params(("name" = String, Path, description = "The sink's name")), responses(
    (status = 200, description = "Resumed", body = SinkItem),
    (status = 404, description = "No such sink", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn resume(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Json<SinkItem>, Problem> {
    Ok(Json(api.set_paused(&caller, &name, false).await?))
}

/// Try a sink's dead letters again, with their attempts counted anew.
#[utoipa::path(post, path = "/api/v1/sinks/{name}/retry-dead", operation_id = "retry_dead_letters", tag = "sinks", params(("name" = String, Path, description = "The sink's name")), responses(
    (status = 200, description = "How many are tried", body = Retried),
    (status = 404, description = "No such sink", body = Problem, content_type = "application/problem+json"),
    (status = 409, description = "It is not running", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn retry_dead(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Json<Retried>, Problem> {
    Ok(Json(api.retry_dead(&caller, &name).await?))
}

/// Drop all state of a sink that is not in use any more.
///
/// Only of one that is removed from the configuration, or disabled. If it is configured again, it is a new sink.
#[utoipa::path(post, path = "/api/v1/sinks/{name}/forget", operation_id = "forget_sink", tag = "sinks", params(("name" = String, Path, description = "The sink's name")), responses(
    (status = 200, description = "Forgotten", body = Forgotten),
    (status = 404, description = "No such sink", body = Problem, content_type = "application/problem+json"),
    (status = 409, description = "It is in use", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn forget(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Json<Forgotten>, Problem> {
    Ok(Json(api.forget(&caller, &name).await?))
}

impl Api {
    /// How all sinks stand.
    ///
    /// # Errors
    /// The journal can't be read.
    pub async fn sinks(&self) -> Result<SinkList, Problem> {
        let head = *self.journal.head().borrow();
        let sinks = self.reader.sinks().await?.iter().map(|report| item(self, report, head)).collect();
        Ok(SinkList { sinks })
    }

    /// Stops delivering to a sink, or goes on.
    ///
    /// # Errors
    /// There is no such sink, or the journal does not take it.
    pub async fn set_paused(&self, caller: &Caller, name: &str, paused: bool) -> Result<SinkItem, Problem> {
        self.report(name).await?;
        self.journal.set_paused(name, paused).await?;
        self.tell(name, if paused { Command::Pause } else { Command::Resume }).await;
        let what = if paused {
            "the sink is paused by an operator: nothing is delivered until `finhook sinks resume`"
        } else {
            "the sink is resumed by an operator"
        };
        tracing::info!(sink = name, by = %caller, "{what}");
        let report = self.report(name).await?;
        Ok(item(self, &report, *self.journal.head().borrow()))
    }

    /// Tries a sink's dead letters again.
    ///
    /// # Errors
    /// There is no such sink, it is not running, or the journal does not take it.
    pub async fn retry_dead(self: &Arc<Self>, caller: &Caller, name: &str) -> Result<Retried, Problem> {
        let number = self.running(name).await?.status.number();
        let retry: Arc<str> = Uuid::new_v4().to_string().into();
        let run = Arc::clone(self);
        let sink = name.to_owned();
        let events = self
            .to_its_end(async move {
                let (mut events, mut after) = (0, Some(0));
                while let Some(from) = after {
                    let step = run.journal.retry_dead(number, retry.clone(), from).await?;
                    events += step.events;
                    after = step.next;
                    run.tell(&sink, Command::Wake).await;
                }
                Ok(events)
            })
            .await?;
        tracing::info!(sink = name, events, by = %caller, "dead letters are tried again");
        Ok(Retried { sink: name.to_owned(), events })
    }

    async fn forget(self: &Arc<Self>, caller: &Caller, name: &str) -> Result<Forgotten, Problem> {
        if self.handle(name).is_some() {
            let detail =
                format!("{name} is in use: remove it from the configuration or disable it, and restart, first");
            return Err(Problem::conflict(detail));
        }
        let report = self.report(name).await?;
        let SinkItem { lag, dead, .. } = item(self, &report, *self.journal.head().borrow());
        let run = Arc::clone(self);
        let number = report.state.number;
        self.to_its_end(async move {
            while !run.journal.forget_sink(number).await? {}
            Ok(())
        })
        .await?;
        self.metrics.forget_sink(name);
        tracing::info!(
            sink = name,
            lag,
            dead,
            by = %caller,
            "the sink is forgotten by an operator: its cursor and dead letters are dropped"
        );
        Ok(Forgotten { sink: name.to_owned(), lag, dead })
    }
}

/// Brings the gauges of all sinks up to date.
pub(super) async fn refresh_gauges(api: &Api) -> Result<(), Problem> {
    let head = *api.journal.head().borrow();
    for report in api.scrape.sinks().await? {
        let item = item(api, &report, head);
        let gauges = api.metrics.sink(&item.name);
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        gauges.lag_events.set(number(item.lag));
        gauges.oldest_seconds.set(item.oldest_undelivered_seconds);
        gauges.paused.set(i64::from(matches!(item.state, Mode::Paused | Mode::Failing) || report.state.paused));
        gauges.dead_letters.set(number(item.dead));
    }
    api.metrics.journal_bytes.set(i64::try_from(api.journal.bytes()).unwrap_or(i64::MAX));
    Ok(())
}

fn item(api: &Api, report: &SinkReport, head: u64) -> SinkItem {
    let SinkReport { state, parked, dead, oldest_ms } = report;
    let status = api.handle(&state.name).map(|handle| &handle.status);
    let mode = match status {
        None if api.disabled.contains(&state.name) => Mode::Disabled,
        None => Mode::Removed,
        Some(_) if state.paused => Mode::Paused,
        Some(status) if status.is_unhealthy() => Mode::Failing,
        Some(_) => Mode::Running,
    };
    let last = status.and_then(|status| status.last_error());
    let age_ms = oldest_ms.map_or(0, |oldest| now_ms().saturating_sub(oldest).max(0));
    SinkItem {
        name: state.name.clone(),
        state: mode,
        lag: head.saturating_sub(state.cursor) + parked,
        in_flight: status.map_or(0, |status| status.in_flight() as u64),
        waiting: *parked,
        dead: *dead,
        cursor: state.cursor,
        oldest_undelivered_seconds: age_ms as f64 / 1000.0,
        last_error_at: last.as_ref().and_then(|last| rfc3339(last.at_ms)),
        not_dead_because: last.as_ref().and_then(|last| last.not_dead),
        last_error: last.map(|last| last.error.to_string()),
    }
}
