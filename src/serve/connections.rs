//! The open connections of a listener: a task and a slot each.

use std::cell::Cell;
use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::Interval;
use tokio_rustls::{Accept, TlsAcceptor};

use super::head;
use super::io::{Seen, Watched};
use super::request::{self, Origin};
use super::slots::{Conn, Quiet, Slots};
use super::{Limits, OnRefused, Seldom};

/// How long an idle connection is kept at the begin of a drain, for a request that is already there.
const LAST_LOOK: Duration = Duration::from_millis(20);

/// The open connections, owned by the accept loop.
pub(super) struct Connections {
    shared: Arc<Shared>,
    slots: Arc<Slots>,
    free: Vec<usize>,
    tasks: JoinSet<()>,
    /// The slot of each task.
    slot_of: HashMap<Id, usize>,
    /// The handle of each slot's task.
    handles: Box<[Option<AbortHandle>]>,
    /// An accepted connection for which there is no slot yet.
    waiting: Option<TcpStream>,
    /// Those that give way next: see [`Slots::give_way`].
    quiet: Vec<Quiet>,
    /// A connection was told to give way and has not ended yet.
    giving_way: bool,
    said_full: Seldom,
    max_connections_key: Option<&'static str>,
}

/// What every connection of a listener needs.
struct Shared {
    router: Router,
    http: http1::Builder,
    stalled: Duration,
    on_refused: OnRefused,
    tls: Option<TlsAcceptor>,
    /// Handshakes that failed.
    said_tls: Mutex<Seldom>,
}

impl Connections {
    pub(super) fn new(router: Router, limits: &Limits, on_refused: OnRefused, tls: Option<TlsAcceptor>) -> Self {
        let mut http = http1::Builder::new();
        // hyper's own timer stays off: see `slots`.
        http.header_read_timeout(None).half_close(limits.half_close);
        // Of header lines it takes 100, hyper's own limit: to set it would cost a loop over as many at each request.
        http.max_header_size(head::MAX_HEAD);
        http.writev(limits.large_answers);
        // Room for a head of the largest size and for what came with it.
        http.max_buf_size(2 * head::MAX_HEAD);
        let count = limits.max_connections;
        Self {
            shared: Arc::new(Shared {
                router,
                http,
                stalled: limits.stalled,
                on_refused,
                tls,
                said_tls: Mutex::default(),
            }),
            slots: Arc::new(Slots::new(count, limits.header_timeout, limits.idle_timeout)),
            free: (0..count).rev().collect(),
            tasks: JoinSet::new(),
            slot_of: HashMap::new(),
            handles: (0..count).map(|_| None).collect(),
            waiting: None,
            quiet: Vec::new(),
            giving_way: false,
            said_full: Seldom::default(),
            max_connections_key: limits.max_connections_key,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Whether an accepted connection waits for a slot.
    pub(super) fn one_waits(&self) -> bool {
        self.waiting.is_some()
    }

    /// Serves a new connection; at the cap it waits for another one to give way.
    pub(super) fn admit(&mut self, stream: TcpStream) {
        if self.free.is_empty() {
            while let Some(ended) = self.tasks.try_join_next_with_id() {
                self.ended(ended);
            }
        }
        let Some(at) = self.free.pop() else {
            self.waiting = Some(stream);
            self.full();
            self.make_room();
            return;
        };
        let connection = serve(Arc::clone(&self.shared), stream, self.slots.open(at));
        let handle = self.tasks.spawn(connection);
        self.slot_of.insert(handle.id(), at);
        self.handles[at] = Some(handle);
    }

    /// Says that the cap is reached.
    fn full(&mut self) {
        if let Some(times) = self.said_full.happened() {
            let remedy = self.max_connections_key.map_or_else(String::new, |key| {
                format!(". If these are genuine clients, raise {key}; if not, limit connections an address in front")
            });
            tracing::warn!(
                times,
                max_connections = self.handles.len(),
                "all connections are in use: each new one takes the place of that which is longest without a request{remedy}"
            );
        }
    }

    /// Tells one connection to give way, if there is one that may.
    pub(super) fn make_room(&mut self) {
        if let Some(at) = self.slots.give_way(&mut self.quiet) {
            self.end(at);
            self.giving_way = true;
        }
    }

    /// Waits for the end of a connection's task and takes its slot back.
    pub(super) async fn one_ended(&mut self) {
        if let Some(ended) = self.tasks.join_next_with_id().await {
            self.ended(ended);
            if let Some(stream) = self.waiting.take() {
                self.admit(stream);
            }
        }
    }

    fn ended(&mut self, ended: Result<(Id, ()), JoinError>) {
        let id = match &ended {
            Ok((id, ())) => *id,
            Err(error) => error.id(),
        };
        if let Some(at) = self.slot_of.remove(&id) {
            self.slots.free(at);
            self.handles[at] = None;
            self.free.push(at);
            self.giving_way = false;
        }
        if ended.is_err_and(|error| error.is_panic()) {
            tracing::error!("a connection's task panicked: this is a bug in finhook, please report it");
        }
    }

    /// Ends the connections that are past their limits.
    pub(super) fn sweep(&mut self) {
        let now = Instant::now();
        let mut from = 0;
        while let Some(at) = self.slots.overdue(from, now) {
            self.end(at);
            from = at + 1;
        }
        // All requests were being stored when the waiting one came: one may have been answered since.
        if self.waiting.is_some() && !self.giving_way {
            self.make_room();
        }
    }

    fn end(&mut self, at: usize) {
        if let Some(handle) = self.handles[at].take() {
            handle.abort();
        }
    }

    /// Waits for the connections to end; those that haven't after `timeout` are cut off and counted.
    pub(super) async fn drain(mut self, timeout: Duration, sweep: &mut Interval) -> usize {
        self.waiting = None;
        self.slots.drain();
        // What had been sent before is stored: the runtime sees it on every socket before an idle one is closed.
        tokio::time::sleep(LAST_LOOK.min(timeout)).await;
        self.slots.end_idle();
        let mut deadline = pin!(tokio::time::sleep(timeout));
        while !self.is_empty() {
            tokio::select! {
                () = &mut deadline => break,
                () = self.one_ended() => {}
                _ = sweep.tick() => self.sweep(),
            }
        }
        let cut_off = self.tasks.len();
        self.tasks.shutdown().await;
        cut_off
    }
}

/// Serves one connection to its end.
async fn serve(shared: Arc<Shared>, stream: TcpStream, conn: Conn) {
    // Not being able to is no reason not to serve.
    let _ = stream.set_nodelay(true);
    std::future::poll_fn(|cx| {
        conn.set_waker(cx.waker().clone());
        Poll::Ready(())
    })
    .await;
    match &shared.tls {
        None => talk(Arc::clone(&shared), stream, conn).await,
        // Large, and not to lie in the task of a connection without it.
        Some(tls) => Box::pin(talk_tls(Arc::clone(&shared), tls.accept(stream), conn)).await,
    }
}

/// The same behind a TLS handshake, which counts as a head that isn't complete.
async fn talk_tls(shared: Arc<Shared>, handshake: Accept<TcpStream>, conn: Conn) {
    conn.bytes_came();
    match handshake.await {
        Ok(stream) => talk(shared, stream, conn).await,
        Err(error) => {
            let mut said = shared.said_tls.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(times) = said.happened() {
                tracing::warn!(
                    %error,
                    times,
                    "a TLS handshake failed: the client spoke plain HTTP, or did not trust the certificate. Said once a minute at most"
                );
            }
        }
    }
}

/// Speaks HTTP on one connection, to its end.
async fn talk<S: AsyncRead + AsyncWrite + Unpin>(shared: Arc<Shared>, stream: S, conn: Conn) {
    let seen = Seen::new();
    let refused = Arc::clone(&shared.on_refused);
    let watched = Watched::new(stream, Arc::clone(&seen), conn.clone(), shared.stalled, refused);
    let http = shared.http.clone();
    let requests = Cell::new(0);
    let answer = service_fn(move |request| {
        let number = requests.replace(requests.get() + 1);
        let origin = Origin { conn: conn.clone(), seen: Arc::clone(&seen), number };
        request::respond(&shared.router, &shared.on_refused, origin, request)
    });
    // What a client does wrong is its own concern: it has been answered or is gone.
    let _ = http.serve_connection(TokioIo::new(watched), answer).await;
}
