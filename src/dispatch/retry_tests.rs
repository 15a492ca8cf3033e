#![allow(clippy::unwrap_used)]
use proptest::prelude::*;

use super::*;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn policy() -> Retry {
    Retry { base: Duration::from_secs(1), cap: Duration::from_secs(3600), max_age: 7 * DAY }
}

fn failure(fault: Fault, retry_after: Option<Duration>) -> Failure {
    Failure { fault, retry_after, error: "status 500".to_owned() }
}

fn durations() -> impl Strategy<Value = Duration> {
    prop_oneof![
        (0..u64::MAX).prop_map(Duration::from_millis),
        (0..100_000_000_u64).prop_map(Duration::from_millis),
        Just(Duration::ZERO),
        Just(Duration::MAX),
    ]
}

fn faults() -> impl Strategy<Value = Fault> {
    prop_oneof![Just(Fault::Transient), Just(Fault::Unreachable), Just(Fault::Rejected), Just(Fault::Throttled)]
}

proptest! {
    #[test]
    fn a_pause_is_never_longer_than_the_cap_nor_than_the_doubled_base(
        base in durations(), cap in durations(), attempt: u32, seed: u64,
    ) {
        let backoff = Backoff { base, cap };
        let delay = backoff.delay(attempt, &mut fastrand::Rng::with_seed(seed));
        prop_assert!(delay <= cap);
        let doubled = (1..attempt.min(200)).fold(base, |pause, _| pause.saturating_mul(2));
        prop_assert!(delay <= doubled);
    }

    #[test]
    fn ceilings_never_shrink_from_try_to_try(base in durations(), cap in durations(), attempt in 0..u32::MAX) {
        let backoff = Backoff { base, cap };
        prop_assert!(backoff.ceiling(attempt) <= backoff.ceiling(attempt + 1));
    }

    #[test]
    fn nothing_dies_while_the_whole_sink_fails(
        fault in faults(), attempt: u32, tries: u32, age in durations(), seed: u64, now_ms: i64,
    ) {
        let failure = failure(fault, None);
        let situation = Situation { failure: &failure, attempt, tries, age, alone: false, now_ms };
        let decision = decide(&policy(), &situation, &mut fastrand::Rng::with_seed(seed));
        let is_retry = matches!(decision, Decision::Retry { .. });
        prop_assert!(is_retry);
        prop_assert!(!counts(fault, false));
    }

    #[test]
    fn an_unreachable_or_throttling_sink_kills_nothing(
        fault in prop_oneof![Just(Fault::Unreachable), Just(Fault::Throttled)],
        attempt: u32, tries: u32, age in durations(), alone: bool, seed: u64,
    ) {
        let failure = failure(fault, None);
        let situation = Situation { failure: &failure, attempt, tries, age, alone, now_ms: 0 };
        let decision = decide(&policy(), &situation, &mut fastrand::Rng::with_seed(seed));
        let is_retry = matches!(decision, Decision::Retry { .. });
        prop_assert!(is_retry);
        prop_assert!(!counts(fault, alone));
    }

    #[test]
    fn an_event_alone_dies_at_its_third_rejection_or_at_max_age_and_not_before(
        tries in 1..10_u32, age in durations(), seed: u64,
    ) {
        for (fault, dies) in
            [(Fault::Rejected, tries >= 3), (Fault::Transient, age >= policy().max_age)]
        {
            let failure = failure(fault, None);
            let situation = Situation { failure: &failure, attempt: tries, tries, age, alone: true, now_ms: 0 };
            let decision = decide(&policy(), &situation, &mut fastrand::Rng::with_seed(seed));
            let is_dead = matches!(decision, Decision::Dead { .. });
            prop_assert_eq!(is_dead, dies);
            prop_assert!(counts(fault, true));
        }
    }

    #[test]
    fn a_retry_is_never_before_what_the_sink_asked_for_nor_after_both_bounds(
        fault in faults(), asked in proptest::option::of(durations()), attempt: u32, seed: u64,
        now_ms in 0..4_000_000_000_000_i64,
    ) {
        let failure = failure(fault, asked);
        let situation =
            Situation { failure: &failure, attempt, tries: 1, age: Duration::ZERO, alone: true, now_ms };
        let Decision::Retry { at_ms } = decide(&policy(), &situation, &mut fastrand::Rng::with_seed(seed)) else {
            panic!("a first failure is never the last")
        };
        let pause = Duration::from_millis(u64::try_from(at_ms - now_ms).unwrap());
        match asked {
            Some(asked) => prop_assert!(pause >= asked.min(DAY) && pause >= MIN_RETRY_AFTER && pause <= DAY),
            None => prop_assert!(pause <= policy().cap),
        }
    }
}

#[test]
fn jitter_uses_the_whole_range() {
    let backoff = Backoff { base: Duration::from_secs(1), cap: Duration::from_secs(3600) };
    let mut rng = fastrand::Rng::with_seed(7);
    let delays: Vec<_> = (0..1000).map(|_| backoff.delay(4, &mut rng).as_millis()).collect();
    assert!(delays.iter().any(|ms| *ms < 400), "from nearly zero");
    assert!(delays.iter().any(|ms| *ms > 7600), "to nearly 8 s");
}

#[test]
fn ceilings_double_up_to_the_cap() {
    let backoff = Backoff { base: Duration::from_secs(1), cap: Duration::from_secs(10) };
    let seconds: Vec<_> = (1..=6).map(|attempt| backoff.ceiling(attempt).as_secs()).collect();
    assert_eq!(seconds, [1, 2, 4, 8, 10, 10]);
    assert_eq!(backoff.ceiling(u32::MAX).as_secs(), 10);
}

#[test]
fn a_dead_letter_says_why() {
    let failure = failure(Fault::Rejected, None);
    let situation = Situation { failure: &failure, attempt: 3, tries: 3, age: Duration::ZERO, alone: true, now_ms: 0 };
    let decision = decide(&policy(), &situation, &mut fastrand::Rng::with_seed(1));
    assert_eq!(decision, Decision::Dead { reason: "rejected 3 times: status 500".to_owned() });
}
