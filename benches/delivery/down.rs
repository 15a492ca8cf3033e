//! A sink that is down while a million events come, and back again.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{many, mebibytes};
use crate::support::Result;
use crate::support::cli::Options;
use crate::support::events::fresh_events;
use crate::support::finhook::{Setup, free_port, http_sink};
use crate::support::generator::{Generator, Until};
use crate::support::process::{Cores, Scratch};
use crate::support::report::Row;
use crate::support::responder::{Receiver, Responder};

const CONCURRENCY: usize = 16;

/// Nothing arrives for so long: the measurement has failed.
const STUCK: Duration = Duration::from_secs(120);

/// What waits is on disk, not in memory; when the sink is back it is not run over.
pub(crate) fn down(options: &Options) -> Result<Vec<Row>> {
    let count = options.events(1_000_000);
    let scratch = Scratch::new()?;
    let backend = free_port()?;
    // Answers come after a millisecond, so that requests do overlap and their number can be seen.
    let receiver = Receiver::default();
    receiver.with(|seen| seen.delay = Duration::from_millis(1));
    let table = http_sink("backend", backend, CONCURRENCY, "retry = { cap = \"5s\" }");
    let finhook = Setup::new(scratch.path()).sinks(&table).start(Cores::Shared)?;
    std::thread::sleep(Duration::from_secs(1));
    let idle = finhook.server.rss()?;
    let mut generator = Generator::connect(finhook.server.address, 256)?;
    let mut events = fresh_events(&finhook.server.address.to_string(), many(count));
    let run = generator.closed_loop(&mut events, Until::Count(count))?.all_answered()?;
    drop(generator);
    std::thread::sleep(Duration::from_secs(5));
    let (peak, behind) = (finhook.server.peak_rss()?, finhook.server.rss()?);
    eprintln!(
        "  idle {:.1} MiB, peak {:.1}, now {:.1}; stored at {:.0}/s",
        mebibytes(idle),
        mebibytes(peak),
        mebibytes(behind),
        run.rate()
    );

    finhook.server.forget_peak()?;
    let back = Instant::now();
    let responder = Responder::start(Some(backend), receiver.clone())?;
    let (mut most, mut grown, mut first) = (0, Instant::now(), None);
    while most < count {
        let taken = receiver.with(|seen| seen.taken);
        if taken > most {
            first.get_or_insert_with(|| back.elapsed());
            (most, grown) = (taken, Instant::now());
        } else if grown.elapsed() > STUCK {
            return Err(format!("stuck at {taken} of {count}: {}", finhook.log_tail()).into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let took = receiver.with(|seen| seen.last).unwrap_or(back).duration_since(back);
    let drain_peak = finhook.server.peak_rss()?;
    finhook.stop()?;
    drop(responder);
    let (inversions, repeated, in_flight) = receiver.with(|seen| (seen.inversions, seen.repeated, seen.most_in_flight));
    let over = mebibytes(peak.max(drain_peak).saturating_sub(idle));
    #[allow(clippy::cast_precision_loss)]
    let rate = count as f64 / took.as_secs_f64();
    Ok(vec![
        Row {
            what: format!("a sink down with {count} events behind it: RSS over idle, while down and while draining"),
            goal: "≤ 64 MiB".into(),
            figure: format!(
                "{over:.1} MiB (idle {:.1}, down {:.1}, draining {:.1})",
                mebibytes(idle),
                mebibytes(peak),
                mebibytes(drain_peak)
            ),
            met: Some(over <= 64.0),
            detail: json!({"events": count, "rss_idle": idle, "rss_peak_down": peak, "rss_peak_draining": drain_peak}),
        },
        Row {
            what: "and when it is back (answers after 1 ms, concurrency 16)".into(),
            goal: "all, in order, concurrency within its bound".into(),
            figure: format!(
                "{most} delivered at {rate:.0}/s, {inversions} inversions, {repeated} repeated, {in_flight} in flight at most; first after {:.1} s",
                first.unwrap_or_default().as_secs_f64()
            ),
            met: Some(inversions == 0 && repeated == 0 && in_flight <= CONCURRENCY),
            detail: json!({"rate": rate, "inversions": inversions, "repeated": repeated, "most_in_flight": in_flight}),
        },
    ])
}
