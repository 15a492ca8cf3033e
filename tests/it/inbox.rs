//! Endpoints of kind `intercom`: people's replies, which come as classic Intercom webhooks after a hand-over.

use finhook::verify::{self, sign, sign_hub};
use serde_json::{Value, json};

use crate::support::SECRET;
use crate::support::app::{self, TestApp, event};
use crate::support::command::Sandbox;
use crate::support::process::Place;
use crate::support::receiver::{Answer, Receiver};
use crate::support::wait::{eventually, until};

const CLIENT_SECRET: &str = "the-client-secret-of-the-app";
const INBOX: &str = r#"
[endpoints.inbox]
kind = "intercom"
client_secret = ["the-client-secret-of-the-app", "the one that is being rotated out"]
[sinks.archive]
type = "file"
path = "DIR/events.ndjson"
"#;

/// A notification as it is sent for the `attempt`th time. Without an id where `id` is null.
fn notification(topic: &str, conversation: &str, id: Value, attempt: u32) -> String {
    json!({
        "type": "notification_event", "id": id, "topic": topic, "app_id": "a",
        "created_at": time::OffsetDateTime::now_utc().unix_timestamp() / 1000 * 1000,
        "first_sent_at": 1_795_000_001 + u64::from(attempt), "delivery_attempts": attempt,
        "data": { "type": "notification_event_data", "item": {
            "type": "conversation", "id": conversation, "note": "<b>as it came</b>",
            "contacts": { "type": "contact.list", "contacts": [{ "id": "c", "external_id": "user-1" }] },
        } },
    })
    .to_string()
}

async fn post(app: &TestApp, path: &str, (name, value): (&str, String), body: &str) -> (u16, Value) {
    let url = format!("http://{}{path}", app.public());
    app::json(
        app.client().post(url).header(name, value).header("content-type", "application/json").body(body.to_owned()),
    )
    .await
}

async fn classic(app: &TestApp, body: &str) -> (u16, Value) {
    post(app, "/webhooks/inbox", ("x-hub-signature", sign_hub(&CLIENT_SECRET.into(), body.as_bytes())), body).await
}

async fn archived(app: &TestApp, count: usize) -> Vec<Value> {
    let text = || std::fs::read_to_string(app.path("events.ndjson")).unwrap_or_default();
    eventually("the archive has its lines", async || text().lines().count() >= count).await;
    text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_notification_is_one_event_however_its_bytes_differ_also_after_a_restart() {
    let app = TestApp::start(INBOX).await;
    let mut ids = Vec::new();
    for id in [json!("notif_1"), Value::Null] {
        let (status, first) = classic(&app, &notification("conversation.admin.replied", "215", id.clone(), 1)).await;
        assert_eq!((status, first["outcome"].as_str()), (200, Some("accepted")), "{first}");
        let again = classic(&app, &notification("conversation.admin.replied", "215", id, 2)).await;
        assert_eq!(again, (200, json!({ "id": first["id"], "outcome": "duplicate" })));
        ids.push(first["id"].clone());
    }
    let another = notification("conversation.admin.closed", "215", Value::Null, 1);
    assert_eq!(classic(&app, &another).await.1["outcome"], "accepted", "two topics for one act");
    let lines = archived(&app, 3).await;
    assert_eq!(lines.iter().map(|line| &line["id"]).take(2).collect::<Vec<_>>(), ids.iter().collect::<Vec<_>>());
    let first = &lines[0];
    assert_eq!(first["type"], "com.intercom.conversation.admin.replied");
    assert_eq!((&first["subject"], &first["userid"]), (&json!("215"), &json!("user-1")));
    assert_eq!(first["source"], "/finhook/endpoints/inbox");
    assert_eq!(first["data"]["data"]["item"]["note"], "<b>as it came</b>");
    let (_, listed) = app.admin_get("/api/v1/events?conversation=215&event=conversation.admin.replied").await;
    assert_eq!(listed["events"].as_array().unwrap().len(), 2, "{listed}");

    let app = TestApp::start_in(app.stop().await, INBOX).await;
    let again = classic(&app, &notification("conversation.admin.replied", "215", json!("notif_1"), 3)).await;
    assert_eq!(again, (200, json!({ "id": ids[0], "outcome": "duplicate" })));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_matched_by_name_and_by_group_and_relayed_byte_for_byte_with_their_own_header() {
    let receiver = Receiver::start().await;
    receiver.answer_all(Answer::status(200));
    let toml = format!(
        "{INBOX}\n[sinks.people]\ntype = \"http\"\nurl = \"{}\"\nmatch = {{ events = [\"conversation.admin.*\"] }}\n",
        receiver.url()
    );
    let app = TestApp::start(&toml).await;
    let replied = notification("conversation.admin.replied", "1", json!("n1"), 1);
    for body in [&notification("conversation.user.created", "1", json!("n0"), 1), &replied] {
        assert_eq!(classic(&app, body).await.0, 200);
    }
    app.accept(&event("fin_replied", "1", 1)).await;
    let closed = notification("conversation.admin.closed", "1", json!("n2"), 1);
    assert_eq!(classic(&app, &closed).await.0, 200);
    let requests = receiver.wait_for(2).await;
    for (request, body) in requests.iter().zip([&replied, &closed]) {
        assert_eq!(request.body, body.as_bytes());
        let header = |name: &str| request.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(header("x-hub-signature"), Some(sign_hub(&CLIENT_SECRET.into(), body.as_bytes())));
        assert_eq!(header("x-fin-agent-api-webhook-signature"), None);
        assert_eq!(header("ce-subject").as_deref(), Some("1"));
    }
    assert_eq!(archived(&app, 4).await.len(), 4);
    assert_eq!(receiver.received().len(), 2, "nothing else matched");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_signed_in_the_other_way_or_by_nobody_is_refused() {
    let app = TestApp::start(INBOX).await;
    let body = notification("conversation.admin.replied", "215", json!("notif_1"), 1);
    let hub = sign_hub(&CLIENT_SECRET.into(), body.as_bytes());
    let fin = sign(&CLIENT_SECRET.into(), body.as_bytes());
    let old = sign_hub(&"the one that is being rotated out".into(), body.as_bytes());
    for (path, header, value, why) in [
        ("/webhooks/inbox", "x-fin-agent-api-webhook-signature", fin.clone(), "Fin's header"),
        ("/webhooks/inbox", "x-hub-signature", fin.clone(), "SHA-256"),
        ("/webhooks/inbox", "x-hub-signature", hub[5..].to_owned(), "no prefix"),
        ("/webhooks/inbox", "x-hub-signature", hub.to_uppercase(), "the prefix in upper case"),
        ("/webhooks/inbox", "x-hub-signature", sign_hub(&SECRET.into(), body.as_bytes()), "Fin's secret"),
        ("/webhooks/inbox", "x-body-signature", hub.clone(), "another header"),
        ("/webhooks/fin", "x-hub-signature", hub.clone(), "a classic one at Fin's"),
        ("/webhooks/fin", "x-fin-agent-api-webhook-signature", hub.clone(), "SHA-1 in Fin's header"),
    ] {
        assert_eq!(post(&app, path, (header, value), &body).await.0, 401, "{why}");
    }
    let url = format!("http://{}/webhooks/inbox", app.public());
    let twice =
        app.client().post(&url).header("x-hub-signature", &hub).header("x-hub-signature", &hub).body(body.clone());
    let refused = twice.send().await.unwrap();
    assert_eq!(refused.status(), 401, "sent twice");
    assert_eq!(refused.headers()["www-authenticate"], "HMAC-SHA1 header=\"X-Hub-Signature\"");
    assert_eq!(app.client().head(&url).send().await.unwrap().status(), 200, "the probe of the URL");
    let (_, events) = app.admin_get("/api/v1/events").await;
    assert_eq!(events["events"].as_array().map(Vec::len), Some(0), "{events}");
    assert_eq!(post(&app, "/webhooks/inbox", ("x-hub-signature", old), &body).await.0, 200, "the former secret");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ping_is_answered_an_odd_envelope_is_kept_and_a_new_topic_is_an_ordinary_event() {
    let app = TestApp::start(INBOX).await;
    let ping = r#"{"type":"notification_event","topic":"ping","data":{"item":{"type":"ping","message":"hi"}}}"#;
    assert_eq!(classic(&app, ping).await, (200, json!({ "outcome": "test" })));
    for odd in [r#"{"topic":"conversation.admin.replied"}"#, r#"{"data":{"item":{}}}"#, "[]"] {
        let (status, answer) = classic(&app, odd).await;
        assert_eq!((status, answer["outcome"].as_str()), (200, Some("quarantined")), "{odd}");
    }
    let (status, answer) = classic(&app, r#"{"topic":"a.topic.of.tomorrow","data":{"item":{}}}"#).await;
    assert_eq!((status, answer["outcome"].as_str()), (200, Some("accepted")));
    let lines = archived(&app, 1).await;
    assert_eq!((lines.len(), &lines[0]["type"]), (1, &json!("com.intercom.a.topic.of.tomorrow")));
    assert!(lines[0].get("subject").is_none(), "{}", lines[0]);
    app.stop().await;
}

/// The program itself, with the secret in a file that is filled later, and by its own commands.
#[test]
fn the_program_takes_its_secret_from_a_file_signs_and_sends_by_itself_and_says_what_was_mixed_up() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("client-secret");
    let toml = format!(
        "[endpoints.inbox]\nkind = \"intercom\"\npath = \"/inbox\"\nclient_secret_file = \"{}\"\n",
        secret.display()
    );
    let finhook = Place::new(folder.path(), &toml).start();
    let sandbox = Sandbox::with_config(&toml);
    let url = format!("http://{}/inbox", finhook.public);
    let send = |event: &str| sandbox.run(&["send", event, "--endpoint", "inbox", "--url", &url]);
    let none = send("conversation.admin.replied");
    assert_eq!(none.code, 1);
    assert!(none.stderr.contains("endpoints.inbox.client_secret_file"), "{}", none.stderr);

    std::fs::write(&secret, format!("{CLIENT_SECRET}\nan older one, too\n")).unwrap();
    until("the secret is in use", || send("conversation.admin.replied").stdout.starts_with("200 "));
    let sent = send("conversation.admin.closed");
    assert!(sent.stdout.ends_with(" accepted\n"), "{}", sent.stdout);
    std::fs::write(sandbox.path("body.json"), "{}").unwrap();
    let signature = sandbox.run(&["sign", "body.json", "--endpoint", "inbox"]).stdout;
    assert_eq!(signature.trim_end(), sign_hub(&CLIENT_SECRET.into(), b"{}"));
    let verify = |signature: &str| sandbox.run(&["verify", "--signature", signature, "body.json"]).code;
    assert_eq!((verify(signature.trim_end()), verify("sha1=00")), (0, 1));

    let body = "{}";
    let ask = |head: &str| {
        let head = format!("POST {head}\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        crate::support::process::Client::new(finhook.public).request(&head, &[]).unwrap().status
    };
    assert_eq!(ask(&format!("/inbox HTTP/1.1\r\n{}: {}", verify::FIN_HEADER, sign(&SECRET.into(), b"{}"))), 401);
    assert_eq!(ask(&format!("/fin HTTP/1.1\r\nX-Hub-Signature: {}", signature.trim_end())), 401);
    until("both mistakes are in the log", || {
        let log = finhook.log().join("\n");
        log.contains("an event of Fin at an endpoint for classic webhooks")
            && log.contains("a classic Intercom webhook, or the settings page's test, at an endpoint for Fin")
    });
}
