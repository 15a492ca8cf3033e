//! Makes the configured sinks and starts their workers.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Error;
use crate::config::{Config, From, SinkKind};
use crate::dispatch::{self, Phase, relay};
use crate::journal::Journal;
use crate::metrics::Metrics;
use crate::sink::file::Archive;
use crate::sink::http::HttpRelay;
use crate::sink::log::Log;

/// Starts a worker for each sink, in `workers`, and what they need besides, in `background`. Returns the handles by which they are watched and commanded.
pub(super) async fn start(
    config: &Config,
    journal: &Journal,
    metrics: &Arc<Metrics>,
    phases: &watch::Receiver<Phase>,
    workers: &mut JoinSet<()>,
    background: &mut JoinSet<()>,
) -> Result<Vec<dispatch::Handle>, Error> {
    let mut handles = Vec::new();
    for (name, sink) in &config.sinks {
        let state = journal.sink(name, sink.from == From::Start).await?;
        if state.paused {
            tracing::warn!(sink = name, "still paused; `finhook sinks resume {name}` ends that");
        }
        let (worker, handle) =
            dispatch::Worker::new(journal, state, sink.matching.clone(), metrics.sink(name), phases.clone())?;
        let failed = |why| Error::Sink { name: name.clone(), why };
        let task = match &sink.kind {
            SinkKind::Log(log) => worker.spawn_batch(Log::stdout(log).map_err(failed)?),
            SinkKind::File(file) => worker.spawn_batch(Archive::open(file).map_err(failed)?),
            SinkKind::Http(http) => {
                let settings =
                    relay::Settings { concurrency: http.concurrency, retry: http.retry.clone(), rate: http.rate };
                let relay = HttpRelay::new(http).map_err(failed)?;
                if let Some(certificate) = relay.certificate() {
                    let watched = certificate.watch(format!("sinks.{name}.client_cert_file"));
                    background.spawn(async move { match watched.await {} });
                }
                worker.spawn_relay(relay, settings)
            }
        };
        workers.spawn(async move {
            // A panic of the worker becomes one of this task, which ends the process.
            if let Err(panicked) = task.await {
                std::panic::resume_unwind(panicked.into_panic());
            }
        });
        handles.push(handle);
    }
    for report in journal.reader()?.sinks().await? {
        let name = &*report.state.name;
        if !config.sinks.contains_key(name) {
            tracing::warn!(
                sink = name,
                "not in the configuration, or turned off: what it has not been given is kept, also beyond journal.retention, until it is \
                 back or `finhook sinks forget {name}`"
            );
        }
    }
    Ok(handles)
}
