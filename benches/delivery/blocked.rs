//! One conversation that can't be delivered, with a million events of its own waiting.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{fill, many, mebibytes};
use crate::support::Result;
use crate::support::cli::Options;
use crate::support::events::{Conversations, fresh_events};
use crate::support::finhook::{Finhook, Setup, file_sink, http_sink};
use crate::support::generator::{Generator, Until};
use crate::support::process::{Cores, Scratch};
use crate::support::report::Row;
use crate::support::responder::{Receiver, Responder};
use crate::support::stats::Pairs;

/// The conversation that is blocked; the others have smaller numbers.
const BLOCKED: u64 = 9_000_000;

/// Nothing arrives for so long: the measurement has failed.
const STUCK: Duration = Duration::from_secs(120);

struct Side {
    finhook: Finhook,
    receiver: Receiver,
    // Lives as long as the sink is needed.
    _responder: Responder,
}

/// The others' throughput with the blocked one, against the same without it, by turns; then the blocked one's order.
pub(crate) fn blocked(options: &Options) -> Result<Vec<Row>> {
    let waiting = options.events(1_000_000);
    let others = options.events(100_000);
    let (blocked_files, free_files) = (Scratch::new()?, Scratch::new()?);
    // A file sink writes down the order of storing, which many connections at once leave to chance.
    let archive = blocked_files.path().join("archive");
    std::fs::create_dir_all(&archive)?;
    let setup = Setup::new(blocked_files.path());
    let table = file_sink("archive", &archive.join("events.ndjson"), "keep = 1000");
    fill_and_archive(&setup.clone().sinks(&table), waiting)?;

    let with = begin(&setup, Some(BLOCKED))?;
    let without = begin(&Setup::new(free_files.path()), None)?;
    // The first run on each side is not counted: the worker has first to get past what is stored.
    others_rate(&with, 2_000)?;
    others_rate(&without, 2_000)?;
    let quiet = (with.finhook.server.rss()?, without.finhook.server.rss()?);
    let pairs = Pairs::measure(options.pairs(11), || others_rate(&with, others), || others_rate(&without, others))?;
    let peak = (with.finhook.server.peak_rss()?, without.finhook.server.peak_rss()?);
    if with.receiver.with(|seen| seen.taken_of_one) > 0 {
        return Err("the blocked conversation was delivered".into());
    }
    without.finhook.stop()?;

    with.finhook.server.forget_peak()?;
    let begun = Instant::now();
    with.receiver.with(|seen| seen.block = None);
    let (mut most, mut grown) = (0, Instant::now());
    while most < waiting {
        let taken = with.receiver.with(|seen| seen.taken_of_one);
        if taken > most {
            (most, grown) = (taken, Instant::now());
        } else if grown.elapsed() > STUCK {
            return Err(format!("stuck at {taken} of {waiting}: {}", with.finhook.log_tail()).into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let took = begun.elapsed();
    let drain_peak = with.finhook.server.peak_rss()?;
    with.finhook.stop()?;
    let order = with.receiver.with(|seen| seen.order.take()).unwrap_or_default();
    let in_order = order == stored_order(&archive)?;
    let inversions = with.receiver.with(|seen| seen.inversions);
    #[allow(clippy::cast_precision_loss)]
    let rate = waiting as f64 / took.as_secs_f64();
    Ok(vec![
        Row {
            what: format!("others' throughput while one conversation has {waiting} events waiting ÷ without it"),
            goal: "≥ 0.97".into(),
            figure: format!(
                "{:.3} ({:.0} ÷ {:.0}/s); peak RSS {:.1} MiB (before {:.1}), without it {:.1} (before {:.1})",
                pairs.ratio(),
                pairs.ours(),
                pairs.theirs(),
                mebibytes(peak.0),
                mebibytes(quiet.0),
                mebibytes(peak.1),
                mebibytes(quiet.1)
            ),
            met: Some(pairs.ratio() >= 0.97),
            detail: json!({"pairs": pairs.values, "ratio": pairs.ratio(), "waiting": waiting,
                           "rss_peak": peak, "rss_before": quiet}),
        },
        Row {
            what: "and then unblocked".into(),
            goal: "delivered in order".into(),
            figure: format!(
                "{} delivered {} at {rate:.0}/s, one after the other; peak RSS {:.1} MiB",
                order.len(),
                if in_order { "in the order of storing" } else { "NOT in the order of storing" },
                mebibytes(drain_peak)
            ),
            met: Some(in_order),
            detail: json!({"rate": rate, "in_order": in_order, "others_inversions": inversions, "rss_peak": drain_peak}),
        },
    ])
}

fn fill_and_archive(setup: &Setup, count: u64) -> Result<()> {
    fill(setup, count, Conversations::One(BLOCKED))?;
    // What the file sink had not got when the program stopped it gets now.
    let finhook = setup.start(Cores::Shared)?;
    let begun = Instant::now();
    while finhook.metric("finhook_sink_lag_events{sink=\"archive\"}")? > 0.0 {
        if begun.elapsed() > STUCK {
            return Err("the file sink did not keep up".into());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    finhook.stop()
}

fn begin(setup: &Setup, block: Option<u64>) -> Result<Side> {
    let receiver = Receiver::default();
    receiver.with(|seen| {
        seen.watch(BLOCKED);
        seen.block = block;
        seen.order = Some(Vec::new());
    });
    let responder = Responder::start(None, receiver.clone())?;
    let table = http_sink("backend", responder.address, 64, "from = \"start\"\nretry = { cap = \"5s\" }");
    let finhook = setup.clone().sinks(&table).start(Cores::Shared)?;
    Ok(Side { finhook, receiver, _responder: responder })
}

/// Events of other conversations a second, from the first one sent to the last one delivered.
fn others_rate(side: &Side, count: u64) -> Result<f64> {
    let wanted = side.receiver.with(|seen| seen.taken) + count;
    let begun = Instant::now();
    let mut generator = Generator::connect(side.finhook.server.address, 256)?;
    // Numbers of one run are compared with those of the last, so each run's conversations are its own.
    side.receiver.with(|seen| seen.forget_order());
    let mut events = fresh_events(&side.finhook.server.address.to_string(), many(count));
    generator.closed_loop(&mut events, Until::Count(count))?.all_answered()?;
    while side.receiver.with(|seen| seen.taken) < wanted {
        if begun.elapsed() > STUCK {
            return Err(format!("others were not delivered: {}", side.finhook.log_tail()).into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let last = side.receiver.with(|seen| seen.last).unwrap_or(begun);
    #[allow(clippy::cast_precision_loss)]
    Ok(count as f64 / last.duration_since(begun).as_secs_f64())
}

/// The numbers in the archive's lines, oldest file first.
fn stored_order(archive: &Path) -> Result<Vec<u64>> {
    const MARK: &str = "\"msg_";
    let mut files: Vec<(u32, std::path::PathBuf)> = Vec::new();
    for entry in std::fs::read_dir(archive)? {
        let path = entry?.path();
        // `events.ndjson` is the newest, `.1` the one before, and so on.
        let age = path.extension().and_then(|end| end.to_str()).and_then(|end| end.parse().ok()).unwrap_or(0);
        files.push((age, path));
    }
    files.sort();
    let mut numbers = Vec::new();
    for (_, path) in files.into_iter().rev() {
        for line in BufReader::new(std::fs::File::open(path)?).lines() {
            let line = line?;
            let at = line.find(MARK).ok_or("a line without a message id")? + MARK.len() + 9;
            numbers.push(line.get(at..at + 12).ok_or("a short line")?.parse()?);
        }
    }
    Ok(numbers)
}
