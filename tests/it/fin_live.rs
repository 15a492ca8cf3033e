//! The live stream: resumed without gap or repetition, slow readers and filters.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use bytes::Bytes;
use finhook::config::Inputs;
use finhook::event::Event;
use finhook::journal::{self, Journal};
use finhook::live::{Live, stream};
use finhook::metrics::Metrics;
use finhook::serve::{Limits, Server};
use finhook::verify::{Keyring, Signature, sign};
use futures_util::StreamExt;
use secrecy::SecretString;
use serde_json::{Value, json};
use sse_stream::SseByteStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::support::wait::PATIENCE;

struct Place {
    journal: Journal,
    running: journal::Running,
    live: Live,
    metrics: Arc<Metrics>,
    url: String,
    client: reqwest::Client,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
    _dir: tempfile::TempDir,
}

impl Place {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("finhook.db").into_os_string();
        let vars = vec![("FINHOOK__JOURNAL__PATH".into(), path)];
        let config = Inputs { vars, ..Inputs::default() }.load().unwrap().config;
        let metrics = Arc::new(Metrics::new());
        let journal::Opened { journal, running } = journal::open(&config.journal, Arc::clone(&metrics)).unwrap();
        let live = Live::new(&journal, Arc::clone(&metrics)).unwrap();
        let router = Router::new().route("/stream", get(stream)).with_state(live.clone());
        let limits = Limits::for_operators(Duration::from_secs(5));
        let server = Server::bind(([127, 0, 0, 1], 0).into(), limits).unwrap();
        let url = format!("http://{}/stream", server.addr());
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(async move {
            let stopped = async { drop(stopped.await) };
            server.run(router, stopped).await;
        });
        let client = finhook::outbound::client().unwrap().build().unwrap();
        Self { journal, running, live, metrics, url, client, stop, server, _dir: dir }
    }

    async fn append(&self, number: u64, name: &str, conversation: &str) {
        self.journal.append(event(number, name, conversation)).await.unwrap();
    }

    async fn open(&self, query: &str, last: Option<&str>) -> Reader {
        let mut request = self.client.get(format!("{}{query}", self.url));
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        let events = SseByteStream::new(answer.bytes_stream().boxed()).boxed();
        Reader { events }
    }

    async fn stop(mut self) {
        self.live.close();
        let _ = self.stop.send(());
        tokio::time::timeout(PATIENCE, self.server).await.expect("no reader holds it up").unwrap();
        self.journal.close();
        self.running.ended().await.unwrap();
    }
}

struct Reader {
    events: futures_util::stream::BoxStream<'static, Result<sse_stream::Sse, sse_stream::Error>>,
}

impl Reader {
    /// The next event: its id, if it has one, and its data, if it has any.
    async fn next(&mut self) -> (Option<String>, Option<Value>) {
        let event = tokio::time::timeout(PATIENCE, self.events.next()).await.expect("in time").unwrap().unwrap();
        (event.id, event.data.map(|data| serde_json::from_str(&data).unwrap()))
    }

    /// The next stored event.
    async fn stored(&mut self) -> (u64, Value) {
        loop {
            if let (Some(id), Some(data)) = self.next().await {
                return (id.parse().unwrap(), data);
            }
        }
    }
}

fn event(number: u64, name: &str, conversation: &str) -> Event {
    let created = format!("2026-11-22T10:00:00.{:03}Z", number % 1000);
    let body = json!({"event_name": name, "conversation_id": conversation, "user_id": "u", "number": number,
        "created_at_ms": created});
    let body = Bytes::from(body.to_string());
    let secret = SecretString::from("secret");
    let signature = Signature::parse(sign(&secret, &body).as_bytes()).unwrap();
    let verified = Keyring::new(&[secret]).verify(&signature, body).unwrap();
    Event::receive(verified, "fin".into(), 1_795_000_000_000 + number.cast_signed(), i64::MAX, None, None)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_disconnects_a_hundred_times_sees_each_of_ten_thousand_events_once_and_in_order() {
    const EVENTS: u64 = 10_000;
    const DISCONNECTS: u32 = 100;
    let place = Arc::new(Place::start().await);
    // Connected before the first event, so that all are to come.
    let mut reader = place.open("", None).await;
    let (mut last, greeting) = reader.next().await;
    assert_eq!((last.as_deref(), greeting), (Some("0"), None), "told where it stands");

    let writer = tokio::spawn({
        let place = Arc::clone(&place);
        async move {
            for batch in 0..EVENTS / 100 {
                let numbers = (batch * 100..batch * 100 + 100).map(|number| {
                    let place = Arc::clone(&place);
                    async move { place.append(number, "something", &format!("c{}", number % 7)).await }
                });
                futures_util::future::join_all(numbers).await;
            }
        }
    });
    let mut rng = fastrand::Rng::with_seed(6);
    let (mut seen, mut disconnects) = (Vec::new(), 0);
    let mut until = rng.usize(0..150);
    while seen.len() < EVENTS as usize {
        if disconnects < DISCONNECTS && seen.len() >= until {
            // Whatever was on its way is lost to this client.
            reader = place.open("", last.as_deref()).await;
            disconnects += 1;
            until = seen.len() + rng.usize(0..150);
            // Sometimes cut off before anything has come.
            if rng.bool() {
                continue;
            }
        }
        let (id, data) = reader.next().await;
        last = id.or(last);
        if let Some(data) = data {
            seen.push((last.clone().unwrap().parse::<u64>().unwrap(), data["data"]["number"].as_u64().unwrap()));
        }
    }
    writer.await.unwrap();
    assert_eq!(disconnects, DISCONNECTS);
    assert!(seen.is_sorted_by(|a, b| a.0 < b.0), "in the order of the journal, none twice");
    let mut numbers: Vec<u64> = seen.into_iter().map(|(_, number)| number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..EVENTS).collect::<Vec<_>>(), "each once");
    drop(reader);
    Arc::into_inner(place).unwrap().stop().await;
}

#[tokio::test]
async fn filters_hold_and_what_is_left_out_does_not_come_again() {
    let place = Place::start().await;
    for number in 0..10 {
        let (name, conversation) = if number % 2 == 0 { ("even", "a") } else { ("odd", "b") };
        place.append(number, name, conversation).await;
    }
    let mut reader = place.open("?conversation=a&event=even,other", Some("3")).await;
    let mut numbers = Vec::new();
    for _ in 0..3 {
        let (_, data) = reader.stored().await;
        assert_eq!((&data["type"], &data["subject"]), (&json!("com.intercom.even"), &json!("a")));
        numbers.push(data["data"]["number"].as_u64().unwrap());
    }
    assert_eq!(numbers, [4, 6, 8]);
    // Received at 1795000000000 ms and a millisecond more each.
    let mut since = place.open("?since=2026-11-18T11:06:40.007Z", None).await;
    assert_eq!(since.stored().await.1["data"]["number"], 7);
    assert_eq!(since.stored().await.1["data"]["number"], 8);
    for bad in ["?since=tomorrow", "?colour=red"] {
        let answer = place.client.get(format!("{}{bad}", place.url)).send().await.unwrap();
        assert_eq!(answer.status(), 400, "{bad}");
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
    }
    drop((reader, since));
    place.stop().await;
}

#[tokio::test]
async fn an_id_from_another_journal_does_not_skip_events_that_are_yet_to_come() {
    let place = Place::start().await;
    place.append(0, "something", "a").await;
    let mut reader = place.open("", Some("99999")).await;
    assert_eq!(reader.next().await, (Some("1".to_owned()), None));
    place.append(1, "something", "a").await;
    assert_eq!(reader.stored().await.1["data"]["number"], 1);
    drop(reader);
    place.stop().await;
}

#[tokio::test]
async fn there_is_room_for_so_many_readers_and_a_place_is_given_back() {
    let place = Place::start().await;
    let mut readers = Vec::new();
    for _ in 0..finhook::live::MAX_READERS {
        readers.push(place.open("", None).await);
    }
    let full = place.client.get(&place.url).send().await.unwrap();
    assert_eq!((full.status().as_u16(), full.headers().contains_key("retry-after")), (503, true));
    assert!(place.metrics.encode().contains(&format!("finhook_live_readers {}", finhook::live::MAX_READERS)));
    readers.clear();
    // The server notices that they have gone.
    let free = async {
        while place.metrics.live_readers.get() > 0 {
            place.append(fastrand::u64(..1 << 40), "something", "a").await;
        }
    };
    tokio::time::timeout(PATIENCE, free).await.expect("the places are given back");
    drop(place.open("", None).await);
    place.stop().await;
}
