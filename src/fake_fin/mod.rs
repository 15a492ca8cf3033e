//! A stand-in for the Fin Agent API: **a development tool**, to build and test against without access to Fin.
//!
//! It answers `/fin/start`, `/fin/reply` and `/fin/csat` the way Fin does, errors included, plays a [`Scenario`] for each
//! turn, streams its events at `/event-stream`, and sends them, signed for real, to a callback URL. It speaks the shapes
//! of [`crate::fin`] and signs with [`crate::verify`], the same that finhook reads and checks with.
//!
//! What it does is decided by the seed alone ([`script`]); only the clock times come from the clock. It keeps everything
//! in memory, within bounds, and binds to loopback addresses only.

mod api;
mod scenario;
mod stream;
mod webhook;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::clock;
use crate::serve::{Limits, Server};
pub use scenario::{ESCALATION_REASON, FORGED_TEXT, Scenario, Script, Step, Turn, UNKNOWN_EVENT, Webhook, script};
use stream::Cycle;

/// Conversations and event streams that are remembered; the oldest give way.
const REMEMBERED: usize = 10_000;
/// What requests under way have to end in.
const DRAIN: Duration = Duration::from_secs(2);
/// Largest request body, in bytes.
const MAX_BODY_BYTES: usize = 1024 * 1024;

/// How the stand-in is set up.
#[derive(Clone)]
pub struct Settings {
    /// Where it listens: a loopback address; port 0 takes any.
    pub bind: SocketAddr,
    /// The Bearer key that callers must present.
    pub api_key: String,
    /// Where webhooks go; none are sent without it.
    pub callback: Option<url::Url>,
    /// What webhooks are signed with.
    pub secret: String,
    /// What happens in each turn.
    pub scenario: Scenario,
    /// Decides everything that looks random.
    pub seed: u64,
    /// 2.0: twice as fast as Fin. Scales the steps of a scenario and the backoff of webhooks.
    pub speed: f64,
    /// The app that `channels` names.
    pub app_id: String,
    /// How long the token of an event stream lives.
    pub token_life: Duration,
    /// Whether streamed events carry an `id:`. Fin documents none.
    pub stream_ids: bool,
    /// How long a turn with an event stream waits for someone to listen before it begins.
    pub lead: Duration,
    /// How long after a turn's last event its token is revoked, and its streams end.
    pub linger: Duration,
    /// Names the host in `sse_subscription_url`, as `http://host:port`; `None`: the bound address. For tests with a
    /// proxy in between.
    pub stream_base: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            bind: SocketAddr::from(([127, 0, 0, 1], 8091)),
            api_key: "fake-fin-key".to_owned(),
            callback: None,
            secret: "fake-fin-signing-secret".to_owned(),
            scenario: Scenario::Streaming,
            seed: 1,
            speed: 1.0,
            app_id: "fakeapp".to_owned(),
            token_life: Duration::from_secs(180),
            stream_ids: false,
            lead: Duration::ZERO,
            linger: Duration::ZERO,
            stream_base: None,
        }
    }
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (bind, scenario, seed) = (&self.bind, &self.scenario, &self.seed);
        f.debug_struct("Settings")
            .field("bind", bind)
            .field("scenario", scenario)
            .field("seed", seed)
            .finish_non_exhaustive()
    }
}

/// Which address can't be bound, why, and what to do.
fn cannot_bind(address: SocketAddr, error: &io::Error) -> String {
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse => "choose another with --bind (port 0: any free one), or stop what uses it",
        io::ErrorKind::PermissionDenied => "choose a port from 1024 on with --bind",
        _ => "choose another with --bind",
    };
    format!("{address} can't be bound: {error}; {remedy}")
}

/// A bound stand-in.
#[derive(Debug)]
pub struct FakeFin {
    server: Server,
    shared: Arc<Shared>,
    closing: watch::Sender<bool>,
}

impl FakeFin {
    /// Binds the listener.
    ///
    /// # Errors
    /// When the address is not a loopback one, or can't be bound.
    pub fn bind(settings: Settings) -> io::Result<Self> {
        if !settings.bind.ip().is_loopback() {
            let error = "fake-fin is a development tool and listens on loopback addresses only";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, error));
        }
        if !(settings.speed.is_finite() && settings.speed > 0.0) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "speed must be a number above 0"));
        }
        let server = Server::bind(settings.bind, Limits::for_operators(DRAIN))
            .map_err(|error| io::Error::new(error.kind(), cannot_bind(settings.bind, &error)))?;
        let addr = server.addr();
        let (closing, closed) = watch::channel(false);
        let client = webhook::client()?;
        let shared = Arc::new(Shared {
            stream_base: settings.stream_base.clone().unwrap_or_else(|| format!("http://{addr}")),
            settings,
            memory: Mutex::default(),
            tasks: Mutex::default(),
            probed: tokio::sync::OnceCell::new(),
            client,
            closed,
        });
        Ok(Self { server, shared, closing })
    }

    /// The bound address.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    /// Sets the callback URL, for a receiver that had to know this address first.
    pub fn send_webhooks_to(&mut self, callback: url::Url) {
        if let Some(shared) = Arc::get_mut(&mut self.shared) {
            shared.settings.callback = Some(callback);
        }
    }

    /// Serves until `shutdown` resolves; then ends every stream and leaves no task behind.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let Self { server, shared, closing } = self;
        let router = Router::new()
            .route("/fin/start", post(api::start))
            .route("/fin/reply", post(api::reply))
            .route("/fin/csat", post(api::csat))
            .route("/event-stream", get(stream::events))
            .fallback(api::not_found)
            .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
            .with_state(Arc::clone(&shared));
        let stop = async move {
            shutdown.await;
            closing.send_replace(true);
        };
        server.run(router, stop).await;
        let mut tasks = std::mem::take(&mut *lock(&shared.tasks));
        tasks.shutdown().await;
    }
}

/// What all handlers and tasks share.
#[derive(Debug)]
struct Shared {
    settings: Settings,
    stream_base: String,
    memory: Mutex<Memory>,
    tasks: Mutex<JoinSet<()>>,
    probed: tokio::sync::OnceCell<bool>,
    client: reqwest::Client,
    closed: watch::Receiver<bool>,
}

/// What is remembered of conversations, and the event streams by their tokens.
#[derive(Debug, Default)]
struct Memory {
    requests: u64,
    conversations: HashMap<String, Conversation>,
    oldest_conversations: VecDeque<String>,
    cycles: HashMap<String, Arc<Cycle>>,
    oldest_cycles: VecDeque<String>,
}

#[derive(Debug)]
struct Conversation {
    user_id: String,
    turns: u32,
    /// Whether a rating has been asked for.
    rateable: bool,
    webhooks: mpsc::Sender<Webhook>,
}

impl Shared {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        lock(&self.memory)
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = lock(&self.tasks);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    /// Unhurried time as it passes here.
    fn scaled(&self, unhurried: Duration) -> Duration {
        unhurried.div_f64(self.settings.speed)
    }

    /// Begins a turn: plays its script in the background. Returns the stream's URL, if the scenario has one.
    fn begin(self: &Arc<Self>, conversation: &str, user: &str, text: &str, start: bool) -> Option<String> {
        let mut memory = self.memory();
        if !memory.conversations.contains_key(conversation) {
            let (webhooks, queue) = mpsc::channel(1024);
            self.spawn(webhook::deliver(Arc::clone(self), queue));
            memory
                .remember(conversation, Conversation { user_id: user.to_owned(), turns: 0, rateable: false, webhooks });
        }
        let entry = memory.conversations.get_mut(conversation)?;
        let number = entry.turns;
        entry.turns += 1;
        entry.rateable = false;
        let webhooks = entry.webhooks.clone();
        let turn = Turn { conversation, user, text, number, start_ms: clock::now_ms() };
        let script = script(self.settings.scenario, turn, self.settings.seed);
        let cycle = Arc::new(Cycle::new(&self.settings, conversation, number));
        let url = self.settings.scenario.streams().then(|| {
            memory.admit(Arc::clone(&cycle));
            cycle.url(&self.stream_base, &self.settings.app_id, start)
        });
        drop(memory);
        self.spawn(play(Arc::clone(self), conversation.to_owned(), script, cycle, webhooks));
        url
    }
}

impl Memory {
    fn remember(&mut self, id: &str, conversation: Conversation) {
        if self.oldest_conversations.len() >= REMEMBERED
            && let Some(oldest) = self.oldest_conversations.pop_front()
        {
            self.conversations.remove(&oldest);
        }
        self.oldest_conversations.push_back(id.to_owned());
        self.conversations.insert(id.to_owned(), conversation);
    }

    fn admit(&mut self, cycle: Arc<Cycle>) {
        if self.oldest_cycles.len() >= REMEMBERED
            && let Some(oldest) = self.oldest_cycles.pop_front()
        {
            self.cycles.remove(&oldest);
        }
        self.oldest_cycles.push_back(cycle.token().to_owned());
        self.cycles.insert(cycle.token().to_owned(), cycle);
    }
}

/// Plays a script: each event at its time, by each of its ways.
async fn play(
    shared: Arc<Shared>,
    conversation: String,
    script: Script,
    cycle: Arc<Cycle>,
    webhooks: mpsc::Sender<Webhook>,
) {
    if shared.settings.scenario.streams() {
        cycle.listened(shared.settings.lead).await;
    }
    let began = Instant::now();
    for (at, step) in script.steps.into_iter().enumerate() {
        tokio::time::sleep_until(began + shared.scaled(Duration::from_millis(step.at_ms))).await;
        if step.event.event_name == crate::fin::CSAT_REQUESTED
            && let Some(entry) = shared.memory().conversations.get_mut(&conversation)
        {
            entry.rateable = true;
        }
        tracing::info!(conversation, event = step.event.event_name, status = step.event.status, "event");
        cycle.publish(step);
        for webhook in script.webhooks.iter().filter(|webhook| webhook.after == at) {
            // Refused only when the conversation has been forgotten.
            let _ = webhooks.send(webhook.clone()).await;
        }
    }
    tokio::time::sleep(shared.settings.linger).await;
    cycle.revoke();
}

/// What a panicking holder leaves behind is still usable here: every change is a single insertion.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[tokio::test]
    async fn it_refuses_to_listen_beyond_this_machine() {
        let bind = SocketAddr::from(([0, 0, 0, 0], 0));
        let error = FakeFin::bind(Settings { bind, ..Settings::default() }).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
