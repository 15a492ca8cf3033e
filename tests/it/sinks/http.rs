//! The relay: what it sends, what it makes of every kind of answer, and its bounds.

use std::time::{Duration, Instant, SystemTime};

use finhook::config::{HttpSink, RelayUrl, Retry};
use finhook::sink::http::{HttpRelay, MAX_RESPONSE};
use finhook::sink::{Delivery, Failure, Fault, Outcome, Relay};

use super::{delivery, event, in_child, numbered};
use crate::support::receiver::{Answer, Receiver};

const ESCALATED: &str = "{\"event_name\":\"fin_status_updated\",\"conversation_id\":\"fin:test:é 1\",\"user_id\":\"7891\",\
    \"status\":\"escalated\", \"created_at_ms\":\"2025-01-24T10:00:00.123Z\",\r\n \"n\":1.0e5}";

pub(super) fn config(url: &str) -> HttpSink {
    HttpSink {
        url: RelayUrl(url.parse().unwrap()),
        concurrency: 4,
        timeout: Duration::from_secs(10),
        headers: Vec::new(),
        signing_secret: None,
        retry: Retry { base: Duration::ZERO, cap: Duration::ZERO, max_age: Duration::ZERO },
        rate: 0,
        deny_private: false,
        client: None,
        ca_file: None,
    }
}

pub(super) fn relay(url: &str) -> HttpRelay {
    HttpRelay::new(&config(url)).unwrap()
}

fn impatient(url: &str) -> HttpRelay {
    HttpRelay::new(&HttpSink { timeout: Duration::from_millis(400), ..config(url) }).unwrap()
}

pub(super) fn failure(outcome: Outcome) -> Failure {
    match outcome {
        Outcome::Failed(failure) => failure,
        Outcome::Delivered => panic!("delivered"),
    }
}

#[tokio::test]
async fn a_delivery_is_a_post_of_the_exact_bytes_with_all_headers_of_the_contract() {
    let receiver = Receiver::start().await;
    let url = receiver.url().replace("http://", "http://user:pass@") + "?tenant=1";
    let headers = vec![("x-team".to_owned(), "support".into())];
    let relay = HttpRelay::new(&HttpSink { headers, ..config(&url) }).unwrap();
    let delivery = delivery(ESCALATED);
    let event = delivery.stored.event.clone();
    assert_eq!(relay.deliver(delivery).await, Outcome::Delivered);

    let [got] = &receiver.wait_for(1).await[..] else { panic!("more than one request") };
    assert_eq!((got.method.as_str(), got.target.as_str()), ("POST", "/fin?tenant=1"));
    assert_eq!(got.body, ESCALATED);
    let id = event.id.to_string();
    for (name, value) in [
        ("content-type", "application/json"),
        ("content-length", ESCALATED.len().to_string().as_str()),
        ("x-fin-agent-api-webhook-signature", event.signature.as_deref().unwrap()),
        ("ce-specversion", "1.0"),
        ("ce-id", &id),
        ("ce-source", "/finhook/endpoints/fin"),
        ("ce-type", "com.intercom.fin_status_updated"),
        ("ce-subject", "fin:test:%C3%A9%201"),
        ("ce-time", "2025-01-24T10:00:00.123Z"),
        ("ce-userid", "7891"),
        ("ce-finstatus", "escalated"),
        ("ce-receivedtime", "2025-01-24T10:00:00.456Z"),
        ("finhook-attempt", "1"),
        ("user-agent", concat!("finhook/", env!("CARGO_PKG_VERSION"))),
        ("x-team", "support"),
        ("authorization", "Basic dXNlcjpwYXNz"),
    ] {
        assert_eq!(got.header(name), value, "{name}");
    }
    for absent in ["finhook-replay", "webhook-id", "webhook-signature", "ce-datacontenttype", "transfer-encoding"] {
        assert!(!got.headers.contains_key(absent), "{absent}");
    }
}

#[tokio::test]
async fn an_event_goes_out_with_its_own_content_type_and_as_json_if_it_had_none() {
    let receiver = Receiver::start().await;
    let relay = relay(&receiver.url());
    for (own, sent) in [(Some("text/plain; charset=utf-8"), "text/plain; charset=utf-8"), (None, "application/json")] {
        let mut delivery = delivery("{\"event_name\":\"x\"}");
        std::sync::Arc::make_mut(&mut delivery.stored).event = event("{\"event_name\":\"x\"}", own);
        assert_eq!(relay.deliver(delivery).await, Outcome::Delivered);
        assert_eq!(receiver.received().last().unwrap().header("content-type"), sent);
    }
}

#[tokio::test]
async fn attempts_are_numbered_and_a_replay_is_marked() {
    let receiver = Receiver::start().await;
    let again = Delivery { attempt: 7, replay: Some("r-42".into()), ..delivery("{\"event_name\":\"x\"}") };
    assert_eq!(relay(&receiver.url()).deliver(again).await, Outcome::Delivered);
    let got = &receiver.received()[0];
    assert_eq!((got.header("finhook-attempt"), got.header("finhook-replay")), ("7", "r-42"));
}

#[tokio::test]
async fn with_a_signing_secret_the_published_standard_webhooks_library_accepts_what_arrives() {
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let receiver = Receiver::start().await;
    let config = HttpSink { signing_secret: Some(secret.into()), ..config(&receiver.url()) };
    let delivery = delivery(ESCALATED);
    let id = delivery.stored.event.id.to_string();
    assert_eq!(HttpRelay::new(&config).unwrap().deliver(delivery).await, Outcome::Delivered);

    let got = &receiver.received()[0];
    let library = standardwebhooks::Webhook::new(secret).unwrap();
    library.verify(&got.body, &got.headers).unwrap();
    assert!(library.verify(&got.body[1..], &got.headers).is_err());
    assert_eq!(got.header("webhook-id"), id, "the idempotency key");
}

#[tokio::test]
async fn each_status_is_told_apart_and_its_retry_after_heeded() {
    let receiver = Receiver::start().await;
    let relay = relay(&receiver.url());
    for status in [200, 201, 202, 204, 299] {
        receiver.answer_next(Answer::status(status).with("retry-after", "5"));
        assert_eq!(relay.deliver(delivery(ESCALATED)).await, Outcome::Delivered, "{status}");
    }
    for (status, fault) in [
        (300, Fault::Rejected),
        (304, Fault::Rejected),
        (400, Fault::Rejected),
        (401, Fault::Rejected),
        (404, Fault::Rejected),
        (408, Fault::Transient),
        (410, Fault::Rejected),
        (422, Fault::Rejected),
        (425, Fault::Transient),
        (429, Fault::Throttled),
        (500, Fault::Transient),
        (503, Fault::Transient),
        (599, Fault::Transient),
    ] {
        receiver.answer_next(Answer::status(status).body("s3cret of the sink"));
        let plain = failure(relay.deliver(delivery(ESCALATED)).await);
        assert_eq!((plain.fault, plain.retry_after), (fault, None), "{status}");
        assert!(plain.error.starts_with(&format!("status {status}")), "{}", plain.error);
        assert!(!plain.error.contains("s3cret"), "{}", plain.error);

        receiver.answer_next(Answer::status(status).with("retry-after", "120"));
        assert_eq!(failure(relay.deliver(delivery(ESCALATED)).await).retry_after, Some(Duration::from_secs(120)));

        let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(600));
        receiver.answer_next(Answer::status(status).with("retry-after", date));
        let pause = failure(relay.deliver(delivery(ESCALATED)).await).retry_after.unwrap();
        assert!((590..=600).contains(&pause.as_secs()), "{pause:?}");
    }
}

#[tokio::test]
async fn a_redirect_is_a_failure_and_is_not_followed() {
    let (receiver, elsewhere) = (Receiver::start().await, Receiver::start().await);
    for status in [301, 302, 303, 307, 308] {
        receiver.answer_next(Answer::status(status).with("location", elsewhere.url()));
        let failure = failure(relay(&receiver.url()).deliver(delivery(ESCALATED)).await);
        assert_eq!(failure.fault, Fault::Rejected);
        assert!(failure.error.contains("redirects are not followed"), "{}", failure.error);
    }
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test]
async fn an_answer_that_does_not_come_in_time_is_a_passing_failure() {
    let receiver = Receiver::start().await;
    receiver.answer_all(Answer::Hang);
    let began = Instant::now();
    let failure = failure(impatient(&receiver.url()).deliver(delivery(ESCALATED)).await);
    assert_eq!((failure.fault, failure.error.as_str()), (Fault::Transient, "no answer within 400ms"));
    assert!((400..4000).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
}

#[tokio::test]
async fn an_answer_in_time_counts_however_slowly_its_body_trickles_and_ends_with_the_timeout() {
    let receiver = Receiver::start().await;
    let relay = HttpRelay::new(&HttpSink { timeout: Duration::from_millis(1500), ..config(&receiver.url()) }).unwrap();
    let began = Instant::now();
    let trickle = |status| Answer::Endless { status, chunk: 1, every: Duration::from_millis(20) };
    receiver.answer_next(trickle(200));
    assert_eq!(relay.deliver(delivery(ESCALATED)).await, Outcome::Delivered);
    receiver.answer_next(trickle(404));
    assert_eq!(failure(relay.deliver(delivery(ESCALATED)).await).fault, Fault::Rejected);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[tokio::test]
async fn of_a_huge_answer_64_kib_are_read_and_its_connection_is_given_up() {
    let receiver = Receiver::start().await;
    let relay = relay(&receiver.url());
    receiver.answer_next(Answer::Endless { status: 200, chunk: 16 * 1024, every: Duration::ZERO });
    let began = Instant::now();
    assert_eq!(relay.deliver(delivery(ESCALATED)).await, Outcome::Delivered);
    assert!(began.elapsed() < Duration::from_secs(5), "it was cut, not timed out");
    // More than was read: what the buffers of both systems took before the connection was closed.
    assert!(receiver.dripped() < 32 << 20, "{} bytes", receiver.dripped());

    // An answer up to the bound keeps its connection.
    for body in [MAX_RESPONSE, 0] {
        receiver.answer_next(Answer::status(200).body(vec![b'x'; body]));
        assert_eq!(relay.deliver(delivery(ESCALATED)).await, Outcome::Delivered);
    }
    let connections: Vec<_> = receiver.received().iter().map(|request| request.connection).collect();
    assert_eq!(connections, [0, 1, 1]);
}

#[tokio::test]
async fn connections_are_kept_and_never_more_than_there_are_deliveries_at_once() {
    let receiver = Receiver::start().await;
    let relay = relay(&receiver.url());
    for seq in 1..=20 {
        assert_eq!(relay.deliver(numbered(seq, ESCALATED)).await, Outcome::Delivered);
    }
    assert_eq!(receiver.connections(), 1);

    receiver.answer_all(Answer::status(200).after(Duration::from_millis(50)));
    let at_once = || relay.deliver(delivery(ESCALATED));
    for _ in 0..5 {
        let outcomes = tokio::join!(at_once(), at_once(), at_once(), at_once());
        assert_eq!(outcomes, (Outcome::Delivered, Outcome::Delivered, Outcome::Delivered, Outcome::Delivered));
    }
    assert_eq!(receiver.most_in_flight(), 4);
    assert!(receiver.connections() <= 4, "{}", receiver.connections());
}

#[tokio::test]
async fn a_connection_that_breaks_is_a_passing_failure_and_the_next_delivery_gets_a_new_one() {
    let receiver = Receiver::start().await;
    let relay = relay(&receiver.url());
    for answer in [
        Answer::Reset,
        Answer::Raw(b""),
        Answer::Raw(b"HTTP/1.1 200"),
        Answer::Raw(b"SSH-2.0-OpenSSH_9.6\r\n"),
        Answer::Raw(b"HTTP/1.1 200 OK\r\nx: \0\r\n\r\n"),
    ] {
        let name = format!("{answer:?}");
        receiver.answer_next(answer);
        let failure = failure(relay.deliver(delivery(ESCALATED)).await);
        assert_eq!(failure.fault, Fault::Transient, "{name}: {}", failure.error);
        assert_eq!(relay.deliver(delivery(ESCALATED)).await, Outcome::Delivered, "after {name}");
    }
    receiver.answer_next(Answer::Reset);
    let failure = failure(relay.deliver(delivery(ESCALATED)).await);
    assert!(failure.error.starts_with("connection reset by 127.0.0.1:"), "{}", failure.error);
}

#[tokio::test]
async fn a_sink_that_nobody_listens_at_is_unreachable_and_named() {
    let address = Receiver::start().await.url();
    let address = address.trim_start_matches("http://").trim_end_matches("/fin");
    let wait = tokio::time::timeout(Duration::from_secs(10), async {
        // The listener is closed by a task of its own.
        while tokio::net::TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    });
    wait.await.unwrap();
    let failure = failure(relay(&format!("http://{address}/fin")).deliver(delivery(ESCALATED)).await);
    assert_eq!(failure.fault, Fault::Unreachable);
    let what_to_do = "nothing listens there; check the port, and whether it runs";
    assert_eq!(failure.error, format!("connection refused by {address}: {what_to_do}"));
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_unreachable() {
    let failure = failure(relay("http://finhook.invalid/fin").deliver(delivery(ESCALATED)).await);
    assert_eq!(failure.fault, Fault::Unreachable, "{}", failure.error);
}

#[tokio::test]
async fn a_connection_that_is_not_accepted_in_half_the_time_is_unreachable() {
    // A full queue of connections that nobody accepts: the system drops further ones without a word.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(Ok(stream)) =
        tokio::time::timeout(Duration::from_millis(300), tokio::net::TcpStream::connect(address)).await
    {
        queued.push(stream);
        assert!(queued.len() < 100, "the queue does not fill up");
    }
    let failure = failure(impatient(&format!("http://{address}/fin")).deliver(delivery(ESCALATED)).await);
    assert_eq!(failure.fault, Fault::Unreachable);
    assert_eq!(failure.error, format!("no connection to {address} within 200ms"));
}

#[tokio::test]
async fn no_error_shows_credentials_of_the_url_a_header_or_a_body() {
    let receiver = Receiver::start().await;
    let hide = |url: String| {
        let url = url.replace("://", "://s3cret:s3cret@") + "?token=s3cret#s3cret";
        let headers = vec![("authorization".to_owned(), "s3cret".into())];
        let signing_secret = Some("whsec_czNjcmV0".into());
        HttpRelay::new(&HttpSink { timeout: Duration::from_millis(300), headers, signing_secret, ..config(&url) })
            .unwrap()
    };
    let body = "{\"event_name\":\"x\",\"conversation_id\":\"s3cret\"}";
    let here = hide(receiver.url());
    let mut errors = Vec::new();
    for answer in [
        Answer::Hang,
        Answer::Reset,
        Answer::Raw(b"s3cret\r\n\r\n"),
        Answer::Raw(b"HTTP/1.1 500 s3cret\r\ncontent-length: 6\r\n\r\ns3cret"),
        Answer::status(302).with("location", "http://s3cret/"),
        Answer::status(401).body("s3cret"),
    ] {
        receiver.answer_next(answer);
        errors.push(failure(here.deliver(delivery(body)).await).error);
    }
    for url in ["http://127.0.0.1:1/", "http://finhook.invalid/", &receiver.url().replace("http", "https")] {
        errors.push(failure(hide(url.to_owned()).deliver(delivery(body)).await).error);
    }
    for error in errors {
        assert!(!error.is_empty() && !error.contains("s3cret") && !error.contains("czNjcmV0"), "{error}");
    }
    assert!(!format!("{here:?}").contains("s3cret"), "{here:?}");
}

#[test]
fn no_proxy_of_the_environment_is_used() {
    let mut command = std::process::Command::new("env");
    command.args(["http_proxy=http://127.0.0.1:1", "HTTP_PROXY=http://127.0.0.1:1", "ALL_PROXY=http://127.0.0.1:1"]);
    let directory = tempfile::tempdir().unwrap();
    let name = "sinks::http::no_proxy_of_the_environment_is_used";
    if in_child(name, directory.path(), command).is_none() {
        return;
    }
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let receiver = Receiver::start().await;
        assert_eq!(relay(&receiver.url()).deliver(delivery(ESCALATED)).await, Outcome::Delivered);
    });
}
