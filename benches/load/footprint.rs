//! Memory, start, idle processor time, size of the program.

use std::time::Duration;

use serde_json::json;

use super::throughput::CONVERSATIONS;
use crate::support::Result;
use crate::support::cli::Options;
use crate::support::events::fresh_events;
use crate::support::finhook::{Setup, file_sink, free_port, http_sink, program};
use crate::support::generator::{Generator, Until};
use crate::support::process::{Cores, Scratch};
use crate::support::report::{Report, Row};
use crate::support::responder::{Receiver, Responder};
use crate::support::stats::median;

#[allow(clippy::cast_precision_loss)]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / 1_048_576.0
}

/// Resident memory at 5,000 events a second over 1,000 connections, with a file and an HTTP sink.
pub(crate) fn memory(options: &Options, _report: &mut Report) -> Result<Vec<Row>> {
    let receiver = Receiver::default();
    let responder = Responder::start(None, receiver.clone())?;
    let scratch = Scratch::new()?;
    let sinks = file_sink("archive", &scratch.path().join("events.ndjson"), "")
        + &http_sink("backend", responder.address, 16, "");
    let finhook = Setup::new(scratch.path()).sinks(&sinks).start(Cores::Shared)?;
    let idle = finhook.server.rss()?;
    let mut generator = Generator::connect(finhook.server.address, 1000)?;
    let mut events = fresh_events(&finhook.server.address.to_string(), CONVERSATIONS);
    let until = Until::Time { warm_up: Duration::from_secs(2), measured: options.time(Duration::from_secs(30)) };
    let run = generator.open_loop(&mut events, 5000.0, until)?.all_answered()?;
    let (rss, peak) = (finhook.server.rss()?, finhook.server.peak_rss()?);
    let taken = receiver.with(|seen| seen.taken);
    finhook.stop()?;
    Ok(vec![Row {
        what: "RSS at 5,000 events/s with 1,000 connections (file and HTTP sink)".into(),
        goal: "≤ 48 MiB".into(),
        figure: format!("{:.1} MiB (peak {:.1}, idle before {:.1})", mebibytes(rss), mebibytes(peak), mebibytes(idle)),
        met: Some(mebibytes(peak) <= 48.0),
        detail: json!({"rss": rss, "peak": peak, "idle": idle, "rate": run.rate(), "delivered": taken,
                       "latency": run.latency.json()}),
    }])
}

/// From the start of the process until it is ready, with events that a sink has not got yet.
pub(crate) fn start(options: &Options, _report: &mut Report) -> Result<Vec<Row>> {
    let count = options.events(1_000_000);
    let scratch = Scratch::new()?;
    let down = http_sink("backend", free_port()?, 16, "");
    let setup = Setup::new(scratch.path()).sinks(&down);
    super::onward::fill(&setup, count)?;
    let mut rows = Vec::new();
    for (after, hard) in [("a clean stop", false), ("SIGKILL under load", true)] {
        let mut times = Vec::new();
        for _ in 0..options.pairs(5) {
            if hard {
                let finhook = setup.start(Cores::Shared)?;
                let mut generator = Generator::connect(finhook.server.address, 64)?;
                let mut events = fresh_events(&finhook.server.address.to_string(), CONVERSATIONS);
                generator.closed_loop(&mut events, Until::Count(20_000))?.all_answered()?;
                finhook.server.kill()?;
            }
            let (finhook, took) = setup.start_and_time(Cores::Shared)?;
            times.push(took.as_secs_f64());
            let lag = finhook.metric("finhook_sink_lag_events{sink=\"backend\"}")?;
            eprintln!("  ready after {:.0} ms, lag {lag}", took.as_secs_f64() * 1000.0);
            finhook.stop()?;
        }
        rows.push(Row {
            what: format!("start with {count} undelivered events until ready, after {after}"),
            goal: "≤ 0.5 s".into(),
            figure: format!("{:.3} s", median(&times)),
            met: Some(median(&times) <= 0.5),
            detail: json!({"seconds": times, "events": count}),
        });
    }
    Ok(rows)
}

/// Processor time while nothing happens, with one sink of each kind and idle connections.
pub(crate) fn idle(options: &Options, _report: &mut Report) -> Result<Vec<Row>> {
    let responder = Responder::start(None, Receiver::default())?;
    let scratch = Scratch::new()?;
    let sinks = file_sink("archive", &scratch.path().join("events.ndjson"), "")
        + &http_sink("backend", responder.address, 16, "");
    let mut setup = Setup::new(scratch.path()).sinks(&sinks);
    setup.stdout = true;
    let finhook = setup.start(Cores::Shared)?;
    let mut generator = Generator::connect(finhook.server.address, 100)?;
    let mut events = fresh_events(&finhook.server.address.to_string(), CONVERSATIONS);
    generator.closed_loop(&mut events, Until::Count(5_000))?.all_answered()?;
    std::thread::sleep(options.time(Duration::from_secs(10)));
    let (cpu, switches) = (finhook.server.cpu()?, finhook.server.switches()?);
    let pause = options.time(Duration::from_secs(30));
    std::thread::sleep(pause);
    let share = 100.0 * (finhook.server.cpu()?.saturating_sub(cpu)).as_secs_f64() / pause.as_secs_f64();
    #[allow(clippy::cast_precision_loss)]
    let wakes = finhook.server.switches()?.saturating_sub(switches) as f64 / pause.as_secs_f64();
    finhook.stop()?;
    Ok(vec![Row {
        what: "idle CPU (log, file and HTTP sink, 100 idle connections)".into(),
        goal: "< 0.5 % of a core".into(),
        figure: format!("{share:.3} % of a core, {wakes:.1} wake-ups/s"),
        met: Some(share < 0.5),
        detail: json!({"percent": share, "wakeups_per_second": wakes, "seconds": pause.as_secs_f64()}),
    }])
}

/// The program as it is released.
pub(crate) fn size(_options: &Options, _report: &mut Report) -> Result<Vec<Row>> {
    let bytes = std::fs::metadata(program())?.len();
    Ok(vec![Row {
        what: "binary, stripped".into(),
        goal: "≤ 12 MiB".into(),
        figure: format!("{:.1} MiB", mebibytes(bytes)),
        met: Some(mebibytes(bytes) <= 12.0),
        detail: json!({"bytes": bytes}),
    }])
}
