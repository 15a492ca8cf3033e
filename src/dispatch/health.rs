//! Tells a sink's fault from an event's: a run of failures over distinct events pauses the sink. Pure: time is passed in.
//!
//! While a sink is paused one attempt at a time probes it, with backoff; the first success reopens it. As long as more
//! than one event fails with no success between, no failure counts against an event: an outage kills nothing.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::retry::Backoff;

/// Distinct events in one run of failures that pause a sink. Large enough that a sink which fails three in ten at random is
/// not paused by chance (0.3^16 = 4e-9).
pub const PAUSE_AFTER: usize = 16;
/// Failures in one run that pause a sink even when they are of few events.
const PAUSE_AFTER_FAILURES: u32 = 2 * PAUSE_AFTER as u32;
/// A paused sink is probed at least this often.
pub const PROBE_CAP: Duration = Duration::from_secs(30);

/// The health of one sink.
#[derive(Debug)]
pub struct Health {
    backoff: Backoff,
    /// Events that failed since the last success; no more than [`PAUSE_AFTER`] are remembered.
    failing: HashSet<u64>,
    failures: u32,
    pause: Option<Pause>,
}

#[derive(Debug, Clone, Copy)]
struct Pause {
    until: Instant,
    probes: u32,
    /// Asked for by the sink (429, `Retry-After`) and not earned by a run of failures: over when its time is.
    asked: bool,
}

impl Health {
    /// A healthy sink; `base` and `cap` are those of its retries.
    #[must_use]
    pub fn new(base: Duration, cap: Duration) -> Self {
        let backoff = Backoff { base, cap: cap.min(PROBE_CAP) };
        Self { backoff, failing: HashSet::new(), failures: 0, pause: None }
    }

    /// Something was delivered. True when that ends a pause.
    pub fn succeeded(&mut self) -> bool {
        self.failing.clear();
        self.failures = 0;
        self.pause.take_if(|pause| !pause.asked).is_some()
    }

    /// The event `seq` failed. Returns whether it is alone in that, so that the failure counts against it.
    pub fn failed(&mut self, seq: u64, now: Instant, rng: &mut fastrand::Rng) -> bool {
        self.failures = self.failures.saturating_add(1);
        if self.failing.len() < PAUSE_AFTER {
            self.failing.insert(seq);
        }
        let alone = self.failing.len() == 1;
        match &mut self.pause {
            // A straggler that began before the pause is no probe.
            Some(pause) if pause.asked || now < pause.until => {}
            Some(pause) => {
                pause.probes = pause.probes.saturating_add(1);
                pause.until = now + self.backoff.delay(pause.probes, rng);
            }
            None if self.failing.len() >= PAUSE_AFTER || (!alone && self.failures >= PAUSE_AFTER_FAILURES) => {
                self.pause = Some(Pause { until: now + self.backoff.delay(1, rng), probes: 1, asked: false });
            }
            None => {}
        }
        alone
    }

    /// The sink asked to be left alone for a while (already clamped).
    pub fn asked_to_wait(&mut self, wait: Duration, now: Instant) {
        let until = now + wait;
        match &mut self.pause {
            Some(pause) => pause.until = pause.until.max(until),
            None => self.pause = Some(Pause { until, probes: 0, asked: true }),
        }
    }

    /// How many attempts may be under way now, given the sink's `concurrency`.
    pub fn allowance(&mut self, concurrency: usize, now: Instant) -> usize {
        match self.pause {
            None => concurrency,
            Some(pause) if now < pause.until => 0,
            Some(pause) if pause.asked => {
                self.pause = None;
                concurrency
            }
            Some(_) => 1,
        }
    }

    /// When the allowance grows by itself; `None` when it does not depend on time.
    #[must_use]
    pub fn wakes_at(&self) -> Option<Instant> {
        self.pause.map(|pause| pause.until)
    }

    /// Whether the sink is paused.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.pause.is_some()
    }

    /// An operator wants it tried now.
    pub fn reopen(&mut self) {
        self.pause = None;
        self.failing.clear();
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health() -> (Health, Instant, fastrand::Rng) {
        (Health::new(Duration::from_secs(1), Duration::from_secs(3600)), Instant::now(), fastrand::Rng::with_seed(7))
    }

    #[test]
    fn one_bad_event_never_pauses_a_sink_and_its_failures_count() {
        let (mut health, now, mut rng) = health();
        for _ in 0..1000 {
            assert!(health.failed(1, now, &mut rng));
        }
        assert_eq!(health.allowance(8, now), 8);
    }

    #[test]
    fn a_run_over_distinct_events_pauses_and_the_first_success_reopens() {
        let (mut health, mut now, mut rng) = health();
        assert!(health.failed(0, now, &mut rng));
        for seq in 1..PAUSE_AFTER as u64 {
            assert!(!health.failed(seq, now, &mut rng), "the failure of {seq} counts though others fail too");
        }
        assert!(health.is_paused());
        for _ in 0..20 {
            now = health.wakes_at().unwrap();
            assert_eq!(health.allowance(8, now), 1);
            assert!(!health.failed(3, now, &mut rng));
            assert!(health.wakes_at().unwrap() <= now + PROBE_CAP);
        }
        assert!(health.succeeded());
        assert_eq!(health.allowance(8, now), 8);
        assert!(health.failed(9, now, &mut rng), "the run begins anew after a success");
    }

    #[test]
    fn a_pause_that_the_sink_asked_for_ends_with_its_time_only() {
        let (mut health, now, _) = health();
        health.asked_to_wait(Duration::from_secs(5), now);
        assert!(!health.succeeded());
        assert_eq!(health.allowance(8, now), 0);
        assert_eq!(health.allowance(8, now + Duration::from_secs(5)), 8);
        assert!(!health.is_paused());
    }

    #[test]
    fn stragglers_do_not_lengthen_a_pause() {
        let (mut health, now, mut rng) = health();
        for seq in 0..PAUSE_AFTER as u64 {
            health.failed(seq, now, &mut rng);
        }
        let until = health.wakes_at().unwrap();
        if until > now {
            health.failed(99, now, &mut rng);
            assert_eq!(health.wakes_at().unwrap(), until);
        }
    }
}
