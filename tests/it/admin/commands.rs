//! The same by command: `finhook events` and `finhook sinks`, the real program as the client.

use serde_json::Value;

use super::{backend, is_at};
use crate::support::app::{TestApp, event};
use crate::support::command::Sandbox;
use crate::support::receiver::{Answer, Receiver};

const TOKEN: &str = "a-token-for-the-admin-API";

/// Where the command finds the admin API, and with what token.
fn client(app: &TestApp, token: &str) -> Sandbox {
    Sandbox::new().var("FINHOOK__ADMIN__BIND", &app.admin().to_string()).var("FINHOOK__ADMIN__TOKEN", token)
}

/// Runs a command that must succeed; its lines as JSON.
fn json(sandbox: &Sandbox, args: &[&str]) -> Vec<Value> {
    let done = sandbox.run(&[args, &["--json"]].concat());
    assert_eq!(done.code, 0, "{args:?}: {}", done.stderr);
    done.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Runs a command that must succeed; what it prints.
fn text(sandbox: &Sandbox, args: &[&str]) -> String {
    let done = sandbox.run(args);
    assert_eq!(done.code, 0, "{args:?}: {}", done.stderr);
    done.stdout
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_operation_by_command() {
    let receiver = Receiver::start().await;
    let app = TestApp::start(&format!("admin.token = \"{TOKEN}\"\n{}", backend(&receiver))).await;
    let finhook = client(&app, TOKEN);
    let id = app.accept(&event("fin_replied", "c1", 1)).await;
    let other = app.accept(&event("csat_requested", "c2", 2)).await;
    receiver.wait_for(2).await;

    let all = json(&finhook, &["events", "list"]);
    assert_eq!(all.iter().map(|event| event["id"].as_str().unwrap()).collect::<Vec<_>>(), [&*other, &*id]);
    let of_one = json(&finhook, &["events", "list", "--conversation", "c1", "--since", "1h", "--state", "stored"]);
    assert_eq!(of_one.len(), 1);
    assert_eq!(json(&finhook, &["events", "list", "--limit", "1"]).len(), 1);
    let table = text(&finhook, &["events", "list"]);
    assert_eq!(table.lines().count(), 3, "a head and two lines:\n{table}");
    assert!(table.contains(&id) && table.contains("fin_replied") && table.contains("CONVERSATION"), "{table}");

    let shown = text(&finhook, &["events", "show", &id]);
    assert!(shown.contains("c1") && shown.contains("backend") && !shown.contains("<p>1</p>"), "{shown}");
    assert!(text(&finhook, &["events", "show", &id, "--body"]).contains("<p>1</p>"));
    assert_eq!(json(&finhook, &["events", "show", &id])[0]["sinks"][0]["sink"], "backend");

    let dry = json(&finhook, &["events", "replay", "--sink", "backend", "--user", "user-of-c1", "--dry-run"]);
    assert_eq!((&dry[0]["events"], &dry[0]["replay"]), (&Value::from(1), &Value::Null));
    let replay = json(&finhook, &["events", "replay", &id, "--sink", "backend"]);
    let received = receiver.wait_for(3).await;
    assert_eq!(received[2].header("finhook-replay"), replay[0]["replay"]);

    assert_eq!(json(&finhook, &["sinks"])[0]["name"], "backend");
    assert!(text(&finhook, &["sinks", "list"]).contains("IN FLIGHT"));
    assert_eq!(json(&finhook, &["sinks", "pause", "backend"])[0]["state"], "paused");
    assert_eq!(json(&finhook, &["sinks", "resume", "backend"])[0]["state"], "running");

    receiver.answer_all(Answer::status(400));
    let bad = app.accept(&event("fin_replied", "c3", 3)).await;
    while json(&finhook, &["sinks"])[0]["dead"] != 1 {}
    receiver.answer_all(Answer::status(200));
    assert_eq!(json(&finhook, &["sinks", "retry-dead", "backend"])[0]["events"], 1);
    while json(&finhook, &["events", "list", "--sink", "backend", "--state", "delivered"]).len() != 3 {}
    assert_eq!(json(&finhook, &["events", "list", "--conversation", "c3"])[0]["id"], *bad);

    assert!(text(&finhook, &["events", "purge", "--conversation", "c1", "--dry-run"]).contains("would be removed"));
    assert_eq!(json(&finhook, &["events", "purge", &id, "--yes"])[0]["events"], 1);
    assert_eq!(json(&finhook, &["events", "show", &id])[0]["state"], "purged");
    assert_eq!(json(&finhook, &["events", "list", "--state", "purged"])[0]["id"], *id);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sink_is_forgotten_by_command() {
    let receiver = Receiver::start().await;
    let app = TestApp::start(&backend(&receiver)).await;
    let id = app.accept(&event("fin_replied", "c1", 1)).await;
    is_at(&app, &id, "backend", "delivered").await;
    let refused = client(&app, "").run(&["sinks", "forget", "backend"]);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("in use"), "{}", refused.stderr);
    let app = TestApp::start_in(app.stop().await, "").await;
    let finhook = client(&app, "");

    assert_eq!(json(&finhook, &["sinks"])[0]["state"], "removed");
    assert!(text(&finhook, &["sinks", "forget", "backend"]).contains("is forgotten"));
    assert_eq!(json(&finhook, &["sinks"]).len(), 0);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_wrong_is_said_in_one_line_with_the_fix() {
    let app = TestApp::start(&format!("admin.token = \"{TOKEN}\"")).await;
    let finhook = client(&app, TOKEN);
    let unknown = "019497c1-10f3-8be9-9813-37ba266bc988";
    let wrong = "a-wrong-token-as-long-as-one";
    let nowhere = Sandbox::new().var("FINHOOK__ADMIN__BIND", "127.0.0.1:1");
    let tls = format!("https://{}", app.admin());
    let refused: [(&Sandbox, &[&str], &str); 7] = [
        (&client(&app, wrong), &["events", "list"], "refuses this token"),
        (&client(&app, ""), &["sinks"], "wants a token"),
        (&nowhere, &["events", "list"], "is finhook running"),
        (&nowhere, &["sinks"], "is finhook running"),
        (&finhook, &["events", "show", unknown], "no event of that id"),
        (&finhook, &["sinks", "--admin", &tls], "it does not speak TLS: use http://"),
        (&finhook, &["sinks", "pause", "nowhere"], "there is no such sink; none is known"),
    ];
    for (sandbox, args, says) in refused {
        let done = sandbox.run(args);
        assert_eq!(done.code, 1, "{args:?}");
        assert!(done.stderr.contains(says), "{args:?}: {}", done.stderr);
        assert_eq!(done.stderr.lines().count(), 1, "{args:?}: {}", done.stderr);
        assert!(!done.stderr.contains(TOKEN) && !done.stderr.contains(wrong), "{}", done.stderr);
        assert_eq!(done.stdout, "");
    }
    for (args, says) in [
        (&["events", "show", "x"][..], "UUID"),
        (&["events", "purge"], "at least one filter"),
        (&["events", "list", "--since", "yesterday"], "since is a time"),
        (&["events", "list", "--state", "lost"], "possible values"),
    ] {
        let done = finhook.run(args);
        assert!(done.code == 2 && done.stderr.contains(says), "{args:?}: {done:?}");
    }
    assert_eq!(finhook.run(&["events", "replay", unknown]).code, 2, "without --sink");
    app.stop().await;
}
