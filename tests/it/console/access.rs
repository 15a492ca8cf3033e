//! Who gets in, and what may be done: by plain requests, as no browser would make them.

use reqwest::header::HeaderMap;
use serde_json::json;

use super::{OPERATOR, READER, Scene};
use crate::support::app::TestApp;
use crate::support::browser::{Browser, Look};

const PAGES: [&str; 11] = [
    "/",
    "/live",
    "/events",
    "/events/export",
    "/events/019497c1-10f3-8be9-9813-37ba266bc988",
    "/events/019497c1-10f3-8be9-9813-37ba266bc988/body",
    "/conversations",
    "/conversations/talk",
    "/sinks",
    "/dead-letters",
    "/setup",
];
const CHANGES: [&str; 5] =
    ["/sinks/backend/pause", "/sinks/backend/retry-dead", "/events/plan", "/events/carry-out", "/log-out"];

/// Status, headers and text of an answer; redirects are not followed.
async fn ask(request: reqwest::RequestBuilder) -> (u16, HeaderMap, String) {
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.headers().clone(), answer.text().await.unwrap())
}

/// The session's cookie after a log-in with this token.
async fn session(scene: &Scene, token: &str) -> String {
    let form = format!("token={token}&next=%2Fsinks");
    let (status, headers, _) = ask(scene.world.app.client().post(scene.url("/log-in")).body(form)).await;
    assert_eq!((status, &headers["location"]), (303, &"/sinks".parse().unwrap()));
    let cookie = headers["set-cookie"].to_str().unwrap();
    assert!(cookie.contains("; HttpOnly; SameSite=Strict; Max-Age="), "{cookie}");
    cookie.split(';').next().unwrap().to_owned()
}

/// The CSRF token of a page.
fn csrf(page: &str) -> &str {
    page.split_once("name=\"csrf\" value=\"").and_then(|(_, rest)| rest.split_once('"')).unwrap().0
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_sees_a_page_or_changes_anything_without_a_session_and_its_csrf_token() {
    let scene = Scene::start(50.0).await;
    scene.reply("talk", 1, "<p>secret words</p>").await;
    scene.knows("talk").await;
    let client = scene.world.app.client();
    let cookie = session(&scene, OPERATOR).await;
    for page in PAGES {
        let (status, headers, text) = ask(client.get(scene.url(page))).await;
        assert_eq!((status, text.is_empty()), (303, true), "{page}: {text}");
        assert!(headers["location"].to_str().unwrap().starts_with("/log-in?next="), "{page}");
        let bearer = client.get(scene.url(page)).bearer_auth(OPERATOR);
        assert_eq!(ask(bearer).await.0, 303, "{page}: tokens are for programs, and they have the API");
        for foreign in [("origin", "https://evil.example"), ("sec-fetch-site", "cross-site"), ("host", "evil.example")]
        {
            let request = client.get(scene.url(page)).header("cookie", &cookie).header(foreign.0, foreign.1);
            assert_eq!(ask(request).await.0, 403, "{page} {foreign:?}");
        }
        let (status, headers, text) = ask(client.get(scene.url(page)).header("cookie", &cookie)).await;
        assert!(status == 200 || page.contains("019497c1") && status == 404, "{page}: {status} {text}");
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self';") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(
            (&headers["cache-control"], &headers["x-content-type-options"]),
            (&"no-store".parse().unwrap(), &"nosniff".parse().unwrap())
        );
        let inline = text.contains(" style=") || text.contains(" onclick=") || text.contains("<style");
        assert!(!inline && text.matches("<script").count() <= 1, "{page}: nothing inline");
    }
    let (_, _, sinks) = ask(client.get(scene.url("/sinks")).header("cookie", &cookie)).await;
    let other = session(&scene, OPERATOR).await;
    let (_, _, others) = ask(client.get(scene.url("/sinks")).header("cookie", &other)).await;
    for change in CHANGES {
        let post = || client.post(scene.url(change));
        let right = format!("csrf={}&do=purge&which=all&user=u&typed=0&count=0", csrf(&sinks));
        assert_eq!(ask(post().body(right.clone())).await.0, 303, "{change} without a session");
        for wrong in [String::new(), "csrf=".to_owned(), right.replace(csrf(&sinks), csrf(&others))] {
            let (status, headers, _) = ask(post().header("cookie", &cookie).body(wrong.clone())).await;
            // A log-out that was not meant leads to the overview.
            let refused = status == 403 || change == "/log-out" && headers["location"] == "/";
            assert!(refused, "{change} {wrong:?}: {status}");
        }
        let foreign = post().header("cookie", &cookie).header("origin", "https://evil.example").body(right);
        assert_eq!(ask(foreign).await.0, 403, "{change} from another site");
    }
    assert_eq!(scene.api("/api/v1/sinks").await["sinks"][1]["state"], "running");

    // A session may look at the API, as the live stream is read with it; a change by it is refused.
    assert_eq!(ask(client.get(scene.url("/api/v1/sinks")).header("cookie", &cookie)).await.0, 200);
    assert_eq!(ask(client.post(scene.url("/api/v1/sinks/backend/pause")).header("cookie", &cookie)).await.0, 401);

    let pause = client.post(scene.url("/sinks/backend/pause")).header("cookie", &cookie);
    assert_eq!(ask(pause.body(format!("csrf={}", csrf(&sinks)))).await.0, 303);
    assert_eq!(scene.api("/api/v1/sinks").await["sinks"][1]["state"], "paused");
    let out = client.post(scene.url("/log-out")).header("cookie", &cookie).body(format!("csrf={}", csrf(&sinks)));
    assert_eq!(ask(out).await.1["location"], "/log-in");
    assert_eq!(ask(client.get(scene.url("/sinks")).header("cookie", &cookie)).await.0, 303, "it has ended");
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_sees_no_body_and_is_refused_every_change() {
    let scene = Scene::start(50.0).await;
    let id = scene.reply("talk", 4711, "<p>secret words</p>").await;
    scene.knows("talk").await;
    let browser = Browser::start(Look::default()).await;
    scene.log_in(&browser, READER).await;
    for path in [
        format!("/events/{id}"),
        "/conversations/talk".to_owned(),
        "/events".to_owned(),
        "/sinks".to_owned(),
        "/dead-letters".to_owned(),
        "/live".to_owned(),
    ] {
        browser.go(&scene.url(&path)).await;
        if path == "/live" {
            browser.shows("fin_replied").await;
        }
        let text = browser.text().await;
        assert!(text.contains("Reader: bodies are masked") && !text.contains("secret words"), "{path}: {text}");
        let forms = browser.run("return document.querySelectorAll('main form[method=post]').length", &[]).await;
        assert_eq!(forms, if path == "/events" { json!(1) } else { json!(0) }, "{path}");
        let buttons =
            browser.run("return document.querySelectorAll('main form[method=post] button').length", &[]).await;
        assert_eq!(buttons, json!(0), "{path}");
    }
    let refused = browser
        .run_later(
            "const done = arguments[arguments.length - 1];
             const csrf = document.querySelector('[name=csrf]').value;
             const body = new URLSearchParams({ csrf, do: 'purge', which: 'all', user: 'user-of-talk', count: 1, typed: 1 });
             const all = ['/sinks/backend/pause', '/sinks/backend/retry-dead', '/events/plan', '/events/carry-out'];
             Promise.all(all.map((path) => fetch(path, { method: 'POST', body }).then((answer) => answer.status))).then(done);",
        )
        .await;
    assert_eq!(refused, json!([403, 403, 403, 403]));
    let client = scene.world.app.client();
    let cookie = session(&scene, READER).await;
    let (status, _, lines) = ask(client.get(scene.url("/events/export")).header("cookie", &cookie)).await;
    assert!(status == 200 && lines.contains(&id) && !lines.contains("secret"), "{lines}");
    let bytes = client.get(scene.url(&format!("/events/{id}/body"))).header("cookie", &cookie);
    assert_eq!(ask(bytes).await.0, 404);
    browser.quit().await;
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_exported_is_what_the_filters_mean_with_the_bytes_as_they_came() {
    let scene = Scene::start(50.0).await;
    let mut ids = Vec::new();
    for number in 0..250 {
        ids.push(scene.reply("talk", number, &format!("<p>{number}</p>")).await);
    }
    scene.reply("another", 1, "<p>not this</p>").await;
    let cookie = session(&scene, OPERATOR).await;
    let client = scene.world.app.client();
    let export = client.get(scene.url("/events/export?conversation=talk")).header("cookie", &cookie);
    let (status, headers, text) = ask(export).await;
    assert_eq!((status, headers["content-type"].to_str().unwrap()), (200, "application/x-ndjson"));
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        lines.iter().map(|line| line["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>(),
        ids,
        "oldest first"
    );
    assert_eq!(lines[249]["data"]["message"]["body"], "<p>249</p>");
    let body = client.get(scene.url(&format!("/events/{}/body", ids[0]))).header("cookie", &cookie);
    let (_, headers, body) = ask(body).await;
    assert!(headers["content-disposition"].to_str().unwrap().starts_with("attachment"));
    let shown = scene.api(&format!("/api/v1/events/{}?body=true", ids[0])).await;
    assert_eq!(shown["body"], body.as_str());
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_this_machine_sees_the_pages_and_a_form_of_another_site_changes_nothing() {
    let app = TestApp::start("[sinks.archive]\ntype = \"file\"\npath = \"DIR/events.ndjson\"").await;
    let url = |path: &str| format!("http://{}{path}", app.admin());
    let (status, _, page) = ask(app.client().get(url("/sinks"))).await;
    assert_eq!(status, 200, "{page}");
    let pause = || app.client().post(url("/sinks/archive/pause"));
    assert_eq!(ask(pause()).await.0, 403, "without a CSRF token");
    let body = format!("csrf={}", csrf(&page));
    assert_eq!(ask(pause().header("origin", "https://evil.example").body(body.clone())).await.0, 403);
    assert_eq!(ask(pause().body(body)).await.0, 303);
    assert_eq!(app.admin_get("/api/v1/sinks").await.1["sinks"][0]["state"], "paused");
    app.stop().await;
}
