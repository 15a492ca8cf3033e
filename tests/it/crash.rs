//! The promise at its hardest: the program is killed under load again and again, and nothing acknowledged is lost.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{sleep, spawn};
use std::time::Duration;

use crate::support::process::{Client, Place, archived, body};
use crate::support::receiver::Receiver;
use crate::support::wait::until;

/// Senders at once, a conversation each.
const CONVERSATIONS: usize = 8;

/// What the senders and the test share.
#[derive(Debug, Default)]
struct Shared {
    /// Where finhook listens at present.
    addr: Mutex<Option<SocketAddr>>,
    acked: AtomicU64,
    resent: AtomicU64,
    enough: AtomicBool,
}

/// Posts the events of one conversation one after the other, each again with the same bytes until it is acknowledged.
/// Returns what was acknowledged, in order: (id, body).
fn send(conversation: &str, shared: &Shared) -> Vec<(String, String)> {
    let mut acked = Vec::new();
    let mut client = None;
    while !shared.enough.load(Ordering::Relaxed) {
        let body = body(conversation, acked.len() as u64, 200);
        loop {
            let mut listening = None;
            until("it listens again", || {
                listening = *shared.addr.lock().unwrap();
                listening.is_some()
            });
            match client.get_or_insert_with(|| Client::new(listening.unwrap())).post(&body) {
                Ok(answer) if answer.status == 200 => {
                    acked.push((answer.id(), body));
                    shared.acked.fetch_add(1, Ordering::Relaxed);
                    break;
                }
                Ok(answer) => answer.assert_unavailable(),
                // Killed meanwhile; the next one has another port.
                Err(_) => client = None,
            }
            shared.resent.fetch_add(1, Ordering::Relaxed);
            // Between two tries, as any sender has it.
            sleep(Duration::from_millis(2));
        }
    }
    acked
}

/// First deliveries of each conversation, in order.
fn first_deliveries(delivered: &[(String, String)]) -> HashMap<String, Vec<String>> {
    let mut seen = HashSet::new();
    let mut conversations: HashMap<String, Vec<String>> = HashMap::new();
    for (conversation, id) in delivered {
        if seen.insert(id) {
            conversations.entry(conversation.clone()).or_default().push(id.clone());
        }
    }
    conversations
}

/// Kills it 50 times, or as often as `FINHOOK_KILLS` says.
#[tokio::test(flavor = "multi_thread")]
async fn killed_again_and_again_under_load_it_delivers_every_acknowledged_event_in_order() {
    let kills: u64 = std::env::var("FINHOOK_KILLS").map_or(50, |kills| kills.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let backend = Receiver::start().await;
    let place = Place::new(
        folder.path(),
        &format!(
            "[sinks.archive]\ntype = \"file\"\npath = \"archive/events.ndjson\"\nrotate_bytes = 262144\nkeep = 10000\n\
             [sinks.backend]\ntype = \"http\"\nurl = \"{}\"\n",
            backend.url()
        ),
    );
    let backend = Arc::new(backend);
    let far_end = backend.clone();
    let test = tokio::task::spawn_blocking(move || {
        let shared = Arc::new(Shared::default());
        let senders: Vec<_> = (0..CONVERSATIONS)
            .map(|number| {
                let (name, shared) = (format!("c{number}"), shared.clone());
                spawn(move || (name.clone(), send(&name, &shared)))
            })
            .collect();
        let mut rng = fastrand::Rng::with_seed(50);
        for kill in 0..kills {
            let finhook = place.start();
            *shared.addr.lock().unwrap() = Some(finhook.public);
            if kill % 5 > 0 {
                let before = shared.acked.load(Ordering::Relaxed);
                until("an acknowledgement", || shared.acked.load(Ordering::Relaxed) > before);
            }
            // Not to wait for something, but to hit it at any moment.
            sleep(Duration::from_millis(rng.u64(..300)));
            *shared.addr.lock().unwrap() = None;
            finhook.kill();
        }
        let finhook = place.start();
        *shared.addr.lock().unwrap() = Some(finhook.public);
        shared.enough.store(true, Ordering::Relaxed);
        let acked: Vec<_> = senders.into_iter().map(|sender| sender.join().unwrap()).collect();
        let count: usize = acked.iter().map(|(_, acked)| acked.len()).sum();

        let at_backend = |far_end: &Receiver| -> Vec<_> {
            let received = far_end.received();
            received.iter().map(|r| (r.header("ce-subject").to_owned(), r.header("ce-id").to_owned())).collect()
        };
        let distinct = |delivered: &[(String, String)]| delivered.iter().collect::<HashSet<_>>().len();
        until("every event at the backend", || distinct(&at_backend(&far_end)) >= count);
        let ended = finhook.stop();
        assert_eq!(ended.status.code(), Some(0), "{:?}", ended.errors());
        (acked, at_backend(&far_end), archived(&place.path("archive/events.ndjson")), shared)
    });
    let (acked, at_backend, in_archive, shared) = test.await.unwrap();

    let count: usize = acked.iter().map(|(_, acked)| acked.len()).sum();
    println!(
        "kills {kills}, acked {count}, sent again {}, delivered: http {} ({} twice), file {} ({} twice)",
        shared.resent.load(Ordering::Relaxed),
        at_backend.len(),
        at_backend.len() - count,
        in_archive.len(),
        in_archive.len() - count,
    );
    assert!(count as u64 > kills, "there was no load");
    for (sink, delivered) in [("http", &at_backend), ("file", &in_archive)] {
        let first = first_deliveries(delivered);
        for (conversation, acked) in &acked {
            let acked: Vec<_> = acked.iter().map(|(id, _)| id.clone()).collect();
            assert_eq!(first.get(conversation).unwrap_or(&Vec::new()), &acked, "{sink}: lost, made up or out of order");
        }
    }
    let bodies: HashMap<_, _> = acked.into_iter().flat_map(|(_, acked)| acked).collect();
    for received in backend.received() {
        assert_eq!(bodies[received.header("ce-id")].as_bytes(), &received.body[..], "the bytes were changed");
    }
}
