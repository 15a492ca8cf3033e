//! One worker a sink: it reads the journal from its cursor and delivers, so that a slow sink delays no other.
//!
//! Sinks that take one event at a time ([`sink::Relay`]) get a [`relay`] worker with lanes; sinks that take batches
//! ([`sink::Batch`]) a [`batch`] worker. What both do is in [`worker`]. Their state is in the journal.

pub mod batch;
pub mod health;
pub mod judge;
pub mod lanes;
pub mod matching;
pub mod relay;
pub mod retry;
pub mod status;
pub mod worker;

use std::sync::Arc;

use tokio::task::JoinHandle;

use crate::sink;
pub use status::{LastError, Status};
pub use worker::{Command, Handle, Worker};

/// How far the process has come on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Not on its way.
    Running,
    /// Deliver what can be delivered now, then end.
    Draining,
    /// End now; what is under way is delivered again by the next process.
    Stopping,
}

impl Worker {
    /// Runs a sink that takes one event at a time until the process ends.
    pub fn spawn_relay(self, relay: impl sink::Relay, settings: relay::Settings) -> JoinHandle<()> {
        tokio::spawn(relay::run(self, Arc::new(relay), settings))
    }

    /// Runs a sink that takes batches until the process ends.
    pub fn spawn_batch(self, batch: impl sink::Batch) -> JoinHandle<()> {
        tokio::spawn(batch::run(self, Box::new(batch)))
    }
}
