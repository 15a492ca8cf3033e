//! A receiver with a gateway, and a stand-in for Fin, in this process.

use std::net::SocketAddr;
use std::sync::Arc;

use finhook::fake_fin::{FakeFin, Settings};
use finhook::fin::Answer;
use finhook::metrics::Metrics;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};
use sse_stream::{Sse, SseByteStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::SECRET;
use super::app::TestApp;
use super::wait::{PATIENCE, until};

/// A running stand-in; dropped, it stops.
#[derive(Debug)]
pub struct Fake {
    pub addr: SocketAddr,
    pub client: Client,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Fake {
    /// On any port.
    pub fn start(settings: Settings) -> Self {
        Self::run(Self::bind(settings))
    }

    fn bind(settings: Settings) -> FakeFin {
        FakeFin::bind(Settings { bind: ([127, 0, 0, 1], 0).into(), ..settings }).unwrap()
    }

    fn run(fake: FakeFin) -> Self {
        let addr = fake.addr();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(fake.run(async move { drop(stopped.await) }));
        let client = finhook::outbound::client().unwrap().timeout(PATIENCE).build().unwrap();
        Self { addr, client, stop, task }
    }

    /// A call as a backend makes it that has the key.
    pub fn request(&self, path: &str) -> RequestBuilder {
        let request = self.client.post(format!("http://{}{path}", self.addr));
        request.header("authorization", "Bearer fake-fin-key").header("intercom-version", "2.14")
    }

    /// Says something to it.
    pub async fn say(&self, path: &str, conversation: &str) -> Answer {
        answer(self.request(path), conversation).await
    }

    /// Ends it in order: no stream and no webhook holds it up.
    pub async fn stop(self) {
        let _ = self.stop.send(());
        timeout(PATIENCE, self.task).await.expect("no task holds it up").unwrap();
    }
}

async fn answer(request: RequestBuilder, conversation: &str) -> Answer {
    let answer = request.body(said(conversation).to_string()).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
}

/// finhook with its gateway, and the stand-in behind it.
pub struct World {
    pub app: TestApp,
    pub fake: Fake,
}

impl World {
    /// Starts everything. `webhooks`: whether the stand-in sends any.
    pub async fn start(settings: Settings, webhooks: bool) -> Self {
        Self::start_with(settings, webhooks, "").await
    }

    /// The same with more in finhook's configuration; the keys of the gateway come first.
    pub async fn start_with(settings: Settings, webhooks: bool, toml: &str) -> Self {
        let settings = Settings { secret: SECRET.to_owned(), lead: PATIENCE, token_life: PATIENCE, ..settings };
        // Each must know the other's address.
        let mut fake = Fake::bind(settings);
        let app = TestApp::start(&format!(
            "[gateway]\nbind = \"127.0.0.1:0\"\nbase_url = \"http://{}\"\napi_key = \"fake-fin-key\"\nsse_hosts = [\"127.0.0.1\"]\n{toml}",
            fake.addr()
        ))
        .await;
        if webhooks {
            fake.send_webhooks_to(format!("http://{}/webhooks/fin", app.public()).parse().unwrap());
        }
        Self { app, fake: Fake::run(fake) }
    }

    /// Says something through the gateway.
    pub async fn say(&self, path: &str, conversation: &str) -> Answer {
        answer(self.app.client().post(format!("http://{}{path}", self.app.gateway())), conversation).await
    }

    /// Opens the gateway's live stream.
    pub async fn live(&self, query: &str, last: Option<u64>) -> Live {
        let mut request = self.app.client().get(format!("http://{}/stream{query}", self.app.gateway()));
        if let Some(last) = last {
            request = request.header("last-event-id", last.to_string());
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200);
        Live { events: SseByteStream::new(answer.bytes_stream().boxed()).boxed() }
    }

    /// Sends a webhook of the test's own.
    pub async fn webhook(&self, body: &Value) {
        assert_eq!(self.app.post(&body.to_string()).await.0, 200);
    }

    /// Everything that has been stored, in order: what stands before an event of the test's own.
    pub async fn stored(&self) -> Vec<Value> {
        self.webhook(&json!({"event_name": "end_of_test", "conversation_id": "end"})).await;
        let mut live = self.live("", Some(0)).await;
        let mut stored = Vec::new();
        loop {
            let (id, event) = live.next().await;
            if event["type"] == "com.intercom.end_of_test" {
                return stored;
            }
            if id.is_some() {
                stored.push(event);
            }
        }
    }

    /// Waits until a metric has reached a value.
    pub async fn reached(&self, metric: &str, value: u64) {
        let (metrics, metric) = (Arc::clone(self.app.metrics()), metric.to_owned());
        let reached = move || until(&format!("{metric} is {value}"), || sum(&metrics, &metric) >= value);
        tokio::task::spawn_blocking(reached).await.unwrap();
    }

    /// The sum of all metrics whose lines begin so.
    pub fn metric(&self, beginning: &str) -> u64 {
        sum(self.app.metrics(), beginning)
    }

    /// Ends both in order.
    pub async fn stop(self) {
        self.app.stop().await;
        self.fake.stop().await;
    }
}

/// A reader of the live stream.
pub struct Live {
    events: BoxStream<'static, Result<Sse, sse_stream::Error>>,
}

impl Live {
    /// The next event: its id, if it is stored, and its line.
    pub async fn next(&mut self) -> (Option<u64>, Value) {
        loop {
            let event = timeout(PATIENCE, self.events.next()).await.expect("in time").unwrap().unwrap();
            if let Some(data) = event.data {
                return (event.id.map(|id| id.parse().unwrap()), serde_json::from_str(&data).unwrap());
            }
        }
    }
}

/// A request that asks about a password.
pub fn said(conversation: &str) -> Value {
    json!({
        "conversation_id": conversation,
        "message": {"author": "user", "body": "How do I reset my password?", "timestamp": "2026-01-24T10:00:00Z"},
        "user": {"id": "u1"},
    })
}

fn sum(metrics: &Metrics, beginning: &str) -> u64 {
    let text = metrics.encode();
    let lines = text.lines().filter(|line| line.starts_with(beginning));
    lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum()
}
