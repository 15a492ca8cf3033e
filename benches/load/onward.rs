//! Delivery of a stored backlog: to a file, and over HTTP.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use super::throughput::{CONNECTIONS, CONVERSATIONS};
use crate::support::Result;
use crate::support::cli::Options;
use crate::support::events::fresh_events;
use crate::support::finhook::{Setup, file_sink, http_sink};
use crate::support::generator::{Generator, Until};
use crate::support::process::{Cores, Scratch};
use crate::support::report::{Report, Row};
use crate::support::responder::{Receiver, Responder};
use crate::support::stats::{Pairs, median};

/// Conversations in flight at the HTTP sink, and connections of what it is compared with.
const CONCURRENCY: usize = 64;

/// Nothing is delivered for so long: the measurement has failed.
const STUCK: Duration = Duration::from_secs(30);

/// Stores events, with no sink configured.
pub(crate) fn fill(setup: &Setup, count: u64) -> Result<()> {
    let finhook = setup.start(Cores::Shared)?;
    let mut generator = Generator::connect(finhook.server.address, CONNECTIONS)?;
    let mut events = fresh_events(&finhook.server.address.to_string(), CONVERSATIONS);
    let run = generator.closed_loop(&mut events, Until::Count(count))?.all_answered()?;
    eprintln!("  stored {count} events at {:.0}/s", run.rate());
    finhook.stop()
}

/// A file sink that begins with what is stored. Each turn is a sink of its own, with the whole backlog before it.
pub(crate) fn file(options: &Options, _report: &mut Report) -> Result<Vec<Row>> {
    let count = options.events(1_000_000);
    let scratch = Scratch::new()?;
    let setup = Setup::new(scratch.path());
    fill(&setup, count)?;
    let mut rates = Vec::new();
    for turn in 0..options.pairs(5) {
        let name = format!("archive{turn}");
        let path = scratch.path().join(format!("out{turn}")).join("events.ndjson");
        std::fs::create_dir_all(path.parent().ok_or("no parent")?)?;
        let table = file_sink(&name, &path, "from = \"start\"\nkeep = 100");
        let begun = Instant::now();
        let finhook = setup.clone().sinks(&table).start(Cores::Shared)?;
        let counter = format!("finhook_deliveries_total{{sink=\"{name}\",outcome=\"delivered\"}}");
        wait_for(count, || finhook.metric(&counter))?;
        #[allow(clippy::cast_precision_loss)]
        let rate = count as f64 / begun.elapsed().as_secs_f64();
        finhook.stop()?;
        let lines = lines_in(path.parent().ok_or("no parent")?)?;
        if lines != count {
            return Err(format!("{lines} lines in the files, {count} events stored").into());
        }
        std::fs::remove_dir_all(path.parent().ok_or("no parent")?)?;
        eprintln!("  turn {}: {rate:.0}/s", turn + 1);
        rates.push(rate);
    }
    let rate = median(&rates);
    Ok(vec![Row {
        what: format!("delivery of a stored backlog of {count}, file sink (start of the process included)"),
        goal: "≥ 100,000 events/s".into(),
        figure: format!("{rate:.0} events/s"),
        met: Some(rate >= 100_000.0),
        detail: json!({"rates": rates, "events": count}),
    }])
}

/// An HTTP sink with the whole backlog before it, against a client that posts the same bodies as fast as it can.
pub(crate) fn http(options: &Options, _report: &mut Report) -> Result<Vec<Row>> {
    let count = options.events(200_000);
    let scratch = Scratch::new()?;
    let setup = Setup::new(scratch.path());
    fill(&setup, count)?;
    let mut turn = 0;
    let pairs = Pairs::measure(
        options.pairs(5),
        || {
            turn += 1;
            let receiver = Receiver::default();
            let responder = Responder::start(None, receiver.clone())?;
            let table = http_sink(&format!("backend{turn}"), responder.address, CONCURRENCY, "from = \"start\"");
            let begun = Instant::now();
            let finhook = setup.clone().sinks(&table).start(Cores::Shared)?;
            #[allow(clippy::cast_precision_loss)]
            wait_for(count, || Ok(receiver.with(|seen| seen.taken) as f64))?;
            let ended = receiver.with(|seen| seen.last).unwrap_or(begun);
            finhook.stop()?;
            receiver.with(|seen| {
                if (seen.taken, seen.inversions, seen.repeated) != (count, 0, 0) {
                    return Err(format!(
                        "taken {}, inversions {}, repeated {}",
                        seen.taken, seen.inversions, seen.repeated
                    )
                    .into());
                }
                if seen.most_in_flight > CONCURRENCY {
                    return Err(format!("{} in flight at once", seen.most_in_flight).into());
                }
                #[allow(clippy::cast_precision_loss)]
                Ok(count as f64 / ended.duration_since(begun).as_secs_f64())
            })
        },
        || {
            let responder = Responder::start(None, Receiver::default())?;
            let mut generator = Generator::connect(responder.address, CONCURRENCY)?;
            let mut events = fresh_events(&responder.address.to_string(), CONVERSATIONS);
            Ok(generator.closed_loop(&mut events, Until::Count(count))?.all_answered()?.rate())
        },
    )?;
    Ok(vec![Row {
        what: format!("delivery of a stored backlog of {count}, HTTP sink, concurrency 64 ÷ raw keep-alive client"),
        goal: "≥ 0.60".into(),
        figure: format!("{:.2} ({:.0} ÷ {:.0}/s)", pairs.ratio(), pairs.ours(), pairs.theirs()),
        met: Some(pairs.ratio() >= 0.60),
        detail: json!({"pairs": pairs.values, "events": count}),
    }])
}

/// Polls a count until it is reached, or does not grow any more.
pub(crate) fn wait_for(wanted: u64, mut count: impl FnMut() -> Result<f64>) -> Result<()> {
    #[allow(clippy::cast_precision_loss)]
    let wanted = wanted as f64;
    let (mut most, mut grown) = (-1.0, Instant::now());
    loop {
        let now = count()?;
        if now >= wanted {
            return Ok(());
        }
        if now > most {
            (most, grown) = (now, Instant::now());
        } else if grown.elapsed() > STUCK {
            return Err(format!("stuck at {now} of {wanted}").into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Lines in all files of a directory.
pub(crate) fn lines_in(directory: &Path) -> Result<u64> {
    let mut lines = 0;
    for entry in std::fs::read_dir(directory)? {
        let mut reader = BufReader::with_capacity(1 << 20, std::fs::File::open(entry?.path())?);
        loop {
            let bytes = reader.fill_buf()?;
            if bytes.is_empty() {
                break;
            }
            lines += bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
            let read = bytes.len();
            reader.consume(read);
        }
    }
    Ok(lines)
}
