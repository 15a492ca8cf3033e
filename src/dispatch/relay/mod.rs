//! The worker of a sink that takes one event at a time, several conversations at once.
//!
//! One task owns everything: it reads, starts attempts, takes in their outcomes and writes the journal's delivery state. Attempts
//! and commits run beside it. No commit is taken note of between asking the journal and acting on its answer, so that
//! every lane whose rows the answer may lack is still remembered (see [`lanes`](super::lanes)). What is read, and when, is in
//! [`loading`].

mod loading;
mod pace;

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::sleep_until;

use super::Phase;
use super::judge::Judge;
use super::lanes::{Attempt, Lanes, Verdict};
use super::worker::{Command, JOURNAL_RETRY, SETTLE_EVERY, Told, Worker};
use crate::clock::now_ms;
use crate::config::Retry;
use crate::journal::{LaneState, Settlement};
use crate::sink::{Delivery, Failure, Outcome, Relay};
use pace::Pace;

/// Fresh events in memory for each conversation that may be in flight.
const HELD_PER_SLOT: usize = 8;
/// Fresh events in memory at least.
const MIN_HELD: usize = 512;
/// Longest sleep of an idle worker; only a guard against clocks that jump.
const MAX_SLEEP: Duration = Duration::from_secs(60);

/// What the worker needs to know of its sink.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Conversations in flight at once.
    pub concurrency: usize,
    /// When and how long to retry.
    pub retry: Retry,
    /// Attempts a second at most; 0: no limit.
    pub rate: u64,
}

/// A settlement on its way to the disk.
struct Settling {
    number: u64,
    settlement: Arc<Settlement>,
    /// Whether it was written.
    commit: Pin<Box<dyn Future<Output = bool> + Send>>,
}

struct Run<R> {
    worker: Worker,
    relay: Arc<R>,
    settings: Settings,
    lanes: Lanes,
    judge: Judge,
    pace: Pace,
    attempts: JoinSet<(Attempt, Outcome, Duration)>,
    settling: Option<Settling>,
    settled_at: Instant,
    /// Rows in `parked`, those of changes not yet committed included.
    parked: i64,
    /// The earliest time at which a lane on disk may be due, unix milliseconds.
    next_due_ms: i64,
    /// Something was delivered since the last failure.
    recovering: bool,
    /// Takes turns between fresh events and lanes that are due.
    turn: bool,
    /// After a failed read: when to try again.
    read_again: Option<Instant>,
}

pub(super) async fn run<R: Relay>(worker: Worker, relay: Arc<R>, settings: Settings) {
    let known = loop {
        match worker.reader.beyond(worker.state.number, worker.state.cursor).await {
            Ok(known) => break known,
            Err(error) => {
                worker.report_unreadable(&error);
                tokio::time::sleep(JOURNAL_RETRY).await;
            }
        }
    };
    let held = (settings.concurrency * HELD_PER_SLOT).max(MIN_HELD);
    let mut run = Run {
        lanes: Lanes::new(worker.state.cursor, known, held),
        judge: Judge::new(settings.retry.clone(), fastrand::Rng::new()),
        pace: Pace::new(settings.rate, Instant::now()),
        attempts: JoinSet::new(),
        settling: None,
        settled_at: Instant::now(),
        parked: 0,
        next_due_ms: 0,
        recovering: false,
        turn: false,
        read_again: None,
        worker,
        relay,
        settings,
    };
    run.count_parked().await;
    run.until_stopped().await;
}

impl<R: Relay> Run<R> {
    async fn until_stopped(&mut self) {
        let mut head = self.worker.journal.head();
        let mut phase = self.worker.phase.clone();
        loop {
            let now = *phase.borrow_and_update();
            let newest = *head.borrow_and_update();
            if now == Phase::Stopping {
                break;
            }
            self.fill(newest).await;
            self.settle_if_due();
            if now == Phase::Draining && self.is_caught_up(newest) {
                break;
            }
            let wake = self.wake_at();
            tokio::select! {
                Some(joined) = self.attempts.join_next(), if !self.attempts.is_empty() => {
                    self.take_outcome(joined);
                    while let Some(joined) = self.attempts.try_join_next() {
                        self.take_outcome(joined);
                    }
                }
                written = written(&mut self.settling), if self.settling.is_some() => self.committed(written).await,
                _ = head.changed() => {}
                _ = phase.changed() => {}
                Some(told) = self.worker.commands.recv() => self.obey(told).await,
                () = sleep_until(wake.into()) => {}
            }
        }
        self.finish().await;
    }

    /// Nothing is left that could be delivered now.
    fn is_caught_up(&self, newest: u64) -> bool {
        let stuck = self.worker.status.is_paused() || self.judge.health.is_paused();
        self.lanes.in_flight() == 0
            && self.settling.is_none()
            && (stuck || self.lanes.read_to() >= newest && !self.lanes.has_ready())
    }

    /// Starts attempts until nothing more may or can be started.
    async fn fill(&mut self, newest: u64) {
        if self.worker.status.is_paused() || self.read_again.is_some_and(|at| Instant::now() < at) {
            return;
        }
        self.read_again = None;
        loop {
            if self.is_full() {
                break;
            }
            self.turn = !self.turn;
            let due = self.parked > 0 && self.is_due(now_ms());
            let unread = self.lanes.room() > 0 && self.lanes.read_to() < newest;
            // Nothing is loaded beyond what the slots can take next: what is due may be any number of lanes.
            let wanted = self.settings.concurrency.saturating_sub(self.lanes.ready());
            let result = if let Some((lane, after)) = self.lanes.next_chunk() {
                self.load_chunk(lane, LaneState::default(), after).await
            } else if wanted > 0 && due && (self.turn || !unread) {
                self.load_due(wanted).await
            } else if wanted > 0 && unread {
                self.read_fresh(newest).await
            } else {
                Ok(())
            };
            if let Err(error) = result {
                self.worker.report_unreadable(&error);
                self.read_again = Some(Instant::now() + JOURNAL_RETRY);
                break;
            }
            // During a read outcomes come in, and what is ready is started.
            if self.is_full() {
                break;
            }
            if let Some(attempt) = self.lanes.start() {
                self.spawn(attempt);
            } else if self.lanes.room() == 0 && self.lanes.read_to() < newest {
                // Slots are free, but what is in memory belongs to lanes that are busy: others must not wait for them.
                self.lanes.spill();
            } else if !(self.lanes.read_to() < newest || self.parked > 0 && self.is_due(now_ms())) {
                break;
            }
        }
        self.worker.status.set_in_flight(self.lanes.in_flight());
        self.worker.show_health(self.judge.health.is_paused());
    }

    /// Starts what is in memory, as far as slots are free.
    fn start_ready(&mut self) {
        while !self.is_full()
            && let Some(attempt) = self.lanes.start()
        {
            self.spawn(attempt);
        }
    }

    /// As many attempts are under way as may be: the sink's `concurrency`, less while it is probed, none while its `rate` is
    /// used up.
    fn is_full(&mut self) -> bool {
        let now = Instant::now();
        self.lanes.in_flight() >= self.judge.health.allowance(self.settings.concurrency, now)
            || self.pace.next_after(now).is_some()
    }

    fn spawn(&mut self, attempt: Attempt) {
        debug_assert!(self.lanes.in_flight() <= self.settings.concurrency);
        self.pace.started(Instant::now());
        let relay = self.relay.clone();
        self.attempts.spawn(async move {
            let delivery = Delivery {
                stored: attempt.stored.clone(),
                attempt: attempt.state.attempts + 1,
                replay: attempt.replay.clone(),
            };
            let started = Instant::now();
            let outcome = relay.deliver(delivery).await;
            (attempt, outcome, started.elapsed())
        });
    }

    fn take_outcome(&mut self, joined: Result<(Attempt, Outcome, Duration), tokio::task::JoinError>) {
        let (attempt, outcome, took) = match joined {
            Ok(done) => done,
            // The attempt's event would be in flight for ever: end the worker, and with it the process.
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        };
        self.worker.metrics.seconds.observe(took.as_secs_f64());
        let verdict = match outcome {
            Outcome::Delivered => {
                self.worker.metrics.delivered.inc();
                self.recovering = true;
                if self.judge.health.succeeded() {
                    tracing::info!(sink = self.worker.state.name, "the sink takes events again");
                }
                Verdict::Delivered
            }
            Outcome::Failed(failure) => self.judge(&attempt, &failure),
        };
        self.lanes.finish(&attempt, verdict);
        self.worker.status.set_in_flight(self.lanes.in_flight());
    }

    fn judge(&mut self, attempt: &Attempt, failure: &Failure) -> Verdict {
        let sink = &*self.worker.state.name;
        self.recovering = false;
        let was_paused = self.judge.health.is_paused();
        let verdict = self.judge.failed(attempt, failure, Instant::now(), now_ms());
        self.worker.status.set_error(failure.error.as_str().into(), self.judge.not_dead());
        if self.judge.health.is_paused() && !was_paused {
            let error = &*failure.error;
            tracing::warn!(sink, error, "the sink is paused and probed until it takes events again");
        }
        match &verdict {
            Verdict::Dead { attempts, error, .. } => {
                self.worker.metrics.dead.inc();
                let id = attempt.stored.event.id;
                let what = "dead letter: kept until `finhook sinks retry-dead` or `finhook events purge`";
                tracing::error!(sink, %id, attempts, reason = &**error, "{what}");
            }
            Verdict::Retry(state) => {
                self.worker.metrics.failed.inc();
                self.next_due_ms = self.next_due_ms.min(state.next_ms);
            }
            Verdict::Delivered => {}
        }
        verdict
    }

    fn settle_if_due(&mut self) {
        let idle = self.lanes.in_flight() == 0;
        if self.settling.is_some() || !(idle || self.settled_at.elapsed() >= SETTLE_EVERY) {
            return;
        }
        self.settled_at = Instant::now();
        if let Some((number, settlement)) = self.lanes.take_settlement() {
            self.parked += settlement.park.len() as i64 - settlement.done.len() as i64;
            if self.recovering && self.parked == 0 {
                self.recovering = false;
                self.worker.status.clear_error();
            }
            let settlement = Arc::new(settlement);
            let commit = Box::pin(self.worker.settle(settlement.clone()));
            self.settling = Some(Settling { number, settlement, commit });
        }
    }

    async fn committed(&mut self, written: bool) {
        let Some(settling) = self.settling.take() else { return };
        if !written {
            // The process is about to end; what was not written down is delivered again.
            let _ = self.worker.phase.wait_for(|phase| *phase == Phase::Stopping).await;
            return;
        }
        self.lanes.committed(settling.number);
        if !settling.settlement.park.is_empty() || !settling.settlement.lanes.is_empty() {
            // Lanes that were passed over until now may be due.
            self.next_due_ms = 0;
        }
        self.worker.status.set_cursor(self.lanes.cursor());
        self.worker.status.set_parked(self.parked);
    }

    async fn obey(&mut self, told: Told) {
        match told.command {
            Command::Pause => self.worker.status.set_paused(true),
            Command::Resume => {
                self.worker.status.set_paused(false);
                self.judge.health.reopen();
            }
            Command::Wake => self.count_parked().await,
            Command::Purged(events) => {
                self.lanes.purge(&events);
                self.count_parked().await;
            }
        }
        self.worker.show_health(self.judge.health.is_paused());
        drop(told.obeyed);
    }

    /// Counts what is on disk. Changes under way are committed first, so that none is counted twice.
    async fn count_parked(&mut self) {
        while self.settling.is_some() {
            let written = written(&mut self.settling).await;
            self.committed(written).await;
        }
        self.next_due_ms = 0;
        match self.worker.reader.count_parked(self.worker.state.number).await {
            Ok(parked) => self.parked = parked,
            // Assume that there are some: costs a look-up an event, no correctness.
            Err(_) => self.parked = self.parked.max(1),
        }
        self.worker.status.set_parked(self.parked);
    }

    fn wake_at(&self) -> Instant {
        let now = Instant::now();
        let mut wake = now + MAX_SLEEP;
        if self.settling.is_none() && self.lanes.in_flight() > 0 {
            wake = wake.min((self.settled_at + SETTLE_EVERY).max(now));
        }
        if self.worker.status.is_paused() {
            return wake;
        }
        if let Some(at) = self.read_again {
            wake = wake.min(at);
        }
        let paced = self.pace.next_after(now);
        if let Some(at) = paced {
            wake = wake.min(at);
        }
        let full = self.lanes.in_flight() >= self.settings.concurrency || paced.is_some();
        if self.parked > 0 && !full && !self.judge.health.is_paused() {
            let wait = u64::try_from(self.next_due_ms.saturating_sub(now_ms())).unwrap_or(0);
            wake = wake.min(now + Duration::from_millis(wait.max(1)));
        }
        if let Some(at) = self.judge.health.wakes_at()
            && self.lanes.in_flight() == 0
        {
            wake = wake.min(at);
        }
        wake
    }

    /// The last settlement. Attempts under way are abandoned.
    async fn finish(&mut self) {
        while let Some(joined) = self.attempts.try_join_next() {
            self.take_outcome(joined);
        }
        self.attempts.shutdown().await;
        while let Some(settling) = self.settling.take() {
            if settling.commit.await {
                self.lanes.committed(settling.number);
            }
        }
        self.lanes.shelve_all();
        if let Some((_, settlement)) = self.lanes.take_settlement() {
            self.worker.settle(Arc::new(settlement)).await;
        }
    }
}

async fn written(settling: &mut Option<Settling>) -> bool {
    match settling {
        Some(settling) => settling.commit.as_mut().await,
        None => std::future::pending().await,
    }
}
