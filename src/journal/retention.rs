//! Forgetting in time: bodies `retention` after every sink's cursor passed them, ids after the `dedupe_window`.
//!
//! An event that a sink still has to deliver, retries, or has among its dead letters keeps its body, however old; so a sink
//! that is paused, failing or removed from the configuration holds up deletion, which is reported.

use std::time::Duration;

use super::{Expired, Retention};
use crate::clock;

/// Longest time between two passes.
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// Shortest time between two passes.
const MIN_PAUSE: Duration = Duration::from_millis(100);

/// Deletes what is due, again and again, until it is dropped. `keep` is `journal.retention`.
pub async fn run(mut retention: Retention, keep: Duration) {
    let pause = (keep / 10).clamp(MIN_PAUSE, MAX_PAUSE);
    loop {
        match retention.pass(clock::now_ms()).await {
            Ok(Expired { events: 0, ids: 0 }) => {}
            Ok(expired) => tracing::debug!(expired.events, expired.ids, "retention"),
            // The journal says what is wrong with the disk; this only has to try again.
            Err(error) => tracing::warn!(%error, "retention is interrupted and tried again"),
        }
        tokio::time::sleep(pause).await;
    }
}
