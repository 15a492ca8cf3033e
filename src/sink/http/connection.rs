//! Connections to the sink's host, kept between deliveries.
//!
//! A delivery's task drives its connection itself, as long as it has it. A client in which each connection is a task of
//! its own hands every request and every answer from task to task, mostly from thread to thread.
//!
//! Invariants:
//! - A connection belongs to one delivery at a time, so there are never more than deliveries at once.
//! - It is kept only after an answer that was read to its end. A delivery that is given up takes its connection with it.
//! - An unused one is used again within [`IDLE`] only, and closed within twice that.
//! - However busy it is, it ends at about [`outbound::CONNECTION_AGE`], between deliveries: the next one looks the name up anew.

use std::error::Error;
use std::fmt;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response, Uri};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tower::ServiceExt as _;

use super::resolve::Resolver;
use crate::outbound;

/// How long an unused connection is good for another delivery: less than most servers keep it, so that they seldom close it
/// under a request.
const IDLE: Duration = Duration::from_secs(30);

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Broken {
    /// No connection: no name, nobody there, no TLS.
    Connect(Box<dyn Error + Send + Sync>),
    /// No connection in time, TLS included.
    Late,
    /// A connection that broke, or an answer that isn't HTTP.
    Exchange(hyper::Error),
}

/// The connections to one host.
pub(super) struct Connections {
    connector: HttpsConnector<HttpConnector<Resolver>>,
    /// Scheme, host and port.
    target: Uri,
    /// How long connecting may take, TLS included.
    patience: Duration,
    /// [`IDLE`], except in tests.
    idle: Duration,
    /// [`outbound::CONNECTION_AGE`], except in tests.
    age: Duration,
    unused: Arc<Mutex<Unused>>,
}

#[derive(Default)]
struct Unused {
    /// The one that was used last is the last.
    connections: Vec<Connection>,
    /// A task closes those that are too old; only while there are any.
    reaped: bool,
}

/// A connection that one delivery uses.
pub(super) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// Reads and writes when it is polled; gone when the connection has ended.
    driver: Option<Box<Driver>>,
    used: Instant,
    /// When it has served long enough.
    ends: Instant,
}

type Driver = http1::Connection<MaybeHttpsStream<TokioIo<TcpStream>>, Full<Bytes>>;

impl Connections {
    /// Connects to nothing yet.
    pub(super) fn new(target: Uri, tls: ClientConfig, resolver: Resolver, patience: Duration) -> Self {
        let mut tcp = HttpConnector::new_with_resolver(resolver);
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        // Shared out among a name's addresses, so that one that is dead does not use it all up.
        tcp.set_connect_timeout(Some(patience));
        Self {
            connector: HttpsConnector::from((tcp, tls)),
            target,
            patience,
            idle: IDLE,
            age: outbound::CONNECTION_AGE,
            unused: Arc::default(),
        }
    }

    /// Sends a request and waits for its answer's head; the body is still to be read from the connection.
    pub(super) async fn send(
        &self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<(Response<Incoming>, Connection), Broken> {
        while let Some(mut connection) = self.take().await {
            match connection.send(request).await {
                Ok(answer) => return Ok((answer, connection)),
                Err(mut error) => match error.take_message() {
                    // Closed by the other side in this very moment; nothing of the request was sent.
                    Some(unsent) => request = unsent,
                    None => return Err(Broken::Exchange(error.into_error())),
                },
            }
        }
        // Seldom needed, so it needn't lie in every delivery's future.
        let mut connection = Box::pin(self.connect()).await?;
        match connection.send(request).await {
            Ok(answer) => Ok((answer, connection)),
            Err(error) => Err(Broken::Exchange(error.into_error())),
        }
    }

    /// Keeps a connection whose answer was read to its end.
    pub(super) fn keep(&self, mut connection: Connection) {
        connection.used = Instant::now();
        if connection.ends <= connection.used {
            return;
        }
        let mut unused = lock(&self.unused);
        unused.connections.push(connection);
        if !unused.reaped {
            unused.reaped = true;
            tokio::spawn(reap(Arc::downgrade(&self.unused), self.idle));
        }
    }

    /// An unused connection that is still open.
    async fn take(&self) -> Option<Connection> {
        loop {
            let mut connection = lock(&self.unused).connections.pop().filter(|last| last.used.elapsed() < self.idle)?;
            if Instant::now() < connection.ends && connection.is_ready().await {
                return Some(connection);
            }
        }
    }

    async fn connect(&self) -> Result<Connection, Broken> {
        let stream = timeout(self.patience, self.connector.clone().oneshot(self.target.clone()));
        let stream = stream.await.map_err(|_| Broken::Late)?.map_err(Broken::Connect)?;
        let (sender, driver) = http1::handshake(stream).await.map_err(Broken::Exchange)?;
        let ends = outbound::end_of_connection(self.age).into();
        Ok(Connection { sender, driver: Some(Box::new(driver)), used: Instant::now(), ends })
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").field("target", &self.target).finish_non_exhaustive()
    }
}

impl Connection {
    async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Full<Bytes>>>> {
        let mut answer = pin!(self.sender.try_send_request(request));
        poll_fn(|cx| {
            drive(&mut self.driver, cx);
            answer.as_mut().poll(cx)
        })
        .await
    }

    /// Reads an answer's body. False when it is longer than `most` bytes or breaks off: then the connection is of no more use.
    pub(super) async fn read_out(&mut self, mut body: Incoming, most: usize) -> bool {
        let mut read = 0;
        while !body.is_end_stream() {
            let frame = poll_fn(|cx| {
                drive(&mut self.driver, cx);
                Pin::new(&mut body).poll_frame(cx)
            });
            match frame.await {
                None => break,
                Some(Ok(frame)) => read += frame.data_ref().map_or(0, Bytes::len),
                Some(Err(_)) => return false,
            }
            if read > most {
                return false;
            }
        }
        true
    }

    /// Whether it takes another request; not so when the other side has closed it meanwhile.
    async fn is_ready(&mut self) -> bool {
        poll_fn(|cx| {
            drive(&mut self.driver, cx);
            Poll::Ready(self.sender.is_ready())
        })
        .await
    }
}

/// Reads and writes what can be read and written now. What waits for an ended connection learns of it when it is dropped.
fn drive(driver: &mut Option<Box<Driver>>, cx: &mut Context<'_>) {
    if let Some(open) = driver
        && Pin::new(open).poll(cx).is_ready()
    {
        *driver = None;
    }
}

fn lock(unused: &Mutex<Unused>) -> MutexGuard<'_, Unused> {
    // Nothing that runs under the lock can panic half way through a change.
    unused.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Closes connections that nobody used for long, until there are none.
async fn reap(unused: Weak<Mutex<Unused>>, idle: Duration) {
    loop {
        sleep(idle).await;
        let Some(unused) = unused.upgrade() else { return };
        let mut unused = lock(&unused);
        unused.connections.retain(|connection| connection.used.elapsed() < idle);
        if unused.connections.is_empty() {
            unused.reaped = false;
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

    async fn listener() -> (TcpListener, Connections) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        (
            listener,
            Connections::new(target, crate::outbound::no_tls().unwrap(), Resolver::new(false), Duration::from_secs(5)),
        )
    }

    async fn exchange(connections: &Connections) {
        let mut request = Request::new(Full::new(Bytes::from_static(b"{}")));
        *request.method_mut() = hyper::Method::POST;
        let (answer, mut connection) = connections.send(request).await.unwrap();
        assert!(connection.read_out(answer.into_body(), 1024).await);
        connections.keep(connection);
    }

    /// Takes one connection, answers one request.
    async fn serve(listener: &TcpListener) -> TcpStream {
        let mut stream = listener.accept().await.unwrap().0;
        let mut request = Vec::new();
        while !request.ends_with(b"{}") {
            assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0, "{request:?}");
        }
        stream.write_all(ANSWER).await.unwrap();
        stream
    }

    #[tokio::test]
    async fn a_kept_connection_that_was_closed_meanwhile_costs_no_delivery() {
        let (listener, connections) = listener().await;
        for _ in 0..3 {
            let ((), stream) = tokio::join!(exchange(&connections), serve(&listener));
            drop(stream);
            // On the loopback the end is there at once; the runtime has to look at its sockets to see it.
            sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn a_connection_that_is_always_busy_ends_at_its_age_and_no_delivery_fails_for_it() {
        let (listener, mut connections) = listener().await;
        let opened = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&opened);
        let server = tokio::spawn(async move {
            loop {
                let mut stream = listener.accept().await.unwrap().0;
                count.fetch_add(1, Ordering::Relaxed);
                let mut request = Vec::new();
                while stream.read_buf(&mut request).await.unwrap() > 0 {
                    if request.ends_with(b"{}") {
                        request.clear();
                        stream.write_all(ANSWER).await.unwrap();
                    }
                }
            }
        });
        for _ in 0..200 {
            exchange(&connections).await;
        }
        assert_eq!(opened.load(Ordering::Relaxed), 1, "a young one is kept");
        connections.age = Duration::from_millis(20);
        lock(&connections.unused).connections.clear();
        let several = async {
            while opened.load(Ordering::Relaxed) < 4 {
                exchange(&connections).await;
            }
        };
        timeout(Duration::from_secs(10), several).await.expect("busy connections end");
        server.abort();
    }

    #[tokio::test]
    async fn an_unused_connection_is_closed_in_the_end_and_then_nothing_is_left_to_do() {
        let (listener, mut connections) = listener().await;
        connections.idle = Duration::from_millis(50);
        for _ in 0..2 {
            let ((), mut stream) = tokio::join!(exchange(&connections), serve(&listener));
            let closed = timeout(Duration::from_secs(5), stream.read(&mut [0; 8])).await;
            assert_eq!(closed.expect("the relay closes it").unwrap(), 0);
            let unused = lock(&connections.unused);
            assert!(unused.connections.is_empty() && !unused.reaped);
        }
    }
}
