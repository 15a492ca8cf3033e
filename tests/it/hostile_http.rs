//! The public listener against clients that mean harm: slow ones, many of them, and requests that two readers would
//! read in two ways.

use std::time::{Duration, Instant};

use crate::support::intake::{CHUNKED, Front, limits, post, with};
use crate::support::raw::{Raw, Reply};
use crate::support::wait::eventually;

/// What closing may take over the limit: the sweep, and a busy machine.
const SLACK: Duration = Duration::from_millis(1200);

/// Asserts that the connection is closed without a word, when the limit is reached and not before.
async fn assert_closed_after(limit: Duration, raw: &mut Raw, began: Instant, what: &str) {
    raw.closed().await;
    let took = began.elapsed();
    assert!(took >= limit && took < limit + SLACK, "{what}: closed after {took:?}, the limit is {limit:?}");
}

#[tokio::test]
async fn a_head_that_is_begun_and_not_completed_is_closed_after_the_header_timeout() {
    let front = Front::start();
    let limit = limits().header_timeout;
    for start in ["P", "POST /fin HTTP/1.1\r\nHost: a\r\nsig:", "PRI * H", "PRI * HTTP/", "\r\n", "\n"] {
        let (mut raw, began) = (front.connect().await, Instant::now());
        raw.send(start).await;
        assert_closed_after(limit, &mut raw, began, start).await;
    }
}

#[tokio::test]
async fn a_head_that_trickles_in_is_closed_after_the_header_timeout() {
    let front = Front::start();
    let limit = limits().header_timeout;
    let (mut raw, began) = (front.connect().await, Instant::now());
    // Each byte comes in good time, the head does not.
    for byte in post("x").into_bytes() {
        if !raw.try_send([byte]).await || raw.stays_silent(Duration::from_millis(20)).await.is_err() {
            break;
        }
        assert!(began.elapsed() < limit + SLACK, "still open");
    }
    assert!(began.elapsed() >= limit, "closed too early: {:?}", began.elapsed());
    assert!(front.taken().is_empty());
}

#[tokio::test]
async fn a_second_head_that_is_not_completed_is_closed_after_the_header_timeout() {
    let front = Front::start();
    let mut raw = front.connect().await;
    let sent = Instant::now();
    raw.send(format!("{}POST /f", post("x"))).await;
    assert_eq!(raw.reply().await.status, 200);
    assert_closed_after(limits().header_timeout, &mut raw, sent, "the second head").await;
}

#[tokio::test]
async fn idle_connections_outlive_the_header_timeout_and_end_after_the_idle_timeout() {
    let front = Front::start();
    let limits = limits();
    assert!(limits.idle_timeout > 3 * limits.header_timeout);
    // Times are taken before the server can know of it, so that it can't seem to be too early.
    let (began, mut silent) = (Instant::now(), front.connect().await);
    let mut kept = front.connect().await;
    for _ in 0..3 {
        kept.send(post("x")).await;
        assert_eq!(kept.reply().await.status, 200);
        assert_eq!(kept.stays_silent(limits.header_timeout + Duration::from_millis(200)).await, Ok(()));
    }
    let sent = Instant::now();
    kept.send(post("x")).await;
    assert_eq!(kept.reply().await.status, 200);
    assert_closed_after(limits.idle_timeout, &mut silent, began, "silent from the start").await;
    assert_closed_after(limits.idle_timeout, &mut kept, sent, "kept alive").await;
}

#[tokio::test]
async fn a_body_that_does_not_come_in_time_is_408() {
    let front = Front::start();
    let limit = limits().body_timeout;
    let head = with("", &"x".repeat(100)).trim_end_matches('x').to_owned();
    for (start, piece) in
        [(head.clone(), ""), (head, "x"), (CHUNKED.to_owned(), ""), (CHUNKED.to_owned(), "1\r\nx\r\n")]
    {
        let (mut raw, began) = (front.connect().await, Instant::now());
        raw.send(&start).await;
        while began.elapsed() < limit - Duration::from_millis(100) {
            raw.send(piece).await;
            assert_eq!(raw.stays_silent(Duration::from_millis(20)).await, Ok(()));
        }
        let reply = raw.reply().await;
        assert!(reply.status == 408 && reply.is_last(), "{reply:?}");
        assert!(began.elapsed() >= limit && began.elapsed() < limit + SLACK);
        raw.finish().await;
        raw.closed().await;
    }
    assert!(front.taken().is_empty());
}

#[tokio::test]
async fn a_body_that_breaks_off_is_400_and_not_taken() {
    let front = Front::start();
    for request in [post("x").replace("Length: 1", "Length: 2"), format!("{CHUNKED}5\r\nx"), format!("{CHUNKED}zz\r\n")]
    {
        let mut raw = front.connect().await;
        raw.send(&request).await;
        raw.finish().await;
        assert_eq!(raw.reply().await.status, 400, "{request}");
        raw.closed().await;
    }
    assert!(front.taken().is_empty());
}

/// Requests with one fault each, whatever hyper alone would make of them.
fn two_readings() -> Vec<String> {
    let lines = |lines: &str| format!("POST /fin HTTP/1.1\r\nHost: a\r\nsig: right\r\n{lines}\r\n");
    let body = "5\r\nhello\r\n0\r\n\r\n";
    vec![
        // Two lengths.
        format!("{}{body}", lines("Content-Length: 15\r\nTransfer-Encoding: chunked\r\n")),
        format!("{}{body}", lines("Transfer-Encoding: chunked\r\nContent-Length: 15\r\n")),
        format!("{}hello", lines("Content-Length: 5\r\nContent-Length: 4\r\n")),
        format!("{}hello", lines("Content-Length: 5\r\nContent-Length: 5\r\n")),
        format!("{}hello", lines("Content-Length: 5, 5\r\n")),
        format!("{}hello", lines("Content-Length: +5\r\n")),
        format!("{}hello", lines("Content-Length : 5\r\n")),
        format!("{}hello", lines("Content-Length: 18446744073709551621\r\n")),
        format!("{}{body}", lines("Transfer-Encoding : chunked\r\n")),
        format!("{}{body}", lines("Transfer-Encoding: gzip, chunked\r\n")),
        format!("{}{body}", lines("Transfer-Encoding: identity\r\n")),
        format!("{}{body}", lines("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n")),
        format!("{}{body}", lines("Transfer-Encoding: chunked\r\n").replace("HTTP/1.1", "HTTP/1.0")),
        // Lines that end where another reader sees no end, and the other way round.
        format!("{}hello", lines("Content-Length: 5\r\n")).replace("\r\n", "\n"),
        format!("{}hello", lines("Content-Length: 5\r\n")).replacen("\r\n", "\n", 1),
        format!("{}hello", lines("X: a\nContent-Length: 5\r\n")),
        format!("{}hello", lines("Content-Length: 5\r\nX: a\n")),
        format!("{}hello", lines("X: a\rContent-Length: 5\r\n")),
        format!("{}hello", lines("X: a\r\n b\r\nContent-Length: 5\r\n")),
        format!("{}hello", lines("Content-Length:\r\n 5\r\n")),
        format!("{}hello", lines("X\r\nContent-Length: 5\r\n")),
        format!("{}hello", lines("X: \0\r\nContent-Length: 5\r\n")),
        // Hosts.
        post("hello").replace("Host: a\r\n", ""),
        post("hello").replace("Host: a\r\n", "Host: a\r\nHost: a\r\n").replace("HTTP/1.1", "HTTP/1.0"),
        post("hello").replace("Host: a\r\n", "Host: a\r\nHost: a\r\n"),
        post("hello").replace("Host: a\r\n", "Host: a\r\nhost: b\r\n"),
        // Request lines.
        post("hello").replace("POST /fin", "POST  /fin"),
        post("hello").replace("/fin HTTP/1.1", "/fin"),
        post("hello").replace("HTTP/1.1", "HTTP/1.2"),
        post("hello").replace("HTTP/1.1", "HTTP/2.0"),
    ]
}

#[tokio::test]
async fn a_request_that_could_be_read_in_two_ways_is_400_and_ends_the_connection() {
    let front = Front::start();
    for request in two_readings() {
        // Behind a good request, so that the answer's place in the order shows too.
        for before in ["", &post("good")] {
            let mut raw = front.connect().await;
            raw.send(format!("{before}{request}{}", post("smuggled"))).await;
            if !before.is_empty() {
                assert_eq!(raw.reply().await.status, 200);
            }
            let reply = raw.reply().await;
            assert_eq!(reply.status, 400, "{request:?} → {reply:?}");
            assert!(reply.is_last(), "{request:?} → {reply:?}");
            raw.closed().await;
        }
    }
    assert!(front.taken().iter().all(|body| body == "good"), "nothing of a faulty request is taken");
}

#[tokio::test]
async fn what_hyper_takes_as_the_gate_does_is_read_in_that_one_way() {
    let front = Front::start();
    for request in [
        format!("\r\n\r\n{}", post("x")),
        post("x").replace("Content-Length: 1", "content-length:\t1 "),
        post("x").replace("HTTP/1.1", "HTTP/1.0"),
        post("x").replace("Host: a\r\n", "").replace("HTTP/1.1", "HTTP/1.0"),
        post("x").replace("Host: a", "Host:"),
        post("x").replace("/fin", "http://elsewhere/fin"),
        format!("{}1\r\nx\r\n0\r\n\r\n", CHUNKED.replace("chunked", "CHUNKED")),
    ] {
        let mut raw = front.connect().await;
        raw.send(&request).await;
        assert_eq!(raw.reply().await.status, 200, "{request:?}");
    }
    assert_eq!(front.taken(), vec!["x"; 7]);
}

#[tokio::test]
async fn heads_over_100_headers_or_32_kib_are_431() {
    let front = Front::start();
    let status = async |lines: String| {
        let mut raw = front.connect().await;
        raw.send(with(&lines, "x")).await;
        let reply = raw.reply().await;
        if reply.status != 200 {
            assert_problem(&reply);
        }
        (reply.status, reply.is_last())
    };
    // Three lines are there already.
    let many = |count: usize| "x: y\r\n".repeat(count - 3);
    assert_eq!(status(many(100)).await, (200, false));
    assert_eq!(status(many(101)).await, (431, true));
    assert_eq!(status(many(2000)).await, (431, true));
    let long = |total: usize| format!("x: {}\r\n", "y".repeat(total - with("x: \r\n", "x").len() + 1));
    assert_eq!(status(long(32 * 1024)).await, (200, false));
    assert_eq!(status(long(32 * 1024 + 1)).await, (431, true));
    assert_eq!(status(long(100_000)).await, (431, true));
    assert_eq!(front.taken().len(), 2);
}

#[tokio::test]
async fn what_is_not_http_or_has_too_long_a_target_is_answered_with_a_problem() {
    let front = Front::start();
    let target = "y".repeat(70_000);
    for (head, status) in [("GET\r\n\r\n".to_owned(), 400), (format!("POST /{target} HTTP/1.1\r\n\r\n"), 431)] {
        let mut raw = front.connect().await;
        raw.send(&head).await;
        let reply = raw.reply().await;
        assert_eq!((reply.status, reply.is_last()), (status, true));
        assert_problem(&reply);
        assert_eq!(raw.rest().await, b"", "nothing comes after the answer");
    }
}

/// An error as the contract has it.
fn assert_problem(reply: &Reply) {
    assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{}", reply.head);
    let problem: serde_json::Value = serde_json::from_str(reply.text()).unwrap();
    assert_eq!(problem["status"], reply.status);
}

#[tokio::test]
async fn noise_is_refused_and_does_no_harm() {
    let front = Front::start();
    for noise in [
        &b"\0"[..],
        b"PRI * HTTP/2.0\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        b"\xff\xfe\xfd\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /\n",
        b"() { :; }; x\r\n\r\n",
    ] {
        let mut raw = front.connect().await;
        raw.send(noise).await;
        raw.finish().await;
        // Some are answered with 400 and some with nothing, and all are closed.
        let all = raw.rest().await;
        assert!(all.is_empty() || all.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&all));
    }
    let mut raw = front.connect().await;
    raw.send(post("x")).await;
    assert_eq!(raw.reply().await.status, 200);
}

#[tokio::test]
async fn at_the_cap_the_connection_longest_without_a_complete_head_gives_way() {
    let mut limits = limits();
    (limits.max_connections, limits.header_timeout) = (3, Duration::from_secs(60));
    let front = Front::with(&limits);
    let mut busy = front.connect().await;
    busy.send(post("wait")).await;
    eventually("the request", async || front.taken().len() == 1).await;
    let mut older = front.connect().await;
    older.stays_silent(Duration::from_millis(20)).await.unwrap();
    let mut newer = front.connect().await;
    newer.stays_silent(Duration::from_millis(20)).await.unwrap();
    // A byte now and then makes no difference.
    older.send("P").await;
    older.stays_silent(Duration::from_millis(20)).await.unwrap();

    let mut first = front.connect().await;
    first.send(post("x")).await;
    assert_eq!(first.reply().await.status, 200);
    older.closed().await;
    newer.stays_silent(Duration::from_millis(20)).await.unwrap();
    let mut second = front.connect().await;
    second.send(post("x")).await;
    assert_eq!(second.reply().await.status, 200);
    newer.closed().await;
    front.stub.permits.add_permits(1);
    assert_eq!(busy.reply().await.status, 200, "a request that is being stored never gives way");
}

#[tokio::test]
async fn bodies_that_never_come_do_not_shut_the_door() {
    let mut limits = limits();
    (limits.max_connections, limits.body_timeout) = (2, Duration::from_secs(60));
    let front = Front::with(&limits);
    let (mut one, mut two) = (front.connect().await, front.connect().await);
    for raw in [&mut one, &mut two] {
        raw.send(post("x").replace("Length: 1", "Length: 2")).await;
        raw.stays_silent(Duration::from_millis(20)).await.unwrap();
    }
    let mut genuine = front.connect().await;
    genuine.send(post("x")).await;
    assert_eq!(genuine.reply().await.status, 200);
    one.closed().await;
}

#[tokio::test]
async fn when_every_request_is_being_stored_a_new_connection_waits_until_one_is_done() {
    let mut limits = limits();
    // No other limit helps the new one.
    (limits.max_connections, limits.idle_timeout) = (2, Duration::from_secs(60));
    let front = Front::with(&limits);
    let (mut one, mut two) = (front.connect().await, front.connect().await);
    one.send(post("wait")).await;
    two.send(post("wait")).await;
    eventually("both requests", async || front.taken().len() == 2).await;
    let mut third = front.connect().await;
    third.send(post("x")).await;
    third.stays_silent(Duration::from_millis(100)).await.unwrap();
    front.stub.permits.add_permits(2);
    assert_eq!(one.reply().await.status, 200);
    assert_eq!(two.reply().await.status, 200);
    assert_eq!(third.reply().await.status, 200);
}

#[tokio::test]
async fn a_client_that_reads_no_answers_is_closed_and_bounded() {
    let front = Front::start();
    let mut raw = front.connect().await;
    let many = post("x").repeat(1000);
    let began = Instant::now();
    // The answers fill every buffer on their way back; from then on nothing more is read.
    while tokio::time::timeout(Duration::from_millis(500), raw.try_send(&many)).await == Ok(true) {
        assert!(began.elapsed() < Duration::from_secs(60), "everything is read for ever");
    }
    raw.rest().await;
}
