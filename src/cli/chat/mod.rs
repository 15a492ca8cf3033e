//! `finhook chat`: a conversation with Fin in the terminal, through the gateway.

mod fake;
mod screen;

use std::io::{self, BufRead, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use reqwest::{Client, header};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use url::Url;
use uuid::Uuid;

use super::live_client::LiveClient;
use super::{FAILED, Failure, Global, client, interrupted, usage};
use crate::clock;
use crate::fake_fin::Scenario;
use crate::fin::{self, ErrorList, Event, Message, Rate, Say, User};
use crate::terminal::{Paint, printable};
use screen::Screen;

/// For a call of Fin: longer than the gateway's own limit.
const CALL: Duration = Duration::from_secs(40);
/// How long Fin may be silent before the turn is given up.
const SILENCE: Duration = Duration::from_secs(120);
/// How long the closing status may come after the last reply. Some workspaces send none.
const CLOSING: Duration = Duration::from_secs(1);
/// How long a request for a rating may come after the end.
const RATING: Duration = Duration::from_secs(4);

/// Talk to Fin: through the configured gateway, or with a stand-in.
///
/// Shows Fin's status, the reply as it is written, then its final text. Without MESSAGE it asks for one after the
/// other, until Ctrl-D.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  finhook chat --fake \"How do I reset my password?\"     # no access to Fin needed: everything in one process
  finhook chat --fake --scenario resolve-csat
  finhook chat --config finhook.toml                    # Fin itself, through the gateway of a running `finhook serve`")]
pub(super) struct Args {
    /// What to say; without it, asks
    message: Option<String>,
    /// Talk to a stand-in for Fin, started with a receiver and a gateway in this process
    #[arg(long)]
    fake: bool,
    /// What the stand-in does in each turn
    #[arg(long, value_enum, default_value = "streaming", requires = "fake")]
    scenario: Scenario,
    /// Decides everything that looks random about the stand-in
    #[arg(long, value_name = "N", default_value_t = 1, requires = "fake")]
    seed: u64,
    /// 2: the stand-in is twice as fast as Fin
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, value_parser = usage::speed, requires = "fake")]
    speed: f64,
    /// The user's id
    #[arg(long, value_name = "ID", default_value = "finhook-chat")]
    user: String,
    /// The new conversation's id; default: one of its own
    #[arg(long, value_name = "ID")]
    conversation: Option<String>,
}

pub(super) fn run(args: Args, global: &Global) -> Result<ExitCode, Failure> {
    if args.fake {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        return runtime.block_on(async {
            let fake = fake::Everything::start(args.scenario, args.seed, args.speed).await?;
            let result = converse(&args, fake.gateway(), None).await;
            fake.stop().await;
            result
        });
    }
    let config = global.load()?.config;
    let gateway = config.gateway.ok_or_else(|| {
        Failure::new("gateway.bind is not set: set it for `finhook serve`, too; or try `finhook chat --fake`")
    })?;
    let address =
        client::reach(gateway.bind).ok_or_else(|| Failure::new("gateway.bind has port 0, so its port is not known"))?;
    let base = format!("http://{address}/");
    let base = Url::parse(&base).map_err(|e| Failure::new(format!("{base}: {e}")))?;
    client::block_on(converse(&args, base, gateway.token))
}

/// The conversation, until the user has nothing more to say.
async fn converse(args: &Args, gateway: Url, token: Option<SecretString>) -> Result<ExitCode, Failure> {
    let conversation = args.conversation.clone().unwrap_or_else(|| format!("fin:test:chat-{}", Uuid::new_v4()));
    let mut live = gateway.join("stream").map_err(|e| Failure::new(e.to_string()))?;
    live.query_pairs_mut().append_pair("conversation", &conversation);
    let if_refused = "is `finhook serve` running, with gateway.bind set?";
    let events = LiveClient::open(live, None, token.clone(), if_refused).await?;
    let mut chat = Chat {
        http: client::client(CALL, None)?,
        gateway,
        token,
        conversation,
        user: args.user.clone(),
        events,
        screen: Screen::new(Paint::for_stdout()),
        input: None,
        started: false,
    };
    tokio::select! {
        done = chat.talk(args.message.clone()) => done,
        () = interrupted()? => Ok(ExitCode::SUCCESS),
    }
}

struct Chat {
    http: Client,
    gateway: Url,
    token: Option<SecretString>,
    conversation: String,
    user: String,
    events: LiveClient,
    screen: Screen,
    input: Option<mpsc::Receiver<String>>,
    started: bool,
}

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// It is the user's turn.
    Yours,
    /// Fin is done, or has handed over.
    Over,
    /// Nothing was heard for too long.
    Silent,
}

impl Chat {
    async fn talk(&mut self, message: Option<String>) -> Result<ExitCode, Failure> {
        let once = message.is_some();
        let mut next = message;
        loop {
            let Some(text) = (match next.take() {
                Some(text) => {
                    self.screen.line(&self.screen.prompt("You", &printable(&text)))?;
                    Some(text)
                }
                None => self.ask_for_text().await?,
            }) else {
                return Ok(ExitCode::SUCCESS);
            };
            if !self.say(&text).await? {
                return Ok(ExitCode::from(FAILED));
            }
            match self.listen().await? {
                Turn::Silent => {
                    self.screen.note("nothing was heard from Fin for two minutes")?;
                    return Ok(ExitCode::from(FAILED));
                }
                Turn::Over => return Ok(ExitCode::SUCCESS),
                Turn::Yours if once => return Ok(ExitCode::SUCCESS),
                Turn::Yours => {}
            }
        }
    }

    /// Calls Fin; `false`: it refused, and the user knows why.
    async fn say(&mut self, text: &str) -> Result<bool, Failure> {
        let say = Say {
            conversation_id: self.conversation.clone(),
            message: Message {
                author: "user".to_owned(),
                body: text.to_owned(),
                timestamp: clock::rfc3339(clock::now_ms()),
                ..Message::default()
            },
            user: User { id: self.user.clone(), ..User::default() },
            ..Say::default()
        };
        self.screen.status("sending")?;
        let path = if self.started { "fin/reply" } else { "fin/start" };
        self.started = true;
        self.call(path, &say).await
    }

    async fn call(&mut self, path: &str, body: &impl Serialize) -> Result<bool, Failure> {
        let url = self.gateway.join(path).map_err(|e| Failure::new(e.to_string()))?;
        let body = serde_json::to_vec(body).map_err(|e| Failure::new(e.to_string()))?;
        let mut request = self.http.post(url).header(header::CONTENT_TYPE, "application/json").body(body);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.expose_secret());
        }
        let explain = |e: reqwest::Error| client::explain(&e, self.gateway.as_str(), "is `finhook serve` running?");
        let answer = request.send().await.map_err(explain)?;
        let status = answer.status();
        if status.is_success() {
            return Ok(true);
        }
        let body = client::body(answer).await;
        self.screen.note(&format!("refused with {}: {}", status.as_u16(), why(&body)))?;
        Ok(false)
    }

    /// Shows what comes until it is the user's turn.
    async fn listen(&mut self) -> Result<Turn, Failure> {
        let mut end: Option<(Turn, Instant)> = None;
        loop {
            let deadline = end.map_or_else(|| Instant::now() + SILENCE, |(_, until)| until);
            let Ok(data) = timeout_at(deadline, self.events.next()).await else {
                self.screen.settle()?;
                return Ok(end.map_or(Turn::Silent, |(turn, _)| turn));
            };
            let Some(event) = event(&data?) else { continue };
            match event.event_name.as_str() {
                fin::REPLY_CHUNK => self.screen.growing(event.chunk_text.as_deref().unwrap_or(""))?,
                fin::REPLIED => self.screen.reply(event.message.as_ref().map_or("", |message| &message.body))?,
                fin::CSAT_REQUESTED => {
                    self.rate(&event).await?;
                    return Ok(Turn::Over);
                }
                fin::STATUS_UPDATED => self.screen.status_updated(&event)?,
                other => {
                    self.screen.note(&format!("an event that this version does not know: {}", printable(other)))?
                }
            }
            end = match (event.event_name.as_str(), event.status.as_deref()) {
                (fin::STATUS_UPDATED, Some(fin::AWAITING)) => {
                    self.screen.settle()?;
                    return Ok(Turn::Yours);
                }
                (fin::REPLIED, Some(fin::AWAITING)) => Some((Turn::Yours, Instant::now() + CLOSING)),
                (_, Some(fin::COMPLETE | fin::ESCALATED | fin::RESOLVED)) => {
                    Some((Turn::Over, Instant::now() + RATING))
                }
                _ => end,
            };
        }
    }

    /// Asks for a rating and passes it on.
    async fn rate(&mut self, event: &Event) -> Result<(), Failure> {
        self.screen.settle()?;
        let options = event.csat.as_ref().map(|csat| csat.options.as_slice()).unwrap_or_default();
        self.screen.note("how was it?")?;
        for (number, option) in (1..).zip(options) {
            let text = format!("  {number}  {} {}", printable(&option.emoji), printable(&option.label));
            self.screen.line(&text)?;
        }
        if !io::stdin().is_terminal() {
            return Ok(());
        }
        let option = loop {
            let prompt = format!("1-{}, or nothing", options.len());
            let Some(choice) = self.ask(&prompt).await?.filter(|choice| !choice.trim().is_empty()) else {
                return Ok(());
            };
            if let Some(option) = choice.trim().parse().ok().and_then(|at: usize| options.get(at.checked_sub(1)?)) {
                break option;
            }
            self.screen.note("not one of them")?;
        };
        let rate = Rate { conversation_id: self.conversation.clone(), rating: option.key.clone(), remark: None };
        if self.call("fin/csat", &rate).await? {
            self.screen.note("thank you")?;
        }
        Ok(())
    }

    /// The next line of the user's that says something.
    async fn ask_for_text(&mut self) -> Result<Option<String>, Failure> {
        loop {
            match self.ask("You").await? {
                Some(text) if text.trim().is_empty() => {}
                text => return Ok(text),
            }
        }
    }

    /// A line from the user; `None`: nothing more.
    async fn ask(&mut self, prompt: &str) -> Result<Option<String>, Failure> {
        let asked = io::stdin().is_terminal();
        if asked {
            self.screen.ask(prompt)?;
        }
        let line = self.input.get_or_insert_with(lines).recv().await;
        if asked && line.is_none() {
            // Ctrl-D leaves the cursor behind the prompt.
            self.screen.line("")?;
        }
        Ok(line)
    }
}

/// stdin's lines, read by a thread of their own: a read from a terminal can't be given up.
fn lines() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// What Fin or the gateway gives as its reason.
fn why(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Problem {
        detail: String,
    }
    let list = serde_json::from_slice::<ErrorList>(body).ok().and_then(|list| list.errors.into_iter().next());
    let text = match list {
        Some(error) => format!("{}: {}", error.code, error.message),
        None => serde_json::from_slice::<Problem>(body).map(|problem| problem.detail).unwrap_or_default(),
    };
    crate::terminal::cut(&printable(&text), 200)
}

/// The event in a line of the live stream.
fn event(data: &str) -> Option<Event> {
    #[derive(Deserialize)]
    struct Line {
        data: Event,
    }
    Some(serde_json::from_str::<Line>(data).ok()?.data)
}
