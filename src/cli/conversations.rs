//! `finhook conversations`

use std::process::ExitCode;

use clap::Subcommand;

use super::admin::{Client, Options, json_line, room, table, word};
use super::{Failure, Global, client, print, usage};
use crate::admin::{
    ConversationItem, ConversationPage, ConversationQuery, Transcript, TranscriptEntry, TranscriptQuery,
};
use crate::conversations::transcript::Kind;
use crate::journal::DeliveryState;
use crate::terminal::{self, count, printable};

/// Conversations or entries in one answer; more are asked for page by page.
const PAGE: usize = 500;
/// Conversations listed when no limit is given.
const DEFAULT_LIMIT: usize = 50;
/// The width of a transcript in a pipe.
const WIDTH: usize = 100;

/// See what Fin said to a customer, and whether your systems got it.
///
/// Asks the admin API of the running finhook, with admin.token of the configuration.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  finhook conversations list --state escalated --since 2h
  finhook conversations show 123456
  finhook conversations show 123456 --json       # one entry a line

Times: RFC 3339, or how long ago (90s, 2h, 7d); they are compared with the conversation's latest event.")]
pub(super) struct Args {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List conversations, latest first
    #[command(
        after_help = "Examples:\n  finhook conversations list --state escalated\n  finhook conversations list --since 1d --json"
    )]
    List {
        /// Of this endpoint
        #[arg(long, value_name = "NAME")]
        endpoint: Option<String>,
        /// In this state: the status that Fin gave last, e.g. escalated
        #[arg(long, value_name = "STATUS")]
        state: Option<String>,
        /// Whose id begins with this
        #[arg(long, value_name = "TEXT")]
        prefix: Option<String>,
        /// Latest event then or later
        #[arg(long, value_name = "TIME")]
        since: Option<String>,
        /// Latest event before then
        #[arg(long, value_name = "TIME")]
        until: Option<String>,
        /// No more than so many
        #[arg(long, default_value_t = DEFAULT_LIMIT, value_name = "N", value_parser = usage::at_least_one)]
        limit: usize,
    },
    /// Show what was said in a conversation, and how far each message has come
    #[command(
        after_help = "Examples:\n  finhook conversations show 123456\n  finhook conversations show 123456 --endpoint fin --json"
    )]
    Show {
        /// The conversation's id
        id: String,
        /// Of this endpoint, where several have the id
        #[arg(long, value_name = "NAME")]
        endpoint: Option<String>,
    },
}

pub(super) fn run(args: Args, global: &Global) -> Result<ExitCode, Failure> {
    let Args { options, action } = args;
    if let Action::List { endpoint, state, prefix, since, until, .. } = &action {
        let (endpoint, state, prefix) = (endpoint.clone(), state.clone(), prefix.clone());
        let (since, until) = (since.clone(), until.clone());
        usage::conversations(&ConversationQuery { endpoint, state, prefix, since, until, ..Default::default() })?;
    }
    let api = options.client(global)?;
    client::block_on(async {
        match action {
            Action::List { endpoint, state, prefix, since, until, limit } => {
                let query = ConversationQuery { endpoint, state, prefix, since, until, ..Default::default() };
                list(&api, query, limit, options.json).await
            }
            Action::Show { id, endpoint } => show(&api, &id, endpoint, options.json).await,
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn list(api: &Client, mut query: ConversationQuery, limit: usize, json: bool) -> Result<(), Failure> {
    let (mut left, mut rows, mut behind) = (limit, Vec::new(), 0);
    while left > 0 {
        query.limit = Some(left.min(PAGE));
        let page: ConversationPage = api.get(&["conversations"], &query).await?;
        behind = page.behind;
        left = left.saturating_sub(page.conversations.len());
        for conversation in page.conversations {
            if json {
                print(&json_line(&conversation)?)?;
            } else {
                rows.push(row(&conversation));
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
    let head = ["LATEST", "CONVERSATION", "STATE", "EVENTS", "LAST EVENT", "ENDPOINT", "REASON"];
    let mut text = table(&head, &rows, &["CONVERSATION", "STATE", "LAST EVENT", "REASON"], room());
    if behind > 0 {
        text.push_str(&format!("{} not taken into account yet\n", count(behind, "event")));
    }
    print(&text)
}

fn row(it: &ConversationItem) -> Vec<String> {
    let text = |text: &Option<String>| text.as_deref().map_or_else(|| "-".to_owned(), printable);
    vec![
        text(&it.last_at),
        printable(&it.id),
        text(&it.state),
        it.events.to_string(),
        printable(&it.last_event),
        it.endpoint.clone(),
        text(&it.reason),
    ]
}

async fn show(api: &Client, id: &str, endpoint: Option<String>, json: bool) -> Result<(), Failure> {
    let mut query = TranscriptQuery { endpoint, limit: Some(PAGE), cursor: None };
    let width = room().unwrap_or(WIDTH);
    let mut first = true;
    loop {
        let page: Transcript = api.get(&["conversations", id], &query).await?;
        if json {
            for entry in &page.entries {
                print(&json_line(entry)?)?;
            }
        } else {
            if std::mem::take(&mut first) {
                print(&header(&page.conversation))?;
            }
            for entry in &page.entries {
                print(&shown(entry, width))?;
            }
        }
        query.cursor = page.next;
        if query.cursor.is_none() {
            return Ok(());
        }
    }
}

/// How the conversation stands.
fn header(it: &ConversationItem) -> String {
    let state = it.state.as_deref().map_or_else(|| "no state yet".to_owned(), printable);
    let reason = it.reason.as_deref().map(|reason| format!(" ({})", printable(reason))).unwrap_or_default();
    let (first, last) = (it.first_at.as_deref().unwrap_or("-"), it.last_at.as_deref().unwrap_or("-"));
    let events = count(it.events, "event");
    format!("{}  {state}{reason}\n{events} at {}, {first} to {last}\n\n", printable(&it.id), it.endpoint)
}

/// An entry: when, who, and what was said or what happened; and where it has not arrived.
fn shown(entry: &TranscriptEntry, width: usize) -> String {
    let at = entry.at.as_deref().unwrap_or("-");
    let event = entry.event.as_deref().map_or_else(|| "-".to_owned(), printable);
    let status = entry.status.as_deref().map(printable);
    let mut text = match (entry.kind, &entry.html) {
        (Kind::Message, None) if entry.masked => {
            let author = entry.author.as_deref().unwrap_or("somebody");
            format!("{at}  {author}\n  (masked: this token is for looking)\n")
        }
        (Kind::Message, Some(html)) => {
            let author = entry.author.as_deref().map_or_else(|| "somebody".to_owned(), printable);
            let lines = terminal::html(html, width.saturating_sub(2));
            let said = lines.iter().map(|line| format!("  {line}").trim_end().to_owned() + "\n").collect::<String>();
            format!("{at}  {author}\n{said}")
        }
        (Kind::Status, _) => {
            let reason = entry.reason.as_deref().map(|reason| format!(" ({})", printable(reason))).unwrap_or_default();
            format!("{at}  → {}{reason}\n", status.unwrap_or(event))
        }
        (Kind::Rating, _) => format!("{at}  asks for a rating\n"),
        _ => format!("{at}  {event}\n"),
    };
    let missing =
        entry.sinks.iter().filter(|at| !matches!(at.state, DeliveryState::Delivered | DeliveryState::Skipped));
    for at in missing {
        let error = at.error.as_deref().map(|error| format!(": {}", printable(error))).unwrap_or_default();
        text.push_str(&format!("  ! {} at {}{error}\n", word(&at.state), at.sink));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::{DeliveryItem, Way};

    fn entry(kind: Kind, html: Option<&str>) -> TranscriptEntry {
        TranscriptEntry {
            id: uuid::Uuid::nil(),
            seq: 1,
            kind,
            event: Some("fin_replied".into()),
            at: Some("2026-01-31T12:00:00.000Z".into()),
            received_at: None,
            masked: false,
            user_id: None,
            author: Some("fin".into()),
            text: None,
            html: html.map(str::to_owned),
            status: Some("escalated".into()),
            reason: Some("asked for a person".into()),
            way: Way::Webhook,
            sinks: Vec::new(),
        }
    }

    #[test]
    fn an_entry_says_who_said_what_and_what_steers_a_terminal_does_not_reach_it() {
        let said = shown(&entry(Kind::Message, Some("<p>Hello <b>you</b></p><script>x</script>\u{1b}[31m")), 80);
        assert!(said.starts_with("2026-01-31T12:00:00.000Z  fin\n  Hello you\n"), "{said}");
        assert!(!said.contains('\u{1b}') && !said.contains("<b>"), "{said}");
        let status = shown(&entry(Kind::Status, None), 80);
        assert_eq!(status, "2026-01-31T12:00:00.000Z  → escalated (asked for a person)\n");
    }

    #[test]
    fn what_a_sink_has_not_got_is_said() {
        let mut entry = entry(Kind::Rating, None);
        let at = |sink: &str, state, error: Option<&str>| DeliveryItem {
            sink: sink.into(),
            state,
            attempts: None,
            next_attempt_at: None,
            died_at: None,
            error: error.map(str::to_owned),
            replay: None,
        };
        entry.sinks = vec![
            at("log", DeliveryState::Delivered, None),
            at("other", DeliveryState::Skipped, None),
            at("backend", DeliveryState::Dead, Some("answered 400")),
        ];
        assert_eq!(
            shown(&entry, 80),
            "2026-01-31T12:00:00.000Z  asks for a rating\n  ! dead at backend: answered 400\n"
        );
    }
}
