//! Latencies: recorded in microseconds, read as milliseconds.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// A distribution of latencies from 1 µs to a minute, three digits exact.
#[derive(Debug, Clone)]
pub(crate) struct Latency {
    histogram: Histogram<u64>,
}

/// The percentiles that are reported.
pub(crate) const PERCENTILES: [f64; 5] = [50.0, 90.0, 99.0, 99.9, 99.99];

impl Latency {
    /// None recorded.
    pub(crate) fn new() -> Self {
        Self { histogram: Histogram::new_with_bounds(1, 60_000_000, 3).expect("the bounds are valid") }
    }

    /// Counts one; longer than a minute counts as a minute.
    pub(crate) fn record(&mut self, latency: Duration) {
        self.histogram.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    }

    /// How many were recorded.
    pub(crate) fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// A percentile in milliseconds.
    #[allow(clippy::cast_precision_loss)]
    pub(crate) fn at(&self, percentile: f64) -> f64 {
        self.histogram.value_at_percentile(percentile) as f64 / 1000.0
    }

    /// The longest, in milliseconds.
    #[allow(clippy::cast_precision_loss)]
    pub(crate) fn max(&self) -> f64 {
        self.histogram.max() as f64 / 1000.0
    }

    /// One line for people.
    pub(crate) fn line(&self) -> String {
        let percentiles: Vec<String> = PERCENTILES.iter().map(|p| format!("p{p} {:.2}", self.at(*p))).collect();
        format!("{}, max {:.2} ms", percentiles.join(", "), self.max())
    }

    /// For the results' file: the percentiles, and enough of them to draw the curve.
    pub(crate) fn json(&self) -> Value {
        let mut curve = Vec::new();
        let mut beyond = 1.0_f64;
        #[allow(clippy::cast_precision_loss)]
        while 1.0 / beyond <= self.count() as f64 {
            curve.push(json!([1.0 / beyond, self.at(100.0 * (1.0 - beyond))]));
            beyond /= 1.3;
        }
        json!({
            "count": self.count(),
            "ms": {"p50": self.at(50.0), "p90": self.at(90.0), "p99": self.at(99.0), "p99.9": self.at(99.9),
                   "p99.99": self.at(99.99), "max": self.max()},
            "curve": curve,
        })
    }
}
