//! The whole finhook inside the test's process: real listeners, a journal and sinks in a directory of its own.
//!
//! ```ignore
//! let app = TestApp::start("[sinks.archive]\ntype = \"file\"\npath = \"DIR/events.ndjson\"").await;
//! let id = app.accept(&event("fin_replied", "conversation-1", 1)).await;
//! let dir = app.stop().await;                       // in order, as by SIGTERM
//! let again = TestApp::start_in(dir, "…").await;    // the same journal
//! ```

#![allow(dead_code, reason = "not every test needs everything of it")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use finhook::app::App;
use finhook::config::Inputs;
use finhook::metrics::Metrics;
use finhook::verify;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::SECRET;
use super::wait::{PATIENCE, eventually};

/// What every test begins with; what it is given itself goes over that. `DIR` stands for the directory.
const BASE: &str = r#"
log.level = "error"
server = { bind = "127.0.0.1:0", drain_timeout = "5s" }
admin.bind = "127.0.0.1:0"
endpoints.fin.signing_secrets = ["SECRET"]
journal.path = "DIR/finhook.db"
sinks.stdout.enabled = false
"#;

/// A running finhook.
pub struct TestApp {
    dir: Arc<TempDir>,
    public: SocketAddr,
    admin: SocketAddr,
    gateway: Option<SocketAddr>,
    metrics: Arc<Metrics>,
    client: reqwest::Client,
    stop: oneshot::Sender<()>,
    running: JoinHandle<Result<(), finhook::app::Error>>,
}

impl TestApp {
    /// Starts one in a new directory. `DIR` in the TOML stands for that.
    pub async fn start(toml: &str) -> Self {
        Self::start_in(Arc::new(tempfile::tempdir().unwrap()), toml).await
    }

    /// Starts one in the directory of an earlier one.
    pub async fn start_in(dir: Arc<TempDir>, toml: &str) -> Self {
        let settings = dir.path().join("config");
        std::fs::create_dir_all(&settings).unwrap();
        let here = dir.path().to_str().unwrap();
        std::fs::write(settings.join("default.toml"), BASE.replace("DIR", here).replace("SECRET", SECRET)).unwrap();
        std::fs::write(settings.join("test.toml"), toml.replace("DIR", here)).unwrap();
        let inputs =
            Inputs { path: Some(settings), path_from: "the test", env_name: Some("test".into()), ..Inputs::default() };
        let app = App::build(inputs.load().unwrap().config).await.unwrap();
        let (public, admin, gateway) = (app.public_addr(), app.admin_addr(), app.gateway_addr());
        let metrics = app.metrics().clone();
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(app.run(async move { drop(stopped.await) }));
        let client = finhook::outbound::client().unwrap().timeout(PATIENCE).build().unwrap();
        let started = Self { dir, public, admin, gateway, metrics, client, stop, running };
        eventually("the app is ready", async || started.admin_get("/readyz").await.0 == 200).await;
        started
    }

    /// Ends it in order and gives its directory back.
    pub async fn stop(self) -> Arc<TempDir> {
        let _ = self.stop.send(());
        tokio::time::timeout(PATIENCE, self.running).await.expect("stopping takes too long").unwrap().unwrap();
        self.dir
    }

    /// A file in its directory.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The database.
    pub fn journal(&self) -> PathBuf {
        self.path("finhook.db")
    }

    pub fn public(&self) -> SocketAddr {
        self.public
    }

    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Panics when none is configured.
    pub fn gateway(&self) -> SocketAddr {
        self.gateway.unwrap()
    }

    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    pub fn client(&self) -> &reqwest::Client {
        &self.client
    }

    /// Posts a signed body to the endpoint `fin`: status and answer.
    pub async fn post(&self, body: &str) -> (u16, Value) {
        let request = self
            .client
            .post(format!("http://{}/webhooks/fin", self.public))
            .header("content-type", "application/json")
            .header(verify::HEADER, verify::sign(&SECRET.into(), body.as_bytes()))
            .body(body.to_owned());
        json(request).await
    }

    /// Posts a signed body that must be new, and returns its id.
    pub async fn accept(&self, body: &str) -> String {
        let (status, answer) = self.post(body).await;
        assert_eq!((status, answer["outcome"].as_str()), (200, Some("accepted")), "{answer}");
        answer["id"].as_str().unwrap().to_owned()
    }

    /// Asks the admin listener: status and answer (a string where it is no JSON).
    pub async fn admin_get(&self, path: &str) -> (u16, Value) {
        json(self.client.get(format!("http://{}{path}", self.admin))).await
    }

    /// Tells the admin listener something, with a body unless it is null.
    pub async fn admin_post(&self, path: &str, body: &Value) -> (u16, Value) {
        let request = self.client.post(format!("http://{}{path}", self.admin));
        let request = if body.is_null() {
            request
        } else {
            request.header("content-type", "application/json").body(body.to_string())
        };
        json(request).await
    }
}

/// Sends a request; its status, and its body as JSON or else as a string.
pub async fn json(request: reqwest::RequestBuilder) -> (u16, Value) {
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    let text = answer.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// The body of an event; two with different numbers are different events.
pub fn event(name: &str, conversation: &str, number: u64) -> String {
    let ms = time::OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000;
    let at = time::OffsetDateTime::from_unix_timestamp_nanos(ms * 1_000_000).unwrap();
    let at = at.format(&time::format_description::well_known::Rfc3339).unwrap();
    serde_json::json!({
        "event_name": name,
        "conversation_id": conversation,
        "user_id": format!("user-of-{conversation}"),
        "status": "awaiting_user_reply",
        "created_at_ms": at,
        "message": { "id": format!("{conversation}-{number}"), "timestamp_ms": at, "body": format!("<p>{number}</p>") },
        "number": number,
    })
    .to_string()
}
