//! A listener in front of a stand-in for everything behind it: what the request says is what is answered.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::HeaderMap;
use bytes::Bytes;
use finhook::config;
use finhook::journal::AppendError;
use finhook::metrics::Metrics;
use finhook::receive::{self, Answer, Intake, Refusal, Unrouted};
use finhook::serve::{Limits, Server};
use finhook::verify::Scheme;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::raw::Raw;

/// The id in every answer.
pub const ID: Uuid = Uuid::from_u128(0x0192_7a3c_5d6e_8f01_8a2b_3c4d_5e6f_7081);

/// Answers as the body says: `duplicate`, `stale`, `quarantined`, `test`, `unavailable`, `panic`, `wait` (until a
/// permit is there); anything else is accepted. A request without the header `sig` is refused, `sig: wrong` after its
/// body is in. Endpoint 1 has no secret.
#[derive(Debug)]
pub struct Stub {
    /// Bodies that were taken, in their order.
    pub taken: Mutex<Vec<Bytes>>,
    /// Bodies that were answered.
    pub done: Mutex<Vec<Bytes>>,
    /// What `wait` waits for.
    pub permits: Semaphore,
}

impl Intake for Stub {
    type Claim = bool;

    fn claim(&self, endpoint: usize, headers: &HeaderMap) -> Result<bool, Refusal> {
        if endpoint == 1 {
            return Err(Refusal::NoSecret);
        }
        headers.get("sig").map(|value| value != "wrong").ok_or(Refusal::Unauthenticated(Scheme::Fin))
    }

    async fn take(&self, _: usize, right: bool, body: Bytes) -> Answer {
        if !right {
            return Answer::Refused(Refusal::Unauthenticated(Scheme::Fin));
        }
        self.taken.lock().unwrap().push(body.clone());
        let answer = match &body[..] {
            b"duplicate" => Answer::Duplicate(ID),
            b"stale" => Answer::Stale(ID),
            b"quarantined" => Answer::Quarantined(ID),
            b"test" => Answer::Test,
            b"unavailable" => Answer::Refused(Refusal::NotStored(AppendError::Busy)),
            b"panic" => panic!("told to"),
            b"wait" => {
                self.permits.acquire().await.unwrap().forget();
                Answer::Accepted(ID)
            }
            _ => Answer::Accepted(ID),
        };
        self.done.lock().unwrap().push(body);
        answer
    }
}

/// A running listener with the endpoints `/fin` and `/new` (without a secret).
#[derive(Debug)]
pub struct Front {
    pub addr: SocketAddr,
    pub stub: Arc<Stub>,
    pub metrics: Arc<Metrics>,
    stop: oneshot::Sender<()>,
    running: JoinHandle<usize>,
}

/// Limits that tests can wait for.
pub fn limits() -> config::Server {
    config::Server {
        bind: SocketAddr::from(([127, 0, 0, 1], 0)),
        max_body_bytes: 1000,
        header_timeout: Duration::from_millis(400),
        body_timeout: Duration::from_millis(400),
        idle_timeout: Duration::from_millis(2000),
        max_connections: 100,
        ready_path: None,
        drain_timeout: Duration::from_secs(8),
        tls: None,
    }
}

impl Front {
    /// Starts with [`limits`].
    pub fn start() -> Self {
        Self::with(&limits())
    }

    /// Starts with other limits.
    pub fn with(limits: &config::Server) -> Self {
        let metrics = Arc::new(Metrics::new());
        let stub = Arc::new(Stub { taken: Mutex::default(), done: Mutex::default(), permits: Semaphore::new(0) });
        let endpoints = [("fin", "/fin"), ("new", "/new")];
        let unrouted = Arc::new(Unrouted::new(&metrics, &endpoints.map(|(_, path)| path)));
        let router = receive::router(limits, &endpoints, Arc::clone(&stub), &metrics, &unrouted);
        let server = Server::bind(limits.bind, Limits::from(limits)).unwrap();
        let server = server.on_refused(Arc::new(move |status, path| unrouted.refused(status, path)));
        let (stop, stopped) = oneshot::channel::<()>();
        let addr = server.addr();
        let running = tokio::spawn(server.run(router, async move {
            // A dropped sender stops it as well.
            let _ = stopped.await;
        }));
        Self { addr, stub, metrics, stop, running }
    }

    /// A new connection.
    pub async fn connect(&self) -> Raw {
        Raw::connect(self.addr).await
    }

    /// Shuts down; the handle ends with the number of connections that were cut off.
    pub fn stop(self) -> JoinHandle<usize> {
        self.stop.send(()).unwrap();
        self.running
    }

    /// The bodies that were taken so far.
    pub fn taken(&self) -> Vec<Bytes> {
        self.stub.taken.lock().unwrap().clone()
    }
}

/// A request on `/fin` that is well-formed and authentic, with this body.
pub fn post(body: &str) -> String {
    with("", body)
}

/// The same with additional header lines, each ending with CRLF.
pub fn with(lines: &str, body: &str) -> String {
    format!("POST /fin HTTP/1.1\r\nHost: a\r\nsig: right\r\n{lines}Content-Length: {}\r\n\r\n{body}", body.len())
}

/// The head of a chunked request on `/fin` that is well-formed and authentic.
pub const CHUNKED: &str = "POST /fin HTTP/1.1\r\nHost: a\r\nsig: right\r\nTransfer-Encoding: chunked\r\n\r\n";
