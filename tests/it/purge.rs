//! A purge leaves nothing behind: not in the database, not in its log, not on the way to a sink.

use serde_json::{Value, json};

use crate::support::app::{TestApp, event};
use crate::support::receiver::{Answer, Receiver};
use crate::support::wait::eventually;

/// How often these bytes are in the files beside the journal.
fn copies(app: &TestApp, needle: &str) -> usize {
    let mut count = 0;
    for entry in std::fs::read_dir(app.journal().parent().unwrap()).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().starts_with("finhook.db") {
            count += memchr::memmem::find_iter(&std::fs::read(path).unwrap(), needle).count();
        }
    }
    count
}

async fn purge(app: &TestApp, selection: Value) -> (u64, u64) {
    let (status, answer) = app.admin_post("/api/v1/events/purge", &selection).await;
    assert_eq!(status, 200, "{answer}");
    (answer["events"].as_u64().unwrap(), answer["bytes"].as_u64().unwrap())
}

fn marked(conversation: &str, number: u64, marker: &str, padding: usize) -> String {
    let mut body: Value = serde_json::from_str(&event("fin_replied", conversation, number)).unwrap();
    body["message"]["body"] = Value::from(format!("{marker}{}", "x".repeat(padding)));
    body.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn purged_events_leave_no_bytes_in_the_files_and_do_not_come_back() {
    let app = TestApp::start("").await;
    // From a few bytes to several pages.
    for number in 0..60 {
        let body = marked("secret", number, "MARKER-OF-SECRET", (number as usize * 997) % 50_000);
        app.accept(&body).await;
        app.accept(&marked("other", number, "MARKER-OF-OTHER", 300)).await;
    }
    let again = marked("secret", 1000, "MARKER-OF-SECRET", 10);
    app.accept(&again).await;
    assert!(copies(&app, "MARKER-OF-SECRET") >= 61, "they were there");

    let dry = purge(&app, json!({ "conversation": "secret", "dry_run": true })).await;
    let done = purge(&app, json!({ "conversation": "secret" })).await;

    assert_eq!(dry, done);
    assert_eq!(done.0, 61);
    assert!(done.1 > 60 * 300);
    for needle in ["MARKER-OF-SECRET", "\"conversation_id\":\"secret\"", "user-of-secret"] {
        assert_eq!(copies(&app, needle), 0, "{needle}");
    }
    assert!(copies(&app, "MARKER-OF-OTHER") >= 60, "nothing else is gone");
    let (_, answer) = app.post(&again).await;
    assert_eq!(answer["outcome"], "duplicate");
    assert_eq!(copies(&app, "MARKER-OF-SECRET"), 0, "a resend brings nothing back");
    let (_, shown) = app.admin_get(&format!("/api/v1/events/{}", answer["id"].as_str().unwrap())).await;
    assert_eq!(shown["state"], "purged");
    assert_eq!(purge(&app, json!({ "conversation": "secret" })).await, (0, 0));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_purged_by_id_user_and_time_and_no_others() {
    let app = TestApp::start("").await;
    let first = app.accept(&event("fin_replied", "a", 1)).await;
    let second = app.accept(&event("fin_replied", "b", 2)).await;
    let third = app.accept(&event("fin_replied", "c", 3)).await;

    assert_eq!(purge(&app, json!({ "until": "1h" })).await.0, 0);
    assert_eq!(purge(&app, json!({ "ids": [first] })).await.0, 1);
    assert_eq!(purge(&app, json!({ "ids": [first] })).await.0, 0, "gone already");
    assert_eq!(purge(&app, json!({ "user": "user-of-b" })).await.0, 1);
    let state = async |id: &str| app.admin_get(&format!("/api/v1/events/{id}")).await.1["state"].clone();
    assert_eq!(
        (state(&first).await, state(&second).await, state(&third).await),
        ("purged".into(), "purged".into(), "stored".into())
    );
    assert_eq!(purge(&app, json!({ "since": "1h", "limit": 5 })).await.0, 1);
    assert_eq!(state(&third).await, "purged");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_still_to_be_delivered_of_a_purged_event_is_cancelled() {
    let receiver = Receiver::start().await;
    receiver.answer_all(Answer::status(503));
    let sink = format!(
        "[sinks.backend]\ntype = \"http\"\nurl = \"{}\"\nretry = {{ base = \"50ms\", cap = \"100ms\", max_age = \"7d\" }}\n",
        receiver.url()
    );
    let app = TestApp::start(&sink).await;
    app.accept(&event("fin_replied", "purged", 1)).await;
    app.accept(&event("fin_replied", "purged", 2)).await;
    let kept = app.accept(&event("fin_replied", "kept", 3)).await;
    receiver.wait_for(3).await;

    assert_eq!(purge(&app, json!({ "conversation": "purged" })).await.0, 2);
    // One attempt may have been under way.
    eventually("nothing is under way", async || app.admin_get("/api/v1/sinks").await.1["sinks"][0]["in_flight"] == 0)
        .await;
    let before = receiver.received().len();
    receiver.answer_all(Answer::status(200));
    eventually("the sink is done", async || app.admin_get("/api/v1/sinks").await.1["sinks"][0]["lag"] == 0).await;

    let after = &receiver.received()[before..];
    assert!(after.iter().any(|request| request.header("ce-id") == kept));
    assert!(after.iter().all(|request| request.header("ce-subject") == "kept"), "a purged event was sent");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_newest_event_is_purged_the_next_one_is_delivered() {
    let receiver = Receiver::start().await;
    let sink = format!("[sinks.backend]\ntype = \"http\"\nurl = \"{}\"\n", receiver.url());
    let app = TestApp::start(&sink).await;
    let newest = app.accept(&event("fin_replied", "c", 1)).await;
    receiver.wait_for(1).await;
    assert_eq!(purge(&app, json!({ "ids": [newest] })).await.0, 1);

    let next = app.accept(&event("fin_replied", "c", 2)).await;
    assert_eq!(receiver.wait_for(2).await[1].header("ce-id"), next);
    let (_, shown) = app.admin_get(&format!("/api/v1/events/{next}")).await;
    assert_eq!(shown["seq"], 2, "its number was not given out again");

    // The same across a restart, when nothing in the table says so any more.
    assert_eq!(purge(&app, json!({ "ids": [next] })).await.0, 1);
    let app = TestApp::start_in(app.stop().await, &sink).await;
    let last = app.accept(&event("fin_replied", "c", 3)).await;
    assert_eq!(receiver.wait_for(3).await[2].header("ce-id"), last);
    let (_, shown) = app.admin_get(&format!("/api/v1/events/{last}")).await;
    assert_eq!(shown["seq"], 3);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_many_appends_and_purges_no_copy_of_a_purged_event_is_left_anywhere() {
    let app = TestApp::start("").await;
    let mut rng = fastrand::Rng::with_seed(4);
    let mut purged = Vec::new();
    for round in 0..8 {
        for number in 0..50 {
            let conversation = format!("round-{}", rng.u32(round..round + 4));
            let size = [50, 300, 1000, 5000, 12_000][rng.usize(0..5)];
            let body = marked(&conversation, round.into(), &format!("<<{conversation}.>>"), rng.usize(0..size));
            let body = body
                .replace("\"number\"", &format!("\"n{number}\":0,\"number\""))
                .replace(&format!("{conversation}-{round}\""), &format!("{conversation}-{round}-{number}\""));
            app.accept(&body).await;
        }
        let conversation = format!("round-{round}");
        assert!(purge(&app, json!({ "conversation": conversation })).await.0 > 0);
        purged.push(format!("<<{conversation}.>>"));
        for needle in &purged {
            assert_eq!(copies(&app, needle), 0, "{needle} after round {round}");
        }
    }
    assert!(copies(&app, "<<round-9.>>") > 0, "nothing else is gone");
    let app = TestApp::start_in(app.stop().await, "").await;
    let (_, left) = app.admin_get("/api/v1/events?limit=1000").await;
    assert!(left["events"].as_array().unwrap().len() > 50, "and what is left is sound");
    app.stop().await;
}
