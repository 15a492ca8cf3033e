//! The delivery guarantee at the size of a bad week: a million events with a sink that fails at random, with one
//! conversation that is blocked, with a sink that is down. `cargo bench --bench delivery` runs all of it (some ten
//! minutes), `-- PART…` a part, `-- --quick` a hundredth. Results are explained in `docs/PERFORMANCE.md`.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, dead_code)]

#[path = "../support/mod.rs"]
mod support;

mod blocked;
mod down;
mod failing;

use std::process::ExitCode;

use support::Result;
use support::cli::Options;
use support::events::{Conversations, fresh_events};
use support::finhook::Setup;
use support::generator::{Generator, Until};
use support::process::Cores;
use support::report::{Report, Row};

/// A part's name and what it runs.
type Part = (&'static str, fn(&Options) -> Result<Vec<Row>>);

const PARTS: &[Part] = &[("failing", failing::failing), ("blocked", blocked::blocked), ("down", down::down)];

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let names: Vec<&str> = PARTS.iter().map(|part| part.0).collect();
    let Some(options) = Options::read(&names)? else { return Ok(()) };
    support::events::self_check()?;
    let mut report = Report::open("bench-delivery", &options)?;
    for (name, part) in PARTS.iter().filter(|part| options.parts.iter().any(|wanted| wanted == part.0)) {
        eprintln!("{name}");
        let rows = part(&options)?;
        report.add(name, rows)?;
    }
    report.print();
    Ok(())
}

/// Stores events while only the given sinks are there.
fn fill(setup: &Setup, count: u64, conversations: Conversations) -> Result<()> {
    let finhook = setup.start(Cores::Shared)?;
    let mut generator = Generator::connect(finhook.server.address, 256)?;
    let mut events = fresh_events(&finhook.server.address.to_string(), conversations);
    let run = generator.closed_loop(&mut events, Until::Count(count))?.all_answered()?;
    eprintln!("  stored {count} events at {:.0}/s", run.rate());
    finhook.stop()
}

/// So many conversations that no two events of one are ever under way to finhook at once: their numbers are then in the
/// order of storing, and the receiver can judge order by them.
fn many(count: u64) -> Conversations {
    Conversations::Spread((count / 20).max(1_000))
}

#[allow(clippy::cast_precision_loss)]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / 1_048_576.0
}
