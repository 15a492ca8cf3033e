//! The public HTTP listener: it stands on the internet, and every limit of `[server]` is kept here.
//!
//! - [`head`]: one reading of a request's head; what could be read in two ways is refused.
//! - [`slots`]: what each connection is doing and since when: timeouts and the cap without a timer a request.
//! - [`io`]: the socket on its way to hyper, watched for the two of them.
//! - [`request`]: the checks from a head to an answer. [`answer`]: the answers; [`automatic`]: those that hyper gives.
//!
//! It serves with hyper's HTTP/1 connection in an accept loop of its own. `axum::serve` has no timeouts and no cap.
//! `axum-server` 0.8 takes hyper's builder, but hyper has one timer for both the header and the idle time, and neither
//! knows which connection should give way at the cap. There is no router either: a request's path is compared with the
//! few that are configured, which are literal whatever they hold, and a request's connection needn't travel through its
//! extensions.
//!
//! Invariants:
//! - A connection is one task, which the accept loop owns. It ends idle ones after `idle_timeout`, and those with an
//!   incomplete head after `header_timeout`, each within a quarter of a second.
//! - At `max_connections` the connection longest without a complete head gives way to a new one; if all have one, that
//!   which has waited longest for its body; if all requests are being stored, the new one waits until one is done.
//! - When the process runs out of file descriptors the same rule makes room.

/// A problem's body (RFC 9457). The texts need no escaping.
macro_rules! problem {
    ($status:literal, $title:literal, $detail:literal) => {
        concat!(
            r#"{"type":"about:blank","status":"#,
            $status,
            r#","title":""#,
            $title,
            r#"","detail":""#,
            $detail,
            "\"}"
        )
    };
}

mod answer;
mod automatic;
mod head;
mod io;
mod request;
mod slots;

use std::cell::Cell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::{MissedTickBehavior, interval};

use self::io::{Seen, Watched};
use self::request::{Endpoint, Origin, Service};
use self::slots::{Conn, Quiet, Slots};
use crate::config;
use crate::metrics::Metrics;
use crate::source::{Intake, Seldom};

/// Connections that the kernel keeps for the accept loop (it may be configured to keep fewer).
const BACKLOG: u32 = 4096;

/// How long nothing is accepted after accepting failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Longest time between two looks at the connections' limits.
const SWEEP: Duration = Duration::from_millis(250);

/// How long an idle connection is kept at the begin of a drain, for a request that is already there.
const LAST_LOOK: Duration = Duration::from_millis(20);

/// A bound listener, ready to [`run`](Self::run).
pub struct Listener<I> {
    tcp: TcpListener,
    addr: SocketAddr,
    service: Arc<Service<I>>,
    limits: config::Server,
}

impl<I: Intake> Listener<I> {
    /// Binds `config.bind`. `endpoints` are pairs of name and path; the intake is told their index.
    ///
    /// # Errors
    /// The address can't be bound.
    pub fn bind(
        config: &config::Server,
        endpoints: &[(&str, &str)],
        intake: Arc<I>,
        metrics: Arc<Metrics>,
    ) -> std::io::Result<Self> {
        let socket = if config.bind.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(config.bind)?;
        let tcp = socket.listen(BACKLOG)?;
        let endpoint = |(name, path): &(&str, &str)| Endpoint {
            name: (*name).into(),
            path: (*path).into(),
            metrics: metrics.endpoint(name),
        };
        let service = Service {
            endpoints: endpoints.iter().map(endpoint).collect(),
            intake,
            max_body_bytes: config.max_body_bytes,
            body_timeout: config.body_timeout,
            metrics,
        };
        Ok(Self { addr: tcp.local_addr()?, tcp, service: Arc::new(service), limits: config.clone() })
    }

    /// The bound address.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Serves until `shutdown` is done, then drains: new connections are refused, idle ones end at once, and what comes
    /// on the others is stored and answered with `Connection: close`. Returns when all have ended, at the latest after
    /// `drain_timeout`, with the number of connections that were cut off then.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> usize {
        let mut shutdown = pin!(shutdown);
        let mut connections = Connections::new(self.service, &self.limits);
        let shortest = self.limits.header_timeout.min(self.limits.idle_timeout);
        let mut sweep = interval((shortest / 4).clamp(Duration::from_millis(5), SWEEP));
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut retry_at: Option<tokio::time::Instant> = None;
        let mut failing = Seldom::default();
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                accepted = self.tcp.accept(), if retry_at.is_none() && connections.waiting.is_none() => match accepted {
                    Ok((stream, _)) => connections.admit(stream),
                    Err(error) if is_the_clients(&error) => {}
                    Err(error) => {
                        if let Some(times) = failing.happened() {
                            tracing::error!(%error, times, "can't accept connections; raise the limit of open files (ulimit -n) \
                                or lower server.max_connections. Trying again");
                        }
                        connections.make_room();
                        retry_at = Some(tokio::time::Instant::now() + ACCEPT_PAUSE);
                    }
                },
                () = tokio::time::sleep_until(retry_at.unwrap_or_else(tokio::time::Instant::now)), if retry_at.is_some() => {
                    retry_at = None;
                }
                // There may be a file descriptor again.
                () = connections.one_ended(), if !connections.is_empty() => retry_at = None,
                _ = sweep.tick(), if !connections.is_empty() => connections.sweep(),
            }
        }
        drop(self.tcp);
        connections.drain(self.limits.drain_timeout, &mut sweep).await
    }
}

/// Errors of `accept` that concern only the connection that is gone already.
fn is_the_clients(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// The open connections, owned by the accept loop.
struct Connections<I> {
    service: Arc<Service<I>>,
    http: http1::Builder,
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
}

impl<I: Intake> Connections<I> {
    fn new(service: Arc<Service<I>>, limits: &config::Server) -> Self {
        let mut http = http1::Builder::new();
        // hyper's own timer stays off: see `slots`. A client that has closed its sending side still gets its answer, and
        // a request that is being stored is not given up because its client seems gone.
        http.header_read_timeout(None).half_close(true).max_headers(head::MAX_HEADERS).max_header_size(head::MAX_HEAD);
        // An answer is some 200 bytes: copied into one piece it costs less than a system call with two.
        http.writev(false);
        // Room for a head of the largest size and for what came with it.
        http.max_buf_size(2 * head::MAX_HEAD);
        let count = limits.max_connections.max(1);
        Self {
            service,
            http,
            slots: Arc::new(Slots::new(count, limits.header_timeout, limits.idle_timeout)),
            free: (0..count).rev().collect(),
            tasks: JoinSet::new(),
            slot_of: HashMap::new(),
            handles: (0..count).map(|_| None).collect(),
            waiting: None,
            quiet: Vec::new(),
            giving_way: false,
            said_full: Seldom::default(),
        }
    }

    fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Serves a new connection; at the cap it waits for another one to give way.
    fn admit(&mut self, stream: TcpStream) {
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
        let connection = serve(Arc::clone(&self.service), self.http.clone(), stream, self.slots.open(at));
        let handle = self.tasks.spawn(connection);
        self.slot_of.insert(handle.id(), at);
        self.handles[at] = Some(handle);
    }

    /// Says that the cap is reached.
    fn full(&mut self) {
        if let Some(times) = self.said_full.happened() {
            tracing::warn!(
                times,
                max_connections = self.handles.len(),
                "all connections are in use: each new one takes the place of that which is longest without a request. If \
                 these are genuine clients, raise server.max_connections; if not, limit connections an address in front"
            );
        }
    }

    /// Tells one connection to give way, if there is one that may.
    fn make_room(&mut self) {
        if let Some(at) = self.slots.give_way(&mut self.quiet) {
            self.end(at);
            self.giving_way = true;
        }
    }

    /// Waits for the end of a connection's task and takes its slot back.
    async fn one_ended(&mut self) {
        if let Some(ended) = self.tasks.join_next_with_id().await {
            self.ended(ended);
            if let Some(stream) = self.waiting.take() {
                self.admit(stream);
            }
        }
    }

    fn ended(&mut self, ended: Result<(Id, ()), tokio::task::JoinError>) {
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
    fn sweep(&mut self) {
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
    async fn drain(mut self, timeout: Duration, sweep: &mut tokio::time::Interval) -> usize {
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
async fn serve<I: Intake>(service: Arc<Service<I>>, http: http1::Builder, stream: TcpStream, conn: Conn) {
    // Not being able to is no reason not to serve.
    let _ = stream.set_nodelay(true);
    std::future::poll_fn(|cx| {
        conn.set_waker(cx.waker().clone());
        Poll::Ready(())
    })
    .await;
    let seen = Seen::new();
    let watched = Watched::new(stream, Arc::clone(&seen), conn.clone());
    let requests = Cell::new(0);
    let answer = service_fn(move |request| {
        let number = requests.replace(requests.get() + 1);
        let origin = Origin { conn: conn.clone(), seen: Arc::clone(&seen), number };
        request::respond(Arc::clone(&service), origin, request)
    });
    // What a client does wrong is its own concern: it has been answered or is gone.
    let _ = http.serve_connection(TokioIo::new(watched), answer).await;
}
