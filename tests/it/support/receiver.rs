//! The far end of a relay: an HTTP server on a port of its own that records what comes and answers as it is told, well
//! or badly.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use super::wait::PATIENCE;

/// One request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    /// Counted from 0 in the order of accepting.
    pub(crate) connection: usize,
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Received {
    /// The value of a header that must be there once.
    pub(crate) fn header(&self, name: &str) -> &str {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next().unwrap_or_else(|| panic!("no header {name} in {:?}", self.headers));
        assert_eq!(values.next(), None, "{name} is there twice");
        value.to_str().unwrap()
    }
}

/// What the receiver does with a request that it has read.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// A whole answer, after a while.
    Whole { status: u16, headers: Vec<(&'static str, String)>, body: Vec<u8>, after: Duration },
    /// A head, and then a body that never ends: `chunk` bytes at a time.
    Endless { status: u16, chunk: usize, every: Duration },
    /// These bytes in place of an answer, then the end of the connection.
    Raw(&'static [u8]),
    /// Nothing, for ever.
    Hang,
    /// The connection is reset.
    Reset,
}

impl Answer {
    /// An empty answer at once.
    pub(crate) fn status(status: u16) -> Self {
        Self::Whole { status, headers: Vec::new(), body: Vec::new(), after: Duration::ZERO }
    }

    /// The same with one more header.
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        if let Self::Whole { headers, .. } = &mut self {
            headers.push((name, value.into()));
        }
        self
    }

    /// The same with a body.
    pub(crate) fn body(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        if let Self::Whole { body, .. } = &mut self {
            *body = bytes.into();
        }
        self
    }

    /// The same, later.
    pub(crate) fn after(mut self, delay: Duration) -> Self {
        if let Self::Whole { after, .. } = &mut self {
            *after = delay;
        }
        self
    }
}

/// Listens until it is dropped.
pub(crate) struct Receiver {
    address: SocketAddr,
    tls: bool,
    shared: Arc<Shared>,
    received: watch::Receiver<Vec<Received>>,
    accepting: AbortHandle,
}

struct Shared {
    /// For the next requests, one each; then `otherwise`.
    answers: Mutex<VecDeque<Answer>>,
    otherwise: Mutex<Answer>,
    /// For requests in which this header has this value; before all others.
    chosen: Mutex<HashMap<(&'static str, String), Answer>>,
    received: watch::Sender<Vec<Received>>,
    connections: AtomicUsize,
    in_flight: AtomicUsize,
    most_in_flight: AtomicUsize,
    dripped: AtomicUsize,
}

impl Receiver {
    /// Answers 200 until it is told otherwise.
    pub(crate) async fn start() -> Self {
        Self::listen(None).await
    }

    /// The same over TLS.
    pub(crate) async fn start_tls(config: ServerConfig) -> Self {
        Self::listen(Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    /// The same at an address at which nobody listens yet.
    pub(crate) async fn start_at(address: SocketAddr) -> Self {
        Self::listen_on(TcpListener::bind(address).await.unwrap(), None)
    }

    async fn listen(tls: Option<TlsAcceptor>) -> Self {
        Self::listen_on(TcpListener::bind(("127.0.0.1", 0)).await.unwrap(), tls)
    }

    fn listen_on(listener: TcpListener, tls: Option<TlsAcceptor>) -> Self {
        let address = listener.local_addr().unwrap();
        let (sender, received) = watch::channel(Vec::new());
        let shared = Arc::new(Shared {
            answers: Mutex::default(),
            otherwise: Mutex::new(Answer::status(200)),
            chosen: Mutex::default(),
            received: sender,
            connections: AtomicUsize::new(0),
            in_flight: AtomicUsize::new(0),
            most_in_flight: AtomicUsize::new(0),
            dripped: AtomicUsize::new(0),
        });
        let is_tls = tls.is_some();
        let accepting = tokio::spawn(accept(listener, tls, Arc::clone(&shared))).abort_handle();
        Self { address, tls: is_tls, shared, received, accepting }
    }

    /// Where to POST.
    pub(crate) fn url(&self) -> String {
        format!("{}://{}/fin", if self.tls { "https" } else { "http" }, self.address)
    }

    /// Answers the next request that has no answer yet so.
    pub(crate) fn answer_next(&self, answer: Answer) {
        self.shared.answers.lock().unwrap().push_back(answer);
    }

    /// Answers all further requests so.
    pub(crate) fn answer_all(&self, answer: Answer) {
        *self.shared.otherwise.lock().unwrap() = answer;
    }

    /// What to answer to requests in which a header has a value; `None`: as to all others.
    pub(crate) fn answer_where(&self, header: &'static str, value: &str, answer: Option<Answer>) {
        let mut chosen = self.shared.chosen.lock().unwrap();
        let key = (header, value.to_owned());
        match answer {
            Some(answer) => drop(chosen.insert(key, answer)),
            None => drop(chosen.remove(&key)),
        }
    }

    /// What came so far, in order.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.borrow().clone()
    }

    /// What came, once it is `count` requests or more.
    pub(crate) async fn wait_for(&self, count: usize) -> Vec<Received> {
        let mut received = self.received.clone();
        match timeout(PATIENCE, received.wait_for(|received| received.len() >= count)).await {
            Ok(received) => received.unwrap().clone(),
            Err(_) => panic!("{} requests came, not {count}", self.received().len()),
        }
    }

    /// Connections accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Most requests that were there at once, read and not answered.
    pub(crate) fn most_in_flight(&self) -> usize {
        self.shared.most_in_flight.load(Ordering::SeqCst)
    }

    /// Bytes of endless bodies handed to the connection.
    pub(crate) fn dripped(&self) -> usize {
        self.shared.dripped.load(Ordering::SeqCst)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    // Dropped with this task, and the connections with it.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let number = shared.connections.fetch_add(1, Ordering::SeqCst);
        let shared = Arc::clone(&shared);
        let tls = tls.clone();
        connections.spawn(async move {
            stream.set_nodelay(true).unwrap();
            let stream = stream.into_std().unwrap();
            let socket = TcpStream::from_std(stream.try_clone().unwrap()).unwrap();
            let stream = TcpStream::from_std(stream).unwrap();
            match tls {
                None => serve(stream, socket, number, shared).await,
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        serve(stream, socket, number, shared).await;
                    }
                }
            }
        });
    }
}

/// `socket` is the connection's once more, for what no well-behaved server does.
async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, socket: TcpStream, connection: usize, shared: Arc<Shared>) {
    let socket = Arc::new(tokio::sync::Mutex::new(socket));
    let service = service_fn(|request| {
        let shared = Arc::clone(&shared);
        let socket = Arc::clone(&socket);
        async move {
            let answer = shared.record(connection, request).await;
            let answer = shared.carry_out(answer, &socket).await;
            shared.in_flight.fetch_sub(1, Ordering::SeqCst);
            answer
        }
    });
    // Its errors are those that the tests make.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

impl Shared {
    async fn record(&self, connection: usize, request: Request<Incoming>) -> Answer {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let in_flight = self.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_in_flight.fetch_max(in_flight, Ordering::SeqCst);
        let received = Received {
            connection,
            method: head.method.to_string(),
            target: head.uri.to_string(),
            headers: head.headers,
            body,
        };
        let chosen = self.chosen.lock().unwrap().iter().find_map(|((header, value), answer)| {
            (received.headers.get(*header)?.as_bytes() == value.as_bytes()).then(|| answer.clone())
        });
        self.received.send_modify(|all| all.push(received));
        if let Some(chosen) = chosen {
            return chosen;
        }
        let next = self.answers.lock().unwrap().pop_front();
        next.unwrap_or_else(|| self.otherwise.lock().unwrap().clone())
    }

    async fn carry_out(
        self: &Arc<Self>,
        answer: Answer,
        socket: &tokio::sync::Mutex<TcpStream>,
    ) -> io::Result<Response<Either<Full<Bytes>, Drip>>> {
        match answer {
            Answer::Whole { status, headers, body, after } => {
                sleep(after).await;
                let mut response = Response::builder().status(status);
                for (name, value) in headers {
                    response = response.header(name, value);
                }
                Ok(response.body(Either::Left(Full::from(body))).unwrap())
            }
            Answer::Endless { status, chunk, every } => {
                let chunk = Bytes::from(vec![b'x'; chunk]);
                let drip = Drip { chunk, every, next: Box::pin(sleep(every)), shared: Arc::clone(self) };
                Ok(Response::builder().status(status).body(Either::Right(drip)).unwrap())
            }
            Answer::Hang => pending().await,
            Answer::Raw(bytes) => {
                socket.lock().await.write_all(bytes).await?;
                Err(io::Error::other("ends here"))
            }
            Answer::Reset => {
                // Closed without waiting, the system sends RST.
                socket.lock().await.set_zero_linger()?;
                Err(io::Error::other("ends here"))
            }
        }
    }
}

/// A body without an end.
struct Drip {
    chunk: Bytes,
    every: Duration,
    next: Pin<Box<Sleep>>,
    shared: Arc<Shared>,
}

impl Body for Drip {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if !self.every.is_zero() {
            std::task::ready!(self.next.as_mut().poll(cx));
            self.next = Box::pin(sleep(self.every));
        }
        self.shared.dripped.fetch_add(self.chunk.len(), Ordering::SeqCst);
        Poll::Ready(Some(Ok(Frame::data(self.chunk.clone()))))
    }
}
