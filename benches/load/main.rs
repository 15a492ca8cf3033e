//! How close finhook comes to the limit: the released program against a bare axum handler, on the same machine, in the
//! same run, by turns. `cargo bench --bench load` runs everything; `-- --list` names the parts, `-- PART…` runs some,
//! `-- --quick` shows in a minute that everything works. The method is described in `docs/PERFORMANCE.md`.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, dead_code)]

#[path = "../support/mod.rs"]
mod support;

mod footprint;
mod growth;
mod latency;
mod onward;
mod peers;
mod throughput;

use std::net::TcpListener;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use support::Result;
use support::cli::Options;
use support::report::{Report, Row};

/// A part's name and what it runs.
type Part = (&'static str, fn(&Options, &mut Report) -> Result<Vec<Row>>);

const PARTS: &[Part] = &[
    ("ceiling", throughput::ceiling),
    ("durable-shared", throughput::durable_shared),
    ("durable-pinned", throughput::durable_pinned),
    ("verified", throughput::verified),
    ("durable-default", throughput::durable_default),
    ("connections", throughput::by_connections),
    ("ack-latency", latency::ack),
    ("receipt", latency::receipt),
    ("backlog-file", onward::file),
    ("backlog-http", onward::http),
    ("growth", growth::growth),
    ("memory", footprint::memory),
    ("start", footprint::start),
    ("idle", footprint::idle),
    ("size", footprint::size),
    ("peers", peers::peers),
];

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
    let args: Vec<String> = std::env::args().collect();
    if let [_, helper, role] = args.as_slice()
        && helper == "helper"
    {
        return help(role);
    }
    let names: Vec<&str> = PARTS.iter().map(|part| part.0).collect();
    let Some(options) = Options::read(&names)? else { return Ok(()) };
    support::events::self_check()?;
    let mut report = Report::open("bench-load", &options)?;
    for (name, part) in PARTS.iter().filter(|part| options.parts.iter().any(|wanted| wanted == part.0)) {
        eprintln!("{name}");
        let rows = part(&options, &mut report)?;
        report.add(name, rows)?;
    }
    report.print();
    Ok(())
}

/// Another role of this program, in a process of its own.
fn help(role: &str) -> Result<()> {
    if role == "verified" {
        return support::verified::serve();
    }
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    println!("{}", listener.local_addr()?);
    match role {
        "bare" => support::bare::serve(listener),
        "responder" => support::responder::serve(&listener, support::responder::Always200, &AtomicBool::new(false)),
        _ => Err(format!("no such role: {role}").into()),
    }
}
