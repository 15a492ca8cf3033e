//! The id of received bytes against a second reading of its definition, slow and plain.
#![no_main]

use std::sync::LazyLock;

use bytes::Bytes;
use finhook::clock;
use finhook::event::{Event, Kind};
use finhook::verify::{Keyring, Signature, sign};
use libfuzzer_sys::fuzz_target;
use secrecy::SecretString;
use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

const RECEIVED_MS: i64 = 1_800_000_000_000;
const WINDOW_MS: i64 = 90 * 24 * 60 * 60 * 1000;

static SECRET: LazyLock<SecretString> = LazyLock::new(|| "the endpoint's signing secret".into());
static KEYRING: LazyLock<Keyring> = LazyLock::new(|| Keyring::new(std::slice::from_ref(&*SECRET)));

fuzz_target!(|body: &[u8]| {
    let event = receive(body);
    assert_eq!(event.body, body);
    assert_eq!(event.checksum(), receive(body).checksum());
    match serde_json::from_slice::<Value>(body) {
        Ok(meaning) if event.kind != Kind::Quarantined => {
            assert_eq!(event.id, expected(&meaning, body));
            let created = meaning["created_at_ms"].as_str().and_then(clock::parse);
            assert_eq!(event.created_ms, created.unwrap_or(0));
            assert_eq!(event.kind == Kind::Stale, created.is_some_and(|ms| ms < RECEIVED_MS - WINDOW_MS));
            // However the same JSON is written, and with whatever else in it, it is the same event, if it has names of
            // its own by which to tell.
            if tells_itself(&meaning) {
                let mut rewritten = meaning.clone();
                rewritten["another_field"] = body.len().into();
                let rewritten = serde_json::to_vec_pretty(&rewritten).expect("JSON");
                assert_eq!(receive(&rewritten).id, event.id);
            }
        }
        // Not an event, or one that a full parser can't read.
        _ if event.kind == Kind::Quarantined => {
            let hash = Sha256::digest(body);
            assert_eq!(event.id, id(0, &[Some(b"finhook/1"), Some(b"fin"), Some(&hash)]));
        }
        _ => assert_eq!(event.id.get_version_num(), 8),
    }
});

fn receive(body: &[u8]) -> Event {
    let signature = Signature::parse(sign(&SECRET, body).as_bytes()).expect("a signature of our own");
    let verified = KEYRING.verify(&signature, Bytes::copy_from_slice(body)).expect("our own signature");
    Event::receive(verified, "fin".into(), RECEIVED_MS, WINDOW_MS, None, Some(signature.into_sent()))
}

fn expected(meaning: &Value, body: &[u8]) -> Uuid {
    let text = |value: &'_ Value| value.as_str().map(str::to_owned);
    let field = |name: &str| text(&meaning[name]);
    let (created, status) = (field("created_at_ms"), field("status"));
    let message_id = text(&meaning["message"]["id"]);
    let mut time = created.clone();
    let own = match meaning["event_name"].as_str().unwrap_or_default() {
        "fin_replied" => vec![message_id, status],
        "fin_status_updated" => vec![created, status],
        "csat_requested" => vec![created],
        "fin_reply_chunk" => vec![field("stream_id"), index(body, meaning)],
        _ => vec![None],
    };
    let named = own[0].is_some()
        && meaning["conversation_id"].is_string()
        && (meaning["event_name"] != "fin_reply_chunk" || own[1].is_some());
    let hash = Sha256::digest(body);
    let texts = [Some("finhook/1".to_owned()), Some("fin".to_owned()), field("event_name"), field("conversation_id")];
    let own = if named { own } else { vec![] };
    let mut fields: Vec<Option<&[u8]>> = texts.iter().chain(&own).map(|it| it.as_deref().map(str::as_bytes)).collect();
    if !named {
        fields.push(Some(&hash));
    } else if meaning["event_name"] == "fin_replied" {
        time = text(&meaning["message"]["timestamp_ms"]).or(time);
    }
    id(time.as_deref().and_then(clock::parse).unwrap_or(0), &fields)
}

/// `chunk_index` as the parser gives it; whether it gives the right one, the target `event` shows.
fn index(body: &[u8], meaning: &Value) -> Option<String> {
    use finhook::event::parse::{Detail, FinEvent};
    match FinEvent::parse(body).map(|event| event.detail) {
        Ok(Detail::ReplyChunk { chunk_index, .. }) => chunk_index.map(str::to_owned),
        _ => meaning["chunk_index"].as_u64().map(|index| index.to_string()),
    }
}

fn tells_itself(meaning: &Value) -> bool {
    meaning["conversation_id"].is_string()
        && match meaning["event_name"].as_str() {
            Some("fin_replied") => meaning["message"]["id"].is_string(),
            Some("fin_status_updated" | "csat_requested") => meaning["created_at_ms"].is_string(),
            Some("fin_reply_chunk") => meaning["stream_id"].is_string() && meaning["chunk_index"].is_u64(),
            _ => false,
        }
}

fn id(ms: i64, fields: &[Option<&[u8]>]) -> Uuid {
    let mut list = Vec::new();
    for field in fields {
        list.extend(field.map_or(u32::MAX, |it| it.len() as u32).to_be_bytes());
        list.extend(field.unwrap_or_default());
    }
    let time = (ms as u64) & 0xffff_ffff_ffff;
    let hash = Sha256::digest(&list);
    let hash = u128::from_be_bytes(hash[..16].try_into().expect("16 bytes")) >> 48;
    let bits = u128::from(time) << 80 | hash;
    let bits = bits & !(0xf << 76) | 8 << 76;
    Uuid::from_u128(bits & !(0b11 << 62) | 0b10 << 62)
}
