//! Whether and when a failed delivery is tried again: pure, without clock, store or network.
//!
//! | fault | when the sink is otherwise healthy | while the whole sink fails |
//! | --- | --- | --- |
//! | transient | retried until `max_age` after the first failure, then dead | retried, not counted |
//! | rejected | dead after [`MAX_REJECTED`] tries | retried, not counted |
//! | unreachable, throttled | retried, not counted | retried, not counted |
//!
//! So an outage of the sink, whatever its kind, turns nothing into dead letters.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock;
use crate::config::Retry;
use crate::sink::{Failure, Fault};

/// Counted tries after which an event that the sink rejects is dead.
pub const MAX_REJECTED: u32 = 3;

/// The shortest pause that a `Retry-After` can ask for.
pub const MIN_RETRY_AFTER: Duration = Duration::from_secs(1);

/// The longest pause that a `Retry-After` can ask for.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// Exponential backoff with full jitter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Longest pause after the first failure.
    pub base: Duration,
    /// Longest pause ever.
    pub cap: Duration,
}

impl Backoff {
    /// The longest pause after the `attempt`th failure in a row (from 1): `min(cap, base·2ⁿ)`, n = attempt − 1.
    #[must_use]
    pub fn ceiling(&self, attempt: u32) -> Duration {
        let factor = 1_u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX);
        self.base.saturating_mul(factor).min(self.cap)
    }

    /// A pause anywhere between zero and the ceiling, in whole milliseconds.
    #[must_use]
    pub fn delay(&self, attempt: u32, rng: &mut fastrand::Rng) -> Duration {
        Duration::from_millis(rng.u64(..=millis(self.ceiling(attempt))))
    }
}

impl From<&Retry> for Backoff {
    fn from(retry: &Retry) -> Self {
        Self { base: retry.base, cap: retry.cap }
    }
}

/// A failed attempt and what is known about those before it.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// How it failed.
    pub failure: &'a Failure,
    /// Attempts so far, this one included, however they are counted: the backoff grows with them.
    pub attempt: u32,
    /// Attempts that count, this one included if it [`counts`].
    pub tries: u32,
    /// Time since the first failure that counts, outages of the sink taken off.
    pub age: Duration,
    /// Whether only this lane fails, the sink being otherwise healthy.
    pub alone: bool,
    /// Now, in unix milliseconds.
    pub now_ms: i64,
}

/// What to do with the event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Try again.
    Retry {
        /// From then on, in unix milliseconds.
        at_ms: i64,
    },
    /// Give up.
    Dead {
        /// For the operator, with the last error.
        reason: String,
    },
}

/// Why an event that failed is tried again and isn't a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NotDead {
    /// The sink rejects it, alone among its events, but not yet three times.
    FewRejections,
    /// Its failure may pass, and `retry.max_age` is not over.
    Young,
    /// Another event failed as well and none was delivered since: it may be the sink's fault. No try counts.
    OthersFail,
    /// The sink can't be reached: that is no event's fault. No try counts.
    Unreachable,
    /// The sink asked for a pause. No try counts.
    Throttled,
    /// The sink takes whole batches, which are tried again until they are written. Nothing ever dies.
    Batch,
}

impl NotDead {
    /// For a failure, by whose fault it looks like and whether the sink is otherwise healthy.
    #[must_use]
    pub fn of(fault: Fault, alone: bool) -> Self {
        match fault {
            Fault::Unreachable => Self::Unreachable,
            Fault::Throttled => Self::Throttled,
            Fault::Transient | Fault::Rejected if !alone => Self::OthersFail,
            Fault::Rejected => Self::FewRejections,
            Fault::Transient => Self::Young,
        }
    }

    /// For people.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::FewRejections => "it is rejected, but fewer than three times: dead at the third",
            Self::Young => "its failure may pass: dead when retry.max_age is over",
            Self::OthersFail => "others fail too and none is delivered: it may be the sink's fault, so no try counts",
            Self::Unreachable => "the sink can't be reached: no try counts",
            Self::Throttled => "the sink asked for a pause: no try counts",
            Self::Batch => "batches are tried again until they are written: nothing dies",
        }
    }
}

/// Whether a failure counts against the event: only what can be the event's fault does, and only while the sink is
/// otherwise healthy.
#[must_use]
pub fn counts(fault: Fault, alone: bool) -> bool {
    matches!(NotDead::of(fault, alone), NotDead::FewRejections | NotDead::Young)
}

/// Decides by the table above.
///
/// The next try comes after the backoff, or after the sink's `Retry-After`, clamped to [`MIN_RETRY_AFTER`] …
/// [`MAX_RETRY_AFTER`], whichever is later.
#[must_use]
pub fn decide(policy: &Retry, situation: &Situation<'_>, rng: &mut fastrand::Rng) -> Decision {
    let Situation { failure, attempt, tries, age, alone, now_ms } = *situation;
    if counts(failure.fault, alone) {
        let error = &failure.error;
        if failure.fault == Fault::Rejected && tries >= MAX_REJECTED {
            return Decision::Dead { reason: format!("rejected {tries} times: {error}") };
        }
        if failure.fault == Fault::Transient && age >= policy.max_age {
            let max_age = clock::length(policy.max_age);
            return Decision::Dead { reason: format!("not delivered within {max_age}: {error}") };
        }
    }
    let backoff = Backoff::from(policy).delay(attempt, rng);
    let pause = backoff.max(failure.retry_after.map_or(Duration::ZERO, clamp_retry_after));
    Decision::Retry { at_ms: now_ms.saturating_add_unsigned(millis(pause)) }
}

/// What finhook makes of a sink's `Retry-After`.
#[must_use]
pub fn clamp_retry_after(asked: Duration) -> Duration {
    asked.clamp(MIN_RETRY_AFTER, MAX_RETRY_AFTER)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "retry_tests.rs"]
mod tests;
