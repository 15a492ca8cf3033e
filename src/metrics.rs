//! What is counted and measured, and its two text forms: OpenMetrics, and Prometheus' older one for whoever doesn't ask
//! for OpenMetrics.
//!
//! Labels are bounded: endpoints and sinks come from the configuration, event names that Fin does not document are
//! counted as `other`, outcomes are constants of the code. No label holds anything from a body.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::event::names::EVENTS;

/// `Content-Type` of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// `Content-Type` of [`Metrics::encode_plain`].
pub const PLAIN_CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Upper bounds of the latencies' buckets, in seconds. What is promised of an acknowledgement (the 99th percentile at 5 ms,
/// the 99.9th at 10 ms) is itself a bound, so that the share that kept to it is exact; around it the steps are small, so that
/// a percentile read from the buckets is off by a third at most.
const LATENCY_BOUNDS: [f64; 22] = [
    0.0001, 0.000_25, 0.0005, 0.001, 0.0015, 0.002, 0.003, 0.004, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25,
    0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    endpoint: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Event {
    endpoint: String,
    event: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Endpoint {
    endpoint: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Delivery {
    sink: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Sink {
    sink: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Stream {
    state: &'static str,
}

type Seconds = Gauge<f64, AtomicU64>;

/// All metrics of one process. Cheap to share behind an `Arc`; recording never blocks for long.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<Request, Counter>,
    events: Family<Event, Counter>,
    conflicts: Family<Endpoint, Counter>,
    busy: Family<Endpoint, Counter>,
    deliveries: Family<Delivery, Counter>,
    delivery_seconds: Family<Sink, Histogram, fn() -> Histogram>,
    sink_lag_events: Family<Sink, Gauge>,
    sink_oldest_seconds: Family<Sink, Seconds>,
    sink_paused: Family<Sink, Gauge>,
    dead_letters: Family<Sink, Gauge>,
    sse_streams: Family<Stream, Counter>,
    /// Event streams of Fin's that are listened to now.
    pub sse_open: Gauge,
    /// Chunks of replies that were missing when a later one came.
    pub sse_chunk_gaps: Counter,
    /// Events in an event stream that belong to another conversation than the stream's.
    pub sse_foreign: Counter,
    /// Readers of the live stream.
    pub live_readers: Gauge,
    /// From the complete head of a request to its answer.
    pub ack_seconds: Histogram,
    /// One commit of the journal, fsync included.
    pub commit_seconds: Histogram,
    /// Events in one commit.
    pub commit_events: Histogram,
    /// Size of the journal's files.
    pub journal_bytes: Gauge,
}

/// Handles of one sink's metrics, looked up once.
#[derive(Debug, Clone)]
pub struct SinkMetrics {
    /// Deliveries that succeeded.
    pub delivered: Counter,
    /// Attempts that failed and are retried.
    pub failed: Counter,
    /// Events given up on.
    pub dead: Counter,
    /// One attempt.
    pub seconds: Histogram,
    /// Stored events that the sink is not done with.
    pub lag_events: Gauge,
    /// Age of the oldest event that the sink is not done with; 0 when there is none.
    pub oldest_seconds: Seconds,
    /// 1 while the sink is paused by an operator or by its own failures.
    pub paused: Gauge,
    /// Dead letters kept.
    pub dead_letters: Gauge,
}

/// Handles of one endpoint's metrics, looked up once.
#[derive(Debug, Clone)]
pub struct EndpointMetrics {
    requests: [Counter; OUTCOMES.len()],
    events: [Counter; EVENTS.len() + 1],
    conflicts: Counter,
    busy: Counter,
}

/// Values of the label `outcome` of `finhook_requests_total`.
pub const OUTCOMES: [&str; 8] =
    ["accepted", "duplicate", "stale", "quarantined", "test", "unauthenticated", "unavailable", "refused"];

/// Values of the label `outcome` where no endpoint is known (`endpoint=""`): no such path; `server.ready_path` with another
/// method; a head that can't be read, or could be in two ways; one that is over the limits.
pub const UNROUTED_OUTCOMES: [&str; 4] = ["not_found", "refused", "malformed", "head_too_large"];

impl EndpointMetrics {
    /// Counts a request; `outcome` is one of [`OUTCOMES`].
    pub fn request(&self, outcome: &str) {
        if let Some(at) = OUTCOMES.iter().position(|known| *known == outcome) {
            self.requests[at].inc();
        }
    }

    /// Counts an event that came again with a different body.
    pub fn conflict(&self) {
        self.conflicts.inc();
    }

    /// Counts a request that found the journal's queue full.
    pub fn busy(&self) {
        self.busy.inc();
    }

    /// Counts newly stored events of this name.
    #[must_use]
    pub fn events(&self, name: &str) -> &Counter {
        let at = EVENTS.iter().position(|known| *known == name).unwrap_or(EVENTS.len());
        &self.events[at]
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// A fresh set, all at zero.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("finhook");
        let metrics = Self {
            requests: Family::default(),
            events: Family::default(),
            conflicts: Family::default(),
            busy: Family::default(),
            deliveries: Family::default(),
            delivery_seconds: Family::new_with_constructor(latency),
            sink_lag_events: Family::default(),
            sink_oldest_seconds: Family::default(),
            sink_paused: Family::default(),
            dead_letters: Family::default(),
            sse_streams: Family::default(),
            sse_open: Gauge::default(),
            sse_chunk_gaps: Counter::default(),
            sse_foreign: Counter::default(),
            live_readers: Gauge::default(),
            ack_seconds: latency(),
            commit_seconds: latency(),
            commit_events: Histogram::new([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0]),
            journal_bytes: Gauge::default(),
            registry: Registry::default(),
        };
        let r = &mut registry;
        r.register("requests", "Requests on the public listener", metrics.requests.clone());
        r.register("events", "Events stored", metrics.events.clone());
        r.register("conflicts", "Events that came again with a different body", metrics.conflicts.clone());
        r.register("queue_full", "Requests that found the journal's queue full", metrics.busy.clone());
        r.register_with_unit(
            "ack",
            "From a request's complete head to its answer",
            Unit::Seconds,
            metrics.ack_seconds.clone(),
        );
        r.register_with_unit(
            "commit",
            "One commit of the journal, fsync included",
            Unit::Seconds,
            metrics.commit_seconds.clone(),
        );
        r.register("commit_events", "Events in one commit", metrics.commit_events.clone());
        r.register("deliveries", "Attempts to deliver", metrics.deliveries.clone());
        r.register_with_unit("delivery", "One attempt to deliver", Unit::Seconds, metrics.delivery_seconds.clone());
        r.register("sink_lag_events", "Stored events that the sink is not done with", metrics.sink_lag_events.clone());
        r.register_with_unit(
            "sink_oldest_undelivered",
            "Age of the oldest event that the sink is not done with",
            Unit::Seconds,
            metrics.sink_oldest_seconds.clone(),
        );
        r.register("sink_paused", "1 while the sink is paused", metrics.sink_paused.clone());
        r.register("dead_letters", "Dead letters kept", metrics.dead_letters.clone());
        r.register("sse_streams", "Event streams of Fin's that ended, by how", metrics.sse_streams.clone());
        r.register("sse_open", "Event streams of Fin's that are listened to", metrics.sse_open.clone());
        r.register("sse_chunk_gaps", "Missing chunks of streamed replies", metrics.sse_chunk_gaps.clone());
        let help = "Events in an event stream of another conversation than the one that it is for";
        r.register("sse_foreign", help, metrics.sse_foreign.clone());
        r.register("live_readers", "Readers of the live stream", metrics.live_readers.clone());
        r.register_with_unit("journal", "Size of the journal's files", Unit::Bytes, metrics.journal_bytes.clone());
        r.register("build", "The running build", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        Self { registry, ..metrics }
    }

    /// The handles of one endpoint.
    #[must_use]
    pub fn endpoint(&self, name: &str) -> EndpointMetrics {
        let endpoint = || name.to_owned();
        EndpointMetrics {
            requests: OUTCOMES
                .map(|outcome| self.requests.get_or_create_owned(&Request { endpoint: endpoint(), outcome })),
            events: [EVENTS[0], EVENTS[1], EVENTS[2], EVENTS[3], "other"]
                .map(|event| self.events.get_or_create_owned(&Event { endpoint: endpoint(), event })),
            conflicts: self.conflicts.get_or_create_owned(&Endpoint { endpoint: endpoint() }),
            busy: self.busy.get_or_create_owned(&Endpoint { endpoint: endpoint() }),
        }
    }

    /// The counters of requests that are refused before an endpoint is known, in the order of [`UNROUTED_OUTCOMES`].
    #[must_use]
    pub fn unrouted(&self) -> [Counter; UNROUTED_OUTCOMES.len()] {
        UNROUTED_OUTCOMES
            .map(|outcome| self.requests.get_or_create_owned(&Request { endpoint: String::new(), outcome }))
    }

    /// The handles of one sink.
    #[must_use]
    pub fn sink(&self, name: &str) -> SinkMetrics {
        let sink = Sink { sink: name.to_owned() };
        let outcome = |outcome| self.deliveries.get_or_create_owned(&Delivery { sink: name.to_owned(), outcome });
        SinkMetrics {
            delivered: outcome("delivered"),
            failed: outcome("failed"),
            dead: outcome("dead"),
            seconds: self.delivery_seconds.get_or_create_owned(&sink),
            lag_events: self.sink_lag_events.get_or_create_owned(&sink),
            oldest_seconds: self.sink_oldest_seconds.get_or_create_owned(&sink),
            paused: self.sink_paused.get_or_create_owned(&sink),
            dead_letters: self.dead_letters.get_or_create_owned(&sink),
        }
    }

    /// Counts an event stream of Fin's that ended; `state` is a constant of the code.
    pub fn sse_stream(&self, state: &'static str) {
        self.sse_streams.get_or_create_owned(&Stream { state }).inc();
    }

    /// Removes the gauges of a sink that an operator told finhook to forget.
    pub fn forget_sink(&self, name: &str) {
        let sink = Sink { sink: name.to_owned() };
        self.sink_lag_events.remove(&sink);
        self.sink_oldest_seconds.remove(&sink);
        self.sink_paused.remove(&sink);
        self.dead_letters.remove(&sink);
    }

    /// Everything, as OpenMetrics.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::with_capacity(8 * 1024);
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    /// Everything, in Prometheus' own text format.
    #[must_use]
    pub fn encode_plain(&self) -> String {
        plain(&self.encode())
    }
}

fn latency() -> Histogram {
    Histogram::new(LATENCY_BOUNDS)
}

/// OpenMetrics made plain: there a family has the name of its values, an info is a gauge, and there are no units and no end.
fn plain(open: &str) -> String {
    let mut plain = String::with_capacity(open.len());
    let mut help = "";
    for line in open.lines() {
        if let Some(family) = line.strip_prefix("# HELP ") {
            // Comes before the type, which tells the name.
            help = family.split_once(' ').map_or("", |(_, help)| help);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|family| family.split_once(' ')) {
            let (suffix, kind) = match kind {
                "counter" => ("_total", kind),
                "info" => ("_info", "gauge"),
                _ => ("", kind),
            };
            plain.push_str(&format!("# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {kind}\n"));
        } else if !line.starts_with('#') {
            plain.push_str(line);
            plain.push('\n');
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::{LATENCY_BOUNDS, Metrics};

    #[test]
    fn the_names_are_those_of_the_contract() {
        let metrics = Metrics::new();
        metrics.endpoint("fin").request("accepted");
        metrics.endpoint("fin").events("something_new").inc();
        metrics.sink("backend").delivered.inc();
        let text = metrics.encode();
        for line in [
            "finhook_requests_total{endpoint=\"fin\",outcome=\"accepted\"} 1",
            "finhook_events_total{endpoint=\"fin\",event=\"other\"} 1",
            "finhook_deliveries_total{sink=\"backend\",outcome=\"delivered\"} 1",
            "finhook_ack_seconds_count 0",
            "finhook_commit_seconds_count 0",
            "finhook_commit_events_count 0",
            "finhook_delivery_seconds_count{sink=\"backend\"} 0",
            "finhook_sink_lag_events{sink=\"backend\"} 0",
            "finhook_sink_oldest_undelivered_seconds{sink=\"backend\"} 0",
            "finhook_sink_paused{sink=\"backend\"} 0",
            "finhook_dead_letters{sink=\"backend\"} 0",
            "finhook_journal_bytes 0",
            "finhook_build_info{version=",
        ] {
            assert!(text.contains(line), "{line} is missing in:\n{text}");
        }
    }

    #[test]
    fn what_is_promised_of_an_acknowledgement_is_a_bound_of_its_histogram_with_small_steps_around_it() {
        for promised in [0.005, 0.01] {
            assert!(LATENCY_BOUNDS.contains(&promised), "{promised}");
        }
        let around = LATENCY_BOUNDS.windows(2).filter(|step| step[1] > 0.001 && step[0] < 0.015);
        for step in around {
            assert!(step[1] / step[0] < 1.51, "{step:?}");
        }
    }

    #[test]
    fn the_plain_text_form_has_every_value_under_its_familys_name_and_nothing_that_is_only_in_openmetrics() {
        let metrics = Metrics::new();
        metrics.endpoint("fin").request("accepted");
        metrics.sink("backend").seconds.observe(0.002);

        let (open, plain) = (metrics.encode(), metrics.encode_plain());

        for line in [
            "# HELP finhook_requests_total Requests on the public listener.",
            "# TYPE finhook_requests_total counter",
            "# TYPE finhook_ack_seconds histogram",
            "# TYPE finhook_build_info gauge",
        ] {
            assert!(plain.lines().any(|there| there == line), "{line} is missing in:\n{plain}");
        }
        assert!(!plain.contains("# EOF") && !plain.contains("# UNIT"), "{plain}");
        // Not the lines themselves: their order within a family changes from one encoding to the next.
        let values = |text: &str| text.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(values(&plain), values(&open));
    }
}
