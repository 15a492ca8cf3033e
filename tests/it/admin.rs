//! The admin API and its command line, against a whole finhook: each operation by HTTP and by command, with good and bad
//! tokens, ids and filters.

mod commands;
mod description;
mod guarded;
mod operations;

use serde_json::Value;

use crate::support::app::TestApp;
use crate::support::receiver::Receiver;
use crate::support::wait::eventually;

/// A relay to `receiver`, without anything that takes time.
fn backend(receiver: &Receiver) -> String {
    format!(
        "[sinks.backend]\ntype = \"http\"\nurl = \"{}\"\ntimeout = \"5s\"\nretry = {{ base = \"10ms\", cap = \"20ms\", max_age = \"7d\" }}\n",
        receiver.url()
    )
}

/// One sink as the API shows it.
async fn sink(app: &TestApp, name: &str) -> Value {
    let (status, answer) = app.admin_get("/api/v1/sinks").await;
    assert_eq!(status, 200, "{answer}");
    let sinks = answer["sinks"].as_array().unwrap();
    sinks.iter().find(|sink| sink["name"] == name).unwrap_or_else(|| panic!("no {name} in {answer}")).clone()
}

/// Waits until a field of a sink has a value.
async fn sink_shows(app: &TestApp, name: &str, field: &str, value: impl Into<Value>) {
    let value = value.into();
    eventually(&format!("{field} of {name} is {value}"), async || sink(app, name).await[field] == value).await;
}

/// The state of an event at a sink.
async fn state_at(app: &TestApp, id: &str, sink: &str) -> String {
    let (status, answer) = app.admin_get(&format!("/api/v1/events/{id}")).await;
    assert_eq!(status, 200, "{answer}");
    let sinks = answer["sinks"].as_array().unwrap();
    let of_it = sinks.iter().find(|item| item["sink"] == sink).unwrap_or_else(|| panic!("no {sink} in {answer}"));
    of_it["state"].as_str().unwrap().to_owned()
}

/// Waits until an event is in a state at a sink.
async fn is_at(app: &TestApp, id: &str, sink: &str, state: &str) {
    eventually(&format!("{id} is {state} at {sink}"), async || state_at(app, id, sink).await == state).await;
}

/// The ids in a list.
async fn listed(app: &TestApp, query: &str) -> Vec<String> {
    let (status, answer) = app.admin_get(&format!("/api/v1/events?{query}")).await;
    assert_eq!(status, 200, "{answer}");
    answer["events"].as_array().unwrap().iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect()
}
