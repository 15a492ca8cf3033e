//! What each open connection is doing, and since when.
//!
//! One slot a connection, in one flat array of atomics: a connection's own task writes its slot, the accept loop reads
//! them all to find those that are past their limit, and at the cap the one that gives way. So a request costs a few
//! stores into memory of its own and no timer, and a scan of 10,000 slots some ten microseconds.
//!
//! ```text
//!            first byte        head complete      body not there yet
//!   Idle ───────────────► Head ─────────────► Busy ◄──────────────► Body
//!     ▲                                         │
//!     └──────────────── answered ───────────────┘      any but Busy ──► Closing, by the accept loop
//! ```
//!
//! Every change of phase is a compare-and-swap, so that either the connection's task or the accept loop wins: a
//! connection that is `Closing` starts no work, and one that is `Busy` (its request is being stored) is never closed.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Not in use.
    Free,
    /// Between requests, or before the first byte of the first.
    Idle,
    /// A head has begun, or what comes after the last answer is thrown away.
    Head,
    /// The head is complete, the body isn't.
    Body,
    /// The request is complete and not yet answered.
    Busy,
    /// Given up by the accept loop.
    Closing,
}

const PHASES: [Phase; 6] = [Phase::Free, Phase::Idle, Phase::Head, Phase::Body, Phase::Busy, Phase::Closing];

/// A connection without a complete head: since when, and its slot.
pub(super) type Quiet = (u64, usize);

/// How many of the oldest connections a scan finds at once.
const BATCH: usize = 64;

/// A phase and the millisecond it began, in one word.
fn pack(phase: Phase, since: u64) -> u64 {
    since << 3 | phase as u64
}

fn unpack(word: u64) -> (Phase, u64) {
    let phase = PHASES.get((word & 7) as usize).copied().unwrap_or(Phase::Free);
    (phase, word >> 3)
}

/// One connection's slot, on a cache line of its own: it is written several times a request.
#[derive(Debug)]
#[repr(align(64))]
struct Slot {
    /// Phase and since when.
    word: AtomicU64,
    /// When the last answer was given, or the connection began: since then it has had no complete head.
    quiet_since: AtomicU64,
    /// Wakes the connection's task, so that it notices the drain.
    waker: Mutex<Option<Waker>>,
}

/// All slots of a listener.
#[derive(Debug)]
pub(super) struct Slots {
    slots: Box<[Slot]>,
    epoch: Instant,
    draining: AtomicBool,
    idle_ends: AtomicBool,
    header_timeout: u64,
    idle_timeout: u64,
}

impl Slots {
    /// `count` free slots.
    pub(super) fn new(count: usize, header_timeout: Duration, idle_timeout: Duration) -> Self {
        let free = || Slot {
            word: AtomicU64::new(pack(Phase::Free, 0)),
            quiet_since: AtomicU64::new(0),
            waker: Mutex::new(None),
        };
        Self {
            slots: (0..count).map(|_| free()).collect(),
            epoch: Instant::now(),
            draining: AtomicBool::new(false),
            idle_ends: AtomicBool::new(false),
            header_timeout: millis(header_timeout),
            idle_timeout: millis(idle_timeout),
        }
    }

    /// Takes the free slot `at` for a new connection.
    pub(super) fn open(self: &Arc<Self>, at: usize) -> Conn {
        let now = self.ms(Instant::now());
        self.slots[at].quiet_since.store(now, Relaxed);
        self.slots[at].word.store(pack(Phase::Idle, now), Relaxed);
        Conn { slots: Arc::clone(self), at }
    }

    /// Gives a slot back, after its connection's task has ended.
    pub(super) fn free(&self, at: usize) {
        self.slots[at].word.store(pack(Phase::Free, 0), Relaxed);
        *self.slots[at].waker.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Claims one connection that is past its limit at `now`, from slot `from` on. Its task is to be ended.
    pub(super) fn overdue(&self, from: usize, now: Instant) -> Option<usize> {
        let now = self.ms(now);
        let over = |slot: &Slot| {
            let word = slot.word.load(Relaxed);
            let (phase, since) = unpack(word);
            let limit = match phase {
                Phase::Idle => self.idle_timeout,
                Phase::Head => self.header_timeout,
                _ => return false,
            };
            now.saturating_sub(since) > limit && close(slot, word)
        };
        self.slots[from..].iter().position(over).map(|at| from + at)
    }

    /// Claims the connection that gives way at the cap: the one longest without a complete head. If every connection
    /// has one, the one that has waited longest for its body; `None` when all are being stored.
    ///
    /// `queue` is the caller's, for this alone: it keeps what a scan has found, so that a flood costs one scan in
    /// [`BATCH`] connections. What is in it is older than all that came or became idle since.
    pub(super) fn give_way(&self, queue: &mut Vec<Quiet>) -> Option<usize> {
        if let Some(at) = self.next_of(queue) {
            return Some(at);
        }
        let quiet = |(at, slot): (usize, &Slot)| {
            let without_head = matches!(unpack(slot.word.load(Relaxed)).0, Phase::Idle | Phase::Head);
            without_head.then(|| (slot.quiet_since.load(Relaxed), at))
        };
        queue.extend(self.slots.iter().enumerate().filter_map(quiet));
        if queue.len() > BATCH {
            queue.select_nth_unstable(BATCH);
            queue.truncate(BATCH);
        }
        // The oldest is the last one.
        queue.sort_unstable_by(|one, other| other.cmp(one));
        self.next_of(queue).or_else(|| self.longest_body())
    }

    /// Claims the oldest in the queue that still has no complete head.
    fn next_of(&self, queue: &mut Vec<Quiet>) -> Option<usize> {
        while let Some((since, at)) = queue.pop() {
            let slot = &self.slots[at];
            let word = slot.word.load(Relaxed);
            let still = matches!(unpack(word).0, Phase::Idle | Phase::Head);
            if still && slot.quiet_since.load(Relaxed) == since && close(slot, word) {
                return Some(at);
            }
        }
        None
    }

    fn longest_body(&self) -> Option<usize> {
        let waiting = |(at, slot): (usize, &Slot)| {
            let word = slot.word.load(Relaxed);
            let (phase, since) = unpack(word);
            (phase == Phase::Body).then_some((since, at, word))
        };
        let (_, at, word) = self.slots.iter().enumerate().filter_map(waiting).min()?;
        close(&self.slots[at], word).then_some(at)
    }

    /// From now on every answer is the last on its connection.
    pub(super) fn drain(&self) {
        self.draining.store(true, Relaxed);
    }

    /// From now on a connection on which nothing has come ends.
    pub(super) fn end_idle(&self) {
        self.idle_ends.store(true, Relaxed);
        for slot in &self.slots {
            if let Some(waker) = &*slot.waker.lock().unwrap_or_else(PoisonError::into_inner) {
                waker.wake_by_ref();
            }
        }
    }

    fn ms(&self, at: Instant) -> u64 {
        millis(at.saturating_duration_since(self.epoch))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn close(slot: &Slot, word: u64) -> bool {
    let closing = pack(Phase::Closing, unpack(word).1);
    slot.word.compare_exchange(word, closing, Relaxed, Relaxed).is_ok()
}

/// A connection's hold on its slot.
#[derive(Debug, Clone)]
pub(super) struct Conn {
    slots: Arc<Slots>,
    at: usize,
}

impl Conn {
    /// The waker of the connection's task, which stays the same as long as the task lives.
    pub(super) fn set_waker(&self, waker: Waker) {
        *self.slot().waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker);
    }

    /// Whether the listener is being shut down.
    pub(super) fn draining(&self) -> bool {
        self.slots.draining.load(Relaxed)
    }

    /// Whether the connection is to end because nothing is under way on it.
    pub(super) fn idle_ends(&self) -> bool {
        self.slots.idle_ends.load(Relaxed) && self.is_idle()
    }

    fn is_idle(&self) -> bool {
        unpack(self.slot().word.load(Relaxed)).0 == Phase::Idle
    }

    /// Bytes came: if the connection was idle, a head has begun.
    pub(super) fn bytes_came(&self) {
        let word = self.slot().word.load(Relaxed);
        if unpack(word).0 == Phase::Idle {
            self.change(word, Phase::Head, Instant::now());
        }
    }

    /// What comes from now on is thrown away, for no longer than a head may take.
    pub(super) fn lingers(&self) {
        let word = self.slot().word.load(Relaxed);
        self.change(word, Phase::Head, Instant::now());
    }

    /// Moves to `Body` or `Busy`. False when the connection has been given up: then nothing may be begun.
    #[must_use]
    pub(super) fn enter(&self, phase: Phase, now: Instant) -> bool {
        let word = self.slot().word.load(Relaxed);
        self.change(word, phase, now)
    }

    /// A request is answered; `in_head`: the next one's head has begun.
    pub(super) fn answered(&self, in_head: bool, now: Instant) {
        self.slot().quiet_since.store(self.slots.ms(now), Relaxed);
        let word = self.slot().word.load(Relaxed);
        self.change(word, if in_head { Phase::Head } else { Phase::Idle }, now);
    }

    fn change(&self, word: u64, phase: Phase, now: Instant) -> bool {
        unpack(word).0 != Phase::Closing
            && self.slot().word.compare_exchange(word, pack(phase, self.slots.ms(now)), Relaxed, Relaxed).is_ok()
    }

    fn slot(&self) -> &Slot {
        &self.slots.slots[self.at]
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const HEADER: Duration = Duration::from_millis(100);
    const IDLE: Duration = Duration::from_millis(1000);

    fn slots(count: usize) -> Arc<Slots> {
        Arc::new(Slots::new(count, HEADER, IDLE))
    }

    /// So long after the slots were made.
    fn after(slots: &Slots, ms: u64) -> Instant {
        slots.epoch + Duration::from_millis(ms)
    }

    fn phase(conn: &Conn) -> Phase {
        unpack(conn.slot().word.load(Relaxed)).0
    }

    #[test]
    fn a_begun_head_and_an_idle_connection_have_different_limits() {
        let slots = slots(3);
        let (head, _idle) = (slots.open(0), slots.open(1));
        assert!(head.enter(Phase::Head, after(&slots, 0)));
        assert_eq!(slots.overdue(0, after(&slots, 99)), None);
        assert_eq!(slots.overdue(0, after(&slots, 500)), Some(0));
        assert_eq!(slots.overdue(0, after(&slots, 500)), None, "a connection is claimed once");
        assert_eq!(slots.overdue(0, after(&slots, 1100)), Some(1));
        assert_eq!(phase(&head), Phase::Closing);
    }

    #[test]
    fn a_request_with_a_complete_head_is_never_overdue() {
        let slots = slots(2);
        for (at, phase) in [Phase::Body, Phase::Busy].into_iter().enumerate() {
            assert!(slots.open(at).enter(phase, after(&slots, 0)));
        }
        assert_eq!(slots.overdue(0, after(&slots, 1_000_000)), None);
    }

    #[test]
    fn the_connection_longest_without_a_complete_head_gives_way() {
        let slots = slots(3);
        let conns: Vec<Conn> = (0..3).map(|at| slots.open(at)).collect();
        for (conn, ms) in conns.iter().zip([10, 5, 7]) {
            assert!(conn.enter(Phase::Busy, after(&slots, ms)));
            conn.answered(false, after(&slots, ms));
        }
        // A byte now and then does not make a connection younger.
        assert!(conns[1].enter(Phase::Head, after(&slots, 50)));
        assert_eq!(slots.give_way(&mut Vec::new()), Some(1));
        assert_eq!(slots.give_way(&mut Vec::new()), Some(2));
        assert_eq!(slots.give_way(&mut Vec::new()), Some(0));
        assert_eq!(slots.give_way(&mut Vec::new()), None);
    }

    #[test]
    fn what_a_scan_found_is_not_taken_for_what_has_moved_on_since() {
        let slots = slots(4);
        let conns: Vec<Conn> = (0..4).map(|at| slots.open(at)).collect();
        for (conn, ms) in conns.iter().zip([10, 20, 30, 40]) {
            conn.answered(false, after(&slots, ms));
        }
        let mut queue = Vec::new();
        assert_eq!(slots.give_way(&mut queue), Some(0));
        // One has been answered since, one is at work, and the first one's slot has a new connection.
        conns[1].answered(false, after(&slots, 50));
        assert!(conns[2].enter(Phase::Busy, after(&slots, 50)));
        slots.free(0);
        slots.open(0).answered(false, after(&slots, 60));
        let order: Vec<_> = std::iter::from_fn(|| slots.give_way(&mut queue)).collect();
        assert_eq!(order, [3, 1, 0]);
    }

    #[test]
    fn more_than_a_batch_give_way_in_their_order() {
        let count = 3 * BATCH + 1;
        let slots = slots(count);
        let conns: Vec<Conn> = (0..count).map(|at| slots.open(at)).collect();
        // A step that has no factor in common with the count: every millisecond once.
        let ms = |at: usize| (at * 7 % count) as u64;
        for (at, conn) in conns.iter().enumerate() {
            conn.answered(false, after(&slots, ms(at)));
        }
        let mut queue = Vec::new();
        let order: Vec<_> = std::iter::from_fn(|| slots.give_way(&mut queue)).map(ms).collect();
        assert!(order.len() == count && order.is_sorted(), "{order:?}");
    }

    #[test]
    fn one_that_waits_for_its_body_gives_way_only_when_every_head_is_complete() {
        let slots = slots(3);
        let conns: Vec<Conn> = (0..3).map(|at| slots.open(at)).collect();
        assert!(conns[0].enter(Phase::Body, after(&slots, 0)));
        assert!(conns[1].enter(Phase::Busy, after(&slots, 0)));
        assert_eq!(slots.give_way(&mut Vec::new()), Some(2));
        assert_eq!(slots.give_way(&mut Vec::new()), Some(0));
        assert_eq!(slots.give_way(&mut Vec::new()), None, "what is being stored never gives way");
    }

    #[test]
    fn a_connection_that_was_given_up_begins_nothing() {
        let slots = slots(1);
        let conn = slots.open(0);
        assert_eq!(slots.give_way(&mut Vec::new()), Some(0));
        assert!(!conn.enter(Phase::Busy, Instant::now()));
        conn.bytes_came();
        conn.answered(true, Instant::now());
        assert_eq!(phase(&conn), Phase::Closing);
    }

    #[test]
    fn a_freed_slot_starts_anew() {
        let slots = slots(1);
        let _conn = slots.open(0);
        assert_eq!(slots.give_way(&mut Vec::new()), Some(0));
        slots.free(0);
        assert_eq!(slots.give_way(&mut Vec::new()), None);
        assert!(slots.open(0).is_idle());
    }
}
