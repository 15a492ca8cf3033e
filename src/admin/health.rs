//! Is the process alive, and should it get traffic?

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use axum::extract::State;
use axum::http::StatusCode;

use crate::journal::Journal;

/// Where the process is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Not serving yet.
    Starting = 0,
    /// Serving.
    Ready = 1,
    /// On its way out.
    Draining = 2,
}

/// Whether the process should get traffic: serving, and the journal can store.
#[derive(Debug, Clone)]
pub struct Readiness {
    stage: Arc<AtomicU8>,
    journal: Journal,
}

impl Readiness {
    /// Not ready yet.
    #[must_use]
    pub fn new(journal: Journal) -> Self {
        Self { stage: Arc::new(AtomicU8::new(Stage::Starting as u8)), journal }
    }

    /// Moves on.
    pub fn set(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Relaxed);
    }

    /// Why there should be no traffic, if so.
    #[must_use]
    pub fn not_ready(&self) -> Option<&'static str> {
        match self.stage.load(Ordering::Relaxed) {
            0 => Some("starting\n"),
            2 => Some("draining\n"),
            _ if !self.journal.is_writable() => Some("the journal can't store events; see the log\n"),
            _ => None,
        }
    }
}

pub(super) async fn readyz(State(readiness): State<Readiness>) -> (StatusCode, &'static str) {
    match readiness.not_ready() {
        None => (StatusCode::OK, "ok\n"),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, why),
    }
}
