//! `finhook serve`

use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use tokio::sync::oneshot;

use super::{FAILED, Failure, Global, Signals, logging};
use crate::app::{self, App};
use crate::config::{Config, Inputs, Loaded};

/// Run the receiver: receive, verify, store, answer, deliver.
///
/// Event lines go to stdout (the `log` sink), the service's own log goes to stderr. SIGTERM and SIGINT end it: requests
/// in flight are answered and sinks are given server.drain_timeout. A second Ctrl-C ends it at once.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  finhook serve                                  # built-in configuration and the environment
  finhook serve --config finhook.toml
  finhook serve --forward-to http://127.0.0.1:3000/fin
  FINHOOK__ENDPOINTS__FIN__SIGNING_SECRETS_FILE=/run/secrets/fin finhook serve
  finhook serve 2>service.log | jq .conversation_id")]
pub(super) struct Args {
    /// Post each event there as well: an HTTP sink named forward, without a file. Without a scheme: http
    #[arg(long, value_name = "URL")]
    forward_to: Option<String>,
}

/// Serves until a signal; a second Ctrl-C doesn't wait for the drain.
async fn serve(config: Config, mut signals: Signals) -> Result<(), app::Error> {
    let (drain, draining) = oneshot::channel::<()>();
    // Without a sender it would drain at once.
    let mut running = pin!(async { App::build(config).await?.run(async { drop(draining.await) }).await });
    tokio::select! {
        ended = &mut running => return ended,
        () = signals.any() => drop(drain),
    }
    tokio::select! {
        ended = running => ended,
        () = signals.interrupted() => {
            tracing::warn!("interrupted again: ended before the drain was done; what was acknowledged is on disk");
            Ok(())
        }
    }
}

pub(super) fn run(args: Args, global: &Global) -> Result<ExitCode, Failure> {
    let with_scheme = |url: String| if url.contains("://") { url } else { format!("http://{url}") };
    let inputs = Inputs { forward_to: args.forward_to.map(with_scheme), ..Inputs::from_process(global.config.clone()) };
    let Loaded { config, warnings, .. } = inputs.load()?;
    logging::init(&config.log)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        let signals = Signals::catch()?;
        Ok::<_, Failure>(serve(config, signals).await)
    })?;
    // What matters was awaited; a thread that hangs, e.g. in looking up a name, must not hold up the end.
    runtime.shutdown_timeout(Duration::from_millis(500));
    match result {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            // Where the log goes, so that JSON stays JSON.
            tracing::error!(error = super::chain(&error), "finhook ends with a failure");
            Ok(ExitCode::from(FAILED))
        }
    }
}
