//! The stand-in for Fin, gateway, event streams and webhooks at once, over real sockets.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use finhook::fake_fin::{FORGED_TEXT, Scenario, Settings, Turn, script};
use finhook::fin::{self, Event};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::support::fin::World;

const CHUNK: &str = "com.intercom.fin_reply_chunk";
const TEXT: &str = "How do I reset my password?";

/// What a turn of a scenario should store, as far as it does not depend on the time.
fn expected(scenario: Scenario, conversation: &str, number: u32, seed: u64) -> Vec<String> {
    let script = script(scenario, Turn { conversation, user: "u1", text: TEXT, number, start_ms: 0 }, seed);
    let stored = script.steps.iter().filter(|step| step.event.event_name != fin::REPLY_CHUNK);
    stored.map(|step| known_by(&step.event)).collect()
}

fn known_by(event: &Event) -> String {
    let message = event.message.as_ref().map(|message| (&message.id, &message.body));
    format!("{} {:?} {:?} {message:?}", event.event_name, event.status, event.reason)
}

/// The stored events of a conversation.
fn of(stored: &[Value], conversation: &str) -> Vec<String> {
    let lines = stored.iter().filter(|line| line["subject"] == conversation);
    lines.map(|line| known_by(&serde_json::from_value(line["data"].clone()).unwrap())).collect()
}

/// Plays a scenario, with webhooks and event stream at once, and checks all that was promised of it.
async fn play(scenario: Scenario, seed: u64) {
    let conversation = "fin:test:1";
    // The inactivity message of this one comes after two minutes.
    let speed = if scenario == Scenario::WebhookOnly { 400.0 } else { 4.0 };
    let world = World::start(Settings { scenario, seed, speed, ..Settings::default() }, true).await;
    let mut live = world.live("?conversation=fin:test:1", None).await;
    let answer = world.say("/fin/start", conversation).await;
    assert_eq!(answer.sse_subscription_url.is_some(), scenario.streams());

    let script = script(scenario, Turn { conversation, user: "u1", text: TEXT, number: 0, start_ms: 0 }, seed);
    let forged = script.webhooks.iter().filter(|webhook| webhook.forged).count() as u64;
    let posted: u64 = script.webhooks.iter().map(|webhook| 1 + u64::from(webhook.repeats)).sum();
    // Once each webhook has been answered and the event stream has ended, nothing more can come.
    world.reached("finhook_requests_total{endpoint=\"fin\",outcome=\"unauthenticated\"}", forged).await;
    world.reached("finhook_requests_total{", posted).await;
    if scenario.streams() {
        // One that breaks off at the very end of a turn finds its token revoked, and counts as lost.
        let how = if scenario == Scenario::Flaky { "" } else { "state=\"closed\"}" };
        world.reached(&format!("finhook_sse_streams_total{{{how}"), 1).await;
    }
    let stored = world.stored().await;
    let expected = expected(scenario, conversation, 0, seed);
    assert_eq!(of(&stored, conversation), expected, "{scenario:?}: each once, in order");
    assert_eq!(stored.len(), expected.len(), "{scenario:?}: nothing else");
    assert!(stored.iter().all(|line| line["type"] != CHUNK), "{scenario:?}: no chunk is stored");
    assert!(stored.iter().all(|line| !line.to_string().contains(FORGED_TEXT)), "{scenario:?}");
    let source = |line: &Value| line["source"] == "/finhook/endpoints/fin";
    assert!(stored.iter().all(source), "{scenario:?}: the same source by both ways");

    // What the reader saw meanwhile: every stored event, and chunks that came before their reply.
    let (mut seen, mut chunks, mut replied) = (Vec::new(), 0, Vec::new());
    while seen.len() < expected.len() {
        let (id, line) = live.next().await;
        let event: Event = serde_json::from_value(line["data"].clone()).unwrap();
        if line["type"] == CHUNK {
            assert_eq!(id, None, "{scenario:?}");
            assert!(!replied.contains(&event.stream_id), "{scenario:?}: a chunk after its reply");
            chunks += 1;
        } else {
            assert!(id.is_some());
            if event.event_name == fin::REPLIED {
                replied.push(event.stream_id.clone());
            }
            seen.push(known_by(&event));
        }
    }
    assert_eq!(seen, expected, "{scenario:?}");
    let streamed = script.steps.iter().any(|step| step.event.event_name == fin::REPLY_CHUNK);
    assert!(streamed || chunks == 0, "{scenario:?}");
    drop(live);
    world.stop().await;
}

/// Lets events of an event stream through one by one, each when the test says so.
async fn gate(target: Arc<Mutex<Option<SocketAddr>>>, go: Arc<Semaphore>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.ok()?;
        let target = target.lock().unwrap().unwrap();
        let mut server = TcpStream::connect(target).await.ok()?;
        let (mut from_client, mut to_client) = client.split();
        let (mut from_server, mut to_server) = server.split();
        let down = async {
            let (mut block, mut greeted) = (Vec::new(), false);
            loop {
                block.push(from_server.read_u8().await.ok()?);
                if !block.ends_with(b"\n\n") {
                    continue;
                }
                if greeted {
                    go.acquire().await.ok()?.forget();
                }
                greeted = true;
                to_client.write_all(&block).await.ok()?;
                block.clear();
            }
        };
        tokio::select! {
            done = down => done,
            _ = tokio::io::copy(&mut from_client, &mut to_server) => None::<()>,
        }
    });
    addr
}

#[tokio::test(flavor = "multi_thread")]
async fn each_chunk_is_seen_live_as_it_comes_and_its_reply_after_it() {
    let (target, go) = (Arc::new(Mutex::new(None)), Arc::new(Semaphore::new(0)));
    let addr = gate(Arc::clone(&target), Arc::clone(&go)).await;
    let stream_base = Some(format!("http://{addr}"));
    let scenario = Scenario::MultiPart;
    let world = World::start(Settings { scenario, stream_base, speed: 200.0, ..Settings::default() }, false).await;
    *target.lock().unwrap() = Some(world.fake.addr);
    let mut live = world.live("?conversation=c1", None).await;
    world.say("/fin/start", "c1").await;
    let turn = Turn { conversation: "c1", user: "u1", text: TEXT, number: 0, start_ms: 0 };
    for step in script(scenario, turn, 1).steps {
        go.add_permits(1);
        let (id, line) = live.next().await;
        let seen: Event = serde_json::from_value(line["data"].clone()).unwrap();
        assert_eq!((known_by(&seen), &seen.chunk_text), (known_by(&step.event), &step.event.chunk_text));
        assert_eq!(id.is_none(), step.event.event_name == fin::REPLY_CHUNK);
    }
    assert!(world.stored().await.iter().all(|line| line["type"] != CHUNK));
    assert_eq!(world.metric("finhook_sse_chunk_gaps_total"), 0);
    drop(live);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_scenario_ends_in_the_expected_stored_events_once_each_in_order() {
    futures_util::future::join_all(Scenario::ALL.map(|scenario| play(scenario, 11))).await;
}

/// Stands between the gateway and the event streams. The first connection of conversation `kill-N` breaks off behind
/// its Nth event, or behind the greeting; all others pass.
struct Breaker {
    addr: SocketAddr,
    target: Arc<Mutex<Option<SocketAddr>>>,
    connections: Arc<Mutex<HashMap<String, u32>>>,
}

impl Breaker {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let target = Arc::new(Mutex::new(None));
        let connections = Arc::new(Mutex::new(HashMap::new()));
        let (to, count) = (Arc::clone(&target), Arc::clone(&connections));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let target = to.lock().unwrap().unwrap();
                tokio::spawn(relay(client, target, Arc::clone(&count)));
            }
        });
        Self { addr, target, connections }
    }
}

async fn relay(mut client: TcpStream, target: SocketAddr, count: Arc<Mutex<HashMap<String, u32>>>) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.ok()?);
    }
    let text = String::from_utf8(head.clone()).unwrap();
    let name = text.split("kill-").nth(1)?.split('&').next()?.to_owned();
    let first = {
        let mut count = count.lock().unwrap();
        let entry = count.entry(name.clone()).or_default();
        *entry += 1;
        // Each URL, so each turn, is broken off once: they have different tokens.
        let token = text.split("accessToken=").nth(1)?.split([' ', '&']).next()?.to_owned();
        let seen = count.entry(token).or_default();
        *seen += 1;
        *seen == 1
    };
    let mut left = if first { name.parse().unwrap() } else { usize::MAX };
    let mut server = TcpStream::connect(target).await.ok()?;
    server.write_all(&head).await.ok()?;
    let (mut buffer, mut last) = ([0; 4096], b' ');
    let mut greeted = false;
    loop {
        if greeted && left == 0 {
            return None;
        }
        let length = server.read(&mut buffer).await.ok().filter(|length| *length > 0)?;
        for (at, byte) in buffer[..length].iter().enumerate() {
            let ended = *byte == b'\n' && last == b'\n';
            last = *byte;
            if !ended {
                continue;
            }
            // The greeting is a block of its own; each event one more.
            left = if greeted { left.saturating_sub(1) } else { left };
            greeted = true;
            if left == 0 {
                client.write_all(&buffer[..=at]).await.ok()?;
                return None;
            }
        }
        client.write_all(&buffer[..length]).await.ok()?;
    }
}

/// Kills the event stream at every event of a scenario, a conversation for each, all at once.
async fn kill_at_every_event(scenario: Scenario, webhooks: bool, turns: u32) {
    let seed = 5;
    let breaker = Breaker::start().await;
    let stream_base = Some(format!("http://{}", breaker.addr));
    // Without webhooks nothing can bring the end of a turn whose token is revoked at once.
    let linger = if webhooks { Duration::ZERO } else { Duration::from_secs(2) };
    let settings = Settings { scenario, seed, speed: 3.0, stream_base, linger, ..Settings::default() };
    let world = World::start(settings, webhooks).await;
    *breaker.target.lock().unwrap() = Some(world.fake.addr);

    let turn = Turn { conversation: "kill-0", user: "u1", text: TEXT, number: 0, start_ms: 0 };
    let steps = script(scenario, turn, seed).steps.len();
    let conversations: Vec<String> = (0..=steps).map(|at| format!("kill-{at}")).collect();
    for number in 0..turns {
        for conversation in &conversations {
            world.say(if number == 0 { "/fin/start" } else { "/fin/reply" }, conversation).await;
        }
        let so_far = (u64::from(number) + 1) * conversations.len() as u64;
        world.reached("finhook_sse_streams_total{", so_far).await;
        if webhooks {
            let sent: usize = conversations.iter().map(|id| expected(scenario, id, 0, seed).len()).sum();
            world.reached("finhook_requests_total{", (number as u64 + 1) * sent as u64).await;
        }
    }
    let stored = world.stored().await;
    for conversation in &conversations {
        let mut expected: Vec<String> =
            (0..turns).flat_map(|number| expected(scenario, conversation, number, seed)).collect();
        let mut found = of(&stored, conversation);
        if turns > 1 {
            // Without a rewind the stream skips what came while it was broken off, and webhooks bring it later.
            expected.sort();
            found.sort();
        }
        assert_eq!(found, expected, "{scenario:?} {conversation}: nothing missing, nothing twice");
    }
    let connections = breaker.connections.lock().unwrap().clone();
    let again = conversations.iter().filter(|id| connections[id.trim_start_matches("kill-")] > turns).count();
    assert!(again >= steps, "the streams were opened again: {connections:?}");
    assert_eq!(world.metric("finhook_sse_open"), 0, "none is left behind");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_stream_killed_at_every_event_loses_and_repeats_nothing() {
    kill_at_every_event(Scenario::Streaming, true, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_stream_that_waits_for_a_rating_may_be_killed_at_every_event_too() {
    kill_at_every_event(Scenario::ResolveCsat, true, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reconnecting_brings_everything_even_without_webhooks_where_the_url_can_rewind() {
    kill_at_every_event(Scenario::Streaming, false, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_bring_what_a_broken_stream_without_rewind_skipped() {
    kill_at_every_event(Scenario::Streaming, true, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn open_streams_do_not_hold_up_the_end() {
    let slow = Settings { speed: 0.01, ..Settings::default() };
    let world = World::start(slow, true).await;
    let live = world.live("", None).await;
    world.say("/fin/start", "c1").await;
    world.reached("finhook_sse_open", 1).await;
    let began = std::time::Instant::now();
    world.stop().await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    drop(live);
}
