#![allow(clippy::unwrap_used)]

use axum::body::Body;
use axum::routing::get;
use futures_util::stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::*;

/// Nothing waits for it unless it fails.
const DEADLINE: Duration = Duration::from_secs(20);

/// Says when it is dropped.
struct Held(mpsc::Sender<()>);

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.try_send(());
    }
}

/// Serves one path whose answer has no end; says when an answer is given up.
async fn endless(stalled: Duration) -> (SocketAddr, mpsc::Receiver<()>, watch::Sender<bool>) {
    let limits = Limits { stalled, ..Limits::for_operators(Duration::from_millis(50)) };
    let server = Server::bind(([127, 0, 0, 1], 0).into(), limits).unwrap();
    let addr = server.addr();
    let (given_up, told) = mpsc::channel(1);
    let answer = async move || {
        let chunk = |held| std::future::ready(Some((std::io::Result::Ok(vec![b'x'; 64 * 1024]), held)));
        Body::from_stream(stream::unfold(Held(given_up.clone()), chunk))
    };
    let router = Router::new().route("/", get(answer));
    let (stop, mut stopped) = watch::channel(false);
    tokio::spawn(async move {
        let stopped = async { drop(stopped.wait_for(|stopped| *stopped).await) };
        server.run(router, stopped).await;
    });
    (addr, told, stop)
}

async fn ask(addr: SocketAddr) -> TcpStream {
    let mut client = TcpStream::connect(addr).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut first = [0; 15];
    client.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200 OK");
    client
}

#[tokio::test]
async fn a_reader_that_has_stopped_reading_is_cut_off() {
    let (addr, mut told, _stop) = endless(Duration::from_millis(50)).await;
    let client = ask(addr).await;
    assert_eq!(timeout(DEADLINE, told.recv()).await, Ok(Some(())));
    drop(client);
}

#[tokio::test]
async fn answers_without_an_end_are_given_up_when_the_drain_time_is_over() {
    let (addr, mut told, stop) = endless(DEADLINE).await;
    let client = ask(addr).await;
    stop.send_replace(true);
    assert_eq!(timeout(DEADLINE, told.recv()).await, Ok(Some(())));
    drop(client);
}

#[tokio::test]
async fn a_stream_is_being_answered_until_it_ends_and_is_not_idle() {
    let mut limits = Limits::for_operators(Duration::from_millis(50));
    limits.idle_timeout = Duration::from_millis(100);
    let server = Server::bind(([127, 0, 0, 1], 0).into(), limits).unwrap();
    let addr = server.addr();
    let (more, told) = mpsc::channel::<&'static str>(1);
    let told = std::sync::Arc::new(tokio::sync::Mutex::new(told));
    let answer = async move || {
        Body::from_stream(stream::unfold(told, async |told| {
            let next = told.lock().await.recv().await?;
            Some((std::io::Result::Ok(next), told))
        }))
    };
    tokio::spawn(server.run(Router::new().route("/", get(answer)), std::future::pending()));
    let mut client = ask(addr).await;
    // A second connection that is idle shows that the time is over.
    let mut idle = TcpStream::connect(addr).await.unwrap();
    assert_eq!(timeout(DEADLINE, idle.read(&mut [0])).await.unwrap().unwrap(), 0);
    more.send("later").await.unwrap();
    let mut rest = Vec::new();
    while !rest.ends_with(b"later\r\n") {
        assert_ne!(timeout(DEADLINE, client.read_buf(&mut rest)).await.unwrap().unwrap(), 0, "closed");
    }
}
