//! The content-derived id of an event: the same event has the same id by every way in, on every machine, after every
//! restart. Consumers use it as their idempotency key.
//!
//! An id is a UUID v8 (RFC 9562). Bytes 0–5 are unix milliseconds, big-endian, cut to 48 bits; bytes 6–15 the first ten
//! of SHA-256 over a list of fields, each as its length in bytes (u32, big-endian) and its bytes, an absent one as the
//! length 0xFFFFFFFF alone. Then the version and variant bits are set over them. The fields are `finhook/1`, the
//! endpoint's name, `event_name`, `conversation_id`, and then
//!
//! | event | fields | time |
//! | --- | --- | --- |
//! | `fin_replied` | `message.id`, `status` | `message.timestamp_ms`, where there is none `created_at_ms` |
//! | `fin_status_updated` | `created_at_ms`, `status` | `created_at_ms` |
//! | `csat_requested` | `created_at_ms` | `created_at_ms` |
//! | `fin_reply_chunk` | `stream_id`, `chunk_index` in decimal | `created_at_ms` |
//! | any other, and when one of the fields but `status` is absent | SHA-256 of the body | `created_at_ms` |
//! | quarantined: only `finhook/1` and the endpoint's name before | SHA-256 of the body | 0 |
//!
//! An absent `conversation_id` counts as an absent field, too: without it, the rest would not tell two events apart.
//! Strings are hashed as decoded from JSON, times as they were sent. A time that is absent or not RFC 3339 is 0.

use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use super::parse::{Detail, FinEvent};

const SCHEME: &str = "finhook/1";
const ABSENT: u32 = u32::MAX;

/// The id of an event.
#[must_use]
pub fn event_id(endpoint: &str, event: &FinEvent<'_>, body: &[u8]) -> Uuid {
    let mut fields = Fields::new(endpoint);
    fields.text(Some(&event.name)).text(event.conversation_id.as_deref());
    let created_at = event.created_at.as_deref();
    let status = event.status.as_deref();
    let own = match &event.detail {
        _ if event.conversation_id.is_none() => None,
        Detail::Replied { timestamp } => event.message_id.as_deref().map(|message_id| {
            fields.text(Some(message_id)).text(status);
            timestamp.as_deref().or(created_at)
        }),
        Detail::StatusUpdated => created_at.map(|time| {
            fields.text(Some(time)).text(status);
            created_at
        }),
        Detail::CsatRequested => created_at.map(|time| {
            fields.text(Some(time));
            created_at
        }),
        Detail::ReplyChunk { stream_id, chunk_index } => {
            stream_id.as_deref().zip(*chunk_index).map(|(stream, index)| {
                fields.text(Some(stream)).text(Some(index));
                created_at
            })
        }
        Detail::Other => None,
    };
    let time = own.unwrap_or_else(|| {
        fields.bytes(&Sha256::digest(body));
        created_at
    });
    fields.id(time.and_then(unix_ms).unwrap_or(0))
}

/// The id of authentic bytes that are not an event.
#[must_use]
pub fn quarantine_id(endpoint: &str, body: &[u8]) -> Uuid {
    let mut fields = Fields::new(endpoint);
    fields.bytes(&Sha256::digest(body));
    fields.id(0)
}

/// Unix milliseconds of an RFC 3339 date and time, rounded down; absent when it is not one.
///
/// The grammar is the RFC's own, with `T` and `Z` in either case; of the other separators that its section 5.6 leaves to
/// applications none is taken.
#[must_use]
pub fn unix_ms(text: &str) -> Option<i64> {
    // The time crate takes any byte as the separator.
    if !matches!(text.as_bytes().get(10), Some(b'T' | b't')) {
        return None;
    }
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    i64::try_from(time.unix_timestamp_nanos().div_euclid(1_000_000)).ok()
}

/// The hash over the fields, as they are added.
struct Fields(Sha256);

impl Fields {
    fn new(endpoint: &str) -> Self {
        let mut fields = Self(Sha256::new());
        fields.text(Some(SCHEME)).text(Some(endpoint));
        fields
    }

    fn text(&mut self, field: Option<&str>) -> &mut Self {
        match field {
            Some(text) => self.bytes(text.as_bytes()),
            None => {
                self.0.update(ABSENT.to_be_bytes());
                self
            }
        }
    }

    fn bytes(&mut self, field: &[u8]) -> &mut Self {
        // No body, and so no field of one, is anywhere near 4 GiB.
        let length = u32::try_from(field.len()).unwrap_or(ABSENT - 1);
        self.0.update(length.to_be_bytes());
        self.0.update(field);
        self
    }

    fn id(self, unix_ms: i64) -> Uuid {
        let mut id = [0; 16];
        id[..6].copy_from_slice(&unix_ms.to_be_bytes()[2..]);
        id[6..].copy_from_slice(&self.0.finalize()[..10]);
        Uuid::new_v8(id)
    }
}
