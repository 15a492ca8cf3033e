//! The accept loop that every listener stands on, and what no framework can do. Routes are axum's: a listener serves any
//! [`Router`].
//!
//! - [`head`]: one reading of a request's head; what could be read in two ways is refused.
//! - [`slots`]: what each connection is doing and since when: timeouts and the cap without a timer a request.
//! - [`connections`]: the open connections, which the accept loop owns.
//! - [`io`]: the socket on its way to hyper, watched for all of them.
//! - [`request`]: from hyper to the router and back. [`automatic`]: the answers that hyper gives by itself.
//! - [`guard`], [`session`], [`problem`]: who may use the operator's listeners, by a token or in a browser, and what every error looks like.
//!
//! Not `axum::serve`: it has no timeouts and no cap. `axum-server` 0.8 takes hyper's builder, but hyper has one timer for
//! both the header and the idle time, and neither knows which connection should give way at the cap.
//!
//! Invariants:
//! - A connection is one task, which the accept loop owns. It ends idle ones after `idle_timeout`, and those with an
//!   incomplete head after `header_timeout`, each within a quarter of a second.
//! - At `max_connections` the connection longest without a complete head gives way to a new one; if all have one, that
//!   which has waited longest for its body; if all requests are being answered, the new one waits until one is done.
//! - When the process runs out of file descriptors the same rule makes room.
//! - A TLS handshake is part of the first head: it has the same time, and gives way at the cap.
//! - A reader that takes nothing of what it is sent for [`STALLED`] is cut off.

mod automatic;
mod connections;
pub mod guard;
mod head;
mod io;
mod problem;
mod request;
mod seldom;
pub mod session;
mod slots;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpSocket};
use tokio::time::{MissedTickBehavior, interval};
use tokio_rustls::TlsAcceptor;

use connections::Connections;
pub use problem::Problem;
pub use seldom::Seldom;

/// Connections that the kernel keeps for the accept loop (it may be configured to keep fewer).
const BACKLOG: u32 = 4096;
/// How long nothing is accepted after accepting failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Longest time between two looks at the connections' limits.
const SWEEP: Duration = Duration::from_millis(250);
/// How long a reader may take nothing of what it is sent.
const STALLED: Duration = Duration::from_secs(30);

/// The limits of one listener.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections open at once.
    pub max_connections: usize,
    /// The key that sets it, for the log; `None`: it is fixed.
    pub max_connections_key: Option<&'static str>,
    /// From a request's first byte to its complete head.
    pub header_timeout: Duration,
    /// Between requests on a kept-alive connection.
    pub idle_timeout: Duration,
    /// How long a shutdown waits for requests.
    pub drain_timeout: Duration,
    /// How long a reader may take nothing of what it is sent.
    pub stalled: Duration,
    /// Whether answers can be large: their pieces go out as they are. If not, they are copied into one, which costs less than a system
    /// call with two while they are small, and memory for as long as the connection lives when they aren't.
    pub large_answers: bool,
    /// Whether a client that has closed its sending side still waits for its answer. If not, it is taken for gone.
    pub half_close: bool,
}

impl Limits {
    /// Those of a listener for the operator's own programs: few and fixed. Streams that nobody reads any more must end.
    #[must_use]
    pub fn for_operators(drain_timeout: Duration) -> Self {
        Self {
            max_connections: 1024,
            max_connections_key: None,
            header_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75),
            drain_timeout,
            stalled: STALLED,
            large_answers: true,
            half_close: false,
        }
    }
}

impl From<&crate::config::Server> for Limits {
    fn from(config: &crate::config::Server) -> Self {
        Self {
            max_connections: config.max_connections.max(1),
            max_connections_key: Some("server.max_connections"),
            header_timeout: config.header_timeout,
            idle_timeout: config.idle_timeout,
            drain_timeout: config.drain_timeout,
            stalled: STALLED,
            large_answers: false,
            half_close: true,
        }
    }
}

/// Told of each request that never reaches the router: its answer's status, and its path as it came, as far as that can be
/// made out.
pub type OnRefused = Arc<dyn Fn(StatusCode, &str) + Send + Sync>;

/// A bound listener, ready to [`run`](Self::run).
pub struct Server {
    tcp: TcpListener,
    addr: SocketAddr,
    limits: Limits,
    on_refused: OnRefused,
    tls: Option<TlsAcceptor>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("addr", &self.addr).field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Server {
    /// Binds an address; port 0 takes any. The listener belongs to the runtime that this is called in.
    ///
    /// # Errors
    /// The address can't be bound.
    pub fn bind(addr: SocketAddr, limits: Limits) -> std::io::Result<Self> {
        let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(addr)?;
        let tcp = socket.listen(BACKLOG)?;
        Ok(Self { addr: tcp.local_addr()?, tcp, limits, on_refused: Arc::new(|_, _| {}), tls: None })
    }

    /// Has somebody told of what never reaches the router.
    #[must_use]
    pub fn on_refused(self, on_refused: OnRefused) -> Self {
        Self { on_refused, ..self }
    }

    /// Talks TLS, with this configuration.
    #[must_use]
    pub fn tls(self, config: ServerConfig) -> Self {
        Self { tls: Some(TlsAcceptor::from(Arc::new(config))), ..self }
    }

    /// The bound address.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Serves until `shutdown` is done, then drains: new connections are refused, idle ones end at once, and what comes
    /// on the others is answered with `Connection: close`. Returns when all have ended, at the latest after
    /// `drain_timeout`, with the number of connections that were cut off then.
    pub async fn run(self, router: Router, shutdown: impl Future<Output = ()>) -> usize {
        let Self { tcp, limits, on_refused, tls, .. } = self;
        let mut shutdown = pin!(shutdown);
        let mut connections = Connections::new(router, &limits, on_refused, tls);
        let shortest = limits.header_timeout.min(limits.idle_timeout);
        let mut sweep = interval((shortest / 4).clamp(Duration::from_millis(5), SWEEP));
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut retry_at: Option<tokio::time::Instant> = None;
        let mut failing = Seldom::default();
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                accepted = tcp.accept(), if retry_at.is_none() && !connections.one_waits() => match accepted {
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
        drop(tcp);
        connections.drain(limits.drain_timeout, &mut sweep).await
    }
}

/// Where a listener on `addr` is reached from this machine.
#[must_use]
pub fn reach(addr: SocketAddr) -> SocketAddr {
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, addr.port())
}

/// Errors of `accept` that concern only the connection that is gone already.
fn is_the_clients(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

#[cfg(test)]
mod tests;
