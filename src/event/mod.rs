//! What authentic bytes say: an [`Event`] with its names, times and content-derived id.

use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

/// What became of verified bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A Fin event: stored and delivered.
    Event,
    /// Authentic, but older than the dedupe window: kept, not delivered.
    Stale,
    /// Authentic, but not a Fin event: raw bytes kept, not delivered.
    Quarantined,
}

/// An authentic event, ready to be stored, or read back from the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Content-derived idempotency key, UUID v8.
    pub id: Uuid,
    /// Whether it is delivered.
    pub kind: Kind,
    /// Name of the endpoint it came in by.
    pub endpoint: Arc<str>,
    /// When it was received, unix milliseconds.
    pub received_ms: i64,
    /// `created_at_ms` in unix milliseconds, 0 when absent or invalid.
    pub created_ms: i64,
    /// What was read from the body. All absent in a quarantined one.
    pub fields: Fields,
    /// The request's `Content-Type`, if it had one.
    pub content_type: Option<Box<str>>,
    /// The original `X-Fin-Agent-API-Webhook-Signature`, if it came by webhook.
    pub signature: Option<Box<str>>,
    /// The raw body: the event itself, byte for byte.
    pub body: Bytes,
}

/// The fields of a Fin event that finhook uses; everything else stays in the body only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields {
    /// `event_name`; absent only in a quarantined one.
    pub event_name: Option<Box<str>>,
    /// `conversation_id`.
    pub conversation_id: Option<Box<str>>,
    /// `user_id`.
    pub user_id: Option<Box<str>>,
    /// `created_at_ms` as it was sent.
    pub created_at: Option<Box<str>>,
    /// `status`.
    pub status: Option<Box<str>>,
    /// `reason`.
    pub reason: Option<Box<str>>,
    /// `message.id`.
    pub message_id: Option<Box<str>>,
}

/// An event with its place in the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Sequence number: 1 or more, ascending in the order of storing, never reused.
    pub seq: u64,
    /// The event.
    pub event: Event,
}
