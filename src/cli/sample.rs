//! Sample events, in the shapes of the Fin Agent API and of classic Intercom webhooks.

use crate::clock;
use crate::event::names;
use crate::verify::Scheme;
use serde_json::{Value, json};

/// Makes events of which no two are the same, neither in one run nor in two.
pub(super) struct Samples {
    scheme: Scheme,
    event: String,
    conversation: String,
    last_ms: i64,
}

impl Samples {
    pub(super) fn new(scheme: Scheme, event: String, conversation: String) -> Self {
        Self { scheme, event, conversation, last_ms: 0 }
    }

    /// The next event's body. `now_ms` is its time, or the next free millisecond: some events are told apart by it alone.
    pub(super) fn next(&mut self, now_ms: i64) -> Vec<u8> {
        self.last_ms = now_ms.max(self.last_ms + 1);
        if self.scheme == Scheme::Intercom {
            return self.notification();
        }
        let at = clock::rfc3339(self.last_ms);
        let mut event = json!({
            "event_name": self.event,
            "conversation_id": self.conversation,
            "user_id": "finhook-sample-user",
            "created_at_ms": at,
        });
        let own = match self.event.as_str() {
            names::REPLIED => json!({
                "message": {
                    "id": uuid::Uuid::new_v4().to_string(),
                    "author": "fin",
                    "body": "<p>You can change your plan under <b>Settings → Billing</b>. Does that help?</p>",
                    "timestamp_ms": at,
                },
                "status": "awaiting_user_reply",
            }),
            names::STATUS_UPDATED => json!({ "status": "escalated", "reason": "Escalation requested by user" }),
            names::CSAT_REQUESTED => json!({
                "csat": { "options": [
                    { "key": "terrible", "emoji": "😠", "label": "Terrible" },
                    { "key": "bad", "emoji": "🙁", "label": "Bad" },
                    { "key": "ok", "emoji": "😐", "label": "OK" },
                    { "key": "good", "emoji": "😃", "label": "Great" },
                    { "key": "amazing", "emoji": "🤩", "label": "Amazing" },
                ] },
            }),
            names::REPLY_CHUNK => json!({
                "stream_id": uuid::Uuid::new_v4().to_string(),
                "chunk_index": 0,
                "chunk_text": "You can change your plan",
                "status": "replying",
            }),
            _ => json!({}),
        };
        if let (Value::Object(event), Value::Object(own)) = (&mut event, own) {
            event.extend(own);
            if self.event == names::REPLY_CHUNK {
                event.remove("user_id");
            }
        }
        event.to_string().into_bytes()
    }

    /// A classic webhook: what comes when a person replies, under whatever topic.
    fn notification(&self) -> Vec<u8> {
        let seconds = self.last_ms / 1000;
        let topic = if self.event == names::REPLIED { names::ADMIN_REPLIED } else { &self.event };
        let notification = json!({
            "type": "notification_event",
            "id": format!("notif_{}", uuid::Uuid::new_v4()),
            "topic": topic,
            "app_id": "finhook-sample",
            "created_at": seconds,
            "first_sent_at": seconds,
            "delivery_attempts": 1,
            "data": { "type": "notification_event_data", "item": {
                "type": "conversation",
                "id": self.conversation,
                "contacts": { "type": "contact.list", "contacts": [
                    { "type": "contact", "id": "finhook-sample-contact", "external_id": "finhook-sample-user" },
                ] },
                "conversation_parts": { "type": "conversation_part.list", "conversation_parts": [{
                    "type": "conversation_part",
                    "id": uuid::Uuid::new_v4().to_string(),
                    "part_type": "comment",
                    "body": "<p>Hello, this is a person. I have changed your plan.</p>",
                    "created_at": seconds,
                    "author": { "type": "admin", "id": "1", "name": "Sample admin" },
                }] },
            } },
        });
        notification.to_string().into_bytes()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn no_two_samples_have_the_same_time_even_in_one_millisecond() {
        let now = 1_737_712_800_000;
        let mut samples = Samples::new(Scheme::Fin, "fin_status_updated".into(), "c".into());
        let mut time = || {
            let event: Value = serde_json::from_slice(&samples.next(now)).unwrap();
            event["created_at_ms"].as_str().unwrap().to_owned()
        };
        assert_eq!(time(), "2025-01-24T10:00:00.000Z");
        assert_eq!(time(), "2025-01-24T10:00:00.001Z");
    }
}
