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
//! Of a classic Intercom webhook, whose bytes differ from attempt to attempt, `finhook/1`, the endpoint's name and `topic`
//! are followed by the conversation's id and the notification's `id`; where it has none by `created_at` and the SHA-256 of
//! `data.item`, so that two acts in the same second stay two events. Its time is `created_at`.
//!
//! An absent `conversation_id` counts as an absent field, too: without it, the rest would not tell two events apart.
//! Strings are hashed as decoded from JSON, times as they were sent. A time that is absent or not RFC 3339 is 0.

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::notification::Notification;
use super::parse::{Detail, FinEvent};
use crate::clock;

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
    fields.id(time.and_then(clock::parse).unwrap_or(0))
}

/// The id of a classic webhook's event: the same at each attempt.
#[must_use]
pub fn notification_id(endpoint: &str, read: &Notification<'_>) -> Uuid {
    let mut fields = Fields::new(endpoint);
    fields.text(Some(&read.topic)).text(read.conversation_id.as_deref());
    match &read.id {
        Some(id) => fields.text(Some(id)),
        None => fields.text(read.created_at).bytes(&Sha256::digest(read.item)),
    };
    fields.id(read.created_ms().unwrap_or(0))
}

/// The id of authentic bytes that are not an event.
#[must_use]
pub fn quarantine_id(endpoint: &str, body: &[u8]) -> Uuid {
    let mut fields = Fields::new(endpoint);
    fields.bytes(&Sha256::digest(body));
    fields.id(0)
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::{event_id, quarantine_id};
    use crate::event::parse::FinEvent;

    const CREATED: &str = "2025-01-24T10:00:00.123Z";
    const SENT: &str = "2025-01-24T09:59:59.987Z";

    fn id(body: &str) -> String {
        id_at("fin", body)
    }

    fn id_at(endpoint: &str, body: &str) -> String {
        event_id(endpoint, &FinEvent::parse(body.as_bytes()).unwrap(), body.as_bytes()).to_string()
    }

    // The ids below were computed with Python's hashlib and uuid:
    //
    //   h = hashlib.sha256()
    //   for f in ["finhook/1", "fin", event_name, conversation_id, ...]:   # encoded as UTF-8
    //       h.update(b"\xff" * 4 if f is None else len(f).to_bytes(4, "big") + f)
    //   b = bytearray((ms & (1 << 48) - 1).to_bytes(6, "big") + h.digest()[:10])
    //   b[6] = b[6] & 0x0f | 0x80; b[8] = b[8] & 0x3f | 0x80; uuid.UUID(bytes=bytes(b))
    //
    // CREATED is 1737712800123 ms, SENT 1737712799987 ms.

    #[test]
    fn a_reply_is_identified_by_its_message_and_status() {
        let replied = |more: &str, message: &str| {
            id(&format!(
                r#"{{"event_name":"fin_replied","conversation_id":"123456","created_at_ms":"{CREATED}","message":{{{message}}}{more}}}"#
            ))
        };
        let complete = r#","status":"complete""#;
        let sent = format!(r#""id":"msg_1","timestamp_ms":"{SENT}""#);
        assert_eq!(replied(complete, &sent), "019497c1-10f3-8be9-9813-37ba266bc988");
        // Nothing else of it matters, nor how it is written.
        let rewritten = format!(r#""body":"<p>Hi</p>","timestamp_ms" : "{SENT}","id":"\u006dsg_1""#);
        assert_eq!(replied(complete, &rewritten), "019497c1-10f3-8be9-9813-37ba266bc988");
        assert_eq!(replied("", &sent), "019497c1-10f3-8eed-9f31-8f6324808e83", "without a status");
        let unsent = r#""id":"msg_1""#;
        assert_eq!(replied(complete, unsent), "019497c1-117b-8be9-9813-37ba266bc988", "created_at_ms's time");
        let invalid = r#""id":"msg_1","timestamp_ms":"yesterday""#;
        assert_eq!(replied(complete, invalid), "00000000-0000-8be9-9813-37ba266bc988", "an invalid time is 0");
        let odd = r#""id":"msg_1","timestamp_ms":1737712799987"#;
        assert_eq!(replied(complete, odd), "019497c1-117b-8be9-9813-37ba266bc988", "a number is absent");
    }

    #[test]
    fn a_reply_without_a_message_id_is_identified_by_its_body() {
        assert_eq!(
            id(
                r#"{"event_name":"fin_replied","conversation_id":"123456","status":"complete","created_at_ms":"2025-01-24T10:00:00.123Z","message":{"timestamp_ms":"2025-01-24T09:59:59.987Z"}}"#
            ),
            "019497c1-117b-82d1-ab3b-030eaaa2a24b"
        );
    }

    #[test]
    fn a_status_is_identified_by_its_time_and_value() {
        let status = |more: &str| {
            id(&format!(
                r#"{{"event_name":"fin_status_updated","conversation_id":"123456","created_at_ms":"{CREATED}"{more}}}"#
            ))
        };
        assert_eq!(status(r#","status":"escalated""#), "019497c1-117b-8e1a-89eb-57e5438e2372");
        assert_eq!(
            status(r#","reason":"Routed to team","status":"escalated""#),
            "019497c1-117b-8e1a-89eb-57e5438e2372"
        );
        assert_eq!(status(""), "019497c1-117b-8d25-b7da-eb43638d9836", "without a status");
        assert_eq!(
            id(r#"{"event_name":"fin_status_updated","conversation_id":"123456","status":"escalated"}"#),
            "00000000-0000-8048-ad5e-0830ceb7cc20",
            "without a time, by its body"
        );
    }

    #[test]
    fn a_rating_request_is_identified_by_its_time() {
        let csat = |conversation: &str, time: &str| {
            id(&format!(
                r#"{{"event_name":"csat_requested","conversation_id":"{conversation}","created_at_ms":"{time}"}}"#
            ))
        };
        // The time is hashed as it was sent: an offset and more digits make another event.
        assert_eq!(csat("fin:test:ü", "2025-01-24T11:00:00.1239+01:00"), "019497c1-117b-8fdf-9277-00c41aec1440");
        assert_eq!(csat("fin:test:ü", "yesterday"), "00000000-0000-8585-a72d-69353766ef5e");
        assert_eq!(csat("123456", "1969-12-31T23:59:59.999Z"), "ffffffff-ffff-88f9-9604-e10b48f77e90");
        assert_eq!(csat("123456", "9999-12-31T23:59:59.999Z"), "e677d21f-dbff-8836-9775-dc0535385d53");
        assert_eq!(
            id(r#"{"event_name":"csat_requested","created_at_ms":"2025-01-24T10:00:00.123Z"}"#),
            "019497c1-117b-85e5-8db4-787f13897157",
            "without a conversation, by its body"
        );
        let body =
            format!(r#"{{"event_name":"csat_requested","conversation_id":"123456","created_at_ms":"{CREATED}"}}"#);
        assert_eq!(id_at("fin_eu", &body), "019497c1-117b-8eff-8952-8820df7e6af5", "on another endpoint");
    }

    #[test]
    fn a_chunk_is_identified_by_its_place_in_the_stream() {
        let chunk = |index: &str| {
            id(&format!(
                r#"{{"event_name":"fin_reply_chunk","conversation_id":"123456","stream_id":"stream_1","chunk_index":{index},"created_at_ms":"{CREATED}"}}"#
            ))
        };
        assert_eq!(chunk("17"), "019497c1-117b-86cc-914f-3ad00d2efb92");
        assert_eq!(chunk("1.0"), "019497c1-117b-8049-8cf9-8a61b39ae19d", "not an integer as written: by its body");
    }

    #[test]
    fn an_unknown_event_is_identified_by_its_body() {
        assert_eq!(
            id(r#"{"event_name":"fin_sneezed","conversation_id":"123456","created_at_ms":"2025-01-24T10:00:00.123Z"}"#),
            "019497c1-117b-8bc8-92df-8602bd92db4a"
        );
    }

    #[test]
    fn quarantined_bytes_are_identified_by_themselves() {
        assert_eq!(quarantine_id("fin", b"not an event").to_string(), "00000000-0000-8d0a-a2e4-ade9e63a459e");
        assert_eq!(quarantine_id("fin", b"").to_string(), "00000000-0000-8861-b466-a8bea1779c26");
        assert_ne!(quarantine_id("fin", b""), quarantine_id("fin_eu", b""));
    }

    #[test]
    fn every_id_is_an_rfc_9562_uuid_of_version_8() {
        for n in 0..1000 {
            let id = quarantine_id("fin", format!("{n}").as_bytes());
            assert_eq!((id.get_version_num(), id.get_variant()), (8, uuid::Variant::RFC4122));
        }
    }

    proptest! {
        #[test]
        fn moving_a_byte_from_one_field_to_the_next_makes_another_id(a in "[a-z]{1,8}", b in "[a-z]{1,8}") {
            let body = |message: &str, status: &str| id(&format!(
                r#"{{"event_name":"fin_replied","conversation_id":"1","message":{{"id":"{message}"}},"status":"{status}"}}"#
            ));
            let (head, tail) = a.split_at(a.len() - 1);
            prop_assert_ne!(body(&a, &b), body(head, &format!("{tail}{b}")));
        }
    }
}
