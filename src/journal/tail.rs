//! The newest events, kept in memory so that sinks that keep up need no reads from the database.
//!
//! Holds a gapless run of events that ends at the newest committed one. Bounded by count and bytes.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError, RwLock};

use crate::event::Stored;

/// Events kept at most.
const MAX_EVENTS: usize = 1024;
/// Bytes of bodies kept at most.
const MAX_BYTES: usize = 4 * 1024 * 1024;

#[derive(Debug, Default)]
struct Run {
    events: VecDeque<Arc<Stored>>,
    bytes: usize,
}

#[derive(Debug, Default)]
pub(super) struct Tail(RwLock<Run>);

impl Tail {
    /// Adds what was just committed, in order. Moves what no longer has room to `evicted`.
    pub(super) fn push(&self, committed: impl Iterator<Item = Arc<Stored>>, evicted: &mut Vec<Arc<Stored>>) {
        let mut run = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for stored in committed {
            run.bytes += stored.event.body.len();
            run.events.push_back(stored);
        }
        while run.events.len() > MAX_EVENTS || run.bytes > MAX_BYTES {
            let Some(oldest) = run.events.pop_front() else { break };
            run.bytes -= oldest.event.body.len();
            evicted.push(oldest);
        }
    }

    /// Drops everything: some of it was purged. What is committed next begins a new run.
    pub(super) fn clear(&self) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Run::default();
    }

    /// The events after `seq`, up to `limit`; `None` when the run doesn't reach back that far.
    pub(super) fn after(&self, seq: u64, limit: usize) -> Option<Vec<Arc<Stored>>> {
        let run = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let first = run.events.front()?.seq;
        let skip = usize::try_from((seq + 1).checked_sub(first)?).ok()?;
        Some(run.events.iter().skip(skip).take(limit).cloned().collect())
    }
}
