//! From a failed attempt to a verdict: whose fault is it, and what follows for the event and for the sink? Pure: time is
//! passed in.

use std::time::{Duration, Instant};

use super::health::{Health, PROBE_CAP};
use super::lanes::{Attempt, Verdict};
use super::retry::{self, Decision, NotDead, Situation};
use crate::config::Retry;
use crate::journal::LaneState;
use crate::sink::{Failure, Fault};

/// Judges the failures of one sink.
#[derive(Debug)]
pub struct Judge {
    /// Whether the sink takes anything at all.
    pub health: Health,
    not_dead: Option<NotDead>,
    retry: Retry,
    rng: fastrand::Rng,
}

impl Judge {
    /// For a sink that nothing is known of yet.
    #[must_use]
    pub fn new(retry: Retry, rng: fastrand::Rng) -> Self {
        Self { health: Health::new(retry.base, retry.cap), not_dead: None, retry, rng }
    }

    /// Why the event that failed last isn't dead; none when it is.
    #[must_use]
    pub fn not_dead(&self) -> Option<NotDead> {
        self.not_dead
    }

    /// What follows from a failure; `now` and `now_ms` are the same time by two clocks, the latter unix milliseconds.
    pub fn failed(&mut self, attempt: &Attempt, failure: &Failure, now: Instant, now_ms: i64) -> Verdict {
        let old = &attempt.state;
        let alone = self.health.failed(attempt.stored.seq, now, &mut self.rng);
        if let Some(wait) = asks_to_wait(failure) {
            self.health.asked_to_wait(wait, now);
        }
        let counts = retry::counts(failure.fault, alone);
        let attempts = old.attempts.saturating_add(1);
        let rejections = old.rejections.saturating_add(u32::from(counts && failure.fault == Fault::Rejected));
        let age_ms = old.age_ms.saturating_add(if counts { waited_ms(old, now_ms) } else { 0 });
        let situation = Situation {
            failure,
            attempt: attempts,
            tries: rejections,
            age: Duration::from_millis(age_ms.unsigned_abs()),
            alone,
            now_ms,
        };
        let mut policy = self.retry.clone();
        if !counts {
            // The sink's fault: once it is back, nothing should wait for long.
            policy.cap = policy.cap.min(PROBE_CAP);
        }
        let decision = retry::decide(&policy, &situation, &mut self.rng);
        self.not_dead = matches!(decision, Decision::Retry { .. }).then(|| NotDead::of(failure.fault, alone));
        match decision {
            Decision::Retry { at_ms } => {
                let error = Some(failure.error.as_str().into());
                Verdict::Retry(LaneState { attempts, rejections, age_ms, last_ms: now_ms, next_ms: at_ms, error })
            }
            Decision::Dead { reason } => Verdict::Dead { attempts, died_ms: now_ms, error: reason.into() },
        }
    }
}

/// How long the event has waited since its last attempt, as far as that is finhook's own waiting: neither the time in which no
/// finhook ran nor a jump of the clock counts.
fn waited_ms(state: &LaneState, now_ms: i64) -> i64 {
    if state.last_ms == 0 {
        return 0;
    }
    // Saturating: what comes from the disk may be anything.
    let planned = state.next_ms.saturating_sub(state.last_ms).max(0);
    let late = i64::try_from(PROBE_CAP.as_millis()).unwrap_or(0);
    now_ms.saturating_sub(state.last_ms).clamp(0, planned.saturating_add(late))
}

/// How long a failed answer asks the whole sink to be left alone.
fn asks_to_wait(failure: &Failure) -> Option<Duration> {
    match failure.fault {
        Fault::Throttled => Some(failure.retry_after.map_or(retry::MIN_RETRY_AFTER, retry::clamp_retry_after)),
        Fault::Transient => failure.retry_after.map(retry::clamp_retry_after),
        Fault::Unreachable | Fault::Rejected => None,
    }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
