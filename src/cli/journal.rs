//! `finhook journal`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;

use super::{Failure, Global, chain, print};
use crate::journal;
use crate::terminal::count;

/// Make a copy of the journal.
///
/// Works on the file that journal.path names, whether finhook runs or not.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  finhook journal backup backups/finhook-2026-11-27.db
  docker exec finhook finhook journal backup /data/backup.db")]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a consistent, checked copy, also while finhook runs
    #[command(after_help = "Example:\n  finhook journal backup backups/finhook-2026-11-27.db")]
    Backup {
        /// The new file; one that exists is left alone
        file: PathBuf,
    },
}

pub(super) fn run(args: Args, global: &Global) -> Result<ExitCode, Failure> {
    let Action::Backup { file } = args.action;
    let config = global.load()?.config;
    let done = journal::backup(&config.journal, &file).map_err(|error| Failure::new(chain(&error)))?;
    let journal::Backup { events, damaged, bytes } = done;
    print(&format!("{}: {}, {}, checked\n", file.display(), count(events, "event"), count(bytes, "byte")))?;
    if damaged > 0 {
        return Err(Failure::new(format!(
            "{} in it changed on disk before the copy was made; see \"When the journal is damaged\" in docs/RECOVERY.md",
            count(damaged, "event")
        )));
    }
    Ok(ExitCode::SUCCESS)
}
