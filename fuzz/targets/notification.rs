//! A classic webhook against a full parser's reading of it; another attempt of it is the same event.
#![no_main]

use std::sync::LazyLock;

use bytes::Bytes;
use finhook::event::notification::Notification;
use finhook::event::{Event, Kind};
use finhook::verify::{Keyring, Scheme, Signature};
use libfuzzer_sys::fuzz_target;
use secrecy::SecretString;
use serde_json::Value;

static SECRET: LazyLock<SecretString> = LazyLock::new(|| "the app's client secret".into());
static KEYRING: LazyLock<Keyring> = LazyLock::new(|| Keyring::of(Scheme::Intercom, std::slice::from_ref(&*SECRET)));

fuzz_target!(|body: &[u8]| {
    let event = receive(body);
    assert_eq!(event.body, body);
    assert_eq!(event.kind == Kind::Quarantined, Notification::parse(body).is_err());
    assert_eq!(event.defect(), Notification::parse(body).err());
    let Ok(meaning) = serde_json::from_slice::<Value>(body) else { return };
    if event.kind == Kind::Quarantined {
        return;
    }
    assert_eq!(event.fields.event_name.as_deref(), meaning["topic"].as_str());
    let item = &meaning["data"]["item"];
    assert!(item.is_object());
    let place = if item["type"] == "conversation" { &item["id"] } else { &item["conversation_id"] };
    if let Some(id) = place.as_str() {
        assert_eq!(event.fields.conversation_id.as_deref(), Some(id).filter(|id| !id.is_empty()));
    }
    // The next attempt has other bytes. `data.item` is written again as it stood only where a full parser keeps it so.
    if meaning["id"].as_str().is_some_and(|id| !id.is_empty()) {
        let mut again = meaning.clone();
        again["delivery_attempts"] = 2.into();
        let again = receive(&serde_json::to_vec(&again).expect("JSON"));
        if again.created_ms == event.created_ms && again.fields.conversation_id == event.fields.conversation_id {
            assert_eq!(again.id, event.id);
        }
    }
});

fn receive(body: &[u8]) -> Event {
    let signature =
        Signature::parse_hub(Scheme::Intercom.sign(&SECRET, body).as_bytes()).expect("a signature of our own");
    let verified = KEYRING.verify(&signature, Bytes::copy_from_slice(body)).expect("our own signature");
    Event::receive(verified, "inbox".into(), 1_800_000_000_000, i64::MAX, None, Some(signature.into_sent()))
}
