//! The console, in a real browser and by plain requests.

mod access;
mod operator;
mod screens;

use std::path::PathBuf;

use finhook::fake_fin::{Scenario, Settings};
use serde_json::{Value, json};

use crate::support::browser::Browser;
use crate::support::fin::World;
use crate::support::receiver::{Answer, Receiver};
use crate::support::wait::eventually;

const OPERATOR: &str = "a-token-for-those-who-operate";
const READER: &str = "a-token-for-those-who-look";

/// finhook with the stand-in, a backend that refuses what it is asked to rate, and a file.
struct Scene {
    world: World,
    backend: Receiver,
}

impl Scene {
    async fn start(speed: f64) -> Self {
        let backend = Receiver::start().await;
        backend.answer_where("ce-type", "com.intercom.csat_requested", Some(Answer::status(422)));
        let toml = format!(
            "[admin]\nbind = \"127.0.0.1:0\"\ntoken = \"{OPERATOR}\"\nreader_token = \"{READER}\"\n\
             [sinks.backend]\ntype = \"http\"\nurl = \"{}\"\nretry = {{ base = \"10ms\", cap = \"20ms\", max_age = \"7d\" }}\n\
             [sinks.archive]\ntype = \"file\"\npath = \"DIR/events.ndjson\"\n",
            backend.url()
        );
        let settings = Settings { scenario: Scenario::Streaming, speed, ..Settings::default() };
        Self { world: World::start_with(settings, true, &toml).await, backend }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.world.app.admin())
    }

    /// Asks the API, as an operator.
    async fn api(&self, path: &str) -> Value {
        let request = self.world.app.client().get(self.url(path)).bearer_auth(OPERATOR);
        crate::support::app::json(request).await.1
    }

    /// Opens the console and logs in.
    async fn log_in(&self, browser: &Browser, token: &str) {
        browser.go(&self.url("/")).await;
        browser.is_at("/log-in").await;
        browser.type_in("#token", token).await;
        browser.click("button[type=submit]").await;
        browser.shows("Overview").await;
    }

    /// A webhook of the test's own.
    async fn event(&self, name: &str, conversation: &str, more: Value) -> String {
        let at = finhook::clock::rfc3339(finhook::clock::now_ms());
        let mut body = json!({
            "event_name": name, "conversation_id": conversation, "user_id": format!("user-of-{conversation}"), "created_at_ms": at,
        });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.world.app.accept(&body.to_string()).await
    }

    async fn reply(&self, conversation: &str, number: u64, html: &str) -> String {
        let message = json!({ "id": format!("{conversation}-{number}"), "author": "fin", "body": html });
        self.event("fin_replied", conversation, json!({ "status": "awaiting_user_reply", "message": message })).await
    }

    /// Makes a dead letter of a request for a rating: while others are delivered it fails for good.
    async fn dead_letter(&self, conversation: &str) -> String {
        let id = self.event("csat_requested", conversation, json!({ "csat": { "options": [] } })).await;
        let mut number = 0;
        eventually("a dead letter", async || {
            number += 1;
            self.reply("talk-of-others", number, "<p>Is that all?</p>").await;
            let dead = self.api("/api/v1/events?state=dead&sink=backend").await;
            dead["events"].as_array().unwrap().iter().any(|event| event["id"] == id.as_str())
        })
        .await;
        id
    }

    /// Waits until the list of conversations has this one.
    async fn knows(&self, conversation: &str) {
        eventually("the conversation is known", async || {
            self.api(&format!("/api/v1/conversations/{conversation}")).await["conversation"].is_object()
        })
        .await;
    }

    async fn stop(self) {
        self.world.stop().await;
    }
}

/// Those that documents show.
const SHOWN: [&str; 2] = ["console-conversation-light.png", "console-events-dark.png"];

/// Where a picture goes: to the documents (`WRITE_DOCS=1`), to whoever works on the console (`PICTURES=folder`), else nowhere.
fn picture(name: &str) -> PathBuf {
    let docs = std::env::var_os("WRITE_DOCS").filter(|_| SHOWN.contains(&name));
    let docs = docs.map(|_| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs"));
    let folder = docs.or_else(|| std::env::var_os("PICTURES").map(PathBuf::from));
    folder.map_or_else(|| "/dev/null".into(), |folder| folder.join(name))
}
