//! What an operator does in a day.

use serde_json::json;

use super::{OPERATOR, Scene, picture};
use crate::support::browser::{Browser, Look};
use crate::support::wait::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_follows_a_conversation_retries_a_dead_letter_and_purges_a_person() {
    let scene = Scene::start(1.0).await;
    let browser = Browser::start(Look::default()).await;

    // Logging in: not with any token.
    browser.go(&scene.url("/dead-letters")).await;
    browser.is_at("/log-in?next=").await;
    browser.type_in("#token", "not-the-token").await;
    browser.click("button[type=submit]").await;
    browser.shows("That is not the token.").await;
    browser.type_in("#token", OPERATOR).await;
    browser.click("button[type=submit]").await;
    browser.is_at("/dead-letters").await;
    let cookie = browser.run("return document.cookie", &[]).await;
    assert_eq!(cookie, "", "scripts don't see the session");

    // A conversation of the stand-in, as it comes.
    scene.reply("talk-1", 1, "<p>Hello! How can I help?</p>").await;
    scene.knows("talk-1").await;
    browser.go(&scene.url("/conversations/talk-1")).await;
    browser.shows("How can I help?").await;
    scene.world.say("/fin/start", "talk-1").await;
    browser.shows("fin is writing").await;
    browser.picture(&picture("console-writing.png")).await;
    eventually("the whole reply is shown, and nothing is being written", async || {
        let messages = "return document.querySelectorAll('.transcript .message').length";
        let writing = "return document.querySelectorAll('.writing').length";
        browser.run(messages, &[]).await.as_u64() > Some(1) && browser.run(writing, &[]).await == json!(0)
    })
    .await;
    browser.shows("✓ backend").await;

    // A dead letter: found by keys, retried, delivered.
    let id = scene.dead_letter("talk-2").await;
    browser.go(&scene.url("/")).await;
    browser.shows("1 dead letter at backend").await;
    browser.press("gd").await;
    browser.is_at("/dead-letters").await;
    browser.shows("status 422").await;
    browser.press("j\u{e007}").await;
    browser.is_at(&format!("/events/{id}")).await;
    browser.shows("status 422").await;
    scene.backend.answer_where("ce-type", "com.intercom.csat_requested", None);
    browser.press("gd").await;
    browser.is_at("/dead-letters").await;
    browser.press("r").await;
    browser.shows("1 event will be tried again.").await;
    eventually("it is delivered", async || {
        browser.go(&scene.url(&format!("/events/{id}"))).await;
        !browser.text().await.contains("dead") && browser.text().await.contains("delivered")
    })
    .await;

    // A sink is paused and resumed.
    browser.press("gs").await;
    browser.is_at("/sinks").await;
    browser.click("form[action='/sinks/backend/pause'] button").await;
    browser.shows("The sink is paused.").await;
    browser.shows("paused").await;
    browser.click("form[action='/sinks/backend/resume'] button").await;
    browser.shows("The sink is resumed.").await;

    // A person is purged: only by who types how many that are.
    scene.knows("talk-2").await;
    browser.go(&scene.url("/conversations/talk-2")).await;
    browser.click("button[value=purge]").await;
    browser.shows("Their bytes are removed").await;
    browser.type_in("#typed", "12").await;
    browser.click(".confirm button").await;
    browser.shows("nothing was done").await;
    browser.type_in("#typed", "1").await;
    browser.click(".confirm button").await;
    browser.shows("1 event purged.").await;
    assert_eq!(scene.api(&format!("/api/v1/events/{id}")).await["state"], "purged");

    // All that match: replayed to the file.
    browser.go(&scene.url("/events?conversation=talk-1&event=fin_replied")).await;
    browser.click("input[value=all]").await;
    browser.run("document.querySelector('#to').value = 'archive'", &[]).await;
    browser.click("button[value=replay]").await;
    browser.shows("They are sent to archive again").await;
    browser.type_in("#typed", "2").await;
    browser.click(".confirm button").await;
    browser.shows("2 events will be sent again.").await;

    browser.click("form[action='/log-out'] button").await;
    browser.is_at("/log-in").await;
    browser.go(&scene.url("/sinks")).await;
    browser.is_at("/log-in").await;
    browser.quit().await;
    scene.stop().await;
}
