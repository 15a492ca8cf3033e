//! `finhook events`

use std::process::ExitCode;

use clap::Subcommand;

use super::admin::{Client, Options, confirmed, is_interactive, json_line, room, table, word};
use super::{Failure, Global, client, print, usage};
use crate::admin::{AnyState, EventDetail, EventItem, EventPage, ListQuery, Purged, Replayed, Selection};
use crate::terminal::{count, printable};

/// Events in one answer; more are asked for page by page.
const PAGE: usize = 500;
/// Events listed when no limit is given.
const DEFAULT_LIMIT: usize = 100;
/// A replay of more is confirmed on a terminal.
const BIG_REPLAY: u64 = 1000;

/// Look at stored events, send them again, or remove them.
///
/// Asks the admin API of the running finhook, with admin.token of the configuration.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  finhook events list --since 2h --event fin_replied
  finhook events list --state dead --sink backend --json
  finhook events show 019497c1-10f3-8be9-9813-37ba266bc988 --body
  finhook events replay --sink backend --since 2026-01-31T08:00:00Z --dry-run
  finhook events purge --user 42 --dry-run

States: stored, quarantined, stale, purged are the event's own; pending, retrying, waiting, delivered, dead, skipped
are those at a sink (--sink, or any).
Times: RFC 3339, or how long ago (90s, 2h, 7d); they are compared with when the event was received.")]
pub(super) struct Args {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List events, newest first
    #[command(
        after_help = "Examples:\n  finhook events list --since 2h --event fin_replied\n  finhook events list --state dead --sink backend --json"
    )]
    List {
        #[command(flatten)]
        filters: Filters,
        /// Events that this sink gets; with --state: its state there
        #[arg(long, value_name = "NAME")]
        sink: Option<String>,
        /// No more than so many
        #[arg(long, default_value_t = DEFAULT_LIMIT, value_name = "N", value_parser = usage::at_least_one)]
        limit: usize,
    },
    #[command(after_help = "Example:\n  finhook events show 019497c1-10f3-8be9-9813-37ba266bc988 --body")]
    /// Show one event and how far it has come at each sink
    Show {
        /// The event's id
        #[arg(value_parser = usage::event_id)]
        id: String,
        /// With its body, which holds customers' data
        #[arg(long)]
        body: bool,
    },
    #[command(
        after_help = "Examples:\n  finhook events replay --sink backend --since 2026-01-31T08:00:00Z --dry-run\n  finhook events replay --sink backend 019497c1-10f3-8be9-9813-37ba266bc988"
    )]
    /// Send events to a sink again, with the same ids, marked as a replay
    Replay {
        #[command(flatten)]
        choice: Choice,
        /// Where to send them, whatever its `match` says
        #[arg(long, value_name = "NAME")]
        sink: String,
    },
    #[command(after_help = "Examples:\n  finhook events purge --user 42 --dry-run\n  finhook events purge --user 42")]
    /// Remove events for good: their bytes, and what was still to be delivered of them
    Purge {
        #[command(flatten)]
        choice: Choice,
        /// Events that this sink gets; with --state: its state there
        #[arg(long, value_name = "NAME")]
        sink: Option<String>,
    },
}

/// Filters; all that are given must hold.
#[derive(Debug, clap::Args)]
struct Filters {
    /// Of this conversation_id
    #[arg(long, value_name = "ID")]
    conversation: Option<String>,
    /// Of this user_id
    #[arg(long, value_name = "ID")]
    user: Option<String>,
    /// Of this name, e.g. fin_replied
    #[arg(long, value_name = "NAME")]
    event: Option<String>,
    /// Of this status, e.g. escalated
    #[arg(long, value_name = "STATUS")]
    status: Option<String>,
    /// In this state
    #[arg(long, value_enum)]
    state: Option<AnyState>,
    /// Received then or later
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Received before then
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
}

/// Which events, and how.
#[derive(Debug, clap::Args)]
struct Choice {
    /// Ids of events; or use filters
    ids: Vec<String>,
    #[command(flatten)]
    filters: Filters,
    /// No more than so many, the oldest first
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Only count
    #[arg(long)]
    dry_run: bool,
    /// Don't ask on a terminal
    #[arg(long, short)]
    yes: bool,
}

impl Choice {
    fn selection(self, sink: Option<String>) -> Selection {
        let Filters { conversation, user, event, status, state, since, until } = self.filters;
        let Self { ids, limit, dry_run, .. } = self;
        Selection { ids, conversation, user, event, status, sink, state, since, until, limit, dry_run }
    }
}

/// What is asked for, checked as the API does, before anything is tried.
enum Request {
    List(ListQuery, usize),
    Show { id: String, body: bool },
    Replay(Selection, bool),
    Purge(Selection, bool),
}

impl Action {
    fn request(self) -> Result<Request, Failure> {
        Ok(match self {
            Self::List { filters, sink, limit } => {
                let Filters { conversation, user, event, status, state, since, until } = filters;
                let query =
                    ListQuery { conversation, user, event, status, sink, state, since, until, ..ListQuery::default() };
                usage::list(&query)?;
                Request::List(query, limit)
            }
            Self::Show { id, body } => Request::Show { id, body },
            Self::Replay { choice, sink } => {
                let (yes, selection) = (choice.yes, choice.selection(Some(sink)));
                usage::selection(&selection, false)?;
                Request::Replay(selection, yes)
            }
            Self::Purge { choice, sink } => {
                let (yes, selection) = (choice.yes, choice.selection(sink));
                usage::selection(&selection, true)?;
                Request::Purge(selection, yes)
            }
        })
    }
}

pub(super) fn run(args: Args, global: &Global) -> Result<ExitCode, Failure> {
    let Args { options, action } = args;
    let request = action.request()?;
    let api = options.client(global)?;
    client::block_on(async {
        match request {
            Request::List(query, limit) => list(&api, query, limit, options.json).await,
            Request::Show { id, body } => show(&api, &id, body, options.json).await,
            Request::Replay(selection, yes) => replay(&api, selection, yes, options.json).await,
            Request::Purge(selection, yes) => purge(&api, selection, yes, options.json).await,
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn list(api: &Client, mut query: ListQuery, limit: usize, json: bool) -> Result<(), Failure> {
    let mut left = limit;
    let mut rows = Vec::new();
    while left > 0 {
        query.limit = Some(left.min(PAGE));
        let page: EventPage = api.get(&["events"], &query).await?;
        left = left.saturating_sub(page.events.len());
        for event in page.events {
            if json {
                print(&json_line(&event)?)?;
            } else {
                rows.push(row(&event));
            }
        }
        query.cursor = page.next;
        if query.cursor.is_none() {
            break;
        }
    }
    if json {
        return Ok(());
    }
    let head = ["RECEIVED", "ID", "STATE", "EVENT", "CONVERSATION", "STATUS", "BYTES"];
    print(&table(&head, &rows, &["EVENT", "CONVERSATION", "STATUS"], room()))
}

fn row(event: &EventItem) -> Vec<String> {
    let text = |text: &Option<String>| text.as_deref().map_or_else(|| "-".to_owned(), printable);
    vec![
        text(&event.received_at),
        event.id.to_string(),
        event.sink_state.map_or_else(|| word(&event.state), |state| word(&state)),
        text(&event.event),
        text(&event.conversation_id),
        text(&event.status),
        event.body_bytes.map_or_else(|| "-".to_owned(), |bytes| bytes.to_string()),
    ]
}

async fn show(api: &Client, id: &str, body: bool, json: bool) -> Result<(), Failure> {
    let detail: EventDetail = api.get(&["events", id], &serde_json::json!({ "body": body })).await?;
    if json {
        return print(&json_line(&detail)?);
    }
    let event = &detail.event;
    let mut text = String::new();
    let mut line = |name: &str, value: Option<&str>| {
        if let Some(value) = value {
            text.push_str(&format!("{name:14} {}\n", printable(value)));
        }
    };
    line("id", Some(&event.id.to_string()));
    line("seq", Some(&event.seq.to_string()));
    line("state", Some(&word(&event.state)));
    line("endpoint", event.endpoint.as_deref());
    line("event", event.event.as_deref());
    line("conversation", event.conversation_id.as_deref());
    line("user", event.user_id.as_deref());
    line("status", event.status.as_deref());
    line("reason", event.reason.as_deref());
    line("message", event.message_id.as_deref());
    line("created", event.created_at.as_deref());
    line("received", event.received_at.as_deref());
    line("body bytes", event.body_bytes.map(|bytes| bytes.to_string()).as_deref());
    if !detail.sinks.is_empty() {
        let rows: Vec<_> = detail
            .sinks
            .iter()
            .map(|at| {
                let or_dash = |text: &Option<String>| text.as_deref().map_or_else(|| "-".to_owned(), printable);
                let time = if at.died_at.is_some() { &at.died_at } else { &at.next_attempt_at };
                let attempts = at.attempts.map_or_else(|| "-".to_owned(), |attempts| attempts.to_string());
                vec![at.sink.clone(), word(&at.state), attempts, or_dash(time), or_dash(&at.error)]
            })
            .collect();
        text.push('\n');
        text.push_str(&table(&["SINK", "STATE", "FAILED TRIES", "NEXT OR DIED", "ERROR"], &rows, &["ERROR"], room()));
    }
    if let Some(body) = detail.body.or(detail.body_base64) {
        text.push('\n');
        text.push_str(&if room().is_some() { terminal_safe(&body) } else { body });
        text.push('\n');
    }
    print(&text)
}

/// A body for a terminal: its lines, with nothing that steers it. In a pipe the bytes are as they came.
fn terminal_safe(body: &str) -> String {
    body.lines().map(printable).collect::<Vec<_>>().join("\n")
}

async fn replay(api: &Client, mut selection: Selection, yes: bool, json: bool) -> Result<(), Failure> {
    if !selection.dry_run && !yes && is_interactive() {
        selection.dry_run = true;
        let counted: Replayed = api.post(&["events", "replay"], Some(&selection)).await?;
        let question = format!("Send {} to {} again?", count(counted.events, "event"), counted.sink);
        if counted.events > BIG_REPLAY && !confirmed(&question, yes)? {
            return Err(Failure::new("nothing was done"));
        }
        selection.dry_run = false;
    }
    let done: Replayed = api.post(&["events", "replay"], Some(&selection)).await?;
    if json {
        return print(&json_line(&done)?);
    }
    let Replayed { replay, sink, events, .. } = &done;
    print(&match replay {
        Some(id) if *events == 1 => format!("1 event is sent to {sink} again, marked finhook-replay: {id}\n"),
        Some(id) => format!("{events} events are sent to {sink} again, marked finhook-replay: {id}\n"),
        None => format!("{} would be sent to {sink} again\n", count(*events, "event")),
    })
}

async fn purge(api: &Client, mut selection: Selection, yes: bool, json: bool) -> Result<(), Failure> {
    if !selection.dry_run && !yes && is_interactive() {
        selection.dry_run = true;
        let counted: Purged = api.post(&["events", "purge"], Some(&selection)).await?;
        let question =
            format!("Remove {} ({}) for good?", count(counted.events, "event"), count(counted.bytes, "byte"));
        if !confirmed(&question, yes)? {
            return Err(Failure::new("nothing was done"));
        }
        selection.dry_run = false;
    }
    let done: Purged = api.post(&["events", "purge"], Some(&selection)).await?;
    if json {
        return print(&json_line(&done)?);
    }
    let Purged { events, bytes, dry_run, note } = &done;
    let verb = match (*dry_run, *events) {
        (true, _) => "would be removed",
        (false, 1) => "is removed",
        (false, _) => "are removed",
    };
    print(&format!("{} ({} of bodies) {verb}; {note}\n", count(*events, "event"), count(*bytes, "byte")))
}
