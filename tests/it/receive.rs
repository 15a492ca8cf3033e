//! What becomes of a request, through the whole program: each line of the public listener's contract that depends on more
//! than the listener.

use finhook::verify::{self, sign};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};

use crate::support::SECRET;
use crate::support::app::{TestApp, event};
use crate::support::process::{Client, Place};
use crate::support::wait::{eventually, until};

const ARCHIVE: &str = "[sinks.archive]\ntype = \"file\"\npath = \"DIR/events.ndjson\"\n";
const CLIENT_SECRET: &str = "the-client-secret-of-the-app";

/// Posts a body with one signature header of any kind: status, `Retry-After`, answer.
async fn post(app: &TestApp, header: (&str, String), body: &str) -> (u16, Option<String>, Value) {
    let url = format!("http://{}/webhooks/fin", app.public());
    let answer = app.client().post(url).header(header.0, header.1).body(body.to_owned()).send().await.unwrap();
    let status = answer.status().as_u16();
    let retry_after = answer.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
    (status, retry_after, serde_json::from_str(&answer.text().await.unwrap()).unwrap())
}

fn hub_signature(body: &str) -> String {
    let mut mac = Hmac::<sha1::Sha1>::new_from_slice(CLIENT_SECRET.as_bytes()).unwrap();
    mac.update(body.as_bytes());
    format!("sha1={}", hex::encode(mac.finalize().into_bytes()))
}

/// The ids of the archive's lines, once there are as many as expected.
async fn archived(app: &TestApp, count: usize) -> Vec<String> {
    let lines = || std::fs::read_to_string(app.path("events.ndjson")).unwrap_or_default();
    eventually("the archive has its lines", async || lines().lines().count() >= count).await;
    lines()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn load_balancers_ask_the_public_listener_whether_to_send_traffic() {
    let app = TestApp::start("server.ready_path = \"/up\"").await;
    let ask = async |method: reqwest::Method, path: &str| {
        let answer = app.client().request(method, format!("http://{}{path}", app.public())).send().await.unwrap();
        let allow = answer.headers().get("allow").map(|value| value.to_str().unwrap().to_owned());
        (answer.status().as_u16(), allow, answer.text().await.unwrap())
    };
    for method in [reqwest::Method::GET, reqwest::Method::HEAD] {
        assert_eq!(ask(method, "/up").await, (200, None, String::new()));
    }
    let (status, allow, _) = ask(reqwest::Method::POST, "/up").await;
    assert_eq!((status, allow.as_deref()), (405, Some("GET, HEAD")));
    assert_eq!(ask(reqwest::Method::GET, "/readyz").await.0, 404, "only where it was put");
    let (_, metrics) = app.admin_get("/metrics").await;
    for (outcome, times) in [("refused", 1), ("not_found", 1)] {
        let line = format!("finhook_requests_total{{endpoint=\"\",outcome=\"{outcome}\"}} {times}\n");
        assert!(metrics.as_str().unwrap().contains(&line), "{line}{metrics}");
    }
    app.stop().await;

    let app = TestApp::start("server.ready_path = \"\"").await;
    let answer = app.client().get(format!("http://{}/readyz", app.public())).send().await.unwrap();
    assert_eq!(answer.status(), 404, "turned off");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_comes_again_is_a_duplicate_with_the_first_ones_id_and_is_delivered_once_also_after_a_restart() {
    let app = TestApp::start(ARCHIVE).await;
    let body = event("fin_replied", "c", 1);
    let id = app.accept(&body).await;
    let other = body.replace("<p>1</p>", "<p>changed</p>");
    assert_ne!(other, body);
    let duplicate = (200, json!({ "id": id, "outcome": "duplicate" }));
    assert_eq!(app.post(&body).await, duplicate);
    assert_eq!(app.post(&other).await, duplicate, "another body under the same id");
    let (_, metrics) = app.admin_get("/metrics").await;
    assert!(metrics.as_str().unwrap().contains("finhook_conflicts_total{endpoint=\"fin\"} 1"));

    let app = TestApp::start_in(app.stop().await, ARCHIVE).await;
    assert_eq!(app.post(&body).await, duplicate);
    let next = app.accept(&event("fin_replied", "c", 2)).await;
    assert_eq!(archived(&app, 2).await, [id, next]);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_old_or_no_event_is_kept_and_not_delivered() {
    let app = TestApp::start(ARCHIVE).await;
    let mut old: Value = serde_json::from_str(&event("fin_replied", "c", 1)).unwrap();
    old["created_at_ms"] = json!("2020-01-01T00:00:00.000Z");
    let old = old.to_string();
    let nested = format!("{}{}", "[".repeat(50_000), "]".repeat(50_000));
    let twice = r#"{"event_name":"a","event_name":"b"}"#;
    for (body, outcome) in
        [(&*old, "stale"), ("not json", "quarantined"), (&nested, "quarantined"), (twice, "quarantined")]
    {
        let (status, answer) = app.post(body).await;
        assert_eq!((status, answer["outcome"].as_str()), (200, Some(outcome)));
        let again = app.post(body).await;
        assert_eq!(again, (200, json!({ "id": answer["id"], "outcome": "duplicate" })), "the same bytes are one entry");
        let id = answer["id"].as_str().unwrap();
        let (status, kept) = app.admin_get(&format!("/api/v1/events/{id}")).await;
        assert_eq!((status, kept["state"].as_str()), (200, Some(outcome)), "{kept}");
    }
    let id = app.accept(&event("fin_replied", "c", 2)).await;
    assert_eq!(archived(&app, 1).await, [id]);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_nobody_has_documented_is_delivered_untouched() {
    let app = TestApp::start(ARCHIVE).await;
    let body = r#"{"event_name":"fin_invented","conversation_id":"c","status":"unheard_of","new":{"x":[1.10e3,null]}}"#;
    app.accept(body).await;
    archived(&app, 1).await;
    let line = std::fs::read_to_string(app.path("events.ndjson")).unwrap();
    assert!(line.contains(body) && line.contains("com.intercom.fin_invented"), "{line}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_settings_pages_test_is_answered_when_its_secret_is_configured_and_is_never_an_event() {
    let body = r#"{"type":"notification_event","topic":"ping"}"#;
    let hub = || ("x-hub-signature", hub_signature(body));
    let app = TestApp::start(&format!("{ARCHIVE}\n[endpoints.fin]\nclient_secret = \"{CLIENT_SECRET}\"")).await;
    assert_eq!(post(&app, hub(), body).await, (200, None, json!({ "outcome": "test" })));
    assert_eq!(post(&app, hub(), "another body").await.0, 401);
    assert_eq!(post(&app, ("x-hub-signature", format!("sha1={}", "0".repeat(40))), body).await.0, 401);
    let (_, events) = app.admin_get("/api/v1/events").await;
    assert_eq!(events["events"].as_array().map(Vec::len), Some(0), "{events}");
    app.stop().await;

    let app = TestApp::start("").await;
    assert_eq!(post(&app, hub(), body).await.0, 401);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_secret_head_is_answered_and_events_are_refused_until_the_file_has_it() {
    let waiting = "[endpoints.other]\npath = \"/webhooks/other\"\nsigning_secrets_file = \"DIR/secret\"\n";
    let app = TestApp::start(waiting).await;
    let url = format!("http://{}/webhooks/other", app.public());
    assert_eq!(app.client().head(&url).send().await.unwrap().status(), 200);
    let body = event("fin_replied", "c", 1);
    let send = async || {
        let signature = sign(&SECRET.into(), body.as_bytes());
        app.client().post(&url).header(verify::HEADER, signature).body(body.clone()).send().await.unwrap()
    };
    let refused = send().await;
    assert_eq!((refused.status().as_u16(), refused.headers()["retry-after"].to_str().unwrap()), (503, "1"));
    std::fs::write(app.path("secret"), format!("{SECRET}\n")).unwrap();
    eventually("the secret takes effect", async || send().await.status() == 200).await;
    app.stop().await;
}

#[test]
fn a_callback_url_with_a_mistyped_path_is_counted_and_named_in_the_log_once_a_minute_at_most() {
    let folder = tempfile::tempdir().unwrap();
    let finhook = Place::new(folder.path(), "[log]\nlevel = \"debug\"\n").start();
    let ask = |head: &str| Client::new(finhook.public).request(&format!("{head}\r\n\r\n"), &[]).unwrap().status;
    let before = finhook.log().len();
    for _ in 0..3 {
        assert_eq!(ask("POST /fni?token=hidden HTTP/1.1\r\nHost: a\r\nContent-Length: 0"), 404);
        assert_eq!(ask("POST /no-host HTTP/1.1\r\nContent-Length: 0"), 400);
        assert_eq!(ask(&format!("POST /{} HTTP/1.1\r\nHost: a{}", "long".repeat(100), "\r\nx: y".repeat(101))), 431);
    }
    let metrics = finhook.admin_get("/metrics").body;
    for outcome in ["not_found", "malformed", "head_too_large"] {
        let line = format!("finhook_requests_total{{endpoint=\"\",outcome=\"{outcome}\"}} 3");
        assert!(metrics.contains(&line), "{line} is missing in:\n{metrics}");
    }
    until("what was refused is in the log", || finhook.log().len() >= before + 3);
    let said: Vec<Value> = finhook.log()[before..].iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let paths: Vec<&str> = said.iter().filter_map(|line| line["path"].as_str()).collect();
    assert_eq!(paths.len(), 3, "one line for each kind, and none without its path: {said:?}");
    assert_eq!(said.len(), 3, "{said:?}");
    assert_eq!(paths[..2], ["/fni", "/no-host"]);
    assert!(paths[2].starts_with("/longlong") && paths[2].chars().count() < 120, "{paths:?}");
    assert!(said.iter().all(|line| line["configured"] == "/fin" && line["level"] == "WARN"), "{said:?}");
}
