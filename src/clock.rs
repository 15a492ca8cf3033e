//! Time, as the whole program tells and shows it.

use std::time::{SystemTime, UNIX_EPOCH};

/// Now, in unix milliseconds.
#[must_use]
pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
