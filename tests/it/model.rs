//! The delivery guarantee against a simple model: random appends, outcomes, crashes, restarts, pauses, replays and retried
//! dead letters, through the real journal and the real worker.
//!
//! What must hold at the end of every case, whatever happened in it:
//! - nothing is lost: each stored event is delivered, or dead after at least three rejections;
//! - within a conversation, first deliveries come in the order of storing;
//! - an event is delivered twice only after a crash, a lost answer, or when an operator asked for it.
//!
//! Some hundreds of cases run each time; `FINHOOK_MODEL_CASES=10000` runs as many as it says.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use finhook::config::{Match, Retry};
use finhook::dispatch::{self, Command, Handle, Phase, relay};
use finhook::journal::{Appended, DeliveryState, Filter, Journal, Order, Running};
use finhook::metrics::Metrics;
use finhook::sink::{Delivery, Failure, Fault, Outcome, Relay};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::support::events::{close, event, open, settings};

const SINK: &str = "model";
const PATIENCE: Duration = Duration::from_secs(60);
const CONCURRENCY: usize = 3;
/// More than a case has.
const MOST_EVENTS: usize = 1000;

/// What the sink does with the next attempt in a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Takes,
    /// It has the event, but its answer is lost.
    TakesAndBreaks,
    Fails,
    Rejects,
    IsUnreachable,
}

#[derive(Debug, Clone)]
enum Step {
    Append {
        conversation: u8,
    },
    Answers {
        conversation: u8,
        answers: Vec<Answer>,
    },
    /// Gives the worker time to do something.
    Breathe,
    Crash,
    Restart,
    Pause,
    Resume,
    /// Sends the n-th stored event again.
    Replay {
        nth: usize,
    },
    RetryDead,
}

#[derive(Debug, Default)]
struct World {
    /// Which of the program's lives is the present one.
    life: u32,
    script: HashMap<String, VecDeque<Answer>>,
    /// What the sink took, in the order in which it took it.
    taken: Vec<(u64, bool)>,
    /// Events whose next delivery may be a repetition.
    excused: HashSet<u64>,
    rejections: HashMap<u64, u32>,
    /// Dead letters whose retry was asked for.
    retried: HashSet<u64>,
    /// Conversations with an attempt under way, and the most of them at once.
    busy: HashSet<String>,
    overlapped: bool,
    /// What happened, for the message of a failed case.
    story: Vec<String>,
    most_at_once: usize,
}

/// The sink, as one life of the program sees it.
#[derive(Debug, Clone, Default)]
struct Sink {
    world: Arc<Mutex<World>>,
    life: u32,
}

impl Sink {
    /// `None` in a life that is over: what a killed process was about to do does not happen, though its task may be on a
    /// thread still.
    fn world(&self) -> Option<MutexGuard<'_, World>> {
        let world = self.world.lock().unwrap();
        (world.life == self.life).then_some(world)
    }
}

fn killed() -> Outcome {
    Outcome::Failed(Failure { fault: Fault::Transient, retry_after: None, error: "killed".to_owned() })
}

impl Relay for Sink {
    async fn deliver(&self, delivery: Delivery) -> Outcome {
        let conversation = delivery.stored.event.fields.conversation_id.clone().unwrap().into_string();
        let seq = delivery.stored.seq;
        let replay = {
            let Some(mut world) = self.world() else { return killed() };
            // Asked for by an operator: in no order with the rest of its conversation.
            let replay = delivery.replay.is_some() || world.retried.contains(&seq);
            if !replay {
                world.overlapped |= !world.busy.insert(conversation.clone());
            }
            world.most_at_once = world.most_at_once.max(world.busy.len());
            replay
        };
        // Other attempts get a chance to overtake this one.
        for _ in 0..fastrand::usize(..4) {
            tokio::task::yield_now().await;
        }
        let Some(mut world) = self.world() else { return killed() };
        if !replay {
            world.busy.remove(&conversation);
        }
        let answer = world.script.get_mut(&conversation).and_then(VecDeque::pop_front).unwrap_or(Answer::Takes);
        world
            .story
            .push(format!("{conversation} #{seq} attempt {} {:?}: {answer:?}", delivery.attempt, delivery.replay));
        let fault = match answer {
            Answer::Takes => {
                world.taken.push((seq, replay));
                return Outcome::Delivered;
            }
            Answer::TakesAndBreaks => {
                world.taken.push((seq, replay));
                world.excused.insert(seq);
                Fault::Transient
            }
            Answer::Fails => Fault::Transient,
            Answer::IsUnreachable => Fault::Unreachable,
            Answer::Rejects => {
                *world.rejections.entry(seq).or_default() += 1;
                Fault::Rejected
            }
        };
        Outcome::Failed(Failure { fault, retry_after: None, error: "the model says no".to_owned() })
    }
}

/// The system under test: a journal, one worker, and the sink's side of the story.
struct System {
    folder: PathBuf,
    sink: Sink,
    journal: Journal,
    running: Running,
    worker: JoinHandle<()>,
    handle: Handle,
    phase: watch::Sender<Phase>,
    /// Stored events: (seq, conversation).
    stored: Vec<(u64, u8)>,
    replays: u32,
}

impl System {
    async fn start(folder: &Path, sink: Sink, stored: Vec<(u64, u8)>, replays: u32) -> Self {
        let (journal, running) = open(&settings(folder));
        let state = journal.sink(SINK, true).await.unwrap();
        let (phase, phases) = watch::channel(Phase::Running);
        let metrics = Metrics::new().sink(SINK);
        let (worker, handle) = dispatch::Worker::new(&journal, state, Match::default(), metrics, phases).unwrap();
        let retry =
            Retry { base: Duration::from_millis(1), cap: Duration::from_millis(4), max_age: Duration::from_secs(3600) };
        let worker = worker.spawn_relay(sink.clone(), relay::Settings { concurrency: CONCURRENCY, retry, rate: 0 });
        Self { folder: folder.to_owned(), sink, journal, running, worker, handle, phase, stored, replays }
    }

    async fn again(self, crash: bool) -> Self {
        let Self { folder, mut sink, journal, running, worker, phase, stored, replays, .. } = self;
        if crash {
            worker.abort();
            let _ = worker.await;
            let mut world = sink.world.lock().unwrap();
            world.life += 1;
            sink.life = world.life;
            world.busy.clear();
            let taken: Vec<u64> = world.taken.iter().map(|(seq, _)| *seq).collect();
            world.excused.extend(taken);
        } else {
            // Ends by itself once nothing more can be delivered now.
            phase.send_replace(Phase::Draining);
            tokio::time::timeout(PATIENCE, worker).await.unwrap().unwrap();
        }
        close(journal, running).await;
        Self::start(&folder, sink, stored, replays).await
    }

    async fn take(mut self, step: &Step) -> Self {
        self.sink.world.lock().unwrap().story.push(format!("{step:?}"));
        match step {
            Step::Append { conversation } => {
                let number = self.stored.len() as u64;
                let outcome = self.journal.append(event(&format!("c{conversation}"), number)).await.unwrap();
                let Appended::Stored { seq } = outcome else { panic!("{outcome:?}") };
                self.stored.push((seq, *conversation));
            }
            Step::Answers { conversation, answers } => {
                let mut world = self.sink.world.lock().unwrap();
                world.script.entry(format!("c{conversation}")).or_default().extend(answers);
            }
            Step::Breathe => tokio::time::sleep(Duration::from_millis(3)).await,
            Step::Crash => return self.again(true).await,
            Step::Restart => return self.again(false).await,
            Step::Pause => self.set_paused(true).await,
            Step::Resume => self.set_paused(false).await,
            Step::Replay { nth } => self.replay(*nth).await,
            Step::RetryDead => self.retry_dead().await,
        }
        self
    }

    async fn set_paused(&self, paused: bool) {
        assert!(self.journal.set_paused(SINK, paused).await.unwrap());
        self.handle.tell(if paused { Command::Pause } else { Command::Resume }).await;
    }

    async fn replay(&mut self, nth: usize) {
        if self.stored.is_empty() {
            return;
        }
        let (seq, _) = self.stored[nth % self.stored.len()];
        self.replays += 1;
        let replay = format!("replay-{}", self.replays).into();
        let events = self.journal.replay(self.handle.status.number(), replay, vec![seq]).await.unwrap();
        assert_eq!(events, 1);
        self.handle.tell(Command::Wake).await;
    }

    /// Dead letters go into lanes of their own and are delivered when they are asked for: out of order by contract.
    async fn retry_dead(&mut self) {
        self.replays += 1;
        let dead = self.dead().await;
        self.sink.world.lock().unwrap().retried.extend(&dead);
        let retry = format!("retry-{}", self.replays).into();
        let step = self.journal.retry_dead(self.handle.status.number(), retry, 0).await.unwrap();
        assert_eq!(step.next, None);
        if step.events != dead.len() as u64 {
            // One died between the two questions: it can only be one that was rejected often enough.
            let mut world = self.sink.world.lock().unwrap();
            let rejected: Vec<u64> =
                world.rejections.iter().filter(|(_, times)| **times >= 3).map(|(seq, _)| *seq).collect();
            world.retried.extend(rejected);
        }
        self.handle.tell(Command::Wake).await;
    }

    async fn dead(&self) -> HashSet<u64> {
        let filter = Filter { delivery: Some(DeliveryState::Dead), ..Filter::default() };
        let reader = self.journal.reader().unwrap();
        let page = reader.list(filter, Order::Oldest, None, MOST_EVENTS, Arc::new(|_, _| true)).await.unwrap();
        assert_eq!(page.next, None);
        page.events.iter().map(|listed| listed.seq).collect()
    }

    /// The sink takes everything from now on: waits until nothing is left to deliver.
    async fn settle(&self) {
        self.sink.world.lock().unwrap().script.clear();
        self.set_paused(false).await;
        let newest = self.stored.last().map_or(0, |(seq, _)| *seq);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let report = self.journal.reader().unwrap().sinks().await.unwrap().remove(0);
            let (cursor, parked) = (report.state.cursor, report.parked);
            if cursor >= newest && parked == 0 {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "stuck: cursor {cursor} of {newest}, {parked} parked, {:?}",
                self.handle.status
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

async fn run(steps: Vec<Step>, folder: &Path) -> Result<(), TestCaseError> {
    let mut system = System::start(folder, Sink::default(), Vec::new(), 0).await;
    for step in &steps {
        system = system.take(step).await;
    }
    system.settle().await;
    let dead = system.dead().await;
    let System { sink, stored, phase, worker, journal, running, .. } = system;
    phase.send_replace(Phase::Stopping);
    worker.await.unwrap();
    close(journal, running).await;

    let world = sink.world.lock().unwrap();
    let firsts = |taken: &[(u64, bool)]| {
        let mut seen = HashSet::new();
        taken.iter().filter(|(seq, replay)| !replay && seen.insert(*seq)).map(|(seq, _)| *seq).collect::<Vec<_>>()
    };
    let first_deliveries = firsts(&world.taken);
    let ever: HashSet<u64> = world.taken.iter().map(|(seq, _)| *seq).collect();
    for (seq, _) in &stored {
        let rejected = world.rejections.get(seq).copied().unwrap_or(0);
        prop_assert!(
            ever.contains(seq) || (dead.contains(seq) && rejected >= 3),
            "{seq} is lost: dead {}, rejected {rejected} times, {:?}",
            dead.contains(seq),
            world.taken
        );
    }
    let conversation: HashMap<u64, u8> = stored.iter().copied().collect();
    let mut newest = HashMap::new();
    for seq in &first_deliveries {
        let before = newest.insert(conversation[seq], *seq).unwrap_or(0);
        prop_assert!(before < *seq, "{seq} came after {before}: {:#?}", world.story);
    }
    let mut times: HashMap<u64, u32> = HashMap::new();
    for (seq, replay) in &world.taken {
        if !replay {
            *times.entry(*seq).or_default() += 1;
        }
    }
    for (seq, times) in times {
        prop_assert!(
            times == 1 || world.excused.contains(&seq),
            "{seq} was delivered {times} times: {:#?}",
            world.story
        );
    }
    prop_assert!(!world.overlapped, "two attempts in one conversation at once");
    prop_assert!(world.most_at_once <= CONCURRENCY);
    Ok(())
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let conversation = 0_u8..4;
    let answer = prop_oneof![
        4 => Just(Answer::Takes),
        2 => Just(Answer::TakesAndBreaks),
        4 => Just(Answer::Fails),
        4 => Just(Answer::Rejects),
        2 => Just(Answer::IsUnreachable),
    ];
    let step = prop_oneof![
        12 => conversation.clone().prop_map(|conversation| Step::Append { conversation }),
        5 => (conversation, prop::collection::vec(answer, 1..6))
            .prop_map(|(conversation, answers)| Step::Answers { conversation, answers }),
        4 => Just(Step::Breathe),
        2 => Just(Step::Crash),
        1 => Just(Step::Restart),
        1 => Just(Step::Pause),
        2 => Just(Step::Resume),
        2 => any::<usize>().prop_map(|nth| Step::Replay { nth }),
        1 => Just(Step::RetryDead),
    ];
    prop::collection::vec(step, 1..40)
}

/// In memory where there is such a folder: the model is about order and loss, not about the disk.
fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

#[test]
fn nothing_is_lost_doubled_or_out_of_order_whatever_happens() {
    let cases = std::env::var("FINHOOK_MODEL_CASES").ok().map_or(300, |cases| cases.parse().unwrap());
    let config = Config { cases, failure_persistence: None, max_shrink_time: 60_000, ..Config::default() };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    TestRunner::new(config)
        .run(&steps(), |steps| {
            let folder = scratch();
            runtime.block_on(run(steps, folder.path()))
        })
        .unwrap();
}
