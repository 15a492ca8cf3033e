//! Deliveries fail at random.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{fill, many, mebibytes};
use crate::support::Result;
use crate::support::cli::Options;
use crate::support::finhook::{Setup, http_sink};
use crate::support::process::{Cores, Scratch};
use crate::support::report::Row;
use crate::support::responder::{Receiver, Responder};

/// The share that fails.
const FAIL: f64 = 0.30;

/// With the retries' cap as it comes, the few events that fail ten times in a row would wait for up to a quarter of an hour
/// at the end, which measures nothing.
const SINK: &str = "from = \"start\"\nretry = { cap = \"5s\" }";

/// Nothing arrives for so long: the measurement has failed.
const STUCK: Duration = Duration::from_secs(120);

/// A million events, 30 % of attempts answered 503: all arrive, none twice, none before one stored earlier in its
/// conversation; memory does not grow with what is left or what is waiting.
pub(crate) fn failing(options: &Options) -> Result<Vec<Row>> {
    let count = options.events(1_000_000);
    let scratch = Scratch::new()?;
    let receiver = Receiver::default();
    receiver.with(|seen| seen.fail = FAIL);
    let responder = Responder::start(None, receiver.clone())?;
    let setup = Setup::new(scratch.path());
    fill(&setup, count, many(count))?;

    let setup = setup.sinks(&http_sink("backend", responder.address, 64, SINK));
    let begun = Instant::now();
    let finhook = setup.start(Cores::Shared)?;
    let idle = finhook.server.rss()?;
    // Peaks of each tenth of the way.
    let mut peaks = Vec::new();
    let (mut most, mut grown) = (0, Instant::now());
    loop {
        let taken = receiver.with(|seen| seen.taken);
        if taken >= (peaks.len() as u64 + 1) * count / 10 {
            peaks.push(finhook.server.peak_rss()?);
            finhook.server.forget_peak()?;
            eprintln!(
                "  {taken} after {:.0} s, peak RSS {:.1} MiB",
                begun.elapsed().as_secs_f64(),
                mebibytes(*peaks.last().unwrap_or(&0))
            );
        }
        if taken >= count {
            break;
        }
        if taken > most {
            (most, grown) = (taken, Instant::now());
        } else if grown.elapsed() > STUCK {
            return Err(format!("stuck at {taken} of {count}: {}", finhook.log_tail()).into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let took = receiver.with(|seen| seen.last).unwrap_or(begun).duration_since(begun);
    finhook.stop()?;
    let (taken, refused, inversions, repeated) =
        receiver.with(|seen| (seen.taken, seen.refused, seen.inversions, seen.repeated));
    let peak = peaks.iter().copied().max().unwrap_or(0);
    #[allow(clippy::cast_precision_loss)]
    let rate = taken as f64 / took.as_secs_f64();
    Ok(vec![Row {
        what: format!("{count} events, 30 % of attempts failing at random"),
        goal: "no inversion, memory flat".into(),
        figure: format!(
            "{taken} delivered at {rate:.0}/s, {refused} attempts failed, {inversions} inversions, {repeated} repeated; \
             peak RSS {:.1} MiB (first tenth {:.1}, last {:.1})",
            mebibytes(peak),
            mebibytes(peaks.first().copied().unwrap_or(0)),
            mebibytes(peaks.last().copied().unwrap_or(0))
        ),
        met: Some(taken == count && inversions == 0 && repeated == 0),
        detail: json!({"events": count, "rate": rate, "seconds": took.as_secs_f64(), "failed_attempts": refused,
                       "inversions": inversions, "repeated": repeated, "rss_idle": idle, "rss_peak_by_tenth": peaks}),
    }])
}
