//! The stand-in for Fin, over real sockets.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode};
use bytes::Bytes;
use finhook::fake_fin::{FORGED_TEXT, Scenario, Settings};
use finhook::fin::{self, Answer, ErrorList};
use finhook::verify::{Keyring, Signature};
use secrecy::SecretString;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::support::SECRET;
use crate::support::fin::{Fake, said};
use crate::support::wait::PATIENCE;

/// One that is much faster than Fin.
fn fast(settings: Settings) -> Fake {
    Fake::start(Settings { speed: 200.0, ..settings })
}

async fn get(fake: &Fake, url: &str) -> (StatusCode, String) {
    let answer = fake.client.get(url).send().await.unwrap();
    (answer.status(), answer.text().await.unwrap())
}

/// The `data:` of each event.
fn data(stream: &str) -> Vec<fin::Event> {
    let lines = stream.lines().filter_map(|line| line.strip_prefix("data: "));
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[derive(Default)]
struct Seen {
    requests: Vec<(Method, HeaderMap, Bytes)>,
    /// How often each body was refused before it is taken.
    refused: HashMap<Bytes, u32>,
}

/// Receives webhooks; refuses each body `refusals` times first.
struct Receiver {
    url: url::Url,
    seen: Arc<Mutex<Seen>>,
    count: watch::Receiver<usize>,
}

impl Receiver {
    async fn start(refusals: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/webhooks/fin", listener.local_addr().unwrap()).parse().unwrap();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (counter, count) = watch::channel(0);
        let take = move |State(seen): State<Arc<Mutex<Seen>>>, method: Method, headers: HeaderMap, body: Bytes| async move {
            let mut seen = seen.lock().unwrap();
            let refused = seen.refused.entry(body.clone()).or_default();
            if method == Method::POST && *refused < refusals {
                *refused += 1;
                return StatusCode::SERVICE_UNAVAILABLE;
            }
            seen.requests.push((method, headers, body));
            counter.send_replace(seen.requests.len());
            StatusCode::OK
        };
        let router = Router::new().fallback(take).with_state(Arc::clone(&seen));
        #[expect(clippy::disallowed_methods, reason = "only this test talks to it")]
        tokio::spawn(axum::serve(listener, router).into_future());
        Self { url, seen, count }
    }

    async fn wait(&mut self, requests: usize) {
        let waited = tokio::time::timeout(PATIENCE, self.count.wait_for(|count| *count >= requests)).await.is_ok();
        assert!(waited, "only {} of {requests} requests came", *self.count.borrow());
    }
}

#[tokio::test]
async fn it_refuses_what_fin_refuses_with_fins_own_errors() {
    let fake = fast(Settings::default());
    let good = said("c1").to_string();
    let base = format!("http://{}", fake.addr);
    let bare = |path: &str| fake.client.post(format!("{base}{path}")).body(good.clone());
    let mut from_someone_else = said("c1");
    from_someone_else["message"]["author"] = json!("fin");
    let mut attached = said("c1");
    attached["attachments"] = json!(vec![json!({"type": "url"}); 11]);
    let rating =
        |conversation: &str, rating: &str| json!({"conversation_id": conversation, "rating": rating}).to_string();
    let cases = [
        (bare("/fin/start").header("intercom-version", "2.14"), 401),
        (bare("/fin/start").header("intercom-version", "2.14").bearer_auth("wrong"), 401),
        (bare("/fin/start").bearer_auth("fake-fin-key"), 400),
        (bare("/fin/start").bearer_auth("fake-fin-key").header("intercom-version", "2.13"), 400),
        (fake.request("/fin/start").body("{"), 400),
        (fake.request("/fin/start").body(r#"{"conversation_id":"c1"}"#), 400),
        (fake.request("/fin/start").body(from_someone_else.to_string()), 400),
        (fake.request("/fin/start").body(attached.to_string()), 400),
        (fake.request("/fin/reply").body(said("never started").to_string()), 400),
        (fake.request("/fin/csat").body(rating("c1", "superb")), 400),
        (fake.request("/fin/csat").body(rating("c1", "good")), 422),
        (fake.request("/fin/other").body("{}"), 404),
    ];
    for (number, (request, status)) in cases.into_iter().enumerate() {
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "case {number}");
        let list: ErrorList = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        assert_eq!((list.kind.as_str(), list.errors.len()), ("error.list", 1), "case {number}");
        assert!(!list.request_id.is_empty());
    }
    fake.stop().await;
}

#[tokio::test]
async fn attributes_beyond_ten_are_reported_as_not_accepted() {
    let fake = fast(Settings::default());
    let mut body = said("c1");
    body["user"]["attributes"] =
        (0..12).map(|n| (format!("a{n:02}"), json!(n))).collect::<serde_json::Map<_, _>>().into();
    let answer = fake.request("/fin/start").body(body.to_string()).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let answer: Answer = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    assert_eq!(answer.errors.unwrap().as_array().unwrap().len(), 2);
    fake.stop().await;
}

#[tokio::test]
async fn a_turn_is_streamed_whole_and_its_token_is_revoked_at_its_end() {
    let fake = fast(Settings { lead: PATIENCE, ..Settings::default() });
    let answer = fake.say("/fin/start", "fin:test:1").await;
    assert_eq!((answer.status.as_deref(), answer.user_id.as_deref()), (Some("thinking"), Some("u1")));
    let url = answer.sse_subscription_url.unwrap();
    assert!(url.contains("channels=fin_agent_api%3Afakeapp%3Afin%3Atest%3A1&accessToken="), "{url}");
    assert!(url.ends_with("&rewind=2m"), "{url}");
    // The body ends by itself, when the turn is over.
    let (status, stream) = get(&fake, &url).await;
    assert_eq!(status, 200);
    let events = data(&stream);
    assert_eq!(events.first().unwrap().status.as_deref(), Some("thinking"));
    assert!(events.iter().any(|event| event.event_name == "fin_reply_chunk"));
    assert!(events.last().unwrap().ends_turn());
    assert_eq!(get(&fake, &url).await.0, 401, "revoked");

    let reply = fake.say("/fin/reply", "fin:test:1").await.sse_subscription_url.unwrap();
    assert!(!reply.contains("rewind"));
    assert_ne!(reply, url, "each turn has a URL of its own");
    fake.stop().await;
}

#[tokio::test]
async fn a_token_opens_its_own_channel_only_and_lives_for_its_time_only() {
    let fake = fast(Settings { token_life: Duration::ZERO, ..Settings::default() });
    let url = fake.say("/fin/start", "c1").await.sse_subscription_url.unwrap();
    assert_eq!(get(&fake, &url).await.0, 401, "expired");
    fake.stop().await;

    let fake = fast(Settings { scenario: Scenario::WebhookOnly, ..Settings::default() });
    assert_eq!(fake.say("/fin/start", "c1").await.sse_subscription_url, None);
    fake.stop().await;

    let fake = fast(Settings { lead: PATIENCE, ..Settings::default() });
    let url = fake.say("/fin/start", "c1").await.sse_subscription_url.unwrap();
    let foreign = url.replace("%3Ac1&", "%3Ac2&");
    assert_ne!(foreign, url);
    assert_eq!(get(&fake, &foreign).await.0, 403);
    fake.stop().await;
}

#[tokio::test]
async fn the_stream_stays_open_past_complete_until_a_rating_is_requested_and_then_it_can_be_given() {
    let fake = fast(Settings { scenario: Scenario::ResolveCsat, lead: PATIENCE, ..Settings::default() });
    let url = fake.say("/fin/start", "c1").await.sse_subscription_url.unwrap();
    let events = data(&get(&fake, &url).await.1);
    let names: Vec<_> = events.iter().map(|event| (event.event_name.as_str(), event.status.as_deref())).collect();
    let end =
        [("fin_status_updated", Some("resolved")), ("fin_status_updated", Some("complete")), ("csat_requested", None)];
    assert_eq!(names[names.len() - 3..], end);
    assert_eq!(events.last().unwrap().csat.as_ref().unwrap().options.len(), 5);
    for _ in 0..2 {
        let rating = json!({"conversation_id": "c1", "rating": "good", "remark": "quick"}).to_string();
        assert_eq!(fake.request("/fin/csat").body(rating).send().await.unwrap().status(), 200, "repeating is safe");
    }
    fake.stop().await;
}

#[tokio::test]
async fn webhooks_come_after_a_head_are_signed_for_real_and_are_retried_in_order() {
    let mut receiver = Receiver::start(2).await;
    let settings = Settings {
        callback: Some(receiver.url.clone()),
        secret: SECRET.to_owned(),
        scenario: Scenario::MultiPart,
        ..Settings::default()
    };
    let fake = fast(settings);
    let url = fake.say("/fin/start", "c1").await.sse_subscription_url.unwrap();
    // thinking, three replies, awaiting_user_reply; and the HEAD.
    receiver.wait(6).await;
    let streamed = data(&get(&fake, &url).await.1);
    fake.stop().await;

    let seen = receiver.seen.lock().unwrap();
    let methods: Vec<_> = seen.requests.iter().map(|(method, ..)| method.as_str()).collect();
    assert_eq!(methods, ["HEAD", "POST", "POST", "POST", "POST", "POST"]);
    let keyring = Keyring::new(&[SecretString::from(SECRET)]);
    let mut times = Vec::new();
    for (_, headers, body) in &seen.requests[1..] {
        assert_eq!(headers["content-type"], "application/json");
        keyring.verify(&Signature::from_headers(headers).unwrap(), body.clone()).unwrap();
        times.push(serde_json::from_slice::<fin::Event>(body).unwrap().created_at_ms.unwrap());
    }
    assert!(times.is_sorted(), "{times:?}");
    assert!(streamed.is_empty(), "the turn was over, its token revoked: {streamed:?}");
}

#[tokio::test]
async fn forged_webhooks_do_not_verify_and_come_between_the_real_ones() {
    let mut receiver = Receiver::start(0).await;
    let settings = Settings {
        callback: Some(receiver.url.clone()),
        secret: SECRET.to_owned(),
        scenario: Scenario::BadSignature,
        ..Settings::default()
    };
    let fake = fast(settings);
    fake.say("/fin/start", "c1").await;
    receiver.wait(7).await;
    fake.stop().await;
    let keyring = Keyring::new(&[SecretString::from(SECRET)]);
    let seen = receiver.seen.lock().unwrap();
    for (_, headers, body) in &seen.requests[1..] {
        let forged = String::from_utf8_lossy(body).contains(FORGED_TEXT);
        let verified = keyring.verify(&Signature::from_headers(headers).unwrap(), body.clone());
        assert_eq!(verified.is_err(), forged);
    }
}
