//! What every screen must be: usable by everybody, in every light, with and without JavaScript, and never somebody else's.

use serde_json::{Value, json};

use super::{OPERATOR, Scene, picture};
use crate::support::browser::{Browser, Look};
use crate::support::wait::eventually;

/// Conversations, a dead letter, a paused sink: something on every screen. The id of the dead letter.
async fn furnish(scene: &Scene) -> String {
    scene.event("fin_status_updated", "order-4711", json!({ "status": "thinking" })).await;
    let html = "<p>Your parcel left our warehouse <b>this morning</b>.</p><ol><li>Open <i>Orders</i>.</li><li>Choose \
                <a href=\"https://shop.example/track\">Track</a>.</li></ol>";
    scene.reply("order-4711", 1, html).await;
    let escalated = json!({ "status": "escalated", "reason": "Escalation requested by user" });
    scene.event("fin_status_updated", "refund-17", escalated).await;
    let id = scene.dead_letter("order-4711").await;
    scene.world.say("/fin/start", "password-1").await;
    scene.knows("password-1").await;
    let pause = scene.world.app.client().post(scene.url("/api/v1/sinks/archive/pause")).bearer_auth(OPERATOR);
    assert!(pause.send().await.unwrap().status().is_success());
    scene.knows("order-4711").await;
    id
}

fn screens(id: &str) -> [(&'static str, String); 9] {
    [
        ("overview", "/".to_owned()),
        ("live", "/live".to_owned()),
        ("events", "/events".to_owned()),
        ("event", format!("/events/{id}")),
        ("conversations", "/conversations".to_owned()),
        ("conversation", "/conversations/order-4711".to_owned()),
        ("sinks", "/sinks".to_owned()),
        ("dead-letters", "/dead-letters".to_owned()),
        ("setup", "/setup".to_owned()),
    ]
}

/// What axe finds that keeps people from using a page, as WCAG 2.2 AA has it.
async fn violations(browser: &Browser, axe: &str) -> Vec<String> {
    browser.run(axe, &[]).await;
    let found = browser
        .run_later(
            "const done = arguments[arguments.length - 1];
             const tags = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'];
             axe.run({ runOnly: tags }).then((found) => done(found.passes.length > 10 ? found.violations : [{ id: 'axe looked at nothing', nodes: [] }]), (error) => done([{ id: String(error), nodes: [] }]));",
        )
        .await;
    let found = found.as_array().unwrap().clone();
    found
        .iter()
        .map(|one| {
            let nodes: Vec<String> = one["nodes"]
                .as_array()
                .unwrap()
                .iter()
                .map(|node| format!("{} {}", node["html"], node["failureSummary"]))
                .collect();
            format!("{}: {}", one["id"], nodes.join("; "))
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn axe_finds_nothing_on_any_screen_in_any_light_and_on_a_phone() {
    let axe = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpora/node_modules/axe-core/axe.min.js");
    let axe = std::fs::read_to_string(axe).expect("tests/run fetches axe");
    let scene = Scene::start(50.0).await;
    let id = furnish(&scene).await;
    let (light, dark, phone) =
        (Look::default(), Look { dark: true, ..Look::default() }, Look { width: 390, ..Look::default() });
    for (how, look) in [("light", light), ("dark", dark), ("phone", phone)] {
        let browser = Browser::start(look).await;
        browser.go(&scene.url("/log-in")).await;
        assert_eq!(violations(&browser, &axe).await, [""; 0], "log-in, {how}");
        scene.log_in(&browser, OPERATOR).await;
        let scheme = browser.run("return matchMedia('(prefers-color-scheme: dark)').matches", &[]).await;
        assert_eq!(scheme, json!(how == "dark"));
        for (name, path) in screens(&id) {
            browser.go(&scene.url(&path)).await;
            if name == "live" {
                browser.shows("fin_replied").await;
            }
            assert_eq!(violations(&browser, &axe).await, [""; 0], "{name}, {how}");
            let wider = browser.run("return document.documentElement.scrollWidth - innerWidth", &[]).await;
            assert!(wider.as_i64() <= Some(0), "{name}, {how}: it is {wider} wider than the screen");
            browser.picture(&picture(&format!("console-{name}-{how}.png"))).await;
        }
        browser.go(&scene.url("/events?state=dead")).await;
        browser.click("input[value=all]").await;
        browser.click("button[value=purge]").await;
        browser.shows("Type 1 to purge").await;
        assert_eq!(violations(&browser, &axe).await, [""; 0], "confirmation, {how}");
        if how != "phone" {
            browser.press("?").await;
            browser.go(&scene.url("/sinks")).await;
            browser.press("?").await;
            browser.shows("Turn keys off in this browser").await;
            assert_eq!(violations(&browser, &axe).await, [""; 0], "keys, {how}");
        }
        browser.quit().await;
    }
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_javascript_everything_works_but_what_is_live() {
    let scene = Scene::start(50.0).await;
    let id = furnish(&scene).await;
    let browser = Browser::start(Look { javascript: false, ..Look::default() }).await;
    scene.log_in(&browser, OPERATOR).await;
    for (name, path) in screens(&id) {
        browser.go(&scene.url(&path)).await;
        let text = browser.text().await;
        let wanted = match name {
            "live" => "This page needs JavaScript",
            "overview" => "archive is paused",
            "events" => "csat_requested",
            "event" => "status 422",
            "conversations" => "refund-17",
            "conversation" => "Your parcel left our warehouse this morning.",
            "sinks" => "Retry dead letters",
            "dead-letters" => "rejected",
            _ => "Configuration",
        };
        assert!(text.contains(wanted), "{name}: {text}");
        assert!(!text.contains("Keys"), "{name}: what needs a script is not offered");
    }
    // Filters, pages, and changes.
    browser.go(&scene.url("/events")).await;
    browser.type_in("#filter-conversation", "refund-17").await;
    browser.click(".filter button").await;
    browser.is_at("/events?conversation=refund-17&").await;
    assert!(!browser.text().await.contains("csat_requested"));
    scene.backend.answer_where("ce-type", "com.intercom.csat_requested", None);
    browser.go(&scene.url("/dead-letters")).await;
    browser.click("form[action='/sinks/backend/retry-dead'] button").await;
    browser.shows("1 event will be tried again.").await;
    browser.go(&scene.url(&format!("/events/{id}"))).await;
    browser.click("button[value=purge]").await;
    browser.type_in("#typed", "1").await;
    browser.click(".confirm button").await;
    browser.shows("1 event purged.").await;
    browser.quit().await;
    scene.stop().await;
}

/// Would be seen if it ran, and would break out of wherever it is put.
const EVIL: &str = "\"'></textarea></script><script>document.title='evil'</script><img src=x onerror=\"document.title='evil'\">{{7*7}}\u{202e}";

#[tokio::test(flavor = "multi_thread")]
async fn script_in_any_field_that_is_shown_never_runs() {
    let scene = Scene::start(50.0).await;
    let refused = crate::support::receiver::Answer::status(422).body(EVIL);
    scene.backend.answer_where("ce-type", "com.intercom.csat_requested", Some(refused));
    scene.dead_letter(EVIL).await;
    let message = json!({ "id": EVIL, "author": EVIL, "body": format!("<p>before</p>{EVIL}<a href=\"javascript:document.title='evil'\">go</a>") });
    let more = json!({ "user_id": EVIL, "status": EVIL, "reason": EVIL, "message": message });
    let id = scene.event("fin_replied", EVIL, more.clone()).await;
    let named = scene.event(EVIL, EVIL, more.clone()).await;
    scene.event("fin_status_updated", EVIL, more).await;
    let quoted = url::form_urlencoded::byte_serialize(EVIL.as_bytes()).collect::<String>().replace('+', "%20");
    scene.knows(&quoted).await;
    let browser = Browser::start(Look::default()).await;
    scene.log_in(&browser, OPERATOR).await;
    let paths = [
        "/".to_owned(),
        "/live".to_owned(),
        "/events".to_owned(),
        format!("/events/{id}"),
        format!("/events/{named}"),
        "/conversations".to_owned(),
        format!("/conversations/{quoted}"),
        "/sinks".to_owned(),
        "/dead-letters".to_owned(),
        "/setup".to_owned(),
    ];
    let in_queries = ["conversation", "user", "event", "status", "sink", "state", "since", "until", "cursor", "done"]
        .map(|name| format!("/events?{name}={quoted}"));
    let more = [
        "/conversations?prefix",
        "/conversations?state",
        "/conversations?cursor",
        "/live?conversation",
        "/live?event",
        "/dead-letters?sink",
        "/log-in?next",
    ]
    .map(|path| format!("{path}={quoted}"));
    for path in paths.iter().chain(&in_queries).chain(&more) {
        browser.go(&scene.url(path)).await;
        if path == "/live" {
            browser.shows("fin_replied").await;
        }
        let title = browser.run("return document.title", &[]).await;
        assert!(title != json!("evil"), "{path}: it ran");
        let injected = "return [...document.querySelectorAll('main img, main script, main iframe, main object, [onerror], [onclick], a[href^=\"javascript:\"]')].length";
        assert_eq!(browser.run(injected, &[]).await, json!(0), "{path}");
    }
    // And where a change leads.
    browser.go(&scene.url(&format!("/conversations/{quoted}"))).await;
    browser.shows("before").await;
    browser.click("button[value=purge]").await;
    browser.shows("Their bytes are removed").await;
    assert_ne!(browser.run("return document.title", &[]).await, json!("evil"));
    assert_eq!(browser.run("return document.querySelectorAll('main img').length", &[]).await, json!(0));
    browser.quit().await;
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_live_page_shows_what_comes_and_can_be_paused() {
    let scene = Scene::start(2.0).await;
    let browser = Browser::start(Look::default()).await;
    scene.log_in(&browser, OPERATOR).await;
    browser.go(&scene.url("/live")).await;
    browser.shows("Live").await;
    let id = scene.reply("talk-1", 1, "<p>Hello</p>").await;
    browser.shows("talk-1").await;
    scene.world.say("/fin/start", "talk-2").await;
    let growing = "const row = document.querySelector('.writing-row'); return row ? row.lastChild.textContent : ''";
    let mut seen = Vec::<String>::new();
    eventually("the words grow in place", async || {
        let words = browser.run(growing, &[]).await.as_str().unwrap().to_owned();
        if !words.is_empty() && seen.last() != Some(&words) {
            seen.push(words);
        }
        seen.len() >= 3
    })
    .await;
    assert!(seen.windows(2).all(|pair| pair[1].starts_with(&pair[0])), "{seen:?}");
    eventually("the reply takes their place", async || browser.run(growing, &[]).await == json!("")).await;
    browser.press("p").await;
    browser.shows("Paused").await;
    scene.reply("talk-3", 1, "<p>While paused</p>").await;
    assert!(!browser.text().await.contains("talk-3"));
    browser.press("p").await;
    browser.shows("talk-3").await;
    let rows =
        browser.run(&format!("return document.querySelectorAll(\"#live a[href='/events/{id}']\").length"), &[]).await;
    assert_eq!(rows, json!(1), "nothing comes twice");
    let _: Value = rows;
    browser.quit().await;
    scene.stop().await;
}
