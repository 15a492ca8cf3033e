//! Where events go: stdout, a rotated file, an HTTP service.
//!
//! A sink knows events and its own configuration; of the journal, cursors and retries it knows nothing. It makes one
//! attempt and says what became of it.

pub mod cloudevent;
pub mod file;
pub mod http;
pub mod log;

use std::sync::Arc;
use std::time::Duration;

use crate::event::Stored;

/// One attempt to deliver one event.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The event.
    pub stored: Arc<Stored>,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// Set when an operator asked for it to be sent again.
    pub replay: Option<Arc<str>>,
}

/// What became of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The sink has it.
    Delivered,
    /// The sink does not have it, or did not say so.
    Failed(Failure),
}

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Whose fault it looks like.
    pub fault: Fault,
    /// The sink's `Retry-After`, unclamped.
    pub retry_after: Option<Duration>,
    /// For the operator; holds no body, no secret, no URL with credentials.
    pub error: String,
}

/// Kinds of failures, as the retry policy tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// 408, 425, 5xx, timeout, reset, a connection that broke: may pass.
    Transient,
    /// The sink could not be reached at all: no connection, no name, no TLS. Never the event's fault.
    Unreachable,
    /// Any other 3xx or 4xx: the event looks like poison to the sink.
    Rejected,
    /// 429: the sink asks for a pause.
    Throttled,
}

/// A sink that takes events one by one, several conversations at once.
pub trait Relay: Send + Sync + 'static {
    /// Makes one attempt. Bounded in time by the sink's own timeout.
    fn deliver(&self, delivery: Delivery) -> impl Future<Output = Outcome> + Send;
}

/// A sink that takes events in batches, in order, on a thread of its own.
pub trait Batch: Send + 'static {
    /// Writes all of them durably or reports why not; after an error the same batch is written again, and what
    /// had been written of it already must not become a torn or half line.
    ///
    /// # Errors
    /// What the operator should know and do.
    fn write(&mut self, deliveries: &[Delivery]) -> Result<(), String>;
}
