//! Wires everything together: builds what the configuration asks for, runs it, and ends it in order.
//!
//! [`App::build`] opens the journal and binds the listeners; [`App::run`] serves until its shutdown future is done:
//!
//! 1. not ready; no new connections; what comes on open ones is stored and answered,
//! 2. the sinks get what is left of `server.drain_timeout` to deliver,
//! 3. the journal finishes what waits and closes.
//!
//! Every task's handle is kept. One that ends early, or panics, ends the process with an error: a supervisor restarts it, and
//! the journal has everything.

mod fin;
mod front;
mod sinks;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::admin::{self, Readiness, Stage};
use crate::certificate;
use crate::config::{self, Config};
use crate::console;
use crate::conversations::Conversations;
use crate::dispatch::Phase;
use crate::journal::{self, Journal};
use crate::live::Live;
use crate::metrics::Metrics;
use crate::receive::{self, Endpoint, Receiver, Unrouted};
use crate::serve::{self, Limits, Server};
use crate::verify::{Keyring, Scheme, rotation};
use fin::FinSide;
use front::Front;

/// How long each step after the drain time may take: all of them, and with them the whole end, stay below the ten seconds
/// after which a container is killed.
const CLOSE_PATIENCE: Duration = Duration::from_millis(400);

/// Why finhook could not start, or ended. Each text says what to do, or is followed by a log line that does.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The journal could not be opened.
    #[error(transparent)]
    Open(#[from] journal::OpenError),
    /// The journal failed while running.
    #[error(transparent)]
    Journal(#[from] journal::Ended),
    /// A sink could not be set up.
    #[error("sinks.{name}: {why}")]
    Sink {
        /// Its name.
        name: String,
        /// What is wrong and what to do.
        why: String,
    },
    /// The journal did not take a change at start.
    #[error("the journal can't be written: {0}")]
    Write(#[from] journal::WriteError),
    /// The journal could not be read at start.
    #[error(transparent)]
    Read(#[from] journal::ReadError),
    /// An address could not be bound.
    #[error("{key} = \"{addr}\" can't be bound: {error}: {}", bind_fix(error, addr))]
    Bind {
        /// The configuration key.
        key: &'static str,
        /// The address.
        addr: SocketAddr,
        /// Why.
        error: std::io::Error,
    },
    /// A certificate or its key can't be used any more: it could when the configuration was read.
    #[error("{key}: {problem}")]
    Certificate {
        /// The configuration key.
        key: &'static str,
        /// What is wrong.
        problem: certificate::Problem,
    },
    /// TLS can't be set up at all.
    #[error("{key}: TLS can't be set up: {error}; this is a bug in finhook")]
    Tls {
        /// The configuration key.
        key: &'static str,
        /// Why.
        error: rustls::Error,
    },
    /// There is no thread for the listener.
    #[error("no thread for the listener: {0}: raise the limit of threads (ulimit -u, or the container's pids limit)")]
    Threads(std::io::Error),
    /// A background task ended though nobody asked it to.
    #[error("{0} ended unexpectedly; this is a bug in finhook")]
    TaskEnded(&'static str),
}

/// Everything, built and bound but not yet serving.
pub struct App {
    config: Config,
    metrics: Arc<Metrics>,
    front: Front,
    journal: Journal,
    journal_running: journal::Running,
    readiness: Readiness,
    server: Server,
    router: Router,
    admin: admin::Listener,
    live: Live,
    fin: Option<FinSide>,
    workers: JoinSet<()>,
    background: JoinSet<()>,
    phase: watch::Sender<Phase>,
}

impl App {
    /// Opens the journal, starts the sinks' workers and binds the listeners.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn build(config: Config) -> Result<Self, Error> {
        survive_file_size_limit();
        let metrics = Arc::new(Metrics::new());
        let front = Front::start().map_err(Error::Threads)?;
        let journal::Opened { journal, running } = {
            let _its_answers_run_in = front.enter();
            journal::open(&config.journal, metrics.clone())?
        };
        let (phase, phases) = watch::channel(Phase::Running);
        let (mut workers, mut background) = (JoinSet::new(), JoinSet::new());
        let sinks = sinks::start(&config, &journal, &metrics, &phases, &mut workers, &mut background).await?;

        let (mut endpoints, mut callbacks) = (Vec::new(), Vec::new());
        for (name, settings) in &config.endpoints {
            let name: Arc<str> = name.as_str().into();
            let keyring = Arc::new(Keyring::of(settings.kind, &settings.secrets));
            if keyring.is_empty() {
                let (key, file_key) = config::Endpoint::secrets_key(settings.kind);
                tracing::warn!(
                    endpoint = &*name,
                    "no signing secret yet: HEAD is answered so that the callback URL can be saved in Intercom, POST gets 503. Then \
                     put the secret into {file_key} (taken at once) or {key} (needs a restart)"
                );
            }
            if let Some(file) = settings.secrets_file.clone() {
                let watched = rotation::watch(file, keyring.clone(), name.clone());
                background.spawn(async move { match watched.await {} });
            }
            callbacks.push((name.to_string(), settings.path.clone(), keyring.clone()));
            endpoints.push(Endpoint {
                metrics: metrics.endpoint(&name),
                name,
                keyring,
                client_secret: settings
                    .client_secret
                    .as_ref()
                    .map(|secret| Keyring::of(Scheme::Intercom, std::slice::from_ref(secret))),
                mismatches: Mutex::default(),
                mistaken: Mutex::default(),
            });
        }
        let retention = journal.retention(&config.journal)?;
        background.spawn(journal::retention::run(retention, config.journal.retention));
        let receiver = Receiver::new(endpoints, journal.clone(), config.journal.dedupe_window);
        let paths: Vec<(&str, &str)> =
            config.endpoints.iter().map(|(name, endpoint)| (name.as_str(), endpoint.path.as_str())).collect();
        let listed: Vec<&str> = paths.iter().map(|(_, path)| *path).collect();
        let unrouted = Arc::new(Unrouted::new(&metrics, &listed));
        let mut router = receive::router(&config.server, &paths, Arc::new(receiver), &metrics, &unrouted);
        let readiness = Readiness::new(journal.clone());
        if let Some(path) = &config.server.ready_path {
            let readiness = readiness.clone();
            let is_ready = move || readiness.not_ready().is_none();
            router = router.merge(receive::ready(path, is_ready, Arc::clone(&unrouted)));
        }
        let server = {
            let _it_runs_in = front.enter();
            Server::bind(config.server.bind, Limits::from(&config.server)).map_err(|error| Error::Bind {
                key: "server.bind",
                addr: config.server.bind,
                error,
            })?
        };
        let mut server = server.on_refused(Arc::new(move |status, path| unrouted.refused(status, path)));
        if let Some(tls) = tls("server.tls_cert_file", config.server.tls.as_ref(), &mut background)? {
            server = server.tls(tls);
        }
        let live = Live::new(&journal, metrics.clone())?;
        let (conversations, follower) = Conversations::open(&config.journal.path, &journal)?;
        background.spawn(async move { match follower.run().await {} });
        let api = admin::Api::new(&config, metrics.clone(), journal.clone(), conversations, sinks)?;
        let mut admin = admin::Listener::bind(&config.admin, readiness.clone(), live.clone(), api)
            .map_err(|error| Error::Bind { key: "admin.bind", addr: config.admin.bind, error })?;
        let callbacks = callbacks.into_iter().map(|(name, path, keyring)| console::Callback {
            name,
            url: callback(config.server.tls.is_some(), server.addr(), &path),
            keyring,
        });
        let pages = console::router(admin.api(), admin.guard(), &config, callbacks.collect());
        admin = admin.pages(pages);
        if let Some(tls) = tls("admin.tls_cert_file", config.admin.tls.as_ref(), &mut background)? {
            admin = admin.tls(tls);
        }
        let fin = match &config.gateway {
            Some(settings) => {
                let bound = FinSide::bind(settings, &config, &journal, &live, &metrics);
                Some(bound.map_err(|error| Error::Bind { key: "gateway.bind", addr: settings.bind, error })?)
            }
            None => None,
        };
        Ok(Self {
            config,
            metrics,
            front,
            journal,
            journal_running: running,
            readiness,
            server,
            router,
            admin,
            live,
            fin,
            workers,
            background,
            phase,
        })
    }

    /// The bound address of the public listener.
    #[must_use]
    pub fn public_addr(&self) -> SocketAddr {
        self.server.addr()
    }

    /// The bound address of the admin listener.
    #[must_use]
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin.local_addr()
    }

    /// The bound address of the gateway, if it is on.
    #[must_use]
    pub fn gateway_addr(&self) -> Option<SocketAddr> {
        self.fin.as_ref().map(FinSide::addr)
    }

    /// All metrics.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Serves until `shutdown` is done, then ends in order.
    ///
    /// # Errors
    /// Something failed that the process can't go on without: see [`Error`].
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
        let drain_timeout = self.config.server.drain_timeout;
        let mut phases = self.phase.subscribe();
        tracing::info!(public = %self.server.addr(), admin = %self.admin.local_addr(), "listening");
        for (name, endpoint) in &self.config.endpoints {
            tracing::info!(
                endpoint = name,
                url = callback(self.config.server.tls.is_some(), self.server.addr(), &endpoint.path),
                next = "finhook send",
                "callback URL; for Fin it is the path behind your proxy's https address"
            );
        }
        let (admin_stop, admin_stopped) = tokio::sync::oneshot::channel::<()>();
        let mut admin = tokio::spawn(self.admin.run(async move { drop(admin_stopped.await) }));
        let mut listener = self.front.handle().spawn(self.server.run(self.router, async move {
            // An error means that the sender is gone: the process is ending.
            let _ = phases.wait_for(|phase| *phase >= Phase::Draining).await;
        }));
        let mut fin = JoinSet::new();
        if let Some(side) = self.fin {
            tracing::info!(gateway = %side.addr(), "listening");
            fin.spawn(side.run(self.phase.subscribe()));
        }
        self.readiness.set(Stage::Ready);

        let early = tokio::select! {
            () = shutdown => None,
            ended = self.journal_running.ended() => Some(ended.map_or_else(Error::Journal, |()| Error::TaskEnded("the journal"))),
            Some(_) = self.workers.join_next() => Some(Error::TaskEnded("a sink's worker")),
            Some(_) = self.background.join_next() => Some(Error::TaskEnded("a background task")),
            _ = &mut listener => Some(Error::TaskEnded("the public listener")),
            _ = &mut admin => Some(Error::TaskEnded("the admin listener")),
            Some(_) = fin.join_next() => Some(Error::TaskEnded("the gateway")),
        };
        self.readiness.set(Stage::Draining);
        if let Some(error) = early {
            // What is under way can't be finished; what was acknowledged is on disk.
            self.phase.send_replace(Phase::Stopping);
            self.journal.close();
            return Err(error);
        }

        let deadline = Instant::now() + drain_timeout;
        tracing::info!(seconds = drain_timeout.as_secs_f64(), "draining");
        self.phase.send_replace(Phase::Draining);
        // They have no end of their own.
        self.live.close();
        match listener.await {
            Ok(0) => {}
            Ok(cut) => tracing::warn!(connections = cut, "cut off at the end of server.drain_timeout"),
            Err(_) => return Err(Error::TaskEnded("the public listener")),
        }
        // Calls of Fin that are under way; it keeps to the same time.
        while fin.join_next().await.is_some() {}
        let all_done = async { while self.workers.join_next().await.is_some() {} };
        if tokio::time::timeout_at(deadline.into(), all_done).await.is_err() {
            tracing::info!("some sinks are behind; they go on at the next start");
            self.phase.send_replace(Phase::Stopping);
            let all_done = async { while self.workers.join_next().await.is_some() {} };
            if tokio::time::timeout(CLOSE_PATIENCE, all_done).await.is_err() {
                self.workers.abort_all();
            }
        }
        self.background.shutdown().await;
        self.journal.close();
        if let Ok(ended) = tokio::time::timeout(CLOSE_PATIENCE, self.journal_running.ended()).await {
            ended?;
        } else {
            tracing::warn!("the journal's log is still being copied back; the next start goes on with it");
        }
        drop(admin_stop);
        let _ = tokio::time::timeout(CLOSE_PATIENCE, admin).await;
        tracing::info!("ended");
        Ok(())
    }
}

/// How a listener talks TLS, if it does; its certificate is kept up to date in the background.
fn tls(
    key: &'static str,
    files: Option<&certificate::Files>,
    background: &mut JoinSet<()>,
) -> Result<Option<rustls::ServerConfig>, Error> {
    let Some(files) = files else { return Ok(None) };
    let current = certificate::Current::new(files.clone()).map_err(|problem| Error::Certificate { key, problem })?;
    let config = current.server().map_err(|error| Error::Tls { key, error })?;
    background.spawn(async move { match current.watch(key.to_owned()).await {} });
    Ok(Some(config))
}

fn bind_fix(error: &std::io::Error, addr: &SocketAddr) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::PermissionDenied if addr.port() < 1024 => {
            "ports below 1024 are root's: choose one above, or give finhook CAP_NET_BIND_SERVICE"
        }
        std::io::ErrorKind::AddrInUse => "choose another address, or stop what uses it",
        std::io::ErrorKind::AddrNotAvailable => "choose an address that this machine has, such as 127.0.0.1 or 0.0.0.0",
        _ => "choose another address",
    }
}

/// Where an endpoint is reached from this machine.
fn callback(tls: bool, listens: SocketAddr, path: &str) -> String {
    format!("{}://{}{path}", if tls { "https" } else { "http" }, serve::reach(listens))
}

/// At the file-size limit a write must fail with an error, as on a full disk; by default the signal ends the process.
fn survive_file_size_limit() {
    const SIGXFSZ: i32 = 25;
    match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::from_raw(SIGXFSZ)) {
        // The handler stays for good, whoever listens to it.
        Ok(signal) => drop(signal),
        Err(error) => tracing::warn!(%error, "can't catch SIGXFSZ: a file-size limit would end the process"),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Error, ErrorKind};

    use super::*;

    #[test]
    fn an_address_that_cant_be_bound_is_explained_by_what_is_wrong_with_it() {
        let says = |kind: ErrorKind, port: u16| {
            let addr = SocketAddr::from(([0, 0, 0, 0], port));
            super::Error::Bind { key: "server.bind", addr, error: Error::from(kind) }.to_string()
        };
        assert!(says(ErrorKind::PermissionDenied, 80).contains("ports below 1024 are root's"));
        assert!(!says(ErrorKind::PermissionDenied, 80).contains("stop what uses it"));
        assert!(says(ErrorKind::AddrInUse, 8080).contains("stop what uses it"));
        assert!(says(ErrorKind::AddrNotAvailable, 8080).contains("that this machine has"));
    }
}
