//! The delivery guarantee with the whole program, real sockets and a real receiver at the far end.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::support::app::{TestApp, event};
use crate::support::receiver::{Answer, Received, Receiver};
use crate::support::wait::eventually;

/// A relay that retries fast and gives up after a second.
fn relay(url: &str) -> String {
    format!(
        r#"
        [sinks.backend]
        type = "http"
        url = "{url}"
        concurrency = 4
        timeout = "5s"
        retry = {{ base = "20ms", cap = "200ms", max_age = "1s" }}
        "#
    )
}

/// Longer than the `max_age` of [`relay`].
const OUTAGE: Duration = Duration::from_secs(3);

/// The ids as they first came, by conversation.
fn first_deliveries(received: &[Received]) -> HashMap<String, Vec<String>> {
    let mut by_conversation: HashMap<String, Vec<String>> = HashMap::new();
    for request in received {
        let ids = by_conversation.entry(request.header("ce-subject").to_owned()).or_default();
        let id = request.header("ce-id").to_owned();
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    by_conversation
}

/// Accepts events in turn for each conversation and returns their ids in order.
async fn accept(app: &TestApp, conversations: &[&str], each: u64) -> HashMap<String, Vec<String>> {
    let mut ids: HashMap<String, Vec<String>> = HashMap::new();
    for number in 0..each {
        for conversation in conversations {
            let id = app.accept(&event("fin_replied", conversation, number)).await;
            ids.entry((*conversation).to_owned()).or_default().push(id);
        }
    }
    ids
}

async fn metric(app: &TestApp, line: &str) -> f64 {
    let (_, text) = app.admin_get("/metrics").await;
    let text = text.as_str().unwrap();
    let found = text.lines().find_map(|found| found.strip_prefix(line));
    found.unwrap_or_else(|| panic!("{line} is not in:\n{text}")).trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_conversation_arrives_in_order_and_in_parallel() {
    let receiver = Receiver::start().await;
    receiver.answer_all(Answer::status(200).after(Duration::from_millis(5)));
    let app = TestApp::start(&relay(&receiver.url())).await;
    let conversations = ["a", "b", "c", "d", "e", "f"];
    // Held back until all of it is there: how much is in flight at once must not depend on how fast it comes in.
    assert_eq!(app.admin_post("/api/v1/sinks/backend/pause", &serde_json::Value::Null).await.0, 200);
    let ids = accept(&app, &conversations, 10).await;
    assert_eq!(app.admin_post("/api/v1/sinks/backend/resume", &serde_json::Value::Null).await.0, 200);
    let received = receiver.wait_for(60).await;
    assert_eq!(first_deliveries(&received), ids);
    assert_eq!(received.len(), 60, "nothing comes twice");
    let most = receiver.most_in_flight();
    assert!((2..=4).contains(&most), "{most} in flight at once, with a concurrency of 4");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_that_fails_holds_up_no_other_and_keeps_its_order() {
    let receiver = Receiver::start().await;
    receiver.answer_where("ce-subject", "bad", Some(Answer::status(503)));
    let app = TestApp::start(&relay(&receiver.url()).replace("\"1s\"", "\"1h\"")).await;
    let ids = accept(&app, &["bad", "good", "fine"], 20).await;
    eventually("the others are delivered", async || {
        let first = first_deliveries(&receiver.received());
        ["good", "fine"].iter().all(|name| first.get(*name) == Some(&ids[*name]))
    })
    .await;
    assert_eq!(first_deliveries(&receiver.received())["bad"], ids["bad"][..1], "only its first event is tried");

    receiver.answer_where("ce-subject", "bad", None);
    eventually("all is delivered", async || first_deliveries(&receiver.received()) == ids).await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_attempt_has_the_same_id_and_its_number() {
    let receiver = Receiver::start().await;
    receiver.answer_next(Answer::status(500));
    receiver.answer_next(Answer::Reset);
    let app = TestApp::start(&relay(&receiver.url())).await;
    let id = app.accept(&event("fin_replied", "c", 1)).await;
    let received = receiver.wait_for(3).await;
    let attempts: Vec<_> = received.iter().map(|r| (r.header("ce-id"), r.header("finhook-attempt"))).collect();
    assert_eq!(attempts, [(&*id, "1"), (&*id, "2"), (&*id, "3")]);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_rejected_event_dies_alone_after_three_tries_and_its_conversation_goes_on() {
    let receiver = Receiver::start().await;
    let app = TestApp::start(&relay(&receiver.url())).await;
    // Its id is known before it is sent: the same body is refused first.
    let poison = event("fin_replied", "c", 2);
    let id = {
        let probe = TestApp::start("").await;
        let id = probe.accept(&poison).await;
        probe.stop().await;
        id
    };
    receiver.answer_where("ce-id", &id, Some(Answer::status(404)));
    let before = app.accept(&event("fin_replied", "c", 1)).await;
    assert_eq!(app.accept(&poison).await, id);
    let after = app.accept(&event("fin_replied", "c", 3)).await;
    let others = accept(&app, &["x", "y"], 5).await;
    eventually("the conversation goes on", async || {
        first_deliveries(&receiver.received()).get("c") == Some(&vec![before.clone(), id.clone(), after.clone()])
    })
    .await;
    let first = first_deliveries(&receiver.wait_for(3 + 2 + 10).await);
    assert_eq!((&first["x"], &first["y"]), (&others["x"], &others["y"]));
    let tries = receiver.received().iter().filter(|request| request.header("ce-id") == id).count();
    assert_eq!(tries, 3);
    eventually("one dead letter is counted", async || {
        metric(&app, "finhook_deliveries_total{sink=\"backend\",outcome=\"dead\"}").await == 1.0
    })
    .await;
    app.stop().await;
}

async fn outage_kills_nothing(status: u16) {
    let receiver = Receiver::start().await;
    // Slow enough that no event can fail three times before another one has come: until then it would be alone, and one
    // event that fails alone is taken for a bad one.
    receiver.answer_all(Answer::status(status).after(Duration::from_millis(300)));
    let app = TestApp::start(&relay(&receiver.url())).await;
    let ids = accept(&app, &["a", "b", "c", "d", "e"], 4).await;
    receiver.wait_for(1).await;
    // Not a wait for something to happen: the outage has to last longer than events live.
    tokio::time::sleep(OUTAGE).await;
    assert_eq!(metric(&app, "finhook_deliveries_total{sink=\"backend\",outcome=\"dead\"}").await, 0.0);
    receiver.answer_all(Answer::status(200));
    eventually("everything is delivered after the outage", async || {
        let received = receiver.received();
        first_deliveries(&received) == ids
            && metric(&app, "finhook_deliveries_total{sink=\"backend\",outcome=\"delivered\"}").await == 20.0
    })
    .await;
    assert_eq!(metric(&app, "finhook_deliveries_total{sink=\"backend\",outcome=\"dead\"}").await, 0.0);
    assert!(receiver.most_in_flight() <= 4, "no herd when it comes back");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_answers_401_longer_than_max_age_loses_nothing() {
    outage_kills_nothing(401).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_answers_404_longer_than_max_age_loses_nothing() {
    outage_kills_nothing(404).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_answers_503_longer_than_max_age_loses_nothing() {
    outage_kills_nothing(503).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_refuses_connections_longer_than_max_age_loses_nothing_even_of_one_conversation() {
    let (address, url) = {
        let gone = Receiver::start().await;
        let url = gone.url();
        (url.trim_start_matches("http://").split('/').next().unwrap().parse().unwrap(), url)
    };
    let app = TestApp::start(&relay(&url)).await;
    let ids = accept(&app, &["only"], 5).await;
    tokio::time::sleep(OUTAGE).await;
    assert_eq!(metric(&app, "finhook_deliveries_total{sink=\"backend\",outcome=\"dead\"}").await, 0.0);
    let receiver = Receiver::start_at(address).await;
    let received = receiver.wait_for(5).await;
    assert_eq!(first_deliveries(&received), ids);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_waiting_is_delivered_after_a_restart_in_order() {
    let receiver = Receiver::start().await;
    receiver.answer_all(Answer::status(503));
    let toml = relay(&receiver.url());
    let app = TestApp::start(&toml).await;
    let ids = accept(&app, &["a", "b"], 5).await;
    receiver.wait_for(2).await;
    let dir = app.stop().await;

    receiver.answer_all(Answer::status(200));
    let app = TestApp::start_in(dir, &toml).await;
    eventually("all is delivered", async || first_deliveries(&receiver.received()) == ids).await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_that_is_read_from_disk_keeps_to_the_sinks_concurrency() {
    const EVENTS: usize = 3000;
    let receiver = Receiver::start().await;
    // Slow enough for some to be ready while a read is under way, in which others end.
    receiver.answer_all(Answer::status(200).after(Duration::from_millis(5)));
    let app = TestApp::start("").await;
    for hundred in 0..EVENTS / 100 {
        let accept = async |number: usize| app.accept(&event("fin_replied", &format!("c{number}"), 1)).await;
        futures_util::future::join_all((hundred * 100..hundred * 100 + 100).map(accept)).await;
    }
    let dir = app.stop().await;

    let relay = relay(&receiver.url()).replace("concurrency = 4", "concurrency = 32\nfrom = \"start\"");
    let app = TestApp::start_in(dir, &relay).await;
    receiver.wait_for(EVENTS).await;
    let most = receiver.most_in_flight();
    assert!((2..=32).contains(&most), "{most} in flight at once, with a concurrency of 32");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_hangs_delays_no_other_sink() {
    let receiver = Receiver::start().await;
    receiver.answer_all(Answer::Hang);
    let archive = "[sinks.archive]\ntype = \"file\"\npath = \"DIR/events.ndjson\"";
    let app = TestApp::start(&format!("{}\n{archive}", relay(&receiver.url()))).await;
    let ids = accept(&app, &["a", "b"], 20).await;
    eventually("the archive has everything", async || {
        let lines = std::fs::read_to_string(app.path("events.ndjson")).unwrap_or_default();
        lines.lines().count() == ids.values().map(Vec::len).sum::<usize>()
    })
    .await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_after_is_honoured() {
    let receiver = Receiver::start().await;
    receiver.answer_next(Answer::status(503).with("retry-after", "1"));
    let app = TestApp::start(&relay(&receiver.url())).await;
    app.accept(&event("fin_replied", "c", 1)).await;
    receiver.wait_for(1).await;
    let asked = Instant::now();
    receiver.wait_for(2).await;
    // The receiver saw the first request a little before `asked`.
    assert!(asked.elapsed() > Duration::from_millis(900), "{:?}", asked.elapsed());
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_do_not_match_are_passed_over() {
    let receiver = Receiver::start().await;
    let toml = relay(&receiver.url())
        + "match = { events = [\"csat_requested\"], except_conversation_prefixes = [\"fin:test:\"] }";
    let app = TestApp::start(&toml).await;
    app.accept(&event("fin_replied", "c", 1)).await;
    app.accept(&event("csat_requested", "fin:test:1", 2)).await;
    let wanted = app.accept(&event("csat_requested", "c", 3)).await;
    let received = receiver.wait_for(1).await;
    assert_eq!(received[0].header("ce-id"), wanted);
    eventually("the sink is done with all of them", async || {
        metric(&app, "finhook_sink_lag_events{sink=\"backend\"}").await == 0.0
    })
    .await;
    assert_eq!(receiver.received().len(), 1);
    app.stop().await;
}

/// How `/api/v1/sinks` shows the relay.
async fn shown(app: &TestApp) -> serde_json::Value {
    let (_, page) = app.admin_get("/api/v1/sinks").await;
    page["sinks"].as_array().unwrap().iter().find(|sink| sink["name"] == "backend").unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_error_has_its_time_says_why_nothing_died_and_goes_when_the_sink_has_recovered() {
    let receiver = Receiver::start().await;
    receiver.answer_where("ce-subject", "bad", Some(Answer::status(503)));
    let app = TestApp::start(&relay(&receiver.url()).replace("\"1s\"", "\"1h\"")).await;
    accept(&app, &["bad"], 1).await;
    eventually("it is shown", async || shown(&app).await["not_dead_because"] == "young").await;
    let sink = shown(&app).await;
    assert_eq!(sink["last_error"], "status 503 Service Unavailable");
    assert!(finhook::clock::parse(sink["last_error_at"].as_str().unwrap()).is_some(), "{sink}");

    accept(&app, &["good"], 1).await;
    eventually("the other is delivered", async || first_deliveries(&receiver.received()).contains_key("good")).await;
    eventually("its progress is written down", async || shown(&app).await["lag"] == 1).await;
    assert_ne!(shown(&app).await["last_error"], serde_json::Value::Null, "one still waits");

    receiver.answer_all(Answer::status(404));
    accept(&app, &["other"], 1).await;
    eventually("it may be the sink's fault", async || shown(&app).await["not_dead_because"] == "others_fail").await;

    receiver.answer_all(Answer::status(200));
    receiver.answer_where("ce-subject", "bad", None);
    eventually("it has recovered", async || shown(&app).await["last_error"].is_null()).await;
    let sink = shown(&app).await;
    assert_eq!((&sink["lag"], &sink["last_error_at"], &sink["not_dead_because"]), (&0.into(), &().into(), &().into()));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_gets_no_more_attempts_a_second_than_its_rate_also_of_a_replay() {
    const EVENTS: u64 = 25;
    let receiver = Receiver::start().await;
    let toml = format!("[sinks.backend]\ntype = \"http\"\nurl = \"{}\"\nrate = 20\n", receiver.url());
    let app = TestApp::start(&toml).await;
    // Of which the first begins at once, and what a slow machine adds only makes it longer.
    let least = Duration::from_secs(1).mul_f64((EVENTS - 1) as f64 / 20.0 * 0.95);
    let began = Instant::now();
    for number in 0..EVENTS {
        app.accept(&event("fin_replied", &format!("c{number}"), number)).await;
    }
    assert_eq!(receiver.wait_for(EVENTS as usize).await.len(), EVENTS as usize);
    assert!(began.elapsed() >= least, "{:?}", began.elapsed());

    let began = Instant::now();
    let (status, replayed) = app
        .admin_post("/api/v1/events/replay", &serde_json::json!({ "sink": "backend", "event": "fin_replied" }))
        .await;
    assert_eq!((status, &replayed["events"]), (200, &EVENTS.into()), "{replayed}");
    receiver.wait_for(2 * EVENTS as usize).await;
    assert!(began.elapsed() >= least, "{:?}", began.elapsed());
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_private_addresses_are_denied_a_name_that_leads_there_gets_no_connection() {
    let receiver = Receiver::start().await;
    let url = receiver.url().replace("127.0.0.1", "localhost");
    let sink =
        format!("[sinks.backend]\ntype = \"http\"\nurl = \"{url}\"\nretry = {{ base = \"20ms\", cap = \"50ms\" }}\n");
    let app = TestApp::start(&format!("egress.deny_private = true\n{sink}")).await;
    app.accept(&event("fin_replied", "c", 1)).await;
    let last_error = async || {
        let (_, answer) = app.admin_get("/api/v1/sinks").await;
        answer["sinks"][0]["last_error"].as_str().unwrap_or_default().to_owned()
    };
    eventually("it is refused", async || last_error().await.contains("egress.deny_private refuses")).await;
    assert_eq!(receiver.connections(), 0);
    // Nothing is lost by that.
    let app = TestApp::start_in(app.stop().await, &sink).await;
    assert_eq!(receiver.wait_for(1).await.len(), 1);
    app.stop().await;
}
