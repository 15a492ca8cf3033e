//! Forgetting in time.

use std::time::Duration;

use finhook::clock::now_ms;
use finhook::journal::{Appended, Dead, Park, Settlement};

use super::Place;
use crate::support::events::{body, event, receive};

const SECOND: i64 = 1000;

impl Place {
    /// The same place with other times, in seconds.
    fn keeping(mut self, retention: u64, window: u64) -> Self {
        self.settings.retention = Duration::from_secs(retention);
        self.settings.dedupe_window = Duration::from_secs(window);
        self
    }
}

fn to(cursor: u64) -> Settlement {
    Settlement { cursor: Some(cursor), ..Settlement::default() }
}

pub async fn bodies_stay_until_every_sink_was_done_with_them_for_long_enough(place: Place) {
    let place = place.keeping(100, 1000);
    let open = place.open();
    let fast = open.journal.sink("fast", true).await.unwrap().number;
    let slow = open.journal.sink("slow", true).await.unwrap().number;
    open.append("c", 1..=4).await;
    let mut retention = open.journal.retention(&place.settings).unwrap();
    let start = now_ms();
    let mut expired = async |seconds: i64| retention.pass(start + seconds * SECOND).await.unwrap().events;

    open.journal.settle(fast, to(4).into()).await.unwrap();
    assert_eq!(expired(0).await, 0);
    assert_eq!(expired(500).await, 0, "one sink has nothing yet");
    open.journal.settle(slow, to(3).into()).await.unwrap();
    assert_eq!(expired(600).await, 0, "not long enough");
    assert_eq!(expired(701).await, 3);
    assert_eq!(open.stored().await, [4]);
    assert_eq!(open.journal.append(event("c", 1)).await, Ok(Appended::Duplicate { same_body: true }), "the id stays");
    open.close().await;
}

pub async fn what_is_parked_or_dead_is_kept(place: Place) {
    let place = place.keeping(100, 1000);
    let open = place.open();
    let number = open.journal.sink("backend", true).await.unwrap().number;
    open.append("c", 1..=4).await;
    let dead = Dead { seq: 3, attempts: 3, died_ms: now_ms(), error: "no".into() };
    let park = vec![Park { lane: event("c", 2).lane(), seq: 2 }];
    open.journal.settle(number, Settlement { park, dead: vec![dead], ..to(4) }.into()).await.unwrap();
    let mut retention = open.journal.retention(&place.settings).unwrap();
    let start = now_ms();
    retention.pass(start).await.unwrap();
    assert_eq!(retention.pass(start + 101 * SECOND).await.unwrap().events, 2);
    assert_eq!(open.stored().await, [2, 3]);
    open.close().await;
}

pub async fn ids_are_forgotten_after_the_window_and_numbers_never_come_again(place: Place) {
    let place = place.keeping(10, 1000);
    let open = place.open();
    let now = now_ms();
    open.journal.append(receive(&body("c", 1), now, i64::MAX)).await.unwrap();
    let mut retention = open.journal.retention(&place.settings).unwrap();
    assert_eq!(retention.pass(now).await.unwrap().events, 0);
    let expired = retention.pass(now + 20 * SECOND).await.unwrap();
    assert_eq!((expired.events, expired.ids), (1, 0));
    assert_eq!(retention.pass(now + 999 * SECOND).await.unwrap().ids, 0);
    assert_eq!(open.journal.append(event("c", 1)).await, Ok(Appended::Duplicate { same_body: true }));
    assert_eq!(retention.pass(now + 1001 * SECOND).await.unwrap().ids, 1);
    open.close().await;

    // The newest event is gone and the journal was opened anew: its number is not given out again.
    let open = place.open();
    assert_eq!(open.journal.append(event("c", 1)).await, Ok(Appended::Stored { seq: 2 }));
    open.close().await;
}
