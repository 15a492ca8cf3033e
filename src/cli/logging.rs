//! The service's own log, on stderr: JSON, or text for people.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

use super::Failure;
use crate::config::{Log, LogFormat};

/// Starts the log of this process.
///
/// When stderr is closed, what would be logged is lost, and nothing else happens.
///
/// A panic is logged with its place only: its message may quote what was being worked on, and bodies stay out of logs.
pub(super) fn init(log: &Log) -> Result<(), Failure> {
    let filter = EnvFilter::builder().parse(&log.level).map_err(|e| Failure::new(format!("log.level: {e}")))?;
    let terminal = io::stderr().is_terminal();
    let format = log.format.unwrap_or(if terminal { LogFormat::Text } else { LogFormat::Json });
    let builder = fmt().with_env_filter(filter).with_writer(io::stderr).log_internal_errors(false);
    let started = match format {
        LogFormat::Json => builder.json().flatten_event(true).with_span_list(false).try_init(),
        LogFormat::Text => builder.with_ansi(terminal && std::env::var_os("NO_COLOR").is_none()).try_init(),
    };
    started.map_err(|e| Failure::new(format!("can't start the log: {e}")))?;
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "a bug: panicked; please report it");
    }));
    Ok(())
}
