//! The worker of a sink that takes batches: strictly one after the other, in the order of the journal.
//!
//! Such a sink fails as a whole (a full disk, a closed pipe), so a failed batch is tried again until it is written; no event is
//! ever dead for it. The cursor moves only after the sink says that the batch is durable. What is parked for it (replays, and
//! dead letters that were retried) is written between batches.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Phase;
use super::retry::{Backoff, NotDead};
use super::worker::{Command, DAMAGED, JOURNAL_RETRY, SETTLE_EVERY, Told, Worker};
use crate::clock::now_ms;
use crate::journal::{Dead, LaneState, ReadError, Row, Settlement};
use crate::sink::{Batch, Delivery};

/// Events in one batch.
const READ: usize = 4096;
/// Parked events in one batch.
const PARKED: usize = 256;
/// Backoff after a failed batch.
const BACKOFF: Backoff = Backoff { base: Duration::from_millis(500), cap: Duration::from_secs(5) };
/// Attempts in a lane's state are not counted here: a batch has one outcome.
const ATTEMPT: u32 = 1;

struct Run {
    worker: Worker,
    /// On a blocking thread while it writes.
    sink: Option<Box<dyn Batch>>,
    /// Everything up to here is written.
    written_to: u64,
    /// Changes not yet committed.
    changes: Settlement,
    settled_at: Instant,
    /// Whether rows of this sink may be parked.
    parked: bool,
    failures: u32,
    /// No batch before this.
    not_before: Option<Instant>,
    purged: HashSet<u64>,
    rng: fastrand::Rng,
}

pub(super) async fn run(worker: Worker, sink: Box<dyn Batch>) {
    let mut run = Run {
        written_to: worker.state.cursor,
        worker,
        sink: Some(sink),
        changes: Settlement::default(),
        settled_at: Instant::now(),
        parked: true,
        failures: 0,
        not_before: None,
        purged: HashSet::new(),
        rng: fastrand::Rng::new(),
    };
    run.until_stopped().await;
}

impl Run {
    async fn until_stopped(&mut self) {
        let mut head = self.worker.journal.head();
        let mut phase = self.worker.phase.clone();
        loop {
            let now = *phase.borrow_and_update();
            let newest = *head.borrow_and_update();
            if now == Phase::Stopping {
                break;
            }
            let may_write = !self.worker.status.is_paused() && self.not_before.is_none_or(|at| Instant::now() >= at);
            let behind = self.written_to < newest || self.parked;
            if may_write && behind {
                self.not_before = None;
                let read = if self.parked { self.write_parked().await } else { self.write_fresh(newest).await };
                if let Err(error) = read {
                    self.worker.report_unreadable(&error);
                    self.failed(JOURNAL_RETRY);
                }
                if self.settled_at.elapsed() >= SETTLE_EVERY {
                    self.settle().await;
                }
                while let Ok(told) = self.worker.commands.try_recv() {
                    self.obey(told);
                }
                continue;
            }
            self.settle().await;
            if now == Phase::Draining {
                break;
            }
            tokio::select! {
                _ = head.changed(), if may_write || self.not_before.is_none() => {}
                _ = phase.changed() => {}
                Some(told) = self.worker.commands.recv() => self.obey(told),
                () = tokio::time::sleep_until(self.not_before.unwrap_or_else(Instant::now).into()), if self.not_before.is_some() => {}
            }
        }
        self.settle().await;
    }

    async fn write_fresh(&mut self, newest: u64) -> Result<(), ReadError> {
        let page = self.worker.reader.after(self.written_to, READ, None).await?;
        // An empty page is a gap that retention or a purge left.
        let last = page.last().map_or(newest, |fresh| fresh.row.seq());
        let mut deliveries = Vec::with_capacity(page.len());
        let mut dead = Vec::new();
        for fresh in page {
            match fresh.row {
                Row::Sound(stored) if !self.worker.wants(&stored) || self.purged.contains(&stored.seq) => {}
                Row::Sound(stored) => deliveries.push(Delivery { stored, attempt: ATTEMPT, replay: None }),
                Row::Damaged { seq, .. } => dead.push(self.damaged(seq)),
            }
        }
        self.purged.retain(|seq| *seq > last);
        if self.write(deliveries).await {
            self.written_to = last;
            self.changes.cursor = Some(last);
            self.changes.dead.extend(dead);
        }
        Ok(())
    }

    async fn write_parked(&mut self) -> Result<(), ReadError> {
        // What was written must be off the disk before it is read again.
        self.settle().await;
        let number = self.worker.state.number;
        let (due, _) = self.worker.reader.due(number, i64::MAX, i64::MAX, 1).await?;
        let Some(lane) = due.into_iter().next() else {
            self.parked = false;
            return Ok(());
        };
        let (page, _) = self.worker.reader.parked(number, lane.lane, 0, PARKED).await?;
        let mut settled = Vec::with_capacity(page.len());
        let mut deliveries = Vec::with_capacity(page.len());
        let mut dead = Vec::new();
        for parked in page {
            settled.push((lane.lane, parked.row.seq()));
            match parked.row {
                Row::Sound(stored) => deliveries.push(Delivery { stored, attempt: ATTEMPT, replay: parked.replay }),
                Row::Damaged { seq, .. } => dead.push(self.damaged(seq)),
            }
        }
        if self.write(deliveries).await {
            self.changes.done.extend(settled);
            self.changes.dead.extend(dead);
            self.changes.lanes.push((lane.lane, LaneState::default()));
        }
        Ok(())
    }

    fn damaged(&self, seq: u64) -> Dead {
        self.worker.report_damage(seq);
        Dead { seq, attempts: 0, died_ms: now_ms(), error: DAMAGED.into() }
    }

    /// True when all of it is durable.
    async fn write(&mut self, deliveries: Vec<Delivery>) -> bool {
        if deliveries.is_empty() {
            return true;
        }
        let Some(mut sink) = self.sink.take() else { return false };
        let events = deliveries.len();
        self.worker.status.set_in_flight(events);
        let started = Instant::now();
        let written = tokio::task::spawn_blocking(move || {
            let result = sink.write(&deliveries);
            (sink, result)
        });
        let (sink, result) = match written.await {
            Ok(done) => done,
            // End the worker, and with it the process: what it holds is unknown.
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        };
        self.sink = Some(sink);
        self.worker.status.set_in_flight(0);
        self.worker.metrics.seconds.observe(started.elapsed().as_secs_f64());
        match result {
            Ok(()) => {
                self.worker.metrics.delivered.inc_by(events as u64);
                if std::mem::take(&mut self.failures) > 0 {
                    tracing::info!(sink = self.worker.state.name, "the sink takes events again");
                    self.worker.status.clear_error();
                    self.worker.show_health(false);
                }
                true
            }
            Err(error) => {
                self.worker.metrics.failed.inc_by(events as u64);
                if self.failures == 0 {
                    tracing::error!(
                        sink = self.worker.state.name,
                        error,
                        "the sink fails; its events wait and are tried again"
                    );
                }
                self.worker.status.set_error(error.into(), Some(NotDead::Batch));
                let wait = BACKOFF.delay(self.failures + 1, &mut self.rng);
                self.failed(wait);
                false
            }
        }
    }

    fn failed(&mut self, wait: Duration) {
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(Instant::now() + wait);
        self.worker.show_health(true);
    }

    async fn settle(&mut self) {
        if self.changes.is_empty() {
            return;
        }
        self.settled_at = Instant::now();
        let changes = Arc::new(std::mem::take(&mut self.changes));
        if self.worker.settle(changes.clone()).await
            && let Some(cursor) = changes.cursor
        {
            self.worker.status.set_cursor(cursor);
        }
    }

    fn obey(&mut self, told: Told) {
        match told.command {
            Command::Pause => self.worker.status.set_paused(true),
            Command::Resume => {
                self.worker.status.set_paused(false);
                self.not_before = None;
            }
            Command::Wake => self.parked = true,
            Command::Purged(events) => self.purged.extend(events.iter().filter(|seq| **seq > self.written_to)),
        }
        self.worker.show_health(self.failures > 0);
        drop(told.obeyed);
    }
}
