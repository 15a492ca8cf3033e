//! What each operation does, by HTTP.

use serde_json::{Value, json};

use super::{backend, is_at, listed, sink, sink_shows, state_at};
use crate::support::app::{TestApp, event};
use crate::support::receiver::{Answer, Receiver};
use crate::support::wait::eventually;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_listed_newest_first_by_every_filter_and_page_by_page() {
    let receiver = Receiver::start().await;
    let app = TestApp::start(&backend(&receiver)).await;
    let mut ids = Vec::new();
    for number in 0..5 {
        ids.push(app.accept(&event("fin_replied", if number % 2 == 0 { "even" } else { "odd" }, number)).await);
    }
    let status = app.accept(&event("fin_status_updated", "even", 9)).await;
    let quarantined = app.post("{\"no\": \"event\"}").await.1["id"].as_str().unwrap().to_owned();
    let newest_first: Vec<String> = [&quarantined, &status].into_iter().chain(ids.iter().rev()).cloned().collect();

    assert_eq!(listed(&app, "").await, newest_first);
    assert_eq!(listed(&app, "conversation=odd").await, [ids[3].clone(), ids[1].clone()]);
    assert_eq!(listed(&app, "user=user-of-odd").await.len(), 2);
    assert_eq!(listed(&app, "event=fin_status_updated").await, std::slice::from_ref(&status));
    assert_eq!(listed(&app, "state=quarantined").await, std::slice::from_ref(&quarantined));
    assert_eq!(listed(&app, "state=stored").await.len(), 6);
    assert_eq!(listed(&app, "since=1h").await.len(), 7);
    assert_eq!(listed(&app, "until=1h").await.len(), 0);
    assert_eq!(listed(&app, "since=2100-01-01T00:00:00Z").await.len(), 0);
    for id in ids.iter().chain([&status]) {
        is_at(&app, id, "backend", "delivered").await;
    }
    assert_eq!(state_at(&app, &quarantined, "backend").await, "skipped");
    assert_eq!(listed(&app, "sink=backend").await.len(), 6);
    assert_eq!(listed(&app, "sink=backend&state=skipped").await, [quarantined]);
    assert_eq!(listed(&app, "sink=backend&state=delivered").await.len(), 6);
    assert_eq!(listed(&app, "state=dead").await.len(), 0);
    assert_eq!(listed(&app, "state=pending").await.len(), 0);

    let (mut paged, mut cursor) = (Vec::new(), String::new());
    loop {
        let (_, page) = app.admin_get(&format!("/api/v1/events?limit=2{cursor}")).await;
        paged.extend(page["events"].as_array().unwrap().iter().map(|e| e["id"].as_str().unwrap().to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(paged, newest_first);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_is_shown_only_to_those_who_ask_for_it() {
    let app = TestApp::start("").await;
    let body = event("fin_replied", "c", 1);
    let id = app.accept(&body).await;

    let (_, list) = app.admin_get("/api/v1/events").await;
    let (_, short) = app.admin_get(&format!("/api/v1/events/{id}")).await;
    let (_, whole) = app.admin_get(&format!("/api/v1/events/{id}?body=true")).await;

    assert!(!list.to_string().contains("<p>1</p>") && !short.to_string().contains("<p>1</p>"));
    assert_eq!(short.get("body"), None);
    assert_eq!(whole["body"], body);
    assert_eq!(whole["body_bytes"], body.len());
    assert_eq!((&whole["conversation_id"], &whole["state"]), (&json!("c"), &json!("stored")));

    let signed = finhook::verify::sign(&crate::support::SECRET.into(), b"\xff\x00");
    let request = app.client().post(format!("http://{}/webhooks/fin", app.public()));
    let request = request.header("content-type", "application/json").header(finhook::verify::HEADER, signed);
    let (_, answer) = crate::support::app::json(request.body(&b"\xff\x00"[..])).await;
    let id = answer["id"].as_str().unwrap();
    let (_, whole) = app.admin_get(&format!("/api/v1/events/{id}?body=true")).await;
    assert_eq!((&whole["body_base64"], whole.get("body")), (&json!("/wA="), None), "{whole}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_sink_gets_nothing_until_it_is_resumed_also_across_a_restart() {
    let receiver = Receiver::start().await;
    let app = TestApp::start(&backend(&receiver)).await;
    let (status, answer) = app.admin_post("/api/v1/sinks/backend/pause", &Value::Null).await;
    assert_eq!((status, &answer["state"]), (200, &json!("paused")));
    let id = app.accept(&event("fin_replied", "c", 1)).await;
    let app = TestApp::start_in(app.stop().await, &backend(&receiver)).await;
    let second = app.accept(&event("fin_replied", "c", 2)).await;

    assert_eq!(sink(&app, "backend").await["state"], "paused");
    assert_eq!(sink(&app, "backend").await["lag"], 2);
    assert_eq!(state_at(&app, &id, "backend").await, "pending");
    assert_eq!(listed(&app, "state=pending").await, [second.clone(), id.clone()]);
    let (_, metrics) = app.admin_get("/metrics").await;
    let metrics = metrics.as_str().unwrap();
    assert!(metrics.contains("finhook_sink_paused{sink=\"backend\"} 1"), "{metrics}");
    assert!(metrics.contains("finhook_sink_lag_events{sink=\"backend\"} 2"), "{metrics}");
    assert_eq!(receiver.received().len(), 0);

    let (status, _) = app.admin_post("/api/v1/sinks/backend/resume", &Value::Null).await;
    assert_eq!(status, 200);
    is_at(&app, &second, "backend", "delivered").await;
    assert_eq!(receiver.received().len(), 2);
    sink_shows(&app, "backend", "lag", 0).await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_are_kept_shown_and_delivered_once_they_are_retried() {
    let receiver = Receiver::start().await;
    let app = TestApp::start(&backend(&receiver)).await;
    for _ in 0..3 {
        receiver.answer_next(Answer::status(400));
    }
    let id = app.accept(&event("fin_replied", "c", 1)).await;
    is_at(&app, &id, "backend", "dead").await;

    assert_eq!(listed(&app, "state=dead").await, std::slice::from_ref(&id));
    assert_eq!(listed(&app, "state=dead&sink=backend").await, std::slice::from_ref(&id));
    assert_eq!(sink(&app, "backend").await["dead"], 1);
    let (_, shown) = app.admin_get(&format!("/api/v1/events/{id}")).await;
    let at = &shown["sinks"][0];
    assert_eq!(at["attempts"], 3, "{at}");
    assert!(at["error"].as_str().unwrap().contains("400") && at["died_at"].is_string(), "{at}");
    let (_, metrics) = app.admin_get("/metrics").await;
    assert!(metrics.as_str().unwrap().contains("finhook_dead_letters{sink=\"backend\"} 1"));

    let (status, answer) = app.admin_post("/api/v1/sinks/backend/retry-dead", &Value::Null).await;
    assert_eq!((status, &answer["events"]), (200, &json!(1)));
    is_at(&app, &id, "backend", "delivered").await;
    let received = receiver.wait_for(4).await;
    assert_eq!(received[3].header("ce-id"), id);
    assert_eq!(received[3].header("finhook-attempt"), "1");
    assert!(received[3].headers.get("finhook-replay").is_none(), "a first delivery is no replay");
    sink_shows(&app, "backend", "dead", 0).await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_goes_to_the_chosen_sink_in_order_with_the_same_ids_and_marked() {
    let (receiver, other) = (Receiver::start().await, Receiver::start().await);
    let both = backend(&receiver) + &backend(&other).replace("sinks.backend", "sinks.other");
    let app = TestApp::start(&both).await;
    let mut ids = Vec::new();
    for number in 0..20 {
        ids.push(app.accept(&event("fin_replied", if number % 2 == 0 { "a" } else { "b" }, number)).await);
    }
    let quarantined = app.post("[]").await.1["id"].as_str().unwrap().to_owned();
    receiver.wait_for(20).await;
    other.wait_for(20).await;

    let dry = json!({ "sink": "backend", "conversation": "a", "dry_run": true });
    let (status, answer) = app.admin_post("/api/v1/events/replay", &dry).await;
    assert_eq!((status, &answer["events"], &answer["replay"]), (200, &json!(10), &Value::Null), "{answer}");
    let (status, answer) =
        app.admin_post("/api/v1/events/replay", &json!({ "sink": "backend", "conversation": "a" })).await;
    assert_eq!((status, &answer["events"]), (200, &json!(10)), "{answer}");
    let replay = answer["replay"].as_str().unwrap();

    let received = receiver.wait_for(30).await;
    let replayed: Vec<_> = received[20..].iter().map(|request| request.header("ce-id").to_owned()).collect();
    let wanted: Vec<_> = ids.iter().step_by(2).cloned().collect();
    assert_eq!(replayed, wanted, "in order, nothing else");
    assert!(received[20..].iter().all(|request| request.header("finhook-replay") == replay));

    let (status, answer) =
        app.admin_post("/api/v1/events/replay", &json!({ "sink": "other", "ids": [ids[3], ids[1]] })).await;
    assert_eq!((status, &answer["events"]), (200, &json!(2)), "{answer}");
    let received = other.wait_for(22).await;
    assert_eq!(received[20].header("ce-id"), ids[1]);
    assert_eq!(received[21].header("ce-id"), ids[3]);

    let (status, _) = app.admin_post("/api/v1/events/replay", &json!({ "sink": "other", "ids": [quarantined] })).await;
    assert_eq!(status, 422, "what is no event can't be sent");
    let (status, _) =
        app.admin_post("/api/v1/events/replay", &json!({ "sink": "other", "state": "quarantined" })).await;
    assert_eq!(status, 422);
    sink_shows(&app, "backend", "waiting", 0).await;
    assert_eq!(receiver.received().len(), 30);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_to_a_file_is_written_behind_what_is_there() {
    let app = TestApp::start("[sinks.archive]\ntype = \"file\"\npath = \"DIR/events.ndjson\"").await;
    let id = app.accept(&event("fin_replied", "c", 1)).await;
    is_at(&app, &id, "archive", "delivered").await;

    let (status, _) = app.admin_post("/api/v1/events/replay", &json!({ "sink": "archive", "ids": [id] })).await;
    assert_eq!(status, 200);
    let lines = || std::fs::read_to_string(app.path("events.ndjson")).unwrap().lines().count();
    eventually("it is written again", async || lines() == 2).await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_sink_is_reported_until_it_is_forgotten() {
    let receiver = Receiver::start().await;
    receiver.answer_all(Answer::status(400));
    let app = TestApp::start(&backend(&receiver)).await;
    let id = app.accept(&event("fin_replied", "c", 1)).await;
    is_at(&app, &id, "backend", "dead").await;
    let (status, answer) = app.admin_post("/api/v1/sinks/backend/forget", &Value::Null).await;
    assert_eq!(status, 409, "it is in use: {answer}");
    let app = TestApp::start_in(app.stop().await, "").await;
    app.accept(&event("fin_replied", "c", 2)).await;

    let removed = sink(&app, "backend").await;
    assert_eq!((&removed["state"], &removed["dead"], &removed["lag"]), (&json!("removed"), &json!(1), &json!(1)));
    let (_, metrics) = app.admin_get("/metrics").await;
    assert!(metrics.as_str().unwrap().contains("finhook_dead_letters{sink=\"backend\"} 1"));
    let (status, _) = app.admin_post("/api/v1/sinks/backend/retry-dead", &Value::Null).await;
    assert_eq!(status, 409, "nobody would deliver");
    let (status, _) = app.admin_post("/api/v1/events/replay", &json!({ "sink": "backend", "ids": [id] })).await;
    assert_eq!(status, 409);

    let (status, answer) = app.admin_post("/api/v1/sinks/backend/forget", &Value::Null).await;
    assert_eq!((status, &answer["dead"], &answer["lag"]), (200, &json!(1), &json!(1)));
    let (_, list) = app.admin_get("/api/v1/sinks").await;
    assert_eq!(list["sinks"], json!([]));
    let (_, metrics) = app.admin_get("/metrics").await;
    assert!(!metrics.as_str().unwrap().contains("finhook_dead_letters{sink=\"backend\"}"));

    // Configured again, it is a new sink: it begins with what comes from now on.
    receiver.answer_all(Answer::status(200));
    let before = receiver.received().len();
    let app = TestApp::start_in(app.stop().await, &backend(&receiver)).await;
    let new = app.accept(&event("fin_replied", "c", 3)).await;
    is_at(&app, &new, "backend", "delivered").await;
    assert_eq!(receiver.received().len(), before + 1);
    app.stop().await;
}
