//! Storing, and reading back.

use finhook::clock::now_ms;
use finhook::journal::{AppendError, Appended, Row};

use super::Place;
use crate::support::events::{body, event, receive};

pub async fn numbers_ascend_without_gaps_and_the_head_follows(place: Place) {
    let open = place.open();
    let mut head = open.journal.head();
    assert_eq!(*head.borrow_and_update(), 0);
    let tasks = (0..4).map(|task| {
        let journal = open.journal.clone();
        tokio::spawn(async move {
            let mut seqs = Vec::new();
            for number in 0..50 {
                match journal.append(event(&format!("c{task}"), number)).await.unwrap() {
                    Appended::Stored { seq } => seqs.push(seq),
                    other => panic!("{other:?}"),
                }
            }
            assert!(seqs.is_sorted(), "one sender's events in the order of its calls");
            seqs
        })
    });
    let mut all: Vec<u64> = futures_util::future::join_all(tasks).await.into_iter().flat_map(Result::unwrap).collect();
    all.sort_unstable();
    assert_eq!(all, (1..=200).collect::<Vec<_>>());
    assert_eq!(open.stored().await, all);
    head.wait_for(|head| *head == 200).await.unwrap();
    open.close().await;
    assert_eq!(*place.open().journal.head().borrow(), 200);
}

pub async fn an_event_is_stored_once_however_often_it_comes_also_after_a_restart(place: Place) {
    let open = place.open();
    assert_eq!(open.journal.append(event("c", 1)).await, Ok(Appended::Stored { seq: 1 }));
    assert_eq!(open.journal.append(event("c", 1)).await, Ok(Appended::Duplicate { same_body: true }));
    open.close().await;

    let open = place.open();
    assert_eq!(open.journal.append(event("c", 1)).await, Ok(Appended::Duplicate { same_body: true }));
    assert_eq!(open.journal.append(event("c", 2)).await, Ok(Appended::Stored { seq: 2 }));
    let other_body = body("c", 2).replace("<p>2</p>", "<p>other</p>");
    let conflicting = receive(&other_body, now_ms(), i64::MAX);
    assert_eq!(open.journal.append(conflicting).await, Ok(Appended::Duplicate { same_body: false }));
    assert_eq!(open.stored().await, [1, 2]);
    open.close().await;
}

pub async fn of_many_senders_of_one_event_one_stores_it(place: Place) {
    let open = place.open();
    for number in 0..20 {
        let appends = (0..8).map(|_| open.journal.append(event("c", number)));
        let outcomes = futures_util::future::join_all(appends).await;
        let stored = outcomes.iter().filter(|outcome| matches!(outcome, Ok(Appended::Stored { .. }))).count();
        let again = outcomes.iter().filter(|outcome| **outcome == Ok(Appended::Duplicate { same_body: true })).count();
        assert_eq!((stored, again), (1, 7));
    }
    assert_eq!(open.stored().await.len(), 20);
    open.close().await;
}

pub async fn what_is_read_back_is_what_was_stored(place: Place) {
    let open = place.open();
    let sent = event("c", 1);
    open.journal.append(sent.clone()).await.unwrap();
    open.close().await;

    let open = place.open();
    let rows = open.reader.after(0, 10, None).await.unwrap();
    let Row::Sound(stored) = &rows[0].row else { panic!("damaged: {rows:?}") };
    assert_eq!((stored.seq, &stored.event), (1, &sent));
    open.close().await;
}

pub async fn an_append_lives_on_when_its_sender_hangs_up(place: Place) {
    let open = place.open();
    {
        let mut append = std::pin::pin!(open.journal.append(event("c", 1)));
        // Polled once, so that it is queued, then dropped.
        assert!(futures_util::poll!(&mut append).is_pending());
    }
    assert_eq!(open.journal.append(event("c", 2)).await, Ok(Appended::Stored { seq: 2 }));
    assert_eq!(open.stored().await, [1, 2]);
    open.close().await;
}

pub async fn what_was_acknowledged_is_there_for_every_reader_at_once(place: Place) {
    let open = place.open();
    for number in 1..=50 {
        open.append("c", number..=number).await;
        for reader in [&open.reader, &open.journal.reader().unwrap()] {
            let page = reader.after(number - 1, 10, None).await.unwrap();
            assert_eq!(page.iter().map(|fresh| fresh.row.seq()).collect::<Vec<_>>(), [number]);
        }
    }
    open.close().await;
}

pub async fn a_page_is_bounded_in_rows_and_in_bytes(place: Place) {
    let open = place.open();
    let large = |number: u64| {
        let body = body("c", number).replace("<p>", &format!("<p>{}", "x".repeat(900_000)));
        receive(&body, now_ms(), i64::MAX)
    };
    for number in 1..=12 {
        open.journal.append(large(number)).await.unwrap();
    }
    open.append("c", 13..=20).await;
    let (mut after, mut pages) = (0, Vec::new());
    while after < 20 {
        let page = open.journal.reader().unwrap().after(after, 7, None).await.unwrap();
        let seqs: Vec<u64> = page.iter().map(|fresh| fresh.row.seq()).collect();
        assert_eq!(seqs, (after + 1..=after + seqs.len() as u64).collect::<Vec<_>>(), "none is left out");
        assert!(!seqs.is_empty() && seqs.len() <= 7);
        after += seqs.len() as u64;
        pages.push(seqs.len());
    }
    assert!(pages[0] < 7, "seven large events are more than one page may hold: {pages:?}");
    open.close().await;
}

pub async fn a_closed_journal_takes_nothing_more(place: Place) {
    let open = place.open();
    let kept = open.journal.clone();
    open.close().await;
    assert_eq!(kept.append(event("c", 1)).await, Err(AppendError::Closed));
    assert!(kept.set_paused("any", true).await.is_err());
}
