//! What a worker is doing, for the admin API and the metrics.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::retry::NotDead;
use crate::clock::now_ms;
use crate::journal::{SinkNumber, SinkState};

/// What went wrong last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastError {
    /// When, in unix milliseconds.
    pub at_ms: i64,
    /// What, for the operator.
    pub error: Arc<str>,
    /// Why the event that failed is tried again; none when it is dead, or when it was no event's failure.
    pub not_dead: Option<NotDead>,
}

/// What a worker is doing; written by it, read by everybody.
#[derive(Debug)]
pub struct Status {
    name: String,
    number: SinkNumber,
    cursor: AtomicU64,
    in_flight: AtomicUsize,
    parked: AtomicI64,
    paused: AtomicBool,
    unhealthy: AtomicBool,
    last_error: Mutex<Option<LastError>>,
}

impl Status {
    pub(super) fn new(state: &SinkState) -> Self {
        Self {
            name: state.name.clone(),
            number: state.number,
            cursor: AtomicU64::new(state.cursor),
            in_flight: AtomicUsize::new(0),
            parked: AtomicI64::new(0),
            paused: AtomicBool::new(state.paused),
            unhealthy: AtomicBool::new(false),
            last_error: Mutex::new(None),
        }
    }

    /// The sink's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The sink's number in the journal.
    #[must_use]
    pub fn number(&self) -> SinkNumber {
        self.number
    }

    /// Everything up to this sequence number is settled, parked or dead.
    #[must_use]
    pub fn cursor(&self) -> u64 {
        self.cursor.load(Ordering::Relaxed)
    }

    /// Attempts under way.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Events behind the cursor that are retried or wait behind a retried one.
    #[must_use]
    pub fn parked(&self) -> u64 {
        u64::try_from(self.parked.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// Paused by an operator.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }

    /// Paused by a run of failures, or because the sink asked for it.
    #[must_use]
    pub fn is_unhealthy(&self) -> bool {
        self.unhealthy.load(Ordering::Relaxed)
    }

    /// What went wrong last; none once the sink has recovered: something was delivered since, and nothing waits.
    #[must_use]
    pub fn last_error(&self) -> Option<LastError> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_cursor(&self, cursor: u64) {
        self.cursor.store(cursor, Ordering::Relaxed);
    }

    pub(super) fn set_in_flight(&self, attempts: usize) {
        self.in_flight.store(attempts, Ordering::Relaxed);
    }

    pub(super) fn set_parked(&self, events: i64) {
        self.parked.store(events, Ordering::Relaxed);
    }

    pub(super) fn set_paused(&self, paused: bool) {
        self.paused.store(paused, Ordering::Relaxed);
    }

    pub(super) fn set_unhealthy(&self, unhealthy: bool) {
        self.unhealthy.store(unhealthy, Ordering::Relaxed);
    }

    pub(super) fn set_error(&self, error: Arc<str>, not_dead: Option<NotDead>) {
        let last = LastError { at_ms: now_ms(), error, not_dead };
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(last);
    }

    pub(super) fn clear_error(&self) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
