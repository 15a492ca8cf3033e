//! `finhook tail`

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use serde::Deserialize;
use url::{Url, form_urlencoded};

use super::live_client::LiveClient;
use super::{Failure, Global, client, interrupted, usage};
use crate::fin;
use crate::terminal::{Days, EventLine, Paint, html, printable, width};

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
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(args.conversation.iter().map(|id| ("conversation", id)));
    query.extend_pairs(args.event.iter().map(|name| ("event", name)));
    query.extend_pairs(args.since.iter().map(|since| ("since", since)));
    let query = query.finish();
    usage::live_query(&query)?;
    let config = global.load()?.config;
    let tls = config.admin.tls.clone();
    let origin = client::origin(config.admin.bind, tls.as_ref())
        .ok_or_else(|| Failure::new("admin.bind has port 0, so its port is not known"))?;
    let url = format!("{origin}/api/v1/stream?{query}");
    let url = Url::parse(&url).map_err(|e| Failure::new(format!("{url}: {e}")))?;
    client::block_on(async {
        let follow = async {
            let if_refused = "is it running? `finhook serve` starts it";
            let mut stream = LiveClient::open(url, tls.as_ref(), config.admin.token, if_refused).await?;
            let terminal = io::stdout().is_terminal();
            let mut days = Days::default();
            if terminal {
                // It may be long until something comes.
                writeln!(io::stderr(), "waiting for events; Ctrl-C ends")?;
            }
            loop {
                let data = stream.next().await?;
                let line = if terminal { shown(&data, &mut days, Paint::for_stdout()) } else { data };
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

/// For people: a line, and one before it when the day changes.
fn shown(data: &str, days: &mut Days, paint: Paint) -> String {
    let Ok(line) = serde_json::from_str::<Line>(data) else { return printable(data) };
    let event: fin::Event = serde_json::from_value(line.data).unwrap_or_default();
    let reply = event.message.map(|message| html(&message.body, 1000).join(" "));
    let text = reply.or(event.chunk_text).or(event.reason).unwrap_or_default();
    let line = EventLine {
        received: &line.receivedtime,
        endpoint: line.source.rsplit('/').next().unwrap_or_default(),
        event: &event.event_name,
        status: event.status.as_deref(),
        conversation: &event.conversation_id,
        text: &text,
    };
    let mut text = days.changed(&line, paint).map(|day| day + "\n").unwrap_or_default();
    text.push_str(&line.shown(width(), paint));
    text
}
