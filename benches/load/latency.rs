//! Latencies: of the answer while everything else goes on, and from the commit to the sink's receipt.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::throughput::{CONNECTIONS, CONVERSATIONS};
use crate::support::Result;
use crate::support::cli::Options;
use crate::support::events::fresh_events;
use crate::support::finhook::{Setup, file_sink, http_sink};
use crate::support::generator::{Generator, Until};
use crate::support::latency::Latency;
use crate::support::machine::size_of;
use crate::support::picture::{Axes, Line, draw};
use crate::support::process::{Cores, Scratch};
use crate::support::report::{Report, Row};
use crate::support::responder::{Receiver, Responder, from_sent_to_seen};

/// Twice what Intercom sends at most (150,000 a minute).
const RATE: f64 = 5000.0;

/// Goals at p99, p99.9 and p99.99, in milliseconds.
const ACK_GOALS: [(f64, f64); 3] = [(99.0, 5.0), (99.9, 10.0), (99.99, 100.0)];

/// Open loop at [`RATE`] while retention deletes, checkpoints run, and a file sink takes everything.
pub(crate) fn ack(options: &Options, report: &mut Report) -> Result<Vec<Row>> {
    let scratch = Scratch::new()?;
    let mut setup =
        Setup::new(scratch.path()).sinks(&file_sink("archive", &scratch.path().join("events.ndjson"), "keep = 2"));
    // So short that what the run itself stores is deleted while it goes on.
    "retention = \"5s\"\ndedupe_window = \"10s\"".clone_into(&mut setup.journal);
    let finhook = setup.start(Cores::Shared)?;
    let host = finhook.server.address.to_string();
    let mut generator = Generator::connect(finhook.server.address, CONNECTIONS)?;
    let mut events = fresh_events(&host, CONVERSATIONS);
    let until =
        Until::Time { warm_up: options.time(Duration::from_secs(10)), measured: options.time(Duration::from_secs(60)) };
    let run = generator.open_loop(&mut events, RATE, until)?.all_answered()?;
    let lag = finhook.metric("finhook_sink_lag_events{sink=\"archive\"}")?;
    let files = size_of(scratch.path());
    finhook.stop()?;
    let latency = &run.latency;
    eprintln!("  {}", latency.line());
    picture(report, &latency.json())?;
    let rows = ACK_GOALS.iter().map(|(percentile, goal)| Row {
        what: format!("ack latency at 5,000 events/s, open loop, p{percentile}"),
        goal: format!("≤ {goal} ms"),
        figure: format!("{:.2} ms", latency.at(*percentile)),
        met: Some(latency.at(*percentile) <= *goal),
        detail: json!({"latency": latency.json(), "rate": run.rate(), "sink_lag_events": lag, "files_bytes": files}),
    });
    Ok(rows.collect())
}

/// One event at a time on a system that does nothing else.
pub(crate) fn receipt(options: &Options, _report: &mut Report) -> Result<Vec<Row>> {
    let receiver = Receiver::default();
    receiver.with(|seen| seen.arrivals = Some(Vec::new()));
    let responder = Responder::start(None, receiver.clone())?;
    let scratch = Scratch::new()?;
    let finhook =
        Setup::new(scratch.path()).sinks(&http_sink("backend", responder.address, 16, "")).start(Cores::Shared)?;
    let mut generator = Generator::connect(finhook.server.address, 1)?;
    let mut events = fresh_events(&finhook.server.address.to_string(), CONVERSATIONS);
    let (mut sent, mut acked) = (Vec::new(), Vec::new());
    for _ in 0..options.events(1_000).min(1_000) {
        std::thread::sleep(Duration::from_millis(fastrand::u64(5..25)));
        let number = events.next_number();
        events.tick();
        let request = events.next_request().to_vec();
        sent.push((number, Instant::now()));
        let (answered, status) = generator.once(&request)?;
        if status != 200 {
            return Err(format!("answered {status}").into());
        }
        acked.push((number, answered));
    }
    let deadline = Instant::now() + Duration::from_secs(5);
    while receiver.with(|seen| seen.taken) < sent.len() as u64 {
        if Instant::now() > deadline {
            return Err("the sink did not get every event".into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let arrivals = receiver.with(|seen| seen.arrivals.take()).unwrap_or_default();
    finhook.stop()?;
    let from_ack: Latency = from_sent_to_seen(&acked, &arrivals);
    let from_send: Latency = from_sent_to_seen(&sent, &arrivals);
    eprintln!("  from the 200:    {}\n  from the request: {}", from_ack.line(), from_send.line());
    Ok(vec![Row {
        what: "time from commit (the 200's arrival) to the HTTP sink's receipt, idle system, p99".into(),
        goal: "≤ 5 ms".into(),
        figure: format!("{:.2} ms (from the request's first byte: {:.2} ms)", from_ack.at(99.0), from_send.at(99.0)),
        met: Some(from_ack.at(99.0) <= 5.0),
        detail: json!({"from_ack": from_ack.json(), "from_request": from_send.json()}),
    }])
}

fn picture(report: &Report, latency: &Value) -> Result<()> {
    let points: Vec<(f64, f64)> = latency["curve"]
        .as_array()
        .map(|curve| {
            curve.iter().map(|point| (point[0].as_f64().unwrap_or(1.0), point[1].as_f64().unwrap_or(0.0))).collect()
        })
        .unwrap_or_default();
    let x_ticks =
        [(1.0, "all"), (10.0, "p90"), (100.0, "p99"), (1000.0, "p99.9"), (10_000.0, "p99.99"), (100_000.0, "p99.999")];
    let y_ticks = [0.1, 1.0, 10.0, 100.0, 1000.0];
    let svg = draw(
        &Axes {
            title: "Time to the 200 at 5,000 events/s, open loop (log-log)".into(),
            x: "share of requests answered within".into(),
            y: "milliseconds".into(),
            log_y: true,
            x_ticks: x_ticks.iter().map(|(at, label)| (*at, (*label).to_owned())).collect(),
            y_ticks: y_ticks.iter().map(|at| (*at, at.to_string())).collect(),
        },
        &[Line { name: "finhook: verified, deduplicated, on disk".into(), points }],
    );
    std::fs::create_dir_all(report.directory())?;
    Ok(std::fs::write(report.directory().join("bench-latency.svg"), svg)?)
}
