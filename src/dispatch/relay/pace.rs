//! No more attempts a second than a sink may get.

use std::time::{Duration, Instant};

/// How much of the time that was not used may be caught up with: timers are late by a millisecond or so.
const SLACK: Duration = Duration::from_millis(20);

/// Spreads attempts evenly: one each `1 / rate` of a second.
#[derive(Debug)]
pub(super) struct Pace {
    /// From one attempt to the next; zero: no limit.
    interval: Duration,
    /// When the next one may begin.
    next: Instant,
}

impl Pace {
    /// `rate` attempts a second; 0: no limit.
    pub(super) fn new(rate: u64, now: Instant) -> Self {
        let interval = if rate == 0 { Duration::ZERO } else { Duration::from_secs(1).div_f64(rate as f64) };
        Self { interval, next: now }
    }

    /// When the next attempt may begin, if that is later than `now`.
    pub(super) fn next_after(&self, now: Instant) -> Option<Instant> {
        (!self.interval.is_zero() && self.next > now).then_some(self.next)
    }

    /// An attempt begins.
    pub(super) fn started(&mut self, now: Instant) {
        if !self.interval.is_zero() {
            self.next = self.next.max(now.checked_sub(SLACK).unwrap_or(now)) + self.interval;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Starts attempts whenever it may at these times after the beginning, in milliseconds: those at which it did.
    fn run(rate: u64, times: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let begin = Instant::now();
        let mut pace = Pace::new(rate, begin);
        let mut started = Vec::new();
        for ms in times {
            let now = begin + Duration::from_millis(ms);
            while pace.next_after(now).is_none() && started.len() < 100_000 {
                pace.started(now);
                started.push(ms);
                if rate == 0 {
                    break;
                }
            }
        }
        started
    }

    #[test]
    fn without_a_rate_nothing_waits() {
        assert_eq!(run(0, [0, 0, 0, 1]).len(), 4);
    }

    #[test]
    fn attempts_are_spread_evenly_and_time_that_was_not_used_is_lost() {
        assert_eq!(run(10, (0..1000).step_by(10)), (0..1000).step_by(100).collect::<Vec<_>>());
        assert_eq!(run(10, [0, 5000, 5001, 5050, 5100]), [0, 5000, 5100]);
    }

    proptest! {
        #[test]
        fn no_second_has_more_than_its_rate_and_what_the_slack_gives(
            rate in 1..3000_u64, mut times in prop::collection::vec(0..5000_u64, 1..400),
        ) {
            times.sort_unstable();
            let started = run(rate, times);
            for (at, first) in started.iter().enumerate() {
                let within = started[at..].iter().take_while(|ms| **ms < first + 1000).count() as u64;
                prop_assert!(within <= rate + rate * 20 / 1000 + 2, "{within} from {first} on at {rate}");
            }
        }
    }
}
