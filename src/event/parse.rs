//! From a body's bytes to what finhook reads of it.
//!
//! A Fin event is UTF-8 and one grammatical JSON object (RFC 8259; white space around it, nothing else before or after)
//! with exactly one key that decodes to `event_name`, whose value is a non-empty string. Everything else is
//! [`NotAnEvent`].
//!
//! The body is parsed once, and what is read of it borrows from it unless it is escaped. Fin's events will grow, and
//! bodies are written by strangers; so:
//! - What finhook does not know is checked for grammar and skipped, iteratively: no depth of nesting overflows the stack.
//! - A known field whose value has an unexpected type, or is a string that does not decode (a lone surrogate), counts as
//!   absent and harms nothing else.
//! - Of a key that is there twice the last one counts, as with most JSON parsers; only `event_name` must be unique.
//! - `chunk_index` is a number without sign, fraction and exponent, of any size; `1.0`, `1e2` and `-1` count as absent.

use std::borrow::Cow;
use std::fmt;

use super::names::{CSAT_REQUESTED, REPLIED, REPLY_CHUNK, STATUS_UPDATED};
use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// What finhook reads of a Fin event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FinEvent<'a> {
    /// `event_name`, not empty.
    pub name: Cow<'a, str>,
    /// `conversation_id`.
    pub conversation_id: Option<Cow<'a, str>>,
    /// `user_id`.
    pub user_id: Option<Cow<'a, str>>,
    /// `created_at_ms`, as it was sent.
    pub created_at: Option<Cow<'a, str>>,
    /// `status`.
    pub status: Option<Cow<'a, str>>,
    /// `reason`.
    pub reason: Option<Cow<'a, str>>,
    /// `message.id`.
    pub message_id: Option<Cow<'a, str>>,
    /// What only one kind of event has.
    pub detail: Detail<'a>,
}

/// The events that Fin documents, with the fields that only they have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Detail<'a> {
    /// `fin_replied`.
    Replied {
        /// `message.timestamp_ms`, as it was sent.
        timestamp: Option<Cow<'a, str>>,
    },
    /// `fin_status_updated`.
    StatusUpdated,
    /// `csat_requested`.
    CsatRequested,
    /// `fin_reply_chunk`.
    ReplyChunk {
        /// `stream_id`.
        stream_id: Option<Cow<'a, str>>,
        /// `chunk_index` in decimal.
        chunk_index: Option<&'a str>,
    },
    /// An event that finhook does not know; stored and delivered like any other.
    Other,
}

/// Why authentic bytes are not an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAnEvent {
    /// The bytes are not UTF-8.
    #[error("the body is not UTF-8")]
    NotUtf8,
    /// The bytes are not one grammatical JSON object.
    #[error("the body is not one grammatical JSON object")]
    NotAnObject,
    /// There is no `event_name`.
    #[error("the body has no event_name")]
    Unnamed,
    /// There is more than one `event_name`.
    #[error("the body has more than one event_name")]
    NamedTwice,
    /// `event_name` is not a string, does not decode, or is empty.
    #[error("event_name is not a non-empty string")]
    BadName,
    /// A classic webhook without exactly one `topic` that is a non-empty string.
    #[error("the notification has not one topic, a non-empty string")]
    NoTopic,
    /// A classic webhook without an object at `data.item`.
    #[error("the notification has no item, an object at data.item")]
    NoItem,
}

impl<'a> FinEvent<'a> {
    /// Reads a body.
    ///
    /// # Errors
    /// [`NotAnEvent`] with a constant reason.
    pub fn parse(body: &'a [u8]) -> Result<Self, NotAnEvent> {
        let text = str::from_utf8(body).map_err(|_| NotAnEvent::NotUtf8)?;
        let raw: Document<'a> = object(text, Document::default()).ok_or(NotAnEvent::NotAnObject)?;
        let name = match raw.names {
            0 => return Err(NotAnEvent::Unnamed),
            1 => raw.name.and_then(string).filter(|name| !name.is_empty()).ok_or(NotAnEvent::BadName)?,
            _ => return Err(NotAnEvent::NamedTwice),
        };
        let message = raw.message.and_then(|raw| object(raw.get(), Message::default())).unwrap_or_default();
        let detail = match &*name {
            REPLIED => Detail::Replied { timestamp: message.timestamp.and_then(string) },
            STATUS_UPDATED => Detail::StatusUpdated,
            CSAT_REQUESTED => Detail::CsatRequested,
            REPLY_CHUNK => Detail::ReplyChunk {
                stream_id: raw.stream_id.and_then(string),
                chunk_index: raw.chunk_index.and_then(natural),
            },
            _ => Detail::Other,
        };
        Ok(Self {
            name,
            conversation_id: raw.conversation_id.and_then(string),
            user_id: raw.user_id.and_then(string),
            created_at: raw.created_at.and_then(string),
            status: raw.status.and_then(string),
            reason: raw.reason.and_then(string),
            message_id: message.id.and_then(string),
            detail,
        })
    }
}

/// Known values of the outer object, still as they stand in the text.
#[derive(Default)]
struct Document<'a> {
    names: usize,
    name: Option<&'a RawValue>,
    conversation_id: Option<&'a RawValue>,
    user_id: Option<&'a RawValue>,
    created_at: Option<&'a RawValue>,
    status: Option<&'a RawValue>,
    reason: Option<&'a RawValue>,
    message: Option<&'a RawValue>,
    stream_id: Option<&'a RawValue>,
    chunk_index: Option<&'a RawValue>,
}

/// Known values of `message`.
#[derive(Default)]
struct Message<'a> {
    id: Option<&'a RawValue>,
    timestamp: Option<&'a RawValue>,
}

/// Where an object's known values go.
pub(super) trait Slots<'a> {
    /// The place of a key's value; none when the key is not known.
    fn slot(&mut self, key: &str) -> Option<&mut Option<&'a RawValue>>;
}

impl<'a> Slots<'a> for Document<'a> {
    fn slot(&mut self, key: &str) -> Option<&mut Option<&'a RawValue>> {
        Some(match key {
            "event_name" => {
                self.names += 1;
                &mut self.name
            }
            "conversation_id" => &mut self.conversation_id,
            "user_id" => &mut self.user_id,
            "created_at_ms" => &mut self.created_at,
            "status" => &mut self.status,
            "reason" => &mut self.reason,
            "message" => &mut self.message,
            "stream_id" => &mut self.stream_id,
            "chunk_index" => &mut self.chunk_index,
            _ => return None,
        })
    }
}

impl<'a> Slots<'a> for Message<'a> {
    fn slot(&mut self, key: &str) -> Option<&mut Option<&'a RawValue>> {
        match key {
            "id" => Some(&mut self.id),
            "timestamp_ms" => Some(&mut self.timestamp),
            _ => None,
        }
    }
}

/// Reads one JSON object and nothing after it.
pub(super) fn object<'a, S: Slots<'a>>(text: &'a str, slots: S) -> Option<S> {
    let mut json = serde_json::Deserializer::from_str(text);
    let slots = json.deserialize_map(Object(slots)).ok()?;
    json.end().ok()?;
    Some(slots)
}

struct Object<S>(S);

impl<'de, S: Slots<'de>> Visitor<'de> for Object<S> {
    type Value = S;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<S, A::Error> {
        let mut slots = self.0;
        // Keys are taken raw: a key that does not decode is grammatical, and only not one of ours.
        while let Some(key) = map.next_key::<&RawValue>()? {
            match string(key).and_then(|key| slots.slot(&key)) {
                Some(slot) => *slot = Some(map.next_value()?),
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(slots)
    }
}

/// The text of a string; absent when it is something else or does not decode.
pub(super) fn string(raw: &RawValue) -> Option<Cow<'_, str>> {
    let quoted = raw.get();
    let inner = quoted.strip_prefix('"')?.strip_suffix('"')?;
    if inner.as_bytes().contains(&b'\\') {
        serde_json::from_str(quoted).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

/// The digits of a number that has nothing but digits.
pub(super) fn natural(raw: &RawValue) -> Option<&str> {
    let number = raw.get();
    number.bytes().all(|byte| byte.is_ascii_digit()).then_some(number)
}

#[cfg(test)]
mod tests;
