//! What a relay's worker reads of the journal: fresh events from its cursor, and lanes on disk that are due.
//!
//! Fresh events are read while outcomes come in and what is ready is started: otherwise the sink would stand still for as
//! long as a read takes.

use std::pin::pin;
use std::time::Duration;

use super::Run;
use crate::clock::now_ms;
use crate::dispatch::retry;
use crate::journal::{LaneState, ReadError, Row};
use crate::sink::Relay;

/// Fresh events in one read.
const READ: usize = 256;
/// Parked events of one lane in memory.
const CHUNK: usize = 32;

impl<R: Relay> Run<R> {
    pub(super) async fn read_fresh(&mut self, newest: u64) -> Result<(), ReadError> {
        let limit = self.lanes.room().min(READ);
        let blocked_at = (self.parked > 0).then_some(self.worker.state.number);
        let reader = self.worker.reader.clone();
        let mut reading = pin!(reader.after(self.lanes.read_to(), limit, blocked_at));
        let page = loop {
            tokio::select! {
                biased;
                page = &mut reading => break page?,
                Some(joined) = self.attempts.join_next(), if !self.attempts.is_empty() => {
                    self.take_outcome(joined);
                    self.start_ready();
                }
            }
        };
        if page.is_empty() {
            // Retention or a purge left a gap.
            self.lanes.skip_to(newest);
        }
        let now_ms = now_ms();
        for fresh in page {
            let wanted = match &fresh.row {
                Row::Sound(stored) => self.worker.wants(stored),
                Row::Damaged { seq, .. } => {
                    self.worker.report_damage(*seq);
                    true
                }
            };
            self.lanes.fresh(fresh, wanted, now_ms);
        }
        Ok(())
    }

    pub(super) async fn load_due(&mut self, limit: usize) -> Result<(), ReadError> {
        let now = now_ms();
        // Lanes that memory still holds may stand in front of those that are wanted.
        let limit = limit + self.lanes.remembered();
        let horizon = now.saturating_add_unsigned(self.longest_wait().as_millis() as u64);
        let (due, next) = self.worker.reader.due(self.worker.state.number, now, horizon, limit).await?;
        let full = due.len() == limit;
        let mut loaded = false;
        for lane in due {
            if self.lanes.may_load(lane.lane) {
                self.load_chunk(lane.lane, lane.state, 0).await?;
                loaded = true;
            }
        }
        // Lanes that were passed over come back with the commit that memory waits for.
        self.next_due_ms = if loaded || full { now } else { next.unwrap_or(i64::MAX).min(horizon) };
        Ok(())
    }

    /// Whether a lane on disk may be due; also when the clock was set back, so that none waits for it to catch up.
    pub(super) fn is_due(&self, now_ms: i64) -> bool {
        let longest_ms = i64::try_from(self.longest_wait().as_millis()).unwrap_or(i64::MAX);
        let waits = self.next_due_ms.saturating_sub(now_ms);
        waits <= 0 || waits > longest_ms && self.next_due_ms < i64::MAX
    }

    /// No lane waits longer: a time beyond it is a clock that jumped.
    pub(super) fn longest_wait(&self) -> Duration {
        self.settings.retry.cap.max(retry::MAX_RETRY_AFTER)
    }

    pub(super) async fn load_chunk(&mut self, lane: u64, state: LaneState, after: u64) -> Result<(), ReadError> {
        match self.worker.reader.parked(self.worker.state.number, lane, after, CHUNK).await {
            Ok((parked, more)) => {
                for parked in &parked {
                    if let Row::Damaged { seq, .. } = parked.row {
                        self.worker.report_damage(seq);
                    }
                }
                self.lanes.load(lane, state, parked, more, now_ms());
                Ok(())
            }
            Err(error) => {
                if after > 0 {
                    self.lanes.retry_chunk(lane);
                }
                Err(error)
            }
        }
    }
}
