//! The lanes against a plain simulation of everything around them: a journal in memory, attempts that end at any time, commits
//! that reach the disk before or after they are noted, crashes, replays and purges.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::event::{Event, Fields, Kind, Parts};
use crate::journal::LaneState;

const CONVERSATIONS: u64 = 4;
const CONCURRENCY: usize = 2;
const MAX_HELD: usize = 5;
const CHUNK: usize = 2;

/// What outlasts a crash.
#[derive(Debug, Default)]
struct Disk {
    events: BTreeMap<u64, Arc<Stored>>,
    damaged: BTreeSet<u64>,
    cursor: u64,
    /// By lane: seq, and the replay that asked for it.
    parked: BTreeMap<u64, BTreeMap<u64, Option<Arc<str>>>>,
    dead: BTreeSet<u64>,
}

impl Disk {
    fn row(&self, seq: u64) -> Row {
        let stored = &self.events[&seq];
        if self.damaged.contains(&seq) {
            return Row::Damaged { seq, lane: stored.event.lane() };
        }
        Row::Sound(stored.clone())
    }

    fn apply(&mut self, settlement: &Settlement) {
        for Park { lane, seq } in settlement.park.iter().filter(|park| self.events.contains_key(&park.seq)) {
            self.parked.entry(*lane).or_default().entry(*seq).or_insert(None);
        }
        for (lane, seq) in &settlement.done {
            if let Some(rows) = self.parked.get_mut(lane) {
                rows.remove(seq);
            }
        }
        self.parked.retain(|_, rows| !rows.is_empty());
        self.dead.extend(settlement.dead.iter().map(|dead| dead.seq).filter(|seq| self.events.contains_key(seq)));
        self.cursor = self.cursor.max(settlement.cursor.unwrap_or(0));
    }

    fn is_parked(&self, seq: u64) -> bool {
        self.parked.values().any(|rows| rows.contains_key(&seq))
    }
}

struct Simulation {
    rng: fastrand::Rng,
    disk: Disk,
    lanes: Lanes,
    in_flight: Vec<Attempt>,
    /// A settlement that was taken, and whether it has reached the disk.
    settling: Option<(u64, Settlement, bool)>,
    /// First deliveries in their order, replays aside, for each life between two crashes.
    lives: Vec<Vec<u64>>,
    /// How often each event was delivered, replays aside.
    times: HashMap<u64, u32>,
    /// May be delivered again: a crash came after it.
    excused: HashSet<u64>,
    gone: HashSet<u64>,
    replays: u64,
    /// Replays that are still to be delivered: (event, replay).
    asked: HashSet<(u64, Arc<str>)>,
    story: Vec<String>,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        Self {
            rng: fastrand::Rng::with_seed(seed),
            disk: Disk::default(),
            lanes: Lanes::new(0, HashSet::new(), MAX_HELD),
            in_flight: Vec::new(),
            settling: None,
            lives: vec![Vec::new()],
            times: HashMap::new(),
            excused: HashSet::new(),
            gone: HashSet::new(),
            replays: 0,
            asked: HashSet::new(),
            story: Vec::new(),
        }
    }

    fn step(&mut self) {
        match self.rng.u8(..100) {
            0..20 => self.append(),
            20..38 => self.read(),
            38..58 => self.start(),
            58..72 => self.finish(),
            72..78 => self.take_settlement(),
            78..84 => self.apply(),
            84..89 => self.note(),
            89..95 => self.load(),
            95 => self.replay(),
            96 => self.purge(),
            97 => self.crash(),
            98 => self.lanes.spill(),
            _ => self.damage(),
        }
        self.check();
    }

    fn say(&mut self, what: impl FnOnce() -> String) {
        self.story.push(what());
    }

    fn append(&mut self) {
        let seq =
            self.disk.events.keys().max().copied().unwrap_or(0).max(self.gone.iter().max().copied().unwrap_or(0)) + 1;
        let conversation = self.rng.u64(..CONVERSATIONS).to_string();
        let fields = Fields { conversation_id: Some(conversation.into()), ..Fields::default() };
        let event = Event::from_journal(Parts {
            id: uuid::Uuid::from_u128(seq.into()),
            kind: Kind::Event,
            endpoint: "fin".into(),
            received_ms: 0,
            created_ms: 0,
            fields,
            content_type: None,
            signature: None,
            body: vec![b'x'; 10].into(),
        });
        self.disk.events.insert(seq, Arc::new(Stored { seq, event }));
    }

    /// One page of fresh events. Between reading it and taking it in, outcomes may come, attempts may start, and a commit
    /// may reach the disk; none is noted.
    fn read(&mut self) {
        let room = self.lanes.room().min(3);
        let after = self.lanes.read_to();
        let page: Vec<Fresh> = self
            .disk
            .events
            .range(after + 1..)
            .take(room)
            .map(|(seq, stored)| {
                let blocked = self.disk.parked.contains_key(&stored.event.lane());
                Fresh { row: self.disk.row(*seq), blocked }
            })
            .collect();
        for _ in 0..self.rng.u8(..3) {
            match self.rng.u8(..3) {
                0 => self.start(),
                1 => self.finish(),
                _ => self.apply(),
            }
        }
        for fresh in page {
            self.say(|| format!("read {} blocked {}", fresh.row.seq(), fresh.blocked));
            self.lanes.fresh(fresh, true, 0);
        }
    }

    fn start(&mut self) {
        if self.lanes.in_flight() >= CONCURRENCY {
            return;
        }
        let Some(attempt) = self.lanes.start() else { return };
        self.say(|| format!("start {} in {} for {:?}", attempt.stored.seq, attempt.lane, attempt.replay));
        assert!(self.in_flight.iter().all(|other| other.lane != attempt.lane), "two in one lane: {:#?}", self.story);
        if attempt.replay.is_none() {
            let before = |seq: &u64| {
                *seq < attempt.stored.seq
                    && self.disk.events[seq].event.lane() == attempt.lane
                    && !self.times.contains_key(seq)
                    && !self.disk.dead.contains(seq)
                    && !self.dies(*seq)
                    && !self.disk.damaged.contains(seq)
            };
            let skipped = self.disk.events.keys().find(|seq| before(seq));
            assert_eq!(skipped, None, "{} is started before it: {:#?}", attempt.stored.seq, self.story);
        }
        self.in_flight.push(attempt);
    }

    /// Whether an event is given up on by changes that are not on disk yet.
    fn dies(&self, seq: u64) -> bool {
        let taken = self.settling.as_ref().map_or(&[][..], |(_, settlement, _)| &settlement.dead);
        taken.iter().chain(&self.lanes.changes.dead).any(|dead| dead.seq == seq)
    }

    fn finish(&mut self) {
        if self.in_flight.is_empty() {
            return;
        }
        let attempt = self.in_flight.swap_remove(self.rng.usize(..self.in_flight.len()));
        let seq = attempt.stored.seq;
        let verdict = match self.rng.u8(..10) {
            0..6 => Verdict::Delivered,
            6..9 => Verdict::Retry(LaneState { attempts: attempt.state.attempts + 1, ..LaneState::default() }),
            _ => Verdict::Dead { attempts: 3, died_ms: 0, error: "no".into() },
        };
        self.say(|| format!("finish {seq} in {}: {verdict:?}", attempt.lane));
        match (&verdict, &attempt.replay) {
            (Verdict::Retry(_), _) | (Verdict::Dead { .. }, None) => {}
            (Verdict::Delivered, None) => self.delivered(seq),
            (_, Some(replay)) => {
                self.asked.remove(&(seq, replay.clone()));
            }
        }
        self.lanes.finish(&attempt, verdict);
    }

    fn delivered(&mut self, seq: u64) {
        let times = self.times.entry(seq).or_default();
        *times += 1;
        if *times == 1 {
            self.lives.last_mut().unwrap().push(seq);
        }
    }

    fn take_settlement(&mut self) {
        if self.settling.is_none()
            && let Some((number, settlement)) = self.lanes.take_settlement()
        {
            self.say(|| format!("take {settlement:?}"));
            self.settling = Some((number, settlement, false));
        }
    }

    fn apply(&mut self) {
        if let Some((_, settlement, applied)) = &mut self.settling
            && !*applied
        {
            *applied = true;
            self.disk.apply(settlement);
            self.story.push("on disk".to_owned());
            self.check_cursor();
        }
    }

    fn note(&mut self) {
        if let Some((number, ..)) = self.settling.take_if(|(.., applied)| *applied) {
            self.story.push("noted".to_owned());
            self.lanes.committed(number);
        }
    }

    fn load(&mut self) {
        if let Some((lane, after)) = self.lanes.next_chunk() {
            self.load_chunk(lane, after);
            return;
        }
        let due: Vec<u64> = self.disk.parked.keys().copied().filter(|lane| self.lanes.may_load(*lane)).collect();
        if !due.is_empty() {
            let lane = due[self.rng.usize(..due.len())];
            self.load_chunk(lane, 0);
        }
    }

    fn load_chunk(&mut self, lane: u64, after: u64) {
        let empty = BTreeMap::new();
        let rows = self.disk.parked.get(&lane).unwrap_or(&empty);
        let mut page: Vec<Parked> = rows
            .range(after + 1..)
            .take(CHUNK + 1)
            .map(|(seq, replay)| Parked { row: self.disk.row(*seq), replay: replay.clone() })
            .collect();
        let more = page.len() > CHUNK;
        page.truncate(CHUNK);
        for parked in &page {
            // A replay of what can't be read ends as well.
            if let (Row::Damaged { seq, .. }, Some(replay)) = (&parked.row, &parked.replay) {
                self.asked.remove(&(*seq, replay.clone()));
            }
        }
        self.story.push(format!(
            "load {lane} after {after}: {:?} more {more}",
            page.iter().map(|p| p.row.seq()).collect::<Vec<_>>()
        ));
        self.lanes.load(lane, LaneState::default(), page, more, 0);
    }

    fn replay(&mut self) {
        let known: Vec<u64> = self.disk.events.range(..=self.disk.cursor).map(|(seq, _)| *seq).collect();
        if known.is_empty() {
            return;
        }
        let seq = known[self.rng.usize(..known.len())];
        self.replays += 1;
        let replay: Arc<str> = format!("replay-{}", self.replays).into();
        self.disk.parked.entry(self.replays).or_default().insert(seq, Some(replay.clone()));
        self.asked.insert((seq, replay));
        self.story.push(format!("replay {seq} in {}", self.replays));
    }

    fn purge(&mut self) {
        let known: Vec<u64> = self.disk.events.keys().copied().collect();
        if known.is_empty() {
            return;
        }
        let seq = known[self.rng.usize(..known.len())];
        self.disk.events.remove(&seq);
        self.disk.dead.remove(&seq);
        for rows in self.disk.parked.values_mut() {
            rows.remove(&seq);
        }
        self.disk.parked.retain(|_, rows| !rows.is_empty());
        self.gone.insert(seq);
        self.asked.retain(|(asked, _)| *asked != seq);
        self.story.push(format!("purge {seq}"));
        self.lanes.purge(&[seq].into());
    }

    fn damage(&mut self) {
        // Only what was not read yet: what is in memory is sound.
        let next = self.lanes.read_to() + 1;
        if self.disk.events.contains_key(&next) && self.rng.u8(..3) == 0 {
            self.disk.damaged.insert(next);
            self.story.push(format!("damage {next}"));
        }
    }

    fn crash(&mut self) {
        if let Some((_, settlement, false)) = self.settling.take()
            && self.rng.bool()
        {
            self.disk.apply(&settlement);
        }
        self.excused.extend(self.times.keys());
        self.lives.push(Vec::new());
        self.in_flight.clear();
        let cursor = self.disk.cursor;
        let parked = self.disk.parked.values().flatten().filter(|(_, replay)| replay.is_none()).map(|(seq, _)| *seq);
        let known: HashSet<u64> = parked.chain(self.disk.dead.iter().copied()).filter(|seq| *seq > cursor).collect();
        self.say(|| format!("crash: cursor {cursor}, known {known:?}"));
        self.lanes = Lanes::new(cursor, known, MAX_HELD);
    }

    /// What must hold at every moment.
    fn check(&self) {
        assert!(self.lanes.in_flight() <= CONCURRENCY);
        assert!(self.lanes.held.len() <= MAX_HELD, "memory: {:#?}", self.story);
        let bytes: usize =
            self.lanes.held.keys().map(|seq| self.disk.events.get(seq).map_or(0, |e| e.event.body.len())).sum();
        assert!(self.lanes.held_bytes >= bytes && self.lanes.held_bytes <= MAX_HELD * 10);
    }

    /// Everything up to the cursor is delivered, parked or dead.
    fn check_cursor(&self) {
        for seq in self.disk.events.range(..=self.disk.cursor).map(|(seq, _)| *seq) {
            let settled = self.times.contains_key(&seq) || self.disk.is_parked(seq) || self.disk.dead.contains(&seq);
            assert!(settled, "the cursor {} has passed {seq}: {:#?}", self.disk.cursor, self.story);
        }
    }

    /// The sink takes everything from now on.
    fn settle(&mut self) {
        for _ in 0..100_000 {
            self.read();
            self.load();
            if self.lanes.room() == 0 && !self.lanes.has_ready() {
                self.lanes.spill();
            }
            self.start();
            while let Some(attempt) = self.in_flight.pop() {
                let seq = attempt.stored.seq;
                match &attempt.replay {
                    Some(replay) => {
                        self.asked.remove(&(seq, replay.clone()));
                    }
                    None => self.delivered(seq),
                }
                self.lanes.finish(&attempt, Verdict::Delivered);
            }
            self.take_settlement();
            self.apply();
            self.note();
            let newest = self.disk.events.keys().max().copied().unwrap_or(0);
            if self.disk.cursor >= newest && self.disk.parked.is_empty() && self.settling.is_none() {
                return;
            }
        }
        panic!("stuck: cursor {}, parked {:?}, {:#?}", self.disk.cursor, self.disk.parked, self.story);
    }
}

/// `PROPTEST_CASES` asks for more.
fn cases() -> ProptestConfig {
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    ProptestConfig { cases: config.cases.max(1000), ..config }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn nothing_is_lost_repeated_or_out_of_order_whatever_comes_between(seed: u64, steps in 1_usize..300) {
        let mut simulation = Simulation::new(seed);
        for _ in 0..steps {
            simulation.step();
        }
        simulation.settle();

        let Simulation { disk, lives, times, excused, asked, story, mut lanes, .. } = simulation;
        for seq in disk.events.keys() {
            prop_assert!(times.contains_key(seq) || disk.dead.contains(seq), "{seq} is lost: {story:#?}");
        }
        for (seq, times) in &times {
            prop_assert!(*times == 1 || excused.contains(seq), "{seq} came {times} times: {story:#?}");
        }
        let lane = |seq: &u64| disk.events.get(seq).map(|stored| stored.event.lane());
        // A crash may forget that one was given up on: it comes after what came after it.
        for life in &lives {
            let mut newest = HashMap::new();
            for seq in life {
                // Of what was purged nobody knows the conversation any more.
                let Some(lane) = lane(seq) else { continue };
                let before = newest.insert(lane, *seq).unwrap_or(0);
                prop_assert!(before < *seq, "{seq} came after {before}: {story:#?}");
            }
        }
        prop_assert!(asked.is_empty(), "replays that were never delivered: {asked:?}, {story:#?}");
        lanes.committed(lanes.settlement);
        prop_assert_eq!((lanes.remembered(), lanes.held_bytes), (0, 0), "memory is not given back: {:#?}", story);
    }
}

#[test]
fn a_purge_does_not_ask_a_second_time_for_a_chunk_that_a_lane_waits_for() {
    let mut simulation = Simulation::new(1);
    simulation.append();
    let stored = simulation.disk.events[&1].clone();
    let lane = stored.event.lane();
    let lanes = &mut simulation.lanes;
    lanes.load(lane, LaneState::default(), vec![Parked { row: Row::Sound(stored), replay: None }], true, 0);
    let attempt = lanes.start().unwrap();
    lanes.finish(&attempt, Verdict::Delivered);
    lanes.purge(&[99].into());
    assert_eq!((lanes.next_chunk(), lanes.next_chunk()), (Some((lane, 1)), None));
}
