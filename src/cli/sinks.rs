//! `finhook sinks`

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;

use super::admin::{Client, Options, confirmed, is_interactive, json_line, room, table, word};
use super::{Failure, Global, client, print};
use crate::admin::{Forgotten, Retried, SinkItem, SinkList};
use crate::terminal::{count, printable};

/// See how the sinks stand; pause, resume, retry or forget one.
///
/// Asks the admin API of the running finhook, with admin.token of the configuration.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  finhook sinks                       # each sink's lag, in flight, waiting, dead, last error
  finhook sinks list --json
  finhook sinks pause backend         # until resume, across restarts
  finhook sinks retry-dead backend    # after the fault is mended
  finhook sinks forget old_backend    # of one that is not configured any more: drop its state")]
pub(super) struct Args {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the sinks (the default)
    #[command(after_help = "Example:\n  finhook sinks list --json")]
    List,
    /// Stop delivering to a sink, across restarts
    #[command(after_help = "Example:\n  finhook sinks pause backend")]
    Pause {
        /// The sink
        name: String,
    },
    #[command(after_help = "Example:\n  finhook sinks resume backend")]
    /// Deliver to a sink again; one that fails is tried at once
    Resume {
        /// The sink
        name: String,
    },
    /// Try the dead letters of a sink again
    #[command(after_help = "Example:\n  finhook sinks retry-dead backend")]
    RetryDead {
        /// The sink
        name: String,
    },
    #[command(after_help = "Example:\n  finhook sinks forget old_backend")]
    /// Drop all state of a sink that is removed from the configuration, or disabled
    Forget {
        /// The sink
        name: String,
        /// Don't ask on a terminal
        #[arg(long, short)]
        yes: bool,
    },
}

pub(super) fn run(args: Args, global: &Global) -> Result<ExitCode, Failure> {
    let Args { options, action } = args;
    let api = options.client(global)?;
    let text = client::block_on(answer(&api, action.unwrap_or(Action::List), options.json))?;
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

async fn answer(api: &Client, action: Action, json: bool) -> Result<String, Failure> {
    let none = None::<&()>;
    match action {
        Action::List => {
            let SinkList { sinks } = api.get(&["sinks"], &()).await?;
            if json { sinks.iter().map(json_line).collect() } else { Ok(shown(&sinks)) }
        }
        Action::Pause { name } => paused(&api.post(&["sinks", &name, "pause"], none).await?, json),
        Action::Resume { name } => paused(&api.post(&["sinks", &name, "resume"], none).await?, json),
        Action::RetryDead { name } => {
            let done: Retried = api.post(&["sinks", &name, "retry-dead"], none).await?;
            if json {
                json_line(&done)
            } else {
                let are = if done.events == 1 { "is" } else { "are" };
                Ok(format!("{} of {} {are} tried again\n", count(done.events, "dead letter"), done.sink))
            }
        }
        Action::Forget { name, yes } => {
            if !yes && is_interactive() {
                let SinkList { sinks } = api.get(&["sinks"], &()).await?;
                // One that is not known is the API's to refuse.
                if let Some(sink) = sinks.iter().find(|sink| sink.name == name) {
                    let (lag, dead) = (count(sink.lag, "undelivered event"), count(sink.dead, "dead letter"));
                    if !confirmed(&format!("Forget {} with {lag} and {dead}, for good?", printable(&name)), yes)? {
                        return Err(Failure::new("nothing was done"));
                    }
                }
            }
            let done: Forgotten = api.post(&["sinks", &name, "forget"], none).await?;
            let Forgotten { sink, lag, dead } = &done;
            if json {
                json_line(&done)
            } else {
                let (lag, dead) = (count(*lag, "undelivered event"), count(*dead, "dead letter"));
                Ok(format!("{sink} is forgotten: {lag}, {dead}\n"))
            }
        }
    }
}

fn paused(sink: &SinkItem, json: bool) -> Result<String, Failure> {
    if json { json_line(sink) } else { Ok(shown(std::slice::from_ref(sink))) }
}

/// A table, and under it why what fails is no dead letter yet.
fn shown(sinks: &[SinkItem]) -> String {
    let mut text = table(&HEAD, &sinks.iter().map(row).collect::<Vec<_>>(), &["LAST ERROR"], room());
    for sink in sinks {
        if let Some(why) = sink.not_dead_because {
            let _ = writeln!(text, "{}: what failed last is not dead, as {}", sink.name, why.words());
        }
    }
    text
}

const HEAD: [&str; 8] = ["NAME", "STATE", "LAG", "IN FLIGHT", "WAITING", "DEAD", "OLDEST", "LAST ERROR"];

fn row(sink: &SinkItem) -> Vec<String> {
    let oldest = Duration::from_secs(sink.oldest_undelivered_seconds.max(0.0) as u64);
    vec![
        sink.name.clone(),
        word(&sink.state),
        sink.lag.to_string(),
        sink.in_flight.to_string(),
        sink.waiting.to_string(),
        sink.dead.to_string(),
        if sink.oldest_undelivered_seconds > 0.0 { humantime::format_duration(oldest).to_string() } else { "-".into() },
        last_error(sink),
    ]
}

/// With its time, as a sink may have been quiet since.
fn last_error(sink: &SinkItem) -> String {
    match (&sink.last_error_at, &sink.last_error) {
        (Some(at), Some(error)) => format!("{} {}", printable(at), printable(error)),
        (None, Some(error)) => printable(error),
        _ => "-".to_owned(),
    }
}
