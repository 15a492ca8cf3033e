//! The admin listener: health, metrics and the API.
//!
//! `/livez`, `/readyz` and `/metrics` are for everyone who reaches the listener; `/api/v1` is behind the [`guard`]. The API
//! reads through a connection of its own, and changes nothing but through the journal's writer, in bounded steps.

mod bulk;
mod conversations;
mod events;
mod export;
mod failures;
mod filters;
mod health;
mod openapi;
mod rules;
mod sinks;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use rustls::ServerConfig;
use tokio::sync::Mutex;
use tower_http::catch_panic::CatchPanicLayer;

use crate::config::{self, Config};
use crate::conversations::Conversations;
use crate::dispatch::{Command, Handle, matching};
use crate::event::{Event, Kind};
use crate::journal::Wants;
use crate::journal::{Journal, OpenError, Reader, SinkReport};
use crate::live::{self, Live};
use crate::metrics::{self, Metrics};
use crate::serve::guard::{self, Guard, Hosts};
use crate::serve::session::Sessions;
use crate::serve::{Limits, Problem, Server};

pub use bulk::{Purged, Replayed};
pub use conversations::{
    ConversationItem, ConversationPage, ConversationQuery, Transcript, TranscriptEntry, TranscriptQuery, Way,
};
pub use events::{DeliveryItem, EventDetail, EventItem, EventPage};
pub use export::Export;
pub use filters::{ListQuery, Selection, State as AnyState};
pub use health::{Readiness, Stage};
pub use sinks::{Forgotten, Mode, Retried, SinkItem, SinkList};

/// How long to wait until a worker has obeyed. One that writes to a full disk or a closed pipe may not.
const TELL_PATIENCE: Duration = Duration::from_secs(2);

/// What requests under way have to end in.
const DRAIN: Duration = Duration::from_secs(2);

/// What the handlers share.
pub struct Api {
    metrics: Arc<Metrics>,
    journal: Journal,
    conversations: Conversations,
    sinks: Vec<Handle>,
    disabled: BTreeSet<String>,
    wants: Wants,
    reader: Reader,
    /// Of its own, so that scrapes don't wait for lists.
    scrape: Reader,
    /// Held by what goes in many steps: one at a time.
    long: Arc<Mutex<()>>,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").field("journal", &self.journal).finish_non_exhaustive()
    }
}

impl Api {
    /// The API over a journal and the sinks that run.
    ///
    /// # Errors
    /// The journal could not be opened for reading.
    pub fn new(
        config: &Config,
        metrics: Arc<Metrics>,
        journal: Journal,
        conversations: Conversations,
        sinks: Vec<Handle>,
    ) -> Result<Self, OpenError> {
        let matches: BTreeMap<String, config::Match> =
            config.sinks.iter().map(|(name, sink)| (name.clone(), sink.matching.clone())).collect();
        // Of a sink that was removed nobody knows what it would have got.
        let wants = move |name: &str, event: &Event| {
            event.kind == Kind::Event && matches.get(name).is_none_or(|matching| matching::matches(matching, event))
        };
        Ok(Self {
            reader: journal.reader()?,
            scrape: journal.reader()?,
            disabled: config.disabled_sinks.clone(),
            wants: Arc::new(wants),
            metrics,
            journal,
            conversations,
            sinks,
            long: Arc::default(),
        })
    }

    /// All metrics.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Whether events can be stored at present.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.journal.is_writable()
    }

    fn handle(&self, name: &str) -> Option<&Handle> {
        self.sinks.iter().find(|handle| handle.status.name() == name)
    }

    /// A sink that delivers, or will when it is resumed.
    async fn running(&self, name: &str) -> Result<&Handle, Problem> {
        if let Some(handle) = self.handle(name) {
            return Ok(handle);
        }
        self.report(name).await?;
        Err(Problem::conflict(format!("{name} is not running: it is disabled or not configured any more")))
    }

    /// How a sink stands in the journal; the one answer for a name that it does not know.
    async fn report(&self, name: &str) -> Result<SinkReport, Problem> {
        let reports = self.reader.sinks().await?;
        let known: Vec<&str> = reports.iter().map(|report| &*report.state.name).collect();
        let known = if known.is_empty() { "none is known".to_owned() } else { format!("known: {}", known.join(", ")) };
        let unknown = format!("there is no such sink; {known}");
        let found = reports.into_iter().find(|report| report.state.name == name);
        found.ok_or_else(|| Problem::not_found(unknown))
    }

    /// Whether a filter names a sink that there is.
    async fn known(&self, sink: Option<&str>) -> Result<(), Problem> {
        match sink {
            Some(name) => self.report(name).await.map(drop),
            None => Ok(()),
        }
    }

    /// Tells a sink's worker something, if it has one, and waits until it has obeyed.
    async fn tell(&self, name: &str, command: Command) {
        let Some(handle) = self.handle(name) else { return };
        if tokio::time::timeout(TELL_PATIENCE, handle.tell(command)).await.is_err() {
            tracing::warn!(sink = name, "the sink is busy; it obeys when it is done with what it is writing");
        }
    }

    /// Tells every worker.
    async fn tell_all(&self, command: &Command) {
        let tell = self.sinks.iter().map(|handle| self.tell(handle.status.name(), command.clone()));
        futures_util::future::join_all(tell).await;
    }

    /// Runs something that must not be left half done because its client hung up; one at a time.
    async fn to_its_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Problem>> + Send + 'static,
    ) -> Result<T, Problem> {
        let long = self.long.clone();
        let run = tokio::spawn(async move {
            let _turn = long.lock().await;
            work.await
        });
        run.await.unwrap_or_else(|_| Err(Problem::internal()))
    }
}

/// A bound admin listener.
#[derive(Debug)]
pub struct Listener {
    server: Server,
    guard: Arc<Guard>,
    readiness: Readiness,
    live: Live,
    api: Arc<Api>,
    pages: Router,
}

impl Listener {
    /// Binds `config.bind`.
    ///
    /// # Errors
    /// The address can't be bound.
    pub fn bind(config: &config::Admin, readiness: Readiness, live: Live, api: Api) -> std::io::Result<Self> {
        let server = Server::bind(config.bind, Limits::for_operators(DRAIN))?;
        let unauthorized = "present admin.token as Authorization: Bearer …";
        let tokens = [config.token.as_ref(), config.reader_token.as_ref()];
        let guard = Guard::new(tokens[0], Hosts::WithoutDot, unauthorized).reader(tokens[1]).sessions(Sessions::new(
            tokens[0],
            tokens[1],
            config.tls.is_some(),
        ));
        let (guard, api) = (Arc::new(guard), Arc::new(api));
        Ok(Self { server, guard, readiness, live, api, pages: Router::new() })
    }

    /// The bound address.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.server.addr()
    }

    /// What its handlers share.
    #[must_use]
    pub fn api(&self) -> Arc<Api> {
        Arc::clone(&self.api)
    }

    /// Who may use it.
    #[must_use]
    pub fn guard(&self) -> Arc<Guard> {
        Arc::clone(&self.guard)
    }

    /// Serves these pages, too.
    #[must_use]
    pub fn pages(self, pages: Router) -> Self {
        Self { pages, ..self }
    }

    /// Talks TLS, with this configuration.
    #[must_use]
    pub fn tls(self, config: ServerConfig) -> Self {
        Self { server: self.server.tls(config), ..self }
    }

    /// Serves until `shutdown` is done.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send + 'static) {
        let api = Router::new()
            .route("/stream", get(live::stream).with_state(self.live))
            .route("/openapi.json", get(openapi::openapi_json))
            .route("/events", get(events::list))
            .route("/events/{id}", get(events::show))
            .route("/events/replay", post(bulk::replay))
            .route("/events/purge", post(bulk::purge))
            .route("/conversations", get(conversations::list))
            .route("/conversations/{id}", get(conversations::show))
            .route("/sinks", get(sinks::list))
            .route("/sinks/{name}/pause", post(sinks::pause))
            .route("/sinks/{name}/resume", post(sinks::resume))
            .route("/sinks/{name}/retry-dead", post(sinks::retry_dead))
            .route("/sinks/{name}/forget", post(sinks::forget))
            .fallback(not_found)
            .method_not_allowed_fallback(not_allowed)
            .with_state(self.api.clone())
            .layer(from_fn_with_state(self.guard, guard::check));
        let router = Router::new()
            .route("/livez", get(openapi::livez))
            .route("/readyz", get(health::readyz).with_state(self.readiness))
            .route("/metrics", get(metrics_text).with_state(self.api))
            .nest("/api/v1", api)
            .merge(self.pages)
            .fallback(not_found)
            .layer(CatchPanicLayer::custom(|_| Problem::internal().into_response()));
        self.server.run(router, shutdown).await;
    }
}

async fn not_found() -> Problem {
    Problem::not_found("there is nothing here; /api/v1/openapi.json says what there is")
}

async fn not_allowed() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this path takes another method; /api/v1/openapi.json says which")
}

async fn metrics_text(State(api): State<Arc<Api>>, headers: HeaderMap) -> impl IntoResponse {
    // What could not be read keeps its last value; that was logged.
    let _ = sinks::refresh_gauges(&api).await;
    let mut accepted = headers.get_all(ACCEPT).iter().filter_map(|accept| accept.to_str().ok());
    if accepted.any(|accept| accept.contains("application/openmetrics-text")) {
        ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], api.metrics.encode())
    } else {
        ([(CONTENT_TYPE, metrics::PLAIN_CONTENT_TYPE)], api.metrics.encode_plain())
    }
}
