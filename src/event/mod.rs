//! What authentic bytes say: an [`Event`] with its names, times and content-derived id.
//!
//! The raw body is the event. It is parsed once, here, and never written again from what was parsed.

pub mod identity;
pub mod names;
pub mod notification;
pub mod parse;

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::clock;
use crate::verify::{Scheme, Verified};
use notification::Notification;
use parse::{FinEvent, NotAnEvent};

/// What became of verified bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An event: stored and delivered.
    Event,
    /// Authentic, but older than the dedupe window: kept, not delivered.
    Stale,
    /// Authentic, but not an event: raw bytes kept, not delivered.
    Quarantined,
}

impl Kind {
    /// As it is stored, and hashed into the checksum.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Event => 0,
            Self::Stale => 1,
            Self::Quarantined => 2,
        }
    }

    /// The kind that is stored as this number. An unknown one is not delivered.
    #[must_use]
    pub fn from_number(number: i64) -> Self {
        match number {
            0 => Self::Event,
            1 => Self::Stale,
            _ => Self::Quarantined,
        }
    }
}

/// An authentic event, ready to be stored, or read back from the journal. Its [`Parts`] can be read, not changed.
///
/// There are two ways to one, so that bytes that nobody proved to be authentic can't become an event:
/// [`Event::receive`] takes [`Verified`] bytes, and `Event::from_journal`, private to this crate, takes what the journal
/// stored of such an event.
#[derive(Clone, PartialEq, Eq)]
pub struct Event(Parts);

/// What an [`Event`] consists of: plain data, which proves nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Parts {
    /// Content-derived idempotency key, UUID v8.
    pub id: Uuid,
    /// Whether it is delivered.
    pub kind: Kind,
    /// Name of the endpoint it came in by.
    pub endpoint: Arc<str>,
    /// When it was received, unix milliseconds.
    pub received_ms: i64,
    /// `created_at_ms` in unix milliseconds, or `created_at` of a classic webhook; 0 when absent or invalid.
    pub created_ms: i64,
    /// What was read from the body. All absent in a quarantined one.
    pub fields: Fields,
    /// The request's `Content-Type`, if it had one.
    pub content_type: Option<Box<str>>,
    /// The signature header as it was sent, if it came by webhook; [`Scheme::of`] tells which header that was.
    pub signature: Option<Box<str>>,
    /// The raw body: the event itself, byte for byte.
    pub body: Bytes,
}

/// The fields of an event that finhook uses; everything else stays in the body only. For each, where a Fin event has it; what
/// stands for it in a classic webhook is [`Notification`]'s.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields {
    /// `event_name`, or `topic`; absent only in a quarantined one.
    pub event_name: Option<Box<str>>,
    /// `conversation_id`.
    pub conversation_id: Option<Box<str>>,
    /// `user_id`.
    pub user_id: Option<Box<str>>,
    /// `created_at_ms` as it was sent; `created_at` in RFC 3339.
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

impl Event {
    /// Reads authentic bytes: names, times, id, and whether they are an event at all, and one recent enough to be
    /// recognised when it comes again. They are read as what signed them sends.
    ///
    /// `received_ms` is unix milliseconds. An event is stale when its time of creation is more than `dedupe_window_ms`
    /// before that; one without a valid one never is.
    #[must_use]
    pub fn receive(
        verified: Verified,
        endpoint: Arc<str>,
        received_ms: i64,
        dedupe_window_ms: i64,
        content_type: Option<Box<str>>,
        signature: Option<Box<str>>,
    ) -> Self {
        let scheme = verified.scheme();
        let body = verified.into_body();
        let read = match scheme {
            Scheme::Fin => FinEvent::parse(&body).map(|event| {
                let created_ms = event.created_at.as_deref().and_then(clock::parse);
                (identity::event_id(&endpoint, &event, &body), created_ms, event.into())
            }),
            Scheme::Intercom => Notification::parse(&body)
                .map(|read| (identity::notification_id(&endpoint, &read), read.created_ms(), read.into())),
        };
        let (id, kind, created_ms, fields) = match read {
            Ok((id, created_ms, fields)) => {
                let stale = created_ms.is_some_and(|ms| received_ms.saturating_sub(ms) > dedupe_window_ms);
                (id, if stale { Kind::Stale } else { Kind::Event }, created_ms.unwrap_or(0), fields)
            }
            Err(_) => (identity::quarantine_id(&endpoint, &body), Kind::Quarantined, 0, Fields::default()),
        };
        Self(Parts { id, kind, endpoint, received_ms, created_ms, fields, content_type, signature, body })
    }

    /// An event that the journal stored, as it stored it. For the journal, and for tests that need an event as a
    /// journal would give it; nobody else has parts that were authentic.
    #[must_use]
    pub(crate) fn from_journal(parts: Parts) -> Self {
        Self(parts)
    }

    /// What it consists of.
    #[must_use]
    pub fn into_parts(self) -> Parts {
        self.0
    }

    /// Why a quarantined one is not an event; absent for all others. Reads the body again: for logs only.
    #[must_use]
    pub fn defect(&self) -> Option<NotAnEvent> {
        if self.kind != Kind::Quarantined {
            return None;
        }
        match Scheme::of(self.signature.as_deref()) {
            Scheme::Fin => FinEvent::parse(&self.body).err(),
            Scheme::Intercom => Notification::parse(&self.body).err(),
        }
    }

    /// The lane in which it is delivered in order: one for each conversation of an endpoint. An event without
    /// conversation has a lane of its own.
    ///
    /// XXH3 of the conversation's id seeded with that of the endpoint's name, or XXH3 of the event's id.
    #[must_use]
    pub fn lane(&self) -> u64 {
        match &self.fields.conversation_id {
            Some(conversation) => xxh3_64_with_seed(conversation.as_bytes(), xxh3_64(self.endpoint.as_bytes())),
            None => xxh3_64(self.id.as_bytes()),
        }
    }

    /// XXH3 of the body; tells two bodies under the same id apart.
    #[must_use]
    pub fn body_hash(&self) -> u64 {
        xxh3_64(&self.body)
    }

    /// XXH3 of all that is stored of it, so that bytes that changed on disk are noticed.
    ///
    /// Over, in the order of [`Parts`]: the id; the kind as one byte (event 0, stale 1, quarantined 2); texts as u64
    /// little-endian length and bytes, absent ones as the length 2^64 - 1; times as i64 little-endian; in the body's
    /// place its length and [`Event::body_hash`], u64 little-endian each.
    #[must_use]
    pub fn checksum(&self) -> u64 {
        self.checksum_with(self.body_hash())
    }

    /// [`Event::checksum`] where the body's hash is known already.
    #[must_use]
    pub fn checksum_with(&self, body_hash: u64) -> u64 {
        // Hashed at once: many small updates of a hash's state cost more than putting them side by side.
        let mut bytes = Vec::with_capacity(512);
        let parts = &self.0;
        bytes.extend_from_slice(parts.id.as_bytes());
        bytes.push(parts.kind.number());
        add_text(&mut bytes, Some(&parts.endpoint));
        bytes.extend_from_slice(&parts.received_ms.to_le_bytes());
        bytes.extend_from_slice(&parts.created_ms.to_le_bytes());
        let Fields { event_name, conversation_id, user_id, created_at, status, reason, message_id } = &parts.fields;
        for text in [event_name, conversation_id, user_id, created_at, status, reason, message_id] {
            add_text(&mut bytes, text.as_deref());
        }
        add_text(&mut bytes, parts.content_type.as_deref());
        add_text(&mut bytes, parts.signature.as_deref());
        bytes.extend_from_slice(&(parts.body.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&body_hash.to_le_bytes());
        xxh3_64(&bytes)
    }
}

impl Deref for Event {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Shows neither the body nor the signature, nor what was read from the body.
impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("id", &self.id)
            .field("kind", &self.kind)
            .field("endpoint", &self.endpoint)
            .field("received_ms", &self.received_ms)
            .field("created_ms", &self.created_ms)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

impl From<FinEvent<'_>> for Fields {
    fn from(event: FinEvent<'_>) -> Self {
        let text = |text: Option<std::borrow::Cow<'_, str>>| text.map(|text| text.into_owned().into_boxed_str());
        Self {
            event_name: text(Some(event.name)),
            conversation_id: text(event.conversation_id),
            user_id: text(event.user_id),
            created_at: text(event.created_at),
            status: text(event.status),
            reason: text(event.reason),
            message_id: text(event.message_id),
        }
    }
}

impl From<Notification<'_>> for Fields {
    fn from(read: Notification<'_>) -> Self {
        let created_at = read.created_ms().and_then(clock::rfc3339);
        Self {
            event_name: Some(read.topic.into()),
            conversation_id: read.conversation_id.map(Into::into),
            user_id: read.user_id.map(Into::into),
            created_at: created_at.map(Into::into),
            ..Self::default()
        }
    }
}

fn add_text(bytes: &mut Vec<u8>, text: Option<&str>) {
    match text {
        Some(text) => {
            bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
        None => bytes.extend_from_slice(&u64::MAX.to_le_bytes()),
    }
}

#[cfg(test)]
mod tests;
