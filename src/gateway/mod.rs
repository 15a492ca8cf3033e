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

mod pass;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use serde::Deserialize;
use tokio::time::timeout;
use tower_http::catch_panic::CatchPanicLayer;

use crate::body::{self, BodyError};
use crate::config;
use crate::live::{self, Live};
use crate::outbound;
use crate::serve::guard::{self, Guard, Hosts};
use crate::serve::{Limits, Problem, Server};
use crate::subscribe::{Refused, Subscriptions};

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
    client: outbound::RenewedClient,
    /// Where the URLs in Fin's answers go; `None`: `gateway.sse` is off.
    answers: Option<Subscriptions>,
    subscriptions: Subscriptions,
}

impl Gateway {
    /// Binds the listener. When it ends, calls of Fin have `drain` to be answered.
    ///
    /// # Errors
    /// The address can't be bound, or the client can't be set up.
    pub fn bind(
        settings: &config::Gateway,
        subscriptions: Subscriptions,
        live: Live,
        drain: Duration,
    ) -> io::Result<Self> {
        let server = Server::bind(settings.bind, Limits::for_operators(drain))?;
        let client =
            outbound::RenewedClient::new(|builder| builder.connect_timeout(CONNECT_TIMEOUT).timeout(ANSWER_TIMEOUT))?;
        let shared = Shared {
            key: settings.api_key.as_ref().map(pass::bearer).transpose()?,
            base: settings.base_url.clone(),
            version: HeaderValue::from_str(&settings.version).map_err(io::Error::other)?,
            client,
            answers: settings.sse.then(|| subscriptions.clone()),
            subscriptions,
        };
        let unauthorized = "The token is missing or wrong: present gateway.token as Authorization: Bearer …";
        let guard = Arc::new(Guard::new(settings.token.as_ref(), Hosts::Any, unauthorized));
        let router = Router::new()
            .route("/fin/{*path}", post(pass::on))
            .route("/subscriptions", post(subscribe))
            .with_state(Arc::new(shared))
            .route("/stream", get(live::stream).with_state(live.clone()))
            .fallback(async || Problem::not_found("There is nothing here."))
            .layer(DefaultBodyLimit::disable())
            .layer(middleware::from_fn_with_state(guard, guard::check))
            .layer(CatchPanicLayer::custom(|_| Problem::internal().into_response()));
        Ok(Self { server, live, router })
    }

    /// The bound address.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    /// Serves until `shutdown` resolves; then live streams end.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let Self { server, live, router } = self;
        let stop = async {
            shutdown.await;
            live.close();
        };
        server.run(router, stop).await;
    }
}

#[derive(Deserialize)]
struct Wanted {
    url: String,
}

/// `POST /subscriptions`.
async fn subscribe(State(shared): State<Arc<Shared>>, body: Body) -> Result<Response, Problem> {
    let body = read(body).await?;
    let Ok(Wanted { url }) = serde_json::from_slice(&body) else {
        return Err(Problem::bad("The body must be {\"url\": \"…\"}."));
    };
    let Err(refused) = shared.subscriptions.submit(&url) else {
        return Ok(StatusCode::ACCEPTED.into_response());
    };
    tracing::warn!(reason = %refused, "a subscription was refused");
    let detail = match refused {
        Refused::Busy => return Ok(Problem::unavailable("Too many event streams are open.").retry_after(5)),
        Refused::Url => "The URL is not one that can be subscribed to.",
        Refused::Scheme => "The URL's scheme is not allowed.",
        Refused::Host => "The URL's host is not allowed.",
        Refused::Channel => "The URL does not name one conversation and a token.",
        Refused::App => "The URL's app is not the configured one.",
    };
    Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail))
}

/// Reads a request's body within its bounds.
async fn read(body: Body) -> Result<Bytes, Problem> {
    match timeout(BODY_TIMEOUT, body::read(body, MAX_BODY_BYTES)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(BodyError::TooLarge(_))) => Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "The body is too large.")),
        Ok(Err(BodyError::Broken(_))) => Err(Problem::bad("The body is incomplete or malformed.")),
        Err(_) => Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "The body did not come in time.")),
    }
}
