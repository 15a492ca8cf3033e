//! The admin listener: health, metrics and the API.

mod health;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::middleware;
use axum::response::IntoResponse;
use axum::routing::get;

use crate::config;
use crate::dispatch::Handle;
use crate::gateway::guard::{self, Guard};
use crate::journal::Journal;
use crate::live::{self, Live};
use crate::metrics::{self, Metrics};

pub use health::{Readiness, Stage};

/// What the handlers share.
#[derive(Debug)]
struct Shared {
    readiness: Readiness,
    metrics: Arc<Metrics>,
    journal: Journal,
    live: Live,
    sinks: Vec<Handle>,
}

/// A bound admin listener.
#[derive(Debug)]
pub struct Listener {
    tcp: tokio::net::TcpListener,
    addr: SocketAddr,
    guard: Arc<Guard>,
    shared: Arc<Shared>,
}

impl Listener {
    /// Binds `config.bind`.
    ///
    /// # Errors
    /// The address can't be bound.
    pub fn bind(
        config: &config::Admin,
        readiness: Readiness,
        metrics: Arc<Metrics>,
        journal: Journal,
        live: Live,
        sinks: Vec<Handle>,
    ) -> std::io::Result<Self> {
        let tcp = std::net::TcpListener::bind(config.bind)?;
        tcp.set_nonblocking(true)?;
        let tcp = tokio::net::TcpListener::from_std(tcp)?;
        let addr = tcp.local_addr()?;
        let guard = Arc::new(Guard::new(config.token.clone()));
        Ok(Self { tcp, addr, guard, shared: Arc::new(Shared { readiness, metrics, journal, live, sinks }) })
    }

    /// The bound address.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Serves until `shutdown` is done.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send + 'static) {
        let stream = get(live::stream)
            .with_state(self.shared.live.clone())
            .route_layer(middleware::from_fn_with_state(self.guard, guard::check));
        let router = Router::new()
            .route("/livez", get(|| async { "ok\n" }))
            .route("/readyz", get(health::readyz))
            .route("/metrics", get(metrics_text))
            .with_state(Arc::clone(&self.shared))
            .route("/api/v1/stream", stream);
        #[expect(clippy::disallowed_methods, reason = "not on the internet: loopback, or behind a token")]
        if let Err(error) = axum::serve(self.tcp, router).with_graceful_shutdown(shutdown).await {
            tracing::error!(%error, "the admin listener failed");
        }
    }
}

async fn metrics_text(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    let head = *shared.journal.head().borrow();
    for sink in &shared.sinks {
        let status = &sink.status;
        let lag = head.saturating_sub(status.cursor()) + status.parked();
        shared.metrics.sink(status.name()).lag_events.set(i64::try_from(lag).unwrap_or(i64::MAX));
    }
    ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], shared.metrics.encode())
}
