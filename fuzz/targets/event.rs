//! The event parser against a full JSON parser.
#![no_main]

use finhook::event::parse::{Detail, FinEvent, NotAnEvent};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|body: &[u8]| {
    let read = FinEvent::parse(body);
    // A full parser refuses some of what is grammatical: lone surrogates, deep nesting, numbers out of range.
    let full = serde_json::from_slice::<Value>(body);
    let map = match (&read, &full) {
        (Err(NotAnEvent::NotUtf8), _) => return assert!(str::from_utf8(body).is_err()),
        (Err(NotAnEvent::NotAnObject), Ok(value)) => return assert!(!value.is_object()),
        (Ok(_), Err(_)) => return assert!(serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok()),
        (Err(_), Err(_)) => return,
        (_, Ok(value)) => value.as_object().expect("only an object is an event, or nearly one"),
    };
    let name = map.get("event_name");
    let event = match read {
        Err(NotAnEvent::Unnamed) => return assert!(name.is_none()),
        Err(NotAnEvent::BadName) => return assert!(name.and_then(Value::as_str).is_none_or(str::is_empty)),
        Err(_) => return assert!(name.is_some()),
        Ok(event) => event,
    };
    let text = |key| map.get(key).and_then(Value::as_str);
    let message = map.get("message").unwrap_or(&Value::Null);
    assert_eq!(Some(&*event.name), name.and_then(Value::as_str));
    assert_eq!(event.conversation_id.as_deref(), text("conversation_id"));
    assert_eq!(event.user_id.as_deref(), text("user_id"));
    assert_eq!(event.created_at.as_deref(), text("created_at_ms"));
    assert_eq!(event.status.as_deref(), text("status"));
    assert_eq!(event.reason.as_deref(), text("reason"));
    assert_eq!(event.message_id.as_deref(), message["id"].as_str());
    let kind = match event.detail {
        Detail::Replied { timestamp } => {
            assert_eq!(timestamp.as_deref(), message["timestamp_ms"].as_str());
            "fin_replied"
        }
        Detail::ReplyChunk { stream_id, chunk_index } => {
            assert_eq!(stream_id.as_deref(), text("stream_id"));
            if let Some(index) = map.get("chunk_index").and_then(Value::as_u64) {
                assert_eq!(chunk_index, Some(index.to_string().as_str()));
            }
            assert!(chunk_index.is_none_or(|index| index.bytes().all(|byte| byte.is_ascii_digit())));
            "fin_reply_chunk"
        }
        Detail::StatusUpdated => "fin_status_updated",
        Detail::CsatRequested => "csat_requested",
        Detail::Other => {
            let known = ["fin_replied", "fin_reply_chunk", "fin_status_updated", "csat_requested"];
            return assert!(!known.contains(&&*event.name));
        }
    };
    assert_eq!(event.name, kind);
});
