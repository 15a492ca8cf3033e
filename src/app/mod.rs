//! Wires everything together.

use crate::config::Config;

/// Runs the receiver until it is told to stop.
///
/// # Errors
/// What made it stop.
pub async fn run(_config: Config) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    Err("not wired yet".into())
}
