//! Conversations by the API and the command line, against a whole finhook.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::support::app::{TestApp, event};
use crate::support::command::Sandbox;
use crate::support::receiver::{Answer, Receiver};
use crate::support::wait::eventually;

/// An event of Fin's with what a test wants to say.
fn fin(name: &str, conversation: &str, minute: u32, more: Value) -> String {
    let mut body = json!({
        "event_name": name, "conversation_id": conversation, "user_id": "u",
        "created_at_ms": format!("{}:{minute:02}:00.000Z", today()),
    });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body.to_string()
}

/// The hour before this one, as far as its minutes.
fn today() -> String {
    let at = time::OffsetDateTime::now_utc() - time::Duration::hours(1);
    let text = at.format(&time::format_description::well_known::Rfc3339).unwrap();
    text[..13].to_owned()
}

fn at(minute: u32) -> String {
    format!("{}:{minute:02}:00.000Z", today())
}

fn status(conversation: &str, minute: u32, status: &str, reason: Option<&str>) -> String {
    fin("fin_status_updated", conversation, minute, json!({ "status": status, "reason": reason }))
}

fn reply(conversation: &str, minute: u32, html: &str) -> String {
    let message = json!({ "id": format!("{conversation}-{minute}"), "author": "fin", "body": html });
    fin("fin_replied", conversation, minute, json!({ "status": "awaiting_user_reply", "message": message }))
}

/// Waits until everything that is stored is taken into account.
async fn caught_up(app: &TestApp) {
    eventually("the conversations are up to date", async || {
        let (status, page) = app.admin_get("/api/v1/conversations").await;
        status == 200 && page["behind"] == 0
    })
    .await;
}

async fn listed(app: &TestApp, query: &str) -> Vec<String> {
    let (status, page) = app.admin_get(&format!("/api/v1/conversations?{query}")).await;
    assert_eq!(status, 200, "{page}");
    page["conversations"].as_array().unwrap().iter().map(|it| it["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_shows_how_it_stands_what_was_said_and_where_it_has_not_arrived() {
    let receiver = Receiver::start().await;
    receiver.answer_where("ce-type", "com.intercom.csat_requested", Some(Answer::status(400)));
    let toml = format!(
        "[sinks.backend]\ntype = \"http\"\nurl = \"{}\"\nretry = {{ base = \"10ms\", cap = \"20ms\", max_age = \"7d\" }}\n\
         match = {{ conversation_prefixes = [\"talk\"] }}\n\
         [endpoints.other]\nsigning_secrets = [\"another signing secret\"]\n",
        receiver.url()
    );
    let app = TestApp::start(&toml).await;
    for body in [
        status("talk-1", 1, "thinking", None),
        reply("talk-1", 2, "<p>Open <b>Settings</b> &amp; save.</p><script>alert(1)</script>"),
        status("talk-1", 3, "awaiting_user_reply", None),
        fin("csat_requested", "talk-1", 4, json!({ "csat": { "options": [] } })),
        status("talk-2", 5, "escalated", Some("asked for a person")),
        fin("fin_invented", "solo", 6, json!({ "status": "unheard_of" })),
    ] {
        app.accept(&body).await;
    }
    // Fails for good only while others are delivered.
    let mut number = 0;
    eventually("the rating is a dead letter", async || {
        number += 1;
        app.accept(&event("fin_replied", "talk-other", number)).await;
        let (_, dead) = app.admin_get("/api/v1/events?state=dead").await;
        dead["events"].as_array().unwrap().len() == 1
    })
    .await;
    caught_up(&app).await;

    let (_, page) = app.admin_get("/api/v1/conversations?prefix=talk-1").await;
    let only = json!({
        "id": "talk-1", "endpoint": "fin", "state": "awaiting_user_reply", "reason": null, "last_event": "csat_requested",
        "first_at": at(1), "last_at": at(4), "events": 4, "awaiting_since": at(2),
    });
    assert_eq!(page["conversations"], json!([only]));
    let (status, shown) = app.admin_get("/api/v1/conversations/talk-1").await;
    assert_eq!((status, &shown["conversation"]), (200, &only), "{shown}");
    let entries = shown["entries"].as_array().unwrap();
    let kinds: Vec<_> = entries.iter().map(|entry| entry["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["status", "message", "status", "rating"]);
    let said = &entries[1];
    assert_eq!(said["html"], "<p>Open <b>Settings</b> &amp; save.</p><script>alert(1)</script>", "as it is stored");
    assert_eq!((&said["text"], &said["author"]), (&json!("Open Settings & save."), &json!("fin")));
    assert_eq!((&said["at"], &said["way"]), (&json!(at(2)), &json!("webhook")));
    let states: Vec<_> = entries.iter().map(|entry| entry["sinks"][0]["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["delivered", "delivered", "delivered", "dead"]);
    let (_, escalated) = app.admin_get("/api/v1/conversations?state=escalated").await;
    assert_eq!(escalated["conversations"][0]["reason"], "asked for a person");
    let (_, solo) = app.admin_get("/api/v1/conversations/solo").await;
    assert_eq!(solo["entries"][0]["sinks"][0]["state"], "skipped");

    // Pages of both.
    let mut cursor = String::new();
    let mut seen = Vec::new();
    loop {
        let (_, page) = app.admin_get(&format!("/api/v1/conversations?limit=1{cursor}")).await;
        seen.extend(page["conversations"].as_array().unwrap().iter().map(|it| it["id"].as_str().unwrap().to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen, ["talk-other", "solo", "talk-2", "talk-1"], "latest first");
    assert_eq!(listed(&app, &format!("until={}&since={}", at(6), at(5))).await, ["talk-2"]);
    let (_, first) = app.admin_get("/api/v1/conversations/talk-1?limit=3").await;
    let (_, rest) = app
        .admin_get(&format!("/api/v1/conversations/talk-1?limit=3&cursor={}", first["next"].as_str().unwrap()))
        .await;
    assert_eq!((first["entries"].as_array().unwrap().len(), rest["entries"].as_array().unwrap().len()), (3, 1));

    for (path, wanted) in [
        ("/api/v1/conversations/nobody", 404),
        ("/api/v1/conversations/talk-1?endpoint=other", 404),
        ("/api/v1/conversations/talk-1?cursor=x", 400),
        ("/api/v1/conversations?cursor=x", 400),
        ("/api/v1/conversations?limit=0", 400),
        ("/api/v1/conversations?since=yesterday", 400),
        ("/api/v1/conversations?unknown=1", 400),
    ] {
        assert_eq!(app.admin_get(path).await.0, wanted, "{path}");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_two_endpoints_have_is_two_conversations() {
    let app = TestApp::start("[endpoints.other]\nsigning_secrets = [\"a signing secret for tests\"]\n").await;
    let body = reply("same", 1, "<p>one</p>");
    app.accept(&body).await;
    let url = format!("http://{}/webhooks/other", app.public());
    let signature = finhook::verify::sign(&crate::support::SECRET.into(), body.as_bytes());
    let sent = app.client().post(url).header(finhook::verify::HEADER, signature).body(body).send().await.unwrap();
    assert_eq!(sent.status(), 200);
    caught_up(&app).await;
    assert_eq!(listed(&app, "prefix=same").await, ["same", "same"]);
    assert_eq!(listed(&app, "endpoint=other").await, ["same"]);
    let (status, problem) = app.admin_get("/api/v1/conversations/same").await;
    assert!(status == 409 && problem["detail"].as_str().unwrap().ends_with("fin, other"), "{problem}");
    assert_eq!(app.admin_get("/api/v1/conversations/same?endpoint=other").await.0, 200);
    app.stop().await;
}

/// Everything in the files of the conversations.
fn bytes(folder: &Path) -> Vec<u8> {
    let files = ["", "-wal"].map(|suffix| std::fs::read(folder.join(format!("finhook.db.conversations{suffix}"))));
    files.into_iter().flatten().flatten().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_purged_leaves_no_trace_and_what_is_left_is_counted() {
    let app = TestApp::start("").await;
    for (conversation, minute) in [("of-a-person-to-forget", 1), ("of-a-person-to-forget", 2), ("kept", 3), ("kept", 4)]
    {
        app.accept(&reply(conversation, minute, "<p>x</p>")).await;
    }
    caught_up(&app).await;
    let (_, kept) = app.admin_get("/api/v1/conversations/kept").await;
    assert_eq!(kept["conversation"]["events"], 2);
    let id = kept["entries"][0]["id"].clone();
    let purge = async |selection: Value| {
        let (status, done) = app.admin_post("/api/v1/events/purge", &selection).await;
        assert_eq!(status, 200, "{done}");
    };
    purge(json!({ "conversation": "of-a-person-to-forget" })).await;
    purge(json!({ "ids": [id] })).await;
    assert_eq!(app.admin_get("/api/v1/conversations/of-a-person-to-forget").await.0, 404);
    assert_eq!(listed(&app, "").await, ["kept"]);
    let (_, kept) = app.admin_get("/api/v1/conversations/kept").await;
    assert_eq!((&kept["conversation"]["events"], kept["entries"].as_array().unwrap().len()), (&json!(1), 1));
    let folder = app.stop().await;
    let trace = b"person-to-forget";
    assert!(!bytes(folder.path()).windows(trace.len()).any(|window| window == trace));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_is_made_anew_when_it_is_missing_damaged_or_of_another_journal() {
    let app = TestApp::start("").await;
    for number in 0..5 {
        app.accept(&event("fin_replied", &format!("c{number}"), number)).await;
    }
    caught_up(&app).await;
    let want = listed(&app, "").await;
    assert_eq!(want.len(), 5);
    let file = app.path("finhook.db.conversations");
    let mut folder = app.stop().await;
    let saved = std::fs::read(&file).unwrap();
    let other: Arc<tempfile::TempDir> = {
        let app = TestApp::start("").await;
        for number in 0..9 {
            app.accept(&event("fin_replied", "elsewhere", number)).await;
        }
        caught_up(&app).await;
        app.stop().await
    };
    let strange = std::fs::read(other.path().join("finhook.db.conversations")).unwrap();
    let mut flipped = saved.clone();
    flipped[100..4096].fill(0xa5);
    for (content, what) in [
        (Some(saved), "as it was"),
        (None, "missing"),
        (Some(flipped), "damaged"),
        (Some(b"text".to_vec()), "no database"),
        (Some(strange), "of another journal"),
    ] {
        for suffix in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(folder.path().join(format!("finhook.db.conversations{suffix}")));
        }
        if let Some(content) = content {
            std::fs::write(&file, content).unwrap();
        }
        let app = TestApp::start_in(folder, "").await;
        caught_up(&app).await;
        assert_eq!(listed(&app, "").await, want, "{what}");
        folder = app.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_print_conversations_for_people_and_for_programs() {
    let app = TestApp::start("").await;
    app.accept(&reply("talk", 1, "<p>Hello\u{202e} <b>you</b></p>")).await;
    app.accept(&status("talk", 2, "escalated", Some("asked for a person"))).await;
    caught_up(&app).await;
    let admin = format!("http://{}", app.admin());
    let run = |arguments: &[&str]| {
        let done = Sandbox::new().run(&[arguments, &["--admin", &admin]].concat());
        (done.code, done.stdout, done.stderr)
    };
    let (code, list, _) = run(&["conversations", "list"]);
    let lines: Vec<_> = list.lines().collect();
    assert_eq!((code, lines.len()), (0, 2), "{list}");
    for text in [at(2), "talk".into(), "escalated".into(), "fin_status_updated".into(), "asked for a person".into()] {
        assert!(lines[1].contains(&text), "{text} is not in {list}");
    }
    let (code, shown, _) = run(&["conversations", "show", "talk"]);
    assert_eq!(code, 0);
    let (at1, at2) = (at(1), at(2));
    assert!(shown.starts_with("talk  escalated (asked for a person)\n2 events at fin, "), "{shown}");
    assert!(
        shown.contains(&format!("{at1}  fin\n  Hello\u{fffd} you\n{at2}  → escalated (asked for a person)\n")),
        "{shown}"
    );
    let (_, lines, _) = run(&["conversations", "show", "talk", "--json"]);
    let entries: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((entries.len(), &entries[1]["status"]), (2, &json!("escalated")));
    let (_, list, _) = run(&["conversations", "list", "--state", "resolved", "--json"]);
    assert_eq!(list, "");
    let (code, _, error) = run(&["conversations", "show", "nobody"]);
    assert!(code == 1 && error.contains("no stored event is of this conversation"), "{error}");
    assert_eq!(run(&["conversations", "list", "--since", "yesterday"]).0, 2, "before anything is asked");
    app.stop().await;
}
