//! The accept loop of the listeners behind the front door: gateway and admin. Routes are axum's.
//!
//! Unlike the public listener ([`crate::source::http`]) it serves the operator's own programs, so its limits are few
//! and fixed: a cap on connections, a time for a request's head, and a time in which a reader must take something of
//! what it was sent, so that one that has stopped reading does not stay for ever.

use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep, timeout};

/// Connections open at once.
const MAX_CONNECTIONS: usize = 1024;
/// From a connection's first byte, or the end of the last request, to a complete head.
const HEAD: Duration = Duration::from_secs(30);
/// How long a reader may take nothing.
const STALLED: Duration = Duration::from_secs(30);
/// How long nothing is accepted after accepting failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A bound listener.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    addr: SocketAddr,
    stalled: Duration,
}

impl Server {
    /// Binds an address; port 0 takes any.
    ///
    /// # Errors
    /// The address can't be bound.
    pub async fn bind(addr: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(addr).await?;
        Ok(Self { addr: listener.local_addr()?, listener, stalled: STALLED })
    }

    /// The bound address.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Serves until `shutdown` resolves; then requests that are under way have `drain` to end, and none is left behind.
    pub async fn run(self, router: Router, shutdown: impl Future<Output = ()>, drain: Duration) {
        let mut shutdown = pin!(shutdown);
        let (closing, closed) = watch::channel(false);
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            let accept = async {
                // The semaphore is never closed.
                let slot = Arc::clone(&slots).acquire_owned().await.ok();
                (self.listener.accept().await, slot)
            };
            tokio::select! {
                () = &mut shutdown => break,
                (accepted, slot) = accept => match accepted {
                    Ok((stream, _)) => {
                        let (router, closed) = (router.clone(), closed.clone());
                        let stream = Patient { stream, most: self.stalled, stalled: None };
                        connections.spawn(async move {
                            connection(stream, router, closed).await;
                            drop(slot);
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "can't accept a connection");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
            }
        }
        drop(self.listener);
        closing.send_replace(true);
        let _ = timeout(drain, async { while connections.join_next().await.is_some() {} }).await;
        connections.shutdown().await;
    }
}

/// An answer with a problem (RFC 9457). Its text is constant: details go to the log, never to the client.
#[must_use]
pub fn problem(status: StatusCode, detail: &'static str) -> Response {
    let title = status.canonical_reason().unwrap_or("Error");
    let body = serde_json::json!({"type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail});
    (status, [(header::CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
}

async fn connection(stream: Patient, router: Router, mut closed: watch::Receiver<bool>) {
    // Not being able to is no reason not to serve.
    let _ = stream.stream.set_nodelay(true);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD);
    let mut serving = pin!(http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)));
    tokio::select! {
        // What a client does wrong is its own concern.
        _ = &mut serving => return,
        _ = closed.wait_for(|closed| *closed) => serving.as_mut().graceful_shutdown(),
    }
    let _ = serving.await;
}

/// A socket that gives up when nothing could be written for a while.
struct Patient {
    stream: TcpStream,
    most: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Patient {
    fn written(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if result.is_ready() {
            self.stalled = None;
            return result;
        }
        let most = self.most;
        let timer = self.stalled.get_or_insert_with(|| Box::pin(sleep(most)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Patient {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.written(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.written(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use axum::body::Body;
    use axum::routing::get;
    use futures_util::stream;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::mpsc;

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
        let mut server = Server::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        server.stalled = stalled;
        let addr = server.addr();
        let (given_up, told) = mpsc::channel(1);
        let answer = async move || {
            let chunk = |held| std::future::ready(Some((io::Result::Ok(vec![b'x'; 64 * 1024]), held)));
            Body::from_stream(stream::unfold(Held(given_up.clone()), chunk))
        };
        let router = Router::new().route("/", get(answer));
        let (stop, mut stopped) = watch::channel(false);
        tokio::spawn(async move {
            let stopped = async { drop(stopped.wait_for(|stopped| *stopped).await) };
            server.run(router, stopped, Duration::from_millis(50)).await;
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
}
