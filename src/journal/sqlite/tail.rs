//! The newest events, kept in memory so that sinks that keep up need no reads from the database.
//!
//! Holds a gapless run of events that ends at the newest committed one. Bounded by count and bytes; and what every reader
//! has passed goes at once, so that the next events get memory that is still in the processor's cache.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, Weak};

use crate::event::Stored;

/// Events kept at most.
const MAX_EVENTS: usize = 1024;
/// Bytes of bodies kept at most.
const MAX_BYTES: usize = 4 * 1024 * 1024;

#[derive(Debug, Default)]
struct Run {
    events: VecDeque<Arc<Stored>>,
    bytes: usize,
    followers: Vec<Weak<AtomicU64>>,
}

impl Run {
    /// The newest event that no reader will ask for any more.
    fn passed(&mut self) -> u64 {
        let mut passed = u64::MAX;
        self.followers.retain(|follower| match follower.upgrade() {
            Some(follower) => {
                passed = passed.min(follower.load(Ordering::Relaxed));
                true
            }
            None => false,
        });
        passed
    }
}

#[derive(Debug, Default)]
pub(super) struct Tail(RwLock<Run>);

impl Tail {
    /// Where a reader says how far it has come; `u64::MAX` as long as it has asked for nothing.
    pub(super) fn follow(&self) -> Arc<AtomicU64> {
        let follower = Arc::new(AtomicU64::new(u64::MAX));
        self.0.write().unwrap_or_else(PoisonError::into_inner).followers.push(Arc::downgrade(&follower));
        follower
    }

    /// Adds what was just committed, in order. Moves what nobody needs, and what no longer has room, to `evicted`.
    pub(super) fn push(&self, committed: impl Iterator<Item = Arc<Stored>>, evicted: &mut Vec<Arc<Stored>>) {
        let mut run = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for stored in committed {
            run.bytes += stored.event.body.len();
            run.events.push_back(stored);
        }
        let passed = run.passed();
        while let Some(oldest) = run.events.front()
            && (oldest.seq <= passed || run.events.len() > MAX_EVENTS || run.bytes > MAX_BYTES)
            && let Some(oldest) = run.events.pop_front()
        {
            run.bytes -= oldest.event.body.len();
            evicted.push(oldest);
        }
    }

    /// Drops everything: some of it was purged. What is committed next begins a new run.
    pub(super) fn clear(&self) {
        let mut run = self.0.write().unwrap_or_else(PoisonError::into_inner);
        run.events.clear();
        run.bytes = 0;
    }

    /// The events after `seq`, up to `limit`; `None` when the run doesn't reach back that far.
    pub(super) fn after(&self, seq: u64, limit: usize) -> Option<Vec<Arc<Stored>>> {
        let run = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let first = run.events.front()?.seq;
        let skip = usize::try_from((seq + 1).checked_sub(first)?).ok()?;
        Some(run.events.iter().skip(skip).take(limit).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Event, Fields, Kind, Parts};

    fn events(seqs: std::ops::RangeInclusive<u64>) -> impl Iterator<Item = Arc<Stored>> {
        seqs.map(|seq| {
            let event = Event::from_journal(Parts {
                id: uuid::Uuid::from_u128(seq.into()),
                kind: Kind::Event,
                endpoint: "fin".into(),
                received_ms: 0,
                created_ms: 0,
                fields: Fields::default(),
                content_type: None,
                signature: None,
                body: vec![b'x'; 1024].into(),
            });
            Arc::new(Stored { seq, event })
        })
    }

    /// What is kept after more events were committed.
    fn push(tail: &Tail, seqs: std::ops::RangeInclusive<u64>) -> Vec<u64> {
        let mut evicted = Vec::new();
        tail.push(events(seqs), &mut evicted);
        let run = tail.0.read().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(run.bytes, run.events.len() * 1024);
        run.events.iter().map(|stored| stored.seq).collect()
    }

    #[test]
    fn what_every_reader_has_passed_is_dropped_and_what_one_still_needs_is_kept() {
        let tail = Tail::default();
        assert_eq!(push(&tail, 1..=3), [0; 0], "nobody reads");

        let (ahead, behind) = (tail.follow(), tail.follow());
        ahead.store(6, Ordering::Relaxed);
        behind.store(4, Ordering::Relaxed);
        assert_eq!(push(&tail, 4..=7), [5, 6, 7]);
        let read = tail.after(4, 2).map(|events| events.iter().map(|stored| stored.seq).collect());
        assert_eq!(read, Some(vec![5, 6]));

        drop(behind);
        assert_eq!(push(&tail, 8..=8), [7, 8], "a reader that is gone holds nothing back");
    }

    #[test]
    fn a_reader_that_stands_still_costs_no_more_than_the_bound() {
        let tail = Tail::default();
        let still = tail.follow();
        still.store(0, Ordering::Relaxed);
        let kept = push(&tail, 1..=MAX_EVENTS as u64 + 10);
        assert_eq!((kept.len(), kept[0]), (MAX_EVENTS, 11));
        assert!(tail.after(still.load(Ordering::Relaxed), 1).is_none(), "it reads from the database");
    }
}
