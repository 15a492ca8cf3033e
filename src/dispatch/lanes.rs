//! The lanes of one sink: which event may be attempted next, and what must be written down. Pure: no I/O, no clock.
//!
//! A lane is one conversation. It is in one of three modes:
//!
//! - [`Mode::Fresh`]: its events come from beyond the cursor and are in memory only.
//! - [`Mode::Draining`]: its events are parked on disk; the oldest of them are in memory and being delivered.
//! - [`Mode::OnDisk`]: its events are parked, none is in memory; it waits for its time.
//!
//! Rules that keep the order, whatever happens between a read and a commit:
//!
//! 1. One attempt a lane at a time, always at its oldest event.
//! 2. A failing lane is parked whole. As long as rows of a lane are on disk, newer events of it are parked behind them.
//! 3. A lane whose rows changed is remembered until that change is committed: the next read then sees its rows and says so
//!    ([`Fresh::blocked`]). Between the start of a read and [`Lanes::fresh`] attempts may start and finish, but no commit is
//!    taken note of and nothing is loaded: what changed meanwhile is in memory, and memory wins.
//! 4. The cursor stands before the oldest event that is only in memory.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::worker::DAMAGED;
use crate::event::Stored;
use crate::journal::{Dead, LaneState, Park, Settlement};
use crate::journal::{Fresh, Parked, Row};

/// Events between the cursor and the newest one read, at most: bounds what is delivered again after a crash.
pub const MAX_SPAN: u64 = 16 * 1024;
/// Bytes of bodies of fresh events in memory at most; the event that crosses it is the last.
pub const MAX_HELD_BYTES: usize = 4 * 1024 * 1024;

/// An event in memory.
#[derive(Debug, Clone)]
struct Item {
    stored: Arc<Stored>,
    replay: Option<Arc<str>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Fresh,
    Draining {
        /// Rows on disk beyond those in memory.
        more: bool,
        /// Newer events were parked behind them meanwhile.
        joined: bool,
        /// The newest row that was loaded.
        loaded_to: u64,
    },
    OnDisk,
}

#[derive(Debug)]
struct Lane {
    mode: Mode,
    /// Oldest first. While an attempt is under way its event stays in front.
    queue: VecDeque<Item>,
    in_flight: bool,
    state: LaneState,
    /// The settlement until which it must be remembered.
    guard: u64,
}

/// One attempt to make.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// The lane, to report the outcome for.
    pub lane: u64,
    /// The event.
    pub stored: Arc<Stored>,
    /// The replay that asked for it, if one did.
    pub replay: Option<Arc<str>>,
    /// The lane's retry state before this attempt.
    pub state: LaneState,
}

/// What an attempt came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The sink has it.
    Delivered,
    /// To be tried again; the new retry state.
    Retry(LaneState),
    /// Given up on.
    Dead {
        /// Attempts made.
        attempts: u32,
        /// Unix milliseconds.
        died_ms: i64,
        /// Why.
        error: Arc<str>,
    },
}

/// All lanes of one sink.
#[derive(Debug)]
pub struct Lanes {
    lanes: HashMap<u64, Lane>,
    /// Lanes with an event to attempt, none under way; first come, first served.
    ready: VecDeque<u64>,
    /// Draining lanes that need more from disk.
    chunks: Vec<u64>,
    /// Fresh events that are only in memory, and their lanes.
    held: BTreeMap<u64, u64>,
    held_bytes: usize,
    max_held: usize,
    read_to: u64,
    cursor: u64,
    /// Events beyond the cursor that a run before this one parked or gave up on, before a crash.
    known: HashSet<u64>,
    /// Changes since the last settlement was taken.
    changes: Settlement,
    touched: HashMap<u64, LaneState>,
    /// Number of the settlement that [`Lanes::changes`] will become.
    settlement: u64,
    committed: u64,
    in_flight: usize,
}

impl Lanes {
    /// Nothing in memory yet; events up to `cursor`, and those in `known`, are settled, parked or dead.
    #[must_use]
    pub fn new(cursor: u64, known: HashSet<u64>, max_held: usize) -> Self {
        Self {
            lanes: HashMap::new(),
            ready: VecDeque::new(),
            chunks: Vec::new(),
            held: BTreeMap::new(),
            held_bytes: 0,
            max_held,
            read_to: cursor,
            cursor,
            known,
            changes: Settlement::default(),
            touched: HashMap::new(),
            settlement: 1,
            committed: 0,
            in_flight: 0,
        }
    }

    /// The newest event that was read.
    #[must_use]
    pub fn read_to(&self) -> u64 {
        self.read_to
    }

    /// Attempts under way.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Whether a fresh or draining lane has an event to attempt now.
    #[must_use]
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Lanes that have an event to attempt now.
    #[must_use]
    pub fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Lanes in memory.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.lanes.len()
    }

    /// How many fresh events may be read now.
    #[must_use]
    pub fn room(&self) -> usize {
        if self.held_bytes >= MAX_HELD_BYTES || self.read_to - self.oldest_held().saturating_sub(1) >= MAX_SPAN {
            return 0;
        }
        self.max_held.saturating_sub(self.held.len())
    }

    fn oldest_held(&self) -> u64 {
        self.held.first_key_value().map_or(self.read_to + 1, |(seq, _)| *seq)
    }

    /// Takes in the next event after [`Lanes::read_to`]; `wanted` says whether this sink gets it.
    pub fn fresh(&mut self, fresh: Fresh, wanted: bool, now_ms: i64) {
        self.read_to = fresh.row.seq();
        if self.known.remove(&self.read_to) {
            return;
        }
        let stored = match fresh.row {
            Row::Sound(stored) => stored,
            Row::Damaged { seq, .. } => return self.dead(seq, 0, now_ms, DAMAGED.into()),
        };
        if !wanted {
            return;
        }
        let number = stored.event.lane();
        let lane = match self.lanes.get_mut(&number) {
            Some(lane) => lane,
            None => {
                let mode = if fresh.blocked { Mode::OnDisk } else { Mode::Fresh };
                self.lanes.entry(number).or_insert_with(|| Lane::new(mode))
            }
        };
        match &mut lane.mode {
            Mode::Fresh => {
                self.held.insert(stored.seq, number);
                self.held_bytes += stored.event.body.len();
                lane.queue.push_back(Item { stored, replay: None });
                if lane.queue.len() == 1 {
                    self.ready.push_back(number);
                }
            }
            Mode::Draining { joined, .. } => {
                *joined = true;
                self.park(number, stored.seq);
            }
            Mode::OnDisk => {
                lane.guard = self.settlement;
                self.park(number, stored.seq);
            }
        }
    }

    /// Passes over a sequence number range that holds nothing.
    pub fn skip_to(&mut self, seq: u64) {
        self.read_to = self.read_to.max(seq);
    }

    fn park(&mut self, lane: u64, seq: u64) {
        self.changes.park.push(Park { lane, seq });
    }

    /// Whether a lane that is due on disk may be loaded: not while memory knows better.
    #[must_use]
    pub fn may_load(&self, lane: u64) -> bool {
        !self.lanes.contains_key(&lane)
    }

    /// Takes in the oldest parked events of a lane; `more` says that there are others behind them on disk.
    pub fn load(&mut self, number: u64, state: LaneState, parked: Vec<Parked>, more: bool, now_ms: i64) {
        let lane = self.lanes.entry(number).or_insert_with(|| Lane::new(Mode::OnDisk));
        lane.state = state;
        let loaded_to = parked.last().map_or(0, |parked| parked.row.seq());
        let joined = matches!(lane.mode, Mode::Draining { joined: true, .. });
        lane.mode = Mode::Draining { more, joined, loaded_to };
        let mut damaged = Vec::new();
        for Parked { row, replay } in parked {
            match row {
                Row::Sound(stored) => lane.queue.push_back(Item { stored, replay }),
                Row::Damaged { seq, .. } => damaged.push(seq),
            }
        }
        let empty = lane.queue.is_empty();
        for seq in damaged {
            self.changes.done.push((number, seq));
            self.dead(seq, 0, now_ms, DAMAGED.into());
        }
        if empty {
            self.drained(number);
        } else {
            self.ready.push_back(number);
        }
    }

    /// A lane that has delivered what was in memory while more is on disk: (lane, newest row loaded).
    pub fn next_chunk(&mut self) -> Option<(u64, u64)> {
        let number = self.chunks.pop()?;
        match self.lanes.get(&number)?.mode {
            Mode::Draining { loaded_to, .. } => Some((number, loaded_to)),
            _ => None,
        }
    }

    /// The chunk could not be read: it is wanted still.
    pub fn retry_chunk(&mut self, lane: u64) {
        self.chunks.push(lane);
    }

    /// The next attempt to make, if a lane is ready.
    pub fn start(&mut self) -> Option<Attempt> {
        while let Some(number) = self.ready.pop_front() {
            let Some(lane) = self.lanes.get_mut(&number) else { continue };
            let Some(item) = lane.queue.front().cloned() else { continue };
            if lane.in_flight {
                continue;
            }
            lane.in_flight = true;
            self.in_flight += 1;
            return Some(Attempt { lane: number, stored: item.stored, replay: item.replay, state: lane.state.clone() });
        }
        None
    }

    /// Records the outcome of an attempt.
    pub fn finish(&mut self, attempt: &Attempt, verdict: Verdict) {
        let number = attempt.lane;
        let seq = attempt.stored.seq;
        self.in_flight -= 1;
        let Some(lane) = self.lanes.get_mut(&number) else { return };
        lane.in_flight = false;
        match verdict {
            Verdict::Retry(state) => {
                lane.state = state;
                self.shelve(number);
            }
            Verdict::Delivered => self.settle(number, seq),
            Verdict::Dead { attempts, died_ms, error } => {
                self.dead(seq, attempts, died_ms, error);
                self.settle(number, seq);
            }
        }
    }

    /// The event in front of a lane is done with.
    fn settle(&mut self, number: u64, seq: u64) {
        let Some(lane) = self.lanes.get_mut(&number) else { return };
        lane.state = LaneState::default();
        // Not in front any more when it was purged or spilled meanwhile.
        let front = lane.queue.pop_front_if(|item| item.stored.seq == seq);
        match lane.mode {
            Mode::Fresh => {
                if self.held.remove(&seq).is_some()
                    && let Some(item) = &front
                {
                    self.held_bytes -= item.stored.event.body.len();
                }
                if !lane.queue.is_empty() {
                    self.ready.push_back(number);
                } else if lane.guard <= self.committed {
                    self.lanes.remove(&number);
                }
            }
            Mode::Draining { .. } => {
                self.changes.done.push((number, seq));
                if lane.queue.is_empty() {
                    self.drained(number);
                } else {
                    self.touched.insert(number, LaneState::default());
                    self.ready.push_back(number);
                }
            }
            Mode::OnDisk => {
                lane.guard = self.settlement;
                self.changes.done.push((number, seq));
                self.touched.insert(number, LaneState::default());
            }
        }
    }

    /// What was in memory of a parked lane is done with.
    fn drained(&mut self, number: u64) {
        let Some(lane) = self.lanes.get_mut(&number) else { return };
        self.touched.insert(number, LaneState::default());
        match lane.mode {
            Mode::Draining { more: true, .. } => self.chunks.push(number),
            Mode::Draining { joined: true, .. } => lane.mode = Mode::OnDisk,
            _ => lane.mode = Mode::Fresh,
        }
        lane.guard = self.settlement;
    }

    /// Parks a lane whole, its retry state with it.
    fn shelve(&mut self, number: u64) {
        let Some(lane) = self.lanes.get_mut(&number) else { return };
        let fresh = lane.mode == Mode::Fresh;
        let queue = std::mem::take(&mut lane.queue);
        lane.mode = Mode::OnDisk;
        lane.guard = self.settlement;
        self.touched.insert(number, lane.state.clone());
        if fresh {
            for item in queue {
                let seq = item.stored.seq;
                if self.held.remove(&seq).is_some() {
                    self.held_bytes -= item.stored.event.body.len();
                }
                self.park(number, seq);
            }
        }
    }

    /// Makes room when attempts are possible but memory is held by lanes that can't use them: parks the lane that holds
    /// the oldest event, and the one with the most events.
    pub fn spill(&mut self) {
        let oldest = self.held.first_key_value().map(|(_, lane)| *lane);
        let longest = self
            .lanes
            .iter()
            .filter(|(_, lane)| lane.mode == Mode::Fresh)
            .max_by_key(|(_, lane)| lane.queue.len())
            .map(|(number, _)| *number);
        for number in oldest.into_iter().chain(longest) {
            if self.lanes.get(&number).is_some_and(|lane| lane.mode == Mode::Fresh) {
                self.shelve(number);
            }
        }
    }

    /// Parks everything, at the end of the process: what was delivered out of turn beyond the cursor is then remembered.
    pub fn shelve_all(&mut self) {
        let fresh: Vec<u64> =
            self.lanes.iter().filter(|(_, lane)| lane.mode == Mode::Fresh).map(|(number, _)| *number).collect();
        for number in fresh {
            self.shelve(number);
        }
    }

    fn dead(&mut self, seq: u64, attempts: u32, died_ms: i64, error: Arc<str>) {
        self.changes.dead.push(Dead { seq, attempts, died_ms, error });
    }

    /// Drops purged events that are not in flight.
    pub fn purge(&mut self, purged: &HashSet<u64>) {
        let mut emptied = Vec::new();
        for (number, lane) in &mut self.lanes {
            let in_flight = lane.in_flight.then(|| lane.queue.front().map(|item| item.stored.seq)).flatten();
            let keep = |item: &Item| Some(item.stored.seq) == in_flight || !purged.contains(&item.stored.seq);
            for item in lane.queue.iter().filter(|item| !keep(item)) {
                if self.held.remove(&item.stored.seq).is_some() {
                    self.held_bytes -= item.stored.event.body.len();
                }
            }
            // One that was empty before waits for its next chunk already. A fresh one goes with the next confirmed settlement.
            let was_empty = lane.queue.is_empty();
            lane.queue.retain(keep);
            if !was_empty && lane.queue.is_empty() && matches!(lane.mode, Mode::Draining { .. }) {
                emptied.push(*number);
            }
        }
        for number in emptied {
            self.drained(number);
        }
    }

    /// What must be written down now and the number to confirm it with; `None` when there is nothing.
    pub fn take_settlement(&mut self) -> Option<(u64, Settlement)> {
        let cursor = self.oldest_held() - 1;
        if cursor > self.cursor {
            self.cursor = cursor;
            self.changes.cursor = Some(cursor);
        }
        self.changes.lanes.extend(self.touched.drain());
        if self.changes.is_empty() {
            return None;
        }
        let number = self.settlement;
        self.settlement += 1;
        Some((number, std::mem::take(&mut self.changes)))
    }

    /// A settlement is on disk; to be confirmed in the order in which they were taken.
    pub fn committed(&mut self, settlement: u64) {
        self.committed = settlement;
        self.lanes.retain(|_, lane| {
            let idle = lane.queue.is_empty() && !lane.in_flight && !matches!(lane.mode, Mode::Draining { .. });
            !(idle && lane.guard <= settlement)
        });
    }

    /// The cursor as of the last settlement taken.
    #[must_use]
    pub fn cursor(&self) -> u64 {
        self.cursor
    }
}

impl Lane {
    fn new(mode: Mode) -> Self {
        Self { mode, queue: VecDeque::new(), in_flight: false, state: LaneState::default(), guard: 0 }
    }
}

#[cfg(test)]
mod tests;
