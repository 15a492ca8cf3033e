//! `finhook serve`

use std::process::ExitCode;
use std::time::Duration;

use super::{FAILED, Failure, Global, logging};
use crate::app::{self, App};
use crate::config::{Config, Inputs, Loaded};

/// Run the receiver: receive, verify, store, answer, deliver.
///
/// Event lines go to stdout (the `log` sink), the service's own log goes to stderr. SIGTERM and SIGINT end it: requests
/// in flight are answered and sinks are given server.drain_timeout.
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

async fn serve(config: Config, interrupted: impl Future<Output = ()>) -> Result<(), app::Error> {
    App::build(config).await?.run(interrupted).await
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
        let interrupted = super::interrupted()?;
        Ok::<_, Failure>(serve(config, interrupted).await)
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
