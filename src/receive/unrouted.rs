//! Requests that are refused before an endpoint is known, as those of a mistyped callback URL. All are counted; what they
//! ask for is logged seldom, as strangers choose it.

use std::sync::{Mutex, PoisonError};

use axum::http::StatusCode;
use prometheus_client::metrics::counter::Counter;

use crate::metrics::{Metrics, UNROUTED_OUTCOMES};
use crate::serve::Seldom;

/// Longest path in the log, in characters.
const MAX_SHOWN: usize = 100;

/// What is said of each of [`UNROUTED_OUTCOMES`].
const SAID: [&str; UNROUTED_OUTCOMES.len()] = [
    "no endpoint has this path: answered with 404. If this is the callback URL saved in Intercom, correct it there, or set the \
     endpoint's path. Said once a minute at most",
    "this path is for health checks only: answered with 405. If this is the callback URL saved in Intercom, correct it there. \
     Said once a minute at most",
    "a request that can't be read, or could be read in two ways: answered with 400. If it is Intercom's, look at the proxy in \
     front. Said once a minute at most",
    "a request's head is over the limits of 100 lines and 32 KiB: answered with 431. If it is Intercom's, let the proxy in \
     front add less. Said once a minute at most",
];

/// Counts them and says so.
#[derive(Debug)]
pub struct Unrouted {
    counters: [Counter; UNROUTED_OUTCOMES.len()],
    said: [Mutex<Seldom>; UNROUTED_OUTCOMES.len()],
    /// The paths that there are.
    configured: String,
}

impl Unrouted {
    /// None so far. `paths` are those of the endpoints.
    #[must_use]
    pub fn new(metrics: &Metrics, paths: &[&str]) -> Self {
        Self { counters: metrics.unrouted(), said: Default::default(), configured: paths.join(" ") }
    }

    /// One was refused, with this status. `path` is what it asked for, as it came.
    pub fn refused(&self, status: StatusCode, path: &str) {
        let kind = match status {
            StatusCode::NOT_FOUND => 0,
            StatusCode::METHOD_NOT_ALLOWED => 1,
            StatusCode::URI_TOO_LONG | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => 3,
            _ => 2,
        };
        self.counters[kind].inc();
        let times = self.said[kind].lock().unwrap_or_else(PoisonError::into_inner).happened();
        if let Some(times) = times {
            tracing::warn!(path = shown(path), configured = self.configured, times, "{}", SAID[kind]);
        }
    }
}

/// A stranger's path, made safe for any terminal and cut.
fn shown(path: &str) -> String {
    let mut shown: String = path.chars().take(MAX_SHOWN).flat_map(char::escape_default).collect();
    if path.chars().nth(MAX_SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_in_the_log_is_short_and_has_nothing_but_visible_ascii() {
        assert_eq!(shown("/webhooks/fni"), "/webhooks/fni");
        assert_eq!(shown("/\u{1b}[31m\u{202e}\u{9b}\n"), r"/\u{1b}[31m\u{202e}\u{9b}\n");
        assert_eq!(shown(&"x".repeat(MAX_SHOWN)), "x".repeat(MAX_SHOWN));
        assert_eq!(shown(&"x".repeat(MAX_SHOWN + 1)), format!("{}…", "x".repeat(MAX_SHOWN)));
    }
}
