//! Answers a second, closed loop: finhook's against the bare handler's.

use std::time::Duration;

use serde_json::json;

use crate::support::Result;
use crate::support::cli::Options;
use crate::support::events::{Conversations, FIN_SIGNATURE, fresh_signed_events};
use crate::support::finhook::Setup;
use crate::support::generator::{Generator, Run, Until};
use crate::support::picture::{Axes, Line, draw};
use crate::support::process::{Cores, Scratch, Server};
use crate::support::report::{Report, Row};
use crate::support::stats::{Pairs, median};

/// Connections, unless a part says otherwise.
pub(crate) const CONNECTIONS: usize = 256;

/// The conversations that events are spread over.
pub(crate) const CONVERSATIONS: Conversations = Conversations::Spread(50_000);

/// One closed-loop run; every answer has to be 200.
pub(crate) fn drive(server: &Server, cores: Cores, connections: usize, options: &Options) -> Result<Run> {
    drive_signed(server, FIN_SIGNATURE, cores, connections, options)
}

/// The same, with the signature in another header.
pub(crate) fn drive_signed(
    server: &Server,
    signature: &str,
    cores: Cores,
    connections: usize,
    options: &Options,
) -> Result<Run> {
    let _placed = cores.generator()?;
    let mut generator = Generator::connect(server.address, connections)?;
    let mut events = fresh_signed_events(&server.address.to_string(), signature, CONVERSATIONS);
    let cpu = server.cpu()?;
    let run = generator.closed_loop(&mut events, Until::measured(options.run))?.all_answered()?;
    #[allow(clippy::cast_precision_loss)]
    let cpu = (server.cpu()? - cpu).as_secs_f64() * 1e6 / run.answers as f64;
    eprintln!("    {:.0}/s, {cpu:.1} µs of the server's processor time each; {}", run.rate(), run.latency.line());
    drop(generator);
    // What the server still does for this run must not fall into the next one.
    std::thread::sleep(Duration::from_millis(300));
    Ok(run)
}

/// What the generator could do at most: against a server that does next to nothing.
pub(crate) fn ceiling(options: &Options, _report: &mut Report) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for cores in [Cores::Shared, Cores::Pinned] {
        let bare = Server::helper("bare", cores)?;
        let trivial = Server::helper("responder", cores)?;
        let pairs = Pairs::measure(
            options.pairs(5),
            || Ok(drive(&trivial, cores, CONNECTIONS, options)?.rate()),
            || Ok(drive(&bare, cores, CONNECTIONS, options)?.rate()),
        )?;
        rows.push(Row {
            what: format!("generator against a trivial responder ÷ against the bare handler, {}", name(cores)),
            goal: "> 1".into(),
            figure: format!("{:.2} ({:.0} ÷ {:.0}/s)", pairs.ratio(), pairs.ours(), pairs.theirs()),
            met: Some(pairs.ratio() > 1.0),
            detail: json!({"pairs": pairs.values}),
        });
    }
    Ok(rows)
}

/// Generator and server on both cores.
pub(crate) fn durable_shared(options: &Options, _report: &mut Report) -> Result<Vec<Row>> {
    durable(options, Cores::Shared, false, 0.60)
}

/// The server on one core, the generator on the other.
pub(crate) fn durable_pinned(options: &Options, _report: &mut Report) -> Result<Vec<Row>> {
    durable(options, Cores::Pinned, false, 0.45)
}

/// finhook's listener, signature check and parser without the journal.
pub(crate) fn verified(options: &Options, _report: &mut Report) -> Result<Vec<Row>> {
    let cores = Cores::Pinned;
    let stub = Server::helper("verified", cores)?;
    let bare = Server::helper("bare", cores)?;
    let pairs = Pairs::measure(
        options.pairs(7),
        || Ok(drive(&stub, cores, CONNECTIONS, options)?.rate()),
        || Ok(drive(&bare, cores, CONNECTIONS, options)?.rate()),
    )?;
    Ok(vec![Row {
        what: format!("verified but not stored (the journal stubbed) ÷ bare handler's, {}", name(cores)),
        goal: "≥ 0.75".into(),
        figure: format!("{:.2} ({:.0} ÷ {:.0}/s)", pairs.ratio(), pairs.ours(), pairs.theirs()),
        met: Some(pairs.ratio() >= 0.75),
        detail: json!({"ratio": pairs.ratio(), "pairs": pairs.values}),
    }])
}

/// As it comes: with the built-in sink that writes a line an event to stdout.
pub(crate) fn durable_default(options: &Options, _report: &mut Report) -> Result<Vec<Row>> {
    let mut rows = durable(options, Cores::Shared, true, 0.0)?;
    rows.extend(durable(options, Cores::Pinned, true, 0.0)?);
    Ok(rows)
}

fn durable(options: &Options, cores: Cores, stdout: bool, goal: f64) -> Result<Vec<Row>> {
    let scratch = Scratch::new()?;
    let mut setup = Setup::new(scratch.path());
    setup.stdout = stdout;
    let finhook = setup.start(cores)?;
    let bare = Server::helper("bare", cores)?;
    let mut latencies = Vec::new();
    let pairs = Pairs::measure(
        options.pairs(7),
        || {
            let run = drive(&finhook.server, cores, CONNECTIONS, options)?;
            latencies.push(run.latency.json());
            Ok(run.rate())
        },
        || Ok(drive(&bare, cores, CONNECTIONS, options)?.rate()),
    )?;
    finhook.stop()?;
    Ok(vec![Row {
        what: format!(
            "durable 200s a second ÷ bare handler's, {}{}",
            name(cores),
            if stdout { ", with the stdout sink on" } else { "" }
        ),
        goal: if goal > 0.0 { format!("≥ {goal:.2}") } else { String::new() },
        figure: format!("{:.2} ({:.0} ÷ {:.0}/s)", pairs.ratio(), pairs.ours(), pairs.theirs()),
        met: (goal > 0.0).then_some(pairs.ratio() >= goal),
        detail: json!({"ratio": pairs.ratio(), "pairs": pairs.values, "latency": latencies}),
    }])
}

/// Rate by number of connections, with a picture.
pub(crate) fn by_connections(options: &Options, report: &mut Report) -> Result<Vec<Row>> {
    let cores = Cores::Shared;
    let scratch = Scratch::new()?;
    let finhook = Setup::new(scratch.path()).start(cores)?;
    let bare = Server::helper("bare", cores)?;
    let mut rows = Vec::new();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for connections in [1, 4, 16, 64, 256, 1000] {
        let pairs = Pairs::measure(
            options.pairs(3).min(3),
            || Ok(drive(&finhook.server, cores, connections, options)?.rate()),
            || Ok(drive(&bare, cores, connections, options)?.rate()),
        )?;
        #[allow(clippy::cast_precision_loss)]
        let x = connections as f64;
        ours.push((x, pairs.ours()));
        theirs.push((x, pairs.theirs()));
        rows.push(Row {
            what: format!("durable ÷ bare, both cores, {connections} connections"),
            goal: String::new(),
            figure: format!("{:.2} ({:.0} ÷ {:.0}/s)", pairs.ratio(), pairs.ours(), pairs.theirs()),
            met: None,
            detail: json!({"connections": connections, "pairs": pairs.values}),
        });
    }
    finhook.stop()?;
    let most = median(&theirs.iter().map(|point| point.1).collect::<Vec<_>>())
        .max(theirs.iter().map(|point| point.1).fold(0.0, f64::max));
    let step = if most > 100_000.0 { 50_000.0 } else { 20_000.0 };
    let mut y_ticks = vec![(0.0, "0".to_owned())];
    while y_ticks.last().is_some_and(|tick| tick.0 < most) {
        let next = y_ticks.len() as f64 * step;
        y_ticks.push((next, format!("{:.0}k", next / 1000.0)));
    }
    let picture = draw(
        &Axes {
            title: "Answers a second by connections, both cores shared with the generator".into(),
            x: "keep-alive connections".into(),
            y: "200s a second".into(),
            log_y: false,
            x_ticks: [1, 4, 16, 64, 256, 1000].iter().map(|count| (f64::from(*count), count.to_string())).collect(),
            y_ticks,
        },
        &[
            Line { name: "bare axum handler".into(), points: theirs },
            Line { name: "finhook, durable".into(), points: ours },
        ],
    );
    std::fs::create_dir_all(report.directory())?;
    std::fs::write(report.directory().join("bench-connections.svg"), picture)?;
    Ok(rows)
}

fn name(cores: Cores) -> &'static str {
    match cores {
        Cores::Shared => "both cores shared with the generator",
        Cores::Pinned => "server pinned to one core, generator to the other",
    }
}
