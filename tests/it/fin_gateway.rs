//! The gateway: what it passes on, what it refuses, and that the API key stays where it is.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use finhook::fake_fin::{Scenario, Settings};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::command::listing;
use crate::support::fin::{Fake, said};
use crate::support::process::{Finhook, Place};
use crate::support::wait::{PATIENCE, until};

const KEY: &str = "api-key-that-must-never-be-seen";
const TOKEN: &str = "token-of-the-callers";

/// A running `finhook serve` with a gateway, whose every output is kept.
struct Served {
    finhook: Finhook,
    folder: tempfile::TempDir,
    gateway: String,
    client: reqwest::Client,
}

impl Served {
    fn start(base_url: &str, vars: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut place = Place::new(folder.path(), "")
            .var("GATEWAY__BIND", "127.0.0.1:0")
            .var("GATEWAY__BASE_URL", base_url)
            .var("GATEWAY__API_KEY", KEY)
            .var("GATEWAY__TOKEN", TOKEN)
            .var("GATEWAY__SSE_HOSTS", "127.0.0.1")
            .var("SINKS__STDOUT__ENABLED", "true")
            .var("LOG__LEVEL", "trace");
        for (name, value) in vars {
            place = place.var(name, value);
        }
        let finhook = place.start();
        let mut line = None;
        until("the gateway listens", || {
            line = finhook.logged("\"gateway\":");
            line.is_some()
        });
        let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let gateway = format!("http://{}", line["gateway"].as_str().unwrap());
        let client = finhook::outbound::client().unwrap().timeout(PATIENCE).build().unwrap();
        Self { finhook, folder, gateway, client }
    }

    fn post(&self, path: &str) -> reqwest::RequestBuilder {
        let request = self.client.post(format!("{}{path}", self.gateway));
        request.bearer_auth(TOKEN).header("content-type", "application/json")
    }

    async fn subscribe(&self, url: &str) -> u16 {
        self.post("/subscriptions").body(json!({"url": url}).to_string()).send().await.unwrap().status().as_u16()
    }

    fn metrics(&self) -> String {
        self.finhook.admin_get("/metrics").body
    }

    /// Ends it, and gives back everything that it has written: log, event lines and files.
    fn end(self) -> Vec<u8> {
        let ended = self.finhook.stop();
        let mut all = [ended.log, ended.printed].concat().join("\n").into_bytes();
        for file in listing(self.folder.path()) {
            if file.is_file() {
                all.extend(std::fs::read(file).unwrap());
            }
        }
        all
    }
}

/// An HTTP server that answers everything in one way, and counts the connections made to it.
async fn server(
    answer: impl Fn(Request) -> Response + Clone + Send + Sync + 'static,
) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    let listener = axum::serve::ListenerExt::tap_io(listener, move |_| {
        count.fetch_add(1, Ordering::SeqCst);
    });
    let router = Router::new().fallback(async move |request: Request| answer(request));
    #[expect(clippy::disallowed_methods, reason = "only this test talks to it")]
    tokio::spawn(axum::serve(listener, router).into_future());
    (addr, connections)
}

fn contains(all: &[u8], part: &str) -> bool {
    all.windows(part.len()).any(|window| window == part.as_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn fins_status_and_body_come_back_unchanged_and_the_callers_headers_stay_behind() {
    let seen: Arc<Mutex<Vec<(String, HeaderMap)>>> = Arc::default();
    let log = Arc::clone(&seen);
    let (fin, _) = server(move |request| {
        log.lock().unwrap().push((request.uri().to_string(), request.headers().clone()));
        let body = "{\"type\":\"error.list\",  \"errors\":[{\"code\":\"x\",\"message\":\"\u{e9}\"}]}\n";
        (StatusCode::IM_A_TEAPOT, [("content-type", "application/json; charset=utf-8"), ("set-cookie", "a=b")], body)
            .into_response()
    })
    .await;
    let served = Served::start(&format!("http://{fin}/base/"), &[]);
    let request = served.post("/fin/procedures/run?x=1").header("cookie", "c=d").header("intercom-version", "Preview");
    let answer = request.body("{}").send().await.unwrap();
    assert_eq!(answer.status(), 418);
    assert_eq!(answer.headers()["content-type"], "application/json; charset=utf-8");
    assert!(!answer.headers().contains_key("set-cookie"));
    let body = answer.text().await.unwrap();
    assert_eq!(body, "{\"type\":\"error.list\",  \"errors\":[{\"code\":\"x\",\"message\":\"\u{e9}\"}]}\n");
    served.post("/fin/start").body("{}").send().await.unwrap();
    let seen = seen.lock().unwrap();
    assert_eq!(seen[0].0, "/base/fin/procedures/run?x=1");
    assert_eq!(seen[0].1["authorization"], format!("Bearer {KEY}"));
    assert_eq!(
        (&seen[0].1["intercom-version"], &seen[1].1["intercom-version"]),
        (&HeaderValue::from_static("Preview"), &HeaderValue::from_static("2.14"))
    );
    assert!(!seen[0].1.contains_key("cookie"));
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_without_the_token_other_paths_and_large_bodies_never_reach_fin() {
    let (fin, connections) = server(|_| "{}".into_response()).await;
    let served = Served::start(&format!("http://{fin}"), &[]);
    let bare = |path: &str| served.client.post(format!("{}{path}", served.gateway)).body("{}");
    for path in ["/fin/start", "/subscriptions"] {
        assert_eq!(bare(path).send().await.unwrap().status(), 401, "{path}");
        assert_eq!(bare(path).bearer_auth("wrong").send().await.unwrap().status(), 401, "{path}");
        assert_eq!(bare(path).bearer_auth(KEY).send().await.unwrap().status(), 401, "{path}");
        let page = bare(path).bearer_auth(TOKEN).header("origin", "https://evil.example");
        assert_eq!(page.send().await.unwrap().status(), 403, "{path}");
    }
    let stream = served.client.get(format!("{}/stream", served.gateway)).send().await.unwrap();
    assert_eq!(stream.status(), 401);
    // By hand: a client would resolve the dots itself.
    for path in [
        "/fin/../contacts",
        "/fin/%2e%2e/contacts",
        "/fin/%252e%252e/contacts",
        "/fin/a%2f..%2fb",
        "/contacts",
        "/fin/",
    ] {
        let mut raw = tokio::net::TcpStream::connect(served.gateway.trim_start_matches("http://")).await.unwrap();
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {TOKEN}\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{{}}"
        );
        tokio::io::AsyncWriteExt::write_all(&mut raw, request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut raw, &mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 404 "), "{path}: {answer}");
    }
    let large = served.post("/fin/start").body(vec![b' '; 1024 * 1024 + 1]).send().await.unwrap();
    assert_eq!(large.status(), 413);
    assert_eq!(connections.load(Ordering::SeqCst), 0, "nothing of it reached Fin");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_fin_is_a_502_with_a_problem_body_and_its_redirects_are_not_followed() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let served = Served::start(&format!("http://{closed}"), &[]);
    let answer = served.post("/fin/start").body("{}").send().await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["content-type"]),
        (502, &HeaderValue::from_static("application/problem+json"))
    );
    let problem: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    assert_eq!((&problem["status"], &problem["title"]), (&json!(502), &json!("Bad Gateway")));

    let (trap, caught) = server(|_| "caught".into_response()).await;
    let location = format!("http://{trap}/");
    let (fin, _) = server(move |_| (StatusCode::FOUND, [("location", location.clone())]).into_response()).await;
    let served = Served::start(&format!("http://{fin}"), &[]);
    assert_eq!(served.post("/fin/start").body("{}").send().await.unwrap().status(), 302);
    let (large, _) = server(|_| Body::from(vec![b'x'; 1024 * 1024 + 1]).into_response()).await;
    let served = Served::start(&format!("http://{large}"), &[]);
    assert_eq!(served.post("/fin/start").body("{}").send().await.unwrap().status(), 502, "bounded both ways");
    assert_eq!(caught.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fin_that_does_not_answer_is_a_504_in_time_and_holds_up_no_other_call() {
    // From the outside, so that this lasts as long as it says: half a minute.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let fin = listener.local_addr().unwrap();
    let answer = async |request: Request| match request.uri().path() {
        "/fin/start" => std::future::pending().await,
        "/fin/reply" => {
            Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>()).into_response()
        }
        _ => "at once".into_response(),
    };
    #[expect(clippy::disallowed_methods, reason = "only this test talks to it")]
    tokio::spawn(axum::serve(listener, Router::new().fallback(answer)).into_future());
    let served = Served::start(&format!("http://{fin}"), &[]);
    let began = Instant::now();
    let late = async |path: &str| {
        let answer = served.post(path).body("{}").send().await.unwrap();
        let (status, kind) = (answer.status().as_u16(), answer.headers()["content-type"].clone());
        let problem: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        assert_eq!((status, kind), (504, HeaderValue::from_static("application/problem+json")), "{path}");
        assert_eq!((&problem["status"], &problem["title"]), (&json!(504), &json!("Gateway Timeout")), "{path}");
        began.elapsed()
    };
    let other = async {
        assert_eq!(served.post("/fin/csat").body("{}").send().await.unwrap().text().await.unwrap(), "at once");
        began.elapsed()
    };
    let (head, body, other) = tokio::join!(late("/fin/start"), late("/fin/reply"), other);
    assert!(other < head.min(body), "it waited for the others");
    assert!(head.min(body) > Duration::from_secs(25) && head.max(body) < PATIENCE, "{head:?} {body:?}");
    assert_eq!(served.post("/fin/csat").body("{}").send().await.unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_not_allowed_is_refused_before_a_connection_is_made() {
    let (trap, caught) = server(|_| "caught".into_response()).await;
    let there = format!("http://{trap}/");
    let (allowed, asked) =
        server(move |_| (StatusCode::TEMPORARY_REDIRECT, [("location", there.clone())]).into_response()).await;
    let vars = [("GATEWAY__SSE_HOSTS", &*allowed.to_string()), ("GATEWAY__APP_ID", "app1")]
        .map(|(name, value)| (name, value.to_owned()));
    let vars: Vec<(&str, &str)> = vars.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let served = Served::start("http://127.0.0.1:9", &vars);
    let url = |origin: &str, app: &str| {
        format!("{origin}/event-stream?channels=fin_agent_api:{app}:c1&accessToken=secret-access-token")
    };
    for bad in [
        url(&format!("http://{trap}"), "app1"),
        url(&format!("http://localhost:{}", trap.port()), "app1"),
        url(&format!("http://127.0.0.1:{}@{trap}", allowed.port()), "app1"),
        url("https://nexus.intercom-messenger.com", "app1"),
        url("http://nexus.intercom-messenger.com", "app1"),
        url(&format!("http://{allowed}"), "another"),
        format!("http://{allowed}/event-stream?accessToken=x"),
        "not a url".to_owned(),
    ] {
        assert_eq!(served.subscribe(&bad).await, 422, "{bad}");
    }
    assert_eq!(served.post("/subscriptions").body("{").send().await.unwrap().status(), 400);
    assert_eq!(asked.load(Ordering::SeqCst), 0, "refused without a connection");
    // An allowed host that redirects to one that is not.
    assert_eq!(served.subscribe(&url(&format!("http://{allowed}"), "app1")).await, 202);
    let refused = "finhook_sse_streams_total{state=\"refused\"} 1";
    until("the stream is refused", || served.metrics().contains(refused));
    assert_eq!((asked.load(Ordering::SeqCst), caught.load(Ordering::SeqCst)), (1, 0), "not followed");
    assert!(!contains(&served.end(), "secret-access-token"), "URLs are credentials");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_key_and_the_callers_token_are_in_no_log_error_metric_answer_or_file() {
    let settings = Settings {
        api_key: KEY.to_owned(),
        scenario: Scenario::Streaming,
        lead: PATIENCE,
        speed: 100.0,
        ..Settings::default()
    };
    let fake = Fake::start(settings);
    let served = Served::start(&format!("http://{}", fake.addr), &[]);
    let mut answers = Vec::new();
    let bodies =
        [said("c1").to_string(), "{".to_owned(), json!({"conversation_id": "c1", "rating": "good"}).to_string()];
    for (path, body) in ["/fin/start", "/fin/start", "/fin/csat"].into_iter().zip(bodies) {
        let answer = served.post(path).body(body).send().await.unwrap();
        answers.extend(format!("{} {:?}", answer.status(), answer.headers()).into_bytes());
        answers.extend(answer.bytes().await.unwrap());
    }
    let closed = "finhook_sse_streams_total{state=\"closed\"} 1";
    until("the stream ends", || served.metrics().contains(closed));
    answers.extend(served.metrics().into_bytes());
    // Fin gone, and Fin giving the key away.
    fake.stop().await;
    let answer = served.post("/fin/start").body("{}").send().await.unwrap();
    assert_eq!(answer.status(), 502);
    answers.extend(answer.bytes().await.unwrap());
    answers.extend(served.end());

    let (echo, _) = server(|request| {
        let key = request.headers()["authorization"].to_str().unwrap().to_owned();
        Body::from(Bytes::from(format!("you sent {key}"))).into_response()
    })
    .await;
    let served = Served::start(&format!("http://{echo}"), &[]);
    let answer = served.post("/fin/start").body("{}").send().await.unwrap();
    assert_eq!(answer.status(), 502);
    answers.extend(answer.bytes().await.unwrap());
    let refused =
        served.client.post(format!("{}/fin/start", served.gateway)).bearer_auth("wrong").send().await.unwrap();
    answers.extend(refused.bytes().await.unwrap());
    answers.extend(served.end());
    assert!(contains(&answers, "listening") && contains(&answers, "fin_replied"), "something was written at all");
    for secret in [KEY, TOKEN, "the-signing-secret"] {
        assert!(!contains(&answers, secret), "{secret}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_another_conversation_in_a_stream_is_stored_warned_of_and_counted() {
    let (fin, _) = server(|_| {
        let event = |conversation: &str, status: &str| {
            json!({"event_name": "fin_status_updated", "conversation_id": conversation, "status": status}).to_string()
        };
        let text = format!("data: {}\n\ndata: {}\n\n", event("other", "thinking"), event("c1", "complete"));
        ([("content-type", "text/event-stream")], text).into_response()
    })
    .await;
    let served = Served::start("http://127.0.0.1:1", &[("GATEWAY__APP_ID", "app")]);
    let url = format!("http://{fin}/s?channels=fin_agent_api:app:c1&accessToken=t");
    assert_eq!(served.subscribe(&url).await, 202);
    until("both are stored", || served.metrics().contains("event=\"fin_status_updated\"} 2"));
    assert!(served.metrics().contains("finhook_sse_foreign_total 1\n"), "{}", served.metrics());
    let log = served.finhook.logged("another conversation than its channel names").unwrap();
    assert!(log.contains("\"other\"") && log.contains("\"c1\"") && log.contains("WARN"), "{log}");
}
