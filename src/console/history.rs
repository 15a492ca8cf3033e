//! The last hour, for the charts: what the metrics said every half minute.
//!
//! It begins when somebody first looks and ends an hour after nobody does any more: until then there is neither a task nor memory.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::clock::now_ms;
use crate::metrics::Metrics;

/// Between two looks.
const STEP: Duration = Duration::from_secs(30);
/// An hour of them.
const KEPT: usize = 120;
/// How long it goes on when nobody looks.
const IDLE: Duration = Duration::from_secs(60 * 60);

/// What the metrics said at one time: counters since the start, and how sinks stood.
#[derive(Debug, Clone, Default)]
pub(super) struct Look {
    pub(super) at_ms: i64,
    /// Requests by endpoint (empty: none) and outcome.
    requests: Vec<(String, String, f64)>,
    /// Answers within so many seconds.
    pub(super) ack: Vec<(f64, f64)>,
    pub(super) sinks: Vec<SinkLook>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct SinkLook {
    pub(super) name: String,
    pub(super) delivered: f64,
    pub(super) failed: f64,
    /// Seconds that attempts took, and how many there were.
    pub(super) seconds: f64,
    pub(super) attempts: f64,
}

/// The looks of the last hour.
pub(super) struct History {
    metrics: Arc<Metrics>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    looks: VecDeque<Look>,
    seen: Option<Instant>,
    running: bool,
}

impl History {
    pub(super) fn new(metrics: &Arc<Metrics>) -> Self {
        Self { metrics: Arc::clone(metrics), state: Arc::default() }
    }

    /// What is known, with how it is now as the last. From now on looks are taken, if they aren't yet.
    pub(super) fn looks(&self) -> Vec<Look> {
        let now = look(&self.metrics.encode());
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.seen = Some(Instant::now());
        if state.looks.is_empty() {
            state.looks.push_back(now.clone());
        }
        if !state.running {
            state.running = true;
            tokio::spawn(take(Arc::clone(&self.metrics), Arc::downgrade(&self.state)));
        }
        state.looks.iter().cloned().chain([now]).collect()
    }
}

/// Takes looks for as long as somebody wants them.
async fn take(metrics: Arc<Metrics>, state: Weak<Mutex<State>>) {
    loop {
        tokio::time::sleep(STEP).await;
        let Some(state) = state.upgrade() else { return };
        let look = look(&metrics.encode());
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.seen.is_none_or(|seen| seen.elapsed() > IDLE) {
            *state = State::default();
            return;
        }
        if state.looks.len() >= KEPT {
            state.looks.pop_front();
        }
        state.looks.push_back(look);
    }
}

/// Reads what the metrics say, in their own format.
fn look(text: &str) -> Look {
    let mut look = Look { at_ms: now_ms(), ..Look::default() };
    for line in text.lines() {
        let Some((name, value)) = line.rsplit_once(' ') else { continue };
        let Ok(value) = value.parse::<f64>() else { continue };
        if name.starts_with("finhook_requests_total") {
            look.requests.push((label(name, "endpoint").to_owned(), label(name, "outcome").to_owned(), value));
        } else if name.starts_with("finhook_ack_seconds_bucket") {
            look.ack.push((label(name, "le").parse().unwrap_or(f64::INFINITY), value));
        } else if name.starts_with("finhook_deliver") {
            let sink = look.sink(label(name, "sink"));
            match (name.split('{').next().unwrap_or_default(), label(name, "outcome")) {
                ("finhook_deliveries_total", "delivered") => sink.delivered = value,
                ("finhook_deliveries_total", _) => sink.failed += value,
                ("finhook_delivery_seconds_sum", _) => sink.seconds = value,
                ("finhook_delivery_seconds_count", _) => sink.attempts = value,
                _ => {}
            }
        }
    }
    look
}

impl Look {
    fn sink(&mut self, name: &str) -> &mut SinkLook {
        let at = self.sinks.iter().position(|sink| sink.name == name).unwrap_or_else(|| {
            self.sinks.push(SinkLook { name: name.to_owned(), ..SinkLook::default() });
            self.sinks.len() - 1
        });
        &mut self.sinks[at]
    }

    /// Requests with this outcome since the start.
    pub(super) fn outcome(&self, outcome: &str) -> f64 {
        self.requests.iter().filter(|(_, known, _)| known == outcome).map(|(_, _, count)| count).sum()
    }

    /// All of them.
    pub(super) fn all(&self) -> f64 {
        self.requests.iter().map(|(_, _, count)| count).sum()
    }

    /// The outcomes that there are.
    pub(super) fn outcomes(&self) -> BTreeSet<&str> {
        self.requests.iter().map(|(_, outcome, _)| outcome.as_str()).collect()
    }

    /// Requests of one endpoint with this outcome since the start.
    pub(super) fn endpoint(&self, endpoint: &str, outcome: &str) -> u64 {
        let of = self.requests.iter().find(|(name, known, _)| name == endpoint && known == outcome);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        of.map_or(0, |(_, _, count)| *count as u64)
    }

    /// The share of answers between two looks that this long was enough for, in seconds: the bound of the bucket that it falls in.
    pub(super) fn ack_since(&self, earlier: &Self, share: f64) -> Option<f64> {
        let counts = self.ack.iter().map(|(bound, count)| {
            let before = earlier.ack.iter().find(|(known, _)| known == bound).map_or(0.0, |(_, count)| *count);
            (*bound, count - before)
        });
        let counts: Vec<(f64, f64)> = counts.collect();
        let all = counts.last()?.1;
        (all > 0.0).then_some(())?;
        counts.iter().find(|(_, count)| *count >= all * share).map(|(bound, _)| *bound)
    }
}

fn label<'l>(line: &'l str, name: &str) -> &'l str {
    let begin = format!("{name}=\"");
    line.split_once(&begin).and_then(|(_, rest)| rest.split_once('"')).map_or("", |(value, _)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_has_what_the_metrics_say() {
        let metrics = Metrics::new();
        metrics.endpoint("fin").request("accepted");
        metrics.endpoint("other").request("accepted");
        let before = look(&metrics.encode());
        for _ in 0..99 {
            metrics.ack_seconds.observe(0.0004);
        }
        metrics.ack_seconds.observe(0.2);
        metrics.sink("backend").delivered.inc();
        metrics.sink("backend").failed.inc();
        metrics.sink("backend").dead.inc();
        metrics.sink("backend").seconds.observe(0.5);
        let after = look(&metrics.encode());
        assert!((before.outcome("accepted") - 2.0).abs() < 0.1);
        assert_eq!(after.ack_since(&before, 0.5), Some(0.0005));
        assert_eq!(after.ack_since(&before, 0.999), Some(0.25));
        assert_eq!(before.ack_since(&before, 0.5), None, "nothing was answered");
        let sink = &after.sinks[0];
        assert_eq!(
            (&*sink.name, sink.delivered as u64, sink.failed as u64, sink.attempts as u64),
            ("backend", 1, 2, 1)
        );
    }

    #[tokio::test]
    async fn there_is_nothing_before_somebody_looks() {
        let history = History::new(&Arc::new(Metrics::new()));
        assert_eq!(history.state.lock().unwrap().looks.len(), 0);
        assert_eq!(history.looks().len(), 2, "how it was when somebody first looked, and how it is now");
    }
}
