//! Who is let in, what is refused, and what is described.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::app::{TestApp, event, json};
use crate::support::wait::eventually;

/// Every operation below /api/v1, as it is served.
const OPERATIONS: [(&str, &str); 11] = [
    ("get", "/api/v1/events"),
    ("get", "/api/v1/events/{id}"),
    ("post", "/api/v1/events/replay"),
    ("post", "/api/v1/events/purge"),
    ("get", "/api/v1/sinks"),
    ("post", "/api/v1/sinks/{name}/pause"),
    ("post", "/api/v1/sinks/{name}/resume"),
    ("post", "/api/v1/sinks/{name}/retry-dead"),
    ("post", "/api/v1/sinks/{name}/forget"),
    ("get", "/api/v1/openapi.json"),
    ("get", "/api/v1/stream"),
];

async fn call(app: &TestApp, method: &str, path: &str, headers: &[(&str, &str)]) -> (u16, Value) {
    let path = path.replace("{name}", "backend").replace("{id}", "019497c1-10f3-8be9-9813-37ba266bc988");
    let url = format!("http://{}{path}", app.admin());
    let mut request = app.client().request(method.to_uppercase().parse().unwrap(), url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if path.ends_with("/stream") {
        // It has no end: how it begins says enough.
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let text = if status == 200 { String::new() } else { answer.text().await.unwrap() };
        return (status, serde_json::from_str(&text).unwrap_or(Value::Null));
    }
    json(request).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_wants_the_token_and_health_does_not() {
    let app = TestApp::start("admin.token = \"a-token-for-the-admin-API\"").await;
    for (method, path) in OPERATIONS {
        let (status, answer) = call(&app, method, path, &[]).await;
        assert_eq!(status, 401, "{method} {path}: {answer}");
        assert_eq!(answer["status"], 401);
        let (status, _) = call(&app, method, path, &[("authorization", "Bearer a-token-for-the-admin-AP")]).await;
        assert_eq!(status, 401, "{method} {path} with a wrong token");
        let (status, answer) = call(&app, method, path, &[("authorization", "Bearer a-token-for-the-admin-API")]).await;
        assert!(![401, 403, 405].contains(&status), "{method} {path}: {status} {answer}");
    }
    let answer = app.client().get(format!("http://{}/api/v1/sinks", app.admin())).send().await.unwrap();
    assert!(answer.headers()["www-authenticate"].to_str().unwrap().starts_with("Bearer"));
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(app.admin_get(path).await.0, 200, "{path}");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_readers_token_looks_with_bodies_masked_and_changes_nothing() {
    const OPERATOR: (&str, &str) = ("authorization", "Bearer a-token-for-the-admin-API");
    const READER: (&str, &str) = ("authorization", "Bearer a-token-for-looking-only");
    let tokens = "admin.token = \"a-token-for-the-admin-API\"\nadmin.reader_token = \"a-token-for-looking-only\"";
    let app = TestApp::start(tokens).await;
    let id = app.accept(&event("fin_replied", "talk", 4711)).await;
    for (method, path) in OPERATIONS {
        let (status, answer) = call(&app, method, path, &[READER]).await;
        assert_eq!(status == 403, method == "post", "{method} {path}: {status} {answer}");
        assert_ne!(status, 401, "{method} {path}");
    }
    let whole = format!("/api/v1/events/{id}?body=true");
    let (_, seen) = call(&app, "get", &whole, &[OPERATOR]).await;
    assert!(seen["body"].as_str().unwrap().contains("4711") && seen["masked"].is_null(), "{seen}");
    let (_, masked) = call(&app, "get", &whole, &[READER]).await;
    assert_eq!((&masked["masked"], &masked["id"]), (&Value::Bool(true), &seen["id"]));
    let talk = "/api/v1/conversations/talk";
    eventually("the conversation is there", async || call(&app, "get", talk, &[OPERATOR]).await.0 == 200).await;
    let (_, seen) = call(&app, "get", talk, &[OPERATOR]).await;
    assert_eq!(seen["entries"][0]["text"], "4711");
    let (_, talk) = call(&app, "get", talk, &[READER]).await;
    assert_eq!((&talk["entries"][0]["masked"], &talk["entries"][0]["kind"]), (&Value::Bool(true), &"message".into()));
    let stream = app.client().get(format!("http://{}/api/v1/stream?since=1h", app.admin())).header(READER.0, READER.1);
    let mut stream = stream.send().await.unwrap();
    let mut line = String::new();
    while !line.contains("data: ") {
        line.push_str(std::str::from_utf8(&stream.chunk().await.unwrap().unwrap()).unwrap());
    }
    for masked in [masked.to_string(), talk.to_string(), line.clone()] {
        assert!(!masked.contains("<p>") && !masked.contains("number"), "{masked}");
    }
    assert!(talk["entries"][0]["text"].is_null());
    assert!(line.contains("\"subject\":\"talk\"") && line.contains(&id), "{line}");
    drop(stream);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_foreign_origins_can_call_nothing() {
    let app = TestApp::start("").await;
    for (method, path) in OPERATIONS {
        for foreign in [
            ("origin", "https://evil.example"),
            ("origin", "null"),
            ("sec-fetch-site", "cross-site"),
            ("host", "evil.example"),
            ("host", "evil.example:9090"),
        ] {
            let (status, answer) = call(&app, method, path, &[foreign]).await;
            assert_eq!(status, 403, "{method} {path} with {foreign:?}: {answer}");
        }
        let (status, answer) = call(&app, method, path, &[]).await;
        assert!(![401, 403].contains(&status), "{method} {path}: {status} {answer}");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_description_lists_every_operation_and_nothing_else() {
    let app = TestApp::start("").await;
    let (status, description) = app.admin_get("/api/v1/openapi.json").await;

    assert_eq!(status, 200);
    assert_eq!(description["openapi"], "3.1.0");
    let mut described = BTreeSet::new();
    for (path, item) in description["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            described.insert((method.clone(), path.clone()));
            assert!(operation["responses"]["200"].is_object(), "{method} {path} says no 200");
            let (status, answer) = call(&app, method, path, &[]).await;
            assert_ne!(status, 405, "{method} {path} is described, not served: {answer}");
            assert_ne!(answer["detail"], "there is nothing here; /api/v1/openapi.json says what there is", "{path}");
        }
    }
    for (method, path) in OPERATIONS {
        assert!(described.contains(&(method.to_owned(), path.to_owned())), "{method} {path} is not described");
    }
    let schemas = description["components"]["schemas"].as_object().unwrap();
    let states = serde_json::json!(["pending", "retrying", "waiting", "delivered", "dead", "skipped"]);
    assert!(schemas["DeliveryState"].to_string().contains("skipped"), "{}", schemas["DeliveryState"]);
    for state in states.as_array().unwrap() {
        assert!(schemas["DeliveryState"].to_string().contains(state.as_str().unwrap()));
    }
    for name in ["EventPage", "EventItem", "EventDetail", "SinkItem", "Selection", "Problem", "Purged", "Replayed"] {
        assert!(schemas.contains_key(name), "{name} is not described");
    }
    // Nothing is referred to that is not there.
    let text = description.to_string();
    for reference in text.split("#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(schemas.contains_key(name), "{name} is referred to");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_makes_no_sense_is_refused_with_a_reason() {
    let app = TestApp::start("").await;
    for (query, status) in [
        ("limit=0", 400),
        ("limit=1001", 400),
        ("limit=many", 400),
        ("state=lost", 400),
        ("since=yesterday", 400),
        ("until=2026-13-01T00:00:00Z", 400),
        ("conversatoin=1", 400),
        ("sink=nowhere", 404),
        ("cursor=x", 400),
        ("state=purged&user=1", 400),
    ] {
        let (answered, answer) = app.admin_get(&format!("/api/v1/events?{query}")).await;
        assert_eq!(answered, status, "{query}: {answer}");
        assert!(!answer["detail"].as_str().unwrap().is_empty());
    }
    assert_eq!(app.admin_get("/api/v1/events/not-an-id").await.0, 400);
    assert_eq!(app.admin_get("/api/v1/events/019497c1-10f3-8be9-9813-37ba266bc988").await.0, 404);
    assert_eq!(app.admin_get("/api/v1/nothing").await.0, 404);
    assert_eq!(app.admin_get("/api/v1/sinks/backend/pause").await.0, 405);

    let unknown = "019497c1-10f3-8be9-9813-37ba266bc988";
    for (path, body, status) in [
        ("purge", serde_json::json!({}), 400),
        ("purge", serde_json::json!({ "dry_run": true }), 400),
        ("purge", serde_json::json!({ "ids": ["x"] }), 400),
        ("purge", serde_json::json!({ "ids": [unknown], "user": "1" }), 400),
        ("purge", serde_json::json!({ "user": "1", "sink": "nowhere" }), 404),
        ("purge", serde_json::json!({ "everything": true }), 400),
        ("purge", serde_json::json!({ "conversation": null, "state": "dead", "dry_run": true }), 400),
        ("purge", serde_json::json!({ "user": "1", "limit": null, "dry_run": true }), 400),
        ("purge", serde_json::json!({ "ids": [unknown] }), 404),
        ("replay", serde_json::json!({ "user": "1" }), 400),
        ("replay", serde_json::json!({ "user": "1", "sink": "nowhere" }), 404),
    ] {
        let (answered, answer) = app.admin_post(&format!("/api/v1/events/{path}"), &body).await;
        assert_eq!(answered, status, "{path} {body}: {answer}");
    }
    for action in ["pause", "resume", "retry-dead", "forget"] {
        let (status, answer) = app.admin_post(&format!("/api/v1/sinks/nowhere/{action}"), &Value::Null).await;
        assert_eq!(status, 404, "{action}: {answer}");
    }
    let post = app.client().post(format!("http://{}/api/v1/events/purge", app.admin()));
    assert_eq!(json(post.body("{\"user\":\"1\"}")).await.0, 415, "a form's media type");
    let post = app.client().post(format!("http://{}/api/v1/events/purge", app.admin()));
    let (status, _) = json(post.header("content-type", "application/json").body(vec![b' '; 200 * 1024])).await;
    assert_eq!(status, 413);
    app.stop().await;
}
