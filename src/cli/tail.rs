//! `finhook tail`

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use serde::Deserialize;
use url::Url;

use super::live_client::LiveClient;
use super::text::{Paint, cut, html, printable};
use super::{Failure, Global, client, interrupted};
use crate::fin;

/// Columns where the terminal's width is not known, and the fewest that an event's text gets.
const WIDTH: usize = 120;
const LEAST: usize = 30;

/// Follow the live stream of a running receiver.
///
/// On a terminal one coloured line an event; in a pipe the events themselves, one JSON object (CloudEvents) a line.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  finhook tail
  finhook tail --conversation 123456 --since 1h
  finhook tail --event fin_replied --event csat_requested | jq .data.message.body")]
pub(super) struct Args {
    /// Only this conversation_id
    #[arg(long, value_name = "ID")]
    conversation: Option<String>,
    /// Only events of this name; may be given several times
    #[arg(long, value_name = "NAME")]
    event: Vec<String>,
    /// Begin with what was received since then: a time (RFC 3339), or how long ago (15m, 2h)
    #[arg(long, value_name = "WHEN")]
    since: Option<String>,
}

/// The part of an event that is shown on a terminal.
#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    receivedtime: String,
    #[serde(default)]
    source: String,
    data: serde_json::Value,
}

pub(super) fn run(args: Args, global: &Global) -> Result<ExitCode, Failure> {
    let config = global.load()?.config;
    let address = client::reach(config.admin.bind)
        .ok_or_else(|| Failure::new("admin.bind has port 0, so its port is not known"))?;
    let url = format!("http://{address}/api/v1/stream");
    let mut url = Url::parse(&url).map_err(|e| Failure::new(format!("{url}: {e}")))?;
    {
        let mut query = url.query_pairs_mut();
        query.extend_pairs(args.conversation.iter().map(|id| ("conversation", id)));
        query.extend_pairs(args.event.iter().map(|name| ("event", name)));
        query.extend_pairs(args.since.iter().map(|since| ("since", since)));
    }
    client::block_on(async {
        let follow = async {
            let if_refused = "is it running? `finhook serve` starts it";
            let mut stream = LiveClient::open(url, config.admin.token, if_refused).await?;
            let terminal = io::stdout().is_terminal();
            loop {
                let data = stream.next().await?;
                let line = if terminal { shown(&data, Paint::for_stdout()) } else { data };
                if !written(&line)? {
                    return Ok(ExitCode::SUCCESS);
                }
            }
        };
        tokio::select! {
            failed = follow => failed,
            () = interrupted()? => Ok(ExitCode::SUCCESS),
        }
    })
}

/// Prints a line at once; `false`: the reader has gone away.
fn written(line: &str) -> Result<bool, Failure> {
    let mut stdout = io::stdout().lock();
    match writeln!(stdout, "{line}").and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// One line for people: time, endpoint, name, status, conversation, and how its text begins.
fn shown(data: &str, paint: Paint) -> String {
    let Ok(line) = serde_json::from_str::<Line>(data) else { return printable(data) };
    let event: fin::Event = serde_json::from_value(line.data).unwrap_or_default();
    let colour = match event.event_name.as_str() {
        fin::REPLIED => "32",
        fin::STATUS_UPDATED => "33",
        fin::CSAT_REQUESTED => "35",
        fin::REPLY_CHUNK => "2",
        _ => "36",
    };
    let reply = event.message.map(|message| html(&message.body, 1000).join(" "));
    let text = printable(&reply.or(event.chunk_text).or(event.reason).unwrap_or_default());
    let time = printable(line.receivedtime.get(11..23).unwrap_or(""));
    let endpoint = printable(line.source.rsplit('/').next().unwrap_or(""));
    let name = format!("{:<18}", printable(&event.event_name));
    let status = printable(event.status.as_deref().unwrap_or("-"));
    let conversation = printable(&event.conversation_id);
    let taken = [&time, &endpoint, &name, &status, &conversation].map(|part| part.chars().count() + 1).iter().sum();
    let width = terminal_size::terminal_size().map_or(WIDTH, |(width, _)| width.0.into());
    let room = width.saturating_sub(taken).max(LEAST);
    // Of a reply that is being written the end is what is new.
    let skipped = if event.event_name == fin::REPLY_CHUNK { text.chars().count().saturating_sub(room) } else { 0 };
    let text: String = text.chars().skip(skipped).collect();
    let shown = [
        paint.dim(&time),
        paint.dim(&endpoint),
        paint.in_colour(&name, colour),
        paint.bold(&status),
        conversation,
        cut(&text, room),
    ];
    shown.join(" ").trim_end().to_owned()
}
