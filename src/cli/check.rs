//! `finhook check`

use std::io::Write;
use std::process::ExitCode;

use super::{Failure, Global, print};
use crate::config::Loaded;

/// Load and check the configuration, and print the effective one as TOML with secrets redacted.
///
/// Nothing is opened, created or contacted. Warnings go to stderr. Exit code 78 when the configuration is faulty.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  finhook check                                  # the built-in configuration and the environment
  finhook check --config finhook.toml
  FINHOOK_ENV=production finhook check --config config/")]
pub(super) struct Args {}

pub(super) fn run(_: Args, global: &Global) -> Result<ExitCode, Failure> {
    let Loaded { config, warnings } = global.load()?;
    for warning in warnings {
        writeln!(std::io::stderr(), "finhook: warning: {warning}")?;
    }
    print(&config.to_redacted_toml())?;
    Ok(ExitCode::SUCCESS)
}
