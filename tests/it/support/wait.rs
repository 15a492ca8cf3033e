//! Waiting for a condition, the only way in which tests wait.

use std::time::{Duration, Instant};

/// Longer than anything takes that is expected to happen, also on a busy machine. Only a failing test waits so long.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(5);

/// Looks again and again until it holds; panics when it does not within [`PATIENCE`].
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "it never happens: {what}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// The same for a test that is a sequence of blocking steps.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "it never happens: {what}");
        std::thread::sleep(PAUSE);
    }
}
