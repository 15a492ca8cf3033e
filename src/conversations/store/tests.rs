#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::event::{Event, Fields, Parts};

fn stored(seq: u64, conversation: Option<u8>, status: Option<&str>, created_ms: i64) -> Stored {
    let text = |text: String| Some(text.into_boxed_str());
    let fields = Fields {
        event_name: text(format!("event-{}", seq % 3)),
        conversation_id: conversation.and_then(|n| text(format!("c{n}"))),
        status: status.map(Into::into),
        reason: status.and_then(|status| text(format!("why {status} {seq}"))),
        ..Fields::default()
    };
    let endpoint = if seq.is_multiple_of(4) { "fin" } else { "other" };
    let event = Event::from_journal(Parts {
        id: Uuid::from_u128(u128::from(seq)),
        kind: Kind::Event,
        endpoint: Arc::from(endpoint),
        received_ms: 1000 + seq.cast_signed(),
        created_ms,
        fields,
        content_type: None,
        signature: None,
        body: Bytes::new(),
    });
    Stored { seq, event }
}

/// How conversations stand, one event after the other.
fn plain(events: &[Stored]) -> Vec<Conversation> {
    let mut all: Vec<Conversation> = Vec::new();
    for it in events {
        let (event, fields) = (&it.event, &it.event.fields);
        let Some(id) = fields.conversation_id.as_deref() else { continue };
        let at = if event.created_ms > 0 { event.created_ms } else { event.received_ms };
        let known = all.iter_mut().find(|known| known.id == id && *known.endpoint == *event.endpoint);
        let known = match known {
            Some(known) => known,
            None => {
                let (endpoint, last_event) = (event.endpoint.to_string(), String::new());
                let (state, reason, awaiting_ms) = (None, None, None);
                let (number, id, first_ms, last_ms, events) = (0, id.to_owned(), at, at, 0);
                let new = Conversation {
                    number,
                    endpoint,
                    id,
                    state,
                    reason,
                    last_event,
                    first_ms,
                    last_ms,
                    events,
                    awaiting_ms,
                };
                all.push(new);
                all.last_mut().unwrap()
            }
        };
        known.events += 1;
        (known.first_ms, known.last_ms) = (known.first_ms.min(at), known.last_ms.max(at));
        known.last_event = fields.event_name.as_deref().unwrap().to_owned();
        if let Some(status) = fields.status.as_deref() {
            let was = known.state.as_deref() == Some(AWAITING);
            known.awaiting_ms = (status == AWAITING).then(|| known.awaiting_ms.filter(|_| was).unwrap_or(at));
            known.state = Some(status.to_owned());
            known.reason = fields.reason.as_deref().map(str::to_owned);
        }
    }
    all.sort_by(|a, b| (&a.id, &a.endpoint).cmp(&(&b.id, &b.endpoint)));
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However the events are cut into pages, and whatever is deleted of them in the end.
    #[test]
    fn pages_of_any_size_come_to_the_same_as_one_event_after_the_other(
        said in prop::collection::vec((prop::option::weighted(0.9, 0..4_u8), 0..5_usize, 0..50_i64), 1..60),
        cuts in prop::collection::vec(1..9_usize, 1..60), deleted in any::<u64>(),
    ) {
        let statuses = [None, Some(AWAITING), Some(AWAITING), Some("escalated"), Some("complete")];
        let events: Vec<_> = said.iter().zip(1..)
            .map(|((conversation, status, at), seq)| stored(seq, *conversation, statuses[*status], *at)).collect();
        let folder = tempfile::tempdir().unwrap();
        let file = Open::at(&folder.path().join("c")).unwrap();
        let (mut rest, mut cuts) = (&events[..], cuts.iter().cycle());
        while let Some(last) = rest.get(..*cuts.next().unwrap()).unwrap_or(rest).last() {
            let page = rest.iter().position(|it| it.seq == last.seq).unwrap() + 1;
            file.take(&rest[..page], last.seq, last.event.id).unwrap();
            rest = &rest[page..];
        }
        prop_assert_eq!(file.position().unwrap(), events.last().map(|last| (last.seq, last.event.id)));
        let mut found = file.list(&Filter::default(), None, 1000).unwrap().conversations;
        found.sort_by(|a, b| (&a.id, &a.endpoint).cmp(&(&b.id, &b.endpoint)));
        let numbers: Vec<i64> = found.iter_mut().map(|it| std::mem::take(&mut it.number)).collect();
        prop_assert_eq!(&found, &plain(&events));

        let is_deleted = |seq: u64| deleted >> (seq % 64) & 1 == 1;
        let members = file.members((i64::MIN, 0), 1000).unwrap();
        let gone: Vec<_> = members.iter().copied().filter(|(_, seq)| is_deleted(*seq)).collect();
        file.forget(&gone).unwrap();
        for (number, it) in numbers.into_iter().zip(&found) {
            let left: Vec<u64> = events.iter()
                .filter(|e| e.event.fields.conversation_id.as_deref() == Some(&it.id) && *e.event.endpoint == it.endpoint)
                .map(|e| e.seq).filter(|seq| !is_deleted(*seq)).collect();
            prop_assert_eq!(file.events(number, 0, 1000).unwrap(), left.clone());
            let now = file.find(&it.id, Some(&it.endpoint)).unwrap();
            prop_assert_eq!(now.first().map(|now| now.events), Some(left.len() as u64).filter(|n| *n > 0));
        }
    }
}

#[test]
fn a_page_is_bounded_in_bytes_and_the_next_goes_on_behind_it() {
    let long = |seq: u64| {
        let mut parts = stored(seq, Some(0), None, 1).event.into_parts();
        parts.fields.conversation_id = Some(format!("{seq}{}", "x".repeat(1024 * 1024)).into());
        Stored { seq, event: Event::from_journal(parts) }
    };
    let events: Vec<_> = (1..=10).map(long).collect();
    let folder = tempfile::tempdir().unwrap();
    let file = Open::at(&folder.path().join("c")).unwrap();
    file.take(&events, 10, Uuid::nil()).unwrap();
    let (mut from, mut sizes) = (None, Vec::new());
    loop {
        let page = file.list(&Filter::default(), from, 1000).unwrap();
        sizes.push(page.conversations.len());
        from = page.next;
        if from.is_none() {
            break;
        }
    }
    assert_eq!(sizes, [4, 4, 2]);
}
