//! Cursors, parked events, lanes, dead letters, replays.

use std::sync::Arc;

use finhook::clock::now_ms;
use finhook::journal::{Dead, LaneState, Park, Retried, Settlement, SinkState};

use super::{Open, Place};
use crate::support::events::event;

const NEVER: i64 = i64::MAX;

fn lane(conversation: &str) -> u64 {
    event(conversation, 0).lane()
}

fn park(conversation: &str, seqs: &[u64]) -> Vec<Park> {
    seqs.iter().map(|seq| Park { lane: lane(conversation), seq: *seq }).collect()
}

fn dead(seq: u64) -> Dead {
    Dead { seq, attempts: 3, died_ms: now_ms(), error: "no".into() }
}

impl Open {
    async fn sink(&self) -> SinkState {
        self.journal.sink("backend", true).await.unwrap()
    }

    async fn settle(&self, settlement: Settlement) {
        self.journal.settle(self.sink().await.number, settlement.into()).await.unwrap();
    }

    /// The lanes that are due now.
    async fn due(&self) -> Vec<(u64, LaneState)> {
        let (due, _) = self.reader.due(self.sink().await.number, now_ms(), NEVER, 100).await.unwrap();
        due.into_iter().map(|due| (due.lane, due.state)).collect()
    }

    /// What is parked in a lane: (seq, replay).
    async fn parked(&self, lane: u64) -> Vec<(u64, Option<Arc<str>>)> {
        let (parked, more) = self.reader.parked(self.sink().await.number, lane, 0, 100).await.unwrap();
        assert!(!more);
        parked.into_iter().map(|parked| (parked.row.seq(), parked.replay)).collect()
    }
}

pub async fn a_new_sink_begins_now_or_with_everything_stored_and_a_known_one_where_it_was(place: Place) {
    let open = place.open();
    open.append("c", 1..=2).await;
    let late = open.journal.sink("late", false).await.unwrap();
    let all = open.journal.sink("all", true).await.unwrap();
    assert_eq!(((late.start, late.cursor), (all.start, all.cursor)), ((2, 2), (0, 0)));
    assert_ne!(late.number, all.number);
    assert_eq!(open.journal.sink("late", true).await.unwrap(), late);
    assert_eq!(open.journal.sink("all", false).await.unwrap(), all);
    open.close().await;
}

pub async fn a_cursor_never_moves_back(place: Place) {
    let open = place.open();
    open.append("c", 1..=5).await;
    for cursor in [3, 5, 4] {
        open.settle(Settlement { cursor: Some(cursor), ..Settlement::default() }).await;
    }
    assert_eq!(open.sink().await.cursor, 5);
    open.close().await;
}

pub async fn what_a_settlement_holds_is_recorded_whole_and_survives_a_restart(place: Place) {
    let open = place.open();
    open.append("c", 1..=4).await;
    let state =
        LaneState { attempts: 2, rejections: 1, age_ms: 30, last_ms: 40, next_ms: 50, error: Some("no answer".into()) };
    open.settle(Settlement {
        cursor: Some(4),
        park: park("c", &[2, 3]),
        dead: vec![dead(1)],
        lanes: vec![(lane("c"), state.clone())],
        done: Vec::new(),
    })
    .await;
    let number = open.sink().await.number;
    open.close().await;

    let open = place.open();
    let again = open.sink().await;
    assert_eq!((again.number, again.cursor), (number, 4));
    assert_eq!(open.due().await, [(lane("c"), state)]);
    assert_eq!(open.parked(lane("c")).await, [(2, None), (3, None)]);
    assert_eq!(open.reader.count_parked(number).await.unwrap(), 2);
    assert_eq!(open.reader.sinks().await.unwrap()[0].dead, 1);
    open.close().await;
}

pub async fn a_lane_keeps_its_state_as_long_as_it_has_parked_events(place: Place) {
    let open = place.open();
    open.append("c", 1..=2).await;
    let state = LaneState { attempts: 7, next_ms: 1, ..LaneState::default() };
    let lanes = |state: LaneState| vec![(lane("c"), state)];
    open.settle(Settlement { park: park("c", &[1, 2]), lanes: lanes(state), ..Settlement::default() }).await;
    assert_eq!(open.due().await[0].1.attempts, 7);

    // The first is delivered: the next begins anew.
    let done =
        |seq| Settlement { done: vec![(lane("c"), seq)], lanes: lanes(LaneState::default()), ..Settlement::default() };
    open.settle(done(1)).await;
    assert_eq!(open.due().await, [(lane("c"), LaneState::default())]);
    open.settle(done(2)).await;
    assert_eq!(open.due().await, []);
    open.close().await;
}

pub async fn the_longest_due_lane_comes_first_and_one_beyond_the_horizon_is_due(place: Place) {
    let open = place.open();
    let number = open.sink().await.number;
    let mut settlement = Settlement::default();
    for (conversation, next_ms) in [("a", 300), ("b", 100), ("c", 200), ("d", 1000), ("e", 1_000_000)] {
        let seq = open.append(conversation, 1..=1).await[0];
        settlement.park.extend(park(conversation, &[seq]));
        settlement.lanes.push((lane(conversation), LaneState { next_ms, ..LaneState::default() }));
    }
    open.settle(settlement).await;
    let due = async |now_ms, horizon_ms, limit| {
        let (due, next) = open.reader.due(number, now_ms, horizon_ms, limit).await.unwrap();
        (due.into_iter().map(|due| due.lane).collect::<Vec<_>>(), next)
    };
    let lanes = |names: &[&str]| names.iter().map(|name| lane(name)).collect::<Vec<_>>();
    assert_eq!(due(99, NEVER, 10).await, (vec![], Some(100)));
    assert_eq!(due(500, NEVER, 10).await, (lanes(&["b", "c", "a"]), Some(1000)));
    assert_eq!(due(500, NEVER, 2).await.0, lanes(&["b", "c"]));
    assert_eq!(due(500, 900_000, 10).await.0, lanes(&["b", "c", "a", "e"]), "no lane waits that long");
    open.close().await;
}

pub async fn events_behind_parked_ones_of_their_lane_are_told_apart(place: Place) {
    let open = place.open();
    let number = open.sink().await.number;
    // Few lanes and many are found in different ways.
    for blocked in [1, 5] {
        let mut parked = Vec::new();
        for at in 0..blocked {
            let name = format!("blocked-{blocked}-{at}");
            let seq = open.append(&name, 1..=1).await[0];
            parked.extend(park(&name, &[seq]));
        }
        open.settle(Settlement { park: parked, ..Settlement::default() }).await;
        let behind = open.append(&format!("blocked-{blocked}-0"), 2..=2).await[0];
        let free = open.append(&format!("free-{blocked}"), 1..=1).await[0];
        for reader in [&open.reader, &open.journal.reader().unwrap()] {
            let page = reader.after(behind - 1, 10, Some(number)).await.unwrap();
            let found: Vec<_> = page.iter().map(|fresh| (fresh.row.seq(), fresh.blocked)).collect();
            assert_eq!(found, [(behind, true), (free, false)]);
            let page = reader.after(behind - 1, 10, None).await.unwrap();
            assert!(page.iter().all(|fresh| !fresh.blocked), "nobody asked");
        }
    }
    open.close().await;
}

pub async fn parked_events_come_in_their_order_page_by_page(place: Place) {
    let open = place.open();
    let number = open.sink().await.number;
    let seqs = open.append("c", 1..=10).await;
    open.append("other", 1..=1).await;
    let mut parked = park("c", &seqs);
    parked.reverse();
    open.settle(Settlement { park: parked, ..Settlement::default() }).await;
    let (mut found, mut after) = (Vec::new(), 0);
    loop {
        let (page, more) = open.reader.parked(number, lane("c"), after, 4).await.unwrap();
        found.extend(page.iter().map(|parked| parked.row.seq()));
        after = *found.last().unwrap();
        assert!(page.len() == 4 || !more);
        if !more {
            break;
        }
    }
    assert_eq!(found, seqs);
    open.close().await;
}

pub async fn what_was_parked_or_dead_beyond_the_cursor_is_known_after_a_crash(place: Place) {
    let open = place.open();
    let number = open.sink().await.number;
    let seqs = open.append("c", 1..=5).await;
    open.settle(Settlement { cursor: Some(1), park: park("c", &[1, 3]), dead: vec![dead(4)], ..Settlement::default() })
        .await;
    // A replay was asked for; the event itself is still to come.
    open.journal.replay(number, "replay".into(), vec![seqs[4]]).await.unwrap();
    assert_eq!(open.reader.beyond(number, 1).await.unwrap(), [3, 4].into());
    open.close().await;
}

pub async fn a_pause_is_remembered(place: Place) {
    let open = place.open();
    assert!(!open.journal.set_paused("backend", true).await.unwrap(), "there is no such sink yet");
    assert!(!open.sink().await.paused);
    assert!(open.journal.set_paused("backend", true).await.unwrap());
    open.close().await;
    let open = place.open();
    assert!(open.sink().await.paused);
    assert!(open.journal.set_paused("backend", false).await.unwrap());
    assert!(!open.sink().await.paused);
    open.close().await;
}

pub async fn a_replay_has_lanes_of_its_own_its_mark_and_the_order_of_its_events(place: Place) {
    let open = place.open();
    let number = open.sink().await.number;
    let mut seqs = open.append("a", 1..=2).await;
    seqs.extend(open.append("b", 1..=1).await);
    open.settle(Settlement { cursor: Some(3), ..Settlement::default() }).await;
    open.journal.purge(vec![seqs[1]]).await.unwrap();
    seqs.extend(open.append("a", 3..=3).await);

    let asked = seqs.iter().rev().copied().collect();
    assert_eq!(open.journal.replay(number, "first".into(), asked).await.unwrap(), 3, "one is gone");
    assert_eq!(open.journal.replay(number, "second".into(), vec![1]).await.unwrap(), 1);
    let lanes: Vec<u64> = open.due().await.into_iter().map(|(lane, _)| lane).collect();
    assert_eq!(lanes.len(), 3, "two conversations, and one again");
    assert!(!lanes.contains(&lane("a")) && !lanes.contains(&lane("b")), "what comes newly does not wait for them");
    let mut found = Vec::new();
    for lane in lanes {
        found.push(open.parked(lane).await);
    }
    found.sort();
    let first = Some(Arc::from("first"));
    assert_eq!(
        found,
        [vec![(1, first.clone()), (4, first.clone())], vec![(1, Some("second".into()))], vec![(3, first)]]
    );
    assert_eq!(open.journal.replay(number, "first".into(), vec![1]).await.unwrap(), 0, "it waits already");
    open.close().await;
}

pub async fn retried_dead_letters_are_parked_anew_step_by_step(place: Place) {
    let open = place.open();
    let number = open.sink().await.number;
    let other = open.journal.sink("other", true).await.unwrap();
    let seqs = open.append("c", 1..=1001).await;
    open.settle(Settlement {
        cursor: Some(1001),
        dead: seqs.iter().map(|seq| dead(*seq)).collect(),
        ..Settlement::default()
    })
    .await;
    open.journal
        .settle(other.number, Settlement { dead: vec![dead(1)], ..Settlement::default() }.into())
        .await
        .unwrap();

    let step = open.journal.retry_dead(number, "retry".into(), 0).await.unwrap();
    assert_eq!(step, Retried { events: 1000, next: Some(1000) });
    let step = open.journal.retry_dead(number, "retry".into(), 1000).await.unwrap();
    assert_eq!(step, Retried { events: 1, next: None });
    let due = open.due().await;
    let [(retried, state)] = &due[..] else { panic!("one lane: {due:?}") };
    assert_eq!(state.attempts, 0);
    assert_ne!(*retried, lane("c"));
    let (page, more) = open.reader.parked(number, *retried, 0, 10).await.unwrap();
    assert!(more && page.iter().map(|parked| parked.row.seq()).eq(1..=10));
    assert!(page.iter().all(|parked| parked.replay.is_none()), "a retry is no replay");
    let dead: Vec<u64> = open.reader.sinks().await.unwrap().iter().map(|sink| sink.dead).collect();
    assert_eq!(dead, [0, 1], "the other sink keeps its own");
    open.close().await;
}

pub async fn a_forgotten_sink_leaves_nothing_and_its_name_begins_anew(place: Place) {
    let open = place.open();
    let number = open.sink().await.number;
    let seqs = open.append("c", 1..=2500).await;
    open.settle(Settlement {
        cursor: Some(2500),
        park: park("c", &seqs[..2400]),
        dead: seqs[2400..].iter().map(|seq| dead(*seq)).collect(),
        ..Settlement::default()
    })
    .await;
    let mut steps = 1;
    while !open.journal.forget_sink(number).await.unwrap() {
        steps += 1;
    }
    assert!(steps > 3, "events are stored in between");
    assert!(open.reader.sinks().await.unwrap().is_empty());
    assert_eq!(open.reader.count_parked(number).await.unwrap(), 0);
    let again = open.journal.sink("backend", false).await.unwrap();
    assert_ne!(again.number, number, "a late settlement of the old one must not be taken for the new one's");
    assert_eq!(again.cursor, 2500);
    open.close().await;
}
