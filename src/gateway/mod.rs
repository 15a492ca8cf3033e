//! The gateway: calls Fin for the operator's backends, so that the API key lives in one server-side place.
//!
//! | request | does |
//! | --- | --- |
//! | `POST /fin/…` | passed to Fin with the API key; Fin's status and body come back unchanged |
//! | `POST /subscriptions` | listens to the event stream in `{"url": …}`, for those who call Fin themselves |
//! | `GET /stream` | the live stream, see [`crate::live`] |
//!
//! Invariants:
//! - The API key goes to `gateway.base_url` and nowhere else: into no log, error, metric or answer. A caller's own
//!   `Authorization` is compared with the gateway's token and goes nowhere at all.
//! - A path is passed on only if it is made of letters, digits, `_` and `-`: no dot segments, in whatever encoding.
//! - Bodies are bounded in size both ways, and every wait is bounded in time.

mod guard;
mod pass;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use tokio::time::timeout;
use tower_http::catch_panic::CatchPanicLayer;

use crate::config;
use crate::live::{self, Live};
use crate::outbound;
use crate::serve::{Server, problem};
use crate::source::sse::{Refused, Subscriptions};
use guard::Guard;

/// Largest body of a request, and of an answer of Fin's, in bytes.
const MAX_BODY_BYTES: usize = 1024 * 1024;
/// From a request's head to its whole body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// For connecting to Fin, and for its whole answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A bound gateway.
#[derive(Debug)]
pub struct Gateway {
    server: Server,
    live: Live,
    router: Router,
}

/// What the handlers share.
struct Shared {
    key: Option<HeaderValue>,
    base: url::Url,
    version: HeaderValue,
    client: reqwest::Client,
    /// Where the URLs in Fin's answers go; `None`: `gateway.sse` is off.
    answers: Option<Subscriptions>,
    subscriptions: Subscriptions,
}

impl Gateway {
    /// Binds the listener.
    ///
    /// # Errors
    /// The address can't be bound, or the client can't be set up.
    pub async fn bind(settings: &config::Gateway, subscriptions: Subscriptions, live: Live) -> io::Result<Self> {
        let server = Server::bind(settings.bind).await?;
        let builder = outbound::client().map_err(io::Error::other)?;
        let client =
            builder.connect_timeout(CONNECT_TIMEOUT).timeout(ANSWER_TIMEOUT).build().map_err(io::Error::other)?;
        let shared = Shared {
            key: settings.api_key.as_ref().map(pass::bearer).transpose()?,
            base: settings.base_url.clone(),
            version: HeaderValue::from_str(&settings.version).map_err(io::Error::other)?,
            client,
            answers: settings.sse.then(|| subscriptions.clone()),
            subscriptions,
        };
        let guard = Arc::new(Guard::new(settings.token.clone()));
        let router = Router::new()
            .route("/fin/{*path}", post(pass::on))
            .route("/subscriptions", post(subscribe))
            .with_state(Arc::new(shared))
            .route("/stream", get(live::stream).with_state(live.clone()))
            .fallback(async || problem(StatusCode::NOT_FOUND, "There is nothing here."))
            .layer(DefaultBodyLimit::disable())
            .layer(middleware::from_fn_with_state(guard, guard::check))
            .layer(CatchPanicLayer::custom(|_| problem(StatusCode::INTERNAL_SERVER_ERROR, "A bug in finhook.")));
        Ok(Self { server, live, router })
    }

    /// The bound address.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    /// Serves until `shutdown` resolves; then live streams end, and calls of Fin have `drain` to be answered.
    pub async fn run(self, shutdown: impl Future<Output = ()>, drain: Duration) {
        let Self { server, live, router } = self;
        let stop = async {
            shutdown.await;
            live.close();
        };
        server.run(router, stop, drain).await;
    }
}

#[derive(Deserialize)]
struct Wanted {
    url: String,
}

/// `POST /subscriptions`.
async fn subscribe(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Body) -> Response {
    let body = match read(&headers, body).await {
        Ok(body) => body,
        Err(refused) => return refused,
    };
    let Ok(Wanted { url }) = serde_json::from_slice(&body) else {
        return problem(StatusCode::BAD_REQUEST, "The body must be {\"url\": \"…\"}.");
    };
    match shared.subscriptions.submit(&url) {
        Ok(()) => StatusCode::ACCEPTED.into_response(),
        Err(refused @ Refused::Busy) => {
            tracing::warn!(reason = %refused, "a subscription was refused");
            let mut busy = problem(StatusCode::SERVICE_UNAVAILABLE, "Too many event streams are open.");
            busy.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
            busy
        }
        Err(refused) => {
            tracing::warn!(reason = %refused, "a subscription was refused");
            let detail = match refused {
                Refused::Url => "The URL is not one that can be subscribed to.",
                Refused::Scheme => "The URL's scheme is not allowed.",
                Refused::Host => "The URL's host is not allowed.",
                Refused::Channel => "The URL does not name one conversation and a token.",
                Refused::App | Refused::Busy => "The URL's app is not the configured one.",
            };
            problem(StatusCode::UNPROCESSABLE_ENTITY, detail)
        }
    }
}

/// Reads a request's body within its bounds.
async fn read(headers: &HeaderMap, body: Body) -> Result<bytes::Bytes, Response> {
    let too_large = || problem(StatusCode::PAYLOAD_TOO_LARGE, "The body is too large.");
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if declared.is_some_and(|length| length > MAX_BODY_BYTES) {
        return Err(too_large());
    }
    match timeout(BODY_TIMEOUT, axum::body::to_bytes(body, MAX_BODY_BYTES)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(_)) => Err(too_large()),
        Err(_) => Err(problem(StatusCode::REQUEST_TIMEOUT, "The body did not come in time.")),
    }
}
