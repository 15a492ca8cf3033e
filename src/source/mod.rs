//! How bytes come in.

pub mod http;
mod seldom;
pub mod sse;

pub use seldom::Seldom;

use axum::http::HeaderMap;
use bytes::Bytes;
use uuid::Uuid;

/// What stands behind a source: it proves, stores and says what became of a request.
///
/// The source asks in two steps so that a request without a well-formed signature is refused before its body is read.
pub trait Intake: Send + Sync + 'static {
    /// What was found in the head and is needed with the body, e.g. the parsed signature.
    type Claim: Send + 'static;

    /// Looks at a request's head. `endpoint` is the index of the endpoint in the list given to the listener.
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
    /// Signature missing, malformed, sent twice or wrong: 401.
    Unauthenticated,
    /// Nothing can be stored now, or no secret is known yet: 503 with `Retry-After`.
    Unavailable,
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
    /// Kept, not delivered: not a Fin event.
    Quarantined(Uuid),
    /// The settings page's test.
    Test,
    /// Refused.
    Refused(Refusal),
}
