//! What becomes of verified bytes, and the hashes over an event.

#![allow(clippy::unwrap_used)]

use std::collections::HashSet;

use bytes::Bytes;
use uuid::Uuid;

use super::parse::NotAnEvent;
use super::{Event, Fields, Kind, Parts};
use crate::verify::{Keyring, Signature, Verified, sign};

const DAY: i64 = 24 * 60 * 60 * 1000;
const WINDOW: i64 = 90 * DAY;
/// 2025-01-24T10:00:00.123Z
const CREATED: i64 = 1_737_712_800_123;

/// The way that every event of a webhook takes.
fn verified(body: &'static [u8]) -> Verified {
    let secret = "the signing secret".into();
    let signature = Signature::parse(sign(&secret, body).as_bytes()).unwrap();
    Keyring::new(&[secret]).verify(&signature, Bytes::from_static(body)).unwrap()
}

fn receive(body: &'static [u8], received_ms: i64) -> Event {
    let content_type = Some("application/json".into());
    Event::receive(verified(body), "fin".into(), received_ms, WINDOW, content_type, Some("sha256=00".into()))
}

const ESCALATED: &[u8] =
    br#"{"event_name":"fin_status_updated","conversation_id":"123456","user_id":"7891","status":"escalated",
 "reason":"Escalation requested by user","created_at_ms":"2025-01-24T10:00:00.123Z"}"#;

#[test]
fn an_event_has_its_fields_its_id_and_its_very_bytes() {
    let event = receive(ESCALATED, CREATED + 17);
    assert_eq!(event.kind, Kind::Event);
    assert_eq!(event.id.to_string(), "019497c1-117b-8e1a-89eb-57e5438e2372");
    assert_eq!((&*event.endpoint, event.received_ms, event.created_ms), ("fin", CREATED + 17, CREATED));
    let fields = Fields {
        event_name: Some("fin_status_updated".into()),
        conversation_id: Some("123456".into()),
        user_id: Some("7891".into()),
        created_at: Some("2025-01-24T10:00:00.123Z".into()),
        status: Some("escalated".into()),
        reason: Some("Escalation requested by user".into()),
        message_id: None,
    };
    assert_eq!(event.fields, fields);
    assert_eq!(event.content_type.as_deref(), Some("application/json"));
    assert_eq!(event.signature.as_deref(), Some("sha256=00"));
    assert_eq!(event.body, ESCALATED);
    assert_eq!(event.defect(), None);
}

#[test]
fn an_event_older_than_the_dedupe_window_is_stale_with_the_same_id() {
    let fresh = receive(ESCALATED, CREATED + WINDOW);
    assert_eq!(fresh.kind, Kind::Event, "as old as the window is not older");
    let stale = receive(ESCALATED, CREATED + WINDOW + 1);
    assert_eq!(stale.kind, Kind::Stale);
    assert_eq!((stale.id, &stale.fields, &stale.body), (fresh.id, &fresh.fields, &fresh.body));
}

#[test]
fn an_event_of_the_future_is_not_stale() {
    assert_eq!(receive(ESCALATED, i64::MIN).kind, Kind::Event);
    assert_eq!(receive(ESCALATED, 0).kind, Kind::Event);
}

#[test]
fn an_event_without_a_valid_time_is_never_stale() {
    for body in [
        &br#"{"event_name":"csat_requested","conversation_id":"1"}"#[..],
        br#"{"event_name":"csat_requested","conversation_id":"1","created_at_ms":1737712800123}"#,
        br#"{"event_name":"csat_requested","conversation_id":"1","created_at_ms":"yesterday"}"#,
    ] {
        let event = receive(body, i64::MAX);
        assert_eq!((event.kind, event.created_ms), (Kind::Event, 0));
    }
    let epoch = br#"{"event_name":"csat_requested","conversation_id":"1","created_at_ms":"1970-01-01T00:00:00Z"}"#;
    assert_eq!(receive(epoch, CREATED).kind, Kind::Stale, "a valid time of 0 is a time");
}

#[test]
fn authentic_bytes_that_are_no_event_are_quarantined_untouched() {
    for (body, reason) in [
        (&b""[..], NotAnEvent::NotAnObject),
        (b"\xff\0", NotAnEvent::NotUtf8),
        (br#"{"conversation_id":"123456"}"#, NotAnEvent::Unnamed),
    ] {
        let event = receive(body, CREATED);
        assert_eq!((event.kind, &event.body[..], event.created_ms), (Kind::Quarantined, body, 0));
        assert_eq!(event.fields, Fields::default());
        assert_eq!(event.defect(), Some(reason));
        assert_eq!(event.id, receive(body, CREATED + DAY).id, "the same bytes are one entry");
    }
}

#[test]
fn what_came_by_a_subscription_has_the_id_it_would_have_by_webhook() {
    let webhook = receive(ESCALATED, CREATED);
    let verified = Verified::from_subscription(Bytes::from_static(ESCALATED));
    let subscription = Event::receive(verified, "fin".into(), CREATED, WINDOW, None, None);
    assert_eq!((webhook.id, &webhook.fields), (subscription.id, &subscription.fields));
}

fn parts() -> Parts {
    receive(ESCALATED, CREATED).into_parts()
}

fn changed(change: impl FnOnce(&mut Parts)) -> Event {
    let mut parts = parts();
    change(&mut parts);
    Event::from_journal(parts)
}

#[test]
fn a_conversation_of_an_endpoint_is_one_lane() {
    let lane = receive(ESCALATED, CREATED).lane();
    assert_eq!(changed(|it| it.body = Bytes::new()).lane(), lane);
    assert_eq!(changed(|it| it.id = Uuid::nil()).lane(), lane);
    assert_ne!(changed(|it| it.endpoint = "fin_eu".into()).lane(), lane);
    assert_ne!(changed(|it| it.fields.conversation_id = Some("123457".into())).lane(), lane);
    let split = |endpoint: &str, conversation: &str| {
        changed(|it| {
            it.endpoint = endpoint.into();
            it.fields.conversation_id = Some(conversation.into());
        })
        .lane()
    };
    assert_ne!(split("a", "bc"), split("ab", "c"));
}

#[test]
fn events_without_a_conversation_have_lanes_of_their_own() {
    let lane = |id: u128| {
        changed(|it| {
            it.id = Uuid::from_u128(id);
            it.fields.conversation_id = None;
        })
        .lane()
    };
    assert_eq!(lane(1), lane(1));
    assert_ne!(lane(1), lane(2));
    assert_ne!(lane(1), changed(|it| it.fields.conversation_id = Some("".into())).lane());
}

type Change = Box<dyn FnOnce(&mut Parts)>;
type Place = fn(&mut Fields) -> &mut Option<Box<str>>;

#[test]
fn the_checksum_covers_everything_that_is_stored() {
    let sum = Event::from_journal(parts()).checksum();
    assert_eq!(sum, receive(ESCALATED, CREATED).checksum());
    let mut sums = HashSet::from([sum]);
    let mut changes: Vec<Change> = vec![
        Box::new(|it| it.id = Uuid::nil()),
        Box::new(|it| it.kind = Kind::Stale),
        Box::new(|it| it.kind = Kind::Quarantined),
        Box::new(|it| it.endpoint = "fim".into()),
        Box::new(|it| it.received_ms += 1),
        Box::new(|it| it.created_ms += 1),
        Box::new(|it| it.content_type = None),
        Box::new(|it| it.content_type = Some("".into())),
        Box::new(|it| it.signature = None),
        Box::new(|it| it.signature = Some("sha256=01".into())),
        Box::new(|it| it.body = Bytes::new()),
    ];
    let places: [Place; 7] = [
        |it| &mut it.event_name,
        |it| &mut it.conversation_id,
        |it| &mut it.user_id,
        |it| &mut it.created_at,
        |it| &mut it.status,
        |it| &mut it.reason,
        |it| &mut it.message_id,
    ];
    for place in places {
        for value in [None, Some(""), Some("other")] {
            let unchanged = value.map(Box::from) == *place(&mut parts().fields);
            if !unchanged {
                changes.push(Box::new(move |it| *place(&mut it.fields) = value.map(Box::from)));
            }
        }
    }
    let expected = changes.len() + 1;
    sums.extend(changes.into_iter().map(|change| changed(change).checksum()));
    assert_eq!(sums.len(), expected, "two different events have the same checksum");
}

#[test]
fn the_checksum_tells_where_one_text_ends_and_the_next_begins() {
    let sum = |status: &str, reason: &str| {
        changed(|it| {
            it.fields.status = Some(status.into());
            it.fields.reason = Some(reason.into());
        })
        .checksum()
    };
    assert_ne!(sum("ab", "c"), sum("a", "bc"));
}

#[test]
fn a_flip_of_any_bit_of_the_body_changes_both_hashes() {
    let event = receive(ESCALATED, CREATED);
    for bit in 0..ESCALATED.len() * 8 {
        let mut body = ESCALATED.to_vec();
        body[bit / 8] ^= 1 << (bit % 8);
        let flipped = changed(|it| it.body = body.into());
        assert_ne!(flipped.body_hash(), event.body_hash(), "bit {bit}");
        assert_ne!(flipped.checksum(), event.checksum(), "bit {bit}");
    }
}

/// Stored hashes are compared with new ones after an update: their values must never change. These were computed from
/// the formats in the documentation with the Python package xxhash.
#[test]
fn lane_and_checksum_are_the_same_in_every_version() {
    let event = receive(ESCALATED, CREATED);
    assert_eq!(event.lane(), 7_547_493_674_963_769_027);
    assert_eq!(event.body_hash(), 5_014_817_153_583_534_033);
    assert_eq!(event.checksum(), 4_341_284_505_745_854_778);
}

#[test]
fn debug_output_shows_nothing_of_body_and_signature() {
    let shown = format!("{:?}", receive(ESCALATED, CREATED));
    assert!(shown.contains("019497c1-117b-8e1a-89eb-57e5438e2372"), "{shown}");
    for hidden in ["123456", "7891", "Escalation", "sha256", "event_name"] {
        assert!(!shown.contains(hidden), "{shown}");
    }
}
