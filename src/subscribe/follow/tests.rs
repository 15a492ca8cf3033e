#![allow(clippy::unwrap_used)]

use std::sync::Mutex;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

const OPEN: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
const REVOKED: &str = "HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n";
const UNAVAILABLE: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
const END: &str = "0\r\n\r\n";
/// Nothing waits for it unless it fails.
const DEADLINE: Duration = Duration::from_secs(20);

/// One chunk of a chunked body.
fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

fn event(id: u32, status: &str) -> String {
    let body = format!(r#"{{"event_name":"fin_status_updated","conversation_id":"c","status":"{status}"}}"#);
    chunk(&format!("id: {id}\ndata: {body}\n\n"))
}

/// Takes what it is given, after refusing it a few times.
#[derive(Default)]
struct Store {
    refusals: Mutex<u32>,
    taken: Mutex<Vec<String>>,
}

impl Store {
    fn statuses(&self) -> Vec<String> {
        let taken = self.taken.lock().unwrap();
        taken.iter().map(|body| serde_json::from_str::<fin::Event>(body).unwrap().status.unwrap()).collect()
    }
}

impl Feed for Store {
    async fn take(&self, body: Bytes) -> bool {
        let mut refusals = self.refusals.lock().unwrap();
        if *refusals > 0 {
            *refusals -= 1;
            return false;
        }
        self.taken.lock().unwrap().push(String::from_utf8(body.to_vec()).unwrap());
        true
    }
}

/// Follows a stream whose server gives one of `answers` to each connection, then closes it. Returns how it ended, and
/// the heads of the requests.
async fn against(answers: Vec<String>, life: Duration, store: &Store) -> (End, Vec<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/s?channels=fin_agent_api:a:c&accessToken=t", listener.local_addr().unwrap());
    let mut subscription = Subscription::parse(&url, &["127.0.0.1".to_owned()], 0).unwrap();
    subscription.life = life;
    let client = crate::outbound::client().unwrap().pool_max_idle_per_host(0).build().unwrap();
    let mut heads = Vec::new();
    let serve = async {
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            heads.push(String::from_utf8(head).unwrap().to_lowercase());
            // A client that has had enough hangs up.
            let _ = stream.write_all(answer.as_bytes()).await;
        }
        // More connections than answers are never served.
        std::future::pending::<()>().await;
    };
    let foreign = Foreign::new(&crate::metrics::Metrics::new());
    let end = tokio::select! {
        end = follow(&client, &subscription, store, &foreign) => end,
        () = serve => unreachable!(),
        () = sleep(DEADLINE) => panic!("it goes on for ever"),
    };
    (end, heads)
}

#[tokio::test]
async fn a_broken_stream_is_opened_again_behind_its_last_event_and_ends_with_the_turn() {
    let store = Store::default();
    let answers = vec![
        format!("{OPEN}{}", event(7, "thinking")),
        UNAVAILABLE.to_owned(),
        format!("{OPEN}{}{END}", event(8, "awaiting_user_reply")),
    ];
    let (end, heads) = against(answers, DEADLINE, &store).await;
    assert_eq!((end, store.statuses()), (End::Closed, vec!["thinking".to_owned(), "awaiting_user_reply".to_owned()]));
    assert!(!heads[0].contains("last-event-id"));
    assert!(heads[1].contains("last-event-id: 7\r\n") && heads[2].contains("last-event-id: 7\r\n"), "{heads:?}");
    assert!(heads.iter().all(|head| head.contains("accept: text/event-stream\r\n")));
}

#[tokio::test]
async fn it_waits_for_a_rating_behind_complete_even_when_the_stream_breaks() {
    let store = Store::default();
    let rating = chunk("data: {\"event_name\":\"csat_requested\",\"conversation_id\":\"c\",\"status\":\"-\"}\n\n");
    let answers = vec![format!("{OPEN}{}", event(1, "complete")), format!("{OPEN}{rating}{END}")];
    let (end, _) = against(answers, DEADLINE, &store).await;
    assert_eq!((end, store.statuses().len()), (End::Closed, 2));
}

#[tokio::test]
async fn a_revoked_token_is_not_tried_again_and_counts_by_what_was_seen() {
    let (end, _) = against(vec![REVOKED.to_owned()], DEADLINE, &Store::default()).await;
    assert_eq!(end, End::Refused);
    let begun = format!("{OPEN}{}", event(1, "thinking"));
    let (end, _) = against(vec![begun, REVOKED.to_owned()], DEADLINE, &Store::default()).await;
    assert_eq!(end, End::Lost);
    let over = format!("{OPEN}{}", event(1, "complete"));
    let (end, _) = against(vec![over, REVOKED.to_owned()], DEADLINE, &Store::default()).await;
    assert_eq!(end, End::Closed);
    for other in ["HTTP/1.1 302 Found\r\nlocation: /\r\n", "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n"] {
        let (end, _) = against(vec![format!("{other}content-length: 0\r\n\r\n")], DEADLINE, &Store::default()).await;
        assert_eq!(end, End::Refused, "{other}");
    }
}

#[tokio::test]
async fn no_connection_is_made_after_the_tokens_life() {
    let answers = vec![UNAVAILABLE.to_owned(); 50];
    let (end, heads) = against(answers, Duration::from_millis(300), &Store::default()).await;
    assert_eq!(end, End::Lost);
    assert!((1..20).contains(&heads.len()), "{} connections", heads.len());
}

#[tokio::test]
async fn an_event_that_cannot_be_stored_now_is_stored_later_and_before_the_next_one() {
    let store = Store { refusals: Mutex::new(3), ..Store::default() };
    let answer = format!("{OPEN}{}{}{END}", event(1, "thinking"), event(2, "complete"));
    let (end, _) = against(vec![answer], DEADLINE, &store).await;
    assert_eq!((end, store.statuses()), (End::Closed, vec!["thinking".to_owned(), "complete".to_owned()]));
}

#[tokio::test]
async fn an_event_without_an_end_is_given_up_at_its_bound() {
    let store = Store::default();
    let endless = chunk(&"x".repeat(64 * 1024)).repeat(20);
    let (end, heads) = against(vec![format!("{OPEN}{}{endless}", chunk("data: "))], DEADLINE, &store).await;
    assert_eq!((end, heads.len()), (End::Lost, 1));
    assert!(store.statuses().is_empty());
}
