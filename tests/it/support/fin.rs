//! A receiver with a gateway, and a stand-in for Fin, in this process.

use std::net::SocketAddr;
use std::sync::Arc;

use finhook::app::App;
use finhook::config::Inputs;
use finhook::fake_fin::{FakeFin, Settings};
use finhook::fin::Answer;
use finhook::metrics::Metrics;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use secrecy::SecretString;
use serde_json::{Value, json};
use sse_stream::{Sse, SseByteStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::SECRET;
use super::wait::{PATIENCE, until};

pub struct World {
    pub gateway: SocketAddr,
    pub public: SocketAddr,
    pub admin: SocketAddr,
    pub fake: SocketAddr,
    pub metrics: Arc<Metrics>,
    pub client: reqwest::Client,
    tasks: JoinSet<()>,
    stop: watch::Sender<bool>,
    _dir: tempfile::TempDir,
}

impl World {
    /// Starts everything. `webhooks`: whether the stand-in sends any.
    pub async fn start(settings: Settings, webhooks: bool) -> Self {
        let settings = Settings {
            bind: ([127, 0, 0, 1], 0).into(),
            secret: SECRET.to_owned(),
            lead: PATIENCE,
            token_life: PATIENCE,
            ..settings
        };
        let mut fake = FakeFin::bind(settings.clone()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let vars = [
            ("SERVER__BIND", "127.0.0.1:0".to_owned()),
            ("ADMIN__BIND", "127.0.0.1:0".to_owned()),
            ("GATEWAY__BIND", "127.0.0.1:0".to_owned()),
            ("GATEWAY__BASE_URL", format!("http://{}", fake.addr())),
            ("GATEWAY__API_KEY", settings.api_key.clone()),
            ("GATEWAY__SSE_HOSTS", "127.0.0.1".to_owned()),
            ("ENDPOINTS__FIN__SIGNING_SECRETS", SECRET.to_owned()),
            ("JOURNAL__PATH", dir.path().join("finhook.db").to_str().unwrap().to_owned()),
            ("SINKS__STDOUT__ENABLED", "false".to_owned()),
        ];
        let vars = vars.map(|(name, value)| (format!("FINHOOK__{name}").into(), value.into())).into();
        let app = App::build(Inputs { vars, ..Inputs::default() }.load().unwrap().config).await.unwrap();
        if webhooks {
            fake.send_webhooks_to(format!("http://{}/webhooks/fin", app.public_addr()).parse().unwrap());
        }
        let (stop, stopped) = watch::channel(false);
        let wait = |mut stopped: watch::Receiver<bool>| async move { drop(stopped.wait_for(|stopped| *stopped).await) };
        let (public, admin, gateway) = (app.public_addr(), app.admin_addr(), app.gateway_addr().unwrap());
        let (fake_addr, metrics) = (fake.addr(), Arc::clone(app.metrics()));
        let (app_stopped, fake_stopped) = (wait(stopped.clone()), wait(stopped));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { app.run(app_stopped).await.unwrap() });
        tasks.spawn(fake.run(fake_stopped));
        let client = finhook::outbound::client().unwrap().build().unwrap();
        Self { gateway, public, admin, fake: fake_addr, metrics, client, tasks, stop, _dir: dir }
    }

    /// Says something through the gateway.
    pub async fn say(&self, path: &str, conversation: &str) -> Answer {
        let request = self.client.post(format!("http://{}{path}", self.gateway)).body(said(conversation));
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200);
        serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
    }

    /// Opens the gateway's live stream.
    pub async fn live(&self, query: &str, last: Option<u64>) -> Live {
        let mut request = self.client.get(format!("http://{}/stream{query}", self.gateway));
        if let Some(last) = last {
            request = request.header("last-event-id", last.to_string());
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200);
        Live { events: SseByteStream::new(answer.bytes_stream().boxed()).boxed() }
    }

    /// Sends a webhook of the test's own.
    pub async fn webhook(&self, body: &Value) {
        let body = body.to_string();
        let signature = finhook::verify::sign(&SecretString::from(SECRET), body.as_bytes());
        let request = self.client.post(format!("http://{}/webhooks/fin", self.public));
        let request = request.header("x-fin-agent-api-webhook-signature", signature);
        let answer = request.header("content-type", "application/json").body(body).send().await.unwrap();
        assert_eq!(answer.status(), 200);
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
        let (metrics, metric) = (Arc::clone(&self.metrics), metric.to_owned());
        let reached = move || until(&format!("{metric} is {value}"), || sum(&metrics, &metric) >= value);
        tokio::task::spawn_blocking(reached).await.unwrap();
    }

    /// The sum of all metrics whose lines begin so.
    pub fn metric(&self, beginning: &str) -> u64 {
        sum(&self.metrics, beginning)
    }

    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        while let Some(ended) = timeout(PATIENCE, self.tasks.join_next()).await.expect("nothing holds it up") {
            ended.unwrap();
        }
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
pub fn said(conversation: &str) -> String {
    json!({
        "conversation_id": conversation,
        "message": {"author": "user", "body": "How do I reset my password?", "timestamp": "2026-01-24T10:00:00Z"},
        "user": {"id": "u1"},
    })
    .to_string()
}

fn sum(metrics: &Metrics, beginning: &str) -> u64 {
    let text = metrics.encode();
    let lines = text.lines().filter(|line| line.starts_with(beginning));
    lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum()
}
