//! `finhook check`

use std::io::Write;
use std::process::ExitCode;

use super::{Failure, Global, print};
use crate::config::Endpoint;

/// Load and check the configuration, and print the effective one as TOML: where each value came from, secrets redacted.
///
/// Nothing is opened, created or contacted. Warnings go to stderr, also of paths that can't be written and of secrets that
/// others can read. Exit code 78 when the configuration is faulty.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  finhook check                                  # the built-in configuration and the environment
  finhook check --config finhook.toml
  FINHOOK_ENV=production finhook check --config config/")]
pub(super) struct Args {}

pub(super) fn run(_: Args, global: &Global) -> Result<ExitCode, Failure> {
    let loaded = global.load()?;
    let mut warnings = loaded.warnings.clone();
    warnings.extend(loaded.access_warnings());
    // The receiver itself logs this when it starts.
    let waiting = loaded.config.endpoints.iter().filter(|(_, endpoint)| endpoint.secrets.is_empty());
    warnings.extend(waiting.map(|(name, endpoint)| {
        let fix = match &endpoint.secrets_file {
            Some(file) => format!("put it into {}", file.display()),
            None => {
                let (key, file_key) = Endpoint::secrets_key(endpoint.kind);
                let var = format!("FINHOOK__ENDPOINTS__{name}__{key}").to_uppercase();
                format!("set endpoints.{name}.{file_key}, or {var}")
            }
        };
        format!("endpoints.{name} has no signing secret yet, so POST will be answered with 503; {fix}")
    }));
    for warning in &warnings {
        writeln!(std::io::stderr(), "finhook: warning: {warning}")?;
    }
    let verdict = match warnings.len() {
        0 => "Good: finhook can start with this.".to_owned(),
        1 => "Good: finhook can start with this. 1 warning, on stderr.".to_owned(),
        n => format!("Good: finhook can start with this. {n} warnings, on stderr."),
    };
    print(&format!("{}\n# {verdict}\n", loaded.to_redacted_toml()))?;
    Ok(ExitCode::SUCCESS)
}
