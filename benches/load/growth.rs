//! What five million stored events cost those that come after them.

use serde_json::json;

use super::onward::fill;
use super::throughput::{CONNECTIONS, drive};
use crate::support::Result;
use crate::support::cli::Options;
use crate::support::finhook::Setup;
use crate::support::machine::size_of;
use crate::support::process::{Cores, Scratch};
use crate::support::report::{Report, Row};
use crate::support::stats::Pairs;

/// A full journal against a new one, by turns.
pub(crate) fn growth(options: &Options, _report: &mut Report) -> Result<Vec<Row>> {
    let count = options.events(5_000_000);
    let scratch = Scratch::new()?;
    let full = Setup::new(scratch.path());
    fill(&full, count)?;
    let bytes = size_of(scratch.path());
    let full = full.start(Cores::Shared)?;
    let pairs = Pairs::measure(
        options.pairs(7),
        || Ok(drive(&full.server, Cores::Shared, CONNECTIONS, options)?.rate()),
        || {
            let scratch = Scratch::new()?;
            let empty = Setup::new(scratch.path()).start(Cores::Shared)?;
            let rate = drive(&empty.server, Cores::Shared, CONNECTIONS, options)?.rate();
            empty.stop()?;
            Ok(rate)
        },
    )?;
    full.stop()?;
    Ok(vec![Row {
        what: format!("throughput at {count} stored events ÷ at 0"),
        goal: "≥ 0.90".into(),
        figure: format!("{:.2} ({:.0} ÷ {:.0}/s)", pairs.ratio(), pairs.ours(), pairs.theirs()),
        met: Some(pairs.ratio() >= 0.90),
        detail: json!({"pairs": pairs.values, "events": count, "journal_bytes": bytes}),
    }])
}
