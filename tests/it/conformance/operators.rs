//! What operators ask, and purges.

use finhook::clock::now_ms;
use finhook::journal::{
    Appended, Dead, DeliveryState, EventState, Filter, Found, LaneState, Order, Park, Resolved, Settlement,
};
use uuid::Uuid;

use super::{Open, Place, everything};
use crate::support::events::{WINDOW_MS, event, receive};

const BACKEND: &str = "backend";

impl Open {
    /// All pages of a list, with so many rows a page.
    async fn list(&self, filter: &Filter, order: Order, limit: usize) -> Vec<u64> {
        let (mut seqs, mut from) = (Vec::new(), None);
        loop {
            let page = self.reader.list(filter.clone(), order, from, limit, everything()).await.unwrap();
            assert!(page.events.len() <= limit);
            seqs.extend(page.events.iter().map(|listed| listed.seq));
            from = page.next;
            if from.is_none() {
                return seqs;
            }
        }
    }

    /// A sink with one event in each state: 1 delivered, 2 retrying, 3 waiting, 4 dead, 5 pending; and 6, no event at all.
    async fn all_states(&self) {
        let number = self.journal.sink(BACKEND, true).await.unwrap().number;
        for (conversation, number) in [("a", 1), ("b", 1), ("b", 2), ("c", 1), ("d", 1)] {
            self.append(conversation, number..=number).await;
        }
        self.journal.append(receive("no event", now_ms(), WINDOW_MS)).await.unwrap();
        let lane = event("b", 1).lane();
        let state = LaneState { attempts: 2, next_ms: 9, error: Some("busy".into()), ..LaneState::default() };
        let settlement = Settlement {
            cursor: Some(4),
            park: vec![Park { lane, seq: 2 }, Park { lane, seq: 3 }],
            lanes: vec![(lane, state)],
            dead: vec![Dead { seq: 4, attempts: 3, died_ms: 7, error: "gone".into() }],
            ..Settlement::default()
        };
        self.journal.settle(number, settlement.into()).await.unwrap();
    }

    async fn standing(&self, id: Uuid) -> Vec<(DeliveryState, Option<u32>)> {
        match self.reader.find(id, false, everything()).await.unwrap() {
            Some(Found::Stored(_, at)) => at.iter().map(|delivery| (delivery.state, delivery.attempts)).collect(),
            other => panic!("{other:?}"),
        }
    }
}

pub async fn lists_hold_what_the_filter_means_page_by_page_from_either_end(place: Place) {
    let open = place.open();
    open.all_states().await;
    let all = Filter::default();
    for limit in [1, 2, 100] {
        assert_eq!(open.list(&all, Order::Oldest, limit).await, [1, 2, 3, 4, 5, 6]);
        assert_eq!(open.list(&all, Order::Newest, limit).await, [6, 5, 4, 3, 2, 1]);
    }
    let list = async |filter: Filter| open.list(&filter, Order::Oldest, 2).await;
    assert_eq!(list(Filter { conversation: Some("b".into()), ..all.clone() }).await, [2, 3]);
    assert_eq!(list(Filter { user: Some("u".into()), ..all.clone() }).await, [1, 2, 3, 4, 5]);
    assert_eq!(list(Filter { event: Some("fin_replied".into()), ..all.clone() }).await, [1, 2, 3, 4, 5]);
    assert_eq!(list(Filter { event: Some("other".into()), ..all.clone() }).await, [0; 0]);
    assert_eq!(list(Filter { status: Some("complete".into()), ..all.clone() }).await, [1, 2, 3, 4, 5]);
    assert_eq!(list(Filter { status: Some("escalated".into()), ..all.clone() }).await, [0; 0]);
    assert_eq!(list(Filter { state: Some(EventState::Quarantined), ..all.clone() }).await, [6]);
    let later = now_ms() + 1000;
    assert_eq!(list(Filter { since_ms: Some(later), ..all.clone() }).await, [0; 0]);
    assert_eq!(list(Filter { until_ms: Some(later), ..all.clone() }).await.len(), 6);
    for (delivery, expected) in [
        (DeliveryState::Delivered, vec![1]),
        (DeliveryState::Retrying, vec![2]),
        (DeliveryState::Waiting, vec![3]),
        (DeliveryState::Dead, vec![4]),
        (DeliveryState::Pending, vec![5]),
        (DeliveryState::Skipped, vec![6]),
    ] {
        for sink in [None, Some(BACKEND.to_owned())] {
            let filter = Filter { delivery: Some(delivery), sink, ..all.clone() };
            assert_eq!(list(filter).await, expected, "{delivery:?}");
        }
    }
    assert_eq!(list(Filter { sink: Some(BACKEND.into()), ..all.clone() }).await, [1, 2, 3, 4, 5]);
    open.close().await;
}

pub async fn an_event_is_found_with_its_standing_at_every_sink(place: Place) {
    let open = place.open();
    open.all_states().await;
    open.journal.sink("late", false).await.unwrap();
    let skipped = (DeliveryState::Skipped, Some(0));
    assert_eq!(open.standing(event("a", 1).id).await, [(DeliveryState::Delivered, None), skipped]);
    assert_eq!(open.standing(event("b", 1).id).await, [(DeliveryState::Retrying, Some(2)), skipped]);
    assert_eq!(open.standing(event("b", 2).id).await, [(DeliveryState::Waiting, Some(0)), skipped]);
    assert_eq!(open.standing(event("c", 1).id).await, [(DeliveryState::Dead, Some(3)), skipped]);
    assert_eq!(open.standing(event("d", 1).id).await, [(DeliveryState::Pending, Some(0)), skipped]);
    assert!(open.reader.find(Uuid::nil(), true, everything()).await.unwrap().is_none());

    let sent = event("a", 1);
    for with_body in [true, false] {
        let Some(Found::Stored(listed, _)) = open.reader.find(sent.id, with_body, everything()).await.unwrap() else {
            panic!("not found");
        };
        assert_eq!(listed.body_bytes, sent.body.len() as u64);
        assert_eq!(listed.event.body, if with_body { sent.body.clone() } else { Default::default() });
        assert_eq!(listed.event.fields, sent.fields);
    }
    open.close().await;
}

pub async fn ids_are_resolved_in_their_order(place: Place) {
    let open = place.open();
    open.append("c", 1..=2).await;
    open.journal.purge(vec![1]).await.unwrap();
    let ids = vec![event("c", 2).id, Uuid::nil(), event("c", 1).id];
    let body_bytes = event("c", 2).body.len() as u64;
    let stored = Resolved::Stored { seq: 2, state: EventState::Stored, body_bytes };
    assert_eq!(open.reader.resolve(ids).await.unwrap(), [stored, Resolved::Unknown, Resolved::Purged]);
    open.close().await;
}

pub async fn sinks_are_reported_by_name(place: Place) {
    let open = place.open();
    open.all_states().await;
    open.journal.sink("a-late-one", false).await.unwrap();
    let reports = open.reader.sinks().await.unwrap();
    let names: Vec<&str> = reports.iter().map(|report| &*report.state.name).collect();
    assert_eq!(names, ["a-late-one", BACKEND]);
    let backend = &reports[1];
    assert_eq!((backend.state.cursor, backend.parked, backend.dead), (4, 2, 1));
    let Some(Found::Stored(oldest, _)) = open.reader.find(event("b", 1).id, false, everything()).await.unwrap() else {
        panic!("not found");
    };
    assert_eq!(backend.oldest_ms, Some(oldest.event.received_ms));
    assert_eq!((reports[0].oldest_ms, reports[0].parked), (None, 0), "it has nothing to deliver");
    open.close().await;
}

pub async fn a_purge_removes_an_event_everywhere_but_its_id(place: Place) {
    let open = place.open();
    open.all_states().await;
    let number = open.journal.sink(BACKEND, true).await.unwrap().number;
    let bytes: u64 = [event("b", 1), event("c", 1)].iter().map(|event| event.body.len() as u64).sum();
    let removed = open.journal.purge(vec![2, 4]).await.unwrap();
    assert_eq!((removed.events, removed.bytes), (2, bytes));
    open.journal.erase().await.unwrap();
    assert_eq!(open.stored().await, [1, 3, 5, 6]);
    assert_eq!(open.reader.count_parked(number).await.unwrap(), 1);
    assert_eq!(open.reader.sinks().await.unwrap()[0].dead, 0);
    assert!(matches!(
        open.reader.find(event("c", 1).id, true, everything()).await.unwrap(),
        Some(Found::Purged { seq: 4 })
    ));
    let again = open.journal.append(event("c", 1)).await;
    assert_eq!(again, Ok(Appended::Duplicate { same_body: true }), "of its bytes nothing is known any more");

    let (mut purged, mut from) = (Vec::new(), None);
    loop {
        let (page, next) = open.reader.purged(from, 1).await.unwrap();
        purged.extend(page.into_iter().map(|(_, seq)| seq));
        from = next;
        if from.is_none() {
            break;
        }
    }
    purged.sort_unstable();
    assert_eq!(purged, [2, 4]);
    // The newest one's number does not come again, also not after a restart.
    open.journal.purge(vec![5, 6]).await.unwrap();
    open.close().await;
    let open = place.open();
    assert_eq!(open.append("new", 1..=1).await, [7]);
    open.close().await;
}

pub async fn what_is_settled_of_a_purged_event_does_not_bring_it_back(place: Place) {
    let open = place.open();
    let number = open.journal.sink(BACKEND, true).await.unwrap().number;
    open.append("c", 1..=2).await;
    open.journal.purge(vec![1, 2]).await.unwrap();
    let settlement = Settlement {
        park: vec![Park { lane: event("c", 1).lane(), seq: 1 }],
        dead: vec![Dead { seq: 2, attempts: 3, died_ms: 1, error: "no".into() }],
        ..Settlement::default()
    };
    open.journal.settle(number, settlement.into()).await.unwrap();
    let report = &open.reader.sinks().await.unwrap()[0];
    assert_eq!((report.parked, report.dead), (0, 0));
    open.close().await;
}

pub async fn the_oldest_of_a_lane_is_purged_and_the_next_begins_anew(place: Place) {
    let open = place.open();
    open.all_states().await;
    let number = open.journal.sink(BACKEND, true).await.unwrap().number;
    open.journal.purge(vec![2]).await.unwrap();
    let (due, _) = open.reader.due(number, now_ms(), i64::MAX, 10).await.unwrap();
    assert_eq!((due.len(), due[0].lane, &due[0].state), (1, event("b", 2).lane(), &LaneState::default()));
    open.close().await;
}
