//! The contract's table "Public listener", as far as it needs nothing behind the listener.

use std::time::Duration;

use crate::support::intake::{CHUNKED, Front, ID, limits, post, with};
use crate::support::raw::{Raw, Reply};
use crate::support::wait::{PATIENCE, eventually};

/// Sends one request and returns its answer.
async fn ask(front: &Front, request: impl AsRef<[u8]>) -> Reply {
    let mut raw = front.connect().await;
    raw.send(request).await;
    raw.reply().await
}

fn assert_problem(reply: &Reply, status: u16) {
    assert_eq!(reply.status, status, "{reply:?}");
    assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{reply:?}");
    let problem: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(problem["status"], status, "{reply:?}");
}

#[tokio::test]
async fn each_outcome_is_answered_with_its_name_and_the_events_id() {
    let front = Front::start();
    let mut raw = front.connect().await;
    for outcome in ["accepted", "duplicate", "stale", "quarantined"] {
        raw.send(post(outcome)).await;
        let reply = raw.reply().await;
        assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/json")));
        assert_eq!(reply.text(), format!(r#"{{"id":"{ID}","outcome":"{outcome}"}}"#));
    }
    raw.send(post("test")).await;
    assert_eq!(raw.reply().await.text(), r#"{"outcome":"test"}"#);
    assert_eq!(front.taken(), ["accepted", "duplicate", "stale", "quarantined", "test"]);
}

#[tokio::test]
async fn head_on_an_endpoint_is_200_and_empty_even_without_a_secret() {
    let front = Front::start();
    let mut raw = front.connect().await;
    for path in ["/fin", "/new"] {
        raw.send(format!("HEAD {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        assert_eq!(raw.head().await.status, 200);
        assert_eq!(raw.stays_silent(Duration::from_millis(50)).await, Ok(()));
    }
}

#[tokio::test]
async fn another_path_is_404_and_another_method_405_with_allow() {
    let front = Front::start();
    for path in ["/", "/fin/", "/FIN", "/fin/x", "//fin", "/%66in", "*"] {
        assert_problem(&ask(&front, post("x").replace("/fin", path)).await, 404);
    }
    for method in ["GET", "PUT", "DELETE", "OPTIONS", "PATCH", "post", "X"] {
        let reply = ask(&front, post("x").replacen("POST", method, 1)).await;
        assert_problem(&reply, 405);
        assert_eq!(reply.header("allow"), Some("HEAD, POST"));
    }
    assert_eq!(ask(&front, post("x").replace("/fin", "/fin?query=1")).await.status, 200);
    assert_eq!(front.taken().len(), 1);
}

#[tokio::test]
async fn the_checks_are_made_in_the_contracts_order() {
    let front = Front::start();
    // Each line has the next one's fault too, and no body is ever sent.
    let faulty = "Content-Encoding: gzip\r\nContent-Length: 1001\r\n\r\n";
    for (status, head) in [
        (404, format!("PUT /x HTTP/1.1\r\nHost: a\r\n{faulty}")),
        (405, format!("PUT /fin HTTP/1.1\r\nHost: a\r\n{faulty}")),
        (415, format!("POST /fin HTTP/1.1\r\nHost: a\r\n{faulty}")),
        (413, "POST /fin HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n".to_owned()),
        (401, "POST /fin HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n".to_owned()),
        (503, "POST /new HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n".to_owned()),
        (408, "POST /fin HTTP/1.1\r\nHost: a\r\nsig: wrong\r\nContent-Length: 1000\r\n\r\n".to_owned()),
    ] {
        let mut raw = front.connect().await;
        raw.send(head).await;
        let reply = raw.reply().await;
        assert_problem(&reply, status);
        assert!(reply.is_last(), "a body that was not read is not taken for a request: {reply:?}");
    }
    assert_problem(&ask(&front, post("unavailable").replace("right", "wrong")).await, 401);
    assert_problem(&ask(&front, post("unavailable")).await, 503);
}

#[tokio::test]
async fn a_signature_that_is_missing_or_wrong_is_401_with_a_challenge() {
    let front = Front::start();
    for request in [post("x").replace("sig: right\r\n", ""), post("x").replace("right", "wrong")] {
        let reply = ask(&front, request).await;
        assert_problem(&reply, 401);
        assert!(reply.header("www-authenticate").is_some());
    }
    assert!(front.taken().is_empty());
}

#[tokio::test]
async fn a_body_up_to_the_limit_is_taken_and_one_over_it_is_413() {
    let front = Front::start();
    let (full, over) = ("x".repeat(1000), "x".repeat(1001));
    assert_eq!(ask(&front, post(&full)).await.status, 200);
    assert_problem(&ask(&front, post(&over)).await, 413);
    assert_eq!(ask(&front, format!("{CHUNKED}3e8\r\n{full}\r\n0\r\n\r\n")).await.status, 200);
    assert_problem(&ask(&front, format!("{CHUNKED}3e9\r\n{over}\r\n0\r\n\r\n")).await, 413);
    // At the limit, not at the end, which never comes here.
    let half = format!("1f4\r\n{}\r\n", "x".repeat(500));
    assert_problem(&ask(&front, format!("{CHUNKED}{half}{half}1\r\nx\r\n")).await, 413);
    assert_eq!(front.taken(), [full.clone(), full]);
}

#[tokio::test]
async fn a_client_that_goes_on_sending_what_was_refused_gets_its_answer() {
    let front = Front::start();
    let length = 4 * 1024 * 1024;
    let mut raw = front.connect().await;
    raw.send(format!("POST /fin HTTP/1.1\r\nHost: a\r\nsig: right\r\nContent-Length: {length}\r\n\r\n")).await;
    raw.send(vec![b'x'; length]).await;
    let reply = raw.reply().await;
    assert_problem(&reply, 413);
    raw.closed().await;
}

#[tokio::test]
async fn a_body_that_comes_in_pieces_is_taken_as_it_was_sent() {
    let front = Front::start();
    let body: String = (0..1000).map(|at| char::from(b'a' + (at % 26) as u8)).collect();
    let mut raw = front.connect().await;
    for request in [post(&body), post(&body)] {
        for piece in request.as_bytes().chunks(97) {
            raw.send(piece).await;
            tokio::task::yield_now().await;
        }
        assert_eq!(raw.reply().await.status, 200);
    }
    raw.send(CHUNKED).await;
    for piece in body.as_bytes().chunks(10) {
        raw.send(format!("a;extension=1\r\n{}\r\n", std::str::from_utf8(piece).unwrap())).await;
    }
    raw.send("0\r\ntrailer: x\r\n\r\n").await;
    assert_eq!(raw.reply().await.status, 200);
    assert_eq!(front.taken(), vec![body; 3]);
}

#[tokio::test]
async fn a_content_encoding_other_than_identity_is_415() {
    let front = Front::start();
    for coding in ["gzip", "br", "identity, gzip", "", "identity\r\nContent-Encoding: deflate"] {
        assert_problem(&ask(&front, with(&format!("Content-Encoding: {coding}\r\n"), "x")).await, 415);
    }
    for coding in ["identity", "Identity", "identity , identity"] {
        assert_eq!(ask(&front, with(&format!("Content-Encoding: {coding}\r\n"), "x")).await.status, 200);
    }
}

#[tokio::test]
async fn a_client_that_expects_100_continue_is_told_to_go_on_only_if_its_head_is_good() {
    let front = Front::start();
    let request = with("Expect: 100-continue\r\n", "x");
    let (head, body) = request.split_at(request.len() - 1);
    let mut raw = front.connect().await;
    for _ in 0..2 {
        raw.send(head).await;
        assert_eq!(raw.head().await.status, 100);
        raw.send(body).await;
        assert_eq!(raw.reply().await.status, 200);
    }
    raw.send(head.replace("sig: right\r\n", "")).await;
    let reply = raw.reply().await;
    assert_problem(&reply, 401);
    assert!(reply.is_last());
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let front = Front::start();
    let mut raw = front.connect().await;
    let outcomes = ["accepted", "stale", "duplicate", "quarantined"];
    let requests: Vec<String> = (0..40).map(|at| post(outcomes[at % 4])).collect();
    raw.send(requests.concat()).await;
    for at in 0..40 {
        let reply = raw.reply().await;
        assert!(reply.text().contains(outcomes[at % 4]), "{at}: {reply:?}");
    }
    assert_eq!(raw.stays_silent(Duration::from_millis(50)).await, Ok(()));
}

#[tokio::test]
async fn a_chunked_request_is_the_last_on_its_connection() {
    let front = Front::start();
    let mut raw = front.connect().await;
    raw.send(format!("{CHUNKED}1\r\nx\r\n0\r\n\r\n{}", post("smuggled"))).await;
    let reply = raw.reply().await;
    assert!(reply.status == 200 && reply.is_last());
    raw.closed().await;
    assert_eq!(front.taken(), ["x"]);
}

#[tokio::test]
async fn unavailable_is_503_and_says_when_to_try_again() {
    let front = Front::start();
    let mut raw = front.connect().await;
    for request in [post("unavailable"), post("x").replace("/fin", "/new")] {
        raw.send(&request).await;
        let reply = raw.reply().await;
        assert_problem(&reply, 503);
        assert_eq!(reply.header("retry-after"), Some("1"));
        let has_secret = !request.contains("/new");
        assert_eq!(reply.text().contains("no signing secret yet"), !has_secret, "{reply:?}");
        assert_eq!(reply.text().contains("waiting to be stored"), has_secret, "{reply:?}");
        raw = front.connect().await;
    }
}

#[tokio::test]
async fn a_panic_is_500_and_the_next_request_is_unharmed() {
    let front = Front::start();
    let mut raw = front.connect().await;
    let mut other = front.connect().await;
    raw.send(post("panic")).await;
    assert_problem(&raw.reply().await, 500);
    other.send(post("x")).await;
    assert_eq!(other.reply().await.status, 200);
    assert_eq!(ask(&front, post("x")).await.status, 200);
}

#[tokio::test]
async fn what_is_taken_is_taken_to_its_end_when_the_client_hangs_up() {
    let front = Front::start();
    let mut raw = front.connect().await;
    raw.send(post("wait")).await;
    eventually("the request", async || front.taken().len() == 1).await;
    drop(raw);
    front.stub.permits.add_permits(1);
    eventually("the end", async || front.stub.done.lock().unwrap().len() == 1).await;
}

#[tokio::test]
async fn a_client_that_has_closed_its_sending_side_gets_its_answer() {
    let front = Front::start();
    let mut raw = front.connect().await;
    raw.send(post("wait")).await;
    raw.finish().await;
    eventually("the request", async || front.taken().len() == 1).await;
    front.stub.permits.add_permits(1);
    assert_eq!(raw.reply().await.status, 200);
    raw.closed().await;
}

#[tokio::test]
async fn requests_are_counted_by_endpoint_and_outcome() {
    let front = Front::start();
    for request in ["x", "x", "duplicate", "stale", "quarantined", "test", "unavailable", "panic"].map(post) {
        ask(&front, request).await;
    }
    ask(&front, post("x").replace("right", "wrong")).await;
    ask(&front, post("x").replace("sig: right\r\n", "")).await;
    ask(&front, post(&"x".repeat(1001))).await;
    ask(&front, post("x").replace("POST", "GET")).await;
    ask(&front, post("x").replace("/fin", "/new")).await;
    ask(&front, post("x").replace("/fin", "/nothing")).await;
    let mut raw = front.connect().await;
    raw.send("HEAD /nothing HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(raw.head().await.status, 404);
    ask(&front, post("x").replace("Host: a\r\n", "")).await;
    ask(&front, "GET\r\n\r\n").await;
    ask(&front, with(&"x: y\r\n".repeat(101), "x")).await;
    let text = front.metrics.encode();
    for line in [
        r#"finhook_requests_total{endpoint="fin",outcome="accepted"} 2"#,
        r#"finhook_requests_total{endpoint="fin",outcome="duplicate"} 1"#,
        r#"finhook_requests_total{endpoint="fin",outcome="stale"} 1"#,
        r#"finhook_requests_total{endpoint="fin",outcome="quarantined"} 1"#,
        r#"finhook_requests_total{endpoint="fin",outcome="test"} 1"#,
        r#"finhook_requests_total{endpoint="fin",outcome="unauthenticated"} 2"#,
        r#"finhook_requests_total{endpoint="fin",outcome="unavailable"} 2"#,
        r#"finhook_requests_total{endpoint="fin",outcome="refused"} 2"#,
        r#"finhook_requests_total{endpoint="new",outcome="unavailable"} 1"#,
        r#"finhook_requests_total{endpoint="",outcome="not_found"} 2"#,
        r#"finhook_requests_total{endpoint="",outcome="malformed"} 2"#,
        r#"finhook_requests_total{endpoint="",outcome="head_too_large"} 1"#,
        "finhook_ack_seconds_count 13",
    ] {
        assert!(text.lines().any(|have| have == line), "{line} is missing in:\n{text}");
    }
}

#[tokio::test]
async fn what_health_checkers_and_older_proxies_send_is_served() {
    let front = Front::start();
    for head in [
        // HAProxy's `option httpchk HEAD /fin`.
        "HEAD /fin HTTP/1.0\r\n\r\n",
        // An AWS load balancer, Google's, a kubelet: each names the address, not the service.
        "HEAD /fin HTTP/1.1\r\nHost: 10.0.0.7:8080\r\nConnection: close\r\nUser-Agent: ELB-HealthChecker/2.0\r\n\r\n",
        "HEAD /fin HTTP/1.1\r\nHost: 10.0.0.7\r\nUser-Agent: GoogleHC/1.0\r\nConnection: Keep-alive\r\n\r\n",
        "HEAD /fin HTTP/1.1\r\nHost: 10.0.0.7:8080\r\nUser-Agent: kube-probe/1.30\r\nAccept: */*\r\nConnection: close\r\n\r\n",
    ] {
        let mut raw = front.connect().await;
        raw.send(head).await;
        assert_eq!(raw.head().await.status, 200, "{head}");
    }
    // nginx as it speaks to its upstreams by default. An older version gets no interim answer (RFC 9110, 10.1.1).
    let old = with("Connection: close\r\nExpect: 100-continue\r\n", "x").replace("HTTP/1.1", "HTTP/1.0");
    let mut raw = front.connect().await;
    raw.send(old).await;
    assert_eq!(raw.reply().await.status, 200);
    // Without a word, as that version's connections end.
    raw.closed().await;
    // Kept alive where it is asked for.
    let mut raw = front.connect().await;
    for _ in 0..2 {
        raw.send(with("Connection: keep-alive\r\n", "x").replace("HTTP/1.1", "HTTP/1.0").replace("Host: a\r\n", ""))
            .await;
        assert_eq!(raw.reply().await.status, 200);
    }
}

#[tokio::test]
async fn a_drain_answers_what_is_open_closes_what_is_idle_and_refuses_what_is_new() {
    let front = Front::start();
    let (addr, stub) = (front.addr, std::sync::Arc::clone(&front.stub));
    let mut idle = front.connect().await;
    let mut fresh = front.connect().await;
    let mut busy = front.connect().await;
    let mut begun = front.connect().await;
    idle.send(post("x")).await;
    assert!(!idle.reply().await.is_last());
    busy.send(post("wait")).await;
    let request = post("late");
    let (early, late) = request.split_at(30);
    begun.send(early).await;
    eventually("the request", async || stub.taken.lock().unwrap().len() == 2).await;
    // What was sent before has been seen once a later connection's answer is there.
    let mut last = front.connect().await;
    last.send(post("x")).await;
    last.reply().await;

    let stopped = front.stop();
    idle.closed().await;
    fresh.closed().await;
    last.closed().await;
    assert!(tokio::net::TcpStream::connect(addr).await.is_err(), "new connections are refused");
    begun.send(late).await;
    let reply = begun.reply().await;
    assert!(reply.status == 200 && reply.is_last(), "{reply:?}");
    begun.closed().await;
    stub.permits.add_permits(1);
    let reply = busy.reply().await;
    assert!(reply.status == 200 && reply.is_last(), "{reply:?}");
    busy.closed().await;
    assert_eq!(stopped.await.unwrap(), 0);
}

#[tokio::test]
async fn a_drain_ends_after_its_timeout() {
    let mut limits = limits();
    limits.drain_timeout = Duration::from_millis(300);
    let front = Front::with(&limits);
    let mut busy = front.connect().await;
    busy.send(post("wait")).await;
    eventually("the request", async || front.taken().len() == 1).await;
    let began = std::time::Instant::now();
    let cut_off = tokio::time::timeout(PATIENCE, front.stop()).await.expect("the drain goes on").unwrap();
    assert_eq!(cut_off, 1);
    assert!(began.elapsed() >= limits.drain_timeout);
    busy.closed().await;
}

#[tokio::test]
async fn what_was_sent_before_the_drain_is_stored_even_if_it_was_not_seen_yet() {
    // One thread runs client and server in turn: nothing of this is read before the shutdown is seen.
    let front = Front::start();
    let mut raws: Vec<Raw> = Vec::new();
    for _ in 0..10 {
        let mut raw = front.connect().await;
        raw.send(post("x")).await;
        raw.reply().await;
        raws.push(raw);
    }
    for raw in &mut raws {
        raw.send(post("late")).await;
    }
    let stub = std::sync::Arc::clone(&front.stub);
    let stopped = front.stop();
    for raw in &mut raws {
        assert_eq!(raw.reply().await.status, 200);
        raw.closed().await;
    }
    assert_eq!(stopped.await.unwrap(), 0);
    assert_eq!(stub.taken.lock().unwrap().len(), 20);
}
