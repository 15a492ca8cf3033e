//! The public front door: it stands on the internet.
//!
//! [`router`] lists the routes. A request for an endpoint meets, in the contract's order:
//!
//! 1. the router: 404 for another path, 405 for another method;
//! 2. [`Claimed`], from the head alone: encoding, declared length, signature header;
//! 3. [`Whole`]: the body, within its size and its time;
//! 4. [`Intake::take`]: verified, made an event, stored;
//! 5. [`Reply`]: the answer.
//!
//! Connections, heads and their limits are [`serve`](crate::serve)'s.

mod answer;
mod extract;
mod ready;
mod receiver;
mod unrouted;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::handler::Handler as _;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::IntoResponse;
use axum::routing::post;
use bytes::Bytes;
use tower_http::catch_panic::CatchPanicLayer;
use uuid::Uuid;

use crate::config;
use crate::journal::AppendError;
use crate::metrics::{EndpointMetrics, Metrics};
use crate::verify::Scheme;
use answer::Reply;
use extract::{Claimed, Whole};

pub use ready::ready;
pub use receiver::{Endpoint, Receiver, store};
pub use unrouted::Unrouted;

/// The routes of the public listener: one for each endpoint. `endpoints` are pairs of name and path; the intake is told
/// their index, and `unrouted` of every other path.
pub fn router<I: Intake>(
    config: &config::Server,
    endpoints: &[(&str, &str)],
    intake: Arc<I>,
    metrics: &Arc<Metrics>,
    unrouted: &Arc<Unrouted>,
) -> Router {
    let unrouted = Arc::clone(unrouted);
    let mut router = Router::new().fallback(async move |uri: Uri| {
        unrouted.refused(StatusCode::NOT_FOUND, uri.path());
        Reply::NotFound
    });
    for (number, (name, path)) in endpoints.iter().enumerate() {
        let door = Door {
            number,
            intake: Arc::clone(&intake),
            counters: metrics.endpoint(name),
            metrics: Arc::clone(metrics),
            max_body_bytes: config.max_body_bytes,
            body_timeout: config.body_timeout,
        };
        let door = Arc::new(door);
        let panicked = Arc::clone(&door);
        // Around the one handler that may panic: around the route there would be one more allocation a request, which waits
        // for the disk as long as the request does.
        let catch_panic = CatchPanicLayer::custom(move |_| panicked.panicked().into_response());
        let endpoint = post(receive::<I>.layer(catch_panic)).head(async || Reply::Here).fallback(other_method::<I>);
        router = router.route(path, endpoint.with_state(door));
    }
    router
}

/// `POST` on an endpoint.
async fn receive<I: Intake>(
    State(door): State<Arc<Door<I>>>,
    Claimed { claim, began }: Claimed<I>,
    Whole(body): Whole,
) -> Reply {
    let answer = door.intake.take(door.number, claim, body).await;
    door.count(Reply::Taken(answer), began)
}

/// Any other method on an endpoint.
async fn other_method<I: Intake>(State(door): State<Arc<Door<I>>>) -> Reply {
    door.count(Reply::Method, Instant::now())
}

/// What the handlers of one endpoint share.
struct Door<I> {
    /// Its place in the list of endpoints.
    number: usize,
    intake: Arc<I>,
    counters: EndpointMetrics,
    metrics: Arc<Metrics>,
    max_body_bytes: usize,
    body_timeout: Duration,
}

impl<I> Door<I> {
    /// Counts a request that is about to be answered.
    fn count(&self, reply: Reply, began: Instant) -> Reply {
        if let Some(outcome) = reply.outcome() {
            self.counters.request(outcome);
            self.metrics.ack_seconds.observe(began.elapsed().as_secs_f64());
        }
        reply
    }

    /// What the panic says may hold a body: not logged.
    fn panicked(&self) -> Reply {
        tracing::error!("a request's handler panicked: this is a bug in finhook, please report it");
        self.count(Reply::Bug, Instant::now())
    }
}

/// What stands behind the door: it proves, stores and says what became of a request.
///
/// It is asked in two steps so that a request without a well-formed signature is refused before its body is read.
pub trait Intake: Send + Sync + 'static {
    /// What was found in the head and is needed with the body, e.g. the parsed signature.
    type Claim: Send + 'static;

    /// Looks at a request's head. `endpoint` is the index of the endpoint in the list given to [`router`].
    ///
    /// # Errors
    /// Why the request is refused before its body is read.
    fn claim(&self, endpoint: usize, headers: &HeaderMap) -> Result<Self::Claim, Refusal>;

    /// Verifies and stores the body; returns only when the answer may be sent. `body` is complete and within the limit,
    /// in memory of its own.
    ///
    /// A client that hangs up does not end it, but the drain's deadline does: the future is dropped then, wherever it
    /// stands. What must be finished once it is begun has to live on without it. A panic is answered with 500.
    fn take(&self, endpoint: usize, claim: Self::Claim, body: Bytes) -> impl Future<Output = Answer> + Send;
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Signature missing, malformed, sent twice or wrong: 401, with how this endpoint's requests are signed.
    Unauthenticated(Scheme),
    /// No secret is known yet: 503 with `Retry-After`.
    NoSecret,
    /// It can't be stored now: 503 with `Retry-After`.
    NotStored(AppendError),
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// On disk for the first time.
    Accepted(Uuid),
    /// Was on disk already.
    Duplicate(Uuid),
    /// Kept, not delivered: too old to be recognised.
    Stale(Uuid),
    /// Kept, not delivered: not an event.
    Quarantined(Uuid),
    /// The settings page's test, or the ping of a classic webhook.
    Test,
    /// Refused.
    Refused(Refusal),
}
